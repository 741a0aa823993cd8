//! The persisted row of one slot: which incarnation holds its data and how far its own history has come.
//!
//! Pure bytes. Must not know how slots are placed or moved.

use super::key::Incarnation;
use crate::slot::{Slot, TableId};

/// A slot's facts as of the last batch that put them; the log has what came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotEntry {
    pub table: TableId,
    pub slot: Slot,
    pub incarnation: Incarnation,
    /// The index of the slot's next record.
    pub next_index: u64,
    pub term: u64,
    /// About how many keys the slot holds: SET does not look whether its key is new.
    pub keys_estimate: u64,
}

const ENTRY_FORMAT: u8 = 1;
const ENTRY_BYTES: usize = 1 + 4 + 8 + 8 + 8;

impl SlotEntry {
    pub(super) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0] = ENTRY_FORMAT;
        bytes[1..5].copy_from_slice(&self.incarnation.0.to_be_bytes());
        bytes[5..13].copy_from_slice(&self.next_index.to_be_bytes());
        bytes[13..21].copy_from_slice(&self.term.to_be_bytes());
        bytes[21..].copy_from_slice(&self.keys_estimate.to_be_bytes());
        bytes
    }

    pub(super) fn decode(table: TableId, slot: Slot, bytes: &[u8]) -> Option<SlotEntry> {
        let bytes: &[u8; ENTRY_BYTES] = bytes.try_into().ok()?;
        if bytes[0] != ENTRY_FORMAT {
            return None;
        }
        let u64_at = |at: usize| Some(u64::from_be_bytes(*bytes[at..].first_chunk::<8>()?));
        Some(SlotEntry {
            table,
            slot,
            incarnation: Incarnation(u32::from_be_bytes(*bytes[1..].first_chunk::<4>()?)),
            next_index: u64_at(5)?,
            term: u64_at(13)?,
            keys_estimate: u64_at(21)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_encoding_and_strangers_are_refused() {
        let entry = SlotEntry {
            table: TableId(3),
            slot: Slot(1023),
            incarnation: Incarnation(77),
            next_index: u64::MAX - 1,
            term: 9,
            keys_estimate: 1 << 40,
        };
        let mut bytes = entry.encode();
        assert_eq!(SlotEntry::decode(entry.table, entry.slot, &bytes), Some(entry));
        assert_eq!(SlotEntry::decode(entry.table, entry.slot, &bytes[1..]), None);
        bytes[0] = 2;
        assert_eq!(SlotEntry::decode(entry.table, entry.slot, &bytes), None);
    }
}

//! Strings as rows of bits, the first bit of each byte being its highest. Reads and changes only the
//! bytes it must. Knows no command and no reply.

use super::string;
use crate::error::Stop;
use crate::store::row::Row;
use crate::store::tx::{KeyRef, Tx};
use std::collections::BTreeMap;
use std::ops::Range;

/// A value is looked through in portions of this size.
const PORTION_BYTES: u64 = 1 << 20;

/// A run of bits of a value, which lie within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run(pub Range<u64>);

impl Run {
    fn bytes(&self) -> Range<u64> {
        self.0.start / 8..self.0.end.div_ceil(8)
    }

    /// Sets the bits of `portion`, which begins at byte `from` of the value, that lie before and behind
    /// the run to `filler`.
    fn mask(&self, from: u64, portion: &mut [u8], filler: bool) {
        let mut fill = |at: u64, outside: u8| {
            if let Some(byte) = at.checked_sub(from).and_then(|at| portion.get_mut(at as usize)) {
                *byte = if filler { *byte | outside } else { *byte & !outside };
            }
        };
        let (head, tail) = (self.0.start % 8, self.0.end % 8);
        if head != 0 {
            fill(self.0.start / 8, !(0xff >> head));
        }
        if tail != 0 {
            fill(self.0.end / 8, 0xff >> tail);
        }
    }

    /// Calls `look` with each portion, bits outside the run set to `filler`, until it answers something.
    fn search<T>(
        &self,
        tx: &mut Tx<'_>,
        key: KeyRef<'_>,
        row: &Row,
        filler: bool,
        mut look: impl FnMut(u64, &[u8]) -> Option<T>,
    ) -> Result<Option<T>, Stop> {
        let Range { mut start, end } = self.bytes();
        while start < end {
            let upto = end.min(start + PORTION_BYTES);
            let mut portion = string::read_range(tx, key, row, start..upto)?.to_vec();
            self.mask(start, &mut portion, filler);
            if let Some(found) = look(start, &portion) {
                return Ok(Some(found));
            }
            start = upto;
        }
        Ok(None)
    }

    /// How many of its bits are set.
    pub fn count(&self, tx: &mut Tx<'_>, key: KeyRef<'_>, row: &Row) -> Result<u64, Stop> {
        let mut count = 0;
        let add = |_, portion: &[u8]| {
            count += portion.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
            None::<()>
        };
        self.search(tx, key, row, false, add)?;
        Ok(count)
    }

    /// The first of its bits that is `bit`.
    pub fn position(
        &self,
        tx: &mut Tx<'_>,
        key: KeyRef<'_>,
        row: &Row,
        bit: bool,
    ) -> Result<Option<u64>, Stop> {
        let dull = if bit { 0 } else { 0xff };
        let find = |from: u64, portion: &[u8]| {
            let at = portion.iter().position(|byte| *byte != dull)?;
            let within = (portion[at] ^ dull).leading_zeros();
            Some((from + at as u64) * 8 + u64::from(within))
        };
        self.search(tx, key, row, !bit, find)
    }
}

/// A value whose bits are being read and changed; nothing is written before the end.
pub struct Edit<'k> {
    key: KeyRef<'k>,
    row: Option<Row>,
    /// Bytes that differ from the row's, and those that make it longer.
    changed: BTreeMap<u64, u8>,
}

impl<'k> Edit<'k> {
    /// Of the row under `key`, or of nothing.
    pub fn new(key: KeyRef<'k>, row: Option<Row>) -> Edit<'k> {
        Edit { key, row, changed: BTreeMap::new() }
    }

    fn byte(&self, tx: &mut Tx<'_>, at: u64) -> Result<u8, Stop> {
        if let Some(byte) = self.changed.get(&at) {
            return Ok(*byte);
        }
        let Some(row) = self.row.as_ref().filter(|row| at < string::len(row)) else { return Ok(0) };
        Ok(string::read_range(tx, self.key, row, at..at + 1)?[0])
    }

    /// `bits` (at most 64) bits from `offset` on, as an unsigned number; behind the end are zeros.
    pub fn get(&self, tx: &mut Tx<'_>, offset: u64, bits: u32) -> Result<u64, Stop> {
        let (first, last) = (offset / 8, (offset + u64::from(bits) - 1) / 8);
        let mut number = 0_u128;
        for at in first..=last {
            number = number << 8 | u128::from(self.byte(tx, at)?);
        }
        let behind = (last + 1) * 8 - offset - u64::from(bits);
        Ok((number >> behind) as u64 & mask(bits))
    }

    /// Writes the lowest `bits` of a number.
    pub fn set(&mut self, tx: &mut Tx<'_>, offset: u64, bits: u32, number: u64) -> Result<(), Stop> {
        let (first, last) = (offset / 8, (offset + u64::from(bits) - 1) / 8);
        let behind = (last + 1) * 8 - offset - u64::from(bits);
        let (place, value) = (u128::from(mask(bits)) << behind, u128::from(number & mask(bits)) << behind);
        for (step, at) in (first..=last).rev().enumerate() {
            let (place, value) = ((place >> (8 * step)) as u8, (value >> (8 * step)) as u8);
            let byte = self.byte(tx, at)? & !place | value;
            self.changed.insert(at, byte);
        }
        Ok(())
    }

    /// Makes the value at least long enough to hold this bit.
    pub fn reach(&mut self, tx: &mut Tx<'_>, bit: u64) -> Result<(), Stop> {
        let last = bit / 8;
        if self.row.as_ref().is_none_or(|row| string::len(row) <= last) {
            let byte = self.byte(tx, last)?;
            self.changed.insert(last, byte);
        }
        Ok(())
    }

    /// Puts what was changed into the key; its end stays.
    pub fn finish(self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let existed = self.row.is_some();
        let row = string::write_bytes(tx, self.key, self.row, &self.changed)?;
        tx.put(self.key, row, Some(existed));
        Ok(())
    }
}

fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::row::{STRING_INLINE_MAX_BYTES, STRING_PIECE_BYTES};
    use crate::types::memory::{Memory, scope};
    use proptest::prelude::*;

    /// The same edits on a plain vector.
    fn model_set(value: &mut Vec<u8>, offset: u64, bits: u32, number: u64) {
        for bit in 0..bits {
            let at = offset + u64::from(bit);
            let (byte, place) = ((at / 8) as usize, 7 - at % 8);
            if value.len() <= byte {
                value.resize(byte + 1, 0);
            }
            let set = number >> (bits - 1 - bit) & 1;
            value[byte] = value[byte] & !(1 << place) | (set as u8) << place;
        }
    }

    #[test]
    fn far_apart_changes_touch_their_pieces_alone() {
        let mut memory = Memory::default();
        let far = 400 << 23;
        let work = |tx: &mut Tx<'_>| {
            let mut edit = Edit::new(tx.key(b"k"), None);
            edit.set(tx, far, 8, 0xff)?;
            edit.set(tx, 3, 2, 3)?;
            edit.finish(tx)
        };
        let (result, effects) = memory.run(scope(), work);
        result.unwrap();
        assert_eq!(effects.len(), 3, "two pieces and the row");
        assert_eq!(memory.element_reads, 0);
    }

    proptest! {
        #[test]
        fn edits_of_any_value_do_what_they_do_to_plain_bytes(
            length in prop_oneof![0..40_usize, STRING_INLINE_MAX_BYTES - 9..STRING_INLINE_MAX_BYTES + 9],
            edits in prop::collection::vec((0..(STRING_PIECE_BYTES as u64) * 48, 1..=64_u32, any::<u64>()), 1..6),
        ) {
            let mut memory = Memory::default();
            let mut model: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let start = model.clone();
            let prepare = |tx: &mut Tx<'_>| {
                let row = string::create(tx, tx.key(b"k"), &start)?;
                tx.put(tx.key(b"k"), row, None);
                Ok(())
            };
            memory.run(scope(), prepare).0.unwrap();
            let edit = |tx: &mut Tx<'_>| {
                let row = tx.row(tx.key(b"k"))?;
                let mut edit = Edit::new(tx.key(b"k"), row);
                let mut seen = Vec::new();
                for &(offset, bits, number) in &edits {
                    edit.set(tx, offset, bits, number)?;
                    seen.push(edit.get(tx, offset, bits)?);
                }
                edit.finish(tx)?;
                Ok(seen)
            };
            let seen = memory.run(scope(), edit).0.unwrap();
            for (&(offset, bits, number), seen) in edits.iter().zip(seen) {
                model_set(&mut model, offset, bits, number);
                prop_assert_eq!(seen, number & mask(bits));
            }
            let total = model.len() as u64 * 8;
            let (from, to) = (total / 7, total - total / 9);
            let read = |tx: &mut Tx<'_>| {
                let key = tx.key(b"k");
                let row = tx.row(key)?.expect("it was put");
                let run = Run(from..to);
                let both = (run.position(tx, key, &row, true)?, run.position(tx, key, &row, false)?);
                Ok((string::read(tx, key, &row)?, run.count(tx, key, &row)?, both))
            };
            let (value, count, (one, zero)) = memory.run(scope(), read).0.unwrap();
            prop_assert_eq!(&value[..], &model[..]);
            let bit = |at: u64| model[(at / 8) as usize] >> (7 - at % 8) & 1 == 1;
            prop_assert_eq!(count, (from..to).filter(|at| bit(*at)).count() as u64);
            prop_assert_eq!(one, (from..to).find(|at| bit(*at)));
            prop_assert_eq!(zero, (from..to).find(|at| !bit(*at)));
        }
    }
}

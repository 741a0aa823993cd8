//! Where a key lives: slots, the tag rule and the two slot hashes.
//!
//! Pure. `set` and `assignment`: which slots a node has; `placement`: on which of its shards. Must not know cores or
//! storage.

pub mod assignment;
pub mod placement;
pub mod set;

use crc::{CRC_16_XMODEM, Crc, Table};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::ops::RangeInclusive;

/// A hash bucket of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// A namespace of keys: a numbered database in classic mode, a table in sharding mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// A storage partition of this node: one RocksDB and one binlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A pinned executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// Number of slots of Redis Cluster, which its clients have built in.
pub const CLUSTER_SLOTS: u16 = 16384;

/// How a table turns a key into a slot; fixed when the table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotHash {
    /// zlib's crc32 modulo the table's slot count (Pika, Codis).
    Crc32 { slots: u16 },
    /// Redis Cluster's crc16 modulo 16384.
    Crc16,
}

/// Reads a text that is kept in this version of its form, which it begins with; others are refused.
fn from_kept<T: DeserializeOwned>(text: &str, format: u32) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = toml::from_str(text).map_err(|error| error.to_string())?;
    if head.format != format {
        return Err(format!("it has format {}; this program knows {format}", head.format));
    }
    toml::from_str(text).map_err(|error| error.to_string())
}

static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

impl SlotHash {
    pub fn slots(self) -> u16 {
        match self {
            SlotHash::Crc32 { slots } => slots,
            SlotHash::Crc16 => CLUSTER_SLOTS,
        }
    }

    /// How many slots a table may have, where this is the usual way: where a slot lies is known for so many.
    pub fn slots_of_a_table(self) -> RangeInclusive<u16> {
        match self {
            SlotHash::Crc32 { slots } => 1..=slots,
            SlotHash::Crc16 => CLUSTER_SLOTS..=CLUSTER_SLOTS,
        }
    }

    pub fn slot_of(self, key: &[u8]) -> Slot {
        match self {
            SlotHash::Crc32 { slots } => Slot((crc32fast::hash(codis_tag(key)) % u32::from(slots)) as u16),
            SlotHash::Crc16 => Slot(CRC16.checksum(cluster_tag(key)) % CLUSTER_SLOTS),
        }
    }
}

/// Pika's and Codis's rule: what stands between the first `{` and the first `}` after it, even if empty.
fn codis_tag(key: &[u8]) -> &[u8] {
    braces(key).unwrap_or(key)
}

/// Redis Cluster's rule: as above, but empty braces mean the whole key.
fn cluster_tag(key: &[u8]) -> &[u8] {
    braces(key).filter(|tag| !tag.is_empty()).unwrap_or(key)
}

fn braces(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)?;
    let rest = &key[open + 1..];
    Some(&rest[..memchr::memchr(b'}', rest)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_slots_are_those_of_redis() {
        // Values from `CLUSTER KEYSLOT` of redis-server 7.0.
        for (key, slot) in [("foo", 12182), ("bar", 5061), ("{foo}bar", 12182), ("{}x", 10595), ("", 0)] {
            assert_eq!(SlotHash::Crc16.slot_of(key.as_bytes()), Slot(slot), "{key}");
        }
    }

    #[test]
    fn crc32_slots_follow_zlib() {
        let hash = SlotHash::Crc32 { slots: 1024 };
        // zlib.crc32(b"123456789") == 0xCBF43926
        assert_eq!(hash.slot_of(b"123456789"), Slot((0xCBF4_3926u32 % 1024) as u16));
        assert_eq!(hash.slot_of(b"a{123456789}b"), hash.slot_of(b"123456789"));
        assert_eq!(hash.slot_of(b"x{}y"), Slot(0), "an empty tag is a tag");
        assert_eq!(hash.slot_of(b"{open"), Slot((crc32fast::hash(b"{open") % 1024) as u16));
    }
}

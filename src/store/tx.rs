//! One command's view of the data: reads through a `Source`, effects gathered apart.
//!
//! The same handler runs over the shard itself, over rows fetched from several shards, or over a
//! snapshot on the blocking pool; only the `Source` differs. Must not know which.

use super::row::{Row, Version};
use crate::error::{ClientError, Stop};
use crate::slot::{Slot, SlotHash, TableId};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// A key with its place in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef<'k> {
    pub table: TableId,
    pub slot: Slot,
    pub name: &'k [u8],
}

/// Where a handler's reads come from.
pub trait Source {
    /// The row under a name, expired or not. `Stop::Cold` when it is not in memory.
    fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop>;

    /// One element of a key's value: for a long string, `sub` is the piece's number, big-endian u32.
    fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop>;

    /// The index the slot's next record will have: the upper part of a new `Version`.
    fn next_index(&mut self, table: TableId, slot: Slot) -> u64;

    /// Seconds since the key was last used, as far as memory goes back: 0 for a key that is not there.
    fn idle_seconds(&mut self, key: KeyRef<'_>) -> u64;
}

/// What a command does to one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The row under the name becomes this.
    Put(Row),
    /// The name is gone; its elements, if any, become garbage of their version.
    Delete,
    /// One element becomes this, or is gone.
    Element { version: Version, sub: SmallVec<[u8; 16]>, value: Option<Bytes> },
}

/// One change with the key it falls on.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub table: TableId,
    pub slot: Slot,
    pub name: Bytes,
    pub change: Change,
    /// Whether the name had a living row before, where the command had to look; for counting keys.
    pub existed: Option<bool>,
}

/// Facts about the caller that a handler may use.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The table that SELECT chose.
    pub table: TableId,
    pub hash: SlotHash,
    /// Number of tables that may be named.
    pub tables: u32,
    /// Fixed for the turn: handlers never read a clock. Milliseconds since the epoch.
    pub now_ms: u64,
    /// Longest value accepted, bytes.
    pub value_max_bytes: u64,
    /// Reads a handler may make before it must leave the core's turn; none on the pool.
    pub steps_max: u32,
}

/// A command in progress.
pub struct Tx<'s> {
    pub scope: Scope,
    source: &'s mut dyn Source,
    effects: SmallVec<[Effect; 1]>,
    /// Last row effect by name, kept only once there are many effects.
    latest: FxHashMap<(TableId, Bytes), usize>,
    versions: u16,
    steps: u32,
}

/// Below this many effects a command's own writes are found by looking through them.
const SCAN_EFFECTS_MAX: usize = 8;

impl<'s> Tx<'s> {
    pub fn new(scope: Scope, source: &'s mut dyn Source) -> Tx<'s> {
        Tx { scope, source, effects: SmallVec::new(), latest: FxHashMap::default(), versions: 0, steps: 0 }
    }

    pub fn now_ms(&self) -> u64 {
        self.scope.now_ms
    }

    /// The key of this name in the caller's table.
    pub fn key<'k>(&self, name: &'k [u8]) -> KeyRef<'k> {
        self.key_in(self.scope.table, name)
    }

    pub fn key_in<'k>(&self, table: TableId, name: &'k [u8]) -> KeyRef<'k> {
        KeyRef { table, slot: self.scope.hash.slot_of(name), name }
    }

    /// Counts work; fails with `Stop::Long` when it is more than a turn may spend.
    pub fn spend(&mut self, steps: u32) -> Result<(), Stop> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.scope.steps_max { Err(Stop::Long) } else { Ok(()) }
    }

    /// The living row of a key, with this command's own writes in it.
    pub fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
        let now_ms = self.scope.now_ms;
        let row = match self.own(key) {
            Some(Change::Put(row)) => Some(row.clone()),
            Some(_) => None,
            None => {
                self.spend(1)?;
                self.source.row(key)?
            }
        };
        Ok(row.filter(|row| !row.expired(now_ms)))
    }

    /// An element of a version this command has not itself made or changed.
    pub fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        self.spend(1)?;
        self.source.element(key, version, sub)
    }

    pub fn idle_seconds(&mut self, key: KeyRef<'_>) -> u64 {
        self.source.idle_seconds(key)
    }

    /// `existed`: whether the key had a living row, if the command looked.
    pub fn put(&mut self, key: KeyRef<'_>, row: Row, existed: Option<bool>) {
        self.push(key, Change::Put(row), existed);
    }

    /// Only for a key that has a living row.
    pub fn delete(&mut self, key: KeyRef<'_>) {
        self.push(key, Change::Delete, Some(true));
    }

    pub fn put_element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8], value: Option<Bytes>) {
        self.push(key, Change::Element { version, sub: SmallVec::from_slice(sub), value }, None);
    }

    /// A version no other life of any key has, on this node or another.
    pub fn new_version(&mut self, key: KeyRef<'_>) -> Result<Version, Stop> {
        let counter = self.versions;
        self.versions = counter
            .checked_add(1)
            .ok_or_else(|| ClientError::fixed("ERR too many new large values in one command"))?;
        Ok(Version(self.source.next_index(key.table, key.slot) << 16 | u64::from(counter)))
    }

    /// What the command does, in order; empty for one that only reads.
    pub fn into_effects(self) -> SmallVec<[Effect; 1]> {
        self.effects
    }

    fn own(&self, key: KeyRef<'_>) -> Option<&Change> {
        let of_key = |effect: &&Effect| {
            effect.name == key.name
                && effect.table == key.table
                && !matches!(effect.change, Change::Element { .. })
        };
        if self.effects.len() <= SCAN_EFFECTS_MAX {
            return self.effects.iter().rev().find(of_key).map(|effect| &effect.change);
        }
        let at = self.latest.get(&(key.table, Bytes::copy_from_slice(key.name)))?;
        Some(&self.effects[*at].change)
    }

    fn push(&mut self, key: KeyRef<'_>, change: Change, existed: Option<bool>) {
        let name = match self.effects.last() {
            Some(last) if last.name == key.name => last.name.clone(),
            _ => Bytes::copy_from_slice(key.name),
        };
        self.effects.push(Effect { table: key.table, slot: key.slot, name, change, existed });
        let count = self.effects.len();
        if count > SCAN_EFFECTS_MAX {
            let from = if self.latest.is_empty() { 0 } else { count - 1 };
            for (at, effect) in self.effects.iter().enumerate().skip(from) {
                if !matches!(effect.change, Change::Element { .. }) {
                    self.latest.insert((effect.table, effect.name.clone()), at);
                }
            }
        }
    }
}

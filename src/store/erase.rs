//! Giving back the space of what nobody reads, incarnations or the elements of one key: files that hold nothing
//! else go at once, the rest when compaction rewrites it. No tombstones: range deletes would burden every read
//! behind them.
//!
//! Must not know why something is dead.

use super::StoreError;
use super::db::Open;
use super::key::{Family, Incarnation, Key, element_key, last_key, prefix};
use super::row::Version;
use super::scan::View;
use rocksdb::{BottommostLevelCompaction, CompactOptions, ReadTier};
use std::sync::Arc;

/// Erases incarnations, on the pool. They are below the persisted slot table and never named again.
///
/// Entries of the time index lie by moment, not by incarnation; compaction drops those it meets while this
/// runs, the others are found to point nowhere when they fall due.
pub struct EraseJob {
    open: Arc<Open>,
    incarnations: Vec<Incarnation>,
}

/// How an erasure went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erased {
    Done,
    /// A snapshot or a staged write held it up; run the job again.
    Later,
}

impl EraseJob {
    pub(super) fn new(open: Arc<Open>, incarnations: Vec<Incarnation>) -> EraseJob {
        assert!(!incarnations.contains(&Incarnation::SYSTEM), "the store's own rows are never erased");
        EraseJob { open, incarnations }
    }

    pub fn run(&self) -> Result<Erased, StoreError> {
        self.open.gate.bury(&self.incarnations);
        let outcome = self.erase();
        if matches!(outcome, Ok(Erased::Done)) {
            self.open.gate.forget(&self.incarnations);
        }
        outcome
    }

    fn erase(&self) -> Result<Erased, StoreError> {
        for &incarnation in &self.incarnations {
            let (from, to) = (prefix(incarnation).to_vec(), last_key(incarnation));
            for family in [Family::Row, Family::Element] {
                self.open
                    .db
                    .delete_file_in_range_cf(self.open.family(family), &from, &to)
                    .map_err(StoreError::of("deleting files"))?;
            }
        }
        for incarnation in self.left()? {
            for family in [Family::Row, Family::Element] {
                // Nothing of a dead incarnation is in a memtable, so this seals none.
                compact(&self.open, family, &prefix(incarnation), &last_key(incarnation));
            }
        }
        Ok(if self.left()?.is_empty() { Erased::Done } else { Erased::Later })
    }

    fn left(&self) -> Result<Vec<Incarnation>, StoreError> {
        let mut left = View::new(&self.open.db, ReadTier::All, None, false).incarnations()?;
        left.retain(|incarnation| self.incarnations.contains(incarnation));
        Ok(left)
    }
}

/// Rewrites a family's files that reach into a range, both ends included, whatever level they lie in.
fn compact(open: &Open, family: Family, from: &[u8], to: &[u8]) {
    let mut how = CompactOptions::default();
    how.set_exclusive_manual_compaction(false);
    how.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    open.db.compact_range_cf_opt(open.family(family), Some(from), Some(to), &how);
}

/// A key's elements of one version and of all before it, which no row names any more.
///
/// Those of two keys are never joined to one range, near as they may lie: elements in between may be in a
/// memtable, and RocksDB would write it out for them.
#[derive(Clone, Debug)]
pub struct DeadElements {
    pub incarnation: Incarnation,
    pub name: Box<[u8]>,
    pub version: Version,
}

/// Gives back the space of dead elements, on the pool. Files must say that they are dead.
pub struct CompactJob {
    open: Arc<Open>,
    from: Key,
    to: Key,
}

/// How giving back space went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// Nothing of it is left.
    Done,
    /// A snapshot or a staged write held it up, and nothing was tried.
    Pinned,
    /// Files were rewritten, and some of it is still there: a snapshot came in between, or the disk is full.
    Partly,
}

impl CompactJob {
    pub(super) fn new(open: Arc<Open>, dead: &DeadElements) -> CompactJob {
        let key = |version, sub: &[u8]| element_key(dead.incarnation, &dead.name, version, sub);
        // Tags lie below 255.
        CompactJob { open, from: key(Version(0), &[]), to: key(dead.version, &[u8::MAX]) }
    }

    pub fn run(&self) -> Result<Compacted, StoreError> {
        // What lay in the same files as another's has gone with it.
        if self.is_done()? {
            return Ok(Compacted::Done);
        }
        if self.open.gate.is_pinned() {
            return Ok(Compacted::Pinned);
        }
        // Of a dead version nothing is in a memtable, so this seals none.
        compact(&self.open, Family::Element, &self.from, &self.to);
        Ok(if self.is_done()? { Compacted::Done } else { Compacted::Partly })
    }

    fn is_done(&self) -> Result<bool, StoreError> {
        let view = View::new(&self.open.db, ReadTier::All, None, false);
        Ok(!view.has_elements(&self.from, &self.to)?)
    }
}

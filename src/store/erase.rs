//! Giving back the space of incarnations nobody reads: files that hold nothing else go at once, the rest when
//! compaction rewrites it. No tombstones: range deletes would burden every read behind them.
//!
//! Must not know why an incarnation is dead.

use super::StoreError;
use super::db::Open;
use super::key::{Family, Incarnation, last_key, prefix};
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
        let mut how = CompactOptions::default();
        how.set_exclusive_manual_compaction(false);
        how.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for incarnation in self.left()? {
            for family in [Family::Row, Family::Element] {
                // Nothing of a dead incarnation is in a memtable, so this seals none.
                self.open.db.compact_range_cf_opt(
                    self.open.family(family),
                    Some(prefix(incarnation)),
                    Some(last_key(incarnation)),
                    &how,
                );
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

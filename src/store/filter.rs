//! What compaction may forget: elements whose row is gone or newer, and everything of erased incarnations.
//!
//! It looks only at rows that are in files (`ReadTier::Persisted`): with the newest row instead, a crash
//! would bring a key back without its elements. It never looks at the clock: expiry is a logged deletion. For
//! that to be right: an element enters a file together with the row that names its version, or under a pin.

use super::key::{Family, Incarnation, Key, row_key, split_element_key, split_row_key, split_time_key};
use super::row::{Row, Version};
use bytes::Bytes;
use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{DB, ReadOptions, ReadTier};
use rustc_hash::FxHashSet;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

/// What a store and its filters share. Locked only by compactions and by jobs on the pool.
#[derive(Default)]
pub(super) struct Gate {
    /// Empty before the store is open and once it closes.
    db: RwLock<Weak<DB>>,
    pins: AtomicUsize,
    dead: Mutex<Arc<FxHashSet<Incarnation>>>,
}

impl Gate {
    pub fn open(&self, db: &Arc<DB>) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(db);
    }

    /// After this no filter holds the database, so a filter's thread is never the one that closes it.
    pub fn close(&self) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Weak::new();
    }

    pub fn pin(&self) {
        self.pins.fetch_add(1, Ordering::SeqCst);
    }

    pub fn unpin(&self) {
        let before = self.pins.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a pin is released once");
    }

    pub fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }

    pub fn bury(&self, incarnations: &[Incarnation]) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut dead).extend(incarnations);
    }

    pub fn forget(&self, incarnations: &[Incarnation]) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut dead).retain(|incarnation| !incarnations.contains(incarnation));
    }

    fn dead(&self) -> Arc<FxHashSet<Incarnation>> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The version a key's row in the files names, if the files have a row of this key at all.
    fn persisted(&self, row: &Key) -> Persisted {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = db.upgrade() else { return Persisted::Unknown };
        let mut read = ReadOptions::default();
        read.set_read_tier(ReadTier::Persisted);
        read.fill_cache(false);
        let Ok(found) = db.get_pinned_opt(row, &read) else { return Persisted::Unknown };
        let Some(found) = found else { return Persisted::None };
        match Row::decode(&Bytes::copy_from_slice(&found)) {
            Ok(row) => row.version().map_or(Persisted::None, Persisted::Names),
            Err(_) => Persisted::Unknown,
        }
    }
}

/// What the files say of a key's elements.
#[derive(Clone, Copy)]
enum Persisted {
    /// There are none: no row, or one that holds its value itself.
    None,
    /// Those of this version, and perhaps later ones.
    Names(Version),
    /// It cannot be said now.
    Unknown,
}

pub(super) struct Factory {
    family: Family,
    gate: Arc<Gate>,
}

impl Factory {
    pub fn new(family: Family, gate: Arc<Gate>) -> Factory {
        Factory { family, gate }
    }
}

const NAME: &CStr = c"haypile.garbage";

impl CompactionFilterFactory for Factory {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        Filter { family: self.family, gate: self.gate.clone(), dead: self.gate.dead(), last: None }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// One compaction's filter.
pub(super) struct Filter {
    family: Family,
    gate: Arc<Gate>,
    dead: Arc<FxHashSet<Incarnation>>,
    /// The row last asked for: elements of one key come one after the other.
    last: Option<(Key, Persisted)>,
}

impl Filter {
    fn is_garbage(&mut self, key: &[u8]) -> bool {
        match self.family {
            Family::Row => {
                split_row_key(key).is_some_and(|(incarnation, _)| self.dead.contains(&incarnation))
            }
            Family::Time => {
                split_time_key(key).is_some_and(|(_, incarnation, _)| self.dead.contains(&incarnation))
            }
            Family::Element => split_element_key(key).is_some_and(|(incarnation, name, version, _)| {
                self.dead.contains(&incarnation)
                    || match self.persisted(row_key(incarnation, name)) {
                        Persisted::None => true,
                        Persisted::Names(current) => version < current,
                        Persisted::Unknown => false,
                    }
            }),
        }
    }

    /// An answer from earlier in this compaction will do: the rows of all elements it reads were in files
    /// when it began, and a row only ever becomes newer.
    fn persisted(&mut self, row: Key) -> Persisted {
        if let Some((last, answer)) = &self.last
            && *last == row
        {
            return *answer;
        }
        let answer = self.gate.persisted(&row);
        self.last = Some((row, answer));
        answer
    }
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], _value: &[u8]) -> Decision {
        // A snapshot made after a key was found to be garbage finds it garbage too; one made before may need
        // it.
        if self.gate.is_pinned() || !self.is_garbage(key) {
            return Decision::Keep;
        }
        Decision::Remove
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

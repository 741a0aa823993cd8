//! Reads over ranges, and point reads as of one state.
//!
//! RocksDB's iterators end without a sign when the cache-only tier runs out; here, and only here, their
//! status is looked at, and a scan says `End` or `Miss`.

use super::StoreError;
use super::db::{Cached, family_of, get_element, get_row};
use super::key::{
    ElementKey, ElementRange, Family, Incarnation, Key, element_key, prefix, row_key, split_row_key,
    split_time_key, system,
};
use super::row::{Kind, Row, Version};
use super::tx::Visit;
use super::value::copied;
use crate::error::Stop;
use bytes::Bytes;
use rocksdb::{DB, DBRawIterator, ErrorKind, ReadOptions, ReadTier, Snapshot};
use std::ops::Bound;

/// Elements loaded for a scan that memory was not enough for: what most commands want of one place.
const WARM_ELEMENTS: usize = 256;

/// What comes next in a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    Item(T),
    /// There is nothing more.
    End,
    /// There may be more, but not in memory.
    Miss,
}

/// One way to read: from which tier, and as of when. Only cache-only views answer `Miss`.
pub struct View<'d> {
    db: &'d DB,
    tier: ReadTier,
    snapshot: Option<&'d Snapshot<'d>>,
    fill_cache: bool,
    point: ReadOptions,
}

impl<'d> View<'d> {
    pub(super) fn new(
        db: &'d DB,
        tier: ReadTier,
        snapshot: Option<&'d Snapshot<'d>>,
        fill_cache: bool,
    ) -> View<'d> {
        let mut view = View { db, tier, snapshot, fill_cache, point: ReadOptions::default() };
        // Single keys are read because a client wants them: they may stay in the cache.
        view.point = view.options();
        view.point.fill_cache(true);
        view
    }

    pub fn row(&self, incarnation: Incarnation, name: &[u8]) -> Result<Cached<Row>, StoreError> {
        get_row(self.db, &self.point, &row_key(incarnation, name))
    }

    pub fn element(&self, key: &ElementKey) -> Result<Cached<Bytes>, StoreError> {
        get_element(self.db, &self.point, key)
    }

    /// Elements of a range, each by its sub and its value, until `visit` answers false. `Item` then; `Miss`
    /// where memory ends: what was visited before stands in memory.
    pub fn elements(&self, range: &ElementRange, visit: &mut Visit<'_>) -> Result<Step<()>, Stop> {
        let mut iter = self.open(Family::Element, &range.from.0, &range.to.0, range.backward);
        while let Some((key, value)) = iter.item() {
            if !visit(&key[range.head_bytes..], value)? {
                return Ok(Step::Item(()));
            }
            if range.backward { iter.prev() } else { iter.next() }
        }
        match iter.status() {
            Ok(()) => Ok(Step::End),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Step::Miss),
            Err(error) => Err(StoreError::of("scanning elements")(error).into()),
        }
    }

    /// Loads the first elements of a range into the block cache.
    pub(super) fn warm(&self, from: &Key, to: &Key, backward: bool) -> Result<(), StoreError> {
        let mut iter = self.open(Family::Element, from, to, backward);
        for _ in 0..WARM_ELEMENTS {
            if !iter.valid() {
                break;
            }
            if backward { iter.prev() } else { iter.next() }
        }
        iter.status().map_err(StoreError::of("loading into memory"))
    }

    fn open(&self, family: Family, from: &Key, to: &Key, backward: bool) -> DBRawIterator<'d> {
        let mut read = self.options();
        read.set_iterate_lower_bound(from.to_vec());
        read.set_iterate_upper_bound(to.to_vec());
        let mut iter = self.db.raw_iterator_cf_opt(family_of(self.db, family), read);
        if backward {
            iter.seek_to_last()
        } else {
            iter.seek(from)
        }
        iter
    }

    /// The LSN of the last batch this view has in it; 0 before the first.
    pub fn applied_lsn(&self) -> Result<Cached<u64>, StoreError> {
        let key = row_key(Incarnation::SYSTEM, &system::PERSISTED_LSN);
        match self.db.get_pinned_opt(&key, &self.point) {
            Ok(None) => Ok(Cached::Absent),
            Ok(Some(bytes)) => match <[u8; 8]>::try_from(&bytes[..]) {
                Ok(bytes) => Ok(Cached::Found(u64::from_be_bytes(bytes))),
                Err(_) => Err(StoreError::damaged("the applied LSN", "length", &key)),
            },
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::Miss),
            Err(error) => Err(StoreError::of("reading the applied LSN")(error)),
        }
    }

    /// Rows of one incarnation in byte order, from behind `after`; expired ones too.
    pub fn rows(&self, incarnation: Incarnation, after: Option<&[u8]>) -> RowScan<'d> {
        let low = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows_between(incarnation, low, Bound::Unbounded, false)
    }

    /// Rows of one incarnation between two names, which need not be names that a key can have; in byte order
    /// or against it; expired ones too.
    pub fn rows_between(
        &self,
        incarnation: Incarnation,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        backward: bool,
    ) -> RowScan<'d> {
        let at = |name: &[u8], behind: bool| {
            let mut key = prefix(incarnation);
            key.extend_from_slice(name);
            if behind {
                key.push(0);
            }
            key
        };
        let from = match low {
            Bound::Unbounded => prefix(incarnation),
            Bound::Included(name) => at(name, false),
            Bound::Excluded(name) => at(name, true),
        };
        let end = match high {
            Bound::Unbounded => prefix(incarnation.next()),
            Bound::Included(name) => at(name, true),
            Bound::Excluded(name) => at(name, false),
        };
        RowScan { scan: self.scan(Family::Row, &from, end.to_vec(), backward) }
    }

    /// Entries of the time index due at `now_ms`, the oldest first. Whether a row really expires is for the
    /// row to say: it may have changed since.
    pub fn due(&self, now_ms: u64) -> DueScan<'d> {
        let end = now_ms.saturating_add(1).to_be_bytes().to_vec();
        DueScan { scan: self.scan(Family::Time, &[], end, false) }
    }

    /// Reads every row's head: for the pool.
    pub fn count_rows(&self, incarnation: Incarnation, now_ms: u64) -> Result<Step<Counted>, StoreError> {
        let mut counted = Counted::default();
        let mut rows = self.rows(incarnation, None);
        loop {
            match rows.next()? {
                Step::Item(item) => counted.add(item.head()?.expire_ms, now_ms),
                Step::End => return Ok(Step::Item(counted)),
                Step::Miss => return Ok(Step::Miss),
            }
        }
    }

    /// All incarnations that have a row or an element here, erased ones that left something behind included.
    /// One seek for each; not for cache-only views, where a miss is an error here.
    pub fn incarnations(&self) -> Result<Vec<Incarnation>, StoreError> {
        let mut found = Vec::new();
        for family in [Family::Row, Family::Element] {
            let mut iter = self.db.raw_iterator_cf_opt(family_of(self.db, family), self.options());
            iter.seek(prefix(Incarnation::FIRST));
            while let Some((incarnation, _)) = iter.key().and_then(split_row_key) {
                found.push(incarnation);
                iter.seek(prefix(incarnation.next()));
            }
            iter.status().map_err(StoreError::of("looking for incarnations"))?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Whether there are elements between two keys, the second not included.
    pub(super) fn has_elements(&self, from: &Key, to: &Key) -> Result<bool, StoreError> {
        let iter = self.open(Family::Element, from, to, false);
        iter.status().map_err(StoreError::of("looking for elements"))?;
        Ok(iter.valid())
    }

    /// Everything one family holds of an incarnation.
    pub(super) fn whole(&self, family: Family, incarnation: Incarnation) -> Scan<'d> {
        self.scan(family, &prefix(incarnation), prefix(incarnation.next()).to_vec(), false)
    }

    /// The row of one key, as an entry.
    pub(super) fn one_row(&self, incarnation: Incarnation, name: &[u8]) -> Scan<'d> {
        let key = row_key(incarnation, name);
        let mut end = key.to_vec();
        end.push(0);
        self.scan(Family::Row, &key, end, false)
    }

    /// The elements of one key, of whatever version.
    pub(super) fn elements_of(&self, incarnation: Incarnation, name: &[u8]) -> Scan<'d> {
        let [from, mut end] =
            [0, u64::MAX].map(|version| element_key(incarnation, name, Version(version), &[]));
        // No key was ever written so often that it had this version.
        end.push(0);
        self.scan(Family::Element, &from, end.to_vec(), false)
    }

    fn options(&self) -> ReadOptions {
        let mut read = ReadOptions::default();
        read.set_read_tier(self.tier);
        read.fill_cache(self.fill_cache);
        if let Some(snapshot) = self.snapshot {
            read.set_snapshot(snapshot);
        }
        read
    }

    fn scan(&self, family: Family, from: &[u8], end: Vec<u8>, backward: bool) -> Scan<'d> {
        let mut read = self.options();
        read.set_iterate_upper_bound(end);
        if backward {
            read.set_iterate_lower_bound(from);
        }
        let mut iter = self.db.raw_iterator_cf_opt(family_of(self.db, family), read);
        if backward {
            iter.seek_to_last()
        } else {
            iter.seek(from)
        }
        Scan { iter, backward, fresh: true }
    }
}

/// Rows by the state of their expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub living: u64,
    /// Of the living, those that will expire.
    pub expiring: u64,
    pub expired: u64,
}

impl Counted {
    fn add(&mut self, expire_ms: Option<u64>, now_ms: u64) {
        match expire_ms {
            Some(at) if at <= now_ms => self.expired += 1,
            Some(_) => {
                self.living += 1;
                self.expiring += 1;
            }
            None => self.living += 1,
        }
    }
}

/// A key and its value.
type Entry<'s> = (&'s [u8], &'s [u8]);

pub(super) struct Scan<'d> {
    iter: DBRawIterator<'d>,
    backward: bool,
    /// Stands on what has not been given out yet.
    fresh: bool,
}

impl Scan<'_> {
    /// The next key and value, for a view that never misses.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry<'_>>, StoreError> {
        Ok(match self.next()? {
            Step::Item(entry) => Some(entry),
            Step::End => None,
            Step::Miss => unreachable!("only cache-only views miss"),
        })
    }

    fn next(&mut self) -> Result<Step<Entry<'_>>, StoreError> {
        if !self.fresh && self.iter.valid() {
            if self.backward { self.iter.prev() } else { self.iter.next() }
        }
        self.fresh = false;
        if !self.iter.valid() {
            return match self.iter.status() {
                Ok(()) => Ok(Step::End),
                Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Step::Miss),
                Err(error) => Err(StoreError::of("scanning")(error)),
            };
        }
        Ok(Step::Item(self.iter.item().expect("a valid iterator stands on an item")))
    }
}

/// A row met in a scan, not decoded yet.
pub struct RowItem<'s> {
    pub name: &'s [u8],
    bytes: &'s [u8],
}

/// What can be told of a row without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHead {
    pub kind: Kind,
    pub expire_ms: Option<u64>,
}

impl RowItem<'_> {
    /// Copies the value.
    pub fn row(&self) -> Result<Row, StoreError> {
        Row::decode(&copied(self.bytes)).map_err(|why| StoreError::damaged("a row", why, self.name))
    }

    /// Copies no value.
    pub fn head(&self) -> Result<RowHead, StoreError> {
        let (kind, expire_ms) =
            Row::decode_head(self.bytes).map_err(|why| StoreError::damaged("a row", why, self.name))?;
        Ok(RowHead { kind, expire_ms })
    }
}

/// Rows of one incarnation, one after the other.
pub struct RowScan<'d> {
    scan: Scan<'d>,
}

impl RowScan<'_> {
    #[allow(clippy::should_implement_trait, reason = "its items borrow from it")]
    pub fn next(&mut self) -> Result<Step<RowItem<'_>>, StoreError> {
        Ok(match self.scan.next()? {
            Step::Item((key, bytes)) => {
                let (_, name) =
                    split_row_key(key).ok_or_else(|| StoreError::damaged("a key", "too short", key))?;
                Step::Item(RowItem { name, bytes })
            }
            Step::End => Step::End,
            Step::Miss => Step::Miss,
        })
    }

    /// Passes over `count` rows; `Item` when there were that many.
    pub fn skip(&mut self, count: usize) -> Result<Step<()>, StoreError> {
        for _ in 0..count {
            match self.scan.next()? {
                Step::Item(_) => {}
                Step::End => return Ok(Step::End),
                Step::Miss => return Ok(Step::Miss),
            }
        }
        Ok(Step::Item(()))
    }
}

/// An entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due<'s> {
    pub expire_ms: u64,
    pub incarnation: Incarnation,
    pub name: &'s [u8],
}

/// Entries of the time index, the oldest first.
pub struct DueScan<'d> {
    scan: Scan<'d>,
}

impl DueScan<'_> {
    #[allow(clippy::should_implement_trait, reason = "its items borrow from it")]
    pub fn next(&mut self) -> Result<Step<Due<'_>>, StoreError> {
        Ok(match self.scan.next()? {
            Step::Item((key, _)) => {
                let (expire_ms, incarnation, name) =
                    split_time_key(key).ok_or_else(|| StoreError::damaged("a key", "too short", key))?;
                Step::Item(Due { expire_ms, incarnation, name })
            }
            Step::End => Step::End,
            Step::Miss => Step::Miss,
        })
    }
}

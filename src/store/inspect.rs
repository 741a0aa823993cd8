//! A closed store, read whole without changing it: for the offline check.
//!
//! Every block of data and of indexes is read and its checksum verified, every row decoded. The first thing
//! that RocksDB cannot read ends it; its text names the file and the place. Filters are not read: RocksDB goes
//! without one that is damaged, and so it is no damage to data.

use super::key::{Family, Incarnation, row_key, split_element_key, split_row_key, split_time_key, system};
use super::options;
use super::row::Row;
use super::slots::SlotEntry;
use super::{DIRECTORY_FORMAT, SharedMemory, StoreError, StoreOptions};
use crate::slot::ShardId;
use bytes::Bytes;
use rocksdb::{DB, LogLevel, ReadOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What one incarnation holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub keys: u64,
    /// Of these, with a time to end.
    pub expiring: u64,
    pub elements: u64,
    /// Names and values, rows and elements.
    pub bytes: u64,
}

/// A store's own rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHead {
    pub format: u32,
    /// 0: nothing was sealed yet.
    pub persisted_lsn: u64,
    /// As `Store::complete_lsn`.
    pub complete_lsn: u64,
    /// 0: no whole that a participant may lack.
    pub whole_floor: u64,
    pub slots: Vec<SlotEntry>,
    pub parts_applied: Vec<(ShardId, u64)>,
}

/// A store that is open for reading only.
pub struct Inspected {
    db: DB,
}

impl Inspected {
    /// Opens what `dir` holds.
    pub fn open(dir: &Path) -> Result<Inspected, StoreError> {
        let opening = |error| StoreError::of("opening the store")(error);
        let shared = SharedMemory::new(CACHE_BYTES, CACHE_BYTES, 1)?;
        let settings = StoreOptions { create: false, memtable_target_bytes: CACHE_BYTES, direct_io: false };
        let mut database = options::database(&settings, &shared)?;
        // RocksDB's own log would be a new file in the directory.
        database.set_info_logger(rocksdb::InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
        let families = options::families(&settings, &shared, &Arc::default())?;
        let db = DB::open_cf_descriptors_read_only(&database, dir, families, false).map_err(opening)?;
        Ok(Inspected { db })
    }

    pub fn head(&self, shards: u16) -> Result<StoreHead, StoreError> {
        let number = |name: &[u8]| -> Result<Option<u64>, StoreError> {
            let key = row_key(Incarnation::SYSTEM, name);
            let found = self.db.get(&key).map_err(StoreError::of("reading the store's own rows"))?;
            let Some(found) = found else { return Ok(None) };
            match found.len() {
                4 | 8 => Ok(Some(found.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))),
                _ => Err(StoreError::damaged("one of the store's own rows", "length", &key)),
            }
        };
        let format = number(&system::FORMAT)?.unwrap_or(0) as u32;
        if format > DIRECTORY_FORMAT {
            return Err(StoreError::Newer { dir: self.db.path().display().to_string(), found: format });
        }
        let persisted_lsn = number(&system::PERSISTED_LSN)?.unwrap_or(0);
        let slots_lsn = number(&system::SLOTS_LSN)?.unwrap_or(persisted_lsn);
        let mut parts_applied = Vec::new();
        for home in (0..shards).map(ShardId) {
            parts_applied.extend(number(&system::part_name(home))?.map(|number| (home, number)));
        }
        Ok(StoreHead {
            format,
            persisted_lsn,
            complete_lsn: slots_lsn.min(persisted_lsn),
            whole_floor: number(&system::WHOLE_FLOOR)?.unwrap_or(0),
            slots: super::db::slot_entries(&self.db)?,
            parts_applied,
        })
    }

    /// Reads everything: what each incarnation holds.
    pub fn content(&self) -> Result<BTreeMap<Incarnation, Content>, StoreError> {
        let mut all: BTreeMap<Incarnation, Content> = BTreeMap::new();
        self.each(Family::Row, |key, value| {
            let (incarnation, _) = split_row_key(key).ok_or("a key without its prefix")?;
            if incarnation != Incarnation::SYSTEM {
                let row = Row::decode(&Bytes::copy_from_slice(value)).map_err(|error| error.0)?;
                let content = all.entry(incarnation).or_default();
                content.keys += 1;
                content.expiring += u64::from(row.expire_ms.is_some());
                content.bytes += (key.len() + value.len()) as u64;
            }
            Ok(())
        })?;
        self.each(Family::Element, |key, value| {
            let (incarnation, ..) = split_element_key(key).ok_or("an element's key without its parts")?;
            let content = all.entry(incarnation).or_default();
            content.elements += 1;
            content.bytes += (key.len() + value.len()) as u64;
            Ok(())
        })?;
        self.each(Family::Time, |key, _| {
            split_time_key(key).map(drop).ok_or("an entry of the time index without its parts")
        })?;
        Ok(all)
    }

    fn each(
        &self,
        family: Family,
        mut look: impl FnMut(&[u8], &[u8]) -> Result<(), &'static str>,
    ) -> Result<(), StoreError> {
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        read.set_readahead_size(READAHEAD_BYTES);
        let mut iter = self.db.raw_iterator_cf_opt(super::db::family_of(&self.db, family), read);
        iter.seek_to_first();
        while let Some((key, value)) = iter.item() {
            look(key, value).map_err(|why| StoreError::damaged("a row", why, key))?;
            iter.next();
        }
        iter.status().map_err(StoreError::of("reading the store"))
    }
}

const CACHE_BYTES: usize = 32 << 20;
const READAHEAD_BYTES: usize = 2 << 20;

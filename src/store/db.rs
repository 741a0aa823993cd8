//! The open database of one shard: reads from memory, whole-or-nothing writes, sealing, pressure.
//!
//! Must not know the log: it only stores the LSN it is given and says which one the files hold.

use super::batch::{Batch, FamilyNumbers};
use super::erase::{CompactJob, DeadElements, EraseJob};
use super::filter::Gate;
use super::intake::{self, Files, IntakeJob, NotTaken, Piece, Workshop};
use super::key::{ElementKey, Family, Incarnation, Key, Want, Wanted, prefix, row_key, system};
use super::options::{self, IMMUTABLE_MEMTABLES_STOP, L0_SLOWDOWN_FILES, PENDING_SLOWDOWN_BYTES};
use super::row::Row;
use super::scan::View;
use super::slots::SlotEntry;
use super::value::copied;
use super::{DIRECTORY_FORMAT, SharedMemory, StoreError, StoreOptions};
use crate::metrics::shard::FileStats;
use crate::slot::ShardId;
use bytes::Bytes;
use rocksdb::properties::{
    ACTUAL_DELAYED_WRITE_RATE, BACKGROUND_ERRORS, CUR_SIZE_ACTIVE_MEM_TABLE,
    ESTIMATE_PENDING_COMPACTION_BYTES, ESTIMATE_TABLE_READERS_MEM, IS_WRITE_STOPPED, LIVE_SST_FILES_SIZE,
    NUM_IMMUTABLE_MEM_TABLE, NUM_RUNNING_COMPACTIONS, NUM_RUNNING_FLUSHES, num_files_at_level,
};
use rocksdb::{ColumnFamily, DB, ErrorKind, FlushOptions, ReadOptions, ReadTier, WriteBatch, WriteOptions};
use std::path::Path;
use std::sync::Arc;

const PROPERTY: &str = "reading a property";

/// Where files of copied slots are made, in the store's directory.
const COPIES: &str = "copies";

/// The database with what must happen before it closes.
pub(super) struct Open {
    pub db: Arc<DB>,
    pub gate: Arc<Gate>,
    /// How every batch is written.
    write: WriteOptions,
}

impl Open {
    pub fn family(&self, family: Family) -> &ColumnFamily {
        family_of(&self.db, family)
    }

    fn count(&self, family: Family, property: &rocksdb::properties::PropName) -> Result<u64, StoreError> {
        let value = self.db.property_int_value_cf(self.family(family), property);
        Ok(value.map_err(StoreError::of(PROPERTY))?.expect("RocksDB has this property"))
    }

    fn level0_files(&self, family: Family) -> Result<u64, StoreError> {
        let text = self.db.property_value_cf(self.family(family), num_files_at_level(0));
        let text = text.map_err(StoreError::of(PROPERTY))?.expect("RocksDB has this property");
        text.parse().map_err(|_| StoreError::RocksDb { doing: PROPERTY, cause: format!("{text:?} files") })
    }

    fn sum(&self, property: &rocksdb::properties::PropName) -> Result<u64, StoreError> {
        let mut sum = 0;
        for family in Family::ALL {
            sum += self.count(family, property)?;
        }
        Ok(sum)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gate.close();
    }
}

pub(super) fn family_of(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name()).expect("every family is opened with the store")
}

/// What a look-up found without touching the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached<T> {
    Found(T),
    /// There is none, and memory is enough to say so.
    Absent,
    /// Only the disk knows.
    Miss,
}

/// Why a batch was not applied. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// RocksDB is behind with its files. The same batch has to be offered again before any other.
    #[error("the store takes no writes at the moment")]
    Stalled,
    /// A flush or compaction found the disk full. As `Stalled`; also the shard syncs its log up to what is
    /// applied now, because on healing RocksDB writes out what was not sealed too.
    #[error("the store's disk is full")]
    Full,
    /// The memory and the log may now differ: the shard must stop.
    #[error(transparent)]
    Fault(#[from] StoreError),
}

/// How far RocksDB is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Most files of level 0 in one family.
    pub level0_files: u64,
    /// All families together.
    pub pending_compaction_bytes: u64,
    /// Sealed memtables not written out yet, most in one family.
    pub immutable_memtables: u64,
    /// What RocksDB would slow writers to; 0 when it does not.
    pub delayed_bytes_per_s: u64,
    pub stopped: bool,
}

impl Pressure {
    /// 0 when idle; at 1 RocksDB begins to refuse. Admission slows down well before.
    pub fn level(&self) -> f64 {
        if self.stopped || self.delayed_bytes_per_s > 0 {
            return 1.0;
        }
        let part = |have: u64, limit: u64| have as f64 / limit as f64;
        part(self.level0_files, L0_SLOWDOWN_FILES)
            .max(part(self.pending_compaction_bytes, PENDING_SLOWDOWN_BYTES))
            .max(part(self.immutable_memtables, IMMUTABLE_MEMTABLES_STOP))
    }
}

/// One shard's RocksDB, written only by the core that owns it.
pub struct Store {
    open: Arc<Open>,
    workshop: Arc<Workshop>,
    numbers: FamilyNumbers,
    cache_only: ReadOptions,
    persisted: ReadOptions,
    applied: u64,
}

/// One batch's way into a store.
pub struct Writing {
    open: Arc<Open>,
    applied: u64,
}

impl Writing {
    /// Applies the batch, whole or not at all. It may be offered again after a refusal.
    ///
    /// # Errors
    /// `Stalled` where RocksDB would have had to wait, `Full` where its disk has no room.
    pub fn run(&self, batch: &mut Batch) -> Result<(), WriteError> {
        let lsn = batch.lsn().expect("every batch says which LSN it brings the store to");
        assert!(lsn >= self.applied, "batches are applied in the order of the log");
        match self.open.db.write_opt(WriteBatch::from_data(batch.encoded()), &self.open.write) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Incomplete => Err(WriteError::Stalled),
            // Reported by the check before a batch is begun: nothing of this one is in memory.
            Err(error) if error.as_ref().contains("No space left on device") => Err(WriteError::Full),
            Err(error) => Err(WriteError::Fault(StoreError::of("applying a batch")(error))),
        }
    }
}

impl Store {
    /// Opens or makes the store in `dir`. Reads files: not for a core that serves.
    pub fn open(dir: &Path, options: &StoreOptions, shared: &SharedMemory) -> Result<Store, StoreError> {
        let gate = Arc::new(Gate::default());
        let families = options::families(options, shared, &gate)?;
        let db = DB::open_cf_descriptors(&options::database(options, shared)?, dir, families)
            .map_err(StoreError::of("opening the store"))?;
        let db = Arc::new(db);
        gate.open(&db);
        let numbers = family_numbers(&db);
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        write.set_no_slowdown(true);
        let open = Arc::new(Open { db, gate, write });
        for family in Family::ALL {
            let handle = open.family(family);
            open.db
                .set_options_cf(handle, &options::SET_ONCE_OPEN)
                .map_err(StoreError::of("opening the store"))?;
        }

        let made = |family| options::copied_files(family, options, shared, &open.gate);
        let workshop = Workshop::open(dir.join(COPIES), made(Family::Row)?, made(Family::Element)?)?;
        let mut store = Store {
            open,
            workshop: Arc::new(workshop),
            numbers,
            cache_only: reading(ReadTier::BlockCache),
            persisted: reading(ReadTier::Persisted),
            applied: 0,
        };
        store.check_format(dir)?;
        store.applied = store.persisted_lsn()?.unwrap_or(0);
        Ok(store)
    }

    /// An empty batch for this store.
    pub fn batch(&self) -> Batch {
        Batch::new(self.numbers)
    }

    pub fn reader(&self) -> Reader {
        Reader { open: self.open.clone() }
    }

    /// The row under a name, from memory only.
    pub fn row_cached(&self, incarnation: Incarnation, name: &[u8]) -> Result<Cached<Row>, StoreError> {
        get_row(&self.open.db, &self.cache_only, &row_key(incarnation, name))
    }

    /// One element of a key, from memory only.
    pub fn element_cached(&self, key: &ElementKey) -> Result<Cached<Bytes>, StoreError> {
        get_element(&self.open.db, &self.cache_only, key)
    }

    /// Scans over what is in memory; they say when memory is not enough.
    pub fn view_cached(&self) -> View<'_> {
        View::new(&self.open.db, ReadTier::BlockCache, None, true)
    }

    /// Applies a batch whole or not at all; it must carry the LSN it brings the store to. Never waits.
    pub fn write(&mut self, batch: &mut Batch) -> Result<(), WriteError> {
        self.writing().run(batch)?;
        self.written(batch);
        Ok(())
    }

    /// A way to write one batch from another thread. One after the other, and nothing else meanwhile: the order
    /// of the log is in the caller's hands.
    pub fn writing(&self) -> Writing {
        Writing { open: self.open.clone(), applied: self.applied }
    }

    /// Notes that a batch is in.
    pub fn written(&mut self, batch: &Batch) {
        self.applied = batch.lsn().expect("every batch says which LSN it brings the store to");
    }

    /// The LSN that reads from this store have behind them.
    pub fn applied_lsn(&self) -> u64 {
        self.applied
    }

    /// The LSN up to which everything is in files, whatever is written meanwhile; `None` before the first
    /// seal.
    pub fn persisted_lsn(&self) -> Result<Option<u64>, StoreError> {
        self.persisted_number(&system::PERSISTED_LSN)
    }

    /// The LSN up to which the files hold the rows and the slot table that names them: a start replays what is
    /// behind it. Lower than `persisted_lsn` where RocksDB has written memtables out by itself.
    pub fn complete_lsn(&self) -> Result<Option<u64>, StoreError> {
        let (rows, slots) = (self.persisted_lsn()?, self.persisted_number(&system::SLOTS_LSN)?);
        Ok(rows.map(|rows| slots.map_or(rows, |slots| slots.min(rows))))
    }

    fn persisted_number(&self, name: &[u8]) -> Result<Option<u64>, StoreError> {
        let key = row_key(Incarnation::SYSTEM, name);
        let found = self.open.db.get_pinned_opt(&key, &self.persisted).map_err(StoreError::of("reading"))?;
        let Some(found) = found else { return Ok(None) };
        let bytes: &[u8] = &found;
        let bytes = bytes.try_into().map_err(|_| StoreError::damaged("a persisted LSN", "length", &key))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    /// The slot table as last put. Reads files: for the start.
    pub fn slot_entries(&self) -> Result<Vec<SlotEntry>, StoreError> {
        slot_entries(&self.open.db)
    }

    /// The first number no slot has had, as last put.
    pub fn next_incarnation(&self) -> Result<Incarnation, StoreError> {
        Ok(self.system_u32(&system::NEXT_INCARNATION)?.map_or(Incarnation::FIRST, Incarnation))
    }

    /// The last transaction part of a home shard that is in files.
    pub fn part_applied(&self, home: ShardId) -> Result<u64, StoreError> {
        Ok(self.system_u64(&system::part_name(home))?.unwrap_or(0))
    }

    /// The oldest whole of this shard's that a participant may lack, as last put; 0: none.
    pub fn whole_floor(&self) -> Result<u64, StoreError> {
        Ok(self.system_u64(&system::WHOLE_FLOOR)?.unwrap_or(0))
    }

    /// A job that seals the memtables. The shard sends it to the pool with its write gate closed, after
    /// syncing the log up to what is applied and putting its slot table.
    /// `files`: what is handed over to RocksDB with them.
    pub fn seal_job(&self, files: Vec<Files>) -> SealJob {
        SealJob { open: self.open.clone(), files }
    }

    /// A job that makes files of pieces, which go to RocksDB with a seal. `number`: of these, given once while the
    /// store is open.
    pub fn intake_job(&self, number: u64, pieces: Vec<Piece>) -> IntakeJob {
        IntakeJob { workshop: self.workshop.clone(), number, pieces }
    }

    /// The first number behind all that the files hold data of: a slot table that is older than a file does not know
    /// all of them. Reads files: for the start.
    pub fn beyond_files(&self) -> Result<Incarnation, StoreError> {
        let mut beyond = Incarnation::FIRST;
        for family in [Family::Row, Family::Element] {
            let mut iter = self.open.db.raw_iterator_cf(self.open.family(family));
            iter.seek_to_last();
            let last =
                iter.key().and_then(|key| key.first_chunk()).map(|of| Incarnation(u32::from_be_bytes(*of)));
            iter.status().map_err(StoreError::of("looking for the last of the slots' data"))?;
            beyond = beyond.max(last.map_or(beyond, Incarnation::next));
        }
        Ok(beyond)
    }

    /// Bytes in the memtables that are not sealed, all families.
    pub fn memtable_bytes(&self) -> Result<u64, StoreError> {
        self.open.sum(CUR_SIZE_ACTIVE_MEM_TABLE)
    }

    /// Whether everything sealed is in files: then `persisted_lsn` is that of the last seal.
    pub fn flushed(&self) -> Result<bool, StoreError> {
        Ok(self.open.sum(NUM_IMMUTABLE_MEM_TABLE)? == 0)
    }

    /// A few microseconds and RocksDB's own mutex: for a few times a second.
    pub fn pressure(&self) -> Result<Pressure, StoreError> {
        let mut pressure = Pressure {
            // These two are the whole database's, whichever family is asked.
            delayed_bytes_per_s: self.open.count(Family::Row, ACTUAL_DELAYED_WRITE_RATE)?,
            stopped: self.open.count(Family::Row, IS_WRITE_STOPPED)? != 0,
            pending_compaction_bytes: self.open.sum(ESTIMATE_PENDING_COMPACTION_BYTES)?,
            ..Pressure::default()
        };
        for family in Family::ALL {
            let immutable = self.open.count(family, NUM_IMMUTABLE_MEM_TABLE)?;
            pressure.level0_files = pressure.level0_files.max(self.open.level0_files(family)?);
            pressure.immutable_memtables = pressure.immutable_memtables.max(immutable);
        }
        Ok(pressure)
    }

    /// RocksDB's figures, for whoever watches. As dear as `pressure`.
    pub fn stats(&self) -> Result<FileStats, StoreError> {
        let pressure = self.pressure()?;
        Ok(FileStats {
            memtable_bytes: self.memtable_bytes()?,
            immutable_memtables: pressure.immutable_memtables,
            level0_files: pressure.level0_files,
            pending_compaction_bytes: pressure.pending_compaction_bytes,
            // These three are the whole database's.
            running_compactions: self.open.count(Family::Row, NUM_RUNNING_COMPACTIONS)?,
            running_flushes: self.open.count(Family::Row, NUM_RUNNING_FLUSHES)?,
            background_errors: self.open.count(Family::Row, BACKGROUND_ERRORS)?,
            table_reader_bytes: self.open.sum(ESTIMATE_TABLE_READERS_MEM)?,
            live_bytes: self.open.sum(LIVE_SST_FILES_SIZE)?,
        })
    }

    /// While it lives, compaction forgets nothing. See `Pin`.
    pub fn pin(&self) -> Pin {
        Pin::new(self.open.clone())
    }

    /// A job that gives back the space of incarnations nobody reads any more. Only after the record that
    /// replaced them is persisted.
    pub fn erase_job(&self, incarnations: Vec<Incarnation>) -> EraseJob {
        EraseJob::new(self.open.clone(), incarnations)
    }

    /// A job that gives back the space of one key's dead elements. Only after the row that named them is
    /// persisted as gone or newer.
    pub fn compact_job(&self, dead: &DeadElements) -> CompactJob {
        CompactJob::new(self.open.clone(), dead)
    }

    fn check_format(&mut self, dir: &Path) -> Result<(), StoreError> {
        let dir = || dir.display().to_string();
        match self.system_u32(&system::FORMAT)? {
            Some(DIRECTORY_FORMAT) => Ok(()),
            Some(found) => Err(StoreError::Newer { dir: dir(), found }),
            None => {
                let mut iter = self.open.db.raw_iterator();
                iter.seek_to_first();
                if iter.valid() {
                    return Err(StoreError::Foreign { dir: dir() });
                }
                iter.status().map_err(StoreError::of("opening the store"))?;
                drop(iter);
                self.put_format()
            }
        }
    }

    /// Nothing is logged yet, so this may go to files at once.
    fn put_format(&mut self) -> Result<(), StoreError> {
        let mut batch = self.batch();
        batch.put_format(DIRECTORY_FORMAT);
        batch.put_slots_lsn(0);
        let making = "making the store";
        let batch = WriteBatch::from_data(batch.encoded());
        self.open.db.write_opt(batch, &self.open.write).map_err(StoreError::of(making))?;
        flush(&self.open, true).map_err(StoreError::of(making))
    }

    fn system_u32(&self, name: &[u8]) -> Result<Option<u32>, StoreError> {
        Ok(self.system_bytes(name)?.map(u32::from_be_bytes))
    }

    fn system_u64(&self, name: &[u8]) -> Result<Option<u64>, StoreError> {
        Ok(self.system_bytes(name)?.map(u64::from_be_bytes))
    }

    fn system_bytes<const N: usize>(&self, name: &[u8]) -> Result<Option<[u8; N]>, StoreError> {
        let key = row_key(Incarnation::SYSTEM, name);
        let found = self.open.db.get_pinned(&key).map_err(StoreError::of("reading the store's own rows"))?;
        let Some(found) = found else { return Ok(None) };
        let bytes: &[u8] = &found;
        let bytes = bytes
            .try_into()
            .map_err(|_| StoreError::damaged("one of the store's own rows", "length", &key))?;
        Ok(Some(bytes))
    }
}

impl Drop for Store {
    /// Whoever stops does not wait for compactions under way. Reads go on.
    fn drop(&mut self) {
        self.open.db.cancel_all_background_work(false);
    }
}

/// The slot table as last put.
pub(super) fn slot_entries(db: &DB) -> Result<Vec<SlotEntry>, StoreError> {
    let mut read = ReadOptions::default();
    let mut from = prefix(Incarnation::SYSTEM);
    from.extend_from_slice(&system::SLOT);
    read.set_iterate_upper_bound({
        let mut end = from.to_vec();
        end[4] += 1;
        end
    });
    let mut iter = db.raw_iterator_opt(read);
    let mut entries = Vec::new();
    iter.seek(&from);
    while let Some((key, value)) = iter.item() {
        let entry = system::split_slot_name(&key[4..])
            .and_then(|(table, slot)| SlotEntry::decode(table, slot, value))
            .ok_or_else(|| StoreError::damaged("a slot's entry", "unknown format", key))?;
        entries.push(entry);
        iter.next();
    }
    iter.status().map_err(StoreError::of("reading the slot table"))?;
    Ok(entries)
}

/// Reads that may wait for the disk: for the pool. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(super) open: Arc<Open>,
}

impl Reader {
    /// Loads keys into the block cache, those that are not there yet.
    pub fn warm(&self, wanted: &[Wanted]) -> Result<(), StoreError> {
        let read = ReadOptions::default();
        for Wanted(want) in wanted {
            match want {
                Want::Key(family, key) => drop(
                    self.open
                        .db
                        .get_pinned_cf_opt(self.open.family(*family), key, &read)
                        .map_err(StoreError::of("loading into memory"))?,
                ),
                Want::Elements { from, to, backward } => self.view().warm(from, to, *backward)?,
            }
        }
        Ok(())
    }

    /// The newest state, every tier; what it reads stays in the block cache.
    pub fn view(&self) -> View<'_> {
        View::new(&self.open.db, ReadTier::All, None, true)
    }

    /// Runs `job` over one unchanging state, taken now: all batches written before are in it, none after.
    /// Long scans leave the block cache as it was.
    pub fn with_snapshot<R>(&self, job: impl FnOnce(&View<'_>) -> R) -> R {
        // Compaction filters do not respect RocksDB's snapshots, hence the pin.
        let _pin = Pin::new(self.open.clone());
        let snapshot = self.open.db.snapshot();
        job(&View::new(&self.open.db, ReadTier::All, Some(&snapshot), false))
    }
}

/// Keeps compaction from forgetting anything. For snapshots, and for elements written before the row that
/// names them: then it is held until that row is PERSISTED.
pub struct Pin {
    open: Arc<Open>,
}

impl Pin {
    fn new(open: Arc<Open>) -> Pin {
        open.gate.pin();
        Pin { open }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.open.gate.unpin();
    }
}

/// Seals the memtables of all families at one point, for the pool.
pub struct SealJob {
    open: Arc<Open>,
    files: Vec<Files>,
}

/// What a seal has come to.
pub struct SealDone {
    pub sealed: Sealed,
    /// To be handed over by the next one.
    pub files: Vec<Files>,
    /// What RocksDB has not taken.
    pub not_taken: Option<NotTaken>,
}

/// How a seal went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Everything written before is on its way into files.
    Done,
    /// RocksDB is too far behind; try again later.
    Later,
}

impl SealJob {
    /// About 0.2 ms; the memtables are written afterwards, by RocksDB's flush thread. Files that are handed over take
    /// some milliseconds of the disk.
    pub fn run(self) -> Result<SealDone, StoreError> {
        match flush(&self.open, false) {
            Ok(()) => {
                let not_taken = intake::ingest(&self.open, self.files).err();
                Ok(SealDone { sealed: Sealed::Done, files: Vec::new(), not_taken })
            }
            Err(error) if error.kind() == ErrorKind::TryAgain => {
                Ok(SealDone { sealed: Sealed::Later, files: self.files, not_taken: None })
            }
            Err(error) => Err(StoreError::of("sealing the memtables")(error)),
        }
    }
}

fn flush(open: &Open, wait: bool) -> Result<(), rocksdb::Error> {
    let mut how = FlushOptions::default();
    how.set_wait(wait);
    let families = Family::ALL.map(|family| open.family(family));
    open.db.flush_cfs_opt(&families.each_ref(), &how)
}

fn reading(tier: ReadTier) -> ReadOptions {
    let mut read = ReadOptions::default();
    read.set_read_tier(tier);
    read
}

pub(super) fn get_row(db: &DB, read: &ReadOptions, key: &Key) -> Result<Cached<Row>, StoreError> {
    match db.get_pinned_opt(key, read) {
        Ok(None) => Ok(Cached::Absent),
        Ok(Some(found)) => Row::decode(&copied(&found))
            .map(Cached::Found)
            .map_err(|why| StoreError::damaged("a row", why, key)),
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::Miss),
        Err(error) => Err(StoreError::of("reading a row")(error)),
    }
}

pub(super) fn get_element(
    db: &DB,
    read: &ReadOptions,
    key: &ElementKey,
) -> Result<Cached<Bytes>, StoreError> {
    match db.get_pinned_cf_opt(family_of(db, Family::Element), &key.0, read) {
        Ok(None) => Ok(Cached::Absent),
        Ok(Some(found)) => Ok(Cached::Found(copied(&found))),
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::Miss),
        Err(error) => Err(StoreError::of("reading an element")(error)),
    }
}

/// The crate does not tell a family's number, but its batches contain it.
fn family_numbers(db: &DB) -> FamilyNumbers {
    let number = |family| {
        let mut probe = WriteBatch::default();
        probe.delete_cf(family_of(db, family), b"");
        let mut number = 0;
        for (at, byte) in probe.data()[13..].iter().enumerate().take(5) {
            number |= u32::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    };
    FamilyNumbers { element: number(Family::Element), time: number(Family::Time) }
}

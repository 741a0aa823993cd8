//! Every number given to RocksDB, derived from the memory ledger, in one place.
//!
//! The rule behind most of them: RocksDB writes nothing out by itself. What is in its files must never be
//! ahead of the log, so only the shard says when a memtable is sealed (ARCHITECTURE.md, "From memory to
//! files").

use super::StoreError;
use super::filter::{Factory, Gate};
use super::key::Family;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ChecksumType, ColumnFamilyDescriptor, CompactionPri,
    DBCompressionType, DataBlockIndexType, Env, LogLevel, Options, WriteBufferManager,
};
use std::ffi::c_int;
use std::sync::Arc;

/// What one shard's store is told; the node's ledger has checked that the sums fit.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Make the directory's store when there is none.
    pub create: bool,
    /// The size at which the shard intends to seal its memtables, all families together, bytes. At most 64
    /// MiB is good: larger ones make inserts dearer and their release felt.
    pub memtable_target_bytes: usize,
    /// Read files past the page cache, whose copies a cache-only read cannot see. Off where files cannot do
    /// it.
    pub direct_io: bool,
}

/// What all stores of a node share: one cache with one bound, and RocksDB's threads.
pub struct SharedMemory {
    cache: Cache,
    memtables: WriteBufferManager,
    env: Env,
    jobs: c_int,
}

impl SharedMemory {
    /// `memtable_bytes`: what all memtables of the node may take, sealed ones too. They are charged to the
    /// block cache, so its capacity is the sum of both lines. `compaction_threads` run at low CPU and IO
    /// priority.
    pub fn new(
        block_cache_bytes: usize,
        memtable_bytes: usize,
        compaction_threads: usize,
    ) -> Result<SharedMemory, StoreError> {
        let cache = Cache::new_hyper_clock_cache(block_cache_bytes.saturating_add(memtable_bytes), 0);
        // Size 0 only counts: with a limit it would seal memtables by itself, and the wrong shard's.
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(0, false, cache.clone());
        let mut env = Env::new().map_err(StoreError::of("RocksDB environment"))?;
        let compactions = c_int::try_from(compaction_threads.clamp(1, 64)).expect("at most 64");
        env.set_low_priority_background_threads(compactions);
        env.set_high_priority_background_threads(FLUSH_THREADS);
        // Flushes keep their priority: a starved flush stalls the writers.
        env.lower_thread_pool_cpu_priority();
        env.lower_thread_pool_io_priority();
        Ok(SharedMemory { cache, memtables, env, jobs: compactions + FLUSH_THREADS })
    }

    /// Bytes in the block cache, memtables' charge included.
    pub fn cache_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// Bytes of the cache that are in use at the moment and cannot be given up.
    pub fn cache_pinned_bytes(&self) -> usize {
        self.cache.get_pinned_usage()
    }

    /// Bytes of all memtables of the node, sealed ones that are not written out yet included.
    pub fn memtable_bytes(&self) -> usize {
        self.memtables.get_usage()
    }
}

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const FLUSH_THREADS: c_int = 1;

/// A memtable may grow to this many times the shard's target before RocksDB would seal it itself.
const MEMTABLE_SLACK: usize = 4;
/// Sealed memtables that may wait to be written out before RocksDB stops writes.
pub(super) const IMMUTABLE_MEMTABLES_STOP: u64 = 8;

const L0_COMPACT_FILES: u64 = 4;
/// Far above where admission slows clients: with `no_slowdown`, a delay of RocksDB's own is a refusal.
pub(super) const L0_SLOWDOWN_FILES: u64 = 24;
const L0_STOP_FILES: u64 = 40;
pub(super) const PENDING_SLOWDOWN_BYTES: u64 = 64 << 30;
const PENDING_STOP_BYTES: usize = 256 * GIB;

const GARBAGE_AGE_MAX_S: u64 = 7 * 24 * 3600;

const BLOOM_BITS_PER_KEY: f64 = 10.0;
const ROW_BLOCK_BYTES: usize = 8 << 10;
/// A piece of a long string fills a block by itself.
const ELEMENT_BLOCK_BYTES: usize = 16 << 10;
const TABLE_FORMAT: i32 = 6;

/// Options that the crate has no setter for. Closing writes nothing out: that would put into files what the
/// log may not hold yet. Where a full disk made a flush fail, RocksDB refuses all writes and tries again
/// until it heals, and then writes out ALL it has, not only what was sealed: 5 s between tries leave the log
/// time to be synced up to the last batch that was taken.
const BY_NAME: &str = "avoid_flush_during_shutdown=true;bgerror_resume_retry_interval=5000000";

/// As without a setter: the search for a key's place in a memtable begins at the place of the last one. Batches come
/// in the order of keys.
const FINGER: &str = "memtable_insert_with_hint_prefix_extractor=fixed:1";

/// Another one without a setter: what is written out from a memtable stays in memory, else every seal would
/// make the rows just written cold.
pub(super) const SET_ONCE_OPEN: [(&str, &str); 1] =
    [("block_based_table_factory", "{prepopulate_block_cache=kFlushOnly;}")];

pub(super) fn database(options: &StoreOptions, shared: &SharedMemory) -> Result<Options, StoreError> {
    let mut db =
        Options::default().get_options_from_string(BY_NAME).map_err(StoreError::of("RocksDB options"))?;
    db.create_if_missing(options.create);
    db.create_missing_column_families(true);
    db.set_paranoid_checks(true);
    db.set_env(&shared.env);
    db.set_write_buffer_manager(&shared.memtables);
    db.set_atomic_flush(true);
    db.set_max_background_jobs(shared.jobs);
    db.set_max_subcompactions(1);

    // Only the owning core writes.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
    db.set_avoid_unnecessary_blocking_io(true);

    // A table closed to save descriptors would turn a cache-only read into a miss.
    db.set_max_open_files(-1);
    db.set_skip_stats_update_on_db_open(true);

    db.set_use_direct_reads(options.direct_io);
    db.set_use_direct_io_for_flush_and_compaction(options.direct_io);
    db.set_bytes_per_sync(MIB as u64);
    db.set_compaction_readahead_size(MIB);

    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_max_manifest_file_size(64 * MIB);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(16 * MIB);
    Ok(db)
}

pub(super) fn families(
    options: &StoreOptions,
    shared: &SharedMemory,
    gate: &Arc<Gate>,
) -> Result<Vec<ColumnFamilyDescriptor>, StoreError> {
    let mut families = Vec::new();
    for family in Family::ALL {
        families.push(ColumnFamilyDescriptor::new(family.name(), one_family(family, options, shared, gate)?));
    }
    Ok(families)
}

/// How the files of copied slots are made. They go to the lowest level, and are compressed for it when they are next
/// merged: a copy should not wait for that.
pub(super) fn copied_files(
    family: Family,
    options: &StoreOptions,
    shared: &SharedMemory,
    gate: &Arc<Gate>,
) -> Result<Options, StoreError> {
    let mut files = one_family(family, options, shared, gate)?;
    files.set_bottommost_compression_type(DBCompressionType::Lz4);
    Ok(files)
}

fn one_family(
    family: Family,
    options: &StoreOptions,
    shared: &SharedMemory,
    gate: &Arc<Gate>,
) -> Result<Options, StoreError> {
    let target = options.memtable_target_bytes.max(MIB);
    let mut cf =
        Options::default().get_options_from_string(FINGER).map_err(StoreError::of("RocksDB options"))?;
    let memtable = target.saturating_mul(MEMTABLE_SLACK);
    cf.set_write_buffer_size(memtable);
    cf.set_max_write_buffer_number(IMMUTABLE_MEMTABLES_STOP as c_int);
    cf.set_min_write_buffer_number_to_merge(1);
    cf.set_max_write_buffer_size_to_maintain(0);
    // Without this the arena grows by an eighth of the slack, not of what is used.
    cf.set_arena_block_size((target / 64).clamp(64 << 10, MIB));
    if family == Family::Row {
        // About 16 bits for each of the target's rows of 128 bytes.
        cf.set_memtable_whole_key_filtering(true);
        cf.set_memtable_prefix_bloom_ratio(1.0 / 64.0 / MEMTABLE_SLACK as f64);
    }

    cf.set_level_compaction_dynamic_level_bytes(true);
    cf.set_level_zero_file_num_compaction_trigger(L0_COMPACT_FILES as c_int);
    cf.set_level_zero_slowdown_writes_trigger(L0_SLOWDOWN_FILES as c_int);
    cf.set_level_zero_stop_writes_trigger(L0_STOP_FILES as c_int);
    cf.set_soft_pending_compaction_bytes_limit(PENDING_SLOWDOWN_BYTES as usize);
    cf.set_hard_pending_compaction_bytes_limit(PENDING_STOP_BYTES);
    cf.set_max_bytes_for_level_base((target * L0_COMPACT_FILES as usize) as u64);
    cf.set_target_file_size_base(target.clamp(8 * MIB, 64 * MIB) as u64);
    cf.set_compaction_pri(CompactionPri::MinOverlappingRatio);
    cf.set_compaction_filter_factory(Factory::new(family, gate.clone()));
    // Garbage is found when files merge, and those of the lowest level may never: so elements are rewritten once
    // a week, a million bytes a second for each half terabyte, at the priority of all compactions. Only elements
    // become garbage without a deletion of their own.
    cf.set_periodic_compaction_seconds(if family == Family::Element { GARBAGE_AGE_MAX_S } else { 0 });
    cf.set_ttl(0);

    cf.set_compression_type(DBCompressionType::Lz4);
    cf.set_bottommost_compression_type(DBCompressionType::Zstd);
    cf.set_block_based_table_factory(&table(family, shared));
    Ok(cf)
}

fn table(family: Family, shared: &SharedMemory) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_format_version(TABLE_FORMAT);
    table.set_checksum_type(ChecksumType::XXH3);
    table.set_block_cache(&shared.cache);
    table.set_block_size(if family == Family::Element { ELEMENT_BLOCK_BYTES } else { ROW_BLOCK_BYTES });
    // Everything a table keeps in memory stands in the one bounded cache; what new files need stays there.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_index_type(BlockBasedIndexType::BinarySearch);
    if family != Family::Time {
        // Ribbon below the levels that are read first: a third less memory, a little slower.
        table.set_hybrid_ribbon_filter(BLOOM_BITS_PER_KEY, 2);
        table.set_whole_key_filtering(true);
        table.set_optimize_filters_for_memory(true);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_data_block_hash_ratio(0.75);
    }
    table
}

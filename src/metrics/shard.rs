//! What one shard is and does, as it is told to those who ask.

/// What a shard's log has done since the start or the last CONFIG RESETSTAT.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogCounters {
    pub bytes: u64,
    /// Commits: one write for all frames of a turn.
    pub writes: u64,
    pub frames: u64,
    pub syncs: u64,
    /// Longest time a write held its core, microseconds.
    pub write_max_us: u64,
    pub memtable_switches: u64,
}

impl LogCounters {
    /// Sums, and the maximum where the name says so.
    pub fn add(&mut self, other: &LogCounters) {
        self.bytes += other.bytes;
        self.writes += other.writes;
        self.frames += other.frames;
        self.syncs += other.syncs;
        self.write_max_us = self.write_max_us.max(other.write_max_us);
        self.memtable_switches += other.memtable_switches;
    }
}

/// What became of large collections that are gone, since the start or the last CONFIG RESETSTAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageStats {
    /// Those whose space is not given back yet. Not a counter.
    pub waiting: u64,
    /// Those whose elements are out of the files.
    pub freed: u64,
    /// Those left to the rewriting of old files: there were too many at once, or it did not succeed.
    pub left: u64,
}

/// One shard at one moment.
#[derive(Clone, Debug, Default)]
pub struct ShardStats {
    pub shard: u16,
    pub log: LogCounters,
    /// LSNs: the log's end, what of it is on disk, what of it is in RocksDB's files.
    pub written_lsn: u64,
    pub durable_lsn: u64,
    pub persisted_lsn: u64,
    /// Segments of the log that end before this LSN may go; 0: none may.
    pub purgeable_lsn: u64,
    /// The end of the first that is full and may not; `u64::MAX`: there is none.
    pub first_needed_lsn: u64,
    /// Writes a second that are let in; None: as many as come.
    pub paced_at: Option<f64>,
    /// Commands that wait for the write gate.
    pub gated: u64,
    /// Writes are refused: the disk is full.
    pub full: bool,
    /// The estimate of keys, all tables.
    pub keys: u64,
    pub hot_cache_bytes: u64,
    pub garbage: GarbageStats,
    /// Segments of the log, those prepared ahead included.
    pub log_file_bytes: u64,
    /// RocksDB's own figures.
    pub files: FileStats,
}

/// RocksDB's figures of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileStats {
    /// Memtables that are not sealed.
    pub memtable_bytes: u64,
    pub immutable_memtables: u64,
    pub level0_files: u64,
    pub pending_compaction_bytes: u64,
    pub running_compactions: u64,
    pub running_flushes: u64,
    /// Indexes and filters outside the block cache.
    pub table_reader_bytes: u64,
    /// Of files that are read, bytes.
    pub live_bytes: u64,
    pub background_errors: u64,
}

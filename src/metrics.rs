//! Counters of one core. Plain numbers, changed only by their core and copied out when asked for.

pub mod commands;
pub mod slow;

/// What one core has done since the start or the last CONFIG RESETSTAT.
#[derive(Clone, Debug, Default)]
pub struct CoreStats {
    pub connections_now: u64,
    pub connections_received: u64,
    pub connections_rejected: u64,
    /// Taken over from other cores.
    pub connections_moved: u64,
    pub commands: u64,
    /// Commands that ran on another core than their connection's.
    pub hops: u64,
    pub input_bytes: u64,
    pub output_bytes: u64,
    pub keyspace_hits: u64,
    pub keyspace_misses: u64,
    pub expired_keys: u64,
    pub error_replies: u64,
    pub turns: u64,
    /// Longest turn, microseconds.
    pub turn_max_us: u64,
    /// Commands that waited for the disk.
    pub cold_reads: u64,
    /// Commands that ran away from their core because they were long.
    pub long_commands: u64,
    pub log_bytes: u64,
    pub log_writes: u64,
    pub log_syncs: u64,
    /// Longest time a log write held its core, microseconds.
    pub log_write_max_us: u64,
    pub frames: u64,
    pub memtable_switches: u64,
    /// Memory held now, bytes.
    pub memtable_bytes: u64,
    pub hot_cache_bytes: u64,
    pub query_buffer_bytes: u64,
    pub output_buffer_bytes: u64,
    /// Rate over the last second.
    pub ops_per_second: u64,
}

impl CoreStats {
    /// Adds another core's figures: sums, and maxima where the name says so.
    pub fn add(&mut self, other: &CoreStats) {
        macro_rules! sum {
            ($($field:ident),*) => { $(self.$field += other.$field;)* };
        }
        sum!(
            connections_now,
            connections_received,
            connections_rejected,
            connections_moved,
            commands,
            hops,
            input_bytes,
            output_bytes,
            keyspace_hits,
            keyspace_misses,
            expired_keys,
            error_replies,
            turns,
            cold_reads,
            long_commands,
            log_bytes,
            log_writes,
            log_syncs,
            frames,
            memtable_switches,
            memtable_bytes,
            hot_cache_bytes,
            query_buffer_bytes,
            output_buffer_bytes,
            ops_per_second
        );
        self.turn_max_us = self.turn_max_us.max(other.turn_max_us);
        self.log_write_max_us = self.log_write_max_us.max(other.log_write_max_us);
    }

    /// CONFIG RESETSTAT: what counts events starts again; what says how much there is stays.
    pub fn reset(&mut self) {
        *self = CoreStats {
            connections_now: self.connections_now,
            memtable_bytes: self.memtable_bytes,
            hot_cache_bytes: self.hot_cache_bytes,
            query_buffer_bytes: self.query_buffer_bytes,
            output_buffer_bytes: self.output_buffer_bytes,
            ..CoreStats::default()
        };
    }
}

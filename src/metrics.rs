//! Counters of one core. Plain numbers, changed only by their core and copied out when asked for.

pub mod commands;
pub mod errors;
pub mod latency;
pub mod micros;
pub mod shard;
pub mod slow;

use crate::resp::reply::Reply;
use commands::CommandStats;
use errors::ErrorCounts;
use micros::Micros;
use shard::{LogCounters, ShardStats};

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
    /// Of hashes.
    pub expired_fields: u64,
    /// How long the oldest key that is due waits for its deletion; 0 where the primary keeps up. Filled in when
    /// it is told.
    pub expire_lag_ms: u64,
    /// Commands that wait for a key; filled in when it is told.
    pub blocked_clients: u64,
    pub errors: ErrorCounts,
    /// Entries the slow log holds now; filled in when it is told.
    pub slow_logged: u64,
    pub turns: u64,
    /// Longest turn, microseconds.
    pub turn_max_us: u64,
    /// Commands that waited for the disk.
    pub cold_reads: u64,
    /// Commands that ran away from their core because they were long.
    pub long_commands: u64,
    /// Memory held now, bytes.
    pub query_buffer_bytes: u64,
    pub output_buffer_bytes: u64,
    /// Rate over the last second.
    pub ops_per_second: u64,
    /// Its shards; filled in when it is told.
    pub shards: Vec<ShardStats>,
}

/// Where a turn's time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnStage {
    /// The kernel's part: sockets are read and written.
    Ring,
    /// Commands run.
    Run,
    /// The log is written, then RocksDB's memtables.
    Commit,
    /// Replies and messages are handed out.
    Send,
}

impl TurnStage {
    pub const ALL: [TurnStage; 4] = [TurnStage::Ring, TurnStage::Run, TurnStage::Commit, TurnStage::Send];

    pub fn name(self) -> &'static str {
        match self {
            TurnStage::Ring => "ring",
            TurnStage::Run => "run",
            TurnStage::Commit => "commit",
            TurnStage::Send => "send",
        }
    }
}

/// Distributions of one core's times.
#[derive(Clone, Debug, Default)]
pub struct CoreTimes {
    /// By stage, of turns in which something was done.
    pub turns: [Micros; 4],
    /// From a command's miss until it ran again.
    pub cold_waits: Micros,
    /// Of each sync of a log of this core, by shard.
    pub syncs: Vec<(u16, Micros)>,
}

/// All that a core knows of itself.
#[derive(Clone, Debug, Default)]
pub struct CoreReport {
    pub stats: CoreStats,
    pub commands: CommandStats,
    pub times: CoreTimes,
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
            expired_fields,
            blocked_clients,
            slow_logged,
            turns,
            cold_reads,
            long_commands,
            query_buffer_bytes,
            output_buffer_bytes,
            ops_per_second
        );
        self.expire_lag_ms = self.expire_lag_ms.max(other.expire_lag_ms);
        self.turn_max_us = self.turn_max_us.max(other.turn_max_us);
        self.errors.add(&other.errors);
        self.shards.extend_from_slice(&other.shards);
    }

    /// A reply is on its way to a client; whether it is an error.
    pub fn note_reply(&mut self, reply: &Reply) -> bool {
        if let Reply::Error(error) = reply {
            self.errors.note(error);
        }
        matches!(reply, Reply::Error(_))
    }

    /// What the logs of its shards have done together.
    pub fn log(&self) -> LogCounters {
        let mut sum = LogCounters::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.log));
        sum
    }

    /// One figure of its shards, added up.
    pub fn sum(&self, figure: impl Fn(&ShardStats) -> u64) -> u64 {
        self.shards.iter().map(figure).sum()
    }

    /// CONFIG RESETSTAT: what counts events starts again; what says how much there is stays.
    pub fn reset(&mut self) {
        *self = CoreStats { connections_now: self.connections_now, ..CoreStats::default() };
    }
}

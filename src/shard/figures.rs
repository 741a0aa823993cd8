//! What an owner tells of its shards to those who ask, and how that starts again.

use super::owner::Owner;
use crate::metrics::CoreTimes;
use crate::metrics::micros::Micros;
use crate::metrics::shard::{FileStats, LogCounters, ShardStats};

impl Owner {
    /// What its shards are and do now. Some microseconds for each, and RocksDB's own mutex.
    pub fn shard_stats(&self) -> Vec<ShardStats> {
        (0..self.shards.len()).map(|at| self.one_shard_stats(at)).collect()
    }

    fn one_shard_stats(&self, at: usize) -> ShardStats {
        let (shard, upkeep) = (&self.shards[at], &self.upkeep[at]);
        let files = shard.data.store.stats().unwrap_or_else(|error| {
            tracing::error!(shard = shard.id.0, %error, "asking RocksDB for its figures failed");
            FileStats::default()
        });
        ShardStats {
            shard: shard.id.0,
            log: shard.counters,
            written_lsn: shard.log.written().0,
            durable_lsn: shard.log.durable().0,
            persisted_lsn: upkeep.persisted(),
            purgeable_lsn: shard.log.purgeable(upkeep.recovery_from()).map_or(0, |lsn| lsn.0),
            first_needed_lsn: shard.log.first_needed(upkeep.recovery_from()).map_or(u64::MAX, |lsn| lsn.0),
            paced_at: upkeep.paced_at(),
            gated: self.gated[at].len() as u64,
            full: shard.is_full(),
            keys: shard.data.slots.all_keys(),
            log_file_bytes: shard.log.file_bytes(),
            hot_cache_bytes: shard.data.hot.cache_bytes(),
            garbage: shard.data.garbage.stats(),
            files,
        }
    }

    /// Times since the start or the last reset.
    pub fn times(&self) -> CoreTimes {
        let syncs = self.shards.iter().map(|shard| (shard.id.0, shard.sync_times.clone())).collect();
        CoreTimes { syncs, ..self.times.clone() }
    }

    /// CONFIG RESETSTAT.
    pub fn reset_stats(&mut self) {
        self.stats.reset();
        self.times = CoreTimes::default();
        for shard in &mut self.shards {
            shard.counters = LogCounters::default();
            shard.sync_times = Micros::default();
            shard.data.garbage.reset_counters();
        }
    }
}

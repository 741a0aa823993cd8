//! A core's jobs for threads that may wait: sent at the end of a turn, their answers taken at the start of one.
//!
//! Must not know what the jobs do, only what RocksDB must have before they may look.

use super::owner::Owner;
use super::work::{Done, Job};
use crate::error::Fault;
use crate::runtime::pool::PoolHandle;

/// A core's ways to threads that may wait.
pub struct CorePools {
    /// Reads, and commands that run away from the core.
    pub pool: PoolHandle<Done>,
    /// Syncs and memtable switches.
    pub flusher: PoolHandle<Done>,
    /// Batches for RocksDB.
    pub applier: PoolHandle<Done>,
}

/// What must be in RocksDB before a job may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// All that this local shard has written.
    Shard(usize),
    All,
}

impl Owner {
    /// Runs a job on the pool, at the end of the turn.
    pub fn on_pool(&mut self, job: Job) {
        self.jobs.push_back((Needs::Nothing, job));
    }

    /// Something of the pool's has come back and was not looked at.
    pub fn has_results(&self) -> bool {
        self.pools.pool.waiting() || self.pools.flusher.waiting() || self.pools.applier.waiting()
    }

    /// Takes what the pools have finished; true if there was something.
    pub fn take_results(&mut self) -> Result<bool, Fault> {
        let mut done = Vec::new();
        self.pools.pool.completed(|result| done.push(result));
        self.pools.flusher.completed(|result| done.push(result));
        self.pools.applier.completed(|result| done.push(result));
        let any = !done.is_empty();
        done.into_iter().try_for_each(|result| self.completed(result))?;
        Ok(any)
    }

    pub(super) fn submit_jobs(&mut self) {
        for _ in 0..self.jobs.len() {
            let (needs, job) = self.jobs.pop_front().expect("counted above");
            let applied = match needs {
                Needs::Nothing => true,
                Needs::Shard(at) => self.shards[at].data.hot.is_clean(),
                Needs::All => self.shards.iter().all(|shard| shard.data.hot.is_clean()),
            };
            if !applied || !self.pools.pool.has_room() {
                self.jobs.push_back((needs, job));
                continue;
            }
            self.pools.pool.submit(job).expect("the pool has said that it has room");
        }
        while self.pools.flusher.has_room()
            && let Some(job) = self.flush_jobs.pop_front()
        {
            self.pools.flusher.submit(job).expect("the flusher has said that it has room");
        }
    }
}

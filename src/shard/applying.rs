//! When RocksDB is given what turns have logged, and by whom: a thread of its own, or the core where it is little.
//!
//! What is in a batch is `data.rs`'s and `unapplied.rs`'s concern.

use super::jobs::Needs;
use super::owner::Owner;
use super::unapplied::Applied;
use super::work::Done;
use crate::error::Fault;

impl Owner {
    /// Gives a shard's RocksDB what turns have logged, unless it is being given something: then that gathers.
    pub(super) fn apply(&mut self, at: usize) -> Result<(), Fault> {
        let shard = &mut self.shards[at];
        if shard.data.hot.is_clean() || shard.data.is_applying() {
            return Ok(());
        }
        let stalled = shard.data.is_stalled();
        if shard.data.is_little() && !stalled {
            return shard.apply();
        }
        // What RocksDB has refused it is offered again at each tick.
        if !self.pools.applier.has_room() || (stalled && !self.ticked) {
            return Ok(());
        }
        let asked = self.wants_applied(at);
        let apply = self.shards[at].apply_away(asked);
        let run = move || Done::Applied { shard: at, applied: apply.run() };
        self.pools.applier.submit(run).expect("it has said that it has room");
        Ok(())
    }

    /// Somebody waits to see in RocksDB what the shard has logged.
    fn wants_applied(&self, at: usize) -> bool {
        let needed = |needs: Needs| needs == Needs::All || needs == Needs::Shard(at);
        self.jobs.iter().any(|(needs, _)| needed(*needs))
            || self.upkeep[at].wants_applied()
            || self.follow[at].wants_applied()
    }

    /// A batch that a thread was given is in RocksDB, or was refused.
    pub(super) fn applied(&mut self, at: usize, applied: Applied) -> Result<(), Fault> {
        let was_open = self.shards[at].accepts_writes();
        self.shards[at].data.applied(applied)?;
        if !was_open && self.shards[at].accepts_writes() && self.writers_waiting(at) {
            self.gate_opened(at);
        }
        Ok(())
    }
}

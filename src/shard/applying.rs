//! When RocksDB is given what turns have logged, and by whom: a thread of its own, or the core where it is little.
//!
//! What is in a batch is `data.rs`'s and `unapplied.rs`'s concern.

use super::jobs::Needs;
use super::owner::Owner;
use super::unapplied::Applied;
use super::work::Done;
use crate::error::Fault;

impl Owner {
    /// Gives a shard's RocksDB what turns have logged, when it is time, and unless it is being given something.
    pub(super) fn apply(&mut self, at: usize) -> Result<(), Fault> {
        let now_ms = self.clock.now_ms();
        let data = &mut self.shards[at].data;
        if data.hot.is_clean() || data.is_applying() {
            return Ok(());
        }
        let (stalled, due) = (data.is_stalled(), data.is_due(now_ms));
        let asked = self.wants_applied(at);
        // What RocksDB has refused it is offered again at each tick.
        let wanted = if stalled { self.ticked } else { asked || due };
        if !wanted || !self.pools.applier.has_room() {
            return Ok(());
        }
        if self.shards[at].data.is_little() && !stalled {
            return self.shards[at].apply();
        }
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

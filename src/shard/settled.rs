//! How far a shard's log can no longer be taken back: neither by a power cut, nor by the start after one,
//! which cuts a log in front of what depends on something that another shard's log has lost.
//!
//! A part depends on its whole, a whole on what its participants' logs held when they were latched, and all
//! on what stands before it. Knows no log and no core: it is told what is durable here, and reads what the
//! others have told.

use crate::slot::ShardId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all cores see, by shard.
pub struct Settlement {
    upto: Box<[AtomicU64]>,
    /// How far somebody who waits wants it to be.
    wanted: Box<[AtomicU64]>,
}

impl Settlement {
    pub fn new(shards: u16) -> Settlement {
        let zeros = || (0..shards).map(|_| AtomicU64::new(0)).collect();
        Settlement { upto: zeros(), wanted: zeros() }
    }

    /// Asks a shard to sync what stands up to here; it sees that in its next turn.
    pub fn want(&self, shard: ShardId, lsn: u64) {
        self.wanted[usize::from(shard.0)].fetch_max(lsn, Ordering::AcqRel);
    }

    /// The last LSN of a shard that nothing can take back.
    pub fn upto(&self, shard: ShardId) -> u64 {
        self.upto[usize::from(shard.0)].load(Ordering::Acquire)
    }
}

/// What stands here at `lsn` is lost if the other shard loses its own.
struct Open {
    lsn: u64,
    other: ShardId,
    other_lsn: u64,
    since_ms: u64,
}

/// One shard's account.
pub struct Settled {
    shard: ShardId,
    all: Arc<Settlement>,
    /// Oldest first: at most those of a second, since answers then wait.
    open: VecDeque<Open>,
    upto: u64,
}

impl Settled {
    /// Of a log that has just been recovered: all that is in it counts.
    pub fn new(shard: ShardId, all: Arc<Settlement>, upto: u64) -> Settled {
        all.upto[usize::from(shard.0)].store(upto, Ordering::Release);
        Settled { shard, all, open: VecDeque::new(), upto }
    }

    /// What was appended at `lsn` must not outlive `other_lsn` of another shard.
    pub fn depends(&mut self, lsn: u64, other: ShardId, other_lsn: u64, now_ms: u64) {
        if !self.is_settled(other, other_lsn) {
            self.open.push_back(Open { lsn, other, other_lsn, since_ms: now_ms });
        }
    }

    /// Takes how far this log is on disk, and looks at the others.
    pub fn advance(&mut self, durable: u64) {
        while let Some(open) = self.open.front()
            && self.is_settled(open.other, open.other_lsn)
        {
            self.open.pop_front();
        }
        let upto = self.open.front().map_or(durable, |open| durable.min(open.lsn - 1));
        if upto > self.upto {
            self.upto = upto;
            self.all.upto[usize::from(self.shard.0)].store(upto, Ordering::Release);
        }
    }

    /// The last LSN that nothing can take back.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Since when something here waits for another shard.
    pub fn open_since_ms(&self) -> Option<u64> {
        self.open.front().map(|open| open.since_ms)
    }

    /// Asks the shards waited for to sync now; they see it within a tick.
    pub fn hurry(&self) {
        for open in &self.open {
            self.all.wanted[usize::from(open.other.0)].fetch_max(open.other_lsn, Ordering::AcqRel);
        }
    }

    /// Another shard waits for this one.
    pub fn is_wanted(&self) -> bool {
        self.all.wanted[usize::from(self.shard.0)].load(Ordering::Acquire) > self.upto
    }

    fn is_settled(&self, shard: ShardId, lsn: u64) -> bool {
        self.all.upto[usize::from(shard.0)].load(Ordering::Acquire) >= lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_part_is_settled_with_its_home_and_that_homes_home() {
        let all = Arc::new(Settlement::new(3));
        let mut logs: Vec<_> = (0..3).map(|shard| Settled::new(ShardId(shard), all.clone(), 10)).collect();
        logs[1].depends(11, ShardId(0), 11, 5);
        logs[2].depends(11, ShardId(1), 12, 6);
        logs[1].advance(20);
        logs[2].advance(20);
        assert_eq!((logs[1].upto(), logs[2].upto()), (10, 10));
        assert_eq!(logs[2].open_since_ms(), Some(6));
        logs[2].hurry();
        assert!(logs[1].is_wanted() && !logs[0].is_wanted());
        logs[0].advance(11);
        logs[2].advance(20);
        assert_eq!(logs[2].upto(), 10, "its home has not looked yet");
        logs[1].advance(20);
        logs[2].advance(20);
        assert_eq!((logs[1].upto(), logs[2].upto()), (20, 20));
        assert!(!logs[1].is_wanted());
    }
}

//! What the cores and the replication thread tell each other without a message.
//!
//! Plain numbers, each written by one side: how far each log may be shown to followers, and in which role this
//! node is. Knows no log and no follower.

use crate::slot::ShardId;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Shared by all cores and the replication thread.
pub struct Published {
    /// By shard: followers may have its log up to here.
    upto: Box<[AtomicU64]>,
    /// The replication thread wants to be waked when a log grows.
    awaited: AtomicBool,
    /// This node follows another: it takes no writes from clients, and deletes nothing by itself.
    follows: AtomicBool,
    /// Followers that have acknowledged lately.
    good_followers: AtomicU32,
    /// The `consensus-level` that the two below are of.
    quorum_level: AtomicU32,
    /// Fewer followers than that are there.
    lacks_quorum: AtomicBool,
    /// By shard: so many followers have its log up to here.
    acknowledged: Box<[AtomicU64]>,
}

impl Published {
    pub fn new(shards: u16) -> Published {
        Published {
            upto: zeros(shards),
            awaited: AtomicBool::new(false),
            follows: AtomicBool::new(false),
            good_followers: AtomicU32::new(0),
            quorum_level: AtomicU32::new(0),
            lacks_quorum: AtomicBool::new(false),
            acknowledged: zeros(shards),
        }
    }

    /// True if the replication thread is to be waked for it.
    pub fn publish(&self, shard: ShardId, lsn: u64) -> bool {
        let upto = &self.upto[usize::from(shard.0)];
        if upto.load(Ordering::Relaxed) == lsn {
            return false;
        }
        upto.store(lsn, Ordering::Release);
        self.awaited.load(Ordering::Relaxed)
    }

    pub fn upto(&self, shard: ShardId) -> u64 {
        self.upto[usize::from(shard.0)].load(Ordering::Acquire)
    }

    /// Of all shards together.
    pub fn records(&self) -> u64 {
        self.upto.iter().map(|upto| upto.load(Ordering::Acquire)).sum()
    }

    pub fn await_growth(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    pub fn follows(&self) -> bool {
        self.follows.load(Ordering::Acquire)
    }

    pub fn set_follows(&self, follows: bool) {
        self.follows.store(follows, Ordering::Release);
    }

    pub fn good_followers(&self) -> u32 {
        self.good_followers.load(Ordering::Acquire)
    }

    pub fn set_good_followers(&self, count: u32) {
        self.good_followers.store(count, Ordering::Release);
    }

    /// Whether fewer followers are there than a level asks for, or that is not known yet.
    pub fn lacks_quorum(&self, level: u32) -> bool {
        level > 0
            && (self.quorum_level.load(Ordering::Acquire) != level
                || self.lacks_quorum.load(Ordering::Acquire))
    }

    /// Up to where a shard's log may be shown to clients, as far as followers are concerned.
    pub fn acknowledged(&self, shard: ShardId, level: u32) -> u64 {
        if level == 0 || self.follows() {
            return u64::MAX;
        }
        match self.quorum_level.load(Ordering::Acquire) == level {
            true => self.acknowledged[usize::from(shard.0)].load(Ordering::Acquire),
            false => 0,
        }
    }

    /// `acknowledged`: by shard. True if that is news.
    pub fn set_acknowledged(&self, level: u32, lacks: bool, acknowledged: &[u64]) -> bool {
        let before = self.quorum_level.load(Ordering::Relaxed);
        let mut news = before != level;
        if news {
            // Numbers of another level must not be taken for those of the new one.
            self.quorum_level.store(0, Ordering::Release);
        }
        for (of, now) in self.acknowledged.iter().zip(acknowledged) {
            news |= of.swap(*now, Ordering::AcqRel) != *now;
        }
        news |= self.lacks_quorum.swap(lacks, Ordering::AcqRel) != lacks;
        self.quorum_level.store(level, Ordering::Release);
        news
    }
}

fn zeros(shards: u16) -> Box<[AtomicU64]> {
    (0..shards).map(|_| AtomicU64::new(0)).collect()
}

//! What the replication thread tells of itself: copied as a whole, for INFO, ROLE and the admin port.
//!
//! Plain facts. Must not know how they come about.

use super::wire::NodeId;
use crate::shard::published::Published;
use crate::slot::set::TableSlots;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the link to the primary is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// It will be tried, or tried again.
    #[default]
    Connect,
    /// A connection is being made.
    Connecting,
    /// The two are finding out where to go on.
    Handshake,
    /// Slots are being copied.
    Sync,
    /// Records come as they are made.
    Connected,
}

impl Link {
    /// As ROLE says it.
    pub fn word(self) -> &'static str {
        match self {
            Link::Connect => "connect",
            Link::Connecting => "connecting",
            Link::Handshake => "handshake",
            Link::Sync => "sync",
            Link::Connected => "connected",
        }
    }
}

/// How far FAILOVER is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failover {
    #[default]
    None,
    /// Writes are held until a follower has everything.
    WaitingForSync,
    /// A follower has been chosen, and is to take over.
    InProgress,
}

impl Failover {
    /// As INFO says it.
    pub fn word(self) -> &'static str {
        match self {
            Failover::None => "no-failover",
            Failover::WaitingForSync => "waiting-for-sync",
            Failover::InProgress => "failover-in-progress",
        }
    }
}

/// The primary that this node follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    pub host: String,
    pub port: u16,
    pub link: Link,
    /// The id of its data directory, once it has told.
    pub node: Option<NodeId>,
    /// Everything has been copied that had to be, as far as is known: the link has stood, and no copy is under way.
    pub complete: bool,
    /// A Redis, not a node of this kind: then `offset` is its stream's, in bytes.
    pub is_redis: bool,
    /// Writes of a Redis that were refused here: the two differ.
    pub redis_stream_errors: u64,
    /// Milliseconds since the epoch; 0: never.
    pub last_heard_ms: u64,
    /// Since when the link is down, milliseconds since the epoch; 0: it is up.
    pub down_since_ms: u64,
    /// Records of the primary's logs that are applied here, all its shards together.
    pub offset: u64,
    /// Records that the primary has and this node has not, as far as it has told.
    pub behind: u64,
    /// Of the slots that are followed, those that the primary did not have when it was asked.
    pub missing: TableSlots,
    /// Slots copied since the link was made, and those that are to be.
    pub slots_copied: u64,
    pub slots_to_copy: u64,
    /// Why the last attempt ended.
    pub last_error: Option<String>,
}

/// One node that follows this one, or a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follower {
    pub ip: String,
    /// The port that it serves clients on; a capture's: that of its end of the connection.
    pub port: u16,
    /// It has all its copies and is sent records.
    pub online: bool,
    /// Records of this node's logs that it has acknowledged, all shards together.
    pub offset: u64,
    /// Records, and bytes sent, that it has not acknowledged.
    pub behind: u64,
    pub unacknowledged_bytes: u64,
    /// Milliseconds since the epoch.
    pub acknowledged_ms: u64,
}

impl Follower {
    /// It keeps up: it has acknowledged something within this time.
    pub fn is_good(&self, now_ms: u64, max_lag_ms: u64) -> bool {
        self.online && now_ms.saturating_sub(self.acknowledged_ms) <= max_lag_ms
    }
}

/// How many slots of a node in sharding mode are what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    pub primary: u64,
    pub followed: u64,
    /// The nodes that are followed, with how many of the slots.
    pub links: Vec<(Following, u64)>,
}

/// What is told, replaced as a whole: so it is whole even if whoever held it has panicked.
#[derive(Default)]
pub struct SharedStatus {
    told: Mutex<Status>,
    published: Option<Arc<Published>>,
}

impl SharedStatus {
    /// How far the logs are is asked of the cores at each look: who compares it with a follower's must not be shown
    /// what was so a moment ago.
    pub fn of(published: Arc<Published>) -> SharedStatus {
        SharedStatus { told: Mutex::default(), published: Some(published) }
    }

    pub fn set(&self, status: Status) {
        *self.look() = status;
    }

    /// For a moment.
    pub fn look(&self) -> MutexGuard<'_, Status> {
        let mut status = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(published) = &self.published {
            status.offset = published.records();
        }
        status
    }
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub following: Option<Following>,
    pub followers: Vec<Follower>,
    /// In sharding mode: slots that this node writes, and those that follow others.
    pub slots: Option<SlotCounts>,
    /// Who follows and keeps nothing: no replicas.
    pub captures: Vec<Follower>,
    /// Records in this node's logs that followers may have, all shards together.
    pub offset: u64,
    /// How often slots of a shard were copied to a follower of this node, since the start.
    pub copies_begun: u64,
    /// How often records were kept that the new primary did not have, since the start, and how many.
    pub dropped_tails: u64,
    pub dropped_records: u64,
    /// Slots that were brought into the primary's history by some of their keys, since the start, and the keys.
    pub rewound_slots: u64,
    pub rewound_keys: u64,
    pub failover: Failover,
}

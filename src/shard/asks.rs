//! What one core asks of all of them, or of a thread beside them, and what they answer.
//!
//! Travels as `mesh` says.

use super::mesh::LineId;
use crate::resp::reply::Reply;
use crate::slot::assignment::Peer;
use crate::slot::set::TableSlots;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::row::Kind;
use crate::types::stretch::{Found, Stretch};
use bytes::Bytes;
use std::sync::Arc;

/// A question to every core (or one), answered by each with a `Tell`.
#[derive(Clone)]
pub enum Ask {
    /// All keys of a table that match, up to a limit in bytes.
    Keys {
        table: TableId,
        pattern: Bytes,
        limit_bytes: usize,
    },
    /// One piece of SCAN on one shard.
    Scan(Arc<ScanAsk>),
    /// The first keys of one type in an ordered range.
    Range(Arc<RangeAsk>),
    /// Delete all keys of one type that match.
    Sweep(Arc<SweepAsk>),
    RandomKey {
        table: TableId,
        seed: u64,
    },
    /// Estimated keys, counted exactly where they are few.
    DbSize {
        table: TableId,
    },
    /// Counts every key of every table, in the background.
    CountKeys,
    CountKeysInSlot {
        table: TableId,
        slot: Slot,
    },
    KeysInSlot {
        table: TableId,
        slot: Slot,
        count: usize,
    },
    /// Estimates of all tables that hold something.
    Keyspace,
    ClientList(Arc<ClientFilter>),
    ClientKill(Arc<ClientFilter>),
    ClientUnblock {
        client: u64,
        error: bool,
    },
    ClientPause {
        until_ms: u64,
        writes_only: bool,
    },
    /// This configuration holds from now on.
    Configure(Arc<crate::config::Config>),
    Stats,
    /// As `Stats`, with how often and how long each command ran, and where time goes.
    Report,
    /// Of the slow log, the newest entries.
    Slow {
        count: usize,
    },
    ResetSlow,
    ResetStats,
    /// What LATENCY has noted.
    Events,
    ResetEvents(Vec<crate::metrics::latency::Event>),
    SetActiveExpire(bool),
    /// Show this connection every command from now on.
    Watch(LineId),
    /// Let log go that is needed by nobody, in segments that end before this LSN. Answered by how many stay.
    PurgeLogs {
        before: u64,
    },
    /// Where the logs end: all that was written before stands there or before.
    LogEnds,
    /// In sharding mode: how many commands each table has had on this core.
    TableRates,
    /// Writes of clients wait from now on, or do so no more; keys do not end meanwhile. CLIENT PAUSE is beside it.
    HoldWrites(bool),
    /// Whether writes are still under way here, and where the logs end.
    Held,
    /// For the replication thread alone.
    Replication(ReplicationAsk),
}

impl Ask {
    /// It looks at what keys there are: of several cores, whose answers must be of one placement of the slots. One that
    /// only counts in the background need not be.
    pub fn looks_at_keys(&self) -> bool {
        matches!(
            self,
            Ask::Keys { .. }
                | Ask::Scan(_)
                | Ask::Range(_)
                | Ask::Sweep(_)
                | Ask::RandomKey { .. }
                | Ask::DbSize { .. }
                | Ask::CountKeysInSlot { .. }
                | Ask::KeysInSlot { .. }
        )
    }
}

/// Commands on keys of one table: since the start, and in the last whole second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRates {
    pub commands: u64,
    pub writes: u64,
    pub qps: u64,
    pub write_qps: u64,
}

impl std::ops::AddAssign for TableRates {
    fn add_assign(&mut self, other: TableRates) {
        self.commands += other.commands;
        self.writes += other.writes;
        self.qps += other.qps;
        self.write_qps += other.write_qps;
    }
}

/// Where a shard's log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    pub shard: ShardId,
    pub lsn: u64,
}

/// What a client wants of the replication thread; answered with the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationAsk {
    /// `force`: what is here counts for nothing.
    Follow {
        host: String,
        port: u16,
        force: bool,
    },
    FollowNobody,
    Slots(SlotsAsk),
    /// From whoever is followed next everything is fetched, whatever the two have in common.
    ClearHistory,
    /// Copy a table from the primary once more. Refused where there is none.
    CopyTable(TableId),
    /// Hand this node's role to a follower and follow it; answered when it has begun.
    Failover(FailoverPlan),
    AbortFailover,
    /// The primary with this data directory's id hands its role to this node.
    TakeOver {
        from: Bytes,
    },
    /// Answered when so many followers have what stands up to here, or when the time is over (0: never).
    /// `durable`: on their disks, and if true on this node's; answered then with both numbers.
    Wait {
        upto: Vec<LogEnd>,
        /// In sharding mode, the slots that followers must follow to count; None: all that this node writes.
        slots: Option<TableSlots>,
        durable: Option<bool>,
        replicas: u64,
        timeout_ms: u64,
    },
}

/// What a client wants of the slots of a node in sharding mode. Slots are as the client has written them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotsAsk {
    AddTable {
        table: TableId,
        slots: u64,
    },
    DeleteTable {
        table: TableId,
    },
    Add {
        table: TableId,
        slots: Bytes,
    },
    Delete {
        table: TableId,
        slots: Bytes,
    },
    /// Makes slots follow another node; None: nobody. `force`: what is here of them counts for nothing.
    Follow {
        table: TableId,
        slots: Bytes,
        peer: Option<Peer>,
        force: bool,
    },
    /// Moves slots to another node, and answers when they are there.
    Migrate {
        table: TableId,
        slots: Bytes,
        peer: Peer,
    },
    /// Adds slots as followers of another node: nobody can write them before they follow.
    Take {
        table: TableId,
        slots: Bytes,
        peer: Peer,
    },
    /// Moves slots of every table to another shard of this node, and answers when they are there.
    Rehome {
        slots: Bytes,
        shard: ShardId,
    },
    /// Deletes slots that follow this node.
    Drop {
        table: TableId,
        slots: Bytes,
        peer: Peer,
    },
    CancelMigration,
    /// How the last one goes, or went.
    Migration,
    /// What the slots' data comes to.
    Digest {
        table: TableId,
        slots: Bytes,
    },
    /// As `Digest`, in two steps: answered with a number when the slots' state is fixed.
    Snapshot {
        table: TableId,
        slots: Bytes,
    },
    DigestOf {
        number: u64,
    },
    /// None: all.
    Show {
        table: TableId,
        slots: Option<Bytes>,
    },
}

/// What FAILOVER was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailoverPlan {
    /// The follower that takes over; None: the first that has everything.
    pub to: Option<(String, u16)>,
    /// When the time is over the follower takes over with what it has.
    pub force: bool,
    /// None: as long as it takes.
    pub timeout_ms: Option<u64>,
}

/// Which connections CLIENT LIST and CLIENT KILL mean; every condition set must hold.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    pub ids: Vec<u64>,
    pub addr: Option<Bytes>,
    pub laddr: Option<Bytes>,
    pub kind: Option<Bytes>,
    pub user: Option<Bytes>,
    pub max_age_seconds: Option<u64>,
    /// The connection that must not be killed.
    pub spare: Option<u64>,
}

pub struct ScanAsk {
    pub table: TableId,
    pub shard: ShardId,
    /// The first and the last slot that are looked at.
    pub from: Slot,
    pub last: Slot,
    /// 0: from the first slot's start.
    pub token: u32,
    pub pattern: Option<Bytes>,
    pub kind: Option<Bytes>,
    pub count: usize,
}

pub struct RangeAsk {
    pub table: TableId,
    pub kind: Kind,
    pub stretch: Stretch,
    /// Keys of the range that are looked at, matching or not.
    pub limit: usize,
    pub pattern: Option<Bytes>,
    /// Whether the values of those that match are wanted: of strings only.
    pub values: bool,
    /// What one core answers at most, about: its keys are told up to there.
    pub bytes_max: usize,
}

/// The first names of a range on one shard, with their values where those are wanted.
pub type Ranged = Found<Option<Bytes>>;

pub struct SweepAsk {
    pub table: TableId,
    pub kind: Kind,
    pub pattern: Bytes,
}

/// What one core answers.
pub enum Tell {
    Keys(Vec<Bytes>),
    /// More keys than one reply may hold.
    TooMany,
    /// `next`: where to go on in this shard.
    Scanned {
        keys: Vec<Bytes>,
        next: Option<(Slot, u32)>,
    },
    /// By shard.
    Range(Vec<Ranged>),
    RandomKey(Option<Bytes>, u64),
    Count(u64),
    Keyspace(Vec<(TableId, TableKeys)>),
    Clients(String),
    Killed(u64),
    Stats(Box<crate::metrics::CoreStats>),
    Report(Box<crate::metrics::CoreReport>),
    Events(Box<crate::metrics::latency::Events>),
    /// The newest first.
    Slow(Vec<crate::metrics::slow::SlowEntry>),
    LogEnds(Vec<LogEnd>),
    TableRates(Vec<(TableId, TableRates)>),
    /// `quiet`: no write is under way that a client of this core has begun.
    Held {
        quiet: bool,
        ends: Vec<LogEnd>,
    },
    Replication(Reply),
    Done,
    Failed(String),
}

/// What is known of a table's keys without looking at each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableKeys {
    pub keys: u64,
    pub expires: u64,
}

//! What two nodes say to each other, as messages and as bytes.
//!
//! Must not know who says it, and when.

use super::history::History;
use super::keys::Rewind;
use super::position::SlotName;
use crate::binlog::{Lsn, Touch};
use crate::shard::mesh::SlotPosition;
use crate::slot::placement::Placement;
use crate::slot::set::TableSlots;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Entry;
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A data directory's id: 40 hex digits.
pub type NodeId = [u8; 40];

/// What a node is to another.
#[derive(Clone, Debug)]
pub struct Identity {
    pub placement: Placement,
    /// Numbered databases.
    pub tables: u32,
    /// Slots are Redis Cluster's.
    pub crc16: bool,
    pub node: NodeId,
    /// Of tables that have another number of slots than the placement.
    pub slot_counts: SlotCounts,
}

/// How many slots tables have, where it is not the usual number.
pub type SlotCounts = BTreeMap<TableId, u16>;

/// A *stream* is a shard of the primary; its LSNs are of that shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The follower's first word.
    Subscribe(Subscribe),
    /// From the follower: up to here everything of a stream is logged and shown (`applied`), and cannot be lost
    /// by a crash any more (`durable`). Both only grow.
    Ack {
        stream: ShardId,
        applied: Lsn,
        durable: Lsn,
    },
    /// From the follower: so many `CopyRows` of a stream are dealt with, counted from its `CopyBegin`.
    CopyAck {
        stream: ShardId,
        chunks: u64,
    },
    /// From the follower: it is there.
    Alive,
    /// The primary's first word: the number of its streams. Milliseconds since the epoch.
    Welcome {
        streams: u16,
        node: NodeId,
        time_ms: u64,
        /// Slots that were asked for and are not there: nothing is said of them.
        missing: TableSlots,
    },
    /// The primary's only word.
    Refused {
        why: String,
    },
    /// These slots of a stream are copied now, in this order, and stand at these positions then. At 0: nothing
    /// comes, and what the follower has of it goes.
    CopyBegin {
        stream: ShardId,
        slots: Vec<SlotPosition>,
    },
    /// Of this slot of the copy only these keys come, whole or not at all: the follower's others are right. Before
    /// its entries, and only if it has asked for that.
    CopyKeys {
        stream: ShardId,
        table: TableId,
        slot: Slot,
        keys: Vec<Bytes>,
    },
    /// Entries of one slot, in order.
    CopyRows {
        stream: ShardId,
        table: TableId,
        slot: Slot,
        entries: Vec<Entry>,
    },
    /// The first `upto` slots of `CopyBegin` are complete.
    CopyMark {
        stream: ShardId,
        upto: u32,
    },
    CopyEnd {
        stream: ShardId,
    },
    /// Before this LSN nothing of the stream is missing any more.
    StreamFrom {
        stream: ShardId,
        next: Lsn,
    },
    Record(Record),
    /// Up to here nothing of the stream has been left out that the follower does not have.
    Upto {
        stream: ShardId,
        lsn: Lsn,
    },
    /// The primary's last word: these slots' positions are not in its history, which is this, as far as its log
    /// tells. They must be copied.
    Forget {
        slots: Vec<(SlotName, History)>,
    },
    /// From the primary: it is there. By stream, how far its log has come.
    Beat {
        published: Vec<Lsn>,
        time_ms: u64,
    },
}

/// What a follower is and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Numbered databases.
    pub tables: u32,
    pub slots_per_table: u16,
    /// Slots are Redis Cluster's.
    pub crc16: bool,
    pub node: NodeId,
    /// Of tables that have not `slots_per_table`.
    pub slot_counts: SlotCounts,
    /// The slots that it wants; None: all that there are.
    pub slots: Option<TableSlots>,
    /// Of those, the slots that it has records of. One at index 0 must be copied: what the follower has of it counts for
    /// nothing.
    pub positions: Vec<SlotPosition>,
    /// Of those at index 0, the slots of which some keys are enough.
    pub rewinds: Vec<Rewind>,
}

/// A record of a stream's log, with the slots that the follower does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub stream: ShardId,
    pub lsn: Lsn,
    /// When it was written, milliseconds since the epoch.
    pub time_ms: u64,
    pub touches: SmallVec<[Touch; 2]>,
    /// The body holds nothing but operations on these touches.
    pub exact: bool,
    /// As the log has it.
    pub body: Bytes,
}

//! What crosses cores: owned data in closed enums (questions and their answers: `asks.rs`). Each variant
//! says who sends it, who gets it, and what happens when the lane is full: always the same, the sender keeps
//! it in its overflow queue, in order, and stops reading its sockets until the lane has room.

pub use super::asks::{
    Ask, ClientFilter, FailoverPlan, LogEnd, RangeAsk, Ranged, ReplicationAsk, ScanAsk, SlotsAsk, SweepAsk,
    TableKeys, TableRates, Tell,
};
use super::large::Encoded;
use super::latch::Names;
use super::work::{Lent, Reading};
use crate::binlog::Touch;
use crate::command::KeyCommand;
use crate::error::ClientError;
use crate::resp::args::{Args, Span};
use crate::resp::reply::Reply;
use crate::slot::assignment::Assignment;
use crate::slot::placement::Placement;
use crate::slot::set::SlotSet;
use crate::slot::{CoreId, ShardId, Slot, TableId};
use crate::store::effects::{Operation, Origin};
use crate::store::row::{Row, Version};
use crate::store::{Entry, Incarnation, Reader};
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::Arc;

/// One connection, as other cores name it. Its commands at one owner run in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineId {
    pub core: CoreId,
    pub conn: u64,
}

/// A single-shard command whose bytes somebody else owns.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub command: &'static KeyCommand,
    pub table: TableId,
    pub shard: ShardId,
    pub args: Args<'a>,
}

impl Call<'_> {
    pub fn to_owned(&self) -> OwnedCall {
        let mut bytes = Vec::with_capacity(self.args.iter(0).map(<[u8]>::len).sum());
        let mut spans = Vec::with_capacity(self.args.len());
        for arg in self.args.iter(0) {
            spans.push(Span { start: bytes.len() as u32, len: arg.len() as u32 });
            bytes.extend_from_slice(arg);
        }
        OwnedCall { command: self.command, table: self.table, shard: self.shard, bytes: bytes.into(), spans }
    }
}

/// A command that waits, or runs away from its core.
pub struct OwnedCall {
    pub command: &'static KeyCommand,
    pub table: TableId,
    pub shard: ShardId,
    pub bytes: Bytes,
    pub spans: Vec<Span>,
}

impl OwnedCall {
    /// The same with other arguments in some places.
    pub fn with(&self, rewritten: &[(usize, Bytes)]) -> OwnedCall {
        let args = self.call().args;
        let (mut bytes, mut spans) = (Vec::new(), Vec::with_capacity(args.len()));
        for at in 0..args.len() {
            let other = rewritten.iter().find(|(of, _)| *of == at);
            let arg = other.map_or(args.get(at), |(_, arg)| arg);
            spans.push(Span { start: bytes.len() as u32, len: arg.len() as u32 });
            bytes.extend_from_slice(arg);
        }
        OwnedCall { bytes: bytes.into(), spans, ..*self }
    }

    /// Moves the bytes out; what stays still says which command and shard it was.
    pub fn take(&mut self) -> OwnedCall {
        let (bytes, spans) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.spans));
        OwnedCall { bytes, spans, ..*self }
    }

    pub fn call(&self) -> Call<'_> {
        let args = Args::new(&self.bytes, &self.spans);
        Call { command: self.command, table: self.table, shard: self.shard, args }
    }
}

/// Commands of one socket read that go to one core, in one piece.
pub struct Calls {
    pub line: LineId,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    heads: Vec<CallHead>,
}

struct CallHead {
    command: &'static KeyCommand,
    table: TableId,
    shard: ShardId,
    seq: u64,
    spans: (u32, u32),
}

impl Calls {
    pub fn new(line: LineId) -> Calls {
        Calls { line, bytes: Vec::new(), spans: Vec::new(), heads: Vec::new() }
    }

    pub fn push(&mut self, call: &Call<'_>, seq: u64) {
        let from = self.spans.len() as u32;
        for arg in call.args.iter(0) {
            self.spans.push(Span { start: self.bytes.len() as u32, len: arg.len() as u32 });
            self.bytes.extend_from_slice(arg);
        }
        let spans = (from, self.spans.len() as u32);
        self.heads.push(CallHead { command: call.command, table: call.table, shard: call.shard, seq, spans });
    }

    pub fn bytes_held(&self) -> usize {
        self.bytes.len()
    }

    pub fn len(&self) -> usize {
        self.heads.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The commands in order, each with the number its reply goes by.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Call<'_>)> {
        self.heads.iter().map(|head| {
            let spans = &self.spans[head.spans.0 as usize..head.spans.1 as usize];
            let args = Args::new(&self.bytes, spans);
            (head.seq, Call { command: head.command, table: head.table, shard: head.shard, args })
        })
    }
}

/// The reply to one command, on its way to the connection.
pub struct Answer {
    pub conn: u64,
    pub seq: u64,
    pub reply: Reply,
}

/// A multi-shard command in progress, named by its coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatherId {
    pub core: CoreId,
    pub number: u64,
}

/// What the coordinator wants to know of keys it has latched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    Nothing,
    Rows,
    /// Rows, and the pieces of long strings.
    Values,
    /// A way to read everything itself, on the pool.
    Reader,
}

/// What one shard knows of the keys it was asked to latch.
#[derive(Default)]
pub struct Fetched {
    pub rows: Vec<(TableId, Bytes, Option<Row>)>,
    pub elements: Vec<(TableId, Bytes, Version, Bytes, Bytes)>,
    pub next_index: Vec<(TableId, Slot, u64)>,
    pub lent: Option<Lent>,
}

/// What a command on several shards, or on whole tables, does to one shard.
pub struct ShardWork {
    pub origin: Origin,
    pub operations: Vec<Operation>,
}

/// What falls on another shard than the home of a command.
pub struct Share<W> {
    pub shard: ShardId,
    pub work: W,
    /// Where that shard's log stood while its latches were held: see `Participant`.
    pub after: u64,
}

/// A step of a multi-shard command, from its coordinator to an owner (or from home to participant).
pub enum Step {
    /// Latch, then fetch. Answered by `StepDone::Acquired`, or at once by `Busy` unless `wait`.
    Acquire { gather: GatherId, shard: ShardId, names: Names, exclusive: bool, fetch: Fetch, wait: bool },
    /// To the only writing shard, or to the lowest of several (`parts` then names the others' work).
    /// Latches stay until `Release`.
    Commit { gather: GatherId, shard: ShardId, work: ShardWork, parts: Vec<Share<ShardWork>> },
    /// As `Commit`, for more than a turn may do: logged and applied in pieces.
    CommitLarge { gather: GatherId, shard: ShardId, work: Encoded, parts: Vec<Share<Encoded>> },
    /// As `Part`, for more than a turn may do.
    PartLarge { gather: GatherId, shard: ShardId, home: ShardId, home_lsn: u64, number: u64, work: Encoded },
    /// From the home shard to a participant, once the whole is in the log.
    Part { gather: GatherId, shard: ShardId, home: ShardId, home_lsn: u64, number: u64, work: ShardWork },
    /// Give the latches back. Not answered.
    Release { gather: GatherId, shard: ShardId },
    /// From a participant to the home: its parts up to `number` are in its RocksDB for good.
    PartsPersisted { home: ShardId, participant: ShardId, number: u64 },
}

/// From an owner to the coordinator.
pub enum StepDone {
    /// `after`: where the shard's log stands.
    Acquired {
        gather: GatherId,
        shard: ShardId,
        fetched: Fetched,
        after: u64,
    },
    Busy {
        gather: GatherId,
        shard: ShardId,
    },
    /// This shard's share is logged and visible.
    Committed {
        gather: GatherId,
        shard: ShardId,
    },
    Failed {
        gather: GatherId,
        shard: ShardId,
        reply: Reply,
    },
}

impl StepDone {
    pub fn gather(&self) -> GatherId {
        match self {
            StepDone::Acquired { gather, .. }
            | StepDone::Busy { gather, .. }
            | StepDone::Committed { gather, .. }
            | StepDone::Failed { gather, .. } => *gather,
        }
    }
}

/// Everything that travels between cores.
pub enum Message {
    Calls(Calls),
    Answers(Vec<Answer>),
    Step(Step),
    StepDone(StepDone),
    Ask {
        from: CoreId,
        ticket: u64,
        ask: Ask,
    },
    Tell {
        ticket: u64,
        core: CoreId,
        tell: Tell,
    },
    /// From a waiting command's core to the owner of some of its keys: wake it when they are written. Answered
    /// by `WaitKnown`.
    WaitFor {
        line: LineId,
        shard: ShardId,
        keys: Vec<(TableId, Bytes)>,
    },
    WaitKnown {
        conn: u64,
    },
    /// From an owner: a key that this connection waits for has been written.
    Wake {
        conn: u64,
    },
    /// To the owners: it was woken and has found nothing; it waits no more.
    WaitOn {
        line: LineId,
        shard: ShardId,
    },
    WaitNoMore {
        line: LineId,
        shard: ShardId,
    },
    /// From any core to a watching connection's: a command has come.
    Watched {
        conn: u64,
        line: Bytes,
    },
    /// From a watching connection's core to every core: it watches no more.
    Unwatch(LineId),
    Replicate {
        from: Asker,
        shard: ShardId,
        what: Replicate,
    },
    Replicated {
        ticket: u64,
        shard: ShardId,
        what: Replicated,
    },
    /// From the replication thread to every core: the node has these slots from now on. Answered by `Assigned`.
    Assign {
        ticket: u64,
        assignment: Arc<Assignment>,
    },
    /// From the replication thread to every core: slots lie so from now on, and nobody's command begins on those that
    /// are held. `drain`: answered when none is under way on them any more, and nothing that looks at all keys; else
    /// at once. Answered by `Assigned`.
    Place {
        ticket: u64,
        placement: Placement,
        held: Option<Arc<SlotSet>>,
        drain: bool,
    },
    /// From each core to every core: it begins nothing any more that this assignment does not allow.
    Barrier {
        ticket: u64,
    },
    /// To the replication thread: nothing that was begun before can still write what is not assigned, nor use what is
    /// held.
    Assigned {
        ticket: u64,
        core: CoreId,
    },
    /// From the first core to the replication thread: this configuration holds from now on.
    Configured(Arc<crate::config::Config>),
    /// From the pool to the coordinator: where a giant command's keys lie.
    Planned {
        number: u64,
        planned: Result<Planned, ClientError>,
    },
    /// From the pool to the coordinator: what a command on latched keys answers and does.
    Computed {
        number: u64,
        computed: Computed,
    },
}

/// A primary's record, as far as it falls on one shard of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The primary's shard, and the record's number in its log.
    pub stream: ShardId,
    pub lsn: u64,
    /// Slots of this shard, each with the index and term that the primary gave it.
    pub touches: SmallVec<[Touch; 2]>,
    /// Operations on these slots.
    pub body: Bytes,
    pub operations: usize,
    /// Some are elements, which stand before the row that names them.
    pub elements: bool,
}

/// A slot with the index and term of its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPosition {
    pub table: TableId,
    pub slot: Slot,
    /// 0: it has no record.
    pub index: u64,
    pub term: u64,
}

/// One link of the replication thread, as shards name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub core: CoreId,
    pub ticket: u64,
}

/// From the replication thread to the owner of a shard. One shard's are done in order.
pub enum Replicate {
    /// How far the shard's slots have come: answered by `State`.
    State,
    /// As `State`, of the slots of which something is here though they lie on another shard: on their way here, or left
    /// over.
    Hidden,
    /// A way to read the shard as it is now, and the positions that are in it: answered by `Lent`. Of the slots that
    /// lie there, or of those that `Hidden` tells.
    Lend { hidden: bool },
    /// Records of this shard's slots, to be logged and shown: answered by `Appended`, once for as many as a turn
    /// has done.
    Append(Vec<Portion>),
    /// A record that brings slots from a history that was another to where it says: whatever they had before.
    /// Answered by `Appended`, by itself.
    Rewind(Portion),
    /// Entries of a slot that is being copied here, shown to nobody yet: answered by `Copied`.
    Copy { table: TableId, slot: Slot, entries: Vec<Entry> },
    /// These slots have been copied, and stand as of these positions: answered by `Adopted` when that is
    /// logged.
    Adopt(Vec<SlotPosition>),
    /// What this link has copied and not adopted is garbage.
    Abandon,
    /// Readers of the log are here.
    HoldLog(Option<u64>),
    /// Nobody else's records come any more: this node's own ones are of a new term. Answered by `TermBegun`.
    BeginTerm,
}

/// From the owner of a shard to the replication thread.
pub enum Replicated {
    /// What stands in the log up to `upto`, and no more, has brought the slots to these positions.
    State {
        positions: Vec<SlotPosition>,
        upto: u64,
    },
    Lent(Box<LentShard>),
    /// The records up to the one at `lsn` of the primary's shard stand in this shard's log up to `own`, which the
    /// policy has released.
    Appended {
        stream: ShardId,
        lsn: u64,
        own: u64,
    },
    Copied,
    /// The records that say so end at `own`.
    Adopted {
        own: u64,
    },
    /// What was sent does not fit what is here: nothing that stood behind it in its message was done.
    Refused(String),
    /// Everything asked before is done, and this node's records are of a new term.
    TermBegun,
}

/// A shard lent for a copy of its slots.
pub struct LentShard {
    pub reader: Reader,
    /// Slots with data here, and where it lies.
    pub slots: Vec<(SlotPosition, Incarnation)>,
    /// All slots that have ever had a record, those with data among them.
    pub positions: Vec<SlotPosition>,
    /// What is in the log and not in these positions comes behind this LSN.
    pub upto: u64,
    pub reading: Reading,
}

/// A giant command with its keys by shard, ascending.
pub struct Planned {
    pub call: OwnedCall,
    pub shares: Vec<(ShardId, Names)>,
}

/// How a command ended that ran on the pool, over the data of several shards.
pub struct Computed {
    pub reply: Reply,
    /// What it does to each shard, ascending.
    pub works: Vec<(ShardId, Encoded)>,
}

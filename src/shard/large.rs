//! Commits that are more than a turn may do: encoded on the pool, logged as one group of frames over
//! several turns, then applied in pieces. Their keys stay latched from before to after.
//!
//! The end of the group is the commit point. Until its last piece is applied, RocksDB says that it holds
//! no more than what stands before that frame, so that a crash replays the record whole.

use super::data::Data;
use super::mesh::{Asker, GatherId, Message, Portion, Share, StepDone};
use super::owner::{DISK_FULL, Owner};
use super::steps::{PartWork, Whole};
use crate::binlog::{FrameMeta, Group, Lsn, Participant, Touch, Txn};
use crate::config::Fsync;
use crate::limits::{COMMIT_OPS_MAX, COMMIT_PIECE_BYTES, COMMIT_PIECE_OPS};
use crate::resp::reply::Reply;
use crate::runtime::reaper;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::effects::{BodyReader, BodyWriter, Operation, Origin};
use crate::store::tx::{Change, Effect};
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Effects as they will stand in the log, and what the owner must know without reading them.
pub struct Encoded {
    body: Bytes,
    /// Operations that are this shard's; in a whole, those of others follow them.
    own: usize,
    /// Some are elements, which stand before the row that names them.
    elements: bool,
    /// Ascending, each once: this shard's.
    slots: Vec<(TableId, Slot)>,
}

impl Encoded {
    /// `others`: the other shards' effects, for a whole. Walks through everything: for the pool.
    pub fn new(origin: Origin, own: &[Effect], others: &[&[Effect]]) -> Encoded {
        let bytes = |effects: &[Effect]| effects.iter().map(size_bytes).sum::<usize>();
        let mut body =
            Vec::with_capacity(bytes(own) + others.iter().map(|effects| bytes(effects)).sum::<usize>());
        let mut writer = BodyWriter::new(&mut body, origin);
        writer.effects(own);
        others.iter().for_each(|effects| writer.effects(effects));
        let mut slots: Vec<_> = own.iter().map(|effect| (effect.table, effect.slot)).collect();
        slots.sort_unstable();
        slots.dedup();
        let elements = own.iter().any(|effect| matches!(effect.change, Change::Element { .. }));
        Encoded { body: body.into(), own: own.len(), elements, slots }
    }
}

/// Whether these are more than one turn may commit.
pub fn is_large(effects: &[Effect]) -> bool {
    effects.len() > COMMIT_OPS_MAX || effects.iter().map(size_bytes).sum::<usize>() > COMMIT_PIECE_BYTES
}

/// About what an effect takes in the log.
fn size_bytes(effect: &Effect) -> usize {
    const HEAD_BYTES: usize = 24;
    let value = match &effect.change {
        Change::Put(row) => row.weight(),
        Change::Delete => 0,
        Change::Element { sub, value, .. } => sub.len() + value.as_ref().map_or(0, Bytes::len),
    };
    HEAD_BYTES + effect.name.len() + value
}

/// Whose commit it is.
pub(super) enum Client {
    Task {
        id: usize,
        reply: Reply,
    },
    Commit {
        gather: GatherId,
        parts: Vec<Share<Encoded>>,
    },
    Part {
        gather: GatherId,
        home: ShardId,
        home_lsn: u64,
        number: u64,
    },
    /// The replication thread's: a record of a primary, in whose slots it has these places.
    Primary {
        from: Asker,
        stream: ShardId,
        lsn: u64,
        touches: SmallVec<[Touch; 2]>,
    },
}

enum Stage {
    Waiting,
    Logging { group: Group, logged: usize },
    Applying { lsn: u64, left: usize, operations: BodyReader },
}

pub(super) struct Large {
    work: Encoded,
    client: Client,
    stage: Stage,
}

impl Large {
    pub fn new(work: Encoded, client: Client) -> Large {
        Large { work, client, stage: Stage::Waiting }
    }

    pub fn of_portion(portion: Portion, from: Asker) -> Large {
        let Portion { stream, lsn, touches, body, operations, elements } = portion;
        let work = Encoded { body, own: operations, elements, slots: Vec::new() };
        Large::new(work, Client::Primary { from, stream, lsn, touches })
    }
}

/// The large commits of one shard, the first of them under way.
#[derive(Default)]
pub(super) struct Larges(VecDeque<Large>);

impl Larges {
    pub fn push(&mut self, large: Large) {
        self.0.push_back(large);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A part is here that has no place in the log yet: later parts must not overtake it.
    pub fn holds_back_parts(&self) -> bool {
        let unlogged = |large: &Large| !matches!(large.stage, Stage::Applying { .. });
        self.0.iter().any(|large| matches!(large.client, Client::Part { .. }) && unlogged(large))
    }
}

/// How far one turn has brought it.
enum Moved {
    /// It waits for the gate or for room in the log.
    Not,
    On,
    /// No room can be made for it.
    Refused,
    Logged,
    Applied(u64),
}

impl Owner {
    /// One turn's piece of what is under way on a shard; true if there was one.
    pub(super) fn advance_large(&mut self, at: usize) -> bool {
        let Some(mut large) = self.larges[at].0.pop_front() else { return false };
        let moved = self.move_large(at, &mut large);
        match moved {
            Moved::Not | Moved::On => self.larges[at].0.push_front(large),
            Moved::Refused => self.refuse_large(at, large),
            Moved::Logged => {
                self.larges[at].0.push_front(large);
                self.steps_gate_opened(at);
            }
            Moved::Applied(lsn) => self.large_applied(at, large, lsn),
        }
        !matches!(moved, Moved::Not)
    }

    fn move_large(&mut self, at: usize, large: &mut Large) -> Moved {
        let now_ms = self.clock.now_ms();
        let shard = &mut self.shards[at];
        if !shard.accepts_writes() {
            return Moved::Not;
        }
        if let Stage::Applying { lsn, left, operations } = &mut large.stage {
            // Others keep their latches until the answer may leave.
            let unlatched = matches!(large.client, Client::Task { .. } | Client::Primary { .. });
            let note = shard.data.note_undurable && unlatched;
            *left -= show_piece(&mut shard.data, operations, *left, |data, operation| match operation {
                Operation::Effect(effect) => data.show_as(effect, *lsn, now_ms, note, false),
                wide => data.show_operation(wide, *lsn, now_ms),
            });
            if *left > 0 {
                return Moved::On;
            }
            shard.data.applied_before = None;
            return Moved::Applied(*lsn);
        }
        // A piece, and the touches behind the last one.
        const ROOM_BYTES: u64 = 2 * COMMIT_PIECE_BYTES as u64;
        if !shard.log.has_room_beside_turn(ROOM_BYTES) {
            shard.log.ask_for_room_beside_turn(ROOM_BYTES);
            let must = matches!(large.client, Client::Part { .. } | Client::Primary { .. });
            return if shard.log_full() && !must { Moved::Refused } else { Moved::Not };
        }
        let body = &large.work.body;
        let logged = match &large.stage {
            Stage::Logging { logged, .. } => *logged,
            _ => 0,
        };
        let end = body.len().min(logged + COMMIT_PIECE_BYTES);
        let piece = [&body[logged..end]];
        large.stage = match std::mem::replace(&mut large.stage, Stage::Waiting) {
            Stage::Waiting if end < body.len() => {
                Stage::Logging { group: shard.log.begin_group(now_ms, &piece), logged: end }
            }
            Stage::Logging { group, .. } if end < body.len() => {
                shard.log.continue_group(&group, now_ms, &piece);
                Stage::Logging { group, logged: end }
            }
            last => {
                let group = match last {
                    Stage::Logging { group, .. } => Some(group),
                    _ => None,
                };
                self.end_large(at, large, group, logged);
                return Moved::Logged;
            }
        };
        Moved::On
    }

    /// Logs the last piece: the commit point.
    fn end_large(&mut self, at: usize, large: &mut Large, group: Option<Group>, from: usize) {
        let now_ms = self.clock.now_ms();
        let txn = match &large.client {
            Client::Task { .. } | Client::Primary { .. } => None,
            Client::Commit { parts, .. } if parts.is_empty() => None,
            Client::Commit { parts, .. } => {
                let wholes = &mut self.upkeep[at].wholes;
                let number = |part: &Share<Encoded>| {
                    let Share { shard, after, .. } = *part;
                    Participant { shard, number: wholes.number(shard), after: Lsn(after) }
                };
                Some(Txn::Whole { participants: parts.iter().map(number).collect() })
            }
            Client::Part { home, home_lsn, number, .. } => {
                Some(Txn::Part { home: *home, home_lsn: *home_lsn, number: *number })
            }
        };
        let shard = &mut self.shards[at];
        let touches = match &large.client {
            Client::Primary { touches, .. } => {
                shard.data.follow(touches);
                touches.to_vec()
            }
            _ => shard.touch_slots(&large.work.slots),
        };
        let meta = FrameMeta { touches: &touches, txn: txn.as_ref() };
        let rest = [&large.work.body[from..]];
        let lsn = match group {
            Some(group) => shard.log.end_group(group, &meta, now_ms, &rest),
            None => shard.log.append(&meta, now_ms, &rest),
        };
        shard.data.applied_before = Some(lsn.0);
        if large.work.elements {
            self.upkeep[at].keep_elements(lsn.0, shard.data.store.pin());
        }
        let operations =
            BodyReader::new(large.work.body.clone()).expect("the body has been read, or was made here");
        large.stage = Stage::Applying { lsn: lsn.0, left: large.work.own, operations };
        if let (Some(Txn::Whole { participants }), Client::Commit { gather, parts }) =
            (txn, &mut large.client)
        {
            for part in &participants {
                self.shards[at].settled.depends(lsn.0, part.shard, part.after.0, now_ms);
            }
            self.upkeep[at].wholes.open(lsn.0, &participants);
            let parts = std::mem::take(parts).into_iter().zip(participants);
            let parts = parts.map(|(part, to)| (part.shard, to.number, PartWork::Large(part.work))).collect();
            self.whole_logged(at, lsn.0, Whole { gather: *gather, parts, applied: false });
        }
        if let Client::Part { home, home_lsn, number, .. } = large.client {
            let shard = &mut self.shards[at];
            shard.data.note_part(home, number);
            shard.settled.depends(lsn.0, home, home_lsn, now_ms);
            self.upkeep[at].noted_part(now_ms);
        }
    }

    fn large_applied(&mut self, at: usize, large: Large, lsn: u64) {
        let Large { work, client, stage } = large;
        reaper::free((
            work.body,
            work.slots,
            match stage {
                Stage::Applying { operations, .. } => Some(operations),
                _ => None,
            },
        ));
        let shard = self.shards[at].id;
        match client {
            Client::Task { id, reply } => self.finish(id, shard, reply, lsn),
            Client::Commit { gather, .. } => {
                let done = Message::StepDone(StepDone::Committed { gather, shard });
                self.send_answerable(gather.core, shard, lsn, done);
            }
            Client::Part { gather, .. } => self.done(gather, StepDone::Committed { gather, shard }),
            Client::Primary { from, stream, lsn: of, .. } => self.appended(at, from, stream, of, lsn),
        }
    }

    fn refuse_large(&mut self, at: usize, large: Large) {
        let Large { work, client, stage } = large;
        if let Stage::Logging { group, .. } = stage {
            self.shards[at].log.abandon_group(group);
        }
        reaper::free(work.body);
        let (shard, reply) = (self.shards[at].id, Reply::Error(DISK_FULL));
        match client {
            Client::Task { id, .. } => self.finish(id, shard, reply, 0),
            Client::Commit { gather, parts } => {
                reaper::free(parts.into_iter().map(|part| part.work.body).collect::<Vec<_>>());
                self.done(gather, StepDone::Failed { gather, shard, reply });
            }
            Client::Part { .. } | Client::Primary { .. } => {
                unreachable!("what is committed elsewhere waits for room")
            }
        }
    }

    /// Under `appendfsync always` a whole must be on disk before its parts exist.
    pub(super) fn whole_logged(&mut self, at: usize, lsn: u64, whole: Whole) {
        if self.shards[at].fsync() == Fsync::Always {
            self.steps.wait_for_disk(at, lsn, whole);
        } else {
            // Leaves the core with everything else, after the log has been written.
            self.send_parts(at, lsn, whole);
        }
    }
}

/// Shows as much as a turn may do; how many operations that was.
fn show_piece(
    data: &mut Data,
    operations: &mut BodyReader,
    left: usize,
    show: impl Fn(&mut Data, &Operation),
) -> usize {
    let (mut shown, mut bytes) = (0, 0);
    while shown < left.min(COMMIT_PIECE_OPS) && bytes < COMMIT_PIECE_BYTES {
        let operation = operations.next().expect("it holds all operations it was encoded from");
        let operation = operation.expect("the body has been read, or was made here");
        if let Operation::Effect(effect) = &operation {
            bytes += size_bytes(effect);
        }
        show(data, &operation);
        shown += 1;
    }
    shown
}

//! The owner's side of commands on several shards: latch and fetch, commit, parts, release.
//!
//! The coordinator's side is in `front::gather`. The commit point is one frame in the log of the lowest
//! writing shard, the whole; only when it is there do the others get their parts, from that shard's
//! core, over one lane, so that parts of one home arrive in the order of its log.

use super::jobs::Needs;
use super::large::{Client, Encoded, Large};
use super::latch::{Names, Request};
use super::mesh::{Fetch, Fetched, GatherId, Message, ShardWork, Share, Step, StepDone};
use super::owner::Owner;
use super::shard::Holder;
use super::work::{Done, Lent, Places, Reading};
use crate::binlog::{Lsn, Participant, Txn};
use crate::error::ClientError;
use crate::resp::reply::Reply;
use crate::slot::{CoreId, ShardId, Slot, TableId};
use crate::store::row::{Body, Row, STRING_PIECE_BYTES};
use crate::store::{Cached, ElementKey, Reader, StoreError};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Steps in progress on one core.
pub struct Steps {
    /// What was asked with latches that are not granted yet, or whose fetch is under way.
    acquiring: FxHashMap<(GatherId, ShardId), (Names, Fetch)>,
    /// Commits and parts that wait for a closed gate, by local shard, in order.
    gated: Vec<VecDeque<Step>>,
    /// Wholes that nothing may take back any more before their parts go out, by local shard.
    unsettled: Vec<VecDeque<(u64, Whole)>>,
}

/// A whole that is logged, on its way to the others.
pub(super) struct Whole {
    pub gather: GatherId,
    pub parts: Vec<(ShardId, u64, PartWork)>,
    /// The home has its own share in place: the coordinator may be told.
    pub applied: bool,
}

pub(super) enum PartWork {
    Small(ShardWork),
    Large(Encoded),
}

impl Steps {
    pub fn new(shards: usize) -> Steps {
        Steps {
            acquiring: FxHashMap::default(),
            gated: (0..shards).map(|_| VecDeque::new()).collect(),
            unsettled: (0..shards).map(|_| VecDeque::new()).collect(),
        }
    }

    pub fn waits(&self, at: usize) -> bool {
        !self.gated[at].is_empty()
    }

    pub(super) fn wait_for_disk(&mut self, at: usize, lsn: u64, whole: Whole) {
        self.unsettled[at].push_back((lsn, whole));
    }
}

impl Owner {
    /// Takes a step of a command on several shards.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Acquire { gather, shard, names, exclusive, fetch, wait } => {
                let at = self.at(shard);
                let request = Request { owner: Holder::Gather(gather), names: names.clone(), exclusive };
                let granted = self.shards[at].latches.acquire(request, wait);
                if !granted && !wait {
                    return self.done(gather, StepDone::Busy { gather, shard });
                }
                self.steps.acquiring.insert((gather, shard), (names, fetch));
                if granted {
                    self.granted(gather, shard);
                }
            }
            Step::Commit { shard, .. }
            | Step::CommitLarge { shard, .. }
            | Step::Part { shard, .. }
            | Step::PartLarge { shard, .. } => {
                let at = self.at(shard);
                if self.steps.waits(at) || !self.may_write(at, &step) {
                    self.steps.gated[at].push_back(step);
                } else {
                    self.write_step(at, step);
                }
            }
            Step::Release { gather, shard } => self.unlatch(shard, &Holder::Gather(gather)),
            Step::PartsPersisted { home, participant, number } => {
                let at = self.at(home);
                self.upkeep[at].wholes.persisted(participant, number);
            }
        }
    }

    /// Parts of one home are logged in the order of their numbers. A commit waits for room in the log, and is
    /// refused where the disk is full; a part of what is committed already waits for as long as it takes.
    fn may_write(&self, at: usize, step: &Step) -> bool {
        let shard = &self.shards[at];
        match step {
            Step::Commit { .. } => shard.admits_writes() || shard.is_full(),
            Step::Part { .. } => shard.admits_writes() && !self.larges[at].holds_back_parts(),
            _ => shard.accepts_writes(),
        }
    }

    pub(super) fn done(&mut self, gather: GatherId, done: StepDone) {
        self.outgoing.push((gather.core, Message::StepDone(done)));
    }

    pub(super) fn steps_gate_opened(&mut self, at: usize) {
        while let Some(step) = self.steps.gated[at].front()
            && self.may_write(at, step)
        {
            let step = self.steps.gated[at].pop_front().expect("it has a front");
            self.write_step(at, step);
        }
    }

    fn write_step(&mut self, at: usize, step: Step) {
        let now_ms = self.clock.now_ms();
        match step {
            Step::Commit { gather, shard, work, parts } => {
                if self.shards[at].is_full() {
                    let reply = Reply::Error(super::owner::DISK_FULL);
                    return self.done(gather, StepDone::Failed { gather, shard, reply });
                }
                if parts.is_empty() {
                    let position = self.shards[at].join_work(&work, &[], None, now_ms);
                    let done = Message::StepDone(StepDone::Committed { gather, shard });
                    return self.send_answerable(gather.core, shard, position, done);
                }
                self.commit_whole(at, gather, work, parts);
            }
            Step::Part { gather, shard, home, home_lsn, number, work } => {
                let txn = Txn::Part { home, home_lsn, number };
                let shard_here = &mut self.shards[at];
                let lsn = shard_here.join_work(&work, &[], Some(txn), now_ms);
                shard_here.data.note_part(home, number);
                shard_here.settled.depends(lsn, home, home_lsn, now_ms);
                self.upkeep[at].noted_part(now_ms);
                self.done(gather, StepDone::Committed { gather, shard });
            }
            Step::CommitLarge { gather, work, parts, .. } => {
                self.larges[at].push(Large::new(work, Client::Commit { gather, parts }));
            }
            Step::PartLarge { gather, home, home_lsn, number, work, .. } => {
                self.larges[at].push(Large::new(work, Client::Part { gather, home, home_lsn, number }));
            }
            _ => unreachable!("only commits and parts wait at the gate"),
        }
    }

    fn commit_whole(&mut self, at: usize, gather: GatherId, own: ShardWork, parts: Vec<Share<ShardWork>>) {
        let wholes = &mut self.upkeep[at].wholes;
        let number = |part: &Share<ShardWork>| {
            let Share { shard, after, .. } = *part;
            Participant { shard, number: wholes.number(shard), after: Lsn(after) }
        };
        let participants: Vec<_> = parts.iter().map(number).collect();
        let works: Vec<&ShardWork> = parts.iter().map(|part| &part.work).collect();
        let txn = Txn::Whole { participants: participants.clone() };
        let now_ms = self.clock.now_ms();
        let lsn = self.shards[at].join_work(&own, &works, Some(txn), now_ms);
        for part in &participants {
            self.shards[at].settled.depends(lsn, part.shard, part.after.0, now_ms);
        }
        self.upkeep[at].wholes.open(lsn, &participants);
        let numbers = participants.iter().map(|part| part.number);
        let parts = numbers.zip(parts).map(|(number, part)| (part.shard, number, PartWork::Small(part.work)));
        self.whole_logged(at, lsn, Whole { gather, parts: parts.collect(), applied: true });
    }

    pub(super) fn send_parts(&mut self, at: usize, home_lsn: u64, whole: Whole) {
        let (home, gather) = (self.shards[at].id, whole.gather);
        for (shard, number, work) in whole.parts {
            let core = self.owner_of(shard);
            let step = match work {
                PartWork::Small(work) => Step::Part { gather, shard, home, home_lsn, number, work },
                PartWork::Large(work) => Step::PartLarge { gather, shard, home, home_lsn, number, work },
            };
            self.outgoing.push((core, Message::Step(step)));
        }
        if whole.applied {
            // The command stands with its whole, so the whole's shard says when the answer may leave.
            let done = Message::StepDone(StepDone::Committed { gather, shard: home });
            self.send_answerable(gather.core, home, home_lsn, done);
        }
    }

    /// Sends the parts of wholes that a sync has made certain.
    pub(super) fn wholes_settled(&mut self, at: usize) {
        let settled = self.shards[at].settled.upto();
        while let Some((lsn, _)) = self.steps.unsettled[at].front()
            && *lsn <= settled
        {
            let (lsn, whole) = self.steps.unsettled[at].pop_front().expect("it has a front");
            self.send_parts(at, lsn, whole);
        }
    }

    /// The latches a coordinator asked for are held: fetch what it wants to know, away from the core
    /// unless memory has it all.
    pub(super) fn granted(&mut self, gather: GatherId, shard: ShardId) {
        let at = self.at(shard);
        let (names, fetch) = &self.steps.acquiring[&(gather, shard)];
        let fetch = *fetch;
        if fetch == Fetch::Reader {
            let slots = &self.shards[at].data.slots;
            let places = match names {
                Names::Keys(keys) => {
                    let slot_of = |table, name| self.hash_of(table).slot_of(name);
                    let placed: Vec<_> =
                        keys.iter().map(|(table, name)| (*table, slot_of(*table, name))).collect();
                    Places::of(slots, placed.into_iter())
                }
                Names::Set(set) => Places::of_table(slots, set.table()),
                Names::Table(table) => Places::of_table(slots, *table),
                Names::Shard => unreachable!("no command reads all tables"),
            };
            let (reader, reading) = (self.shards[at].data.store.reader(), Reading::begin(&self.reading));
            let lent = Some(Lent { shard, reader, places, reading });
            // By way of the pool only because that waits until RocksDB has what the turn has written.
            let job =
                move || Done::Fetched { gather, shard, result: Ok(Fetched { lent, ..Fetched::default() }) };
            self.jobs.push_back((Needs::Shard(at), Box::new(job)));
            return;
        }
        let keys = match names {
            Names::Keys(keys) if fetch != Fetch::Nothing => keys.clone(),
            _ => return self.fetched(gather, shard, Ok(Fetched::default())),
        };
        if let Some(fetched) = self.fetch_cached(at, &keys, fetch) {
            return self.fetched(gather, shard, Ok(fetched));
        }
        let slot_of = |table, name: &Bytes| self.hash_of(table).slot_of(name);
        let placed: Vec<_> =
            keys.into_iter().map(|(table, name)| (table, slot_of(table, &name), name)).collect();
        let places =
            Places::of(&self.shards[at].data.slots, placed.iter().map(|(table, slot, _)| (*table, *slot)));
        let reader = self.shards[at].data.store.reader();
        let job = move || Done::Fetched { gather, shard, result: fetch_all(&reader, placed, &places, fetch) };
        self.jobs.push_back((Needs::Shard(at), Box::new(job)));
    }

    /// Answers from memory, or None.
    fn fetch_cached(&mut self, at: usize, keys: &[(TableId, Bytes)], fetch: Fetch) -> Option<Fetched> {
        const KEYS_MAX: usize = 64;
        if keys.len() > KEYS_MAX {
            return None;
        }
        let mut fetched = Fetched::default();
        for (table, name) in keys {
            let slot = self.hash_of(*table).slot_of(name);
            let shard = &mut self.shards[at];
            let state = *shard.data.slots.get(*table, slot);
            fetched.next_index.push((*table, slot, state.next_index));
            let row = shard.data.peek_row(state.incarnation, name)?;
            if fetch == Fetch::Values && matches!(row, Some(Row { body: Body::Pieces { .. }, .. })) {
                return None;
            }
            fetched.rows.push((*table, name.clone(), row));
        }
        Some(fetched)
    }

    pub(super) fn fetched(&mut self, gather: GatherId, shard: ShardId, result: Result<Fetched, StoreError>) {
        self.steps.acquiring.remove(&(gather, shard));
        let position = self.shards[self.at(shard)].log.written_or_pending().0;
        let done = match result {
            Ok(fetched) => StepDone::Acquired { gather, shard, fetched, after: position },
            Err(error) => {
                tracing::error!(shard = shard.0, %error, "reading failed");
                let reply = Reply::Error(ClientError::new(format!("ERR reading failed: {error}")));
                StepDone::Failed { gather, shard, reply }
            }
        };
        // What is shown must not be taken back: under `always` it waits for the disk, and for followers that are
        // asked.
        let waits = self.shards[self.at(shard)].data.note_undurable;
        let position = if waits { position } else { 0 };
        self.send_answerable(gather.core, shard, position, Message::StepDone(done));
    }
}

fn fetch_all(
    reader: &Reader,
    keys: Vec<(TableId, Slot, Bytes)>,
    places: &Places,
    fetch: Fetch,
) -> Result<Fetched, StoreError> {
    let view = reader.view();
    let mut fetched = Fetched::default();
    for (table, slot, name) in keys {
        let (incarnation, next_index) = places.get(table, slot);
        fetched.next_index.push((table, slot, next_index));
        let row = match incarnation {
            super::slots::NONE => None,
            incarnation => found(view.row(incarnation, &name)?),
        };
        if fetch == Fetch::Values
            && let Some(Row { body: Body::Pieces { version, len }, .. }) = &row
        {
            let count = len.div_ceil(STRING_PIECE_BYTES as u64) as u32;
            for piece in 0..count {
                let sub = piece.to_be_bytes();
                let key = ElementKey::new(incarnation, &name, *version, &sub);
                if let Some(value) = found(view.element(&key)?) {
                    let sub = Bytes::copy_from_slice(&sub);
                    fetched.elements.push((table, name.clone(), *version, sub, value));
                }
            }
        }
        fetched.rows.push((table, name, row));
    }
    Ok(fetched)
}

fn found<T>(cached: Cached<T>) -> Option<T> {
    match cached {
        Cached::Found(value) => Some(value),
        Cached::Absent => None,
        Cached::Miss => unreachable!("a read of every tier has no miss"),
    }
}

impl Owner {
    fn owner_of(&self, shard: ShardId) -> CoreId {
        self.owners[usize::from(shard.0)]
    }
}

//! One stream as it comes in: what is being copied, what has been handed to the local shards, how far they are.
//!
//! Must not know what a slot has.

use super::position::SlotName;
use crate::binlog::Lsn;
use crate::limits::REPLICA_ADOPT_BYTES;
use crate::shard::mesh::SlotPosition;
use crate::slot::ShardId;
use crate::store::Entry;

/// What one local shard has been given of a stream, and has applied.
#[derive(Clone, Copy, Default)]
struct Given {
    last: Lsn,
    applied: Lsn,
}

/// A copy that is coming in.
struct CopyIn {
    slots: Vec<SlotPosition>,
    /// The slot whose entries come.
    at: usize,
    /// Slots that are complete, and those that have been handed over.
    complete: usize,
    adopted: usize,
    /// Come since the last were handed over.
    bytes: u64,
}

pub(super) struct StreamIn {
    copy: Option<CopyIn>,
    /// What comes next has this LSN or a higher one; None before the stream has begun.
    pub next: Option<Lsn>,
    /// By local shard.
    given: Vec<Given>,
    /// Adoptions that have been asked for and not answered.
    pub adopting: usize,
    /// Chunks of the copy that have been dealt with.
    pub chunks: u64,
    pub chunks_acknowledged: u64,
    /// Applied and durable, as was last said.
    pub acknowledged: (Lsn, Lsn),
    pub published: Lsn,
    pub slots_begun: u64,
    pub slots_adopted: u64,
}

impl StreamIn {
    pub fn new(shards: usize) -> StreamIn {
        StreamIn {
            copy: None,
            next: None,
            given: vec![Given::default(); shards],
            adopting: 0,
            chunks: 0,
            chunks_acknowledged: 0,
            acknowledged: (Lsn::ZERO, Lsn::ZERO),
            published: Lsn::ZERO,
            slots_begun: 0,
            slots_adopted: 0,
        }
    }

    pub fn begin_copy(&mut self, slots: Vec<SlotPosition>) -> Result<(), String> {
        if self.copy.is_some() || self.next.is_some() {
            return Err("a copy begins where none can".into());
        }
        self.slots_begun += slots.len() as u64;
        self.copy = Some(CopyIn { slots, at: 0, complete: 0, adopted: 0, bytes: 0 });
        Ok(())
    }

    /// Entries come slot by slot, in the order in which the slots were named.
    pub fn take_rows(&mut self, slot: SlotName, entries: &[Entry]) -> Result<(), String> {
        let copy = self.copy.as_mut().ok_or("a copy's entries come without it")?;
        let from = copy.at.max(copy.complete);
        let ahead = copy
            .slots
            .get(from..)
            .and_then(|rest| rest.iter().position(|at| (at.table, at.slot) == slot && at.index > 0));
        copy.at = from + ahead.ok_or("entries come of a slot that is not being copied")?;
        copy.bytes += entries.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64).sum::<u64>();
        Ok(())
    }

    /// The slots that can be handed over now, if they are enough.
    pub fn mark_copy(&mut self, complete: usize) -> Result<Vec<SlotPosition>, String> {
        let copy = self.copy.as_mut().ok_or("a copy's mark comes without it")?;
        if complete < copy.complete || complete > copy.slots.len() {
            return Err("a copy's mark is beyond it".into());
        }
        copy.complete = complete;
        Ok(if copy.bytes < REPLICA_ADOPT_BYTES { Vec::new() } else { self.ready() })
    }

    pub fn end_copy(&mut self) -> Result<Vec<SlotPosition>, String> {
        if self.copy.as_ref().is_none_or(|copy| copy.complete < copy.slots.len()) {
            return Err("a copy ends before it is complete".into());
        }
        let ready = self.ready();
        self.copy = None;
        Ok(ready)
    }

    fn ready(&mut self) -> Vec<SlotPosition> {
        let Some(copy) = &mut self.copy else { return Vec::new() };
        let ready = copy.slots[copy.adopted..copy.complete].to_vec();
        (copy.adopted, copy.bytes) = (copy.complete, 0);
        self.slots_adopted += ready.len() as u64;
        ready
    }

    pub fn begin(&mut self, next: Lsn) -> Result<(), String> {
        if self.copy.is_some() || self.next.is_some() {
            return Err("a stream begins where none can".into());
        }
        self.next = Some(next);
        Ok(())
    }

    /// Something of the stream comes that stands at this LSN.
    pub fn pass(&mut self, lsn: Lsn) -> Result<(), String> {
        if self.next.is_none_or(|next| lsn < next) {
            return Err(format!("LSN {} comes where it cannot", lsn.0));
        }
        self.next = Some(lsn.next());
        Ok(())
    }

    /// A portion goes to a local shard.
    pub fn send(&mut self, shard: ShardId, lsn: Lsn) {
        let given = &mut self.given[usize::from(shard.0)];
        if given.applied == given.last {
            // It has nothing before this one.
            given.applied = lsn.before();
        }
        given.last = lsn;
    }

    pub fn applied(&mut self, shard: ShardId, lsn: Lsn) {
        let given = &mut self.given[usize::from(shard.0)];
        given.applied = given.applied.max(lsn);
    }

    /// Everything up to here is applied by every shard it fell on. Never goes back.
    pub fn is_applied(&self) -> Lsn {
        let (Some(next), 0) = (self.next, self.adopting) else { return self.acknowledged.0 };
        let waiting = self.given.iter().filter(|given| given.applied < given.last);
        waiting.map(|given| given.applied).min().unwrap_or(next.before()).max(self.acknowledged.0)
    }
}

/// How far what is applied cannot be lost any more. One look at all logs at a time: what is applied now is durable
/// when each local log is durable as far as it stands now.
#[derive(Default)]
pub(super) struct Durability {
    /// By local shard: what was applied last stands there.
    ends: Vec<Lsn>,
    durable: Vec<Lsn>,
    /// What is waited for, by local shard, and what is then durable, by stream.
    awaited: Option<(Vec<Lsn>, Vec<Lsn>)>,
    /// By stream.
    reached: Vec<Lsn>,
}

impl Durability {
    /// `ends`: where the local shards' logs stand.
    pub fn new(shards: usize, ends: &[(ShardId, Lsn)]) -> Durability {
        let end = |shard| ends.iter().find(|(of, _)| *of == shard).map_or(Lsn::ZERO, |(_, end)| *end);
        Durability {
            ends: (0..shards as u16).map(|shard| end(ShardId(shard))).collect(),
            durable: vec![Lsn::ZERO; shards],
            awaited: None,
            reached: Vec::new(),
        }
    }

    pub fn note(&mut self, shard: ShardId, own: Lsn) {
        let end = &mut self.ends[usize::from(shard.0)];
        *end = own.max(*end);
    }

    pub fn durable(&mut self, shard: ShardId, own: Lsn) {
        if let Some(durable) = self.durable.get_mut(usize::from(shard.0)) {
            *durable = own.max(*durable);
        }
        self.settle();
    }

    fn settle(&mut self) {
        if let Some((ends, _)) = &self.awaited
            && ends.iter().zip(&self.durable).all(|(end, durable)| end <= durable)
            && let Some((_, reached)) = self.awaited.take()
        {
            self.reached = reached;
        }
    }

    /// Takes the next look, when the one before has been answered.
    pub fn look(&mut self, applied: impl Iterator<Item = Lsn>) {
        if self.awaited.is_some() {
            return;
        }
        let applied: Vec<Lsn> = applied.collect();
        if applied != self.reached {
            self.awaited = Some((self.ends.clone(), applied));
            self.settle();
        }
    }

    /// What is durable of a stream of which so much is applied.
    pub fn of(&self, stream: usize, applied: Lsn) -> Lsn {
        self.reached.get(stream).map_or(Lsn::ZERO, |reached| *reached.min(&applied))
    }
}

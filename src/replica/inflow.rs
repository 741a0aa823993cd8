//! One stream as it comes in: what is being copied, what has been handed to the local shards, how far they are.
//!
//! Must not know what a slot has.

use super::position::SlotName;
use crate::binlog::Lsn;
use crate::limits::{REPLICA_ADOPT_BYTES, REWIND_ENTRIES_MAX, REWIND_SLOT_MAX_BYTES};
use crate::shard::mesh::SlotPosition;
use crate::slot::ShardId;
use crate::store::Entry;
use bytes::Bytes;
use rustc_hash::FxHashSet;
use std::collections::VecDeque;

/// What one local shard has been given of a stream, and has applied.
#[derive(Clone, Copy, Default)]
struct Given {
    last: Lsn,
    applied: Lsn,
}

/// A slot that becomes another one's by some of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewound {
    pub at: SlotPosition,
    /// All that differ.
    pub keys: Vec<Bytes>,
    /// What they hold; those of which nothing is here hold nothing.
    pub entries: Vec<Entry>,
}

/// Slots of a copy that are complete.
#[derive(Default)]
pub(super) struct Ready {
    pub adopt: Vec<SlotPosition>,
    pub rewind: Vec<Rewound>,
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
    /// In the order of the slots, those that come key by key, until they are handed over; and how many were.
    rewinding: VecDeque<Rewound>,
    rewound: FxHashSet<SlotName>,
}

impl CopyIn {
    /// What comes now is of this slot.
    fn go_to(&mut self, slot: SlotName) -> Result<(), String> {
        let from = self.at.max(self.complete);
        let rest = self.slots.get(from..).unwrap_or_default();
        let ahead = rest.iter().position(|at| (at.table, at.slot) == slot && at.index > 0);
        self.at = from + ahead.ok_or("something comes of a slot that is not being copied")?;
        Ok(())
    }
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
    pub slots_rewound: u64,
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
            slots_rewound: 0,
        }
    }

    pub fn begin_copy(&mut self, slots: Vec<SlotPosition>) -> Result<(), String> {
        if self.copy.is_some() || self.next.is_some() {
            return Err("a copy begins where none can".into());
        }
        self.slots_begun += slots.len() as u64;
        self.copy = Some(CopyIn {
            slots,
            at: 0,
            complete: 0,
            adopted: 0,
            bytes: 0,
            rewinding: VecDeque::new(),
            rewound: FxHashSet::default(),
        });
        Ok(())
    }

    /// Of a slot only these keys come.
    pub fn take_keys(&mut self, slot: SlotName, keys: Vec<Bytes>) -> Result<(), String> {
        let copy = self.copy.as_mut().ok_or("a copy's keys come without it")?;
        copy.go_to(slot)?;
        if !copy.rewound.insert(slot) {
            return Err("the keys of a slot come twice".into());
        }
        copy.rewinding.push_back(Rewound { at: copy.slots[copy.at], keys, entries: Vec::new() });
        Ok(())
    }

    /// Entries come slot by slot, in the order in which the slots were named. They come back, unless only some keys
    /// of the slot come: then they are held here.
    pub fn take_rows(&mut self, slot: SlotName, entries: Vec<Entry>) -> Result<Option<Vec<Entry>>, String> {
        let copy = self.copy.as_mut().ok_or("a copy's entries come without it")?;
        copy.go_to(slot)?;
        let bytes = |entries: &[Entry]| -> usize {
            entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum()
        };
        if !copy.rewound.contains(&slot) {
            copy.bytes += bytes(&entries) as u64;
            return Ok(Some(entries));
        }
        let rewound = copy.rewinding.back_mut().ok_or("entries come of a slot that is complete")?;
        rewound.entries.extend(entries);
        if rewound.entries.len() > REWIND_ENTRIES_MAX || bytes(&rewound.entries) > 2 * REWIND_SLOT_MAX_BYTES {
            return Err("more comes of the keys of a slot than may".into());
        }
        self.chunks += 1;
        Ok(None)
    }

    /// The slots that can be handed over now, if they are enough.
    pub fn mark_copy(&mut self, complete: usize) -> Result<Ready, String> {
        let copy = self.copy.as_mut().ok_or("a copy's mark comes without it")?;
        if complete < copy.complete || complete > copy.slots.len() {
            return Err("a copy's mark is beyond it".into());
        }
        copy.complete = complete;
        let is_enough = copy.bytes >= REPLICA_ADOPT_BYTES;
        Ok(self.ready(is_enough))
    }

    pub fn end_copy(&mut self) -> Result<Ready, String> {
        if self.copy.as_ref().is_none_or(|copy| copy.complete < copy.slots.len()) {
            return Err("a copy ends before it is complete".into());
        }
        let ready = self.ready(true);
        self.copy = None;
        Ok(ready)
    }

    /// Those that came key by key, and (`adopt`) the others.
    fn ready(&mut self, adopt: bool) -> Ready {
        let Some(copy) = &mut self.copy else { return Ready::default() };
        let mut ready = Ready::default();
        let complete = &copy.slots[..copy.complete];
        let is_complete = |rewound: &Rewound| complete.contains(&rewound.at);
        while copy.rewinding.front().is_some_and(is_complete)
            && let Some(rewound) = copy.rewinding.pop_front()
        {
            ready.rewind.push(rewound);
        }
        self.slots_rewound += ready.rewind.len() as u64;
        self.slots_begun -= ready.rewind.len() as u64;
        if adopt {
            let whole = |at: &&SlotPosition| !copy.rewound.contains(&(at.table, at.slot));
            ready.adopt = copy.slots[copy.adopted..copy.complete].iter().filter(whole).copied().collect();
            (copy.adopted, copy.bytes) = (copy.complete, 0);
            self.slots_adopted += ready.adopt.len() as u64;
        }
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

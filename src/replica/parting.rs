//! The end of a link to a follower that has records which are not in this node's history: it is told of all of its
//! slots at once, and what this node knows of their histories.
//!
//! Must not know how a slot is found out, nor what the follower does then.

use super::history::History;
use super::position::{Position, SlotName};
use crate::slot::ShardId;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// A slot that has parted, and what this node has of it, as far as that is known without its log.
pub type Parted = (SlotName, Option<Position>);

/// What one shard's log has to say of its slots.
struct Part {
    slots: Vec<Parted>,
    asked: bool,
    histories: Option<Vec<(SlotName, History)>>,
}

/// By shard.
#[derive(Default)]
pub(super) struct Parting(BTreeMap<ShardId, Part>);

impl Parting {
    /// Slots of this shard have parted: nothing more is sent of its stream.
    pub fn has(&self, shard: ShardId) -> bool {
        self.0.contains_key(&shard)
    }

    pub fn found(&mut self, shard: ShardId, slots: Vec<Parted>) {
        self.0.insert(shard, Part { slots, asked: false, histories: None });
    }

    /// The shards whose logs are to be looked through, each of them once.
    pub fn ask(&mut self) -> impl Iterator<Item = (ShardId, Vec<SlotName>)> + '_ {
        self.0.iter_mut().filter(|(_, part)| !part.asked).map(|(shard, part)| {
            part.asked = true;
            (*shard, part.slots.iter().map(|(slot, _)| *slot).collect())
        })
    }

    /// A shard's log holds this of these slots, and nothing of the others.
    pub fn traced(&mut self, shard: ShardId, mut known: FxHashMap<SlotName, History>) {
        let part = self.0.get_mut(&shard).expect("a log is looked through where slots have parted");
        let history = |(slot, own): &Parted| {
            let known = known.remove(slot);
            (*slot, known.or(own.map(History::of_position)).unwrap_or_default())
        };
        part.histories = Some(part.slots.iter().map(history).collect());
    }

    /// What the follower is told, once every log has been looked through.
    pub fn told(&mut self) -> Option<Vec<(SlotName, History)>> {
        let all = !self.0.is_empty() && self.0.values().all(|part| part.histories.is_some());
        let histories = |part: Part| part.histories.unwrap_or_default();
        all.then(|| std::mem::take(&mut self.0).into_values().flat_map(histories).collect())
    }

    pub fn is_under_way(&self) -> bool {
        !self.0.is_empty()
    }
}

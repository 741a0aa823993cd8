//! What this node is to the slots of a core's shards, in sharding mode, and where slots lie that move between shards.
//!
//! Commands are refused or held before they come here (`front::assigned`); this is about what was begun before, and
//! about what nobody has asked for. Must not know why slots change hands.

use super::mesh::OwnedCall;
use super::owner::{Owner, key_names};
use crate::command::flag;
use crate::slot::assignment::Role;
use crate::slot::placement::Placement;
use crate::slot::set::SlotSet;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Incarnation;
use rustc_hash::FxHashSet;
use std::sync::Arc;

impl Owner {
    /// Slots lie so from now on, and these are held.
    pub fn place(&mut self, placement: &Placement, held: Option<Arc<SlotSet>>) {
        for shard in &mut self.shards {
            shard.data.slots.place(placement, shard.id);
        }
        self.held_slots = held;
    }

    pub fn is_held(&self, slot: Slot) -> bool {
        self.held_slots.as_ref().is_some_and(|held| held.contains(&slot))
    }

    /// Whether the node may write a slot by itself. Always where there is no assignment and nothing is held.
    pub(super) fn is_own(&self, table: TableId, slot: Slot) -> bool {
        let is_primary =
            || self.assigned.as_ref().is_none_or(|assigned| *assigned.role(table, slot) == Role::Primary);
        !self.is_held(slot) && is_primary()
    }

    /// A command is under way here that uses a slot which is held. One that only reads, and has its snapshot, may.
    pub fn uses_what_is_held(&self) -> bool {
        let is_such = |call: &OwnedCall| match call.spans.is_empty() {
            true => call.command.spec.has(flag::WRITE),
            false => key_names(&call.call())
                .iter()
                .any(|(table, name)| self.is_held(self.hash_of(*table).slot_of(name))),
        };
        self.held_slots.is_some()
            && (self.tasks.iter().any(|(_, task)| is_such(&task.call)) || self.lines.any(is_such))
    }

    /// A command is under way here that writes a slot which is not, or not at this moment, the node's to write.
    pub fn writes_what_is_not_assigned(&self) -> bool {
        let is_such = |call: &OwnedCall| {
            // One that runs away from the core has its arguments with it.
            let away = call.spans.is_empty();
            call.command.spec.has(flag::WRITE)
                && (away
                    || key_names(&call.call())
                        .iter()
                        .any(|(table, name)| !self.is_own(*table, self.hash_of(*table).slot_of(name))))
        };
        self.assigned.is_some()
            && (self.tasks.iter().any(|(_, task)| is_such(&task.call)) || self.lines.any(is_such))
    }

    /// Data of this shard whose keys another node, or another shard, lets expire.
    pub(super) fn followed_data(&self, shard: ShardId) -> FxHashSet<Incarnation> {
        let slots = &self.shard(shard).data.slots;
        let mut others: FxHashSet<Incarnation> =
            slots.hidden().map(|(.., state)| state.incarnation).collect();
        if let Some(assigned) = &self.assigned {
            let followed = assigned.iter().filter(|(.., role)| matches!(role, Role::Follows(_)));
            others.extend(followed.map(|(table, slot, _)| slots.get(table, slot).incarnation));
        }
        others
    }
}

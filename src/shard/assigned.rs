//! In sharding mode: what this node is to the slots of a core's shards.
//!
//! Commands are refused before they come here (`front::assigned`); this is about what was begun before, and about
//! what nobody has asked for. Must not know why slots change hands.

use super::mesh::OwnedCall;
use super::owner::{Owner, key_names};
use crate::command::flag;
use crate::slot::assignment::Role;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Incarnation;
use rustc_hash::FxHashSet;

impl Owner {
    /// Whether the node may write a slot by itself. Always where there is no assignment.
    pub(super) fn is_own(&self, table: TableId, slot: Slot) -> bool {
        self.assigned.as_ref().is_none_or(|assigned| *assigned.role(table, slot) == Role::Primary)
    }

    /// A command is under way here that writes a slot which is not, or not at this moment, the node's to write.
    pub fn writes_what_is_not_assigned(&self) -> bool {
        let hash = self.setting.hash;
        let is_such = |call: &OwnedCall| {
            // One that runs away from the core has its arguments with it.
            let away = call.spans.is_empty();
            call.command.spec.has(flag::WRITE)
                && (away
                    || key_names(&call.call())
                        .iter()
                        .any(|(table, name)| !self.is_own(*table, hash.slot_of(name))))
        };
        self.assigned.is_some()
            && (self.tasks.iter().any(|(_, task)| is_such(&task.call)) || self.lines.any(is_such))
    }

    /// Data of this shard whose keys another node lets expire.
    pub(super) fn followed_data(&self, shard: ShardId) -> FxHashSet<Incarnation> {
        let Some(assigned) = &self.assigned else { return FxHashSet::default() };
        let slots = &self.shard(shard).data.slots;
        let followed = assigned.iter().filter(|(.., role)| matches!(role, Role::Follows(_)));
        followed.map(|(table, slot, _)| slots.get(table, slot).incarnation).collect()
    }
}

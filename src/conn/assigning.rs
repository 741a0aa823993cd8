//! Another assignment of slots, or another placement: it holds at once, and is in force when nothing begun before can
//! still write.
//!
//! First this core begins no more commands on slots that are not its node's to write. What it coordinates is let
//! end; then every core is sent a barrier, behind all that this one has sent it before. When an owner has all
//! cores' barriers, and none of its own commands writes such a slot any more, it says so. Must not know why slots
//! change hands.

use super::serve::Core;
use crate::front::assigned::{Manner, Verdict, judge};
use crate::shard::mesh::{Call, Message};
use crate::slot::CoreId;
use crate::slot::assignment::Assignment;
use crate::slot::placement::Placement;
use crate::slot::set::SlotSet;
use std::sync::Arc;

/// How far this core is with the assignment that came last.
#[derive(Default)]
pub struct Assigning {
    /// None: the last one is in force.
    ticket: Option<u64>,
    /// What was coordinated before has a lower number. None: it has ended, and the barriers are sent.
    coordinated_before: Option<u64>,
    /// Questions about all keys count among that.
    with_questions: bool,
    /// Barriers that have come, and for which assignment: they may come before it does.
    barriers: (u64, u16),
}

impl Assigning {
    pub fn is_quiet(&self) -> bool {
        self.ticket.is_none()
    }

    fn note_barrier(&mut self, ticket: u64) {
        let (of, count) = &mut self.barriers;
        if ticket > *of {
            (*of, *count) = (ticket, 0);
        }
        // One for an assignment that has been replaced meanwhile may come late.
        *count += u16::from(ticket == *of);
    }
}

impl Core {
    /// From the replication thread; answered with `Assigned`.
    pub fn assign(&mut self, ticket: u64, assignment: Arc<Assignment>) {
        self.node.assigned = Some(assignment.clone());
        self.owner.assigned = Some(assignment);
        self.begin_barrier(ticket, false);
        self.look_at_blocked();
        self.judge_waits();
    }

    fn begin_barrier(&mut self, ticket: u64, with_questions: bool) {
        self.assigning.ticket = Some(ticket);
        self.assigning.coordinated_before = Some(self.coordination.next_number());
        self.assigning.with_questions = with_questions;
    }

    /// From the replication thread: slots lie so from now on, and nobody's command begins on those that are held.
    /// Answered as `assign` is when nothing of what was begun before uses them any more (`drain`), or at once.
    pub fn place(&mut self, ticket: u64, placement: Placement, held: Option<Arc<SlotSet>>, drain: bool) {
        let now = self.node.map.placed(placement.clone());
        let before = std::mem::replace(&mut self.node.map, now);
        self.owner.place(&placement, held);
        self.announce_moved(&before);
        if drain {
            self.begin_barrier(ticket, true);
        } else {
            self.assigning.ticket = None;
            let core = self.node.core;
            self.outbox.push((self.node.replication_lane(), Message::Assigned { ticket, core }));
        }
        self.look_at_blocked();
        self.judge_waits();
    }

    pub fn barrier(&mut self, ticket: u64) {
        self.assigning.note_barrier(ticket);
    }

    /// Goes on as far as it can; after every turn's messages.
    pub fn advance_assigning(&mut self) {
        let Some(ticket) = self.assigning.ticket else { return };
        if let Some(before) = self.assigning.coordinated_before
            && !self.coordination.has_older(before, self.assigning.with_questions)
        {
            self.assigning.coordinated_before = None;
            for core in 0..self.node.cores {
                self.outbox.push((CoreId(core), Message::Barrier { ticket }));
            }
        }
        let drained = !self.owner.writes_what_is_not_assigned() && !self.owner.uses_what_is_held();
        if self.assigning.barriers == (ticket, self.node.cores) && drained {
            self.assigning.ticket = None;
            let core = self.node.core;
            self.outbox.push((self.node.replication_lane(), Message::Assigned { ticket, core }));
        }
    }

    /// Whether a command of this connection may be served here; always where there is no assignment and nothing is
    /// held.
    pub fn verdict(&self, place: usize, call: &Call<'_>) -> Verdict {
        if self.owner.held_slots.is_some() && self.uses_held(call) {
            return Verdict::Hold;
        }
        self.owner.assigned.as_ref().map_or(Verdict::Serve, |assignment| {
            let manner = self.slot_manner(place);
            judge(assignment, self.node.hash, manner, call.table, &call.command.spec, &call.args)
        })
    }

    fn uses_held(&self, call: &Call<'_>) -> bool {
        let keys = &call.command.spec.keys;
        let hash = self.owner.hash_of(call.table);
        let is_held = |name: &[u8]| self.owner.is_held(hash.slot_of(name));
        // What is wrong with the arguments is found by the command.
        keys.go_beyond(&call.args)
            || keys.of(&call.args).is_ok_and(|keys| keys.iter().any(|key| is_held(call.args.get(key.arg))))
    }

    pub fn slot_manner(&self, place: usize) -> Manner {
        let readonly = self.connections[place].session.readonly;
        Manner { redirect: self.node.config.slot_redirect, readonly }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_of_an_assignment_that_was_replaced_do_not_count() {
        let mut assigning = Assigning::default();
        // Of three cores one has not heard yet that the seventh is replaced by the eighth.
        [7, 8, 7, 8, 8].into_iter().for_each(|ticket| assigning.note_barrier(ticket));
        assert_eq!(assigning.barriers, (8, 3));
    }
}

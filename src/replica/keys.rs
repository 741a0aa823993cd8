//! The keys in which two histories of a slot may differ: those that either has changed behind the fork.
//!
//! Records in, keys out, as long as they are few. Must not know where records are kept, or what keys hold.

use super::position::{Position, SlotName};
use crate::binlog::Touch;
use crate::limits::{REWIND_KEYS_MAX, REWIND_NAMES_MAX_BYTES};
use crate::store::NAME_MAX_BYTES;
use crate::store::effects::{BodyReader, Operation};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// A slot of which a follower lacks only what differs behind the fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    pub slot: SlotName,
    /// The last record that both nodes have; index 0: none, the slot was empty on both.
    pub fork: Position,
    /// What the follower has changed behind it. Ascending.
    pub keys: Vec<Bytes>,
}

/// The keys that records have changed, by slot. None: too many, or something that falls on the whole slot.
pub struct Keys {
    slots: FxHashMap<SlotName, Option<BTreeSet<Bytes>>>,
    /// For how many more there is room, and for how many bytes of names.
    room: usize,
    room_bytes: usize,
}

impl Keys {
    pub fn of(slots: impl Iterator<Item = SlotName>) -> Keys {
        let slots = slots.map(|slot| (slot, Some(BTreeSet::new()))).collect();
        Keys { slots, room: REWIND_KEYS_MAX, room_bytes: REWIND_NAMES_MAX_BYTES }
    }

    /// A record, with those of its touches that count.
    pub fn note(&mut self, touches: &[Touch], body: &Bytes) {
        let counts = |touch: &Touch| matches!(self.slots.get(&(touch.table, touch.slot)), Some(Some(_)));
        if !touches.iter().any(counts) {
            return;
        }
        let operations = BodyReader::new(body.clone()).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut effects = Vec::new();
        for operation in operations.into_iter().flatten() {
            match operation {
                Operation::Effect(effect) => effects.push(effect),
                Operation::SlotWide(_) => {
                    return touches.iter().for_each(|touch| self.give_up((touch.table, touch.slot)));
                }
            }
        }
        if effects.is_empty() {
            // It cannot be read, or says nothing of why it is there.
            return touches.iter().for_each(|touch| self.give_up((touch.table, touch.slot)));
        }
        for effect in effects {
            let slot = (effect.table, effect.slot);
            if touches.iter().any(|touch| (touch.table, touch.slot) == slot) {
                self.add(slot, &effect.name);
            }
        }
    }

    pub fn add(&mut self, slot: SlotName, name: &[u8]) {
        let Some(Some(keys)) = self.slots.get_mut(&slot) else { return };
        if keys.contains(name) {
            return;
        }
        if self.room == 0 || self.room_bytes < name.len() {
            return self.give_up(slot);
        }
        (self.room, self.room_bytes) = (self.room - 1, self.room_bytes - name.len());
        // A name of its own: it must not hold the record that it stands in.
        keys.insert(Bytes::copy_from_slice(name));
    }

    pub fn give_up(&mut self, slot: SlotName) {
        if let Some(keys) = self.slots.get_mut(&slot)
            && let Some(keys) = keys.take()
        {
            self.room += keys.len();
            self.room_bytes += keys.iter().map(Bytes::len).sum::<usize>();
        }
    }

    /// What was found of a slot, ascending.
    pub fn take(&mut self, slot: SlotName) -> Option<Vec<Bytes>> {
        Some(self.slots.remove(&slot)??.into_iter().collect())
    }
}

/// Finds the keys in which a follower's slots may differ from this node's, by looking through this node's log.
pub struct Branches {
    /// The fork, and whether it has been seen.
    forks: FxHashMap<SlotName, (Position, bool)>,
    keys: Keys,
}

impl Branches {
    pub fn new(rewinds: Vec<Rewind>) -> Branches {
        let forks = rewinds.iter().map(|rewind| (rewind.slot, (rewind.fork, false))).collect();
        let mut keys = Keys::of(rewinds.iter().map(|rewind| rewind.slot));
        for Rewind { slot, keys: names, .. } in &rewinds {
            names.iter().for_each(|name| match name.len() {
                // No key has such a name.
                len if len > NAME_MAX_BYTES => keys.give_up(*slot),
                _ => keys.add(*slot, name),
            });
        }
        Branches { forks, keys }
    }

    /// The next record of the log. `copied`: it says that slots were copied here.
    pub fn look(&mut self, touches: &[Touch], body: &[u8], copied: bool) {
        let mut behind: Vec<Touch> = Vec::new();
        for touch in touches {
            let slot = (touch.table, touch.slot);
            let Some((fork, seen)) = self.forks.get_mut(&slot) else { continue };
            // From the first record on all is behind a fork that lies in front of it.
            *seen |= fork.index == 0 && touch.index == 1;
            if (touch.index, touch.term) == (fork.index, fork.term) {
                *seen = true;
            } else if *seen && copied {
                self.keys.give_up(slot);
            } else if *seen {
                behind.push(*touch);
            }
        }
        if !behind.is_empty() {
            self.keys.note(&behind, &Bytes::copy_from_slice(body));
        }
    }

    /// Here records are missing.
    pub fn lose(&mut self) {
        for (slot, _) in self.forks.extract_if(|_, (_, seen)| *seen) {
            self.keys.give_up(slot);
        }
    }

    /// By slot, the keys; of slots that are not named it is not known which.
    pub fn find(mut self) -> FxHashMap<SlotName, Vec<Bytes>> {
        let seen = self.forks.iter().filter(|(_, (_, seen))| *seen).map(|(slot, _)| *slot);
        let slots: Vec<SlotName> = seen.collect();
        slots.into_iter().filter_map(|slot| Some((slot, self.keys.take(slot)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Slot, TableId};
    use crate::store::Row;
    use crate::store::effects::{BodyWriter, Origin, SlotWide};
    use crate::store::tx::{Change, Effect};

    const SLOTS: [SlotName; 2] = [(TableId(0), Slot(1)), (TableId(0), Slot(2))];

    fn body(keys: &[(usize, &str)]) -> Vec<u8> {
        let effect = |(slot, name): &(usize, &str)| Effect {
            table: SLOTS[*slot].0,
            slot: SLOTS[*slot].1,
            name: Bytes::copy_from_slice(name.as_bytes()),
            change: Change::Put(Row::string(Bytes::from_static(b"v"))),
            existed: None,
        };
        let effects: Vec<Effect> = keys.iter().map(effect).collect();
        let mut body = Vec::new();
        BodyWriter::new(&mut body, Origin::STRING).effects(&effects);
        body
    }

    fn touch(slot: usize, index: u64) -> Touch {
        Touch { table: SLOTS[slot].0, slot: SLOTS[slot].1, index, term: 1 << 50 }
    }

    fn rewinding(fork: u64, keys: &[&'static str]) -> Branches {
        let fork = Position { index: fork, term: 1 << 50 };
        let keys: Vec<Bytes> = keys.iter().map(|name| Bytes::from_static(name.as_bytes())).collect();
        Branches::new(SLOTS.map(|slot| Rewind { slot, fork, keys: keys.clone() }).into())
    }

    fn found(branches: Branches, slot: usize) -> Option<Vec<Bytes>> {
        branches.find().remove(&SLOTS[slot])
    }

    #[test]
    fn what_either_has_changed_behind_the_fork_may_differ() {
        let mut branches = rewinding(2, &["theirs"]);
        branches.look(&[touch(0, 1)], &body(&[(0, "before")]), false);
        branches.look(&[touch(0, 2)], &body(&[(0, "the fork's own")]), false);
        branches.look(&[touch(0, 3), touch(1, 1)], &body(&[(0, "ours"), (1, "of another slot")]), false);
        branches.look(&[touch(0, 4)], &body(&[(0, "ours"), (0, "theirs")]), false);
        let mut found = branches.find();
        assert_eq!(found.remove(&SLOTS[0]), Some(vec!["ours".into(), "theirs".into()]));
        assert!(found.is_empty(), "its fork is not in this log");
    }

    #[test]
    fn a_slot_that_was_empty_may_differ_in_all_that_was_written_since() {
        let mut branches = rewinding(0, &["theirs"]);
        branches.look(&[touch(0, 1)], &body(&[(0, "first")]), false);
        branches.look(&[touch(0, 2), touch(1, 7)], &body(&[(0, "second")]), false);
        let mut found = branches.find();
        assert_eq!(found.remove(&SLOTS[0]), Some(vec!["first".into(), "second".into(), "theirs".into()]));
        assert!(found.is_empty(), "the log begins with its seventh record");
    }

    #[test]
    fn what_falls_on_the_whole_slot_leaves_no_keys() {
        let wide = SlotWide::Flush { table: TableId(0), slots: Vec::new() };
        let mut flush = Vec::new();
        BodyWriter::new(&mut flush, Origin::SERVER).slot_wide(&wide);
        for (what, copied) in [(flush, false), (body(&[(0, "k")]), true), (vec![9, 9, 9], false)] {
            let mut branches = rewinding(2, &[]);
            branches.look(&[touch(0, 2)], &body(&[(0, "k")]), false);
            branches.look(&[touch(0, 3)], &what, copied);
            assert_eq!(found(branches, 0), None);
        }
        let mut branches = rewinding(2, &[]);
        branches.look(&[touch(0, 2)], &body(&[(0, "k")]), false);
        branches.lose();
        assert_eq!(found(branches, 0), None, "records are missing");
    }

    #[test]
    fn too_many_keys_are_none_and_leave_room_for_other_slots() {
        let mut keys = Keys::of(SLOTS.into_iter());
        (0..=REWIND_KEYS_MAX).for_each(|n| keys.add(SLOTS[0], n.to_string().as_bytes()));
        keys.add(SLOTS[1], b"one");
        assert_eq!(keys.take(SLOTS[0]), None);
        assert_eq!(keys.take(SLOTS[1]), Some(vec!["one".into()]));
    }
}

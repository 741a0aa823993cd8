//! A slot's history as a log tells it, and where those of two nodes part: the fork.
//!
//! A term's records of a slot are written by one node alone, each behind the one before: two nodes that both have
//! records of a term have the same ones, up to the last of whoever has fewer. So where terms end is enough, as Raft
//! (section 5.3, the log matching property) and Kafka's leader epochs (KIP-101) have it. Must not know where records
//! are kept, or who asks.

use super::position::{Position, SlotName};
use crate::binlog::{Lsn, Touch};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// What a log holds of a slot's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// It begins with the slot's first record, or with the slot being empty.
    pub whole: bool,
    /// The last record of each term, in their order: terms and indexes ascend.
    pub ends: Vec<Position>,
}

impl History {
    /// The history of a slot that has come to `own`, and of which the log holds nothing.
    pub fn of_position(own: Position) -> History {
        match own.index {
            0 => History { whole: true, ends: Vec::new() },
            _ => History { whole: false, ends: vec![own] },
        }
    }

    /// Another record of the slot. `copied`: it says that the slot was copied here; what stood before is another
    /// history.
    pub fn note(&mut self, touch: &Touch, copied: bool) {
        let at = Position { index: touch.index, term: touch.term };
        if copied {
            *self = History::of_position(at);
            return;
        }
        match self.ends.last_mut() {
            Some(last) if last.term == at.term => *last = at,
            _ => {
                self.whole |= self.ends.is_empty() && at.index == 1;
                self.ends.push(at);
            }
        }
    }

    /// The last record of a term.
    fn end(&self, term: u64) -> Option<Position> {
        self.ends.iter().rfind(|end| end.term == term).copied()
    }

    /// Whether records of this term may stand in front of what the log holds.
    fn may_begin_with(&self, term: u64) -> bool {
        !self.whole && self.ends.first().is_none_or(|first| term < first.term)
    }
}

/// Where a node's history of a slot leaves its primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The last record that both have, index 0: none. None: the primary's log does not reach back to it.
    pub at: Option<Position>,
    /// What stands behind this index is certainly not in the primary's history.
    pub behind: u64,
}

impl Fork {
    pub fn find(own: &History, primarys: &History) -> Fork {
        for end in own.ends.iter().rev() {
            match primarys.end(end.term).filter(|_| end.is_unique()) {
                Some(theirs) => {
                    let at = if theirs.index < end.index { theirs } else { *end };
                    return Fork { at: Some(at), behind: at.index };
                }
                None if !end.is_unique() || primarys.may_begin_with(end.term) => {
                    return Fork { at: None, behind: end.index };
                }
                None => {}
            }
        }
        let nothing_is_shared = own.whole || primarys.whole && primarys.ends.is_empty();
        Fork { at: nothing_is_shared.then(Position::default), behind: 0 }
    }
}

/// A slot of which a node has something that is not in its primary's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diverged {
    pub slot: SlotName,
    /// What the node has.
    pub has: Position,
    /// What its primary knows of its own history.
    pub primarys: History,
}

/// What became of one slot's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    pub slot: SlotName,
    pub has: Position,
    pub fork: Fork,
    /// Records that are dropped, as far as the log holds them.
    pub records: u64,
    /// The log does not hold all of them, or it cannot be told whether it does.
    pub incomplete: bool,
}

struct Slot {
    diverged: Diverged,
    own: History,
    /// What the slot's history here begins behind: where it was copied.
    since: Lsn,
    /// Index of its first record that the log holds.
    first_held: Option<u64>,
    fork: Fork,
    records: u64,
}

/// Finds the records that a node is to drop, by looking through its own log twice: `look` at all of it, then
/// `dropped` at all of it.
pub struct Tails(FxHashMap<SlotName, Slot>);

impl Tails {
    pub fn new(diverged: Vec<Diverged>) -> Tails {
        let slot = |diverged: Diverged| {
            let (own, since, first_held) = (History::default(), Lsn::ZERO, None);
            let fork = Fork { at: None, behind: diverged.has.index };
            (diverged.slot, Slot { diverged, own, since, first_held, fork, records: 0 })
        };
        Tails(diverged.into_iter().map(slot).collect())
    }

    /// The slots that it is about.
    pub fn slots(&self) -> impl Iterator<Item = SlotName> + '_ {
        self.0.keys().copied()
    }

    /// A record of the log, in its order.
    pub fn look(&mut self, lsn: Lsn, touches: &[Touch], copied: bool) {
        for touch in touches {
            let Some(slot) = self.0.get_mut(&(touch.table, touch.slot)) else { continue };
            slot.own.note(touch, copied);
            if copied {
                slot.since = lsn;
                slot.first_held = Some(touch.index);
            }
            slot.first_held.get_or_insert(touch.index);
        }
    }

    /// The whole log has been looked at.
    pub fn find_forks(&mut self) {
        for slot in self.0.values_mut() {
            if slot.own == History::default() {
                slot.own = History::of_position(slot.diverged.has);
            }
            slot.fork = Fork::find(&slot.own, &slot.diverged.primarys);
        }
    }

    /// Here records are missing: what comes next follows nothing that was seen.
    pub fn lose(&mut self) {
        for slot in self.0.values_mut() {
            (slot.own, slot.first_held) = (History::default(), None);
        }
    }

    /// The touches of a record that are dropped. `own`: this node has written what is of this term. Where the fork
    /// is not known, what it has written itself counts as dropped: nobody else need ever have had it.
    pub fn dropped(
        &mut self,
        lsn: Lsn,
        touches: &[Touch],
        copied: bool,
        own: impl Fn(u64) -> bool,
    ) -> SmallVec<[Touch; 2]> {
        let mut dropped = SmallVec::new();
        for touch in touches.iter().filter(|_| !copied) {
            let Some(slot) = self.0.get_mut(&(touch.table, touch.slot)) else { continue };
            let behind = touch.index > slot.fork.behind || slot.fork.at.is_none() && own(touch.term);
            if behind && lsn > slot.since {
                slot.records += 1;
                dropped.push(*touch);
            }
        }
        dropped
    }

    /// What was found, of slots in their order that have a tail, or may have had one.
    pub fn tails(&self) -> Vec<Tail> {
        let tail = |slot: &Slot| {
            let Slot { diverged: Diverged { slot: name, has, .. }, own, first_held, fork, records, .. } =
                slot;
            let reaches = |at: Position| own.whole || first_held.is_some_and(|first| first <= at.index);
            let nothing = fork.at.is_some_and(|at| at == *own.ends.last().unwrap_or(has));
            let incomplete = !nothing && !fork.at.is_some_and(reaches);
            Tail { slot: *name, has: *has, fork: *fork, records: *records, incomplete }
        };
        let mut tails: Vec<Tail> = self.0.values().map(tail).collect();
        tails.retain(|tail| tail.records > 0 || tail.incomplete);
        tails.sort_unstable_by_key(|tail| tail.slot);
        tails
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::TERM_CHANCE_BITS;
    use crate::slot::{Slot, TableId};

    const NAME: SlotName = (TableId(0), Slot(1));

    fn at(term: u64, index: u64) -> Position {
        Position { index, term: term << TERM_CHANCE_BITS }
    }

    fn history(whole: bool, ends: &[(u64, u64)]) -> History {
        History { whole, ends: ends.iter().map(|(term, index)| at(*term, *index)).collect() }
    }

    fn found(own: &History, primarys: &History) -> Option<Position> {
        let fork = Fork::find(own, primarys);
        assert!(fork.at.is_none_or(|at| at.index == fork.behind));
        fork.at
    }

    #[test]
    fn the_fork_is_the_last_record_of_the_last_term_that_both_have() {
        let own = history(false, &[(1, 40), (2, 60)]);
        assert_eq!(found(&own, &history(false, &[(1, 40), (2, 55), (4, 90)])), Some(at(2, 55)));
        assert_eq!(found(&own, &history(false, &[(1, 30), (3, 90)])), Some(at(1, 30)), "2 ended elsewhere");
        assert_eq!(found(&own, &history(false, &[(2, 80)])), Some(at(2, 60)), "it is only behind");
        assert_eq!(found(&own, &history(true, &[])), Some(at(0, 0)), "nothing was ever written there");
        let two = history(true, &[(1, 40), (2, 60)]);
        assert_eq!(
            found(&two, &history(true, &[(3, 5)])),
            Some(at(0, 0)),
            "two histories from their start on"
        );
    }

    #[test]
    fn a_fork_in_front_of_what_the_logs_hold_is_not_known() {
        let own = history(true, &[(1, 40), (3, 60)]);
        let fork = Fork::find(&own, &history(false, &[(2, 80)]));
        assert_eq!(fork, Fork { at: None, behind: 40 }, "term 3 is certainly not there, term 1 may be");
        assert_eq!(Fork::find(&own, &history(false, &[(4, 80)])), Fork { at: None, behind: 60 });
        assert_eq!(Fork::find(&own, &History::default()), Fork { at: None, behind: 60 });
        let own = history(false, &[(3, 60)]);
        assert_eq!(Fork::find(&own, &history(true, &[(2, 80)])), Fork { at: None, behind: 0 });
        let before_replication = History { whole: true, ends: vec![Position { index: 5, term: 1 }] };
        let fork = Fork::find(&before_replication, &before_replication.clone());
        assert_eq!(fork, Fork { at: None, behind: 5 }, "two nodes may have given term 1 to other records");
    }

    fn touch(term: u64, index: u64) -> Touch {
        let (table, slot) = NAME;
        let Position { index, term } = at(term, index);
        Touch { table, slot, index, term }
    }

    /// What is dropped of a log of (term, index, written here, copied), and what is said of it.
    fn tail(primarys: History, log: &[(u64, u64, bool, bool)]) -> (Vec<(u64, u64)>, Vec<Tail>) {
        let last = log.last().map_or(at(9, 9), |(term, index, ..)| at(*term, *index));
        let mut tails = Tails::new(vec![Diverged { slot: NAME, has: last, primarys }]);
        for (lsn, (term, index, _, copied)) in log.iter().enumerate() {
            tails.look(Lsn(lsn as u64 + 1), &[touch(*term, *index)], *copied);
        }
        tails.find_forks();
        let mut dropped = Vec::new();
        for (lsn, (term, index, own, copied)) in log.iter().enumerate() {
            let touches = tails.dropped(Lsn(lsn as u64 + 1), &[touch(*term, *index)], *copied, |_| *own);
            dropped.extend(touches.iter().map(|touch| (touch.term >> TERM_CHANCE_BITS, touch.index)));
        }
        (dropped, tails.tails())
    }

    #[test]
    fn what_stands_behind_the_fork_is_dropped_and_nothing_else() {
        let log = [(1, 1, true, false), (1, 2, true, false), (2, 3, true, false), (2, 4, true, false)];
        let (dropped, tails) = tail(history(true, &[(1, 2), (3, 9)]), &log);
        assert_eq!(dropped, [(2, 3), (2, 4)]);
        assert_eq!((tails[0].records, tails[0].fork.at, tails[0].incomplete), (2, Some(at(1, 2)), false));
        let (dropped, tails) = tail(history(true, &[(1, 2), (2, 4), (3, 9)]), &log);
        assert_eq!((dropped, tails), (vec![], vec![]), "it is only behind");
    }

    #[test]
    fn what_stood_in_a_slot_before_it_was_copied_is_not_dropped_again() {
        let log = [(1, 1, true, false), (1, 2, true, false), (2, 1, false, true), (4, 2, true, false)];
        let (dropped, tails) = tail(history(false, &[(2, 1), (5, 9)]), &log);
        assert_eq!(dropped, [(4, 2)]);
        assert!(!tails[0].incomplete);
        let (dropped, tails) = tail(history(true, &[(1, 1), (5, 9)]), &log);
        assert_eq!(dropped, [(4, 2)], "the copy itself is no record of anybody's");
        assert!(tails[0].incomplete, "what was copied is not in the log record by record");
    }

    #[test]
    fn a_tail_that_the_log_holds_in_part_or_not_at_all_is_called_incomplete() {
        let primarys = history(true, &[(1, 2), (3, 9)]);
        let (dropped, tails) = tail(primarys.clone(), &[(2, 5, true, false), (2, 6, true, false)]);
        assert_eq!(dropped, [(2, 5), (2, 6)]);
        assert!(tails[0].incomplete);
        let (dropped, tails) = tail(primarys, &[]);
        assert_eq!(dropped, []);
        assert!(tails[0].incomplete && tails[0].records == 0);
    }

    #[test]
    fn where_the_fork_is_not_known_a_node_keeps_what_it_has_written_itself() {
        let log = [(1, 1, false, false), (2, 2, true, false), (3, 3, false, false)];
        let (dropped, tails) = tail(history(false, &[(4, 90)]), &log);
        assert_eq!(dropped, [(2, 2)]);
        assert_eq!((tails[0].fork.at, tails[0].incomplete), (None, true));
    }
}

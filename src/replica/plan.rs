//! What a follower's slots need so that they can go on: nothing, records from some place of the log on, or a copy;
//! and whether the records that pass bear that out.
//!
//! A slot's part of a log is not one history for all time: when a node copies a slot from another one, what it
//! had of it before stays in the log, in front of the record that says so (`Origin::COPY`). Must not know how
//! anything is sent.

use super::parting::Parted;
use super::position::{Position, SlotName};
use super::primary::{Held, Indexed};
use crate::binlog::{Lsn, Touch};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// How a slot goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It lacks nothing.
    Same,
    /// It lacks records of the log from here on. `proven`: what stands before can only be what it has.
    From {
        lsn: Lsn,
        proven: bool,
    },
    Copy,
}

/// Finds the way of a slot that the follower claims to have up to `has` (None: it wants a copy), and the primary
/// has up to `own`. The segments say what the log holds up to `upto`.
pub(super) fn way(slot: SlotName, has: Option<Position>, own: Position, log: &[Indexed], upto: Lsn) -> Way {
    let Some(has) = has else { return Way::Copy };
    if has.is_same(own) {
        return Way::Same;
    }
    let held = |part: &Indexed| part.slots.get(&slot).copied();
    if has.index == 0 {
        let first = log.iter().rfind(|part| held(part).is_some_and(|held| held.first_index == 1));
        return first.map_or(Way::Copy, |part| Way::From { lsn: part.first, proven: false });
    }
    if !has.is_unique() || has.index >= own.index {
        return Way::Copy;
    }
    // What stands there: the newest segment that begins at what the follower has, or before.
    let at = log.iter().rposition(|part| held(part).is_some_and(|held| held.first_index <= has.index));
    let Some((at, held)) = at.and_then(|at| Some((at, held(&log[at])?))) else {
        // The log begins behind it: if with the next record, that may bear it out.
        let next = |held: Held| held.first_index == has.index + 1 && held.last_term == has.term;
        let first = log.iter().rfind(|part| held(part).is_some_and(next));
        return first.map_or(Way::Copy, |part| Way::From { lsn: part.first, proven: false });
    };
    if held.last_index > has.index {
        return Way::From { lsn: log[at].first, proven: false };
    }
    if held.last_term != has.term {
        return Way::Copy;
    }
    let lsn = log.get(at + 1).map_or(upto.next(), |after| after.first);
    Way::From { lsn, proven: true }
}

/// What the records that pass mean to one slot of the follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// It has everything up to this LSN, and nothing behind it.
    Behind(Lsn),
    /// It has records up to `has`; what stands before `from` is nothing to it: the stream may begin there for the
    /// sake of other slots. `term`: of the last record that has passed and that it has.
    First { has: Position, from: Lsn, proven: bool, term: Option<u64> },
    /// Everything.
    All,
    /// Its records in this log are not what the follower has: it must be copied. What this node has of it, if that
    /// is known.
    Diverged(Option<Position>),
}

/// Sorts out, while a stream catches up, which records the follower lacks.
#[derive(Debug)]
pub(super) struct CatchUp {
    slots: FxHashMap<SlotName, Expects>,
    /// Of slots that are not named: they lack what stands behind this.
    others: Lsn,
    /// Behind this every slot lacks everything.
    upto: Lsn,
}

impl CatchUp {
    /// `upto`: where the log stood when the ways were found.
    pub fn new(upto: Lsn) -> CatchUp {
        CatchUp { slots: FxHashMap::default(), others: upto, upto }
    }

    /// The slot lacks what stands behind what it has, from this LSN on.
    pub fn continues(&mut self, slot: SlotName, has: Position, from: Lsn, proven: bool) {
        self.slots.insert(slot, Expects::First { has, from, proven, term: None });
    }

    /// The slot's position is not in this history: it is at `own` here.
    pub fn parted(&mut self, slot: SlotName, own: Position) {
        self.slots.insert(slot, Expects::Diverged(Some(own)));
    }

    /// The slot has everything up to this LSN.
    pub fn has_upto(&mut self, slot: SlotName, lsn: Lsn) {
        self.slots.insert(slot, Expects::Behind(lsn));
        self.upto = self.upto.max(lsn);
    }

    /// Keeps the touches that the follower lacks. `copied`: the record says that slots were copied here from
    /// another node.
    pub fn keep_lacking(&mut self, lsn: Lsn, touches: &mut SmallVec<[Touch; 2]>, copied: bool) {
        touches.retain(|touch| {
            let slot = (touch.table, touch.slot);
            let expects = self.slots.entry(slot).or_insert(Expects::Behind(self.others));
            expects.wants(lsn, touch, copied)
        });
    }

    /// Everything up to here has passed: true if from now on nothing needs to be sorted out. The slots that have
    /// turned out to be others than the follower has are told all at once.
    pub fn passed(&self, lsn: Lsn) -> Result<bool, Vec<Parted>> {
        if lsn < self.upto {
            return Ok(false);
        }
        let diverged = |(slot, expects): (&SlotName, &Expects)| match expects {
            Expects::Diverged(own) => Some((*slot, *own)),
            Expects::First { .. } => Some((*slot, None)),
            Expects::Behind(_) | Expects::All => None,
        };
        let mut diverged: Vec<Parted> = self.slots.iter().filter_map(diverged).collect();
        diverged.sort_unstable_by_key(|(slot, _)| *slot);
        if diverged.is_empty() { Ok(true) } else { Err(diverged) }
    }
}

impl Expects {
    /// Whether the follower lacks this record.
    fn wants(&mut self, lsn: Lsn, touch: &Touch, copied: bool) -> bool {
        *self = match *self {
            Expects::Behind(upto) if lsn <= upto => return false,
            Expects::First { from, .. } if lsn < from => return false,
            Expects::First { has, from, proven, .. } if touch.index <= has.index => {
                Expects::First { has, from, proven, term: Some(touch.term) }
            }
            Expects::Diverged(own) => Expects::Diverged(own),
            _ if copied => Expects::Diverged(None),
            Expects::First { has, proven, term, .. } => {
                let follows = match term {
                    Some(term) => term == has.term,
                    // One node alone has written a term's records: what it wrote next follows what it wrote.
                    None => {
                        proven || (touch.index == has.index + 1 && (has.index == 0 || touch.term == has.term))
                    }
                };
                if follows { Expects::All } else { Expects::Diverged(None) }
            }
            Expects::Behind(_) | Expects::All => Expects::All,
        };
        *self == Expects::All
    }
}

//! What memory knows of one collection's elements in their order: stretches in which it has every one of them.
//!
//! A range that lies in such a run is read without RocksDB. Knows no cache and no disk.

use crate::error::Stop;
use crate::store::tx::{Sub, Subs, Visit};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// What an element costs here beside its sub and its value, about: its place in the tree and a heap block.
const ENTRY_OVERHEAD_BYTES: usize = 128;

#[derive(Default)]
pub struct Runs {
    entries: BTreeMap<Sub, Bytes>,
    /// Where runs begin, and where they end: not included. They neither touch nor overlap.
    known: BTreeMap<Sub, Sub>,
    bytes: usize,
}

/// How far a visit has come.
#[derive(Debug, PartialEq)]
pub enum Reach {
    /// The range has been visited to its end, or the visitor wants no more.
    Whole,
    /// The rest of the range is not known here.
    Rest(Subs),
}

impl Runs {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An element, if it is known: `Some(None)` if it is known not to be there.
    pub fn element(&self, sub: &[u8]) -> Option<Option<&Bytes>> {
        self.covers(sub).then(|| self.entries.get(sub))
    }

    fn covers(&self, sub: &[u8]) -> bool {
        self.run_before(Bound::Included(sub)).is_some_and(|(_, end)| &end[..] > sub)
    }

    fn run_before(&self, to: Bound<&[u8]>) -> Option<(&Sub, &Sub)> {
        self.known.range::<[u8], _>((Bound::Unbounded, to)).next_back()
    }

    /// Visits as much of a range as is known from its first element on, in the range's direction.
    pub fn visit(&self, subs: &Subs, visit: &mut Visit<'_>) -> Result<Reach, Stop> {
        if subs.from >= subs.to {
            return Ok(Reach::Whole);
        }
        let (inside, rest) = if subs.backward {
            match self.run_before(Bound::Excluded(&subs.to)).filter(|(_, end)| **end >= subs.to) {
                None => return Ok(Reach::Rest(subs.clone())),
                Some((from, _)) => (from.max(&subs.from)..&subs.to, &subs.from..from),
            }
        } else {
            match self.run_before(Bound::Included(&subs.from)).filter(|(_, end)| **end > subs.from) {
                None => return Ok(Reach::Rest(subs.clone())),
                Some((_, end)) => (&subs.from..end.min(&subs.to), end..&subs.to),
            }
        };
        let mut entries = self.entries.range::<Sub, _>(inside);
        loop {
            let next = if subs.backward { entries.next_back() } else { entries.next() };
            match next {
                Some((sub, value)) if visit(sub, value)? => {}
                Some(_) => return Ok(Reach::Whole),
                None if rest.start >= rest.end => return Ok(Reach::Whole),
                None => {
                    let (from, to) = (rest.start.clone(), rest.end.clone());
                    return Ok(Reach::Rest(Subs { from, to, backward: subs.backward }));
                }
            }
        }
    }

    /// Takes in all elements that stand from one sub up to another, which is not included.
    pub fn add(&mut self, mut from: Sub, mut to: Sub, entries: impl IntoIterator<Item = (Sub, Bytes)>) {
        if from >= to {
            return;
        }
        for (sub, value) in entries {
            self.put(sub, value);
        }
        // Those that overlap it or touch it become one with it.
        while let Some((start, end)) = self.run_before(Bound::Included(&to)).filter(|(_, end)| **end >= from)
        {
            let (start, end) = (start.clone(), end.clone());
            self.known.remove(&start);
            from = from.min(start);
            to = to.max(end);
        }
        self.known.insert(from, to);
    }

    /// Brings what is known up to a write; of the rest nothing becomes known by it.
    pub fn write(&mut self, sub: &[u8], value: Option<&Bytes>) {
        if !self.covers(sub) {
            return;
        }
        match value {
            Some(value) => self.put(Sub::from_slice(sub), value.clone()),
            None => {
                if let Some(before) = self.entries.remove(sub) {
                    self.bytes -= sub.len() + before.len() + ENTRY_OVERHEAD_BYTES;
                }
            }
        }
    }

    fn put(&mut self, sub: Sub, value: Bytes) {
        let sub_bytes = sub.len();
        self.bytes += value.len();
        match self.entries.insert(sub, value) {
            Some(before) => self.bytes -= before.len(),
            None => self.bytes += sub_bytes + ENTRY_OVERHEAD_BYTES,
        }
    }
}

/// Notes what a scan passes, so that it can become a run.
pub struct Recorder {
    entries: Vec<(Sub, Bytes)>,
    bytes: usize,
    full: bool,
}

/// A scan that passes more becomes no run: who reads so much at once gains little by memory.
const RUN_MAX_ENTRIES: usize = 128;
const RUN_MAX_BYTES: usize = 32 * 1024;
/// Who wants fewer elements is read ahead of: the next one asks nearby.
const AHEAD_ENTRIES: usize = 32;
const AHEAD_BYTES: usize = 8 * 1024;

impl Recorder {
    pub fn new() -> Recorder {
        Recorder { entries: Vec::with_capacity(AHEAD_ENTRIES), bytes: 0, full: false }
    }

    pub fn note(&mut self, sub: &[u8], value: &[u8]) {
        self.bytes += sub.len() + value.len();
        self.full |= self.entries.len() >= RUN_MAX_ENTRIES || self.bytes > RUN_MAX_BYTES;
        if !self.full {
            self.entries.push((Sub::from_slice(sub), Bytes::copy_from_slice(value)));
        }
    }

    /// It is worth its while to look further, though nobody has asked for more.
    pub fn reads_ahead(&self) -> bool {
        !self.full && self.entries.len() < AHEAD_ENTRIES && self.bytes < AHEAD_BYTES
    }

    /// More has passed than is worth keeping.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Puts what has passed, all of it, where it belongs. `subs`: what was scanned; `ended`: to its end.
    pub fn end(self, subs: &Subs, ended: bool, runs: &mut Runs) {
        assert!(!self.full, "what was left out would be taken for absent");
        let (mut from, mut to) = (subs.from.clone(), subs.to.clone());
        match self.entries.last() {
            _ if ended => {}
            None => return,
            Some((last, _)) if subs.backward => from = last.clone(),
            Some((last, _)) => {
                // What comes right behind it.
                to = last.clone();
                to.push(0);
            }
        }
        runs.add(from, to, self.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sub(number: u8) -> Sub {
        Sub::from_slice(&[number])
    }

    fn read(runs: &Runs, subs: &Subs, most: usize) -> (Vec<u8>, Reach) {
        let mut seen = Vec::new();
        let reach = runs.visit(subs, &mut |sub, _| {
            seen.push(sub[0]);
            Ok(seen.len() < most)
        });
        (seen, reach.expect("the visitor never fails"))
    }

    #[test]
    fn a_range_is_read_as_far_as_it_is_known() {
        let mut runs = Runs::default();
        runs.add(sub(10), sub(20), [11, 15].map(|at| (sub(at), Bytes::new())));
        let (seen, reach) = read(&runs, &Subs::new(&[12], &[30]), 9);
        assert_eq!((seen, reach == Reach::Rest(Subs::new(&[20], &[30]))), (vec![15], true));
        let (seen, reach) = read(&runs, &Subs::new(&[5], &[20]).backward(), 9);
        assert_eq!((seen, reach == Reach::Rest(Subs::new(&[5], &[10]).backward())), (vec![15, 11], true));
        assert_eq!(read(&runs, &Subs::new(&[10], &[20]), 1), (vec![11], Reach::Whole));
        assert_eq!(read(&runs, &Subs::new(&[9], &[20]), 9).0, Vec::<u8>::new());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Scan { from: u8, to: u8, backward: bool, most: usize },
        Write { at: u8, bytes: Option<usize> },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let scan = (any::<u8>(), any::<u8>(), any::<bool>(), 1..200usize)
            .prop_map(|(from, to, backward, most)| Step::Scan { from, to, backward, most });
        let bytes = prop_oneof![9 => Just(3), 1 => Just(RUN_MAX_BYTES / 3), 1 => Just(2 * RUN_MAX_BYTES)];
        let write =
            (any::<u8>(), proptest::option::of(bytes)).prop_map(|(at, bytes)| Step::Write { at, bytes });
        proptest::collection::vec(prop_oneof![scan, write], 1..200)
    }

    proptest! {
        /// Read through runs and a store as `View::scan` does: whatever is asked and written, the answers are the
        /// store's.
        #[test]
        fn runs_show_what_the_store_has(steps in steps()) {
            let mut store: BTreeMap<u8, Bytes> = BTreeMap::new();
            let mut runs = Runs::default();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write { at, bytes } => {
                        let value = bytes.map(|bytes| Bytes::from(vec![number as u8; bytes]));
                        match &value {
                            Some(value) => drop(store.insert(at, value.clone())),
                            None => drop(store.remove(&at)),
                        }
                        runs.write(&[at], value.as_ref());
                    }
                    Step::Scan { from, to, backward, most } => {
                        let subs = Subs { backward, ..Subs::new(&[from], &[to]) };
                        let mut seen = Vec::new();
                        let mut see = |sub: &[u8], value: &[u8]| {
                            seen.push((sub[0], value.to_vec()));
                            Ok(seen.len() < most)
                        };
                        if let Reach::Rest(rest) = runs.visit(&subs, &mut see).unwrap() {
                            let mut recorder = Recorder::new();
                            let (mut wanted, mut ended) = (true, true);
                            let inside = store.iter().filter(|(at, _)| (rest.from[0]..=255).contains(at));
                            let mut inside: Vec<_> = inside.filter(|(at, _)| Sub::from_slice(&[**at]) < rest.to
                                && Sub::from_slice(&[**at]) >= rest.from).collect();
                            if backward {
                                inside.reverse();
                            }
                            for (at, value) in inside {
                                recorder.note(&[*at], value);
                                wanted = wanted && see(&[*at], value).unwrap();
                                if !wanted && !recorder.reads_ahead() {
                                    ended = false;
                                    break;
                                }
                            }
                            if !recorder.is_full() {
                                recorder.end(&rest, ended, &mut runs);
                            }
                        }
                        let range = from..to.max(from);
                        let mut right: Vec<_> = store.range(range).map(|(at, value)| (*at, value.to_vec())).collect();
                        if backward {
                            right.reverse();
                        }
                        right.truncate(most);
                        prop_assert_eq!(seen, right);
                    }
                }
                for (at, known) in (0..=255u8).map(|at| (at, runs.element(&[at]))) {
                    if let Some(known) = known {
                        prop_assert_eq!(known, store.get(&at));
                    }
                }
                let bytes: usize = runs.entries.iter().map(|(sub, value)| sub.len() + value.len() + ENTRY_OVERHEAD_BYTES).sum();
                prop_assert_eq!(bytes, runs.bytes());
            }
        }
    }
}

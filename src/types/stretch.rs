//! A stretch of names in byte order, and its first few where they do not come in that order.
//!
//! Plain data: knows neither keys nor fields.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

/// Names from one to another, upward or downward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub low: Bound<Bytes>,
    pub high: Bound<Bytes>,
    pub backward: bool,
}

impl Stretch {
    /// From `start` to `end`, both included, an empty one meaning that there is no bound. None where `end`
    /// stands before `start`.
    pub fn new(start: &[u8], end: &[u8], backward: bool) -> Option<Stretch> {
        let (low, high) = if backward { (end, start) } else { (start, end) };
        if !low.is_empty() && !high.is_empty() && low > high {
            return None;
        }
        let bound = |name: &[u8]| match name {
            [] => Bound::Unbounded,
            name => Bound::Included(Bytes::copy_from_slice(name)),
        };
        Some(Stretch { low: bound(low), high: bound(high), backward })
    }

    /// The lower and the upper bound.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.low.as_ref().map(|name| &name[..]), self.high.as_ref().map(|name| &name[..]))
    }

    pub fn holds(&self, name: &[u8]) -> bool {
        RangeBounds::<[u8]>::contains(&self.bounds(), name)
    }
}

/// The first of a stretch, in its direction, and where the rest begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    pub entries: Vec<(Bytes, T)>,
    /// The name behind them, if there is one.
    pub next: Option<Bytes>,
}

impl<T> Found<T> {
    /// What several have found of one stretch, each among names of its own: up to `limit` of it.
    pub fn merged(founds: Vec<Found<T>>, limit: usize, backward: bool) -> Found<T> {
        let mut founds: Vec<_> =
            founds.into_iter().map(|found| (found.entries.into_iter().peekable(), found.next)).collect();
        let mut entries = Vec::new();
        loop {
            let heads = founds.iter_mut().enumerate().filter_map(|(at, (rest, next))| match rest.peek() {
                Some((name, _)) => Some((name.clone(), at, true)),
                None => next.clone().map(|name| (name, at, false)),
            });
            let first = if backward { heads.max() } else { heads.min() };
            let Some((name, at, is_entry)) = first else { return Found { entries, next: None } };
            if !is_entry || entries.len() == limit {
                return Found { entries, next: Some(name) };
            }
            entries.push(founds[at].0.next().expect("it was looked at above"));
        }
    }

    /// Leaves out all from entry `at` on.
    pub fn cut(&mut self, at: usize) {
        if let Some((name, _)) = self.entries.drain(at..).next() {
            self.next = Some(name);
        }
    }
}

/// Memory of a kept name beside its bytes, about.
const ENTRY_BYTES: usize = 64;

/// Keeps the first `limit` names of those it is shown, and the one behind them; fewer where they would be too
/// many bytes, but always one that may be told and one to go on with.
pub struct Firsts<T> {
    limit: usize,
    bytes_max: usize,
    backward: bool,
    kept: BTreeMap<Bytes, T>,
    bytes: usize,
    /// Names behind the last kept one were left out.
    full: bool,
}

impl<T> Firsts<T> {
    pub fn new(limit: usize, bytes_max: usize, backward: bool) -> Firsts<T> {
        Firsts { limit, bytes_max, backward, kept: BTreeMap::new(), bytes: 0, full: false }
    }

    /// False for a name behind all that are kept: so are the names behind it.
    pub fn add(&mut self, name: &[u8], entry: T) -> bool {
        if (self.full || self.kept.len() > self.limit) && self.is_behind(name) {
            self.full = true;
            return false;
        }
        self.bytes += name.len() + ENTRY_BYTES;
        self.kept.insert(Bytes::copy_from_slice(name), entry);
        while self.kept.len() > self.limit + 1 || self.bytes > self.bytes_max && self.kept.len() > 2 {
            let last = if self.backward { self.kept.pop_first() } else { self.kept.pop_last() };
            let (last, _) = last.expect("there are more than one");
            self.bytes -= last.len() + ENTRY_BYTES;
            self.full = true;
        }
        true
    }

    fn is_behind(&self, name: &[u8]) -> bool {
        let last = if self.backward { self.kept.first_key_value() } else { self.kept.last_key_value() };
        last.is_some_and(|(last, _)| if self.backward { name < last } else { name > last })
    }

    pub fn found(self) -> Found<T> {
        let goes_on = self.full || self.kept.len() > self.limit;
        let mut entries: Vec<_> = self.kept.into_iter().collect();
        if self.backward {
            entries.reverse();
        }
        let next = if goes_on { entries.pop().map(|(name, _)| name) } else { None };
        Found { entries, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(b'a'..b'd', 1..5)
    }

    fn names(found: &Found<()>) -> Vec<Bytes> {
        found.entries.iter().map(|(name, ())| name.clone()).collect()
    }

    proptest! {
        #[test]
        fn several_find_what_one_sorted_set_holds(
            all in proptest::collection::btree_set(name(), 0..60),
            order: u64, shares in 1usize..5, limit in 0usize..12, tight: bool, backward: bool,
            start in name(), end in name(),
        ) {
            let Some(stretch) = Stretch::new(&start, &end, backward) else {
                let inverted = if backward { end > start } else { start > end };
                prop_assert!(inverted);
                return Ok(());
            };
            let mut shown: Vec<_> = all.iter().filter(|name| stretch.holds(name)).collect();
            fastrand::Rng::with_seed(order).shuffle(&mut shown);
            let bytes_max = if tight { 3 * ENTRY_BYTES } else { usize::MAX };
            let mut firsts: Vec<_> = (0..shares).map(|_| Firsts::new(limit, bytes_max, backward)).collect();
            for (at, name) in shown.iter().enumerate() {
                firsts[at % shares].add(name, ());
            }
            let found = Found::merged(firsts.into_iter().map(Firsts::found).collect(), limit, backward);
            let (low, high) = if backward { (&end, &start) } else { (&start, &end) };
            let mut expected: Vec<_> = all.range(low.clone()..=high.clone()).cloned().collect();
            if backward {
                expected.reverse();
            }
            let told = names(&found);
            let count = told.len();
            prop_assert_eq!(&told[..], &expected[..count]);
            prop_assert_eq!(found.next.as_deref(), expected.get(count).map(|name| &name[..]));
            if tight {
                prop_assert!(count <= limit && (count > 0 || limit == 0 || expected.is_empty()));
            } else {
                prop_assert_eq!(count, limit.min(expected.len()));
            }
        }
    }

    #[test]
    fn going_on_at_the_next_name_tells_every_name_once() {
        let all: BTreeSet<Vec<u8>> = (0..100u8).map(|at| vec![at / 10 + 1, at % 10]).collect();
        for backward in [false, true] {
            let (mut from, mut told) = (Vec::new(), Vec::new());
            loop {
                let stretch = Stretch::new(&from, b"", backward).expect("it has one bound");
                let mut firsts = Firsts::new(7, usize::MAX, backward);
                for name in all.iter().filter(|name| stretch.holds(name)) {
                    firsts.add(name, ());
                }
                let found = firsts.found();
                told.extend(names(&found));
                match found.next {
                    Some(next) => from = next.to_vec(),
                    None => break,
                }
            }
            if backward {
                told.reverse();
            }
            assert_eq!(told, all.iter().cloned().map(Bytes::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_cut_is_gone_on_with() {
        let entries = ["a", "b", "c"].map(|name| (Bytes::from(name), ())).to_vec();
        let mut found = Found { entries, next: Some(Bytes::from("d")) };
        found.cut(3);
        assert_eq!(found.next, Some(Bytes::from("d")));
        found.cut(1);
        assert_eq!((names(&found), found.next), (vec![Bytes::from("a")], Some(Bytes::from("b"))));
    }
}

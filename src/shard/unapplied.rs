//! What stands in a shard's log and is not in RocksDB yet: the last of each row and of each element.
//!
//! Gathered over many turns and given to RocksDB as one batch in RocksDB's own order: neighbours share most of
//! the search for their place, and what is written again meanwhile costs it nothing. Knows no log and no cache.

use super::hot::{RowName, RowNameRef};
use crate::error::Stop;
use crate::store::row::Row;
use crate::store::tx::{Visit, overlaid};
use crate::store::{Batch, ElementKey, ElementRange, Incarnation, WriteError, Writing};
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// What an entry costs here beside its name and its value, about.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// So many ranges are looked for one by one before all elements are put in order.
const RANGES_UNORDERED: u32 = 16;

#[derive(Default)]
pub struct Unapplied {
    rows: HashMap<RowName, Option<Row>, RandomState>,
    elements: HashMap<ElementKey, Option<Bytes>, RandomState>,
    /// Their keys in the order RocksDB keeps them, once many ranges have been asked for: most who write never do.
    ordered: OnceLock<BTreeSet<ElementKey>>,
    ranges: AtomicU32,
    /// Entries of the time index that have been dealt with.
    due_done: Vec<(u64, Incarnation, Bytes)>,
    bytes: usize,
}

impl Unapplied {
    /// With room for as much as another has, and in order if that was asked for many ranges.
    pub fn like(other: &Unapplied) -> Unapplied {
        let rows = HashMap::with_capacity_and_hasher(other.rows.len(), RandomState::default());
        let elements = HashMap::with_capacity_and_hasher(other.elements.len(), RandomState::default());
        let ordered = match other.ranges.load(Relaxed) {
            RANGES_UNORDERED.. => OnceLock::from(BTreeSet::new()),
            _ => OnceLock::new(),
        };
        Unapplied { rows, elements, ordered, ..Unapplied::default() }
    }

    /// Forgets all of it and keeps the room; how many bytes it was.
    pub fn clear(&mut self) -> usize {
        self.rows.clear();
        self.elements.clear();
        self.ordered.take();
        self.ranges = AtomicU32::new(0);
        self.due_done.clear();
        std::mem::take(&mut self.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.elements.is_empty() && self.due_done.is_empty()
    }

    /// Rows and elements, each to be put or deleted.
    pub fn len(&self) -> usize {
        self.rows.len() + self.elements.len() + self.due_done.len()
    }

    /// What the memtables will hold of it, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What became of a row, None if it is not among these: `Some(None)` if it is deleted.
    pub fn row(&self, name: RowNameRef<'_>) -> Option<&Option<Row>> {
        if self.rows.is_empty() { None } else { self.rows.get(&name) }
    }

    /// What became of an element, as for a row.
    pub fn element(&self, key: &ElementKey) -> Option<&Option<Bytes>> {
        if self.elements.is_empty() { None } else { self.elements.get(key) }
    }

    /// Keeps a row, None if it is deleted; answers what was kept of it before.
    pub fn keep_row(&mut self, name: RowName, row: Option<Row>) -> Option<Option<Row>> {
        let weight = |row: &Option<Row>| row.as_ref().map_or(0, Row::weight);
        let (name_bytes, row_bytes) = (name.name.len(), weight(&row));
        let before = self.rows.insert(name, row);
        self.bytes += row_bytes;
        match &before {
            Some(before) => self.bytes -= weight(before),
            None => self.bytes += name_bytes + ENTRY_OVERHEAD_BYTES,
        }
        before
    }

    pub fn keep_element(&mut self, key: ElementKey, value: Option<Bytes>) {
        let weight = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let (key_bytes, value_bytes) = (key.len(), weight(&value));
        self.bytes += value_bytes;
        if let Some(ordered) = self.ordered.get_mut() {
            ordered.insert(key.clone());
        }
        match self.elements.insert(key, value) {
            Some(before) => self.bytes -= weight(&before),
            None => self.bytes += key_bytes + ENTRY_OVERHEAD_BYTES,
        }
    }

    pub fn forget_due(&mut self, expire_ms: u64, incarnation: Incarnation, name: Bytes) {
        self.due_done.push((expire_ms, incarnation, name));
    }

    /// Visits elements of a range, these laid over what `below` shows.
    pub fn over(
        &self,
        range: &ElementRange,
        below: impl FnOnce(&mut Visit<'_>) -> Result<(), Stop>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        if self.elements.is_empty() {
            return below(visit);
        }
        // RocksDB answers an empty range with nothing; a tree would panic.
        let (from, to) = (&range.from, (&range.to).max(&range.from));
        let own = |key| (ElementKey::sub(key, range.head_bytes), self.elements[key].as_deref());
        if let Some(few) = self.few(from..to) {
            return lay(few.into_iter().map(own), range.backward, below, visit);
        }
        let ordered = self.ordered.get_or_init(|| self.elements.keys().cloned().collect());
        lay(ordered.range(from..to).map(own), range.backward, below, visit)
    }

    /// Those of a range, in order, as long as it costs less to look for them than to order everything.
    fn few(&self, range: Range<&ElementKey>) -> Option<Vec<&ElementKey>> {
        if self.ranges.fetch_add(1, Relaxed) >= RANGES_UNORDERED {
            return None;
        }
        let mut few: Vec<_> = self.elements.keys().filter(|key| range.contains(key)).collect();
        few.sort_unstable();
        Some(few)
    }

    /// Makes a batch of all of it. `upto`: the last record that it has whole.
    pub fn fill(&self, batch: &mut Batch, upto: u64) {
        batch.clear();
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by(|a, b| (a.0.incarnation, &a.0.name).cmp(&(b.0.incarnation, &b.0.name)));
        for (name, row) in rows {
            match row {
                Some(row) => batch.put_row(name.incarnation, &name.name, row),
                None => batch.delete_row(name.incarnation, &name.name),
            }
        }
        let mut elements: Vec<_> = self.elements.iter().collect();
        elements.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in elements {
            match value {
                Some(value) => batch.put_element(key, value),
                None => batch.delete_element(key),
            }
        }
        for (expire_ms, incarnation, name) in &self.due_done {
            batch.delete_time(*expire_ms, *incarnation, name);
        }
        batch.set_persisted(upto);
    }
}

/// Visits elements with these, in ascending order, laid over them.
fn lay<'o>(
    own: impl DoubleEndedIterator<Item = (&'o [u8], Option<&'o [u8]>)>,
    backward: bool,
    below: impl FnOnce(&mut Visit<'_>) -> Result<(), Stop>,
    visit: &mut Visit<'_>,
) -> Result<(), Stop> {
    match backward {
        true => overlaid(own.rev(), true, below, visit),
        false => overlaid(own, false, below, visit),
    }
}

/// What turns have logged, to be written by a thread that is no core.
pub struct Apply {
    pub writing: Writing,
    pub batch: Batch,
    /// What the batch is to hold; None if it holds it already.
    pub fill: Option<(Arc<Unapplied>, u64)>,
}

/// A batch that a thread has written, or could not.
pub struct Applied {
    pub batch: Batch,
    pub result: Result<(), WriteError>,
}

impl Apply {
    pub fn run(mut self) -> Applied {
        if let Some((unapplied, upto)) = self.fill {
            unapplied.fill(&mut self.batch, upto);
        }
        let result = self.writing.run(&mut self.batch);
        Applied { batch: self.batch, result }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::row::Version;
    use crate::store::tx::Subs;
    use std::collections::BTreeMap;

    const HEAD: (Incarnation, &[u8], Version) = (Incarnation(3), b"k", Version(9));

    #[test]
    fn ranges_are_laid_over_what_is_below_in_order_or_not() {
        let mut random = fastrand::Rng::with_seed(11);
        let below: BTreeMap<u8, u8> = (0..=255).step_by(3).map(|at| (at, 0)).collect();
        let (mut unapplied, mut model) = (Unapplied::default(), below.clone());
        for round in 0..4 * RANGES_UNORDERED {
            for value in 1..4 {
                let at = random.u8(..);
                let value = random.bool().then_some(value);
                let key = ElementKey::new(HEAD.0, HEAD.1, HEAD.2, &[at]);
                unapplied.keep_element(key, value.map(|value| Bytes::copy_from_slice(&[value])));
                match value {
                    Some(value) => drop(model.insert(at, value)),
                    None => drop(model.remove(&at)),
                }
            }
            let (from, to, backward) = (random.u8(..), random.u8(..), random.bool());
            let range =
                ElementRange::new(HEAD.0, HEAD.1, HEAD.2, &Subs { backward, ..Subs::new(&[from], &[to]) });
            let mut seen = Vec::new();
            let show = |visit: &mut Visit<'_>| {
                let mut inside: Vec<_> = below.range(from..to.max(from)).collect();
                if backward {
                    inside.reverse();
                }
                for (at, value) in inside {
                    if !visit(&[*at], &[*value])? {
                        break;
                    }
                }
                Ok(())
            };
            let see: &mut Visit<'_> = &mut |sub, value| {
                seen.push((sub[0], value[0]));
                Ok(true)
            };
            unapplied.over(&range, show, see).unwrap();
            let mut right: Vec<_> =
                model.range(from..to.max(from)).map(|(at, value)| (*at, *value)).collect();
            if backward {
                right.reverse();
            }
            assert_eq!(seen, right, "range {round}");
        }
        assert!(unapplied.ordered.get().is_some());
        assert!(Unapplied::like(&unapplied).ordered.get().is_some(), "who asks much will ask again");
        unapplied.clear();
        assert!(Unapplied::like(&unapplied).ordered.get().is_none());
    }
}

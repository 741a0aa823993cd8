//! Elements in memory that were read lately; whole indexes: the counted buckets of a collection, which every
//! change of it asks for by place; and runs of elements that ranges have asked for.
//!
//! Written by the owning core together with the turn's writes, so never stale; may forget anything.

use super::runs::{Reach, Recorder, Runs};
use crate::error::Stop;
use crate::runtime::reaper;
use crate::store::tx::{Sub, Subs, Visit};
use crate::store::{ElementKey, ElementRange};
use bytes::Bytes;
use foldhash::fast::RandomState;
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, Weighter};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// First byte of the subs that an index is made of.
pub const INDEX_TAG: u8 = 3;
/// An index of more entries is not held: putting it together would take too much of a turn.
pub const INDEX_MAX_ENTRIES: usize = 4096;

/// What stands before the sub in the keys of one life of one key.
type Head = SmallVec<[u8; 48]>;

/// What memory knows of an index.
pub enum Index {
    Whole(BTreeMap<Sub, Bytes>),
    /// It has too many entries.
    Large,
}

#[derive(Clone)]
struct Weigh;

const ENTRY_OVERHEAD_BYTES: u64 = 160;
const INDEX_ENTRY_BYTES: u64 = 128;

impl Weighter<ElementKey, Bytes> for Weigh {
    fn weight(&self, key: &ElementKey, value: &Bytes) -> u64 {
        ENTRY_OVERHEAD_BYTES + (key.len() + value.len()) as u64
    }
}

impl Weighter<Head, Index> for Weigh {
    fn weight(&self, head: &Head, index: &Index) -> u64 {
        let entries = match index {
            Index::Whole(entries) => entries.len() as u64,
            Index::Large => 0,
        };
        ENTRY_OVERHEAD_BYTES + head.len() as u64 + entries * INDEX_ENTRY_BYTES
    }
}

impl Weighter<Head, Runs> for Weigh {
    fn weight(&self, head: &Head, runs: &Runs) -> u64 {
        ENTRY_OVERHEAD_BYTES + (head.len() + runs.bytes()) as u64
    }
}

/// A collection's runs may be a hundred thousand small things.
#[derive(Clone, Default)]
struct FreeElsewhere;

impl Lifecycle<Head, Runs> for FreeElsewhere {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Head, runs: Runs) {
        free(runs);
    }
}

fn free(runs: Runs) {
    if runs.bytes() >= reaper::WORTH_BYTES {
        reaper::free(runs);
    }
}

pub struct HotElements {
    elements: Cache<ElementKey, Bytes, Weigh, RandomState>,
    /// First bytes of the subs that have come into it: others need not be looked for.
    tags: [bool; 256],
    indexes: Cache<Head, Index, Weigh, RandomState>,
    runs: Cache<Head, Runs, Weigh, RandomState, FreeElsewhere>,
    element_max_bytes: u64,
    /// The runs of one collection.
    runs_max_bytes: usize,
}

impl HotElements {
    /// A third of the bytes each for elements, indexes and runs.
    pub fn new(max_bytes: u64) -> HotElements {
        let third = max_bytes / 3;
        let items = (third / 512).clamp(16, 1 << 20) as usize;
        let mut elements = Cache::with(items, third, Weigh, RandomState::default(), Default::default());
        // As in `Hot`: it takes addresses; memory only as it fills.
        elements.reserve((third / ENTRY_OVERHEAD_BYTES) as usize + items);
        let indexes = Cache::with(items.min(4096), third, Weigh, RandomState::default(), Default::default());
        let runs = Cache::with(items.min(4096), third, Weigh, RandomState::default(), FreeElsewhere);
        HotElements {
            elements,
            tags: [false; 256],
            indexes,
            runs,
            element_max_bytes: third / 64,
            runs_max_bytes: (third / 2) as usize,
        }
    }

    /// An element, if memory knows it: `Some(None)` if it knows that it is not there.
    pub fn element(&mut self, key: &ElementKey) -> Option<Option<Bytes>> {
        if let Some(value) = self.elements.get(key) {
            return Some(Some(value.clone()));
        }
        if self.runs.is_empty() {
            return None;
        }
        let (head, sub) = key.split();
        Some(self.runs.get(head)?.element(sub)?.cloned())
    }

    /// Visits as much of a range as memory knows.
    pub fn visit(&mut self, range: &ElementRange, subs: &Subs, visit: &mut Visit<'_>) -> Result<Reach, Stop> {
        match self.runs.get(range.head()) {
            Some(runs) => runs.visit(subs, visit),
            None => Ok(Reach::Rest(subs.clone())),
        }
    }

    /// Takes in what a scan of these subs has passed, in this turn.
    pub fn fill_runs(&mut self, range: &ElementRange, subs: &Subs, passed: Recorder, ended: bool) {
        if passed.is_full() {
            return;
        }
        let head = Head::from_slice(range.head());
        if self.runs.peek(&head).is_none() {
            self.runs.insert(head.clone(), Runs::default());
        }
        // Without room for it there is none.
        let Some(mut runs) = self.runs.get_mut(&head) else { return };
        if runs.bytes() >= self.runs_max_bytes {
            free(std::mem::take(&mut *runs));
        }
        passed.end(subs, ended, &mut runs);
    }

    /// Takes an element that was read from RocksDB in this turn.
    pub fn fill(&mut self, key: ElementKey, value: &Bytes) {
        if value.len() as u64 <= self.element_max_bytes {
            if let Some(tag) = key.split().1.first() {
                self.tags[usize::from(*tag)] = true;
            }
            self.elements.insert(key, value.clone());
        }
    }

    /// Brings memory up to a write; what nobody has read does not come in by being written.
    pub fn write(&mut self, key: &ElementKey, value: Option<&Bytes>) {
        let (head, sub) = key.split();
        match value {
            _ if sub.first().is_some_and(|tag| !self.tags[usize::from(*tag)]) => {}
            Some(value) if value.len() as u64 <= self.element_max_bytes => {
                if let Some(mut known) = self.elements.get_mut(key) {
                    *known = value.clone();
                }
            }
            _ => drop(self.elements.remove(key)),
        }
        if !self.runs.is_empty()
            && let Some(mut runs) = self.runs.get_mut(head)
        {
            runs.write(sub, value);
        }
        if sub.first() == Some(&INDEX_TAG)
            && let Some(mut index) = self.indexes.get_mut(head)
            && let Index::Whole(entries) = &mut *index
        {
            match value {
                Some(value) => drop(entries.insert(Sub::from_slice(sub), value.clone())),
                None => drop(entries.remove(sub)),
            }
            if entries.len() > INDEX_MAX_ENTRIES {
                *index = Index::Large;
            }
        }
    }

    /// Whether a scan of these subs asks an index.
    pub fn is_of_index(subs: &Subs) -> bool {
        subs.from.first() == Some(&INDEX_TAG) && subs.to[..] <= [INDEX_TAG + 1][..]
    }

    /// `head`: what the keys of its elements begin with.
    pub fn index(&mut self, head: &[u8]) -> Option<&Index> {
        self.indexes.get(head)
    }

    pub fn fill_index(&mut self, head: &[u8], index: Index) {
        self.indexes.insert(Head::from_slice(head), index);
    }

    pub fn bytes(&self) -> u64 {
        self.elements.weight() + self.indexes.weight() + self.runs.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::row::Version;
    use crate::store::{Incarnation, Key, element_head};

    fn key(sub: &[u8]) -> ElementKey {
        ElementKey::new(Incarnation(1), b"k", Version(7), sub)
    }

    fn head() -> Key {
        element_head(Incarnation(1), b"k", Version(7))
    }

    #[test]
    fn what_was_read_follows_what_is_written() {
        let mut hot = HotElements::new(1 << 20);
        let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"new"));
        hot.write(&key(b"\x01a"), Some(&old));
        assert_eq!(hot.element(&key(b"\x01a")), None, "nobody has read it");
        hot.fill(key(b"\x01a"), &old);
        hot.write(&key(b"\x01a"), Some(&new));
        assert_eq!(hot.element(&key(b"\x01a")), Some(Some(new)));
        hot.write(&key(b"\x01a"), None);
        assert_eq!(hot.element(&key(b"\x01a")), None);
    }

    #[test]
    fn an_index_follows_until_it_is_too_large() {
        let mut hot = HotElements::new(64 << 20);
        hot.fill_index(&head(), Index::Whole(BTreeMap::new()));
        let value = Bytes::from_static(b"v");
        for at in 0..=INDEX_MAX_ENTRIES as u32 {
            let sub = [&[INDEX_TAG][..], &at.to_be_bytes()].concat();
            hot.write(&key(&sub), Some(&value));
            let Some(Index::Whole(entries)) = hot.index(&head()) else { break };
            assert_eq!(entries.len(), at as usize + 1);
        }
        assert!(matches!(hot.index(&head()), Some(Index::Large)));
    }
}

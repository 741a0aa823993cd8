//! Latches: what keeps single commands away from keys that a command on several shards, or one that
//! works outside a turn, is busy with.
//!
//! First come, first served; a request gets everything on this shard or waits holding nothing here.
//! Waiting is a queue, not a lock. A shard with no latch pays one emptiness check per command.

use super::keyset::KeySet;
use crate::slot::TableId;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a request names: from wide to narrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    Shard,
    Table(TableId),
    Keys(Vec<(TableId, Bytes)>),
    /// As `Keys`, for so many of them that walking through them would use up a turn.
    Set(Arc<KeySet>),
}

/// One request; `owner` is the caller's own number for it.
#[derive(Clone, Debug)]
pub struct Request<O> {
    pub owner: O,
    pub names: Names,
    pub exclusive: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    shared: u32,
    exclusive: u32,
}

impl Held {
    fn conflicts(self, exclusive: bool) -> bool {
        self.exclusive > 0 || (exclusive && self.shared > 0)
    }

    fn add(&mut self, exclusive: bool) {
        if exclusive { self.exclusive += 1 } else { self.shared += 1 }
    }

    fn remove(&mut self, exclusive: bool) {
        if exclusive { self.exclusive -= 1 } else { self.shared -= 1 }
    }

    fn is_free(self) -> bool {
        self == Held::default()
    }
}

/// Holds at one level, and how many are held below it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Level {
    here: Held,
    below: Held,
}

pub struct Latches<O> {
    shard: Level,
    tables: FxHashMap<TableId, Level>,
    keys: FxHashMap<(TableId, Bytes), Held>,
    /// Held sets, and whether exclusively.
    sets: Vec<(Arc<KeySet>, bool)>,
    granted: Vec<Request<O>>,
    waiting: VecDeque<Request<O>>,
}

impl<O: Clone + PartialEq> Default for Latches<O> {
    fn default() -> Self {
        Latches {
            shard: Level::default(),
            tables: FxHashMap::default(),
            keys: FxHashMap::default(),
            sets: Vec::new(),
            granted: Vec::new(),
            waiting: VecDeque::new(),
        }
    }
}

impl<O: Clone + PartialEq> Latches<O> {
    /// Nothing is held and nobody waits.
    pub fn is_empty(&self) -> bool {
        self.granted.is_empty() && self.waiting.is_empty()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a single command on this key must wait: for a holder, or for one who came before it.
    pub fn blocks(&self, table: TableId, name: &Bytes, exclusive: bool) -> bool {
        let names = Names::Keys(vec![(table, name.clone())]);
        !self.may_hold(&names, exclusive)
            || self.waiting.iter().any(|earlier| overlap(earlier, &names, exclusive))
    }

    /// True if granted at once. Otherwise the request waits if `wait`, and is forgotten if not.
    pub fn acquire(&mut self, request: Request<O>, wait: bool) -> bool {
        let free = self.may_hold(&request.names, request.exclusive)
            && !self.waiting.iter().any(|earlier| overlap(earlier, &request.names, request.exclusive));
        if free {
            self.hold(request);
        } else if wait {
            self.waiting.push_back(request);
        }
        free
    }

    /// Gives back what `owner` holds or waits for; answers the owners that hold their latches now.
    pub fn release(&mut self, owner: &O) -> Vec<O> {
        self.waiting.retain(|request| request.owner != *owner);
        if let Some(at) = self.granted.iter().position(|request| request.owner == *owner) {
            let request = self.granted.swap_remove(at);
            self.count(&request, Held::remove);
            if let Names::Set(set) = &request.names {
                let at = self.sets.iter().position(|(held, _)| Arc::ptr_eq(held, set));
                self.sets.swap_remove(at.expect("a granted set is held"));
            }
        }
        self.grant_waiting()
    }

    fn grant_waiting(&mut self) -> Vec<O> {
        let mut granted = Vec::new();
        let mut left = VecDeque::new();
        while let Some(request) = self.waiting.pop_front() {
            let free = self.may_hold(&request.names, request.exclusive)
                && !left.iter().any(|earlier| overlap(earlier, &request.names, request.exclusive));
            if free {
                granted.push(request.owner.clone());
                self.hold(request);
            } else {
                left.push_back(request);
            }
        }
        self.waiting = left;
        granted
    }

    fn may_hold(&self, names: &Names, exclusive: bool) -> bool {
        if self.granted.is_empty() {
            return true;
        }
        match names {
            Names::Shard => !self.shard.here.conflicts(exclusive) && !self.shard.below.conflicts(exclusive),
            Names::Table(table) => {
                let level = self.tables.get(table).copied().unwrap_or_default();
                !self.shard.here.conflicts(exclusive)
                    && !level.here.conflicts(exclusive)
                    && !level.below.conflicts(exclusive)
            }
            Names::Keys(keys) => {
                !self.shard.here.conflicts(exclusive)
                    && keys.iter().all(|key| {
                        let table = self.tables.get(&key.0).map(|level| level.here).unwrap_or_default();
                        !table.conflicts(exclusive)
                            && !self.keys.get(key).is_some_and(|held| held.conflicts(exclusive))
                            && !self
                                .sets
                                .iter()
                                .any(|(set, by)| (exclusive || *by) && set.holds(key.0, &key.1))
                    })
            }
            // What is held one by one is looked up in the set, never the other way round. Two sets are
            // not compared: one of them waits, needed or not.
            Names::Set(set) => {
                let table = self.tables.get(&set.table()).map(|level| level.here).unwrap_or_default();
                !self.shard.here.conflicts(exclusive)
                    && !table.conflicts(exclusive)
                    && !self.sets.iter().any(|(_, by)| exclusive || *by)
                    && !self
                        .keys
                        .iter()
                        .any(|(key, held)| held.conflicts(exclusive) && set.holds(key.0, &key.1))
            }
        }
    }

    fn hold(&mut self, request: Request<O>) {
        self.count(&request, Held::add);
        if let Names::Set(set) = &request.names {
            self.sets.push((set.clone(), request.exclusive));
        }
        self.granted.push(request);
    }

    fn count(&mut self, request: &Request<O>, change: fn(&mut Held, bool)) {
        let exclusive = request.exclusive;
        match &request.names {
            Names::Shard => change(&mut self.shard.here, exclusive),
            Names::Table(table) => {
                change(&mut self.shard.below, exclusive);
                change(&mut self.tables.entry(*table).or_default().here, exclusive);
            }
            Names::Set(set) => {
                change(&mut self.shard.below, exclusive);
                change(&mut self.tables.entry(set.table()).or_default().below, exclusive);
            }
            Names::Keys(keys) => {
                for key in keys {
                    change(&mut self.shard.below, exclusive);
                    change(&mut self.tables.entry(key.0).or_default().below, exclusive);
                    let held = self.keys.entry(key.clone()).or_default();
                    change(held, exclusive);
                    if held.is_free() {
                        self.keys.remove(key);
                    }
                }
            }
        }
    }
}

/// Whether a waiting request and a newcomer want the same thing in ways that exclude each other.
fn overlap<O>(earlier: &Request<O>, names: &Names, exclusive: bool) -> bool {
    if !earlier.exclusive && !exclusive {
        return false;
    }
    match (&earlier.names, names) {
        (Names::Shard, _) | (_, Names::Shard) => true,
        (Names::Table(a), Names::Table(b)) => a == b,
        (Names::Table(table), Names::Keys(keys)) | (Names::Keys(keys), Names::Table(table)) => {
            keys.iter().any(|key| key.0 == *table)
        }
        (Names::Set(_), Names::Set(_)) => true,
        (Names::Set(set), Names::Table(table)) | (Names::Table(table), Names::Set(set)) => {
            set.table() == *table
        }
        (Names::Set(set), Names::Keys(keys)) | (Names::Keys(keys), Names::Set(set)) => {
            keys.iter().any(|key| set.holds(key.0, &key.1))
        }
        (Names::Keys(a), Names::Keys(b)) => b.iter().any(|key| a.contains(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&'static str]) -> Names {
        Names::Keys(names.iter().map(|name| (TableId(0), Bytes::from_static(name.as_bytes()))).collect())
    }

    fn ask(latches: &mut Latches<u32>, owner: u32, names: Names, exclusive: bool) -> bool {
        latches.acquire(Request { owner, names, exclusive }, true)
    }

    #[test]
    fn readers_share_and_writers_wait_their_turn() {
        let mut latches = Latches::default();
        assert!(ask(&mut latches, 1, keys(&["a"]), false));
        assert!(ask(&mut latches, 2, keys(&["a", "b"]), false));
        assert!(!ask(&mut latches, 3, keys(&["b"]), true));
        assert!(!ask(&mut latches, 4, keys(&["b"]), false), "no overtaking of a waiting writer");
        assert!(latches.blocks(TableId(0), &Bytes::from_static(b"b"), false));
        assert!(!latches.blocks(TableId(0), &Bytes::from_static(b"c"), true));
        assert_eq!(latches.release(&2), [3]);
        assert_eq!(latches.release(&3), [4]);
        assert!(latches.release(&4).is_empty() && latches.release(&1).is_empty());
        assert!(latches.is_empty());
    }

    #[test]
    fn a_wide_latch_excludes_narrow_ones_and_waits_for_them() {
        let mut latches = Latches::default();
        assert!(ask(&mut latches, 1, keys(&["a"]), true));
        assert!(!ask(&mut latches, 2, Names::Table(TableId(0)), true));
        assert!(ask(&mut latches, 3, Names::Table(TableId(1)), true));
        assert!(!ask(&mut latches, 4, Names::Shard, true));
        assert_eq!(latches.release(&1), [2]);
        assert!(latches.blocks(TableId(0), &Bytes::from_static(b"z"), false));
        assert!(latches.release(&2).is_empty());
        assert_eq!(latches.release(&3), [4]);
        assert!(latches.blocks(TableId(7), &Bytes::from_static(b"z"), false));
    }

    fn set(names: &[&'static str]) -> Names {
        let mut bytes = Vec::new();
        let mut spans = Vec::new();
        for name in names {
            spans.push(crate::resp::args::Span { start: bytes.len() as u32, len: name.len() as u32 });
            bytes.extend_from_slice(name.as_bytes());
        }
        Names::Set(Arc::new(KeySet::new(TableId(0), bytes.into(), spans.into_iter())))
    }

    #[test]
    fn a_set_excludes_its_keys_and_no_others() {
        let mut latches = Latches::default();
        assert!(ask(&mut latches, 1, keys(&["a"]), true));
        assert!(!ask(&mut latches, 2, set(&["a", "b"]), true), "a key of it is held");
        assert!(!ask(&mut latches, 3, keys(&["b"]), false), "no overtaking of a waiting set");
        assert!(ask(&mut latches, 4, keys(&["c"]), true));
        assert_eq!(latches.release(&1), [2]);
        assert!(latches.blocks(TableId(0), &Bytes::from_static(b"a"), false));
        assert!(!latches.blocks(TableId(0), &Bytes::from_static(b"z"), true));
        assert!(!latches.blocks(TableId(1), &Bytes::from_static(b"a"), true), "another table's");
        assert!(!ask(&mut latches, 5, Names::Table(TableId(0)), true));
        assert!(latches.release(&4).is_empty());
        assert_eq!(latches.release(&2), [3]);
        assert_eq!(latches.release(&3), [5]);
        assert!(latches.release(&5).is_empty() && latches.is_empty());
    }

    #[test]
    fn sets_of_readers_share_and_one_of_a_writer_does_not() {
        let mut latches = Latches::default();
        assert!(ask(&mut latches, 1, set(&["a"]), false));
        assert!(ask(&mut latches, 2, set(&["a"]), false));
        assert!(ask(&mut latches, 3, keys(&["a"]), false));
        assert!(!ask(&mut latches, 4, set(&["a"]), true));
        assert!(latches.release(&1).is_empty() && latches.release(&2).is_empty());
        assert_eq!(latches.release(&3), [4]);
        assert!(latches.blocks(TableId(0), &Bytes::from_static(b"a"), false));
        assert!(latches.release(&4).is_empty());
        assert!(!latches.blocks(TableId(0), &Bytes::from_static(b"a"), true));
    }

    #[test]
    fn trying_without_waiting_leaves_no_trace() {
        let mut latches = Latches::default();
        assert!(ask(&mut latches, 1, keys(&["a"]), true));
        let request = Request { owner: 2, names: keys(&["a"]), exclusive: true };
        assert!(!latches.acquire(request, false));
        assert_eq!(latches.waiting(), 0);
        assert!(latches.release(&1).is_empty());
        assert!(latches.is_empty());
    }
}

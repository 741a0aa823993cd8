//! What was asked, in which order each key saw it, and what of it may be gone after a cut.

use crate::config::Fsync;
use crate::front::node::SlotMap;
use crate::front::route::shard_of;
use crate::slot::{ShardId, TableId};
use std::collections::BTreeMap;

/// How long acknowledged writes may be missing together under `everysec`.
const EVERYSEC_MS: u64 = 1000;

#[derive(Clone)]
pub struct State {
    pub value: Option<Vec<u8>>,
    pub expire_ms: Option<u64>,
    /// Who wrote it; 0: it was there at the start.
    pub op: u64,
}

impl State {
    pub fn visible(&self, now_ms: u64) -> Option<&Vec<u8>> {
        self.value.as_ref().filter(|_| self.expire_ms.is_none_or(|expire| now_ms < expire))
    }
}

pub struct Key {
    pub table: TableId,
    pub name: Vec<u8>,
    pub shard: ShardId,
    /// Its life since the last cut; the first state is what that cut left.
    pub states: Vec<State>,
    /// States before this one must not come back.
    pub floor: usize,
}

/// A write: where it stands in the lives of its keys, and what is known of its time.
#[derive(Default)]
struct Write {
    places: Vec<(usize, usize)>,
    /// On whole tables: every shard takes part, whether it holds a key or not.
    wide: bool,
    /// It ran at this moment at the latest.
    ran_ms: Option<u64>,
    /// Its shard, the lowest of several, let the answer go at this moment.
    released_ms: Option<u64>,
    replied: bool,
}

pub struct History {
    pub keys: Vec<Key>,
    writes: BTreeMap<u64, Write>,
    fsync: Fsync,
}

impl History {
    pub fn new(keys: impl Iterator<Item = (TableId, Vec<u8>)>, map: &SlotMap, fsync: Fsync) -> History {
        let key = |(table, name): (TableId, Vec<u8>)| Key {
            table,
            shard: shard_of(map, super::machine::hash(), &name),
            name,
            states: vec![State { value: None, expire_ms: None, op: 0 }],
            floor: 0,
        };
        History { keys: keys.map(key).collect(), writes: BTreeMap::new(), fsync }
    }

    pub fn last(&self, key: usize) -> &State {
        self.keys[key].states.last().expect("a life has a beginning")
    }

    /// The next state of a key: in the order in which its shard sees the writes.
    pub fn write(&mut self, op: u64, key: usize, value: Option<Vec<u8>>, expire_ms: Option<u64>) {
        let states = &mut self.keys[key].states;
        states.push(State { value, expire_ms, op });
        self.writes.entry(op).or_default().places.push((key, states.len() - 1));
    }

    pub fn wide(&mut self, op: u64) {
        self.writes.entry(op).or_default().wide = true;
    }

    pub fn ran(&mut self, op: u64, now_ms: u64) {
        if let Some(write) = self.writes.get_mut(&op) {
            write.ran_ms.get_or_insert(now_ms);
        }
    }

    pub fn released(&mut self, op: u64, shard: Option<ShardId>, now_ms: u64) {
        let home = self.writes.get(&op).and_then(|write| self.home(write));
        let Some(write) = self.writes.get_mut(&op) else { return };
        if shard.is_none() || shard == home {
            write.released_ms.get_or_insert(now_ms);
        }
    }

    pub fn replied(&mut self, op: u64, now_ms: u64) {
        let Some(write) = self.writes.get_mut(&op) else { return };
        write.ran_ms.get_or_insert(now_ms);
        write.released_ms.get_or_insert(now_ms);
        write.replied = true;
        if self.fsync == Fsync::Always {
            for (key, state) in write.places.clone() {
                self.shown(key, state);
            }
        }
    }

    /// A reply has shown that this state, or a later one, was reached.
    pub fn shown(&mut self, key: usize, state: usize) {
        if self.fsync == Fsync::Always {
            let floor = &mut self.keys[key].floor;
            *floor = (*floor).max(state);
        }
    }

    /// Compares what a start has found with what may be there, and goes on from it.
    pub fn check(&mut self, found: &[Option<Vec<u8>>], now_ms: u64) {
        let spans: Vec<(usize, usize)> =
            (0..self.keys.len()).map(|key| self.span(key, found[key].as_ref(), now_ms)).collect();
        self.check_wholes(&spans);
        if self.fsync == Fsync::Everysec {
            self.check_last_second(&spans);
        }
        for (key, (_, last)) in self.keys.iter_mut().zip(spans) {
            let left = State { op: 0, ..key.states[last].clone() };
            (key.states, key.floor) = (vec![left], 0);
        }
        self.writes.clear();
    }

    /// Whether a write made a difference to a key.
    fn changes(&self, (key, state): &(usize, usize)) -> bool {
        let states = &self.keys[*key].states;
        states[*state].value != states[*state - 1].value
    }

    /// A command on several shards stands and falls with the lowest of those it writes on.
    fn home(&self, write: &Write) -> Option<ShardId> {
        let shard = |(key, _): &(usize, usize)| self.keys[*key].shard;
        let writes = write.places.iter().filter(|place| write.wide || self.changes(place)).map(shard);
        writes.min().or_else(|| write.places.iter().map(shard).min())
    }

    fn check_wholes(&self, spans: &[(usize, usize)]) {
        for (op, write) in &self.writes {
            // A DEL of a key that is not there leaves no trace: whether it is in the logs cannot be seen from it.
            let mut changes = write.places.iter().filter(|place| self.changes(place));
            let is_there = changes.clone().find(|(key, state)| spans[*key].0 >= *state);
            let is_gone = changes.find(|(key, state)| spans[*key].1 < *state);
            if let (Some(there), Some(gone)) = (is_there, is_gone) {
                for (key, state) in &write.places {
                    eprintln!(
                        "{}: state {state}, found {:?}\n{}",
                        self.name(*key),
                        spans[*key],
                        self.life(*key)
                    );
                }
                panic!(
                    "half of command {op}: it is there in {}, gone in {}",
                    self.name(there.0),
                    self.name(gone.0)
                );
            }
        }
    }

    fn life(&self, key: usize) -> String {
        let line = |(at, state): (usize, &State)| {
            let replied = self.writes.get(&state.op).is_some_and(|write| write.replied);
            format!(
                "  {at}: command {} {}{}\n",
                state.op,
                shown(state.value.as_ref()),
                if replied { ", replied" } else { "" }
            )
        };
        self.keys[key].states.iter().enumerate().map(line).collect()
    }

    /// First and last state of a key that look like what was found.
    fn span(&self, at: usize, found: Option<&Vec<u8>>, now_ms: u64) -> (usize, usize) {
        let key = &self.keys[at];
        let alike = |at: &usize| key.states[*at].visible(now_ms) == found;
        let mut alikes = (0..key.states.len()).filter(alike);
        let Some(first) = alikes.next() else {
            panic!("{} is {}, which was never written\n{}", self.name(at), shown(found), self.life(at));
        };
        let last = alikes.next_back().unwrap_or(first);
        if last < key.floor {
            eprintln!("{}", self.life(at));
            let (left, floor) = (&key.states[last], &key.states[key.floor]);
            panic!(
                "{} is as command {} left it, but what {} did was shown",
                self.name(at),
                left.op,
                floor.op
            );
        }
        (first, last)
    }

    fn name(&self, at: usize) -> String {
        let Key { table, name, shard, .. } = &self.keys[at];
        format!("{}/{} (shard {})", table.0, name.escape_ascii(), shard.0)
    }

    /// Replies that told of writes now missing all left within a second of the first of these writes.
    fn check_last_second(&self, spans: &[(usize, usize)]) {
        let is_gone = |write: &Write| write.places.iter().any(|(key, state)| spans[*key].1 < *state);
        let home = |write: &Write| self.home(write);
        let mut first: BTreeMap<Option<ShardId>, (u64, u64)> = BTreeMap::new();
        for (op, write) in self.writes.iter().filter(|(_, write)| is_gone(write)) {
            if let Some(ran_ms) = write.ran_ms {
                let first = first.entry(home(write)).or_insert((ran_ms, *op));
                *first = (*first).min((ran_ms, *op));
            }
        }
        // A write that changed nothing tells what a read would tell.
        let answered = |write: &Write| write.replied && write.places.iter().any(|place| self.changes(place));
        for (op, write) in self.writes.iter().filter(|(_, write)| answered(write) && is_gone(write)) {
            let (shard, released_ms) = (home(write), write.released_ms.expect("set before the reply"));
            let (first_ms, first) = first[&shard];
            if released_ms > first_ms + EVERYSEC_MS {
                for (op, write) in self.writes.iter().filter(|(_, write)| is_gone(write)) {
                    let Write { places, ran_ms, released_ms, .. } = write;
                    eprintln!(
                        "gone: command {op} to {:?}, ran {ran_ms:?}, answered {released_ms:?}, {places:?}",
                        home(write)
                    );
                }
                panic!(
                    "{shard:?}: command {op} was answered at {released_ms} and is gone, as is {first} of {first_ms}"
                );
            }
        }
    }
}

pub fn shown(value: Option<&Vec<u8>>) -> String {
    match value {
        None => "absent".into(),
        Some(value) if value.len() > 60 => format!("{}… ({} bytes)", value[..60].escape_ascii(), value.len()),
        Some(value) => value.escape_ascii().to_string(),
    }
}

//! A node's shards without disk or threads: logs as lists, data as maps, and what a power cut leaves of both.

use crate::binlog::{Lsn, Touch, Txn, next_term};
use crate::replica::history::History;
use crate::replica::inflow::Rewound;
use crate::replica::position::{Position, SlotName};
use crate::replica::primary::{Held, Indexed, Logged};
use crate::shard::mesh::{Portion, SlotPosition};
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Incarnation;
use crate::store::Row;
use crate::store::effects::{
    Adopted, BodyReader, BodyWriter, Operation, Origin, SlotRange, SlotWide, origin,
};
use crate::store::row::Body;
use crate::store::tx::{Change, Effect};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

pub type Content = BTreeMap<Bytes, Bytes>;

/// One slot: as the slot table and RocksDB have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotData {
    pub index: u64,
    pub term: u64,
    /// It has an incarnation.
    pub used: bool,
    pub content: Content,
}

impl SlotData {
    pub fn position(&self) -> Position {
        Position { index: self.index, term: self.term }
    }

    pub fn print(&self) -> u64 {
        let mut hasher = rustc_hash::FxHasher::default();
        self.content.hash(&mut hasher);
        hasher.finish()
    }
}

pub type State = BTreeMap<SlotName, SlotData>;

/// A record as the log has it, with what it made of the slots it touched.
#[derive(Clone, Debug)]
pub struct Entry {
    pub logged: Logged,
    pub after: Vec<(SlotName, Position)>,
    /// What an adoption made visible: files have it.
    adopted: Content,
    /// The shard's term then.
    pub term: u64,
}

impl Entry {
    pub fn is_copy(&self) -> bool {
        origin(&self.logged.body) == Some(Origin::COPY)
    }
}

#[derive(Clone, Debug)]
pub struct Shard {
    pub id: ShardId,
    range: SlotRange,
    pub log: Vec<Entry>,
    /// Where segments begin.
    pub segments: Vec<Lsn>,
    pub last: Lsn,
    pub durable: Lsn,
    pub state: State,
    /// The state in front of the oldest segment.
    base: State,
    pub term: u64,
    pub staged: FxHashMap<SlotName, Content>,
}

impl Shard {
    pub fn new(id: ShardId, (first, last): (Slot, Slot), term: u64) -> Shard {
        Shard {
            id,
            range: SlotRange { first, last },
            log: Vec::new(),
            segments: vec![Lsn(1)],
            last: Lsn::ZERO,
            durable: Lsn::ZERO,
            state: State::new(),
            base: State::new(),
            term,
            staged: FxHashMap::default(),
        }
    }

    pub fn get(&self, slot: SlotName) -> SlotData {
        self.state.get(&slot).cloned().unwrap_or_default()
    }

    pub fn positions(&self) -> Vec<SlotPosition> {
        let known = self.state.iter().filter(|(_, data)| data.index > 0);
        known
            .map(|((table, slot), data)| SlotPosition {
                table: *table,
                slot: *slot,
                index: data.index,
                term: data.term,
            })
            .collect()
    }

    /// The touches of an own record, numbered.
    fn touch(&mut self, operations: &[Operation]) -> SmallVec<[Touch; 2]> {
        let mut slots: Vec<SlotName> = Vec::new();
        let used = |state: &State, of: TableId| -> Vec<Slot> {
            state
                .iter()
                .filter(|((table, _), data)| *table == of && data.used)
                .map(|((_, slot), _)| *slot)
                .collect()
        };
        for operation in operations {
            match operation {
                Operation::Effect(effect) => slots.push((effect.table, effect.slot)),
                Operation::SlotWide(SlotWide::Flush { table, slots: ranges }) => {
                    let hit = |slot: &Slot| ranges.iter().any(|range| range.holds(*slot));
                    slots
                        .extend(used(&self.state, *table).into_iter().filter(hit).map(|slot| (*table, slot)));
                }
                Operation::SlotWide(SlotWide::SwapTables { a, b, .. }) => {
                    for slot in [used(&self.state, *a), used(&self.state, *b)].concat() {
                        slots.extend([(*a, slot), (*b, slot)]);
                    }
                }
                Operation::SlotWide(SlotWide::Adopt { .. }) => unreachable!("no client says so"),
            }
        }
        slots.sort_unstable();
        slots.dedup();
        let number = |(table, slot): SlotName| {
            let index = self.get((table, slot)).index + 1;
            Touch { table, slot, index, term: self.term }
        };
        slots.into_iter().map(number).collect()
    }

    /// Logs what a client did. `others`: what a whole says of other shards.
    pub fn write(
        &mut self,
        own: &[Operation],
        others: &[Operation],
        txn: Option<Txn>,
        skip: u64,
        now: u64,
    ) -> Lsn {
        let touches = self.touch(own);
        let mut body = Vec::new();
        let mut writer = BodyWriter::new(&mut body, Origin::STRING);
        for operation in own.iter().chain(others) {
            match operation {
                Operation::Effect(effect) => writer.effect(effect),
                Operation::SlotWide(wide) => writer.slot_wide(wide),
            }
        }
        self.last = Lsn(self.last.0 + 1 + skip);
        let logged = Logged { lsn: self.last, time_ms: now, touches, txn, body: body.into() };
        self.append(logged, own.to_vec(), Content::new());
        self.last
    }

    fn append(&mut self, logged: Logged, operations: Vec<Operation>, adopted: Content) {
        let mut entry = Entry { logged, after: Vec::new(), adopted, term: self.term };
        show(&mut self.state, &entry, &operations);
        let names = entry.logged.touches.iter().map(|touch| (touch.table, touch.slot));
        entry.after = names.map(|slot| (slot, self.state[&slot].position())).collect();
        self.log.push(entry);
    }

    /// A portion of a primary's record, as the owner of a shard takes it.
    pub fn apply(&mut self, portion: Portion, now: u64) -> Result<Lsn, String> {
        for touch in &portion.touches {
            let has = self.get((touch.table, touch.slot)).index;
            if has + 1 != touch.index {
                return Err(format!("{touch:?} has come behind {has}"));
            }
        }
        let operations: Vec<Operation> =
            BodyReader::new(portion.body.clone()).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(operations.len(), portion.operations);
        for operation in &operations {
            let touched =
                |table, slot| portion.touches.iter().any(|touch| (touch.table, touch.slot) == (table, slot));
            match operation {
                Operation::Effect(effect) => assert!(touched(effect.table, effect.slot)),
                Operation::SlotWide(SlotWide::Flush { table, slots }) => {
                    assert!(
                        slots.iter().all(|range| touched(*table, range.first) && touched(*table, range.last))
                    );
                }
                Operation::SlotWide(SlotWide::SwapTables { slots, .. }) => assert!(!slots.is_empty()),
                Operation::SlotWide(SlotWide::Adopt { .. }) => panic!("an adoption has travelled"),
            }
        }
        self.last = self.last.next();
        let Portion { touches, body, .. } = portion;
        let logged = Logged { lsn: self.last, time_ms: now, touches, txn: None, body };
        self.append(logged, operations, Content::new());
        Ok(self.last)
    }

    pub fn adopt(&mut self, slots: Vec<SlotPosition>, now: u64) -> Lsn {
        for SlotPosition { table, slot, index, term } in slots {
            let content = self.staged.remove(&(table, slot));
            let incarnation = if content.is_some() { Incarnation::FIRST } else { Incarnation::SYSTEM };
            let adopted = Adopted { incarnation, index, term, keys_estimate: 0 };
            let wide = SlotWide::Adopt { table, slot, adopted };
            let mut body = Vec::new();
            BodyWriter::new(&mut body, Origin::COPY).slot_wide(&wide);
            self.last = self.last.next();
            let touches = SmallVec::from_slice(&[Touch { table, slot, index, term }]);
            let logged = Logged { lsn: self.last, time_ms: now, touches, txn: None, body: body.into() };
            self.append(logged, vec![Operation::SlotWide(wide)], content.unwrap_or_default());
        }
        self.last
    }

    /// A slot becomes what it is at a position by some of its keys, in one record.
    pub fn rewind(&mut self, rewound: Rewound, now: u64) -> Lsn {
        let Rewound { at, keys, entries } = rewound;
        let effect = |name: &Bytes, change| {
            Operation::Effect(Effect {
                table: at.table,
                slot: at.slot,
                name: name.clone(),
                change,
                existed: None,
            })
        };
        let gone = keys.iter().map(|name| effect(name, Change::Delete));
        let new = entries.iter().map(|of| effect(&of.key, Change::Put(Row::string(of.value.clone()))));
        let operations: Vec<Operation> = gone.chain(new).collect();
        let mut body = Vec::new();
        let mut writer = BodyWriter::new(&mut body, Origin::COPY);
        for operation in &operations {
            let Operation::Effect(effect) = operation else { continue };
            assert!(keys.contains(&effect.name), "an entry of a key that was not named");
            writer.effect(effect);
        }
        self.last = self.last.next();
        let SlotPosition { table, slot, index, term } = at;
        let touches = SmallVec::from_slice(&[Touch { table, slot, index, term }]);
        let logged = Logged { lsn: self.last, time_ms: now, touches, txn: None, body: body.into() };
        self.append(logged, operations, Content::new());
        self.last
    }

    /// Begins a new segment.
    pub fn roll(&mut self) {
        if self.segments.last().is_none_or(|first| *first <= self.last) {
            self.segments.push(self.last.next());
        }
    }

    /// Forgets the oldest segment, if another is there and files have what it says.
    pub fn purge(&mut self) {
        let Some(second) = self.segments.get(1).copied().filter(|second| second.before() <= self.durable)
        else {
            return;
        };
        self.segments.remove(0);
        let keep = self.log.partition_point(|entry| entry.logged.lsn < second);
        for entry in self.log.drain(..keep) {
            let operations = own_operations(&entry, self.range);
            show(&mut self.base, &entry, &operations);
        }
    }

    /// What the files of the log say of its slots.
    pub fn index(&self, published: Lsn) -> Vec<Indexed> {
        let firsts = self.segments.iter().filter(|first| **first <= published);
        let mut indexed: Vec<Indexed> =
            firsts.map(|first| Indexed { first: *first, slots: FxHashMap::default() }).collect();
        for entry in self.log.iter().filter(|entry| entry.logged.lsn <= published) {
            let part = indexed.iter_mut().rfind(|part| part.first <= entry.logged.lsn).unwrap();
            for touch in &entry.logged.touches {
                let new = Held { first_index: touch.index, last_index: touch.index, last_term: touch.term };
                let held = part.slots.entry((touch.table, touch.slot)).or_insert(new);
                (held.last_index, held.last_term) = (touch.index, touch.term);
            }
        }
        indexed
    }

    /// What the log holds of these slots' histories.
    pub fn trace(&self, published: Lsn, slots: &[SlotName]) -> FxHashMap<SlotName, History> {
        let mut histories: FxHashMap<SlotName, History> = FxHashMap::default();
        for entry in self.log.iter().filter(|entry| entry.logged.lsn <= published) {
            let touches = entry.logged.touches.iter();
            for touch in touches.filter(|touch| slots.contains(&(touch.table, touch.slot))) {
                histories.entry((touch.table, touch.slot)).or_default().note(touch, entry.is_copy());
            }
        }
        histories
    }

    /// The log begins here; what is older is gone.
    pub fn first(&self) -> Lsn {
        self.segments[0]
    }

    /// The power fails, or (`kept`) only the process ends; it is started again.
    pub fn restart(&mut self, kept: bool, chance: u64) {
        if !kept {
            self.log.retain(|entry| entry.logged.lsn <= self.durable);
            self.last = self.durable;
            self.segments.retain(|first| *first <= self.durable.next());
            self.state = self.base.clone();
            for entry in &self.log {
                let operations = own_operations(entry, self.range);
                show(&mut self.state, entry, &operations);
            }
        }
        self.durable = self.last;
        self.staged.clear();
        self.roll();
        self.begin_term(chance);
    }

    /// Its own records are of a new term.
    pub fn begin_term(&mut self, chance: u64) {
        let newest = self.state.values().map(|data| data.term).max().unwrap_or(0);
        self.term = next_term(newest.max(self.term), chance);
    }
}

/// What of a record falls on this shard; a whole says more than that.
fn own_operations(entry: &Entry, range: SlotRange) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    for operation in BodyReader::new(entry.logged.body.clone()).unwrap() {
        let operation = operation.unwrap();
        let own = match &operation {
            Operation::Effect(effect) => range.holds(effect.slot),
            Operation::SlotWide(SlotWide::Flush { slots, .. }) => {
                slots.iter().any(|of| range.holds(of.first))
            }
            Operation::SlotWide(SlotWide::SwapTables { .. }) => !operations.contains(&operation),
            Operation::SlotWide(SlotWide::Adopt { .. }) => true,
        };
        if own {
            operations.push(operation);
        }
    }
    operations
}

fn show(state: &mut State, entry: &Entry, operations: &[Operation]) {
    for touch in &entry.logged.touches {
        let data = state.entry((touch.table, touch.slot)).or_default();
        (data.index, data.term) = (touch.index, touch.term);
    }
    for operation in operations {
        match operation {
            Operation::Effect(effect) => {
                let data = state.entry((effect.table, effect.slot)).or_default();
                match &effect.change {
                    Change::Put(row) => {
                        let Body::Inline(value) = &row.body else { panic!("only short strings are written") };
                        data.used = true;
                        data.content.insert(effect.name.clone(), value.clone());
                    }
                    _ => drop(data.content.remove(&effect.name)),
                }
            }
            Operation::SlotWide(SlotWide::Flush { table, slots }) => {
                for ((of, slot), data) in state.iter_mut() {
                    if of == table && slots.iter().any(|range| range.holds(*slot)) {
                        (data.used, data.content) = (false, Content::new());
                    }
                }
            }
            Operation::SlotWide(SlotWide::SwapTables { a, b, slots }) => swap(state, *a, *b, slots),
            Operation::SlotWide(SlotWide::Adopt { table, slot, adopted }) => {
                let used = adopted.incarnation != Incarnation::SYSTEM;
                let (index, term, content) = (adopted.index, adopted.term, entry.adopted.clone());
                state.insert((*table, *slot), SlotData { index, term, used, content });
            }
        }
    }
}

fn swap(state: &mut State, a: TableId, b: TableId, ranges: &[SlotRange]) {
    for slot in (0..64).map(Slot) {
        let [mut left, mut right] = [a, b].map(|of| state.get(&(of, slot)).cloned().unwrap_or_default());
        let hit = match ranges {
            [] => left.used || right.used,
            ranges => ranges.iter().any(|range| range.holds(slot)),
        };
        if hit {
            std::mem::swap(&mut left.content, &mut right.content);
            std::mem::swap(&mut left.used, &mut right.used);
            let index = left.index.max(right.index);
            (left.index, right.index) = (index, index);
            state.insert((a, slot), left);
            state.insert((b, slot), right);
        }
    }
}

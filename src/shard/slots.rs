//! One shard's slot table: which incarnation holds a slot's data, and how far its stream has come.
//!
//! Changed only through effects that are in the log; written to RocksDB before each memtable switch.
//! Knows no key and no byte of data.

use crate::slot::placement::Placement;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Incarnation;
use crate::store::effects::{Adopted, SlotRange};
use rustc_hash::FxHashMap;

/// An empty slot: the number of the store's own rows, which no slot can have.
pub const NONE: Incarnation = Incarnation::SYSTEM;

/// What is known of one slot on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// `NONE` until the first write after the slot was empty.
    pub incarnation: Incarnation,
    /// Index the slot's next record will have; the first record has 1.
    pub next_index: u64,
    /// Of the slot's last record; 0: it has none.
    pub term: u64,
    /// Estimate: a blind SET of a key that is not cached counts as new.
    pub keys: i64,
    /// Changed since it was last written to RocksDB.
    changed: bool,
}

const UNUSED: SlotState = SlotState { incarnation: NONE, next_index: 1, term: 0, keys: 0, changed: false };

/// All slots of all tables that this shard has ever written.
pub struct SlotTable {
    tables: FxHashMap<TableId, Box<[SlotState]>>,
    slots_per_table: usize,
    next_incarnation: Incarnation,
    term: u64,
    /// Incarnations that no slot uses any more and whose bytes are still in RocksDB.
    garbage: Vec<Incarnation>,
    /// By slot: it lies on this shard. What is here of others is shown to nobody.
    placed: Box<[bool]>,
}

impl SlotTable {
    /// `term`: the one new records are written in.
    pub fn new(slots_per_table: u16, next_incarnation: Incarnation, term: u64) -> SlotTable {
        SlotTable {
            tables: FxHashMap::default(),
            slots_per_table: usize::from(slots_per_table),
            next_incarnation: next_incarnation.max(Incarnation::FIRST),
            term,
            garbage: Vec::new(),
            placed: vec![true; usize::from(slots_per_table)].into(),
        }
    }

    /// Only these slots lie here from now on.
    pub fn place(&mut self, placement: &Placement, here: ShardId) {
        for (slot, placed) in self.placed.iter_mut().enumerate() {
            *placed = placement.shard_of(Slot(slot as u16)) == here;
        }
    }

    pub fn is_placed(&self, slot: Slot) -> bool {
        self.placed[usize::from(slot.0)]
    }

    /// Slots that lie on another shard and of which something is here.
    pub fn hidden(&self) -> impl Iterator<Item = (TableId, Slot, &SlotState)> {
        self.written().filter(|(_, slot, _)| !self.is_placed(*slot))
    }

    /// The highest term of any record of a slot.
    pub fn newest_term(&self) -> u64 {
        self.written().map(|(_, _, state)| state.term).max().unwrap_or(0)
    }

    /// The term that new records are written in from now on.
    pub fn set_term(&mut self, term: u64) {
        self.term = term;
    }

    /// The incarnations that slots use.
    pub fn incarnations(&self) -> Vec<Incarnation> {
        self.tables
            .values()
            .flat_map(|slots| slots.iter())
            .map(|state| state.incarnation)
            .filter(|of| *of != NONE)
            .collect()
    }

    /// Puts back a slot as RocksDB or a log record knows it.
    pub fn restore(
        &mut self,
        table: TableId,
        slot: Slot,
        incarnation: Incarnation,
        next_index: u64,
        term: u64,
        keys: i64,
    ) {
        let state = self.entry(table, slot);
        *state = SlotState { incarnation, next_index, term, keys, changed: false };
        self.next_incarnation = self.next_incarnation.max(incarnation.next());
    }

    pub fn get(&self, table: TableId, slot: Slot) -> &SlotState {
        self.tables.get(&table).map_or(&UNUSED, |slots| &slots[usize::from(slot.0)])
    }

    /// The slot's state, with an incarnation to write to.
    pub fn for_write(&mut self, table: TableId, slot: Slot) -> &mut SlotState {
        let fresh = self.next_incarnation;
        let state = self.entry(table, slot);
        let started = state.incarnation == NONE;
        if started {
            state.incarnation = fresh;
        }
        state.changed = true;
        if started {
            self.next_incarnation = fresh.next();
        }
        self.entry(table, slot)
    }

    /// The index and term of the slot's next record, which is now used.
    pub fn take_index(&mut self, table: TableId, slot: Slot) -> (u64, u64) {
        let term = self.term;
        let state = self.entry(table, slot);
        let index = state.next_index;
        (state.next_index, state.term, state.changed) = (index + 1, term, true);
        (index, term)
    }

    /// A record with this index and term is in the log: the next one comes after it.
    pub fn set_position(&mut self, table: TableId, slot: Slot, index: u64, term: u64) {
        let state = self.entry(table, slot);
        (state.next_index, state.term, state.changed) = (index + 1, term, true);
    }

    /// Every slot that lies here and has ever had a record, with that record's index and term.
    pub fn positions(&self) -> impl Iterator<Item = (TableId, Slot, &SlotState)> {
        self.written().filter(|(_, slot, _)| self.is_placed(*slot))
    }

    fn written(&self) -> impl Iterator<Item = (TableId, Slot, &SlotState)> {
        self.tables.iter().flat_map(|(table, slots)| {
            let written = slots.iter().enumerate().filter(|(_, state)| state.next_index > 1);
            written.map(|(slot, state)| (*table, Slot(slot as u16), state))
        })
    }

    /// Empties slots of a table in one step; their old bytes become garbage.
    pub fn flush(&mut self, table: TableId, ranges: &[SlotRange]) {
        let Some(slots) = self.tables.get_mut(&table) else { return };
        let hit = |slot: usize| ranges.iter().any(|range| range.holds(Slot(slot as u16)));
        for (slot, state) in slots.iter_mut().enumerate() {
            if state.incarnation == NONE || !hit(slot) {
                continue;
            }
            self.garbage.push(state.incarnation);
            state.incarnation = NONE;
            state.keys = 0;
            state.changed = true;
        }
    }

    /// A number for data that no slot shows yet.
    pub fn reserve(&mut self) -> Incarnation {
        let reserved = self.next_incarnation;
        self.next_incarnation = reserved.next();
        reserved
    }

    /// A slot's data becomes what was copied from another node; what it had becomes garbage.
    pub fn adopt(&mut self, table: TableId, slot: Slot, adopted: Adopted) {
        let state = self.entry(table, slot);
        let before = std::mem::replace(&mut state.incarnation, adopted.incarnation);
        (state.next_index, state.term) = (adopted.index + 1, adopted.term);
        (state.keys, state.changed) = (adopted.keys_estimate as i64, true);
        if before != NONE && before != adopted.incarnation {
            self.garbage.push(before);
        }
        if adopted.incarnation != NONE {
            self.next_incarnation = self.next_incarnation.max(adopted.incarnation.next());
        }
    }

    /// Exchanges the contents of slots of two tables: of those in use in either, or of these, in use or not.
    /// Both slots go on behind the higher of their indexes: a version is made of the index, and a key's next one
    /// must lie above all it has had, under either table.
    pub fn swap(&mut self, a: TableId, b: TableId, ranges: &[SlotRange]) {
        for slot in (0..self.slots_per_table).map(|slot| Slot(slot as u16)) {
            let (left, right) = (*self.get(a, slot), *self.get(b, slot));
            let in_use = left.incarnation != right.incarnation;
            let hit = if ranges.is_empty() { in_use } else { ranges.iter().any(|range| range.holds(slot)) };
            if !hit {
                continue;
            }
            let next_index = left.next_index.max(right.next_index);
            for (table, from) in [(a, right), (b, left)] {
                let state = self.entry(table, slot);
                (state.incarnation, state.keys) = (from.incarnation, from.keys);
                (state.next_index, state.changed) = (next_index, true);
            }
        }
    }

    /// Tables with at least one slot in use.
    pub fn tables(&self) -> Vec<TableId> {
        let in_use = |table: &TableId| self.used(*table).next().is_some();
        let mut tables: Vec<TableId> = self.tables.keys().copied().filter(in_use).collect();
        tables.sort();
        tables
    }

    /// The slots of a table that lie here and hold data, in order.
    pub fn used(&self, table: TableId) -> impl Iterator<Item = (Slot, &SlotState)> {
        self.filled(table).filter(|(slot, _)| self.is_placed(*slot))
    }

    /// As `used`, wherever they lie.
    pub fn filled(&self, table: TableId) -> impl Iterator<Item = (Slot, &SlotState)> {
        let slots = self.tables.get(&table).map_or(&[][..], |slots| slots);
        slots
            .iter()
            .enumerate()
            .filter(|(_, state)| state.incarnation != NONE)
            .map(|(slot, state)| (Slot(slot as u16), state))
    }

    /// Which table's slot this incarnation is, if it is still one's. `slot_of`: in which slot of a table it may be.
    pub fn place_of(
        &self,
        incarnation: Incarnation,
        slot_of: impl Fn(TableId) -> Slot,
    ) -> Option<(TableId, Slot)> {
        let places = self.tables.iter().map(|(table, slots)| (*table, slot_of(*table), slots));
        let mut places =
            places.filter(|(_, slot, slots)| slots[usize::from(slot.0)].incarnation == incarnation);
        places.next().map(|(table, slot, _)| (table, slot))
    }

    /// Each slot's incarnation and next index: a copy for a job away from the core.
    pub fn places(&self, table: TableId) -> Vec<(Incarnation, u64)> {
        let slots = self.tables.get(&table).map_or(&[][..], |slots| slots);
        slots.iter().map(|state| (state.incarnation, state.next_index)).collect()
    }

    /// Estimated keys of a table: never negative.
    pub fn keys(&self, table: TableId) -> u64 {
        self.used(table).map(|(_, state)| state.keys).sum::<i64>().max(0) as u64
    }

    /// Estimated keys of all tables.
    pub fn all_keys(&self) -> u64 {
        self.tables.keys().map(|table| self.keys(*table)).sum()
    }

    /// Hands over what has changed since the last call, for writing to RocksDB.
    pub fn take_changed(&mut self, mut write: impl FnMut(TableId, Slot, &SlotState)) {
        for (table, slots) in &mut self.tables {
            for (slot, state) in slots.iter_mut().enumerate().filter(|(_, state)| state.changed) {
                state.changed = false;
                write(*table, Slot(slot as u16), state);
            }
        }
    }

    pub fn next_incarnation(&self) -> Incarnation {
        self.next_incarnation
    }

    pub fn garbage(&self) -> &[Incarnation] {
        &self.garbage
    }

    pub fn add_garbage(&mut self, incarnation: Incarnation) {
        self.garbage.push(incarnation);
    }

    pub fn forget_garbage(&mut self, erased: &[Incarnation]) {
        self.garbage.retain(|incarnation| !erased.contains(incarnation));
    }

    fn entry(&mut self, table: TableId, slot: Slot) -> &mut SlotState {
        let count = self.slots_per_table;
        let slots = self.tables.entry(table).or_insert_with(|| vec![UNUSED; count].into_boxed_slice());
        &mut slots[usize::from(slot.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushing_gives_the_next_write_a_new_incarnation() {
        let mut slots = SlotTable::new(16, Incarnation::FIRST, 1);
        let (table, slot) = (TableId(0), Slot(3));
        let first = slots.for_write(table, slot).incarnation;
        slots.for_write(table, slot).next_index = 9;
        slots.flush(table, &[SlotRange { first: Slot(0), last: Slot(15) }]);
        assert_eq!(slots.garbage(), [first]);
        assert!(slots.tables().is_empty());
        let state = slots.for_write(table, slot);
        assert_ne!(state.incarnation, first);
        assert_eq!(state.next_index, 9, "the stream goes on");
    }

    #[test]
    fn swapping_exchanges_contents_and_takes_no_index_back() {
        let mut slots = SlotTable::new(4, Incarnation::FIRST, 1);
        let a = slots.for_write(TableId(0), Slot(1)).incarnation;
        slots.for_write(TableId(0), Slot(1)).next_index = 5;
        slots.swap(TableId(0), TableId(1), &[]);
        assert_eq!(slots.get(TableId(1), Slot(1)).incarnation, a);
        assert_eq!(slots.get(TableId(0), Slot(1)).incarnation, NONE);
        for table in [0, 1] {
            assert_eq!(slots.get(TableId(table), Slot(1)).next_index, 5, "above every version made before");
        }
    }
    #[test]
    fn a_swap_of_named_slots_moves_only_these_and_their_indexes_even_if_they_are_empty() {
        let mut slots = SlotTable::new(4, Incarnation::FIRST, 1);
        let [a, b] = [1, 2].map(|slot| slots.for_write(TableId(0), Slot(slot)).incarnation);
        slots.set_position(TableId(0), Slot(3), 7, 1);
        slots.swap(TableId(0), TableId(1), &[SlotRange { first: Slot(2), last: Slot(3) }]);
        assert_eq!(slots.get(TableId(0), Slot(1)).incarnation, a);
        assert_eq!(slots.get(TableId(1), Slot(2)).incarnation, b);
        assert_eq!(slots.get(TableId(1), Slot(3)).next_index, 8, "as where the primary had data");
    }

    #[test]
    fn what_lies_elsewhere_is_hidden_and_still_there() {
        let mut slots = SlotTable::new(8, Incarnation::FIRST, 1);
        let table = TableId(0);
        for slot in [1, 6].map(Slot) {
            slots.for_write(table, slot).keys = 3;
            slots.set_position(table, slot, 5, 1 + u64::from(slot.0));
        }
        slots.place(&Placement::even(8, 2), ShardId(0));
        assert_eq!(slots.used(table).map(|(slot, _)| slot).collect::<Vec<_>>(), [Slot(1)]);
        assert_eq!(slots.positions().map(|(_, slot, _)| slot).collect::<Vec<_>>(), [Slot(1)]);
        assert_eq!((slots.keys(table), slots.incarnations().len()), (3, 2));
        assert_eq!(slots.hidden().map(|(_, slot, _)| slot).collect::<Vec<_>>(), [Slot(6)]);
        assert_eq!(slots.newest_term(), 7);
        slots.place(&Placement::even(8, 1), ShardId(0));
        assert_eq!(slots.keys(table), 6);
    }
}

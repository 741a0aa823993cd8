//! What a handler sees of its shard: memory first, then RocksDB's own memory, never the disk.

use super::hot::{Hot, Known, RowName, RowNameRef};
use super::hot_elements::{HotElements, INDEX_MAX_ENTRIES, INDEX_TAG, Index};
use super::runs::{Reach, Recorder};
use super::slots::{NONE, SlotTable};
use crate::error::Stop;
use crate::slot::{Slot, TableId};
use crate::store::row::{Row, Version};
use crate::store::tx::{KeyRef, Source, Sub, Subs, Visit};
use crate::store::{Cached, ElementKey, ElementRange, Incarnation, Step, Store, Wanted, element_head};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A shard as the handlers of one turn read it.
pub struct View<'s> {
    pub store: &'s Store,
    pub slots: &'s SlotTable,
    pub hot: &'s mut Hot,
    pub undurable: &'s Undurable,
    /// Filled when a look-up would need the disk.
    pub wanted: Option<Wanted>,
    /// The latest position that the answer must wait for, because it shows what stands there.
    pub seen: u64,
    pub now_s: u32,
    pub hits: u64,
    pub misses: u64,
}

impl View<'_> {
    /// Scans an index that memory holds, or now takes in; false: it does not.
    fn scan_index(&mut self, head: &[u8], subs: &Subs, visit: &mut Visit<'_>) -> Result<bool, Stop> {
        if let Some(index) = self.hot.read.index(head) {
            return visit_index(index, subs, visit);
        }
        let Some(index) = self.read_index(head)? else { return Ok(false) };
        let visited = visit_index(&index, subs, visit);
        // It may be too large to be kept.
        self.hot.read.fill_index(head, index);
        visited
    }

    /// A whole index; None if memory has not all of it.
    fn read_index(&self, head: &[u8]) -> Result<Option<Index>, Stop> {
        let whole = ElementRange::below(head, &Subs::of(&[INDEX_TAG]));
        let mut entries = BTreeMap::new();
        let store = self.store.view_cached();
        let mut missed = false;
        let below = |visit: &mut Visit<'_>| {
            missed = store.elements(&whole, visit)? == Step::Miss;
            Ok(())
        };
        self.hot.over(&whole, below, &mut |sub, value| {
            entries.insert(Sub::from_slice(sub), Bytes::copy_from_slice(value));
            Ok(entries.len() <= INDEX_MAX_ENTRIES)
        })?;
        Ok(match entries.len() {
            _ if missed => None,
            ..=INDEX_MAX_ENTRIES => Some(Index::Whole(entries)),
            _ => Some(Index::Large),
        })
    }

    /// Scans what memory has no run of, and makes one of it.
    fn scan_store(
        &mut self,
        mut range: ElementRange,
        subs: &Subs,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        let mut passed = Recorder::new();
        // Where to load from, should memory end.
        let mut reached: Option<Sub> = None;
        let (mut wanted, mut ended) = (true, true);
        let missed = Cell::new(false);
        let store = self.store.view_cached();
        let below = |visit: &mut Visit<'_>| {
            missed.set(store.elements(&range, visit)? == Step::Miss);
            Ok(())
        };
        let result = self.hot.over(&range, below, &mut |sub, value| {
            // What is laid over RocksDB goes on behind the place where memory ends.
            if missed.get() {
                return Ok(false);
            }
            if wanted {
                wanted = visit(sub, value)?;
                reached = Some(Sub::from_slice(sub));
            }
            passed.note(sub, value);
            ended = wanted || passed.reads_ahead();
            Ok(ended)
        });
        result?;
        if missed.get() && wanted {
            if let Some(sub) = reached {
                let end = range.with_subs(&Subs::new(&sub, &sub)).from;
                *(if subs.backward { &mut range.to } else { &mut range.from }) = end;
            }
            self.wanted = Some(Wanted::elements(&range));
            return Err(Stop::Cold);
        }
        self.hot.read.fill_runs(&range, subs, passed, ended && !missed.get());
        Ok(())
    }

    fn incarnation(&self, table: TableId, slot: Slot) -> Option<Incarnation> {
        let incarnation = self.slots.get(table, slot).incarnation;
        (incarnation != NONE).then_some(incarnation)
    }
}

/// Shows what an index has of these subs; false: it does not hold its entries.
fn visit_index(index: &Index, subs: &Subs, visit: &mut Visit<'_>) -> Result<bool, Stop> {
    let Index::Whole(entries) = index else { return Ok(false) };
    if subs.from >= subs.to {
        return Ok(true);
    }
    let mut inside =
        entries.range::<[u8], _>((Bound::Included(&subs.from[..]), Bound::Excluded(&subs.to[..])));
    loop {
        let next = if subs.backward { inside.next_back() } else { inside.next() };
        let Some((sub, value)) = next else { return Ok(true) };
        if !visit(sub, value)? {
            return Ok(true);
        }
    }
}

impl Source for View<'_> {
    fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
        let Some(incarnation) = self.incarnation(key.table, key.slot) else {
            self.seen = self.seen.max(self.undurable.wide);
            self.misses += 1;
            return Ok(None);
        };
        let name = RowNameRef { incarnation, name: key.name };
        self.seen = self.seen.max(self.undurable.position(name));
        let row = match self.hot.row(name, self.now_s) {
            Known::Row(row) => Some(row),
            Known::Absent => None,
            Known::Unknown => match self.store.row_cached(incarnation, key.name) {
                Ok(Cached::Found(row)) => {
                    self.hot.fill(incarnation, key.name, &row, self.now_s);
                    Some(row)
                }
                Ok(Cached::Absent) => None,
                Ok(Cached::Miss) => {
                    self.wanted = Some(Wanted::row(incarnation, key.name));
                    return Err(Stop::Cold);
                }
                Err(error) => return Err(Stop::Fault(error.to_string())),
            },
        };
        if row.is_some() {
            self.hits += 1
        } else {
            self.misses += 1
        }
        Ok(row)
    }

    fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        let Some(incarnation) = self.incarnation(key.table, key.slot) else { return Ok(None) };
        let element = ElementKey::new(incarnation, key.name, version, sub);
        if let Some(known) = self.hot.read.element(&element) {
            return Ok(known);
        }
        if let Some(written) = self.hot.element(&element) {
            return Ok(written.clone());
        }
        match self.store.element_cached(&element) {
            Ok(Cached::Found(value)) => {
                self.hot.read.fill(element, &value);
                Ok(Some(value))
            }
            Ok(Cached::Absent) => Ok(None),
            Ok(Cached::Miss) => {
                self.wanted = Some(Wanted::element(&element));
                Err(Stop::Cold)
            }
            Err(error) => Err(Stop::Fault(error.to_string())),
        }
    }

    fn scan(
        &mut self,
        key: KeyRef<'_>,
        version: Version,
        subs: &Subs,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        let Some(incarnation) = self.incarnation(key.table, key.slot) else { return Ok(()) };
        let head = element_head(incarnation, key.name, version);
        if HotElements::is_of_index(subs) && self.scan_index(&head, subs, visit)? {
            return Ok(());
        }
        let range = ElementRange::below(&head, subs);
        match self.hot.read.visit(&range, subs, visit)? {
            Reach::Whole => Ok(()),
            Reach::Rest(rest) => self.scan_store(range.with_subs(&rest), &rest, visit),
        }
    }

    fn next_index(&mut self, table: TableId, slot: Slot) -> u64 {
        self.slots.get(table, slot).next_index
    }

    fn idle_seconds(&mut self, key: KeyRef<'_>) -> u64 {
        let used = self
            .incarnation(key.table, key.slot)
            .and_then(|incarnation| self.hot.used_s(RowNameRef { incarnation, name: key.name }));
        u64::from(used.map_or(0, |used| self.now_s.saturating_sub(used)))
    }
}

/// Under `appendfsync always`: what is applied and not yet on disk, so that no reader is shown a value
/// that a power cut could take back. Empty under the other policies.
#[derive(Default)]
pub struct Undurable {
    positions: hashbrown::HashMap<RowName, u64, foldhash::fast::RandomState>,
    order: std::collections::VecDeque<(u64, RowName)>,
    /// The last change to whole tables.
    wide: u64,
}

impl Undurable {
    pub fn note(&mut self, name: RowName, lsn: u64) {
        self.positions.insert(name.clone(), lsn);
        self.order.push_back((lsn, name));
    }

    pub fn note_wide(&mut self, lsn: u64) {
        self.wide = lsn;
    }

    /// Where the last change of this row stands in the log, if that is not on disk yet; else 0.
    fn position(&self, name: RowNameRef<'_>) -> u64 {
        if self.positions.is_empty() {
            return self.wide;
        }
        self.positions.get(&name).copied().unwrap_or(0).max(self.wide)
    }

    /// Everything up to here is on disk.
    pub fn settle(&mut self, durable: u64) {
        if self.wide <= durable {
            self.wide = 0;
        }
        while let Some((lsn, _)) = self.order.front()
            && *lsn <= durable
        {
            let (lsn, name) = self.order.pop_front().expect("it has a front");
            if self.positions.get(&name) == Some(&lsn) {
                self.positions.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SharedMemory, StoreOptions};

    #[test]
    fn an_index_that_memory_has_no_room_to_keep_is_read_all_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let shared = SharedMemory::new(8 << 20, 8 << 20, 1).expect("there is memory");
        let options = StoreOptions { create: true, memtable_target_bytes: 4 << 20, direct_io: false };
        let store = Store::open(dir.path(), &options, &shared).expect("an empty directory");
        let (key, version) = (KeyRef { table: TableId(0), slot: Slot(0), name: b"k" }, Version(7));
        for hot_bytes in [48 << 10, 48 << 20] {
            let (mut slots, mut hot) = (SlotTable::new(1, Incarnation(1), 1), Hot::new(hot_bytes));
            let incarnation = slots.for_write(key.table, key.slot).incarnation;
            for at in 0..200 {
                let element = ElementKey::new(incarnation, key.name, version, &[INDEX_TAG, 0, at]);
                hot.write_element(element, Some(Bytes::from_static(b"v")));
            }
            let undurable = Undurable::default();
            let mut view = View {
                store: &store,
                slots: &slots,
                hot: &mut hot,
                undurable: &undurable,
                wanted: None,
                seen: 0,
                now_s: 0,
                hits: 0,
                misses: 0,
            };
            for _ in 0..2 {
                let mut seen = Vec::new();
                let subs = Subs::new(&[INDEX_TAG, 0], &[INDEX_TAG, 0, 150]).backward();
                let mut see = |sub: &[u8], _: &[u8]| {
                    seen.push(sub[2]);
                    Ok(seen.len() < 3)
                };
                view.scan(key, version, &subs, &mut see).expect("all of it is in memory");
                assert_eq!(seen, [149, 148, 147]);
            }
            let kept = view.hot.read.index(&element_head(incarnation, key.name, version)).is_some();
            assert_eq!(kept, hot_bytes > 1 << 20);
        }
    }
}

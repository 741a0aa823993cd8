//! What a shard's log has made visible: slots, rows in memory, and the way of both into RocksDB.
//!
//! The same code serves turns and recovery. What turns have logged is gathered, and given to RocksDB together,
//! by a thread of its own where it is more than a few rows. Knows no log: it is told which position it stands
//! for.

use super::garbage::Garbage;
use super::hot::{Hot, Known, RowName, RowNameRef};
use super::intake::DueOf;
use super::slots::{NONE, SlotTable};
use super::unapplied::{Applied, Apply};
use super::view::Undurable;
use super::waiters::Waiters;
use crate::binlog::Touch;
use crate::error::Fault;
use crate::limits;
use crate::slot::ShardId;
use crate::store::effects::{Operation, SlotWide};
use crate::store::tx::{Change, Effect};
use crate::store::{Batch, Cached, ElementKey, Incarnation, Row, SlotEntry, Store, WriteError};
use bytes::Bytes;

pub struct Data {
    pub store: Store,
    pub slots: SlotTable,
    pub hot: Hot,
    pub undurable: Undurable,
    pub garbage: Garbage,
    /// Connections to wake when their keys are written.
    pub waiters: Waiters,
    /// Note what is not on disk yet: under `appendfsync always`.
    pub note_undurable: bool,
    /// Away while a thread writes it.
    batch: Option<Batch>,
    /// The batch is built and RocksDB would have had to wait: nothing else is written until it is in.
    stalled: bool,
    /// The batch is refused because RocksDB has no room on its disk; it heals by itself.
    files_full: bool,
    /// The record that stands here in the log is not applied to its end: a crash must replay it.
    pub applied_before: Option<u64>,
    /// Last transaction part applied here, by home shard.
    pub parts_applied: Vec<(ShardId, u64)>,
    /// Given to RocksDB since its memtables were last switched, bytes.
    unsealed_bytes: usize,
    /// Of what is copied in, in the batch that is offered now.
    copied_bytes: usize,
    /// At what size its memtables are sealed. What is in none of them yet must stay a small part of it.
    seal_bytes: usize,
    /// When the first of them was seen at the end of a turn; milliseconds since the epoch.
    gathered_since_ms: Option<u64>,
    /// So many rows and elements may be given to RocksDB here, without a thread.
    pub here_max: usize,
    /// Batches sent away since somebody waits until RocksDB has everything: meanwhile more has been logged.
    rounds: u32,
}

impl Data {
    pub fn new(store: Store, slots: SlotTable, hot: Hot) -> Data {
        Data {
            batch: Some(store.batch()),
            store,
            slots,
            hot,
            undurable: Undurable::default(),
            garbage: Garbage::default(),
            waiters: Waiters::default(),
            note_undurable: false,
            stalled: false,
            files_full: false,
            applied_before: None,
            parts_applied: Vec::new(),
            unsealed_bytes: 0,
            copied_bytes: 0,
            seal_bytes: usize::MAX,
            gathered_since_ms: None,
            here_max: limits::APPLY_HERE_MAX,
            rounds: 0,
        }
    }

    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub fn set_seal_bytes(&mut self, seal_bytes: u64) {
        self.seal_bytes = seal_bytes as usize;
    }

    /// Writes wait when so many bytes have gathered; half of them are worth a batch.
    fn gathered_max_bytes(&self) -> usize {
        limits::GATHERED_MAX_BYTES.min(self.seal_bytes / 8)
    }

    /// More is logged than RocksDB has been able to take: writes wait.
    pub fn is_behind(&self) -> bool {
        self.hot.written().bytes() >= self.gathered_max_bytes()
    }

    /// What the memtables will hold when all that is logged is applied, bytes. Beyond a multiple of what the shard
    /// seals at, RocksDB would write them out by itself, and without the slot table.
    pub fn unsealed_bytes(&self) -> usize {
        self.unsealed_bytes + self.hot.unapplied_bytes()
    }

    /// The memtables have been switched.
    pub fn sealed(&mut self) {
        self.unsealed_bytes = 0;
    }

    pub fn files_full(&self) -> bool {
        self.files_full
    }

    /// A part of a transaction is in this shard's log; parts of one home come in the order of their numbers.
    pub fn note_part(&mut self, home: ShardId, number: u64) {
        match self.parts_applied.iter_mut().find(|(of, _)| *of == home) {
            Some((_, last)) => *last = number,
            None => self.parts_applied.push((home, number)),
        }
    }

    pub fn forget_due(&mut self, expire_ms: u64, incarnation: Incarnation, name: Bytes) {
        self.hot.forget_due(expire_ms, incarnation, name);
    }

    /// Makes what stands in the log visible: when it is written there, and at recovery.
    pub fn show_operation(&mut self, operation: &Operation, lsn: u64, now_ms: u64) {
        match operation {
            Operation::Effect(effect) => self.show(effect, lsn, now_ms),
            Operation::SlotWide(wide) => {
                match wide {
                    SlotWide::Flush { table, slots } => self.slots.flush(*table, slots),
                    SlotWide::SwapTables { a, b, slots } => self.slots.swap(*a, *b, slots),
                    SlotWide::Adopt { table, slot, adopted } => self.slots.adopt(*table, *slot, *adopted),
                }
                if self.note_undurable {
                    self.undurable.note_wide(lsn);
                }
            }
        }
    }

    pub fn show(&mut self, effect: &Effect, lsn: u64, now_ms: u64) {
        self.show_as(effect, lsn, now_ms, self.note_undurable, true);
    }

    /// `note`: readers must wait until it is on disk. `cached`: it may stay in memory once applied.
    pub fn show_as(&mut self, effect: &Effect, lsn: u64, now_ms: u64, note: bool, cached: bool) {
        let now_s = (now_ms / 1000) as u32;
        let incarnation = match effect.change {
            Change::Delete => self.slots.get(effect.table, effect.slot).incarnation,
            _ => self.slots.for_write(effect.table, effect.slot).incarnation,
        };
        if note {
            self.undurable.note(RowName::new(incarnation, &effect.name), lsn);
        }
        let write_row = |hot: &mut Hot, value| {
            let row = RowName::new(incarnation, &effect.name);
            match cached {
                true => hot.write_row(row, value, now_s),
                false => hot.write_row_uncached(row, value),
            }
        };
        match &effect.change {
            Change::Put(value) => {
                self.waiters.written(effect.table, &effect.name, value.kind);
                let before = write_row(&mut self.hot, Some(value.clone()));
                // A blind write of a key that is not in memory counts as new: the count is an estimate.
                if !effect.existed.unwrap_or(before.is_some()) {
                    self.slots.for_write(effect.table, effect.slot).keys += 1;
                }
                self.note_garbage(effect, incarnation, before, lsn);
            }
            Change::Delete => {
                if incarnation != NONE {
                    self.slots.for_write(effect.table, effect.slot).keys -= 1;
                    let before = write_row(&mut self.hot, None);
                    self.note_garbage(effect, incarnation, before, lsn);
                }
            }
            Change::Element { version, sub, value } => {
                let key = ElementKey::new(incarnation, &effect.name, *version, sub);
                self.hot.write_element(key, value.clone());
            }
        }
    }

    /// Remembers a large life of a key that ends here, as far as memory tells. `before`: the row that the hot
    /// cache has lost by it. What the command has read is in RocksDB's memory at least; who has read nothing (a
    /// SET) is not made to look.
    fn note_garbage(&mut self, effect: &Effect, incarnation: Incarnation, before: Option<Row>, lsn: u64) {
        let before = match before {
            None if effect.existed == Some(true) => match self.store.row_cached(incarnation, &effect.name) {
                Ok(Cached::Found(row)) => Some(row),
                // Whoever needs the row meets the error.
                Ok(Cached::Absent | Cached::Miss) | Err(_) => None,
            },
            before => before,
        };
        let Some(version) = before.and_then(|row| row.large_version()) else { return };
        let goes_on = matches!(&effect.change, Change::Put(row) if row.version() == Some(version));
        if !goes_on {
            self.garbage.note(lsn, incarnation, &effect.name, version);
        }
    }

    /// Takes the indexes and the term that a record in the log has given its slots.
    pub fn follow(&mut self, touches: &[Touch]) {
        for touch in touches {
            self.slots.set_position(touch.table, touch.slot, touch.index, touch.term);
        }
    }

    /// What has gathered is worth a batch, or has waited long enough. Asked at the end of each turn.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        if self.hot.written().is_empty() {
            return false;
        }
        let since_ms = *self.gathered_since_ms.get_or_insert(now_ms);
        self.hot.written().bytes() >= self.gathered_max_bytes() / 2
            || now_ms >= since_ms + limits::GATHERED_MAX_MS
    }

    /// A thread writes what was gathered.
    pub fn is_applying(&self) -> bool {
        self.batch.is_none()
    }

    /// It is so little that writing it here costs less than sending it away. With each batch that somebody has
    /// waited for in vain twice as much is little: it must not go on for ever.
    pub fn is_little(&self) -> bool {
        const ROUNDS_MAX: u32 = 8;
        let (written, rounds) = (self.hot.written(), self.rounds.min(ROUNDS_MAX));
        written.len() <= self.here_max << rounds && written.bytes() <= limits::APPLY_HERE_BYTES << rounds
    }

    /// Gives RocksDB what the log has and RocksDB has not. Again after a stall: the same batch.
    /// `position`: the last one that the log has written.
    pub fn apply(&mut self, position: u64) -> Result<(), Fault> {
        if !self.stalled {
            if self.hot.is_clean() {
                return Ok(());
            }
            self.fill_batch(position);
        }
        self.write_batch()
    }

    /// As `apply`, for a thread to do; its answer goes to `applied`. Not while another is under way.
    /// `asked`: somebody waits until RocksDB has everything.
    pub fn apply_away(&mut self, position: u64, asked: bool) -> Apply {
        let upto = self.whole_up_to(position);
        let fill = (!self.stalled).then(|| (self.hot.send(), upto));
        let batch = self.batch.take().expect("one batch is written after the other");
        self.gathered_since_ms = None;
        self.rounds = if asked { self.rounds + 1 } else { 0 };
        Apply { writing: self.store.writing(), batch, fill }
    }

    /// What became of a batch that was written away from here.
    pub fn applied(&mut self, applied: Applied) -> Result<(), Fault> {
        let Applied { batch, result } = applied;
        if result.is_ok() {
            self.store.written(&batch);
        }
        self.batch = Some(batch);
        self.written(result)
    }

    /// As `apply`, for a replay: the slot table goes along, since nobody seals while a log is replayed and
    /// RocksDB may write out by itself what it is given.
    pub fn apply_replayed(&mut self, position: u64) -> Result<(), Fault> {
        if !self.stalled {
            if self.hot.is_clean() {
                return Ok(());
            }
            self.fill_batch(position);
            self.put_slots(self.whole_up_to(position));
        }
        self.write_batch()
    }

    fn fill_batch(&mut self, position: u64) {
        let upto = self.whole_up_to(position);
        let batch = self.batch.as_mut().expect("no thread is writing");
        self.hot.written().fill(batch, upto);
        self.gathered_since_ms = None;
        self.rounds = 0;
    }

    fn batch_here(&mut self) -> &mut Batch {
        self.batch.as_mut().expect("no thread is writing")
    }

    /// The last record up to which everything is applied, if the log has been written up to `position`.
    fn whole_up_to(&self, position: u64) -> u64 {
        self.applied_before.map_or(position, |unfinished| position.min(unfinished - 1))
    }

    fn write_batch(&mut self) -> Result<(), Fault> {
        let batch = self.batch.as_mut().expect("no thread is writing");
        let result = self.store.write(batch);
        self.written(result)
    }

    /// RocksDB has taken the batch, or not.
    fn written(&mut self, result: Result<(), WriteError>) -> Result<(), Fault> {
        match result {
            Ok(()) => {
                (self.stalled, self.files_full) = (false, false);
                self.unsealed_bytes += std::mem::take(&mut self.copied_bytes);
                self.unsealed_bytes += self.hot.settle();
                Ok(())
            }
            Err(refused @ (WriteError::Stalled | WriteError::Full)) => {
                self.stalled = true;
                self.hot.set_apart();
                self.files_full = matches!(refused, WriteError::Full);
                Ok(())
            }
            Err(WriteError::Fault(error)) => Err(Fault::new("writing to RocksDB", error)),
        }
    }

    /// Writes entries of the time index whose rows are copied in. No log has them: a crash makes them garbage.
    pub fn note_due(&mut self, due: &[DueOf], position: u64) -> Result<(), Fault> {
        assert!(!self.stalled && self.hot.is_clean(), "the turn is applied before anything is copied in");
        let upto = self.whole_up_to(position);
        let batch = self.batch_here();
        batch.clear();
        for (expire_ms, incarnation, name) in due {
            batch.put_time(*expire_ms, *incarnation, name);
        }
        let bytes = batch.size_bytes();
        batch.set_persisted(upto);
        self.copied_bytes = bytes;
        self.write_batch()
    }

    /// Writes the slot table, so that the coming memtable switch persists it with the data.
    /// Only when nothing is stalled; false if RocksDB would have to wait.
    pub fn write_slots(&mut self, position: u64, whole_floor: Option<u64>) -> Result<bool, Fault> {
        assert!(!self.stalled && self.hot.is_clean(), "the turn is applied before the slot table is written");
        let whole_up_to = self.whole_up_to(position);
        self.batch_here().clear();
        self.put_slots(whole_up_to);
        self.batch_here().put_whole_floor(whole_floor.unwrap_or(0));
        self.batch_here().set_persisted(whole_up_to);
        self.write_batch()?;
        Ok(!self.stalled)
    }

    /// `lsn`: the last record that is in it whole.
    fn put_slots(&mut self, lsn: u64) {
        let batch = self.batch.as_mut().expect("no thread is writing");
        batch.put_slots_lsn(lsn);
        self.slots.take_changed(|table, slot, state| {
            batch.put_slot_entry(&SlotEntry {
                table,
                slot,
                incarnation: state.incarnation,
                next_index: state.next_index,
                term: state.term,
                keys_estimate: state.keys.max(0) as u64,
            });
        });
        batch.put_next_incarnation(self.slots.next_incarnation());
        for (home, number) in &self.parts_applied {
            batch.put_part_applied(*home, *number);
        }
    }

    /// The row as memory knows it: None if only the disk can say.
    pub fn peek_row(&mut self, incarnation: Incarnation, name: &Bytes) -> Option<Option<Row>> {
        if incarnation == NONE {
            return Some(None);
        }
        match self.hot.peek(RowNameRef { incarnation, name }) {
            Known::Row(row) => Some(Some(row)),
            Known::Absent => Some(None),
            Known::Unknown => match self.store.row_cached(incarnation, name) {
                Ok(Cached::Found(row)) => Some(Some(row)),
                Ok(Cached::Absent) => Some(None),
                Ok(Cached::Miss) | Err(_) => None,
            },
        }
    }
}

//! One shard: its RocksDB, its log, its slots and what it holds in memory. Built and used on one core.
//!
//! The order of a turn is kept here: handlers gather effects (`run`), the log is written (`commit`), and some time
//! later RocksDB (`apply`); whether an answer may leave is asked of `released`. Knows no socket and no other shard.

use super::data::Data;
use super::latch::Latches;
use super::mesh::{Call, GatherId, ShardWork};
use super::settled::Settled;
use super::unapplied::Apply;
use super::view::View;
use crate::binlog::{FrameMeta, Touch, Txn, Writer};
use crate::config::Fsync;
use crate::error::{Fault, Stop};
use crate::metrics::CoreStats;
use crate::metrics::micros::Micros;
use crate::metrics::shard::LogCounters;
use crate::resp::reply::Reply;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Wanted;
use crate::store::effects::{BodyWriter, Operation, Origin, SlotWide};
use crate::store::tx::{Effect, Scope, Tx};
use smallvec::SmallVec;

/// Who holds a latch: a command of this core, or one that several shards take part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Task(usize),
    Gather(GatherId),
}

/// How far acknowledgements wait for the disk, and since when.
const EVERYSEC_WAIT_MS: u64 = 1000;

/// Writes wait at this many times the size at which memtables are sealed: half of where RocksDB would write
/// them out by itself (`store/options.rs`), for its own bytes around each entry.
const UNSEALED_MAX: usize = 2;

pub struct Shard {
    pub id: ShardId,
    pub data: Data,
    pub log: Writer,
    pub latches: Latches<Holder>,
    pub settled: Settled,
    fsync: Fsync,
    /// Clients are shown no more of the log than followers have: up to here. None: they need not have it.
    acknowledged: Option<u64>,
    body: Vec<u8>,
    /// Writes wait while the memtable is switched.
    sealing: bool,
    /// Writes wait while so much is not sealed, bytes.
    unsealed_bytes_max: usize,
    /// The last attempt to prepare a segment of the log failed.
    log_full: bool,
    pub counters: LogCounters,
    pub sync_times: Micros,
}

/// What a command did, when it ran to its end.
pub struct Ran {
    pub reply: Reply,
    /// The answer may leave once the log has been released up to here.
    pub position: u64,
}

/// Why a command did not run to its end, and what it was missing.
pub struct Halted {
    pub stop: Stop,
    pub wanted: Option<Wanted>,
}

impl Shard {
    /// `seal_bytes`: at what size its memtables are meant to be sealed.
    pub fn new(
        id: ShardId,
        data: Data,
        log: Writer,
        settled: Settled,
        fsync: Fsync,
        seal_bytes: u64,
    ) -> Shard {
        let mut shard = Shard {
            id,
            data,
            log,
            latches: Latches::default(),
            settled,
            fsync,
            acknowledged: None,
            body: Vec::new(),
            sealing: false,
            unsealed_bytes_max: seal_bytes as usize * UNSEALED_MAX,
            log_full: false,
            counters: LogCounters::default(),
            sync_times: Micros::default(),
        };
        shard.set_fsync(fsync);
        shard.data.set_seal_bytes(seal_bytes);
        shard
    }

    pub fn set_fsync(&mut self, fsync: Fsync) {
        self.fsync = fsync;
        self.note_undurable();
    }

    /// How far followers have its log that clients may be shown nothing without; None: no follower is asked.
    pub fn set_acknowledged(&mut self, acknowledged: Option<u64>) {
        self.acknowledged = acknowledged;
        self.note_undurable();
    }

    fn note_undurable(&mut self) {
        self.data.note_undurable = self.fsync == Fsync::Always || self.acknowledged.is_some();
    }

    pub fn fsync(&self) -> Fsync {
        self.fsync
    }

    /// RocksDB takes writes: nothing is stalled, it is not behind, no memtable is being switched or must be first.
    pub fn accepts_writes(&self) -> bool {
        !self.data.is_stalled()
            && !self.data.is_behind()
            && !self.sealing
            && self.data.unsealed_bytes() < self.unsealed_bytes_max
    }

    /// New commands may write: the log has room for a turn too. Its next segment may still be on its way.
    pub fn admits_writes(&self) -> bool {
        self.accepts_writes() && self.log.has_room()
    }

    /// No room on the disk: the log's next segment could not be prepared, or RocksDB cannot write what it
    /// holds. Writes are refused, where a gate would keep them for who knows how long.
    pub fn is_full(&self) -> bool {
        self.data.files_full() || (self.log_full && !self.log.has_room())
    }

    /// Preparing a segment has failed, and has not succeeded since.
    pub fn log_full(&self) -> bool {
        self.log_full
    }

    /// What became of preparing a segment.
    pub fn set_log_full(&mut self, full: bool) {
        self.log_full = full;
    }

    pub fn close_gate(&mut self) {
        self.sealing = true;
    }

    pub fn open_gate(&mut self) {
        self.sealing = false;
    }

    /// Runs a command's handler; on success its effects are part of the turn.
    #[expect(clippy::result_large_err, reason = "what runs to its end pays nothing for it")]
    pub fn run(&mut self, call: &Call<'_>, scope: Scope, stats: &mut CoreStats) -> Result<Ran, Halted> {
        let mut view = View {
            store: &self.data.store,
            slots: &self.data.slots,
            hot: &mut self.data.hot,
            undurable: &self.data.undurable,
            wanted: None,
            seen: 0,
            now_s: (scope.now_ms / 1000) as u32,
            hits: 0,
            misses: 0,
        };
        let mut tx = Tx::new(scope, &mut view);
        let done = (call.command.run)(&mut tx, &call.args);
        let effects = tx.into_effects();
        let (seen, wanted, hits, misses) = (view.seen, view.wanted.take(), view.hits, view.misses);
        match done {
            Ok(reply) => {
                stats.keyspace_hits += hits;
                stats.keyspace_misses += misses;
                let position = if effects.is_empty() {
                    seen
                } else {
                    self.join(&effects, call.command.origin(), scope.now_ms)
                };
                Ok(Ran { reply, position })
            }
            Err(Stop::Client(error)) => Ok(Ran { reply: Reply::Error(error), position: seen }),
            Err(stop) => Err(Halted { stop, wanted }),
        }
    }

    /// Makes a command's effects part of the turn: into the log's buffer, and visible to later commands.
    pub fn join(&mut self, effects: &[Effect], origin: Origin, now_ms: u64) -> u64 {
        let touches = self.touch(effects);
        self.body.clear();
        BodyWriter::new(&mut self.body, origin).effects(effects);
        let meta = FrameMeta { touches: &touches, txn: None };
        let lsn = self.log.append(&meta, now_ms, &[&self.body]).0;
        for effect in effects {
            self.data.show(effect, lsn, now_ms);
        }
        lsn
    }

    /// As `join`, for this shard's share of a command on several shards or on whole tables. The frame of a
    /// whole also carries the shares of the others, `parts`.
    pub fn join_work(
        &mut self,
        work: &ShardWork,
        parts: &[&ShardWork],
        txn: Option<Txn>,
        now_ms: u64,
    ) -> u64 {
        let touches = self.touch_operations(&work.operations);
        self.body.clear();
        let mut body = BodyWriter::new(&mut self.body, work.origin);
        for operation in work.operations.iter().chain(parts.iter().flat_map(|part| &part.operations)) {
            match operation {
                Operation::Effect(effect) => body.effect(effect),
                Operation::SlotWide(wide) => body.slot_wide(wide),
            }
        }
        let meta = FrameMeta { touches: &touches, txn: txn.as_ref() };
        let lsn = self.log.append(&meta, now_ms, &[&self.body]).0;
        for operation in &work.operations {
            self.data.show_operation(operation, lsn, now_ms);
        }
        lsn
    }

    /// Ends the turn for this shard: writes its log. A failure is fatal.
    pub fn commit(&mut self) -> Result<(), Fault> {
        if self.log.has_pending() {
            let before = self.log.written().0;
            let written = self.log.write().map_err(|error| Fault::new("writing the log", error))?;
            let counters = &mut self.counters;
            counters.writes += 1;
            counters.frames += self.log.written().0 - before;
            counters.bytes += written.bytes;
            counters.write_max_us = counters.write_max_us.max(written.micros);
        }
        Ok(())
    }

    /// Gives RocksDB what the log has and RocksDB has not.
    pub fn apply(&mut self) -> Result<(), Fault> {
        self.data.apply(self.log.written().0)
    }

    /// As `apply`, for a thread to do.
    pub fn apply_away(&mut self, asked: bool) -> Apply {
        self.data.apply_away(self.log.written().0, asked)
    }

    /// The position up to which clients may be answered.
    pub fn answerable(&self, now_ms: u64) -> u64 {
        self.released(now_ms).min(self.acknowledged.unwrap_or(u64::MAX))
    }

    /// The position up to which the log counts under the policy in force, for this node and its followers.
    pub fn released(&self, now_ms: u64) -> u64 {
        match self.fsync {
            Fsync::No => self.log.written().0,
            Fsync::Everysec => {
                let since = [self.log.unsynced_since_ms(), self.settled.open_since_ms()];
                let waits = since.into_iter().flatten().any(|since| now_ms >= since + EVERYSEC_WAIT_MS);
                if waits { self.settled.upto() } else { self.log.written().0 }
            }
            Fsync::Always => self.settled.upto(),
        }
    }

    /// Looks how far the log can no longer be taken back: what stands there need not be waited for.
    pub fn settle(&mut self) {
        self.settled.advance(self.log.durable().0);
        let settled = self.settled.upto();
        self.data.undurable.settle(match (self.acknowledged, self.fsync) {
            (None, _) => settled,
            (Some(acknowledged), Fsync::Always) => acknowledged.min(settled),
            (Some(acknowledged), _) => acknowledged,
        });
    }

    /// Nothing that is written can be taken back.
    pub fn is_settled(&self) -> bool {
        self.settled.upto() == self.log.written().0
    }

    fn touch(&mut self, effects: &[Effect]) -> SmallVec<[Touch; 2]> {
        let mut touches: SmallVec<[Touch; 2]> = SmallVec::new();
        let mut last: Option<(TableId, Slot)> = None;
        for effect in effects {
            let at = (effect.table, effect.slot);
            if last != Some(at) {
                last = Some(at);
                touches.push(Touch { table: at.0, slot: at.1, index: 0, term: 0 });
            }
        }
        if touches.len() > 1 {
            touches.sort_unstable_by_key(|touch| (touch.table, touch.slot));
            touches.dedup_by_key(|touch| (touch.table, touch.slot));
        }
        self.number(&mut touches);
        touches
    }

    /// Gives each slot its next index; `slots` ascend, each once.
    pub fn touch_slots(&mut self, slots: &[(TableId, Slot)]) -> Vec<Touch> {
        let touch = |(table, slot): &(TableId, Slot)| Touch { table: *table, slot: *slot, index: 0, term: 0 };
        let mut touches: Vec<Touch> = slots.iter().map(touch).collect();
        self.number(&mut touches);
        touches
    }

    fn touch_operations(&mut self, operations: &[Operation]) -> SmallVec<[Touch; 2]> {
        let mut touches: SmallVec<[Touch; 2]> = SmallVec::new();
        let mut add = |table, slot| touches.push(Touch { table, slot, index: 0, term: 0 });
        for operation in operations {
            match operation {
                Operation::Effect(effect) => add(effect.table, effect.slot),
                Operation::SlotWide(SlotWide::Adopt { table, slot, .. }) => add(*table, *slot),
                Operation::SlotWide(SlotWide::Flush { table, slots }) => {
                    for range in slots {
                        let inside = self.data.slots.used(*table).filter(|(slot, _)| range.holds(*slot));
                        inside.for_each(|(slot, _)| add(*table, slot));
                    }
                }
                Operation::SlotWide(SlotWide::SwapTables { a, b, .. }) => {
                    for of in [*a, *b] {
                        // A slot that is on its way here too: that it was disturbed must show.
                        for (slot, _) in self.data.slots.filled(of) {
                            add(*a, slot);
                            add(*b, slot);
                        }
                    }
                }
            }
        }
        touches.sort_unstable_by_key(|touch| (touch.table, touch.slot));
        touches.dedup_by_key(|touch| (touch.table, touch.slot));
        self.number(&mut touches);
        touches
    }

    fn number(&mut self, touches: &mut [Touch]) {
        for touch in touches {
            (touch.index, touch.term) = self.data.slots.take_index(touch.table, touch.slot);
        }
    }
}

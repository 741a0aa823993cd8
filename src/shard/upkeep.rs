//! What a shard needs beside commands: syncs of its log, sealed memtables, prepared and retired
//! segments, pacing, expired keys, erased incarnations. Small steps on the core; waiting on the pool.

use super::jobs::Needs;
use super::mesh::{Call, LineId, Message, Step};
use super::owner::Owner;
use super::pace::Pace;
use super::wholes::Wholes;
use super::work::Done;
use crate::binlog::{LogError, Lsn, ReserveDone, SyncDone};
use crate::command::hash_expire::DROP_EXPIRED;
use crate::config::Fsync;
use crate::error::Fault;
use crate::limits;
use crate::metrics::latency::Event as Watched;
use crate::resp::args::{Args, Span};
use crate::resp::reply::Reply;
use crate::slot::{ShardId, TableId};
use crate::store::effects::Origin;
use crate::store::tx::{Change, Effect};
use crate::store::{
    Compacted, Erased, Files, Incarnation, NotTaken, Pin, Reader, SealDone, Sealed, Step as ScanStep,
    StoreError,
};
use bytes::Bytes;
use rustc_hash::FxHashSet;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// A background fdatasync starts when the oldest unsynced byte is this old: often, so that it never
/// finds much and the log's writes do not wait behind it.
const SYNC_EVERY_MS: u64 = 50;
/// Under `appendfsync no`: only so that sealing never waits for long.
const SYNC_RARELY_MS: u64 = 1000;
const PRESSURE_EVERY_MS: u64 = 100;
/// Where somebody waits for what has been sealed to be in files.
const AWAITED_EVERY_MS: u64 = 5;
/// After a failure to prepare a segment: each attempt fills the disk and frees it again.
const RESERVE_AGAIN_MS: u64 = 1000;
const EXPIRE_EVERY_MS: u64 = 100;
/// Entries of the time index taken at once; while there are that many the next round follows at once.
const EXPIRE_BATCH: usize = 256;
/// How long garbage (flushed data, large collections that are gone) may wait for a seal.
const GARBAGE_WAIT_MS: u64 = 10_000;
/// How long another shard's log is held up by a part that is not persisted here.
const PARTS_WAIT_MS: u64 = 60_000;

/// The connection of commands that no client has sent.
pub(super) const NOBODY: u64 = u64::MAX;

/// What a job of the upkeep answers.
pub enum Event {
    Synced(Result<SyncDone, LogError>),
    Reserved(Result<ReserveDone, LogError>),
    Sealed(Result<SealDone, StoreError>),
    FilesMade(Result<Files, NotTaken>),
    Erased(Vec<Incarnation>, Result<Erased, StoreError>),
    Due(Result<Vec<DueKey>, StoreError>),
    SpaceGivenBack(Result<Compacted, StoreError>),
}

/// A name whose time has come, as the time index says.
pub struct DueKey {
    expire_ms: u64,
    incarnation: Incarnation,
    name: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    Idle,
    /// The first sync, writes going on.
    Syncing,
    /// The gate is closed; the little that came meanwhile is synced.
    Closing,
    /// The pool switches the memtables.
    Switching,
    /// The gate is open; RocksDB writes its files.
    Flushing,
}

pub struct Upkeep {
    pub wholes: Wholes,
    pace: Pace,
    seal: Seal,
    /// Bytes of memtable at which this shard seals.
    seal_bytes: u64,
    seal_wanted: bool,
    /// Memtable switches done, and those of them whose memtables are in files.
    seals: u64,
    seals_persisted: u64,
    syncing: bool,
    reserving: bool,
    expiring: bool,
    /// How long the oldest key that is due waits for its deletion, where more are due than one round takes.
    expire_lag_ms: u64,
    erasing: bool,
    /// Garbage that the seal under way makes safe to erase.
    sealed_garbage: Vec<Incarnation>,
    erasable: Vec<Incarnation>,
    garbage_since_ms: Option<u64>,
    /// The part numbers that the seal under way persists.
    sealed_parts: Vec<(ShardId, u64)>,
    /// The floor of wholes that the seal under way persists: the next start reads the log from there.
    sealed_floor: Option<u64>,
    /// Since when a part is here that no seal has persisted: its home must keep its log for it.
    parts_since_ms: Option<u64>,
    persisted: u64,
    /// The next start reads the log from here, or later.
    recovery_from: u64,
    last_tick_ms: u64,
    next_pressure_ms: u64,
    next_expire_ms: u64,
    next_reserve_ms: u64,
    /// Elements up to these positions may be in files before the rows that name them.
    pins: VecDeque<(u64, Pin)>,
}

impl Upkeep {
    pub fn new(wholes: Wholes, seal_bytes: u64, persisted: u64, now_ms: u64) -> Upkeep {
        Upkeep {
            wholes,
            pace: Pace::new(now_ms),
            seal: Seal::Idle,
            seal_bytes,
            seal_wanted: false,
            seals: 0,
            seals_persisted: 0,
            syncing: false,
            reserving: false,
            expiring: false,
            expire_lag_ms: 0,
            erasing: false,
            sealed_garbage: Vec::new(),
            erasable: Vec::new(),
            garbage_since_ms: None,
            sealed_parts: Vec::new(),
            sealed_floor: None,
            parts_since_ms: None,
            persisted,
            recovery_from: 0,
            last_tick_ms: now_ms,
            next_pressure_ms: now_ms,
            next_expire_ms: now_ms,
            next_reserve_ms: now_ms,
            pins: VecDeque::new(),
        }
    }

    /// Writes a second that are let in; None: as many as come.
    pub fn paced_at(&self) -> Option<f64> {
        self.pace.rate()
    }

    pub fn admits(&mut self) -> bool {
        self.pace.admits()
    }

    /// A part of another shard's whole was appended here.
    pub fn noted_part(&mut self, now_ms: u64) {
        self.parts_since_ms.get_or_insert(now_ms);
    }

    /// Compaction forgets no element until the record that stands here is in files with its rows.
    pub fn keep_elements(&mut self, lsn: u64, pin: Pin) {
        self.pins.push_back((lsn, pin));
    }

    /// The position up to which RocksDB's files hold everything.
    /// What stands before may go; 0: nothing has been sealed yet, so nothing may.
    pub fn recovery_from(&self) -> Lsn {
        Lsn(self.recovery_from)
    }

    pub fn persisted(&self) -> u64 {
        self.persisted
    }

    /// Asks for a seal of all that is written by now; its number among `seals_persisted`.
    pub fn seal_now(&mut self) -> u64 {
        self.seal_wanted = true;
        self.seals + 1
    }

    /// Of how much that is copied in files are made, bytes.
    pub(super) fn copied_file_bytes(&self) -> usize {
        limits::COPIED_FILE_BYTES.min(self.seal_bytes as usize / 4)
    }

    /// No seal waits for files that are being made, nor takes those that are ready.
    pub(super) fn may_make_files(&self) -> bool {
        matches!(self.seal, Seal::Idle | Seal::Flushing)
    }

    /// Asked by who waits for it: then it is looked for often.
    pub fn seals_persisted(&mut self, now_ms: u64) -> u64 {
        if self.seal == Seal::Flushing {
            self.next_pressure_ms = self.next_pressure_ms.min(now_ms + AWAITED_EVERY_MS);
        }
        self.seals_persisted
    }

    pub fn expire_lag_ms(&self) -> u64 {
        self.expire_lag_ms
    }

    /// What is logged is about to be sealed: the less RocksDB lacks when the gate closes, the sooner it opens.
    pub(super) fn wants_applied(&self) -> bool {
        matches!(self.seal, Seal::Syncing | Seal::Closing)
    }

    pub fn is_idle(&self) -> bool {
        self.seal == Seal::Idle && !self.syncing && !self.reserving && !self.erasing
    }
}

impl Owner {
    /// What time alone brings: called every few milliseconds, and at least once a tick.
    pub fn tick(&mut self) -> Result<(), Fault> {
        self.ticked = true;
        let now_ms = self.clock.now_ms();
        for at in 0..self.shards.len() {
            let upkeep = &mut self.upkeep[at];
            let elapsed = now_ms.saturating_sub(upkeep.last_tick_ms);
            upkeep.last_tick_ms = now_ms;
            upkeep.pace.refill(elapsed);
            let pressure_due = now_ms >= upkeep.next_pressure_ms;
            // A follower deletes nothing by itself: its primary's log says when.
            let expires = self.active_expire && !self.published.follows();
            let expire_due = expires && now_ms >= upkeep.next_expire_ms && !upkeep.expiring;
            if pressure_due {
                self.measure(at, now_ms)?;
            }
            if expire_due {
                self.look_for_expired(at, now_ms);
            }
            self.reserve(at);
            if self.shards[at].accepts_writes() && self.writers_waiting(at) {
                self.gate_opened(at);
            }
        }
        Ok(())
    }

    /// Memtables of all shards are to be sealed now: at a shutdown.
    pub fn seal_all(&mut self) {
        for upkeep in &mut self.upkeep {
            upkeep.seal_wanted = true;
        }
    }

    pub fn upkeep_idle(&self) -> bool {
        self.upkeep.iter().all(Upkeep::is_idle)
    }

    fn measure(&mut self, at: usize, now_ms: u64) -> Result<(), Fault> {
        let shard = &mut self.shards[at];
        let failed = |error: StoreError| Fault::new("asking RocksDB how it is", error);
        let level = shard.data.store.pressure().map_err(failed)?.level();
        let memtable = shard.data.store.memtable_bytes().map_err(failed)?;
        let flushed = shard.data.store.flushed().map_err(failed)?;
        let upkeep = &mut self.upkeep[at];
        upkeep.next_pressure_ms = now_ms + PRESSURE_EVERY_MS;
        upkeep.pace.measure(level, now_ms);
        let data = &shard.data;
        let has_garbage = !data.slots.garbage().is_empty() || data.garbage.wants_seal(upkeep.persisted);
        upkeep.garbage_since_ms = has_garbage.then(|| upkeep.garbage_since_ms.unwrap_or(now_ms));
        let garbage_waits = upkeep.garbage_since_ms.is_some_and(|since| now_ms > since + GARBAGE_WAIT_MS);
        let parts_wait = upkeep.parts_since_ms.is_some_and(|since| now_ms > since + PARTS_WAIT_MS);
        if memtable >= upkeep.seal_bytes || garbage_waits || parts_wait {
            upkeep.seal_wanted = true;
        }
        if upkeep.seal == Seal::Flushing && flushed {
            self.sealed_is_persisted(at)?;
        }
        self.erase(at);
        self.give_space_back(at, now_ms);
        Ok(())
    }

    /// After the turn's commit: starts what the log's new state asks for.
    pub(super) fn after_commit(&mut self, at: usize) -> Result<(), Fault> {
        let now_ms = self.clock.now_ms();
        self.shards[at].settle();
        self.wholes_settled(at);
        self.advance_seal(at)?;
        let upkeep = &mut self.upkeep[at];
        let shard = &mut self.shards[at];
        if upkeep.syncing {
            return Ok(());
        }
        let wait_ms = match (upkeep.seal, shard.fsync()) {
            (Seal::Syncing | Seal::Closing, _) | (_, Fsync::Always) => 0,
            _ if shard.settled.is_wanted() => 0,
            (_, Fsync::Everysec) => SYNC_EVERY_MS,
            (_, Fsync::No) => SYNC_RARELY_MS,
        };
        if shard.log.unsynced_since_ms().is_some_and(|since| now_ms >= since + wait_ms)
            && let Some(job) = shard.log.sync_job()
        {
            upkeep.syncing = true;
            shard.counters.syncs += 1;
            self.flush_jobs
                .push_back(Box::new(move || Done::Upkeep { shard: at, event: Event::Synced(job.run()) }));
        }
        Ok(())
    }

    fn advance_seal(&mut self, at: usize) -> Result<(), Fault> {
        let upkeep = &mut self.upkeep[at];
        let shard = &mut self.shards[at];
        let intake = &mut self.follow[at].intake;
        upkeep.seal_wanted |= (shard.data.unsealed_bytes() + intake.bytes()) as u64 >= upkeep.seal_bytes;
        if upkeep.seal == Seal::Idle && upkeep.seal_wanted {
            upkeep.seal = Seal::Syncing;
        }
        if shard.settled.is_wanted() {
            shard.settled.hurry();
        }
        let synced = shard.log.durable() == shard.log.written();
        match upkeep.seal {
            // An empty log is synced too: nothing was written since the last seal.
            Seal::Syncing if synced && !intake.is_making() => {
                shard.close_gate();
                upkeep.seal = Seal::Closing;
            }
            // What is sealed can be taken back no more, so nothing of it may be.
            Seal::Closing if !shard.is_settled() => shard.settled.hurry(),
            Seal::Closing if shard.data.hot.is_clean() => {
                upkeep.sealed_garbage = shard.data.slots.garbage().to_vec();
                upkeep.sealed_parts = shard.data.parts_applied.clone();
                let floor = upkeep.wholes.floor();
                upkeep.sealed_floor = floor;
                if !shard.data.write_slots(shard.log.written().0, floor)? {
                    return Ok(());
                }
                upkeep.seal = Seal::Switching;
                let job = shard.data.store.seal_job(intake.hand_over());
                let run = move || Done::Upkeep { shard: at, event: Event::Sealed(job.run()) };
                self.flush_jobs.push_back(Box::new(run));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn upkeep_event(&mut self, at: usize, event: Event) -> Result<(), Fault> {
        match event {
            Event::Synced(result) => {
                let done = result.map_err(|error| Fault::new("syncing the log", error))?;
                let upkeep = &mut self.upkeep[at];
                upkeep.syncing = false;
                let shard = &mut self.shards[at];
                shard.sync_times.note(done.took);
                self.events.note(Watched::LogSync, done.took.as_nanos() as u64, self.clock.now_ms());
                shard.log.synced(done);
                if upkeep.seal == Seal::Syncing && !self.follow[at].intake.is_making() {
                    shard.close_gate();
                    upkeep.seal = Seal::Closing;
                }
                // All that follows from it is done at the end of the turn.
            }
            Event::Reserved(result) => {
                let shard = &mut self.shards[at];
                let upkeep = &mut self.upkeep[at];
                upkeep.reserving = false;
                shard.set_log_full(result.is_err());
                match result {
                    Ok(done) => shard.log.reserved(done),
                    Err(error) => {
                        tracing::warn!(shard = shard.id.0, %error, "no room for the next log segment");
                        upkeep.next_reserve_ms = self.clock.now_ms() + RESERVE_AGAIN_MS;
                    }
                }
                let open = shard.accepts_writes() || shard.is_full();
                if open && self.writers_waiting(at) {
                    self.gate_opened(at);
                }
            }
            Event::Sealed(result) => {
                let SealDone { sealed, files, not_taken } =
                    result.map_err(|error| Fault::new("sealing memtables", error))?;
                self.follow[at].intake.handed_over(files);
                if let Some(not_taken) = not_taken {
                    self.not_taken(at, not_taken);
                }
                let upkeep = &mut self.upkeep[at];
                self.shards[at].open_gate();
                upkeep.seal = match sealed {
                    Sealed::Done => Seal::Flushing,
                    Sealed::Later => Seal::Idle,
                };
                if sealed == Sealed::Done {
                    self.shards[at].data.sealed();
                    upkeep.seal_wanted = false;
                    upkeep.seals += 1;
                    upkeep.garbage_since_ms = None;
                    upkeep.parts_since_ms = None;
                    self.shards[at].counters.memtable_switches += 1;
                }
                self.gate_opened(at);
            }
            Event::FilesMade(made) => self.files_made(at, made),
            Event::Erased(incarnations, result) => {
                let upkeep = &mut self.upkeep[at];
                upkeep.erasing = false;
                match result {
                    Ok(Erased::Done) => self.shards[at].data.slots.forget_garbage(&incarnations),
                    Ok(Erased::Later) => upkeep.erasable = incarnations,
                    Err(error) => {
                        tracing::error!(shard = self.shards[at].id.0, %error, "erasing flushed data failed");
                    }
                }
            }
            Event::SpaceGivenBack(result) => self.space_given_back(at, result),
            Event::Due(result) => {
                self.upkeep[at].expiring = false;
                match result {
                    Ok(due) => self.expire(at, due),
                    Err(error) => {
                        tracing::error!(shard = self.shards[at].id.0, %error, "reading the time index failed")
                    }
                }
            }
        }
        Ok(())
    }

    /// RocksDB has written what was sealed: older log, wholes and incarnations are free to go.
    fn sealed_is_persisted(&mut self, at: usize) -> Result<(), Fault> {
        let shard = &mut self.shards[at];
        let persisted = shard
            .data
            .store
            .complete_lsn()
            .map_err(|error| Fault::new("reading the persisted LSN", error))?;
        let persisted = persisted.unwrap_or(0);
        assert!(persisted <= shard.settled.upto(), "RocksDB never holds what the log may lose");
        let upkeep = &mut self.upkeep[at];
        upkeep.persisted = persisted;
        while upkeep.pins.front().is_some_and(|(lsn, _)| *lsn <= persisted) {
            upkeep.pins.pop_front();
        }
        upkeep.seal = Seal::Idle;
        upkeep.seals_persisted = upkeep.seals;
        upkeep.erasable.append(&mut upkeep.sealed_garbage);
        let keep_from = upkeep.sealed_floor.unwrap_or(u64::MAX).min(persisted + 1);
        upkeep.recovery_from = keep_from;
        shard.log.retain(Lsn(keep_from), self.clock.now_ms());
        let participant = shard.id;
        for (home, number) in std::mem::take(&mut upkeep.sealed_parts) {
            let core = self.owners[usize::from(home.0)];
            let step = Step::PartsPersisted { home, participant, number };
            self.outgoing.push((core, Message::Step(step)));
        }
        Ok(())
    }

    /// Lets old log of this core's shards go that nobody needs; how many segments stay that end before `before`.
    pub fn purge_logs(&mut self, before: u64) -> u64 {
        let mut stay = 0;
        for (shard, upkeep) in self.shards.iter_mut().zip(&self.upkeep) {
            stay += shard.log.purge(upkeep.recovery_from(), Lsn(before));
        }
        stay as u64
    }

    fn reserve(&mut self, at: usize) {
        let upkeep = &mut self.upkeep[at];
        if !upkeep.reserving
            && self.clock.now_ms() >= upkeep.next_reserve_ms
            && let Some(job) = self.shards[at].log.reserve_job()
        {
            upkeep.reserving = true;
            let run = move || Done::Upkeep { shard: at, event: Event::Reserved(job.run()) };
            self.jobs.push_back((Needs::Nothing, Box::new(run)));
        }
    }

    fn erase(&mut self, at: usize) {
        let upkeep = &mut self.upkeep[at];
        if upkeep.erasing
            || upkeep.erasable.is_empty()
            || self.away_running > 0
            || self.reading.load(Ordering::Acquire) > 0
        {
            return;
        }
        upkeep.erasing = true;
        let incarnations = std::mem::take(&mut upkeep.erasable);
        let job = self.shards[at].data.store.erase_job(incarnations.clone());
        let run = move || Done::Upkeep { shard: at, event: Event::Erased(incarnations, job.run()) };
        self.jobs.push_back((Needs::Nothing, Box::new(run)));
    }

    fn look_for_expired(&mut self, at: usize, now_ms: u64) {
        let upkeep = &mut self.upkeep[at];
        upkeep.next_expire_ms = now_ms + EXPIRE_EVERY_MS;
        if self.paused_writes || self.keeps_expired || !self.shards[at].accepts_writes() {
            return;
        }
        upkeep.expiring = true;
        let reader = self.shards[at].data.store.reader();
        let followed = self.followed_data(self.shards[at].id);
        let run = move || Done::Upkeep { shard: at, event: Event::Due(due(&reader, &followed, now_ms)) };
        self.jobs.push_back((Needs::Nothing, Box::new(run)));
    }

    /// Deletes the keys whose time has come, through the log; what has changed since is left alone.
    fn expire(&mut self, at: usize, due: Vec<DueKey>) {
        if self.keeps_expired {
            return;
        }
        let now_ms = self.clock.now_ms();
        let behind = due.len() >= EXPIRE_BATCH;
        if behind {
            self.upkeep[at].next_expire_ms = now_ms;
        }
        let oldest_ms = due.first().filter(|_| behind).map(|first| now_ms.saturating_sub(first.expire_ms));
        self.upkeep[at].expire_lag_ms = oldest_ms.unwrap_or(0);
        for key in due {
            let shard = &self.shards[at];
            if !shard.accepts_writes() || !shard.log.has_room() {
                return;
            }
            let slot_of = |table| self.hash_of(table).slot_of(&key.name);
            let Some((table, slot)) = shard.data.slots.place_of(key.incarnation, slot_of) else {
                let shard = &mut self.shards[at];
                shard.data.forget_due(key.expire_ms, key.incarnation, key.name);
                continue;
            };
            let shard = &self.shards[at];
            if !shard.data.slots.is_placed(slot) || !self.is_own(table, slot) {
                continue;
            }
            let shard = &mut self.shards[at];
            if !shard.latches.is_empty() && shard.latches.blocks(table, &key.name, true) {
                continue;
            }
            match shard.data.peek_row(key.incarnation, &key.name) {
                Some(Some(row)) if row.expire_ms == Some(key.expire_ms) && row.expired(now_ms) => {
                    let change = Change::Delete;
                    let name = key.name.clone();
                    let effect = Effect { table, slot, name, change, existed: Some(true) };
                    shard.join(&[effect], Origin::EXPIRY, now_ms);
                    self.stats.expired_keys += 1;
                }
                Some(Some(row)) if row.field_expire_ms == Some(key.expire_ms) => {
                    // The entry stays: if more fields are due than one round deletes, the next finds it again.
                    self.drop_expired_fields(at, table, &key.name);
                    continue;
                }
                Some(_) => {}
                // Not in memory after all: the next round finds it again.
                None => continue,
            }
            let shard = &mut self.shards[at];
            shard.data.forget_due(key.expire_ms, key.incarnation, key.name);
        }
    }

    /// Runs what deletes the fields of a hash that are past their end, as a command of nobody's connection.
    fn drop_expired_fields(&mut self, at: usize, table: TableId, name: &Bytes) {
        let (shard, line) = (self.shards[at].id, LineId { core: self.setting.core, conn: NOBODY });
        let span = |start: usize, len: usize| Span { start: start as u32, len: len as u32 };
        let spans = [span(0, 0), span(0, name.len())];
        let call = Call { command: &DROP_EXPIRED, table, shard, args: Args::new(name, &spans) };
        if let Some((reply, _)) = self.run(line, 0, &call) {
            self.note_dropped(&reply);
        }
    }

    pub(super) fn note_dropped(&mut self, reply: &Reply) {
        if let Reply::Int(fields) = reply {
            self.stats.expired_fields += fields.unsigned_abs();
        }
    }
}

/// The keys that are due first, except those of data that `others` let expire.
fn due(reader: &Reader, others: &FxHashSet<Incarnation>, now_ms: u64) -> Result<Vec<DueKey>, StoreError> {
    let view = reader.view();
    let mut scan = view.due(now_ms);
    let mut due = Vec::new();
    while due.len() < EXPIRE_BATCH
        && let ScanStep::Item(item) = scan.next()?
    {
        if others.contains(&item.incarnation) {
            continue;
        }
        // Brings the row into memory, where the core will look at it.
        view.row(item.incarnation, item.name)?;
        due.push(DueKey {
            expire_ms: item.expire_ms,
            incarnation: item.incarnation,
            name: Bytes::copy_from_slice(item.name),
        });
    }
    Ok(due)
}

const _: () = assert!(EXPIRE_BATCH <= limits::STEPS_PER_TURN_MAX as usize, "a round fits a turn");

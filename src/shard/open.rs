//! From a data directory to shards that can serve: what a crash has left is made whole first.
//!
//! In two passes. `recover` looks at all logs together, because a transaction over several shards must
//! be whole or absent everywhere: what depends on something lost is cut off, missing parts are noted.
//! `replay` then opens each shard on its own core, with what its log has and its files have not.

use super::data::Data;
use super::hot::Hot;
use super::mesh::ShardWork;
use super::settled::{Settled, Settlement};
use super::shard::Shard;
use super::slots::SlotTable;
use super::upkeep::Upkeep;
use super::wholes::Wholes;
use crate::binlog::{self, Cut, Disk, LogError, LogOptions, Lsn, Participant, Record, Resume, Touch, Txn};
use crate::clock::Clock;
use crate::config::{Config, Fsync};
use crate::error::Fault;
use crate::limits::{self, Ledger};
use crate::slot::placement::Placement;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::effects::{BodyReader, Operation, SlotWide};
use crate::store::{SharedMemory, Store, StoreError, StoreOptions};
use bytes::Bytes;
use std::borrow::Borrow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What all shards are opened with.
pub struct Opening<'a> {
    /// Where the logs are.
    pub disk: Arc<dyn Disk>,
    pub ledger: &'a Ledger,
    pub memory: &'a SharedMemory,
    pub config: &'a Config,
    /// How many shards there are, and which slots lie on which.
    pub placement: &'a Placement,
}

/// A shard whose fate is decided and whose log is not yet replayed. Goes to the shard's core.
pub struct ShardPlan {
    pub shard: ShardId,
    store: Store,
    disk: Arc<dyn Disk>,
    log: LogOptions,
    resume: Resume,
    cut_before: Option<Lsn>,
    placement: Placement,
    missing: Vec<Missing>,
    wholes: Wholes,
    parts_applied: Vec<(ShardId, u64)>,
}

/// A part that its whole names and its shard does not have.
struct Missing {
    home: ShardId,
    home_lsn: u64,
    number: u64,
    body: Bytes,
}

/// What the logs say of transactions, by shard.
#[derive(Default)]
pub struct Seen {
    /// The first LSN that is not there.
    pub end: u64,
    /// Where the log must be cut, for its own sake.
    pub cut: Option<Cut>,
    parts: Vec<Part>,
    wholes: Vec<Whole>,
}

struct Part {
    first: u64,
    home: ShardId,
    home_lsn: u64,
    number: u64,
}

struct Whole {
    first: u64,
    lsn: u64,
    participants: Vec<Participant>,
    body: Bytes,
}

/// Opens every store and settles transactions over several shards.
pub fn recover(opening: &Opening<'_>, dir_of: impl Fn(ShardId) -> PathBuf) -> Result<Vec<ShardPlan>, Fault> {
    let count = opening.placement.shard_count();
    let mut plans = Vec::new();
    for shard in (0..count).map(ShardId) {
        plans.push(open_store(opening, shard, dir_of(shard))?);
    }
    if count > 1 {
        settle_transactions(&mut plans)?;
    }
    Ok(plans)
}

fn open_store(opening: &Opening<'_>, shard: ShardId, dir: PathBuf) -> Result<ShardPlan, Fault> {
    let fault = |error: &dyn std::fmt::Display| Fault::new(format!("opening shard {}", shard.0), error);
    let log_dir = dir.join("log");
    std::fs::create_dir_all(&log_dir).map_err(|error| fault(&error))?;
    let options = StoreOptions {
        create: true,
        memtable_target_bytes: seal_bytes(opening.ledger) as usize,
        direct_io: false,
    };
    let store = Store::open(&dir.join("db"), &options, opening.memory).map_err(|error| fault(&error))?;
    let persisted = store.persisted_lsn().map_err(|error| fault(&error))?.unwrap_or(0);
    let complete = store.complete_lsn().map_err(|error| fault(&error))?.unwrap_or(0);
    let mut parts_applied = Vec::new();
    for home in (0..opening.placement.shard_count()).map(ShardId) {
        match store.part_applied(home).map_err(|error| fault(&error))? {
            0 => {}
            number => parts_applied.push((home, number)),
        }
    }
    let config = opening.config;
    let log = LogOptions {
        segment_bytes: config.binlog_segment_bytes,
        piece_bytes: LogOptions::PIECE_BYTES.min(config.binlog_segment_bytes as usize / 8),
        turn_bytes_max: limits::LOG_TURN_MAX_BYTES.min(config.binlog_segment_bytes / 2),
        retain_bytes: config.binlog_retention_bytes,
        retain_hours: u64::from(config.binlog_retention_hours),
        ..LogOptions::new(log_dir, shard)
    };
    Ok(ShardPlan {
        shard,
        store,
        disk: opening.disk.clone(),
        log,
        resume: Resume { after: Lsn(complete), persisted: Lsn(persisted) },
        cut_before: None,
        placement: opening.placement.clone(),
        missing: Vec::new(),
        wholes: Wholes::default(),
        parts_applied,
    })
}

/// Memtables of one shard are sealed at this size: half its share, so that one can be written out
/// while the next fills; and never so large that inserts become dear.
fn seal_bytes(ledger: &Ledger) -> u64 {
    (ledger.per_shard(ledger.memtables) / 2).min(limits::MEMTABLE_SEAL_MAX_BYTES)
}

fn settle_transactions(plans: &mut [ShardPlan]) -> Result<(), Fault> {
    let mut seen = Vec::new();
    for plan in plans.iter() {
        seen.push(look(plan)?);
    }
    let ends = cut_what_depends_on_lost(&seen);
    for (at, plan) in plans.iter_mut().enumerate() {
        if ends[at] < seen[at].end {
            plan.cut_before = Some(Lsn(ends[at]));
        }
    }
    for (home, logs) in seen.iter().enumerate() {
        for whole in logs.wholes.iter().filter(|whole| whole.lsn < ends[home]) {
            settle_whole(plans, &seen, &ends, ShardId(home as u16), whole);
        }
    }
    let applied: Vec<_> = plans.iter().map(|plan| (plan.shard, plan.parts_applied.clone())).collect();
    for (participant, parts) in applied {
        for (home, number) in parts {
            let wholes = &mut plans[usize::from(home.0)].wholes;
            wholes.resume(participant, number);
            wholes.persisted(participant, number);
        }
    }
    Ok(())
}

fn look(plan: &ShardPlan) -> Result<Seen, Fault> {
    let fault = |error: &dyn std::fmt::Display| {
        Fault::new(format!("reading the log of shard {}", plan.shard.0), error)
    };
    let floor = plan.store.whole_floor().map_err(|error| fault(&error))?;
    look_at(&*plan.disk, &plan.log, plan.resume, floor).map_err(|error| fault(&error))
}

/// Reads a log as a start does, for what it says of transactions. Changes nothing. `floor`: the oldest whole
/// that a participant may lack; 0: none.
pub fn look_at(disk: &dyn Disk, log: &LogOptions, resume: Resume, floor: u64) -> Result<Seen, LogError> {
    let after = match floor {
        0 => resume.after,
        floor => resume.after.min(Lsn(floor).before()),
    };
    let mut seen = Seen::default();
    let mut note = |record: &Record<'_>| {
        match record.txn {
            Some(Txn::Part { home, home_lsn, number }) => {
                seen.parts.push(Part {
                    first: record.first.0,
                    home: *home,
                    home_lsn: *home_lsn,
                    number: *number,
                });
            }
            Some(Txn::Whole { participants }) => seen.wholes.push(Whole {
                first: record.first.0,
                lsn: record.lsn.0,
                participants: participants.clone(),
                body: Bytes::copy_from_slice(record.body),
            }),
            None => {}
        }
        Ok(())
    };
    let found = binlog::examine(disk, log, Resume { after, ..resume }, None, &mut note)?;
    seen.end = found.last.0.max(resume.persisted.0) + 1;
    seen.cut = found.cut;
    Ok(seen)
}

/// Cuts in front of what another log has not got: a part whose whole is gone, and a whole that was made when
/// another shard's log reached further. So what is left is a state that the node as a whole was in. Until
/// nothing changes: a cut may take with it what others need. All that is cut was not settled. The first LSN
/// that is lost, by shard.
pub fn cut_what_depends_on_lost<S: Borrow<Seen>>(seen: &[S]) -> Vec<u64> {
    let mut ends: Vec<u64> = seen.iter().map(|seen| seen.borrow().end).collect();
    loop {
        let mut changed = false;
        for (at, logs) in seen.iter().map(S::borrow).enumerate() {
            let is_lost = |shard: ShardId, lsn: u64| lsn >= ends[usize::from(shard.0)];
            let part = logs.parts.iter().find(|part| is_lost(part.home, part.home_lsn));
            let depends = |whole: &&Whole| whole.participants.iter().any(|of| is_lost(of.shard, of.after.0));
            let whole = logs.wholes.iter().find(depends);
            let first = part.map(|part| part.first).into_iter().chain(whole.map(|whole| whole.first)).min();
            if let Some(lsn) = first.filter(|lsn| *lsn < ends[at]) {
                ends[at] = lsn;
                changed = true;
            }
        }
        if !changed {
            return ends;
        }
    }
}

fn settle_whole(plans: &mut [ShardPlan], seen: &[Seen], ends: &[u64], home: ShardId, whole: &Whole) {
    let mut open = false;
    for part in &whole.participants {
        let at = usize::from(part.shard.0);
        let plan = &mut plans[at];
        let persisted =
            plan.parts_applied.iter().find(|(of, _)| *of == home).map_or(0, |(_, number)| *number);
        let in_log = seen[at]
            .parts
            .iter()
            .any(|have| have.home == home && have.number == part.number && have.first < ends[at]);
        if part.number > persisted {
            open = true;
            if !in_log {
                let body = whole.body.clone();
                plan.missing.push(Missing { home, home_lsn: whole.lsn, number: part.number, body });
            }
        }
        plans[usize::from(home.0)].wholes.resume(part.shard, part.number);
    }
    if open {
        plans[usize::from(home.0)].wholes.open(whole.lsn, &whole.participants);
    }
}

/// What of a whole falls on one shard.
fn share(
    body: Bytes,
    is_mine: &dyn Fn(&Operation) -> bool,
) -> Result<ShardWork, Box<dyn std::error::Error + Send + Sync>> {
    let reader = BodyReader::new(body)?;
    let origin = reader.origin();
    let mut operations: Vec<Operation> = Vec::new();
    for operation in reader {
        let operation = operation?;
        let is_mine = match &operation {
            // Every shard's share says the same: one of them is ours.
            Operation::SlotWide(SlotWide::SwapTables { .. }) => !operations.contains(&operation),
            other => is_mine(other),
        };
        if is_mine {
            operations.push(operation);
        }
    }
    Ok(ShardWork { origin, operations })
}

/// Whether an operation of a whole is its home's own: a whole touches the home's slots alone. Where slots lie now does
/// not say it, for they may have moved since. A flush that touches none of a shard's slots has changed nothing there.
fn is_touched(touches: &[Touch], operation: &Operation) -> bool {
    let has = |of: TableId, slot: Slot| touches.iter().any(|touch| (touch.table, touch.slot) == (of, slot));
    match operation {
        Operation::Effect(effect) => has(effect.table, effect.slot),
        Operation::SlotWide(SlotWide::Flush { table, slots }) => {
            let hit = |touch: &Touch| slots.iter().any(|range| range.holds(touch.slot));
            touches.iter().any(|touch| touch.table == *table && hit(touch))
        }
        Operation::SlotWide(SlotWide::SwapTables { .. }) => true,
        Operation::SlotWide(SlotWide::Adopt { table, slot, .. }) => has(*table, *slot),
    }
}

/// Whether an operation of a whole falls on this shard, as slots lie now: so they lay when a part that is missing was
/// made, since no slot moves before all parts are where they cannot be lost.
fn lies_on(placement: &Placement, shard: ShardId, operation: &Operation) -> bool {
    let lies = |slot: Slot| slot.0 < placement.slots() && placement.shard_of(slot) == shard;
    match operation {
        Operation::Effect(effect) => lies(effect.slot),
        // Of one shard's slots each.
        Operation::SlotWide(SlotWide::Flush { slots, .. }) => slots.iter().any(|range| lies(range.first)),
        Operation::SlotWide(SlotWide::SwapTables { .. }) => true,
        Operation::SlotWide(SlotWide::Adopt { slot, .. }) => lies(*slot),
    }
}

/// Rows and elements gathered before they are given to RocksDB during a replay.
const REPLAY_BATCH: usize = 8192;

/// Opens a shard on its core: replays, cuts, adds what was missing. Blocks: nothing is served yet.
pub fn replay(
    plan: ShardPlan,
    ledger: &Ledger,
    fsync: Fsync,
    settlement: Arc<Settlement>,
    clock: &mut Clock,
) -> Result<(Shard, Upkeep), Fault> {
    let id = plan.shard;
    let fault = |error: &dyn std::fmt::Display| Fault::new(format!("recovering shard {}", id.0), error);
    let hot_bytes = ledger.per_shard(ledger.hot_cache);
    let mut data = stored(plan.store, plan.placement.slots(), plan.parts_applied, hot_bytes)
        .map_err(|error| fault(&error))?;
    let mut records = 0u64;
    let mut show = |record: &Record<'_>| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        records += 1;
        data.follow(record.touches);
        let body = Bytes::copy_from_slice(record.body);
        let (lsn, time_ms) = (record.lsn.0, record.time_ms);
        match record.txn {
            Some(Txn::Whole { .. }) => {
                let work = share(body, &|operation| is_touched(record.touches, operation))?;
                work.operations.iter().for_each(|operation| data.show_operation(operation, lsn, time_ms));
            }
            txn => {
                if let Some(Txn::Part { home, number, .. }) = txn {
                    data.note_part(*home, *number);
                }
                for operation in BodyReader::new(body)? {
                    data.show_operation(&operation?, lsn, time_ms);
                }
            }
        }
        if data.hot.written().len() >= REPLAY_BATCH {
            settle(&mut data, lsn)?;
        }
        Ok(())
    };
    let opened = binlog::open(plan.disk, plan.log, plan.resume, plan.cut_before, &mut show);
    let opened = opened.map_err(|error| fault(&error))?;
    settle(&mut data, opened.last.0).map_err(|error| fault(&error))?;
    let mut writer = opened.writer;
    data.slots.set_term(term_of_own(&data.slots, opened.term, opened.term_kept, &mut writer));
    if let Some(cut) = &opened.cut {
        tracing::warn!(shard = id.0, lsn = cut.lsn.0, file = %cut.path.display(), offset = cut.offset, "torn tail of the log cut");
    }
    if opened.ahead {
        tracing::warn!(
            shard = id.0,
            lsn = opened.last.0,
            "the log ends before what RocksDB holds: going on behind it"
        );
    }
    if records > 0 {
        tracing::info!(
            shard = id.0,
            records,
            from = plan.resume.after.0 + 1,
            to = opened.last.0,
            "log replayed"
        );
    }
    note_garbage(&mut data).map_err(|error| fault(&error))?;
    clock.tick();
    let now_ms = clock.now_ms();
    let mut upkeep = Upkeep::new(plan.wholes, seal_bytes(ledger), plan.resume.after.0, now_ms);
    if !data.parts_applied.is_empty() {
        upkeep.noted_part(now_ms);
    }
    let settled = Settled::new(id, settlement, writer.durable().0);
    data.slots.place(&plan.placement, id);
    let mut shard = Shard::new(id, data, writer, settled, fsync, seal_bytes(ledger));
    // Written with the first turn, when all shards of the node have been replayed, and so cut: a log that
    // grew before would seem to hold the wholes it has lost.
    for part in plan.missing {
        let lies_here = |operation: &Operation| lies_on(&plan.placement, id, operation);
        let work = share(part.body, &lies_here).map_err(|error| fault(&error))?;
        let txn = Txn::Part { home: part.home, home_lsn: part.home_lsn, number: part.number };
        let lsn = shard.join_work(&work, &[], Some(txn), now_ms);
        shard.data.note_part(part.home, part.number);
        shard.settled.depends(lsn, part.home, part.home_lsn, now_ms);
        tracing::info!(
            shard = id.0,
            home = part.home.0,
            home_lsn = part.home_lsn,
            "missing part of a transaction added"
        );
    }
    Ok((shard, upkeep))
}

/// The term of this node's own records: no slot's record may have had it with the same index and another
/// content. So a shard that has followed another node begins a new one.
fn term_of_own(slots: &SlotTable, term: u64, kept: bool, log: &mut binlog::Writer) -> u64 {
    let newest = slots.newest_term();
    let followed = slots.positions().any(|(_, _, state)| state.term != term);
    if newest <= term && !(kept && followed) {
        return term;
    }
    let term = binlog::next_term(newest.max(term), fastrand::u64(..));
    log.begin_term(term);
    term
}

/// The shard as RocksDB's files have it.
fn stored(store: Store, slots: u16, parts: Vec<(ShardId, u64)>, hot_bytes: u64) -> Result<Data, StoreError> {
    let next = store.next_incarnation()?.max(store.beyond_files()?);
    let mut table = SlotTable::new(slots, next, 1);
    for entry in store.slot_entries()? {
        table.restore(
            entry.table,
            entry.slot,
            entry.incarnation,
            entry.next_index,
            entry.term,
            entry.keys_estimate as i64,
        );
    }
    let mut data = Data::new(store, table, Hot::new(hot_bytes));
    data.parts_applied = parts;
    Ok(data)
}

/// Gives RocksDB what was gathered, waiting for it if need be.
fn settle(data: &mut Data, position: u64) -> Result<(), Fault> {
    loop {
        data.apply_replayed(position)?;
        if !data.is_stalled() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the files hold of incarnations that no slot uses is garbage of an earlier life.
fn note_garbage(data: &mut Data) -> Result<(), StoreError> {
    let (used, known) = (data.slots.incarnations(), data.slots.garbage().to_vec());
    for incarnation in data.store.reader().view().incarnations()? {
        if !used.contains(&incarnation) && !known.contains(&incarnation) {
            data.slots.add_garbage(incarnation);
        }
    }
    Ok(())
}

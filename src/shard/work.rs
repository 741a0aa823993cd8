//! What runs away from the core, on the blocking pool, and what comes back.
//!
//! A job owns what it needs: readers, copies of incarnations, the command's bytes. It never writes.

use super::large::Encoded;
use super::mesh::{Call, Fetched, GatherId, Message, OwnedCall};
use super::shard::Shard;
use super::slots::{NONE, SlotTable};
use crate::error::Stop;
use crate::limits;
use crate::resp::reply::Reply;
use crate::resp::stream::long_reply;
use crate::runtime::priority::give_way;
use crate::slot::{CoreId, ShardId, Slot, TableId};
use crate::store::row::{Row, Version};
use crate::store::tx::{Effect, KeyRef, Scope, Sink, Source, Subs, Tx, Visit};
use crate::store::{Cached, ElementKey, ElementRange, Incarnation, Reader, Step, StoreError, View};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub type Job = Box<dyn FnOnce() -> Done + Send>;

/// What a job answers, on the core that sent it.
pub enum Done {
    /// What a task's handler missed is in memory, for now.
    Warmed {
        task: usize,
        result: Result<(), StoreError>,
    },
    Ran {
        task: usize,
        outcome: Outcome,
    },
    Fetched {
        gather: GatherId,
        shard: ShardId,
        result: Result<Fetched, StoreError>,
    },
    Applied {
        shard: usize,
        applied: super::unapplied::Applied,
    },
    Scanned(super::scan::Scanned),
    Swept(super::sweep::Swept),
    /// A finished message for a core.
    Told {
        to: CoreId,
        message: Box<Message>,
    },
    Upkeep {
        shard: usize,
        event: super::upkeep::Event,
    },
}

/// How a command ended on a snapshot.
pub struct Outcome {
    pub call: OwnedCall,
    pub reply: Result<Reply, Stop>,
    pub effects: SmallVec<[Effect; 1]>,
    /// Instead of effects, if they are more than a turn may commit.
    pub large: Option<Encoded>,
}

/// Counts those who read a core's shards elsewhere: incarnations they may read are not erased.
pub struct Reading(Arc<AtomicUsize>);

impl Reading {
    pub fn begin(count: &Arc<AtomicUsize>) -> Reading {
        count.fetch_add(1, Ordering::AcqRel);
        Reading(count.clone())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A shard lent to a command that reads it on the pool, its keys latched.
pub struct Lent {
    pub shard: ShardId,
    pub reader: Reader,
    pub places: Places,
    pub reading: Reading,
}

/// Where slots' data is, and which index their next record has: a copy for a job.
pub struct Places {
    tables: FxHashMap<TableId, Vec<(Incarnation, u64)>>,
    few: SmallVec<[(TableId, Slot, Incarnation, u64); 4]>,
}

/// Below this many keys a job gets their slots one by one instead of whole tables.
const FEW_KEYS_MAX: usize = 64;

impl Places {
    pub fn of(slots: &SlotTable, keys: impl ExactSizeIterator<Item = (TableId, Slot)>) -> Places {
        let mut places = Places { tables: FxHashMap::default(), few: SmallVec::new() };
        let whole = keys.len() > FEW_KEYS_MAX;
        for (table, slot) in keys {
            if !whole {
                let state = slots.get(table, slot);
                places.few.push((table, slot, state.incarnation, state.next_index));
            } else {
                places.tables.entry(table).or_insert_with(|| slots.places(table));
            }
        }
        places
    }

    /// As `of`, for a job whose keys all lie in one table and need not be looked at here.
    pub fn of_table(slots: &SlotTable, table: TableId) -> Places {
        let tables = FxHashMap::from_iter([(table, slots.places(table))]);
        Places { tables, few: SmallVec::new() }
    }

    pub fn get(&self, table: TableId, slot: Slot) -> (Incarnation, u64) {
        if let Some(slots) = self.tables.get(&table) {
            return slots.get(usize::from(slot.0)).copied().unwrap_or((NONE, 1));
        }
        let found = self.few.iter().find(|place| (place.0, place.1) == (table, slot));
        found.map_or((NONE, 1), |place| (place.2, place.3))
    }
}

/// A command that runs whole on a snapshot taken after it arrived.
pub struct Away {
    call: OwnedCall,
    scope: Scope,
    reader: Reader,
    places: Places,
    /// Set once the snapshot is taken: a command that only reads needs its latches no longer.
    taken: Arc<AtomicBool>,
    /// Lets a reply be sent while it is made, as long as these are held.
    long_reply: Option<[Reading; 2]>,
}

/// What a handler has answered, and done.
type Run = (Result<Reply, Stop>, SmallVec<[Effect; 1]>);

impl Away {
    pub fn new(
        shard: &Shard,
        call: OwnedCall,
        scope: Scope,
        taken: Arc<AtomicBool>,
        long_reply: Option<[Reading; 2]>,
    ) -> Away {
        let places = places_of(shard, &call.call(), scope);
        Away { reader: shard.data.store.reader(), places, call, scope, taken, long_reply }
    }

    pub fn run(mut self) -> Outcome {
        let call = self.call.take();
        let (call, (reply, effects)) = match self.long_reply.take() {
            Some(held) => self.run_apart(call, held),
            None => {
                let run = self.reader.with_snapshot(|view| self.on_snapshot(view, &call, Sink::Hold).0);
                (call, run)
            }
        };
        if !super::large::is_large(&effects) {
            return Outcome { call, reply, effects, large: None };
        }
        let large = Encoded::new(call.command.origin(), &effects, &[]);
        Outcome { call, reply, effects: SmallVec::new(), large: Some(large) }
    }

    /// Runs a command in a thread of its own, which lives on while a long reply is made and sent.
    fn run_apart(self, call: OwnedCall, held: [Reading; 2]) -> (OwnedCall, Run) {
        let (answered, answer) = crossbeam_channel::bounded(1);
        let kept = call.call().to_owned();
        let work = move || {
            let _held = held;
            self.reader.with_snapshot(|view| {
                let (run, sink) = self.on_snapshot(view, &call, Sink::Offer);
                let Sink::Offered { shape, count } = sink else {
                    // Nobody waits only if the process is ending.
                    return drop(answered.send(run));
                };
                let (long, parts) = long_reply(shape, count);
                drop(answered.send((Ok(Reply::Long(Arc::new(long))), SmallVec::new())));
                give_way(limits::LONG_REPLY_NICE);
                if let ((Err(stop), _), _) = self.on_snapshot(view, &call, Sink::Parts(parts)) {
                    tracing::warn!(command = call.command.spec.name, ?stop, "a long reply was cut");
                }
            });
        };
        let started = std::thread::Builder::new().name("long-reply".into()).spawn(work);
        let run = match started {
            Ok(_) => answer.recv().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let failed =
            |why: String| (Err(Stop::Fault(format!("a thread for a long reply: {why}"))), SmallVec::new());
        (kept, run.unwrap_or_else(failed))
    }

    /// Answers also what has become of the sink.
    fn on_snapshot(&self, view: &View<'_>, call: &OwnedCall, sink: Sink) -> (Run, Sink) {
        self.taken.store(true, Ordering::Release);
        let mut source = SnapshotSource { view, places: &self.places };
        let mut tx = Tx::new(self.scope, &mut source);
        tx.sink = sink;
        let borrowed = call.call();
        let reply = (borrowed.command.run)(&mut tx, &borrowed.args);
        let sink = std::mem::replace(&mut tx.sink, Sink::Hold);
        let effects = if reply.is_ok() { tx.into_effects() } else { SmallVec::new() };
        ((reply, effects), sink)
    }
}

fn places_of(shard: &Shard, call: &Call<'_>, scope: Scope) -> Places {
    if call.args.len() > FEW_KEYS_MAX {
        // Commands that name a second table have few arguments.
        return Places::of_table(&shard.data.slots, call.table);
    }
    let keys = call.command.spec.keys.of(&call.args).expect("the planner has found the keys before");
    let keys: Vec<_> = keys
        .iter()
        .map(|key| (key.table.unwrap_or(call.table), scope.hash.slot_of(call.args.get(key.arg))))
        .collect();
    Places::of(&shard.data.slots, keys.into_iter())
}

/// A shard as of one moment.
pub struct SnapshotSource<'v, 'd> {
    pub view: &'v View<'d>,
    pub places: &'v Places,
}

fn read<T>(found: Result<Cached<T>, StoreError>) -> Result<Option<T>, Stop> {
    match found? {
        Cached::Found(value) => Ok(Some(value)),
        Cached::Absent => Ok(None),
        Cached::Miss => Err(ended_in_memory()),
    }
}

fn ended_in_memory() -> Stop {
    Stop::Fault("a read of every tier ended in memory".into())
}

impl Source for SnapshotSource<'_, '_> {
    fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
        match self.places.get(key.table, key.slot).0 {
            NONE => Ok(None),
            incarnation => read(self.view.row(incarnation, key.name)),
        }
    }

    fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        match self.places.get(key.table, key.slot).0 {
            NONE => Ok(None),
            incarnation => read(self.view.element(&ElementKey::new(incarnation, key.name, version, sub))),
        }
    }

    fn scan(
        &mut self,
        key: KeyRef<'_>,
        version: Version,
        subs: &Subs,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        match self.places.get(key.table, key.slot).0 {
            NONE => Ok(()),
            incarnation => {
                let range = ElementRange::new(incarnation, key.name, version, subs);
                match self.view.elements(&range, visit)? {
                    Step::Miss => Err(ended_in_memory()),
                    Step::Item(()) | Step::End => Ok(()),
                }
            }
        }
    }

    fn next_index(&mut self, table: TableId, slot: Slot) -> u64 {
        self.places.get(table, slot).1
    }

    fn idle_seconds(&mut self, _key: KeyRef<'_>) -> u64 {
        0
    }
}

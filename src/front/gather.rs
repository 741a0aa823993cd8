//! The coordinator of a command on several shards: latch everywhere, fetch, compute once, commit, release.
//!
//! A machine without sockets or cores: steps go out, their answers come in, one reply results. First
//! all shards are tried at once without waiting; if one is busy everything is given back and the
//! latches are taken in ascending order, so that two coordinators cannot wait for each other.

use super::WholeTables;
use super::giant::Compute;
use super::node::SlotMap;
use super::route;
use crate::command::{KeyArgs, flag};
use crate::error::{ClientError, Stop};
use crate::limits;
use crate::resp::encode::Protocol;
use crate::resp::reply::Reply;
use crate::shard::latch::Names;
use crate::shard::mesh::{
    self, Computed, Fetch, Fetched, GatherId, OwnedCall, Planned, ShardWork, Step, StepDone,
};
use crate::slot::assignment::Assignment;
use crate::slot::{ShardId, Slot, TableId, set};
use crate::store::effects::{Operation, Origin, SlotRange, SlotWide};
use crate::store::row::{Row, Version};
use crate::store::tx::{Effect, KeyRef, Scope, Source, Subs, Tx, Visit};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to be done once everything is latched.
enum Plan {
    Command(OwnedCall),
    Tables(WholeTables),
    /// The command has gone to the pool.
    Gone,
}

/// How a coordinator goes on.
pub enum Next {
    Wait,
    /// On the pool, then `computed`.
    Compute(Box<Compute>),
    Done(Reply),
}

#[derive(Clone, Debug)]
enum Phase {
    /// All shards were asked at once.
    Trying {
        outstanding: usize,
        busy: bool,
    },
    /// Latches are taken in order; this many are held.
    Ordered {
        held: usize,
    },
    /// On the pool. Once all is `taken` that a later write could change, readers need no latches.
    Computing {
        taken: Arc<AtomicBool>,
    },
    Committing {
        outstanding: usize,
    },
}

struct Share {
    shard: ShardId,
    names: Names,
    held: bool,
    /// Where its log stood when it was latched.
    after: u64,
}

pub struct Gather {
    id: GatherId,
    plan: Plan,
    /// Ascending.
    shares: Vec<Share>,
    exclusive: bool,
    fetch: Fetch,
    phase: Phase,
    fetched: Vec<Fetched>,
    reply: Option<Reply>,
    /// Of the connection that waits for the reply.
    protocol: Protocol,
}

/// What a coordinator may look at.
pub struct Surroundings<'a> {
    pub map: &'a SlotMap,
    /// Of no command's table, and with the usual hash: `scope_in` makes a command's.
    pub scope: Scope,
    /// Names that FLUSHALL covers.
    pub tables: u32,
    /// In sharding mode: which slots are this node's to write.
    pub assigned: Option<&'a Assignment>,
}

impl Surroundings<'_> {
    fn scope_in(&self, table: TableId) -> Scope {
        let usual = self.scope.hash;
        let hash = self.assigned.map_or(usual, |assigned| assigned.hash_of(table, usual));
        Scope { table, hash, ..self.scope }
    }
}

impl Gather {
    pub fn command(
        id: GatherId,
        call: OwnedCall,
        keys: &KeyArgs,
        protocol: Protocol,
        around: &Surroundings<'_>,
    ) -> Gather {
        let mut by_shard: BTreeMap<ShardId, Vec<(TableId, Bytes)>> = BTreeMap::new();
        let (args, hash) = (call.call().args, around.scope_in(call.table).hash);
        for key in keys {
            let name = args.get(key.arg);
            let shard = route::shard_of(around.map, hash, name);
            let table = key.table.unwrap_or(call.table);
            by_shard.entry(shard).or_default().push((table, Bytes::copy_from_slice(name)));
        }
        let spec = &call.command.spec;
        let exclusive = spec.has(flag::WRITE);
        let fetch = match () {
            () if spec.has(flag::ANY_VALUES) => Fetch::Reader,
            () if spec.has(flag::WHOLE_VALUES) => Fetch::Values,
            () => Fetch::Rows,
        };
        let shares = by_shard.into_iter().map(|(shard, keys)| (shard, Names::Keys(keys)));
        Gather { protocol, ..Gather::new(id, shares, exclusive, fetch, Plan::Command(call)) }
    }

    /// A command that may read any key of its table, and write those that it names.
    pub fn over_table(
        id: GatherId,
        call: OwnedCall,
        protocol: Protocol,
        around: &Surroundings<'_>,
    ) -> Gather {
        let exclusive = call.command.spec.has(flag::WRITE);
        let shares = table_shares(around.map, call.table).into_iter();
        Gather { protocol, ..Gather::new(id, shares, exclusive, Fetch::Reader, Plan::Command(call)) }
    }

    /// A giant command, whose keys were found on the pool.
    pub fn giant(id: GatherId, planned: Planned, protocol: Protocol) -> Gather {
        let Planned { call, shares } = planned;
        let exclusive = call.command.spec.has(flag::WRITE);
        let plan = Plan::Command(call);
        Gather { protocol, ..Gather::new(id, shares.into_iter(), exclusive, Fetch::Reader, plan) }
    }

    pub fn tables(id: GatherId, change: WholeTables, around: &Surroundings<'_>) -> Gather {
        let names = match change {
            WholeTables::Flush { table: Some(table) } => Names::Table(table),
            WholeTables::Flush { table: None } | WholeTables::Swap { .. } => Names::Shard,
        };
        let shares = around.map.shards().map(|shard| (shard, names.clone()));
        Gather::new(id, shares, true, Fetch::Nothing, Plan::Tables(change))
    }

    fn new(
        id: GatherId,
        shares: impl Iterator<Item = (ShardId, Names)>,
        exclusive: bool,
        fetch: Fetch,
        plan: Plan,
    ) -> Gather {
        let shares: Vec<_> =
            shares.map(|(shard, names)| Share { shard, names, held: false, after: 0 }).collect();
        let phase = Phase::Trying { outstanding: shares.len(), busy: false };
        let (fetched, reply, protocol) = (Vec::new(), None, Protocol::default());
        Gather { id, plan, shares, exclusive, fetch, phase, fetched, reply, protocol }
    }

    /// The first steps: try everywhere at once.
    pub fn start(&self, mut send: impl FnMut(ShardId, Step)) {
        for share in &self.shares {
            send(share.shard, self.acquire(share, false));
        }
    }

    /// Takes an answer. Steps that follow from it go to `send`.
    pub fn on(
        &mut self,
        done: StepDone,
        around: &Surroundings<'_>,
        send: &mut dyn FnMut(ShardId, Step),
    ) -> Next {
        let failed = matches!(done, StepDone::Failed { .. });
        let granted = matches!(done, StepDone::Acquired { .. });
        match done {
            StepDone::Acquired { shard, fetched, after, .. } => {
                let share = self.share(shard);
                (share.held, share.after) = (true, after);
                self.fetched.push(fetched);
            }
            StepDone::Failed { shard, reply, .. } => {
                // A failed fetch holds its latches, a failed commit too; what it would have answered is void.
                self.share(shard).held = true;
                self.reply = Some(reply);
            }
            StepDone::Busy { .. } | StepDone::Committed { .. } => {}
        }
        match &mut self.phase {
            Phase::Trying { outstanding, busy } => {
                *outstanding -= 1;
                *busy |= !granted && !failed;
                let (outstanding, busy) = (*outstanding, *busy);
                if outstanding > 0 {
                    return Next::Wait;
                }
                if self.reply.is_some() {
                    return self.end(send);
                }
                if busy {
                    self.release(send);
                    self.fetched.clear();
                    self.phase = Phase::Ordered { held: 0 };
                    send(self.shares[0].shard, self.acquire(&self.shares[0], true));
                    return Next::Wait;
                }
                self.compute(around, send)
            }
            Phase::Ordered { held } => {
                *held += 1;
                let held = *held;
                if self.reply.is_some() {
                    return self.end(send);
                }
                match self.shares.get(held) {
                    Some(share) => {
                        send(share.shard, self.acquire(share, true));
                        Next::Wait
                    }
                    None => self.compute(around, send),
                }
            }
            Phase::Computing { .. } => unreachable!("no step is under way while the pool computes"),
            Phase::Committing { outstanding } => {
                *outstanding -= 1;
                // When the home shard refuses, no part was ever sent.
                if *outstanding == 0 || failed { self.end(send) } else { Next::Wait }
            }
        }
    }

    fn share(&mut self, shard: ShardId) -> &mut Share {
        self.shares.iter_mut().find(|share| share.shard == shard).expect("only asked shards answer")
    }

    fn acquire(&self, share: &Share, wait: bool) -> Step {
        Step::Acquire {
            gather: self.id,
            shard: share.shard,
            names: share.names.clone(),
            exclusive: self.exclusive,
            fetch: self.fetch,
            wait,
        }
    }

    fn release(&mut self, send: &mut dyn FnMut(ShardId, Step)) {
        for share in self.shares.iter_mut().filter(|share| share.held) {
            share.held = false;
            send(share.shard, Step::Release { gather: self.id, shard: share.shard });
        }
    }

    fn end(&mut self, send: &mut dyn FnMut(ShardId, Step)) -> Next {
        self.release(send);
        Next::Done(self.reply.take().expect("a command ends with its reply"))
    }

    /// Gives the latches of a command that only reads back as soon as it does not need them.
    pub fn release_if_taken(&mut self, send: &mut dyn FnMut(ShardId, Step)) {
        if let Phase::Computing { taken } = &self.phase
            && !self.exclusive
            && taken.load(Ordering::Acquire)
        {
            self.release(send);
        }
    }

    /// The pool has computed the command.
    pub fn computed(&mut self, computed: Computed, send: &mut dyn FnMut(ShardId, Step)) -> Next {
        self.reply = Some(computed.reply);
        let mut works = computed.works.into_iter();
        let Some((home, work)) = works.next() else { return self.end(send) };
        let parts: Vec<_> =
            works.map(|(shard, work)| mesh::Share { shard, work, after: self.share(shard).after }).collect();
        self.phase = Phase::Committing { outstanding: 1 + parts.len() };
        send(home, Step::CommitLarge { gather: self.id, shard: home, work, parts });
        Next::Wait
    }

    /// Everything is latched and fetched: run the command once, over all shards' keys.
    fn compute(&mut self, around: &Surroundings<'_>, send: &mut dyn FnMut(ShardId, Step)) -> Next {
        let fetched = std::mem::take(&mut self.fetched);
        let (reply, mut works) = match std::mem::replace(&mut self.plan, Plan::Gone) {
            Plan::Tables(change) => (Reply::Ok, self.table_works(change, around)),
            Plan::Command(call) if is_long(self.fetch, &fetched) => {
                let taken = Arc::new(AtomicBool::new(false));
                self.phase = Phase::Computing { taken: taken.clone() };
                let (scope, map, protocol) = (around.scope_in(call.table), around.map.clone(), self.protocol);
                return Next::Compute(Box::new(Compute { call, fetched, scope, map, protocol, taken }));
            }
            Plan::Command(call) => {
                let scope = around.scope_in(call.table);
                let (reply, effects) = run(&call, &mut FetchedSource::new(fetched), scope);
                let origin = call.command.origin();
                let work = |effects: Vec<_>| ShardWork {
                    origin,
                    operations: effects.into_iter().map(Operation::Effect).collect(),
                };
                let works = split(effects, around.map);
                (reply, works.into_iter().map(|(shard, effects)| (shard, work(effects))).collect())
            }
            Plan::Gone => unreachable!("a command is computed once"),
        };
        self.reply = Some(reply);
        let Some((home, own)) = works.pop_first() else { return self.end(send) };
        self.phase = Phase::Committing { outstanding: 1 + works.len() };
        let parts = works
            .into_iter()
            .map(|(shard, work)| mesh::Share { shard, work, after: self.share(shard).after })
            .collect();
        send(home, Step::Commit { gather: self.id, shard: home, work: own, parts });
        Next::Wait
    }

    fn table_works(&self, change: WholeTables, around: &Surroundings<'_>) -> BTreeMap<ShardId, ShardWork> {
        let work = |shard| {
            let flush = |table| {
                let slots = own_slots(around, shard, table);
                (!slots.is_empty()).then_some(Operation::SlotWide(SlotWide::Flush { table, slots }))
            };
            let operations = match change {
                WholeTables::Flush { table: Some(table) } => flush(table).into_iter().collect(),
                WholeTables::Flush { table: None } => {
                    (0..around.tables).map(TableId).filter_map(flush).collect()
                }
                WholeTables::Swap { a, b } => {
                    vec![Operation::SlotWide(SlotWide::SwapTables { a, b, slots: Vec::new() })]
                }
            };
            ShardWork { origin: Origin::SERVER, operations }
        };
        let works = self.shares.iter().map(|share| (share.shard, work(share.shard)));
        works.filter(|(_, work)| !work.operations.is_empty()).collect()
    }
}

/// The slots of a shard that this node may empty.
fn own_slots(around: &Surroundings<'_>, shard: ShardId, table: TableId) -> Vec<SlotRange> {
    let is_own = |slot: &Slot| around.assigned.is_none_or(|of| of.role(table, *slot).is_primary());
    let mut own = around.map.placement().slots_of(shard);
    own.retain(is_own);
    let range = |(first, last)| SlotRange { first, last };
    set::ranges(&own).into_iter().map(range).collect()
}

/// A whole table, on every shard.
pub(super) fn table_shares(map: &SlotMap, table: TableId) -> Vec<(ShardId, Names)> {
    map.shards().map(|shard| (shard, Names::Table(table))).collect()
}

/// Whether computing would take too long for a turn.
fn is_long(fetch: Fetch, fetched: &[Fetched]) -> bool {
    let elements: usize = fetched.iter().map(|fetched| fetched.elements.len()).sum();
    fetch == Fetch::Reader || elements > limits::FETCHED_PIECES_PER_TURN_MAX
}

/// Runs a command on data that cannot change meanwhile.
pub(super) fn run(call: &OwnedCall, source: &mut dyn Source, scope: Scope) -> (Reply, SmallVec<[Effect; 1]>) {
    let borrowed = call.call();
    let mut tx = Tx::new(scope, source);
    match (borrowed.command.run)(&mut tx, &borrowed.args) {
        Ok(reply) => (reply, tx.into_effects()),
        Err(Stop::Client(error)) => (Reply::Error(error), SmallVec::new()),
        Err(stop) => {
            tracing::error!(
                command = borrowed.command.spec.name,
                ?stop,
                "a command on several shards failed"
            );
            (Reply::Error(ClientError::new(format!("ERR internal error: {stop:?}"))), SmallVec::new())
        }
    }
}

/// Effects by the shard they fall on, each shard's in their order.
pub(super) fn split(effects: SmallVec<[Effect; 1]>, map: &SlotMap) -> BTreeMap<ShardId, Vec<Effect>> {
    let mut works: BTreeMap<ShardId, Vec<Effect>> = BTreeMap::new();
    for effect in effects {
        works.entry(map.shard_of(effect.slot)).or_default().push(effect);
    }
    works
}

/// Rows that the shards have sent; a key that is not among them was never latched.
#[derive(Default)]
pub(super) struct FetchedSource {
    rows: FxHashMap<(TableId, Bytes), Option<Row>>,
    elements: FxHashMap<(TableId, Bytes, Version, Bytes), Bytes>,
    next_index: FxHashMap<(TableId, Slot), u64>,
}

impl FetchedSource {
    pub fn new(fetched: Vec<Fetched>) -> FetchedSource {
        let mut source = FetchedSource::default();
        fetched.into_iter().for_each(|part| source.take(part));
        source
    }

    fn take(&mut self, fetched: Fetched) {
        self.rows.extend(fetched.rows.into_iter().map(|(table, name, row)| ((table, name), row)));
        let elements = fetched.elements.into_iter();
        self.elements
            .extend(elements.map(|(table, name, version, sub, value)| ((table, name, version, sub), value)));
        self.next_index
            .extend(fetched.next_index.into_iter().map(|(table, slot, next)| ((table, slot), next)));
    }
}

impl Source for FetchedSource {
    fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
        match self.rows.get(&(key.table, Bytes::copy_from_slice(key.name))) {
            Some(row) => Ok(row.clone()),
            None => Err(Stop::Fault("a key that the command's row does not name".into())),
        }
    }

    fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        let name = Bytes::copy_from_slice(key.name);
        Ok(self.elements.get(&(key.table, name, version, Bytes::copy_from_slice(sub))).cloned())
    }

    fn scan(&mut self, _: KeyRef<'_>, _: Version, _: &Subs, _: &mut Visit<'_>) -> Result<(), Stop> {
        Err(Stop::Fault("elements are read where a shard was lent, and none was".into()))
    }

    fn next_index(&mut self, table: TableId, slot: Slot) -> u64 {
        self.next_index.get(&(table, slot)).copied().unwrap_or(1)
    }

    fn idle_seconds(&mut self, _key: KeyRef<'_>) -> u64 {
        0
    }
}

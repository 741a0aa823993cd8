//! What of a giant command happens on the pool: finding where its keys lie, and running it on the data
//! of several shards. On a core each of the two would use up many turns.

use super::assigned::{self, Verdict, judge};
use super::gate;
use super::gather::{FetchedSource, run, split, table_shares};
use super::node::SlotMap;
use super::route;
use crate::command::KeyArg;
use crate::error::{ClientError, Stop};
use crate::limits;
use crate::resp::encode::{self, Protocol};
use crate::resp::reply::Reply;
use crate::shard::keyset::KeySet;
use crate::shard::large::Encoded;
use crate::shard::latch::Names;
use crate::shard::mesh::{Computed, Fetched, OwnedCall, Planned};
use crate::shard::work::{Lent, SnapshotSource};
use crate::slot::assignment::Assignment;
use crate::slot::{ShardId, Slot, SlotHash, TableId};
use crate::store::View;
use crate::store::row::{Row, Version};
use crate::store::tx::{Effect, KeyRef, Scope, Source, Subs, Visit};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a command of so many arguments and bytes is kept off the cores.
pub fn is_giant(args: usize, bytes: usize) -> bool {
    args > limits::ARGS_PER_TURN_MAX || bytes > limits::COMMAND_PER_TURN_MAX_BYTES
}

/// Up to this many keys are latched one by one. Commands that name a second table have fewer.
const KEYS_ONE_BY_ONE_MAX: usize = 64;

/// In sharding mode: why the command is not served here. One that would have to wait has waited before.
pub fn refusal(
    assignment: &Assignment,
    usual: SlotHash,
    manner: assigned::Manner,
    call: &OwnedCall,
) -> Option<ClientError> {
    match judge(assignment, usual, manner, call.table, &call.command.spec, &call.call().args) {
        Verdict::Refuse(error) => Some(error),
        Verdict::Serve | Verdict::Hold => None,
    }
}

/// Where the command's keys lie.
pub fn plan(call: OwnedCall, map: &SlotMap, hash: SlotHash) -> Result<Planned, ClientError> {
    let args = call.call().args;
    gate::names_fit(call.command, &args)?;
    if call.command.spec.keys.go_beyond(&args) {
        let shares = table_shares(map, call.table);
        return Ok(Planned { call, shares });
    }
    let keys = call.command.spec.keys.of(&args)?;
    let mut by_shard: BTreeMap<ShardId, Vec<KeyArg>> = BTreeMap::new();
    for key in keys {
        by_shard.entry(route::shard_of(map, hash, args.get(key.arg))).or_default().push(key);
    }
    if by_shard.is_empty() {
        return Err(ClientError::SYNTAX);
    }
    let shares = by_shard.into_iter().map(|(shard, keys)| (shard, names(&call, &keys))).collect();
    Ok(Planned { call, shares })
}

fn names(call: &OwnedCall, keys: &[KeyArg]) -> Names {
    if keys.len() <= KEYS_ONE_BY_ONE_MAX {
        let args = call.call().args;
        let name =
            |key: &KeyArg| (key.table.unwrap_or(call.table), Bytes::copy_from_slice(args.get(key.arg)));
        return Names::Keys(keys.iter().map(name).collect());
    }
    assert!(keys.iter().all(|key| key.table.is_none()), "a command with many keys has them in one table");
    let spans = keys.iter().map(|key| call.spans[key.arg]);
    Names::Set(Arc::new(KeySet::new(call.table, call.bytes.clone(), spans)))
}

/// A command whose keys are latched and whose data is at hand.
pub struct Compute {
    pub call: OwnedCall,
    pub fetched: Vec<Fetched>,
    pub scope: Scope,
    pub map: SlotMap,
    pub protocol: Protocol,
    /// Set once nothing more is read that a later write could change.
    pub taken: Arc<AtomicBool>,
}

impl Compute {
    pub fn run(self) -> Computed {
        let Compute { call, mut fetched, scope, map, protocol, taken } = self;
        let lent: Vec<Lent> = fetched.iter_mut().filter_map(|fetched| fetched.lent.take()).collect();
        let (reply, effects) = if lent.is_empty() {
            taken.store(true, Ordering::Release);
            run(&call, &mut FetchedSource::new(fetched), scope)
        } else {
            over_snapshots(&lent, &[], &mut |views| {
                taken.store(true, Ordering::Release);
                let sources = views
                    .iter()
                    .zip(&lent)
                    .map(|(view, lent)| (lent, SnapshotSource { view, places: &lent.places }));
                let mut by_shard: Vec<Option<SnapshotSource<'_, '_>>> = map.shards().map(|_| None).collect();
                sources.for_each(|(lent, source)| by_shard[usize::from(lent.shard.0)] = Some(source));
                run(&call, &mut ShardsSource { map: &map, by_shard }, scope)
            })
        };
        let works = encode_works(&call, split(effects, &map));
        Computed { reply: ready(reply, protocol), works }
    }
}

/// Takes a snapshot of every shard, one inside the other, and runs `job` on them all.
fn over_snapshots<R>(lent: &[Lent], views: &[&View<'_>], job: &mut dyn FnMut(&[&View<'_>]) -> R) -> R {
    let Some((first, rest)) = lent.split_first() else { return job(views) };
    first.reader.with_snapshot(|view| {
        let mut views = views.to_vec();
        views.push(view);
        over_snapshots(rest, &views, job)
    })
}

/// The first shard's share stands before the others' in one body: the whole.
fn encode_works(call: &OwnedCall, works: BTreeMap<ShardId, Vec<Effect>>) -> Vec<(ShardId, Encoded)> {
    let origin = call.command.origin();
    let works: Vec<_> = works.into_iter().collect();
    let Some(((home, own), parts)) = works.split_first() else { return Vec::new() };
    let others: Vec<&[Effect]> = parts.iter().map(|(_, effects)| &effects[..]).collect();
    let parts = parts.iter().map(|(shard, effects)| (*shard, Encoded::new(origin, effects, &[])));
    std::iter::once((*home, Encoded::new(origin, own, &others))).chain(parts).collect()
}

/// An array of many values becomes bytes here; a single long value can be sent as it is.
fn ready(reply: Reply, protocol: Protocol) -> Reply {
    if !matches!(reply, Reply::Array(_)) {
        return reply;
    }
    let mut bytes = Vec::new();
    encode::encode(&reply, protocol, &mut bytes);
    Reply::Ready(bytes.into())
}

/// Several shards as of one moment; none for those that have no key of the command.
struct ShardsSource<'s, 'v, 'd> {
    map: &'s SlotMap,
    by_shard: Vec<Option<SnapshotSource<'v, 'd>>>,
}

impl<'v, 'd> ShardsSource<'_, 'v, 'd> {
    fn of(&mut self, slot: Slot) -> Result<&mut SnapshotSource<'v, 'd>, Stop> {
        let shard = self.map.shard_of(slot);
        let source = self.by_shard[usize::from(shard.0)].as_mut();
        source.ok_or_else(|| Stop::Fault("a key that the command's row does not name".into()))
    }
}

impl Source for ShardsSource<'_, '_, '_> {
    fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
        self.of(key.slot)?.row(key)
    }

    fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        self.of(key.slot)?.element(key, version, sub)
    }

    fn scan(
        &mut self,
        key: KeyRef<'_>,
        version: Version,
        subs: &Subs,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        self.of(key.slot)?.scan(key, version, subs, visit)
    }

    fn next_index(&mut self, table: TableId, slot: Slot) -> u64 {
        self.of(slot).map_or(1, |source| source.next_index(table, slot))
    }

    fn idle_seconds(&mut self, _key: KeyRef<'_>) -> u64 {
        0
    }
}

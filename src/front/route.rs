//! Where a command on keys runs: whole on one shard, or on several under a coordinator.

use super::node::SlotMap;
use crate::command::{KeyArgs, Keys, Spec};
use crate::error::ClientError;
use crate::resp::args::Args;
use crate::slot::{ShardId, SlotHash};

/// Which shards a command's keys lie on.
pub enum Route {
    One(ShardId),
    Several(KeyArgs),
    /// It may read any key of its table.
    Table,
}

/// The plan for a command whose arity has been checked.
pub fn route(map: &SlotMap, hash: SlotHash, spec: &Spec, args: &Args<'_>) -> Result<Route, ClientError> {
    if let Keys::Span { first, last, .. } = spec.keys
        && last == first as i32
    {
        return Ok(Route::One(shard_of(map, hash, args.get(first))));
    }
    // On a single shard too: what it will read must be latched, and be there where it runs on a snapshot.
    if spec.keys.go_beyond(args) {
        return Ok(Route::Table);
    }
    let keys = spec.keys.of(args)?;
    let mut shards = keys.iter().map(|key| shard_of(map, hash, args.get(key.arg)));
    // Without a key any shard will do: the command says what is wrong, or needs none.
    let Some(first) = shards.next() else { return Ok(Route::One(ShardId(0))) };
    if map.is_single() || shards.all(|shard| shard == first) {
        return Ok(Route::One(first));
    }
    Ok(Route::Several(keys))
}

pub fn shard_of(map: &SlotMap, hash: SlotHash, name: &[u8]) -> ShardId {
    if map.is_single() { ShardId(0) } else { map.shard_of(hash.slot_of(name)) }
}

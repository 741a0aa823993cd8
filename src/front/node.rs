//! What each core knows of its node: the configuration in force, the slot map, and what happened here.
//! One copy per core, changed only by that core.

use crate::config::Config;
use crate::replica::status::{SharedStatus, Status};
use crate::shard::mesh::TableRates;
use crate::slot::assignment::Assignment;
use crate::slot::placement::Placement;
use crate::slot::{CoreId, ShardId, Slot, SlotHash, TableId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// A core as a cluster client sees it: a node with a port of its own.
#[derive(Clone, Debug)]
pub struct CoreAddress {
    pub core: CoreId,
    /// 40 hex digits.
    pub id: String,
    pub port: u16,
}

/// Which shard holds a slot, and which core owns a shard.
#[derive(Clone, Debug)]
pub struct SlotMap {
    placement: Placement,
    /// By shard.
    owners: Arc<[CoreId]>,
}

impl SlotMap {
    /// `owners`: by shard.
    pub fn new(placement: Placement, owners: Vec<CoreId>) -> SlotMap {
        assert_eq!(owners.len(), usize::from(placement.shard_count()), "every shard has an owner");
        SlotMap { placement, owners: owners.into() }
    }

    /// The same shards with their slots placed otherwise.
    pub fn placed(&self, placement: Placement) -> SlotMap {
        SlotMap { placement, owners: self.owners.clone() }
    }

    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    pub fn shard_of(&self, slot: Slot) -> ShardId {
        self.placement.shard_of(slot)
    }

    pub fn is_single(&self) -> bool {
        self.placement.shard_count() == 1
    }

    pub fn owner(&self, shard: ShardId) -> CoreId {
        self.owners[usize::from(shard.0)]
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.placement.shards()
    }

    pub fn slots(&self) -> u32 {
        u32::from(self.placement.slots())
    }
}

pub struct Node {
    pub core: CoreId,
    pub cores: u16,
    /// Of tables that have no number of slots of their own; `Owner::hash_of` tells a table's.
    pub hash: SlotHash,
    pub map: SlotMap,
    /// In sharding mode: what this node is to each slot.
    pub assigned: Option<Arc<Assignment>>,
    pub config: Arc<Config>,
    /// File the configuration came from, for CONFIG REWRITE.
    pub config_file: Option<PathBuf>,
    /// Of the data directory; 40 hex digits.
    pub run_id: String,
    pub started_ms: u64,
    /// The CPUs' own ports, when shard-aware ports are on.
    pub addresses: Vec<CoreAddress>,
    /// Shared by all cores, so that each tells the same; locked only by INFO keyspace, for a copy.
    pub key_count: Arc<Mutex<KeyCount>>,
    /// What the replication thread tells; locked only for a look or a copy.
    status: Arc<SharedStatus>,
    /// Last moment at which everything acknowledged was known to be on disk, seconds since the epoch.
    pub last_save_s: u64,
    rate: Rate,
    /// In sharding mode, by table: all commands on keys, and those that write.
    tables: BTreeMap<TableId, [(u64, Rate); 2]>,
}

impl Node {
    /// A node as one core sees it at the start.
    pub fn new(place: Place, config: Arc<Config>, shared: NodeShared, now_ms: u64) -> Node {
        let NodeShared { key_count, status } = shared;
        Node {
            status,
            core: place.core,
            cores: place.cores,
            hash: place.hash,
            map: place.map,
            assigned: place.assigned,
            config,
            config_file: place.config_file,
            run_id: place.run_id,
            started_ms: now_ms,
            addresses: place.addresses,
            key_count,
            last_save_s: now_ms / 1000,
            rate: Rate::default(),
            tables: BTreeMap::new(),
        }
    }

    /// Where the replication thread stands among those that send each other messages: behind the cores and the
    /// admin port.
    pub fn replication_lane(&self) -> CoreId {
        CoreId(self.cores + 1)
    }

    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.status.look()
    }

    /// Takes a reading of the commands run so far, for the rate.
    pub fn note_commands(&mut self, now_ms: u64, commands: u64) {
        self.rate.note(now_ms, commands);
        for (count, rate) in self.tables.values_mut().flatten() {
            rate.note(now_ms, *count);
        }
    }

    /// A command on keys of this table runs.
    pub fn note_table(&mut self, table: TableId, writes: bool) {
        let [all, written] = self.tables.entry(table).or_default();
        all.0 += 1;
        written.0 += u64::from(writes);
    }

    pub fn table_rates(&self) -> Vec<(TableId, TableRates)> {
        let rates = |[all, written]: &[(u64, Rate); 2]| TableRates {
            commands: all.0,
            writes: written.0,
            qps: all.1.per_second,
            write_qps: written.1.per_second,
        };
        self.tables.iter().map(|(table, counts)| (*table, rates(counts))).collect()
    }

    /// Commands in the last whole second on this core.
    pub fn ops_per_second(&self) -> u64 {
        self.rate.per_second
    }
}

/// What all cores show alike.
#[derive(Clone, Default)]
pub struct NodeShared {
    pub key_count: Arc<Mutex<KeyCount>>,
    pub status: Arc<SharedStatus>,
}

/// What does not change while a core runs.
pub struct Place {
    pub core: CoreId,
    pub cores: u16,
    pub hash: SlotHash,
    pub map: SlotMap,
    pub assigned: Option<Arc<Assignment>>,
    pub config_file: Option<PathBuf>,
    pub run_id: String,
    pub addresses: Vec<CoreAddress>,
}

/// Commands a second, measured once a second.
#[derive(Default)]
struct Rate {
    since_ms: u64,
    commands: u64,
    per_second: u64,
}

impl Rate {
    fn note(&mut self, now_ms: u64, commands: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        if elapsed_ms >= 1000 {
            self.per_second = commands.saturating_sub(self.commands) * 1000 / elapsed_ms;
            (self.since_ms, self.commands) = (now_ms, commands);
        }
    }
}

/// The exact count of all keys that INFO keyspace 1 starts: whether one runs, and what the last one found.
#[derive(Clone, Debug, Default)]
pub struct KeyCount {
    /// When the last count was started, running or not. 0: never.
    pub started_ms: u64,
    pub running: bool,
    /// How long the one that `tables` comes from took; None before the first has ended.
    pub duration_ms: Option<u64>,
    pub tables: Vec<(crate::slot::TableId, crate::shard::mesh::TableKeys)>,
}

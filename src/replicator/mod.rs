//! The replication thread: the links to followers and to the primary, and what they move between nodes.
//!
//! A core of its own beside the data cores, with a place among their lanes, as the admin port has. What is said
//! on a link is decided in `replica`; here are its sockets, log files and timers (tokio, on one thread: nothing
//! here may wait for a disk longer than a page takes to come out of the kernel's cache). Must not know how a
//! command runs.

mod commands;
mod copy;
mod digest;
pub mod dropped;
mod failover;
mod follower;
mod hub;
pub mod kept;
mod migrate;
mod peer;
mod pkcluster;
mod primary;
mod quorum;
mod recent;
pub mod redis;
mod rehome;
mod rewind;
mod slots;
mod source;
mod wire;

use crate::config::Config;
use crate::conn::moving::Parcel;
use crate::conn::serve::Shared;
use crate::error::Fault;
use crate::front::node::SlotMap;
use crate::replica::status::SharedStatus;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::lanes::Lanes;
use crate::shard::published::Published;
use crate::shard::settled::Settlement;
use crate::slot::SlotHash;
use crate::slot::assignment::Assignment;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

/// What does not change while the node runs, but for where slots lie.
pub struct Place {
    pub cores: u16,
    pub hash: SlotHash,
    /// Changed by `Hub::place` alone.
    pub map: RefCell<SlotMap>,
    /// Of the data directory: 40 hex digits.
    pub run_id: String,
    /// Numbered databases.
    pub tables: u32,
    /// Longest value that is taken, bytes.
    pub value_max_bytes: u64,
    /// The directories of the logs, by shard.
    pub logs: Vec<PathBuf>,
    pub data_dir: PathBuf,
    /// The file that says where in a Redis's stream this node stands.
    pub redis_stream: PathBuf,
}

impl Place {
    /// Which shard has which slot now.
    pub fn map(&self) -> SlotMap {
        self.map.borrow().clone()
    }
}

/// Everything the thread is given.
pub struct Replicator {
    /// Behind the cores' and the admin port's.
    pub lanes: Lanes<Parcel>,
    pub bell: Doorbell,
    /// The cores'.
    pub doorbells: Vec<Doorbell>,
    pub place: Place,
    pub config: Arc<Config>,
    pub published: Arc<Published>,
    pub settlement: Arc<Settlement>,
    pub status: Arc<SharedStatus>,
    pub shared: Arc<Shared>,
    /// In sharding mode: what the node is to each slot.
    pub assigned: Option<Arc<Assignment>>,
}

impl Replicator {
    /// Starts the thread. Its bell wakes it when the process is to stop; then it ends soon.
    pub fn start(self) -> Result<(Doorbell, JoinHandle<()>), Fault> {
        let bell = self.bell.clone();
        let run = move || {
            if let Err(error) = hub::run(self) {
                // Without it no follower hears anything, and nobody would know.
                tracing::error!(%error, "the replication thread has ended");
                std::process::exit(70);
            }
        };
        let started = std::thread::Builder::new().name("replication".into()).spawn(run);
        let thread = started.map_err(|error| Fault::new("starting the replication thread", error))?;
        Ok((bell, thread))
    }
}

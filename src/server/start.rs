//! Puts a node together: directory, shards recovered, executors started; and waits until they stop.

use super::datadir::{DataDir, Wanted};
use super::listen;
use crate::adminport::{self, Attached, Cores, Facts};
use crate::binlog::RealDisk;
use crate::clock::Clock;
use crate::config::{Config, InstanceMode, Loaded};
use crate::conn::moving::Parcel;
use crate::conn::serve::{Core, Links, Serving, Shared};
use crate::error::Fault;
use crate::front::node::{CoreAddress, Node, NodeShared, Place, SlotMap};
use crate::limits::{self, Ledger};
use crate::replica::status::SharedStatus;
use crate::replica::status::{Following, Status};
use crate::replicator::{self, Replicator};
use crate::runtime::doorbell::Doorbell;
use crate::runtime::executor;
use crate::runtime::lanes::{Lanes, Mesh};
use crate::runtime::pool::Pool;
use crate::runtime::reaper;
use crate::runtime::ring::{RingLimits, SocketRing};
use crate::runtime::sleeper::Sleeper;
use crate::shard::jobs::CorePools;
use crate::shard::open::{self, Opening, ShardPlan};
use crate::shard::owner::{Owner, Setting};
use crate::shard::published::Published;
use crate::shard::settled::Settlement;
use crate::slot::assignment::{Assignment, Role};
use crate::slot::{CoreId, ShardId, TableId, set};
use crate::store::SharedMemory;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a core's thread is given before its executor runs.
struct CorePlan {
    place: Place,
    config: Arc<Config>,
    node: NodeShared,
    published: Arc<Published>,
    ledger: Ledger,
    listeners: Vec<TcpListener>,
    own_listeners: Vec<TcpListener>,
    shards: Vec<ShardPlan>,
    settlement: Arc<Settlement>,
    shared: Arc<Shared>,
    /// Its doorbell goes out, what the others have comes in.
    ready: Sender<(CoreId, Doorbell)>,
    ties: Receiver<Ties>,
}

/// What can be handed over only when every core has its ring.
struct Ties {
    lanes: Lanes<Parcel>,
    doorbells: Vec<Doorbell>,
    pools: CorePools,
}

/// Serves until a signal or SHUTDOWN.
pub fn serve(loaded: Loaded) -> Result<(), Fault> {
    let config = Arc::new(loaded.config);
    let allowed =
        executor::cpus().map_err(|error| Fault::new("reading the CPUs this process may use", error))?;
    let cpus = core_cpus(&config, &allowed)?;
    let cores = cpus.len() as u16;
    let data = DataDir::open(&config.data_dir, wanted(&config, cores))?;
    let shard_count = data.identity.shards;
    let ledger = Ledger::from_budget(config.memory_budget, cores, shard_count)
        .map_err(|why| Fault::new("dividing the memory budget", why))?;
    let hash = data.identity.hash();
    let owners: Vec<CoreId> = (0..shard_count)
        .map(|shard| CoreId((u32::from(shard) * u32::from(cores) / u32::from(shard_count)) as u16))
        .collect();
    let map = SlotMap::new(data.placement.clone(), owners);

    // Threads of RocksDB and of the pools, those that apply batches excepted, stay off the data cores where there is
    // another CPU.
    let rest: Vec<usize> = allowed.iter().copied().filter(|cpu| !cpus.contains(&Some(*cpu))).collect();
    let background = if rest.is_empty() { allowed.clone() } else { rest };
    executor::confine_thread(&background).map_err(|error| Fault::new("placing background threads", error))?;
    reaper::start().map_err(|error| Fault::new("starting the thread that frees memory", error))?;

    let listeners = listeners(&config, cores)?;
    let admin = start_admin_port(&config)?;
    let memory = SharedMemory::new(
        ledger.block_cache as usize,
        ledger.memtables as usize,
        background.len().clamp(1, 4),
    )
    .map_err(|error| Fault::new("preparing RocksDB", error))?;
    let opening = Opening {
        disk: Arc::new(RealDisk),
        ledger: &ledger,
        memory: &memory,
        config: &config,
        placement: &data.placement,
    };
    let plans = open::recover(&opening, |shard: ShardId| data.shard(shard.0))?;
    let assigned = assigned(&config, &data)?;

    let shared = Arc::new(Shared::new(cores));
    let published = Arc::new(Published::new(shard_count));
    let status = Arc::new(SharedStatus::of(published.clone()));
    let node = NodeShared { status, ..NodeShared::default() };
    if let Some((host, port)) = config.primary().expect("checked when the configuration was loaded") {
        // The cores take no write even before the replication thread stands.
        published.set_follows(true);
        let following = Some(Following { host, port, ..Following::default() });
        node.status.set(Status { following, ..Status::default() });
    }
    let settlement = Arc::new(Settlement::new(shard_count));
    let (ready, doorbells) = channel();
    let mut pools = Pools::start(&config, cores, &background, &allowed)?;
    let mut by_core: Vec<Vec<ShardPlan>> = (0..cores).map(|_| Vec::new()).collect();
    for plan in plans {
        by_core[usize::from(map.owner(plan.shard).0)].push(plan);
    }
    let failed: Arc<Mutex<Option<Fault>>> = Arc::default();
    let (mut threads, mut ties) = (Vec::new(), Vec::new());
    let addresses = core_addresses(&config, &data.identity.id, cores);
    for (core, (shards, (listeners, own_listeners))) in by_core.into_iter().zip(listeners).enumerate() {
        let (tie, receive) = channel();
        ties.push(tie);
        let plan = CorePlan {
            place: Place {
                core: CoreId(core as u16),
                cores,
                hash,
                map: map.clone(),
                assigned: assigned.clone(),
                config_file: loaded.file.clone(),
                run_id: data.identity.id.clone(),
                addresses: addresses.clone(),
            },
            config: config.clone(),
            node: node.clone(),
            published: published.clone(),
            ledger: ledger.clone(),
            listeners,
            own_listeners,
            shards,
            settlement: settlement.clone(),
            shared: shared.clone(),
            ready: ready.clone(),
            ties: receive,
        };
        let failed = failed.clone();
        let thread = executor::spawn_core(&format!("core-{core}"), cpus[core], move || async move {
            if let Err(fault) = run_core(plan) {
                end_at_once(&fault, &failed);
            }
        });
        threads.push(thread.map_err(|error| Fault::new("starting a core", error))?);
    }
    drop(ready);
    let bells = await_cores(cores, &doorbells)?;
    // Before anybody can be answered: who gets an answer may ask for the end.
    let signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|error| Fault::new("watching for signals", error))?;
    let (doorbells, [at_admin, at_replication]) = tie_cores(bells, &ties, &mut pools)?;
    let told = node.status;
    let replicator = Replicator {
        lanes: at_replication.lanes,
        bell: at_replication.sleeper.doorbell(),
        doorbells: doorbells.clone(),
        place: replicator::Place {
            cores,
            hash,
            map: RefCell::new(map),
            run_id: data.identity.id.clone(),
            tables: config.databases,
            value_max_bytes: ledger.value_max,
            logs: (0..shard_count).map(|shard| data.shard(shard).join("log")).collect(),
            data_dir: data.path.clone(),
            redis_stream: data.path.join("redis-stream"),
        },
        config: config.clone(),
        published,
        settlement,
        status: told.clone(),
        shared: shared.clone(),
        assigned,
    };
    let (replication, replication_thread) = replicator.start()?;
    if let Some(attach) = admin {
        let cores = Cores::new(at_admin.lanes, doorbells.clone(), at_admin.sleeper, cores);
        let facts = Facts { ledger, memory, replication: told };
        let attached = attach.send(Attached { cores, facts });
        attached.map_err(|_| Fault::new("starting the admin port", "it has ended"))?;
    }
    let mut all_bells = doorbells;
    all_bells.push(replication);
    watch_signals(signals, shared, all_bells)?;
    tracing::info!(
        port = config.port,
        cores,
        shards = shard_count,
        memory_budget_mib = config.memory_budget >> 20,
        data_dir = %data.path.display(),
        "ready"
    );
    for thread in threads {
        thread.join().map_err(|_| Fault::new("a core", "panicked"))?;
    }
    pools.join();
    replication_thread.join().map_err(|_| Fault::new("the replication thread", "panicked"))?;
    tracing::info!("stopped");
    Ok(())
}

/// A failed write or sync of the log leaves nothing that may still be answered: the process ends as it
/// is, without flushing RocksDB; the next start recovers.
fn end_at_once(fault: &Fault, failed: &Mutex<Option<Fault>>) {
    // The lock only makes sure that one core's words are printed whole.
    let _one_at_a_time = failed.lock();
    tracing::error!("{fault}: ending at once; the next start recovers from the log");
    std::process::exit(70);
}

struct Pools {
    cold: Pool,
    flush: Pool,
    apply: Pool,
}

/// Syncs and memtable switches that one core may have under way: two for each shard it may own.
const FLUSH_JOBS_PER_CORE_MAX: usize = 64;
/// Batches that one core may have on their way into RocksDB, one of a shard.
const APPLY_JOBS_PER_CORE_MAX: usize = FLUSH_JOBS_PER_CORE_MAX / 2;

impl Pools {
    fn start(config: &Config, cores: u16, cpus: &[usize], allowed: &[usize]) -> Result<Pools, Fault> {
        let failed = |error| Fault::new("starting the blocking pool", error);
        let cores = usize::from(cores);
        let queue = cores * limits::COLD_IN_FLIGHT_PER_CORE_MAX;
        let threads = usize::from(config.cold_threads).max(1);
        let (cpus, allowed) = (|| Some(cpus.to_vec()), Some(allowed.to_vec()));
        let (flushes, applies) = (cores * FLUSH_JOBS_PER_CORE_MAX, cores * APPLY_JOBS_PER_CORE_MAX);
        Ok(Pools {
            cold: Pool::start("cold", threads, queue, cpus(), 0).map_err(failed)?,
            // One flusher for the device: its syncs are what group commit waits for.
            flush: Pool::start("flush", 1, flushes, cpus(), 0).map_err(failed)?,
            // One for each core: it does for the core what the core would do otherwise. Anywhere: they may be many,
            // and the CPUs beside the cores' few.
            apply: Pool::start("apply", cores, applies, allowed, limits::APPLY_NICE).map_err(failed)?,
        })
    }

    fn join(self) {
        self.cold.join();
        self.flush.join();
        self.apply.join();
    }
}

/// Until every core has replayed its shards; their doorbells.
fn await_cores(cores: u16, ready: &Receiver<(CoreId, Doorbell)>) -> Result<Vec<Doorbell>, Fault> {
    let mut bells: Vec<Option<Doorbell>> = (0..cores).map(|_| None).collect();
    for _ in 0..cores {
        let (core, bell) =
            ready.recv().map_err(|_| Fault::new("starting", "a core ended before it was ready"))?;
        bells[usize::from(core.0)] = Some(bell);
    }
    Ok(bells.into_iter().flatten().collect())
}

/// Gives the cores what they need to speak to each other: from here on they serve.
fn tie_cores(
    mut bells: Vec<Doorbell>,
    ties: &[Sender<Ties>],
    pools: &mut Pools,
) -> Result<(Vec<Doorbell>, [Behind; 2]), Fault> {
    let cores = bells.len();
    let sleeper =
        || Sleeper::new().map_err(|error| Fault::new("starting the threads beside the cores", error));
    let (admin, replication) = (sleeper()?, sleeper()?);
    bells.extend([admin.doorbell(), replication.doorbell()]);
    let mut mesh = Mesh::new(bells.len(), limits::LANE_CAPACITY);
    let replication = Behind { lanes: mesh.pop().expect("made a line above"), sleeper: replication };
    let admin = Behind { lanes: mesh.pop().expect("made two lines above"), sleeper: admin };
    for ((lanes, bell), tie) in mesh.into_iter().zip(&bells).zip(ties) {
        let pools = CorePools {
            pool: pools.cold.handle(bell.clone(), limits::COLD_IN_FLIGHT_PER_CORE_MAX),
            flusher: pools.flush.handle(bell.clone(), FLUSH_JOBS_PER_CORE_MAX),
            applier: pools.apply.handle(bell.clone(), APPLY_JOBS_PER_CORE_MAX),
        };
        let tied = tie.send(Ties { lanes, doorbells: bells.clone(), pools });
        tied.map_err(|_| Fault::new("starting", "a core ended before it was ready"))?;
    }
    bells.truncate(cores);
    Ok((bells, [admin, replication]))
}

/// What a thread that is no core needs to talk to them: its lanes, behind the last core's.
struct Behind {
    lanes: Lanes<Parcel>,
    sleeper: Sleeper,
}

fn start_admin_port(config: &Config) -> Result<Option<Sender<Attached>>, Fault> {
    let address = config.admin_address().map_err(|why| Fault::new("starting the admin port", why))?;
    address.map(|address| adminport::start(listen::own(address, config.tcp_backlog)?)).transpose()
}

fn run_core(plan: CorePlan) -> Result<(), Fault> {
    let mut clock = Clock::system();
    let ring_failed = |error| Fault::new("making the socket ring", error);
    let (recv_buffers, recv_buffer_bytes) = plan.ledger.receive_buffers_per_core();
    let limits = RingLimits { entries: 1024, recv_buffers, recv_buffer_bytes, tick_ms: 5, idle_tick_ms: 100 };
    let mut ring = SocketRing::new(limits).map_err(ring_failed)?;
    let setting = Setting {
        core: plan.place.core,
        hash: plan.place.hash,
        tables: plan.config.databases,
        reply_max_elements: plan.config.reply_max_elements,
        reply_max_bytes: plan.config.reply_max_bytes,
        consensus_level: plan.config.consensus_level,
        value_max_bytes: plan.ledger.value_max,
    };
    let mut shards = Vec::new();
    let mut upkeep = Vec::new();
    for shard in plan.shards {
        let (shard, keep) =
            open::replay(shard, &plan.ledger, plan.config.appendfsync, plan.settlement.clone(), &mut clock)?;
        shards.push(shard);
        upkeep.push(keep);
    }
    plan.ready
        .send((plan.place.core, ring.doorbell()))
        .map_err(|_| Fault::new("starting", "the start was given up"))?;
    // They come when every core has replayed its shards; until then no log may grow.
    let ties = plan.ties.recv().map_err(|_| Fault::new("starting", "the start was given up"))?;
    for listener in plan.listeners {
        ring.listen(listener).map_err(ring_failed)?;
    }
    let mut own_port = None;
    for listener in plan.own_listeners {
        own_port = Some(ring.listen(listener).map_err(ring_failed)?);
    }
    let map = &plan.place.map;
    let owners = map.shards().map(|shard| map.owner(shard)).collect();
    let assigned = plan.place.assigned.clone();
    let mut owner = Owner::new(setting, owners, clock, shards, ties.pools, upkeep, plan.published);
    owner.assigned = assigned;
    let node = Node::new(plan.place, plan.config, plan.node, owner.clock.now_ms());
    let core = Core::new(owner, node, plan.shared);
    Serving { ring, core }.run(Links { lanes: ties.lanes, doorbells: ties.doorbells }, own_port)
}

fn core_cpus(config: &Config, allowed: &[usize]) -> Result<Vec<Option<usize>>, Fault> {
    let chosen: Vec<usize> = config.pin_cpus.0.iter().map(|cpu| usize::from(*cpu)).collect();
    let pinned = if chosen.is_empty() { allowed.to_vec() } else { chosen };
    if let Some(cpu) = pinned.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(Fault::new(
            "placing cores",
            format!("CPU {cpu} of pin_cpus is not one this process may use"),
        ));
    }
    let cores = usize::from(config.cores);
    // More cores than CPUs share them, unpinned: only tests want that.
    Ok((0..cores).map(|core| if cores <= pinned.len() { Some(pinned[core]) } else { None }).collect())
}

/// In sharding mode: which slots the node has.
fn assigned(config: &Config, data: &DataDir) -> Result<Option<Arc<Assignment>>, Fault> {
    let file = replicator::kept::path(&data.path);
    let refused = |why: String| Fault::new(format!("starting in {}", data.path.display()), why);
    let kept = replicator::kept::read(&file)?;
    match (config.instance_mode, kept) {
        (InstanceMode::Classic, None) => Ok(None),
        (InstanceMode::Classic, Some(_)) => Err(refused(
            "it is of a node in sharding mode (it holds slots.toml): start with --instance-mode sharding"
                .into(),
        )),
        (InstanceMode::Sharding, Some(kept)) => {
            let may_be = data.identity.hash().slots_of_a_table();
            let fits = |table: &TableId| kept.slots(*table).is_some_and(|slots| may_be.contains(&slots));
            if let Some(table) = kept.tables().find(|table| !fits(table)) {
                return Err(refused(format!(
                    "slots.toml gives table {} a number of slots that it cannot have",
                    table.0
                )));
            }
            Ok(Some(Arc::new(kept)))
        }
        (InstanceMode::Sharding, None) => {
            let mut first = Assignment::default();
            let table = TableId(0);
            first.add_table(table, data.identity.slots);
            // What has been in classic mode has data, of which none may be out of reach.
            if !data.is_new {
                let all = set::all(data.identity.slots);
                (1..config.databases).for_each(|table| first.add_table(TableId(table), data.identity.slots));
                (0..config.databases).for_each(|table| first.set(TableId(table), &all, &Role::Primary));
            }
            replicator::kept::write(&file, &first)
                .map_err(|error| Fault::new("writing slots.toml", error))?;
            Ok(Some(Arc::new(first)))
        }
    }
}

fn wanted(config: &Config, cores: u16) -> Wanted {
    let shards = (config.shards > 0).then_some(config.shards);
    Wanted { shards, shards_if_new: cores, hash: config.slots() }
}

fn core_addresses(config: &Config, id: &str, cores: u16) -> Vec<CoreAddress> {
    (0..cores)
        .filter_map(|core| {
            // The node's id, with the core in its last digits: stable over restarts, different for each.
            let id = format!("{}{core:04x}", &id[..36]);
            config.core_port(core).map(|port| CoreAddress { core: CoreId(core), id, port })
        })
        .collect()
}

type CoreListeners = (Vec<TcpListener>, Vec<TcpListener>);

fn listeners(config: &Config, cores: u16) -> Result<Vec<CoreListeners>, Fault> {
    let mut all: Vec<CoreListeners> = (0..cores).map(|_| (Vec::new(), Vec::new())).collect();
    for address in &config.bind {
        let shared = SocketAddr::new(address.ip, config.port);
        match listen::check_free(shared) {
            Err(fault) if address.optional => {
                tracing::warn!("{fault}");
                continue;
            }
            checked => checked?,
        }
        for (core, (on_shared, on_own)) in all.iter_mut().enumerate() {
            on_shared.push(listen::shared(shared, config.tcp_backlog)?);
            if let Some(port) = config.core_port(core as u16) {
                on_own.push(listen::own(SocketAddr::new(address.ip, port), config.tcp_backlog)?);
            }
        }
    }
    Ok(all)
}

/// SIGTERM and SIGINT stop the server; a second one makes it hurry.
fn watch_signals(mut signals: Signals, shared: Arc<Shared>, doorbells: Vec<Doorbell>) -> Result<(), Fault> {
    let watch = move || {
        for signal in signals.forever() {
            if shared.stopping.swap(true, Ordering::AcqRel) {
                tracing::info!(signal, "stopping in a hurry");
                shared.hurry.store(true, Ordering::Release);
            } else {
                tracing::info!(signal, "stopping: again to hurry");
            }
            doorbells.iter().for_each(Doorbell::ring);
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(watch)
        .map(drop)
        .map_err(|error| Fault::new("watching for signals", error))
}

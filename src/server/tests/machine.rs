//! One machine without threads: cores, their shards and their mail, run step by step on a simulated disk.
//!
//! It does what `conn` does around an `Owner`, less the sockets. What happens next is the caller's choice.

use crate::binlog::sim::SimDisk;
use crate::clock::Clock;
use crate::config::{Config, Fsync};
use crate::error::Fault;
use crate::front::WholeTables;
use crate::front::gather::{Gather, Next, Surroundings};
use crate::front::node::SlotMap;
use crate::front::route::{Route, route, shard_of};
use crate::front::table::{CommandTable, Run};
use crate::limits::Ledger;
use crate::resp::args::{Args, Span};
use crate::resp::encode::Protocol;
use crate::resp::reply::Reply;
use crate::runtime::pool::ByHand;
use crate::shard::jobs::CorePools;
use crate::shard::mesh::{Call, Calls, GatherId, LineId, Message, Step, StepDone};
use crate::shard::open::{self, Opening};
use crate::shard::owner::{Owner, Setting};
use crate::shard::published::Published;
use crate::shard::settled::Settlement;
use crate::shard::work::Done;
use crate::slot::placement::Placement;
use crate::slot::{CoreId, ShardId, SlotHash, TableId};
use crate::store::SharedMemory;
use rand::Rng;
use rand::rngs::StdRng;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

const SLOTS: u16 = 24;
pub const TABLES: u32 = 2;
const JOBS_MAX: usize = 4096;

/// What a client asks of its core.
pub enum Request {
    Command { table: TableId, words: Vec<Vec<u8>> },
    Flush { table: TableId },
}

/// What became of requests in a turn.
pub enum Event {
    /// Ran on its client's own core.
    Ran(u64),
    /// A command on several shards has all latches and goes to be committed: its place in the order of
    /// all that touch its keys is settled.
    Ordered(u64),
    /// A shard has let the answer go, or its share of it: under `everysec` what it tells of may be lost.
    Released(u64, Option<ShardId>),
    /// The reply has left the machine.
    Replied(u64, Reply),
}

/// The parts of a machine that outlive a cut.
pub struct Plant<'a> {
    pub disk: SimDisk,
    pub dir: &'a Path,
    pub memory: &'a SharedMemory,
    pub cores: u16,
    pub shards: u16,
    pub fsync: Fsync,
}

struct Core {
    owner: Owner,
    cold: ByHand,
    flush: ByHand,
    apply: ByHand,
    cold_waiting: Vec<Box<dyn FnOnce() + Send>>,
    gathers: FxHashMap<u64, (u64, Gather)>,
    gathers_begun: u64,
    /// Replies of this core's own commands that may not leave yet.
    gated: Vec<(u64, ShardId, u64, Reply)>,
    calls: Vec<Option<Calls>>,
    outbox: Vec<(CoreId, Message)>,
    /// Syncs and seals of this core do not run before.
    pub flush_from_ms: u64,
}

pub struct Machine {
    cores: Vec<Core>,
    /// From, to.
    lanes: Vec<Vec<VecDeque<Message>>>,
    map: SlotMap,
    hash: SlotHash,
    commands: CommandTable,
    pub now_ms: u64,
}

pub fn hash() -> SlotHash {
    SlotHash::Crc32 { slots: SLOTS }
}

impl Plant<'_> {
    pub fn map(&self) -> SlotMap {
        let owner =
            |shard| CoreId((u32::from(shard) * u32::from(self.cores) / u32::from(self.shards)) as u16);
        SlotMap::new(Placement::even(SLOTS, self.shards), (0..self.shards).map(owner).collect())
    }

    /// Starts as the server does: recovery of all shards, then each on its core.
    pub fn start(&self, now_ms: u64) -> Result<Machine, Fault> {
        let mut ledger =
            Ledger::from_budget(64 << 20, self.cores, self.shards).expect("a budget above the floor");
        // Small, so that reads go to the store.
        ledger.hot_cache = 16 << 10;
        let config =
            Config { binlog_segment_bytes: 64 << 10, binlog_retention_bytes: 256 << 10, ..Config::default() };
        let map = self.map();
        let opening = Opening {
            disk: Arc::new(self.disk.clone()),
            ledger: &ledger,
            memory: self.memory,
            config: &config,
            placement: map.placement(),
        };
        let plans = open::recover(&opening, |shard| self.dir.join(format!("shard-{}", shard.0)))?;
        let settlement = Arc::new(Settlement::new(self.shards));
        let owners: Vec<CoreId> = map.shards().map(|shard| map.owner(shard)).collect();
        let mut by_core: Vec<_> = (0..self.cores).map(|_| (Vec::new(), Vec::new())).collect();
        let mut clock = Clock::manual(now_ms);
        for plan in plans {
            let core = &mut by_core[usize::from(map.owner(plan.shard).0)];
            let (mut shard, upkeep) =
                open::replay(plan, &ledger, self.fsync, settlement.clone(), &mut clock)?;
            // One shard gives RocksDB all it has through a thread.
            if shard.id == ShardId(0) {
                shard.data.here_max = 0;
            }
            core.0.push(shard);
            core.1.push(upkeep);
        }
        let cores = by_core.into_iter().enumerate().map(|(core, (shards, upkeep))| {
            let (pool, cold) = ByHand::new(JOBS_MAX);
            let (flusher, flush) = ByHand::new(JOBS_MAX);
            let (applier, apply) = ByHand::new(JOBS_MAX);
            let pools = CorePools { pool, flusher, applier };
            let setting = Setting {
                core: CoreId(core as u16),
                hash: hash(),
                tables: TABLES,
                reply_max_elements: 0,
                reply_max_bytes: 0,
                consensus_level: 0,
                value_max_bytes: ledger.value_max,
            };
            let published = Arc::new(Published::new(owners.len() as u16));
            let owners = owners.clone();
            let owner = Owner::new(setting, owners, clock.clone(), shards, pools, upkeep, published);
            Core {
                owner,
                cold,
                flush,
                apply,
                cold_waiting: Vec::new(),
                gathers: FxHashMap::default(),
                gathers_begun: 0,
                gated: Vec::new(),
                calls: (0..self.cores).map(|_| None).collect(),
                outbox: Vec::new(),
                flush_from_ms: 0,
            }
        });
        let cores: Vec<_> = cores.collect();
        let count = cores.len();
        Ok(Machine {
            cores,
            lanes: (0..count).map(|_| (0..count).map(|_| VecDeque::new()).collect()).collect(),
            map,
            hash: hash(),
            commands: CommandTable::default(),
            now_ms,
        })
    }
}

impl Machine {
    /// RocksDB writes all memtables out by itself, as after a full disk: without the slot table, and at a moment
    /// when the log is durable.
    pub fn write_out_unasked(&mut self, at: usize) {
        for shard in &self.cores[at].owner.shards {
            let data = &shard.data;
            if shard.is_settled() && data.hot.is_clean() {
                data.store.seal_job(Vec::new()).run().expect("the disk works");
                while !data.store.flushed().expect("RocksDB answers") {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// One turn of one core, with what its clients ask now.
    pub fn turn(
        &mut self,
        at: usize,
        requests: Vec<(u64, u64, Request)>,
        random: &mut StdRng,
    ) -> Result<Vec<Event>, Fault> {
        let mut events = Vec::new();
        self.cores[at].owner.clock.set_ms(self.now_ms);
        for from in 0..self.cores.len() {
            let waiting = self.lanes[from][at].len();
            let count = if from == at { waiting } else { random.random_range(0..=waiting) };
            for _ in 0..count {
                let message = self.lanes[from][at].pop_front().expect("counted above");
                self.message(at, message, &mut events);
            }
        }
        if random.random_bool(0.7) {
            self.cores[at].owner.take_results()?;
        }
        for (client, op, request) in requests {
            self.request(at, client, op, request, &mut events);
        }
        if random.random_bool(0.3) {
            self.cores[at].owner.tick()?;
        }
        self.cores[at].owner.commit()?;
        self.deliver(at, &mut events);
        Ok(events)
    }

    fn request(&mut self, at: usize, client: u64, op: u64, request: Request, events: &mut Vec<Event>) {
        let (table, words) = match request {
            Request::Flush { table } => {
                let change = WholeTables::Flush { table: Some(table) };
                return self.gather(at, op, |id, around| Gather::tables(id, change, around));
            }
            Request::Command { table, words } => (table, words),
        };
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        for word in &words {
            spans.push(Span { start: bytes.len() as u32, len: word.len() as u32 });
            bytes.extend_from_slice(word);
        }
        let args = Args::new(&bytes, &spans);
        let Some(Run::Keys(command)) = self.commands.find(&words[0]) else { panic!("a command on keys") };
        let routed = route(&self.map, self.hash, &command.spec, &args).expect("its arguments are right");
        let core = &mut self.cores[at];
        let line = LineId { core: core.owner.setting.core, conn: client };
        match routed {
            Route::One(shard) => {
                let call = Call { command, table, shard, args };
                let to = self.map.owner(shard);
                if usize::from(to.0) != at {
                    core.calls[usize::from(to.0)].get_or_insert_with(|| Calls::new(line));
                    // A message carries one connection's commands.
                    let calls = core.calls[usize::from(to.0)].take().expect("put there a line above");
                    let mut calls = if calls.line == line {
                        calls
                    } else {
                        core.outbox.push((to, Message::Calls(calls)));
                        Calls::new(line)
                    };
                    calls.push(&call, op);
                    core.calls[usize::from(to.0)] = Some(calls);
                } else if let Some((reply, position)) = core.owner.run(line, op, &call) {
                    core.gated.push((op, shard, position, reply));
                    events.push(Event::Ran(op));
                }
            }
            Route::Table => unreachable!("no command here reads keys it does not name"),
            Route::Several(keys) => {
                let owned = Call { command, table, shard: ShardId(0), args }.to_owned();
                self.gather(at, op, |id, around| Gather::command(id, owned, &keys, Protocol::Resp2, around));
            }
        }
    }

    fn gather(&mut self, at: usize, op: u64, begin: impl FnOnce(GatherId, &Surroundings<'_>) -> Gather) {
        let core = &mut self.cores[at];
        core.gathers_begun += 1;
        let id = GatherId { core: core.owner.setting.core, number: core.gathers_begun };
        let around = Surroundings {
            map: &self.map,
            scope: core.owner.scope(TableId(0), u32::MAX),
            tables: TABLES,
            assigned: None,
        };
        let gather = begin(id, &around);
        let (map, outbox) = (&self.map, &mut core.outbox);
        gather.start(|shard, step| outbox.push((map.owner(shard), Message::Step(step))));
        core.gathers.insert(id.number, (op, gather));
    }

    fn message(&mut self, at: usize, message: Message, events: &mut Vec<Event>) {
        match message {
            Message::Calls(calls) => self.cores[at].owner.run_all(&calls),
            Message::Answers(answers) => {
                events.extend(answers.into_iter().map(|answer| Event::Replied(answer.seq, answer.reply)));
            }
            Message::Step(step) => self.cores[at].owner.step(step),
            Message::StepDone(done) => self.step_done(at, done, events),
            Message::Computed { number, computed } => {
                self.advance_gather(at, number, events, |gather, _, send| gather.computed(computed, send));
            }
            Message::Ask { .. }
            | Message::Tell { .. }
            | Message::Watched { .. }
            | Message::Unwatch(_)
            | Message::WaitFor { .. }
            | Message::WaitKnown { .. }
            | Message::Wake { .. }
            | Message::WaitOn { .. }
            | Message::WaitNoMore { .. }
            | Message::Replicate { .. }
            | Message::Replicated { .. }
            | Message::Configured(_)
            | Message::Assign { .. }
            | Message::Place { .. }
            | Message::Barrier { .. }
            | Message::Assigned { .. }
            | Message::Planned { .. } => {
                unreachable!("nobody asks, watches, waits or follows here, and no command is a giant")
            }
        }
    }

    fn step_done(&mut self, at: usize, done: StepDone, events: &mut Vec<Event>) {
        let number = done.gather().number;
        self.advance_gather(at, number, events, |gather, around, send| gather.on(done, around, send));
    }

    fn advance_gather(
        &mut self,
        at: usize,
        number: u64,
        events: &mut Vec<Event>,
        advance: impl FnOnce(&mut Gather, &Surroundings<'_>, &mut dyn FnMut(ShardId, Step)) -> Next,
    ) {
        let core = &mut self.cores[at];
        let (op, mut gather) = core.gathers.remove(&number).expect("a coordinator outlives its steps");
        let around = Surroundings {
            map: &self.map,
            scope: core.owner.scope(TableId(0), u32::MAX),
            tables: TABLES,
            assigned: None,
        };
        let (map, outbox) = (&self.map, &mut core.outbox);
        let next = advance(&mut gather, &around, &mut |shard, step| {
            if matches!(step, Step::Commit { .. } | Step::CommitLarge { .. }) {
                events.push(Event::Ordered(op));
            }
            outbox.push((map.owner(shard), Message::Step(step)));
        });
        match next {
            Next::Done(reply) => return events.push(Event::Replied(op, reply)),
            Next::Compute(compute) => {
                let to = core.owner.setting.core;
                core.owner.on_pool(Box::new(move || {
                    let message = Box::new(Message::Computed { number, computed: compute.run() });
                    Done::Told { to, message }
                }));
            }
            Next::Wait => {}
        }
        core.gathers.insert(number, (op, gather));
    }

    /// The end of a turn: mail goes out, and the replies that may leave.
    fn deliver(&mut self, at: usize, events: &mut Vec<Event>) {
        let core = &mut self.cores[at];
        for (to, calls) in core.calls.iter_mut().enumerate() {
            core.outbox.extend(calls.take().map(|calls| (CoreId(to as u16), Message::Calls(calls))));
        }
        core.outbox.append(&mut core.owner.outgoing);
        let mut committed = Vec::new();
        for (to, message) in core.outbox.drain(..) {
            match &message {
                Message::Answers(answers) => {
                    events.extend(answers.iter().map(|answer| Event::Released(answer.seq, None)));
                }
                Message::StepDone(StepDone::Committed { gather, shard }) => committed.push((*gather, *shard)),
                _ => {}
            }
            self.lanes[at][usize::from(to.0)].push_back(message);
        }
        for (gather, shard) in committed {
            let (op, _) = self.cores[usize::from(gather.core.0)].gathers[&gather.number];
            events.push(Event::Released(op, Some(shard)));
        }
        let core = &mut self.cores[at];
        for finished in std::mem::take(&mut core.owner.finished) {
            core.gated.push((finished.answer.seq, finished.shard, finished.position, finished.answer.reply));
        }
        let now_ms = self.now_ms;
        for (op, shard, position, reply) in std::mem::take(&mut core.gated) {
            if position <= core.owner.shard(shard).released(now_ms) {
                events.push(Event::Replied(op, reply));
            } else {
                core.gated.push((op, shard, position, reply));
            }
        }
    }

    /// Runs some of what waits for the pools: syncs and seals in order, and batches for RocksDB, the rest in any.
    pub fn run_jobs(&mut self, random: &mut StdRng) {
        for core in &mut self.cores {
            while let Some(job) = core.cold.next() {
                core.cold_waiting.push(job);
            }
            for _ in 0..random.random_range(0..=core.cold_waiting.len()) {
                core.cold_waiting.swap_remove(random.random_range(0..core.cold_waiting.len()))();
            }
            while self.now_ms >= core.flush_from_ms
                && random.random_bool(0.6)
                && let Some(job) = core.flush.next()
            {
                job();
            }
            while random.random_bool(0.6)
                && let Some(job) = core.apply.next()
            {
                job();
            }
        }
    }

    /// A disk that is slow to sync, for one core's logs.
    pub fn stall_flushes(&mut self, at: usize, ms: u64) {
        self.cores[at].flush_from_ms = self.now_ms + ms;
    }

    pub fn seal(&mut self, at: usize) {
        self.cores[at].owner.seal_all();
    }

    pub fn core_count(&self) -> usize {
        self.cores.len()
    }

    pub fn core_of(&self, name: &[u8]) -> usize {
        usize::from(self.map.owner(shard_of(&self.map, self.hash, name)).0)
    }

    /// RocksDB's files hold nothing that the log may still lose.
    pub fn check_persisted(&self) {
        for shard in self.cores.iter().flat_map(|core| &core.owner.shards) {
            let persisted = shard.data.store.persisted_lsn().expect("the store can be read").unwrap_or(0);
            let durable = shard.settled.upto();
            assert!(persisted <= durable, "shard {}: persisted {persisted}, settled {durable}", shard.id.0);
        }
    }
}

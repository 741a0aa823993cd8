//! The power-cut test: clients, slow syncs, sealed memtables and rolled segments on a machine whose power is
//! cut at random moments; after each cut it starts again, and what it promised must be there.
//!
//! The logs lie on a disk that drops, tears and reorders what was not synced. A failing seed prints itself.

mod collections;
mod history;
mod machine;

use crate::binlog::sim::SimDisk;
use crate::config::Fsync;
use crate::error::Fault;
use crate::resp::reply::Reply;
use crate::slot::TableId;
use crate::store::SharedMemory;
use collections::{change, combined, reading, value_of};
use history::{History, shown};
use machine::{Event, Machine, Plant, Request};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

const CLIENTS: usize = 6;
/// By kind: counters, strings that end, strings; then collections.
const OWN_KEYS: usize = 14;
const OWN_TEXTS: usize = 8;
const OWN_HASH: usize = 8;
const OWN_LIST: usize = 9;
const OWN_SETS: std::ops::Range<usize> = 10..13;
const SHARED_KEYS: usize = 12;
const PIPELINE_MAX: usize = 8;
/// What each client alone writes: in the order in which it asks.
const OWN: TableId = TableId(0);
/// What all write, only with commands on several shards.
const SHARED: TableId = TableId(1);
/// Turns within which everything asked is answered.
const TURNS_MAX: usize = 30_000;

/// What is checked when a reply comes.
enum Expect {
    Anything,
    Int(i64),
    /// A read, of the state the key is in then.
    State(usize, usize),
    Shared(usize),
}

/// A write of shared keys whose place in their order is not settled yet.
enum Shared {
    Set(Vec<usize>),
    Delete(Vec<usize>),
    Rename(usize, usize),
    Flush,
}

struct Asked {
    client: usize,
    asked_ms: u64,
    expect: Expect,
    shared: Option<Shared>,
    flushes_own: bool,
}

#[derive(Clone, Copy, Default)]
struct Client {
    outstanding: usize,
    /// Has asked for something on several shards: nothing else until it is answered.
    alone: bool,
}

struct Run<'a> {
    plant: Plant<'a>,
    machine: Machine,
    random: StdRng,
    history: History,
    clients: [Client; CLIENTS],
    asked: BTreeMap<u64, Asked>,
    next_op: u64,
    /// All clients wait until nothing is outstanding, then one empties the table of own keys.
    flush_wanted: bool,
    /// The disk may begin to fail: the cut is near.
    failing: bool,
    /// It has, and a write was refused for it.
    refused: bool,
}

fn run(seed: u64, memory: &SharedMemory, steps: usize, cuts: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let fsync = if random.random_bool(0.5) { Fsync::Always } else { Fsync::Everysec };
    let (shards, cores) = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)][random.random_range(0..6)];
    let dir = tempfile::tempdir_in(if cfg!(target_os = "linux") { "/dev/shm" } else { "." })
        .expect("room for a store");
    let plant = Plant { disk: SimDisk::new(seed), dir: dir.path(), memory, cores, shards, fsync };
    let own = (0..CLIENTS * OWN_KEYS).map(|key| (OWN, own_name(key).into_bytes()));
    let shared = (0..SHARED_KEYS).map(|key| (SHARED, format!("shared-{key}").into_bytes()));
    let history = History::new(own.chain(shared), &plant.map(), fsync);
    let machine = plant.start(1_000_000).expect("an empty machine starts");
    let (clients, asked) = ([Client::default(); CLIENTS], BTreeMap::new());
    let mut run = Run {
        plant,
        machine,
        random,
        history,
        clients,
        asked,
        next_op: 1,
        flush_wanted: false,
        failing: false,
        refused: false,
    };
    for _ in 0..cuts {
        for _ in 0..run.random.random_range(1..=steps) {
            run.step().expect("the disk works");
        }
        run = run.cut();
    }
}

fn own_name(key: usize) -> String {
    let kind = match key % OWN_KEYS {
        0..OWN_TEXTS => "own",
        OWN_HASH => "hash",
        OWN_LIST => "list",
        kind if OWN_SETS.contains(&kind) => "set",
        _ => "sorted",
    };
    format!("{kind}-{key}")
}

impl<'a> Run<'a> {
    fn step(&mut self) -> Result<(), Fault> {
        self.machine.now_ms += match self.random.random_range(0..100) {
            0..60 => self.random.random_range(0..3),
            60..97 => self.random.random_range(0..20),
            _ => self.random.random_range(0..400),
        };
        let core = self.random.random_range(0..self.machine.core_count());
        let mut requests = Vec::new();
        for _ in 0..self.random.random_range(0..6) {
            requests.extend(self.ask(core));
        }
        self.turn(core, requests)?;
        if self.random.random_bool(0.01) {
            self.machine.seal(core);
        }
        if self.random.random_bool(0.01) {
            self.machine.write_out_unasked(core);
        }
        if self.random.random_bool(0.004) {
            let ms = self.random.random_range(100..4000);
            self.machine.stall_flushes(core, ms);
        }
        Ok(())
    }

    fn turn(&mut self, core: usize, requests: Vec<(u64, u64, Request)>) -> Result<(), Fault> {
        for event in self.machine.turn(core, requests, &mut self.random)? {
            self.event(event);
        }
        self.machine.run_jobs(&mut self.random);
        if self.random.random_bool(0.1) {
            self.machine.check_persisted();
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        let now_ms = self.machine.now_ms;
        match event {
            Event::Ran(op) => self.history.ran(op, now_ms),
            Event::Released(op, shard) => self.history.released(op, shard, now_ms),
            Event::Ordered(op) => self.ordered(op),
            Event::Replied(op, reply) => self.replied(op, reply),
        }
    }

    fn ordered(&mut self, op: u64) {
        let value = |key: usize| Some(format!("{op} to {key}").into_bytes());
        let history = &mut self.history;
        match self.asked[&op].shared {
            None => {}
            Some(Shared::Set(ref keys)) => {
                keys.iter().for_each(|key| history.write(op, *key, value(*key), None))
            }
            Some(Shared::Delete(ref keys)) => keys.iter().for_each(|key| history.write(op, *key, None, None)),
            Some(Shared::Rename(from, to)) => {
                let moved = history.last(from).value.clone();
                history.write(op, to, moved, None);
                history.write(op, from, None, None);
            }
            Some(Shared::Flush) => {
                history.wide(op);
                (CLIENTS * OWN_KEYS..history.keys.len()).for_each(|key| history.write(op, key, None, None));
            }
        }
    }

    fn replied(&mut self, op: u64, reply: Reply) {
        let Some(asked) = self.asked.remove(&op) else { panic!("command {op} is answered twice") };
        let client = &mut self.clients[asked.client];
        client.outstanding -= 1;
        client.alone = false;
        if asked.flushes_own {
            self.flush_wanted = false;
        }
        let now_ms = self.machine.now_ms;
        if let Reply::Error(error) = &reply
            && self.failing
            && error.0.contains("no space left")
        {
            self.refused = true;
            return;
        }
        self.history.replied(op, now_ms);
        if self.refused {
            // What should be read is not known any more.
            return;
        }
        match (&asked.expect, &reply) {
            (_, Reply::Error(error)) => {
                let missing =
                    matches!(asked.shared, Some(Shared::Rename(..))) && error.0.contains("no such key");
                assert!(missing, "command {op}: {}", error.0);
            }
            (Expect::Anything, _) => {}
            (Expect::Int(expected), reply) => assert_eq!(*reply, Reply::Int(*expected), "command {op}"),
            (Expect::State(key, at), reply) => {
                let (name, state) = (&self.history.keys[*key].name, &self.history.keys[*key].states[*at]);
                let found = value_of(name, reply);
                let is = |at_ms| state.visible(at_ms) == found.as_ref();
                assert!(
                    is(asked.asked_ms) || is(now_ms),
                    "command {op} on {}: {} instead of {}",
                    name.escape_ascii(),
                    shown(found.as_ref()),
                    shown(state.value.as_ref())
                );
                self.history.shown(*key, *at);
            }
            (Expect::Shared(key), reply) => {
                let value = value_of(&self.history.keys[*key].name, reply);
                let states = &self.history.keys[*key].states;
                let at = states.iter().position(|state| state.value == value);
                let at =
                    at.unwrap_or_else(|| panic!("command {op}: {} was never written", shown(value.as_ref())));
                self.history.shown(*key, at);
            }
        }
    }

    /// What some client of this core asks next, if it may.
    fn ask(&mut self, core: usize) -> Option<(u64, u64, Request)> {
        let at = self.random.random_range(0..CLIENTS);
        let client = self.clients[at];
        if at % self.machine.core_count() != core || client.alone || client.outstanding >= PIPELINE_MAX {
            return None;
        }
        let idle = client.outstanding == 0;
        if self.flush_wanted {
            if !self.asked.is_empty() {
                return None;
            }
            let op = self.begin(at, Expect::Anything, None);
            (0..CLIENTS * OWN_KEYS).for_each(|key| self.history.write(op, key, None, None));
            self.clients[at].alone = true;
            self.asked.get_mut(&op).expect("just begun").flushes_own = true;
            return Some((at as u64, op, Request::Flush { table: OWN }));
        }
        match self.random.random_range(0..100) {
            0..25 if idle => self.ask_shared(at),
            25..31 if idle => Some(self.set_own(at)),
            31..35 if idle => Some(self.store_own(at)),
            35..45 => Some(self.get_shared(at)),
            45 if self.random.random_bool(0.3) => {
                self.flush_wanted = true;
                None
            }
            46.. => Some(self.ask_own(at)),
            _ => None,
        }
    }

    fn begin(&mut self, client: usize, expect: Expect, shared: Option<Shared>) -> u64 {
        let op = self.next_op;
        self.next_op += 1;
        self.clients[client].outstanding += 1;
        self.asked
            .insert(op, Asked { client, asked_ms: self.machine.now_ms, expect, shared, flushes_own: false });
        op
    }

    fn command(&self, client: usize, op: u64, table: TableId, words: Vec<Vec<u8>>) -> (u64, u64, Request) {
        (client as u64, op, Request::Command { table, words })
    }

    fn name(&self, key: usize) -> Vec<u8> {
        self.history.keys[key].name.clone()
    }

    /// One of the commands on one of the client's own keys; each key has its kind of value.
    fn ask_own(&mut self, at: usize) -> (u64, u64, Request) {
        let kind = self.random.random_range(0..OWN_KEYS);
        let key = at * OWN_KEYS + kind;
        let (name, now_ms) = (self.name(key), self.machine.now_ms);
        let len = self.history.last(key).value.as_ref().map_or(0, Vec::len);
        let choice = self.random.random_range(0..10);
        let (words, value, expire_ms, expect): (Vec<Vec<u8>>, _, _, _) = match (kind, choice) {
            (_, 0..2) => {
                let state = self.history.keys[key].states.len() - 1;
                let op = self.begin(at, Expect::State(key, state), None);
                return self.command(at, op, OWN, reading(&name));
            }
            (_, 2) => (vec![b"DEL".to_vec(), name], None, None, Expect::Anything),
            (OWN_TEXTS.., _) => {
                let old = self.history.last(key).value.as_ref();
                let change = change(&name, old, self.next_op, &mut self.random);
                let expect = change.answer.map_or(Expect::Anything, Expect::Int);
                (change.words, change.value, None, expect)
            }
            (0..3, _) => {
                let old = self.history.last(key).value.as_ref().map_or(0, |value| number(value));
                (
                    vec![b"INCR".to_vec(), name],
                    Some((old + 1).to_string().into_bytes()),
                    None,
                    Expect::Int(old + 1),
                )
            }
            (3, 3..8) => {
                let ms = self.random.random_range(20..3000u64);
                let value = format!("{} for {ms} ms", self.next_op).into_bytes();
                let words = vec![
                    b"SET".to_vec(),
                    name,
                    value.clone(),
                    b"PXAT".to_vec(),
                    (now_ms + ms).to_string().into_bytes(),
                ];
                (words, Some(value), Some(now_ms + ms), Expect::Anything)
            }
            (4.., 3..7) if len < 90_000 => {
                let more = format!("{};", self.next_op).into_bytes();
                let value = [self.history.last(key).value.clone().unwrap_or_default(), more.clone()].concat();
                let len = value.len() as i64;
                (vec![b"APPEND".to_vec(), name, more], Some(value), None, Expect::Int(len))
            }
            _ => {
                let long =
                    if kind == 4 && choice == 9 { self.random.random_range(60_000..80_000) } else { 0 };
                let value = format!("{}:{}", self.next_op, "x".repeat(long)).into_bytes();
                (vec![b"SET".to_vec(), name, value.clone()], Some(value), None, Expect::Anything)
            }
        };
        let op = self.begin(at, expect, None);
        self.history.write(op, key, value, expire_ms);
        self.command(at, op, OWN, words)
    }

    /// MSET of some of the client's own keys, wherever they lie.
    fn set_own(&mut self, at: usize) -> (u64, u64, Request) {
        let op = self.begin(at, Expect::Anything, None);
        let mut words = vec![b"MSET".to_vec()];
        for kind in 5..OWN_TEXTS {
            let key = at * OWN_KEYS + kind;
            let value = format!("{op} to {key}").into_bytes();
            words.extend([self.name(key), value.clone()]);
            self.history.write(op, key, Some(value), None);
        }
        self.clients[at].alone = true;
        self.command(at, op, OWN, words)
    }

    /// Combines or moves the client's own sets, wherever they lie.
    fn store_own(&mut self, at: usize) -> (u64, u64, Request) {
        let mut pick = || at * OWN_KEYS + self.random.random_range(OWN_SETS);
        let (to, first, second) = (pick(), pick(), pick());
        let verb = ["SUNIONSTORE", "SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE", "RENAME"]
            [self.random.random_range(0..5)];
        let op = self.begin(at, Expect::Anything, None);
        let value = |key| self.history.last(key).value.as_ref();
        self.clients[at].alone = true;
        if verb == "RENAME" && to != first && value(first).is_some() {
            let moved = value(first).cloned();
            self.history.write(op, to, moved, None);
            self.history.write(op, first, None, None);
            return self.command(at, op, OWN, vec![verb.into(), self.name(first), self.name(to)]);
        }
        let verb = if verb == "RENAME" { "SUNIONSTORE" } else { verb };
        let stored = combined(verb, value(first), value(second));
        self.history.write(op, to, stored, None);
        self.command(at, op, OWN, vec![verb.into(), self.name(to), self.name(first), self.name(second)])
    }

    fn get_shared(&mut self, at: usize) -> (u64, u64, Request) {
        let key = CLIENTS * OWN_KEYS + self.random.random_range(0..SHARED_KEYS);
        let op = self.begin(at, Expect::Shared(key), None);
        self.command(at, op, SHARED, vec![b"GET".to_vec(), self.name(key)])
    }

    fn ask_shared(&mut self, at: usize) -> Option<(u64, u64, Request)> {
        if self.random.random_bool(0.03) {
            self.clients[at].alone = true;
            let op = self.begin(at, Expect::Anything, Some(Shared::Flush));
            return Some((at as u64, op, Request::Flush { table: SHARED }));
        }
        let mut keys: Vec<usize> = Vec::new();
        for _ in 0..self.random.random_range(2..5) {
            let key = CLIENTS * OWN_KEYS + self.random.random_range(0..SHARED_KEYS);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let shard = |key: &usize| self.history.keys[*key].shard;
        if keys.iter().all(|key| shard(key) == shard(&keys[0])) {
            return None;
        }
        self.clients[at].alone = true;
        let names = |verb: &str| {
            let names = keys.iter().map(|key| self.history.keys[*key].name.clone());
            std::iter::once(verb.as_bytes().to_vec()).chain(names).collect::<Vec<_>>()
        };
        let (words, shared) = match self.random.random_range(0..10) {
            0 => (names("DEL"), Shared::Delete(keys)),
            1..4 if keys.len() == 2 => (names("RENAME"), Shared::Rename(keys[0], keys[1])),
            _ => {
                let op = self.next_op;
                let value = |key: usize| format!("{op} to {key}").into_bytes();
                let pairs = keys.iter().flat_map(|key| [self.history.keys[*key].name.clone(), value(*key)]);
                (std::iter::once(b"MSET".to_vec()).chain(pairs).collect(), Shared::Set(keys))
            }
        };
        let op = self.begin(at, Expect::Anything, Some(shared));
        Some(self.command(at, op, SHARED, words))
    }

    /// Cuts the power, now or in the middle of what the disk does next, and starts again.
    fn cut(mut self) -> Run<'a> {
        if self.random.random_bool(0.5) {
            self.failing = true;
            self.plant.disk.limit_changes(Some(self.random.random_range(0..60)));
            for _ in 0..300 {
                if self.step().is_err() {
                    break;
                }
            }
        }
        let Run { plant, machine, mut random, mut history, next_op, .. } = self;
        let now_ms = machine.now_ms;
        tracing::info!(now_ms, next_op, "the power is cut");
        drop(machine);
        let mut machine = loop {
            plant.disk.limit_changes(None);
            plant.disk.crash(random.random());
            let again = random.random_bool(0.2);
            if again {
                plant.disk.limit_changes(Some(random.random_range(0..40)));
            }
            match plant.start(now_ms) {
                Ok(machine) => break machine,
                Err(_) if again => {}
                Err(fault) => panic!("the start failed: {fault}"),
            }
        };
        plant.disk.limit_changes(None);
        let found = read_all(&mut machine, &history, &mut random);
        history.check(&found, now_ms);
        let (clients, asked) = (Default::default(), BTreeMap::new());
        Run {
            plant,
            machine,
            random,
            history,
            clients,
            asked,
            next_op,
            flush_wanted: false,
            failing: false,
            refused: false,
        }
    }
}

/// Every key as a client reads it, once its answer may leave.
fn read_all(machine: &mut Machine, history: &History, random: &mut StdRng) -> Vec<Option<Vec<u8>>> {
    let mut found: Vec<Option<Reply>> = history.keys.iter().map(|_| None).collect();
    let mut requests: Vec<Vec<_>> = (0..machine.core_count()).map(|_| Vec::new()).collect();
    for (at, key) in history.keys.iter().enumerate() {
        let words = reading(&key.name);
        requests[machine.core_of(&key.name)].push((
            at as u64,
            at as u64,
            Request::Command { table: key.table, words },
        ));
    }
    for turn in 0..TURNS_MAX {
        let core = turn % machine.core_count();
        let events = machine.turn(core, std::mem::take(&mut requests[core]), random).expect("the disk works");
        for event in events {
            if let Event::Replied(at, reply) = event {
                found[at as usize] = Some(reply);
            }
        }
        machine.run_jobs(random);
        machine.check_persisted();
        if found.iter().all(Option::is_some) {
            let found = history.keys.iter().zip(found.iter().flatten());
            return found.map(|(key, reply)| value_of(&key.name, reply)).collect();
        }
    }
    panic!("reads are not answered");
}

fn number(value: &[u8]) -> i64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).expect("counters hold numbers")
}

fn run_seeds(seeds: impl Iterator<Item = u64>, steps: usize, cuts: usize, limit: Duration) {
    let memory = SharedMemory::new(1 << 20, 16 << 20, 1).expect("RocksDB can be prepared");
    let started = Instant::now();
    let mut count = 0;
    for seed in seeds.take_while(|_| started.elapsed() < limit) {
        count += 1;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, &memory, steps, cuts))) {
            eprintln!("power cut: seed {seed} failed");
            resume_unwind(panic);
        }
    }
    eprintln!("power cut: {count} seeds, {cuts} cuts each, in {:?}", started.elapsed());
}

#[test]
fn what_was_promised_survives_power_cuts() {
    run_seeds(0..30, 600, 5, Duration::from_secs(15));
}

/// `POWER_CUT_SEED` runs one seed alone, `POWER_CUT_SECONDS` says how long.
#[test]
#[ignore = "long"]
fn what_was_promised_survives_many_power_cuts() {
    let from = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let limit = Duration::from_secs(from("POWER_CUT_SECONDS").unwrap_or(600));
    match from("POWER_CUT_SEED") {
        Some(seed) => {
            tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
            run_seeds(seed..seed + 1, 600, 5, limit);
        }
        None => run_seeds(1000..u64::MAX, 600, 5, limit),
    }
}

//! The same random commands to haypile and to redis-server: every reply must be the same, byte for byte.
//!
//! What time or order leaves open is compared as far as it is fixed (see `Rule`). A difference is
//! narrowed to the few commands that bring it about before it is shown.

mod commands;
mod harness;

use commands::{Generator, Step};
use harness::{Client, Options, Server, Value};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Connections to each side: with more than one, commands arrive at every core.
const CONNECTIONS: usize = 4;
/// Replies that name a moment may differ by the time between the two sends.
const CLOCK_TOLERANCE_MS: i64 = 5_000;
/// Replays spent on narrowing a difference down.
const REPLAYS_MAX: usize = 400;
const NARROWING_MAX: Duration = Duration::from_secs(90);

/// How far two replies must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Bytes,
    /// Integers of this unit, from the clock; negative ones mean something else and must be equal.
    Clock {
        unit_ms: i64,
    },
    /// Seconds since the last use: haypile may have forgotten an old one, and then says less.
    Idle,
    /// A shared object's count and 1 are both fine: Redis shares small integers, but not those that COPY made.
    Refcount,
    /// An array in any order.
    AnyOrder,
    /// A whole iteration finds the same keys.
    WholeScan,
    /// Both find some key that exists, or none.
    SomeKey,
}

impl Rule {
    fn of(args: &[Vec<u8>]) -> Rule {
        let word = |at: usize| args.get(at).map(|arg| arg.to_ascii_uppercase()).unwrap_or_default();
        match word(0).as_slice() {
            b"TTL" | b"EXPIRETIME" => Rule::Clock { unit_ms: 1_000 },
            b"PTTL" | b"PEXPIRETIME" => Rule::Clock { unit_ms: 1 },
            b"OBJECT" if word(1) == b"IDLETIME" => Rule::Idle,
            b"OBJECT" if word(1) == b"REFCOUNT" => Rule::Refcount,
            b"KEYS" => Rule::AnyOrder,
            b"SCAN" if word(1) == b"0" => Rule::WholeScan,
            b"RANDOMKEY" => Rule::SomeKey,
            _ => Rule::Bytes,
        }
    }
}

fn within_clock(ours: &Value, theirs: &Value, unit_ms: i64) -> bool {
    match (ours.int(), theirs.int()) {
        (Some(a), Some(b)) if a >= 0 && b >= 0 => a.abs_diff(b) <= (CLOCK_TOLERANCE_MS / unit_ms) as u64,
        _ => ours == theirs,
    }
}

fn sorted(value: &Value) -> Option<BTreeSet<Vec<u8>>> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.bytes().map(<[u8]>::to_vec)).collect(),
        _ => None,
    }
}

type Raw = (Value, Vec<u8>);

/// One server with its connections.
struct Side {
    server: Server,
    clients: Vec<Client>,
}

impl Side {
    fn start(options: Options) -> Side {
        let server = Server::start(options);
        let clients = (0..CONNECTIONS).map(|_| server.client()).collect();
        let mut side = Side { server, clients };
        side.reset();
        side
    }

    /// An empty server, every connection in database 0; the last one speaks RESP3.
    fn reset(&mut self) {
        for client in &mut self.clients {
            assert_eq!(client.ask("SELECT 0"), Value::ok());
        }
        assert_eq!(self.clients[0].ask("FLUSHALL"), Value::ok());
        self.clients[CONNECTIONS - 1].ask("HELLO 3");
    }

    fn reply(&mut self, connection: usize) -> Raw {
        match self.clients[connection].read_raw() {
            Ok(raw) => raw,
            Err(e) => panic!(
                "connection {connection} of {:?}: {e}\n{}",
                self.server.options,
                self.server.log_tail()
            ),
        }
    }

    fn call(&mut self, step: &Step) -> Raw {
        self.clients[step.connection].send(&step.args).expect("the server reads");
        self.reply(step.connection)
    }

    /// The keys of an iteration to its end, or the error that a call of it was answered with.
    fn scan(&mut self, step: &Step) -> Result<BTreeSet<Vec<u8>>, Vec<u8>> {
        let mut step = step.clone();
        let mut found = BTreeSet::new();
        for _call in 0..10_000 {
            let (reply, raw) = self.call(&step);
            let [cursor, keys] = reply.items() else { return Err(raw) };
            found.extend(sorted(keys).ok_or_else(|| raw.clone())?);
            step.args[1] = cursor.bytes().ok_or_else(|| raw.clone())?.to_vec();
            if step.args[1] == b"0" {
                return Ok(found);
            }
        }
        panic!("a SCAN without an end");
    }

    fn exists(&mut self, connection: usize, key: &[u8]) -> bool {
        self.clients[connection].must(&args!["EXISTS", key]) == Value::Int(1)
    }
}

struct Pair {
    ours: Side,
    theirs: Side,
}

impl Pair {
    fn start(shards: u16) -> Pair {
        Pair { ours: Side::start(Options::shards(shards)), theirs: Side::start(Options::redis()) }
    }

    fn reset(&mut self) {
        self.ours.reset();
        self.theirs.reset();
    }

    /// None when both agree, else what each said.
    fn step(&mut self, step: &Step) -> Option<String> {
        if let Some(wait) = step.pause() {
            std::thread::sleep(wait);
            return None;
        }
        if Rule::of(&step.args) == Rule::WholeScan {
            let (ours, theirs) = (self.ours.scan(step), self.theirs.scan(step));
            return (ours != theirs).then(|| format!(" haypile: {ours:?}\n   redis: {theirs:?}"));
        }
        let (ours, theirs) = (self.ours.call(step), self.theirs.call(step));
        if Rule::of(&step.args) == Rule::SomeKey
            && let (Some(mine), Some(other)) = (ours.0.bytes(), theirs.0.bytes())
        {
            let both = self.ours.exists(step.connection, mine) && self.theirs.exists(step.connection, other);
            return (!both).then(|| difference(&ours, &theirs));
        }
        compare(step, &ours, &theirs)
    }

    /// Sends all steps at once on one connection, and compares the replies one by one.
    fn pipeline(&mut self, steps: &[Step]) -> Option<(usize, String)> {
        let connection = steps[0].connection;
        let frames = || steps.iter().map(|step| step.args.as_slice());
        self.ours.clients[connection].send_all(frames()).expect("the server reads");
        self.theirs.clients[connection].send_all(frames()).expect("the server reads");
        let mut first = None;
        for (at, step) in steps.iter().enumerate() {
            let (ours, theirs) = (self.ours.reply(connection), self.theirs.reply(connection));
            let differs = compare(step, &ours, &theirs).map(|text| (at, text));
            first = first.or(differs);
        }
        first
    }

    /// Whether the last of these steps, run from nothing, is still answered differently.
    fn still_differs(&mut self, steps: &[Step]) -> bool {
        self.reset();
        let (last, before) = steps.split_last().expect("there is a differing step");
        for step in before {
            self.step(step);
        }
        self.step(last).is_some()
    }

    /// The fewest steps found that still differ at the end; None if the difference does not come again.
    fn narrow(&mut self, steps: &[Step]) -> Option<Vec<Step>> {
        let begun = Instant::now();
        let mut replays = 0;
        let mut length = 1;
        let mut kept = loop {
            let tail = &steps[steps.len() - length..];
            replays += 1;
            if self.still_differs(tail) {
                break tail.to_vec();
            }
            if length == steps.len() {
                return None;
            }
            length = (length * 2).min(steps.len());
        };
        let mut chunk = kept.len() / 2;
        while chunk > 0 {
            let mut at = 0;
            while at + chunk < kept.len() && replays < REPLAYS_MAX && begun.elapsed() < NARROWING_MAX {
                let fewer = [&kept[..at], &kept[at + chunk..]].concat();
                replays += 1;
                if self.still_differs(&fewer) {
                    kept = fewer;
                } else {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        Some(kept)
    }
}

fn compare(step: &Step, ours: &Raw, theirs: &Raw) -> Option<String> {
    let same = match Rule::of(&step.args) {
        Rule::Bytes | Rule::WholeScan => ours.1 == theirs.1,
        Rule::Idle => match (ours.0.int(), theirs.0.int()) {
            (Some(a), Some(b)) if a >= 0 && b >= 0 => a <= b + CLOCK_TOLERANCE_MS / 1_000,
            _ => ours.1 == theirs.1,
        },
        Rule::Refcount => {
            let counts = [Value::Int(1), Value::Int(i64::from(i32::MAX))];
            ours.1 == theirs.1 || (counts.contains(&ours.0) && counts.contains(&theirs.0))
        }
        Rule::Clock { unit_ms } => within_clock(&ours.0, &theirs.0, unit_ms),
        Rule::AnyOrder => match (sorted(&ours.0), sorted(&theirs.0)) {
            (Some(a), Some(b)) => a == b && ours.0.items().len() == theirs.0.items().len(),
            _ => ours.1 == theirs.1,
        },
        Rule::SomeKey => {
            matches!((&ours.0, &theirs.0), (Value::Bulk(_), Value::Bulk(_))) || ours.1 == theirs.1
        }
    };
    (!same).then(|| difference(ours, theirs))
}

fn difference(ours: &Raw, theirs: &Raw) -> String {
    format!(" haypile: {}\n   redis: {}", commands::short(&ours.1), commands::short(&theirs.1))
}

fn fail(pair: &mut Pair, seed: u64, history: &[Step], text: &str) -> ! {
    let (note, steps) = match pair.narrow(history) {
        Some(steps) => ("these commands alone bring it about", steps),
        None => (
            "it did not come again; the last commands were",
            history[history.len().saturating_sub(20)..].to_vec(),
        ),
    };
    let lines: Vec<String> = steps.iter().map(Step::to_string).collect();
    panic!("seed {seed}, command {}: replies differ\n{text}\n{note}:\n{}", history.len(), lines.join("\n"));
}

/// Runs `count` commands, about a third of them in pipelines.
fn run(shards: u16, seed: u64, count: usize) {
    let mut pair = Pair::start(shards);
    let mut generator = Generator::new(StdRng::seed_from_u64(seed));
    let mut history: Vec<Step> = Vec::new();
    while history.len() < count {
        let from = history.len();
        if !generator.busy() && generator.rng.random_bool(0.02) {
            let length = generator.rng.random_range(2..=50);
            let connection = generator.rng.random_range(0..CONNECTIONS);
            history.extend((0..length).map(|_| generator.single_key(connection)));
            if let Some((at, text)) = pair.pipeline(&history[from..]) {
                fail(&mut pair, seed, &history[..=from + at], &format!("(in a pipeline)\n{text}"));
            }
        } else {
            history.push(generator.any(CONNECTIONS));
            if let Some(text) = pair.step(&history[from]) {
                fail(&mut pair, seed, &history, &text);
            }
        }
    }
    let ours = pair.ours.scan(&Step::new(0, args!["SCAN", "0"]));
    assert_eq!(ours, pair.theirs.scan(&Step::new(0, args!["SCAN", "0"])), "seed {seed}: keys at the end");
}

const SHORT_COMMANDS: usize = 6_000;
const LONG_COMMANDS: usize = 100_000;

#[test]
fn differential_one_shard() {
    run(1, 1, SHORT_COMMANDS);
}

#[test]
fn differential_two_shards() {
    run(2, 2, SHORT_COMMANDS);
}

#[test]
fn differential_four_shards() {
    run(4, 4, SHORT_COMMANDS);
}

/// HAYPILE_SEED chooses the seed; else every run has another.
#[test]
#[ignore = "minutes"]
fn differential_long() {
    let given = std::env::var("HAYPILE_SEED").map(|text| text.parse().expect("HAYPILE_SEED is a number"));
    let seed = given.unwrap_or_else(|_| rand::rng().random_range(0..1_000_000));
    for shards in [1, 2, 4] {
        println!("{shards} shards, seed {seed}");
        run(shards, seed, LONG_COMMANDS);
    }
}

#[test]
fn a_difference_is_seen() {
    let raw = |value: Value, bytes: &str| (value, bytes.as_bytes().to_vec());
    let step = |line: &str| Step::new(0, line.split(' ').map(|word| word.as_bytes().to_vec()).collect());
    let int = |n: i64| raw(Value::Int(n), &format!(":{n}\r\n"));
    assert!(compare(&step("GET k"), &raw(Value::NilBulk, "$-1\r\n"), &raw(Value::Null, "_\r\n")).is_some());
    assert!(compare(&step("INCR k"), &int(1), &int(1)).is_none());
    assert!(compare(&step("INCR k"), &int(1), &int(2)).is_some());
    assert!(compare(&step("ttl k"), &int(1_000), &int(1_001)).is_none());
    assert!(compare(&step("TTL k"), &int(1_000), &int(1_100)).is_some());
    assert!(compare(&step("TTL k"), &int(-1), &int(-2)).is_some());
    assert!(compare(&step("OBJECT IDLETIME k"), &int(0), &int(60)).is_none());
    assert!(compare(&step("OBJECT IDLETIME k"), &int(60), &int(0)).is_some());
    assert!(compare(&step("OBJECT REFCOUNT k"), &int(1), &int(2_147_483_647)).is_none());
    assert!(compare(&step("OBJECT REFCOUNT k"), &int(1), &int(2)).is_some());
    assert!(compare(&step("OBJECT REFCOUNT k"), &int(1), &raw(Value::NilBulk, "$-1\r\n")).is_some());
    let keys = |names: &[&str]| raw(Value::Array(names.iter().map(Value::bulk).collect()), "");
    assert!(compare(&step("KEYS *"), &keys(&["a", "b"]), &keys(&["b", "a"])).is_none());
    assert!(compare(&step("KEYS *"), &keys(&["a", "b"]), &keys(&["a", "a"])).is_some());
    assert!(compare(&step("KEYS *"), &keys(&["a", "a", "b"]), &keys(&["a", "b"])).is_some());
}

#[test]
fn a_pause_is_no_command() {
    assert_eq!(Step::sleep(0, 20).pause(), Some(Duration::from_millis(20)));
    assert_eq!(Step::new(0, args!["GET", "k"]).pause(), None);
}

//! The same random commands to haypile and to redis-server: every reply must be the same, byte for byte.
//!
//! What time or order leaves open is compared as far as it is fixed (see `Rule`). A difference is
//! narrowed to the few commands that bring it about before it is shown.

mod commands;
mod harness;

use commands::rules::{Raw, Rule, Verdict, difference, entry_id_at, in_order, plus_zero};
use commands::{Generator, OURS, Step, THEIRS};
use harness::{Client, Options, Server, Value};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Connections to each side: with more than one, commands arrive at every core.
const CONNECTIONS: usize = 4;
/// Replays spent on narrowing a difference down.
const REPLAYS_MAX: usize = 400;
const NARROWING_MAX: Duration = Duration::from_secs(90);

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

    /// What an iteration finds to its end, or the error that a call of it was answered with.
    fn scan(&mut self, step: &Step, cursor: usize) -> Result<Vec<Value>, Vec<u8>> {
        let pairs = cursor == 2 && !step.args[0].eq_ignore_ascii_case(b"SSCAN");
        let mut step = step.clone();
        let mut found = Vec::new();
        for _call in 0..10_000 {
            let (reply, raw) = self.call(&step);
            let [next, entries] = reply.items() else { return Err(raw) };
            let entries =
                if step.args[0].eq_ignore_ascii_case(b"ZSCAN") { &plus_zero(entries) } else { entries };
            found.extend(in_order(entries, pairs).ok_or_else(|| raw.clone())?);
            step.args[cursor] = next.bytes().ok_or_else(|| raw.clone())?.to_vec();
            if step.args[cursor] == b"0" {
                // An entry may be found twice.
                let mut found = in_order(&Value::Array(found), false).expect("an array has an order");
                found.dedup();
                return Ok(found);
            }
        }
        panic!("an iteration without an end");
    }

    /// The reply to a command of the test's own, on the connection of a step.
    fn ask(&mut self, connection: usize, name: &str, key: &[u8], rest: &[Vec<u8>]) -> Value {
        let args = [&args![name, key], rest].concat();
        self.clients[connection].must(&args)
    }
}

struct Pair {
    ours: Side,
    theirs: Side,
    /// What the last DUMP was answered with.
    our_payload: Vec<u8>,
    their_payload: Vec<u8>,
}

impl Pair {
    fn start(shards: u16) -> Pair {
        let (ours, theirs) = (Side::start(Options::shards(shards)), Side::start(Options::redis()));
        Pair { ours, theirs, our_payload: Vec::new(), their_payload: Vec::new() }
    }

    fn reset(&mut self) {
        self.ours.reset();
        self.theirs.reset();
        self.our_payload.clear();
        self.their_payload.clear();
    }

    fn call(&mut self, step: &Step) -> (Raw, Raw) {
        self.ours.clients[step.connection].send(&step.args).expect("the server reads");
        let theirs = self.theirs.call(step);
        (self.ours.reply(step.connection), theirs)
    }

    /// None when both agree, else what each said.
    fn step(&mut self, step: &Step) -> Option<String> {
        if let Some(wait) = step.pause() {
            std::thread::sleep(wait);
            return None;
        }
        let step = &self.filled_in(step);
        let rule = Rule::of(&step.args);
        if let Rule::WholeScan { cursor } = rule {
            let (ours, theirs) = (self.ours.scan(step, cursor), self.theirs.scan(step, cursor));
            return (ours != theirs).then(|| format!(" haypile: {ours:?}\n   redis: {theirs:?}"));
        }
        if rule == Rule::NewId {
            return self.new_id(step);
        }
        if matches!(rule, Rule::Sorted { .. }) && !self.may_sort(step) {
            return None;
        }
        let (ours, theirs) = self.call(step);
        let agree = match rule {
            Rule::SomeKey => self.both_exist(step, &ours.0, &theirs.0),
            Rule::Picked => self.picked(step, &ours, &theirs),
            Rule::Popped => self.popped(step, &ours, &theirs),
            Rule::Payload => self.payloads(&ours, &theirs),
            _ => match rule.judge(&ours, &theirs) {
                Verdict::Same => true,
                Verdict::Differs => false,
                Verdict::SameInTable => self.in_table(step),
                Verdict::SameAmongTies => self.has_ties(step),
            },
        };
        (!agree).then(|| difference(&ours, &theirs))
    }

    /// The step with the payloads that it names.
    fn filled_in(&self, step: &Step) -> Step {
        let mut step = step.clone();
        for arg in &mut step.args {
            match arg.as_slice() {
                OURS => *arg = self.our_payload.clone(),
                THEIRS => *arg = self.their_payload.clone(),
                _ => {}
            }
        }
        step
    }

    /// SORT ends the compact form of a sorted set in Redis: only those that are never asked for it are sorted.
    fn may_sort(&mut self, step: &Step) -> bool {
        // SORT of 7.0 takes an overflow that an earlier command met for its own; reading a float clears it.
        self.theirs.ask(step.connection, "INCRBYFLOAT", b"no:key", &args!["x"]);
        let Some(key) = step.args.get(1) else { return true };
        let kind = self.theirs.ask(step.connection, "TYPE", key, &[]);
        matches!(key.as_slice(), b"sort:3" | b"sort:4") || kind != Value::Simple(b"zset".to_vec())
    }

    fn new_id(&mut self, step: &Step) -> Option<String> {
        let ours = self.ours.call(step);
        let mut same = step.clone();
        let at = entry_id_at(&step.args).expect("the rule is of one with an id");
        same.args[at] = ours.0.bytes().unwrap_or(b"*").to_vec();
        let theirs = self.theirs.call(&same);
        (ours.1 != theirs.1).then(|| difference(&ours, &theirs))
    }

    fn both_exist(&mut self, step: &Step, ours: &Value, theirs: &Value) -> bool {
        let (Some(mine), Some(other)) = (ours.bytes(), theirs.bytes()) else { return ours == theirs };
        self.ours.ask(step.connection, "EXISTS", mine, &[]) == Value::Int(1)
            && self.theirs.ask(step.connection, "EXISTS", other, &[]) == Value::Int(1)
    }

    /// Whether one side holds the step's key in an order of its own. Redis keeps up to 512 integers in order,
    /// haypile what stands in a row, which is found by one call of a scan; neither goes back when it shrinks.
    fn in_table(&mut self, step: &Step) -> bool {
        let encoding = self.theirs.ask(step.connection, "OBJECT", b"ENCODING", &step.args[1..2]);
        let scan = if step.args[0].to_ascii_uppercase().starts_with(b"H") { "HSCAN" } else { "SSCAN" };
        let scanned = self.ours.ask(step.connection, scan, &step.args[1], &args!["0", "COUNT", "1"]);
        encoding == Value::bulk("hashtable") || scanned.items().first() != Some(&Value::bulk("0"))
    }

    fn has_ties(&mut self, step: &Step) -> bool {
        let all = self.theirs.ask(step.connection, "ZUNION", b"1", &args![step.args[1], "WITHSCORES"]);
        let pairs = in_order(&all, true).expect("ZUNION answers an array");
        let scores: BTreeSet<_> = pairs.iter().map(|pair| format!("{:?}", pair.items()[1])).collect();
        scores.len() < pairs.len()
    }

    /// Random members: as many, none twice unless asked for, and the other side has each.
    fn picked(&mut self, step: &Step, ours: &Raw, theirs: &Raw) -> bool {
        let with_values = step.args.len() > 3;
        let (mine, other) = match (in_order(&ours.0, with_values), in_order(&theirs.0, with_values)) {
            (Some(mine), Some(other)) => (mine, other),
            (None, None) if ours.0.bytes().is_some() && theirs.0.bytes().is_some() => {
                (vec![ours.0.clone()], vec![theirs.0.clone()])
            }
            _ => return ours.1 == theirs.1,
        };
        let repeated = step.args.get(2).is_some_and(|count| count.starts_with(b"-"));
        let distinct = |list: &[Value]| repeated || list.windows(2).all(|two| two[0] != two[1]);
        if mine.len() != other.len() || !distinct(&mine) {
            return false;
        }
        if mine.is_empty() {
            return ours.1 == theirs.1;
        }
        let member = |entry: &Value| entry.items().first().unwrap_or(entry).bytes().map(<[u8]>::to_vec);
        let Some(members) = mine.iter().map(member).collect::<Option<Vec<_>>>() else { return false };
        let look_up = match step.args[0].to_ascii_uppercase().as_slice() {
            b"SRANDMEMBER" => "SMISMEMBER",
            b"HRANDFIELD" => "HMGET",
            _ => "ZMSCORE",
        };
        let mut found = self.theirs.ask(step.connection, look_up, &step.args[1], &members);
        if look_up == "ZMSCORE" {
            found = plus_zero(&found);
        }
        mine.iter().zip(found.items()).all(|(entry, found)| {
            let has = !found.is_nil() && *found != Value::Int(0);
            has && (!with_values || entry.items().get(1) == Some(found))
        })
    }

    /// Members taken away at random: what Redis took is put back, and what haypile took is taken there too.
    fn popped(&mut self, step: &Step, ours: &Raw, theirs: &Raw) -> bool {
        let taken = |reply: &Value| match reply {
            Value::Bulk(_) => Some(vec![reply.clone()]),
            _ => in_order(reply, false),
        };
        let (mine, other) = match (taken(&ours.0), taken(&theirs.0)) {
            (Some(mine), Some(other)) if mine.len() == other.len() => (mine, other),
            _ => return ours.1 == theirs.1,
        };
        if mine == other {
            return std::mem::discriminant(&ours.0) == std::mem::discriminant(&theirs.0);
        }
        let bytes =
            |list: &[Value]| list.iter().filter_map(|v| v.bytes().map(<[u8]>::to_vec)).collect::<Vec<_>>();
        let count = mine.len() as i64;
        let mut ask = |name: &str, rest: &[Vec<u8>]| {
            self.theirs.ask(step.connection, name, &step.args[1], rest).int().expect("answered with a count")
        };
        if ask("SADD", &bytes(&other)) != count || ask("SREM", &bytes(&mine)) != count {
            return false;
        }
        // Where few stay, Redis has put them into a new set, which those put back must not have widened.
        if step.args.len() > 2 && ask("SCARD", &[]) * 5 <= count {
            let until = ask("PEXPIRETIME", &[]);
            ask("SUNIONSTORE", &step.args[1..2]);
            if until >= 0 {
                ask("PEXPIREAT", &args![until.to_string()]);
            }
        }
        true
    }

    fn payloads(&mut self, ours: &Raw, theirs: &Raw) -> bool {
        let (Value::Bulk(mine), Value::Bulk(other)) = (&ours.0, &theirs.0) else { return ours.1 == theirs.1 };
        (self.our_payload, self.their_payload) = (mine.clone(), other.clone());
        true
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

/// For replies that tell all by themselves.
fn compare(step: &Step, ours: &Raw, theirs: &Raw) -> Option<String> {
    let differs = Rule::of(&step.args).judge(ours, theirs) == Verdict::Differs;
    differs.then(|| difference(ours, theirs))
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
            history.extend((0..length).map(|_| generator.pipelined(connection)));
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
    let everything = Step::new(0, args!["SCAN", "0"]);
    let (ours, theirs) = (pair.ours.scan(&everything, 1), pair.theirs.scan(&everything, 1));
    assert_eq!(ours, theirs, "seed {seed}: keys at the end");
}

const SHORT_COMMANDS: usize = 6_000;
const LONG_COMMANDS: usize = 350_000;

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

fn number_given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// HAYPILE_SEED chooses the seed, else every run has another; HAYPILE_SHARDS one number of shards, else all.
#[test]
#[ignore = "minutes"]
fn differential_long() {
    let seed = number_given("HAYPILE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let only = number_given("HAYPILE_SHARDS");
    for shards in [1, 2, 4].into_iter().filter(|shards| only.is_none_or(|only| only == u64::from(*shards))) {
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
    let keys = |names: &[&str]| raw(Value::Array(names.iter().map(Value::bulk).collect()), &names.join(" "));
    assert!(compare(&step("KEYS *"), &keys(&["a", "b"]), &keys(&["b", "a"])).is_none());
    assert!(compare(&step("KEYS *"), &keys(&["a", "b"]), &keys(&["a", "a"])).is_some());
    assert!(compare(&step("KEYS *"), &keys(&["a", "a", "b"]), &keys(&["a", "b"])).is_some());
    assert!(compare(&step("SORT k ALPHA"), &keys(&["\0a", "\0b"]), &keys(&["\0b", "\0a"])).is_none());
    assert!(compare(&step("SORT k ALPHA"), &keys(&["\0a", "\0b"]), &keys(&["\0b", "\0b"])).is_some());
    assert!(compare(&step("SORT k"), &keys(&["\0a", "\0b"]), &keys(&["\0b", "\0a"])).is_some());
    assert!(compare(&step("SORT k ALPHA"), &keys(&["a", "b"]), &keys(&["b", "a"])).is_some());
}

#[test]
fn a_star_is_taken_for_an_id_only_where_the_id_stands() {
    let rule =
        |line: &str| Rule::of(&line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
    for line in ["XADD k * f v", "xadd k nomkstream MAXLEN ~ 10 LIMIT 5 * f v", "XADD k MINID 1-1 * * *"] {
        assert_eq!(rule(line), Rule::NewId, "{line}");
    }
    for line in ["XADD k 1-1 * v", "XADD k MAXLEN = 10 1-1 f *", "XADD k MAXLEN * 1-1 f v", "XADD k MAXLEN 1"]
    {
        assert_eq!(rule(line), Rule::Bytes, "{line}");
    }
}

#[test]
fn a_pause_is_no_command() {
    assert_eq!(Step::sleep(0, 20).pause(), Some(Duration::from_millis(20)));
    assert_eq!(Step::new(0, args!["GET", "k"]).pause(), None);
}

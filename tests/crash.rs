//! Kills the server with SIGKILL at random moments under load, and checks after each restart that every
//! key holds what its writer was told, or something it had asked for since; never anything else.
//!
//! Each writer owns its keys and gives each write a number. `acked` is the highest number answered,
//! `sent` the highest one asked for: after a crash a key must hold a number from `acked` to `sent`.

mod harness;

use harness::{Client, Options, Server, Value};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const WRITERS: usize = 8;
/// Keys of one MSET; as many slots, so several shards.
const GROUP_KEYS: usize = 8;
/// A record of an APPEND: the number in eight digits.
const RECORD_BYTES: usize = 8;
/// An append key is given up beyond this; long strings lie in pieces from 64 KiB on.
const APPENDED_MAX: u64 = 10_000;

/// The bounds between which a key's number must lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    acked: u64,
    sent: u64,
}

impl Bounds {
    fn next(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// What is found after a crash is what counts from then on.
    fn settle(&mut self, found: u64) -> Result<(), String> {
        if found < self.acked || found > self.sent {
            return Err(format!(
                "found {found}, but {} was answered and {} asked for",
                self.acked, self.sent
            ));
        }
        *self = Bounds { acked: found, sent: found };
        Ok(())
    }
}

/// The kinds of write, one set of keys each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Set,
    Append,
    Incr,
    Mset,
}

/// One writer's keys and what it knows of them; it outlives the server's crashes.
struct Writer {
    id: usize,
    rng: StdRng,
    set: Bounds,
    append: Bounds,
    /// The last number of each append key given up; the current one comes after them.
    appended: Vec<u64>,
    incr: Bounds,
    mset: Bounds,
}

impl Writer {
    fn new(id: usize, seed: u64) -> Writer {
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(id as u64));
        let none = Bounds::default();
        Writer { id, rng, set: none, append: none, appended: Vec::new(), incr: none, mset: none }
    }

    fn set_key(&self) -> String {
        format!("set:{}", self.id)
    }

    fn append_key(&self, number: usize) -> String {
        format!("append:{}:{number}", self.id)
    }

    fn incr_key(&self) -> String {
        format!("incr:{}", self.id)
    }

    fn group_keys(&self) -> Vec<String> {
        (0..GROUP_KEYS).map(|at| format!("mset:{}:{at}", self.id)).collect()
    }

    fn keys(&self) -> Vec<String> {
        let mut keys = self.group_keys();
        keys.extend([self.set_key(), self.incr_key()]);
        keys.extend((0..=self.appended.len()).map(|number| self.append_key(number)));
        keys
    }

    /// Writes in pipelines of random depth until the connection breaks.
    fn write_until_broken(&mut self, server: &Server) {
        let Ok(mut client) = Client::connect(server.address()) else { return };
        let mut waiting: VecDeque<(Write, u64)> = VecDeque::new();
        loop {
            self.rotate();
            let commands: Vec<Vec<Vec<u8>>> = (0..self.rng.random_range(1..=16))
                .map(|_| {
                    let (write, number, args) = self.command();
                    waiting.push_back((write, number));
                    args
                })
                .collect();
            if client.send_all(commands.iter().map(Vec::as_slice)).is_err() {
                return;
            }
            while let Some((write, number)) = waiting.pop_front() {
                let Ok(reply) = client.read() else { return };
                self.acknowledge(write, number, &reply);
            }
        }
    }

    /// Begins a new append key once the old one is long; nothing of it is under way then.
    fn rotate(&mut self) {
        if self.append.sent > APPENDED_MAX {
            assert_eq!(self.append.acked, self.append.sent);
            self.appended.push(self.append.acked);
            self.append = Bounds::default();
        }
    }

    fn command(&mut self) -> (Write, u64, Vec<Vec<u8>>) {
        match self.rng.random_range(0..4) {
            0 => {
                let number = self.set.next();
                (Write::Set, number, args!["SET", self.set_key(), set_value(number)])
            }
            1 => {
                let number = self.append.next();
                (
                    Write::Append,
                    number,
                    args!["APPEND", self.append_key(self.appended.len()), format!("{number:0RECORD_BYTES$}")],
                )
            }
            2 => (Write::Incr, self.incr.next(), args!["INCR", self.incr_key()]),
            _ => {
                let number = self.mset.next();
                let mut args = args!["MSET"];
                for key in self.group_keys() {
                    args.extend(args![key, number.to_string()]);
                }
                (Write::Mset, number, args)
            }
        }
    }

    fn acknowledge(&mut self, write: Write, number: u64, reply: &Value) {
        let (bounds, expected) = match write {
            Write::Set => (&mut self.set, Value::ok()),
            Write::Mset => (&mut self.mset, Value::ok()),
            Write::Append => (&mut self.append, Value::Int((number * RECORD_BYTES as u64) as i64)),
            Write::Incr => (&mut self.incr, Value::Int(number as i64)),
        };
        assert_eq!(*reply, expected, "writer {}: {write:?} number {number}", self.id);
        bounds.acked = number;
    }

    /// Compares what the server holds with what this writer knows.
    fn check(&mut self, client: &mut Client) -> Result<(), String> {
        let name = format!("writer {}", self.id);
        let get = |client: &mut Client, key: String| client.must(&args!["GET", key]);

        let set = number_of_set(&get(client, self.set_key()))?;
        self.set.settle(set).map_err(|e| format!("{name}, SET: {e}"))?;

        let incr = number_of(&get(client, self.incr_key()))?;
        self.incr.settle(incr).map_err(|e| format!("{name}, INCR: {e}"))?;

        for (number, &last) in self.appended.iter().enumerate() {
            let found = number_of_appended(&get(client, self.append_key(number)))?;
            if found != last {
                return Err(format!("{name}, a finished APPEND key: found {found} of {last} records"));
            }
        }
        let append = number_of_appended(&get(client, self.append_key(self.appended.len())))?;
        self.append.settle(append).map_err(|e| format!("{name}, APPEND: {e}"))?;

        let group = number_of_group(&read_group(client, &self.group_keys()))?;
        self.mset.settle(group).map_err(|e| format!("{name}, MSET: {e}"))
    }
}

/// The number and, every so often, a tail that makes the value fill several pieces.
fn set_value(number: u64) -> String {
    let tail =
        if number.is_multiple_of(97) { 70_000 + number as usize % 30_000 } else { number as usize % 300 };
    format!("{number}:{}", "x".repeat(tail))
}

fn number_of_set(reply: &Value) -> Result<u64, String> {
    let Some(bytes) = reply.bytes() else { return number_of(reply) };
    let text = String::from_utf8_lossy(bytes);
    let digits = text.split(':').next().unwrap_or_default();
    let number = digits.parse().map_err(|_| format!("SET value {:.40}", text))?;
    if text != set_value(number) {
        return Err(format!("SET value number {number} with {} bytes is not what was written", text.len()));
    }
    Ok(number)
}

/// An absent key is number 0.
fn number_of(reply: &Value) -> Result<u64, String> {
    match reply {
        Value::NilBulk => Ok(0),
        Value::Bulk(bytes) => {
            String::from_utf8_lossy(bytes).parse().map_err(|_| format!("{reply:?} is no number"))
        }
        other => Err(format!("{other:?} is no value")),
    }
}

/// The records must be 1, 2, 3 ... without a gap, a repetition or half a record.
fn number_of_appended(reply: &Value) -> Result<u64, String> {
    let bytes = match reply {
        Value::NilBulk => return Ok(0),
        other => other.bytes().ok_or_else(|| format!("{other:?} is no value"))?,
    };
    for (at, record) in bytes.chunks(RECORD_BYTES).enumerate() {
        if record != format!("{:0RECORD_BYTES$}", at + 1).as_bytes() {
            return Err(format!("record {} of an appended value is {}", at + 1, record.escape_ascii()));
        }
    }
    Ok((bytes.len() / RECORD_BYTES) as u64)
}

fn read_group(client: &mut Client, keys: &[String]) -> Value {
    let mut args = args!["MGET"];
    args.extend(keys.iter().map(|key| key.clone().into_bytes()));
    client.must(&args)
}

/// All keys of an MSET must be of the same round.
fn number_of_group(reply: &Value) -> Result<u64, String> {
    let numbers = reply.items().iter().map(number_of).collect::<Result<Vec<u64>, String>>()?;
    match numbers.as_slice() {
        [first, rest @ ..] if rest.iter().all(|number| number == first) => Ok(*first),
        _ => Err(format!("an MSET came apart: {numbers:?}")),
    }
}

/// What a reader saw of each writer's keys: after a crash the keys may not be older.
#[derive(Default)]
struct Seen {
    incr: [u64; WRITERS],
    mset: [u64; WRITERS],
}

impl Seen {
    fn read_until_broken(
        &mut self,
        server: &Server,
        writers: &[(String, Vec<String>)],
    ) -> Result<(), String> {
        let Ok(mut client) = Client::connect(server.address()) else { return Ok(()) };
        loop {
            for (id, (incr, group)) in writers.iter().enumerate() {
                let Ok(reply) = client.call(&args!["GET", incr]) else { return Ok(()) };
                self.incr[id] = self.incr[id].max(number_of(&reply)?);
                let mut args = args!["MGET"];
                args.extend(group.iter().map(|key| key.clone().into_bytes()));
                let Ok(reply) = client.call(&args) else { return Ok(()) };
                self.mset[id] = self.mset[id].max(number_of_group(&reply)?);
            }
        }
    }
}

/// One life of the server: load, SIGKILL, restart, check.
fn round(server: &mut Server, writers: &mut [Writer], load: Duration) -> Result<(), String> {
    let names: Vec<_> = writers.iter().map(|writer| (writer.incr_key(), writer.group_keys())).collect();
    let mut seen = Seen::default();
    let killed = AtomicBool::new(false);
    let read = thread::scope(|scope| {
        let server = &*server;
        for writer in writers.iter_mut() {
            let killed = &killed;
            scope.spawn(move || {
                writer.write_until_broken(server);
                assert!(killed.load(Ordering::SeqCst), "the connection broke before the kill");
            });
        }
        let reader = scope.spawn(|| seen.read_until_broken(server, &names));
        thread::sleep(load);
        killed.store(true, Ordering::SeqCst);
        // By signal here; the process is reaped below, once nobody uses it.
        server.signal("KILL");
        reader.join().expect("the reader reports, it does not panic")
    });
    server.kill9();
    read.map_err(|e| format!("before the crash: {e}"))?;
    for (id, writer) in writers.iter_mut().enumerate() {
        writer.incr.acked = writer.incr.acked.max(seen.incr[id]);
        writer.mset.acked = writer.mset.acked.max(seen.mset[id]);
    }
    server.restart();
    let mut client = server.client();
    for writer in writers.iter_mut() {
        writer.check(&mut client)?;
    }
    unknown_keys(&mut client, writers)
}

/// Nothing that nobody wrote.
fn unknown_keys(client: &mut Client, writers: &[Writer]) -> Result<(), String> {
    let known: Vec<Vec<u8>> = writers.iter().flat_map(Writer::keys).map(String::into_bytes).collect();
    let keys = client.ask("KEYS *");
    let strange =
        keys.items().iter().filter_map(Value::bytes).find(|key| !known.iter().any(|known| known == key));
    strange.map_or(Ok(()), |key| Err(format!("nobody wrote {}", key.escape_ascii())))
}

fn crash(policy: &'static str, shards: u16, rounds: usize, seed: u64) {
    let mut server = Server::start(Options::shards(shards).appendfsync(policy));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|id| Writer::new(id, seed)).collect();
    for number in 1..=rounds {
        let load = Duration::from_millis(rng.random_range(20..500));
        if let Err(e) = round(&mut server, &mut writers, load) {
            panic!("{policy}, {shards} shards, seed {seed}, crash {number} after {load:?}: {e}");
        }
    }
    let written: u64 =
        writers.iter().map(|writer| writer.set.acked + writer.incr.acked + writer.mset.acked).sum();
    assert!(written > 0, "the load wrote nothing");
    println!("{policy}, {shards} shards: {rounds} crashes, about {written} writes");
}

const SHORT_ROUNDS: usize = 4;
const LONG_ROUNDS: usize = 200;

#[test]
fn crash_always_one_shard() {
    crash("always", 1, SHORT_ROUNDS, 1);
}

#[test]
fn crash_always_two_shards() {
    crash("always", 2, SHORT_ROUNDS, 2);
}

#[test]
fn crash_everysec_one_shard() {
    crash("everysec", 1, SHORT_ROUNDS, 3);
}

#[test]
fn crash_everysec_two_shards() {
    crash("everysec", 2, SHORT_ROUNDS, 4);
}

#[test]
fn crash_no_sync_two_shards() {
    crash("no", 2, SHORT_ROUNDS, 5);
}

/// HAYPILE_SEED chooses the seed; else every run has another.
#[test]
#[ignore = "minutes"]
fn crash_long() {
    let given = std::env::var("HAYPILE_SEED").map(|text| text.parse().expect("HAYPILE_SEED is a number"));
    let seed = given.unwrap_or_else(|_| rand::rng().random_range(0..1_000_000));
    for policy in ["always", "everysec", "no"] {
        for shards in [1, 2, 4] {
            crash(policy, shards, LONG_ROUNDS.div_ceil(9), seed);
        }
    }
}

#[test]
fn a_lost_or_invented_write_is_seen() {
    let mut bounds = Bounds { acked: 5, sent: 9 };
    assert!(bounds.settle(4).is_err(), "an answered write is gone");
    assert!(bounds.settle(10).is_err(), "nobody asked for it");
    assert_eq!(bounds.settle(7), Ok(()));
    assert_eq!(bounds, Bounds { acked: 7, sent: 7 });

    let group = |numbers: &[&str]| Value::Array(numbers.iter().map(Value::bulk).collect());
    assert_eq!(number_of_group(&group(&["3", "3"])), Ok(3));
    assert!(number_of_group(&group(&["3", "4"])).is_err());
    assert!(number_of_group(&Value::Array(vec![Value::NilBulk, Value::bulk("1")])).is_err());

    assert_eq!(number_of_appended(&Value::bulk("0000000100000002")), Ok(2));
    for wrong in ["0000000100000003", "00000001000", "0000000100000001", "00000002"] {
        assert!(number_of_appended(&Value::bulk(wrong)).is_err(), "{wrong}");
    }
    assert_eq!(number_of_set(&Value::bulk(set_value(97))), Ok(97));
    assert!(number_of_set(&Value::bulk(&set_value(97)[..60_000])).is_err());
    assert_eq!(number_of_set(&Value::NilBulk), Ok(0));
}

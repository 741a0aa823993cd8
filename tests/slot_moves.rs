//! Slots that move under load: not one write is lost or doubled, and clients notice a pause at most.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value};
use nodes::eventually;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SLOTS: u32 = 1024;
/// Slots that move, as `0-7`.
const MOVING: u32 = 8;
const WRITERS: usize = 4;

fn sharded(shards: u16) -> Options {
    Options::shards(shards).with(&["--instance-mode", "sharding", "--slot-redirect", "on"])
}

fn pk(server: &Server, command: &str) -> String {
    let mut client = server.client();
    client.set_timeout(Duration::from_secs(120));
    client.ask(&format!("PKCLUSTER {command}")).said()
}

fn is_ok(server: &Server, command: &str) {
    assert_eq!(pk(server, command), "OK", "{command}");
}

fn keys(writer: usize) -> Vec<String> {
    let moves = |key: &String| crc32fast::hash(key.as_bytes()) % SLOTS < MOVING;
    (0..).map(|n| format!("w{writer}-{n}")).filter(moves).take(16).collect()
}

/// What one writer has seen.
#[derive(Default)]
struct Seen {
    /// By key, how often it was counted up with success.
    counts: BTreeMap<String, i64>,
    micros: Vec<u32>,
    moved: u64,
    errors: BTreeMap<String, u64>,
}

/// Counts its keys up at whatever node has them, until it is told to stop. Follows MOVED; `retries`: other errors are
/// noted and tried again somewhere else.
fn write(writer: usize, nodes: Vec<std::net::SocketAddr>, told: Arc<Told>) -> JoinHandle<Seen> {
    thread::spawn(move || {
        let mut clients: Vec<Client> =
            nodes.iter().map(|node| Client::connect(*node).expect("it listens")).collect();
        let (mut seen, mut at, keys) = (Seen::default(), 0, keys(writer));
        for number in 0.. {
            if told.stop.load(Ordering::Relaxed) {
                break;
            }
            // What a proxy does while its operator moves a slot by hand.
            let _not_held = told.held.read().expect("nobody panics with it");
            let key = &keys[number % keys.len()];
            let began = Instant::now();
            loop {
                let reply = clients[at].must(&args!["INCR", key]);
                if reply.int().is_some() {
                    *seen.counts.entry(key.clone()).or_default() += 1;
                    break;
                }
                let error = reply.error_text();
                if let Some(to) = error.strip_prefix("MOVED ") {
                    let to = to.split_once(' ').expect("slot and address").1;
                    at = nodes.iter().position(|node| node.to_string() == to).expect("one of the nodes");
                    seen.moved += 1;
                } else {
                    *seen.errors.entry(error).or_default() += 1;
                    at = (at + 1) % nodes.len();
                    thread::sleep(Duration::from_millis(5));
                }
            }
            seen.micros.push(began.elapsed().as_micros() as u32);
            thread::sleep(Duration::from_micros(200));
        }
        seen
    })
}

/// What writers are told.
#[derive(Default)]
struct Told {
    stop: AtomicBool,
    held: RwLock<()>,
}

struct Load {
    told: Arc<Told>,
    writers: Vec<JoinHandle<Seen>>,
}

impl Load {
    fn begin(nodes: &[&Server]) -> Load {
        let told = Arc::new(Told::default());
        let addresses: Vec<_> = nodes.iter().map(|node| node.address()).collect();
        let writers = (0..WRITERS).map(|writer| write(writer, addresses.clone(), told.clone())).collect();
        Load { told, writers }
    }

    /// Ends it, and compares what was acknowledged with what is there. The writers' own words.
    fn end(self, has_all: &Server) -> Seen {
        self.told.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for writer in self.writers {
            let seen = writer.join().expect("a writer does not panic");
            all.counts.extend(seen.counts);
            all.micros.extend(seen.micros);
            all.moved += seen.moved;
            seen.errors.into_iter().for_each(|(error, count)| *all.errors.entry(error).or_default() += count);
        }
        let mut client = has_all.client();
        for (key, count) in &all.counts {
            let there = client.must(&args!["GET", key]);
            assert_eq!(there, Value::bulk(count.to_string()), "{key}");
        }
        all.micros.sort_unstable();
        all
    }
}

fn at(micros: &[u32], part: f64) -> f64 {
    f64::from(micros[((micros.len() - 1) as f64 * part) as usize]) / 1000.0
}

#[test]
fn migrateslot_costs_clients_nothing_but_a_pause() {
    let left = Server::start(sharded(2));
    let right = Server::start(sharded(1));
    is_ok(&left, "ADDSLOTS 0-1023");
    let mut client = left.client();
    // Something to copy.
    for n in 0..20_000 {
        client.must(&args!["SET", format!("fill{n}"), "x".repeat(100)]);
    }
    let load = Load::begin(&[&left, &right]);
    let rounds = 4;
    let mut pauses = Vec::new();
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(300));
        let (from, to) = if round % 2 == 0 { (&left, &right) } else { (&right, &left) };
        is_ok(from, &format!("MIGRATESLOT 0-7 127.0.0.1 {}", to.port()));
        let info = pk(from, "INFO migration");
        let pause =
            info.lines().find_map(|line| line.strip_prefix("migration_pause_ms:")).expect("it is told");
        pauses.push(pause.to_owned());
    }
    let seen = load.end(&left);
    let writes = seen.micros.len();
    println!(
        "{writes} writes, {} redirections, p99 {:.1} ms, p99.9 {:.1} ms, longest {:.1} ms; pauses {pauses:?} ms",
        seen.moved,
        at(&seen.micros, 0.99),
        at(&seen.micros, 0.999),
        at(&seen.micros, 1.0)
    );
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    assert!(seen.moved as usize >= rounds && writes > 1000);
}

/// The procedure of Pika's users, as they write it into scripts.
#[test]
fn a_slot_moved_by_hand_loses_nothing() {
    let options = |shards| Options::shards(shards).with(&["--instance-mode", "sharding"]);
    let left = Server::start(options(1));
    let right = Server::start(options(2));
    is_ok(&left, "ADDSLOTS 0-1023");
    let load = Load::begin(&[&left, &right]);
    thread::sleep(Duration::from_millis(200));
    is_ok(&right, "ADDSLOTS 0-7");
    is_ok(&right, &format!("SLOTSSLAVEOF 127.0.0.1 {} 0-7", left.port()));
    let lag_is_zero = || {
        let blocks = pk(&left, "INFO slot 0-7");
        blocks.matches("replication_status: SlaveBinlogSync").count() == 8
            && blocks.matches("lag: 0\r\n").count() == 8
    };
    eventually("the slots follow", || pk(&left, "INFO slot 0-7").matches("SlaveBinlogSync").count() == 8);
    let held = load.told.held.write().expect("nobody panics with it");
    eventually("nothing is missing any more", lag_is_zero);
    is_ok(&right, "SLOTSSLAVEOF NO ONE 0-7");
    eventually("nobody follows", || pk(&left, "DELSLOTS 0-7") == "OK");
    drop(held);
    thread::sleep(Duration::from_millis(200));
    let seen = load.end(&right);
    println!("{} writes, {:?}", seen.micros.len(), seen.errors);
    assert_eq!(
        seen.errors.keys().collect::<Vec<_>>(),
        ["ERR Partition not found"],
        "what its description names"
    );
    assert_eq!(seen.errors.values().sum::<u64>(), WRITERS as u64, "until a writer has heard of it");
}

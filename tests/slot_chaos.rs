//! Slots that move between nodes under load while nodes are killed and stand still; then calm: every slot has one
//! primary, and every key was counted up as often as its writers were told, neither more nor less.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value};
use nodes::pk;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

const SLOTS: u32 = 1024;
/// Those that are written, and move.
const USED: u32 = 12;
const WRITERS: usize = 3;
const NODES: usize = 3;

/// How often a key was counted up: as far as the writer was told, and as often as it does not know.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    done: i64,
    perhaps: i64,
}

type Counts = BTreeMap<String, Count>;

/// Counts keys up wherever they are served until it is told to stop.
fn write(writer: usize, nodes: [SocketAddr; NODES], ended: &AtomicBool) -> Counts {
    let used = |key: &String| crc32fast::hash(key.as_bytes()) % SLOTS < USED;
    let keys: Vec<String> = (0..).map(|n| format!("w{writer}-{n}")).filter(used).take(24).collect();
    let mut counts = Counts::new();
    let mut clients: [Option<Client>; NODES] = Default::default();
    let (mut at, mut number) = (writer % NODES, 0);
    while !ended.load(Ordering::Relaxed) {
        if clients[at].is_none() {
            clients[at] = Client::connect(nodes[at]).ok();
        }
        let Some(client) = &mut clients[at] else {
            at = (at + 1) % NODES;
            sleep(Duration::from_millis(5));
            continue;
        };
        client.set_timeout(Duration::from_secs(2));
        let key = &keys[number % keys.len()];
        let count = counts.entry(key.clone()).or_default();
        match client.call(&args!["INCR", key]) {
            Ok(Value::Int(there)) => {
                (count.done, number) = (count.done + 1, number + 1);
                assert!(
                    (count.done..=count.done + count.perhaps).contains(&there),
                    "{key} has come to {there} at node {at}, and {count:?}"
                );
            }
            // Refused: it has not been done.
            Ok(other) => {
                let moved = other.error_text();
                let to = moved.strip_prefix("MOVED ").and_then(|to| to.split_once(' '));
                let to = to.and_then(|(_, to)| nodes.iter().position(|node| node.to_string() == to));
                at = to.unwrap_or((at + 1) % NODES);
                // A slot may be served by none for a while.
                sleep(Duration::from_millis(if to.is_some() { 0 } else { 5 }));
            }
            Err(_) => {
                (count.perhaps, number) = (count.perhaps + 1, number + 1);
                clients[at] = None;
            }
        }
    }
    counts
}

struct Nodes {
    nodes: Vec<Server>,
    random: StdRng,
    moves: u32,
    failed: u32,
}

impl Nodes {
    /// The nodes that say they are a slot's primary, and those that have it otherwise.
    fn who_has(&self, slot: u32) -> (Vec<usize>, Vec<usize>) {
        let blocks: Vec<String> =
            self.nodes.iter().map(|node| pk(node.address(), &format!("INFO slot {slot}"))).collect();
        let all = 0..self.nodes.len();
        let primaries = all
            .clone()
            .filter(|node| blocks[*node].contains("Role: Master") && !blocks[*node].contains("Role: Slave"));
        (primaries.collect(), all.filter(|node| blocks[*node].contains("Role: Slave")).collect())
    }

    /// Moves a slot from its primary to another node, while perhaps something befalls one of the two.
    fn fault(&mut self, calm: bool) -> String {
        let slot = self.random.random_range(0..USED);
        let (primaries, _) = self.who_has(slot);
        let [from] = primaries[..] else { panic!("slot {slot} has primaries {primaries:?}") };
        let to = (from + self.random.random_range(1..NODES)) % NODES;
        let port = self.nodes[to].port();
        let what = if calm { 7 } else { self.random.random_range(0..8) };
        let after = Duration::from_millis(self.random.random_range(0..400));
        let pause = Duration::from_millis(self.random.random_range(20..400));
        let victim = if self.random.random_bool(0.5) { from } else { to };
        let said = thread::scope(|scope| {
            let address = &self.nodes[from];
            let mut answer = Client::connect(address.address()).expect("it runs");
            answer.set_timeout(Duration::from_secs(60));
            let moving = scope.spawn(move || {
                let reply = answer.call(&args![
                    "PKCLUSTER",
                    "MIGRATESLOT",
                    slot.to_string(),
                    "127.0.0.1",
                    port.to_string()
                ]);
                reply.map_or_else(
                    |error| error.to_string(),
                    |reply| match reply {
                        Value::Simple(text) => String::from_utf8_lossy(&text).into_owned(),
                        other => other.error_text(),
                    },
                )
            });
            sleep(after);
            match what {
                0..=2 => self.nodes[victim].signal("KILL"),
                3..=4 => {
                    self.nodes[victim].signal("STOP");
                    sleep(pause);
                    self.nodes[victim].signal("CONT");
                }
                5 => drop(pk(self.nodes[from].address(), "MIGRATECANCEL")),
                _ => {}
            }
            moving.join().expect("it does not panic")
        });
        if what <= 2 {
            self.nodes[victim].kill9();
            sleep(pause / 4);
            self.nodes[victim].restart();
        }
        self.moves += 1;
        self.failed += u32::from(said != "OK");
        self.settle(slot);
        format!("slot {slot} from {from} to {to}, {what} befalls {victim} after {after:?}: {said}")
    }

    /// What an operator does after a move that has failed in the middle: makes one node the primary, and takes what is
    /// left from the others.
    fn settle(&self, slot: u32) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (primaries, others) = self.who_has(slot);
            match (&primaries[..], &others[..]) {
                ([_], []) => return,
                ([_], others) => {
                    for node in others {
                        let block = pk(self.nodes[*node].address(), &format!("INFO slot {slot}"));
                        let followed = block.lines().find_map(|line| line.strip_prefix("  master: "));
                        let followed = followed.unwrap_or_default().replace(':', " ");
                        match block.contains("kNoConnect") {
                            true => pk(self.nodes[*node].address(), &format!("DELSLOTS {slot}")),
                            false => pk(self.nodes[*node].address(), &format!("DROPSLOTS {slot} {followed}")),
                        };
                    }
                }
                ([], [one, ..]) => {
                    // Both have all: the one it was being handed to, if there are two.
                    let follows = |node: &&usize| {
                        !pk(self.nodes[**node].address(), &format!("INFO slot {slot}")).contains("kNoConnect")
                    };
                    let heir = others.iter().find(follows).unwrap_or(one);
                    pk(self.nodes[*heir].address(), &format!("SLOTSSLAVEOF NO ONE {slot}"));
                }
                _ => {}
            }
            assert!(Instant::now() < deadline, "slot {slot}: primaries {primaries:?}, others {others:?}");
            sleep(Duration::from_millis(20));
        }
    }
}

fn chaos(faults: u32) {
    let seed = std::env::var("HAYPILE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("HAYPILE_SEED={seed}");
    let sharded = |shards| {
        Options::shards(shards).with(&[
            "--instance-mode",
            "sharding",
            "--slot-redirect",
            "on",
            "--repl-timeout",
            "3",
        ])
    };
    let nodes: Vec<Server> = [2, 1, 2].into_iter().map(|shards| Server::start(sharded(shards))).collect();
    assert_eq!(pk(nodes[0].address(), "ADDSLOTS 0-11"), "OK");
    let addresses = [0, 1, 2].map(|node: usize| nodes[node].address());
    let mut nodes = Nodes { nodes, random: StdRng::seed_from_u64(seed), moves: 0, failed: 0 };
    let ended = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let ended = ended.clone();
            thread::spawn(move || write(writer, addresses, &ended))
        })
        .collect();
    for number in 0..faults {
        sleep(Duration::from_millis(50));
        println!("{number}: {}", nodes.fault(false));
    }
    let failed = nodes.failed;
    println!("calm: {}", nodes.fault(true));
    assert_eq!(nodes.failed, failed, "a move by which nothing happens must do");
    ended.store(true, Ordering::Relaxed);
    let counts: Vec<Counts> =
        writers.into_iter().map(|writer| writer.join().expect("it does not panic")).collect();
    let mut clients: Vec<Client> = nodes.nodes.iter().map(Server::client).collect();
    let (mut done, mut perhaps) = (0, 0);
    for (key, count) in counts.into_iter().flatten() {
        let slot = crc32fast::hash(key.as_bytes()) % SLOTS;
        let (primaries, others) = nodes.who_has(slot);
        assert!(primaries.len() == 1 && others.is_empty(), "slot {slot}: {primaries:?} {others:?}");
        let reply = clients[primaries[0]].must(&args!["GET", key]);
        let there = reply.bytes().map_or(0, |text| String::from_utf8_lossy(text).parse().expect("a number"));
        assert!(
            (count.done..=count.done + count.perhaps).contains(&there),
            "{key} of slot {slot} is {there}, and {count:?}"
        );
        (done, perhaps) = (done + count.done, perhaps + count.perhaps);
    }
    println!("{done} writes, {perhaps} unknown; {} moves, {} of them failed", nodes.moves, nodes.failed);
    assert!(done > 100, "somebody wrote");
}

#[test]
fn slots_move_through_some_faults() {
    chaos(8);
}

#[test]
#[ignore = "takes minutes: run by make test-long"]
fn slots_move_through_many_faults() {
    chaos(200);
}

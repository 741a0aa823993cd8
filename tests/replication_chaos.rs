//! Three nodes under load while nodes are killed, stopped, cut off and promoted; then calm: all are the same, and
//! what two followers had acknowledged is there.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value};
use nodes::{assert_same, caught_up, eventually, follow};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::Duration;

const WRITERS: usize = 3;
const KEYS_PER_WRITER: u64 = 40;

/// Where the writers write, and what they may rely on.
struct Load {
    primary: Mutex<SocketAddr>,
    ended: AtomicBool,
    writes: AtomicU64,
    waits: AtomicU64,
    /// By key: a value that two followers had acknowledged.
    safe: Mutex<BTreeMap<String, u64>>,
}

impl Load {
    fn address(&self) -> SocketAddr {
        *self.primary.lock().expect("nobody panics with it")
    }

    /// Counters go up, one write after the other, as long as nothing fails; then anew at whoever is primary now.
    fn write(&self, writer: usize) {
        let mut count = 0;
        while !self.ended.load(Ordering::Relaxed) {
            let Ok(mut client) = Client::connect(self.address()) else {
                sleep(Duration::from_millis(20));
                continue;
            };
            client.set_timeout(Duration::from_secs(3));
            while self.round(&mut client, writer, &mut count).is_some() {
                if self.ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }

    /// Some writes, and then perhaps a word of the followers. None: the connection is of no more use.
    fn round(&self, client: &mut Client, writer: usize, count: &mut u64) -> Option<()> {
        let mut round = BTreeMap::new();
        for _ in 0..10 {
            *count += 1;
            let key = format!("c{writer}-{}", *count % KEYS_PER_WRITER);
            let hash = format!("h{writer}-{}", *count % 7);
            if client.call(&args!["SET", key, count.to_string()]).ok()? != Value::ok() {
                return None;
            }
            let reply = client.call(&args!["HSET", hash, key, count.to_string()]).ok()?;
            reply.int()?;
            round.insert(key, *count);
        }
        self.writes.fetch_add(20, Ordering::Relaxed);
        if client.call(&args!["WAIT", "2", "100"]).ok()?.int()? >= 2 {
            self.waits.fetch_add(1, Ordering::Relaxed);
            let mut safe = self.safe.lock().expect("nobody panics with it");
            for (key, value) in round {
                let known = safe.entry(key).or_default();
                *known = value.max(*known);
            }
        }
        Some(())
    }
}

struct Nodes {
    nodes: Vec<Server>,
    primary: usize,
    load: Arc<Load>,
    random: StdRng,
}

impl Nodes {
    fn followers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| *node != self.primary).collect()
    }

    fn a_follower(&mut self) -> usize {
        let followers = self.followers();
        followers[self.random.random_range(0..followers.len())]
    }

    fn point_at_primary(&self) {
        for node in self.followers() {
            follow(&self.nodes[node], &self.nodes[self.primary]);
        }
    }

    fn fault(&mut self) -> &'static str {
        match self.random.random_range(0..7) {
            0 => {
                let node = self.a_follower();
                self.nodes[node].kill9();
                sleep(Duration::from_millis(self.random.random_range(0..300)));
                self.nodes[node].restart();
                follow(&self.nodes[node], &self.nodes[self.primary]);
                "a follower is killed"
            }
            1 => {
                self.nodes[self.primary].kill9();
                sleep(Duration::from_millis(self.random.random_range(0..200)));
                self.nodes[self.primary].restart();
                "the primary is killed and comes back"
            }
            2 => {
                let node = self.random.random_range(0..self.nodes.len());
                self.nodes[node].signal("STOP");
                sleep(Duration::from_millis(self.random.random_range(50..600)));
                self.nodes[node].signal("CONT");
                "a node stands still"
            }
            3 => {
                let node = self.a_follower();
                self.nodes[node].client().ask("REPLICAOF 127.0.0.1 1");
                sleep(Duration::from_millis(self.random.random_range(0..300)));
                follow(&self.nodes[node], &self.nodes[self.primary]);
                "a follower is cut off"
            }
            4 => {
                let node = self.a_follower();
                self.nodes[node].terminate();
                self.nodes[node].restart();
                follow(&self.nodes[node], &self.nodes[self.primary]);
                "a follower is restarted in order"
            }
            _ => {
                let (before, chosen) = (self.primary, self.a_follower());
                self.nodes[before].kill9();
                let reply = self.nodes[chosen].client().ask("REPLICAOF NO ONE");
                assert_eq!(reply, Value::ok());
                self.primary = chosen;
                *self.load.primary.lock().expect("nobody panics with it") = self.nodes[chosen].address();
                self.nodes[before].restart();
                self.point_at_primary();
                "the primary is killed, and a follower promoted"
            }
        }
    }
}

fn chaos(seed: u64, faults: usize) {
    // Different shards: records are split on their way.
    let nodes: Vec<Server> = [2, 1, 2].map(|shards| Server::start(Options::shards(shards))).into();
    let load = Arc::new(Load {
        primary: Mutex::new(nodes[0].address()),
        ended: AtomicBool::new(false),
        writes: AtomicU64::new(0),
        waits: AtomicU64::new(0),
        safe: Mutex::default(),
    });
    let mut nodes = Nodes { nodes, primary: 0, load: load.clone(), random: StdRng::seed_from_u64(seed) };
    nodes.point_at_primary();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let load = load.clone();
            thread::spawn(move || load.write(writer))
        })
        .collect();
    for fault in 0..faults {
        let what = nodes.fault();
        let calm_ms = nodes.random.random_range(0..400);
        println!("seed {seed}, fault {fault}: {what}");
        sleep(Duration::from_millis(calm_ms));
        // So that followers now and then are so far that WAIT says so.
        if nodes.random.random_bool(0.5) {
            let primary = &nodes.nodes[nodes.primary];
            let all = || nodes.followers().iter().all(|node| nodes::is_up(&nodes.nodes[*node]));
            eventually("all links are up", || all() && nodes::info(primary, "connected_slaves") == "2");
        }
    }
    load.ended.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().expect("a writer does not panic"));
    let primary = &nodes.nodes[nodes.primary];
    for node in nodes.followers() {
        eventually("a follower catches up", || caught_up(&nodes.nodes[node], primary));
        assert_same(&nodes.nodes[node], primary);
    }
    let safe = load.safe.lock().expect("nobody panics with it");
    let mut client = primary.client();
    for (key, value) in safe.iter() {
        let reply = client.must(&args!["GET", key]);
        let found = reply.bytes().and_then(|found| std::str::from_utf8(found).ok()?.parse::<u64>().ok());
        assert!(
            found.is_some_and(|found| found >= *value),
            "{key}: {value} was acknowledged, {reply:?} is there"
        );
    }
    let (writes, waits) = (load.writes.load(Ordering::Relaxed), load.waits.load(Ordering::Relaxed));
    println!("seed {seed}: {faults} faults, {writes} writes, {waits} acknowledged rounds");
    assert!(writes > 100 && waits > 0, "there was a load");
}

#[test]
fn nodes_are_the_same_after_some_faults() {
    chaos(1, 12);
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn nodes_are_the_same_after_many_faults() {
    let seed = std::env::var("HAYPILE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    chaos(seed, 200);
}

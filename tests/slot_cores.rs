//! Slots that move between the shards of one node under load: nothing that was acknowledged is lost or doubled, whatever
//! ends the process, and nobody sees more of it than a pause.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value};
use nodes::{assert_same, contents, eventually, follow, pk};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

const SLOTS: u32 = 1024;
/// Slots that are written, and move.
const USED: u32 = 12;
const WRITERS: usize = 3;

fn slot_of(key: &str) -> u32 {
    crc32fast::hash(key.as_bytes()) % SLOTS
}

/// Some names in the slots that move.
fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..).map(|n| format!("{prefix}{n}")).filter(|key| slot_of(key) < USED).take(count).collect()
}

/// Moves slots; a start may still be tidying up.
fn moved(server: &Server, slots: &str, shard: u16) {
    let mut said = String::new();
    for _ in 0..40 {
        said = pk(server.address(), &format!("MOVESLOT {slots} {shard}"));
        if !said.contains("retry later") {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    assert_eq!(said, "OK", "{slots} to {shard}\n{}", server.log_tail());
}

/// The slots of each shard, as the server tells them.
fn placed(server: &Server) -> Vec<String> {
    let text = pk(server.address(), "INFO shard");
    text.lines().filter_map(|line| line.split_once("slots=")).map(|(_, slots)| slots.to_owned()).collect()
}

/// How often a key was counted up: as far as the writer was told, and as often as it does not know.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    done: i64,
    perhaps: i64,
}

struct Load {
    ended: Arc<AtomicBool>,
    writers: Vec<JoinHandle<BTreeMap<String, Count>>>,
}

impl Load {
    fn begin(server: &Server) -> Load {
        let ended = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let (address, ended) = (server.address(), ended.clone());
            thread::spawn(move || write(writer, address, &ended))
        });
        Load { writers: writers.collect(), ended }
    }

    /// Ends it, and compares what is there with what was acknowledged; how much that was.
    fn end(self, server: &Server) -> (i64, i64) {
        self.ended.store(true, Ordering::Relaxed);
        let counts = self.writers.into_iter().flat_map(|writer| writer.join().expect("it does not panic"));
        let counts: BTreeMap<String, Count> = counts.collect();
        let mut client = server.client();
        let (mut done, mut perhaps) = (0, 0);
        for (key, count) in &counts {
            let reply = client.must(&args!["GET", key]);
            let there =
                reply.bytes().map_or(0, |text| String::from_utf8_lossy(text).parse().expect("a number"));
            assert!(
                (count.done..=count.done + count.perhaps).contains(&there),
                "{key} of slot {} is {there}, and {count:?}",
                slot_of(key)
            );
            (done, perhaps) = (done + count.done, perhaps + count.perhaps);
        }
        for writer in 0..WRITERS {
            let pair = names(&format!("p{writer}-"), 4);
            let values = client.must(&args!["MGET", pair[0], pair[1], pair[2], pair[3]]);
            assert!(values.items().iter().all(|value| value == &values.items()[0]), "{pair:?}: {values:?}");
        }
        (done, perhaps)
    }
}

/// Counts keys up one by one, and now and then writes the same into four keys at once.
fn write(writer: usize, address: SocketAddr, ended: &AtomicBool) -> BTreeMap<String, Count> {
    let (keys, pair) = (names(&format!("w{writer}-"), 24), names(&format!("p{writer}-"), 4));
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let (mut client, mut number) = (None, 0);
    while !ended.load(Ordering::Relaxed) {
        let Some(connected) = &mut client else {
            client = Client::connect(address).ok();
            sleep(Duration::from_millis(5));
            continue;
        };
        connected.set_timeout(Duration::from_secs(20));
        number += 1;
        let key = &keys[number % keys.len()];
        let count = counts.entry(key.clone()).or_default();
        match connected.call(&args!["INCR", key]) {
            Ok(Value::Int(there)) => {
                count.done += 1;
                let known = count.done..=count.done + count.perhaps;
                assert!(known.contains(&there), "{key} has come to {there}, and {count:?}");
            }
            Ok(other) => panic!("{key}: {other:?}"),
            Err(_) => {
                count.perhaps += 1;
                client = None;
                continue;
            }
        }
        if number % 5 == 0 {
            let value = number.to_string();
            let call = args!["MSET", pair[0], value, pair[1], value, pair[2], value, pair[3], value];
            match connected.call(&call) {
                Ok(reply) => assert_eq!(reply, Value::ok()),
                Err(_) => client = None,
            }
        }
        sleep(Duration::from_micros(200));
    }
    counts
}

#[test]
fn not_a_write_is_lost_or_doubled_while_slots_move_back_and_forth() {
    for policy in ["everysec", "always"] {
        let mut server = Server::start(Options::shards(3).appendfsync(policy));
        let load = Load::begin(&server);
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..8 {
            let first = random.random_range(0..USED);
            let last = random.random_range(first..USED);
            moved(&server, &format!("{first}-{last}"), random.random_range(0..3));
        }
        moved(&server, &format!("0-{}", USED - 1), 2);
        assert!(placed(&server)[2].starts_with("0-11,"), "{:?}", placed(&server));
        let (done, perhaps) = load.end(&server);
        assert!(done > 100 && perhaps == 0, "{done} {perhaps}");
        let keys = server.client().ask("DBSIZE");
        assert_eq!(server.client().ask("KEYS *").items().len() as i64, keys.int().expect("a number"));
        let before = contents(&server);
        server.kill9();
        server.restart();
        assert_eq!(contents(&server), before);
        assert_eq!(server.client().ask("DBSIZE"), keys);
        assert!(placed(&server)[2].starts_with("0-11,"));
    }
}

fn chaos(rounds: u32) {
    let seed = std::env::var("HAYPILE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("HAYPILE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::start(Options::shards(3));
    let load = Load::begin(&server);
    let mut done = 0;
    for round in 0..rounds {
        let (first, shard) = (random.random_range(0..USED), random.random_range(0..3u16));
        let slots = format!("{first}-{}", random.random_range(first..USED));
        // A move takes some hundred milliseconds, and most of its steps the last of them.
        let after = Duration::from_millis(random.random_range(0..if round % 3 == 0 { 900 } else { 300 }));
        let address = server.address();
        let command = format!("MOVESLOT {slots} {shard}");
        let said = thread::scope(|scope| {
            let moving = scope.spawn(move || pk(address, &command));
            sleep(after);
            server.kill9();
            moving.join().expect("it does not panic")
        });
        done += u32::from(said == "OK");
        server.restart();
        println!("{round}: {slots} to {shard}, killed after {after:?}: {said}");
        sleep(Duration::from_millis(50));
    }
    moved(&server, &format!("0-{}", USED - 1), 1);
    let (writes, perhaps) = load.end(&server);
    println!("{writes} writes, {perhaps} unknown, {done} of {rounds} moves done before the end");
    assert!(writes > 100, "somebody wrote");
    let keys = server.client().ask("KEYS *").items().len() as i64;
    assert_eq!(server.client().ask("DBSIZE"), Value::Int(keys));
}

#[test]
fn each_slot_has_one_place_and_all_its_writes_after_some_kills() {
    chaos(6);
}

#[test]
#[ignore = "takes minutes: run by make test-long"]
fn each_slot_has_one_place_and_all_its_writes_after_many_kills() {
    chaos(200);
}

/// Keys of every type in slots that move, some with an end.
fn fill(server: &Server) {
    let mut client = server.client();
    for (at, name) in names("c", 60).iter().enumerate() {
        let fields = 1 + at * at % 300;
        for field in 0..fields {
            let (field, number) = (format!("f{field}"), field.to_string());
            let call = match at % 6 {
                0 => args!["HSET", name, field, number],
                1 => args!["SADD", name, field],
                2 => args!["ZADD", name, number, field],
                3 => args!["RPUSH", name, field],
                4 => args!["XADD", name, "*", field, number],
                _ => args!["SET", name, "x".repeat(1 + at * 4000)],
            };
            assert_eq!(client.must(&call).error_text(), "", "{name}");
        }
        if at % 7 == 0 {
            client.must(&args!["EXPIRE", name, "10000"]);
        }
    }
    client.ask("SELECT 3");
    for name in names("d", 20) {
        client.must(&args!["SET", name, "of another database"]);
    }
}

#[test]
fn collections_move_whole_and_keys_end_where_they_have_come_to() {
    let mut server = Server::start(Options::shards(4));
    fill(&server);
    let before = contents(&server);
    let mut client = server.client();
    for name in names("e", 30) {
        client.must(&args!["SET", name, "short", "PX", "1500"]);
    }
    moved(&server, "0-11", 3);
    eventually("all that was to end has ended", || client.ask("DBSIZE") == Value::Int(60));
    assert_eq!(contents(&server), before);
    moved(&server, "0-5", 1);
    moved(&server, "0-11", 1);
    assert_eq!(contents(&server), before);
    server.kill9();
    server.restart();
    assert_eq!(contents(&server), before);
    let mut client = server.client();
    assert_eq!(client.ask("FLUSHALL"), Value::ok());
    assert_eq!(client.ask("DBSIZE"), Value::Int(0));
    server.terminate();
    server.restart();
    assert_eq!(server.client().ask("KEYS *"), Value::Array(Vec::new()));
}

#[test]
fn slots_move_to_shards_that_were_added() {
    let mut server = Server::start(Options::shards(1));
    fill(&server);
    let before = contents(&server);
    server.terminate();
    (server.options.shards, server.options.cores) = (3, 2);
    server.restart();
    assert_eq!(placed(&server), ["0-1023", "", ""]);
    moved(&server, "0-511", 1);
    moved(&server, "6-700", 2);
    assert_eq!(placed(&server), ["701-1023", "0-5", "6-700"]);
    assert_eq!(contents(&server), before);
    server.kill9();
    server.restart();
    assert_eq!(placed(&server), ["701-1023", "0-5", "6-700"]);
    assert_eq!(contents(&server), before);
}

#[test]
fn a_scan_sees_every_key_however_slots_move_meanwhile() {
    let server = Server::start(Options::shards(3));
    let mut client = server.client();
    let all: BTreeSet<String> = (0..3000).map(|n| format!("s{n}")).collect();
    for name in &all {
        client.must(&args!["SET", name, "v"]);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let mover = {
        let (address, ended) = (server.address(), ended.clone());
        thread::spawn(move || {
            let mut random = StdRng::seed_from_u64(11);
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                let first = random.random_range(0..SLOTS);
                let last = random.random_range(first..SLOTS);
                let said = pk(address, &format!("MOVESLOT {first}-{last} {}", random.random_range(0..3)));
                assert_eq!(said, "OK");
                count += 1;
            }
            count
        })
    };
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        let (mut cursor, mut seen) = (b"0".to_vec(), BTreeSet::new());
        loop {
            let reply = client.must(&args!["SCAN", cursor, "COUNT", "40"]);
            let [next, keys] = reply.items() else { panic!("{reply:?}") };
            let keys = keys.items().iter().filter_map(Value::bytes);
            seen.extend(keys.map(|key| String::from_utf8_lossy(key).into_owned()));
            cursor = next.bytes().expect("a cursor").to_vec();
            if cursor == b"0" {
                break;
            }
        }
        assert_eq!(seen, all);
        assert_eq!(client.ask("KEYS *").items().len(), all.len());
        assert_eq!(client.ask("DBSIZE"), Value::Int(all.len() as i64));
    }
    ended.store(true, Ordering::Relaxed);
    assert!(mover.join().expect("it does not panic") > 2, "something moved");
}

#[test]
fn who_waits_for_a_key_is_woken_where_its_slot_has_come_to() {
    let server = Server::start(Options::shards(3));
    let keys = names("q", 6);
    let waiters: Vec<_> = keys
        .iter()
        .map(|key| {
            let (mut client, key) = (server.client(), key.clone());
            client.set_timeout(Duration::from_secs(60));
            thread::spawn(move || client.must(&args!["BLPOP", key, "elsewhere", "50"]))
        })
        .collect();
    eventually("they wait", || server.client().info("blocked_clients") == 6);
    moved(&server, "0-11", 2);
    moved(&server, "0-3", 1);
    let mut client = server.client();
    for key in &keys {
        client.must(&args!["RPUSH", key, "item"]);
    }
    for (waiter, key) in waiters.into_iter().zip(&keys) {
        let got = waiter.join().expect("it does not panic");
        assert_eq!(got, Value::Array(vec![Value::bulk(key), Value::bulk("item")]));
        assert_eq!(client.must(&args!["LLEN", key]), Value::Int(0));
    }
}

#[test]
fn a_follower_stays_the_same_and_copies_only_what_it_must() {
    let primary = Server::start(Options::shards(3));
    let mut follower = Server::start(Options::shards(2));
    fill(&primary);
    follow(&follower, &primary);
    assert_same(&follower, &primary);
    let load = Load::begin(&primary);
    for (slots, shard) in [("0-11", 2), ("3-7", 0), ("0-20", 1), ("5", 2)] {
        moved(&primary, slots, shard);
    }
    load.end(&primary);
    assert_same(&follower, &primary);
    // One that has everything goes on with the records that come.
    let copies = primary.client().info("copies_begun");
    for (slots, shard) in [("0-11", 0), ("2-9", 2)] {
        moved(&primary, slots, shard);
        assert_eq!(primary.client().must(&args!["SET", names("after", 1)[0], slots]), Value::ok());
        assert_same(&follower, &primary);
    }
    assert_eq!(primary.client().info("copies_begun"), copies);
    // One that was behind when they moved has to copy them.
    follower.terminate();
    for name in names("meanwhile", 10) {
        assert_eq!(primary.client().must(&args!["SET", name, name]), Value::ok());
    }
    moved(&primary, "0-11", 1);
    moved(&primary, "0-11", 0);
    primary.client().must(&args!["DEL", names("meanwhile", 1)[0]]);
    follower.restart();
    follow(&follower, &primary);
    assert_same(&follower, &primary);
    let refused = pk(follower.address(), "MOVESLOT 1 1");
    assert!(refused.contains("follows another"), "{refused}");
    assert_eq!(follower.client().ask("REPLICAOF NO ONE"), Value::ok());
    moved(&follower, "0-11", 1);
    assert_eq!(contents(&follower), contents(&primary));
}

#[test]
fn slots_move_between_shards_in_sharding_mode_and_digests_agree() {
    let mut server = Server::start(Options::shards(2).with(&["--instance-mode", "sharding"]));
    assert_eq!(pk(server.address(), "ADDSLOTS 0-11"), "OK");
    let mut client = server.client();
    for name in names("g", 80) {
        client.must(&args!["SET", name, name.repeat(20)]);
    }
    let digest = pk(server.address(), "DIGEST 0-11");
    moved(&server, "0-300", 1);
    assert_eq!(pk(server.address(), "DIGEST 0-11"), digest);
    assert!(pk(server.address(), "INFO migration").contains("migration_target:shard 1"));
    server.kill9();
    server.restart();
    assert_eq!(pk(server.address(), "DIGEST 0-11"), digest);
    assert_eq!(pk(server.address(), "DELSLOTS 0-5"), "OK");
    assert!(pk(server.address(), "INFO slot 6-11").contains("Role: Master"));
}

#[test]
fn cluster_clients_are_told_where_slots_have_come_to() {
    let options = Options::shards(2).with(&["--slot-hash", "crc16", "--shard-aware-ports", "on"]);
    let server = Server::start(options);
    let mut client = server.client();
    assert_eq!(client.ask("CLUSTER KEYSLOT bar"), Value::Int(5061));
    client.ask("SET bar here");
    moved(&server, "0-99,5061", 1);
    let reply = client.ask("CLUSTER NODES");
    let nodes = String::from_utf8_lossy(reply.bytes().expect("text")).into_owned();
    let ends: Vec<&str> =
        nodes.lines().filter_map(|line| line.split_once("connected")).map(|(_, end)| end).collect();
    assert_eq!(ends, [" 100-5060 5062-8191", " 0-99 5061 8192-16383"], "{nodes}");
    assert_eq!(client.ask("CLUSTER COUNTKEYSINSLOT 5061"), Value::Int(1));
    assert_eq!(client.ask("GET bar"), Value::bulk("here"));
}

#[test]
fn whole_tables_change_while_slots_move() {
    let server = Server::start(Options::shards(3));
    let ended = Arc::new(AtomicBool::new(false));
    let mover = {
        let (address, ended) = (server.address(), ended.clone());
        thread::spawn(move || {
            let mut said: BTreeMap<String, u32> = BTreeMap::new();
            for shard in (0..3).cycle().take_while(|_| !ended.load(Ordering::Relaxed)) {
                *said.entry(pk(address, &format!("MOVESLOT 0-11 {shard}"))).or_default() += 1;
            }
            said
        })
    };
    let (mut client, names) = (server.client(), names("t", 12));
    for round in 0..150 {
        client.ask("SELECT 0");
        let value = round.to_string();
        for name in &names {
            client.must(&args!["SET", name, value]);
        }
        if round % 3 == 0 {
            assert_eq!(client.ask("SWAPDB 0 1"), Value::ok());
            client.ask("SELECT 1");
        }
        for name in &names {
            assert_eq!(client.must(&args!["GET", name]), Value::bulk(&value), "{name} in round {round}");
        }
        assert_eq!(client.ask("DBSIZE"), Value::Int(12));
        assert_eq!(client.ask(["FLUSHDB", "FLUSHALL"][round % 2]), Value::ok());
        assert_eq!(client.ask("DBSIZE"), Value::Int(0));
    }
    ended.store(true, Ordering::Relaxed);
    let said = mover.join().expect("it does not panic");
    let known = |text: &str| {
        text == "OK" || text.contains("tables may have been exchanged") || text.contains("refuses")
    };
    assert!(said.keys().all(|text| known(text)), "{said:?}");
    assert!(said.contains_key("OK"), "{said:?}");
}

#[test]
fn a_move_that_cannot_be_is_refused() {
    let server = Server::start(Options::shards(2));
    for (command, error) in [
        ("MOVESLOT 1 2", "ERR this node has 2 shards, counted from 0"),
        ("MOVESLOT 1 x", "ERR value is not an integer or out of range"),
        ("MOVESLOT 1024 1", "ERR Corruption: partition index out of range"),
        ("MOVESLOT 1- 1", "ERR Corruption: syntax error"),
        ("MOVESLOT 1", "ERR wrong number of arguments for 'pkclustermoveslot' command"),
        ("MIGRATECANCEL", "ERR no slots are being moved from here"),
    ] {
        assert_eq!(pk(server.address(), command), error, "{command}");
    }
    assert_eq!(pk(server.address(), "MOVESLOT 1 0"), "OK", "it lies there");
    assert_eq!(placed(&server), ["0-511", "512-1023"]);
    assert!(!server.data_dir().join("placement.toml").exists(), "nothing has moved");
}

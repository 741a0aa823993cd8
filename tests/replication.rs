//! Nodes that follow each other: real processes, real links, compared key by key.

mod harness;

use harness::{Client, Options, Server, Value};
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}

fn info(server: &Server, field: &str) -> String {
    let reply = server.client().ask("INFO replication");
    let text = String::from_utf8_lossy(reply.bytes().expect("INFO answers text")).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {field} in {text}"))
}

fn follow(follower: &Server, primary: &Server) {
    let reply = follower.client().ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    assert!(reply.error_text().is_empty(), "{reply:?}");
}

fn is_up(follower: &Server) -> bool {
    info(follower, "role") == "slave" && info(follower, "master_link_status") == "up"
}

/// Every key of every database with its value and the moment of its end.
fn contents(server: &Server) -> BTreeMap<(usize, Vec<u8>), (Vec<u8>, i64)> {
    let mut client = server.client();
    let mut all = BTreeMap::new();
    for db in 0..16 {
        client.ask(&format!("SELECT {db}"));
        let mut cursor = b"0".to_vec();
        loop {
            let reply = client.must(&args!["SCAN", cursor, "COUNT", "500"]);
            let [next, keys] = reply.items() else { panic!("{reply:?}") };
            for key in keys.items().iter().filter_map(Value::bytes) {
                let dump = client.must(&args!["DUMP", key]).bytes().map(<[u8]>::to_vec);
                let end = client.must(&args!["PEXPIRETIME", key]).int();
                // Between the scan and the look it may have expired.
                if let (Some(dump), Some(end)) = (dump, end) {
                    all.insert((db, key.to_vec()), (dump, end));
                }
            }
            cursor = next.bytes().expect("a cursor").to_vec();
            if cursor == b"0" {
                break;
            }
        }
    }
    all
}

fn caught_up(follower: &Server, primary: &Server) -> bool {
    is_up(follower) && info(follower, "slave_repl_offset") == info(primary, "master_repl_offset")
}

fn assert_same(follower: &Server, primary: &Server) {
    eventually("the follower catches up", || caught_up(follower, primary));
    let (have, want) = (contents(follower), contents(primary));
    let differs = want.iter().find(|(key, value)| have.get(key) != Some(value));
    assert!(differs.is_none(), "differs at {:?}", differs.map(|(key, _)| key));
    let extra = have.keys().find(|key| !want.contains_key(key));
    assert!(extra.is_none(), "only the follower has {extra:?}");
    assert!(!want.is_empty(), "there is something to compare");
}

/// Keys of every type, small and large, in several databases, some that expire.
fn fill(client: &mut Client, round: usize) {
    let long = "x".repeat(200_000);
    for db in [0, 3] {
        client.ask(&format!("SELECT {db}"));
        for n in 0..200 {
            client.must(&args!["SET", format!("s{round}-{n}"), format!("{n}")]);
        }
        client.must(&args!["SET", format!("long{round}"), long]);
        client.must(&args!["SET", format!("later{round}"), "v", "PX", "600000"]);
        client.ask(&format!("MSET a{round} 1 b{round} 2 c{round} 3 d{round} 4"));
        client.ask(&format!("HSET h{round} f 1 g 2"));
        client.ask(&format!("RPUSH l{round} a b c"));
        client.ask(&format!("SADD i{round} 1 2 3"));
        client.ask(&format!("ZADD z{round} 1 a 2 b"));
        client.ask(&format!("PFADD p{round} a b c"));
        client.ask(&format!("XADD x{round} * f v"));
        client.ask(&format!("XGROUP CREATE x{round} g 0"));
        client.ask(&format!("XREADGROUP GROUP g c STREAMS x{round} >"));
        for n in 0..300 {
            client.ask(&format!("HSET H{round} field{n} value{n}"));
            client.ask(&format!("RPUSH L{round} item{n}"));
            client.ask(&format!("ZADD Z{round} {n} member{n}"));
        }
        client.ask(&format!("HPEXPIRE H{round} 900000 FIELDS 1 field7"));
        client.ask(&format!("DEL s{round}-0 s{round}-1"));
    }
    client.ask("SELECT 0");
}

#[test]
fn a_follower_copies_then_follows_whatever_its_number_of_shards() {
    for (shards, follower_shards) in [(1, 2), (2, 1)] {
        let primary = Server::start(Options::shards(shards));
        let follower = Server::start(Options::shards(follower_shards));
        let mut client = primary.client();
        fill(&mut client, 0);
        follower.client().must(&args!["SET", "of its own", "gone"]);
        follow(&follower, &primary);
        eventually("the link is up", || is_up(&follower));
        assert_same(&follower, &primary);
        fill(&mut client, 1);
        client.ask("SWAPDB 0 3");
        client.ask("SELECT 3");
        client.ask("FLUSHDB");
        fill(&mut client, 2);
        assert_same(&follower, &primary);
        let refused = follower.client().ask("SET a b").error_text();
        assert_eq!(refused, "READONLY You can't write against a read only replica.");
        assert_eq!(client.ask("WAIT 1 5000"), Value::Int(1));
        assert_eq!(client.ask("WAITAOF 1 1 5000"), Value::Array(vec![Value::Int(1), Value::Int(1)]));
        assert_eq!(info(&primary, "connected_slaves"), "1");
    }
}

#[test]
fn a_follower_that_comes_back_is_not_copied_again() {
    let mut primary = Server::start(Options::shards(2));
    let mut follower = Server::start(Options::shards(2));
    let mut client = primary.client();
    fill(&mut client, 0);
    follow(&follower, &primary);
    eventually("the link is up", || caught_up(&follower, &primary));
    let copies = info(&primary, "copies_begun");
    follower.kill9();
    fill(&mut client, 1);
    follower.restart();
    follow(&follower, &primary);
    assert_same(&follower, &primary);
    assert_eq!(info(&primary, "copies_begun"), copies, "the log has what was missing");
    // The primary as well: what it lost by being killed, nobody had been told of.
    drop(client);
    primary.kill9();
    primary.restart();
    let mut client = primary.client();
    fill(&mut client, 2);
    assert_same(&follower, &primary);
    assert_eq!(info(&primary, "copies_begun"), "0", "its log goes on");
}

#[test]
fn what_wait_acknowledged_is_there_after_a_promotion() {
    let mut first = Server::start(Options::shards(2));
    let second = Server::start(Options::shards(2));
    let third = Server::start(Options::shards(1));
    let mut client = first.client();
    fill(&mut client, 0);
    follow(&second, &first);
    follow(&third, &first);
    eventually("both follow", || caught_up(&second, &first) && caught_up(&third, &first));
    for n in 0..500 {
        client.must(&args!["SET", format!("counted{n}"), n.to_string()]);
    }
    assert_eq!(client.ask("WAIT 2 10000"), Value::Int(2));
    // Written, and perhaps not seen by anybody else.
    for n in 0..200 {
        client.must(&args!["SET", format!("tail{n}"), "unacknowledged"]);
    }
    first.kill9();
    assert_eq!(second.client().ask("REPLICAOF NO ONE"), Value::ok());
    let mut client = second.client();
    for n in 0..500 {
        let value = client.must(&args!["GET", format!("counted{n}")]);
        assert_eq!(value, Value::bulk(n.to_string()), "acknowledged");
    }
    for n in 0..300 {
        client.must(&args!["SET", format!("after{n}"), n.to_string()]);
    }
    follow(&third, &second);
    assert_same(&third, &second);
    first.restart();
    follow(&first, &second);
    assert_same(&first, &second);
}

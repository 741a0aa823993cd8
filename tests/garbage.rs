//! Large collections that are gone give their space back by themselves, in whatever files of RocksDB they lie,
//! and no command has to look at their elements for it.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value, haypile_binary};
use nodes::{caught_up, eventually, follow, is_up};
use std::process::Command;
use std::time::{Duration, Instant};

const ELEMENTS: usize = 30_000;
const BATCH: usize = 1_000;
/// In one slot, whose elements are counted.
const NAMES: [&str; 6] = ["m1{x}", "m2{x}", "m3{x}", "m4{x}", "m5{x}", "m6{x}"];

fn fill(client: &mut Client, command: &str, key: &str, element: impl Fn(usize) -> Vec<Vec<u8>>) {
    for from in (0..ELEMENTS).step_by(BATCH) {
        let mut args = args![command, key];
        args.extend((from..from + BATCH).flat_map(&element));
        let reply = client.must(&args);
        assert!(reply.int().is_some(), "{command}: {}", reply.error_text());
    }
}

fn fill_stream(client: &mut Client, key: &str) {
    for from in (0..ELEMENTS).step_by(BATCH) {
        let adds: Vec<Vec<Vec<u8>>> =
            (from..from + BATCH).map(|at| args!["XADD", key, format!("{}-0", at + 1), "f", "v"]).collect();
        client.send_all(adds.iter().map(Vec::as_slice)).expect("it is connected");
        (0..BATCH).for_each(|_| assert!(client.read().expect("an answer").bytes().is_some()));
    }
}

/// Elements in the files of a stopped server.
fn elements_in_files(server: &Server) -> u64 {
    let done = Command::new(haypile_binary()).arg("check").arg(server.data_dir()).arg("--slots").output();
    let text = String::from_utf8(done.expect("it runs").stdout).expect("it is text");
    assert!(text.contains("nothing is wrong"), "{text}");
    let line =
        text.lines().find(|line| line.trim_start().starts_with("table 0 slot ")).expect("one slot is used");
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "elements,").expect("it counts elements");
    words[at - 1].parse().unwrap_or_else(|_| panic!("{line}"))
}

/// Until the space of so many is given back. Files must hold their end first, which takes ten seconds when little
/// is written.
fn wait_until_freed(server: &Server, count: u64) {
    let mut client = server.client();
    let deadline = Instant::now() + Duration::from_secs(180);
    while client.info("garbage_freed") < count {
        assert_eq!(client.info("garbage_left"), 0);
        assert!(Instant::now() < deadline, "of {count}:\n{}", client.info_text());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(client.info("garbage_freed"), count);
    assert_eq!(client.info("garbage_waiting"), 0);
}

#[test]
fn collections_that_are_gone_give_their_space_back_unread() {
    let mut server = Server::start(Options::shards(1).memory_budget("512MiB"));
    let mut client = server.client();
    client.set_timeout(Duration::from_secs(60));
    let name = |at: usize| format!("element-{at:07}").into_bytes();
    fill(&mut client, "HSET", NAMES[0], |at| vec![name(at), name(at)]);
    fill(&mut client, "RPUSH", NAMES[1], |at| vec![name(at)]);
    fill(&mut client, "SADD", NAMES[2], |at| vec![name(at)]);
    fill(&mut client, "ZADD", NAMES[3], |at| vec![at.to_string().into_bytes(), name(at)]);
    fill_stream(&mut client, NAMES[4]);
    fill(&mut client, "HSET", NAMES[5], |at| vec![name(at), name(at)]);
    server.terminate();
    let elements = elements_in_files(&server);
    assert!(
        elements > NAMES.len() as u64 * ELEMENTS as u64,
        "a list has few, a sorted set two for each: {elements}"
    );

    // Nothing of them is in memory now.
    server.restart();
    let mut client = server.client();
    assert_eq!(client.must(&args!["HGET", NAMES[0], name(ELEMENTS / 2)]), Value::bulk(name(ELEMENTS / 2)));
    let cold_before = client.info("cold_reads");
    assert!(cold_before > 0, "an element comes from a file");
    client.must(&args!["SADD", "s0{x}", "one"]);
    client.must(&args!["ZADD", "s1{x}", "1", "one"]);
    assert_eq!(client.must(&args!["DEL", NAMES[0]]), Value::Int(1));
    // SET and RENAME read nothing of what they replace, and know it only from memory.
    assert_eq!(client.must(&args!["LLEN", NAMES[1]]), Value::Int(ELEMENTS as i64));
    assert_eq!(client.must(&args!["ZCARD", NAMES[3]]), Value::Int(ELEMENTS as i64));
    assert_eq!(client.must(&args!["SET", NAMES[1], "v"]), Value::ok());
    assert_eq!(client.must(&args!["SUNIONSTORE", NAMES[2], "s0{x}"]), Value::Int(1));
    assert_eq!(client.must(&args!["RENAME", "s1{x}", NAMES[3]]), Value::ok());
    assert_eq!(client.must(&args!["UNLINK", NAMES[4]]), Value::Int(1));
    assert_eq!(client.must(&args!["PEXPIRE", NAMES[5], "1"]), Value::Int(1));
    wait_until_freed(&server, NAMES.len() as u64);
    // None of all this has brought an element into memory; a look at one would have.
    let cold = client.info("cold_reads") - cold_before;
    assert!(cold <= 2 * NAMES.len() as u64, "{cold} reads of files");

    server.terminate();
    assert_eq!(elements_in_files(&server), 0);
    server.restart();
    assert_eq!(server.client().ask("DBSIZE"), Value::Int(4));
}

#[test]
fn collections_of_several_shards_give_their_space_back_on_the_follower_too() {
    let primary = Server::start(Options::shards(2));
    let follower = Server::start(Options::shards(1));
    follow(&follower, &primary);
    eventually("the link is up", || is_up(&follower));
    let mut client = primary.client();
    let keys: Vec<String> = (0..4).map(|n| format!("key{n}")).collect();
    for key in &keys {
        fill(&mut client, "SADD", key, |at| vec![at.to_string().into_bytes()]);
    }
    eventually("it has all", || caught_up(&follower, &primary));
    for key in &keys {
        // As on the primary, where the commands themselves read it, its row is in memory.
        assert_eq!(follower.client().must(&args!["SCARD", key]), Value::Int(ELEMENTS as i64));
    }
    client.must(&args!["SADD", "small", "one"]);
    assert_eq!(client.must(&args!["DEL", keys[0], keys[1], "small"]), Value::Int(3));
    client.must(&args!["SADD", "small", "one"]);
    assert_eq!(client.must(&args!["SUNIONSTORE", keys[2], "small"]), Value::Int(1));
    assert_eq!(client.must(&args!["RENAME", "small", keys[3]]), Value::ok());
    wait_until_freed(&primary, keys.len() as u64);
    wait_until_freed(&follower, keys.len() as u64);
}

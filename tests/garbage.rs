//! Large collections that are deleted or written over give their space back when RocksDB merges its files,
//! and no command has to look at their elements for it.

mod harness;

use harness::{Client, Options, Server, Value, haypile_binary};
use std::process::Command;
use std::time::{Duration, Instant};

const ELEMENTS: usize = 200_000;
const BATCH: usize = 1_000;
/// In one slot, so that what is written later lies around it; all of one length, by which names are sorted.
const NAMES: [&str; 5] = ["m1{x}", "m2{x}", "m3{x}", "m4{x}", "m5{x}"];
/// RocksDB merges files once it has so many new ones; each stop of the server makes one.
const STOPS_MAX: usize = 8;

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

/// Elements and bytes in the files of a stopped server.
fn in_files(server: &Server) -> (u64, u64) {
    let done = Command::new(haypile_binary()).arg("check").arg(server.data_dir()).arg("--slots").output();
    let text = String::from_utf8(done.expect("it runs").stdout).expect("it is text");
    assert!(text.contains("nothing is wrong"), "{text}");
    let line =
        text.lines().find(|line| line.trim_start().starts_with("table 0 slot ")).expect("one slot is used");
    let words: Vec<&str> = line.split_whitespace().collect();
    let before = |word: &str| {
        let at = words.iter().position(|other| other.starts_with(word)).unwrap_or_else(|| panic!("{line}"));
        words[at - 1].parse::<f64>().unwrap_or_else(|_| panic!("{line}"))
    };
    let at = words.iter().position(|word| *word == "elements,").expect("it counts elements");
    let unit = match words[at + 2].trim_end_matches(',') {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        other => panic!("{other}: {line}"),
    };
    (before("elements,") as u64, (before(words[at + 2]) * unit) as u64)
}

/// Until RocksDB has nothing to merge.
fn wait_for_merges(client: &mut Client) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut idle = 0;
    while idle < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        let text = client.ask("INFO");
        let text = String::from_utf8_lossy(text.bytes().expect("INFO is text")).into_owned();
        let is_idle = text.contains("is_compact:No") && text.contains("pending_compaction_bytes=0,");
        idle = if is_idle { idle + 1 } else { 0 };
    }
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
    server.terminate();
    let (elements, bytes) = in_files(&server);
    assert!(elements > 5 * ELEMENTS as u64, "a sorted set has two for each member, a list few: {elements}");
    println!("{elements} elements, {bytes} bytes");

    // Nothing of them is in memory now.
    server.restart();
    let mut client = server.client();
    assert_eq!(client.must(&args!["HGET", NAMES[0], name(ELEMENTS / 2)]), Value::bulk(name(ELEMENTS / 2)));
    let cold_before = client.info("cold_reads");
    assert!(cold_before > 0, "an element comes from a file");
    let began = Instant::now();
    client.must(&args!["SADD", "s0{x}", "one"]);
    client.must(&args!["ZADD", "s1{x}", "1", "one"]);
    assert_eq!(client.must(&args!["DEL", NAMES[0]]), Value::Int(1));
    assert_eq!(client.must(&args!["SET", NAMES[1], "v"]), Value::ok());
    assert_eq!(client.must(&args!["SUNIONSTORE", NAMES[2], "s0{x}"]), Value::Int(1));
    assert_eq!(client.must(&args!["RENAME", "s1{x}", NAMES[3]]), Value::ok());
    assert_eq!(client.must(&args!["UNLINK", NAMES[4]]), Value::Int(1));
    let cold = client.info("cold_reads") - cold_before;
    // None of these has brought an element into memory; a look at one would have.
    println!("gone in {:?} with {cold} reads of files", began.elapsed());
    assert!(cold <= 2 * NAMES.len() as u64, "{cold} reads of files");

    for stop in 1..=STOPS_MAX {
        // New files that reach over all of the old.
        for key in ["a0{x}", "z0{x}"] {
            let mut args = args!["SADD", key];
            args.extend((0..300).map(|at| name(at + stop)));
            server.client().must(&args);
        }
        server.terminate();
        server.restart();
        let mut client = server.client();
        wait_for_merges(&mut client);
        server.terminate();
        let (elements_left, bytes_left) = in_files(&server);
        println!("after {stop} stops {elements_left} elements, {bytes_left} bytes");
        server.restart();
        // What no compaction has a reason to touch keeps its garbage: one of the five may be such a file.
        if elements_left < elements / 4 {
            assert!(bytes_left < bytes / 3, "{bytes_left} of {bytes} bytes are left");
            assert_eq!(server.client().ask("DBSIZE"), Value::Int(6));
            return;
        }
    }
    panic!("the elements are still there");
}

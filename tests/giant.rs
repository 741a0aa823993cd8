//! Commands of a million arguments and values of many megabytes: whole or absent for every reader and after
//! every crash, and no core is held by them for longer than a few milliseconds.

mod harness;

use harness::{Client, Options, Server, Value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Arguments of one command at most; Redis's bound, and ours.
const ARGS_MAX: usize = 1024 * 1024;
/// Far above what a turn takes: the machine of a test has other things to do.
const TURN_MAX_US: u64 = 25_000;

fn key(at: usize) -> Vec<u8> {
    format!("key:{at:07}").into_bytes()
}

fn with_keys(name: &str, count: usize) -> Vec<Vec<u8>> {
    std::iter::once(name.as_bytes().to_vec()).chain((0..count).map(key)).collect()
}

fn with_pairs(name: &str, count: usize, value: impl Fn(usize) -> Vec<u8>) -> Vec<Vec<u8>> {
    let pairs = (0..count).flat_map(|at| [key(at), value(at)]);
    std::iter::once(name.as_bytes().to_vec()).chain(pairs).collect()
}

fn client(server: &Server) -> Client {
    let client = server.client();
    client.set_timeout(Duration::from_secs(120));
    client
}

fn longest_turn_us(client: &mut Client) -> u64 {
    let info = client.must(&args!["INFO", "haypile"]);
    let info = String::from_utf8_lossy(info.bytes().expect("INFO answers text")).into_owned();
    let line = info.lines().find_map(|line| line.strip_prefix("turn_max_us:")).expect("INFO names it");
    line.trim().parse().expect("a number")
}

/// For how long each core was ready to run and other threads of the machine were running, microseconds.
fn kept_waiting_us(pid: u64) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is running");
    let mut waits: Vec<(String, u64)> = tasks
        .filter_map(|task| {
            let path = task.expect("it is readable").path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
            let wait_ns: u64 = stat.split_whitespace().nth(1)?.parse().ok()?;
            name.starts_with("core-").then_some((name, wait_ns / 1000))
        })
        .collect();
    waits.sort();
    waits.into_iter().map(|(_, wait_us)| wait_us).collect()
}

/// Runs a command and checks its answer; the longest turn meanwhile, microseconds, without what the scheduler may
/// have made of it: on a machine that does nothing else that is nothing.
#[track_caller]
fn turn_of(client: &mut Client, command: &[Vec<u8>], check: impl Fn(&Value)) -> u64 {
    let pid = client.info("process_id");
    assert_eq!(client.ask("CONFIG RESETSTAT"), Value::ok());
    let before = kept_waiting_us(pid);
    let began = Instant::now();
    let reply = client.must(command);
    let took = began.elapsed();
    check(&reply);
    let turn_us = longest_turn_us(client);
    let waits = before.iter().zip(kept_waiting_us(pid)).map(|(before, after)| after - before);
    let waited_us = waits.max().expect("it has a core");
    println!(
        "{} of {} arguments: {took:?}, longest turn {turn_us} us, kept waiting for {waited_us} us",
        String::from_utf8_lossy(&command[0]),
        command.len()
    );
    turn_us.saturating_sub(waited_us)
}

/// The scheduler may take a core away in the middle of a turn, but not each time.
#[track_caller]
fn holds_no_core(mut run: impl FnMut() -> u64) {
    const TRIES: usize = 3;
    let turns: Vec<u64> = (0..TRIES)
        .map_while({
            let mut over = true;
            move |_| over.then(&mut run).inspect(|turn_us| over = *turn_us >= TURN_MAX_US)
        })
        .collect();
    let best = turns.iter().min().expect("tried at least once");
    assert!(*best < TURN_MAX_US, "a turn of {best} us in the best of {turns:?}");
}

#[test]
fn a_million_arguments_hold_no_core() {
    let server = Server::start(Options::shards(1).memory_budget("2GiB"));
    let mut client = client(&server);
    let keys = ARGS_MAX - 1;
    let half = keys / 2;
    let mset = with_pairs("MSET", half, |at| format!("v{at}").into_bytes());
    holds_no_core(|| turn_of(&mut client, &mset, |reply| assert_eq!(*reply, Value::ok())));
    let mget = with_keys("MGET", keys);
    let all = |reply: &Value| {
        for (at, value) in reply.items().iter().enumerate() {
            let expected = if at < half { Value::bulk(format!("v{at}")) } else { Value::NilBulk };
            assert_eq!(*value, expected, "key {at}");
        }
        assert_eq!(reply.items().len(), keys);
    };
    holds_no_core(|| turn_of(&mut client, &mget, all));
    for name in ["EXISTS", "TOUCH"] {
        let command = with_keys(name, keys);
        holds_no_core(|| turn_of(&mut client, &command, |reply| assert_eq!(*reply, Value::Int(half as i64))));
    }
    for name in ["DEL", "UNLINK"] {
        let command = with_keys(name, keys);
        holds_no_core(|| {
            client.must(&mset);
            turn_of(&mut client, &command, |reply| assert_eq!(*reply, Value::Int(half as i64)))
        });
    }
    assert_eq!(client.must(&with_keys("EXISTS", keys)), Value::Int(0));
}

/// As an equality of megabytes, but says where they differ.
#[track_caller]
fn same_bytes(reply: &Value, expected: &[u8]) {
    let found = reply.bytes().expect("a value");
    assert_eq!(found.len(), expected.len(), "length of the value as it was set");
    let differs: Vec<usize> = (0..found.len()).filter(|at| found[*at] != expected[*at]).collect();
    if let (Some(first), Some(last)) = (differs.first(), differs.last()) {
        let zeros = differs.iter().filter(|at| found[**at] == 0).count();
        panic!("{} bytes differ, from {first} to {last}, {zeros} of them zero", differs.len());
    }
}

#[test]
fn long_values_hold_no_core_and_survive() {
    for shards in [1, 2] {
        let mut server = Server::start(Options::shards(shards).memory_budget("768MiB"));
        let mut one = client(&server);
        let value: Vec<u8> =
            (0..90u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let holds = |reply: &Value| same_bytes(reply, &value);
        let ok = |reply: &Value| assert_eq!(*reply, Value::ok());
        holds_no_core(|| turn_of(&mut one, &args!["SET", "long", value], ok));
        holds_no_core(|| turn_of(&mut one, &args!["GET", "long"], holds));
        // With two shards, names of both: the value goes over as well.
        for other in ["a", "b", "c", "d"] {
            assert_eq!(one.must(&args!["COPY", "long", other, "REPLACE"]), Value::Int(1));
        }
        assert_eq!(one.ask("RENAME long e"), Value::ok());
        assert_eq!(one.ask("DEL a b"), Value::Int(2));
        assert_eq!(one.ask("APPEND d tail"), Value::Int(value.len() as i64 + 4));
        server.kill9();
        server.restart();
        let mut one = client(&server);
        holds(&one.must(&args!["GET", "c"]));
        holds(&one.must(&args!["GETDEL", "e"]));
        assert_eq!(
            one.must(&args!["GETRANGE", "d", "-6", "-1"]).bytes().map(|end| &end[2..]),
            Some(&b"tail"[..])
        );
        assert_eq!(one.ask("EXISTS long a b c d e"), Value::Int(2));
    }
}

/// The server stops reading from who waits and has sent much; it must go on when what it holds is only the beginning
/// of a command.
#[test]
fn a_long_command_cut_while_another_waits_is_read_to_its_end() {
    let server = Server::start(Options::shards(1));
    let mut one = server.client();
    let value = vec![b'v'; 1_000_000];
    let head = format!("*3\r\n$3\r\nSET\r\n$4\r\nlong\r\n${}\r\n", value.len());
    one.write_raw(b"BLPOP nothing 0.5\r\nSET short 1\r\n").expect("it reads");
    one.write_raw(&[head.as_bytes(), &value[..400_000]].concat()).expect("it reads");
    assert!(one.read().expect("an answer").is_nil());
    assert_eq!(one.read().expect("an answer"), Value::ok());
    one.write_raw(&[&value[400_000..], b"\r\n"].concat()).expect("it reads");
    assert_eq!(one.read().expect("an answer"), Value::ok());
    assert_eq!(one.ask("STRLEN long"), Value::Int(value.len() as i64));
}

/// Many keys that one command always gives the same value: a reader that sees two is shown half a command.
const ATOMIC_KEYS: usize = 6_000;

fn generation(values: &Value) -> Option<u64> {
    let items = values.items();
    assert!(!items.is_empty(), "an array of values");
    assert!(
        items.iter().all(|value| *value == items[0]),
        "half a command is seen: {:?} and others",
        items[0]
    );
    items[0].bytes().map(|bytes| String::from_utf8_lossy(bytes).parse().expect("a number was set"))
}

/// Writes generation after generation until the server is gone; every fifth command deletes all.
fn write_generations(server: &Server, begun: &AtomicU64, done: &AtomicU64) {
    let mut client = client(server);
    loop {
        let now = begun.fetch_add(1, Ordering::SeqCst) + 1;
        let command = match now % 5 {
            0 => with_keys("DEL", ATOMIC_KEYS),
            _ => with_pairs("MSET", ATOMIC_KEYS, |_| now.to_string().into_bytes()),
        };
        if client.call(&command).is_err() {
            return;
        }
        done.store(now, Ordering::SeqCst);
    }
}

fn read_generations(server: &Server, keys: &[Vec<u8>], stopped: &AtomicBool) {
    let mut client = client(server);
    let mut last = 0;
    let mut count = 0;
    while let Ok(values) = client.call(keys) {
        if let Some(now) = generation(&values) {
            assert!(now >= last, "an older state is seen again: {now} after {last}");
            last = now;
        }
        count += 1;
    }
    assert!(stopped.load(Ordering::SeqCst), "the connection held until the server was killed");
    assert!(count > 0, "something was read");
}

#[test]
fn giant_writes_are_whole_for_every_reader_and_after_every_crash() {
    for (shards, policy) in [(1, "everysec"), (2, "everysec"), (4, "everysec"), (4, "always")] {
        let mut server = Server::start(Options::shards(shards).appendfsync(policy));
        let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
        for round in 0..3 {
            let stopped = AtomicBool::new(false);
            let few: Vec<_> =
                std::iter::once(b"MGET".to_vec()).chain([1, 2_000, 4_000, 5_999].map(key)).collect();
            let all = with_keys("MGET", ATOMIC_KEYS);
            thread::scope(|scope| {
                let (server, begun, done, stopped) = (&server, &begun, &done, &stopped);
                let writer = scope.spawn(move || write_generations(server, begun, done));
                scope.spawn(move || read_generations(server, &all, stopped));
                scope.spawn(move || read_generations(server, &few, stopped));
                thread::sleep(Duration::from_millis(700 + 130 * round));
                stopped.store(true, Ordering::SeqCst);
                server.signal("KILL");
                writer.join().expect("the writer ends with the server");
            });
            assert!(!server.wait_for_end().success());
            server.restart();
            let found = generation(&client(&server).must(&with_keys("MGET", ATOMIC_KEYS)));
            let (done, begun) = (done.load(Ordering::SeqCst), begun.load(Ordering::SeqCst));
            let of = |number: u64| (!number.is_multiple_of(5)).then_some(number);
            assert!(
                found == of(done) || found == of(begun),
                "{shards} shards, {policy}: {found:?} after {done} was acknowledged and {begun} begun"
            );
            println!("{shards} shards, {policy}: {done} acknowledged, {begun} begun, {found:?} found");
        }
    }
}

/// Commands that want each other's keys wait for one another, and never for ever.
#[test]
fn giant_commands_on_the_same_keys_all_end() {
    for shards in [1, 4] {
        let server = Server::start(Options::shards(shards));
        thread::scope(|scope| {
            for number in 0..4u64 {
                let server = &server;
                scope.spawn(move || {
                    let mut client = client(server);
                    let until = Instant::now() + Duration::from_secs(2);
                    while Instant::now() < until {
                        let value = |_| number.to_string().into_bytes();
                        assert_eq!(client.must(&with_pairs("MSET", ATOMIC_KEYS, value)), Value::ok());
                        let few = with_pairs("MSET", 50, value);
                        assert_eq!(client.must(&few), Value::ok());
                        assert_eq!(client.must(&args!["SET", key(7), "0"]), Value::ok());
                        assert!(client.must(&with_keys("EXISTS", ATOMIC_KEYS)).int().is_some());
                        assert_eq!(client.must(&with_keys("MGET", ATOMIC_KEYS)).items().len(), ATOMIC_KEYS);
                        if number == 0 {
                            assert_eq!(client.ask("FLUSHALL"), Value::ok());
                            assert_eq!(client.must(&with_pairs("MSET", ATOMIC_KEYS, value)), Value::ok());
                        }
                    }
                });
            }
        });
    }
}

/// What stands behind a giant command in its connection is answered behind it, and errors are Redis's.
#[test]
fn giant_commands_keep_their_place_and_their_errors() {
    let server = Server::start(Options::shards(2));
    let mut client = client(&server);
    let mut odd = with_pairs("MSET", 5_000, |_| b"v".to_vec());
    odd.pop();
    let mut long_name = with_keys("DEL", 5_000);
    long_name.push(vec![b'n'; 65_536]);
    let commands = [
        args!["SET", key(1), "before"],
        with_keys("EXISTS", 5_000),
        odd,
        args!["GET", key(1)],
        with_pairs("MSETNX", 5_000, |_| b"w".to_vec()),
        long_name,
        with_keys("UNLINK", 5_000),
        args!["GET", key(1)],
    ];
    client.send_all(commands.iter().map(|command| &command[..])).expect("the server reads");
    let replies: Vec<Value> = commands.iter().map(|_| client.read().expect("the server answers")).collect();
    assert_eq!(replies[0], Value::ok());
    assert_eq!(replies[1], Value::Int(1));
    assert_eq!(replies[2].error_text(), "ERR wrong number of arguments for 'mset' command");
    assert_eq!(replies[3], Value::bulk("before"));
    assert_eq!(replies[4], Value::Int(0));
    assert!(replies[5].error_text().contains("key name is longer"), "{:?}", replies[5]);
    assert_eq!(replies[6], Value::Int(1));
    assert_eq!(replies[7], Value::NilBulk);
}

//! Pika's own commands on a running server: ranges in byte order over all slots, shards and cores, and deletion
//! by a pattern while others write.

mod harness;

use harness::{Client, Options, Server, Value, render};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn strings(value: &Value) -> Vec<String> {
    let text = |value: &Value| String::from_utf8_lossy(value.bytes().expect("a bulk string")).into_owned();
    value.items().iter().map(text).collect()
}

/// The name to go on with, and what came before it.
#[track_caller]
fn piece(reply: &Value) -> (String, Vec<String>) {
    let [next, found] = reply.items() else { panic!("{reply:?}") };
    (String::from_utf8_lossy(next.bytes().expect("a name")).into_owned(), strings(found))
}

/// All pieces of a range, from `start` on; `rest` stands behind the name to go on from.
fn whole(client: &mut Client, command: &[&str], start: &str, rest: &[&str]) -> Vec<String> {
    let (mut from, mut all) = (start.to_string(), Vec::new());
    loop {
        let words = command.iter().copied().chain([&from[..]]).chain(rest.iter().copied());
        let words: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).collect();
        let (next, found) = piece(&client.must(&words));
        all.extend(found);
        if next.is_empty() {
            return all;
        }
        from = next;
    }
}

fn servers() -> impl Iterator<Item = Server> {
    [1, 2, 4].into_iter().map(|shards| Server::start(Options::shards(shards)))
}

/// Keys of every type, a fifth of each; the strings with their values.
fn fill(client: &mut Client, count: usize) -> BTreeMap<String, String> {
    let mut strings = BTreeMap::new();
    for at in 0..count {
        let name = format!("key:{:06}", at * 7919 % 1_000_000);
        match at % 5 {
            0 => {
                let value = if at % 500 == 0 { "long".repeat(30_000) } else { format!("v{at}") };
                assert_eq!(client.must(&args!["SET", name, value]), Value::ok());
                strings.insert(name, value);
            }
            1 => assert_eq!(client.must(&args!["HSET", name, "f", "v"]), Value::Int(1)),
            2 => assert_eq!(client.must(&args!["RPUSH", name, "i"]), Value::Int(1)),
            3 => assert_eq!(client.must(&args!["SADD", name, "m"]), Value::Int(1)),
            _ => assert_eq!(client.must(&args!["ZADD", name, "1", "m"]), Value::Int(1)),
        }
    }
    strings
}

#[test]
fn ranges_tell_the_keys_of_one_type_in_order() {
    for server in servers() {
        let mut client = server.client();
        let strings = fill(&mut client, 2000);
        let names: Vec<_> = strings.keys().cloned().collect();
        assert_eq!(client.must(&args!["SET", "key:0gone", "v", "PX", "1"]), Value::ok());
        thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(whole(&mut client, &["SCANX", "string"], "", &["COUNT", "37"]), names);
        assert_eq!(whole(&mut client, &["PKSCANRANGE", "string"], "", &["", "LIMIT", "50"]), names);
        let backward = whole(&mut client, &["PKRSCANRANGE", "string"], "", &["", "LIMIT", "50"]);
        assert!(backward.iter().eq(names.iter().rev()));
        let pairs = whole(&mut client, &["PKSCANRANGE", "string_with_value"], "", &["", "LIMIT", "50"]);
        assert!(pairs.iter().eq(strings.iter().flat_map(|(name, value)| [name, value])));
        let (low, high) = (&names[40], &names[60]);
        let (next, found) = piece(&client.ask(&format!("PKSCANRANGE string {low} {high} LIMIT 20")));
        assert_eq!((next.as_str(), &found[..]), (&high[..], &names[40..60]));
        let (next, found) = piece(&client.ask(&format!("PKRSCANRANGE string {high} {low} LIMIT 100")));
        assert!(next.is_empty() && found.iter().eq(names[40..=60].iter().rev()));
        let (next, found) =
            piece(&client.ask(&format!("PKSCANRANGE string {low} {high} MATCH *{low} LIMIT 3")));
        assert_eq!((next.as_str(), &found[..]), (&names[43][..], &names[40..41]));
        for kind in ["hash", "list", "set", "zset"] {
            let found = whole(&mut client, &["SCANX", kind], "", &["COUNT", "64"]);
            assert!(found.len() == 400 && found.is_sorted(), "{kind}: {}", found.len());
        }
        assert_eq!(render(&client.ask("SCANX hash zzz")), render(&client.ask("PKSCANRANGE hash x z")));
        assert_eq!(client.ask("SELECT 1"), Value::ok());
        assert_eq!(piece(&client.ask("SCANX hash key")), (String::new(), Vec::new()));
    }
}

#[test]
fn commands_on_one_key_answer_as_pika_does() {
    for server in servers() {
        let mut client = server.client();
        for (line, expected) in [
            ("SET k new VX old", Value::Int(0)),
            ("PKSETEXAT k 4000000000 old", Value::ok()),
            ("EXPIRETIME k", Value::Int(4_000_000_000)),
            ("SET k new VX other", Value::Int(-1)),
            ("SET k new VX old", Value::Int(1)),
            ("DELVX k old", Value::Int(-1)),
            ("DELVX k new", Value::Int(1)),
            ("DELVX k new", Value::Int(0)),
            ("HSET h a 1 b 2 c 3", Value::Int(3)),
        ] {
            assert_eq!(client.ask(line), expected, "{line}");
        }
        let (next, fields) = piece(&client.ask("HSCANX h b COUNT 1"));
        assert_eq!((next.as_str(), fields), ("c", vec!["b".into(), "2".into()]));
        let (next, fields) = piece(&client.ask("PKHRSCANRANGE h c a LIMIT 2"));
        assert_eq!((next.as_str(), fields), ("a", ["c", "3", "b", "2"].map(String::from).to_vec()));
        for at in 0..5000 {
            client.ask(&format!("HSET large f{at:05} {at}"));
        }
        let all = whole(&mut client, &["PKHSCANRANGE", "large"], "", &["", "LIMIT", "1000"]);
        assert!(all.iter().step_by(2).cloned().eq((0..5000).map(|at| format!("f{at:05}"))));
    }
}

#[test]
fn a_pattern_deletes_all_it_matches_of_its_type_and_nothing_else() {
    for mut server in servers() {
        let mut client = server.client();
        fill(&mut client, 5000);
        client.ask("SET other 1");
        assert_eq!(client.ask("PKPATTERNMATCHDEL none* string"), Value::Int(0));
        assert_eq!(client.ask("PKPATTERNMATCHDEL key:* string"), Value::Int(1000));
        assert_eq!(client.ask("DBSIZE"), Value::Int(4001));
        assert_eq!(
            client.ask("PKPATTERNMATCHDEL key:*[02468] set"),
            client.ask("PKPATTERNMATCHDEL *[13579] set")
        );
        assert_eq!(piece(&client.ask("SCANX set a")), (String::new(), Vec::new()));
        assert_eq!(client.ask("XADD stream 1-1 f v"), Value::bulk("1-1"));
        assert_eq!(client.ask("PKPATTERNMATCHDEL * stream"), Value::Int(1));
        server.kill9();
        server.restart();
        let mut client = server.client();
        assert_eq!(client.ask("DBSIZE"), Value::Int(3001));
        assert_eq!(client.ask("GET other"), Value::bulk("1"));
    }
}

#[test]
fn a_pattern_deletes_while_others_write_and_waits_for_a_pause() {
    let server = Server::start(Options::shards(4).appendfsync("always"));
    let mut client = server.client();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut client = server.client();
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                // Commands on several shards latch keys that are being deleted.
                assert_eq!(client.ask("MSET hot:1 a hot:2 b hot:3 c hot:4 d hot:5 e"), Value::ok());
                rounds += 1;
            }
            rounds
        });
        while client.ask("EXISTS hot:1") == Value::Int(0) {
            assert!(!busy.is_finished(), "it writes");
        }
        let mut deleted = 0;
        for _ in 0..30 {
            deleted += client.ask("PKPATTERNMATCHDEL hot:* string").int().expect("a number");
        }
        stop.store(true, Ordering::Relaxed);
        let rounds: i64 = busy.join().expect("it ends when it is told to");
        assert!(deleted > 0 && deleted <= 5 * rounds, "{deleted} of {rounds} rounds");
    });
    client.ask("MSET hot:1 a hot:2 b");
    let mut other = server.client();
    assert_eq!(other.ask("CLIENT PAUSE 20000 WRITE"), Value::ok());
    client.send(&args!["PKPATTERNMATCHDEL", "hot:*", "string"]).expect("it is connected");
    thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(other.ask("EXISTS hot:1 hot:2"), Value::Int(2));
    assert_eq!(other.ask("CLIENT UNPAUSE"), Value::ok());
    let deleted = client.read().expect("it is answered").int().expect("a number");
    assert!((2..=5).contains(&deleted), "{deleted}");
    assert_eq!(client.ask("DBSIZE"), Value::Int(0));
}

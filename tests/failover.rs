//! FAILOVER: a primary and its follower change roles while clients write.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value, installed};
use nodes::{assert_same, caught_up, eventually, follow, info, is_up};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

const READONLY: &str = "READONLY You can't write against a read only replica.";

fn failover_state(server: &Server) -> String {
    info(server, "master_failover_state")
}

fn pair(shards: u16, follower_shards: u16) -> (Server, Server) {
    let primary = Server::start(Options::shards(shards));
    let follower = Server::start(Options::shards(follower_shards));
    primary.client().must(&args!["SET", "first", "1"]);
    follow(&follower, &primary);
    eventually("the link is up", || caught_up(&follower, &primary));
    (primary, follower)
}

/// Writes until it is refused; how many writes were acknowledged, of one key and of keys on several shards.
fn write_until_refused(mut client: Client, writer: usize, acknowledged: &AtomicUsize) -> (i64, i64) {
    let (mut single, mut several) = (0, 0);
    loop {
        let reply = client.must(&args!["INCR", format!("counter{writer}")]);
        match reply {
            Value::Int(now) => assert_eq!(now, single + 1),
            refused => {
                assert_eq!(refused.error_text(), READONLY);
                return (single, several);
            }
        }
        single += 1;
        let value = (several + 1).to_string();
        let keys =
            (0..8).flat_map(|n| [format!("several{writer}-{n}").into_bytes(), value.clone().into_bytes()]);
        let words: Vec<Vec<u8>> = [b"MSET".to_vec()].into_iter().chain(keys).collect();
        match client.must(&words) {
            reply if reply == Value::ok() => several += 1,
            refused => {
                assert_eq!(refused.error_text(), READONLY);
                return (single, several);
            }
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn whatever_was_acknowledged_before_a_failover_is_there_after_it_and_nothing_else() {
    for (shards, follower_shards) in [(1, 2), (2, 1), (2, 2)] {
        let (primary, follower) = pair(shards, follower_shards);
        let third = Server::start(Options::shards(1));
        follow(&third, &primary);
        eventually("the third follows", || is_up(&third));
        let mut waiting = primary.client();
        waiting.send(&args!["BLPOP", "list", "0"]).expect("it is connected");
        let acknowledged = AtomicUsize::new(0);
        let counts: Vec<(i64, i64)> = scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|writer| {
                    let (client, acknowledged) = (primary.client(), &acknowledged);
                    scope.spawn(move || write_until_refused(client, writer, acknowledged))
                })
                .collect();
            eventually("they write", || acknowledged.load(Ordering::Relaxed) > 500);
            let order = format!("FAILOVER TO 127.0.0.1 {} TIMEOUT 20000", follower.port());
            assert_eq!(primary.client().ask(&order), Value::ok());
            writers.into_iter().map(|writer| writer.join().expect("it ends")).collect()
        });
        assert_eq!(info(&follower, "role"), "master");
        assert_eq!(failover_state(&primary), "no-failover");
        let mut client = follower.client();
        for (writer, (single, several)) in counts.iter().enumerate() {
            let counter = client.ask(&format!("GET counter{writer}"));
            assert_eq!(counter, Value::bulk(single.to_string()), "what was refused was not done");
            for n in 0..8 {
                let value = client.ask(&format!("GET several{writer}-{n}"));
                assert_eq!(value, Value::bulk(several.to_string()));
            }
        }
        let told = waiting.read().expect("it is answered").error_text();
        assert!(told.starts_with("UNBLOCKED force unblock"), "{told}");
        client.must(&args!["SET", "after", "it"]);
        assert_same(&primary, &follower);
        assert_eq!(info(&follower, "copies_begun"), "0", "the old primary had everything");
        assert_same(&third, &primary);
        // And back again.
        assert_eq!(follower.client().ask("FAILOVER"), Value::ok());
        eventually("the first is the primary", || info(&primary, "role") == "master");
        primary.client().must(&args!["SET", "back", "again"]);
        assert_same(&follower, &primary);
    }
}

#[test]
fn a_failover_that_takes_too_long_is_rolled_back_and_who_waited_goes_on() {
    let (primary, follower) = pair(2, 1);
    follower.signal("STOP");
    let mut client = primary.client();
    client.must(&args!["SET", "unseen", "by the follower"]);
    assert_eq!(client.ask("FAILOVER TIMEOUT 700"), Value::ok());
    assert_eq!(failover_state(&primary), "waiting-for-sync");
    let mut writer = primary.client();
    writer.send(&args!["INCR", "paused"]).expect("it is connected");
    let refused = |words: &str| primary.client().ask(words).error_text();
    assert_eq!(refused("FAILOVER"), "ERR FAILOVER already in progress.");
    assert_eq!(refused("REPLICAOF NO ONE"), "ERR REPLICAOF not allowed while failing over.");
    assert_eq!(client.ask("GET paused"), Value::NilBulk, "reads go on");
    assert_eq!(client.ask("CLIENT UNPAUSE"), Value::ok());
    assert_eq!(client.ask("GET paused"), Value::NilBulk, "that ends another pause");
    assert_eq!(writer.read().expect("it is answered"), Value::Int(1), "it waited and was not refused");
    assert_eq!((failover_state(&primary), info(&primary, "role")), ("no-failover".into(), "master".into()));
    follower.signal("CONT");
    assert_same(&follower, &primary);
}

#[test]
fn a_failover_is_aborted_by_word_and_keys_end_only_after_it() {
    let (primary, follower) = pair(1, 1);
    follower.signal("STOP");
    let mut client = primary.client();
    client.must(&args!["SET", "short", "lived", "PX", "200"]);
    let mut waiting = primary.client();
    waiting.send(&args!["BLPOP", "list", "0"]).expect("it is connected");
    assert_eq!(client.ask("FAILOVER"), Value::ok());
    let mut pushing = primary.client();
    pushing.send(&args!["RPUSH", "list", "a"]).expect("it is connected");
    sleep(Duration::from_millis(600));
    assert_eq!(failover_state(&primary), "waiting-for-sync");
    assert_eq!(client.info("expired_keys"), 0);
    assert_eq!(client.ask("GET short"), Value::NilBulk, "its time is over all the same");
    assert_eq!(client.ask("FAILOVER ABORT"), Value::ok());
    assert_eq!(pushing.read().expect("it is answered"), Value::Int(1));
    assert_eq!(waiting.read().expect("it is answered").items().len(), 2);
    eventually("it has ended", || failover_state(&primary) == "no-failover");
    assert_eq!(client.ask("FAILOVER ABORT").error_text(), "ERR No failover in progress.");
    eventually("the key is deleted", || client.info("expired_keys") == 1);
    follower.signal("CONT");
    assert_same(&follower, &primary);
}

#[test]
fn a_forced_failover_goes_on_with_what_the_follower_has() {
    let (primary, follower) = pair(2, 2);
    follower.signal("STOP");
    let mut client = primary.client();
    for n in 0..100 {
        client.must(&args!["SET", format!("late{n}"), "unseen"]);
    }
    let order = format!("FAILOVER TO 127.0.0.1 {} FORCE TIMEOUT 200", follower.port());
    assert_eq!(client.ask(&order), Value::ok());
    eventually("it is told to take over", || failover_state(&primary) == "failover-in-progress");
    sleep(Duration::from_millis(100));
    let late = client.ask("FAILOVER ABORT").error_text();
    assert!(late.starts_with("ERR the target may have taken over already"), "{late}");
    follower.signal("CONT");
    eventually("it has taken over", || info(&follower, "role") == "master");
    follower.client().must(&args!["SET", "of the", "new primary"]);
    assert_same(&primary, &follower);
}

#[test]
fn a_follower_that_is_gone_takes_nothing_over() {
    let (primary, mut follower) = pair(1, 1);
    let stranger = Server::start(Options::shards(1));
    let mut client = primary.client();
    let refused = |client: &mut Client, words: String| client.ask(&words).error_text();
    let words = format!("FAILOVER TO 127.0.0.1 {}", stranger.port());
    assert_eq!(refused(&mut client, words), "ERR FAILOVER target HOST and PORT is not a replica.");
    let words = "HAYPILE-TAKEOVER 0123456789012345678901234567890123456789".to_string();
    let told = refused(&mut follower.client(), words);
    assert_eq!(told, "ERR this node does not follow the one that hands over");
    follower.kill9();
    eventually("the primary notices", || info(&primary, "connected_slaves") == "0");
    assert_eq!(refused(&mut client, "FAILOVER".into()), "ERR FAILOVER requires connected replicas.");
    follower.restart();
}

#[test]
fn errors_are_those_of_redis() {
    if !installed("redis-server") {
        return eprintln!("redis-server is not installed: nobody to ask");
    }
    let orders = |port: u16| {
        [
            "FAILOVER ABORT".to_string(),
            "FAILOVER ABORT now".to_string(),
            "FAILOVER TO 127.0.0.1".to_string(),
            "FAILOVER TO 127.0.0.1 x".to_string(),
            "FAILOVER TO 127.0.0.1 1".to_string(),
            "FAILOVER TO 127.0.0.1 -1".to_string(),
            "FAILOVER TIMEOUT 0".to_string(),
            "FAILOVER TIMEOUT -5 FORCE".to_string(),
            "FAILOVER TIMEOUT x".to_string(),
            "FAILOVER FORCE".to_string(),
            "FAILOVER FORCE FORCE".to_string(),
            "FAILOVER FORCE TIMEOUT 100".to_string(),
            format!("FAILOVER FORCE TO 127.0.0.1 {port}"),
            "FAILOVER TIMEOUT 1 TIMEOUT 2".to_string(),
        ]
    };
    let answers = |options: &dyn Fn() -> Options| {
        let (primary, follower) = (Server::start(options()), Server::start(options()));
        let mut all = Vec::new();
        let mut ask_all = |client: &mut Client| {
            all.extend(orders(follower.port()).iter().map(|order| client.ask(order)));
        };
        ask_all(&mut primary.client());
        follow(&follower, &primary);
        eventually("the link is up", || is_up(&follower));
        eventually("it is online", || nodes::info_text(&primary).contains("state=online"));
        ask_all(&mut primary.client());
        ask_all(&mut follower.client());
        all
    };
    let expected = answers(&Options::redis);
    assert_eq!(answers(&|| Options::shards(1)), expected);
    assert!(expected.iter().all(|answer| !answer.error_text().is_empty()), "{expected:?}");
}

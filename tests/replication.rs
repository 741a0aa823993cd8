//! Nodes that follow each other: real processes, real links, compared key by key.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value, haypile_binary};
use nodes::{assert_same, caught_up, contents, eventually, follow, info, info_text, is_up, metrics};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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
        assert_eq!(client.ask("WAIT 1 30000"), Value::Int(1));
        assert_eq!(client.ask("WAITAOF 1 1 30000"), Value::Array(vec![Value::Int(1), Value::Int(1)]));
        assert_eq!(info(&primary, "connected_slaves"), "1");
    }
}

/// Records that a server has logged since its start.
fn frames(server: &Server) -> u64 {
    let text = metrics(server);
    let lines = text.lines().filter(|line| line.starts_with("haypile_log_frames_total{"));
    let counts = lines.map(|line| line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok()));
    counts.map(|count| count.expect("a number")).sum()
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
    let before = frames(&follower);
    let forced = format!("REPLICAOF 127.0.0.1 {} force", primary.port());
    assert_eq!(follower.client().ask(&forced), Value::ok());
    // Nothing is new, and yet everything is logged here once more.
    let again = || frames(&follower) > before + 1000;
    eventually("everything comes anew", || again() && caught_up(&follower, &primary));
    assert_same(&follower, &primary);
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
    assert_eq!(client.ask("WAIT 2 30000"), Value::Int(2));
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

/// The directories of records that a server has dropped, oldest first.
fn dropped(server: &Server) -> Vec<PathBuf> {
    let Ok(all) = std::fs::read_dir(server.data_dir().join("dropped")) else { return Vec::new() };
    let mut all: Vec<PathBuf> = all.map(|dir| dir.expect("it is listed").path()).collect();
    all.sort();
    all
}

/// What `haypile binlog` prints of a directory: of each record the keys that it puts.
fn printed(dir: &Path) -> Vec<Vec<String>> {
    let done = Command::new(haypile_binary()).arg("binlog").arg(dir).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let keys = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        let operations = line["operations"].as_array().expect("it has some").clone();
        operations.iter().filter_map(|put| put["key"].as_str().map(str::to_owned)).collect()
    };
    String::from_utf8_lossy(&done.stdout).lines().map(keys).collect()
}

#[test]
fn what_a_former_primary_had_alone_is_kept_before_it_is_dropped() {
    for always in [false, true] {
        let policy = if always { "always" } else { "everysec" };
        let mut first = Server::start(Options::shards(2).appendfsync(policy));
        let mut second = Server::start(Options::shards(3).appendfsync(policy));
        let mut client = first.client();
        fill(&mut client, 0);
        follow(&second, &first);
        eventually("it follows", || caught_up(&second, &first));
        second.kill9();
        let alone: BTreeSet<String> = (0..150).map(|n| format!("alone{n}")).collect();
        for key in &alone {
            client.must(&args!["SET", key, "nobody else has this"]);
        }
        first.kill9();
        second.restart();
        let mut client = second.client();
        // In some slots more than the first had, in some less, in some nothing.
        for n in 0..100 {
            client.must(&args!["SET", format!("alone{n}"), "instead"]);
            client.must(&args!["SET", format!("after{n}"), "v"]);
        }
        first.restart();
        follow(&first, &second);
        assert_same(&first, &second);
        let kept = dropped(&first);
        assert_eq!(kept.len(), 1, "{kept:?}");
        let lines = printed(&kept[0]);
        assert_eq!(info(&first, "dropped_tails"), "1");
        assert_eq!(info(&first, "dropped_records"), lines.len().to_string());
        assert!(metrics(&first).contains(&format!("haypile_dropped_records_total {}\n", lines.len())));
        assert_eq!(lines.concat().into_iter().collect::<BTreeSet<_>>(), alone, "nothing else");
        assert_eq!(lines.len(), alone.len(), "each of them once");
        let report = std::fs::read_to_string(kept[0].join("report.toml")).expect("it is there");
        assert!(report.contains("incomplete = false") && !report.contains("incomplete = true"), "{report}");
        assert_eq!(report.matches("had = ").count(), report.matches("fork = ").count(), "{report}");
        // What has come back is a follower like any other: nothing is dropped when it comes back once more.
        first.kill9();
        client.must(&args!["SET", "once more", "v"]);
        first.restart();
        follow(&first, &second);
        assert_same(&first, &second);
        assert_eq!(dropped(&first).len(), 1);
    }
}

/// Changes keys of every type, in every way that leaves traces of its own in the store.
fn change(client: &mut Client, who: &str, odd: usize) {
    for n in 0..40 {
        client.must(&args!["SET", format!("new{}", 2 * n + odd), who]);
        client.must(&args!["SET", format!("both{n}"), who]);
        client.must(&args!["SET", format!("s0-{}", n + 10), who]);
    }
    client.ask(&format!("HSET H0 field{} {who} only-{who} 1", 5 + odd));
    client.ask(&format!("HDEL H0 field{}", 20 + odd));
    client.ask(&format!("RPUSH L0 {who}"));
    client.ask("LPOP L0 50");
    client.ask(&format!("ZADD Z0 {odd} {who} 7 member{}", 30 + odd));
    client.ask(&format!("ZREM Z0 member{}", 40 + odd));
    client.ask(&format!("SETRANGE long0 {} {who}", 100_000 + odd));
    client.ask(&format!("XADD x0 * {who} v"));
    client.ask(&format!("SADD i0 {who}"));
    client.ask(&format!("PEXPIRE s0-60 {}", 500_000 + odd));
    // Both begin it anew, with the same number of records behind them.
    client.ask("DEL l0 later0");
    for n in 0..200 {
        client.ask(&format!("HSET large{n} f v"));
        client.ask(&format!("HSET grown {who}{n} {who}"));
    }
    client.must(&args!["SET", "heavy", who.repeat(50_000)]);
}

#[test]
fn a_former_primary_fetches_the_keys_that_differ_and_nothing_is_copied() {
    let mut first = Server::start(Options::shards(2));
    let mut second = Server::start(Options::shards(3));
    let mut client = first.client();
    fill(&mut client, 0);
    follow(&second, &first);
    eventually("it follows", || caught_up(&second, &first));
    second.kill9();
    change(&mut client, "first", 0);
    client.ask("MSET a0 first b0 first c0 first d0 first");
    client.ask("DEL z0");
    first.kill9();
    second.restart();
    let mut client = second.client();
    change(&mut client, "second", 1);
    client.ask("DEL p0");
    client.ask("MSET a0 second new-too second");
    first.restart();
    follow(&first, &second);
    assert_same(&first, &second);
    assert_eq!(info(&second, "copies_begun"), "0");
    let rewound = |server: &Server| info(server, "rewound_keys").parse::<u64>().expect("a number");
    let keys = rewound(&first);
    assert!((100..2_000).contains(&keys), "{keys} keys");
    assert!(metrics(&first).contains(&format!("haypile_rewound_keys_total {keys}\n")));
    assert_eq!(dropped(&first).len(), 1);
    // What came key by key goes on as it would anywhere: what one of the two had is nowhere under it.
    change(&mut client, "afterwards", 0);
    client.ask("DEL H0");
    for n in 0..300 {
        client.ask(&format!("HSET H0 field{n} again"));
    }
    assert_same(&first, &second);
    first.kill9();
    client.ask("HSET grown more v");
    first.restart();
    follow(&first, &second);
    assert_same(&first, &second);
    assert_eq!((info(&second, "copies_begun").as_str(), rewound(&first)), ("0", 0), "its log goes on");
    // And back again.
    second.kill9();
    assert_eq!(first.client().ask("REPLICAOF NO ONE"), Value::ok());
    let mut client = first.client();
    change(&mut client, "at last", 0);
    second.restart();
    follow(&second, &first);
    assert_same(&second, &first);
}

#[test]
fn a_tail_that_falls_on_whole_slots_or_on_too_much_has_its_slots_copied() {
    for much in [false, true] {
        let mut first = Server::start(Options::shards(2));
        let mut second = Server::start(Options::shards(1));
        let mut client = first.client();
        fill(&mut client, 0);
        follow(&second, &first);
        eventually("it follows", || caught_up(&second, &first));
        second.kill9();
        if much {
            client.must(&args!["SET", "long0", vec![7; 6_000_000]]);
        } else {
            client.ask("FLUSHDB");
        }
        first.kill9();
        second.restart();
        second.client().must(&args!["SET", "long0", vec![8; 6_000_000]]);
        first.restart();
        follow(&first, &second);
        assert_same(&first, &second);
        eventually("it is told", || info(&second, "copies_begun") != "0");
        assert_eq!(dropped(&first).len(), 1);
    }
}

#[test]
fn a_follower_that_was_away_for_longer_than_the_log_has_dropped_nothing() {
    let small = ["--binlog-segment-bytes", "1MiB", "--binlog-retention-bytes", "1MiB"];
    let mut primary = Server::start(Options::shards(2).with(&small));
    let mut follower = Server::start(Options::shards(2));
    fill(&mut primary.client(), 0);
    follow(&follower, &primary);
    eventually("it follows", || caught_up(&follower, &primary));
    follower.kill9();
    // What comes now is of another term.
    primary.kill9();
    primary.restart();
    write_much(&mut primary.client());
    follower.restart();
    follow(&follower, &primary);
    assert_same(&follower, &primary);
    eventually("the log had not what was missing", || info(&primary, "copies_begun") != "0");
    assert_eq!(dropped(&follower), Vec::<PathBuf>::new());
    assert_eq!(info(&follower, "dropped_records"), "0");
}

#[test]
fn a_follower_takes_nothing_by_itself() {
    let primary = Server::start(Options::shards(1));
    let follower = Server::start(Options::shards(1));
    // One who waits to take something on a node that becomes a follower is told; one who reads is served.
    let mut taking = follower.client();
    taking.send(&args!["BLPOP", "list", "0"]).expect("it is connected");
    eventually("it waits", || follower.client().info("blocked_clients") == 1);
    follow(&follower, &primary);
    let told = taking.read().expect("it is answered").error_text();
    assert!(told.starts_with("UNBLOCKED force unblock"), "{told}");
    eventually("the link is up", || is_up(&follower));
    let mut reading = follower.client();
    reading.send(&args!["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]).expect("it is connected");
    eventually("it waits", || follower.client().info("blocked_clients") == 1);
    let mut client = primary.client();
    client.ask("XADD s 5-5 f v");
    client.ask("RPUSH list a");
    assert!(!reading.read().expect("it is answered").items().is_empty());
    // What ends does so at the moment it is to, and is deleted by the primary's word.
    client.must(&args!["SET", "short", "v", "PX", "4000"]);
    client.ask("HSET h f v g w");
    client.ask("HPEXPIRE h 4000 FIELDS 1 f");
    assert_eq!(client.ask("WAIT 1 30000"), Value::Int(1));
    assert_eq!(follower.client().ask("GET short"), Value::bulk("v"));
    eventually("it ends", || follower.client().ask("GET short").is_nil());
    eventually("its field ends", || follower.client().ask("HLEN h") == Value::Int(1));
    eventually("the primary has deleted it", || primary.client().info("expired_keys") == 1);
    assert_same(&follower, &primary);
    assert_eq!(follower.client().info("expired_keys"), 0);
    assert_eq!(follower.client().ask("LRANGE list 0 -1").items().len(), 1);
}

#[test]
fn followers_that_must_keep_up_are_waited_for() {
    let primary = Server::start(Options::shards(1).with(&["--min-replicas-to-write", "1"]));
    let follower = Server::start(Options::shards(1));
    let refused = primary.client().ask("SET a b").error_text();
    assert_eq!(refused, "NOREPLICAS Not enough good replicas to write.");
    follow(&follower, &primary);
    eventually("it keeps up", || primary.client().ask("SET a b") == Value::ok());
    assert_eq!(info(&primary, "min_slaves_good_slaves"), "1");
    let text = metrics(&primary);
    let online = format!("haypile_follower_online{{ip=\"127.0.0.1\",port=\"{}\"}} 1", follower.port());
    assert!(text.contains("haypile_followers 1\n") && text.contains(&online), "{text}");
}

#[test]
fn a_write_is_shown_to_nobody_before_enough_followers_have_it() {
    let primary = Server::start(Options::shards(2).with(&["--consensus-level", "1"]));
    let follower = Server::start(Options::shards(2));
    let refused = primary.client().ask("SET a b").error_text();
    assert_eq!(refused, "ERR Incomplete: Not enough follower");
    follow(&follower, &primary);
    eventually("it is there", || primary.client().ask("SET a 1") == Value::ok());
    let mut client = primary.client();
    // Keys of both shards, by one command, by a pipeline, and by one that runs for long.
    assert_eq!(client.ask("MSET a 1 b 1 c 1 d 1 e 1"), Value::ok());
    assert_eq!(client.ask("LRANGE no 0 -1"), Value::Array(vec![]));
    follower.signal("STOP");
    let mut waiting: Vec<(Client, Value)> = Vec::new();
    let mut wait = |line: &str, answer: Value| {
        let mut client = primary.client();
        client.write_raw(format!("{line}\r\n").as_bytes()).expect("it is connected");
        waiting.push((client, answer));
        std::thread::sleep(Duration::from_millis(50));
    };
    wait("SET a 2", Value::ok());
    wait("INCR b", Value::Int(2));
    wait("GET a", Value::bulk("2"));
    wait("GET b", Value::bulk("2"));
    wait("MSET c 2 d 2 e 2", Value::ok());
    wait("DEL nothing c", Value::Int(1));
    for (client, _) in &mut waiting {
        client.set_timeout(Duration::from_millis(200));
        assert!(client.read().is_err(), "it has been answered");
        client.set_timeout(Duration::from_secs(30));
    }
    assert!(client.ask("GET untouched").is_nil(), "what has long been there is shown");
    follower.signal("CONT");
    for (client, answer) in &mut waiting {
        assert_eq!(client.read().expect("it is answered"), *answer);
    }
    eventually("all of it is there", || caught_up(&follower, &primary));
    drop(follower);
    let refused = Value::Error(b"ERR Incomplete: Not enough follower".to_vec());
    eventually("it is missed", || info(&primary, "connected_slaves") == "0");
    assert_eq!(client.ask("SET a 3"), refused);
    assert_eq!(client.ask("CONFIG SET consensus-level 0"), Value::ok());
    assert_eq!(client.ask("SET a 4"), Value::ok());
    assert_eq!(client.ask("CONFIG SET consensus-level 1"), Value::ok());
    assert_eq!(client.ask("SET a 5"), refused);
}

#[test]
fn a_password_is_given_and_a_wrong_one_is_told() {
    let primary = Server::start(Options::shards(1).with(&["--requirepass", "sesame"]));
    let follower = Server::start(Options::shards(1).with(&["--masterauth", "open"]));
    follow(&follower, &primary);
    let told = "master_link_last_error:AUTH is answered: WRONGPASS";
    eventually("the error is told", || info_text(&follower).contains(told));
    assert_eq!(follower.client().ask("CONFIG SET masterauth sesame"), Value::ok());
    eventually("the link is up", || is_up(&follower));
}

#[test]
fn a_chain_of_nodes_and_a_node_that_would_follow_itself() {
    let first = Server::start(Options::shards(2));
    let second = Server::start(Options::shards(1));
    let third = Server::start(Options::shards(2));
    let mut client = first.client();
    fill(&mut client, 0);
    follow(&third, &second);
    follow(&second, &first);
    eventually("the second follows", || caught_up(&second, &first));
    assert_same(&third, &second);
    fill(&mut client, 1);
    assert_same(&second, &first);
    assert_same(&third, &second);
    follow(&first, &first);
    eventually("it is refused", || info_text(&first).contains("a node cannot follow itself"));
    assert_eq!(first.client().ask("REPLICAOF NO ONE"), Value::ok());
    fill(&mut first.client(), 2);
    assert_same(&second, &first);
    assert_same(&third, &second);
}

/// A server with a file that CONFIG REWRITE can write.
fn with_file(dir: &std::path::Path, name: &str) -> Server {
    let file = dir.join(name);
    std::fs::write(&file, "# mine\n").expect("the directory is writable");
    Server::start(Options::shards(1).with(&["-c", file.to_str().expect("a path of text")]))
}

#[test]
fn whom_a_node_follows_is_kept_by_config_rewrite() {
    let dir = tempfile::tempdir().expect("a directory");
    let (primary, mut follower) = (Server::start(Options::shards(1)), with_file(dir.path(), "follower.toml"));
    fill(&mut primary.client(), 0);
    follow(&follower, &primary);
    let followed = vec![Value::bulk("replicaof"), Value::bulk(format!("127.0.0.1 {}", primary.port()))];
    assert_eq!(follower.client().ask("CONFIG GET replicaof"), Value::Array(followed));
    assert_eq!(follower.client().ask("CONFIG REWRITE"), Value::ok());
    assert_same(&follower, &primary);
    follower.kill9();
    follower.restart();
    assert_eq!(info(&follower, "role"), "slave", "from its first answer on");
    assert_same(&follower, &primary);
    assert_eq!(follower.client().ask("REPLICAOF NO ONE"), Value::ok());
    assert_eq!(follower.client().ask("CONFIG REWRITE"), Value::ok());
    follower.terminate();
    follower.restart();
    assert_eq!(info(&follower, "role"), "master");
    assert_eq!(follower.client().ask("SET a b"), Value::ok());
}

#[test]
fn one_database_is_copied_again() {
    let (primary, follower) = (Server::start(Options::shards(2)), Server::start(Options::shards(1)));
    fill(&mut primary.client(), 0);
    assert_eq!(follower.client().ask("DBSLAVEOF db3 force").error_text(), "ERR Not currently a slave");
    follow(&follower, &primary);
    assert_same(&follower, &primary);
    let copies = |server| info(server, "copies_begun").parse::<u32>().expect("a number");
    let before = (copies(&primary), frames(&follower));
    assert_eq!(follower.client().ask("DBSLAVEOF db3 force"), Value::ok());
    let again = || frames(&follower) > before.1 && caught_up(&follower, &primary);
    eventually("one database comes anew", again);
    assert_same(&follower, &primary);
}

#[test]
fn a_node_without_a_history_fetches_everything() {
    let (primary, follower) = (Server::start(Options::shards(1)), Server::start(Options::shards(1)));
    fill(&mut primary.client(), 0);
    follow(&follower, &primary);
    assert_same(&follower, &primary);
    let all = frames(&follower);
    let grown = |round: &str| {
        let before = frames(&follower);
        assert_eq!(follower.client().ask("REPLICAOF NO ONE"), Value::ok());
        follow(&follower, &primary);
        primary.client().must(&args!["SET", "round", round]);
        eventually("it follows", || follower.client().ask("GET round") == Value::bulk(round));
        assert_same(&follower, &primary);
        frames(&follower) - before
    };
    assert!(grown("1") < all / 2, "it goes on where it was");
    assert_eq!(follower.client().ask("CLEARREPLICATIONID"), Value::ok());
    assert!(grown("2") >= all / 2, "it has forgotten that");
    assert!(grown("3") < all / 2, "once");
}

/// Values that fill several memtables.
fn write_much(client: &mut Client) {
    for n in 0..600 {
        client.must(&args!["SET", format!("much{n}"), vec![n as u8; 200_000]]);
    }
}

#[test]
fn old_log_goes_when_nobody_needs_it() {
    let small = ["--binlog-segment-bytes", "1MiB", "--binlog-retention-bytes", "4GiB"];
    let primary = Server::start(Options::shards(2).with(&small));
    let follower = Server::start(Options::shards(1));
    let purge = |words: &str| primary.client().ask(words).error_text();
    assert_eq!(purge("PURGELOGSTO 5"), "ERR Invalid Argument");
    assert_eq!(purge("PURGELOGSTO write2file5 db0"), "", "nothing is there that is older");
    follow(&follower, &primary);
    write_much(&mut primary.client());
    assert_same(&follower, &primary);
    let position =
        || info_text(&primary).lines().find(|line| line.starts_with("db0:binlog_offset")).map(str::to_owned);
    let safe = || Some(position()?.split_once("safety_purge=")?.1.to_owned()).filter(|safe| safe != "none");
    eventually("something can go", || safe().is_some());
    let segments = || {
        let dirs = std::fs::read_dir(primary.data_dir()).expect("it is there").flatten();
        let logs = dirs.filter_map(|dir| std::fs::read_dir(dir.path().join("log")).ok());
        logs.map(Iterator::count).sum::<usize>()
    };
    let (before, first_safe) = (segments(), safe().expect("looked above"));
    assert_eq!(
        purge("PURGELOGSTO write2file999999999"),
        "ERR binlog already in purging...",
        "a start needs it"
    );
    eventually("what could go is gone", || segments() < before);
    assert_eq!(purge(&format!("PURGELOGSTO {first_safe}")), "", "what was safe is gone");
    fill(&mut primary.client(), 1);
    assert_same(&follower, &primary);
}

#[test]
fn a_follower_that_is_killed_while_it_is_copied_to_has_all_in_the_end_and_nothing_else() {
    // Slow, so that no copy is complete before it is cut off.
    let primary = Server::start(Options::shards(2).with(&["--copy-bytes-per-second", "8MiB"]));
    // With memtables so small that files are handed over before the copy is complete.
    let mut follower = Server::start(Options::shards(1).memory_budget("64MiB"));
    fill(&mut primary.client(), 0);
    let mut client = primary.client();
    let set = |client: &mut Client, db: u32, prefix: &str, value: &str| {
        client.must(&args!["SELECT", db.to_string()]);
        for n in 0..4_000 {
            client.must(&args!["SET", format!("{prefix}{n}"), value, "PX", (600_000 + n).to_string()]);
        }
    };
    for db in 0..4 {
        set(&mut client, db, "key", &"v".repeat(3_000));
    }
    // A history of its own in every slot, which cannot be taken back key by key.
    for db in 0..4 {
        set(&mut follower.client(), db, "own", "w");
        assert_eq!(follower.client().ask("FLUSHALL"), Value::ok());
    }
    let copies = || info(&primary, "copies_begun").parse::<u32>().expect("a number");
    for round in 0..6 {
        let before = copies();
        follow(&follower, &primary);
        eventually("a copy begins", || copies() > before);
        std::thread::sleep(Duration::from_millis(350 * round));
        follower.kill9();
        follower.restart();
    }
    assert_eq!(primary.client().ask("CONFIG SET copy-bytes-per-second 0"), Value::ok());
    follow(&follower, &primary);
    assert_same(&follower, &primary);
    // Slots that begin anew after that have nothing of copies that came to nothing.
    assert_eq!(follower.client().ask("REPLICAOF NO ONE"), Value::ok());
    let mut client = follower.client();
    assert_eq!(client.ask("FLUSHALL"), Value::ok());
    set(&mut client, 1, "new", "v");
    assert_eq!(contents(&follower).len(), 4_000);
    follower.kill9();
    follower.restart();
    assert_eq!(contents(&follower).len(), 4_000);
}

#[test]
fn a_copy_keeps_to_its_rate() {
    let primary = Server::start(Options::shards(1).with(&["--copy-bytes-per-second", "512KiB"]));
    let follower = Server::start(Options::shards(1));
    let mut client = primary.client();
    let mut other = follower.client();
    for n in 0..2_000 {
        client.must(&args!["SET", format!("key{n}"), "v".repeat(1_000)]);
        // A history of its own, which is not in the primary's log.
        other.must(&args!["SET", format!("key{n}"), "own"]);
    }
    let began = std::time::Instant::now();
    follow(&follower, &primary);
    eventually("the link is up", || is_up(&follower));
    let took = began.elapsed().as_secs_f64();
    assert!(took > 3.5, "two megabytes in {took} s");
    assert_same(&follower, &primary);
    println!("{took:.2} s");
}

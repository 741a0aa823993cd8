//! Nodes in sharding mode: slots that come, go, are followed and served one by one.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value, installed};
use nodes::eventually;
use std::process::Command;
use std::time::Instant;

const SLOTS: u32 = 1024;

fn sharded(shards: u16) -> Options {
    Options::shards(shards).with(&["--instance-mode", "sharding"])
}

fn pk(server: &Server, command: &str) -> String {
    server.client().ask(&format!("PKCLUSTER {command}")).said()
}

/// The block of one slot in `info slot`.
fn info_slot(server: &Server, slot: u32) -> String {
    pk(server, &format!("INFO slot {slot}"))
}

fn slot_of(key: &str) -> u32 {
    crc32fast::hash(key.as_bytes()) % SLOTS
}

/// Some key of this slot.
fn key_of(slot: u32, number: usize) -> String {
    (0..).map(|n| format!("k{n}")).filter(|key| slot_of(key) == slot).nth(number).expect("there are many")
}

fn is_ok(server: &Server, command: &str) {
    assert_eq!(pk(server, command), "OK", "{command}");
}

#[test]
fn a_node_serves_the_slots_it_has_and_forgets_those_it_loses() {
    let mut server = Server::start(sharded(2));
    let key = key_of(5, 0);
    let refused = "ERR Partition not found";
    assert_eq!(server.client().ask(&format!("SET {key} v")).error_text(), refused);
    assert_eq!(info_slot(&server, 5), "", "it is not here");
    let began = Instant::now();
    is_ok(&server, "ADDSLOTS 0-1023");
    println!("1024 slots added in {:?}", began.elapsed());
    assert_eq!(pk(&server, "ADDSLOTS 3-4"), "ERR Corruption: partition 3 already exist");
    assert_eq!(server.client().ask(&format!("SET {key} v")), Value::ok());
    let block = info_slot(&server, 5);
    let lines: Vec<&str> = block.split("\r\n").collect();
    assert!(
        lines[0].starts_with("(db0:5) binlog_offset=") && lines[0].ends_with(" 1,safety_purge=none"),
        "{block}"
    );
    assert_eq!(lines[1..], ["  Role: Master", "  connected_slaves: 0", "", ""], "{block}");
    assert_eq!(pk(&server, "INFO slot").matches("Role: Master").count(), 1024);
    server.kill9();
    server.restart();
    assert_eq!(server.client().ask(&format!("GET {key}")), Value::bulk("v"));
    is_ok(&server, "DELSLOTS 5");
    assert_eq!(server.client().ask(&format!("GET {key}")).error_text(), refused);
    assert_eq!(server.client().ask(&format!("MGET {} {key}", key_of(6, 0))).error_text(), refused);
    assert_eq!(pk(&server, "DELSLOTS 5"), "ERR Corruption: partition 5 not found");
    is_ok(&server, "ADDSLOTS 5");
    assert_eq!(server.client().ask(&format!("GET {key}")), Value::NilBulk, "it begins empty");
    assert_eq!(
        pk(&server, "ADDTABLE 1 1025"),
        "ERR Internal error: a table of this node has 1 to 1024 slots"
    );
    assert_eq!(server.client().ask("SELECT 1").error_text(), "ERR DB index is out of range");
    is_ok(&server, "ADDTABLE 1 1024");
    is_ok(&server, "ADDSLOTS 7 1");
    let mut client = server.client();
    assert_eq!(client.ask("SELECT 1"), Value::ok());
    assert_eq!(client.ask(&format!("SET {} t", key_of(7, 0))), Value::ok());
    assert_eq!(client.ask(&format!("SET {key} t")).error_text(), refused);
    let tables = pk(&server, "INFO table");
    assert_eq!(tables.lines().count(), 14, "{tables}");
    is_ok(&server, "DELTABLE 1");
    assert_eq!(client.ask(&format!("GET {}", key_of(7, 0))).error_text(), refused);
    let unsupported = "ERR This command is not supported in current configuration";
    assert_eq!(client.ask("SLAVEOF 127.0.0.1 1").error_text(), unsupported);
    assert_eq!(
        pk(&Server::start(Options::shards(1)), "ADDSLOTS 1"),
        "ERR PkClusterAddSlots/PkClusterDelSlots only support on sharding mode"
    );
}

fn fill(client: &mut Client, slots: std::ops::Range<u32>, round: usize) {
    for slot in slots {
        for number in 0..3 {
            let key = key_of(slot, number);
            client.must(&args!["SET", key, format!("{round}")]);
            client.must(&args![
                "HSET",
                format!("h{{{key}}}"),
                "f",
                format!("{round}"),
                format!("g{round}"),
                "v"
            ]);
        }
    }
}

fn same(one: &Server, other: &Server, slots: std::ops::Range<u32>) {
    for slot in slots {
        for number in 0..3 {
            let key = key_of(slot, number);
            for key in [key.clone(), format!("h{{{key}}}")] {
                let dump = |server: &Server| server.client().must(&args!["DUMP", key]);
                assert_eq!(dump(one), dump(other), "{key}");
                assert_ne!(dump(one), Value::NilBulk, "{key}");
            }
        }
    }
}

fn keeps_up(primary: &Server, slot: u32) -> bool {
    let block = info_slot(primary, slot);
    block.contains("connected_slaves: 1") && block.contains("SlaveBinlogSync") && block.contains("lag: 0\r\n")
}

#[test]
fn a_node_is_primary_of_some_slots_and_follower_of_others() {
    let left = Server::start(sharded(1));
    let right = Server::start(sharded(2));
    is_ok(&left, "ADDSLOTS 0-19");
    is_ok(&right, "ADDSLOTS 0-19");
    fill(&mut left.client(), 0..10, 1);
    fill(&mut right.client(), 10..20, 1);
    is_ok(&right, &format!("SLOTSSLAVEOF 127.0.0.1 {} 0-9", left.port()));
    is_ok(&left, &format!("SLOTSSLAVEOF 127.0.0.1 {} 10-19", right.port()));
    fill(&mut left.client(), 0..10, 2);
    fill(&mut right.client(), 10..20, 2);
    for slot in 0..10 {
        eventually("it follows", || keeps_up(&left, slot) && keeps_up(&right, slot + 10));
    }
    same(&left, &right, 0..20);
    let block = info_slot(&right, 3);
    assert!(block.contains("Role: Slave") && block.contains("slave status: kConnected"), "{block}");
    eventually("the figures are told", || {
        let page = nodes::metrics(&right);
        let link = format!("haypile_slot_link_up{{ip=\"127.0.0.1\",port=\"{}\"}} 1", left.port());
        page.contains("haypile_slots{role=\"follower\"} 10") && page.contains(&link)
    });
    assert_eq!(nodes::info(&right, "role"), "master&&slave");
    let refused = right.client().ask(&format!("SET {} v", key_of(3, 0))).error_text();
    assert_eq!(refused, "READONLY You can't write against a read only replica.");
    assert_eq!(pk(&left, "DELSLOTS 3"), "ERR Corruption: sync master partition (db0:3) has slaves");
    assert_eq!(pk(&right, "DELSLOTS 3"), "ERR Corruption: sync slave partition (db0:3) follows a master");
    assert_eq!(pk(&right, &format!("SLOTSSLAVEOF 127.0.0.1 {} 1", right.port())), "ERR You fucked up");
    assert_eq!(pk(&right, &format!("SLOTSSLAVEOF 127.0.0.1 {} 30", left.port())), "ERR Slot 30 not found!");

    // Each goes on with what it had followed.
    is_ok(&right, "SLOTSSLAVEOF NO ONE all");
    assert_eq!(right.client().ask(&format!("SET {} new", key_of(3, 0))), Value::ok());
    assert_eq!(left.client().ask(&format!("GET {}", key_of(3, 0))), Value::bulk("2"));
    is_ok(&left, &format!("SLOTSSLAVEOF 127.0.0.1 {} 0-9", right.port()));
    eventually("the old primary has the new one's", || {
        left.client().ask(&format!("GET {}", key_of(3, 0))) == Value::bulk("new")
    });
}

#[test]
fn writes_wait_for_the_followers_of_their_slots() {
    let wanting = |shards| sharded(shards).with(&["--consensus-level", "1"]);
    let (left, right) = (Server::start(wanting(2)), Server::start(wanting(1)));
    is_ok(&left, "ADDSLOTS 0-19");
    is_ok(&right, "ADDSLOTS 0-19");
    let not_enough = "ERR Incomplete: Not enough follower";
    assert_eq!(left.client().ask(&format!("SET {} v", key_of(1, 0))).error_text(), not_enough);
    // Each follows the other in some slots: neither waits for what waits for it.
    is_ok(&right, &format!("SLOTSSLAVEOF 127.0.0.1 {} 0-9", left.port()));
    is_ok(&left, &format!("SLOTSSLAVEOF 127.0.0.1 {} 10-19", right.port()));
    let is_taken =
        |server: &Server, slot| server.client().ask(&format!("SET {} v", key_of(slot, 0))) == Value::ok();
    eventually("it has a follower", || is_taken(&left, 1));
    eventually("the other too", || is_taken(&right, 11));
    fill(&mut left.client(), 0..10, 1);
    fill(&mut right.client(), 10..20, 1);
    same(&left, &right, 0..20);
    let block = info_slot(&left, 1);
    assert!(block.contains("  consensus_last_log=filenum: ") && block.contains(" index: 7\r\n"), "{block}");
    // One slot that nobody follows, and this node can promise nothing.
    is_ok(&left, "ADDSLOTS 30");
    assert_eq!(left.client().ask(&format!("SET {} v", key_of(1, 0))).error_text(), not_enough);
    is_ok(&left, "DELSLOTS 30");
    eventually("it can again", || is_taken(&left, 1));
}

#[test]
fn slots_go_on_where_they_were_after_a_kill_of_either_side() {
    let mut primary = Server::start(sharded(2));
    let mut follower = Server::start(sharded(2));
    is_ok(&primary, "ADDSLOTS 0-9");
    is_ok(&follower, "ADDSLOTS 0-9");
    fill(&mut primary.client(), 0..10, 1);
    is_ok(&follower, &format!("SLOTSSLAVEOF 127.0.0.1 {} all", primary.port()));
    eventually("it follows", || (0..10).all(|slot| keeps_up(&primary, slot)));
    let copies = nodes::info(&primary, "copies_begun");
    follower.kill9();
    fill(&mut primary.client(), 0..10, 2);
    follower.restart();
    eventually("it follows again", || (0..10).all(|slot| keeps_up(&primary, slot)));
    same(&primary, &follower, 0..10);
    assert_eq!(nodes::info(&primary, "copies_begun"), copies, "nothing is copied again");
    primary.kill9();
    primary.restart();
    fill(&mut primary.client(), 0..10, 3);
    eventually("it follows again", || (0..10).all(|slot| keeps_up(&primary, slot)));
    same(&primary, &follower, 0..10);
}

#[test]
fn a_directory_keeps_its_mode_and_a_classic_one_becomes_one_of_slots_whole() {
    let mut server = Server::start(Options::shards(2));
    server.client().must(&args!["SET", "a", "1"]);
    server.client().ask("SELECT 3");
    server.terminate();
    server.options = sharded(2);
    server.restart();
    assert_eq!(server.client().ask("GET a"), Value::bulk("1"));
    server.terminate();
    server.options = Options::shards(2);
    let said = server.refused_restart();
    assert!(said.contains("sharding"), "{said}");
}

fn digest(server: &Server, slots: &str) -> String {
    pk(server, &format!("DIGEST {slots}"))
}

#[test]
fn a_digest_is_the_same_where_the_data_is() {
    let left = Server::start(sharded(1));
    let right = Server::start(sharded(2));
    is_ok(&left, "ADDSLOTS 0-9");
    is_ok(&right, "ADDSLOTS 0-9");
    fill(&mut left.client(), 0..10, 1);
    // What is gone does not count, however long its elements stay.
    let key = format!("gone{{{}}}", key_of(3, 0));
    let mut client = left.client();
    for n in 0..500 {
        client.must(&args!["RPUSH", key, format!("element{n}")]);
    }
    is_ok(&right, &format!("SLOTSSLAVEOF 127.0.0.1 {} all", left.port()));
    client.must(&args!["DEL", key]);
    eventually("it follows", || (0..10).all(|slot| keeps_up(&left, slot)));
    let all = digest(&left, "0-9");
    assert_eq!(all.split(' ').count(), 3, "{all}");
    assert_eq!(digest(&right, "0-9"), all);
    assert_ne!(digest(&left, "0-4"), digest(&left, "5-9"));
    client.must(&args!["SET", key_of(3, 0), "other"]);
    assert_ne!(digest(&left, "0-9"), all);
    eventually("the follower has it", || digest(&right, "0-9") == digest(&left, "0-9"));
    assert_eq!(pk(&left, "DIGEST 10"), "ERR Slot 10 not found!");
}

#[test]
fn a_slot_moves_whole_and_its_clients_are_told_where() {
    let left = Server::start(sharded(2).with(&["--slot-redirect", "on"]));
    let right = Server::start(sharded(1));
    is_ok(&left, "ADDSLOTS 0-1023");
    fill(&mut left.client(), 0..10, 1);
    let before = digest(&left, "3-5");
    is_ok(&left, &format!("MIGRATESLOT 3-5 127.0.0.1 {}", right.port()));
    println!("{}", pk(&left, "INFO migration"));
    assert!(pk(&left, "INFO migration").starts_with("migration_status:done\r\n"));
    assert_eq!(digest(&right, "3-5"), before);
    let moved = left.client().ask(&format!("GET {}", key_of(4, 0))).error_text();
    assert_eq!(moved, format!("MOVED 4 127.0.0.1:{}", right.port()));
    assert_eq!(right.client().ask(&format!("SET {} v", key_of(4, 0))), Value::ok());
    assert_eq!(info_slot(&left, 4), "");
    assert!(info_slot(&right, 4).contains("Role: Master\r\n  connected_slaves: 0"));
    // A replica takes over what it follows.
    is_ok(&right, &format!("TAKESLOTS 20-29 127.0.0.1 {}", left.port()));
    eventually("it follows", || keeps_up(&left, 20));
    is_ok(&left, &format!("MIGRATESLOT 21-22 127.0.0.1 {}", right.port()));
    assert!(info_slot(&right, 21).contains("Role: Master") && info_slot(&right, 20).contains("Role: Slave"));
    // And back.
    is_ok(&right, &format!("MIGRATESLOT 4 127.0.0.1 {}", left.port()));
    assert_eq!(left.client().ask(&format!("GET {}", key_of(4, 0))), Value::bulk("v"));
    assert_eq!(right.client().ask(&format!("GET {}", key_of(4, 0))).error_text(), "ERR Partition not found");
}

#[test]
fn a_move_that_fails_leaves_everything_as_it_was() {
    let left = Server::start(sharded(1));
    let right = Server::start(sharded(1));
    is_ok(&left, "ADDSLOTS 0-9");
    is_ok(&right, "ADDSLOTS 5");
    fill(&mut left.client(), 0..10, 1);
    let move_to = |port: u16, slots: &str| pk(&left, &format!("MIGRATESLOT {slots} 127.0.0.1 {port}"));
    let answer = move_to(right.port(), "4-5");
    assert!(answer.contains("partition 5 already exist"), "{answer}");
    let answer = move_to(1, "4");
    assert!(answer.starts_with("ERR slots not moved: 127.0.0.1:1: "), "{answer}");
    let classic = Server::start(Options::shards(1));
    let answer = move_to(classic.port(), "4");
    assert!(answer.contains("only support on sharding mode"), "{answer}");
    assert_eq!(move_to(right.port(), "10"), "ERR Slot 10 has no primary here");
    assert_eq!(left.client().ask(&format!("SET {} v", key_of(4, 0))), Value::ok());
    assert_eq!(info_slot(&right, 4), "", "nothing is left of it there");
    let info = pk(&left, "INFO migration");
    assert!(info.starts_with("migration_status:failed\r\n") && info.contains("migration_error:"), "{info}");
}

#[test]
fn cluster_clients_follow_a_slot_that_has_moved() {
    let options = || {
        let more = ["--instance-mode", "sharding", "--slot-hash", "crc16", "--slot-redirect", "on"];
        Options::shards(2).with(&more)
    };
    let (left, right) = (Server::start(options()), Server::start(options()));
    is_ok(&left, "ADDSLOTS 0-16383");
    assert_eq!(left.client().ask("SET foo bar"), Value::ok());
    is_ok(&left, &format!("MIGRATESLOT 12182 127.0.0.1 {}", right.port()));
    let slots = left.client().ask("CLUSTER SLOTS");
    let port_of = |slot: i64| {
        let entry = slots.items().iter().find(|entry| {
            let bounds = entry.items();
            (bounds[0].int().expect("first")..=bounds[1].int().expect("last")).contains(&slot)
        });
        entry.and_then(|entry| entry.items()[2].items()[1].int()).map(|port| port as u16)
    };
    assert_eq!((port_of(12181), port_of(12182)), (Some(left.port()), Some(right.port())), "{slots:?}");
    if !installed("redis-cli") {
        return;
    }
    let cli = |words: &[&str]| {
        let port = left.port().to_string();
        let output = Command::new("redis-cli").args(["-c", "-p", &port]).args(words).output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).trim().to_owned()
    };
    assert_eq!(cli(&["GET", "foo"]), "bar");
    assert_eq!(cli(&["APPEND", "foo", "!"]), "4");
    assert_eq!(right.client().ask("GET foo"), Value::bulk("bar!"));
    // A follower's reads are for those who say so.
    is_ok(&left, &format!("TAKESLOTS 12182 127.0.0.1 {}", right.port()));
    let mut client = left.client();
    assert_eq!(client.ask("GET foo").error_text(), format!("MOVED 12182 127.0.0.1:{}", right.port()));
    assert_eq!(client.ask("READONLY"), Value::ok());
    eventually("it follows", || client.ask("GET foo") == Value::bulk("bar!"));
}

#[test]
fn wait_counts_who_follows_what_its_client_has_written() {
    let left = Server::start(sharded(2));
    let right = Server::start(sharded(1));
    is_ok(&left, "ADDSLOTS 0-1023");
    is_ok(&right, &format!("TAKESLOTS 0-9 127.0.0.1 {}", left.port()));
    eventually("it follows", || keeps_up(&left, 3));
    let mut client = left.client();
    assert_eq!(client.ask(&format!("SET {} v", key_of(3, 0))), Value::ok());
    assert_eq!(client.ask("WAIT 1 10000"), Value::Int(1));
    assert_eq!(client.ask("WAITAOF 1 1 10000"), Value::Array(vec![Value::Int(1), Value::Int(1)]));
    assert_eq!(client.ask(&format!("MSET {} v {} v", key_of(4, 0), key_of(12, 0))), Value::ok());
    assert_eq!(client.ask("WAIT 1 50"), Value::Int(0), "nobody follows slot 12");
    let mut other = left.client();
    assert_eq!(other.ask(&format!("SET {} v", key_of(5, 0))), Value::ok());
    assert_eq!(other.ask("WAIT 1 10000"), Value::Int(1));
    assert_eq!(other.ask("FLUSHDB"), Value::ok());
    assert_eq!(other.ask("WAIT 1 50"), Value::Int(0), "it has emptied slots that nobody follows");
    eventually("the follower is empty too", || {
        right.client().ask(&format!("GET {}", key_of(5, 0))) == Value::NilBulk
    });
    assert_eq!(
        pk(&right, &format!("DROPSLOTS 0-9 127.0.0.1 {}", left.port() + 1)),
        format!("ERR Slot 0 does not follow 127.0.0.1:{}", left.port() + 1)
    );
    is_ok(&right, &format!("DROPSLOTS 0-9 127.0.0.1 {}", left.port()));
    assert_eq!(info_slot(&right, 3), "");
}

/// Of table 1, which has so many slots.
const FEW_SLOTS: u32 = 16;

fn in_table_one(server: &Server) -> Client {
    let mut client = server.client();
    client.must(&args!["SELECT", "1"]);
    client
}

#[test]
fn a_table_may_have_fewer_slots_than_others() {
    let mut primary = Server::start(sharded(2));
    let mut follower = Server::start(sharded(3));
    for server in [&primary, &follower] {
        is_ok(server, "ADDTABLE 1 16");
        is_ok(server, "ADDSLOTS 0-15 1");
        is_ok(server, "ADDSLOTS 0-1023");
    }
    assert_eq!(pk(&primary, "ADDSLOTS 16 1"), "ERR Corruption: partition index out of range");
    let few = |key: &str| crc32fast::hash(key.as_bytes()) % FEW_SLOTS;
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    is_ok(&follower, &format!("SLOTSSLAVEOF 127.0.0.1 {} all 1", primary.port()));
    let mut client = in_table_one(&primary);
    for key in &keys {
        client.must(&args!["SET", key, format!("of {key}")]);
        client.must(&args!["RPUSH", format!("l{{{key}}}"), "a", "b"]);
    }
    client.must(&args!["MSET", "k0", "of k0", "k1", "of k1", "k2", "of k2"]);
    assert_eq!(
        client.ask("COPY k0 k0 DB 0").error_text(),
        "ERR the two tables have different numbers of slots"
    );
    let all = |server: &Server| {
        let mut client = in_table_one(server);
        let is_there = |key: &String| client.must(&args!["GET", key]) == Value::bulk(format!("of {key}"));
        keys.iter().all(is_there)
    };
    let digest = |server: &Server| pk(server, "DIGEST 0-15 1");
    eventually("the follower has the table", || digest(&primary) == digest(&follower) && all(&follower));

    // What ends is deleted, though nobody reads it.
    for key in &keys {
        client.must(&args!["SET", format!("e{key}"), "v", "PX", "50"]);
    }
    let count = |server: &Server| in_table_one(server).ask("DBSIZE");
    eventually("keys that have ended are gone", || count(&primary) == Value::Int(400));
    eventually("on the follower too", || count(&follower) == Value::Int(400));

    // Its slots move between the shards, with those of the other table, and to another node.
    is_ok(&primary, "MOVESLOT 0-7 1");
    assert!(all(&primary));
    for server in [&mut primary, &mut follower] {
        server.kill9();
        server.restart();
        assert!(all(server));
    }
    let third = Server::start(sharded(1));
    is_ok(&third, "ADDTABLE 1 16");
    is_ok(&primary, &format!("MIGRATESLOT 3 127.0.0.1 {} 1", third.port()));
    for key in &keys {
        let here = in_table_one(&primary).ask(&format!("GET {key}"));
        if few(key) == 3 {
            assert_eq!(here.error_text(), "ERR Partition not found");
            assert_eq!(in_table_one(&third).ask(&format!("GET {key}")), Value::bulk(format!("of {key}")));
        } else {
            assert_eq!(here, Value::bulk(format!("of {key}")));
        }
    }
    let other = Server::start(sharded(1));
    is_ok(&other, "ADDTABLE 1 32");
    is_ok(&other, "ADDSLOTS 0-15 1");
    is_ok(&other, &format!("SLOTSSLAVEOF 127.0.0.1 {} 0-2 1", primary.port()));
    eventually("it is said that they do not fit", || {
        other.log_tail().contains("a table has another number of slots here")
    });
    is_ok(&other, "SLOTSSLAVEOF NO ONE 0-2 1");
    is_ok(&other, "DELTABLE 1");
    is_ok(&other, "ADDTABLE 1 16");
}

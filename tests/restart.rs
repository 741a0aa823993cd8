//! Stopping and starting on one directory: what was written is there, and a directory keeps its shape.

mod harness;

use harness::{Client, Options, Server, Value};

fn fill(client: &mut Client) {
    for at in 0..2_000 {
        assert_eq!(client.ask(&format!("SET key:{at} {at}")), Value::ok());
    }
    assert_eq!(client.must(&args!["SET", "long", vec![b'x'; 200_000]]), Value::ok());
    assert_eq!(client.ask("SET lives v EXAT 33177117420"), Value::ok());
    assert_eq!(client.ask("SET dies v PX 1"), Value::ok());
    assert_eq!(client.ask("DEL key:7"), Value::Int(1));
    assert_eq!(client.ask("SELECT 3"), Value::ok());
    assert_eq!(client.ask("SET other v"), Value::ok());
}

fn check(client: &mut Client) {
    for at in (0..2_000).filter(|at| *at != 7) {
        assert_eq!(client.ask(&format!("GET key:{at}")), Value::bulk(at.to_string()));
    }
    assert_eq!(client.ask("GET key:7"), Value::NilBulk);
    assert_eq!(client.must(&args!["GET", "long"]), Value::Bulk(vec![b'x'; 200_000]));
    assert_eq!(client.ask("EXPIRETIME lives"), Value::Int(33177117420));
    assert_eq!(client.ask("EXISTS dies other"), Value::Int(0));
    assert_eq!(client.ask("KEYS *").items().len(), 2_001);
    assert_eq!(client.ask("SELECT 3"), Value::ok());
    assert_eq!(client.ask("KEYS *"), Value::Array(vec![Value::bulk("other")]));
}

/// Twice each, so that the second start reads what the first recovery left.
#[test]
fn a_stop_or_a_kill_keeps_everything() {
    for shards in [1, 2, 4] {
        let mut server = Server::start(Options::shards(shards));
        fill(&mut server.client());
        server.terminate();
        server.restart();
        check(&mut server.client());
        server.kill9();
        server.restart();
        check(&mut server.client());
        server.kill9();
        server.restart();
        check(&mut server.client());
    }
}

/// The old value lies in pieces; were a version given twice, they would show where the new one has zeros.
#[test]
fn a_swapped_key_shows_nothing_of_its_former_lives() {
    for restarts in [false, true] {
        let mut server = Server::start(Options::shards(2));
        let mut client = server.client();
        assert_eq!(client.ask("SET other{k} v"), Value::ok());
        assert_eq!(client.must(&args!["SET", "{k}", vec![b'x'; 100_000]]), Value::ok());
        assert_eq!(client.ask("SET {k} short"), Value::ok());
        assert_eq!(client.ask("SWAPDB 0 1"), Value::ok());
        if restarts {
            server.kill9();
            server.restart();
            client = server.client();
        }
        assert_eq!(client.ask("SELECT 1"), Value::ok());
        assert_eq!(client.ask("SETRANGE {k} 90000 z"), Value::Int(90_001));
        assert_eq!(client.ask("GETRANGE {k} 20000 20003"), Value::bulk("\0\0\0\0"));
    }
}

/// FLUSHALL changes no key one by one: it must hold all the same.
#[test]
fn what_was_flushed_stays_away() {
    for flush in ["FLUSHALL", "FLUSHDB"] {
        let mut server = Server::start(Options::shards(2));
        let mut client = server.client();
        assert_eq!(client.ask("SET a 1"), Value::ok());
        assert_eq!(client.ask("SET b 1"), Value::ok());
        assert_eq!(client.ask(flush), Value::ok());
        assert_eq!(client.ask("SET b 2"), Value::ok());
        server.kill9();
        server.restart();
        let mut client = server.client();
        assert_eq!(client.ask("KEYS *"), Value::Array(vec![Value::bulk("b")]), "{flush}");
        assert_eq!(client.ask("GET b"), Value::bulk("2"));
    }
}

/// Shards are added at a start, and are never taken away.
#[test]
fn shards_are_added_by_a_start_and_keys_stay_where_they_are() {
    let mut server = Server::start(Options::shards(2));
    let mut client = server.client();
    for n in 0..200 {
        assert_eq!(client.ask(&format!("SET k{n} {n}")), Value::ok());
    }
    server.kill9();
    (server.options.shards, server.options.cores) = (5, 2);
    server.restart();
    let mut client = server.client();
    for n in 0..200 {
        assert_eq!(client.ask(&format!("GET k{n}")), Value::bulk(n.to_string()), "k{n}");
    }
    assert_eq!(client.ask("DBSIZE"), Value::Int(200));
    assert_eq!(client.ask("MSET k0 a k1 b k2 c k3 d"), Value::ok());
    server.terminate();
    server.options.shards = 4;
    let (status, said) = server.run_second();
    assert!(!status.success() && said.contains("has 5 shards, not 4"), "{status}: {said}");
    // Whoever says nothing of shards has as many as there are.
    server.options.shards = 0;
    server.restart();
    let mut client = server.client();
    assert_eq!(client.ask("MGET k0 k3 k4"), Value::Array(["a", "d", "4"].map(Value::bulk).to_vec()));
    assert_eq!(client.ask("FLUSHALL"), Value::ok());
    assert_eq!(client.ask("DBSIZE"), Value::Int(0));
}

#[test]
fn shutdown_ends_the_server() {
    let mut server = Server::start(Options::shards(2));
    let mut client = server.client();
    assert_eq!(client.ask("SET k v"), Value::ok());
    client.send(&args!["SHUTDOWN"]).expect("the server reads");
    assert_eq!(client.read_to_close().expect("it is closed"), b"");
    assert!(server.wait_for_end().success(), "{}", server.log_tail());
    server.restart();
    assert_eq!(server.client().ask("GET k"), Value::bulk("v"));
}

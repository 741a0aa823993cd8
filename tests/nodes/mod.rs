//! Nodes that follow each other: waiting for them, and comparing what they hold.

#![allow(dead_code, reason = "each test binary uses its own part")]

use crate::args;
use crate::harness::{Client, Server, Value};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Less than a test may take: it is to say what it has waited for.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// What a PKCLUSTER command says at a node that may be gone.
pub fn pk(address: SocketAddr, command: &str) -> String {
    let Ok(mut client) = Client::connect(address) else { return "no connection".into() };
    client.set_timeout(Duration::from_secs(60));
    let words: Vec<Vec<u8>> =
        format!("PKCLUSTER {command}").split(' ').map(|word| word.as_bytes().to_vec()).collect();
    match client.call(&words) {
        Ok(reply) => reply.said(),
        Err(error) => error.to_string(),
    }
}

/// The page of metrics.
pub fn metrics(server: &Server) -> String {
    let mut page = TcpStream::connect(server.admin_address()).expect("the admin port listens");
    page.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it is connected");
    let mut text = String::new();
    page.read_to_string(&mut text).expect("it answers");
    text
}

pub fn info_text(server: &Server) -> String {
    let reply = server.client().ask("INFO replication");
    String::from_utf8_lossy(reply.bytes().expect("INFO answers text")).into_owned()
}

pub fn info(server: &Server, field: &str) -> String {
    let text = info_text(server);
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {field} in {text}"))
}

pub fn follow(follower: &Server, primary: &Server) {
    let reply = follower.client().ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    assert!(reply.error_text().is_empty(), "{reply:?}");
}

pub fn is_up(follower: &Server) -> bool {
    info(follower, "role") == "slave" && info(follower, "master_link_status") == "up"
}

/// Every key of every database with its value and the moment of its end.
pub fn contents(server: &Server) -> BTreeMap<(usize, Vec<u8>), (Vec<u8>, i64)> {
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

pub fn caught_up(follower: &Server, primary: &Server) -> bool {
    is_up(follower) && info(follower, "slave_repl_offset") == info(primary, "master_repl_offset")
}

pub fn assert_same(follower: &Server, primary: &Server) {
    eventually("the follower catches up", || caught_up(follower, primary));
    let (have, want) = (contents(follower), contents(primary));
    let differs = want.iter().find(|(key, value)| have.get(key) != Some(value));
    assert!(differs.is_none(), "differs at {:?}", differs.map(|(key, _)| key));
    let extra = have.keys().find(|key| !want.contains_key(key));
    assert!(extra.is_none(), "only the follower has {extra:?}");
    assert!(!want.is_empty(), "there is something to compare");
}

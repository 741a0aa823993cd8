//! Connections that move to the core they use: nothing is lost, nothing reordered, and no hop remains.

mod harness;

use harness::{Client, Options, Server, Value};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

fn server(cores: u16) -> Server {
    Server::start(Options { cores, ..Options::shards(cores) })
}

/// Small numbers from a seed, the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(value.bytes().expect("text")).into_owned()
}

/// The fields of a line of CLIENT LIST that a move must not change.
fn identity(client: &mut Client) -> Vec<String> {
    let line = text(&client.ask("CLIENT INFO"));
    let kept = ["id=", "addr=", "laddr=", "fd=", "name=", "flags=", "db=", "resp=", "lib-name="];
    line.split_whitespace()
        .filter(|field| kept.iter().any(|name| field.starts_with(name)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn clients_of_one_core_end_up_there() {
    let server = server(2);
    let mut clients: Vec<Client> = (0..16).map(|_| server.client()).collect();
    let mut identities = Vec::new();
    for (at, client) in clients.iter_mut().enumerate() {
        client.ask(if at % 2 == 0 { "HELLO 3" } else { "HELLO 2" });
        assert_eq!(client.ask(&format!("CLIENT SETNAME client-{at}")), Value::ok());
        assert_eq!(client.ask("SELECT 3"), Value::ok());
        assert_eq!(client.ask("CLIENT NO-EVICT ON"), Value::ok());
        identities.push(identity(client));
        for round in 0..300 {
            assert_eq!(client.ask(&format!("SET k {at}:{round}")), Value::ok());
            assert_eq!(client.ask("GET k"), Value::bulk(format!("{at}:{round}")));
        }
    }
    let mut control = server.client();
    let moved = control.info("connections_moved");
    assert!((1..=16).contains(&moved), "{moved} of 16");
    assert_eq!(control.ask("CONFIG RESETSTAT"), Value::ok());
    for client in &mut clients {
        for _ in 0..100 {
            client.ask("GET k");
        }
    }
    assert_eq!(control.info("hops"), 0);
    assert_eq!(control.info("connected_clients"), 17);
    let list = text(&control.ask("CLIENT LIST"));
    assert_eq!(list.lines().count(), 17, "{list}");
    for (client, before) in clients.iter_mut().zip(&identities) {
        assert_eq!(identity(client), *before);
        assert_eq!(list.lines().filter(|line| line.starts_with(&format!("{} ", before[0]))).count(), 1);
    }
    // A moved connection is found where it is now.
    let id = identities[5][0].strip_prefix("id=").expect("asked for above");
    assert_eq!(control.ask(&format!("CLIENT KILL ID {id}")), Value::Int(1));
    assert_eq!(clients[5].read_to_close().expect("it is closed"), b"");
}

#[test]
fn a_client_of_all_cores_stays_and_so_does_every_client_when_told_to() {
    let server = server(2);
    let mut control = server.client();
    // The kernel spreads connections by their ports: of so many some are not where the key is.
    let mut wanderers: Vec<Client> = (0..16).map(|_| server.client()).collect();
    for client in &mut wanderers {
        for at in 0..600 {
            client.ask(&format!("SET key:{at} v"));
        }
    }
    assert_eq!(control.info("connections_moved"), 0);
    assert_eq!(control.ask("CONFIG SET move-connections no"), Value::ok());
    for client in &mut wanderers {
        for _ in 0..600 {
            client.ask("GET key:1");
        }
    }
    assert_eq!(control.info("connections_moved"), 0);
    assert_eq!(control.ask("CONFIG SET move-connections yes"), Value::ok());
    for client in &mut wanderers {
        for _ in 0..600 {
            client.ask("GET key:1");
        }
    }
    assert!(control.info("connections_moved") > 0);
}

#[test]
fn a_core_s_own_port_keeps_its_connections() {
    let options = Options { cores: 2, ..Options::shards(2) }.with(&["--shard-aware-ports", "on"]);
    let server = Server::start(options);
    let mut control = server.client();
    for port in [server.port() + 1, server.port() + 2] {
        let mut own = Client::connect(([127, 0, 0, 1], port).into()).expect("the core listens there");
        for _ in 0..600 {
            own.ask("GET k");
        }
    }
    assert_eq!((control.info("connections_moved"), control.info("hops")), (0, 600));
}

/// One client whose interest wanders between keys: pipelines cut at random places, every reply checked.
fn wander(address: SocketAddr, seed: u64, phases: usize) {
    let mut dice = Dice(seed);
    let mut client = Client::connect(address).expect("it listens");
    let mut counts = [0i64; 6];
    for phase in 0..phases {
        let key = dice.roll(counts.len());
        let mut left = 300 << phase.min(3);
        while left > 0 {
            let batch = (1 + dice.roll(40)).min(left);
            left -= batch;
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for _ in 0..batch {
                // One in fifty is for the connection alone.
                if dice.roll(50) == 0 {
                    let word = format!("{seed}-{left}");
                    bytes.extend(format!("*2\r\n$4\r\nECHO\r\n${}\r\n{word}\r\n", word.len()).bytes());
                    expected.push(Value::bulk(word));
                } else {
                    counts[key] += 1;
                    let name = format!("w{seed}:{key}");
                    bytes.extend(format!("*2\r\n$4\r\nINCR\r\n${}\r\n{name}\r\n", name.len()).bytes());
                    expected.push(Value::Int(counts[key]));
                }
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let cut = if dice.roll(3) == 0 { 1 + dice.roll(rest.len()) } else { rest.len() };
                client.write_raw(&rest[..cut]).expect("it reads");
                rest = &rest[cut..];
            }
            for value in expected {
                assert_eq!(client.read().expect("a reply to each"), value, "client {seed}, phase {phase}");
            }
        }
    }
}

/// One that goes away in the middle of its pipelines, again and again.
fn vanish(address: SocketAddr, seed: u64, times: usize) {
    let mut dice = Dice(seed);
    for _ in 0..times {
        let mut client = Client::connect(address).expect("it listens");
        let key = dice.roll(4);
        for _ in 0..dice.roll(6) {
            let command = format!("*2\r\n$4\r\nINCR\r\n$3\r\nv:{key}\r\n").repeat(1 + dice.roll(100));
            client.write_raw(command.as_bytes()).expect("it reads");
            if dice.roll(2) == 0 {
                client.read().expect("at least one is answered");
            }
        }
    }
}

#[test]
fn pipelines_cross_moves_whole_and_in_order() {
    for cores in [2, 4] {
        let server = server(cores);
        let address = server.address();
        thread::scope(|scope| {
            for seed in 1..=24 {
                scope.spawn(move || wander(address, seed, 5));
            }
            for seed in 101..=104 {
                scope.spawn(move || vanish(address, seed, 30));
            }
        });
        let mut control = server.client();
        let moved = control.info("connections_moved");
        // Where the kernel puts a client is chance: half of them or so begin on the wrong core.
        assert!(moved >= 4, "{moved} moves of 24 clients");
        let deadline = Instant::now() + Duration::from_secs(60);
        while control.info("connected_clients") > 1 {
            assert!(Instant::now() < deadline, "{}", text(&control.ask("CLIENT LIST")));
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(text(&control.ask("CLIENT LIST")).lines().count(), 1);
    }
}

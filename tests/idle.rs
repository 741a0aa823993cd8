//! What connections cost that do nothing, and what those leave behind that have gone.

mod harness;

use harness::{Client, Options, Server, Value};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// CPU time of all threads so far.
fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it is running");
    let nanos = tasks.map(|task| {
        let stat = fs::read_to_string(task.expect("it is readable").path().join("schedstat"));
        let stat = stat.unwrap_or_default();
        stat.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}

#[test]
fn an_idle_server_takes_less_than_a_hundredth_of_a_cpu() {
    let server = Server::start(Options::shards(2));
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("SET k v"), Value::ok());
    }
    thread::sleep(Duration::from_secs(1));
    // Others may have the machine's caches for a while; what the server does by itself it does every time.
    let shares: Vec<f64> = (0..5)
        .map(|_| {
            let (from, before) = (Instant::now(), cpu(server.pid()));
            thread::sleep(Duration::from_secs(4));
            (cpu(server.pid()) - before).as_secs_f64() / from.elapsed().as_secs_f64()
        })
        .collect();
    assert!(shares.iter().any(|share| *share < 0.01), "{shares:?}");
    assert_eq!(clients[99].ask("GET k"), Value::bulk("v"));
}

fn open_files(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it is running").count()
}

/// Comes, says something in one of several ways, and goes.
fn visit(address: SocketAddr, at: usize) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a non-zero timeout");
    let mut said = [0; 7];
    match at % 4 {
        0 => {}
        1 => stream.write_all(b"*2\r\n$3\r\nGET\r\n$100\r\nhalf").expect("it reads"),
        2 => stream.write_all(b"PING\r\nGET k\r\nPING\r\n").expect("it reads"),
        _ => {
            stream.write_all(b"PING\r\n").expect("it reads");
            stream.read_exact(&mut said).expect("it answers");
            assert_eq!(&said, b"+PONG\r\n");
        }
    }
}

fn visitors_leave_nothing(count: usize) {
    const THREADS: usize = 4;
    let server = Server::start(Options::shards(2));
    let address = server.address();
    let mut control = server.client();
    let visits = |count: usize| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || (0..count / THREADS).for_each(|at| visit(address, thread + at)));
            }
        });
    };
    let settle = |control: &mut Client| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while control.info("connected_clients") > 1 {
            assert!(Instant::now() < deadline, "{:?}", control.ask("CLIENT LIST"));
            thread::sleep(Duration::from_millis(10));
        }
        // What is closed waits for the kernel to give it back.
        let mut files = open_files(&server);
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(100));
            while open_files(&server) < files {
                files = open_files(&server);
                thread::sleep(Duration::from_millis(100));
            }
        }
    };
    // Buffers and tables reach their size.
    visits(1_000);
    settle(&mut control);
    let received = control.info("total_connections_received");
    let (files, memory) = (open_files(&server), server.resident_bytes());
    visits(count);
    settle(&mut control);
    assert_eq!(control.info("total_connections_received") - received, count as u64);
    assert_eq!(open_files(&server), files);
    let grown = server.resident_bytes().saturating_sub(memory);
    assert!(grown < 8 << 20, "{count} visitors left {grown} bytes");
    assert_eq!((control.info("query_buffer_bytes") + control.info("output_buffer_bytes")) >> 16, 0);
}

#[test]
fn visitors_leave_nothing_behind() {
    visitors_leave_nothing(5_000);
}

#[test]
#[ignore = "takes a minute"]
fn a_hundred_thousand_visitors_leave_nothing_behind() {
    visitors_leave_nothing(100_000);
}

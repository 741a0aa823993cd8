//! `haypile bench` as a user runs it: what it measures is what happened, and what it checks is checked.

mod harness;

use harness::{Options, Server, Value, haypile_binary};
use serde_json::Value as Json;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

/// How long the server is stopped, against milliseconds that it takes otherwise.
const PAUSE: Duration = Duration::from_millis(200);

fn bench(port: u16, words: &str) -> Command {
    let mut command = Command::new(haypile_binary());
    command.args(["bench", "-q", "-p", &port.to_string()]).args(words.split(' '));
    command
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).expect("it was written")).expect("it is JSON")
}

fn run(mut command: Command) -> Output {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    output
}

/// Latencies of four seconds of GETs during which the server stood still once.
fn over_a_pause(server: &Server, words: &str) -> Json {
    let dir = TempDir::new().expect("there is room");
    let file = dir.path().join("run.json");
    let mut command = bench(server.port(), &format!("-t get -c 4 --seconds 4 {words}"));
    let mut child = command.arg("--json").arg(&file).spawn().expect("it starts");
    sleep(Duration::from_millis(1500));
    server.signal("STOP");
    sleep(PAUSE);
    server.signal("CONT");
    assert!(child.wait().expect("it ends").success());
    json(&file)["run"]["outcomes"][0].clone()
}

#[test]
fn an_open_loop_shows_a_pause_that_a_closed_loop_hides() {
    let server = Server::start(Options::shards(1));
    let pause_us = PAUSE.as_micros() as u64;
    let open = over_a_pause(&server, "--rate 1000");
    let at =
        |outcome: &Json, percentile: &str| outcome["latency"][percentile].as_u64().expect("it is a number");
    // A twentieth of what was due fell into the pause, and waited half of it in the middle.
    assert!(at(&open, "p99_us") > pause_us / 2, "{}", open["latency"]);
    let operations = open["operations"].as_u64().expect("it is a number");
    assert!((3990..=4010).contains(&operations), "{operations}");
    let closed = over_a_pause(&server, "--warm-up-s 0");
    assert!(at(&closed, "p99_us") < pause_us / 2, "{}", closed["latency"]);
    assert!(at(&closed, "max_us") > pause_us / 2, "{}", closed["latency"]);
}

#[test]
fn a_value_under_the_wrong_key_is_found() {
    let server = Server::start(Options::shards(2));
    run(bench(server.port(), "-t load -r 1000 -d 20-200 --random-values --verify"));
    run(bench(server.port(), "-t mixed -r 1000 -n 5000 -d 20-200 --verify --threads 2"));
    let mut client = server.client();
    assert_eq!(client.ask("SET key:000000000005 000000000006"), Value::ok());
    let output = bench(server.port(), "-t get -r 1000 -n 1000 --keys sequential --verify")
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("for key 5, got"), "{text}");
    assert_eq!(client.ask("DBSIZE"), Value::Int(1000));
}

#[test]
fn every_ycsb_workload_runs_without_an_error() {
    let server = Server::start(Options::shards(2));
    run(bench(
        server.port(),
        "-t load,ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f -r 2000 -n 3000 -d 1000 -P 4",
    ));
}

#[test]
fn a_comparison_finds_the_process_and_becomes_a_page() {
    let server = Server::start(Options::shards(1));
    let dir = TempDir::new().expect("there is room");
    let (file, page) = (dir.path().join("c.json"), dir.path().join("c.html"));
    let address = server.address();
    let mut compare = Command::new(haypile_binary());
    compare.args(["bench", "compare", &format!("one={address}"), &format!("two={address}")]);
    compare.args(["-t", "set", "-n", "20000", "--rounds", "2", "-q", "--json"]).arg(&file);
    let text = String::from_utf8(run(compare).stdout).expect("it is text");
    assert!(text.contains("one") && text.contains("two"), "{text}");
    let sides = json(&file)["comparison"]["tests"][0]["sides"].clone();
    assert_eq!(sides[0]["turns"].as_array().expect("it is a list").len(), 2);
    assert!(sides[1]["turns"][0]["server_cpu_us"].as_f64().expect("the server says its pid") > 0.0);
    assert!(sides[1]["cpu_ratio"]["median"].as_f64().expect("both have figures") > 0.0);
    let mut report = Command::new(haypile_binary());
    run({
        report.args(["bench", "report"]).arg(&file).arg(&page);
        report
    });
    let page = std::fs::read_to_string(&page).expect("it was written");
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains(">one<") || page.contains("one\n"), "the sides are named");
}

#[test]
fn keys_of_a_cluster_reach_their_node_at_once() {
    let server =
        Server::start(Options::shards(2).with(&["--slot-hash", "crc16", "--shard-aware-ports", "on"]));
    let mut client = server.client();
    run(bench(server.port(), "-t set,get --cluster -r 1000 -n 2000 --threads 2"));
    assert!(client.info("total_commands_processed") > 4000);
    assert_eq!(client.info("hops"), 0);
}

#[test]
fn nobody_at_home_and_unknown_tests_are_said_plainly() {
    let nobody =
        TcpListener::bind("127.0.0.1:0").expect("there is a port").local_addr().expect("it is bound");
    let output = bench(nobody.port(), "-t get").output().expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no connection to"), "{output:?}");
    let output = bench(nobody.port(), "-t gte").output().expect("it starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no test 'gte'"), "{output:?}");
}

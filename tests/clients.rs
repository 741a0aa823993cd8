//! Clients as people use them: redis-py, the `redis` crate and redis-benchmark, unchanged.
//!
//! The Python checks are programs of their own in clients/; `make test` prepares the interpreter.

mod harness;

use harness::{Client, Options, Server, Value};
use redis::Commands;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The interpreter with redis-py: HAYPILE_PYTHON, or the one `make test` sets up in the cache directory.
fn python() -> PathBuf {
    if let Some(given) = std::env::var_os("HAYPILE_PYTHON") {
        return given.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let venv = cache.or(home).expect("HOME is set").join("haypile/venv/bin/python");
    assert!(venv.exists(), "{} is missing: `make test` makes it", venv.display());
    venv
}

fn check(output: Output, what: &str) -> String {
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{said}", output.status);
    said
}

fn run_python(script: &str, server: &Server) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let mut command = Command::new(python());
    command.arg(&script).args(["127.0.0.1", &server.port().to_string()]);
    check(command.output().expect("the interpreter runs"), &script.to_string_lossy());
}

fn python_passes(script: &str) {
    run_python(script, &Server::start(Options::shards(2)));
}

#[test]
fn redis_py_strings() {
    python_passes("strings.py");
}

#[test]
fn redis_py_pipelines() {
    python_passes("pipelines.py");
}

#[test]
fn redis_py_scan() {
    python_passes("scan.py");
}

#[test]
fn redis_py_expiry() {
    python_passes("expiry.py");
}

#[test]
fn redis_py_resp3() {
    python_passes("resp3.py");
}

#[test]
fn redis_py_waiting() {
    python_passes("waiting.py");
}

#[test]
fn redis_py_client_commands() {
    python_passes("client_commands.py");
}

/// A SORT too long for a turn runs on a snapshot; it must find the keys that only its elements name there too.
#[test]
fn a_long_sort_finds_the_keys_its_elements_name() {
    const ELEMENTS: i64 = 3000;
    for shards in [1, 2] {
        let server = Server::start(Options::shards(shards));
        let mut client = server.client();
        for element in 0..ELEMENTS {
            client.must(&args!["SET", format!("weight_{element}"), (ELEMENTS - element).to_string()]);
            client.must(&args!["RPUSH", "list", element.to_string()]);
        }
        let reply = client.ask("SORT_RO list BY weight_* GET # GET weight_*");
        let expected = (0..ELEMENTS).rev().flat_map(|element| [element, ELEMENTS - element]);
        let expected: Vec<_> = expected.map(|number| Value::bulk(number.to_string())).collect();
        assert_eq!(reply.items(), expected, "{shards} shards");
        // So many arguments are a giant command.
        let mut giant = args!["SORT_RO", "list", "LIMIT", "0", "1"];
        giant.extend((0..2100).flat_map(|_| args!["GET", "weight_*"]));
        let first = Value::bulk(ELEMENTS.to_string());
        assert!(client.must(&giant).items().iter().all(|value| *value == first), "{shards} shards");
    }
}

/// A server whose keys lie in Redis Cluster's slots, once it says it is ready.
fn cluster(cores: u16) -> Server {
    let options = Options { cores, ..Options::shards(cores) };
    let server = Server::start(options.with(&["--slot-hash", "crc16", "--shard-aware-ports", "on"]));
    let mut client = server.client();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let info = client.ask("CLUSTER INFO");
        let text = String::from_utf8_lossy(info.bytes().unwrap_or_default()).into_owned();
        if text.contains("cluster_state:ok") {
            return server;
        }
        assert!(Instant::now() < deadline, "CLUSTER INFO: {info:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A cluster client knows where keys live: no command has crossed to another core, and many have run.
fn assert_no_hops(server: &Server) {
    let mut client = server.client();
    let (hops, commands) = (client.info("hops"), client.info("total_commands_processed"));
    assert!(hops == 0 && commands > 1_000, "{hops} hops of {commands} commands");
}

#[test]
fn redis_py_cluster() {
    for cores in [1, 2, 4] {
        let server = cluster(cores);
        run_python("cluster.py", &server);
        assert_no_hops(&server);
    }
}

/// Every core is a node with its own slots, and each of them tells the same.
#[test]
fn every_core_is_a_node() {
    for cores in [1, 2, 4] {
        let server = cluster(cores);
        let slots = server.client().ask("CLUSTER SLOTS");
        let int = |value: &Value| value.int().expect("a number");
        let mut next = 0;
        for (core, range) in slots.items().iter().enumerate() {
            let [first, last, node] = range.items() else { panic!("{range:?}") };
            assert_eq!(int(first), next, "{slots:?}");
            next = int(last) + 1;
            let port = server.port() + 1 + core as u16;
            assert_eq!(int(&node.items()[1]), i64::from(port));
            let mut own = Client::connect(([127, 0, 0, 1], port).into()).expect("the core listens there");
            assert_eq!(own.ask("CLUSTER SLOTS"), slots);
            assert_eq!(own.ask("CLUSTER MYID").bytes(), node.items()[2].bytes());
            let nodes = own.ask("CLUSTER NODES");
            let nodes = String::from_utf8_lossy(nodes.bytes().expect("text")).into_owned();
            let myself: Vec<_> = nodes.lines().filter(|line| line.contains("myself,master")).collect();
            assert!(myself.len() == 1 && myself[0].contains(&format!("127.0.0.1:{port}@")), "{nodes}");
            assert_eq!(nodes.lines().count(), usize::from(cores));
            assert_eq!(own.ask("CLUSTER SHARDS").items().len(), usize::from(cores));
        }
        assert_eq!((next, slots.items().len()), (16_384, usize::from(cores)));
    }
}

/// A core's own port serves keys of other cores too: they hop.
#[test]
fn a_core_s_own_port_serves_every_key() {
    let server = cluster(2);
    for port in [server.port() + 1, server.port() + 2] {
        let mut own = Client::connect(([127, 0, 0, 1], port).into()).expect("the core listens there");
        for at in 0..100 {
            assert_eq!(own.ask(&format!("SET key:{at} {port}")), Value::ok());
            assert_eq!(own.ask(&format!("GET key:{at}")), Value::bulk(port.to_string()));
        }
    }
    assert!((100..300).contains(&server.client().info("hops")));
}

/// redis-cli -c asks nobody twice: there is no MOVED to follow.
#[test]
fn redis_cli_runs_on_a_cluster() {
    let server = cluster(2);
    for port in server.port()..server.port() + 3 {
        for at in 0..20 {
            let mut command = Command::new("redis-cli");
            command.args(["-c", "-p", &port.to_string(), "INCR", &format!("n:{at}")]);
            let said = check(command.output().expect("redis-cli is installed"), "redis-cli -c");
            assert_eq!(said.trim(), (port - server.port() + 1).to_string());
        }
    }
}

fn rust_client(server: &Server) -> redis::Client {
    redis::Client::open(format!("redis://127.0.0.1:{}/", server.port())).expect("a well-formed address")
}

#[test]
fn redis_crate_works() -> redis::RedisResult<()> {
    let server = Server::start(Options::shards(2));
    let mut connection = rust_client(&server).get_connection()?;
    let () = connection.set("k", "v")?;
    assert_eq!(connection.get::<_, String>("k")?, "v");
    assert_eq!(connection.get::<_, Option<String>>("none")?, None);
    assert_eq!(connection.incr::<_, _, i64>("n", 5)?, 5);
    let () = connection.mset(&[("a", b"\0\xff".to_vec()), ("b", vec![])])?;
    let values: Vec<Option<Vec<u8>>> = connection.mget(&["a", "b", "c"])?;
    assert_eq!(values, [Some(b"\0\xff".to_vec()), Some(vec![]), None]);
    assert!(connection.expire::<_, bool>("k", 100)?);
    assert!((99..=100).contains(&connection.ttl::<_, i64>("k")?));

    let mut pipe = redis::pipe();
    for at in 0..1_000 {
        pipe.set(format!("p:{at}"), at).ignore().get(format!("p:{at}"));
    }
    let numbers: Vec<i64> = pipe.query(&mut connection)?;
    assert_eq!(numbers, (0..1_000).collect::<Vec<i64>>());

    let keys: Vec<String> = connection.scan_match::<_, String>("p:*")?.collect::<Result<_, _>>()?;
    assert!(keys.len() >= 1_000, "{} keys", keys.len());
    let error = redis::cmd("GET").query::<()>(&mut connection).expect_err("an argument is missing");
    assert!(error.to_string().contains("wrong number of arguments"), "{error}");
    Ok(())
}

#[test]
fn redis_crate_works_in_resp3() -> redis::RedisResult<()> {
    let server = Server::start(Options::shards(2));
    let address = format!("redis://127.0.0.1:{}/?protocol=resp3", server.port());
    let mut connection = redis::Client::open(address)?.get_connection()?;
    let () = connection.set("k", 7)?;
    assert_eq!(connection.get::<_, i64>("k")?, 7);
    assert_eq!(connection.get::<_, Option<i64>>("none")?, None);
    Ok(())
}

#[test]
fn redis_crate_cluster_client_works() -> redis::RedisResult<()> {
    let server = cluster(2);
    let node = format!("redis://127.0.0.1:{}/", server.port());
    let client = redis::cluster::ClusterClient::new(vec![node])?;
    let mut connection = client.get_connection()?;
    for at in 0..1_000 {
        let () = connection.set(format!("key:{at}"), at)?;
    }
    for at in 0..1_000 {
        assert_eq!(connection.get::<_, i64>(format!("key:{at}"))?, at);
    }
    Ok(())
}

/// The string tests of redis-benchmark run to their end and answer without an error.
fn benchmark(server: &Server, pipeline: &str) {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &server.port().to_string(), "-q", "-n", "20000", "-P", pipeline]);
    command.args(["-t", "ping,set,get,incr,mset", "-r", "10000", "-d", "128"]);
    let said = check(command.output().expect("redis-benchmark is installed"), "redis-benchmark");
    for test in ["PING_INLINE: ", "PING_MBULK: ", "SET: ", "GET: ", "INCR: ", "MSET (10 keys): "] {
        let done = said
            .split(['\r', '\n'])
            .any(|line| line.starts_with(test) && line.contains("requests per second"));
        assert!(done, "{test} is missing in: {said}");
    }
    assert!(!said.contains("rror"), "{said}");
}

#[test]
fn redis_benchmark_runs() {
    let server = Server::start(Options::shards(2));
    benchmark(&server, "1");
    benchmark(&server, "16");
}

#[test]
fn redis_benchmark_runs_on_a_cluster() {
    for cores in [2, 4] {
        let server = cluster(cores);
        for pipeline in ["1", "16"] {
            benchmark_cluster(server.port() + 1, pipeline, 50);
        }
        assert_no_hops(&server);
    }
}

/// It takes the port it was given for the node that calls itself `myself`; on the shared one that is any core.
/// Those of its connections that land on another one move.
#[test]
fn redis_benchmark_on_the_shared_port_of_a_cluster_hops_less_and_less() {
    let server = cluster(2);
    for pipeline in ["1", "16"] {
        benchmark_cluster(server.port(), pipeline, 8);
    }
    let mut client = server.client();
    let (hops, moved) = (client.info("hops"), client.info("connections_moved"));
    assert!(hops < 160_000 / 4 && moved > 0, "{hops} hops, {moved} moves");
}

fn benchmark_cluster(port: u16, pipeline: &str, clients: u32) {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "--cluster", "-q", "-n", "20000"]);
    command.args(["-t", "set,get,incr,mset", "-r", "10000", "-d", "128", "-P", pipeline]);
    command.args(["-c", &clients.to_string()]);
    let said = check(command.output().expect("redis-benchmark is installed"), "redis-benchmark --cluster");
    for test in ["SET: ", "GET: ", "INCR: ", "MSET (10 keys): "] {
        assert!(said.contains(test), "{test} is missing in: {said}");
    }
    assert!(!said.contains("rror"), "{said}");
}

/// redis-cli asks for COMMAND DOCS when it starts; without a terminal it still must work line by line.
#[test]
fn redis_cli_runs() {
    let server = Server::start(Options::shards(2));
    let cli = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &server.port().to_string()]).args(arguments);
        check(command.output().expect("redis-cli is installed"), "redis-cli")
    };
    assert_eq!(cli(&["SET", "k", "v"]), "OK\n");
    assert_eq!(cli(&["GET", "k"]), "v\n");
    assert_eq!(cli(&["--no-raw", "MGET", "k", "none"]), "1) \"v\"\n2) (nil)\n");
    assert_eq!(cli(&["-3", "--no-raw", "GET", "none"]), "(nil)\n");
    assert_eq!(cli(&["-n", "3", "EXISTS", "k"]), "0\n");
    assert_eq!(cli(&["--scan", "--pattern", "k*"]), "k\n");
    assert!(cli(&["INFO", "server"]).contains("redis_version:"));
}

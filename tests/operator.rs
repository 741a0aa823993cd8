//! What an operator asks a running server: which commands were slow, how long they take.

mod harness;

use harness::{Client, Options, Server, Value};

fn texts(value: &Value) -> Vec<String> {
    value
        .items()
        .iter()
        .map(|item| String::from_utf8_lossy(item.bytes().expect("text")).into_owned())
        .collect()
}

fn info(client: &mut Client, section: &str) -> String {
    let reply = client.ask(&format!("INFO {section}"));
    String::from_utf8_lossy(reply.bytes().expect("INFO answers text")).into_owned()
}

/// The slow log's commands, oldest first.
fn slow(client: &mut Client) -> Vec<Vec<String>> {
    let entries = client.ask("SLOWLOG GET -1");
    entries.items().iter().rev().map(|entry| texts(&entry.items()[3])).collect()
}

#[test]
fn slow_commands_are_noted_wherever_they_run() {
    for shards in [1, 2, 4] {
        let server = Server::start(Options::shards(shards));
        let mut client = server.client();
        client.ask("CLIENT SETNAME tester");
        assert_eq!(client.ask("SLOWLOG LEN"), Value::Int(0), "nothing is slow by default");
        assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than 0"), Value::ok());
        assert_eq!(client.ask("SLOWLOG RESET"), Value::ok());
        let keys: Vec<String> = (0..8_u32).map(|n| format!("{}key", n.pow(7))).collect();
        for key in &keys {
            client.ask(&format!("SET {key} value"));
        }
        client.ask(&format!("MGET {}", keys.join(" ")));
        client.ask("NONSENSE");
        client.ask(&format!("GET {}", "x".repeat(200)));
        let mut noted = slow(&mut client);
        assert_eq!(noted.remove(0), ["SLOWLOG", "RESET"]);
        for key in &keys {
            assert_eq!(noted.remove(0), ["SET", key, "value"]);
        }
        assert_eq!(noted.remove(0)[..2], ["MGET", "0key"]);
        assert_eq!(noted.remove(0), ["GET".to_owned(), "x".repeat(128) + "... (72 more bytes)"]);
        assert!(noted.is_empty(), "{noted:?}");

        let entry = client.ask("SLOWLOG GET 1").items()[0].clone();
        assert_eq!(texts(&entry.items()[3]), ["SLOWLOG", "GET", "-1"]);
        assert_eq!(entry.items()[5], Value::bulk("tester"));
        let ids: Vec<i64> = client
            .ask("SLOWLOG GET 100")
            .items()
            .iter()
            .map(|entry| entry.items()[0].int().expect("an id"))
            .collect();
        assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");

        let stages = client.ask("SLOWLOG STAGES 100");
        let stages: Vec<String> = stages
            .items()
            .iter()
            .map(|entry| entry.items()[2].clone())
            .map(|stage| String::from_utf8_lossy(stage.bytes().expect("a word")).into_owned())
            .collect();
        assert!(stages.iter().any(|stage| stage == if shards == 1 { "run" } else { "gather" }), "{stages:?}");
        assert_eq!(stages.iter().any(|stage| stage == "hop"), server.options.cores > 1, "{stages:?}");

        assert_eq!(client.ask("CONFIG SET slowlog-max-len 3"), Value::ok());
        client.ask("PING");
        assert_eq!(client.ask("SLOWLOG LEN"), Value::Int(3));
        assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than -1"), Value::ok());
        client.ask("SLOWLOG RESET");
        client.ask("PING");
        assert_eq!(client.ask("SLOWLOG GET"), Value::Array(Vec::new()));
        assert!(
            client.ask("SLOWLOG GET -2").error_text().contains("count should be greater than or equal to -1")
        );
    }
}

#[test]
fn every_call_is_counted_once() {
    for shards in [1, 2, 4] {
        let server = Server::start(Options::shards(shards));
        let mut client = server.client();
        client.ask("CONFIG RESETSTAT");
        for n in 0..20 {
            client.ask(&format!("SET key:{n} value"));
        }
        client.ask("INCR key:0");
        client.ask("SET key:0");
        client.ask("MGET key:0 key:1 key:2 key:3 key:4 key:5");
        let text = info(&mut client, "commandstats");
        let line = |name: &str| {
            let head = format!("cmdstat_{name}:");
            text.lines()
                .find_map(|line| line.strip_prefix(&head))
                .unwrap_or_else(|| panic!("{name} in {text}"))
                .to_owned()
        };
        assert!(line("set").starts_with("calls=20,usec="), "{text}");
        assert!(line("set").ends_with(",rejected_calls=1,failed_calls=0"), "{text}");
        assert!(line("incr").starts_with("calls=1,") && line("incr").ends_with(",failed_calls=1"), "{text}");
        assert!(line("mget").starts_with("calls=1,"), "{text}");
        assert!(!text.contains("cmdstat_get:"), "{text}");
        assert!(info(&mut client, "errorstats").contains("errorstat_ERR:count=2\r\n"));
        assert!(info(&mut client, "latencystats").contains("latency_percentiles_usec_set:p50="));

        let histogram = client.ask("LATENCY HISTOGRAM set nothing");
        assert_eq!(histogram.items().len(), 2);
        assert_eq!(histogram.items()[0], Value::bulk("set"));
        let set = histogram.items()[1].items();
        assert_eq!((&set[0], &set[1]), (&Value::bulk("calls"), &Value::Int(20)));
        let buckets: Vec<i64> = set[3].items().iter().map(|n| n.int().expect("a number")).collect();
        assert_eq!(buckets.last(), Some(&20), "they cumulate: {buckets:?}");
        assert!(buckets.chunks(2).is_sorted_by(|a, b| a[0] < b[0] && a[1] < b[1]), "{buckets:?}");
    }
}

#[test]
fn top_shows_cores_shards_and_commands() {
    let server = Server::start(Options::shards(2));
    server.client().ask("SET key value");
    let port = server.port().to_string();
    let done = std::process::Command::new(harness::haypile_binary())
        .args(["top", "-p", &port, "--once", "--interval-s", "0.2"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && text.starts_with("haypile "), "{text}");
    for head in [" CORE ", "SHARD ", "COMMAND "] {
        assert!(text.lines().any(|line| line.starts_with(head)), "{head}: {text}");
    }
    let wrong = std::process::Command::new(harness::haypile_binary()).args(["top", "-p", "1"]).output();
    assert!(!wrong.expect("it runs").status.success());
}

/// What MONITOR shows next: the line without its time.
fn shown(watcher: &mut Client) -> String {
    let line = watcher.read().expect("a line");
    let line = String::from_utf8_lossy(line.bytes().expect("a simple string")).into_owned();
    let (time, rest) = line.split_once(' ').expect("time and the rest");
    let (seconds, micros) = time.split_once('.').expect("seconds and microseconds");
    assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6, "{line}");
    rest.to_owned()
}

#[test]
fn monitor_shows_the_commands_of_every_core() {
    for shards in [1, 2, 4] {
        let server = Server::start(Options::shards(shards));
        let mut watcher = server.client();
        assert_eq!(watcher.ask("MONITOR"), Value::ok());
        // More connections than cores, so that every core has one.
        let mut clients: Vec<Client> = (0..8).map(|_| server.client()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            let port = client.tcp().local_addr().expect("it is connected").port();
            client.ask("SELECT 3");
            assert_eq!(
                shown(&mut watcher),
                format!("[0 127.0.0.1:{port}] \"SELECT\" \"3\"").replace("[0 ", "[3 ")
            );
            client.must(&args!["set", format!("key{n}"), b"a\"\n\xff"]);
            assert_eq!(
                shown(&mut watcher),
                format!("[3 127.0.0.1:{port}] \"set\" \"key{n}\" \"a\\\"\\n\\xff\"")
            );
        }
        let client = &mut clients[0];
        // As in Redis: not what is for administrators, nothing that was refused, and no password.
        client.ask("CONFIG GET port");
        client.ask("NONSENSE");
        client.ask("AUTH secret");
        assert!(shown(&mut watcher).ends_with("\"AUTH\" \"(redacted)\""));
        client.ask("MGET key0 key1 key2 key3 key4 key5");
        assert!(shown(&mut watcher).contains("\"MGET\" \"key0\""));
        assert!(
            String::from_utf8_lossy(client.ask("CLIENT LIST").bytes().expect("text")).contains("flags=O")
        );
        assert_eq!(watcher.ask("RESET"), Value::Simple("RESET".into()));
        client.ask("PING");
        client.ask("PING");
        assert_eq!(watcher.ask("ECHO mine"), Value::bulk("mine"), "nothing is shown any more");
    }
}

#[test]
fn whoever_watches_and_does_not_read_is_closed_and_nobody_waits() {
    let server = Server::start(Options::shards(2).with(&["--client-output-buffer-limit", "replica 1mb 0 0"]));
    let mut watcher = server.client();
    assert_eq!(watcher.ask("MONITOR"), Value::ok());
    let mut client = server.client();
    let value = vec![b'v'; 10_000];
    for n in 0..2_000 {
        assert_eq!(client.must(&args!["SET", format!("key{n}"), value]), Value::ok());
    }
    let rest = watcher.read_to_close();
    assert!(rest.is_ok_and(|bytes| bytes.len() < 20_000_000), "it was closed before all was shown");
    let list = client.ask("CLIENT LIST");
    assert!(!String::from_utf8_lossy(list.bytes().expect("text")).contains("flags=O"));
}

#[test]
fn delays_are_noted_from_the_threshold_on() {
    let server = Server::start(Options::shards(2));
    let mut client = server.client();
    client.ask("DEBUG SLEEP 0.05");
    assert_eq!(client.ask("LATENCY LATEST"), Value::Array(Vec::new()), "off by default");
    let text = |value: &Value| String::from_utf8_lossy(value.bytes().expect("text")).into_owned();
    assert!(text(&client.ask("LATENCY DOCTOR")).contains("latency-monitor-threshold"));
    assert_eq!(client.ask("CONFIG SET latency-monitor-threshold 40"), Value::ok());
    let began = std::time::Instant::now();
    assert_eq!(client.ask("DEBUG SLEEP 0.1"), Value::ok());
    assert!(began.elapsed() >= std::time::Duration::from_millis(95));
    let latest = client.ask("LATENCY LATEST");
    let command = latest.items().iter().find(|event| event.items()[0] == Value::bulk("command"));
    let command = command.expect("it took longer than 40 ms").items().to_vec();
    assert!((90..10_000).contains(&command[2].int().expect("milliseconds")), "{command:?}");
    let history = client.ask("LATENCY HISTORY command");
    assert_eq!(history.items().last().expect("a sample").items()[0], command[1]);
    assert_eq!(client.ask("LATENCY HISTORY nothing"), Value::Array(Vec::new()));
    assert!(text(&client.ask("LATENCY GRAPH command")).starts_with("command - high "));
    assert!(
        client.ask("LATENCY GRAPH nothing").error_text().contains("No samples available for event 'nothing'")
    );
    assert!(text(&client.ask("LATENCY DOCTOR")).contains("command: "));
    assert_eq!(client.ask("LATENCY RESET command"), Value::Int(1));
    assert_eq!(client.ask("LATENCY HISTORY command"), Value::Array(Vec::new()));
}

#[test]
fn debug_sleep_holds_up_nobody_else() {
    let server = Server::start(Options::shards(1));
    let (mut sleeper, mut other) = (server.client(), server.client());
    sleeper.send(&args!["DEBUG", "SLEEP", "3"]).expect("sent");
    sleeper.send(&args!["PING"]).expect("sent");
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(other.ask("PING"), Value::Simple("PONG".into()));
    }
    assert!(began.elapsed() < std::time::Duration::from_millis(2_900), "others are served");
    assert_eq!(sleeper.read().expect("a reply"), Value::ok());
    assert_eq!(sleeper.read().expect("a reply"), Value::Simple("PONG".into()));
    assert!(began.elapsed() >= std::time::Duration::from_millis(2_990));
    assert!(other.ask("DEBUG JMAP").error_text().contains("not supported"));
    assert!(other.ask("DEBUG SLEEP x").error_text().contains("takes seconds"));
}

#[test]
fn keys_stay_when_active_expiry_is_off_and_nobody_sees_them() {
    let server = Server::start(Options::shards(2));
    let mut client = server.client();
    assert_eq!(client.ask("DEBUG SET-ACTIVE-EXPIRE 0"), Value::ok());
    for n in 0..20 {
        client.ask(&format!("SET key{n} value PX 1"));
    }
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(client.info("expired_keys"), 0);
    assert!(client.ask("GET key0").is_nil());
    assert_eq!(client.ask("DEBUG SET-ACTIVE-EXPIRE 1"), Value::ok());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while client.info("expired_keys") < 20 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn memory_says_where_it_is() {
    for shards in [1, 4] {
        let server = Server::start(Options::shards(shards));
        let mut client = server.client();
        client.must(&args!["SET", "key", vec![b'x'; 1000]]);
        client.must(&args!["SET", "long", vec![b'x'; 200_000]]);
        let mut usage = |key: &str| client.ask(&format!("MEMORY USAGE {key}"));
        assert_eq!(usage("key"), Value::Int(1163));
        assert!(usage("long").int().expect("bytes") > 200_000);
        assert!(usage("none").is_nil());
        let stats = client.ask("MEMORY STATS");
        let names: Vec<String> = stats
            .items()
            .iter()
            .step_by(2)
            .map(|name| String::from_utf8_lossy(name.bytes().expect("a name")).into_owned())
            .collect();
        for name in ["total.allocated", "keys.count", "budget.block_cache", "used.hot_cache"] {
            let at =
                names.iter().position(|known| known == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
            assert!(stats.items()[2 * at + 1].int().is_some(), "{name}");
        }
        let doctor = client.ask("MEMORY DOCTOR");
        assert!(!doctor.bytes().expect("text").is_empty());
        assert!(client.ask("MEMORY PURGE").error_text().contains("unknown subcommand"));
        assert!(
            client.ask("MEMORY USAGE").error_text().contains("wrong number of arguments for 'memory|usage'")
        );
    }
}

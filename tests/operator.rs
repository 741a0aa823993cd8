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

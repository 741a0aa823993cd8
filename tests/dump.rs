//! Values go from haypile to redis-server and back in DUMP's form.

mod harness;

use harness::{Client, Options, Server, Value, installed};

/// Every form that Redis gives a string: numbers of all widths, short, long, and what packs well.
fn values() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> =
        ["", "0", "-1", "127", "128", "-32768", "65536", "2147483648", "-9223372036854775808", "007", "1.5"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    for len in [1_usize, 20, 21, 44, 45, 63, 64, 1000, 16_383, 16_384, 70_000, 1_500_000] {
        values.push(vec![b'a'; len]);
        values.push((0..len).map(|at| (at * at % 251) as u8).collect());
        values.push((0..len).map(|at| (at / 7 % 13) as u8 + b'a').collect());
    }
    values
}

fn carry(from: &mut Client, to: &mut Client) {
    for (number, value) in values().into_iter().enumerate() {
        let key = format!("key:{number}");
        from.must(&args!["SET", key, value]);
        let dumped = from.must(&args!["DUMP", key]);
        let payload = dumped.bytes().expect("the key is there");
        assert_eq!(to.must(&args!["RESTORE", key, "0", payload]), Value::ok());
        assert_eq!(to.must(&args!["GET", key]), Value::bulk(&value), "value {number}");
        assert_eq!(
            to.must(&args!["OBJECT", "ENCODING", key]),
            from.must(&args!["OBJECT", "ENCODING", key]),
            "value {number}"
        );
        let busy = to.call(&args!["RESTORE", key, "0", payload]).expect("it answers");
        assert_eq!(busy.error_text(), "BUSYKEY Target key name already exists.");
        assert_eq!(to.must(&args!["RESTORE", key, "100000", payload, "REPLACE"]), Value::ok());
        let left_ms = to.must(&args!["PTTL", key]).int().expect("a number");
        assert!((1..=100_000).contains(&left_ms), "{left_ms}");
    }
}

/// How a collection is made, and what it is read by; the second form of each is of many elements.
fn collections() -> Vec<(String, Vec<String>, Vec<&'static str>)> {
    let mut all = Vec::new();
    for count in [3, 300] {
        let each = |make: &dyn Fn(u32) -> String| (0..count).map(make).collect::<Vec<_>>();
        let long = "x".repeat(100);
        let mut add = |name: &str, make: Vec<String>, read: Vec<&'static str>| {
            all.push((format!("{name}:{count}"), make, read));
        };
        add("hash", each(&|at| format!("HSET KEY field:{at} {at}")), vec!["HGETALL KEY", "HLEN KEY"]);
        add("wide", each(&|at| format!("HSET KEY field:{at} {long}{at}")), vec!["HGETALL KEY"]);
        add("list", each(&|at| format!("RPUSH KEY item:{at} {at}")), vec!["LRANGE KEY 0 -1"]);
        add("ints", each(&|at| format!("SADD KEY {}", at * 1000)), vec!["SMEMBERS KEY", "SCARD KEY"]);
        add("set", each(&|at| format!("SADD KEY member:{at}")), vec!["SMEMBERS KEY"]);
        add("zset", each(&|at| format!("ZADD KEY {at}.5 member:{at}")), vec!["ZRANGE KEY 0 -1 WITHSCORES"]);
        add("geo", each(&|at| format!("GEOADD KEY {} 40.5 place:{at}", at % 170)), vec!["ZRANGE KEY 0 -1"]);
        add("hll", each(&|at| format!("PFADD KEY {at}")), vec!["PFCOUNT KEY"]);
        let mut stream = each(&|at| format!("XADD KEY {}-1 f{} v{at} same x", at + 1, at % 3));
        stream.push("XDEL KEY 2-1".into());
        stream.push("XGROUP CREATE KEY group 1-1".into());
        stream.push("XREADGROUP GROUP group reader COUNT 2 STREAMS KEY >".into());
        add("stream", stream, vec!["XRANGE KEY - +", "XPENDING KEY group", "XLEN KEY"]);
    }
    all
}

/// A reply whose entries may come in any order, in order.
fn in_order(value: &Value) -> Vec<String> {
    let mut entries = match value {
        Value::Array(entries) => entries.iter().map(|entry| format!("{entry:?}")).collect(),
        other => vec![format!("{other:?}")],
    };
    entries.sort();
    entries
}

fn carry_collections(from: &mut Client, to: &mut Client) {
    for (key, make, read) in collections() {
        for line in make {
            from.ask(&line.replace("KEY", &key));
        }
        let dumped = from.must(&args!["DUMP", key]);
        let payload = dumped.bytes().unwrap_or_else(|| panic!("{key} is there"));
        assert_eq!(to.must(&args!["RESTORE", key, "0", payload]), Value::ok(), "{key}");
        for line in read.iter().chain(&["TYPE KEY"]) {
            let line = line.replace("KEY", &key);
            assert_eq!(in_order(&to.ask(&line)), in_order(&from.ask(&line)), "{line}");
        }
        let mut damaged = payload.to_vec();
        damaged[payload.len() / 2] ^= 1;
        let refused = to.call(&args!["RESTORE", "other", "0", damaged]).expect("it answers");
        assert_eq!(refused.error_text(), "ERR DUMP payload version or checksum are wrong");
    }
}

#[test]
fn values_travel_both_ways() {
    if !installed("redis-server") {
        return eprintln!("redis-server is not installed: nobody to exchange with");
    }
    let redis = Server::start(Options::redis());
    for shards in [1, 2] {
        let haypile = Server::start(Options::shards(shards));
        carry(&mut haypile.client(), &mut redis.client());
        carry_collections(&mut haypile.client(), &mut redis.client());
        redis.client().ask("FLUSHALL");
        haypile.client().ask("FLUSHALL");
        carry(&mut redis.client(), &mut haypile.client());
        carry_collections(&mut redis.client(), &mut haypile.client());
        redis.client().ask("FLUSHALL");
    }
}

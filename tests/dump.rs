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

#[test]
fn values_travel_both_ways() {
    if !installed("redis-server") {
        return eprintln!("redis-server is not installed: nobody to exchange with");
    }
    let redis = Server::start(Options::redis());
    for shards in [1, 2] {
        let haypile = Server::start(Options::shards(shards));
        carry(&mut haypile.client(), &mut redis.client());
        redis.client().ask("FLUSHALL");
        haypile.client().ask("FLUSHALL");
        carry(&mut redis.client(), &mut haypile.client());
        redis.client().ask("FLUSHALL");
    }
}

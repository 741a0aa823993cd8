//! The workloads by name: redis-benchmark's tests, YCSB's letters, loading, and a user's own command.

use crate::keys::Distribution;
use crate::template::{Expect, Template};
use rand::Rng;
use rand::rngs::SmallRng;

/// One operation of a workload: counted, timed and answered as a whole.
pub struct Operation {
    /// What it is called where operations are listed.
    pub name: &'static str,
    /// One of these is taken at random; each is sent in one go, its replies make the operation's end.
    pub variants: Vec<Vec<Template>>,
}

/// What a run does.
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Operations and their weights.
    pub operations: Vec<(u32, Operation)>,
    /// What YCSB prescribes; otherwise the user chooses.
    pub distribution: Option<Distribution>,
    /// Whether it asks for every key of the key space exactly once.
    pub every_key_once: bool,
}

impl Workload {
    /// The next operation, as its number.
    pub fn choose(&self, rng: &mut SmallRng) -> usize {
        if self.operations.len() == 1 {
            return 0;
        }
        let all: u32 = self.operations.iter().map(|(weight, _)| weight).sum();
        let mut at = rng.random_range(0..all);
        for (number, (weight, _)) in self.operations.iter().enumerate() {
            if at < *weight {
                return number;
            }
            at -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}

use Expect::{Integer, Many, Status, Value};

/// redis-benchmark's tests, in its order and with its words (redis-benchmark.c of Redis 7).
const REDIS_BENCHMARK: &[(&str, &str, Expect)] = &[
    ("ping_mbulk", "PING", Status),
    ("set", "SET key:__rand_int__ __data__", Status),
    ("get", "GET key:__rand_int__", Value),
    ("incr", "INCR counter:__rand_int__", Integer),
    ("lpush", "LPUSH mylist __data__", Integer),
    ("rpush", "RPUSH mylist __data__", Integer),
    ("lpop", "LPOP mylist", Value),
    ("rpop", "RPOP mylist", Value),
    ("sadd", "SADD myset element:__rand_int__", Integer),
    ("hset", "HSET myhash element:__rand_int__ __data__", Integer),
    ("spop", "SPOP myset", Value),
    ("zadd", "ZADD myzset __rand_int__ element:__rand_int__", Integer),
    ("zpopmin", "ZPOPMIN myzset", Many),
    ("lrange_100", "LRANGE mylist 0 99", Many),
    ("lrange_300", "LRANGE mylist 0 299", Many),
    ("lrange_500", "LRANGE mylist 0 499", Many),
    ("lrange_600", "LRANGE mylist 0 599", Many),
    ("xadd", "XADD mystream * myfield __data__", Value),
];

const READ: &str = "GET key:__rand_int__";
const UPDATE: &str = "SET key:__rand_int__ __data__";
const INSERT: &str = "SET key:__new_int__ __data__";

/// The longest of YCSB's scans; lengths are uniform from one.
const LONGEST_SCAN: usize = 100;

/// All names, for the help text.
pub fn names() -> String {
    let tests: Vec<&str> = REDIS_BENCHMARK.iter().map(|(name, ..)| *name).collect();
    format!("ping_inline, {}, mset, load, mixed, ycsb-a to ycsb-f", tests.join(", "))
}

/// The workload of this name; `write_percent` is for `mixed` alone.
///
/// # Errors
/// With a text for the user when there is none.
pub fn named(name: &str, digits: usize, write_percent: u32) -> Result<Workload, String> {
    let one = |operation: &'static str, templates: Vec<Template>| {
        vec![(1, Operation { name: operation, variants: vec![templates] })]
    };
    let part = |weight: u32, operation: &'static str, text: &str, expect: Expect| {
        let words: Vec<&str> = text.split(' ').collect();
        (weight, Operation { name: operation, variants: vec![vec![Template::new(&words, expect, digits)]] })
    };
    let ycsb = |operations, distribution| (operations, Some(distribution), false);
    use Distribution::{Latest, Sequential, Zipfian};
    let (operations, distribution, every_key_once) = match name {
        "ping_inline" => (one("ping_inline", vec![Template::inline("PING", Status)]), None, false),
        "mset" => {
            let words: Vec<&str> = ["MSET"]
                .into_iter()
                .chain(["key:__rand_int__", "__data__"].into_iter().cycle().take(20))
                .collect();
            (one("mset", vec![Template::new(&words, Status, digits)]), None, false)
        }
        "load" => (vec![part(1, "insert", UPDATE, Status)], Some(Sequential), true),
        "mixed" => (
            vec![
                part(100 - write_percent, "read", READ, Value),
                part(write_percent, "update", UPDATE, Status),
            ],
            None,
            false,
        ),
        "ycsb-a" => ycsb(vec![part(50, "read", READ, Value), part(50, "update", UPDATE, Status)], Zipfian),
        "ycsb-b" => ycsb(vec![part(95, "read", READ, Value), part(5, "update", UPDATE, Status)], Zipfian),
        "ycsb-c" => ycsb(vec![part(1, "read", READ, Value)], Zipfian),
        "ycsb-d" => ycsb(vec![part(95, "read", READ, Value), part(5, "insert", INSERT, Status)], Latest),
        "ycsb-e" => ycsb(vec![(95, scans(digits)), part(5, "insert", INSERT, Status)], Zipfian),
        "ycsb-f" => {
            let again = ["SET", "key:__same_int__", "__data__"];
            let both = vec![
                Template::new(&["GET", "key:__rand_int__"], Value, digits),
                Template::new(&again, Status, digits),
            ];
            let modify = Operation { name: "read-modify-write", variants: vec![both] };
            ycsb(vec![part(50, "read", READ, Value), (50, modify)], Zipfian)
        }
        other => match REDIS_BENCHMARK.iter().find(|(known, ..)| *known == other) {
            Some((known, text, expect)) => (vec![part(1, known, text, *expect)], None, false),
            None => return Err(format!("there is no test '{other}'; there are {}", names())),
        },
    };
    Ok(Workload { name: name.to_owned(), operations, distribution, every_key_once })
}

/// A command of the user's own, blanks named as in redis-benchmark.
pub fn own(words: &[String], digits: usize) -> Workload {
    let operation =
        Operation { name: "command", variants: vec![vec![Template::new(words, Expect::Any, digits)]] };
    Workload {
        name: words.join(" "),
        operations: vec![(1, operation)],
        distribution: None,
        every_key_once: false,
    }
}

/// YCSB's scan over strings: an MGET of neighbours, as many as it draws.
fn scans(digits: usize) -> Operation {
    let scan = |length: usize| {
        let neighbours = std::iter::repeat_n("key:__next_int__", length - 1);
        let words: Vec<&str> = ["MGET", "key:__rand_int__"].into_iter().chain(neighbours).collect();
        vec![Template::new(&words, Many, digits)]
    };
    Operation { name: "scan", variants: (1..=LONGEST_SCAN).map(scan).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_name_of_the_help_text_is_known() {
        for name in
            names().replace("ycsb-a to ycsb-f", "ycsb-a, ycsb-b, ycsb-c, ycsb-d, ycsb-e, ycsb-f").split(", ")
        {
            assert!(named(name, 12, 50).is_ok(), "{name}");
        }
        assert!(named("getset", 12, 50).is_err());
    }

    #[test]
    fn operations_come_by_their_weights() {
        let workload = named("ycsb-b", 12, 50).unwrap();
        let mut rng = SmallRng::seed_from_u64(3);
        let updates = (0..10_000).filter(|_| workload.choose(&mut rng) == 1).count();
        assert!((400..600).contains(&updates), "{updates}");
    }
}

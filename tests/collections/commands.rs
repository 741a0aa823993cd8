//! Random commands on a few keys of one database: collections grow and shrink across the bounds of their
//! forms, change their type, are moved, copied and combined.
//!
//! Beside keys for anything there are HyperLogLogs, hashes whose fields end soon and keys that end soon.
//! What is done to the latter two comes out the same whether what has ended is gone already or not.

use super::streams::Id;
use super::{Blob, Data, Model};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::time::{SystemTime, UNIX_EPOCH};

/// Keys for anything; the last of them is for large collections.
const KEYS: usize = 8;
const SKETCHES: usize = 2;
const FADING_HASHES: usize = 2;
const FADING_KEYS: usize = 2;
/// So many members there are for most collections, of which about half are there after a while: a number
/// around the bound of what one row holds. Every other key has more.
const MEMBERS: usize = 260;
const LARGE_MEMBERS: usize = 4_000;
/// Far behind the end of any test.
const FAR_MS: std::ops::Range<u64> = 4_000_000_000_000..4_100_000_000_000;

type Args = Vec<Vec<u8>>;

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is behind 1970");
    since.as_millis() as u64
}

/// Whether a key may change by time alone.
pub fn is_fading(key: &[u8]) -> bool {
    key.starts_with(b"fading")
}

pub fn is_sketch(key: &[u8]) -> bool {
    key.starts_with(b"sketch")
}

pub struct Commands {
    pub random: StdRng,
    values: u64,
    stream_ms: u64,
}

impl Commands {
    pub fn new(seed: u64) -> Commands {
        Commands { random: StdRng::seed_from_u64(seed), values: 0, stream_ms: 1 }
    }

    /// Commands that belong together, for a database that holds about this.
    pub fn next(&mut self, model: &Model) -> Vec<Args> {
        match self.random.random_range(0..100) {
            0..5 => self.sketch(),
            5..9 => self.fading_hash(),
            9..12 => self.fading_key(),
            12..18 => vec![self.whole_keys(model)],
            _ => {
                let key = self.key();
                let kind = model.keys.get(&key[..]).map(|value| &value.data);
                let choice = match kind {
                    Some(Data::Text(_)) => 5,
                    Some(Data::Hash(_)) => 0,
                    Some(Data::List(_)) => 1,
                    Some(Data::Set(_)) => 2,
                    Some(Data::Sorted(_)) => 3,
                    Some(Data::Stream(_)) => 4,
                    _ => self.random.random_range(0..6),
                };
                match choice {
                    0 => vec![self.hash(key)],
                    1 => vec![self.list(key)],
                    2 => vec![self.set(key)],
                    3 => vec![self.sorted(key)],
                    4 => self.stream(key),
                    _ => vec![self.text(key)],
                }
            }
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key:{}", self.below(KEYS)).into_bytes()
    }

    fn other_key(&mut self, than: &[u8]) -> Vec<u8> {
        loop {
            let key = self.key();
            if key != than {
                return key;
            }
        }
    }

    /// How many at once, and of how many there are.
    fn batch(&mut self, key: &[u8]) -> (usize, usize) {
        let number = usize::from(key[key.len() - 1].saturating_sub(b'0'));
        let (most, of) = match self.random.random_range(0..10) {
            0 if number == KEYS - 1 => (LARGE_MEMBERS / 2, LARGE_MEMBERS),
            _ if number == KEYS - 1 => (60, LARGE_MEMBERS),
            0 => (250, MEMBERS * (1 + number % 2)),
            _ => (60, MEMBERS * (1 + number % 2)),
        };
        (self.random.random_range(1..most), of)
    }

    fn member(&mut self, of: usize) -> Vec<u8> {
        let number = self.below(of);
        let long = if number.is_multiple_of(40) { 200 + number % 150 } else { number % 9 };
        format!("m{number}{}", "-".repeat(long)).into_bytes()
    }

    fn members(&mut self, key: &[u8]) -> Args {
        let (count, of) = self.batch(key);
        (0..count).map(|_| self.member(of)).collect()
    }

    /// No two are alike, unless they are short.
    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let len = match self.random.random_range(0..1000) {
            0..700 => self.below(20),
            700..950 => self.below(100),
            950..995 => self.below(1_000),
            995..998 => self.random.random_range(3_000..6_000),
            _ => self.random.random_range(60_000..140_000),
        };
        let mut value = format!("{}:", self.values).into_bytes();
        value.resize(value.len().max(len), b'a' + (self.values % 26) as u8);
        value
    }

    fn far_ms(&mut self) -> String {
        self.random.random_range(FAR_MS).to_string()
    }

    fn soon_ms(&mut self) -> String {
        (now_ms() + self.random.random_range(0..3_000)).to_string()
    }

    fn int(&mut self, numbers: std::ops::Range<i64>) -> String {
        self.random.random_range(numbers).to_string()
    }

    fn side(&mut self) -> &'static str {
        ["LEFT", "RIGHT"].choose(&mut self.random).expect("there are two")
    }

    fn whole_keys(&mut self, model: &Model) -> Args {
        let key = self.key();
        let other = self.other_key(&key);
        match self.random.random_range(0..100) {
            0..25 => args!["DEL", key],
            25..30 => args!["UNLINK", key, other],
            30..45 => args!["RENAME", key, other],
            45..50 => args!["RENAMENX", key, other],
            50..70 => args!["COPY", key, other, "REPLACE"],
            70..78 => args!["PEXPIREAT", key, self.far_ms()],
            78..82 => args!["PERSIST", key],
            82..88 => args!["SET", key, self.value()],
            88..93 => args!["MSET", key, self.value(), other, self.value()],
            93 => args!["FLUSHDB"],
            // Those that are there, in any order.
            _ => {
                let there: Vec<&Blob> = model.keys.keys().filter(|key| key.starts_with(b"key:")).collect();
                let mut args = args!["DEL", key];
                args.extend(there.choose_multiple(&mut self.random, 2).map(|key| key.to_vec()));
                args
            }
        }
    }

    fn text(&mut self, key: Vec<u8>) -> Args {
        match self.below(3) {
            0 => args!["SET", key, self.value()],
            1 => args!["APPEND", key, self.value()],
            _ => args!["SETRANGE", key, self.below(90_000).to_string(), self.value()],
        }
    }

    fn hash(&mut self, key: Vec<u8>) -> Args {
        let members = self.members(&key);
        let count = members.len().to_string();
        match self.random.random_range(0..100) {
            0..45 => {
                let mut args = args!["HSET", key];
                members.into_iter().for_each(|member| args.extend([member, self.value()]));
                args
            }
            45..70 => [args!["HDEL", key], members].concat(),
            70..80 => args!["HSETNX", key, members[0], self.value()],
            80..85 => args!["HINCRBY", key, format!("n{}", self.below(4)), self.int(-50..50)],
            85..95 => [args!["HPEXPIREAT", key, self.far_ms(), "FIELDS", count], members].concat(),
            _ => [args!["HPERSIST", key, "FIELDS", count], members].concat(),
        }
    }

    fn list(&mut self, key: Vec<u8>) -> Args {
        let (count, of) = self.batch(&key);
        let other = self.other_key(&key);
        let item = |commands: &mut Commands| {
            if commands.random.random_bool(0.5) { commands.member(20) } else { commands.value() }
        };
        match self.random.random_range(0..100) {
            end @ 0..42 => {
                let mut args = args![if end % 2 == 0 { "LPUSH" } else { "RPUSH" }, key];
                (0..count).for_each(|_| args.push(item(self)));
                args
            }
            42..48 => args!["LPOP", key, count.to_string()],
            48..54 => args!["RPOP", key, count.to_string()],
            54..63 => args!["LSET", key, self.int(-100..100), item(self)],
            63..72 => {
                let place = if self.random.random_bool(0.5) { "BEFORE" } else { "AFTER" };
                args!["LINSERT", key, place, self.member(20), item(self)]
            }
            72..78 => args!["LREM", key, self.int(-3..4), self.member(20)],
            78..84 => args!["LTRIM", key, self.below(30).to_string(), self.int(-30..2 * of as i64)],
            84..92 => args!["LMOVE", key, other, self.side(), self.side()],
            92..95 => args!["RPOPLPUSH", key, other],
            _ => args!["LMPOP", "2", key, other, self.side(), "COUNT", count.to_string()],
        }
    }

    fn set(&mut self, key: Vec<u8>) -> Args {
        let other = self.other_key(&key);
        match self.random.random_range(0..100) {
            0..45 => [args!["SADD", key], self.members(&key)].concat(),
            45..75 => [args!["SREM", key], self.members(&key)].concat(),
            75..82 => args!["SMOVE", key, other, self.member(MEMBERS)],
            82..92 => args!["SUNIONSTORE", other, key, self.key(), self.key()],
            92..96 => args!["SINTERSTORE", other, key, self.key()],
            _ => args!["SDIFFSTORE", other, key, self.key()],
        }
    }

    fn sorted(&mut self, key: Vec<u8>) -> Args {
        let (count, of) = self.batch(&key);
        let other = self.other_key(&key);
        match self.random.random_range(0..100) {
            0..42 => {
                let mut args = args!["ZADD", key];
                let option = ["", "", "", "GT", "LT", "NX", "XX"].choose(&mut self.random).expect("some");
                args.extend(
                    [*option, "CH"].iter().filter(|option| !option.is_empty()).map(|o| o.as_bytes().to_vec()),
                );
                (0..count).for_each(|_| args.extend([self.int(-50..500).into_bytes(), self.member(of)]));
                args
            }
            42..60 => [args!["ZREM", key], self.members(&key)].concat(),
            60..68 => args!["ZINCRBY", key, self.int(-20..20), self.member(of)],
            68..72 => args!["ZREMRANGEBYRANK", key, self.int(-60..60), self.int(-60..60)],
            72..76 => {
                let from = self.random.random_range(-50..500);
                args!["ZREMRANGEBYSCORE", key, from.to_string(), (from + 40).to_string()]
            }
            76..79 => args!["ZPOPMIN", key, count.to_string()],
            79..82 => args!["ZPOPMAX", key, count.to_string()],
            82..85 => args!["ZMPOP", "2", key, other, "MIN", "COUNT", count.to_string()],
            85..92 => {
                let how = ["SUM", "MIN", "MAX"].choose(&mut self.random).expect("some");
                args!["ZUNIONSTORE", other, "2", key, self.key(), "WEIGHTS", "1", "2", "AGGREGATE", how]
            }
            92..95 => args!["ZINTERSTORE", other, "2", key, self.key()],
            95..97 => args!["ZDIFFSTORE", other, "2", key, self.key()],
            _ => args!["ZRANGESTORE", other, key, self.int(-200..200), self.int(-200..200)],
        }
    }

    fn stream(&mut self, key: Vec<u8>) -> Vec<Args> {
        let group = format!("group{}", self.below(2));
        let consumer = format!("consumer{}", self.below(3));
        let count = self.random.random_range(1..30).to_string();
        match self.random.random_range(0..100) {
            0..45 => {
                let adds = self.random.random_range(1..25);
                (0..adds).map(|_| self.xadd(&key)).collect()
            }
            45..55 => {
                let ids = self.ids();
                vec![[args!["XDEL", key], ids].concat()]
            }
            55..60 => vec![args!["XTRIM", key, "MAXLEN", self.below(400).to_string()]],
            60..66 => {
                let from = if self.random.random_bool(0.5) { "0-0" } else { "$" };
                vec![args!["XGROUP", "CREATE", key, group, from, "MKSTREAM"]]
            }
            66 => vec![args!["XGROUP", "DESTROY", key, group]],
            67 => vec![args!["XGROUP", "SETID", key, group, self.ids().remove(0)]],
            68..70 => vec![args!["XGROUP", "DELCONSUMER", key, group, consumer]],
            70..86 => {
                let from = if self.random.random_bool(0.8) { ">" } else { "0-0" };
                vec![args!["XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", key, from]]
            }
            86..94 => vec![[args!["XACK", key, group], self.ids()].concat()],
            94..97 => {
                let ids = self.ids();
                vec![[args!["XCLAIM", key, group, consumer, "0"], ids, args!["JUSTID"]].concat()]
            }
            _ => {
                let start = self.ids().remove(0);
                vec![args!["XAUTOCLAIM", key, group, consumer, "0", start, "COUNT", count, "JUSTID"]]
            }
        }
    }

    fn xadd(&mut self, key: &[u8]) -> Args {
        let mut args = args!["XADD", key];
        if self.random.random_bool(0.1) {
            args.extend(args!["MAXLEN", self.random.random_range(100..400).to_string()]);
        }
        self.stream_ms += u64::from(self.random.random_bool(0.7));
        args.push(format!("{}-*", self.stream_ms).into_bytes());
        for field in 0..self.random.random_range(1..4) {
            args.extend([format!("field{field}").into_bytes(), self.value()]);
        }
        args
    }

    /// Of entries that were added not long ago; most of them are there.
    fn ids(&mut self) -> Args {
        let from = self.stream_ms.saturating_sub(self.random.random_range(1..400));
        let count = self.random.random_range(1..20);
        (from..from + count)
            .map(|ms| Id(ms, self.random.random_range(0..3) / 2).to_string().into_bytes())
            .collect()
    }

    fn sketch(&mut self) -> Vec<Args> {
        let key = format!("sketch:{}", self.below(SKETCHES));
        let other = format!("sketch:{}", self.below(SKETCHES));
        match self.below(20) {
            0 => vec![args!["DEL", key]],
            1..3 => vec![args!["PFMERGE", key, other]],
            _ => {
                let count = if self.random.random_bool(0.1) { 3_000 } else { 30 };
                let elements = (0..self.random.random_range(1..count)).map(|_| self.member(1_000_000));
                vec![[args!["PFADD", key], elements.collect()].concat()]
            }
        }
    }

    fn fading_hash(&mut self) -> Vec<Args> {
        let key = format!("fading:hash:{}", self.below(FADING_HASHES));
        let members = self.members(key.as_bytes());
        let mut set = args!["HSET", key];
        members.iter().for_each(|member| set.extend([member.clone(), self.value()]));
        match self.below(4) {
            0 => vec![[args!["HDEL", key], members].concat()],
            1 => vec![set],
            _ => {
                let count = members.len().to_string();
                let end = [args!["HPEXPIREAT", key, self.soon_ms(), "FIELDS", count], members].concat();
                vec![set, end]
            }
        }
    }

    fn fading_key(&mut self) -> Vec<Args> {
        let key = format!("fading:key:{}", self.below(FADING_KEYS));
        let fill = match self.below(5) {
            0 => return vec![args!["SET", key, self.value(), "PXAT", self.soon_ms()]],
            1 => [args!["RPUSH", key], self.members(key.as_bytes())].concat(),
            2 => [args!["SADD", key], self.members(key.as_bytes())].concat(),
            3 => args!["ZADD", key, "1", self.member(MEMBERS), "2", self.member(MEMBERS)],
            _ => args!["SUNIONSTORE", key, self.key(), self.key()],
        };
        vec![args!["DEL", key], fill, args!["PEXPIREAT", key, self.soon_ms()]]
    }
}

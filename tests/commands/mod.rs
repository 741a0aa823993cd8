//! Random commands for the differential test: every option of the string, keyspace and expiry families,
//! right and wrong, over few keys, so that commands meet.
//!
//! Lifetimes are either far away, so that the clock decides nothing, or so short that a pause follows.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// One command on one of the connections; `*SLEEP ms` waits instead.
#[derive(Clone, Debug)]
pub struct Step {
    pub connection: usize,
    pub args: Vec<Vec<u8>>,
}

impl Step {
    pub fn new(connection: usize, args: Vec<Vec<u8>>) -> Step {
        Step { connection, args }
    }

    pub fn sleep(connection: usize, ms: u64) -> Step {
        Step::new(connection, vec![b"*SLEEP".to_vec(), ms.to_string().into_bytes()])
    }

    pub fn pause(&self) -> Option<Duration> {
        let [name, ms] = self.args.as_slice() else { return None };
        if name != b"*SLEEP" {
            return None;
        }
        let ms = std::str::from_utf8(ms).ok().and_then(|text| text.parse().ok());
        Some(Duration::from_millis(ms.expect("made by Step::sleep")))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.connection)?;
        for arg in &self.args {
            write!(f, " {}", short(arg))?;
        }
        Ok(())
    }
}

/// Bytes for a human: long ones by their length and their ends.
pub fn short(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=120 if bytes.is_empty() || bytes.contains(&b' ') => format!("\"{}\"", bytes.escape_ascii()),
        0..=120 => bytes.escape_ascii().to_string(),
        len => {
            format!("{}...<{len} bytes>...{}", bytes[..30].escape_ascii(), bytes[len - 30..].escape_ascii())
        }
    }
}

/// Few, of every shape; `{t}` and `{}` try the tag rules.
const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"key:1",
    b"key:2",
    b"{t}x",
    b"{t}y",
    b"{}z",
    b"",
    b"\x00\xff\r\n",
    b"sp ace",
    b"never:set",
];
/// Values of these stay short: LCS takes time and memory by the product of two lengths.
const SHORT_KEYS: &[&[u8]] = &[b"lcs:1", b"lcs:2", b"lcs:3"];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "5",
    "42",
    "9999",
    "10000",
    "-0",
    "01",
    "+1",
    " 1",
    "1 ",
    "9223372036854775807",
    "9223372036854775806",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1e3",
    "0x10",
    "",
];
const FLOATS: &[&str] = &[
    "0.1",
    "-0.1",
    "3.0e3",
    "1.5",
    "10.50",
    "5.0e-2",
    "1e17",
    "123456789.123456789",
    "0.000001",
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "-inf",
    "1.",
    ".5",
    "abc",
    " 1.5",
    "1.5 ",
    "",
    "3.14159265358979",
    "1e-10",
    "-0.0",
];
/// Where representations change: embedded strings, inline rows, pieces of a long string.
const LENGTHS: &[usize] = &[
    0, 1, 2, 20, 21, 43, 44, 45, 46, 63, 64, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 81_920, 131_073,
];
const OFFSETS: &[&str] = &[
    "0",
    "1",
    "2",
    "5",
    "43",
    "44",
    "45",
    "16383",
    "16384",
    "16385",
    "65535",
    "65536",
    "65537",
    "100000",
    "-1",
    "-2",
    "-5",
    "-65536",
    "-100000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "x",
    "",
];
const PATTERNS: &[&str] = &[
    "*",
    "a",
    "?",
    "key:*",
    "{t}*",
    "[abc]",
    "[^a]",
    "k[a-f]y:?",
    "*1",
    "\\a",
    "lcs:[1-2]",
    "",
    "nothing*",
    "[",
    "**",
];
const NAMES: &[&str] = &[
    "APPEND",
    "DECR",
    "DECRBY",
    "GET",
    "GETDEL",
    "GETEX",
    "GETRANGE",
    "GETSET",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LCS",
    "MGET",
    "MSET",
    "MSETNX",
    "PSETEX",
    "SET",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "STRLEN",
    "SUBSTR",
    "BITCOUNT",
    "BITFIELD",
    "BITFIELD_RO",
    "BITOP",
    "BITPOS",
    "GETBIT",
    "SETBIT",
    "COPY",
    "DEL",
    "EXISTS",
    "EXPIRE",
    "EXPIREAT",
    "EXPIRETIME",
    "KEYS",
    "MOVE",
    "OBJECT",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PEXPIRETIME",
    "PTTL",
    "RENAME",
    "RENAMENX",
    "TOUCH",
    "TTL",
    "TYPE",
    "UNLINK",
    "ECHO",
    "SELECT",
    "SWAPDB",
    "nosuchcommand",
];

type Words = Vec<Vec<u8>>;

pub struct Generator {
    pub rng: StdRng,
    /// Steps that must follow the last one.
    queued: VecDeque<Step>,
}

impl Generator {
    pub fn new(rng: StdRng) -> Generator {
        Generator { rng, queued: VecDeque::new() }
    }

    /// Whether the next steps are already chosen.
    pub fn busy(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Any command, on any connection.
    pub fn any(&mut self, connections: usize) -> Step {
        if let Some(step) = self.queued.pop_front() {
            return step;
        }
        let connection = self.rng.random_range(0..connections);
        let args = match self.rng.random_range(0..100) {
            0..60 => return self.single_key(connection),
            60..76 => self.many_keys(),
            76..84 => self.two_keys(),
            84..90 => self.whole_database(),
            90..94 => self.compare_strings(),
            94..99 => self.garbage(),
            _ => return self.vanishing(connection),
        };
        Step::new(connection, self.shaken(args))
    }

    /// A command on one key, which may stand in a pipeline.
    pub fn single_key(&mut self, connection: usize) -> Step {
        let key = self.key();
        let args = match self.rng.random_range(0..36) {
            0..5 => self.set(key),
            5..8 => words([b"GET".as_slice(), &key]),
            8 => self.pick_name(&["STRLEN", "GETDEL", "TYPE", "PERSIST", "EXISTS", "DEL"], key),
            9 => self.pick_name(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"], key),
            10 | 11 => self.pick_name(&["INCR", "DECR"], key),
            12 | 13 => {
                let by = self.integer();
                self.named(&["INCRBY", "DECRBY"], [key, by])
            }
            14 => {
                let by = self.float();
                self.named(&["INCRBYFLOAT"], [key, by])
            }
            15 | 16 => {
                let value = self.value();
                self.named(&["APPEND"], [key, value])
            }
            17 | 18 => {
                let value = self.value();
                self.named(&["SETNX", "GETSET"], [key, value])
            }
            19 => {
                let (offset, value) = (self.set_offset(), self.value());
                self.named(&["SETRANGE"], [key, offset, value])
            }
            20 | 21 => {
                let (start, end) = (self.offset(), self.offset());
                self.named(&["GETRANGE", "SUBSTR"], [key, start, end])
            }
            22 => {
                let (seconds, value) = (self.far_seconds(), self.value());
                self.named(&["SETEX"], [key, seconds, value])
            }
            23 => {
                let (ms, value) = (self.far_ms(), self.value());
                self.named(&["PSETEX"], [key, ms, value])
            }
            24 | 25 => self.getex(key),
            26 | 27 => self.expire(key),
            28 => {
                let what = self.word(&["ENCODING", "REFCOUNT", "IDLETIME", "FREQ", "ENCODING", "nothing"]);
                self.named(&["OBJECT"], [what, key])
            }
            29..35 => self.bits(key),
            _ => {
                let key = SHORT_KEYS.choose(&mut self.rng).expect("not empty").to_vec();
                let text = self.letters();
                self.named(&["SET"], [key, text])
            }
        };
        Step::new(connection, self.in_any_case(args))
    }

    /// A command on the bits of one value.
    fn bits(&mut self, key: Vec<u8>) -> Words {
        let name =
            self.word(&["SETBIT", "GETBIT", "BITCOUNT", "BITPOS", "BITFIELD", "BITFIELD", "BITFIELD_RO"]);
        let mut args = vec![name.clone(), key];
        match name.as_slice() {
            b"SETBIT" => args.extend([self.bit_offset(), self.word(&["0", "1", "1", "1", "2", "x"])]),
            b"GETBIT" => args.push(self.bit_offset()),
            b"BITFIELD" | b"BITFIELD_RO" => {
                for _ in 0..self.rng.random_range(0..5) {
                    args.extend(self.field_operation());
                }
            }
            _ => {
                if name == b"BITPOS" {
                    args.push(self.word(&["0", "1", "0", "1", "0", "1", "2"]));
                }
                let ends = self.rng.random_range(0..4);
                for _ in 0..ends.min(2) {
                    args.push(self.offset());
                }
                if ends == 3 {
                    args.push(self.word(&["BIT", "BYTE", "bit", "nothing"]));
                }
            }
        }
        args
    }

    fn bit_offset(&mut self) -> Vec<u8> {
        let places =
            ["0", "1", "7", "8", "13", "63", "64", "100", "1000", "#0", "#1", "#7", "-1", "4294967296", "x"];
        self.word(&places)
    }

    fn field_operation(&mut self) -> Words {
        let width =
            self.word(&["u1", "u4", "u8", "i5", "i8", "u16", "i32", "u63", "i64", "i64", "u64", "i0", "x8"]);
        let (offset, number) = (self.bit_offset(), self.integer());
        match self.rng.random_range(0..8) {
            0..2 => words([b"GET".to_vec(), width, offset]),
            2..4 => words([b"SET".to_vec(), width, offset, number]),
            4..7 => words([b"INCRBY".to_vec(), width, offset, number]),
            _ => words([b"OVERFLOW".to_vec(), self.word(&["WRAP", "SAT", "FAIL", "sat", "nothing"])]),
        }
    }

    fn set(&mut self, key: Vec<u8>) -> Words {
        let mut args = words([b"SET".to_vec(), key, self.value()]);
        let mut options: Vec<Words> = Vec::new();
        if self.rng.random_bool(0.3) {
            options.push(vec![self.word(&["NX", "XX", "NX", "XX", "nothing"])]);
        }
        if self.rng.random_bool(0.2) {
            options.push(vec![b"GET".to_vec()]);
        }
        if self.rng.random_bool(0.35) {
            options.push(self.lifetime(&["KEEPTTL"]));
        }
        if self.rng.random_bool(0.03) {
            options.push(self.lifetime(&["KEEPTTL", "PERSIST", "XX", "NX"]));
        }
        options.shuffle(&mut self.rng);
        args.extend(options.concat());
        args
    }

    fn getex(&mut self, key: Vec<u8>) -> Words {
        let mut args = words([b"GETEX".to_vec(), key]);
        if self.rng.random_bool(0.8) {
            args.extend(self.lifetime(&["PERSIST"]));
        }
        if self.rng.random_bool(0.05) {
            args.extend(self.lifetime(&["PERSIST", "KEEPTTL", "NX"]));
        }
        args
    }

    /// An option that sets a lifetime, or one of `bare`.
    fn lifetime(&mut self, bare: &[&str]) -> Words {
        let value = match self.rng.random_range(0..5) {
            0 => return vec![self.word(bare)],
            1 => [b"EX".to_vec(), self.far_seconds()],
            2 => [b"PX".to_vec(), self.far_ms()],
            3 => [b"EXAT".to_vec(), self.at_seconds()],
            _ => [b"PXAT".to_vec(), self.at_ms()],
        };
        let mut args = value.to_vec();
        if self.rng.random_bool(0.03) {
            args.pop();
        }
        args
    }

    fn expire(&mut self, key: Vec<u8>) -> Words {
        let (name, when) = match self.rng.random_range(0..4) {
            0 => ("EXPIRE", self.far_seconds()),
            1 => ("PEXPIRE", self.far_ms()),
            2 => ("EXPIREAT", self.at_seconds()),
            _ => ("PEXPIREAT", self.at_ms()),
        };
        let mut args = words([name.as_bytes().to_vec(), key, when]);
        while args.len() < 6 && self.rng.random_bool(0.3) {
            args.push(self.word(&["NX", "XX", "GT", "LT", "NX", "XX", "GT", "LT", "nothing"]));
        }
        args
    }

    /// A key with a life of milliseconds, a pause that outlasts it, and a command that finds it gone.
    fn vanishing(&mut self, connection: usize) -> Step {
        let key = b"vanishing".as_slice();
        let kind = self.rng.random_range(0..4);
        let first = match kind {
            0 => words([b"SET".as_slice(), key, b"v", b"PX", b"4"]),
            1 => words([b"SET".as_slice(), key, b"v", b"EXAT", b"1"]),
            2 => words([b"PSETEX".as_slice(), key, b"4", b"v"]),
            _ => words([b"SET".as_slice(), key, b"v", b"EX", b"10000"]),
        };
        let last = match self.rng.random_range(0..8) {
            0 => words([b"GET".as_slice(), key]),
            1 => words([b"INCR".as_slice(), key]),
            2 => words([b"APPEND".as_slice(), key, b"w"]),
            3 => words([b"RENAME".as_slice(), key, b"a"]),
            4 => words([b"KEYS".as_slice(), b"*"]),
            5 => words([b"SET".as_slice(), key, b"w", b"XX"]),
            6 => words([b"SCAN".as_slice(), b"0"]),
            _ => words([b"DEL".as_slice(), key, b"b"]),
        };
        // One with a short life already may be gone before a second command comes, on one side only.
        if matches!(kind, 1 | 3) {
            self.queued.extend([Step::new(connection, words([b"PEXPIRE".as_slice(), key, b"4"]))]);
        }
        self.queued.extend([
            Step::sleep(connection, 12),
            Step::new(connection, last),
            Step::new(connection, words([b"TTL".as_slice(), key])),
        ]);
        Step::new(connection, first)
    }

    fn many_keys(&mut self) -> Words {
        let count = self.rng.random_range(1..8);
        if self.rng.random_bool(0.2) {
            let mut args = words([
                b"BITOP".to_vec(),
                self.word(&["AND", "OR", "XOR", "NOT", "NOT", "nothing"]),
                self.key(),
            ]);
            for _ in 0..if args[1] == b"NOT" { 1 } else { count } {
                args.push(self.key());
            }
            return args;
        }
        let name = self.word(&["MGET", "MSET", "MSETNX", "DEL", "UNLINK", "EXISTS", "TOUCH", "MSET"]);
        let pairs = name.starts_with(b"MSET");
        let mut args = vec![name];
        for _ in 0..count {
            args.push(self.key());
            if pairs {
                args.push(self.value());
            }
        }
        if pairs && self.rng.random_bool(0.05) {
            args.pop();
        }
        args
    }

    fn two_keys(&mut self) -> Words {
        let (from, to) = (self.key(), self.key());
        match self.rng.random_range(0..6) {
            0 | 1 => self.named(&["RENAME", "RENAMENX"], [from, to]),
            2 => {
                let database = self.database();
                self.named(&["MOVE"], [from, database])
            }
            _ => {
                let mut args = self.named(&["COPY"], [from, to]);
                if self.rng.random_bool(0.4) {
                    args.push(self.word(&["REPLACE", "replace", "nothing"]));
                }
                if self.rng.random_bool(0.3) {
                    args.extend([b"DB".to_vec(), self.database()]);
                }
                args
            }
        }
    }

    fn whole_database(&mut self) -> Words {
        match self.rng.random_range(0..20) {
            0..5 => {
                let pattern = self.word(PATTERNS);
                self.named(&["KEYS"], [pattern])
            }
            5..11 => self.scan(),
            11..14 => self.named(&["RANDOMKEY"], []),
            14..18 => {
                let database = self.database();
                self.named(&["SELECT"], [database])
            }
            18 => {
                let (a, b) = (self.database(), self.database());
                self.named(&["SWAPDB"], [a, b])
            }
            _ => {
                let how = self.word(&["ASYNC", "SYNC", "nothing"]);
                let mut args = self.named(&["FLUSHDB", "FLUSHDB", "FLUSHDB", "FLUSHALL"], [how]);
                if self.rng.random_bool(0.5) {
                    args.pop();
                }
                args
            }
        }
    }

    fn scan(&mut self) -> Words {
        let cursor = self.word(&["0", "0", "0", "0", "x", "1 ", "0 ", "99999999999999999999999"]);
        let mut args = words([b"SCAN".to_vec(), cursor]);
        if self.rng.random_bool(0.4) {
            args.extend([b"MATCH".to_vec(), self.word(PATTERNS)]);
        }
        if self.rng.random_bool(0.4) {
            args.extend([b"COUNT".to_vec(), self.word(&["1", "2", "10", "1000", "0", "-1", "x"])]);
        }
        if self.rng.random_bool(0.3) {
            args.extend([b"TYPE".to_vec(), self.word(&["string", "STRING", "list", "nothing"])]);
        }
        if self.rng.random_bool(0.05) {
            args.push(b"nothing".to_vec());
        }
        args
    }

    fn compare_strings(&mut self) -> Words {
        let key = |rng: &mut StdRng| SHORT_KEYS.choose(rng).expect("not empty").to_vec();
        let (first, second) = (key(&mut self.rng), key(&mut self.rng));
        if self.rng.random_bool(0.3) {
            let text = self.letters();
            return self.named(&["SET"], [first, text]);
        }
        let mut args = self.named(&["LCS"], [first, second]);
        for option in ["IDX", "LEN", "WITHMATCHLEN", "nothing"] {
            if self.rng.random_bool(if option == "nothing" { 0.02 } else { 0.3 }) {
                args.push(option.as_bytes().to_vec());
            }
        }
        if self.rng.random_bool(0.3) {
            args.extend([b"MINMATCHLEN".to_vec(), self.word(&["0", "1", "2", "5", "-1", "x"])]);
        }
        args
    }

    /// A known or unknown name with arguments that need not fit it.
    fn garbage(&mut self) -> Words {
        let name = self.word(NAMES);
        let count = self.rng.random_range(0..6);
        let mut args = vec![name];
        for _ in 0..count {
            // No lifetimes and no LCS options by accident: plain words only.
            args.push(self.word(&["a", "b", "1", "-1", "x", "c", "7", "key:1", "zz"]));
        }
        let takes_a_life = [b"EXPIRE".as_slice(), b"PEXPIRE", b"SETEX", b"PSETEX"];
        if args[0] == b"SELECT" || takes_a_life.iter().any(|name| args[0].starts_with(name)) {
            args.truncate(self.rng.random_range(1..=2));
        }
        args
    }

    /// Now and then one argument too few or too many.
    fn shaken(&mut self, mut args: Words) -> Words {
        if self.rng.random_bool(0.01) {
            args.push(b"extra".to_vec());
        } else if self.rng.random_bool(0.01) && args.len() > 1 {
            args.pop();
        }
        self.in_any_case(args)
    }

    fn in_any_case(&mut self, mut args: Words) -> Words {
        if self.rng.random_bool(0.2) {
            args[0].make_ascii_lowercase();
        }
        args
    }

    fn key(&mut self) -> Vec<u8> {
        KEYS.choose(&mut self.rng).expect("not empty").to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0..4 => self.integer(),
            4 | 5 => self.float(),
            6 | 7 => self.letters(),
            _ => {
                let mut bytes = vec![0; *LENGTHS.choose(&mut self.rng).expect("not empty")];
                self.rng.fill(&mut bytes[..]);
                bytes
            }
        }
    }

    /// Few letters, so that texts have much in common.
    fn letters(&mut self) -> Vec<u8> {
        let len = self.rng.random_range(0..60);
        (0..len).map(|_| *b"abcX".choose(&mut self.rng).expect("not empty")).collect()
    }

    fn integer(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..3) {
            0 => self.rng.random::<i64>().to_string().into_bytes(),
            1 => self.rng.random_range(-100..20_000).to_string().into_bytes(),
            _ => self.word(INTEGERS),
        }
    }

    fn float(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..3) {
            0 => format!("{}", self.rng.random_range(-1e6..1e6)).into_bytes(),
            1 => format!("{:.3}", self.rng.random_range(-100.0..100.0)).into_bytes(),
            _ => self.word(FLOATS),
        }
    }

    fn offset(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.3) {
            true => self.rng.random_range(-70_000..70_000).to_string().into_bytes(),
            false => self.word(OFFSETS),
        }
    }

    /// Either far inside what both servers accept or beyond what either does.
    fn set_offset(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0 => self.word(&["536870912", "9223372036854775807", "-1", "x", ""]),
            1 => self.rng.random_range(0..300_000).to_string().into_bytes(),
            _ => self.rng.random_range(0..200).to_string().into_bytes(),
        }
    }

    fn database(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.1) {
            true => self.word(&["-1", "16", "x", "9223372036854775808", ""]),
            false => self.rng.random_range(0..3).to_string().into_bytes(),
        }
    }

    /// At least three hours and all different, so that GT and LT never depend on the moment.
    fn far_seconds(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&[
                "0",
                "-1",
                "x",
                "9223372036854775807",
                "9223372036854776",
                "-9223372036854775808",
                "",
            ]),
            false => self.rng.random_range(10_000..4_000_000).to_string().into_bytes(),
        }
    }

    fn far_ms(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&["0", "-1", "x", "9223372036854775807", "1.5", "-9223372036854775808", ""]),
            false => self.rng.random_range(10_000_000u64..4_000_000_000).to_string().into_bytes(),
        }
    }

    fn at_seconds(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&["0", "1", "-1", "x", "9223372036854775807", ""]),
            false => self.rng.random_range(4_000_000_000u64..4_000_000_100).to_string().into_bytes(),
        }
    }

    fn at_ms(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&["0", "1", "-1", "x", "9223372036854775807", ""]),
            false => self.rng.random_range(4_000_000_000_000u64..4_000_000_100_000).to_string().into_bytes(),
        }
    }

    fn word(&mut self, choices: &[&str]) -> Vec<u8> {
        choices.choose(&mut self.rng).expect("not empty").as_bytes().to_vec()
    }

    fn pick_name(&mut self, names: &[&str], key: Vec<u8>) -> Words {
        self.named(names, [key])
    }

    fn named<const N: usize>(&mut self, names: &[&str], rest: [Vec<u8>; N]) -> Words {
        let mut args = vec![self.word(names)];
        args.extend(rest);
        args
    }
}

fn words<const N: usize>(args: [impl AsRef<[u8]>; N]) -> Words {
    args.iter().map(|arg| arg.as_ref().to_vec()).collect()
}

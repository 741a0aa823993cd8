//! Random commands for the differential test: every option of every family of data types, right and
//! wrong, over few keys and few members, so that commands meet; collections grow and shrink.
//!
//! Lifetimes are either far away, so that the clock decides nothing, or so short that a pause follows.

mod dump;
mod geo;
mod grammar;
mod hash;
mod hyperloglog;
mod keyspace;
mod list;
pub mod rules;
mod set;
mod sort;
mod stream;
mod string;
mod words;
mod zset;

pub use dump::{OURS, THEIRS};
use grammar::Line;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rules::Rule;
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

type Words = Vec<Vec<u8>>;

/// Where the commands of a family come from.
enum Source {
    Lines(&'static [Line]),
    Code(fn(&mut Generator) -> Words),
}

/// How often each family comes.
const FAMILIES: &[(u32, Source)] = &[
    (16, Source::Code(Generator::single_string)),
    (3, Source::Code(Generator::many_keys)),
    (2, Source::Code(Generator::compare_strings)),
    (5, Source::Code(Generator::any_type)),
    (3, Source::Code(Generator::two_keys)),
    (2, Source::Code(Generator::whole_database)),
    (13, Source::Lines(hash::COMMANDS)),
    (14, Source::Lines(list::COMMANDS)),
    (14, Source::Lines(set::COMMANDS)),
    (20, Source::Lines(zset::COMMANDS)),
    (5, Source::Lines(geo::COMMANDS)),
    (4, Source::Lines(hyperloglog::COMMANDS)),
    (18, Source::Lines(stream::COMMANDS)),
    (3, Source::Lines(sort::COMMANDS)),
    (3, Source::Lines(dump::COMMANDS)),
    (3, Source::Code(Generator::garbage)),
];

/// Names for `garbage`, besides those that begin the lines of a family.
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

pub struct Generator {
    pub rng: StdRng,
    /// Steps that must follow the last one.
    queued: VecDeque<Step>,
    /// Of the command that is being made.
    connection: usize,
    /// The milliseconds of the last id given to an entry of a stream.
    newest_ms: u64,
}

impl Generator {
    pub fn new(rng: StdRng) -> Generator {
        Generator { rng, queued: VecDeque::new(), connection: 0, newest_ms: 0 }
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
        self.connection = self.rng.random_range(0..connections);
        let args = match self.rng.random_range(0..1_000) {
            0..8 => self.vanishing(),
            8..9 => self.growing_stream(),
            _ => {
                let args = self.family();
                self.shaken(args)
            }
        };
        Step::new(self.connection, args)
    }

    /// A command that may stand in a pipeline: its reply alone tells whether both sides agree.
    pub fn pipelined(&mut self, connection: usize) -> Step {
        loop {
            let args = self.family();
            if Rule::of(&args).suits_pipeline() {
                return Step::new(connection, self.in_any_case(args));
            }
        }
    }

    fn family(&mut self) -> Words {
        let (_, source) =
            FAMILIES.choose_weighted(&mut self.rng, |(weight, _)| *weight).expect("weights are positive");
        match source {
            Source::Lines(lines) => self.one_of(lines),
            Source::Code(make) => make(self),
        }
    }

    /// A known or unknown name with arguments that need not fit it.
    fn garbage(&mut self) -> Words {
        let mut args = vec![self.any_name()];
        for _ in 0..self.rng.random_range(0..7) {
            // No lifetimes and no LCS options by accident: plain words only.
            args.push(
                self.word(&["a", "b", "1", "-1", "x", "c", "7", "key:1", "zz", "h:1", "l:1", "s:1", "z:1"]),
            );
        }
        let takes_a_life = [b"EXPIRE".as_slice(), b"PEXPIRE", b"SETEX", b"PSETEX"];
        if args[0] == b"SELECT" || takes_a_life.iter().any(|name| args[0].starts_with(name)) {
            args.truncate(self.rng.random_range(1..=2));
        }
        if args[0].ends_with(b"RANK") {
            args.truncate(3);
        }
        args
    }

    /// The name of a command that does not wait.
    fn any_name(&mut self) -> Vec<u8> {
        let source = FAMILIES.choose(&mut self.rng).expect("not empty");
        let (_, Source::Lines(lines)) = source else { return self.word(NAMES) };
        let (_, line) = lines.choose(&mut self.rng).expect("not empty");
        let names: Vec<&str> = line.split(' ').next().expect("split gives at least one").split('|').collect();
        // A cursor in the middle of an iteration means something to one side alone.
        let unfit =
            |name: &str| ["BL", "BR", "BZ"].iter().any(|b| name.starts_with(b)) || name.ends_with("SCAN");
        let fitting: Vec<&str> = names.into_iter().filter(|name| !unfit(name)).collect();
        fitting.choose(&mut self.rng).unwrap_or(&"GET").as_bytes().to_vec()
    }

    /// Now and then one argument too few or too many.
    fn shaken(&mut self, mut args: Words) -> Words {
        // Later versions of Redis, and haypile, let ZRANK have one more.
        if self.rng.random_bool(0.01) && !args[0].ends_with(b"RANK") {
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
}

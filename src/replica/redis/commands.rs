//! The commands that a Redis primary sends its replicas, and how far into them we are. Knows no socket.
//!
//! A place in the stream is an offset in bytes, which primary and replicas count alike. Transactions are
//! taken apart: what is inside comes when all of it has come. Source: replication.c of Redis 7.0.

use super::stream::Failure;
use crate::resp::args::Args;
use crate::resp::number::parse_i64;
use crate::resp::parse::{ParseLimits, Parser};
use std::collections::VecDeque;

/// A transaction that is longer is passed on before its end has come.
const TRANSACTION_HELD_MAX_BYTES: usize = 64 << 20;
/// Room that an empty buffer keeps.
const BUFFER_KEEP_BYTES: usize = 1 << 20;

/// A place between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes of the stream before it.
    pub offset: u64,
    /// The database that the stream has selected there.
    pub db: u32,
}

/// Something that the stream asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To run a command: `Commands::command` has it.
    Command,
    /// To tell the primary how far we are, once we are at least there.
    Acknowledge { after: u64 },
}

/// A command of the primary, as long as the stream is left alone.
#[derive(Clone, Copy, Debug)]
pub struct Command<'s> {
    /// As it came.
    pub bytes: &'s [u8],
    /// As it came, in whatever case.
    pub name: &'s str,
    pub db: u32,
    /// Where the stream is behind it; `None` within a transaction, where nobody may go on later.
    pub end: Option<Place>,
}

/// Bytes received and not yet understood.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    at: usize,
}

impl Input {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.at));
        if self.bytes.is_empty() {
            self.bytes.shrink_to(BUFFER_KEEP_BYTES);
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub fn pass(&mut self, count: usize) {
        self.at += count;
        debug_assert!(self.at <= self.bytes.len());
    }
}

/// A command that is kept until its transaction ends.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    name: String,
    db: u32,
}

#[derive(Clone, Copy)]
enum Meaning {
    Nothing,
    Select(u32),
    Multi,
    Exec,
    Acknowledge,
    Run,
}

/// The stream from some place on.
pub struct Commands {
    parser: Parser,
    limits: ParseLimits,
    /// What has been read.
    read: Place,
    /// What has been asked for, all of it.
    handed: Place,
    /// What is inside a transaction whose end has not come.
    transaction: Option<VecDeque<Kept>>,
    held_bytes: usize,
    /// The part of a transaction that has been asked for is not all of it, and cannot be taken back.
    torn: bool,
    ready: VecDeque<Kept>,
    /// The command that was asked for last; its bytes are the first of the input if it keeps none.
    now: Kept,
    now_bytes: usize,
    now_end: Option<Place>,
}

impl Commands {
    /// Commands from `place` on. None may have an argument of more than `value_max_bytes`.
    pub fn new(place: Place, value_max_bytes: u64) -> Commands {
        Commands {
            parser: Parser::new(),
            limits: ParseLimits { bulk_max_bytes: value_max_bytes, ..ParseLimits::default() },
            read: place,
            handed: place,
            transaction: None,
            held_bytes: 0,
            torn: false,
            ready: VecDeque::new(),
            now: Kept::default(),
            now_bytes: 0,
            now_end: None,
        }
    }

    /// The place before which everything has been asked for; `None` where the stream is in the midst of a
    /// transaction of which a part has.
    pub fn handed(&self) -> Option<Place> {
        (!self.torn && self.ready.is_empty()).then_some(self.handed)
    }

    /// The command that was asked for last; `input` as it was then.
    pub fn command<'s>(&'s self, input: &'s Input) -> Command<'s> {
        let bytes = if self.now_bytes > 0 { &input.rest()[..self.now_bytes] } else { &self.now.bytes[..] };
        Command { bytes, name: &self.now.name, db: self.now.db, end: self.now_end }
    }

    /// What is asked for next; `None` where more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no commands, or one is longer than it may be.
    pub fn advance(&mut self, input: &mut Input) -> Result<Option<Asked>, Failure> {
        loop {
            input.pass(std::mem::take(&mut self.now_bytes));
            if let Some(kept) = self.ready.pop_front() {
                self.now = kept;
                let whole = self.ready.is_empty() && !self.torn && self.transaction.is_none();
                self.now_end = whole.then(|| self.hand());
                return Ok(Some(Asked::Command));
            }
            let parsed = self.parser.parse(input.rest(), &self.limits);
            let Some(size) = parsed.map_err(|error| Failure::Stream(error.to_string()))? else {
                return Ok(None);
            };
            let args = self.parser.args(input.rest());
            let meaning = meaning(&args)?;
            self.now = match &meaning {
                Meaning::Run => Kept {
                    bytes: Vec::new(),
                    name: String::from_utf8_lossy(args.get(0)).into_owned(),
                    db: self.read.db,
                },
                _ => Kept::default(),
            };
            self.parser.advance();
            let before = self.read.offset;
            self.read.offset += size as u64;
            if let Some(asked) = self.follow(meaning, before, size, input) {
                return Ok(Some(asked));
            }
        }
    }

    /// A command that has been read; `size` bytes of the input.
    fn follow(&mut self, meaning: Meaning, before: u64, size: usize, input: &mut Input) -> Option<Asked> {
        match (meaning, &mut self.transaction) {
            (Meaning::Run, Some(held)) if !self.torn => {
                let kept = std::mem::take(&mut self.now);
                held.push_back(Kept { bytes: input.rest()[..size].to_vec(), ..kept });
                self.held_bytes += size;
                if self.held_bytes > TRANSACTION_HELD_MAX_BYTES {
                    self.torn = true;
                    self.ready = std::mem::take(held);
                }
            }
            (Meaning::Run, transaction) => {
                let whole = transaction.is_none();
                self.now_bytes = size;
                self.now_end = whole.then(|| self.hand());
                return Some(Asked::Command);
            }
            (Meaning::Multi, transaction) => *transaction = Some(VecDeque::new()),
            (Meaning::Exec, transaction) => {
                self.ready = transaction.take().unwrap_or_default();
                (self.held_bytes, self.torn) = (0, false);
            }
            (Meaning::Select(db), _) => self.read.db = db,
            (Meaning::Nothing | Meaning::Acknowledge, _) => {}
        }
        input.pass(size);
        if self.transaction.is_none() && self.ready.is_empty() {
            self.hand();
        }
        matches!(meaning, Meaning::Acknowledge).then_some(Asked::Acknowledge { after: before })
    }

    fn hand(&mut self) -> Place {
        self.handed = self.read;
        self.handed
    }
}

fn meaning(args: &Args<'_>) -> Result<Meaning, Failure> {
    if args.len() == 0 || args.is(0, "ping") {
        return Ok(Meaning::Nothing);
    }
    Ok(match args.len() {
        1 if args.is(0, "multi") => Meaning::Multi,
        1 if args.is(0, "exec") => Meaning::Exec,
        2 if args.is(0, "select") => {
            let db = parse_i64(args.get(1)).and_then(|db| u32::try_from(db).ok());
            Meaning::Select(db.ok_or_else(|| Failure::Stream("SELECT names no database".into()))?)
        }
        3 if args.is(0, "replconf") && args.is(1, "getack") => Meaning::Acknowledge,
        _ if args.is(0, "replconf") => Meaning::Nothing,
        _ => Meaning::Run,
    })
}

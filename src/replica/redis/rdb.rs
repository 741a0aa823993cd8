//! An RDB file cut into its keys while its bytes arrive. Knows no socket, and looks into no value.
//!
//! What Redis 2.8 to 7.4 write is read. Memory holds the key at hand and what has arrived behind it. A key's
//! value comes as RESTORE takes it: an RDB file holds the same bytes, without the footer. Source: rdb.c and
//! rdb.h of Redis 7.0 and 7.4.

use crate::types::dump::extent::{self, Reached, Step, Walk};
use crate::types::dump::{self, Refused, Source};
use std::ops::Range;

const MAGIC: &[u8] = b"REDIS";
const HEADER_BYTES: usize = 9;
/// Redis 2.8's.
const VERSION_MIN: u16 = 6;
/// Room that an empty buffer keeps.
const BUFFER_KEEP_BYTES: usize = 1 << 20;

/// What a file's entries begin with, beside the types of values.
mod code {
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION: u8 = 245;
    pub const FUNCTION_RC: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE_DB: u8 = 251;
    pub const EXPIRE_MS: u8 = 252;
    pub const EXPIRE_S: u8 = 253;
    pub const SELECT_DB: u8 = 254;
    pub const END: u8 = 255;
    /// Values of modules' own types.
    pub const MODULE: u8 = 6;
    pub const MODULE_2: u8 = 7;
}

/// Why a file can be read no further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} of the RDB file: {what}")]
pub struct Error {
    /// How many bytes stand before the entry that is meant.
    pub at: u64,
    pub what: Flaw,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("this is no RDB file of Redis: it begins with \"{0}\"")]
    Magic(String),
    #[error("RDB version {0} is not read, only {VERSION_MIN} to {max}", max = dump::VERSION_READ_MAX)]
    Version(String),
    #[error("nothing is known to begin with byte {0}")]
    Code(u8),
    #[error("key \"{key}\" is of type {kind}, which is not known")]
    Kind { key: String, kind: u8 },
    #[error("key \"{key}\" is a value of module {module}, which only that module could read")]
    ModuleValue { key: String, module: String },
    #[error("there is data of module {0}, which only that module could read")]
    ModuleData(String),
    #[error("an entry is not formed as RDB's are")]
    Content,
    #[error("an entry is longer than {0} bytes")]
    TooLong(u64),
    #[error("the value of key \"{key}\" is longer than {max} bytes")]
    ValueTooLong { key: String, max: u64 },
    #[error("database {0} is beyond what a number of a database may be")]
    Db(u64),
    #[error("the checksum is another: what arrived is not what was sent")]
    Checksum,
}

/// What stands in a file, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The header was right.
    Begin { version: u16 },
    /// Something about the file or its maker.
    Aux { name: String, value: String },
    /// A library of functions, passed over.
    Function,
    /// A key: `Tokenizer::key` has it.
    Key,
    /// The end, and the checksum was right or none was given.
    End,
}

/// A key and its value, as long as the tokenizer is left alone.
#[derive(Clone, Copy, Debug)]
pub struct Key<'t> {
    pub db: u32,
    pub name: &'t [u8],
    /// In milliseconds since 1970, and never 0.
    pub expire_ms: Option<u64>,
    pub payload: Payload<'t>,
}

/// A value as RESTORE takes it, in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'t> {
    kind: &'t [u8; 1],
    value: &'t [u8],
    footer: &'t [u8],
}

impl<'t> Payload<'t> {
    /// One behind the other they are the payload.
    pub fn pieces(&self) -> [&'t [u8]; 3] {
        [self.kind, self.value, self.footer]
    }

    /// Bytes of the payload.
    #[expect(clippy::len_without_is_empty, reason = "no payload is empty")]
    pub fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }
}

/// Where the key at hand lies in the buffer.
#[derive(Debug, Default)]
struct Found {
    kind: [u8; 1],
    name: Vec<u8>,
    value: Range<usize>,
    footer: Vec<u8>,
    expire_ms: Option<u64>,
}

/// An entry whose end is being looked for.
#[derive(Debug)]
struct Entry {
    code: u8,
    /// Behind the code, or behind the key's name once that is known.
    walk: Walk,
    /// Where the walk began.
    from: usize,
    named: bool,
}

/// Reads one file: give it bytes, then advance until it wants more.
pub struct Tokenizer {
    value_max_bytes: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that an event has told of; they go when the next is asked for.
    told: usize,
    /// Bytes of the file before the buffer.
    passed: u64,
    digest: crc::Digest<'static, u64>,
    version: u16,
    entry: Option<Entry>,
    db: u32,
    expire_ms: Option<u64>,
    found: Found,
    ended: bool,
}

impl Tokenizer {
    /// No value, and nothing else in the file, may be longer than `value_max_bytes` as it stands there.
    pub fn new(value_max_bytes: u64) -> Tokenizer {
        Tokenizer {
            value_max_bytes,
            buffer: Vec::new(),
            told: 0,
            passed: 0,
            digest: dump::CRC64.digest(),
            version: 0,
            entry: None,
            db: 0,
            expire_ms: None,
            found: Found::default(),
            ended: false,
        }
    }

    /// Takes the file's next bytes. It keeps them all: whoever feeds it waits until `advance` wants more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.forget();
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event; `None` where more bytes are needed, and behind the end. After an error there is
    /// nothing more to be had.
    pub fn advance(&mut self) -> Result<Option<Event>, Error> {
        loop {
            self.forget();
            if self.ended {
                return Ok(None);
            }
            let told = if self.version == 0 { self.header() } else { self.entry() };
            match told.map_err(|what| Error { at: self.passed, what })? {
                Told::Event(event) => return Ok(Some(event)),
                Told::Nothing => {}
                Told::More => return Ok(None),
            }
        }
    }

    /// The key that the last event told of.
    pub fn key(&self) -> Key<'_> {
        let Found { kind, name, value, footer, expire_ms } = &self.found;
        let payload = Payload { kind, value: &self.buffer[value.clone()], footer };
        Key { db: self.db, name, expire_ms: *expire_ms, payload }
    }

    /// What has arrived behind the file's end.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.forget();
        self.buffer
    }

    fn forget(&mut self) {
        if self.told == 0 {
            return;
        }
        self.digest.update(&self.buffer[..self.told]);
        self.passed += self.told as u64;
        self.found.value = 0..0;
        self.buffer.drain(..std::mem::take(&mut self.told));
        self.buffer.shrink_to(BUFFER_KEEP_BYTES);
    }

    fn header(&mut self) -> Result<Told, Flaw> {
        let Some(header) = self.buffer.get(..HEADER_BYTES) else { return Ok(Told::More) };
        let (magic, digits) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Flaw::Magic(readable(header)));
        }
        let version = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let known = version.filter(|version| (VERSION_MIN..=dump::VERSION_READ_MAX).contains(version));
        self.version = known.ok_or_else(|| Flaw::Version(readable(digits)))?;
        self.told = HEADER_BYTES;
        Ok(Told::Event(Event::Begin { version: self.version }))
    }

    fn entry(&mut self) -> Result<Told, Flaw> {
        let Some(&code) = self.buffer.first() else { return Ok(Told::More) };
        let mut entry = match self.entry.take() {
            Some(entry) => entry,
            None => Entry { code, walk: Walk::new(layout(code)?), from: 1, named: false },
        };
        let ends = loop {
            let end = match entry.walk.go(&self.buffer[entry.from..]) {
                Ok(Reached::End(end)) => entry.from + end,
                Ok(Reached::Beyond(least)) => {
                    self.check(&entry, least)?;
                    self.entry = Some(entry);
                    return Ok(Told::More);
                }
                Err(_) => return Err(Flaw::Content),
            };
            self.check(&entry, (end - entry.from) as u64)?;
            if entry.named || entry.code >= code::SLOT_INFO {
                break end;
            }
            self.found.name = self.text(entry.from..end)?;
            entry = Entry { code, walk: Walk::new(self.value_grammar(code)?), from: end, named: true };
        };
        self.told = ends;
        if entry.named { self.key_ends(code, entry.from..ends) } else { self.understand(code, 1..ends) }
    }

    /// Whether an entry that is at least so long may be.
    fn check(&self, entry: &Entry, least: u64) -> Result<(), Flaw> {
        let max = self.value_max_bytes;
        match least > max {
            false => Ok(()),
            true if entry.named => Err(Flaw::ValueTooLong { key: self.name(), max }),
            true => Err(Flaw::TooLong(max)),
        }
    }

    fn name(&self) -> String {
        readable(&self.found.name)
    }

    fn value_grammar(&self, kind: u8) -> Result<&'static [Step], Flaw> {
        match kind {
            code::MODULE | code::MODULE_2 => Ok(&[Step::Number]),
            kind => extent::grammar(kind).ok_or_else(|| Flaw::Kind { key: self.name(), kind }),
        }
    }

    fn key_ends(&mut self, kind: u8, value: Range<usize>) -> Result<Told, Flaw> {
        if matches!(kind, code::MODULE | code::MODULE_2) {
            let module = module_name(self.source(value).length().map_err(|_| Flaw::Content)?);
            return Err(Flaw::ModuleValue { key: self.name(), module });
        }
        self.found.kind = [kind];
        self.found.footer = dump::footer(&[&[kind], &self.buffer[value.clone()]], self.version).to_vec();
        self.found.value = value;
        self.found.expire_ms = self.expire_ms.take();
        Ok(Told::Event(Event::Key))
    }

    /// An entry that is no key.
    fn understand(&mut self, code: u8, at: Range<usize>) -> Result<Told, Flaw> {
        let mut source = self.source(at.clone());
        let event = match code {
            code::AUX => {
                let [name, value] = [source.text(), source.text()]
                    .map(|text| text.map(|text| String::from_utf8_lossy(&text).into_owned()));
                Event::Aux {
                    name: name.map_err(|_| Flaw::Content)?,
                    value: value.map_err(|_| Flaw::Content)?,
                }
            }
            code::FUNCTION => Event::Function,
            code::SELECT_DB => {
                let db = source.length().map_err(|_| Flaw::Content)?;
                self.db = u32::try_from(db).map_err(|_| Flaw::Db(db))?;
                return Ok(Told::Nothing);
            }
            code::EXPIRE_S | code::EXPIRE_MS => {
                self.expire_ms = Some(expiry(&self.buffer[at]));
                return Ok(Told::Nothing);
            }
            code::MODULE_AUX => {
                let module = source.length().map_err(|_| Flaw::Content)?;
                return Err(Flaw::ModuleData(module_name(module)));
            }
            code::END => {
                let mut digest = self.digest.clone();
                digest.update(&[code]);
                let given: [u8; 8] = self.buffer[at].try_into().expect("the layout has eight bytes");
                // Zero is written where checksums are switched off.
                if given != [0; 8] && u64::from_le_bytes(given) != digest.finalize() {
                    return Err(Flaw::Checksum);
                }
                self.ended = true;
                Event::End
            }
            // How large tables should be, and when or how often a key was used.
            _ => return Ok(Told::Nothing),
        };
        Ok(Told::Event(event))
    }

    fn source(&self, at: Range<usize>) -> Source<'_> {
        Source::new(&self.buffer[at], self.value_max_bytes)
    }

    fn text(&self, at: Range<usize>) -> Result<Vec<u8>, Flaw> {
        match self.source(at).text() {
            Ok(text) => Ok(text.into_owned()),
            Err(Refused::TooLong) => Err(Flaw::TooLong(self.value_max_bytes)),
            Err(_) => Err(Flaw::Content),
        }
    }
}

enum Told {
    Event(Event),
    Nothing,
    More,
}

/// What stands behind an entry's first byte; of a key, its name.
fn layout(code: u8) -> Result<&'static [Step], Flaw> {
    Ok(match code {
        code::AUX => &[Step::Text, Step::Text],
        code::SELECT_DB | code::IDLE | code::MODULE_AUX => &[Step::Number],
        code::RESIZE_DB => &[Step::Number, Step::Number],
        code::SLOT_INFO => &[Step::Number, Step::Number, Step::Number],
        code::EXPIRE_MS | code::END => &[Step::Bytes(8)],
        code::EXPIRE_S => &[Step::Bytes(4)],
        code::FREQ => &[Step::Bytes(1)],
        // A release candidate of 7.0 wrote a name, perhaps a description, and the code.
        code::FUNCTION_RC => return Err(Flaw::Code(code)),
        0..code::SLOT_INFO | code::FUNCTION => &[Step::Text],
    })
}

/// In milliseconds since 1970. What went before that, and what went then, is told as the first of them:
/// RESTORE's 0 means never.
fn expiry(bytes: &[u8]) -> u64 {
    let ms = match bytes.try_into() {
        Ok(seconds) => i64::from(i32::from_le_bytes(seconds)) * 1000,
        Err(_) => i64::from_le_bytes(bytes.try_into().expect("the layout has four or eight bytes")),
    };
    ms.max(1).cast_unsigned()
}

/// The name of a module's type: nine characters of six bits, before ten bits of a version.
fn module_name(id: u64) -> String {
    const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).rev().map(|place| char::from(CHARACTERS[(id >> (10 + 6 * place) & 63) as usize])).collect()
}

/// The beginning of some bytes, for a person.
pub fn readable(bytes: &[u8]) -> String {
    const SHOWN: usize = 100;
    let dots = if bytes.len() > SHOWN { "..." } else { "" };
    format!("{}{dots}", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}

//! What keys of every type hold, as std collections, and what commands do to it and answer.
//!
//! For tests that run the same commands on a server and compare. Knows Redis's commands, and nothing of how
//! a server keeps what they write.

#![allow(dead_code, reason = "each test binary uses its own part")]

mod commands;
mod hashes;
mod lists;
mod reading;
mod registers;
mod sets;
mod sorted;
mod streams;

pub use commands::Commands;
pub use reading::read_all;

use crate::harness::Value as Reply;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use streams::Stream;

/// Cheap to clone: states are compared and kept by the dozen.
pub type Blob = Arc<[u8]>;

/// Elements, or bytes of a text, that a store may keep in one row.
const ROW_MAX: usize = 128;
const TEXT_ROW_MAX_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub value: Blob,
    pub expire_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Text(Blob),
    /// A HyperLogLog: the registers that are not zero.
    Registers(BTreeMap<u16, u8>),
    Hash(BTreeMap<Blob, Field>),
    List(VecDeque<Blob>),
    Set(BTreeSet<Blob>),
    Sorted(BTreeMap<Blob, f64>),
    Stream(Stream),
}

impl Data {
    /// Of collections that go when nothing is left in them.
    fn is_empty(&self) -> bool {
        match self {
            Data::Hash(fields) => fields.is_empty(),
            Data::List(items) => items.is_empty(),
            Data::Set(members) => members.is_empty(),
            Data::Sorted(members) => members.is_empty(),
            Data::Text(_) | Data::Registers(_) | Data::Stream(_) => false,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Data::Text(_) => "text",
            Data::Registers(_) => "sketch",
            Data::Hash(_) => "hash",
            Data::List(_) => "list",
            Data::Set(_) => "set",
            Data::Sorted(_) => "sorted set",
            Data::Stream(_) => "stream",
        }
    }

    /// More than one row holds.
    pub fn is_large(&self) -> bool {
        match self {
            Data::Text(text) => text.len() > TEXT_ROW_MAX_BYTES,
            Data::Registers(registers) => registers.len() > ROW_MAX,
            Data::Hash(fields) => fields.len() > ROW_MAX,
            Data::List(items) => items.len() > ROW_MAX,
            Data::Set(members) => members.len() > ROW_MAX,
            Data::Sorted(members) => members.len() > ROW_MAX,
            Data::Stream(stream) => stream.entries.len() > ROW_MAX,
        }
    }

    /// Short enough for a report.
    pub fn outline(&self) -> String {
        let cut = |text: String| text.chars().take(1_500).collect::<String>();
        match self {
            Data::Text(text) => format!("text of {} bytes", text.len()),
            Data::Registers(registers) => format!("{} registers", registers.len()),
            Data::Hash(fields) => format!("hash of {}: {}", fields.len(), cut(names(fields.keys()))),
            Data::List(items) => format!("list of {}: {}", items.len(), cut(names(items.iter()))),
            Data::Set(members) => format!("set of {}: {}", members.len(), cut(names(members.iter()))),
            Data::Sorted(members) => {
                format!("sorted set of {}: {}", members.len(), cut(format!("{:?}", members.values())))
            }
            Data::Stream(stream) => format!("stream {}", cut(format!("{stream:?}"))),
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a Blob>) -> String {
    names.map(|name| name[..name.len().min(12)].escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub data: Data,
    pub expire_ms: Option<u64>,
}

impl Value {
    fn new(data: Data) -> Value {
        Value { data, expire_ms: None }
    }

    /// Without the fields that `is_gone` says have ended; None when nothing is left, or all of it has ended.
    fn without(&self, is_gone: impl Fn(Option<&Blob>, u64) -> bool) -> Option<Value> {
        if self.expire_ms.is_some_and(|end| is_gone(None, end)) {
            return None;
        }
        let mut left = self.clone();
        if let Data::Hash(fields) = &mut left.data {
            fields.retain(|name, field| !field.expire_ms.is_some_and(|end| is_gone(Some(name), end)));
        }
        (!left.data.is_empty()).then_some(left)
    }
}

/// Whether `found`, read within these moments, is this state. What ended meanwhile may be there or not.
pub fn is_alike(state: Option<&Value>, found: Option<&Value>, read_ms: &Range<u64>) -> bool {
    let Some(state) = state else { return found.is_none() };
    let found_has = |name: Option<&Blob>| match (name, found.map(|found| &found.data)) {
        (Some(name), Some(Data::Hash(fields))) => fields.contains_key(name),
        (None, Some(_)) => true,
        _ => false,
    };
    let is_gone = |name: Option<&Blob>, end| end <= read_ms.start || end <= read_ms.end && !found_has(name);
    state.without(is_gone).as_ref() == found
}

/// What a command is to answer.
#[derive(Debug)]
pub enum Answer {
    Is(Reply),
    /// Anything but an error.
    Any,
}

/// An error is known by how its text begins.
type Outcome = Result<Answer, &'static str>;

const WRONG_TYPE: &str = "WRONGTYPE";

fn int(number: usize) -> Outcome {
    Ok(Answer::Is(Reply::Int(number as i64)))
}

fn bulk_or_nil(item: Option<Blob>) -> Outcome {
    Ok(Answer::Is(item.map_or(Reply::NilBulk, Reply::bulk)))
}

fn bulks<'a>(items: impl IntoIterator<Item = &'a Blob>) -> Reply {
    Reply::Array(items.into_iter().map(Reply::bulk).collect())
}

fn number<T: FromStr>(arg: &[u8]) -> T {
    let parsed = std::str::from_utf8(arg).ok().and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| panic!("{} is no number", arg.escape_ascii()))
}

fn word(arg: &[u8]) -> &str {
    std::str::from_utf8(arg).expect("commands are made of text here")
}

/// As Redis takes the bounds of a range: negative ones from the end, both included.
fn window(len: usize, first: &[u8], last: &[u8]) -> Range<usize> {
    let place = |arg| {
        let at: i64 = number(arg);
        if at < 0 { at + len as i64 } else { at }
    };
    let (first, last) = (place(first).max(0) as usize, place(last).min(len as i64 - 1));
    if last < first as i64 { 0..0 } else { first..last as usize + 1 }
}

/// The keys of one database.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub keys: BTreeMap<Blob, Value>,
}

macro_rules! kinds {
    ($($get:ident $make:ident $variant:ident $kind:ty;)*) => {
        impl Model {
            $(
                fn $get(&mut self, key: &[u8]) -> Result<Option<&mut $kind>, &'static str> {
                    match self.keys.get_mut(key).map(|value| &mut value.data) {
                        None => Ok(None),
                        Some(Data::$variant(inner)) => Ok(Some(inner)),
                        Some(_) => Err(WRONG_TYPE),
                    }
                }

                /// Made empty if there is none.
                fn $make(&mut self, key: &[u8]) -> Result<&mut $kind, &'static str> {
                    let empty = || Value::new(Data::$variant(Default::default()));
                    match &mut self.keys.entry(key.into()).or_insert_with(empty).data {
                        Data::$variant(inner) => Ok(inner),
                        _ => Err(WRONG_TYPE),
                    }
                }
            )*
        }
    };
}

kinds! {
    text make_text Text Blob;
    registers make_registers Registers BTreeMap<u16, u8>;
    hash make_hash Hash BTreeMap<Blob, Field>;
    list make_list List VecDeque<Blob>;
    set make_set Set BTreeSet<Blob>;
    sorted make_sorted Sorted BTreeMap<Blob, f64>;
    stream make_stream Stream Stream;
}

impl Model {
    /// Does what the command does. Err: how its error begins; it has then changed nothing.
    pub fn run(&mut self, args: &[Vec<u8>]) -> Outcome {
        let (name, rest) = (word(&args[0]), &args[1..]);
        let outcome = match name.as_bytes()[0] {
            b'H' => self.run_hash(name, rest),
            b'L' | b'R' if name != "RENAME" && name != "RENAMENX" => self.run_list(name, rest),
            b'S' if name != "SET" && name != "SETRANGE" => self.run_set(name, rest),
            b'Z' => self.run_sorted(name, rest),
            b'X' => self.run_stream(name, rest),
            _ => self.run_any(name, rest),
        };
        self.keys.retain(|_, value| !value.data.is_empty());
        outcome
    }

    fn run_any(&mut self, name: &str, args: &[Vec<u8>]) -> Outcome {
        match name {
            "FLUSHDB" => self.keys.clear(),
            "DEL" | "UNLINK" => {
                return int(args.iter().filter(|key| self.keys.remove(&key[..]).is_some()).count());
            }
            "RENAME" => {
                let value = self.keys.remove(&args[0][..]).ok_or("ERR no such key")?;
                self.keys.insert(args[1][..].into(), value);
            }
            "RENAMENX" => {
                let value = self.keys.get(&args[0][..]).ok_or("ERR no such key")?.clone();
                if self.keys.contains_key(&args[1][..]) {
                    return int(0);
                }
                self.keys.remove(&args[0][..]);
                self.keys.insert(args[1][..].into(), value);
                return int(1);
            }
            "COPY" => {
                let Some(value) = self.keys.get(&args[0][..]).cloned() else { return int(0) };
                self.keys.insert(args[1][..].into(), value);
                return int(1);
            }
            "PEXPIREAT" => {
                let Some(value) = self.keys.get_mut(&args[0][..]) else { return int(0) };
                value.expire_ms = Some(number(&args[1]));
                return int(1);
            }
            "PERSIST" => {
                let value = self.keys.get_mut(&args[0][..]);
                return int(usize::from(value.is_some_and(|value| value.expire_ms.take().is_some())));
            }
            "SET" => {
                let value = Value {
                    data: Data::Text(args[1][..].into()),
                    expire_ms: args.get(3).map(|end| number(end)),
                };
                self.keys.insert(args[0][..].into(), value);
            }
            "MSET" => {
                for pair in args.chunks(2) {
                    self.keys.insert(pair[0][..].into(), Value::new(Data::Text(pair[1][..].into())));
                }
            }
            "APPEND" => {
                let text = self.make_text(&args[0])?;
                *text = [&text[..], &args[1]].concat().into();
                return int(text.len());
            }
            "SETRANGE" => {
                let text = self.make_text(&args[0])?;
                let (at, mut longer) = (number::<usize>(&args[1]), text.to_vec());
                longer.resize(longer.len().max(at + args[2].len()), 0);
                longer[at..at + args[2].len()].copy_from_slice(&args[2]);
                *text = longer.into();
                return int(text.len());
            }
            "PFADD" => {
                let registers = self.make_registers(&args[0])?;
                let before = registers.clone();
                args[1..].iter().for_each(|element| registers::add(registers, element));
                // One that was just made is a change; here it always comes with elements.
                return int(usize::from(*registers != before));
            }
            "PFMERGE" => {
                let mut all = BTreeMap::new();
                for key in args {
                    for (&at, &value) in self.registers(key)?.iter().flat_map(|registers| registers.iter()) {
                        let register = all.entry(at).or_insert(value);
                        *register = value.max(*register);
                    }
                }
                *self.make_registers(&args[0])? = all;
            }
            other => panic!("{other} is not known here"),
        }
        Ok(Answer::Is(Reply::ok()))
    }

    /// A whole new value, as the STORE commands write it.
    fn store(&mut self, key: &[u8], data: Data, len: usize) -> Outcome {
        self.keys.insert(key.into(), Value::new(data));
        int(len)
    }
}

//! Streams: adding, reading and taking away entries. Groups of consumers are in the files below.
//!
//! Arguments in, a reply out; how a stream is stored is known to `types::stream` alone.

use super::options::int;
use super::{Group, KeyCommand, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::row::StreamId;
use crate::store::tx::{KeyRef, Tx};
use crate::types::stream::{self, Entry, Keep, NODE_ENTRIES, Stream, Trim};
use id::NewId;

pub mod claim;
pub mod group;
mod id;
pub mod info;
pub mod read;
#[cfg(test)]
mod tests;

const ONE_KEY: Spec = Spec { group: Group::Stream, since: "5.0.0", ..super::ONE_KEY };

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "xadd",
            arity: -5,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            complexity: "O(1) for the new entry, O(N) for N entries that are trimmed",
            summary: "Adds an entry to a stream, which may be trimmed at once",
            ..ONE_KEY
        },
        run: xadd,
    },
    KeyCommand {
        spec: Spec {
            name: "xlen",
            arity: 2,
            flags: flag::READONLY | flag::FAST,
            summary: "Number of entries",
            ..ONE_KEY
        },
        run: xlen,
    },
    KeyCommand {
        spec: Spec {
            name: "xrange",
            arity: -4,
            flags: flag::READONLY,
            complexity: "O(N) where N is the number of entries answered",
            summary: "Entries between two ids",
            ..ONE_KEY
        },
        run: |tx, args| xrange(tx, args, false),
    },
    KeyCommand {
        spec: Spec {
            name: "xrevrange",
            arity: -4,
            flags: flag::READONLY,
            complexity: "O(N) where N is the number of entries answered",
            summary: "Entries between two ids, the newest first",
            ..ONE_KEY
        },
        run: |tx, args| xrange(tx, args, true),
    },
    KeyCommand {
        spec: Spec {
            name: "xdel",
            arity: -3,
            flags: flag::WRITE | flag::FAST,
            complexity: "O(N) where N is the number of ids",
            summary: "Takes entries out of a stream",
            ..ONE_KEY
        },
        run: xdel,
    },
    KeyCommand {
        spec: Spec {
            name: "xtrim",
            arity: -4,
            flags: flag::WRITE,
            complexity: "O(N) where N is the number of entries taken away",
            summary: "Takes the oldest entries away",
            ..ONE_KEY
        },
        run: xtrim,
    },
    KeyCommand {
        spec: Spec {
            name: "xsetid",
            arity: -3,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            summary: "Sets the last id of a stream and what is counted of it",
            ..ONE_KEY
        },
        run: xsetid,
    },
];

const TOO_SMALL: ClientError =
    ClientError::fixed("ERR The ID specified in XADD is equal or smaller than the target stream top item");

/// Redis holds an entry within a block of this size.
const ENTRY_MAX_BYTES: usize = 1 << 30;

/// An entry as every command answers it: its id, then fields and values in turn.
fn entry_reply(entry: &Entry) -> Result<Reply, Stop> {
    let texts = entry.texts()?.into_iter().map(Reply::Bulk).collect();
    Ok(Reply::Array(vec![id::reply(entry.id), Reply::Array(texts)]))
}

fn entries_reply(entries: &[Entry]) -> Result<Reply, Stop> {
    Ok(Reply::Array(entries.iter().map(entry_reply).collect::<Result<_, _>>()?))
}

fn no_group(key: &[u8], group: &[u8], where_said: &str) -> ClientError {
    let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(group));
    ClientError::new(format!("NOGROUP No such key '{key}' or consumer group '{group}'{where_said}"))
}

/// A stream and one of its groups; without them an error, which may say where.
fn group_of<'k>(
    tx: &mut Tx<'_>,
    key: KeyRef<'k>,
    name: &[u8],
    where_said: &str,
) -> Result<(Stream<'k>, stream::Group<'k>), Stop> {
    if let Some(stream) = Stream::load(tx, key)?
        && let Some(group) = stream.group(tx, name)?
    {
        return Ok((stream, group));
    }
    Err(no_group(key.name, name, where_said).into())
}

fn no_group_of_key(key: &[u8], group: &[u8]) -> ClientError {
    let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(group));
    ClientError::new(format!("NOGROUP No such consumer group '{group}' for key name '{key}'"))
}

/// What a command with subcommands answers to one that has wrong arguments.
fn wrong_subcommand(command: &str, args: &Args<'_>) -> ClientError {
    let given = String::from_utf8_lossy(args.get(1));
    let why =
        format!("ERR unknown subcommand or wrong number of arguments for '{given}'. Try {command} HELP.");
    ClientError::new(why)
}

/// What stands before XADD's id, and all that XTRIM is told.
struct Options {
    no_make: bool,
    trim: Option<Trim>,
    /// The id, with its place; None where there is none.
    id: Option<(NewId, usize)>,
}

impl Options {
    fn parse(args: &Args<'_>, adds: bool) -> Result<Options, ClientError> {
        let (mut no_make, mut keep, mut roughly, mut limit, mut id) = (false, None, false, None, None);
        let mut at = 2;
        while at < args.len() {
            let left = args.len() - 1 - at;
            let by_length = args.is(at, "maxlen");
            if adds && args.get(at) == b"*" {
                id = Some((NewId::Auto, at));
                break;
            } else if (by_length || args.is(at, "minid")) && left > 0 {
                if keep.is_some() {
                    return Err(ClientError::fixed(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                    ));
                }
                roughly = left > 1 && args.get(at + 1) == b"~";
                let said = roughly || left > 1 && args.get(at + 1) == b"=";
                at += 1 + usize::from(said);
                keep = Some(match by_length {
                    true => Keep::Newest(not_negative(args.get(at), "MAXLEN")?),
                    false => Keep::From(id::id(args.get(at))?),
                });
            } else if args.is(at, "limit") && left > 0 {
                at += 1;
                limit = Some(not_negative(args.get(at), "LIMIT")?);
            } else if adds && args.is(at, "nomkstream") {
                no_make = true;
            } else if adds {
                id = Some((id::new_id(args.get(at))?, at));
                break;
            } else {
                return Err(ClientError::SYNTAX);
            }
            at += 1;
        }
        if keep.is_none() && limit.is_some_and(|limit| limit > 0) {
            return Err(ClientError::fixed(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if keep.is_none() && !adds {
            return Err(ClientError::fixed(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        let most = most(roughly, limit)?;
        let trim = keep.map(|keep| Trim { keep, roughly, most });
        Ok(Options { no_make, trim, id })
    }
}

fn not_negative(arg: &[u8], option: &str) -> Result<u64, ClientError> {
    let why = || ClientError::new(format!("ERR The {option} argument must be >= 0."));
    u64::try_from(int(arg)?).map_err(|_| why())
}

/// How many entries may be trimmed.
fn most(roughly: bool, limit: Option<u64>) -> Result<u64, ClientError> {
    /// Unless it is told.
    const ROUGHLY_MAX: u64 = 100 * NODE_ENTRIES;
    match limit {
        Some(_) if !roughly => {
            Err(ClientError::fixed("ERR syntax error, LIMIT cannot be used without the special ~ option"))
        }
        None if roughly => Ok(ROUGHLY_MAX),
        None | Some(0) => Ok(u64::MAX),
        Some(limit) => Ok(limit),
    }
}

fn xadd(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let options = Options::parse(args, true)?;
    let Some((new_id, at)) = options.id.filter(|(_, at)| args.len() > at + 2 && (args.len() - at) % 2 == 1)
    else {
        return Err(ClientError::wrong_arity("xadd").into());
    };
    if new_id == NewId::Given(StreamId::MIN) {
        return Err(ClientError::fixed("ERR The ID specified in XADD must be greater than 0-0").into());
    }
    let key = tx.key(args.get(1));
    let mut stream = match Stream::load(tx, key)? {
        Some(stream) => stream,
        None if options.no_make => return Ok(Reply::Nil),
        None => Stream::new(tx, key)?,
    };
    let id = next_id(new_id, stream.head.last_id, tx.now_ms())?;
    if args.iter(at + 1).map(<[u8]>::len).sum::<usize>() > ENTRY_MAX_BYTES {
        return Err(ClientError::fixed("ERR Elements are too large to be stored").into());
    }
    stream.append(tx, id, (args.len() - at) as u64 / 2, args.iter(at + 1))?;
    if let Some(trim) = options.trim {
        stream.trim(tx, trim)?;
    }
    stream.save(tx);
    Ok(id::reply(id))
}

/// The id that comes after the last one; where the clock stands still or goes back, ids go on.
fn next_id(new_id: NewId, last_id: StreamId, now_ms: u64) -> Result<StreamId, ClientError> {
    let next = last_id.next().ok_or(ClientError::fixed(
        "ERR The stream has exhausted the last possible ID, unable to add more items",
    ))?;
    match new_id {
        NewId::Auto if now_ms > last_id.ms => Ok(StreamId { ms: now_ms, seq: 0 }),
        NewId::Auto => Ok(next),
        NewId::Next { ms } if ms == last_id.ms && next.ms == ms => Ok(next),
        NewId::Next { ms } if ms > last_id.ms => Ok(StreamId { ms, seq: 0 }),
        NewId::Given(id) if id > last_id => Ok(id),
        NewId::Next { .. } | NewId::Given(_) => Err(TOO_SMALL),
    }
}

fn xlen(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let stream = Stream::load(tx, tx.key(args.get(1)))?;
    Ok(Reply::Int(stream.map_or(0, |stream| stream.len as i64)))
}

fn xrange(tx: &mut Tx<'_>, args: &Args<'_>, backward: bool) -> Result<Reply, Stop> {
    let (from, to) = if backward { (3, 2) } else { (2, 3) };
    let from = id::start(args.get(from))?;
    let to = id::end(args.get(to))?;
    let (mut count, mut at) = (u64::MAX, 4);
    while at < args.len() {
        if !args.is(at, "count") || at + 1 == args.len() {
            return Err(ClientError::SYNTAX.into());
        }
        count = u64::try_from(int(args.get(at + 1))?).unwrap_or(0);
        at += 2;
    }
    match Stream::load(tx, tx.key(args.get(1)))? {
        None => Ok(Reply::Array(Vec::new())),
        Some(_) if count == 0 => Ok(Reply::NilArray),
        Some(stream) => entries_reply(&stream.range(tx, from, to, backward, count)?),
    }
}

fn xdel(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(mut stream) = Stream::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let ids = args.iter(2).map(id::id).collect::<Result<Vec<_>, _>>()?;
    let deleted = stream.delete(tx, &ids)?;
    stream.save(tx);
    Ok(Reply::Int(deleted as i64))
}

fn xtrim(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let trim = Options::parse(args, false)?.trim.expect("XTRIM is refused without");
    let Some(mut stream) = Stream::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let trimmed = stream.trim(tx, trim)?;
    stream.save(tx);
    Ok(Reply::Int(trimmed as i64))
}

fn xsetid(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let last_id = id::id(args.get(2))?;
    let (mut added, mut max_deleted_id, mut at) = (None, StreamId::MIN, 3);
    while at < args.len() {
        let more = at + 1 < args.len();
        if args.is(at, "entriesadded") && more {
            let not_negative = u64::try_from(int(args.get(at + 1))?);
            added = Some(not_negative.map_err(|_| ClientError::fixed("ERR entries_added must be positive"))?);
        } else if args.is(at, "maxdeletedid") && more {
            max_deleted_id = id::id(args.get(at + 1))?;
            if last_id < max_deleted_id {
                return Err(ClientError::fixed(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                )
                .into());
            }
        } else {
            return Err(ClientError::SYNTAX.into());
        }
        at += 2;
    }
    let mut stream = Stream::load(tx, tx.key(args.get(1)))?.ok_or(ClientError::NO_SUCH_KEY)?;
    if stream.edge(tx, true)?.is_some_and(|last| last_id < last.id) {
        let why = "ERR The ID specified in XSETID is smaller than the target stream top item";
        return Err(ClientError::fixed(why).into());
    }
    if stream.len > 0 && added.is_some_and(|added| stream.len > added) {
        let why = "ERR The entries_added specified in XSETID is smaller than the target stream length";
        return Err(ClientError::fixed(why).into());
    }
    stream.head.last_id = last_id;
    stream.head.entries_added = added.unwrap_or(stream.head.entries_added);
    if max_deleted_id != StreamId::MIN {
        stream.head.max_deleted_id = max_deleted_id;
    }
    stream.save(tx);
    Ok(Reply::Ok)
}

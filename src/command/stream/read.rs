//! XREAD and XREADGROUP: what is new in several streams, for anyone or for a consumer of a group.
//!
//! Serves what is there, or says what it would wait for.

use super::{ONE_KEY, entries_reply, entry_reply, group_of, id};
use crate::command::options::int;
use crate::command::{KeyArg, KeyArgs, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::{Blocked, Reply};
use crate::store::row::StreamId;
use crate::store::tx::Tx;
use crate::types::stream::{Group, PendingRange, Stream};
use bytes::Bytes;

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "xread",
            arity: -4,
            flags: flag::READONLY | flag::BLOCKING | flag::ANY_VALUES,
            keys: Keys::Find(keys),
            complexity: "O(N) for each stream, where N is the number of its entries answered",
            summary: "Entries of several streams behind given ids",
            ..ONE_KEY
        },
        run: xread,
    },
    KeyCommand {
        spec: Spec {
            name: "xreadgroup",
            arity: -7,
            flags: flag::WRITE | flag::BLOCKING | flag::ANY_VALUES,
            keys: Keys::Find(keys),
            complexity: "O(N) for each stream, where N is the number of its entries answered",
            summary: "Entries of several streams that a group gives to one of its consumers",
            ..ONE_KEY
        },
        run: xreadgroup,
    },
];

/// What stands before the streams, and where they stand.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadOptions<'a> {
    /// How long to wait where there is nothing; 0 for ever, None not at all.
    pub block_ms: Option<u64>,
    /// Of each stream at most, if it is told.
    pub count: Option<u64>,
    pub group: Option<(&'a [u8], &'a [u8])>,
    pub no_ack: bool,
    /// Place of the first key among the arguments.
    pub first: usize,
    /// How many streams there are; their ids follow all the keys.
    pub streams: usize,
}

impl<'a> ReadOptions<'a> {
    pub fn parse(args: &Args<'a>) -> Result<ReadOptions<'a>, ClientError> {
        let grouped = args.is(0, "xreadgroup");
        let mut options =
            ReadOptions { block_ms: None, count: None, group: None, no_ack: false, first: 0, streams: 0 };
        let mut at = 1;
        while at < args.len() && options.first == 0 {
            let left = args.len() - 1 - at;
            if args.is(at, "block") && left > 0 {
                at += 1;
                options.block_ms = Some(timeout_ms(args.get(at))?);
            } else if args.is(at, "count") && left > 0 {
                at += 1;
                options.count = u64::try_from(int(args.get(at))?).ok().filter(|count| *count > 0);
            } else if args.is(at, "streams") && left > 0 {
                if !left.is_multiple_of(2) {
                    return Err(ClientError::fixed(
                        "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
                    ));
                }
                (options.first, options.streams) = (at + 1, left / 2);
            } else if args.is(at, "group") && left > 1 {
                only_grouped(grouped, "GROUP")?;
                options.group = Some((args.get(at + 1), args.get(at + 2)));
                at += 2;
            } else if args.is(at, "noack") {
                only_grouped(grouped, "NOACK")?;
                options.no_ack = true;
            } else {
                return Err(ClientError::SYNTAX);
            }
            at += 1;
        }
        if options.first == 0 {
            return Err(ClientError::SYNTAX);
        }
        if grouped && options.group.is_none() {
            return Err(ClientError::fixed("ERR Missing GROUP option for XREADGROUP"));
        }
        if let Some((group, consumer)) = options.group {
            id::name(group)?;
            id::name(consumer)?;
        }
        Ok(options)
    }

    /// The reply where there is nothing.
    fn nothing(&self, rewritten: Vec<(usize, Bytes)>) -> Reply {
        let Some(timeout_ms) = self.block_ms else { return Reply::NilArray };
        let keys = (self.first..self.first + self.streams).collect();
        Reply::Blocked(Box::new(Blocked { timeout_ms, otherwise: Reply::NilArray, keys, rewritten }))
    }

    /// Keys, each with its id as it is written.
    fn streams(&self, args: &Args<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let (args, streams) = (*args, self.streams);
        (self.first..self.first + streams).map(move |at| (args.get(at), args.get(at + streams)))
    }
}

fn only_grouped(grouped: bool, option: &str) -> Result<(), ClientError> {
    let why =
        || format!("ERR The {option} option is only supported by XREADGROUP. You called XREAD instead.");
    if grouped { Ok(()) } else { Err(ClientError::new(why())) }
}

fn timeout_ms(arg: &[u8]) -> Result<u64, ClientError> {
    let ms = int(arg).map_err(|_| ClientError::fixed("ERR timeout is not an integer or out of range"))?;
    u64::try_from(ms).map_err(|_| ClientError::fixed("ERR timeout is negative"))
}

fn keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let options = ReadOptions::parse(args)?;
    let places = options.first..options.first + options.streams;
    Ok(places.map(|arg| KeyArg { arg, table: None }).collect())
}

fn xread(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let options = ReadOptions::parse(args)?;
    let mut wanted = Vec::with_capacity(options.streams);
    let mut fixed = Vec::new();
    for (place, (name, arg)) in options.streams(args).enumerate() {
        let stream = Stream::load(tx, tx.key(name))?;
        let after = read_after(tx, stream.as_ref(), arg)?;
        if arg == b"$" {
            // What came last now, whatever has come when it runs again.
            let text = Bytes::from(format!("{}-{}", after.ms, after.seq));
            fixed.push((options.first + options.streams + place, text));
        }
        wanted.push((name, stream, after));
    }
    let mut served = Vec::new();
    for (name, stream, after) in wanted {
        let (Some(stream), Some(from)) = (stream, after.next()) else { continue };
        let entries = stream.range(tx, from, StreamId::MAX, false, options.count.unwrap_or(u64::MAX))?;
        if !entries.is_empty() {
            served.push((Reply::Bulk(name.to_vec().into()), entries_reply(&entries)?));
        }
    }
    Ok(if served.is_empty() { options.nothing(fixed) } else { Reply::Keyed(served) })
}

/// The id that XREAD reads behind.
fn read_after(tx: &mut Tx<'_>, stream: Option<&Stream<'_>>, arg: &[u8]) -> Result<StreamId, Stop> {
    match arg {
        b"$" => Ok(stream.map_or(StreamId::MIN, |stream| stream.head.last_id)),
        // From Redis 7.4 on: the last entry itself.
        b"+" => {
            let last = stream.map(|stream| stream.edge(tx, true)).transpose()?.flatten();
            Ok(last.and_then(|last| last.id.previous()).unwrap_or(StreamId::MIN))
        }
        b">" => Err(ClientError::fixed(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )
        .into()),
        arg => Ok(id::id(arg)?),
    }
}

/// What XREADGROUP wants of a stream.
#[derive(Clone, Copy)]
enum Want {
    /// What nobody of the group has got.
    New,
    /// What this consumer has got behind an id, and not acknowledged.
    History(StreamId),
}

impl Want {
    fn parse(arg: &[u8]) -> Result<Want, ClientError> {
        if arg == b"$" {
            return Err(ClientError::fixed(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of \
                 this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would \
                 just return an empty result set.",
            ));
        }
        if arg == b">" {
            return Ok(Want::New);
        }
        // Redis writes `>` as the greatest id, and so takes that one for it.
        Ok(match id::id(arg)? {
            StreamId::MAX => Want::New,
            after => Want::History(after),
        })
    }
}

fn xreadgroup(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    const WHERE: &str = " in XREADGROUP with GROUP option";
    let options = ReadOptions::parse(args)?;
    let (group, consumer) = options.group.expect("XREADGROUP is refused without");
    let mut wanted = Vec::with_capacity(options.streams);
    for (name, arg) in options.streams(args) {
        let opened = group_of(tx, tx.key(name), group, WHERE)?;
        wanted.push((name, opened, Want::parse(arg)?));
    }
    let several = wanted.len() > 1;
    let mut served = Vec::new();
    for (name, opened, want) in wanted {
        // A stream may be named twice, and what is served first changes what comes next.
        let (stream, group) = if several { group_of(tx, tx.key(name), group, WHERE)? } else { opened };
        let reply = match want {
            Want::New => new_entries(tx, &options, &stream, group, consumer)?,
            Want::History(after) => Some(history(tx, &options, &stream, group, consumer, after)?),
        };
        served.extend(reply.map(|reply| (Reply::Bulk(name.to_vec().into()), reply)));
    }
    Ok(if served.is_empty() { options.nothing(Vec::new()) } else { Reply::Keyed(served) })
}

/// None if there is nothing: then nothing changes either.
fn new_entries(
    tx: &mut Tx<'_>,
    options: &ReadOptions<'_>,
    stream: &Stream<'_>,
    mut group: Group<'_>,
    consumer: &[u8],
) -> Result<Option<Reply>, Stop> {
    let Some(from) = group.head.last_id.next() else { return Ok(None) };
    let entries = stream.range(tx, from, StreamId::MAX, false, options.count.unwrap_or(u64::MAX))?;
    if entries.is_empty() {
        return Ok(None);
    }
    group.open_consumer(tx, consumer, !options.no_ack)?;
    entries.iter().for_each(|entry| stream.advance(&mut group.head, entry.id));
    if !options.no_ack {
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        group.deliver(tx, &ids, consumer)?;
    }
    group.save(tx);
    entries_reply(&entries).map(Some)
}

fn history(
    tx: &mut Tx<'_>,
    options: &ReadOptions<'_>,
    stream: &Stream<'_>,
    mut group: Group<'_>,
    consumer: &[u8],
    after: StreamId,
) -> Result<Reply, Stop> {
    let from = after.next().expect("the greatest id stands for new entries");
    let count = options.count.unwrap_or(u64::MAX);
    let range = PendingRange { consumer: Some(consumer), from, count, ..PendingRange::ALL };
    let held = group.pending(tx, range)?;
    let mut replies = Vec::with_capacity(held.len());
    for (id, mut pending) in held {
        let Some(entry) = stream.get(tx, id)? else {
            replies.push(Reply::Array(vec![id::reply(id), Reply::NilArray]));
            continue;
        };
        let before = pending.clone();
        pending.delivered_ms = tx.now_ms();
        pending.deliveries += 1;
        group.assign(tx, id, Some(&before), &pending)?;
        replies.push(entry_reply(&entry)?);
    }
    group.open_consumer(tx, consumer, false)?;
    group.save(tx);
    Ok(Reply::Array(replies))
}

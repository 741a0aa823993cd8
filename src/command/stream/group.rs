//! Groups of consumers: making and unmaking them, acknowledging, and what is pending.

use super::{ONE_KEY, id, no_group, no_group_of_key, wrong_subcommand};
use crate::command::options::int;
use crate::command::{KeyArg, KeyArgs, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number::format_i64;
use crate::resp::reply::Reply;
use crate::store::row::StreamId;
use crate::store::tx::Tx;
use crate::types::stream::{Group, PendingRange, Stream};

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "xgroup",
            arity: -2,
            flags: flag::WRITE,
            keys: Keys::Find(keys),
            complexity: "O(1), and O(N) to remove a group or a consumer with N pending entries",
            summary: "Groups of consumers of a stream",
            subcommands: &[
                Spec {
                    flags: flag::WRITE | flag::DENYOOM,
                    ..subcommand("create", -5, "5.0.0", "O(1)", "Makes a group")
                },
                Spec {
                    flags: flag::WRITE | flag::DENYOOM,
                    ..subcommand("createconsumer", 5, "6.2.0", "O(1)", "Makes a consumer of a group")
                },
                subcommand(
                    "delconsumer",
                    5,
                    "5.0.0",
                    "O(N) where N is the number of its pending entries",
                    "Removes a consumer with what is pending for it",
                ),
                subcommand(
                    "destroy",
                    4,
                    "5.0.0",
                    "O(N) where N is the number of its pending entries",
                    "Removes a group",
                ),
                Spec {
                    flags: flag::LOADING | flag::STALE,
                    keys: Keys::None,
                    ..subcommand("help", 2, "5.0.0", "O(1)", "Lists the subcommands")
                },
                subcommand("setid", -5, "5.0.0", "O(1)", "Sets what a group has got last"),
            ],
            ..ONE_KEY
        },
        run: xgroup,
    },
    KeyCommand {
        spec: Spec {
            name: "xack",
            arity: -4,
            flags: flag::WRITE | flag::FAST,
            complexity: "O(N) where N is the number of ids",
            summary: "Acknowledges entries, which are pending no more",
            ..ONE_KEY
        },
        run: xack,
    },
    KeyCommand {
        spec: Spec {
            name: "xpending",
            arity: -3,
            flags: flag::READONLY,
            complexity: "O(N) where N is the number of entries looked at, or of consumers for the summary",
            summary: "Entries that wait to be acknowledged",
            ..ONE_KEY
        },
        run: xpending,
    },
];

const fn subcommand(
    name: &'static str,
    arity: i32,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Spec {
    let keys = Keys::Span { first: 2, last: 2, step: 1 };
    Spec { name, arity, flags: flag::WRITE, keys, since, complexity, summary, ..ONE_KEY }
}

const HELP: &[&str] = &[
    "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CREATE <key> <group> <id|$> [MKSTREAM] [ENTRIESREAD <count>]",
    "    Makes a group that gets what comes behind the id; MKSTREAM makes the stream too.",
    "CREATECONSUMER <key> <group> <consumer>",
    "    Makes a consumer of the group.",
    "DELCONSUMER <key> <group> <consumer>",
    "    Removes a consumer with what is pending for it.",
    "DESTROY <key> <group>",
    "    Removes the group.",
    "SETID <key> <group> <id|$> [ENTRIESREAD <count>]",
    "    Sets the last id that the group has got.",
    "HELP",
    "    Prints this help.",
];

/// HELP has no key, whatever follows it.
pub(super) fn keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let key = (args.len() > 2 && !args.is(1, "help")).then_some(KeyArg { arg: 2, table: None });
    Ok(key.into_iter().collect())
}

/// What follows the group's id in CREATE and SETID.
struct GroupOptions {
    make_stream: bool,
    entries_read: Option<u64>,
}

impl GroupOptions {
    fn parse(args: &Args<'_>) -> Result<GroupOptions, ClientError> {
        let (creates, sets) = (args.is(1, "create"), args.is(1, "setid"));
        let mut options = GroupOptions { make_stream: false, entries_read: None };
        let mut at = 5;
        while at < args.len() {
            if creates && args.is(at, "mkstream") {
                options.make_stream = true;
                at += 1;
            } else if (creates || sets) && args.is(at, "entriesread") && at + 1 < args.len() {
                options.entries_read = match int(args.get(at + 1))? {
                    -1 => None,
                    read => Some(u64::try_from(read).map_err(|_| {
                        ClientError::fixed("ERR value for ENTRIESREAD must be positive or -1")
                    })?),
                };
                at += 2;
            } else {
                return Err(wrong_subcommand("XGROUP", args));
            }
        }
        Ok(options)
    }
}

fn xgroup(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    if args.len() == 2 && args.is(1, "help") {
        return Ok(Reply::Array(HELP.iter().map(|line| Reply::Simple(line)).collect()));
    }
    if args.len() < 4 {
        return Err(wrong_subcommand("XGROUP", args).into());
    }
    let options = GroupOptions::parse(args)?;
    let key = tx.key(args.get(2));
    let stream = Stream::load(tx, key)?;
    if args.is(1, "create") && (5..=8).contains(&args.len()) {
        return create(tx, args, stream, &options);
    }
    let Some(mut stream) = stream else { return Err(NO_STREAM.into()) };
    let name = id::name(args.get(3))?;
    let group = stream.group(tx, name)?;
    if args.is(1, "destroy") && args.len() == 4 {
        let Some(group) = group else { return Ok(Reply::Int(0)) };
        stream.delete_group(tx, group)?;
        stream.save(tx);
        return Ok(Reply::Int(1));
    }
    let Some(mut group) = group else { return Err(no_group_of_key(key.name, name).into()) };
    let reply = if args.is(1, "setid") && matches!(args.len(), 5 | 7) {
        group.head.last_id = match args.get(4) {
            b"$" => stream.head.last_id,
            arg => id::id_or_end(arg, 0)?,
        };
        group.head.entries_read = options.entries_read;
        Reply::Ok
    } else if args.is(1, "createconsumer") && args.len() == 5 {
        create_consumer(tx, &mut group, id::name(args.get(4))?)?
    } else if args.is(1, "delconsumer") && args.len() == 5 {
        let pending = group.delete_consumer(tx, id::name(args.get(4))?)?;
        Reply::Int(pending.unwrap_or(0) as i64)
    } else {
        return Err(wrong_subcommand("XGROUP", args).into());
    };
    group.save(tx);
    Ok(reply)
}

const NO_STREAM: ClientError = ClientError::fixed(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
     option to create an empty stream automatically.",
);

fn create(
    tx: &mut Tx<'_>,
    args: &Args<'_>,
    stream: Option<Stream<'_>>,
    options: &GroupOptions,
) -> Result<Reply, Stop> {
    if stream.is_none() && !options.make_stream {
        return Err(NO_STREAM.into());
    }
    let last_id = match args.get(4) {
        b"$" => stream.as_ref().map_or(StreamId::MIN, |stream| stream.head.last_id),
        arg => id::id(arg)?,
    };
    let mut stream = match stream {
        Some(stream) => stream,
        None => Stream::new(tx, tx.key(args.get(2)))?,
    };
    let name = id::name(args.get(3))?;
    if stream.group(tx, name)?.is_some() {
        return Err(ClientError::fixed("BUSYGROUP Consumer Group name already exists").into());
    }
    stream.create_group(name, last_id, options.entries_read).save(tx);
    stream.save(tx);
    Ok(Reply::Ok)
}

/// One that is there already is left as it is: it has not asked for anything.
fn create_consumer(tx: &mut Tx<'_>, group: &mut Group<'_>, name: &[u8]) -> Result<Reply, Stop> {
    if group.consumer(tx, name)?.is_some() {
        return Ok(Reply::Int(0));
    }
    group.open_consumer(tx, name, false)?;
    Ok(Reply::Int(1))
}

fn xack(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(stream) = Stream::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let Some(mut group) = stream.group(tx, id::name(args.get(2))?)? else { return Ok(Reply::Int(0)) };
    let ids = args.iter(3).map(id::id).collect::<Result<Vec<_>, _>>()?;
    let mut acknowledged = 0;
    for id in ids {
        if let Some(pending) = group.pending_at(tx, id)? {
            group.release(tx, id, &pending)?;
            acknowledged += 1;
        }
    }
    group.save(tx);
    Ok(Reply::Int(acknowledged))
}

fn xpending(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let range = match args.len() {
        3 => None,
        6..=9 => Some(pending_range(args, tx.now_ms())?),
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let (key, name) = (tx.key(args.get(1)), id::name(args.get(2))?);
    let stream = Stream::load(tx, key)?;
    let group = stream.map(|stream| stream.group(tx, name)).transpose()?.flatten();
    let mut group = group.ok_or_else(|| no_group(key.name, name, ""))?;
    let Some(range) = range else { return summary(tx, &group) };
    if let Some(consumer) = range.consumer
        && group.consumer(tx, id::name(consumer)?)?.is_none()
    {
        return Ok(Reply::Array(Vec::new()));
    }
    let now_ms = tx.now_ms();
    let told = group.pending(tx, range)?.into_iter().map(|(id, pending)| {
        Reply::Array(vec![
            id::reply(id),
            Reply::Bulk(pending.consumer),
            Reply::Int(now_ms.saturating_sub(pending.delivered_ms) as i64),
            Reply::Int(pending.deliveries as i64),
        ])
    });
    Ok(Reply::Array(told.collect()))
}

fn pending_range<'a>(args: &Args<'a>, now_ms: u64) -> Result<PendingRange<'a>, ClientError> {
    let (mut at, mut delivered_until_ms) = (3, u64::MAX);
    if args.is(3, "idle") {
        delivered_until_ms = idle_since(int(args.get(4))?, now_ms);
        if args.len() < 8 {
            return Err(ClientError::SYNTAX);
        }
        at = 5;
    }
    let count = u64::try_from(int(args.get(at + 2))?).unwrap_or(0);
    let from = id::start(args.get(at))?;
    let to = id::end(args.get(at + 1))?;
    let consumer = (at + 3 < args.len()).then(|| args.get(at + 3));
    Ok(PendingRange { consumer, from, to, delivered_until_ms, count })
}

/// What was delivered until then is idle for so long.
pub(super) fn idle_since(idle_ms: i64, now_ms: u64) -> u64 {
    match u64::try_from(idle_ms) {
        Ok(1..) => now_ms.saturating_sub(idle_ms.unsigned_abs()),
        _ => u64::MAX,
    }
}

/// Number of pending entries, the first and the last id, and how many each consumer has.
fn summary(tx: &mut Tx<'_>, group: &Group<'_>) -> Result<Reply, Stop> {
    let count = Reply::Int(group.head.pending as i64);
    let Some((first, last)) = group.pending_edges(tx)? else {
        return Ok(Reply::Array(vec![count, Reply::Nil, Reply::Nil, Reply::NilArray]));
    };
    let mut consumers = Vec::new();
    for (name, consumer) in group.consumers(tx)? {
        if consumer.pending > 0 {
            let pending = Reply::Bulk(format_i64(consumer.pending as i64));
            consumers.push(Reply::Array(vec![Reply::Bulk(name), pending]));
        }
    }
    Ok(Reply::Array(vec![count, id::reply(first), id::reply(last), Reply::Array(consumers)]))
}

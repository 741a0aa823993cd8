//! XINFO: what is known of a stream, its groups and their consumers.

use super::{ONE_KEY, entries_reply, entry_reply, id, no_group_of_key, wrong_subcommand};
use crate::command::options::int;
use crate::command::{KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::row::StreamId;
use crate::store::tx::Tx;
use crate::types::stream::{Consumer, Group, NODE_ENTRIES, PendingRange, Stream};
use bytes::Bytes;

pub const COMMANDS: &[KeyCommand] = &[KeyCommand {
    spec: Spec {
        name: "xinfo",
        arity: -2,
        flags: flag::READONLY,
        keys: Keys::Find(super::group::keys),
        complexity: "O(N) where N is the number of groups, consumers or entries that are told of",
        summary: "What is known of a stream",
        subcommands: &[
            subcommand("consumers", 4, "Consumers of a group"),
            subcommand("groups", 3, "Groups of a stream"),
            Spec {
                flags: flag::LOADING | flag::STALE,
                keys: Keys::None,
                complexity: "O(1)",
                ..subcommand("help", 2, "Lists the subcommands")
            },
            subcommand("stream", -3, "A stream, in short or in full"),
        ],
        ..ONE_KEY
    },
    run: xinfo,
}];

const fn subcommand(name: &'static str, arity: i32, summary: &'static str) -> Spec {
    Spec {
        name,
        arity,
        flags: flag::READONLY,
        keys: Keys::Span { first: 2, last: 2, step: 1 },
        complexity: "O(N) where N is the number of what is told of",
        summary,
        ..ONE_KEY
    }
}

const HELP: &[&str] = &[
    "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CONSUMERS <key> <group>",
    "    Consumers of the group: what is pending for each, and for how long each was not seen.",
    "GROUPS <key>",
    "    Groups of the stream: their consumers, what is pending, and how far they are.",
    "STREAM <key> [FULL [COUNT <count>]]",
    "    Figures of the stream with its first and last entry; in full with entries and groups.",
    "HELP",
    "    Prints this help.",
];

fn xinfo(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    if args.len() == 2 && args.is(1, "help") {
        return Ok(Reply::Array(HELP.iter().map(|line| Reply::Simple(line)).collect()));
    }
    if args.len() < 3 || args.is(1, "help") {
        return Err(wrong_subcommand("XINFO", args).into());
    }
    let stream = Stream::load(tx, tx.key(args.get(2)))?.ok_or(ClientError::NO_SUCH_KEY)?;
    if args.is(1, "consumers") && args.len() == 4 {
        let name = id::name(args.get(3))?;
        let group = stream.group(tx, name)?.ok_or_else(|| no_group_of_key(args.get(2), name))?;
        consumers(tx, &group)
    } else if args.is(1, "groups") && args.len() == 3 {
        let groups = stream.groups(tx)?;
        Ok(Reply::Array(groups.iter().map(|group| group_told(&stream, group)).collect()))
    } else if args.is(1, "stream") {
        match full_count(args)? {
            None => short(tx, &stream),
            Some(count) => full(tx, &stream, count),
        }
    } else {
        Err(wrong_subcommand("XINFO", args).into())
    }
}

/// How many entries XINFO STREAM FULL tells; None for its short form.
fn full_count(args: &Args<'_>) -> Result<Option<u64>, ClientError> {
    const FEW: u64 = 10;
    match args.len() {
        3 => Ok(None),
        4 if args.is(3, "full") => Ok(Some(FEW)),
        6 if args.is(3, "full") && args.is(4, "count") => Ok(Some(match int(args.get(5))? {
            0 => u64::MAX,
            count => u64::try_from(count).unwrap_or(FEW),
        })),
        _ => Err(wrong_subcommand("XINFO", args)),
    }
}

type Fact = (Reply, Reply);

fn fact(name: &str, value: Reply) -> Fact {
    (Reply::text(name), value)
}

fn number(number: u64) -> Reply {
    Reply::Int(number as i64)
}

fn consumers(tx: &mut Tx<'_>, group: &Group<'_>) -> Result<Reply, Stop> {
    let now_ms = tx.now_ms();
    let told = group.consumers(tx)?.into_iter().map(|(name, consumer)| {
        Reply::Map(vec![
            fact("name", Reply::Bulk(name)),
            fact("pending", number(consumer.pending)),
            fact("idle", number(now_ms.saturating_sub(consumer.seen_ms))),
        ])
    });
    Ok(Reply::Array(told.collect()))
}

fn group_told(stream: &Stream<'_>, group: &Group<'_>) -> Reply {
    let mut facts = vec![
        fact("name", Reply::Bulk(group.name.clone())),
        fact("consumers", number(group.head.consumers)),
        fact("pending", number(group.head.pending)),
    ];
    facts.extend(progress(stream, group));
    Reply::Map(facts)
}

fn progress(stream: &Stream<'_>, group: &Group<'_>) -> [Fact; 3] {
    [
        fact("last-delivered-id", id::reply(group.head.last_id)),
        fact("entries-read", group.head.entries_read.map_or(Reply::Nil, number)),
        fact("lag", stream.lag(&group.head).map_or(Reply::Nil, Reply::Int)),
    ]
}

/// What both forms begin with. There is no tree here: told is what Redis's would be, about.
fn figures(stream: &Stream<'_>) -> Vec<Fact> {
    let nodes = stream.len.div_ceil(NODE_ENTRIES);
    vec![
        fact("length", number(stream.len)),
        fact("radix-tree-keys", number(nodes)),
        fact("radix-tree-nodes", number(nodes + 1)),
        fact("last-generated-id", id::reply(stream.head.last_id)),
        fact("max-deleted-entry-id", id::reply(stream.head.max_deleted_id)),
        fact("entries-added", number(stream.head.entries_added)),
        fact("recorded-first-entry-id", id::reply(stream.head.first_id)),
    ]
}

fn short(tx: &mut Tx<'_>, stream: &Stream<'_>) -> Result<Reply, Stop> {
    let mut facts = figures(stream);
    facts.push(fact("groups", number(stream.head.groups)));
    for (name, last) in [("first-entry", false), ("last-entry", true)] {
        let entry = stream.edge(tx, last)?;
        facts.push(fact(name, entry.as_ref().map_or(Ok(Reply::Nil), entry_reply)?));
    }
    Ok(Reply::Map(facts))
}

fn full(tx: &mut Tx<'_>, stream: &Stream<'_>, count: u64) -> Result<Reply, Stop> {
    let mut facts = figures(stream);
    let entries = stream.range(tx, StreamId::MIN, StreamId::MAX, false, count)?;
    facts.push(fact("entries", entries_reply(&entries)?));
    let mut groups = Vec::new();
    for group in stream.groups(tx)? {
        groups.push(full_group(tx, stream, &group, count)?);
    }
    facts.push(fact("groups", Reply::Array(groups)));
    Ok(Reply::Map(facts))
}

fn full_group(tx: &mut Tx<'_>, stream: &Stream<'_>, group: &Group<'_>, count: u64) -> Result<Reply, Stop> {
    let mut facts = vec![fact("name", Reply::Bulk(group.name.clone()))];
    facts.extend(progress(stream, group));
    facts.push(fact("pel-count", number(group.head.pending)));
    let pending = group.pending(tx, PendingRange { count, ..PendingRange::ALL })?.into_iter();
    let told = pending.map(|(id, pending)| {
        let consumer = Reply::Bulk(pending.consumer);
        Reply::Array(vec![id::reply(id), consumer, number(pending.delivered_ms), number(pending.deliveries)])
    });
    facts.push(fact("pending", Reply::Array(told.collect())));
    let mut consumers = Vec::new();
    for (name, consumer) in group.consumers(tx)? {
        consumers.push(full_consumer(tx, group, name, consumer, count)?);
    }
    facts.push(fact("consumers", Reply::Array(consumers)));
    Ok(Reply::Map(facts))
}

fn full_consumer(
    tx: &mut Tx<'_>,
    group: &Group<'_>,
    name: Bytes,
    consumer: Consumer,
    count: u64,
) -> Result<Reply, Stop> {
    let range = PendingRange { consumer: Some(&name), count, ..PendingRange::ALL };
    let pending = group.pending(tx, range)?.into_iter().map(|(id, pending)| {
        Reply::Array(vec![id::reply(id), number(pending.delivered_ms), number(pending.deliveries)])
    });
    let pending = Reply::Array(pending.collect());
    Ok(Reply::Map(vec![
        fact("name", Reply::Bulk(name.clone())),
        fact("seen-time", number(consumer.seen_ms)),
        fact("pel-count", number(consumer.pending)),
        fact("pending", pending),
    ]))
}

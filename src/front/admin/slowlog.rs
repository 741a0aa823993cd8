//! SLOWLOG: which commands took long, and where.

use super::{Sub, all_told, done, help, ok_or_error, run_subcommand, spec};
use crate::command::Group::Server;
use crate::command::Spec;
use crate::command::flag::{ADMIN, LOADING, STALE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::metrics::commands::CommandStats;
use crate::metrics::slow::SlowEntry;
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, Tell};

const FLAGS: u32 = ADMIN | LOADING | STALE;
const PER_ENTRY: &str = "O(N) where N is the number of entries";

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            spec(Server, "get", -2, FLAGS, "2.2.12", PER_ENTRY, "Answers the slow log's entries"),
            spec(Server, "len", 2, FLAGS, "2.2.12", "O(cores)", "Answers how many entries there are"),
            spec(Server, "reset", 2, FLAGS, "2.2.12", PER_ENTRY, "Empties the slow log"),
            spec(Server, "stages", -2, FLAGS, "7.2.0", PER_ENTRY, "Answers where slow commands were slow"),
            spec(Server, "help", 2, LOADING | STALE, "6.2.0", "O(1)", "Prints this help"),
        ],
        ..spec(Server, "slowlog", -2, 0, "2.2.12", "Depends on subcommand.", "Commands about the slow log")
    },
    run: |ctx, args| run_subcommand(SUBS, ctx, args),
}];

pub(super) const SUBS: &[Sub] = &[
    ("get", get),
    ("len", len),
    ("reset", |_, _| Ok(Answer::AskAll(Ask::ResetSlow, Box::new(|_, tells| done(tells))))),
    ("stages", stages),
    ("help", |_, _| Ok(help("SLOWLOG", COMMANDS[0].spec.subcommands))),
];

/// As in Redis, when no count is given.
const ENTRIES_DEFAULT: usize = 10;

fn get(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    entries(ctx, args, |entry| {
        let words = entry.words.iter().map(|word| Reply::bulk(word.to_vec())).collect();
        Reply::Array(vec![
            Reply::Int(entry.id as i64),
            Reply::Int(entry.at_s as i64),
            Reply::Int(entry.micros as i64),
            Reply::Array(words),
            Reply::bulk(entry.addr.clone()),
            Reply::Bulk(entry.name.clone()),
        ])
    })
}

/// In a command of its own: clients take an entry of SLOWLOG GET apart and know six parts.
fn stages(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    entries(ctx, args, |entry| {
        let (id, micros) = (Reply::Int(entry.id as i64), Reply::Int(entry.micros as i64));
        Reply::Array(vec![id, micros, Reply::bulk(entry.stage.name())])
    })
}

fn entries(ctx: &mut Ctx<'_>, args: &Args<'_>, show: fn(&SlowEntry) -> Reply) -> Result<Answer, ClientError> {
    let mut count = ENTRIES_DEFAULT;
    if args.len() > 3 {
        return Err(ClientError::fixed("ERR syntax error"));
    }
    if args.len() == 3 {
        let wanted = number::parse_i64(args.get(2)).filter(|count| *count >= -1);
        let wrong = ClientError::fixed("ERR count should be greater than or equal to -1");
        // -1: all.
        count = usize::try_from(wanted.ok_or(wrong)?).unwrap_or(usize::MAX);
    }
    let count = count.min(ctx.node.config.slowlog_max_len as usize);
    let fold = move |_: &mut Ctx<'_>, tells| {
        ok_or_error(newest(tells, count).map(|entries| Reply::Array(entries.iter().map(show).collect())))
    };
    Ok(Answer::AskAll(Ask::Slow { count }, Box::new(fold)))
}

fn len(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let count = ctx.node.config.slowlog_max_len as usize;
    let fold = move |_: &mut Ctx<'_>, tells| {
        ok_or_error(newest(tells, count).map(|entries| Reply::Int(entries.len() as i64)))
    };
    Ok(Answer::AskAll(Ask::Slow { count }, Box::new(fold)))
}

/// The newest entries of all cores together.
fn newest(tells: Vec<Tell>, count: usize) -> Result<Vec<SlowEntry>, ClientError> {
    let slow = |tell| if let Tell::Slow(entries) = tell { Some(entries) } else { None };
    let mut entries: Vec<SlowEntry> = all_told(tells, slow)?.into_iter().flatten().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.id));
    entries.truncate(count);
    Ok(entries)
}

/// The cores' figures about commands, added up.
pub(super) fn command_stats(tells: Vec<Tell>) -> Result<CommandStats, ClientError> {
    let commands = |tell| if let Tell::Report(report) = tell { Some(report.commands) } else { None };
    let mut sum = CommandStats::default();
    all_told(tells, commands)?.iter().for_each(|core| sum.add(core));
    Ok(sum)
}

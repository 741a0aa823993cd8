//! MEMORY, but for MEMORY USAGE, which is about a key (`command/memory.rs`): where the memory is.

use super::info::stats;
use super::{Sub, all_told, help, ok_or_error, process, run_subcommand, spec};
use crate::command::Group::Server;
use crate::command::flag::{LOADING, NOSCRIPT, STALE};
use crate::command::{Spec, memory::USAGE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, Fold, FrontCommand};
use crate::limits::Ledger;
use crate::metrics::CoreStats;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, Tell};
use std::fmt::Write;

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            spec(Server, "doctor", 2, NOSCRIPT, "4.0.0", "O(cores)", "Says in words what memory is short"),
            spec(Server, "help", 2, LOADING | STALE, "4.0.0", "O(1)", "Prints this help"),
            spec(Server, "stats", 2, NOSCRIPT, "4.0.0", "O(cores)", "Answers where the memory is"),
            USAGE,
        ],
        ..spec(Server, "memory", -2, 0, "4.0.0", "Depends on subcommand.", "Commands about memory")
    },
    run: |ctx, args| run_subcommand(SUBS, ctx, args),
}];

pub(super) const SUBS: &[Sub] = &[
    ("doctor", |_, _| Ok(ask(doctor))),
    ("help", |_, _| Ok(help("MEMORY", COMMANDS[0].spec.subcommands))),
    ("stats", |_, _| Ok(ask(figures))),
    ("usage", |_: &mut Ctx<'_>, _: &Args<'_>| Err(ClientError::SYNTAX)),
];

fn ask(show: fn(&Ctx<'_>, &CoreStats) -> Reply) -> Answer {
    let fold = move |ctx: &mut Ctx<'_>, tells: Vec<Tell>| {
        let cores = all_told(tells, stats);
        ok_or_error(cores.map(|cores| {
            let mut total = CoreStats::default();
            cores.iter().for_each(|core| total.add(core));
            show(ctx, &total)
        }))
    };
    let fold: Fold = Box::new(fold);
    Answer::AskAll(Ask::Stats, fold)
}

/// The lines of the budget whose use is counted by the cores.
fn used(total: &CoreStats) -> [(&'static str, u64); 4] {
    [
        ("memtables", total.sum(|shard| shard.files.memtable_bytes)),
        ("hot_cache", total.sum(|shard| shard.hot_cache_bytes)),
        ("query_buffers", total.query_buffer_bytes),
        ("output_buffers", total.output_buffer_bytes),
    ]
}

/// Redis's names where they mean something here, then the lines of the budget.
fn figures(ctx: &Ctx<'_>, total: &CoreStats) -> Reply {
    let mut pairs = Vec::new();
    let mut add = |name: &str, bytes: u64| {
        pairs.push((Reply::bulk(name.to_owned()), Reply::Int(bytes as i64)));
    };
    let heap = process::heap();
    add("peak.allocated", process::peak_bytes().unwrap_or(0));
    add("total.allocated", heap.allocated_bytes);
    add("replication.backlog", 0);
    add("clients.slaves", 0);
    add("clients.normal", total.query_buffer_bytes + total.output_buffer_bytes);
    add("aof.buffer", 0);
    let keys = total.sum(|shard| shard.keys);
    add("keys.count", keys);
    add("dataset.bytes", total.sum(|shard| shard.files.live_bytes));
    add("allocator.allocated", heap.allocated_bytes);
    add("allocator.active", heap.active_bytes);
    add("allocator.resident", heap.resident_bytes);
    add("budget.total", ctx.node.config.memory_budget);
    for (line, limit) in ledger(ctx).lines() {
        add(&format!("budget.{line}"), limit);
    }
    for (line, bytes) in used(total) {
        add(&format!("used.{line}"), bytes);
    }
    Reply::Map(pairs)
}

fn ledger(ctx: &Ctx<'_>) -> Ledger {
    let shards = ctx.node.map.shards().count() as u16;
    Ledger::from_budget(ctx.node.config.memory_budget, ctx.node.cores, shards)
        .expect("the start has divided the same budget")
}

/// Above this share of its line, a line is worth a word.
const FULL_PERCENT: u64 = 90;

fn doctor(ctx: &Ctx<'_>, total: &CoreStats) -> Reply {
    let mut text = String::new();
    let mut say =
        |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes everything");
    let budget = ctx.node.config.memory_budget;
    let resident = process::resident_bytes().unwrap_or(0);
    if resident > budget + budget / 5 {
        say(format_args!(
            "The process holds {} MiB, more than 1.2 times its budget of {} MiB: something is not counted.",
            resident >> 20,
            budget >> 20
        ));
    }
    if process::machine_bytes().is_some_and(|machine| budget > machine / 4 * 3) {
        say(format_args!(
            "The budget is more than three quarters of the machine's memory: files need some to be cached."
        ));
    }
    let lines = ledger(ctx).lines();
    for (line, bytes) in used(total) {
        let limit = lines.iter().find(|(name, _)| *name == line).map_or(u64::MAX, |(_, limit)| *limit);
        // A cache is meant to be full.
        if line != "hot_cache" && bytes > limit / 100 * FULL_PERCENT {
            say(format_args!("{line} hold {} of {} MiB.", bytes >> 20, limit >> 20));
        }
    }
    let (hits, cold) = (total.keyspace_hits + total.keyspace_misses, total.cold_reads);
    if hits > 0 && cold * 10 > hits {
        say(format_args!(
            "{cold} of {hits} look-ups waited for the disk: what is read does not fit into memory."
        ));
    }
    if text.is_empty() {
        text =
            format!("Nothing is short: {} MiB held, the budget is {} MiB.\n", resident >> 20, budget >> 20);
    }
    Reply::Verbatim(text.into())
}

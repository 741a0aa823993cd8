//! INFO: which sections are wanted, what the cores are asked for them, and how they are put together.
//! The lines themselves are in `info/sections.rs` and `info/replication.rs`. Nothing here waits for a disk or counts a key.

mod replication;
mod sections;

use super::{all_told, ok_or_error, slowlog, spec};
use crate::command::Group::Server;
use crate::command::flag::{DANGEROUS, LOADING, STALE};
use crate::error::ClientError;
use crate::front::node::{KeyCount, Node};
use crate::front::{Answer, Ctx, FrontCommand};
use crate::metrics::CoreStats;
use crate::metrics::commands::CommandStats;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, TableKeys, Tell};
use crate::slot::TableId;
use sections::Figures;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: spec(
        Server,
        "info",
        -1,
        LOADING | STALE | DANGEROUS,
        "1.0.0",
        "O(cores)",
        "Answers facts and counters of the server",
    ),
    run: info,
}];

/// Keys by table, in the tables' order.
type Tables = Vec<(TableId, TableKeys)>;

fn info(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if args.len() == 3 && args.is(1, "keyspace") && args.is(2, "1") {
        return Ok(count_keys(ctx));
    }
    let wanted = sections::wanted(args);
    if wanted.iter().any(|section| sections::NEED_COMMANDS.contains(section)) {
        let fold = move |ctx: &mut Ctx<'_>, tells| go_on(ctx, wanted, slowlog::command_stats(tells)?);
        return Ok(Answer::AskThen(Ask::Report, Box::new(fold)));
    }
    go_on(ctx, wanted, CommandStats::default())
}

fn go_on(_: &mut Ctx<'_>, wanted: Vec<&'static str>, commands: CommandStats) -> Result<Answer, ClientError> {
    if !wanted.contains(&"keyspace") {
        return Ok(match wanted.is_empty() {
            true => Reply::Verbatim(bytes::Bytes::new()).into(),
            false => Answer::AskAll(
                Ask::Stats,
                Box::new(move |ctx, tells| with_stats(ctx, tells, &commands, &wanted)),
            ),
        });
    }
    let ask_stats = wanted.len() > 1;
    let fold = move |_: &mut Ctx<'_>, tells| {
        let tables = merged(all_told(tells, keyspace)?);
        if !ask_stats {
            return Ok(Reply::Verbatim(sections::keyspace(&tables).into()).into());
        }
        let fold = move |ctx: &mut Ctx<'_>, tells| {
            ok_or_error(all_told(tells, stats).map(|cores| text(ctx, &cores, &tables, &commands, &wanted)))
        };
        Ok(Answer::AskAll(Ask::Stats, Box::new(fold)))
    };
    Ok(Answer::AskThen(Ask::Keyspace, Box::new(fold)))
}

fn with_stats(
    ctx: &mut Ctx<'_>,
    tells: Vec<Tell>,
    commands: &CommandStats,
    wanted: &[&'static str],
) -> Reply {
    ok_or_error(all_told(tells, stats).map(|cores| text(ctx, &cores, &Vec::new(), commands, wanted)))
}

fn text(
    ctx: &Ctx<'_>,
    cores: &[CoreStats],
    tables: &Tables,
    commands: &CommandStats,
    wanted: &[&'static str],
) -> Reply {
    let mut total = CoreStats::default();
    for core in cores {
        total.add(core);
    }
    let counting = lock(&ctx.node.key_count).running;
    let figures =
        Figures { node: ctx.node, now_ms: ctx.now_ms, total: &total, cores, tables, commands, counting };
    Reply::Verbatim(figures.text(wanted).into())
}

pub(super) fn stats(tell: Tell) -> Option<CoreStats> {
    match tell {
        Tell::Stats(stats) => Some(*stats),
        _ => None,
    }
}

fn keyspace(tell: Tell) -> Option<Tables> {
    match tell {
        Tell::Keyspace(tables) => Some(tables),
        _ => None,
    }
}

/// The cores' shares of each table, summed; tables that hold nothing are left out.
fn merged(shares: Vec<Tables>) -> Tables {
    let mut tables: BTreeMap<TableId, TableKeys> = BTreeMap::new();
    for (table, share) in shares.into_iter().flatten() {
        let sum = tables.entry(table).or_default();
        sum.keys += share.keys;
        sum.expires += share.expires;
    }
    tables.into_iter().filter(|(_, keys)| keys.keys > 0).collect()
}

/// As in Pika: starts an exact count in the background, unless one runs, and tells of the last one.
fn count_keys(ctx: &mut Ctx<'_>) -> Answer {
    let mut count = lock(&ctx.node.key_count);
    if count.running {
        return Reply::Verbatim(sections::key_count(&count).into()).into();
    }
    count.running = true;
    count.started_ms = ctx.now_ms;
    let reply = Reply::Verbatim(sections::key_count(&count).into());
    Answer::Background(reply, Ask::CountKeys, Box::new(keys_counted))
}

fn keys_counted(node: &mut Node, now_ms: u64, tells: Vec<Tell>) {
    let mut count = lock(&node.key_count);
    count.running = false;
    // Why a core failed is in its log; the last result stays.
    if let Ok(shares) = all_told(tells, keyspace) {
        count.duration_ms = Some(now_ms.saturating_sub(count.started_ms));
        count.tables = merged(shares);
    }
}

/// Nothing can fail halfway through a change of it, so it is whole even after a panic.
fn lock(count: &Mutex<KeyCount>) -> MutexGuard<'_, KeyCount> {
    count.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;

    fn told(ask: &Ask) -> Vec<Tell> {
        let one = |keys, expires| TableKeys { keys, expires };
        match ask {
            Ask::Stats => {
                let stats =
                    |commands| Tell::Stats(Box::new(CoreStats { commands, hops: 1, ..CoreStats::default() }));
                vec![stats(30), stats(12)]
            }
            Ask::Report => {
                let mut report = crate::metrics::CoreReport::default();
                report.commands.ran("get", 1_500, false);
                report.commands.ran("get", 2_500, true);
                vec![Tell::Report(Box::default()), Tell::Report(Box::new(report))]
            }
            Ask::Keyspace => vec![
                Tell::Keyspace(vec![(TableId(3), one(1, 0)), (TableId(0), one(5, 2))]),
                Tell::Keyspace(vec![(TableId(0), one(7, 1)), (TableId(2), one(0, 0))]),
            ],
            _ => panic!("INFO asks for figures only"),
        }
    }

    #[test]
    fn sections_are_chosen_as_in_redis() {
        let mut bench = Bench::new();
        let mut titles = |call: &str| -> String {
            let text = bench.run_with(call, told);
            let text = text.strip_prefix("txt:").expect("a verbatim string").to_string();
            assert!(text.is_empty() || text.ends_with("\r\n"), "{call}");
            text.lines()
                .filter(|line| line.starts_with('#'))
                .map(|line| &line[2..])
                .collect::<Vec<_>>()
                .join(" ")
        };
        let default = "Server Data Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster \
                       Haypile Keyspace";
        let all = "Server Data Clients Memory Persistence Stats Replication CPU Modules Commandstats Command_Exec_Count Errorstats Latencystats \
                   Cluster Haypile Keyspace";
        for (call, expected) in [
            ("INFO", default),
            ("INFO default", default),
            ("INFO all", all),
            ("INFO everything", all),
            ("INFO latencystats commandstats", "Commandstats Latencystats"),
            ("INFO CPU", "CPU"),
            ("INFO keyspace cpu", "CPU Keyspace"),
            ("INFO keyspace", "Keyspace"),
            ("INFO keyspace keyspace", "Keyspace"),
            ("INFO foo bar", ""),
            ("INFO foo stats", "Stats"),
        ] {
            assert_eq!(titles(call), expected, "{call}");
        }
    }

    #[test]
    fn figures_of_all_cores_are_put_together() {
        let mut bench = Bench::new();
        let text = bench.run_with("INFO", told);
        for line in [
            "redis_version:7.2.0",
            "redis_mode:standalone",
            "tcp_port:9221",
            "uptime_in_seconds:60",
            "maxmemory_policy:noeviction",
            "aof_enabled:1",
            "rdb_last_save_time:1700000000",
            "total_commands_processed:42",
            "role:master",
            "connected_slaves:0",
            "cluster_enabled:0",
            "hops:2",
            "db0:keys=12,expires=3",
            "db3:keys=1,expires=0",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} in {text}");
        }
        assert!(!text.contains("db2:"), "an empty database is not listed");
        assert!(text.contains("\r\n\r\n# Clients\r\n"), "sections are apart");
        assert!(text.contains("core1:commands=12,"), "{text}");
    }

    #[test]
    fn commands_are_told_as_in_redis() {
        let text = Bench::new().run_with("INFO commandstats latencystats", told);
        let calls = "cmdstat_get:calls=2,usec=4,usec_per_call=2.00,rejected_calls=0,failed_calls=1";
        assert!(text.contains(&format!("\r\n{calls}\r\n")), "{text}");
        assert!(text.contains("latency_percentiles_usec_get:p50=2.000,p99=3.000,p99.9=3.000"), "{text}");
    }

    #[test]
    fn keys_are_counted_in_the_background_and_told_later() {
        let mut bench = Bench::new();
        let answer = bench.answer("INFO keyspace 1");
        let Ok(Answer::Background(Reply::Verbatim(text), Ask::CountKeys, later)) = answer else {
            panic!("answered at once")
        };
        assert_eq!(text, "# Keyspace\r\n# Time:2023-11-14 22:14:20\r\n# Duration: In Processing\r\n");
        assert!(bench.run("INFO keyspace 1").contains("In Processing"), "only one at a time");
        let now_ms = bench.now_ms + 3_700;
        later(&mut bench.node, now_ms, told(&Ask::Keyspace));
        let text = bench.run("INFO keyspace 1");
        assert!(text.contains("# Duration: In Processing\r\n"), "another one has begun: {text}");
        assert!(text.contains("db0:keys=12,expires=3\r\ndb3:keys=1,expires=0\r\n"), "{text}");
        keys_counted(&mut bench.node, now_ms, vec![Tell::Failed("disk".into())]);
        let count = lock(&bench.node.key_count);
        assert!(!count.running && count.tables.len() == 2, "the last result stays");
        assert!(sections::key_count(&count).contains("# Duration: 3s\r\n"));
    }
}

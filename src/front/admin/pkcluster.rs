//! PKCLUSTER: the slots of a node in sharding mode. Words, numbers of arguments and errors are those of Pika 3.4;
//! what is asked is done by the replication thread. Source: `src/pika_cluster.cc` of Pika 3.4.0.

use super::replication::ask_thread;
use super::{all_told, spec};
use crate::command::Group::Cluster;
use crate::command::Spec;
use crate::command::flag::{ADMIN, DANGEROUS, NOSCRIPT, ONE_WORD, STALE};
use crate::error::ClientError;
use crate::front::node::SlotMap;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, ReplicationAsk, SlotsAsk, TableRates, Tell};
use crate::slot::assignment::{Assignment, Peer};
use crate::slot::{ShardId, TableId, set};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Write;

const ALL: u32 = ADMIN | NOSCRIPT | STALE | DANGEROUS | ONE_WORD;
const SINCE: &str = "0.3.0";
const BY_SLOT: &str = "O(N) where N is the number of slots";
const BY_KEY: &str = "O(N) where N is the number of keys and elements in the slots";

const fn row(name: &'static str, arity: i32, complexity: &'static str, summary: &'static str) -> Spec {
    spec(Cluster, name, arity, ALL, SINCE, complexity, summary)
}

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            row(
                "info",
                -3,
                BY_SLOT,
                "Answers what the node is to slots, its tables, or how a migration goes",
            ),
            row("addslots", -3, BY_SLOT, "Makes the node the primary of slots, which begin empty"),
            row("delslots", -3, BY_SLOT, "Takes slots from the node, with their data"),
            row("slotsslaveof", -5, BY_SLOT, "Makes slots follow another node, or (NO ONE) nobody"),
            row("addtable", 4, "O(1)", "Adds a table, none of whose slots is here"),
            row("deltable", 3, BY_SLOT, "Takes a table from the node, with its data"),
            row("migrateslot", -5, BY_KEY, "Moves slots to another node while they are used"),
            row(
                "takeslots",
                -5,
                BY_SLOT,
                "As ADDSLOTS and SLOTSSLAVEOF in one step: the slots are never writable here",
            ),
            row(
                "dropslots",
                -5,
                BY_SLOT,
                "Takes slots from the node that follow the node named, with their data",
            ),
            row(
                "moveslot",
                4,
                BY_KEY,
                "Moves slots of every table to another shard of this node while they are used",
            ),
            row("migratecancel", 2, "O(1)", "Ends a migration before its slots change hands"),
            row(
                "digest",
                -3,
                BY_KEY,
                "Answers what the data of slots comes to, to be compared with another node's",
            ),
            row("snapshot", -3, BY_SLOT, "As DIGEST in two steps, for other nodes: fixes the state"),
            row("digestof", 3, BY_KEY, "The second step of SNAPSHOT"),
        ],
        ..row(
            "pkcluster",
            -2,
            "Depends on subcommand.",
            "Commands about the slots of a node in sharding mode",
        )
    },
    run: pkcluster,
}];

/// One subcommand: its word, what classic mode answers, and what it does.
struct Sub {
    word: &'static str,
    /// None: it works there too.
    only_sharding: Option<&'static str>,
    run: Run,
}

/// What stands behind the word, and what it asks for.
enum Run {
    /// `<slots> [table]`
    Slots(fn(TableId, Bytes) -> SlotsAsk),
    /// `<slots> host port [table]`
    SlotsAndPeer(fn(TableId, Bytes, Peer) -> SlotsAsk),
    Other(fn(&mut Ctx<'_>, &Args<'_>) -> Result<Answer, ClientError>),
}

const INFO: &str = "ERR PkClusterInfo only support on sharding mode";
const SLOTS: &str = "ERR PkClusterAddSlots/PkClusterDelSlots only support on sharding mode";
const FOLLOWS: &str = "ERR PkClusterSlotSync only support on sharding mode";
const MOVES: &str = "ERR PkCluster slots only move on sharding mode";
const TABLES: &str = "ERR PkClusterTable Cmd only support on sharding mode";

const SUBS: &[Sub] = &[
    Sub { word: "info", only_sharding: None, run: Run::Other(info) },
    Sub {
        word: "addslots",
        only_sharding: Some(SLOTS),
        run: Run::Slots(|table, slots| SlotsAsk::Add { table, slots }),
    },
    Sub {
        word: "delslots",
        only_sharding: Some(SLOTS),
        run: Run::Slots(|table, slots| SlotsAsk::Delete { table, slots }),
    },
    Sub { word: "slotsslaveof", only_sharding: Some(FOLLOWS), run: Run::Other(slotsslaveof) },
    Sub { word: "addtable", only_sharding: Some(TABLES), run: Run::Other(addtable) },
    Sub { word: "deltable", only_sharding: Some(TABLES), run: Run::Other(deltable) },
    Sub {
        word: "migrateslot",
        only_sharding: Some(MOVES),
        run: Run::SlotsAndPeer(|table, slots, peer| SlotsAsk::Migrate { table, slots, peer }),
    },
    Sub {
        word: "takeslots",
        only_sharding: Some(SLOTS),
        run: Run::SlotsAndPeer(|table, slots, peer| SlotsAsk::Take { table, slots, peer }),
    },
    Sub {
        word: "dropslots",
        only_sharding: Some(SLOTS),
        run: Run::SlotsAndPeer(|table, slots, peer| SlotsAsk::Drop { table, slots, peer }),
    },
    Sub {
        word: "migratecancel",
        only_sharding: None,
        run: Run::Other(|ctx, _| ask(ctx, SlotsAsk::CancelMigration)),
    },
    Sub { word: "moveslot", only_sharding: None, run: Run::Other(moveslot) },
    Sub {
        word: "digest",
        only_sharding: Some(MOVES),
        run: Run::Slots(|table, slots| SlotsAsk::Digest { table, slots }),
    },
    Sub {
        word: "snapshot",
        only_sharding: Some(MOVES),
        run: Run::Slots(|table, slots| SlotsAsk::Snapshot { table, slots }),
    },
    Sub { word: "digestof", only_sharding: Some(MOVES), run: Run::Other(digestof) },
];

fn pkcluster(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let sub = SUBS.iter().find(|sub| args.is(1, sub.word)).expect("the gate knows the subcommands");
    if let (None, Some(why)) = (&ctx.node.assigned, sub.only_sharding) {
        return Err(ClientError::fixed(why));
    }
    let slots = || Bytes::copy_from_slice(args.get(2));
    match sub.run {
        Run::Slots(what) => ask(ctx, what(table_at(args, 3)?, slots())),
        Run::SlotsAndPeer(what) => ask(ctx, what(table_at(args, 5)?, slots(), peer(args, 3)?)),
        Run::Other(run) => run(ctx, args),
    }
}

fn ask(ctx: &Ctx<'_>, ask: SlotsAsk) -> Result<Answer, ClientError> {
    Ok(ask_thread(ctx, ReplicationAsk::Slots(ask)))
}

fn table(text: &[u8]) -> Result<TableId, ClientError> {
    number::parse_i64(text).and_then(|id| u32::try_from(id).ok()).map(TableId).ok_or(ClientError::SYNTAX)
}

/// The table that is named last, at `at`; the first if none is.
fn table_at(args: &Args<'_>, at: usize) -> Result<TableId, ClientError> {
    match args.len().checked_sub(at) {
        Some(0) => Ok(TableId(0)),
        Some(1) => table(args.get(at)),
        _ => Err(ClientError::SYNTAX),
    }
}

fn digestof(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let number = number::parse_i64(args.get(2)).and_then(|number| u64::try_from(number).ok());
    ask(ctx, SlotsAsk::DigestOf { number: number.ok_or(ClientError::NOT_INTEGER)? })
}

/// Host and port, at `at` and behind it.
fn peer(args: &Args<'_>, at: usize) -> Result<Peer, ClientError> {
    let port = number::parse_i64(args.get(at + 1)).and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port > 0).ok_or(ClientError::NOT_INTEGER)?;
    let host = String::from_utf8(args.get(at).to_vec()).ok().filter(|host| !host.is_empty());
    Ok(Peer { host: host.ok_or(ClientError::SYNTAX)?, port })
}

fn addtable(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let slots = number::parse_i64(args.get(3)).and_then(|slots| u64::try_from(slots).ok());
    let slots = slots.filter(|slots| *slots > 0).ok_or(ClientError::SYNTAX)?;
    ask(ctx, SlotsAsk::AddTable { table: table(args.get(2))?, slots })
}

fn deltable(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    ask(ctx, SlotsAsk::DeleteTable { table: table(args.get(2))? })
}

/// `slotsslaveof (no one | ip port) (<slots> | all) [force] [table]`
fn slotsslaveof(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let peer = if args.is(2, "no") && args.is(3, "one") { None } else { Some(peer(args, 2)?) };
    let slots = Bytes::copy_from_slice(args.get(4));
    let force = args.len() > 5 && args.is(5, "force");
    let of = table_at(args, 5 + usize::from(force))?;
    ask(ctx, SlotsAsk::Follow { table: of, slots, peer, force })
}

fn info(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if args.len() > 4 {
        return Err(ClientError::wrong_arity("pkclusterinfo"));
    }
    let which = (args.len() == 4).then(|| args.get(3));
    if args.is(2, "migration") {
        return ask(ctx, SlotsAsk::Migration);
    }
    if args.is(2, "shard") {
        return Ok(Reply::bulk(shards_shown(&ctx.node.map)).into());
    }
    if ctx.node.assigned.is_none() {
        return Err(ClientError::fixed(INFO));
    }
    if args.is(2, "slot") {
        let (of, slots) = which.map_or(Ok((TableId(0), None)), slots_shown)?;
        return ask(ctx, SlotsAsk::Show { table: of, slots });
    }
    if !args.is(2, "table") {
        return Ok(Reply::bulk("").into());
    }
    let which = which.map(table).transpose().map_err(|_| ClientError::fixed("ERR Invalid Argument"))?;
    let then = move |ctx: &mut Ctx<'_>, tells| {
        let all = all_told(tells, |tell| match tell {
            Tell::TableRates(rates) => Some(rates),
            _ => None,
        })?;
        let assigned = ctx.node.assigned.as_ref().expect("looked for before it was asked");
        Ok(Reply::bulk(tables_shown(assigned, all, which)).into())
    };
    Ok(Answer::AskThen(Ask::TableRates, Box::new(then)))
}

/// A line for each shard: the core that owns it, and its slots of every table.
fn shards_shown(map: &SlotMap) -> String {
    let line = |shard: ShardId| {
        let slots = set::shown(&map.placement().slots_of(shard));
        format!("shard{}:core={},slots={slots}\r\n", shard.0, map.owner(shard).0)
    };
    map.shards().map(line).collect()
}

/// `moveslot <slots> <shard>`
fn moveslot(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let shard = number::parse_i64(args.get(3)).and_then(|shard| u16::try_from(shard).ok());
    let shard = ShardId(shard.ok_or(ClientError::NOT_INTEGER)?);
    ask(ctx, SlotsAsk::Rehome { slots: Bytes::copy_from_slice(args.get(2)), shard })
}

/// `[dbN:]slots`
fn slots_shown(text: &[u8]) -> Result<(TableId, Option<Bytes>), ClientError> {
    let invalid = || ClientError::fixed("ERR Invalid Argument");
    let Some(colon) = memchr::memchr(b':', text) else {
        return Ok((TableId(0), Some(Bytes::copy_from_slice(text))));
    };
    let id = text[..colon].strip_prefix(b"db").ok_or_else(invalid)?;
    let id = table(id).map_err(|_| invalid())?;
    Ok((id, Some(Bytes::copy_from_slice(&text[colon + 1..]))))
}

fn tables_shown(
    assigned: &Assignment,
    by_core: Vec<Vec<(TableId, TableRates)>>,
    which: Option<TableId>,
) -> String {
    let mut sums: BTreeMap<TableId, TableRates> = BTreeMap::new();
    for (table, rates) in by_core.into_iter().flatten() {
        *sums.entry(table).or_default() += rates;
    }
    let mut text = String::new();
    for table in assigned.tables().filter(|table| which.is_none_or(|wanted| wanted == *table)) {
        let TableRates { commands, writes, qps, write_qps } = sums.get(&table).copied().unwrap_or_default();
        let mut line = |line: std::fmt::Arguments<'_>| {
            write!(text, "{line}\r\n").expect("a String takes everything");
        };
        line(format_args!("table_id: {}", table.0));
        line(format_args!("  partition_num: {}", assigned.slots(table).unwrap_or(0)));
        if which.is_none() {
            line(format_args!("  total_commands_processed:{commands}"));
            line(format_args!("  total_write_commands_processed:{writes}"));
        }
        line(format_args!("  qps: {qps}"));
        line(format_args!("  write_qps: {write_qps}"));
        line(format_args!("  read_qps: {}", qps.saturating_sub(write_qps)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use std::sync::Arc;

    fn sharded() -> Bench {
        let mut bench = Bench::new();
        let mut assigned = Assignment::default();
        assigned.add_table(TableId(0), 1024);
        bench.node.assigned = Some(Arc::new(assigned));
        bench
    }

    fn asked(call: &str) -> SlotsAsk {
        match sharded().answer(call) {
            Ok(Answer::AskOne(_, Ask::Replication(ReplicationAsk::Slots(ask)), _)) => ask,
            Ok(_) => panic!("{call}: nothing is asked"),
            Err(error) => panic!("{call}: {error:?}"),
        }
    }

    #[test]
    fn words_are_read_as_pika_reads_them() {
        let slots = |text: &'static str| Bytes::from_static(text.as_bytes());
        let peer = |port| Some(Peer { host: "10.0.0.1".into(), port });
        assert_eq!(asked("PKCLUSTER ADDSLOTS 0-3"), SlotsAsk::Add { table: TableId(0), slots: slots("0-3") });
        assert_eq!(
            asked("pkcluster delslots 1,2 7"),
            SlotsAsk::Delete { table: TableId(7), slots: slots("1,2") }
        );
        let follow =
            |peer, force, table| SlotsAsk::Follow { table: TableId(table), slots: slots("all"), peer, force };
        assert_eq!(asked("pkcluster slotsslaveof no one all"), follow(None, false, 0));
        assert_eq!(asked("pkcluster slotsslaveof 10.0.0.1 9 all"), follow(peer(9), false, 0));
        assert_eq!(asked("pkcluster slotsslaveof 10.0.0.1 9 all force"), follow(peer(9), true, 0));
        assert_eq!(asked("pkcluster slotsslaveof 10.0.0.1 9 all 3"), follow(peer(9), false, 3));
        assert_eq!(asked("pkcluster slotsslaveof 10.0.0.1 9 all force 3"), follow(peer(9), true, 3));
        assert_eq!(asked("pkcluster addtable 1 64"), SlotsAsk::AddTable { table: TableId(1), slots: 64 });
        assert_eq!(asked("pkcluster deltable 1"), SlotsAsk::DeleteTable { table: TableId(1) });
        assert_eq!(asked("pkcluster info slot"), SlotsAsk::Show { table: TableId(0), slots: None });
        let shown = SlotsAsk::Show { table: TableId(2), slots: Some(slots("1-3")) };
        assert_eq!(asked("pkcluster info slot db2:1-3"), shown);
    }

    #[test]
    fn errors_are_pikas() {
        for (call, error) in [
            ("PKCLUSTER NOSUCH", "ERR unknown or unsupported command 'pkclusternosuch'"),
            ("PKCLUSTER INFO", "ERR wrong number of arguments for 'pkclusterinfo' command"),
            ("PKCLUSTER INFO slot 1 2", "ERR wrong number of arguments for 'pkclusterinfo' command"),
            ("PKCLUSTER ADDSLOTS", "ERR wrong number of arguments for 'pkclusteraddslots' command"),
            ("PKCLUSTER ADDSLOTS 1 a", "ERR syntax error"),
            ("PKCLUSTER ADDSLOTS 1 2 3", "ERR syntax error"),
            ("PKCLUSTER SLOTSSLAVEOF h x 1", "ERR value is not an integer or out of range"),
            ("PKCLUSTER SLOTSSLAVEOF h 1 1 2 3", "ERR syntax error"),
            ("PKCLUSTER ADDTABLE x 1", "ERR syntax error"),
            ("PKCLUSTER INFO slot x1:2", "ERR Invalid Argument"),
        ] {
            assert_eq!(sharded().run(call), format!("-{error}"), "{call}");
        }
        for (call, error) in [
            ("PKCLUSTER INFO slot", "ERR PkClusterInfo only support on sharding mode"),
            ("PKCLUSTER DELSLOTS 1", "ERR PkClusterAddSlots/PkClusterDelSlots only support on sharding mode"),
            ("PKCLUSTER SLOTSSLAVEOF no one 1", "ERR PkClusterSlotSync only support on sharding mode"),
            ("PKCLUSTER ADDTABLE 1 1", "ERR PkClusterTable Cmd only support on sharding mode"),
        ] {
            assert_eq!(Bench::new().run(call), format!("-{error}"), "{call}");
        }
    }

    #[test]
    fn tables_are_shown_in_lines_that_managers_count() {
        let bench = sharded();
        let assigned = bench.node.assigned.as_ref().expect("it is in sharding mode");
        let rates = TableRates { commands: 9, writes: 4, qps: 3, write_qps: 1 };
        let by_core = vec![vec![(TableId(0), rates)], vec![(TableId(0), rates)]];
        assert_eq!(
            tables_shown(assigned, by_core.clone(), None),
            "table_id: 0\r\n  partition_num: 1024\r\n  total_commands_processed:18\r\n  \
             total_write_commands_processed:8\r\n  qps: 6\r\n  write_qps: 2\r\n  read_qps: 4\r\n"
        );
        assert_eq!(tables_shown(assigned, by_core, Some(TableId(0))).lines().count(), 5);
    }
}

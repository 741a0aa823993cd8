//! Pika's commands about its logs and about single databases as followers: what of them has a meaning here is
//! done, the rest is refused with the reason.

use super::replication::ask_thread;
use super::{all_told, spec};
use crate::command::Group::Server;
use crate::command::flag::{ADMIN, DANGEROUS, NOSCRIPT, STALE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, ReplicationAsk, Tell};
use crate::slot::TableId;

const CHANGE: u32 = ADMIN | NOSCRIPT | STALE | DANGEROUS;

pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand {
        spec: spec(
            Server,
            "purgelogsto",
            -2,
            CHANGE,
            "0.2.0",
            PER_SEGMENT,
            "Lets old log go that nobody needs",
        ),
        run: purge_logs_to,
    },
    FrontCommand {
        spec: spec(
            Server,
            "dbslaveof",
            -2,
            CHANGE,
            "0.2.0",
            "O(1)",
            "Copies a database from the primary again",
        ),
        run: db_slave_of,
    },
    FrontCommand {
        spec: spec(
            Server,
            "clearreplicationid",
            1,
            CHANGE,
            "0.2.0",
            "O(1)",
            "Makes this node fetch everything from whom it follows next, whatever it has of it",
        ),
        run: |ctx, _| Ok(ask_thread(ctx, ReplicationAsk::ClearHistory)),
    },
];

const PER_SEGMENT: &str = "O(N) where N is the number of segments that go";
/// How Pika calls a file of its log, before its number.
const FILE: &str = "write2file";
const INVALID: ClientError = ClientError::fixed("ERR Invalid Argument");

/// `purgelogsto write2fileN [dbN]`: all databases have one log, whose records are numbered instead of its files.
fn purge_logs_to(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if args.len() > 3 {
        return Err(ClientError::SYNTAX);
    }
    let file = String::from_utf8_lossy(args.get(1)).to_ascii_lowercase();
    let number = file.strip_prefix(FILE).and_then(|number| number::parse_i64(number.as_bytes()));
    let before = number.and_then(|number| u64::try_from(number).ok()).ok_or(INVALID)?;
    if args.len() == 3 && database(ctx, args.get(2)).is_none() {
        let given = String::from_utf8_lossy(args.get(2)).replace(['\r', '\n'], " ");
        return Err(ClientError::new(format!("ERR invalid DB for '{given}'")));
    }
    let then = |_: &mut Ctx<'_>, tells| {
        let stay: Vec<u64> = all_told(tells, |tell| match tell {
            Tell::Count(stay) => Some(stay),
            _ => None,
        })?;
        match stay.iter().sum() {
            0u64 => Ok(Reply::Ok.into()),
            _ => Err(ClientError::fixed("ERR binlog already in purging...")),
        }
    };
    Ok(Answer::AskThen(Ask::PurgeLogs { before }, Box::new(then)))
}

/// `dbslaveof dbN [force]`.
fn db_slave_of(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if ctx.node.status().following.is_none() {
        return Err(ClientError::fixed("ERR Not currently a slave"));
    }
    // Spelt as Pika spells it.
    let table = database(ctx, args.get(1)).ok_or(ClientError::fixed("ERR Invaild db name"))?;
    if args.len() == 3 && args.is(2, "force") {
        return Ok(ask_thread(ctx, ReplicationAsk::CopyTable(table)));
    }
    Err(ClientError::fixed(match args.len() {
        2 | 4 => {
            "ERR databases follow together here: SLAVEOF is for all of them, DBSLAVEOF dbN force for one anew"
        }
        _ => "ERR syntax error",
    }))
}

/// Pika's name of a database that is here.
fn database(ctx: &Ctx<'_>, name: &[u8]) -> Option<TableId> {
    let number = number::parse_i64(name.strip_prefix(b"db")?)?;
    u32::try_from(number).ok().filter(|number| *number < ctx.node.config.databases).map(TableId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use crate::replica::status::{Following, Status};

    #[test]
    fn log_goes_or_pikas_error_says_that_it_is_needed() {
        let mut bench = Bench::new();
        let mut purge = |call: &str, stay: u64| {
            bench.run_with(call, |ask| {
                assert!(matches!(ask, Ask::PurgeLogs { before: 77 }));
                vec![Tell::Count(0), Tell::Count(stay)]
            })
        };
        assert_eq!(purge("PURGELOGSTO write2file77", 0), "OK");
        assert_eq!(purge("PURGELOGSTO WRITE2FILE77 db0", 0), "OK");
        assert_eq!(purge("PURGELOGSTO write2file77", 3), "-ERR binlog already in purging...");
        for (call, error) in [
            ("PURGELOGSTO write2file", "ERR Invalid Argument"),
            ("PURGELOGSTO write2file-1", "ERR Invalid Argument"),
            ("PURGELOGSTO 77", "ERR Invalid Argument"),
            ("PURGELOGSTO write2file77 db99", "ERR invalid DB for 'db99'"),
            ("PURGELOGSTO write2file77 0", "ERR invalid DB for '0'"),
        ] {
            assert_eq!(bench.run(call), format!("-{error}"), "{call}");
        }
    }

    #[test]
    fn one_database_is_copied_again_and_nothing_else_is_promised() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("DBSLAVEOF db0 force"), "-ERR Not currently a slave");
        bench.set_status(Status { following: Some(Following::default()), ..Status::default() });
        let Ok(Answer::AskOne(_, Ask::Replication(ask), _)) = bench.answer("DBSLAVEOF db3 FORCE") else {
            panic!("it is asked")
        };
        assert_eq!(ask, ReplicationAsk::CopyTable(TableId(3)));
        assert_eq!(bench.run("DBSLAVEOF 3 force"), "-ERR Invaild db name");
        for call in ["DBSLAVEOF db3", "DBSLAVEOF db3 no one", "DBSLAVEOF db3 5 700"] {
            assert!(bench.run(call).starts_with("-ERR databases follow together here"), "{call}");
        }
        assert_eq!(bench.run("DBSLAVEOF db3 soon"), "-ERR syntax error");
    }
}

//! Commands about the whole server: its time, size, databases and end.
//! What changes tables is only named here; the shards do it.

use super::connection::database;
use super::{all_told, ask_about_keys, is_cluster, ok_or_error, spec};
use crate::command::Group::Server;
use crate::command::flag::{
    ADMIN, ALLOW_BUSY, DANGEROUS, FAST, LOADING, NO_MULTI, NOSCRIPT, READONLY, STALE, WRITE,
};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand, WholeTables};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, Tell};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const END: u32 = ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY;
const AT_ONCE: &str = "O(1): what was there is erased in the background";

// `FAST` means that a command may run before the ones ahead of it are answered: not these that ask other
// cores, dbsize and swapdb among them, whatever they are in Redis.
pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand {
        spec: spec(Server, "time", 1, LOADING | STALE | FAST, "2.6.0", "O(1)", "Answers the server's clock"),
        run: time,
    },
    FrontCommand {
        spec: spec(
            Server,
            "dbsize",
            1,
            READONLY,
            "1.0.0",
            "O(1), O(N) where the keys are few",
            "Answers how many keys the database has: an estimate where they are many",
        ),
        run: dbsize,
    },
    FrontCommand {
        spec: spec(Server, "flushdb", -1, WRITE | DANGEROUS, "1.0.0", AT_ONCE, "Empties the database"),
        run: flushdb,
    },
    FrontCommand {
        spec: spec(Server, "flushall", -1, WRITE | DANGEROUS, "1.0.0", AT_ONCE, "Empties all databases"),
        run: flushall,
    },
    FrontCommand {
        spec: spec(
            Server,
            "swapdb",
            3,
            WRITE | DANGEROUS,
            "4.0.0",
            "O(1)",
            "Lets two databases change places",
        ),
        run: swapdb,
    },
    FrontCommand {
        spec: spec(
            Server,
            "monitor",
            1,
            ADMIN | NOSCRIPT | LOADING | STALE,
            "1.0.0",
            "O(1)",
            "Shows every command that comes from now on",
        ),
        run: |_, _| Ok(Answer::Monitor),
    },
    FrontCommand {
        spec: spec(Server, "shutdown", -1, END, "1.0.0", "O(1)", "Stops the server; nothing is lost"),
        run: shutdown,
    },
    FrontCommand {
        spec: spec(
            Server,
            "lastsave",
            1,
            LOADING | STALE | FAST | DANGEROUS,
            "1.0.0",
            "O(1)",
            "Answers when everything was last known to be on disk",
        ),
        run: lastsave,
    },
];

/// The wall clock itself: the turn's time has milliseconds only, and TIME tells microseconds.
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970")
}

fn time(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let now = wall_clock();
    let parts = [now.as_secs().to_string(), now.subsec_micros().to_string()];
    Ok(Reply::Array(parts.map(Reply::bulk).into()).into())
}

fn dbsize(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let ask = Ask::DbSize { table: ctx.session.table };
    let fold = |_: &mut Ctx<'_>, tells| {
        ok_or_error(all_told(tells, count).map(|counts| Reply::Int(counts.into_iter().sum::<u64>() as i64)))
    };
    Ok(ask_about_keys(ctx, ask, Box::new(fold)))
}

pub(super) fn count(tell: Tell) -> Option<u64> {
    match tell {
        Tell::Count(count) => Some(count),
        _ => None,
    }
}

fn flushdb(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    check_flush_option(args)?;
    Ok(Answer::WholeTables(WholeTables::Flush { table: Some(ctx.session.table) }))
}

fn flushall(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    check_flush_option(args)?;
    Ok(Answer::WholeTables(WholeTables::Flush { table: None }))
}

/// Both words mean the same here: flushing takes microseconds and erasing is always in the background.
fn check_flush_option(args: &Args<'_>) -> Result<(), ClientError> {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "ASYNC") || args.is(1, "SYNC") => Ok(()),
        _ => Err(ClientError::SYNTAX),
    }
}

fn swapdb(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if is_cluster(ctx) {
        return Err(ClientError::fixed("ERR SWAPDB is not allowed in cluster mode"));
    }
    let index = |at, which| {
        let index = number::parse_i64(args.get(at)).filter(|index| i32::try_from(*index).is_ok());
        index.ok_or_else(|| ClientError::new(format!("ERR invalid {which} DB index")))
    };
    let (a, b) = (index(1, "first")?, index(2, "second")?);
    let (a, b) = (database(ctx, a)?, database(ctx, b)?);
    Ok(if a == b { Reply::Ok.into() } else { Answer::WholeTables(WholeTables::Swap { a, b }) })
}

/// SAVE and NOSAVE are Redis's words for a snapshot; here the log already holds everything acknowledged,
/// so NOSAVE and NOW only leave out what would make the next start quicker.
fn shutdown(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let (mut save, mut nosave, mut now, mut abort) = (false, false, false, false);
    for at in 1..args.len() {
        match () {
            () if args.is(at, "SAVE") => save = true,
            () if args.is(at, "NOSAVE") => nosave = true,
            () if args.is(at, "NOW") => now = true,
            () if args.is(at, "ABORT") => abort = true,
            () if args.is(at, "FORCE") => (),
            () => return Err(ClientError::SYNTAX),
        }
    }
    if (save && nosave) || (abort && args.len() > 2) {
        return Err(ClientError::SYNTAX);
    }
    if abort {
        // It begins when it is asked for, and then nobody is served any more.
        return Err(ClientError::fixed("ERR No shutdown in progress."));
    }
    Ok(Answer::Shutdown { hurry: nosave || now })
}

fn lastsave(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Reply::Int(ctx.node.last_save_s as i64).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use crate::slot::TableId;

    #[test]
    fn texts_are_those_of_redis() {
        let mut bench = Bench::new();
        for (call, reply) in [
            ("SWAPDB a 1", "-ERR invalid first DB index"),
            ("SWAPDB 1 b", "-ERR invalid second DB index"),
            ("SWAPDB 99 a", "-ERR invalid second DB index"),
            ("SWAPDB 1 999999999999", "-ERR invalid second DB index"),
            ("SWAPDB 1 99", "-ERR DB index is out of range"),
            ("SWAPDB 1 1", "OK"),
            ("FLUSHALL foo", "-ERR syntax error"),
            ("FLUSHALL ASYNC SYNC", "-ERR syntax error"),
            ("FLUSHDB x", "-ERR syntax error"),
            ("SHUTDOWN foo", "-ERR syntax error"),
            ("SHUTDOWN ABORT", "-ERR No shutdown in progress."),
            ("SHUTDOWN SAVE NOSAVE", "-ERR syntax error"),
            ("SHUTDOWN ABORT NOW", "-ERR syntax error"),
            ("LASTSAVE", ":1700000000"),
            ("LASTSAVE x", "-ERR wrong number of arguments for 'lastsave' command"),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
        assert_eq!(Bench::cluster(1).run("SWAPDB 0 1"), "-ERR SWAPDB is not allowed in cluster mode");
    }

    #[test]
    fn what_changes_tables_is_named() {
        let mut bench = Bench::new();
        bench.run("SELECT 2");
        let is =
            |answer, wanted: WholeTables| matches!(answer, Ok(Answer::WholeTables(wide)) if wide == wanted);
        assert!(is(bench.answer("FLUSHDB async"), WholeTables::Flush { table: Some(TableId(2)) }));
        assert!(is(bench.answer("FLUSHALL SYNC"), WholeTables::Flush { table: None }));
        assert!(is(bench.answer("SWAPDB 1 2"), WholeTables::Swap { a: TableId(1), b: TableId(2) }));
    }

    #[test]
    fn shutdown_hurries_when_told() {
        let mut bench = Bench::new();
        for (call, wanted) in [
            ("SHUTDOWN", false),
            ("SHUTDOWN SAVE FORCE", false),
            ("SHUTDOWN NOSAVE", true),
            ("SHUTDOWN save now", true),
        ] {
            assert!(
                matches!(bench.answer(call), Ok(Answer::Shutdown { hurry }) if hurry == wanted),
                "{call}"
            );
        }
    }

    #[test]
    fn sizes_of_all_cores_are_summed() {
        let mut bench = Bench::new();
        assert_eq!(bench.run_with("DBSIZE", |_| vec![Tell::Count(2), Tell::Count(40)]), ":42");
        let broken = |_: &Ask| vec![Tell::Count(2), Tell::Failed("reading\r\nfailed".into())];
        assert_eq!(bench.run_with("DBSIZE", broken), "-ERR reading  failed");
    }

    #[test]
    fn time_has_microseconds() {
        let Ok(Answer::Reply(Reply::Array(parts))) = Bench::new().answer("TIME") else { panic!("an array") };
        let [Reply::Bulk(seconds), Reply::Bulk(micros)] = &parts[..] else { panic!("two strings") };
        let number = |text: &[u8]| number::parse_i64(text).expect("a number");
        assert!(number(seconds) > 1_700_000_000 && number(micros) < 1_000_000);
    }
}

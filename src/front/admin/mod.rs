//! Commands about the connection and the server: rows of facts and plain functions, one file per concern.
//!
//! They see a `Ctx` and ask other cores through `Answer`; they know no socket, shard or RocksDB.

pub mod client;
pub mod client_line;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod debug;
pub mod failover;
pub mod info;
pub mod keys;
pub mod latency;
pub mod memory;
pub mod pika;
mod pkcluster;
pub mod process;
pub mod ranges;
pub mod replication;
pub mod server;
pub mod slowlog;

mod docs;
mod syntax;

use super::{Answer, Ctx, Fold, FrontCommand, FrontHandler};
use crate::command::{Group, Keys, Spec};
use crate::error::ClientError;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, Tell};
use crate::slot::SlotHash;

/// The Redis whose protocol and commands this server speaks, as clients that look at versions read it.
pub const REDIS_VERSION: &str = "7.2.0";

/// Every command of this room.
pub fn all() -> impl Iterator<Item = &'static FrontCommand> {
    [
        connection::COMMANDS,
        client::COMMANDS,
        server::COMMANDS,
        config::COMMANDS,
        info::COMMANDS,
        command::COMMANDS,
        keys::COMMANDS,
        ranges::COMMANDS,
        cluster::COMMANDS,
        slowlog::COMMANDS,
        latency::COMMANDS,
        memory::COMMANDS,
        debug::COMMANDS,
        pkcluster::COMMANDS,
        replication::COMMANDS,
        failover::COMMANDS,
        pika::COMMANDS,
    ]
    .into_iter()
    .flatten()
}

/// A row without keys and subcommands.
const fn spec(
    group: Group,
    name: &'static str,
    arity: i32,
    flags: u32,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Spec {
    Spec { name, arity, flags, keys: Keys::None, group, since, complexity, summary, subcommands: &[] }
}

/// A subcommand's name, in lower case, and its function.
type Sub = (&'static str, FrontHandler);

/// Runs the function of the subcommand that was called.
fn run_subcommand(subs: &[Sub], ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    match subs.iter().find(|(name, _)| args.is(1, name)) {
        Some((_, run)) => run(ctx, args),
        None => {
            let given = String::from_utf8_lossy(args.get(1)).replace(['\r', '\n'], " ");
            let command = String::from_utf8_lossy(args.get(0)).to_ascii_uppercase();
            Err(ClientError::new(format!("ERR unknown subcommand '{given}'. Try {command} HELP.")))
        }
    }
}

/// What HELP answers of a command with subcommands: its rows. Redis sends them as simple strings.
fn help(command: &str, subs: &[Spec]) -> Answer {
    let title = format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let mut lines = vec![title];
    for sub in subs {
        let name = sub.name.to_ascii_uppercase();
        let arguments = docs::syntax(&format!("{}|{}", command.to_ascii_lowercase(), sub.name));
        lines.push(if arguments.is_empty() { name } else { format!("{name} {arguments}") });
        lines.push(format!("    {}.", sub.summary));
    }
    Reply::Array(lines.into_iter().map(Reply::bulk).collect()).into()
}

fn is_cluster(ctx: &Ctx<'_>) -> bool {
    ctx.hash() == SlotHash::Crc16
}

/// Whether this client takes the connection's core for a node of a cluster: then it asks every core itself
/// what it wants to know of the whole, and one core must answer for its own keys alone.
fn asks_each_core(ctx: &Ctx<'_>) -> bool {
    is_cluster(ctx) && ctx.session.shard_aware
}

/// Asks about the keys of all cores, or of this one only where the client asks each.
fn ask_about_keys(ctx: &Ctx<'_>, ask: Ask, fold: Fold) -> Answer {
    if asks_each_core(ctx) { Answer::AskOne(ctx.node.core, ask, fold) } else { Answer::AskAll(ask, fold) }
}

/// The cores' answers through `pick`; the first failure is the whole answer.
fn all_told<T>(tells: Vec<Tell>, mut pick: impl FnMut(Tell) -> Option<T>) -> Result<Vec<T>, ClientError> {
    tells
        .into_iter()
        .map(|tell| match tell {
            Tell::Failed(why) => Err(ClientError::new(format!("ERR {}", why.replace(['\r', '\n'], " ")))),
            Tell::TooMany => Err(ClientError::fixed("ERR too many keys for one reply, use SCAN")),
            told => Ok(pick(told).expect("a core answers with the variant its question calls for")),
        })
        .collect()
}

/// For the answer of a single core.
fn one_told<T>(tells: Vec<Tell>, pick: impl FnMut(Tell) -> Option<T>) -> Result<T, ClientError> {
    let mut told = all_told(tells, pick)?;
    assert_eq!(told.len(), 1, "one core was asked");
    Ok(told.remove(0))
}

fn ok_or_error(result: Result<Reply, ClientError>) -> Reply {
    result.unwrap_or_else(Reply::Error)
}

/// All cores have done it.
fn done(tells: Vec<Tell>) -> Reply {
    ok_or_error(all_told(tells, |tell| matches!(tell, Tell::Done).then_some(())).map(|_| Reply::Ok))
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_lower_case_and_unique() {
        let mut names: Vec<_> = all().map(|command| command.spec.name).collect();
        assert!(names.iter().all(|name| *name == name.to_ascii_lowercase()));
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_subcommand_row_has_a_function_and_the_other_way_round() {
        for (command, subs) in [
            ("client", client::SUBS),
            ("config", config::SUBS),
            ("command", command::SUBS),
            ("cluster", cluster::SUBS),
            ("slowlog", slowlog::SUBS),
            ("latency", latency::SUBS),
            ("memory", memory::SUBS),
            ("debug", debug::SUBS),
        ] {
            let row = all().find(|row| row.spec.name == command).expect("it is in the table");
            let rows: Vec<_> = row.spec.subcommands.iter().map(|sub| sub.name).collect();
            let functions: Vec<_> = subs.iter().map(|(name, _)| *name).collect();
            assert_eq!(rows, functions, "{command}");
        }
    }
}

//! OBJECT: what Redis would say about how it holds a value.
//!
//! Answers are those of redis-server 7.0 for the same history of commands, as far as the row remembers it.

use super::{Group, KeyArg, KeyArgs, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::row::Kind;
use crate::store::tx::Tx;
use crate::types::any;
use crate::types::string::Encoding;

pub const COMMANDS: &[KeyCommand] = &[KeyCommand {
    spec: Spec {
        name: "object",
        arity: -2,
        flags: 0,
        keys: Keys::Find(keys),
        group: Group::Generic,
        since: "2.2.3",
        complexity: "O(1)",
        summary: "How a key's value is held",
        subcommands: &[
            subcommand("encoding", "2.2.3", "Form in which Redis would hold the value"),
            subcommand("freq", "4.0.0", "How often a key is used, where that is counted"),
            Spec {
                arity: 2,
                flags: flag::LOADING | flag::STALE,
                keys: Keys::None,
                ..subcommand("help", "6.2.0", "Lists the subcommands")
            },
            subcommand("idletime", "2.2.3", "Seconds since the key was last used"),
            subcommand("refcount", "2.2.3", "How many keys Redis would let share the value"),
        ],
    },
    run: object,
}];

const fn subcommand(name: &'static str, since: &'static str, summary: &'static str) -> Spec {
    Spec {
        name,
        arity: 3,
        flags: flag::READONLY,
        keys: Keys::Span { first: 2, last: 2, step: 1 },
        group: Group::Generic,
        since,
        complexity: "O(1)",
        summary,
        subcommands: &[],
    }
}

/// Redis shares one object among all keys that hold the same small integer, and says so with this count.
const SHARED_INTS: std::ops::Range<i64> = 0..10_000;
const SHARED_REFCOUNT: i64 = i32::MAX as i64;

const HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Form in which Redis would hold the value: int, embstr, listpack, skiplist ...",
    "FREQ <key>",
    "    How often the key is used. Not counted here: always an error.",
    "IDLETIME <key>",
    "    Seconds since the key was last used, as far as memory reaches.",
    "REFCOUNT <key>",
    "    How many keys Redis would let share the value.",
    "HELP",
    "    Prints this help.",
];

fn keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let key = (args.len() == 3).then_some(KeyArg { arg: 2, table: None });
    Ok(key.into_iter().collect())
}

fn object(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    if args.is(1, "HELP") {
        return Ok(Reply::Array(HELP.iter().map(|line| Reply::Simple(line)).collect()));
    }
    let key = tx.key(args.get(2));
    // Reading the row is a use of the key.
    let idle_seconds = tx.idle_seconds(key);
    let Some(row) = tx.row(key)? else { return Ok(Reply::Nil) };
    if args.is(1, "ENCODING") {
        Ok(Reply::text(any::encoding(&row)))
    } else if args.is(1, "IDLETIME") {
        Ok(Reply::Int(i64::try_from(idle_seconds).unwrap_or(i64::MAX)))
    } else if args.is(1, "REFCOUNT") {
        let shared = row.kind == Kind::String
            && matches!(Encoding::of(&row), Encoding::Int(int) if SHARED_INTS.contains(&int));
        Ok(Reply::Int(if shared { SHARED_REFCOUNT } else { 1 }))
    } else if args.is(1, "FREQ") {
        Err(ClientError::fixed(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
             when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        )
        .into())
    } else {
        let given = String::from_utf8_lossy(args.get(1)).into_owned();
        Err(ClientError::new(format!("ERR unknown subcommand '{given}'. Try OBJECT HELP.")).into())
    }
}

#[cfg(test)]
mod tests {
    use crate::command::tests::Server;
    use crate::resp::reply::Reply;

    #[test]
    fn encodings_follow_the_history() {
        let mut server = Server::default();
        for (command, encoding) in [
            ("SET k 12", "int"),
            ("APPEND k 3", "raw"),
            ("INCR k", "int"),
            ("SETRANGE k 0 9", "raw"),
            ("RENAME k k2", "none"),
            ("COPY k2 k", "raw"),
            ("GETSET k abc", "embstr"),
            ("GETEX k PX 5000", "embstr"),
            ("INCRBYFLOAT f 1.5", "embstr"),
            ("INCRBYFLOAT f 1.5", "embstr"),
            ("INCR f", "int"),
        ] {
            server.run(command);
            let key = if command.split(' ').nth(1) == Some("f") { "f" } else { "k" };
            let expected = if encoding == "none" { Reply::Nil } else { Reply::text(encoding) };
            assert_eq!(server.run(&format!("OBJECT ENCODING {key}")), expected, "{command}");
        }
        server.run("SET shared 9999");
        server.int("OBJECT REFCOUNT shared", i64::from(i32::MAX));
        server.run("INCR shared");
        server.int("OBJECT REFCOUNT shared", 1);
        server.int("OBJECT IDLETIME shared", 0);
        assert_eq!(server.run("OBJECT IDLETIME nokey"), Reply::Nil);
        assert!(matches!(server.run("OBJECT FREQ shared"), Reply::Error(_)));
        assert!(matches!(server.run("OBJECT HELP"), Reply::Array(lines) if lines.len() == 11));
    }
}

//! Commands on keys of any type: which are there, under which name, in which table.
//!
//! Each function serves one key or many, on one shard or over rows fetched from several.

use super::options::table;
use super::{Group, KeyArg, KeyArgs, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::slot::TableId;
use crate::store::row::Row;
use crate::store::tx::{KeyRef, Tx};
use crate::types::any;
use smallvec::smallvec;

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "del",
            arity: -2,
            flags: flag::WRITE,
            complexity: "O(N) where N is the number of keys, whatever they hold",
            summary: "Removes keys",
            ..ALL_KEYS
        },
        run: del,
    },
    KeyCommand {
        spec: Spec {
            name: "unlink",
            arity: -2,
            flags: flag::WRITE | flag::FAST,
            since: "4.0.0",
            complexity: "O(N) where N is the number of keys, whatever they hold",
            summary: "Removes keys; the same as DEL, which does not wait for the space either",
            ..ALL_KEYS
        },
        run: del,
    },
    KeyCommand {
        spec: Spec {
            name: "exists",
            arity: -2,
            flags: flag::READONLY | flag::FAST,
            complexity: "O(N) where N is the number of keys",
            summary: "Counts which of the keys are there, a key named twice twice",
            ..ALL_KEYS
        },
        run: exists,
    },
    KeyCommand {
        spec: Spec {
            name: "touch",
            arity: -2,
            flags: flag::READONLY | flag::FAST,
            since: "3.2.1",
            complexity: "O(N) where N is the number of keys",
            summary: "Uses keys without reading them, and counts which are there",
            ..ALL_KEYS
        },
        run: exists,
    },
    KeyCommand {
        spec: Spec {
            name: "type",
            arity: 2,
            flags: flag::READONLY | flag::FAST,
            keys: Keys::Span { first: 1, last: 1, step: 1 },
            summary: "Type of a key's value",
            ..ALL_KEYS
        },
        run: type_of,
    },
    KeyCommand {
        spec: Spec {
            name: "rename",
            arity: 3,
            flags: flag::WRITE | flag::ANY_VALUES,
            keys: Keys::Span { first: 1, last: 2, step: 1 },
            complexity: "O(1) for what is small, O(N) for a long string or a large collection",
            summary: "Gives a key another name, in place of the key that had it",
            ..ALL_KEYS
        },
        run: |tx, args| rename(tx, args, Taken::Replace),
    },
    KeyCommand {
        spec: Spec {
            name: "renamenx",
            arity: 3,
            flags: flag::WRITE | flag::FAST | flag::ANY_VALUES,
            keys: Keys::Span { first: 1, last: 2, step: 1 },
            complexity: "O(1) for what is small, O(N) for a long string or a large collection",
            summary: "Gives a key another name unless that is taken",
            ..ALL_KEYS
        },
        run: |tx, args| rename(tx, args, Taken::Refuse),
    },
    KeyCommand {
        spec: Spec {
            name: "copy",
            arity: -3,
            flags: flag::WRITE | flag::DENYOOM | flag::ANY_VALUES,
            keys: Keys::Find(copy_keys),
            since: "6.2.0",
            complexity: "O(N) in the length of the value",
            summary: "Copies a key, also to another database",
            ..ALL_KEYS
        },
        run: copy,
    },
    KeyCommand {
        spec: Spec {
            name: "move",
            arity: 3,
            flags: flag::WRITE | flag::FAST | flag::ANY_VALUES,
            keys: Keys::Find(move_keys),
            complexity: "O(1) for what is small, O(N) for a long string or a large collection",
            summary: "Moves a key to another database",
            ..ALL_KEYS
        },
        run: move_key,
    },
];

const ALL_KEYS: Spec = Spec {
    name: "",
    arity: 0,
    flags: 0,
    keys: Keys::Span { first: 1, last: -1, step: 1 },
    group: Group::Generic,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    subcommands: &[],
};

fn del(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let mut deleted = 0;
    for name in args.iter(1) {
        let key = tx.key(name);
        if tx.row(key)?.is_some() {
            tx.delete(key);
            deleted += 1;
        }
    }
    Ok(Reply::Int(deleted))
}

fn exists(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let mut found = 0;
    for name in args.iter(1) {
        found += i64::from(tx.row(tx.key(name))?.is_some());
    }
    Ok(Reply::Int(found))
}

fn type_of(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let row = tx.row(tx.key(args.get(1)))?;
    Ok(Reply::Simple(row.map_or("none", |row| row.kind.name())))
}

/// What happens when the new name is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Replace,
    Refuse,
}

fn rename(tx: &mut Tx<'_>, args: &Args<'_>, taken: Taken) -> Result<Reply, Stop> {
    let (from, to) = (tx.key(args.get(1)), tx.key(args.get(2)));
    let row = tx.row(from)?.ok_or(ClientError::NO_SUCH_KEY)?;
    let existed = match taken {
        // Replaced without a look, like SET does.
        Taken::Replace => None,
        Taken::Refuse => Some(tx.row(to)?.is_some()),
    };
    if existed == Some(true) {
        return Ok(Reply::Int(0));
    }
    if from != to {
        put_copy(tx, from, &row, to, existed)?;
        tx.delete(from);
    }
    Ok(match taken {
        Taken::Replace => Reply::Ok,
        Taken::Refuse => Reply::Int(1),
    })
}

fn put_copy(
    tx: &mut Tx<'_>,
    from: KeyRef<'_>,
    row: &Row,
    to: KeyRef<'_>,
    existed: Option<bool>,
) -> Result<(), Stop> {
    let copy = any::copy(tx, from, row, to)?;
    tx.put(to, copy, existed);
    Ok(())
}

/// What follows COPY's two keys.
struct CopyOptions {
    table: Option<TableId>,
    replace: bool,
}

impl CopyOptions {
    fn parse(args: &Args<'_>, tables: u32) -> Result<CopyOptions, ClientError> {
        let mut options = CopyOptions { table: None, replace: false };
        let mut index = 3;
        while index < args.len() {
            if args.is(index, "REPLACE") {
                options.replace = true;
            } else if args.is(index, "DB") && index + 1 < args.len() {
                options.table = Some(table(args.get(index + 1), tables)?);
                index += 1;
            } else {
                return Err(ClientError::SYNTAX);
            }
            index += 1;
        }
        Ok(options)
    }
}

/// Arguments that are wrong name no table here: the handler refuses them before it reads a key.
fn copy_keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let table = CopyOptions::parse(args, u32::MAX).ok().and_then(|options| options.table);
    Ok(smallvec![KeyArg { arg: 1, table: None }, KeyArg { arg: 2, table }])
}

fn copy(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let options = CopyOptions::parse(args, tx.scope.tables)?;
    let from = tx.key(args.get(1));
    let to = tx.key_in(options.table.unwrap_or(from.table), args.get(2));
    copy_between(tx, from, to, options.replace).map(Reply::Int)
}

fn move_keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let from = KeyArg { arg: 1, table: None };
    Ok(match table(args.get(2), u32::MAX) {
        Ok(table) => smallvec![from, KeyArg { arg: 1, table: Some(table) }],
        Err(_) => smallvec![from],
    })
}

fn move_key(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let from = tx.key(args.get(1));
    let to = tx.key_in(table(args.get(2), tx.scope.tables)?, args.get(1));
    let moved = copy_between(tx, from, to, false)?;
    if moved == 1 {
        tx.delete(from);
    }
    Ok(Reply::Int(moved))
}

/// 1 if `to` now holds what `from` does, 0 if there is nothing to copy or the name is taken.
fn copy_between(tx: &mut Tx<'_>, from: KeyRef<'_>, to: KeyRef<'_>, replace: bool) -> Result<i64, Stop> {
    if from == to {
        return Err(ClientError::fixed("ERR source and destination objects are the same").into());
    }
    let Some(row) = tx.row(from)? else { return Ok(0) };
    let taken = tx.row(to)?.is_some();
    if taken && !replace {
        return Ok(0);
    }
    put_copy(tx, from, &row, to, Some(taken))?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};

    #[test]
    fn rename_and_copy_take_long_values_along() {
        let mut server = Server::default();
        server.int("SETRANGE long 100000 end", 100_003);
        server.ok("RENAME long other");
        server.int("EXISTS long other other", 2);
        server.int("COPY other third DB 2", 1);
        server.int("COPY other third DB 2", 0);
        server.int("COPY other third REPLACE DB 2 DB 1", 1);
        server.int("UNLINK other other", 1);
        server.int("MOVE third 1", 0);
        server.table = TableId(2);
        server.int("MOVE third 1", 0);
        server.int("MOVE third 0", 1);
        server.table = TableId(0);
        assert_eq!(server.run("GETRANGE third 99998 -1"), Reply::text("\0\0end"));
        assert_eq!(server.run("TYPE third"), Reply::Simple("string"));
    }

    #[test]
    fn renaming_to_itself_needs_the_key() {
        let mut server = Server::default();
        assert_eq!(server.run("RENAME a a"), Reply::Error(ClientError::NO_SUCH_KEY));
        server.ok("SET a 1");
        server.ok("RENAME a a");
        server.int("RENAMENX a a", 0);
        server.int("RENAMENX a b", 1);
        server.int("EXISTS a b", 1);
    }

    #[test]
    fn second_tables_are_found_among_the_arguments() {
        let found = |line: &str| -> Vec<(usize, Option<u32>)> {
            let words = Words::new(line);
            let keys = crate::command::tests::find(&words).spec.keys.of(&words.args()).unwrap();
            keys.iter().map(|key| (key.arg, key.table.map(|table| table.0))).collect()
        };
        assert_eq!(found("COPY a b REPLACE DB 3"), [(1, None), (2, Some(3))]);
        assert_eq!(found("COPY a b DB x"), [(1, None), (2, None)]);
        assert_eq!(found("MOVE a 3"), [(1, None), (1, Some(3))]);
        assert_eq!(found("MOVE a -3"), [(1, None)]);
        assert_eq!(found("MSET a 1 b 2"), [(1, None), (3, None)]);
        assert_eq!(found("OBJECT ENCODING a"), [(2, None)]);
        assert_eq!(found("OBJECT HELP"), []);
    }
}

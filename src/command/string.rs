//! Commands on strings.
//!
//! Arguments in, a reply out; where a value's bytes lie is known to `types::string` alone.

use super::options::{Expiry, SetOptions, TimeForm, getex_expiry, int};
use super::{Group, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::row::{Body, Form, Kind, Row};
use crate::store::tx::{KeyRef, Tx};
use crate::types::string;
use bytes::Bytes;
use std::ops::Range;

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "get",
            arity: 2,
            flags: flag::READONLY | flag::FAST,
            summary: "Value of a key",
            ..ONE_KEY
        },
        run: get,
    },
    KeyCommand {
        spec: Spec {
            name: "set",
            arity: -3,
            flags: flag::WRITE | flag::DENYOOM,
            summary: "Gives a key a value, whatever it held; options set conditions and an end",
            ..ONE_KEY
        },
        run: set,
    },
    KeyCommand {
        spec: Spec {
            name: "setnx",
            arity: 3,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            summary: "Gives a key a value if it has none",
            ..ONE_KEY
        },
        run: setnx,
    },
    KeyCommand {
        spec: Spec {
            name: "setex",
            arity: 4,
            flags: flag::WRITE | flag::DENYOOM,
            since: "2.0.0",
            summary: "Gives a key a value and an end in seconds from now",
            ..ONE_KEY
        },
        run: |tx, args| set_with_end(tx, args, "setex", TimeForm::SECONDS),
    },
    KeyCommand {
        spec: Spec {
            name: "psetex",
            arity: 4,
            flags: flag::WRITE | flag::DENYOOM,
            since: "2.6.0",
            summary: "Gives a key a value and an end in milliseconds from now",
            ..ONE_KEY
        },
        run: |tx, args| set_with_end(tx, args, "psetex", TimeForm::MILLISECONDS),
    },
    KeyCommand {
        spec: Spec {
            name: "getset",
            arity: 3,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            summary: "Gives a key a value and answers the one before",
            ..ONE_KEY
        },
        run: getset,
    },
    KeyCommand {
        spec: Spec {
            name: "getdel",
            arity: 2,
            flags: flag::WRITE | flag::FAST,
            since: "6.2.0",
            summary: "Value of a key, which is then removed",
            ..ONE_KEY
        },
        run: getdel,
    },
    KeyCommand {
        spec: Spec {
            name: "getex",
            arity: -2,
            flags: flag::WRITE | flag::FAST,
            since: "6.2.0",
            summary: "Value of a key, whose end is then set or taken off",
            ..ONE_KEY
        },
        run: getex,
    },
    KeyCommand {
        spec: Spec {
            name: "strlen",
            arity: 2,
            flags: flag::READONLY | flag::FAST,
            since: "2.2.0",
            summary: "Length of a key's value",
            ..ONE_KEY
        },
        run: strlen,
    },
    KeyCommand {
        spec: Spec {
            name: "append",
            arity: 3,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            since: "2.0.0",
            summary: "Adds to the end of a value",
            ..ONE_KEY
        },
        run: append,
    },
    KeyCommand {
        spec: Spec {
            name: "setrange",
            arity: 4,
            flags: flag::WRITE | flag::DENYOOM,
            since: "2.2.0",
            complexity: "O(N) in the bytes written, wherever they go",
            summary: "Writes over a part of a value; a gap before it becomes zeros",
            ..ONE_KEY
        },
        run: setrange,
    },
    KeyCommand {
        spec: Spec {
            name: "getrange",
            arity: 4,
            flags: flag::READONLY,
            since: "2.4.0",
            complexity: "O(N) in the bytes answered",
            summary: "Part of a value; negative positions count from the end",
            ..ONE_KEY
        },
        run: getrange,
    },
    KeyCommand {
        spec: Spec {
            name: "substr",
            arity: 4,
            flags: flag::READONLY,
            complexity: "O(N) in the bytes answered",
            summary: "The old name of GETRANGE",
            ..ONE_KEY
        },
        run: getrange,
    },
    KeyCommand {
        spec: Spec {
            name: "incr",
            arity: 2,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            summary: "Adds one to an integer",
            ..ONE_KEY
        },
        run: |tx, args| add(tx, args, 1),
    },
    KeyCommand {
        spec: Spec {
            name: "decr",
            arity: 2,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            summary: "Takes one from an integer",
            ..ONE_KEY
        },
        run: |tx, args| add(tx, args, -1),
    },
    KeyCommand {
        spec: Spec {
            name: "incrby",
            arity: 3,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            summary: "Adds to an integer",
            ..ONE_KEY
        },
        run: |tx, args| add(tx, args, int(args.get(2))?),
    },
    KeyCommand {
        spec: Spec {
            name: "decrby",
            arity: 3,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            summary: "Takes from an integer",
            ..ONE_KEY
        },
        run: decrby,
    },
    KeyCommand {
        spec: Spec {
            name: "incrbyfloat",
            arity: 3,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            since: "2.6.0",
            summary: "Adds to a number that may have decimals",
            ..ONE_KEY
        },
        run: incrbyfloat,
    },
    KeyCommand {
        spec: Spec {
            name: "mget",
            arity: -2,
            flags: flag::READONLY | flag::FAST | flag::WHOLE_VALUES,
            keys: Keys::Span { first: 1, last: -1, step: 1 },
            complexity: "O(N) where N is the number of keys",
            summary: "Values of several keys",
            ..ONE_KEY
        },
        run: mget,
    },
    KeyCommand {
        spec: Spec {
            name: "mset",
            arity: -3,
            flags: flag::WRITE | flag::DENYOOM,
            keys: Keys::Span { first: 1, last: -1, step: 2 },
            since: "1.0.1",
            complexity: "O(N) where N is the number of keys",
            summary: "Gives several keys values, all at once",
            ..ONE_KEY
        },
        run: mset,
    },
    KeyCommand {
        spec: Spec {
            name: "msetnx",
            arity: -3,
            flags: flag::WRITE | flag::DENYOOM,
            keys: Keys::Span { first: 1, last: -1, step: 2 },
            since: "1.0.1",
            complexity: "O(N) where N is the number of keys",
            summary: "Gives several keys values if none of them has one",
            ..ONE_KEY
        },
        run: msetnx,
    },
];

const ONE_KEY: Spec = Spec { group: Group::String, ..super::ONE_KEY };

/// The living row of a key, which must hold a string.
pub(super) fn string_row(tx: &mut Tx<'_>, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
    tx.row_of(key, Kind::String)
}

fn value_or_nil(tx: &mut Tx<'_>, key: KeyRef<'_>, row: Option<&Row>) -> Result<Reply, Stop> {
    match row {
        Some(row) => string::read(tx, key, row).map(Reply::Bulk),
        None => Ok(Reply::Nil),
    }
}

/// Whether a string is this value; reads it only if it is as long.
pub(super) fn string_holds(tx: &mut Tx<'_>, key: KeyRef<'_>, row: &Row, value: &[u8]) -> Result<bool, Stop> {
    Ok(string::len(row) == value.len() as u64 && string::read(tx, key, row)? == value)
}

/// `existed`: whether the key was there, if that is known.
pub(super) fn put_value(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    value: &[u8],
    expire_ms: Option<u64>,
    existed: Option<bool>,
) -> Result<(), Stop> {
    let row = string::create(tx, key, value)?;
    tx.put(key, Row { expire_ms, ..row }, existed);
    Ok(())
}

fn get(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let row = string_row(tx, key)?;
    value_or_nil(tx, key, row.as_ref())
}

fn set(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let options = SetOptions::parse(args)?;
    let expire_ms = options.expiry.deadline_ms("set", tx.now_ms())?;
    let (key, value) = (tx.key(args.get(1)), args.get(2));
    if options.blind() {
        put_value(tx, key, value, expire_ms, None)?;
        return Ok(Reply::Ok);
    }
    let reads = options.get || options.vx.is_some();
    let row = if reads { string_row(tx, key)? } else { tx.row(key)? };
    if let Some(old) = options.vx {
        let Some(row) = &row else { return Ok(Reply::Int(0)) };
        if !string_holds(tx, key, row, old)? {
            return Ok(Reply::Int(-1));
        }
    }
    let before = match options.get {
        true => Some(value_or_nil(tx, key, row.as_ref())?),
        false => None,
    };
    let exists = row.is_some();
    if options.nx && exists || options.xx && !exists {
        return Ok(before.unwrap_or(Reply::Nil));
    }
    let expire_ms = match options.expiry {
        Expiry::Keep => row.and_then(|row| row.expire_ms),
        _ => expire_ms,
    };
    put_value(tx, key, value, expire_ms, Some(exists))?;
    Ok(match options.vx {
        Some(_) => Reply::Int(1),
        None => before.unwrap_or(Reply::Ok),
    })
}

fn setnx(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    if tx.row(key)?.is_some() {
        return Ok(Reply::Int(0));
    }
    put_value(tx, key, args.get(2), None, Some(false))?;
    Ok(Reply::Int(1))
}

fn set_with_end(tx: &mut Tx<'_>, args: &Args<'_>, command: &str, form: TimeForm) -> Result<Reply, Stop> {
    let expire_ms = form.deadline_ms(command, args.get(2), tx.now_ms())?;
    put_value(tx, tx.key(args.get(1)), args.get(3), Some(expire_ms), None)?;
    Ok(Reply::Ok)
}

fn getset(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let row = string_row(tx, key)?;
    let before = value_or_nil(tx, key, row.as_ref())?;
    put_value(tx, key, args.get(2), None, Some(row.is_some()))?;
    Ok(before)
}

fn getdel(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let Some(row) = string_row(tx, key)? else { return Ok(Reply::Nil) };
    let value = string::read(tx, key, &row)?;
    tx.delete(key);
    Ok(Reply::Bulk(value))
}

fn getex(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let expiry = getex_expiry(args)?;
    let key = tx.key(args.get(1));
    let Some(row) = string_row(tx, key)? else { return Ok(Reply::Nil) };
    let expire_ms = match expiry {
        Expiry::Persist => None,
        _ => expiry.deadline_ms("getex", tx.now_ms())?.or(row.expire_ms),
    };
    let value = string::read(tx, key, &row)?;
    if expire_ms.is_some_and(|at| at <= tx.now_ms()) {
        tx.delete(key);
    } else if expire_ms != row.expire_ms {
        tx.put(key, Row { expire_ms, ..row }, Some(true));
    }
    Ok(Reply::Bulk(value))
}

fn strlen(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let row = string_row(tx, tx.key(args.get(1)))?;
    Ok(length(row.as_ref().map_or(0, string::len)))
}

pub(super) fn length(bytes: u64) -> Reply {
    Reply::Int(i64::try_from(bytes).expect("no value is longer than value_max_bytes"))
}

fn append(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (key, tail) = (tx.key(args.get(1)), args.get(2));
    let Some(row) = string_row(tx, key)? else {
        put_value(tx, key, tail, None, Some(false))?;
        return Ok(length(tail.len() as u64));
    };
    let end = string::len(&row);
    write_at(tx, key, Some(row), end, tail)
}

fn setrange(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (key, data) = (tx.key(args.get(1)), args.get(3));
    let offset =
        u64::try_from(int(args.get(2))?).map_err(|_| ClientError::fixed("ERR offset is out of range"))?;
    let row = string_row(tx, key)?;
    if data.is_empty() {
        return Ok(length(row.as_ref().map_or(0, string::len)));
    }
    write_at(tx, key, row, offset, data)
}

/// Answers the value's length afterwards.
fn write_at(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    row: Option<Row>,
    offset: u64,
    data: &[u8],
) -> Result<Reply, Stop> {
    // An offset is below 2^63, so the sum fits.
    if offset + data.len() as u64 > tx.scope.value_max_bytes {
        return Err(ClientError::STRING_TOO_LONG.into());
    }
    let existed = row.is_some();
    let row = string::write_range(tx, key, row, offset, data)?;
    let len = string::len(&row);
    tx.put(key, row, Some(existed));
    Ok(length(len))
}

fn getrange(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (first, last) = (int(args.get(2))?, int(args.get(3))?);
    let key = tx.key(args.get(1));
    let Some(row) = string_row(tx, key)? else { return Ok(Reply::Bulk(Bytes::new())) };
    string::read_range(tx, key, &row, within(first, last, string::len(&row))).map(Reply::Bulk)
}

/// Positions `first..=last` of a value, where negative ones count from its end, cut to what there is.
fn within(first: i64, last: i64, len: u64) -> Range<u64> {
    let from_start = |position: i64| match u64::try_from(position) {
        Ok(position) => position,
        Err(_) => len.saturating_sub(position.unsigned_abs()),
    };
    // Both before the beginning would otherwise meet on the first byte.
    if first < 0 && last < 0 && first > last {
        return 0..0;
    }
    let (start, end) = (from_start(first), from_start(last).saturating_add(1).min(len));
    if start < end { start..end } else { 0..0 }
}

/// Puts a short value in the place of a row, whose end stays.
fn put_result(tx: &mut Tx<'_>, key: KeyRef<'_>, row: Option<Row>, value: Bytes, form: Form) {
    let expire_ms = row.as_ref().and_then(|row| row.expire_ms);
    tx.put(key, Row { form, expire_ms, ..Row::string(value) }, Some(row.is_some()));
}

/// The value of a row that may hold a number: those in pieces are too long to be one.
fn short_value(row: Option<&Row>) -> Option<&[u8]> {
    match row.map(|row| &row.body) {
        None => Some(b"0"),
        Some(Body::Inline(value)) => Some(value),
        Some(Body::Pieces { .. } | Body::Elements { .. }) => None,
    }
}

fn add(tx: &mut Tx<'_>, args: &Args<'_>, increment: i64) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let row = string_row(tx, key)?;
    let value = short_value(row.as_ref()).and_then(number::parse_i64).ok_or(ClientError::NOT_INTEGER)?;
    let sum = value.checked_add(increment).ok_or(ClientError::OVERFLOW)?;
    put_result(tx, key, row, number::format_i64(sum), Form::Plain);
    Ok(Reply::Int(sum))
}

fn decrby(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let decrement = int(args.get(2))?;
    let increment = decrement.checked_neg().ok_or(ClientError::fixed("ERR decrement would overflow"))?;
    add(tx, args, increment)
}

fn incrbyfloat(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let row = string_row(tx, key)?;
    let value = short_value(row.as_ref()).ok_or(ClientError::NOT_FLOAT)?;
    let sum = number::add_float(value, args.get(2))?;
    put_result(tx, key, row, sum.clone(), Form::Text);
    Ok(Reply::Bulk(sum))
}

fn mget(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let mut values = Vec::with_capacity(args.len() - 1);
    for name in args.iter(1) {
        let key = tx.key(name);
        let row = tx.row(key)?.filter(|row| row.kind == Kind::String);
        values.push(value_or_nil(tx, key, row.as_ref())?);
    }
    Ok(Reply::Array(values))
}

fn pairs<'a>(
    args: &Args<'a>,
    command: &str,
) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])>, ClientError> {
    if args.len().is_multiple_of(2) {
        return Err(ClientError::wrong_arity(command));
    }
    let args = *args;
    Ok((1..args.len()).step_by(2).map(move |index| (args.get(index), args.get(index + 1))))
}

fn mset(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    for (name, value) in pairs(args, "mset")? {
        tx.spend(1)?;
        put_value(tx, tx.key(name), value, None, None)?;
    }
    Ok(Reply::Ok)
}

fn msetnx(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    for (name, _) in pairs(args, "msetnx")? {
        if tx.row(tx.key(name))?.is_some() {
            return Ok(Reply::Int(0));
        }
    }
    for (name, value) in pairs(args, "msetnx")? {
        let key = tx.key(name);
        // The same key may come twice.
        let existed = tx.row(key)?.is_some();
        put_value(tx, key, value, None, Some(existed))?;
    }
    Ok(Reply::Int(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};
    use crate::store::row::STRING_INLINE_MAX_BYTES;
    use crate::store::tx::{Change, Effect};
    use crate::types::memory::scope;

    #[test]
    fn a_plain_set_reads_nothing() {
        let mut server = Server::default();
        for command in ["SET k v", "SET k v EX 100", "SETEX k 10 v", "PSETEX k 10 v", "MSET k v l w"] {
            server.ok(command);
        }
        assert_eq!(server.memory.row_reads, 0);
        for (command, reply) in [
            ("SET k v GET", Reply::text("v")),
            ("SET k v NX", Reply::Nil),
            ("SET k v XX", Reply::Ok),
            ("SET k v KEEPTTL", Reply::Ok),
        ] {
            let before = server.memory.row_reads;
            assert_eq!(server.run(command), reply, "{command}");
            assert_eq!(server.memory.row_reads, before + 1, "{command}");
        }
    }

    #[test]
    fn a_write_says_whether_the_key_was_there_if_it_looked() {
        let mut server = Server::default();
        server.ok("SET old v");
        for (command, existed) in [
            ("SET old v", None),
            ("SETNX new v", Some(false)),
            ("SET old v XX", Some(true)),
            ("GETSET old v", Some(true)),
            ("INCR n", Some(false)),
            ("APPEND old v", Some(true)),
            ("SETRANGE range 5 v", Some(false)),
        ] {
            let words = Words::new(command);
            let run = crate::command::tests::find(&words).run;
            let (reply, effects) = server.memory.run(scope(), |tx| run(tx, &words.args()));
            reply.unwrap();
            assert!(matches!(effects[..], [_]), "{command}");
            assert_eq!(effects[0].existed, existed, "{command}");
        }
    }

    #[test]
    fn overwriting_a_long_value_leaves_its_pieces() {
        let mut server = Server::default();
        let long = vec![b'x'; STRING_INLINE_MAX_BYTES + 1];
        assert_eq!(server.run_words(&Words::of(&[b"SET", b"k", &long])), Reply::Ok);
        let pieces = server.memory.elements.len();
        assert_eq!(pieces, 5);
        let words = Words::new("SET k short");
        let (reply, effects) = server.memory.run(scope(), |tx| set(tx, &words.args()));
        reply.unwrap();
        assert!(matches!(effects[..], [Effect { change: Change::Put(_), .. }]));
        assert_eq!(server.memory.elements.len(), pieces);
        assert_eq!(server.run_words(&Words::of(&[b"GETSET", b"k", &long])), Reply::text("short"));
        assert_eq!(server.run("GETDEL k"), Reply::bulk(long));
        assert_eq!(server.run("GET k"), Reply::Nil);
    }

    #[test]
    fn values_stay_below_the_limit() {
        let mut server = Server::default();
        server.scope.value_max_bytes = 10;
        server.int("SETRANGE k 9 x", 10);
        for command in ["APPEND k y", "SETRANGE k 10 y", "SETRANGE k 9223372036854775807 y"] {
            assert_eq!(server.run(command), Reply::Error(ClientError::STRING_TOO_LONG), "{command}");
        }
        server.int("STRLEN k", 10);
    }

    #[test]
    fn ranges_count_from_both_ends() {
        assert_eq!(within(0, -1, 5), 0..5);
        assert_eq!(within(-2, 10, 5), 3..5);
        assert_eq!(within(0, -100, 5), 0..1);
        assert_eq!(within(-5, -10, 5), 0..0);
        assert_eq!(within(5, 5, 5), 0..0);
        assert_eq!(within(i64::MIN, i64::MAX, 5), 0..5);
        assert_eq!(within(0, 0, 0), 0..0);
    }

    #[test]
    fn many_keys_leave_the_turn() {
        let few = crate::store::tx::Scope { steps_max: 10, ..scope() };
        let mut server = Server::default();
        let mset = Words::new(&format!("MSET {}", ["k v"; 11].join(" ")));
        assert!(matches!(server.memory.run(few, |tx| super::mset(tx, &mset.args())).0, Err(Stop::Long)));
    }

    #[test]
    fn other_types_are_refused() {
        let mut server = Server::default();
        let row = Row { kind: Kind::List, ..Row::string(Bytes::new()) };
        server.memory.rows.insert((server.table, Bytes::from_static(b"list")), row);
        for command in [
            "GET list",
            "SET list v GET",
            "APPEND list v",
            "SETRANGE list 0 v",
            "STRLEN list",
            "GETRANGE list 0 1",
            "GETSET list v",
            "GETDEL list",
            "GETEX list",
            "INCR list",
            "INCRBYFLOAT list 1",
        ] {
            assert_eq!(server.run(command), Reply::Error(ClientError::WRONG_TYPE), "{command}");
        }
        assert_eq!(server.run("MGET list"), Reply::Array(vec![Reply::Nil]));
        server.int("SETNX list v", 0);
        server.ok("SET list v");
    }
}

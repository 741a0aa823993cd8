//! Pika's own commands on one key, with Pika's replies; those over the keys of a table are in
//! `front::admin::ranges`, and `SET key value VX old` is an option of SET.
//!
//! Source: pika_kv.cc and pika_hash.cc of Pika 3.3.6 and 3.5.5. Where Pika keeps a key once for every type,
//! there is one key here: of another type it is refused.

use super::options::{RangeOptions, TimeForm, int};
use super::string::{put_value, string_holds, string_row};
use super::{Group, Handler, KeyCommand, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::limits;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::tx::Tx;
use crate::types::hash::Hash;
use crate::types::stretch::Stretch;

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "pksetexat",
            arity: 4,
            flags: flag::WRITE | flag::DENYOOM,
            group: Group::String,
            since: "3.0.8",
            summary: "Gives a key a value and an end in seconds since 1970; 0 for no end",
            ..super::ONE_KEY
        },
        run: pksetexat,
    },
    KeyCommand {
        spec: Spec {
            name: "delvx",
            arity: 3,
            flags: flag::WRITE | flag::FAST,
            group: Group::String,
            since: "3.0.2",
            summary: "Removes a key if its value is this one",
            ..super::ONE_KEY
        },
        run: delvx,
    },
    on_hash("hscanx", -3, "3.0.3", "Goes through the fields in byte order, from one of them on", hscanx),
    on_hash("pkhscanrange", -4, "3.0.4", "Fields of a range with their values", |tx, args| {
        hash_range(tx, args, false)
    }),
    on_hash(
        "pkhrscanrange",
        -4,
        "3.0.4",
        "Fields of a range with their values, the last first",
        |tx, args| hash_range(tx, args, true),
    ),
];

/// What deletes one key of those that PKPATTERNMATCHDEL has found, if it still is of that type. No client can
/// name it.
pub static DELETE_OF_KIND: KeyCommand = KeyCommand {
    spec: Spec {
        name: "pattern deletion",
        arity: 3,
        flags: flag::WRITE,
        summary: "Deletes a key of a type",
        ..super::ONE_KEY
    },
    run: delete_of_kind,
};

const fn on_hash(
    name: &'static str,
    arity: i32,
    since: &'static str,
    summary: &'static str,
    run: Handler,
) -> KeyCommand {
    // Fields lie by their hashes.
    let complexity = "O(N) in the size of the hash for every call: HSCAN goes through it piece by piece";
    let flags = flag::READONLY;
    KeyCommand {
        spec: Spec { name, arity, flags, group: Group::Hash, since, complexity, summary, ..super::ONE_KEY },
        run,
    }
}

fn pksetexat(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let seconds = int(args.get(2))?;
    let moment_ms = TimeForm::UNIX_SECONDS.moment_ms(seconds, tx.now_ms()).ok_or(ClientError::NOT_INTEGER)?;
    let key = tx.key(args.get(1));
    // Pika writes INCR and APPEND to its log as PKSETEXAT, with a 0 for a key without an end.
    let expire_ms = (moment_ms != 0).then_some(u64::try_from(moment_ms).unwrap_or(0));
    if expire_ms.is_none_or(|at| at > tx.now_ms()) {
        put_value(tx, key, args.get(3), expire_ms, None)?;
    } else if tx.row(key)?.is_some() {
        tx.delete(key);
    }
    Ok(Reply::Ok)
}

fn delvx(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let Some(row) = string_row(tx, key)? else { return Ok(Reply::Int(0)) };
    if !string_holds(tx, key, &row, args.get(2))? {
        return Ok(Reply::Int(-1));
    }
    tx.delete(key);
    Ok(Reply::Int(1))
}

fn hscanx(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let options = RangeOptions::parse_count(args, 3)?;
    let stretch =
        Stretch::new(args.get(2), b"", false).expect("a stretch without an end is none the wrong way");
    fields(tx, args.get(1), &stretch, &options)
}

fn hash_range(tx: &mut Tx<'_>, args: &Args<'_>, backward: bool) -> Result<Reply, Stop> {
    let options = RangeOptions::parse(args, 4, "LIMIT")?;
    let stretch = Stretch::new(args.get(2), args.get(3), backward).ok_or(ClientError::WRONG_RANGE)?;
    fields(tx, args.get(1), &stretch, &options)
}

/// The field to go on with, and those before it that are wanted, each with its value.
fn fields(
    tx: &mut Tx<'_>,
    name: &[u8],
    stretch: &Stretch,
    options: &RangeOptions<'_>,
) -> Result<Reply, Stop> {
    let Some(hash) = Hash::load(tx, tx.key(name))? else { return Ok(Reply::ranged(None, Vec::new())) };
    let mut found = hash.first(tx, stretch, options.limit, limits::RANGE_REPLY_MAX_BYTES)?;
    let (mut told, mut bytes) = (Vec::new(), 0);
    for at in 0..found.entries.len() {
        if bytes > limits::RANGE_REPLY_MAX_BYTES {
            found.cut(at);
            break;
        }
        let field = found.entries[at].0.clone();
        if !options.wants(&field) {
            continue;
        }
        let value =
            hash.get(tx, &field)?.ok_or_else(|| Stop::Fault("a field that was there is gone".into()))?;
        bytes += value.len();
        told.extend([Reply::Bulk(field), Reply::Bulk(value)]);
    }
    Ok(Reply::ranged(found.next, told))
}

fn delete_of_kind(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let of_kind = tx.row(key)?.is_some_and(|row| args.is(2, row.kind.name()));
    if of_kind {
        tx.delete(key);
    }
    Ok(Reply::Int(i64::from(of_kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};
    use std::collections::BTreeMap;

    #[track_caller]
    fn error(server: &mut Server, line: &str, text: &str) {
        match server.run(line) {
            Reply::Error(error) => assert_eq!(error.0, text, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }

    /// As `next: field=value field=value`.
    fn shown(reply: &Reply) -> String {
        let text = |reply: &Reply| match reply {
            Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
            other => panic!("{other:?}"),
        };
        let Reply::Array(parts) = reply else { panic!("{reply:?}") };
        let [next, Reply::Array(fields)] = &parts[..] else { panic!("{reply:?}") };
        let pairs: Vec<_> =
            fields.chunks(2).map(|pair| format!("{}={}", text(&pair[0]), text(&pair[1]))).collect();
        format!("{}: {}", text(next), pairs.join(" "))
    }

    #[test]
    fn values_are_compared_before_they_are_replaced_or_removed() {
        let mut server = Server::default();
        server.int("SET k new VX old", 0);
        server.int("DELVX k old", 0);
        assert!(server.memory.rows.is_empty());
        server.ok("SET k old EX 100");
        server.int("SET k new VX older", -1);
        server.int("SET k new VX old KEEPTTL", 1);
        server.int("TTL k", 100);
        server.int("SET k newer vx new", 1);
        server.int("TTL k", -1);
        server.int("SET k newest EX 10 VX newer", 1);
        server.int("TTL k", 10);
        assert_eq!(server.run("GET k"), Reply::text("newest"));
        server.int("DELVX k newer", -1);
        server.int("DELVX k newest", 1);
        server.int("EXISTS k", 0);
        let long = "x".repeat(200_000);
        server.ok(&format!("SET k {long}"));
        server.int(&format!("DELVX k {}y", &long[1..]), -1);
        server.int(&format!("DELVX k {long}"), 1);
        server.int("LPUSH l 1", 1);
        let wrong = ClientError::WRONG_TYPE.0;
        error(&mut server, "DELVX l 1", &wrong);
        error(&mut server, "SET l 1 VX 1", &wrong);
        for line in
            ["SET k v VX", "SET k v VX a NX", "SET k v XX VX a", "SET k v GET VX a", "SET k v VX a GET"]
        {
            error(&mut server, line, "ERR syntax error");
        }
    }

    #[test]
    fn ends_in_seconds_since_1970_may_be_past_or_none() {
        let mut server = Server::default();
        let now_s = (server.scope.now_ms / 1000) as i64;
        server.ok(&format!("PKSETEXAT k {} v", now_s + 50));
        server.int("TTL k", 50);
        server.ok("PKSETEXAT k 0 w");
        server.int("TTL k", -1);
        assert_eq!(server.run("GET k"), Reply::text("w"));
        for past in [now_s, 1, -1] {
            server.ok("SET k v");
            server.ok(&format!("PKSETEXAT k {past} x"));
            assert!(server.memory.rows.is_empty());
            server.ok(&format!("PKSETEXAT k {past} x"));
        }
        server.int("LPUSH l 1", 1);
        server.ok("PKSETEXAT l 0 v");
        assert_eq!(server.run("GET l"), Reply::text("v"));
        for wrong in ["x", "1.5", "9223372036854775807"] {
            let text = "ERR value is not an integer or out of range";
            error(&mut server, &format!("PKSETEXAT k {wrong} v"), text);
        }
    }

    #[test]
    fn fields_of_a_range_come_in_byte_order() {
        let mut server = Server::default();
        server.int("HSET h b 2 d 4 a 1 c 3", 4);
        for (line, expected) in [
            ("PKHSCANRANGE h b c", ": b=2 c=3"),
            ("PKHSCANRANGE h b c LIMIT 1", "c: b=2"),
            ("PKHSCANRANGE h b zz limit 2", "d: b=2 c=3"),
            ("PKHSCANRANGE h bb zz MATCH d* LIMIT 1", "d: "),
            ("PKHSCANRANGE h x z", ": "),
            ("PKHSCANRANGE none a b", ": "),
            ("PKHRSCANRANGE h c b", ": c=3 b=2"),
            ("PKHRSCANRANGE h cc a LIMIT 2", "a: c=3 b=2"),
            ("PKHRSCANRANGE h z cc", ": d=4"),
            ("HSCANX h bb COUNT 1", "d: c=3"),
            ("HSCANX h a MATCH [ad]", ": a=1 d=4"),
            ("HSCANX h b COUNT 0", "b: "),
            ("HSCANX none a", ": "),
        ] {
            assert_eq!(shown(&server.run(line)), expected, "{line}");
        }
        let all = Words::of(&[b"PKHSCANRANGE", b"h", b"", b""]);
        assert_eq!(shown(&server.run_words(&all)), ": a=1 b=2 c=3 d=4");
        let all = Words::of(&[b"PKHRSCANRANGE", b"h", b"", b"", b"LIMIT", b"3"]);
        assert_eq!(shown(&server.run_words(&all)), "a: d=4 c=3 b=2");
        server.int("LPUSH l 1", 1);
        for (line, text) in [
            ("PKHSCANRANGE h c b", "ERR Invalid argument: error in given range"),
            ("PKHRSCANRANGE h b c", "ERR Invalid argument: error in given range"),
            ("PKHSCANRANGE h b c LIMIT 0", "ERR value is not an integer or out of range"),
            ("PKHSCANRANGE h b c LIMIT x", "ERR value is not an integer or out of range"),
            ("PKHSCANRANGE h b c LIMIT", "ERR syntax error"),
            ("PKHSCANRANGE h b c COUNT 1", "ERR syntax error"),
            ("HSCANX h b COUNT -1", "ERR syntax error"),
            ("HSCANX h b COUNT x", "ERR value is not an integer or out of range"),
            ("HSCANX l b", &ClientError::WRONG_TYPE.0),
        ] {
            error(&mut server, line, text);
        }
    }

    #[test]
    fn going_on_tells_every_living_field_of_a_large_hash_once() {
        let mut server = Server::default();
        let mut model = BTreeMap::new();
        for at in 0..1500 {
            let field = format!("f{}", at * 7919 % 100_003);
            server.int(&format!("HSET h {field} {at}"), 1);
            model.insert(field, at);
        }
        let long = "v".repeat(100_000);
        server.int(&format!("HSET h long {long}"), 1);
        server.run("HPEXPIRE h 5 FIELDS 1 f0");
        server.scope.now_ms += 10;
        assert_eq!(model.remove("f0"), Some(0));
        let expected: Vec<_> =
            model.iter().map(|(field, at)| format!("{field}={at}")).chain([format!("long={long}")]).collect();
        for (command, backward) in [("PKHSCANRANGE", false), ("PKHRSCANRANGE", true)] {
            let (mut from, mut told) = (String::new(), Vec::new());
            loop {
                let words = Words::of(&[command.as_bytes(), b"h", from.as_bytes(), b"", b"LIMIT", b"100"]);
                let piece = shown(&server.run_words(&words));
                let (next, pairs) = piece.split_once(": ").expect("it was made so");
                told.extend(pairs.split(' ').map(str::to_string));
                from = next.to_string();
                if from.is_empty() {
                    break;
                }
            }
            if backward {
                told.reverse();
            }
            assert_eq!(told, expected, "{command}");
        }
    }

    #[test]
    fn a_key_of_another_type_is_not_deleted() {
        let mut server = Server::default();
        server.ok("SET s v");
        let mut delete = |kind: &str| {
            let words = Words::new(&format!("x s {kind}"));
            let scope = server.scope;
            server
                .memory
                .run(scope, |tx| delete_of_kind(tx, &words.args()))
                .0
                .expect("memory answers everything")
        };
        assert_eq!(delete("hash"), Reply::Int(0));
        assert_eq!(delete("string"), Reply::Int(1));
        assert_eq!(delete("string"), Reply::Int(0));
    }
}

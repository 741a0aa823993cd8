//! Commands on one list.
//!
//! Arguments in, a reply out; where a list's items lie is known to `types::list` alone.

use super::answer::Answer;
use super::options::int;
use super::{Group, KeyCommand, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::resp::stream::Shape;
use crate::store::tx::Tx;
use crate::types::list::{End, List, Search};
use std::ops::Range;

const ONE_KEY: Spec = Spec { group: Group::List, ..super::ONE_KEY };

const PUSH: u32 = flag::WRITE | flag::DENYOOM | flag::FAST;

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "lpush",
            arity: -3,
            flags: PUSH,
            complexity: "O(N) where N is the number of items given",
            summary: "Puts items before a list, one before another",
            ..ONE_KEY
        },
        run: |tx, args| push(tx, args, End::Head, false),
    },
    KeyCommand {
        spec: Spec {
            name: "rpush",
            arity: -3,
            flags: PUSH,
            complexity: "O(N) where N is the number of items given",
            summary: "Puts items behind a list",
            ..ONE_KEY
        },
        run: |tx, args| push(tx, args, End::Tail, false),
    },
    KeyCommand {
        spec: Spec {
            name: "lpushx",
            arity: -3,
            flags: PUSH,
            since: "2.2.0",
            complexity: "O(N) where N is the number of items given",
            summary: "Puts items before a list that is there already",
            ..ONE_KEY
        },
        run: |tx, args| push(tx, args, End::Head, true),
    },
    KeyCommand {
        spec: Spec {
            name: "rpushx",
            arity: -3,
            flags: PUSH,
            since: "2.2.0",
            complexity: "O(N) where N is the number of items given",
            summary: "Puts items behind a list that is there already",
            ..ONE_KEY
        },
        run: |tx, args| push(tx, args, End::Tail, true),
    },
    KeyCommand {
        spec: Spec {
            name: "lpop",
            arity: -2,
            flags: flag::WRITE | flag::FAST,
            complexity: "O(N) where N is the number of items answered",
            summary: "Takes items off the head of a list",
            ..ONE_KEY
        },
        run: |tx, args| pop(tx, args, "lpop", End::Head),
    },
    KeyCommand {
        spec: Spec {
            name: "rpop",
            arity: -2,
            flags: flag::WRITE | flag::FAST,
            complexity: "O(N) where N is the number of items answered",
            summary: "Takes items off the tail of a list",
            ..ONE_KEY
        },
        run: |tx, args| pop(tx, args, "rpop", End::Tail),
    },
    KeyCommand {
        spec: Spec {
            name: "llen",
            arity: 2,
            flags: flag::READONLY | flag::FAST,
            summary: "Number of items in a list",
            ..ONE_KEY
        },
        run: llen,
    },
    KeyCommand {
        spec: Spec {
            name: "lindex",
            arity: 3,
            flags: flag::READONLY,
            complexity: "O(log N) in the length of the list, O(1) at its ends",
            summary: "An item by its number; negative numbers count from the tail",
            ..ONE_KEY
        },
        run: lindex,
    },
    KeyCommand {
        spec: Spec {
            name: "lset",
            arity: 4,
            flags: flag::WRITE | flag::DENYOOM,
            complexity: "O(log N) in the length of the list, O(1) at its ends",
            summary: "Puts another item in the place of one",
            ..ONE_KEY
        },
        run: lset,
    },
    KeyCommand {
        spec: Spec {
            name: "linsert",
            arity: 5,
            flags: flag::WRITE | flag::DENYOOM,
            since: "2.2.0",
            complexity: "O(N) in the items before the place",
            summary: "Puts an item before or behind the first one that equals another",
            ..ONE_KEY
        },
        run: linsert,
    },
    KeyCommand {
        spec: Spec {
            name: "lrange",
            arity: 4,
            flags: flag::READONLY | flag::LONG_REPLY,
            complexity: "O(log N + M) in the length of the list and the items answered",
            summary: "Items from one number to another",
            ..ONE_KEY
        },
        run: lrange,
    },
    KeyCommand {
        spec: Spec {
            name: "ltrim",
            arity: 4,
            flags: flag::WRITE,
            complexity: "O(N) in the items removed, O(1) if that is all",
            summary: "Removes all items but those from one number to another",
            ..ONE_KEY
        },
        run: ltrim,
    },
    KeyCommand {
        spec: Spec {
            name: "lrem",
            arity: 4,
            flags: flag::WRITE,
            complexity: "O(N) in the length of the list",
            summary: "Removes items that equal one, so many from either end or all",
            ..ONE_KEY
        },
        run: lrem,
    },
    KeyCommand {
        spec: Spec {
            name: "lpos",
            arity: -3,
            flags: flag::READONLY,
            since: "6.0.6",
            complexity: "O(N) in the items looked at",
            summary: "Numbers of the items that equal one",
            ..ONE_KEY
        },
        run: lpos,
    },
];

/// Positions from one to another, both included and from the end when negative, within `len` items.
fn span(start: i64, stop: i64, len: u64) -> Range<u64> {
    let stop = from_head(stop, len).map_or(0, |stop| stop.saturating_add(1));
    from_head(start, len).unwrap_or(0)..stop.min(len)
}

/// A position from the head, of one that counts from the tail when negative; None before the head.
fn from_head(position: i64, len: u64) -> Option<u64> {
    match u64::try_from(position) {
        Ok(position) => Some(position),
        Err(_) => len.checked_sub(position.unsigned_abs()),
    }
}

fn push(tx: &mut Tx<'_>, args: &Args<'_>, end: End, only_there: bool) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let mut list = match List::load(tx, key)? {
        Some(list) => list,
        None if only_there => return Ok(Reply::Int(0)),
        None => List::new(key),
    };
    list.push(tx, end, &args.iter(2).collect::<Vec<_>>())?;
    let reply = Reply::count(list.len());
    list.save(tx);
    Ok(reply)
}

fn pop(tx: &mut Tx<'_>, args: &Args<'_>, command: &str, end: End) -> Result<Reply, Stop> {
    let count = match args.len() {
        2 => None,
        3 => Some(at_least(args.get(2), 0, "ERR value is out of range, must be positive")?),
        _ => return Err(ClientError::wrong_arity(command).into()),
    };
    let key = tx.key(args.get(1));
    let Some(mut list) = List::load(tx, key)? else {
        return Ok(if count.is_some() { Reply::NilArray } else { Reply::Nil });
    };
    let mut items = list.pop(tx, end, count.unwrap_or(1))?;
    list.save(tx);
    Ok(match count {
        Some(_) => Reply::bulks(items),
        None => items.pop().map_or(Reply::Nil, Reply::Bulk),
    })
}

/// A number that must not be less than another; anything else is refused with one text.
pub(super) fn at_least(arg: &[u8], least: i64, otherwise: &'static str) -> Result<u64, ClientError> {
    let number = number::parse_i64(arg).filter(|number| *number >= least);
    number.map(i64::unsigned_abs).ok_or(ClientError::fixed(otherwise))
}

fn llen(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    Ok(List::load(tx, key)?.map_or(Reply::Int(0), |list| Reply::count(list.len())))
}

fn lindex(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let Some(list) = List::load(tx, key)? else { return Ok(Reply::Nil) };
    let Some(index) = from_head(int(args.get(2))?, list.len()) else { return Ok(Reply::Nil) };
    Ok(list.get(tx, index)?.map_or(Reply::Nil, Reply::Bulk))
}

fn lset(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let mut list = List::load(tx, key)?.ok_or(ClientError::NO_SUCH_KEY)?;
    let index = from_head(int(args.get(2))?, list.len()).ok_or(ClientError::OUT_OF_RANGE)?;
    if !list.set(tx, index, args.get(3))? {
        return Err(ClientError::OUT_OF_RANGE.into());
    }
    list.save(tx);
    Ok(Reply::Ok)
}

fn linsert(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let behind = match (args.is(2, "before"), args.is(2, "after")) {
        (true, _) => false,
        (_, true) => true,
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let key = tx.key(args.get(1));
    let Some(mut list) = List::load(tx, key)? else { return Ok(Reply::Int(0)) };
    if !list.insert(tx, args.get(3), behind, args.get(4))? {
        return Ok(Reply::Int(-1));
    }
    let reply = Reply::count(list.len());
    list.save(tx);
    Ok(reply)
}

fn lrange(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (start, stop) = (int(args.get(2))?, int(args.get(3))?);
    let key = tx.key(args.get(1));
    let Some(list) = List::load(tx, key)? else { return Ok(Reply::Array(Vec::new())) };
    let range = span(start, stop, list.len());
    let mut answer = Answer::new(tx, Shape::Array, range.end.saturating_sub(range.start))?;
    list.visit_range(tx, range, &mut |tx, item| answer.push(Reply::Bulk(item.read(tx)?)).map(|()| true))?;
    answer.finish()
}

fn ltrim(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (start, stop) = (int(args.get(2))?, int(args.get(3))?);
    let key = tx.key(args.get(1));
    if let Some(mut list) = List::load(tx, key)? {
        let keep = span(start, stop, list.len());
        list.trim(tx, keep)?;
        list.save(tx);
    }
    Ok(Reply::Ok)
}

/// An integer whose sign says from which end to begin.
fn signed(arg: &[u8]) -> Result<(End, u64), ClientError> {
    let number = int(arg)?;
    Ok((if number < 0 { End::Tail } else { End::Head }, number.unsigned_abs()))
}

/// Zero stands for all.
fn or_all(count: u64) -> u64 {
    if count == 0 { u64::MAX } else { count }
}

fn lrem(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (from, most) = signed(args.get(2))?;
    let key = tx.key(args.get(1));
    let Some(mut list) = List::load(tx, key)? else { return Ok(Reply::Int(0)) };
    let removed = list.remove(tx, args.get(3), from, or_all(most))?;
    list.save(tx);
    Ok(Reply::Int(removed as i64))
}

fn lpos(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let ((mut from, mut rank), mut count, mut items) = ((End::Head, 1), None, 0);
    for at in (3..args.len()).step_by(2) {
        let Some(value) = (at + 1 < args.len()).then(|| args.get(at + 1)) else {
            return Err(ClientError::SYNTAX.into());
        };
        if args.is(at, "rank") {
            (from, rank) = signed(value)?;
            if rank == 0 {
                return Err(ClientError::fixed(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or \
                     use negative to start from the end of the list",
                )
                .into());
            }
        } else if args.is(at, "count") {
            count = Some(at_least(value, 0, "ERR COUNT can't be negative")?);
        } else if args.is(at, "maxlen") {
            items = at_least(value, 0, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(ClientError::SYNTAX.into());
        }
    }
    let key = tx.key(args.get(1));
    let mut found = Vec::new();
    if let Some(list) = List::load(tx, key)? {
        let (skip, matches) = (rank - 1, or_all(count.unwrap_or(1)));
        found = list.positions(tx, args.get(2), Search { from, skip, matches, items: or_all(items) })?;
    }
    let mut found = found.into_iter().map(|index| Reply::Int(index as i64));
    Ok(match count {
        Some(_) => Reply::Array(found.collect()),
        None => found.next().unwrap_or(Reply::Nil),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};

    #[track_caller]
    fn list(server: &mut Server, line: &str, expected: &str) {
        let expected = expected.split_terminator(' ').map(Reply::text).collect();
        assert_eq!(server.run(line), Reply::Array(expected), "{line}");
    }

    #[track_caller]
    fn error(server: &mut Server, line: &str, expected: &'static str) {
        assert_eq!(server.run(line), Reply::Error(ClientError::fixed(expected)), "{line}");
    }

    const NOT_INTEGER: &str = "ERR value is not an integer or out of range";
    const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
    const NOT_POSITIVE: &str = "ERR value is out of range, must be positive";

    #[test]
    fn items_come_and_go_at_both_ends() {
        let mut server = Server::default();
        server.int("LPUSHX l a", 0);
        server.int("RPUSH l a b c", 3);
        server.int("LPUSH l 1 2", 5);
        server.int("RPUSHX l d", 6);
        list(&mut server, "LRANGE l 0 -1", "2 1 a b c d");
        list(&mut server, "LRANGE l -100 2", "2 1 a");
        list(&mut server, "LRANGE l -2 100", "c d");
        for empty in ["LRANGE l 3 2", "LRANGE l 6 9", "LRANGE l 0 -7", "LRANGE no 0 1", "LPOP l 0"] {
            list(&mut server, empty, "");
        }
        list(&mut server, "LPOP l 2", "2 1");
        list(&mut server, "RPOP l 2", "d c");
        assert_eq!(server.run("RPOP l"), Reply::text("b"));
        list(&mut server, "LPOP l 7", "a");
        assert_eq!(server.run("LPOP l"), Reply::Nil);
        assert_eq!(server.run("LPOP l 0"), Reply::NilArray);
        server.int("EXISTS l", 0);
        server.int("LLEN l", 0);
    }

    #[test]
    fn items_by_number() {
        let mut server = Server::default();
        server.int("RPUSH l a b c", 3);
        for (index, expected) in [("0", "a"), ("-1", "c"), ("-3", "a"), ("2", "c")] {
            assert_eq!(server.run(&format!("LINDEX l {index}")), Reply::text(expected));
        }
        for index in ["3", "-4", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(server.run(&format!("LINDEX l {index}")), Reply::Nil);
            error(&mut server, &format!("LSET l {index} x"), "ERR index out of range");
        }
        server.ok("LSET l -2 x");
        server.int("LINSERT l before x w", 4);
        server.int("LINSERT l AFTER x y", 5);
        server.int("LINSERT l AFTER z y", -1);
        server.int("LINSERT no AFTER z y", 0);
        list(&mut server, "LRANGE l 0 -1", "a w x y c");
        server.ok("LTRIM l 1 -2");
        list(&mut server, "LRANGE l 0 -1", "w x y");
        server.ok("LTRIM l -5 5");
        server.int("LLEN l", 3);
        server.ok("LTRIM l 3 5");
        server.ok("LTRIM l 3 5");
        server.int("EXISTS l", 0);
    }

    #[test]
    fn items_by_value() {
        let mut server = Server::default();
        server.int("RPUSH l a b c a b c", 6);
        for (options, expected) in [
            ("", Some(0)),
            (" RANK 2", Some(3)),
            (" RANK 3", None),
            (" RANK -1", Some(3)),
            (" RANK -9223372036854775807", None),
            (" RANK 1 RANK 2", Some(3)),
            (" MAXLEN 1 RANK -1", None),
        ] {
            let expected = expected.map_or(Reply::Nil, Reply::Int);
            assert_eq!(server.run(&format!("LPOS l a{options}")), expected, "{options}");
        }
        for (options, expected) in [
            ("c COUNT 0", &[2, 5][..]),
            ("c COUNT 0 RANK -1", &[5, 2]),
            ("c COUNT 0 MAXLEN 5", &[2]),
            ("c COUNT 1", &[2]),
            ("c RANK 2 COUNT 5", &[5]),
            ("z COUNT 1", &[]),
        ] {
            let expected = expected.iter().map(|index| Reply::Int(*index)).collect();
            assert_eq!(server.run(&format!("LPOS l {options}")), Reply::Array(expected), "{options}");
        }
        assert_eq!(server.run("LPOS no a"), Reply::Nil);
        list(&mut server, "LPOS no a COUNT 0", "");
        server.int("LREM l -1 a", 1);
        list(&mut server, "LRANGE l 0 -1", "a b c b c");
        server.int("LREM l 1 b", 1);
        list(&mut server, "LRANGE l 0 -1", "a c b c");
        server.int("LREM l 0 c", 2);
        server.int("LREM l 0 c", 0);
        server.int("LREM no 0 c", 0);
        list(&mut server, "LRANGE l 0 -1", "a b");
    }

    #[test]
    fn mistakes_are_told_in_the_order_of_redis_server() {
        let mut server = Server::default();
        server.ok("SET s x");
        server.int("RPUSH l a", 1);
        for line in ["LPUSH s a", "LPUSHX s a", "LLEN s", "LPOP s", "LPOP s 0", "LINDEX s x", "LSET s x y"] {
            error(&mut server, line, WRONG_TYPE);
        }
        for line in ["LRANGE s 0 1", "LTRIM s 0 1", "LREM s 1 a", "LINSERT s before a b", "LPOS s a"] {
            error(&mut server, line, WRONG_TYPE);
        }
        for line in ["LPOP no x", "LPOP s -1", "RPOP l x"] {
            error(&mut server, line, NOT_POSITIVE);
        }
        for line in
            ["LINDEX l x", "LSET l x y", "LRANGE s 0 y", "LTRIM no x 1", "LREM s x a", "LPOS s a rank x"]
        {
            error(&mut server, line, NOT_INTEGER);
        }
        assert_eq!(server.run("LINDEX no x"), Reply::Nil);
        error(&mut server, "LSET no x y", "ERR no such key");
        error(&mut server, "LPOP no 1 2", "ERR wrong number of arguments for 'lpop' command");
        error(&mut server, "LINSERT no foo a b", "ERR syntax error");
        error(&mut server, "LPOS s a COUNT", "ERR syntax error");
        error(&mut server, "LPOS s a WHAT 1", "ERR syntax error");
        error(&mut server, "LPOS s a COUNT x", "ERR COUNT can't be negative");
        error(&mut server, "LPOS s a MAXLEN -1", "ERR MAXLEN can't be negative");
        let zero = "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                    negative to start from the end of the list";
        error(&mut server, "LPOS s a RANK 0", zero);
    }

    #[test]
    fn long_items_and_empty_ones() {
        let mut server = Server::default();
        let long = vec![b'x'; 200_000];
        for command in [&b"RPUSH"[..], b"LPUSH"] {
            server.run_words(&Words::of(&[command, b"l", &long, b"", b"a"]));
        }
        assert_eq!(server.run_words(&Words::of(&[b"LPOS", b"l", &long, b"RANK", b"-1"])), Reply::Int(3));
        assert_eq!(server.run("LINDEX l 2"), Reply::bulk(long.clone()));
        assert_eq!(server.run("LINDEX l 1"), Reply::text(""));
        assert_eq!(server.run_words(&Words::of(&[b"LREM", b"l", b"-1", &long])), Reply::Int(1));
        server.ok("LSET l 2 short");
        assert!(server.memory.elements.keys().all(|(.., sub)| sub[0] != 127));
        list(&mut server, "LRANGE l 0 -1", "a  short  a");
    }
}

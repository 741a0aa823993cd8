//! Commands that take from one list for another, or from whichever of several has something.
//!
//! The forms that wait serve what is there, and otherwise say what they would wait for: a handler cannot wait.

use super::options::{ManyPop, timeout_ms};
use super::{Group, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::tx::{KeyRef, Tx};
use crate::types::list::{End, List};
use bytes::Bytes;

const SEVERAL_KEYS: Spec = Spec { group: Group::List, ..super::ONE_KEY };

const TWO: Keys = Keys::Span { first: 1, last: 2, step: 1 };
const MOVE: u32 = flag::WRITE | flag::DENYOOM | flag::ANY_VALUES;
const WAITING: u32 = flag::NOSCRIPT | flag::BLOCKING;

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "lmove",
            arity: 5,
            flags: MOVE,
            keys: TWO,
            since: "6.2.0",
            summary: "Moves an item from an end of one list to an end of another, or of the same",
            ..SEVERAL_KEYS
        },
        run: |tx, args| move_item(tx, args, ends(args)?, Reply::Nil),
    },
    KeyCommand {
        spec: Spec {
            name: "blmove",
            arity: 6,
            flags: MOVE | WAITING,
            keys: TWO,
            since: "6.2.0",
            summary: "As LMOVE, but waits for an item",
            ..SEVERAL_KEYS
        },
        run: |tx, args| {
            let ends = ends(args)?;
            move_item(tx, args, ends, Reply::waits(timeout_ms(args.get(5))?, Reply::NilArray, [1]))
        },
    },
    KeyCommand {
        spec: Spec {
            name: "rpoplpush",
            arity: 3,
            flags: MOVE,
            keys: TWO,
            since: "1.2.0",
            summary: "Moves the last item of one list before the first of another, or of the same",
            ..SEVERAL_KEYS
        },
        run: |tx, args| move_item(tx, args, TAIL_TO_HEAD, Reply::Nil),
    },
    KeyCommand {
        spec: Spec {
            name: "brpoplpush",
            arity: 4,
            flags: MOVE | WAITING,
            keys: TWO,
            since: "2.2.0",
            summary: "As RPOPLPUSH, but waits for an item",
            ..SEVERAL_KEYS
        },
        run: |tx, args| {
            let nothing = Reply::waits(timeout_ms(args.get(3))?, Reply::NilArray, [1]);
            move_item(tx, args, TAIL_TO_HEAD, nothing)
        },
    },
    KeyCommand {
        spec: Spec {
            name: "blpop",
            arity: -3,
            flags: flag::WRITE | flag::ANY_VALUES | WAITING,
            keys: Keys::Span { first: 1, last: -2, step: 1 },
            since: "2.0.0",
            complexity: "O(N) where N is the number of keys",
            summary: "Takes the first item of the first list that has one, and waits if none has",
            ..SEVERAL_KEYS
        },
        run: |tx, args| pop_waiting(tx, args, End::Head),
    },
    KeyCommand {
        spec: Spec {
            name: "brpop",
            arity: -3,
            flags: flag::WRITE | flag::ANY_VALUES | WAITING,
            keys: Keys::Span { first: 1, last: -2, step: 1 },
            since: "2.0.0",
            complexity: "O(N) where N is the number of keys",
            summary: "Takes the last item of the first list that has one, and waits if none has",
            ..SEVERAL_KEYS
        },
        run: |tx, args| pop_waiting(tx, args, End::Tail),
    },
    KeyCommand {
        spec: Spec {
            name: "lmpop",
            arity: -4,
            flags: flag::WRITE | flag::ANY_VALUES,
            keys: Keys::Find(|args| ManyPop::keys(args, 1)),
            since: "7.0.0",
            complexity: "O(N + M) in the keys and the items answered",
            summary: "Takes items off the first of several lists that has any",
            ..SEVERAL_KEYS
        },
        run: |tx, args| pop_several(tx, args, 1),
    },
    KeyCommand {
        spec: Spec {
            name: "blmpop",
            arity: -5,
            flags: flag::WRITE | flag::ANY_VALUES | flag::BLOCKING,
            keys: Keys::Find(|args| ManyPop::keys(args, 2)),
            since: "7.0.0",
            complexity: "O(N + M) in the keys and the items answered",
            summary: "As LMPOP, but waits if no list has any",
            ..SEVERAL_KEYS
        },
        run: |tx, args| pop_several(tx, args, 2),
    },
];

/// Where an item is taken from, and where it goes.
type Ends = (End, End);

/// The words for the head and the tail.
const ENDS: [&str; 2] = ["LEFT", "RIGHT"];

const TAIL_TO_HEAD: Ends = (End::Tail, End::Head);

fn end(args: &Args<'_>, at: usize) -> Result<End, ClientError> {
    match (args.is(at, "left"), args.is(at, "right")) {
        (true, _) => Ok(End::Head),
        (_, true) => Ok(End::Tail),
        _ => Err(ClientError::SYNTAX),
    }
}

fn ends(args: &Args<'_>) -> Result<Ends, ClientError> {
    Ok((end(args, 3)?, end(args, 4)?))
}

/// `nothing`: answered when there is no item to move.
fn move_item(tx: &mut Tx<'_>, args: &Args<'_>, (from, to): Ends, nothing: Reply) -> Result<Reply, Stop> {
    let (source, target) = (tx.key(args.get(1)), tx.key(args.get(2)));
    let Some(mut list) = List::load(tx, source)? else { return Ok(nothing) };
    let item = if source == target {
        rotate(tx, &mut list, from, to)?
    } else {
        let mut other = List::load_or_new(tx, target)?;
        let item = list.pop(tx, from, 1)?.pop();
        other.push(tx, to, &item.iter().map(|item| &item[..]).collect::<Vec<_>>())?;
        other.save(tx);
        item
    };
    list.save(tx);
    Ok(item.map_or(nothing, Reply::Bulk))
}

fn rotate(tx: &mut Tx<'_>, list: &mut List<'_>, from: End, to: End) -> Result<Option<Bytes>, Stop> {
    let item = list.pop(tx, from, 1)?.pop();
    if let Some(item) = &item {
        list.push(tx, to, &[item])?;
    }
    Ok(item)
}

fn pop_waiting(tx: &mut Tx<'_>, args: &Args<'_>, end: End) -> Result<Reply, Stop> {
    let timeout_at = args.len() - 1;
    let timeout_ms = timeout_ms(args.get(timeout_at))?;
    let names = (1..timeout_at).map(|at| args.get(at));
    Ok(match pop_first(tx, names, end, 1)? {
        Some((key, items)) => Reply::bulks([Bytes::copy_from_slice(key.name)].into_iter().chain(items)),
        None => Reply::waits(timeout_ms, Reply::NilArray, 1..timeout_at),
    })
}

/// Up to `count` items of the first list that has any, and its key.
fn pop_first<'a>(
    tx: &mut Tx<'_>,
    names: impl Iterator<Item = &'a [u8]>,
    end: End,
    count: u64,
) -> Result<Option<(KeyRef<'a>, Vec<Bytes>)>, Stop> {
    for name in names {
        let key = tx.key(name);
        let Some(mut list) = List::load(tx, key)? else { continue };
        let items = list.pop(tx, end, count)?;
        list.save(tx);
        return Ok(Some((key, items)));
    }
    Ok(None)
}

/// `at`: where the number of keys stands, 2 if behind a time to wait.
fn pop_several(tx: &mut Tx<'_>, args: &Args<'_>, at: usize) -> Result<Reply, Stop> {
    let ManyPop { keys, second_end, count } = ManyPop::parse(args, at, ENDS)?;
    let end = if second_end { End::Tail } else { End::Head };
    let nothing = match at {
        2 => Reply::waits(timeout_ms(args.get(1))?, Reply::NilArray, keys.clone()),
        _ => Reply::NilArray,
    };
    Ok(match pop_first(tx, keys.map(|arg| args.get(arg)), end, count)? {
        Some((key, items)) => {
            Reply::Array(vec![Reply::bulk(Bytes::copy_from_slice(key.name)), Reply::bulks(items)])
        }
        None => nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words, find};

    fn texts(items: &[&str]) -> Reply {
        Reply::Array(items.iter().map(|item| Reply::text(item)).collect())
    }

    #[test]
    fn items_move_between_lists_and_within_one() {
        let mut server = Server::default();
        server.int("RPUSH a 1 2 3", 3);
        assert_eq!(server.run("LMOVE a b LEFT RIGHT"), Reply::text("1"));
        assert_eq!(server.run("BLMOVE a b RIGHT left 0"), Reply::text("3"));
        assert_eq!(server.run("RPOPLPUSH a a"), Reply::text("2"));
        assert_eq!(server.run("BRPOPLPUSH a b 1"), Reply::text("2"));
        server.int("EXISTS a", 0);
        assert_eq!(server.run("LRANGE b 0 -1"), texts(&["2", "3", "1"]));
        assert_eq!(server.run("RPOPLPUSH b b"), Reply::text("1"));
        assert_eq!(server.run("LMOVE b b RIGHT RIGHT"), Reply::text("3"));
        assert_eq!(server.run("LRANGE b 0 -1"), texts(&["1", "2", "3"]));
        assert_eq!(server.run("LMOVE a b LEFT LEFT"), Reply::Nil);
        assert_eq!(server.run("BLMOVE a b LEFT LEFT 0.01"), Reply::NilArray);
        assert_eq!(server.run("BRPOPLPUSH a b 0.01"), Reply::NilArray);
    }

    #[test]
    fn a_long_list_turns_round() {
        let mut server = Server::default();
        for number in 0..1000 {
            server.int(&format!("RPUSH l {number}"), number + 1);
        }
        for number in (0..1000).rev() {
            assert_eq!(server.run("RPOPLPUSH l l"), Reply::text(&number.to_string()));
        }
        for number in 0..999 {
            assert_eq!(server.run("LMOVE l m LEFT RIGHT"), Reply::text(&number.to_string()));
        }
        assert_eq!(server.run("RPOPLPUSH l l"), Reply::text("999"));
        assert_eq!(server.run("LRANGE l 0 -1"), texts(&["999"]));
        assert_eq!(server.run("LINDEX m 500"), Reply::text("500"));
    }

    #[test]
    fn the_first_list_with_something_serves() {
        let mut server = Server::default();
        server.int("RPUSH b 1 2 3 4 5 6", 6);
        assert_eq!(server.run("BLPOP a b 0"), texts(&["b", "1"]));
        assert_eq!(server.run("BRPOP b a 0"), texts(&["b", "6"]));
        let both = |items: &[&str]| Reply::Array(vec![Reply::text("b"), texts(items)]);
        assert_eq!(server.run("LMPOP 2 a b LEFT"), both(&["2"]));
        assert_eq!(server.run("LMPOP 1 b RIGHT COUNT 2"), both(&["5", "4"]));
        assert_eq!(server.run("BLMPOP 0 2 a b LEFT COUNT 9"), both(&["3"]));
        for line in ["BLPOP a b 0.1", "BRPOP a 1", "LMPOP 1 a LEFT", "BLMPOP 1 1 a LEFT"] {
            assert_eq!(server.run(line), Reply::NilArray, "{line}");
        }
    }

    #[test]
    fn mistakes_are_told_in_the_order_of_redis_server() {
        let mut server = Server::default();
        server.ok("SET s x");
        server.int("RPUSH l a b c", 3);
        let wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value";
        let syntax = "ERR syntax error";
        let keys = "ERR numkeys should be greater than 0";
        let count = "ERR count should be greater than 0";
        let float = "ERR timeout is not a float or out of range";
        for (line, expected) in [
            ("LMOVE no s left up", syntax),
            ("LMOVE s l left right", wrong_type),
            ("LMOVE l s left right", wrong_type),
            ("RPOPLPUSH l s", wrong_type),
            ("BLMOVE no l left x 0", syntax),
            ("BLMOVE no l left right x", float),
            ("BLMOVE l s left right 1", wrong_type),
            ("BRPOPLPUSH l s x", float),
            ("BRPOPLPUSH s l 1", wrong_type),
            ("BLPOP no s l 1", wrong_type),
            ("BLPOP s x", float),
            ("BRPOP no l -1", "ERR timeout is negative"),
            ("LMPOP 0 a left", keys),
            ("LMPOP x a left", keys),
            ("LMPOP 2 l left", syntax),
            ("LMPOP 9223372036854775807 l left", syntax),
            ("LMPOP 1 l up", syntax),
            ("LMPOP 1 l left COUNT 0", count),
            ("LMPOP 1 l left COUNT x", count),
            ("LMPOP 1 l left COUNT 0 COUNT 2", count),
            ("LMPOP 1 l left COUNT 1 COUNT 2", syntax),
            ("LMPOP 1 l left COUNT", syntax),
            ("LMPOP 1 l left foo", syntax),
            ("LMPOP 2 no s left", wrong_type),
            ("BLMPOP x 1 s left", float),
            ("BLMPOP 1 0 no up", keys),
            ("BLMPOP x 0 no up", keys),
            ("BLMPOP -1 1 no left COUNT", syntax),
        ] {
            assert_eq!(server.run(line), Reply::Error(ClientError::fixed(expected)), "{line}");
        }
        assert_eq!(server.run("LMOVE no s left left"), Reply::Nil);
        server.int("LLEN l", 3);
    }

    #[test]
    fn keys_stand_behind_their_number() {
        let found = |line: &str| -> Vec<usize> {
            let words = Words::new(line);
            find(&words).spec.keys.of(&words.args()).unwrap().iter().map(|key| key.arg).collect()
        };
        assert_eq!(found("LMPOP 2 a b LEFT"), [2, 3]);
        assert_eq!(found("BLMPOP 0 2 a b LEFT COUNT 3"), [3, 4]);
        assert!(found("LMPOP 3 a b LEFT").is_empty() && found("LMPOP x a LEFT").is_empty());
        assert_eq!(found("BLPOP a b 1"), [1, 2]);
    }
}

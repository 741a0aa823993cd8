//! Commands that take from one list for another, or from whichever of several has something.
//!
//! The forms that wait serve what is there, and otherwise answer as when the time is up: a handler cannot wait.

use super::list::{at_least, bulks};
use super::options::timeout_ms;
use super::{Group, KeyArg, KeyArgs, KeyCommand, Keys, Spec, flag};
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
            timeout_ms(args.get(5))?;
            move_item(tx, args, ends, Reply::NilArray)
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
            timeout_ms(args.get(3))?;
            move_item(tx, args, TAIL_TO_HEAD, Reply::NilArray)
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
            keys: Keys::Find(|args| Ok(numbered_keys(args, 1))),
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
            keys: Keys::Find(|args| Ok(numbered_keys(args, 2))),
            since: "7.0.0",
            complexity: "O(N + M) in the keys and the items answered",
            summary: "As LMPOP, but waits if no list has any",
            ..SEVERAL_KEYS
        },
        run: |tx, args| {
            timeout_ms(args.get(1))?;
            pop_several(tx, args, 2)
        },
    },
];

/// Where an item is taken from, and where it goes.
type Ends = (End, End);

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
    timeout_ms(args.get(timeout_at))?;
    let names = (1..timeout_at).map(|at| args.get(at));
    Ok(match pop_first(tx, names, end, 1)? {
        Some((key, items)) => bulks([Bytes::copy_from_slice(key.name)].into_iter().chain(items).collect()),
        None => Reply::NilArray,
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

/// Keys behind their number, which is argument `at`: none if the number is wrong, which the handler refuses.
fn numbered_keys(args: &Args<'_>, at: usize) -> KeyArgs {
    let keys = numbered(args, at).map_or(0..0, |count| at + 1..at + 1 + count);
    keys.map(|arg| KeyArg { arg, table: None }).collect()
}

/// How many keys stand behind their number; at least one argument comes behind them.
fn numbered(args: &Args<'_>, at: usize) -> Result<usize, ClientError> {
    let count = at_least(args.get(at), 1, "ERR numkeys should be greater than 0")?;
    let most = args.len().saturating_sub(at + 2);
    usize::try_from(count).ok().filter(|count| *count <= most).ok_or(ClientError::SYNTAX)
}

fn pop_several(tx: &mut Tx<'_>, args: &Args<'_>, at: usize) -> Result<Reply, Stop> {
    let keys = at + 1..at + 1 + numbered(args, at)?;
    let end = end(args, keys.end)?;
    let count = match args.len() - keys.end - 1 {
        0 => 1,
        more => {
            if more < 2 || !args.is(keys.end + 1, "count") {
                return Err(ClientError::SYNTAX.into());
            }
            let count = at_least(args.get(keys.end + 2), 1, "ERR count should be greater than 0")?;
            if more > 2 {
                return Err(ClientError::SYNTAX.into());
            }
            count
        }
    };
    Ok(match pop_first(tx, keys.map(|arg| args.get(arg)), end, count)? {
        Some((key, items)) => Reply::Array(vec![Reply::bulk(Bytes::copy_from_slice(key.name)), bulks(items)]),
        None => Reply::NilArray,
    })
}

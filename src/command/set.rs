//! Commands on sets.

use super::answer::{Answer, scan};
use super::options::{int, random_count};
use super::{Group, Handler, KeyArg, KeyArgs, KeyCommand, Keys, flag, name_fits};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::resp::stream::Shape;
use crate::store::tx::{KeyRef, Tx};
use crate::types::set::Set;
use bytes::Bytes;
use rustc_hash::FxHashSet;

pub const COMMANDS: &[KeyCommand] = &[
    SET.row(
        "sadd",
        -3,
        WRITE | flag::DENYOOM | flag::FAST,
        "1.0.0",
        "O(N) in the members given",
        "Puts members in",
        sadd,
    ),
    SET.row("srem", -3, WRITE | flag::FAST, "1.0.0", "O(N) in the members given", "Takes members out", srem),
    SET.row("sismember", 3, READ | flag::FAST, "1.0.0", "O(1)", "Whether a member is there", sismember),
    SET.row(
        "smismember",
        -3,
        READ | flag::FAST,
        "6.2.0",
        "O(N) in the members asked for",
        "Which members are there",
        smismember,
    ),
    SET.row("scard", 2, READ | flag::FAST, "1.0.0", "O(1)", "Number of members", scard),
    SET.row(
        "smembers",
        2,
        READ | flag::LONG_REPLY,
        "1.0.0",
        "O(N) in the size of the set",
        "All members",
        smembers,
    ),
    SET.row(
        "spop",
        -2,
        WRITE | flag::FAST,
        "1.0.0",
        "O(N) in the members answered",
        "Takes members out by chance",
        spop,
    ),
    SET.row(
        "srandmember",
        -2,
        READ | flag::LONG_REPLY,
        "1.0.0",
        "O(N) in the members answered",
        "Members by chance",
        srandmember,
    ),
    SET.row(
        "sscan",
        -3,
        READ,
        "2.8.0",
        "O(1) for every call",
        "Goes through the members piece by piece",
        sscan,
    ),
    SET.row(
        "smove",
        4,
        WRITE | flag::FAST | flag::ANY_VALUES,
        "1.0.0",
        "O(1)",
        "Moves a member to another set",
        smove,
    )
    .with_keys(Keys::Span { first: 1, last: 2, step: 1 }),
    combining("sinter", "Members that all of the sets have", |tx, args| answer(tx, args, Combination::Inter)),
    combining("sunion", "Members that any of the sets has", |tx, args| answer(tx, args, Combination::Union)),
    combining("sdiff", "Members of the first set that no other has", |tx, args| {
        answer(tx, args, Combination::Diff)
    }),
    storing("sinterstore", "As SINTER, into a key", |tx, args| store(tx, args, Combination::Inter)),
    storing("sunionstore", "As SUNION, into a key", |tx, args| store(tx, args, Combination::Union)),
    storing("sdiffstore", "As SDIFF, into a key", |tx, args| store(tx, args, Combination::Diff)),
    SET.row(
        "sintercard",
        -3,
        READ | flag::ANY_VALUES,
        "7.0.0",
        COMBINING,
        "Number of members that all of the sets have",
        sintercard,
    )
    .with_keys(Keys::Find(counted_keys)),
];

const SET: Group = Group::Set;
const ALL: Keys = Keys::Span { first: 1, last: -1, step: 1 };
const READ: u32 = flag::READONLY;
const WRITE: u32 = flag::WRITE;
/// SPOP that leaves less than one in so many of those it takes moves what stays to a new set, which may be
/// compact again. Source: t_set.c of Redis 7.0.
const STAYING_WEIGHT: u64 = 5;
const COMBINING: &str = "O(N) in the sizes of the sets";

const fn combining(name: &'static str, summary: &'static str, run: Handler) -> KeyCommand {
    SET.row(name, -2, READ | flag::ANY_VALUES, "1.0.0", COMBINING, summary, run).with_keys(ALL)
}

const fn storing(name: &'static str, summary: &'static str, run: Handler) -> KeyCommand {
    let flags = WRITE | flag::DENYOOM | flag::ANY_VALUES;
    SET.row(name, -3, flags, "1.0.0", COMBINING, summary, run).with_keys(ALL)
}

fn sadd(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let mut set = Set::open(tx, tx.key(args.get(1)))?;
    let mut added = 0;
    for member in args.iter(2) {
        added += i64::from(set.insert(tx, name_fits(member)?)?);
    }
    set.save(tx)?;
    Ok(Reply::Int(added))
}

fn srem(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(mut set) = Set::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let mut removed = 0;
    for member in args.iter(2) {
        removed += i64::from(set.remove(tx, member)?);
    }
    set.save(tx)?;
    Ok(Reply::Int(removed))
}

fn sismember(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let set = Set::load(tx, tx.key(args.get(1)))?;
    Ok(Reply::Int(is_member(tx, set.as_ref(), args.get(2))?))
}

fn smismember(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let set = Set::load(tx, tx.key(args.get(1)))?;
    let mut found = Vec::with_capacity(args.len() - 2);
    for member in args.iter(2) {
        found.push(Reply::Int(is_member(tx, set.as_ref(), member)?));
    }
    Ok(Reply::Array(found))
}

fn is_member(tx: &mut Tx<'_>, set: Option<&Set<'_>>, member: &[u8]) -> Result<i64, Stop> {
    match set {
        Some(set) => Ok(i64::from(set.contains(tx, member)?)),
        None => Ok(0),
    }
}

fn scard(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    match Set::load(tx, tx.key(args.get(1)))? {
        Some(set) => Ok(Reply::count(set.len()?)),
        None => Ok(Reply::Int(0)),
    }
}

fn replied(members: Vec<Bytes>) -> Reply {
    Reply::Set(members.into_iter().map(Reply::Bulk).collect())
}

fn smembers(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(set) = Set::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Set(Vec::new())) };
    let mut answer = Answer::new(tx, Shape::Set, set.len()?)?;
    set.visit(tx, &mut |member| answer.push(Reply::bulk(Bytes::copy_from_slice(member))).map(|()| true))?;
    answer.finish()
}

fn spop(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let count = match args.len() {
        2 => None,
        3 => {
            let count = number::parse_i64(args.get(2)).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or(ClientError::fixed("ERR value is out of range, must be positive"))?)
        }
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let Some(mut set) = Set::load(tx, tx.key(args.get(1)))? else {
        return Ok(count.map_or(Reply::Nil, |_| Reply::Set(Vec::new())));
    };
    let chosen = match count {
        None => vec![set.random(tx)?],
        Some(0) => return Ok(Reply::Set(Vec::new())),
        Some(count) if count >= set.len()? => {
            let all = set.members(tx)?;
            tx.delete(tx.key(args.get(1)));
            return Ok(replied(all));
        }
        Some(count) => set.sample(tx, count)?,
    };
    for member in &chosen {
        set.remove(tx, member)?;
    }
    if set.len()?.saturating_mul(STAYING_WEIGHT) <= count.unwrap_or(0) {
        set.renew(tx)?;
    }
    set.save(tx)?;
    Ok(match count {
        None => Reply::Bulk(chosen.into_iter().next().expect("one was chosen")),
        Some(_) => replied(chosen),
    })
}

fn srandmember(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    if args.len() > 3 {
        return Err(ClientError::SYNTAX.into());
    }
    if args.len() == 2 {
        let Some(set) = Set::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Nil) };
        return set.random(tx).map(Reply::Bulk);
    }
    let count = random_count(args.get(2))?;
    let Some(set) = Set::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Array(Vec::new())) };
    if let Ok(count) = u64::try_from(count) {
        return Ok(Reply::bulks(set.sample(tx, count)?));
    }
    let mut answer = Answer::new(tx, Shape::Array, count.unsigned_abs())?;
    for _ in 0..count.unsigned_abs() {
        tx.spend(1)?;
        answer.push(Reply::Bulk(set.random(tx)?))?;
    }
    answer.finish()
}

fn sscan(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    scan(tx, args, false, Set::load, |tx, set, cursor, options, found| {
        set.scan(tx, cursor, options.count, &mut |member| {
            if options.wants(member) {
                found.push(Reply::bulk(Bytes::copy_from_slice(member)));
            }
        })
    })
}

fn smove(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (from, to, member) = (tx.key(args.get(1)), tx.key(args.get(2)), args.get(3));
    if tx.row(from)?.is_none() {
        return Ok(Reply::Int(0));
    }
    let source = Set::load(tx, from)?;
    let target = Set::load(tx, to)?;
    let Some(mut source) = source else { return Ok(Reply::Int(0)) };
    if from == to {
        return Ok(Reply::Int(i64::from(source.contains(tx, member)?)));
    }
    if !source.remove(tx, member)? {
        return Ok(Reply::Int(0));
    }
    source.save(tx)?;
    let mut target = match target {
        Some(target) => target,
        None => Set::open(tx, to)?,
    };
    target.insert(tx, member)?;
    target.save(tx)?;
    Ok(Reply::Int(1))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Combination {
    Inter,
    Union,
    Diff,
}

/// The sets of several keys; those that are not there are None.
fn load_all<'k>(
    tx: &mut Tx<'_>,
    names: impl Iterator<Item = &'k [u8]>,
) -> Result<Vec<Option<Set<'k>>>, Stop> {
    let mut sets = Vec::new();
    for name in names {
        let key: KeyRef<'k> = tx.key(name);
        sets.push(Set::load(tx, key)?);
    }
    Ok(sets)
}

fn combine(tx: &mut Tx<'_>, sets: Vec<Option<Set<'_>>>, how: Combination) -> Result<Vec<Bytes>, Stop> {
    match how {
        Combination::Inter => intersection(tx, sets, u64::MAX),
        Combination::Union => {
            let (mut seen, mut members) = (FxHashSet::default(), Vec::new());
            for set in sets.iter().flatten() {
                for member in set.members(tx)? {
                    if seen.insert(member.clone()) {
                        members.push(member);
                    }
                }
            }
            Ok(members)
        }
        Combination::Diff => {
            let mut sets = sets.into_iter();
            let Some(Some(first)) = sets.next() else { return Ok(Vec::new()) };
            let others: Vec<_> = sets.flatten().collect();
            let mut members = Vec::new();
            for member in first.members(tx)? {
                let mut elsewhere = false;
                for other in &others {
                    elsewhere |= other.contains(tx, &member)?;
                    if elsewhere {
                        break;
                    }
                }
                if !elsewhere {
                    members.push(member);
                }
            }
            Ok(members)
        }
    }
}

/// Members that all sets have, no more than `limit`: those of the smallest, looked for in the others.
fn intersection(tx: &mut Tx<'_>, sets: Vec<Option<Set<'_>>>, limit: u64) -> Result<Vec<Bytes>, Stop> {
    let Some(mut sets) = sets.into_iter().collect::<Option<Vec<_>>>() else { return Ok(Vec::new()) };
    let mut sizes = Vec::with_capacity(sets.len());
    for set in &sets {
        sizes.push(set.len()?);
    }
    let smallest = (0..sets.len()).min_by_key(|at| sizes[*at]).expect("there is at least one key");
    let smallest = sets.swap_remove(smallest);
    let mut members = Vec::new();
    for member in smallest.members(tx)? {
        let mut everywhere = true;
        for other in &sets {
            everywhere = other.contains(tx, &member)?;
            if !everywhere {
                break;
            }
        }
        if everywhere {
            members.push(member);
        }
        if members.len() as u64 >= limit {
            break;
        }
    }
    Ok(members)
}

fn answer(tx: &mut Tx<'_>, args: &Args<'_>, how: Combination) -> Result<Reply, Stop> {
    let sets = load_all(tx, args.iter(1))?;
    Ok(replied(combine(tx, sets, how)?))
}

fn store(tx: &mut Tx<'_>, args: &Args<'_>, how: Combination) -> Result<Reply, Stop> {
    let sets = load_all(tx, args.iter(2))?;
    let raw = matches!(how, Combination::Diff) && first_was_copied(tx, &sets)?;
    let members = combine(tx, sets, how)?;
    Ok(Reply::count(Set::replace(tx, tx.key(args.get(1)), members.into_iter(), raw)?))
}

/// Whether Redis makes this difference from a copy of the first set, and that copy is not compact: then what is
/// left of it is not either. It does where that is less work. Source: t_set.c of Redis 7.0.
fn first_was_copied(tx: &mut Tx<'_>, sets: &[Option<Set<'_>>]) -> Result<bool, Stop> {
    let Some(Some(first)) = sets.first() else { return Ok(false) };
    let (mut look_ups, mut removals) = (0, 0);
    for set in sets.iter().flatten() {
        look_ups += first.len()?;
        removals += set.len()?;
    }
    Ok(look_ups / 2 > removals && first.exceeds_compact(tx)?)
}

/// Keys behind their number, which is the first argument.
pub(super) fn counted_keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let count = number::parse_i64(args.get(1)).filter(|count| *count > 0);
    let count = count.ok_or(ClientError::fixed("ERR numkeys should be greater than 0"))?;
    if count > (args.len() - 2) as i64 {
        return Err(ClientError::fixed("ERR Number of keys can't be greater than number of args"));
    }
    Ok((2..2 + count as usize).map(|arg| KeyArg { arg, table: None }).collect())
}

fn sintercard(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let keys = counted_keys(args)?;
    let mut limit = 0;
    let mut at = 2 + keys.len();
    while at < args.len() {
        if !args.is(at, "LIMIT") || at + 1 == args.len() {
            return Err(ClientError::SYNTAX.into());
        }
        let negative = ClientError::fixed("ERR LIMIT can't be negative");
        limit = match int(args.get(at + 1)) {
            Ok(limit) => u64::try_from(limit).map_err(|_| negative)?,
            Err(_) => return Err(negative.into()),
        };
        at += 2;
    }
    let sets = load_all(tx, keys.iter().map(|key| args.get(key.arg)))?;
    let limit = if limit == 0 { u64::MAX } else { limit };
    Ok(Reply::count(intersection(tx, sets, limit)?.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::Server;

    #[test]
    fn a_difference_is_as_compact_as_redis_server_leaves_it() {
        let mut server = Server::default();
        server.int("SADD a 1 2 3 4 x y", 6);
        server.int("SADD b x", 1);
        server.int("SADD c y", 1);
        for (line, count, encoding) in [
            ("SDIFFSTORE d a b c", 4, "hashtable"),
            ("SDIFFSTORE d a a b c", 0, "none"),
            ("SDIFFSTORE e a c", 5, "hashtable"),
            ("SDIFFSTORE d e b", 4, "intset"),
            ("SDIFFSTORE d d b c", 4, "intset"),
        ] {
            server.int(line, count);
            let expected = if encoding == "none" { Reply::Nil } else { Reply::text(encoding) };
            let key = line.split(' ').nth(1).expect("each has a key");
            assert_eq!(server.run(&format!("OBJECT ENCODING {key}")), expected, "{line}");
        }
    }

    #[test]
    fn pops_empty_a_set_of_any_size() {
        for size in [5, 100, 700] {
            let mut server = Server::default();
            for at in 0..size {
                server.int(&format!("SADD s member:{at}"), 1);
            }
            let (mut seen, mut seed) = (FxHashSet::default(), 0);
            while seen.len() < size {
                seed += 1;
                server.scope.seed = seed;
                let Reply::Set(popped) = server.run("SPOP s 3") else { panic!("a set") };
                for member in popped {
                    let Reply::Bulk(member) = member else { panic!("a text") };
                    assert!(seen.insert(member));
                }
            }
            server.int("EXISTS s", 0);
            assert!(server.memory.elements.len() <= 3, "what the last pop leaves is garbage of its version");
        }
    }

    #[test]
    fn large_sets_combine_like_small_ones() {
        let mut server = Server::default();
        let add = |server: &mut Server, key: &str, range: std::ops::Range<u32>| {
            let members: Vec<_> = range.map(|member| format!("m{member}")).collect();
            server.run(&format!("SADD {key} {}", members.join(" ")));
        };
        add(&mut server, "a", 0..300);
        add(&mut server, "b", 200..500);
        add(&mut server, "c", 290..310);
        server.int("SINTERSTORE d a b c", 10);
        server.int("SCARD d", 10);
        server.int("SUNIONSTORE d a b c", 500);
        server.int("SDIFFSTORE a a b", 200);
        server.int("SISMEMBER a m199", 1);
        server.int("SISMEMBER a m200", 0);
        server.int("SINTERCARD 2 b c LIMIT 5", 5);
        server.int("SINTERSTORE d a c", 0);
        server.int("EXISTS d", 0);
    }
}

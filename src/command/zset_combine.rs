//! Commands on several sorted sets at once: union, intersection, difference. Plain sets take part too; their
//! members have the score 1.
//!
//! Arguments in, a reply out.

use super::options::int;
use super::zset::{ZSET, members};
use super::{Handler, KeyArg, KeyArgs, KeyCommand, Keys, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::row::Kind;
use crate::store::tx::{KeyRef, Tx};
use crate::types::map::INLINE_MAX;
use crate::types::set::Set;
use crate::types::zset::{Scored, See, SortedSet, Window};
use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Ordering;
use std::ops::Range;

pub const COMMANDS: &[KeyCommand] = &[
    answering("zunion", "6.2.0", "Members that any of the sorted sets has", |tx, args| {
        answer(tx, args, Combination::Union)
    }),
    answering("zinter", "6.2.0", "Members that all of the sorted sets have", |tx, args| {
        answer(tx, args, Combination::Inter)
    }),
    answering("zdiff", "6.2.0", "Members of the first sorted set that no other has", |tx, args| {
        answer(tx, args, Combination::Diff)
    }),
    answering("zintercard", "7.0.0", "Number of members that all of the sorted sets have", zintercard),
    storing("zunionstore", "2.0.0", "As ZUNION, into a key", |tx, args| store(tx, args, Combination::Union)),
    storing("zinterstore", "2.0.0", "As ZINTER, into a key", |tx, args| store(tx, args, Combination::Inter)),
    storing("zdiffstore", "6.2.0", "As ZDIFF, into a key", |tx, args| store(tx, args, Combination::Diff)),
];

const COMBINING: &str = "O(N) in the sizes of the sets, of the smallest for an intersection; O(M log M) for \
                         M members of the result";

const fn answering(
    name: &'static str,
    since: &'static str,
    summary: &'static str,
    run: Handler,
) -> KeyCommand {
    let row = ZSET.row(name, -3, flag::READONLY | flag::ANY_VALUES, since, COMBINING, summary, run);
    row.with_keys(Keys::Find(|args| Ok(key_args(source_keys(args, 1)?).collect())))
}

const fn storing(name: &'static str, since: &'static str, summary: &'static str, run: Handler) -> KeyCommand {
    let flags = flag::WRITE | flag::DENYOOM | flag::ANY_VALUES;
    ZSET.row(name, -4, flags, since, COMBINING, summary, run).with_keys(Keys::Find(store_keys))
}

/// The keys behind their number, which is argument `at`.
fn source_keys(args: &Args<'_>, at: usize) -> Result<Range<usize>, ClientError> {
    let count = int(args.get(at))?;
    if count < 1 {
        let name = String::from_utf8_lossy(args.get(0)).to_ascii_lowercase();
        return Err(ClientError::new(format!("ERR at least 1 input key is needed for '{name}' command")));
    }
    let there = args.len() - (at + 1);
    let count = usize::try_from(count).ok().filter(|count| *count <= there).ok_or(ClientError::SYNTAX)?;
    Ok(at + 1..at + 1 + count)
}

fn key_args(keys: Range<usize>) -> impl Iterator<Item = KeyArg> {
    keys.map(|arg| KeyArg { arg, table: None })
}

fn store_keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    Ok(key_args(1..2).chain(key_args(source_keys(args, 2)?)).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Combination {
    Union,
    Inter,
    Diff,
}

/// What a key holds that members can be taken from.
enum Members<'k> {
    None,
    Scored(SortedSet<'k>),
    Plain(Set<'k>),
}

impl<'k> Members<'k> {
    fn load(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Members<'k>, Stop> {
        Ok(match tx.row(key)?.map(|row| row.kind) {
            Some(Kind::Set) => Set::load(tx, key)?.map_or(Members::None, Members::Plain),
            _ => SortedSet::load(tx, key)?.map_or(Members::None, Members::Scored),
        })
    }

    fn len(&self) -> Result<u64, Stop> {
        match self {
            Members::None => Ok(0),
            Members::Scored(set) => set.len(),
            Members::Plain(set) => set.len(),
        }
    }

    fn visit(&self, tx: &mut Tx<'_>, see: &mut See<'_>) -> Result<(), Stop> {
        match self {
            Members::None => Ok(()),
            Members::Scored(set) => set.visit(tx, &Window::whole(), see),
            Members::Plain(set) => set.visit(tx, &mut |member| see(member, 1.0)),
        }
    }

    fn score(&self, tx: &mut Tx<'_>, member: &[u8]) -> Result<Option<f64>, Stop> {
        match self {
            Members::None => Ok(None),
            Members::Scored(set) => set.score(tx, member),
            Members::Plain(set) => Ok(set.contains(tx, member)?.then_some(1.0)),
        }
    }
}

struct Source<'k> {
    members: Members<'k>,
    len: u64,
    weight: f64,
}

fn load<'k>(tx: &mut Tx<'_>, args: &Args<'k>, keys: Range<usize>) -> Result<Vec<Source<'k>>, Stop> {
    /// Members in a row are quicker than those in elements, of which each is a step.
    const INLINE_PER_STEP: u64 = 8;
    let mut sources = Vec::with_capacity(keys.len());
    for at in keys {
        let members = Members::load(tx, tx.key(args.get(at)))?;
        let len = members.len()?;
        if len <= INLINE_MAX {
            tx.spend((len / INLINE_PER_STEP) as u32)?;
        }
        sources.push(Source { members, len, weight: 1.0 });
    }
    Ok(sources)
}

/// How the scores of a member that several sets have become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn parse(word: &[u8]) -> Result<Aggregate, ClientError> {
        Ok(match word.to_ascii_lowercase().as_slice() {
            b"sum" => Aggregate::Sum,
            b"min" => Aggregate::Min,
            b"max" => Aggregate::Max,
            _ => return Err(ClientError::SYNTAX),
        })
    }

    fn of(self, score: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(score + other),
            Aggregate::Min if other < score => other,
            Aggregate::Max if other > score => other,
            Aggregate::Min | Aggregate::Max => score,
        }
    }
}

/// Redis takes what is no number, as of both infinities together, for 0.
fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// What follows the keys of a union, an intersection or a difference.
struct Options {
    aggregate: Aggregate,
    with_scores: bool,
}

impl Options {
    /// Weights go to the sources.
    fn parse(
        args: &Args<'_>,
        from: usize,
        sources: &mut [Source<'_>],
        how: Combination,
        stores: bool,
    ) -> Result<Options, ClientError> {
        let mut options = Options { aggregate: Aggregate::Sum, with_scores: false };
        let mut at = from;
        while at < args.len() {
            let behind = args.len() - at - 1;
            let scored = how != Combination::Diff;
            if scored && behind >= sources.len() && args.is(at, "WEIGHTS") {
                for source in &mut *sources {
                    at += 1;
                    let weight = number::parse_f64(args.get(at));
                    source.weight = weight.ok_or(ClientError::fixed("ERR weight value is not a float"))?;
                }
            } else if scored && behind >= 1 && args.is(at, "AGGREGATE") {
                at += 1;
                options.aggregate = Aggregate::parse(args.get(at))?;
            } else if !stores && args.is(at, "WITHSCORES") {
                options.with_scores = true;
            } else {
                return Err(ClientError::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }
}

/// What comes of the sources whose number is argument `at`, in order, and whether scores are wanted.
fn combine(
    tx: &mut Tx<'_>,
    args: &Args<'_>,
    at: usize,
    how: Combination,
) -> Result<(Vec<Scored>, bool), Stop> {
    let keys = source_keys(args, at)?;
    // Redis looks at the keys before it reads what follows them.
    let mut sources = load(tx, args, keys.clone())?;
    let Options { aggregate, with_scores } = Options::parse(args, keys.end, &mut sources, how, at > 1)?;
    let mut combined = match how {
        Combination::Union => union(tx, sources, aggregate)?,
        Combination::Inter => intersection(tx, sources, aggregate, u64::MAX)?,
        Combination::Diff => difference(tx, &sources)?,
    };
    let order = |(member, score): &Scored, (other_member, other): &Scored| {
        score.partial_cmp(other).unwrap_or(Ordering::Equal).then_with(|| member.cmp(other_member))
    };
    combined.sort_unstable_by(order);
    Ok((combined, with_scores))
}

/// As Redis does, from the smallest on: in another order sums would be rounded differently.
fn sort_by_size(sources: &mut [Source<'_>]) {
    sources.sort_by_key(|source| source.len);
}

fn union(tx: &mut Tx<'_>, mut sources: Vec<Source<'_>>, aggregate: Aggregate) -> Result<Vec<Scored>, Stop> {
    sort_by_size(&mut sources);
    let mut scores: FxHashMap<Bytes, f64> = FxHashMap::default();
    for Source { members, weight, .. } in &sources {
        members.visit(tx, &mut |member, score| {
            let score = number_or_zero(weight * score);
            match scores.get_mut(member) {
                Some(known) => *known = aggregate.of(*known, score),
                None => drop(scores.insert(Bytes::copy_from_slice(member), score)),
            }
            Ok(true)
        })?;
    }
    Ok(scores.into_iter().collect())
}

/// At most `limit` members.
fn intersection(
    tx: &mut Tx<'_>,
    mut sources: Vec<Source<'_>>,
    aggregate: Aggregate,
    limit: u64,
) -> Result<Vec<Scored>, Stop> {
    sort_by_size(&mut sources);
    let (smallest, others) = sources.split_first().expect("there is at least one key");
    let mut combined = Vec::new();
    'members: for (member, score) in list(tx, &smallest.members)? {
        let mut score = number_or_zero(smallest.weight * score);
        for Source { members, weight, .. } in others {
            let Some(other) = members.score(tx, &member)? else { continue 'members };
            score = aggregate.of(score, weight * other);
        }
        combined.push((member, score));
        if combined.len() as u64 >= limit {
            break;
        }
    }
    Ok(combined)
}

fn difference(tx: &mut Tx<'_>, sources: &[Source<'_>]) -> Result<Vec<Scored>, Stop> {
    let (first, others) = sources.split_first().expect("there is at least one key");
    let mut left = list(tx, &first.members)?;
    if others.iter().map(|other| other.len).sum::<u64>() < first.len {
        let mut gone = FxHashSet::default();
        for other in others {
            other.members.visit(tx, &mut |member, _| {
                gone.insert(Bytes::copy_from_slice(member));
                Ok(true)
            })?;
        }
        left.retain(|(member, _)| !gone.contains(member));
        return Ok(left);
    }
    let mut kept = Vec::new();
    'members: for (member, score) in left {
        for other in others {
            if other.members.score(tx, &member)?.is_some() {
                continue 'members;
            }
        }
        kept.push((member, score));
    }
    Ok(kept)
}

fn list(tx: &mut Tx<'_>, members: &Members<'_>) -> Result<Vec<Scored>, Stop> {
    let mut list = Vec::new();
    members.visit(tx, &mut |member, score| {
        list.push((Bytes::copy_from_slice(member), score));
        Ok(true)
    })?;
    Ok(list)
}

fn answer(tx: &mut Tx<'_>, args: &Args<'_>, how: Combination) -> Result<Reply, Stop> {
    let (combined, with_scores) = combine(tx, args, 1, how)?;
    Ok(members(combined, with_scores))
}

fn store(tx: &mut Tx<'_>, args: &Args<'_>, how: Combination) -> Result<Reply, Stop> {
    let (combined, _) = combine(tx, args, 2, how)?;
    SortedSet::replace(tx, tx.key(args.get(1)), &combined)?;
    Ok(Reply::count(combined.len() as u64))
}

fn zintercard(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let keys = source_keys(args, 1)?;
    let mut at = keys.end;
    let sources = load(tx, args, keys)?;
    let mut limit = 0;
    while at < args.len() {
        if !args.is(at, "LIMIT") || at + 1 == args.len() {
            return Err(ClientError::SYNTAX.into());
        }
        let positive = int(args.get(at + 1)).ok().and_then(|limit| u64::try_from(limit).ok());
        limit = positive.ok_or(ClientError::fixed("ERR LIMIT can't be negative"))?;
        at += 2;
    }
    let limit = if limit == 0 { u64::MAX } else { limit };
    Ok(Reply::count(intersection(tx, sources, Aggregate::Sum, limit)?.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};
    use crate::command::zset::tests::converse;

    const SYNTAX: &str = "ERR syntax error";

    #[test]
    fn combining_goes_as_with_redis_server() {
        // From redis-server 7.0.15.
        let no_key = "ERR at least 1 input key is needed for 'zunionstore' command";
        let dialogue = [
            ("ZADD a 1 x 2 y 3 z", "3"),
            ("ZADD b 10 y 20 z 30 w", "3"),
            ("SADD s x y v", "3"),
            ("ZUNION 2 a b WITHSCORES", "[x 1 y 12 z 23 w 30]"),
            ("ZUNION 2 a b WEIGHTS -1 0.5 AGGREGATE min WITHSCORES", "[z -3 y -2 x -1 w 15]"),
            ("ZUNION 3 s none a WITHSCORES", "[v 1 x 2 y 3 z 3]"),
            ("ZINTER 2 a b WEIGHTS 1 -1 AGGREGATE MAX WITHSCORES", "[y 2 z 3]"),
            ("ZINTER 3 a a s", "[x y]"),
            ("ZINTER 2 none a", "[]"),
            ("ZDIFF 2 a b WITHSCORES", "[x 1]"),
            ("ZDIFF 3 a s none WITHSCORES", "[z 3]"),
            ("ZINTERCARD 2 a b LIMIT 1", "1"),
            ("ZINTERCARD 2 a b LIMIT 0", "2"),
            ("ZINTERCARD 2 a b LIMIT -1", "ERR LIMIT can't be negative"),
            ("ZUNIONSTORE a 2 a b", "4"),
            ("ZRANGE a 0 -1 WITHSCORES", "[x 1 y 12 z 23 w 30]"),
            ("ZDIFFSTORE a 2 a a", "0"),
            ("EXISTS a", "0"),
            ("ZUNION 2 b b WEIGHTS 1", SYNTAX),
            ("ZUNION 2 b b WEIGHTS 1 x", "ERR weight value is not a float"),
            ("ZDIFF 1 b WEIGHTS 1", SYNTAX),
            ("ZUNION 2 b", SYNTAX),
            ("ZUNION x b", "ERR value is not an integer or out of range"),
            ("ZUNIONSTORE d 0 b", no_key),
            ("ZINTERSTORE d 1 b WITHSCORES", SYNTAX),
            ("ZADD inf inf x 0 y", "2"),
            ("ZADD ninf -inf x inf y", "2"),
            ("ZUNION 2 inf ninf WITHSCORES", "[x 0 y inf]"),
            ("ZUNION 1 inf WEIGHTS -1 WITHSCORES", "[x -inf y -0]"),
        ];
        let mut server = Server::default();
        converse(&mut server, &dialogue);
        server.ok("SET text value");
        let wrong = Reply::Error(ClientError::WRONG_TYPE);
        for line in ["ZUNION 1 text FOO", "ZDIFF 2 none text", "ZINTERSTORE text 1 text"] {
            assert_eq!(server.run(line), wrong, "{line}");
        }
        server.int("ZINTERSTORE text 1 b", 3);
    }

    #[test]
    fn large_sets_combine_like_small_ones() {
        let mut server = Server::default();
        let mut add = |key: &str, range: Range<u32>| {
            let members: Vec<_> = range.map(|member| format!("{member} m{member}")).collect();
            server.run(&format!("ZADD {key} {}", members.join(" ")));
        };
        add("a", 0..300);
        add("b", 200..500);
        add("few", 190..210);
        let dialogue = [
            ("ZINTERSTORE i 2 a b", "100"),
            ("ZRANGE i 0 0 WITHSCORES", "[m200 400]"),
            ("ZUNIONSTORE u 2 a b", "500"),
            ("ZSCORE u m250", "500"),
            ("ZDIFFSTORE d 2 a b", "200"),
            ("ZDIFFSTORE d 2 a few", "280"),
            ("ZINTERCARD 3 a b few", "10"),
            ("ZINTERCARD 2 a b LIMIT 7", "7"),
        ];
        converse(&mut server, &dialogue);
    }

    #[test]
    fn keys_stand_behind_their_number() {
        let keys = |line: &str| {
            let words = Words::new(line);
            let keys = crate::command::tests::find(&words).spec.keys.of(&words.args());
            keys.map(|keys| keys.iter().map(|key| key.arg).collect::<Vec<_>>())
        };
        assert_eq!(keys("ZUNION 2 a b WEIGHTS 1 2"), Ok(vec![2, 3]));
        assert_eq!(keys("ZINTERSTORE d 1 a WEIGHTS 1"), Ok(vec![1, 3]));
        assert_eq!(keys("BZMPOP 0 2 a b MIN"), Ok(vec![3, 4]));
        assert_eq!(keys("ZDIFF 3 a b"), Err(ClientError::SYNTAX));
    }
}

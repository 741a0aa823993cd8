//! Commands on the members of a sorted set, one by one; ranges are in `zset_range`, several sets at once in
//! `zset_combine`.
//!
//! Arguments in, a reply out; how a sorted set lies in the store is known to `types::zset` alone. The blocking
//! ones serve what is there: waiting is not theirs.

use super::answer::{Answer, scan};
use super::options::{ManyPop, int, random_count, timeout_ms};
use super::{Group, KeyCommand, Keys, flag, name_fits};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::resp::stream::Shape;
use crate::resp::{encode, number};
use crate::store::tx::{KeyRef, Tx};
use crate::types::zset::{Places, Scored, SortedSet, Window};
use bytes::Bytes;

pub const COMMANDS: &[KeyCommand] = &[
    ZSET.row(
        "zadd",
        -4,
        WRITE | flag::DENYOOM | flag::FAST,
        "1.2.0",
        "O(log N) for each member given",
        "Puts members in, or gives them other scores",
        |tx, args| zadd(tx, args, AddFlags::default()),
    ),
    ZSET.row(
        "zincrby",
        4,
        WRITE | flag::DENYOOM | flag::FAST,
        "1.2.0",
        "O(log N)",
        "Adds to a member's score",
        |tx, args| zadd(tx, args, AddFlags { increment: true, ..AddFlags::default() }),
    ),
    ZSET.row(
        "zrem",
        -3,
        WRITE | flag::FAST,
        "1.2.0",
        "O(log N) for each member given",
        "Takes members out",
        zrem,
    ),
    ZSET.row("zcard", 2, READ | flag::FAST, "1.2.0", "O(1)", "Number of members", zcard),
    ZSET.row("zscore", 3, READ | flag::FAST, "1.2.0", "O(1)", "Score of a member", zscore),
    ZSET.row(
        "zmscore",
        -3,
        READ | flag::FAST,
        "6.2.0",
        "O(N) in the members given",
        "Scores of members",
        zmscore,
    ),
    ZSET.row(
        "zrank",
        -3,
        READ | flag::FAST,
        "2.0.0",
        RANKING,
        "How many members stand before one",
        |tx, args| zrank(tx, args, false),
    ),
    ZSET.row(
        "zrevrank",
        -3,
        READ | flag::FAST,
        "2.0.0",
        RANKING,
        "How many members stand behind one",
        |tx, args| zrank(tx, args, true),
    ),
    ZSET.row(
        "zrandmember",
        -2,
        READ | flag::LONG_REPLY,
        "6.2.0",
        "O(N) in the members answered",
        "Members by chance",
        zrandmember,
    ),
    ZSET.row(
        "zscan",
        -3,
        READ,
        "2.8.0",
        "O(1) for every call",
        "Goes through the members piece by piece",
        zscan,
    ),
    ZSET.row(
        "zpopmin",
        -2,
        WRITE | flag::FAST,
        "5.0.0",
        POPPING,
        "Takes the members with the lowest scores out",
        |tx, args| zpop(tx, args, false),
    ),
    ZSET.row(
        "zpopmax",
        -2,
        WRITE | flag::FAST,
        "5.0.0",
        POPPING,
        "Takes the members with the highest scores out",
        |tx, args| zpop(tx, args, true),
    ),
    ZSET.row(
        "zmpop",
        -4,
        WRITE | flag::ANY_VALUES,
        "7.0.0",
        POPPING,
        "Takes members out at one end of the first set that has some",
        |tx, args| zmpop(tx, args, 1),
    )
    .with_keys(Keys::Find(|args| ManyPop::keys(args, 1))),
    ZSET.row(
        "bzmpop",
        -5,
        WRITE | flag::BLOCKING | flag::ANY_VALUES,
        "7.0.0",
        POPPING,
        "As ZMPOP; waits until a set has members",
        |tx, args| zmpop(tx, args, 2),
    )
    .with_keys(Keys::Find(|args| ManyPop::keys(args, 2))),
    ZSET.row(
        "bzpopmin",
        -3,
        BLOCKING_POP,
        "5.0.0",
        "O(log N)",
        "Takes the member with the lowest score out of the first set that has some, or waits for one",
        |tx, args| bzpop(tx, args, false),
    )
    .with_keys(ALL_BUT_LAST),
    ZSET.row(
        "bzpopmax",
        -3,
        BLOCKING_POP,
        "5.0.0",
        "O(log N)",
        "Takes the member with the highest score out of the first set that has some, or waits for one",
        |tx, args| bzpop(tx, args, true),
    )
    .with_keys(ALL_BUT_LAST),
];

pub(super) const ZSET: Group = Group::SortedSet;
const READ: u32 = flag::READONLY;
const WRITE: u32 = flag::WRITE;
const BLOCKING_POP: u32 = WRITE | flag::NOSCRIPT | flag::BLOCKING | flag::FAST | flag::ANY_VALUES;
const ALL_BUT_LAST: Keys = Keys::Span { first: 1, last: -2, step: 1 };
const RANKING: &str = "O(sqrt N), some hundred members and counts at most up to tens of millions";
const POPPING: &str = "O(log N) for each member taken out";

const NOT_POSITIVE: ClientError = ClientError::fixed("ERR value is out of range, must be positive");

/// Members, with their scores if that is wanted.
pub(super) fn members(members: Vec<Scored>, with_scores: bool) -> Reply {
    let members = members.into_iter();
    match with_scores {
        true => {
            Reply::Pairs(members.map(|(member, score)| (Reply::Bulk(member), Reply::Double(score))).collect())
        }
        false => Reply::bulks(members.map(|(member, _)| member)),
    }
}

/// What is asked of ZADD beside scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddFlags {
    /// Only members that are new.
    pub nx: bool,
    /// Only members that are there.
    pub xx: bool,
    /// Those that are there only to a greater score, or only to a smaller one.
    pub gt: bool,
    pub lt: bool,
    /// Counts the changed ones too.
    pub changed: bool,
    /// Adds to the score, and answers it.
    pub increment: bool,
}

impl AddFlags {
    fn take(&mut self, word: &[u8]) -> bool {
        let flag = match word.to_ascii_lowercase().as_slice() {
            b"nx" => &mut self.nx,
            b"xx" => &mut self.xx,
            b"gt" => &mut self.gt,
            b"lt" => &mut self.lt,
            b"ch" => &mut self.changed,
            b"incr" => &mut self.increment,
            _ => return false,
        };
        *flag = true;
        true
    }

    fn check(self) -> Result<(), ClientError> {
        let AddFlags { nx, xx, gt, lt, .. } = self;
        if nx && xx {
            return Err(ClientError::fixed("ERR XX and NX options at the same time are not compatible"));
        }
        if nx && (gt || lt) || gt && lt {
            return Err(ClientError::fixed(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        Ok(())
    }

    /// Whether a member that is there may get another score.
    fn allow(self, old: f64, new: f64) -> bool {
        !(self.gt && new <= old || self.lt && new >= old)
    }
}

fn zadd(tx: &mut Tx<'_>, args: &Args<'_>, mut flags: AddFlags) -> Result<Reply, Stop> {
    /// Longest word that is one.
    const WORD_MAX_BYTES: usize = 4;
    let mut first = 2;
    while first < args.len() && args.get(first).len() <= WORD_MAX_BYTES && flags.take(args.get(first)) {
        first += 1;
    }
    let words = args.len() - first;
    if words == 0 || !words.is_multiple_of(2) {
        return Err(ClientError::SYNTAX.into());
    }
    flags.check()?;
    if flags.increment && words > 2 {
        return Err(ClientError::fixed("ERR INCR option supports a single increment-element pair").into());
    }
    let mut scores = Vec::with_capacity(words / 2);
    for at in (first..args.len()).step_by(2) {
        let score = number::parse_f64(args.get(at)).ok_or(ClientError::NOT_FLOAT)?;
        scores.push((score, args.get(at + 1)));
    }
    add(tx, tx.key(args.get(1)), flags, &scores)
}

/// Puts members with these scores, none of them NaN, into a sorted set; answers as ZADD does. `flags` do not
/// contradict each other.
pub fn add(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    flags: AddFlags,
    scores: &[(f64, &[u8])],
) -> Result<Reply, Stop> {
    for (_, member) in scores {
        name_fits(member)?;
    }
    let mut set = SortedSet::open(tx, key)?;
    let (mut added, mut updated, mut last) = (0, 0, None);
    for (score, member) in scores {
        let old = set.score(tx, member)?;
        let mut score = *score;
        match old {
            None if flags.xx => continue,
            Some(_) if flags.nx => continue,
            Some(old) => {
                if flags.increment {
                    score += old;
                }
                if score.is_nan() {
                    return Err(ClientError::fixed("ERR resulting score is not a number (NaN)").into());
                }
                if !flags.allow(old, score) {
                    continue;
                }
                updated += i64::from(score != old);
            }
            None => added += 1,
        }
        set.put(tx, member, old, score)?;
        last = Some(score);
    }
    set.save(tx)?;
    Ok(match flags.increment {
        true => last.map_or(Reply::Nil, Reply::Double),
        false => Reply::Int(if flags.changed { added + updated } else { added }),
    })
}

fn zrem(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(mut set) = SortedSet::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let mut removed = 0;
    for member in args.iter(2) {
        removed += i64::from(set.remove(tx, member)?.is_some());
    }
    set.save(tx)?;
    Ok(Reply::Int(removed))
}

fn zcard(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let set = SortedSet::load(tx, tx.key(args.get(1)))?;
    set.map_or(Ok(0), |set| set.len()).map(Reply::count)
}

fn score(tx: &mut Tx<'_>, set: Option<&SortedSet<'_>>, member: &[u8]) -> Result<Reply, Stop> {
    let score = match set {
        Some(set) => set.score(tx, member)?,
        None => None,
    };
    Ok(score.map_or(Reply::Nil, Reply::Double))
}

fn zscore(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let set = SortedSet::load(tx, tx.key(args.get(1)))?;
    score(tx, set.as_ref(), args.get(2))
}

fn zmscore(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let set = SortedSet::load(tx, tx.key(args.get(1)))?;
    args.iter(2).map(|member| score(tx, set.as_ref(), member)).collect::<Result<_, _>>().map(Reply::Array)
}

fn zrank(tx: &mut Tx<'_>, args: &Args<'_>, reverse: bool) -> Result<Reply, Stop> {
    let with_score = match args.len() {
        3 => false,
        4 if args.is(3, "WITHSCORE") => true,
        4 => return Err(ClientError::SYNTAX.into()),
        _ => {
            let name = if reverse { "zrevrank" } else { "zrank" };
            return Err(ClientError::wrong_arity(name).into());
        }
    };
    let missing = if with_score { Reply::NilArray } else { Reply::Nil };
    let Some(set) = SortedSet::load(tx, tx.key(args.get(1)))? else { return Ok(missing) };
    let Some((before, score)) = set.rank(tx, args.get(2))? else { return Ok(missing) };
    let rank = Reply::count(if reverse { set.len()? - 1 - before } else { before });
    Ok(if with_score { Reply::Array(vec![rank, Reply::Double(score)]) } else { rank })
}

fn zrandmember(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    if args.len() == 2 {
        let Some(set) = SortedSet::load(tx, key)? else { return Ok(Reply::Nil) };
        return Ok(Reply::Bulk(set.random(tx)?.0));
    }
    let count = random_count(args.get(2))?;
    let with_scores = args.len() > 3;
    if args.len() > 4 || with_scores && !args.is(3, "WITHSCORES") {
        return Err(ClientError::SYNTAX.into());
    }
    if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(ClientError::fixed("ERR value is out of range").into());
    }
    let Some(set) = SortedSet::load(tx, key)? else { return Ok(Reply::Array(Vec::new())) };
    if let Ok(count) = u64::try_from(count) {
        return Ok(members(set.sample(tx, count)?, with_scores));
    }
    let shape = if with_scores { Shape::Pairs } else { Shape::Array };
    let mut answer = Answer::new(tx, shape, count.unsigned_abs())?;
    for _ in 0..count.unsigned_abs() {
        tx.spend(1)?;
        let (member, score) = set.random(tx)?;
        answer.push(Reply::Bulk(member))?;
        if with_scores {
            answer.push(Reply::Double(score))?;
        }
    }
    answer.finish()
}

fn zscan(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    scan(tx, args, false, SortedSet::load, |tx, set, cursor, options, found| {
        let compact = set.compact();
        set.scan(tx, cursor, options.count, &mut |member, score| {
            if options.wants(member) {
                found.push(Reply::bulk(Bytes::copy_from_slice(member)));
                found.push(Reply::bulk(scanned_score(score, compact)));
            }
        })
    })
}

/// A score as ZSCAN tells it: Redis's compact form keeps whole numbers up to 2^62 as such, and shows them so.
fn scanned_score(score: f64, compact: bool) -> String {
    const WHOLE_MAX: f64 = (1u64 << 62) as f64;
    match compact && score.trunc() == score && score.abs() <= WHOLE_MAX {
        true => (score as i64).to_string(),
        false => encode::double(score),
    }
}

/// The first members, or the last.
fn end(reverse: bool, count: u64) -> Window {
    Window { places: Places::all(), reverse, offset: 0, count }
}

fn zpop(tx: &mut Tx<'_>, args: &Args<'_>, reverse: bool) -> Result<Reply, Stop> {
    let count = match args.len() {
        2 => None,
        3 => Some(int(args.get(2)).ok().and_then(|count| u64::try_from(count).ok()).ok_or(NOT_POSITIVE)?),
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let Some(mut set) = SortedSet::load(tx, tx.key(args.get(1)))? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let popped = set.take(tx, &end(reverse, count.unwrap_or(1)))?;
    set.save(tx)?;
    Ok(match count {
        Some(_) => members(popped, true),
        None => Reply::Array(popped.into_iter().flat_map(member_and_score).collect()),
    })
}

fn member_and_score((member, score): Scored) -> [Reply; 2] {
    [Reply::Bulk(member), Reply::Double(score)]
}

/// Takes members out at one end of the first of these keys that is there.
fn pop_first<'a>(
    tx: &mut Tx<'_>,
    names: impl Iterator<Item = &'a [u8]>,
    window: &Window,
) -> Result<Option<(Reply, Vec<Scored>)>, Stop> {
    for name in names {
        if let Some(mut set) = SortedSet::load(tx, tx.key(name))? {
            let popped = set.take(tx, window)?;
            set.save(tx)?;
            return Ok(Some((Reply::bulk(Bytes::copy_from_slice(name)), popped)));
        }
    }
    Ok(None)
}

fn bzpop(tx: &mut Tx<'_>, args: &Args<'_>, reverse: bool) -> Result<Reply, Stop> {
    let last = args.len() - 1;
    let timeout_ms = timeout_ms(args.get(last))?;
    let names = (1..last).map(|at| args.get(at));
    let Some((key, popped)) = pop_first(tx, names, &end(reverse, 1))? else {
        return Ok(Reply::waits(timeout_ms, Reply::NilArray, 1..last));
    };
    Ok(Reply::Array(std::iter::once(key).chain(popped.into_iter().flat_map(member_and_score)).collect()))
}

/// The words for the two ends.
const ENDS: [&str; 2] = ["MIN", "MAX"];

fn zmpop(tx: &mut Tx<'_>, args: &Args<'_>, at: usize) -> Result<Reply, Stop> {
    let ManyPop { keys, second_end: reverse, count } = ManyPop::parse(args, at, ENDS)?;
    let nothing = match at {
        2 => Reply::waits(timeout_ms(args.get(1))?, Reply::NilArray, keys.clone()),
        _ => Reply::NilArray,
    };
    let names = keys.map(|at| args.get(at));
    let Some((key, popped)) = pop_first(tx, names, &end(reverse, count))? else { return Ok(nothing) };
    let popped = popped.into_iter().map(|scored| Reply::Array(member_and_score(scored).into())).collect();
    Ok(Reply::Array(vec![key, Reply::Array(popped)]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};
    use std::collections::BTreeSet;

    /// A reply as one line, a list's items in brackets, pairs as RESP2 has them.
    pub(in super::super) fn show(reply: Reply) -> String {
        let list =
            |items: Vec<Reply>| format!("[{}]", items.into_iter().map(show).collect::<Vec<_>>().join(" "));
        match reply {
            Reply::Bulk(text) => String::from_utf8(text.to_vec()).expect("the tests' names are text"),
            Reply::Int(number) => number.to_string(),
            Reply::Double(number) => encode::double(number),
            Reply::Nil | Reply::NilArray => "-".to_owned(),
            Reply::Error(error) => error.0.into_owned(),
            Reply::Array(items) => list(items),
            Reply::Pairs(pairs) => list(pairs.into_iter().flat_map(|(one, other)| [one, other]).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(in super::super) fn converse(server: &mut Server, dialogue: &[(&str, &str)]) {
        for (line, expected) in dialogue {
            assert_eq!(show(server.run(line)), *expected, "{line}");
        }
    }

    /// As many members as leave a row, with scores that are their numbers.
    pub(in super::super) fn filled(count: u32) -> Server {
        let mut server = Server::default();
        let members: Vec<_> = (0..count).map(|number| (format!("m{number:05}"), f64::from(number))).collect();
        let scope = server.scope;
        server.memory.run(scope, |tx| SortedSet::replace(tx, tx.key(b"z"), &members)).0.unwrap();
        server
    }

    const FLOAT: &str = "ERR value is not a valid float";
    const SYNTAX: &str = "ERR syntax error";
    const TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn adding_goes_as_with_redis_server() {
        // From redis-server 7.0.15.
        let exclusive = "ERR GT, LT, and/or NX options at the same time are not compatible";
        let dialogue = [
            ("ZADD z 1 a 2 b 2 a", "2"),
            ("ZADD z CH 2 a 3 b 4 c", "2"),
            ("ZADD z NX CH 9 a 9 d", "1"),
            ("ZADD z XX CH 1 a 9 e", "1"),
            ("ZADD z GT CH 0 a 5 b 7 f", "2"),
            ("ZADD z LT CH 0 a 6 b 7 g", "2"),
            ("ZMSCORE z a b c d e f g", "[0 5 4 9 - 7 7]"),
            ("ZADD z INCR 2.5 a", "2.5"),
            ("ZADD z NX INCR 1 a", "-"),
            ("ZADD z GT INCR -1 a", "-"),
            ("ZINCRBY z -0 new", "-0"),
            ("ZSCORE z new", "0"),
            ("ZINCRBY z 0x10 new", "16"),
            ("ZADD z inf a", "0"),
            ("ZADD z NX INCR -inf a", "-"),
            ("ZINCRBY z -inf a", "ERR resulting score is not a number (NaN)"),
            ("ZADD z 1 x y", SYNTAX),
            ("ZADD z NX 1", SYNTAX),
            ("ZADD z NX XX 1 a", "ERR XX and NX options at the same time are not compatible"),
            ("ZADD z GT LT 1 a", exclusive),
            ("ZADD z NX GT x a", exclusive),
            ("ZADD z INCR 1 a 2 b", "ERR INCR option supports a single increment-element pair"),
            ("ZADD z 1 a nan b", FLOAT),
            ("ZINCRBY z ch 5", SYNTAX),
            ("ZADD none XX 1 a", "0"),
            ("ZADD none XX INCR 1 a", "-"),
            ("EXISTS none", "0"),
        ];
        let mut server = Server::default();
        converse(&mut server, &dialogue);
        server.ok("SET s text");
        converse(&mut server, &[("ZADD s x a", FLOAT), ("ZADD s 1 a", TYPE), ("ZSCORE s a", TYPE)]);
    }

    #[test]
    fn a_name_that_is_too_long_changes_nothing_and_is_nowhere() {
        let (mut server, long) = (Server::default(), vec![b'm'; 65_536]);
        let refused = Reply::Error(ClientError::fixed("ERR member name is longer than 65535 bytes"));
        let words = [b"ZADD", &b"z"[..], b"1", b"a", b"2", &long];
        assert_eq!(server.run_words(&Words::of(&words)), refused);
        server.int("EXISTS z", 0);
        server = filled(200);
        assert_eq!(server.run_words(&Words::of(&[b"ZSCORE", b"z", &long])), Reply::Nil);
        assert_eq!(server.run_words(&Words::of(&[b"ZREM", b"z", &long])), Reply::Int(0));
        server.run_words(&Words::of(&[b"ZADD", b"z", b"-1", &long[1..]]));
        assert_eq!(server.run_words(&Words::of(&[b"ZRANK", b"z", &long[1..]])), Reply::Int(0));
    }

    #[test]
    fn ranks_with_scores() {
        let mut server = Server::default();
        server.int("ZADD z 1 a 2 b 3 c", 3);
        let dialogue = [
            ("ZRANK z c", "2"),
            ("ZREVRANK z c", "0"),
            ("ZRANK z c WITHSCORE", "[2 3]"),
            ("ZREVRANK z a withscore", "[2 1]"),
            ("ZRANK z x", "-"),
            ("ZRANK z c WITHSCORES", SYNTAX),
            ("ZRANK z c WITHSCORE 1", "ERR wrong number of arguments for 'zrank' command"),
        ];
        converse(&mut server, &dialogue);
        assert_eq!(server.run("ZRANK z x WITHSCORE"), Reply::NilArray);
        assert_eq!(server.run("ZRANK none x"), Reply::Nil);
    }

    #[test]
    fn popping_goes_as_with_redis_server() {
        let mut server = Server::default();
        server.int("ZADD z 1 a 2 b 3 c 4 d 5 e 6 f", 6);
        assert_eq!(server.run("ZPOPMIN z"), Reply::Array(vec![Reply::text("a"), Reply::Double(1.0)]));
        assert_eq!(server.run("ZPOPMAX z 1"), Reply::Pairs(vec![(Reply::text("f"), Reply::Double(6.0))]));
        server.ok("SET s text");
        let positive = "ERR value is out of range, must be positive";
        let dialogue = [
            ("ZPOPMIN z 0", "[]"),
            ("ZPOPMIN z -1", positive),
            ("ZPOPMIN z x", positive),
            ("ZPOPMIN z 1 2", SYNTAX),
            ("ZPOPMIN s 0", TYPE),
            ("BZPOPMAX none z 1", "[z e 5]"),
            ("ZMPOP 2 none z MIN COUNT 2", "[z [[b 2] [c 3]]]"),
            ("BZMPOP abc 0 z MIN", "ERR numkeys should be greater than 0"),
            ("BZMPOP abc 1 z MIN", "ERR timeout is not a float or out of range"),
            ("ZMPOP 1 z MIN COUNT 0", "ERR count should be greater than 0"),
            ("ZMPOP 9223372036854775807 z MIN", SYNTAX),
            ("ZMPOP 1 z MIN COUNT 1 COUNT 1", SYNTAX),
            ("ZMPOP 2 z s MAX", "[z [[d 4]]]"),
            ("EXISTS z", "0"),
            ("ZMPOP 2 z s MAX", TYPE),
            ("ZPOPMIN z", "[]"),
        ];
        converse(&mut server, &dialogue);
        for line in ["BZPOPMIN z 0.01", "BZMPOP 0.01 1 z MIN", "ZMPOP 1 z MIN"] {
            assert_eq!(server.run(line), Reply::NilArray, "{line}");
        }
    }

    #[test]
    fn a_scan_sees_every_member_with_its_score() {
        for count in [100, 1000] {
            let (mut server, mut cursor, mut seen) = (filled(count), "0".to_owned(), BTreeSet::new());
            loop {
                let Reply::Array(reply) = server.run(&format!("ZSCAN z {cursor} MATCH m*5")) else {
                    panic!()
                };
                let [Reply::Bulk(next), Reply::Array(found)] = &reply[..] else { panic!("{reply:?}") };
                for pair in found.chunks(2) {
                    let [member, score] = [&pair[0], &pair[1]].map(|text| show(text.clone()));
                    assert_eq!(member[1..].parse::<u32>().ok(), score.parse().ok());
                    assert!(seen.insert(member));
                }
                cursor = String::from_utf8(next.to_vec()).unwrap();
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(seen.len(), count as usize / 10);
        }
        let dialogue = [
            ("ZSCAN none 0 FOO", "[0 []]"),
            ("ZSCAN none x", "ERR invalid cursor"),
            ("ZSCAN z 0 NOVALUES", SYNTAX),
        ];
        converse(&mut filled(1), &dialogue);
        let long = "x".repeat(65);
        let raw = format!("ZADD z 1 {long}");
        let dialogue = [
            ("ZADD z 1e17 a 4611686018427387904 b 1e19 c 1e-7 d", "4"),
            (
                "ZSCAN z 0",
                "[0 [d 9.9999999999999995e-08 a 100000000000000000 b 4611686018427387904 c 1e+19]]",
            ),
            (&raw, "1"),
            ("ZSCAN z 0 MATCH a", "[0 [a 1e+17]]"),
        ];
        converse(&mut Server::default(), &dialogue);
    }

    #[test]
    fn chance_answers_what_is_there() {
        for count in [3, 500] {
            let mut server = filled(count);
            let mut len = |line: &str| match server.run(line) {
                Reply::Array(members) => members.len(),
                Reply::Pairs(pairs) => pairs.len(),
                other => panic!("{other:?}"),
            };
            assert_eq!([len("ZRANDMEMBER z 2"), len("ZRANDMEMBER z 1000")], [2, count as usize]);
            assert_eq!([len("ZRANDMEMBER z -20"), len("ZRANDMEMBER z -7 WITHSCORES")], [20, 7]);
            assert!(show(server.run("ZRANDMEMBER z")).starts_with('m'));
        }
        let dialogue = [
            ("ZRANDMEMBER none", "-"),
            ("ZRANDMEMBER none 3", "[]"),
            ("ZRANDMEMBER none x", "ERR value is not an integer or out of range"),
            ("ZRANDMEMBER none 9223372036854775807 WITHSCORES", "ERR value is out of range"),
            ("ZRANDMEMBER none 1 FOO", SYNTAX),
        ];
        converse(&mut Server::default(), &dialogue);
    }
}

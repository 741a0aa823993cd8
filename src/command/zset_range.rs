//! Commands on ranges of a sorted set: by rank, by score, by member; read, counted, stored, removed.
//!
//! Arguments in, a reply out. Which members a range means is for `types::zset` to find.

use super::answer::Answer;
use super::options::int;
use super::zset::ZSET;
use super::{KeyCommand, Keys, flag};
use crate::error::{ClientError, Stop};
use crate::limits;
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::resp::stream::Shape;
use crate::store::tx::Tx;
use crate::types::zset::{Bound, MemberRange, Places, ScoreRange, SortedSet, Window};
use bytes::Bytes;

pub const COMMANDS: &[KeyCommand] = &[
    ZSET.row("zrange", -4, LONG_READ, "1.2.0", RANGING, "Members in a range", |tx, args| {
        zrange(tx, args, Form::ANY)
    }),
    ZSET.row(
        "zrevrange",
        -4,
        LONG_READ,
        "1.2.0",
        RANGING,
        "Members in a range of ranks, from the last",
        |tx, args| zrange(tx, args, Form::of(By::Rank, true)),
    ),
    ZSET.row("zrangebyscore", -4, LONG_READ, "1.0.5", RANGING, "Members in a range of scores", |tx, args| {
        zrange(tx, args, Form::of(By::Score, false))
    }),
    ZSET.row(
        "zrevrangebyscore",
        -4,
        LONG_READ,
        "2.2.0",
        RANGING,
        "Members in a range of scores, from the greatest",
        |tx, args| zrange(tx, args, Form::of(By::Score, true)),
    ),
    ZSET.row(
        "zrangebylex",
        -4,
        LONG_READ,
        "2.8.9",
        RANGING,
        "Members between two, all of one score",
        |tx, args| zrange(tx, args, Form::of(By::Member, false)),
    ),
    ZSET.row(
        "zrevrangebylex",
        -4,
        LONG_READ,
        "2.8.9",
        RANGING,
        "Members between two, all of one score, from the last",
        |tx, args| zrange(tx, args, Form::of(By::Member, true)),
    ),
    ZSET.row(
        "zrangestore",
        -5,
        flag::WRITE | flag::DENYOOM | flag::ANY_VALUES,
        "6.2.0",
        RANGING,
        "Keeps the members in a range under another key",
        zrangestore,
    )
    .with_keys(Keys::Span { first: 1, last: 2, step: 1 }),
    ZSET.row(
        "zcount",
        4,
        READ | flag::FAST,
        "2.0.0",
        COUNTING,
        "Number of members in a range of scores",
        |tx, args| count(tx, args, By::Score),
    ),
    ZSET.row(
        "zlexcount",
        4,
        READ | flag::FAST,
        "2.8.9",
        COUNTING,
        "Number of members between two, all of one score",
        |tx, args| count(tx, args, By::Member),
    ),
    ZSET.row(
        "zremrangebyrank",
        4,
        flag::WRITE,
        "2.0.0",
        REMOVING,
        "Takes out a range of ranks",
        |tx, args| remove(tx, args, By::Rank),
    ),
    ZSET.row(
        "zremrangebyscore",
        4,
        flag::WRITE,
        "1.2.0",
        REMOVING,
        "Takes out a range of scores",
        |tx, args| remove(tx, args, By::Score),
    ),
    ZSET.row(
        "zremrangebylex",
        4,
        flag::WRITE,
        "2.8.9",
        REMOVING,
        "Takes out the members between two, all of one score",
        |tx, args| remove(tx, args, By::Member),
    ),
];

const READ: u32 = flag::READONLY;
const LONG_READ: u32 = READ | flag::LONG_REPLY;
const RANGING: &str = "O(log N + M) for M members answered; far from both ends O(sqrt N + M)";
const COUNTING: &str = "O(sqrt N), some hundred members and counts at most up to tens of millions";
const REMOVING: &str = "O(M log N) for M members taken out; O(M) for all";

/// What a range's ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Member,
}

/// What a command's name has settled; the rest its words may say.
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    stores: bool,
}

impl Form {
    const ANY: Form = Form { by: None, reverse: None, stores: false };
    const STORE: Form = Form { stores: true, ..Form::ANY };

    fn of(by: By, reverse: bool) -> Form {
        Form { by: Some(by), reverse: Some(reverse), stores: false }
    }
}

/// A range as it is given.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Range<'a> {
    Ranks(i64, i64),
    Scores(ScoreRange),
    Members(MemberRange<'a>),
}

impl<'a> Range<'a> {
    /// From the two arguments at `min` and `max`.
    fn parse(args: &Args<'a>, by: By, min: usize, max: usize) -> Result<Range<'a>, ClientError> {
        let (min, max) = (args.get(min), args.get(max));
        Ok(match by {
            By::Rank => Range::Ranks(int(min)?, int(max)?),
            By::Score => {
                let ((min, min_open), (max, max_open)) = (score_bound(min)?, score_bound(max)?);
                Range::Scores(ScoreRange { min, min_open, max, max_open })
            }
            By::Member => Range::Members(MemberRange { min: member_bound(min)?, max: member_bound(max)? }),
        })
    }

    /// All that lies in it.
    fn window(&self, tx: &mut Tx<'_>, set: &SortedSet<'_>, reverse: bool) -> Result<Window, Stop> {
        let places = match self {
            Range::Ranks(start, end) => {
                let (offset, count) = ranks(*start, *end, set.len()?);
                return Ok(Window { places: Places::all(), reverse, offset, count });
            }
            Range::Scores(range) => range.places(),
            Range::Members(range) => set.places_of_members(tx, range)?,
        };
        Ok(Window { places, reverse, offset: 0, count: u64::MAX })
    }
}

/// The first of a range of ranks, where negative ones count from the end, and how many they are.
fn ranks(start: i64, end: i64, len: u64) -> (u64, u64) {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_start = |rank: i64| if rank < 0 { rank + len } else { rank };
    let (start, end) = (from_start(start).max(0), from_start(end).min(len - 1));
    if start > end { (0, 0) } else { (start.unsigned_abs(), (end - start).unsigned_abs() + 1) }
}

/// A score, and whether it is itself left out.
fn score_bound(arg: &[u8]) -> Result<(f64, bool), ClientError> {
    let (number, open) = match arg.strip_prefix(b"(") {
        Some(number) => (number, true),
        None => (arg, false),
    };
    let score = number::parse_bound(number).ok_or(ClientError::fixed("ERR min or max is not a float"))?;
    Ok((score, open))
}

fn member_bound(arg: &[u8]) -> Result<Bound<'_>, ClientError> {
    match arg {
        [b'['] => Ok(Bound::Included(b"")),
        [b'[', member @ ..] => Ok(Bound::Included(member)),
        [b'(', member @ ..] => Ok(Bound::Excluded(member)),
        // As in Redis, where a zero byte ends it.
        [b'-'] | [b'-', 0, ..] => Ok(Bound::Lowest),
        [b'+'] | [b'+', 0, ..] => Ok(Bound::Highest),
        _ => Err(ClientError::fixed("ERR min or max not valid string range item")),
    }
}

/// A range with all that is said of it.
struct Wanted<'a> {
    range: Range<'a>,
    reverse: bool,
    with_scores: bool,
    offset: i64,
    limit: i64,
}

impl<'a> Wanted<'a> {
    /// The source's key stands at `key`, the ends of the range and the words behind it.
    fn parse(args: &Args<'a>, key: usize, form: Form) -> Result<Wanted<'a>, ClientError> {
        let (mut by, mut reverse) = (form.by, form.reverse);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut at = key + 3;
        while at < args.len() {
            if !form.stores && args.is(at, "WITHSCORES") {
                with_scores = true;
            } else if args.is(at, "LIMIT") && at + 2 < args.len() {
                (offset, limit) = (int(args.get(at + 1))?, int(args.get(at + 2))?);
                at += 2;
            } else if reverse.is_none() && args.is(at, "REV") {
                reverse = Some(true);
            } else if by.is_none() && args.is(at, "BYLEX") {
                by = Some(By::Member);
            } else if by.is_none() && args.is(at, "BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(ClientError::SYNTAX);
            }
            at += 1;
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(ClientError::fixed(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Member {
            return Err(ClientError::fixed(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // Backwards the greater end comes first; ranks are counted backwards instead.
        let (min, max) = if reverse && by != By::Rank { (key + 2, key + 1) } else { (key + 1, key + 2) };
        Ok(Wanted { range: Range::parse(args, by, min, max)?, reverse, with_scores, offset, limit })
    }

    fn window(&self, tx: &mut Tx<'_>, set: &SortedSet<'_>) -> Result<Window, Stop> {
        let window = self.range.window(tx, set, self.reverse)?;
        if matches!(self.range, Range::Ranks(..)) {
            return Ok(window);
        }
        // A negative offset passes over everything, a negative limit is none.
        let count = if self.offset < 0 { 0 } else { u64::try_from(self.limit).unwrap_or(u64::MAX) };
        Ok(Window { offset: self.offset.unsigned_abs(), count, ..window })
    }
}

fn zrange(tx: &mut Tx<'_>, args: &Args<'_>, form: Form) -> Result<Reply, Stop> {
    let wanted = Wanted::parse(args, 1, form)?;
    let Some(set) = SortedSet::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Array(Vec::new())) };
    let window = wanted.window(tx, &set)?;
    let shape = if wanted.with_scores { Shape::Pairs } else { Shape::Array };
    let push = |answer: &mut Answer, member: Bytes, score: f64| {
        answer.push(Reply::Bulk(member))?;
        if wanted.with_scores { answer.push(Reply::Double(score)) } else { Ok(()) }
    };
    // Counting what is in a range of scores costs more than reading a few: few are read first.
    let most = set.len()?.saturating_sub(window.offset).min(window.count);
    if most <= limits::REPLY_HELD_MAX_ELEMENTS {
        let found = set.list(tx, &window)?;
        let mut answer = Answer::new(tx, shape, found.len() as u64)?;
        for (member, score) in found {
            push(&mut answer, member, score)?;
        }
        return answer.finish();
    }
    let inside = set.count(tx, &window.places)?.saturating_sub(window.offset).min(window.count);
    let mut answer = Answer::new(tx, shape, inside)?;
    set.visit(tx, &window, &mut |member, score| {
        push(&mut answer, Bytes::copy_from_slice(member), score).map(|()| true)
    })?;
    answer.finish()
}

fn zrangestore(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let wanted = Wanted::parse(args, 2, Form::STORE)?;
    let found = match SortedSet::load(tx, tx.key(args.get(2)))? {
        Some(set) => {
            let window = wanted.window(tx, &set)?;
            set.list(tx, &window)?
        }
        None => Vec::new(),
    };
    SortedSet::replace(tx, tx.key(args.get(1)), &found)?;
    Ok(Reply::count(found.len() as u64))
}

fn count(tx: &mut Tx<'_>, args: &Args<'_>, by: By) -> Result<Reply, Stop> {
    let range = Range::parse(args, by, 2, 3)?;
    let Some(set) = SortedSet::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let window = range.window(tx, &set, false)?;
    Ok(Reply::count(set.count(tx, &window.places)?))
}

fn remove(tx: &mut Tx<'_>, args: &Args<'_>, by: By) -> Result<Reply, Stop> {
    let range = Range::parse(args, by, 2, 3)?;
    let Some(mut set) = SortedSet::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let window = range.window(tx, &set, false)?;
    let removed = set.take(tx, &window)?.len();
    set.save(tx)?;
    Ok(Reply::count(removed as u64))
}

#[cfg(test)]
mod tests {
    use crate::command::tests::Server;
    use crate::command::zset::tests::{converse, filled};
    use crate::resp::reply::Reply;

    const FLOAT: &str = "ERR min or max is not a float";
    const MEMBER: &str = "ERR min or max not valid string range item";
    const SYNTAX: &str = "ERR syntax error";

    #[test]
    fn ranges_go_as_with_redis_server() {
        // From redis-server 7.0.15.
        let limit = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
        let dialogue = [
            ("ZADD z 1 a 2 b 2 c 3 d 4.5 e -inf low inf high", "7"),
            ("ZRANGE z -2 -1 WITHSCORES", "[e 4.5 high inf]"),
            ("ZRANGE z 0 1 REV", "[high e]"),
            ("ZRANGE z 9223372036854775807 -9223372036854775808", "[]"),
            ("ZRANGE z (1 3 BYSCORE", "[b c d]"),
            ("ZRANGE z (3 (1 REV BYSCORE", "[c b]"),
            ("ZRANGE z (-inf (inf BYSCORE LIMIT 1 2", "[b c]"),
            ("ZRANGE z -inf inf BYSCORE LIMIT -1 2", "[]"),
            ("ZRANGE z -inf inf BYSCORE LIMIT 5 -7", "[e high]"),
            ("ZRANGE z 0 0 LIMIT 1 -1", "[low]"),
            ("ZREVRANGEBYSCORE z inf 3 WITHSCORES LIMIT 1 1", "[e 4.5]"),
            ("ZCOUNT z 2 (3", "2"),
            ("ZCOUNT z (2 (2", "0"),
            ("ZRANGE z 0 1 LIMIT 0 1", limit),
            ("ZREVRANGE z 0 1 REV", SYNTAX),
            ("ZRANGEBYSCORE z 0 1 LIMIT 0", SYNTAX),
            (
                "ZRANGE z - + BYLEX WITHSCORES",
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ),
            ("ZRANGE z nan 1 BYSCORE", FLOAT),
            ("ZRANGE none 1 ((2 BYSCORE", FLOAT),
            ("ZLEXCOUNT none a [b", MEMBER),
            ("ZRANGE none x 1", "ERR value is not an integer or out of range"),
            ("ZRANGESTORE y z 1 2 REV", "2"),
            ("ZRANGE y 0 -1 WITHSCORES", "[d 3 e 4.5]"),
            ("ZRANGESTORE y z 10 20", "0"),
            ("EXISTS y", "0"),
            ("ZREMRANGEBYRANK z 1 -3", "4"),
            ("ZREMRANGEBYSCORE z (4 4.5", "1"),
            ("ZREMRANGEBYSCORE z -inf inf", "2"),
            ("EXISTS z", "0"),
        ];
        converse(&mut Server::default(), &dialogue);
        let mut server = filled(2);
        let pair = (Reply::text("m00001"), Reply::Double(1.0));
        assert_eq!(server.run("ZRANGE z 1 1 WITHSCORES"), Reply::Pairs(vec![pair]));
    }

    #[test]
    fn members_of_one_score_are_found_by_their_names() {
        for more in [0, 300] {
            let mut server = Server::default();
            for number in 0..more {
                server.int(&format!("ZADD z 0 zz{number:03}"), 1);
            }
            let dialogue = [
                ("ZADD z 0 a 0 b 0 c 0 d 0 e", "5"),
                ("ZRANGEBYLEX z [b (d", "[b c]"),
                ("ZRANGEBYLEX z - (z LIMIT 1 2", "[b c]"),
                ("ZREVRANGEBYLEX z (e (a LIMIT 1 1", "[c]"),
                ("ZRANGE z [z [a BYLEX REV", "[e d c b a]"),
                ("ZRANGEBYLEX z [d [b", "[]"),
                ("ZRANGEBYLEX z + -", "[]"),
                ("ZLEXCOUNT z (a [e", "4"),
                ("ZREMRANGEBYLEX z [b [c", "2"),
                ("ZRANGEBYLEX z - [e", "[a d e]"),
                // Scores that differ, members in their order: from the first in the range to the first behind it.
                ("ZADD z -1 A -2 B", "2"),
                ("ZRANGEBYLEX z [d (e", "[d]"),
            ];
            converse(&mut server, &dialogue);
            server.int("ZLEXCOUNT z - +", 5 + more);
        }
    }

    #[test]
    fn ranges_of_many_members_stay_within_a_turn() {
        let mut server = filled(50_000);
        server.scope.steps_max = crate::limits::STEPS_PER_TURN_MAX;
        let dialogue = [
            ("ZRANGE z 25000 25001", "[m25000 m25001]"),
            ("ZREVRANGE z 0 1", "[m49999 m49998]"),
            ("ZREVRANGE z 30000 30000 WITHSCORES", "[m19999 19999]"),
            ("ZRANGEBYSCORE z 100 inf LIMIT 30000 1", "[m30100]"),
            ("ZCOUNT z 10000 (40000", "30000"),
            ("ZREMRANGEBYRANK z 20000 20001", "2"),
            ("ZRANK z m30000", "29998"),
            ("ZREVRANK z m00000", "49997"),
            ("ZPOPMIN z", "[m00000 0]"),
            ("ZCARD z", "49997"),
        ];
        converse(&mut server, &dialogue);
        server.scope.steps_max = u32::MAX;
        let reply = server.run("ZREVRANGEBYSCORE z (40000 100 WITHSCORES LIMIT 300 -1");
        let Reply::Pairs(pairs) = reply else { panic!("{reply:?}") };
        assert_eq!((pairs.len(), &pairs[0].0), (39_598, &Reply::text("m39699")));
        server.int("ZREMRANGEBYSCORE z -inf +inf", 49_997);
        server.int("EXISTS z", 0);
    }
}

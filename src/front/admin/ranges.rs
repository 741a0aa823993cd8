//! Pika's commands over the keys of one type: ordered ranges, and deletion by a pattern. Every core looks
//! through its own keys; here the ranges become one.
//!
//! Source: pika_kv.cc, pika_admin.cc and redis_strings.cc of Pika 3.3.6 and 3.5.5.

use super::{all_told, ask_about_keys, ok_or_error, spec};
use crate::command::Group::Generic;
use crate::command::flag::{DANGEROUS, READONLY, WRITE};
use crate::command::options::RangeOptions;
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::limits;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, RangeAsk, Ranged, SweepAsk, Tell};
use crate::store::row::Kind;
use crate::types::stretch::{Found, Stretch};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

const OF_A_RANGE: &str = "O(S+N) with S being the number of slots and N that of keys in the range, those of other types included, \
     until LIMIT of this type are found";

pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand {
        spec: spec(
            Generic,
            "scanx",
            -3,
            READONLY,
            "3.0.3",
            OF_A_RANGE,
            "Goes through the keys of one type in byte order, from a name on",
        ),
        run: scanx,
    },
    FrontCommand {
        spec: spec(
            Generic,
            "pkscanrange",
            -4,
            READONLY,
            "3.0.4",
            OF_A_RANGE,
            "Keys of one type in a range of names, in byte order; of strings the values too if wanted",
        ),
        run: |ctx, args| scan_range(ctx, args, false),
    },
    FrontCommand {
        spec: spec(
            Generic,
            "pkrscanrange",
            -4,
            READONLY,
            "3.0.4",
            OF_A_RANGE,
            "Keys of one type in a range of names, the last first",
        ),
        run: |ctx, args| scan_range(ctx, args, true),
    },
    FrontCommand {
        spec: spec(
            Generic,
            "pkpatternmatchdel",
            3,
            WRITE | DANGEROUS,
            "3.2.3",
            "O(N) with N being the number of keys",
            "Deletes the keys of one type that match a pattern, one after the other: others see it half done, \
             and what is written meanwhile may stay",
        ),
        run: pattern_match_del,
    },
];

const KINDS: &[(&str, Kind)] = &[
    ("string", Kind::String),
    ("hash", Kind::Hash),
    ("list", Kind::List),
    ("set", Kind::Set),
    ("zset", Kind::SortedSet),
];

/// The type that an argument names. `command`: what Pika says beside it where there is none.
fn kind(args: &Args<'_>, at: usize, command: &str) -> Result<Kind, ClientError> {
    let named = KINDS.iter().find(|(name, _)| args.is(at, name)).map(|(_, kind)| *kind);
    named.ok_or_else(|| ClientError::new(format!("ERR invalid DB for '{command}'")))
}

fn scanx(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let kind = kind(args, 1, "")?;
    let options = RangeOptions::parse(args, 3, "COUNT")?;
    let mut stretch =
        Stretch::new(args.get(2), b"", false).expect("a stretch without an end is none the wrong way");
    // What lies behind all names that begin as the pattern does is not looked at: so the scan is over there.
    if let Some(behind) = options.pattern.and_then(prefix).and_then(behind) {
        if stretch.low.as_ref().map(|low| *low >= behind) == Bound::Included(true) {
            return Ok(Reply::ranged(None, Vec::new()).into());
        }
        stretch.high = Bound::Excluded(behind);
    }
    Ok(range(ctx, kind, stretch, &options, false))
}

/// What all names that match a pattern begin with, where its one sign is a star at the end.
fn prefix(pattern: &[u8]) -> Option<&[u8]> {
    let prefix = pattern.strip_suffix(b"*")?;
    (!prefix.iter().any(|byte| b"*?[]\\".contains(byte))).then_some(prefix)
}

/// The first name above all that begin so.
fn behind(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut name = prefix[..=last].to_vec();
    name[last] += 1;
    Some(name.into())
}

fn scan_range(ctx: &mut Ctx<'_>, args: &Args<'_>, backward: bool) -> Result<Answer, ClientError> {
    let values = args.is(1, "string_with_value");
    let kind = if values { Kind::String } else { kind(args, 1, "")? };
    let options = RangeOptions::parse(args, 4, "LIMIT")?;
    let stretch = Stretch::new(args.get(2), args.get(3), backward).ok_or(ClientError::WRONG_RANGE)?;
    Ok(range(ctx, kind, stretch, &options, values))
}

fn range(ctx: &Ctx<'_>, kind: Kind, stretch: Stretch, options: &RangeOptions<'_>, values: bool) -> Answer {
    let ask = Arc::new(RangeAsk {
        table: ctx.session.table,
        kind,
        stretch,
        limit: options.limit,
        pattern: options.pattern.map(Bytes::copy_from_slice),
        values,
        bytes_max: limits::RANGE_REPLY_MAX_BYTES / usize::from(ctx.node.cores),
    });
    let asked = ask.clone();
    let ranged = |tell| match tell {
        Tell::Range(ranged) => Some(ranged),
        _ => None,
    };
    let fold = move |_: &mut Ctx<'_>, tells| {
        ok_or_error(
            all_told(tells, ranged).map(|ranged| told(&asked, ranged.into_iter().flatten().collect())),
        )
    };
    ask_about_keys(ctx, Ask::Range(ask), Box::new(fold))
}

fn told(ask: &RangeAsk, ranged: Vec<Ranged>) -> Reply {
    let found = Found::merged(ranged, ask.limit, ask.stretch.backward);
    let wanted = found.entries.into_iter().filter(|(name, _)| ask.wants(name));
    let told = wanted.flat_map(|(name, value)| [Some(name), value]).flatten().map(Reply::Bulk);
    Reply::ranged(found.next, told.collect())
}

fn pattern_match_del(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let kind = match args.is(2, "stream") {
        true => Kind::Stream,
        false => kind(args, 2, "pkpatternmatchdel")?,
    };
    let pattern = Bytes::copy_from_slice(args.get(1));
    let ask = Ask::Sweep(Arc::new(SweepAsk { table: ctx.session.table, kind, pattern }));
    let count = |tell| match tell {
        Tell::Count(count) => Some(count),
        _ => None,
    };
    let fold = move |_: &mut Ctx<'_>, tells| {
        ok_or_error(all_told(tells, count).map(|counts| Reply::count(counts.into_iter().sum())))
    };
    Ok(ask_about_keys(ctx, ask, Box::new(fold)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;

    #[test]
    fn texts_are_those_of_pika() {
        let mut bench = Bench::new();
        for (call, reply) in [
            ("SCANX string a", "asks"),
            ("SCANX HASH a match x* count 3", "asks"),
            ("SCANX stream a", "-ERR invalid DB for ''"),
            ("SCANX string_with_value a", "-ERR invalid DB for ''"),
            ("SCANX foo a COUNT 0", "-ERR invalid DB for ''"),
            ("SCANX string a COUNT 0", "-ERR value is not an integer or out of range"),
            ("SCANX string a COUNT", "-ERR syntax error"),
            ("SCANX string a LIMIT 1", "-ERR syntax error"),
            ("SCANX string c MATCH b*", "[, []]"),
            ("SCANX string bz MATCH b*", "asks"),
            ("PKSCANRANGE string_with_value a b", "asks"),
            ("PKSCANRANGE zset a b MATCH * LIMIT 7", "asks"),
            ("PKSCANRANGE zset b a", "-ERR Invalid argument: error in given range"),
            ("PKRSCANRANGE zset a b", "-ERR Invalid argument: error in given range"),
            ("PKRSCANRANGE zset b a", "asks"),
            ("PKSCANRANGE stream a b", "-ERR invalid DB for ''"),
            ("PKSCANRANGE list b a LIMIT -1", "-ERR value is not an integer or out of range"),
            ("PKSCANRANGE list a", "-ERR wrong number of arguments for 'pkscanrange' command"),
            ("PKPATTERNMATCHDEL a* foo", "-ERR invalid DB for 'pkpatternmatchdel'"),
            ("PKPATTERNMATCHDEL a* stream", "asks"),
            ("PKPATTERNMATCHDEL a* set 5", "-ERR wrong number of arguments for 'pkpatternmatchdel' command"),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
    }

    fn found(names: &[&'static str], next: Option<&'static str>) -> Ranged {
        let entries = names.iter().map(|name| (Bytes::from(*name), None)).collect();
        Found { entries, next: next.map(Bytes::from) }
    }

    #[test]
    fn keys_of_all_shards_are_one_range() {
        let mut bench = Bench::new();
        let shards = |_: &Ask| {
            vec![
                Tell::Range(vec![found(&["a", "d"], None), found(&[], None)]),
                Tell::Range(vec![found(&["b", "c"], Some("e"))]),
            ]
        };
        assert_eq!(bench.run_with("PKSCANRANGE set a z LIMIT 3", shards), "[d, [a, b, c]]");
        assert_eq!(bench.run_with("PKSCANRANGE set a z", shards), "[e, [a, b, c, d]]");
        assert_eq!(bench.run_with("SCANX set a MATCH [bd]", shards), "[e, [b, d]]");
        let failed = |_: &Ask| vec![Tell::Range(Vec::new()), Tell::Failed("reading failed: x".into())];
        assert_eq!(bench.run_with("SCANX set a", failed), "-ERR reading failed: x");
        let values = |_: &Ask| {
            let entries =
                vec![("a".into(), Some("1".into())), ("b".into(), None), ("c".into(), Some("3".into()))];
            vec![Tell::Range(vec![Found { entries, next: None }])]
        };
        assert_eq!(
            bench.run_with("PKSCANRANGE string_with_value a z MATCH [^b]", values),
            "[, [a, 1, c, 3]]"
        );
        let counts = |_: &Ask| vec![Tell::Count(3), Tell::Count(4)];
        assert_eq!(bench.run_with("PKPATTERNMATCHDEL * hash", counts), ":7");
    }

    #[test]
    fn a_scan_of_a_prefix_ends_with_it() {
        let mut bench = Bench::new();
        for (pattern, high) in [
            ("user:*", Bound::Excluded(Bytes::from("user;"))),
            ("*", Bound::Unbounded),
            ("a\\*", Bound::Unbounded),
            ("a?*", Bound::Unbounded),
            ("user", Bound::Unbounded),
        ] {
            let Ok(Answer::AskAll(Ask::Range(ask), _)) =
                bench.answer(&format!("SCANX set a MATCH {pattern}"))
            else {
                panic!("all cores are asked")
            };
            assert_eq!(ask.stretch.high, high, "{pattern}");
        }
        assert_eq!(behind(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(behind(b"\xff"), None);
    }
}

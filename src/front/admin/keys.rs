//! Commands that look through all keys of a table: KEYS, SCAN, RANDOMKEY.
//! The shards look; here are the cursor's meaning and the order of the shards.

use super::{all_told, ask_about_keys, asks_each_core, ok_or_error, one_told, spec};
use crate::command::Group::Generic;
use crate::command::flag::{DANGEROUS, READONLY};
use crate::command::options::ScanOptions;
use crate::error::ClientError;
use crate::front::node::SlotMap;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, ScanAsk, Tell};
use crate::slot::Slot;
use bytes::Bytes;
use std::sync::Arc;

pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand {
        spec: spec(
            Generic,
            "keys",
            2,
            READONLY | DANGEROUS,
            "1.0.0",
            "O(N) with N being the number of keys",
            "Answers all keys that match a pattern",
        ),
        run: keys,
    },
    FrontCommand {
        spec: spec(
            Generic,
            "scan",
            -2,
            READONLY,
            "2.8.0",
            "O(1) for every call, O(N) for all of them together",
            "Goes through the keys piece by piece",
        ),
        run: scan,
    },
    FrontCommand {
        spec: spec(Generic, "randomkey", 1, READONLY, "1.0.0", "O(1)", "Answers some key"),
        run: randomkey,
    },
];

/// Most that one KEYS may answer, all cores together; more is refused with a word about SCAN.
const KEYS_REPLY_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most keys one SCAN looks at, whatever COUNT says: it bounds the reply and the work for one call.
const SCAN_COUNT_MAX: usize = 10_000;
const SCAN_COUNT_DEFAULT: usize = 10;

fn keys(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let ask = Ask::Keys {
        table: ctx.session.table,
        pattern: Bytes::copy_from_slice(args.get(1)),
        limit_bytes: KEYS_REPLY_MAX_BYTES / usize::from(ctx.node.cores),
    };
    let fold = |_: &mut Ctx<'_>, tells| {
        ok_or_error(all_told(tells, names).map(|parts| Reply::bulks(parts.concat())))
    };
    Ok(ask_about_keys(ctx, ask, Box::new(fold)))
}

pub(super) fn names(tell: Tell) -> Option<Vec<Bytes>> {
    match tell {
        Tell::Keys(keys) => Some(keys),
        _ => None,
    }
}

/// Where SCAN goes on: a slot in the low 16 bits and a shard's token for a place in it above. Slots are gone through in
/// order, wherever they lie: so one that moves between two calls is not passed over. 0 begins and, as an answer, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    slot: Slot,
    token: u32,
}

const SLOT_BITS: u32 = 16;

impl Cursor {
    /// None for a number this server has never given out: such a scan is over, as in Redis.
    fn from_number(number: u64, map: &SlotMap) -> Option<Cursor> {
        let slot = Slot(number as u16);
        let token = u32::try_from(number >> SLOT_BITS).ok()?;
        (u32::from(slot.0) < map.slots()).then_some(Cursor { slot, token })
    }

    fn number(self) -> u64 {
        u64::from(self.token) << SLOT_BITS | u64::from(self.slot.0)
    }
}

fn scan(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let number = ScanOptions::cursor(args.get(1))?;
    let options = KeyScanOptions::parse(args)?;
    let from = Cursor::from_number(number, &ctx.node.map).and_then(|from| first_seen(ctx, from));
    let Some(from) = from else {
        return Ok(Reply::scanned(0, Vec::new()).into());
    };
    // One call looks at slots that lie side by side on one shard.
    let (shard, last) = (ctx.node.map.shard_of(from.slot), ctx.node.map.placement().end_of_run(from.slot));
    let ask = ScanAsk {
        table: ctx.session.table,
        shard,
        from: from.slot,
        last,
        token: from.token,
        pattern: options.pattern,
        kind: options.kind,
        count: options.count,
    };
    let fold = move |ctx: &mut Ctx<'_>, tells| {
        let piece = |tell| match tell {
            Tell::Scanned { keys, next } => Some((keys, next)),
            _ => None,
        };
        ok_or_error(one_told(tells, piece).map(|(keys, next)| {
            let next = match next {
                Some((slot, token)) => Some(Cursor { slot, token }),
                None => start_behind(ctx, last).and_then(|from| first_seen(ctx, from)),
            };
            assert!(next.is_none_or(|next| next != from && next.number() != 0), "a scan goes on");
            Reply::scanned(next.map_or(0, Cursor::number), keys.into_iter().map(Reply::Bulk).collect())
        }))
    };
    Ok(Answer::AskOne(ctx.node.map.owner(shard), Ask::Scan(Arc::new(ask)), Box::new(fold)))
}

/// Whether SCANs of this connection go through a slot.
fn sees(ctx: &Ctx<'_>, slot: Slot) -> bool {
    !asks_each_core(ctx) || ctx.node.map.owner(ctx.node.map.shard_of(slot)) == ctx.node.core
}

/// Here, or at the start of the next slot that this connection's SCANs go through.
fn first_seen(ctx: &Ctx<'_>, from: Cursor) -> Option<Cursor> {
    let mut at = Some(from);
    while let Some(place) = at
        && !sees(ctx, place.slot)
    {
        at = start_behind(ctx, ctx.node.map.placement().end_of_run(place.slot));
    }
    at
}

/// The start of the slot behind this one.
fn start_behind(ctx: &Ctx<'_>, slot: Slot) -> Option<Cursor> {
    let next = slot.0 + 1;
    (u32::from(next) < ctx.node.map.slots()).then_some(Cursor { slot: Slot(next), token: 0 })
}

struct KeyScanOptions {
    pattern: Option<Bytes>,
    kind: Option<Bytes>,
    count: usize,
}

impl KeyScanOptions {
    fn parse(args: &Args<'_>) -> Result<KeyScanOptions, ClientError> {
        let mut options = KeyScanOptions { pattern: None, kind: None, count: SCAN_COUNT_DEFAULT };
        for at in (2..args.len()).step_by(2) {
            if at + 1 == args.len() {
                return Err(ClientError::SYNTAX);
            }
            let value = args.get(at + 1);
            if args.is(at, "COUNT") {
                let count = number::parse_i64(value).ok_or(ClientError::NOT_INTEGER)?;
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                options.count = count.ok_or(ClientError::SYNTAX)?.min(SCAN_COUNT_MAX);
            } else if args.is(at, "MATCH") {
                options.pattern = (value != b"*").then(|| Bytes::copy_from_slice(value));
            } else if args.is(at, "TYPE") {
                options.kind = Some(value.to_ascii_lowercase().into());
            } else {
                return Err(ClientError::SYNTAX);
            }
        }
        Ok(options)
    }
}

fn randomkey(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let seed = mixed(ctx.now_ms ^ mixed(ctx.session.id) ^ mixed(!ctx.session.commands));
    let fold = move |_: &mut Ctx<'_>, tells| {
        let found = |tell| match tell {
            Tell::RandomKey(key, weight) => Some((key, weight)),
            _ => None,
        };
        ok_or_error(all_told(tells, found).map(|found| choose(found, mixed(seed))))
    };
    Ok(ask_about_keys(ctx, Ask::RandomKey { table: ctx.session.table, seed }, Box::new(fold)))
}

/// One of the cores' keys, each as likely as its core has keys; a core with a key has at least one.
fn choose(found: Vec<(Option<Bytes>, u64)>, seed: u64) -> Reply {
    let keys: Vec<_> = found.into_iter().filter_map(|(key, weight)| Some((key?, weight.max(1)))).collect();
    let total: u64 = keys.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return Reply::Nil;
    }
    let mut rest = seed % total;
    for (key, weight) in keys {
        if rest < weight {
            return Reply::Bulk(key);
        }
        rest -= weight;
    }
    unreachable!("the rest lies below the sum of the weights")
}

/// SplitMix64's output function: neighbouring numbers become unlike ones.
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use crate::slot::{CoreId, ShardId};

    #[test]
    fn texts_are_those_of_redis() {
        let mut bench = Bench::new();
        for (call, reply) in [
            ("KEYS *", "asks"),
            ("SCAN a", "-ERR invalid cursor"),
            ("SCAN 1a COUNT 0", "-ERR invalid cursor"),
            ("SCAN 18446744073709551616", "-ERR invalid cursor"),
            ("SCAN 18446744073709551615", "[0, []]"),
            ("SCAN -1", "[0, []]"),
            ("SCAN +0", "asks"),
            ("SCAN 0 MATCH", "-ERR syntax error"),
            ("SCAN 0 COUNT 0", "-ERR syntax error"),
            ("SCAN 0 COUNT -1", "-ERR syntax error"),
            ("SCAN 0 COUNT a", "-ERR value is not an integer or out of range"),
            ("SCAN 0 COUNT 0 FOO bar", "-ERR syntax error"),
            ("SCAN 0 FOO 1", "-ERR syntax error"),
            ("SCAN 0 TYPE foo", "asks"),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
        assert_eq!(ScanOptions::cursor(b""), Ok(0));
        assert!(ScanOptions::cursor(b" 0").is_err());
    }

    #[test]
    fn a_scan_visits_every_slot_of_every_shard_once() {
        let mut bench = Bench::new();
        let owners = bench.node.map.shards().map(|shard| bench.node.map.owner(shard)).collect();
        let moved = bench.node.map.placement().moved(&(3..5).map(Slot).collect(), ShardId(1));
        bench.node.map = SlotMap::new(moved, owners);
        let map = bench.node.map.clone();
        let (mut cursor, mut seen) = ("0".to_string(), Vec::new());
        loop {
            let reply = bench.run_with(&format!("SCAN {cursor} COUNT 3"), |ask| {
                let Ask::Scan(ask) = ask else { panic!("a scan") };
                assert_eq!(map.shard_of(ask.from), ask.shard);
                assert!((ask.from.0..=ask.last.0).all(|slot| map.shard_of(Slot(slot)) == ask.shard));
                seen.push((ask.from, ask.token));
                // Two pieces of the first slot, then the rest.
                let next = (ask.token == 0).then_some((ask.from, 5));
                vec![Tell::Scanned { keys: Vec::new(), next }]
            });
            cursor = reply.trim_start_matches('[').split(',').next().expect("a cursor").to_string();
            if cursor == "0" {
                break;
            }
        }
        let firsts = [0, 3, 5, 512].map(Slot);
        let expected: Vec<_> = firsts.into_iter().flat_map(|first| [(first, 0), (first, 5)]).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn scan_asks_the_owner() {
        let mut bench = Bench::new();
        let Ok(Answer::AskOne(core, Ask::Scan(ask), _)) =
            bench.answer("SCAN 1000 MATCH a* TYPE String COUNT 99999")
        else {
            panic!("one core is asked")
        };
        assert_eq!((core, ask.from, ask.token), (CoreId(1), Slot(1000), 0));
        assert_eq!((ask.pattern.as_deref(), ask.kind.as_deref()), (Some(&b"a*"[..]), Some(&b"string"[..])));
        assert_eq!(ask.count, SCAN_COUNT_MAX);
    }

    #[test]
    fn a_client_that_takes_cores_for_nodes_gets_each_key_once() {
        let mut bench = Bench::cluster(2);
        bench.session.shard_aware = true;
        bench.node.core = CoreId(1);
        for call in ["DBSIZE", "KEYS *", "RANDOMKEY", "SCAN 0"] {
            assert!(matches!(bench.answer(call), Ok(Answer::AskOne(CoreId(1), ..))), "{call}");
        }
        let piece = |ask: &Ask| {
            assert!(matches!(ask, Ask::Scan(scan) if scan.from == Slot(8192)));
            vec![Tell::Scanned { keys: Vec::new(), next: None }]
        };
        assert_eq!(bench.run_with("SCAN 0", piece), "[0, []]");
        bench.node.core = CoreId(0);
        assert_eq!(bench.run("SCAN 8192"), "[0, []]", "another core's slots");
        bench.session.shard_aware = false;
        assert!(matches!(bench.answer("DBSIZE"), Ok(Answer::AskAll(..))));
    }

    #[test]
    fn keys_of_all_cores_are_one_list_or_too_many() {
        let mut bench = Bench::new();
        let found = |_: &Ask| {
            vec![Tell::Keys(vec![Bytes::from_static(b"a")]), Tell::Keys(vec![Bytes::from_static(b"b")])]
        };
        assert_eq!(bench.run_with("KEYS *", found), "[a, b]");
        let many = |_: &Ask| vec![Tell::TooMany, Tell::Keys(Vec::new())];
        assert_eq!(bench.run_with("KEYS *", many), "-ERR too many keys for one reply, use SCAN");
    }

    #[test]
    fn random_keys_come_from_cores_in_proportion() {
        let mut bench = Bench::new();
        assert_eq!(bench.run_with("RANDOMKEY", |_| vec![Tell::RandomKey(None, 3)]), "nil");
        let found = || {
            vec![(Some(Bytes::from_static(b"few")), 1), (None, 50), (Some(Bytes::from_static(b"many")), 99)]
        };
        let few = (0..10_000).filter(|seed| choose(found(), mixed(*seed)) == Reply::text("few")).count();
        assert!((50..200).contains(&few), "{few}");
    }
}

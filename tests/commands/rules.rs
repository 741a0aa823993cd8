//! How far the replies of two servers must agree: what time, order or chance leaves open, and no more.

use super::short;
use crate::harness::Value;
use std::time::Duration;

/// Replies that name a moment may differ by the time between the two sends.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
const CLOCK_TOLERANCE_MS: i64 = CLOCK_TOLERANCE.as_millis() as i64;
/// Milliseconds since 1970 that can only come from the clock.
const THIS_CENTURY_MS: i64 = 1_700_000_000_000;
/// Where a HyperLogLog keeps the count that Redis refreshes when it is asked for it.
const KEPT_COUNT: std::ops::Range<usize> = 8..16;

/// A reply, decoded and as it was sent.
pub type Raw = (Value, Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Bytes,
    /// Integers of this unit, from the clock; negative ones mean something else and must be equal.
    Clock {
        unit_ms: i64,
    },
    /// Seconds since the last use: haypile may have forgotten an old one, and then says less.
    Idle,
    /// A shared object's count and 1 are both fine: Redis shares small integers, but not those that COPY made.
    Refcount,
    /// An array in any order; of fields with their values if `pairs`.
    AnyOrder {
        pairs: bool,
    },
    /// As `AnyOrder` where either side holds the key in a table, else in order.
    TableOrder {
        pairs: bool,
    },
    /// SORT. Entries of equal weight may come in any order, and those of a hash table that are not sorted; so
    /// may texts with zero bytes, which end there for Redis where nothing is stored.
    Sorted {
        ties: bool,
        zero_ends: bool,
    },
    /// Numbers, where -0 is as good as 0: haypile keeps no negative zero.
    Scores,
    /// The nearest places: those that are equally far come in any order.
    Nearest,
    /// A range by name among different scores: what it answers is not fixed.
    LexRange,
    /// A whole iteration, begun by the word at `cursor`, finds the same.
    WholeScan {
        cursor: usize,
    },
    /// Both find some key that exists, or none.
    SomeKey,
    /// As many members, all of which the other side has.
    Picked,
    /// As many members, which are then put back on one side and taken on both.
    Popped,
    /// Payloads that are carried over.
    Payload,
    /// The bytes of a HyperLogLog but for the count kept in it.
    Registers,
    /// Moments and idle times anywhere within the reply; Redis's inner figures of a stream are its own.
    StreamState,
    /// The id that haypile took from the clock is given to the other side.
    NewId,
}

impl Rule {
    pub fn of(args: &[Vec<u8>]) -> Rule {
        let word = |at: usize| args.get(at).map(|arg| arg.to_ascii_uppercase()).unwrap_or_default();
        let has = |option: &[u8]| args.iter().skip(2).any(|arg| arg.eq_ignore_ascii_case(option));
        match word(0).as_slice() {
            b"TTL" | b"EXPIRETIME" => Rule::Clock { unit_ms: 1_000 },
            b"PTTL" | b"PEXPIRETIME" => Rule::Clock { unit_ms: 1 },
            b"OBJECT" if word(1) == b"IDLETIME" => Rule::Idle,
            b"OBJECT" if word(1) == b"REFCOUNT" => Rule::Refcount,
            b"KEYS" | b"SINTER" | b"SUNION" | b"SDIFF" => Rule::AnyOrder { pairs: false },
            b"HKEYS" | b"HVALS" | b"SMEMBERS" => Rule::TableOrder { pairs: false },
            b"HGETALL" => Rule::TableOrder { pairs: true },
            b"SORT" | b"SORT_RO" => Rule::Sorted {
                ties: has(b"BY") && !has(b"STORE"),
                zero_ends: has(b"ALPHA") && !has(b"STORE"),
            },
            b"SCAN" if word(1) == b"0" => Rule::WholeScan { cursor: 1 },
            b"HSCAN" | b"SSCAN" | b"ZSCAN" if matches!(word(2).as_slice(), b"0" | b"") => {
                Rule::WholeScan { cursor: 2 }
            }
            b"RANDOMKEY" => Rule::SomeKey,
            b"SRANDMEMBER" | b"HRANDFIELD" | b"ZRANDMEMBER" => Rule::Picked,
            b"SPOP" => Rule::Popped,
            _ if word(1).starts_with(b"LEX:") => Rule::Bytes,
            b"ZLEXCOUNT" | b"ZRANGEBYLEX" | b"ZREVRANGEBYLEX" => Rule::LexRange,
            b"ZRANGE" if has(b"BYLEX") => Rule::LexRange,
            b"GEOSEARCH"
            | b"GEORADIUS"
            | b"GEORADIUSBYMEMBER"
            | b"GEORADIUS_RO"
            | b"GEORADIUSBYMEMBER_RO" => Rule::Nearest,
            b"DUMP" => Rule::Payload,
            b"GET" => Rule::Registers,
            b"XPENDING" | b"XINFO" => Rule::StreamState,
            b"XADD" if entry_id_at(args).is_some_and(|at| args[at] == b"*") => Rule::NewId,
            [b'Z', ..] | [b'B', b'Z', ..] => Rule::Scores,
            _ => Rule::Bytes,
        }
    }

    /// Whether the replies of one command tell by themselves that both sides agree.
    pub fn suits_pipeline(self) -> bool {
        !matches!(
            self,
            Rule::WholeScan { .. }
                | Rule::Sorted { .. }
                | Rule::SomeKey
                | Rule::Picked
                | Rule::Popped
                | Rule::Payload
                | Rule::NewId
        )
    }

    /// Whether two replies agree, as far as they show it; `Unless` leaves a question open.
    pub fn judge(self, ours: &Raw, theirs: &Raw) -> Verdict {
        if ours.1 == theirs.1 {
            return Verdict::Same;
        }
        let same = match self {
            _ if quote_alike(&ours.0, &theirs.0) => true,
            Rule::Clock { unit_ms } => within_clock(&ours.0, &theirs.0, unit_ms),
            Rule::Idle => match (ours.0.int(), theirs.0.int()) {
                (Some(a), Some(b)) if a >= 0 && b >= 0 => a <= b + CLOCK_TOLERANCE_MS / 1_000,
                _ => false,
            },
            Rule::Refcount => {
                let counts = [Value::Int(1), Value::Int(i64::from(i32::MAX))];
                counts.contains(&ours.0) && counts.contains(&theirs.0)
            }
            Rule::AnyOrder { pairs } => same_in_any_order(&ours.0, &theirs.0, pairs),
            Rule::TableOrder { pairs } if same_in_any_order(&ours.0, &theirs.0, pairs) => {
                return Verdict::SameInTable;
            }
            Rule::Sorted { ties: true, .. } => {
                matches!((&ours.0, &theirs.0), (Value::Array(a), Value::Array(b)) if a.len() == b.len())
            }
            Rule::Sorted { zero_ends: true, .. } => {
                let has_zero = |item: &Value| item.bytes().is_some_and(|bytes| bytes.contains(&0));
                ours.0.items().iter().any(has_zero) && same_in_any_order(&ours.0, &theirs.0, false)
            }
            Rule::Scores => ours.0 == plus_zero(&theirs.0),
            Rule::Nearest => match (&ours.0, &theirs.0) {
                (Value::Array(a), Value::Array(b)) if a.len() == b.len() => return Verdict::SameAmongTies,
                _ => false,
            },
            Rule::LexRange => ours.0.error_text().is_empty() && theirs.0.error_text().is_empty(),
            Rule::Registers => match (ours.0.bytes(), theirs.0.bytes()) {
                (Some(a), Some(b)) => registers(a).is_some() && registers(a) == registers(b),
                _ => false,
            },
            Rule::StreamState => same_but_for_clock(&ours.0, &theirs.0),
            _ => false,
        };
        if same { Verdict::Same } else { Verdict::Differs }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Differs,
    /// It is fine if one side holds the key in a table.
    SameInTable,
    /// It is fine if members of the key have equal scores.
    SameAmongTies,
}

/// Where the id of XADD stands: behind its options, before the fields, which may look like one.
pub fn entry_id_at(args: &[Vec<u8>]) -> Option<usize> {
    let is = |at: usize, word: &[u8]| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    let mut at = 2;
    loop {
        at += match at {
            _ if is(at, b"NOMKSTREAM") => 1,
            _ if is(at, b"LIMIT") => 2,
            _ if is(at, b"MAXLEN") || is(at, b"MINID") => {
                2 + usize::from(is(at + 1, b"=") || is(at + 1, b"~"))
            }
            _ => return (at < args.len()).then_some(at),
        };
    }
}

pub fn difference(ours: &Raw, theirs: &Raw) -> String {
    format!(" haypile: {}\n   redis: {}", short(&ours.1), short(&theirs.1))
}

fn within_clock(ours: &Value, theirs: &Value, unit_ms: i64) -> bool {
    match (ours.int(), theirs.int()) {
        (Some(a), Some(b)) if a >= 0 && b >= 0 => a.abs_diff(b) <= (CLOCK_TOLERANCE_MS / unit_ms) as u64,
        _ => ours == theirs,
    }
}

/// Errors that quote what is no text: Redis ends a quotation at a zero byte, haypile answers in UTF-8.
fn quote_alike(ours: &Value, theirs: &Value) -> bool {
    let (Value::Error(ours), Value::Error(theirs)) = (ours, theirs) else { return false };
    let begin = |text: &[u8]| text.iter().position(|byte| *byte == b'\'').map(|at| text[..at].to_vec());
    !ours.iter().all(|byte| (b' '..=b'~').contains(byte))
        && begin(ours).is_some()
        && begin(ours) == begin(theirs)
}

/// A reply without negative zeros.
pub fn plus_zero(value: &Value) -> Value {
    match value {
        Value::Bulk(text) if text == b"-0" => Value::bulk("0"),
        Value::Double(text) if text == b"-0" => Value::Double(b"0".to_vec()),
        Value::Array(items) => Value::Array(items.iter().map(plus_zero).collect()),
        other => other.clone(),
    }
}

/// The entries of a reply that has several, in an order of their own. With `pairs` a flat array is taken two by
/// two.
pub fn in_order(value: &Value, pairs: bool) -> Option<Vec<Value>> {
    let mut entries = match value {
        Value::Map(entries) => {
            entries.iter().map(|(key, value)| Value::Array(vec![key.clone(), value.clone()])).collect()
        }
        Value::Array(items) if pairs && !matches!(items.first(), Some(Value::Array(_))) => {
            items.chunks(2).map(|pair| Value::Array(pair.to_vec())).collect()
        }
        Value::Array(items) | Value::Set(items) => items.clone(),
        _ => return None,
    };
    entries.sort_by_cached_key(|entry| format!("{entry:?}"));
    Some(entries)
}

fn same_in_any_order(ours: &Value, theirs: &Value, pairs: bool) -> bool {
    let same_kind = std::mem::discriminant(ours) == std::mem::discriminant(theirs);
    same_kind && in_order(ours, pairs).is_some_and(|ours| Some(ours) == in_order(theirs, pairs))
}

/// A HyperLogLog's bytes without the count kept among them.
fn registers(bytes: &[u8]) -> Option<[&[u8]; 2]> {
    let is_one = bytes.starts_with(b"HYLL") && bytes.len() >= KEPT_COUNT.end;
    is_one.then(|| [&bytes[..KEPT_COUNT.start], &bytes[KEPT_COUNT.end..]])
}

/// Integers that name a moment or a time since one may differ a little; so may all figures of Redis's trees.
fn same_but_for_clock(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => {
            let pending =
                matches!(a.as_slice(), [Value::Bulk(_), Value::Bulk(_), Value::Int(_), Value::Int(_)]);
            a.len() == b.len()
                && (0..a.len()).all(|at| {
                    let since = pending && at == 2 || at > 0 && named(&a[at - 1], &[b"idle"]);
                    let inner = at > 0 && named(&a[at - 1], &[b"radix-tree-keys", b"radix-tree-nodes"]);
                    inner || same_moment(&a[at], &b[at], since)
                })
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|((key, value), (other_key, other))| {
                    let inner = named(key, &[b"radix-tree-keys", b"radix-tree-nodes"]);
                    key == other_key && (inner || same_moment(value, other, named(key, &[b"idle"])))
                })
        }
        _ => ours == theirs,
    }
}

fn same_moment(ours: &Value, theirs: &Value, since: bool) -> bool {
    match (ours.int(), theirs.int()) {
        (Some(a), Some(b)) if since || a.min(b) > THIS_CENTURY_MS => within_clock(ours, theirs, 1) || a == b,
        _ => same_but_for_clock(ours, theirs),
    }
}

fn named(value: &Value, names: &[&[u8]]) -> bool {
    value.bytes().is_some_and(|bytes| names.contains(&bytes))
}

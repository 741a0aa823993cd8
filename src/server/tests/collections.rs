//! Collections in a history: a value is a text, one line for each element.

use crate::resp::reply::Reply;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;

/// So many members there are: collections pass the bound of what stands in a row.
const MEMBERS: u32 = 250;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Hash,
    List,
    Set,
    Sorted,
}

impl Kind {
    /// What a key of this name holds.
    pub fn of(name: &[u8]) -> Kind {
        let kinds =
            [(Kind::Hash, "hash"), (Kind::List, "list"), (Kind::Set, "set"), (Kind::Sorted, "sorted")];
        kinds
            .into_iter()
            .find(|(_, prefix)| name.starts_with(prefix.as_bytes()))
            .map_or(Kind::Text, |kind| kind.0)
    }
}

/// The command that answers all that is under this name.
pub fn reading(name: &[u8]) -> Vec<Vec<u8>> {
    let words: &[&str] = match Kind::of(name) {
        Kind::Text => &["GET", "*"],
        Kind::Hash => &["HGETALL", "*"],
        Kind::List => &["LRANGE", "*", "0", "-1"],
        Kind::Set => &["SMEMBERS", "*"],
        Kind::Sorted => &["ZRANGE", "*", "0", "-1", "WITHSCORES"],
    };
    words.iter().map(|word| if *word == "*" { name.to_vec() } else { word.as_bytes().to_vec() }).collect()
}

/// What such an answer says is there.
pub fn value_of(name: &[u8], reply: &Reply) -> Option<Vec<u8>> {
    let mut lines: Vec<String> = match reply {
        Reply::Nil => return None,
        Reply::Bulk(value) => return Some(value.to_vec()),
        Reply::Array(items) | Reply::Set(items) => items.iter().map(text).collect(),
        Reply::Map(pairs) => {
            pairs.iter().map(|(field, value)| format!("{}={}", text(field), text(value))).collect()
        }
        Reply::Pairs(pairs) => pairs.iter().map(|(member, score)| scored(&text(member), score)).collect(),
        other => panic!("reading {} answered {other:?}", name.escape_ascii()),
    };
    match Kind::of(name) {
        // In an order of their own.
        Kind::Hash | Kind::Set => lines.sort_unstable(),
        Kind::Text | Kind::List | Kind::Sorted => {}
    }
    joined(lines)
}

fn scored(member: &str, score: &Reply) -> String {
    let Reply::Double(score) = score else { panic!("{score:?} is no score") };
    format!("{score:05} {member}")
}

fn text(reply: &Reply) -> String {
    let Reply::Bulk(text) = reply else { panic!("{reply:?} is no text") };
    String::from_utf8_lossy(text).into_owned()
}

fn joined(lines: Vec<String>) -> Option<Vec<u8>> {
    (!lines.is_empty()).then(|| lines.join("\n").into_bytes())
}

fn lines(value: Option<&Vec<u8>>) -> Vec<String> {
    let text = value.map(|value| String::from_utf8_lossy(value)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A command, what it leaves and what it answers.
pub struct Change {
    pub words: Vec<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub answer: Option<i64>,
}

/// Adds or takes some elements; `op` makes values differ.
pub fn change(name: &[u8], old: Option<&Vec<u8>>, op: u64, random: &mut StdRng) -> Change {
    let adds = random.random_bool(0.6);
    let count = random.random_range(1..if adds { 60 } else { 50 });
    if Kind::of(name) == Kind::List {
        return change_list(name, old, op, adds, count, random);
    }
    // By what must differ: what else is in the line is the rest.
    let mut elements: BTreeMap<String, String> =
        lines(old).into_iter().map(|line| split(Kind::of(name), &line)).collect();
    let verb = match (Kind::of(name), adds) {
        (Kind::Hash, true) => "HSET",
        (Kind::Hash, false) => "HDEL",
        (Kind::Set, true) => "SADD",
        (Kind::Set, false) => "SREM",
        (_, true) => "ZADD",
        (_, false) => "ZREM",
    };
    let mut words = vec![verb.into(), name.to_vec()];
    let before = elements.len();
    for _ in 0..count {
        let member = format!("member-{}", random.random_range(0..MEMBERS));
        let rest = match Kind::of(name) {
            Kind::Hash => format!("{op}{}", "x".repeat(random.random_range(0..40))),
            Kind::Sorted => format!("{:05}", random.random_range(1..300)),
            _ => String::new(),
        };
        if !adds {
            elements.remove(&member);
            words.push(member.into());
            continue;
        }
        match Kind::of(name) {
            Kind::Hash => words.extend([member.clone().into(), rest.clone().into()]),
            Kind::Sorted => words.extend([rest.clone().into(), member.clone().into()]),
            _ => words.push(member.clone().into()),
        }
        elements.insert(member, rest);
    }
    let answer = Some(elements.len().abs_diff(before) as i64);
    let whole = |(member, rest): (&String, &String)| match Kind::of(name) {
        Kind::Hash => format!("{member}={rest}"),
        Kind::Sorted => format!("{rest} {member}"),
        _ => member.clone(),
    };
    let mut lines: Vec<String> = elements.iter().map(whole).collect();
    lines.sort_unstable();
    Change { words, value: joined(lines), answer }
}

/// The name of an element, and the rest of its line.
fn split(kind: Kind, line: &str) -> (String, String) {
    let split = match kind {
        Kind::Hash => line.split_once('='),
        Kind::Sorted => line.split_once(' ').map(|(score, member)| (member, score)),
        _ => Some((line, "")),
    };
    let (member, rest) = split.expect("lines are written here");
    (member.to_owned(), rest.to_owned())
}

fn change_list(
    name: &[u8],
    old: Option<&Vec<u8>>,
    op: u64,
    adds: bool,
    count: usize,
    random: &mut StdRng,
) -> Change {
    let mut items = lines(old);
    let left = random.random_bool(0.5);
    let mut words: Vec<Vec<u8>> = Vec::new();
    if !adds {
        words.extend([if left { "LPOP" } else { "RPOP" }.into(), name.to_vec(), count.to_string().into()]);
        let rest = items.len() - count.min(items.len());
        match left {
            true => drop(items.drain(..items.len() - rest)),
            false => items.truncate(rest),
        }
        return Change { words, value: joined(items), answer: None };
    }
    words.extend([if left { "LPUSH" } else { "RPUSH" }.into(), name.to_vec()]);
    for at in 0..count {
        let item = format!("{op}-{at}{}", "x".repeat(random.random_range(0..40)));
        words.push(item.clone().into());
        items.insert(if left { 0 } else { items.len() }, item);
    }
    let answer = Some(items.len() as i64);
    Change { words, value: joined(items), answer }
}

/// What SUNIONSTORE, SINTERSTORE or SDIFFSTORE makes of two sets.
pub fn combined(verb: &str, first: Option<&Vec<u8>>, second: Option<&Vec<u8>>) -> Option<Vec<u8>> {
    let (mut members, others) = (lines(first), lines(second));
    match verb {
        "SUNIONSTORE" => members.extend(others),
        "SINTERSTORE" => members.retain(|member| others.contains(member)),
        _ => members.retain(|member| !others.contains(member)),
    }
    members.sort_unstable();
    members.dedup();
    joined(members)
}

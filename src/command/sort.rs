//! SORT and SORT_RO: a list's, set's or sorted set's elements by their value or by what other keys say of
//! them.
//!
//! Keys that BY and GET name through a pattern are known only once the elements are: such a SORT runs over the
//! whole table.

use super::options::int;
use super::{KeyArg, KeyArgs, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::row::Kind;
use crate::store::tx::{KeyRef, Tx};
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::set::Set;
use crate::types::string;
use crate::types::zset::SortedSet;
use bytes::Bytes;
use std::cmp::Ordering;

const SORT: Spec = Spec {
    arity: -2,
    keys: Keys::Beyond { find: keys, beyond: names_others },
    complexity: "O(N+M*log(M)) where N is the number of elements and M the number of those answered",
    ..super::ONE_KEY
};

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "sort",
            flags: flag::WRITE | flag::DENYOOM | flag::ANY_VALUES,
            summary: "Elements of a list, set or sorted set in an order; may be kept in a key",
            ..SORT
        },
        run: |tx, args| sort(tx, args, true),
    },
    KeyCommand {
        spec: Spec {
            name: "sort_ro",
            flags: flag::READONLY | flag::ANY_VALUES,
            since: "7.0.0",
            summary: "As SORT, but keeps nothing",
            ..SORT
        },
        run: |tx, args| sort(tx, args, false),
    },
];

/// What follows the key.
#[derive(Default)]
struct Options<'a> {
    descending: bool,
    alpha: bool,
    offset: i64,
    /// Negative: all.
    count: Option<i64>,
    by: Option<Pattern<'a>>,
    /// BY with a pattern that names no key: the elements stay as they come.
    unsorted: bool,
    get: Vec<Pattern<'a>>,
    /// Which argument is the key to keep the result in.
    store: Option<usize>,
}

impl<'a> Options<'a> {
    fn parse(args: &Args<'a>, may_store: bool) -> Result<Options<'a>, ClientError> {
        let mut options = Options::default();
        let mut at = 2;
        while at < args.len() {
            let left = args.len() - at - 1;
            if args.is(at, "ASC") {
                options.descending = false;
            } else if args.is(at, "DESC") {
                options.descending = true;
            } else if args.is(at, "ALPHA") {
                options.alpha = true;
            } else if args.is(at, "LIMIT") && left >= 2 {
                options.offset = int(args.get(at + 1))?;
                options.count = Some(int(args.get(at + 2))?);
                at += 2;
            } else if args.is(at, "STORE") && left >= 1 && may_store {
                options.store = Some(at + 1);
                at += 1;
            } else if args.is(at, "BY") && left >= 1 {
                let by = Pattern::new(args.get(at + 1));
                options.unsorted |= !by.names_keys();
                options.by = Some(by);
                at += 1;
            } else if args.is(at, "GET") && left >= 1 {
                options.get.push(Pattern::new(args.get(at + 1)));
                at += 1;
            } else {
                return Err(ClientError::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }

    /// Of so many elements, those that are answered.
    fn window(&self, len: usize) -> std::ops::Range<usize> {
        let from = usize::try_from(self.offset).unwrap_or(0).min(len);
        let count = match self.count {
            Some(count) => usize::try_from(count).unwrap_or(len),
            None => len,
        };
        from..from.saturating_add(count).min(len)
    }
}

/// What BY and GET name: a key with an element's text in the place of the star, or a field of such a hash.
#[derive(Clone, Copy)]
struct Pattern<'a>(&'a [u8]);

impl<'a> Pattern<'a> {
    fn new(pattern: &'a [u8]) -> Pattern<'a> {
        Pattern(pattern)
    }

    fn names_keys(self) -> bool {
        self.0.contains(&b'*')
    }

    /// The key and the field that it names for an element.
    fn named(self, element: &[u8]) -> Option<(Vec<u8>, Option<&'a [u8]>)> {
        let star = self.0.iter().position(|byte| *byte == b'*')?;
        let (before, behind) = (&self.0[..star], &self.0[star + 1..]);
        let arrow = behind.windows(2).position(|pair| pair == b"->").filter(|at| at + 2 < behind.len());
        let (rest, field) = match arrow {
            Some(at) => (&behind[..at], Some(&behind[at + 2..])),
            None => (behind, None),
        };
        Some(([before, element, rest].concat(), field))
    }

    fn value(self, tx: &mut Tx<'_>, element: &Bytes) -> Result<Option<Bytes>, Stop> {
        if self.0 == b"#" {
            return Ok(Some(element.clone()));
        }
        let Some((name, field)) = self.named(element) else { return Ok(None) };
        // A longer name is no key's.
        if name.len() > crate::store::NAME_MAX_BYTES {
            return Ok(None);
        }
        let key = tx.key(&name);
        let Some(row) = tx.row(key)? else { return Ok(None) };
        match (field, row.kind) {
            (None, Kind::String) => string::read(tx, key, &row).map(Some),
            (Some(field), Kind::Hash) => match Hash::load(tx, key)? {
                Some(hash) => hash.get(tx, field),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

fn keys(args: &Args<'_>) -> Result<KeyArgs, ClientError> {
    let store = Options::parse(args, true).ok().and_then(|options| options.store);
    Ok(std::iter::once(1).chain(store).map(|arg| KeyArg { arg, table: None }).collect())
}

fn names_others(args: &Args<'_>) -> bool {
    Options::parse(args, true).is_ok_and(|options| {
        options.by.into_iter().chain(options.get).any(|pattern| pattern.names_keys() && pattern.0 != b"#")
    })
}

fn sort(tx: &mut Tx<'_>, args: &Args<'_>, may_store: bool) -> Result<Reply, Stop> {
    let mut options = Options::parse(args, may_store)?;
    let key = tx.key(args.get(1));
    let kind = tx.row(key)?.map(|row| row.kind);
    if kind == Some(Kind::Set) && options.unsorted && options.store.is_some() {
        // What is kept must be the same everywhere, and a set has no order of its own.
        (options.unsorted, options.alpha, options.by) = (false, true, None);
    }
    let mut elements = elements(tx, key, kind)?;
    if options.unsorted {
        if options.descending && matches!(kind, Some(Kind::SortedSet | Kind::List)) {
            elements.reverse();
        }
    } else {
        elements = sorted(tx, elements, &options)?;
    }
    let window = options.window(elements.len());
    let mut answer = Vec::new();
    for element in &elements[window] {
        if options.get.is_empty() {
            answer.push(Some(element.clone()));
        }
        for pattern in &options.get {
            answer.push(pattern.value(tx, element)?);
        }
    }
    let Some(store) = options.store else {
        let reply = |value: Option<Bytes>| value.map_or(Reply::Nil, Reply::Bulk);
        return Ok(Reply::Array(answer.into_iter().map(reply).collect()));
    };
    let count = answer.len() as u64;
    let items: Vec<Bytes> = answer.into_iter().map(Option::unwrap_or_default).collect();
    List::replace(tx, tx.key(args.get(store)), items.iter().map(|item| &item[..]))?;
    Ok(Reply::count(count))
}

fn elements(tx: &mut Tx<'_>, key: KeyRef<'_>, kind: Option<Kind>) -> Result<Vec<Bytes>, Stop> {
    match kind {
        None => Ok(Vec::new()),
        Some(Kind::List) => match List::load(tx, key)? {
            Some(list) => {
                let len = list.len();
                list.range(tx, 0..len)
            }
            None => Ok(Vec::new()),
        },
        Some(Kind::Set) => match Set::load(tx, key)? {
            Some(set) => set.members(tx),
            None => Ok(Vec::new()),
        },
        Some(Kind::SortedSet) => match SortedSet::load(tx, key)? {
            Some(set) => set.members(tx),
            None => Ok(Vec::new()),
        },
        Some(Kind::String | Kind::Hash | Kind::Stream) => Err(ClientError::WRONG_TYPE.into()),
    }
}

/// By what an element is sorted.
enum Weight {
    Number(f64),
    /// None stands before every text.
    Text(Option<Bytes>),
}

fn sorted(tx: &mut Tx<'_>, elements: Vec<Bytes>, options: &Options<'_>) -> Result<Vec<Bytes>, Stop> {
    let mut weighed = Vec::with_capacity(elements.len());
    for element in elements {
        let text = match options.by {
            Some(by) => by.value(tx, &element)?,
            None => Some(element.clone()),
        };
        let weight = match (options.alpha, text) {
            (true, text) => Weight::Text(text),
            (false, None) => Weight::Number(0.0),
            (false, Some(text)) => Weight::Number(number_of(&text)?),
        };
        weighed.push((weight, element));
    }
    weighed.sort_by(|(a, first), (b, second)| {
        let order = match (a, b) {
            // Equal numbers are told apart by their texts, so that the order is always the same.
            (Weight::Number(a), Weight::Number(b)) => a.total_cmp(b).then_with(|| first.cmp(second)),
            (Weight::Text(a), Weight::Text(b)) => a.cmp(b),
            _ => Ordering::Equal,
        };
        if options.descending { order.reverse() } else { order }
    });
    Ok(weighed.into_iter().map(|(_, element)| element).collect())
}

fn number_of(text: &[u8]) -> Result<f64, ClientError> {
    const NO_NUMBER: ClientError =
        ClientError::fixed("ERR One or more scores can't be converted into double");
    // As C's strtod: a zero byte ends it, blanks may stand before, and nothing at all is zero.
    let text = text.split(|byte| *byte == 0).next().expect("even an empty text has a first part");
    let trimmed = text.trim_ascii_start();
    if text.is_empty() {
        return Ok(0.0);
    }
    // -0 and 0 are equal.
    number::parse_f64(trimmed).map(|number| number + 0.0).ok_or(NO_NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::Server;

    #[test]
    fn patterns_name_keys_and_fields() {
        let named = |pattern: &'static str| {
            Pattern(pattern.as_bytes()).named(b"7").map(|(key, field)| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(&key), field.map(text))
            })
        };
        assert_eq!(named("w_*"), Some(("w_7".into(), None)));
        assert_eq!(named("w_*_x->f"), Some(("w_7_x".into(), Some("f".into()))));
        assert_eq!(named("w_*->"), Some(("w_7->".into(), None)));
        assert_eq!(named("a->b*"), Some(("a->b7".into(), None)));
        assert_eq!(named("nostar"), None);
    }

    #[test]
    fn long_collections_are_sorted_like_short_ones() {
        let mut server = Server::default();
        for at in 0..300 {
            let number = at * 7919 % 1009;
            server.run(&format!("RPUSH l {number}"));
            server.run(&format!("SET weight_{number} {}", 2000 - number));
        }
        server.int("SORT l STORE up", 300);
        server.int("SORT l BY weight_* DESC STORE down", 300);
        assert_eq!(server.run("LRANGE up 0 -1"), server.run("LRANGE down 0 -1"));
        assert_eq!(server.run("LINDEX up 0"), Reply::text("0"));
    }
}

//! Lists, sets, sorted sets and hashes in every form that RDB has for them. Only reads.
//!
//! As strict as Redis when it trusts nothing: nothing empty, no member or field twice, no score that is no
//! number. Source: rdb.c of Redis 7.0, and of 7.4 for fields that expire.

use super::item::{self, Item};
use super::rest::Source;
use super::{FIELD_EXPIRE_MAX_MS, HashField, Refused, intset, listpack, ziplist};
use std::borrow::Cow;
use std::collections::HashSet;

/// A node of a quicklist that is one long element, and one that is a listpack.
const NODE_PLAIN: u64 = 1;
const NODE_PACKED: u64 = 2;

type Texts = Vec<Vec<u8>>;
type Scored = Vec<(Vec<u8>, f64)>;

fn differing<T>(members: Vec<T>, name: impl Fn(&T) -> &[u8]) -> Result<Vec<T>, Refused> {
    let mut seen = HashSet::new();
    let all_new = members.iter().all(|member| seen.insert(name(member)));
    if all_new && !members.is_empty() { Ok(members) } else { Err(Refused::Content) }
}

fn differing_texts(members: Texts) -> Result<Texts, Refused> {
    differing(members, |member| member)
}

fn differing_scored(members: Scored) -> Result<Scored, Refused> {
    differing(members, |(member, _)| member)
}

fn differing_fields(fields: Vec<HashField>) -> Result<Vec<HashField>, Refused> {
    differing(fields, |field| &field.field)
}

pub fn texts(source: &mut Source<'_>) -> Result<Texts, Refused> {
    (0..source.count()?).map(|_| source.element()).collect()
}

pub fn set(source: &mut Source<'_>) -> Result<Texts, Refused> {
    texts(source).and_then(differing_texts)
}

pub fn sorted_set(source: &mut Source<'_>) -> Result<Scored, Refused> {
    scored(source, |source| Ok(f64::from_le_bytes(source.rest.array()?)))
}

/// Scores are decimal texts behind a byte for their lengths, or a byte alone: 253 for NaN, 254 and 255 for
/// the infinities.
pub fn sorted_set_text(source: &mut Source<'_>) -> Result<Scored, Refused> {
    scored(source, |source| match source.rest.byte()? {
        253 => Err(Refused::Content),
        254 => Ok(f64::INFINITY),
        255 => Ok(f64::NEG_INFINITY),
        length => item::score(source.rest.take(u64::from(length))?),
    })
}

fn scored<'p>(
    source: &mut Source<'p>,
    score: impl Fn(&mut Source<'p>) -> Result<f64, Refused>,
) -> Result<Scored, Refused> {
    let members = (0..source.count()?).map(|_| Ok((source.element()?, item::number(score(source)?)?)));
    members.collect::<Result<_, _>>().and_then(differing_scored)
}

pub fn hash(source: &mut Source<'_>) -> Result<Vec<HashField>, Refused> {
    let fields = (0..source.count()?)
        .map(|_| Ok(HashField { field: source.element()?, value: source.element()?, expire_ms: None }));
    fields.collect::<Result<_, _>>().and_then(differing_fields)
}

/// Each field behind its expiry: one more than what it comes after the first of all, or itself where that is
/// not known; zero for none.
pub fn hash_expiring(source: &mut Source<'_>, first_ms: Option<u64>) -> Result<Vec<HashField>, Refused> {
    let fields = (0..source.count()?).map(|_| {
        let expire_ms = match (source.length()?, first_ms) {
            (0, _) => 0,
            (after, Some(first_ms)) => first_ms.checked_add(after - 1).ok_or(Refused::Content)?,
            (expire_ms, None) => expire_ms,
        };
        let (field, value) = (source.element()?, source.element()?);
        Ok(HashField { field, value, expire_ms: expiry(expire_ms)? })
    });
    fields.collect::<Result<_, _>>().and_then(differing_fields)
}

fn expiry(expire_ms: u64) -> Result<Option<u64>, Refused> {
    match expire_ms {
        0 => Ok(None),
        1..=FIELD_EXPIRE_MAX_MS => Ok(Some(expire_ms)),
        _ => Err(Refused::Content),
    }
}

pub fn list_ziplist(source: &mut Source<'_>) -> Result<Texts, Refused> {
    let blob = source.text()?;
    let mut list = Texts::new();
    append(&mut list, source, ziplist::open(&blob)?)?;
    not_empty(list)
}

pub fn quicklist_ziplists(source: &mut Source<'_>) -> Result<Texts, Refused> {
    let mut list = Texts::new();
    for _ in 0..source.count()? {
        let blob = source.text()?;
        append(&mut list, source, ziplist::open(&blob)?)?;
    }
    not_empty(list)
}

pub fn quicklist_listpacks(source: &mut Source<'_>) -> Result<Texts, Refused> {
    let mut list = Texts::new();
    for _ in 0..source.count()? {
        let form = source.length()?;
        let blob = source.text()?;
        match form {
            NODE_PLAIN if !blob.is_empty() => list.push(source.keep(blob)?),
            NODE_PACKED => append(&mut list, source, listpack::open(&blob)?)?,
            _ => return Err(Refused::Content),
        }
    }
    not_empty(list)
}

fn append<'b>(
    list: &mut Texts,
    source: &mut Source<'_>,
    items: impl Iterator<Item = Result<Item<'b>, Refused>>,
) -> Result<(), Refused> {
    for item in items {
        list.push(source.keep(item?.text())?);
    }
    Ok(())
}

fn not_empty(list: Texts) -> Result<Texts, Refused> {
    if list.is_empty() { Err(Refused::Content) } else { Ok(list) }
}

pub fn set_intset(source: &mut Source<'_>) -> Result<Texts, Refused> {
    let blob = source.text()?;
    let mut set = Texts::new();
    append(&mut set, source, intset::read(&blob)?.into_iter().map(|int| Ok(Item::Int(int))))?;
    Ok(set)
}

pub fn set_listpack(source: &mut Source<'_>) -> Result<Texts, Refused> {
    let blob = source.text()?;
    let mut set = Texts::new();
    append(&mut set, source, listpack::open(&blob)?)?;
    differing_texts(set)
}

pub fn sorted_set_ziplist(source: &mut Source<'_>) -> Result<Scored, Refused> {
    let blob = source.text()?;
    scored_items(source, ziplist::open(&blob)?)
}

pub fn sorted_set_listpack(source: &mut Source<'_>) -> Result<Scored, Refused> {
    let blob = source.text()?;
    scored_items(source, listpack::open(&blob)?)
}

fn scored_items<'b>(
    source: &mut Source<'_>,
    items: impl Iterator<Item = Result<Item<'b>, Refused>>,
) -> Result<Scored, Refused> {
    let members = groups(items).map(|pair| {
        let [member, score] = pair?;
        Ok((source.keep(member.text())?, score.score()?))
    });
    members.collect::<Result<_, _>>().and_then(differing_scored)
}

pub fn hash_zipmap(source: &mut Source<'_>) -> Result<Vec<HashField>, Refused> {
    let blob = source.text()?;
    let pairs = ziplist::zipmap(&blob)?.map(|pair| Ok(pair?.map(Cow::Borrowed)));
    hash_pairs(source, pairs)
}

pub fn hash_ziplist(source: &mut Source<'_>) -> Result<Vec<HashField>, Refused> {
    let blob = source.text()?;
    hash_pairs(source, groups(ziplist::open(&blob)?).map(|pair| Ok(pair?.map(Item::text))))
}

pub fn hash_listpack(source: &mut Source<'_>) -> Result<Vec<HashField>, Refused> {
    let blob = source.text()?;
    hash_pairs(source, groups(listpack::open(&blob)?).map(|pair| Ok(pair?.map(Item::text))))
}

fn hash_pairs<'b>(
    source: &mut Source<'_>,
    pairs: impl Iterator<Item = Result<[Cow<'b, [u8]>; 2], Refused>>,
) -> Result<Vec<HashField>, Refused> {
    let fields = pairs.map(|pair| {
        let [field, value] = pair?;
        Ok(HashField { field: source.keep(field)?, value: source.keep(value)?, expire_ms: None })
    });
    fields.collect::<Result<_, _>>().and_then(differing_fields)
}

/// Each field before its value and its expiry, zero for none. What expires first comes first, what never does
/// comes last.
pub fn hash_expiring_listpack(source: &mut Source<'_>) -> Result<Vec<HashField>, Refused> {
    let blob = source.text()?;
    let fields = groups(listpack::open(&blob)?).map(|triple| {
        let [field, value, expire_ms] = triple?;
        let expire_ms = u64::try_from(expire_ms.int()?).map_err(|_| Refused::Content)?;
        let (field, value) = (source.keep(field.text())?, source.keep(value.text())?);
        Ok(HashField { field, value, expire_ms: expiry(expire_ms)? })
    });
    let fields = fields.collect::<Result<_, _>>().and_then(differing_fields)?;
    let in_order = fields.is_sorted_by_key(|field| field.expire_ms.unwrap_or(u64::MAX));
    if in_order { Ok(fields) } else { Err(Refused::Content) }
}

/// Items by N; that some are left over is an error.
fn groups<'b, const N: usize>(
    mut items: impl Iterator<Item = Result<Item<'b>, Refused>>,
) -> impl Iterator<Item = Result<[Item<'b>; N], Refused>> {
    std::iter::from_fn(move || {
        let first = items.next()?;
        let mut rest = std::iter::once(first).chain(items.by_ref());
        let mut group = [Item::Int(0); N];
        for place in &mut group {
            match rest.next().unwrap_or(Err(Refused::Content)) {
                Ok(item) => *place = item,
                Err(refused) => return Some(Err(refused)),
            }
        }
        Some(Ok(group))
    })
}

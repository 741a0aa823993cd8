//! What can be done with a value whatever its type is: copying it, saying how Redis would hold it, how large
//! it is.

use super::dump::{HashField, Value};
use super::hash::{self, End, Hash};
use super::list::{self, List};
use super::packed::damaged;
use super::set::{self, Set};
use super::stream::{self, Stream};
use super::string;
use super::zset::{self, SortedSet, Window};
use crate::error::Stop;
use crate::store::row::{Body, Kind, Row};
use crate::store::tx::{KeyRef, Subs, Tx};
use bytes::Bytes;

/// Every element of a version, of whatever tag.
const ALL_TAGS: (&[u8], &[u8]) = (&[0], &[128]);

/// The row that a copy of `row` has under another name: the same, but for elements of its own.
pub fn copy(tx: &mut Tx<'_>, from: KeyRef<'_>, row: &Row, to: KeyRef<'_>) -> Result<Row, Stop> {
    let Body::Elements { version, count, extra } = &row.body else {
        return string::copy(tx, from, row, to);
    };
    let mut elements = Vec::new();
    tx.scan(from, *version, &Subs::new(ALL_TAGS.0, ALL_TAGS.1), &mut |sub, value| {
        elements.push((Bytes::copy_from_slice(sub), Bytes::copy_from_slice(value)));
        Ok(true)
    })?;
    let own = tx.new_version(to)?;
    for (sub, value) in elements {
        tx.put_element(to, own, &sub, Some(value));
    }
    Ok(Row { body: Body::Elements { version: own, count: *count, extra: extra.clone() }, ..row.clone() })
}

/// A value in the form that DUMP writes.
pub fn export(tx: &mut Tx<'_>, key: KeyRef<'_>, row: &Row) -> Result<Value, Stop> {
    let vecs = |texts: Vec<Bytes>| texts.into_iter().map(|text| text.to_vec()).collect();
    Ok(match row.kind {
        Kind::String => Value::String(string::read(tx, key, row)?.to_vec()),
        Kind::Hash => {
            let fields = Hash::load(tx, key)?.ok_or_else(damaged)?.all(tx)?;
            let field = |(field, value, expire_ms): (Bytes, Bytes, Option<u64>)| HashField {
                field: field.to_vec(),
                value: value.to_vec(),
                expire_ms,
            };
            Value::Hash(fields.into_iter().map(field).collect())
        }
        Kind::List => {
            let list = List::load(tx, key)?.ok_or_else(damaged)?;
            let len = list.len();
            Value::List(vecs(list.range(tx, 0..len)?))
        }
        Kind::Set => Value::Set(vecs(Set::load(tx, key)?.ok_or_else(damaged)?.members(tx)?)),
        Kind::SortedSet => {
            let members = SortedSet::load(tx, key)?.ok_or_else(damaged)?.list(tx, &Window::whole())?;
            Value::SortedSet(members.into_iter().map(|(member, score)| (member.to_vec(), score)).collect())
        }
        Kind::Stream => Value::Stream(Stream::load(tx, key)?.ok_or_else(damaged)?.export(tx)?),
    })
}

/// Puts a value that came in that form in place of whatever a key holds; of a hash only fields that have not
/// ended. Its names are short enough.
pub fn import(tx: &mut Tx<'_>, key: KeyRef<'_>, value: &Value, expire_ms: Option<u64>) -> Result<(), Stop> {
    let existed = tx.row(key)?.is_some();
    match value {
        Value::String(value) => {
            let row = string::create(tx, key, value)?;
            tx.put(key, row, Some(existed));
        }
        Value::Hash(fields) => {
            let mut hash = Hash::in_place(tx, key)?;
            for HashField { field, value, expire_ms } in fields {
                if expire_ms.is_none_or(|at| at > tx.now_ms()) {
                    hash.set(tx, field, value, expire_ms.map_or(End::Never, End::At))?;
                }
            }
            hash.save(tx)?;
        }
        Value::List(items) => drop(List::replace(tx, key, items.iter().map(|item| &item[..]))?),
        Value::Set(members) => {
            let members = members.iter().map(|member| Bytes::copy_from_slice(member));
            Set::replace(tx, key, members, false)?;
        }
        Value::SortedSet(members) => SortedSet::replace(tx, key, members)?,
        Value::Stream(stream) => {
            let row = Stream::import(tx, key, stream)?;
            tx.put(key, row, Some(existed));
        }
    }
    if expire_ms.is_some()
        && let Some(row) = tx.row(key)?
    {
        tx.put(key, Row { expire_ms, ..row }, Some(true));
    }
    Ok(())
}

/// The longest name in a value: of a field, member, group or consumer.
pub fn longest_name(value: &Value) -> usize {
    let longest = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0);
    match value {
        Value::String(_) | Value::List(_) => 0,
        Value::Hash(fields) => longest(&mut fields.iter().map(|field| field.field.len())),
        Value::Set(members) => longest(&mut members.iter().map(Vec::len)),
        Value::SortedSet(members) => longest(&mut members.iter().map(|(member, _)| member.len())),
        Value::Stream(stream) => longest(&mut stream.groups.iter().flat_map(|group| {
            let consumers = group.consumers.iter().map(|consumer| consumer.name.len());
            consumers.chain(std::iter::once(group.name.len()))
        })),
    }
}

/// What OBJECT ENCODING of redis-server 7.0 would answer after the same history.
pub fn encoding(row: &Row) -> &'static str {
    match row.kind {
        Kind::String => string::Encoding::of(row).name(),
        Kind::Hash => hash::encoding(row),
        Kind::Set => set::encoding(row),
        Kind::List => list::encoding(row),
        Kind::SortedSet => zset::encoding(row),
        Kind::Stream => stream::encoding(row),
    }
}

/// Bytes of a value. Of many elements, `samples` are looked at and the rest taken to be like them; a string's
/// pieces count as if none of them were a hole.
pub fn size_bytes(tx: &mut Tx<'_>, key: KeyRef<'_>, row: &Row, samples: u64) -> Result<u64, Stop> {
    /// What RocksDB keeps beside an element's key and value.
    const ELEMENT_OVERHEAD_BYTES: u64 = 16;
    let (version, count) = match &row.body {
        Body::Inline(value) => return Ok(value.len() as u64),
        Body::Pieces { len, .. } => return Ok(*len),
        Body::Elements { version, count, .. } => (*version, *count),
    };
    // Elements of the first tag hold what the collection is made of.
    let (mut bytes, mut seen) = (0, 0);
    tx.scan(key, version, &Subs::of(&[1]), &mut |sub, value| {
        bytes += (key.name.len() + sub.len() + value.len()) as u64 + ELEMENT_OVERHEAD_BYTES;
        seen += 1;
        Ok(seen != samples)
    })?;
    let all = if seen == samples { count.max(seen) } else { seen };
    Ok(bytes.checked_div(seen).unwrap_or(0).saturating_mul(all))
}

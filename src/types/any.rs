//! What can be done with a value whatever its type is: copying it, saying how Redis would hold it, how large
//! it is.

use super::{hash, set, string, zset};
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

/// What OBJECT ENCODING of redis-server 7.0 would answer after the same history.
pub fn encoding(row: &Row) -> &'static str {
    match row.kind {
        Kind::String => string::Encoding::of(row).name(),
        Kind::Hash => hash::encoding(row),
        Kind::Set => set::encoding(row),
        Kind::List => "quicklist",
        Kind::SortedSet => zset::encoding(row),
        Kind::Stream => "stream",
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

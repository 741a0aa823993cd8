//! Redis's own serialisation of values, as DUMP answers and RESTORE takes it. Knows bytes only, no key.
//!
//! A payload is a value as it stands in an RDB file (its type, then its content), the RDB version in two
//! bytes and a CRC-64 of all before it in eight, both little-endian. What Redis 2.6 to 7.4 write is read;
//! what is written, 7.0 can read. Source: rdb.c, rdb.h and cluster.c of Redis 7.0 and 7.4.

mod collection;
pub mod extent;
mod intset;
mod item;
mod listpack;
mod rest;
mod stream;
#[cfg(test)]
mod tests;
mod ziplist;

pub use rest::Source;
pub use stream::{Consumer, Fields, Group, Pending, Stream};

/// The newest RDB version that is read: Redis 7.4's.
pub const VERSION_READ_MAX: u16 = 12;
const FOOTER_BYTES: usize = 10;

/// The checksum of RDB files and of payloads.
pub static CRC64: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_REDIS);

/// RDB's numbers for the types that are written, and below for those that are only read.
mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const HASH: u8 = 4;
    /// With binary scores.
    pub const SORTED_SET: u8 = 5;
    pub const STREAM_2: u8 = 19;
    /// With expiries of fields, from Redis 7.4 on.
    pub const HASH_EXPIRING: u8 = 24;

    /// With scores as text.
    pub const SORTED_SET_TEXT: u8 = 3;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const SORTED_SET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const QUICKLIST_ZIPLISTS: u8 = 14;
    pub const STREAM_1: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const SORTED_SET_LISTPACK: u8 = 17;
    pub const QUICKLIST_LISTPACKS: u8 = 18;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM_3: u8 = 21;
    /// As the release candidates of 7.4 wrote them.
    pub const HASH_EXPIRING_RC: u8 = 22;
    pub const HASH_EXPIRING_LISTPACK_RC: u8 = 23;
    pub const HASH_EXPIRING_LISTPACK: u8 = 25;
}

/// The latest expiry of a hash's field in Redis, in milliseconds since 1970.
pub const FIELD_EXPIRE_MAX_MS: u64 = (1 << 48) - 1;

/// A value of any type. Members and fields differ from each other; of all but streams there is at least one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    String(Vec<u8>),
    List(Vec<Vec<u8>>),
    /// In no order.
    Set(Vec<Vec<u8>>),
    /// In no order. A score may be infinite, never NaN.
    SortedSet(Vec<(Vec<u8>, f64)>),
    /// In no order.
    Hash(Vec<HashField>),
    Stream(Stream),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashField {
    pub field: Vec<u8>,
    pub value: Vec<u8>,
    /// When it goes, in milliseconds since 1970; from 1 to `FIELD_EXPIRE_MAX_MS`, and maybe in the past.
    pub expire_ms: Option<u64>,
}

/// Why a payload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its version or its checksum.
    Footer,
    /// Its content, or a type that is none of Redis's own.
    Content,
    /// Longer than a value may be.
    TooLong,
}

/// A value's payload. Readable for Redis 7.0, but for hashes with fields that expire: for 7.4.
///
/// Each string, and each entry of a stream, must be shorter than 4 GiB.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut payload = Vec::new();
    // The RDB version that brought the type.
    let version: u16 = match value {
        Value::String(text) => {
            payload.reserve(text.len() + 10 + FOOTER_BYTES);
            payload.push(kind::STRING);
            put_text(&mut payload, text);
            6
        }
        Value::List(elements) => {
            put_texts(&mut payload, kind::LIST, elements);
            6
        }
        Value::Set(members) => {
            put_texts(&mut payload, kind::SET, members);
            6
        }
        Value::SortedSet(members) => {
            payload.push(kind::SORTED_SET);
            put_length(&mut payload, members.len() as u64);
            for (member, score) in members {
                put_text(&mut payload, member);
                payload.extend_from_slice(&score.to_le_bytes());
            }
            8
        }
        Value::Hash(fields) => put_hash(&mut payload, fields),
        Value::Stream(stream) => {
            payload.push(kind::STREAM_2);
            stream::put(&mut payload, stream);
            10
        }
    };
    let footer = footer(&[&payload], version);
    payload.extend_from_slice(&footer);
    payload
}

/// What stands behind a payload's content, which is given in pieces.
pub fn footer(content: &[&[u8]], version: u16) -> [u8; FOOTER_BYTES] {
    let mut digest = CRC64.digest();
    let version = version.to_le_bytes();
    content.iter().for_each(|piece| digest.update(piece));
    digest.update(&version);
    let mut footer = [0; FOOTER_BYTES];
    footer[..2].copy_from_slice(&version);
    footer[2..].copy_from_slice(&digest.finalize().to_le_bytes());
    footer
}

fn put_texts(payload: &mut Vec<u8>, kind: u8, texts: &[Vec<u8>]) {
    payload.push(kind);
    put_length(payload, texts.len() as u64);
    texts.iter().for_each(|text| put_text(payload, text));
}

/// Writes a hash with its type, and answers the RDB version that is needed.
fn put_hash(payload: &mut Vec<u8>, fields: &[HashField]) -> u16 {
    let expiry = |field: &HashField| field.expire_ms.map(|ms| ms.clamp(1, FIELD_EXPIRE_MAX_MS));
    let first = fields.iter().filter_map(expiry).min();
    payload.push(if first.is_some() { kind::HASH_EXPIRING } else { kind::HASH });
    if let Some(first) = first {
        payload.extend_from_slice(&first.to_le_bytes());
    }
    put_length(payload, fields.len() as u64);
    for field in fields {
        if let Some(first) = first {
            // One more than what it comes after the first: zero means never.
            put_length(payload, expiry(field).map_or(0, |ms| ms - first + 1));
        }
        put_text(payload, &field.field);
        put_text(payload, &field.value);
    }
    if first.is_some() { 12 } else { 6 }
}

fn put_length(payload: &mut Vec<u8>, length: u64) {
    match length {
        0..0x40 => payload.push(length as u8),
        0x40..0x4000 => payload.extend_from_slice(&(0x4000 | length as u16).to_be_bytes()),
        0x4000..0x1_0000_0000 => {
            payload.push(0x80);
            payload.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            payload.push(0x81);
            payload.extend_from_slice(&length.to_be_bytes());
        }
    }
}

fn put_text(payload: &mut Vec<u8>, text: &[u8]) {
    put_length(payload, text.len() as u64);
    payload.extend_from_slice(text);
}

/// The value of a payload, of which no string is longer than `max_bytes`.
///
/// In memory it takes at most a few times `max_bytes` and 64 times the payload: compressed strings, and
/// streams whose entries share long names of fields, could unfold to much more.
///
/// # Errors
/// When the payload is damaged, too new, no value that Redis could hold, or unfolds to too much.
pub fn decode(payload: &[u8], max_bytes: u64) -> Result<Value, Refused> {
    let end = payload.len().checked_sub(FOOTER_BYTES).ok_or(Refused::Footer)?;
    let (checked, checksum) = payload.split_at(end + 2);
    let version = u16::from_le_bytes([checked[end], checked[end + 1]]);
    if version > VERSION_READ_MAX || CRC64.checksum(checked).to_le_bytes() != checksum {
        return Err(Refused::Footer);
    }
    let mut source = Source::new(&payload[..end], max_bytes);
    let kind = source.rest.byte()?;
    let value = value(kind, &mut source)?;
    if source.rest.0.is_empty() { Ok(value) } else { Err(Refused::Content) }
}

fn value(kind: u8, source: &mut Source<'_>) -> Result<Value, Refused> {
    Ok(match kind {
        kind::STRING => Value::String(source.element()?),
        kind::LIST => Value::List(collection::texts(source)?),
        kind::LIST_ZIPLIST => Value::List(collection::list_ziplist(source)?),
        kind::QUICKLIST_ZIPLISTS => Value::List(collection::quicklist_ziplists(source)?),
        kind::QUICKLIST_LISTPACKS => Value::List(collection::quicklist_listpacks(source)?),
        kind::SET => Value::Set(collection::set(source)?),
        kind::SET_INTSET => Value::Set(collection::set_intset(source)?),
        kind::SET_LISTPACK => Value::Set(collection::set_listpack(source)?),
        kind::SORTED_SET => Value::SortedSet(collection::sorted_set(source)?),
        kind::SORTED_SET_TEXT => Value::SortedSet(collection::sorted_set_text(source)?),
        kind::SORTED_SET_ZIPLIST => Value::SortedSet(collection::sorted_set_ziplist(source)?),
        kind::SORTED_SET_LISTPACK => Value::SortedSet(collection::sorted_set_listpack(source)?),
        kind::HASH => Value::Hash(collection::hash(source)?),
        kind::HASH_ZIPMAP => Value::Hash(collection::hash_zipmap(source)?),
        kind::HASH_ZIPLIST => Value::Hash(collection::hash_ziplist(source)?),
        kind::HASH_LISTPACK => Value::Hash(collection::hash_listpack(source)?),
        kind::HASH_EXPIRING => {
            let first_ms = u64::from_le_bytes(source.rest.array()?);
            Value::Hash(collection::hash_expiring(source, Some(first_ms))?)
        }
        kind::HASH_EXPIRING_RC => Value::Hash(collection::hash_expiring(source, None)?),
        kind::HASH_EXPIRING_LISTPACK => {
            // The first expiry of all, which the listpack tells too.
            source.rest.take(8)?;
            Value::Hash(collection::hash_expiring_listpack(source)?)
        }
        kind::HASH_EXPIRING_LISTPACK_RC => Value::Hash(collection::hash_expiring_listpack(source)?),
        kind::STREAM_1 => Value::Stream(stream::read(source, stream::Form::First)?),
        kind::STREAM_2 => Value::Stream(stream::read(source, stream::Form::Second)?),
        kind::STREAM_3 => Value::Stream(stream::read(source, stream::Form::Third)?),
        _ => return Err(Refused::Content),
    })
}

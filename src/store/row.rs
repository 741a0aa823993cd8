//! The metadata row: what is stored under a key's own name. Layout: FORMAT.md, "Metadata row".
//!
//! Knows bytes, not RocksDB: encoding and decoding are pure.

use crate::limits::{GARBAGE_MIN_ELEMENTS, GARBAGE_MIN_STRING_BYTES};
use bytes::Bytes;

/// The layout version written into each row; others refuse the start.
pub const ROW_FORMAT: u8 = 1;

/// Strings up to this length stand in the row itself; longer ones lie in pieces.
pub const STRING_INLINE_MAX_BYTES: usize = 64 * 1024;

/// Length of a piece of a long string; only the last may be shorter, and an absent piece is zeros.
pub const STRING_PIECE_BYTES: usize = 16 * 1024;

/// The data type of a key. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    String = 1,
    Hash = 2,
    List = 3,
    Set = 4,
    SortedSet = 5,
    Stream = 6,
}

impl Kind {
    /// Redis's name, as `TYPE` answers it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Hash => "hash",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::Stream => "stream",
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::String,
            2 => Kind::Hash,
            3 => Kind::List,
            4 => Kind::Set,
            5 => Kind::SortedSet,
            6 => Kind::Stream,
            _ => return None,
        })
    }
}

/// Names one life of one key's elements: slot index (48 bits) and a counter within the command (16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What a row holds beside its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The whole value.
    Inline(Bytes),
    /// A string of `len` bytes in pieces under `version`.
    Pieces { version: Version, len: u64 },
    /// A collection of `count` elements under `version`.
    Elements { version: Version, count: u64, extra: Extra },
}

/// What the row of a collection says beside its count, by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Sets and sorted sets.
    None,
    /// Number that the next value in pieces gets.
    Hash {
        next_piece: u64,
    },
    List(ListEnds),
    Stream(Box<StreamHead>),
}

/// The two open chunks of a list: their items are counted here, those of all others in the buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListEnds {
    pub next_piece: u64,
    /// Where the first and the last chunk stand; the same for a list of one.
    pub first: u64,
    pub last: u64,
    /// Items in the first chunk, and in the last one if that is another.
    pub first_items: u64,
    pub last_items: u64,
}

/// A stream entry's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since 1970, unless a client chose it.
    pub ms: u64,
    pub seq: u64,
}

impl StreamId {
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    pub const MAX: StreamId = StreamId { ms: u64::MAX, seq: u64::MAX };

    fn from_number(number: u128) -> StreamId {
        StreamId { ms: (number >> 64) as u64, seq: number as u64 }
    }

    fn number(self) -> u128 {
        u128::from(self.ms) << 64 | u128::from(self.seq)
    }

    pub fn from_be_bytes(bytes: [u8; 16]) -> StreamId {
        StreamId::from_number(u128::from_be_bytes(bytes))
    }

    /// Sorts as the ids do.
    pub fn to_be_bytes(self) -> [u8; 16] {
        self.number().to_be_bytes()
    }

    pub fn next(self) -> Option<StreamId> {
        self.number().checked_add(1).map(StreamId::from_number)
    }

    pub fn previous(self) -> Option<StreamId> {
        self.number().checked_sub(1).map(StreamId::from_number)
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What is known of a stream without its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamHead {
    pub next_piece: u64,
    /// Of the first entry; zero if there is none. What was trimmed before it need not be walked over.
    pub first_id: StreamId,
    /// The greatest id that was ever given.
    pub last_id: StreamId,
    /// The greatest of those that XDEL has taken; zero if none.
    pub max_deleted_id: StreamId,
    pub entries_added: u64,
    pub groups: u64,
}

/// What a value's history has made of its encoding in Redis, as far as its bytes do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    /// Strings: never `int`, whatever the bytes look like.
    Text,
    /// Strings: always `raw`. Collections: no longer in Redis's compact form.
    Raw,
}

/// A key's row, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    pub form: Form,
    /// Milliseconds since the epoch; the key is gone from that moment on.
    pub expire_ms: Option<u64>,
    /// The soonest end of a field, of a hash that has fields with an end.
    pub field_expire_ms: Option<u64>,
    pub body: Body,
}

const FLAG_EXPIRES: u8 = 1;
const FLAG_RAW: u8 = 2;
const FLAG_FIELDS_EXPIRE: u8 = 4;
const FLAG_TEXT: u8 = 8;
const ENCODING_INLINE: u8 = 0;
const ENCODING_PIECES: u8 = 1;
const ENCODING_ELEMENTS: u8 = 2;

/// What can be told of a row without its body.
struct Head {
    kind: Kind,
    form: Form,
    expire_ms: Option<u64>,
    field_expire_ms: Option<u64>,
    encoding: u8,
}

impl Row {
    /// A value without expiry.
    pub fn new(kind: Kind, body: Body) -> Row {
        Row { kind, form: Form::Plain, expire_ms: None, field_expire_ms: None, body }
    }

    /// A string without expiry that stands in its row.
    pub fn string(value: Bytes) -> Row {
        Row::new(Kind::String, Body::Inline(value))
    }

    pub fn expired(&self, now_ms: u64) -> bool {
        self.expire_ms.is_some_and(|at| at <= now_ms)
    }

    /// The version its elements have, if it has any.
    pub fn version(&self) -> Option<Version> {
        match self.body {
            Body::Inline(_) => None,
            Body::Pieces { version, .. } | Body::Elements { version, .. } => Some(version),
        }
    }

    /// The version of its elements, if they take so much that their space is wanted back once they are gone.
    pub fn large_version(&self) -> Option<Version> {
        match self.body {
            Body::Elements { version, count, .. } if count > GARBAGE_MIN_ELEMENTS => Some(version),
            Body::Pieces { version, len } if len > GARBAGE_MIN_STRING_BYTES => Some(version),
            _ => None,
        }
    }

    /// Bytes this row holds in memory, for caches that weigh it.
    pub fn weight(&self) -> usize {
        match &self.body {
            Body::Inline(value) => value.len(),
            Body::Elements { extra: Extra::Stream(_), .. } => size_of::<StreamHead>(),
            Body::Pieces { .. } | Body::Elements { .. } => 0,
        }
    }

    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let encoding = match self.body {
            Body::Inline(_) => ENCODING_INLINE,
            Body::Pieces { .. } => ENCODING_PIECES,
            Body::Elements { .. } => ENCODING_ELEMENTS,
        };
        let mut flags = 0;
        if self.expire_ms.is_some() {
            flags |= FLAG_EXPIRES;
        }
        if self.field_expire_ms.is_some() {
            flags |= FLAG_FIELDS_EXPIRE;
        }
        flags |= match self.form {
            Form::Plain => 0,
            Form::Text => FLAG_TEXT,
            Form::Raw => FLAG_RAW,
        };
        out.extend_from_slice(&[ROW_FORMAT, self.kind as u8, encoding, flags]);
        let mut number = |number: u64| out.extend_from_slice(&number.to_be_bytes());
        self.expire_ms.into_iter().chain(self.field_expire_ms).for_each(&mut number);
        match &self.body {
            Body::Inline(value) => out.extend_from_slice(value),
            Body::Pieces { version, len } => [version.0, *len].into_iter().for_each(number),
            Body::Elements { version, count, extra } => {
                [version.0, *count].into_iter().for_each(&mut number);
                extra.each(number);
            }
        }
    }

    /// Fails on a layout this program does not know: such a row must stop whoever meets it.
    pub fn decode(bytes: &Bytes) -> Result<Row, RowError> {
        let (head, mut rest) = Head::decode(bytes)?;
        let Head { kind, form, expire_ms, field_expire_ms, encoding } = head;
        let body = match encoding {
            ENCODING_INLINE if kind != Kind::Stream => Body::Inline(bytes.slice(bytes.len() - rest.len()..)),
            ENCODING_PIECES if kind == Kind::String => {
                Body::Pieces { version: Version(take_u64(&mut rest)?), len: take_u64(&mut rest)? }
            }
            ENCODING_ELEMENTS if kind != Kind::String => Body::Elements {
                version: Version(take_u64(&mut rest)?),
                count: take_u64(&mut rest)?,
                extra: Extra::decode(kind, &mut rest)?,
            },
            _ => return Err(RowError("unknown encoding")),
        };
        Ok(Row { kind, form, expire_ms, field_expire_ms, body })
    }

    /// Type and expiry of a row of which only the beginning is given.
    pub fn decode_head(bytes: &[u8]) -> Result<(Kind, Option<u64>), RowError> {
        Head::decode(bytes).map(|(head, _)| (head.kind, head.expire_ms))
    }
}

impl Head {
    fn decode(bytes: &[u8]) -> Result<(Head, &[u8]), RowError> {
        let [format, kind, encoding, flags, rest @ ..] = bytes else {
            return Err(RowError("shorter than its head"));
        };
        if *format != ROW_FORMAT {
            return Err(RowError("unknown format"));
        }
        let kind = Kind::from_byte(*kind).ok_or(RowError("unknown type"))?;
        let string = kind == Kind::String;
        let form = match flags & !(FLAG_EXPIRES | FLAG_FIELDS_EXPIRE) {
            0 => Form::Plain,
            FLAG_TEXT if string => Form::Text,
            FLAG_RAW => Form::Raw,
            _ => return Err(RowError("unknown flag")),
        };
        let mut rest = rest;
        let mut number = |flag| if flags & flag == 0 { Ok(None) } else { take_u64(&mut rest).map(Some) };
        let expire_ms = number(FLAG_EXPIRES)?;
        let field_expire_ms = number(FLAG_FIELDS_EXPIRE)?;
        if field_expire_ms.is_some() && kind != Kind::Hash {
            return Err(RowError("unknown flag"));
        }
        Ok((Head { kind, form, expire_ms, field_expire_ms, encoding: *encoding }, rest))
    }
}

impl Extra {
    /// Its numbers, in their order.
    fn each(&self, mut number: impl FnMut(u64)) {
        match self {
            Extra::None => {}
            Extra::Hash { next_piece } => number(*next_piece),
            Extra::List(ListEnds { next_piece, first, last, first_items, last_items }) => {
                [*next_piece, *first, *last, *first_items, *last_items].into_iter().for_each(number);
            }
            Extra::Stream(head) => {
                let StreamHead { next_piece, first_id, last_id, max_deleted_id, entries_added, groups } =
                    **head;
                number(next_piece);
                for id in [first_id, last_id, max_deleted_id] {
                    [id.ms, id.seq].into_iter().for_each(&mut number);
                }
                [entries_added, groups].into_iter().for_each(number);
            }
        }
    }

    fn decode(kind: Kind, rest: &mut &[u8]) -> Result<Extra, RowError> {
        let mut number = || take_u64(rest);
        Ok(match kind {
            Kind::Set | Kind::SortedSet => Extra::None,
            Kind::Hash => Extra::Hash { next_piece: number()? },
            Kind::List => Extra::List(ListEnds {
                next_piece: number()?,
                first: number()?,
                last: number()?,
                first_items: number()?,
                last_items: number()?,
            }),
            Kind::Stream => Extra::Stream(Box::new(StreamHead {
                next_piece: number()?,
                first_id: StreamId { ms: number()?, seq: number()? },
                last_id: StreamId { ms: number()?, seq: number()? },
                max_deleted_id: StreamId { ms: number()?, seq: number()? },
                entries_added: number()?,
                groups: number()?,
            })),
            Kind::String => return Err(RowError("unknown encoding")),
        })
    }
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, RowError> {
    let (head, tail) = rest.split_first_chunk::<8>().ok_or(RowError("shorter than its fields"))?;
    *rest = tail;
    Ok(u64::from_be_bytes(*head))
}

/// A row that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata row: {0}")]
pub struct RowError(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(kind: Kind, extra: Extra) -> Row {
        Row::new(kind, Body::Elements { version: Version(1 << 16), count: 10, extra })
    }

    #[test]
    fn rows_survive_encoding() {
        for row in [
            Row::string(Bytes::from_static(b"")),
            Row { form: Form::Raw, expire_ms: Some(u64::MAX), ..Row::string(Bytes::from_static(b"value")) },
            Row { form: Form::Text, ..Row::string(Bytes::from_static(b"3")) },
            Row::new(Kind::String, Body::Pieces { version: Version(7 << 16), len: 1 << 29 }),
            Row {
                form: Form::Raw,
                expire_ms: Some(5),
                field_expire_ms: Some(6),
                ..elements(Kind::Hash, Extra::Hash { next_piece: 9 })
            },
            elements(Kind::Set, Extra::None),
            elements(Kind::SortedSet, Extra::None),
            elements(
                Kind::List,
                Extra::List(ListEnds { next_piece: 1, first: 2, last: 3, first_items: 4, last_items: 5 }),
            ),
            elements(
                Kind::Stream,
                Extra::Stream(Box::new(StreamHead {
                    next_piece: 1,
                    first_id: StreamId { ms: 2, seq: 3 },
                    last_id: StreamId { ms: 4, seq: 5 },
                    max_deleted_id: StreamId { ms: 6, seq: 7 },
                    entries_added: 8,
                    groups: 9,
                })),
            ),
        ] {
            let mut bytes = Vec::new();
            row.encode_into(&mut bytes);
            assert_eq!(Row::decode(&Bytes::from(bytes)), Ok(row));
        }
    }

    #[test]
    fn unknown_layouts_are_refused() {
        for bytes in [
            &[][..],
            &[2, 1, 0, 0],
            &[1, 9, 0, 0],
            &[1, 1, 7, 0],
            &[1, 1, 0, 0x80],
            &[1, 1, 0, 4],
            &[1, 1, 0, 10],
            &[1, 1, 1, 0, 1],
            &[1, 1, 2, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[1, 6, 0, 0],
            &[1, 3, 0, 8],
        ] {
            assert!(Row::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}

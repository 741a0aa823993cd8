//! The metadata row: what is stored under a key's own name. Layout: FORMAT.md, "Metadata row".
//!
//! Knows bytes, not RocksDB: encoding and decoding are pure.

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
}

/// What a short string's last command has made of its encoding, as far as its bytes do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain,
    /// Never `int`, whatever the bytes look like.
    Text,
    /// Always `raw`.
    Raw,
}

/// A key's row, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    pub form: Form,
    /// Milliseconds since the epoch; the key is gone from that moment on.
    pub expire_ms: Option<u64>,
    pub body: Body,
}

const FLAG_EXPIRES: u8 = 1;
const FLAG_RAW: u8 = 2;
/// Value 4 is taken by hashes.
const FLAG_TEXT: u8 = 8;
const ENCODING_INLINE: u8 = 0;
const ENCODING_PIECES: u8 = 1;

impl Row {
    /// A string without expiry that stands in its row.
    pub fn string(value: Bytes) -> Row {
        Row { kind: Kind::String, form: Form::Plain, expire_ms: None, body: Body::Inline(value) }
    }

    pub fn expired(&self, now_ms: u64) -> bool {
        self.expire_ms.is_some_and(|at| at <= now_ms)
    }

    /// Bytes this row holds in memory, for caches that weigh it.
    pub fn weight(&self) -> usize {
        match &self.body {
            Body::Inline(value) => value.len(),
            Body::Pieces { .. } => 0,
        }
    }

    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let encoding = match self.body {
            Body::Inline(_) => ENCODING_INLINE,
            Body::Pieces { .. } => ENCODING_PIECES,
        };
        let mut flags = 0;
        if self.expire_ms.is_some() {
            flags |= FLAG_EXPIRES;
        }
        flags |= match self.form {
            Form::Plain => 0,
            Form::Text => FLAG_TEXT,
            Form::Raw => FLAG_RAW,
        };
        out.extend_from_slice(&[ROW_FORMAT, self.kind as u8, encoding, flags]);
        if let Some(at) = self.expire_ms {
            out.extend_from_slice(&at.to_be_bytes());
        }
        match &self.body {
            Body::Inline(value) => out.extend_from_slice(value),
            Body::Pieces { version, len } => {
                out.extend_from_slice(&version.0.to_be_bytes());
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
    }

    /// Fails on a layout this program does not know: such a row must stop whoever meets it.
    pub fn decode(bytes: &Bytes) -> Result<Row, RowError> {
        let [format, kind, encoding, flags, rest @ ..] = bytes.as_ref() else {
            return Err(RowError("shorter than its head"));
        };
        if *format != ROW_FORMAT {
            return Err(RowError("unknown format"));
        }
        let kind = Kind::from_byte(*kind).ok_or(RowError("unknown type"))?;
        let form = match flags & !FLAG_EXPIRES {
            0 => Form::Plain,
            FLAG_TEXT => Form::Text,
            FLAG_RAW => Form::Raw,
            _ => return Err(RowError("unknown flag")),
        };
        let mut rest = rest;
        let expire_ms = match flags & FLAG_EXPIRES {
            0 => None,
            _ => Some(take_u64(&mut rest)?),
        };
        let body = match *encoding {
            ENCODING_INLINE => Body::Inline(bytes.slice(bytes.len() - rest.len()..)),
            ENCODING_PIECES => {
                Body::Pieces { version: Version(take_u64(&mut rest)?), len: take_u64(&mut rest)? }
            }
            _ => return Err(RowError("unknown encoding")),
        };
        Ok(Row { kind, form, expire_ms, body })
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

    #[test]
    fn rows_survive_encoding() {
        for row in [
            Row::string(Bytes::from_static(b"")),
            Row { form: Form::Raw, expire_ms: Some(u64::MAX), ..Row::string(Bytes::from_static(b"value")) },
            Row { form: Form::Text, ..Row::string(Bytes::from_static(b"3")) },
            Row {
                body: Body::Pieces { version: Version(7 << 16), len: 1 << 29 },
                ..Row::string(Bytes::new())
            },
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
        ] {
            assert!(Row::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}

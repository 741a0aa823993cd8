//! Values within collections: in their element while short, in pieces of their own once long; with an end of
//! their own, if they have one. Layout: store/FORMAT.md, "Elements of collections".
//!
//! Knows no type: where an element stands is its collection's business.

use super::packed::{Packed, damaged};
use crate::error::Stop;
use crate::store::row::{STRING_INLINE_MAX_BYTES, STRING_PIECE_BYTES, Version};
use crate::store::tx::{KeyRef, Sub, Tx};
use bytes::Bytes;

const TAG_PIECE: u8 = 127;
const FLAG_EXPIRES: u8 = 1;
const FLAG_PIECES: u8 = 2;
/// As for long strings: a value of a MiB leaves the turn.
const STEPS_PER_PIECE: u32 = 32;

/// Longest value that stands in its element.
pub const VALUE_INLINE_MAX_BYTES: usize = STRING_INLINE_MAX_BYTES;

/// One life of one key, in whose elements values stand.
pub struct Place<'k, 'n> {
    pub key: KeyRef<'k>,
    pub version: Version,
    /// Number that the next value in pieces gets; the row keeps it.
    pub next_piece: &'n mut u64,
}

/// A stored value, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'b> {
    pub expire_ms: Option<u64>,
    content: Content<'b>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content<'b> {
    Here(&'b [u8]),
    Pieces { id: u64, len: u64 },
}

impl<'b> Stored<'b> {
    pub fn decode(stored: &'b [u8]) -> Result<Stored<'b>, Stop> {
        let mut packed = Packed(stored);
        let [flags] = packed.array()?;
        if flags & !(FLAG_EXPIRES | FLAG_PIECES) != 0 {
            return Err(damaged());
        }
        let expire_ms = if flags & FLAG_EXPIRES != 0 { Some(packed.u64()?) } else { None };
        let content = match flags & FLAG_PIECES {
            0 => Content::Here(packed.0),
            _ => Content::Pieces { id: packed.u64()?, len: packed.u64()? },
        };
        Ok(Stored { expire_ms, content })
    }

    /// Not past its end.
    pub fn is_there(&self, now_ms: u64) -> bool {
        self.expire_ms.is_none_or(|at| at > now_ms)
    }

    /// The same value with another end, stored.
    pub fn with_end(&self, expire_ms: Option<u64>, out: &mut Vec<u8>) {
        match self.content {
            Content::Here(bytes) => encode_short(bytes, expire_ms, out),
            Content::Pieces { id, len } => encode_pieces(id, len, expire_ms, out),
        }
    }

    pub fn len(&self) -> u64 {
        match self.content {
            Content::Here(bytes) => bytes.len() as u64,
            Content::Pieces { len, .. } => len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value, if it stands in its element.
    pub fn here(&self) -> Option<&'b [u8]> {
        match self.content {
            Content::Here(bytes) => Some(bytes),
            Content::Pieces { .. } => None,
        }
    }

    /// The whole value. `version` is None in a row, where nothing is in pieces.
    pub fn read(&self, tx: &mut Tx<'_>, key: KeyRef<'_>, version: Option<Version>) -> Result<Bytes, Stop> {
        let (id, len) = match self.content {
            Content::Here(bytes) => return Ok(Bytes::copy_from_slice(bytes)),
            Content::Pieces { id, len } => (id, len),
        };
        let version = version.ok_or_else(damaged)?;
        tx.spend(pieces(len).saturating_mul(STEPS_PER_PIECE))?;
        let mut value = Vec::with_capacity(usize::try_from(len).map_err(|_| damaged())?);
        for piece in 0..pieces(len) {
            value.extend_from_slice(&tx.element(key, version, &sub(id, piece))?.ok_or_else(damaged)?);
        }
        if value.len() as u64 == len { Ok(value.into()) } else { Err(damaged()) }
    }

    /// Deletes what the value has beside its element, which is about to go or to change.
    pub fn forget(&self, tx: &mut Tx<'_>, key: KeyRef<'_>, version: Option<Version>) -> Result<(), Stop> {
        let Content::Pieces { id, len } = self.content else { return Ok(()) };
        let version = version.ok_or_else(damaged)?;
        tx.spend(pieces(len))?;
        for piece in 0..pieces(len) {
            tx.put_element(key, version, &sub(id, piece), None);
        }
        Ok(())
    }
}

/// As a short value is stored. It has at most `VALUE_INLINE_MAX_BYTES`.
pub fn encode_short(value: &[u8], expire_ms: Option<u64>, out: &mut Vec<u8>) {
    assert!(value.len() <= VALUE_INLINE_MAX_BYTES, "a long value has pieces");
    head(0, expire_ms, out);
    out.extend_from_slice(value);
}

/// As a value is stored; the pieces of a long one are put.
pub fn encode(
    tx: &mut Tx<'_>,
    place: &mut Place<'_, '_>,
    value: &[u8],
    expire_ms: Option<u64>,
    out: &mut Vec<u8>,
) -> Result<(), Stop> {
    if value.len() <= VALUE_INLINE_MAX_BYTES {
        encode_short(value, expire_ms, out);
        return Ok(());
    }
    let (id, len) = (*place.next_piece, value.len() as u64);
    *place.next_piece += 1;
    tx.spend(pieces(len).saturating_mul(STEPS_PER_PIECE))?;
    for (piece, bytes) in (0..).zip(value.chunks(STRING_PIECE_BYTES)) {
        let bytes = Bytes::copy_from_slice(bytes);
        tx.put_element(place.key, place.version, &sub(id, piece), Some(bytes));
    }
    encode_pieces(id, len, expire_ms, out);
    Ok(())
}

fn encode_pieces(id: u64, len: u64, expire_ms: Option<u64>, out: &mut Vec<u8>) {
    head(FLAG_PIECES, expire_ms, out);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}

fn head(flags: u8, expire_ms: Option<u64>, out: &mut Vec<u8>) {
    out.push(flags | if expire_ms.is_some() { FLAG_EXPIRES } else { 0 });
    if let Some(expire_ms) = expire_ms {
        out.extend_from_slice(&expire_ms.to_be_bytes());
    }
}

fn pieces(len: u64) -> u32 {
    u32::try_from(len.div_ceil(STRING_PIECE_BYTES as u64)).unwrap_or(u32::MAX)
}

fn sub(id: u64, piece: u32) -> Sub {
    let mut sub = Sub::from_slice(&[TAG_PIECE]);
    sub.extend_from_slice(&id.to_be_bytes());
    sub.extend_from_slice(&piece.to_be_bytes());
    sub
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::memory::{Memory, scope};

    #[test]
    fn values_of_all_lengths_come_back_and_leave_nothing_behind() {
        for len in [0, 1, VALUE_INLINE_MAX_BYTES, VALUE_INLINE_MAX_BYTES + 1, 5 * STRING_PIECE_BYTES] {
            for expire_ms in [None, Some(77)] {
                let value: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                let (mut memory, mut stored, mut next_piece) = (Memory::default(), Vec::new(), 3);
                let version = Version(1 << 16);
                let work = |tx: &mut Tx<'_>| {
                    let mut place = Place { key: tx.key(b"k"), version, next_piece: &mut next_piece };
                    encode(tx, &mut place, &value, expire_ms, &mut stored)
                };
                memory.run(scope(), work).0.unwrap();
                let decoded = Stored::decode(&stored).unwrap();
                assert_eq!((decoded.expire_ms, decoded.len()), (expire_ms, len as u64));
                assert_eq!(next_piece, if len > VALUE_INLINE_MAX_BYTES { 4 } else { 3 });
                let read = |tx: &mut Tx<'_>| decoded.read(tx, tx.key(b"k"), Some(version));
                assert_eq!(memory.run(scope(), read).0.unwrap(), value);
                let forget = |tx: &mut Tx<'_>| decoded.forget(tx, tx.key(b"k"), Some(version));
                memory.run(scope(), forget).0.unwrap();
                assert!(memory.elements.is_empty());
            }
        }
    }

    #[test]
    fn what_cannot_be_a_value_is_refused() {
        for stored in [&[][..], &[4], &[1, 0], &[2, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(Stored::decode(stored).is_err(), "{stored:?}");
        }
    }
}

//! Strings: in the row while short, in pieces under a version once long.
//!
//! A piece may be shorter than its place, or absent: the rest of the place is zeros. So a write far
//! behind the end touches only the pieces it falls on. Knows no command and no reply.

use crate::error::Stop;
use crate::resp::number;
use crate::store::copied;
use crate::store::row::{Body, Form, Row, STRING_INLINE_MAX_BYTES, STRING_PIECE_BYTES, Version};
use crate::store::tx::{KeyRef, Tx};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

const PIECE: u64 = STRING_PIECE_BYTES as u64;

/// What a piece costs beside a row in memory: with it, values above a MiB leave a turn of 2,000 steps.
const STEPS_PER_PIECE: u32 = 32;

/// A row of a string that has elements is refused where it is decoded.
const NO_ELEMENTS: &str = "strings have no elements";

/// Redis keeps strings up to this length in one allocation with their object, and calls them `embstr`.
const EMBEDDED_MAX_BYTES: usize = 44;

/// How Redis 7.0 would hold the value, as OBJECT ENCODING answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Int(i64),
    Embedded,
    Raw,
}

impl Encoding {
    pub fn of(row: &Row) -> Encoding {
        let Body::Inline(value) = &row.body else { return Encoding::Raw };
        let int = match row.form {
            Form::Raw => return Encoding::Raw,
            Form::Text => None,
            Form::Plain => number::parse_i64(value),
        };
        match int {
            Some(int) => Encoding::Int(int),
            None if value.len() <= EMBEDDED_MAX_BYTES => Encoding::Embedded,
            None => Encoding::Raw,
        }
    }

    /// Redis's name.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Int(_) => "int",
            Encoding::Embedded => "embstr",
            Encoding::Raw => "raw",
        }
    }
}

/// Bytes of the value.
pub fn len(row: &Row) -> u64 {
    match &row.body {
        Body::Inline(value) => value.len() as u64,
        Body::Pieces { len, .. } => *len,
        Body::Elements { .. } => unreachable!("{NO_ELEMENTS}"),
    }
}

/// The whole value.
pub fn read(tx: &mut Tx<'_>, key: KeyRef<'_>, row: &Row) -> Result<Bytes, Stop> {
    read_range(tx, key, row, 0..len(row))
}

/// A part of the value; `range` lies within its length.
pub fn read_range(tx: &mut Tx<'_>, key: KeyRef<'_>, row: &Row, range: Range<u64>) -> Result<Bytes, Stop> {
    assert!(range.start <= range.end && range.end <= len(row), "the caller has cut the range to the value");
    let version = match &row.body {
        Body::Inline(value) => return Ok(value.slice(range.start as usize..range.end as usize)),
        Body::Pieces { version, .. } => *version,
        Body::Elements { .. } => unreachable!("{NO_ELEMENTS}"),
    };
    spend(tx, &range)?;
    let mut value = Vec::with_capacity((range.end - range.start) as usize);
    for part in parts(&range) {
        let piece = tx.element(key, version, &part.sub())?.unwrap_or_default();
        let stored = &piece[part.from.min(piece.len())..part.to.min(piece.len())];
        value.extend_from_slice(stored);
        value.resize(value.len() + part.len() - stored.len(), 0);
    }
    Ok(value.into())
}

/// The row of a new value, without expiry; the pieces of a long one are put under a new version.
pub fn create(tx: &mut Tx<'_>, key: KeyRef<'_>, value: &[u8]) -> Result<Row, Stop> {
    if value.len() <= STRING_INLINE_MAX_BYTES {
        return Ok(Row::string(copied(value)));
    }
    let version = tx.new_version(key)?;
    let len = value.len() as u64;
    write(tx, key, version, 0, value, Old::NOTHING)?;
    Ok(Row { body: Body::Pieces { version, len }, ..Row::string(Bytes::new()) })
}

/// The row after `data` (not empty unless at the end) is written at `offset`; a gap becomes zeros, and
/// the encoding raw. Only pieces that `data` falls on are touched, except when a short value grows long.
pub fn write_range(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    row: Option<Row>,
    offset: u64,
    data: &[u8],
) -> Result<Row, Stop> {
    write_patches(tx, key, row, &[(offset, data)])
}

/// As `write_range`, for single bytes wherever they lie: each piece is touched once.
pub fn write_bytes(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    row: Option<Row>,
    bytes: &BTreeMap<u64, u8>,
) -> Result<Row, Stop> {
    let old_len = row.as_ref().map_or(0, len);
    let mut patches: Vec<(u64, Vec<u8>)> = Vec::new();
    for (&at, &byte) in bytes {
        match patches.last_mut() {
            Some((offset, data)) if *offset / PIECE == at / PIECE => {
                let from = *offset + data.len() as u64;
                if let Some(row) = row.as_ref().filter(|_| from < at.min(old_len)) {
                    data.extend_from_slice(&read_range(tx, key, row, from..at.min(old_len))?);
                }
                data.resize((at - *offset) as usize, 0);
                data.push(byte);
            }
            _ => patches.push((at, vec![byte])),
        }
    }
    let patches: Vec<(u64, &[u8])> = patches.iter().map(|(offset, data)| (*offset, &data[..])).collect();
    write_patches(tx, key, row, &patches)
}

/// Patches ascend, and no piece has two of them: what one has written the next would not see.
fn write_patches(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    row: Option<Row>,
    patches: &[(u64, &[u8])],
) -> Result<Row, Stop> {
    let row = row.unwrap_or_else(|| Row::string(Bytes::new()));
    let old_len = len(&row);
    let end = |(offset, data): &(u64, &[u8])| offset + data.len() as u64;
    let new_len = old_len.max(patches.last().map_or(0, end));
    let body = match row.body {
        Body::Inline(value) if new_len <= STRING_INLINE_MAX_BYTES as u64 => {
            let mut value = value.to_vec();
            patches.iter().for_each(|(offset, data)| overwrite(&mut value, *offset as usize, data));
            Body::Inline(value.into())
        }
        Body::Inline(value) => {
            let version = tx.new_version(key)?;
            let apart = |part: &Part, patch: (u64, &[u8])| {
                part.start() + PIECE <= patch.0 || part.start() >= end(&patch)
            };
            let untouched = |part: &Part| patches.iter().all(|patch| apart(part, *patch));
            for part in parts(&(0..old_len)).filter(untouched) {
                let piece = Bytes::copy_from_slice(part.of(0, &value));
                tx.put_element(key, version, &part.sub(), Some(piece));
            }
            for (offset, data) in patches {
                write(tx, key, version, *offset, data, Old { len: old_len, inline: Some(&value) })?;
            }
            Body::Pieces { version, len: new_len }
        }
        Body::Pieces { version, .. } => {
            for (offset, data) in patches {
                write(tx, key, version, *offset, data, Old { len: old_len, inline: None })?;
            }
            Body::Pieces { version, len: new_len }
        }
        Body::Elements { .. } => unreachable!("{NO_ELEMENTS}"),
    };
    Ok(Row { form: Form::Raw, body, ..row })
}

/// The row that a copy of `row` has under another name: the same, but for pieces of its own.
pub fn copy(tx: &mut Tx<'_>, from: KeyRef<'_>, row: &Row, to: KeyRef<'_>) -> Result<Row, Stop> {
    let Body::Pieces { version, len } = row.body else { return Ok(row.clone()) };
    spend(tx, &(0..len))?;
    let own = tx.new_version(to)?;
    for part in parts(&(0..len)) {
        if let Some(piece) = tx.element(from, version, &part.sub())? {
            tx.put_element(to, own, &part.sub(), Some(piece));
        }
    }
    Ok(Row { body: Body::Pieces { version: own, len }, ..row.clone() })
}

/// Counts the pieces of a range before any is touched.
fn spend(tx: &mut Tx<'_>, range: &Range<u64>) -> Result<(), Stop> {
    let pieces = u32::try_from(parts(range).len()).unwrap_or(u32::MAX);
    tx.spend(pieces.saturating_mul(STEPS_PER_PIECE))
}

/// What stood in a string before a write: its length, and its bytes unless they lie in pieces.
#[derive(Clone, Copy)]
struct Old<'v> {
    len: u64,
    inline: Option<&'v [u8]>,
}

impl Old<'_> {
    const NOTHING: Old<'static> = Old { len: 0, inline: None };

    /// Bytes of the old value in one piece's place.
    fn len_in(&self, number: u32) -> usize {
        self.len.saturating_sub(u64::from(number) * PIECE).min(PIECE) as usize
    }
}

/// Puts the pieces that `data` at `offset` falls on; reads the old ones that are not wholly covered.
fn write(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    version: Version,
    offset: u64,
    data: &[u8],
    old: Old<'_>,
) -> Result<(), Stop> {
    let range = offset..offset + data.len() as u64;
    spend(tx, &range)?;
    for part in parts(&range) {
        let fresh = part.of(offset, data);
        let old_len = old.len_in(part.number);
        let covered = part.from == 0 && part.to >= old_len;
        let mut piece = match old.inline {
            _ if covered || old_len == 0 => Vec::with_capacity(part.to),
            Some(value) => value[part.start() as usize..][..old_len].to_vec(),
            None => tx.element(key, version, &part.sub())?.unwrap_or_default().to_vec(),
        };
        overwrite(&mut piece, part.from, fresh);
        tx.put_element(key, version, &part.sub(), Some(piece.into()));
    }
    Ok(())
}

fn overwrite(value: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if value.len() < end {
        value.resize(end, 0);
    }
    value[at..end].copy_from_slice(data);
}

/// What a range of the string covers of one piece: bytes `from..to` of its place.
#[derive(Clone, Copy)]
struct Part {
    number: u32,
    from: usize,
    to: usize,
}

impl Part {
    /// Offset in the string at which the piece begins.
    fn start(&self) -> u64 {
        u64::from(self.number) * PIECE
    }

    fn len(&self) -> usize {
        self.to - self.from
    }

    fn sub(&self) -> [u8; 4] {
        self.number.to_be_bytes()
    }

    /// These bytes out of `data`, which begins at `offset` of the string and covers them.
    fn of<'d>(&self, offset: u64, data: &'d [u8]) -> &'d [u8] {
        let at = (self.start() + self.from as u64 - offset) as usize;
        &data[at..at + self.len()]
    }
}

fn parts(range: &Range<u64>) -> impl ExactSizeIterator<Item = Part> + use<> {
    let Range { start, end } = *range;
    // A row's length is at most `value_max_bytes`; 2^32 pieces are 64 TiB.
    let number = |at: u64| u32::try_from(at).expect("a string has fewer than 2^32 pieces");
    let numbers = if start == end { 0..0 } else { number(start / PIECE)..number(end.div_ceil(PIECE)) };
    numbers.map(move |number| {
        let at = u64::from(number) * PIECE;
        let from = start.saturating_sub(at) as usize;
        Part { number, from, to: (end - at).min(PIECE) as usize }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tx::Change;
    use crate::types::memory::{Memory, scope};
    use proptest::prelude::*;

    const INLINE: usize = STRING_INLINE_MAX_BYTES;
    const PIECE_BYTES: usize = STRING_PIECE_BYTES;

    fn key(tx: &Tx<'_>) -> KeyRef<'static> {
        tx.key(b"k")
    }

    fn stored(memory: &mut Memory, name: &'static [u8]) -> Vec<u8> {
        let read_all = |tx: &mut Tx<'_>| {
            let key = tx.key(name);
            match tx.row(key)? {
                Some(row) => read(tx, key, &row),
                None => Ok(Bytes::new()),
            }
        };
        memory.run(scope(), read_all).0.unwrap().to_vec()
    }

    fn set(memory: &mut Memory, value: &[u8]) {
        let put = |tx: &mut Tx<'_>| {
            let row = create(tx, key(tx), value)?;
            tx.put(key(tx), row, None);
            Ok(())
        };
        memory.run(scope(), put).0.unwrap();
    }

    /// Number of elements and rows written.
    fn patch(memory: &mut Memory, offset: usize, data: &[u8]) -> usize {
        let work = |tx: &mut Tx<'_>| {
            let row = tx.row(key(tx))?;
            let row = write_range(tx, key(tx), row, offset as u64, data)?;
            tx.put(key(tx), row, None);
            Ok(())
        };
        let (result, effects) = memory.run(scope(), work);
        result.unwrap();
        effects.len()
    }

    #[test]
    fn values_around_the_boundaries_come_back() {
        for len in
            [0, 1, INLINE - 1, INLINE, INLINE + 1, 5 * PIECE_BYTES - 1, 5 * PIECE_BYTES, 5 * PIECE_BYTES + 1]
        {
            let mut memory = Memory::default();
            let value: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            set(&mut memory, &value);
            assert_eq!(stored(&mut memory, b"k"), value, "{len}");
            assert_eq!(memory.elements.is_empty(), len <= INLINE, "{len}");
        }
    }

    #[test]
    fn a_far_write_touches_few_pieces_and_reads_none() {
        let mut memory = Memory::default();
        let offset = (500 << 20) - 1;
        assert_eq!(patch(&mut memory, offset, b"ab"), 3, "two pieces and the row");
        assert_eq!((memory.row_reads, memory.element_reads), (1, 0));
        let tail = |tx: &mut Tx<'_>| {
            let row = tx.row(key(tx))?.expect("it was just written");
            assert_eq!(len(&row), offset as u64 + 2);
            read_range(tx, key(tx), &row, offset as u64 - 2..offset as u64 + 2)
        };
        assert_eq!(memory.run(scope(), tail).0.unwrap(), &b"\0\0ab"[..]);
        assert_eq!(patch(&mut memory, offset + 2, b"c"), 2, "one piece and the row");
        assert_eq!(patch(&mut memory, 0, b"x"), 2);
    }

    #[test]
    fn a_value_that_grows_long_moves_once() {
        let mut memory = Memory::default();
        set(&mut memory, &vec![b'a'; INLINE]);
        assert_eq!(patch(&mut memory, INLINE, b"b"), 6, "four old pieces, one new, the row");
        assert_eq!(patch(&mut memory, INLINE + 1, b"c"), 2);
        let mut expected = vec![b'a'; INLINE];
        expected.extend_from_slice(b"bc");
        assert_eq!(stored(&mut memory, b"k"), expected);
    }

    #[test]
    fn a_copy_has_pieces_of_its_own() {
        let mut memory = Memory::default();
        patch(&mut memory, 10 * PIECE_BYTES, b"end");
        let value = stored(&mut memory, b"k");
        let work = |tx: &mut Tx<'_>| {
            let row = tx.row(key(tx))?.expect("it was just written");
            let row = copy(tx, key(tx), &row, tx.key(b"copy"))?;
            tx.put(tx.key(b"copy"), row, None);
            Ok(())
        };
        let (result, effects) = memory.run(scope(), work);
        result.unwrap();
        assert_eq!(effects.len(), 2, "absent pieces are not copied");
        assert!(matches!(effects[1].change, Change::Put(_)), "the row comes last");
        patch(&mut memory, 0, b"changed");
        assert_eq!(stored(&mut memory, b"copy"), value);
    }

    #[test]
    fn much_work_leaves_the_turn_before_it_begins() {
        let mut memory = Memory::default();
        set(&mut memory, &vec![b'a'; 65 * PIECE_BYTES]);
        let few = crate::store::tx::Scope { steps_max: 2_000, ..scope() };
        let work = |tx: &mut Tx<'_>| {
            let row = tx.row(key(tx))?.expect("it was just written");
            read(tx, key(tx), &row)
        };
        assert!(matches!(memory.run(few, work).0, Err(Stop::Long)));
        assert_eq!(memory.element_reads, 0);
        let big = vec![b'b'; 65 * PIECE_BYTES];
        assert!(matches!(memory.run(few, |tx| create(tx, key(tx), &big)).0, Err(Stop::Long)));
    }

    #[test]
    fn encodings() {
        let of = |value: &'static [u8]| Encoding::of(&Row::string(Bytes::from_static(value)));
        assert_eq!(of(b"-9223372036854775808"), Encoding::Int(i64::MIN));
        assert_eq!(of(b"9223372036854775808"), Encoding::Embedded);
        assert_eq!(of(b"01"), Encoding::Embedded);
        assert_eq!(of(&[b'x'; 44]), Encoding::Embedded);
        assert_eq!(of(&[b'x'; 45]), Encoding::Raw);
        let row = |form| Row { form, ..Row::string(Bytes::from_static(b"1")) };
        assert_eq!(Encoding::of(&row(Form::Raw)), Encoding::Raw);
        assert_eq!(Encoding::of(&row(Form::Text)), Encoding::Embedded);
    }

    fn place() -> impl Strategy<Value = usize> {
        (0..8usize, 0..5usize).prop_map(|(piece, off)| (piece * PIECE_BYTES + off).saturating_sub(2))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn writes_act_as_on_a_vector(writes in proptest::collection::vec((place(), place(), any::<u8>(), any::<bool>()), 1..8)) {
            let mut memory = Memory::default();
            let mut model: Vec<u8> = Vec::new();
            for (at, len, byte, append) in writes {
                let data = vec![byte; len + 1];
                let at = if append { model.len() } else { at };
                patch(&mut memory, at, &data);
                overwrite(&mut model, at, &data);
                prop_assert!(stored(&mut memory, b"k") == model);
            }
            let (from, to) = (model.len() / 3, model.len() / 2);
            let cut = |tx: &mut Tx<'_>| {
                let row = tx.row(key(tx))?.expect("it was just written");
                read_range(tx, key(tx), &row, from as u64..to as u64)
            };
            prop_assert!(memory.run(scope(), cut).0.unwrap() == model[from..to]);
        }
    }
}

//! Items one behind the other after their number: a chunk of a long list, and the whole of a short one.
//!
//! Layout: store/FORMAT.md, "Small collections" and "Elements of collections". Items here are texts behind
//! their lengths; what a text means, an item itself or a stored value, is known only to `Item`.

use super::End;
use crate::error::Stop;
use crate::store::row::Version;
use crate::store::tx::{KeyRef, Tx};
use crate::types::packed::{Packed, damaged, put_number, put_text};
use crate::types::value::Stored;
use bytes::Bytes;
use std::ops::Range;

/// A chunk has no more, and no more bytes unless it has but one item: a push writes its chunk anew.
pub const CHUNK_MAX_ITEMS: u64 = 128;
pub const CHUNK_MAX_BYTES: usize = 3 * 512;
/// What the number before so many items takes at most.
const NUMBER_MAX_BYTES: usize = 2;

#[derive(Clone, Debug)]
pub struct Chunk {
    pub count: u64,
    bytes: Bytes,
    /// Where the first item begins, behind the number.
    start: usize,
    /// Its items are fewer than those of the stored chunk it was read from.
    cut_off: bool,
}

/// Items that are to come into a chunk, with their lengths.
#[derive(Debug, Default)]
pub struct Gathered {
    pub count: u64,
    pub bytes: Vec<u8>,
}

impl Gathered {
    /// One item without its length.
    pub fn text(text: &[u8]) -> Gathered {
        let mut one = Gathered::default();
        one.add_text(End::Tail, text);
        one
    }

    /// One item behind its length.
    pub fn one(item: Vec<u8>) -> Gathered {
        Gathered { count: 1, bytes: item }
    }

    /// An item without its length comes at one end.
    pub fn add_text(&mut self, end: End, text: &[u8]) {
        let mut item = Vec::with_capacity(text.len() + 3);
        put_text(&mut item, text);
        self.add(end, &item);
    }

    /// An item behind its length comes at one end.
    pub fn add(&mut self, end: End, item: &[u8]) {
        self.count += 1;
        match end {
            End::Head => drop(self.bytes.splice(0..0, item.iter().copied())),
            End::Tail => self.bytes.extend_from_slice(item),
        }
    }
}

impl Chunk {
    pub fn empty() -> Chunk {
        Chunk { count: 0, bytes: Bytes::from_static(&[0]), start: 1, cut_off: false }
    }

    pub fn decode(bytes: Bytes) -> Result<Chunk, Stop> {
        let mut packed = Packed(&bytes);
        let count = packed.number()?;
        let start = bytes.len() - packed.0.len();
        Ok(Chunk { count, bytes, start, cut_off: false })
    }

    /// Only `count` of its items, the ones away from `end`.
    pub fn without_end(mut self, end: End, count: u64) -> Result<Chunk, Stop> {
        let gone = self.count.checked_sub(count).ok_or_else(damaged)?;
        if gone == 0 {
            return Ok(self);
        }
        match end {
            End::Head => self.start = self.offset(gone)?,
            End::Tail => self.bytes.truncate(self.offset(count)?),
        }
        Ok(Chunk { count, cut_off: true, ..self })
    }

    /// What is stored has items that this one has not.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Number of items in a stored chunk.
    pub fn count_of(bytes: &[u8]) -> Result<u64, Stop> {
        Packed(bytes).number()
    }

    /// As it is to be stored.
    pub fn bytes(&self) -> &Bytes {
        assert!(!self.cut_off, "what has lost items is stored spliced");
        &self.bytes
    }

    /// Bytes of its items.
    pub fn items_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Some of the texts, in their order.
    pub fn texts(&self, range: Range<u64>) -> Result<impl Iterator<Item = Result<&[u8], Stop>>, Stop> {
        let mut packed = Packed(&self.bytes[self.offset(range.start)?..]);
        Ok(range.map(move |_| packed.text()))
    }

    pub fn text(&self, index: u64) -> Result<&[u8], Stop> {
        Packed(&self.bytes[self.offset(index)?..]).text()
    }

    /// The same bytes, sharing the chunk's memory; `part` lies in it.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// The items of `range` give way to others.
    pub fn splice(&self, range: Range<u64>, by: &Gathered) -> Result<Chunk, Stop> {
        let count = self.count - (range.end - range.start) + by.count;
        let from = self.offset(range.start)?;
        let to = if range.is_empty() { from } else { self.offset(range.end)? };
        let mut bytes = Vec::with_capacity(NUMBER_MAX_BYTES + self.items_bytes() + by.bytes.len());
        put_number(&mut bytes, count);
        let start = bytes.len();
        bytes.extend_from_slice(&self.bytes[self.start..from]);
        bytes.extend_from_slice(&by.bytes);
        bytes.extend_from_slice(&self.bytes[to..]);
        Ok(Chunk { count, bytes: bytes.into(), start, cut_off: false })
    }

    /// All items but those at `indexes`, which ascend.
    pub fn without(&self, indexes: &[u64]) -> Result<Chunk, Stop> {
        let (mut left, mut gone) = (Gathered::default(), indexes.iter().peekable());
        for (index, text) in (0..self.count).zip(self.texts(0..self.count)?) {
            let text = text?;
            if gone.next_if_eq(&&index).is_none() {
                left.count += 1;
                put_text(&mut left.bytes, text);
            }
        }
        Chunk::empty().splice(0..0, &left)
    }

    /// Whether items of so many bytes may come into it.
    pub fn takes(&self, fresh: &Gathered, item: &[u8]) -> bool {
        let count = self.count + fresh.count;
        let bytes = NUMBER_MAX_BYTES + self.items_bytes() + fresh.bytes.len() + item.len();
        count == 0 || count < CHUNK_MAX_ITEMS && bytes <= CHUNK_MAX_BYTES
    }

    /// Whether it may be stored as it is.
    pub fn fits(&self) -> bool {
        self.count <= 1 || self.count <= CHUNK_MAX_ITEMS && self.bytes().len() <= CHUNK_MAX_BYTES
    }

    /// The same items in chunks none of which is too large: halves of halves, so that each has room again.
    pub fn cut(self) -> Result<Vec<Chunk>, Stop> {
        let (mut whole, mut parts) = (vec![self], Vec::new());
        while let Some(chunk) = whole.pop() {
            if chunk.fits() {
                parts.push(chunk);
                continue;
            }
            let mut packed = Packed(&chunk.bytes[chunk.start..]);
            let half = packed.0.len() / 2;
            let mut head = 0;
            while packed.0.len() > half {
                packed.text()?;
                head += 1;
            }
            let head = head.clamp(1, chunk.count - 1);
            whole.push(chunk.splice(0..head, &Gathered::default())?);
            whole.push(chunk.splice(head..chunk.count, &Gathered::default())?);
        }
        Ok(parts)
    }

    /// Where an item begins; the end of the last one for the number of items.
    fn offset(&self, index: u64) -> Result<usize, Stop> {
        if index >= self.count {
            return if index == self.count { Ok(self.bytes.len()) } else { Err(damaged()) };
        }
        let mut packed = Packed(&self.bytes[self.start..]);
        for _ in 0..index {
            packed.text()?;
        }
        Ok(self.bytes.len() - packed.0.len())
    }
}

/// Where the values stand of a list that is not in its row.
pub type Home<'k> = Option<(KeyRef<'k>, Version)>;

/// An item as a walk meets it: one of more than 64 KiB has not been read yet.
#[derive(Clone, Copy)]
pub struct Item<'c> {
    chunk: &'c Chunk,
    text: &'c [u8],
    home: Home<'c>,
}

impl<'c> Item<'c> {
    pub fn new(chunk: &'c Chunk, text: &'c [u8], home: Home<'c>) -> Item<'c> {
        Item { chunk, text, home }
    }

    pub fn read(&self, tx: &mut Tx<'_>) -> Result<Bytes, Stop> {
        let Some((key, version)) = self.home else { return Ok(self.chunk.share(self.text)) };
        let stored = Stored::decode(self.text)?;
        match stored.here() {
            Some(item) => Ok(self.chunk.share(item)),
            None => stored.read(tx, key, Some(version)),
        }
    }

    pub fn is(&self, tx: &mut Tx<'_>, other: &[u8]) -> Result<bool, Stop> {
        let Some((key, version)) = self.home else { return Ok(self.text == other) };
        let stored = Stored::decode(self.text)?;
        Ok(match stored.here() {
            Some(item) => item == other,
            None => stored.len() == other.len() as u64 && stored.read(tx, key, Some(version))? == other,
        })
    }

    /// Deletes what the item has beside its chunk, which is about to lose it.
    pub fn forget(&self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        let Some((key, version)) = self.home else { return Ok(()) };
        Stored::decode(self.text)?.forget(tx, key, Some(version))
    }
}

/// Which items of a chunk are the same as `other`: the first `most` of them as seen from an end, ascending.
pub fn hits(
    tx: &mut Tx<'_>,
    chunk: &Chunk,
    home: Home<'_>,
    other: &[u8],
    from: End,
    most: u64,
) -> Result<Vec<u64>, Stop> {
    let mut hits = Vec::new();
    for (index, text) in (0..).zip(chunk.texts(0..chunk.count)?) {
        if Item::new(chunk, text?, home).is(tx, other)? {
            hits.push(index);
            if from == End::Head && hits.len() as u64 == most {
                break;
            }
        }
    }
    let surplus = (hits.len() as u64).saturating_sub(most);
    hits.drain(..surplus as usize);
    Ok(hits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gathered(items: &[Vec<u8>]) -> Gathered {
        let mut gathered = Gathered::default();
        for item in items {
            gathered.add_text(End::Tail, item);
        }
        gathered
    }

    fn read(chunk: &Chunk) -> Vec<Vec<u8>> {
        let stored = Chunk::decode(chunk.bytes().clone()).unwrap();
        assert_eq!(stored.count, chunk.count);
        stored.texts(0..stored.count).unwrap().map(|text| text.unwrap().to_vec()).collect()
    }

    proptest! {
        #[test]
        fn splices_act_as_on_a_vector(
            mut model in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..200),
            by in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..90),
            from: usize,
            to: usize,
        ) {
            let chunk = Chunk::empty().splice(0..0, &gathered(&model)).unwrap();
            prop_assert_eq!(&read(&chunk), &model);
            let (from, to) = (from % (model.len() + 1), to % (model.len() + 1));
            let (from, to) = (from.min(to), from.max(to));
            let chunk = chunk.splice(from as u64..to as u64, &gathered(&by)).unwrap();
            model.splice(from..to, by);
            prop_assert_eq!(&read(&chunk), &model);
            let odd: Vec<u64> = (0..model.len() as u64).filter(|index| index % 3 == 1).collect();
            let left: Vec<_> = model.iter().enumerate().filter(|(at, _)| at % 3 != 1).map(|(_, item)| item.clone()).collect();
            prop_assert_eq!(read(&chunk.without(&odd).unwrap()), left);
            let parts = chunk.cut().unwrap();
            prop_assert!(parts.iter().all(Chunk::fits));
            prop_assert_eq!(parts.iter().flat_map(read).collect::<Vec<_>>(), model);
        }

        #[test]
        fn any_bytes_are_a_chunk_or_refused(bytes: Vec<u8>, index: u64) {
            if let Ok(chunk) = Chunk::decode(bytes.into()) {
                let _ = (chunk.text(index), chunk.splice(0..chunk.count, &Gathered::default()));
                let _ = (chunk.without(&[0]), chunk.cut());
            }
        }
    }
}

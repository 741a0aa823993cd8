//! Lists: in their row while short, in chunks once long.
//!
//! A push, a pop, and what stands at the ends cost one chunk; any other item is found in time that hardly
//! grows with the list. Layout: store/FORMAT.md, "Lists". Knows no command and no reply.

use super::map::{INLINE_MAX, INLINE_MAX_BYTES};
use crate::error::Stop;
use crate::store::row::{Body, Extra, Kind, Row};
use crate::store::tx::{KeyRef, Tx};
use bytes::Bytes;
use chunk::{Chunk, Gathered, Item, hits};
use long::Long;
use std::ops::Range;

mod chunk;
mod long;
mod walk;

/// Redis's name for how it holds a list, as OBJECT ENCODING answers it: always the same one in 7.0.
pub fn encoding(_: &Row) -> &'static str {
    "quicklist"
}

/// One of the two ends of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Head,
    Tail,
}

/// A key's list while a command works with it.
pub struct List<'k> {
    key: KeyRef<'k>,
    /// As it was; the body is out of date.
    row: Row,
    held: Held<'k>,
    existed: bool,
    changed: bool,
}

enum Held<'k> {
    Short(Chunk),
    Long(Long<'k>),
}

/// Which of the items that are alike are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    pub from: End,
    /// Matches passed over.
    pub skip: u64,
    /// Matches answered, at most.
    pub matches: u64,
    /// Items looked at, at most.
    pub items: u64,
}

impl<'k> List<'k> {
    pub fn load(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Option<List<'k>>, Stop> {
        let Some(row) = tx.row_of(key, Kind::List)? else { return Ok(None) };
        let held = match &row.body {
            Body::Inline(bytes) => Held::Short(Chunk::decode(bytes.clone())?),
            Body::Elements { version, count, extra: Extra::List(ends) } => {
                Held::Long(Long { key, version: *version, count: *count, ends: *ends })
            }
            _ => return Err(crate::types::packed::damaged()),
        };
        Ok(Some(List { key, row, held, existed: true, changed: false }))
    }

    /// An empty list for a key that has nothing.
    pub fn new(key: KeyRef<'k>) -> List<'k> {
        let row = Row::new(Kind::List, Body::Inline(Bytes::new()));
        List { key, row, held: Held::Short(Chunk::empty()), existed: false, changed: false }
    }

    pub fn load_or_new(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<List<'k>, Stop> {
        Ok(List::load(tx, key)?.unwrap_or_else(|| List::new(key)))
    }

    /// A whole new list in place of whatever the key has; answers its length. Without items the key goes.
    pub fn replace<'i>(
        tx: &mut Tx<'_>,
        key: KeyRef<'_>,
        items: impl Iterator<Item = &'i [u8]>,
    ) -> Result<u64, Stop> {
        let existed = tx.row(key)?.is_some();
        let mut list = List { existed, changed: true, ..List::new(key) };
        list.push(tx, End::Tail, &items.collect::<Vec<_>>())?;
        let len = list.len();
        list.save(tx);
        Ok(len)
    }

    /// Puts the row if anything has changed; an empty list is deleted.
    pub fn save(mut self, tx: &mut Tx<'_>) {
        if !self.changed {
            return;
        }
        let empty = self.is_empty();
        self.row.body = match self.held {
            Held::Short(chunk) => Body::Inline(chunk.bytes().clone()),
            Held::Long(Long { version, count, ends, .. }) => {
                Body::Elements { version, count, extra: Extra::List(ends) }
            }
        };
        tx.put_unless_empty(self.key, self.row, self.existed, empty);
    }

    pub fn len(&self) -> u64 {
        match &self.held {
            Held::Short(chunk) => chunk.count,
            Held::Long(long) => long.count,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items come at an end, one after another: the last of `items` is then the outermost.
    pub fn push(&mut self, tx: &mut Tx<'_>, end: End, items: &[&[u8]]) -> Result<(), Stop> {
        self.changed = true;
        if self.is_empty() {
            self.held = Held::Short(Chunk::empty());
        }
        match &mut self.held {
            Held::Long(long) => long.push(tx, end, &mut items.iter().copied()),
            Held::Short(chunk) => {
                let chunk = chunk.clone();
                self.push_short(tx, &chunk, end, items)
            }
        }
    }

    fn push_short(&mut self, tx: &mut Tx<'_>, chunk: &Chunk, end: End, items: &[&[u8]]) -> Result<(), Stop> {
        let count = chunk.count + items.len() as u64;
        let bytes: usize = items.iter().map(|item| item.len()).sum();
        if count > INLINE_MAX || chunk.bytes().len() + bytes > INLINE_MAX_BYTES {
            let old = chunk.texts(0..chunk.count)?.collect::<Result<Vec<_>, _>>()?;
            let (old, new) = (old.into_iter(), items.iter().copied());
            self.held = Held::Long(match end {
                End::Head => Long::create(tx, self.key, &mut new.rev().chain(old))?,
                End::Tail => Long::create(tx, self.key, &mut old.chain(new))?,
            });
            return Ok(());
        }
        let mut fresh = Gathered::default();
        items.iter().for_each(|item| fresh.add_text(end, item));
        let at = match end {
            End::Head => 0,
            End::Tail => chunk.count,
        };
        let chunk = chunk.splice(at..at, &fresh)?;
        self.settle(tx, chunk)
    }

    /// A short list has become `chunk`, which may be too much for a row.
    fn settle(&mut self, tx: &mut Tx<'_>, chunk: Chunk) -> Result<(), Stop> {
        self.held = if chunk.count > INLINE_MAX || chunk.bytes().len() > INLINE_MAX_BYTES {
            let items = chunk.texts(0..chunk.count)?.collect::<Result<Vec<_>, _>>()?;
            Held::Long(Long::create(tx, self.key, &mut items.into_iter())?)
        } else {
            Held::Short(chunk)
        };
        Ok(())
    }

    /// Takes up to `count` items off an end and answers them in that order.
    pub fn pop(&mut self, tx: &mut Tx<'_>, end: End, count: u64) -> Result<Vec<Bytes>, Stop> {
        let mut items = Vec::new();
        self.take(tx, end, count, Some(&mut items))?;
        Ok(items)
    }

    /// Leaves only these items.
    pub fn trim(&mut self, tx: &mut Tx<'_>, keep: Range<u64>) -> Result<(), Stop> {
        let (len, keep) = (self.len(), keep.start.min(self.len())..keep.end.min(self.len()));
        if keep.is_empty() {
            self.clear();
            return Ok(());
        }
        self.take(tx, End::Tail, len - keep.end, None)?;
        self.take(tx, End::Head, keep.start, None)
    }

    /// What elements the list has are garbage once its row is gone.
    fn clear(&mut self) {
        self.changed |= !self.is_empty();
        self.held = Held::Short(Chunk::empty());
    }

    fn take(
        &mut self,
        tx: &mut Tx<'_>,
        end: End,
        count: u64,
        out: Option<&mut Vec<Bytes>>,
    ) -> Result<(), Stop> {
        let len = self.len();
        let count = count.min(len);
        if count == 0 {
            return Ok(());
        }
        self.changed = true;
        match &mut self.held {
            Held::Long(long) if count == len && !long.alone() => {
                if let Some(out) = out {
                    self.visit(tx, edge(end, len), end == End::Tail, &mut |tx, item| {
                        out.push(item.read(tx)?);
                        Ok(true)
                    })?;
                }
                self.clear();
            }
            Held::Long(long) => long.take(tx, end, count, out)?,
            Held::Short(chunk) => {
                let range = match end {
                    End::Head => 0..count,
                    End::Tail => len - count..len,
                };
                if let Some(out) = out {
                    for text in chunk.texts(range.clone())? {
                        out.push(chunk.share(text?));
                    }
                    if end == End::Tail {
                        out.reverse();
                    }
                }
                *chunk = chunk.splice(range, &Gathered::default())?;
            }
        }
        Ok(())
    }

    /// Item number `index`, if it is there.
    pub fn get(&self, tx: &mut Tx<'_>, index: u64) -> Result<Option<Bytes>, Stop> {
        Ok(self.range(tx, index..index.saturating_add(1))?.pop())
    }

    /// Those of these items that are there.
    pub fn range(&self, tx: &mut Tx<'_>, range: Range<u64>) -> Result<Vec<Bytes>, Stop> {
        let range = range.start..range.end.min(self.len());
        let want = range.end.saturating_sub(range.start);
        let mut items = Vec::with_capacity(want.min(1024) as usize);
        self.visit_range(tx, range, &mut |tx, item| {
            items.push(item.read(tx)?);
            Ok(true)
        })?;
        Ok(items)
    }

    /// Shows the items of these numbers, until `see` answers false.
    pub fn visit_range(
        &self,
        tx: &mut Tx<'_>,
        range: Range<u64>,
        see: &mut walk::See<'_>,
    ) -> Result<(), Stop> {
        let want = range.end.saturating_sub(range.start);
        self.visit_some(tx, range.start, false, want, see)
    }

    /// Shows items from number `index` on, in either direction, until `see` answers false.
    pub fn visit(
        &self,
        tx: &mut Tx<'_>,
        index: u64,
        backward: bool,
        see: &mut walk::See<'_>,
    ) -> Result<(), Stop> {
        self.visit_some(tx, index, backward, u64::MAX, see)
    }

    fn visit_some(
        &self,
        tx: &mut Tx<'_>,
        index: u64,
        backward: bool,
        want: u64,
        see: &mut walk::See<'_>,
    ) -> Result<(), Stop> {
        if index >= self.len() || want == 0 {
            return Ok(());
        }
        let chunk = match &self.held {
            Held::Long(long) => return long.visit(tx, index, backward, want, see),
            Held::Short(chunk) => chunk,
        };
        let range = match backward {
            true => 0..index + 1,
            false => index..chunk.count.min(index.saturating_add(want)),
        };
        let mut texts = chunk.texts(range)?.collect::<Result<Vec<_>, _>>()?;
        if backward {
            texts.reverse();
        }
        for text in texts {
            if !see(tx, Item::new(chunk, text, None))? {
                break;
            }
        }
        Ok(())
    }

    /// Item number `index` becomes another; false if there is no such item.
    pub fn set(&mut self, tx: &mut Tx<'_>, index: u64, item: &[u8]) -> Result<bool, Stop> {
        if index >= self.len() {
            return Ok(false);
        }
        self.changed = true;
        match &mut self.held {
            Held::Long(long) => long.set(tx, index, item)?,
            Held::Short(chunk) => {
                let chunk = chunk.splice(index..index + 1, &Gathered::text(item))?;
                self.settle(tx, chunk)?;
            }
        }
        Ok(true)
    }

    /// A new item before or behind the first one that is `pivot`; false if there is none.
    pub fn insert(&mut self, tx: &mut Tx<'_>, pivot: &[u8], behind: bool, item: &[u8]) -> Result<bool, Stop> {
        let inserted = match &mut self.held {
            Held::Long(long) => long.insert(tx, pivot, behind, item)?,
            Held::Short(chunk) => match hits(tx, chunk, None, pivot, End::Head, 1)?[..] {
                [at] => {
                    let at = at + u64::from(behind);
                    let chunk = chunk.splice(at..at, &Gathered::text(item))?;
                    self.settle(tx, chunk)?;
                    true
                }
                _ => false,
            },
        };
        self.changed |= inserted;
        Ok(inserted)
    }

    /// Removes items that are `item`, the first `most` from an end on; answers how many there were.
    pub fn remove(&mut self, tx: &mut Tx<'_>, item: &[u8], from: End, most: u64) -> Result<u64, Stop> {
        let removed = match &mut self.held {
            Held::Long(long) => long.remove(tx, item, from, most)?,
            Held::Short(chunk) => {
                let gone = hits(tx, chunk, None, item, from, most)?;
                *chunk = chunk.without(&gone)?;
                gone.len() as u64
            }
        };
        self.changed |= removed > 0;
        Ok(removed)
    }

    /// Where items stand that are `item`, in the order in which they are found.
    pub fn positions(&self, tx: &mut Tx<'_>, item: &[u8], search: Search) -> Result<Vec<u64>, Stop> {
        let Search { from, mut skip, matches, items } = search;
        let (len, backward) = (self.len(), from == End::Tail);
        let (mut found, mut seen) = (Vec::new(), 0);
        self.visit_some(tx, edge(from, len), backward, items, &mut |tx, other| {
            let index = if backward { len - 1 - seen } else { seen };
            seen += 1;
            if other.is(tx, item)? {
                if skip == 0 {
                    found.push(index);
                }
                skip = skip.saturating_sub(1);
            }
            Ok((found.len() as u64) < matches && seen < items)
        })?;
        Ok(found)
    }
}

/// Number of the item at an end of a list; 0 if it is empty.
fn edge(end: End, len: u64) -> u64 {
    match end {
        End::Head => 0,
        End::Tail => len.saturating_sub(1),
    }
}

#[cfg(test)]
mod tests;

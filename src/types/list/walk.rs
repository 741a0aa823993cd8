//! Where an item of a long list stands, and its chunks one after another from there.

use super::chunk::{Chunk, Item};
use super::long::{Long, order_of, steps, subs};
use crate::error::Stop;
use crate::store::row::ListEnds;
use crate::store::tx::Tx;
use crate::types::packed::damaged;
use bytes::Bytes;

/// Items that are sooner counted from an end than looked for in the buckets.
const NEAR_ITEMS: u64 = 256;
/// Chunks read at once, at most.
const AHEAD_MAX: usize = 64;

/// Chunks on the way. What is changed meanwhile behind it, or at the chunk it has shown last, is no matter.
pub struct Walk {
    backward: bool,
    /// Read, the next one last.
    ready: Vec<Placed>,
    /// Where to go on.
    next: Option<u64>,
    /// Items still to be read, as far as that is known.
    want: u64,
    ahead: usize,
}

type Placed = (u64, Chunk);

impl Walk {
    pub fn next(&mut self, tx: &mut Tx<'_>, list: &Long<'_>) -> Result<Option<Placed>, Stop> {
        if self.ready.is_empty() {
            self.read(tx, list, 0)?;
        }
        Ok(self.ready.pop())
    }

    /// Reads ahead; answers what is left of `skip` in the first chunk.
    fn read(&mut self, tx: &mut Tx<'_>, list: &Long<'_>, skip: u64) -> Result<u64, Stop> {
        let Some(from) = self.next else { return Ok(skip) };
        let (mut chunks, skip) = list.read(tx, from, self.backward, skip, self.want, self.ahead)?;
        let items: u64 = chunks.iter().map(|(_, chunk)| chunk.count).sum();
        if self.want < u64::MAX {
            self.want = self.want.saturating_sub(items.saturating_sub(skip));
        }
        let end = if self.backward { list.ends.first } else { list.ends.last };
        self.next = match chunks.last() {
            Some((order, _)) if *order != end && self.backward => order.checked_sub(1),
            Some((order, _)) if *order != end => order.checked_add(1),
            _ => None,
        };
        self.ahead = (self.ahead * 4).min(AHEAD_MAX);
        let bytes = chunks.iter().map(|(_, chunk)| chunk.items_bytes()).sum();
        tx.spend(steps(items, bytes))?;
        chunks.reverse();
        self.ready = chunks;
        Ok(skip)
    }
}

/// Is shown items until it answers false.
pub type See<'v> = dyn FnMut(&mut Tx<'_>, Item<'_>) -> Result<bool, Stop> + 'v;

impl Long<'_> {
    /// The chunks from item number `index` on, which is there, and where it stands in the first of them. `want`:
    /// items that will be looked at, u64::MAX if nobody knows.
    pub fn walk(&self, tx: &mut Tx<'_>, index: u64, backward: bool, want: u64) -> Result<(Walk, u64), Stop> {
        let behind = self.count - 1 - index;
        let (from, skip) = if !backward {
            self.locate(tx, index)?
        } else if behind < self.last_items() + NEAR_ITEMS {
            (self.ends.last, behind)
        } else {
            let (from, skip) = self.locate(tx, index)?;
            let (chunks, skip) = self.read(tx, from, false, skip, 1, 1)?;
            let (order, chunk) = chunks.first().ok_or_else(damaged)?;
            (*order, place_in(chunk, true, skip)?)
        };
        let ahead = if want == u64::MAX { 1 } else { AHEAD_MAX };
        let mut walk = Walk { backward, ready: Vec::new(), next: Some(from), want, ahead };
        let skip = walk.read(tx, self, skip)?;
        let (_, chunk) = walk.ready.last().ok_or_else(damaged)?;
        let at = place_in(chunk, backward, skip)?;
        Ok((walk, at))
    }

    /// Items from number `index` on.
    pub fn visit(
        &self,
        tx: &mut Tx<'_>,
        index: u64,
        backward: bool,
        want: u64,
        see: &mut See<'_>,
    ) -> Result<(), Stop> {
        let (mut walk, at) = self.walk(tx, index, backward, want)?;
        let (mut at, mut left) = (Some(at), want);
        while let Some((_, chunk)) = walk.next(tx, self)? {
            let range = match at.take() {
                Some(at) if backward => 0..at + 1,
                Some(at) => at..chunk.count,
                None => 0..chunk.count,
            };
            let mut show = |tx: &mut Tx<'_>, text| {
                left -= 1;
                Ok::<_, Stop>(see(tx, Item::new(&chunk, text, self.home()))? && left > 0)
            };
            if backward {
                let texts = chunk.texts(range)?.collect::<Result<Vec<_>, _>>()?;
                for text in texts.into_iter().rev() {
                    if !show(tx, text)? {
                        return Ok(());
                    }
                }
            } else {
                for text in chunk.texts(range)? {
                    if !show(tx, text?)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn last_items(&self) -> u64 {
        if self.ends.first == self.ends.last { self.ends.first_items } else { self.ends.last_items }
    }

    /// An order, and how many items stand between the first chunk there or behind it and an item.
    fn locate(&self, tx: &mut Tx<'_>, index: u64) -> Result<(u64, u64), Stop> {
        let ListEnds { first, last, first_items, .. } = self.ends;
        if index < first_items + NEAR_ITEMS {
            return Ok((first, index));
        }
        let (behind, last_items) = (self.count - 1 - index, self.last_items());
        if behind < last_items {
            return Ok((last, last_items - 1 - behind));
        }
        if behind < last_items + NEAR_ITEMS {
            let (chunks, skip) = self.read(tx, last, true, behind, 1, 1)?;
            let (order, chunk) = chunks.first().ok_or_else(damaged)?;
            return Ok((*order, place_in(chunk, true, skip)?));
        }
        let rank = index.checked_sub(first_items).ok_or_else(damaged)?;
        let found = self.buckets().find(tx, rank)?;
        let place = match found.place[..] {
            [] => 0,
            ref place => place.try_into().map(u64::from_be_bytes).map_err(|_| damaged())?,
        };
        Ok((place.max(first + 1), rank - found.before))
    }

    /// Chunks from an order on: those that `skip` passes over are left out, the others read until they have
    /// `want` items or are `most`. Answers what is left of `skip` in the first of them.
    fn read(
        &self,
        tx: &mut Tx<'_>,
        from: u64,
        backward: bool,
        mut skip: u64,
        want: u64,
        most: usize,
    ) -> Result<(Vec<Placed>, u64), Stop> {
        let end_items = match from {
            order if order == self.ends.first => self.ends.first_items,
            order if order == self.ends.last => self.ends.last_items,
            _ => 0,
        };
        if skip < end_items && end_items - skip >= want {
            return Ok((vec![(from, self.chunk(tx, from)?)], skip));
        }
        let (mut chunks, mut items) = (Vec::new(), 0);
        tx.scan(self.key, self.version, &subs(from, backward), &mut |sub, value| {
            let order = order_of(sub)?;
            let count = self.items(order, value)?;
            if chunks.is_empty() && skip >= count {
                skip -= count;
                return Ok(true);
            }
            items += if chunks.is_empty() { count - skip } else { count };
            chunks.push((order, self.decode(order, Bytes::copy_from_slice(value))?));
            Ok(items < want && chunks.len() < most)
        })?;
        Ok((chunks, skip))
    }
}

/// Where an item stands in a chunk that `skip` items of are passed over.
fn place_in(chunk: &Chunk, backward: bool, skip: u64) -> Result<u64, Stop> {
    if skip >= chunk.count {
        return Err(damaged());
    }
    Ok(if backward { chunk.count - 1 - skip } else { skip })
}

//! A list in chunks: the two at its ends open, all between them counted in buckets.
//!
//! A push writes one chunk at an end, a pop only the number of items that an end still has; only a chunk that
//! becomes an end, or is one no more, leaves the buckets or enters them. Layout: store/FORMAT.md, "Lists". Knows
//! nothing of rows.

use super::End;
use super::chunk::{Chunk, Gathered, Home, Item, hits};
use crate::error::Stop;
use crate::store::row::{ListEnds, Version};
use crate::store::tx::{KeyRef, Sub, Subs, Tx};
use crate::types::counted::Counted;
use crate::types::packed::{damaged, put_text};
use crate::types::value::{self, Place, VALUE_INLINE_MAX_BYTES};
use bytes::Bytes;
use std::ops::Range;

const TAG: u8 = 1;
const TAG_BUCKET: u8 = 3;
/// Where the first chunk of a list stands, and how far apart those stand that come at an end: half of it can
/// be halved twenty times by chunks that come between.
const ORDER_START: u64 = 1 << 63;
const ORDER_GAP: u64 = 1 << 20;

/// A list that is not empty, or one that has just become so.
#[derive(Clone, Copy, Debug)]
pub struct Long<'k> {
    pub key: KeyRef<'k>,
    pub version: Version,
    pub count: u64,
    pub ends: ListEnds,
}

/// Where the chunk of an order stands.
pub(super) fn sub(order: u64) -> Sub {
    let mut sub = Sub::from_slice(&[TAG]);
    sub.extend_from_slice(&order.to_be_bytes());
    sub
}

/// Every chunk from an order on.
pub(super) fn subs(from: u64, backward: bool) -> Subs {
    let from = sub(from);
    if backward {
        let mut behind = from;
        behind.push(0);
        Subs::new(&[TAG], &behind).backward()
    } else {
        Subs::new(&from, &[TAG + 1])
    }
}

pub(super) fn order_of(sub: &[u8]) -> Result<u64, Stop> {
    sub.get(1..).and_then(|order| order.try_into().ok()).map(u64::from_be_bytes).ok_or_else(damaged)
}

/// What it costs to look at so many items, and to copy so many bytes: as for long strings.
pub(super) fn steps(items: u64, bytes: usize) -> u32 {
    const ITEMS_PER_STEP: u64 = 8;
    const BYTES_PER_STEP: usize = 512;
    let steps = items / ITEMS_PER_STEP + (bytes / BYTES_PER_STEP) as u64;
    u32::try_from(steps).unwrap_or(u32::MAX)
}

impl<'k> Long<'k> {
    /// A list of these items, of which there is at least one, under a new version.
    pub fn create<'i>(
        tx: &mut Tx<'_>,
        key: KeyRef<'k>,
        items: &mut dyn Iterator<Item = &'i [u8]>,
    ) -> Result<Long<'k>, Stop> {
        let ends = ListEnds { first: ORDER_START, last: ORDER_START, ..ListEnds::default() };
        let mut list = Long { key, version: tx.new_version(key)?, count: 0, ends };
        list.fill(tx, End::Tail, Chunk::empty(), items)?;
        Ok(list)
    }

    pub fn home(&self) -> Home<'k> {
        Some((self.key, self.version))
    }

    pub(super) fn buckets(&self) -> Counted<'k> {
        let ListEnds { first, last, .. } = self.ends;
        Counted::new(self.key, self.version, TAG, Chunk::count_of)
            .between(&first.to_be_bytes(), &last.to_be_bytes())
    }

    pub(super) fn chunk(&self, tx: &mut Tx<'_>, order: u64) -> Result<Chunk, Stop> {
        let stored = tx.element(self.key, self.version, &sub(order))?.ok_or_else(damaged)?;
        self.decode(order, stored)
    }

    /// A stored chunk without what was popped off it.
    pub(super) fn decode(&self, order: u64, stored: Bytes) -> Result<Chunk, Stop> {
        let chunk = Chunk::decode(stored)?;
        match order {
            _ if order == self.ends.first => chunk.without_end(End::Head, self.ends.first_items),
            _ if order == self.ends.last => chunk.without_end(End::Tail, self.ends.last_items),
            _ => Ok(chunk),
        }
    }

    /// Number of items of a stored chunk that were not popped off it.
    pub(super) fn items(&self, order: u64, stored: &[u8]) -> Result<u64, Stop> {
        match order {
            _ if order == self.ends.first => Ok(self.ends.first_items),
            _ if order == self.ends.last => Ok(self.ends.last_items),
            _ => Chunk::count_of(stored),
        }
    }

    fn put(&self, tx: &mut Tx<'_>, order: u64, chunk: Option<&Chunk>) {
        tx.put_element(self.key, self.version, &sub(order), chunk.map(|chunk| chunk.bytes().clone()));
    }

    fn order(&self, end: End) -> u64 {
        match end {
            End::Head => self.ends.first,
            End::Tail => self.ends.last,
        }
    }

    /// Whether it has but one chunk.
    pub fn alone(&self) -> bool {
        self.ends.first == self.ends.last
    }

    /// Items in chunks that are counted in the buckets.
    fn between(&self) -> u64 {
        self.count.saturating_sub(self.ends.first_items + self.ends.last_items)
    }

    /// Says how many items a chunk at an end has now; that of a list of one chunk is its first.
    fn set_items(&mut self, order: u64, items: u64) {
        if order == self.ends.first {
            self.ends.first_items = items;
        } else {
            self.ends.last_items = items;
        }
    }

    /// An item as it stands in a chunk; the pieces of a long one are put.
    fn encode(&mut self, tx: &mut Tx<'_>, item: &[u8], out: &mut Vec<u8>) -> Result<(), Stop> {
        let mut place = Place { key: self.key, version: self.version, next_piece: &mut self.ends.next_piece };
        let mut stored = Vec::with_capacity(item.len().min(VALUE_INLINE_MAX_BYTES) + 1);
        value::encode(tx, &mut place, item, None, &mut stored)?;
        put_text(out, &stored);
        Ok(())
    }

    pub fn push(
        &mut self,
        tx: &mut Tx<'_>,
        end: End,
        items: &mut dyn Iterator<Item = &[u8]>,
    ) -> Result<(), Stop> {
        let chunk = self.chunk(tx, self.order(end))?;
        self.fill(tx, end, chunk, items)
    }

    /// Items come at an end whose chunk is `chunk`; what is full is put, and a new end begun.
    fn fill(
        &mut self,
        tx: &mut Tx<'_>,
        end: End,
        mut chunk: Chunk,
        items: &mut dyn Iterator<Item = &[u8]>,
    ) -> Result<(), Stop> {
        let (mut fresh, mut text) = (Gathered::default(), Vec::new());
        for item in items {
            text.clear();
            self.encode(tx, item, &mut text)?;
            if !chunk.takes(&fresh, &text) {
                self.put_joined(tx, end, &chunk, &fresh)?;
                self.begin(tx, end)?;
                (chunk, fresh) = (Chunk::empty(), Gathered::default());
            }
            fresh.add(end, &text);
            self.count += 1;
        }
        self.put_joined(tx, end, &chunk, &fresh)
    }

    fn put_joined(&mut self, tx: &mut Tx<'_>, end: End, chunk: &Chunk, fresh: &Gathered) -> Result<(), Stop> {
        // A chunk is stored without what was popped off it before it is an end no more.
        if fresh.count == 0 && !chunk.is_cut_off() {
            return Ok(());
        }
        let at = match end {
            End::Head => 0,
            End::Tail => chunk.count,
        };
        let joined = chunk.splice(at..at, fresh)?;
        tx.spend(steps(fresh.count, joined.bytes().len()))?;
        self.put(tx, self.order(end), Some(&joined));
        self.set_items(self.order(end), joined.count);
        Ok(())
    }

    /// A new end, whose chunk is not there yet; the old one is counted from now on, unless it is the other end.
    fn begin(&mut self, tx: &mut Tx<'_>, end: End) -> Result<(), Stop> {
        let beyond = |order: u64| match end {
            End::Head => order.checked_sub(ORDER_GAP),
            End::Tail => order.checked_add(ORDER_GAP),
        };
        if beyond(self.order(end)).is_none() {
            self.renumber(tx, self.order(end))?;
        }
        let order = beyond(self.order(end)).ok_or_else(damaged)?;
        let (alone, ListEnds { first, last, first_items, last_items, .. }) = (self.alone(), self.ends);
        match end {
            End::Head => (self.ends.first, self.ends.first_items) = (order, 0),
            End::Tail => (self.ends.last, self.ends.last_items) = (order, 0),
        }
        match end {
            End::Head if alone => self.ends.last_items = first_items,
            End::Tail if alone => {}
            End::Head => self.buckets().insert(tx, &first.to_be_bytes(), first_items)?,
            End::Tail => self.buckets().insert(tx, &last.to_be_bytes(), last_items)?,
        }
        Ok(())
    }

    /// Takes items off an end until `most` are gone or all; they are read into `out` in the order they go.
    pub fn take(
        &mut self,
        tx: &mut Tx<'_>,
        end: End,
        most: u64,
        mut out: Option<&mut Vec<Bytes>>,
    ) -> Result<(), Stop> {
        let mut left = most.min(self.count);
        while left > 0 {
            let order = self.order(end);
            let chunk = self.chunk(tx, order)?;
            let taken = left.min(chunk.count);
            let range = match end {
                End::Head => 0..taken,
                End::Tail => chunk.count - taken..chunk.count,
            };
            let out_len = out.as_ref().map_or(0, |out| out.len());
            for text in chunk.texts(range.clone())? {
                let item = Item::new(&chunk, text?, self.home());
                if let Some(out) = &mut out {
                    out.push(item.read(tx)?);
                }
                item.forget(tx)?;
            }
            if let (Some(out), End::Tail) = (&mut out, end) {
                out[out_len..].reverse();
            }
            tx.spend(steps(taken, chunk.items_bytes()))?;
            left -= taken;
            if taken < chunk.count && !(self.alone() && end == End::Tail) {
                self.set_items(order, chunk.count - taken);
                self.count -= taken;
                continue;
            }
            let rest = chunk.splice(range, &Gathered::default())?;
            self.write(tx, order, chunk.count, rest)?;
        }
        Ok(())
    }

    /// Item number `index`, which is there, becomes another.
    pub fn set(&mut self, tx: &mut Tx<'_>, index: u64, item: &[u8]) -> Result<(), Stop> {
        let (mut walk, at) = self.walk(tx, index, false, 1)?;
        let (order, chunk) = walk.next(tx, self)?.ok_or_else(damaged)?;
        Item::new(&chunk, chunk.text(at)?, self.home()).forget(tx)?;
        self.change(tx, order, &chunk, at..at + 1, item)
    }

    /// A new item beside the first one that is `pivot`; false if there is none.
    pub fn insert(&mut self, tx: &mut Tx<'_>, pivot: &[u8], behind: bool, item: &[u8]) -> Result<bool, Stop> {
        let (mut walk, _) = self.walk(tx, 0, false, u64::MAX)?;
        while let Some((order, chunk)) = walk.next(tx, self)? {
            if let [at] = hits(tx, &chunk, self.home(), pivot, End::Head, 1)?[..] {
                let at = at + u64::from(behind);
                self.change(tx, order, &chunk, at..at, item)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn change(
        &mut self,
        tx: &mut Tx<'_>,
        order: u64,
        chunk: &Chunk,
        range: Range<u64>,
        item: &[u8],
    ) -> Result<(), Stop> {
        let mut text = Vec::new();
        self.encode(tx, item, &mut text)?;
        let changed = chunk.splice(range, &Gathered::one(text))?;
        self.write(tx, order, chunk.count, changed)
    }

    /// Removes items that are `item`, the first `most` from an end on; answers how many were there.
    pub fn remove(&mut self, tx: &mut Tx<'_>, item: &[u8], from: End, most: u64) -> Result<u64, Stop> {
        let backward = from == End::Tail;
        let start = if backward { self.count - 1 } else { 0 };
        let (mut walk, _) = self.walk(tx, start, backward, u64::MAX)?;
        let mut removed = 0;
        while removed < most
            && let Some((order, chunk)) = walk.next(tx, self)?
        {
            let gone = hits(tx, &chunk, self.home(), item, from, most - removed)?;
            if gone.is_empty() {
                continue;
            }
            for index in &gone {
                Item::new(&chunk, chunk.text(*index)?, self.home()).forget(tx)?;
            }
            removed += gone.len() as u64;
            self.write(tx, order, chunk.count, chunk.without(&gone)?)?;
        }
        Ok(removed)
    }

    /// The chunk of an order, which had `before` items, becomes another: perhaps several, perhaps none.
    fn write(&mut self, tx: &mut Tx<'_>, order: u64, before: u64, chunk: Chunk) -> Result<(), Stop> {
        let after = chunk.count;
        self.count = (self.count + after).checked_sub(before).ok_or_else(damaged)?;
        if after == 0 {
            return self.drop_chunk(tx, order, before);
        }
        if !chunk.fits() {
            return self.write_parts(tx, order, before, &chunk.cut()?);
        }
        self.put(tx, order, Some(&chunk));
        self.recount(tx, order, before, after)
    }

    fn recount(&mut self, tx: &mut Tx<'_>, order: u64, before: u64, after: u64) -> Result<(), Stop> {
        if order == self.ends.first || order == self.ends.last {
            self.set_items(order, after);
        } else if before != after {
            self.buckets().change(tx, &order.to_be_bytes(), after as i64 - before as i64)?;
        }
        Ok(())
    }

    /// A chunk has lost all its items. If it was an end, its neighbour becomes one and is counted no more.
    fn drop_chunk(&mut self, tx: &mut Tx<'_>, order: u64, before: u64) -> Result<(), Stop> {
        self.put(tx, order, None);
        let ListEnds { first, last, first_items, last_items, .. } = self.ends;
        if order != first && order != last {
            return self.buckets().remove(tx, &order.to_be_bytes(), before);
        }
        let backward = order != first;
        self.set_items(order, 0);
        if self.alone() {
            return Ok(());
        }
        let next = if self.between() > 0 { Some(self.beside(tx, order, backward)?) } else { None };
        if next.is_none() && !backward {
            // Of a chunk that is alone only what stood at its head may be gone.
            let chunk = self.chunk(tx, last)?;
            if chunk.is_cut_off() {
                self.put(tx, last, Some(&chunk.splice(0..0, &Gathered::default())?));
            }
        }
        let ends = &mut self.ends;
        match (next, backward) {
            (None, false) => (ends.first, ends.first_items, ends.last_items) = (last, last_items, 0),
            (None, true) => (ends.last, ends.first_items, ends.last_items) = (first, first_items, 0),
            (Some((order, items)), false) => (ends.first, ends.first_items) = (order, items),
            (Some((order, items)), true) => (ends.last, ends.last_items) = (order, items),
        }
        match next {
            Some((order, items)) => self.buckets().remove(tx, &order.to_be_bytes(), items),
            None => Ok(()),
        }
    }

    /// Order and number of items of the chunk next to one.
    fn beside(&self, tx: &mut Tx<'_>, order: u64, backward: bool) -> Result<(u64, u64), Stop> {
        let from = if backward { order.checked_sub(1) } else { order.checked_add(1) };
        let mut found = None;
        tx.scan(self.key, self.version, &subs(from.ok_or_else(damaged)?, backward), &mut |sub, value| {
            found = Some((order_of(sub)?, Chunk::count_of(value)?));
            Ok(false)
        })?;
        found.ok_or_else(damaged)
    }

    /// Several chunks, two or more, come in place of one: the first where it stood, the others behind it.
    fn write_parts(
        &mut self,
        tx: &mut Tx<'_>,
        mut order: u64,
        before: u64,
        parts: &[Chunk],
    ) -> Result<(), Stop> {
        let count = parts.len() as u64;
        let mut gap = self.gap(tx, order)?;
        if gap < count {
            order = self.renumber(tx, order)?;
            gap = self.gap(tx, order)?;
        }
        let step = gap / count;
        let (was_first, was_last) = (order == self.ends.first, order == self.ends.last);
        if was_last {
            let tail = &parts[parts.len() - 1];
            self.ends.last = order + (count - 1) * step;
            self.ends.last_items = tail.count;
        }
        self.put(tx, order, Some(&parts[0]));
        if was_first {
            self.ends.first_items = parts[0].count;
        } else if was_last {
            self.buckets().insert(tx, &order.to_be_bytes(), parts[0].count)?;
        } else {
            self.recount(tx, order, before, parts[0].count)?;
        }
        for (number, part) in (1..).zip(&parts[1..]) {
            let place = order + number * step;
            // Each comes to the buckets before the next one is there: a bucket that is cut counts what it finds.
            self.put(tx, place, Some(part));
            if place != self.ends.last {
                self.buckets().insert(tx, &place.to_be_bytes(), part.count)?;
            }
        }
        Ok(())
    }

    /// How far it is from a chunk to the next one, or to where that would come.
    fn gap(&self, tx: &mut Tx<'_>, order: u64) -> Result<u64, Stop> {
        if order == self.ends.last {
            return Ok(ORDER_GAP.min(u64::MAX - order));
        }
        Ok(self.beside(tx, order, false)?.0 - order)
    }

    /// Gives all chunks new orders, as far apart as at first; answers that of one of them.
    fn renumber(&mut self, tx: &mut Tx<'_>, watched: u64) -> Result<u64, Stop> {
        let (mut chunks, mut buckets) = (Vec::new(), Vec::new());
        tx.scan(self.key, self.version, &Subs::of(&[TAG]), &mut |sub, value| {
            let order = order_of(sub)?;
            let chunk = self.decode(order, Bytes::copy_from_slice(value))?;
            chunks.push((order, chunk.splice(0..0, &Gathered::default())?));
            Ok(true)
        })?;
        tx.scan(self.key, self.version, &Subs::of(&[TAG_BUCKET]), &mut |sub, _| {
            buckets.push(Sub::from_slice(sub));
            Ok(true)
        })?;
        for (order, _) in &chunks {
            self.put(tx, *order, None);
        }
        for sub in buckets {
            tx.put_element(self.key, self.version, &sub, None);
        }
        let (mut next, mut found) = (ORDER_START, None);
        let mut places = Vec::new();
        for (order, chunk) in &chunks {
            self.put(tx, next, Some(chunk));
            if *order == watched {
                found = Some(next);
            }
            places.push((next.to_be_bytes(), chunk.count));
            next = next.checked_add(ORDER_GAP).ok_or_else(damaged)?;
        }
        (self.ends.first, self.ends.last) = (ORDER_START, next - ORDER_GAP);
        if let [_, inner @ .., _] = &places[..]
            && !inner.is_empty()
        {
            self.buckets().build(tx, inner.iter().map(|(place, weight)| (&place[..], *weight)));
        }
        found.ok_or_else(damaged)
    }
}

//! Counted buckets: where the n-th element of a long ordered collection is, and which one an element is.
//!
//! Over the elements of one tag, in the order of the rest of their subs (their *place*), stand two levels of
//! buckets. A level 0 bucket knows how much the elements from its place to the next bucket's weigh together
//! and how many they are, a level 1 bucket the same of level 0 buckets. The first bucket of each level stands
//! at the empty place, so every place has a bucket. Every place of level 1 is one of level 0 too. Layout:
//! store/FORMAT.md, "Counted buckets". Knows no scores and no items: what an element weighs is asked.

use super::packed::{Packed, damaged};
use crate::error::Stop;
use crate::store::copied;
use crate::store::row::Version;
use crate::store::tx::{KeyRef, Sub, Subs, Tx};
use bytes::Bytes;

/// First byte of a bucket's sub.
const TAG: u8 = 3;
const LEVELS: u8 = 2;
/// A bucket of more parts is cut; one of fewer joins a neighbour.
const WIDTH_MAX: u64 = 512;
const WIDTH_CUT: u64 = 256;
const WIDTH_MIN: u64 = 64;

/// The buckets of one life of one key.
pub struct Counted<'k> {
    key: KeyRef<'k>,
    version: Version,
    /// Tag of the elements that are counted.
    tag: u8,
    /// What an element weighs, by its value.
    weigh: fn(&[u8]) -> Result<u64, Stop>,
    /// Where the elements lie that are counted.
    elements: Subs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bucket {
    place: Sub,
    /// Of all elements in it.
    weight: u64,
    /// Number of its parts: elements at level 0, buckets of level 0 at level 1.
    width: u64,
}

/// A place that was looked for by rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where to begin: the first element at this place or behind it.
    pub place: Sub,
    /// Weight of all that stands before it.
    pub before: u64,
}

impl<'k> Counted<'k> {
    pub fn new(
        key: KeyRef<'k>,
        version: Version,
        tag: u8,
        weigh: fn(&[u8]) -> Result<u64, Stop>,
    ) -> Counted<'k> {
        Counted { key, version, tag, weigh, elements: Subs::of(&[tag]) }
    }

    /// Counts only what lies between two places: the elements at them, and beyond, are not in the buckets.
    pub fn between(mut self, first: &[u8], last: &[u8]) -> Counted<'k> {
        let at = |place: &[u8], behind: &[u8]| Sub::from_slice(&[&[self.tag][..], place, behind].concat());
        self.elements = Subs::new(&at(first, &[0]), &at(last, &[]));
        self
    }

    /// Makes the buckets of a collection that has none: `elements` are all, in order, each with its weight.
    pub fn build<'e>(&self, tx: &mut Tx<'_>, elements: impl Iterator<Item = (&'e [u8], u64)>) {
        let mut levels = [Bucket::default(), Bucket::default()];
        for (place, weight) in elements {
            if levels[0].width == WIDTH_CUT {
                let full = std::mem::replace(&mut levels[0], Bucket::at(place));
                self.put(tx, 0, &full);
                if levels[1].width == WIDTH_CUT {
                    let full = std::mem::replace(&mut levels[1], Bucket::at(place));
                    self.put(tx, 1, &full);
                }
            }
            levels[1].width += u64::from(levels[0].width == 0);
            levels[0].width += 1;
            levels.iter_mut().for_each(|bucket| bucket.weight += weight);
        }
        for (level, bucket) in (0..LEVELS).zip(&levels) {
            self.put(tx, level, bucket);
        }
    }

    /// An element has come; it is among the elements already.
    pub fn insert(&self, tx: &mut Tx<'_>, place: &[u8], weight: u64) -> Result<(), Stop> {
        let mut low = self.floor(tx, 0, place)?.unwrap_or_default();
        let mut high = self.floor(tx, 1, place)?.unwrap_or_default();
        // A collection that gets its first bucket.
        high.width = high.width.max(1);
        low.weight += weight;
        low.width += 1;
        high.weight += weight;
        if low.width > WIDTH_MAX {
            let subs = self.tag_subs(&low.place);
            let next = self.cut(tx, &mut low, subs, |_, value| Ok(((self.weigh)(value)?, 1)))?;
            self.put(tx, 0, &next);
            high.width += 1;
        }
        self.put(tx, 0, &low);
        if high.width > WIDTH_MAX {
            let subs = Subs::new(&sub(0, &high.place), &[TAG, 1]);
            let next =
                self.cut(tx, &mut high, subs, |_, value| Ok((Bucket::decode(&[], value)?.weight, 1)))?;
            self.put(tx, 1, &next);
        }
        self.put(tx, 1, &high);
        Ok(())
    }

    /// An element weighs more, or less, than before.
    pub fn change(&self, tx: &mut Tx<'_>, place: &[u8], by: i64) -> Result<(), Stop> {
        for level in 0..LEVELS {
            let mut bucket = self.floor(tx, level, place)?.ok_or_else(damaged)?;
            bucket.weight = bucket.weight.checked_add_signed(by).ok_or_else(damaged)?;
            self.put(tx, level, &bucket);
        }
        Ok(())
    }

    /// An element has gone; it is not among the elements any more.
    pub fn remove(&self, tx: &mut Tx<'_>, place: &[u8], weight: u64) -> Result<(), Stop> {
        let mut low = self.floor(tx, 0, place)?.ok_or_else(damaged)?;
        let mut high = self.floor(tx, 1, place)?.ok_or_else(damaged)?;
        low.take(weight, 1)?;
        high.take(weight, 0)?;
        if low.width < WIDTH_MIN && self.join(tx, 0, &mut low, &high)? {
            high.width = high.width.checked_sub(1).ok_or_else(damaged)?;
            if high.width < WIDTH_MIN {
                self.join(tx, 1, &mut high, &Bucket::default())?;
            }
        }
        self.put(tx, 0, &low);
        self.put(tx, 1, &high);
        Ok(())
    }

    /// An element moves. False: that may cut or join buckets, and nothing is done: `remove` and `insert` do it, once
    /// the element has moved.
    pub fn shift(&self, tx: &mut Tx<'_>, from: &[u8], to: &[u8], weight: u64) -> Result<bool, Stop> {
        let mut left = self.floor(tx, 0, from)?.ok_or_else(damaged)?;
        let mut joined = self.floor(tx, 0, to)?.ok_or_else(damaged)?;
        if left.place == joined.place {
            return Ok(true);
        }
        if left.width <= WIDTH_MIN || joined.width >= WIDTH_MAX {
            return Ok(false);
        }
        let between = Subs::new(&above(1, from.min(to)), &above(1, from.max(to)));
        if self.first(tx, between)?.is_some() {
            return Ok(false);
        }
        // The level above stays as it is.
        left.take(weight, 1)?;
        joined.weight += weight;
        joined.width += 1;
        self.put(tx, 0, &left);
        self.put(tx, 0, &joined);
        Ok(true)
    }

    /// Weight of everything before the bucket that a place lies in, and the bucket's own place.
    pub fn before(&self, tx: &mut Tx<'_>, place: &[u8]) -> Result<Found, Stop> {
        let mut found = Found { place: Sub::new(), before: 0 };
        for level in (0..LEVELS).rev() {
            let subs = Subs::new(&sub(level, &found.place), &above(level, place));
            let mut last: Option<Bucket> = None;
            tx.scan(self.key, self.version, &subs, &mut |sub, value| {
                let bucket = Bucket::decode(&sub[2..], value)?;
                found.before += last.replace(bucket).map_or(0, |before| before.weight);
                Ok(true)
            })?;
            found.place = last.map(|bucket| bucket.place).unwrap_or_default();
        }
        Ok(found)
    }

    /// The bucket in which the element stands that has `rank` of weight before it, or the last one.
    pub fn find(&self, tx: &mut Tx<'_>, rank: u64) -> Result<Found, Stop> {
        let mut found = Found { place: Sub::new(), before: 0 };
        for level in (0..LEVELS).rev() {
            let subs = Subs::new(&sub(level, &found.place), &[TAG, level + 1]);
            let mut last: Option<Bucket> = None;
            tx.scan(self.key, self.version, &subs, &mut |sub, value| {
                let bucket = Bucket::decode(&sub[2..], value)?;
                let before = found.before + last.as_ref().map_or(0, |last| last.weight);
                if last.is_some() && before > rank {
                    return Ok(false);
                }
                found.before = before;
                last = Some(bucket);
                Ok(true)
            })?;
            found.place = last.map(|bucket| bucket.place).unwrap_or_default();
        }
        Ok(found)
    }

    fn tag_subs(&self, from: &[u8]) -> Subs {
        let mut first = Sub::from_slice(&[self.tag]);
        first.extend_from_slice(from);
        Subs { from: first.max(self.elements.from.clone()), ..self.elements.clone() }
    }

    fn floor(&self, tx: &mut Tx<'_>, level: u8, place: &[u8]) -> Result<Option<Bucket>, Stop> {
        let subs = Subs::new(&[TAG, level], &above(level, place)).backward();
        self.first(tx, subs)
    }

    fn first(&self, tx: &mut Tx<'_>, subs: Subs) -> Result<Option<Bucket>, Stop> {
        let mut found = None;
        tx.scan(self.key, self.version, &subs, &mut |sub, value| {
            found = Some(Bucket::decode(&sub[2..], value)?);
            Ok(false)
        })?;
        Ok(found)
    }

    /// Leaves a bucket its first parts and answers one of the others.
    fn cut(
        &self,
        tx: &mut Tx<'_>,
        bucket: &mut Bucket,
        subs: Subs,
        weigh: impl Fn(&[u8], &[u8]) -> Result<(u64, u64), Stop>,
    ) -> Result<Bucket, Stop> {
        let skip = if subs.from[0] == TAG { 2 } else { 1 };
        let (mut weight, mut width) = (0, 0);
        let mut place = None;
        tx.scan(self.key, self.version, &subs, &mut |sub, value| {
            if width == WIDTH_CUT {
                place = Some(Sub::from_slice(&sub[skip..]));
                return Ok(false);
            }
            let (heavy, wide) = weigh(sub, value)?;
            weight += heavy;
            width += wide;
            Ok(true)
        })?;
        let mut next = Bucket { place: place.ok_or_else(damaged)?, ..bucket.clone() };
        next.take(weight, width)?;
        (bucket.weight, bucket.width) = (weight, width);
        Ok(next)
    }

    /// Joins a thin bucket with a neighbour under the same parent; true if one of them is gone.
    fn join(&self, tx: &mut Tx<'_>, level: u8, thin: &mut Bucket, parent: &Bucket) -> Result<bool, Stop> {
        let before = Subs::new(&sub(level, &parent.place), &sub(level, &thin.place)).backward();
        let end = match level {
            // Behind it begins the next bucket of the level above.
            0 => self.first(tx, Subs::new(&above(1, &parent.place), &[TAG, 2]))?,
            _ => None,
        };
        let end = end.map_or(Sub::from_slice(&[TAG, level + 1]), |next| sub(0, &next.place));
        let after = Subs::new(&above(level, &thin.place), &end);
        for (subs, neighbour_stays) in [(before, true), (after, false)] {
            let Some(neighbour) = self.first(tx, subs)? else { continue };
            if neighbour.width + thin.width > WIDTH_MAX {
                continue;
            }
            let gone = if neighbour_stays { thin.place.clone() } else { neighbour.place.clone() };
            if neighbour_stays {
                thin.place = neighbour.place;
            }
            thin.weight += neighbour.weight;
            thin.width += neighbour.width;
            tx.put_element(self.key, self.version, &sub(level, &gone), None);
            return Ok(true);
        }
        Ok(false)
    }

    fn put(&self, tx: &mut Tx<'_>, level: u8, bucket: &Bucket) {
        tx.put_element(self.key, self.version, &sub(level, &bucket.place), Some(bucket.encode()));
    }
}

impl Bucket {
    fn at(place: &[u8]) -> Bucket {
        Bucket { place: Sub::from_slice(place), weight: 0, width: 0 }
    }

    fn take(&mut self, weight: u64, width: u64) -> Result<(), Stop> {
        self.weight = self.weight.checked_sub(weight).ok_or_else(damaged)?;
        self.width = self.width.checked_sub(width).ok_or_else(damaged)?;
        Ok(())
    }

    fn encode(&self) -> Bytes {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&self.weight.to_be_bytes());
        value[8..].copy_from_slice(&self.width.to_be_bytes());
        copied(&value)
    }

    fn decode(place: &[u8], value: &[u8]) -> Result<Bucket, Stop> {
        let mut value = Packed(value);
        Ok(Bucket { place: Sub::from_slice(place), weight: value.u64()?, width: value.u64()? })
    }
}

fn sub(level: u8, place: &[u8]) -> Sub {
    let mut sub = Sub::from_slice(&[TAG, level]);
    sub.extend_from_slice(place);
    sub
}

/// The first sub behind a bucket's at this place.
fn above(level: u8, place: &[u8]) -> Sub {
    let mut above = sub(level, place);
    above.push(0);
    above
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::memory::{Memory, scope};
    use std::collections::BTreeMap;

    const ELEMENT: u8 = 2;
    const VERSION: Version = Version(1 << 16);

    fn weigh(value: &[u8]) -> Result<u64, Stop> {
        Ok(u64::from(value[0]))
    }

    fn counted<'k>(tx: &Tx<'_>) -> Counted<'k> {
        Counted::new(tx.key(b"k"), VERSION, ELEMENT, weigh)
    }

    fn element(place: u32) -> Vec<u8> {
        [&[ELEMENT][..], &place.to_be_bytes()].concat()
    }

    fn check(memory: &mut Memory, model: &BTreeMap<u32, u8>) {
        let mut before = 0;
        for (at, (place, weight)) in model.iter().enumerate() {
            if at % 37 == 0 {
                let look = |tx: &mut Tx<'_>| {
                    let counted = counted(tx);
                    Ok((counted.before(tx, &place.to_be_bytes())?, counted.find(tx, before)?))
                };
                let (by_place, by_rank) = memory.run(scope(), look).0.unwrap();
                for found in [by_place, by_rank] {
                    let mut start = [0; 4];
                    start[..found.place.len()].copy_from_slice(&found.place);
                    let start = u32::from_be_bytes(start);
                    let sum: u64 = model.range(..start).map(|(_, weight)| u64::from(*weight)).sum();
                    assert_eq!(sum, found.before);
                    assert!(start <= *place && model.range(start..*place).count() <= WIDTH_MAX as usize);
                }
            }
            before += u64::from(*weight);
        }
    }

    #[test]
    fn ranks_are_right_whatever_comes_and_goes() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut memory, mut model) = (Memory::default(), BTreeMap::new());
        for (grow, rounds) in [(3, 6000), (1, 9000), (3, 3000)] {
            for _ in 0..rounds {
                let place = random.u32(..1 << 16);
                let (result, _) = memory.run(scope(), |tx| {
                    let (counted, at) = (counted(tx), place.to_be_bytes());
                    let known = model.get(&place).copied();
                    if random.u32(..4) < grow {
                        let weight = random.u8(1..5);
                        let value = Some(Bytes::copy_from_slice(&[weight]));
                        tx.put_element(tx.key(b"k"), VERSION, &element(place), value);
                        match known {
                            Some(old) => counted.change(tx, &at, i64::from(weight) - i64::from(old))?,
                            None => counted.insert(tx, &at, u64::from(weight))?,
                        }
                        model.insert(place, weight);
                    } else if let Some(weight) = known {
                        tx.put_element(tx.key(b"k"), VERSION, &element(place), None);
                        model.remove(&place);
                        let to = random.u32(..1 << 16);
                        if random.bool() && !model.contains_key(&to) {
                            let value = Some(Bytes::copy_from_slice(&[weight]));
                            tx.put_element(tx.key(b"k"), VERSION, &element(to), value);
                            if !counted.shift(tx, &at, &to.to_be_bytes(), u64::from(weight))? {
                                counted.remove(tx, &at, u64::from(weight))?;
                                counted.insert(tx, &to.to_be_bytes(), u64::from(weight))?;
                            }
                            model.insert(to, weight);
                        } else {
                            counted.remove(tx, &at, u64::from(weight))?;
                        }
                    }
                    Ok(())
                });
                result.unwrap();
            }
            check(&mut memory, &model);
        }
    }

    #[test]
    fn what_is_built_at_once_is_like_what_has_grown() {
        let mut memory = Memory::default();
        let model: BTreeMap<u32, u8> = (0..200_000).map(|place| (place * 3, 1 + (place % 3) as u8)).collect();
        let places: Vec<_> = model.iter().map(|(place, weight)| (place.to_be_bytes(), *weight)).collect();
        let build = |tx: &mut Tx<'_>| {
            counted(tx).build(tx, places.iter().map(|(place, weight)| (&place[..], u64::from(*weight))));
            Ok(())
        };
        memory.run(scope(), build).0.unwrap();
        check(&mut memory, &model);
        let reads = memory.element_reads;
        memory.run(scope(), |tx| counted(tx).find(tx, 150_000)).0.unwrap();
        assert!(memory.element_reads - reads < 600, "some hundred steps");
    }
}

//! Sorted sets: members with scores, in the order of the scores and, where these are equal, of the members.
//!
//! In the row while small; once large, each member has an element by its name and one in order, and counted
//! buckets say which is the n-th. Layout: store/FORMAT.md. Knows no command and no reply.

use super::counted::Counted;
use super::map::{INLINE_MAX, INLINE_MAX_BYTES};
use super::names::{self, Names};
use super::packed::{Packed, damaged};
use crate::error::Stop;
use crate::store::row::{Body, Extra, Form, Kind, Row, Version};
use crate::store::tx::{KeyRef, Sub, Subs, Tx};
use crate::store::{NAME_MAX_BYTES, copied};
use bytes::Bytes;
use place::{Entries, Entry, TAG};

mod place;
#[cfg(test)]
mod tests;

pub use place::{Bound, MemberRange, Places, ScoreRange, Window};

/// Redis holds so many members of so many bytes compactly.
const COMPACT_MAX: u64 = 128;
const COMPACT_MEMBER_MAX_BYTES: usize = 64;
/// So many members are passed over one by one; what lies further away is found by its rank.
const WALK_MAX: u64 = 256;

/// How redis-server 7.0 would hold it.
pub fn encoding(row: &Row) -> &'static str {
    if row.form == Form::Raw { "skiplist" } else { "listpack" }
}

/// Is shown members with their scores until it answers false.
pub type See<'v> = dyn FnMut(&[u8], f64) -> Result<bool, Stop> + 'v;

/// A member with its score.
pub type Scored = (Bytes, f64);

/// A sorted set, as of the last command with this one's changes.
pub struct SortedSet<'k> {
    key: KeyRef<'k>,
    row: Row,
    existed: bool,
    changed: bool,
}

impl<'k> SortedSet<'k> {
    /// What a key holds; None without the key.
    ///
    /// # Errors
    /// When it holds another type.
    pub fn load(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Option<SortedSet<'k>>, Stop> {
        let row = tx.row_of(key, Kind::SortedSet)?;
        Ok(row.map(|row| SortedSet { key, row, existed: true, changed: false }))
    }

    /// What a key holds, or a new sorted set.
    pub fn open(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<SortedSet<'k>, Stop> {
        Ok(SortedSet::load(tx, key)?.unwrap_or_else(|| SortedSet::new(key, false)))
    }

    fn new(key: KeyRef<'k>, existed: bool) -> SortedSet<'k> {
        let row = Row::new(Kind::SortedSet, Body::Inline(Bytes::from_static(&[0])));
        SortedSet { key, row, existed, changed: existed }
    }

    /// Puts these members, each once, in place of whatever a key holds; none of them: it goes.
    pub fn replace<M: AsRef<[u8]>>(
        tx: &mut Tx<'_>,
        key: KeyRef<'k>,
        members: &[(M, f64)],
    ) -> Result<(), Stop> {
        let mut set = SortedSet::new(key, tx.row(key)?.is_some());
        let mut entries: Vec<_> =
            members.iter().map(|(member, score)| Entry::new(*score, member.as_ref())).collect();
        entries.sort_unstable();
        set.hold(tx, &entries)?;
        for entry in &entries {
            set.grown(entry.member)?;
        }
        set.save(tx)
    }

    /// Whether Redis would still hold it in its compact form.
    pub fn compact(&self) -> bool {
        self.row.form != Form::Raw
    }

    /// Number of members.
    #[expect(clippy::len_without_is_empty, reason = "a key without elements is gone")]
    pub fn len(&self) -> Result<u64, Stop> {
        match &self.row.body {
            Body::Inline(body) => Packed(body).number(),
            Body::Elements { count, .. } => Ok(*count),
            Body::Pieces { .. } => Err(damaged()),
        }
    }

    pub fn score(&self, tx: &mut Tx<'_>, member: &[u8]) -> Result<Option<f64>, Stop> {
        let version = match &self.row.body {
            Body::Inline(body) => {
                for entry in Entries::of(body)? {
                    let entry = entry?;
                    if entry.member == member {
                        return Ok(Some(entry.number()));
                    }
                }
                return Ok(None);
            }
            Body::Elements { version, .. } => *version,
            Body::Pieces { .. } => return Err(damaged()),
        };
        if member.len() > NAME_MAX_BYTES {
            return Ok(None);
        }
        let score = tx.element(self.key, version, &names::sub(member))?;
        score.map(|score| stored_score(&score)).transpose()
    }

    /// Gives a member a score; `old` is what `score` answers for it.
    pub fn put(&mut self, tx: &mut Tx<'_>, member: &[u8], old: Option<f64>, score: f64) -> Result<(), Stop> {
        let new = Entry::new(score, member);
        let old = old.map(|old| Entry::new(old, member));
        if old == Some(new) {
            return Ok(());
        }
        match self.row.body.clone() {
            Body::Inline(body) => {
                let mut entries = all(&body)?;
                if let Some(old) = old {
                    entries.remove(entries.binary_search(&old).map_err(|_| damaged())?);
                }
                entries.insert(entries.partition_point(|entry| *entry < new), new);
                self.hold(tx, &entries)?;
            }
            Body::Elements { version, count, .. } => {
                let (counted, place) = (self.counted(version), new.place());
                match old.map(|old| old.place()) {
                    Some(old) => {
                        let shifted = counted.shift(tx, &old, &place, 1)?;
                        put_entry(tx, self.key, version, &new);
                        tx.put_element(self.key, version, &place::sub(&old), None);
                        if !shifted {
                            counted.remove(tx, &old, 1)?;
                            counted.insert(tx, &place, 1)?;
                        }
                    }
                    None => {
                        put_entry(tx, self.key, version, &new);
                        counted.insert(tx, &place, 1)?;
                        self.set_count(version, count + 1);
                    }
                }
            }
            Body::Pieces { .. } => return Err(damaged()),
        }
        if old.is_none() { self.grown(member) } else { Ok(()) }
    }

    /// Takes a member out; answers its score.
    pub fn remove(&mut self, tx: &mut Tx<'_>, member: &[u8]) -> Result<Option<f64>, Stop> {
        let score = self.score(tx, member)?;
        if let Some(score) = score {
            let gone = Entry::new(score, member);
            match self.row.body.clone() {
                Body::Inline(body) => {
                    let mut entries = all(&body)?;
                    entries.retain(|entry| *entry != gone);
                    self.hold(tx, &entries)?;
                }
                Body::Elements { version, .. } => self.drop_entry(tx, version, &gone)?,
                Body::Pieces { .. } => return Err(damaged()),
            }
        }
        Ok(score)
    }

    /// Takes out all that is in a window; answers it in the window's order.
    pub fn take(&mut self, tx: &mut Tx<'_>, window: &Window) -> Result<Vec<Scored>, Stop> {
        let taken = self.list(tx, window)?;
        if taken.is_empty() {
            return Ok(taken);
        }
        if taken.len() as u64 == self.len()? {
            // What is left of its elements is garbage once the row is gone.
            self.hold(tx, &[])?;
            return Ok(taken);
        }
        match self.row.body.clone() {
            Body::Inline(body) => {
                let mut gone: Vec<_> =
                    taken.iter().map(|(member, score)| Entry::new(*score, member)).collect();
                gone.sort_unstable();
                let mut entries = all(&body)?;
                entries.retain(|entry| gone.binary_search(entry).is_err());
                self.hold(tx, &entries)?;
            }
            Body::Elements { version, .. } => {
                for (member, score) in &taken {
                    self.drop_entry(tx, version, &Entry::new(*score, member))?;
                }
            }
            Body::Pieces { .. } => return Err(damaged()),
        }
        Ok(taken)
    }

    /// How many members stand before this one, and its score.
    pub fn rank(&self, tx: &mut Tx<'_>, member: &[u8]) -> Result<Option<(u64, f64)>, Stop> {
        let Some(score) = self.score(tx, member)? else { return Ok(None) };
        Ok(Some((self.before(tx, &Entry::new(score, member).place())?, score)))
    }

    /// How many members stand in a range.
    pub fn count(&self, tx: &mut Tx<'_>, places: &Places) -> Result<u64, Stop> {
        if places.is_empty() {
            return Ok(0);
        }
        let before = self.before(tx, &places.from)?;
        self.before(tx, &places.to)?.checked_sub(before).ok_or_else(damaged)
    }

    /// Where the members of a range are. That means something where all scores are equal; where they are not,
    /// as in Redis, it is what lies from the first that is not below the range to the first above it, and all
    /// members may have to be looked at.
    pub fn places_of_members(&self, tx: &mut Tx<'_>, range: &MemberRange<'_>) -> Result<Places, Stop> {
        let (first, last) = (self.edge(tx, false)?, self.edge(tx, true)?);
        let bounds = range.places(first);
        if first == last {
            return Ok(bounds);
        }
        let (mut from, mut to) = (None, Places::all().to);
        self.visit(tx, &Window::whole(), &mut |member, score| {
            let (levelled, place) = (Entry { score: first, member }, Entry::new(score, member).place());
            if from.is_none() && !levelled.is_before(&bounds.from) {
                from = Some(place.clone());
            }
            if from.is_none() || levelled.is_before(&bounds.to) {
                return Ok(true);
            }
            to = place;
            Ok(false)
        })?;
        Ok(from.map_or_else(Places::none, |from| Places { from, to }))
    }

    /// The lowest score, or the highest.
    fn edge(&self, tx: &mut Tx<'_>, reverse: bool) -> Result<[u8; 8], Stop> {
        let mut edge = 0.0;
        self.visit(tx, &Window { places: Places::all(), reverse, offset: 0, count: 1 }, &mut |_, score| {
            edge = score;
            Ok(false)
        })?;
        Ok(place::sortable(edge))
    }

    pub fn visit(&self, tx: &mut Tx<'_>, window: &Window, see: &mut See<'_>) -> Result<(), Stop> {
        let Window { places, reverse, offset, count } = window;
        let body = match &self.row.body {
            Body::Inline(body) => body,
            Body::Elements { version, count, .. } => {
                return self.visit_elements(tx, *version, *count, window, see);
            }
            Body::Pieces { .. } => return Err(damaged()),
        };
        let entries = all(body)?;
        let [from, to] =
            [&places.from, &places.to].map(|at| entries.partition_point(|entry| entry.is_before(at)));
        let mut inside: Vec<_> = entries.get(from..to).unwrap_or_default().iter().collect();
        if *reverse {
            inside.reverse();
        }
        let [offset, count] = [*offset, *count].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        for entry in inside.into_iter().skip(offset).take(count) {
            if !see(entry.member, entry.number())? {
                break;
            }
        }
        Ok(())
    }

    /// All that is in a window.
    pub fn list(&self, tx: &mut Tx<'_>, window: &Window) -> Result<Vec<Scored>, Stop> {
        let mut list = Vec::new();
        self.visit(tx, window, &mut |member, score| {
            list.push((Bytes::copy_from_slice(member), score));
            Ok(true)
        })?;
        Ok(list)
    }

    /// All members, in order.
    pub fn members(&self, tx: &mut Tx<'_>) -> Result<Vec<Bytes>, Stop> {
        Ok(self.list(tx, &Window::whole())?.into_iter().map(|(member, _)| member).collect())
    }

    /// Members whose scores are in a range, ascending unless `reverse`, until `see` answers false.
    pub fn by_score(
        &self,
        tx: &mut Tx<'_>,
        range: &ScoreRange,
        reverse: bool,
        see: &mut See<'_>,
    ) -> Result<(), Stop> {
        self.visit(tx, &Window { places: range.places(), reverse, offset: 0, count: u64::MAX }, see)
    }

    /// About `count` members from a cursor on, all of them where they stand in a row; answers where to go on.
    pub fn scan(
        &self,
        tx: &mut Tx<'_>,
        cursor: u64,
        count: u64,
        see: &mut dyn FnMut(&[u8], f64),
    ) -> Result<u64, Stop> {
        match &self.row.body {
            Body::Inline(body) => {
                for entry in Entries::of(body)? {
                    let entry = entry?;
                    see(entry.member, entry.number());
                }
                Ok(0)
            }
            Body::Elements { version, .. } => {
                self.names(*version).scan(tx, cursor, count, &mut |member, score| {
                    see(member, stored_score(score)?);
                    Ok(())
                })
            }
            Body::Pieces { .. } => Err(damaged()),
        }
    }

    /// One member by chance.
    pub fn random(&self, tx: &mut Tx<'_>) -> Result<Scored, Stop> {
        let len = self.len()?;
        match &self.row.body {
            Body::Inline(body) => {
                let chosen = tx.random().u64(..len.max(1)) as usize;
                Entries::of(body)?.nth(chosen).ok_or_else(damaged)?.map(|entry| scored(&entry))
            }
            Body::Elements { version, .. } => {
                let (member, score) = self.names(*version).random(tx, len)?;
                Ok((member, stored_score(&score)?))
            }
            Body::Pieces { .. } => Err(damaged()),
        }
    }

    /// Several different members by chance; all of them if there are no more than `count`.
    pub fn sample(&self, tx: &mut Tx<'_>, count: u64) -> Result<Vec<Scored>, Stop> {
        match &self.row.body {
            Body::Inline(body) => {
                let mut members: Vec<_> = all(body)?.iter().map(scored).collect();
                if count < members.len() as u64 {
                    tx.random().shuffle(&mut members);
                    members.truncate(count as usize);
                }
                Ok(members)
            }
            Body::Elements { version, count: len, .. } => {
                let named = self.names(*version).sample(tx, *len, count)?;
                named.into_iter().map(|(member, score)| Ok((member, stored_score(&score)?))).collect()
            }
            Body::Pieces { .. } => Err(damaged()),
        }
    }

    /// Puts the row if it has changed; the last member takes the key with it.
    pub fn save(self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        if !self.changed {
            return Ok(());
        }
        let empty = self.len()? == 0;
        tx.put_unless_empty(self.key, self.row, self.existed, empty);
        Ok(())
    }

    /// How many members stand before a place.
    fn before(&self, tx: &mut Tx<'_>, place: &[u8]) -> Result<u64, Stop> {
        let (version, count) = match &self.row.body {
            Body::Inline(body) => {
                return Ok(all(body)?.partition_point(|entry| entry.is_before(place)) as u64);
            }
            Body::Elements { version, count, .. } => (*version, *count),
            Body::Pieces { .. } => return Err(damaged()),
        };
        if place.is_empty() || Places::reaches_end(place) {
            return Ok(if place.is_empty() { 0 } else { count });
        }
        let bucket = self.counted(version).before(tx, place)?;
        let (mut before, subs) = (bucket.before, Subs::new(&place::sub(&bucket.place), &place::sub(place)));
        tx.scan(self.key, version, &subs, &mut |_, _| {
            before += 1;
            Ok(true)
        })?;
        Ok(before)
    }

    /// Where the member stands that has `rank` members before it, of `count`.
    fn place_of(&self, tx: &mut Tx<'_>, version: Version, count: u64, rank: u64) -> Result<Sub, Stop> {
        let all = Subs::of(&[TAG]);
        let (subs, mut skip) = if rank < WALK_MAX {
            (all, rank)
        } else if count - rank <= WALK_MAX {
            (all.backward(), count - 1 - rank)
        } else {
            let bucket = self.counted(version).find(tx, rank)?;
            (Subs { from: place::sub(&bucket.place), ..all }, rank - bucket.before)
        };
        let mut place = None;
        tx.scan(self.key, version, &subs, &mut |sub, _| {
            if skip == 0 {
                place = Some(Sub::from_slice(&sub[1..]));
                return Ok(false);
            }
            skip -= 1;
            Ok(true)
        })?;
        place.ok_or_else(damaged)
    }

    fn visit_elements(
        &self,
        tx: &mut Tx<'_>,
        version: Version,
        len: u64,
        window: &Window,
        see: &mut See<'_>,
    ) -> Result<(), Stop> {
        let Window { mut places, reverse, offset: mut skip, count: mut left } = window.clone();
        if places.is_empty() || left == 0 {
            return Ok(());
        }
        if skip > WALK_MAX {
            let rank = match reverse {
                true => self.before(tx, &places.to)?.checked_sub(skip).and_then(|end| end.checked_sub(1)),
                false => self.before(tx, &places.from)?.checked_add(skip).filter(|rank| *rank < len),
            };
            let Some(rank) = rank else { return Ok(()) };
            let mut place = self.place_of(tx, version, len, rank)?;
            if reverse {
                place.push(0);
                places.to = place;
            } else {
                places.from = place;
            }
            skip = 0;
            if places.is_empty() {
                return Ok(());
            }
        }
        tx.scan(self.key, version, &places.subs(reverse), &mut |sub, _| {
            if skip > 0 {
                skip -= 1;
                return Ok(true);
            }
            let entry = Entry::of_sub(sub)?;
            left -= 1;
            Ok(see(entry.member, entry.number())? && left > 0)
        })
    }

    /// Takes out a member of many.
    fn drop_entry(&mut self, tx: &mut Tx<'_>, version: Version, gone: &Entry<'_>) -> Result<(), Stop> {
        let place = gone.place();
        tx.put_element(self.key, version, &names::sub(gone.member), None);
        tx.put_element(self.key, version, &place::sub(&place), None);
        self.counted(version).remove(tx, &place, 1)?;
        let count = self.len()?.checked_sub(1).ok_or_else(damaged)?;
        self.set_count(version, count);
        Ok(())
    }

    /// Makes these, in order, all its members.
    fn hold(&mut self, tx: &mut Tx<'_>, entries: &[Entry<'_>]) -> Result<(), Stop> {
        self.changed = true;
        if entries.len() as u64 <= INLINE_MAX {
            let body = place::packed(entries);
            if body.len() <= INLINE_MAX_BYTES {
                self.row.body = Body::Inline(body);
                return Ok(());
            }
        }
        tx.spend(u32::try_from(entries.len()).unwrap_or(u32::MAX))?;
        let version = tx.new_version(self.key)?;
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            put_entry(tx, self.key, version, entry);
            places.push(entry.place());
        }
        self.counted(version).build(tx, places.iter().map(|place| (&place[..], 1)));
        self.set_count(version, entries.len() as u64);
        Ok(())
    }

    fn set_count(&mut self, version: Version, count: u64) {
        self.row.body = Body::Elements { version, count, extra: Extra::None };
        self.changed = true;
    }

    /// A member has come: Redis may not hold it compactly any more.
    fn grown(&mut self, member: &[u8]) -> Result<(), Stop> {
        if member.len() > COMPACT_MEMBER_MAX_BYTES || self.len()? > COMPACT_MAX {
            self.row.form = Form::Raw;
        }
        Ok(())
    }

    fn names(&self, version: Version) -> Names<'k> {
        Names { key: self.key, version }
    }

    fn counted(&self, version: Version) -> Counted<'k> {
        Counted::new(self.key, version, TAG, |_| Ok(1))
    }
}

fn put_entry(tx: &mut Tx<'_>, key: KeyRef<'_>, version: Version, entry: &Entry<'_>) {
    let score = copied(&entry.score);
    tx.put_element(key, version, &names::sub(entry.member), Some(score));
    tx.put_element(key, version, &place::sub(&entry.place()), Some(Bytes::new()));
}

fn all(body: &[u8]) -> Result<Vec<Entry<'_>>, Stop> {
    Entries::of(body)?.collect()
}

fn scored(entry: &Entry<'_>) -> Scored {
    (Bytes::copy_from_slice(entry.member), entry.number())
}

fn stored_score(bytes: &[u8]) -> Result<f64, Stop> {
    Ok(place::number(bytes.try_into().map_err(|_| damaged())?))
}

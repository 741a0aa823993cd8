//! Streams: entries in the order of their ids, and groups of consumers that share them out.
//!
//! Never in the row: each entry, group, consumer and pending entry is an element. A stream without entries
//! is still there. Knows no command and no reply. Layout: store/FORMAT.md.

mod exchange;
mod group;
mod progress;
mod sub;
#[cfg(test)]
mod tests;

pub use group::{Consumer, Group, GroupHead, Pending, PendingRange};

use super::packed::{Packed, damaged, put_number, put_text};
use super::value::{self, Place, Stored};
use crate::error::Stop;
use crate::store::row::{Body, Extra, Form, Kind, Row, StreamHead, StreamId, Version};
use crate::store::tx::{KeyRef, Sub, Subs, Tx};
use bytes::Bytes;

/// Redis trims roughly by whole nodes, which have so many entries by default.
pub const NODE_ENTRIES: u64 = 100;

/// What OBJECT ENCODING answers of any stream.
pub fn encoding(_: &Row) -> &'static str {
    "stream"
}

/// One life of one key, whose elements these are.
#[derive(Clone, Copy)]
struct Life<'k> {
    key: KeyRef<'k>,
    version: Version,
}

impl Life<'_> {
    fn get(self, tx: &mut Tx<'_>, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        tx.element(self.key, self.version, sub)
    }

    fn put(self, tx: &mut Tx<'_>, sub: &[u8], value: Vec<u8>) {
        tx.put_element(self.key, self.version, sub, Some(value.into()));
    }

    fn delete(self, tx: &mut Tx<'_>, sub: &[u8]) {
        tx.put_element(self.key, self.version, sub, None);
    }

    fn scan(
        self,
        tx: &mut Tx<'_>,
        subs: &Subs,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        tx.scan(self.key, self.version, subs, &mut visit)
    }

    fn all(self, tx: &mut Tx<'_>, prefix: &[u8]) -> Result<Vec<(Sub, Bytes)>, Stop> {
        let mut all = Vec::new();
        self.scan(tx, &Subs::of(prefix), |sub, value| {
            all.push((Sub::from_slice(sub), Bytes::copy_from_slice(value)));
            Ok(true)
        })?;
        Ok(all)
    }
}

/// A stream, as of the last command with this one's changes.
pub struct Stream<'k> {
    life: Life<'k>,
    pub head: StreamHead,
    /// Number of entries.
    pub len: u64,
    expire_ms: Option<u64>,
    form: Form,
    /// As it is stored; None if it is not.
    before: Option<(StreamHead, u64)>,
}

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: StreamId,
    packed: Bytes,
}

/// What trimming leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many of the newest.
    Newest(u64),
    /// This one and all behind it.
    From(StreamId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    pub keep: Keep,
    /// A hundred entries too many are borne, so that trimming is seldom.
    pub roughly: bool,
    /// Entries taken away at most.
    pub most: u64,
}

impl<'k> Stream<'k> {
    /// What a key holds; None without the key.
    ///
    /// # Errors
    /// When it holds another type.
    pub fn load(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Option<Stream<'k>>, Stop> {
        tx.row_of(key, Kind::Stream)?.map(|row| Stream::of(key, row)).transpose()
    }

    fn of(key: KeyRef<'k>, row: Row) -> Result<Stream<'k>, Stop> {
        let Row { body: Body::Elements { version, count: len, extra: Extra::Stream(head) }, .. } = row else {
            return Err(damaged());
        };
        let (life, head) = (Life { key, version }, *head);
        Ok(Stream { life, head, len, expire_ms: row.expire_ms, form: row.form, before: Some((head, len)) })
    }

    /// For a key that is not there.
    pub fn new(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Stream<'k>, Stop> {
        let life = Life { key, version: tx.new_version(key)? };
        let head = StreamHead::default();
        Ok(Stream { life, head, len: 0, expire_ms: None, form: Form::Plain, before: None })
    }

    /// Puts the row if it has changed.
    pub fn save(self, tx: &mut Tx<'_>) {
        if self.before != Some((self.head, self.len)) {
            let (key, existed) = (self.life.key, self.before.is_some());
            tx.put(key, self.into_row(), Some(existed));
        }
    }

    fn into_row(self) -> Row {
        let Stream { life, head, len, expire_ms, form, .. } = self;
        let extra = Extra::Stream(Box::new(head));
        let body = Body::Elements { version: life.version, count: len, extra };
        Row { expire_ms, form, ..Row::new(Kind::Stream, body) }
    }

    /// Adds an entry of so many pairs, given as fields and values in turn. The id is above the last one.
    pub fn append<'t>(
        &mut self,
        tx: &mut Tx<'_>,
        id: StreamId,
        pairs: u64,
        texts: impl Iterator<Item = &'t [u8]>,
    ) -> Result<(), Stop> {
        self.put_entry(tx, id, pairs, texts)?;
        if self.len == 0 {
            self.head.first_id = id;
        }
        self.len += 1;
        self.head.last_id = id;
        // A client may have set any number, with XSETID.
        self.head.entries_added = self.head.entries_added.wrapping_add(1);
        Ok(())
    }

    fn put_entry<'t>(
        &mut self,
        tx: &mut Tx<'_>,
        id: StreamId,
        pairs: u64,
        texts: impl Iterator<Item = &'t [u8]>,
    ) -> Result<(), Stop> {
        let (mut packed, mut stored) = (Vec::new(), Vec::new());
        put_number(&mut packed, pairs);
        texts.for_each(|text| put_text(&mut packed, text));
        let Life { key, version } = self.life;
        let mut place = Place { key, version, next_piece: &mut self.head.next_piece };
        value::encode(tx, &mut place, &packed, None, &mut stored)?;
        self.life.put(tx, &sub::with_id(sub::entries(), id), stored);
        Ok(())
    }

    /// Entries between two ids, both included, at most `count`.
    pub fn range(
        &self,
        tx: &mut Tx<'_>,
        from: StreamId,
        to: StreamId,
        backward: bool,
        count: u64,
    ) -> Result<Vec<Entry>, Stop> {
        let (from, to) = (from.max(self.head.first_id), to.min(self.head.last_id));
        if self.len == 0 || from > to || count == 0 {
            return Ok(Vec::new());
        }
        let mut stored = Vec::new();
        self.life.scan(tx, &Subs { backward, ..sub::between(&sub::entries(), from, to) }, |sub, value| {
            stored.push((sub::id(sub)?, Bytes::copy_from_slice(value)));
            Ok((stored.len() as u64) < count)
        })?;
        stored.into_iter().map(|(id, stored)| self.entry(tx, id, stored)).collect()
    }

    /// The first entry, or the last.
    pub fn edge(&self, tx: &mut Tx<'_>, last: bool) -> Result<Option<Entry>, Stop> {
        Ok(self.range(tx, StreamId::MIN, StreamId::MAX, last, 1)?.pop())
    }

    pub fn get(&self, tx: &mut Tx<'_>, id: StreamId) -> Result<Option<Entry>, Stop> {
        if id < self.head.first_id || id > self.head.last_id {
            return Ok(None);
        }
        let stored = self.life.get(tx, &sub::with_id(sub::entries(), id))?;
        stored.map(|stored| self.entry(tx, id, stored)).transpose()
    }

    fn entry(&self, tx: &mut Tx<'_>, id: StreamId, stored: Bytes) -> Result<Entry, Stop> {
        let decoded = Stored::decode(&stored)?;
        let packed = match decoded.here() {
            Some(packed) => stored.slice_ref(packed),
            None => decoded.read(tx, self.life.key, Some(self.life.version))?,
        };
        Ok(Entry { id, packed })
    }

    /// Takes entries out, wherever they stand; how many there were.
    pub fn delete(&mut self, tx: &mut Tx<'_>, ids: &[StreamId]) -> Result<u64, Stop> {
        let (mut deleted, mut first_gone) = (0, false);
        for &id in ids {
            let Some(stored) = self.life.get(tx, &sub::with_id(sub::entries(), id))? else { continue };
            self.forget(tx, id, &stored)?;
            self.len = self.len.checked_sub(1).ok_or_else(damaged)?;
            self.head.max_deleted_id = self.head.max_deleted_id.max(id);
            first_gone |= id == self.head.first_id;
            deleted += 1;
        }
        if self.len == 0 {
            self.head.first_id = StreamId::MIN;
        } else if first_gone {
            self.head.first_id = self.edge(tx, false)?.ok_or_else(damaged)?.id;
        }
        Ok(deleted)
    }

    fn forget(&self, tx: &mut Tx<'_>, id: StreamId, stored: &[u8]) -> Result<(), Stop> {
        Stored::decode(stored)?.forget(tx, self.life.key, Some(self.life.version))?;
        self.life.delete(tx, &sub::with_id(sub::entries(), id));
        Ok(())
    }

    /// Takes the oldest entries away; how many.
    ///
    /// Redis's nodes are of 100 entries or of 4 KiB, and it leaves, roughly, those that are not wholly too
    /// old. Here a hundred are taken at once by their number; by id no more than what is too old is looked at,
    /// so that nothing is won by leaving some.
    pub fn trim(&mut self, tx: &mut Tx<'_>, trim: Trim) -> Result<u64, Stop> {
        let Trim { keep, roughly, most } = trim;
        let (most, end) = match keep {
            Keep::Newest(kept) => {
                let many = self.len.saturating_sub(kept).min(most);
                (if roughly { many / NODE_ENTRIES * NODE_ENTRIES } else { many }, None)
            }
            Keep::From(id) => (if id <= self.head.first_id { 0 } else { most }, Some(id)),
        };
        if most == 0 || self.len == 0 {
            return Ok(0);
        }
        let (mut gone, mut first_left) = (Vec::new(), None);
        let subs = sub::between(&sub::entries(), self.head.first_id, self.head.last_id);
        self.life.scan(tx, &subs, |sub, value| {
            let id = sub::id(sub)?;
            if gone.len() as u64 == most || end.is_some_and(|end| id >= end) {
                first_left = Some(id);
                return Ok(false);
            }
            // Only what is in pieces is needed once more.
            let short = Stored::decode(value)?.here().is_some();
            gone.push((id, if short { Bytes::new() } else { Bytes::copy_from_slice(value) }));
            Ok(true)
        })?;
        for (id, stored) in &gone {
            if stored.is_empty() {
                self.life.delete(tx, &sub::with_id(sub::entries(), *id));
            } else {
                self.forget(tx, *id, stored)?;
            }
        }
        self.len = self.len.checked_sub(gone.len() as u64).ok_or_else(damaged)?;
        if (self.len == 0) != first_left.is_none() {
            return Err(damaged());
        }
        self.head.first_id = first_left.unwrap_or(StreamId::MIN);
        Ok(gone.len() as u64)
    }

    pub fn group(&self, tx: &mut Tx<'_>, name: &[u8]) -> Result<Option<Group<'k>>, Stop> {
        if self.head.groups == 0 { Ok(None) } else { Group::load(tx, self.life, name) }
    }

    /// All groups, by name.
    pub fn groups(&self, tx: &mut Tx<'_>) -> Result<Vec<Group<'k>>, Stop> {
        if self.head.groups == 0 {
            return Ok(Vec::new());
        }
        let all = self.life.all(tx, &sub::groups())?;
        all.iter().map(|(sub, stored)| Group::of(self.life, &sub[sub::groups().len()..], stored)).collect()
    }

    /// A group of a name that none has yet.
    pub fn create_group(&mut self, name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> Group<'k> {
        self.head.groups += 1;
        Group::new(self.life, name, last_id, entries_read)
    }

    pub fn delete_group(&mut self, tx: &mut Tx<'_>, group: Group<'k>) -> Result<(), Stop> {
        self.head.groups = self.head.groups.checked_sub(1).ok_or_else(damaged)?;
        group.delete(tx)
    }
}

impl Entry {
    /// Fields and values in turn.
    pub fn texts(&self) -> Result<Vec<Bytes>, Stop> {
        let mut packed = Packed(&self.packed);
        let (mut texts, pairs) = (Vec::new(), packed.number()?);
        for _ in 0..pairs {
            texts.push(self.packed.slice_ref(packed.text()?));
            texts.push(self.packed.slice_ref(packed.text()?));
        }
        if packed.is_empty() { Ok(texts) } else { Err(damaged()) }
    }
}

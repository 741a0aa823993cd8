//! Hashes: fields with values, some of them with an end. Layout: store/FORMAT.md.
//!
//! A field past its end is not there for anybody; the primary deletes it soon after (`drop_expired`). Knows no
//! command and no reply.

use super::map::Map;
use super::names;
use super::packed::{Packed, damaged};
use super::stretch::{Firsts, Found, Stretch};
use super::value::{self, Place, Stored, VALUE_INLINE_MAX_BYTES};
use crate::error::Stop;
use crate::store::row::{Body, Extra, Form, Kind, Row, Version};
use crate::store::tx::{KeyRef, Sub, Subs, Tx};
use bytes::Bytes;

/// Redis's compact form holds so many fields, none of them and no value longer than so many bytes.
const LISTPACK_MAX: u64 = 512;
const LISTPACK_MAX_BYTES: usize = 64;
/// Elements by the end of their field: this tag, the moment, then as `names::sub` without its tag.
const TAG_ENDS: u8 = 2;

/// How redis-server 7.0 would hold it.
pub fn encoding(row: &Row) -> &'static str {
    if row.form == Form::Raw { "hashtable" } else { "listpack" }
}

pub struct Hash<'k>(Map<'k>);

/// Is shown a field and its value until it answers false.
pub type See<'v> = dyn FnMut(&[u8], Bytes) -> Result<bool, Stop> + 'v;

/// What is to become of a field's end when its value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Keep,
    Never,
    At(u64),
}

impl<'k> Hash<'k> {
    /// As `Map::load`.
    pub fn load(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Option<Hash<'k>>, Stop> {
        Ok(Map::load(tx, key, Kind::Hash)?.map(Hash))
    }

    /// What a key holds, or a new hash.
    pub fn open(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Hash<'k>, Stop> {
        Ok(Hash::load(tx, key)?.unwrap_or_else(|| Hash(Map::new(key, Kind::Hash))))
    }

    /// An empty one in place of whatever the key holds.
    pub fn in_place(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Hash<'k>, Stop> {
        Ok(Hash(Map::in_place(tx, key, Kind::Hash)?))
    }

    /// Fields that are there.
    pub fn len(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        self.0.len()?.checked_sub(self.expired(tx)?).ok_or_else(damaged)
    }

    /// Fields past their end that are not deleted yet.
    fn expired(&self, tx: &mut Tx<'_>) -> Result<u64, Stop> {
        let now_ms = tx.now_ms();
        if self.0.row.field_expire_ms.is_none_or(|soonest| soonest > now_ms) {
            return Ok(0);
        }
        let mut expired = 0;
        if let Some(version) = self.0.version() {
            tx.scan(self.0.key, version, &ended(now_ms), &mut |_, _| {
                expired += 1;
                Ok(true)
            })?;
        } else {
            self.0.visit(tx, &mut |_, stored| {
                expired += u64::from(!Stored::decode(stored)?.is_there(now_ms));
                Ok(true)
            })?;
        }
        Ok(expired)
    }

    pub fn get(&self, tx: &mut Tx<'_>, field: &[u8]) -> Result<Option<Bytes>, Stop> {
        match self.stored(tx, field)? {
            Some(stored) => self.read(tx, &stored).map(Some),
            None => Ok(None),
        }
    }

    /// Length of a value and the end of its field, without reading it.
    pub fn look(&self, tx: &mut Tx<'_>, field: &[u8]) -> Result<Option<(u64, Option<u64>)>, Stop> {
        let Some(stored) = self.stored(tx, field)? else { return Ok(None) };
        let stored = Stored::decode(&stored)?;
        Ok(Some((stored.len(), stored.expire_ms)))
    }

    fn stored(&self, tx: &mut Tx<'_>, field: &[u8]) -> Result<Option<Bytes>, Stop> {
        let Some(stored) = self.0.get(tx, field)? else { return Ok(None) };
        Ok(if Stored::decode(&stored)?.is_there(tx.now_ms()) { Some(stored) } else { None })
    }

    fn read(&self, tx: &mut Tx<'_>, stored: &[u8]) -> Result<Bytes, Stop> {
        Stored::decode(stored)?.read(tx, self.0.key, self.0.version())
    }

    /// Gives a field a value; true if it was not there.
    pub fn set(&mut self, tx: &mut Tx<'_>, field: &[u8], value: &[u8], end: End) -> Result<bool, Stop> {
        if field.len() > LISTPACK_MAX_BYTES || value.len() > LISTPACK_MAX_BYTES {
            self.0.set_raw();
        }
        let expire_ms = match end {
            End::Never => None,
            End::At(at) => Some(at),
            End::Keep => match self.stored(tx, field)? {
                Some(stored) => Stored::decode(&stored)?.expire_ms,
                None => None,
            },
        };
        let mut stored = Vec::with_capacity(value.len() + 9);
        if value.len() <= VALUE_INLINE_MAX_BYTES {
            value::encode_short(value, expire_ms, &mut stored);
        } else {
            let version = self.0.spread(tx)?;
            let mut next_piece = self.next_piece()?;
            let mut place = Place { key: self.0.key, version, next_piece: &mut next_piece };
            value::encode(tx, &mut place, value, expire_ms, &mut stored)?;
            self.0.change(|row| set_next_piece(row, next_piece));
        }
        let before = self.0.put(tx, field, &stored, |_| false)?;
        let was_there = self.replaced(tx, field, before.as_deref(), expire_ms)?;
        if self.0.len()? > LISTPACK_MAX {
            self.0.set_raw();
        }
        Ok(!was_there)
    }

    /// Changes when a field ends; it must be there.
    pub fn set_end(&mut self, tx: &mut Tx<'_>, field: &[u8], expire_ms: Option<u64>) -> Result<(), Stop> {
        let stored = self.stored(tx, field)?.ok_or_else(damaged)?;
        let mut changed = Vec::with_capacity(stored.len() + 8);
        Stored::decode(&stored)?.with_end(expire_ms, &mut changed);
        let before = self.0.put(tx, field, &changed, |_| false)?;
        self.index(tx, field, before.as_deref(), expire_ms)
    }

    /// Takes a field out; true if it was there.
    pub fn remove(&mut self, tx: &mut Tx<'_>, field: &[u8]) -> Result<bool, Stop> {
        let Some(before) = self.0.remove(tx, field)? else { return Ok(false) };
        self.replaced(tx, field, Some(&before), None)
    }

    /// A field's element is another now; what the old one had beside it goes. True if it was there.
    fn replaced(
        &mut self,
        tx: &mut Tx<'_>,
        field: &[u8],
        before: Option<&[u8]>,
        expire_ms: Option<u64>,
    ) -> Result<bool, Stop> {
        self.index(tx, field, before, expire_ms)?;
        let Some(before) = before else { return Ok(false) };
        let before = Stored::decode(before)?;
        before.forget(tx, self.0.key, self.0.version())?;
        Ok(before.is_there(tx.now_ms()))
    }

    /// Keeps the index of ends and the row's soonest one.
    fn index(
        &mut self,
        tx: &mut Tx<'_>,
        field: &[u8],
        before: Option<&[u8]>,
        expire_ms: Option<u64>,
    ) -> Result<(), Stop> {
        let ended = match before {
            Some(before) => Stored::decode(before)?.expire_ms,
            None => None,
        };
        if let Some(version) = self.0.version() {
            if let Some(at) = ended.filter(|_| ended != expire_ms) {
                tx.put_element(self.0.key, version, &end_sub(at, field), None);
            }
            if let Some(at) = expire_ms {
                tx.put_element(self.0.key, version, &end_sub(at, field), Some(Bytes::new()));
            }
        }
        if let Some(at) = expire_ms
            && self.0.row.field_expire_ms.is_none_or(|soonest| at < soonest)
        {
            self.0.change(|row| row.field_expire_ms = Some(at));
        }
        Ok(())
    }

    /// Every field with its value, until `visit` answers false.
    pub fn visit(&self, tx: &mut Tx<'_>, visit: &mut See<'_>) -> Result<(), Stop> {
        let now_ms = tx.now_ms();
        // Values in pieces are read afterwards: a scan shows one element at a time.
        let mut long = Vec::new();
        let mut more = true;
        self.0.visit(tx, &mut |field, stored| {
            let stored = Stored::decode(stored)?;
            if !stored.is_there(now_ms) {
                return Ok(true);
            }
            match stored.here() {
                Some(value) => more = visit(field, Bytes::copy_from_slice(value))?,
                None => long.push(Bytes::copy_from_slice(field)),
            }
            Ok(more)
        })?;
        for field in long {
            if !more {
                break;
            }
            let value = self.get(tx, &field)?.ok_or_else(damaged)?;
            more = visit(&field, value)?;
        }
        Ok(())
    }

    /// The first fields of a stretch, wherever they lie: looks at every field.
    pub fn first(
        &self,
        tx: &mut Tx<'_>,
        stretch: &Stretch,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Found<()>, Stop> {
        let now_ms = tx.now_ms();
        let mut firsts = Firsts::new(limit, bytes_max, stretch.backward);
        self.0.visit(tx, &mut |field, stored| {
            if stretch.holds(field) && Stored::decode(stored)?.is_there(now_ms) {
                firsts.add(field, ());
            }
            Ok(true)
        })?;
        Ok(firsts.found())
    }

    /// Fields with values and ends, for a copy in another form.
    pub fn all(&self, tx: &mut Tx<'_>) -> Result<Vec<(Bytes, Bytes, Option<u64>)>, Stop> {
        let now_ms = tx.now_ms();
        let mut all = Vec::new();
        for (field, stored) in self.0.all(tx)? {
            let decoded = Stored::decode(&stored)?;
            if decoded.is_there(now_ms) {
                all.push((field, self.read(tx, &stored)?, decoded.expire_ms));
            }
        }
        Ok(all)
    }

    /// As `Map::scan`, with values.
    pub fn scan(&self, tx: &mut Tx<'_>, cursor: u64, count: u64) -> Result<(u64, Vec<(Bytes, Bytes)>), Stop> {
        let (now_ms, mut found) = (tx.now_ms(), Vec::new());
        let next = self.0.scan(tx, cursor, count, &mut |field, stored| {
            if Stored::decode(stored)?.is_there(now_ms) {
                found.push((Bytes::copy_from_slice(field), Bytes::copy_from_slice(stored)));
            }
            Ok(())
        })?;
        let mut fields = Vec::with_capacity(found.len());
        for (field, stored) in found {
            let value = self.read(tx, &stored)?;
            fields.push((field, value));
        }
        Ok((next, fields))
    }

    /// Several different fields with their values by chance; all of them if there are no more than `count`.
    pub fn sample(&self, tx: &mut Tx<'_>, count: u64) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        let sampled = match self.expired(tx)? {
            0 => self.0.sample(tx, count)?,
            _ => {
                let now_ms = tx.now_ms();
                let mut there = Vec::new();
                for (field, stored) in self.0.all(tx)? {
                    if Stored::decode(&stored)?.is_there(now_ms) {
                        there.push((field, stored));
                    }
                }
                tx.random().shuffle(&mut there);
                there.truncate(usize::try_from(count).unwrap_or(usize::MAX));
                there
            }
        };
        let mut fields = Vec::with_capacity(sampled.len());
        for (field, stored) in sampled {
            let value = self.read(tx, &stored)?;
            fields.push((field, value));
        }
        Ok(fields)
    }

    /// Deletes up to `most` fields past their end, the first first, and notes when the next one is due.
    /// Answers how many it has deleted.
    pub fn drop_expired(&mut self, tx: &mut Tx<'_>, most: usize) -> Result<usize, Stop> {
        let now_ms = tx.now_ms();
        let (mut due, mut next) = (Vec::new(), None::<u64>);
        if let Some(version) = self.0.version() {
            let subs = Subs::of(&[TAG_ENDS]);
            tx.scan(self.0.key, version, &subs, &mut |sub, _| {
                let mut rest = Packed(sub.get(1..).ok_or_else(damaged)?);
                let at = rest.u64()?;
                if at <= now_ms && due.len() < most {
                    rest.u64()?;
                    due.push(Bytes::copy_from_slice(rest.0));
                    return Ok(true);
                }
                next = Some(at);
                Ok(false)
            })?;
        } else {
            self.0.visit(tx, &mut |field, stored| {
                match Stored::decode(stored)?.expire_ms {
                    Some(at) if at <= now_ms => due.push(Bytes::copy_from_slice(field)),
                    Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                    None => {}
                }
                Ok(true)
            })?;
        }
        for field in &due {
            self.remove(tx, field)?;
        }
        if self.0.row.field_expire_ms != next {
            self.0.change(|row| row.field_expire_ms = next);
        }
        Ok(due.len())
    }

    /// As `Map::save`.
    pub fn save(self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        self.0.save(tx)
    }

    fn next_piece(&self) -> Result<u64, Stop> {
        match self.0.row.body {
            Body::Elements { extra: Extra::Hash { next_piece }, .. } => Ok(next_piece),
            _ => Err(damaged()),
        }
    }
}

fn set_next_piece(row: &mut Row, next: u64) {
    if let Body::Elements { extra: Extra::Hash { next_piece }, .. } = &mut row.body {
        *next_piece = next;
    }
}

/// Where a field stands by its end.
fn end_sub(expire_ms: u64, field: &[u8]) -> Sub {
    let mut sub = Sub::from_slice(&[TAG_ENDS]);
    sub.extend_from_slice(&expire_ms.to_be_bytes());
    sub.extend_from_slice(&names::sub(field)[1..]);
    sub
}

/// All that end at `now_ms` at the latest.
fn ended(now_ms: u64) -> Subs {
    let mut to = vec![TAG_ENDS];
    to.extend_from_slice(&now_ms.saturating_add(1).to_be_bytes());
    Subs::new(&[TAG_ENDS], &to)
}

/// Puts the elements by end for fields that have just left their row: see `Map::spread`.
pub(super) fn index_spread(
    tx: &mut Tx<'_>,
    key: KeyRef<'_>,
    version: Version,
    field: &[u8],
    stored: &[u8],
) -> Result<(), Stop> {
    if let Some(at) = Stored::decode(stored)?.expire_ms {
        tx.put_element(key, version, &end_sub(at, field), Some(Bytes::new()));
    }
    Ok(())
}

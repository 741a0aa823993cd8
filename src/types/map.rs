//! Names with what belongs to each: the ground of hashes (fields and their values) and of sets (members and
//! nothing). In the row while small, by name in elements once large. Layout: store/FORMAT.md.
//!
//! Knows no field's end and no number; what a name's payload means is for `hash` to know.

use super::names::{self, Named, Names, See};
use super::packed::{Packed, damaged, put_number, put_text};
use crate::error::Stop;
use crate::store::copied;
use crate::store::row::{Body, Extra, Form, Kind, Row, Version};
use crate::store::tx::{KeyRef, Tx};
use bytes::Bytes;

/// A collection stands in its row up to so many elements and bytes.
pub const INLINE_MAX: u64 = 128;
pub const INLINE_MAX_BYTES: usize = 4096;

/// A hash's or a set's names, as of the last command with this one's changes.
pub struct Map<'k> {
    pub key: KeyRef<'k>,
    pub row: Row,
    existed: bool,
    changed: bool,
}

impl<'k> Map<'k> {
    /// What a key holds; None without the key.
    ///
    /// # Errors
    /// When it holds another type.
    pub fn load(tx: &mut Tx<'_>, key: KeyRef<'k>, kind: Kind) -> Result<Option<Map<'k>>, Stop> {
        Ok(tx.row_of(key, kind)?.map(|row| Map { key, row, existed: true, changed: false }))
    }

    /// For a key that is not there.
    pub fn new(key: KeyRef<'k>, kind: Kind) -> Map<'k> {
        let row = Row::new(kind, Body::Inline(Bytes::from_static(&[0])));
        Map { key, row, existed: false, changed: false }
    }

    /// In place of whatever a key holds: its end goes too.
    pub fn in_place(tx: &mut Tx<'_>, key: KeyRef<'k>, kind: Kind) -> Result<Map<'k>, Stop> {
        let existed = tx.row(key)?.is_some();
        Ok(Map { existed, changed: existed, ..Map::new(key, kind) })
    }

    /// Number of names.
    #[expect(clippy::len_without_is_empty, reason = "a key without elements is gone")]
    pub fn len(&self) -> Result<u64, Stop> {
        match &self.row.body {
            Body::Inline(body) => Packed(body).number(),
            Body::Elements { count, .. } => Ok(*count),
            Body::Pieces { .. } => Err(damaged()),
        }
    }

    pub fn version(&self) -> Option<Version> {
        self.row.version()
    }

    /// Changes the row's head.
    pub fn change(&mut self, change: impl FnOnce(&mut Row)) {
        change(&mut self.row);
        self.changed = true;
    }

    /// Redis would not hold it in its compact form any more.
    pub fn set_raw(&mut self) {
        if self.row.form != Form::Raw {
            self.change(|row| row.form = Form::Raw);
        }
    }

    /// Payload of a name.
    pub fn get(&self, tx: &mut Tx<'_>, name: &[u8]) -> Result<Option<Bytes>, Stop> {
        match &self.row.body {
            Body::Inline(body) => {
                let mut entries = self.entries(body)?;
                while let Some((of, payload)) = entries.next()? {
                    if of == name {
                        return Ok(Some(body.slice_ref(payload)));
                    }
                }
                Ok(None)
            }
            Body::Elements { version, .. } => tx.element(self.key, *version, &names::sub(name)),
            Body::Pieces { .. } => Err(damaged()),
        }
    }

    /// Gives a name a payload; answers the one before. In a row, a new name comes before the first that
    /// `precedes` says it precedes, or last.
    pub fn put(
        &mut self,
        tx: &mut Tx<'_>,
        name: &[u8],
        payload: &[u8],
        precedes: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Bytes>, Stop> {
        let body = match &mut self.row.body {
            Body::Inline(body) => body.clone(),
            Body::Elements { version, count, .. } => {
                let (version, sub) = (*version, names::sub(name));
                let before = tx.element(self.key, version, &sub)?;
                if before.is_none() {
                    *count += 1;
                    self.changed = true;
                }
                if before.as_deref() != Some(payload) {
                    tx.put_element(self.key, version, &sub, Some(copied(payload)));
                }
                return Ok(before);
            }
            Body::Pieces { .. } => return Err(damaged()),
        };
        let valued = self.is_valued();
        let mut rebuilt = Rebuilt::with_room(body.len() + name.len() + payload.len() + 20, valued);
        let (mut before, mut placed) = (None, false);
        let mut entries = self.entries(&body)?;
        while let Some((of, old)) = entries.next()? {
            if of == name {
                before = Some(body.slice_ref(old));
                if old == payload {
                    return Ok(before);
                }
                rebuilt.push(name, payload);
                placed = true;
                continue;
            }
            if !placed && precedes(of) {
                rebuilt.push(name, payload);
                placed = true;
            }
            rebuilt.push(of, old);
        }
        if !placed {
            rebuilt.push(name, payload);
        }
        self.set_body(tx, rebuilt)?;
        Ok(before)
    }

    /// Takes a name out; answers its payload.
    pub fn remove(&mut self, tx: &mut Tx<'_>, name: &[u8]) -> Result<Option<Bytes>, Stop> {
        let body = match &mut self.row.body {
            Body::Inline(body) => body.clone(),
            Body::Elements { version, count, .. } => {
                let (version, sub) = (*version, names::sub(name));
                let before = tx.element(self.key, version, &sub)?;
                if before.is_some() {
                    *count = count.checked_sub(1).ok_or_else(damaged)?;
                    self.changed = true;
                    tx.put_element(self.key, version, &sub, None);
                }
                return Ok(before);
            }
            Body::Pieces { .. } => return Err(damaged()),
        };
        let mut rebuilt = Rebuilt::with_room(body.len(), self.is_valued());
        let mut before = None;
        let mut entries = self.entries(&body)?;
        while let Some((of, old)) = entries.next()? {
            if of == name {
                before = Some(body.slice_ref(old));
            } else {
                rebuilt.push(of, old);
            }
        }
        if before.is_some() {
            self.set_body(tx, rebuilt)?;
        }
        Ok(before)
    }

    /// Every name with its payload, until `visit` answers false. In a row in the order they stand in.
    pub fn visit(&self, tx: &mut Tx<'_>, visit: &mut See<'_, bool>) -> Result<(), Stop> {
        match &self.row.body {
            Body::Inline(body) => {
                let mut entries = self.entries(body)?;
                while let Some((name, payload)) = entries.next()? {
                    if !visit(name, payload)? {
                        break;
                    }
                }
                Ok(())
            }
            Body::Elements { version, .. } => self.names(*version).visit(tx, visit),
            Body::Pieces { .. } => Err(damaged()),
        }
    }

    /// About `count` names from a cursor on, all of them where they stand in a row; answers where to go on.
    pub fn scan(
        &self,
        tx: &mut Tx<'_>,
        cursor: u64,
        count: u64,
        visit: &mut See<'_, ()>,
    ) -> Result<u64, Stop> {
        match self.row.version() {
            Some(version) => self.names(version).scan(tx, cursor, count, visit),
            None => {
                self.visit(tx, &mut |name, payload| visit(name, payload).map(|()| true))?;
                Ok(0)
            }
        }
    }

    /// One name by chance, of those that are there; it must hold one.
    pub fn random(&self, tx: &mut Tx<'_>) -> Result<Named, Stop> {
        let len = self.len()?;
        match self.row.version() {
            Some(version) => self.names(version).random(tx, len),
            None => {
                let chosen = tx.random().u64(..len.max(1));
                self.all(tx)?.into_iter().nth(chosen as usize).ok_or_else(damaged)
            }
        }
    }

    /// Several different names by chance; all of them if there are no more than `count`.
    pub fn sample(&self, tx: &mut Tx<'_>, count: u64) -> Result<Vec<Named>, Stop> {
        let len = self.len()?;
        if let Some(version) = self.row.version() {
            return self.names(version).sample(tx, len, count);
        }
        let mut all = self.all(tx)?;
        if count < len {
            tx.random().shuffle(&mut all);
            all.truncate(count as usize);
        }
        Ok(all)
    }

    pub fn all(&self, tx: &mut Tx<'_>) -> Result<Vec<Named>, Stop> {
        let mut all = Vec::new();
        self.visit(tx, &mut |name, payload| {
            all.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(payload)));
            Ok(true)
        })?;
        Ok(all)
    }

    /// Puts the row if it has changed; the last name takes the key with it.
    pub fn save(self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        if !self.changed {
            return Ok(());
        }
        let empty = self.len()? == 0;
        tx.put_unless_empty(self.key, self.row, self.existed, empty);
        Ok(())
    }

    /// Moves the names out of the row, whatever their number.
    pub fn spread(&mut self, tx: &mut Tx<'_>) -> Result<Version, Stop> {
        let Body::Inline(body) = &self.row.body else {
            return self.row.version().ok_or_else(damaged);
        };
        let (body, version) = (body.clone(), tx.new_version(self.key)?);
        let count = Packed(&body).number()?;
        let mut entries = self.entries(&body)?;
        while let Some((name, payload)) = entries.next()? {
            tx.put_element(self.key, version, &names::sub(name), Some(body.slice_ref(payload)));
            if self.row.field_expire_ms.is_some() {
                super::hash::index_spread(tx, self.key, version, name, payload)?;
            }
        }
        let extra = if self.is_valued() { Extra::Hash { next_piece: 0 } } else { Extra::None };
        self.change(|row| row.body = Body::Elements { version, count, extra });
        Ok(version)
    }

    fn names(&self, version: Version) -> Names<'k> {
        Names { key: self.key, version }
    }

    fn is_valued(&self) -> bool {
        self.row.kind == Kind::Hash
    }

    fn entries<'b>(&self, body: &'b [u8]) -> Result<Entries<'b>, Stop> {
        let mut packed = Packed(body);
        packed.number()?;
        Ok(Entries { packed, valued: self.is_valued() })
    }

    fn set_body(&mut self, tx: &mut Tx<'_>, rebuilt: Rebuilt) -> Result<(), Stop> {
        let body = rebuilt.finish();
        let fits = rebuilt.count <= INLINE_MAX && body.len() <= INLINE_MAX_BYTES;
        self.change(|row| row.body = Body::Inline(body));
        if !fits {
            self.spread(tx)?;
        }
        Ok(())
    }
}

/// A name and its payload.
type Entry<'b> = (&'b [u8], &'b [u8]);

/// The names in a row.
struct Entries<'b> {
    packed: Packed<'b>,
    valued: bool,
}

impl<'b> Entries<'b> {
    fn next(&mut self) -> Result<Option<Entry<'b>>, Stop> {
        if self.packed.is_empty() {
            return Ok(None);
        }
        let name = self.packed.text()?;
        // A payload of nothing lies within the body too: it is cut out of it.
        let payload = if self.valued { self.packed.text()? } else { &name[name.len()..] };
        Ok(Some((name, payload)))
    }
}

/// A row's body while it is written anew.
struct Rebuilt {
    entries: Vec<u8>,
    count: u64,
    valued: bool,
}

impl Rebuilt {
    fn with_room(bytes: usize, valued: bool) -> Rebuilt {
        Rebuilt { entries: Vec::with_capacity(bytes), count: 0, valued }
    }

    fn push(&mut self, name: &[u8], payload: &[u8]) {
        put_text(&mut self.entries, name);
        if self.valued {
            put_text(&mut self.entries, payload);
        }
        self.count += 1;
    }

    fn finish(&self) -> Bytes {
        let mut body = Vec::with_capacity(self.entries.len() + 2);
        put_number(&mut body, self.count);
        body.extend_from_slice(&self.entries);
        body.into()
    }
}

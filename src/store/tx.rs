//! One command's view of the data: reads through a `Source`, effects gathered apart.
//!
//! The same handler runs over the shard itself, over rows fetched from several shards, or over a
//! snapshot on the blocking pool; only the `Source` differs. Must not know which.

use super::row::{Kind, Row, Version};
use super::value::copied;
use crate::error::{ClientError, Stop};
use crate::resp::stream::{Parts, Shape};
use crate::slot::{Slot, SlotHash, TableId};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A key with its place in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef<'k> {
    pub table: TableId,
    pub slot: Slot,
    pub name: &'k [u8],
}

/// The part of an element's key behind the version; its first byte says what kind of element it is.
pub type Sub = SmallVec<[u8; 32]>;

/// The elements of one version from a sub up to another, which is not included.
#[derive(Clone, Debug, PartialEq)]
pub struct Subs {
    pub from: Sub,
    pub to: Sub,
    pub backward: bool,
}

impl Subs {
    pub fn new(from: &[u8], to: &[u8]) -> Subs {
        Subs { from: Sub::from_slice(from), to: Sub::from_slice(to), backward: false }
    }

    /// All that begin so; `prefix` begins with a tag.
    pub fn of(prefix: &[u8]) -> Subs {
        let mut subs = Subs::new(prefix, prefix);
        while subs.to.last() == Some(&u8::MAX) {
            subs.to.pop();
        }
        *subs.to.last_mut().expect("tags lie below 255") += 1;
        subs
    }

    pub fn backward(self) -> Subs {
        Subs { backward: true, ..self }
    }
}

/// Is shown elements, sub and value, until it answers false.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<bool, Stop> + 'v;

/// Where a handler's reads come from.
pub trait Source {
    /// The row under a name, expired or not. `Stop::Cold` when it is not in memory.
    fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop>;

    /// One element of a key's value: for a long string, `sub` is the piece's number, big-endian u32.
    fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop>;

    /// Elements of a version in the order of their subs.
    fn scan(
        &mut self,
        key: KeyRef<'_>,
        version: Version,
        subs: &Subs,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop>;

    /// The index the slot's next record will have: the upper part of a new `Version`.
    fn next_index(&mut self, table: TableId, slot: Slot) -> u64;

    /// Seconds since the key was last used, as far as memory goes back: 0 for a key that is not there.
    fn idle_seconds(&mut self, key: KeyRef<'_>) -> u64;
}

/// What a command does to one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The row under the name becomes this.
    Put(Row),
    /// The name is gone; its elements, if any, become garbage of their version.
    Delete,
    /// One element becomes this, or is gone.
    Element { version: Version, sub: Sub, value: Option<Bytes> },
}

/// One change with the key it falls on.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub table: TableId,
    pub slot: Slot,
    pub name: Bytes,
    pub change: Change,
    /// Whether the name had a living row before, where the command had to look; for counting keys.
    pub existed: Option<bool>,
}

/// Facts about the caller that a handler may use.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The table that SELECT chose.
    pub table: TableId,
    pub hash: SlotHash,
    /// Number of tables that may be named.
    pub tables: u32,
    /// Fixed for the turn: handlers never read a clock. Milliseconds since the epoch.
    pub now_ms: u64,
    /// Longest value accepted, bytes.
    pub value_max_bytes: u64,
    /// Reads a handler may make before it must leave the core's turn; none on the pool.
    pub steps_max: u32,
    /// Elements one reply may have; 0: any number.
    pub reply_max_elements: u64,
    /// Where a command's chances come from.
    pub seed: u64,
}

/// What becomes of a reply of many entries.
pub enum Sink {
    /// It is held whole.
    Hold,
    /// The handler stops with `Stop::LongReply`, and leaves `Offered` here.
    Offer,
    /// The reply would have so many entries.
    Offered { shape: Shape, count: u64 },
    /// Its entries go here.
    Parts(Parts),
}

/// A command in progress.
pub struct Tx<'s> {
    pub scope: Scope,
    pub sink: Sink,
    source: &'s mut dyn Source,
    /// What happens to rows, in order.
    effects: SmallVec<[Effect; 1]>,
    /// Last row effect by name, kept only once there are many effects.
    latest: FxHashMap<(TableId, Bytes), usize>,
    /// What happens to elements, the last of each. A version is given once in a slot, so it stands for the key.
    elements: BTreeMap<(TableId, Slot, Version, Sub), Written>,
    versions: u16,
    /// Versions this command has begun: nothing of them is anywhere else.
    fresh: SmallVec<[(TableId, Slot, Version); 1]>,
    steps: u32,
    random: fastrand::Rng,
}

/// An element's new value, None if it is gone, and the key it belongs to.
struct Written {
    name: Bytes,
    value: Option<Bytes>,
}

/// Below this many effects a command's own writes are found by looking through them.
const SCAN_EFFECTS_MAX: usize = 8;

impl<'s> Tx<'s> {
    pub fn new(scope: Scope, source: &'s mut dyn Source) -> Tx<'s> {
        Tx {
            scope,
            sink: Sink::Hold,
            source,
            effects: SmallVec::new(),
            latest: FxHashMap::default(),
            elements: BTreeMap::new(),
            versions: 0,
            fresh: SmallVec::new(),
            steps: 0,
            random: fastrand::Rng::with_seed(scope.seed),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.scope.now_ms
    }

    /// The key of this name in the caller's table.
    pub fn key<'k>(&self, name: &'k [u8]) -> KeyRef<'k> {
        self.key_in(self.scope.table, name)
    }

    pub fn key_in<'k>(&self, table: TableId, name: &'k [u8]) -> KeyRef<'k> {
        KeyRef { table, slot: self.scope.hash.slot_of(name), name }
    }

    /// Counts work; fails with `Stop::Long` when it is more than a turn may spend.
    pub fn spend(&mut self, steps: u32) -> Result<(), Stop> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.scope.steps_max { Err(Stop::Long) } else { Ok(()) }
    }

    /// The living row of a key, with this command's own writes in it.
    pub fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
        let now_ms = self.scope.now_ms;
        let row = match self.own(key) {
            Some(Change::Put(row)) => Some(row.clone()),
            Some(_) => None,
            None => {
                self.spend(1)?;
                self.source.row(key)?
            }
        };
        Ok(row.filter(|row| !row.expired(now_ms)))
    }

    /// As `row`, for a key that must hold this type.
    ///
    /// # Errors
    /// When it holds another.
    pub fn row_of(&mut self, key: KeyRef<'_>, kind: Kind) -> Result<Option<Row>, Stop> {
        match self.row(key)? {
            Some(row) if row.kind != kind => Err(ClientError::WRONG_TYPE.into()),
            row => Ok(row),
        }
    }

    /// An element, with this command's own writes in it.
    pub fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        self.spend(1)?;
        if !self.elements.is_empty()
            && let Some(own) = self.elements.get(&(key.table, key.slot, version, Sub::from_slice(sub)))
        {
            return Ok(own.value.clone());
        }
        if self.is_fresh(key, version) { Ok(None) } else { self.source.element(key, version, sub) }
    }

    /// Elements of a version in the order of their subs, with this command's own writes among them. Each
    /// counts as a step.
    pub fn scan(
        &mut self,
        key: KeyRef<'_>,
        version: Version,
        subs: &Subs,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        let fresh = self.is_fresh(key, version);
        let (steps, steps_max) = (&mut self.steps, self.scope.steps_max);
        let mut counted = |sub: &[u8], value: &[u8]| {
            *steps = steps.saturating_add(1);
            if *steps > steps_max { Err(Stop::Long) } else { visit(sub, value) }
        };
        if self.elements.is_empty() || subs.from >= subs.to {
            return if fresh { Ok(()) } else { self.source.scan(key, version, subs, &mut counted) };
        }
        let at = |sub: &Sub| (key.table, key.slot, version, sub.clone());
        let own = self.elements.range(at(&subs.from)..at(&subs.to));
        let own = own.map(|((.., sub), written)| (&sub[..], written.value.as_deref()));
        let source = &mut self.source;
        let below = |visit: &mut Visit<'_>| match fresh {
            true => Ok(()),
            false => source.scan(key, version, subs, visit),
        };
        if subs.backward {
            overlaid(own.rev(), true, below, &mut counted)
        } else {
            overlaid(own, false, below, &mut counted)
        }
    }

    pub fn idle_seconds(&mut self, key: KeyRef<'_>) -> u64 {
        self.source.idle_seconds(key)
    }

    /// `existed`: whether the key had a living row, if the command looked.
    pub fn put(&mut self, key: KeyRef<'_>, row: Row, existed: Option<bool>) {
        self.push(key, Change::Put(row), existed);
    }

    /// Only for a key that has a living row.
    pub fn delete(&mut self, key: KeyRef<'_>) {
        self.push(key, Change::Delete, Some(true));
    }

    /// Puts the row of a collection that has changed; without elements the key goes, if it was there.
    pub fn put_unless_empty(&mut self, key: KeyRef<'_>, row: Row, existed: bool, empty: bool) {
        if !empty {
            self.put(key, row, Some(existed));
        } else if existed {
            self.delete(key);
        }
    }

    pub fn put_element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8], value: Option<Bytes>) {
        let name = match self.elements.last_key_value() {
            Some((_, last)) if last.name == key.name => last.name.clone(),
            _ => copied(key.name),
        };
        let at = (key.table, key.slot, version, Sub::from_slice(sub));
        self.elements.insert(at, Written { name, value });
    }

    /// A version no other life of any key has, on this node or another.
    pub fn new_version(&mut self, key: KeyRef<'_>) -> Result<Version, Stop> {
        let counter = self.versions;
        self.versions = counter
            .checked_add(1)
            .ok_or_else(|| ClientError::fixed("ERR too many new large values in one command"))?;
        let version = Version(self.source.next_index(key.table, key.slot) << 16 | u64::from(counter));
        self.fresh.push((key.table, key.slot, version));
        Ok(version)
    }

    fn is_fresh(&self, key: KeyRef<'_>, version: Version) -> bool {
        self.fresh.contains(&(key.table, key.slot, version))
    }

    /// Chances of this command.
    pub fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }

    /// What the command does; empty for one that only reads. Elements come before the rows that name them.
    pub fn into_effects(self) -> SmallVec<[Effect; 1]> {
        if self.elements.is_empty() {
            return self.effects;
        }
        let element = |((table, slot, version, sub), Written { name, value })| {
            let change = Change::Element { version, sub, value };
            Effect { table, slot, name, change, existed: None }
        };
        self.elements.into_iter().map(element).chain(self.effects).collect()
    }

    fn own(&self, key: KeyRef<'_>) -> Option<&Change> {
        let of_key = |effect: &&Effect| effect.name == key.name && effect.table == key.table;
        if self.effects.len() <= SCAN_EFFECTS_MAX {
            return self.effects.iter().rev().find(of_key).map(|effect| &effect.change);
        }
        let at = self.latest.get(&(key.table, Bytes::copy_from_slice(key.name)))?;
        Some(&self.effects[*at].change)
    }

    fn push(&mut self, key: KeyRef<'_>, change: Change, existed: Option<bool>) {
        let name = match self.effects.last() {
            Some(last) if last.name == key.name => last.name.clone(),
            _ => Bytes::copy_from_slice(key.name),
        };
        self.effects.push(Effect { table: key.table, slot: key.slot, name, change, existed });
        let count = self.effects.len();
        if count > SCAN_EFFECTS_MAX {
            let from = if self.latest.is_empty() { 0 } else { count - 1 };
            for (at, effect) in self.effects.iter().enumerate().skip(from) {
                self.latest.insert((effect.table, effect.name.clone()), at);
            }
        }
    }
}

/// Visits elements with newer ones laid over them: `own` in the order of the visit, None where one is gone.
pub fn overlaid<'o>(
    own: impl Iterator<Item = (&'o [u8], Option<&'o [u8]>)>,
    backward: bool,
    below: impl FnOnce(&mut Visit<'_>) -> Result<(), Stop>,
    visit: &mut Visit<'_>,
) -> Result<(), Stop> {
    let mut own = own.peekable();
    let mut more = true;
    let before = |a: &[u8], b: &[u8]| if backward { a > b } else { a < b };
    below(&mut |sub, value| {
        while let Some((own_sub, own_value)) = own.next_if(|(own_sub, _)| before(own_sub, sub)) {
            if let Some(own_value) = own_value
                && !visit(own_sub, own_value)?
            {
                more = false;
                return Ok(false);
            }
        }
        more = match own.next_if(|(own_sub, _)| *own_sub == sub) {
            Some((_, None)) => true,
            Some((_, Some(value))) => visit(sub, value)?,
            None => visit(sub, value)?,
        };
        Ok(more)
    })?;
    while more && let Some((sub, value)) = own.next() {
        if let Some(value) = value {
            more = visit(sub, value)?;
        }
    }
    Ok(())
}

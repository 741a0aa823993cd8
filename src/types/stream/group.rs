//! A group of consumers: how far it has read, and which entries wait for whose acknowledgement.
//!
//! What is pending stands twice, by id and by its consumer, so that both can be walked in order. Knows no
//! entry's content.

use super::{Life, sub};
use crate::error::Stop;
use crate::store::row::StreamId;
use crate::store::tx::{Sub, Subs, Tx};
use crate::types::packed::{Packed, damaged};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Stands for a number or a time that is not known.
const UNKNOWN: u64 = u64::MAX;

/// Ids of a consumer that are looked up together.
const BATCH: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupHead {
    /// The last id that was delivered.
    pub last_id: StreamId,
    /// No greater id was ever pending: what is delivered for the first time need not be looked for.
    highest: StreamId,
    /// How many entries were read, counted from the first that was ever added.
    pub entries_read: Option<u64>,
    pub pending: u64,
    pub consumers: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// When it last asked for anything, in milliseconds since 1970.
    pub seen_ms: u64,
    /// When it last got anything.
    pub active_ms: Option<u64>,
    pub pending: u64,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Of the last delivery, in milliseconds since 1970.
    pub delivered_ms: u64,
    pub deliveries: u64,
    pub consumer: Bytes,
}

/// Which pending entries are wanted.
#[derive(Clone, Copy, Debug)]
pub struct PendingRange<'c> {
    /// Of this one alone.
    pub consumer: Option<&'c [u8]>,
    /// Both included.
    pub from: StreamId,
    pub to: StreamId,
    /// Delivered at this moment or before.
    pub delivered_until_ms: u64,
    pub count: u64,
}

impl PendingRange<'static> {
    pub const ALL: PendingRange<'static> = PendingRange {
        consumer: None,
        from: StreamId::MIN,
        to: StreamId::MAX,
        delivered_until_ms: u64::MAX,
        count: u64::MAX,
    };
}

/// A group, as of the last command with this one's changes.
pub struct Group<'k> {
    life: Life<'k>,
    pub name: Bytes,
    pub head: GroupHead,
    before: Option<GroupHead>,
    /// The consumers that this command has to do with: as stored, and as they are now.
    known: BTreeMap<Bytes, (Option<Consumer>, Consumer)>,
}

impl<'k> Group<'k> {
    pub(super) fn load(tx: &mut Tx<'_>, life: Life<'k>, name: &[u8]) -> Result<Option<Group<'k>>, Stop> {
        let stored = life.get(tx, &sub::group(name))?;
        stored.map(|stored| Group::of(life, name, &stored)).transpose()
    }

    pub(super) fn of(life: Life<'k>, name: &[u8], stored: &[u8]) -> Result<Group<'k>, Stop> {
        let head = GroupHead::decode(stored)?;
        let name = Bytes::copy_from_slice(name);
        Ok(Group { life, name, head, before: Some(head), known: BTreeMap::new() })
    }

    pub(super) fn new(
        life: Life<'k>,
        name: &[u8],
        last_id: StreamId,
        entries_read: Option<u64>,
    ) -> Group<'k> {
        let head = GroupHead { last_id, entries_read, ..GroupHead::default() };
        Group { life, name: Bytes::copy_from_slice(name), head, before: None, known: BTreeMap::new() }
    }

    /// Puts what has changed of the group and of the consumers it had to do with.
    pub fn save(self, tx: &mut Tx<'_>) {
        for (name, (before, consumer)) in &self.known {
            if *before != Some(*consumer) {
                self.life.put(tx, &sub::consumer(&self.name, name), consumer.encode());
            }
        }
        if self.before != Some(self.head) {
            self.life.put(tx, &sub::group(&self.name), self.head.encode());
        }
    }

    /// Takes the group away with all that is its own.
    pub(super) fn delete(self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        for prefix in [sub::consumers(&self.name), sub::pending(&self.name), sub::held(&self.name)] {
            for (sub, _) in self.life.all(tx, &prefix)? {
                self.life.delete(tx, &sub);
            }
        }
        self.life.delete(tx, &sub::group(&self.name));
        Ok(())
    }

    pub fn consumer(&mut self, tx: &mut Tx<'_>, name: &[u8]) -> Result<Option<&mut Consumer>, Stop> {
        if !self.known.contains_key(name) {
            let Some(stored) = self.life.get(tx, &sub::consumer(&self.name, name))? else { return Ok(None) };
            let consumer = Consumer::decode(&stored)?;
            self.known.insert(Bytes::copy_from_slice(name), (Some(consumer), consumer));
        }
        Ok(self.known.get_mut(name).map(|(_, consumer)| consumer))
    }

    /// A consumer asks now, and gets something or not; true if it was not known before.
    pub fn open_consumer(&mut self, tx: &mut Tx<'_>, name: &[u8], gets: bool) -> Result<bool, Stop> {
        let seen_ms = tx.now_ms();
        let active_ms = gets.then_some(seen_ms);
        if let Some(consumer) = self.consumer(tx, name)? {
            consumer.seen_ms = seen_ms;
            consumer.active_ms = active_ms.or(consumer.active_ms);
            return Ok(false);
        }
        self.add_consumer(name, Consumer { seen_ms, active_ms, pending: 0 });
        Ok(true)
    }

    pub(super) fn add_consumer(&mut self, name: &[u8], consumer: Consumer) {
        self.known.insert(Bytes::copy_from_slice(name), (None, consumer));
        self.head.consumers += 1;
    }

    /// Takes a consumer away with what is pending for it; how much that was, or None without the consumer.
    pub fn delete_consumer(&mut self, tx: &mut Tx<'_>, name: &[u8]) -> Result<Option<u64>, Stop> {
        if self.consumer(tx, name)?.is_none() {
            return Ok(None);
        }
        let held = self.life.all(tx, &sub::held_by(&self.name, name))?;
        for (sub, _) in &held {
            self.life.delete(tx, sub);
            self.life.delete(tx, &sub::with_id(sub::pending(&self.name), sub::id(sub)?));
        }
        self.life.delete(tx, &sub::consumer(&self.name, name));
        self.known.remove(name);
        let pending = held.len() as u64;
        self.head.pending = self.head.pending.checked_sub(pending).ok_or_else(damaged)?;
        self.head.consumers = self.head.consumers.checked_sub(1).ok_or_else(damaged)?;
        Ok(Some(pending))
    }

    /// All consumers as they are stored, by name.
    pub fn consumers(&self, tx: &mut Tx<'_>) -> Result<Vec<(Bytes, Consumer)>, Stop> {
        let prefix = sub::consumers(&self.name);
        let all = self.life.all(tx, &prefix)?;
        let named = |(sub, stored): &(Sub, Bytes)| {
            Ok((Bytes::copy_from_slice(&sub[prefix.len()..]), Consumer::decode(stored)?))
        };
        all.iter().map(named).collect()
    }

    /// What is pending under an id.
    pub fn pending_at(&self, tx: &mut Tx<'_>, id: StreamId) -> Result<Option<Pending>, Stop> {
        if self.head.pending == 0 || id > self.head.highest {
            return Ok(None);
        }
        let stored = self.life.get(tx, &sub::with_id(sub::pending(&self.name), id))?;
        stored.map(|stored| Pending::decode(&stored)).transpose()
    }

    /// Pending entries in the order of their ids.
    pub fn pending(
        &self,
        tx: &mut Tx<'_>,
        range: PendingRange<'_>,
    ) -> Result<Vec<(StreamId, Pending)>, Stop> {
        let mut found = Vec::new();
        if range.count == 0 || range.from > range.to {
            return Ok(found);
        }
        let Some(consumer) = range.consumer else {
            let subs = sub::between(&sub::pending(&self.name), range.from, range.to);
            self.life.scan(tx, &subs, |sub, stored| {
                range.take(&mut found, sub::id(sub)?, Pending::decode(stored)?)
            })?;
            return Ok(found);
        };
        let mut next = Some(range.from);
        while let Some(from) = next.filter(|from| *from <= range.to) {
            let ids = self.held(tx, consumer, from, range.to, BATCH)?;
            for id in &ids {
                let pending = self.pending_at(tx, *id)?.ok_or_else(damaged)?;
                if !range.take(&mut found, *id, pending)? {
                    return Ok(found);
                }
            }
            next = ids.last().filter(|_| ids.len() == BATCH).and_then(|last| last.next());
        }
        Ok(found)
    }

    fn held(
        &self,
        tx: &mut Tx<'_>,
        consumer: &[u8],
        from: StreamId,
        to: StreamId,
        count: usize,
    ) -> Result<Vec<StreamId>, Stop> {
        let mut ids = Vec::new();
        self.life.scan(tx, &sub::between(&sub::held_by(&self.name, consumer), from, to), |sub, _| {
            ids.push(sub::id(sub)?);
            Ok(ids.len() < count)
        })?;
        Ok(ids)
    }

    /// The first and the last pending id.
    pub fn pending_edges(&self, tx: &mut Tx<'_>) -> Result<Option<(StreamId, StreamId)>, Stop> {
        if self.head.pending == 0 {
            return Ok(None);
        }
        let (mut edges, all) = ([None; 2], Subs::of(&sub::pending(&self.name)));
        for (edge, subs) in edges.iter_mut().zip([all.clone(), all.backward()]) {
            self.life.scan(tx, &subs, |sub, _| {
                *edge = Some(sub::id(sub)?);
                Ok(false)
            })?;
        }
        match edges {
            [Some(first), Some(last)] => Ok(Some((first, last))),
            _ => Err(damaged()),
        }
    }

    /// Makes entries pending that the stream has just delivered, in order, to a consumer that is open.
    pub fn deliver(&mut self, tx: &mut Tx<'_>, ids: &[StreamId], consumer: &[u8]) -> Result<(), Stop> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
        // A group that was set back delivers what it has delivered already.
        let mut before = BTreeMap::new();
        if *first <= self.head.highest && self.head.pending > 0 {
            before.extend(self.pending(tx, PendingRange { from: *first, to: *last, ..PendingRange::ALL })?);
        }
        let consumer = Bytes::copy_from_slice(consumer);
        for id in ids {
            let now = Pending { delivered_ms: tx.now_ms(), deliveries: 1, consumer: consumer.clone() };
            self.assign(tx, *id, before.get(id), &now)?;
        }
        Ok(())
    }

    /// Makes an entry pending for a consumer that is open, whosever it was `before`.
    pub fn assign(
        &mut self,
        tx: &mut Tx<'_>,
        id: StreamId,
        before: Option<&Pending>,
        now: &Pending,
    ) -> Result<(), Stop> {
        if before.is_none() {
            self.head.pending += 1;
            self.head.highest = self.head.highest.max(id);
        }
        if before.map(|before| &before.consumer) != Some(&now.consumer) {
            if let Some(before) = before {
                self.let_go(tx, id, &before.consumer)?;
            }
            self.consumer(tx, &now.consumer)?.ok_or_else(damaged)?.pending += 1;
            let sub = sub::with_id(sub::held_by(&self.name, &now.consumer), id);
            self.life.put(tx, &sub, Vec::new());
        }
        self.life.put(tx, &sub::with_id(sub::pending(&self.name), id), now.encode());
        Ok(())
    }

    /// An entry is pending no more.
    pub fn release(&mut self, tx: &mut Tx<'_>, id: StreamId, before: &Pending) -> Result<(), Stop> {
        self.let_go(tx, id, &before.consumer)?;
        self.head.pending = self.head.pending.checked_sub(1).ok_or_else(damaged)?;
        self.life.delete(tx, &sub::with_id(sub::pending(&self.name), id));
        Ok(())
    }

    fn let_go(&mut self, tx: &mut Tx<'_>, id: StreamId, consumer: &[u8]) -> Result<(), Stop> {
        let holder = self.consumer(tx, consumer)?.ok_or_else(damaged)?;
        holder.pending = holder.pending.checked_sub(1).ok_or_else(damaged)?;
        self.life.delete(tx, &sub::with_id(sub::held_by(&self.name, consumer), id));
        Ok(())
    }
}

impl PendingRange<'_> {
    /// Keeps what is wanted; whether more is.
    fn take(
        &self,
        found: &mut Vec<(StreamId, Pending)>,
        id: StreamId,
        pending: Pending,
    ) -> Result<bool, Stop> {
        if pending.delivered_ms <= self.delivered_until_ms {
            found.push((id, pending));
        }
        Ok((found.len() as u64) < self.count)
    }
}

impl GroupHead {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.last_id.to_be_bytes());
        out.extend_from_slice(&self.highest.to_be_bytes());
        for number in [self.entries_read.unwrap_or(UNKNOWN), self.pending, self.consumers] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    fn decode(stored: &[u8]) -> Result<GroupHead, Stop> {
        let mut packed = Packed(stored);
        let last_id = StreamId::from_be_bytes(packed.array()?);
        let highest = StreamId::from_be_bytes(packed.array()?);
        let entries_read = known(packed.u64()?);
        let (pending, consumers) = (packed.u64()?, packed.u64()?);
        whole(packed, GroupHead { last_id, highest, entries_read, pending, consumers })
    }
}

impl Consumer {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.seen_ms, self.active_ms.unwrap_or(UNKNOWN), self.pending];
        numbers.map(u64::to_be_bytes).concat()
    }

    fn decode(stored: &[u8]) -> Result<Consumer, Stop> {
        let mut packed = Packed(stored);
        let (seen_ms, active_ms, pending) = (packed.u64()?, known(packed.u64()?), packed.u64()?);
        whole(packed, Consumer { seen_ms, active_ms, pending })
    }
}

impl Pending {
    fn encode(&self) -> Vec<u8> {
        let mut out = [self.delivered_ms, self.deliveries].map(u64::to_be_bytes).concat();
        out.extend_from_slice(&self.consumer);
        out
    }

    fn decode(stored: &[u8]) -> Result<Pending, Stop> {
        let mut packed = Packed(stored);
        let (delivered_ms, deliveries) = (packed.u64()?, packed.u64()?);
        Ok(Pending { delivered_ms, deliveries, consumer: Bytes::copy_from_slice(packed.0) })
    }
}

fn known(number: u64) -> Option<u64> {
    (number != UNKNOWN).then_some(number)
}

fn whole<T>(rest: Packed<'_>, value: T) -> Result<T, Stop> {
    if rest.is_empty() { Ok(value) } else { Err(damaged()) }
}

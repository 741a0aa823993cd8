//! Questions about many keys: answered on the pool, over snapshots, never on the core.

use super::jobs::Needs;
use super::mesh::{Ask, Message, ScanAsk, TableKeys, Tell};
use super::owner::Owner;
use super::work::Done;
use crate::limits;
use crate::resp::glob;
use crate::slot::{CoreId, Slot, TableId};
use crate::store::{Incarnation, Reader, Step, StoreError, View};
use bytes::Bytes;
use std::collections::VecDeque;

/// Below this many keys, by estimate, DBSIZE counts instead of estimating.
const COUNT_EXACTLY_BELOW: u64 = 10_000;
/// Keys that RANDOMKEY chooses among in the slot it has picked.
const RANDOM_WINDOW: u64 = 256;

/// Where SCANs have stopped inside a slot: the last name given out. The oldest is forgotten; then the
/// slot starts again, which may repeat keys and misses none.
#[derive(Default)]
pub struct Tokens {
    places: VecDeque<(u32, TableId, Slot, Bytes)>,
    next: u32,
    /// Of all names kept.
    bytes: usize,
}

impl Tokens {
    /// No other core gives out the same number: a slot may have moved here that was scanned there.
    fn keep(&mut self, core: CoreId, cores: u32, table: TableId, slot: Slot, last: Bytes) -> u32 {
        self.bytes += last.len();
        while self.places.len() >= limits::SCAN_TOKENS_MAX || self.bytes > limits::SCAN_TOKENS_MAX_BYTES {
            let Some((.., forgotten)) = self.places.pop_front() else { break };
            self.bytes -= forgotten.len();
        }
        // 0 means the start of a slot.
        let first = u32::from(core.0) + 1;
        self.next = if self.next == 0 { first } else { self.next.checked_add(cores).unwrap_or(first) };
        self.places.push_back((self.next, table, slot, last));
        self.next
    }

    fn find(&self, token: u32, table: TableId, slot: Slot) -> Option<Bytes> {
        let place = self.places.iter().rev().find(|place| place.0 == token)?;
        (place.1 == table && place.2 == slot).then(|| place.3.clone())
    }
}

/// The slots of one shard that hold data of a table.
pub(super) struct Ground {
    pub reader: Reader,
    /// Ascending.
    pub slots: Vec<(Slot, Incarnation)>,
}

/// A piece of SCAN as it comes back from the pool.
pub struct Scanned {
    pub from: CoreId,
    pub ticket: u64,
    pub table: TableId,
    pub keys: Vec<Bytes>,
    /// The slot to go on in, and the last name seen there.
    pub stopped: Option<(Slot, Option<Bytes>)>,
}

impl Owner {
    /// Starts answering a question about keys; the answer leaves as `Message::Tell`.
    pub fn ask_keys(&mut self, from: CoreId, ticket: u64, ask: Ask) {
        let now_ms = self.clock.now_ms();
        match ask {
            Ask::Keys { table, pattern, limit_bytes } => {
                let grounds = self.grounds(table);
                self.answer(from, ticket, move || keys(&grounds, &pattern, limit_bytes, now_ms));
            }
            Ask::Scan(ask) => self.scan(from, ticket, &ask, now_ms),
            Ask::Range(ask) => self.range(from, ticket, ask),
            Ask::Sweep(ask) => self.begin_sweep(from, ticket, ask),
            Ask::RandomKey { table, seed } => {
                let grounds = self.grounds(table);
                let weight = self.shards.iter().map(|shard| shard.data.slots.keys(table)).sum();
                self.answer(from, ticket, move || {
                    Ok(Tell::RandomKey(random(&grounds, seed, now_ms)?, weight))
                });
            }
            Ask::DbSize { table } => {
                let estimate = self.shards.iter().map(|shard| shard.data.slots.keys(table)).sum();
                if estimate >= COUNT_EXACTLY_BELOW {
                    return self.tell(from, ticket, Tell::Count(estimate));
                }
                let grounds = self.grounds(table);
                self.answer(from, ticket, move || Ok(Tell::Count(count(&grounds, now_ms)?.keys)));
            }
            Ask::CountKeys => {
                let tables = self.tables();
                let grounds: Vec<_> = tables.into_iter().map(|table| (table, self.grounds(table))).collect();
                self.answer(from, ticket, move || {
                    let counted =
                        grounds.iter().map(|(table, grounds)| Ok((*table, count(grounds, now_ms)?)));
                    Ok(Tell::Keyspace(counted.collect::<Result<_, StoreError>>()?))
                });
            }
            Ask::CountKeysInSlot { table, slot } => {
                let grounds = self.grounds_in(table, slot);
                self.answer(from, ticket, move || Ok(Tell::Count(count(&grounds, now_ms)?.keys)));
            }
            Ask::KeysInSlot { table, slot, count } => {
                let grounds = self.grounds_in(table, slot);
                self.answer(from, ticket, move || {
                    let mut found = Vec::new();
                    visit(&grounds, now_ms, |name, _| {
                        found.push(Bytes::copy_from_slice(name));
                        found.len() < count
                    })?;
                    found.truncate(count);
                    Ok(Tell::Keys(found))
                });
            }
            Ask::Keyspace => {
                let estimate = |table: &TableId| {
                    let keys = self.shards.iter().map(|shard| shard.data.slots.keys(*table)).sum();
                    (*table, TableKeys { keys, expires: 0 })
                };
                let tables = self.tables().iter().map(estimate).filter(|(_, keys)| keys.keys > 0).collect();
                self.tell(from, ticket, Tell::Keyspace(tables));
            }
            _ => unreachable!("the core itself answers what is not about keys"),
        }
    }

    pub fn tell(&mut self, to: CoreId, ticket: u64, tell: Tell) {
        let core = self.setting.core;
        self.outgoing.push((to, Message::Tell { ticket, core, tell }));
    }

    /// Answers with what a job on the pool tells.
    pub(super) fn answer(
        &mut self,
        from: CoreId,
        ticket: u64,
        work: impl FnOnce() -> Result<Tell, StoreError> + Send + 'static,
    ) {
        let core = self.setting.core;
        let job = move || {
            let tell = work().unwrap_or_else(|error| {
                tracing::error!(%error, "reading keys failed");
                Tell::Failed(error.to_string())
            });
            Done::Told { to: from, message: Box::new(Message::Tell { ticket, core, tell }) }
        };
        self.jobs.push_back((Needs::All, Box::new(job)));
    }

    fn scan(&mut self, from: CoreId, ticket: u64, ask: &ScanAsk, now_ms: u64) {
        let at = self.at(ask.shard);
        let shard = &self.shards[at];
        let after = match ask.token {
            0 => None,
            token => self.scans.find(token, ask.table, ask.from),
        };
        let asked = ask.from..=ask.last;
        let slots = shard.data.slots.used(ask.table).filter(|(slot, _)| asked.contains(slot));
        let slots = slots.map(|(slot, state)| (slot, state.incarnation)).collect();
        let ground = Ground { reader: shard.data.store.reader(), slots };
        let (table, start, count) = (ask.table, ask.from, ask.count);
        let (pattern, kind) = (ask.pattern.clone(), ask.kind.clone());
        let core = self.setting.core;
        let job = move || {
            let wanted = |name: &[u8], of: &str| {
                pattern.as_ref().is_none_or(|pattern| pattern == "*" || glob::matches(pattern, name, false))
                    && kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(of.as_bytes()))
            };
            match scan_piece(&ground, start, after, count, now_ms, wanted) {
                Ok((keys, stopped)) => Done::Scanned(Scanned { from, ticket, table, keys, stopped }),
                Err(error) => {
                    tracing::error!(%error, "reading keys failed");
                    let tell = Tell::Failed(error.to_string());
                    let message = Message::Tell { ticket, core, tell };
                    Done::Told { to: from, message: Box::new(message) }
                }
            }
        };
        self.jobs.push_back((Needs::All, Box::new(job)));
    }

    pub(super) fn scanned(&mut self, scanned: Scanned) {
        let Scanned { from, ticket, table, keys, stopped } = scanned;
        let cores = self.owners.iter().map(|core| u32::from(core.0) + 1).max().unwrap_or(1);
        let next = stopped.map(|(slot, last)| match last {
            Some(last) => (slot, self.scans.keep(self.setting.core, cores, table, slot, last)),
            None => (slot, 0),
        });
        self.tell(from, ticket, Tell::Scanned { keys, next });
    }

    fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<_> = self.shards.iter().flat_map(|shard| shard.data.slots.tables()).collect();
        tables.sort();
        tables.dedup();
        tables
    }

    /// Of the shard that stands there.
    pub(super) fn ground(&self, at: usize, table: TableId) -> Ground {
        let data = &self.shards[at].data;
        let slots = data.slots.used(table).map(|(slot, state)| (slot, state.incarnation)).collect();
        Ground { reader: data.store.reader(), slots }
    }

    pub(super) fn grounds(&self, table: TableId) -> Vec<Ground> {
        (0..self.shards.len()).map(|at| self.ground(at, table)).collect()
    }

    fn grounds_in(&self, table: TableId, slot: Slot) -> Vec<Ground> {
        let mut grounds = self.grounds(table);
        for ground in &mut grounds {
            ground.slots.retain(|(of, _)| *of == slot);
        }
        grounds
    }
}

/// Visits living rows until `visit` answers false.
fn visit(
    grounds: &[Ground],
    now_ms: u64,
    mut visit: impl FnMut(&[u8], Option<u64>) -> bool,
) -> Result<(), StoreError> {
    for ground in grounds {
        let more =
            ground.reader.with_snapshot(|view| visit_slots(view, &ground.slots, now_ms, &mut visit))?;
        if !more {
            break;
        }
    }
    Ok(())
}

fn visit_slots(
    view: &View<'_>,
    slots: &[(Slot, Incarnation)],
    now_ms: u64,
    visit: &mut impl FnMut(&[u8], Option<u64>) -> bool,
) -> Result<bool, StoreError> {
    for (_, incarnation) in slots {
        let mut rows = view.rows(*incarnation, None);
        while let Step::Item(item) = rows.next()? {
            let expire_ms = item.head()?.expire_ms;
            if expire_ms.is_none_or(|at| at > now_ms) && !visit(item.name, expire_ms) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn keys(grounds: &[Ground], pattern: &[u8], limit_bytes: usize, now_ms: u64) -> Result<Tell, StoreError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let all = pattern == b"*";
    visit(grounds, now_ms, |name, _| {
        if all || glob::matches(pattern, name, false) {
            found.push(Bytes::copy_from_slice(name));
            // The name, its length line and the entry itself.
            bytes += name.len() + 48;
        }
        bytes <= limit_bytes
    })?;
    Ok(if bytes > limit_bytes { Tell::TooMany } else { Tell::Keys(found) })
}

fn count(grounds: &[Ground], now_ms: u64) -> Result<TableKeys, StoreError> {
    let mut counted = TableKeys::default();
    visit(grounds, now_ms, |_, expire_ms| {
        counted.keys += 1;
        counted.expires += u64::from(expire_ms.is_some());
        true
    })?;
    Ok(counted)
}

fn random(grounds: &[Ground], seed: u64, now_ms: u64) -> Result<Option<Bytes>, StoreError> {
    let total: usize = grounds.iter().map(|ground| ground.slots.len()).sum();
    if total == 0 {
        return Ok(None);
    }
    // A slot by chance, then a key by chance among its first; the next slots if it holds nothing living.
    let first = (seed % total as u64) as usize;
    let slots =
        grounds.iter().flat_map(|ground| ground.slots.iter().map(move |slot| (&ground.reader, *slot)));
    let slots: Vec<_> = slots.collect();
    for (reader, slot) in slots[first..].iter().chain(&slots[..first]) {
        let mut names = Vec::new();
        reader.with_snapshot(|view| {
            visit_slots(view, &[*slot], now_ms, &mut |name: &[u8], _| {
                names.push(Bytes::copy_from_slice(name));
                (names.len() as u64) < RANDOM_WINDOW
            })
        })?;
        if !names.is_empty() {
            let chosen = (seed >> 16) as usize % names.len();
            return Ok(Some(names.swap_remove(chosen)));
        }
    }
    Ok(None)
}

type Piece = (Vec<Bytes>, Option<(Slot, Option<Bytes>)>);

fn scan_piece(
    ground: &Ground,
    start: Slot,
    after: Option<Bytes>,
    count: usize,
    now_ms: u64,
    wanted: impl Fn(&[u8], &str) -> bool,
) -> Result<Piece, StoreError> {
    ground.reader.with_snapshot(|view| {
        let (mut keys, mut seen) = (Vec::new(), 0);
        for (slot, incarnation) in &ground.slots {
            let after = if *slot == start { after.as_deref() } else { None };
            let mut rows = view.rows(*incarnation, after);
            while let Step::Item(item) = rows.next()? {
                let head = item.head()?;
                let name = Bytes::copy_from_slice(item.name);
                if head.expire_ms.is_none_or(|at| at > now_ms) && wanted(&name, head.kind.name()) {
                    keys.push(name.clone());
                }
                seen += 1;
                if seen >= count {
                    return Ok((keys, Some((*slot, Some(name)))));
                }
            }
        }
        Ok((keys, None))
    })
}

//! For tests only: a shard's data as plain maps, read as a `Source` and changed by effects.

use crate::error::Stop;
use crate::slot::{Slot, SlotHash, TableId};
use crate::store::row::{Row, Version};
use crate::store::tx::{Change, Effect, KeyRef, Scope, Source, Subs, Tx, Visit};
use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Memory {
    pub rows: BTreeMap<(TableId, Bytes), Row>,
    pub elements: BTreeMap<(TableId, Bytes, Version, Bytes), Bytes>,
    pub index: u64,
    pub row_reads: u64,
    pub element_reads: u64,
}

impl Source for Memory {
    fn row(&mut self, key: KeyRef<'_>) -> Result<Option<Row>, Stop> {
        self.row_reads += 1;
        Ok(self.rows.get(&(key.table, Bytes::copy_from_slice(key.name))).cloned())
    }

    fn element(&mut self, key: KeyRef<'_>, version: Version, sub: &[u8]) -> Result<Option<Bytes>, Stop> {
        self.element_reads += 1;
        let name = (key.table, Bytes::copy_from_slice(key.name), version, Bytes::copy_from_slice(sub));
        Ok(self.elements.get(&name).cloned())
    }

    fn scan(
        &mut self,
        key: KeyRef<'_>,
        version: Version,
        subs: &Subs,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        if subs.from >= subs.to {
            return Ok(());
        }
        let name = Bytes::copy_from_slice(key.name);
        let at = |sub: &[u8]| (key.table, name.clone(), version, Bytes::copy_from_slice(sub));
        let inside = self.elements.range(at(&subs.from)..at(&subs.to));
        let inside: Box<dyn Iterator<Item = _>> =
            if subs.backward { Box::new(inside.rev()) } else { Box::new(inside) };
        for ((.., sub), value) in inside {
            self.element_reads += 1;
            if !visit(sub, value)? {
                break;
            }
        }
        Ok(())
    }

    fn next_index(&mut self, _: TableId, _: Slot) -> u64 {
        self.index
    }

    fn idle_seconds(&mut self, _: KeyRef<'_>) -> u64 {
        0
    }
}

impl Memory {
    pub fn apply(&mut self, effects: &[Effect]) {
        self.index += 1;
        for effect in effects {
            let name = (effect.table, effect.name.clone());
            match &effect.change {
                Change::Put(row) => drop(self.rows.insert(name, row.clone())),
                Change::Delete => {
                    assert!(self.rows.remove(&name).is_some(), "only what is there is deleted");
                }
                Change::Element { version, sub, value } => {
                    let name = (effect.table, effect.name.clone(), *version, Bytes::copy_from_slice(sub));
                    match value {
                        Some(value) => drop(self.elements.insert(name, value.clone())),
                        None => drop(self.elements.remove(&name)),
                    }
                }
            }
        }
    }

    /// Runs `work` in a `Tx`, applies its effects and hands them back.
    pub fn run<T>(
        &mut self,
        scope: Scope,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Stop>,
    ) -> (Result<T, Stop>, Vec<Effect>) {
        let mut tx = Tx::new(scope, self);
        let result = work(&mut tx);
        let effects = match result {
            Ok(_) => tx.into_effects().into_vec(),
            Err(_) => Vec::new(),
        };
        self.apply(&effects);
        (result, effects)
    }
}

pub(crate) fn scope() -> Scope {
    Scope {
        table: TableId(0),
        hash: SlotHash::Crc32 { slots: 1024 },
        tables: 4,
        now_ms: 1_700_000_000_000,
        value_max_bytes: 512 << 20,
        steps_max: u32::MAX,
        reply_max_elements: 0,
        seed: 7,
    }
}

//! Ordered ranges of the keys of one type. A shard's rows lie in the order of their names within each slot:
//! every slot is looked into, and the first few names of all are kept.

use super::mesh::{RangeAsk, Ranged, Tell};
use super::owner::Owner;
use super::scan::Ground;
use super::work::{Places, Reading, SnapshotSource};
use crate::error::Stop;
use crate::resp::glob;
use crate::slot::{CoreId, Slot};
use crate::store::tx::{KeyRef, Scope, Tx};
use crate::store::{Step, StoreError, View};
use crate::types::stretch::{Firsts, Found};
use crate::types::string;
use bytes::Bytes;
use std::sync::Arc;

/// One shard, as a job on the pool looks through it.
struct Field {
    ground: Ground,
    places: Places,
    scope: Scope,
    bytes_max: usize,
}

impl Owner {
    pub(super) fn range(&mut self, from: CoreId, ticket: u64, ask: Arc<RangeAsk>) {
        let scope = self.scope(ask.table, u32::MAX);
        let bytes_max = ask.bytes_max / self.shards.len().max(1);
        let grounds = self.grounds(ask.table).into_iter();
        let places = self.shards.iter().map(|shard| Places::of_table(&shard.data.slots, ask.table));
        let fields: Vec<_> =
            grounds.zip(places).map(|(ground, places)| Field { ground, places, scope, bytes_max }).collect();
        // Values in pieces must not be erased while they are read.
        let reading = Reading::begin(&self.reading);
        self.answer(from, ticket, move || {
            let _reading = reading;
            let found = fields.iter().map(|field| field.range(&ask)).collect::<Result<_, Stop>>();
            Ok(found.map_or_else(|stop| Tell::Failed(format!("reading failed: {stop:?}")), Tell::Range))
        });
    }
}

impl Field {
    fn range(&self, ask: &RangeAsk) -> Result<Ranged, Stop> {
        self.ground.reader.with_snapshot(|view| {
            let found = self.names(view, ask)?;
            self.told(view, ask, found)
        })
    }

    fn names(&self, view: &View<'_>, ask: &RangeAsk) -> Result<Found<Slot>, StoreError> {
        let stretch = &ask.stretch;
        let (low, high) = stretch.bounds();
        let mut firsts = Firsts::new(ask.limit, self.bytes_max, stretch.backward);
        for (slot, incarnation) in &self.ground.slots {
            let mut rows = view.rows_between(*incarnation, low, high, stretch.backward);
            while let Step::Item(item) = rows.next()? {
                let head = item.head()?;
                let there = head.expire_ms.is_none_or(|at| at > self.scope.now_ms);
                if there && head.kind == ask.kind && !firsts.add(item.name, *slot) {
                    break;
                }
            }
        }
        Ok(firsts.found())
    }

    /// Reads the values that are asked for, as many as one answer may hold.
    fn told(&self, view: &View<'_>, ask: &RangeAsk, found: Found<Slot>) -> Result<Ranged, Stop> {
        let mut told = Found { entries: Vec::with_capacity(found.entries.len()), next: found.next };
        let mut bytes = 0;
        for (name, slot) in found.entries {
            if bytes > self.bytes_max {
                told.next = Some(name);
                break;
            }
            let value = match ask.values && ask.wants(&name) {
                true => Some(self.value(view, KeyRef { table: ask.table, slot, name: &name })?),
                false => None,
            };
            bytes += value.as_ref().map_or(0, Bytes::len);
            told.entries.push((name, value));
        }
        Ok(told)
    }

    fn value(&self, view: &View<'_>, key: KeyRef<'_>) -> Result<Bytes, Stop> {
        let mut source = SnapshotSource { view, places: &self.places };
        let mut tx = Tx::new(self.scope, &mut source);
        match tx.row(key)? {
            Some(row) => string::read(&mut tx, key, &row),
            None => Err(Stop::Fault("a row of this snapshot is gone".into())),
        }
    }
}

impl RangeAsk {
    pub fn wants(&self, name: &[u8]) -> bool {
        glob::allows(self.pattern.as_deref(), name)
    }
}

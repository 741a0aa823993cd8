//! Whole streams as DUMP tells and RESTORE makes them.

use super::{Consumer, Pending, PendingRange, Stream};
use crate::error::{ClientError, Stop};
use crate::store::NAME_MAX_BYTES;
use crate::store::row::{Row, StreamId};
use crate::store::tx::{KeyRef, Tx};
use crate::types::dump;
use crate::types::packed::damaged;
use bytes::Bytes;
use std::collections::BTreeMap;

impl Stream<'_> {
    pub fn export(&self, tx: &mut Tx<'_>) -> Result<dump::Stream, Stop> {
        let mut entries = Vec::new();
        for entry in self.range(tx, StreamId::MIN, StreamId::MAX, false, u64::MAX)? {
            let texts = entry.texts()?;
            let fields = texts.chunks_exact(2).map(|pair| (pair[0].to_vec(), pair[1].to_vec()));
            entries.push((entry.id, fields.collect()));
        }
        let mut groups = Vec::new();
        for group in self.groups(tx)? {
            let stored = group.consumers(tx)?;
            let index: BTreeMap<&Bytes, usize> =
                stored.iter().enumerate().map(|(at, (name, _))| (name, at)).collect();
            let mut pending = Vec::new();
            for (id, Pending { delivered_ms, deliveries, consumer }) in
                group.pending(tx, PendingRange::ALL)?
            {
                let consumer = *index.get(&consumer).ok_or_else(damaged)?;
                pending.push(dump::Pending { id, delivered_ms, deliveries, consumer });
            }
            let told = |(name, consumer): &(Bytes, Consumer)| dump::Consumer {
                name: name.to_vec(),
                seen_ms: consumer.seen_ms,
                active_ms: consumer.active_ms,
            };
            groups.push(dump::Group {
                name: group.name.to_vec(),
                last_id: group.head.last_id,
                entries_read: group.head.entries_read,
                pending,
                consumers: stored.iter().map(told).collect(),
            });
        }
        Ok(dump::Stream {
            entries,
            length: self.len,
            last_id: self.head.last_id,
            first_id: self.head.first_id,
            max_deleted_id: self.head.max_deleted_id,
            entries_added: self.head.entries_added,
            groups,
        })
    }

    /// The row of a stream whose elements are put under a new version; it has no expiry.
    ///
    /// # Errors
    /// When a name of a group or a consumer is longer than it may be.
    pub fn import(tx: &mut Tx<'_>, key: KeyRef<'_>, from: &dump::Stream) -> Result<Row, Stop> {
        let pending: usize = from.groups.iter().map(|group| group.pending.len()).sum();
        tx.spend(u32::try_from(from.entries.len() + pending).unwrap_or(u32::MAX))?;
        let mut stream = Stream::new(tx, key)?;
        for (id, fields) in &from.entries {
            let texts = fields.iter().flat_map(|(field, value)| [&field[..], &value[..]]);
            stream.append(tx, *id, fields.len() as u64, texts)?;
        }
        stream.head.last_id = from.last_id;
        stream.head.max_deleted_id = from.max_deleted_id;
        stream.head.entries_added = from.entries_added;
        for group in &from.groups {
            let names = group.consumers.iter().map(|consumer| &consumer.name).chain([&group.name]);
            if names.into_iter().any(|name| name.len() > NAME_MAX_BYTES) {
                return Err(ClientError::NAME_TOO_LONG.into());
            }
            stream.import_group(tx, group)?;
        }
        Ok(stream.into_row())
    }

    fn import_group(&mut self, tx: &mut Tx<'_>, from: &dump::Group) -> Result<(), Stop> {
        let mut group = self.create_group(&from.name, from.last_id, from.entries_read);
        for dump::Consumer { name, seen_ms, active_ms } in &from.consumers {
            group.add_consumer(name, Consumer { seen_ms: *seen_ms, active_ms: *active_ms, pending: 0 });
        }
        for entry in &from.pending {
            let dump::Pending { id, delivered_ms, deliveries, consumer } = *entry;
            let consumer = Bytes::copy_from_slice(&from.consumers[consumer].name);
            group.assign(tx, id, None, &Pending { delivered_ms, deliveries, consumer })?;
        }
        group.save(tx);
        Ok(())
    }
}

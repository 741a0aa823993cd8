//! Slots of a lent shard, read from one snapshot in a thread of their own and handed over in chunks.
//!
//! Must not know who they are for. The channel is bounded: who takes slowly makes the reading slow.

use crate::limits;
use crate::shard::mesh::{LentShard, SlotPosition};
use crate::store::Entry;
use bytes::Bytes;
use std::io;
use tokio::sync::mpsc::{Receiver, channel};

/// A piece of a copy.
pub enum Chunk {
    /// Entries of a slot, in order.
    Entries { slot: SlotPosition, entries: Vec<Entry> },
    /// Nothing more comes of this slot.
    Done,
    /// It could not be read: the copy ends here.
    Failed(String),
}

/// Begins to read these slots, in this order.
pub fn begin(lent: LentShard, slots: Vec<SlotPosition>) -> io::Result<Receiver<Chunk>> {
    let (send, receive) = channel(limits::REPLICA_COPY_AHEAD as usize);
    let read = move || {
        let LentShard { reader, slots: with_data, reading, .. } = lent;
        let _reading = reading;
        reader.with_snapshot(|view| {
            for slot in slots {
                let place = with_data.iter().find(|(at, _)| (at.table, at.slot) == (slot.table, slot.slot));
                let (mut entries, mut bytes, mut gone) = (Vec::new(), 0, false);
                let mut visit = |element: bool, key: &[u8], value: &[u8]| {
                    bytes += key.len() + value.len();
                    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    entries.push(Entry { element, key, value });
                    if bytes >= limits::REPLICA_CHUNK_BYTES || entries.len() >= limits::REPLICA_CHUNK_ENTRIES
                    {
                        bytes = 0;
                        let entries = std::mem::take(&mut entries);
                        gone = send.blocking_send(Chunk::Entries { slot, entries }).is_err();
                    }
                    !gone
                };
                let read = place.map_or(Ok(()), |(_, incarnation)| view.entries(*incarnation, &mut visit));
                let last = match read {
                    Err(error) => return drop(send.blocking_send(Chunk::Failed(error.to_string()))),
                    Ok(()) if entries.is_empty() => None,
                    Ok(()) => Some(Chunk::Entries { slot, entries }),
                };
                for chunk in last.into_iter().chain([Chunk::Done]) {
                    if send.blocking_send(chunk).is_err() {
                        return;
                    }
                }
            }
        });
    };
    std::thread::Builder::new().name("copy-out".into()).spawn(read)?;
    Ok(receive)
}

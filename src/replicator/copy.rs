//! Slots of a lent shard, read from one snapshot in a thread of their own and handed over in chunks.
//!
//! Must not know who they are for. The channel is bounded: who takes slowly makes the reading slow.

use super::source::branches;
use crate::binlog::Lsn;
use crate::limits;
use crate::replica::keys::Rewind;
use crate::replica::position::SlotName;
use crate::shard::mesh::{LentShard, SlotPosition};
use crate::store::{Entry, Incarnation, Row, StoreError, View};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// A piece of a copy.
pub enum Chunk {
    /// Of this slot only these keys come.
    Keys { slot: SlotPosition, keys: Vec<Bytes> },
    /// Entries of a slot, in order.
    Entries { slot: SlotPosition, entries: Vec<Entry> },
    /// Nothing more comes of this slot, which has come whole or by its keys.
    Done { whole: bool },
    /// It could not be read: the copy ends here.
    Failed(String),
}

/// What a follower wants of a copy.
#[derive(Default)]
pub struct CopyWanted {
    pub slots: Vec<SlotName>,
    /// Of these some keys are enough, if they are few.
    pub rewinds: Vec<Rewind>,
}

/// Begins to read these slots, in this order. `log`: the shard's, in which the keys are found.
pub fn begin(
    lent: LentShard,
    slots: Vec<SlotPosition>,
    rewinds: Vec<Rewind>,
    log: PathBuf,
) -> io::Result<Receiver<Chunk>> {
    let (send, receive) = channel(limits::REPLICA_COPY_AHEAD as usize);
    let read = move || {
        let LentShard { reader, slots: with_data, reading, upto, .. } = lent;
        let _reading = reading;
        reader.with_snapshot(|view| {
            let mut keys = differing(&log, Lsn(upto), rewinds);
            for slot in slots {
                let place = with_data.iter().find(|(at, _)| (at.table, at.slot) == (slot.table, slot.slot));
                let here = place.map(|(_, incarnation)| *incarnation);
                let keys = keys.remove(&(slot.table, slot.slot)).filter(|_| slot.index > 0);
                match read_slot(view, slot, here, keys, &send) {
                    Ok(()) => {}
                    Err(Ended::Unwanted) => return,
                    Err(Ended::Failed(error)) => {
                        return drop(send.blocking_send(Chunk::Failed(error.to_string())));
                    }
                }
            }
        });
    };
    std::thread::Builder::new().name("copy-out".into()).spawn(read)?;
    Ok(receive)
}

/// Why a copy ends early.
enum Ended {
    Failed(StoreError),
    /// Nobody takes it any more.
    Unwanted,
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Ended {
        Ended::Failed(error)
    }
}

/// Reads one slot: by these keys, if they are few, or whole. `here`: where its data is, if it has any.
fn read_slot(
    view: &View<'_>,
    slot: SlotPosition,
    here: Option<Incarnation>,
    keys: Option<Vec<Bytes>>,
    send: &Sender<Chunk>,
) -> Result<(), Ended> {
    let give = |chunk| send.blocking_send(chunk).map_err(|_| Ended::Unwanted);
    if let Some(keys) = keys
        && let Some(entries) = by_keys(view, here, &keys)?
    {
        give(Chunk::Keys { slot, keys })?;
        for piece in entries.chunks(limits::REPLICA_CHUNK_ENTRIES) {
            give(Chunk::Entries { slot, entries: piece.to_vec() })?;
        }
        return give(Chunk::Done { whole: false });
    }
    let (mut entries, mut bytes, mut given) = (Vec::new(), 0, Ok(()));
    let mut visit = |element: bool, key: &[u8], value: &[u8]| {
        bytes += key.len() + value.len();
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        entries.push(Entry { element, key, value });
        if bytes >= limits::REPLICA_CHUNK_BYTES || entries.len() >= limits::REPLICA_CHUNK_ENTRIES {
            bytes = 0;
            given = give(Chunk::Entries { slot, entries: std::mem::take(&mut entries) });
        }
        given.is_ok()
    };
    if let Some(incarnation) = here {
        view.entries(incarnation, &mut visit)?;
    }
    given?;
    if !entries.is_empty() {
        give(Chunk::Entries { slot, entries })?;
    }
    give(Chunk::Done { whole: slot.index > 0 })
}

/// The keys in which slots differ, where that is known.
fn differing(log: &Path, upto: Lsn, rewinds: Vec<Rewind>) -> FxHashMap<SlotName, Vec<Bytes>> {
    if rewinds.is_empty() {
        return FxHashMap::default();
    }
    branches(log, upto, rewinds).unwrap_or_else(|why| {
        tracing::warn!(why, "looking through the log for a follower failed: it gets its slots whole");
        FxHashMap::default()
    })
}

/// What these keys hold; None: too much to be held in memory.
fn by_keys(
    view: &View<'_>,
    here: Option<Incarnation>,
    keys: &[Bytes],
) -> Result<Option<Vec<Entry>>, StoreError> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let Some(incarnation) = here else { return Ok(Some(entries)) };
    for name in keys {
        let mut version = None;
        let mut visit = |element: bool, key: &[u8], value: &[u8]| {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            if !element {
                version = Row::decode(&value).ok().and_then(|row| row.version());
            } else if version.is_none() || Entry::element_of(&key).map(|(of, _)| of) != version {
                // Of a life that has ended.
                return true;
            }
            bytes += key.len() + value.len();
            entries.push(Entry { element, key, value });
            bytes <= limits::REWIND_SLOT_MAX_BYTES && entries.len() <= limits::REWIND_ENTRIES_MAX
        };
        view.key_entries(incarnation, name, &mut visit)?;
        if bytes > limits::REWIND_SLOT_MAX_BYTES || entries.len() > limits::REWIND_ENTRIES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(entries))
}

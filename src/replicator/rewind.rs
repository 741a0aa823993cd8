//! Slots that become another node's by some of their keys: as records of this node's log, one for each slot.
//!
//! What is here of a key goes, whatever life of it an element is of: what the two histories have called by the same
//! version need not be the same. For a thread that may wait. Must not know links, nor which keys differ.

use crate::binlog::Touch;
use crate::limits::REWIND_ENTRIES_MAX;
use crate::replica::inflow::Rewound;
use crate::replica::position::SlotName;
use crate::shard::mesh::{LentShard, Portion};
use crate::slot::ShardId;
use crate::store::effects::{BodyWriter, Origin};
use crate::store::row::{Row, Version};
use crate::store::tx::{Change, Effect};
use crate::store::{Entry, EntryParts, Incarnation, NAME_MAX_BYTES, View};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::collections::{BTreeMap, BTreeSet};

/// The stream by which such a record goes among those of a primary, which count from 0 and are fewer.
pub const REWIND_STREAM: ShardId = ShardId(u16::MAX);

/// What one key is to be.
#[derive(Default)]
struct Becomes {
    row: Option<Row>,
    elements: Vec<(Version, Bytes, Bytes)>,
}

/// The records for slots of a lent shard, or why a slot must be copied whole.
pub fn records(lent: LentShard, slots: Vec<Rewound>) -> Result<Vec<Portion>, (SlotName, String)> {
    let LentShard { reader, slots: with_data, reading, .. } = lent;
    let _reading = reading;
    let one = |view: &View<'_>, rewound: Rewound| {
        let slot = (rewound.at.table, rewound.at.slot);
        let here = with_data.iter().find(|(at, _)| (at.table, at.slot) == slot);
        record(view, here.map(|(_, incarnation)| *incarnation), rewound).map_err(|why| (slot, why))
    };
    reader.with_snapshot(|view| slots.into_iter().map(|rewound| one(view, rewound)).collect())
}

fn record(view: &View<'_>, here: Option<Incarnation>, rewound: Rewound) -> Result<Portion, String> {
    let Rewound { at, keys, entries } = rewound;
    if keys.iter().any(|key| key.len() > NAME_MAX_BYTES) {
        return Err("a name is too long".into());
    }
    let mut becomes: BTreeMap<Bytes, Becomes> =
        keys.into_iter().map(|key| (key, Becomes::default())).collect();
    for entry in &entries {
        let parts = entry.parts()?;
        let (EntryParts::Row { name, .. } | EntryParts::Element { name, .. }) = &parts;
        let key = becomes.get_mut(*name).ok_or("an entry comes of a key that does not differ")?;
        match parts {
            EntryParts::Row { row, .. } => key.row = Some(row),
            EntryParts::Element { version, sub, .. } => {
                key.elements.push((version, entry.key.slice_ref(sub), entry.value.clone()));
            }
        }
    }
    let mut effects = Vec::new();
    for (name, key) in becomes {
        let effect = |change, existed| {
            let (table, slot, name) = (at.table, at.slot, name.clone());
            Effect { table, slot, name, change, existed }
        };
        let (existed, gone) = match here {
            Some(incarnation) => leftover(view, incarnation, &name, &key)?,
            None => (false, Vec::new()),
        };
        if effects.len() + gone.len() > 2 * REWIND_ENTRIES_MAX {
            return Err("it has too many elements".into());
        }
        let element =
            |version, sub: &[u8], value| Change::Element { version, sub: SmallVec::from_slice(sub), value };
        effects.extend(gone.iter().map(|(version, sub)| effect(element(*version, sub, None), None)));
        let new = key.elements.iter();
        effects.extend(
            new.map(|(version, sub, value)| effect(element(*version, sub, Some(value.clone())), None)),
        );
        match key.row {
            Some(row) => effects.push(effect(Change::Put(row), Some(existed))),
            None if existed => effects.push(effect(Change::Delete, Some(true))),
            None => {}
        }
    }
    let mut body = Vec::new();
    BodyWriter::new(&mut body, Origin::COPY).effects(&effects);
    let elements = effects.iter().any(|effect| matches!(effect.change, Change::Element { .. }));
    let touches = smallvec![Touch { table: at.table, slot: at.slot, index: at.index, term: at.term }];
    let (stream, operations) = (REWIND_STREAM, effects.len());
    Ok(Portion { stream, lsn: 0, touches, body: body.into(), operations, elements })
}

/// Whether a key is here, and its elements that are not to be.
fn leftover(
    view: &View<'_>,
    incarnation: Incarnation,
    name: &[u8],
    becomes: &Becomes,
) -> Result<(bool, Vec<(Version, Bytes)>), String> {
    let stays: BTreeSet<(u64, &[u8])> =
        becomes.elements.iter().map(|(version, sub, _)| (version.0, &sub[..])).collect();
    let (mut existed, mut gone, mut bad) = (false, Vec::new(), None);
    let mut visit = |is_element: bool, key: &[u8], _: &[u8]| {
        existed |= !is_element;
        if is_element {
            match Entry::element_of(key) {
                Some((version, sub)) if !stays.contains(&(version.0, sub)) => {
                    gone.push((version, Bytes::copy_from_slice(sub)));
                }
                Some(_) => {}
                None => bad = Some("an element's key is too short".to_owned()),
            }
        }
        gone.len() <= REWIND_ENTRIES_MAX && bad.is_none()
    };
    view.key_entries(incarnation, name, &mut visit).map_err(|error| error.to_string())?;
    match bad {
        Some(why) => Err(why),
        None if gone.len() > REWIND_ENTRIES_MAX => Err("it has too many elements".into()),
        None => Ok((existed, gone)),
    }
}

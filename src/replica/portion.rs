//! One record of a primary, split for the shards of this node, without the slots that are had already.
//!
//! Bytes in, bytes out. Must not know positions or links.

use super::position::SlotName;
use super::wire::Record;
use crate::binlog::Touch;
use crate::shard::mesh::Portion;
use crate::slot::{Layout, ShardId, Slot, TableId};
use crate::store::effects::{BodyError, BodyReader, BodyWriter, Operation, Origin, SlotRange, SlotWide};
use crate::store::tx::{Change, Effect};
use smallvec::SmallVec;

/// Why a record cannot be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The body cannot be understood.
    Body(BodyError),
    /// These slots must be copied: they change places with slots that are further already, or with what was
    /// copied from a third node.
    Copy(Vec<SlotName>),
}

/// A record, split.
#[derive(Debug, Default)]
pub struct Split {
    /// By local shard.
    pub portions: SmallVec<[(ShardId, Portion); 1]>,
    /// Slots that change places, in pairs: both go on behind the higher of their indexes.
    pub swaps: Vec<(SlotName, SlotName)>,
}

/// Splits a record for the shards of a node, as far as it falls on its touches, which ascend by table and slot.
pub fn split(record: Record, layout: Layout) -> Result<Split, Unfit> {
    let Some(first) = record.touches.first() else { return Ok(Split::default()) };
    let home = layout.shard_of(first.slot);
    let one_shard = record.touches.iter().all(|touch| layout.shard_of(touch.slot) == home);
    if record.exact
        && one_shard
        && let Some((operations, elements)) = effects_only(&record)?
    {
        let Record { stream, lsn, touches, body, .. } = record;
        let portion = Portion { stream, lsn: lsn.0, touches, body, operations, elements };
        return Ok(Split { portions: SmallVec::from_buf([(home, portion)]), swaps: Vec::new() });
    }
    let reader = BodyReader::new(record.body.clone()).map_err(Unfit::Body)?;
    let origin = reader.origin();
    let mut operations = Vec::new();
    let mut swaps = Vec::new();
    for operation in reader {
        match operation.map_err(Unfit::Body)? {
            Operation::Effect(effect) => {
                if touched(&record.touches, effect.table, effect.slot) {
                    operations.push(Operation::Effect(effect));
                }
            }
            Operation::SlotWide(SlotWide::Flush { table, slots }) => {
                let slots = inside(&record.touches, table, &slots);
                if !slots.is_empty() {
                    operations.push(Operation::SlotWide(SlotWide::Flush { table, slots }));
                }
            }
            Operation::SlotWide(SlotWide::SwapTables { a, b, slots }) => {
                let slots = pairs(&record.touches, a, b, &slots)?;
                let again =
                    swaps.iter().any(|((of, _), (with, _)): &(SlotName, SlotName)| (*of, *with) == (a, b));
                // A whole says it once for each shard of the primary.
                if !slots.is_empty() && !again {
                    swaps.extend(each(&slots).map(|slot| ((a, slot), (b, slot))));
                    operations.push(Operation::SlotWide(SlotWide::SwapTables { a, b, slots }));
                }
            }
            Operation::SlotWide(SlotWide::Adopt { table, slot, .. }) => {
                if touched(&record.touches, table, slot) {
                    return Err(Unfit::Copy(vec![(table, slot)]));
                }
            }
        }
    }
    let mut split = Split { portions: portions(&record, layout), swaps };
    for (shard, portion) in &mut split.portions {
        write(portion, *shard, origin, &operations, layout);
    }
    Ok(split)
}

/// How many effects a body has, and whether elements are among them; None if it has anything else.
fn effects_only(record: &Record) -> Result<Option<(usize, bool)>, Unfit> {
    let (mut operations, mut elements) = (0, false);
    for operation in BodyReader::new(record.body.clone()).map_err(Unfit::Body)? {
        let operation = operation.map_err(Unfit::Body)?;
        if let Operation::SlotWide(_) = operation {
            return Ok(None);
        }
        operations += 1;
        elements |= is_element(&operation);
    }
    Ok(Some((operations, elements)))
}

fn is_element(operation: &Operation) -> bool {
    matches!(operation, Operation::Effect(Effect { change: Change::Element { .. }, .. }))
}

fn touched(touches: &[Touch], table: TableId, slot: Slot) -> bool {
    touches.binary_search_by_key(&(table, slot), |touch| (touch.table, touch.slot)).is_ok()
}

/// The touches of one table.
fn of_table(touches: &[Touch], table: TableId) -> &[Touch] {
    let first = touches.partition_point(|touch| touch.table < table);
    let end = touches.partition_point(|touch| touch.table <= table);
    &touches[first..end]
}

/// The touched slots of a table that lie in these ranges.
fn inside(touches: &[Touch], table: TableId, ranges: &[SlotRange]) -> Vec<SlotRange> {
    let slots = of_table(touches, table).iter().map(|touch| touch.slot);
    runs(slots.filter(|slot| ranges.iter().any(|range| range.holds(*slot))))
}

/// The slots that two tables exchange.
fn pairs(touches: &[Touch], a: TableId, b: TableId, ranges: &[SlotRange]) -> Result<Vec<SlotRange>, Unfit> {
    let all = [SlotRange { first: Slot(0), last: Slot(u16::MAX) }];
    let ranges = if ranges.is_empty() { &all } else { ranges };
    let (left, right) = (inside(touches, a, ranges), inside(touches, b, ranges));
    if left == right {
        return Ok(left);
    }
    let alone = |of: TableId, slots: &[SlotRange], with: TableId| -> Vec<SlotName> {
        each(slots).filter(|slot| !touched(touches, with, *slot)).map(|slot| (of, slot)).collect()
    };
    Err(Unfit::Copy([alone(a, &left, b), alone(b, &right, a)].concat()))
}

fn each(ranges: &[SlotRange]) -> impl Iterator<Item = Slot> + '_ {
    ranges.iter().flat_map(|range| (range.first.0..=range.last.0).map(Slot))
}

/// Ascending slots as ranges.
fn runs(slots: impl Iterator<Item = Slot>) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some(range) if range.last.0.checked_add(1) == Some(slot.0) => range.last = slot,
            _ => ranges.push(SlotRange { first: slot, last: slot }),
        }
    }
    ranges
}

/// The touches by shard, with no bodies yet.
fn portions(record: &Record, layout: Layout) -> SmallVec<[(ShardId, Portion); 1]> {
    let mut portions: SmallVec<[(ShardId, Portion); 1]> = SmallVec::new();
    for touch in &record.touches {
        let shard = layout.shard_of(touch.slot);
        let at = portions.iter().position(|(of, _)| *of == shard).unwrap_or_else(|| {
            let (stream, lsn, touches) = (record.stream, record.lsn.0, SmallVec::new());
            let portion =
                Portion { stream, lsn, touches, body: Default::default(), operations: 0, elements: false };
            portions.push((shard, portion));
            portions.len() - 1
        });
        portions[at].1.touches.push(*touch);
    }
    portions
}

fn write(portion: &mut Portion, shard: ShardId, origin: Origin, operations: &[Operation], layout: Layout) {
    let mut body = Vec::new();
    let mut writer = BodyWriter::new(&mut body, origin);
    let own = layout.slots_of(shard).map(|(first, last)| SlotRange { first, last });
    let cut = |slots: &[SlotRange]| -> Vec<SlotRange> {
        let cut = |range: &SlotRange, own: SlotRange| SlotRange {
            first: range.first.max(own.first),
            last: range.last.min(own.last),
        };
        let all = slots.iter().filter_map(|range| own.map(|own| cut(range, own)));
        all.filter(|range| range.first <= range.last).collect()
    };
    for operation in operations {
        let wide = match operation {
            Operation::Effect(effect) => {
                if layout.shard_of(effect.slot) == shard {
                    writer.effect(effect);
                    portion.operations += 1;
                    portion.elements |= is_element(operation);
                }
                continue;
            }
            Operation::SlotWide(SlotWide::Flush { table, slots }) => {
                SlotWide::Flush { table: *table, slots: cut(slots) }
            }
            Operation::SlotWide(SlotWide::SwapTables { a, b, slots }) => {
                SlotWide::SwapTables { a: *a, b: *b, slots: cut(slots) }
            }
            Operation::SlotWide(SlotWide::Adopt { .. }) => unreachable!("refused when it was read"),
        };
        let (SlotWide::Flush { slots, .. } | SlotWide::SwapTables { slots, .. }) = &wide else { continue };
        if !slots.is_empty() {
            writer.slot_wide(&wide);
            portion.operations += 1;
        }
    }
    portion.body = body.into();
}

//! One record of a primary, split for the shards of this node, without the slots that are had already.
//!
//! Bytes in, bytes out. Must not know positions or links.

use super::position::SlotName;
use super::wire::Record;
use crate::binlog::Touch;
use crate::shard::mesh::Portion;
use crate::slot::placement::Placement;
use crate::slot::{ShardId, Slot, TableId};
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
pub fn split(record: Record, placement: &Placement) -> Result<Split, Unfit> {
    let Some(first) = record.touches.first() else { return Ok(Split::default()) };
    let home = placement.shard_of(first.slot);
    let one_shard = record.touches.iter().all(|touch| placement.shard_of(touch.slot) == home);
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
    let mut split = Split { portions: portions(&record, placement), swaps };
    for (shard, portion) in &mut split.portions {
        write(portion, *shard, origin, &operations, placement);
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
fn portions(record: &Record, placement: &Placement) -> SmallVec<[(ShardId, Portion); 1]> {
    let mut portions: SmallVec<[(ShardId, Portion); 1]> = SmallVec::new();
    for touch in &record.touches {
        let shard = placement.shard_of(touch.slot);
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

fn write(
    portion: &mut Portion,
    shard: ShardId,
    origin: Origin,
    operations: &[Operation],
    placement: &Placement,
) {
    let mut body = Vec::new();
    let mut writer = BodyWriter::new(&mut body, origin);
    let cut = |slots: &[SlotRange]| runs(each(slots).filter(|slot| placement.shard_of(*slot) == shard));
    for operation in operations {
        let wide = match operation {
            Operation::Effect(effect) => {
                if placement.shard_of(effect.slot) == shard {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::Lsn;
    use crate::store::Row;
    use bytes::Bytes;

    const LAYOUT: u16 = 8;

    fn put(table: u32, slot: u16) -> Operation {
        let change = Change::Put(Row::string(Bytes::from_static(b"value")));
        let (table, slot, name) = (TableId(table), Slot(slot), Bytes::from_static(b"name"));
        Operation::Effect(Effect { table, slot, name, change, existed: None })
    }

    fn ranges(slots: &[(u16, u16)]) -> Vec<SlotRange> {
        slots.iter().map(|(first, last)| SlotRange { first: Slot(*first), last: Slot(*last) }).collect()
    }

    fn flush(table: u32, slots: &[(u16, u16)]) -> Operation {
        Operation::SlotWide(SlotWide::Flush { table: TableId(table), slots: ranges(slots) })
    }

    fn swap(slots: &[(u16, u16)]) -> Operation {
        Operation::SlotWide(SlotWide::SwapTables { a: TableId(0), b: TableId(1), slots: ranges(slots) })
    }

    fn record(operations: &[Operation], touched: &[(u32, u16)], exact: bool) -> Record {
        let mut body = Vec::new();
        let mut writer = BodyWriter::new(&mut body, Origin::TRANSACTION);
        for operation in operations {
            match operation {
                Operation::Effect(effect) => writer.effect(effect),
                Operation::SlotWide(wide) => writer.slot_wide(wide),
            }
        }
        let touch =
            |at: &(u32, u16)| Touch { table: TableId(at.0), slot: Slot(at.1), index: 1, term: 1 << 40 };
        let touches = touched.iter().map(touch).collect();
        Record { stream: ShardId(0), lsn: Lsn(5), time_ms: 0, touches, exact, body: body.into() }
    }

    fn parts(record: Record, shards: u16) -> Vec<(u16, Vec<Operation>)> {
        let split = split(record, &Placement::even(LAYOUT, shards)).unwrap();
        let part = |(shard, portion): (ShardId, Portion)| {
            let reader = BodyReader::new(portion.body).unwrap();
            assert_eq!(reader.origin(), Origin::TRANSACTION);
            let operations: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
            assert_eq!(operations.len(), portion.operations);
            (shard.0, operations)
        };
        split.portions.into_iter().map(part).collect()
    }

    #[test]
    fn a_record_of_one_shard_keeps_its_body() {
        let record = record(&[put(0, 1), put(0, 2)], &[(0, 1), (0, 2)], true);
        let body = record.body.clone();
        let split = split(record, &Placement::even(LAYOUT, 2)).unwrap();
        assert_eq!(split.portions.len(), 1);
        assert_eq!(split.portions[0].1.body.as_ptr(), body.as_ptr());
        assert_eq!(split.portions[0].1.operations, 2);
    }

    #[test]
    fn each_shard_gets_its_operations_in_their_order_and_nothing_that_is_here_already() {
        let all = [put(0, 1), put(1, 7), put(0, 2), put(0, 1), put(0, 6)];
        assert_eq!(
            parts(record(&all, &[(0, 1), (0, 6), (1, 7)], false), 2),
            [(0, vec![put(0, 1), put(0, 1)]), (1, vec![put(1, 7), put(0, 6)])]
        );
    }

    #[test]
    fn a_flush_is_cut_to_what_is_touched() {
        let all = [flush(0, &[(0, 7)]), put(0, 3)];
        assert_eq!(
            parts(record(&all, &[(0, 1), (0, 2), (0, 3), (0, 5), (0, 6)], true), 2),
            [(0, vec![flush(0, &[(1, 3)]), put(0, 3)]), (1, vec![flush(0, &[(5, 6)])])]
        );
        assert_eq!(
            parts(record(&all, &[(1, 3)], false), 1),
            [(0, vec![])],
            "nothing of it, and its touch stays"
        );
    }

    #[test]
    fn a_swap_names_its_slots_and_is_done_once() {
        let touched = [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)];
        // A whole says it once for each shard of the primary.
        let record = record(&[swap(&[]), swap(&[])], &touched, false);
        assert_eq!(parts(record.clone(), 2), [(0, vec![swap(&[(2, 3)])]), (1, vec![swap(&[(4, 4)])])]);
        assert_eq!(split(record, &Placement::even(LAYOUT, 2)).unwrap().swaps.len(), 3);
    }

    #[test]
    fn half_a_swap_is_not_done() {
        let half = record(&[swap(&[])], &[(0, 2), (0, 3), (1, 3)], false);
        assert_eq!(
            split(half, &Placement::even(LAYOUT, 1)).unwrap_err(),
            Unfit::Copy(vec![(TableId(0), Slot(2))])
        );
    }

    #[test]
    fn what_another_node_has_copied_does_not_travel() {
        let adopted = crate::store::effects::Adopted {
            incarnation: crate::store::Incarnation::FIRST,
            index: 1,
            term: 1,
            keys_estimate: 0,
        };
        let adopt = SlotWide::Adopt { table: TableId(0), slot: Slot(1), adopted };
        let record = record(&[Operation::SlotWide(adopt)], &[(0, 1)], true);
        let unfit = split(record, &Placement::even(LAYOUT, 1)).unwrap_err();
        assert_eq!(unfit, Unfit::Copy(vec![(TableId(0), Slot(1))]));
    }

    #[test]
    fn a_body_that_is_damaged_is_refused() {
        let mut damaged = record(&[put(0, 1)], &[(0, 1)], true);
        damaged.body = damaged.body.slice(..damaged.body.len() - 1);
        assert!(matches!(split(damaged, &Placement::even(LAYOUT, 1)), Err(Unfit::Body(_))));
    }
}

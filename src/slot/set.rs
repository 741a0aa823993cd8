//! Sets of slots, as people write them and as a node keeps them.
//!
//! Pure. Must not know what is done with them.

use super::{Slot, TableId};
use std::collections::{BTreeMap, BTreeSet};

/// Slots of one table.
pub type SlotSet = BTreeSet<Slot>;

/// Slots of several tables; none is named that has no slot in it.
pub type TableSlots = BTreeMap<TableId, SlotSet>;

/// Why a text names no slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlots {
    /// It is not of the form `3`, `5-9` or `1,4-6`.
    Syntax,
    /// It names a slot that no table of this size has.
    OutOfRange,
}

/// Reads `3`, `5-9` or `1,4-6`: slots below `count`.
pub fn parse(text: &[u8], count: u16) -> Result<SlotSet, NoSlots> {
    let text = std::str::from_utf8(text).map_err(|_| NoSlots::Syntax)?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // What is too long for a number is a number all the same.
        digits.then(|| text.parse().unwrap_or(u64::MAX)).ok_or(NoSlots::Syntax)
    };
    let mut slots = SlotSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(NoSlots::Syntax);
        }
        if last >= u64::from(count) {
            return Err(NoSlots::OutOfRange);
        }
        slots.extend((first as u16..=last as u16).map(Slot));
    }
    Ok(slots)
}

/// As `parse` reads it: neighbours together.
pub fn shown(slots: &SlotSet) -> String {
    let shown = ranges(slots).into_iter().map(|(first, last)| match first == last {
        true => first.0.to_string(),
        false => format!("{}-{}", first.0, last.0),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// First and last of each run of neighbours.
pub fn ranges(slots: &SlotSet) -> Vec<(Slot, Slot)> {
    let mut ranges: Vec<(Slot, Slot)> = Vec::new();
    for &slot in slots {
        match ranges.last_mut() {
            Some((_, last)) if last.0 + 1 == slot.0 => *last = slot,
            _ => ranges.push((slot, slot)),
        }
    }
    ranges
}

/// All of a table.
pub fn all(count: u16) -> SlotSet {
    (0..count).map(Slot).collect()
}

/// Whether a slot is among them.
pub fn holds(tables: &TableSlots, table: TableId, slot: Slot) -> bool {
    tables.get(&table).is_some_and(|slots| slots.contains(&slot))
}

/// What is in `a` and not in `b`.
pub fn without(a: &TableSlots, b: &TableSlots) -> TableSlots {
    let rest = a.iter().map(|(table, slots)| match b.get(table) {
        Some(other) => (*table, slots - other),
        None => (*table, slots.clone()),
    });
    rest.filter(|(_, slots)| !slots.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_read_as_pika_reads_them() {
        let read = |text: &str| parse(text.as_bytes(), 1024).map(|slots| shown(&slots));
        assert_eq!(read("3"), Ok("3".into()));
        assert_eq!(read("5-9"), Ok("5-9".into()));
        assert_eq!(read("9,1,4-6,5-7"), Ok("1,4-7,9".into()));
        assert_eq!(read("0-1023"), Ok("0-1023".into()));
        for wrong in ["", "a", "1,", ",1", "3-", "-3", "5-3", "1-2-3", " 1", "+1", "-1"] {
            assert_eq!(read(wrong), Err(NoSlots::Syntax), "{wrong:?}");
        }
        for beyond in ["1024", "0-4000000000", "0-99999999999999999999999"] {
            assert_eq!(read(beyond), Err(NoSlots::OutOfRange), "{beyond}");
        }
        assert_eq!(parse(b"\xff", 8), Err(NoSlots::Syntax));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(slots in proptest::collection::btree_set(0u16..600, 1..200)) {
            let slots: SlotSet = slots.into_iter().map(Slot).collect();
            prop_assert_eq!(parse(shown(&slots).as_bytes(), 600), Ok(slots));
        }
    }

    #[test]
    fn sets_of_tables_are_taken_from_each_other() {
        let set = |text: &str| parse(text.as_bytes(), 16).expect("it is a set");
        let a = TableSlots::from([(TableId(0), set("1-5")), (TableId(1), set("2"))]);
        let b = TableSlots::from([(TableId(0), set("4-9")), (TableId(1), set("2"))]);
        assert_eq!(without(&a, &b), TableSlots::from([(TableId(0), set("1-3"))]));
        assert!(holds(&a, TableId(1), Slot(2)) && !holds(&a, TableId(2), Slot(2)));
    }
}

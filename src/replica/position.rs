//! How far slots have come: the last record of each, by its index and term.
//!
//! Must not know where records are kept, or who has them.

use crate::binlog::TERM_CHANCE_BITS;
use crate::shard::mesh::SlotPosition;
use crate::slot::{Slot, TableId};
use rustc_hash::FxHashMap;

/// Names a slot of a node.
pub type SlotName = (TableId, Slot);

/// Terms below are from before there was replication: two nodes may have given the same one to different records.
const TERM_FIRST: u64 = 1 << TERM_CHANCE_BITS;

/// The last record of a slot. After a swap of two tables the index is that of no record: the higher one of both
/// slots, behind which both go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// 0: none.
    pub index: u64,
    pub term: u64,
}

impl Position {
    /// Whether two nodes that are both here have the same data.
    pub fn is_same(self, other: Position) -> bool {
        self == other && (self.index == 0 || self.is_unique())
    }

    /// No other node can have given this term to other records.
    pub fn is_unique(self) -> bool {
        self.term >= TERM_FIRST
    }
}

/// The positions of many slots; one that is not named is at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(FxHashMap<SlotName, Position>);

impl Positions {
    pub fn get(&self, slot: SlotName) -> Position {
        self.0.get(&slot).copied().unwrap_or_default()
    }

    pub fn set(&mut self, slot: SlotName, position: Position) {
        if position.index == 0 {
            self.0.remove(&slot);
        } else {
            self.0.insert(slot, position);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = SlotPosition> + '_ {
        self.0.iter().map(|(slot, position)| slot_position(*slot, *position))
    }
}

impl FromIterator<SlotPosition> for Positions {
    fn from_iter<I: IntoIterator<Item = SlotPosition>>(all: I) -> Positions {
        let mut positions = Positions::default();
        for at in all {
            positions.set((at.table, at.slot), Position { index: at.index, term: at.term });
        }
        positions
    }
}

/// A slot's name and position in one.
pub fn slot_position((table, slot): SlotName, Position { index, term }: Position) -> SlotPosition {
    SlotPosition { table, slot, index, term }
}

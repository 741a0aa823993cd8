//! A look ahead: rows that a pipeline is about to ask for are touched together, so that the core waits for memory
//! once for many of them and not four times for each.
//!
//! A touch reads and answers nothing, and may be left out. Knows no command.

use super::hot::{Hot, Known, RowNameRef};
use super::owner::Owner;
use super::slots::NONE;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::row::Body;
use std::hint::black_box;

impl Owner {
    /// Touches what memory has under these names, where the shard is this core's.
    pub fn touch<'n>(&self, table: TableId, names: impl Iterator<Item = (ShardId, Slot, &'n [u8])>) {
        for (shard, slot, name) in names {
            let Some(at) = self.local[usize::from(shard.0)] else { continue };
            let data = &self.shards[at].data;
            let incarnation = data.slots.get(table, slot).incarnation;
            if incarnation != NONE {
                data.hot.touch(RowNameRef { incarnation, name });
            }
        }
    }
}

impl Hot {
    /// Brings a row into the CPU's caches, if it is in memory.
    fn touch(&self, name: RowNameRef<'_>) {
        if let Known::Row(row) = self.peek(name)
            && let Body::Inline(value) = &row.body
        {
            black_box(value.first());
        }
    }
}

//! How far a group is: the number of the entry it has read last, and how many are still before it.
//!
//! Entries are numbered from the first that was ever added. An entry's number is known only where nothing
//! was deleted behind it. Source: t_stream.c of Redis 7.0.

use super::{GroupHead, Stream};
use crate::store::row::StreamId;

impl Stream<'_> {
    /// Whether an entry at `id` or behind it may have been deleted from between others.
    fn has_gap_from(&self, id: StreamId) -> bool {
        let gap = self.head.max_deleted_id;
        self.len > 0 && gap != StreamId::MIN && self.head.first_id <= gap && id <= gap
    }

    /// Number of the entry with this id; None if it cannot be told.
    fn number_of(&self, id: StreamId) -> Option<u64> {
        let head = &self.head;
        if head.entries_added == 0 {
            return Some(0);
        }
        if id == head.last_id || (self.len == 0 && id < head.last_id) {
            return known(head.entries_added);
        }
        let gap = head.max_deleted_id;
        if id > head.first_id || id > head.last_id || (gap != StreamId::MIN && gap >= head.first_id) {
            return None;
        }
        // A client may have set any number of entries added.
        let before = head.entries_added.wrapping_sub(self.len);
        known(before.wrapping_add(u64::from(id == head.first_id)))
    }

    /// Entries that a group has still to read; None if it cannot be told.
    pub fn lag(&self, group: &GroupHead) -> Option<i64> {
        let added = self.head.entries_added;
        let read = match group.entries_read {
            _ if added == 0 => 0,
            Some(read) if !self.has_gap_from(group.last_id) => read,
            _ => self.number_of(group.last_id)?,
        };
        Some(added.wrapping_sub(read).cast_signed())
    }

    /// A group reads the next entry.
    pub fn advance(&self, group: &mut GroupHead, id: StreamId) {
        match group.entries_read {
            Some(read) if !self.has_gap_from(id) => group.entries_read = known(read.wrapping_add(1)),
            _ if self.head.entries_added > 0 => group.entries_read = self.number_of(id),
            _ => {}
        }
        group.last_id = id;
    }
}

/// Redis's number for what is not known.
fn known(number: u64) -> Option<u64> {
    (number != u64::MAX).then_some(number)
}

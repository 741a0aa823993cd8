//! The keys of a giant command on one shard: built on the pool, then asked by name.
//!
//! Holding a latch on a million keys costs the core one pointer; each other command one look-up. The
//! names stay where the command's bytes are.

use crate::resp::args::Span;
use crate::runtime::reaper;
use crate::slot::TableId;
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::fmt;
use std::hash::BuildHasher;

pub struct KeySet {
    table: TableId,
    bytes: Bytes,
    names: HashTable<Span>,
    state: RandomState,
}

impl KeySet {
    /// Names in `bytes`, all of one table. Walks through them: for the pool.
    pub fn new(table: TableId, bytes: Bytes, names: impl ExactSizeIterator<Item = Span>) -> KeySet {
        let state = RandomState::default();
        let mut found = HashTable::with_capacity(names.len());
        let hash = |span: &Span| state.hash_one(name(&bytes, span));
        for span in names {
            let of = hash(&span);
            if found.find(of, |other| name(&bytes, other) == name(&bytes, &span)).is_none() {
                found.insert_unique(of, span, hash);
            }
        }
        KeySet { table, bytes, names: found, state }
    }

    pub fn table(&self) -> TableId {
        self.table
    }

    pub fn holds(&self, table: TableId, wanted: &[u8]) -> bool {
        let hash = self.state.hash_one(wanted);
        table == self.table && self.names.find(hash, |span| name(&self.bytes, span) == wanted).is_some()
    }
}

fn name<'b>(bytes: &'b [u8], span: &Span) -> &'b [u8] {
    &bytes[span.start as usize..][..span.len as usize]
}

impl Drop for KeySet {
    fn drop(&mut self) {
        if self.bytes.len() + self.names.capacity() * size_of::<Span>() >= reaper::WORTH_BYTES {
            reaper::free((std::mem::take(&mut self.bytes), std::mem::take(&mut self.names)));
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} keys of {:?}", self.names.len(), self.table)
    }
}

/// The same set, not an equal one.
impl PartialEq for KeySet {
    fn eq(&self, other: &KeySet) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for KeySet {}

//! One turn's changes to a shard, applied to RocksDB whole or not at all.
//!
//! Written straight in RocksDB's own batch encoding (the header comment of its `db/write_batch.cc`): the
//! buffers are reused from turn to turn, and a refused batch can be offered again, which the crate's
//! `WriteBatch`, consumed by `write`, cannot. Knows no database handle, only the numbers of the column
//! families.

use super::key::{ElementKey, Family, Incarnation, Key, row_key, system, time_key};
use super::row::Row;
use super::slots::SlotEntry;
use crate::slot::{ShardId, Slot, TableId};

/// Numbers RocksDB gave the families when they were made; `default` is always 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct FamilyNumbers {
    pub element: u32,
    pub time: u32,
}

const HEADER_BYTES: usize = 12;
const COUNT_AT: usize = 8;
const TAG_DELETE: u8 = 0;
const TAG_PUT: u8 = 1;
const TAG_FAMILY_DELETE: u8 = 4;
const TAG_FAMILY_PUT: u8 = 5;

/// Changes in the order they were given; a later one of the same key wins. Bounded by who fills it.
#[derive(Debug)]
pub struct Batch {
    data: Vec<u8>,
    value: Vec<u8>,
    count: u32,
    lsn: Option<u64>,
    numbers: FamilyNumbers,
}

impl Batch {
    pub(super) fn new(numbers: FamilyNumbers) -> Batch {
        Batch { data: vec![0; HEADER_BYTES], value: Vec::new(), count: 0, lsn: None, numbers }
    }

    /// Empties the batch and keeps its buffers.
    pub fn clear(&mut self) {
        self.data.truncate(HEADER_BYTES);
        self.count = 0;
        self.lsn = None;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of puts and deletes in it.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes the batch holds; roughly what it adds to the memtables.
    pub fn size_bytes(&self) -> usize {
        self.data.len()
    }

    /// Stores a row and, for each moment at which something of it ends, an entry in the time index.
    pub fn put_row(&mut self, incarnation: Incarnation, name: &[u8], row: &Row) {
        let mut value = std::mem::take(&mut self.value);
        value.clear();
        row.encode_into(&mut value);
        self.put(Family::Row, &row_key(incarnation, name), &value);
        self.value = value;
        for expire_ms in row.expire_ms.into_iter().chain(row.field_expire_ms) {
            self.put_time(expire_ms, incarnation, name);
        }
    }

    /// The row's entry in the time index stays: whoever finds it due sees that the row is gone or changed.
    pub fn delete_row(&mut self, incarnation: Incarnation, name: &[u8]) {
        self.delete(Family::Row, &row_key(incarnation, name));
    }

    pub fn put_element(&mut self, key: &ElementKey, value: &[u8]) {
        self.put(Family::Element, &key.0, value);
    }

    pub fn delete_element(&mut self, key: &ElementKey) {
        self.delete(Family::Element, &key.0);
    }

    /// Puts an entry into the time index, of a row that is on its way into a file.
    pub fn put_time(&mut self, expire_ms: u64, incarnation: Incarnation, name: &[u8]) {
        self.put(Family::Time, &time_key(expire_ms, incarnation, name), &[]);
    }

    /// Takes an entry out of the time index, once it has fallen due and been dealt with.
    pub fn delete_time(&mut self, expire_ms: u64, incarnation: Incarnation, name: &[u8]) {
        self.delete(Family::Time, &time_key(expire_ms, incarnation, name));
    }

    /// Says that with this batch everything up to `lsn` is applied. Every batch that is written carries it.
    pub fn set_persisted(&mut self, lsn: u64) {
        self.put(Family::Row, &row_key(Incarnation::SYSTEM, &system::PERSISTED_LSN), &lsn.to_be_bytes());
        self.lsn = Some(lsn);
    }

    pub fn put_slot_entry(&mut self, entry: &SlotEntry) {
        let name = system::slot_name(entry.table, entry.slot);
        self.put(Family::Row, &row_key(Incarnation::SYSTEM, &name), &entry.encode());
    }

    pub fn delete_slot_entry(&mut self, table: TableId, slot: Slot) {
        self.delete(Family::Row, &row_key(Incarnation::SYSTEM, &system::slot_name(table, slot)));
    }

    /// The first number no slot has had: in the same batch as the first entry that uses the one before.
    pub fn put_next_incarnation(&mut self, next: Incarnation) {
        let key = row_key(Incarnation::SYSTEM, &system::NEXT_INCARNATION);
        self.put(Family::Row, &key, &next.0.to_be_bytes());
    }

    /// Says that the slot table, with what is put beside it, stands as of `lsn`: in the batch that puts it.
    pub fn put_slots_lsn(&mut self, lsn: u64) {
        let key = row_key(Incarnation::SYSTEM, &system::SLOTS_LSN);
        self.put(Family::Row, &key, &lsn.to_be_bytes());
    }

    /// The last transaction part of this home shard that is applied here.
    pub fn put_part_applied(&mut self, home: ShardId, number: u64) {
        let key = row_key(Incarnation::SYSTEM, &system::part_name(home));
        self.put(Family::Row, &key, &number.to_be_bytes());
    }

    /// The oldest whole that a participant may still lack; 0: none.
    pub fn put_whole_floor(&mut self, lsn: u64) {
        let key = row_key(Incarnation::SYSTEM, &system::WHOLE_FLOOR);
        self.put(Family::Row, &key, &lsn.to_be_bytes());
    }

    pub(super) fn put_format(&mut self, format: u32) {
        self.put(Family::Row, &row_key(Incarnation::SYSTEM, &system::FORMAT), &format.to_be_bytes());
    }

    pub(super) fn lsn(&self) -> Option<u64> {
        self.lsn
    }

    /// The batch in RocksDB's encoding; it fills in the sequence number itself.
    pub(super) fn encoded(&mut self) -> &[u8] {
        self.data[COUNT_AT..HEADER_BYTES].copy_from_slice(&self.count.to_le_bytes());
        &self.data
    }

    fn put(&mut self, family: Family, key: &Key, value: &[u8]) {
        self.begin(family, TAG_PUT, TAG_FAMILY_PUT);
        self.bytes(key);
        self.bytes(value);
    }

    fn delete(&mut self, family: Family, key: &Key) {
        self.begin(family, TAG_DELETE, TAG_FAMILY_DELETE);
        self.bytes(key);
    }

    fn begin(&mut self, family: Family, tag: u8, family_tag: u8) {
        self.count = self.count.checked_add(1).expect("a batch is cut long before 2^32 operations");
        let number = match family {
            Family::Row => return self.data.push(tag),
            Family::Element => self.numbers.element,
            Family::Time => self.numbers.time,
        };
        self.data.push(family_tag);
        self.varint(number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(u32::try_from(bytes.len()).expect("values are cut into pieces long before 4 GiB"));
        self.data.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.data.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.data.push(number as u8);
    }
}

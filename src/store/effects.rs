//! The body of a log frame: what a command did, as effects that mean the same on every node.
//!
//! No incarnation is in it, and nothing that replaying could compute differently. Layout: FORMAT.md, "Log
//! body". Must not know frames, positions or RocksDB.

use super::key::Incarnation;
use super::row::{Row, Version};
use super::tx::{Change, Effect};
use super::varint;
use crate::slot::{Slot, TableId};
use bytes::{Buf, Bytes};
use smallvec::SmallVec;

/// Version of the layout; others are refused.
const BODY_FORMAT: u8 = 1;

/// Where a frame's effects came from: for whoever has to say what a dropped tail was. Unknown ones are
/// allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(pub u8);

impl Origin {
    pub const STRING: Origin = Origin(1);
    pub const GENERIC: Origin = Origin(2);
    pub const SERVER: Origin = Origin(3);
    /// The primary found a key due.
    pub const EXPIRY: Origin = Origin(4);
    pub const TRANSACTION: Origin = Origin(5);
    pub const SCRIPT: Origin = Origin(6);
    pub const HASH: Origin = Origin(7);
    pub const LIST: Origin = Origin(8);
    pub const SET: Origin = Origin(9);
    pub const SORTED_SET: Origin = Origin(10);
    pub const STREAM: Origin = Origin(11);
    /// A slot was copied from another node: no record of its own stream says what is in it.
    pub const COPY: Origin = Origin(12);
}

/// Slots from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    pub first: Slot,
    pub last: Slot,
}

impl SlotRange {
    pub fn holds(self, slot: Slot) -> bool {
        self.first <= slot && slot <= self.last
    }
}

/// What falls on whole slots: it changes the slot table and touches no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotWide {
    /// These slots are empty from here on: each gets a new incarnation.
    Flush { table: TableId, slots: Vec<SlotRange> },
    /// Slots of two tables change places. No ranges: those of this shard that are in use in either table; as a
    /// primary does it. With ranges: these, in use or not; as a follower does it, which may have only some of
    /// them on one shard, and may know a slot to be empty that its primary does not.
    SwapTables { a: TableId, b: TableId, slots: Vec<SlotRange> },
    /// A slot's data is from here on what was copied from another node. Means something only in this shard's
    /// own log: a follower copies too.
    Adopt { table: TableId, slot: Slot, adopted: Adopted },
}

/// What a slot becomes when it has been copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Where the copy lies; the system's own: the slot is empty.
    pub incarnation: Incarnation,
    /// Of the last record the copy has in it; 0: none.
    pub index: u64,
    pub term: u64,
    pub keys_estimate: u64,
}

/// One thing a frame did. Order matters: an EXEC may write, flush and write again.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Effect(Effect),
    SlotWide(SlotWide),
}

const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;
const OP_PUT_ELEMENT: u8 = 3;
const OP_DELETE_ELEMENT: u8 = 4;
const OP_FLUSH: u8 = 5;
const OP_SWAP_TABLES: u8 = 6;
const OP_SWAP_SLOTS: u8 = 7;
const OP_ADOPT: u8 = 8;
const OP_MASK: u8 = 0x0f;
/// The key is that of the effect before.
const SAME_KEY: u8 = 0x10;
const EXISTED_KNOWN: u8 = 0x20;
const EXISTED: u8 = 0x40;

/// Appends a body to a buffer, one operation at a time.
pub struct BodyWriter<'a> {
    out: &'a mut Vec<u8>,
    last: Option<(TableId, Slot, &'a [u8])>,
}

impl<'a> BodyWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>, origin: Origin) -> BodyWriter<'a> {
        out.extend_from_slice(&[BODY_FORMAT, origin.0]);
        BodyWriter { out, last: None }
    }

    pub fn effects(&mut self, effects: &'a [Effect]) {
        for effect in effects {
            self.effect(effect);
        }
    }

    pub fn effect(&mut self, effect: &'a Effect) {
        let op = match &effect.change {
            Change::Put(_) => OP_PUT,
            Change::Delete => OP_DELETE,
            Change::Element { value: Some(_), .. } => OP_PUT_ELEMENT,
            Change::Element { value: None, .. } => OP_DELETE_ELEMENT,
        };
        let existed = match effect.existed {
            None => 0,
            Some(false) => EXISTED_KNOWN,
            Some(true) => EXISTED_KNOWN | EXISTED,
        };
        let key = (effect.table, effect.slot, &effect.name[..]);
        if self.last == Some(key) {
            self.out.push(op | existed | SAME_KEY);
        } else {
            self.out.push(op | existed);
            self.number(u64::from(effect.table.0));
            self.number(u64::from(effect.slot.0));
            self.bytes(&effect.name);
            self.last = Some(key);
        }
        match &effect.change {
            Change::Put(row) => self.row(row),
            Change::Delete => {}
            Change::Element { version, sub, value } => {
                self.number(version.0);
                self.bytes(sub);
                if let Some(value) = value {
                    self.bytes(value);
                }
            }
        }
    }

    pub fn slot_wide(&mut self, change: &SlotWide) {
        match change {
            SlotWide::Flush { table, slots } => {
                self.out.push(OP_FLUSH);
                self.number(u64::from(table.0));
                self.ranges(slots);
            }
            SlotWide::SwapTables { a, b, slots } => {
                self.out.push(if slots.is_empty() { OP_SWAP_TABLES } else { OP_SWAP_SLOTS });
                self.number(u64::from(a.0));
                self.number(u64::from(b.0));
                if !slots.is_empty() {
                    self.ranges(slots);
                }
            }
            SlotWide::Adopt { table, slot, adopted } => {
                self.out.push(OP_ADOPT);
                self.number(u64::from(table.0));
                self.number(u64::from(slot.0));
                self.number(u64::from(adopted.incarnation.0));
                self.number(adopted.index);
                self.number(adopted.term);
                self.number(adopted.keys_estimate);
            }
        }
    }

    fn ranges(&mut self, ranges: &[SlotRange]) {
        self.number(ranges.len() as u64);
        for range in ranges {
            assert!(range.first <= range.last, "a range of slots goes upward");
            self.number(u64::from(range.first.0));
            self.number(u64::from(range.last.0 - range.first.0));
        }
    }

    /// The row's length stands before it, so that the row is encoded in place once its length is known.
    fn row(&mut self, row: &Row) {
        let at = self.out.len();
        row.encode_into(self.out);
        let len = self.out.len() - at;
        self.number(len as u64);
        let prefix = self.out.len() - at - len;
        self.out[at..].rotate_right(prefix);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u64) {
        varint::put(self.out, number);
    }
}

/// A body that cannot be understood: damage, or a program newer than this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log body: {0}")]
pub struct BodyError(pub &'static str);

/// Where a body came from, without reading it.
pub fn origin(body: &[u8]) -> Option<Origin> {
    match body {
        [BODY_FORMAT, origin, ..] => Some(Origin(*origin)),
        _ => None,
    }
}

const ENDS: BodyError = BodyError("ends within an operation");

/// Reads a body, one operation at a time; nothing after an error. Values share the body's memory.
pub struct BodyReader {
    rest: Bytes,
    origin: Origin,
    last: Option<(TableId, Slot, Bytes)>,
}

impl BodyReader {
    pub fn new(body: Bytes) -> Result<BodyReader, BodyError> {
        match body.as_ref() {
            [BODY_FORMAT, origin, ..] => {
                Ok(BodyReader { origin: Origin(*origin), rest: body.slice(2..), last: None })
            }
            [_, _, ..] => Err(BodyError("unknown format")),
            _ => Err(BodyError("shorter than its head")),
        }
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    fn operation(&mut self) -> Result<Operation, BodyError> {
        let tag = self.byte()?;
        match tag & OP_MASK {
            OP_PUT | OP_DELETE | OP_PUT_ELEMENT | OP_DELETE_ELEMENT => {
                self.effect(tag).map(Operation::Effect)
            }
            OP_FLUSH if tag == OP_FLUSH => self.flush().map(Operation::SlotWide),
            OP_SWAP_TABLES if tag == OP_SWAP_TABLES => {
                let (a, b) = (self.table()?, self.table()?);
                Ok(Operation::SlotWide(SlotWide::SwapTables { a, b, slots: Vec::new() }))
            }
            OP_SWAP_SLOTS if tag == OP_SWAP_SLOTS => self.swap_slots().map(Operation::SlotWide),
            OP_ADOPT if tag == OP_ADOPT => self.adopt().map(Operation::SlotWide),
            _ => Err(BodyError("unknown operation")),
        }
    }

    fn adopt(&mut self) -> Result<SlotWide, BodyError> {
        let (table, slot) = (self.table()?, self.slot()?);
        let incarnation = u32::try_from(self.number()?).ok().filter(|number| *number < u32::MAX - 1);
        let adopted = Adopted {
            incarnation: Incarnation(incarnation.ok_or(BodyError("incarnation too large"))?),
            index: self.number()?,
            term: self.number()?,
            keys_estimate: self.number()?,
        };
        Ok(SlotWide::Adopt { table, slot, adopted })
    }

    fn effect(&mut self, tag: u8) -> Result<Effect, BodyError> {
        let existed = match tag & !(OP_MASK | SAME_KEY) {
            0 => None,
            EXISTED_KNOWN => Some(false),
            both if both == EXISTED_KNOWN | EXISTED => Some(true),
            _ => return Err(BodyError("unknown flag")),
        };
        if tag & SAME_KEY == 0 {
            self.last = Some((self.table()?, self.slot()?, self.bytes()?));
        }
        let (table, slot, name) = self.last.clone().ok_or(BodyError("no key before"))?;
        let change = match tag & OP_MASK {
            OP_PUT => Change::Put(Row::decode(&self.bytes()?).map_err(|error| BodyError(error.0))?),
            OP_DELETE => Change::Delete,
            op => {
                let version = Version(self.number()?);
                let sub = SmallVec::from_slice(&self.bytes()?);
                let value = if op == OP_PUT_ELEMENT { Some(self.bytes()?) } else { None };
                Change::Element { version, sub, value }
            }
        };
        Ok(Effect { table, slot, name, change, existed })
    }

    fn flush(&mut self) -> Result<SlotWide, BodyError> {
        Ok(SlotWide::Flush { table: self.table()?, slots: self.ranges()? })
    }

    fn swap_slots(&mut self) -> Result<SlotWide, BodyError> {
        let (a, b, slots) = (self.table()?, self.table()?, self.ranges()?);
        if slots.is_empty() {
            return Err(BodyError("a swap of no slots"));
        }
        Ok(SlotWide::SwapTables { a, b, slots })
    }

    fn ranges(&mut self) -> Result<Vec<SlotRange>, BodyError> {
        let count = self.number()?;
        let mut slots = Vec::new();
        for _ in 0..count {
            let first = self.slot()?;
            let more = u16::try_from(self.number()?).map_err(|_| BodyError("slot too large"))?;
            let last = Slot(first.0.checked_add(more).ok_or(BodyError("slot too large"))?);
            slots.push(SlotRange { first, last });
        }
        Ok(slots)
    }

    fn table(&mut self) -> Result<TableId, BodyError> {
        u32::try_from(self.number()?).map(TableId).map_err(|_| BodyError("table too large"))
    }

    fn slot(&mut self) -> Result<Slot, BodyError> {
        u16::try_from(self.number()?).map(Slot).map_err(|_| BodyError("slot too large"))
    }

    fn byte(&mut self) -> Result<u8, BodyError> {
        if self.rest.is_empty() { Err(ENDS) } else { Ok(self.rest.get_u8()) }
    }

    fn bytes(&mut self) -> Result<Bytes, BodyError> {
        let len = self.number()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => Ok(self.rest.split_to(len)),
            _ => Err(ENDS),
        }
    }

    fn number(&mut self) -> Result<u64, BodyError> {
        let rest = &mut self.rest;
        varint::read(|| (!rest.is_empty()).then(|| rest.get_u8())).map_err(|bad| match bad {
            varint::Bad::Short => ENDS,
            varint::Bad::TooLarge => BodyError("number too large"),
        })
    }
}

impl Iterator for BodyReader {
    type Item = Result<Operation, BodyError>;

    fn next(&mut self) -> Option<Result<Operation, BodyError>> {
        if self.rest.is_empty() {
            return None;
        }
        let operation = self.operation();
        if operation.is_err() {
            self.rest = Bytes::new();
        }
        Some(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Body, Form, Kind};
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn row() -> impl Strategy<Value = Row> {
        let body = prop_oneof![
            bytes(300).prop_map(Body::Inline),
            (any::<u64>(), any::<u64>())
                .prop_map(|(version, len)| Body::Pieces { version: Version(version), len }),
        ];
        let form = prop_oneof![Just(Form::Plain), Just(Form::Text), Just(Form::Raw)];
        (form, option::of(any::<u64>()), body).prop_map(|(form, expire_ms, body)| Row {
            form,
            expire_ms,
            ..Row::new(Kind::String, body)
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            row().prop_map(Change::Put),
            Just(Change::Delete),
            (any::<u64>(), vec(any::<u8>(), 0..20), option::of(bytes(200))).prop_map(
                |(version, sub, value)| {
                    Change::Element { version: Version(version), sub: SmallVec::from_vec(sub), value }
                }
            ),
        ]
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let name = prop_oneof![Just(Bytes::from_static(b"same")), bytes(40)];
        let effect = (0..3u32, 0..3u16, name, change(), option::of(any::<bool>())).prop_map(
            |(table, slot, name, change, existed)| {
                Operation::Effect(Effect { table: TableId(table), slot: Slot(slot), name, change, existed })
            },
        );
        let range = (any::<u16>(), any::<u16>())
            .prop_map(|(a, b)| SlotRange { first: Slot(a.min(b)), last: Slot(a.max(b)) });
        let ranges = vec(range, 0..5);
        let flush = (any::<u32>(), ranges.clone())
            .prop_map(|(table, slots)| SlotWide::Flush { table: TableId(table), slots });
        let swap = (any::<u32>(), any::<u32>(), ranges).prop_map(|(a, b, slots)| SlotWide::SwapTables {
            a: TableId(a),
            b: TableId(b),
            slots,
        });
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
        let adopt = (any::<u32>(), any::<u16>(), 0..u32::MAX - 1, numbers).prop_map(
            |(table, slot, incarnation, (index, term, keys_estimate))| SlotWide::Adopt {
                table: TableId(table),
                slot: Slot(slot),
                adopted: Adopted { incarnation: Incarnation(incarnation), index, term, keys_estimate },
            },
        );
        let wide = prop_oneof![flush, swap, adopt].prop_map(Operation::SlotWide);
        prop_oneof![8 => effect, 2 => wide]
    }

    fn encode(operations: &[Operation]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut body = BodyWriter::new(&mut out, Origin::TRANSACTION);
        for operation in operations {
            match operation {
                Operation::Effect(effect) => body.effect(effect),
                Operation::SlotWide(change) => body.slot_wide(change),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn bodies_survive_encoding(operations in vec(operation(), 0..12)) {
            let reader = BodyReader::new(Bytes::from(encode(&operations))).unwrap();
            prop_assert_eq!(reader.origin(), Origin::TRANSACTION);
            prop_assert_eq!(reader.collect::<Result<Vec<_>, _>>(), Ok(operations));
        }

        #[test]
        fn any_bytes_end_in_operations_or_an_error(mut body in vec(any::<u8>(), 0..200)) {
            if let Some(first) = body.first_mut() {
                *first = BODY_FORMAT;
            }
            let len = body.len();
            if let Ok(reader) = BodyReader::new(Bytes::from(body)) {
                prop_assert!(reader.take(len + 1).count() <= len);
            }
        }

        #[test]
        fn damaged_bodies_never_panic(operations in vec(operation(), 1..6), at: usize, to: u8, keep: usize) {
            let mut body = encode(&operations);
            let at = 2 + at % (body.len() - 2).max(1);
            if at < body.len() {
                body[at] = to;
            }
            body.truncate(2 + keep % (body.len() - 1));
            let reader = BodyReader::new(Bytes::from(body)).unwrap();
            prop_assert!(reader.count() < 1000);
        }
    }

    #[test]
    fn a_small_write_is_small() {
        let effect = Effect {
            table: TableId(0),
            slot: Slot(12182),
            name: Bytes::from_static(b"foo"),
            change: Change::Put(Row::string(Bytes::from_static(b"bar"))),
            existed: None,
        };
        let one = encode(&[Operation::Effect(effect.clone())]);
        assert_eq!(one.len(), 2 + 1 + 1 + 2 + 4 + 1 + 4 + 3);
        let two = encode(&[Operation::Effect(effect.clone()), Operation::Effect(effect)]);
        assert_eq!(two.len() - one.len(), 1 + 1 + 4 + 3, "the key is not said twice");
    }

    #[test]
    fn strangers_are_refused() {
        for body in [&[][..], &[1], &[2, 1]] {
            assert!(BodyReader::new(Bytes::copy_from_slice(body)).is_err(), "{body:?}");
        }
        for operation in [
            &[0][..],
            &[9],
            &[OP_SWAP_SLOTS, 0, 1, 0],
            &[OP_FLUSH | SAME_KEY],
            &[OP_DELETE | SAME_KEY],
            &[OP_DELETE | EXISTED],
        ] {
            let body = [&[BODY_FORMAT, 1], operation].concat();
            let read: Vec<_> = BodyReader::new(Bytes::from(body)).unwrap().collect();
            assert!(matches!(read[..], [Err(_)]), "{operation:?}");
        }
    }
}

//! Messages as bytes: frames of `length | checksum | payload`, the payload a piece of a message.
//!
//! Length: u32, its highest bit set if more of the message follows in the next frame. Checksum: crc32 (zlib's)
//! of the length and the payload. A message: kind u8, then its fields; numbers as LEB128, bytes behind their
//! length, unless they end the message. Must not know who says what.

use super::history::History;
use super::keys::Rewind;
use super::wire::{Message, Record, Subscribe};
use crate::binlog::{Lsn, Touch};
use crate::limits::{REPLICA_FRAME_MAX_BYTES, REPLICA_SHARE_MIN_BYTES};
use crate::shard::mesh::SlotPosition;
use crate::slot::set::{self, TableSlots};
use crate::slot::{ShardId, Slot, TableId};
use crate::store::{Entry, varint};
use bytes::{BufMut, Bytes, BytesMut};

pub(super) const FRAME_HEAD_BYTES: usize = 8;
/// Of a frame's length: more of its message follows.
pub(super) const MORE: u32 = 1 << 31;

/// What a message begins with.
pub(super) mod kind {
    pub const SUBSCRIBE: u8 = 1;
    pub const ACK: u8 = 2;
    pub const COPY_ACK: u8 = 3;
    pub const ALIVE: u8 = 4;
    pub const WELCOME: u8 = 5;
    pub const REFUSED: u8 = 6;
    pub const COPY_BEGIN: u8 = 7;
    pub const COPY_ROWS: u8 = 8;
    pub const COPY_MARK: u8 = 9;
    pub const COPY_END: u8 = 10;
    pub const STREAM_FROM: u8 = 11;
    pub const RECORD: u8 = 12;
    pub const UPTO: u8 = 13;
    pub const FORGET: u8 = 14;
    pub const BEAT: u8 = 15;
    pub const COPY_KEYS: u8 = 16;
}

/// Gathers messages until they can be sent.
#[derive(Default)]
pub struct Encoder {
    ready: Vec<Bytes>,
    /// Behind all that is ready.
    small: BytesMut,
    /// The message that is being encoded, without a body that ends it.
    head: Vec<u8>,
    bytes: usize,
}

impl Encoder {
    /// Bytes gathered and not taken.
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Everything gathered, in order.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.seal_small();
        self.bytes = 0;
        std::mem::take(&mut self.ready)
    }

    /// Appends a message. A long body is shared, not copied.
    pub fn push(&mut self, message: &Message) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let body = Fields(&mut head).message(message);
        self.frames(&head, body.unwrap_or_default());
        self.head = head;
    }

    fn frames(&mut self, head: &[u8], body: Bytes) {
        let (mut head, mut body) = (head, body);
        loop {
            let (first, head_rest) = head.split_at(head.len().min(REPLICA_FRAME_MAX_BYTES));
            let room = REPLICA_FRAME_MAX_BYTES - first.len();
            let second = body.split_to(body.len().min(room));
            head = head_rest;
            let more = !head.is_empty() || !body.is_empty();
            self.frame(first, second, more);
            if !more {
                return;
            }
        }
    }

    fn frame(&mut self, first: &[u8], second: Bytes, more: bool) {
        let bytes = (first.len() + second.len()) as u32;
        let length = if more { bytes | MORE } else { bytes };
        self.bytes += FRAME_HEAD_BYTES + bytes as usize;
        self.small.put_u32_le(length);
        self.small.put_u32_le(checksum(length, &[first, &second]));
        self.small.extend_from_slice(first);
        if second.len() < REPLICA_SHARE_MIN_BYTES {
            self.small.extend_from_slice(&second);
        } else {
            self.seal_small();
            self.ready.push(second);
        }
    }

    fn seal_small(&mut self) {
        if !self.small.is_empty() {
            self.ready.push(self.small.split().freeze());
        }
    }
}

pub(super) fn checksum(length: u32, payload: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    payload.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    /// Everything but a body that ends the message.
    fn message(&mut self, message: &Message) -> Option<Bytes> {
        match message {
            Message::Subscribe(subscribe) => self.kind(kind::SUBSCRIBE).subscribe(subscribe),
            Message::Ack { stream, applied, durable } => {
                self.kind(kind::ACK).stream(*stream).lsn(*applied).lsn(*durable);
            }
            Message::CopyAck { stream, chunks } => {
                self.kind(kind::COPY_ACK).stream(*stream).number(*chunks);
            }
            Message::Alive => {
                self.kind(kind::ALIVE);
            }
            Message::Welcome { streams, node, time_ms, missing } => {
                self.kind(kind::WELCOME).number(u64::from(*streams)).number(*time_ms);
                self.0.extend_from_slice(node);
                self.slots(missing);
            }
            Message::Refused { why } => self.kind(kind::REFUSED).0.extend_from_slice(why.as_bytes()),
            Message::CopyBegin { stream, slots } => {
                self.kind(kind::COPY_BEGIN).stream(*stream).positions(slots);
            }
            Message::CopyKeys { stream, table, slot, keys } => {
                self.kind(kind::COPY_KEYS).stream(*stream).slot(*table, *slot).names(keys);
            }
            Message::CopyRows { stream, table, slot, entries } => {
                let mut plain = Vec::new();
                Fields(&mut plain).entries(entries);
                self.kind(kind::COPY_ROWS).stream(*stream).slot(*table, *slot).packed(&plain);
            }
            Message::CopyMark { stream, upto } => {
                self.kind(kind::COPY_MARK).stream(*stream).number(u64::from(*upto));
            }
            Message::CopyEnd { stream } => {
                self.kind(kind::COPY_END).stream(*stream);
            }
            Message::StreamFrom { stream, next } => {
                self.kind(kind::STREAM_FROM).stream(*stream).lsn(*next);
            }
            Message::Record(record) => return Some(self.kind(kind::RECORD).record(record)),
            Message::Upto { stream, lsn } => {
                self.kind(kind::UPTO).stream(*stream).lsn(*lsn);
            }
            Message::Forget { slots } => {
                self.kind(kind::FORGET).number(slots.len() as u64);
                for ((table, slot), history) in slots {
                    self.slot(*table, *slot).history(history);
                }
            }
            Message::Beat { published, time_ms } => {
                self.kind(kind::BEAT).number(*time_ms).number(published.len() as u64);
                published.iter().for_each(|lsn| {
                    self.lsn(*lsn);
                });
            }
        }
        None
    }

    fn subscribe(&mut self, subscribe: &Subscribe) {
        self.number(u64::from(subscribe.tables)).number(u64::from(subscribe.slots_per_table));
        self.0.push(u8::from(subscribe.crc16));
        self.0.extend_from_slice(&subscribe.node);
        self.number(subscribe.slot_counts.len() as u64);
        for (table, slots) in &subscribe.slot_counts {
            self.number(u64::from(table.0)).number(u64::from(*slots));
        }
        self.0.push(u8::from(subscribe.slots.is_some()));
        if let Some(slots) = &subscribe.slots {
            self.slots(slots);
        }
        self.positions(&subscribe.positions);
        self.number(subscribe.rewinds.len() as u64);
        for Rewind { slot: (table, slot), fork, keys } in &subscribe.rewinds {
            self.slot(*table, *slot).number(fork.index).number(fork.term).names(keys);
        }
    }

    fn names(&mut self, names: &[Bytes]) {
        self.number(names.len() as u64);
        names.iter().for_each(|name| {
            self.bytes(name);
        });
    }

    fn entries(&mut self, entries: &[Entry]) {
        self.number(entries.len() as u64);
        for entry in entries {
            self.0.push(u8::from(entry.element));
            self.bytes(&entry.key).bytes(&entry.value);
        }
    }

    /// The length, whether it is compressed (LZ4's block format), and the bytes to the message's end.
    fn packed(&mut self, plain: &[u8]) {
        let packed = lz4_flex::block::compress(plain);
        let is_less = packed.len() < plain.len();
        self.number(plain.len() as u64).0.push(u8::from(is_less));
        self.0.extend_from_slice(if is_less { &packed } else { plain });
    }

    fn record(&mut self, record: &Record) -> Bytes {
        self.stream(record.stream).lsn(record.lsn).number(record.time_ms);
        self.0.push(u8::from(record.exact));
        self.number(record.touches.len() as u64);
        for Touch { table, slot, index, term } in &record.touches {
            self.slot(*table, *slot).number(*index).number(*term);
        }
        record.body.clone()
    }

    /// Runs of neighbours: the first, and how many follow it.
    fn slots(&mut self, tables: &TableSlots) {
        let runs = |(table, slots)| set::ranges(slots).into_iter().map(move |run| (table, run));
        let runs: Vec<_> = tables.iter().flat_map(runs).collect();
        self.number(runs.len() as u64);
        for (table, (first, last)) in runs {
            self.slot(*table, first).number(u64::from(last.0 - first.0));
        }
    }

    fn positions(&mut self, positions: &[SlotPosition]) {
        self.number(positions.len() as u64);
        for SlotPosition { table, slot, index, term } in positions {
            self.slot(*table, *slot).number(*index).number(*term);
        }
    }

    fn history(&mut self, history: &History) {
        self.0.push(u8::from(history.whole));
        self.number(history.ends.len() as u64);
        for end in &history.ends {
            self.number(end.index).number(end.term);
        }
    }

    fn kind(&mut self, kind: u8) -> &mut Self {
        self.0.push(kind);
        self
    }

    fn stream(&mut self, stream: ShardId) -> &mut Self {
        self.number(u64::from(stream.0))
    }

    fn lsn(&mut self, lsn: Lsn) -> &mut Self {
        self.number(lsn.0)
    }

    fn slot(&mut self, table: TableId, slot: Slot) -> &mut Self {
        self.number(u64::from(table.0)).number(u64::from(slot.0))
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.extend_from_slice(bytes);
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        varint::put(self.0, number);
        self
    }
}

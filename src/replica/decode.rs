//! Messages from bytes, however these come in pieces. The layout is in `encode`.
//!
//! Any bytes end in messages or an error. Holds no more than one message and what has come behind it. Must not
//! know who says what.

use super::encode::{FRAME_HEAD_BYTES, MORE, checksum, kind};
use super::history::History;
use super::keys::Rewind;
use super::position::{Position, SlotName};
use super::wire::{Message, NodeId, Record, Subscribe};
use crate::binlog::{Lsn, Touch};
use crate::limits::{REPLICA_CHUNK_MAX_BYTES, REPLICA_FRAME_MAX_BYTES, REPLICA_SHARE_MIN_BYTES};
use crate::shard::mesh::SlotPosition;
use crate::slot::set::TableSlots;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Entry;
use crate::store::varint;
use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

/// The other side does not speak as it should, or bytes were changed on their way: the link must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("from the other node: {0}")]
pub struct WireError(pub &'static str);

/// Bytes as they come, until they are messages.
pub struct Decoder {
    /// Not yet a frame.
    buffer: BytesMut,
    /// Of a message, not yet whole.
    begun: BytesMut,
    message_max_bytes: usize,
}

const SHORT: WireError = WireError("a message is shorter than what it says");

impl Decoder {
    pub fn new(message_max_bytes: usize) -> Decoder {
        Decoder { buffer: BytesMut::new(), begun: BytesMut::new(), message_max_bytes }
    }

    /// Takes what has come. To be followed by `next_message` until that has nothing more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Everything that has come has become messages.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.begun.is_empty()
    }

    /// The next whole message. After an error the bytes mean nothing any more.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        while let Some((payload, more)) = self.frame()? {
            if self.begun.len() + payload.len() > self.message_max_bytes {
                return Err(WireError("a message is too long"));
            }
            if !more && self.begun.is_empty() {
                return message(payload).map(Some);
            }
            self.begun.extend_from_slice(&payload);
            if !more {
                return message(std::mem::take(&mut self.begun).freeze()).map(Some);
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<(Bytes, bool)>, WireError> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(None) };
        let [a, b, c, d, sum @ ..] = *head;
        let (length, sum) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(sum));
        let bytes = (length & !MORE) as usize;
        if bytes > REPLICA_FRAME_MAX_BYTES {
            return Err(WireError("a frame is too long"));
        }
        if bytes == 0 {
            return Err(WireError("a frame is empty"));
        }
        if self.buffer.len() < FRAME_HEAD_BYTES + bytes {
            self.buffer.reserve(FRAME_HEAD_BYTES + bytes - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEAD_BYTES);
        let payload = self.buffer.split_to(bytes).freeze();
        if checksum(length, &[&payload]) != sum {
            return Err(WireError("a frame's checksum is wrong"));
        }
        Ok(Some((payload, length & MORE != 0)))
    }
}

fn message(payload: Bytes) -> Result<Message, WireError> {
    let mut fields = Fields(payload);
    let message = match fields.byte()? {
        kind::SUBSCRIBE => Message::Subscribe(fields.subscribe()?),
        kind::ACK => {
            Message::Ack { stream: fields.stream()?, applied: fields.lsn()?, durable: fields.lsn()? }
        }
        kind::COPY_ACK => Message::CopyAck { stream: fields.stream()?, chunks: fields.number()? },
        kind::ALIVE => Message::Alive,
        kind::WELCOME => {
            let (streams, time_ms) = (fields.stream()?.0, fields.number()?);
            Message::Welcome { streams, time_ms, node: fields.node()?, missing: fields.slots()? }
        }
        kind::REFUSED => {
            let why = String::from_utf8_lossy(&fields.rest()).into_owned();
            Message::Refused { why }
        }
        kind::COPY_BEGIN => Message::CopyBegin { stream: fields.stream()?, slots: fields.positions()? },
        kind::COPY_KEYS => {
            let (stream, (table, slot)) = (fields.stream()?, fields.slot()?);
            Message::CopyKeys { stream, table, slot, keys: fields.list(Fields::bytes)? }
        }
        kind::COPY_ROWS => {
            let (stream, (table, slot)) = (fields.stream()?, fields.slot()?);
            Message::CopyRows { stream, table, slot, entries: fields.packed()?.list(Fields::entry)? }
        }
        kind::COPY_MARK => {
            let stream = fields.stream()?;
            let upto = u32::try_from(fields.number()?).map_err(|_| WireError("a count is too large"))?;
            Message::CopyMark { stream, upto }
        }
        kind::COPY_END => Message::CopyEnd { stream: fields.stream()? },
        kind::STREAM_FROM => Message::StreamFrom { stream: fields.stream()?, next: fields.lsn()? },
        kind::RECORD => Message::Record(fields.record()?),
        kind::UPTO => Message::Upto { stream: fields.stream()?, lsn: fields.lsn()? },
        kind::FORGET => {
            Message::Forget { slots: fields.list(|fields| Ok((fields.slot()?, fields.history()?)))? }
        }
        kind::BEAT => {
            let time_ms = fields.number()?;
            Message::Beat { time_ms, published: fields.list(Fields::lsn)? }
        }
        _ => return Err(WireError("an unknown message")),
    };
    if fields.0.is_empty() { Ok(message) } else { Err(WireError("a message is longer than what it says")) }
}

struct Fields(Bytes);

impl Fields {
    fn subscribe(&mut self) -> Result<Subscribe, WireError> {
        Ok(Subscribe {
            tables: self.table()?.0,
            slots_per_table: self.stream()?.0,
            crc16: self.flag()?,
            node: self.node()?,
            slot_counts: self.list(|fields| Ok((fields.table()?, fields.stream()?.0)))?.into_iter().collect(),
            slots: if self.flag()? { Some(self.slots()?) } else { None },
            positions: self.positions()?,
            rewinds: self.list(|fields| {
                let slot = fields.slot()?;
                let fork = Position { index: fields.number()?, term: fields.number()? };
                Ok(Rewind { slot, fork, keys: fields.list(Fields::bytes)? })
            })?,
        })
    }

    fn record(&mut self) -> Result<Record, WireError> {
        let (stream, lsn, time_ms, exact) = (self.stream()?, self.lsn()?, self.number()?, self.flag()?);
        let mut touches = SmallVec::new();
        for _ in 0..self.number()? {
            let ((table, slot), index, term) = (self.slot()?, self.number()?, self.number()?);
            touches.push(Touch { table, slot, index, term });
        }
        let body = self.rest();
        let body = if body.len() < REPLICA_SHARE_MIN_BYTES { Bytes::copy_from_slice(&body) } else { body };
        Ok(Record { stream, lsn, time_ms, touches, exact, body })
    }

    /// What `encode` has packed, to the message's end.
    fn packed(&mut self) -> Result<Fields, WireError> {
        let (length, is_packed, bytes) = (self.number()?, self.flag()?, self.rest());
        let length = usize::try_from(length).ok().filter(|length| *length <= REPLICA_CHUNK_MAX_BYTES);
        let length = length.ok_or(WireError("a copy's piece is too long"))?;
        if !is_packed {
            return Ok(Fields(bytes));
        }
        let plain = lz4_flex::block::decompress(&bytes, length);
        let plain = plain.ok().filter(|plain| plain.len() == length);
        Ok(Fields(plain.ok_or(WireError("a copy's piece cannot be unpacked"))?.into()))
    }

    fn slots(&mut self) -> Result<TableSlots, WireError> {
        let mut tables = TableSlots::new();
        for _ in 0..self.number()? {
            let ((table, first), more) = (self.slot()?, self.number()?);
            let last = u16::try_from(more).ok().and_then(|more| first.0.checked_add(more));
            let last = last.ok_or(WireError("a run of slots is too long"))?;
            tables.entry(table).or_default().extend((first.0..=last).map(Slot));
        }
        Ok(tables)
    }

    fn positions(&mut self) -> Result<Vec<SlotPosition>, WireError> {
        self.list(|fields| {
            let ((table, slot), index, term) = (fields.slot()?, fields.number()?, fields.number()?);
            Ok(SlotPosition { table, slot, index, term })
        })
    }

    fn history(&mut self) -> Result<History, WireError> {
        let whole = self.flag()?;
        let end = |fields: &mut Self| Ok(Position { index: fields.number()?, term: fields.number()? });
        Ok(History { whole, ends: self.list(end)? })
    }

    fn entry(&mut self) -> Result<Entry, WireError> {
        Ok(Entry { element: self.flag()?, key: self.bytes()?, value: self.bytes()? })
    }

    /// Grows with what is there, not with what is claimed.
    fn list<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.number()?;
        let mut list = Vec::with_capacity(count.min(self.0.len() as u64 / 16) as usize);
        for _ in 0..count {
            list.push(one(self)?);
        }
        Ok(list)
    }

    fn stream(&mut self) -> Result<ShardId, WireError> {
        u16::try_from(self.number()?).map(ShardId).map_err(|_| WireError("a stream's number is too large"))
    }

    fn table(&mut self) -> Result<TableId, WireError> {
        u32::try_from(self.number()?).map(TableId).map_err(|_| WireError("a table's number is too large"))
    }

    fn slot(&mut self) -> Result<SlotName, WireError> {
        let table = self.table()?;
        let slot = u16::try_from(self.number()?).map_err(|_| WireError("a slot's number is too large"))?;
        Ok((table, Slot(slot)))
    }

    fn lsn(&mut self) -> Result<Lsn, WireError> {
        self.number().map(Lsn)
    }

    fn node(&mut self) -> Result<NodeId, WireError> {
        let node = *self.0.first_chunk().ok_or(SHORT)?;
        self.0.advance(std::mem::size_of::<NodeId>());
        Ok(node)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError("a flag is neither")),
        }
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    fn bytes(&mut self) -> Result<Bytes, WireError> {
        match usize::try_from(self.number()?) {
            Ok(len) if len <= self.0.len() => Ok(self.0.split_to(len)),
            _ => Err(SHORT),
        }
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        if self.0.is_empty() { Err(SHORT) } else { Ok(self.0.get_u8()) }
    }

    fn number(&mut self) -> Result<u64, WireError> {
        let rest = &mut self.0;
        varint::read(|| (!rest.is_empty()).then(|| rest.get_u8())).map_err(|bad| match bad {
            varint::Bad::Short => SHORT,
            varint::Bad::TooLarge => WireError("a number is too large"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode::Encoder;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn slot() -> impl Strategy<Value = SlotName> {
        (any::<u32>(), any::<u16>()).prop_map(|(table, slot)| (TableId(table), Slot(slot)))
    }

    fn positions() -> impl Strategy<Value = Vec<SlotPosition>> {
        let one = (slot(), any::<u64>(), any::<u64>());
        vec(one.prop_map(|((table, slot), index, term)| SlotPosition { table, slot, index, term }), 0..9)
    }

    fn node() -> impl Strategy<Value = NodeId> {
        any::<u8>().prop_map(|byte| [byte; 40])
    }

    fn record() -> impl Strategy<Value = Message> {
        let touch = (slot(), any::<u64>(), any::<u64>());
        let touch = touch.prop_map(|((table, slot), index, term)| Touch { table, slot, index, term });
        let body =
            prop_oneof![4 => bytes(300), 1 => (0..3usize << 20).prop_map(|len| Bytes::from(vec![7; len]))];
        (any::<u16>(), any::<u64>(), any::<u64>(), vec(touch, 0..5), any::<bool>(), body).prop_map(
            |(stream, lsn, time_ms, touches, exact, body)| {
                let (stream, lsn, touches) = (ShardId(stream), Lsn(lsn), touches.into());
                Message::Record(Record { stream, lsn, time_ms, touches, exact, body })
            },
        )
    }

    fn rows() -> impl Strategy<Value = Message> {
        let entry = (any::<bool>(), bytes(40), bytes(400));
        let entry = entry.prop_map(|(element, key, value)| Entry { element, key, value });
        (any::<u16>(), slot(), vec(entry, 0..9)).prop_map(|(stream, (table, slot), entries)| {
            Message::CopyRows { stream: ShardId(stream), table, slot, entries }
        })
    }

    fn small() -> impl Strategy<Value = Message> {
        let end = (any::<u64>(), any::<u64>()).prop_map(|(index, term)| Position { index, term });
        let history = (any::<bool>(), vec(end, 0..4)).prop_map(|(whole, ends)| History { whole, ends });
        let slots = vec((slot(), history), 0..9);
        (0..10u8, any::<u16>(), any::<u64>(), any::<u64>(), any::<u32>(), slots).prop_map(
            |(kind, stream, a, b, upto, slots)| {
                let stream = ShardId(stream);
                match kind {
                    0 => Message::Ack { stream, applied: Lsn(a), durable: Lsn(b) },
                    1 => Message::CopyAck { stream, chunks: a },
                    2 => Message::Alive,
                    3 => Message::Refused { why: format!("because {a}") },
                    4 => Message::CopyMark { stream, upto },
                    5 => Message::CopyEnd { stream },
                    6 => Message::StreamFrom { stream, next: Lsn(a) },
                    7 => Message::Upto { stream, lsn: Lsn(a) },
                    8 => Message::Forget { slots },
                    _ => Message::Beat { published: vec![Lsn(a), Lsn(b)], time_ms: a },
                }
            },
        )
    }

    fn slots() -> impl Strategy<Value = TableSlots> {
        let set = proptest::collection::btree_set(any::<u16>().prop_map(Slot), 1..20);
        proptest::collection::btree_map(any::<u32>().prop_map(TableId), set, 0..4)
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let welcome =
            (any::<u16>(), node(), any::<u64>(), slots()).prop_map(|(streams, node, time_ms, missing)| {
                Message::Welcome { streams, node, time_ms, missing }
            });
        let wanted = proptest::option::of(slots());
        let rewind = (slot(), any::<u64>(), any::<u64>(), vec(bytes(20), 0..4));
        let rewind = rewind.prop_map(|(slot, index, term, keys)| Rewind {
            slot,
            fork: Position { index, term },
            keys,
        });
        let counts = proptest::collection::btree_map(any::<u32>().prop_map(TableId), any::<u16>(), 0..4);
        let has = (positions(), vec(rewind, 0..4), counts);
        let subscribe = (any::<u32>(), any::<u16>(), any::<bool>(), node(), wanted, has).prop_map(
            |(tables, slots_per_table, crc16, node, slots, (positions, rewinds, slot_counts))| {
                Message::Subscribe(Subscribe {
                    tables,
                    slots_per_table,
                    crc16,
                    node,
                    slot_counts,
                    slots,
                    positions,
                    rewinds,
                })
            },
        );
        let keys = (any::<u16>(), slot(), vec(bytes(20), 0..5)).prop_map(|(stream, (table, slot), keys)| {
            Message::CopyKeys { stream: ShardId(stream), table, slot, keys }
        });
        let begin = (any::<u16>(), positions())
            .prop_map(|(stream, slots)| Message::CopyBegin { stream: ShardId(stream), slots });
        prop_oneof![4 => small(), 1 => welcome, 1 => subscribe, 1 => begin, 1 => keys, 2 => rows(), 2 => record()]
    }

    fn encoded(messages: &[Message]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        messages.iter().for_each(|message| encoder.push(message));
        let len = encoder.len();
        let bytes = encoder.take().concat();
        assert_eq!(bytes.len(), len);
        bytes
    }

    /// Feeds bytes in pieces; the messages, and what ended them.
    fn decoded(bytes: &[u8], piece: usize) -> (Vec<Message>, Option<WireError>) {
        let mut decoder = Decoder::new(16 << 20);
        let mut messages = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.feed(piece);
            loop {
                match decoder.next_message() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
            }
        }
        (messages, None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_come_back_as_they_were_however_they_are_cut(
            messages in vec(any_message(), 1..6),
            piece in prop_oneof![1..40usize, 1000..3_000_000usize],
        ) {
            let bytes = encoded(&messages);
            prop_assume!(piece > 100 || bytes.len() < 100_000);
            prop_assert_eq!(decoded(&bytes, piece), (messages, None));
        }

        #[test]
        fn one_changed_byte_is_noticed(message in small(), at: usize, by in 1..=255u8) {
            let mut bytes = encoded(&[message, Message::Alive]);
            let first = bytes.len() - encoded(&[Message::Alive]).len();
            let at = at % first;
            bytes[at] ^= by;
            // A length that grows makes what follows a part of the frame: nothing comes, or an error.
            prop_assert_eq!(decoded(&bytes, 1000).0, vec![]);
        }

        #[test]
        fn any_bytes_end_in_messages_or_an_error(bytes in vec(any::<u8>(), 0..300), kind in 0..18u8) {
            decoded(&bytes, 7);
            // Text that is none is replaced, which may be longer.
            prop_assume!(kind != kind::REFUSED);
            let payload = [&[kind], &bytes[..]].concat();
            if let Ok(understood) = message(Bytes::from(payload.clone())) {
                prop_assert!(encoded(&[understood]).len() <= payload.len() + FRAME_HEAD_BYTES);
            }
        }

        #[test]
        fn a_claimed_length_takes_no_memory(kind in prop::sample::select(vec![kind::COPY_BEGIN, kind::FORGET, kind::BEAT])) {
            let payload = [&[kind, 1][..], &[0xff; 9], &[1, 1, 1]].concat();
            prop_assert!(message(Bytes::from(payload)).is_err());
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_held() {
        let body = Bytes::from(vec![1; 3 << 20]);
        let (stream, lsn) = (ShardId(0), Lsn(1));
        let record = Record { stream, lsn, time_ms: 0, touches: SmallVec::new(), exact: true, body };
        let bytes = encoded(&[Message::Record(record)]);
        let mut decoder = Decoder::new(2 << 20);
        decoder.feed(&bytes);
        assert_eq!(decoder.next_message(), Err(WireError("a message is too long")));
        assert!(decoder.begun.capacity() <= 4 << 20);
        let mut decoder = Decoder::new(2 << 20);
        decoder.feed(&[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
        assert_eq!(decoder.next_message(), Err(WireError("a frame is too long")));
    }

    #[test]
    fn a_large_body_is_not_copied_on_its_way_out_and_a_small_one_keeps_no_buffer() {
        let record = |body: Bytes| {
            let (stream, lsn) = (ShardId(0), Lsn(1));
            Message::Record(Record { stream, lsn, time_ms: 0, touches: SmallVec::new(), exact: true, body })
        };
        let large = Bytes::from(vec![1; 100_000]);
        let mut encoder = Encoder::default();
        encoder.push(&record(large.clone()));
        assert!(encoder.take().iter().any(|piece| piece.as_ptr() == large.as_ptr()));
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(&encoded(&[record(Bytes::from_static(b"small"))]));
        let Ok(Some(Message::Record(Record { body, .. }))) = decoder.next_message() else {
            panic!("a record")
        };
        assert!(body.is_unique(), "it has memory of its own");
    }
}

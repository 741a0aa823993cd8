//! A frame: header, touches, transaction block, group, body, chained checksum. Layout: FORMAT.md.
//!
//! Bytes in, bytes out. Must not know files.

use super::Lsn;
use crate::slot::{ShardId, Slot, TableId};
use crc32fast::Hasher;

pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"hpF1");
/// Up to the header's own check, included.
pub(crate) const HEADER_BYTES: usize = 40;
const CHECKED_BYTES: usize = HEADER_BYTES - 4;
pub(crate) const CHECKSUM_BYTES: usize = 4;
const TOUCH_BYTES: usize = 22;
const PARTICIPANT_BYTES: usize = 18;
const PART_BYTES: usize = 18;
const GROUP_BYTES: usize = 8;
/// Shards that may take part in one transaction beside its home.
pub(crate) const PARTICIPANTS_MAX: usize = 1024;

/// Bits of a frame's flags; any other bit refuses the start.
pub(crate) mod flag {
    pub const WHOLE: u16 = 1;
    pub const PART: u16 = 2;
    pub const CONT: u16 = 4;
    pub const END: u16 = 8;
    pub const KNOWN: u16 = WHOLE | PART | CONT | END;
}

/// A slot that a frame changed, and the place of the frame in that slot's own history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    pub table: TableId,
    pub slot: Slot,
    pub index: u64,
    pub term: u64,
}

/// A shard that must also log its share of a transaction, and the number that share has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participant {
    pub shard: ShardId,
    pub number: u64,
    /// Where that shard's log stood while the transaction held its latches there. What the transaction did
    /// may depend on all that: when a power cut has taken some of it, the whole must go too.
    pub after: Lsn,
}

/// A frame's place in a transaction over several shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Txn {
    /// The commit point: the body holds the effects of all parts.
    Whole { participants: Vec<Participant> },
    /// One participant's share of the whole at `home_lsn` of shard `home`.
    Part { home: ShardId, home_lsn: u64, number: u64 },
}

/// What a frame says beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameMeta<'a> {
    pub touches: &'a [Touch],
    pub txn: Option<&'a Txn>,
}

/// Where a frame stands in a group: the number of the group's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Alone,
    Cont(Lsn),
    End(Lsn),
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Of the whole frame, header and checksum included.
    pub bytes: usize,
    pub lsn: Lsn,
    /// What was known to be durable when the frame was encoded.
    pub durable: Lsn,
    pub time_ms: u64,
    pub flags: u16,
    pub touches: u16,
}

/// A frame taken apart.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub header: Header,
    pub touches: Vec<Touch>,
    pub txn: Option<Txn>,
    pub place: Place,
    pub body: &'a [u8],
}

/// What the chain of a segment begins with.
pub(crate) fn chain_seed(segment_id: u64) -> u32 {
    crc32fast::hash(&segment_id.to_le_bytes())
}

pub(crate) fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// Size of a frame with such contents.
pub(crate) fn frame_bytes(meta: &FrameMeta<'_>, place: Place, body_bytes: usize) -> usize {
    let txn = match meta.txn {
        None => 0,
        Some(Txn::Whole { participants }) => 2 + participants.len() * PARTICIPANT_BYTES,
        Some(Txn::Part { .. }) => PART_BYTES,
    };
    let group = if place == Place::Alone { 0 } else { GROUP_BYTES };
    HEADER_BYTES + meta.touches.len() * TOUCH_BYTES + txn + group + body_bytes + CHECKSUM_BYTES
}

/// The two numbers that make a frame belong to its segment and to its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub seed: u32,
    /// Checksum of the frame before; the seed in front of the first.
    pub last: u32,
}

impl Chain {
    pub fn new(segment_id: u64) -> Chain {
        let seed = chain_seed(segment_id);
        Chain { seed, last: seed }
    }
}

/// What `encode` needs beside contents.
pub(crate) struct Stamp {
    pub lsn: Lsn,
    pub durable: Lsn,
    pub time_ms: u64,
}

/// Appends a frame of `frame_bytes` bytes to the buffer and moves the chain on.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    chain: &mut Chain,
    stamp: &Stamp,
    meta: &FrameMeta<'_>,
    place: Place,
    body: &[&[u8]],
    bytes: usize,
) {
    let at = out.len();
    out.reserve(bytes);
    let mut flags = match place {
        Place::Alone => 0,
        Place::Cont(_) => flag::CONT,
        Place::End(_) => flag::END,
    };
    flags |= match meta.txn {
        None => 0,
        Some(Txn::Whole { .. }) => flag::WHOLE,
        Some(Txn::Part { .. }) => flag::PART,
    };
    let counts = u32::from(flags) | (meta.touches.len() as u32) << 16;
    out.extend_from_slice(&header_bytes(MAGIC, chain.seed, stamp, counts, bytes));
    for touch in meta.touches {
        let mut line = [0u8; TOUCH_BYTES];
        line[0..4].copy_from_slice(&touch.table.0.to_le_bytes());
        line[4..6].copy_from_slice(&touch.slot.0.to_le_bytes());
        line[6..14].copy_from_slice(&touch.index.to_le_bytes());
        line[14..22].copy_from_slice(&touch.term.to_le_bytes());
        out.extend_from_slice(&line);
    }
    if let Some(txn) = meta.txn {
        encode_txn(out, txn);
    }
    if let Place::Cont(group) | Place::End(group) = place {
        out.extend_from_slice(&group.0.to_le_bytes());
    }
    for piece in body {
        out.extend_from_slice(piece);
    }
    chain.last = checksum(chain.last, &out[at..]);
    out.extend_from_slice(&chain.last.to_le_bytes());
    assert_eq!(out.len() - at, bytes, "a frame has the size that room was made for");
}

/// The header of a frame or a footer; `counts` are its last four bytes before the check.
pub(crate) fn header_bytes(
    kind: u32,
    seed: u32,
    stamp: &Stamp,
    counts: u32,
    bytes: usize,
) -> [u8; HEADER_BYTES] {
    let mut header = [0u8; HEADER_BYTES];
    header[0..4].copy_from_slice(&kind.to_le_bytes());
    header[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
    header[8..16].copy_from_slice(&stamp.lsn.0.to_le_bytes());
    header[16..24].copy_from_slice(&stamp.durable.0.to_le_bytes());
    header[24..32].copy_from_slice(&stamp.time_ms.to_le_bytes());
    header[32..36].copy_from_slice(&counts.to_le_bytes());
    let check = checksum(seed, &header[..CHECKED_BYTES]);
    header[36..40].copy_from_slice(&check.to_le_bytes());
    header
}

fn encode_txn(out: &mut Vec<u8>, txn: &Txn) {
    match txn {
        Txn::Whole { participants } => {
            assert!(participants.len() <= PARTICIPANTS_MAX, "a transaction has at most one part per shard");
            out.extend_from_slice(&(participants.len() as u16).to_le_bytes());
            for part in participants {
                out.extend_from_slice(&part.shard.0.to_le_bytes());
                out.extend_from_slice(&part.number.to_le_bytes());
                out.extend_from_slice(&part.after.0.to_le_bytes());
            }
        }
        Txn::Part { home, home_lsn, number } => {
            out.extend_from_slice(&home.0.to_le_bytes());
            out.extend_from_slice(&home_lsn.to_le_bytes());
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// The header at the start of these bytes, if it is one of the segment with this seed: its own check is
/// right, whatever became of the rest of the frame.
pub(crate) fn header(bytes: &[u8], seed: u32) -> Option<Header> {
    header_of(MAGIC, bytes, seed)
}

/// As `header`, for whatever shares a frame's header: the footer.
pub(crate) fn header_of(kind: u32, bytes: &[u8], seed: u32) -> Option<Header> {
    let bytes = bytes.get(..HEADER_BYTES)?;
    let mut fields = Fields(bytes);
    let magic = fields.u32()?;
    let header = Header {
        bytes: fields.u32()? as usize,
        lsn: Lsn(fields.u64()?),
        durable: Lsn(fields.u64()?),
        time_ms: fields.u64()?,
        flags: fields.u16()?,
        touches: fields.u16()?,
    };
    let right = magic == kind
        && fields.u32()? == checksum(seed, &bytes[..CHECKED_BYTES])
        && header.bytes >= HEADER_BYTES + CHECKSUM_BYTES;
    right.then_some(header)
}

/// The checksum a whole frame ends with, if it continues the chain.
pub(crate) fn verify(frame: &[u8], last: u32) -> Option<u32> {
    let (checked, stored) = frame.split_at_checked(frame.len().checked_sub(CHECKSUM_BYTES)?)?;
    let sum = checksum(last, checked);
    (stored == sum.to_le_bytes()).then_some(sum)
}

/// Takes a verified frame apart; the text says what does not fit.
pub(crate) fn decode<'a>(header: Header, frame: &'a [u8]) -> Result<Frame<'a>, String> {
    let flags = header.flags;
    if flags & !flag::KNOWN != 0 {
        return Err(format!("frame flags {flags:#06x}"));
    }
    let inner = &frame[HEADER_BYTES..frame.len() - CHECKSUM_BYTES];
    parts(header, inner)
        .ok_or_else(|| format!("a frame with flags {flags:#06x} whose parts do not fit its length"))
}

fn parts(header: Header, inner: &[u8]) -> Option<Frame<'_>> {
    let mut fields = Fields(inner);
    let touches = (0..header.touches)
        .map(|_| {
            Some(Touch {
                table: TableId(fields.u32()?),
                slot: Slot(fields.u16()?),
                index: fields.u64()?,
                term: fields.u64()?,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    let txn = match header.flags & (flag::WHOLE | flag::PART) {
        0 => None,
        flag::WHOLE => {
            let count = fields.u16()?;
            let part = |_| {
                let (shard, number) = (ShardId(fields.u16()?), fields.u64()?);
                Some(Participant { shard, number, after: Lsn(fields.u64()?) })
            };
            Some(Txn::Whole { participants: (0..count).map(part).collect::<Option<Vec<_>>>()? })
        }
        flag::PART => {
            Some(Txn::Part { home: ShardId(fields.u16()?), home_lsn: fields.u64()?, number: fields.u64()? })
        }
        _ => return None,
    };
    let place = match header.flags & (flag::CONT | flag::END) {
        0 => Place::Alone,
        flag::CONT => Place::Cont(Lsn(fields.u64()?)),
        flag::END => Place::End(Lsn(fields.u64()?)),
        _ => return None,
    };
    Some(Frame { header, touches, txn, place, body: fields.0 })
}

/// Little-endian numbers, front to back.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn touch() -> impl Strategy<Value = Touch> {
        (any::<u32>(), any::<u16>(), any::<u64>(), any::<u64>()).prop_map(|(table, slot, index, term)| {
            Touch { table: TableId(table), slot: Slot(slot), index, term }
        })
    }

    fn txn() -> impl Strategy<Value = Option<Txn>> {
        let participant = (any::<u16>(), any::<u64>(), any::<u64>()).prop_map(|(shard, number, after)| {
            Participant { shard: ShardId(shard), number, after: Lsn(after) }
        });
        prop_oneof![
            Just(None),
            prop::collection::vec(participant, 0..5)
                .prop_map(|participants| Some(Txn::Whole { participants })),
            (any::<u16>(), any::<u64>(), any::<u64>()).prop_map(|(home, home_lsn, number)| Some(Txn::Part {
                home: ShardId(home),
                home_lsn,
                number
            })),
        ]
    }

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            Just(Place::Alone),
            any::<u64>().prop_map(|lsn| Place::Cont(Lsn(lsn))),
            any::<u64>().prop_map(|lsn| Place::End(Lsn(lsn)))
        ]
    }

    fn encoded(lsn: u64, meta: &FrameMeta<'_>, place: Place, body: &[u8], chain: &mut Chain) -> Vec<u8> {
        let mut out = Vec::new();
        let stamp = Stamp { lsn: Lsn(lsn), durable: Lsn(lsn / 2), time_ms: 77 };
        encode(&mut out, chain, &stamp, meta, place, &[body], frame_bytes(meta, place, body.len()));
        out
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_as_it_was(
            lsn: u64,
            touches in prop::collection::vec(touch(), 0..5),
            txn in txn(),
            place in place(),
            body: Vec<u8>,
        ) {
            let mut chain = Chain::new(lsn ^ 5);
            let before = chain;
            let meta = FrameMeta { touches: &touches, txn: txn.as_ref() };
            let bytes = encoded(lsn, &meta, place, &body, &mut chain);
            let header = header(&bytes, before.seed).expect("its own header");
            prop_assert_eq!(header.bytes, bytes.len());
            prop_assert_eq!(verify(&bytes, before.last), Some(chain.last));
            let frame = decode(header, &bytes).expect("its own parts");
            prop_assert_eq!(frame.header.lsn, Lsn(lsn));
            prop_assert_eq!(frame.touches, touches);
            prop_assert_eq!(frame.txn, txn);
            prop_assert_eq!(frame.place, place);
            prop_assert_eq!(frame.body, &body[..]);
        }

        #[test]
        fn one_flipped_bit_is_seen(body in prop::collection::vec(any::<u8>(), 0..300), at: usize, bit in 0..8u8) {
            let mut chain = Chain::new(9);
            let before = chain;
            let mut bytes = encoded(3, &FrameMeta::default(), Place::Alone, &body, &mut chain);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(header(&bytes, before.seed).is_none() || verify(&bytes, before.last).is_none());
        }

        #[test]
        fn any_bytes_are_taken_apart_without_panic(bytes in prop::collection::vec(any::<u8>(), 44..200), flags in 0..16u16, touches in 0..4u16) {
            let header = Header { bytes: bytes.len(), lsn: Lsn(1), durable: Lsn(0), time_ms: 0, flags, touches };
            if let Ok(frame) = decode(header, &bytes) {
                prop_assert!(frame.body.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_frame_passes_only_in_its_segment_and_behind_its_predecessor() {
        let mut chain = Chain::new(1);
        let first = encoded(1, &FrameMeta::default(), Place::Alone, b"one", &mut chain);
        let after_first = chain.last;
        let second = encoded(2, &FrameMeta::default(), Place::Alone, b"two", &mut chain);
        assert!(header(&first, chain_seed(2)).is_none(), "another segment's frame");
        assert!(verify(&second, after_first).is_some());
        assert!(verify(&second, chain_seed(1)).is_none(), "its predecessor is missing");
        let mut other = Chain::new(1);
        encoded(1, &FrameMeta::default(), Place::Alone, b"ONE", &mut other);
        assert!(verify(&second, other.last).is_none(), "its predecessor was another frame of equal length");
    }

    #[test]
    fn unknown_flags_are_refused() {
        let header = Header { bytes: 44, lsn: Lsn(1), durable: Lsn(0), time_ms: 0, flags: 16, touches: 0 };
        assert!(decode(header, &[0; 44]).expect_err("an unknown bit").contains("flags"));
        let both = Header { flags: flag::WHOLE | flag::PART, ..header };
        assert!(decode(both, &[0; 44]).is_err());
    }
}

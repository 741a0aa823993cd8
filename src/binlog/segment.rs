//! A segment file: its name, header and footer, and walking its frames. Layout: FORMAT.md.
//!
//! Must not know which segments there are, nor what recovery or a reader wants of them.

use super::disk::{Disk, DiskFile};
use super::frame::{self, CHECKSUM_BYTES, Chain, Fields, Frame, HEADER_BYTES as FRAME_HEADER_BYTES, Stamp};
use super::{LogError, Lsn, io_error};
use crate::slot::{ShardId, Slot, TableId};
use rustc_hash::FxHashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In front of a segment's frames.
pub const HEADER_BYTES: usize = 4096;
/// The header stands there twice, so that a damaged one still tells which frames are its own.
const COPY_BYTES: usize = HEADER_BYTES / 2;
const HEADER_MAGIC: [u8; 8] = *b"HAYPILOG";
const FORMAT_VERSION: u32 = 1;
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"hpT1");
/// In a footer's count of lines: the log was closed here in order, and nothing was appended behind.
const CLOSED: u32 = 1 << 31;
const LINE_BYTES: usize = 34;
/// How much is read at once while walking a segment: little at first and where its end is followed, for a file
/// reaches far beyond what has been written to it.
const READ_BYTES: usize = 1 << 20;
const READ_BYTES_FIRST: usize = 16 << 10;

/// Why a segment was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The log had nothing before.
    Fresh,
    /// The segment before was full, or a new term began.
    Rolled,
    /// After a start that lost nothing it can know of.
    Restarted,
    /// After a cut: whatever stood from this segment's first LSN on is not part of the log.
    Cut,
    /// RocksDB was ahead of the log: the LSNs between are missing.
    Ahead,
}

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub shard: ShardId,
    pub begun: Begun,
    /// Random: the seed of everything in this segment.
    pub id: u64,
    pub first: Lsn,
    pub term: u64,
    /// Id of the segment whose content this one continues; 0 if there is none.
    pub previous: u64,
    /// Where that content ends, in its file: there stands the footer, if it was sealed.
    pub previous_end: u64,
    /// What was known to be durable when this was written.
    pub durable: Lsn,
    /// The first frame of the oldest group that was open then; else `first`.
    pub open_from: Lsn,
    pub time_ms: u64,
}

/// What was found where a segment's header should stand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderRead {
    Whole(SegmentHeader),
    /// One copy is right, the other is not.
    Half(SegmentHeader),
    Nothing,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut copy = Vec::with_capacity(COPY_BYTES);
        copy.extend_from_slice(&HEADER_MAGIC);
        copy.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy.extend_from_slice(&self.shard.0.to_le_bytes());
        copy.extend_from_slice(&begun_number(self.begun).to_le_bytes());
        let numbers = [
            self.id,
            self.first.0,
            self.term,
            self.previous,
            self.previous_end,
            self.durable.0,
            self.open_from.0,
            self.time_ms,
        ];
        for number in numbers {
            copy.extend_from_slice(&number.to_le_bytes());
        }
        copy.resize(COPY_BYTES - CHECKSUM_BYTES, 0);
        let sum = crc32fast::hash(&copy);
        copy.extend_from_slice(&sum.to_le_bytes());
        let mut block = [0; HEADER_BYTES];
        block[..COPY_BYTES].copy_from_slice(&copy);
        block[COPY_BYTES..].copy_from_slice(&copy);
        block
    }

    pub(crate) fn read(file: &dyn DiskFile, path: &Path) -> Result<HeaderRead, LogError> {
        let mut block = [0; HEADER_BYTES];
        let filled = file.read_at(0, &mut block).map_err(io_error("reading", path))?;
        if filled < HEADER_BYTES {
            return Ok(HeaderRead::Nothing);
        }
        let (one, two) = block.split_at(COPY_BYTES);
        let (one, two) = (decode_copy(one, path)?, decode_copy(two, path)?);
        Ok(match (one, two) {
            (Some(one), Some(two)) if one == two => HeaderRead::Whole(one),
            (Some(one), None) | (None, Some(one)) => HeaderRead::Half(one),
            _ => HeaderRead::Nothing,
        })
    }
}

fn decode_copy(copy: &[u8], path: &Path) -> Result<Option<SegmentHeader>, LogError> {
    let (checked, sum) = copy.split_at(COPY_BYTES - CHECKSUM_BYTES);
    if checked[..8] != HEADER_MAGIC || sum != crc32fast::hash(checked).to_le_bytes() {
        return Ok(None);
    }
    let unknown = |what: String| LogError::Unknown { path: path.to_path_buf(), offset: 0, what };
    let mut fields = Fields(&checked[8..]);
    let mut parse = || {
        let version = fields.u32()?;
        let (shard, begun) = (ShardId(fields.u16()?), fields.u16()?);
        let header = SegmentHeader {
            shard,
            begun: Begun::Fresh,
            id: fields.u64()?,
            first: Lsn(fields.u64()?),
            term: fields.u64()?,
            previous: fields.u64()?,
            previous_end: fields.u64()?,
            durable: Lsn(fields.u64()?),
            open_from: Lsn(fields.u64()?),
            time_ms: fields.u64()?,
        };
        Some((version, begun, header))
    };
    let (version, begun, header) = parse().expect("a copy is longer than its fields");
    if version != FORMAT_VERSION {
        return Err(unknown(format!("segment format {version}")));
    }
    let begun = begun_of(begun).ok_or_else(|| unknown(format!("reason {begun} of a segment")))?;
    Ok(Some(SegmentHeader { begun, ..header }))
}

fn begun_number(begun: Begun) -> u16 {
    match begun {
        Begun::Fresh => 1,
        Begun::Rolled => 2,
        Begun::Restarted => 3,
        Begun::Cut => 4,
        Begun::Ahead => 5,
    }
}

fn begun_of(number: u16) -> Option<Begun> {
    let all = [Begun::Fresh, Begun::Rolled, Begun::Restarted, Begun::Cut, Begun::Ahead];
    all.into_iter().find(|begun| begun_number(*begun) == number)
}

/// The name of the segment that begins with this LSN.
pub(crate) fn segment_path(dir: &Path, first: Lsn) -> PathBuf {
    dir.join(format!("{:020}.log", first.0))
}

/// The segments of a directory, by the LSN in their names, ascending.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Lsn>, LogError> {
    let names = disk.list(dir).map_err(io_error("listing", dir))?;
    let first = |name: &String| {
        let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 20)?;
        digits.parse().ok().map(Lsn)
    };
    let mut firsts: Vec<Lsn> = names.iter().filter_map(first).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

/// What a segment holds of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterLine {
    pub first_index: u64,
    pub last_index: u64,
    pub last_term: u64,
    /// Of the first frame that touches the slot, in the file.
    pub first_offset: u32,
}

/// What a sealed segment says about itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Footer {
    pub last: Lsn,
    pub durable: Lsn,
    pub time_ms: u64,
    /// The log ended here in order, for a time.
    pub closed: bool,
    pub lines: Vec<(TableId, Slot, FooterLine)>,
}

pub(crate) type FooterLines = FxHashMap<(TableId, Slot), FooterLine>;

/// Size of a footer with so many lines.
pub(crate) fn footer_bytes(lines: usize) -> usize {
    FRAME_HEADER_BYTES + lines * LINE_BYTES + CHECKSUM_BYTES
}

/// Appends the footer behind the last frame, `stamp.lsn`.
pub(crate) fn encode_footer(
    out: &mut Vec<u8>,
    chain: &Chain,
    stamp: &Stamp,
    lines: &FooterLines,
    closed: bool,
) {
    let at = out.len();
    let bytes = footer_bytes(lines.len());
    let count = u32::try_from(lines.len()).expect("a segment is smaller than 2^32 bytes");
    let count = if closed { count | CLOSED } else { count };
    out.extend_from_slice(&frame::header_bytes(FOOTER_MAGIC, chain.seed, stamp, count, bytes));
    let mut sorted: Vec<_> = lines.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| **name);
    for ((table, slot), line) in sorted {
        out.extend_from_slice(&table.0.to_le_bytes());
        out.extend_from_slice(&slot.0.to_le_bytes());
        for number in [line.first_index, line.last_index, line.last_term] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&line.first_offset.to_le_bytes());
    }
    let sum = frame::checksum(chain.seed, &out[at..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

fn decode_footer(header: frame::Header, bytes: &[u8]) -> Option<Footer> {
    let count = u32::from(header.touches) << 16 | u32::from(header.flags);
    let (closed, count) = (count & CLOSED != 0, (count & !CLOSED) as usize);
    if bytes.len() != footer_bytes(count) {
        return None;
    }
    let mut fields = Fields(&bytes[FRAME_HEADER_BYTES..]);
    let line = |_| {
        let (table, slot) = (TableId(fields.u32()?), Slot(fields.u16()?));
        let line = FooterLine {
            first_index: fields.u64()?,
            last_index: fields.u64()?,
            last_term: fields.u64()?,
            first_offset: fields.u32()?,
        };
        Some((table, slot, line))
    };
    let lines = (0..count).map(line).collect::<Option<_>>()?;
    Some(Footer { last: header.lsn, durable: header.durable, time_ms: header.time_ms, closed, lines })
}

/// What stands next in a segment.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Frame(Frame<'a>),
    /// The segment was sealed here.
    Footer {
        closed: bool,
    },
    /// Nothing that continues the chain.
    End,
}

/// What was found behind the end of a chain that belongs to the same segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Something was.
    pub found: bool,
    /// The highest claim of durability among it, and where it stands.
    pub durable: Lsn,
    pub offset: u64,
}

/// Walks the frames of one segment from its first on.
pub(crate) struct Cursor {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    chain: Chain,
    pub offset: u64,
    /// The LSN that must come next.
    pub next: Lsn,
    /// What has been read from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// How much is read when it is used up.
    ahead_bytes: usize,
}

impl Cursor {
    pub fn new(file: Arc<dyn DiskFile>, path: PathBuf, header: &SegmentHeader) -> Cursor {
        Cursor {
            file,
            path,
            chain: Chain::new(header.id),
            offset: HEADER_BYTES as u64,
            next: header.first,
            buffer: Vec::new(),
            buffer_at: 0,
            ahead_bytes: READ_BYTES_FIRST,
        }
    }

    /// The next frame or footer. After `End` the same place may be tried again.
    pub fn step(&mut self) -> Result<Step<'_>, LogError> {
        let (chain, next) = (self.chain, self.next);
        let head = self.peek(FRAME_HEADER_BYTES)?;
        if let Some(header) = frame::header(head, chain.seed).filter(|header| header.lsn == next) {
            return self.step_frame(header);
        }
        let footer = self.footer()?.filter(|footer| footer.last.next() == next);
        Ok(footer.map_or(Step::End, |footer| Step::Footer { closed: footer.closed }))
    }

    /// The footer that stands here, if one does.
    fn footer(&mut self) -> Result<Option<Footer>, LogError> {
        let seed = self.chain.seed;
        let head = self.peek(FRAME_HEADER_BYTES)?;
        let Some(header) = frame::header_of(FOOTER_MAGIC, head, seed) else { return Ok(None) };
        let bytes = self.peek(header.bytes)?;
        let right = bytes.len() == header.bytes && frame::verify(bytes, seed).is_some();
        Ok(right.then(|| decode_footer(header, bytes)).flatten())
    }

    /// The footer of a sealed segment whose frames end at `offset`, without walking them.
    pub fn footer_at(&mut self, offset: u64) -> Result<Option<Footer>, LogError> {
        self.offset = offset;
        self.footer()
    }

    fn step_frame(&mut self, header: frame::Header) -> Result<Step<'_>, LogError> {
        let last = self.chain.last;
        let bytes = self.peek(header.bytes)?;
        if bytes.len() < header.bytes {
            return Ok(Step::End);
        }
        let Some(sum) = frame::verify(bytes, last) else { return Ok(Step::End) };
        let (at, offset) = ((self.offset - self.buffer_at) as usize, self.offset);
        self.chain.last = sum;
        self.offset += header.bytes as u64;
        self.next = self.next.next();
        match frame::decode(header, &self.buffer[at..at + header.bytes]) {
            Ok(frame) => Ok(Step::Frame(frame)),
            Err(what) => Err(LogError::Unknown { path: self.path.clone(), offset, what }),
        }
    }

    /// Takes the last step back: `offset` and `next` are what they were before it.
    pub fn step_back(&mut self, offset: u64, next: Lsn) {
        self.offset = offset;
        self.next = next;
    }

    /// Forgets what was read ahead: the writer may have written there since.
    pub fn forget(&mut self) {
        self.buffer.clear();
        self.buffer_at = self.offset;
        self.ahead_bytes = READ_BYTES_FIRST;
    }

    /// Bytes from `offset` on: `want` of them, or what the file has.
    fn peek(&mut self, want: usize) -> Result<&[u8], LogError> {
        let have = self.buffer_at + self.buffer.len() as u64;
        if self.offset < self.buffer_at || self.offset + want as u64 > have {
            // A header that lies about its length must not cost more memory than the file has bytes.
            let size = self.file.size().map_err(io_error("reading", &self.path))?;
            let rest = usize::try_from(size.saturating_sub(self.offset)).unwrap_or(usize::MAX);
            self.buffer.resize(want.max(self.ahead_bytes).min(rest), 0);
            self.ahead_bytes = (2 * self.ahead_bytes).min(READ_BYTES);
            self.buffer_at = self.offset;
            let filled = self.file.read_at(self.offset, &mut self.buffer);
            self.buffer.truncate(filled.map_err(io_error("reading", &self.path))?);
        }
        let bytes = &self.buffer[(self.offset - self.buffer_at) as usize..];
        Ok(&bytes[..want.min(bytes.len())])
    }

    /// Looks through the rest of the file for anything of this segment that stands at `next` or later.
    pub fn remains(&mut self) -> Result<Remains, LogError> {
        let mut remains = Remains::default();
        let mut window = Vec::new();
        let mut at = self.offset;
        loop {
            window.resize(READ_BYTES + FRAME_HEADER_BYTES, 0);
            let filled = self.file.read_at(at, &mut window).map_err(io_error("reading", &self.path))?;
            window.truncate(filled);
            for kind in [frame::MAGIC, FOOTER_MAGIC] {
                for hit in memchr::memmem::find_iter(&window, &kind.to_le_bytes()) {
                    let Some(header) = frame::header_of(kind, &window[hit..], self.chain.seed) else {
                        continue;
                    };
                    if header.lsn.next() < self.next {
                        continue;
                    }
                    remains.found = true;
                    if header.durable > remains.durable {
                        remains.durable = header.durable;
                        remains.offset = at + hit as u64;
                    }
                }
            }
            if filled < READ_BYTES + FRAME_HEADER_BYTES {
                return Ok(remains);
            }
            at += READ_BYTES as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::sim::SimDisk;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            shard: ShardId(3),
            begun: Begun::Cut,
            id: 11,
            first: Lsn(100),
            term: 4,
            previous: 10,
            previous_end: 5000,
            durable: Lsn(99),
            open_from: Lsn(98),
            time_ms: 5,
        }
    }

    fn read(block: &[u8]) -> Result<HeaderRead, LogError> {
        let disk = SimDisk::new(1);
        let file = disk.create(Path::new("/d/h")).expect("a new file");
        file.write_at(0, block).expect("room");
        SegmentHeader::read(&*file, Path::new("/d/h"))
    }

    #[test]
    fn a_header_comes_back_and_one_damaged_copy_is_told_from_two() {
        let mut block = sample().encode();
        assert_eq!(read(&block).expect("readable"), HeaderRead::Whole(sample()));
        block[20] ^= 1;
        assert_eq!(read(&block).expect("readable"), HeaderRead::Half(sample()));
        block[COPY_BYTES + 20] ^= 1;
        assert_eq!(read(&block).expect("readable"), HeaderRead::Nothing);
        assert_eq!(read(&block[..100]).expect("readable"), HeaderRead::Nothing);
    }

    #[test]
    fn another_format_is_refused() {
        let mut block = sample().encode();
        block[8] = 2;
        let sum = crc32fast::hash(&block[..COPY_BYTES - CHECKSUM_BYTES]);
        block[COPY_BYTES - CHECKSUM_BYTES..COPY_BYTES].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(read(&block), Err(LogError::Unknown { .. })));
    }

    #[test]
    fn names_sort_as_their_numbers_and_others_are_left_alone() {
        let disk = SimDisk::new(1);
        let dir = Path::new("/d");
        for first in [100, 9, 20] {
            disk.create(&segment_path(dir, Lsn(first))).expect("a new file");
        }
        disk.create(&dir.join("7.log")).expect("a new file");
        assert_eq!(list_segments(&disk, dir).expect("listed"), [Lsn(9), Lsn(20), Lsn(100)]);
    }
}

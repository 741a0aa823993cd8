//! Appending to the log: frames gather in a buffer, one write per turn takes them to the file.
//!
//! Knows which segment is current, what is written and what is durable. Syncs and new segments are
//! prepared by jobs that run elsewhere. Must not read the log.

use super::disk::{Disk, DiskFile};
use super::frame::{self, Chain, FrameMeta, Place, Stamp, Touch, frame_bytes};
use super::segment::{self, Begun, FooterLine, FooterLines, HEADER_BYTES, SegmentHeader};
use super::spare::{self, ReserveDone, ReserveJob, Spare, SyncDone, SyncJob};
use super::{LogError, LogOptions, Lsn, io_error};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What the turn buffer may keep allocated between turns.
const BUFFER_KEEP_BYTES: usize = 4 << 20;

type Body<'a> = SmallVec<[&'a [u8]; 4]>;

/// A group of frames that is being appended. Without `end_group` nothing of it counts.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a group counts only once it is ended"]
pub struct Group(Lsn);

/// What a `write` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    /// Time spent in the write calls: it can block behind a busy device.
    pub micros: u64,
}

/// A segment that takes no more frames.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub first: Lsn,
    pub last: Lsn,
    pub path: PathBuf,
    pub open_from: Lsn,
    pub time_ms: u64,
}

/// A run of the buffer that goes to one file.
struct Chunk {
    /// The segment begins here: its file is still a spare (None: none was ready).
    begins: Option<(PathBuf, Option<Spare>)>,
    offset: u64,
    start: usize,
    end: usize,
}

/// The end of one shard's log. Used by the one core that owns the shard.
pub struct Writer {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    chain: Chain,
    /// Where the next frame goes in the current segment, what is in the buffer included.
    used: u64,
    lines: FooterLines,
    next: Lsn,
    written: Lsn,
    /// The same, for syncs that wait for their turn: of the current file, what comes later is in another.
    in_file: Arc<AtomicU64>,
    durable: Lsn,
    time_ms: u64,
    /// A new term waits for the next frame.
    next_term: Option<u64>,
    buffer: Vec<u8>,
    chunks: Vec<Chunk>,
    groups: Vec<Lsn>,
    sealed: VecDeque<Sealed>,
    spares: VecDeque<Spare>,
    spare_number: u64,
    /// Room asked for beyond that of a turn, bytes.
    asked_bytes: u64,
    retired: Vec<PathBuf>,
    readers_from: Option<Lsn>,
    unsynced: Vec<(Arc<dyn DiskFile>, PathBuf)>,
    dir_unsynced: bool,
    unsynced_since_ms: Option<u64>,
    syncing_since_ms: Option<u64>,
    syncing: bool,
    /// Frames that the last sync has made durable.
    last_synced: u64,
}

/// A sync of fewer frames waits a moment, where the one before has shown that more come together.
const COMPANY_FRAMES: u64 = 16;

/// What a writer begins with: a segment with nothing in it, durable.
pub(crate) struct Beginning {
    pub header: SegmentHeader,
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    pub sealed: VecDeque<Sealed>,
    pub spares: VecDeque<Spare>,
    pub spare_number: u64,
}

impl Writer {
    /// Bytes of all segment files, those prepared ahead included.
    pub fn file_bytes(&self) -> u64 {
        (1 + self.sealed.len() + self.spares.len()) as u64 * self.options.segment_bytes
    }

    pub(crate) fn new(disk: Arc<dyn Disk>, options: LogOptions, beginning: Beginning) -> Writer {
        let Beginning { header, file, path, sealed, spares, spare_number } = beginning;
        let last = header.first.before();
        Writer {
            disk,
            options,
            chain: Chain::new(header.id),
            used: HEADER_BYTES as u64,
            lines: FooterLines::default(),
            next: header.first,
            written: last,
            in_file: Arc::new(AtomicU64::new(last.0)),
            durable: last,
            time_ms: header.time_ms,
            next_term: None,
            unsynced: vec![(file.clone(), path.clone())],
            header,
            file,
            path,
            buffer: Vec::new(),
            chunks: Vec::new(),
            groups: Vec::new(),
            sealed,
            spares,
            spare_number,
            asked_bytes: 0,
            retired: Vec::new(),
            readers_from: None,
            dir_unsynced: false,
            unsynced_since_ms: None,
            syncing_since_ms: None,
            syncing: false,
            last_synced: 0,
        }
    }

    /// Adds what one command did to the turn; `body` is given in pieces that stand one after another.
    /// No file is touched before `write`. A large one becomes a group by itself.
    pub fn append(&mut self, meta: &FrameMeta<'_>, time_ms: u64, body: &[&[u8]]) -> Lsn {
        let bytes: usize = body.iter().map(|piece| piece.len()).sum();
        if bytes > self.options.piece_bytes || meta.touches.len() > self.options.touches_max() {
            let group = self.begin_group(time_ms, &[]);
            return self.end_group(group, meta, time_ms, body);
        }
        self.put(meta, Place::Alone, time_ms, body, bytes)
    }

    /// Begins a record that comes in pieces, over several turns if need be. Other frames may come between.
    pub fn begin_group(&mut self, time_ms: u64, body: &[&[u8]]) -> Group {
        let group = self.next;
        self.groups.push(group);
        let mut pieces = split(body, self.options.piece_bytes).into_iter();
        let first = pieces.next().unwrap_or_default();
        let lsn = self.put_piece(&[], Place::Cont(group), time_ms, &first);
        assert_eq!(lsn, group, "a group is named after its first frame");
        pieces.for_each(|piece| {
            self.put_piece(&[], Place::Cont(group), time_ms, &piece);
        });
        Group(group)
    }

    pub fn continue_group(&mut self, group: &Group, time_ms: u64, body: &[&[u8]]) {
        for piece in split(body, self.options.piece_bytes) {
            self.put_piece(&[], Place::Cont(group.0), time_ms, &piece);
        }
    }

    /// The record takes its place in the log here, with the rest of its body.
    pub fn end_group(&mut self, group: Group, meta: &FrameMeta<'_>, time_ms: u64, body: &[&[u8]]) -> Lsn {
        let mut pieces = split(body, self.options.piece_bytes);
        let last = pieces.pop().unwrap_or_default();
        for piece in pieces {
            self.put_piece(&[], Place::Cont(group.0), time_ms, &piece);
        }
        let mut touches = meta.touches;
        while touches.len() > self.options.touches_max() {
            let (now, later) = touches.split_at(self.options.touches_max());
            self.put_piece(now, Place::Cont(group.0), time_ms, &[]);
            touches = later;
        }
        let bytes = last.iter().map(|piece| piece.len()).sum();
        let meta = FrameMeta { touches, txn: meta.txn };
        let lsn = self.put(&meta, Place::End(group.0), time_ms, &last, bytes);
        self.groups.retain(|open| *open != group.0);
        lsn
    }

    /// Gives a group up: nothing of it counts.
    pub fn abandon_group(&mut self, group: Group) {
        self.groups.retain(|open| *open != group.0);
    }

    fn put_piece(&mut self, touches: &[Touch], place: Place, time_ms: u64, body: &[&[u8]]) -> Lsn {
        let bytes = body.iter().map(|piece| piece.len()).sum();
        self.put(&FrameMeta { touches, txn: None }, place, time_ms, body, bytes)
    }

    fn put(
        &mut self,
        meta: &FrameMeta<'_>,
        place: Place,
        time_ms: u64,
        body: &[&[u8]],
        body_bytes: usize,
    ) -> Lsn {
        let bytes = frame_bytes(meta, place, body_bytes);
        self.time_ms = time_ms;
        self.make_room(bytes, meta.touches.len());
        self.unsynced_since_ms.get_or_insert(time_ms);
        let stamp = Stamp { lsn: self.next, durable: self.durable, time_ms };
        frame::encode(&mut self.buffer, &mut self.chain, &stamp, meta, place, body, bytes);
        self.note(meta.touches);
        self.used += bytes as u64;
        self.next = self.next.next();
        stamp.lsn
    }

    fn note(&mut self, touches: &[Touch]) {
        for touch in touches {
            let new = FooterLine {
                first_index: touch.index,
                last_index: touch.index,
                last_term: touch.term,
                first_offset: self.used as u32,
            };
            let line = self.lines.entry((touch.table, touch.slot)).or_insert(new);
            line.last_index = touch.index;
            line.last_term = touch.term;
        }
    }

    /// Opens a chunk for the frame that comes; in the next segment if this one, with its footer, is full.
    fn make_room(&mut self, bytes: usize, touches: usize) {
        let footer = segment::footer_bytes(self.lines.len() + touches) as u64;
        if self.next_term.is_some() || self.used + bytes as u64 + footer > self.options.segment_bytes {
            self.roll();
            let fits =
                self.used + (bytes + segment::footer_bytes(touches)) as u64 <= self.options.segment_bytes;
            assert!(fits, "a frame fits an empty segment");
        } else if self.chunks.is_empty() {
            self.open_chunk(None);
        }
    }

    fn open_chunk(&mut self, begins: Option<(PathBuf, Option<Spare>)>) {
        let at = self.buffer.len();
        let offset = if begins.is_some() { 0 } else { self.used };
        self.chunks.push(Chunk { begins, offset, start: at, end: at });
    }

    fn close_chunk(&mut self) {
        let end = self.buffer.len();
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.end = end;
        }
    }

    fn is_empty_segment(&self) -> bool {
        self.next == self.header.first
    }

    /// The footer behind the last frame, in the buffer.
    fn seal(&mut self, closed: bool) {
        if self.chunks.is_empty() {
            self.open_chunk(None);
        }
        let stamp = Stamp { lsn: self.next.before(), durable: self.durable, time_ms: self.time_ms };
        segment::encode_footer(&mut self.buffer, &self.chain, &stamp, &self.lines, closed);
    }

    /// Goes on in a new segment: footer of the old one and header of the new into the buffer.
    fn roll(&mut self) {
        let (mut previous, mut previous_end) = (self.header.previous, self.header.previous_end);
        // A segment in which nothing stands yet gives its name to the new one, and what it was begun for: the one
        // before may have no footer, or end in what is cut.
        let mut begun = self.header.begun;
        if !self.is_empty_segment() {
            self.seal(false);
            (previous, previous_end, begun) = (self.header.id, self.used, Begun::Rolled);
            self.sealed.push_back(Sealed {
                first: self.header.first,
                last: self.next.before(),
                path: segment::segment_path(&self.options.dir, self.header.first),
                open_from: self.header.open_from,
                time_ms: self.time_ms,
            });
        }
        self.close_chunk();
        self.header = SegmentHeader {
            shard: self.options.shard,
            begun,
            id: self.disk.random(),
            first: self.next,
            term: self.next_term.take().unwrap_or(self.header.term),
            previous,
            previous_end,
            durable: self.durable,
            open_from: self.groups.iter().copied().min().unwrap_or(self.next).min(self.next),
            time_ms: self.time_ms,
        };
        let path = segment::segment_path(&self.options.dir, self.next);
        let spare = self.spares.pop_front();
        self.open_chunk(Some((path, spare)));
        self.buffer.extend_from_slice(&self.header.encode());
        self.chain = Chain::new(self.header.id);
        self.used = HEADER_BYTES as u64;
        self.lines.clear();
    }

    /// Whether anything waits for `write`.
    pub fn has_pending(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes the turn's frames to the file: one write, and one more for each segment begun. An error is
    /// fatal. Blocks for long only where more was appended than `has_room` promised.
    pub fn write(&mut self) -> Result<Written, LogError> {
        self.close_chunk();
        let mut done = Written::default();
        let begun = Instant::now();
        let mut chunks = std::mem::take(&mut self.chunks);
        for chunk in chunks.drain(..) {
            if let Some((path, spare)) = chunk.begins {
                self.begin_file(path, spare)?;
            }
            let bytes = &self.buffer[chunk.start..chunk.end];
            self.file.write_at(chunk.offset, bytes).map_err(io_error("writing", &self.path))?;
            done.bytes += bytes.len() as u64;
        }
        done.micros = begun.elapsed().as_micros() as u64;
        self.chunks = chunks;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEEP_BYTES);
        self.written = self.next.before();
        self.in_file.store(self.written.0, Ordering::Release);
        Ok(done)
    }

    fn begin_file(&mut self, path: PathBuf, spare: Option<Spare>) -> Result<(), LogError> {
        let spare = match spare {
            Some(spare) => spare,
            None => {
                self.spare_number += 1;
                let path = spare::spare_path(&self.options.dir, self.spare_number);
                spare::prepare(&*self.disk, &self.options, &path)?
            }
        };
        self.disk.rename(&spare.path, &path).map_err(io_error("renaming", &spare.path))?;
        self.dir_unsynced = true;
        self.unsynced.push((spare.file.clone(), path.clone()));
        self.file = spare.file;
        self.path = path;
        self.in_file = Arc::new(AtomicU64::new(self.written.0));
        Ok(())
    }

    /// Whether `turn_bytes_max` more can be appended without waiting for the disk to be prepared. False:
    /// refuse writes before appending; true again once a reserve job has succeeded.
    pub fn has_room(&self) -> bool {
        self.has_room_for(self.options.turn_bytes_max)
    }

    /// As `has_room`, for so many bytes of frames.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let footer = segment::footer_bytes(self.lines.len()) as u64;
        let current = if self.next_term.is_some() {
            0
        } else {
            usable_bytes(&self.options, self.options.segment_bytes.saturating_sub(self.used + footer))
        };
        current + self.spares.len() as u64 * usable_segment_bytes(&self.options) >= bytes
    }

    /// Whether so many bytes fit, and then still what `has_room` promises to others.
    pub fn has_room_beside_turn(&self, bytes: u64) -> bool {
        self.has_room_for(self.options.turn_bytes_max + bytes)
    }

    /// The next reserve jobs prepare so much more than a turn needs.
    pub fn ask_for_room_beside_turn(&mut self, bytes: u64) {
        self.asked_bytes = bytes;
    }

    /// The last LSN that a `write` has covered.
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// The last LSN appended, written or not.
    pub fn written_or_pending(&self) -> Lsn {
        self.next.before()
    }

    /// The last LSN that a power cut cannot take back.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    pub fn term(&self) -> u64 {
        self.next_term.unwrap_or(self.header.term)
    }

    /// When the oldest frame was appended that is not known to be durable.
    pub fn unsynced_since_ms(&self) -> Option<u64> {
        self.syncing_since_ms.or(self.unsynced_since_ms)
    }

    /// What makes all that is written durable; None if it is, or a sync is under way.
    pub fn sync_job(&mut self) -> Option<SyncJob> {
        if self.syncing || self.written == self.durable {
            return None;
        }
        self.syncing = true;
        let waiting = self.written.0 - self.durable.0;
        self.syncing_since_ms = self.unsynced_since_ms.take();
        if self.has_pending() {
            self.unsynced_since_ms = Some(self.time_ms);
        }
        let current = (self.file.clone(), self.path.clone());
        let files = std::mem::replace(&mut self.unsynced, vec![current]);
        let (disk, dir) = (self.disk.clone(), self.options.dir.clone());
        Some(SyncJob {
            disk,
            dir,
            files,
            sync_dir: std::mem::take(&mut self.dir_unsynced),
            upto: self.written,
            in_file: self.in_file.clone(),
            waits: waiting < COMPANY_FRAMES && waiting < self.last_synced,
        })
    }

    pub fn synced(&mut self, done: SyncDone) {
        assert!(
            self.syncing && done.upto >= self.durable && done.upto <= self.written,
            "a sync of this writer"
        );
        self.syncing = false;
        self.syncing_since_ms = None;
        self.last_synced = done.upto.0 - self.durable.0;
        self.durable = done.upto;
        if self.durable == self.written && !self.has_pending() {
            self.unsynced_since_ms = None;
        }
    }

    /// What prepares the segments wanted in reserve and frees those that are not needed; None if there is
    /// nothing to do. One at a time.
    pub fn reserve_job(&mut self) -> Option<ReserveJob> {
        let wanted = spares_wanted(&self.options, self.asked_bytes).saturating_sub(self.spares.len());
        if wanted == 0 && self.retired.is_empty() {
            return None;
        }
        let number = self.spare_number;
        // Each retired segment or prepared one takes a name; the next job begins behind them.
        self.spare_number += (self.retired.len() + wanted) as u64;
        let retired = std::mem::take(&mut self.retired);
        Some(ReserveJob { disk: self.disk.clone(), options: self.options.clone(), retired, wanted, number })
    }

    pub fn reserved(&mut self, done: ReserveDone) {
        self.spares.extend(done.spares);
    }

    /// Readers are at this LSN: segments from there on are kept by hours, though not above `retain_bytes`.
    pub fn hold_for_readers(&mut self, from: Option<Lsn>) {
        self.readers_from = from;
    }

    /// Lets old segments go. What recovery needs, `recovery_from` and later, always stays.
    pub fn retain(&mut self, recovery_from: Lsn, now_ms: u64) {
        let floor = self.recovery_floor(recovery_from);
        let mut total = (self.sealed.len() as u64 + 1) * self.options.segment_bytes;
        while let Some(oldest) = self.sealed.front()
            && oldest.last < floor
        {
            let expired = oldest.time_ms.saturating_add(self.options.retain_hours * 3_600_000) <= now_ms;
            let read = self.readers_from.is_some_and(|from| oldest.last >= from);
            if total <= self.options.retain_bytes && (!expired || read) {
                break;
            }
            let oldest = self.sealed.pop_front().expect("it has a front");
            self.retired.push(oldest.path);
            total -= self.options.segment_bytes;
        }
    }

    /// Segments that end before this LSN are needed by nobody; None: there is none. `recovery_from` as for `retain`.
    pub fn purgeable(&self, recovery_from: Lsn) -> Option<Lsn> {
        let floor = self.needed_from(recovery_from);
        self.sealed.iter().rfind(|sealed| sealed.last < floor).map(|sealed| sealed.last.next())
    }

    /// The end of the first segment that is full and needed; None: there is none.
    pub fn first_needed(&self, recovery_from: Lsn) -> Option<Lsn> {
        let floor = self.needed_from(recovery_from);
        self.sealed.iter().find(|sealed| sealed.last >= floor).map(|sealed| sealed.last)
    }

    fn needed_from(&self, recovery_from: Lsn) -> Lsn {
        self.recovery_floor(recovery_from).min(self.readers_from.unwrap_or(Lsn(u64::MAX)))
    }

    /// Lets segments go that end before `before` and that nobody needs; how many stay that end before it.
    pub fn purge(&mut self, recovery_from: Lsn, before: Lsn) -> usize {
        let upto = self.purgeable(recovery_from).unwrap_or(Lsn::ZERO).min(before);
        while let Some(oldest) = self.sealed.front()
            && oldest.last < upto
        {
            let oldest = self.sealed.pop_front().expect("it has a front");
            self.retired.push(oldest.path);
        }
        self.sealed.iter().filter(|sealed| sealed.last < before).count()
    }

    /// The oldest frame that a start would read: groups that end later may have begun before.
    fn recovery_floor(&self, recovery_from: Lsn) -> Lsn {
        let of = self.sealed.iter().rev().find(|sealed| sealed.first <= recovery_from);
        let open_from = match of {
            Some(sealed) if recovery_from < self.header.first => sealed.open_from,
            _ => self.header.open_from,
        };
        let group = self.groups.iter().copied().min().unwrap_or(self.next);
        recovery_from.min(open_from).min(group).min(self.durable.next())
    }

    /// The segments that stand, by their first LSN, oldest first.
    pub fn segments(&self) -> Vec<Lsn> {
        self.sealed.iter().map(|sealed| sealed.first).chain([self.header.first]).collect()
    }

    /// A new term: the next frame begins a segment that says so. Show it to nobody before that frame is
    /// durable: a power cut could give the same number out again.
    pub fn begin_term(&mut self, term: u64) {
        assert!(term > self.term(), "terms only grow");
        self.next_term = Some(term);
    }

    /// Writes, seals and syncs everything, so that the next start knows that nothing was lost.
    pub fn close(mut self) -> Result<Lsn, LogError> {
        self.seal(true);
        self.write()?;
        let files = std::mem::take(&mut self.unsynced);
        let (disk, dir) = (self.disk.clone(), self.options.dir.clone());
        let (sync_dir, upto, in_file) = (self.dir_unsynced, self.written, self.in_file);
        Ok(SyncJob { disk, dir, files, sync_dir, upto, in_file, waits: false }.run()?.upto)
    }
}

/// What of so much free room can be counted on: a frame that does not fit leaves its place empty, and
/// each slot touched takes a line in the footer.
fn usable_bytes(options: &LogOptions, free: u64) -> u64 {
    free.saturating_sub(options.piece_bytes as u64) / 10 * 6
}

fn usable_segment_bytes(options: &LogOptions) -> u64 {
    usable_bytes(options, options.segment_bytes - HEADER_BYTES as u64)
}

fn spares_wanted(options: &LogOptions, asked_bytes: u64) -> usize {
    let turn = (options.turn_bytes_max + asked_bytes).div_ceil(usable_segment_bytes(options));
    options.reserve_segments.max(turn as usize)
}

/// Cuts a body into pieces of at most so many bytes.
fn split<'a>(body: &[&'a [u8]], piece_bytes: usize) -> Vec<Body<'a>> {
    let mut pieces = Vec::new();
    let (mut piece, mut left) = (Body::new(), piece_bytes);
    for part in body {
        let mut part = *part;
        while !part.is_empty() {
            let (now, later) = part.split_at(part.len().min(left));
            piece.push(now);
            left -= now.len();
            part = later;
            if left == 0 {
                pieces.push(std::mem::take(&mut piece));
                left = piece_bytes;
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

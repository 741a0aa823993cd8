//! Reading a log from any LSN on, while it is being written or offline.
//!
//! Stays below the LSN it is told. Must not know who wants the records.

use super::assemble::Assembler;
use super::disk::{Disk, DiskFile};
use super::segment::{Begun, Cursor, Footer, HeaderRead, SegmentHeader, Step, list_segments, segment_path};
use super::{LogError, Lsn, Record, io_error};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a log. Does not keep what it reads from being recycled: then it answers `Gone`.
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    from: Lsn,
    header: SegmentHeader,
    cursor: Cursor,
    /// The next segment begins here, as was known when this one was begun.
    limit: Option<Lsn>,
    records: Assembler,
}

impl Reader {
    /// A reader whose first record is that at `from`, or the first after it. `Gone` if the log begins later.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from: Lsn) -> Result<Reader, LogError> {
        let firsts = list_segments(&*disk, dir)?;
        let holding = |lsn: Lsn| firsts.iter().rev().find(|first| **first <= lsn).copied();
        let first = holding(from).ok_or(LogError::Gone(from))?;
        let (_, header) = open_segment(&*disk, dir, first, from)?;
        let first = holding(header.open_from).ok_or(LogError::Gone(from))?;
        let (file, header) = open_segment(&*disk, dir, first, from)?;
        let mut records = Assembler::new(from);
        records.begin_segment(&header);
        let cursor = Cursor::new(file, segment_path(dir, first), &header);
        let limit = limit(&*disk, dir, &header)?;
        Ok(Reader { disk, dir: dir.to_path_buf(), from, header, cursor, limit, records })
    }

    /// The next record, if its last frame is at `published` or before. Nothing later than `published` is
    /// looked at: what is not written yet must not be named.
    pub fn next(&mut self, published: Lsn) -> Result<Option<Record<'_>>, LogError> {
        let mut again = false;
        while self.cursor.next <= published {
            if self.limit == Some(self.cursor.next) {
                self.next_segment()?;
                continue;
            }
            let (offset, lsn) = (self.cursor.offset, self.cursor.next);
            match self.cursor.step()? {
                Step::Frame(frame) => {
                    again = false;
                    let complete = self.records.feed(frame);
                    let damage = |why| LogError::Damage { path: self.cursor.path.clone(), offset, why };
                    if complete.map_err(damage)? && lsn >= self.from {
                        return Ok(Some(self.records.record()));
                    }
                }
                Step::Footer { .. } => self.next_segment()?,
                // What was read ahead may be older than what is published by now.
                Step::End if !again => {
                    again = true;
                    self.cursor.forget();
                }
                Step::End => return Err(self.lost(offset, lsn)?),
            }
        }
        Ok(None)
    }

    /// The next record's frame will have this LSN or a later one.
    pub fn position(&self) -> Lsn {
        self.cursor.next.max(self.from)
    }

    fn next_segment(&mut self) -> Result<(), LogError> {
        let first = self.cursor.next;
        let (file, header) = open_segment(&*self.disk, &self.dir, first, first)?;
        if header.previous != self.header.id {
            return Err(LogError::Gone(first));
        }
        self.records.begin_segment(&header);
        self.cursor = Cursor::new(file, segment_path(&self.dir, first), &header);
        self.limit = limit(&*self.disk, &self.dir, &header)?;
        self.header = header;
        Ok(())
    }

    /// Why a published frame is not there: its segment has become another one, or it is damaged.
    fn lost(&self, offset: u64, lsn: Lsn) -> Result<LogError, LogError> {
        let path = self.cursor.path.clone();
        Ok(match SegmentHeader::read(&*self.cursor.file, &path)? {
            HeaderRead::Whole(now) if now.id == self.header.id => {
                let why = format!("LSN {} cannot be read", lsn.0);
                LogError::Damage { path, offset, why }
            }
            _ => LogError::Gone(lsn),
        })
    }
}

/// A segment file as it lies there.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The LSN its name says.
    pub first: Lsn,
    pub path: PathBuf,
    /// None where it cannot be read, or is of another segment.
    pub header: Option<SegmentHeader>,
}

/// The segments of a directory, oldest first.
pub fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Segment>, LogError> {
    let one = |first: Lsn| {
        let path = segment_path(dir, first);
        let file = disk.open(&path).map_err(io_error("opening", &path))?;
        let header = match SegmentHeader::read(&*file, &path)? {
            HeaderRead::Whole(header) if header.first == first => Some(header),
            _ => None,
        };
        Ok(Segment { first, path, header })
    };
    list_segments(disk, dir)?.into_iter().map(one).collect()
}

/// The footers of the sealed segments, oldest first, each with the segment's first LSN: which slots they
/// hold, and where. A segment that a crash ended has none.
pub fn footers(disk: &dyn Disk, dir: &Path) -> Result<Vec<(Lsn, Footer)>, LogError> {
    let firsts = list_segments(disk, dir)?;
    let mut footers = Vec::new();
    for pair in firsts.windows(2) {
        let (file, header) = open_segment(disk, dir, pair[0], pair[0])?;
        let (_, next) = open_segment(disk, dir, pair[1], pair[1])?;
        if next.begun == Begun::Rolled && next.previous == header.id {
            let path = segment_path(dir, pair[0]);
            let footer = Cursor::new(file, path.clone(), &header).footer_at(next.previous_end)?;
            let why = || "the segment's footer cannot be read".into();
            let footer =
                footer.ok_or_else(|| LogError::Damage { path, offset: next.previous_end, why: why() })?;
            footers.push((pair[0], footer));
        }
    }
    Ok(footers)
}

fn open_segment(
    disk: &dyn Disk,
    dir: &Path,
    first: Lsn,
    wanted: Lsn,
) -> Result<(Arc<dyn DiskFile>, SegmentHeader), LogError> {
    let path = segment_path(dir, first);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LogError::Gone(wanted)),
        file => file.map_err(io_error("opening", &path))?,
    };
    match SegmentHeader::read(&*file, &path)? {
        HeaderRead::Whole(header) if header.first == first => Ok((file, header)),
        // Recycled between the listing and the opening.
        HeaderRead::Whole(_) => Err(LogError::Gone(wanted)),
        HeaderRead::Half(_) | HeaderRead::Nothing => {
            Err(LogError::Damage { path, offset: 0, why: "the segment's header cannot be read".into() })
        }
    }
}

/// Where the segment after this one begins, if there is one yet.
fn limit(disk: &dyn Disk, dir: &Path, header: &SegmentHeader) -> Result<Option<Lsn>, LogError> {
    let after = list_segments(disk, dir)?.into_iter().find(|first| *first > header.first);
    let Some(after) = after else { return Ok(None) };
    match open_segment(disk, dir, after, after) {
        Ok((_, next)) => Ok((next.previous == header.id).then_some(after)),
        // Being made or recycled just now: it will be asked for when this segment is at its end.
        Err(LogError::Gone(_) | LogError::Damage { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

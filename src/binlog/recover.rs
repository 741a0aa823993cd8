//! Opening a log: what is in it, where it ends, and whether that end is a torn tail or damage.
//!
//! The rules are in FORMAT.md, "The tail". Must not know what is done with the records.

use super::assemble::Assembler;
use super::disk::{Disk, DiskFile};
use super::segment::{Begun, Cursor, HeaderRead, SegmentHeader, Step, list_segments, segment_path};
use super::spare;
use super::writer::{Beginning, Sealed, Writer};
use super::{LogError, LogOptions, Lsn, Record, Resume, io_error, next_term};
use std::path::PathBuf;
use std::sync::Arc;

/// Takes a record that recovery has read; its error stops the start.
pub type Replay<'a> = dyn FnMut(&Record<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// A log that is ready for appending.
pub struct Recovered {
    pub writer: Writer,
    /// The last LSN that counts: of the log, or the persisted one where that is ahead.
    pub last: Lsn,
    /// What was taken off the end, if anything was.
    pub cut: Option<Cut>,
    /// The persisted LSN was ahead of the log: the frames between are missing.
    pub ahead: bool,
    /// The term of what is appended from here on.
    pub term: u64,
    /// It is the one from before: the log had been closed in order.
    pub term_kept: bool,
}

/// Where a log was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first LSN that is not part of the log any more.
    pub lsn: Lsn,
    /// The place from which on nothing counts.
    pub path: PathBuf,
    pub offset: u64,
}

/// What a look at a log has found.
pub struct Examined {
    /// The last LSN of the log itself.
    pub last: Lsn,
    /// Where it must be cut.
    pub cut: Option<Cut>,
    next: Lsn,
    /// The last segment was sealed by an orderly end.
    closed: bool,
    term_max: u64,
    time_ms: u64,
    /// Where the last segment's frames end.
    end_offset: u64,
    candidates: Vec<Candidate>,
    /// Segments that were read: what is in them counts, and may not be durable yet.
    read: std::ops::Range<usize>,
}

/// A segment file and its header.
struct Candidate {
    first: Lsn,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: HeaderRead,
}

impl Candidate {
    /// The header, if it is whole and of the segment that the file's name says.
    fn whole(&self) -> Option<&SegmentHeader> {
        match &self.header {
            HeaderRead::Whole(header) if header.first == self.first => Some(header),
            _ => None,
        }
    }

    /// As `whole`, but half a header is enough.
    fn any(&self) -> Option<&SegmentHeader> {
        match &self.header {
            HeaderRead::Whole(header) | HeaderRead::Half(header) if header.first == self.first => {
                Some(header)
            }
            _ => None,
        }
    }
}

/// The end of the chain: the LSN that comes next, and where it should have stood.
struct End {
    next: Lsn,
    at: usize,
    offset: u64,
    closed: bool,
    /// Something of the log stands behind the end and does not continue it.
    broken: bool,
    /// The caller's own cut was reached.
    cut_short: bool,
    durable: Lsn,
    durable_at: Option<(PathBuf, u64)>,
    time_ms: u64,
}

/// Opens a log for appending, after giving `replay` each record that is to be replayed, in order. Cuts a
/// torn tail; refuses damage. `cut_before`: an LSN later than what is persisted from which on nothing is to
/// count, whatever stands there (a transaction's part without its whole).
pub fn open(
    disk: Arc<dyn Disk>,
    options: LogOptions,
    resume: impl Into<Resume>,
    cut_before: Option<Lsn>,
    replay: &mut Replay<'_>,
) -> Result<Recovered, LogError> {
    let resume = resume.into();
    let found = examine(&*disk, &options, resume, cut_before, replay)?;
    begin(disk, options, resume.persisted, found)
}

/// Reads a log as `open` does, and changes nothing.
pub fn examine(
    disk: &dyn Disk,
    options: &LogOptions,
    resume: impl Into<Resume>,
    cut_before: Option<Lsn>,
    replay: &mut Replay<'_>,
) -> Result<Examined, LogError> {
    let Resume { after, persisted } = resume.into();
    options.check()?;
    let candidates = candidates(disk, options)?;
    let term_max = candidates.iter().filter_map(|c| c.any()).map(|header| header.term).max().unwrap_or(0);
    let Some(start) = start(&candidates, after)? else {
        let (last, next) = (Lsn::ZERO, Lsn(1));
        let (cut, closed, time_ms, end_offset, read) = (None, false, 0, 0, 0..0);
        let found = Examined { last, cut, next, closed, term_max, time_ms, end_offset, candidates, read };
        return Ok(found);
    };
    if let Some(lsn) = cut_before.filter(|lsn| *lsn <= persisted) {
        let why = format!("LSN {} is to be cut off, but RocksDB has persisted up to {}", lsn.0, persisted.0);
        return Err(LogError::Damage { path: options.dir.clone(), offset: 0, why });
    }
    let mut end = walk(&candidates, start, after, cut_before, replay)?;
    if !end.cut_short {
        look_on(&candidates, &mut end)?;
        refuse_damage(&candidates, &end, persisted)?;
    }
    let cut = (end.broken || end.cut_short).then(|| Cut {
        lsn: end.next,
        path: candidates[end.at].path.clone(),
        offset: end.offset,
    });
    Ok(Examined {
        last: end.next.before(),
        cut,
        next: end.next,
        closed: end.closed,
        term_max,
        time_ms: end.time_ms,
        end_offset: end.offset,
        read: start..end.at + 1,
        candidates,
    })
}

fn candidates(disk: &dyn Disk, options: &LogOptions) -> Result<Vec<Candidate>, LogError> {
    let candidate = |first: Lsn| {
        let path = segment_path(&options.dir, first);
        let file = disk.open(&path).map_err(io_error("opening", &path))?;
        let header = SegmentHeader::read(&*file, &path)?;
        let candidate = Candidate { first, path, file, header };
        match candidate.any() {
            Some(header) if header.shard != options.shard => {
                let why = format!("it belongs to shard {}, not to {}", header.shard.0, options.shard.0);
                Err(LogError::Damage { path: candidate.path, offset: 0, why })
            }
            _ => Ok(candidate),
        }
    };
    list_segments(disk, &options.dir)?.into_iter().map(candidate).collect()
}

/// The segment to read from: the one the first LSN wanted is in, or an earlier one in which a group began
/// that was open then. None: there is no segment at all.
fn start(candidates: &[Candidate], after: Lsn) -> Result<Option<usize>, LogError> {
    let holding = |lsn: Lsn| candidates.iter().rposition(|candidate| candidate.first <= lsn);
    let wanted = after.next();
    let Some(first) = candidates.first() else { return Ok(None) };
    // The oldest segment has its name only since its header is durable: this is no torn tail.
    if first.any().is_none() {
        let why = "the header of the oldest segment cannot be read".to_owned();
        return Err(LogError::Damage { path: first.path.clone(), offset: 0, why });
    }
    let Some(at) = holding(wanted) else {
        let why = format!("the log begins at LSN {}, but {} is needed", first.first.0, wanted.0);
        return Err(LogError::Damage { path: first.path.clone(), offset: 0, why });
    };
    let open_from = candidates[at].whole().map_or(candidates[at].first, |header| header.open_from);
    match holding(open_from) {
        Some(start) => Ok(Some(start)),
        None => {
            let why = format!("a group begun at LSN {} is needed, the log begins later", open_from.0);
            Err(LogError::Damage { path: candidates[at].path.clone(), offset: 0, why })
        }
    }
}

/// Whether `next` goes on where `header`'s segment ends.
fn continues(next: &SegmentHeader, header: &SegmentHeader) -> bool {
    next.previous == header.id && next.term >= header.term && next.begun != Begun::Ahead
}

/// Follows the chain from one segment to the next, as far as it holds.
fn walk(
    candidates: &[Candidate],
    start: usize,
    after: Lsn,
    cut_before: Option<Lsn>,
    replay: &mut Replay<'_>,
) -> Result<End, LogError> {
    let mut end = End {
        next: candidates[start].first,
        at: start,
        offset: 0,
        closed: false,
        broken: false,
        cut_short: false,
        durable: Lsn::ZERO,
        durable_at: None,
        time_ms: 0,
    };
    let mut records = Assembler::new(after.next());
    let mut before: Option<&SegmentHeader> = None;
    for (at, candidate) in candidates.iter().enumerate().skip(start) {
        let follows = |header: &SegmentHeader| {
            before.is_none_or(|before| continues(header, before) && header.first == end.next)
        };
        let Some(header) = candidate.whole().filter(|header| follows(header)) else { break };
        records.begin_segment(header);
        before = Some(header);
        end.closed = false;
        end.at = at;
        end.time_ms = end.time_ms.max(header.time_ms);
        // What the next segment begins with is not in this one, whatever its bytes look like.
        let next_first = candidates.get(at + 1).and_then(|next| next.whole());
        let limit = next_first.filter(|next| continues(next, header)).map(|next| next.first);
        let mut cursor = Cursor::new(candidate.file.clone(), candidate.path.clone(), header);
        let stop = read_segment(&mut cursor, limit, cut_before, &mut records, after, replay, &mut end)?;
        end.next = cursor.next;
        end.offset = cursor.offset;
        match stop {
            Stop::Limit => {}
            Stop::Sealed { closed } => end.closed = closed,
            Stop::CutShort => {
                end.cut_short = true;
                break;
            }
            Stop::NoMore => {
                let remains = cursor.remains()?;
                end.broken = remains.found;
                end.durable = remains.durable;
                end.durable_at = Some((candidate.path.clone(), remains.offset));
                break;
            }
        }
    }
    Ok(end)
}

enum Stop {
    /// The next segment begins with the LSN that comes now.
    Limit,
    Sealed {
        closed: bool,
    },
    CutShort,
    NoMore,
}

fn read_segment(
    cursor: &mut Cursor,
    limit: Option<Lsn>,
    cut_before: Option<Lsn>,
    records: &mut Assembler,
    after: Lsn,
    replay: &mut Replay<'_>,
    end: &mut End,
) -> Result<Stop, LogError> {
    loop {
        if limit == Some(cursor.next) {
            return Ok(if cut_before == limit { Stop::CutShort } else { Stop::Limit });
        }
        let (offset, lsn) = (cursor.offset, cursor.next);
        match cursor.step()? {
            Step::Frame(_) if cut_before == Some(lsn) => {
                cursor.step_back(offset, lsn);
                return Ok(Stop::CutShort);
            }
            Step::Frame(frame) => {
                end.time_ms = end.time_ms.max(frame.header.time_ms);
                let complete = records.feed(frame).map_err(|why| {
                    let path = cursor.path.clone();
                    LogError::Damage { path, offset, why }
                })?;
                let record = records.record();
                if complete && record.lsn > after {
                    replay(&record).map_err(|why| LogError::Replay(record.lsn, why))?;
                }
            }
            Step::Footer { closed } => return Ok(Stop::Sealed { closed }),
            Step::End => return Ok(Stop::NoMore),
        }
    }
}

/// Looks at the segments behind the end: what they claim to be durable, and whether they are of this log.
fn look_on(candidates: &[Candidate], end: &mut End) -> Result<(), LogError> {
    let read_term = candidates[end.at].whole().map_or(0, |header| header.term);
    let mut claim = |durable: Lsn, path: &PathBuf, offset: u64| {
        if durable > end.durable {
            end.durable = durable;
            end.durable_at = Some((path.clone(), offset));
        }
    };
    for (at, candidate) in candidates.iter().enumerate().skip(end.at) {
        let read = at == end.at && candidate.whole().is_some();
        if read {
            continue;
        }
        let Some(header) = candidate.any() else {
            end.broken = true;
            continue;
        };
        // What an earlier cut has dropped and was not removed any more.
        if header.term < read_term {
            continue;
        }
        end.broken = true;
        claim(header.durable, &candidate.path, 0);
        let mut cursor = Cursor::new(candidate.file.clone(), candidate.path.clone(), header);
        cursor.next = end.next;
        let remains = cursor.remains()?;
        claim(remains.durable, &candidate.path, remains.offset);
    }
    Ok(())
}

fn refuse_damage(candidates: &[Candidate], end: &End, persisted: Lsn) -> Result<(), LogError> {
    let (path, offset) = (candidates[end.at].path.clone(), end.offset);
    let lost = end.next.0;
    if let Some((claimed_by, at)) = &end.durable_at
        && end.durable >= end.next
    {
        let claim =
            format!("{} at offset {at} says that {} was durable", claimed_by.display(), end.durable.0);
        return Err(LogError::Damage {
            path,
            offset,
            why: format!("LSN {lost} cannot be read, but {claim}"),
        });
    }
    if end.broken && persisted >= end.next {
        let claim = format!("RocksDB has persisted up to {}", persisted.0);
        return Err(LogError::Damage {
            path,
            offset,
            why: format!("LSN {lost} cannot be read, but {claim}"),
        });
    }
    Ok(())
}

/// Makes the end durable and begins a new segment behind it.
fn begin(
    disk: Arc<dyn Disk>,
    options: LogOptions,
    persisted: Lsn,
    found: Examined,
) -> Result<Recovered, LogError> {
    let dir = &options.dir;
    for candidate in &found.candidates[found.read.clone()] {
        candidate.file.sync_data().map_err(io_error("syncing", &candidate.path))?;
    }
    // Their names too, before a header can say that what is in them is durable.
    disk.sync_dir(dir).map_err(io_error("syncing", dir))?;
    let ahead = persisted >= found.next;
    let next = found.next.max(persisted.next());
    let closed = found.closed && found.cut.is_none() && !ahead;
    let (kept, dropped): (Vec<_>, Vec<_>) = found.candidates.iter().partition(|c| c.first < found.next);
    let header = SegmentHeader {
        shard: options.shard,
        begun: match (&found.cut, kept.is_empty()) {
            (Some(_), _) => Begun::Cut,
            _ if ahead => Begun::Ahead,
            (None, true) => Begun::Fresh,
            (None, false) => Begun::Restarted,
        },
        id: disk.random(),
        first: next,
        // Followers may hold what is lost here, so only an orderly end lets its term go on.
        term: if closed { found.term_max } else { next_term(found.term_max, disk.random()) },
        previous: kept.last().and_then(|last| last.any()).map_or(0, |header| header.id),
        previous_end: found.end_offset,
        durable: next.before(),
        open_from: next,
        time_ms: found.time_ms,
    };
    let (mut spares, mut spare_number) = spare::adopt(&*disk, &options)?;
    let spare = match spares.pop() {
        Some(spare) => spare,
        None => {
            spare_number += 1;
            spare::prepare(&*disk, &options, &spare::spare_path(dir, spare_number))?
        }
    };
    let path = segment_path(dir, next);
    spare.file.write_at(0, &header.encode()).map_err(io_error("writing", &spare.path))?;
    spare.file.sync_data().map_err(io_error("syncing", &spare.path))?;
    disk.rename(&spare.path, &path).map_err(io_error("renaming", &spare.path))?;
    disk.sync_dir(dir).map_err(io_error("syncing", dir))?;
    // Only now: until the new segment stands, its term must be known from what is dropped.
    for candidate in dropped.iter().filter(|candidate| candidate.path != path) {
        disk.remove(&candidate.path).map_err(io_error("removing", &candidate.path))?;
    }
    disk.sync_dir(dir).map_err(io_error("syncing", dir))?;
    let sealed = sealed(&kept, found.next, found.time_ms);
    let term = header.term;
    let beginning = Beginning {
        header,
        file: spare.file,
        path,
        sealed: sealed.into(),
        spares: spares.into(),
        spare_number,
    };
    let writer = Writer::new(disk, options, beginning);
    Ok(Recovered { writer, last: next.before(), cut: found.cut, ahead, term, term_kept: closed })
}

fn sealed(kept: &[&Candidate], next: Lsn, time_ms: u64) -> Vec<Sealed> {
    let followers = kept.iter().skip(1).map(|after| {
        let sealed_ms = after.any().map_or(time_ms, |header| header.time_ms);
        (after.first, sealed_ms)
    });
    let ends = followers.chain(std::iter::once((next, time_ms)));
    let all = kept.iter().zip(ends).map(|(candidate, (after, sealed_ms))| Sealed {
        first: candidate.first,
        last: after.before(),
        path: candidate.path.clone(),
        open_from: candidate.any().map_or(candidate.first, |header| header.open_from),
        time_ms: sealed_ms,
    });
    all.collect()
}

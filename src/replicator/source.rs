//! What a shard's log holds of which slot, and its records from a place on.
//!
//! Reads the files of a log that grows meanwhile. Must not know who wants to know.

use crate::binlog::{LogError, Lsn, Reader, RealDisk, Record, Segment, footers, segments};
use crate::replica::history::History;
use crate::replica::keys::{Branches, Rewind};
use crate::replica::position::SlotName;
use crate::replica::primary::{Held, Indexed, Logged};
use crate::store::effects::{Origin, origin};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The segments of a log up to `published`, oldest first; without those at its beginning that hold the ends of
/// records whose beginnings have gone: who reads cannot begin there. A segment without a footer is read through: for a
/// thread that may wait.
pub fn index(dir: &Path, published: Lsn) -> Result<Vec<Indexed>, LogError> {
    let headers = segments(&RealDisk, dir)?.into_iter().filter_map(|segment: Segment| segment.header);
    let mut headers = headers.filter(|header| header.first <= published).peekable();
    let oldest = headers.peek().map_or(Lsn::ZERO, |header| header.first);
    let all: Vec<Lsn> =
        headers.skip_while(|header| header.open_from < oldest).map(|header| header.first).collect();
    let mut sealed: FxHashMap<Lsn, _> = footers(&RealDisk, dir)?.into_iter().collect();
    let mut indexed = Vec::with_capacity(all.len());
    for (at, &first) in all.iter().enumerate() {
        let slots = match sealed.remove(&first) {
            Some(footer) => {
                let held = |line: &crate::binlog::FooterLine| Held {
                    first_index: line.first_index,
                    last_index: line.last_index,
                    last_term: line.last_term,
                };
                footer.lines.iter().map(|(table, slot, line)| ((*table, *slot), held(line))).collect()
            }
            None => {
                let next = all.get(at + 1).map_or(published, |next| next.before());
                read_through(dir, first, next.min(published))?
            }
        };
        indexed.push(Indexed { first, slots });
    }
    Ok(indexed)
}

fn read_through(dir: &Path, from: Lsn, upto: Lsn) -> Result<FxHashMap<SlotName, Held>, LogError> {
    let mut slots: FxHashMap<SlotName, Held> = FxHashMap::default();
    let mut reader = Reader::open(Arc::new(RealDisk), dir, from)?;
    while let Some(record) = reader.next(upto)? {
        for touch in record.touches {
            let new = Held { first_index: touch.index, last_index: touch.index, last_term: touch.term };
            let held = slots.entry((touch.table, touch.slot)).or_insert(new);
            (held.last_index, held.last_term) = (touch.index, touch.term);
        }
    }
    Ok(slots)
}

/// Shows every record of a log up to `upto`, oldest first. None: some are missing here, because the log has let them
/// go or cannot be read there. For a thread that may wait.
pub fn walk(
    dir: &Path,
    upto: Lsn,
    mut show: impl FnMut(Option<&Record<'_>>) -> Result<(), String>,
) -> Result<(), String> {
    let failed = |error: LogError| error.to_string();
    let mut next = Lsn::ZERO;
    for segment in segments(&RealDisk, dir).map_err(failed)? {
        if segment.first < next || segment.first > upto {
            continue;
        }
        let mut reader = match Reader::open(Arc::new(RealDisk), dir, segment.first) {
            Ok(reader) => reader,
            Err(error) => {
                show_missing(error, &mut show)?;
                continue;
            }
        };
        loop {
            match reader.next(upto) {
                Ok(Some(record)) => {
                    next = record.lsn.next();
                    show(Some(&record))?;
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    show_missing(error, &mut show)?;
                    break;
                }
            }
        }
        next = next.max(reader.position());
    }
    Ok(())
}

fn show_missing(
    error: LogError,
    show: &mut impl FnMut(Option<&Record<'_>>) -> Result<(), String>,
) -> Result<(), String> {
    match error {
        LogError::Gone(_) => {}
        LogError::Damage { .. } | LogError::Unknown { .. } => {
            tracing::warn!(%error, "an old part of the log cannot be read");
        }
        error => return Err(error.to_string()),
    }
    show(None)
}

/// What a log holds up to `upto` of the histories of these slots. For a thread that may wait.
pub fn trace(dir: &Path, upto: Lsn, slots: &[SlotName]) -> Result<FxHashMap<SlotName, History>, String> {
    let mut histories: FxHashMap<SlotName, History> =
        slots.iter().map(|slot| (*slot, History::default())).collect();
    walk(dir, upto, |record| {
        let Some(record) = record else {
            histories.values_mut().for_each(|history| *history = History::default());
            return Ok(());
        };
        let copied = origin(record.body) == Some(Origin::COPY);
        for touch in record.touches {
            if let Some(history) = histories.get_mut(&(touch.table, touch.slot)) {
                history.note(touch, copied);
            }
        }
        Ok(())
    })?;
    histories.retain(|_, history| *history != History::default());
    Ok(histories)
}

/// In which keys these slots may differ from a follower's, as far as the log goes up to `upto`. For a thread that
/// may wait.
pub fn branches(
    dir: &Path,
    upto: Lsn,
    rewinds: Vec<Rewind>,
) -> Result<FxHashMap<SlotName, Vec<Bytes>>, String> {
    let mut branches = Branches::new(rewinds);
    walk(dir, upto, |record| {
        match record {
            Some(record) => {
                let copied = origin(record.body) == Some(Origin::COPY);
                branches.look(record.touches, record.body, copied);
            }
            None => branches.lose(),
        }
        Ok(())
    })?;
    Ok(branches.find())
}

/// A place in a log, kept from one reading to the next.
pub struct Tail {
    dir: PathBuf,
    reader: Option<Reader>,
}

/// How a reading ended.
pub enum End {
    /// All records up to here have been shown.
    UpTo(Lsn),
    /// The log begins later.
    Gone,
}

impl Tail {
    pub fn new(dir: PathBuf) -> Tail {
        Tail { dir, reader: None }
    }

    /// Shows the records at `from` and behind, none later than `published`, about so many bytes of them.
    pub fn read(
        &mut self,
        from: Lsn,
        bytes: usize,
        published: Lsn,
        mut show: impl FnMut(Logged),
    ) -> Result<End, LogError> {
        let gone = |error| match error {
            LogError::Gone(_) => Ok(End::Gone),
            error => Err(error),
        };
        let kept = self.reader.take().filter(|reader| reader.position() == from);
        let mut reader = match kept.map_or_else(|| Reader::open(Arc::new(RealDisk), &self.dir, from), Ok) {
            Ok(reader) => reader,
            Err(error) => return gone(error),
        };
        let (mut shown, mut upto) = (0, from.before());
        while shown < bytes {
            let record = match reader.next(published) {
                Ok(Some(record)) => record,
                Ok(None) => {
                    upto = upto.max(published);
                    break;
                }
                Err(error) => return gone(error),
            };
            upto = record.lsn;
            let record = Logged {
                lsn: record.lsn,
                time_ms: record.time_ms,
                touches: SmallVec::from_slice(record.touches),
                txn: record.txn.cloned(),
                body: Bytes::copy_from_slice(record.body),
            };
            shown += record.room_bytes();
            show(record);
        }
        self.reader = Some(reader);
        Ok(End::UpTo(upto))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::{self, FrameMeta, LogOptions, Touch, Writer};
    use crate::slot::{ShardId, Slot, TableId};

    const SLOT: SlotName = (TableId(0), Slot(1));

    fn begin_segment(writer: &mut Writer) {
        writer.write().expect("there is room");
        if let Some(job) = writer.reserve_job() {
            writer.reserved(job.run().expect("there is room"));
        }
        writer.begin_term(writer.term() + 1);
    }

    #[test]
    fn a_log_whose_oldest_segment_holds_the_end_of_a_record_begins_behind_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = LogOptions {
            segment_bytes: 1 << 18,
            piece_bytes: 1 << 12,
            ..LogOptions::new(dir.path(), ShardId(0))
        };
        let opened = binlog::open(Arc::new(RealDisk), options, Lsn::ZERO, None, &mut |_| Ok(()));
        let mut writer = opened.expect("a new log").writer;
        let touch = |index| [Touch { table: SLOT.0, slot: SLOT.1, index, term: 1 << 50 }];
        // Each term begins a segment.
        let group = writer.begin_group(7, &[&[1, 1]]);
        writer.append(&FrameMeta { touches: &touch(1), txn: None }, 7, &[&[1, 1]]);
        begin_segment(&mut writer);
        writer.end_group(group, &FrameMeta { touches: &touch(2), txn: None }, 7, &[&[1, 1]]);
        begin_segment(&mut writer);
        writer.append(&FrameMeta { touches: &touch(3), txn: None }, 7, &[&[1, 1]]);
        writer.write().expect("there is room");
        let firsts = || -> Vec<Lsn> {
            index(dir.path(), Lsn(4)).expect("it can be read").iter().map(|part| part.first).collect()
        };
        let read = |from| {
            let mut lsns = Vec::new();
            let end =
                Tail::new(dir.path().into()).read(from, 1 << 20, Lsn(4), |record| lsns.push(record.lsn));
            (lsns, matches!(end, Ok(End::UpTo(_))))
        };
        assert_eq!(firsts(), [Lsn(1), Lsn(3), Lsn(4)]);
        assert_eq!(read(Lsn(1)), (vec![Lsn(2), Lsn(3), Lsn(4)], true));
        let whole = trace(dir.path(), Lsn(4), &[SLOT]).expect("it can be read");
        assert!(whole[&SLOT].whole);
        let oldest = segments(&RealDisk, dir.path()).expect("it can be read").remove(0).path;
        std::fs::remove_file(oldest).expect("it is there");
        assert_eq!(firsts(), [Lsn(4)], "of the record that ends at 3 the beginning is gone");
        assert_eq!(read(Lsn(3)), (vec![], false));
        assert_eq!(read(firsts()[0]), (vec![Lsn(4)], true));
        let rest = trace(dir.path(), Lsn(4), &[SLOT]).expect("it can be read");
        assert!(!rest[&SLOT].whole && rest[&SLOT].ends.len() == 1);
    }
}

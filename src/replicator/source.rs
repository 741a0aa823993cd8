//! What a shard's log holds of which slot, and its records from a place on.
//!
//! Reads the files of a log that grows meanwhile. Must not know who wants to know.

use crate::binlog::{LogError, Lsn, Reader, RealDisk, Segment, footers, segments};
use crate::replica::position::SlotName;
use crate::replica::primary::{Held, Indexed, Logged};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The segments of a log up to `published`, oldest first. A segment without a footer is read through: for a
/// thread that may wait.
pub fn index(dir: &Path, published: Lsn) -> Result<Vec<Indexed>, LogError> {
    let all: Vec<Lsn> = segments(&RealDisk, dir)?
        .into_iter()
        .filter(|segment| segment.header.is_some() && segment.first <= published)
        .map(|Segment { first, .. }| first)
        .collect();
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
            shown += record.body.len() + RECORD_HEAD_BYTES;
            show(Logged {
                lsn: record.lsn,
                time_ms: record.time_ms,
                touches: SmallVec::from_slice(record.touches),
                txn: record.txn.cloned(),
                body: Bytes::copy_from_slice(record.body),
            });
        }
        self.reader = Some(reader);
        Ok(End::UpTo(upto))
    }
}

/// What a record takes beside its body, about.
const RECORD_HEAD_BYTES: usize = 64;

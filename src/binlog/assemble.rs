//! From frames to records: groups of frames become one record at their END.
//!
//! Must not know files. A group without its END counts for nothing.

use super::frame::{Frame, Place, Touch, Txn};
use super::segment::{Begun, SegmentHeader};
use super::{Lsn, Record};
use rustc_hash::FxHashMap;

#[derive(Default)]
struct Started {
    touches: Vec<Touch>,
    body: Vec<u8>,
}

/// Holds the groups that are open, and the record that was completed last.
pub(crate) struct Assembler {
    /// Groups that end before this may have begun before the first frame fed.
    whole_from: Lsn,
    open: FxHashMap<Lsn, Started>,
    lsn: Lsn,
    first: Lsn,
    term: u64,
    time_ms: u64,
    touches: Vec<Touch>,
    txn: Option<Txn>,
    body: Vec<u8>,
}

impl Assembler {
    /// Every record from `whole_from` on must be complete.
    pub fn new(whole_from: Lsn) -> Assembler {
        Assembler {
            whole_from,
            open: FxHashMap::default(),
            lsn: Lsn::ZERO,
            first: Lsn::ZERO,
            term: 0,
            time_ms: 0,
            touches: Vec::new(),
            txn: None,
            body: Vec::new(),
        }
    }

    /// The frames that follow are of this segment: groups that its writer did not know open have no END.
    pub fn begin_segment(&mut self, header: &SegmentHeader) {
        self.term = header.term;
        match header.begun {
            Begun::Rolled => self.open.retain(|first, _| *first >= header.open_from),
            Begun::Fresh | Begun::Restarted | Begun::Cut | Begun::Ahead => self.open.clear(),
        }
    }

    /// Takes the next frame; whether it completed a record. The text says what cannot be.
    pub fn feed(&mut self, frame: Frame<'_>) -> Result<bool, String> {
        let lsn = frame.header.lsn;
        match frame.place {
            Place::Cont(group) => {
                if group == lsn {
                    self.open.insert(group, Started::default());
                }
                if let Some(started) = self.open.get_mut(&group) {
                    started.touches.extend_from_slice(&frame.touches);
                    started.body.extend_from_slice(frame.body);
                }
                return Ok(false);
            }
            Place::End(group) => match self.open.remove(&group) {
                Some(mut started) => {
                    started.touches.extend_from_slice(&frame.touches);
                    started.body.extend_from_slice(frame.body);
                    self.first = group;
                    self.touches = started.touches;
                    self.body = started.body;
                }
                None if lsn < self.whole_from => return Ok(false),
                None => {
                    return Err(format!("LSN {} ends a group whose start {} is not there", lsn.0, group.0));
                }
            },
            Place::Alone => {
                self.first = lsn;
                self.touches = frame.touches;
                self.body.clear();
                self.body.extend_from_slice(frame.body);
            }
        }
        self.lsn = lsn;
        self.time_ms = frame.header.time_ms;
        self.txn = frame.txn;
        Ok(true)
    }

    /// The record that the last `feed` completed.
    pub fn record(&self) -> Record<'_> {
        Record {
            lsn: self.lsn,
            first: self.first,
            term: self.term,
            time_ms: self.time_ms,
            touches: &self.touches,
            txn: self.txn.as_ref(),
            body: &self.body,
        }
    }
}

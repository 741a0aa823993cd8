//! Everything that one shard's log holds, whether a start needs it or not.

use crate::binlog::segment::SegmentHeader;
use crate::binlog::{self, LogError, LogOptions, Lsn, RealDisk, Record, Segment, Txn};
use crate::slot::ShardId;
use crate::store::effects::BodyReader;
use bytes::Bytes;
use std::fs;
use std::path::Path;

/// A log as it lies there.
#[derive(Default)]
pub struct LogReport {
    pub segments: Vec<(Segment, u64)>,
    pub spares: usize,
    /// First and last LSN that was read.
    pub lsns: Option<(u64, u64)>,
    pub records: u64,
    pub wholes: u64,
    pub parts: u64,
    /// What cannot be read, with file and offset.
    pub damage: Vec<String>,
}

/// The log's options as far as reading needs them.
pub fn options(dir: &Path, shard: ShardId) -> LogOptions {
    let mut options = LogOptions::new(dir.join("log"), shard);
    // A repair makes a segment: of the size that those before it have.
    let newest = binlog::segments(&RealDisk, &options.dir).ok().and_then(|all| all.last().cloned());
    if let Some(newest) = newest
        && let Ok(found) = fs::metadata(&newest.path)
        && found.len() >= 1 << 20
    {
        options.segment_bytes = found.len();
        options.piece_bytes = LogOptions::PIECE_BYTES.min(found.len() as usize / 8);
    }
    options
}

impl LogReport {
    /// Reads all of it from its oldest segment on.
    pub fn new(options: &LogOptions) -> LogReport {
        let mut report = LogReport::default();
        if let Err(error) = report.read(options) {
            report.damage.push(error.to_string());
        }
        if let Err(error) = binlog::footers(&RealDisk, &options.dir)
            && report.damage.is_empty()
        {
            report.damage.push(error.to_string());
        }
        report
    }

    fn read(&mut self, options: &LogOptions) -> Result<(), LogError> {
        let segments = binlog::segments(&RealDisk, &options.dir)?;
        let oldest = segments.first().map_or(Lsn(1), |segment| segment.first);
        let sized = segments.into_iter().map(|segment| {
            let bytes = fs::metadata(&segment.path).map_or(0, |found| found.len());
            (segment, bytes)
        });
        self.segments = sized.collect();
        self.spares = spares(&options.dir);
        let mut look = |record: &Record<'_>| {
            self.records += 1;
            self.lsns = Some((self.lsns.map_or(record.first.0, |(first, _)| first), record.lsn.0));
            match record.txn {
                Some(Txn::Whole { .. }) => self.wholes += 1,
                Some(Txn::Part { .. }) => self.parts += 1,
                None => {}
            }
            for operation in BodyReader::new(Bytes::copy_from_slice(record.body))? {
                operation?;
            }
            Ok(())
        };
        binlog::examine(&RealDisk, options, oldest.before(), None, &mut look).map(drop)
    }

    /// The newest segment's header.
    pub fn newest(&self) -> Option<&SegmentHeader> {
        self.segments.last().and_then(|(segment, _)| segment.header.as_ref())
    }
}

fn spares(dir: &Path) -> usize {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("spare-")).count()
}

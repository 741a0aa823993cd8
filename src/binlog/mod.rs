//! The log of one shard: what a crash is recovered from, and what replicas read. The only log.
//!
//! Frames in segments, appended once per turn; the layout is in FORMAT.md. Blocking file calls only.
//! Must not know an executor, RocksDB, or what a frame's body means.

mod assemble;
pub mod disk;
pub mod frame;
pub mod reader;
pub mod recover;
pub mod segment;
#[cfg(test)]
pub mod sim;
pub mod spare;
#[cfg(test)]
mod tests;
pub mod writer;

pub use disk::{Disk, DiskFile, RealDisk};
pub use frame::{FrameMeta, Participant, Touch, Txn};
pub use reader::{Reader, Segment, footers, segments};
pub use recover::{Cut, Examined, Recovered, Replay, examine, open};
pub use segment::FooterLine;
pub use spare::{ReserveDone, ReserveJob, SyncDone, SyncJob};
pub use writer::{Group, Writer, Written};

use crate::slot::ShardId;
use std::io;
use std::path::{Path, PathBuf};

/// From where a log is to be read, and what RocksDB's files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Records behind this one are replayed.
    pub after: Lsn,
    /// The files hold something of every record up to here, so these numbers are taken. Never before `after`.
    pub persisted: Lsn,
}

impl From<Lsn> for Resume {
    /// The files hold everything up to here, and nothing behind it.
    fn from(persisted: Lsn) -> Resume {
        Resume { after: persisted, persisted }
    }
}

/// Number of a frame in one shard's log: the first is 1, each next one more; 0 stands before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first frame.
    pub const ZERO: Lsn = Lsn(0);

    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    pub fn before(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

/// How many bits of a term are chance: enough that no two of a fleet's terms meet. Above them it counts.
pub const TERM_CHANCE_BITS: u32 = 40;

/// A term above `max` that no other node is likely to choose when it goes on from the same one. `chance`: any
/// random number.
pub fn next_term(max: u64, chance: u64) -> u64 {
    ((max >> TERM_CHANCE_BITS) + 1) << TERM_CHANCE_BITS | chance & ((1 << TERM_CHANCE_BITS) - 1)
}

/// What one command, EXEC or script did on this shard, as it stands in the log.
#[derive(Debug)]
pub struct Record<'a> {
    /// Its position: the number of its frame, or of the frame that ended its group.
    pub lsn: Lsn,
    /// The number of its first frame: differs from `lsn` only for a group.
    pub first: Lsn,
    /// The shard's term when it was written.
    pub term: u64,
    pub time_ms: u64,
    pub touches: &'a [Touch],
    pub txn: Option<&'a Txn>,
    pub body: &'a [u8],
}

/// How a shard's log is kept. All bounds are the caller's.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub dir: PathBuf,
    pub shard: ShardId,
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// Bodies above this travel as a group of frames.
    pub piece_bytes: usize,
    /// What `has_room` promises: no more than this may be appended between two calls of it.
    pub turn_bytes_max: u64,
    /// Segments prepared ahead.
    pub reserve_segments: usize,
    /// Above this, sealed segments that recovery does not need go, whoever reads them.
    pub retain_bytes: u64,
    /// Sealed segments that nobody needs go when older than this.
    pub retain_hours: u64,
}

impl LogOptions {
    pub const PIECE_BYTES: usize = 256 << 10;
    pub const SEGMENT_BYTES: u64 = 64 << 20;

    pub fn new(dir: impl Into<PathBuf>, shard: ShardId) -> LogOptions {
        LogOptions {
            dir: dir.into(),
            shard,
            segment_bytes: Self::SEGMENT_BYTES,
            piece_bytes: Self::PIECE_BYTES,
            turn_bytes_max: 16 << 20,
            reserve_segments: 1,
            retain_bytes: 1 << 30,
            retain_hours: 24,
        }
    }

    /// Touches a single frame may carry, so that it and its lines in the footer fit any segment.
    pub(crate) fn touches_max(&self) -> usize {
        4096.min(self.segment_bytes as usize / 256)
    }

    fn check(&self) -> Result<(), LogError> {
        let fits = self.segment_bytes >= 4 * (self.piece_bytes as u64 + segment::HEADER_BYTES as u64)
            && self.segment_bytes <= u64::from(u32::MAX)
            && self.piece_bytes > 0
            && self.reserve_segments > 0;
        if fits { Ok(()) } else { Err(LogError::Options(format!("{self:?}"))) }
    }
}

/// Why the log cannot be opened, read or written. A failed write or sync is fatal for the process: what
/// the kernel still holds can no longer be trusted.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path}, offset {offset}: damaged: {why}")]
    Damage { path: PathBuf, offset: u64, why: String },
    #[error("{path}, offset {offset}: written by a newer version: {what}")]
    Unknown { path: PathBuf, offset: u64, what: String },
    #[error("the log options contradict each other: {0}")]
    Options(String),
    #[error("the log no longer holds LSN {0:?}")]
    Gone(Lsn),
    #[error("replaying LSN {0:?}: {1}")]
    Replay(Lsn, Box<dyn std::error::Error + Send + Sync>),
}

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_path_buf();
    move |source| LogError::Io { doing, path, source }
}

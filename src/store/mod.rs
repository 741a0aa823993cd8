//! The room that says RocksDB: keys, rows, batches, reads from memory or disk, scans, sealing, erasing.
//!
//! One `Store` per shard, owned by one core; a `Reader` for the pool. Knows no executor, no log and no
//! placement. The bytes on disk are settled in FORMAT.md.

mod batch;
mod copy;
mod db;
mod digest;
pub mod effects;
mod erase;
mod filter;
mod inspect;
mod intake;
mod key;
mod options;
pub mod row;
mod scan;
mod slots;
#[cfg(test)]
mod tests;
pub mod tx;
mod value;
pub mod varint;

pub use batch::Batch;
pub use copy::{Entry, EntryParts};
pub use db::{Cached, Pin, Pressure, Reader, SealDone, SealJob, Sealed, Store, WriteError, Writing};
pub use digest::Digest;
pub use erase::{CompactJob, Compacted, DeadElements, EraseJob, Erased};
pub use inspect::{Content, Inspected, StoreHead};
pub use intake::{Files, IntakeJob, NotTaken, Piece};
pub use key::{ElementKey, ElementRange, Incarnation, Key, NAME_MAX_BYTES, Wanted, element_head};
pub use options::{SharedMemory, StoreOptions};
pub use row::Row;
pub use scan::{Counted, Due, DueScan, RowHead, RowItem, RowScan, Step, View};
pub use slots::SlotEntry;
pub use value::copied;

/// Version of a store's directory as a whole; a higher one is refused. See FORMAT.md.
pub const DIRECTORY_FORMAT: u32 = 1;

/// Why the store could not do what it was asked. Never a client's mistake.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{doing}: {cause}")]
    RocksDb { doing: &'static str, cause: String },
    #[error("the store in {dir} has format {found}; this program knows up to {DIRECTORY_FORMAT}")]
    Newer { dir: String, found: u32 },
    #[error("{dir} holds a RocksDB database that is not a store of this program")]
    Foreign { dir: String },
    #[error("{what} cannot be read: {why} (key {key})")]
    Damaged { what: &'static str, why: String, key: String },
}

impl StoreError {
    fn of(doing: &'static str) -> impl FnOnce(rocksdb::Error) -> StoreError {
        move |error| StoreError::RocksDb { doing, cause: error.into_string() }
    }

    fn damaged(what: &'static str, why: impl ToString, key: &[u8]) -> StoreError {
        StoreError::Damaged { what, why: why.to_string(), key: key.escape_ascii().to_string() }
    }
}

impl From<StoreError> for crate::error::Stop {
    fn from(error: StoreError) -> crate::error::Stop {
        crate::error::Stop::Fault(error.to_string())
    }
}

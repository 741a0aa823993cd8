//! The records of a directory's logs, oldest first, shard by shard.
//!
//! Must not know nodes that run.

use super::line::{self, Frame, Shown};
use super::{Options, dropped, is_broken_pipe};
use crate::binlog::{self, LogError, Lsn, RealDisk, Record, Touch};
use crate::check;
use crate::server::datadir::DataDir;
use crate::slot::{ShardId, Slot, TableId};
use bytes::Bytes;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

/// Of a value that is printed for people to read.
const VALUE_BYTES: usize = 256;

/// Prints what was chosen.
pub fn print(path: &Path, options: &Options) -> ExitCode {
    let from = match options.from.as_deref().map_or(Ok(1), str::parse) {
        Ok(lsn) => Lsn(lsn),
        Err(_) => {
            eprintln!("haypile: --from: of a directory, an LSN");
            return ExitCode::from(2);
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if let Some(file) = dropped::records_of(path) {
        return dropped::print(&file, from, options, &mut out);
    }
    let Some(dir) = check::open_dir(path) else { return ExitCode::from(2) };
    let shards = (0..dir.identity.shards).filter(|shard| options.shard.is_none_or(|only| only == *shard));
    let mut code = ExitCode::SUCCESS;
    for shard in shards.map(ShardId) {
        if let Err(error) = print_shard(&mut out, &dir, shard, from, options) {
            if is_broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("haypile: shard {}: {error}", shard.0);
            code = ExitCode::FAILURE;
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("haypile: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

fn print_shard(
    out: &mut dyn Write,
    dir: &DataDir,
    shard: ShardId,
    from: Lsn,
    wanted: &Options,
) -> Result<(), LogError> {
    let options = check::log::options(&dir.shard(shard.0), shard);
    let segments = binlog::segments(&RealDisk, &options.dir)?;
    let Some(oldest) = segments.first() else { return Ok(()) };
    let mut print = |record: &Record<'_>| {
        if wanted.holds(record.time_ms, record.touches) {
            let frame = Frame { term: record.term, first: record.first, txn: record.txn };
            let shown = Shown {
                shard,
                lsn: record.lsn,
                time_ms: record.time_ms,
                touches: record.touches,
                body: Bytes::copy_from_slice(record.body),
                frame: Some(frame),
            };
            let line = line::record(&shown, wanted.shown_bytes())?;
            writeln!(out, "{line}")?;
        }
        Ok(())
    };
    let from = from.max(oldest.first);
    binlog::examine(&RealDisk, &options, from.before(), None, &mut print).map(drop)
}

impl Options {
    pub(super) fn shown_bytes(&self) -> usize {
        self.value_bytes.unwrap_or(VALUE_BYTES)
    }

    pub(super) fn holds(&self, time_ms: u64, touches: &[Touch]) -> bool {
        let touched = |touch: &Touch| {
            self.table.is_none_or(|table| TableId(table) == touch.table)
                && self.slot.is_none_or(|slot| Slot(slot) == touch.slot)
        };
        let in_time =
            self.since.is_none_or(|since| time_ms >= since) && self.until.is_none_or(|until| time_ms < until);
        in_time && (self.table.is_none() && self.slot.is_none() || touches.iter().any(touched))
    }
}

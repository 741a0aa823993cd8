//! Work for other threads: syncing what is written, preparing segments ahead, retiring old ones.
//!
//! A spare segment is a file of full size whose blocks have been written, so that appending to it
//! changes no extent and fdatasync has little to do. Must not know frames.

use super::disk::{Disk, DiskFile};
use super::{LogError, LogOptions, Lsn, io_error};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static ZEROES: [u8; 1 << 18] = [0; 1 << 18];

/// A prepared segment file under a name of its own; its content is of no segment.
pub(crate) struct Spare {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
}

/// Makes what was written up to an LSN durable. `run` blocks.
pub struct SyncJob {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// Oldest first: no frame is durable before all those in front of it are.
    pub(crate) files: Vec<(Arc<dyn DiskFile>, PathBuf)>,
    pub(crate) sync_dir: bool,
    pub(crate) upto: Lsn,
    /// What the newest of the files holds by now: a job that had to wait for others makes that durable too.
    pub(crate) in_file: Arc<AtomicU64>,
    /// More is about to come, and may come along.
    pub(crate) waits: bool,
}

/// How long a sync waits for what is about to come: a part of what it takes itself, on a device that is quick.
const COMPANY_WAIT: Duration = Duration::from_micros(100);

/// Proof that everything up to an LSN is durable.
#[derive(Debug)]
pub struct SyncDone {
    pub(crate) upto: Lsn,
    pub took: Duration,
}

impl SyncJob {
    /// An error is fatal: a second try could succeed without the data being there.
    pub fn run(self) -> Result<SyncDone, LogError> {
        if self.waits {
            std::thread::sleep(COMPANY_WAIT);
        }
        let began = Instant::now();
        // Looked at before the sync begins: what is written meanwhile may not be in it.
        let upto = self.upto.max(Lsn(self.in_file.load(Ordering::Acquire)));
        for (file, path) in &self.files {
            file.sync_data().map_err(io_error("syncing", path))?;
        }
        if self.sync_dir {
            self.disk.sync_dir(&self.dir).map_err(io_error("syncing", &self.dir))?;
        }
        Ok(SyncDone { upto, took: began.elapsed() })
    }
}

/// Retires old segments and prepares spare ones. `run` blocks.
pub struct ReserveJob {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: LogOptions,
    /// Old segments that nobody needs: made spares, or removed.
    pub(crate) retired: Vec<PathBuf>,
    pub(crate) wanted: usize,
    /// Names of spares not used before.
    pub(crate) number: u64,
}

/// Spares that a job has prepared.
pub struct ReserveDone {
    pub(crate) spares: Vec<Spare>,
}

impl ReserveJob {
    /// An error changes nothing about what is written: ask for another job later.
    pub fn run(mut self) -> Result<ReserveDone, LogError> {
        let (disk, dir) = (self.disk.clone(), self.options.dir.clone());
        let mut spares = Vec::new();
        for old in std::mem::take(&mut self.retired) {
            let file = disk.open(&old).map_err(io_error("opening", &old))?;
            let whole = file.size().map_err(io_error("reading", &old))? == self.options.segment_bytes;
            if whole && spares.len() < self.wanted {
                let path = self.next_path();
                disk.rename(&old, &path).map_err(io_error("renaming", &old))?;
                spares.push(Spare { file, path });
            } else {
                disk.remove(&old).map_err(io_error("removing", &old))?;
            }
        }
        // A spare that still had its old name after a crash would be taken for that old segment.
        disk.sync_dir(&dir).map_err(io_error("syncing", &dir))?;
        while spares.len() < self.wanted {
            let path = self.next_path();
            match prepare(&*disk, &self.options, &path) {
                Ok(spare) => spares.push(spare),
                Err(error) if spares.is_empty() => return Err(error),
                // What there is, is of use; the rest is asked for again.
                Err(_) => break,
            }
        }
        Ok(ReserveDone { spares })
    }

    fn next_path(&mut self) -> PathBuf {
        self.number += 1;
        spare_path(&self.options.dir, self.number)
    }
}

pub(crate) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("spare-{number}"))
}

/// Writes a new file full of zeroes, durably.
pub(crate) fn prepare(disk: &dyn Disk, options: &LogOptions, path: &Path) -> Result<Spare, LogError> {
    let file = disk.create(path).map_err(io_error("creating", path))?;
    if let Err(error) = zero(&*file, options.segment_bytes) {
        // Gives back the room it took.
        disk.remove(path).map_err(io_error("removing what could not be prepared:", path))?;
        return Err(io_error("preparing", path)(error));
    }
    disk.sync_dir(&options.dir).map_err(io_error("syncing", &options.dir))?;
    Ok(Spare { file, path: path.to_path_buf() })
}

fn zero(file: &dyn DiskFile, bytes: u64) -> std::io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let n = (bytes - at).min(ZEROES.len() as u64);
        file.write_at(at, &ZEROES[..n as usize])?;
        at += n;
    }
    file.sync_data()
}

/// The spares an earlier process left, and the first number no spare has.
pub(crate) fn adopt(disk: &dyn Disk, options: &LogOptions) -> Result<(Vec<Spare>, u64), LogError> {
    let dir = &options.dir;
    let (mut spares, mut last) = (Vec::new(), 0);
    for name in disk.list(dir).map_err(io_error("listing", dir))? {
        let Some(number) = name.strip_prefix("spare-").and_then(|digits| digits.parse::<u64>().ok()) else {
            continue;
        };
        last = last.max(number);
        let path = dir.join(&name);
        let file = disk.open(&path).map_err(io_error("opening", &path))?;
        if file.size().map_err(io_error("reading", &path))? == options.segment_bytes {
            // Its blocks may have been on their way when the process ended.
            file.sync_data().map_err(io_error("syncing", &path))?;
            spares.push(Spare { file, path });
        } else {
            disk.remove(&path).map_err(io_error("removing", &path))?;
        }
    }
    Ok((spares, last))
}

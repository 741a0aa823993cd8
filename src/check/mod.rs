//! `haypile check`: a data directory read offline.
//!
//! What a start would do is found by the functions that a start uses; nothing here is served, and nothing
//! is changed but by `--repair`. Must not know executors or commands.

pub mod log;
mod report;

use crate::binlog::{self, Lsn, RealDisk, Resume};
use crate::server::datadir::DataDir;
use crate::shard::open::{self, Seen};
use crate::slot::ShardId;
use crate::store::{Content, Incarnation, Inspected, StoreHead};
use clap::Parser;
use log::LogReport;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Reads a data directory that no server uses: every record of the logs, every block of data in the files.
#[derive(Parser)]
#[command(name = "haypile check", after_help = EXIT_CODES)]
struct Options {
    /// The data directory.
    #[arg(default_value = "./haypile-data")]
    dir: PathBuf,
    /// Cut torn tails off the logs, as the next start would. Changes nothing where anything else is wrong.
    #[arg(long)]
    repair: bool,
    /// List every slot that holds something, with its keys and bytes.
    #[arg(long)]
    slots: bool,
}

const EXIT_CODES: &str = "Exit code: 0 nothing is wrong (a torn tail is not: a start cuts it), 1 something is \
                          damaged, 2 the directory cannot be checked.";

/// Runs `haypile check` with these arguments.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = Options::parse_from(args);
    let Some(dir) = open_dir(&options.dir) else { return ExitCode::from(2) };
    let checked = Checked::new(&dir);
    let mut out = io::stdout().lock();
    let mut written = report::write(&mut out, &dir, &checked, options.slots);
    let damaged = checked.problems().next().is_some();
    if written.is_ok() && options.repair {
        written = match damaged {
            true => report::line(&mut out, "--repair: nothing is changed, it only cuts torn tails"),
            false => repair(&mut out, &dir, &checked),
        };
    }
    match written {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("haypile: {error}");
            ExitCode::from(2)
        }
        _ if damaged => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// A directory to look at. None: it cannot be, and that has been said.
pub fn open_dir(path: &Path) -> Option<DataDir> {
    DataDir::existing(path).inspect_err(|fault| eprintln!("haypile: {fault}")).ok()
}

/// All that was found.
struct Checked {
    shards: Vec<CheckedShard>,
    /// By shard: the first LSN that a start would not keep, if the logs can be read at all.
    ends: Option<Vec<u64>>,
}

struct CheckedShard {
    shard: ShardId,
    dir: PathBuf,
    store: Result<(StoreHead, BTreeMap<Incarnation, Content>), String>,
    log: LogReport,
    /// What a start would find in the log.
    seen: Result<Seen, String>,
}

impl CheckedShard {
    fn new(shard: ShardId, dir: PathBuf, shards: u16) -> CheckedShard {
        let store = Inspected::open(&dir.join("db"))
            .and_then(|store| Ok((store.head(shards)?, store.content()?)))
            .map_err(|error| error.to_string());
        let head = store.as_ref().map(|(head, _)| head.clone()).unwrap_or_default();
        let options = log::options(&dir, shard);
        let log = LogReport::new(&options);
        // Without knowing what the files hold, nothing can be said of what a start needs.
        let seen = match &store {
            Ok(_) => {
                open::look_at(&RealDisk, &options, resume(&head), head.whole_floor).map_err(|e| e.to_string())
            }
            Err(_) => Err("not looked at: the store cannot be read".to_owned()),
        };
        CheckedShard { shard, dir, store, log, seen }
    }

    fn problems(&self) -> impl Iterator<Item = &str> {
        let store = self.store.as_ref().err().into_iter().map(String::as_str);
        let seen = self.seen.as_ref().err().filter(|_| self.store.is_ok());
        // The same damage is met twice where a start would meet it too.
        let seen = seen.filter(|text| !self.log.damage.contains(text)).into_iter().map(String::as_str);
        store.chain(self.log.damage.iter().map(String::as_str)).chain(seen)
    }
}

impl Checked {
    fn new(dir: &DataDir) -> Checked {
        let count = dir.identity.shards;
        let shards: Vec<CheckedShard> =
            (0..count).map(|shard| CheckedShard::new(ShardId(shard), dir.shard(shard), count)).collect();
        let seen: Option<Vec<&Seen>> = shards.iter().map(|shard| shard.seen.as_ref().ok()).collect();
        let ends = seen.map(|seen| open::cut_what_depends_on_lost(&seen));
        Checked { shards, ends }
    }

    fn problems(&self) -> impl Iterator<Item = (ShardId, &str)> {
        self.shards.iter().flat_map(|shard| shard.problems().map(|problem| (shard.shard, problem)))
    }

    /// Where a start would cut this shard's log.
    fn cut_before(&self, at: usize) -> Option<u64> {
        let seen = self.shards[at].seen.as_ref().ok()?;
        let end = *self.ends.as_ref()?.get(at)?;
        (end < seen.end || seen.cut.is_some()).then_some(end.min(seen.end))
    }
}

fn resume(head: &StoreHead) -> Resume {
    Resume { after: Lsn(head.complete_lsn), persisted: Lsn(head.persisted_lsn) }
}

/// Cuts as a start does: what is not part of the log any more is superseded by a new segment.
fn repair(out: &mut dyn io::Write, dir: &DataDir, checked: &Checked) -> io::Result<()> {
    let mut cut_any = false;
    for (at, shard) in checked.shards.iter().enumerate() {
        let (Some(end), Ok((head, _))) = (checked.cut_before(at), &shard.store) else { continue };
        cut_any = true;
        let options = log::options(&dir.shard(shard.shard.0), shard.shard);
        let disk = Arc::new(RealDisk);
        let cut = shard.seen.as_ref().is_ok_and(|seen| end < seen.end).then_some(Lsn(end));
        let done = binlog::open(disk, options, resume(head), cut, &mut |_| Ok(()));
        let said = match done {
            Ok(_) => format!("--repair: shard {}: the log now ends before LSN {end}", shard.shard.0),
            Err(error) => format!("--repair: shard {}: {error}", shard.shard.0),
        };
        report::line(out, &said)?;
    }
    if cut_any { Ok(()) } else { report::line(out, "--repair: nothing is to be cut") }
}

/// The file's name alone: the shard's directory is said once.
fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

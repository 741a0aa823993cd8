//! Records that this node had and its new primary has not: kept in files before they are dropped.
//!
//! Each time is a directory below `dropped` in the data directory; the format is in `server/FORMAT.md`. Blocking file
//! calls: for a thread that may wait. Must not know why two histories have parted, nor links.

use super::source::walk;
use crate::binlog::{Lsn, Txn};
use crate::limits::{DROPPED_KEPT_MAX, DROPPED_KEPT_MAX_BYTES, REPLICA_READ_BYTES};
use crate::replica::encode::Encoder;
use crate::replica::history::{Diverged, Tail, Tails};
use crate::replica::keys::{Keys, Rewind};
use crate::replica::position::Position;
use crate::replica::wire::{Message, Record};
use crate::slot::ShardId;
use crate::store::effects::{Origin, origin};
use bytes::Bytes;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The file with the records: `HEAD`, then frames as between nodes (`replica/encode.rs`), each message a record.
pub const RECORDS: &str = "records";
pub const HEAD: &[u8] = b"haypile dropped 1\n";
const REPORT: &str = "report.toml";

/// Where dropped records are kept, and how many have been.
pub struct Dropped {
    dir: PathBuf,
    /// One at a time: who begins removes what an end in between has left half done.
    turn: Mutex<()>,
    tails: AtomicU64,
    records: AtomicU64,
    rewound_slots: AtomicU64,
    rewound_keys: AtomicU64,
}

/// A local shard's log.
pub struct Log {
    pub shard: ShardId,
    pub dir: PathBuf,
    /// Its last record.
    pub end: Lsn,
}

/// What `keep` has found and done.
pub struct Kept {
    /// None: there was nothing to keep.
    pub path: Option<PathBuf>,
    /// The same had been kept before.
    pub again: bool,
    pub tails: Vec<Tail>,
    /// Of these slots all that was dropped is known by its keys.
    pub rewinds: Vec<Rewind>,
    pub records: u64,
    /// Kept earlier, and removed to make room.
    pub removed: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    primary: &'a str,
    records: u64,
    slots: Vec<SlotReport>,
}

#[derive(Serialize)]
struct SlotReport {
    table: u32,
    slot: u16,
    had: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fork: Option<String>,
    records: u64,
    incomplete: bool,
}

impl Dropped {
    pub fn new(data_dir: &Path) -> Dropped {
        let [tails, records, rewound_slots, rewound_keys] = [0; 4].map(AtomicU64::new);
        let (dir, turn) = (data_dir.join("dropped"), Mutex::new(()));
        Dropped { dir, turn, tails, records, rewound_slots, rewound_keys }
    }

    /// How often something was kept since the start, and how many records.
    pub fn counts(&self) -> (u64, u64) {
        (self.tails.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed))
    }

    /// A slot was brought into its primary's history by so many of its keys.
    pub fn note_rewound(&self, keys: u64) {
        self.rewound_slots.fetch_add(1, Ordering::Relaxed);
        self.rewound_keys.fetch_add(keys, Ordering::Relaxed);
    }

    /// Slots that were, since the start, and the keys of all of them.
    pub fn rewound(&self) -> (u64, u64) {
        (self.rewound_slots.load(Ordering::Relaxed), self.rewound_keys.load(Ordering::Relaxed))
    }

    /// Finds in these logs what is to be dropped of these slots, and keeps it: on disk when this returns.
    pub fn keep(
        &self,
        primary: &str,
        slots: Vec<Diverged>,
        logs: &[Log],
        now_ms: u64,
    ) -> Result<Kept, String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tails = Tails::new(slots);
        for log in logs {
            walk(&log.dir, log.end, |record| {
                match record {
                    Some(record) => tails.look(record.lsn, record.touches, is_copy(record.body)),
                    None => tails.lose(),
                }
                Ok(())
            })?;
        }
        tails.find_forks();
        let failed = |error: io::Error| format!("{}: {error}", self.dir.display());
        let new = self.begin(now_ms).map_err(failed)?;
        let mut keys = Keys::of(tails.slots());
        let records = write_records(&new.join(RECORDS), &mut tails, &mut keys, logs)?;
        let tails = tails.tails();
        let rewinds = tails.iter().filter_map(|tail| rewind(tail, &mut keys)).collect();
        let mut kept = Kept { path: None, again: false, tails, rewinds, records, removed: Vec::new() };
        if records == 0 {
            fs::remove_dir_all(&new).map_err(failed)?;
            return Ok(kept);
        }
        self.finish(&new, primary, &mut kept).map_err(failed)?;
        Ok(kept)
    }

    fn begin(&self, now_ms: u64) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        for left in list(&self.dir, |name| name.ends_with(".new"))? {
            fs::remove_dir_all(left)?;
        }
        let free = |name: &u64| !self.dir.join(name.to_string()).exists();
        let name = (now_ms..).find(free).expect("names do not end");
        let new = self.dir.join(format!("{name}.new"));
        fs::create_dir(&new)?;
        Ok(new)
    }

    fn finish(&self, new: &Path, primary: &str, kept: &mut Kept) -> io::Result<()> {
        let text = report(primary, kept);
        let same = |dir: &PathBuf| fs::read(dir.join(REPORT)).is_ok_and(|known| known == text.as_bytes());
        if let Some(known) = self.kept()?.into_iter().find(same) {
            fs::remove_dir_all(new)?;
            (kept.path, kept.again) = (Some(known), true);
            return Ok(());
        }
        let mut file = File::create(new.join(REPORT))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(new)?.sync_all()?;
        let path = new.with_extension("");
        fs::rename(new, &path)?;
        File::open(&self.dir)?.sync_all()?;
        File::open(self.dir.parent().expect("it lies in the data directory"))?.sync_all()?;
        self.tails.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(kept.records, Ordering::Relaxed);
        kept.path = Some(path);
        kept.removed = self.make_room()?;
        Ok(())
    }

    /// What is kept, oldest first.
    fn kept(&self) -> io::Result<Vec<PathBuf>> {
        let mut kept = list(&self.dir, |name| name.parse::<u64>().is_ok())?;
        let moment = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        kept.sort_unstable_by_key(moment);
        Ok(kept)
    }

    /// Removes the oldest while there is too much; the newest stays whatever it takes.
    fn make_room(&self) -> io::Result<Vec<PathBuf>> {
        let mut kept = self.kept()?;
        let sizes = kept.iter().map(|dir| Ok(fs::metadata(dir.join(RECORDS))?.len()));
        let sizes: Vec<u64> = sizes.collect::<io::Result<_>>()?;
        let fits = |from: &usize| {
            kept.len() - from <= DROPPED_KEPT_MAX
                && sizes[*from..].iter().sum::<u64>() <= DROPPED_KEPT_MAX_BYTES
        };
        let last = kept.len().saturating_sub(1);
        let from = (0..last).find(fits).unwrap_or(last);
        kept.truncate(from);
        kept.iter().try_for_each(fs::remove_dir_all)?;
        Ok(kept)
    }
}

fn list(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_copy(body: &[u8]) -> bool {
    origin(body) == Some(Origin::COPY)
}

/// Writes what is dropped; how many records that are.
fn write_records(path: &Path, tails: &mut Tails, keys: &mut Keys, logs: &[Log]) -> Result<u64, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut out = BufWriter::new(File::create(path).map_err(failed)?);
    out.write_all(HEAD).map_err(failed)?;
    let (mut encoder, mut records) = (Encoder::default(), 0);
    let mut write = |encoder: &mut Encoder| -> Result<(), String> {
        encoder.take().iter().try_for_each(|piece| out.write_all(piece)).map_err(failed)
    };
    for Log { shard, dir, end } in logs {
        walk(dir, *end, |record| {
            let Some(record) = record else { return Ok(()) };
            let own = |term: u64| term == record.term;
            let touches = tails.dropped(record.lsn, record.touches, is_copy(record.body), own);
            if touches.is_empty() {
                return Ok(());
            }
            let is_whole = matches!(record.txn, Some(Txn::Whole { .. }));
            records += 1;
            let body = Bytes::copy_from_slice(record.body);
            keys.note(&touches, &body);
            encoder.push(&Message::Record(Record {
                stream: *shard,
                lsn: record.lsn,
                time_ms: record.time_ms,
                exact: touches.len() == record.touches.len() && !is_whole,
                touches,
                body,
            }));
            if encoder.len() < REPLICA_READ_BYTES { Ok(()) } else { write(&mut encoder) }
        })?;
    }
    write(&mut encoder)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(records)
}

/// Where all that is dropped of a slot is known, it need not be copied whole.
fn rewind(tail: &Tail, keys: &mut Keys) -> Option<Rewind> {
    let fork = tail.fork.at.filter(|_| !tail.incomplete)?;
    Some(Rewind { slot: tail.slot, fork, keys: keys.take(tail.slot)? })
}

fn report(primary: &str, kept: &Kept) -> String {
    let text = |at: Position| format!("{}.{}", at.term, at.index);
    let slot = |tail: &Tail| SlotReport {
        table: tail.slot.0.0,
        slot: tail.slot.1.0,
        had: text(tail.has),
        fork: tail.fork.at.map(text),
        records: tail.records,
        incomplete: tail.incomplete,
    };
    let slots = kept.tails.iter().map(slot).collect();
    let report = Report { format: 1, primary, records: kept.records, slots };
    toml::to_string(&report).expect("small numbers and texts are always TOML")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::{self, FrameMeta, LogOptions, RealDisk, TERM_CHANCE_BITS, Touch};
    use crate::replica::history::History;
    use crate::slot::{Slot, TableId};
    use std::sync::Arc;

    const TERM: u64 = 5 << TERM_CHANCE_BITS;

    fn at(index: u64) -> Position {
        Position { index, term: TERM }
    }

    /// A log with so many records of slot 1.
    fn log(dir: &Path, records: u64) -> Log {
        let (shard, dir) = (ShardId(0), dir.join("log"));
        let options =
            LogOptions { segment_bytes: 1 << 18, piece_bytes: 1 << 12, ..LogOptions::new(&dir, shard) };
        let opened = binlog::open(Arc::new(RealDisk), options, Lsn::ZERO, None, &mut |_| Ok(()));
        let mut writer = opened.expect("a new log").writer;
        for index in 1..=records {
            let touches = [Touch { table: TableId(0), slot: Slot(1), index, term: TERM }];
            writer.append(&FrameMeta { touches: &touches, txn: None }, 7, &[&[1, 1]]);
        }
        writer.write().expect("there is room");
        Log { shard, dir, end: Lsn(records) }
    }

    /// The primary has the slot up to this index.
    fn diverged(index: u64) -> Vec<Diverged> {
        let primarys = History { whole: true, ends: vec![at(index), Position { index: 90, term: TERM + 1 }] };
        vec![Diverged { slot: (TableId(0), Slot(1)), has: at(5), primarys }]
    }

    #[test]
    fn what_is_kept_is_kept_once_and_what_an_end_in_between_has_left_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let logs = [log(dir.path(), 5)];
        let left = dir.path().join("dropped/3.new");
        fs::create_dir_all(&left).expect("it is writable");
        let dropped = Dropped::new(dir.path());
        let keep =
            |index, now_ms| dropped.keep("host:1", diverged(index), &logs, now_ms).expect("there is room");
        let first = keep(3, 1000);
        assert_eq!((first.records, first.again), (2, false));
        assert_eq!(first.path, Some(dir.path().join("dropped/1000")));
        assert!(!left.exists());
        let again = keep(3, 2000);
        assert_eq!((again.path, again.again), (first.path, true));
        assert_eq!(dropped.counts(), (1, 2));
        assert_eq!(keep(2, 1000).path, Some(dir.path().join("dropped/1001")), "another at the same moment");
        assert_eq!(keep(5, 3000).path, None, "it is only behind");
        assert_eq!(dropped.kept().expect("it is there").len(), 2);
        assert_eq!(dropped.counts(), (2, 5));
    }

    #[test]
    fn the_oldest_make_room_and_the_newest_stays_whatever_it_takes() {
        let dir = tempfile::tempdir().expect("a directory");
        let dropped = Dropped::new(dir.path());
        let add = |name: u64, bytes: u64| {
            let kept = dir.path().join(format!("dropped/{name}"));
            fs::create_dir_all(&kept).expect("it is writable");
            File::create(kept.join(RECORDS)).expect("it is new").set_len(bytes).expect("holes take no room");
        };
        (1..=DROPPED_KEPT_MAX as u64 + 2).for_each(|name| add(name, 10));
        let names = |paths: Vec<PathBuf>| -> Vec<String> {
            paths
                .iter()
                .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names(dropped.make_room().expect("it is done")), ["1", "2"]);
        assert_eq!(dropped.make_room().expect("it is done"), Vec::<PathBuf>::new());
        add(100, DROPPED_KEPT_MAX_BYTES + 1);
        assert_eq!(dropped.make_room().expect("it is done").len(), DROPPED_KEPT_MAX);
        assert_eq!(names(dropped.kept().expect("it is there")), ["100"]);
    }

    #[test]
    fn a_log_that_begins_later_is_not_called_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut logs = [log(dir.path(), 5)];
        logs[0].dir = dir.path().join("empty");
        let kept = Dropped::new(dir.path()).keep("host:1", diverged(3), &logs, 1).expect("there is room");
        assert!(kept.path.is_none() && kept.tails[0].incomplete);
    }
}

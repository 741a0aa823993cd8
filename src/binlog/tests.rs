//! The log as a whole: what a power cut may take, what damage must be refused, what a reader sees.

use super::sim::SimDisk;
use super::*;
use crate::slot::{Slot, TableId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

const DIR: &str = "/log";

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 20 << 10,
        piece_bytes: 700,
        turn_bytes_max: 4 << 10,
        retain_bytes: 100 << 10,
        ..LogOptions::new(DIR, ShardId(7))
    }
}

fn touch(slot: u16, index: u64) -> Touch {
    Touch { table: TableId(1), slot: Slot(slot), index, term: 3 }
}

type Records = BTreeMap<u64, Vec<u8>>;

fn open_at(disk: &SimDisk, persisted: u64, cut: Option<u64>) -> Result<(Recovered, Records), LogError> {
    let mut records = Records::new();
    let mut last = 0;
    let recovered = open(Arc::new(disk.clone()), options(), Lsn(persisted), cut.map(Lsn), &mut |record| {
        assert!(record.lsn.0 > last && record.lsn.0 > persisted, "in order, and only what is not persisted");
        last = record.lsn.0;
        records.insert(last, record.body.to_vec());
        Ok(())
    })?;
    Ok((recovered, records))
}

fn open_new(disk: &SimDisk) -> Recovered {
    open_at(disk, 0, None).expect("an empty directory opens").0
}

fn append(writer: &mut Writer, body: &[u8]) -> u64 {
    let touches = [touch(body.len() as u16 % 5, writer.written_or_pending().0)];
    writer.append(&FrameMeta { touches: &touches, txn: None }, 1, &[body]).0
}

fn sync(writer: &mut Writer) {
    if let Some(job) = writer.sync_job() {
        let done = job.run().expect("the disk works");
        writer.synced(done);
    }
}

fn reserve(writer: &mut Writer) {
    if let Some(job) = writer.reserve_job() {
        let done = job.run().expect("the disk has room");
        writer.reserved(done);
    }
}

/// One life of a log after another, each ended by a power cut.
struct Lives {
    disk: SimDisk,
    random: StdRng,
    /// What has been appended and is not known to be lost.
    history: Records,
    durable: u64,
    /// What was written when the process was last killed, until a power cut.
    killed_at: u64,
    persisted: u64,
    term: u64,
    rolls: usize,
    cuts: usize,
}

impl Lives {
    fn new(seed: u64) -> Lives {
        let (disk, random) = (SimDisk::new(seed), StdRng::seed_from_u64(seed));
        Lives {
            disk,
            random,
            history: Records::new(),
            durable: 0,
            killed_at: 0,
            persisted: 0,
            term: 0,
            rolls: 0,
            cuts: 0,
        }
    }

    fn open(&mut self) -> Writer {
        // Sometimes the power is cut while the log is opened.
        while self.random.random_bool(0.2) {
            self.disk.limit_changes(Some(self.random.random_range(0..110)));
            let opened = open_at(&self.disk, self.persisted, None);
            self.disk.limit_changes(None);
            match opened {
                Err(LogError::Io { .. }) => {}
                Err(other) => panic!("{other}"),
                Ok((recovered, _)) => self.recovered(&recovered),
            }
            self.killed_at = 0;
            self.disk.crash(self.random.random());
        }
        let (recovered, records) =
            open_at(&self.disk, self.persisted, None).expect("a torn tail is no damage");
        self.recovered(&recovered);
        let expected: Records =
            self.history.range(self.persisted + 1..).map(|(k, v)| (*k, v.clone())).collect();
        assert!(records == expected, "what is durable and nothing that was not appended");
        recovered.writer
    }

    fn recovered(&mut self, recovered: &Recovered) {
        let last = recovered.last.0;
        let kept = self.durable.max(self.killed_at);
        assert!(last >= kept, "{kept} must be there, but only {last} is");
        assert!(recovered.term > self.term, "followers may hold what was lost");
        assert!(!recovered.ahead);
        self.cuts += usize::from(recovered.cut.is_some());
        self.term = recovered.term;
        self.history.split_off(&(last + 1));
        self.durable = last;
    }

    fn body(&mut self) -> Vec<u8> {
        let len = match self.random.random_range(0..10) {
            0 => 0,
            1 => self.random.random_range(600..4000),
            _ => self.random.random_range(1..120),
        };
        let byte = self.random.random();
        vec![byte; len]
    }

    fn live(&mut self) {
        let mut writer = self.open();
        let mut groups: Vec<(Group, Vec<u8>)> = Vec::new();
        let mut syncing: Option<SyncDone> = None;
        let mut last = writer.written().0;
        for _ in 0..self.random.random_range(0..150) {
            match self.random.random_range(0..20) {
                0..10 => {
                    let body = self.body();
                    let lsn = append(&mut writer, &body);
                    assert!(lsn > last, "LSNs go on where the log ends");
                    assert!(lsn == last + 1 || body.len() > 700);
                    self.history.insert(lsn, body);
                }
                10 if groups.len() < 3 => {
                    let body = self.body();
                    groups.push((writer.begin_group(1, &[&body]), body));
                }
                11 | 12 if !groups.is_empty() => {
                    let more = self.body();
                    let at = self.random.random_range(0..groups.len());
                    writer.continue_group(&groups[at].0, 1, &[&more]);
                    groups[at].1.extend(more);
                }
                13 if !groups.is_empty() => {
                    let (group, mut body) = groups.swap_remove(self.random.random_range(0..groups.len()));
                    if self.random.random_bool(0.3) {
                        writer.abandon_group(group);
                    } else {
                        let more = self.body();
                        let touches = [touch(2, 1)];
                        let meta = FrameMeta { touches: &touches, txn: None };
                        let lsn = writer.end_group(group, &meta, 1, &[&more]).0;
                        body.extend(more);
                        self.history.insert(lsn, body);
                    }
                }
                14 | 15 => {
                    writer.write().expect("the disk works");
                }
                16 => match syncing.take() {
                    Some(done) => writer.synced(done),
                    None => {
                        if let Some(job) = writer.sync_job() {
                            let done = job.run().expect("the disk works");
                            self.durable = done.upto.0;
                            syncing = Some(done);
                        }
                    }
                },
                17 => reserve(&mut writer),
                18 => {
                    let durable = writer.durable().0;
                    self.persisted = self.random.random_range(self.persisted..=durable.max(self.persisted));
                    writer.retain(Lsn(self.persisted + 1), 1);
                }
                19 if syncing.is_none() && self.random.random_bool(0.1) => {
                    self.term = next_term(self.term, 0);
                    writer.begin_term(self.term);
                    let body = self.body();
                    self.history.insert(append(&mut writer, &body), body);
                    writer.write().expect("the disk works");
                    sync(&mut writer);
                    self.durable = writer.durable().0;
                }
                _ => {}
            }
            last = writer.written_or_pending().0;
        }
        self.rolls += writer.segments().len();
        // The cut may also come in the middle of a write or a sync.
        if syncing.is_none() && self.random.random_bool(0.5) {
            self.disk.limit_changes(Some(self.random.random_range(0..4)));
            if writer.write().is_ok()
                && let Some(Ok(done)) = writer.sync_job().map(|job| job.run())
            {
                self.durable = done.upto.0;
            }
            self.disk.limit_changes(None);
        }
        // A process that is killed loses nothing it has written; its syncs may not have happened.
        if self.random.random_bool(0.2) {
            self.killed_at = writer.written().0;
        } else {
            self.killed_at = 0;
            self.disk.crash(self.random.random());
        }
    }
}

#[test]
fn a_power_cut_takes_only_what_was_not_synced() {
    let (mut rolls, mut cuts, mut replayed) = (0, 0, 0);
    for seed in 0..15_000 {
        let lives = std::panic::catch_unwind(|| {
            let mut lives = Lives::new(seed);
            for _ in 0..5 {
                lives.live();
            }
            lives.open();
            lives
        });
        let lives = lives.unwrap_or_else(|_| panic!("seed {seed}"));
        rolls += lives.rolls;
        cuts += lives.cuts;
        replayed += lives.history.len();
    }
    assert!(
        rolls > 5000 && cuts > 1000 && replayed > 50_000,
        "{rolls} segments, {cuts} cuts, {replayed} records"
    );
}

/// A log of several segments, all of it durable.
struct DurableLog {
    disk: SimDisk,
    records: Records,
    /// The last LSN that a later frame says is durable.
    claimed: u64,
    firsts: Vec<Lsn>,
}

fn durable_log() -> DurableLog {
    durable_log_of(3, 0)
}

fn durable_log_of(seed: u64, mask: u8) -> DurableLog {
    let disk = SimDisk::new(seed);
    let mut writer = open_new(&disk).writer;
    let (mut claimed, mut records) = (0, Records::new());
    for n in 0..120u8 {
        let body = vec![n ^ mask; 20 + usize::from(n) * 9];
        records.insert(append(&mut writer, &body), body);
        writer.write().expect("the disk works");
        claimed = writer.durable().0;
        sync(&mut writer);
        reserve(&mut writer);
    }
    let firsts = segment::list_segments(&disk, DIR.as_ref()).expect("listed");
    assert!(firsts.len() >= 4, "several segments: {firsts:?}");
    DurableLog { disk, records, claimed, firsts }
}

#[test]
fn damage_of_what_was_durable_stops_the_start() {
    let DurableLog { records: all, claimed, firsts, .. } = durable_log();
    let mut refused = 0;
    for (n, first) in firsts.iter().enumerate() {
        let older = n + 1 < firsts.len();
        for offset in [0, 9, 30, 2048 + 30, 4096, 4100, 4110, 4140, 4200, 5000, 9000, 11_000] {
            let disk = durable_log().disk;
            disk.flip(&segment::segment_path(DIR.as_ref(), *first), offset, 3);
            match open_at(&disk, 0, None) {
                Err(LogError::Damage { path, .. }) => {
                    refused += 1;
                    assert!(path.starts_with(DIR));
                }
                Err(other) => panic!("{other}"),
                Ok((recovered, records)) => {
                    assert!(!older, "offset {offset} of the segment at {first:?}");
                    assert!(recovered.last.0 >= claimed, "offset {offset}: {:?}", recovered.last);
                    assert!(all.range(..=recovered.last.0).eq(&records), "nothing else is given up");
                }
            }
        }
    }
    assert!(refused >= 12 * (firsts.len() - 1), "{refused}");
}

#[test]
fn a_flipped_bit_behind_the_last_claim_is_a_torn_tail() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    append(&mut writer, b"synced");
    writer.write().expect("the disk works");
    sync(&mut writer);
    let second = append(&mut writer, b"torn");
    append(&mut writer, b"behind");
    let at = segment::HEADER_BYTES as u64 + 72 + 63;
    writer.write().expect("the disk works");
    let path = segment::segment_path(DIR.as_ref(), Lsn(1));
    disk.flip(&path, at, 0);
    let (recovered, records) = open_at(&disk, 0, None).expect("nobody says that it was durable");
    assert_eq!(records.into_values().collect::<Vec<_>>(), [b"synced".to_vec()]);
    let cut = recovered.cut.expect("something was there");
    assert_eq!((cut.lsn, cut.path), (Lsn(second), path));
    assert_eq!((recovered.last, recovered.term >> TERM_CHANCE_BITS), (Lsn(1), 2));
}

#[test]
fn what_rocksdb_has_persisted_must_be_readable_if_it_is_there_at_all() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    append(&mut writer, b"one");
    append(&mut writer, b"two");
    writer.write().expect("the disk works");
    disk.flip(&segment::segment_path(DIR.as_ref(), Lsn(1)), segment::HEADER_BYTES as u64 + 67, 0);
    assert!(matches!(open_at(&disk, 1, None), Err(LogError::Damage { .. })));
    let cut = open_at(&disk, 0, None).expect("a torn tail").0.cut;
    assert_eq!(cut.expect("it was cut").lsn, Lsn(1));
}

#[test]
fn a_log_behind_rocksdb_goes_on_behind_it_in_a_new_term() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    append(&mut writer, b"one");
    writer.write().expect("the disk works");
    sync(&mut writer);
    let (mut recovered, records) = open_at(&disk, 10, None).expect("what is there is whole");
    assert!(records.is_empty() && recovered.ahead);
    assert_eq!((recovered.last, recovered.term >> TERM_CHANCE_BITS), (Lsn(10), 2));
    assert_eq!(append(&mut recovered.writer, b"eleven"), 11);
    recovered.writer.write().expect("the disk works");
    sync(&mut recovered.writer);
    let (again, records) = open_at(&disk, 10, None).expect("the gap is known");
    assert_eq!(records.into_keys().collect::<Vec<_>>(), [11]);
    assert!(!again.ahead);
    assert!(matches!(open_at(&disk, 0, None), Err(LogError::Damage { .. })), "2 to 10 are nowhere");
}

#[test]
fn an_old_frame_of_equal_length_behind_a_cut_is_never_replayed() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    for body in [b"aaaa", b"bbbb", b"cccc"] {
        append(&mut writer, body);
    }
    writer.write().expect("the disk works");
    let frame = 40 + 22 + 4 + 4;
    disk.flip(&segment::segment_path(DIR.as_ref(), Lsn(1)), segment::HEADER_BYTES as u64 + frame + 66, 0);
    let (mut recovered, _) = open_at(&disk, 0, None).expect("a torn tail");
    assert_eq!(append(&mut recovered.writer, b"BBBB"), 2);
    recovered.writer.write().expect("the disk works");
    // The old bytes heal: even so they are not part of the log.
    disk.flip(&segment::segment_path(DIR.as_ref(), Lsn(1)), segment::HEADER_BYTES as u64 + frame + 66, 0);
    let (_, records) = open_at(&disk, 0, None).expect("nothing is wrong");
    assert_eq!(records.into_values().collect::<Vec<_>>(), [b"aaaa".to_vec(), b"BBBB".to_vec()]);
}

#[test]
fn a_recycled_segment_shows_nothing_of_its_former_life() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    let mut kept = Records::new();
    for n in 0..2000u32 {
        let body = n.to_le_bytes().repeat(20);
        let lsn = append(&mut writer, &body);
        kept.insert(lsn, body);
        writer.write().expect("the disk works");
        sync(&mut writer);
        writer.retain(writer.durable(), 1);
        reserve(&mut writer);
    }
    let names = disk.list(DIR.as_ref()).expect("listed");
    assert!(names.len() <= 7, "retention keeps to its cap: {names:?}");
    let persisted = 1990;
    let (_, records) = open_at(&disk, persisted, None).expect("recycling is no damage");
    assert_eq!(records, kept.split_off(&(persisted + 1)));
}

#[test]
fn a_new_term_in_an_empty_segment_hides_nothing_of_how_the_log_went_on() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    append(&mut writer, b"one");
    writer.write().expect("the disk works");
    sync(&mut writer);
    drop(writer);
    // Killed: its segment has no footer, and nobody must look for one.
    let mut again = open_at(&disk, 0, None).expect("it is whole").0.writer;
    again.begin_term(next_term(again.term(), 0));
    append(&mut again, b"two");
    again.write().expect("the disk works");
    sync(&mut again);
    assert!(footers(&disk, DIR.as_ref()).expect("every footer that is named is there").is_empty());
    drop(again);
    let (_, records) = open_at(&disk, 0, None).expect("it is whole");
    assert_eq!(records.into_values().collect::<Vec<_>>(), [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn an_orderly_end_keeps_its_term() {
    let disk = SimDisk::new(1);
    let mut recovered = open_new(&disk);
    let term = recovered.term;
    append(&mut recovered.writer, b"one");
    assert_eq!(recovered.writer.close().expect("the disk works"), Lsn(1));
    disk.crash(9);
    let (recovered, records) = open_at(&disk, 0, None).expect("it was closed");
    assert_eq!((recovered.term, records.len(), recovered.cut), (term, 1, None));
    drop(recovered.writer);
    assert!(open_at(&disk, 0, None).expect("nothing was lost").0.term > term);
}

#[test]
fn a_part_without_its_whole_can_be_cut_off_though_it_is_durable() {
    let mut done_by_the_first = 0;
    for (stop_after, power_cut) in (0..40).flat_map(|changes| [(changes, false), (changes, true)]) {
        let DurableLog { disk, firsts, records: all, .. } = durable_log();
        let cut = firsts[1].0 + 2;
        disk.limit_changes(Some(stop_after));
        drop(open_at(&disk, 0, Some(cut)));
        disk.limit_changes(None);
        if power_cut {
            disk.crash(stop_after);
        }
        let (between, _) = open_at(&disk, 0, None).expect("half a cut is no damage");
        let end = between.last.0;
        assert!(end == cut - 1 || all.range(..=end).count() == all.len(), "all or nothing was cut: {end}");
        done_by_the_first += usize::from(end == cut - 1);
        let (after, records) = open_at(&disk, 0, Some(cut)).expect("the cut can be repeated");
        assert_eq!(after.last, Lsn(cut - 1));
        assert!(all.range(..cut).eq(&records));
    }
    assert!((10..70).contains(&done_by_the_first), "{done_by_the_first}");
    let disk = durable_log().disk;
    assert!(matches!(open_at(&disk, 20, Some(20)), Err(LogError::Damage { .. })), "it cannot be taken back");
}

#[test]
fn a_later_frame_of_the_same_segment_vouches_for_those_before_it() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    for body in [b"one", b"two", b"six"] {
        append(&mut writer, body);
        writer.write().expect("the disk works");
        sync(&mut writer);
    }
    let frames = segment::HEADER_BYTES as u64;
    // The third says that the second was durable; nobody says it of the third.
    let path = segment::segment_path(DIR.as_ref(), Lsn(1));
    disk.flip(&path, frames + 69 + 65, 0);
    let refused = open_at(&disk, 0, None).map(|_| ());
    assert!(matches!(refused, Err(LogError::Damage { offset, .. }) if offset == frames + 69), "{refused:?}");
    disk.flip(&path, frames + 69 + 65, 0);
    disk.flip(&path, frames + 69 + 69 + 65, 0);
    assert_eq!(open_at(&disk, 0, None).expect("a torn tail").0.last, Lsn(2));
}

#[test]
fn a_segment_of_another_log_is_not_taken_for_the_next_one() {
    let DurableLog { disk, records: all, firsts, .. } = durable_log();
    // Of the same sizes, so that segments and LSNs are the same; only the bodies differ.
    let other = durable_log_of(4, 0xff);
    assert_eq!(other.firsts, firsts);
    let name = segment::segment_path(DIR.as_ref(), *firsts.last().expect("there are several"));
    disk.open(&name).expect("it is there").write_at(0, &other.disk.bytes(&name)).expect("the disk works");
    match open_at(&disk, 0, None) {
        Err(LogError::Damage { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok((recovered, records)) => assert!(all.range(..=recovered.last.0).eq(&records)),
    }
}

#[test]
fn a_missing_segment_is_damage_unless_nobody_needs_it() {
    let DurableLog { disk, firsts, .. } = durable_log();
    disk.remove(&segment::segment_path(DIR.as_ref(), firsts[1])).expect("it is there");
    assert!(matches!(open_at(&disk, 0, None), Err(LogError::Damage { .. })));
    open_at(&disk, firsts[2].0, None).expect("recovery begins behind it");
}

#[test]
fn a_group_keeps_its_first_frames_from_being_recycled() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    let group = writer.begin_group(1, &[b"begun "]);
    for n in 0..400u32 {
        append(&mut writer, &n.to_le_bytes().repeat(50));
        writer.write().expect("the disk works");
        sync(&mut writer);
        writer.retain(writer.durable(), 1);
        reserve(&mut writer);
    }
    let persisted = writer.durable().0;
    let lsn = writer.end_group(group, &FrameMeta::default(), 1, &[b"and ended"]).0;
    writer.write().expect("the disk works");
    writer.retain(Lsn(persisted + 1), 1);
    reserve(&mut writer);
    let (_, records) = open_at(&disk, persisted, None).expect("all of the group is there");
    assert_eq!(records, Records::from([(lsn, b"begun and ended".to_vec())]));
}

#[test]
fn a_full_disk_is_seen_before_anything_is_appended_and_heals() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    reserve(&mut writer);
    disk.limit_space(Some(0));
    let mut appended = 0;
    while writer.has_room() {
        append(&mut writer, &[1; 300]);
        appended += 1;
        writer.write().expect("prepared room is there");
        sync(&mut writer);
        if let Some(job) = writer.reserve_job() {
            assert!(matches!(job.run(), Err(LogError::Io { .. })));
        }
        assert!(appended < 1000, "the disk is full");
    }
    assert!(appended > 20);
    disk.limit_space(None);
    reserve(&mut writer);
    assert!(writer.has_room());
    assert_eq!(open_at(&disk, 0, None).expect("whole").1.len(), appended);
}

#[test]
fn unsynced_time_is_that_of_the_oldest_frame() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    assert_eq!(writer.unsynced_since_ms(), None);
    writer.append(&FrameMeta::default(), 100, &[b"a"]);
    writer.append(&FrameMeta::default(), 200, &[b"b"]);
    writer.write().expect("the disk works");
    let job = writer.sync_job().expect("there is something to sync");
    assert!(writer.sync_job().is_none(), "one at a time");
    writer.append(&FrameMeta::default(), 300, &[b"c"]);
    assert_eq!(writer.unsynced_since_ms(), Some(100));
    let done = job.run().expect("the disk works");
    writer.write().expect("the disk works");
    writer.synced(done);
    assert_eq!((writer.durable(), writer.unsynced_since_ms()), (Lsn(2), Some(300)));
    sync(&mut writer);
    assert_eq!((writer.durable(), writer.unsynced_since_ms()), (Lsn(3), None));
}

#[test]
fn a_sync_that_waited_takes_what_has_come_meanwhile() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    let append = |writer: &mut Writer, time_ms, body: &[u8]| {
        writer.append(&FrameMeta::default(), time_ms, &[body]);
        writer.write().expect("the disk works");
    };
    append(&mut writer, 100, b"a");
    let job = writer.sync_job().expect("there is something to sync");
    append(&mut writer, 200, b"b");
    writer.synced(job.run().expect("the disk works"));
    assert_eq!((writer.durable(), writer.unsynced_since_ms()), (Lsn(2), None));
    // What is in the next segment is not in the files that the job knows.
    append(&mut writer, 300, b"c");
    let job = writer.sync_job().expect("there is something to sync");
    writer.begin_term(writer.term() + 1);
    append(&mut writer, 400, b"d");
    assert_eq!(
        disk.list(&options().dir)
            .expect("it can be listed")
            .iter()
            .filter(|name| name.ends_with(".log"))
            .count(),
        2
    );
    writer.synced(job.run().expect("the disk works"));
    assert_eq!((writer.durable(), writer.unsynced_since_ms()), (Lsn(3), Some(400)));
}

#[test]
fn a_frame_of_many_slots_is_one_record() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    let touches: Vec<Touch> = (0..500).map(|slot| touch(slot, 9)).collect();
    let txn = Txn::Part { home: ShardId(1), home_lsn: 5, number: 6 };
    writer.append(&FrameMeta { touches: &touches, txn: Some(&txn) }, 1, &[b"wide"]);
    writer.write().expect("the disk works");
    let mut seen = 0;
    open(Arc::new(disk), options(), Lsn(0), None, &mut |record| {
        assert_eq!((record.touches, record.txn, record.body), (&touches[..], Some(&txn), &b"wide"[..]));
        seen += 1;
        Ok(())
    })
    .expect("whole");
    assert_eq!(seen, 1);
}

#[test]
fn a_reader_follows_the_writer_through_segments_and_is_told_when_it_is_too_late() {
    let disk = SimDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut writer = open_new(&disk).writer;
    let mut reader = Reader::open(shared.clone(), DIR.as_ref(), Lsn(5)).expect("the log begins at 1");
    let mut slow = Reader::open(shared.clone(), DIR.as_ref(), Lsn(1)).expect("the log begins at 1");
    let (mut written, mut read) = (Records::new(), Records::new());
    for n in 0..600u32 {
        let body = n.to_le_bytes().repeat(1 + n as usize % 300);
        written.insert(append(&mut writer, &body), body);
        if n % 3 == 0 {
            writer.write().expect("the disk works");
            sync(&mut writer);
            reserve(&mut writer);
            while let Some(record) = reader.next(writer.written()).expect("published is readable") {
                assert!(record.lsn <= writer.written());
                read.insert(record.lsn.0, record.body.to_vec());
            }
        }
    }
    let mut expected = written.split_off(&5);
    expected.split_off(&(writer.written().0 + 1));
    assert!(read == expected);
    assert!(slow.next(writer.written()).expect("nothing is recycled yet").is_some());
    let footers = footers(&*shared, DIR.as_ref()).expect("all were sealed");
    assert!(footers.len() > 10);
    for (first, footer) in &footers {
        assert!(footer.last >= *first && !footer.lines.is_empty());
    }
    writer.retain(writer.durable(), 1);
    reserve(&mut writer);
    append(&mut writer, &[0; 3000]);
    writer.write().expect("the disk works");
    let end = loop {
        match slow.next(writer.written()) {
            Ok(Some(_)) => {}
            other => break other.map(|_| ()),
        }
    };
    assert!(matches!(end, Err(LogError::Gone(_))), "{end:?}");
    assert!(matches!(Reader::open(shared, DIR.as_ref(), Lsn(1)), Err(LogError::Gone(_))));
}

#[test]
fn readers_hold_old_segments_up_to_the_cap() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    for n in 0..3u8 {
        for _ in 0..60 {
            append(&mut writer, &[n; 200]);
        }
        writer.write().expect("the disk works");
        sync(&mut writer);
        reserve(&mut writer);
    }
    let before = writer.segments().len();
    writer.hold_for_readers(Some(Lsn(1)));
    writer.retain(writer.durable(), 25 * 3_600_000);
    assert_eq!(writer.segments().len(), before, "a reader is there and the cap is not reached");
    writer.hold_for_readers(None);
    writer.retain(writer.durable(), 25 * 3_600_000);
    assert!(writer.segments().len() < before, "older than a day and nobody reads it");
}

#[test]
fn another_shards_log_is_refused() {
    let disk = SimDisk::new(1);
    drop(open_new(&disk));
    let other = LogOptions { shard: ShardId(8), ..options() };
    let opened = open(Arc::new(disk), other, Lsn(0), None, &mut |_| Ok(()));
    assert!(matches!(opened, Err(LogError::Damage { .. })));
}

#[test]
fn what_replay_refuses_stops_the_start() {
    let disk = durable_log().disk;
    let opened = open(Arc::new(disk), options(), Lsn(0), None, &mut |_| Err("no".into()));
    assert!(matches!(opened, Err(LogError::Replay(Lsn(1), _))));
}

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/binlog-v1")
}

fn fixture_body(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(n as usize * 2 % 900)
}

/// Wrote tests/fixtures/binlog-v1 when format 1 was settled. Not to be run again over it.
#[test]
#[ignore = "writes the fixture"]
fn write_fixture() {
    let options = LogOptions { dir: fixture(), ..options() };
    let mut writer = open(Arc::new(RealDisk), options, Lsn(0), None, &mut |_| Ok(())).expect("empty").writer;
    let whole =
        Txn::Whole { participants: vec![Participant { shard: ShardId(2), number: 5, after: Lsn(3) }] };
    for n in 0..60 {
        let touches = [touch(n as u16 % 7, u64::from(n))];
        let meta = FrameMeta { touches: &touches, txn: (n % 10 == 0).then_some(&whole) };
        writer.append(&meta, 1_700_000_000_000, &[&fixture_body(n)]);
        writer.write().expect("the disk works");
        sync(&mut writer);
    }
}

#[test]
fn files_of_format_1_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(fixture()).expect("the fixture is there") {
        let entry = entry.expect("listed");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
    }
    let options = LogOptions { dir: dir.path().into(), ..options() };
    let mut n = 0;
    let recovered = open(Arc::new(RealDisk), options, Lsn(0), None, &mut |record| {
        assert_eq!((record.body, record.time_ms), (&fixture_body(n)[..], 1_700_000_000_000));
        assert_eq!(record.touches, [touch(n as u16 % 7, u64::from(n))]);
        assert_eq!(record.txn.is_some(), n.is_multiple_of(10));
        n += 1;
        Ok(())
    })
    .expect("old files open");
    assert_eq!((n, recovered.cut, recovered.term >> TERM_CHANCE_BITS), (60, None, 1));
}

/// What an append costs the core: run in release with --nocapture.
#[test]
#[ignore = "a measurement"]
fn cost_of_an_append() {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let options = LogOptions { retain_bytes: 128 << 20, ..LogOptions::new(dir.path(), ShardId(0)) };
    let mut writer = open(Arc::new(RealDisk), options, Lsn(0), None, &mut |_| Ok(())).expect("empty").writer;
    let body = [7u8; 134];
    let (mut append_ns, mut write_us, mut index) = (0, 0, 0);
    for _ in 0..20_000u64 {
        let begun = std::time::Instant::now();
        for _ in 0..16 {
            index += 1;
            let touches = [touch(index as u16 % 1024, index)];
            writer.append(&FrameMeta { touches: &touches, txn: None }, 1, &[&body]);
        }
        append_ns += begun.elapsed().as_nanos();
        write_us += writer.write().expect("the disk works").micros;
        if index % 16384 == 0 {
            sync(&mut writer);
            writer.retain(writer.durable(), 1);
            reserve(&mut writer);
        }
    }
    println!("append of 200 B: {} ns; write of 16 of them: {} us", append_ns / 320_000, write_us / 20_000);
}

#[test]
fn what_is_purged_is_needed_by_nobody() {
    let disk = SimDisk::new(1);
    let mut writer = open_new(&disk).writer;
    for n in 0..4000u32 {
        append(&mut writer, &n.to_le_bytes().repeat(50));
        writer.write().expect("the disk works");
        sync(&mut writer);
        reserve(&mut writer);
    }
    let firsts = writer.segments();
    assert!(firsts.len() > 5, "{firsts:?}");
    assert_eq!(writer.purgeable(Lsn(0)), None, "nothing is known to be persisted");
    let all = firsts.len() - 1;
    assert_eq!(writer.purge(Lsn(0), Lsn(u64::MAX)), all, "all that are full stay");
    writer.hold_for_readers(Some(firsts[2]));
    assert_eq!(
        (writer.purgeable(firsts[4]), writer.first_needed(firsts[4])),
        (Some(firsts[2]), Some(firsts[3].before()))
    );
    assert_eq!(writer.purge(firsts[4], firsts[1]), 0, "what was asked for is gone");
    assert_eq!(writer.segments(), firsts[1..]);
    assert_eq!(writer.purge(firsts[4], firsts[4]), 2, "a reader needs these");
    assert_eq!(writer.segments(), firsts[2..]);
    writer.hold_for_readers(None);
    assert_eq!(writer.purge(firsts[4], Lsn(u64::MAX)), all - 4, "a start needs these");
    assert_eq!(writer.segments(), firsts[4..]);
    reserve(&mut writer);
    open_at(&disk, firsts[4].0, None).expect("what recovery needs is there");
}

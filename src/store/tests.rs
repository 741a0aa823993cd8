//! The store's promises, over a real RocksDB in a temporary directory.

use super::row::{Body, Kind, Row, STRING_PIECE_BYTES, Version};
use super::*;
use crate::slot::{Slot, TableId};
use bytes::Bytes;
use std::path::Path;
use std::time::{Duration, Instant};

const ONE: Incarnation = Incarnation(1);
const TWO: Incarnation = Incarnation(2);
const MIB: usize = 1 << 20;

fn element(incarnation: Incarnation, name: &[u8], version: Version, sub: &[u8]) -> ElementKey {
    ElementKey::new(incarnation, name, version, sub)
}

fn shared() -> SharedMemory {
    SharedMemory::new(64 * MIB, 64 * MIB, 1).unwrap()
}

fn options() -> StoreOptions {
    StoreOptions { create: true, memtable_target_bytes: 4 * MIB, direct_io: false }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &options(), &shared()).unwrap()
}

fn string(value: &[u8]) -> Row {
    Row::string(Bytes::copy_from_slice(value))
}

fn pieces(version: u64, count: usize) -> Row {
    let len = (count * STRING_PIECE_BYTES) as u64;
    Row { body: Body::Pieces { version: Version(version), len }, ..string(b"") }
}

/// Poorly compressible, so that sizes mean something.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn commit(store: &mut Store, lsn: u64, fill: impl FnOnce(&mut Batch)) {
    let mut batch = store.batch();
    fill(&mut batch);
    batch.set_persisted(lsn);
    store.write(&mut batch).unwrap();
}

fn put(store: &mut Store, lsn: u64, name: &[u8], value: &[u8]) {
    commit(store, lsn, |batch| batch.put_row(ONE, name, &string(value)));
}

fn seal_and_wait(store: &Store) {
    assert_eq!(store.seal_job(Vec::new()).run().unwrap().sealed, Sealed::Done);
    wait_until("sealed memtables are in files", || store.flushed().unwrap());
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn names(mut scan: RowScan<'_>) -> (Vec<Vec<u8>>, Step<()>) {
    let mut names = Vec::new();
    loop {
        match scan.next().unwrap() {
            Step::Item(item) => names.push(item.name.to_vec()),
            Step::End => return (names, Step::End),
            Step::Miss => return (names, Step::Miss),
        }
    }
}

#[test]
fn rows_and_elements_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    commit(&mut store, 1, |batch| {
        batch.put_row(ONE, b"a", &string(b"1"));
        batch.put_row(ONE, b"b", &pieces(7, 1));
        batch.put_element(&element(ONE, b"b", Version(7), &[0, 0, 0, 0]), b"piece");
        batch.put_row(TWO, b"a", &string(b"other slot"));
        batch.put_row(ONE, b"gone", &string(b"x"));
        batch.delete_row(ONE, b"gone");
        batch.put_element(&element(ONE, b"b", Version(7), &[1]), b"x");
        batch.delete_element(&element(ONE, b"b", Version(7), &[1]));
    });
    assert_eq!(store.row_cached(ONE, b"a").unwrap(), Cached::Found(string(b"1")));
    assert_eq!(store.row_cached(TWO, b"a").unwrap(), Cached::Found(string(b"other slot")));
    assert_eq!(store.row_cached(ONE, b"gone").unwrap(), Cached::Absent);
    let element = |sub: &[u8]| store.element_cached(&element(ONE, b"b", Version(7), sub)).unwrap();
    assert_eq!(element(&[0, 0, 0, 0]), Cached::Found(Bytes::from_static(b"piece")));
    assert_eq!(element(&[1]), Cached::Absent);
    assert_eq!(store.view_cached().applied_lsn().unwrap(), Cached::Found(1));
}

#[test]
fn nothing_is_in_files_before_our_own_seal() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    // Three times what the shard would hold before sealing, in every family.
    for lsn in 1..=12 {
        commit(&mut store, lsn, |batch| {
            for at in 0..16 {
                let name = (lsn * 100 + at).to_be_bytes();
                let value = noise(lsn * 100 + at, 48 << 10);
                batch.put_row(ONE, &name, &Row { expire_ms: Some(lsn), ..string(&value) });
                batch.put_element(&element(ONE, &name, Version(1), &[0; 4]), &value[..8 << 10]);
            }
        });
    }
    assert!(store.memtable_bytes().unwrap() > 3 * (4 * MIB) as u64 / 2, "the test filled the memtables");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(store.persisted_lsn().unwrap(), None);

    assert_eq!(store.seal_job(Vec::new()).run().unwrap().sealed, Sealed::Done);
    for lsn in 13..=40 {
        put(&mut store, lsn, b"later", &noise(lsn, 4 << 10));
        let persisted = store.persisted_lsn().unwrap();
        assert!(matches!(persisted, None | Some(12)), "only what was sealed: {persisted:?}");
    }
    wait_until("the seal is in files", || store.flushed().unwrap());
    put(&mut store, 41, b"later", b"x");
    assert_eq!(store.persisted_lsn().unwrap(), Some(12));
}

#[test]
fn closing_loses_exactly_what_was_not_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let entry = SlotEntry {
        table: TableId(0),
        slot: Slot(9),
        incarnation: ONE,
        next_index: 5,
        term: 2,
        keys_estimate: 1,
    };
    {
        let mut store = open(dir.path());
        commit(&mut store, 1, |batch| {
            batch.put_row(ONE, b"kept", &string(b"1"));
            batch.put_slot_entry(&entry);
            batch.put_slot_entry(&SlotEntry { slot: Slot(10), ..entry });
            batch.delete_slot_entry(TableId(0), Slot(10));
            batch.put_next_incarnation(TWO);
        });
        seal_and_wait(&store);
        commit(&mut store, 2, |batch| {
            batch.put_row(ONE, b"lost", &Row { expire_ms: Some(5), ..string(b"2") });
            batch.put_row(ONE, b"kept", &string(b"newer"));
            batch.put_element(&element(ONE, b"lost", Version(1), b""), b"lost too");
            batch.put_slot_entry(&SlotEntry { next_index: 6, ..entry });
        });
    }
    let store = open(dir.path());
    assert_eq!((store.persisted_lsn().unwrap(), store.applied_lsn()), (Some(1), 1));
    let reader = store.reader();
    let view = reader.view();
    assert_eq!(view.row(ONE, b"kept").unwrap(), Cached::Found(string(b"1")));
    assert_eq!(view.row(ONE, b"lost").unwrap(), Cached::Absent);
    assert_eq!(view.element(&element(ONE, b"lost", Version(1), b"")).unwrap(), Cached::Absent);
    assert_eq!(view.due(100).next().unwrap(), Step::End);
    assert_eq!(store.slot_entries().unwrap(), vec![entry]);
    assert_eq!(store.next_incarnation().unwrap(), TWO);
}

#[test]
fn a_seal_is_one_point_for_all_families() {
    let dir = tempfile::tempdir().unwrap();
    let mut lsn = 0;
    for round in 0..10 {
        let mut store = open(dir.path());
        lsn = store.applied_lsn().max(lsn);
        let job = store.seal_job(Vec::new());
        let pool = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            job.run()
        });
        while !pool.is_finished() {
            lsn += 1;
            commit(&mut store, lsn, |batch| {
                batch.put_row(ONE, &lsn.to_be_bytes(), &pieces(lsn, 1));
                batch.put_element(&element(ONE, &lsn.to_be_bytes(), Version(lsn), b""), b"v");
            });
        }
        assert_eq!(pool.join().unwrap().unwrap().sealed, Sealed::Done);
        wait_until("sealed memtables are in files", || store.flushed().unwrap());
        drop(store);

        let store = open(dir.path());
        let persisted = store.persisted_lsn().unwrap().expect("there was a seal");
        assert!(persisted <= lsn);
        let reader = store.reader();
        for at in persisted.saturating_sub(50).max(1)..=lsn {
            let row = reader.view().row(ONE, &at.to_be_bytes()).unwrap() != Cached::Absent;
            let element = reader.view().element(&element(ONE, &at.to_be_bytes(), Version(at), b"")).unwrap()
                != Cached::Absent;
            if at <= persisted || row || element {
                assert_eq!(
                    (row, element),
                    (at <= persisted, at <= persisted),
                    "round {round}: {at} of {persisted}"
                );
            }
        }
    }
}

#[test]
fn after_reopening_a_read_misses_is_warmed_and_hits() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        commit(&mut store, 1, |batch| {
            for at in 0..20_000u32 {
                batch.put_row(ONE, &at.to_be_bytes(), &string(&noise(u64::from(at), 100)));
            }
            batch.put_row(ONE, b"long", &pieces(3, 2));
            for piece in 0..2u32 {
                let value = noise(piece.into(), STRING_PIECE_BYTES);
                batch.put_element(&element(ONE, b"long", Version(3), &piece.to_be_bytes()), &value);
            }
        });
        seal_and_wait(&store);
    }
    let store = open(dir.path());
    let name = 777u32.to_be_bytes();
    assert_eq!(store.row_cached(ONE, &name).unwrap(), Cached::Miss);
    assert_eq!(
        store.element_cached(&element(ONE, b"long", Version(3), &[0, 0, 0, 1])).unwrap(),
        Cached::Miss
    );
    let (seen, end) = names(store.view_cached().rows(ONE, None));
    assert_eq!(end, Step::Miss, "after {} rows", seen.len());
    assert_eq!(store.view_cached().count_rows(ONE, 0).unwrap(), Step::Miss);

    let wanted =
        [Wanted::row(ONE, &name), Wanted::element(&element(ONE, b"long", Version(3), &[0, 0, 0, 1]))];
    let reader = store.reader();
    std::thread::spawn(move || reader.warm(&wanted)).join().unwrap().unwrap();
    assert_eq!(store.row_cached(ONE, &name).unwrap(), Cached::Found(string(&noise(777, 100))));
    let piece = store.element_cached(&element(ONE, b"long", Version(3), &[0, 0, 0, 1])).unwrap();
    assert_eq!(piece, Cached::Found(Bytes::from(noise(1, STRING_PIECE_BYTES))));
    let (seen, end) = names(store.view_cached().rows(ONE, Some(&name)));
    assert!(
        end == Step::Miss && seen.len() < 19_000,
        "one block is warm, the others are not: {}",
        seen.len()
    );

    assert_eq!(store.reader().with_snapshot(|view| view.count_rows(ONE, 0)).unwrap(), counted(20_001, 0, 0));
    let (seen, end) = names(store.reader().view().rows(ONE, None));
    assert_eq!((seen.len(), end), (20_001, Step::End));
    let (again, end) = names(store.view_cached().rows(ONE, None));
    assert_eq!((again, end), (seen, Step::End), "the scan of every tier has warmed the cache");
}

fn counted(living: u64, expiring: u64, expired: u64) -> Step<Counted> {
    Step::Item(Counted { living, expiring, expired })
}

#[test]
fn scans_keep_to_their_incarnation_and_start_behind_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    commit(&mut store, 1, |batch| {
        for name in [&b""[..], b"a", b"a\0", b"b", b"\xff\xff\xff\xff\xff"] {
            batch.put_row(ONE, name, &Row { expire_ms: Some(10), ..string(b"v") });
        }
        batch.put_row(TWO, b"", &pieces(1, 1));
    });
    let view = store.view_cached();
    let all = |after| names(view.rows(ONE, after)).0;
    assert_eq!(all(None), [&b""[..], b"a", b"a\0", b"b", b"\xff\xff\xff\xff\xff"]);
    assert_eq!(all(Some(b"")), [&b"a"[..], b"a\0", b"b", b"\xff\xff\xff\xff\xff"]);
    assert_eq!(all(Some(b"a")), [&b"a\0"[..], b"b", b"\xff\xff\xff\xff\xff"]);
    let mut rows = view.rows(ONE, None);
    assert_eq!(rows.skip(3).unwrap(), Step::Item(()));
    let Step::Item(item) = rows.next().unwrap() else { panic!("there is a fourth row") };
    assert_eq!(item.name, b"b");
    assert_eq!(item.head().unwrap(), RowHead { kind: Kind::String, expire_ms: Some(10) });
    assert_eq!(item.row().unwrap(), Row { expire_ms: Some(10), ..string(b"v") });
    assert_eq!(rows.skip(2).unwrap(), Step::End);
    assert!(matches!(rows.next().unwrap(), Step::End), "an ended scan stays ended");
    let mut rows = view.rows(TWO, None);
    let Step::Item(item) = rows.next().unwrap() else { panic!("there is a row") };
    assert_eq!(item.head().unwrap(), RowHead { kind: Kind::String, expire_ms: None });
    assert_eq!(view.count_rows(ONE, 9).unwrap(), counted(5, 5, 0));
    assert_eq!(view.count_rows(ONE, 10).unwrap(), counted(0, 0, 5));
    assert_eq!(view.incarnations().unwrap(), [ONE, TWO]);
}

#[test]
fn expiring_rows_are_found_when_due() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let at = |expire_ms| Row { expire_ms: Some(expire_ms), ..string(b"v") };
    commit(&mut store, 1, |batch| {
        batch.put_row(ONE, b"late", &at(3000));
        batch.put_row(TWO, b"soon", &at(1000));
        batch.put_row(ONE, b"never", &string(b"v"));
        batch.put_row(ONE, b"exactly", &at(2000));
        batch.put_row(ONE, b"far", &at(u64::MAX));
    });
    let due = |store: &Store, now_ms| {
        let view = store.view_cached();
        let mut scan = view.due(now_ms);
        let mut found = Vec::new();
        while let Step::Item(due) = scan.next().unwrap() {
            found.push((due.expire_ms, due.incarnation, due.name.to_vec()));
        }
        found
    };
    assert_eq!(due(&store, 999), []);
    assert_eq!(due(&store, 2000), [(1000, TWO, b"soon".to_vec()), (2000, ONE, b"exactly".to_vec())]);
    commit(&mut store, 2, |batch| {
        batch.delete_row(TWO, b"soon");
        batch.delete_time(1000, TWO, b"soon");
    });
    assert_eq!(due(&store, 3000), [(2000, ONE, b"exactly".to_vec()), (3000, ONE, b"late".to_vec())]);
}

#[test]
fn a_snapshot_is_one_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    put(&mut store, 1, b"a", b"before");
    let reader = store.reader();
    let (asked, ask) = std::sync::mpsc::channel();
    let (go, going) = std::sync::mpsc::channel();
    let pool = std::thread::spawn(move || {
        reader.with_snapshot(|view| {
            asked.send(()).unwrap();
            going.recv().unwrap();
            let lsn = view.applied_lsn().unwrap();
            (view.row(ONE, b"a").unwrap(), lsn, names(view.rows(ONE, None)).0.len())
        })
    });
    ask.recv().unwrap();
    put(&mut store, 2, b"a", b"after");
    put(&mut store, 3, b"b", b"new");
    go.send(()).unwrap();
    assert_eq!(pool.join().unwrap(), (Cached::Found(string(b"before")), Cached::Found(1), 1));
    assert_eq!(store.row_cached(ONE, b"a").unwrap(), Cached::Found(string(b"after")));
}

#[test]
fn what_was_just_sealed_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for lsn in 1..=1000u64 {
        put(&mut store, lsn, &lsn.to_be_bytes(), &noise(lsn, 100));
    }
    seal_and_wait(&store);
    assert_eq!(store.persisted_lsn().unwrap(), Some(1000));
    for lsn in 1..=1000u64 {
        let row = store.row_cached(ONE, &lsn.to_be_bytes()).unwrap();
        assert_eq!(row, Cached::Found(string(&noise(lsn, 100))));
    }
    assert_eq!(names(store.view_cached().rows(ONE, None)).1, Step::End);
}

/// Makes RocksDB rewrite a family's files that reach into a range of keys.
fn compact_range(store: &Store, family: key::Family, range: Option<[Vec<u8>; 2]>) {
    let reader = store.reader();
    let mut how = rocksdb::CompactOptions::default();
    how.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
    let [from, to] = range.map_or([None, None], |range| range.map(Some));
    reader.open.db.compact_range_cf_opt(reader.open.family(family), from, to, &how);
}

fn compact(store: &Store) {
    for family in key::Family::ALL {
        compact_range(store, family, None);
    }
}

fn element_count(store: &Store, name: &[u8], version: u64, count: usize) -> usize {
    let reader = store.reader();
    let view = reader.view();
    let found = |piece: &usize| {
        let sub = (*piece as u32).to_be_bytes();
        matches!(view.element(&element(ONE, name, Version(version), &sub)).unwrap(), Cached::Found(_))
    };
    (0..count).filter(found).count()
}

fn put_long(store: &mut Store, lsn: u64, name: &[u8], version: u64, count: usize) {
    commit(store, lsn, |batch| {
        for piece in 0..count {
            batch
                .put_element(&element(ONE, name, Version(version), &(piece as u32).to_be_bytes()), &[7; 100]);
        }
        batch.put_row(ONE, name, &pieces(version, count));
    });
}

#[test]
fn compaction_forgets_old_elements_only_once_the_files_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for (lsn, name) in [(1, &b"deleted"[..]), (2, b"replaced"), (3, b"shortened"), (4, b"kept")] {
        put_long(&mut store, lsn, name, lsn << 16, 50);
    }
    seal_and_wait(&store);
    let changes = |store: &mut Store, lsn| {
        put_long(store, lsn, b"replaced", lsn << 16, 50);
        commit(store, lsn + 1, |batch| {
            batch.delete_row(ONE, b"deleted");
            batch.put_row(ONE, b"shortened", &string(b"inline"));
        });
    };
    let counts = |store: &Store| {
        [(&b"deleted"[..], 1), (b"replaced", 2), (b"shortened", 3), (b"kept", 4)]
            .map(|(name, version)| element_count(store, name, version << 16, 50))
    };

    // Not in files: a crash takes it back, so the elements must still be there.
    changes(&mut store, 5);
    let deleted = [0u32, u32::MAX]
        .map(|sub| key::element_key(ONE, b"deleted", Version(1 << 16), &sub.to_be_bytes()).to_vec());
    compact_range(&store, key::Family::Element, Some(deleted));
    drop(store);
    let mut store = open(dir.path());
    assert_eq!(store.persisted_lsn().unwrap(), Some(4), "the compaction sealed nothing");
    assert_eq!(counts(&store), [50; 4]);

    changes(&mut store, 5);
    seal_and_wait(&store);
    store.reader().with_snapshot(|_| compact(&store));
    assert_eq!(counts(&store), [50; 4], "a snapshot could still need them");
    compact(&store);
    assert_eq!(counts(&store), [0, 0, 0, 50]);
    assert_eq!(element_count(&store, b"replaced", 5 << 16, 50), 50);
}

#[test]
fn dead_elements_leave_the_lowest_level_and_nothing_else_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for (lsn, name) in [(1, &b"a"[..]), (2, b"m"), (3, b"r"), (4, b"z")] {
        put_long(&mut store, lsn, name, lsn << 16, 50);
    }
    seal_and_wait(&store);
    compact(&store);
    put_long(&mut store, 5, b"r", 5 << 16, 50);
    commit(&mut store, 6, |batch| batch.delete_row(ONE, b"m"));
    seal_and_wait(&store);
    // Between the two, and not to be written out.
    put_long(&mut store, 7, b"p", 7 << 16, 50);
    let counts = |store: &Store| {
        [(&b"a"[..], 1), (b"m", 2), (b"p", 7), (b"r", 3), (b"r", 5), (b"z", 4)]
            .map(|(name, version)| element_count(store, name, version << 16, 50))
    };
    assert_eq!(counts(&store), [50; 6], "nothing else has a reason to touch their files");

    let give_back = |store: &Store, name: &[u8], version: u64| {
        let dead = DeadElements { incarnation: ONE, name: name.into(), version: Version(version << 16) };
        store.compact_job(&dead).run().unwrap()
    };
    store.reader().with_snapshot(|_| assert_eq!(give_back(&store, b"m", 2), Compacted::Pinned));
    assert_eq!(counts(&store), [50; 6]);
    assert_eq!(give_back(&store, b"m", 2), Compacted::Done);
    assert_eq!(give_back(&store, b"r", 3), Compacted::Done);
    assert_eq!(counts(&store), [50, 0, 50, 0, 50, 50]);
    // Files do not say that it is gone: a crash could bring it back.
    commit(&mut store, 8, |batch| batch.delete_row(ONE, b"z"));
    assert_eq!(give_back(&store, b"z", 4), Compacted::Partly);
    assert_eq!(counts(&store), [50, 0, 50, 0, 50, 50]);
    assert_eq!(store.persisted_lsn().unwrap(), Some(6), "nothing was sealed");
}

#[test]
fn erasing_takes_one_incarnation_and_seals_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let three = Incarnation(3);
    commit(&mut store, 1, |batch| {
        for incarnation in [ONE, TWO, three] {
            for at in 0..500u32 {
                let row = Row { expire_ms: Some(9), ..string(&noise(at.into(), 200)) };
                batch.put_row(incarnation, &at.to_be_bytes(), &row);
                batch.put_row(incarnation, b"long", &pieces(1, 1));
                batch.put_element(&element(incarnation, b"long", Version(1), &at.to_be_bytes()), &[1; 100]);
            }
            batch.put_row(incarnation, b"", &string(b"empty name"));
        }
    });
    seal_and_wait(&store);
    put(&mut store, 2, b"in memory", b"x");

    let erased = store.reader().with_snapshot(|_| store.erase_job(vec![TWO]).run().unwrap());
    assert_eq!(erased, Erased::Later, "a snapshot may still read it");
    let job = store.erase_job(vec![TWO]);
    assert_eq!(std::thread::spawn(move || job.run()).join().unwrap().unwrap(), Erased::Done);
    let reader = store.reader();
    let view = reader.view();
    assert_eq!(view.incarnations().unwrap(), [ONE, three]);
    assert_eq!(view.count_rows(ONE, 0).unwrap(), counted(503, 500, 0));
    assert_eq!(view.count_rows(TWO, 0).unwrap(), counted(0, 0, 0));
    assert_eq!(view.count_rows(three, 0).unwrap(), counted(502, 500, 0));
    assert_eq!(store.persisted_lsn().unwrap(), Some(1));
}

#[test]
fn a_refused_batch_leaves_nothing_and_goes_in_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut lsn = 0u64;
    let mut refused = None;
    let level0_stop = |store: &Store, files: &str| {
        let reader = store.reader();
        let options = [
            ("level0_file_num_compaction_trigger", "100"),
            ("level0_slowdown_writes_trigger", files),
            ("level0_stop_writes_trigger", files),
        ];
        reader.open.db.set_options_cf(reader.open.family(key::Family::Row), &options).unwrap();
    };
    level0_stop(&store, "3");
    for _ in 0..8 {
        lsn += 1;
        let mut batch = store.batch();
        batch.put_row(ONE, &lsn.to_be_bytes(), &string(b"v"));
        batch.put_element(&element(ONE, &lsn.to_be_bytes(), Version(1), b""), b"v");
        batch.set_persisted(lsn);
        match store.write(&mut batch) {
            Ok(()) => seal_and_wait(&store),
            Err(WriteError::Stalled) => {
                refused = Some(batch);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let mut batch = refused.expect("RocksDB refused");
    let pressure = store.pressure().unwrap();
    assert!(pressure.stopped && pressure.level() >= 1.0, "{pressure:?}");
    assert!(matches!(store.write(&mut batch), Err(WriteError::Stalled)), "it is still refused");
    assert_eq!(store.row_cached(ONE, &lsn.to_be_bytes()).unwrap(), Cached::Absent);
    assert_eq!(store.view_cached().applied_lsn().unwrap(), Cached::Found(lsn - 1));
    level0_stop(&store, "50");
    wait_until("the same batch goes in", || match store.write(&mut batch) {
        Ok(()) => true,
        Err(WriteError::Stalled) => false,
        Err(error) => panic!("{error}"),
    });
    assert_eq!(store.row_cached(ONE, &lsn.to_be_bytes()).unwrap(), Cached::Found(string(b"v")));
    assert_eq!(store.applied_lsn(), lsn);

    level0_stop(&store, "3");
    assert_eq!(store.seal_job(Vec::new()).run().unwrap().sealed, Sealed::Later);
    assert_eq!(store.persisted_lsn().unwrap(), Some(lsn - 1));
    level0_stop(&store, "50");
    wait_until("the seal goes through", || store.seal_job(Vec::new()).run().unwrap().sealed == Sealed::Done);
    wait_until("it is in files", || store.flushed().unwrap());
    assert_eq!(store.persisted_lsn().unwrap(), Some(lsn));
}

/// `mount -t tmpfs -o size=224m tmpfs $HAYPILE_TEST_FULL_DIR`: RocksDB heals only with more room than a
/// memtable's.
#[test]
#[ignore = "needs a file system of its own, of 200 MiB or more, in HAYPILE_TEST_FULL_DIR"]
fn a_full_disk_refuses_writes_and_heals() {
    let dir = std::path::PathBuf::from(std::env::var("HAYPILE_TEST_FULL_DIR").unwrap());
    let mut store = open(&dir.join("store"));
    let ballast = |at: usize| dir.join(format!("ballast.{at}"));
    let filled = (0..).find(|&at| std::fs::write(ballast(at), vec![1; MIB]).is_err()).unwrap();
    (filled - 4..=filled).for_each(|at| std::fs::remove_file(ballast(at)).unwrap());

    let mut lsn = 0u64;
    let mut refused = loop {
        lsn += 1;
        let mut batch = store.batch();
        batch.put_row(ONE, &lsn.to_be_bytes(), &string(&noise(lsn, 60_000)));
        batch.set_persisted(lsn);
        match store.write(&mut batch) {
            Ok(()) if lsn.is_multiple_of(20) => {
                assert_eq!(store.seal_job(Vec::new()).run().unwrap().sealed, Sealed::Done)
            }
            Ok(()) => std::thread::sleep(Duration::from_millis(1)),
            Err(WriteError::Full) => break batch,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(store.row_cached(ONE, &lsn.to_be_bytes()).unwrap(), Cached::Absent);
    assert_eq!(store.row_cached(ONE, &1u64.to_be_bytes()).unwrap(), Cached::Found(string(&noise(1, 60_000))));
    (0..filled - 4).for_each(|at| std::fs::remove_file(ballast(at)).unwrap());
    wait_until("it heals", || match store.write(&mut refused) {
        Ok(()) => true,
        Err(WriteError::Full | WriteError::Stalled) => false,
        Err(error) => panic!("{error}"),
    });
    assert!(store.persisted_lsn().unwrap() < Some(lsn));
    seal_and_wait(&store);
    assert_eq!(store.persisted_lsn().unwrap(), Some(lsn));
}

/// As RocksDB does by itself when it recovers from a full disk.
#[test]
fn rows_in_files_do_not_count_before_their_slot_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    assert_eq!(store.complete_lsn().unwrap(), None);
    put(&mut store, 5, b"row", b"v");
    seal_and_wait(&store);
    assert_eq!((store.persisted_lsn().unwrap(), store.complete_lsn().unwrap()), (Some(5), Some(0)));
    commit(&mut store, 10, |batch| batch.put_slots_lsn(10));
    seal_and_wait(&store);
    assert_eq!(store.complete_lsn().unwrap(), Some(10));
    put(&mut store, 20, b"row", b"v");
    seal_and_wait(&store);
    assert_eq!((store.persisted_lsn().unwrap(), store.complete_lsn().unwrap()), (Some(20), Some(10)));
    commit(&mut store, 21, |batch| batch.put_slots_lsn(21));
    assert_eq!(store.complete_lsn().unwrap(), Some(10));
    seal_and_wait(&store);
    assert_eq!(store.complete_lsn().unwrap(), Some(21));
}

#[test]
fn strange_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut store = open(dir.path());
        commit(&mut store, 1, |batch| batch.put_format(DIRECTORY_FORMAT + 1));
        seal_and_wait(&store);
    }
    let newer = Store::open(dir.path(), &options(), &shared()).err().expect("refused").to_string();
    assert!(newer.contains("has format 2") && newer.contains("knows up to 1"), "{newer}");

    let dir = tempfile::tempdir().unwrap();
    rocksdb::DB::open_default(dir.path()).unwrap().put(b"key", b"value").unwrap();
    let foreign = Store::open(dir.path(), &options(), &shared()).err().expect("refused");
    assert!(matches!(foreign, StoreError::Foreign { .. }), "{foreign}");

    let dir = tempfile::tempdir().unwrap();
    let none = Store::open(dir.path(), &StoreOptions { create: false, ..options() }, &shared());
    assert!(none.is_err(), "nothing is made unasked");
}

#[test]
fn batches_are_what_rocksdb_itself_would_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (name, long) = (b"name", vec![5; 300]);
    let row = Row { expire_ms: Some(77), ..string(&long) };
    let mut ours = store.batch();
    ours.put_row(ONE, name, &row);
    ours.put_element(&element(ONE, name, Version(2), &[9]), &long);
    ours.delete_row(ONE, name);
    ours.delete_element(&element(ONE, name, Version(2), &[9]));
    ours.delete_time(77, ONE, name);

    let db = &store.reader().open.db;
    let (element, time) = (db::family_of(db, key::Family::Element), db::family_of(db, key::Family::Time));
    let mut value = Vec::new();
    row.encode_into(&mut value);
    let mut theirs = rocksdb::WriteBatch::default();
    theirs.put(key::row_key(ONE, name), &value);
    theirs.put_cf(time, key::time_key(77, ONE, name), b"");
    theirs.put_cf(element, key::element_key(ONE, name, Version(2), &[9]), &long);
    theirs.delete(key::row_key(ONE, name));
    theirs.delete_cf(element, key::element_key(ONE, name, Version(2), &[9]));
    theirs.delete_cf(time, key::time_key(77, ONE, name));
    assert_eq!(ours.encoded(), theirs.data());
    assert_eq!((ours.len(), theirs.len()), (6, 6));
}

/// Not a test of anything: prints what reads and writes cost. Run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    const KEYS: u64 = 500_000;
    let dir = tempfile::tempdir().unwrap();
    let shared = SharedMemory::new(512 * MIB, 256 * MIB, 1).unwrap();
    let options = StoreOptions { memtable_target_bytes: 64 * MIB, ..options() };
    let mut order: Vec<u64> = (0..KEYS).collect();
    rand::seq::SliceRandom::shuffle(&mut order[..], &mut rand::rng());
    let name = |at: u64| format!("key:{at:012}").into_bytes();
    let value = noise(1, 128);
    {
        let mut store = Store::open(dir.path(), &options, &shared).unwrap();
        let mut batch = store.batch();
        let mut filled = Duration::ZERO;
        let row = string(&value);
        let begin = Instant::now();
        for (turn, keys) in order.chunks(16).enumerate() {
            let fill = Instant::now();
            batch.clear();
            for &at in keys {
                batch.put_row(ONE, &name(at), &row);
            }
            batch.set_persisted(turn as u64 + 1);
            filled += fill.elapsed();
            store.write(&mut batch).unwrap();
        }
        let each = |spent: Duration| spent.as_nanos() as u64 / KEYS;
        println!(
            "put in batches of 16: {} ns each, filling {} ns of it",
            each(begin.elapsed()),
            each(filled)
        );
        println!("memtables {} MiB", store.memtable_bytes().unwrap() >> 20);
        time_reads("hit in memtable", &store, &order, &name, Some(true));
        seal_and_wait(&store);
        compact(&store);
    }
    // A cache of its own: blocks keep their place in one over a reopening.
    let shared = SharedMemory::new(512 * MIB, 256 * MIB, 1).unwrap();
    let store = Store::open(dir.path(), &options, &shared).unwrap();
    time_reads("miss", &store, &order[..100_000], &name, None);
    for at in 0..KEYS {
        store.reader().warm(&[Wanted::row(ONE, &name(at))]).unwrap();
    }
    time_reads("hit in block cache", &store, &order, &name, Some(true));
    time_reads("absent", &store, &order, &|at| format!("nokey:{at:012}").into_bytes(), Some(false));
    let begin = Instant::now();
    for _ in 0..1000 {
        store.pressure().unwrap();
    }
    println!("pressure: {} ns", begin.elapsed().as_nanos() / 1000);
    println!("cache {} MiB", shared.cache_bytes() >> 20);
}

fn time_reads(what: &str, store: &Store, order: &[u64], name: &dyn Fn(u64) -> Vec<u8>, found: Option<bool>) {
    let names: Vec<_> = order.iter().map(|&at| name(at)).collect();
    let begin = Instant::now();
    let mut as_meant = 0;
    for name in &names {
        let got = match store.row_cached(ONE, name).unwrap() {
            Cached::Found(_) => Some(true),
            Cached::Absent => Some(false),
            Cached::Miss => None,
        };
        as_meant += usize::from(got == found);
    }
    println!(
        "{what}: {} ns ({as_meant} of {})",
        begin.elapsed().as_nanos() / names.len() as u128,
        names.len()
    );
}

#[test]
fn rows_between_two_names_come_from_either_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    commit(&mut store, 1, |batch| {
        for name in ["a", "b", "ba", "c"] {
            batch.put_row(TWO, name.as_bytes(), &string(b""));
            batch.put_row(ONE, b"neighbour", &string(b""));
            batch.put_row(Incarnation(3), b"neighbour", &string(b""));
        }
    });
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let reader = store.reader();
    let view = reader.view();
    let long = [&b"b"[..], &[b'a'; 70_000]].concat();
    for (low, high, expected) in [
        (Unbounded, Unbounded, vec!["a", "b", "ba", "c"]),
        (Included(&b"b"[..]), Included(&b"c"[..]), vec!["b", "ba", "c"]),
        (Excluded(b"b"), Excluded(b"c"), vec!["ba"]),
        (Included(b"aa"), Included(b"bb"), vec!["b", "ba"]),
        (Included(b"d"), Unbounded, vec![]),
        (Included(b"c"), Excluded(b"b"), vec![]),
        (Included(&long), Unbounded, vec!["c"]),
        (Unbounded, Included(&long), vec!["a", "b", "ba"]),
    ] {
        let mut expected: Vec<_> = expected.iter().map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(names(view.rows_between(TWO, low, high, false)), (expected.clone(), Step::End));
        expected.reverse();
        assert_eq!(names(view.rows_between(TWO, low, high, true)), (expected, Step::End));
    }
}

//! Another node's data on its way into files that RocksDB is given whole: neither its log nor its memtables have it.
//!
//! Always under incarnations that nobody reads yet: so the new files lie over nothing, and what a crash leaves of them
//! is garbage that the next start finds. Must not know where the data comes from.

use super::StoreError;
use super::copy::{Entry, EntryParts};
use super::db::Open;
use super::key::{Family, Incarnation, prefix, row_key};
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Some entries of one incarnation, in order and behind those of the pieces before.
pub struct Piece {
    pub incarnation: Incarnation,
    pub entries: Vec<Entry>,
}

/// How files are made beside a store.
pub(super) struct Workshop {
    dir: PathBuf,
    rows: Options,
    elements: Options,
}

impl Workshop {
    /// `dir`: holds nothing else; what is left there of an earlier life goes.
    pub fn open(dir: PathBuf, rows: Options, elements: Options) -> Result<Workshop, StoreError> {
        let failed = |error: std::io::Error| StoreError::RocksDb {
            doing: "preparing the directory for copied slots",
            cause: format!("{}: {error}", dir.display()),
        };
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::fs::create_dir(&dir).map_err(failed)?;
        Ok(Workshop { dir, rows, elements })
    }
}

/// Makes files of pieces: for the pool.
pub struct IntakeJob {
    pub(super) workshop: Arc<Workshop>,
    /// Of these files: no others have it.
    pub(super) number: u64,
    pub(super) pieces: Vec<Piece>,
}

/// Files that RocksDB does not have yet.
#[derive(Debug, Default)]
pub struct Files {
    rows: Option<PathBuf>,
    elements: Option<PathBuf>,
    /// What is in them.
    pub incarnations: Vec<Incarnation>,
    /// Moments at which something of the rows ends: they are not in the files, and belong into the time index.
    pub due: Vec<(u64, Incarnation, Vec<u8>)>,
}

/// Files that could not be made, or that RocksDB has not taken.
#[derive(Debug)]
pub struct NotTaken {
    pub incarnations: Vec<Incarnation>,
    pub why: String,
}

impl IntakeJob {
    /// # Errors
    /// Where the disk is full, or the entries are not what another node may send. Nothing is left then.
    pub fn run(mut self) -> Result<Files, NotTaken> {
        self.pieces.sort_by_key(|piece| piece.incarnation);
        let mut incarnations: Vec<_> = self.pieces.iter().map(|piece| piece.incarnation).collect();
        incarnations.dedup();
        let mut files = Files { incarnations, ..Files::default() };
        let made = self.write_rows(&mut files).and_then(|()| self.write_elements(&mut files));
        match made {
            Ok(()) => Ok(files),
            Err(why) => {
                let incarnations = std::mem::take(&mut files.incarnations);
                files.discard();
                Err(NotTaken { incarnations, why })
            }
        }
    }

    fn path(&self, what: &str) -> PathBuf {
        self.workshop.dir.join(format!("{}.{what}", self.number))
    }

    fn write_rows(&self, files: &mut Files) -> Result<(), String> {
        let mut file = Making::new(&self.workshop.rows, self.path("rows"), &mut files.rows);
        let mut encoded = Vec::new();
        for (incarnation, entry) in self.entries().filter(|(_, entry)| !entry.element) {
            let EntryParts::Row { name, row } = entry.parts()? else { unreachable!("it is no element") };
            encoded.clear();
            row.encode_into(&mut encoded);
            file.put(&row_key(incarnation, name), &encoded)?;
            let moments = row.expire_ms.into_iter().chain(row.field_expire_ms);
            files.due.extend(moments.map(|expire_ms| (expire_ms, incarnation, name.to_vec())));
        }
        file.finish()
    }

    fn write_elements(&self, files: &mut Files) -> Result<(), String> {
        let mut file = Making::new(&self.workshop.elements, self.path("elements"), &mut files.elements);
        for (incarnation, entry) in self.entries().filter(|(_, entry)| entry.element) {
            entry.parts()?;
            let mut key = prefix(incarnation);
            key.extend_from_slice(&entry.key);
            file.put(&key, &entry.value)?;
        }
        file.finish()
    }

    fn entries(&self) -> impl Iterator<Item = (Incarnation, &Entry)> {
        self.pieces.iter().flat_map(|piece| piece.entries.iter().map(|entry| (piece.incarnation, entry)))
    }
}

/// A file in the making: there is none as long as there is nothing in it.
struct Making<'a> {
    writer: SstFileWriter<'a>,
    path: PathBuf,
    made: &'a mut Option<PathBuf>,
}

impl<'a> Making<'a> {
    fn new(options: &'a Options, path: PathBuf, made: &'a mut Option<PathBuf>) -> Making<'a> {
        Making { writer: SstFileWriter::create(options), path, made }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if self.made.is_none() {
            // Said first: of a file that cannot be begun something may be there.
            *self.made = Some(self.path.clone());
            self.writer.open(&self.path).map_err(rocksdb::Error::into_string)?;
        }
        self.writer.put(key, value).map_err(rocksdb::Error::into_string)
    }

    fn finish(mut self) -> Result<(), String> {
        match self.made {
            Some(_) => self.writer.finish().map_err(rocksdb::Error::into_string),
            None => Ok(()),
        }
    }
}

impl Files {
    /// They are not wanted any more.
    pub fn discard(self) {
        for path in self.rows.iter().chain(&self.elements) {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a file of copied slots could not be removed");
            }
        }
    }
}

/// Gives RocksDB files; rows first, for elements whose row no file has would be forgotten. It has them on its disk when
/// this returns. Waits for writes under way, and lets none begin.
pub(super) fn ingest(open: &Open, files: Vec<Files>) -> Result<(), NotTaken> {
    let paths = |of: fn(&Files) -> &Option<PathBuf>| files.iter().filter_map(of_path(of)).collect::<Vec<_>>();
    let (rows, elements) = (paths(|files| &files.rows), paths(|files| &files.elements));
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    let families = [(Family::Row, rows), (Family::Element, elements)];
    let taken =
        families.into_iter().filter(|(_, paths)| !paths.is_empty()).try_for_each(|(family, paths)| {
            open.db.ingest_external_file_cf_opts(open.family(family), &options, paths)
        });
    let Err(error) = taken else { return Ok(()) };
    let incarnations = files.iter().flat_map(|files| files.incarnations.clone()).collect();
    files.into_iter().for_each(Files::discard);
    Err(NotTaken { incarnations, why: error.into_string() })
}

fn of_path(of: fn(&Files) -> &Option<PathBuf>) -> impl for<'f> Fn(&'f Files) -> Option<&'f Path> {
    move |files| of(files).as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::row::Version;
    use crate::store::{ElementKey, Row, Sealed, SharedMemory, Store, StoreOptions};
    use bytes::Bytes;

    fn open(dir: &Path) -> Store {
        let shared = SharedMemory::new(64 << 20, 64 << 20, 1).expect("there is memory");
        let options = StoreOptions { create: true, memtable_target_bytes: 4 << 20, direct_io: false };
        Store::open(dir, &options, &shared).expect("an empty directory, or a store's")
    }

    fn row(name: &str, expire_ms: Option<u64>) -> Entry {
        let row = Row { expire_ms, ..Row::string(Bytes::copy_from_slice(name.as_bytes())) };
        let mut value = Vec::new();
        row.encode_into(&mut value);
        Entry { element: false, key: Bytes::copy_from_slice(name.as_bytes()), value: value.into() }
    }

    fn element(name: &str, sub: &[u8]) -> Entry {
        let key = ElementKey::new(Incarnation(1), name.as_bytes(), Version(7), sub);
        Entry { element: true, key: Bytes::copy_from_slice(&key.0[4..]), value: Bytes::from_static(b"value") }
    }

    fn piece(incarnation: u32, entries: Vec<Entry>) -> Piece {
        Piece { incarnation: Incarnation(incarnation), entries }
    }

    fn entries(store: &Store, incarnation: u32) -> Vec<Entry> {
        let mut found = Vec::new();
        let mut visit = |element: bool, key: &[u8], value: &[u8]| {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            found.push(Entry { element, key, value });
            true
        };
        store.reader().view().entries(Incarnation(incarnation), &mut visit).expect("it can be read");
        found
    }

    fn left(dir: &Path) -> usize {
        std::fs::read_dir(dir.join("copies")).expect("it is made at the start").count()
    }

    #[test]
    fn what_is_copied_is_there_when_it_is_sealed_and_not_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        // Of two slots that come at the same time, one in two pieces.
        let pieces = vec![
            piece(6, vec![row("a", None), row("b", Some(5))]),
            piece(5, vec![row("z", Some(9)), element("z", b"1")]),
            piece(6, vec![row("c", None), element("a", b"1"), element("a", b"2")]),
        ];
        let files = store.intake_job(1, pieces).run().expect("the disk works");
        assert_eq!(files.incarnations, [Incarnation(5), Incarnation(6)]);
        let due = |expire_ms, incarnation, name: &str| (expire_ms, Incarnation(incarnation), name.into());
        assert_eq!(files.due, [due(9, 5, "z"), due(5, 6, "b")]);
        assert_eq!((entries(&store, 6).len(), left(dir.path())), (0, 2));
        let done = store.seal_job(vec![files]).run().expect("the disk works");
        assert_eq!((done.sealed, done.files.len(), done.not_taken.is_none()), (Sealed::Done, 0, true));
        assert_eq!(entries(&store, 5), [row("z", Some(9)), element("z", b"1")]);
        let six = [row("a", None), row("b", Some(5)), row("c", None), element("a", b"1"), element("a", b"2")];
        assert_eq!(entries(&store, 6), six);
        assert_eq!((left(dir.path()), store.beyond_files().expect("it can be read")), (0, Incarnation(7)));
        drop(store);
        // Without a seal of its own: it is in files already.
        assert_eq!(entries(&open(dir.path()), 6), six);
    }

    #[test]
    fn what_no_node_sends_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        let broken = Entry { value: Bytes::from_static(b"?"), ..row("b", None) };
        let short = Entry { key: Bytes::from_static(b"k"), ..element("a", b"1") };
        for (number, wrong) in [
            vec![row("b", None), row("a", None)],
            vec![row("a", None), row("a", None)],
            vec![row("a", None), broken],
            vec![row("a", None), element("a", b"2"), element("a", b"1")],
            vec![row("a", None), short],
        ]
        .into_iter()
        .enumerate()
        {
            let pieces = vec![piece(2, vec![row("a", None)]), piece(3, wrong)];
            let not_taken = store.intake_job(number as u64, pieces).run().expect_err("it is wrong");
            assert_eq!(not_taken.incarnations, [Incarnation(2), Incarnation(3)]);
            assert_eq!(left(dir.path()), 0, "{}", not_taken.why);
        }
        assert_eq!(entries(&store, 2), []);
    }

    #[test]
    fn files_that_were_handed_over_to_nobody_go_with_the_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        store.intake_job(1, vec![piece(9, vec![row("a", None)])]).run().expect("the disk works");
        assert_eq!(left(dir.path()), 1);
        drop(store);
        let store = open(dir.path());
        assert_eq!((left(dir.path()), store.beyond_files().expect("it can be read")), (0, Incarnation(1)));
    }

    #[test]
    fn files_that_have_gone_are_not_taken_and_the_store_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        let files = store.intake_job(1, vec![piece(4, vec![row("a", None)])]).run().expect("the disk works");
        std::fs::remove_file(files.rows.as_ref().expect("it has rows")).expect("it is there");
        let done = store.seal_job(vec![files]).run().expect("the seal is done all the same");
        assert_eq!(done.not_taken.expect("it is said").incarnations, [Incarnation(4)]);
        let files = store.intake_job(2, vec![piece(4, vec![row("a", None)])]).run().expect("the disk works");
        assert!(store.seal_job(vec![files]).run().expect("the disk works").not_taken.is_none());
        assert_eq!(entries(&store, 4), [row("a", None)]);
    }
}

//! A disk in memory whose power can be cut: unsynced writes are dropped, torn at sectors, reordered.
//!
//! For tests. Names are as fragile as contents: a create, rename or remove counts only after `sync_dir`.

use super::disk::{Disk, DiskFile};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const SECTOR_BYTES: usize = 512;

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    live: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

struct SimFile {
    content: Mutex<Content>,
    limits: Arc<Mutex<Limits>>,
}

/// What the disk will still do, where that is limited.
#[derive(Default)]
struct Limits {
    bytes: Option<u64>,
    changes: Option<u64>,
}

impl Limits {
    /// Counts one change of the disk.
    fn change(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.changes {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the power is off"))?;
        }
        Ok(())
    }
}

enum NameChange {
    Set(PathBuf, Arc<SimFile>),
    Move(PathBuf, PathBuf, Arc<SimFile>),
    Remove(PathBuf),
}

#[derive(Default)]
struct Names {
    durable: BTreeMap<PathBuf, Arc<SimFile>>,
    live: BTreeMap<PathBuf, Arc<SimFile>>,
    pending: Vec<NameChange>,
}

/// Clones share the disk.
#[derive(Clone)]
pub struct SimDisk {
    names: Arc<Mutex<Names>>,
    random: Arc<Mutex<StdRng>>,
    limits: Arc<Mutex<Limits>>,
}

fn write_into(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk {
            names: Arc::default(),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            limits: Arc::default(),
        }
    }

    /// From now on only so many bytes can be allocated; None: as many as wanted.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.limits.lock().expect("no test thread panicked").bytes = bytes;
    }

    /// After so many more changes every further one fails; None: none fails.
    pub fn limit_changes(&self, changes: Option<u64>) {
        self.limits.lock().expect("no test thread panicked").changes = changes;
    }

    fn change(&self) -> io::Result<()> {
        self.limits.lock().expect("no test thread panicked").change()
    }

    /// Cuts the power: what is left is what was synced, and a random part of what was not.
    pub fn crash(&self, seed: u64) {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut names = self.names.lock().expect("no test thread panicked");
        let names = &mut *names;
        let keep = [0.0, 0.5, 0.9, 1.0][random.random_range(0..4)];
        for change in names.pending.drain(..) {
            if !random.random_bool(keep) {
                continue;
            }
            match change {
                NameChange::Set(path, file) => {
                    names.durable.insert(path, file);
                }
                NameChange::Move(from, to, file) => {
                    if names.durable.get(&from).is_some_and(|old| Arc::ptr_eq(old, &file)) {
                        names.durable.remove(&from);
                    }
                    names.durable.insert(to, file);
                }
                NameChange::Remove(path) => {
                    names.durable.remove(&path);
                }
            }
        }
        // A file has one name: a move that was lost leaves the old one.
        let mut seen: Vec<Arc<SimFile>> = Vec::new();
        names.durable.retain(|_, file| {
            let new = !seen.iter().any(|old| Arc::ptr_eq(old, file));
            seen.push(file.clone());
            new
        });
        names.live = names.durable.clone();
        for file in names.live.values() {
            file.content.lock().expect("no test thread panicked").crash(random);
        }
    }

    /// Flips one bit of a file, durably.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) {
        let names = self.names.lock().expect("no test thread panicked");
        let mut content = names.live[path].content.lock().expect("no test thread panicked");
        content.live[offset as usize] ^= 1 << bit;
        content.durable = content.live.clone();
        content.pending.clear();
    }

    /// A copy of a file's bytes as they are read now.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let names = self.names.lock().expect("no test thread panicked");
        names.live[path].content.lock().expect("no test thread panicked").live.clone()
    }
}

impl Content {
    fn crash(&mut self, random: &mut StdRng) {
        let keep = [0.0, 0.3, 0.7, 0.97, 1.0][random.random_range(0..5)];
        // In any order: of two writes to one sector, the older may win only if the newer is lost.
        for (offset, data) in self.pending.drain(..) {
            let mut at = 0;
            while at < data.len() {
                let sector_end = (offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - offset;
                let end = sector_end.min(data.len());
                if random.random_bool(keep) {
                    write_into(&mut self.durable, offset + at, &data[at..end]);
                }
                at = end;
            }
        }
        self.live = self.durable.clone();
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.change()?;
        let mut names = self.names.lock().expect("no test thread panicked");
        let file = Arc::new(SimFile { content: Mutex::default(), limits: self.limits.clone() });
        names.live.insert(path.into(), file.clone());
        names.pending.push(NameChange::Set(path.into(), file.clone()));
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let names = self.names.lock().expect("no test thread panicked");
        let file = names.live.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        let mut names = self.names.lock().expect("no test thread panicked");
        let file = names.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.live.insert(to.into(), file.clone());
        names.pending.push(NameChange::Move(from.into(), to.into(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        let mut names = self.names.lock().expect("no test thread panicked");
        names.live.remove(path).ok_or(io::ErrorKind::NotFound)?;
        names.pending.push(NameChange::Remove(path.into()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.names.lock().expect("no test thread panicked");
        let inside = names.live.keys().filter_map(|path| path.strip_prefix(dir).ok());
        Ok(inside.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.change()?;
        let mut names = self.names.lock().expect("no test thread panicked");
        names.pending.clear();
        names.durable = names.live.clone();
        Ok(())
    }

    fn random(&self) -> u64 {
        self.random.lock().expect("no test thread panicked").random()
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content.lock().expect("no test thread panicked");
        let grows = (offset + bytes.len() as u64).saturating_sub(content.live.len() as u64);
        let mut limits = self.limits.lock().expect("no test thread panicked");
        limits.change()?;
        if let Some(left) = &mut limits.bytes {
            *left = left.checked_sub(grows).ok_or(io::ErrorKind::StorageFull)?;
        }
        write_into(&mut content.live, offset as usize, bytes);
        content.pending.push((offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = self.content.lock().expect("no test thread panicked");
        let rest = content.live.get(offset as usize..).unwrap_or(&[]);
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.limits.lock().expect("no test thread panicked").change()?;
        let mut content = self.content.lock().expect("no test thread panicked");
        for (offset, data) in std::mem::take(&mut content.pending) {
            write_into(&mut content.durable, offset, &data);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().expect("no test thread panicked").live.len() as u64)
    }
}

//! The data directory: who may use it, what it is, and what in it can never change.
//!
//! `haypile.id` is a small TOML file, written when the directory is made and when shards are added; `lock` is held
//! while a server runs.

use crate::error::Fault;
use crate::replicator::kept;
use crate::slot::SlotHash;
use crate::slot::placement::Placement;
use crate::whole_file;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

/// Version of the directory as a whole; a higher one is refused.
const DIRECTORY_FORMAT: u32 = 1;

/// What was settled when the directory was made; shards may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub format: u32,
    /// 40 hex digits, chosen at random.
    pub id: String,
    pub shards: u16,
    /// `crc32` or `crc16`.
    pub slot_hash: String,
    pub slots: u16,
}

impl Identity {
    pub fn hash(&self) -> SlotHash {
        if self.slot_hash == "crc16" { SlotHash::Crc16 } else { SlotHash::Crc32 { slots: self.slots } }
    }
}

/// A data directory in use by this process.
pub struct DataDir {
    pub path: PathBuf,
    pub identity: Identity,
    /// Which shards the slots lie on.
    pub placement: Placement,
    /// It was made just now.
    pub is_new: bool,
    /// Held until the process ends.
    _lock: File,
}

/// What a new directory is to be, and what an old one must be where the user has said so.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// None: as the directory is, or one for each core. More than the directory has are added.
    pub shards: Option<u16>,
    pub shards_if_new: u16,
    pub hash: SlotHash,
}

impl DataDir {
    /// Opens or makes the directory. Every refusal says what to do.
    pub fn open(path: &Path, wanted: Wanted) -> Result<DataDir, Fault> {
        let fault = |doing: &str, why: &dyn std::fmt::Display| at(path, doing, why);
        fs::create_dir_all(path).map_err(|error| fault("making the data directory", &error))?;
        let lock = lock(path)?;
        let file = path.join("haypile.id");
        let mut is_new = false;
        let mut identity = match fs::read_to_string(&file) {
            Ok(text) => read(&text).map_err(|why| fault("reading haypile.id", &why))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                refuse_strangers(path)?;
                let identity = fresh(wanted).map_err(|error| fault("choosing an identity", &error))?;
                write(path, &identity).map_err(|error| fault("writing haypile.id", &error))?;
                is_new = true;
                identity
            }
            Err(error) => return Err(fault("reading haypile.id", &error)),
        };
        agree(&identity, wanted).map_err(|why| fault("starting", &why))?;
        let mut placement = placement(path, &identity)?;
        if let Some(shards) = wanted.shards.filter(|shards| *shards > identity.shards) {
            placement = placement.grown(shards);
            tracing::info!(from = identity.shards, to = shards, "adding shards, which have no slots yet");
            identity.shards = shards;
            grow(path, &identity, &placement).map_err(|error| fault("adding shards", &error))?;
        }
        Ok(DataDir { path: path.to_path_buf(), identity, placement, is_new, _lock: lock })
    }

    /// One that is there already, for whoever looks at it while no server does.
    pub fn existing(path: &Path) -> Result<DataDir, Fault> {
        let file = path.join("haypile.id");
        let text = fs::read_to_string(&file).map_err(|error| at(path, "reading haypile.id", &error))?;
        let identity = read(&text).map_err(|why| at(path, "reading haypile.id", &why))?;
        let placement = placement(path, &identity)?;
        Ok(DataDir { path: path.to_path_buf(), identity, placement, is_new: false, _lock: lock(path)? })
    }

    pub fn shard(&self, shard: u16) -> PathBuf {
        self.path.join(format!("shard-{shard:03}"))
    }
}

fn at(path: &Path, doing: &str, why: &dyn std::fmt::Display) -> Fault {
    Fault::new(format!("{doing} in {}", path.display()), why)
}

fn lock(path: &Path) -> Result<File, Fault> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(|error| at(path, "opening the lock file", &error))?;
    let used = "another server uses this data directory; stop it or choose another --data-dir";
    lock.try_lock().map_err(|_| at(path, "starting", &used))?;
    Ok(lock)
}

fn read(text: &str) -> Result<Identity, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = toml::from_str(text).map_err(|error| error.to_string())?;
    if head.format > DIRECTORY_FORMAT {
        return Err(format!(
            "the data directory has format {}; this program knows up to {DIRECTORY_FORMAT}: use the program that \
             made it, or a newer one",
            head.format
        ));
    }
    let identity: Identity = toml::from_str(text).map_err(|error| error.to_string())?;
    let is_id = identity.id.len() == 40 && identity.id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id
        || identity.shards == 0
        || identity.slots == 0
        || !["crc16", "crc32"].contains(&&*identity.slot_hash)
    {
        return Err("it holds values no server has written".into());
    }
    Ok(identity)
}

/// A directory with something in it that is not ours is left alone.
fn refuse_strangers(path: &Path) -> Result<(), Fault> {
    let listing = |error| Fault::new(format!("listing {}", path.display()), error);
    for entry in fs::read_dir(path).map_err(listing)? {
        let name = entry.map_err(listing)?.file_name();
        if name != "lock" && name != "lost+found" && name != "haypile.id.new" {
            let why = format!(
                "it holds {} but no haypile.id: not a data directory of this program",
                name.to_string_lossy()
            );
            return Err(Fault::new(format!("starting in {}", path.display()), why));
        }
    }
    Ok(())
}

fn fresh(wanted: Wanted) -> std::io::Result<Identity> {
    let mut random = [0; 20];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    let (slot_hash, slots) = match wanted.hash {
        SlotHash::Crc16 => ("crc16", crate::slot::CLUSTER_SLOTS),
        SlotHash::Crc32 { slots } => ("crc32", slots),
    };
    Ok(Identity {
        format: DIRECTORY_FORMAT,
        id: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        shards: wanted.shards.unwrap_or(wanted.shards_if_new),
        slot_hash: slot_hash.into(),
        slots,
    })
}

fn write(path: &Path, identity: &Identity) -> std::io::Result<()> {
    let text = toml::to_string(identity).expect("plain fields are always TOML");
    whole_file::replace(&path.join("haypile.id"), text.as_bytes())
}

fn placement(path: &Path, identity: &Identity) -> Result<Placement, Fault> {
    kept::read_placement(&kept::placement_path(path), identity.slots, identity.shards)
}

/// Writes down that there are more shards: where the slots lie first, since they are not spread evenly over the new
/// number.
fn grow(path: &Path, identity: &Identity, placement: &Placement) -> std::io::Result<()> {
    kept::write_placement(&kept::placement_path(path), placement)?;
    write(path, identity)
}

fn agree(identity: &Identity, wanted: Wanted) -> Result<(), String> {
    if let Some(shards) = wanted.shards
        && shards < identity.shards
    {
        return Err(format!(
            "this data directory has {} shards, not {shards}: the number only grows; leave --shards out",
            identity.shards
        ));
    }
    if identity.hash() != wanted.hash {
        return Err(format!(
            "this data directory hashes keys with {} over {} slots, which is fixed: set slot_hash = \"{}\" and \
             default_slot_num = {}",
            identity.slot_hash, identity.slots, identity.slot_hash, identity.slots
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { shards: None, shards_if_new: 2, hash: SlotHash::Crc32 { slots: 1024 } };

    fn refused(path: &Path, wanted: Wanted) -> String {
        match DataDir::open(path, wanted) {
            Ok(_) => panic!("it must be refused"),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn a_directory_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), WANTED).unwrap();
        assert!(refused(dir.path(), WANTED).contains("another server uses this data directory"));
        let identity = first.identity.clone();
        assert_eq!((identity.shards, identity.id.len()), (2, 40));
        drop(first);
        let again = DataDir::open(dir.path(), Wanted { shards_if_new: 8, ..WANTED }).unwrap();
        assert_eq!(again.identity, identity);
        drop(again);
        assert!(refused(dir.path(), Wanted { shards: Some(1), ..WANTED }).contains("has 2 shards, not 1"));
        assert!(refused(dir.path(), Wanted { hash: SlotHash::Crc16, ..WANTED }).contains("crc32 over 1024"));
    }

    #[test]
    fn shards_are_added_and_slots_stay_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let before = DataDir::open(dir.path(), WANTED).unwrap().placement;
        let more = Wanted { shards: Some(5), ..WANTED };
        let grown = DataDir::open(dir.path(), more).unwrap();
        assert_eq!((grown.identity.shards, &grown.placement), (5, &before.grown(5)));
        drop(grown);
        let again = DataDir::open(dir.path(), WANTED).unwrap();
        assert_eq!((again.identity.shards, &again.placement), (5, &before.grown(5)));
        drop(again);
        // An end between the two files leaves the old number of shards.
        write(dir.path(), &Identity { shards: 2, ..DataDir::open(dir.path(), WANTED).unwrap().identity })
            .unwrap();
        assert_eq!(DataDir::open(dir.path(), WANTED).unwrap().placement, before);
        fs::write(dir.path().join("placement.toml"), "format = 1\nshard = []\n").unwrap();
        assert!(refused(dir.path(), WANTED).contains("slot 0 stands nowhere"));
    }

    #[test]
    fn newer_and_foreign_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("haypile.id"), "format = 2\nnews = true\n").unwrap();
        assert!(refused(dir.path(), WANTED).contains("has format 2"));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dump.rdb"), "REDIS").unwrap();
        assert!(refused(dir.path(), WANTED).contains("dump.rdb"));
    }
}

//! The files in the data directory that say which slots a node in sharding mode has (`slots.toml`), and on which of
//! its shards slots lie (`placement.toml`).
//!
//! Must not know what is in them, nor why they change. The formats: `server/FORMAT.md`.

use crate::error::Fault;
use crate::slot::assignment::Assignment;
use crate::slot::placement::Placement;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const NAME: &str = "slots.toml";
const PLACEMENT: &str = "placement.toml";

/// Where it is, in this data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// What it says; None: there is none.
pub fn read(file: &Path) -> Result<Option<Assignment>, Fault> {
    let fault = |why: String| Fault::new(format!("reading {}", file.display()), why);
    match fs::read_to_string(file) {
        Ok(text) => Assignment::from_toml(&text).map(Some).map_err(fault),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault(error.to_string())),
    }
}

/// Writes it anew: whole or not at all, and on disk when this returns.
pub fn write(file: &Path, assignment: &Assignment) -> io::Result<()> {
    replace(file, &assignment.to_toml())
}

/// Where the file is that says on which shards slots lie.
pub fn placement_path(data_dir: &Path) -> PathBuf {
    data_dir.join(PLACEMENT)
}

/// Which shards slots lie on, of a node with so many of both; where nothing is kept they are spread evenly.
pub fn read_placement(file: &Path, slots: u16, shards: u16) -> Result<Placement, Fault> {
    let fault = |why: String| Fault::new(format!("reading {}", file.display()), why);
    match fs::read_to_string(file) {
        Ok(text) => Placement::from_toml(&text, slots, shards).map_err(fault),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Placement::even(slots, shards)),
        Err(error) => Err(fault(error.to_string())),
    }
}

/// As `write`.
pub fn write_placement(file: &Path, placement: &Placement) -> io::Result<()> {
    replace(file, &placement.to_toml())
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("toml.new");
    let mut written = File::create(&new)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    let dir = file.parent().expect("it lies in the data directory");
    File::open(dir)?.sync_all()
}

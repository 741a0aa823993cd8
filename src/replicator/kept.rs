//! The files in the data directory that say which slots a node in sharding mode has (`slots.toml`), and on which of
//! its shards slots lie (`placement.toml`).
//!
//! Must not know what is in them, nor why they change. The formats: `server/FORMAT.md`.

use crate::error::Fault;
use crate::slot::assignment::Assignment;
use crate::slot::placement::Placement;
use crate::whole_file;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const NAME: &str = "slots.toml";
const PLACEMENT: &str = "placement.toml";

/// Where it is, in this data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// What it says; None: there is none.
pub fn read(file: &Path) -> Result<Option<Assignment>, Fault> {
    parsed(file, Assignment::from_toml)
}

fn parsed<T>(file: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Fault> {
    let fault = |why: String| Fault::new(format!("reading {}", file.display()), why);
    match fs::read_to_string(file) {
        Ok(text) => parse(&text).map(Some).map_err(fault),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault(error.to_string())),
    }
}

/// Writes it anew: whole or not at all, and on disk when this returns.
pub fn write(file: &Path, assignment: &Assignment) -> io::Result<()> {
    whole_file::replace(file, assignment.to_toml().as_bytes())
}

/// Where the file is that says on which shards slots lie.
pub fn placement_path(data_dir: &Path) -> PathBuf {
    data_dir.join(PLACEMENT)
}

/// Which shards slots lie on, of a node with so many of both; where nothing is kept they are spread evenly.
pub fn read_placement(file: &Path, slots: u16, shards: u16) -> Result<Placement, Fault> {
    let kept = parsed(file, |text| Placement::from_toml(text, slots, shards))?;
    Ok(kept.unwrap_or_else(|| Placement::even(slots, shards)))
}

/// As `write`.
pub fn write_placement(file: &Path, placement: &Placement) -> io::Result<()> {
    whole_file::replace(file, placement.to_toml().as_bytes())
}

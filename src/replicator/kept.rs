//! The file that says which slots a node in sharding mode has: `slots.toml` in the data directory.
//!
//! Must not know what is in it, nor why it changes. The format: `server/FORMAT.md`.

use crate::error::Fault;
use crate::slot::assignment::Assignment;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const NAME: &str = "slots.toml";

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
    let new = file.with_extension("toml.new");
    let mut written = File::create(&new)?;
    written.write_all(assignment.to_toml().as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    let dir = file.parent().expect("it lies in the data directory");
    File::open(dir)?.sync_all()
}

//! Files that are replaced as a whole: a reader finds the old one or the new one, also after a crash.
//!
//! Must not know what is in them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces a file, or makes it; it is on disk when this returns. Who could not read the old one cannot read the
/// new one either.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path);
    let mut file = File::create(&new)?;
    match fs::metadata(path) {
        Ok(old) => file.set_permissions(old.permissions())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory(path))?.sync_all()
}

/// Where the new one is written: what an end in between leaves there counts for nothing.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_made_and_replaced_and_keeps_who_may_read_it() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let path = dir.path().join("file.toml");
        replace(&path, b"one").expect("it is made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        fs::write(beside(&path), b"left by an end in between").expect("it is writable");
        replace(&path, b"two").expect("it is replaced");
        assert_eq!(fs::read(&path).expect("it is there"), b"two");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert!(!beside(&path).exists());
    }
}

//! Waiting for the ring's eventfd inside a glommio executor.
//!
//! Must not know when a ring may sleep; `doorbell` has that protocol.

use crate::runtime::doorbell::Doorbell;
use glommio::io::BufferedFile;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};

/// glommio's file over a second descriptor of the eventfd; made and dropped on its executor.
pub(super) struct Bed(BufferedFile);

impl Bed {
    pub fn new(doorbell: &Doorbell) -> io::Result<Bed> {
        let fd = doorbell.reader()?.into_raw_fd();
        // SAFETY: `fd` is open and was ours alone; glommio's file owns and closes it from here on.
        Ok(Bed(unsafe { BufferedFile::from_raw_fd(fd) }))
    }

    /// Until the eventfd is written to; at once if it was since the last time.
    pub async fn until_woken(&self) -> io::Result<()> {
        self.0.read_at(0, 8).await.map(drop).map_err(|e| io::Error::other(e.to_string()))
    }
}

//! Standard output, line by line; what is said to be out is out.
//!
//! Must not know what the lines say.

use serde_json::Value;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

const BUFFER_BYTES: usize = 256 << 10;
/// This process's standard output, to be looked at: it may be open for writing alone.
const STDOUT_PATH: &str = "/proc/self/fd/1";

pub struct Output {
    out: BufWriter<File>,
    /// What is written to it may be lost by a power failure until it is synced.
    is_file: bool,
}

impl Output {
    /// Begins a new line if a kill has left half of one at the end of the file.
    pub fn open() -> io::Result<Output> {
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let found = out.metadata()?;
        let is_file = found.is_file();
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        // Where that cannot be seen an empty line does no harm.
        if is_file && found.len() > 0 && !ends_a_line().unwrap_or(false) {
            out.write_all(b"\n")?;
        }
        Ok(Output { out, is_file })
    }

    pub fn line(&mut self, line: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    /// Everything is with the kernel.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Everything is on disk, if it is a file.
    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.is_file { self.out.get_ref().sync_data() } else { Ok(()) }
    }
}

fn ends_a_line() -> io::Result<bool> {
    let mut file = File::open(STDOUT_PATH)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

//! The records of a directory below `dropped`: what a node had and its primary had not.
//!
//! Must not know how they came there, nor logs.

use super::line::{self, Shown};
use super::{Options, is_broken_pipe};
use crate::binlog::Lsn;
use crate::limits::{REPLICA_MESSAGE_MAX_BYTES, REPLICA_READ_BYTES};
use crate::replica::decode::Decoder;
use crate::replica::wire::Message;
use crate::replicator::dropped::{HEAD, RECORDS};
use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The file with the records, if this is such a directory.
pub fn records_of(dir: &Path) -> Option<PathBuf> {
    Some(dir.join(RECORDS)).filter(|file| file.is_file())
}

/// Prints what was chosen of a file.
pub fn print(file: &Path, from: Lsn, options: &Options, out: &mut dyn Write) -> ExitCode {
    match print_records(file, from, options, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("haypile: {}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn print_records(
    file: &Path,
    from: Lsn,
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), Box<dyn Error>> {
    let mut file = File::open(file)?;
    let mut head = vec![0; HEAD.len()];
    file.read_exact(&mut head)?;
    if head != HEAD {
        return Err("not a file of dropped records that this version knows".into());
    }
    let mut decoder = Decoder::new(REPLICA_MESSAGE_MAX_BYTES);
    let mut bytes = vec![0; REPLICA_READ_BYTES];
    loop {
        let filled = file.read(&mut bytes)?;
        if filled == 0 {
            out.flush()?;
            return if decoder.is_empty() { Ok(()) } else { Err("it ends within a record".into()) };
        }
        decoder.feed(&bytes[..filled]);
        while let Some(message) = decoder.next_message()? {
            let Message::Record(record) = message else { return Err("it holds more than records".into()) };
            let chosen = options.shard.is_none_or(|shard| shard == record.stream.0) && record.lsn >= from;
            if chosen && options.holds(record.time_ms, &record.touches) {
                let (shard, lsn, time_ms) = (record.stream, record.lsn, record.time_ms);
                let shown =
                    Shown { shard, lsn, time_ms, touches: &record.touches, body: record.body, frame: None };
                writeln!(out, "{}", line::record(&shown, options.shown_bytes())?)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn printed(bytes: &[u8]) -> (bool, String) {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(RECORDS), bytes).expect("it is writable");
        let file = records_of(dir.path()).expect("it is there");
        let mut out = Vec::new();
        let options = Options::parse_from(["binlog"]);
        let done = print_records(&file, Lsn::ZERO, &options, &mut out);
        (done.is_ok(), String::from_utf8(out).expect("lines are text"))
    }

    #[test]
    fn a_file_that_is_another_or_ends_early_is_no_quiet_end() {
        assert_eq!(printed(HEAD), (true, String::new()));
        assert!(!printed(b"haypile").0 && !printed(b"haypile dropped 2\n").0);
        assert!(!printed(&[HEAD, &[9, 0, 0]].concat()).0);
        assert!(!printed(&[HEAD, &[0; 40]].concat()).0);
    }
}

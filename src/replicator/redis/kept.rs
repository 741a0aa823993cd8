//! Where in a Redis's stream this node stands, kept over a stop, in a file of the data directory.
//!
//! It counts only while all logs end where they ended then: so neither a power failure, nor another write, nor a
//! directory copied back from somewhere can make it wrong. Knows no link.

use crate::replica::redis::{Place, Resume};
use crate::whole_file;
use std::fs;
use std::io;
use std::path::Path;

const TITLE: &str = "haypile redis-stream 1";

/// The place, and under what it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub host: String,
    pub port: u16,
    pub resume: Resume,
    /// By shard: the LSN of its log's last record.
    pub ends: Vec<u64>,
}

impl Kept {
    /// None if a word would not be read back as it is.
    fn text(&self) -> Option<String> {
        let Kept { host, port, resume, ends } = self;
        let Resume { replid, place: Place { offset, db }, done_behind } = resume;
        let ends: Vec<String> = ends.iter().map(u64::to_string).collect();
        let text = format!(
            "{TITLE}\nprimary {host} {port}\nstream {replid} {offset} {db} {done_behind}\nlogs {}\n",
            ends.join(" ")
        );
        Kept::parse(&text).filter(|read| read == self).map(|_| text)
    }

    fn parse(text: &str) -> Option<Kept> {
        let mut lines = text.lines().map(|line| line.split(' '));
        let mut line = |title: &str| {
            let mut words = lines.next()?;
            (words.next() == Some(title)).then(|| words.collect::<Vec<_>>())
        };
        let title = line("haypile")?;
        let [host, port] = line("primary")?[..] else { return None };
        let [replid, offset, db, behind] = line("stream")?[..] else { return None };
        let ends: Option<Vec<u64>> = line("logs")?.into_iter().map(|end| end.parse().ok()).collect();
        if title != ["redis-stream", "1"] {
            return None;
        }
        let place = Place { offset: offset.parse().ok()?, db: db.parse().ok()? };
        let resume = Resume { replid: replid.to_owned(), place, done_behind: behind.parse().ok()? };
        Some(Kept { host: host.to_owned(), port: port.parse().ok()?, resume, ends: ends? })
    }

    /// Replaces the file as a whole. Waits for the disk.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = self.text().ok_or(io::Error::other("a name in it cannot be written"))?;
        whole_file::replace(path, text.as_bytes())
    }

    /// What the file says; None if there is none, or it says nothing that is known.
    pub fn read(path: &Path) -> io::Result<Option<Kept>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Kept::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(host: &str) -> Kept {
        let resume = Resume { replid: "abc".into(), place: Place { offset: 77, db: 3 }, done_behind: 2 };
        Kept { host: host.into(), port: 6379, resume, ends: vec![5, 0, u64::MAX] }
    }

    #[test]
    fn what_is_written_is_read_back_or_not_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("redis-stream");
        assert_eq!(Kept::read(&path).expect("no file is no error"), None);
        kept("redis.example").write(&path).expect("the directory is writable");
        assert_eq!(Kept::read(&path).expect("it was written"), Some(kept("redis.example")));
        for host in ["two words", "a line\nstream x 1 1"] {
            assert!(kept(host).write(&path).is_err(), "{host}");
        }
        for text in ["", "haypile redis-stream 2\n", "haypile redis-stream 1\nprimary a\n"] {
            fs::write(&path, text).expect("the directory is writable");
            assert_eq!(Kept::read(&path).expect("it is there"), None, "{text}");
        }
    }
}

//! Commands on their way to our own server, and its answers, in order. Knows no primary.
//!
//! So many may be under way at once; what they were is remembered until they are answered.

use crate::replica::redis::commands::{Command, Place};
use crate::replica::redis::rdb::Key;
use crate::replica::redis::replies::Replies;
use crate::resp::encode;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Commands that may be unanswered, and bytes that may be unsent, before the next is taken.
const WINDOW_COMMANDS: usize = 512;
const WINDOW_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;

/// A command under way, as far as its answer needs it.
#[derive(Debug)]
pub enum Sent {
    /// One that everything behind it depends on, by its words.
    Must(String),
    Key {
        db: u32,
        name: Vec<u8>,
    },
    Command {
        name: String,
        end: Option<Place>,
    },
}

/// The connection to our server.
pub struct Sink<S> {
    socket: S,
    out: Vec<u8>,
    written: usize,
    replies: Replies,
    under_way: VecDeque<Sent>,
    selected: Option<u32>,
    /// Databases that have been selected before, which cannot fail again.
    proven: HashSet<u32>,
    /// Nothing more is sent until the last command is answered.
    barred: bool,
    /// As many are under way as may be; until half of them are answered, so that they go in batches.
    full: bool,
    buffer: Box<[u8]>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<S> {
    pub fn new(socket: S) -> Sink<S> {
        Sink {
            socket,
            out: Vec::new(),
            written: 0,
            replies: Replies::default(),
            under_way: VecDeque::new(),
            selected: None,
            proven: HashSet::new(),
            barred: false,
            full: false,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        }
    }

    /// Whether it takes another command.
    pub fn open(&self) -> bool {
        !self.barred && !self.full && self.out.len() - self.written < WINDOW_BYTES
    }

    /// Whether everything has been answered.
    pub fn idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether the next command would find this database selected; else asks for it, and waits for the answer
    /// where it could be an error: a write must never come to another database.
    pub fn selects(&mut self, db: u32) -> bool {
        if self.selected == Some(db) {
            return true;
        }
        self.barred = !self.proven.contains(&db);
        self.selected = Some(db);
        let db = db.to_string();
        self.send(&[b"SELECT", db.as_bytes()], Sent::Must(format!("SELECT {db}")));
        !self.barred
    }

    /// Empties the server; nothing is sent until it has answered.
    pub fn empty(&mut self) {
        self.barred = true;
        self.send(&[b"FLUSHALL"], Sent::Must("FLUSHALL".into()));
    }

    /// Makes a key of the database that is selected.
    pub fn restore(&mut self, key: &Key<'_>) {
        encode::array_header(6, &mut self.out);
        let ttl = key.expire_ms.unwrap_or(0).to_string();
        [b"RESTORE", key.name, ttl.as_bytes()].iter().for_each(|word| encode::bulk(word, &mut self.out));
        encode::bulk_header(key.payload.len(), &mut self.out);
        key.payload.pieces().iter().for_each(|piece| self.out.extend_from_slice(piece));
        self.out.extend_from_slice(b"\r\n$7\r\nREPLACE\r\n$6\r\nABSTTL\r\n");
        self.sent(Sent::Key { db: key.db, name: key.name.to_vec() });
    }

    /// Sends a command to the database that is selected.
    pub fn command(&mut self, command: &Command<'_>) {
        self.out.extend_from_slice(command.bytes);
        self.sent(Sent::Command { name: command.name.to_owned(), end: command.end });
    }

    fn send(&mut self, words: &[&[u8]], sent: Sent) {
        encode::array_header(words.len(), &mut self.out);
        words.iter().for_each(|word| encode::bulk(word, &mut self.out));
        self.sent(sent);
    }

    fn sent(&mut self, sent: Sent) {
        self.under_way.push_back(sent);
        self.full |= self.under_way.len() >= WINDOW_COMMANDS;
    }

    /// Sends and reads as much as goes now, and tells of every answer. Whether anything went.
    ///
    /// # Errors
    /// When the connection has ended, or what came is no answer: nobody can tell then what was done.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut answered: impl FnMut(Sent, Result<(), String>),
    ) -> io::Result<bool> {
        let mut went = false;
        while self.written < self.out.len() {
            let unsent = &self.out[self.written..];
            let Poll::Ready(written) = Pin::new(&mut self.socket).poll_write(cx, unsent) else { break };
            match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.written += count,
            }
            went = true;
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.out.shrink_to(2 * WINDOW_BYTES);
            self.written = 0;
        }
        let mut read = ReadBuf::new(&mut self.buffer);
        if Pin::new(&mut self.socket).poll_read(cx, &mut read)?.is_pending() {
            return Ok(went);
        }
        if read.filled().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (under_way, mut unasked) = (&mut self.under_way, false);
        let fed = self.replies.feed(read.filled(), |reply| match under_way.pop_front() {
            Some(sent) => answered(sent, reply),
            None => unasked = true,
        });
        fed.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        if unasked {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to nothing"));
        }
        self.full &= self.under_way.len() > WINDOW_COMMANDS / 2;
        if self.under_way.is_empty() && std::mem::take(&mut self.barred) {
            self.proven.extend(self.selected);
        }
        Ok(true)
    }

    /// Sends nothing any more, not even what was to be sent: answers to what was are still read.
    pub fn send_no_more(&mut self) {
        self.out.clear();
        self.written = 0;
    }

    /// Forgets which database is selected, after a SELECT was refused.
    pub fn selection_failed(&mut self) {
        self.selected = None;
        self.proven.clear();
    }
}

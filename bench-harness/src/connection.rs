//! One connection under load: what is to be sent, what has come, what is waited for. Knows operations
//! and their replies, not when to send them.

use crate::measure::Tally;
use crate::reply::{self, Kind, Reply};
use crate::template::{Expect, write_digits};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;

/// A receive buffer starts with this and grows for what does not fit.
const RECEIVE_BYTES: usize = 16 << 10;
/// A reply longer than this is no reply that a load generator asks for.
const LONGEST_REPLY: usize = 1 << 30;

/// A reply that is waited for.
pub struct Awaited {
    /// When its operation was due, in nanoseconds of the run.
    pub due_ns: u64,
    /// The key it was asked for, for `--verify`.
    pub key: u64,
    /// The operation's number in the workload.
    pub operation: u16,
    /// What the reply must be.
    pub expect: Expect,
    /// Whether the operation ends with it.
    pub last: bool,
}

/// A connection and its buffers.
pub struct Connection {
    stream: TcpStream,
    /// The cluster slots that its node serves; empty means all.
    pub slots: Vec<RangeInclusive<u16>>,
    /// Bytes to send.
    pub out: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    filled: usize,
    /// Replies that are owed, oldest first.
    pub awaited: VecDeque<Awaited>,
}

/// How replies are held against what was asked.
pub struct Check {
    /// Digits that values start with; `None` when values are not looked at.
    pub marked_digits: Option<usize>,
}

impl Connection {
    /// A connection for the load. The stream must not block.
    pub fn new(stream: TcpStream, slots: Vec<RangeInclusive<u16>>) -> Connection {
        let received = vec![0; RECEIVE_BYTES];
        Connection { stream, slots, out: Vec::new(), sent: 0, received, filled: 0, awaited: VecDeque::new() }
    }

    /// Its socket, to be watched.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends what it can; the rest leaves when the socket is writable again.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what has come and calls `ended` for each operation that is answered.
    ///
    /// # Errors
    /// When the connection is gone, or what comes is no reply to anything.
    pub fn receive(
        &mut self,
        check: &Check,
        tally: &mut Tally,
        mut ended: impl FnMut(&mut Tally, &Awaited),
    ) -> io::Result<()> {
        loop {
            if self.filled == self.received.len() {
                if self.received.len() >= LONGEST_REPLY {
                    return Err(io::Error::new(ErrorKind::InvalidData, "a reply without end"));
                }
                self.received.resize(self.received.len() * 2, 0);
            }
            let room = self.received.len() - self.filled;
            match self.stream.read(&mut self.received[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.filled += read;
                    self.take_replies(check, tally, &mut ended)?;
                    // Watched edge by edge: a read that leaves room has emptied the socket (epoll(7)).
                    if read < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_replies(
        &mut self,
        check: &Check,
        tally: &mut Tally,
        ended: &mut impl FnMut(&mut Tally, &Awaited),
    ) -> io::Result<()> {
        let mut at = 0;
        while at < self.filled {
            let bytes = &self.received[at..self.filled];
            let not_resp = |_| io::Error::new(ErrorKind::InvalidData, "bytes that are not RESP");
            let Some(reply) = reply::first(bytes).map_err(not_resp)? else { break };
            let unasked = || io::Error::new(ErrorKind::InvalidData, "a reply that nobody asked for");
            let awaited = self.awaited.pop_front().ok_or_else(unasked)?;
            if !fits(&reply, bytes, &awaited, check) {
                tally.wrong(|| describe(&reply, bytes, &awaited));
            }
            if awaited.last {
                ended(tally, &awaited);
            }
            at += reply.length;
        }
        self.received.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

fn fits(reply: &Reply, bytes: &[u8], awaited: &Awaited, check: &Check) -> bool {
    let kind_fits = match awaited.expect {
        Expect::Status => reply.kind == Kind::Status,
        Expect::Integer => reply.kind == Kind::Integer,
        Expect::Value => matches!(reply.kind, Kind::Bulk | Kind::Nil),
        Expect::Many => matches!(reply.kind, Kind::Many | Kind::Nil),
        Expect::Any => reply.kind != Kind::Error,
    };
    match check.marked_digits {
        Some(digits) if kind_fits && awaited.expect == Expect::Value && reply.kind == Kind::Bulk => {
            let value = &bytes[reply.content..reply.length - 2];
            let mut mark = Vec::with_capacity(digits);
            write_digits(&mut mark, awaited.key, digits);
            value.starts_with(&mark[..digits.min(value.len())])
        }
        _ => kind_fits,
    }
}

fn describe(reply: &Reply, bytes: &[u8], awaited: &Awaited) -> String {
    let shown = &bytes[..reply.length.min(120)];
    format!("expected {:?} for key {}, got {:?}", awaited.expect, awaited.key, String::from_utf8_lossy(shown))
}

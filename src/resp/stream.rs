//! Replies too long to be held: their number of entries is known at the beginning, the entries come in parts
//! while the client reads.
//!
//! Who makes the parts waits when the client does. Knows no socket and no thread.

use super::encode::{self, Protocol};
use super::reply::Reply;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a long reply is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Array,
    /// An array in RESP2.
    Set,
    /// Keys and values, one after the other; an array of both in RESP2.
    Map,
    /// Pairs; one flat array in RESP2.
    Pairs,
}

impl Shape {
    /// Entries behind one another that count as one.
    fn group(self) -> u64 {
        match self {
            Shape::Array | Shape::Set => 1,
            Shape::Map | Shape::Pairs => 2,
        }
    }

    /// The whole reply, where it is held after all; `entries` one behind the other.
    pub fn reply(self, entries: Vec<Reply>) -> Reply {
        match self {
            Shape::Array => Reply::Array(entries),
            Shape::Set => Reply::Set(entries),
            Shape::Map => Reply::Map(paired(entries)),
            Shape::Pairs => Reply::Pairs(paired(entries)),
        }
    }

    fn header(self, count: u64, protocol: Protocol, out: &mut Vec<u8>) {
        let count = usize::try_from(count).expect("what is counted was stored");
        match (self, protocol) {
            (Shape::Array, _) | (Shape::Set, Protocol::Resp2) => encode::array_header(count, out),
            (Shape::Set, Protocol::Resp3) => encode::set_header(count, out),
            (Shape::Map, _) | (Shape::Pairs, Protocol::Resp2) => encode::map_header(count, protocol, out),
            (Shape::Pairs, Protocol::Resp3) => encode::array_header(count, out),
        }
    }
}

fn paired(entries: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut pairs = Vec::with_capacity(entries.len() / 2);
    let mut entries = entries.into_iter();
    while let (Some(one), Some(other)) = (entries.next(), entries.next()) {
        pairs.push((one, other));
    }
    pairs
}

/// Parts on their way at once, and entries of one.
const PARTS_MAX: usize = 16;
pub const PART_ENTRIES: usize = 256;

/// The client's end of a long reply.
#[derive(Debug)]
pub struct LongReply {
    shape: Shape,
    count: u64,
    /// Locked by the one connection that the reply goes to, so never waited for.
    parts: Mutex<Receiver<Vec<Reply>>>,
}

/// Where its entries come from.
pub struct Parts(Sender<Vec<Reply>>);

/// Why no more parts are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The client is gone.
    Gone,
    /// It has read nothing for too long.
    Slow,
}

/// A long reply of `count` entries (pairs, of maps) and its source.
pub fn long_reply(shape: Shape, count: u64) -> (LongReply, Parts) {
    let (sender, receiver) = bounded(PARTS_MAX);
    (LongReply { shape, count, parts: Mutex::new(receiver) }, Parts(sender))
}

impl Parts {
    /// Waits while the client reads, for at most `patience` at a time.
    pub fn send(&self, part: Vec<Reply>, patience: Duration) -> Result<(), Refused> {
        self.0
            .send_timeout(part, patience)
            .map_err(|error| if error.is_timeout() { Refused::Slow } else { Refused::Gone })
    }
}

/// How far a long reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More comes later.
    More,
    Done,
    /// It ended before all entries were there: what the client has cannot be made whole.
    Broken,
}

/// A long reply that is being sent.
#[derive(Debug)]
pub struct Sending {
    reply: Arc<LongReply>,
    protocol: Protocol,
    begun: bool,
    sent: u64,
}

impl Sending {
    pub fn new(reply: Arc<LongReply>, protocol: Protocol) -> Sending {
        Sending { reply, protocol, begun: false, sent: 0 }
    }

    /// Appends what is there, until `out` has `enough` bytes.
    pub fn pull(&mut self, out: &mut Vec<u8>, enough: usize) -> Progress {
        let LongReply { shape, count, parts } = &*self.reply;
        if !self.begun {
            self.begun = true;
            shape.header(*count, self.protocol, out);
        }
        let entries = count * shape.group();
        let parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
        while out.len() < enough && self.sent < entries {
            match parts.try_recv() {
                Ok(part) => {
                    for entry in part {
                        if *shape == Shape::Pairs
                            && self.protocol == Protocol::Resp3
                            && self.sent.is_multiple_of(2)
                        {
                            encode::array_header(2, out);
                        }
                        encode::encode(&entry, self.protocol, out);
                        self.sent += 1;
                    }
                }
                Err(TryRecvError::Empty) => return Progress::More,
                Err(TryRecvError::Disconnected) => return Progress::Broken,
            }
        }
        match self.sent.cmp(&entries) {
            std::cmp::Ordering::Less => Progress::More,
            std::cmp::Ordering::Equal => Progress::Done,
            std::cmp::Ordering::Greater => Progress::Broken,
        }
    }
}

impl PartialEq for LongReply {
    fn eq(&self, other: &LongReply) -> bool {
        std::ptr::eq(self, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_the_same_bytes_as_the_whole() {
        for shape in [Shape::Array, Shape::Set, Shape::Map, Shape::Pairs] {
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                let entries: Vec<_> = (0..1000).map(Reply::Int).collect();
                let count = 1000 / shape.group();
                let (long, parts) = long_reply(shape, count);
                let mut sending = Sending::new(Arc::new(long), protocol);
                let mut out = Vec::new();
                assert_eq!(sending.pull(&mut out, 1 << 20), Progress::More);
                for part in entries.chunks(7) {
                    parts.send(part.to_vec(), Duration::ZERO).unwrap();
                    let progress = sending.pull(&mut out, 1 << 20);
                    let done = sending.sent == 1000;
                    assert_eq!(progress, if done { Progress::Done } else { Progress::More });
                }
                let mut whole = Vec::new();
                encode::encode(&shape.reply(entries), protocol, &mut whole);
                assert_eq!(out, whole);
            }
        }
    }

    #[test]
    fn a_source_that_goes_away_is_noticed_and_so_is_a_client() {
        let (long, parts) = long_reply(Shape::Array, 3);
        parts.send(vec![Reply::Int(1)], Duration::ZERO).unwrap();
        drop(parts);
        let mut sending = Sending::new(Arc::new(long), Protocol::Resp2);
        assert_eq!(sending.pull(&mut Vec::new(), 1000), Progress::Broken);
        let (long, parts) = long_reply(Shape::Array, 3);
        for _ in 0..PARTS_MAX {
            parts.send(Vec::new(), Duration::ZERO).unwrap();
        }
        assert_eq!(parts.send(Vec::new(), Duration::from_millis(1)), Err(Refused::Slow));
        drop(long);
        assert_eq!(parts.send(Vec::new(), Duration::from_millis(1)), Err(Refused::Gone));
    }
}

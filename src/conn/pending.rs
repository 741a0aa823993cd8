//! Replies of one connection, in request order, and the bytes that are ready to leave.
//!
//! A reply that is ready while others before it are not waits here; bytes whose writes the log has not
//! released wait behind a gate. Knows no socket.

use super::timing::Begun;
use crate::limits;
use crate::resp::encode::{self, Protocol};
use crate::resp::reply::Reply;
use crate::resp::stream::{Progress, Sending};
use crate::runtime::reaper;
use crate::slot::ShardId;
use bytes::Bytes;
use std::collections::VecDeque;

/// How a command's reply is to be sent: settled when the command arrives, since a later one may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub protocol: Protocol,
    /// CLIENT REPLY OFF or SKIP: nothing is sent.
    pub silent: bool,
}

/// What a reply must wait for before it leaves: a position in a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    pub shard: ShardId,
    pub position: u64,
}

enum Slot {
    /// And what it is, for the clock.
    Waiting(Manner, Box<Begun>),
    Ready(Manner, Reply, Option<Gate>),
}

/// Bytes in order; those behind a gate may not leave before it opens.
#[derive(Default)]
pub struct Out {
    /// What stands before `bytes`, where long values are: these are not copied before they are sent.
    front: VecDeque<Bytes>,
    front_bytes: usize,
    bytes: Vec<u8>,
    /// Where in all this each gate stands, ascending.
    gates: VecDeque<(usize, Gate)>,
    /// A reply that comes in parts, and what must wait behind it.
    long: Option<Sending>,
    behind: VecDeque<(Manner, Reply, Option<Gate>)>,
    /// It will never be whole.
    broken: bool,
}

impl Out {
    pub fn len(&self) -> usize {
        self.front_bytes + self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.long.is_none()
    }

    /// More bytes come without a command being answered.
    pub fn is_long(&self) -> bool {
        self.long.is_some()
    }

    /// What the client has of a reply cannot be made whole: the connection has to end.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes more of a reply that comes in parts; once it is whole, what waits behind it.
    pub fn advance(&mut self) {
        while let Some(long) = &mut self.long {
            match long.pull(&mut self.bytes, limits::SEND_MAX_BYTES) {
                Progress::More => return,
                Progress::Broken => {
                    self.broken = true;
                    return;
                }
                Progress::Done => self.long = None,
            }
            while self.long.is_none()
                && let Some((manner, reply, gate)) = self.behind.pop_front()
            {
                self.push(manner, reply, gate);
            }
        }
    }

    pub fn is_gated(&self) -> bool {
        !self.gates.is_empty()
    }

    fn push(&mut self, manner: Manner, reply: Reply, gate: Option<Gate>) {
        if manner.silent {
            return;
        }
        if self.long.is_some() {
            return self.behind.push_back((manner, reply, gate));
        }
        if let Some(gate) = gate {
            let end = self.len();
            // One gate a shard in a row is enough: positions only grow.
            match self.gates.back_mut() {
                Some((at, last)) if *at == end && last.shard == gate.shard => {
                    last.position = last.position.max(gate.position);
                }
                _ => self.gates.push_back((end, gate)),
            }
        }
        self.put(reply, manner.protocol);
    }

    fn put(&mut self, reply: Reply, protocol: Protocol) {
        match reply {
            Reply::Long(long) => self.long = Some(Sending::new(long, protocol)),
            Reply::Ready(bytes) => self.share(bytes),
            Reply::Bulk(text) if text.len() >= limits::REPLY_SHARE_MIN_BYTES => {
                encode::bulk_header(text.len(), &mut self.bytes);
                self.share(text);
                self.bytes.extend_from_slice(b"\r\n");
            }
            Reply::Array(items) if items.iter().any(is_long) => {
                encode::array_header(items.len(), &mut self.bytes);
                items.into_iter().for_each(|item| self.put(item, protocol));
            }
            reply => encode::encode(&reply, protocol, &mut self.bytes),
        }
    }

    fn share(&mut self, bytes: Bytes) {
        if !self.bytes.is_empty() {
            let before = std::mem::take(&mut self.bytes);
            self.front_bytes += before.len();
            self.front.push_back(before.into());
        }
        self.front_bytes += bytes.len();
        self.front.push_back(bytes);
    }

    /// Takes what may leave now; `released` says how far a shard's log is. `spare` becomes the next buffer.
    pub fn take(&mut self, mut released: impl FnMut(ShardId) -> u64, spare: Vec<u8>) -> Vec<u8> {
        while let Some((_, gate)) = self.gates.front()
            && gate.position <= released(gate.shard)
        {
            self.gates.pop_front();
        }
        let open = self.gates.front().map_or(self.len(), |(at, _)| *at);
        let taken = match open {
            0 => return Vec::new(),
            _ if !self.front.is_empty() => self.take_front(open.min(limits::SEND_MAX_BYTES), spare),
            _ if open == self.bytes.len() => std::mem::replace(&mut self.bytes, spare),
            _ => {
                let rest = self.bytes.split_off(open);
                std::mem::replace(&mut self.bytes, rest)
            }
        };
        for (at, _) in &mut self.gates {
            *at -= taken.len();
        }
        taken
    }

    fn take_front(&mut self, bytes_max: usize, mut taken: Vec<u8>) -> Vec<u8> {
        taken.reserve(bytes_max.min(self.front_bytes));
        while taken.len() < bytes_max
            && let Some(first) = self.front.front_mut()
        {
            let part = first.split_to(first.len().min(bytes_max - taken.len()));
            taken.extend_from_slice(&part);
            self.front_bytes -= part.len();
            if first.is_empty() {
                self.front.pop_front();
                // Perhaps the last that holds a long value's memory.
                reaper::free(part);
            }
        }
        taken
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if !self.front.is_empty() {
            reaper::free(std::mem::take(&mut self.front));
        }
    }
}

fn is_long(reply: &Reply) -> bool {
    matches!(reply, Reply::Bulk(text) if text.len() >= limits::REPLY_SHARE_MIN_BYTES)
}

/// The replies a connection is owed.
pub struct Pending {
    first: u64,
    slots: VecDeque<Slot>,
    waiting: usize,
    /// About the bytes of replies in `slots`.
    ready_bytes: usize,
    /// How many commands may wait at once. Nobody knows how long a reply will be before it is there: so few
    /// at first, more with every short reply, and after a long one no more than fit the output's bound.
    window: usize,
    pub out: Out,
}

/// Waiting commands of a connection at first: a usual pipeline.
const WINDOW_FIRST: usize = 16;

impl Default for Pending {
    fn default() -> Pending {
        let slots = VecDeque::new();
        Pending { first: 0, slots, waiting: 0, ready_bytes: 0, window: WINDOW_FIRST, out: Out::default() }
    }
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Names of the commands that have not been answered.
    pub fn unanswered(&self) -> impl Iterator<Item = &'static str> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Waiting(_, begun) => Some(begun.name()),
            Slot::Ready(..) => None,
        })
    }

    /// The next command must wait until some reply has come, or has left.
    pub fn is_full(&self) -> bool {
        self.waiting >= self.window
            || self.out.is_long()
            || self.slots.len() >= limits::PENDING_REPLIES_PER_CONNECTION_MAX
            || self.out.len() + self.ready_bytes >= limits::OUTPUT_PAUSE_BYTES
    }

    /// Bytes of replies that are there and have not left.
    pub fn owed_bytes(&self) -> usize {
        self.out.len() + self.ready_bytes
    }

    /// The number the next command's reply will go by.
    pub fn next_seq(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// A reply that is there at once.
    pub fn reply(&mut self, manner: Manner, reply: Reply, gate: Option<Gate>) {
        if self.slots.is_empty() {
            self.first += 1;
            self.out.push(manner, reply, gate);
        } else {
            self.ready_bytes += reply.about_bytes();
            self.slots.push_back(Slot::Ready(manner, reply, gate));
        }
    }

    /// The command with number `next_seq()` will be answered later.
    pub fn wait(&mut self, manner: Manner, begun: Box<Begun>) {
        self.waiting += 1;
        self.slots.push_back(Slot::Waiting(manner, begun));
    }

    /// The reply to an earlier command, which is given back. What it held up moves to `out`.
    pub fn answer(&mut self, seq: u64, reply: Reply, gate: Option<Gate>) -> Begun {
        let at = seq.checked_sub(self.first).expect("each command is answered once") as usize;
        let slot = self.slots.get_mut(at).expect("only commands that wait are answered");
        let Slot::Waiting(manner, _) = *slot else { panic!("each command is answered once") };
        let bytes = reply.about_bytes();
        let Slot::Waiting(_, begun) = std::mem::replace(slot, Slot::Ready(manner, reply, gate)) else {
            unreachable!("looked above");
        };
        self.waiting -= 1;
        self.ready_bytes += bytes;
        let fit = (limits::OUTPUT_PAUSE_BYTES / bytes).max(1);
        self.window = (self.window + 1).min(fit).min(limits::PENDING_REPLIES_PER_CONNECTION_MAX);
        while let Some(Slot::Ready(..)) = self.slots.front() {
            let Some(Slot::Ready(manner, reply, gate)) = self.slots.pop_front() else {
                unreachable!("looked a line above");
            };
            self.first += 1;
            self.ready_bytes -= reply.about_bytes();
            self.out.push(manner, reply, gate);
        }
        *begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: Manner = Manner { protocol: Protocol::Resp2, silent: false };

    fn taken(pending: &mut Pending, released: u64) -> String {
        String::from_utf8(pending.out.take(|_| released, Vec::new())).unwrap()
    }

    #[test]
    fn replies_leave_in_request_order() {
        let mut pending = Pending::default();
        pending.reply(LOUD, Reply::Int(0), None);
        let first = pending.next_seq();
        pending.wait(LOUD, Begun::nothing());
        pending.reply(LOUD, Reply::Int(2), None);
        pending.wait(Manner { silent: true, ..LOUD }, Begun::nothing());
        assert_eq!(taken(&mut pending, 0), ":0\r\n");
        pending.answer(first + 2, Reply::Int(3), None);
        assert_eq!(taken(&mut pending, 0), "");
        pending.answer(first, Reply::Int(1), None);
        assert_eq!(taken(&mut pending, 0), ":1\r\n:2\r\n");
        assert!(pending.is_empty());
    }

    #[test]
    fn the_window_opens_with_short_replies_and_closes_with_long_ones() {
        let mut pending = Pending::default();
        let mut asked = 0;
        while !pending.is_full() {
            pending.wait(LOUD, Begun::nothing());
            asked += 1;
        }
        assert_eq!(asked, WINDOW_FIRST);
        for seq in 0..asked as u64 {
            pending.answer(seq, Reply::Int(1), None);
        }
        assert_eq!(pending.window, 2 * WINDOW_FIRST);
        assert_eq!((pending.waiting, pending.ready_bytes), (0, 0));
        let first = pending.next_seq();
        pending.wait(LOUD, Begun::nothing());
        pending.wait(LOUD, Begun::nothing());
        pending.answer(first + 1, Reply::bulk(vec![b'x'; limits::OUTPUT_PAUSE_BYTES / 2]), None);
        assert!(pending.window == 1 && pending.is_full(), "one waits, and no more may");
        pending.answer(first, Reply::bulk(vec![b'x'; limits::OUTPUT_PAUSE_BYTES / 2]), None);
        assert!(pending.is_full(), "what is encoded counts too");
        assert_eq!(pending.ready_bytes, 0);
    }

    #[test]
    fn what_stands_behind_a_gate_waits_for_the_log() {
        let mut pending = Pending::default();
        let gate = |position| Some(Gate { shard: ShardId(0), position });
        pending.reply(LOUD, Reply::Int(1), None);
        pending.reply(LOUD, Reply::Int(2), gate(7));
        pending.reply(LOUD, Reply::Int(3), None);
        pending.reply(LOUD, Reply::Int(4), gate(9));
        assert_eq!(taken(&mut pending, 6), ":1\r\n");
        assert_eq!(taken(&mut pending, 6), "");
        assert_eq!(taken(&mut pending, 7), ":2\r\n:3\r\n");
        assert!(pending.out.is_gated());
        assert_eq!(taken(&mut pending, 9), ":4\r\n");
        assert!(pending.out.is_empty() && !pending.out.is_gated());
    }
    #[test]
    fn long_values_leave_in_pieces_and_in_order() {
        let long = |byte: u8| Bytes::from(vec![byte; 3 * limits::SEND_MAX_BYTES / 2]);
        let gate = Gate { shard: ShardId(0), position: 7 };
        let mut pending = Pending::default();
        let (mut plain, mut replies) = (Vec::new(), Vec::new());
        for reply in [
            Reply::Int(1),
            Reply::Array(vec![Reply::Nil, Reply::Bulk(long(b'a')), Reply::Int(2)]),
            Reply::Ready(long(b'b')),
            Reply::Bulk(long(b'c')),
            Reply::Int(3),
        ] {
            encode::encode(&reply, Protocol::Resp2, &mut plain);
            replies.push(reply);
        }
        let gated_from = plain.len() - long(b'c').len();
        for (at, reply) in replies.into_iter().enumerate() {
            pending.reply(LOUD, reply, (at == 3).then_some(gate));
        }
        let mut sent = Vec::new();
        let mut take = |released: u64| {
            while !pending.out.is_empty() {
                let piece = pending.out.take(|_| released, Vec::new());
                assert!(piece.len() <= limits::SEND_MAX_BYTES);
                if piece.is_empty() {
                    break;
                }
                sent.extend(piece);
            }
            sent.len()
        };
        assert!(take(6) < gated_from);
        assert_eq!(take(7), plain.len());
        assert!(sent == plain && !pending.out.is_gated());
    }
}

//! Lanes: how owned data crosses from one core to another. One bounded single-producer queue for every
//! ordered pair of cores, no locks, order kept per pair.
//!
//! Must not know what crosses, nor how a core is woken: `flush` says whom to wake. A message is seen by
//! its receiver once `flush` has waked it (`doorbell` has the protocol against lost wakes).
//!
//! A full lane spills into memory of the sender, so that sending never blocks and two cores cannot wait
//! for each other. The spill is bounded by the sender's good manners: while [`Lanes::congested`] says so it
//! takes no more work for that peer from its sockets, and while [`Lanes::any_congested`] it must not sleep,
//! because a receiver that makes room wakes nobody.

use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::VecDeque;

/// Makes the lanes of all cores at once.
pub struct Mesh;

/// One core's ends of its lanes. Cores are numbered from 0.
pub struct Lanes<T> {
    core: usize,
    outgoing: Vec<Option<Outgoing<T>>>,
    incoming: Vec<Option<Consumer<T>>>,
    /// Where the next `receive` starts, so that a chatty core does not starve the others.
    first: usize,
}

struct Outgoing<T> {
    lane: Producer<T>,
    overflow: VecDeque<T>,
    /// Something went into the lane since its receiver was last waked.
    unannounced: bool,
}

impl Mesh {
    /// Lanes for `cores` cores, each lane holding `capacity` messages; element `n` belongs to core `n`.
    #[allow(clippy::new_ret_no_self)]
    pub fn new<T: Send>(cores: usize, capacity: usize) -> Vec<Lanes<T>> {
        assert!(capacity > 0, "a lane holds at least one message");
        let mut all: Vec<Lanes<T>> = (0..cores)
            .map(|core| Lanes { core, outgoing: Vec::new(), incoming: Vec::new(), first: 0 })
            .collect();
        for from in 0..cores {
            for to in 0..cores {
                let (outgoing, incoming) = (from != to)
                    .then(|| RingBuffer::new(capacity))
                    .map(|(lane, end)| {
                        (Outgoing { lane, overflow: VecDeque::new(), unannounced: false }, end)
                    })
                    .unzip();
                all[from].outgoing.push(outgoing);
                all[to].incoming.push(incoming);
            }
        }
        all
    }
}

impl<T: Send> Lanes<T> {
    /// Whose lanes these are.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Queues `message` for core `to`, which sees it after the next [`flush`](Self::flush) at the latest.
    pub fn send(&mut self, to: usize, message: T) {
        let out = self.outgoing[to].as_mut().expect("a core does not send to itself");
        if !out.overflow.is_empty() {
            out.overflow.push_back(message);
            return;
        }
        match out.lane.push(message) {
            Ok(()) => out.unannounced = true,
            Err(rtrb::PushError::Full(message)) => out.overflow.push_back(message),
        }
    }

    /// Whether the lane to `to` is full and messages wait on this side. Also false for the core itself.
    pub fn congested(&self, to: usize) -> bool {
        self.outgoing[to].as_ref().is_some_and(|out| !out.overflow.is_empty())
    }

    pub fn any_congested(&self) -> bool {
        (0..self.outgoing.len()).any(|to| self.congested(to))
    }

    /// Messages that wait on this side for room in the lane to `to`.
    pub fn overflow_len(&self, to: usize) -> usize {
        self.outgoing[to].as_ref().map_or(0, |out| out.overflow.len())
    }

    /// Moves what waits into the lanes that have room, then calls `wake` once for each core that has got
    /// something since the last flush.
    pub fn flush(&mut self, mut wake: impl FnMut(usize)) {
        for (to, out) in self.outgoing.iter_mut().enumerate() {
            let Some(out) = out else { continue };
            out.refill();
            if std::mem::take(&mut out.unannounced) {
                wake(to);
            }
        }
    }

    /// Whether any message waits for this core: the last look before it sleeps.
    pub fn waiting(&self) -> bool {
        self.incoming.iter().flatten().any(|lane| !lane.is_empty())
    }

    /// Hands up to `limit` messages of each lane to `take(from, message)`; returns how many.
    pub fn receive(&mut self, limit: usize, mut take: impl FnMut(usize, T)) -> usize {
        let cores = self.incoming.len();
        let mut taken = 0;
        for from in (self.first..cores).chain(0..self.first) {
            let Some(lane) = &mut self.incoming[from] else { continue };
            for _ in 0..limit {
                let Ok(message) = lane.pop() else { break };
                take(from, message);
                taken += 1;
            }
        }
        self.first = (self.first + 1) % cores.max(1);
        taken
    }
}

impl<T> Outgoing<T> {
    fn refill(&mut self) {
        while !self.overflow.is_empty() && !self.lane.is_full() {
            let message = self.overflow.pop_front().expect("looked a line above");
            let pushed = self.lane.push(message);
            assert!(pushed.is_ok(), "only this side fills the lane, and it had room");
            self.unannounced = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_wake_per_peer_and_flush() {
        let mut mesh = Mesh::new::<u32>(3, 4);
        for n in 0..3 {
            mesh[0].send(1, n);
        }
        mesh[0].send(2, 9);
        let mut woken = Vec::new();
        mesh[0].flush(|to| woken.push(to));
        mesh[0].flush(|to| woken.push(to));
        assert_eq!(woken, [1, 2]);
        assert!(mesh[1].waiting() && mesh[2].waiting() && !mesh[0].waiting());
    }

    #[test]
    fn receive_is_bounded_per_lane() {
        let mut mesh = Mesh::new::<u32>(3, 8);
        for n in 0..5 {
            mesh[1].send(0, n);
            mesh[2].send(0, 10 + n);
        }
        let mut got = Vec::new();
        assert_eq!(mesh[0].receive(2, |from, n| got.push((from, n))), 4);
        assert_eq!(got, [(1, 0), (1, 1), (2, 10), (2, 11)]);
    }

    #[test]
    #[should_panic(expected = "does not send to itself")]
    fn a_core_has_no_lane_to_itself() {
        Mesh::new::<u32>(2, 1)[0].send(0, 1);
    }

    proptest! {
        /// Whatever the interleaving of sends, flushes and receives, nothing is lost, doubled or reordered,
        /// and a core that holds unseen messages has been waked since they entered the lane.
        #[test]
        fn order_is_kept_through_overflow(capacity in 1usize..5, steps in prop::collection::vec(0u8..4, 1..200)) {
            let mut mesh = Mesh::new::<u32>(2, capacity);
            let (mut sent, mut got, mut woken) = (0, Vec::new(), false);
            for step in steps {
                match step {
                    0 | 1 => {
                        mesh[0].send(1, sent);
                        sent += 1;
                    }
                    2 => {
                        mesh[0].flush(|_| woken = true);
                        prop_assert!(woken || !mesh[1].waiting());
                    }
                    _ => {
                        mesh[1].receive(2, |_, n| got.push(n));
                        woken = woken && mesh[1].waiting();
                    }
                }
            }
            while mesh[0].any_congested() || mesh[1].waiting() {
                mesh[0].flush(|_| {});
                mesh[1].receive(2, |_, n| got.push(n));
            }
            prop_assert_eq!(got, (0..sent).collect::<Vec<_>>());
        }
    }
}

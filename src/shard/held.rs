//! Messages that may leave their core only when a shard's log is far enough: what clients are told, and what nodes
//! and cores are told.
//!
//! Knows no log: it is told how far it is.

use super::mesh::Message;
use super::owner::Owner;
use crate::slot::{CoreId, ShardId};
use std::collections::VecDeque;

type Queue = VecDeque<(u64, CoreId, Message)>;

/// Those of one shard, each queue in the order of positions.
#[derive(Default)]
pub(super) struct Held {
    /// Wait until the log counts here.
    here: Queue,
    /// Wait until clients may be answered: for followers too, where these are asked.
    clients: Queue,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.clients.is_empty()
    }
}

impl Owner {
    /// Sends a message once a shard's log counts up to `position`.
    pub(super) fn send_released(&mut self, to: CoreId, shard: ShardId, position: u64, message: Message) {
        let at = self.at(shard);
        let upto = self.shards[at].released(self.clock.now_ms());
        send(&mut self.outgoing, &mut self.held[at].here, upto, (position, to, message));
    }

    /// Sends a message that clients will hear of, once they may be shown what stands at `position`.
    pub(super) fn send_answerable(&mut self, to: CoreId, shard: ShardId, position: u64, message: Message) {
        let at = self.at(shard);
        let upto = self.shards[at].answerable(self.clock.now_ms());
        send(&mut self.outgoing, &mut self.held[at].clients, upto, (position, to, message));
    }

    /// Sends what may go by now.
    pub(super) fn send_held(&mut self, at: usize, now_ms: u64) {
        let Held { here, clients } = &mut self.held[at];
        if here.is_empty() && clients.is_empty() {
            return;
        }
        let shard = &self.shards[at];
        for (queue, upto) in [(here, shard.released(now_ms)), (clients, shard.answerable(now_ms))] {
            let ready = queue.partition_point(|(position, ..)| *position <= upto);
            self.outgoing.extend(queue.drain(..ready).map(|(_, to, message)| (to, message)));
        }
    }
}

fn send(
    outgoing: &mut Vec<(CoreId, Message)>,
    queue: &mut Queue,
    upto: u64,
    (position, to, message): (u64, CoreId, Message),
) {
    if position <= upto {
        outgoing.push((to, message));
    } else {
        queue.push_back((position, to, message));
    }
}

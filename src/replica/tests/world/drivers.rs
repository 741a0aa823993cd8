//! What stands around the two machines: the local shards of a follower, the network, a primary's log and copies.

use super::super::model::{Content, Entry as Logged, Shard};
use super::{Link, Server, TABLES, TIMEOUT_MS, Task, World};
use crate::binlog::Lsn;
use crate::replica::decode::Decoder;
use crate::replica::encode::Encoder;
use crate::replica::follower;
use crate::replica::greeting::Peer;
use crate::replica::keys::{Branches, Rewind};
use crate::replica::position::{Positions, SlotName};
use crate::replica::primary::{self, Primary};
use crate::replica::wire::{Identity, Message, SlotCounts};
use crate::shard::mesh::SlotPosition;
use crate::slot::ShardId;
use crate::store::Entry;
use crate::store::effects::Origin;
use bytes::Bytes;
use rand::Rng;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

impl World {
    // The follower's driver.

    pub(super) fn tell(&mut self, at: usize, event: follower::Event) {
        let mut actions = Vec::new();
        self.nodes[at].machine.handle(event, &mut actions);
        for action in actions {
            self.follower_does(at, action);
        }
    }

    fn follower_does(&mut self, at: usize, action: follower::Action) {
        use follower::Action;
        let now_ms = self.now_ms;
        let delay = self.rng.random_range(1..30);
        let node = &mut self.nodes[at];
        match action {
            Action::AskPositions => {
                node.ticket += 1;
                node.asked = Some((node.shards.len(), Vec::new(), Vec::new()));
                let ticket = node.ticket;
                node.tasks.iter_mut().for_each(|tasks| tasks.push_back(Task::State(ticket)));
            }
            Action::KeepDropped { slots, ends } => {
                self.nodes[at].tasks[0].push_back(Task::KeepDropped(slots, ends));
            }
            Action::Connect => {
                let id = self.next_link;
                self.next_link += 1;
                node.link = Some(id);
                (node.encoder, node.decoder) = (Encoder::default(), Decoder::new(1 << 20));
                let primary = node.follows.unwrap();
                let (to_primary, to_follower) = (VecDeque::new(), VecDeque::new());
                self.links.push(Link {
                    id,
                    follower: at,
                    primary,
                    opened: false,
                    opens_at_ms: now_ms + delay,
                    cut: false,
                    closed: false,
                    to_primary,
                    to_follower,
                    server: None,
                });
            }
            Action::Send(message) => {
                node.encoder.push(&message);
                let bytes = node.encoder.take();
                let link = node.link;
                if let Some(link) = self.links.iter_mut().find(|of| Some(of.id) == link) {
                    link.to_primary.extend(bytes.into_iter().map(|bytes| (now_ms + delay, bytes)));
                }
            }
            Action::Apply { shard, portion } => node.task(shard, Task::Apply(portion)),
            Action::Copy { shard, table, slot, entries } => {
                node.task(shard, Task::Copy((table, slot), entries))
            }
            Action::Adopt { shard, slots } => node.task(shard, Task::Adopt(slots)),
            Action::Rewind { shard, slots } => node.task(shard, Task::Rewind(slots)),
            Action::Disconnect => {
                let link = node.link.take();
                if let Some(link) = self.links.iter_mut().find(|of| Some(of.id) == link) {
                    link.cut = true;
                }
            }
        }
    }

    /// The local shards do some of what they have been asked.
    pub(super) fn local(&mut self, at: usize) {
        for shard in 0..self.nodes[at].shards.len() {
            while self.chance(self.weather.pace) {
                let Some(task) = self.nodes[at].tasks[shard].pop_front() else { break };
                self.do_task(at, ShardId(shard as u16), task);
            }
        }
        self.tell(at, follower::Event::Idle);
    }

    fn do_task(&mut self, at: usize, id: ShardId, task: Task) {
        let (now, always) = (self.now_ms, self.weather.always);
        let node = &mut self.nodes[at];
        let shard = &mut node.shards[usize::from(id.0)];
        let (event, own) = match task {
            Task::State(ticket) => {
                shard.staged.clear();
                if ticket != node.ticket {
                    return;
                }
                let Some((waiting, positions, ends)) = &mut node.asked else { return };
                *waiting -= 1;
                positions.extend(shard.positions());
                ends.push((id, shard.last));
                if *waiting == 0
                    && let Some((_, positions, ends)) = node.asked.take()
                {
                    self.tell(at, follower::Event::Positions { positions, ends });
                }
                return;
            }
            Task::KeepDropped(slots, ends) => {
                let event = self.keep_dropped(at, slots, &ends);
                return self.tell(at, event);
            }
            Task::Apply(portion) => {
                let (stream, lsn) = (portion.stream, Lsn(portion.lsn));
                match shard.apply(portion, now) {
                    Ok(own) => {
                        self.check_print(at, id);
                        (follower::Event::Applied { shard: id, stream, lsn, own }, own)
                    }
                    Err(why) => panic!("node {at} refuses a record: {why}"),
                }
            }
            Task::Copy(slot, entries) => {
                let content: &mut Content = shard.staged.entry(slot).or_default();
                content.extend(entries.into_iter().map(|entry| (entry.key, entry.value)));
                (follower::Event::Copied { shard: id }, Lsn::ZERO)
            }
            Task::Rewind(slots) if self.rng.random_bool(0.03) => {
                let at_slot = slots[0].at;
                let (slot, why) = ((at_slot.table, at_slot.slot), "it is too large".into());
                // What stands behind it is not asked of a shard before it is done.
                let asked = |task: &Task| matches!(task, Task::State(_) | Task::KeepDropped(..));
                self.nodes[at].tasks[usize::from(id.0)].retain(asked);
                return self.tell(at, follower::Event::NotRewound { slot, why });
            }
            Task::Rewind(slots) => {
                self.rewound += slots.len() as u64;
                self.keys += slots.iter().map(|rewound| rewound.keys.len() as u64).sum::<u64>();
                for rewound in slots {
                    self.nodes[at].shards[usize::from(id.0)].rewind(rewound, now);
                    self.check_print(at, id);
                }
                let own = self.nodes[at].shards[usize::from(id.0)].last;
                (follower::Event::Rewound { shard: id, own }, own)
            }
            Task::Adopt(slots) => {
                let own = shard.adopt(slots, now);
                self.check_print(at, id);
                (follower::Event::Adopted { shard: id, own }, own)
            }
        };
        let node = &mut self.nodes[at];
        if always && own > node.shards[usize::from(id.0)].durable {
            node.unreleased.push((id, event, own, node.ticket));
        } else {
            self.tell(at, event);
        }
    }

    /// The slots that the last record has touched hold what they hold elsewhere at this position.
    fn check_print(&self, at: usize, id: ShardId) {
        let shard = &self.nodes[at].shards[usize::from(id.0)];
        for (slot, position) in &shard.log.last().unwrap().after {
            let expected = self.oracle.get(&(*slot, position.term, position.index));
            let print = (position.index > 0).then(|| shard.get(*slot).print());
            assert_eq!(print.as_ref(), expected, "node {at}, {slot:?} at {position:?}");
        }
    }

    // The network, and the primary's driver.

    pub(super) fn carry(&mut self, id: u64) {
        let Some(at) = self.links.iter().position(|link| link.id == id) else { return };
        let (follower, primary) = (self.links[at].follower, self.links[at].primary);
        if self.is_parted(follower, primary) {
            return;
        }
        if self.links[at].cut {
            // Some of what was under way may still arrive; then each end learns of it.
            if self.nodes[follower].link == Some(id) {
                if self.chance(300) {
                    self.deliver(id, false);
                }
                if self.nodes[follower].link == Some(id) {
                    self.nodes[follower].link = None;
                    self.tell(follower, follower::Event::Lost { why: "cut".into() });
                }
            }
            if self.chance(200)
                && let Some(link) = self.links.iter_mut().find(|link| link.id == id)
            {
                link.server = None;
            }
            return;
        }
        if !self.links[at].opened {
            if self.now_ms < self.links[at].opens_at_ms || self.nodes[follower].link != Some(id) {
                return;
            }
            if !self.nodes[primary].up || self.head != primary {
                self.links[at].cut = true;
                return;
            }
            self.links[at].opened = true;
            self.links[at].server = Some(self.server(primary));
            return self.tell(follower, follower::Event::Connected);
        }
        while self.chance(self.weather.pace) && self.deliver(id, true) {}
        while self.chance(self.weather.pace) && self.deliver(id, false) {}
        self.serve(id);
        if let Some(link) = self.link(id) {
            link.cut |= link.closed && link.to_follower.is_empty();
        }
    }

    fn server(&self, primary: usize) -> Server {
        let settings = primary::Settings {
            peer: Peer::Node { port: 0 },
            own: Identity {
                placement: self.nodes[primary].placement.clone(),
                tables: TABLES,
                crc16: false,
                node: [b'0' + primary as u8; 40],
                slot_counts: SlotCounts::new(),
            },
            offers: None,
            window_bytes: self.weather.window_bytes,
            timeout_ms: TIMEOUT_MS,
        };
        Server {
            machine: Primary::new(settings, self.now_ms),
            encoder: Encoder::default(),
            decoder: Decoder::new(1 << 20),
            questions: VecDeque::new(),
            copies: FxHashMap::default(),
            claims: Positions::default(),
            wants: Vec::new(),
        }
    }

    fn link(&mut self, id: u64) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// A piece of what is under way arrives; false if there is none.
    fn deliver(&mut self, id: u64, to_primary: bool) -> bool {
        let (now_ms, cut) = (self.now_ms, self.rng.random_range(1..200usize));
        let Some(link) = self.link(id) else { return false };
        let pipe = if to_primary { &mut link.to_primary } else { &mut link.to_follower };
        let Some((due_ms, bytes)) = pipe.front_mut().filter(|(due_ms, _)| *due_ms <= now_ms) else {
            return false;
        };
        let piece = bytes.split_to(cut.min(bytes.len()));
        if bytes.is_empty() {
            pipe.pop_front();
        } else {
            *due_ms = now_ms;
        }
        let follower = link.follower;
        if to_primary {
            let Some(server) = &mut link.server else { return true };
            server.decoder.feed(&piece);
            while let Some(message) = self
                .link(id)
                .and_then(|link| link.server.as_mut())
                .and_then(|server| server.decoder.next_message().unwrap())
            {
                self.heard_from_follower(id, message);
            }
        } else {
            self.nodes[follower].decoder.feed(&piece);
            while self.nodes[follower].link == Some(id)
                && let Some(message) = self.nodes[follower].decoder.next_message().unwrap()
            {
                self.tell(follower, follower::Event::Received(message));
            }
        }
        true
    }

    fn heard_from_follower(&mut self, id: u64, message: Message) {
        let link = self.link(id).unwrap();
        let (follower, primary) = (link.follower, link.primary);
        let server = link.server.as_mut().unwrap();
        if let Message::Subscribe(subscribe) = &message {
            server.claims = subscribe.positions.iter().copied().collect();
            let wanted = subscribe.positions.iter().filter(|at| at.index == 0);
            server.wants = wanted.map(|at| (at.table, at.slot)).collect();
        }
        self.tell_primary(id, primary::Event::Received(message));
        let (shards, head) = (self.nodes[primary].placement.shards(), self.head);
        let server = self.link(id).and_then(|link| link.server.as_ref()).filter(|_| primary == head);
        let Some(server) = server else { return };
        let applied: Vec<_> = shards.map(|shard| (shard, server.machine.lag(shard).applied)).collect();
        for (shard, applied) in applied {
            let before = self.acknowledged.entry((follower, shard)).or_default();
            *before = applied.max(*before);
        }
    }

    fn tell_primary(&mut self, id: u64, event: primary::Event) {
        let mut actions = Vec::new();
        let Some(server) = self.link(id).and_then(|link| link.server.as_mut()) else { return };
        server.machine.handle(event, &mut actions);
        for action in actions {
            self.primary_does(id, action);
        }
    }

    fn primary_does(&mut self, id: u64, action: primary::Action) {
        use primary::Action;
        let (now_ms, delay) = (self.now_ms, self.rng.random_range(1..30));
        match &action {
            Action::Send(Message::Forget { slots }) => {
                self.forgotten += slots.len() as u64;
                for (slot, _) in slots.clone() {
                    self.check_needless(id, slot, "forgotten");
                }
            }
            Action::Copy { slots, .. } => {
                self.slots_copied += slots.len() as u64;
                for slot in slots.clone() {
                    self.check_needless(id, slot, "copied");
                }
            }
            Action::Send(Message::Record(_)) => self.records_sent += 1,
            _ => {}
        }
        let link = self.link(id).unwrap();
        let Some(server) = &mut link.server else { return };
        match action {
            Action::Send(message) => {
                server.encoder.push(&message);
                let bytes = server.encoder.take();
                link.to_follower.extend(bytes.into_iter().map(|bytes| (now_ms + delay, bytes)));
            }
            Action::KeepLog { .. } => {}
            Action::Close { .. } => (link.closed, link.server) = (true, None),
            question => server.questions.push_back(question),
        }
    }

    /// A slot that the log could carry on must not be copied.
    fn check_needless(&self, id: u64, slot: SlotName, what: &str) {
        let link = self.links.iter().find(|link| link.id == id).unwrap();
        let server = link.server.as_ref().unwrap();
        let has = server.claims.get(slot);
        let node = &self.nodes[link.primary];
        let shard = &node.shards[usize::from(node.placement.shard_of(slot.1).0)];
        let copied = |entry: &&Logged| entry.logged.body[1] == Origin::COPY.0;
        let adopted =
            shard.log.iter().filter(copied).any(|entry| entry.after.iter().any(|(of, _)| *of == slot));
        if has.index == 0 || adopted || server.wants.contains(&slot) {
            return;
        }
        let mut positions = shard.log.iter().flat_map(|entry| &entry.after).filter(|(of, _)| *of == slot);
        let here = positions.any(|(_, position)| *position == has);
        assert!(!here, "{slot:?} is {what} by node {} though it holds {has:?}", link.primary);
    }

    /// The primary's driver answers some of what it has been asked.
    fn serve(&mut self, id: u64) {
        let (now_ms, always) = (self.now_ms, self.weather.always);
        let Some(primary) = self.link(id).map(|link| link.primary) else { return };
        if !self.nodes[primary].up {
            return;
        }
        for at in 0..self.nodes[primary].shards.len() {
            let shard = &self.nodes[primary].shards[at];
            let lsn = if always { shard.durable } else { shard.last };
            self.tell_primary(id, primary::Event::Published { shard: ShardId(at as u16), lsn });
        }
        while self.chance(self.weather.pace) {
            let Some(link) = self.link(id) else { return };
            let Some(question) = link.server.as_mut().and_then(|server| server.questions.pop_front()) else {
                break;
            };
            for event in self.answer(id, primary, question) {
                self.tell_primary(id, event);
            }
        }
        self.tell_primary(id, primary::Event::Tick { now_ms });
    }

    fn answer(&mut self, id: u64, primary: usize, question: primary::Action) -> Vec<primary::Event> {
        use primary::{Action, Event};
        let always = self.weather.always;
        let published = |shard: &Shard| if always { shard.durable } else { shard.last };
        let count = self.rng.random_range(1..8);
        match question {
            Action::AskState { shard } => {
                let of = self.shard(primary, shard);
                vec![Event::State { shard, positions: of.positions(), upto: of.last }]
            }
            Action::Locate { shard } => {
                let of = self.shard(primary, shard);
                let upto = published(of);
                vec![Event::Located { shard, segments: of.index(upto), upto }]
            }
            Action::Trace { shard, slots } => {
                let of = self.shard(primary, shard);
                let upto = published(of);
                vec![Event::Traced { shard, histories: of.trace(upto, &slots) }]
            }
            Action::Copy { shard, slots, rewinds } => {
                let of = &self.nodes[primary].shards[usize::from(shard.0)];
                let (begun, rest) = copy(of, &slots, rewinds);
                self.link(id).and_then(|link| link.server.as_mut()).unwrap().copies.insert(shard, rest);
                vec![begun]
            }
            Action::CopyMore { shard } => {
                let copies = &mut self.link(id).and_then(|link| link.server.as_mut()).unwrap().copies;
                let rest = copies.get_mut(&shard).unwrap();
                let mut events = Vec::new();
                while let Some(event) = rest.pop_front() {
                    let last = !matches!(event, Event::CopyMark { .. } | Event::CopyKeys { .. });
                    events.push(event);
                    if last {
                        break;
                    }
                }
                events
            }
            Action::Read { shard, from, .. } => {
                let of = self.shard(primary, shard);
                if from < of.first() {
                    return vec![Event::Gone { shard }];
                }
                let upto = published(of);
                let ready =
                    of.log.iter().filter(|entry| entry.logged.lsn >= from && entry.logged.lsn <= upto);
                let records: Vec<_> = ready.take(count).map(|entry| entry.logged.clone()).collect();
                let end = if records.len() < count { upto } else { records[count - 1].lsn };
                let read = records.into_iter().map(|record| Event::Read { shard, record });
                read.chain([Event::ReadUpTo { shard, lsn: end }]).collect()
            }
            other => unreachable!("{other:?} is no question"),
        }
    }
}

/// A snapshot of some slots, as the events that tell it.
fn copy(
    shard: &Shard,
    slots: &[SlotName],
    rewinds: Vec<Rewind>,
) -> (primary::Event, VecDeque<primary::Event>) {
    use primary::Event;
    let mut branches = Branches::new(rewinds);
    for entry in &shard.log {
        branches.look(&entry.logged.touches, &entry.logged.body, entry.is_copy());
    }
    let mut keys = branches.find();
    let id = shard.id;
    let mut rest = VecDeque::new();
    let mut begun = Vec::new();
    for (at, slot) in slots.iter().enumerate() {
        let data = shard.get(*slot);
        let (table, number) = *slot;
        begun.push(SlotPosition { table, slot: number, index: data.index, term: data.term });
        let keys = keys.remove(slot).filter(|_| data.index > 0);
        if let Some(keys) = keys.clone() {
            rest.push_back(Event::CopyKeys { shard: id, table, slot: number, keys });
        }
        let comes = |key: &Bytes| keys.as_ref().is_none_or(|keys| keys.contains(key));
        for (key, value) in data.content.into_iter().filter(|(key, _)| comes(key)) {
            let entries = vec![Entry { element: false, key, value }];
            rest.push_back(Event::CopyRows { shard: id, table, slot: number, entries });
        }
        rest.push_back(Event::CopyMark { shard: id, upto: at as u32 + 1 });
    }
    rest.push_back(Event::CopyEnd { shard: id });
    (Event::CopyBegun { shard: id, slots: begun, upto: shard.last }, rest)
}

//! A follower's side: the link to its primary, what its slots have, and what is done with what comes.
//!
//! Events in, actions out. It is the only writer of its node's slots. Must not know sockets, files or clocks.

use super::history::{Diverged, History};
use super::inflow::{Durability, Ready, Rewound, StreamIn};
use super::keys::Rewind;
use super::portion::{self, Unfit};
use super::position::{Position, Positions, SlotName, slot_position};
use super::status::Link;
use super::wire::{Identity, Message, NodeId, Record, Subscribe};
use crate::binlog::{Lsn, Touch};
use crate::limits::{REPLICA_BEAT_MS, REPLICA_PAUSE_MAX_MS, REPLICA_PAUSE_MIN_MS};
use crate::shard::mesh::{Portion, SlotPosition};
use crate::slot::set::{self, TableSlots};
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Entry;
use rustc_hash::FxHashSet;
use std::collections::{BTreeMap, VecDeque};

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub own: Identity,
    /// The slots that are followed; None: all.
    pub slots: Option<TableSlots>,
    /// A primary that says nothing for so long is given up.
    pub timeout_ms: u64,
    /// Of the chance in the pauses.
    pub seed: u64,
}

/// What a driver tells the machine.
#[derive(Debug)]
pub enum Event {
    /// The node is to follow.
    Start,
    /// It is to follow no more. The answer is `Disconnect`.
    Stop,
    /// The answer to `AskPositions`: every slot of the node that has a record, and where each local shard's log
    /// stood then.
    Positions { positions: Vec<SlotPosition>, ends: Vec<(ShardId, Lsn)> },
    /// The answer to `KeepDropped`: they are on disk. Of some slots all keys are known that they have changed.
    Kept { rewinds: Vec<Rewind> },
    /// Another answer to it: they are not, and nothing may be forgotten.
    NotKept { why: String },
    /// The answer to `Connect`: the handshake is done.
    Connected,
    /// The connection has ended, or could not be made. Not after `Disconnect`.
    Lost { why: String },
    /// A message has come. Anything but a primary's messages ends the connection.
    Received(Message),
    /// Bytes have come, be they a whole message or not.
    Heard,
    /// A portion's record stands in a local shard's log at `own`, is shown, and an answer that depends on it may
    /// leave. Per shard in the order of `Apply`.
    Applied { shard: ShardId, stream: ShardId, lsn: Lsn, own: Lsn },
    /// A local shard's log is durable up to here.
    Durable { shard: ShardId, own: Lsn },
    /// The answer to `Copy`. Per shard in order.
    Copied { shard: ShardId },
    /// The answer to `Adopt`, whose records end at `own`. Per shard in order.
    Adopted { shard: ShardId, own: Lsn },
    /// The answer to `Rewind`, whose records end at `own`. Per shard in order.
    Rewound { shard: ShardId, own: Lsn },
    /// Another answer to it: nothing of it has been done, and one of the slots must be copied whole.
    NotRewound { slot: SlotName, why: String },
    /// A shard could not do what was asked: what it has does not fit.
    Refused { shard: ShardId, why: String },
    /// All that was there has been told: acknowledgements leave now. After every batch of events.
    Idle,
    /// At least ten times a second. Milliseconds since the epoch, or of any clock that only grows.
    Tick { now_ms: u64 },
}

/// What the machine wants done. In order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Throw away what was copied and not adopted, and ask every local shard for its positions, behind all that
    /// was asked of it before. Answered by one `Positions`. Answers to whatever was asked before must not be told
    /// any more.
    AskPositions,
    /// Keep the records of these slots, up to these ends of the local shards' logs, that are not in the primary's
    /// history: what is here of them is to go. Answered by `Kept` or `NotKept`.
    KeepDropped {
        slots: Vec<Diverged>,
        ends: Vec<(ShardId, Lsn)>,
    },
    /// Connect to the primary. Answered by `Connected` or `Lost`.
    Connect,
    Send(Message),
    /// Log and show a portion. Answered by `Applied`. All actions for one shard are done in order.
    Apply {
        shard: ShardId,
        portion: Portion,
    },
    /// Keep entries of a slot of this shard, shown to nobody. Answered by `Copied`.
    Copy {
        shard: ShardId,
        table: TableId,
        slot: Slot,
        entries: Vec<Entry>,
    },
    /// These slots of this shard are what was copied, as of these positions; a slot of which nothing came is
    /// empty. Index 0: it has no record. Answered by `Adopted`.
    Adopt {
        shard: ShardId,
        slots: Vec<SlotPosition>,
    },
    /// These slots of this shard become what they are in these positions by some of their keys, each by one record.
    /// Answered by `Rewound` or `NotRewound`.
    Rewind {
        shard: ShardId,
        slots: Vec<Rewound>,
    },
    /// End the connection, or the attempt to make one.
    Disconnect,
}

/// Where the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Stopped,
    /// The local shards have been asked for their positions.
    Asking,
    /// What is to be dropped is being kept.
    Keeping,
    Connecting,
    /// Subscribed, and not answered.
    Handshake,
    Running,
    /// Until it is tried again.
    Pausing {
        until_ms: u64,
    },
}

/// The machine.
pub struct Follower {
    settings: Settings,
    phase: Phase,
    positions: Positions,
    /// Slots that must be copied, whatever is here of them.
    lost: FxHashSet<SlotName>,
    /// Of those, the slots whose records behind the fork are to be kept first, with the primary's history.
    to_keep: BTreeMap<SlotName, History>,
    /// Of the lost, those of which some keys are enough.
    rewinds: BTreeMap<SlotName, Rewind>,
    streams: Vec<StreamIn>,
    /// By local shard, the streams whose chunks and adoptions have not been answered.
    copying: Vec<VecDeque<ShardId>>,
    adopting: Vec<VecDeque<ShardId>>,
    rewinding: Vec<VecDeque<ShardId>>,
    durability: Durability,
    now_ms: u64,
    heard: bool,
    heard_ms: u64,
    said_ms: u64,
    pause_ms: u64,
    chance: fastrand::Rng,
    last_error: Option<String>,
    /// Slots that are followed and that the primary does not have.
    missing: TableSlots,
    primary: Option<NodeId>,
}

impl Follower {
    pub fn new(settings: Settings) -> Follower {
        let shards = usize::from(settings.own.placement.shard_count());
        Follower {
            phase: Phase::Stopped,
            positions: Positions::default(),
            lost: FxHashSet::default(),
            to_keep: BTreeMap::new(),
            rewinds: BTreeMap::new(),
            streams: Vec::new(),
            copying: vec![VecDeque::new(); shards],
            adopting: vec![VecDeque::new(); shards],
            rewinding: vec![VecDeque::new(); shards],
            durability: Durability::default(),
            now_ms: 0,
            heard: false,
            heard_ms: 0,
            said_ms: 0,
            pause_ms: REPLICA_PAUSE_MIN_MS,
            chance: fastrand::Rng::with_seed(settings.seed),
            last_error: None,
            missing: TableSlots::new(),
            primary: None,
            settings,
        }
    }

    /// Takes an event; what follows from it is appended to the actions.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match (event, self.phase) {
            (Event::Tick { now_ms }, _) => self.tick(now_ms, actions),
            (Event::Start, Phase::Stopped) => self.ask(actions),
            (Event::Stop, _) => self.stop(actions),
            (Event::Positions { positions, ends }, Phase::Asking) => {
                let followed = |at: &SlotPosition| {
                    self.settings.slots.as_ref().is_none_or(|slots| set::holds(slots, at.table, at.slot))
                };
                self.positions = positions.into_iter().filter(followed).collect();
                let shards = usize::from(self.settings.own.placement.shard_count());
                self.durability = Durability::new(shards, &ends);
                self.keep_or_connect(ends, actions);
            }
            (Event::Kept { rewinds }, Phase::Keeping) => {
                self.to_keep.clear();
                self.rewinds.extend(rewinds.into_iter().map(|rewind| (rewind.slot, rewind)));
                self.connect(actions);
            }
            (Event::NotKept { why }, Phase::Keeping) => {
                self.pause(format!("what is to be dropped cannot be kept: {why}"));
            }
            (Event::Connected, Phase::Connecting) => self.connected(actions),
            (Event::Lost { why }, Phase::Connecting | Phase::Handshake | Phase::Running) => self.pause(why),
            (Event::Heard, _) => self.heard = true,
            (Event::Received(message), Phase::Handshake | Phase::Running) => {
                self.heard = true;
                if let Err(why) = self.received(message, actions) {
                    self.fail(why, actions);
                }
            }
            (Event::Refused { shard, why }, Phase::Running) => {
                self.fail(format!("shard {} refuses what was sent: {why}", shard.0), actions);
            }
            (Event::Applied { shard, stream, lsn, own }, Phase::Running) => {
                self.durability.note(shard, own);
                if let Some(stream) = self.streams.get_mut(usize::from(stream.0)) {
                    stream.applied(shard, lsn);
                }
            }
            (Event::Durable { shard, own }, _) => self.durability.durable(shard, own),
            (Event::Copied { shard }, Phase::Running) => {
                if let Some(stream) = self.copying[usize::from(shard.0)].pop_front() {
                    self.streams[usize::from(stream.0)].chunks += 1;
                }
            }
            (Event::Adopted { shard, own }, Phase::Running) => {
                self.durability.note(shard, own);
                if let Some(stream) = self.adopting[usize::from(shard.0)].pop_front() {
                    self.streams[usize::from(stream.0)].adopting -= 1;
                }
            }
            (Event::Rewound { shard, own }, Phase::Running) => {
                self.durability.note(shard, own);
                if let Some(stream) = self.rewinding[usize::from(shard.0)].pop_front() {
                    self.streams[usize::from(stream.0)].adopting -= 1;
                }
            }
            (Event::NotRewound { slot, why }, Phase::Running) => {
                self.rewinds.remove(&slot);
                self.lost.insert(slot);
                self.fail(format!("a slot must be copied whole: {why}"), actions);
            }
            (Event::Idle, Phase::Running) => self.acknowledge(actions),
            // Of a connection that has ended just now.
            _ => {}
        }
    }

    /// What its slots have.
    pub fn positions(&self) -> impl Iterator<Item = SlotPosition> + '_ {
        self.positions.iter()
    }

    /// How far the link is.
    pub fn link(&self) -> Link {
        match self.phase {
            Phase::Stopped | Phase::Asking | Phase::Keeping | Phase::Pausing { .. } => Link::Connect,
            Phase::Connecting => Link::Connecting,
            Phase::Handshake => Link::Handshake,
            Phase::Running if self.streams.iter().all(|stream| stream.next.is_some()) => Link::Connected,
            Phase::Running => Link::Sync,
        }
    }

    /// Slots that are followed and that the primary did not have when it was last asked.
    pub fn missing(&self) -> &TableSlots {
        &self.missing
    }

    /// Of the primary, as far as it has told.
    pub fn streams(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.streams.len() as u16).map(ShardId)
    }

    /// When anything was last heard on the link; 0: never.
    pub fn last_heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// Why the last connection ended.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// The node that answered last.
    pub fn primary(&self) -> Option<NodeId> {
        self.primary
    }

    /// Everything of a stream up to here is applied.
    pub fn applied(&self, stream: ShardId) -> Lsn {
        self.streams.get(usize::from(stream.0)).map_or(Lsn::ZERO, |stream| stream.acknowledged.0)
    }

    /// How far the primary's log has come, as far as it has told.
    pub fn published(&self, stream: ShardId) -> Lsn {
        self.streams.get(usize::from(stream.0)).map_or(Lsn::ZERO, |stream| stream.published)
    }

    /// Slots copied on this connection, and those that it has been told to copy.
    pub fn slots_copied(&self) -> (u64, u64) {
        let sum = |of: fn(&StreamIn) -> u64| self.streams.iter().map(of).sum();
        (sum(|stream| stream.slots_adopted), sum(|stream| stream.slots_begun))
    }

    fn keep_or_connect(&mut self, ends: Vec<(ShardId, Lsn)>, actions: &mut Vec<Action>) {
        if self.to_keep.is_empty() {
            return self.connect(actions);
        }
        self.phase = Phase::Keeping;
        let diverged = |(slot, primarys): (&SlotName, &History)| {
            let (slot, has, primarys) = (*slot, self.positions.get(*slot), primarys.clone());
            Diverged { slot, has, primarys }
        };
        let slots = self.to_keep.iter().map(diverged).collect();
        actions.push(Action::KeepDropped { slots, ends });
    }

    fn connect(&mut self, actions: &mut Vec<Action>) {
        (self.phase, self.heard_ms) = (Phase::Connecting, self.now_ms);
        actions.push(Action::Connect);
    }

    fn ask(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Asking;
        self.streams.clear();
        let asked = self.copying.iter_mut().chain(&mut self.adopting).chain(&mut self.rewinding);
        asked.for_each(VecDeque::clear);
        actions.push(Action::AskPositions);
    }

    fn stop(&mut self, actions: &mut Vec<Action>) {
        if self.phase != Phase::Stopped {
            actions.push(Action::Disconnect);
        }
        self.phase = Phase::Stopped;
        self.streams.clear();
        self.lost.clear();
        self.to_keep.clear();
        self.rewinds.clear();
        self.last_error = None;
        self.pause_ms = REPLICA_PAUSE_MIN_MS;
    }

    fn fail(&mut self, why: String, actions: &mut Vec<Action>) {
        actions.push(Action::Disconnect);
        self.pause(why);
    }

    /// The connection is no more: it is tried again after a pause.
    fn pause(&mut self, why: String) {
        self.last_error = Some(why);
        let until_ms = self.now_ms + self.pause_ms / 2 + self.chance.u64(0..=self.pause_ms / 2);
        self.phase = Phase::Pausing { until_ms };
        self.pause_ms = (2 * self.pause_ms).min(REPLICA_PAUSE_MAX_MS);
    }

    fn connected(&mut self, actions: &mut Vec<Action>) {
        (self.phase, self.heard_ms, self.said_ms) = (Phase::Handshake, self.now_ms, self.now_ms);
        let Identity { placement, tables, crc16, node, slot_counts } = &self.settings.own;
        let (tables, crc16, node, slot_counts) = (*tables, *crc16, *node, slot_counts.clone());
        let lost = self.lost.iter().map(|slot| slot_position(*slot, Position::default()));
        let kept = self.positions.iter().filter(|at| !self.lost.contains(&(at.table, at.slot)));
        let mut positions: Vec<SlotPosition> = kept.chain(lost).collect();
        positions.sort_unstable_by_key(|at| (at.table, at.slot));
        let slots_per_table = placement.slots();
        let slots = self.settings.slots.clone();
        let rewinds =
            self.rewinds.values().filter(|rewind| self.lost.contains(&rewind.slot)).cloned().collect();
        let subscribe =
            Subscribe { tables, slots_per_table, crc16, node, slot_counts, slots, positions, rewinds };
        actions.push(Action::Send(Message::Subscribe(subscribe)));
    }

    fn tick(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.now_ms = self.now_ms.max(now_ms);
        if std::mem::take(&mut self.heard) {
            self.heard_ms = self.now_ms;
        }
        match self.phase {
            Phase::Pausing { until_ms } if self.now_ms >= until_ms => self.ask(actions),
            Phase::Connecting | Phase::Handshake | Phase::Running
                if self.now_ms - self.heard_ms > self.settings.timeout_ms =>
            {
                self.fail("the primary has said nothing for too long".into(), actions);
            }
            Phase::Handshake | Phase::Running if self.now_ms - self.said_ms >= REPLICA_BEAT_MS => {
                self.said_ms = self.now_ms;
                actions.push(Action::Send(Message::Alive));
            }
            _ => {}
        }
    }

    fn received(&mut self, message: Message, actions: &mut Vec<Action>) -> Result<(), String> {
        match message {
            Message::Welcome { streams, node, missing, .. } if self.phase == Phase::Handshake => {
                self.missing = missing;
                (self.phase, self.primary) = (Phase::Running, Some(node));
                let shards = usize::from(self.settings.own.placement.shard_count());
                self.streams = (0..streams).map(|_| StreamIn::new(shards)).collect();
            }
            Message::Refused { why } => {
                self.pause_ms = REPLICA_PAUSE_MAX_MS;
                return Err(format!("the primary refuses: {why}"));
            }
            Message::Forget { slots } => {
                for (slot, history) in slots {
                    if self.lost.insert(slot) {
                        self.to_keep.insert(slot, history);
                        // The next attempt gets further.
                        self.pause_ms = REPLICA_PAUSE_MIN_MS;
                    }
                }
                return Err("the primary's history is another".into());
            }
            Message::Record(record) => return self.record(record, actions),
            Message::CopyBegin { stream, slots } => {
                self.check_slots(slots.iter().map(|at| (at.table, at.slot)))?;
                self.stream(stream)?.begin_copy(slots)?;
            }
            Message::CopyKeys { stream, table, slot, keys } => {
                if !self.rewinds.contains_key(&(table, slot)) {
                    return Err("some keys come of a slot that must be copied whole".into());
                }
                self.stream(stream)?.take_keys((table, slot), keys)?;
            }
            Message::CopyRows { stream, table, slot, entries } => {
                if let Some(entries) = self.stream(stream)?.take_rows((table, slot), entries)? {
                    let shard = self.settings.own.placement.shard_of(slot);
                    self.copying[usize::from(shard.0)].push_back(stream);
                    actions.push(Action::Copy { shard, table, slot, entries });
                }
            }
            Message::CopyMark { stream, upto } => {
                let ready = self.stream(stream)?.mark_copy(upto as usize)?;
                self.adopt(stream, ready, actions);
            }
            Message::CopyEnd { stream } => {
                let ready = self.stream(stream)?.end_copy()?;
                self.adopt(stream, ready, actions);
            }
            Message::StreamFrom { stream, next } => {
                self.stream(stream)?.begin(next)?;
                self.pause_ms = REPLICA_PAUSE_MIN_MS;
            }
            Message::Upto { stream, lsn } => self.stream(stream)?.pass(lsn)?,
            Message::Beat { published, .. } => {
                for (stream, published) in self.streams.iter_mut().zip(published) {
                    stream.published = published;
                }
            }
            _ => return Err("the primary says what a primary does not say".into()),
        }
        Ok(())
    }

    fn stream(&mut self, stream: ShardId) -> Result<&mut StreamIn, String> {
        let known = self.streams.get_mut(usize::from(stream.0));
        known.ok_or_else(|| format!("the primary has no stream {}", stream.0))
    }

    fn check_slots(&self, mut slots: impl Iterator<Item = SlotName>) -> Result<(), String> {
        let count = self.settings.own.placement.slots();
        let wanted = |(table, slot): SlotName| {
            slot.0 < count && self.settings.slots.as_ref().is_none_or(|slots| set::holds(slots, table, slot))
        };
        if slots.all(wanted) {
            Ok(())
        } else {
            Err("the primary sends other slots than were asked for".into())
        }
    }

    fn record(&mut self, mut record: Record, actions: &mut Vec<Action>) -> Result<(), String> {
        self.check_slots(record.touches.iter().map(|touch| (touch.table, touch.slot)))?;
        let (stream, lsn) = (record.stream, record.lsn);
        self.stream(stream)?.pass(lsn)?;
        self.leave_out_what_is_here(&mut record)?;
        let touches = record.touches.clone();
        let split = portion::split(record, &self.settings.own.placement).map_err(|unfit| match unfit {
            Unfit::Body(error) => format!("record {} of stream {}: {error}", lsn.0, stream.0),
            Unfit::Copy(slots) => {
                self.lost.extend(slots);
                "slots must be copied that change places, or that the primary has copied".into()
            }
        })?;
        for Touch { table, slot, index, term } in touches {
            self.positions.set((table, slot), Position { index, term });
        }
        for (a, b) in split.swaps {
            let index = self.positions.get(a).index.max(self.positions.get(b).index);
            for slot in [a, b] {
                let term = self.positions.get(slot).term;
                self.positions.set(slot, Position { index, term });
            }
        }
        for (shard, portion) in split.portions {
            self.stream(stream)?.send(shard, lsn);
            actions.push(Action::Apply { shard, portion });
        }
        Ok(())
    }

    /// Keeps the touches of a record that are not here yet, which must be the next ones of their slots.
    fn leave_out_what_is_here(&mut self, record: &mut Record) -> Result<(), String> {
        let all = record.touches.len();
        let (positions, lost) = (&self.positions, &mut self.lost);
        let mut gap = None;
        record.touches.retain(|touch| {
            let slot = (touch.table, touch.slot);
            let has = positions.get(slot);
            let here = touch.index <= has.index;
            let other = touch.index == has.index && touch.term != has.term;
            if other || touch.index > has.index + 1 {
                lost.insert(slot);
                gap = Some((*touch, has));
            }
            !here
        });
        record.exact &= record.touches.len() == all;
        let Some((touch, has)) = gap else { return Ok(()) };
        Err(format!(
            "slot {} of table {} has come to {}.{} here, and {}.{} is said to follow",
            touch.slot.0, touch.table.0, has.term, has.index, touch.term, touch.index
        ))
    }

    fn adopt(&mut self, stream: ShardId, ready: Ready, actions: &mut Vec<Action>) {
        let mut rewind: BTreeMap<ShardId, Vec<Rewound>> = BTreeMap::new();
        for rewound in ready.rewind {
            self.found_again(rewound.at);
            rewind.entry(self.settings.own.placement.shard_of(rewound.at.slot)).or_default().push(rewound);
        }
        for (shard, slots) in rewind {
            self.streams[usize::from(stream.0)].adopting += 1;
            self.rewinding[usize::from(shard.0)].push_back(stream);
            actions.push(Action::Rewind { shard, slots });
        }
        let mut by_shard: BTreeMap<ShardId, Vec<SlotPosition>> = BTreeMap::new();
        for at in ready.adopt {
            self.found_again(at);
            by_shard.entry(self.settings.own.placement.shard_of(at.slot)).or_default().push(at);
        }
        for (shard, slots) in by_shard {
            self.streams[usize::from(stream.0)].adopting += 1;
            self.adopting[usize::from(shard.0)].push_back(stream);
            actions.push(Action::Adopt { shard, slots });
        }
    }

    /// A slot is in the primary's history again, at this position.
    fn found_again(&mut self, at: SlotPosition) {
        let slot = (at.table, at.slot);
        self.positions.set(slot, Position { index: at.index, term: at.term });
        self.lost.remove(&slot);
        self.rewinds.remove(&slot);
    }

    /// Says what has become of what was sent, where that is news.
    fn acknowledge(&mut self, actions: &mut Vec<Action>) {
        self.durability.look(self.streams.iter().map(StreamIn::is_applied));
        for (at, stream) in self.streams.iter_mut().enumerate() {
            let id = ShardId(at as u16);
            if stream.chunks > stream.chunks_acknowledged {
                stream.chunks_acknowledged = stream.chunks;
                actions.push(Action::Send(Message::CopyAck { stream: id, chunks: stream.chunks }));
            }
            let applied = stream.is_applied();
            let durable = self.durability.of(at, applied);
            if (applied, durable) != stream.acknowledged {
                stream.acknowledged = (applied, durable);
                actions.push(Action::Send(Message::Ack { stream: id, applied, durable }));
            }
        }
    }
}

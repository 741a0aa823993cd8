//! A primary's side for one follower: what it lacks, in which order it is sent, and how much at once.
//!
//! Events in, actions out. Must not know other followers, sockets, files or clocks.

use super::greeting::{Copies, Peer};
use super::history::History;
use super::keys::Rewind;
use super::parting::Parting;
use super::plan::{self, CatchUp, Way};
use super::position::{Position, Positions, SlotName, slot_position};
use super::stream::{CopyOut, Next, Phase, Stream};
use super::wire::{Identity, Message, NodeId, Subscribe};
use crate::binlog::{Lsn, Touch, Txn};
use crate::limits::{REPLICA_BEAT_MS, REPLICA_READ_BYTES};
use crate::shard::mesh::SlotPosition;
use crate::slot::set::{self, TableSlots};
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Entry;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;

/// What does not change while a follower is attached.
#[derive(Clone, Debug)]
pub struct Settings {
    pub own: Identity,
    /// The slots that are here, in sharding mode; None: all there are.
    pub offers: Option<TableSlots>,
    pub peer: Peer,
    /// Bytes of records that may be under way on one stream, sent and not acknowledged. One record may always.
    pub window_bytes: u64,
    /// A follower that says nothing for so long is given up.
    pub timeout_ms: u64,
}

/// What a driver tells the machine.
#[derive(Debug)]
pub enum Event {
    /// A message has come. Anything but the follower's messages ends the link.
    Received(Message),
    /// Bytes have come, be they a whole message or not.
    Heard,
    /// The answer to `AskState`: what stands in the shard's log up to `upto` (written, published or not), and no
    /// more, has brought its slots to these positions.
    State { shard: ShardId, positions: Vec<SlotPosition>, upto: Lsn },
    /// The answer to `Locate`: the segments of the log, oldest first, as far as records up to `upto` go.
    Located { shard: ShardId, segments: Vec<Indexed>, upto: Lsn },
    /// The answer to `Trace`: what the log holds of these slots' histories. Of slots that are not named, nothing.
    Traced { shard: ShardId, histories: FxHashMap<SlotName, History> },
    /// The answer to `Copy`: the snapshot holds exactly what the log holds up to `upto`. The slots asked for, in
    /// the order in which they come, with their positions; index 0: it has never been written.
    CopyBegun { shard: ShardId, slots: Vec<SlotPosition>, upto: Lsn },
    /// Of this slot of the copy only these keys come. Before the answer to `CopyMore` that follows it, at most once,
    /// and only of slots that may be rewound.
    CopyKeys { shard: ShardId, table: TableId, slot: Slot, keys: Vec<Bytes> },
    /// An answer to `CopyMore`.
    CopyRows { shard: ShardId, table: TableId, slot: Slot, entries: Vec<Entry> },
    /// The first so many slots of the copy are complete. Before the answer to `CopyMore` that follows them.
    CopyMark { shard: ShardId, upto: u32 },
    /// The answer to `CopyMore` when there is no more.
    CopyEnd { shard: ShardId },
    /// The next record of what `Read` asks for.
    Read { shard: ShardId, record: Logged },
    /// The end of what `Read` asks for: all records up to here have been told.
    ReadUpTo { shard: ShardId, lsn: Lsn },
    /// The end of what `Read` asks for: the log does not hold it any more.
    Gone { shard: ShardId },
    /// Followers may have a shard's log up to here.
    Published { shard: ShardId, lsn: Lsn },
    /// At least ten times a second. Milliseconds since the epoch.
    Tick { now_ms: u64 },
}

/// What the machine wants done. In order; an answer may come at any time later.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Send(Message),
    /// Ask the owner of a shard for its slots' positions. Answered by `State`.
    AskState {
        shard: ShardId,
    },
    /// Look which segment of a shard's log holds which slots. Answered by `Located`.
    Locate {
        shard: ShardId,
    },
    /// Look through a shard's log for the histories of slots. Answered by `Traced`.
    Trace {
        shard: ShardId,
        slots: Vec<SlotName>,
    },
    /// Take a snapshot of a shard, for these slots of it; of some the follower lacks only some keys, if what else
    /// has changed behind the fork is little. Answered by `CopyBegun`.
    Copy {
        shard: ShardId,
        slots: Vec<SlotName>,
        rewinds: Vec<Rewind>,
    },
    /// Read on in the snapshot. Answered by one `CopyRows`, or by `CopyEnd`; asked again only then.
    CopyMore {
        shard: ShardId,
    },
    /// Read a shard's log from the record at `from`, or the first behind it: records of about so many bytes, at
    /// least one, as far as is published. Answered by any number of `Read`, and `ReadUpTo` or `Gone`; asked again
    /// only then.
    Read {
        shard: ShardId,
        from: Lsn,
        bytes: usize,
    },
    /// The follower may yet need the log of a shard from this LSN on, and no more what is before. Holds until
    /// the next, and a while beyond `Close`.
    KeepLog {
        shard: ShardId,
        from: Lsn,
    },
    /// Send what is to be sent and end the connection. Nothing is asked or told any more.
    Close {
        why: String,
    },
}

/// A record of a shard's log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub lsn: Lsn,
    pub time_ms: u64,
    pub touches: SmallVec<[Touch; 2]>,
    pub txn: Option<Txn>,
    pub body: Bytes,
}

impl Logged {
    /// What it takes in memory, about.
    pub fn room_bytes(&self) -> usize {
        const HEAD_BYTES: usize = 64;
        self.body.len() + HEAD_BYTES
    }
}

/// One segment's slots.
#[derive(Clone, Debug)]
pub struct Indexed {
    /// Its first LSN.
    pub first: Lsn,
    pub slots: FxHashMap<SlotName, Held>,
}

/// What one segment holds of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of the first record in it, and of the last one.
    pub first_index: u64,
    pub last_index: u64,
    pub last_term: u64,
}

/// How far a follower is behind on one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Everything up to here is applied at the follower; durable there. 0 until it is known that what it had when
    /// it came is of this history.
    pub applied: Lsn,
    pub durable: Lsn,
    /// Numbers of the log that are published and not acknowledged.
    pub records: u64,
    /// Bytes of records sent and not acknowledged.
    pub bytes: u64,
    /// For how long something published has not been acknowledged.
    pub ms: u64,
}

/// How far the link to a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not said yet what it has, or it is not known yet what it lacks.
    Handshake,
    /// Slots of at least one shard are being copied.
    Copying,
    /// Every shard's records are sent as they come.
    Online,
    Closed,
}

/// One follower, as its primary sees it.
pub struct Primary {
    settings: Settings,
    /// What the follower claims to have; None: it wants a copy. Until all streams have been planned.
    claims: FxHashMap<SlotName, Option<Position>>,
    rewinds: FxHashMap<SlotName, Rewind>,
    /// By shard.
    streams: Vec<Stream>,
    subscribed: bool,
    /// The slots that it is sent; None: all.
    slots: Option<Arc<TableSlots>>,
    node: Option<NodeId>,
    parting: Parting,
    closed: bool,
    now_ms: u64,
    /// Something has come since the last tick.
    heard: bool,
    heard_ms: u64,
    beat_ms: u64,
    slots_copied: u64,
    slots_rewound: u64,
    slots_continued: u64,
}

impl Primary {
    /// A follower that has just connected.
    pub fn new(settings: Settings, now_ms: u64) -> Primary {
        let stream = |shard| Stream::new(shard, settings.own.placement.clone());
        Primary {
            claims: FxHashMap::default(),
            rewinds: FxHashMap::default(),
            streams: settings.own.placement.shards().map(stream).collect(),
            subscribed: false,
            slots: None,
            node: None,
            parting: Parting::default(),
            settings,
            closed: false,
            now_ms,
            heard: false,
            heard_ms: now_ms,
            beat_ms: now_ms,
            slots_copied: 0,
            slots_rewound: 0,
            slots_continued: 0,
        }
    }

    /// Takes an event; what follows from it is appended to the actions.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        if self.closed {
            return;
        }
        match event {
            Event::Read { shard, record } => {
                self.stream(shard).hold(record);
                self.pump(shard, actions);
            }
            Event::ReadUpTo { shard, lsn } => {
                self.stream(shard).hold_end(lsn);
                self.pump(shard, actions);
            }
            Event::Published { shard, lsn } => {
                let now_ms = self.now_ms;
                if let Some(stream) = self.streams.get_mut(usize::from(shard.0)) {
                    stream.publish(lsn, now_ms);
                    self.locate(shard, actions);
                    self.read(shard, actions);
                }
            }
            Event::Received(message) => {
                self.heard = true;
                self.received(message, actions);
            }
            Event::Heard => self.heard = true,
            Event::State { shard, positions, upto } => {
                self.stream(shard).phase = Phase::Locating { positions, upto, asked: false };
                self.locate(shard, actions);
            }
            Event::Located { shard, segments, upto } => self.located(shard, &segments, upto, actions),
            Event::Traced { shard, histories } => {
                self.parting.traced(shard, histories);
                self.part(actions);
            }
            Event::CopyBegun { shard, slots, upto } => self.copy_begun(shard, slots, upto, actions),
            Event::CopyKeys { shard, table, slot, keys } => {
                self.slots_copied -= 1;
                self.slots_rewound += 1;
                actions.push(Action::Send(Message::CopyKeys { stream: shard, table, slot, keys }));
            }
            Event::CopyRows { shard, table, slot, entries } => {
                if let Phase::Copying(copy) = &mut self.stream(shard).phase {
                    copy.note_chunk();
                }
                actions.push(Action::Send(Message::CopyRows { stream: shard, table, slot, entries }));
                self.copy_more(shard, actions);
            }
            Event::CopyMark { shard, upto } => {
                actions.push(Action::Send(Message::CopyMark { stream: shard, upto }));
            }
            Event::CopyEnd { shard } => self.copy_ended(shard, actions),
            Event::Gone { .. } => self.close("the log it needs is gone".into(), actions),
            Event::Tick { now_ms } => self.tick(now_ms, actions),
        }
    }

    pub fn stage(&self) -> Stage {
        let asking =
            |stream: &Stream| stream.silent || matches!(stream.phase, Phase::Asked | Phase::Locating { .. });
        if self.closed {
            Stage::Closed
        } else if self.streams.iter().any(asking) {
            Stage::Handshake
        } else if self.streams.iter().all(Stream::is_flowing) {
            Stage::Online
        } else {
            Stage::Copying
        }
    }

    /// The slots that it is sent; None: all, or it has not said yet.
    pub fn slots(&self) -> Option<&Arc<TableSlots>> {
        self.slots.as_ref()
    }

    /// The follower's name, once it has said it.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// How far it is behind on one shard's stream.
    pub fn lag(&self, shard: ShardId) -> Lag {
        self.streams.get(usize::from(shard.0)).map_or_else(Lag::default, |stream| stream.lag(self.now_ms))
    }

    /// Slots that were or are to be copied on this link.
    pub fn slots_copied(&self) -> u64 {
        self.slots_copied
    }

    /// Slots of which some keys were enough.
    pub fn slots_rewound(&self) -> u64 {
        self.slots_rewound
    }

    /// Slots with records that needed no copy.
    pub fn slots_continued(&self) -> u64 {
        self.slots_continued
    }

    fn stream(&mut self, shard: ShardId) -> &mut Stream {
        &mut self.streams[usize::from(shard.0)]
    }

    fn close(&mut self, why: String, actions: &mut Vec<Action>) {
        self.closed = true;
        actions.push(Action::Close { why });
    }

    fn received(&mut self, message: Message, actions: &mut Vec<Action>) {
        let stream_of = |stream: ShardId| usize::from(stream.0);
        match message {
            Message::Subscribe(subscribe) if !self.subscribed => self.subscribed(subscribe, actions),
            Message::Ack { stream, applied, durable } => {
                let now_ms = self.now_ms;
                let known = self.streams.get_mut(stream_of(stream));
                if known.is_some_and(|stream| stream.acknowledge(applied, durable, now_ms)) {
                    self.pump(stream, actions);
                } else {
                    self.close("it acknowledges what it was not sent".into(), actions);
                }
            }
            Message::CopyAck { stream, chunks } => {
                let right = match self.streams.get_mut(stream_of(stream)).map(|stream| &mut stream.phase) {
                    Some(Phase::Copying(copy)) => copy.acknowledge(chunks),
                    // The last chunks of a copy that has ended here.
                    Some(Phase::Flowing) => true,
                    _ => false,
                };
                if right {
                    self.copy_more(stream, actions);
                } else {
                    self.close("it acknowledges what it was not sent".into(), actions);
                }
            }
            Message::Alive => {}
            _ => self.close("it says what a follower does not say".into(), actions),
        }
    }

    fn subscribed(&mut self, subscribe: Subscribe, actions: &mut Vec<Action>) {
        if let Some(why) = self.refusal(&subscribe) {
            actions.push(Action::Send(Message::Refused { why: why.into() }));
            return self.close(why.into(), actions);
        }
        let claim = |at: &SlotPosition| {
            let position = Position { index: at.index, term: at.term };
            ((at.table, at.slot), (at.index > 0).then_some(position))
        };
        self.claims = subscribe.positions.iter().map(claim).collect();
        self.rewinds = subscribe.rewinds.into_iter().map(|rewind| (rewind.slot, rewind)).collect();
        (self.subscribed, self.node) = (true, Some(subscribe.node));
        let mut missing = TableSlots::new();
        if let (Some(wanted), Some(offers)) = (&subscribe.slots, &self.settings.offers) {
            missing = set::without(wanted, offers);
        }
        self.slots = subscribe.slots.map(|wanted| Arc::new(set::without(&wanted, &missing)));
        if let Some(slots) = &self.slots {
            self.claims.retain(|(table, slot), _| set::holds(slots, *table, *slot));
            self.streams.iter_mut().for_each(|stream| stream.only(slots.clone()));
        }
        actions.push(Action::Send(Message::Welcome {
            streams: self.settings.own.placement.shard_count(),
            node: self.settings.own.node,
            time_ms: self.now_ms,
            missing,
        }));
        actions.extend(self.settings.own.placement.shards().map(|shard| Action::AskState { shard }));
    }

    fn refusal(&self, subscribe: &Subscribe) -> Option<&'static str> {
        let Identity { placement, tables, crc16, node, slot_counts } = &self.settings.own;
        // A capture has no slots of its own that this node's could differ from.
        if let Peer::Node { .. } = self.settings.peer {
            if subscribe.node == *node {
                return Some("a node cannot follow itself");
            }
            if subscribe.slots_per_table != placement.slots() || subscribe.crc16 != *crc16 {
                return Some("the two nodes divide keys into slots differently");
            }
            let offers =
                |table: &TableId| self.settings.offers.as_ref().is_some_and(|of| of.contains_key(table));
            let differs = |table: &TableId| subscribe.slot_counts.get(table) != slot_counts.get(table);
            let mut wanted = subscribe.slots.iter().flat_map(|slots| slots.keys());
            if wanted.any(|table| offers(table) && differs(table)) {
                return Some("a table has another number of slots here");
            }
            match (&subscribe.slots, &self.settings.offers) {
                (None, Some(_)) => return Some("the primary is in sharding mode: slots must be named"),
                (None, None) if subscribe.tables < *tables => {
                    return Some("the follower has fewer databases");
                }
                _ => {}
            }
        }
        let outside = |at: &SlotPosition| at.slot.0 >= placement.slots();
        subscribe.positions.iter().any(outside).then_some("the follower has slots that cannot be")
    }

    /// The log is looked through when it may be read as far as the positions go: what a follower has of a
    /// primary before this one may stand in what is not published yet.
    fn locate(&mut self, shard: ShardId, actions: &mut Vec<Action>) {
        let stream = self.stream(shard);
        if let Phase::Locating { upto, asked, .. } = &mut stream.phase
            && !*asked
            && stream.published >= *upto
        {
            *asked = true;
            actions.push(Action::Locate { shard });
        }
    }

    fn located(&mut self, shard: ShardId, log: &[Indexed], upto: Lsn, actions: &mut Vec<Action>) {
        let phase = std::mem::replace(&mut self.stream(shard).phase, Phase::Asked);
        let Phase::Locating { positions, upto: state_upto, .. } = phase else {
            unreachable!("a log is looked through once its shard's positions are known");
        };
        let wanted =
            |at: &SlotPosition| self.slots.as_ref().is_none_or(|slots| set::holds(slots, at.table, at.slot));
        let own: Positions = positions.into_iter().filter(wanted).collect();
        let placement = &self.settings.own.placement;
        let claimed = self.claims.keys().filter(|(_, slot)| placement.shard_of(*slot) == shard).copied();
        let mut slots: Vec<SlotName> = own.iter().map(|at| (at.table, at.slot)).chain(claimed).collect();
        slots.sort_unstable();
        slots.dedup();
        let mut catch_up = CatchUp::new(state_upto);
        let (mut from, mut copies, mut continued) = (state_upto.next(), Vec::new(), 0);
        let (mut silent, keeps_data) = (false, matches!(self.settings.peer, Peer::Node { .. }));
        let begins_now = self.settings.peer == Peer::Capture(Copies::PositionsOfAll);
        let unnamed = (!begins_now).then(Position::default);
        for slot in slots {
            let has = self.claims.get(&slot).copied().unwrap_or(unnamed);
            match plan::way(slot, has, own.get(slot), log, upto) {
                Way::Same => continued += 1,
                Way::From { lsn, proven } => {
                    let has = has.expect("a slot that wants a copy gets one");
                    catch_up.continues(slot, has, lsn, proven);
                    from = from.min(lsn);
                    continued += 1;
                }
                // What it has may be nobody else's: it must know before that goes.
                Way::Copy if keeps_data && has.is_some_and(|has| has.index > 0) => {
                    catch_up.parted(slot, own.get(slot));
                    silent = true;
                }
                Way::Copy => copies.push(slot),
            }
        }
        self.slots_continued += continued;
        self.slots_copied += copies.len() as u64;
        if self.settings.peer.positions_only() && !copies.is_empty() {
            copies.iter().for_each(|slot| catch_up.has_upto(*slot, state_upto));
            tell_positions(shard, &std::mem::take(&mut copies), &own, actions);
        }
        let stream = self.stream(shard);
        (stream.next, stream.keep_from, stream.kept_from) = (from, from, from);
        stream.catch_up = Some(Box::new(catch_up));
        actions.push(Action::KeepLog { shard, from });
        stream.silent = silent;
        if silent {
            self.flow_from(shard, from);
            self.pump(shard, actions);
        } else if copies.is_empty() {
            self.flow(shard, from, actions);
        } else {
            stream.phase = Phase::Copying(CopyOut::new(copies.clone()));
            // It would not come to its end.
            if !self.parting.is_under_way() {
                let rewinds = copies.iter().filter_map(|slot| self.rewinds.remove(slot)).collect();
                actions.push(Action::Copy { shard, slots: copies, rewinds });
            }
        }
        self.part(actions);
    }

    fn copy_begun(&mut self, shard: ShardId, slots: Vec<SlotPosition>, upto: Lsn, actions: &mut Vec<Action>) {
        if let Phase::Copying(copy) = &mut self.stream(shard).phase {
            copy.upto = Some(upto);
            actions.push(Action::Send(Message::CopyBegin { stream: shard, slots }));
            self.copy_more(shard, actions);
        }
    }

    fn copy_more(&mut self, shard: ShardId, actions: &mut Vec<Action>) {
        if let Phase::Copying(copy) = &mut self.stream(shard).phase
            && copy.ask()
        {
            actions.push(Action::CopyMore { shard });
        }
    }

    fn copy_ended(&mut self, shard: ShardId, actions: &mut Vec<Action>) {
        let stream = self.stream(shard);
        let Phase::Copying(CopyOut { slots, upto: Some(upto), .. }) = &stream.phase else {
            unreachable!("a copy ends after it has begun");
        };
        let catch_up = stream.catch_up.as_mut().expect("made when the stream was planned");
        slots.iter().for_each(|slot| catch_up.has_upto(*slot, *upto));
        let from = stream.next.min(upto.next());
        actions.push(Action::Send(Message::CopyEnd { stream: shard }));
        self.flow(shard, from, actions);
    }

    fn flow_from(&mut self, shard: ShardId, from: Lsn) {
        // Of slots that are only not borne out yet, the next record tells.
        if let Err(slots) = self.stream(shard).flow_from(from)
            && self.stream(shard).silent
        {
            self.parting.found(shard, slots);
        }
    }

    fn flow(&mut self, shard: ShardId, from: Lsn, actions: &mut Vec<Action>) {
        self.flow_from(shard, from);
        actions.push(Action::Send(Message::StreamFrom { stream: shard, next: from }));
        self.pump(shard, actions);
        if self.streams.iter().all(Stream::is_flowing) {
            self.claims = FxHashMap::default();
            self.rewinds = FxHashMap::default();
        }
    }

    /// Moves a shard's stream on, and those that wait for it.
    fn pump(&mut self, shard: ShardId, actions: &mut Vec<Action>) {
        self.pump_one(shard, actions);
        for at in usize::from(shard.0) + 1..self.streams.len() {
            if !self.closed && self.streams[at].holds_any() {
                self.pump_one(self.streams[at].shard, actions);
            }
        }
        self.part(actions);
    }

    /// A stream's next record is a part whose whole has not been sent.
    fn waits(&self, stream: &Stream) -> bool {
        let waits_for = stream.next_waits_for();
        let home = waits_for.and_then(|(home, lsn)| Some((self.streams.get(usize::from(home.0))?, lsn)));
        home.is_some_and(|(home, lsn)| !home.is_past(lsn))
    }

    fn pump_one(&mut self, shard: ShardId, actions: &mut Vec<Action>) {
        if self.parting.has(shard) {
            return;
        }
        loop {
            if self.waits(&self.streams[usize::from(shard.0)]) {
                return;
            }
            let window_bytes = self.settings.window_bytes;
            match self.stream(shard).step(window_bytes) {
                Ok(Next::Send(record)) => actions.push(Action::Send(Message::Record(record))),
                Ok(Next::Passed) => {}
                Ok(Next::Held) => return,
                Ok(Next::Nothing) => break,
                Err(slots) => return self.parting.found(shard, slots),
            }
        }
        match self.stream(shard).end_read() {
            Ok(Some(lsn)) => actions.push(Action::Send(Message::Upto { stream: shard, lsn })),
            Ok(None) => {}
            Err(slots) => return self.parting.found(shard, slots),
        }
        self.read(shard, actions);
    }

    /// Takes leave of a follower whose slots have parted, when every shard has found out which: each time it
    /// comes back costs it a pause.
    fn part(&mut self, actions: &mut Vec<Action>) {
        let finds_out = |stream: &Stream| match stream.phase {
            _ if self.parting.has(stream.shard) => false,
            Phase::Asked | Phase::Locating { .. } => true,
            // What it waits for may have parted.
            Phase::Flowing => stream.catch_up.is_some() && !self.waits(stream),
            Phase::Copying(_) => false,
        };
        if !self.parting.is_under_way() || self.streams.iter().any(finds_out) {
            return;
        }
        actions.extend(self.parting.ask().map(|(shard, slots)| Action::Trace { shard, slots }));
        if let Some(slots) = self.parting.told() {
            actions.push(Action::Send(Message::Forget { slots }));
            self.close("it has records that are not in this history".into(), actions);
        }
    }

    fn read(&mut self, shard: ShardId, actions: &mut Vec<Action>) {
        let window_bytes = self.settings.window_bytes;
        if self.parting.has(shard) {
            return;
        }
        if let Some(from) = self.stream(shard).ask_read(window_bytes) {
            actions.push(Action::Read { shard, from, bytes: REPLICA_READ_BYTES });
        }
    }

    fn tick(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        self.now_ms = self.now_ms.max(now_ms);
        if std::mem::take(&mut self.heard) {
            self.heard_ms = self.now_ms;
        }
        if self.now_ms - self.heard_ms > self.settings.timeout_ms {
            return self.close("it has said nothing for too long".into(), actions);
        }
        for stream in &mut self.streams {
            if stream.keep_from > stream.kept_from {
                stream.kept_from = stream.keep_from;
                actions.push(Action::KeepLog { shard: stream.shard, from: stream.keep_from });
            }
        }
        if self.subscribed && self.now_ms - self.beat_ms >= REPLICA_BEAT_MS {
            self.beat_ms = self.now_ms;
            let published = self.streams.iter().map(|stream| stream.published).collect();
            actions.push(Action::Send(Message::Beat { published, time_ms: self.now_ms }));
        }
    }
}

/// A copy without its rows: where these slots stand.
fn tell_positions(stream: ShardId, slots: &[SlotName], own: &Positions, actions: &mut Vec<Action>) {
    let upto = slots.len() as u32;
    let slots = slots.iter().map(|slot| slot_position(*slot, own.get(*slot))).collect();
    actions.push(Action::Send(Message::CopyBegin { stream, slots }));
    actions.push(Action::Send(Message::CopyMark { stream, upto }));
    actions.push(Action::Send(Message::CopyEnd { stream }));
}

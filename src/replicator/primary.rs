//! The link to one that follows this node: what its machine wants, done with files, cores and a socket.
//!
//! Must not know the link to this node's own primary, nor other followers.

use super::copy::{self, Chunk, CopyWanted};
use super::hub::{Answer, Attached, Hub, now_ms};
use super::slots::Slots;
use super::source::{self, End, Tail};
use super::wire::{LinkError, Wire};
use crate::binlog::Lsn;
use crate::conn::moving::Moving;
use crate::limits;
use crate::replica::greeting::Peer;
use crate::replica::history::History;
use crate::replica::position::SlotName;
use crate::replica::primary::{Action, Event, Primary, Settings, Stage};
use crate::replica::status::Follower;
use crate::shard::mesh::{LentShard, Replicate, Replicated, SlotPosition};
use crate::slot::{ShardId, set};
use rustc_hash::{FxHashMap, FxHashSet};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Takes over a connection that has asked to follow.
pub fn attach(hub: &Rc<Hub>, moving: Moving) {
    let (fd, session, first) = moving.into_parts();
    let stream = StdStream::from(fd);
    let stream = stream.set_nonblocking(true).and_then(|()| {
        stream.set_nodelay(true)?;
        TcpStream::from_std(stream)
    });
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            return tracing::warn!(follower = session.addr, %error, "a follower could not be taken over");
        }
    };
    let (ip, from_port) = session.addr.rsplit_once(':').unwrap_or(("", "0"));
    let peer = session.follower.expect("only followers are handed over");
    let (what, port) = match peer {
        Peer::Node { port } => ("a node", port),
        Peer::Capture(_) => ("a capture", from_port.parse().unwrap_or(0)),
    };
    let ip = ip.to_owned();
    let hub = hub.clone();
    tokio::task::spawn_local(async move {
        // The cores must know where slots lie before they are asked about them.
        hub.rehoming.settled().await;
        let (ticket, answers) = hub.route();
        tracing::info!(ip, port, "{what} follows");
        let facts = Follower { ip: ip.clone(), port, acknowledged_ms: now_ms(), ..Follower::default() };
        let mut link = FollowerLink::new(hub.clone(), ticket, Wire::new(stream, &first), peer, facts);
        let why = match link.run(answers).await {
            Ok(why) => why,
            Err(error) => error.to_string(),
        };
        tracing::info!(ip, port, why, "{what} follows no more");
        hub.end_route(ticket);
        hub.forget_follower(ticket);
    });
}

/// What work beside the link has brought.
enum Inner {
    Located(ShardId, Result<(Vec<crate::replica::primary::Indexed>, Lsn), String>),
    Traced(ShardId, FxHashMap<SlotName, History>),
    Chunk(ShardId, Receiver<Chunk>, Option<Chunk>),
}

/// A copy under way.
struct Copy {
    chunks: Option<Receiver<Chunk>>,
    done: u32,
    slots: u32,
    /// The next chunk may not come before: what has come is paid for in time.
    not_before: Instant,
    /// Of whole slots, since the last mark.
    unmarked_bytes: usize,
    /// A slot has come, or comes, whole.
    counted: bool,
}

struct FollowerLink {
    hub: Rc<Hub>,
    ticket: u64,
    wire: Wire,
    machine: Primary,
    /// By shard.
    logs: Vec<Tail>,
    published: Vec<Lsn>,
    /// Slots that a shard's copy is to have, until the shard is lent.
    wanted: FxHashMap<ShardId, CopyWanted>,
    copies: FxHashMap<ShardId, Copy>,
    inner: UnboundedSender<Inner>,
    inner_events: UnboundedReceiver<Inner>,
    attached: Attached,
    /// How often slots had moved between this node's shards when it began.
    placed: u64,
    /// Something has come since the last note.
    heard: bool,
    /// The others know which slots it follows.
    noted_slots: bool,
    /// The machine has closed the link, for this reason.
    closed: Option<String>,
}

impl FollowerLink {
    fn new(hub: Rc<Hub>, ticket: u64, wire: Wire, peer: Peer, facts: Follower) -> FollowerLink {
        let (config, place) = (hub.config(), &hub.place);
        let settings = Settings {
            own: hub.identity(),
            offers: hub.slots.as_ref().map(|slots| slots.assigned().here()),
            peer,
            window_bytes: limits::REPLICA_WINDOW_BYTES as u64,
            timeout_ms: u64::from(config.repl_timeout_s) * 1000,
        };
        let shards = place.logs.len();
        let (inner, inner_events) = unbounded_channel();
        FollowerLink {
            machine: Primary::new(settings, now_ms()),
            logs: place.logs.iter().map(|dir| Tail::new(dir.clone())).collect(),
            published: vec![Lsn::ZERO; shards],
            wanted: FxHashMap::default(),
            copies: FxHashMap::default(),
            inner,
            inner_events,
            attached: Attached {
                facts,
                is_capture: matches!(peer, Peer::Capture(_)),
                applied: vec![0; shards],
                durable: vec![0; shards],
                needs: vec![None; shards],
                node: None,
                slots: None,
                has_all: false,
            },
            placed: hub.rehoming.times(),
            heard: false,
            noted_slots: false,
            closed: None,
            hub,
            ticket,
            wire,
        }
    }

    /// Until the link ends; why it has.
    async fn run(&mut self, mut answers: UnboundedReceiver<Answer>) -> Result<String, LinkError> {
        let mut growth = self.hub.growth();
        let mut changes = self.hub.slots.as_ref().map(Slots::changes);
        let mut tick = interval(limits::REPLICA_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.hub.note_follower(self.ticket, self.attached.clone());
        self.take_messages()?;
        self.look_at_logs();
        while self.closed.is_none() {
            tokio::select! {
                ready = self.wire.ready() => {
                    ready?;
                    if self.wire.read()? {
                        self.take_messages()?;
                    }
                }
                answer = answers.recv() => {
                    let (shard, what) = answer.expect("the route lives as long as the link");
                    self.answered(shard, what);
                }
                inner = self.inner_events.recv() => self.happened(inner.expect("the link holds a sender")),
                grown = growth.changed() => {
                    grown.expect("the hub outlives its links");
                    self.look_at_logs();
                }
                () = changed(changes.as_mut()) => self.slots_changed(),
                _ = tick.tick() => self.handle(Event::Tick { now_ms: now_ms() }),
            }
            self.wire.flush()?;
            self.note();
        }
        // Its last words, as far as the peer takes them.
        self.wire.flush()?;
        Ok(self.closed.take().expect("looked above"))
    }

    /// A follower of slots that have left this node must hear nothing more of them, and be told so.
    fn slots_changed(&mut self) {
        let here = self.hub.slots().assigned().here();
        let gone = self.machine.slots().is_some_and(|slots| !set::without(slots, &here).is_empty());
        if gone {
            self.closed = Some("slots that it follows have left this node".into());
        }
        self.noted_slots = false;
    }

    fn take_messages(&mut self) -> Result<(), LinkError> {
        self.heard = true;
        self.handle(Event::Heard);
        while let Some(message) = self.wire.next()? {
            self.handle(Event::Received(message));
        }
        Ok(())
    }

    fn look_at_logs(&mut self) {
        for shard in self.hub.shards() {
            let lsn = Lsn(self.hub.published.upto(shard));
            let known = &mut self.published[usize::from(shard.0)];
            if *known != lsn {
                *known = lsn;
                self.handle(Event::Published { shard, lsn });
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        let mut actions = Vec::new();
        while let Some(event) = events.pop() {
            if self.placed != self.hub.rehoming.times() {
                // Which shard's log has a slot's records is settled when a link begins.
                self.closed = Some("slots have moved between the shards of this node".into());
            }
            if self.closed.is_some() {
                return;
            }
            self.machine.handle(event, &mut actions);
            let mut answers = Vec::new();
            for action in actions.drain(..) {
                self.perform(action, &mut answers);
            }
            // Taken from the end: what was answered first comes first.
            events.extend(answers.into_iter().rev());
        }
    }

    fn perform(&mut self, action: Action, events: &mut Vec<Event>) {
        match action {
            Action::Send(message) => self.wire.queue(&message),
            Action::AskState { shard } => self.hub.ask(self.ticket, shard, Replicate::State),
            Action::Locate { shard } => self.locate(shard),
            Action::Trace { shard, slots } => self.trace(shard, slots),
            Action::Copy { shard, slots, rewinds } => {
                self.wanted.insert(shard, CopyWanted { slots, rewinds });
                self.hub.ask(self.ticket, shard, Replicate::Lend { hidden: false });
            }
            Action::CopyMore { shard } => self.more(shard),
            Action::Read { shard, from, bytes } => self.read(shard, from, bytes, events),
            Action::KeepLog { shard, from } => self.attached.needs[usize::from(shard.0)] = Some(from.0),
            Action::Close { why } => self.closed = Some(why),
        }
    }

    fn locate(&mut self, shard: ShardId) {
        let dir = self.hub.place.logs[usize::from(shard.0)].clone();
        let upto = Lsn(self.hub.published.upto(shard));
        let inner = self.inner.clone();
        tokio::task::spawn_local(async move {
            let found = tokio::task::spawn_blocking(move || source::index(&dir, upto)).await;
            let found = found.map_err(|error| error.to_string());
            let found = found.and_then(|found| found.map_err(|error| error.to_string()));
            // The link may have ended meanwhile.
            let _ = inner.send(Inner::Located(shard, found.map(|segments| (segments, upto))));
        });
    }

    fn trace(&mut self, shard: ShardId, slots: Vec<SlotName>) {
        let dir = self.hub.place.logs[usize::from(shard.0)].clone();
        let upto = Lsn(self.hub.published.upto(shard));
        let inner = self.inner.clone();
        tokio::task::spawn_local(async move {
            let traced = tokio::task::spawn_blocking(move || source::trace(&dir, upto, &slots)).await;
            let traced = traced.map_err(|error| error.to_string()).flatten().unwrap_or_else(|why| {
                tracing::error!(shard = shard.0, why, "looking through the log for a follower failed");
                // It is told then that nothing is known.
                FxHashMap::default()
            });
            // The link may have ended meanwhile.
            let _ = inner.send(Inner::Traced(shard, traced));
        });
    }

    fn read(&mut self, shard: ShardId, from: Lsn, bytes: usize, events: &mut Vec<Event>) {
        let (at, published) = (usize::from(shard.0), self.published[usize::from(shard.0)]);
        let mut show = |record| events.push(Event::Read { shard, record });
        let recent = self.hub.recent.borrow_mut()[at].read(from, bytes, published, &mut show);
        let end = recent.unwrap_or_else(|| self.logs[at].read(from, bytes, published, show));
        match end {
            Ok(End::UpTo(lsn)) => events.push(Event::ReadUpTo { shard, lsn }),
            Ok(End::Gone) => events.push(Event::Gone { shard }),
            Err(error) => {
                tracing::error!(shard = shard.0, %error, "reading the log for a follower failed");
                self.closed = Some(format!("reading the log failed: {error}"));
            }
        }
    }

    fn more(&mut self, shard: ShardId) {
        let copy = self.copies.get_mut(&shard).expect("it is asked for while it is under way");
        let mut chunks = copy.chunks.take().expect("one thing is asked for at a time");
        let (inner, not_before) = (self.inner.clone(), copy.not_before);
        tokio::task::spawn_local(async move {
            sleep_until(not_before).await;
            let chunk = chunks.recv().await;
            // The link may have ended meanwhile.
            let _ = inner.send(Inner::Chunk(shard, chunks, chunk));
        });
    }

    fn happened(&mut self, inner: Inner) {
        match inner {
            Inner::Located(shard, Ok((segments, upto))) => {
                self.handle(Event::Located { shard, segments, upto })
            }
            Inner::Located(shard, Err(why)) => {
                tracing::error!(shard = shard.0, why, "looking through the log for a follower failed");
                self.closed = Some(format!("looking through the log failed: {why}"));
            }
            Inner::Traced(shard, histories) => self.handle(Event::Traced { shard, histories }),
            Inner::Chunk(shard, chunks, chunk) => self.copied(shard, chunks, chunk),
        }
    }

    fn copied(&mut self, shard: ShardId, chunks: Receiver<Chunk>, chunk: Option<Chunk>) {
        let copy = self.copies.get_mut(&shard).expect("its chunks come while it is under way");
        copy.chunks = Some(chunks);
        match chunk {
            Some(Chunk::Entries { slot: SlotPosition { table, slot, .. }, entries }) => {
                let bytes = entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>();
                copy.unmarked_bytes += bytes;
                let per_second = self.hub.config().copy_bytes_per_second;
                if per_second > 0 {
                    let takes = Duration::from_secs_f64(bytes as f64 / per_second as f64);
                    copy.not_before = copy.not_before.max(Instant::now()) + takes;
                }
                self.handle(Event::CopyRows { shard, table, slot, entries });
            }
            Some(Chunk::Keys { slot: SlotPosition { table, slot, .. }, keys }) => {
                self.handle(Event::CopyKeys { shard, table, slot, keys });
                self.more(shard);
            }
            Some(Chunk::Done { whole }) => {
                if whole && !std::mem::replace(&mut copy.counted, true) {
                    self.hub.note_copy_begun();
                }
                copy.done += 1;
                let upto = copy.done;
                if copy.unmarked_bytes >= limits::REPLICA_MARK_BYTES && upto < copy.slots {
                    copy.unmarked_bytes = 0;
                    self.handle(Event::CopyMark { shard, upto });
                }
                self.more(shard);
            }
            Some(Chunk::Failed(why)) => self.closed = Some(format!("reading a slot failed: {why}")),
            None => {
                let upto = copy.slots;
                if copy.done < upto {
                    self.closed = Some("a copy ended before its end".into());
                    return;
                }
                self.copies.remove(&shard);
                self.handle(Event::CopyMark { shard, upto });
                self.handle(Event::CopyEnd { shard });
            }
        }
    }

    fn answered(&mut self, shard: ShardId, what: Replicated) {
        match what {
            Replicated::State { positions, upto } => {
                self.handle(Event::State { shard, positions, upto: Lsn(upto) })
            }
            Replicated::Lent(lent) => self.lent(shard, *lent),
            _ => unreachable!("this link asks for nothing else"),
        }
    }

    fn lent(&mut self, shard: ShardId, lent: LentShard) {
        let CopyWanted { slots: wanted, rewinds } =
            self.wanted.remove(&shard).expect("it was asked for a copy");
        let known: FxHashMap<SlotName, SlotPosition> =
            lent.positions.iter().map(|at| ((at.table, at.slot), *at)).collect();
        let never = |(table, slot)| SlotPosition { table, slot, index: 0, term: 0 };
        let slots: Vec<SlotPosition> =
            wanted.into_iter().map(|name| known.get(&name).copied().unwrap_or_else(|| never(name))).collect();
        let upto = Lsn(lent.upto);
        let by_keys: FxHashSet<SlotName> = rewinds.iter().map(|rewind| rewind.slot).collect();
        let is_whole = |at: &SlotPosition| at.index > 0 && !by_keys.contains(&(at.table, at.slot));
        let counted = slots.iter().any(is_whole);
        if counted {
            self.hub.note_copy_begun();
        }
        let log = self.hub.place.logs[usize::from(shard.0)].clone();
        match copy::begin(lent, slots.clone(), rewinds, log) {
            Ok(chunks) => {
                let copy = Copy {
                    chunks: Some(chunks),
                    done: 0,
                    slots: slots.len() as u32,
                    unmarked_bytes: 0,
                    counted,
                    not_before: Instant::now(),
                };
                self.copies.insert(shard, copy);
                self.handle(Event::CopyBegun { shard, slots, upto });
            }
            Err(error) => self.closed = Some(format!("a thread for a copy: {error}")),
        }
    }

    /// Lets the others know how the follower stands.
    fn note(&mut self) {
        let attached = &mut self.attached;
        let (mut records, mut bytes, mut moved) = (0, 0, false);
        for shard in self.hub.shards() {
            let lag = self.machine.lag(shard);
            let at = usize::from(shard.0);
            moved |= attached.applied[at] != lag.applied.0 || attached.durable[at] != lag.durable.0;
            (attached.applied[at], attached.durable[at]) = (lag.applied.0, lag.durable.0);
            records += lag.records;
            bytes += lag.bytes;
        }
        let online = self.machine.stage() == Stage::Online;
        if std::mem::take(&mut self.heard) && (moved || records == 0) {
            attached.facts.acknowledged_ms = now_ms();
        }
        moved |= online != attached.facts.online;
        if !self.noted_slots && self.machine.stage() != Stage::Handshake {
            (self.noted_slots, moved) = (true, true);
            (attached.node, attached.slots) = (self.machine.node(), self.machine.slots().cloned());
            attached.has_all = match (&attached.slots, &self.hub.slots) {
                _ if attached.is_capture => false,
                (None, _) => true,
                (Some(_), None) => false,
                (Some(slots), Some(of)) => set::without(&of.assigned().own(), slots).is_empty(),
            };
        }
        attached.facts.online = online;
        attached.facts.offset = attached.applied.iter().sum();
        (attached.facts.behind, attached.facts.unacknowledged_bytes) = (records, bytes);
        if moved {
            self.hub.note_follower(self.ticket, self.attached.clone());
        }
    }
}

/// Of a node in classic mode nothing ever changes.
async fn changed(changes: Option<&mut watch::Receiver<()>>) {
    match changes {
        Some(changes) => changes.changed().await.expect("the hub outlives its links"),
        None => std::future::pending().await,
    }
}

//! The link to the primary that this node follows: what its machine wants, done with cores and a socket.
//!
//! Must not know this node's own followers.

use super::dropped::{Kept, Log};
use super::hub::{Answer, Hub, now_ms};
use super::peer::{CONNECT_WAIT, PeerNode};
use super::redis;
use super::rewind::{self, REWIND_STREAM};
use super::wire::{LinkError, Wire};
use crate::binlog::Lsn;
use crate::limits;
use crate::replica::PROTOCOL;
use crate::replica::follower::{Action, Event, Follower, Settings};
use crate::replica::greeting::Peer;
use crate::replica::history::Diverged;
use crate::replica::inflow::Rewound;
use crate::replica::keys::Rewind;
use crate::replica::position::SlotName;
use crate::replica::status::{self, Following};
use crate::shard::mesh::{LentShard, Portion, Replicate, Replicated, SlotPosition};
use crate::slot::set::{self, TableSlots};
use crate::slot::{ShardId, TableId};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Who is to be followed.
pub struct LinkTo {
    pub host: String,
    pub port: u16,
    /// None: every slot.
    pub slots: Option<TableSlots>,
}

/// The primary that is followed, as the rest of the thread sees it.
pub struct Link {
    facts: Rc<RefCell<Following>>,
    /// Dropped: the link is to end.
    _stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Link {
    pub fn follows(&self, host: &str, port: u16) -> bool {
        let facts = self.facts.borrow();
        facts.host == host && facts.port == port
    }

    pub fn facts(&self) -> Following {
        self.facts.borrow().clone()
    }

    /// Ends it for good, with the process: a Redis's has something to note. What is to be waited for.
    pub fn end(self) -> Option<JoinHandle<()>> {
        self.facts.borrow().is_redis.then_some(self.ended)
    }

    /// Ends it; everything that has come is done then.
    pub async fn stop(self) {
        drop(self._stop);
        if let Err(error) = self.ended.await {
            tracing::error!(%error, "the link to the primary had failed");
        }
    }
}

/// What of this node's data counts for nothing when it begins to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    Nothing,
    Table(TableId),
    Slots(TableSlots),
    All,
}

impl Forget {
    /// `followed`: the slots that are followed at all, if not all.
    fn hits(&self, at: &SlotPosition, followed: Option<&TableSlots>) -> bool {
        let among = |slots: &TableSlots| set::holds(slots, at.table, at.slot);
        followed.is_none_or(among)
            && match self {
                Forget::Nothing => false,
                Forget::Table(table) => at.table == *table,
                Forget::Slots(slots) => among(slots),
                Forget::All => true,
            }
    }
}

impl Hub {
    /// Follows this node from now on, and no other.
    pub fn follow(self: &Rc<Self>, host: String, port: u16, forget: Forget) {
        self.published.set_follows(true);
        let before = self.link.borrow_mut().take();
        let link = self.begin_link(LinkTo { host, port, slots: None }, forget, before);
        *self.link.borrow_mut() = Some(link);
        self.show();
    }

    /// Begins a link, once another one has ended.
    pub fn begin_link(self: &Rc<Self>, to: LinkTo, forget: Forget, before: Option<Link>) -> Link {
        let LinkTo { host, port, slots } = to;
        tracing::info!(host, port, "following");
        let facts = Following { host, port, down_since_ms: now_ms(), ..Following::default() };
        let facts = Rc::new(RefCell::new(facts));
        let (stop, stopped) = oneshot::channel();
        let (hub, shown) = (self.clone(), facts.clone());
        let ended = tokio::task::spawn_local(async move {
            if let Some(before) = before {
                before.stop().await;
            }
            PrimaryLink::new(hub, shown, slots).run(stopped, forget).await;
        });
        Link { facts, _stop: stop, ended }
    }

    /// What this node writes from now on is of a new term, behind all that has come from elsewhere.
    async fn begin_term(&self) {
        self.ask_each(|_| Replicate::BeginTerm).await;
    }

    /// This node goes on by itself: what has come is done, and what it writes from now on is of a new term.
    pub async fn follow_nobody(self: &Rc<Self>) {
        let link = self.link.borrow_mut().take();
        if let Some(link) = link {
            link.stop().await;
            self.begin_term().await;
            // Another wish to follow may have come meanwhile.
            if self.link.borrow().is_none() {
                self.published.set_follows(false);
                self.show();
                tracing::info!("following nobody: a primary");
            }
        }
    }
}

/// A local shard's positions, and where its log stands.
type ShardState = (Vec<SlotPosition>, Lsn);

/// What the attempt to connect has brought.
type Attempt = Result<(TcpStream, Vec<u8>), NoLink>;

/// Why there is no link.
pub(super) enum NoLink {
    Failed(String),
    /// The primary is not of this kind.
    Redis,
}

impl From<std::io::Error> for NoLink {
    fn from(error: std::io::Error) -> NoLink {
        NoLink::Failed(error.to_string())
    }
}

/// What a shard is to be asked, in order: records that are made apart hold up what stands behind them.
#[derive(Default)]
struct InOrder {
    held: VecDeque<Held>,
    /// What is being made.
    making: Option<Vec<Rewound>>,
    /// Records made and not answered, of the groups in which they were asked for.
    unanswered: VecDeque<usize>,
}

enum Held {
    Ask(Replicate),
    Rewind(Vec<Rewound>),
}

/// What has been made under a ticket, with the number of keys of each slot.
struct RewindRecords {
    ticket: u64,
    shard: ShardId,
    keys: Vec<u64>,
    made: Result<Vec<Portion>, (SlotName, String)>,
}

struct PrimaryLink {
    hub: Rc<Hub>,
    facts: Rc<RefCell<Following>>,
    machine: Follower,
    ticket: u64,
    answers: UnboundedReceiver<Answer>,
    wire: Option<Wire>,
    attempts: UnboundedSender<Attempt>,
    attempted: UnboundedReceiver<Attempt>,
    /// The attempt under way; another one's outcome is of no use any more.
    connecting: Option<JoinHandle<()>>,
    keeps: UnboundedSender<Result<Vec<Rewind>, String>>,
    kept: UnboundedReceiver<Result<Vec<Rewind>, String>>,
    /// By shard.
    in_order: Vec<InOrder>,
    records: UnboundedSender<RewindRecords>,
    made: UnboundedReceiver<RewindRecords>,
    /// Positions by shard, until all have answered.
    positions: Option<Vec<Option<ShardState>>>,
    /// Portions of this batch of events, by shard.
    portions: Vec<Vec<Portion>>,
    durable: Vec<u64>,
    /// The primary has turned out to be a Redis.
    is_redis: bool,
    /// Followed; None: all.
    slots: Option<TableSlots>,
}

impl PrimaryLink {
    fn new(hub: Rc<Hub>, facts: Rc<RefCell<Following>>, slots: Option<TableSlots>) -> PrimaryLink {
        let place = &hub.place;
        let settings = Settings {
            own: hub.identity(),
            slots: slots.clone(),
            timeout_ms: u64::from(hub.config().repl_timeout_s) * 1000,
            seed: fastrand::u64(..),
        };
        let shards = place.logs.len();
        let (ticket, answers) = hub.route();
        let (attempts, attempted) = unbounded_channel();
        let (keeps, kept) = unbounded_channel();
        let (records, made) = unbounded_channel();
        PrimaryLink {
            machine: Follower::new(settings),
            facts,
            ticket,
            answers,
            wire: None,
            attempts,
            attempted,
            connecting: None,
            keeps,
            kept,
            in_order: (0..shards).map(|_| InOrder::default()).collect(),
            records,
            made,
            positions: None,
            portions: (0..shards).map(|_| Vec::new()).collect(),
            durable: vec![0; shards],
            is_redis: false,
            slots,
            hub,
        }
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>, forget: Forget) {
        self.forget(forget).await;
        let mut tick = interval(limits::REPLICA_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // It must know the time before it waits for anything.
        self.handle(Event::Tick { now_ms: now_ms() });
        self.handle(Event::Start);
        while !self.is_redis {
            tokio::select! {
                // Never sent: the other end is dropped.
                _ = &mut stopped => break,
                ready = ready(self.wire.as_ref()) => {
                    if let Err(error) = ready.map_err(LinkError::from).and_then(|()| self.take_messages()) {
                        self.lost(&error.to_string());
                    }
                }
                answer = self.answers.recv() => {
                    let (shard, what) = answer.expect("the route lives as long as the link");
                    self.answered(shard, what);
                    while let Ok((shard, what)) = self.answers.try_recv() {
                        self.answered(shard, what);
                    }
                }
                attempt = self.attempted.recv() => self.connected(attempt.expect("the link holds a sender")),
                kept = self.kept.recv() => self.handle(match kept.expect("the link holds a sender") {
                    Ok(rewinds) => Event::Kept { rewinds },
                    Err(why) => Event::NotKept { why },
                }),
                made = self.made.recv() => self.rewind_made(made.expect("the link holds a sender")),
                _ = tick.tick() => {
                    self.look_at_disk();
                    self.handle(Event::Tick { now_ms: now_ms() });
                }
            }
            self.end_batch();
        }
        self.handle(Event::Stop);
        self.end_batch();
        self.end_attempt();
        // Behind everything that was asked of the shards.
        self.abandon();
        self.hub.ask_each(|_| Replicate::State).await;
        self.hub.end_route(self.ticket);
        if self.is_redis && self.slots.is_none() {
            self.follow_redis(stopped).await;
        }
    }

    /// What was copied and not adopted is garbage.
    fn abandon(&self) {
        self.hub.shards().for_each(|shard| self.hub.ask(self.ticket, shard, Replicate::Abandon));
    }

    /// Follows a primary that is a Redis: its commands become this node's own.
    async fn follow_redis(&mut self, stopped: oneshot::Receiver<()>) {
        self.hub.begin_term().await;
        let (host, port) = {
            let facts = self.facts.borrow();
            (facts.host.clone(), facts.port)
        };
        let following = redis::Following::new(self.hub.clone(), self.facts.clone(), host, port);
        following.run(stopped).await;
    }

    /// Empties slots, as if nothing had ever been in them.
    async fn forget(&mut self, forget: Forget) {
        if matches!(forget, Forget::Nothing) {
            return;
        }
        let mut states = self.hub.ask_each(|_| Replicate::State).await.into_iter();
        let empty = |_| {
            let Some(Replicated::State { mut positions, .. }) = states.next() else {
                unreachable!("every shard was asked for its state")
            };
            positions.retain(|at| forget.hits(at, self.slots.as_ref()));
            positions.iter_mut().for_each(|at| (at.index, at.term) = (0, 0));
            Replicate::Adopt(positions)
        };
        self.hub.ask_each(empty).await;
    }

    fn take_messages(&mut self) -> Result<(), LinkError> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        if !wire.read()? {
            return wire.flush();
        }
        self.handle(Event::Heard);
        while let Some(wire) = &mut self.wire
            && let Some(message) = wire.next()?
        {
            self.handle(Event::Received(message));
        }
        Ok(())
    }

    /// What one batch of events has brought leaves together.
    fn end_batch(&mut self) {
        self.handle(Event::Idle);
        for shard in self.hub.shards() {
            self.send_portions(shard);
        }
        if let Some(wire) = &mut self.wire
            && let Err(error) = wire.flush()
        {
            self.lost(&error.to_string());
        }
        self.note();
    }

    fn lost(&mut self, why: &str) {
        self.wire = None;
        self.handle(Event::Lost { why: why.to_owned() });
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.machine.handle(event, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::AskPositions => self.ask_positions(),
            Action::KeepDropped { slots, ends } => self.keep_dropped(slots, ends),
            Action::Connect => self.connect(),
            Action::Send(message) => {
                if let Some(wire) = &mut self.wire {
                    wire.queue(&message);
                }
            }
            Action::Apply { shard, portion } => self.portions[usize::from(shard.0)].push(portion),
            Action::Copy { shard, table, slot, entries } => {
                self.send_portions(shard);
                self.ask_in_order(shard, Replicate::Copy { table, slot, entries });
            }
            Action::Adopt { shard, slots } => {
                self.send_portions(shard);
                self.ask_in_order(shard, Replicate::Adopt(slots));
            }
            Action::Rewind { shard, slots } => {
                self.send_portions(shard);
                let of = &mut self.in_order[usize::from(shard.0)];
                of.held.push_back(Held::Rewind(slots));
                self.go_on(shard);
            }
            Action::Disconnect => {
                self.wire = None;
                self.end_attempt();
            }
        }
    }

    fn send_portions(&mut self, shard: ShardId) {
        let portions = std::mem::take(&mut self.portions[usize::from(shard.0)]);
        if !portions.is_empty() {
            self.ask_in_order(shard, Replicate::Append(portions));
        }
    }

    /// Asks a shard for something, once what is being made for it has been asked.
    fn ask_in_order(&mut self, shard: ShardId, what: Replicate) {
        self.in_order[usize::from(shard.0)].held.push_back(Held::Ask(what));
        self.go_on(shard);
    }

    fn go_on(&mut self, shard: ShardId) {
        let of = &mut self.in_order[usize::from(shard.0)];
        while of.making.is_none()
            && let Some(held) = of.held.pop_front()
        {
            match held {
                Held::Ask(what) => self.hub.ask(self.ticket, shard, what),
                Held::Rewind(slots) => {
                    of.making = Some(slots);
                    self.hub.ask(self.ticket, shard, Replicate::Lend { hidden: false });
                }
            }
        }
    }

    /// The shard can be read: its records are made apart.
    fn rewind(&mut self, shard: ShardId, lent: LentShard) {
        let making = self.in_order[usize::from(shard.0)].making.as_mut();
        let slots = std::mem::take(making.expect("it was lent for this"));
        let keys: Vec<u64> = slots.iter().map(|rewound| rewound.keys.len() as u64).collect();
        let (records, ticket) = (self.records.clone(), self.ticket);
        tokio::task::spawn_local(async move {
            let made = tokio::task::spawn_blocking(move || rewind::records(lent, slots)).await;
            let Ok(made) = made else { return tracing::error!(shard = shard.0, "a record was not made") };
            // The link may have ended meanwhile.
            let _ = records.send(RewindRecords { ticket, shard, keys, made });
        });
    }

    fn rewind_made(&mut self, records: RewindRecords) {
        let RewindRecords { ticket, shard, keys, made } = records;
        if ticket != self.ticket {
            // Of a connection that has ended.
            return;
        }
        match made {
            Ok(portions) => {
                let of = &mut self.in_order[usize::from(shard.0)];
                of.making = None;
                of.unanswered.push_back(portions.len());
                keys.into_iter().for_each(|keys| self.hub.dropped.note_rewound(keys));
                for portion in portions {
                    self.hub.ask(self.ticket, shard, Replicate::Rewind(portion));
                }
                self.go_on(shard);
            }
            Err((slot, why)) => self.handle(Event::NotRewound { slot, why }),
        }
    }

    /// Answers to what was asked before come by another route, which nobody listens to.
    fn ask_positions(&mut self) {
        self.abandon();
        self.hub.end_route(self.ticket);
        (self.ticket, self.answers) = self.hub.route();
        self.portions.iter_mut().for_each(Vec::clear);
        self.in_order.iter_mut().for_each(|of| *of = InOrder::default());
        self.hub.shards().for_each(|shard| self.hub.ask(self.ticket, shard, Replicate::State));
        self.positions = Some(self.hub.shards().map(|_| None).collect());
    }

    fn answered(&mut self, shard: ShardId, what: Replicated) {
        match what {
            Replicated::State { positions, upto } => {
                let Some(all) = &mut self.positions else { return };
                all[usize::from(shard.0)] = Some((positions, Lsn(upto)));
                if all.iter().all(Option::is_some) {
                    let all = self.positions.take().expect("looked above").into_iter().flatten();
                    let (positions, ends): (Vec<_>, Vec<_>) = all.unzip();
                    let ends = self.hub.shards().zip(ends).collect();
                    self.handle(Event::Positions { positions: positions.concat(), ends });
                }
            }
            Replicated::Appended { stream: REWIND_STREAM, own, .. } => {
                // The machine has asked for all of them at once.
                let of = &mut self.in_order[usize::from(shard.0)];
                let group = of.unanswered.front_mut().expect("each is asked for once");
                *group -= 1;
                if *group == 0 {
                    of.unanswered.pop_front();
                    self.handle(Event::Rewound { shard, own: Lsn(own) });
                }
            }
            Replicated::Appended { stream, lsn, own } => {
                self.handle(Event::Applied { shard, stream, lsn: Lsn(lsn), own: Lsn(own) });
            }
            Replicated::Copied => self.handle(Event::Copied { shard }),
            Replicated::Adopted { own } => self.handle(Event::Adopted { shard, own: Lsn(own) }),
            Replicated::Refused(why) => self.handle(Event::Refused { shard, why }),
            Replicated::Lent(lent) => self.rewind(shard, *lent),
            Replicated::TermBegun => unreachable!("this link asks for no such thing"),
        }
    }

    fn keep_dropped(&mut self, slots: Vec<Diverged>, ends: Vec<(ShardId, Lsn)>) {
        let (dropped, place) = (self.hub.dropped.clone(), &self.hub.place);
        let diverged: BTreeSet<ShardId> =
            slots.iter().map(|diverged| place.map.borrow().shard_of(diverged.slot.1)).collect();
        let log = |(shard, end): (ShardId, Lsn)| {
            let dir = place.logs[usize::from(shard.0)].clone();
            diverged.contains(&shard).then_some(Log { shard, dir, end })
        };
        let logs: Vec<Log> = ends.into_iter().filter_map(log).collect();
        let primary = {
            let facts = self.facts.borrow();
            format!("{}:{}", facts.host, facts.port)
        };
        let keeps = self.keeps.clone();
        tokio::task::spawn_local(async move {
            let keep = move || {
                dropped.keep(&primary, slots, &logs, now_ms()).inspect(tell_kept).map(|kept| kept.rewinds)
            };
            let kept = tokio::task::spawn_blocking(keep).await;
            // The link may have ended meanwhile.
            let _ = keeps.send(kept.map_err(|error| error.to_string()).flatten());
        });
    }

    fn look_at_disk(&mut self) {
        for shard in self.hub.shards() {
            let own = self.hub.settlement.upto(shard);
            let known = &mut self.durable[usize::from(shard.0)];
            if *known != own {
                *known = own;
                self.handle(Event::Durable { shard, own: Lsn(own) });
            }
        }
    }

    fn connect(&mut self) {
        let (hub, attempts, facts) = (self.hub.clone(), self.attempts.clone(), self.facts.borrow().clone());
        self.connecting = Some(tokio::task::spawn_local(async move {
            let made = timeout(CONNECT_WAIT, introduce(&hub, &facts.host, facts.port)).await;
            let made = made.unwrap_or_else(|_| Err(NoLink::Failed("the primary does not answer".into())));
            // The link may be ending.
            let _ = attempts.send(made);
        }));
    }

    fn end_attempt(&mut self) {
        if let Some(connecting) = self.connecting.take() {
            connecting.abort();
            while self.attempted.try_recv().is_ok() {}
        }
    }

    fn connected(&mut self, attempt: Attempt) {
        if self.connecting.take().is_none() {
            return;
        }
        match attempt {
            Ok((stream, first)) => {
                self.wire = Some(Wire::new(stream, &first));
                self.handle(Event::Connected);
                if let Err(error) = self.take_messages() {
                    self.lost(&error.to_string());
                }
            }
            Err(NoLink::Failed(why)) => self.handle(Event::Lost { why }),
            Err(NoLink::Redis) if self.slots.is_some() => {
                self.handle(Event::Lost { why: "a Redis has no slots to follow one by one".into() });
            }
            Err(NoLink::Redis) => self.is_redis = true,
        }
    }

    fn note(&self) {
        let mut facts = self.facts.borrow_mut();
        let link = self.machine.link();
        let up = link == status::Link::Connected;
        if up {
            facts.down_since_ms = 0;
        } else if facts.down_since_ms == 0 {
            facts.down_since_ms = now_ms();
        }
        if facts.link != link {
            tracing::info!(
                host = facts.host,
                port = facts.port,
                link = link.word(),
                "the link to the primary"
            );
        }
        facts.complete = up || facts.complete && link != status::Link::Sync;
        facts.link = link;
        if facts.missing != *self.machine.missing() {
            facts.missing = self.machine.missing().clone();
        }
        facts.node = self.machine.primary();
        facts.last_heard_ms = self.machine.last_heard_ms();
        let error = self.machine.last_error();
        if error != facts.last_error.as_deref() {
            facts.last_error = error.map(str::to_owned);
            if let Some(why) = error {
                tracing::warn!(
                    host = facts.host,
                    port = facts.port,
                    why,
                    "the link to the primary has ended"
                );
            }
        }
        let (mut offset, mut published) = (0, 0);
        for stream in self.machine.streams() {
            offset += self.machine.applied(stream).0;
            published += self.machine.published(stream).0;
        }
        facts.offset = offset;
        facts.behind = published.saturating_sub(offset);
        (facts.slots_copied, facts.slots_to_copy) = self.machine.slots_copied();
    }
}

fn tell_kept(kept: &Kept) {
    let (records, slots) = (kept.records, kept.tails.len());
    let incomplete = kept.tails.iter().filter(|tail| tail.incomplete).count();
    match &kept.path {
        Some(path) if kept.again => {
            tracing::info!(path = %path.display(), records, "dropped again what is kept already");
        }
        Some(path) => tracing::warn!(
            path = %path.display(),
            records,
            slots,
            "this node had records that are not in its primary's history: they are dropped, and kept here"
        ),
        None => {}
    }
    if incomplete > 0 {
        tracing::warn!(
            slots = incomplete,
            "of some slots that are copied anew, the logs do not tell whether more than what is kept is dropped"
        );
    }
    for path in &kept.removed {
        tracing::warn!(path = %path.display(), "removed older dropped records, to make room");
    }
}

/// Without a connection nothing ever comes.
async fn ready(wire: Option<&Wire>) -> std::io::Result<()> {
    match wire {
        Some(wire) => wire.ready().await,
        None => std::future::pending().await,
    }
}

/// Connects to the primary as a client and asks to follow; what stands behind its +OK.
async fn introduce(hub: &Hub, host: &str, port: u16) -> Attempt {
    let mut primary = PeerNode::connect(hub, host, port).await?;
    let (protocol, own) = (PROTOCOL.to_string(), Peer::Node { port: hub.config().port }.word());
    let said = primary.ask(&["HAYPILE-FOLLOW", &protocol, &own]).await?;
    said.map_err(|why| match why.starts_with("ERR unknown command") {
        true => NoLink::Redis,
        false => NoLink::Failed(format!("the primary answers: {why}")),
    })?;
    Ok(primary.into_parts())
}

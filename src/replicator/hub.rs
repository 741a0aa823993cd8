//! What the tasks of the replication thread share: lanes to the cores, routes back, and who follows whom.
//!
//! Only this file sends and receives messages. Must not know what is said on a link.

use super::digest::Digests;
use super::dropped::Dropped;
use super::follower::{Forget, Link};
use super::migrate::Migrations;
use super::quorum::Quorum;
use super::recent::Recent;
use super::rehome::Rehoming;
use super::slots::Slots;
use super::{Place, Replicator, commands, failover, kept};
use crate::config::Config;
use crate::conn::moving::{Moving, Parcel};
use crate::conn::serve::Shared;
use crate::limits;
use crate::replica::status::{Follower, Following, SharedStatus, Status};
use crate::replica::wire::{Identity, NodeId};
use crate::runtime::alarm::Alarm;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::lanes::Lanes;
use crate::shard::mesh::{Ask, Asker, LogEnd, Message, Replicate, Replicated, Tell};
use crate::shard::published::Published;
use crate::shard::settled::Settlement;
use crate::slot::set::{self, TableSlots};
use crate::slot::{CoreId, ShardId, SlotHash};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// What a shard's owner has answered to a link.
pub type Answer = (ShardId, Replicated);

pub struct Hub {
    pub place: Place,
    pub published: Arc<Published>,
    pub settlement: Arc<Settlement>,
    pub shared: Arc<Shared>,
    config: RefCell<Arc<Config>>,
    lanes: RefCell<Lanes<Parcel>>,
    pub(super) doorbells: Vec<Doorbell>,
    /// By ticket. What comes is bounded by what the link has asked and not been answered.
    routes: RefCell<FxHashMap<u64, UnboundedSender<Answer>>>,
    /// Questions to all cores, by ticket.
    questions: RefCell<FxHashMap<u64, UnboundedSender<Tell>>>,
    next_ticket: Cell<u64>,
    /// The cores that have not said yet that the last assignment or placement is in force.
    telling: RefCell<Option<Telling>>,
    /// The last `offset` that the links were told of.
    grown: watch::Sender<u64>,
    /// The link to the primary.
    pub link: RefCell<Option<Link>>,
    /// What it still does when the process stops.
    ending: RefCell<Option<JoinHandle<()>>>,
    /// Who follows this node, captures too, by ticket.
    pub(super) followers: RefCell<FxHashMap<u64, Attached>>,
    /// By shard.
    pub recent: RefCell<Vec<Recent>>,
    pub(super) quorum: RefCell<Quorum>,
    pub waits: RefCell<commands::Waits>,
    pub failover: RefCell<Option<failover::UnderWay>>,
    /// From who is followed next everything is fetched.
    pub history_cleared: Cell<bool>,
    status: Arc<SharedStatus>,
    copies_begun: Cell<u64>,
    pub dropped: Arc<Dropped>,
    /// By shard: from where its log is kept for followers.
    held: RefCell<Vec<Option<u64>>>,
    /// In sharding mode.
    pub slots: Option<Slots>,
    pub digests: Digests,
    pub migrations: Migrations,
    pub rehoming: Rehoming,
}

struct Telling {
    ticket: u64,
    outstanding: BTreeSet<CoreId>,
    done: oneshot::Sender<()>,
}

/// A follower as its link sees it.
#[derive(Clone, Default)]
pub struct Attached {
    pub facts: Follower,
    /// It keeps nothing: it has nothing of what whoever waits for replicas waits for.
    pub is_capture: bool,
    /// By shard of this node: what it has acknowledged, and what is on its disk.
    pub applied: Vec<u64>,
    pub durable: Vec<u64>,
    /// By shard: its log is needed from here on.
    pub needs: Vec<Option<u64>>,
    /// Its name, once it has said it.
    pub node: Option<NodeId>,
    /// The slots that it follows; None: all.
    pub slots: Option<Arc<TableSlots>>,
    /// It follows every slot that this node writes: only then is what it has acknowledged what clients ask for.
    pub has_all: bool,
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock stands after 1970").as_millis() as u64
}

/// Runs the thread until the process stops.
pub fn run(replicator: Replicator) -> io::Result<()> {
    let Replicator { lanes, bell, doorbells, place, config, published, settlement, status, shared, assigned } =
        replicator;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let held = RefCell::new(vec![None; place.logs.len()]);
    let recent = recent(&place);
    let slots = assigned.map(|assigned| Slots::new(kept::path(&place.data_dir), assigned));
    let hub = Rc::new(Hub {
        slots,
        digests: Digests::default(),
        migrations: Migrations::default(),
        rehoming: Rehoming::default(),
        dropped: Arc::new(Dropped::new(&place.data_dir)),
        place,
        published,
        settlement,
        shared,
        config: RefCell::new(config),
        lanes: RefCell::new(lanes),
        doorbells,
        routes: RefCell::default(),
        questions: RefCell::default(),
        next_ticket: Cell::new(1),
        telling: RefCell::default(),
        grown: watch::channel(0).0,
        link: RefCell::new(None),
        ending: RefCell::default(),
        followers: RefCell::default(),
        recent: RefCell::new(recent),
        quorum: RefCell::default(),
        waits: RefCell::default(),
        failover: RefCell::default(),
        history_cleared: Cell::default(),
        status,
        copies_begun: Cell::default(),
        held,
    });
    let serve = async move {
        hub.begin();
        hub.serve(bell).await
    };
    tokio::task::LocalSet::new().block_on(&runtime, serve)
}

impl Hub {
    fn begin(self: &Rc<Self>) {
        self.begin_tidying();
        self.regroup();
        if self.slots.is_some() {
            let hub = self.clone();
            tokio::task::spawn_local(async move { hub.begin_slots().await });
            return;
        }
        let primary = self.config().primary().expect("checked when the configuration was loaded");
        if let Some((host, port)) = primary {
            self.follow(host, port, Forget::Nothing);
        }
    }

    /// Moves messages, and ticks; ends with the process.
    async fn serve(self: Rc<Self>, bell: Doorbell) -> io::Result<()> {
        let alarm = Alarm::new(bell)?;
        let mut next_tick = tokio::time::Instant::now();
        while !self.is_stopping() || self.cores_need_us() || self.link_is_ending() {
            self.receive();
            let now = tokio::time::Instant::now();
            if now >= next_tick {
                next_tick = now + self.tick_interval();
                self.tick();
            }
            self.waits.borrow_mut().end_late(&self);
            self.flush();
            alarm.sleep(self.idle_time(), || self.lanes.borrow().waiting()).await?;
            self.note_growth();
            // The links go on before the next look at the lanes.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Once the process is to stop nothing new comes from a primary, and nobody waits for followers.
    fn is_stopping(&self) -> bool {
        let stopping = self.shared.stopping.load(Ordering::Acquire);
        if stopping {
            if let Some(link) = self.link.borrow_mut().take() {
                *self.ending.borrow_mut() = link.end();
            }
            if let Some(slots) = &self.slots {
                slots.end_links();
            }
            self.waits.borrow_mut().end_all(self);
        }
        stopping
    }

    /// Its last words are waited for, which it takes seconds for at most.
    fn link_is_ending(&self) -> bool {
        self.ending.borrow().as_ref().is_some_and(|link| !link.is_finished())
    }

    /// With nobody to speak to, time brings little.
    fn tick_interval(&self) -> Duration {
        let follows_slots = self.slots.as_ref().is_some_and(Slots::follows_any);
        let alone = self.link.borrow().is_none() && self.followers.borrow().is_empty() && !follows_slots;
        if alone { limits::REPLICA_TICK_ALONE } else { limits::REPLICA_TICK }
    }

    /// How long nothing needs to be looked at unasked.
    fn idle_time(&self) -> Duration {
        // A receiver that makes room in a full lane wakes nobody.
        if self.lanes.borrow().any_congested() {
            return Duration::from_millis(1);
        }
        let soonest = self.waits.borrow().soonest_ms();
        let wait = soonest.map(|until_ms| Duration::from_millis(until_ms.saturating_sub(now_ms())));
        wait.map_or(self.tick_interval(), |wait| wait.min(self.tick_interval()))
    }

    /// Once the process is to stop: a core still waits for an answer. None does for long.
    fn cores_need_us(&self) -> bool {
        self.lanes.borrow().waiting()
    }

    fn note_growth(&self) {
        let offset = self.offset();
        self.grown.send_if_modified(|known| std::mem::replace(known, offset) != offset);
        self.waits.borrow_mut().look(self);
    }

    /// Changes whenever followers may have more of a log.
    pub fn growth(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    /// What this node is to others now.
    pub fn identity(&self) -> Identity {
        let usual = self.place.hash.slots();
        let assigned = self.slots.as_ref().map(Slots::assigned);
        let counts = assigned.iter().flat_map(|of| of.tables().map(|table| (table, of.slots(table))));
        let counts = counts.filter_map(|(table, slots)| slots.map(|slots| (table, slots)));
        Identity {
            placement: self.place.map.borrow().placement().clone(),
            tables: self.place.tables,
            crc16: self.place.hash == SlotHash::Crc16,
            node: self.place.run_id.as_bytes().try_into().expect("the data directory's id has 40 digits"),
            slot_counts: counts.filter(|(_, slots)| *slots != usual).collect(),
        }
    }

    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    pub fn lane(&self) -> CoreId {
        CoreId(self.place.cores + 1)
    }

    pub fn next_ticket(&self) -> u64 {
        self.next_ticket.replace(self.next_ticket.get() + 1)
    }

    /// A new link's way to be answered.
    pub fn route(&self) -> (u64, UnboundedReceiver<Answer>) {
        let ticket = self.next_ticket();
        let (send, receive) = unbounded_channel();
        self.routes.borrow_mut().insert(ticket, send);
        (ticket, receive)
    }

    pub fn end_route(&self, ticket: u64) {
        self.routes.borrow_mut().remove(&ticket);
    }

    /// Asks the owner of a shard for something.
    pub fn ask(&self, ticket: u64, shard: ShardId, what: Replicate) {
        let from = Asker { core: self.lane(), ticket };
        let owner = self.place.map.borrow().owner(shard);
        self.send(owner, Message::Replicate { from, shard, what });
    }

    /// Asks every shard for something that is answered once, and waits for all: by shard.
    pub async fn ask_each(&self, what: impl FnMut(ShardId) -> Replicate) -> Vec<Replicated> {
        let all = self.shards().collect();
        self.ask_these(&all, what).await
    }

    /// As `ask_each`, of some shards only.
    pub async fn ask_these(
        &self,
        shards: &BTreeSet<ShardId>,
        mut what: impl FnMut(ShardId) -> Replicate,
    ) -> Vec<Replicated> {
        let (ticket, mut answers) = self.route();
        shards.iter().for_each(|shard| self.ask(ticket, *shard, what(*shard)));
        let mut answered = BTreeMap::new();
        while answered.len() < shards.len() {
            let (shard, answer) = answers.recv().await.expect("the route stands");
            answered.insert(shard, answer);
        }
        self.end_route(ticket);
        answered.into_values().collect()
    }

    /// Asks every core, and waits for all.
    pub async fn ask_cores(&self, ask: Ask) -> Vec<Tell> {
        let (ticket, (send, mut tells)) = (self.next_ticket(), unbounded_channel());
        self.questions.borrow_mut().insert(ticket, send);
        for core in (0..self.place.cores).map(CoreId) {
            self.send(core, Message::Ask { from: self.lane(), ticket, ask: ask.clone() });
        }
        let mut all = Vec::new();
        while all.len() < usize::from(self.place.cores) {
            all.push(tells.recv().await.expect("the question stands"));
        }
        self.questions.borrow_mut().remove(&ticket);
        all
    }

    /// Tells every core something that is in force when all have answered, and waits for that. One at a time; one that
    /// is given up is replaced by the next.
    pub async fn tell_cores(&self, message: impl Fn(u64) -> Message) {
        let (done, waited) = oneshot::channel();
        let cores = (0..self.place.cores).map(CoreId);
        let ticket = self.next_ticket();
        *self.telling.borrow_mut() = Some(Telling { ticket, outstanding: cores.clone().collect(), done });
        cores.for_each(|core| self.send(core, message(ticket)));
        waited.await.expect("one change at a time, and each is told whole");
    }

    fn core_told(&self, ticket: u64, core: CoreId) {
        let mut telling = self.telling.borrow_mut();
        let Some(waits) = telling.as_mut().filter(|telling| telling.ticket == ticket) else { return };
        waits.outstanding.remove(&core);
        if waits.outstanding.is_empty()
            && let Some(Telling { done, .. }) = telling.take()
        {
            // Who waits for it may have given up.
            let _ = done.send(());
        }
    }

    pub fn send(&self, to: CoreId, message: Message) {
        self.lanes.borrow_mut().send(usize::from(to.0), Parcel::Message(message));
        self.flush();
    }

    /// Gives a core a connection that this thread has made.
    pub fn give(&self, to: CoreId, connection: Moving) {
        self.lanes.borrow_mut().send(usize::from(to.0), Parcel::Connection(Box::new(connection)));
        self.flush();
    }

    fn flush(&self) {
        let doorbells = &self.doorbells;
        self.lanes.borrow_mut().flush(|core| {
            if let Some(bell) = doorbells.get(core) {
                bell.ring();
            }
        });
    }

    fn receive(self: &Rc<Self>) {
        let mut parcels = Vec::new();
        self.lanes.borrow_mut().receive(limits::MESSAGES_PER_TURN_MAX, |_, parcel| parcels.push(parcel));
        for parcel in parcels {
            match parcel {
                Parcel::Message(Message::Replicated { ticket, shard, what }) => {
                    if let Some(route) = self.routes.borrow().get(&ticket) {
                        // A link that has just ended wants no answer.
                        let _ = route.send((shard, what));
                    }
                }
                Parcel::Message(Message::Tell { ticket, tell, .. }) => {
                    if let Some(question) = self.questions.borrow().get(&ticket) {
                        // Whoever asked may have been given up.
                        let _ = question.send(tell);
                    }
                }
                Parcel::Message(Message::Ask { from, ticket, ask }) => self.asked(from, ticket, ask),
                Parcel::Message(Message::Assigned { ticket, core }) => self.core_told(ticket, core),
                Parcel::Message(Message::Configured(config)) => {
                    *self.config.borrow_mut() = config;
                    self.look_at_quorum();
                }
                Parcel::Connection(moving) => super::primary::attach(self, *moving),
                Parcel::Message(_) => unreachable!("cores send nothing else here"),
            }
        }
    }

    fn asked(self: &Rc<Self>, from: CoreId, ticket: u64, ask: Ask) {
        match ask {
            Ask::Replication(ask) => commands::run(self, from, ticket, ask),
            _ => unreachable!("this thread is asked about replication only"),
        }
    }

    pub fn tell(&self, to: CoreId, ticket: u64, tell: Tell) {
        self.send(to, Message::Tell { ticket, core: self.lane(), tell });
    }

    /// Takes over what a link knows of its follower.
    pub fn note_follower(&self, ticket: u64, attached: Attached) {
        let (has_all, slots) = (attached.has_all, attached.slots.clone());
        let before = self.followers.borrow_mut().insert(ticket, attached);
        if before.is_some_and(|before| (before.has_all, before.slots) == (has_all, slots)) {
            self.look_at_quorum();
        } else {
            self.regroup();
        }
        self.followers_changed();
    }

    pub fn forget_follower(&self, ticket: u64) {
        self.followers.borrow_mut().remove(&ticket);
        if self.followers.borrow().is_empty() {
            *self.recent.borrow_mut() = recent(&self.place);
        }
        self.regroup();
        self.followers_changed();
    }

    fn followers_changed(&self) {
        self.published.await_growth(!self.followers.borrow().is_empty());
        self.waits.borrow_mut().look(self);
    }

    /// The nodes that follow this one.
    pub fn attached(&self) -> Vec<Attached> {
        self.followers.borrow().values().filter(|attached| !attached.is_capture).cloned().collect()
    }

    /// How many followers have all that stands up to here. In sharding mode: that follow these slots; None: all that
    /// this node writes.
    pub fn acknowledged(&self, durable: bool, upto: &[LogEnd], slots: Option<&TableSlots>) -> u64 {
        let has = |attached: &&Attached| {
            let counts = match (&attached.slots, slots) {
                (Some(followed), Some(wanted)) => set::without(wanted, followed).is_empty(),
                _ => attached.has_all,
            };
            if attached.is_capture || !counts {
                return false;
            }
            let reached = if durable { &attached.durable } else { &attached.applied };
            has_all(reached, upto)
        };
        self.followers.borrow().values().filter(has).count() as u64
    }

    /// The nodes that follow this one.
    pub fn followers(&self) -> Vec<Follower> {
        self.facts_of(|attached| !attached.is_capture)
    }

    fn facts_of(&self, which: impl Fn(&Attached) -> bool) -> Vec<Follower> {
        let attached = self.followers.borrow();
        attached.values().filter(|of| which(of)).map(|of| of.facts.clone()).collect()
    }

    /// Those that have all that stands up to here.
    pub fn followers_with(&self, upto: &[LogEnd]) -> Vec<Follower> {
        let followers = self.followers.borrow();
        let has = |attached: &&Attached| !attached.is_capture && has_all(&attached.applied, upto);
        let all = followers.values().filter(has);
        all.map(|attached| attached.facts.clone()).filter(|follower| follower.online).collect()
    }

    pub fn note_copy_begun(&self) {
        self.copies_begun.set(self.copies_begun.get() + 1);
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.place.map.borrow().shards()
    }

    /// All shards together.
    pub fn offset(&self) -> u64 {
        self.published.records()
    }

    fn tick(self: &Rc<Self>) {
        let (config, now_ms) = (self.config(), now_ms());
        let max_lag_ms = u64::from(config.min_replicas_max_lag_s) * 1000;
        let is_good = |attached: &&Attached| attached.has_all && attached.facts.is_good(now_ms, max_lag_ms);
        let good = self.followers.borrow().values().filter(is_good).count();
        self.published.set_good_followers(good as u32);
        self.hold_logs();
        self.show();
    }

    /// Logs are kept as far as anybody here needs them.
    pub fn hold_logs(&self) {
        for shard in self.shards() {
            let needs = self.followers.borrow();
            let needed = needs.values().filter_map(|attached| attached.needs.get(usize::from(shard.0)));
            let from = needed.filter_map(|needs| *needs).chain(self.rehoming.needs(shard)).min();
            drop(needs);
            let held = std::mem::replace(&mut self.held.borrow_mut()[usize::from(shard.0)], from);
            if held != from {
                self.ask(0, shard, Replicate::HoldLog(from));
            }
        }
    }

    /// Tells the others how things stand.
    pub fn show(&self) {
        let following: Option<Following> = self.link.borrow().as_ref().map(Link::facts);
        let (followers, captures) = (self.facts_of(|of| !of.is_capture), self.facts_of(|of| of.is_capture));
        let failover = self.failover.borrow().as_ref().map(failover::UnderWay::stage);
        let (dropped_tails, dropped_records) = self.dropped.counts();
        let (rewound_slots, rewound_keys) = self.dropped.rewound();
        self.status.set(Status {
            rewound_slots,
            rewound_keys,
            dropped_tails,
            dropped_records,
            following,
            followers,
            captures,
            slots: self.slots.as_ref().map(Slots::counts),
            copies_begun: self.copies_begun.get(),
            failover: failover.unwrap_or_default(),
            // Told at each look.
            offset: 0,
        });
    }
}

fn recent(place: &Place) -> Vec<Recent> {
    place.logs.iter().map(|dir| Recent::new(dir.clone())).collect()
}

fn has_all(reached: &[u64], upto: &[LogEnd]) -> bool {
    upto.iter().all(|end| reached.get(usize::from(end.shard.0)).is_some_and(|lsn| *lsn >= end.lsn))
}

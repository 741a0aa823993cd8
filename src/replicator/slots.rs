//! Slots that come and go: what this node is to each, kept, told to the cores, and followed.
//!
//! One change at a time. Its order keeps what is acknowledged: a slot is written here only after nobody else's records
//! come for it any more, and nobody else's come before nothing begun here can still write it. Must not know what
//! clients ask.

use super::follower::{Forget, Link, LinkTo};
use super::hub::Hub;
use super::kept;
use crate::limits;
use crate::replica::status::SlotCounts;
use crate::shard::mesh::{Message, Replicate, Replicated, SlotPosition};
use crate::slot::ShardId;
use crate::slot::assignment::{Assignment, Peer, Role};
use crate::slot::set::{self, SlotSet, TableSlots};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// The slots of a node in sharding mode.
pub struct Slots {
    file: PathBuf,
    assigned: RefCell<Arc<Assignment>>,
    /// Told of every change.
    changed: watch::Sender<()>,
    /// Held by the change that is under way.
    changing: Arc<Mutex<()>>,
    links: RefCell<BTreeMap<Arc<Peer>, SlotLink>>,
}

struct SlotLink {
    slots: TableSlots,
    link: Link,
}

/// Held while slots change; nobody else changes them meanwhile.
pub struct Change {
    hub: Rc<Hub>,
    _turn: OwnedMutexGuard<()>,
}

impl Slots {
    pub fn new(file: PathBuf, assignment: Arc<Assignment>) -> Slots {
        Slots {
            file,
            assigned: RefCell::new(assignment),
            changed: watch::channel(()).0,
            changing: Arc::default(),
            links: RefCell::default(),
        }
    }

    pub fn assigned(&self) -> Arc<Assignment> {
        self.assigned.borrow().clone()
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub fn links(&self) -> Vec<(Arc<Peer>, crate::replica::status::Following)> {
        let links = self.links.borrow();
        links.iter().map(|(peer, of)| (peer.clone(), of.link.facts())).collect()
    }

    pub fn follows_any(&self) -> bool {
        !self.links.borrow().is_empty()
    }

    /// For INFO.
    pub fn counts(&self) -> SlotCounts {
        let assigned = self.assigned();
        let count = |slots: &TableSlots| slots.values().map(SlotSet::len).sum::<usize>() as u64;
        let links = self.links.borrow();
        SlotCounts {
            primary: count(&assigned.own()),
            followed: assigned.followed().values().map(count).sum(),
            links: links.values().map(|of| (of.link.facts(), count(&of.slots))).collect(),
        }
    }

    /// Ends all links; at the end of the process.
    pub fn end_links(&self) {
        self.links.borrow_mut().clear();
    }
}

impl Hub {
    /// Of a node in sharding mode only.
    pub fn slots(&self) -> &Slots {
        self.slots.as_ref().expect("asked in sharding mode only")
    }

    /// The right to change slots; None if somebody else has it for longer than a client should wait.
    pub async fn begin_change(self: &Rc<Self>) -> Option<Change> {
        let turn = self.slots().changing.clone().lock_owned();
        let turn = tokio::time::timeout(limits::SLOT_CHANGE_WAIT, turn).await.ok()?;
        Some(Change { hub: self.clone(), _turn: turn })
    }

    /// Where slots stand; those that have a record.
    pub async fn positions(&self) -> Vec<SlotPosition> {
        let states = self.ask_each(|_| Replicate::State).await.into_iter();
        let positions = states.map(|state| match state {
            Replicated::State { positions, .. } => positions,
            _ => unreachable!("every shard was asked for its state"),
        });
        positions.flatten().collect()
    }

    /// Whether this is where the node itself serves.
    pub fn is_own_address(&self, peer: &Peer) -> bool {
        let config = self.config();
        let own = |host: &str| config.bind.iter().any(|address| address.ip.to_string() == host);
        peer.port == config.port && (own(&peer.host) || ["localhost", "127.0.0.1"].contains(&&*peer.host))
    }

    /// What a start begins with: data of slots that are not here is left over from an end in between.
    pub async fn begin_slots(self: &Rc<Self>) {
        self.begin_change().await.expect("nobody has been answered yet").begin().await;
    }
}

impl Change {
    fn slots(&self) -> &Slots {
        self.hub.slots()
    }

    async fn begin(&self) {
        let assigned = self.slots().assigned();
        let positions = self.hub.positions().await;
        let left = |at: &&SlotPosition| !assigned.role(at.table, at.slot).is_here();
        let mut gone = TableSlots::new();
        for at in positions.iter().filter(left) {
            gone.entry(at.table).or_default().insert(at.slot);
        }
        self.empty(&gone).await;
        self.start_links(&TableSlots::new());
    }

    /// Makes it so, whatever was before. `forget`: slots of which what is here counts for nothing.
    pub async fn assign(&self, next: Assignment, forget: &TableSlots) -> Result<(), String> {
        let before = self.slots().assigned();
        self.end_links(&next, forget).await;
        let gained = set::without(&next.own(), &before.own());
        self.begin_term(&gained).await;
        if let Err(why) = self.keep(&next).await {
            self.start_links(&TableSlots::new());
            return Err(why);
        }
        let lost = set::without(&before.here(), &next.here());
        self.tell(next).await;
        self.empty(&lost).await;
        self.start_links(forget);
        Ok(())
    }

    /// From now on nobody's command begins on these slots, until the next change; when this returns nothing is
    /// under way that writes them. An end of the process in between leaves them as they were. False: some command
    /// would not end.
    pub async fn hold(&self, slots: &TableSlots) -> bool {
        let mut held = (*self.slots().assigned()).clone();
        held.set_all(slots, &Role::Held);
        tokio::time::timeout(limits::SLOT_HOLD_WAIT, self.tell(held)).await.is_ok()
    }

    /// Goes on with slots that were held.
    pub async fn release(&self, slots: &TableSlots) {
        let mut released = (*self.slots().assigned()).clone();
        released.set_all(slots, &Role::Primary);
        self.tell(released).await;
    }

    /// Writes down which slots are here, and tells nobody.
    pub async fn keep(&self, next: &Assignment) -> Result<(), String> {
        let (file, next) = (self.slots().file.clone(), next.clone());
        let written = tokio::task::spawn_blocking(move || kept::write(&file, &next)).await;
        let written = written.map_err(std::io::Error::other).flatten();
        written.map_err(|error| format!("writing which slots are here failed: {error}"))
    }

    /// Writes down that these slots are another node's, and what is here of them goes.
    pub async fn forget(&self, next: &Assignment, slots: &TableSlots) -> Result<(), String> {
        self.keep(next).await?;
        self.empty(slots).await;
        Ok(())
    }

    /// Tells the cores, and waits until it is in force there.
    pub async fn tell(&self, next: Assignment) {
        let (hub, slots) = (&self.hub, self.slots());
        let next = Arc::new(next);
        *slots.assigned.borrow_mut() = next.clone();
        slots.changed.send_replace(());
        hub.regroup();
        hub.tell_cores(|ticket| Message::Assign { ticket, assignment: next.clone() }).await;
    }

    /// What is written in these slots from now on is of a new term, behind all that has come from elsewhere.
    async fn begin_term(&self, slots: &TableSlots) {
        let shards = self.shards_of(slots);
        self.hub.ask_these(&shards, |_| Replicate::BeginTerm).await;
    }

    /// Empties slots, as if nothing had ever been in them.
    async fn empty(&self, slots: &TableSlots) {
        let mut positions = self.hub.positions().await;
        positions.retain(|at| set::holds(slots, at.table, at.slot));
        positions.iter_mut().for_each(|at| (at.index, at.term) = (0, 0));
        let map = self.hub.place.map();
        let shards: BTreeSet<ShardId> = positions.iter().map(|at| map.shard_of(at.slot)).collect();
        let of = |shard| positions.iter().filter(|at| map.shard_of(at.slot) == shard).copied().collect();
        self.hub.ask_these(&shards, |shard| Replicate::Adopt(of(shard))).await;
    }

    fn shards_of(&self, slots: &TableSlots) -> BTreeSet<ShardId> {
        let map = self.hub.place.map();
        slots.values().flatten().map(|slot| map.shard_of(*slot)).collect()
    }

    /// Ends the links that are to have other slots.
    async fn end_links(&self, next: &Assignment, forget: &TableSlots) {
        let wanted = next.followed();
        let forgets = |slots: &TableSlots| {
            slots.iter().any(|(table, slots)| slots.iter().any(|slot| set::holds(forget, *table, *slot)))
        };
        let goes_on =
            |peer: &Arc<Peer>, of: &SlotLink| wanted.get(peer) == Some(&of.slots) && !forgets(&of.slots);
        let all = std::mem::take(&mut *self.slots().links.borrow_mut());
        let (kept, ended): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(peer, of)| goes_on(peer, of));
        *self.slots().links.borrow_mut() = kept;
        for (_, of) in ended {
            of.link.stop().await;
        }
    }

    /// Begins the links that are wanted and not there.
    fn start_links(&self, forget: &TableSlots) {
        let wanted = self.slots().assigned().followed();
        let mut links = self.slots().links.borrow_mut();
        for (peer, slots) in wanted {
            if links.contains_key(&peer) {
                continue;
            }
            let to = LinkTo { host: peer.host.clone(), port: peer.port, slots: Some(slots.clone()) };
            let forget = Forget::Slots(forget.clone());
            let link = self.hub.begin_link(to, forget, None);
            links.insert(peer, SlotLink { slots, link });
        }
    }
}

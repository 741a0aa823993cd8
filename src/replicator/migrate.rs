//! A slot's way to another node, safely: the other node follows it, both are compared, and it changes hands in a pause.
//!
//! Until the hand-over is written down here, any failure leaves everything as it was. From then on this node serves the
//! slot no more, whatever happens: the other one may have become its primary. Must not know what is said on a
//! replication link.

use super::hub::{Attached, Hub, now_ms};
use super::peer::{Line, PeerNode};
use super::pkcluster::behind_bytes;
use super::slots::Change;
use crate::limits;
use crate::replica::wire::NodeId;
use crate::shard::mesh::{Replicate, Replicated};
use crate::slot::assignment::{Peer, Role};
use crate::slot::set::{self, SlotSet, TableSlots};
use crate::slot::{ShardId, TableId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is told of the migration that is under way, or was the last.
#[derive(Default)]
pub struct Migrations {
    last: RefCell<Option<Facts>>,
    cancelled: Cell<bool>,
}

struct Facts {
    /// None: every one.
    table: Option<TableId>,
    slots: SlotSet,
    /// A node, or a shard of this one.
    target: String,
    stage: &'static str,
    begun_ms: u64,
    ended_ms: Option<u64>,
    behind_bytes: u64,
    /// Of the pauses, the longest.
    paused: Duration,
    error: Option<String>,
}

impl Migrations {
    pub fn begin(&self, table: Option<TableId>, slots: SlotSet, target: String) {
        self.cancelled.set(false);
        *self.last.borrow_mut() = Some(Facts {
            table,
            slots,
            target,
            stage: "connect",
            begun_ms: now_ms(),
            ended_ms: None,
            behind_bytes: 0,
            paused: Duration::ZERO,
            error: None,
        });
    }

    pub fn end(&self, error: Option<&String>) {
        self.note(|facts| {
            facts.ended_ms = Some(now_ms());
            facts.error = error.cloned();
        });
    }

    pub fn note_stage(&self, stage: &'static str) {
        self.note(|facts| facts.stage = stage);
    }

    pub fn note_pause(&self, began: Instant) {
        self.note(|facts| facts.paused = facts.paused.max(began.elapsed()));
    }

    /// Whether somebody wants the one under way to end; asked once.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.take()
    }

    /// Makes the one under way give up, if it still can; false if there is none.
    pub fn cancel(&self) -> bool {
        let runs = self.last.borrow().as_ref().is_some_and(|last| last.ended_ms.is_none());
        self.cancelled.set(runs);
        runs
    }

    /// As lines of `name:value`.
    pub fn shown(&self) -> String {
        let last = self.last.borrow();
        let Some(last) = &*last else { return "migration_status:none\r\n".into() };
        let status = match (&last.error, last.ended_ms) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "done",
            (None, None) => "running",
        };
        let seconds = last.ended_ms.unwrap_or_else(now_ms).saturating_sub(last.begun_ms) as f64 / 1000.0;
        let mut text = format!(
            "migration_status:{status}\r\nmigration_stage:{}\r\nmigration_table:{}\r\nmigration_slots:{}\r\n\
             migration_target:{}\r\nmigration_seconds:{seconds:.3}\r\nmigration_lag_bytes:{}\r\n\
             migration_pause_ms:{:.3}\r\n",
            last.stage,
            last.table.map_or("all".into(), |table| table.0.to_string()),
            set::shown(&last.slots),
            last.target,
            last.behind_bytes,
            last.paused.as_secs_f64() * 1000.0,
        );
        if let Some(error) = &last.error {
            text.push_str(&format!("migration_error:{error}\r\n"));
        }
        text
    }

    fn note(&self, change: impl FnOnce(&mut Facts)) {
        self.last.borrow_mut().as_mut().map(change);
    }
}

/// One migration.
pub struct Migration {
    hub: Rc<Hub>,
    change: Change,
    table: TableId,
    slots: SlotSet,
    named: TableSlots,
    peer: Arc<Peer>,
    /// Who it is there.
    node: Cell<Option<NodeId>>,
}

/// Why it has ended early, and how far it was.
enum Failed {
    /// Nothing has changed hands.
    Before(String),
    /// It is not known whether the other node has become the primary.
    Unknown(String),
}

impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed::Before(why)
    }
}

impl Migration {
    /// Slots whose primary this node is.
    pub fn new(hub: &Rc<Hub>, change: Change, table: TableId, slots: SlotSet, peer: Peer) -> Migration {
        let named = TableSlots::from([(table, slots.clone())]);
        Migration {
            hub: hub.clone(),
            change,
            table,
            slots,
            named,
            peer: Arc::new(peer),
            node: Cell::new(None),
        }
    }

    /// Moves the slots; why it could not.
    pub async fn run(self) -> Result<(), String> {
        let migrations = &self.hub.migrations;
        migrations.begin(Some(self.table), self.slots.clone(), self.peer.to_string());
        let slots = set::shown(&self.slots);
        tracing::info!(table = self.table.0, slots, to = %self.peer, "moving slots");
        let done = self.move_slots().await;
        let error = done.err();
        match &error {
            None => tracing::info!(table = self.table.0, slots, to = %self.peer, "slots moved"),
            Some(why) => tracing::warn!(table = self.table.0, slots, to = %self.peer, why, "slots not moved"),
        }
        migrations.end(error.as_ref());
        error.map_or(Ok(()), Err)
    }

    async fn move_slots(&self) -> Result<(), String> {
        let failed = |why: std::io::Error| format!("{}: {why}", self.peer);
        let mut there =
            PeerNode::connect(&self.hub, &self.peer.host, self.peer.port).await.map_err(failed)?;
        self.node.set(Some(there.node_id().await.map_err(failed)?));
        self.stage("copy");
        let own_ip = there.own_ip().map_err(failed)?.to_string();
        let own_port = self.hub.config().port.to_string();
        // A replica of the slots needs nothing; and it stays one if it comes to nothing.
        let is_new = self.follower().is_none();
        if is_new {
            self.take(&mut there, &own_ip, &own_port).await?;
        }
        match self.follow_and_hand_over(&mut there).await {
            Ok(()) => Ok(()),
            Err(Failed::Unknown(why)) => Err(why),
            Err(Failed::Before(why)) => {
                self.change.release(&self.named).await;
                if !is_new {
                    return Err(why);
                }
                Err(match self.undo(&own_ip, &own_port).await {
                    Ok(()) => why,
                    Err(undo) => format!("{why}; and what was begun at {} stands: {undo}", self.peer),
                })
            }
        }
    }

    /// Makes the other node follow the slots.
    async fn take(&self, there: &mut PeerNode, own_ip: &str, own_port: &str) -> Result<(), String> {
        let take = self.words("takeslots", &[own_ip, own_port]);
        match there.ask_within(limits::SLOT_PEER_WAIT, &take).await {
            Ok(Ok(_)) => Ok(()),
            // It has refused, and so has nothing of this.
            Ok(Err(why)) => Err(format!("{} answers: {why}", self.peer)),
            Err(error) => {
                let undone = self.undo(own_ip, own_port).await;
                tracing::warn!(?undone, "taking back what was perhaps begun");
                Err(format!("{}: {error}", self.peer))
            }
        }
    }

    /// Takes back what was begun at the other node.
    async fn undo(&self, own_ip: &str, own_port: &str) -> Result<(), String> {
        let failed = |why: std::io::Error| why.to_string();
        let mut there =
            PeerNode::connect(&self.hub, &self.peer.host, self.peer.port).await.map_err(failed)?;
        let words = self.words("dropslots", &[own_ip, own_port]);
        self.said(there.ask_within(limits::SLOT_PEER_WAIT, &words).await).map(drop)
    }

    async fn follow_and_hand_over(&self, there: &mut PeerNode) -> Result<(), Failed> {
        self.caught_up().await?;
        self.stage("compare");
        self.compare(there).await?;
        self.stage("hand over");
        self.caught_up().await?;
        let began = self.pause().await?;
        self.hand_over(there, began).await
    }

    /// Until the other node has all but the last records.
    async fn caught_up(&self) -> Result<(), String> {
        let mut lost_since = Instant::now();
        let patience = Duration::from_secs(u64::from(self.hub.config().repl_timeout_s));
        loop {
            if self.hub.migrations.is_cancelled() {
                return Err("it was cancelled".into());
            }
            if let Some(follower) = self.follower() {
                lost_since = Instant::now();
                let online = follower.facts.online;
                let behind = behind_bytes(&self.hub, follower, &self.named);
                self.hub.migrations.note(|facts| facts.behind_bytes = behind);
                if online && behind <= limits::SLOT_HAND_OVER_BYTES {
                    return Ok(());
                }
            }
            if lost_since.elapsed() > patience {
                return Err(format!("{} does not follow", self.peer));
            }
            tokio::time::sleep(limits::REPLICA_TICK).await;
        }
    }

    /// The other node, as a follower of this one. Of a link that has been replaced nobody may know yet that it has ended.
    fn follower(&self) -> Option<Attached> {
        let is_it = |follower: &Attached| {
            follower.node == self.node.get() && self.slots.iter().all(|slot| follower.has(self.table, *slot))
        };
        self.hub.attached().into_iter().filter(is_it).max_by_key(|of| (of.facts.online, of.applied.clone()))
    }

    /// Compares what both nodes hold: a short pause in which both take a snapshot.
    async fn compare(&self, there: &mut PeerNode) -> Result<(), String> {
        let began = self.pause().await?;
        let here = self.hub.begin_digest(self.named.clone()).await;
        let number =
            self.said(there.ask_within(limits::SLOT_HAND_OVER_WAIT, &self.words("snapshot", &[])).await);
        self.change.release(&self.named).await;
        self.note_pause(began);
        let here = here.done().await?;
        let number = number?;
        let theirs =
            self.said(there.ask_within(limits::SLOT_DIGEST_WAIT, &["PKCLUSTER", "DIGESTOF", &number]).await)?;
        if here == theirs {
            return Ok(());
        }
        Err(format!("the two nodes do not hold the same: {here} here, {theirs} there"))
    }

    /// Nobody writes the slots from now on, and the other node has everything. When it began.
    async fn pause(&self) -> Result<Instant, String> {
        for _ in 0..limits::SLOT_HOLD_TRIES {
            let began = Instant::now();
            if self.change.hold(&self.named).await && self.has_everything(began).await {
                return Ok(began);
            }
            self.change.release(&self.named).await;
            self.note_pause(began);
            tokio::time::sleep(limits::SLOT_HOLD_PAUSE).await;
        }
        Err("commands on these slots, or the link, take too long to end".into())
    }

    async fn has_everything(&self, began: Instant) -> bool {
        let map = self.hub.place.map();
        let shards: BTreeSet<ShardId> = self.slots.iter().map(|slot| map.shard_of(*slot)).collect();
        let states = self.hub.ask_these(&shards, |_| Replicate::State).await;
        let ends: Vec<(ShardId, u64)> = shards
            .into_iter()
            .zip(states)
            .map(|(shard, state)| match state {
                Replicated::State { upto, .. } => (shard, upto),
                _ => unreachable!("every shard was asked for its state"),
            })
            .collect();
        while began.elapsed() < limits::SLOT_HOLD_WAIT {
            let has = |follower: Attached| {
                ends.iter().all(|(shard, upto)| follower.applied[usize::from(shard.0)] >= *upto)
            };
            if self.follower().is_some_and(has) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        false
    }

    async fn hand_over(&self, there: &mut PeerNode, began: Instant) -> Result<(), Failed> {
        let now = self.hub.slots().assigned();
        let with = |role: Role| {
            let mut next = (*now).clone();
            next.set(self.table, &self.slots, &role);
            next
        };
        self.change.keep(&with(Role::Leaving(self.peer.clone()))).await?;
        // From here on there is no way back.
        if let Err(why) = self.promote(there).await {
            self.change.tell(with(Role::Leaving(self.peer.clone()))).await;
            return Err(Failed::Unknown(format!(
                "{} may have become the primary, and does not say so ({why}): the slots are served by neither until \
                 `pkcluster slotsslaveof no one` is said for them, there or here",
                self.peer
            )));
        }
        let gone = with(Role::Moved(self.peer.clone()));
        self.change.tell(gone.clone()).await;
        self.note_pause(began);
        let gone = self.change.forget(&gone, &self.named).await;
        gone.map_err(|error| Failed::Unknown(format!("the slots have moved; here: {error}")))
    }

    /// Makes the other node the primary. Said until it is answered: a second time it changes nothing.
    async fn promote(&self, there: &mut PeerNode) -> Result<(), String> {
        let (slots, table) = (set::shown(&self.slots), self.table.0.to_string());
        let words = ["pkcluster", "slotsslaveof", "no", "one", &slots, &table];
        let mut why = match self.said(there.ask_within(limits::SLOT_HAND_OVER_WAIT, &words).await) {
            Ok(_) => return Ok(()),
            Err(why) => why,
        };
        for _ in 0..limits::SLOT_HOLD_TRIES {
            tokio::time::sleep(limits::SLOT_HOLD_PAUSE).await;
            let again = PeerNode::connect(&self.hub, &self.peer.host, self.peer.port).await;
            let said = match again {
                Ok(mut again) => self.said(again.ask_within(limits::SLOT_HAND_OVER_WAIT, &words).await),
                Err(error) => Err(error.to_string()),
            };
            match said {
                Ok(_) => return Ok(()),
                Err(again) => why = again,
            }
        }
        Err(why)
    }

    /// A command on these slots, with what stands between them and the table.
    fn words(&self, command: &str, between: &[&str]) -> Vec<String> {
        let before = ["pkcluster".into(), command.into(), set::shown(&self.slots)];
        let between = between.iter().map(|word| word.to_string());
        before.into_iter().chain(between).chain([self.table.0.to_string()]).collect()
    }

    fn stage(&self, stage: &'static str) {
        self.hub.migrations.note_stage(stage);
    }

    fn note_pause(&self, began: Instant) {
        self.hub.migrations.note_pause(began);
    }

    fn said(&self, line: std::io::Result<Line>) -> Result<String, String> {
        let line = line.map_err(|error| format!("{}: {error}", self.peer))?;
        line.map_err(|why| format!("{} answers: {why}", self.peer))
    }
}

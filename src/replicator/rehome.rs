//! A slot's way from one shard of this node to another: copied, caught up from the old shard's log, and switched in a
//! pause.
//!
//! The new shard has the slot hidden until then, by the means of a follower: a copy, `Adopt`, records with the indexes
//! and terms that the old shard gave them. What commits the move is the file that says where slots lie: before it is
//! written the slot is where it was, and what is hidden is left over; after it, what the old shard has. Leftovers go with
//! a record of their shard's log, at the end of each move and at a start. Must not know what is said on a link.

use super::copy::{self, Chunk};
use super::hub::{Answer, Hub};
use super::kept;
use super::source::{End, Tail};
use crate::binlog::{Lsn, Txn};
use crate::limits;
use crate::replica::portion::{self, Unfit};
use crate::replica::primary::Logged;
use crate::replica::wire::Record;
use crate::shard::mesh::{LentShard, Message, Replicate, Replicated, SlotPosition};
use crate::slot::ShardId;
use crate::slot::placement::Placement;
use crate::slot::set::{SlotSet, TableSlots};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// What the rest of the thread must know of moves between shards.
#[derive(Default)]
pub struct Rehoming {
    /// Held by the move that is under way, and by a start until it has tidied up.
    turn: Arc<Mutex<()>>,
    under_way: Cell<bool>,
    /// The log of this shard is needed from here on.
    needs: Cell<Option<(ShardId, u64)>>,
    /// How often slots have moved.
    times: Cell<u64>,
    /// It is being told where slots lie.
    switching: watch::Sender<bool>,
}

impl Rehoming {
    pub fn is_under_way(&self) -> bool {
        self.under_way.get()
    }

    pub fn times(&self) -> u64 {
        self.times.get()
    }

    /// From where on a shard's log is needed.
    pub fn needs(&self, shard: ShardId) -> Option<u64> {
        self.needs.get().filter(|(of, _)| *of == shard).map(|(_, from)| from)
    }

    /// Until this thread and all cores agree on where slots lie.
    pub async fn settled(&self) {
        let mut switching = self.switching.subscribe();
        switching.wait_for(|switching| !switching).await.expect("the hub outlives its tasks");
    }
}

/// The right to move slots.
pub struct Turn<'h> {
    hub: &'h Rc<Hub>,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.hub.rehoming.under_way.set(false);
        self.hub.rehoming.needs.set(None);
    }
}

impl Hub {
    /// What an end of the process has left on shards that it does not lie on goes.
    pub fn begin_tidying(self: &Rc<Self>) {
        let turn = self.rehoming.turn.clone().try_lock_owned().expect("nobody has been answered yet");
        let hub = self.clone();
        tokio::task::spawn_local(async move {
            hub.tidy().await;
            drop(turn);
        });
    }

    /// Gives up what shards have of slots that lie on others, through their logs.
    async fn tidy(&self) {
        for shard in self.shards() {
            let of = BTreeSet::from([shard]);
            let mut hidden = state(self.ask_these(&of, |_| Replicate::Hidden).await).0;
            if hidden.is_empty() {
                continue;
            }
            hidden.iter_mut().for_each(|at| (at.index, at.term) = (0, 0));
            self.ask_these(&of, |_| Replicate::Adopt(hidden.clone())).await;
        }
    }

    /// The right to move slots; None if somebody else has it for longer than a client should wait.
    pub async fn begin_rehoming(self: &Rc<Self>) -> Option<Turn<'_>> {
        let turn = self.rehoming.turn.clone().lock_owned();
        let turn = tokio::time::timeout(limits::SLOT_CHANGE_WAIT, turn).await.ok()?;
        self.rehoming.under_way.set(true);
        Some(Turn { hub: self, _turn: turn })
    }
}

impl Turn<'_> {
    /// Moves these slots of every table to a shard of this node, one shard's after the other; why not all.
    pub async fn rehome(&self, slots: &SlotSet, to: ShardId) -> Result<(), String> {
        let map = self.hub.place.map();
        let mut by_shard: BTreeMap<ShardId, SlotSet> = BTreeMap::new();
        for slot in slots.iter().filter(|slot| map.shard_of(**slot) != to) {
            by_shard.entry(map.shard_of(*slot)).or_default().insert(*slot);
        }
        for (from, slots) in by_shard {
            let mut way = Way::new(self.hub, from, to, slots);
            let moved = way.go().await;
            self.hub.ask(way.ticket, to, Replicate::Abandon);
            self.hub.migrations.note_stage("tidy up");
            self.hub.tidy().await;
            self.hub.end_route(way.ticket);
            moved?;
        }
        Ok(())
    }
}

/// From one shard to another.
struct Way<'h> {
    hub: &'h Rc<Hub>,
    from: ShardId,
    to: ShardId,
    slots: Arc<SlotSet>,
    /// Where slots lie before and after.
    before: Placement,
    after: Placement,
    ticket: u64,
    answers: UnboundedReceiver<Answer>,
    /// Of the old shard's log, and the record that is read next.
    tail: Tail,
    next: Lsn,
    /// Of the old shard's records, the last that the new one was given, and has.
    given: u64,
    has: u64,
}

impl<'h> Way<'h> {
    fn new(hub: &'h Rc<Hub>, from: ShardId, to: ShardId, slots: SlotSet) -> Way<'h> {
        let before = hub.place.map().placement().clone();
        let (ticket, answers) = hub.route();
        Way {
            from,
            to,
            after: before.moved(&slots, to),
            before,
            slots: Arc::new(slots),
            ticket,
            answers,
            tail: Tail::new(hub.place.logs[usize::from(from.0)].clone()),
            next: Lsn::ZERO,
            given: 0,
            has: 0,
            hub,
        }
    }

    async fn go(&mut self) -> Result<(), String> {
        self.hub.rehoming.needs.set(Some((self.from, self.hub.published.upto(self.from))));
        self.hub.hold_logs();
        self.hub.migrations.note_stage("copy");
        self.copy().await?;
        self.hub.migrations.note_stage("compare");
        self.compare().await?;
        self.hub.migrations.note_stage("hand over");
        let (began, _) = self.pause().await?;
        let switched = self.switch().await;
        if switched.is_err() {
            self.release().await;
        }
        self.hub.migrations.note_pause(began);
        switched
    }

    /// Compares what both shards hold: a short pause in which each is lent as it is.
    async fn compare(&mut self) -> Result<(), String> {
        let (began, positions) = self.pause().await?;
        let (from, to) = (BTreeSet::from([self.from]), BTreeSet::from([self.to]));
        let mut slots = TableSlots::new();
        for SlotPosition { table, slot, .. } in positions {
            slots.entry(table).or_default().insert(slot);
        }
        let old = self.hub.begin_digest_of(&from, false, slots.clone()).await;
        let new = self.hub.begin_digest_of(&to, true, slots).await;
        self.release().await;
        self.hub.migrations.note_pause(began);
        let (old, new) = (old.done().await?, new.done().await?);
        if old == new {
            return Ok(());
        }
        Err(format!("the two shards do not hold the same: {old} before, {new} now"))
    }

    /// The slots as they are at one moment, hidden on the new shard.
    async fn copy(&mut self) -> Result<(), String> {
        let lent = self
            .hub
            .ask_these(&BTreeSet::from([self.from]), |_| Replicate::Lend { hidden: false })
            .await
            .pop();
        let Some(Replicated::Lent(lent)) = lent else {
            unreachable!("the shard was asked for a way to read it")
        };
        let LentShard { upto, .. } = *lent;
        let positions = self.of_these(lent.positions.clone());
        self.next = Lsn(upto).next();
        (self.given, self.has) = (upto, upto);
        self.hub.rehoming.needs.set(Some((self.from, upto)));
        let log = self.hub.place.logs[usize::from(self.from.0)].clone();
        let begun = copy::begin(*lent, positions.clone(), Vec::new(), log);
        let mut chunks = begun.map_err(|error| format!("a thread for the copy: {error}"))?;
        let mut under_way = 0;
        while let Some(chunk) = chunks.recv().await {
            self.may_go_on()?;
            match chunk {
                Chunk::Entries { slot: SlotPosition { table, slot, .. }, entries } => {
                    self.hub.ask(self.ticket, self.to, Replicate::Copy { table, slot, entries });
                    under_way += 1;
                }
                Chunk::Keys { .. } => unreachable!("all of each slot was asked for"),
                Chunk::Done { .. } => {}
                Chunk::Failed(why) => return Err(format!("reading a slot failed: {why}")),
            }
            while under_way >= limits::REPLICA_COPY_AHEAD {
                self.answer().await?;
                under_way -= 1;
            }
        }
        for _ in 0..under_way {
            self.answer().await?;
        }
        if !positions.is_empty() {
            self.hub.ask(self.ticket, self.to, Replicate::Adopt(positions));
            self.answer().await?;
        }
        Ok(())
    }

    /// Records of the old shard's log, until few are left.
    async fn catch_up(&mut self) -> Result<(), String> {
        loop {
            self.may_go_on()?;
            let bytes = self.pass_on()?;
            while self.has < self.given {
                self.answer().await?;
            }
            self.hub.rehoming.needs.set(Some((self.from, self.next.0)));
            if bytes < limits::REPLICA_READ_BYTES {
                return Ok(());
            }
            // Others on this thread want to go on too.
            tokio::task::yield_now().await;
        }
    }

    /// Gives the new shard the next of the old one's records; how many bytes of the log that was, about.
    fn pass_on(&mut self) -> Result<usize, String> {
        let published = Lsn(self.hub.published.upto(self.from));
        if self.next > published {
            return Ok(0);
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        let read = self.tail.read(self.next, limits::REPLICA_READ_BYTES, published, |record| {
            bytes += record.body.len() + 1;
            records.push(record);
        });
        match read {
            Ok(End::UpTo(lsn)) => self.next = lsn.next(),
            Ok(End::Gone) => return Err("the log it needs is gone".into()),
            Err(error) => return Err(format!("reading the log failed: {error}")),
        }
        let mut portions = Vec::new();
        for record in records {
            let Some(record) = self.theirs(record) else { continue };
            let lsn = record.lsn.0;
            let split = portion::split(record, &self.after).map_err(|unfit| match unfit {
                Unfit::Body(error) => format!("record {lsn} cannot be read: {error}"),
                Unfit::Copy(_) => "the slots were replaced meanwhile".into(),
            })?;
            portions.extend(split.portions.into_iter().map(|(_, portion)| portion));
            self.given = lsn;
        }
        if !portions.is_empty() {
            self.hub.ask(self.ticket, self.to, Replicate::Append(portions));
        }
        Ok(bytes)
    }

    /// A record as far as it falls on these slots.
    fn theirs(&self, record: Logged) -> Option<Record> {
        let Logged { lsn, time_ms, mut touches, txn, body } = record;
        let all = touches.len();
        touches.retain(|touch| self.slots.contains(&touch.slot));
        let exact = touches.len() == all && !matches!(txn, Some(Txn::Whole { .. }));
        (!touches.is_empty()).then_some(Record { stream: self.from, lsn, time_ms, touches, exact, body })
    }

    /// Takes one answer of the new shard.
    async fn answer(&mut self) -> Result<(), String> {
        let (_, answer) = self.answers.recv().await.expect("the route stands");
        match answer {
            Replicated::Copied | Replicated::Adopted { .. } => {}
            Replicated::Appended { lsn, .. } => self.has = self.has.max(lsn),
            Replicated::Refused(why) => return Err(format!("shard {} refuses it: {why}", self.to.0)),
            _ => unreachable!("the new shard is asked for nothing else by this route"),
        }
        Ok(())
    }

    /// From now on nobody uses the slots, and the new shard has everything. When it began, and where the slots stand.
    async fn pause(&mut self) -> Result<(Instant, Vec<SlotPosition>), String> {
        for _ in 0..limits::SLOT_HOLD_TRIES {
            self.catch_up().await?;
            self.settle().await;
            let began = Instant::now();
            let held =
                tokio::time::timeout(limits::SLOT_HOLD_WAIT, self.place(&self.before, true, true)).await;
            let ready = match held {
                Ok(()) => tokio::time::timeout(limits::SLOT_HOLD_WAIT, self.last_records()).await,
                Err(late) => Err(late),
            };
            if let Ok(Ok(positions)) = ready {
                return Ok((began, positions));
            }
            self.release().await;
            self.hub.migrations.note_pause(began);
            if let Ok(Err(why)) = ready {
                return Err(why);
            }
            tokio::time::sleep(limits::SLOT_HOLD_PAUSE).await;
        }
        Err("commands on these slots, or the log, take too long to end".into())
    }

    /// The slots are used again, where they were.
    async fn release(&self) {
        self.place(&self.before, false, false).await;
    }

    async fn last_records(&mut self) -> Result<Vec<SlotPosition>, String> {
        let (positions, upto) =
            state(self.hub.ask_these(&BTreeSet::from([self.from]), |_| Replicate::State).await);
        while self.next <= Lsn(upto) {
            if self.pass_on()? == 0 {
                self.hub.settlement.want(self.from, upto);
                self.wake_shards().await;
            }
        }
        while self.has < self.given {
            self.answer().await?;
        }
        let to = BTreeSet::from([self.to]);
        let hidden = state(self.hub.ask_these(&to, |_| Replicate::Hidden).await).0;
        let positions = self.of_these(positions);
        if positions != self.of_these(hidden) {
            return Err("the two shards do not have the same; tables may have been exchanged".into());
        }
        // What is written there from now on must lie behind all that was written here.
        self.hub.ask_these(&to, |_| Replicate::BeginTerm).await;
        self.settle().await;
        Ok(positions)
    }

    /// Until nothing that stands in any log now can be lost: what recovery makes whole by where slots lie is whole
    /// already when they move.
    async fn settle(&self) {
        let states = self.hub.ask_each(|_| Replicate::State).await;
        let ends: Vec<u64> = states.into_iter().map(|answer| state(vec![answer]).1).collect();
        let open = |(shard, end): &(ShardId, &u64)| self.hub.settlement.upto(*shard) < **end;
        while self.hub.shards().zip(&ends).any(|of| open(&of)) {
            self.hub.shards().zip(&ends).for_each(|(shard, end)| self.hub.settlement.want(shard, *end));
            self.wake_shards().await;
        }
    }

    /// Lets every core have a turn, and some time pass.
    async fn wake_shards(&self) {
        self.hub.ask_each(|_| Replicate::Hidden).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// The slots lie on the new shard: from the moment when the file says so, whatever happens.
    async fn switch(&self) -> Result<(), String> {
        let rehoming = &self.hub.rehoming;
        rehoming.switching.send_replace(true);
        if let Err(error) = self.keep(&self.after).await {
            // It may be there all the same.
            if let Err(again) = self.keep(&self.before).await {
                tracing::error!(%error, %again, "where slots lie cannot be written: ending at once");
                std::process::exit(70);
            }
            rehoming.switching.send_replace(false);
            return Err(format!("writing where slots lie failed: {error}"));
        }
        rehoming.times.set(rehoming.times.get() + 1);
        let map = self.hub.place.map().placed(self.after.clone());
        *self.hub.place.map.borrow_mut() = map;
        self.place(&self.after, true, false).await;
        rehoming.switching.send_replace(false);
        self.place(&self.after, false, false).await;
        Ok(())
    }

    async fn keep(&self, placement: &Placement) -> io::Result<()> {
        let (file, placement) = (kept::placement_path(&self.hub.place.data_dir), placement.clone());
        let written = tokio::task::spawn_blocking(move || kept::write_placement(&file, &placement)).await;
        written.map_err(io::Error::other).flatten()
    }

    /// Tells the cores where slots lie, and whether these are held.
    async fn place(&self, placement: &Placement, hold: bool, drain: bool) {
        let held = hold.then(|| self.slots.clone());
        let message =
            |ticket| Message::Place { ticket, placement: placement.clone(), held: held.clone(), drain };
        self.hub.tell_cores(message).await;
    }

    fn of_these(&self, mut positions: Vec<SlotPosition>) -> Vec<SlotPosition> {
        positions.retain(|at| self.slots.contains(&at.slot));
        positions.sort_unstable_by_key(|at| (at.table, at.slot));
        positions
    }

    fn may_go_on(&self) -> Result<(), String> {
        if self.hub.migrations.is_cancelled() { Err("it was cancelled".into()) } else { Ok(()) }
    }
}

/// Positions, and where the log ends, of the one shard that was asked.
fn state(mut answers: Vec<Replicated>) -> (Vec<SlotPosition>, u64) {
    match answers.pop() {
        Some(Replicated::State { positions, upto }) => (positions, upto),
        _ => unreachable!("the shard was asked for its state"),
    }
}

//! The shards of one core and the commands that wait on them.
//!
//! Runs single-shard commands, local or hopped, in each connection's order; parks those that miss the
//! disk, meet a latch or a closed gate, or are too long for a turn; hands finished replies back.
//! Knows no socket: a connection is a `LineId` here.

use super::jobs::{CorePools, Needs};
use super::large::{Client, Large, Larges};
use super::latch::{Names, Request};
use super::line::Lines;
use super::mesh::{Answer, Call, Calls, LineId, Message, OwnedCall};
use super::published::Published;
use super::shard::{Halted, Holder, Ran, Shard};
use super::work::{Away, Done, Job, Outcome, Reading};
use crate::clock::Clock;
use crate::command::flag;
use crate::error::{ClientError, Fault, Stop};
use crate::limits;
use crate::metrics::latency::{Event, Events};
use crate::metrics::{CoreStats, CoreTimes};
use crate::resp::reply::Reply;
use crate::slot::assignment::Assignment;
use crate::slot::set::SlotSet;
use crate::slot::{CoreId, ShardId, SlotHash, TableId};
use crate::store::Wanted;
use crate::store::tx::Scope;
use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// What never changes while a core runs.
#[derive(Clone, Copy)]
pub struct Setting {
    pub core: CoreId,
    pub hash: SlotHash,
    pub tables: u32,
    pub value_max_bytes: u64,
    /// Elements one reply may have; 0: any number.
    pub reply_max_elements: u64,
    /// Bytes of a reply that is held whole; 0: any number.
    pub reply_max_bytes: u64,
    /// Followers that have a write before clients are shown it.
    pub consensus_level: u32,
}

/// A reply for a connection of this core; it may leave when `position` of its shard is answerable.
pub struct Finished {
    pub answer: Answer,
    pub shard: ShardId,
    pub position: u64,
}

/// A command that waits.
pub(super) struct Task {
    line: LineId,
    seq: u64,
    pub(super) call: OwnedCall,
    /// Holds latches on its keys.
    latched: bool,
    /// Has been warmed once and must not be again: next time it runs away from the core.
    warmed: bool,
    /// What to do once the latches are there.
    away: bool,
    /// Since when the pool reads for it.
    missed_at: Option<Instant>,
}

/// How an attempt to run a command ended.
enum Attempt {
    Done(Reply, u64),
    /// Writes are held back on this shard.
    Gate,
    Latch,
    Cold(Wanted),
    Away,
}

pub struct Owner {
    pub setting: Setting,
    /// By shard: the core that owns it.
    pub(super) owners: Vec<CoreId>,
    pub clock: Clock,
    pub shards: Vec<Shard>,
    /// By shard id: where it stands in `shards`.
    pub(super) local: Vec<Option<usize>>,
    pub(super) lines: Lines,
    pub(super) tasks: Slab<Task>,
    /// Tasks that have what they waited for.
    ready: VecDeque<usize>,
    /// Tasks that wait for a shard's write gate, in order; by local shard.
    pub(super) gated: Vec<VecDeque<usize>>,
    /// Jobs for the pool, sent when the turn is committed.
    pub(super) jobs: VecDeque<(Needs, Job)>,
    /// Syncs and memtable switches: a pool of their own, so that nothing stands before them.
    pub(super) flush_jobs: VecDeque<Job>,
    pub(super) pools: CorePools,
    /// Replies for this core's own connections.
    pub finished: Vec<Finished>,
    /// For other cores, sent when the turn is committed.
    pub outgoing: Vec<(CoreId, Message)>,
    /// What waits for the log; by local shard.
    pub(super) held: Vec<super::held::Held>,
    pub(super) steps: super::steps::Steps,
    /// Commits in pieces, by local shard.
    pub(super) larges: Vec<Larges>,
    /// One of them has moved in this turn: the next turn must come at once.
    pub larges_moved: bool,
    /// Reading tasks whose snapshot is not known to be taken: they hold their latches.
    unread: Vec<(usize, Arc<AtomicBool>)>,
    /// Long replies that may be under way.
    long_replies: Arc<AtomicUsize>,
    /// Shards lent to commands on the pool.
    pub(super) reading: Arc<AtomicUsize>,
    pub(super) upkeep: Vec<super::upkeep::Upkeep>,
    pub(super) scans: super::scan::Tokens,
    pub(super) sweeps: super::sweep::Sweeps,
    /// Commands running on snapshots now: incarnations they may read are not erased.
    pub(super) away_running: usize,
    /// CLIENT PAUSE: keys do not expire either.
    pub paused_writes: bool,
    /// As long as writes are held for a failover.
    pub keeps_expired: bool,
    pub(super) follow: Vec<super::follow::Follow>,
    pub published: Arc<Published>,
    /// In sharding mode: what this node is to each slot.
    pub assigned: Option<Arc<Assignment>>,
    /// Slots that nobody uses at this moment: they move between shards.
    pub held_slots: Option<Arc<SlotSet>>,
    /// The replication thread is to be waked for what has been published.
    pub log_grown: bool,
    pub stats: CoreStats,
    pub times: CoreTimes,
    pub events: Events,
    /// Time has passed since the last turn.
    pub(super) ticked: bool,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub active_expire: bool,
    /// Of the next command's own chances.
    seed: Cell<u64>,
}

impl Owner {
    pub fn new(
        setting: Setting,
        owners: Vec<CoreId>,
        clock: Clock,
        shards: Vec<Shard>,
        pools: CorePools,
        upkeep: Vec<super::upkeep::Upkeep>,
        published: Arc<Published>,
    ) -> Owner {
        let mut local = vec![None; owners.len()];
        for (at, shard) in shards.iter().enumerate() {
            local[usize::from(shard.id.0)] = Some(at);
        }
        Owner {
            setting,
            owners,
            clock,
            local,
            lines: Lines::default(),
            tasks: Slab::new(),
            ready: VecDeque::new(),
            gated: shards.iter().map(|_| VecDeque::new()).collect(),
            jobs: VecDeque::new(),
            flush_jobs: VecDeque::new(),
            paused_writes: false,
            keeps_expired: false,
            follow: shards.iter().map(|_| super::follow::Follow::default()).collect(),
            published,
            assigned: None,
            held_slots: None,
            log_grown: false,
            pools,
            finished: Vec::new(),
            outgoing: Vec::new(),
            held: shards.iter().map(|_| super::held::Held::default()).collect(),
            steps: super::steps::Steps::new(shards.len()),
            larges: shards.iter().map(|_| Larges::default()).collect(),
            larges_moved: false,
            unread: Vec::new(),
            long_replies: Arc::default(),
            reading: Arc::default(),
            upkeep,
            scans: super::scan::Tokens::default(),
            sweeps: super::sweep::Sweeps::default(),
            away_running: 0,
            stats: CoreStats::default(),
            times: CoreTimes::default(),
            events: Events::default(),
            ticked: false,
            active_expire: true,
            seed: Cell::new(fastrand::u64(..)),
            shards,
        }
    }

    /// Where a shard of this core stands. A message for a shard of another core is a fault of the sender.
    pub(super) fn at(&self, shard: ShardId) -> usize {
        self.local[usize::from(shard.0)].expect("shards are sent only to their owner")
    }

    pub fn shard(&self, shard: ShardId) -> &Shard {
        &self.shards[self.at(shard)]
    }

    /// How a table's keys lie in its slots.
    pub fn hash_of(&self, table: TableId) -> SlotHash {
        self.assigned
            .as_ref()
            .map_or(self.setting.hash, |assigned| assigned.hash_of(table, self.setting.hash))
    }

    pub fn scope(&self, table: TableId, steps_max: u32) -> Scope {
        let Setting { tables, value_max_bytes, reply_max_elements, .. } = self.setting;
        let hash = self.hash_of(table);
        let (now_ms, seed) = (self.clock.now_ms(), self.seed.get());
        self.seed.set(seed.wrapping_add(1));
        Scope { table, hash, tables, now_ms, value_max_bytes, steps_max, reply_max_elements, seed }
    }

    /// How far the deletion of what is due is behind, on the shard where it is most.
    pub fn expire_lag_ms(&self) -> u64 {
        self.upkeep.iter().map(super::upkeep::Upkeep::expire_lag_ms).max().unwrap_or(0)
    }

    /// Too much waits here: connections of this core should stop reading.
    pub fn is_full(&self) -> bool {
        self.tasks.len() >= limits::TASKS_PER_CORE_MAX
    }

    /// Runs a command of a connection of this core. The reply and the position it must wait for, or
    /// None: it will come as `Finished` with this `seq`.
    pub fn run(&mut self, line: LineId, seq: u64, call: &Call<'_>) -> Option<(Reply, u64)> {
        let write = call.command.spec.has(flag::WRITE);
        if self.lines.holds_back(line, write) {
            self.lines.queue(line, seq, call.to_owned());
            return None;
        }
        match self.attempt(call, false) {
            Attempt::Done(reply, position) => Some((reply, position)),
            waiting => {
                self.lines.begin(line, write);
                self.park(line, seq, call.to_owned(), waiting);
                None
            }
        }
    }

    /// Runs what another core has sent for one of its connections.
    pub fn run_all(&mut self, calls: &Calls) {
        for (seq, call) in calls.iter() {
            if let Some((reply, position)) = self.run(calls.line, seq, &call) {
                self.deliver(calls.line, seq, call.shard, reply, position);
            }
        }
    }

    fn attempt(&mut self, call: &Call<'_>, latched: bool) -> Attempt {
        let at = self.at(call.shard);
        let write = call.command.spec.has(flag::WRITE);
        let shard = &mut self.shards[at];
        if write {
            if shard.is_full() {
                return Attempt::Done(Reply::Error(DISK_FULL), 0);
            }
            if !shard.admits_writes() || !self.upkeep[at].admits() {
                return Attempt::Gate;
            }
        }
        if !latched && !shard.latches.is_empty() && blocked(shard, call, write) {
            return Attempt::Latch;
        }
        if call.args.len() > limits::ARGS_PER_TURN_MAX {
            return Attempt::Away;
        }
        let scope = self.scope(call.table, limits::STEPS_PER_TURN_MAX);
        match self.shards[at].run(call, scope, &mut self.stats) {
            Ok(Ran { reply, position }) => Attempt::Done(reply, position),
            Err(Halted { stop: Stop::Cold, wanted }) => {
                self.stats.cold_reads += 1;
                Attempt::Cold(wanted.expect("a cold source says what it misses"))
            }
            // A turn offers no reply to be sent in parts; nothing else asks for it.
            Err(Halted { stop: Stop::Long | Stop::LongReply, .. }) => Attempt::Away,
            Err(Halted { stop: Stop::Client(error), .. }) => Attempt::Done(Reply::Error(error), 0),
            Err(Halted { stop: Stop::Fault(text), .. }) => {
                tracing::error!(shard = call.shard.0, command = call.command.spec.name, %text, "reading failed");
                Attempt::Done(Reply::Error(ClientError::new(format!("ERR reading failed: {text}"))), 0)
            }
        }
    }

    fn park(&mut self, line: LineId, seq: u64, call: OwnedCall, why: Attempt) {
        let task = Task { line, seq, call, latched: false, warmed: false, away: false, missed_at: None };
        let id = self.tasks.insert(task);
        self.wait(id, why);
    }

    fn wait(&mut self, id: usize, why: Attempt) {
        let task = &mut self.tasks[id];
        let shard = task.call.shard;
        let at = self.local[usize::from(shard.0)].expect("shards are sent only to their owner");
        match why {
            Attempt::Done(..) => unreachable!("a finished command does not wait"),
            Attempt::Gate => self.gated[at].push_back(id),
            Attempt::Latch => self.latch(id),
            Attempt::Cold(_) if task.warmed => self.leave(id),
            Attempt::Cold(wanted) => {
                task.warmed = true;
                task.missed_at = Some(Instant::now());
                let reader = self.shards[at].data.store.reader();
                let job = move || Done::Warmed { task: id, result: reader.warm(&[wanted]) };
                self.jobs.push_back((Needs::Nothing, Box::new(job)));
            }
            Attempt::Away => self.leave(id),
        }
    }

    /// Runs a command on a snapshot, away from the core, its keys latched: one that writes to its end, one
    /// that reads until its snapshot is taken, lest it see a commit that is applied in pieces by half.
    fn leave(&mut self, id: usize) {
        let task = &mut self.tasks[id];
        if !task.latched {
            task.away = true;
            self.latch(id);
            return;
        }
        self.stats.long_commands += 1;
        self.away_running += 1;
        let call = self.tasks[id].call.take();
        let at = self.at(call.shard);
        let scope = self.scope(call.table, u32::MAX);
        let taken = Arc::new(AtomicBool::new(false));
        if !call.command.spec.has(flag::WRITE) {
            self.unread.push((id, taken.clone()));
        }
        let room = self.long_replies.load(Ordering::Relaxed) < limits::LONG_REPLIES_PER_CORE_MAX;
        let long_reply = (room && call.command.spec.has(flag::LONG_REPLY))
            .then(|| [Reading::begin(&self.reading), Reading::begin(&self.long_replies)]);
        let away = Away::new(&self.shards[at], call, scope, taken, long_reply);
        self.jobs
            .push_back((Needs::Shard(at), Box::new(move || Done::Ran { task: id, outcome: away.run() })));
    }

    /// Readers whose snapshots are taken give their latches back.
    fn release_readers(&mut self) {
        let taken = |(_, taken): &mut (usize, Arc<AtomicBool>)| taken.load(Ordering::Acquire);
        let ready: Vec<usize> = self.unread.extract_if(.., taken).map(|(id, _)| id).collect();
        for id in ready {
            let shard = self.tasks[id].call.shard;
            self.tasks[id].latched = false;
            self.unlatch(shard, &Holder::Task(id));
        }
    }

    fn latch(&mut self, id: usize) {
        let task = &self.tasks[id];
        let call = task.call.call();
        let exclusive = call.command.spec.has(flag::WRITE);
        let names = Names::Keys(key_names(&call));
        let at = self.at(call.shard);
        if self.shards[at].latches.acquire(Request { owner: Holder::Task(id), names, exclusive }, true) {
            self.latched(id);
        }
    }

    /// A task has its latches now. It goes on in `run_ready`: a chain of waiting commands must not
    /// become a chain of calls.
    fn latched(&mut self, id: usize) {
        self.tasks[id].latched = true;
        self.ready.push_back(id);
    }

    fn run_ready(&mut self) {
        while let Some(id) = self.ready.pop_front() {
            if self.tasks[id].away { self.leave(id) } else { self.retry(id) }
        }
    }

    fn retry(&mut self, id: usize) {
        let latched = self.tasks[id].latched;
        // The call is taken out while it runs: nothing it does can touch its own task.
        let call = self.tasks[id].call.take();
        match self.attempt(&call.call(), latched) {
            Attempt::Done(reply, position) => self.finish(id, call.shard, reply, position),
            waiting => {
                self.tasks[id].call = call;
                self.wait(id, waiting);
            }
        }
    }

    pub(super) fn finish(&mut self, id: usize, shard: ShardId, reply: Reply, position: u64) {
        let task = self.tasks.remove(id);
        if task.latched {
            self.unlatch(shard, &Holder::Task(id));
        }
        let write = task.call.command.spec.has(flag::WRITE);
        self.deliver(task.line, task.seq, shard, reply, position);
        self.lines.end(task.line, write);
        while let Some((seq, call)) = self.lines.next(task.line) {
            let (shard, write) = (call.shard, call.command.spec.has(flag::WRITE));
            match self.attempt(&call.call(), false) {
                Attempt::Done(reply, position) => {
                    self.lines.end(task.line, write);
                    self.deliver(task.line, seq, shard, reply, position);
                }
                waiting => self.park(task.line, seq, call, waiting),
            }
        }
    }

    /// Gives latches back and goes on with whoever has them now.
    pub(super) fn unlatch(&mut self, shard: ShardId, holder: &Holder) {
        let at = self.at(shard);
        for next in self.shards[at].latches.release(holder) {
            match next {
                Holder::Task(id) => self.latched(id),
                Holder::Gather(gather) => self.granted(gather, shard),
            }
        }
    }

    fn deliver(&mut self, line: LineId, seq: u64, shard: ShardId, reply: Reply, position: u64) {
        if line.conn == super::upkeep::NOBODY {
            return self.note_dropped(&reply);
        }
        if line.conn == super::sweep::SWEEPER {
            return self.swept(seq, shard, reply, position);
        }
        let answer = Answer { conn: line.conn, seq, reply };
        if line.core == self.setting.core {
            self.finished.push(Finished { answer, shard, position });
            return;
        }
        self.send_answerable(line.core, shard, position, Message::Answers(vec![answer]));
    }

    /// A waiting command is to be woken when these keys are written.
    pub fn wait_for(&mut self, line: LineId, shard: ShardId, keys: Vec<(TableId, Bytes)>) {
        let at = self.at(shard);
        self.shards[at].data.waiters.add(line, keys);
        self.outgoing.push((line.core, Message::WaitKnown { conn: line.conn }));
    }

    pub fn wait_on(&mut self, line: LineId, shard: ShardId) {
        let at = self.at(shard);
        self.shards[at].data.waiters.goes_on(line);
    }

    pub fn wait_no_more(&mut self, line: LineId, shard: ShardId) {
        let at = self.at(shard);
        self.shards[at].data.waiters.remove(line);
    }

    /// Something the pool did is finished.
    pub(super) fn completed(&mut self, done: Done) -> Result<(), Fault> {
        match done {
            Done::Warmed { task, result } => match result {
                Ok(()) => {
                    if let Some(missed_at) = self.tasks[task].missed_at.take() {
                        let waited = missed_at.elapsed();
                        self.times.cold_waits.note(waited);
                        self.events.note(Event::ColdRead, waited.as_nanos() as u64, self.clock.now_ms());
                    }
                    self.retry(task);
                }
                Err(error) => {
                    let reply = Reply::Error(ClientError::new(format!("ERR reading failed: {error}")));
                    let shard = self.tasks[task].call.shard;
                    tracing::error!(shard = shard.0, %error, "reading failed");
                    self.finish(task, shard, reply, 0);
                }
            },
            Done::Ran { task, outcome } => self.returned(task, outcome),
            Done::Fetched { gather, shard, result } => self.fetched(gather, shard, result),
            Done::Applied { shard, applied } => self.applied(shard, applied)?,
            Done::Scanned(scanned) => self.scanned(scanned),
            Done::Swept(swept) => self.searched(swept),
            Done::Told { to, message } => self.outgoing.push((to, *message)),
            Done::Upkeep { shard, event } => self.upkeep_event(shard, event)?,
        }
        Ok(())
    }

    fn returned(&mut self, id: usize, outcome: Outcome) {
        self.away_running -= 1;
        self.unread.retain(|(reader, _)| *reader != id);
        let shard_id = self.tasks[id].call.shard;
        let at = self.at(shard_id);
        let max = self.setting.reply_max_bytes;
        let outcome = match outcome.reply {
            Ok(reply) if max > 0 && reply.about_bytes() as u64 > max => {
                let reply = Err(Stop::Client(ClientError::new(format!(
                    "ERR the reply would be longer than reply-max-bytes allows ({max})"
                ))));
                Outcome { reply, effects: SmallVec::new(), large: None, ..outcome }
            }
            _ => outcome,
        };
        self.tasks[id].call = outcome.call;
        let (reply, position) = match (outcome.reply, outcome.large) {
            (Ok(reply), Some(work)) => {
                return self.larges[at].push(Large::new(work, Client::Task { id, reply }));
            }
            (Ok(reply), None) if outcome.effects.is_empty() => (reply, self.shards[at].log.written().0),
            (Ok(reply), None) => {
                if !self.shards[at].accepts_writes() {
                    // The keys stay latched; the command runs again when the gate opens.
                    self.gated[at].push_back(id);
                    return;
                }
                {
                    let origin = self.tasks[id].call.command.origin();
                    (reply, self.shards[at].join(&outcome.effects, origin, self.clock.now_ms()))
                }
            }
            (Err(Stop::Client(error)), _) => (Reply::Error(error), 0),
            (Err(stop), _) => {
                tracing::error!(shard = shard_id.0, ?stop, "a long command failed");
                (Reply::Error(ClientError::new(format!("ERR reading failed: {stop:?}"))), 0)
            }
        };
        self.finish(id, shard_id, reply, position);
    }

    /// Writes may run again on this shard: those who waited go first, in order.
    pub(super) fn gate_opened(&mut self, at: usize) {
        for id in std::mem::take(&mut self.gated[at]) {
            self.retry(id);
        }
        self.run_ready();
        self.steps_gate_opened(at);
    }

    pub(super) fn writers_waiting(&self, at: usize) -> bool {
        !self.gated[at].is_empty() || self.steps.waits(at)
    }

    /// Ends the turn: every shard's log, then its RocksDB; then what may now leave the core.
    pub fn commit(&mut self) -> Result<(), Fault> {
        let now_ms = self.clock.now_ms();
        if !self.unread.is_empty() {
            self.release_readers();
        }
        self.run_ready();
        self.advance_sweeps();
        self.larges_moved = false;
        for at in 0..self.shards.len() {
            self.ask_followers(at);
            self.larges_moved |= self.advance_large(at);
            self.larges_moved |= self.advance_follow(at)?;
            let was_open = self.shards[at].accepts_writes();
            self.shards[at].commit()?;
            self.apply(at)?;
            if !was_open && self.shards[at].accepts_writes() && self.writers_waiting(at) {
                self.gate_opened(at);
                self.shards[at].commit()?;
            }
            self.after_commit(at)?;
            self.lend(at);
            self.log_grown |= self.published.publish(self.shards[at].id, self.shards[at].released(now_ms));
            for line in self.shards[at].data.waiters.take_woken() {
                self.outgoing.push((line.core, Message::Wake { conn: line.conn }));
            }
            self.send_held(at, now_ms);
        }
        self.ticked = false;
        self.end_sweeps(now_ms);
        self.submit_jobs();
        Ok(())
    }

    /// Looks how far followers are, where clients are answered for them.
    fn ask_followers(&mut self, at: usize) {
        let (shard, level) = (&mut self.shards[at], self.setting.consensus_level);
        shard.set_acknowledged((level > 0).then(|| self.published.acknowledged(shard.id, level)));
    }

    /// Nothing in any log can be taken back any more.
    pub fn is_settled(&self) -> bool {
        self.shards.iter().all(|shard| shard.settled.upto() >= shard.log.written_or_pending().0)
    }

    /// A write waits for its gate, an answer or the log for the disk, or RocksDB for what is logged.
    pub fn waits_for_time(&self) -> bool {
        !self.is_quiet()
            || !self.is_settled()
            || !self.shards.iter().all(|shard| shard.data.hot.is_clean())
            || (0..self.shards.len()).any(|at| self.writers_waiting(at))
    }

    /// Nothing waits, runs away, or is on its way: the core may sleep or stop.
    pub fn is_quiet(&self) -> bool {
        self.tasks.is_empty()
            && self.jobs.is_empty()
            && self.sweeps.is_empty()
            && self.larges.iter().all(Larges::is_empty)
            && self.follow.iter().all(super::follow::Follow::is_quiet)
            && self.held.iter().all(super::held::Held::is_empty)
    }
}

pub(super) const DISK_FULL: ClientError =
    ClientError::fixed("ERR no space left on the disk of the log: writes are refused until there is");

fn blocked(shard: &Shard, call: &Call<'_>, write: bool) -> bool {
    key_names(call).iter().any(|(table, name)| shard.latches.blocks(*table, name, write))
}

pub(super) fn key_names(call: &Call<'_>) -> Vec<(TableId, Bytes)> {
    let keys = call.command.spec.keys.of(&call.args).expect("the planner has found the keys before");
    keys.iter()
        .map(|key| (key.table.unwrap_or(call.table), Bytes::copy_from_slice(call.args.get(key.arg))))
        .collect()
}

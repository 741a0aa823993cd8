//! Commands that wait for a key to get something, as their connection's core sees them.
//!
//! Such a command runs; finds nothing; makes itself known to the shards of its keys; runs again, for something
//! may have come meanwhile; and from then on runs once more whenever a shard wakes it, until it finds
//! something or its time is over. What it finds it takes like any other client.

use super::coordinate::Owed;
use super::serve::Core;
use crate::command::flag;
use crate::error::ClientError;
use crate::front::assigned::Verdict;
use crate::front::gather::Gather;
use crate::front::node::SlotMap;
use crate::front::route::{self, Route};
use crate::resp::encode::Protocol;
use crate::resp::reply::{Blocked, Reply};
use crate::shard::mesh::{Answer, Calls, LineId, Message, OwnedCall};
use crate::slot::{ShardId, TableId};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::time::Instant;

const NOW_A_REPLICA: ClientError = ClientError::fixed(
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
);

/// What a waiting command does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It runs for the first time.
    First,
    /// So many shards have not said yet that they know it.
    Announcing(usize),
    /// It runs again; `woken`: something has come since it began.
    Again {
        woken: bool,
    },
    Sleeping,
    /// It is to run, as soon as its slot may be served.
    Held,
}

/// A command that waits, or may have to.
pub struct Wait {
    owed: Owed,
    protocol: Protocol,
    call: OwnedCall,
    phase: Phase,
    /// Milliseconds since the epoch; None: for ever.
    until_ms: Option<u64>,
    /// What it is answered when its time is over.
    otherwise: Reply,
    /// The arguments that are keys it waits for, and the shards that know it.
    keys: Vec<usize>,
    shards: Vec<ShardId>,
    /// It has found nothing since the shards know it: it counts as blocked.
    blocked: bool,
    /// It runs, and other shards than those must know it: some of its slots have moved.
    moved: bool,
    /// One of its keys was written while writes were held.
    held: bool,
    /// Its client is gone, or it was told to stop: it ends at the next chance.
    ending: bool,
    began: Instant,
}

/// Commands that wait, by connection.
pub type Waits = FxHashMap<u64, Wait>;

impl Core {
    /// Begins a command that may have to wait.
    pub fn begin_waiting(&mut self, place: usize, owed: Owed, call: OwnedCall) {
        let wait = Wait {
            owed,
            protocol: self.connections[place].session.protocol,
            call,
            phase: Phase::First,
            until_ms: None,
            otherwise: Reply::NilArray,
            keys: Vec::new(),
            shards: Vec::new(),
            blocked: false,
            moved: false,
            held: false,
            ending: false,
            began: Instant::now(),
        };
        self.waits.insert(owed.conn(), wait);
        self.attempt_waiting(owed.conn());
    }

    fn attempt_waiting(&mut self, conn: u64) {
        let wait = self.waits.get_mut(&conn).expect("it waits until it is answered");
        wait.began = Instant::now();
        let owed = wait.owed;
        let Some(place) = self.place_of(conn) else { return self.settle(owed, Reply::Silent) };
        let wait = &self.waits[&conn];
        let borrowed = wait.call.call();
        match self.verdict(place, &borrowed) {
            Verdict::Serve => {}
            Verdict::Hold => {
                self.waits.get_mut(&conn).expect("looked above").phase = Phase::Held;
                return;
            }
            Verdict::Refuse(error) => return self.settle(owed, Reply::Error(error)),
        }
        match route::route(
            &self.node.map,
            self.owner.hash_of(borrowed.table),
            &borrowed.command.spec,
            &borrowed.args,
        ) {
            Err(error) => self.settle(owed, Reply::Error(error)),
            Ok(Route::One(shard)) => {
                let call = crate::shard::mesh::Call { shard, ..borrowed };
                let line = LineId { core: self.node.core, conn };
                let mut calls = Calls::new(line);
                calls.push(&call, owed.seq());
                self.outbox.push((self.node.map.owner(shard), Message::Calls(calls)));
            }
            Ok(Route::Table) => unreachable!("no command that waits reads keys it does not name"),
            Ok(Route::Several(keys)) => {
                let call = borrowed.to_owned();
                let protocol = wait.protocol;
                self.gather_owed(owed, |id, around| Gather::command(id, call, &keys, protocol, around));
            }
        }
    }

    /// When a command that waited ran for the last time.
    pub fn ran_last(&self, answer: &Answer) -> Option<Instant> {
        let wait = self.waits.get(&answer.conn).filter(|wait| wait.owed.seq() == answer.seq);
        wait.map(|wait| wait.began)
    }

    /// The reply to a connection's command, unless the command has to wait on.
    pub fn unless_waiting(&mut self, answer: Answer) -> Option<Answer> {
        let Some(wait) = self.waits.get_mut(&answer.conn) else { return Some(answer) };
        if wait.owed.seq() != answer.seq {
            return Some(answer);
        }
        let Reply::Blocked(blocked) = answer.reply else {
            self.forget_wait(answer.conn);
            return Some(answer);
        };
        if wait.ending {
            let (conn, seq, reply) = (answer.conn, answer.seq, wait.otherwise.clone());
            self.forget_wait(conn);
            return Some(Answer { conn, seq, reply });
        }
        match wait.phase {
            Phase::First => self.announce(answer.conn, *blocked),
            _ if wait.moved => self.announce_again(answer.conn),
            Phase::Again { woken: true } => {
                wait.phase = Phase::Again { woken: false };
                self.go_on_waiting(answer.conn);
                self.attempt_waiting(answer.conn);
            }
            _ => {
                (wait.phase, wait.blocked) = (Phase::Sleeping, true);
                self.go_on_waiting(answer.conn);
            }
        }
        None
    }

    /// Makes a command known to the shards of the keys it waits for.
    fn announce(&mut self, conn: u64, blocked: Blocked) {
        let now_ms = self.owner.clock.now_ms();
        let wait = self.waits.get_mut(&conn).expect("it is being answered");
        wait.until_ms = (blocked.timeout_ms > 0).then(|| now_ms.saturating_add(blocked.timeout_ms));
        wait.otherwise = blocked.otherwise;
        if !blocked.rewritten.is_empty() {
            wait.call = wait.call.with(&blocked.rewritten);
        }
        wait.keys = blocked.keys;
        let count = self.make_known(conn);
        self.set_phase(conn, Phase::Announcing(count));
    }

    /// Tells the shards of the keys that a command waits for; how many.
    fn make_known(&mut self, conn: u64) -> usize {
        let line = LineId { core: self.node.core, conn };
        let wait = self.waits.get_mut(&conn).expect("it waits until it is answered");
        let (args, hash) = (wait.call.call().args, self.owner.hash_of(wait.call.table));
        let mut by_shard: BTreeMap<ShardId, Vec<(TableId, Bytes)>> = BTreeMap::new();
        for &key in &wait.keys {
            let name = args.get(key);
            let shard = route::shard_of(&self.node.map, hash, name);
            by_shard.entry(shard).or_default().push((wait.call.table, Bytes::copy_from_slice(name)));
        }
        wait.shards = by_shard.keys().copied().collect();
        let count = by_shard.len();
        for (shard, keys) in by_shard {
            self.outbox.push((self.node.map.owner(shard), Message::WaitFor { line, shard, keys }));
        }
        count
    }

    fn set_phase(&mut self, conn: u64, phase: Phase) {
        self.waits.get_mut(&conn).expect("it waits until it is answered").phase = phase;
    }

    /// Slots have moved between shards: those who wait for keys in them make themselves known where these are now, and
    /// run again then. One that runs at this moment does so when it comes back with nothing.
    pub fn announce_moved(&mut self, before: &SlotMap) {
        let (owner, now) = (&self.owner, &self.node.map);
        let has_moved = |wait: &&mut Wait| {
            let (args, hash) = (wait.call.call().args, owner.hash_of(wait.call.table));
            let mut slots = wait.keys.iter().map(|key| hash.slot_of(args.get(*key)));
            slots.any(|slot| before.shard_of(slot) != now.shard_of(slot))
        };
        for wait in self.waits.values_mut() {
            wait.moved |= has_moved(&wait);
        }
        let waits = self.waits.iter().filter(|(_, wait)| wait.moved);
        let asleep = waits.filter(|(_, wait)| !matches!(wait.phase, Phase::First | Phase::Again { .. }));
        let asleep: Vec<u64> = asleep.map(|(conn, _)| *conn).collect();
        asleep.into_iter().for_each(|conn| self.announce_again(conn));
    }

    fn announce_again(&mut self, conn: u64) {
        self.tell_shards(conn, |line, shard| Message::WaitNoMore { line, shard });
        let count = self.make_known(conn);
        let wait = self.waits.get_mut(&conn).expect("it waits until it is answered");
        // The shards that were told before answer too.
        let before = if let Phase::Announcing(outstanding) = wait.phase { outstanding } else { 0 };
        (wait.phase, wait.moved) = (Phase::Announcing(before + count), false);
    }

    /// A shard knows it now.
    pub fn wait_known(&mut self, conn: u64) {
        let Some(wait) = self.waits.get_mut(&conn) else { return };
        let Phase::Announcing(outstanding) = &mut wait.phase else { return };
        *outstanding -= 1;
        if *outstanding == 0 {
            wait.phase = Phase::Again { woken: false };
            self.attempt_waiting(conn);
        }
    }

    /// One of its keys has been written.
    pub fn wake(&mut self, conn: u64) {
        self.end_waits_to_write();
        let Some(wait) = self.waits.get_mut(&conn) else { return };
        match &mut wait.phase {
            Phase::Sleeping if self.holding.holds(&wait.call.command.spec) => wait.held = true,
            Phase::Sleeping => {
                wait.phase = Phase::Again { woken: false };
                self.attempt_waiting(conn);
            }
            Phase::Again { woken } => *woken = true,
            // It runs again anyway.
            Phase::First | Phase::Announcing(_) | Phase::Held => {}
        }
    }

    /// Wakes those that would have been while writes were held.
    pub fn wake_held(&mut self) {
        let held: Vec<u64> = self
            .waits
            .iter_mut()
            .filter_map(|(conn, wait)| std::mem::take(&mut wait.held).then_some(*conn))
            .collect();
        held.into_iter().for_each(|conn| self.wake(conn));
    }

    /// Whether this connection's command changes nothing before it is woken.
    pub fn sleeps(&self, conn: u64) -> bool {
        self.waits.get(&conn).is_some_and(|wait| wait.phase == Phase::Sleeping)
    }

    /// Whether this connection's command waits in the eyes of others: one that may still find what is there does not.
    pub fn is_blocked(&self, conn: u64) -> bool {
        self.waits.get(&conn).is_some_and(|wait| wait.blocked)
    }

    /// How many do.
    pub fn blocked_count(&self) -> usize {
        self.waits.values().filter(|wait| wait.blocked).count()
    }

    fn go_on_waiting(&mut self, conn: u64) {
        self.tell_shards(conn, |line, shard| Message::WaitOn { line, shard });
    }

    /// Takes a command off the books here and at the shards.
    fn forget_wait(&mut self, conn: u64) -> Option<Wait> {
        self.tell_shards(conn, |line, shard| Message::WaitNoMore { line, shard });
        self.waits.remove(&conn)
    }

    fn tell_shards(&mut self, conn: u64, message: impl Fn(LineId, ShardId) -> Message) {
        let line = LineId { core: self.node.core, conn };
        let shards = self.waits.get(&conn).map_or(&[][..], |wait| &wait.shards);
        for shard in shards {
            self.outbox.push((self.node.map.owner(*shard), message(line, *shard)));
        }
    }

    /// Ends a command that waits, if one does: with this reply, or as if its time were over. One that runs at
    /// this moment ends when it comes back with nothing. True if there was one.
    pub fn end_wait(&mut self, conn: u64, reply: Option<Reply>) -> bool {
        let Some(wait) = self.waits.get_mut(&conn) else { return false };
        if let Some(reply) = reply {
            wait.otherwise = reply;
        }
        if matches!(wait.phase, Phase::First | Phase::Again { .. }) {
            wait.ending = true;
            return true;
        }
        let wait = self.forget_wait(conn).expect("looked above");
        self.settle(wait.owed, wait.otherwise);
        true
    }

    /// On a node that follows another nothing is taken any more: those who wait for it are told.
    pub fn end_waits_to_write(&mut self) {
        if self.waits.is_empty() || !self.owner.published.follows() {
            return;
        }
        let writes = |wait: &Wait| wait.call.command.spec.has(flag::WRITE);
        let writing: Vec<u64> =
            self.waits.iter().filter(|(_, wait)| writes(wait)).map(|(conn, _)| *conn).collect();
        for conn in writing {
            self.end_wait(conn, Some(Reply::Error(NOW_A_REPLICA)));
        }
    }

    /// The node has other slots than before: those who wait for keys of slots that are not served here any more are
    /// told, and those who waited for the change go on.
    pub fn judge_waits(&mut self) {
        let all: Vec<u64> = self.waits.keys().copied().collect();
        for conn in all {
            let wait = &self.waits[&conn];
            // One whose client is gone ends by itself.
            let Some(place) = self.place_of(conn) else { continue };
            let verdict = self.verdict(place, &wait.call.call());
            match (verdict, wait.phase) {
                (Verdict::Refuse(error), _) => drop(self.end_wait(conn, Some(Reply::Error(error)))),
                (Verdict::Serve, Phase::Held) => {
                    self.waits.get_mut(&conn).expect("looked above").phase = Phase::Again { woken: false };
                    self.attempt_waiting(conn);
                }
                _ => {}
            }
        }
    }

    /// Ends those whose time is over.
    pub fn end_late_waits(&mut self, now_ms: u64) {
        if self.waits.is_empty() {
            return;
        }
        let late = |wait: &Wait| wait.until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        let late: Vec<u64> =
            self.waits.iter().filter(|(_, wait)| late(wait)).map(|(conn, _)| *conn).collect();
        for conn in late {
            self.end_wait(conn, None);
        }
    }

    /// CLIENT UNBLOCK, for a client of this core; true if it waited.
    pub fn unblock(&mut self, client: u64, error: bool) -> bool {
        let unblocked = || ClientError::fixed("UNBLOCKED client unblocked via CLIENT UNBLOCK");
        let conn = self.connections.iter().find(|(_, connection)| connection.session.id == client);
        let conn = conn.map(|(_, connection)| connection.id);
        conn.is_some_and(|conn| {
            self.sleeps(conn) && self.end_wait(conn, error.then(|| Reply::Error(unblocked())))
        })
    }
}

//! One shard's log on its way to one follower: what is read, held back, sent and acknowledged.
//!
//! Must not know how the other shards stand, nor what the follower had before.

use super::parting::Parted;
use super::plan::CatchUp;
use super::position::SlotName;
use super::primary::{Lag, Logged};
use super::wire::Record;
use crate::binlog::{Lsn, Txn};
use crate::limits::REPLICA_COPY_AHEAD;
use crate::shard::mesh::SlotPosition;
use crate::slot::ShardId;
use crate::slot::placement::Placement;
use crate::slot::set::{self, TableSlots};
use crate::store::effects::{Origin, origin};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is sent is remembered in steps of so many bytes: an acknowledgement within one frees it with its last.
const STEP_BYTES: u64 = 64 << 10;
/// What a record costs on the wire beside touches and body, about.
const RECORD_BYTES: usize = 32;
const TOUCH_BYTES: usize = 20;

/// How far the stream is.
pub(super) enum Phase {
    /// The shard's owner has been asked for its positions.
    Asked,
    /// The log is looked through, or will be (`asked`); the owner has said this.
    Locating {
        positions: Vec<SlotPosition>,
        upto: Lsn,
        asked: bool,
    },
    Copying(CopyOut),
    Flowing,
}

/// A copy under way.
pub(super) struct CopyOut {
    pub slots: Vec<SlotName>,
    /// Where the snapshot stands; None: not taken yet.
    pub upto: Option<Lsn>,
    /// Chunks sent and acknowledged.
    sent: u64,
    acknowledged: u64,
    asked: bool,
}

impl CopyOut {
    pub fn new(slots: Vec<SlotName>) -> CopyOut {
        CopyOut { slots, upto: None, sent: 0, acknowledged: 0, asked: false }
    }

    pub fn note_chunk(&mut self) {
        (self.sent, self.asked) = (self.sent + 1, false);
    }

    /// False if so many have not been sent.
    pub fn acknowledge(&mut self, chunks: u64) -> bool {
        let right = self.acknowledged <= chunks && chunks <= self.sent;
        self.acknowledged = self.acknowledged.max(chunks);
        right
    }

    /// Whether to read on; if so, that counts as done.
    pub fn ask(&mut self) -> bool {
        let ask = self.upto.is_some() && !self.asked && self.sent - self.acknowledged < REPLICA_COPY_AHEAD;
        self.asked |= ask;
        ask
    }
}

/// What became of the next record that was read.
pub(super) enum Next {
    Send(Record),
    /// The follower lacks nothing of it.
    Passed,
    /// It must wait: for an acknowledgement, or for the record it is a part of.
    Held,
    Nothing,
}

pub(super) struct Stream {
    pub shard: ShardId,
    /// A slot's records of which some stand in another shard's log are sent from the one that it lies on.
    placement: Placement,
    /// Nothing of other slots is sent; None: of all.
    slots: Option<Arc<TableSlots>>,
    pub phase: Phase,
    /// Records before this one have been sent, or need not be.
    pub next: Lsn,
    pub published: Lsn,
    /// The follower may yet need the log from here on.
    pub keep_from: Lsn,
    /// What was said of that last.
    pub kept_from: Lsn,
    pub catch_up: Option<Box<CatchUp>>,
    /// Slots have parted: records are read to find out of which others that is so too, and none is sent.
    pub silent: bool,
    /// A read has been asked for and has not ended.
    reading: bool,
    held: VecDeque<Logged>,
    /// The read that brought them has ended here.
    held_upto: Option<Lsn>,
    /// What the follower has been told of: it may acknowledge that.
    told: Lsn,
    /// Steps sent and not acknowledged: the last LSN and the bytes of each.
    unacknowledged: VecDeque<(Lsn, u64)>,
    unacknowledged_bytes: u64,
    applied: Lsn,
    durable: Lsn,
    /// Since when something published is not acknowledged.
    behind_since_ms: Option<u64>,
}

impl Stream {
    pub fn new(shard: ShardId, placement: Placement) -> Stream {
        Stream {
            shard,
            placement,
            slots: None,
            phase: Phase::Asked,
            next: Lsn::ZERO,
            published: Lsn::ZERO,
            keep_from: Lsn::ZERO,
            kept_from: Lsn::ZERO,
            catch_up: None,
            silent: false,
            reading: false,
            held: VecDeque::new(),
            held_upto: None,
            told: Lsn::ZERO,
            unacknowledged: VecDeque::new(),
            unacknowledged_bytes: 0,
            applied: Lsn::ZERO,
            durable: Lsn::ZERO,
            behind_since_ms: None,
        }
    }

    pub fn only(&mut self, slots: Arc<TableSlots>) {
        self.slots = Some(slots);
    }

    pub fn is_flowing(&self) -> bool {
        matches!(self.phase, Phase::Flowing)
    }

    /// Whether everything up to this record has been sent, or need not be.
    pub fn is_past(&self, lsn: Lsn) -> bool {
        self.is_flowing() && !self.silent && self.next > lsn
    }

    /// Records are sent from here on, unless it is silent. The slots that have parted, if all are known by now.
    pub fn flow_from(&mut self, next: Lsn) -> Result<(), Vec<Parted>> {
        self.phase = Phase::Flowing;
        (self.next, self.told) = (next, next.before());
        // Where nothing is missing no record comes that would end it.
        if let Some(catch_up) = &self.catch_up
            && catch_up.passed(next.before())?
        {
            self.catch_up = None;
        }
        Ok(())
    }

    /// The record the next read begins with, if it is time to read; that counts as asked.
    pub fn ask_read(&mut self, window_bytes: u64) -> Option<Lsn> {
        let ask = self.is_flowing()
            && !self.reading
            && self.held.is_empty()
            && self.next <= self.published
            && self.unacknowledged_bytes < window_bytes;
        self.reading |= ask;
        ask.then_some(self.next)
    }

    pub fn hold(&mut self, record: Logged) {
        self.held.push_back(record);
    }

    pub fn hold_end(&mut self, upto: Lsn) {
        self.held_upto = Some(upto);
    }

    /// The whole that the next record is a part of.
    pub fn next_waits_for(&self) -> Option<(ShardId, Lsn)> {
        match self.held.front()?.txn {
            _ if self.silent => None,
            // A transaction's home is its lowest shard: streams never wait for each other in a circle.
            Some(Txn::Part { home, home_lsn, .. }) if home < self.shard => Some((home, Lsn(home_lsn))),
            _ => None,
        }
    }

    pub fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Moves on by one record.
    pub fn step(&mut self, window_bytes: u64) -> Result<Next, Vec<Parted>> {
        let Some(front) = self.held.front() else { return Ok(Next::Nothing) };
        let bytes = (RECORD_BYTES + front.touches.len() * TOUCH_BYTES + front.body.len()) as u64;
        if self.unacknowledged_bytes > 0 && self.unacknowledged_bytes + bytes > window_bytes {
            return Ok(Next::Held);
        }
        let Some(Logged { lsn, time_ms, mut touches, txn, body }) = self.held.pop_front() else {
            return Ok(Next::Nothing);
        };
        self.next = lsn.next();
        let copied = origin(&body) == Some(Origin::COPY);
        let all = touches.len();
        touches.retain(|touch| self.placement.shard_of(touch.slot) == self.shard);
        if let Some(slots) = &self.slots {
            touches.retain(|touch| set::holds(slots, touch.table, touch.slot));
        }
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.keep_lacking(lsn, &mut touches, copied);
            if catch_up.passed(lsn)? {
                self.catch_up = None;
            }
        } else if copied && !touches.is_empty() {
            return Err(touches.iter().map(|touch| ((touch.table, touch.slot), None)).collect());
        }
        if touches.is_empty() || self.silent {
            return Ok(Next::Passed);
        }
        let exact = touches.len() == all && !matches!(txn, Some(Txn::Whole { .. }));
        self.note_sent(lsn, bytes);
        Ok(Next::Send(Record { stream: self.shard, lsn, time_ms, touches, exact, body }))
    }

    /// The read has ended and all it brought has been dealt with: where the follower has everything now, if it
    /// has not been told.
    pub fn end_read(&mut self) -> Result<Option<Lsn>, Vec<Parted>> {
        let Some(upto) = self.held_upto.take_if(|_| self.held.is_empty()) else { return Ok(None) };
        self.reading = false;
        self.next = self.next.max(upto.next());
        if let Some(catch_up) = &self.catch_up
            && catch_up.passed(upto)?
        {
            self.catch_up = None;
        }
        let news = upto > self.told && !self.silent;
        self.told = self.told.max(upto);
        Ok(news.then_some(upto))
    }

    fn note_sent(&mut self, lsn: Lsn, bytes: u64) {
        self.told = lsn;
        self.unacknowledged_bytes += bytes;
        match self.unacknowledged.back_mut() {
            Some((last, step)) if *step < STEP_BYTES => (*last, *step) = (lsn, *step + bytes),
            _ => self.unacknowledged.push_back((lsn, bytes)),
        }
    }

    /// False if the follower cannot have this.
    pub fn acknowledge(&mut self, applied: Lsn, durable: Lsn, now_ms: u64) -> bool {
        if !self.is_flowing()
            || applied > self.told
            || durable > applied
            || applied < self.applied
            || durable < self.durable
        {
            return false;
        }
        (self.applied, self.durable) = (applied, durable);
        while let Some((_, bytes)) = self.unacknowledged.front().filter(|(last, _)| *last <= applied).copied()
        {
            self.unacknowledged.pop_front();
            self.unacknowledged_bytes -= bytes;
        }
        self.keep_from = self.keep_from.max(durable.next());
        self.behind_since_ms = None;
        self.note_behind(now_ms);
        true
    }

    /// Followers may have the log up to here.
    pub fn publish(&mut self, lsn: Lsn, now_ms: u64) {
        self.published = self.published.max(lsn);
        self.note_behind(now_ms);
    }

    fn note_behind(&mut self, now_ms: u64) {
        if self.applied < self.published {
            self.behind_since_ms.get_or_insert(now_ms);
        }
    }

    pub fn lag(&self, now_ms: u64) -> Lag {
        // While it catches up a slot may turn out to be another: then it had not what was passed over.
        let counts = self.catch_up.is_none();
        let (applied, durable) = if counts { (self.applied, self.durable) } else { (Lsn::ZERO, Lsn::ZERO) };
        Lag {
            applied,
            durable,
            records: self.published.0.saturating_sub(self.applied.0),
            bytes: self.unacknowledged_bytes,
            ms: self.behind_since_ms.map_or(0, |since| now_ms.saturating_sub(since)),
        }
    }
}

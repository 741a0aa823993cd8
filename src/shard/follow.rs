//! A shard's side of replication: records of a primary logged and shown, slots copied in and lent out.
//!
//! What the replication thread sends is done in order, as the gates for writes allow. It has checked that
//! records follow each other; here that is asserted against the slot table. Knows no socket and no peer.

use super::data::Data;
use super::intake::{DueOf, Intake};
use super::jobs::Needs;
use super::large::Large;
use super::mesh::{Asker, LentShard, LogEnd, Message, Portion, Replicate, Replicated, SlotPosition};
use super::owner::Owner;
use super::shard::Shard;
use super::slots::{NONE, SlotState};
use super::upkeep::Event;
use super::work::{Done, Reading};
use crate::binlog::{FrameMeta, next_term};
use crate::error::Fault;
use crate::limits::{COMMIT_OPS_MAX, COMMIT_PIECE_BYTES};
use crate::slot::{ShardId, Slot, TableId};
use crate::store::effects::{Adopted, BodyReader, BodyWriter, Operation, Origin, SlotWide};
use crate::store::{Entry, Files, Incarnation, NotTaken, Piece};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// What one turn takes of a primary's records and of copies, bytes: about what a turn of clients writes.
const TAKEN_PER_TURN_BYTES: usize = 128 << 10;

/// What the replication thread has asked of one shard and not been answered.
#[derive(Default)]
pub(super) struct Follow {
    queue: VecDeque<(Asker, Replicate)>,
    /// Slots on their way in, shown to nobody.
    copying: FxHashMap<(TableId, Slot), Copying>,
    pub(super) intake: Intake,
    /// Slots that are whole here and become visible once files hold them.
    adopting: Option<Adopting>,
    /// Who wants to read the shard; whether what is hidden in it.
    lend: Vec<(Asker, bool)>,
    /// The last record of each stream that this turn has logged, for one answer to all of them.
    appended: Vec<(Asker, ShardId, u64, u64)>,
}

struct Copying {
    /// The link that copies it.
    by: u64,
    incarnation: Incarnation,
    rows: u64,
    /// Why files do not hold what has come.
    broken: Option<String>,
}

struct Adopting {
    from: Asker,
    slots: Vec<SlotPosition>,
    /// The seal that hands the last files over; None: they are not made yet.
    seal: Option<u64>,
}

impl Follow {
    pub fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.adopting.is_none() && self.lend.is_empty() && !self.intake.has_due()
    }

    /// The next step begins with a RocksDB that has all that is logged.
    pub(super) fn wants_applied(&self) -> bool {
        !self.lend.is_empty() || self.intake.has_due()
    }
}

impl Owner {
    /// Takes what the replication thread asks of a shard of this core.
    pub fn replicate(&mut self, from: Asker, shard: ShardId, what: Replicate) {
        let at = self.at(shard);
        match what {
            Replicate::HoldLog(lsn) => {
                self.shards[at].log.hold_for_readers(lsn.map(crate::binlog::Lsn));
            }
            what => self.follow[at].queue.push_back((from, what)),
        }
    }

    /// One turn's share of what waits for a shard; true if there was something to do.
    pub(super) fn advance_follow(&mut self, at: usize) -> Result<bool, Fault> {
        if self.follow[at].is_quiet() {
            return Ok(false);
        }
        self.advance_intake(at)?;
        self.finish_adopting(at);
        let (mut moved, mut room) = (false, TAKEN_PER_TURN_BYTES);
        while room > 0
            && self.follow[at].adopting.is_none()
            && self.larges[at].is_empty()
            && let Some((from, what)) = self.follow[at].queue.pop_front()
        {
            let left = match what {
                Replicate::Append(portions) => self.append(at, from, portions, &mut room),
                Replicate::Copy { table, slot, entries } => self.copy_in(at, from, table, slot, entries),
                Replicate::Rewind(portion) => self.rewind(at, from, portion, &mut room),
                other => {
                    self.at_once(at, from, other);
                    None
                }
            };
            moved |= room < TAKEN_PER_TURN_BYTES || left.is_none();
            if let Some(left) = left {
                self.follow[at].queue.push_front((from, left));
                break;
            }
        }
        self.answer_appended(at);
        Ok(moved)
    }

    /// Does what needs no room and no gate.
    fn at_once(&mut self, at: usize, from: Asker, what: Replicate) {
        match what {
            Replicate::Adopt(slots) => {
                self.follow[at].adopting = Some(Adopting { from, slots, seal: None });
            }
            Replicate::Abandon => {
                let by = |_: &(TableId, Slot), copying: &mut Copying| copying.by == from.ticket;
                let Follow { copying, intake, .. } = &mut self.follow[at];
                for (_, copying) in copying.extract_if(by) {
                    intake.forget(copying.incarnation);
                    self.shards[at].data.slots.add_garbage(copying.incarnation);
                }
            }
            Replicate::State => {
                let positions = positions(&self.shards[at].data);
                let upto = self.shards[at].log.written_or_pending().0;
                self.answer_follow(at, from, Replicated::State { positions, upto });
            }
            Replicate::Hidden => {
                let positions = self.shards[at].data.slots.hidden().map(position).collect();
                let upto = self.shards[at].log.written_or_pending().0;
                self.answer_follow(at, from, Replicated::State { positions, upto });
            }
            Replicate::Lend { hidden } => self.follow[at].lend.push((from, hidden)),
            Replicate::BeginTerm => {
                self.begin_term(at);
                self.answer_follow(at, from, Replicated::TermBegun);
            }
            Replicate::HoldLog(_) | Replicate::Append(_) | Replicate::Rewind(_) | Replicate::Copy { .. } => {
                unreachable!("these have their own ways")
            }
        }
    }

    /// Logs and shows records as long as there is room; what is left of them.
    fn append(
        &mut self,
        at: usize,
        from: Asker,
        portions: Vec<Portion>,
        room: &mut usize,
    ) -> Option<Replicate> {
        let mut rest = VecDeque::from(portions);
        while *room > 0
            && self.larges[at].is_empty()
            && self.may_append(at)
            && let Some(portion) = rest.pop_front()
        {
            *room = room.saturating_sub(portion.body.len() + 1);
            if let Err(why) = self.append_portion(at, from, portion) {
                self.answer_appended(at);
                self.answer_follow(at, from, Replicated::Refused(why));
                return None;
            }
        }
        (!rest.is_empty()).then(|| Replicate::Append(rest.into()))
    }

    /// Logs and shows one record, wherever its slots stand; gives it back when that cannot be now.
    fn rewind(&mut self, at: usize, from: Asker, portion: Portion, room: &mut usize) -> Option<Replicate> {
        if !self.may_append(at) {
            return Some(Replicate::Rewind(portion));
        }
        *room = room.saturating_sub(portion.body.len() + 1);
        // Each is answered by itself: no other record's answer stands for it.
        self.answer_appended(at);
        match self.log_portion(at, from, portion) {
            Ok(()) => self.answer_appended(at),
            Err(why) => self.answer_follow(at, from, Replicated::Refused(why)),
        }
        None
    }

    /// After a commit: a shard can be lent when RocksDB has all that is logged.
    pub(super) fn lend(&mut self, at: usize) {
        let shard = &self.shards[at];
        let whole = shard.data.hot.is_clean()
            && !shard.data.is_stalled()
            && shard.data.applied_before.is_none()
            && self.larges[at].is_empty()
            && !shard.log.has_pending();
        if self.follow[at].lend.is_empty() || !whole {
            return;
        }
        for (to, hidden) in std::mem::take(&mut self.follow[at].lend) {
            let data = &self.shards[at].data;
            let of: Vec<_> =
                if hidden { data.slots.hidden().collect() } else { data.slots.positions().collect() };
            let with_data = of.iter().filter(|(.., state)| state.incarnation != NONE);
            let lent = LentShard {
                reader: data.store.reader(),
                slots: with_data.map(|of| (position(*of), of.2.incarnation)).collect(),
                positions: of.iter().map(|of| position(*of)).collect(),
                upto: self.shards[at].log.written().0,
                reading: Reading::begin(&self.reading),
            };
            self.answer_follow(at, to, Replicated::Lent(Box::new(lent)));
        }
    }

    fn may_append(&self, at: usize) -> bool {
        self.shards[at].accepts_writes() && self.shards[at].log.has_room()
    }

    fn append_portion(&mut self, at: usize, from: Asker, portion: Portion) -> Result<(), String> {
        let shard = &self.shards[at];
        for touch in &portion.touches {
            let next = shard.data.slots.get(touch.table, touch.slot).next_index;
            if next != touch.index {
                return Err(format!(
                    "record {} of slot {} of table {} has come where {next} is the next",
                    touch.index, touch.slot.0, touch.table.0
                ));
            }
        }
        self.log_portion(at, from, portion)
    }

    fn log_portion(&mut self, at: usize, from: Asker, portion: Portion) -> Result<(), String> {
        let shard = &mut self.shards[at];
        let (stream, lsn) = (portion.stream, portion.lsn);
        if portion.operations > COMMIT_OPS_MAX || portion.body.len() > COMMIT_PIECE_BYTES {
            self.larges[at].push(Large::of_portion(portion, from));
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let operations: Result<Vec<Operation>, _> =
            BodyReader::new(portion.body.clone()).and_then(Iterator::collect);
        let operations = operations.map_err(|error| error.to_string())?;
        let meta = FrameMeta { touches: &portion.touches, txn: None };
        let own = shard.log.append(&meta, now_ms, &[&portion.body]).0;
        shard.data.follow(&portion.touches);
        for operation in &operations {
            shard.data.show_operation(operation, own, now_ms);
        }
        let appended = &mut self.follow[at].appended;
        appended.retain(|(asker, of, ..)| (*asker, *of) != (from, stream));
        appended.push((from, stream, lsn, own));
        Ok(())
    }

    /// Answers for all that this turn has logged.
    fn answer_appended(&mut self, at: usize) {
        for (from, stream, lsn, own) in std::mem::take(&mut self.follow[at].appended) {
            self.appended(at, from, stream, lsn, own);
        }
    }

    /// Says so once the policy lets an answer leave that depends on it.
    pub(super) fn appended(&mut self, at: usize, from: Asker, stream: ShardId, lsn: u64, own: u64) {
        let shard = self.shards[at].id;
        let what = Replicated::Appended { stream, lsn, own };
        self.send_released(from.core, shard, own, Message::Replicated { ticket: from.ticket, shard, what });
    }

    /// Keeps entries of a slot that is being copied; gives them back when there is no room for them now.
    fn copy_in(
        &mut self,
        at: usize,
        from: Asker,
        table: TableId,
        slot: Slot,
        entries: Vec<Entry>,
    ) -> Option<Replicate> {
        let Follow { copying, intake, .. } = &mut self.follow[at];
        if !intake.has_room(self.upkeep[at].copied_file_bytes()) {
            return Some(Replicate::Copy { table, slot, entries });
        }
        let slots = &mut self.shards[at].data.slots;
        let copying = copying.entry((table, slot)).or_insert_with(|| Copying {
            by: from.ticket,
            incarnation: slots.reserve(),
            rows: 0,
            broken: None,
        });
        let what = match &copying.broken {
            Some(why) => Replicated::Refused(why.clone()),
            None => {
                copying.rows += entries.iter().filter(|entry| !entry.element).count() as u64;
                let room = |entry: &Entry| entry.key.len() + entry.value.len() + size_of::<Entry>();
                let bytes = entries.iter().map(room).sum();
                intake.take(Piece { incarnation: copying.incarnation, entries }, bytes);
                Replicated::Copied
            }
        };
        self.answer_follow(at, from, what);
        None
    }

    /// Has files made of what was copied in, and writes what belongs beside them.
    fn advance_intake(&mut self, at: usize) -> Result<(), Fault> {
        let Follow { adopting, intake, .. } = &mut self.follow[at];
        let file_bytes = self.upkeep[at].copied_file_bytes();
        if self.upkeep[at].may_make_files()
            && let Some((number, pieces)) = intake.begin(file_bytes, adopting.is_some())
        {
            let job = self.shards[at].data.store.intake_job(number, pieces);
            let run = move || Done::Upkeep { shard: at, event: Event::FilesMade(job.run()) };
            self.jobs.push_back((Needs::Nothing, Box::new(run)));
        }
        if self.follow[at].intake.has_due() && self.may_append(at) && self.shards[at].data.hot.is_clean() {
            let due: Vec<DueOf> = self.follow[at].intake.take_due().collect();
            let shard = &mut self.shards[at];
            shard.data.note_due(&due, shard.log.written().0)?;
        }
        Ok(())
    }

    pub(super) fn files_made(&mut self, at: usize, made: Result<Files, NotTaken>) {
        if let Err(not_taken) = self.follow[at].intake.made(made) {
            self.not_taken(at, not_taken);
        }
    }

    /// The copies that were in these files have to begin anew.
    pub(super) fn not_taken(&mut self, at: usize, not_taken: NotTaken) {
        let NotTaken { incarnations, why } = not_taken;
        let why = format!("what was copied could not be written: {why}");
        tracing::warn!(shard = self.shards[at].id.0, why, "a copy has to begin anew");
        let copying = self.follow[at].copying.values_mut();
        let broken = copying.filter(|copying| incarnations.contains(&copying.incarnation));
        broken.for_each(|copying| copying.broken = Some(why.clone()));
    }

    /// Files hold what was copied: its slots become visible.
    fn finish_adopting(&mut self, at: usize) {
        let Follow { adopting, intake, .. } = &mut self.follow[at];
        let Some(waiting) = adopting else { return };
        if waiting.seal.is_none() && intake.is_ready() {
            waiting.seal = Some(self.upkeep[at].seal_now());
        }
        let persisted = self.upkeep[at].seals_persisted(self.clock.now_ms());
        let in_files = waiting.seal.is_some_and(|seal| seal <= persisted);
        if !in_files || !self.may_append(at) {
            return;
        }
        let Follow { adopting, copying, .. } = &mut self.follow[at];
        let Adopting { from, slots, .. } = adopting.take().expect("looked above");
        let broken = |at: &SlotPosition| copying.get(&(at.table, at.slot))?.broken.clone();
        if let Some(why) = slots.iter().find_map(broken) {
            return self.answer_follow(at, from, Replicated::Refused(why));
        }
        let now_ms = self.clock.now_ms();
        for position in &slots {
            let SlotPosition { table, slot, index, term } = *position;
            let copied = self.follow[at].copying.remove(&(table, slot));
            let adopted = Adopted {
                incarnation: copied.as_ref().map_or(NONE, |copied| copied.incarnation),
                index,
                term,
                keys_estimate: copied.map_or(0, |copied| copied.rows),
            };
            let mut body = Vec::new();
            let wide = SlotWide::Adopt { table, slot, adopted };
            BodyWriter::new(&mut body, Origin::COPY).slot_wide(&wide);
            let touches = [crate::binlog::Touch { table, slot, index, term }];
            let shard = &mut self.shards[at];
            let lsn = shard.log.append(&FrameMeta { touches: &touches, txn: None }, now_ms, &[&body]).0;
            shard.data.show_operation(&Operation::SlotWide(wide), lsn, now_ms);
        }
        let (shard, own) = (self.shards[at].id, self.shards[at].log.written_or_pending().0);
        let what = Replicated::Adopted { own };
        self.send_released(from.core, shard, own, Message::Replicated { ticket: from.ticket, shard, what });
    }

    fn begin_term(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        let newest = shard.data.slots.newest_term();
        let term = next_term(newest.max(shard.log.term()), fastrand::u64(..));
        shard.log.begin_term(term);
        shard.data.slots.set_term(term);
    }

    /// Where the logs of this core's shards end, what is not written yet included.
    pub fn log_ends(&self) -> Vec<LogEnd> {
        let end = |shard: &Shard| LogEnd { shard: shard.id, lsn: shard.log.written_or_pending().0 };
        self.shards.iter().map(end).collect()
    }

    fn answer_follow(&mut self, at: usize, to: Asker, what: Replicated) {
        let shard = self.shards[at].id;
        self.outgoing.push((to.core, Message::Replicated { ticket: to.ticket, shard, what }));
    }
}

fn positions(data: &Data) -> Vec<SlotPosition> {
    data.slots.positions().map(position).collect()
}

fn position((table, slot, state): (TableId, Slot, &SlotState)) -> SlotPosition {
    SlotPosition { table, slot, index: state.next_index - 1, term: state.term }
}

//! Follows a node and prints what is sent: a follower whose slots are lines of text.
//!
//! The machine of `replica` decides; here are its socket, its clock and what stands in place of its shards. A
//! position counts as written when its line has been flushed, and as durable when the state says so. Must not
//! know how lines look.

use super::line::{self, Shown};
use super::link::{Link, NoLink};
use super::output::Output;
use super::state::{self, Chosen};
use super::{Options, is_broken_pipe};
use crate::binlog::Lsn;
use crate::limits::REPLICA_TICK;
use crate::replica::follower::{Action, Event, Follower, Settings};
use crate::replica::greeting::{Copies, Peer};
use crate::replica::position::SlotName;
use crate::replica::status;
use crate::replica::wire::{Identity, Message, SlotCounts};
use crate::shard::mesh::{Portion, SlotPosition};
use crate::slot::placement::Placement;
use crate::slot::set::{self, TableSlots};
use crate::slot::{ShardId, Slot, TableId};
use crate::store::Entry;
use rustc_hash::FxHashSet;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A node that says nothing for so long is given up, milliseconds.
const TIMEOUT_MS: u64 = 60_000;
/// How old the state may be while there is something new.
const STATE_AGE: Duration = Duration::from_secs(1);
/// Of the time, what writing the state may take: one part in so many.
const STATE_SHARE: u32 = 10;
/// In place of shards: one, with whatever slots a node may have.
const OWN_SHARD: ShardId = ShardId(0);

/// Why it ends.
enum End {
    /// A signal, or nobody reads any more.
    Stopped,
    Failed(String),
    /// It cannot be done as asked.
    Misused(String),
    /// Something between what is printed and what would come is not in the node's log.
    Gap(String),
}

/// Follows the node at this address.
pub fn run(address: &str, options: &Options) -> ExitCode {
    let ended = match Capture::new(address, options) {
        Ok(mut capture) => capture.run(),
        Err(end) => Err(end),
    };
    let (code, why) = match ended {
        Ok(()) | Err(End::Stopped) => return ExitCode::SUCCESS,
        Err(End::Failed(why)) => (1, why),
        Err(End::Misused(why)) => (2, why),
        Err(End::Gap(why)) => (3, why),
    };
    eprintln!("haypile: {why}");
    ExitCode::from(code)
}

struct Capture<'o> {
    address: &'o str,
    options: &'o Options,
    chosen: Chosen,
    machine: Follower,
    link: Option<Link>,
    out: Output,
    stop: Arc<AtomicBool>,
    started: Instant,
    /// Where to go on, until the machine knows.
    resume: Option<Vec<SlotPosition>>,
    /// What stands in place of a log: counts what has been printed, and what of it the state covers.
    printed: Lsn,
    saved: Lsn,
    /// Records that are printed and not known to be out.
    unflushed: Vec<(ShardId, Lsn)>,
    /// The state says less than what is printed.
    is_stale: bool,
    save_at: Instant,
    /// Slots whose copies have begun on this connection.
    copying: FxHashSet<SlotName>,
    /// Of the record that is being dealt with.
    time_ms: u64,
    /// It is known of every slot from where on it is printed: `now` takes until every stream has begun.
    begun: bool,
    is_up: bool,
    complaint: Option<String>,
}

impl<'o> Capture<'o> {
    fn new(address: &'o str, options: &'o Options) -> Result<Capture<'o>, End> {
        let chosen = Chosen { table: options.table, slot: options.slot };
        let resume = resume(options, chosen)?;
        let settings = Settings {
            own: Identity {
                placement: Placement::even(u16::MAX, 1),
                tables: u32::MAX,
                crc16: false,
                node: [b'0'; 40],
                slot_counts: SlotCounts::new(),
            },
            slots: slots(chosen)?,
            timeout_ms: TIMEOUT_MS,
            seed: fastrand::u64(..),
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The second one does not wait for whoever takes no more lines.
            signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
                .map_err(|error| End::Failed(format!("watching for signals: {error}")))?;
        }
        Ok(Capture {
            address,
            options,
            chosen,
            machine: Follower::new(settings),
            link: None,
            out: Output::open().map_err(output_failed)?,
            stop,
            started: Instant::now(),
            begun: resume.is_some() || options.from.as_deref() != Some("now"),
            resume,
            printed: Lsn::ZERO,
            saved: Lsn::ZERO,
            unflushed: Vec::new(),
            is_stale: false,
            save_at: Instant::now(),
            copying: FxHashSet::default(),
            time_ms: 0,
            is_up: false,
            complaint: None,
        })
    }

    fn run(&mut self) -> Result<(), End> {
        self.handle(Event::Start)?;
        while !self.stop.load(Ordering::Acquire) {
            self.receive()?;
            let now_ms = self.started.elapsed().as_millis() as u64;
            self.handle(Event::Tick { now_ms })?;
            self.settle()?;
            self.tell();
        }
        self.out.flush().map_err(output_failed)?;
        self.save()
    }

    fn receive(&mut self) -> Result<(), End> {
        let Some(link) = &mut self.link else {
            sleep(REPLICA_TICK);
            return Ok(());
        };
        match link.receive() {
            Ok(false) => return Ok(()),
            Ok(true) => self.handle(Event::Heard)?,
            Err(error) => return self.lost(error.to_string()),
        }
        while let Some(link) = &mut self.link {
            match link.next() {
                Ok(Some(message)) => self.received(message)?,
                Ok(None) => break,
                Err(error) => return self.lost(error.to_string()),
            }
        }
        Ok(())
    }

    fn lost(&mut self, why: String) -> Result<(), End> {
        self.link = None;
        self.handle(Event::Lost { why })
    }

    fn received(&mut self, message: Message) -> Result<(), End> {
        match &message {
            Message::Refused { why } => return Err(End::Failed(format!("{} refuses: {why}", self.address))),
            Message::Forget { slots } if !self.options.snapshot => {
                let slots: Vec<SlotName> = slots.iter().map(|(slot, _)| *slot).collect();
                return Err(self.gap(&slots));
            }
            Message::CopyBegin { slots, .. } if self.copies() == Copies::Positions => {
                let slots: Vec<SlotName> = slots.iter().map(|at| (at.table, at.slot)).collect();
                return Err(self.gap(&slots));
            }
            Message::Record(record) => self.time_ms = record.time_ms,
            _ => {}
        }
        self.handle(Event::Received(message))
    }

    fn gap(&self, slots: &[SlotName]) -> End {
        let which = match slots {
            [] => String::new(),
            [(table, slot), ..] => format!(", of table {} slot {} first", table.0, slot.0),
        };
        End::Gap(format!(
            "the log of {} does not hold all that is missing of {} slots{which}. --snapshot prints what they \
             hold instead; without a state, --from now leaves out what was before",
            self.address,
            slots.len()
        ))
    }

    /// What it wants of slots whose records the log has no more.
    fn copies(&self) -> Copies {
        match (self.begun, self.options.snapshot) {
            (false, _) => Copies::PositionsOfAll,
            (true, true) => Copies::Rows,
            (true, false) => Copies::Positions,
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        let mut events = VecDeque::from([event]);
        let mut actions = Vec::new();
        while let Some(event) = events.pop_front() {
            self.machine.handle(event, &mut actions);
            for action in actions.drain(..) {
                self.perform(action, &mut events)?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: Action, events: &mut VecDeque<Event>) -> Result<(), End> {
        match action {
            Action::AskPositions => {
                self.copying.clear();
                self.unflushed.clear();
                let known = self.resume.take();
                let positions = known.unwrap_or_else(|| self.machine.positions().collect());
                events.push_back(Event::Positions { positions, ends: vec![(OWN_SHARD, self.printed)] });
            }
            // It has printed it: whoever has read the lines has what is dropped.
            Action::KeepDropped { .. } => events.push_back(Event::Kept { rewinds: Vec::new() }),
            Action::Connect => events.push_back(self.connect()?),
            Action::Send(message) => {
                if let Some(link) = &mut self.link {
                    link.queue(&message);
                }
            }
            Action::Apply { portion, .. } => self.print_record(portion)?,
            Action::Copy { shard, table, slot, entries } => {
                self.print_rows((table, slot), &entries)?;
                events.push_back(Event::Copied { shard });
            }
            Action::Adopt { shard, slots } => {
                self.print_adopted(&slots)?;
                events.push_back(Event::Adopted { shard, own: self.printed });
            }
            Action::Rewind { .. } => unreachable!("it has asked for no keys"),
            Action::Disconnect => self.link = None,
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<Event, End> {
        let peer = Peer::Capture(self.copies());
        match Link::connect(self.address, self.options.password.as_deref(), peer) {
            Ok(link) => {
                self.link = Some(link);
                Ok(Event::Connected)
            }
            Err(NoLink::Failed(error)) => Ok(Event::Lost { why: error.to_string() }),
            Err(NoLink::Refused(answer)) => {
                Err(End::Failed(format!("{} does not let itself be followed: {answer}", self.address)))
            }
        }
    }

    fn print_record(&mut self, portion: Portion) -> Result<(), End> {
        let Portion { stream, lsn, touches, body, .. } = portion;
        let lsn = Lsn(lsn);
        let shown = Shown { shard: stream, lsn, time_ms: self.time_ms, touches: &touches, body, frame: None };
        let line = line::record(&shown, self.value_bytes())
            .map_err(|error| End::Failed(format!("record {} of shard {}: {error}", lsn.0, stream.0)))?;
        self.out.line(&line).map_err(output_failed)?;
        self.note_printed();
        self.unflushed.push((stream, lsn));
        Ok(())
    }

    fn print_rows(&mut self, slot: SlotName, entries: &[Entry]) -> Result<(), End> {
        self.print_begin(slot)?;
        for entry in entries {
            let line = line::copy_entry(slot, entry, self.value_bytes());
            let line = line.map_err(|why| End::Failed(format!("an entry of {}: {why}", self.address)))?;
            self.out.line(&line).map_err(output_failed)?;
        }
        Ok(())
    }

    fn print_begin(&mut self, slot: SlotName) -> Result<(), End> {
        let is_new = self.copying.insert(slot);
        if is_new { self.out.line(&line::copy_begin(slot)).map_err(output_failed) } else { Ok(()) }
    }

    /// Slots that are as told; where rows were not asked for, nothing is known of them but that.
    fn print_adopted(&mut self, slots: &[SlotPosition]) -> Result<(), End> {
        if self.copies() == Copies::Rows {
            for at in slots {
                self.print_begin((at.table, at.slot))?;
                self.out.line(&line::copy_end(at)).map_err(output_failed)?;
            }
        }
        self.note_printed();
        Ok(())
    }

    fn note_printed(&mut self) {
        self.printed = self.printed.next();
        self.is_stale = true;
    }

    fn value_bytes(&self) -> usize {
        self.options.value_bytes.unwrap_or(usize::MAX)
    }

    /// What has been printed is out; then it is acknowledged.
    fn settle(&mut self) -> Result<(), End> {
        self.out.flush().map_err(output_failed)?;
        let own = self.printed;
        for (stream, lsn) in std::mem::take(&mut self.unflushed) {
            self.handle(Event::Applied { shard: OWN_SHARD, stream, lsn, own })?;
        }
        if self.machine.link() == status::Link::Connected && !self.begun {
            (self.begun, self.is_stale, self.save_at) = (true, true, Instant::now());
        }
        if self.begun && self.is_stale && Instant::now() >= self.save_at {
            self.save()?;
        }
        self.handle(Event::Durable { shard: OWN_SHARD, own: self.saved })?;
        self.handle(Event::Idle)?;
        match self.link.as_mut().map(Link::send) {
            Some(Err(error)) => self.lost(error.to_string()),
            _ => Ok(()),
        }
    }

    /// Everything printed is out; the state says so. Before it has begun there is none: slots that it does not
    /// name would be printed from their first record on.
    fn save(&mut self) -> Result<(), End> {
        if let Some(path) = &self.options.state
            && self.begun
        {
            let before = Instant::now();
            self.out.sync().map_err(output_failed)?;
            state::save(path, self.chosen, self.machine.positions())
                .map_err(|error| End::Failed(format!("{}: {error}", path.display())))?;
            self.save_at = Instant::now() + STATE_AGE.max(before.elapsed() * STATE_SHARE);
        }
        (self.saved, self.is_stale) = (self.printed, false);
        Ok(())
    }

    /// Says on standard error how the link stands, when that is news.
    fn tell(&mut self) {
        let is_up = self.machine.link() == status::Link::Connected;
        if is_up && !self.is_up {
            eprintln!("haypile: following {}", self.address);
        }
        let why = self.machine.last_error();
        if !is_up && (self.is_up || why != self.complaint.as_deref()) {
            if let Some(why) = why {
                eprintln!("haypile: {}: {why}; it will be tried again", self.address);
            }
            self.complaint = why.map(str::to_owned);
        }
        self.is_up = is_up;
    }
}

/// Where to go on; None: from a beginning.
fn resume(options: &Options, chosen: Chosen) -> Result<Option<Vec<SlotPosition>>, End> {
    if let Some(path) = &options.state
        && let Some(known) = state::load(path, chosen).map_err(End::Misused)?
    {
        return Ok(Some(known));
    }
    match options.from.as_deref() {
        None | Some("start" | "now") => Ok(None),
        Some(file) => match state::load(Path::new(file), chosen).map_err(End::Misused)? {
            Some(known) => Ok(Some(known)),
            None => Err(End::Misused(format!("--from: there is no file {file}"))),
        },
    }
}

/// The slots that are followed; None: all.
fn slots(chosen: Chosen) -> Result<Option<TableSlots>, End> {
    let Chosen { table, slot } = chosen;
    let slots = match (table, slot) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(End::Misused("--slot: of which --table".into())),
        (Some(_), None) => set::all(u16::MAX),
        (Some(_), Some(slot)) => [Slot(slot)].into(),
    };
    Ok(table.map(|table| TableSlots::from([(TableId(table), slots)])))
}

fn output_failed(error: io::Error) -> End {
    if is_broken_pipe(&error) { End::Stopped } else { End::Failed(format!("standard output: {error}")) }
}

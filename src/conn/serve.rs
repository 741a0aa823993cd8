//! The loop of one core: one turn takes what has arrived, runs it, commits once, and answers.
//!
//! Everything of the core is owned here; nothing in it is shared, nothing is locked.

use super::assigning::Assigning;
use super::connection::Connection;
use super::coordinate::{Coordination, Owed};
use super::holding::Holding;
use super::monitor::Watcher;
use super::moving::{Allowance, Moving, Parcel};
use super::timing::{Stages, Timing};
use super::waiting::Waits;
use crate::error::Fault;
use crate::front::node::Node;
use crate::front::session::Session;
use crate::front::table::CommandTable;
use crate::limits;
use crate::metrics::TurnStage;
use crate::resp::parse::{ParseLimits, Parser};
use crate::resp::reply::Reply;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::lanes::Lanes;
use crate::runtime::reaper;
use crate::runtime::ring::{ListenerId, RingEvent, SocketId, SocketRing};
use crate::shard::mesh::{Answer, Calls, Message};
use crate::shard::owner::Owner;
use crate::slot::CoreId;
use rustc_hash::FxHashMap;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What all cores of the process share: only flags and counters.
pub struct Shared {
    /// Set by a signal or SHUTDOWN: every core ends what it has begun and stops.
    pub stopping: AtomicBool,
    /// Set by a second signal: do not wait for files to be written.
    pub hurry: AtomicBool,
    pub next_client_id: AtomicU64,
    pub next_slow_id: AtomicU64,
    /// Connections of all cores.
    pub clients: AtomicUsize,
    /// By core, once the process is to stop: nothing is under way there. One core may need another until all
    /// are quiet.
    quiet: Box<[AtomicBool]>,
}

impl Shared {
    pub fn new(cores: u16) -> Shared {
        Shared {
            stopping: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            next_client_id: AtomicU64::new(0),
            next_slow_id: AtomicU64::new(0),
            clients: AtomicUsize::new(0),
            quiet: (0..cores).map(|_| AtomicBool::new(false)).collect(),
        }
    }
}

/// A core on its way to the end.
#[derive(Clone, Copy)]
pub struct Stopping {
    /// When it ends whatever is still under way.
    by: Instant,
    /// All cores are quiet; memtables are being written to files.
    sealing: bool,
}

pub struct Serving {
    pub ring: SocketRing,
    pub core: Core,
}

/// A core without its sockets: what commands run on.
pub struct Core {
    pub owner: Owner,
    pub node: Node,
    pub commands: CommandTable,
    pub limits: ParseLimits,
    /// Parses commands before it is their turn.
    pub scout: Parser,
    pub shared: Arc<Shared>,
    pub connections: Slab<Connection>,
    pub by_socket: FxHashMap<SocketId, usize>,
    pub coordination: Coordination,
    pub assigning: Assigning,
    /// Commands for other cores, gathered while one connection's bytes are read; by core.
    pub calls: Vec<Option<Calls>>,
    /// Messages of this core to itself.
    pub inbox: VecDeque<Message>,
    pub outbox: Vec<(CoreId, Message)>,
    /// Connections on their way to other cores.
    pub departing: Vec<(CoreId, Box<Moving>)>,
    pub moves: Allowance,
    /// Connections that may be able to go on.
    pub runnable: VecDeque<u64>,
    /// Connections held back because this core or a lane has too much to do; tried again every turn.
    pub starved: Vec<u64>,
    /// Connections with bytes to send, or that are to end.
    pub sendable: Vec<usize>,
    /// Connections whose bytes wait for the log, or come in parts.
    pub gated: Vec<usize>,
    /// Lanes that are full, by core.
    pub congested: Vec<bool>,
    pub holding: Holding,
    /// Connections of any core that MONITOR.
    pub watchers: Vec<Watcher>,
    /// Replies that wait for their moment, milliseconds since the epoch.
    pub delayed: Vec<(u64, Owed, Reply)>,
    /// Commands that wait for a key, by connection.
    pub waits: Waits,
    pub timing: Timing,
    pub next_serial: u64,
    pub stopping: Option<Stopping>,
}

/// Connection ids: a serial number over the place in the slab.
const PLACE_BITS: u32 = 24;

/// How often idle connections are looked at.
const IDLE_LOOK_EVERY_MS: u64 = 1000;

/// How a core talks to the others.
pub struct Links {
    pub lanes: Lanes<Parcel>,
    pub doorbells: Vec<Doorbell>,
}

impl Serving {
    /// Serves until the process is to stop, and never yields: its executor has no other task.
    /// A fault ends the whole process: the caller does it.
    pub fn run(mut self, mut links: Links, own_port: Option<ListenerId>) -> Result<(), Fault> {
        let ring_failed = |error| Fault::new("the socket ring", error);
        let (mut events, mut waiting, mut idle_look_ms) = (Vec::new(), VecDeque::new(), 0);
        loop {
            let mut stages = Stages::begin();
            self.ring.turn(&mut events).map_err(ring_failed)?;
            stages.end(TurnStage::Ring);
            self.core.owner.clock.tick();
            waiting.extend(events.drain(..));
            let mut busy = !waiting.is_empty();
            let (mut ticked, mut received) = (false, 0);
            while received < limits::RECEIVED_PER_TURN_MAX_BYTES
                && let Some(event) = waiting.pop_front()
            {
                ticked |= matches!(event, RingEvent::Tick);
                if let RingEvent::Received { data, .. } = &event {
                    received += data.len();
                }
                self.event(event, own_port).map_err(ring_failed)?;
            }
            busy |= self.take_messages(&mut links)?;
            busy |= self.core.run_waiting();
            if ticked {
                self.core.owner.tick()?;
                self.core.tick();
                let now_ms = self.core.owner.clock.now_ms();
                if now_ms >= idle_look_ms {
                    idle_look_ms = now_ms + IDLE_LOOK_EVERY_MS;
                    self.end_idle(now_ms);
                }
            }
            self.core.release_readers();
            stages.end(TurnStage::Run);
            self.core.owner.commit()?;
            stages.end(TurnStage::Commit);
            busy |= self.core.owner.larges_moved;
            self.core.deliver();
            self.core.advance_assigning();
            self.send_replies().map_err(ring_failed)?;
            busy |= self.send_messages(&mut links);
            if self.stopped()? {
                return Ok(());
            }
            if busy {
                stages.end(TurnStage::Send);
                stages.note(&mut self.core.owner);
            } else {
                self.sleep(&links).map_err(ring_failed)?;
            }
        }
    }

    fn sleep(&mut self, links: &Links) -> std::io::Result<()> {
        if self.core.waits_for_time() {
            self.ring.tick_soon()?;
        }
        self.ring.prepare_sleep();
        let work = links.lanes.waiting()
            || links.lanes.any_congested()
            || self.core.owner.has_results()
            || self.core.has_work();
        if work {
            self.ring.cancel_sleep();
            return Ok(());
        }
        self.ring.sleep()
    }

    fn event(&mut self, event: RingEvent, own_port: Option<ListenerId>) -> std::io::Result<()> {
        match event {
            RingEvent::Accepted { listener, socket } => self.accepted(socket, Some(listener) == own_port)?,
            RingEvent::Received { socket, data } => {
                if let Some(&place) = self.core.by_socket.get(&socket) {
                    self.core.received(place, self.ring.bytes(&data));
                    self.pause_if_full(place)?;
                }
                self.ring.recycle(data);
            }
            RingEvent::Sent { socket, buf } => {
                if let Some(&place) = self.core.by_socket.get(&socket) {
                    let connection = &mut self.core.connections[place];
                    connection.keep_spare(buf);
                    if connection.blocked {
                        self.core.runnable.push_back(self.core.connections[place].id);
                    }
                    self.core.list(place);
                    self.move_if_quiet(place)?;
                } else {
                    // One that was refused: it has been told.
                    self.ring.close(socket)?;
                }
            }
            RingEvent::Closed { socket, error } => match self.core.by_socket.get(&socket) {
                // What it has asked before is still answered.
                Some(&place) if error.is_none() => {
                    self.core.connections[place].closing = true;
                    self.core.list(place);
                }
                Some(&place) => self.close(place)?,
                None => self.ring.close(socket)?,
            },
            RingEvent::AcceptFailed { error, .. } => tracing::warn!(%error, "accepting a connection failed"),
            RingEvent::Detached { socket, fd } => match self.core.by_socket.get(&socket) {
                Some(&place) => self.detached(place, fd),
                None => drop(fd),
            },
            RingEvent::Tick => {}
        }
        Ok(())
    }

    fn accepted(&mut self, socket: SocketId, shard_aware: bool) -> std::io::Result<()> {
        let core = &mut self.core;
        let config = core.node.config.clone();
        core.owner.stats.connections_received += 1;
        if core.shared.clients.load(Ordering::Relaxed) >= config.maxclients as usize
            || core.connections.len() >= 1 << PLACE_BITS
        {
            core.owner.stats.connections_rejected += 1;
            return self.ring.send(socket, b"-ERR max number of clients reached\r\n".to_vec());
        }
        let (Ok(peer), Ok(local)) = (self.ring.peer_addr(socket), self.ring.local_addr(socket)) else {
            return self.ring.close(socket);
        };
        if config.tcp_keepalive_s > 0 {
            self.ring.set_keepalive(socket, config.tcp_keepalive_s)?;
        }
        core.shared.clients.fetch_add(1, Ordering::Relaxed);
        let now_ms = core.owner.clock.now_ms();
        let id = core.shared.next_client_id.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Session {
            authenticated: !config.requirepass.is_set(),
            fd: self.ring.fd(socket),
            shard_aware,
            ..Session::new(id, peer.to_string(), local.to_string(), now_ms)
        };
        core.insert(Connection::new(0, socket, session));
        Ok(())
    }

    fn close(&mut self, place: usize) -> std::io::Result<()> {
        let connection = self.core.connections.remove(place);
        self.core.by_socket.remove(&connection.socket);
        self.core.owner.stats.connections_now -= 1;
        self.core.shared.clients.fetch_sub(1, Ordering::Relaxed);
        if connection.session.monitoring {
            self.core.stop_watching(connection.id);
        }
        self.core.end_wait(connection.id, None);
        reaper::free_buffer(connection.input);
        self.ring.close(connection.socket)
    }

    /// Stops reading from a peer whose commands cannot run yet.
    fn pause_if_full(&mut self, place: usize) -> std::io::Result<()> {
        let connection = &mut self.core.connections[place];
        if connection.blocked && !connection.paused && connection.input.len() >= limits::INPUT_PAUSE_BYTES {
            connection.paused = true;
            self.ring.pause_recv(connection.socket)?;
        }
        Ok(())
    }

    fn take_messages(&mut self, links: &mut Links) -> Result<bool, Fault> {
        let mut busy = false;
        while let Some(message) = self.core.inbox.pop_front() {
            busy = true;
            self.core.message(message);
        }
        let core = &mut self.core;
        let mut arrived = Vec::new();
        let take = |_, parcel| match parcel {
            Parcel::Message(message) => core.message(message),
            Parcel::Connection(moving) => arrived.push(moving),
        };
        busy |= links.lanes.receive(limits::MESSAGES_PER_TURN_MAX, take) > 0;
        for moving in arrived {
            self.arrived(*moving).map_err(|error| Fault::new("taking a connection over", error))?;
        }
        let core = &mut self.core;
        busy |= core.owner.take_results()?;
        Ok(busy)
    }

    /// Sends every connection's replies that may leave, ends those that are done, reads on from those
    /// that have caught up.
    fn send_replies(&mut self) -> std::io::Result<()> {
        let Serving { ring, core } = self;
        let gated = std::mem::take(&mut core.gated);
        for place in gated {
            core.list(place);
        }
        let mut sendable = std::mem::take(&mut core.sendable);
        let mut ended = Vec::new();
        for place in sendable.drain(..) {
            let Some(connection) = core.connections.get_mut(place) else { continue };
            connection.listed = false;
            if connection.closing && !core.waits.is_empty() {
                let conn = connection.id;
                core.end_wait(conn, None);
            }
            let Some(connection) = core.connections.get_mut(place) else { continue };
            // One that is not blocked holds the beginning of a large command: the rest of it must come.
            let caught_up = !connection.blocked || connection.input.len() < limits::INPUT_PAUSE_BYTES / 2;
            if connection.paused && caught_up {
                connection.paused = false;
                ring.resume_recv(connection.socket)?;
            }
            let owner = &core.owner;
            let now_ms = owner.clock.now_ms();
            let limits = &core.node.config.client_output_buffer_limit;
            // As in Redis, one that is sent what it has not asked for has the limit of replicas.
            let limit = if connection.session.monitoring { &limits.replica } else { &limits.normal };
            if connection.over_output_limit(limit, now_ms) {
                tracing::warn!(
                    client = connection.session.addr,
                    "output buffer over its limit: connection closed"
                );
                ended.push(place);
                continue;
            }
            if ring.sending(connection.socket) {
                continue;
            }
            connection.pending.out.advance();
            if connection.pending.out.is_broken() {
                ended.push(place);
                continue;
            }
            let spare = std::mem::take(&mut connection.spare);
            let bytes = connection.pending.out.take(|shard| owner.shard(shard).answerable(now_ms), spare);
            if connection.pending.out.is_gated() || connection.pending.out.is_long() {
                core.gated.push(place);
            }
            if !bytes.is_empty() {
                core.owner.stats.output_bytes += bytes.len() as u64;
                ring.send(connection.socket, bytes)?;
            } else if connection.closing && connection.pending.is_empty() && connection.pending.out.is_empty()
            {
                ended.push(place);
            }
        }
        // The list keeps its memory from turn to turn; what was listed meanwhile is kept.
        sendable.append(&mut core.sendable);
        core.sendable = sendable;
        for place in ended {
            self.close(place)?;
        }
        Ok(())
    }

    fn send_messages(&mut self, links: &mut Links) -> bool {
        let core = &mut self.core;
        core.outbox.append(&mut core.owner.outgoing);
        let own = core.node.core;
        let mut answers: Vec<Vec<Answer>> = Vec::new();
        for (to, message) in core.outbox.drain(..) {
            match message {
                message if to == own => core.inbox.push_back(message),
                Message::Answers(mut more) => {
                    answers.resize_with(answers.len().max(usize::from(to.0) + 1), Vec::new);
                    answers[usize::from(to.0)].append(&mut more);
                }
                message => links.lanes.send(usize::from(to.0), Parcel::Message(message)),
            }
        }
        for (to, answers) in answers.into_iter().enumerate().filter(|(_, answers)| !answers.is_empty()) {
            links.lanes.send(to, Parcel::Message(Message::Answers(answers)));
        }
        for (to, moving) in core.departing.drain(..) {
            links.lanes.send(usize::from(to.0), Parcel::Connection(moving));
        }
        let doorbells = &links.doorbells;
        if std::mem::take(&mut core.owner.log_grown) {
            doorbells[usize::from(core.node.replication_lane().0)].ring();
        }
        links.lanes.flush(|to| doorbells[to].ring());
        for (to, congested) in core.congested.iter_mut().enumerate() {
            *congested = links.lanes.congested(to);
        }
        !core.inbox.is_empty()
    }

    fn end_idle(&mut self, now_ms: u64) {
        let timeout_s = u64::from(self.core.node.config.timeout_s);
        if timeout_s == 0 {
            return;
        }
        let idle = |connection: &Connection| {
            connection.pending.is_empty()
                && !connection.session.is_primary
                && now_ms.saturating_sub(connection.session.last_command_ms) > timeout_s * 1000
        };
        let places: Vec<_> = self
            .core
            .connections
            .iter()
            .filter(|(_, connection)| idle(connection))
            .map(|(place, _)| place)
            .collect();
        self.core.end_connections(places);
    }

    /// Whether this core has stopped, once the process is to stop.
    fn stopped(&mut self) -> Result<bool, Fault> {
        let core = &mut self.core;
        if !core.shared.stopping.load(Ordering::Acquire) {
            return Ok(false);
        }
        let Some(stopping) = &mut core.stopping else {
            self.ring.stop_all_listening().map_err(|error| Fault::new("closing the listeners", error))?;
            core.stopping = Some(Stopping { by: Instant::now() + limits::SHUTDOWN_WAIT, sealing: false });
            core.end_connections(core.connections.iter().map(|(place, _)| place).collect());
            return Ok(false);
        };
        if Instant::now() >= stopping.by {
            tracing::warn!("stopping with something still under way");
            return Ok(true);
        }
        if !stopping.sealing {
            let quiet = core.coordination.is_empty()
                && core.owner.is_quiet()
                && core.owner.is_settled()
                && core.connections.iter().all(|(_, connection)| connection.pending.is_empty());
            core.shared.quiet[usize::from(core.node.core.0)].store(quiet, Ordering::Release);
            if !core.shared.quiet.iter().all(|quiet| quiet.load(Ordering::Acquire)) {
                return Ok(false);
            }
            stopping.sealing = true;
            core.owner.seal_all();
            return Ok(core.shared.hurry.load(Ordering::Acquire));
        }
        Ok(core.owner.upkeep_idle() || core.shared.hurry.load(Ordering::Acquire))
    }
}

impl Core {
    pub fn new(mut owner: Owner, node: Node, shared: Arc<Shared>) -> Core {
        owner.events.threshold_ms = node.config.latency_monitor_threshold_ms;
        let cores = usize::from(node.cores);
        let limits = ParseLimits {
            bulk_max_bytes: node.config.proto_max_bulk_len.min(owner.setting.value_max_bytes),
            ..ParseLimits::default()
        };
        Core {
            owner,
            node,
            commands: CommandTable::default(),
            limits,
            scout: Parser::new(),
            shared,
            connections: Slab::new(),
            by_socket: FxHashMap::default(),
            coordination: Coordination::default(),
            assigning: Assigning::default(),
            calls: (0..cores).map(|_| None).collect(),
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            departing: Vec::new(),
            moves: Allowance::default(),
            runnable: VecDeque::new(),
            starved: Vec::new(),
            sendable: Vec::new(),
            gated: Vec::new(),
            congested: vec![false; cores],
            holding: Holding::default(),
            watchers: Vec::new(),
            delayed: Vec::new(),
            waits: Waits::default(),
            timing: Timing::default(),
            next_serial: 0,
            stopping: None,
        }
    }

    /// Takes a connection in, under a new id; where it stands.
    pub fn insert(&mut self, mut connection: Connection) -> usize {
        let entry = self.connections.vacant_entry();
        let place = entry.key();
        assert!(place < 1 << PLACE_BITS, "descriptors run out long before");
        self.next_serial += 1;
        connection.id = self.next_serial << PLACE_BITS | place as u64;
        connection.listed = false;
        self.by_socket.insert(connection.socket, place);
        self.owner.stats.connections_now += 1;
        entry.insert(connection);
        place
    }

    pub fn place_of(&self, id: u64) -> Option<usize> {
        let place = (id & ((1 << PLACE_BITS) - 1)) as usize;
        self.connections.get(place).filter(|connection| connection.id == id).map(|_| place)
    }

    /// These connections get the replies they are owed, run no further command and end.
    fn end_connections(&mut self, places: Vec<usize>) {
        for place in places {
            self.connections[place].closing = true;
            self.list(place);
        }
    }

    /// Puts a connection on the list of those that are looked at when the turn's replies are sent.
    pub fn list(&mut self, place: usize) {
        if let Some(connection) = self.connections.get_mut(place)
            && !connection.listed
        {
            connection.listed = true;
            self.sendable.push(place);
        }
    }

    fn has_work(&self) -> bool {
        !self.inbox.is_empty()
            || !self.runnable.is_empty()
            || !self.starved.is_empty()
            || !self.sendable.is_empty()
    }

    /// Something goes on at a tick, if nothing else happens before.
    fn waits_for_time(&self) -> bool {
        let stopping = self.shared.stopping.load(Ordering::Acquire);
        stopping
            || self.holding.has_end()
            || !self.assigning.is_quiet()
            || !self.delayed.is_empty()
            || !self.waits.is_empty()
            || !self.gated.is_empty()
            || self.owner.waits_for_time()
    }

    /// Replies of this core's own commands that had to wait.
    fn deliver(&mut self) {
        for finished in std::mem::take(&mut self.owner.finished) {
            let gate = super::pending::Gate { shard: finished.shard, position: finished.position };
            self.answer(finished.answer, (gate.position > 0).then_some(gate));
        }
    }

    pub fn answer(&mut self, answer: Answer, gate: Option<super::pending::Gate>) {
        let ran_last = self.ran_last(&answer);
        let Some(answer) = self.unless_waiting(answer) else { return };
        let Some(place) = self.place_of(answer.conn) else { return };
        let failed = self.owner.stats.note_reply(&answer.reply);
        let mut begun = self.connections[place].pending.answer(answer.seq, answer.reply, gate);
        ran_last.into_iter().for_each(|at| begun.restart(at));
        self.ended(place, begun, failed);
        let connection = &mut self.connections[place];
        if connection.pending.is_empty() {
            connection.barrier = false;
        }
        if connection.blocked {
            self.runnable.push_back(connection.id);
        }
        self.list(place);
    }

    /// Goes on with connections that were held back; true if there was one.
    fn run_waiting(&mut self) -> bool {
        let starved = std::mem::take(&mut self.starved);
        self.runnable.extend(starved);
        let count = self.runnable.len();
        for _ in 0..count {
            let id = self.runnable.pop_front().expect("counted above");
            if let Some(place) = self.place_of(id) {
                self.resume(place);
                self.list(place);
            }
        }
        count > 0
    }

    fn tick(&mut self) {
        self.end_pause();
        self.answer_delayed(self.owner.clock.now_ms());
        self.end_waits_to_write();
        self.end_late_waits(self.owner.clock.now_ms());
        self.node.note_commands(self.owner.clock.now_ms(), self.owner.stats.commands);
    }
}

//! Commands that several shards or cores take part in, as their connection's core sees them.

use super::holding::Pause;
use super::pending::Manner;
use super::serve::Core;
use super::timing::Begun;
use crate::command::KeyArgs;
use crate::error::ClientError;
use crate::front::admin::client_line as client;
use crate::front::gather::{Gather, Next, Surroundings};
use crate::front::giant;
use crate::front::{self, Ctx, Fold, Later, Then};
use crate::metrics::commands::CommandStats;
use crate::metrics::slow::Stage;
use crate::metrics::{CoreReport, CoreStats};
use crate::resp::encode::Protocol;
use crate::resp::reply::Reply;
use crate::shard::mesh::{
    Answer, Ask, Computed, GatherId, LineId, Message, OwnedCall, Planned, Step, StepDone, Tell,
};
use crate::shard::work::Done;
use crate::slot::{CoreId, ShardId, TableId};
use crate::store::tx::Scope;
use rustc_hash::FxHashMap;
use std::sync::atomic::Ordering;

/// A reply that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    conn: u64,
    seq: u64,
}

impl Owed {
    pub fn conn(self) -> u64 {
        self.conn
    }

    pub fn seq(self) -> u64 {
        self.seq
    }
}

/// What happens when all answers to a question are there.
enum End {
    Then(Owed, Then),
    /// Nobody waits.
    Later(Later),
}

/// A fold is the last step.
fn folded(fold: Fold) -> Then {
    Box::new(move |ctx, tells| Ok(front::Answer::Reply(fold(ctx, tells))))
}

/// A question whose answers are coming in.
struct Asked {
    tells: Vec<Option<Tell>>,
    outstanding: usize,
    end: End,
    /// It is about what keys there are.
    about_keys: bool,
}

struct Gathering {
    owed: Owed,
    gather: Gather,
    giant: bool,
}

/// A giant command whose keys are being looked for.
struct Planning {
    owed: Owed,
    protocol: Protocol,
}

/// What this core coordinates now.
#[derive(Default)]
pub struct Coordination {
    gathers: FxHashMap<u64, Gathering>,
    planning: FxHashMap<u64, Planning>,
    /// Gathers whose command is on the pool.
    computing: Vec<u64>,
    /// Giant commands among all these.
    giants: usize,
    asked: FxHashMap<u64, Asked>,
    next: u64,
}

impl Coordination {
    pub fn is_empty(&self) -> bool {
        self.gathers.is_empty() && self.planning.is_empty() && self.asked.is_empty()
    }

    /// Commands that several shards take part in.
    pub fn has_commands(&self) -> bool {
        !self.gathers.is_empty() || !self.planning.is_empty()
    }

    /// Giant commands under way.
    pub fn giants(&self) -> usize {
        self.giants
    }

    /// What begins from now on has this number or a higher one.
    pub fn next_number(&self) -> u64 {
        self.next + 1
    }

    /// Whether a command on keys is under way that has begun before, or, `with_questions`, a question about what keys
    /// there are.
    pub fn has_older(&self, number: u64, with_questions: bool) -> bool {
        let asked = self.asked.iter().filter(|(_, asked)| with_questions && asked.about_keys);
        self.gathers.keys().chain(self.planning.keys()).chain(asked.map(|(of, _)| of)).any(|of| *of < number)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn gather_id(&mut self, core: CoreId) -> GatherId {
        GatherId { core, number: self.number() }
    }
}

impl Core {
    pub fn gather_command(&mut self, place: usize, call: OwnedCall, keys: &KeyArgs) {
        let owed = self.wait_for_call(place, &call, Stage::Gather);
        let manner = self.connections[place].manner();
        let id = self.coordination.gather_id(self.node.core);
        let gather = Gather::command(id, call, keys, manner.protocol, &self.surroundings());
        self.begin_gather(id, Gathering { owed, gather, giant: false });
    }

    /// Begins a giant command: the pool looks where its keys lie.
    pub fn plan_giant(&mut self, place: usize, call: OwnedCall) {
        let owed = self.wait_for_call(place, &call, Stage::Giant);
        let manner = self.connections[place].manner();
        let number = self.coordination.number();
        self.coordination.planning.insert(number, Planning { owed, protocol: manner.protocol });
        self.coordination.giants += 1;
        self.owner.stats.long_commands += 1;
        let (to, map) = (self.node.core, self.node.map.clone());
        let (usual, hash) = (self.node.hash, self.owner.hash_of(call.table));
        let (assigned, manner) = (self.owner.assigned.clone(), self.slot_manner(place));
        let job = move || {
            let refused = assigned.and_then(|assigned| giant::refusal(&assigned, usual, manner, &call));
            let planned = refused.map_or_else(|| giant::plan(call, &map, hash), Err);
            let message = Message::Planned { number, planned };
            Done::Told { to, message: Box::new(message) }
        };
        self.owner.on_pool(Box::new(job));
    }

    fn planned(&mut self, number: u64, planned: Result<Planned, ClientError>) {
        let planning = self.coordination.planning.remove(&number);
        let Planning { owed, protocol } = planning.expect("each plan was asked for once");
        match planned {
            Ok(planned) => {
                let id = GatherId { core: self.node.core, number };
                let gather = Gather::giant(id, planned, protocol);
                self.begin_gather(id, Gathering { owed, gather, giant: true });
            }
            Err(error) => {
                self.coordination.giants -= 1;
                self.settle(owed, Reply::Error(error));
            }
        }
    }

    /// As `gather_command`, for a command that waits already.
    pub fn gather_owed(&mut self, owed: Owed, gather: impl FnOnce(GatherId, &Surroundings<'_>) -> Gather) {
        let id = self.coordination.gather_id(self.node.core);
        let gather = gather(id, &self.surroundings());
        self.begin_gather(id, Gathering { owed, gather, giant: false });
    }

    fn begin_gather(&mut self, id: GatherId, gathering: Gathering) {
        gathering.gather.start(|shard, step| self.send_step(shard, step));
        self.coordination.gathers.insert(id.number, gathering);
    }

    pub fn wait_for_call(&mut self, place: usize, call: &OwnedCall, stage: Stage) -> Owed {
        let args = call.call().args;
        let begun = self.begun(call.command.spec.name, stage, args.len(), |at| args.get(at));
        let manner = self.connections[place].manner();
        self.wait_behind_barrier(place, manner, begun)
    }

    /// The command that begins now is answered later, and what stands behind it waits until then.
    pub fn wait_behind_barrier(&mut self, place: usize, manner: Manner, begun: Box<Begun>) -> Owed {
        let connection = &mut self.connections[place];
        let seq = connection.pending.next_seq();
        connection.pending.wait(manner, begun);
        connection.barrier = true;
        Owed { conn: connection.id, seq }
    }

    /// Goes on with a command whose reply is owed.
    pub fn pursue(&mut self, owed: Owed, answer: Result<front::Answer, ClientError>) {
        match answer {
            Err(error) => self.settle(owed, Reply::Error(error)),
            Ok(front::Answer::Reply(reply)) => self.settle(owed, reply),
            Ok(front::Answer::Close(reply)) => {
                self.settle(owed, reply);
                if let Some(place) = self.place_of(owed.conn) {
                    self.connections[place].closing = true;
                    self.list(place);
                }
            }
            Ok(front::Answer::AskAll(ask, fold)) => self.ask_all(ask, End::Then(owed, folded(fold))),
            Ok(front::Answer::AskThen(ask, then)) => self.ask_all(ask, End::Then(owed, then)),
            Ok(front::Answer::AskOne(core, ask, fold)) => {
                let ticket = self.expect(1, End::Then(owed, folded(fold)), &ask);
                self.outbox.push((core, Message::Ask { from: self.node.core, ticket, ask }));
            }
            Ok(front::Answer::Background(reply, ask, later)) => {
                self.settle(owed, reply);
                self.ask_all(ask, End::Later(later));
            }
            Ok(front::Answer::WholeTables(change)) => {
                let id = self.coordination.gather_id(self.node.core);
                let gather = Gather::tables(id, change, &self.surroundings());
                self.begin_gather(id, Gathering { owed, gather, giant: false });
            }
            Ok(front::Answer::AtTime { until_ms, reply }) => self.delayed.push((until_ms, owed, reply)),
            Ok(front::Answer::Monitor) => {
                // At once, not when all cores have answered: it may end before, and they must then be told.
                if let Some(place) = self.place_of(owed.conn) {
                    self.connections[place].session.monitoring = true;
                }
                let watcher = LineId { core: self.node.core, conn: owed.conn };
                self.ask_all(Ask::Watch(watcher), End::Then(owed, folded(Box::new(|_, _| Reply::Ok))));
            }
            Ok(front::Answer::Follower(peer)) => {
                if let Some(place) = self.place_of(owed.conn) {
                    let lane = self.node.replication_lane();
                    let connection = &mut self.connections[place];
                    connection.wish = Some(lane);
                    connection.session.follower = Some(peer);
                }
                self.settle(owed, Reply::Ok);
            }
            Ok(front::Answer::Shutdown { hurry }) => {
                self.shared.hurry.store(hurry, Ordering::Release);
                self.shared.stopping.store(true, Ordering::Release);
                // Like Redis: the connection ends without a word.
                self.settle(owed, Reply::Silent);
            }
        }
    }

    pub fn settle(&mut self, owed: Owed, reply: Reply) {
        self.answer(Answer { conn: owed.conn, seq: owed.seq, reply }, None);
    }

    /// Replies whose moment has come.
    pub fn answer_delayed(&mut self, now_ms: u64) {
        let due: Vec<_> = self.delayed.extract_if(.., |(until_ms, ..)| *until_ms <= now_ms).collect();
        due.into_iter().for_each(|(_, owed, reply)| self.settle(owed, reply));
    }

    fn surroundings(&self) -> Surroundings<'_> {
        let scope = Scope { hash: self.node.hash, ..self.owner.scope(TableId(0), u32::MAX) };
        let assigned = self.owner.assigned.as_deref();
        Surroundings { map: &self.node.map, scope, tables: self.owner.setting.tables, assigned }
    }

    fn send_step(&mut self, shard: ShardId, step: Step) {
        let core = self.node.map.owner(shard);
        self.outbox.push((core, Message::Step(step)));
    }

    fn step_done(&mut self, done: StepDone) {
        let number = done.gather().number;
        self.advance_gather(number, |gather, around, send| gather.on(done, around, send));
    }

    fn computed(&mut self, number: u64, computed: Computed) {
        self.coordination.computing.retain(|of| *of != number);
        self.advance_gather(number, |gather, _, send| gather.computed(computed, send));
    }

    fn advance_gather(
        &mut self,
        number: u64,
        advance: impl FnOnce(&mut Gather, &Surroundings<'_>, &mut dyn FnMut(ShardId, Step)) -> Next,
    ) {
        let Some(mut gathering) = self.coordination.gathers.remove(&number) else {
            unreachable!("a coordinator outlives its steps");
        };
        let mut steps = Vec::new();
        let next = advance(&mut gathering.gather, &self.surroundings(), &mut |shard, step| {
            steps.push((shard, step))
        });
        for (shard, step) in steps {
            self.send_step(shard, step);
        }
        match next {
            Next::Done(reply) => {
                self.coordination.giants -= usize::from(gathering.giant);
                return self.settle(gathering.owed, reply);
            }
            Next::Compute(compute) => {
                let to = self.node.core;
                let job = move || {
                    let message = Message::Computed { number, computed: compute.run() };
                    Done::Told { to, message: Box::new(message) }
                };
                self.coordination.computing.push(number);
                self.owner.on_pool(Box::new(job));
            }
            Next::Wait => {}
        }
        self.coordination.gathers.insert(number, gathering);
    }

    /// Commands on the pool that only read give back latches they do not need any more.
    pub fn release_readers(&mut self) {
        for at in 0..self.coordination.computing.len() {
            let number = self.coordination.computing[at];
            let gathering = self.coordination.gathers.get_mut(&number).expect("what computes is gathered");
            let mut steps = Vec::new();
            gathering.gather.release_if_taken(&mut |shard, step| steps.push((shard, step)));
            for (shard, step) in steps {
                self.send_step(shard, step);
            }
        }
    }

    fn ask_all(&mut self, ask: Ask, end: End) {
        let cores = self.node.cores;
        let ticket = self.expect(usize::from(cores), end, &ask);
        for core in 0..cores {
            self.outbox.push((CoreId(core), Message::Ask { from: self.node.core, ticket, ask: ask.clone() }));
        }
    }

    fn expect(&mut self, outstanding: usize, end: End, ask: &Ask) -> u64 {
        let ticket = self.coordination.number();
        // The replication thread is asked too, and stands last.
        let tells = (0..=self.node.replication_lane().0).map(|_| None).collect();
        let about_keys = ask.looks_at_keys();
        self.coordination.asked.insert(ticket, Asked { tells, outstanding, end, about_keys });
        ticket
    }

    fn told(&mut self, ticket: u64, core: CoreId, tell: Tell) {
        let asked = self.coordination.asked.get_mut(&ticket).expect("each question is answered once by each");
        asked.tells[usize::from(core.0)] = Some(tell);
        asked.outstanding -= 1;
        if asked.outstanding > 0 {
            return;
        }
        let Asked { tells, end, .. } = self.coordination.asked.remove(&ticket).expect("found a line above");
        let tells = tells.into_iter().flatten().collect();
        let now_ms = self.owner.clock.now_ms();
        let (owed, then) = match end {
            End::Later(later) => return later(&mut self.node, now_ms, tells),
            End::Then(owed, then) => (owed, then),
        };
        let Some(place) = self.place_of(owed.conn) else { return };
        let session = &mut self.connections[place].session;
        let answer = then(&mut Ctx { session, node: &mut self.node, now_ms }, tells);
        self.pursue(owed, answer);
    }

    /// Takes what another core, or this one, has sent.
    pub fn message(&mut self, message: Message) {
        match message {
            Message::Calls(calls) => self.owner.run_all(&calls),
            Message::Answers(answers) => answers.into_iter().for_each(|answer| self.answer(answer, None)),
            Message::Step(step) => self.owner.step(step),
            Message::StepDone(done) => self.step_done(done),
            Message::Ask { from, ticket, ask } => self.asked(from, ticket, ask),
            Message::Tell { ticket, core, tell } => self.told(ticket, core, tell),
            Message::WaitFor { line, shard, keys } => self.owner.wait_for(line, shard, keys),
            Message::WaitOn { line, shard } => self.owner.wait_on(line, shard),
            Message::WaitNoMore { line, shard } => self.owner.wait_no_more(line, shard),
            Message::WaitKnown { conn } => self.wait_known(conn),
            Message::Wake { conn } => self.wake(conn),
            Message::Watched { conn, line } => self.watched(conn, line),
            Message::Unwatch(connection) => self.remove_watcher(connection),
            Message::Replicate { from, shard, what } => self.owner.replicate(from, shard, what),
            Message::Assign { ticket, assignment } => self.assign(ticket, assignment),
            Message::Place { ticket, placement, held, drain } => self.place(ticket, placement, held, drain),
            Message::Barrier { ticket } => self.barrier(ticket),
            Message::Replicated { .. } | Message::Configured(_) | Message::Assigned { .. } => {
                unreachable!("only the replication thread is told")
            }
            Message::Planned { number, planned } => self.planned(number, planned),
            Message::Computed { number, computed } => self.computed(number, computed),
        }
    }

    fn asked(&mut self, from: CoreId, ticket: u64, ask: Ask) {
        let now_ms = self.owner.clock.now_ms();
        let tell = match ask {
            Ask::ClientList(filter) => {
                let lines = self.connections.iter().map(|(_, connection)| connection);
                let lines =
                    lines.filter(|connection| client::filter_matches(&filter, &connection.session, now_ms));
                Tell::Clients(
                    lines.map(|connection| connection.line(now_ms, self.is_blocked(connection.id))).collect(),
                )
            }
            Ask::ClientKill(filter) => {
                let hit = |session| client::filter_matches(&filter, session, now_ms);
                let places: Vec<_> = self
                    .connections
                    .iter()
                    .filter(|(_, connection)| !connection.closing && hit(&connection.session))
                    .map(|(place, _)| place)
                    .collect();
                for &place in &places {
                    self.connections[place].closing = true;
                    self.list(place);
                }
                Tell::Killed(places.len() as u64)
            }
            Ask::ClientUnblock { client, error } => Tell::Killed(u64::from(self.unblock(client, error))),
            Ask::ClientPause { until_ms, writes_only } => {
                match until_ms <= now_ms {
                    true => self.unpause(),
                    false => self.pause(Pause { until_ms, writes_only }),
                }
                Tell::Done
            }
            Ask::HoldWrites(hold) => {
                self.hold_writes(hold);
                Tell::Done
            }
            Ask::Held => Tell::Held { quiet: !self.writes_under_way(), ends: self.owner.log_ends() },
            Ask::Events => Tell::Events(Box::new(self.owner.events.clone())),
            Ask::ResetEvents(events) => {
                events.into_iter().for_each(|event| self.owner.events.reset(event));
                Tell::Done
            }
            Ask::SetActiveExpire(active) => {
                self.owner.active_expire = active;
                Tell::Done
            }
            Ask::Watch(connection) => {
                self.add_watcher(connection);
                Tell::Done
            }
            Ask::Configure(config) => {
                self.configure(config);
                Tell::Done
            }
            Ask::TableRates => Tell::TableRates(self.node.table_rates()),
            Ask::PurgeLogs { before } => Tell::Count(self.owner.purge_logs(before)),
            Ask::LogEnds => Tell::LogEnds(self.owner.log_ends()),
            Ask::Stats => Tell::Stats(Box::new(self.stats_now())),
            Ask::Report => Tell::Report(Box::new(CoreReport {
                stats: self.stats_now(),
                commands: self.timing.commands.clone(),
                times: self.owner.times(),
            })),
            Ask::Slow { count } => Tell::Slow(self.timing.slow.newest(count)),
            Ask::ResetSlow => {
                self.timing.slow.clear();
                Tell::Done
            }
            Ask::ResetStats => {
                self.owner.reset_stats();
                self.timing.commands = CommandStats::default();
                Tell::Done
            }
            about_keys => return self.owner.ask_keys(from, ticket, about_keys),
        };
        self.owner.tell(from, ticket, tell);
    }

    fn configure(&mut self, config: std::sync::Arc<crate::config::Config>) {
        for shard in &mut self.owner.shards {
            shard.set_fsync(config.appendfsync);
        }
        self.owner.events.threshold_ms = config.latency_monitor_threshold_ms;
        self.owner.setting.reply_max_elements = config.reply_max_elements;
        self.owner.setting.reply_max_bytes = config.reply_max_bytes;
        self.owner.setting.consensus_level = config.consensus_level;
        let value_max = self.owner.setting.value_max_bytes;
        self.limits.bulk_max_bytes = config.proto_max_bulk_len.min(value_max);
        if self.node.core == CoreId(0) {
            self.outbox.push((self.node.replication_lane(), Message::Configured(config.clone())));
        }
        self.node.config = config;
    }

    fn stats_now(&self) -> CoreStats {
        let mut stats = self.owner.stats.clone();
        let buffers = |connection: &super::connection::Connection| {
            // Room set aside takes no memory before it is used.
            (
                connection.input.capacity().min(connection.input.len() + (1 << 20)) as u64,
                connection.pending.out.len() as u64,
            )
        };
        for (input, output) in self.connections.iter().map(|(_, connection)| buffers(connection)) {
            stats.query_buffer_bytes += input;
            stats.output_buffer_bytes += output;
        }
        stats.expire_lag_ms = self.owner.expire_lag_ms();
        stats.blocked_clients = self.blocked_count() as u64;
        stats.slow_logged = self.timing.slow.len() as u64;
        stats.shards = self.owner.shard_stats();
        stats.ops_per_second = self.node.ops_per_second();
        stats
    }
}

impl super::connection::Connection {
    fn line(&self, now_ms: u64, waits: bool) -> String {
        let extras = client::Extras {
            query_bytes: self.input.len(),
            query_free_bytes: self.input.capacity() - self.input.len(),
            output_bytes: self.pending.out.len(),
            pending_replies: self.pending.len(),
            paused: self.paused,
            waits,
            closing: self.closing,
        };
        client::client_line(&self.session, &extras, now_ms)
    }
}

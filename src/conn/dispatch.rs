//! From a connection's bytes to commands that run: in order, as far as they may.

use super::pending::{Gate, Manner};
use super::serve::Core;
use crate::command::{Group, KeyCommand, flag};
use crate::error::ClientError;
use crate::front::assigned::Verdict;
use crate::front::gather::Gather;
use crate::front::giant::is_giant;
use crate::front::route::{self, Route};
use crate::front::session::ReplyMode;
use crate::front::table::Run;
use crate::front::{Answer, Ctx, FrontCommand, gate, words};
use crate::limits;
use crate::metrics::slow::Stage;
use crate::resp::args::{Args, Span};
use crate::resp::parse::{ParseLimits, Parser};
use crate::resp::reply::Reply;
use crate::shard::mesh::{Call, Calls, LineId, Message, OwnedCall};
use crate::slot::ShardId;
use bytes::Bytes;
use smallvec::SmallVec;

/// Of commands that can wait, those on streams do so only where they are told to.
fn may_wait(command: &KeyCommand, args: &Args<'_>) -> bool {
    command.spec.group != Group::Stream || (1..args.len()).any(|at| args.is(at, "block"))
}

/// What became of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    /// It may not run yet: later, with all behind it.
    Blocked,
    /// As `Blocked`, because the core has too much to do: try again next turn.
    Starved,
    /// The connection ends.
    Ends,
}

/// A giant command that may begin: its bytes are given away whole, not copied.
struct Giant {
    command: &'static KeyCommand,
    spans: Vec<Span>,
    /// Its bytes where the parser has taken them apart, if that is not where they arrived.
    scratch: Option<Bytes>,
    /// In the bytes that were to be parsed, behind those that were used before it.
    length: usize,
}

impl Core {
    /// Takes bytes from a socket.
    pub fn received(&mut self, place: usize, bytes: &[u8]) {
        self.owner.stats.input_bytes += bytes.len() as u64;
        let connection = &mut self.connections[place];
        if connection.closing {
            return;
        }
        if connection.leaving {
            // Another core will run it.
            return self.append(place, bytes);
        }
        if !connection.input.is_empty() || connection.blocked {
            self.append(place, bytes);
            self.resume(place);
        } else {
            let (mut used, giant) = self.run_commands(place, bytes);
            if let Some(giant) = giant {
                let end = used + giant.length;
                self.begin_giant(place, giant, Bytes::copy_from_slice(&bytes[used..end]));
                used = end;
            }
            self.append(place, &bytes[used..]);
            if !self.connections[place].input.is_empty() && self.connections[place].barrier {
                self.connections[place].blocked = true;
            }
        }
        self.list(place);
    }

    fn append(&mut self, place: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let config_max = self.node.config.client_query_buffer_limit as usize;
        let connection = &mut self.connections[place];
        if connection.closing {
            return;
        }
        if connection.input.len() + bytes.len() > config_max {
            tracing::warn!(
                client = connection.session.addr,
                "query buffer over its limit: connection closed"
            );
            connection.closing = true;
            return;
        }
        if let Some(wanted) = connection.parser.wanted_bytes()
            && wanted > connection.input.capacity()
            && wanted <= config_max
        {
            connection.input.reserve_exact(wanted - connection.input.len());
        } else if connection.input.len() + bytes.len() > connection.input.capacity().max(1 << 20) {
            let reserve = limits::INPUT_RESERVE_BYTES.min(config_max);
            connection.input.reserve_exact(reserve.saturating_sub(connection.input.len()));
        }
        connection.input.extend_from_slice(bytes);
    }

    /// Goes on with bytes that were kept.
    pub fn resume(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        if connection.leaving {
            return;
        }
        if connection.input.is_empty() || connection.closing {
            connection.blocked = false;
            return;
        }
        connection.blocked = false;
        let mut input = std::mem::take(&mut connection.input);
        let (used, giant) = self.run_commands(place, &input);
        if let Some(giant) = giant {
            let end = used + giant.length;
            let rest = input.split_off(end);
            self.begin_giant(place, giant, Bytes::from(input).slice(used..));
            input = rest;
            self.connections[place].blocked = !input.is_empty();
        } else if used == input.len() {
            // A buffer that one giant command has grown is not kept.
            input.clear();
            input.shrink_to(limits::INPUT_KEEP_BYTES);
        } else if used > 0 {
            input.drain(..used);
        }
        self.connections[place].input = input;
    }

    /// Runs what is complete; how many bytes were used, and the giant command that stands behind them.
    fn run_commands(&mut self, place: usize, bytes: &[u8]) -> (usize, Option<Giant>) {
        let connection = &mut self.connections[place];
        let line = LineId { core: self.node.core, conn: connection.id };
        let mut parser = std::mem::replace(&mut connection.parser, Parser::new());
        let (mut used, mut touched, mut giant) = (0, 0, None);
        let parse_limits = self.limits_for(place);
        self.start_clock();
        while used < bytes.len() {
            if used >= limits::PARSE_PER_TURN_MAX_BYTES {
                self.hold(place, Flow::Starved);
                break;
            }
            match parser.parse(&bytes[used..], &parse_limits) {
                Ok(Some(length)) => {
                    if used >= touched && used + length < bytes.len() {
                        let end = bytes.len().min(used + limits::LOOK_AHEAD_BYTES);
                        touched = used + self.look_ahead(place, &bytes[used..end], &parse_limits);
                    }
                    let args = parser.args(&bytes[used..]);
                    if is_giant(args.len(), length) {
                        match self.admit_giant(place, &args) {
                            Ok(Some(command)) => {
                                let scratch = parser.scratch().map(Bytes::copy_from_slice);
                                giant = Some(Giant { command, spans: parser.take_spans(), scratch, length });
                                break;
                            }
                            Ok(None) => {}
                            Err(flow) => {
                                self.hold(place, flow);
                                break;
                            }
                        }
                    }
                    let flow = if args.len() == 0 { Flow::Next } else { self.command(place, line, &args) };
                    if matches!(flow, Flow::Blocked | Flow::Starved) {
                        self.hold(place, flow);
                        if parser.scratch().is_some() {
                            // A typed line is taken apart anew; an array is not even looked at again.
                            parser.advance();
                        }
                        break;
                    }
                    parser.advance();
                    used += length;
                    if flow == Flow::Ends {
                        self.connections[place].closing = true;
                        used = bytes.len();
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let connection = &mut self.connections[place];
                    let manner = connection.manner();
                    let reply = Reply::Error(error.into());
                    self.owner.stats.note_reply(&reply);
                    connection.pending.reply(manner, reply, None);
                    connection.closing = true;
                    used = bytes.len();
                }
            }
        }
        self.connections[place].parser = parser;
        self.send_calls();
        (used, giant)
    }

    /// Has the keys touched that the next commands ask for; in how many bytes they stand. What is looked at is the
    /// first argument: mostly it is the key, and nothing comes of it if it is not.
    fn look_ahead(&mut self, place: usize, bytes: &[u8], parse_limits: &ParseLimits) -> usize {
        let (mut at, mut names) = (0, SmallVec::<[&[u8]; limits::LOOK_AHEAD_COMMANDS]>::new());
        while names.len() < limits::LOOK_AHEAD_COMMANDS
            && let Ok(Some(length)) = self.scout.parse(&bytes[at..], parse_limits)
        {
            if let (None, [_, key, ..]) = (self.scout.scratch(), self.scout.spans()) {
                let name = &bytes[at + key.start as usize..][..key.len as usize];
                if names.last() != Some(&name) {
                    names.push(name);
                }
            }
            self.scout.advance();
            at += length;
        }
        self.scout.advance();
        let table = self.connections[place].session.table;
        let hash = self.owner.hash_of(table);
        let place_of = |name| {
            let slot = hash.slot_of(name);
            (self.node.map.shard_of(slot), slot, name)
        };
        self.owner.touch(table, names.into_iter().map(place_of));
        at
    }

    /// Whether a giant command may begin now. None: it is refused, or is not about keys, and goes the way
    /// of all.
    fn admit_giant(&mut self, place: usize, args: &Args<'_>) -> Result<Option<&'static KeyCommand>, Flow> {
        let connection = &self.connections[place];
        let Ok(Run::Keys(command)) = gate::admit(&self.commands, &connection.session, self.standing(), args)
        else {
            return Ok(None);
        };
        let held = self.owner.held_slots.is_some()
            || self.owner.assigned.as_ref().is_some_and(|assigned| assigned.holds_any());
        if connection.barrier
            || !connection.pending.is_empty()
            || !connection.pending.out.is_empty()
            || self.holding.holds(&command.spec)
            || held
        {
            return Err(Flow::Blocked);
        }
        if self.coordination.giants() >= limits::GIANTS_PER_CORE_MAX {
            return Err(Flow::Starved);
        }
        Ok(Some(command))
    }

    fn begin_giant(&mut self, place: usize, giant: Giant, bytes: Bytes) {
        let Giant { command, spans, scratch, .. } = giant;
        let table = self.connections[place].session.table;
        let bytes = scratch.unwrap_or(bytes);
        if !self.watchers.is_empty() {
            self.show_to_watchers(place, command.spec.name, command.spec.flags, &Args::new(&bytes, &spans));
        }
        self.connections[place].session.written.note_any();
        self.note_command(place, command.spec.name);
        self.plan_giant(place, OwnedCall { command, table, shard: ShardId(0), bytes, spans });
    }

    fn standing(&self) -> gate::Standing {
        let (config, published) = (&self.node.config, &self.owner.published);
        gate::Standing {
            password_set: config.requirepass.is_set(),
            follows: published.follows(),
            is_sharded: self.owner.assigned.is_some(),
            lacks_followers: published.good_followers() < config.min_replicas_to_write,
            lacks_quorum: published.lacks_quorum(config.consensus_level),
        }
    }

    fn hold(&mut self, place: usize, flow: Flow) {
        let connection = &mut self.connections[place];
        connection.blocked = true;
        if flow == Flow::Starved {
            let id = connection.id;
            self.starved.push(id);
        }
    }

    /// Commands for other cores leave in one message for each.
    fn send_calls(&mut self) {
        for core in 0..self.calls.len() {
            if let Some(calls) = self.calls[core].take() {
                self.outbox.push((crate::slot::CoreId(core as u16), Message::Calls(calls)));
            }
        }
    }

    fn command(&mut self, place: usize, line: LineId, args: &Args<'_>) -> Flow {
        let connection = &mut self.connections[place];
        if connection.barrier || connection.pending.is_full() {
            return Flow::Blocked;
        }
        let standing = self.standing();
        let connection = &mut self.connections[place];
        let run = match gate::admit(&self.commands, &connection.session, standing, args) {
            Ok(run) => run,
            Err(error) => {
                let known = self.commands.find(args.get(0)).map_or("", |known| known.spec().name);
                self.refuse(place, error, known);
                return Flow::Next;
            }
        };
        // MONITOR itself is not shown to who has just begun to watch.
        let watched = !self.watchers.is_empty();
        let flow = match run {
            Run::Keys(command) => self.key_command(place, line, command, args),
            Run::Front(command) => self.front_command(place, command, args),
        };
        if flow != Flow::Blocked && flow != Flow::Starved {
            if watched {
                let flags = self.commands.spec_of(run, args).map_or(0, |spec| spec.flags);
                self.show_to_watchers(place, run.spec().name, flags, args);
            }
            self.note_command(place, run.spec().name);
            if let (Run::Keys(command), true) = (run, standing.is_sharded) {
                let table = self.connections[place].session.table;
                self.node.note_table(table, command.spec.has(flag::WRITE));
            }
        }
        flow
    }

    /// Answers a command that does not run; an unknown one has no name.
    fn refuse(&mut self, place: usize, error: ClientError, name: &'static str) {
        self.owner.stats.errors.note(&error);
        let connection = &mut self.connections[place];
        let manner = connection.manner();
        connection.pending.reply(manner, Reply::Error(error), None);
        if !name.is_empty() {
            self.timing.commands.rejected(name);
        }
    }

    /// In sharding mode, for WAIT.
    fn note_written(&mut self, place: usize, command: &KeyCommand, args: &Args<'_>) {
        let session = &mut self.connections[place].session;
        let hash = self.owner.hash_of(session.table);
        for key in command.spec.keys.of(args).unwrap_or_default() {
            let slot = hash.slot_of(args.get(key.arg));
            session.written.note(key.table.unwrap_or(session.table), slot);
        }
    }

    fn note_command(&mut self, place: usize, name: &'static str) {
        self.owner.stats.commands += 1;
        let now_ms = self.owner.clock.now_ms();
        let session = &mut self.connections[place].session;
        session.last_command = name;
        session.last_command_ms = now_ms;
        session.commands += 1;
    }

    fn key_command(
        &mut self,
        place: usize,
        line: LineId,
        command: &'static KeyCommand,
        args: &Args<'_>,
    ) -> Flow {
        if self.holding.holds(&command.spec) {
            return Flow::Blocked;
        }
        let table = self.connections[place].session.table;
        let is_sharded = self.owner.assigned.is_some();
        if is_sharded || self.owner.held_slots.is_some() {
            match self.verdict(place, &Call { command, table, shard: ShardId(0), args: *args }) {
                Verdict::Serve if is_sharded && command.spec.has(flag::WRITE) => {
                    self.note_written(place, command, args)
                }
                Verdict::Serve => {}
                Verdict::Hold => return Flow::Blocked,
                Verdict::Refuse(error) => {
                    self.refuse(place, error, command.spec.name);
                    return Flow::Next;
                }
            }
        }
        let connection = &mut self.connections[place];
        if command.spec.has(flag::BLOCKING) && may_wait(command, args) {
            if !connection.pending.is_empty() {
                return Flow::Blocked;
            }
            let call = Call { command, table, shard: ShardId(0), args: *args }.to_owned();
            let owed = self.wait_for_call(place, &call, Stage::Wait);
            self.begin_waiting(place, owed, call);
            return Flow::Next;
        }
        let route = route::route(&self.node.map, self.owner.hash_of(table), &command.spec, args);
        let connection = &mut self.connections[place];
        match route {
            Err(error) => {
                let manner = connection.manner();
                self.owner.stats.errors.note(&error);
                connection.pending.reply(manner, Reply::Error(error), None);
                self.ran(place, command.spec.name, true, args.len(), |at| args.get(at));
                Flow::Next
            }
            Ok(Route::One(shard)) => {
                self.one_shard(place, line, &Call { command, table, shard, args: *args })
            }
            Ok(Route::Table) => {
                if !connection.pending.is_empty() {
                    return Flow::Blocked;
                }
                let call = Call { command, table, shard: ShardId(0), args: *args }.to_owned();
                let owed = self.wait_for_call(place, &call, Stage::Gather);
                let protocol = self.connections[place].session.protocol;
                self.gather_owed(owed, |id, around| Gather::over_table(id, call, protocol, around));
                Flow::Next
            }
            Ok(Route::Several(keys)) => {
                if !connection.pending.is_empty() {
                    return Flow::Blocked;
                }
                let call = Call { command, table, shard: ShardId(0), args: *args }.to_owned();
                self.gather_command(place, call, &keys);
                self.note_lean(place, None);
                Flow::Next
            }
        }
    }

    fn one_shard(&mut self, place: usize, line: LineId, call: &Call<'_>) -> Flow {
        let owner_core = self.node.map.owner(call.shard);
        if owner_core == self.node.core {
            if self.owner.is_full() {
                return Flow::Starved;
            }
            let connection = &mut self.connections[place];
            let seq = connection.pending.next_seq();
            let manner = connection.manner();
            match self.owner.run(line, seq, call) {
                Some((reply, position)) => {
                    let failed = self.owner.stats.note_reply(&reply);
                    let gate = (position > 0).then_some(Gate { shard: call.shard, position });
                    connection.pending.reply(manner, reply, gate);
                    self.ran(place, call.command.spec.name, failed, call.args.len(), |at| call.args.get(at));
                }
                None => self.wait_for_one(place, manner, call, Stage::Wait),
            }
            self.note_lean(place, Some(owner_core));
            return Flow::Next;
        }
        let to = usize::from(owner_core.0);
        if self.congested[to] {
            return Flow::Starved;
        }
        let connection = &mut self.connections[place];
        let seq = connection.pending.next_seq();
        let manner = connection.manner();
        self.wait_for_one(place, manner, call, Stage::Hop);
        self.owner.stats.hops += 1;
        self.calls[to].get_or_insert_with(|| Calls::new(line)).push(call, seq);
        self.note_lean(place, Some(owner_core));
        Flow::Next
    }

    fn wait_for_one(&mut self, place: usize, manner: Manner, call: &Call<'_>, stage: Stage) {
        let begun = self.begun(call.command.spec.name, stage, call.args.len(), |at| call.args.get(at));
        self.connections[place].pending.wait(manner, begun);
    }

    fn front_command(&mut self, place: usize, command: &'static FrontCommand, args: &Args<'_>) -> Flow {
        if self.holding.holds(&command.spec) && command.spec.name != "client" {
            return Flow::Blocked;
        }
        let held = || self.owner.assigned.as_ref().is_some_and(|assigned| assigned.holds_any());
        if command.spec.has(flag::WRITE) && held() {
            return Flow::Blocked;
        }
        if command.spec.has(flag::WRITE) {
            self.connections[place].session.written.note_any();
        }
        let now_ms = self.owner.clock.now_ms();
        let connection = &mut self.connections[place];
        let waits = !connection.pending.is_empty();
        if waits && !command.spec.has(flag::FAST) {
            // It may be a barrier: that is known only when it has run, and it must not run twice.
            return Flow::Blocked;
        }
        let mut manner = connection.manner();
        let mode_before = connection.session.reply_mode;
        let monitored = connection.session.monitoring;
        let mut ctx = Ctx { session: &mut connection.session, node: &mut self.node, now_ms };
        let answer = (command.run)(&mut ctx, args);
        // Asking for it has changed nothing: it is asked for again when no slot moves.
        if self.owner.held_slots.is_some() && answer.as_ref().is_ok_and(Answer::is_about_all_keys) {
            return Flow::Blocked;
        }
        // HELLO is answered in the protocol it has chosen, and CLIENT REPLY ON is answered.
        manner.protocol = connection.session.protocol;
        if connection.session.reply_mode == ReplyMode::On && mode_before == ReplyMode::Off {
            manner.silent = false;
        }
        if monitored && !connection.session.monitoring {
            let conn = connection.id;
            self.stop_watching(conn);
        }
        let (reply, flow) = match answer {
            Err(error) => (Reply::Error(error), Flow::Next),
            Ok(Answer::Reply(reply)) => (reply, Flow::Next),
            Ok(Answer::Close(reply)) => (reply, Flow::Ends),
            Ok(later) => {
                let word = |at| words::shown(command.spec.name, args, at);
                let begun = self.begun(command.spec.name, Stage::Ask, args.len(), word);
                let owed = self.wait_behind_barrier(place, manner, begun);
                self.pursue(owed, Ok(later));
                return Flow::Next;
            }
        };
        let failed = self.owner.stats.note_reply(&reply);
        self.connections[place].pending.reply(manner, reply, None);
        let word = |at| words::shown(command.spec.name, args, at);
        self.ran(place, command.spec.name, failed, args.len(), word);
        flow
    }

    fn limits_for(&self, place: usize) -> ParseLimits {
        let unauthenticated = !self.connections[place].session.authenticated;
        ParseLimits {
            unauthenticated: unauthenticated && self.node.config.requirepass.is_set(),
            ..self.limits
        }
    }
}

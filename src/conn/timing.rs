//! How long commands take, from when their core turns to them to when their reply is there. Knows
//! commands by name only.
//!
//! One look at the clock for each command: the end of one is the beginning of the next.

use super::serve::Core;
use crate::command::flag;
use crate::metrics::TurnStage;
use crate::metrics::commands::CommandStats;
use crate::metrics::latency::Event;
use crate::metrics::slow::{SlowEntry, SlowLog, Stage, Words};
use crate::shard::owner::Owner;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a core notes of its commands' times.
pub struct Timing {
    /// When the command that runs now began.
    mark: Instant,
    pub commands: CommandStats,
    pub slow: SlowLog,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { mark: Instant::now(), commands: CommandStats::default(), slow: SlowLog::default() }
    }
}

/// Where one turn's time goes.
pub struct Stages {
    mark: Instant,
    took: [Duration; 4],
}

impl Stages {
    pub fn begin() -> Stages {
        Stages { mark: Instant::now(), took: [Duration::ZERO; 4] }
    }

    /// What was done since the last mark was this.
    pub fn end(&mut self, stage: TurnStage) {
        let now = Instant::now();
        self.took[stage as usize] = now - self.mark;
        self.mark = now;
    }

    /// The turn has done something, so it counts. Its length is without the kernel's part, which may wait.
    pub fn note(self, owner: &mut Owner) {
        for (times, took) in owner.times.turns.iter_mut().zip(self.took) {
            times.note(took);
        }
        let now_ms = owner.clock.now_ms();
        let ours = self.took.iter().sum::<Duration>() - self.took[TurnStage::Ring as usize];
        owner.events.note(Event::Turn, ours.as_nanos() as u64, now_ms);
        owner.events.note(Event::Commit, self.took[TurnStage::Commit as usize].as_nanos() as u64, now_ms);
        owner.stats.turns += 1;
        owner.stats.turn_max_us = owner.stats.turn_max_us.max(ours.as_micros() as u64);
    }
}

/// A command that will be answered later.
#[derive(Debug)]
pub struct Begun {
    name: &'static str,
    at: Instant,
    stage: Stage,
    /// Empty when there is no slow log.
    words: Words,
}

impl Begun {
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it waited for others was not its time.
    pub fn restart(&mut self, at: Instant) {
        self.at = at;
    }
}

#[cfg(test)]
impl Begun {
    /// For tests that look at replies alone.
    pub fn nothing() -> Box<Begun> {
        Box::new(Begun { name: "ping", at: Instant::now(), stage: Stage::Run, words: Words::default() })
    }
}

impl Core {
    /// Commands are about to run: what was before is not their time.
    pub fn start_clock(&mut self) {
        self.timing.mark = Instant::now();
    }

    /// A command has been answered at once.
    pub fn ran<'a>(
        &mut self,
        place: usize,
        name: &'static str,
        failed: bool,
        count: usize,
        word: impl Fn(usize) -> &'a [u8],
    ) {
        let now = Instant::now();
        let nanos = (now - self.timing.mark).as_nanos() as u64;
        self.timing.mark = now;
        self.note_times(name, nanos, failed);
        if self.is_slow(nanos) {
            self.note_slow(place, nanos, Words::of(count, word), Stage::Run);
        }
    }

    /// A command begins that is answered later.
    pub fn begun<'a>(
        &mut self,
        name: &'static str,
        stage: Stage,
        count: usize,
        word: impl Fn(usize) -> &'a [u8],
    ) -> Box<Begun> {
        let logged = self.node.config.slowlog_log_slower_than_us >= 0;
        let words = if logged { Words::of(count, word) } else { Words::default() };
        let at = std::mem::replace(&mut self.timing.mark, Instant::now());
        Box::new(Begun { name, at, stage, words })
    }

    /// It has its reply now.
    pub fn ended(&mut self, place: usize, begun: Begun, failed: bool) {
        let nanos = begun.at.elapsed().as_nanos() as u64;
        self.note_times(begun.name, nanos, failed);
        if self.is_slow(nanos) {
            self.note_slow(place, nanos, begun.words, begun.stage);
        }
    }

    fn note_times(&mut self, name: &'static str, nanos: u64, failed: bool) {
        self.timing.commands.ran(name, nanos, failed);
        let threshold_ms = self.owner.events.threshold_ms;
        if threshold_ms > 0 && nanos / 1_000_000 >= threshold_ms {
            let is_fast = self.commands.find(name.as_bytes()).is_some_and(|run| run.spec().has(flag::FAST));
            let event = if is_fast { Event::FastCommand } else { Event::Command };
            self.owner.events.note(event, nanos, self.owner.clock.now_ms());
        }
    }

    fn is_slow(&self, nanos: u64) -> bool {
        let config = &self.node.config;
        let slower_than_us = config.slowlog_log_slower_than_us;
        slower_than_us >= 0 && config.slowlog_max_len > 0 && nanos / 1000 >= slower_than_us as u64
    }

    fn note_slow(&mut self, place: usize, nanos: u64, words: Words, stage: Stage) {
        let session = &self.connections[place].session;
        let entry = SlowEntry {
            id: self.shared.next_slow_id.fetch_add(1, Ordering::Relaxed),
            at_s: self.owner.clock.now_ms() / 1000,
            micros: nanos / 1000,
            words,
            addr: session.addr.clone(),
            name: session.name.clone(),
            stage,
        };
        self.timing.slow.push(entry, self.node.config.slowlog_max_len as usize);
    }
}

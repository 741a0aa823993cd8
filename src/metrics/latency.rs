//! LATENCY's event monitor: what took longer than the threshold on one core, and when. Pure.

use std::collections::VecDeque;

/// Entries kept of each event; Redis's number.
const KEPT: usize = 160;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A command of those that Redis does not call fast.
    Command,
    FastCommand,
    /// A core's whole turn, without the kernel's part.
    Turn,
    /// A turn's writes to log and memtables.
    Commit,
    /// A sync of a log, away from the core.
    LogSync,
    /// A command's wait for the disk.
    ColdRead,
}

impl Event {
    pub const ALL: [Event; 6] =
        [Event::Command, Event::FastCommand, Event::Turn, Event::Commit, Event::LogSync, Event::ColdRead];

    pub fn name(self) -> &'static str {
        match self {
            Event::Command => "command",
            Event::FastCommand => "fast-command",
            Event::Turn => "turn",
            Event::Commit => "commit",
            Event::LogSync => "log-sync",
            Event::ColdRead => "cold-read",
        }
    }
}

/// The worst of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Since the epoch.
    pub second: u64,
    pub millis: u64,
}

/// One event's samples, oldest first, and the worst since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    pub samples: VecDeque<Sample>,
    pub max_millis: u64,
}

impl Series {
    fn note(&mut self, sample: Sample) {
        self.max_millis = self.max_millis.max(sample.millis);
        match self.samples.back_mut() {
            Some(last) if last.second == sample.second => last.millis = last.millis.max(sample.millis),
            _ => self.samples.push_back(sample),
        }
        if self.samples.len() > KEPT {
            self.samples.pop_front();
        }
    }

    /// Adds another core's.
    pub fn add(&mut self, other: &Series) {
        let mut all: Vec<Sample> = self.samples.iter().chain(&other.samples).copied().collect();
        all.sort_by_key(|sample| sample.second);
        let max_millis = self.max_millis.max(other.max_millis);
        *self = Series::default();
        all.into_iter().for_each(|sample| self.note(sample));
        self.max_millis = max_millis;
    }
}

/// All events of one core.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Milliseconds from which something is noted; 0: nothing is.
    pub threshold_ms: u64,
    series: [Series; 6],
}

impl Events {
    /// `nanos`: how long it took; `now_ms`: since the epoch.
    pub fn note(&mut self, event: Event, nanos: u64, now_ms: u64) {
        let millis = nanos / 1_000_000;
        if self.threshold_ms > 0 && millis >= self.threshold_ms {
            self.series[event as usize].note(Sample { second: now_ms / 1000, millis });
        }
    }

    pub fn series(&self, event: Event) -> &Series {
        &self.series[event as usize]
    }

    /// Forgets one event.
    pub fn reset(&mut self, event: Event) {
        self.series[event as usize] = Series::default();
    }

    /// Adds another core's.
    pub fn add(&mut self, other: &Events) {
        for (ours, theirs) in self.series.iter_mut().zip(&other.series) {
            ours.add(theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn only_what_reaches_the_threshold_is_noted_and_of_a_second_the_worst() {
        let mut events = Events::default();
        events.note(Event::Turn, 500 * MS, 1_000);
        assert!(events.series(Event::Turn).samples.is_empty(), "off");
        events.threshold_ms = 10;
        for (millis, now_ms) in [(9, 1_000), (10, 1_100), (30, 1_900), (20, 1_950), (11, 2_000)] {
            events.note(Event::Turn, millis * MS, now_ms);
        }
        let series = events.series(Event::Turn);
        let seen: Vec<_> = series.samples.iter().map(|sample| (sample.second, sample.millis)).collect();
        assert_eq!((seen, series.max_millis), (vec![(1, 30), (2, 11)], 30));
        events.reset(Event::Turn);
        assert_eq!(events.series(Event::Turn), &Series::default());
    }

    #[test]
    fn cores_are_merged_by_second_and_the_oldest_give_way() {
        let of = |seconds: std::ops::Range<u64>, millis| {
            let mut events = Events { threshold_ms: 1, ..Events::default() };
            seconds.for_each(|second| events.note(Event::Command, millis * MS, second * 1000));
            events
        };
        let mut one = of(0..100, 5);
        one.add(&of(50..250, 7));
        let series = one.series(Event::Command);
        assert_eq!((series.samples.len(), series.max_millis), (KEPT, 7));
        assert!(
            series
                .samples
                .iter()
                .zip(90..)
                .all(|(sample, second)| sample.second == second && sample.millis == 7)
        );
    }
}

//! Latencies as they are counted while a run goes on. Knows time and numbers only.

use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// Latencies are counted in microseconds up to here; what waits longer counts as this long.
pub const LONGEST_US: u64 = 600_000_000;

/// A histogram that tells values apart to three digits: for a run's percentiles.
pub fn exact() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are constants")
}

/// A histogram of two digits: for one second among many.
pub fn coarse() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are constants")
}

/// What one thread saw in one second of the run.
pub struct Second {
    /// Its number, from the end of the warm-up.
    pub number: u64,
    /// Latencies of what ended in it.
    pub latencies_us: Histogram<u32>,
}

/// One thread's count of a whole run.
pub struct Tally {
    /// By operation of the workload.
    pub by_operation: Vec<Histogram<u64>>,
    /// What was answered wrongly or with an error.
    pub errors: u64,
    /// The first of them, for the user.
    pub first_error: Option<String>,
    /// What was sent and not answered before the run was over.
    pub unanswered: u64,
    second: Second,
    finished: VecDeque<Second>,
}

impl Tally {
    /// An empty count for a workload of so many operations.
    pub fn new(operations: usize) -> Tally {
        Tally {
            by_operation: (0..operations).map(|_| exact()).collect(),
            errors: 0,
            first_error: None,
            unanswered: 0,
            second: Second { number: 0, latencies_us: coarse() },
            finished: VecDeque::new(),
        }
    }

    /// An operation ended `ended_ns` after the warm-up, having taken `latency_ns`.
    pub fn count(&mut self, operation: usize, ended_ns: u64, latency_ns: u64) {
        let number = ended_ns / 1_000_000_000;
        if number != self.second.number {
            let ended = std::mem::replace(&mut self.second, Second { number, latencies_us: coarse() });
            self.finished.push_back(ended);
        }
        let us = latency_ns.div_ceil(1000).clamp(1, LONGEST_US);
        self.by_operation[operation].saturating_record(us);
        self.second.latencies_us.saturating_record(us);
    }

    /// An operation was answered otherwise than it should.
    pub fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(what);
    }

    /// Seconds that are over, each once.
    pub fn finished(&mut self) -> Option<Second> {
        self.finished.pop_front()
    }

    /// The last second, at the end.
    pub fn last(&mut self) -> Second {
        std::mem::replace(&mut self.second, Second { number: u64::MAX, latencies_us: coarse() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_handed_out_when_they_are_over() {
        let mut tally = Tally::new(1);
        tally.count(0, 10, 5_000);
        tally.count(0, 999_999_999, 5_001);
        assert!(tally.finished().is_none());
        tally.count(0, 2_000_000_000, 1);
        let second = tally.finished().unwrap();
        assert_eq!((second.number, second.latencies_us.len(), second.latencies_us.max()), (0, 2, 6));
        assert_eq!(tally.last().number, 2);
        assert_eq!(tally.by_operation[0].len(), 3);
    }
}

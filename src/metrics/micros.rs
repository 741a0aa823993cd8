//! How long something took, as a distribution: microseconds, to two digits.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Longer ones count as this long.
const LONGEST_US: u64 = 600_000_000;

/// A distribution of times, rounded up to microseconds, with their exact sum.
#[derive(Clone, Debug)]
pub struct Micros {
    counts: Histogram<u32>,
    nanos: u64,
}

impl Default for Micros {
    fn default() -> Micros {
        let counts = Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are constants");
        Micros { counts, nanos: 0 }
    }
}

impl Micros {
    pub fn note(&mut self, took: Duration) {
        self.note_nanos(took.as_nanos() as u64);
    }

    pub fn note_nanos(&mut self, nanos: u64) {
        self.nanos += nanos;
        self.counts.saturating_record(nanos.div_ceil(1000).max(1));
    }

    pub fn add(&mut self, other: &Micros) {
        self.nanos += other.nanos;
        self.counts.add(&other.counts).expect("all have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// Sum of all, nanoseconds.
    pub fn nanos(&self) -> u64 {
        self.nanos
    }

    /// The time that this part of all did not exceed, microseconds.
    pub fn at_quantile(&self, quantile: f64) -> u64 {
        self.counts.value_at_quantile(quantile)
    }

    pub fn max_us(&self) -> u64 {
        if self.counts.is_empty() { 0 } else { self.counts.max() }
    }

    /// How many took at most this long.
    pub fn upto(&self, micros: u64) -> u64 {
        self.counts.count_between(0, micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_and_never_lost() {
        let mut times = Micros::default();
        times.note_nanos(1);
        times.note_nanos(1_001);
        times.note(Duration::from_secs(100_000));
        assert_eq!((times.count(), times.upto(1), times.upto(2)), (3, 1, 2));
        assert_eq!(times.nanos(), 100_000_000_001_002);
        assert!(times.max_us() >= LONGEST_US);
        let mut sum = Micros::default();
        assert_eq!(sum.max_us(), 0);
        sum.add(&times);
        assert_eq!((sum.count(), sum.nanos()), (times.count(), times.nanos()));
    }
}

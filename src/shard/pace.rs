//! Slows writers on admission before RocksDB would refuse them.
//!
//! Multiplicative: while RocksDB's backlog is above the mark the allowed rate falls from what was
//! written last, and rises again when the backlog shrinks.

/// Backlog level (1 = RocksDB refuses) from which writers are slowed.
const SLOW_FROM: f64 = 0.5;
/// Writers are never slowed below this.
const RATE_MIN_PER_S: f64 = 500.0;

pub struct Pace {
    /// Writes a second; None: as many as come.
    rate: Option<f64>,
    tokens: f64,
    admitted: u64,
    last_ms: u64,
}

impl Pace {
    pub fn new(now_ms: u64) -> Pace {
        Pace { rate: None, tokens: 0.0, admitted: 0, last_ms: now_ms }
    }

    /// Whether one more write may run now.
    pub fn admits(&mut self) -> bool {
        if self.rate.is_some() {
            if self.tokens < 1.0 {
                return false;
            }
            self.tokens -= 1.0;
        }
        self.admitted += 1;
        true
    }

    /// Gives out what has been earned since the last call.
    pub fn refill(&mut self, elapsed_ms: u64) {
        if let Some(rate) = self.rate {
            // No more than a tenth of a second's worth is saved up.
            self.tokens = (self.tokens + rate * elapsed_ms as f64 / 1000.0).min(rate / 10.0);
        }
    }

    /// Takes a new measurement of RocksDB's backlog, a few times a second.
    pub fn measure(&mut self, level: f64, now_ms: u64) {
        let elapsed_s = (now_ms.saturating_sub(self.last_ms)).max(1) as f64 / 1000.0;
        let seen = self.admitted as f64 / elapsed_s;
        (self.admitted, self.last_ms) = (0, now_ms);
        self.rate = match self.rate {
            None if level < SLOW_FROM => None,
            None => Some((seen * 0.9).max(RATE_MIN_PER_S)),
            Some(rate) if level >= SLOW_FROM => {
                // The closer to a stall, the harder: a tenth off at the mark, half at the end.
                let keep = 0.9 - 0.4 * ((level - SLOW_FROM) / (1.0 - SLOW_FROM)).min(1.0);
                Some((rate.min(seen.max(RATE_MIN_PER_S)) * keep).max(RATE_MIN_PER_S))
            }
            // Far above what is asked for, the limit has no meaning any more.
            Some(rate) if rate > 4.0 * seen.max(RATE_MIN_PER_S) => None,
            Some(rate) => Some(rate * 1.2),
        };
    }

    /// Writes a second that are let in; None: as many as come.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_under_pressure_and_the_limit_ends_after_it() {
        let mut pace = Pace::new(0);
        for _ in 0..10_000 {
            assert!(pace.admits());
        }
        pace.measure(0.8, 100);
        assert!(pace.rate().is_some() && !pace.admits());
        pace.refill(10);
        let mut granted = 0;
        while pace.admits() {
            granted += 1;
        }
        assert!((100..=1000).contains(&granted), "{granted} of 100,000/s in 10 ms");
        for round in 2..60 {
            pace.measure(0.1, round * 100);
        }
        assert!(pace.rate().is_none());
    }
}

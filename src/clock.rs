//! The time as one core sees it: read once at the start of a turn, the same for all that the turn does.
//!
//! Passed around, never global, so that tests say what time it is. Knows nothing of timers or executors.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall clock and monotonic clock of one core, as of its last `tick`.
#[derive(Clone, Debug)]
pub struct Clock {
    wall_us: u64,
    monotonic_us: u64,
    /// None: time stands still unless it is set.
    source: Option<Instant>,
}

impl Clock {
    /// The machine's time, read now.
    pub fn system() -> Clock {
        let mut clock = Clock { wall_us: 0, monotonic_us: 0, source: Some(Instant::now()) };
        clock.tick();
        clock
    }

    /// A clock that only moves when told to; milliseconds since the epoch.
    pub fn manual(now_ms: u64) -> Clock {
        Clock { wall_us: now_ms * 1000, monotonic_us: 0, source: None }
    }

    /// Reads the machine's clocks: once per turn. Does nothing to a manual clock.
    pub fn tick(&mut self) {
        if let Some(started) = self.source {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
            self.wall_us = since_epoch.as_micros() as u64;
            self.monotonic_us = started.elapsed().as_micros() as u64;
        }
    }

    /// Milliseconds since the epoch. May step back when the machine's clock is set.
    pub fn now_ms(&self) -> u64 {
        self.wall_us / 1000
    }

    /// Microseconds since the epoch, as TIME answers them.
    pub fn now_us(&self) -> u64 {
        self.wall_us
    }

    /// Microseconds since this clock was made; never steps back. For intervals and latencies.
    pub fn monotonic_us(&self) -> u64 {
        self.monotonic_us
    }

    /// Milliseconds since this clock was made; never steps back.
    pub fn monotonic_ms(&self) -> u64 {
        self.monotonic_us / 1000
    }

    /// Moves both clocks of a manual clock on.
    pub fn advance_ms(&mut self, ms: u64) {
        assert!(self.source.is_none(), "the machine's clock is not ours to move");
        self.wall_us += ms * 1000;
        self.monotonic_us += ms * 1000;
    }

    /// Sets the wall clock of a manual clock, backwards too; the monotonic one stays.
    pub fn set_ms(&mut self, now_ms: u64) {
        assert!(self.source.is_none(), "the machine's clock is not ours to set");
        self.wall_us = now_ms * 1000;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_stands_still_within_a_turn_and_moves_with_a_tick() {
        let mut clock = Clock::system();
        let (wall, monotonic) = (clock.now_us(), clock.monotonic_us());
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!((clock.now_us(), clock.monotonic_us()), (wall, monotonic));
        clock.tick();
        assert!(clock.monotonic_us() >= monotonic + 3000);
        assert!(clock.now_ms() > 1_700_000_000_000, "{} is no date of ours", clock.now_ms());
    }

    #[test]
    fn a_manual_clock_obeys() {
        let mut clock = Clock::manual(5_000);
        clock.tick();
        assert_eq!((clock.now_ms(), clock.monotonic_ms()), (5_000, 0));
        clock.advance_ms(250);
        assert_eq!((clock.now_ms(), clock.monotonic_ms()), (5_250, 250));
        clock.set_ms(1_000);
        assert_eq!((clock.now_us(), clock.monotonic_ms()), (1_000_000, 250));
    }
}

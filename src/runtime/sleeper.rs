//! How a thread without a ring waits for what cores send it.

use super::doorbell::Doorbell;
use std::io;
use std::time::Duration;

/// A thread's own bell, and how it sleeps until it rings.
pub struct Sleeper {
    bell: Doorbell,
}

impl Sleeper {
    pub fn new() -> io::Result<Sleeper> {
        Ok(Sleeper { bell: Doorbell::new()? })
    }

    pub fn doorbell(&self) -> Doorbell {
        self.bell.clone()
    }

    /// Sleeps until the bell rings or the time is over; not at all if `ready` finds something.
    pub fn sleep(&self, timeout: Duration, ready: impl FnOnce() -> bool) -> io::Result<()> {
        self.bell.prepare_sleep();
        let slept = if ready() { Ok(()) } else { self.bell.wait(timeout) };
        self.bell.wake();
        slept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_wakes_when_rung_and_when_the_time_is_over() {
        let sleeper = Sleeper::new().unwrap();
        let began = Instant::now();
        sleeper.sleep(Duration::from_millis(20), || false).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(20));
        sleeper.sleep(Duration::from_secs(60), || true).unwrap();
        let bell = sleeper.doorbell();
        let ringing = std::thread::spawn(move || {
            while !bell.is_awaited() {
                std::thread::yield_now();
            }
            bell.ring();
        });
        sleeper.sleep(Duration::from_secs(60), || false).unwrap();
        ringing.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

//! How a thread with a tokio runtime waits for what cores send it: its bell as a descriptor that tokio watches.
//!
//! Must not know what was sent.

use super::doorbell::Doorbell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

struct Bell(Doorbell);

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.raw_fd()
    }
}

/// A thread's own bell, and how one of its tasks sleeps until it rings.
pub struct Alarm(AsyncFd<Bell>);

impl Alarm {
    /// `bell`: of a `Sleeper` that nobody sleeps on. To be called inside the runtime.
    pub fn new(bell: Doorbell) -> io::Result<Alarm> {
        // SAFETY: the descriptor is that of an eventfd which the bell, kept inside beside it, holds open until
        // tokio has let go of it: `AsyncFd` deregisters before it drops what it was given.
        let watched = unsafe { AsyncFd::register_with_interest(Bell(bell), Interest::READABLE) };
        Ok(Alarm(watched.map_err(|error| error.into_parts().1)?))
    }

    /// Sleeps until the bell rings or the time is over; not at all if `ready` finds something.
    pub async fn sleep(&self, timeout: Duration, ready: impl FnOnce() -> bool) -> io::Result<()> {
        let bell = &self.0.get_ref().0;
        bell.prepare_sleep();
        let slept = if ready() { Ok(()) } else { self.wait(timeout).await };
        bell.wake();
        slept
    }

    async fn wait(&self, timeout: Duration) -> io::Result<()> {
        let Ok(rung) = tokio::time::timeout(timeout, self.0.readable()).await else { return Ok(()) };
        let mut rung = rung?;
        self.0.get_ref().0.wait(Duration::ZERO)?;
        rung.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sleeper::Sleeper;
    use super::*;
    use std::time::Instant;

    #[test]
    fn it_wakes_when_rung_and_when_the_time_is_over() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bell = Sleeper::new().unwrap().doorbell();
            let alarm = Alarm::new(bell.clone()).unwrap();
            let began = Instant::now();
            for _ in 0..3 {
                alarm.sleep(Duration::from_millis(20), || false).await.unwrap();
            }
            assert!(began.elapsed() >= Duration::from_millis(60));
            alarm.sleep(Duration::from_secs(60), || true).await.unwrap();
            for _ in 0..3 {
                let bell = bell.clone();
                let ringing = std::thread::spawn(move || {
                    while !bell.is_awaited() {
                        std::thread::yield_now();
                    }
                    bell.ring();
                });
                alarm.sleep(Duration::from_secs(60), || false).await.unwrap();
                ringing.join().unwrap();
            }
            assert!(began.elapsed() < Duration::from_secs(60));
        });
    }
}

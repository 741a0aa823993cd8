//! Waking a sleeping core from any thread, and costing next to nothing while it is awake.
//!
//! The protocol (Dekker's: each side writes its own word, then looks at the other's):
//!
//! * who has work publishes it (a lane, a queue), then calls [`Doorbell::ring`]: a full fence, then a look
//!   at `sleeping`;
//! * who wants to sleep calls `prepare_sleep` (sets `sleeping`, then a full fence), looks at its lanes and
//!   queues once more, and only then sleeps, or calls `cancel_sleep` if it found something.
//!
//! Whichever fence comes second sees the other side's write, so a wake is never missed. The first ringer
//! takes the flag down: one sleep costs its wakers one eventfd write in all. A write that comes after the
//! sleeper changed its mind makes its next sleep end at once, and that is all it does.
//!
//! Must not know what was published, or what the sleeper waits for.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

/// Wakes one core. Clones ring the same bell.
#[derive(Clone)]
pub struct Doorbell(Arc<Bell>);

struct Bell {
    eventfd: File,
    sleeping: AtomicBool,
}

impl Doorbell {
    pub(super) fn new() -> io::Result<Doorbell> {
        // SAFETY: eventfd takes no pointers, and a descriptor it returns is new and ours alone.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Doorbell(Arc::new(Bell { eventfd: File::from(eventfd), sleeping: AtomicBool::new(false) })))
    }

    /// Wakes the core if it sleeps or is about to; call it after the work is visible to it.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.0.sleeping.load(Ordering::Relaxed) && self.0.sleeping.swap(false, Ordering::Relaxed) {
            (&self.0.eventfd).write_all(&1u64.to_ne_bytes()).expect("an eventfd takes 2^64 - 2 wakes");
        }
    }

    pub(super) fn prepare_sleep(&self) {
        self.0.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn wake(&self) {
        self.0.sleeping.store(false, Ordering::Relaxed);
    }

    /// Waits, after `prepare_sleep`, until it is rung or the time is over.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut watched = libc::pollfd { fd: self.raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = timeout.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: the pointer is to one pollfd that lives on this stack frame, and the count says one.
        let rung = unsafe { libc::poll(&mut watched, 1, millis) };
        match rung {
            0 => Ok(()),
            1 => (&self.0.eventfd).read_exact(&mut [0; 8]),
            _ => match io::Error::last_os_error() {
                // A signal: the caller looks again.
                error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                error => Err(error),
            },
        }
    }

    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        self.0.sleeping.load(Ordering::SeqCst)
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }
}

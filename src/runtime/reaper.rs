//! Frees large memory away from the cores: giving hundreds of megabytes back to the system, or dropping a
//! million small things, takes longer than a turn may.
//!
//! One thread for the process. Must not know what it frees.

use std::any::Any;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

/// What waits to be freed, at most; beyond it the caller frees for itself, so that memory stays bounded.
const WAITING_MAX: usize = 1024;

/// Below this many bytes freeing costs no more than sending.
pub const WORTH_BYTES: usize = 256 * 1024;

static REAPER: OnceLock<SyncSender<Box<dyn Any + Send>>> = OnceLock::new();

/// Starts the thread, on the CPUs where the caller may run. Before it is started everything is freed in place.
pub fn start() -> io::Result<()> {
    let (send, receive) = sync_channel::<Box<dyn Any + Send>>(WAITING_MAX);
    thread::Builder::new().name("reaper".to_owned()).spawn(move || receive.iter().for_each(drop))?;
    // A second start of the same process finds the first one's thread; its own ends with its channel.
    let _ = REAPER.set(send);
    Ok(())
}

/// Drops a value elsewhere. Not for what needs no freeing: each call allocates.
pub fn free(value: impl Send + 'static) {
    if let Some(reaper) = REAPER.get() {
        // Refused when too much waits: the value is dropped here.
        drop(reaper.try_send(Box::new(value)));
    }
}

/// Frees a buffer: elsewhere if it is large.
pub fn free_buffer(buffer: Vec<u8>) {
    if buffer.capacity() >= WORTH_BYTES {
        free(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    struct Tells(std::sync::mpsc::Sender<Option<String>>);

    impl Drop for Tells {
        fn drop(&mut self) {
            let name = thread::current().name().map(str::to_owned);
            self.0.send(name).expect("the test waits for it");
        }
    }

    #[test]
    fn what_is_freed_is_dropped_on_the_reapers_thread() {
        start().expect("a thread can be started");
        let (send, receive) = channel();
        free(Tells(send));
        let freed_by = receive.recv_timeout(Duration::from_secs(10)).expect("it is dropped");
        assert_eq!(freed_by.as_deref(), Some("reaper"));
    }
}

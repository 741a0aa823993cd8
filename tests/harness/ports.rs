//! Ports that no other test holds. Servers listen with SO_REUSEPORT, so a bind alone proves nothing:
//! two of them would share a port without a word.

use std::fs::{File, create_dir_all};
use std::net::TcpListener;

const FIRST: u16 = 21_000;
/// A server's own port and, after it, one per core.
const BLOCK: u16 = 16;
const BLOCKS: u16 = 500;

/// A block of ports, reserved on this machine until it is dropped.
pub struct Ports {
    pub first: u16,
    _lock: File,
}

pub fn reserve() -> Ports {
    let dir = std::env::temp_dir().join("haypile-test-ports");
    create_dir_all(&dir).expect("the temporary directory is writable");
    let start = std::process::id() as u16 % BLOCKS;
    for step in 0..BLOCKS {
        let first = FIRST + (start + step) % BLOCKS * BLOCK;
        let lock = File::create(dir.join(first.to_string())).expect("the temporary directory is writable");
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if lock.try_lock().is_ok() && (first..first + BLOCK).all(free) {
            return Ports { first, _lock: lock };
        }
    }
    panic!("no free ports from {FIRST} up");
}

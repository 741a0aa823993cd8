//! What a thread gets of a CPU that others want too.
//!
//! Must not know why it gives way.

use rustix::process::nice;

/// The calling thread, and those that it starts, give way to others by so many steps of niceness; 0: not at all.
pub fn give_way(by: i32) {
    assert!(by >= 0, "to come before others takes rights that the process may not have");
    // On Linux niceness is a thread's own.
    nice(by).expect("a thread may always give way");
}

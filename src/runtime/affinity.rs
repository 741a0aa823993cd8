//! Pinning the calling thread to a set of CPUs.
//!
//! One system call and its `unsafe`; must not know why a thread is pinned.

use std::io;

/// Restricts the calling thread to `cpus`.
pub(super) fn pin_current_thread(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: `cpu_set_t` is a plain bit array for which all zeroes is the empty set; CPU_SET checks its
    // index against the array's length; the call reads exactly the bytes of `set`, and pid 0 is this thread.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

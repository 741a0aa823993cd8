//! Socket options that std does not set.
//!
//! One system call and its `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Switches Nagle's delay off; sockets accepted from a listener inherit it.
pub(super) fn set_nodelay(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

/// Probes a silent peer after `idle` and gives up on it at about twice that, as Redis does (anet.c);
/// zero switches it off.
pub(super) fn set_keepalive(socket: impl AsFd, idle: Duration) -> io::Result<()> {
    let socket = socket.as_fd();
    let secs = i32::try_from(idle.as_secs()).unwrap_or(i32::MAX);
    set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, i32::from(secs > 0))?;
    if secs > 0 {
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, secs)?;
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (secs / 3).max(1))?;
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)?;
    }
    Ok(())
}

fn set(socket: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the option's value is an int, read from `value` with its own size; the descriptor is borrowed.
    let result =
        unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of::<i32>() as u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

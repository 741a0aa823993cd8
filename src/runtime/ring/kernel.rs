//! The io_uring itself: entries in, completions out, one system call for both.
//!
//! Must not know sockets or their state. An entry's user data is opaque here.

use super::op::Op;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// The one group of provided receive buffers of a ring.
pub(super) const BUFFER_GROUP: u16 = 0;

/// From linux/io_uring.h: the crate keeps its flags of `enter` to itself.
const ENTER_GETEVENTS: u32 = 1;

#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub op: Op,
    pub result: i32,
    pub flags: u32,
}

pub(super) struct Kernel {
    uring: IoUring,
    /// Entries that found the submission queue full even after a submit. Bounded by what may be in flight:
    /// a few for each socket.
    waiting: VecDeque<squeue::Entry>,
    /// Boxed: the kernel reads them when an entry is submitted, and `Kernel` may have moved by then.
    ticks: Box<Ticks>,
    pub enters: u64,
}

struct Ticks {
    busy: Timespec,
    idle: Timespec,
}

/// How soon the next tick is due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Busy,
    Idle,
}

/// A ring of the kind the sockets need.
pub(super) fn build(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        // One entry may bring many completions: accepts and receives are multishot.
        .setup_cqsize(entries.saturating_mul(4))
        .setup_clamp()
        .build(entries)
}

impl Kernel {
    pub fn new(entries: u32, busy_tick: Duration, idle_tick: Duration) -> io::Result<Kernel> {
        Ok(Kernel {
            uring: build(entries)?,
            waiting: VecDeque::new(),
            ticks: Box::new(Ticks { busy: busy_tick.into(), idle: idle_tick.into() }),
            enters: 0,
        })
    }

    pub fn uring(&self) -> &IoUring {
        &self.uring
    }

    pub fn accept(&mut self, fd: RawFd, op: Op) -> io::Result<()> {
        self.push(opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build(), op)
    }

    pub fn receive(&mut self, fd: RawFd, op: Op) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP).build(), op)
    }

    /// # Safety
    /// `bytes` must stay where they are, unchanged, until the completion of `op` has come.
    pub unsafe fn send(&mut self, fd: RawFd, bytes: &[u8], op: Op) -> io::Result<()> {
        // The rest of a longer buffer is sent as if the kernel had sent short.
        let len = u32::try_from(bytes.len()).unwrap_or(1 << 30);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        self.push(opcode::Send::new(Fd(fd), bytes.as_ptr(), len).flags(flags).build(), op)
    }

    /// Asks for the end of `target`, which then completes as cancelled, or otherwise if it was quicker.
    pub fn cancel(&mut self, target: Op, op: Op) -> io::Result<()> {
        self.push(opcode::AsyncCancel::new(target.user_data()).build(), op)
    }

    pub fn cancel_everything(&mut self, op: Op) -> io::Result<()> {
        self.push(opcode::AsyncCancel2::new(CancelBuilder::any()).build(), op)
    }

    /// Completes once for every write to this eventfd.
    pub fn watch(&mut self, eventfd: RawFd, op: Op) -> io::Result<()> {
        self.push(opcode::PollAdd::new(Fd(eventfd), libc::POLLIN as u32).multi(true).build(), op)
    }

    pub fn tick(&mut self, pace: Pace, op: Op) -> io::Result<()> {
        let after = self.after(pace);
        self.push(opcode::Timeout::new(after).build(), op)
    }

    /// Moves the tick in flight, if it has not come.
    pub fn move_tick(&mut self, pace: Pace, target: Op, op: Op) -> io::Result<()> {
        let after = self.after(pace);
        self.push(opcode::TimeoutUpdate::new(target.user_data(), after).build(), op)
    }

    fn after(&self, pace: Pace) -> *const Timespec {
        match pace {
            Pace::Busy => &self.ticks.busy,
            Pace::Idle => &self.ticks.idle,
        }
    }

    fn push(&mut self, entry: squeue::Entry, op: Op) -> io::Result<()> {
        let entry = entry.user_data(op.user_data());
        if self.waiting.is_empty()
            && (self.try_push(&entry) || {
                self.submit()?;
                self.try_push(&entry)
            })
        {
            return Ok(());
        }
        self.waiting.push_back(entry);
        Ok(())
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: every entry is made by the functions above. Descriptors are only numbers to the kernel; the
        // timespecs are boxed and live as long as the ring; sent bytes are vouched for by the caller of
        // `send`; received bytes go to the registered buffers, which outlive the ring's use (`buffers.rs`).
        unsafe { self.uring.submission().push(entry).is_ok() }
    }

    fn submit(&mut self) -> io::Result<()> {
        self.system_call(0)
    }

    /// Submits what is queued and runs what the kernel has put off for this thread: the one call of a turn.
    /// Without either it is not made.
    pub fn enter(&mut self) -> io::Result<()> {
        while let Some(entry) = self.waiting.pop_front() {
            if !self.try_push(&entry) {
                self.waiting.push_front(entry);
                break;
            }
        }
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.system_call(ENTER_GETEVENTS)
    }

    fn system_call(&mut self, flags: u32) -> io::Result<()> {
        self.enters += 1;
        let queued = self.uring.submission().len() as u32;
        // SAFETY: no argument is passed, so there is none to be wrong; the entries are covered by `try_push`.
        let result = unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) };
        pass_over_passing(result.map(drop))
    }

    /// Submits what is queued and blocks until something completes, `limit` at most.
    pub fn wait(&mut self, limit: Duration) -> io::Result<()> {
        self.enters += 1;
        let limit = Timespec::from(limit);
        let result = self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit));
        pass_over_passing(result.map(drop))
    }

    pub fn drain(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.uring.completion().map(|entry: cqueue::Entry| Completion {
            op: Op::from_user_data(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}

/// Errors of `enter` that leave everything in its place for the next turn: a signal, a completion queue that
/// must be drained first, want of memory for a moment, the end of a bounded wait.
fn pass_over_passing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e)
            if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME)) =>
        {
            Ok(())
        }
        other => other,
    }
}

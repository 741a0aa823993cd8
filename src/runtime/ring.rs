//! The socket ring: every socket of a core on one io_uring, driven in turns.
//!
//! A turn submits what was queued and collects what has happened, with one system call. While turns find
//! work the core goes on; when one finds nothing the owner may sleep:
//!
//! 1. `prepare_sleep()`: from here on doorbells write to an eventfd that the ring watches;
//! 2. it looks once more at its lanes, pools and queues; if there is work, `cancel_sleep()` and another turn;
//! 3. `sleep()` blocks in the ring itself until something completes; the tick bounds it.
//!
//! A core sleeps here and not in glommio's reactor, and does not yield to it either: glommio 0.9 can go to
//! sleep with a task queued, and then nothing wakes it (seen about once in a million turns under load).
//!
//! Must not know what the bytes mean. A ring lives and dies on one thread.

mod buffers;
mod kernel;
mod op;
mod options;
mod socket;

pub use buffers::RecvBuf;

use super::doorbell::Doorbell;
use buffers::RecvBuffers;
use kernel::{Completion, Kernel, Pace};
use op::Op;
use socket::{Phase, Receive, Socket, Sockets};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Length of the submission queue; the completion queue is four times as long. More in flight is slower,
    /// not lost.
    pub entries: u32,
    /// Number of receive buffers, a power of two up to 32768; sockets wait in turn when all are lent.
    pub recv_buffers: u16,
    pub recv_buffer_bytes: u32,
    /// Between ticks while the ring has work.
    pub tick_ms: u32,
    /// Between ticks otherwise: also the longest sleep.
    pub idle_tick_ms: u32,
}

/// A socket of one ring, for as long as it is open there; never used again, so a stale one is only unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(u64);

impl SocketId {
    /// Of a socket that no ring has yet.
    pub const NOWHERE: SocketId = SocketId(u64::MAX);
}

/// A listener of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u32);

/// What a turn has found.
#[derive(Debug)]
pub enum RingEvent {
    Accepted {
        listener: ListenerId,
        socket: SocketId,
    },
    /// Accepting failed (no descriptors left, say); it is tried again at the next tick.
    AcceptFailed {
        listener: ListenerId,
        error: io::Error,
    },
    /// Bytes have come: read them with `bytes`, give them back with `recycle`.
    Received {
        socket: SocketId,
        data: RecvBuf,
    },
    /// The whole of a `send` is out of our hands; the buffer for another use.
    Sent {
        socket: SocketId,
        buf: Vec<u8>,
    },
    /// With no error: the peer has sent its last byte; what is being sent still goes out. With an error: the
    /// connection is broken, and an unfinished send will not be heard of. Each at most once, the error last.
    /// The owner calls `close`.
    Closed {
        socket: SocketId,
        error: Option<io::Error>,
    },
    /// The answer to `detach`: nothing of the socket is in flight, and its id is unknown.
    Detached {
        socket: SocketId,
        fd: OwnedFd,
    },
    Tick,
}

/// Counts since the ring was made, and `sockets`, `lent_buffers` as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingStats {
    /// System calls of turns and sleeps.
    pub enters: u64,
    pub sleeps: u64,
    pub accepts: u64,
    pub accept_errors: u64,
    pub recvs: u64,
    pub recv_bytes: u64,
    pub sends: u64,
    pub sent_bytes: u64,
    /// Receives that ended because every buffer was lent.
    pub starved: u64,
    pub sockets: usize,
    pub lent_buffers: u16,
}

struct Listener {
    socket: TcpListener,
    accepting: bool,
    stopped: bool,
}

pub struct SocketRing {
    kernel: Kernel,
    buffers: RecvBuffers,
    sockets: Sockets,
    /// An index is not used again: there are few, and they are opened at start.
    listeners: Vec<Option<Listener>>,
    /// Sockets that wait for a free receive buffer, each at most once; may hold stale ids.
    starved: VecDeque<SocketId>,
    /// Sockets quiet already when asked to detach.
    detached: Vec<SocketId>,
    doorbell: Doorbell,
    completions: Vec<Completion>,
    pace: Pace,
    busy_since_tick: bool,
    stats: RingStats,
    /// The kernel takes entries only from the thread that made the ring.
    not_send: PhantomData<*const ()>,
}

/// Whether this host lets us make such a ring at all.
pub(super) fn probe() -> io::Result<()> {
    kernel::build(8).map(drop)
}

impl SocketRing {
    /// A ring for the calling thread.
    pub fn new(limits: RingLimits) -> io::Result<SocketRing> {
        let ms = |ms: u32| Duration::from_millis(u64::from(ms.max(1)));
        let doorbell = Doorbell::new()?;
        let (tick, idle_tick) = (ms(limits.tick_ms), ms(limits.idle_tick_ms));
        let mut kernel = Kernel::new(limits.entries, tick, idle_tick)?;
        let buffers = RecvBuffers::register(&kernel, limits.recv_buffers, limits.recv_buffer_bytes)?;
        kernel.tick(Pace::Busy, Op::Tick)?;
        kernel.watch(doorbell.raw_fd(), Op::Doorbell)?;
        Ok(SocketRing {
            kernel,
            buffers,
            sockets: Sockets::default(),
            listeners: Vec::new(),
            starved: VecDeque::new(),
            detached: Vec::new(),
            doorbell,
            completions: Vec::new(),
            pace: Pace::Busy,
            busy_since_tick: true,
            stats: RingStats::default(),
            not_send: PhantomData,
        })
    }

    /// Accepts from `listener` until `stop_listening`. Accepted sockets have Nagle's delay off.
    pub fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        options::set_nodelay(&listener)?;
        listener.set_nonblocking(false)?;
        let index = self.listeners.len() as u32;
        self.kernel.accept(listener.as_raw_fd(), Op::Accept(index))?;
        self.listeners.push(Some(Listener { socket: listener, accepting: true, stopped: false }));
        Ok(ListenerId(index))
    }

    /// Stops accepting and closes the listener. What the kernel accepts before it hears of this is closed.
    pub fn stop_listening(&mut self, id: ListenerId) -> io::Result<()> {
        let Some(listener) = self.listeners.get_mut(id.0 as usize).and_then(Option::as_mut) else {
            return Ok(());
        };
        listener.stopped = true;
        if listener.accepting {
            return self.kernel.cancel(Op::Accept(id.0), Op::CancelAccept);
        }
        self.listeners[id.0 as usize] = None;
        Ok(())
    }

    pub fn stop_all_listening(&mut self) -> io::Result<()> {
        (0..self.listeners.len() as u32).try_for_each(|index| self.stop_listening(ListenerId(index)))
    }

    /// Takes a connected stream socket over and starts to receive from it.
    pub fn adopt(&mut self, fd: OwnedFd) -> io::Result<SocketId> {
        self.start(Socket::new(fd)?)
    }

    fn start(&mut self, socket: Socket) -> io::Result<SocketId> {
        let id = self.sockets.insert(socket);
        self.receive_if_wanted(id)?;
        Ok(id)
    }

    pub fn peer_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.known(id)?.stream.peer_addr()
    }

    pub fn local_addr(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.known(id)?.stream.local_addr()
    }

    /// Probes the peer after `idle_secs` of silence, gives up after about twice that; 0 switches it off.
    pub fn set_keepalive(&self, id: SocketId, idle_secs: u32) -> io::Result<()> {
        options::set_keepalive(&self.known(id)?.stream, Duration::from_secs(u64::from(idle_secs)))
    }

    /// The descriptor's number, for showing; -1 when the socket is gone.
    pub fn fd(&self, id: SocketId) -> i32 {
        self.sockets.get(id).map_or(-1, Socket::fd)
    }

    fn known(&self, id: SocketId) -> io::Result<&Socket> {
        self.sockets.get(id).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    /// Takes no more bytes from this peer. A few more `Received` may come: what the kernel had taken already.
    pub fn pause_recv(&mut self, id: SocketId) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        socket.receive_wanted = false;
        self.end_receive(id)
    }

    pub fn resume_recv(&mut self, id: SocketId) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        socket.receive_wanted = true;
        self.receive_if_wanted(id)
    }

    fn end_receive(&mut self, id: SocketId) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        if socket.receive != Receive::InFlight {
            return Ok(());
        }
        socket.receive = Receive::Ending;
        self.kernel.cancel(Op::Receive(id), Op::CancelReceive(id))
    }

    fn receive_if_wanted(&mut self, id: SocketId) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        let wanted = socket.phase == Phase::Open && socket.receive_wanted && !socket.receive_over;
        if !wanted || socket.receive != Receive::Idle {
            return Ok(());
        }
        socket.receive = Receive::InFlight;
        self.kernel.receive(socket.fd(), Op::Receive(id))
    }

    /// Sends all of `buf`, which must not be empty; one send at a time per socket. `Sent` gives it back.
    pub fn send(&mut self, id: SocketId, buf: Vec<u8>) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        assert!(socket.phase == Phase::Open, "a socket that is being given up sends no more");
        socket.start_send(&mut self.kernel, id, buf)
    }

    pub fn sending(&self, id: SocketId) -> bool {
        self.sockets.get(id).is_some_and(Socket::sending)
    }

    /// Closes the socket; its id is unknown to the owner from here on, and a send in flight is given up.
    pub fn close(&mut self, id: SocketId) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        if socket.phase == Phase::Closing {
            return Ok(());
        }
        socket.phase = Phase::Closing;
        if socket.quiet() {
            self.sockets.remove(id);
            return Ok(());
        }
        if socket.sending() {
            self.kernel.cancel(Op::Send(id), Op::CancelSend(id))?;
        }
        self.end_receive(id)
    }

    /// Lets go of the socket without losing a byte: `Received` and `Sent` go on until `Detached`, which
    /// waits for a send in flight.
    pub fn detach(&mut self, id: SocketId) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        if socket.phase != Phase::Open {
            return Ok(());
        }
        socket.phase = Phase::Detaching;
        if socket.quiet() {
            self.detached.push(id);
        }
        self.end_receive(id)
    }

    /// The bytes of a `Received`.
    pub fn bytes<'a>(&'a self, data: &'a RecvBuf) -> &'a [u8] {
        self.buffers.bytes(data)
    }

    pub fn recycle(&mut self, data: RecvBuf) {
        self.buffers.recycle(data);
    }

    /// Submits what is queued and appends what has happened to `events`. An error means the ring is broken.
    pub fn turn(&mut self, events: &mut Vec<RingEvent>) -> io::Result<()> {
        self.feed_starved()?;
        self.kernel.enter()?;
        self.handle_completions(events)?;
        for id in mem::take(&mut self.detached) {
            self.let_go(id, events);
        }
        self.keep_pace()
    }

    fn handle_completions(&mut self, events: &mut Vec<RingEvent>) -> io::Result<()> {
        let mut completions = mem::take(&mut self.completions);
        self.kernel.drain(&mut completions);
        for completion in completions.drain(..) {
            self.handle(completion, events)?;
        }
        self.completions = completions;
        Ok(())
    }

    fn handle(&mut self, completion: Completion, events: &mut Vec<RingEvent>) -> io::Result<()> {
        match completion.op {
            Op::Receive(id) => self.received(id, completion, events),
            Op::Send(id) => self.sent(id, completion, events),
            Op::Accept(listener) => self.accepted(listener, completion, events),
            Op::CancelReceive(id) | Op::CancelSend(id) if completion.result < 0 => self.cancel_missed(id),
            Op::Tick if completion.result == -libc::ETIME => self.ticked(events),
            Op::Doorbell if !io_uring::cqueue::more(completion.flags) => {
                self.kernel.watch(self.doorbell.raw_fd(), Op::Doorbell)
            }
            _ => Ok(()),
        }
    }

    fn received(&mut self, id: SocketId, done: Completion, events: &mut Vec<RingEvent>) -> io::Result<()> {
        let data = io_uring::cqueue::buffer_select(done.flags)
            .map(|buffer| self.buffers.take(buffer, u32::try_from(done.result).unwrap_or(0)));
        let socket = self.sockets.get_mut(id).expect("a socket outlives what it has in flight");
        match data {
            Some(data) if done.result > 0 && socket.phase != Phase::Closing => {
                self.stats.recvs += 1;
                self.stats.recv_bytes += data.len() as u64;
                self.busy_since_tick = true;
                events.push(RingEvent::Received { socket: id, data });
            }
            Some(data) => self.buffers.recycle(data),
            None => {}
        }
        if io_uring::cqueue::more(done.flags) {
            return Ok(());
        }
        socket.receive = Receive::Idle;
        match -done.result {
            0 => self.end_of_stream(id, events),
            libc::ENOBUFS => self.starve(id),
            result if result < 0 || matches!(result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            error => self.broken(id, io::Error::from_raw_os_error(error), events),
        }
        self.settle(id, events)
    }

    fn end_of_stream(&mut self, id: SocketId, events: &mut Vec<RingEvent>) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.receive_over = true;
        // A detached socket tells its next owner the same.
        if socket.phase == Phase::Open && !mem::replace(&mut socket.eof_told, true) && !socket.error_told {
            events.push(RingEvent::Closed { socket: id, error: None });
        }
    }

    fn broken(&mut self, id: SocketId, error: io::Error, events: &mut Vec<RingEvent>) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        socket.receive_over = true;
        if socket.phase == Phase::Open && !mem::replace(&mut socket.error_told, true) {
            events.push(RingEvent::Closed { socket: id, error: Some(error) });
        }
    }

    fn starve(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        self.stats.starved += 1;
        if socket.phase == Phase::Open {
            socket.receive = Receive::Starved;
            self.starved.push_back(id);
        }
    }

    /// Starts the receives that ended for want of buffers, no more of them than there are buffers now.
    fn feed_starved(&mut self) -> io::Result<()> {
        for _ in 0..self.buffers.free() {
            let Some(id) = self.starved.pop_front() else { break };
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            socket.receive = Receive::Idle;
            self.receive_if_wanted(id)?;
        }
        Ok(())
    }

    fn sent(&mut self, id: SocketId, done: Completion, events: &mut Vec<RingEvent>) -> io::Result<()> {
        let socket = self.sockets.get_mut(id).expect("a socket outlives what it has in flight");
        let closing = socket.phase == Phase::Closing;
        match done.result {
            bytes if bytes >= 0 && !closing => {
                self.stats.sent_bytes += bytes as u64;
                if let Some(buf) = socket.sent(&mut self.kernel, id, bytes as usize)? {
                    self.stats.sends += 1;
                    self.busy_since_tick = true;
                    events.push(RingEvent::Sent { socket: id, buf });
                }
            }
            error if !closing && matches!(-error, libc::EINTR | libc::EAGAIN) => {
                socket.sent(&mut self.kernel, id, 0)?;
            }
            error => {
                socket.send_ended();
                self.broken(id, io::Error::from_raw_os_error(-error.min(0)), events);
            }
        }
        self.settle(id, events)
    }

    /// After something of the socket has ended: does what its owner has asked for.
    fn settle(&mut self, id: SocketId, events: &mut Vec<RingEvent>) -> io::Result<()> {
        let Some(socket) = self.sockets.get(id) else { return Ok(()) };
        match socket.phase {
            Phase::Open => return self.receive_if_wanted(id),
            Phase::Closing if socket.quiet() => drop(self.sockets.remove(id)),
            Phase::Detaching => self.let_go(id, events),
            Phase::Closing => {}
        }
        Ok(())
    }

    fn let_go(&mut self, id: SocketId, events: &mut Vec<RingEvent>) {
        let ready = |socket: &Socket| socket.phase == Phase::Detaching && socket.quiet();
        if self.sockets.get(id).is_some_and(ready)
            && let Some(socket) = self.sockets.remove(id)
        {
            events.push(RingEvent::Detached { socket: id, fd: OwnedFd::from(socket.stream) });
        }
    }

    /// A cancel came when its target was neither waiting nor done.
    fn cancel_missed(&mut self, id: SocketId) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(id) else { return Ok(()) };
        if socket.quiet() {
            return Ok(());
        }
        if socket.phase == Phase::Closing {
            // What the kernel does not cancel ends by itself on a socket that is shut down; one that is
            // broken already says so here, and its operations end as well.
            return match socket.stream.shutdown(std::net::Shutdown::Both) {
                Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(e),
                _ => Ok(()),
            };
        }
        if socket.receive == Receive::Ending {
            self.kernel.cancel(Op::Receive(id), Op::CancelReceive(id))?;
        }
        Ok(())
    }

    fn accepted(&mut self, index: u32, done: Completion, events: &mut Vec<RingEvent>) -> io::Result<()> {
        let listener = self.listeners[index as usize].as_mut().expect("a listener outlives its accept");
        if !io_uring::cqueue::more(done.flags) {
            listener.accepting = false;
        }
        let stopped = listener.stopped;
        if done.result >= 0 {
            let socket = Socket::from_accept(done.result);
            if !stopped {
                self.stats.accepts += 1;
                self.busy_since_tick = true;
                let socket = self.start(socket)?;
                events.push(RingEvent::Accepted { listener: ListenerId(index), socket });
            }
        } else if !stopped {
            self.stats.accept_errors += 1;
            let error = io::Error::from_raw_os_error(-done.result);
            events.push(RingEvent::AcceptFailed { listener: ListenerId(index), error });
            return Ok(());
        }
        self.accept_again(index)
    }

    fn accept_again(&mut self, index: u32) -> io::Result<()> {
        let Some(listener) = &mut self.listeners[index as usize] else { return Ok(()) };
        if listener.accepting {
            return Ok(());
        }
        if listener.stopped {
            self.listeners[index as usize] = None;
            return Ok(());
        }
        listener.accepting = true;
        self.kernel.accept(listener.socket.as_raw_fd(), Op::Accept(index))
    }

    fn ticked(&mut self, events: &mut Vec<RingEvent>) -> io::Result<()> {
        events.push(RingEvent::Tick);
        self.pace = if mem::take(&mut self.busy_since_tick) { Pace::Busy } else { Pace::Idle };
        self.kernel.tick(self.pace, Op::Tick)?;
        for index in 0..self.listeners.len() as u32 {
            self.accept_again(index)?;
        }
        Ok(())
    }

    /// Something waits for time to pass: the next tick comes as soon as if there were work.
    pub fn tick_soon(&mut self) -> io::Result<()> {
        self.busy_since_tick = true;
        self.keep_pace()
    }

    /// The first work after an idle while brings the next tick nearer.
    fn keep_pace(&mut self) -> io::Result<()> {
        if self.busy_since_tick && self.pace == Pace::Idle {
            self.pace = Pace::Busy;
            self.kernel.move_tick(Pace::Busy, Op::Tick, Op::MoveTick)?;
        }
        Ok(())
    }

    /// First step of going to sleep; see the head of this file.
    pub fn prepare_sleep(&self) {
        self.doorbell.prepare_sleep();
    }

    pub fn cancel_sleep(&self) {
        self.doorbell.wake();
    }

    /// After `prepare_sleep`: until something happens on the ring, a doorbell is rung or the tick is due.
    /// May end early for no reason. Holds the thread: a core's executor has no other task.
    pub fn sleep(&mut self) -> io::Result<()> {
        self.stats.sleeps += 1;
        self.kernel.wait(SLEEP_MAX)?;
        self.doorbell.wake();
        Ok(())
    }

    /// Wakes this ring's core from anywhere.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    pub fn stats(&self) -> RingStats {
        RingStats {
            enters: self.kernel.enters,
            sockets: self.sockets.len(),
            lent_buffers: self.buffers.lent,
            ..self.stats
        }
    }

    /// Ends everything in flight; true once the kernel holds no memory of ours.
    fn wind_up(&mut self) -> io::Result<bool> {
        for listener in self.listeners.iter_mut().flatten() {
            listener.stopped = true;
        }
        for socket in self.sockets.iter_mut() {
            socket.phase = Phase::Closing;
        }
        self.kernel.cancel_everything(Op::CancelEverything)?;
        let deadline = Instant::now() + WIND_UP;
        let mut events = Vec::new();
        while !self.sockets.iter_mut().all(|socket| socket.quiet()) {
            if Instant::now() > deadline {
                return Ok(false);
            }
            self.kernel.wait(Duration::from_millis(10))?;
            self.kernel.enter()?;
            self.handle_completions(&mut events)?;
            events.clear();
        }
        self.buffers.unregister(&self.kernel)?;
        Ok(true)
    }
}

/// The tick ends every sleep before this.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long the end of a ring waits for the kernel.
const WIND_UP: Duration = Duration::from_secs(2);

impl Drop for SocketRing {
    fn drop(&mut self) {
        let outcome = self.wind_up();
        if matches!(outcome, Ok(true)) {
            return;
        }
        // The kernel may still read from the sends, and write to the buffers, which are not unmapped then.
        mem::forget(mem::take(&mut self.sockets));
        tracing::error!(?outcome, "a socket ring ended with operations in flight; its memory is leaked");
    }
}

#[cfg(test)]
mod tests;

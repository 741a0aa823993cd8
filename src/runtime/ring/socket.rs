//! Sockets of a ring: their state, the slab they live in, and the descriptors they own.
//!
//! Must not know what is done when; that is the ring's.

use super::SocketId;
use super::kernel::Kernel;
use super::op::Op;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub(super) struct Socket {
    /// Owns the descriptor, also of sockets that are not TCP.
    pub stream: TcpStream,
    pub phase: Phase,
    pub receive: Receive,
    /// The owner wants bytes.
    pub receive_wanted: bool,
    send: Option<Sending>,
    /// End of stream or an error was seen: receiving is over.
    pub receive_over: bool,
    pub eof_told: bool,
    pub error_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Closing,
    Detaching,
}

/// Where the multishot receive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    Idle,
    InFlight,
    /// In flight, and its end has been asked for.
    Ending,
    /// Ended for want of buffers; stands in the ring's queue for them.
    Starved,
}

struct Sending {
    buf: Vec<u8>,
    done: usize,
}

impl Socket {
    /// Sets the descriptor to blocking: on others the kernel gives up where it should wait for us.
    pub fn new(fd: OwnedFd) -> io::Result<Socket> {
        let stream = TcpStream::from(fd);
        stream.set_nonblocking(false)?;
        Ok(Socket::accepted(stream))
    }

    fn accepted(stream: TcpStream) -> Socket {
        Socket {
            stream,
            phase: Phase::Open,
            receive: Receive::Idle,
            receive_wanted: true,
            send: None,
            receive_over: false,
            eof_told: false,
            error_told: false,
        }
    }

    /// The socket an accept has brought: `fd` must come from that completion.
    pub fn from_accept(fd: RawFd) -> Socket {
        // SAFETY: the kernel made this descriptor for the accept whose completion named it, once, and nothing
        // else in the process knows its number.
        Socket::accepted(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub fn sending(&self) -> bool {
        self.send.is_some()
    }

    /// Whether the kernel has nothing of this socket in hand.
    pub fn quiet(&self) -> bool {
        self.send.is_none() && !self.receiving()
    }

    pub fn receiving(&self) -> bool {
        matches!(self.receive, Receive::InFlight | Receive::Ending)
    }

    pub fn start_send(&mut self, kernel: &mut Kernel, id: SocketId, buf: Vec<u8>) -> io::Result<()> {
        assert!(self.send.is_none(), "one send in flight per socket");
        assert!(!buf.is_empty(), "an empty send would tell of nothing");
        self.send = Some(Sending { buf, done: 0 });
        self.submit_send(kernel, id)
    }

    /// Counts what the kernel has sent and sends the rest; gives the buffer back when there is none.
    pub fn sent(&mut self, kernel: &mut Kernel, id: SocketId, bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let send = self.send.as_mut().expect("a completion of a send has its buffer");
        send.done += bytes;
        if send.done < send.buf.len() {
            return self.submit_send(kernel, id).map(|()| None);
        }
        Ok(self.send_ended())
    }

    /// Forgets the send whose completion has come.
    pub fn send_ended(&mut self) -> Option<Vec<u8>> {
        self.send.take().map(|send| send.buf)
    }

    fn submit_send(&mut self, kernel: &mut Kernel, id: SocketId) -> io::Result<()> {
        let send = self.send.as_ref().expect("set by the callers");
        let fd = self.stream.as_raw_fd();
        // SAFETY: the buffer is owned by `self.send`, never touched there, and leaves it only in `sent` and
        // `send_ended`, which run on the completion of this entry. A socket is dropped only when it is quiet;
        // moving the socket does not move the bytes, which are on the heap. A ring that cannot wait for its
        // completions at its end leaks its sockets (`SocketRing::drop`).
        unsafe { kernel.send(fd, &send.buf[send.done..], Op::Send(id)) }
    }
}

/// Sockets by index; a freed index comes back with another generation.
#[derive(Default)]
pub(super) struct Sockets {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

struct Entry {
    generation: u32,
    socket: Option<Socket>,
}

/// The index shares its word with the kind of an operation.
const INDEX_MAX: usize = 1 << 24;

impl Sockets {
    pub fn insert(&mut self, socket: Socket) -> SocketId {
        let index = self.free.pop().unwrap_or_else(|| {
            assert!(self.entries.len() < INDEX_MAX, "the limit on descriptors is far below this");
            self.entries.push(Entry { generation: 0, socket: None });
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.socket = Some(socket);
        SocketId(u64::from(index) << 32 | u64::from(entry.generation))
    }

    pub fn get(&self, id: SocketId) -> Option<&Socket> {
        let entry = self.entries.get(id.index())?;
        if entry.generation == id.generation() { entry.socket.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        let entry = self.entries.get_mut(id.index())?;
        if entry.generation == id.generation() { entry.socket.as_mut() } else { None }
    }

    pub fn remove(&mut self, id: SocketId) -> Option<Socket> {
        self.get(id)?;
        self.free.push(id.index() as u32);
        self.entries[id.index()].socket.take()
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Socket> {
        self.entries.iter_mut().filter_map(|entry| entry.socket.as_mut())
    }
}

impl SocketId {
    fn index(self) -> usize {
        (self.0 >> 32) as usize
    }

    fn generation(self) -> u32 {
        self.0 as u32
    }
}

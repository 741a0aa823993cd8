//! Listening sockets: one for each core on the shared port, one on each core's own.

use crate::error::Fault;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// A process that was killed keeps its listeners until the kernel has taken its rings apart, which comes
/// after its exit: a restart at once must wait for that.
const FREE_WAIT: Duration = Duration::from_secs(5);
const FREE_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Fails if anybody else listens there: SO_REUSEPORT alone would let two servers share a port in silence.
pub fn check_free(address: SocketAddr) -> Result<(), Fault> {
    own(address, 1).map(drop)
}

/// One of several listeners on the same address; the kernel spreads connections over them.
pub fn shared(address: SocketAddr, backlog: u32) -> Result<TcpListener, Fault> {
    listen(address, true, backlog).map_err(|error| fault(address, error))
}

/// The only listener on its address. Waits a little for one that a killed process has left.
pub fn own(address: SocketAddr, backlog: u32) -> Result<TcpListener, Fault> {
    let end = Instant::now() + FREE_WAIT;
    loop {
        match listen(address, false, backlog) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(FREE_LOOK_EVERY);
            }
            listener => return listener.map_err(|error| fault(address, error)),
        }
    }
}

fn fault(address: SocketAddr, error: io::Error) -> Fault {
    Fault::new(format!("listening on {address}"), error)
}

fn listen(address: SocketAddr, reuse_port: bool, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.min(i32::MAX as u32) as i32)?;
    Ok(socket.into())
}

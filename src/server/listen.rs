//! Listening sockets: one for each core on the shared port, one on each core's own.

use crate::error::Fault;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};

/// Fails if anybody else listens there: SO_REUSEPORT alone would let two servers share a port in silence.
pub fn check_free(address: SocketAddr) -> Result<(), Fault> {
    open(address, false, 1).map(drop)
}

/// One of several listeners on the same address; the kernel spreads connections over them.
pub fn shared(address: SocketAddr, backlog: u32) -> Result<TcpListener, Fault> {
    open(address, true, backlog)
}

/// The only listener on its address.
pub fn own(address: SocketAddr, backlog: u32) -> Result<TcpListener, Fault> {
    open(address, false, backlog)
}

fn open(address: SocketAddr, reuse_port: bool, backlog: u32) -> Result<TcpListener, Fault> {
    let listen = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.bind(&address.into())?;
        socket.listen(backlog.min(i32::MAX as u32) as i32)?;
        Ok(socket.into())
    };
    listen().map_err(|error| Fault::new(format!("listening on {address}"), error))
}

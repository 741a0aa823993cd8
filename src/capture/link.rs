//! A socket to a node that is followed: the greeting of a client, then messages.
//!
//! Waits for its peer, but never longer than a tick for what comes and than a bound for what goes. Must not know
//! what is said.

use crate::limits::{REPLICA_MESSAGE_MAX_BYTES, REPLICA_TICK};
use crate::replica::PROTOCOL;
use crate::replica::decode::{Decoder, WireError};
use crate::replica::encode::Encoder;
use crate::replica::greeting::Peer;
use crate::replica::wire::Message;
use crate::resp::encode;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long one address is tried, and how long an answer of the greeting may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long what is sent may not be taken.
const SEND_WAIT: Duration = Duration::from_secs(60);
/// Longest line of an answer.
const LINE_MAX_BYTES: usize = 1024;
/// Read at once.
const READ_BYTES: usize = 256 << 10;

pub struct Link {
    stream: TcpStream,
    decoder: Decoder,
    encoder: Encoder,
    read: Vec<u8>,
}

/// Why there is no link.
pub enum NoLink {
    /// The other side does not want it: it would be so again.
    Refused(String),
    Failed(io::Error),
}

impl From<io::Error> for NoLink {
    fn from(error: io::Error) -> NoLink {
        NoLink::Failed(error)
    }
}

impl Link {
    /// Connects as a client does, and asks to follow as this peer.
    pub fn connect(address: &str, password: Option<&str>, peer: Peer) -> Result<Link, NoLink> {
        let mut stream = connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_WAIT))?;
        stream.set_write_timeout(Some(SEND_WAIT))?;
        if let Some(password) = password {
            ask(&mut stream, &[b"AUTH", password.as_bytes()])?;
        }
        let (protocol, word) = (PROTOCOL.to_string(), peer.word());
        ask(&mut stream, &[b"HAYPILE-FOLLOW", protocol.as_bytes(), word.as_bytes()])?;
        stream.set_read_timeout(Some(REPLICA_TICK))?;
        let (decoder, encoder) = (Decoder::new(REPLICA_MESSAGE_MAX_BYTES), Encoder::default());
        Ok(Link { stream, decoder, encoder, read: vec![0; READ_BYTES] })
    }

    pub fn queue(&mut self, message: &Message) {
        self.encoder.push(message);
    }

    /// Sends what is queued.
    pub fn send(&mut self) -> io::Result<()> {
        self.encoder.take().iter().try_for_each(|piece| self.stream.write_all(piece))
    }

    /// Takes what has come, or comes within a tick; whether anything has.
    pub fn receive(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut self.read) {
            Ok(0) => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed by the node"))
            }
            Ok(count) => {
                self.decoder.feed(&self.read[..count]);
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// The next whole message of what has come.
    pub fn next(&mut self) -> Result<Option<Message>, WireError> {
        self.decoder.next_message()
    }
}

/// The first of the name's addresses that answers.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WAIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Sends a command that must be answered with a simple string.
fn ask(stream: &mut TcpStream, words: &[&[u8]]) -> Result<(), NoLink> {
    let mut command = Vec::new();
    encode::array_header(words.len(), &mut command);
    words.iter().for_each(|word| encode::bulk(word, &mut command));
    stream.write_all(&command)?;
    // Byte by byte: what stands behind the line is not this function's.
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_MAX_BYTES && stream.read(&mut byte)? > 0 && byte != *b"\n" {
        line.push(byte[0]);
    }
    match line.first() {
        Some(b'+') => Ok(()),
        Some(_) => Err(NoLink::Refused(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())),
        None => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed by the node").into())
        }
    }
}

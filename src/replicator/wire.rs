//! A socket that carries messages: bytes in and out, as they come.
//!
//! Never waits for its peer: what cannot be sent yet is kept, bounded by the windows of who sends.

use crate::limits::REPLICA_MESSAGE_MAX_BYTES;
use crate::replica::decode::{Decoder, WireError};
use crate::replica::encode::Encoder;
use crate::replica::wire::Message;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Read from a socket at once.
const READ_BYTES: usize = 256 << 10;
/// Pieces given to a socket at once.
const SEND_PIECES: usize = 64;

pub struct Wire {
    stream: TcpStream,
    decoder: Decoder,
    encoder: Encoder,
    out: VecDeque<Bytes>,
    read: Vec<u8>,
}

/// Why a link has ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the connection was closed by the other side")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
}

impl Wire {
    /// `first`: bytes that have been read from the socket already.
    pub fn new(stream: TcpStream, first: &[u8]) -> Wire {
        let mut decoder = Decoder::new(REPLICA_MESSAGE_MAX_BYTES);
        decoder.feed(first);
        let (encoder, out) = (Encoder::default(), VecDeque::new());
        Wire { stream, decoder, encoder, out, read: vec![0; READ_BYTES] }
    }

    pub fn queue(&mut self, message: &Message) {
        self.encoder.push(message);
    }

    fn has_unsent(&self) -> bool {
        !self.out.is_empty() || !self.encoder.is_empty()
    }

    /// Waits until something can be read, or sent if there is something to send.
    pub async fn ready(&self) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        self.stream.ready(if self.has_unsent() { both } else { Interest::READABLE }).await.map(drop)
    }

    /// Takes what has come; whether anything has.
    pub fn read(&mut self) -> Result<bool, LinkError> {
        match self.stream.try_read(&mut self.read) {
            Ok(0) => Err(LinkError::Closed),
            Ok(count) => {
                self.decoder.feed(&self.read[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole message of what has come.
    pub fn next(&mut self) -> Result<Option<Message>, LinkError> {
        Ok(self.decoder.next_message()?)
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), LinkError> {
        self.out.extend(self.encoder.take());
        while !self.out.is_empty() {
            let pieces: Vec<IoSlice<'_>> =
                self.out.iter().take(SEND_PIECES).map(|piece| IoSlice::new(piece)).collect();
            match self.stream.try_write_vectored(&pieces) {
                Ok(count) => self.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sent(&mut self, mut count: usize) {
        while let Some(first) = self.out.front_mut()
            && count > 0
        {
            let here = count.min(first.len());
            first.advance(here);
            count -= here;
            if first.is_empty() {
                self.out.pop_front();
            }
        }
    }
}

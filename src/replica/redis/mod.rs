//! Following a Redis primary: its keys, then every write it makes, become commands to our own server.
//!
//! To the primary we are one of its replicas. To our server we are a client whose answers all count: an error
//! means that the copies differ. Must not know how a command runs, nor who asked for a primary.
//!
//! | file | what |
//! |---|---|
//! | `rdb` | a copy's file becomes keys |
//! | `commands` | the stream becomes commands |
//! | `stream` | the protocol around both |
//! | `replies` | what our server answers |
//!
//! The connections are `replicator::redis`'s.

pub mod commands;
pub mod rdb;
pub mod replies;
pub mod stream;
#[cfg(test)]
mod tests;

pub use commands::Place;
use std::sync::Mutex;
use std::time::Instant;

/// A primary, and what it is told of us.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name or address.
    pub host: String,
    pub port: u16,
    pub login: stream::Login,
}

/// Where in which stream somebody may go on: all before it has been done, and nothing behind it but what is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// What the primary calls its stream.
    pub replid: String,
    pub place: Place,
    /// So many commands of a transaction that begins there.
    pub done_behind: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Connecting,
    /// Connected; the primary has not begun to send what it has.
    Greeting,
    /// A copy of everything is being taken in.
    Copying,
    Streaming,
    /// The connection has ended; the next comes after a pause.
    Pausing,
}

/// How it goes. Counters count from the first connection on.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub phase: Phase,
    /// What the primary calls its stream; empty before it has said so.
    pub replid: String,
    /// Bytes of the stream that have been followed, and answered by our server.
    pub offset: u64,
    /// When the primary was last heard.
    pub heard: Option<Instant>,
    pub copies: u64,
    /// How often the stream went on where it was.
    pub resumptions: u64,
    /// Keys of copies that our server has taken.
    pub keys: u64,
    /// Libraries of functions in copies, which were passed over.
    pub functions_skipped: u64,
    /// Commands of the stream that our server has answered, errors too.
    pub commands: u64,
    /// Those that it refused: each is a write that the primary has made and we have not. Called
    /// `redis_stream_errors` where it is shown.
    pub stream_errors: u64,
    /// Those that it does not know; they are among the errors, unless they write nothing.
    pub unknown_commands: u64,
    /// Why the last connection ended, or what was refused last.
    pub last_error: String,
}

/// What is shown to others, for a moment at a time.
pub type SharedStatus = Mutex<Status>;

/// Changes what is shown.
pub fn update(status: &SharedStatus, change: impl FnOnce(&mut Status)) {
    // Whoever has panicked while looking has changed nothing.
    change(&mut status.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
}

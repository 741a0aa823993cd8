//! What can go wrong, in two kinds: what a client is told, and what stops a handler before it has answered.
//!
//! Knows nothing of sockets, storage or cores. Our own failures (a disk, a damaged file) are `Fault`.

use std::borrow::Cow;

/// The text of an error reply, without the leading `-` and without CRLF: `ERR syntax error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError(pub Cow<'static, str>);

impl ClientError {
    pub const SYNTAX: ClientError = ClientError::fixed("ERR syntax error");
    pub const NOT_INTEGER: ClientError = ClientError::fixed("ERR value is not an integer or out of range");
    pub const NOT_FLOAT: ClientError = ClientError::fixed("ERR value is not a valid float");
    pub const OVERFLOW: ClientError = ClientError::fixed("ERR increment or decrement would overflow");
    pub const NO_SUCH_KEY: ClientError = ClientError::fixed("ERR no such key");
    pub const OUT_OF_RANGE: ClientError = ClientError::fixed("ERR index out of range");
    /// Pika's, of a range whose end stands before its start.
    pub const WRONG_RANGE: ClientError = ClientError::fixed("ERR Invalid argument: error in given range");
    pub const WRONG_TYPE: ClientError =
        ClientError::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    pub const NAME_TOO_LONG: ClientError = ClientError::fixed("ERR member name is longer than 65535 bytes");
    pub const STRING_TOO_LONG: ClientError =
        ClientError::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

    pub const fn fixed(text: &'static str) -> ClientError {
        ClientError(Cow::Borrowed(text))
    }

    pub fn new(text: impl Into<String>) -> ClientError {
        ClientError(Cow::Owned(text.into()))
    }

    /// Redis's reply to a known command with a number of arguments its table row does not allow.
    pub fn wrong_arity(command: &str) -> ClientError {
        ClientError::new(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// Redis's reply to an expiry outside what it can hold.
    pub fn invalid_expire(command: &str) -> ClientError {
        ClientError::new(format!("ERR invalid expire time in '{command}' command"))
    }
}

/// Why a handler returned without a reply. Only `Client` reaches the client; after the others the
/// owner of the shard does what is missing and runs the same handler again from its start.
#[derive(Debug)]
pub enum Stop {
    /// The client's mistake: answered, and no effect of the command is kept.
    Client(ClientError),
    /// Something wanted is not in memory; the source has noted what.
    Cold,
    /// The work is more than a turn may spend: run it where waiting is allowed.
    Long,
    /// The reply has so many entries that it should go to the client while it is made.
    LongReply,
    /// Reading failed: a damaged block, an I/O error. The client gets an error, the log the text.
    Fault(String),
}

impl From<ClientError> for Stop {
    fn from(e: ClientError) -> Stop {
        Stop::Client(e)
    }
}

/// A failure of ours that the process cannot go on after: it is logged once, and the process ends.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct Fault {
    pub doing: String,
    pub why: String,
}

impl Fault {
    pub fn new(doing: impl Into<String>, why: impl std::fmt::Display) -> Fault {
        Fault { doing: doing.into(), why: why.to_string() }
    }
}

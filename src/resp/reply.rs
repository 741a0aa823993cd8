//! An answer as plain data, before it becomes bytes of RESP2 or RESP3.

use super::stream::LongReply;
use crate::error::ClientError;
use bytes::Bytes;
use std::sync::Arc;

/// What a command answers. Owned, so that it can cross cores.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Ok,
    /// `$-1` in RESP2, `_` in RESP3.
    Nil,
    /// `*-1` in RESP2, `_` in RESP3.
    NilArray,
    Int(i64),
    /// A simple string: never holds CR or LF.
    Simple(&'static str),
    Bulk(Bytes),
    Error(ClientError),
    Array(Vec<Reply>),
    /// Pairs; flattened to an array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// Pairs; flattened to an array in RESP2, an array of arrays in RESP3.
    Pairs(Vec<(Reply, Reply)>),
    /// A map; an array of pairs in RESP2.
    Keyed(Vec<(Reply, Reply)>),
    /// An array in RESP2.
    Set(Vec<Reply>),
    /// A bulk string in RESP2.
    Double(f64),
    /// A number in digits of the command's own; a bulk string in RESP2.
    Digits(Bytes),
    /// `:0` and `:1` in RESP2.
    Bool(bool),
    /// Text for a human (`INFO`): bulk in RESP2, `=N txt:` in RESP3.
    Verbatim(Bytes),
    /// Out-of-band in RESP3, an array in RESP2.
    Push(Vec<Reply>),
    /// The reply's own bytes, in the protocol of the connection it goes to: made on the pool.
    Ready(Bytes),
    /// Entries come while the client reads.
    Long(Arc<LongReply>),
    /// There is nothing to answer yet: the command may wait. One that may not is answered as if its time were
    /// over.
    Blocked(Box<Blocked>),
    /// Nothing at all is sent (`CLIENT REPLY OFF`).
    Silent,
}

/// How a command would wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocked {
    /// 0: for ever.
    pub timeout_ms: u64,
    /// The reply when that is over.
    pub otherwise: Reply,
    /// Which arguments are the keys it waits for.
    pub keys: Vec<usize>,
    /// Arguments that mean something else later: what they mean now.
    pub rewritten: Vec<(usize, Bytes)>,
}

impl Reply {
    pub fn bulk(text: impl Into<Bytes>) -> Reply {
        Reply::Bulk(text.into())
    }

    /// Nothing yet: waits for these keys, arguments of the command, to get something.
    pub fn waits(timeout_ms: u64, otherwise: Reply, keys: impl IntoIterator<Item = usize>) -> Reply {
        let keys = keys.into_iter().collect();
        Reply::Blocked(Box::new(Blocked { timeout_ms, otherwise, keys, rewritten: Vec::new() }))
    }

    /// What it weighs until it is encoded, bytes; never 0.
    pub fn about_bytes(&self) -> usize {
        const HEAD_BYTES: usize = 16;
        let sum = |items: &[Reply]| items.iter().map(Reply::about_bytes).sum();
        HEAD_BYTES
            + match self {
                Reply::Bulk(text) | Reply::Digits(text) | Reply::Verbatim(text) | Reply::Ready(text) => {
                    text.len()
                }
                Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => sum(items),
                Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::Keyed(pairs) => {
                    pairs.iter().map(|(key, value)| key.about_bytes() + value.about_bytes()).sum()
                }
                _ => 0,
            }
    }

    /// A number of things.
    pub fn count(count: u64) -> Reply {
        Reply::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub fn bulks(texts: impl IntoIterator<Item = Bytes>) -> Reply {
        Reply::Array(texts.into_iter().map(Reply::Bulk).collect())
    }

    /// What a command of the SCAN family answers.
    pub fn scanned(cursor: u64, found: Vec<Reply>) -> Reply {
        Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(found)])
    }

    /// What Pika's commands on ranges answer: the name to go on with, empty at the end, and what was found.
    pub fn ranged(next: Option<Bytes>, found: Vec<Reply>) -> Reply {
        Reply::Array(vec![Reply::Bulk(next.unwrap_or_default()), Reply::Array(found)])
    }

    pub fn text(text: &str) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<ClientError> for Reply {
    fn from(e: ClientError) -> Reply {
        Reply::Error(e)
    }
}

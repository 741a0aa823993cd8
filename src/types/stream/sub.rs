//! Where the parts of a stream stand among its elements. Layout: store/FORMAT.md. Knows no value.

use crate::error::Stop;
use crate::store::row::StreamId;
use crate::store::tx::{Sub, Subs};
use crate::types::packed::damaged;

const ENTRY: u8 = 1;
const GROUP: u8 = 2;
const CONSUMER: u8 = 3;
const PENDING: u8 = 4;
const HELD: u8 = 5;
const ID_BYTES: usize = 16;

pub fn entries() -> Sub {
    Sub::from_slice(&[ENTRY])
}

pub fn groups() -> Sub {
    Sub::from_slice(&[GROUP])
}

pub fn group(name: &[u8]) -> Sub {
    let mut sub = groups();
    sub.extend_from_slice(name);
    sub
}

/// All consumers of a group.
pub fn consumers(group: &[u8]) -> Sub {
    named(Sub::from_slice(&[CONSUMER]), group)
}

pub fn consumer(group: &[u8], name: &[u8]) -> Sub {
    let mut sub = consumers(group);
    sub.extend_from_slice(name);
    sub
}

/// All entries that a group has delivered and that wait to be acknowledged.
pub fn pending(group: &[u8]) -> Sub {
    named(Sub::from_slice(&[PENDING]), group)
}

/// The same ids, by who holds them.
pub fn held(group: &[u8]) -> Sub {
    named(Sub::from_slice(&[HELD]), group)
}

pub fn held_by(group: &[u8], consumer: &[u8]) -> Sub {
    named(held(group), consumer)
}

fn named(mut sub: Sub, name: &[u8]) -> Sub {
    let len = u16::try_from(name.len()).expect("the length of names is checked where commands are read");
    sub.extend_from_slice(&len.to_be_bytes());
    sub.extend_from_slice(name);
    sub
}

pub fn with_id(mut sub: Sub, id: StreamId) -> Sub {
    sub.extend_from_slice(&id.to_be_bytes());
    sub
}

/// From one id to another, both included.
pub fn between(of: &Sub, from: StreamId, to: StreamId) -> Subs {
    let mut end = with_id(of.clone(), to);
    end.push(0);
    Subs { from: with_id(of.clone(), from), to: end, backward: false }
}

/// The id at the end of a sub.
pub fn id(sub: &[u8]) -> Result<StreamId, Stop> {
    sub.last_chunk::<ID_BYTES>().map(|id| StreamId::from_be_bytes(*id)).ok_or_else(damaged)
}

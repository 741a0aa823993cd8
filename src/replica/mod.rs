//! How nodes follow each other: what is said, and what follows from what is heard.
//!
//! Reading order: `position` (how far a slot has come), `history` (how it came there, and where two nodes' ways
//! part), `keys` (in which they differ then), `greeting` (who asks), `wire` (what is said; as bytes in `encode` and `decode`), `plan`, `stream`,
//! `parting` and `primary` (what one follower is sent), `portion`, `inflow` and `follower` (what is done with it).
//! The two machines take events and give actions; the same events give the same actions. Must not know sockets,
//! files, clocks and cores: `replicator` has those.

pub mod decode;
pub mod encode;
pub mod follower;
pub mod greeting;
pub mod history;
pub mod inflow;
pub mod keys;
mod parting;
mod plan;
pub mod portion;
pub mod position;
pub mod primary;
pub mod redis;
pub mod status;
mod stream;
#[cfg(test)]
mod tests;
pub mod wire;

/// Version of what two nodes say to each other; others are refused.
pub const PROTOCOL: u32 = 5;

//! Shards and who owns them: turns, latches, what waits, what crosses cores.
//!
//! Reading order: `mesh` (what travels), `shard` (one turn of one shard), `owner` (commands that wait),
//! `steps` (commands on several shards), `upkeep` (what time brings). Knows no socket and no session.

mod ahead;
mod applying;
mod asks;
mod assigned;
mod data;
mod figures;
mod follow;
pub mod garbage;
mod held;
pub mod hot;
pub mod hot_elements;
mod intake;
pub mod jobs;
pub mod keyset;
pub mod large;
pub mod latch;
pub mod line;
pub mod mesh;
pub mod open;
pub mod owner;
pub mod pace;
pub mod published;
pub mod range;
mod runs;
pub mod scan;
pub mod settled;
#[expect(clippy::module_inception, reason = "the room is named after what it holds")]
pub mod shard;
pub mod slots;
pub mod steps;
pub mod sweep;
mod unapplied;
pub mod upkeep;
pub mod view;
pub mod waiters;
pub mod wholes;
pub mod work;

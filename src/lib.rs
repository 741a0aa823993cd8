//! haypile: a Redis-compatible store for data bigger than memory. ARCHITECTURE.md is the map.
//!
//! The rooms in order: one uses what stands above it, never below.

pub mod slot;
pub mod limits;
pub mod clock;
pub mod error;
pub mod resp;
pub mod config;
pub mod metrics;
pub mod store;
pub mod types;
pub mod command;
pub mod runtime;
pub mod binlog;
pub mod shard;
pub mod front;
pub mod conn;
pub mod server;

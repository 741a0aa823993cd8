//! haypile: a Redis-compatible store for data bigger than memory. ARCHITECTURE.md is the map.
//!
//! The rooms in order: one uses what stands above it, never below.

pub mod adminport;
pub mod binlog;
pub mod capture;
pub mod check;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod conn;
pub mod error;
pub mod front;
pub mod limits;
pub mod metrics;
pub mod replica;
pub mod replicator;
pub mod resp;
pub mod runtime;
pub mod server;
pub mod shard;
pub mod slot;
pub mod store;
pub mod top;
pub mod tune;
pub mod types;
pub mod whole_file;

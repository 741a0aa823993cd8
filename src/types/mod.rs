//! Data structures over `Tx`: plain values in and out.
//!
//! Knows no arguments, no replies and no command's name; what a client is told is decided in `command`.

pub mod any;
pub mod bits;
pub mod counted;
pub mod dump;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod lcs;
pub mod list;
pub mod map;
pub mod names;
pub mod packed;
pub mod set;
pub mod stream;
pub mod stretch;
pub mod string;
pub mod value;
pub mod zset;

#[cfg(test)]
pub(crate) mod memory;

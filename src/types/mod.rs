//! Data structures over `Tx`: plain values in and out.
//!
//! Knows no arguments, no replies and no command's name; what a client is told is decided in `command`.

pub mod bits;
pub mod dump;
pub mod lcs;
pub mod string;

#[cfg(test)]
pub(crate) mod memory;

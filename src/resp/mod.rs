//! Redis's protocol: bytes to commands, replies to bytes, and Redis's notation for numbers and patterns.
//!
//! Pure: must not know sockets, sessions, storage or what any command means.

pub mod args;
pub mod encode;
pub mod glob;
pub mod number;
pub mod parse;
pub mod reply;
pub mod stream;

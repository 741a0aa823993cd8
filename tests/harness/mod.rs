//! What every test of the running program needs: a server to start and kill, and a client that hides nothing.
//!
//! Knows the command line, the ports and RESP; nothing of what is inside the server.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![allow(unused_imports, reason = "as above")]

mod client;
mod ports;
mod render;
mod server;

pub use client::{Client, Value};
pub use render::{render, split_line};
pub use server::{Options, Program, Server, haypile_binary, installed, raise_open_files};

/// An argument list from anything that is bytes: `args!["SET", key, b"\xff"]`.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => {{
        let list: Vec<Vec<u8>> = vec![$(AsRef::<[u8]>::as_ref(&$arg).to_vec()),*];
        list
    }};
}

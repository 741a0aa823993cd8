//! The subcommands of the binary: which word runs what. `server` when none is named.

use crate::{check, server, top, tune};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `haypile` with these arguments, the program's own name first.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip(1).peekable();
    let named = args.peek().and_then(|word| word.to_str()).map(str::to_owned);
    match named.as_deref() {
        Some("server") => server::main(args.skip(1)),
        Some("bench") => bench_harness::main(args),
        Some("binlog") => check::binlog_main(args),
        Some("check") => check::main(args),
        Some("top") => top::main(args),
        Some("tune") => tune::main(args),
        _ => server::main(args),
    }
}

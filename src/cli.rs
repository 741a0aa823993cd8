//! The subcommands of the binary: which word runs what. `server` when none is named.

use crate::{capture, check, server, top, tune};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// The word, what it is for, and what runs with the words from it on.
type Subcommand = (&'static str, &'static str, fn(&mut dyn Iterator<Item = OsString>) -> ExitCode);

const SUBCOMMANDS: [Subcommand; 6] = [
    ("server", "serve; also what runs when nothing is named", |args| server::main(args.skip(1))),
    ("top", "watch a running server in the terminal", |args| top::main(args)),
    ("bench", "load a server, compare servers, draw reports", |args| bench_harness::main(args)),
    ("check", "read a data directory offline and find what is damaged", |args| check::main(args)),
    ("binlog", "print the records of a directory's logs, or a node's, as JSON lines", |args| {
        capture::main(args)
    }),
    ("tune", "look at this host: what helps, what hinders, what to do", |args| tune::main(args)),
];

/// Runs `haypile` with these arguments, the program's own name first.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip(1).peekable();
    let named = args.peek().and_then(|word| word.to_str()).map(str::to_owned);
    match named.as_deref() {
        None => server::main(args),
        Some("help" | "--help" | "-h") => help(),
        Some(flag) if flag.starts_with('-') => server::main(args),
        Some(word) => match SUBCOMMANDS.iter().find(|(name, ..)| *name == word) {
            Some((.., run)) => run(&mut args),
            None => {
                eprintln!("haypile: there is no subcommand {word:?}; `haypile help` lists them");
                ExitCode::from(2)
            }
        },
    }
}

fn help() -> ExitCode {
    let mut text = String::from("Usage: haypile [SUBCOMMAND] [OPTIONS]\n\n");
    for (name, what, _) in SUBCOMMANDS {
        text.push_str(&format!("  {name:<8} {what}\n"));
    }
    text.push_str(
        "\n`haypile SUBCOMMAND --help` tells its options. Without a subcommand they are those of `server`.\n",
    );
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("haypile: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

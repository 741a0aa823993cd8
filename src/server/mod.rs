//! The server as a process: from the command line to serving cores, and back out again.
//!
//! Nothing here runs while commands are served.

pub mod datadir;
mod listen;
mod log;
mod start;
#[cfg(test)]
mod tests;

use crate::config::{Config, ConfigError, Loaded};
use crate::runtime::executor;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs `haypile server` with these arguments.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let loaded = match Config::load(args) {
        Ok(loaded) => loaded,
        // A reader that has seen enough, such as `head`, is no error.
        Err(ConfigError::Asked(text)) => match writeln!(io::stdout(), "{text}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                eprintln!("haypile: {error}");
                return ExitCode::FAILURE;
            }
            _ => return ExitCode::SUCCESS,
        },
        Err(error) => {
            eprintln!("haypile: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(why) = log::start(&loaded.config) {
        eprintln!("haypile: {why}");
        return ExitCode::from(2);
    }
    for line in &loaded.ignored {
        tracing::warn!("{line}");
    }
    let ended = executor::check_host().and_then(|()| serve(loaded));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            tracing::error!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn serve(loaded: Loaded) -> Result<(), String> {
    start::serve(loaded).map_err(|fault| fault.to_string())
}

//! `haypile binlog`: the records of the logs as JSON lines, of a directory that no server uses, or of a node
//! that runs.
//!
//! Reading order: `line` (what is printed), `stored` (of a directory), `dropped` (of one below its `dropped`),
//! `follow` (of a node) with its `link`, `output` and `state`. Must not know executors or commands.

mod dropped;
mod follow;
mod line;
mod link;
mod output;
mod state;
mod stored;

use crate::binlog;
use clap::Parser;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

/// Prints the records of a haypile's logs as JSON lines: of a directory that no server uses, or as they are made.
#[derive(Parser)]
#[command(name = "haypile binlog", after_help = EXIT_CODES)]
struct Options {
    /// The data directory [default: ./haypile-data], or a directory below its `dropped`.
    #[arg(conflicts_with = "follow")]
    dir: Option<PathBuf>,
    /// Follow the node that serves here instead, until a signal ends it.
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    follow: Option<String>,
    /// Only this shard.
    #[arg(long, conflicts_with = "follow")]
    shard: Option<u16>,
    /// Only records that touch this table (numbered database).
    #[arg(long)]
    table: Option<u32>,
    /// Only records that touch this slot. With --follow: of one table.
    #[arg(long)]
    slot: Option<u16>,
    /// From this LSN on. With --follow: `start` (the default), `now`, or the file of an earlier --state.
    #[arg(long)]
    from: Option<String>,
    /// From this moment on: "2026-01-31 12:00:00" (UTC), or milliseconds since the epoch.
    #[arg(long, value_parser = moment, conflicts_with = "follow")]
    since: Option<u64>,
    /// Before this moment.
    #[arg(long, value_parser = moment, conflicts_with = "follow")]
    until: Option<u64>,
    /// Bytes of each value that are shown [default: 256; with --follow: all].
    #[arg(long)]
    value_bytes: Option<usize>,
    /// Keep in this file how far it has come, and go on there. Then --from counts only while there is no file.
    #[arg(long, value_name = "FILE", requires = "follow")]
    state: Option<PathBuf>,
    /// Print the rows of slots whose records the log has no more, instead of ending with 3.
    #[arg(long, requires = "follow")]
    snapshot: bool,
    /// Password of the node. Others see arguments: better in the environment.
    #[arg(short = 'a', long, env = "HAYPILE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

const EXIT_CODES: &str = "Exit code: 0 all was printed, or it was told to stop, 1 something failed or is damaged, \
                          2 it cannot be done as asked, 3 (--follow) the node's log does not reach back.";

/// A host and a port.
fn address(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(text.to_owned()),
        _ => Err("not of the form HOST:PORT".into()),
    }
}

/// Milliseconds since the epoch.
fn moment(text: &str) -> Result<u64, String> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    Ok(since.as_millis() as u64)
}

/// Runs `haypile binlog` with these arguments.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = Options::parse_from(args);
    match &options.follow {
        Some(address) => follow::run(address, &options),
        None => stored::print(options.dir.as_deref().unwrap_or(Path::new("./haypile-data")), &options),
    }
}

/// Whether the reader of what is printed has gone: one that has seen enough, such as `head`, is no error.
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::BrokenPipe;
        }
        cause = match error.downcast_ref() {
            Some(binlog::LogError::Replay(_, inner)) => Some(&**inner),
            _ => error.source(),
        };
    }
    false
}

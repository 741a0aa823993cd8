//! The load generator's command line. Knows words and their types only.

use crate::keys::Distribution;
use clap::{Args, Parser, Subcommand};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// `haypile bench`: loads a server and says how it did.
#[derive(Parser)]
#[command(name = "haypile bench", disable_help_flag = true, args_conflicts_with_subcommands = true)]
pub struct Options {
    /// Print this help.
    #[arg(long, action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
    #[command(subcommand)]
    pub action: Option<Action>,
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub output: Output,
    /// A command of your own instead of tests; __rand_int__ and __data__ are filled in.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// What else there is to do.
#[derive(Subcommand)]
pub enum Action {
    /// The same work on several servers in turns, and what they cost beside the first.
    Compare(Box<Compare>),
    /// One run or comparison as an HTML page.
    Report {
        /// What --json wrote.
        json: PathBuf,
        /// The page to write.
        html: PathBuf,
    },
}

/// `haypile bench compare`.
#[derive(Args)]
pub struct Compare {
    /// The servers, as name=host:port or name=host:port@pid; the first is what others are measured by.
    /// A server on this machine is asked for its pid when none is given.
    #[arg(required = true, num_args = 2..)]
    pub endpoints: Vec<String>,
    /// How often each server gets its turn.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Password of all of them.
    #[arg(short = 'a', long)]
    pub password: Option<String>,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub output: Output,
}

/// Which server.
#[derive(Args, Clone)]
pub struct Target {
    /// Host to load.
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    pub host: String,
    /// Its port.
    #[arg(short = 'p', long, default_value_t = 9221)]
    pub port: u16,
    /// Password (AUTH).
    #[arg(short = 'a', long)]
    pub password: Option<String>,
}

/// What to load it with.
#[derive(Args, Clone)]
pub struct Load {
    /// Tests, separated by commas; see `--list`.
    #[arg(short = 't', long = "tests", value_delimiter = ',', default_value = "set,get")]
    pub tests: Vec<String>,
    /// List the names of all tests.
    #[arg(long)]
    pub list: bool,
    /// Connections over all threads.
    #[arg(short = 'c', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Operations to run, unless --seconds says how long.
    #[arg(short = 'n', long, default_value_t = 100_000)]
    pub requests: u64,
    /// How long to run instead.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Not counted: what happens in the first seconds.
    #[arg(long, default_value_t = 0.0)]
    pub warm_up_s: f64,
    /// Operations sent at once by a connection.
    #[arg(short = 'P', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pipeline: u32,
    /// Operations per second, all threads together, whether the server keeps up or not (open loop);
    /// latency counts from the moment at which an operation was due. Without it, each connection
    /// waits for its replies (closed loop).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Threads that make the load.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Size of the key space.
    #[arg(short = 'r', long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub keyspace: u64,
    /// How keys are drawn.
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    pub keys: Distribution,
    /// Length of a key's name in bytes.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(8..=60_000))]
    pub key_bytes: u32,
    /// Length of values in bytes: one number, or a range as 64-1024.
    #[arg(short = 'd', long, default_value = "128", value_parser = lengths)]
    pub value_bytes: RangeInclusive<usize>,
    /// Values of random bytes instead of one letter (which compresses to nothing).
    #[arg(long)]
    pub random_values: bool,
    /// Part of writes in the test `mixed`, in percent.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub write_percent: u32,
    /// Values carry their key's number, and each value read is held against it. Load with it too.
    #[arg(long)]
    pub verify: bool,
    /// Ask the server for the nodes of its cluster, and each for its own keys.
    #[arg(long)]
    pub cluster: bool,
    /// Speak RESP3.
    #[arg(short = '3', long)]
    pub resp3: bool,
    /// Database to SELECT.
    #[arg(long, default_value_t = 0)]
    pub db: u32,
    /// Seed of all draws, for the same run again.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What to leave behind.
#[derive(Args, Clone)]
pub struct Output {
    /// Write everything measured as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write second by second histograms in HdrHistogram's log format.
    #[arg(long)]
    pub hdr_log: Option<PathBuf>,
    /// No progress line.
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

impl Load {
    /// Digits of a key's number: `key:` comes before them.
    pub fn digits(&self) -> usize {
        self.key_bytes as usize - 4
    }

    /// The warm-up's length.
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s.max(0.0))
    }
}

fn lengths(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("'{text}' is not a length in bytes"));
    let (low, high) = (number(low)?, number(high)?);
    if low > high || high > 512 << 20 {
        return Err("a range goes from the shorter to the longer, at most 512 MiB".to_owned());
    }
    Ok(low..=high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn lengths_are_a_number_or_a_range() {
        assert_eq!(lengths("128"), Ok(128..=128));
        assert_eq!(lengths("64-1024"), Ok(64..=1024));
        assert!(lengths("9-3").is_err() && lengths("x").is_err() && lengths("600000000").is_err());
    }
}

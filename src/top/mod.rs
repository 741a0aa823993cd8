//! `haypile top`: cores, shards, commands and slow commands of a running server, live in a terminal.
//!
//! Asks as any client does (INFO, SLOWLOG), so it works from another machine. Must not know the server's
//! insides.

mod screen;
mod snapshot;

use clap::Parser;
use snapshot::{Slow, Snapshot};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Shows what a server does: its cores, shards, commands and slow commands.
#[derive(Parser)]
#[command(name = "haypile top", disable_help_flag = true)]
struct Options {
    /// Where the server is.
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    host: String,
    #[arg(short, long, default_value_t = 9221)]
    port: u16,
    /// Password of the server.
    #[arg(short = 'a', long, env = "HAYPILE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 1.0)]
    interval_s: f64,
    /// Show one interval and end; so it is too where the output is no terminal.
    #[arg(long)]
    once: bool,
    #[arg(long, action = clap::ArgAction::Help, help = "Print this help")]
    help: Option<bool>,
}

/// A server that does not answer within this time is gone.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Slow commands that are shown.
const SLOW_SHOWN: usize = 8;

/// Runs `haypile top` with these arguments.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match watch(&Options::parse_from(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("haypile: {why}");
            ExitCode::FAILURE
        }
    }
}

fn watch(options: &Options) -> Result<(), String> {
    let address = format!("{}:{}", options.host, options.port);
    let mut server = connect(options).map_err(|error| format!("{address}: {error}"))?;
    let interval = Duration::from_secs_f64(options.interval_s.clamp(0.1, 3600.0));
    let live = io::stdout().is_terminal() && !options.once;
    let failed = |error: redis::RedisError| format!("{address}: {error}");
    let (mut before, mut at) = (look(&mut server).map_err(failed)?, Instant::now());
    loop {
        sleep(interval);
        let now = look(&mut server).map_err(failed)?;
        let slow = slow(&mut server).map_err(failed)?;
        let text = screen::draw(&address, &before, &now, &slow, at.elapsed().as_secs_f64());
        (before, at) = (now, Instant::now());
        // Home, the text, and nothing of the last one behind it.
        let text = if live { format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")) } else { text };
        match io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.to_string()),
            Err(_) => return Ok(()),
            Ok(()) if live => {}
            Ok(()) => return Ok(()),
        }
    }
}

fn connect(options: &Options) -> redis::RedisResult<redis::Connection> {
    let client = redis::Client::open((options.host.as_str(), options.port))?;
    let connection = client.get_connection_with_timeout(ANSWER_WAIT)?;
    connection.set_read_timeout(Some(ANSWER_WAIT))?;
    let mut connection = connection;
    if let Some(password) = &options.password {
        redis::cmd("AUTH").arg(password).query::<()>(&mut connection)?;
    }
    Ok(connection)
}

fn look(server: &mut redis::Connection) -> redis::RedisResult<Snapshot> {
    let text: String = redis::cmd("INFO").arg("all").query(server)?;
    Ok(Snapshot::parse(&text))
}

/// The newest slow commands, with the stage that was slow.
fn slow(server: &mut redis::Connection) -> redis::RedisResult<Vec<Slow>> {
    type Entry = (u64, u64, u64, Vec<Vec<u8>>, String, String);
    let entries: Vec<Entry> = redis::cmd("SLOWLOG").arg("GET").arg(SLOW_SHOWN).query(server)?;
    let stages: Vec<(u64, u64, String)> =
        redis::cmd("SLOWLOG").arg("STAGES").arg(2 * SLOW_SHOWN).query(server)?;
    let stage_of = |id| stages.iter().find(|(of, ..)| *of == id).map_or("", |(.., stage)| stage);
    let slow = |(id, at_s, micros, words, addr, _): Entry| {
        let words: Vec<String> =
            words.iter().map(|word| String::from_utf8_lossy(word).escape_debug().to_string()).collect();
        Slow { id, at_s, micros, stage: stage_of(id).to_owned(), addr, command: words.join(" ") }
    };
    Ok(entries.into_iter().map(slow).collect())
}

//! Where log lines go, and in which form.

use crate::config::{Config, LogFormat};
use std::fs::OpenOptions;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Lines go to standard error or the file that is configured: readable, or JSON for machines.
pub fn start(config: &Config) -> Result<(), String> {
    let (writer, ansi) = if config.logfile.is_empty() {
        (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal())
    } else {
        let file = OpenOptions::new().create(true).append(true).open(&config.logfile);
        (BoxMakeWriter::new(file.map_err(|error| format!("opening {}: {error}", config.logfile))?), false)
    };
    let filter = EnvFilter::new(config.loglevel.directive());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_timer(SystemTime)
        .with_target(false)
        .with_thread_names(true);
    match config.log_format {
        LogFormat::Json => lines.json().init(),
        LogFormat::Text => lines.with_ansi(ansi).init(),
    }
    Ok(())
}

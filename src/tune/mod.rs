//! `haypile tune`: what of this host helps or hinders, what it should be, why, and the command.
//!
//! Reads /proc and /sys; changes something only with `--apply`, and only what a write to one file changes
//! until the next boot. Must not know how a server runs.

mod cpu;
mod device;
mod kernel;
mod limit;

use clap::Parser;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Looks at this host: for each thing what was found, what it should be, why, and the command.
#[derive(Parser)]
#[command(name = "haypile tune", after_help = "Exit code: 0 if everything is as it should be, else 1.")]
struct Options {
    /// Where the data is, or is to be.
    #[arg(long, default_value = "./haypile-data")]
    data_dir: PathBuf,
    /// Change what can be changed at once, until the next boot. Needs root.
    #[arg(long)]
    apply: bool,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Good,
    /// It costs speed or steadiness.
    Worse,
    /// The server does not start, or data is in danger.
    Wrong,
    /// It cannot be seen from here.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    pub name: &'static str,
    pub state: State,
    pub found: String,
    /// What it should be.
    pub wanted: &'static str,
    pub why: &'static str,
    /// What changes it. Empty: nothing here can.
    pub command: String,
    /// The file to write, and what: for `--apply`.
    pub apply: Option<(PathBuf, &'static str)>,
}

impl Finding {
    fn new(name: &'static str, wanted: &'static str, why: &'static str) -> Finding {
        let (found, command) = (String::new(), String::new());
        Finding { name, state: State::Unknown, found, wanted, why, command, apply: None }
    }

    fn is(mut self, good: bool, worse: State, found: impl Into<String>) -> Finding {
        self.state = if good { State::Good } else { worse };
        self.found = found.into();
        self
    }

    fn unknown(mut self, found: impl Into<String>) -> Finding {
        self.found = found.into();
        self
    }

    fn command(mut self, command: impl Into<String>) -> Finding {
        self.command = command.into();
        self
    }

    fn writes(mut self, file: impl Into<PathBuf>, value: &'static str) -> Finding {
        let file = file.into();
        self.command = format!("echo {value} > {}", file.display());
        self.apply = Some((file, value));
        self
    }
}

/// Runs `haypile tune` with these arguments.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = Options::parse_from(args);
    let findings = look(&options.data_dir);
    match show(&mut io::stdout().lock(), &findings, options.apply) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("haypile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn look(data_dir: &Path) -> Vec<Finding> {
    let mut findings = kernel::look();
    findings.extend(limit::look());
    findings.extend(cpu::look());
    findings.extend(device::look(data_dir));
    findings
}

/// True if everything is as it should be, at the end.
fn show(out: &mut dyn Write, findings: &[Finding], apply: bool) -> io::Result<bool> {
    let mut all_good = true;
    for finding in findings {
        let mark = match finding.state {
            State::Good => "good   ",
            State::Worse => "worse  ",
            State::Wrong => "WRONG  ",
            State::Unknown => "unknown",
        };
        writeln!(out, "{mark} {}: {}", finding.name, finding.found)?;
        if finding.state == State::Good {
            continue;
        }
        writeln!(out, "        should be {}: {}", finding.wanted, finding.why)?;
        let mut mended = finding.state == State::Unknown;
        match (&finding.apply, apply && finding.state != State::Unknown) {
            (Some((file, value)), true) => match fs::write(file, value) {
                Ok(()) => {
                    mended = true;
                    writeln!(out, "        done: {}", finding.command)?;
                }
                Err(error) => writeln!(out, "        failed: {}: {error}", finding.command)?,
            },
            _ if !finding.command.is_empty() => writeln!(out, "        {}", finding.command)?,
            _ => {}
        }
        all_good &= mended;
    }
    Ok(all_good)
}

/// A file's text without the line end; None if there is no such file.
fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Of a list like `always [madvise] never`, the one in force.
fn chosen(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text, |(chosen, _)| chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_one_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("[none] mq-deadline"), "none");
        assert_eq!(chosen("none"), "none");
    }

    #[test]
    fn what_is_bad_is_explained_and_only_apply_changes_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "old").unwrap();
        let finding = |state| {
            let finding = Finding::new("a thing", "new", "because").writes(file.path(), "new");
            finding.is(state == State::Good, state, "old")
        };
        let shown = |finding: Finding, apply| {
            let mut out = Vec::new();
            let good = show(&mut out, &[finding], apply).unwrap();
            (good, String::from_utf8(out).unwrap())
        };
        assert_eq!(shown(finding(State::Good), true), (true, "good    a thing: old\n".to_owned()));
        let (good, text) = shown(finding(State::Worse), false);
        assert!(!good && text.contains("should be new: because") && text.contains("echo new >"), "{text}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "old");
        let (good, text) = shown(finding(State::Wrong), true);
        assert!(good && text.contains("done: echo new >"), "{text}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "new");
    }

    #[test]
    fn every_finding_of_this_host_says_what_it_found() {
        let dir = tempfile::tempdir().unwrap();
        for finding in look(dir.path()) {
            assert!(
                !finding.found.is_empty() && !finding.wanted.is_empty() && !finding.why.is_empty(),
                "{finding:?}"
            );
        }
    }
}

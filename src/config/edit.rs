//! CONFIG GET, SET and REWRITE.
//!
//! The texts are those of Redis 7.0.15. Knows no client: the words come in, the answer's parts go out.

use super::param::{Change, FIXED, PARAMS, Param};
use super::{Config, Format, file, foreign, toml_file};
use crate::error::ClientError;
use crate::resp::glob;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Names that match the pattern, in any case, and their values.
pub fn get(config: &Config, pattern: &[u8]) -> Vec<(&'static str, String)> {
    let of_param =
        |param: &'static Param| param.wire_names().iter().map(move |name| (*name, param.show(config)));
    let fixed = FIXED.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let all = PARAMS.iter().flat_map(of_param).chain(fixed);
    all.filter(|(name, _)| glob::matches(pattern, name.as_bytes(), true)).collect()
}

/// What a CONFIG SET has changed: keys of the parameters whose value is another now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed(pub Vec<&'static str>);

/// Sets all pairs of name and value, or none.
pub fn set(config: &mut Config, pairs: &[(&[u8], &[u8])]) -> Result<Changed, ClientError> {
    let mut chosen: Vec<(&'static Param, &'static str, &[u8])> =
        Vec::with_capacity(pairs.len().min(PARAMS.len()));
    for (name, value) in pairs {
        let written = String::from_utf8_lossy(name);
        let Some((param, known)) = Param::by_wire_name(&written) else {
            let fixed = FIXED.iter().any(|(fixed, _)| fixed.eq_ignore_ascii_case(&written));
            return Err(if fixed {
                failed(&written, "can't set immutable config")
            } else {
                unknown(&written)
            });
        };
        match param.change {
            Change::Live => {}
            Change::AtStart | Change::ByCommand => {
                return Err(failed(&written, "can't set immutable config"));
            }
            Change::Protected => return Err(failed(&written, "can't set protected config")),
        }
        if chosen.iter().any(|(other, ..)| other.key == param.key) {
            return Err(failed(&written, "duplicate parameter"));
        }
        chosen.push((param, known, value));
    }
    let mut next = config.clone();
    for (param, known, value) in &chosen {
        let text = str::from_utf8(value).map_err(|_| failed(known, "argument must be UTF-8 text"))?;
        param.assign(&mut next, text).map_err(|why| failed(known, &why))?;
    }
    let differs = |param: &Param| param.show(config) != param.show(&next);
    let changed =
        chosen.iter().map(|(param, ..)| *param).filter(|param| differs(param)).map(|param| param.key);
    let changed = Changed(changed.collect());
    *config = next;
    Ok(changed)
}

fn unknown(name: &str) -> ClientError {
    ClientError::new(format!(
        "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
        one_line(name)
    ))
}

fn failed(name: &str, why: &str) -> ClientError {
    ClientError::new(format!(
        "ERR CONFIG SET failed (possibly related to argument '{}') - {why}",
        one_line(name)
    ))
}

/// An error reply is one line, whatever the client has sent.
fn one_line(name: &str) -> String {
    name.replace(['\r', '\n'], " ")
}

/// The file's text with what CONFIG SET and REPLICAOF have changed; comments, order and all else stay.
/// Only what they can change is ever written: flags given at the start are given again at the next.
pub fn rewrite(config: &Config, original: &str, format: Format) -> Result<String, ClientError> {
    let failed = |why: String| ClientError::new(format!("ERR Rewriting config file: {}", one_line(&why)));
    let broken = |file::Wrong { line, why }| failed(format!("line {line}: {why}"));
    let mut before = Config::default();
    file::apply(original, format, &mut before).map_err(broken)?;
    match format {
        Format::Toml => toml_file::rewrite(original, &before, config).map_err(broken),
        Format::Redis | Format::Pika => foreign::rewrite(original, format, &before, config).map_err(failed),
    }
}

/// CONFIG REWRITE: replaces the file as a whole, or leaves it alone. Waits for the disk.
pub fn rewrite_file(config: &Config, path: Option<&Path>) -> Result<(), ClientError> {
    let path = path.ok_or(ClientError::fixed("ERR The server is running without a config file"))?;
    let failed = |error: io::Error| ClientError::new(format!("ERR Rewriting config file: {error}"));
    let original = fs::read_to_string(path).map_err(failed)?;
    let text = rewrite(config, &original, Format::of(path, &original))?;
    replace(path, &text).map_err(failed)
}

/// A reader finds the old file or the new one, also after a crash. A link's target is replaced, not the link.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let mut name = path.file_name().expect("a file that was read has a name").to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new)?;
    // A password may be inside: nobody may read it who could not read it before.
    file.set_permissions(fs::metadata(&path)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(path.parent().expect("a canonical file has a directory"))?.sync_all()
}

/// Adds lines under a heading of their own, as Redis does.
pub(super) fn append(text: &mut String, lines: impl Iterator<Item = String>) {
    const HEADING: &str = "# Generated by CONFIG REWRITE";
    let headed = text.lines().any(|line| line == HEADING);
    for (i, line) in lines.enumerate() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if i == 0 && !headed {
            text.push_str(&format!("\n{HEADING}\n"));
        }
        text.push_str(&line);
        text.push('\n');
    }
}

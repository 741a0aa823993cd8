//! A configuration file as text: which of the formats it is in, and applying it.

use super::{Config, PARAMS, foreign, toml_file};
use std::fmt;
use std::path::Path;

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own.
    Toml,
    /// `key value`
    Redis,
    /// `key : value`
    Pika,
}

impl Format {
    /// By the ending `.toml`, else by the first line that is neither empty nor a comment.
    pub fn of(path: &Path, text: &str) -> Format {
        if path.extension().is_some_and(|ending| ending == "toml") {
            return Format::Toml;
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let Some(line) = lines.next() else { return Format::Toml };
        let word = line.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        match word.trim_start().as_bytes() {
            [b'=' | b'[' | b'.', ..] => Format::Toml,
            // `bind ::1` is Redis's.
            [b':', b':', ..] => Format::Redis,
            [b':', ..] => Format::Pika,
            _ => Format::Redis,
        }
    }
}

/// A line of a Redis or Pika file that has no effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub line: usize,
    pub key: String,
    /// Why its loss may matter: to be said loudly. None where nothing is lost.
    pub danger: Option<&'static str>,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ignored { line, key, danger } = self;
        match danger {
            Some(why) => write!(f, "configuration, line {line}: `{key}` is NOT in force: {why}"),
            None => write!(f, "configuration, line {line}: `{key}` has no meaning here and is ignored"),
        }
    }
}

/// What stops a file from being read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// From 1.
    pub line: usize,
    pub why: String,
}

/// Applies a file's text to a configuration.
pub(super) fn apply(text: &str, format: Format, config: &mut Config) -> Result<Vec<Ignored>, Wrong> {
    match format {
        Format::Toml => toml_file::apply(text, config).map(|()| Vec::new()),
        Format::Redis | Format::Pika => foreign::apply(text, format, config),
    }
}

/// The line, from 1, in which a byte of the text lies.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// What is said about a key that does not exist: the parameter that goes by this name elsewhere, or the
/// one written most like it.
pub(super) fn unknown_key(key: &str) -> String {
    let named = PARAMS.iter().find(|p| p.flag == key || p.names.contains(&key));
    if let Some(param) = named {
        return format!("unknown key `{key}`: it is called `{}` here", param.key);
    }
    let nearest = PARAMS.iter().map(|param| (distance(key, param.key), param.key)).min();
    match nearest {
        Some((far, name)) if far <= 1 + name.len() / 4 => {
            format!("unknown key `{key}`: did you mean `{name}`?")
        }
        _ => format!("unknown key `{key}`: `haypile server --print-config` shows all"),
    }
}

/// Letters to insert, delete or change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart_by_their_first_line() {
        for (path, text, format) in [
            ("a", "# c\n\nport = 1\n", Format::Toml),
            ("a", "port=1", Format::Toml),
            ("a", "[network]", Format::Toml),
            ("a", "", Format::Toml),
            ("a.toml", "port 1", Format::Toml),
            ("a.conf", "# x\nport 1", Format::Redis),
            ("a.conf", "bind ::1 127.0.0.1", Format::Redis),
            ("a.conf", "bind * -::*", Format::Redis),
            ("a.conf", "port : 9221", Format::Pika),
            ("a.conf", "db-path:./db/", Format::Pika),
            ("a.conf", "userpass :", Format::Pika),
        ] {
            assert_eq!(Format::of(Path::new(path), text), format, "{text:?}");
        }
    }

    #[test]
    fn unknown_keys_get_the_nearest_name() {
        assert!(unknown_key("prot").contains("`port`"));
        assert!(unknown_key("memory_budgt").contains("`memory_budget`"));
        assert!(unknown_key("maxmemory").contains("called `memory_budget`"));
        assert!(unknown_key("memory-budget").contains("called `memory_budget`"));
        assert!(unknown_key("colour_of_the_sky").contains("--print-config"));
    }

    #[test]
    fn distances() {
        for (a, b, far) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("port", "prot", 2)] {
            assert_eq!(distance(a, b), far);
            assert_eq!(distance(b, a), far);
        }
    }
}

//! Our own format: flat TOML, one key for each parameter.

use super::file::{Wrong, line_of, unknown_key};
use super::param::{Change, PARAMS, Param};
use super::value::Kind;
use super::{Config, Group};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A key of the file, its value as text for `assign`, and where the value stands.
struct Entry {
    param: &'static Param,
    value: String,
    line: usize,
    at: Range<usize>,
}

fn entries(text: &str) -> Result<Vec<Entry>, Wrong> {
    let table = DeTable::parse(text).map_err(|error| Wrong {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        why: error.message().to_owned(),
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(text, key.span().start);
        let name = key.get_ref().as_ref();
        let wrong = |why| Wrong { line, why };
        let param = Param::by_key(name).ok_or_else(|| wrong(unknown_key(name)))?;
        let plain = plain(&param.kind, value.get_ref()).map_err(|why| wrong(format!("{name}: {why}")))?;
        entries.push(Entry { param, value: plain, line, at: value.span() });
    }
    entries.sort_by_key(|entry| entry.at.start);
    Ok(entries)
}

pub(super) fn apply(text: &str, config: &mut Config) -> Result<(), Wrong> {
    for Entry { param, value, line, .. } in entries(text)? {
        param.assign(config, &value).map_err(|why| Wrong { line, why: format!("{}: {why}", param.key) })?;
    }
    Ok(())
}

/// A value as the text that `assign` reads, if it is of a type that the kind allows.
fn plain(kind: &Kind, value: &DeValue<'_>) -> Result<String, String> {
    let plain = match (kind, value) {
        (Kind::Integer { .. } | Kind::Bytes { .. }, DeValue::Integer(number)) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix()).ok().map(|number| number.to_string())
        }
        (Kind::Bytes { .. } | Kind::Choice(_) | Kind::Text, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Switch, DeValue::Boolean(on)) => Some(if *on { "yes" } else { "no" }.to_owned()),
        (Kind::Text, DeValue::Array(items)) => {
            let words: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            words.map(|words| words.join(" "))
        }
        _ => None,
    };
    plain.ok_or_else(|| {
        let wanted = match kind {
            Kind::Integer { .. } => "an integer",
            Kind::Bytes { .. } => "bytes: an integer, or a string such as \"512MiB\"",
            Kind::Choice(_) | Kind::Text => "a string",
            Kind::Switch => "true or false",
        };
        format!("expected {wanted}, found {} of another kind or size", value.type_str())
    })
}

/// A parameter's value as it stands in the file.
fn written(param: &Param, config: &Config) -> String {
    let shown = param.show(config);
    match param.kind {
        Kind::Integer { .. } => shown,
        Kind::Switch => (shown == "yes").to_string(),
        Kind::Bytes { .. } => in_units(&shown),
        Kind::Choice(_) | Kind::Text => toml::Value::String(shown).to_string(),
    }
}

fn in_units(bytes: &str) -> String {
    let number: u64 = bytes.parse().expect("a number of bytes is shown in digits");
    match number.trailing_zeros() {
        _ if number == 0 => bytes.to_owned(),
        30.. => format!("\"{}GiB\"", number >> 30),
        20.. => format!("\"{}MiB\"", number >> 20),
        _ => bytes.to_owned(),
    }
}

/// The text with the values that have changed since; everything else stays as it was.
pub(super) fn rewrite(text: &str, before: &Config, now: &Config) -> Result<String, Wrong> {
    let entries = entries(text)?;
    let changed = |param: &Param| param.change.is_kept() && param.show(before) != param.show(now);
    let mut out = text.to_owned();
    for entry in entries.iter().rev().filter(|entry| changed(entry.param)) {
        out.replace_range(entry.at.clone(), &written(entry.param, now));
    }
    let absent =
        PARAMS.iter().filter(|param| changed(param) && entries.iter().all(|e| e.param.key != param.key));
    super::edit::append(&mut out, absent.map(|param| format!("{} = {}", param.key, written(param, now))));
    Ok(out)
}

/// A file with every parameter at its default, commented out.
pub(super) fn default_file() -> String {
    let defaults = Config::default();
    let mut out =
        String::from("# haypile: every key, with its default. Each is also a flag of `haypile server`.\n");
    let mut group: Option<Group> = None;
    for param in PARAMS {
        if group.replace(param.group) != Some(param.group) {
            out.push_str(&format!("\n# == {} ==\n", param.group.title()));
        }
        out.push_str(&format!("\n# {}\n", describe(param)));
        out.push_str(&format!("# {} = {}\n", param.key, written(param, &defaults)));
    }
    out
}

/// A parameter's line of help: what it is, its values, whether it can be changed at run time.
pub(super) fn describe(param: &Param) -> String {
    let values = match param.kind {
        Kind::Choice(words) => format!(" One of {}.", words.join(", ")),
        Kind::Integer { min, max } if max < i64::from(i32::MAX) => format!(" {min} to {max}."),
        _ => String::new(),
    };
    let live = if param.change == Change::Live { " CONFIG SET can change it." } else { "" };
    format!("{}{values}{live}", param.doc)
}

/// The default value as `--help` shows it.
pub(super) fn default_of(param: &Param) -> String {
    let shown = param.show(&Config::default());
    match param.kind {
        Kind::Bytes { .. } => in_units(&shown).trim_matches('"').to_owned(),
        Kind::Text if shown.is_empty() => "\"\"".to_owned(),
        _ => shown,
    }
}

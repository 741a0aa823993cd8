//! Files written for Redis (`key value`) and Pika (`key : value`).
//!
//! What means something here is applied; the rest is collected, and where losing it silently would be
//! dangerous, with the reason. Keys' meanings: redis.conf of Redis 7.0, pika.conf of Pika 3.4 to 4.0.

use super::file::{Format, Ignored, Wrong};
use super::param::{PARAMS, Param};
use super::value::Kind;
use super::{Config, edit};
use std::collections::HashSet;

/// A line with a key: the key in lower case, and its values joined by blanks.
struct Line {
    number: usize,
    key: String,
    value: String,
}

fn parse_line(line: &str, number: usize, format: Format) -> Result<Option<Line>, Wrong> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let wrong = |why: &str| Wrong { line: number, why: why.to_owned() };
    let (key, value) = if format == Format::Pika {
        let (key, value) = line.split_once(':').ok_or_else(|| wrong("expected `key : value`"))?;
        (key.trim().to_owned(), value.trim().to_owned())
    } else {
        let words = words(line).ok_or_else(|| wrong("unbalanced quotes"))?;
        let [key, values @ ..] = words.as_slice() else { return Ok(None) };
        (key.clone(), values.join(" "))
    };
    Ok(Some(Line { number, key: key.to_ascii_lowercase(), value }))
}

/// Splits a line as Redis does: blanks between words, `"..."` with backslash escapes, `'...'` with `\'` only.
/// None if a quote is not closed, or is closed inside a word.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        let mut bytes = rest.bytes().enumerate().peekable();
        let mut quote = None;
        let mut end = rest.len();
        while let Some((at, byte)) = bytes.next() {
            match (quote, byte) {
                (None, b' ' | b'\t') => {
                    end = at;
                    break;
                }
                (None, b'"' | b'\'') => quote = Some(byte),
                (Some(open), _) if byte == open => {
                    if bytes.peek().is_some_and(|(_, next)| !next.is_ascii_whitespace()) {
                        return None;
                    }
                    quote = None;
                    end = at + 1;
                    break;
                }
                (Some(b'"'), b'\\') => word.push(escaped(&mut bytes)?),
                (Some(b'\''), b'\\') if bytes.peek().is_some_and(|(_, next)| *next == b'\'') => {
                    bytes.next();
                    word.push(b'\'');
                }
                _ => word.push(byte),
            }
        }
        if quote.is_some() {
            return None;
        }
        words.push(String::from_utf8(word).ok()?);
        rest = rest[end..].trim_start();
    }
    Some(words)
}

fn escaped(bytes: &mut impl Iterator<Item = (usize, u8)>) -> Option<u8> {
    Some(match bytes.next()?.1 {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        b'x' => {
            let (high, low) = (char::from(bytes.next()?.1), char::from(bytes.next()?.1));
            (high.to_digit(16)? * 16 + low.to_digit(16)?) as u8
        }
        other => other,
    })
}

/// What a key of theirs means here, where it is not simply a parameter's name.
enum Meaning {
    /// Nothing, and nothing is lost.
    Nothing,
    /// Not built: say so, unless the value is one of these.
    Missing { unless: &'static [&'static str], why: &'static str },
    /// Another form of a parameter of ours.
    Takes(fn(&mut Config, &str) -> Result<(), String>),
}

const fn missing(why: &'static str) -> Meaning {
    Meaning::Missing { unless: &[""], why }
}

const COMMANDS_OPEN: &str = "not supported in this version: the commands stay open under their own names";
const ACCESS: &str = "users and ACLs are not supported in this version: only requirepass guards the data";

#[rustfmt::skip]
static MEANINGS: &[(&str, Meaning)] = &[
    ("rename-command", missing(COMMANDS_OPEN)),
    ("user", missing(ACCESS)),
    ("aclfile", missing(ACCESS)),
    ("userpass", missing(ACCESS)),
    ("userblacklist", missing(ACCESS)),
    ("replicaof", Meaning::Takes(replicaof)),
    ("slaveof", Meaning::Takes(replicaof)),
    // How many replicas a slot may have at most there; `consensus-level` says how many are waited for.
    ("replication-num", Meaning::Nothing),
    ("cluster-enabled", Meaning::Missing { unless: &["no"], why: "Redis Cluster is not supported yet" }),
    ("slotmigrate", Meaning::Missing { unless: &["no"], why: "slot migration is not supported yet" }),
    ("loadmodule", missing("modules are not supported: their commands will be unknown")),
    ("unixsocket", missing("unix sockets are not supported in this version: only the TCP port listens")),
    ("notify-keyspace-events", missing("keyspace events are not supported yet: none will be sent")),
    ("maxmemory-policy", Meaning::Missing { unless: &["noeviction"], why: "keys are never evicted" }),
    ("rocksdb-ttl-second", Meaning::Nothing),
    // A number of network threads there (1 as delivered), not of the CPUs to use.
    ("thread-num", Meaning::Nothing),
    ("maxmemory", Meaning::Takes(maxmemory)),
    ("loglevel", Meaning::Takes(loglevel)),
    ("expire-logs-days", Meaning::Takes(expire_logs_days)),
    ("expire-logs-nums", Meaning::Takes(expire_logs_nums)),
    ("max-client-response-size", Meaning::Takes(max_client_response_size)),
];

fn assign(config: &mut Config, key: &str, text: &str) -> Result<(), String> {
    Param::by_key(key).expect("a key of ours").assign(config, text)
}

/// 0 is no limit there; here it would mean a quarter of the machine, which is what no limit comes to.
fn maxmemory(config: &mut Config, text: &str) -> Result<(), String> {
    assign(config, "memory_budget", text)
}

fn loglevel(config: &mut Config, text: &str) -> Result<(), String> {
    let level = match text.to_ascii_lowercase().as_str() {
        "info" => "notice",
        "error" | "fatal" => "warning",
        _ => text,
    };
    assign(config, "loglevel", level)
}

fn expire_logs_days(config: &mut Config, text: &str) -> Result<(), String> {
    let days = Kind::Integer { min: 0, max: 40_000 }.number(text)?;
    assign(config, "binlog_retention_hours", &(days * 24).to_string())
}

/// A blank stands between host and port in Redis's files, a colon in Pika's.
fn replicaof(config: &mut Config, text: &str) -> Result<(), String> {
    let spaced = match text.rsplit_once(':') {
        Some((host, port)) if !text.contains(' ') => format!("{host} {port}"),
        _ => text.to_owned(),
    };
    assign(config, "replicaof", &spaced)
}

/// A number of files there, and they may stand before or after the files' size: see `apply`.
fn expire_logs_nums(_: &mut Config, text: &str) -> Result<(), String> {
    Kind::Integer { min: 0, max: i64::from(u32::MAX) }.number(text).map(drop)
}

fn max_client_response_size(config: &mut Config, text: &str) -> Result<(), String> {
    assign(config, "client_output_buffer_limit", &format!("normal {text} 0 0"))
}

fn meaning(key: &str) -> Option<&'static Meaning> {
    static TLS: Meaning = Meaning::Missing {
        unless: &["", "0", "no"],
        why: "TLS is not supported in this version: connections are not encrypted",
    };
    if key.starts_with("tls-") {
        return Some(&TLS);
    }
    MEANINGS.iter().find(|(name, _)| *name == key).map(|(_, meaning)| meaning)
}

pub(super) fn apply(text: &str, format: Format, config: &mut Config) -> Result<Vec<Ignored>, Wrong> {
    let mut ignored = Vec::new();
    let mut log_files = None;
    for (at, line) in text.lines().enumerate() {
        let Some(line) = parse_line(line, at + 1, format)? else { continue };
        let wrong = |why: String| Wrong { line: line.number, why: format!("{}: {why}", line.key) };
        if line.key == "include" {
            return Err(wrong("not supported: put the settings into one file".to_owned()));
        }
        if line.key == "expire-logs-nums" {
            log_files = Some((line.number, line.value.clone()));
        }
        let ignore = |danger| Ignored { line: line.number, key: line.key.clone(), danger };
        match (meaning(&line.key), Param::by_wire_name(&line.key)) {
            (Some(Meaning::Takes(take)), _) => take(config, &line.value).map_err(wrong)?,
            (Some(Meaning::Nothing), _) | (None, None) => ignored.push(ignore(None)),
            (Some(Meaning::Missing { unless, why }), _) => {
                let harmless = unless.iter().any(|value| line.value.eq_ignore_ascii_case(value));
                ignored.push(ignore((!harmless).then_some(*why)));
            }
            (None, Some((param, _))) => param.assign(config, &line.value).map_err(wrong)?,
        }
    }
    if let Some((line, files)) = log_files {
        let files: u64 = files.parse().expect("checked when the line was read");
        let bytes = files.saturating_mul(config.binlog_segment_bytes).min(i64::MAX as u64);
        assign(config, "binlog_retention_bytes", &bytes.to_string()).map_err(|why| Wrong { line, why })?;
    }
    Ok(ignored)
}

/// The text with the values that CONFIG SET has changed since; everything else stays as it was.
pub(super) fn rewrite(text: &str, format: Format, before: &Config, now: &Config) -> Result<String, String> {
    let changed = |param: &Param| param.change.is_kept() && param.show(before) != param.show(now);
    let mut written = HashSet::new();
    let mut out = String::with_capacity(text.len());
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let parsed = parse_line(line, at + 1, format).expect("the text was read before");
        let param = parsed.and_then(|line| Param::by_wire_name(&line.key)).map(|(param, _)| param);
        match param.filter(|param| changed(param)) {
            None => out.push_str(line),
            // Redis would not start with an empty one.
            Some(param) if param.key == REPLICAOF && now.replicaof.is_empty() => {
                written.insert(param.key);
            }
            // The last of several lines for one parameter counts, so the others go.
            Some(param) if written.insert(param.key) => {
                out.push_str(&line_for(param, format, now)?);
                out.push('\n');
            }
            Some(_) => {}
        }
    }
    let absent = PARAMS.iter().filter(|param| changed(param) && !written.contains(param.key));
    let absent: Vec<String> = absent.map(|param| line_for(param, format, now)).collect::<Result<_, _>>()?;
    edit::append(&mut out, absent.into_iter());
    Ok(out)
}

/// Key of the parameter that REPLICAOF changes.
const REPLICAOF: &str = "replicaof";

fn line_for(param: &Param, format: Format, config: &Config) -> Result<String, String> {
    let name = param.wire_names()[0];
    let value = param.show(config);
    if format == Format::Pika {
        // Without quotes, such a value would be read back as another one, or as further lines.
        if value.trim() != value || value.contains(['\n', '\r']) {
            return Err(format!("{name}: Pika's format cannot hold this value"));
        }
        return Ok(match param.key {
            REPLICAOF => format!("slaveof : {}", value.replace(' ', ":")),
            _ => format!("{name} : {value}"),
        });
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\' | b'#');
    // Several words, as Redis reads them too: the limits of all classes, a host and its port.
    let list = param.key == "client_output_buffer_limit"
        || param.key == REPLICAOF && value.split(' ').all(|word| word.bytes().all(plain));
    if list || (!value.is_empty() && value.bytes().all(plain)) {
        return Ok(format!("{name} {value}"));
    }
    let mut quoted = String::new();
    for char in value.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            control if control.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", control as u8)),
            other => quoted.push(other),
        }
    }
    Ok(format!("{name} \"{quoted}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_as_redis_does() {
        for (line, expect) in [
            ("bind 127.0.0.1  ::1", Some(vec!["bind", "127.0.0.1", "::1"])),
            (r#"requirepass "a \"b\" \x41\n""#, Some(vec!["requirepass", "a \"b\" A\n"])),
            (r"requirepass 'it\'s \n'", Some(vec!["requirepass", r"it's \n"])),
            (r#"save """#, Some(vec!["save", ""])),
            (r#"save "" "#, Some(vec!["save", ""])),
            (r#"a b"c d""#, Some(vec!["a", "bc d"])),
            (r#"a "b"#, None),
            (r#"a "b"c"#, None),
            ("a 'b", None),
        ] {
            let expect = expect.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(words(line), expect, "{line}");
        }
    }

    proptest! {
        #[test]
        fn quoted_values_are_read_back(password in "\\PC{0,20}|[ -~\\n\\t]{0,20}") {
            let mut config = Config::default();
            assign(&mut config, "requirepass", &password).unwrap();
            let line = line_for(Param::by_key("requirepass").unwrap(), Format::Redis, &config).unwrap();
            let mut again = Config::default();
            apply(&line, Format::Redis, &mut again).unwrap();
            prop_assert_eq!(again, config);
        }

        #[test]
        fn no_text_panics(text in "(\\PC{0,30}\n){0,4}") {
            for format in [Format::Redis, Format::Pika, Format::Toml] {
                let _ = super::super::file::apply(&text, format, &mut Config::default());
            }
        }
    }
}

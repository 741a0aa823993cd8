//! How commands are written, for COMMAND DOCS (and so redis-cli's hints) and for HELP.
//!
//! Makes of the lines of `syntax` what clients are told; knows no command.

use super::syntax::SYNTAX;
use crate::resp::reply::Reply;

/// What follows the name; empty if nothing does.
pub fn syntax(name: &str) -> &'static str {
    SYNTAX.iter().find(|(of, _)| *of == name).map_or("", |(_, line)| line)
}

/// The arguments as COMMAND DOCS tells them.
pub fn arguments(name: &str) -> Vec<Reply> {
    let line = syntax(name);
    let mut words = words(line).into_iter().peekable();
    let arguments = sequence(&mut words);
    assert!(words.next().is_none(), "{name}: brackets are in pairs");
    arguments.iter().map(Argument::told).collect()
}

type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

/// Words and brackets, each by itself.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for mut part in line.split(' ').filter(|part| !part.is_empty()) {
        while let Some(rest) = part.strip_prefix(['[', '<']) {
            words.push(&part[..1]);
            part = rest;
        }
        let bare = part.trim_end_matches([']', '>']);
        if !bare.is_empty() {
            words.push(bare);
        }
        words.extend(part[bare.len()..].split_inclusive(|_| true));
    }
    words
}

#[derive(Clone, Debug, Default)]
struct Argument {
    name: String,
    kind: &'static str,
    token: Option<&'static str>,
    optional: bool,
    multiple: bool,
    parts: Vec<Argument>,
}

/// Signs that stand as they are, with their names.
const SIGNS: [(&str, &str); 4] =
    [("*", "auto-id"), ("$", "last-entry"), ("=", "equal"), ("~", "approximately")];

impl Argument {
    fn word(word: &'static str) -> Argument {
        let sign = SIGNS.iter().find(|(sign, _)| *sign == word).map(|(_, name)| name.to_string());
        let capitals = word.starts_with(|first: char| first.is_ascii_uppercase());
        if let Some(name) = sign.or_else(|| capitals.then(|| word.to_ascii_lowercase())) {
            return Argument { name, kind: "pure-token", token: Some(word), ..Argument::default() };
        }
        Argument { name: word.into(), kind: kind(word), ..Argument::default() }
    }

    fn group(kind: &'static str, parts: Vec<Argument>) -> Argument {
        let name = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join("-or-");
        let name = if kind == "block" { name.replace("-or-", "-") } else { name };
        Argument { name, kind, parts, ..Argument::default() }
    }

    fn told(&self) -> Reply {
        let mut facts = vec![
            (Reply::text("name"), Reply::text(&self.name)),
            (Reply::text("type"), Reply::text(self.kind)),
        ];
        if let Some(token) = self.token {
            facts.push((Reply::text("token"), Reply::text(token)));
        }
        let flags = [(self.optional, "optional"), (self.multiple, "multiple")];
        let flags: Vec<_> =
            flags.into_iter().filter(|(on, _)| *on).map(|(_, name)| Reply::Simple(name)).collect();
        if !flags.is_empty() {
            facts.push((Reply::text("flags"), Reply::Set(flags)));
        }
        if !self.parts.is_empty() {
            facts.push((
                Reply::text("arguments"),
                Reply::Array(self.parts.iter().map(Argument::told).collect()),
            ));
        }
        Reply::Map(facts)
    }
}

fn kind(word: &str) -> &'static str {
    match word {
        "key" | "key1" | "key2" | "newkey" | "source" | "sourcekey" | "destination" | "destkey" => "key",
        "pattern" => "pattern",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "longitude" | "latitude" | "radius" | "width" | "height" | "score" | "timeout" => "double",
        "count" | "cursor" | "index" | "index1" | "index2" | "seconds" | "milliseconds" | "offset"
        | "start" | "stop" | "end" | "slot" | "length" | "decrement" | "client-id" | "protover"
        | "numkeys" | "numfields" | "limit" | "rank" | "weight" | "entries-read" | "entries-added" => {
            "integer"
        }
        _ => "string",
    }
}

/// Arguments up to a closing bracket, a bar or the end.
fn sequence(words: &mut Words<'static>) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = Vec::new();
    while let Some(word) = words.next_if(|word| !matches!(*word, "]" | ">" | "|")) {
        match word {
            "..." => arguments.last_mut().expect("it comes behind an argument").multiple = true,
            "[" | "<" => arguments.push(bracket(words, word == "[")),
            word => {
                let argument = Argument::word(word);
                arguments.push(if argument.kind == "pure-token" {
                    with_values(argument, words)
                } else {
                    argument
                });
            }
        }
    }
    arguments
}

/// A word in capitals and the values or the choice behind it are one argument.
fn with_values(token: Argument, words: &mut Words<'static>) -> Argument {
    let is_value = |word: &&str| word.starts_with(|first: char| first.is_ascii_lowercase());
    let mut values = Vec::new();
    while let Some(word) = words.next_if(is_value) {
        let multiple = words.next_if(|word| *word == "...").is_some();
        values.push(Argument { multiple, ..Argument::word(word) });
    }
    if values.is_empty() && words.next_if(|word| *word == "<").is_some() {
        values.push(bracket(words, false));
    }
    match values.len() {
        0 => token,
        1 => Argument { token: token.token, ..values.remove(0) },
        _ => Argument { token: token.token, ..Argument::group("block", values) },
    }
}

/// What stands in brackets, whose opening one has been taken.
fn bracket(words: &mut Words<'static>, optional: bool) -> Argument {
    let mut choices = Vec::new();
    loop {
        let mut parts = sequence(words);
        choices.push(if parts.len() == 1 { parts.remove(0) } else { Argument::group("block", parts) });
        if words.next().expect("brackets are in pairs") != "|" {
            break;
        }
    }
    let argument = if choices.len() == 1 { choices.remove(0) } else { Argument::group("oneof", choices) };
    Argument { optional: argument.optional || optional, ..argument }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::show;
    use crate::front::table::specs;

    #[test]
    fn lines_become_arguments() {
        let told = |name| arguments(name).iter().map(show).collect::<Vec<_>>().join(" ");
        assert_eq!(told("get"), "{name: key, type: key}");
        assert_eq!(told("del"), "{name: key, type: key, flags: ~[+multiple]}");
        assert_eq!(
            told("flushdb"),
            "{name: async-or-sync, type: oneof, flags: ~[+optional], arguments: \
             [{name: async, type: pure-token, token: ASYNC}, {name: sync, type: pure-token, token: SYNC}]}"
        );
        assert_eq!(
            told("hello"),
            "{name: protover, type: integer, flags: ~[+optional]} \
             {name: username-password, type: block, token: AUTH, flags: ~[+optional], arguments: \
             [{name: username, type: string}, {name: password, type: string}]} \
             {name: name, type: string, token: SETNAME, flags: ~[+optional]}"
        );
        assert_eq!(
            told("mset"),
            "{name: key-value, type: block, flags: ~[+multiple], arguments: \
             [{name: key, type: key}, {name: value, type: string}]}"
        );
        assert_eq!(
            told("httl"),
            "{name: key, type: key} {name: numfields-field, type: block, token: FIELDS, arguments: \
             [{name: numfields, type: integer}, {name: field, type: string, flags: ~[+multiple]}]}"
        );
        assert_eq!(
            told("xtrim"),
            "{name: key, type: key} {name: maxlen-or-minid, type: oneof, arguments: \
             [{name: maxlen, type: pure-token, token: MAXLEN}, {name: minid, type: pure-token, token: MINID}]} \
             {name: equal-or-approximately, type: oneof, flags: ~[+optional], arguments: \
             [{name: equal, type: pure-token, token: =}, {name: approximately, type: pure-token, token: ~}]} \
             {name: threshold, type: string} \
             {name: count, type: integer, token: LIMIT, flags: ~[+optional]}"
        );
        assert_eq!(told("dbsize"), "");
    }

    #[test]
    fn every_line_is_well_formed() {
        for (name, _) in SYNTAX {
            assert!(!arguments(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn commands_that_must_have_arguments_have_a_line() {
        for spec in specs() {
            for sub in spec.subcommands {
                let name = format!("{}|{}", spec.name, sub.name);
                assert_eq!(syntax(&name).is_empty(), sub.arity == 2, "{name}");
            }
            if spec.subcommands.is_empty() {
                assert_eq!(
                    syntax(spec.name).is_empty(),
                    matches!(spec.arity, 1) || spec.name == "quit",
                    "{}",
                    spec.name
                );
            }
        }
    }
}

//! How commands are written, for COMMAND DOCS (and so redis-cli's hints) and for HELP.
//!
//! A line of syntax: words in capitals, and signs, stand as they are, others for a value; `[x]` may be left
//! out, `<x | y>` is a choice, `...` means that what stands before may come again.

use crate::resp::reply::Reply;

/// By full name; a command that takes nothing has no line, every other one of the table must have one.
const SYNTAX: &[(&str, &str)] = &[
    ("append", "key value"),
    ("auth", "[username] password"),
    ("bitcount", "key [start end [BYTE | BIT]]"),
    (
        "bitfield",
        "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | \
         INCRBY encoding offset increment>] ...",
    ),
    ("bitfield_ro", "key [GET encoding offset] ..."),
    ("bitop", "<AND | OR | XOR | NOT> destkey key ..."),
    ("bitpos", "key bit [start [end [BYTE | BIT]]]"),
    (
        "client|kill",
        "<ip:port | [ID client-id] [TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [USER username] \
         [ADDR ip:port] [LADDR ip:port] [MAXAGE seconds] [SKIPME <YES | NO>]>",
    ),
    ("client|list", "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id ...]"),
    ("client|no-evict", "<ON | OFF>"),
    ("client|no-touch", "<ON | OFF>"),
    ("client|pause", "milliseconds [WRITE | ALL]"),
    ("client|reply", "<ON | OFF | SKIP>"),
    ("client|setinfo", "<LIB-NAME name | LIB-VER version>"),
    ("client|setname", "name"),
    ("cluster|countkeysinslot", "slot"),
    ("cluster|getkeysinslot", "slot count"),
    ("cluster|keyslot", "key"),
    ("command|docs", "[command-name ...]"),
    ("command|getkeys", "command [argument ...]"),
    ("command|getkeysandflags", "command [argument ...]"),
    ("command|info", "[command-name ...]"),
    ("command|list", "[FILTERBY <MODULE name | ACLCAT category | PATTERN pattern>]"),
    ("config|get", "pattern ..."),
    ("config|set", "<parameter value> ..."),
    ("copy", "source destination [DB index] [REPLACE]"),
    ("debug|set-active-expire", "<0 | 1>"),
    ("debug|sleep", "seconds"),
    ("decr", "key"),
    ("decrby", "key decrement"),
    ("del", "key ..."),
    ("dump", "key"),
    ("echo", "message"),
    ("exists", "key ..."),
    ("expire", "key seconds [NX | XX | GT | LT]"),
    ("expireat", "key unix-time-seconds [NX | XX | GT | LT]"),
    ("expiretime", "key"),
    ("flushall", "[ASYNC | SYNC]"),
    ("flushdb", "[ASYNC | SYNC]"),
    ("get", "key"),
    ("getbit", "key offset"),
    ("getdel", "key"),
    (
        "getex",
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    ),
    ("getrange", "key start end"),
    ("getset", "key value"),
    ("hello", "[protover] [AUTH username password] [SETNAME name]"),
    ("incr", "key"),
    ("incrby", "key increment"),
    ("incrbyfloat", "key increment"),
    ("info", "[section ...]"),
    ("keys", "pattern"),
    ("latency|graph", "event"),
    ("latency|histogram", "[command ...]"),
    ("latency|history", "event"),
    ("latency|reset", "[event ...]"),
    ("lcs", "key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]"),
    ("memory|usage", "key [SAMPLES count]"),
    ("mget", "key ..."),
    ("move", "key index"),
    ("mset", "<key value> ..."),
    ("msetnx", "<key value> ..."),
    ("object|encoding", "key"),
    ("object|freq", "key"),
    ("object|idletime", "key"),
    ("object|refcount", "key"),
    ("persist", "key"),
    ("pexpire", "key milliseconds [NX | XX | GT | LT]"),
    ("pexpireat", "key unix-time-milliseconds [NX | XX | GT | LT]"),
    ("pexpiretime", "key"),
    ("ping", "[message]"),
    ("psetex", "key milliseconds value"),
    ("pttl", "key"),
    ("rename", "key newkey"),
    ("renamenx", "key newkey"),
    ("scan", "cursor [MATCH pattern] [COUNT count] [TYPE type]"),
    ("restore", "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]"),
    ("select", "index"),
    (
        "set",
        "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
         PXAT unix-time-milliseconds | KEEPTTL]",
    ),
    ("setbit", "key offset value"),
    ("setex", "key seconds value"),
    ("setnx", "key value"),
    ("setrange", "key offset value"),
    ("shutdown", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]"),
    ("slowlog|get", "[count]"),
    ("slowlog|stages", "[count]"),
    ("strlen", "key"),
    ("substr", "key start end"),
    ("swapdb", "index1 index2"),
    ("touch", "key ..."),
    ("ttl", "key"),
    ("type", "key"),
    ("unlink", "key ..."),
    ("xack", "key group id ..."),
    (
        "xadd",
        "key [NOMKSTREAM] [<MAXLEN | MINID> [= | ~] threshold [LIMIT count]] <* | id> <field value> ...",
    ),
    ("xautoclaim", "key group consumer min-idle-time start [COUNT count] [JUSTID]"),
    (
        "xclaim",
        "key group consumer min-idle-time id ... [IDLE ms] [TIME unix-time-milliseconds] [RETRYCOUNT count] \
         [FORCE] [JUSTID] [LASTID lastid]",
    ),
    ("xdel", "key id ..."),
    ("xgroup|create", "key group <id | $> [MKSTREAM] [ENTRIESREAD entries-read]"),
    ("xgroup|createconsumer", "key group consumer"),
    ("xgroup|delconsumer", "key group consumer"),
    ("xgroup|destroy", "key group"),
    ("xgroup|setid", "key group <id | $> [ENTRIESREAD entries-read]"),
    ("xinfo|consumers", "key group"),
    ("xinfo|groups", "key"),
    ("xinfo|stream", "key [FULL [COUNT count]]"),
    ("xlen", "key"),
    ("xpending", "key group [[IDLE min-idle-time] start end count [consumer]]"),
    ("xrange", "key start end [COUNT count]"),
    ("xread", "[COUNT count] [BLOCK milliseconds] STREAMS key ... id ..."),
    ("xreadgroup", "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key ... id ..."),
    ("xrevrange", "key end start [COUNT count]"),
    ("xsetid", "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]"),
    ("xtrim", "key <MAXLEN | MINID> [= | ~] threshold [LIMIT count]"),
];

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

impl Argument {
    fn word(word: &'static str) -> Argument {
        if word.starts_with(|first: char| first.is_ascii_uppercase() || !first.is_ascii_alphanumeric()) {
            let name = word.to_ascii_lowercase();
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
        "key" | "key1" | "key2" | "newkey" | "source" | "destination" => "key",
        "pattern" => "pattern",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "count" | "cursor" | "index" | "index1" | "index2" | "seconds" | "milliseconds" | "offset"
        | "start" | "end" | "slot" | "length" | "decrement" | "client-id" | "protover" => "integer",
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
        values.push(Argument::word(word));
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

//! COMMAND: the table of commands, told in Redis's shapes. Only what the rows say is told.

use super::{Sub, docs, help, run_subcommand, spec};
use crate::command::flag::{
    ADMIN, ALLOW_BUSY, BLOCKING, DANGEROUS, DENYOOM, FAST, LOADING, NO_AUTH, NO_MULTI, NOSCRIPT, PUBSUB,
    READONLY, SKIP_MONITOR, STALE, WRITE,
};
use crate::command::{Group, Keys, Spec};
use crate::error::ClientError;
use crate::front::table::specs;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::{Args, Span};
use crate::resp::glob;
use crate::resp::reply::Reply;
use bytes::Bytes;

const ANY_TIME: u32 = LOADING | STALE;
const PER_COMMAND: &str = "O(N) where N is the number of commands";
const PER_ARGUMENT: &str = "O(N) where N is the number of arguments";

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            own("count", 2, "2.8.13", "O(1)", "Counts the commands"),
            own("list", -2, "7.0.0", PER_COMMAND, "Lists the commands' names"),
            own("info", -2, "2.8.13", PER_COMMAND, "Answers facts about commands, all if none is named"),
            own("docs", -2, "7.0.0", PER_COMMAND, "Answers what commands are for, all if none is named"),
            own("getkeys", -4, "2.8.13", PER_ARGUMENT, "Finds the keys in a command"),
            own("getkeysandflags", -4, "7.0.0", PER_ARGUMENT, "Finds the keys in a command, and their use"),
            own("help", 2, "5.0.0", "O(1)", "Prints this help"),
        ],
        ..own("command", -1, "2.8.13", PER_COMMAND, "Answers facts about all commands")
    },
    run: command,
}];

const fn own(
    name: &'static str,
    arity: i32,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Spec {
    spec(Group::Server, name, arity, ANY_TIME, since, complexity, summary)
}

pub(super) const SUBS: &[Sub] = &[
    ("count", count),
    ("list", list),
    ("info", info),
    ("docs", describe),
    ("getkeys", getkeys),
    ("getkeysandflags", getkeysandflags),
    ("help", print_help),
];

fn command(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    match args.len() {
        1 => Ok(Reply::Array(specs().into_iter().map(|spec| entry(&Named::top(spec))).collect()).into()),
        _ => run_subcommand(SUBS, ctx, args),
    }
}

fn print_help(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(help("COMMAND", COMMANDS[0].spec.subcommands))
}

/// A row with its full name: `config|get` for a subcommand.
struct Named {
    name: String,
    spec: &'static Spec,
}

impl Named {
    fn top(spec: &'static Spec) -> Named {
        Named { name: spec.name.to_string(), spec }
    }

    fn subcommands(&self) -> impl Iterator<Item = Named> {
        self.spec.subcommands.iter().map(|spec| Named { name: format!("{}|{}", self.name, spec.name), spec })
    }

    /// By full name, in any case.
    fn find(name: &[u8]) -> Option<Named> {
        let name = str::from_utf8(name).ok()?.to_ascii_lowercase();
        let (top, sub) = match name.split_once('|') {
            Some((top, sub)) => (top, Some(sub)),
            None => (name.as_str(), None),
        };
        let top = Named::top(specs().into_iter().find(|spec| spec.name == top)?);
        match sub {
            None => Some(top),
            Some(sub) => top.subcommands().find(|named| named.spec.name == sub),
        }
    }

    /// What a whole call means: its subcommand where it has such.
    fn of_call(args: &Args<'_>) -> Option<Named> {
        let top = Named::find(args.get(0)).filter(|named| !named.name.contains('|'))?;
        if top.spec.subcommands.is_empty() || args.len() < 2 {
            return Some(top);
        }
        top.subcommands().find(|named| args.is(1, named.spec.name))
    }
}

fn count(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Reply::Int(specs().len() as i64).into())
}

fn list(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let filtered = args.len() == 5 && args.is(2, "FILTERBY");
    let keep: Box<dyn Fn(&Named) -> bool> = match args.len() {
        2 => Box::new(|_| true),
        // There are no modules.
        5 if filtered && args.is(3, "MODULE") => Box::new(|_| false),
        5 if filtered && args.is(3, "ACLCAT") => {
            let wanted = String::from_utf8_lossy(args.get(4)).to_ascii_lowercase();
            Box::new(move |named| categories(named.spec).iter().any(|category| category[1..] == wanted))
        }
        5 if filtered && args.is(3, "PATTERN") => {
            let pattern = args.get(4).to_vec();
            Box::new(move |named| glob::matches(&pattern, named.name.as_bytes(), true))
        }
        _ => return Err(ClientError::SYNTAX),
    };
    let names = specs().into_iter().map(Named::top).flat_map(|top| {
        let subcommands: Vec<_> = top.subcommands().collect();
        [top].into_iter().chain(subcommands)
    });
    Ok(Reply::Array(names.filter(|named| keep(named)).map(|named| Reply::bulk(named.name)).collect()).into())
}

fn info(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let entries = match args.len() {
        2 => specs().into_iter().map(|spec| entry(&Named::top(spec))).collect(),
        _ => args.iter(2).map(|name| Named::find(name).map_or(Reply::Nil, |named| entry(&named))).collect(),
    };
    Ok(Reply::Array(entries).into())
}

fn describe(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let named: Vec<_> = match args.len() {
        2 => specs().into_iter().map(Named::top).collect(),
        _ => args.iter(2).filter_map(Named::find).collect(),
    };
    Ok(Reply::Map(named.iter().map(described).collect()).into())
}

fn described(named: &Named) -> (Reply, Reply) {
    let spec = named.spec;
    let mut facts = vec![
        (Reply::text("summary"), Reply::text(spec.summary)),
        (Reply::text("since"), Reply::text(spec.since)),
        (Reply::text("group"), Reply::text(group(spec.group))),
        (Reply::text("complexity"), Reply::text(spec.complexity)),
    ];
    let arguments = docs::arguments(&named.name);
    if !arguments.is_empty() {
        facts.push((Reply::text("arguments"), Reply::Array(arguments)));
    }
    if !spec.subcommands.is_empty() {
        let subcommands = named.subcommands().map(|sub| described(&sub)).collect();
        facts.push((Reply::text("subcommands"), Reply::Map(subcommands)));
    }
    (Reply::text(&named.name), Reply::Map(facts))
}

fn group(group: Group) -> &'static str {
    match group {
        Group::String => "string",
        Group::Bitmap => "bitmap",
        Group::HyperLogLog => "hyperloglog",
        Group::Hash => "hash",
        Group::List => "list",
        Group::Set => "set",
        Group::SortedSet => "sorted-set",
        Group::Geo => "geo",
        Group::Stream => "stream",
        Group::Generic => "generic",
        Group::Connection => "connection",
        Group::Server => "server",
        Group::Cluster => "cluster",
    }
}

/// One command as COMMAND INFO tells it: name, arity, flags, first and last key and step, categories,
/// tips (none), key specifications, subcommands.
fn entry(named: &Named) -> Reply {
    let spec = named.spec;
    let (first, last, step) = match spec.keys {
        Keys::Span { first, last, step } => (first as i64, i64::from(last), step as i64),
        Keys::None | Keys::Find(_) | Keys::Beyond { .. } => (0, 0, 0),
    };
    Reply::Array(vec![
        Reply::text(&named.name),
        Reply::Int(i64::from(spec.arity)),
        words(flags(spec)),
        Reply::Int(first),
        Reply::Int(last),
        Reply::Int(step),
        words(categories(spec)),
        Reply::Set(Vec::new()),
        Reply::Set(key_specification(spec).into_iter().collect()),
        Reply::Set(named.subcommands().map(|sub| entry(&sub)).collect()),
    ])
}

fn words(words: Vec<&'static str>) -> Reply {
    Reply::Set(words.into_iter().map(Reply::Simple).collect())
}

fn flags(spec: &Spec) -> Vec<&'static str> {
    const NAMES: [(u32, &str); 14] = [
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (PUBSUB, "pubsub"),
        (NOSCRIPT, "noscript"),
        (BLOCKING, "blocking"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (SKIP_MONITOR, "skip_monitor"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (NO_MULTI, "no_multi"),
        (ALLOW_BUSY, "allow_busy"),
    ];
    let mut flags: Vec<_> = NAMES.iter().filter(|(flag, _)| spec.has(*flag)).map(|(_, name)| *name).collect();
    if matches!(spec.keys, Keys::Find(_) | Keys::Beyond { .. }) {
        flags.push("movablekeys");
    }
    flags
}

/// Redis's categories as far as they follow from flags and group.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let about_keys = spec.group == Group::Generic
        || (spec.group == Group::Server && (spec.has(READONLY) || spec.has(WRITE)));
    let every = [
        (about_keys, "@keyspace"),
        (spec.has(READONLY), "@read"),
        (spec.has(WRITE), "@write"),
        (spec.group == Group::String, "@string"),
        (spec.group == Group::Bitmap, "@bitmap"),
        (spec.has(ADMIN), "@admin"),
        (spec.has(PUBSUB), "@pubsub"),
        (spec.has(FAST), "@fast"),
        (!spec.has(FAST), "@slow"),
        (spec.has(BLOCKING), "@blocking"),
        (spec.has(ADMIN) || spec.has(DANGEROUS), "@dangerous"),
        (spec.group == Group::Connection, "@connection"),
    ];
    every.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect()
}

/// How the command uses its keys; rows do not say which writes read the old value too, so all may.
fn key_use(spec: &Spec) -> Vec<&'static str> {
    if spec.has(WRITE) { vec!["RW", "access", "update"] } else { vec!["RO", "access"] }
}

/// Where the keys stand, for commands where that is a fixed place.
fn key_specification(spec: &Spec) -> Option<Reply> {
    let Keys::Span { first, last, step } = spec.keys else { return None };
    // Counted from the first key, unless from the end.
    let last = if last < 0 { i64::from(last) } else { i64::from(last) - first as i64 };
    let search = |kind: &str, fields: &[(&str, i64)]| {
        let fields = fields.iter().map(|(name, value)| (Reply::text(name), Reply::Int(*value))).collect();
        Reply::Map(vec![(Reply::text("type"), Reply::text(kind)), (Reply::text("spec"), Reply::Map(fields))])
    };
    let range = [("lastkey", last), ("keystep", step as i64), ("limit", 0)];
    Some(Reply::Map(vec![
        (Reply::text("flags"), words(key_use(spec))),
        (Reply::text("begin_search"), search("index", &[("index", first as i64)])),
        (Reply::text("find_keys"), search("range", &range)),
    ]))
}

fn getkeys(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let (_, keys) = keys_of_call(args)?;
    Ok(Reply::Array(keys.into_iter().map(Reply::Bulk).collect()).into())
}

fn getkeysandflags(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let (spec, keys) = keys_of_call(args)?;
    let pair = |key| Reply::Array(vec![Reply::Bulk(key), words(key_use(spec))]);
    Ok(Reply::Array(keys.into_iter().map(pair).collect()).into())
}

/// The command that stands behind COMMAND GETKEYS, and its keys.
fn keys_of_call(args: &Args<'_>) -> Result<(&'static Spec, Vec<Bytes>), ClientError> {
    let call = args.iter(2).collect::<Vec<_>>();
    let bytes = call.concat();
    let mut start = 0;
    let span = |word: &&[u8]| {
        let span = Span { start, len: word.len() as u32 };
        start += span.len;
        span
    };
    let spans: Vec<_> = call.iter().map(span).collect();
    let call = Args::new(&bytes, &spans);
    let spec = Named::of_call(&call).ok_or(ClientError::fixed("ERR Invalid command specified"))?.spec;
    if matches!(spec.keys, Keys::None) {
        return Err(ClientError::fixed("ERR The command has no key arguments"));
    }
    if !spec.arity_allows(call.len()) {
        return Err(ClientError::fixed("ERR Invalid number of arguments specified for command"));
    }
    let keys =
        spec.keys.of(&call).map_err(|_| ClientError::fixed("ERR Invalid arguments specified for command"))?;
    Ok((spec, keys.iter().map(|key| Bytes::copy_from_slice(call.get(key.arg))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;

    #[test]
    fn texts_are_those_of_redis() {
        let mut bench = Bench::new();
        for (call, reply) in [
            ("COMMAND DOCS nosuch", "{}"),
            ("COMMAND INFO nosuch", "[nil]"),
            ("COMMAND GETKEYS get", "-ERR wrong number of arguments for 'command|getkeys' command"),
            ("COMMAND GETKEYS get a", "[a]"),
            ("COMMAND GETKEYS ping x", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYS config get x", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYS nosuch x", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS get a b", "-ERR Invalid number of arguments specified for command"),
            ("COMMAND GETKEYS mset a b c d", "[a, c]"),
            ("COMMAND GETKEYSANDFLAGS get x", "[[x, ~[+RO, +access]]]"),
            ("COMMAND GETKEYSANDFLAGS ping x", "-ERR The command has no key arguments"),
            ("COMMAND LIST FILTERBY", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY MODULE", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY MODULE foo", "[]"),
            ("COMMAND LIST FILTERBY FOO bar", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY ACLCAT foo", "[]"),
            ("COMMAND LIST FILTERBY PATTERN CLIENT|L*", "[client|list]"),
            ("COMMAND LIST foo", "-ERR syntax error"),
            ("COMMAND FOO", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
    }

    #[test]
    fn entries_have_the_shape_of_redis() {
        let mut bench = Bench::new();
        assert_eq!(
            bench.run("COMMAND INFO Get ECHO"),
            "[[get, :2, ~[+readonly, +fast], :1, :1, :1, ~[+@read, +@string, +@fast], ~[], \
             ~[{flags: ~[+RO, +access], begin_search: {type: index, spec: {index: :1}}, \
             find_keys: {type: range, spec: {lastkey: :0, keystep: :1, limit: :0}}}], ~[]], \
             [echo, :2, ~[+loading, +stale, +fast], :0, :0, :0, ~[+@fast, +@connection], ~[], ~[], ~[]]]"
        );
        let client = bench.run("COMMAND INFO client|list");
        assert!(
            client.starts_with("[[client|list, :-2, ~[+admin, +noscript, +loading, +stale], :0"),
            "{client}"
        );
        assert!(bench.run("COMMAND INFO client").contains("[client|kill, :-3"));
        let count = bench.run("COMMAND COUNT");
        assert_eq!(count, format!(":{}", specs().len()));
    }

    #[test]
    fn docs_tell_what_rows_say() {
        let mut bench = Bench::new();
        assert_eq!(
            bench.run("COMMAND DOCS lastsave"),
            "{lastsave: {summary: Answers when everything was last known to be on disk, since: 1.0.0, \
             group: server, complexity: O(1)}}"
        );
        let config = bench.run("COMMAND DOCS config");
        assert!(config.contains("subcommands: {config|get: {summary: "), "{config}");
        assert!(bench.run("COMMAND DOCS").contains("cluster|slots: {"));
    }

    #[test]
    fn names_are_listed_with_subcommands() {
        let mut bench = Bench::new();
        let all = bench.run("COMMAND LIST");
        for name in ["get", "client", "client|list", "command|docs"] {
            assert!(all.contains(&format!(" {name},")), "{name} in {all}");
        }
        let admin = bench.run("COMMAND LIST FILTERBY ACLCAT Admin");
        assert!(admin.contains("shutdown") && !admin.contains("ping"), "{admin}");
    }
}

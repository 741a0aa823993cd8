//! README's table of commands is what the running server says of itself, with what `readme/` knows: the names
//! of all commands there are, and remarks on those that do not work here or not all of them. With
//! UPDATE_EXPECT=1 the table is written instead of compared.

mod harness;

use harness::{Options, Server, Value, installed};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

const BEGIN: &str = "<!-- commands: made by tests/readme.rs -->\n";
const END: &str = "<!-- end of commands -->\n";

/// `NAME` or `CONTAINER|NAME`.
type Name = String;

/// A row of the table: commands with their subcommands.
struct Group {
    title: String,
    commands: BTreeMap<Name, Vec<Name>>,
}

impl Group {
    /// `Title: NAME NAME (SUB SUB) NAME`.
    fn parse(line: &str) -> Group {
        let (title, names) = line.split_once(": ").expect("a title and names");
        let mut commands: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        let mut container = None;
        let mut last = String::new();
        for word in names.split(' ') {
            let name = word.trim_start_matches('(').trim_end_matches(')');
            if word.starts_with('(') {
                container = Some(last.clone());
            }
            match &container {
                Some(of) => commands.get_mut(of).expect("it came before").push(format!("{of}|{name}")),
                None => drop(commands.insert(name.to_string(), Vec::new())),
            }
            if word.ends_with(')') {
                container = None;
            }
            last = name.to_string();
        }
        Group { title: title.to_string(), commands }
    }

    fn of(names: &[Name]) -> Group {
        let mut commands: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        for name in names {
            match name.split_once('|') {
                Some((container, _)) => commands.entry(container.into()).or_default().push(name.clone()),
                None => drop(commands.entry(name.clone()).or_default()),
            }
        }
        Group { title: String::new(), commands }
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.commands.iter().flat_map(|(name, subs)| std::iter::once(name).chain(subs))
    }

    /// The commands of a kind, with their subcommands of that kind.
    fn list(&self, of: impl Fn(&Name) -> bool, show: impl Fn(&Name) -> String) -> String {
        let mut shown = Vec::new();
        for (name, subs) in &self.commands {
            let subs: Vec<_> = subs.iter().filter(|sub| of(sub)).map(&show).collect();
            match (of(name), subs.is_empty()) {
                (true, true) => shown.push(show(name)),
                (false, true) => {}
                (_, false) => shown.push(format!("{} ({})", show(name), subs.join(" "))),
            }
        }
        shown.join(" ")
    }
}

struct Remark {
    names: Vec<Name>,
    text: String,
}

fn lines(file: &str) -> Vec<String> {
    let path = root().join("tests/readme").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_string).collect()
}

fn groups() -> Vec<Group> {
    lines("names.txt").iter().map(|line| Group::parse(line)).collect()
}

fn remarks() -> Vec<Remark> {
    let parse = |line: &String| {
        let (names, text) = line.split_once(": ").expect("names and a text");
        Remark { names: names.split(' ').map(str::to_string).collect(), text: text.to_string() }
    };
    lines("remarks.txt").iter().map(parse).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// COMMAND LIST, and so every subcommand.
fn listed(options: Options) -> BTreeSet<Name> {
    let server = Server::start(options);
    let list = server.client().ask("COMMAND LIST");
    let name = |item: &Value| String::from_utf8_lossy(item.bytes().expect("a name")).to_uppercase();
    list.items().iter().map(name).collect()
}

/// What is wrong with the two files, if the server knows these commands.
fn mistakes(groups: &[Group], remarks: &[Remark], works: &BTreeSet<Name>) -> Vec<String> {
    let known: BTreeSet<&Name> = groups.iter().flat_map(Group::names).collect();
    let remarked: BTreeSet<&Name> = remarks.iter().flat_map(|remark| &remark.names).collect();
    let mut wrong = Vec::new();
    for name in works.iter().filter(|name| !known.contains(name)) {
        wrong.push(format!("names.txt has no {name}, which the server lists"));
    }
    for name in remarked.iter().filter(|name| !known.contains(*name)) {
        wrong.push(format!("remarks.txt tells of {name}, which names.txt does not have"));
    }
    for name in known.iter().filter(|name| !works.contains(**name)) {
        let container = name.split_once('|').map(|(container, _)| container.to_string());
        // Of a container that is not there its subcommands need not be told.
        let told = container.is_some_and(|container| !works.contains(&container));
        if !told && !remarked.contains(*name) {
            wrong.push(format!("{name} does not work, and remarks.txt does not say why"));
        }
    }
    for Remark { names, text } in remarks {
        if names.iter().any(|name| works.contains(name)) && names.iter().any(|name| !works.contains(name)) {
            let those: Vec<_> = names.iter().filter(|name| works.contains(*name)).collect();
            wrong.push(format!("of what `{text}` is said of, these work and others do not: {those:?}"));
        }
    }
    wrong
}

fn table(groups: &[Group], remarks: &[Remark], works: &BTreeSet<Name>) -> String {
    let remarked: BTreeSet<&Name> = remarks.iter().flat_map(|remark| &remark.names).collect();
    let plain = |name: &Name| name.rsplit('|').next().expect("one part at least").to_string();
    let marked = |name: &Name| {
        let shown = plain(name);
        if remarked.contains(name) { format!("*{shown}*") } else { shown }
    };
    let mut out = String::from("| group | works (*so*: see below) | not in this version |\n|---|---|---|\n");
    for group in groups {
        let there = group.list(|name| works.contains(name), marked);
        let absent = group.list(
            |name| {
                let container = name.split_once('|').map(|(container, _)| container);
                !works.contains(name) && container.is_none_or(|container| works.contains(container))
            },
            plain,
        );
        writeln!(out, "| {} | {there} | {absent} |", group.title).expect("a string takes everything");
    }
    let of = |there: bool| remarks.iter().filter(move |remark| works.contains(&remark.names[0]) == there);
    let mut list = |title: &str, there: bool| {
        write!(out, "\n{title}\n\n").expect("a string takes everything");
        for Remark { names, text } in of(there) {
            let names = Group::of(names).list(|_| true, plain);
            writeln!(out, "- {names}: {text}.").expect("a string takes everything");
        }
    };
    list("What differs from Redis, where a command works:", true);
    list("What is not in this version, and why:", false);
    out
}

#[test]
fn the_readme_tells_of_every_command() {
    let (groups, remarks) = (groups(), remarks());
    let works = listed(Options::shards(1));
    let wrong = mistakes(&groups, &remarks, &works);
    assert!(wrong.is_empty(), "tests/readme/:\n{}", wrong.join("\n"));

    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md can be read");
    let (before, rest) = readme.split_once(BEGIN).expect("README.md says where the table begins");
    let (is, after) = rest.split_once(END).expect("README.md says where the table ends");
    let should = table(&groups, &remarks, &works);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{should}{END}{after}")).expect("README.md can be written");
        return;
    }
    let line = should.lines().zip(is.lines().chain(std::iter::repeat(""))).find(|(should, is)| should != is);
    assert!(
        is == should,
        "README.md's table of commands is not what the server and tests/readme/ say; write it anew with \
         UPDATE_EXPECT=1 cargo test --test readme. The first line that differs should be:\n{}",
        line.map_or("(one line less)", |(should, _)| should)
    );
}

/// What redis-server lists must be among the names: nothing is left out by not being thought of.
#[test]
fn no_command_of_redis_is_forgotten() {
    assert!(installed("redis-server"), "redis-server is the reference");
    let groups = groups();
    let known: BTreeSet<&Name> = groups.iter().flat_map(Group::names).collect();
    let listed = listed(Options::redis());
    let forgotten: Vec<_> = listed.iter().filter(|name| !known.contains(name)).collect();
    assert!(listed.len() > 300 && forgotten.is_empty(), "names.txt has no {forgotten:?}");
}

#[test]
fn mistakes_are_found() {
    let group = |line: &str| vec![Group::parse(line)];
    let remark = |names: &[&str]| {
        let names = names.iter().map(|name| name.to_string()).collect();
        vec![Remark { names, text: "why".into() }]
    };
    let works: BTreeSet<Name> = ["GET", "CLIENT", "CLIENT|ID"].map(String::from).into();
    let all = group("Some: CLIENT (ID KILL) GET SUBSCRIBE PUBSUB (HELP)");
    let whole = remark(&["CLIENT|KILL", "PUBSUB", "SUBSCRIBE"]);
    assert_eq!(mistakes(&all, &whole, &works), [""; 0]);
    for (groups, remarks) in [
        (group("Some: CLIENT (ID KILL) SUBSCRIBE PUBSUB"), remark(&["CLIENT|KILL", "PUBSUB", "SUBSCRIBE"])),
        (group("Some: CLIENT (ID KILL) GET SUBSCRIBE PUBSUB"), remark(&["CLIENT|KILL", "SUBSCRIBE"])),
        (group("Some: CLIENT (ID KILL) GET SUBSCRIBE"), remark(&["SUBSCRIBE"])),
        (group("Some: CLIENT (ID) GET SUBSCRIBE"), remark(&["GET", "SUBSCRIBE"])),
        (group("Some: CLIENT (ID) GET"), remark(&["NOSUCH"])),
    ] {
        assert_eq!(mistakes(&groups, &remarks, &works).len(), 1);
    }
    assert_eq!(
        table(&all, &whole, &works).lines().nth(2),
        Some("| Some | CLIENT (ID) GET | CLIENT (KILL) PUBSUB SUBSCRIBE |")
    );
}

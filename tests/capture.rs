//! `haypile binlog --follow`: what is printed is what the server has, whatever is killed meanwhile; what the log
//! has no more is told; and no write ever waits for it.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value, haypile_binary};
use nodes::{contents, eventually, info, info_text, metrics};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;
use tempfile::TempDir;

/// A capture that appends to a file.
struct Capture {
    dir: TempDir,
    address: String,
    arguments: Vec<String>,
    password: Option<&'static str>,
    child: Option<Child>,
}

impl Capture {
    fn of(server: &Server, arguments: &[&str]) -> Capture {
        Capture {
            dir: TempDir::with_prefix("haypile-capture-").expect("the temporary directory is writable"),
            address: server.address().to_string(),
            arguments: arguments.iter().map(|argument| argument.to_string()).collect(),
            password: None,
            child: None,
        }
    }

    fn lines_path(&self) -> PathBuf {
        self.dir.path().join("lines")
    }

    fn state_path(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn start(&mut self) {
        let append = |path| File::options().create(true).append(true).open(path).expect("it can be written");
        let mut command = Command::new(haypile_binary());
        command.args(["binlog", "--follow", &self.address]).arg("--state").arg(self.state_path());
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(append(self.lines_path())).stderr(append(self.dir.path().join("said")));
        if let Some(password) = self.password {
            command.env("HAYPILE_PASSWORD", password);
        }
        self.child = Some(command.spawn().expect("it runs"));
    }

    fn started(server: &Server, arguments: &[&str]) -> Capture {
        let mut capture = Capture::of(server, arguments);
        capture.start();
        capture
    }

    fn kill9(&mut self) {
        let mut child = self.child.take().expect("it is running");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// SIGTERM; it must end with success.
    fn terminate(&mut self) {
        let pid = self.child.as_ref().expect("it is running").id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill is installed").success());
        assert_eq!(self.end(), 0, "{}", self.said());
    }

    /// Waits until it has ended by itself; its exit code.
    fn end(&mut self) -> i32 {
        let mut child = self.child.take().expect("it is running");
        let mut code = None;
        eventually("it ends", || {
            code = child.try_wait().expect("it is our child").map(|status| status.code());
            code.is_some()
        });
        code.flatten().expect("it ends by itself")
    }

    fn run_to_end(&mut self) -> i32 {
        self.start();
        self.end()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).expect("it was started")
    }

    /// What it has printed so far, whole lines only. A line that a kill has cut is no line.
    fn lines(&self) -> Vec<Json> {
        let text = fs::read_to_string(self.lines_path()).expect("it was started");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut torn = 0;
        let parsed = whole.lines().filter_map(|line| {
            let parsed = serde_json::from_str(line);
            torn += usize::from(parsed.is_err());
            parsed.ok()
        });
        let lines = parsed.collect();
        assert!(torn <= 5, "a kill cuts one line, not {torn}");
        lines
    }

    fn await_key(&self, key: &str) -> Vec<Json> {
        let mut lines = Vec::new();
        eventually(&format!("{key} is printed"), || {
            lines = self.lines();
            lines.iter().flat_map(operations).any(|operation| operation["key"] == key)
        });
        lines
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself: then there is nothing to kill.
            let _ended = child.kill();
            let _status = child.wait();
        }
        if thread::panicking() {
            eprintln!("--- the capture said:\n{}", self.said());
        }
    }
}

fn operations(line: &Json) -> impl Iterator<Item = &Json> {
    line["operations"].as_array().into_iter().flatten()
}

fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("no number: {json}"))
}

/// A field that is text, or `<name>_hex`.
fn bytes(json: &Json, name: &str) -> Option<Vec<u8>> {
    if let Some(text) = json[name].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    let hex = json[format!("{name}_hex")].as_str()?;
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
    Some((0..hex.len()).step_by(2).map(byte).collect())
}

type SlotName = (u64, u64);
/// One life of one key.
type Life = (SlotName, Vec<u8>, u64);
/// Strings by database and name, with the moment of their end or -1.
type Strings = BTreeMap<(u64, Vec<u8>), (Vec<u8>, i64)>;

/// What a reader of the lines makes of them: the rows, and how far each slot has come.
#[derive(Default)]
struct Replay {
    positions: HashMap<SlotName, u64>,
    rows: BTreeMap<(SlotName, Vec<u8>), Json>,
    elements: BTreeMap<Life, BTreeMap<Vec<u8>, Vec<u8>>>,
    repeated: usize,
}

impl Replay {
    fn new(lines: &[Json]) -> Replay {
        let mut replay = Replay::default();
        lines.iter().for_each(|line| replay.line(line));
        replay
    }

    fn line(&mut self, line: &Json) {
        if let Some(what) = line["copy"].as_str() {
            return self.copied(what, line);
        }
        let touches = line["touches"].as_array().expect("a record has touches");
        let touches: Vec<(SlotName, u64)> =
            touches.iter().map(|touch| (slot(touch), number(&touch["index"]))).collect();
        let has = |slot: &SlotName| self.positions.get(slot).copied().unwrap_or(0);
        let repeated = touches.iter().filter(|(slot, index)| *index <= has(slot)).count();
        if repeated > 0 {
            assert_eq!(repeated, touches.len(), "a record is repeated whole: {line}");
            self.repeated += 1;
            return;
        }
        for (slot, index) in &touches {
            assert_eq!(*index, has(slot) + 1, "nothing is left out: {line}");
        }
        self.positions.extend(touches);
        operations(line).for_each(|operation| self.operation(operation));
    }

    fn copied(&mut self, what: &str, line: &Json) {
        match what {
            "begin" => self.empty(slot(line)),
            "row" => self.put(line),
            "element" => self.put_element(line),
            "end" => drop(self.positions.insert(slot(line), number(&line["index"]))),
            _ => panic!("{line}"),
        }
    }

    fn operation(&mut self, operation: &Json) {
        match operation["op"].as_str().expect("it has a name") {
            "put" => self.put(operation),
            "delete" => drop(self.rows.remove(&(slot(operation), bytes(operation, "key").expect("a key")))),
            "put_element" => self.put_element(operation),
            "delete_element" => {
                let (key, element) = (bytes(operation, "key"), bytes(operation, "element"));
                let at = (slot(operation), key.expect("a key"), number(&operation["version"]));
                self.elements.entry(at).or_default().remove(&element.expect("an element"));
            }
            "flush" => {
                let table = number(&operation["table"]);
                ranges(operation).for_each(|slot| self.empty((table, slot)));
            }
            "swap_tables" => {
                let (a, b) = (number(&operation["a"]), number(&operation["b"]));
                ranges(operation).for_each(|slot| self.swap((a, slot), (b, slot)));
            }
            _ => panic!("{operation}"),
        }
    }

    fn put(&mut self, row: &Json) {
        self.rows.insert((slot(row), bytes(row, "key").expect("a key")), row.clone());
    }

    fn put_element(&mut self, json: &Json) {
        let key = bytes(json, "key").expect("a key");
        let (element, value) = (bytes(json, "element").expect("named"), bytes(json, "value").expect("whole"));
        self.elements.entry((slot(json), key, number(&json["version"]))).or_default().insert(element, value);
    }

    fn empty(&mut self, slot: SlotName) {
        self.rows.retain(|(of, _), _| *of != slot);
        self.elements.retain(|(of, ..), _| *of != slot);
    }

    fn swap(&mut self, a: SlotName, b: SlotName) {
        let other = |slot: SlotName| match slot {
            slot if slot == a => b,
            slot if slot == b => a,
            slot => slot,
        };
        self.rows = std::mem::take(&mut self.rows)
            .into_iter()
            .map(|((slot, key), row)| ((other(slot), key), row))
            .collect();
        self.elements = std::mem::take(&mut self.elements)
            .into_iter()
            .map(|((slot, key, version), element)| ((other(slot), key, version), element))
            .collect();
        let index = |slot| self.positions.get(&slot).copied().unwrap_or(0);
        let higher = index(a).max(index(b));
        self.positions.extend([(a, higher), (b, higher)]);
    }

    fn strings(&self) -> Strings {
        let rows = self.rows.iter().filter(|(_, row)| row["type"] == "string");
        rows.map(|((slot, key), row)| {
            let value = bytes(row, "value").unwrap_or_else(|| {
                let pieces = &self.elements[&(*slot, key.clone(), number(&row["version"]))];
                let mut value: Vec<u8> = pieces.values().flatten().copied().collect();
                value.truncate(number(&row["length"]) as usize);
                value
            });
            ((slot.0, key.clone()), (value, row["expire_ms"].as_i64().unwrap_or(-1)))
        })
        .collect()
    }
}

fn slot(json: &Json) -> SlotName {
    (number(&json["table"]), number(&json["slot"]))
}

fn ranges(operation: &Json) -> impl Iterator<Item = u64> + '_ {
    let ranges = operation["slots"].as_array().expect("a list of ranges");
    ranges.iter().flat_map(|range| number(&range[0])..=number(&range[1]))
}

/// Every string of a server, as `Replay::strings` has them.
fn strings(server: &Server) -> Strings {
    let mut client = server.client();
    let mut strings = Strings::new();
    for ((db, key), (_, end)) in contents(server) {
        client.ask(&format!("SELECT {db}"));
        if let Some(value) = client.must(&args!["GET", &key]).bytes() {
            strings.insert((db as u64, key), (value.to_vec(), end));
        }
    }
    strings
}

fn assert_replays(capture: &Capture, server: &Server) -> Replay {
    let last = format!("the last after {}", capture.lines().len());
    server.client().must(&args!["SET", &last, "v"]);
    let replay = Replay::new(&capture.await_key(&last));
    let (have, want) = (replay.strings(), strings(server));
    let differs = want.iter().find(|(key, value)| have.get(key) != Some(value));
    assert!(differs.is_none(), "differs at {:?}", differs.map(|(key, _)| key));
    assert_eq!(have.len(), want.len(), "only the lines have some");
    replay
}

/// Writes until it is told to stop, over the deaths of the server.
fn write_on(address: std::net::SocketAddr, writer: u64, stop: &AtomicBool) -> u64 {
    let mut written = 0;
    while !stop.load(Ordering::Acquire) {
        let Ok(mut client) = Client::connect(address) else {
            sleep(Duration::from_millis(20));
            continue;
        };
        while !stop.load(Ordering::Acquire) {
            let key = format!("w{writer}-{}", written % 97);
            let command = match written % 11 {
                0 => {
                    args!["MSET", &key, "several", format!("{{x}}{written}"), "1", format!("o{written}"), "2"]
                }
                1 => args!["DEL", &key],
                2 => args!["SET", &key, format!("{written}"), "PX", "9000000"],
                3 => args![
                    "APPEND",
                    format!("long{writer}-{}", written % 5),
                    vec![b'a' + written as u8 % 26; 3000]
                ],
                4 => args!["INCR", format!("count{writer}")],
                5 => args!["SET", &key, vec![0xff, written as u8]],
                _ => args!["SET", &key, format!("value {written}")],
            };
            if client.call(&command).is_err() {
                break;
            }
            written += 1;
        }
    }
    written
}

#[test]
fn lines_replay_to_what_the_server_has_whatever_is_killed_meanwhile() {
    let mut server = Server::start(Options::shards(2));
    let mut capture = Capture::started(&server, &[]);
    let (stop, address) = (AtomicBool::new(false), server.address());
    thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> =
            (0..2).map(|writer| scope.spawn(move || write_on(address, writer, stop))).collect();
        for round in 0..6 {
            sleep(Duration::from_millis(700));
            if round % 2 == 0 {
                capture.kill9();
                sleep(Duration::from_millis(150));
                capture.start();
            } else {
                server.kill9();
                server.restart();
            }
        }
        sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Release);
        let written: u64 = writers.into_iter().map(|writer| writer.join().expect("it ends")).sum();
        assert!(written > 500, "{written} writes");
    });
    let mut client = server.client();
    client.ask("SELECT 3");
    client.must(&args!["SET", "in the third", "v"]);
    client.ask("SWAPDB 0 3");
    client.ask("SET after-the-swap 1");
    client.ask("SELECT 5");
    client.ask("SET soon-flushed 1");
    client.ask("FLUSHDB");
    let replay = assert_replays(&capture, &server);
    assert!(replay.rows.len() > 100);
    // One that was told to stop knows exactly how far it is.
    let repeated = replay.repeated;
    capture.terminate();
    server.client().must(&args!["SET", "meanwhile", "v"]);
    capture.start();
    assert_eq!(assert_replays(&capture, &server).repeated, repeated);
}

#[test]
fn every_kind_of_operation_is_printed_in_the_form_of_a_directorys_records() {
    let mut server = Server::start(Options::shards(2));
    let mut capture = Capture::started(&server, &[]);
    let mut client = server.client();
    for command in
        ["SET s v PX 50", "MSET a 1 b 2 c 3 d 4", "HSET h f v", "RPUSH l a", "SADD i a", "ZADD z 1 a"]
    {
        client.ask(command);
    }
    client.ask("XADD x 1-1 f v");
    for n in 0..200 {
        client.ask(&format!("HSET large field{n} value{n}"));
    }
    client.ask("HDEL large field7");
    eventually("it expires", || client.info("expired_keys") == 1);
    client.ask("SWAPDB 0 1");
    client.ask("FLUSHALL");
    client.ask("SET end 1");
    let live = capture.await_key("end");
    let ops: BTreeSet<&str> =
        live.iter().flat_map(operations).map(|operation| operation["op"].as_str().expect("a name")).collect();
    let all = ["delete", "delete_element", "flush", "put", "put_element", "swap_tables"];
    assert_eq!(ops, BTreeSet::from(all));
    let types: BTreeSet<&str> =
        live.iter().flat_map(operations).filter_map(|operation| operation["type"].as_str()).collect();
    assert_eq!(types, BTreeSet::from(["hash", "list", "set", "stream", "string", "zset"]));
    assert!(live.iter().any(|line| line["from"] == "expiry"));
    capture.terminate();
    server.kill9();
    let dir = server.data_dir();
    let done =
        Command::new(haypile_binary()).arg("binlog").arg(dir).args(["--value-bytes", "100000"]).output();
    let text = String::from_utf8(done.expect("it runs").stdout).expect("JSON is text");
    let place = |line: &Json| (number(&line["shard"]), number(&line["lsn"]));
    let live: HashMap<(u64, u64), Json> = live.into_iter().map(|line| (place(&line), line)).collect();
    let mut compared = 0;
    for line in text.lines() {
        let mut stored: Json = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        let live = live.get(&place(&stored)).unwrap_or_else(|| panic!("not printed: {stored}"));
        let wide = operations(&stored)
            .any(|operation| operation["slots"].is_array() || operation["op"] == "swap_tables");
        // A whole says what other shards do, and what is slot-wide is cut to the slots that are touched.
        if wide || stored.get("whole").is_some() {
            assert_eq!(live["touches"], stored["touches"]);
            continue;
        }
        let fields = stored.as_object_mut().expect("a line is an object");
        ["term", "first_lsn", "part"].iter().for_each(|only| drop(fields.remove(*only)));
        assert_eq!(*live, stored);
        compared += 1;
    }
    assert!(compared > 200, "{compared} lines");
}

#[test]
fn one_table_or_slot_is_followed_alone_and_a_state_belongs_to_its_choice() {
    let server = Server::start(Options::shards(2));
    let mut client = server.client();
    client.ask("SET elsewhere 1");
    client.ask("SELECT 3");
    client.ask("MSET a 1 b 2 c 3 d 4");
    let capture = Capture::started(&server, &["--table", "3"]);
    let lines = capture.await_key("d");
    let of = |lines: &[Json]| -> HashSet<SlotName> {
        lines.iter().flat_map(|line| line["touches"].as_array().expect("a list").iter().map(slot)).collect()
    };
    assert!(of(&lines).len() > 1 && of(&lines).iter().all(|(table, _)| *table == 3));
    let keys: BTreeSet<String> =
        lines.iter().flat_map(operations).map(|operation| operation["key"].to_string()).collect();
    assert_eq!(keys.len(), 4, "a record of several shards is split: {keys:?}");
    let chosen =
        lines.iter().flat_map(operations).find(|operation| operation["key"] == "b").expect("printed");
    let number = chosen["slot"].to_string();
    let one = Capture::started(&server, &["--table", "3", "--slot", &number]);
    client.ask("MSET b 5 c 6");
    client.ask("SELECT 0");
    client.ask("SET b 7");
    client.ask("SELECT 3");
    client.ask("SET b last");
    let last =
        |lines: &[Json]| lines.iter().flat_map(operations).any(|operation| operation["value"] == "last");
    eventually("it is printed", || last(&one.lines()));
    assert_eq!(of(&one.lines()), HashSet::from([slot(chosen)]));
    assert!(one.lines().iter().flat_map(operations).all(|operation| operation["key"] == "b"));
    eventually("there is a state", || one.state_path().exists());
    let mut other =
        Capture::of(&server, &["--table", "3", "--from", one.state_path().to_str().expect("plain")]);
    assert_eq!(other.run_to_end(), 2);
    assert!(other.said().contains("another --table and --slot"), "{}", other.said());
    let mut nowhere = Capture::of(&server, &["--slot", "5"]);
    assert_eq!(nowhere.run_to_end(), 2);
}

#[test]
fn a_password_is_given_and_never_shown_and_a_wrong_one_ends_it() {
    let server = Server::start(Options::shards(1).with(&["--requirepass", "sesame"]));
    let mut client = server.client();
    client.ask("AUTH sesame");
    client.ask("SET a 1");
    let mut none = Capture::of(&server, &[]);
    assert_eq!(none.run_to_end(), 1);
    assert!(none.said().contains("NOAUTH"), "{}", none.said());
    let mut wrong = Capture::of(&server, &[]);
    wrong.password = Some("not-sesame");
    assert_eq!(wrong.run_to_end(), 1);
    assert!(wrong.said().contains("WRONGPASS") && !wrong.said().contains("sesame"), "{}", wrong.said());
    let mut right = Capture::of(&server, &[]);
    right.password = Some("sesame");
    right.start();
    right.await_key("a");
    assert!(!right.said().contains("sesame"), "{}", right.said());
}

#[test]
fn it_counts_as_no_replica() {
    let server = Server::start(Options::shards(1));
    let capture = Capture::started(&server, &[]);
    let mut client = server.client();
    client.ask("SET a 1");
    capture.await_key("a");
    eventually("it is listed", || info_text(&server).contains("\r\ncapture0:ip=127.0.0.1,port="));
    let offset = info(&server, "master_repl_offset");
    let caught_up = format!("state=online,offset={offset},lag=");
    eventually("it acknowledges", || info_text(&server).contains(&caught_up));
    assert_eq!(client.ask("WAIT 1 100"), Value::Int(0));
    assert_eq!(client.ask("WAITAOF 1 1 2000"), Value::Array(vec![Value::Int(1), Value::Int(0)]));
    assert_eq!(info(&server, "connected_slaves"), "0");
    assert!(client.ask("ROLE").items()[2].items().is_empty());
    let page = metrics(&server);
    assert!(page.contains("haypile_followers 0\n") && page.contains("haypile_captures 1\n"), "{page}");
    client.ask("CONFIG SET min-replicas-to-write 1");
    // Longer than it takes to count followers anew.
    sleep(Duration::from_millis(500));
    assert!(client.ask("SET b 1").error_text().starts_with("NOREPLICAS"));
    drop(capture);
    eventually("it is gone", || !info_text(&server).contains("capture0:"));
}

#[test]
fn what_the_log_has_no_more_is_told_and_passed_over_or_copied_as_asked() {
    let small = ["--binlog-segment-bytes", "1MiB", "--binlog-retention-bytes", "2MiB"];
    let mut server = Server::start(Options::shards(1).with(&small));
    let mut early = Capture::started(&server, &[]);
    server.client().ask("SET first 1");
    early.await_key("first");
    early.terminate();
    let mut client = server.client();
    for n in 0..400 {
        client.must(&args!["SET", format!("k{n}"), format!("{n}").repeat(3000)]);
    }
    client.ask("HSET h f v");
    for n in 0..200 {
        client.ask(&format!("HSET H field{n} value{n}"));
    }
    for round in 0..3 {
        for n in 0..400 {
            client.must(&args!["SET", format!("again{n}"), format!("{round}").repeat(9000)]);
        }
        drop(client);
        // What is only in memtables is kept in the log.
        server.terminate();
        server.restart();
        client = server.client();
    }
    eventually("old segments go", || {
        let log = fs::read_dir(server.data_dir().join("shard-000/log")).expect("it is there");
        let names = log.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".log")).count() <= 4
    });
    // One that begins, and one that was there before.
    let mut late = Capture::of(&server, &[]);
    for capture in [&mut late, &mut early] {
        let before = fs::read_to_string(capture.lines_path()).unwrap_or_default();
        assert_eq!(capture.run_to_end(), 3);
        assert!(capture.said().contains("does not hold all that is missing of"), "{}", capture.said());
        assert_eq!(fs::read_to_string(capture.lines_path()).expect("it is there"), before);
    }
    assert!(!late.state_path().exists());

    let mut now = Capture::started(&server, &["--from", "now"]);
    eventually("it has begun", || now.state_path().exists());
    client.ask("SET news 1");
    assert_eq!(now.await_key("news").len(), 1, "and nothing of before");
    now.kill9();
    client.ask("SET news 2");
    now.start();
    let printed =
        |value: &str| now.lines().iter().flat_map(operations).any(|operation| operation["value"] == value);
    eventually("what was written meanwhile is printed", || printed("2"));
    assert!(now.lines().iter().all(|line| line.get("copy").is_none()));

    let mut rows = Capture::started(&server, &["--snapshot"]);
    let replay = assert_replays(&rows, &server);
    assert!(replay.strings().len() > 800);
    let lines = rows.lines();
    let kinds: BTreeSet<&str> = lines.iter().filter_map(|line| line["copy"].as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["begin", "element", "end", "row"]));
    rows.terminate();
    client.ask("SET news 4");
    rows.start();
    let copied = |lines: &[Json]| lines.iter().filter(|line| line.get("copy").is_some()).count();
    assert_replays(&rows, &server);
    assert_eq!(copied(&rows.lines()), copied(&lines), "nothing is copied twice");
}

#[test]
fn a_line_that_was_cut_by_a_kill_spoils_no_other() {
    let server = Server::start(Options::shards(1));
    server.client().ask("SET a 1");
    let mut capture = Capture::of(&server, &[]);
    fs::write(capture.lines_path(), "{\"shard\":0,\"lsn\":1,\"ti").expect("it can be written");
    capture.start();
    capture.await_key("a");
    capture.terminate();
    let text = fs::read_to_string(capture.lines_path()).expect("it is there");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_node_that_is_promoted_goes_on_where_the_old_one_was() {
    let mut first = Server::start(Options::shards(2));
    let second = Server::start(Options::shards(1));
    nodes::follow(&second, &first);
    let mut capture = Capture::started(&first, &[]);
    for n in 0..100 {
        first.client().must(&args!["SET", format!("k{n}"), "v"]);
    }
    capture.await_key("k99");
    eventually("it follows", || nodes::caught_up(&second, &first));
    capture.terminate();
    first.kill9();
    assert_eq!(second.client().ask("REPLICAOF NO ONE"), Value::ok());
    capture.address = second.address().to_string();
    capture.start();
    second.client().must(&args!["SET", "k5", "of the second"]);
    let replay = assert_replays(&capture, &second);
    assert_eq!(replay.repeated, 0);
}

//! `haypile check`, `binlog` and `tune`: what is planted is found with file and offset, what is whole is
//! called whole, and only a torn tail is ever cut.

mod harness;

use harness::{Options, Server, Value, haypile_binary};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYS: usize = 300;

/// A stopped server's directory with two shards: something in files, something only in the logs.
fn stopped() -> Server {
    let mut server = Server::start(Options::shards(2));
    write(&server, 0..KEYS);
    server.terminate();
    server.restart();
    write(&server, KEYS..2 * KEYS);
    // Later frames say that these are durable.
    server.client().wait_until_durable();
    write(&server, 2 * KEYS..2 * KEYS + 10);
    server.kill9();
    server
}

fn write(server: &Server, keys: std::ops::Range<usize>) {
    let mut client = server.client();
    for at in keys {
        assert_eq!(client.ask(&format!("SET key:{at} value-number-{at:06}-end")), Value::ok());
    }
}

fn run(arguments: &[&str]) -> (i32, String) {
    let done = Command::new(haypile_binary()).args(arguments).output().expect("it runs");
    let text = [done.stdout, done.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
    (done.status.code().expect("it ends by itself"), text)
}

fn check(server: &Server, more: &[&str]) -> (i32, String) {
    let dir = server.data_dir();
    run(&[&["check", dir.to_str().expect("plain")], more].concat())
}

/// Files of a shard's directory with this ending, oldest first.
fn files(server: &Server, shard: usize, part: &str, ending: &str) -> Vec<PathBuf> {
    let dir = server.data_dir().join(format!("shard-{shard:03}")).join(part);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("listed").path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    paths
}

fn flip(path: &Path, offset: usize, len: usize) {
    let mut bytes = fs::read(path).expect("it can be read");
    bytes[offset..offset + len].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(path, bytes).expect("it can be written");
}

fn place_of(path: &Path, text: &str) -> usize {
    let bytes = fs::read(path).expect("it can be read");
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("it is in there")
}

/// Everything in the directory but the lock: names and contents.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("it is there") {
            let path = entry.expect("listed").path();
            match path.is_dir() {
                true => dirs.push(path),
                false => all.push((path.clone(), fs::read(&path).expect("it can be read"))),
            }
        }
    }
    all.sort();
    all
}

#[test]
fn a_whole_directory_is_called_whole_and_left_as_it_is() {
    let mut server = stopped();
    let before = snapshot(&server.data_dir());
    let (code, text) = check(&server, &["--slots"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("nothing is wrong") && text.contains("2 shards, crc32 over 1024 slots"), "{text}");
    assert!(text.contains("would replay LSN ") && text.contains("table 0 slot "), "{text}");
    let keys: u64 = text
        .lines()
        .filter_map(|line| {
            line.trim_start()
                .strip_prefix("files ")?
                .split_once("LSN ")?
                .1
                .split_once(": ")?
                .1
                .split_once(" keys")
        })
        .map(|(keys, _)| keys.parse::<u64>().expect("a number"))
        .sum();
    assert_eq!(keys, KEYS as u64, "those that were sealed by the stop: {text}");
    assert!(before == snapshot(&server.data_dir()), "a check changes nothing");
    server.restart();
    let (code, text) = check(&server, &[]);
    assert!(code == 2 && text.contains("another server uses this data directory"), "{text}");
    assert_eq!(server.client().ask("DBSIZE"), Value::Int(2 * KEYS as i64 + 10));
}

#[test]
fn planted_damage_is_found_with_its_place() {
    let mut server = stopped();
    server.restart();
    write(&server, 0..KEYS);
    server.client().wait_until_durable();
    write(&server, 0..KEYS / 2);
    server.kill9();
    let newest = files(&server, 0, "log", ".log").pop().expect("a segment");
    let oldest = files(&server, 0, "log", ".log").remove(0);
    let size = |path: &PathBuf| fs::metadata(path).expect("it is there").len();
    let table = files(&server, 0, "db", ".sst").into_iter().max_by_key(size).expect("a file of rows");
    let manifest = {
        let dir = server.data_dir().join("shard-000/db");
        let current = fs::read_to_string(dir.join("CURRENT")).expect("it is there");
        dir.join(current.trim())
    };
    let any_key = |path: &Path| {
        let bytes = fs::read(path).expect("it can be read");
        bytes.windows(13).position(|window| window == b"value-number-").expect("a value")
    };
    let plants = [
        (&newest, 100, 8, "offset"),
        (&newest, any_key(&newest), 1, "offset"),
        (&oldest, any_key(&oldest), 1, "offset"),
        (&table, 100, 1, "offset"),
        (&manifest, 20, 4, "MANIFEST"),
    ];
    for (path, offset, len, also) in plants {
        flip(path, offset, len);
        let (code, text) = check(&server, &["--repair"]);
        let damage: Vec<&str> = text.lines().filter(|line| line.contains("DAMAGED")).collect();
        assert_eq!(code, 1, "{}: {text}", path.display());
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        assert!(damage.iter().any(|line| line.contains(&name) && line.contains(also)), "{name}: {text}");
        assert!(text.contains("--repair: nothing is changed"), "{text}");
        flip(path, offset, len);
    }
    // The oldest may be gone because nobody needs it, the newest look like a log that ends before it.
    let middle = files(&server, 0, "log", ".log").remove(1);
    for path in [&middle, &table] {
        let aside = path.with_extension("aside");
        fs::rename(path, &aside).expect("the same file system");
        let (code, text) = check(&server, &[]);
        assert!(
            code == 1 && text.contains("DAMAGED") && text.contains("shard-000"),
            "{}: {text}",
            path.display()
        );
        fs::rename(&aside, path).expect("the same file system");
    }
    assert_eq!(check(&server, &[]).0, 0, "all is mended");
    let id = server.data_dir().join("haypile.id");
    let text = fs::read_to_string(&id).expect("it is there").replace("format = 1", "format = 9");
    fs::write(&id, text).expect("it can be written");
    let (code, text) = check(&server, &[]);
    assert!(code == 2 && text.contains("format 9"), "{text}");
}

#[test]
fn repair_cuts_a_torn_tail_and_nothing_else() {
    let mut server = Server::start(Options::shards(1));
    write(&server, 0..KEYS);
    server.kill9();
    let newest = files(&server, 0, "log", ".log").pop().expect("a segment");
    flip(&newest, place_of(&newest, &format!("value-number-{:06}-end", KEYS - 1)), 1);
    let (code, text) = check(&server, &[]);
    assert!(code == 0 && text.contains("cut a torn tail before LSN 300"), "{text}");
    assert!(text.contains(&*newest.to_string_lossy()) && text.contains("offset"), "{text}");
    let (code, text) = check(&server, &["--repair"]);
    assert!(code == 0 && text.contains("--repair: shard 0: the log now ends before LSN 300"), "{text}");
    let (code, text) = check(&server, &["--repair"]);
    assert!(code == 0 && text.contains("--repair: nothing is to be cut"), "{text}");
    server.restart();
    let mut client = server.client();
    assert_eq!(client.ask("DBSIZE"), Value::Int(KEYS as i64 - 1));
    assert_eq!(client.ask("GET key:5"), Value::bulk("value-number-000005-end"));
    assert!(!server.log_tail().contains("torn tail"), "it is cut already");
}

#[test]
fn binlog_prints_every_record_and_chooses() {
    let mut server = Server::start(Options::shards(2));
    let mut client = server.client();
    client.ask("SET first 1 PX 100000");
    client.must(&args!["SET", b"\xff\x00", vec![b'v'; 1000]]);
    client.ask("MSET a 1 b 2 c 3 d 4 e 5 f 6");
    client.ask("SELECT 3");
    client.ask("INCR counter");
    client.ask("DEL counter");
    client.ask("FLUSHDB");
    server.kill9();
    let dir = server.data_dir();
    let lines = |more: &[&str]| -> Vec<serde_json::Value> {
        let (code, text) = run(&[&["binlog", dir.to_str().expect("plain")], more].concat());
        assert_eq!(code, 0, "{text}");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
            .collect()
    };
    let all = lines(&[]);
    let operations: Vec<&serde_json::Value> = all
        .iter()
        .filter(|line| line.get("part").is_none())
        .flat_map(|line| line["operations"].as_array().expect("a list"))
        .collect();
    let find = |key: &str| {
        operations.iter().find(|operation| operation["key"] == key).unwrap_or_else(|| panic!("{key}"))
    };
    assert_eq!(find("first")["value"], "1");
    assert!(find("first")["expire_ms"].as_u64().expect("a time") > 0);
    let long = operations.iter().find(|operation| operation["key_hex"] == "ff00").expect("no text");
    assert_eq!((long["value"].as_str().map(str::len), &long["value_bytes"]), (Some(256), &1000.into()));
    assert!(operations.iter().any(|operation| operation["op"] == "delete" && operation["key"] == "counter"));
    assert!(operations.iter().any(|operation| operation["op"] == "flush" && operation["table"] == 3));
    assert!(
        all.iter().any(|line| line.get("whole").is_some())
            && all.iter().any(|line| line.get("part").is_some())
    );

    let of_table = lines(&["--table", "3"]);
    assert!(!of_table.is_empty() && of_table.len() < all.len());
    assert!(
        of_table.iter().all(|line| {
            line["touches"].as_array().expect("a list").iter().any(|touch| touch["table"] == 3)
        })
    );
    assert!(lines(&["--shard", "1"]).iter().all(|line| line["shard"] == 1));
    let slot = find("first")["slot"].to_string();
    assert!(lines(&["--slot", &slot]).len() < all.len());
    assert_eq!(lines(&["--until", "2001-01-01 00:00:00"]).len(), 0);
    assert_eq!(lines(&["--since", "2001-01-01 00:00:00"]).len(), all.len());
    let (code, text) = run(&["binlog", dir.to_str().expect("plain"), "--since", "soon"]);
    assert!(code == 2 && text.contains("--since"), "{text}");
}

#[test]
fn tune_says_what_the_kernel_says() {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let (code, text) = run(&["tune", "--data-dir", dir.path().to_str().expect("plain")]);
    assert!(code == 0 || code == 1, "{text}");
    let line = |name: &str| {
        let found = text.lines().find_map(|line| line.split_once(&format!(" {name}: ")));
        let (mark, found) = found.unwrap_or_else(|| panic!("{name}: {text}"));
        (mark.trim().to_owned(), found.to_owned())
    };
    let (mark, found) = line("io_uring");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("every Linux has it");
    assert!(mark == "good" && found.contains(release.trim()), "servers run here: {found}");
    if let Ok(pages) = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled") {
        let (mark, found) = line("transparent huge pages");
        assert!(pages.contains(&format!("[{found}]")));
        assert_eq!(mark == "good", found != "always");
    }
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    if let Ok(source) = source {
        assert!(line("clock source").1.starts_with(source.trim()));
    }
    assert_eq!(
        code == 0,
        !text.lines().any(|line| line.starts_with("worse") || line.starts_with("WRONG")),
        "{text}"
    );
    for bad in text.lines().filter(|line| line.starts_with("worse") || line.starts_with("WRONG")) {
        let after = text.lines().skip_while(|line| *line != bad).nth(1).expect("an explanation");
        assert!(after.trim_start().starts_with("should be "), "{bad}: {after}");
    }
}

#[test]
fn help_names_every_subcommand_and_each_has_its_own() {
    let (code, text) = run(&["--help"]);
    assert_eq!(code, 0, "{text}");
    for name in ["server", "top", "bench", "check", "binlog", "tune"] {
        assert!(text.contains(&format!("  {name} ")), "{name}: {text}");
        let (code, text) = run(&[name, "--help"]);
        assert!(code == 0 && text.contains("Usage: "), "{name}: {text}");
    }
    let (code, text) = run(&["serve"]);
    assert!(code == 2 && text.contains("there is no subcommand"), "{text}");
}

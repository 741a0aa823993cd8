//! Files that somebody has damaged, and a disk that fills: a start is refused with the place, or what was
//! never durable is cut; reads go on, nothing that was acknowledged is lost.

mod harness;

use harness::{Client, Options, Server, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KEYS: usize = 400;
const SEGMENT_HEADER_BYTES: usize = 4096;

fn value(at: usize) -> String {
    format!("value-number-{at:06}-end")
}

/// A log of one shard with `KEYS` keys, whose first half was durable when the second was written.
fn written_log(extra: &[&str]) -> Server {
    let server = Server::start(Options::shards(1).with(extra));
    let mut client = server.client();
    for at in 0..KEYS {
        if at == KEYS / 2 {
            // Later frames say how far the log's sync has come.
            client.wait_until_durable();
        }
        assert_eq!(client.ask(&format!("SET key:{at} {}", value(at))), Value::ok());
    }
    server
}

fn check_keys(server: &Server, count: usize) {
    let mut client = server.client();
    for at in 0..count {
        assert_eq!(client.ask(&format!("GET key:{at}")), Value::bulk(value(at)), "{at}");
    }
    assert_eq!(client.ask("DBSIZE"), Value::Int(count as i64));
}

/// The segments of shard 0, oldest first.
fn segments(server: &Server) -> Vec<PathBuf> {
    let dir = server.data_dir().join("shard-000/log");
    let entries = fs::read_dir(&dir).expect("a shard has a log");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spare")));
    paths.sort();
    paths
}

/// Turns the bits of `len` bytes; a second call undoes it.
fn flip(path: &Path, offset: usize, len: usize) {
    let mut bytes = fs::read(path).expect("the segment can be read");
    bytes[offset..offset + len].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(path, bytes).expect("the segment can be written");
}

fn place_of(path: &Path, text: &str) -> usize {
    let bytes = fs::read(path).expect("the segment can be read");
    let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    found.unwrap_or_else(|| panic!("{text} is not in {}", path.display()))
}

/// The start is refused, names the file and an offset, and has changed nothing: once it is mended, all is there.
fn refused_for_damage(server: &mut Server, path: &Path, offset: usize, len: usize) {
    flip(path, offset, len);
    for _again in 0..2 {
        let said = server.refused_restart();
        assert!(said.contains(&*path.to_string_lossy()), "the file is not named: {said}");
        assert!(said.contains("offset") && said.contains("damaged"), "{said}");
    }
    flip(path, offset, len);
    server.restart();
    check_keys(server, KEYS);
}

#[test]
fn a_damaged_segment_is_refused_with_its_place() {
    for (place, half_header) in [("head", false), ("head", true), ("middle", false)] {
        let mut server = written_log(&[]);
        server.kill9();
        let path = segments(&server).remove(0);
        let (offset, len) = match (place, half_header) {
            ("head", true) => (16, 8),
            ("head", false) => (0, SEGMENT_HEADER_BYTES),
            _ => (place_of(&path, &value(KEYS / 4)), 1),
        };
        refused_for_damage(&mut server, &path, offset, len);
    }
}

/// Nothing behind the last frame says that it was durable: it is cut off, and that is said.
#[test]
fn a_torn_tail_is_cut_and_the_server_starts() {
    let mut server = written_log(&[]);
    server.kill9();
    let path = segments(&server).remove(0);
    flip(&path, place_of(&path, &value(KEYS - 1)), 1);
    server.restart();
    check_keys(&server, KEYS - 1);
    let said = server.log_tail();
    assert!(said.contains("torn tail") && said.contains(&*path.to_string_lossy()), "{said}");
    // What is written behind the cut stays, over another crash too.
    assert_eq!(server.client().ask(&format!("SET key:{} {}", KEYS - 1, value(KEYS - 1))), Value::ok());
    server.kill9();
    server.restart();
    check_keys(&server, KEYS);
}

#[test]
fn a_missing_segment_is_refused() {
    for missing in [0, 1] {
        let mut server = Server::start(Options::shards(1).with(&["--binlog-segment-bytes", "1MiB"]));
        let mut client = server.client();
        let filler = vec![b'f'; 10_000];
        // Twice, so that segments follow the one that goes: a missing newest one looks like a log that ends.
        for at in (0..KEYS).chain(0..KEYS) {
            assert_eq!(client.must(&args!["SET", format!("key:{at}"), filler]), Value::ok());
        }
        server.kill9();
        assert!(segments(&server).len() > missing + 2, "several segments");
        let path = segments(&server).remove(missing);
        let aside = server.data_dir().join("aside");
        fs::rename(&path, &aside).expect("the same file system");
        let said = server.refused_restart();
        assert!(said.contains("shard-000/log") && said.contains("offset"), "{said}");
        fs::rename(&aside, &path).expect("the same file system");
        server.restart();
        let mut client = server.client();
        for at in 0..KEYS {
            assert_eq!(client.ask(&format!("STRLEN key:{at}")), Value::Int(10_000), "{at}");
        }
    }
}

/// A small file system in memory.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// None, with a message, where this user may not mount.
    fn mount(mib: u32) -> Option<SmallDisk> {
        let dir = TempDir::with_prefix("haypile-disk-").expect("the temporary directory is writable");
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        let done = done.expect("mount (util-linux) is installed");
        if !done.status.success() {
            println!("skipped: {}", String::from_utf8_lossy(&done.stderr));
            return None;
        }
        Some(SmallDisk { dir })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.dir.path()).status();
        assert!(std::thread::panicking() || done.is_ok_and(|status| status.success()), "umount failed");
    }
}

const FILL_BYTES: usize = 20_000;

fn fill_value(at: usize) -> Vec<u8> {
    (0..FILL_BYTES).map(|byte| (byte * 31 + at * 17) as u8).collect()
}

fn set(client: &mut Client, at: usize) -> Value {
    client.must(&args!["SET", format!("fill:{at}"), fill_value(at)])
}

fn check_filled(client: &mut Client, count: usize) {
    for at in 0..count {
        let found = client.must(&args!["GET", format!("fill:{at}")]);
        assert!(found == Value::Bulk(fill_value(at)), "fill:{at} of {count} is lost");
    }
}

/// Writes are refused with a clear error, reads go on, and it heals when there is room again.
fn disk_fills(budget: &'static str, shards: u16) {
    // Declared first: unmounted when the server is gone.
    let Some(disk) = SmallDisk::mount(48) else { return };
    let ballast = disk.dir.path().join("ballast");
    fs::write(&ballast, vec![1; 16 << 20]).expect("it fits");
    let data = disk.dir.path().join("data");
    fs::create_dir(&data).expect("it is ours");
    let options = Options::shards(shards).memory_budget(budget);
    let options = options.with(&["--binlog-segment-bytes", "1MiB", "--binlog-retention-bytes", "64MiB"]);
    let mut server = Server::start_on(&data, options);
    let mut client = server.client();
    let mut count = 0;
    let refused = loop {
        assert!(count < 10_000, "48 MiB hold no 200 MB");
        match set(&mut client, count) {
            reply if reply == Value::ok() => count += 1,
            reply => break reply.error_text().to_owned(),
        }
    };
    assert!(refused.starts_with("ERR no space left on the disk"), "{refused}");
    println!("{budget}, {shards} shards: {count} values fit");
    check_filled(&mut client, count);
    assert!(server.alive());
    fs::remove_file(&ballast).expect("it was written above");
    let deadline = Instant::now() + Duration::from_secs(60);
    while set(&mut client, count) != Value::ok() {
        assert!(Instant::now() < deadline, "it does not heal:\n{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    count += 1;
    for _more in 0..20 {
        assert_eq!(set(&mut client, count), Value::ok());
        count += 1;
    }
    check_filled(&mut client, count);
    server.kill9();
    server.restart();
    check_filled(&mut server.client(), count);
}

#[test]
fn a_full_disk_refuses_writes_and_heals() {
    disk_fills("256MiB", 1);
}

/// As above, with memtables so small that RocksDB too meets the full disk.
#[test]
fn a_full_disk_under_rocksdb_refuses_writes_and_heals() {
    disk_fills("64MiB", 2);
}

/// A copy that finds no room begins anew until there is some; meanwhile the follower serves what it has.
#[test]
fn a_follower_whose_disk_fills_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(112) else { return };
    let ballast = disk.dir.path().join("ballast");
    fs::write(&ballast, vec![1; 80 << 20]).expect("it fits");
    let data = disk.dir.path().join("data");
    fs::create_dir(&data).expect("it is ours");
    let small = ["--binlog-segment-bytes", "1MiB", "--binlog-retention-bytes", "1MiB"];
    let primary = Server::start(Options::shards(1));
    let mut follower = Server::start_on(&data, Options::shards(1).with(&small));
    let mut client = primary.client();
    const COUNT: usize = 2_000;
    // Nothing that could be compressed.
    let value = |at: usize| {
        let mut chance = fastrand::Rng::with_seed(at as u64);
        (0..FILL_BYTES).map(|_| chance.u8(..)).collect::<Vec<u8>>()
    };
    for at in 0..COUNT {
        assert_eq!(client.must(&args!["SET", format!("fill:{at}"), value(at)]), Value::ok());
    }
    let has_all = |follower: &Server| {
        let mut client = follower.client();
        (0..COUNT).all(|at| client.must(&args!["GET", format!("fill:{at}")]) == Value::Bulk(value(at)))
    };
    // What it had, in every slot, cannot be taken back key by key: so all is copied.
    let mut other = follower.client();
    (0..4_000).for_each(|n| drop(other.must(&args!["SET", format!("own:{n}"), "v"])));
    assert_eq!(other.ask("FLUSHALL"), Value::ok());
    assert_eq!(other.ask("SET kept v"), Value::ok());
    let address = primary.port().to_string();
    assert_eq!(other.must(&args!["REPLICAOF", "127.0.0.1", address]), Value::ok());
    let within = |what: &str, mut holds: Box<dyn FnMut() -> bool + '_>| {
        let deadline = Instant::now() + Duration::from_secs(90);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}:\n{}", follower.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    within("it finds no room", Box::new(|| follower.log_tail().contains("No space left on device")));
    assert_eq!(other.ask("PING"), Value::Simple(b"PONG".to_vec()), "it serves");
    fs::remove_file(&ballast).expect("it was written above");
    within("it has all", Box::new(|| other.ask("DBSIZE") == Value::Int(COUNT as i64)));
    assert!(has_all(&follower));
    follower.kill9();
    follower.restart();
    assert!(has_all(&follower));
}

//! haypile as the replica of a redis-server: what it takes over, what it follows, and what it says when it
//! cannot.

mod harness;

use harness::{Client, Options, Server, Value, installed};
use haypile::replica::redis::rdb::{Event, Tokenizer};
use haypile::replica::redis::{Phase, SharedStatus, Status, Target, stream::Login};
use haypile::replicator::redis::follow;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const WAIT: Duration = Duration::from_secs(60);
const DBS: [u32; 3] = [0, 3, 9];

fn redis(arguments: &[&str]) -> Option<Server> {
    if !installed("redis-server") {
        eprintln!("redis-server is not installed: nobody to follow");
        return None;
    }
    let options = Options::redis().with(&["--enable-debug-command", "yes", "--activerehashing", "no"]);
    Some(Server::start(options.with(arguments)))
}

/// Follows a primary into a server until it is dropped.
struct Follower {
    status: Arc<SharedStatus>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    fn start(primary: &Server, to: &Server, password: Option<&str>) -> Follower {
        let target = Target {
            host: "127.0.0.1".into(),
            port: primary.port(),
            login: Login {
                user: None,
                password: password.map(str::to_string),
                listening_port: to.port(),
                value_max_bytes: 32 << 20,
                silence_max_s: 60,
            },
        };
        let (status, address) = (Arc::new(SharedStatus::default()), to.address());
        let (stop, stopped) = oneshot::channel();
        let shown = status.clone();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let sink = tokio::net::TcpStream::connect(address).await.unwrap();
                sink.set_nodelay(true).unwrap();
                let following = tokio::task::spawn_local(async move {
                    let error = follow(&target, sink, &shown, &mut None, std::future::pending()).await;
                    panic!("the sink failed: {error:?}");
                });
                stopped.await.unwrap();
                assert!(!following.is_finished(), "it ended by itself");
            });
        };
        Follower { status, stop: Some(stop), thread: Some(spawn(run)) }
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn(&Status) -> bool) {
        let deadline = Instant::now() + WAIT;
        while !is_so(&self.status()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.status());
            sleep(Duration::from_millis(5));
        }
    }

    /// Waits until everything that the primary has done is done here too.
    #[track_caller]
    fn catch_up(&self, primary: &mut Client) {
        let deadline = Instant::now() + WAIT;
        while self.status().offset != primary.info("master_repl_offset") {
            assert!(Instant::now() < deadline, "it is not followed: {:?}", self.status());
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let told = self.stop.take().expect("it is stopped once").send(());
        assert!(told.is_ok() || std::thread::panicking(), "the follower has ended by itself");
        let ended = self.thread.take().expect("it is joined once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the follower failed");
    }
}

fn run_all(client: &mut Client, commands: &[Vec<Vec<u8>>]) {
    for batch in commands.chunks(500) {
        client.send_all(batch.iter().map(|args| &args[..])).expect("it takes commands");
        for args in batch {
            let reply = client.read().expect("it answers");
            assert_eq!(reply.error_text(), "", "{:?}", String::from_utf8_lossy(&args.concat()));
        }
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

/// Values of every type and encoding, `count` of each small kind.
fn values(count: usize) -> Vec<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let noise = |len: usize| (0..len).map(|at| (at * at % 251) as u8).collect::<Vec<u8>>();
    for n in 0..count {
        all.push(args!["SET", format!("int:{n}"), (n as i64 * 7_919_777 - 300_000).to_string()]);
        all.push(args!["SET", format!("embedded:{n}"), format!("value of {n}")]);
        all.push(args!["SET", format!("packed:{n}"), "abc".repeat(30 + n % 50)]);
        all.push(args!["SET", format!("raw:{n}"), noise(50 + n % 300)]);
        all.push(args!["SET", format!("{}:{n}", "long name ".repeat(30)), "x"]);
        all.push(words(&format!("RPUSH list:{n} a b c {n} -5 {}", "d".repeat(70))));
        all.push(words(&format!("SADD ints:{n} 1 {n} {}", n * 100_000)));
        all.push(words(&format!("SADD wide:{n} {} -9000000000", n * 1_000)));
        all.push(words(&format!("SADD set:{n} a {n} member:{n}")));
        all.push(words(&format!("ZADD zset:{n} 1 a -2.5 b inf c {n} d")));
        all.push(words(&format!("HSET hash:{n} field value n {n} long {}", "v".repeat(60))));
        all.push(words(&format!("XADD stream:{n} {}-1 field {n} other x", n + 1)));
        all.push(words(&format!("PFADD sparse:{n} a b {n}")));
    }
    for n in 0..5 {
        let many = |make: &dyn Fn(usize) -> String| (0..1_000).map(make).collect::<Vec<_>>().join(" ");
        all.push(args!["SET", format!("large:{n}"), noise(100_000 * (n + 1))]);
        all.push(args!["SET", format!("even:{n}"), vec![b'e'; 1_000_000]]);
        all.push(words(&format!("RPUSH quicklist:{n} {}", many(&|at| format!("element:{at}:{n}")))));
        all.push(args!["RPUSH", format!("plain:{n}"), noise(300), "short", noise(9_000)]);
        all.push(words(&format!("SADD table:{n} {}", many(&|at| format!("member:{at}")))));
        all.push(words(&format!("SADD long-ints:{n} {}", many(&|at| format!("{}", at << (n * 8))))));
        all.push(words(&format!("ZADD skiplist:{n} {}", many(&|at| format!("{at}.25 member:{at}")))));
        all.push(words(&format!("HSET dict:{n} {}", many(&|at| format!("field:{at} value:{at}")))));
        all.push(words(&format!(
            "PFADD dense:{n} {}",
            (0..20_000).map(|at| format!("{at} ")).collect::<String>()
        )));
        all.push(words(&format!("SETBIT bits:{n} {} 1", 1_000 * n + 7)));
        all.push(words(&format!("GEOADD geo:{n} 13.4 52.5 Berlin 2.35 48.85 Paris")));
        let stream = format!("log:{n}");
        for at in 0..250 {
            all.push(words(&format!("XADD {stream} {}-{n} kind {} at {at}", at + 1, at % 3)));
        }
        all.push(words(&format!("XDEL {stream} 17-{n} 99-{n}")));
        for group in ["readers", "others"] {
            all.push(words(&format!("XGROUP CREATE {stream} {group} 3-0")));
        }
        all.push(words(&format!("XREADGROUP GROUP readers one COUNT 20 STREAMS {stream} >")));
        all.push(words(&format!("XREADGROUP GROUP readers two COUNT 5 STREAMS {stream} >")));
        all.push(words(&format!("XACK {stream} readers 5-{n} 6-{n}")));
        all.push(words(&format!("XGROUP CREATECONSUMER {stream} others idle")));
    }
    for n in (0..count).step_by(5) {
        all.push(words(&format!("PEXPIRE int:{n} {}", 10_000_000 + n)));
        all.push(words(&format!("PEXPIRE hash:{n} {}", 20_000_000 + n)));
        all.push(words(&format!("PEXPIRE embedded:{n} {}", 300 + n % 2_000)));
    }
    all
}

fn fill(primary: &Server, count: usize) {
    let mut client = primary.client();
    client.ask("DEBUG QUICKLIST-PACKED-THRESHOLD 200b");
    for db in DBS {
        client.ask(&format!("SELECT {db}"));
        run_all(&mut client, &values(count));
    }
}

/// One of many writes, which depend on what was there before, so that none may be lost or done twice.
fn write(n: usize) -> Vec<String> {
    let (a, b) = (n % 37, n * 31 % 101);
    let one = match n % 40 {
        0 => return vec![format!("SELECT {}", DBS[n / 40 % 3])],
        1 | 2 => format!("INCR counter:{b}"),
        3 => format!("APPEND text:{a} <{n}>"),
        4 | 5 => format!("RPUSH queue:{a} {n} {b}"),
        6 => format!("LPOP queue:{a}"),
        7 => format!("SADD bag:{a} {n} {b} m{b}"),
        8 => format!("SPOP bag:{a} 2"),
        9 => format!("ZINCRBY board:{a} 1.25 m{b}"),
        10 => format!("ZPOPMIN board:{b}"),
        11 => format!("HINCRBY record:{a} f{b} 3"),
        12 => format!("HINCRBYFLOAT record:{a} float 0.1"),
        13 => format!("INCRBYFLOAT float:{a} 0.25"),
        14 => format!("XADD events:{a} MAXLEN ~ 100 * n {n}"),
        15 => format!("XGROUP CREATE events:{a} g{b} 0 MKSTREAM"),
        16 => format!("XREADGROUP GROUP g{b} c COUNT 3 STREAMS events:{a} >"),
        17 => format!("XAUTOCLAIM events:{a} g{b} d 0 0 COUNT 2"),
        18 => format!("EXPIRE counter:{b} {}", 1000 + n % 1000),
        19 => format!("SET brief:{b} {n} PX {}", 1 + n % 700),
        20 => format!("SETEX int:{b} 3000 {n}"),
        21 => format!("GETEX int:{b} PERSIST"),
        22 => format!("DEL hash:{b} list:{a}"),
        23 => format!("RENAME set:{n} renamed:{a}"),
        24 => format!("COPY wide:{b} copy:{a} REPLACE"),
        25 => format!("LMOVE queue:{a} queue:{b} LEFT RIGHT"),
        26 => format!("SINTERSTORE inter:{a} bag:{a} bag:{b}"),
        27 => format!("ZUNIONSTORE union:{a} 2 board:{a} board:{b}"),
        28 => format!("SORT queue:{a} ALPHA STORE sorted:{a}"),
        29 => format!("SETRANGE text:{a} {b} xyz"),
        30 => format!("PFADD hll:{a} {n}"),
        31 => format!("SETBIT bits:x{a} {n} 1"),
        32 => format!("MOVE zset:{n} {}", DBS[n / 40 % 2 + 1]),
        33 => {
            let lines = ["MULTI", "INCR counter:t", "RPUSH queue:t x", "SELECT 3", "INCR counter:t", "EXEC"];
            return lines.map(str::to_string).to_vec();
        }
        34 => {
            "EVAL redis.call('incr',KEYS[1]);redis.call('lpush',KEYS[2],redis.call('get',KEYS[1])) 2 s:c s:l"
                .into()
        }
        35 => "GETDEL counter:7".into(),
        36 => format!("BITOP OR or:{a} text:{a} text:{b}"),
        37 => format!("GEOADD geo:x {a}.5 {}.25 p{n}", n % 80),
        38 => format!("LTRIM queue:{a} 0 200"),
        _ => format!("PEXPIREAT record:{b} {}", 4_102_444_800_000_u64 + n as u64),
    };
    vec![one]
}

/// Writes to a primary until it is told to end, at a rate that leaves the machine some time.
struct Load {
    end: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Load {
    fn start(primary: &Server) -> Load {
        let (end, mut client) = (Arc::new(AtomicBool::new(false)), primary.client());
        let ends = end.clone();
        let thread = spawn(move || {
            let mut n = 0;
            while !ends.load(Ordering::Relaxed) {
                let batch: Vec<_> = (n..n + 50).flat_map(write).map(|line| words(&line)).collect();
                client.send_all(batch.iter().map(|args| &args[..])).unwrap();
                // Some are errors, for there is no such key or group any more: nobody follows those.
                batch.iter().for_each(|_| drop(client.read().unwrap()));
                n += 50;
                sleep(Duration::from_millis(10));
            }
            n
        });
        Load { end, thread }
    }

    fn end(self) -> usize {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("it wrote")
    }
}

fn how_to_read(kind: &str) -> Vec<&'static str> {
    match kind {
        "string" => vec!["GET KEY"],
        "list" => vec!["LRANGE KEY 0 -1"],
        "set" => vec!["SMEMBERS KEY"],
        "zset" => vec!["ZRANGE KEY 0 -1 WITHSCORES"],
        "hash" => vec!["HGETALL KEY"],
        "stream" => vec!["XRANGE KEY - +", "XINFO STREAM KEY", "XINFO GROUPS KEY"],
        other => panic!("type {other}"),
    }
}

/// A reply of which only the order may differ, if it may.
fn comparable(kind: &str, line: &str, mut reply: Value) -> Value {
    if let Value::Array(items) = &mut reply {
        match (kind, line) {
            ("set", _) => items.sort_by_key(|item| item.bytes().map(<[u8]>::to_vec)),
            ("hash", _) => {
                let pairs: BTreeMap<_, _> = items
                    .chunks(2)
                    .map(|pair| (pair[0].bytes().map(<[u8]>::to_vec), pair.to_vec()))
                    .collect();
                *items = pairs.into_values().flatten().collect();
            }
            // How a stream is built is each server's own.
            ("stream", "XINFO STREAM KEY") => {
                let of_the_radix_tree =
                    |name: &Value| name.bytes().is_some_and(|n| n.starts_with(b"radix-tree"));
                *items =
                    items.chunks(2).filter(|pair| !of_the_radix_tree(&pair[0])).flatten().cloned().collect();
            }
            _ => {}
        }
    }
    reply
}

fn asked(client: &mut Client, commands: &[Vec<Vec<u8>>]) -> Vec<Value> {
    client.send_all(commands.iter().map(|args| &args[..])).expect("it takes commands");
    commands.iter().map(|_| client.read().expect("it answers")).collect()
}

/// Compares every key of every database; how many there were.
#[track_caller]
fn same(primary: &Server, replica: &Server) -> usize {
    let (mut primary, mut replica, mut count) = (primary.client(), replica.client(), 0);
    for db in 0..16 {
        let select = format!("SELECT {db}");
        assert_eq!((primary.ask(&select), replica.ask(&select)), (Value::ok(), Value::ok()));
        let names = |client: &mut Client| {
            let mut names: Vec<_> =
                client.ask("KEYS *").items().iter().map(|name| name.bytes().unwrap().to_vec()).collect();
            names.sort();
            names
        };
        let keys = names(&mut primary);
        let here = names(&mut replica);
        let lacks: Vec<_> = keys.iter().filter(|key| here.binary_search(key).is_err()).collect();
        let adds: Vec<_> = here.iter().filter(|key| keys.binary_search(key).is_err()).collect();
        let show = |keys: Vec<&Vec<u8>>| {
            keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!((show(lacks), show(adds)), (vec![], vec![]), "database {db}");
        for batch in keys.chunks(200) {
            let ask = |what: &str| batch.iter().map(|key| args![what, key]).collect::<Vec<_>>();
            let kinds = asked(&mut primary, &ask("TYPE"));
            assert_eq!(asked(&mut replica, &ask("TYPE")), kinds);
            let (theirs, ours) =
                (asked(&mut primary, &ask("PEXPIRETIME")), asked(&mut replica, &ask("PEXPIRETIME")));
            for ((key, theirs), ours) in batch.iter().zip(theirs).zip(ours) {
                assert_eq!(ours, theirs, "PEXPIRETIME of {}", String::from_utf8_lossy(key));
            }
            let mut reads = Vec::new();
            for (key, kind) in batch.iter().zip(&kinds) {
                let kind = String::from_utf8_lossy(kind.bytes().unwrap()).into_owned();
                for line in how_to_read(&kind) {
                    let read =
                        line.split(' ').map(|word| if word == "KEY" { key.clone() } else { word.into() });
                    reads.push((kind.clone(), line, read.collect::<Vec<_>>()));
                }
            }
            let commands: Vec<_> = reads.iter().map(|(.., read)| read.clone()).collect();
            let replies = asked(&mut primary, &commands).into_iter().zip(asked(&mut replica, &commands));
            for ((kind, line, read), (theirs, ours)) in reads.iter().zip(replies) {
                let (theirs, ours) = (comparable(kind, line, theirs), comparable(kind, line, ours));
                let what = String::from_utf8_lossy(&read.join(&b' ')).into_owned();
                assert!(ours == theirs, "{what} of database {db}:\n{theirs:?}\n{ours:?}");
            }
        }
        count += keys.len();
    }
    count
}

#[test]
fn a_saved_file_has_the_payloads_that_dump_answers() {
    let Some(primary) = redis(&[]) else { return };
    fill(&primary, 300);
    let mut client = primary.client();
    assert_eq!(client.ask("SAVE"), Value::ok());
    let file = fs::read(primary.data_dir().join("dump.rdb")).expect("it was saved");
    let (mut tokenizer, mut db, mut count) = (Tokenizer::new(32 << 20), None, 0);
    for piece in file.chunks(1_000) {
        tokenizer.feed(piece);
        while let Some(event) = tokenizer.advance().expect("redis-server wrote it") {
            if event != Event::Key {
                continue;
            }
            let key = tokenizer.key();
            if db != Some(key.db) {
                client.ask(&format!("SELECT {}", key.db));
                db = Some(key.db);
            }
            let dumped = client.must(&args!["DUMP", key.name]);
            let Some(dumped) = dumped.bytes() else {
                assert!(key.name.starts_with(b"embedded:"), "only those have expired");
                continue;
            };
            assert!(dumped == key.payload.pieces().concat(), "{}", key.name.escape_ascii());
            let expires = client.must(&args!["PEXPIRETIME", key.name]).int().unwrap();
            assert_eq!(key.expire_ms.map_or(-1, |ms| ms as i64), expires);
            count += 1;
        }
    }
    assert!(count > 10_000, "{count} keys");
    assert_eq!(tokenizer.into_rest(), b"");
}

fn is_followed_under_load(arguments: &[&str], shards: u16) {
    let Some(primary) = redis(arguments) else { return };
    fill(&primary, 800);
    let replica = Server::start(Options::shards(shards));
    replica.client().ask("SET what:was:here before");
    let load = Load::start(&primary);
    let follower = Follower::start(&primary, &replica, None);
    follower.wait_until("the stream is reached", |status| status.phase == Phase::Streaming);
    sleep(Duration::from_secs(2));
    let written = load.end();
    // Until the briefest have expired.
    sleep(Duration::from_millis(2_500));
    follower.catch_up(&mut primary.client());
    let status = follower.status();
    eprintln!("{written} writes, {status:?}");
    assert_eq!((status.stream_errors, status.unknown_commands, status.copies), (0, 0, 1), "{status:?}");
    assert!(status.keys > 20_000 && status.commands > 500, "{status:?}");
    assert!(same(&primary, &replica) > 20_000);
    let mut client = primary.client();
    client.ask("SET last 1");
    assert_eq!(client.ask("WAIT 1 30000"), Value::Int(1), "the primary hears that it was followed");
    assert_eq!(replica.client().ask("GET last"), Value::bulk("1"));
    assert_eq!(client.info("connected_slaves"), 1);
}

#[test]
fn a_primary_that_sends_from_memory_is_followed_under_load() {
    is_followed_under_load(&["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"], 2);
}

#[test]
fn a_primary_that_sends_a_file_is_followed_under_load() {
    is_followed_under_load(&["--repl-diskless-sync", "no", "--rdbcompression", "no"], 1);
}

/// The way in for users: follow the Redis, then take its place.
#[test]
fn replicaof_follows_a_redis_until_it_is_replaced() {
    let Some(primary) = redis(&[]) else { return };
    fill(&primary, 100);
    let replica = Server::start(Options::shards(2));
    let mut client = replica.client();
    let load = Load::start(&primary);
    assert_eq!(client.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port())), Value::ok());
    let field = |client: &mut Client, name: &str| {
        let reply = client.ask("INFO replication");
        let text = String::from_utf8_lossy(reply.bytes().expect("INFO answers text")).into_owned();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
    };
    let deadline = Instant::now() + WAIT;
    let until = |client: &mut Client, is_so: &mut dyn FnMut(&mut Client) -> bool| {
        while !is_so(client) {
            assert!(Instant::now() < deadline, "{:?}", client.ask("INFO replication"));
            sleep(Duration::from_millis(20));
        }
    };
    until(&mut client, &mut |client| {
        field(client, "master_link_status").is_some_and(|status| status == "up")
    });
    let refused = client.ask("SET of:a:client v").error_text();
    assert_eq!(refused, "READONLY You can't write against a read only replica.");
    load.end();
    sleep(Duration::from_millis(2_500));
    let mut redis = primary.client();
    until(&mut client, &mut |client| {
        field(client, "slave_repl_offset") == Some(redis.info("master_repl_offset").to_string())
    });
    assert_eq!(field(&mut client, "redis_stream_errors").as_deref(), Some("0"));
    assert!(same(&primary, &replica) > 2_000);
    assert_eq!(redis.ask("WAIT 1 30000").int().or(Some(0)), Some(1));
    assert_eq!(client.ask("REPLICAOF NO ONE"), Value::ok());
    assert_eq!(client.ask("SET of:a:client v"), Value::ok());
}

fn link_is_up(replica: &Server) -> bool {
    let text = replica.client().ask("INFO replication");
    String::from_utf8_lossy(text.bytes().expect("it is text")).contains("master_link_status:up")
}

/// Follows a Redis that holds many keys and is written to, through a stop of the follower, to the end. So many of
/// each kind of `values`, in three databases.
fn many_keys_are_followed(count: usize) -> usize {
    let Some(primary) = redis(&["--repl-backlog-size", "512mb"]) else { return count };
    fill(&primary, count);
    let replicaof = format!("127.0.0.1 {}", primary.port());
    let mut replica =
        Server::start(Options::shards(2).memory_budget("1GiB").with(&["--replicaof", &replicaof]));
    let (load, mut client) = (Load::start(&primary), primary.client());
    let within = Instant::now() + Duration::from_secs(30 * 60);
    let wait_for = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(Instant::now() < within, "{what}");
            sleep(Duration::from_millis(200));
        }
    };
    wait_for("the copy is here", &mut || link_is_up(&replica));
    sleep(Duration::from_secs(5));
    replica.terminate();
    sleep(Duration::from_secs(2));
    replica.restart();
    wait_for("it goes on", &mut || link_is_up(&replica));
    let written = load.end();
    // Until the briefest have expired.
    sleep(Duration::from_millis(2_500));
    wait_for("it is followed to the end", &mut || {
        replica.client().info("slave_repl_offset") == client.info("master_repl_offset")
    });
    assert_eq!((client.info("sync_full"), client.info("sync_partial_ok")), (1, 1));
    assert_eq!(replica.client().info("redis_stream_errors"), 0);
    let keys = same(&primary, &replica);
    eprintln!("{keys} keys, {written} writes");
    keys
}

#[test]
#[ignore = "takes minutes: make test-long"]
fn a_million_keys_of_all_types_are_followed_under_load() {
    assert!(many_keys_are_followed(27_000) >= 1_000_000);
}

#[test]
fn a_stop_goes_on_where_it_was_and_a_crash_starts_over() {
    let Some(primary) = redis(&["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb"]) else {
        return;
    };
    let replicaof = format!("127.0.0.1 {}", primary.port());
    for shards in [1, 2] {
        let mut client = primary.client();
        client.ask("CONFIG RESETSTAT");
        let mut replica = Server::start(Options::shards(shards).with(&["--replicaof", &replicaof]));
        let load = Load::start(&primary);
        let goes_on = |primary: &mut Client, replica: &Server, copies: u64, resumptions: u64| {
            let deadline = Instant::now() + WAIT;
            let so_far = |primary: &mut Client| (primary.info("sync_full"), primary.info("sync_partial_ok"));
            while so_far(primary) != (copies, resumptions) || !link_is_up(replica) {
                assert!(Instant::now() < deadline, "{:?} copies and resumptions", so_far(primary));
                sleep(Duration::from_millis(20));
            }
        };
        goes_on(&mut client, &replica, 1, 0);
        for stops in 1..=3 {
            sleep(Duration::from_millis(700));
            replica.terminate();
            replica.restart();
            goes_on(&mut client, &replica, 1, stops);
        }
        // What was noted last does not count once something has been followed since.
        client.ask(&format!("SET marker {shards}"));
        let deadline = Instant::now() + WAIT;
        while replica.client().ask("GET marker") != Value::bulk(shards.to_string()) {
            assert!(Instant::now() < deadline, "it is not followed");
            sleep(Duration::from_millis(20));
        }
        replica.kill9();
        replica.restart();
        goes_on(&mut client, &replica, 2, 3);
        load.end();
        sleep(Duration::from_secs(1));
        let info = |client: &mut Client| client.info("slave_repl_offset");
        let deadline = Instant::now() + WAIT;
        while info(&mut replica.client()) != client.info("master_repl_offset") {
            assert!(Instant::now() < deadline, "it is not followed to the end");
            sleep(Duration::from_millis(20));
        }
        assert_eq!(replica.client().info("redis_stream_errors"), 0);
        assert!(same(&primary, &replica) > 100);
        replica.terminate();
    }
}

#[test]
fn a_cut_connection_goes_on_where_it_was() {
    let Some(primary) = redis(&["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "32mb"]) else {
        return;
    };
    let replica = Server::start(Options::shards(2));
    let load = Load::start(&primary);
    let follower = Follower::start(&primary, &replica, None);
    let mut client = primary.client();
    for cut in 0..3 {
        follower.wait_until("it goes on", |status| {
            status.phase == Phase::Streaming && status.resumptions == cut && status.offset > 0
        });
        sleep(Duration::from_millis(300));
        assert_eq!(client.ask("CLIENT KILL TYPE replica"), Value::Int(1));
        follower
            .wait_until("it notices", |status| status.phase != Phase::Streaming || status.resumptions > cut);
    }
    follower.wait_until("it goes on", |status| status.resumptions == 3);
    load.end();
    sleep(Duration::from_secs(1));
    follower.catch_up(&mut client);
    let status = follower.status();
    assert_eq!((status.stream_errors, status.copies), (0, 1), "{status:?}");
    assert!(same(&primary, &replica) > 100);
}

#[test]
fn a_primary_that_restarts_is_followed_again() {
    let Some(mut primary) = redis(&["--repl-diskless-sync-delay", "0"]) else { return };
    let replica = Server::start(Options::shards(1));
    primary.client().ask("SET a 1");
    let follower = Follower::start(&primary, &replica, None);
    follower.wait_until("the stream is reached", |status| status.phase == Phase::Streaming);
    primary.kill9();
    primary.restart();
    primary.client().ask("SET b 2");
    follower
        .wait_until("it is followed again", |status| status.phase == Phase::Streaming && status.copies == 2);
    follower.catch_up(&mut primary.client());
    assert_eq!(same(&primary, &replica), 2);
}

#[test]
fn a_write_that_is_refused_here_is_counted_and_told() {
    let Some(primary) = redis(&["--repl-diskless-sync-delay", "0"]) else { return };
    let replica = Server::start(Options::shards(1));
    let follower = Follower::start(&primary, &replica, None);
    follower.wait_until("the stream is reached", |status| status.phase == Phase::Streaming);
    let mut client = primary.client();
    client.ask("PUBLISH channel message");
    client.ask("SET counter 1");
    follower.catch_up(&mut client);
    let status = follower.status();
    assert_eq!((status.stream_errors, status.unknown_commands), (0, 1), "{status:?}");
    // Somebody has written here.
    replica.client().ask("RPUSH list x");
    client.ask("INCR list");
    follower.catch_up(&mut client);
    let status = follower.status();
    assert_eq!((status.stream_errors, status.unknown_commands), (1, 1), "{status:?}");
    assert!(status.last_error.starts_with("incr: WRONGTYPE"), "{status:?}");
    assert_eq!(status.phase, Phase::Streaming);
}

#[test]
fn a_database_that_is_not_here_keeps_its_writes_from_all_others() {
    let Some(primary) = redis(&["--repl-diskless-sync-delay", "0"]) else { return };
    let replica = Server::start(Options::shards(1).with(&["--databases", "4"]));
    let mut client = primary.client();
    client.ask("SET a 0");
    let follower = Follower::start(&primary, &replica, None);
    follower.wait_until("the stream is reached", |status| status.phase == Phase::Streaming);
    client.ask("SELECT 5");
    client.ask("SET a 5");
    follower.wait_until("it is told", |status| status.last_error.starts_with("SELECT 5 was refused"));
    assert_eq!(replica.client().ask("GET a"), Value::bulk("0"));
    follower.wait_until("a copy has it too", |status| status.copies >= 2);
    follower.wait_until("it is told", |status| status.phase == Phase::Pausing);
    assert_ne!(replica.client().ask("GET a"), Value::bulk("5"));
}

#[test]
fn a_value_that_is_refused_here_ends_the_copy_and_is_named() {
    let Some(primary) = redis(&["--repl-diskless-sync-delay", "0"]) else { return };
    let replica = Server::start(Options::shards(1));
    let mut client = primary.client();
    client.must(&args!["SADD", "names", vec![b'n'; 70_000]]);
    let follower = Follower::start(&primary, &replica, None);
    follower.wait_until("it is told", |status| status.phase == Phase::Pausing);
    let error = follower.status().last_error;
    assert!(
        error.starts_with("key \"names\" of database 0 was refused: ERR member name is longer"),
        "{error}"
    );
    client.ask("DEL names");
    follower.wait_until("it is followed at last", |status| status.phase == Phase::Streaming);
}

#[test]
fn a_primary_with_a_password_is_followed_with_it_and_else_says_so() {
    let Some(primary) = redis(&["--requirepass", "secret", "--repl-diskless-sync-delay", "0"]) else {
        return;
    };
    let replica = Server::start(Options::shards(1));
    for wrong in [None, Some("other")] {
        let follower = Follower::start(&primary, &replica, wrong);
        follower.wait_until("it is told", |status| status.phase == Phase::Pausing);
        let error = follower.status().last_error;
        assert!(error.contains("another user or password"), "{error}");
    }
    let follower = Follower::start(&primary, &replica, Some("secret"));
    follower.wait_until("the stream is reached", |status| status.phase == Phase::Streaming);
}

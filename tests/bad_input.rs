//! Wrong, huge, half and hostile input: each gets Redis's error or its connection closed, changes nothing,
//! and costs nobody else anything.

mod harness;

use harness::{Client, Options, Server, Value, haypile_binary, raise_open_files};
use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
const BUDGET_BYTES: u64 = 256 * MIB;

fn server() -> Server {
    Server::start(Options::shards(2))
}

/// The server still answers a new client.
fn check_alive(server: &mut Server) {
    assert!(server.alive(), "the server ended:\n{}", server.log_tail());
    let mut client = server.client();
    client.set_timeout(Duration::from_secs(20));
    assert_eq!(client.ask("PING"), Value::Simple(b"PONG".to_vec()));
}

#[test]
fn malformed_frames_get_redis_errors_and_a_close() {
    let long_digits = "1".repeat(70_000);
    let cases = [
        ("*2147483648\r\n".to_string(), "invalid multibulk length"),
        ("*abc\r\n".to_string(), "invalid multibulk length"),
        ("*\r\n".to_string(), "invalid multibulk length"),
        ("*+1\r\n$4\r\nPING\r\n".to_string(), "invalid multibulk length"),
        ("*1 \r\n$4\r\nPING\r\n".to_string(), "invalid multibulk length"),
        ("*1\r\n+PING\r\n".to_string(), "expected '$', got '+'"),
        ("*1\r\n\r\n".to_string(), "expected '$', got ' '"),
        ("*1\r\n$abc\r\n".to_string(), "invalid bulk length"),
        ("*1\r\n$-1\r\n".to_string(), "invalid bulk length"),
        ("*1\r\n$536870913\r\n".to_string(), "invalid bulk length"),
        ("*1\r\n$99999999999999999999\r\n".to_string(), "invalid bulk length"),
        ("SET a \"open\r\n".to_string(), "unbalanced quotes in request"),
        ("SET a 'x'y\r\n".to_string(), "unbalanced quotes in request"),
        ("x".repeat(70_000), "too big inline request"),
        (format!("*{long_digits}"), "too big mbulk count string"),
        (format!("*1\r\n${long_digits}"), "too big bulk count string"),
    ];
    let mut server = server();
    for (frame, error) in cases {
        // A good command before the bad frame is still answered.
        let mut client = server.client();
        client.write_raw(format!("SET before 1\r\n{frame}").as_bytes()).expect("the server reads");
        let said = client.read_to_close().unwrap_or_else(|e| panic!("{:.40}: not closed: {e}", frame));
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said, format!("+OK\r\n-ERR Protocol error: {error}\r\n"), "{:.40}", frame);
    }
    check_alive(&mut server);
    let mut client = server.client();
    assert_eq!(client.ask("KEYS *"), Value::Array(vec![Value::bulk("before")]));
}

#[test]
fn empty_frames_are_passed_over() {
    let server = server();
    let mut client = server.client();
    client.write_raw(b"\r\n*0\r\n*-1\r\n\r\nPING\r\n*1\r\n$4\r\nPING\r\n").expect("the server reads");
    for _ in 0..2 {
        assert_eq!(client.read().expect("a reply"), Value::Simple(b"PONG".to_vec()));
    }
}

#[test]
fn unknown_commands_and_wrong_counts_get_redis_texts() {
    let server = server();
    let mut client = server.client();
    for (line, error) in [
        ("nosuch", "ERR unknown command 'nosuch', with args beginning with: "),
        ("nosuch a b", "ERR unknown command 'nosuch', with args beginning with: 'a' 'b' "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("get a b", "ERR wrong number of arguments for 'get' command"),
        ("MSET a", "ERR wrong number of arguments for 'mset' command"),
        ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
        ("CONFIG nosuch", "ERR unknown subcommand 'nosuch'. Try CONFIG HELP."),
        ("CLIENT SETNAME", "ERR wrong number of arguments for 'client|setname' command"),
    ] {
        assert_eq!(client.ask(line).error_text(), error, "{line}");
    }
    let long = "a".repeat(300);
    let expected =
        format!("ERR unknown command '{}', with args beginning with: '{}' ", &long[..128], &long[..128]);
    assert_eq!(client.must(&args![long, long]).error_text(), expected, "long names are cut");
    assert_eq!(client.must(&args![""]).error_text(), "ERR unknown command '', with args beginning with: ");
}

#[test]
fn half_sent_commands_change_nothing() {
    let mut server = server();
    let frame = b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$5\r\nvalue\r\n";
    for cut in 1..frame.len() {
        let mut stream = TcpStream::connect(server.address()).expect("it listens");
        stream.write_all(&frame[..cut]).expect("the server reads");
        match cut % 2 {
            0 => drop(stream),
            _ => stream.shutdown(Shutdown::Write).expect("it is connected"),
        }
    }
    check_alive(&mut server);
    let mut client = server.client();
    assert_eq!(client.ask("GET half"), Value::NilBulk);
    // The same frame byte by byte is a command like any other.
    for byte in frame {
        client.write_raw(&[*byte]).expect("the server reads");
    }
    assert_eq!(client.read().expect("a reply"), Value::ok());
}

#[test]
fn any_byte_may_stand_in_keys_and_values() {
    let server = server();
    let mut client = server.client();
    let all: Vec<u8> = (0..=255).collect();
    let keys: Vec<Vec<u8>> =
        vec![all.clone(), vec![], vec![0], b"\r\n".to_vec(), b"*1\r\n$4\r\nPING\r\n".to_vec()];
    for value in [all.clone(), vec![], vec![0; 10], b"\r\n$5\r\n".to_vec()] {
        for key in &keys {
            assert_eq!(client.must(&args!["SET", key, value]), Value::ok());
            assert_eq!(client.must(&args!["GET", key]), Value::Bulk(value.clone()));
        }
    }
    assert_eq!(client.must(&args!["ECHO", all]), Value::Bulk(all.clone()));
}

#[test]
fn inline_commands_are_read_as_redis_reads_them() {
    let server = server();
    let mut client = server.client();
    client.write_raw(b"SET k \"a\\x00 b\"\r\nGET k\nSET 'it''s\r\n").expect("the server reads");
    assert_eq!(client.read().expect("a reply"), Value::ok());
    assert_eq!(client.read().expect("a reply"), Value::bulk(b"a\0 b"));
    assert_eq!(
        client.read().expect("a reply").error_text(),
        "ERR Protocol error: unbalanced quotes in request"
    );
}

/// Commands of a million arguments work, and their memory comes back.
#[test]
fn a_million_arguments_are_taken() {
    const PAIRS: usize = 500_000;
    let mut server = server();
    let mut client = server.client();
    client.set_timeout(Duration::from_secs(120));
    let key = |at: usize| format!("key:{at}");
    let mut mset = args!["MSET"];
    mset.extend((0..PAIRS).flat_map(|at| args![key(at), at.to_string()]));
    assert_eq!(client.must(&mset), Value::ok());
    let mut mget = args!["MGET"];
    mget.extend((0..1_000_000).map(|at| key(at).into_bytes()));
    let reply = client.must(&mget);
    assert_eq!(reply.items().len(), 1_000_000);
    for at in [0, 1, PAIRS / 2, PAIRS - 1] {
        assert_eq!(reply.items()[at], Value::bulk(at.to_string()));
    }
    assert_eq!(reply.items()[PAIRS], Value::NilBulk);
    let mut del = mget;
    del[0] = b"DEL".to_vec();
    assert_eq!(client.must(&del), Value::Int(PAIRS as i64));
    assert_eq!(client.ask("KEYS *"), Value::Array(vec![]));
    check_alive(&mut server);
}

/// A value above an eighth of the budget: a clear error, whichever way it is written, and no memory taken.
#[test]
fn values_above_an_eighth_of_the_budget_are_refused() {
    let mut server = server();
    let len = BUDGET_BYTES as usize / 8 + 1;
    let mut client = server.client();
    // It may refuse at the length and close, or read on and answer: never store it.
    let sent = client.send(&args!["SET", "big", vec![b'x'; len]]);
    match client.read() {
        Ok(reply) => assert!(reply.error_text().starts_with("ERR "), "{:.60}", format!("{reply:?}")),
        Err(e) => assert!(sent.is_err() || e.kind() == std::io::ErrorKind::ConnectionReset, "{e}"),
    }
    let mut client = server.client();
    assert_eq!(client.ask("EXISTS big"), Value::Int(0));
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(client.ask(&format!("SETRANGE big {len} x")).error_text(), too_long);
    let half = vec![b'x'; len / 2];
    assert_eq!(client.must(&args!["APPEND", "grown", half]), Value::Int(half.len() as i64));
    assert_eq!(client.must(&args!["APPEND", "grown", half]), Value::Int(2 * half.len() as i64));
    assert_eq!(client.must(&args!["APPEND", "grown", half]).error_text(), too_long);
    assert_eq!(client.must(&args!["STRLEN", "grown"]), Value::Int(2 * half.len() as i64));
    check_alive(&mut server);
}

/// Replies of two gigabytes that nobody fetches: the server stops reading or closes, others go on.
#[test]
fn a_client_that_never_reads_is_bounded() {
    let mut server = server();
    let mut client = server.client();
    assert_eq!(client.must(&args!["SET", "big", vec![b'x'; MIB as usize]]), Value::ok());
    let mut deaf = server.client();
    deaf.set_timeout(Duration::from_millis(500));
    let gets = b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n".repeat(2_000);
    // The server may stop reading before all of them: then this times out, or finds the connection closed.
    let _refused = deaf.write_raw(&gets);
    let end = Instant::now() + Duration::from_secs(4);
    let (mut highest, mut slow) = (0, 0);
    while Instant::now() < end {
        let asked = Instant::now();
        assert_eq!(client.ask("STRLEN big"), Value::Int(MIB as i64));
        slow += u32::from(asked.elapsed() > Duration::from_secs(1));
        highest = highest.max(server.resident_bytes());
        std::thread::sleep(Duration::from_millis(20));
    }
    // One may wait for a busy machine; all would wait for the one who does not read.
    assert!(slow <= 1, "others waited, {slow} times");
    let bound = BUDGET_BYTES + 128 * MIB;
    assert!(highest < bound, "{} MiB resident for a client that does not read", highest / MIB);
    drop(deaf);
    check_alive(&mut server);
}

fn idle_connections(count: u32) {
    raise_open_files(count + 1_000);
    let mut server = server();
    let mut clients: Vec<Client> = (0..count).map(|_| server.client()).collect();
    // Every one of them is a connection the server knows, not just one the kernel holds.
    for client in &mut clients {
        assert_eq!(client.ask("PING"), Value::Simple(b"PONG".to_vec()));
    }
    let resident = server.resident_bytes();
    assert!(resident < BUDGET_BYTES + 128 * MIB, "{} MiB resident", resident / MIB);
    assert_eq!(clients[0].ask("SET k v"), Value::ok());
    assert_eq!(clients[count as usize - 1].ask("GET k"), Value::bulk("v"));
    drop(clients);
    check_alive(&mut server);
}

#[test]
fn two_thousand_idle_connections_are_held() {
    idle_connections(2_000);
}

#[test]
#[ignore = "needs 11,000 open files"]
fn ten_thousand_idle_connections_are_held() {
    idle_connections(10_000 - 1);
}

#[test]
fn connections_beyond_maxclients_are_told_so() {
    let server = Server::start(Options::shards(2).with(&["--maxclients", "10"]));
    let mut clients: Vec<Client> = Vec::new();
    let mut refused = None;
    while clients.len() < 20 && refused.is_none() {
        let mut client = server.client();
        match client.call(&args!["PING"]) {
            Ok(Value::Error(text)) => refused = Some(text),
            Ok(_) => clients.push(client),
            Err(e) => panic!("closed without a word: {e}"),
        }
    }
    assert_eq!(refused.as_deref(), Some(b"ERR max number of clients reached".as_slice()));
    drop(clients);
}

#[test]
fn a_second_server_on_the_directory_is_refused() {
    let mut server = server();
    let mut client = server.client();
    assert_eq!(client.ask("SET k v"), Value::ok());
    let (status, said) = server.run_second();
    assert!(!status.success(), "{said}");
    let dir = server.data_dir();
    assert!(said.contains(&*dir.to_string_lossy()), "the message names the directory: {said}");
    check_alive(&mut server);
    assert_eq!(client.ask("GET k"), Value::bulk("v"));
}

/// Runs the program with these arguments until it ends by itself, as a refusal must.
fn refused(arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let data = dir.path().join("data");
    let Output { status, stdout, stderr } = Command::new("timeout")
        .arg("20")
        .arg(haypile_binary())
        .args(["server", "--port", "29999", "--data-dir"])
        .arg(&data)
        .args(arguments)
        .output()
        .expect("timeout (coreutils) is installed");
    let said = String::from_utf8_lossy(&stderr).into_owned() + &String::from_utf8_lossy(&stdout);
    assert!(status.code().is_some_and(|code| code != 0 && code != 124), "{arguments:?}: {status}: {said}");
    assert!(!data.exists(), "a refused start must not make files");
    said
}

#[test]
fn unknown_arguments_are_refused() {
    let said = refused(&["--no-such-argument", "1"]);
    assert!(said.contains("no-such-argument"), "{said}");
    for wrong in
        [["--appendfsync", "sometimes"], ["--memory-budget", "lots"], ["--shards", "5000"], ["--cores", "x"]]
    {
        let said = refused(&wrong);
        assert!(
            said.contains(wrong[0]) || said.contains(&wrong[0][2..].replace('-', "_")),
            "{wrong:?}: {said}"
        );
    }
}

#[test]
fn unknown_config_keys_are_refused_with_their_place() {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let file = dir.path().join("haypile.toml");
    for (text, line, word) in [
        ("databases = 16\nno_such_key = 1\n", "2", "no_such_key"),
        ("databases = \"many\"\n", "1", "databases"),
        ("\n\nappendfsync = \"sometimes\"\n", "3", "appendfsync"),
    ] {
        fs::write(&file, text).expect("the temporary directory is writable");
        let path = file.to_string_lossy();
        let said = refused(&["--config", &path]);
        for part in [&*path, line, word] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
    }
}

#[test]
fn without_the_password_nothing_is_done() {
    let server = Server::start(Options::shards(2).with(&["--requirepass", "secret"]));
    let mut client = server.client();
    for line in ["PING", "GET k", "SET k v", "CONFIG GET *", "FLUSHALL", "CLIENT LIST", "INFO"] {
        assert_eq!(client.ask(line).error_text(), "NOAUTH Authentication required.", "{line}");
    }
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(client.ask("AUTH wrong").error_text(), wrong);
    assert_eq!(client.ask("AUTH somebody secret").error_text(), wrong);
    assert_eq!(client.ask("GET k").error_text(), "NOAUTH Authentication required.");
    assert!(
        client.ask("HELLO 3").error_text().starts_with("NOAUTH HELLO must be called with the client already")
    );
    assert_eq!(client.ask("AUTH secret"), Value::ok());
    assert_eq!(client.ask("GET k"), Value::NilBulk);
    let mut other = server.client();
    assert_eq!(other.ask("AUTH default secret"), Value::ok());

    // A stranger may not make the server hold much.
    for (frame, error) in [
        ("*11\r\n", "unauthenticated multibulk length"),
        ("*2\r\n$3\r\nGET\r\n$16385\r\n", "unauthenticated bulk length"),
    ] {
        let mut stranger = server.client();
        stranger.write_raw(frame.as_bytes()).expect("the server reads");
        let said = stranger.read_to_close().expect("it is closed");
        assert_eq!(String::from_utf8_lossy(&said), format!("-ERR Protocol error: {error}\r\n"));
    }
}

#[test]
fn names_up_to_their_limit_are_taken_and_longer_ones_refused() {
    let mut server = server();
    let mut client = server.client();
    let longest = vec![b'k'; 65_535];
    assert_eq!(client.must(&args!["SET", longest, "v"]), Value::ok());
    assert_eq!(client.must(&args!["APPEND", longest, ""]), Value::Int(1));
    assert_eq!(client.must(&args!["GET", longest]), Value::bulk("v"));
    let too_long = vec![b'k'; 65_536];
    for args in [
        args!["SET", too_long, "v"],
        args!["GET", too_long],
        args!["MSET", "a", "1", too_long, "v"],
        args!["RENAME", longest, too_long],
        args!["COPY", longest, too_long],
    ] {
        let reply = client.must(&args);
        assert!(reply.error_text().starts_with("ERR "), "{:.20}: {reply:?}", format!("{args:?}"));
    }
    assert_eq!(client.ask("EXISTS a"), Value::Int(0), "half an MSET was done");
    server.kill9();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.ask("KEYS *"), Value::Array(vec![Value::Bulk(longest)]));
}

#[test]
fn empty_values_stay_and_are_kept() {
    let mut server = server();
    let mut client = server.client();
    for line in ["SET a ''", "SET b x", "SETRANGE none 0 ''", "APPEND c ''", "MSET d '' e ''"] {
        let reply = client.must(&harness::split_line(line).expect("its quotes are closed"));
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    assert_eq!(client.must(&args!["GETSET", "b", ""]), Value::bulk("x"));
    for restarted in [false, true] {
        if restarted {
            server.kill9();
            server.restart();
        }
        let mut client = server.client();
        for key in ["a", "b", "c", "d", "e"] {
            assert_eq!(client.ask(&format!("GET {key}")), Value::bulk(""), "{key}");
            assert_eq!(client.ask(&format!("EXISTS {key}")), Value::Int(1), "{key}");
        }
        assert_eq!(client.ask("EXISTS none"), Value::Int(0));
    }
}

#[test]
fn a_second_server_on_the_port_is_refused() {
    let mut server = server();
    let said = refused_on(server.port(), &[]);
    assert!(said.contains(&server.port().to_string()) && said.contains("in use"), "{said}");
    check_alive(&mut server);
}

/// As `refused`, on this port and with a data directory that may be made.
fn refused_on(port: u16, before: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let mut command = Command::new("timeout");
    command.arg("30").args(before).arg(haypile_binary());
    command.args([
        "server",
        "--shards",
        "1",
        "--cores",
        "1",
        "--memory-budget",
        "64MiB",
        "--port",
        &port.to_string(),
    ]);
    let Output { status, stdout, stderr } =
        command.arg("--data-dir").arg(dir.path()).output().expect("timeout (coreutils) is installed");
    let said = String::from_utf8_lossy(&stderr).into_owned() + &String::from_utf8_lossy(&stdout);
    assert!(status.code().is_some_and(|code| code != 0 && code != 124), "{status}: {said}");
    said
}

#[test]
fn too_little_locked_memory_is_refused_with_a_way_out() {
    let said = refused_on(29_998, &["prlimit", "--memlock=65536:65536", "--"]);
    for part in ["65536", "ulimit -l", "locked memory"] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
}

#[test]
fn a_directory_of_a_newer_format_is_refused() {
    let mut server = server();
    assert_eq!(server.client().ask("SET k v"), Value::ok());
    server.terminate();
    let file = server.data_dir().join("haypile.id");
    let text = fs::read_to_string(&file).expect("a data directory has an identity");
    let newer = text.replace("format = 1", "format = 2\nsomething_new = true");
    assert_ne!(newer, text);
    fs::write(&file, newer).expect("it is ours");
    let said = server.refused_restart();
    assert!(said.contains("format 2") && said.contains("newer"), "{said}");
    fs::write(&file, text).expect("it is ours");
    server.restart();
    assert_eq!(server.client().ask("GET k"), Value::bulk("v"));
}

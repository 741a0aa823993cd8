//! Debian's redis-sentinel over two nodes: it finds the follower, and makes it the primary when the primary is
//! gone. It counts no replica as connected that refuses SUBSCRIBE: where that is not known yet, the second half
//! is done in its place, by what it would send.

mod harness;
mod nodes;

use harness::{Client, Options, Server, Value, installed};
use nodes::{assert_same, caught_up, eventually, follow, info};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A sentinel that ends with the test.
struct Sentinel {
    child: Child,
    address: SocketAddr,
}

impl Sentinel {
    fn start(dir: &Path, primary: &Server) -> Sentinel {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let file = dir.join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\nsentinel monitor hay 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds hay 1500\nsentinel failover-timeout hay 10000\n",
            address.port(),
            primary.port()
        );
        std::fs::write(&file, text).expect("the directory is writable");
        let mut command = Command::new("redis-server");
        let log = std::fs::File::create(dir.join("sentinel.log")).expect("the directory is writable");
        let child = command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(log).spawn();
        Sentinel { child: child.expect("it is installed"), address }
    }

    fn ask(&self, words: &str) -> Option<Value> {
        let mut client = Client::connect(self.address).ok()?;
        Some(client.ask(words))
    }

    fn primary_port(&self) -> Option<String> {
        let told = self.ask("SENTINEL get-master-addr-by-name hay")?;
        Some(String::from_utf8_lossy(told.items().get(1)?.bytes()?).into_owned())
    }

    fn replicas(&self) -> usize {
        self.ask("SENTINEL replicas hay").map_or(0, |told| told.items().len())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

fn with_file(dir: &Path, name: &str) -> Server {
    let file = dir.join(name);
    std::fs::write(&file, "").expect("the directory is writable");
    Server::start(Options::shards(2).with(&["-c", file.to_str().expect("a path of text")]))
}

/// What Redis 7.0's sentinel sends to give a node a role, in one piece.
fn send_role(server: &Server, role: &str) {
    let words =
        ["MULTI", role, "CONFIG REWRITE", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub", "EXEC"];
    let split = |line: &str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    let commands = words.map(split);
    let mut client = server.client();
    client.send_all(commands.iter().map(|command| &command[..])).expect("it is connected");
    let replies: Vec<Value> = words.iter().map(|_| client.read().expect("it is answered")).collect();
    assert_eq!(replies[1..3], [Value::ok(), Value::ok()], "{replies:?}");
    assert!(replies[3].int().is_some() && replies[4].int().is_some(), "{replies:?}");
}

fn change_roles_as_a_sentinel_does(first: &mut Server, second: &Server, dir: &Path) {
    let mut client = second.client();
    send_role(second, "SLAVEOF NO ONE");
    assert!(client.call(&args!["PING"]).is_err(), "clients are to ask the sentinel anew");
    assert_eq!(info(second, "role"), "master");
    send_role(first, &format!("SLAVEOF 127.0.0.1 {}", second.port()));
    second.client().must(&args!["SET", "after", "it"]);
    assert_same(first, second);
    let kept = std::fs::read_to_string(dir.join("first.toml")).expect("the file is there");
    assert!(kept.contains(&format!("replicaof = \"127.0.0.1 {}\"", second.port())), "{kept}");
    first.kill9();
    first.restart();
    assert_same(first, second);
}

#[test]
fn a_sentinel_makes_the_follower_the_primary_and_the_old_primary_its_follower() {
    if !installed("redis-server") {
        return eprintln!("redis-server is not installed: no sentinel");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (mut first, second) = (with_file(dir.path(), "first.toml"), with_file(dir.path(), "second.toml"));
    first.client().must(&args!["SET", "before", "it"]);
    follow(&second, &first);
    eventually("the link is up", || caught_up(&second, &first));
    let sentinel = Sentinel::start(dir.path(), &first);
    eventually("the sentinel knows both", || sentinel.replicas() == 1);
    if first.client().ask("COMMAND INFO subscribe").items().iter().all(Value::is_nil) {
        eprintln!("no pub/sub here yet: the sentinel only watches");
        return change_roles_as_a_sentinel_does(&mut first, &second, dir.path());
    }
    // Asked to, while both are there.
    eventually("it is willing", || sentinel.ask("SENTINEL failover hay") == Some(Value::ok()));
    eventually("the second is the primary", || info(&second, "role") == "master");
    let at = |server: &Server| sentinel.primary_port() == Some(server.port().to_string());
    eventually("the sentinel says so", || at(&second));
    eventually("the first follows", || caught_up(&first, &second));
    second.client().must(&args!["SET", "between", "both"]);
    assert_same(&first, &second);
    let kept = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("the file is there");
    assert!(kept("first.toml").contains(&format!("replicaof = \"127.0.0.1 {}\"", second.port())));
    // And by itself, when the primary is gone.
    let mut second = second;
    second.kill9();
    eventually("the first is the primary again", || info(&first, "role") == "master" && at(&first));
    first.client().must(&args!["SET", "after", "it"]);
    second.restart();
    eventually("the second is told to follow", || info(&second, "role") == "slave");
    assert_same(&second, &first);
    first.terminate();
}

//! A server process of the test's own, on a free port, in a directory of its own.

use super::client::{Client, Value};
use super::ports::{self, Ports};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Haypile,
    /// redis-server, the reference.
    Redis,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub program: Program,
    pub shards: u16,
    pub cores: u16,
    pub memory_budget: &'static str,
    pub appendfsync: &'static str,
    /// Further arguments, in the program's own words.
    pub extra: Vec<String>,
}

impl Options {
    /// haypile with so many shards, on at most two cores: what the smallest machine that builds it has.
    pub fn shards(shards: u16) -> Options {
        Options {
            program: Program::Haypile,
            shards,
            cores: shards.min(2),
            memory_budget: "256MiB",
            appendfsync: "everysec",
            extra: Vec::new(),
        }
    }

    pub fn redis() -> Options {
        Options { program: Program::Redis, ..Options::shards(1) }
    }

    pub fn appendfsync(mut self, policy: &'static str) -> Options {
        self.appendfsync = policy;
        self
    }

    pub fn memory_budget(mut self, budget: &'static str) -> Options {
        self.memory_budget = budget;
        self
    }

    pub fn with(mut self, arguments: &[&str]) -> Options {
        self.extra.extend(arguments.iter().map(|argument| argument.to_string()));
        self
    }

    fn command(&self, port: u16, dir: &Path) -> Command {
        let mut command = match self.program {
            Program::Haypile => Command::new(haypile_binary()),
            Program::Redis => Command::new("redis-server"),
        };
        let port_number = port;
        let port = port.to_string();
        match self.program {
            Program::Haypile => command
                .args(["server", "--bind", "127.0.0.1", "--port", &port])
                .args(["--admin-port", &(port_number + ADMIN_PORT).to_string()])
                .arg("--data-dir")
                .arg(dir)
                .args(["--shards", &self.shards.to_string(), "--cores", &self.cores.to_string()])
                .args(["--memory-budget", self.memory_budget, "--appendfsync", self.appendfsync]),
            Program::Redis => command
                .args(["--bind", "127.0.0.1", "--port", &port])
                .arg("--dir")
                .arg(dir)
                .args(["--appendonly", "yes", "--appendfsync", self.appendfsync, "--save", ""]),
        };
        command.args(&self.extra);
        command
    }
}

/// From a server's own port to its admin port: the last of its block.
const ADMIN_PORT: u16 = 15;

/// How long a start may take: it includes recovery.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// How much of a failed server's output is worth reading.
const LOG_TAIL_BYTES: usize = 6_000;

pub struct Server {
    pub options: Options,
    child: Option<Child>,
    ports: Ports,
    dir: TempDir,
}

impl Server {
    /// Starts the server and waits until it answers; fails the test, with the server's output, if it does not.
    pub fn start(options: Options) -> Server {
        let mut server = Server::prepare(options);
        server.restart();
        server
    }

    /// As `start`, with its data on another file system.
    pub fn start_on(data: &Path, options: Options) -> Server {
        let mut server = Server::prepare(options);
        std::os::unix::fs::symlink(data, server.data_dir()).expect("the temporary directory is writable");
        server.restart();
        server
    }

    fn prepare(options: Options) -> Server {
        let dir = TempDir::with_prefix("haypile-test-").expect("the temporary directory is writable");
        Server { options, child: None, ports: ports::reserve(), dir }
    }

    /// Starts again on the same directory; it must end by itself, with an error. What it said.
    pub fn refused_restart(&mut self) -> String {
        assert!(self.child.is_none(), "it is running");
        let said_before = fs::metadata(self.log_path()).map_or(0, |log| log.len()) as usize;
        self.child = Some(self.spawn());
        let status = self.wait_for_end();
        let said = fs::read(self.log_path()).expect("the log was made by the first start");
        let said = String::from_utf8_lossy(&said[said_before..]).into_owned();
        assert!(!status.success(), "it started: {said}");
        said
    }

    /// Starts again on the same directory after `kill9` or `terminate`.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it is running");
        self.child = Some(self.spawn());
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.answers() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("it is our child"));
            if let Some(status) = ended {
                self.child = None;
                panic!("{:?} ended at start with {status}:\n{}", self.options, self.log_tail());
            }
            assert!(Instant::now() < deadline, "no answer within {START_TIMEOUT:?}:\n{}", self.log_tail());
            sleep(Duration::from_millis(5));
        }
    }

    /// A second process on the directory of this one, on another port, until it ends by itself.
    /// Its exit status and what it said.
    pub fn run_second(&self) -> (ExitStatus, String) {
        let ports = ports::reserve();
        let log = self.dir.path().join("second.log");
        let mut command = self.options.command(ports.first, &self.data_dir());
        let mut child = redirect(&mut command, &log).spawn().expect("the program can be run");
        let status = wait_or_kill(&mut child, START_TIMEOUT);
        let said = fs::read_to_string(&log).expect("the log was made above");
        (status.unwrap_or_else(|| panic!("a second server on one directory went on:\n{said}")), said)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.first))
    }

    /// Of haypile alone.
    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.address().ip(), self.port() + ADMIN_PORT)
    }

    pub fn port(&self) -> u16 {
        self.ports.first
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").id()
    }

    pub fn client(&self) -> Client {
        match Client::connect(self.address()) {
            Ok(client) => client,
            Err(e) => panic!("connecting: {e}\n{}", self.log_tail()),
        }
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it is running");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has VmRSS");
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("VmRSS is a number");
        kib * 1024
    }

    /// Whether the process has not ended.
    pub fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("it is our child").is_none())
    }

    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("it is running");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Asks it to end (SIGTERM) and waits until it has, with success.
    pub fn terminate(&mut self) {
        self.signal("TERM");
        let status = self.wait_for_end();
        assert!(status.success(), "SIGTERM: {status}\n{}", self.log_tail());
    }

    /// Waits until the process has ended for a reason of its own.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it is running");
        match wait_or_kill(&mut child, STOP_TIMEOUT) {
            Some(status) => status,
            None => panic!("it did not end within {STOP_TIMEOUT:?}\n{}", self.log_tail()),
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill is installed").success(), "SIG{name}");
        // A thread on another CPU runs on for a moment.
        while name == "STOP" && !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process is there");
        let stat = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task?.path().join("stat"));
        // The name of a thread, in brackets, may hold anything.
        let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        // One that has ended meanwhile does nothing more.
        tasks.map(stat).all(|stat| stat.map_or(true, stopped))
    }

    /// The end of what the server has said since its first start.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        let from = text.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    fn spawn(&self) -> Child {
        fs::create_dir_all(self.data_dir()).expect("the temporary directory is writable");
        let mut command = self.options.command(self.port(), &self.data_dir());
        match redirect(&mut command, &self.log_path()).spawn() {
            Ok(child) => child,
            Err(e) => panic!("{:?}: {e}", command.get_program()),
        }
    }

    fn answers(&self) -> bool {
        let ping = || -> io::Result<Value> { Client::connect(self.address())?.call(&[b"PING".to_vec()]) };
        match ping() {
            // Asking for a password is an answer too.
            Ok(reply) => !reply.error_text().starts_with("LOADING"),
            Err(_) => false,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself: then there is nothing to kill.
            let _ended = child.kill();
            let _status = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- output of {:?}:\n{}", self.options, self.log_tail());
        }
    }
}

fn redirect<'c>(command: &'c mut Command, log: &Path) -> &'c mut Command {
    let log =
        File::options().create(true).append(true).open(log).expect("the temporary directory is writable");
    let again = log.try_clone().expect("a file can be shared");
    command.stdin(Stdio::null()).stdout(log).stderr(again)
}

/// None when it had to be killed.
fn wait_or_kill(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        let status = child.try_wait().expect("it is our child");
        if status.is_some() {
            return status;
        }
        if Instant::now() >= deadline {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            return None;
        }
        sleep(Duration::from_millis(5));
    }
}

/// The program under test: the one cargo built with this test, unless HAYPILE_BIN names another.
pub fn haypile_binary() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_haypile").map(PathBuf::from);
    std::env::var_os("HAYPILE_BIN").map(PathBuf::from).or(built).expect("cargo names the program it built")
}

/// Whether a program can be run.
pub fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Raises this process's limit of open files, which the servers it starts inherit.
pub fn raise_open_files(count: u32) {
    let limit = format!("--nofile={count}:");
    let raised = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).output();
    let raised = raised.expect("prlimit (util-linux) is installed");
    assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
}

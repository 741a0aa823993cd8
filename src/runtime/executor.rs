//! Executors: one pinned glommio executor per core running one long-lived future, and the checks of the
//! host that must hold before any is started.
//!
//! Must not know what the future does.

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};
use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Registered with each of glommio's three rings; larger transfers take memory from the heap.
const IO_MEMORY_BYTES: usize = 256 << 10;
/// As small as glommio allows to be useful: sockets have a ring of their own.
const RING_DEPTH: usize = 128;
/// How long glommio lets a queue run before its preemption timer. It must never fire here: when it does
/// between a poll for I/O and the run of the tasks that the poll has waked (the thread had lost its CPU), glommio
/// 0.9 runs none of them and parks, and with its only task queued the core sleeps for good. Nothing is lost
/// by doing without: a core has one task, which sleeps in its own ring and never yields.
const PREEMPT_AFTER: Duration = Duration::from_hours(24);
/// What glommio refuses to start below.
const MEMLOCK_NEEDED_BYTES: u64 = 512 << 10;
const KERNEL_NEEDED: (u32, u32) = (6, 1);

/// Starts a thread named `name` with an executor pinned to `cpu` (unpinned if `None`) that runs the future
/// `make` returns until it ends. `make` runs on the new thread; returns once the executor stands.
///
/// A future that never awaits has the executor to itself, which is what a data core wants (see `ring`).
pub fn spawn_core<M, F>(name: &str, cpu: Option<usize>, make: M) -> io::Result<JoinHandle<()>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (started, start) = mpsc::channel();
    let core = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let executor = LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT_AFTER)
            .make();
        let executor = match executor {
            Ok(executor) => executor,
            Err(e) => return report(&started, Err(io::Error::other(e.to_string()))),
        };
        report(&started, Ok(()));
        executor.run(async move {
            let queue = glommio::executor().create_task_queue(
                Shares::Static(1000),
                Latency::Matters(PREEMPT_AFTER),
                "core",
            );
            glommio::spawn_local_into(async move { make().await }, queue)
                .expect("the queue was made a line above")
                .await;
        });
    })?;
    start.recv().map_err(|_| io::Error::other("the core's thread ended before its executor stood"))??;
    Ok(core)
}

fn report(started: &mpsc::Sender<io::Result<()>>, result: io::Result<()>) {
    started.send(result).expect("spawn_core waits for this");
}

/// Checks that this host can run the cores. The error says what was found, what is needed and how to mend it.
pub fn check_host() -> Result<(), String> {
    check_kernel(&read("/proc/sys/kernel/osrelease")?)?;
    check_memlock(&read("/proc/self/limits")?)?;
    super::ring::probe().map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => format!(
            "io_uring is not allowed here ({e}; kernel.io_uring_disabled = {}), and haypile needs it: run \
             `sysctl -w kernel.io_uring_disabled=0`, and in a container allow the io_uring_* system calls \
             (docker: `--security-opt seccomp=unconfined` or a profile that lists them)",
            read("/proc/sys/kernel/io_uring_disabled").map_or("unknown".into(), |v| v.trim().to_owned()),
        ),
        _ => format!(
            "a ring could not be made ({e}); haypile needs io_uring with deferred task work (Linux 6.1), and \
             locked memory and descriptors for it: see `ulimit -l` and `ulimit -n`"
        ),
    })
}

fn check_kernel(release: &str) -> Result<(), String> {
    let mut numbers =
        release.trim().split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= KERNEL_NEEDED {
        return Ok(());
    }
    let (major, minor) = KERNEL_NEEDED;
    let release = release.trim();
    Err(format!(
        "the kernel is {release}; haypile needs Linux {major}.{minor} or newer (`uname -r` shows it): upgrade \
         the kernel"
    ))
}

fn check_memlock(limits: &str) -> Result<(), String> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max locked memory"));
    let soft = line.and_then(|l| l.split_whitespace().next()).unwrap_or("unknown");
    let enough = soft == "unlimited" || soft.parse::<u64>().is_ok_and(|bytes| bytes >= MEMLOCK_NEEDED_BYTES);
    if enough {
        return Ok(());
    }
    Err(format!(
        "the limit on locked memory is {soft} bytes; haypile needs at least {MEMLOCK_NEEDED_BYTES}: run \
         `ulimit -l 8192` before it, or set `LimitMEMLOCK=8M` in its systemd unit"
    ))
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{path} cannot be read: {e}"))
}

/// The CPUs this process may use, ascending (those of its main thread).
pub fn cpus() -> io::Result<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| parse_cpu_list(list.trim()))
        .ok_or_else(|| io::Error::other("/proc/self/status has no readable Cpus_allowed_list"))
}

/// Keeps the calling thread, and the threads it starts from now on, on these CPUs.
pub fn confine_thread(cpus: &[usize]) -> io::Result<()> {
    super::affinity::pin_current_thread(cpus)
}

/// The kernel's list format: `0-3,8,10-11`.
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_with_what_was_found() {
        for good in ["6.1.0-13-amd64\n", "6.18.44-fc", "10.0", "6.2"] {
            assert_eq!(check_kernel(good), Ok(()));
        }
        for bad in ["5.15.0-91-generic\n", "6.0.19", "5.4", "", "strange"] {
            let text = check_kernel(bad).unwrap_err();
            assert!(text.contains(bad.trim()) && text.contains("6.1"), "{text}");
        }
    }

    #[test]
    fn locked_memory_is_read_from_the_limits() {
        let limits =
            |soft: &str| format!("Max processes 1 1\nMax locked memory         {soft}   8388608   bytes\n");
        assert_eq!(check_memlock(&limits("8388608")), Ok(()));
        assert_eq!(check_memlock(&limits("unlimited")), Ok(()));
        assert!(check_memlock(&limits("65536")).unwrap_err().contains("65536"));
        assert!(check_memlock("").is_err());
    }

    #[test]
    fn cpu_lists_of_the_kernel_are_read() {
        assert_eq!(parse_cpu_list("0-2,5,7-8"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(parse_cpu_list("x"), None);
        assert!(!cpus().unwrap().is_empty());
    }

    #[test]
    fn this_host_passes() {
        assert_eq!(check_host(), Ok(()));
    }

    #[test]
    fn a_core_runs_its_future_pinned_beside_other_tasks() {
        let cpu = cpus().unwrap()[0];
        let (send, receive) = mpsc::channel();
        let core = spawn_core("test-core", Some(cpu), move || async move {
            let other = glommio::spawn_local(async { 7 });
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            send.send((status, thread::current().name().map(str::to_owned), other.await)).unwrap();
        })
        .unwrap();
        core.join().unwrap();
        let (status, name, seven) = receive.recv().unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{cpu}\n")));
        assert_eq!((name.as_deref(), seven), (Some("test-core"), 7));
    }
}

//! The blocking pool: threads for work that waits (cold reads, flushes) and must not hold a core.
//!
//! A core submits through its own handle and finds the results in its own queue, its doorbell rung.
//! Must not know what the jobs do. A job that panics ends the process: its core would wait for ever.

use super::affinity::pin_current_thread;
use super::doorbell::Doorbell;
use super::priority::give_way;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use std::io;
use std::thread::{self, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;

/// The threads, and what is left of their queue to be shared among handles.
pub struct Pool {
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
    unclaimed: usize,
}

/// One core's way to the pool; `R` is what its jobs return.
pub struct PoolHandle<R> {
    jobs: Sender<Job>,
    done: Sender<R>,
    results: Receiver<R>,
    doorbell: Doorbell,
    in_flight: usize,
    in_flight_max: usize,
}

/// The handle's bound on jobs in flight is reached.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Pool {
    /// Starts `threads` threads named after `name`, on `cpus` if given (else wherever the caller may run), that give
    /// way to others by `nice`. All handles together may have `queue_max` jobs in flight.
    pub fn start(
        name: &str,
        threads: usize,
        queue_max: usize,
        cpus: Option<Vec<usize>>,
        nice: i32,
    ) -> io::Result<Pool> {
        assert!(threads > 0, "a pool without threads would never answer");
        let (jobs, queue) = bounded::<Job>(queue_max);
        let threads = (0..threads)
            .map(|n| {
                let (queue, cpus) = (queue.clone(), cpus.clone());
                thread::Builder::new().name(format!("{name}-{n}")).spawn(move || {
                    if let Some(cpus) = cpus {
                        pin_current_thread(&cpus).expect("the CPUs given to a pool exist and are allowed");
                    }
                    give_way(nice);
                    work(&queue);
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Pool { jobs, threads, unclaimed: queue_max })
    }

    /// A handle for the core behind `doorbell`, with its share of the queue: so only a core's own jobs can
    /// fill it. Panics if the shares exceed `queue_max`.
    pub fn handle<R: Send + 'static>(&mut self, doorbell: Doorbell, in_flight_max: usize) -> PoolHandle<R> {
        self.unclaimed =
            self.unclaimed.checked_sub(in_flight_max).expect("the handles' shares fit in the pool's queue");
        let (done, results) = bounded(in_flight_max);
        PoolHandle { jobs: self.jobs.clone(), done, results, doorbell, in_flight: 0, in_flight_max }
    }

    /// Waits until every handle is dropped and every job has run.
    pub fn join(self) {
        drop(self.jobs);
        for thread in self.threads {
            thread.join().expect("a panic in a pool thread ends the process");
        }
    }
}

impl<R: Send + 'static> PoolHandle<R> {
    /// Whether `submit` would be accepted.
    pub fn has_room(&self) -> bool {
        self.in_flight < self.in_flight_max
    }

    /// Jobs submitted whose results `completed` has not handed out.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Runs `job` on some thread of the pool. `Full` drops the job: ask [`has_room`](Self::has_room) first.
    pub fn submit(&mut self, job: impl FnOnce() -> R + Send + 'static) -> Result<(), Full> {
        if !self.has_room() {
            return Err(Full);
        }
        let (done, doorbell) = (self.done.clone(), self.doorbell.clone());
        let sent = self.jobs.try_send(Box::new(move || {
            // The result is of no use to a core that has dropped its handle.
            let _ = done.try_send(job());
            doorbell.ring();
        }));
        assert!(sent.is_ok(), "the queue has room for all handles' shares, and its threads live while we do");
        self.in_flight += 1;
        Ok(())
    }

    /// Whether a result waits: the last look before the core sleeps.
    pub fn waiting(&self) -> bool {
        !self.results.is_empty()
    }

    /// Hands the results that have come to `take`, in order of completion; returns how many.
    pub fn completed(&mut self, mut take: impl FnMut(R)) -> usize {
        let mut taken = 0;
        loop {
            match self.results.try_recv() {
                Ok(result) => {
                    self.in_flight -= 1;
                    taken += 1;
                    take(result);
                }
                Err(TryRecvError::Empty) => return taken,
                Err(TryRecvError::Disconnected) => unreachable!("this handle holds a sender"),
            }
        }
    }
}

/// Jobs of a handle without threads: a test runs them, when and in which order it likes.
#[cfg(test)]
pub struct ByHand(Receiver<Job>);

#[cfg(test)]
impl ByHand {
    /// A handle as a core has it, and what it submits.
    pub fn new<R: Send + 'static>(in_flight_max: usize) -> (PoolHandle<R>, ByHand) {
        let (jobs, queue) = bounded(in_flight_max);
        let (done, results) = bounded(in_flight_max);
        let doorbell = Doorbell::new().expect("a test has descriptors");
        (PoolHandle { jobs, done, results, doorbell, in_flight: 0, in_flight_max }, ByHand(queue))
    }

    /// The next job; running it makes its result wait for the core.
    pub fn next(&self) -> Option<Job> {
        self.0.try_recv().ok()
    }
}

fn work(queue: &Receiver<Job>) {
    let _guard = AbortOnPanic;
    while let Ok(job) = queue.recv() {
        job();
    }
}

/// By the time it is dropped the panic's own message is out.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("a job of thread '{}' panicked: ending", thread::current().name().unwrap_or("?"));
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};
    use std::time::{Duration, Instant};

    #[test]
    fn results_come_back_to_their_own_handle() {
        let mut pool = Pool::start("test-pool", 3, 64, None, 0).unwrap();
        let mut handles: Vec<PoolHandle<(usize, usize)>> =
            (0..2).map(|_| pool.handle(Doorbell::new().unwrap(), 32)).collect();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut got = [Vec::new(), Vec::new()];
        let mut next = [0, 0];
        while got.iter().any(|g| g.len() < 5000) {
            assert!(Instant::now() < deadline);
            for (h, handle) in handles.iter_mut().enumerate() {
                while next[h] < 5000 && handle.has_room() {
                    let n = next[h];
                    handle.submit(move || (h, n)).unwrap();
                    next[h] += 1;
                }
                handle.completed(|r| got[h].push(r));
            }
        }
        for (h, mut got) in got.into_iter().enumerate() {
            got.sort_unstable();
            assert_eq!(got, (0..5000).map(|n| (h, n)).collect::<Vec<_>>());
            assert_eq!(handles[h].in_flight(), 0);
        }
        drop(handles);
        pool.join();
    }

    #[test]
    fn the_bound_counts_jobs_until_their_result_is_taken() {
        let mut pool = Pool::start("test-pool", 1, 2, None, 0).unwrap();
        let mut handle = pool.handle::<u32>(Doorbell::new().unwrap(), 2);
        let gate = Arc::new(Barrier::new(2));
        let inside = gate.clone();
        handle
            .submit(move || {
                inside.wait();
                1
            })
            .unwrap();
        handle.submit(|| 2).unwrap();
        assert_eq!(handle.submit(|| 3), Err(Full));
        gate.wait();
        let mut got = Vec::new();
        while got.len() < 2 {
            handle.completed(|r| got.push(r));
        }
        assert_eq!(got, [1, 2]);
        assert!(handle.has_room());
    }

    #[test]
    fn threads_stay_on_their_cpus() {
        let cpu = super::super::executor::cpus().unwrap()[0];
        let mut pool = Pool::start("test-pool", 1, 1, Some(vec![cpu]), 0).unwrap();
        let mut handle = pool.handle::<String>(Doorbell::new().unwrap(), 1);
        handle.submit(|| std::fs::read_to_string("/proc/thread-self/status").unwrap()).unwrap();
        let mut status = None;
        while status.is_none() {
            handle.completed(|r| status = Some(r));
        }
        assert!(status.unwrap().contains(&format!("Cpus_allowed_list:\t{cpu}\n")));
    }

    /// Run by `a_panicking_job_ends_the_process` in a process of its own.
    #[test]
    #[ignore = "ends its process"]
    fn child_with_a_panicking_job() {
        let mut pool = Pool::start("doomed", 1, 1, None, 0).unwrap();
        let mut handle = pool.handle::<u32>(Doorbell::new().unwrap(), 1);
        handle.submit(|| panic!("the job's own words")).unwrap();
        thread::sleep(Duration::from_secs(10));
    }

    #[test]
    fn a_panicking_job_ends_the_process() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture", "child_with_a_panicking_job"])
            .output()
            .unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.status.signal(), Some(libc::SIGABRT));
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(text.contains("the job's own words") && text.contains("doomed-0"), "{text}");
    }
}

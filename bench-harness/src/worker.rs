//! One thread of the load: its connections, its epoll, its clock. Closed loop and open loop differ
//! only in when an operation is due.

use crate::connection::{Awaited, Check, Connection};
use crate::keys::Keys;
use crate::measure::{Second, Tally};
use crate::template::Filling;
use crate::workload::Workload;
use rand::rngs::SmallRng;
use rustix::event::{Timespec, epoll};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// In an open loop a connection owes at most so many replies; what is due then waits, and its
/// latency counts from when it was due all the same.
const MOST_AWAITED: usize = 4096;
/// How long the end of a run waits for replies that are owed.
const DRAIN: Duration = Duration::from_secs(10);

/// What the threads of a run share.
pub struct Shared {
    /// What to do.
    pub workload: Workload,
    /// What to fill in.
    pub filling: Filling,
    /// Operations that may still be started.
    pub left: AtomicU64,
    /// When the run started, warm-up included.
    pub started: Instant,
    /// Nothing before this is counted.
    pub warm_up: Duration,
    /// Nothing is started after this.
    pub length: Option<Duration>,
    /// Operations sent at once.
    pub pipeline: u32,
    /// How replies are looked at.
    pub check: Check,
}

/// One thread's part of the load.
pub struct Worker {
    /// What all share.
    pub shared: Arc<Shared>,
    /// This thread's connections.
    pub connections: Vec<Connection>,
    /// Time between two batches of this thread in an open loop.
    pub interval: Option<Duration>,
    /// This thread's draws of keys.
    pub keys: Keys,
    /// And of all else.
    pub rng: SmallRng,
    /// Where seconds go that are over.
    pub seconds: Sender<Second>,
}

/// The run of a worker: what changes while it goes on.
struct Running {
    worker: Worker,
    poll: OwnedFd,
    tally: Tally,
    slots: crc::Crc<u16>,
    /// Replies owed by all connections.
    awaited: usize,
    key: u64,
}

/// Does a worker's part and says what it saw.
///
/// # Errors
/// When a connection fails.
pub fn run(worker: Worker) -> io::Result<Tally> {
    // Sleeps end when they should, not up to 50 us later.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, connection) in worker.connections.iter().enumerate() {
        connection.stream().set_nonblocking(true)?;
        let events =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&poll, connection.stream(), epoll::EventData::new_u64(number as u64), events)?;
    }
    let tally = Tally::new(worker.shared.workload.operations.len());
    let slots = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
    let mut running = Running { worker, poll, tally, slots, awaited: 0, key: 0 };
    match running.worker.interval {
        None => running.closed_loop()?,
        Some(interval) => running.open_loop(interval)?,
    }
    Ok(running.end())
}

impl Running {
    fn now_ns(&self) -> u64 {
        self.worker.shared.started.elapsed().as_nanos() as u64
    }

    fn over(&self, now_ns: u64) -> bool {
        self.worker.shared.length.is_some_and(|length| now_ns >= length.as_nanos() as u64)
    }

    /// How many operations may be started now: a batch, or what is left of the run.
    fn take_batch(&self, now_ns: u64) -> u32 {
        if self.over(now_ns) {
            return 0;
        }
        let shared = &self.worker.shared;
        let batch = u64::from(shared.pipeline);
        if shared.length.is_some() {
            return shared.pipeline;
        }
        let left =
            shared.left.fetch_update(Relaxed, Relaxed, |left| (left > 0).then(|| left.saturating_sub(batch)));
        left.map_or(0, |left| left.min(batch) as u32)
    }

    /// Puts operations that are due at `due_ns` into a connection's buffer.
    fn put(&mut self, number: usize, count: u32, due_ns: u64) {
        let Worker { shared, connections, keys, rng, .. } = &mut self.worker;
        let Connection { slots, out, awaited, .. } = &mut connections[number];
        let (crc, digits) = (&self.slots, shared.filling.digits);
        let accepts = |key: u64| {
            slots.is_empty() || slots.iter().any(|range| range.contains(&slot_of(crc, key, digits)))
        };
        for _ in 0..count {
            let operation = shared.workload.choose(rng);
            let variants = &shared.workload.operations[operation].1.variants;
            let templates = if variants.len() == 1 {
                &variants[0]
            } else {
                &variants[rand::Rng::random_range(rng, 0..variants.len())]
            };
            for (place, template) in templates.iter().enumerate() {
                template.write(out, &shared.filling, keys, rng, &mut self.key, &accepts);
                let last = place + 1 == templates.len();
                awaited.push_back(Awaited {
                    due_ns,
                    key: self.key,
                    operation: operation as u16,
                    expect: template.expect,
                    last,
                });
            }
            self.awaited += templates.len();
        }
    }

    /// Waits until something can be done, at most until `until_ns`; calls `ready` for each connection.
    fn wait(
        &mut self,
        until_ns: Option<u64>,
        mut ready: impl FnMut(&mut Running, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        let timeout = until_ns.map(|until| {
            let wait = until.saturating_sub(self.now_ns());
            Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as _ }
        });
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            ready(self, event.data.u64() as usize)?;
        }
        while let Some(second) = self.tally.finished() {
            // The receiver is gone only when the run has failed elsewhere.
            let _ = self.worker.seconds.send(second);
        }
        Ok(())
    }

    /// Takes a connection's replies; the time is that after the read.
    fn receive(&mut self, number: usize) -> io::Result<u64> {
        let now_ns = self.now_ns();
        let shared = &self.worker.shared;
        let warm_up_ns = shared.warm_up.as_nanos() as u64;
        let connection = &mut self.worker.connections[number];
        let owed = connection.awaited.len();
        connection.receive(&shared.check, &mut self.tally, |tally, awaited| {
            if awaited.due_ns >= warm_up_ns {
                tally.count(
                    usize::from(awaited.operation),
                    now_ns - warm_up_ns,
                    now_ns.saturating_sub(awaited.due_ns),
                );
            }
        })?;
        self.awaited -= owed - connection.awaited.len();
        Ok(now_ns)
    }

    /// Each connection sends its next batch when the last one is answered.
    fn closed_loop(&mut self) -> io::Result<()> {
        for number in 0..self.worker.connections.len() {
            self.next_batch(number, self.now_ns())?;
        }
        while self.awaited > 0 {
            let deadline = self.worker.shared.length.map(|length| (length + DRAIN).as_nanos() as u64);
            if deadline.is_some_and(|deadline| self.now_ns() >= deadline) {
                return Ok(());
            }
            self.wait(deadline, |running, number| {
                let now_ns = running.receive(number)?;
                if running.worker.connections[number].awaited.is_empty() {
                    running.next_batch(number, now_ns)
                } else {
                    running.worker.connections[number].flush()
                }
            })?;
        }
        Ok(())
    }

    fn next_batch(&mut self, number: usize, now_ns: u64) -> io::Result<()> {
        match self.take_batch(now_ns) {
            0 => Ok(()),
            count => {
                self.put(number, count, now_ns);
                self.worker.connections[number].flush()
            }
        }
    }

    /// A batch is due every `interval`, whatever is answered.
    fn open_loop(&mut self, interval: Duration) -> io::Result<()> {
        let interval_ns = (interval.as_nanos() as u64).max(1);
        let mut due_ns = self.now_ns();
        let mut next = 0;
        let mut ended_ns = None;
        while ended_ns.is_none() || self.awaited > 0 {
            let now_ns = self.now_ns();
            if ended_ns.is_some_and(|ended: u64| now_ns > ended + DRAIN.as_nanos() as u64) {
                return Ok(());
            }
            // When every connection owes too much, only replies can change that.
            let mut blocked = false;
            while ended_ns.is_none() && due_ns <= now_ns {
                let Some(number) = self.free_connection(next) else {
                    blocked = true;
                    break;
                };
                next = number + 1;
                match self.take_batch(due_ns) {
                    0 => ended_ns = Some(now_ns),
                    count => {
                        self.put(number, count, due_ns);
                        self.worker.connections[number].flush()?;
                        due_ns += interval_ns;
                    }
                }
            }
            // What has become due since is not blocked: the wait for it ends at once.
            let until_ns = if ended_ns.is_some() || blocked { self.now_ns() + 100_000_000 } else { due_ns };
            self.wait(Some(until_ns), |running, number| {
                running.receive(number)?;
                running.worker.connections[number].flush()
            })?;
        }
        Ok(())
    }

    /// The next connection in turn that does not owe too much.
    fn free_connection(&self, from: usize) -> Option<usize> {
        let connections = &self.worker.connections;
        (0..connections.len())
            .map(|step| (from + step) % connections.len())
            .find(|&number| connections[number].awaited.len() < MOST_AWAITED)
    }

    fn end(mut self) -> Tally {
        self.tally.unanswered = self.awaited as u64;
        let last = self.tally.last();
        let _ = self.worker.seconds.send(last);
        self.tally
    }
}

/// A key's cluster slot (Redis Cluster specification; its name has no braces).
fn slot_of(crc: &crc::Crc<u16>, key: u64, digits: usize) -> u16 {
    let mut name = Vec::with_capacity(digits + 4);
    name.extend_from_slice(b"key:");
    crate::template::write_digits(&mut name, key, digits);
    crc.checksum(&name) % 16384
}

//! One test on one server, from connections to an outcome. Knows threads and terminals, not what is
//! done with the outcome.

use crate::connection::{Check, Connection};
use crate::keys::{KeySpace, Keys};
use crate::measure::{Second, coarse, exact};
use crate::options::{Load, Target};
use crate::outcome::{Latency, OperationOutcome, Outcome, SecondOutcome, curve};
use crate::process;
use crate::server::{self, Node, Unusable};
use crate::template::Filling;
use crate::worker::{self, Shared, Worker};
use crate::workload::Workload;
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// `load` fills the key space with at least this much at once.
const LOADING_PIPELINE: u32 = 64;

/// A run and its histograms, which an outcome only sums up.
pub struct Measured {
    /// What is shown.
    pub outcome: Outcome,
    /// All latencies in microseconds.
    pub latencies_us: Histogram<u64>,
    /// And by seconds of the run.
    pub seconds: BTreeMap<u64, Histogram<u32>>,
}

/// Runs one workload.
///
/// # Errors
/// When the server cannot be used, or a connection ends during the run.
pub fn run(workload: Workload, target: &Target, load: &Load, progress: bool) -> Result<Measured, Unusable> {
    if workload.every_key_once && load.cluster {
        let why = "'load' asks for every key once, which with --cluster no connection could: fill with 'set'";
        return Err(Unusable(why.to_owned()));
    }
    let nodes = server::nodes(target, load)?;
    let threads = load.threads.min(load.connections);
    let mut rng = SmallRng::seed_from_u64(load.seed);
    let filling =
        Filling::new(load.digits(), load.value_bytes.clone(), load.random_values, load.verify, &mut rng);
    let every_key_once = workload.every_key_once;
    let distribution = workload.distribution.unwrap_or(load.keys);
    let test = workload.name.clone();
    let names: Vec<&'static str> = workload.operations.iter().map(|(_, operation)| operation.name).collect();
    let space = KeySpace::new(load.keyspace);
    let mut connections = connect_all(&nodes, target, load)?;

    let shared = Arc::new(Shared {
        workload,
        filling,
        left: AtomicU64::new(if every_key_once { load.keyspace } else { load.requests }),
        warm_up: load.warm_up(),
        length: load
            .seconds
            .filter(|_| !every_key_once)
            .map(|s| Duration::from_secs_f64(s.max(0.0)) + load.warm_up()),
        pipeline: if every_key_once { load.pipeline.max(LOADING_PIPELINE) } else { load.pipeline },
        check: Check { marked_digits: load.verify.then(|| load.digits()) },
        started: Instant::now(),
    });
    let interval = load.rate.map(|rate| {
        Duration::from_secs_f64(f64::from(threads) * f64::from(shared.pipeline) / rate.max(1e-3))
    });
    let started_unix_ms =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let cpu_before = own_cpu_s();
    let (sender, receiver) = channel();
    let mut workers = Vec::new();
    for number in 0..threads {
        let share = connections.len().div_ceil((threads - number) as usize);
        let worker = Worker {
            shared: Arc::clone(&shared),
            connections: connections.drain(..share).collect(),
            interval,
            keys: Keys::new(distribution, load.keyspace, Arc::clone(&space)),
            rng: SmallRng::seed_from_u64(load.seed.wrapping_add(u64::from(number) + 1)),
            seconds: mpsc::Sender::clone(&sender),
        };
        workers.push(std::thread::spawn(move || worker::run(worker)));
    }
    drop(sender);
    let seconds = gather_seconds(&receiver, &test, progress);
    let ended = shared.started.elapsed();
    let mut tallies = Vec::new();
    for worker in workers {
        let tally = worker.join().map_err(|_| Unusable("a thread of the load panicked".to_owned()))?;
        tallies.push(tally.map_err(|error| {
            Unusable(format!("a connection to {}:{} failed: {error}", target.host, target.port))
        })?);
    }
    let cpu_s = own_cpu_s() - cpu_before;

    let latencies_us = merged(tallies.iter().flat_map(|tally| &tally.by_operation));
    let operations = latencies_us.len();
    let by_operation = names.iter().enumerate().map(|(number, name)| {
        let histogram = merged(tallies.iter().map(|tally| &tally.by_operation[number]));
        OperationOutcome {
            name: (*name).to_owned(),
            operations: histogram.len(),
            latency: Latency::of(&histogram),
        }
    });
    let length_s = ended.saturating_sub(shared.warm_up).as_secs_f64();
    let series = seconds.iter().map(|(&second, histogram)| SecondOutcome {
        second,
        length_s: (length_s - second as f64).clamp(1e-3, 1.0),
        operations: histogram.len(),
        latency: Latency::of(histogram),
    });
    let outcome = Outcome {
        test,
        endpoint: format!("{}:{}", target.host, target.port),
        started_unix_ms,
        seconds: length_s,
        operations,
        errors: tallies.iter().map(|tally| tally.errors).sum(),
        first_error: tallies.iter().find_map(|tally| tally.first_error.clone()),
        unanswered: tallies.iter().map(|tally| tally.unanswered).sum(),
        client_cpu_us: cpu_s / (operations.max(1) as f64) * 1e6,
        latency: Latency::of(&latencies_us),
        by_operation: if names.len() > 1 { by_operation.collect() } else { Vec::new() },
        curve: curve(&latencies_us),
        series: series.collect(),
    };
    Ok(Measured { outcome, latencies_us, seconds })
}

fn own_cpu_s() -> f64 {
    process::used(std::process::id()).map_or(0.0, |used| used.cpu_s)
}

fn connect_all(nodes: &[Node], target: &Target, load: &Load) -> Result<Vec<Connection>, Unusable> {
    (0..load.connections as usize)
        .map(|number| {
            let node = &nodes[number % nodes.len()];
            Ok(Connection::new(
                server::connect(node.address, target.password.as_deref(), load)?,
                node.slots.clone(),
            ))
        })
        .collect()
}

fn merged<'a>(parts: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut sum = exact();
    for part in parts {
        sum.add(part).expect("all have the same bounds");
    }
    sum
}

/// Takes the threads' seconds until all have ended, and shows them on a terminal as they come.
fn gather_seconds(receiver: &Receiver<Second>, test: &str, progress: bool) -> BTreeMap<u64, Histogram<u32>> {
    let mut seconds: BTreeMap<u64, Histogram<u32>> = BTreeMap::new();
    let mut terminal = std::io::stderr();
    let show = progress && terminal.is_terminal();
    for second in receiver {
        let sum = seconds.entry(second.number).or_insert_with(coarse);
        sum.add(&second.latencies_us).expect("all have the same bounds");
        if show && !sum.is_empty() {
            let (p50, p99) = (sum.value_at_quantile(0.5), sum.value_at_quantile(0.99));
            // A terminal that takes no text is no reason to end a run.
            let _ = write!(
                terminal,
                "\r\x1b[K{test}: {} s, {} ops/s, p50 {p50} us, p99 {p99} us",
                second.number + 1,
                sum.len()
            );
        }
    }
    if show {
        let _ = write!(terminal, "\r\x1b[K");
    }
    seconds.retain(|_, sum| !sum.is_empty());
    seconds
}

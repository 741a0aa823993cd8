//! The same work on several servers, in turns. Knows runs and /proc; what comes out is an outcome.

use crate::measure::exact;
use crate::options::{Compare, Target};
use crate::outcome::{Compared, Ratio, Side, Turn, curve};
use crate::process::{self, Used};
use crate::run;
use crate::server::{self, Unusable};
use crate::workload;

/// A server with a name.
struct Endpoint {
    name: String,
    target: Target,
    pid: Option<u32>,
}

/// Runs every test on every server, round by round.
///
/// # Errors
/// When a server's name cannot be read, or a run fails.
pub fn compare(options: &Compare, mut shown: impl FnMut(&Compared)) -> Result<Vec<Compared>, Unusable> {
    let endpoints: Vec<Endpoint> =
        options.endpoints.iter().map(|text| endpoint(text, options)).collect::<Result<_, _>>()?;
    let mut tests = Vec::new();
    for test in &options.load.tests {
        let mut sides: Vec<Side> = endpoints
            .iter()
            .map(|e| Side {
                endpoint: e.name.clone(),
                turns: Vec::new(),
                curve: Vec::new(),
                cpu_ratio: None,
                throughput_ratio: None,
            })
            .collect();
        let mut latencies: Vec<_> = endpoints.iter().map(|_| exact()).collect();
        for round in 0..options.rounds.max(1) {
            // There and back, so that what drifts with time falls on all alike.
            let forth = 0..endpoints.len();
            let order: Vec<usize> = if round % 2 == 0 { forth.collect() } else { forth.rev().collect() };
            for number in order {
                let endpoint = &endpoints[number];
                let (turn, seen) = turn(endpoint, &endpoints, test, options)?;
                sides[number].turns.push(turn);
                latencies[number].add(&seen).expect("all have the same bounds");
            }
        }
        for (side, latencies) in sides.iter_mut().zip(&latencies) {
            side.curve = curve(latencies);
        }
        let (first, rest) = sides.split_first_mut().expect("the command line asks for two servers");
        for side in rest {
            side.cpu_ratio =
                Ratio::of(&figures(side, |t| t.server_cpu_us), &figures(first, |t| t.server_cpu_us));
            let throughput = |t: &Turn| Some(t.outcome.throughput());
            side.throughput_ratio = Ratio::of(&figures(side, throughput), &figures(first, throughput));
        }
        tests.push(Compared { test: test.clone(), sides });
        shown(tests.last().expect("one was pushed"));
    }
    Ok(tests)
}

fn figures(side: &Side, figure: impl Fn(&Turn) -> Option<f64>) -> Vec<Option<f64>> {
    side.turns.iter().map(figure).collect()
}

fn turn(
    endpoint: &Endpoint,
    all: &[Endpoint],
    test: &str,
    options: &Compare,
) -> Result<(Turn, hdrhistogram::Histogram<u64>), Unusable> {
    let work = workload::named(test, options.load.digits(), options.load.write_percent).map_err(Unusable)?;
    let known = || -> f64 {
        // The other servers' background work is known, and no stranger's. One server may stand there twice.
        let mut pids: Vec<u32> = all.iter().filter_map(|e| e.pid).chain([std::process::id()]).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.into_iter().filter_map(process::used).map(|used| used.cpu_s).sum()
    };
    let (busy_before, known_before) = (process::machine_busy_s(), known());
    let before = endpoint.pid.and_then(process::used);
    let measured = run::run(work, &endpoint.target, &options.load, !options.output.quiet)?;
    let after = endpoint.pid.and_then(process::used);
    let (busy, known) = (process::machine_busy_s() - busy_before, known() - known_before);
    let outcome = measured.outcome;
    let per_operation =
        |of: fn(&Used) -> f64| Some((of(&after?) - of(&before?)) / outcome.operations.max(1) as f64);
    let turn = Turn {
        server_cpu_us: per_operation(|used| used.cpu_s * 1e6),
        written_bytes: per_operation(|used| used.written_bytes as f64),
        foreign_cpu: ((busy - known) / (outcome.seconds.max(1e-9) * process::cpus())).max(0.0),
        outcome,
    };
    Ok((turn, measured.latencies_us))
}

fn endpoint(text: &str, options: &Compare) -> Result<Endpoint, Unusable> {
    let (name, target, pid) = parts(text)
        .ok_or_else(|| Unusable(format!("'{text}' is not name=host:port or name=host:port@pid")))?;
    let target = Target { password: options.password.clone(), ..target };
    let pid = pid.or_else(|| server::process_id(&target, &options.load));
    Ok(Endpoint { name, target, pid })
}

fn parts(text: &str) -> Option<(String, Target, Option<u32>)> {
    let (name, address) = text.split_once('=')?;
    let (address, pid) = match address.split_once('@') {
        Some((address, pid)) => (address, Some(pid.parse().ok()?)),
        None => (address, None),
    };
    let (host, port) = address.rsplit_once(':')?;
    let target = Target { host: host.to_owned(), port: port.parse().ok()?, password: None };
    Some((name.to_owned(), target, pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_an_address_and_perhaps_a_pid() {
        let (name, target, pid) = parts("redis=127.0.0.1:6379@42").unwrap();
        assert_eq!(
            (name.as_str(), target.host.as_str(), target.port, pid),
            ("redis", "127.0.0.1", 6379, Some(42))
        );
        assert_eq!(parts("a=h:1").unwrap().2, None);
        assert!(parts("127.0.0.1:6379").is_none() && parts("a=h").is_none() && parts("a=h:1@x").is_none());
    }
}

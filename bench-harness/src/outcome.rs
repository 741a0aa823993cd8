//! What a run found, in the form that is printed, written as JSON and drawn. Knows no sockets.

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

/// A latency distribution in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub mean_us: f64,
    pub min_us: u64,
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub p9999_us: u64,
    pub max_us: u64,
}

impl Latency {
    /// The figures of a histogram of microseconds.
    pub fn of<C: Counter>(histogram: &Histogram<C>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency {
            mean_us: histogram.mean(),
            min_us: histogram.min(),
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max(),
        }
    }
}

/// One second of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SecondOutcome {
    /// Its number, from the end of the warm-up.
    pub second: u64,
    /// How much of it belongs to the run: less than 1 for the last.
    pub length_s: f64,
    /// Operations that ended in it.
    pub operations: u64,
    /// Their latencies.
    pub latency: Latency,
}

/// One kind of operation of a mixed workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationOutcome {
    /// Its name.
    pub name: String,
    /// How many there were.
    pub operations: u64,
    /// Their latencies.
    pub latency: Latency,
}

/// Points of a latency distribution: quantile and microseconds.
pub type Curve = Vec<(f64, u64)>;

/// One test on one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The test's name.
    pub test: String,
    /// The server.
    pub endpoint: String,
    /// When it started, in milliseconds of the Unix epoch.
    pub started_unix_ms: u64,
    /// How long it took, without the warm-up.
    pub seconds: f64,
    /// Operations answered, right or wrong.
    pub operations: u64,
    /// Of them, those answered wrongly or with an error.
    pub errors: u64,
    /// The first of those.
    pub first_error: Option<String>,
    /// Replies that never came.
    pub unanswered: u64,
    /// CPU that the load itself took, in microseconds per operation.
    pub client_cpu_us: f64,
    /// All latencies.
    pub latency: Latency,
    /// By kind of operation, where there are several.
    pub by_operation: Vec<OperationOutcome>,
    /// The latency distribution.
    pub curve: Curve,
    /// Second by second.
    pub series: Vec<SecondOutcome>,
}

impl Outcome {
    /// Operations per second.
    pub fn throughput(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

/// The points of a histogram's curve, denser towards its end.
pub fn curve(histogram: &Histogram<u64>) -> Curve {
    if histogram.is_empty() {
        return Vec::new();
    }
    histogram
        .iter_quantiles(8)
        .map(|point| (point.quantile_iterated_to(), point.value_iterated_to()))
        .collect()
}

/// One server's turn in a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// What the load saw.
    pub outcome: Outcome,
    /// The server's CPU, in microseconds per operation; `None` without a pid.
    pub server_cpu_us: Option<f64>,
    /// Bytes it wrote to disk per operation.
    pub written_bytes: Option<f64>,
    /// CPU that neither load nor servers used, as a part of the whole machine.
    pub foreign_cpu: f64,
}

/// A figure of one server beside that of the first, over all rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// The middle of the rounds.
    pub median: f64,
    /// The least and the greatest of them.
    pub range: (f64, f64),
}

/// One server in one test of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// Its name.
    pub endpoint: String,
    /// Its turns.
    pub turns: Vec<Turn>,
    /// The latency distribution of all turns together.
    pub curve: Curve,
    /// Server CPU per operation beside the first server's.
    pub cpu_ratio: Option<Ratio>,
    /// Throughput beside the first server's.
    pub throughput_ratio: Option<Ratio>,
}

/// One test of a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// The test's name.
    pub test: String,
    /// Every server.
    pub sides: Vec<Side>,
}

/// What `--json` writes and `report` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Results {
    /// `haypile bench`.
    Run {
        /// The command line.
        command: String,
        /// A test each.
        outcomes: Vec<Outcome>,
    },
    /// `haypile bench compare`.
    Comparison {
        /// The command line.
        command: String,
        /// A test each.
        tests: Vec<Compared>,
    },
}

/// The middle of some figures; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    if figures.is_empty() {
        return 0.0;
    }
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}

impl Ratio {
    /// Of figures taken in the same rounds; `None` when one side has none, or nothing to divide by.
    pub fn of(figures: &[Option<f64>], base: &[Option<f64>]) -> Option<Ratio> {
        let pairs =
            figures.iter().zip(base).map(|(figure, base)| Some((*figure)? / (*base).filter(|b| *b > 0.0)?));
        let ratios: Vec<f64> = pairs.collect::<Option<_>>()?;
        let range = ratios.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), &r| (low.min(r), high.max(r)));
        (!ratios.is_empty()).then(|| Ratio { median: median(ratios), range })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_rounds_not_of_medians() {
        let ratio =
            Ratio::of(&[Some(2.0), Some(8.0), Some(3.0)], &[Some(1.0), Some(8.0), Some(1.0)]).unwrap();
        assert_eq!((ratio.median, ratio.range), (2.0, (1.0, 3.0)));
        assert!(Ratio::of(&[None], &[Some(1.0)]).is_none());
        assert!(Ratio::of(&[Some(1.0)], &[Some(0.0)]).is_none());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}

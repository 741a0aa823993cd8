//! Results as text: the tables a user reads, JSON, the HdrHistogram log. Knows no measuring.

use crate::outcome::{Compared, Latency, Outcome, Ratio, Results, Side, median};
use crate::run::Measured;
use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A comparison's turn is marked when others took more of the machine than this.
pub const FOREIGN_CPU_MAX: f64 = 0.05;

/// The table's head for runs.
pub fn head() -> String {
    format!(
        "{:<18} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>10}",
        "test", "ops/s", "mean ms", "p50", "p95", "p99", "p99.9", "max", "errors", "client us"
    )
}

/// A run's lines.
pub fn lines(outcome: &Outcome) -> String {
    let mut text = row(&outcome.test, outcome.throughput(), &outcome.latency);
    text.push_str(&format!(" {:>7} {:>10.2}", outcome.errors, outcome.client_cpu_us));
    for part in &outcome.by_operation {
        let throughput = part.operations as f64 / outcome.seconds.max(1e-9);
        text.push_str(&format!("\n{}", row(&format!("  {}", part.name), throughput, &part.latency)));
    }
    if let Some(error) = &outcome.first_error {
        text.push_str(&format!("\n  first error: {error}"));
    }
    if outcome.unanswered > 0 {
        text.push_str(&format!("\n  {} replies never came", outcome.unanswered));
    }
    text
}

fn row(name: &str, throughput: f64, latency: &Latency) -> String {
    let ms = |us: u64| us as f64 / 1000.0;
    format!(
        "{name:<18} {throughput:>10.0} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
        latency.mean_us / 1000.0,
        ms(latency.p50_us),
        ms(latency.p95_us),
        ms(latency.p99_us),
        ms(latency.p999_us),
        ms(latency.max_us)
    )
}

/// A comparison's lines for one test: medians of the rounds, then ratios to the first server.
pub fn comparison(test: &Compared) -> String {
    let mut text = format!(
        "{:<14} {:>14} {:>10} {:>10} {:>9} {:>9} {:>9}  {:<20} {}\n",
        test.test,
        "server us/op",
        "bytes/op",
        "ops/s",
        "p50 ms",
        "p99",
        "p99.9",
        "CPU ratio (range)",
        "throughput"
    );
    for side in &test.sides {
        text.push_str(&side_line(side));
    }
    text
}

fn side_line(side: &Side) -> String {
    let middle = |figure: &dyn Fn(&crate::outcome::Turn) -> Option<f64>| -> Option<f64> {
        side.turns.iter().map(figure).collect::<Option<Vec<f64>>>().map(median)
    };
    let optional =
        |figure: Option<f64>, digits: usize| figure.map_or("-".to_owned(), |f| format!("{f:.digits$}"));
    let us = |pick: fn(&Latency) -> u64| middle(&|turn| Some(pick(&turn.outcome.latency) as f64 / 1000.0));
    let ratio = |ratio: &Option<Ratio>| {
        ratio
            .as_ref()
            .map_or("-".to_owned(), |r| format!("{:.2} ({:.2}..{:.2})", r.median, r.range.0, r.range.1))
    };
    let mut text = format!(
        "  {:<12} {:>14} {:>10} {:>10} {:>9} {:>9} {:>9}  {:<20} {}",
        side.endpoint,
        optional(middle(&|turn| turn.server_cpu_us), 2),
        optional(middle(&|turn| turn.written_bytes), 0),
        optional(middle(&|turn| Some(turn.outcome.throughput())), 0),
        optional(us(|l| l.p50_us), 3),
        optional(us(|l| l.p99_us), 3),
        optional(us(|l| l.p999_us), 3),
        ratio(&side.cpu_ratio),
        ratio(&side.throughput_ratio),
    );
    let busy = side.turns.iter().filter(|turn| turn.foreign_cpu > FOREIGN_CPU_MAX).count();
    if busy > 0 {
        text.push_str(&format!(
            "  ! the machine was busy with something else in {busy} of {} rounds",
            side.turns.len()
        ));
    }
    let errors: u64 = side.turns.iter().map(|turn| turn.outcome.errors).sum();
    if errors > 0 {
        let first =
            side.turns.iter().find_map(|turn| turn.outcome.first_error.as_deref()).unwrap_or_default();
        text.push_str(&format!("  ! {errors} errors, the first: {first}"));
    }
    text.push('\n');
    text
}

/// Writes results for `report` and other programs.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, results: &Results) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, results)?;
    file.flush()
}

/// Writes one histogram for each second of each run, tagged with the test's name.
///
/// # Errors
/// When the file cannot be written.
pub fn write_hdr_log(path: &Path, runs: &[Measured]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut serializer = V2Serializer::new();
    let base = runs.first().map_or(0, |run| run.outcome.started_unix_ms);
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("latencies in microseconds")
        .with_start_time(SystemTime::UNIX_EPOCH + Duration::from_millis(base))
        .begin_log_with(&mut file, &mut serializer)?;
    for run in runs {
        let since = Duration::from_millis(run.outcome.started_unix_ms.saturating_sub(base));
        // A tag ends at a comma or a blank.
        let name = run.outcome.test.replace([',', ' ', '\n', '\r'], "_");
        for (second, histogram) in &run.seconds {
            let start = since + Duration::from_secs(*second);
            log.write_histogram(histogram, start, Duration::from_secs(1), Tag::new(&name))
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
    }
    file.flush()
}

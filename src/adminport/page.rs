//! Prometheus's text format (version 0.0.4): families of samples. Pure.
//!
//! Names and labels are ours, so nothing in them needs escaping; whatever a client chose has no place here.

use crate::metrics::micros::Micros;
use std::fmt::{Display, Write};

/// Upper bounds of a histogram's buckets, microseconds: powers of two up to 16 s.
const BUCKETS: u32 = 25;

/// A page that grows.
#[derive(Default)]
pub struct Page(String);

/// What a family's samples are.
#[derive(Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Label names with their values.
pub type Labels<'a> = [(&'a str, &'a dyn Display)];

impl Page {
    /// Begins a family: its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub fn sample(&mut self, name: &str, labels: &Labels<'_>, value: impl Display) {
        let labels = text(labels, None);
        self.line(format_args!("{name}{labels} {value}"));
    }

    /// One histogram of a family, in seconds.
    pub fn histogram(&mut self, name: &str, labels: &Labels<'_>, times: &Micros) {
        for power in 0..BUCKETS {
            let upto_us = 1u64 << power;
            let bound = format!("{:.6}", upto_us as f64 / 1e6);
            let labels = text(labels, Some(&bound));
            self.line(format_args!("{name}_bucket{labels} {}", times.upto(upto_us)));
        }
        let every = text(labels, Some("+Inf"));
        let labels = text(labels, None);
        let (count, seconds) = (times.count(), times.nanos() as f64 / 1e9);
        self.line(format_args!("{name}_bucket{every} {count}"));
        self.line(format_args!("{name}_sum{labels} {seconds}"));
        self.line(format_args!("{name}_count{labels} {count}"));
    }

    pub fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }
}

fn text(labels: &Labels<'_>, upto: Option<&str>) -> String {
    let named = labels.iter().map(|(name, value)| format!("{name}=\"{value}\""));
    let all: Vec<String> = named.chain(upto.map(|bound| format!("le=\"{bound}\""))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_prometheus_wants_it() {
        let mut page = Page::default();
        page.family("a_total", Kind::Counter, "What it is.");
        page.sample("a_total", &[("core", &0), ("kind", &"x")], 3);
        page.sample("b", &[], 1.5);
        let mut times = Micros::default();
        times.note_nanos(3_000);
        times.note_nanos(60_000_000_000);
        page.histogram("t_seconds", &[("core", &1)], &times);
        let text = page.finish();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "# HELP a_total What it is.",
                "# TYPE a_total counter",
                "a_total{core=\"0\",kind=\"x\"} 3",
                "b 1.5"
            ]
        );
        assert!(lines.contains(&"t_seconds_bucket{core=\"1\",le=\"0.000002\"} 0"));
        assert!(lines.contains(&"t_seconds_bucket{core=\"1\",le=\"0.000004\"} 1"));
        assert!(lines.contains(&"t_seconds_bucket{core=\"1\",le=\"+Inf\"} 2"));
        assert!(lines.contains(&"t_seconds_count{core=\"1\"} 2"));
        assert!(lines.contains(&"t_seconds_sum{core=\"1\"} 60.000003"));
    }
}

//! What the kernel says of this process, as metrics. A file that cannot be read leaves its samples out.

use super::page::{Kind, Page};
use crate::front::admin::process;
use std::collections::BTreeMap;
use std::fs;

/// Names are Prometheus's own where it has some.
pub fn samples(page: &mut Page) {
    if let Some(resident) = process::resident_bytes() {
        page.family("process_resident_memory_bytes", Kind::Gauge, "Memory in RAM.");
        page.sample("process_resident_memory_bytes", &[], resident);
    }
    if let Some(time) = process::cpu_time() {
        page.family("process_cpu_seconds_total", Kind::Counter, "User and system time.");
        page.sample("process_cpu_seconds_total", &[], time.user + time.system);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.family("process_open_fds", Kind::Gauge, "Open descriptors.");
        page.sample("process_open_fds", &[], open.count());
    }
    let name = "haypile_thread_cpu_seconds_total";
    page.family(name, Kind::Counter, "User and system time by kind of thread.");
    for (kind, seconds) in by_kind() {
        page.sample(name, &[("kind", &kind)], seconds);
    }
}

/// Seconds by kind: a thread's name without its number.
fn by_kind() -> BTreeMap<String, f64> {
    let mut kinds = BTreeMap::new();
    for (name, seconds) in process::threads() {
        *kinds.entry(kind_of(&name)).or_default() += seconds;
    }
    kinds
}

/// Of letters only, since it becomes a label: RocksDB names its threads `rocksdb:low`.
fn kind_of(name: &str) -> String {
    let letters = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '-');
    letters.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_names_without_numbers() {
        for (name, kind) in [("core-0", "core"), ("rocksdb:low", "rocksdb_low"), ("cold-12", "cold")] {
            assert_eq!(kind_of(name), kind);
        }
        assert!(!by_kind().is_empty());
    }
}

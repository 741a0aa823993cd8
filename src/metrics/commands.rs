//! How often each command was called on one core, and how long clients' commands took.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// Longer ones count as this long.
const LONGEST_US: u64 = 600_000_000;

/// One command's figures.
#[derive(Clone, Debug)]
pub struct CommandStat {
    pub calls: u64,
    /// Sum of all times, nanoseconds.
    pub nanos: u64,
    /// Calls that were answered with an error when they ran.
    pub failed: u64,
    /// Calls that were refused before they ran.
    pub rejected: u64,
    /// Microseconds, rounded up, to two digits.
    pub latency_us: Histogram<u32>,
}

impl Default for CommandStat {
    fn default() -> CommandStat {
        let latency_us = Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are constants");
        CommandStat { calls: 0, nanos: 0, failed: 0, rejected: 0, latency_us }
    }
}

/// Every command that was called since the start or the last CONFIG RESETSTAT.
#[derive(Clone, Debug, Default)]
pub struct CommandStats {
    by_name: FxHashMap<&'static str, CommandStat>,
}

impl CommandStats {
    /// A command has been answered.
    pub fn ran(&mut self, name: &'static str, nanos: u64, failed: bool) {
        let stat = self.by_name.entry(name).or_default();
        stat.calls += 1;
        stat.nanos += nanos;
        stat.failed += u64::from(failed);
        stat.latency_us.saturating_record(nanos.div_ceil(1000).max(1));
    }

    /// A command was refused.
    pub fn rejected(&mut self, name: &'static str) {
        self.by_name.entry(name).or_default().rejected += 1;
    }

    /// Adds another core's.
    pub fn add(&mut self, other: CommandStats) {
        for (name, theirs) in other.by_name {
            let ours = self.by_name.entry(name).or_default();
            ours.calls += theirs.calls;
            ours.nanos += theirs.nanos;
            ours.failed += theirs.failed;
            ours.rejected += theirs.rejected;
            ours.latency_us.add(&theirs.latency_us).expect("all have the same bounds");
        }
    }

    /// By name.
    pub fn sorted(&self) -> BTreeMap<&'static str, &CommandStat> {
        self.by_name.iter().map(|(name, stat)| (*name, stat)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_add_up() {
        let (mut one, mut two) = (CommandStats::default(), CommandStats::default());
        one.ran("get", 1_500, false);
        two.ran("get", 500, true);
        two.rejected("set");
        one.add(two);
        let all = one.sorted();
        let get = all["get"];
        assert_eq!((get.calls, get.nanos, get.failed, get.latency_us.len()), (2, 2_000, 1, 2));
        assert_eq!((get.latency_us.min(), get.latency_us.max()), (1, 2));
        assert_eq!((all["set"].calls, all["set"].rejected), (0, 1));
    }
}

//! How often each command was called on one core, and how long clients' commands took.

use super::micros::Micros;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// One command's figures.
#[derive(Clone, Debug, Default)]
pub struct CommandStat {
    /// Calls that were answered, and how long they took.
    pub times: Micros,
    /// Calls that were answered with an error when they ran.
    pub failed: u64,
    /// Calls that were refused before they ran.
    pub rejected: u64,
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
        stat.times.note_nanos(nanos);
        stat.failed += u64::from(failed);
    }

    /// A command was refused.
    pub fn rejected(&mut self, name: &'static str) {
        self.by_name.entry(name).or_default().rejected += 1;
    }

    /// Adds another core's.
    pub fn add(&mut self, other: &CommandStats) {
        for (name, theirs) in &other.by_name {
            let ours = self.by_name.entry(name).or_default();
            ours.times.add(&theirs.times);
            ours.failed += theirs.failed;
            ours.rejected += theirs.rejected;
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
        one.add(&two);
        let all = one.sorted();
        let get = all["get"];
        assert_eq!((get.times.count(), get.times.nanos(), get.failed), (2, 2_000, 1));
        assert_eq!((get.times.upto(1), get.times.max_us()), (1, 2));
        assert_eq!((all["set"].times.count(), all["set"].rejected), (0, 1));
    }
}

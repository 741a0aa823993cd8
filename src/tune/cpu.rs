//! The CPUs: how many are free, how fast they run, what they can do in hardware.

use super::{Finding, State, read};
use crate::runtime::executor;
use std::fs;

pub fn look() -> Vec<Finding> {
    vec![free_cpus(), governor(), checksums(), steal()]
}

fn free_cpus() -> Finding {
    let finding = Finding::new(
        "free CPUs",
        "two or more, and less load than CPUs",
        "every core is a thread that expects a CPU of its own; RocksDB's threads want another",
    )
    .command("choose CPUs with pin_cpus, and keep others off them (tuning/README.md)");
    let allowed = executor::cpus().map_or(0, |cpus| cpus.len());
    let load = read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    match load {
        Some(load) => finding.is(
            allowed >= 2 && load < allowed as f64,
            State::Worse,
            format!("{allowed} CPUs may be used, load {load:.2}"),
        ),
        None => finding.unknown(format!("{allowed} CPUs may be used, load unknown")),
    }
}

fn governor() -> Finding {
    let finding = Finding::new(
        "CPU frequency governor",
        "performance",
        "a CPU that has slept runs its first milliseconds slowly, and that is the 99.9th percentile",
    )
    .command("cpupower frequency-set -g performance   # or: tuning/host.sh");
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let files = cpus.map(|cpu| cpu.path().join("cpufreq/scaling_governor"));
    let governors: Vec<String> = files.filter_map(read).collect();
    match governors.iter().find(|governor| *governor != "performance") {
        Some(other) => finding.is(false, State::Worse, other),
        None if governors.is_empty() => {
            finding.is(true, State::Worse, "none (a virtual machine, or the firmware decides)")
        }
        None => finding.is(true, State::Worse, "performance"),
    }
}

fn checksums() -> Finding {
    let finding = Finding::new(
        "checksums in hardware",
        "SSE 4.2 and PCLMULQDQ (x86) or CRC (ARM)",
        "every record of the log and RocksDB's manifests carry one",
    );
    #[cfg(target_arch = "x86_64")]
    let (good, found) = {
        let (sse, clmul) =
            (std::arch::is_x86_feature_detected!("sse4.2"), std::arch::is_x86_feature_detected!("pclmulqdq"));
        let word = |has: bool| if has { "yes" } else { "no" };
        (sse && clmul, format!("SSE 4.2 {}, PCLMULQDQ {}", word(sse), word(clmul)))
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (good, found) = {
        let features = read("/proc/cpuinfo").unwrap_or_default();
        let has = features.split_whitespace().any(|word| word == "crc32");
        (has, format!("CRC {}", if has { "yes" } else { "no" }))
    };
    finding.is(good, State::Worse, found)
}

/// From /proc/stat: the eighth figure of the first line.
fn steal() -> Finding {
    let finding = Finding::new(
        "time stolen by the hypervisor",
        "under 1 % of all time since boot",
        "another machine runs where a core expects to: nothing inside can mend it",
    );
    let share = || {
        let stat = read("/proc/stat")?;
        let ticks: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
        Some(ticks.get(7)? * 100.0 / ticks.iter().take(8).sum::<f64>())
    };
    match share() {
        Some(percent) => finding.is(percent < 1.0, State::Worse, format!("{percent:.2} %")),
        None => finding.unknown("/proc/stat does not say"),
    }
}

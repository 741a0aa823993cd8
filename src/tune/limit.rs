//! What this process is allowed: descriptors, locked memory, a container's share of CPU and memory.
//!
//! They are those of the shell that runs `tune`; a service has those of its unit.

use super::{Finding, State, read};
use crate::config::Config;

pub fn look() -> Vec<Finding> {
    vec![open_files(), locked_memory(), cpu_quota(), memory_max()]
}

fn of_process(name: &str) -> Option<String> {
    let limits = read("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

fn at_least(value: &str, least: u64) -> bool {
    value == "unlimited" || value.parse::<u64>().is_ok_and(|number| number >= least)
}

fn open_files() -> Finding {
    const WANTED: u64 = 65_536;
    let finding = Finding::new(
        "open files (ulimit -n)",
        "at least 65536",
        "each connection takes one (maxclients, 10000 by default), and so does each file of RocksDB, all kept open",
    )
    .command("ulimit -n 65536   # in a systemd unit: LimitNOFILE=1048576");
    match of_process("Max open files") {
        Some(most) => {
            let least = u64::from(Config::default().maxclients);
            let state = if at_least(&most, least) { State::Worse } else { State::Wrong };
            finding.is(at_least(&most, WANTED), state, most)
        }
        None => finding.unknown("/proc/self/limits does not say"),
    }
}

fn locked_memory() -> Finding {
    const WANTED: u64 = 8 << 20;
    let finding = Finding::new(
        "locked memory (ulimit -l)",
        "at least 8192 KiB",
        "the rings of every core are locked memory; below 512 KiB the server does not start",
    )
    .command("ulimit -l 8192   # in a systemd unit: LimitMEMLOCK=infinity");
    match of_process("Max locked memory") {
        Some(bytes) => {
            let state = if at_least(&bytes, 512 << 10) { State::Worse } else { State::Wrong };
            finding.is(at_least(&bytes, WANTED), state, format!("{bytes} bytes"))
        }
        None => finding.unknown("/proc/self/limits does not say"),
    }
}

/// This process's directory of control group version 2.
fn cgroup() -> Option<String> {
    let groups = read("/proc/self/cgroup")?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    Some(format!("/sys/fs/cgroup{}", path.trim_end_matches('/')))
}

fn cpu_quota() -> Finding {
    let finding = Finding::new(
        "CPU quota",
        "none; give whole CPUs instead (cpuset)",
        "a group that has used up its share stands still until the next period: milliseconds, at every load",
    )
    .command("systemctl set-property haypile.service CPUQuota=   # docker: --cpuset-cpus instead of --cpus");
    match cgroup().and_then(|dir| read(format!("{dir}/cpu.max"))) {
        Some(quota) => finding.is(quota.starts_with("max"), State::Worse, quota),
        None => finding.is(true, State::Worse, "none is set"),
    }
}

fn memory_max() -> Finding {
    let finding = Finding::new(
        "memory limit of the group",
        "none, or well above memory_budget",
        "at the limit the kernel kills the server; the budget is a quarter of the machine's memory by default",
    )
    .command("set memory_budget to half of the limit at most");
    let most = cgroup().and_then(|dir| read(format!("{dir}/memory.max")));
    match most.as_deref().map(str::parse::<u64>) {
        Some(Ok(bytes)) => {
            let machine = machine_bytes().unwrap_or(u64::MAX);
            finding.is(bytes > machine / 2, State::Worse, format!("{} MiB", bytes >> 20))
        }
        _ => finding.is(true, State::Worse, "none is set"),
    }
}

fn machine_bytes() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

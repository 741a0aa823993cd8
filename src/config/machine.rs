//! What the machine gives us, as far as a default depends on it.

use std::fs;
use std::thread;

/// Assumed where the kernel does not say how much memory there is.
const MEMORY_UNKNOWN_BYTES: u64 = 1 << 30;

/// CPUs this process may use, at least 1; a container's quota counts.
pub(super) fn cpus() -> u16 {
    thread::available_parallelism().map_or(1, |cpus| cpus.get().min(1024) as u16)
}

/// Memory of the machine or of the container around us, the smaller, in bytes.
pub(super) fn memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let container =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min().unwrap_or(MEMORY_UNKNOWN_BYTES)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        assert_eq!(mem_total("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_576_000 << 10));
        assert_eq!(mem_total("nothing"), None);
        assert!(cpus() >= 1 && memory_bytes() > 64 << 20);
    }
}

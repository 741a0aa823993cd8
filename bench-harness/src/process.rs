//! What /proc says of processes and of the machine: proc_pid_stat(5), proc_pid_io(5), proc_stat(5).

use std::fs;

/// What a process has used since it started, threads that have ended included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// CPU time, user and system.
    pub cpu_s: f64,
    /// Bytes it made the file system write. 0 when its io file may not be read.
    pub written_bytes: u64,
}

/// What a process has used by now; `None` when there is no such process.
pub fn used(pid: u32) -> Option<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold blanks; utime and stime are the 12th and 13th field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    let written_bytes = written.and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(Used { cpu_s: seconds(ticks), written_bytes })
}

/// CPU time the whole machine has spent on anything, other guests of its host included (steal).
pub fn machine_busy_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = all.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
    // user nice system idle iowait irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].iter().map(|&n| fields.get(n).copied().unwrap_or(0)).sum();
    seconds(busy)
}

/// CPUs of the machine.
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_less_than_the_machine() {
        let mut n = 0_u64;
        let until = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < until {
            n = n.wrapping_add(1);
        }
        assert!(n > 0);
        let cpu_s = used(std::process::id()).unwrap().cpu_s;
        assert!(cpu_s > 0.0 && cpu_s <= machine_busy_s());
        assert!(used(u32::MAX).is_none());
    }
}

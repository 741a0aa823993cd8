//! What the kernel says of this process and machine, read from /proc once per INFO.
//! A file that cannot be read gives None, and INFO leaves the line out.

use std::fs::read_to_string;

/// Of a page in /proc/self/statm: 4 KiB on every machine this server is built for.
const PAGE_BYTES: u64 = 4096;
/// Of a tick in /proc/self/stat: Linux shows a hundredth of a second to programs, whatever it uses itself.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuTime {
    pub user: f64,
    pub system: f64,
    pub user_children: f64,
    pub system_children: f64,
}

/// Memory that is in RAM, bytes.
pub fn resident_bytes() -> Option<u64> {
    let pages: u64 = read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// The most that was in RAM so far, bytes.
pub fn peak_bytes() -> Option<u64> {
    let text = read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The heap, as the allocator counts it, bytes. All zeroes where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// Given out.
    pub allocated_bytes: u64,
    /// In pages of which something is given out.
    pub active_bytes: u64,
    /// In RAM.
    pub resident_bytes: u64,
}

pub fn heap() -> Heap {
    use tikv_jemalloc_ctl::{epoch, stats};
    let read = || -> Result<Heap, tikv_jemalloc_ctl::Error> {
        // The figures are those of the last time this was moved on.
        epoch::advance()?;
        Ok(Heap {
            allocated_bytes: stats::allocated::read()? as u64,
            active_bytes: stats::active::read()? as u64,
            resident_bytes: stats::resident::read()? as u64,
        })
    };
    read().unwrap_or_default()
}

/// RAM of the machine, bytes.
pub fn machine_bytes() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

pub fn cpu_time() -> Option<CpuTime> {
    parse_stat(&read_to_string("/proc/self/stat").ok()?)
}

/// Name and processor time, seconds, of every thread that runs.
pub fn threads() -> Vec<(String, f64)> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let one = |task: std::fs::DirEntry| {
        let stat = read_to_string(task.path().join("stat")).ok()?;
        let (name, _) = stat.split_once('(')?.1.rsplit_once(')')?;
        let time = parse_stat(&stat)?;
        Some((name.to_owned(), time.user + time.system))
    };
    // A thread may end while it is looked at.
    tasks.flatten().filter_map(one).collect()
}

/// proc(5): the second field is a name in brackets that may hold anything; utime is the 14th.
fn parse_stat(text: &str) -> Option<CpuTime> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<f64>());
    let mut seconds = || Some(ticks.next()?.ok()? / TICKS_PER_SECOND);
    Some(CpuTime {
        user: seconds()?,
        system: seconds()?,
        user_children: seconds()?,
        system_children: seconds()?,
    })
}

/// Kernel name and release, as `uname -sr` prints them, and the architecture.
pub fn system() -> String {
    let of = |name: &str| read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    format!("{} {} {}", of("ostype").trim(), of("osrelease").trim(), std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        assert!(resident_bytes().expect("statm") > 100_000);
        assert!(machine_bytes().expect("meminfo") > 100_000_000);
        assert!(cpu_time().is_some() && !threads().is_empty());
        assert!(peak_bytes().expect("status") >= resident_bytes().expect("statm") / 2);
        assert!(system().starts_with("Linux "), "{}", system());
    }

    #[test]
    fn names_with_brackets_do_not_shift_the_fields() {
        let text = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 100 7 3 20 0";
        let expected = CpuTime { user: 2.5, system: 1.0, user_children: 0.07, system_children: 0.03 };
        assert_eq!(parse_stat(text), Some(expected));
    }
}

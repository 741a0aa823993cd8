//! The kernel: what the ring needs, and settings that every program feels.

use super::{Finding, State, chosen, read};
use crate::runtime::executor;

pub fn look() -> Vec<Finding> {
    vec![ring(), huge_pages(), swap(), clock_source(), backlog(), map_count()]
}

fn ring() -> Finding {
    let finding = Finding::new(
        "io_uring",
        "Linux 6.1 or newer, io_uring allowed, 512 KiB of locked memory",
        "every core serves its sockets through a ring; without one the server does not start",
    );
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    match executor::check_host() {
        Ok(()) => finding.is(true, State::Wrong, format!("Linux {release}, a ring was made")),
        Err(why) => finding.is(false, State::Wrong, format!("Linux {release}: {why}")),
    }
}

fn huge_pages() -> Finding {
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let finding = Finding::new(
        "transparent huge pages",
        "madvise or never",
        "the kernel stops a thread to find or to clear 2 MiB at a time, and memory grows beyond the budget",
    );
    match read(FILE) {
        Some(text) => {
            finding.writes(FILE, "madvise").is(chosen(&text) != "always", State::Worse, chosen(&text))
        }
        None => finding.is(true, State::Worse, "this kernel has none"),
    }
}

fn swap() -> Finding {
    const FILE: &str = "/proc/sys/vm/swappiness";
    let finding = Finding::new(
        "swap",
        "none, or vm.swappiness at most 1",
        "a core that touches memory which is on disk stands still with all its connections",
    );
    let areas = read("/proc/swaps").map_or(0, |text| text.lines().skip(1).count());
    let swappiness: u32 = read(FILE).and_then(|text| text.parse().ok()).unwrap_or(60);
    match areas {
        0 => finding.is(true, State::Worse, "none"),
        _ => finding.writes(FILE, "1").is(
            swappiness <= 1,
            State::Worse,
            format!("{areas} in use, vm.swappiness is {swappiness}"),
        ),
    }
}

fn clock_source() -> Finding {
    const DIR: &str = "/sys/devices/system/clocksource/clocksource0";
    /// Those that are read without entering the kernel.
    const QUICK: [&str; 5] =
        ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "riscv_clocksource"];
    let finding = Finding::new(
        "clock source",
        "tsc, kvm-clock or another that is read without a system call",
        "the time is read for every command and every turn",
    );
    let Some(current) = read(format!("{DIR}/current_clocksource")) else {
        return finding.unknown("not shown by this kernel");
    };
    let available = read(format!("{DIR}/available_clocksource")).unwrap_or_default();
    let better = available.split_whitespace().any(|name| name == "tsc");
    let good = QUICK.contains(&current.as_str());
    let finding = match better {
        true => finding.writes(format!("{DIR}/current_clocksource"), "tsc"),
        false => finding,
    };
    finding.is(good, State::Worse, format!("{current} (there are: {available})"))
}

fn backlog() -> Finding {
    const FILE: &str = "/proc/sys/net/core/somaxconn";
    let finding = Finding::new(
        "net.core.somaxconn",
        "at least 511, the default of tcp_backlog",
        "connections that come at once are refused beyond it",
    );
    match read(FILE).and_then(|text| text.parse::<u32>().ok()) {
        Some(most) => finding.writes(FILE, "4096").is(most >= 511, State::Worse, most.to_string()),
        None => finding.unknown("not shown by this kernel"),
    }
}

fn map_count() -> Finding {
    const FILE: &str = "/proc/sys/vm/max_map_count";
    let finding = Finding::new(
        "vm.max_map_count",
        "at least 65530",
        "the allocator maps memory in many pieces, and fails when there are too many",
    );
    match read(FILE).and_then(|text| text.parse::<u64>().ok()) {
        Some(most) => finding.writes(FILE, "262144").is(most >= 65530, State::Worse, most.to_string()),
        None => finding.unknown("not shown by this kernel"),
    }
}

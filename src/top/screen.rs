//! Two looks at a server as lines of text. Pure.

use super::snapshot::{Parts, Slow, Snapshot};
use std::fmt::Write;

/// Commands that are shown, the most called first.
const COMMANDS_SHOWN: usize = 12;

pub fn draw(address: &str, before: &Snapshot, now: &Snapshot, slow: &[Slow], elapsed_s: f64) -> String {
    let mut text = String::new();
    let mut line =
        |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes everything");
    let rate = |of: &dyn Fn(&Snapshot) -> f64| ((of(now) - of(before)) / elapsed_s).max(0.0);
    let field = |name: &'static str| move |look: &Snapshot| look.number(name);

    line(format_args!(
        "haypile {} at {address}, up {}, {} cores, {} shards",
        now.text("haypile_version"),
        duration(now.number("uptime_in_seconds")),
        now.cores.len(),
        now.shards.len()
    ));
    line(format_args!(
        "{} commands/s, {} hops/s, {} errors/s, {} clients, {} in, {} out",
        count(rate(&field("total_commands_processed"))),
        count(rate(&field("hops"))),
        count(rate(&field("total_error_replies"))),
        count(now.number("connected_clients")),
        size(rate(&field("total_net_input_bytes"))) + "/s",
        size(rate(&field("total_net_output_bytes"))) + "/s",
    ));
    line(format_args!(
        "{} in RAM, budget {}, CPU {:.0} %, log synced {}/s\n",
        size(now.number("used_memory_rss")),
        size(now.number("maxmemory")),
        100.0 * rate(&|look| look.number("used_cpu_user") + look.number("used_cpu_sys")),
        count(rate(&field("log_syncs")))
    ));

    line(format_args!(
        "{:>5}{:>12}{:>10}{:>10}{:>10}{:>12}{:>9}",
        "CORE", "commands/s", "hops/s", "turns/s", "cold/s", "worst turn", "clients"
    ));
    for (at, (now, before)) in now.cores.iter().zip(&before.cores).enumerate() {
        let per_s = |name: &str| count(difference(before, now, name) / elapsed_s);
        line(format_args!(
            "{at:>5}{:>12}{:>10}{:>10}{:>10}{:>12}{:>9}",
            per_s("commands"),
            per_s("hops"),
            per_s("turns"),
            per_s("cold_reads"),
            micros(now.get("turn_max_us")),
            count(now.get("connections"))
        ));
    }

    line(format_args!(
        "\n{:>5}{:>6}{:>12}{:>11}{:>9}{:>11}{:>11}{:>11}{:>5}{:>11}{:>9}{:>7}",
        "SHARD",
        "core",
        "keys",
        "log/s",
        "syncs/s",
        "unsynced",
        "memtable",
        "files",
        "L0",
        "to compact",
        "paced",
        "gated"
    ));
    for (at, (now, before)) in now.shards.iter().zip(&before.shards).enumerate() {
        let per_s = |name: &str| difference(before, now, name) / elapsed_s;
        let paced = match now.get("paced_at") {
            0.0 => "-".to_owned(),
            rate => count(rate),
        };
        line(format_args!(
            "{at:>5}{:>6}{:>12}{:>11}{:>9}{:>11}{:>11}{:>11}{:>5}{:>11}{paced:>9}{:>7}",
            now.get("core"),
            count(now.get("keys")),
            size(per_s("log_bytes")),
            count(per_s("log_syncs")),
            count(now.get("written_lsn") - now.get("durable_lsn")),
            size(now.get("memtable_bytes")),
            size(now.get("file_bytes")),
            count(now.get("level0_files")),
            size(now.get("pending_compaction_bytes")),
            count(now.get("gated"))
        ));
    }

    line(format_args!(
        "\n{:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}",
        "COMMAND", "calls/s", "mean", "p50", "p99", "p99.9", "failed"
    ));
    let none = Default::default();
    let mut commands: Vec<_> = now
        .commands
        .iter()
        .map(|(name, command)| {
            let before = &before.commands.get(name).unwrap_or(&none).stat;
            let calls = difference(before, &command.stat, "calls");
            let micros = difference(before, &command.stat, "usec") / calls.max(1.0);
            (calls / elapsed_s, micros, name, command)
        })
        .collect();
    commands.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (calls, mean, name, command) in commands.into_iter().take(COMMANDS_SHOWN) {
        line(format_args!(
            "{name:<18}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}",
            count(calls),
            micros(mean),
            micros(command.latency.get("p50")),
            micros(command.latency.get("p99")),
            micros(command.latency.get("p99.9")),
            count(command.stat.get("failed_calls"))
        ));
    }

    if !slow.is_empty() {
        let now_s = now.number("server_time_usec") / 1e6;
        line(format_args!(
            "\n{:<8}{:>9}{:>11}  {:<8}{:<22}COMMAND",
            "SLOW", "ago", "took", "stage", "client"
        ));
        for entry in slow {
            let ago = duration((now_s - entry.at_s as f64).max(0.0));
            let command: String = entry.command.chars().take(60).collect();
            line(format_args!(
                "{:<8}{ago:>9}{:>11}  {:<8}{:<22}{command}",
                entry.id,
                micros(entry.micros as f64),
                entry.stage,
                entry.addr
            ));
        }
    }
    text
}

/// Never negative: counters start again with CONFIG RESETSTAT.
fn difference(before: &Parts, now: &Parts, name: &str) -> f64 {
    (now.get(name) - before.get(name)).max(0.0)
}

fn count(number: f64) -> String {
    match number {
        0.0..10_000.0 => format!("{number:.0}"),
        10_000.0..10_000_000.0 => format!("{:.1}k", number / 1e3),
        _ => format!("{:.1}M", number / 1e6),
    }
}

fn size(bytes: f64) -> String {
    let mut size = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{size:.0} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

fn micros(micros: f64) -> String {
    match micros {
        0.0..10_000.0 => format!("{micros:.0} us"),
        10_000.0..1_000_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(commands: u64, calls: u64) -> Snapshot {
        Snapshot::parse(&format!(
            "# Server\r\nhaypile_version:0.1.0\r\nuptime_in_seconds:3725\r\nserver_time_usec:1700000010000000\r\n\
             connected_clients:5\r\ntotal_commands_processed:{commands}\r\nhops:0\r\n\
             core0:commands={commands},hops=0,turns=50,turn_max_us=12000,cold_reads=0,connections=5\r\n\
             shard0:core=0,keys=12000,log_bytes={commands},written_lsn=9,durable_lsn=7,paced_at=0,gated=0\r\n\
             cmdstat_get:calls={calls},usec={calls},usec_per_call=1.00,rejected_calls=0,failed_calls=2\r\n\
             cmdstat_set:calls=1,usec=900,usec_per_call=900,rejected_calls=0,failed_calls=0\r\n\
             latency_percentiles_usec_get:p50=1.000,p99=20.000,p99.9=30000.000\r\n"
        ))
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let slow = Slow {
            id: 3,
            at_s: 1_700_000_000,
            micros: 15_000,
            stage: "wait".into(),
            addr: "127.0.0.1:5".into(),
            command: "GET k".into(),
        };
        let text = draw("here:1", &look(1_000, 10), &look(41_000, 30), &[slow], 2.0);
        let words = |head: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.trim_start().starts_with(head));
            line.unwrap_or_else(|| panic!("{head}: {text}")).split_whitespace().map(str::to_owned).collect()
        };
        assert!(
            text.starts_with("haypile 0.1.0 at here:1, up 1h2m, 1 cores, 1 shards\n20.0k commands/s"),
            "{text}"
        );
        assert_eq!(words("0       20.0k")[..], ["0", "20.0k", "0", "0", "0", "12.0", "ms", "5"]);
        assert_eq!(words("get")[..6], ["get", "10", "1", "us", "1", "us"]);
        assert_eq!(words("3 ")[1..5], ["10s", "15.0", "ms", "wait"]);
        assert!(words("0     0")[2] == "12.0k", "{text}");
    }

    #[test]
    fn a_server_that_says_little_is_no_panic() {
        let text = draw("x", &Snapshot::parse(""), &Snapshot::parse("core99999999:a=1\r\nfoo"), &[], 1.0);
        assert!(text.contains("haypile ? at x"));
    }
}

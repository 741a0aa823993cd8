//! The lines of INFO, section by section: Redis's names for what exists here and is true, nothing else.
//! Pure: figures in, text out (apart from /proc, which tells of the process).

use super::Tables;
use crate::front::admin::{REDIS_VERSION, process, server};
use crate::front::node::{KeyCount, Node};
use crate::metrics::CoreStats;
use crate::metrics::commands::CommandStats;
use crate::resp::args::Args;
use crate::slot::SlotHash;
use std::fmt::Write;

/// Writes one section, its title first.
type Section = fn(&Figures<'_>, &mut Lines);

/// In the order in which INFO prints them, whatever the order they are asked for in.
const SECTIONS: [(&str, Section); 14] = [
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("modules", modules),
    ("commandstats", commandstats),
    ("errorstats", errorstats),
    ("latencystats", latencystats),
    ("cluster", cluster),
    ("haypile", haypile),
    ("keyspace", |figures, lines| lines.keyspace(figures.tables)),
];

/// As in Redis, these are shown when asked for only.
const UNUSUAL: [&str; 2] = ["commandstats", "latencystats"];

/// The sections that a call asks for; unknown ones are nothing.
pub fn wanted(args: &Args<'_>) -> Vec<&'static str> {
    let said = |words: &[&str]| (1..args.len()).any(|at| words.iter().any(|word| args.is(at, word)));
    let usual = args.len() == 1 || said(&["default"]);
    let every = said(&["all", "everything"]);
    let names = SECTIONS.iter().map(|(name, _)| *name);
    names.filter(|name| every || (usual && !UNUSUAL.contains(name)) || said(&[name])).collect()
}

/// What the lines are made of.
pub struct Figures<'a> {
    pub node: &'a Node,
    pub now_ms: u64,
    pub total: &'a CoreStats,
    /// By core.
    pub cores: &'a [CoreStats],
    pub tables: &'a Tables,
    pub commands: &'a CommandStats,
}

impl Figures<'_> {
    /// The sections named, an empty line between them.
    pub fn text(&self, wanted: &[&'static str]) -> String {
        let mut lines = Lines::default();
        for (name, write) in SECTIONS {
            if wanted.contains(&name) {
                if !lines.0.is_empty() {
                    lines.0.push_str("\r\n");
                }
                write(self, &mut lines);
            }
        }
        lines.0
    }

    fn is_cluster(&self) -> bool {
        self.node.hash == SlotHash::Crc16
    }
}

/// The keyspace section alone.
pub fn keyspace(tables: &Tables) -> String {
    let mut lines = Lines::default();
    lines.keyspace(tables);
    lines.0
}

/// What INFO keyspace 1 answers: when the last count began and how long it took, in Pika's words, and
/// what the last one that ended has found.
pub fn key_count(count: &KeyCount) -> String {
    let mut lines = Lines::default();
    lines.title("Keyspace");
    lines.title(&format!("Time:{}", date_and_time(count.started_ms / 1000)));
    lines.title(&match (count.running, count.duration_ms) {
        (true, _) => "Duration: In Processing".into(),
        (false, Some(duration_ms)) => format!("Duration: {}s", duration_ms / 1000),
        (false, None) => "Duration: In Waiting".into(),
    });
    lines.tables(&count.tables);
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn title(&mut self, title: &str) {
        self.0.push_str(&format!("# {title}\r\n"));
    }

    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.0, "{name}:{value}\r\n").expect("a string takes everything");
    }

    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human(bytes));
    }

    fn keyspace(&mut self, tables: &Tables) {
        self.title("Keyspace");
        self.tables(tables);
    }

    fn tables(&mut self, tables: &Tables) {
        for (table, keys) in tables {
            self.field(&format!("db{}", table.0), format!("keys={},expires={}", keys.keys, keys.expires));
        }
    }
}

fn server(figures: &Figures<'_>, lines: &mut Lines) {
    let node = figures.node;
    let uptime_s = figures.now_ms.saturating_sub(node.started_ms) / 1000;
    lines.title("Server");
    lines.field("redis_version", REDIS_VERSION);
    lines.field("haypile_version", env!("CARGO_PKG_VERSION"));
    lines.field("redis_mode", if figures.is_cluster() { "cluster" } else { "standalone" });
    lines.field("os", process::system());
    lines.field("arch_bits", usize::BITS);
    lines.field("multiplexing_api", "io_uring");
    lines.field("process_id", std::process::id());
    lines.field("run_id", &node.run_id);
    lines.field("tcp_port", node.config.port);
    lines.field("server_time_usec", server::wall_clock().as_micros());
    lines.field("uptime_in_seconds", uptime_s);
    lines.field("uptime_in_days", uptime_s / (24 * 3600));
    let file = node.config_file.as_ref().map(|file| file.display().to_string());
    lines.field("config_file", file.unwrap_or_default());
}

fn clients(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Clients");
    lines.field("connected_clients", figures.total.connections_now);
    lines.field("maxclients", figures.node.config.maxclients);
    lines.field("blocked_clients", 0);
}

fn memory(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Memory");
    if let Some(resident) = process::resident_bytes() {
        lines.bytes("used_memory", resident);
        lines.bytes("used_memory_rss", resident);
    }
    if let Some(machine) = process::machine_bytes() {
        lines.bytes("total_system_memory", machine);
    }
    lines.bytes("maxmemory", figures.node.config.memory_budget);
    lines.field("maxmemory_policy", "noeviction");
    lines.field("mem_clients_normal", figures.total.query_buffer_bytes + figures.total.output_buffer_bytes);
    lines.field("mem_allocator", "jemalloc");
}

fn persistence(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Persistence");
    lines.field("loading", 0);
    lines.field("async_loading", 0);
    lines.field("rdb_bgsave_in_progress", 0);
    lines.field("rdb_last_save_time", figures.node.last_save_s);
    lines.field("aof_enabled", 1);
    lines.field("aof_rewrite_in_progress", 0);
    // A write that fails ends the process, so one that answers has had none.
    lines.field("aof_last_write_status", "ok");
}

fn stats(figures: &Figures<'_>, lines: &mut Lines) {
    let total = figures.total;
    lines.title("Stats");
    lines.field("total_connections_received", total.connections_received);
    lines.field("total_commands_processed", total.commands);
    lines.field("instantaneous_ops_per_sec", total.ops_per_second);
    lines.field("total_net_input_bytes", total.input_bytes);
    lines.field("total_net_output_bytes", total.output_bytes);
    lines.field("rejected_connections", total.connections_rejected);
    lines.field("expired_keys", total.expired_keys);
    lines.field("evicted_keys", 0);
    lines.field("keyspace_hits", total.keyspace_hits);
    lines.field("keyspace_misses", total.keyspace_misses);
    lines.field("total_error_replies", total.error_replies);
}

/// There are no replicas in this version: a primary that nobody follows.
fn replication(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Replication");
    lines.field("role", "master");
    lines.field("connected_slaves", 0);
    lines.field("master_failover_state", "no-failover");
    lines.field("master_replid", &figures.node.run_id);
    lines.field("master_replid2", "0".repeat(40));
    lines.field("master_repl_offset", 0);
    lines.field("second_repl_offset", -1);
    lines.field("repl_backlog_active", 0);
}

fn cpu(_: &Figures<'_>, lines: &mut Lines) {
    lines.title("CPU");
    if let Some(time) = process::cpu_time() {
        lines.field("used_cpu_sys", format!("{:.6}", time.system));
        lines.field("used_cpu_user", format!("{:.6}", time.user));
        lines.field("used_cpu_sys_children", format!("{:.6}", time.system_children));
        lines.field("used_cpu_user_children", format!("{:.6}", time.user_children));
    }
}

fn modules(_: &Figures<'_>, lines: &mut Lines) {
    lines.title("Modules");
}

fn commandstats(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Commandstats");
    for (name, stat) in figures.commands.sorted() {
        let usec = stat.nanos / 1000;
        let per_call = usec as f64 / stat.calls.max(1) as f64;
        let (calls, rejected, failed) = (stat.calls, stat.rejected, stat.failed);
        let text = format!(
            "calls={calls},usec={usec},usec_per_call={per_call:.2},rejected_calls={rejected},failed_calls={failed}"
        );
        lines.field(&format!("cmdstat_{name}"), text);
    }
}

fn latencystats(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Latencystats");
    for (name, stat) in figures.commands.sorted().into_iter().filter(|(_, stat)| stat.calls > 0) {
        let at = |quantile| stat.latency_us.value_at_quantile(quantile) as f64;
        let text = format!("p50={:.3},p99={:.3},p99.9={:.3}", at(0.5), at(0.99), at(0.999));
        lines.field(&format!("latency_percentiles_usec_{name}"), text);
    }
}

/// Errors are counted, but not by their kinds: see total_error_replies.
fn errorstats(_: &Figures<'_>, lines: &mut Lines) {
    lines.title("Errorstats");
}

fn cluster(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Cluster");
    lines.field("cluster_enabled", u8::from(figures.is_cluster()));
}

/// Ours: what the cores do and hold, together and each.
fn haypile(figures: &Figures<'_>, lines: &mut Lines) {
    let total = figures.total;
    lines.title("Haypile");
    lines.field("cores", figures.node.cores);
    lines.field("shards", figures.node.map.shards().count());
    lines.field("slots", figures.node.map.slots());
    lines.field("hops", total.hops);
    lines.field("connections_moved", total.connections_moved);
    lines.field("cold_reads", total.cold_reads);
    lines.field("long_commands", total.long_commands);
    lines.field("turns", total.turns);
    lines.field("turn_max_us", total.turn_max_us);
    lines.field("log_bytes", total.log_bytes);
    lines.field("log_writes", total.log_writes);
    lines.field("log_syncs", total.log_syncs);
    lines.field("log_write_max_us", total.log_write_max_us);
    lines.field("frames", total.frames);
    lines.field("memtable_switches", total.memtable_switches);
    lines.field("memtable_bytes", total.memtable_bytes);
    lines.field("hot_cache_bytes", total.hot_cache_bytes);
    lines.field("query_buffer_bytes", total.query_buffer_bytes);
    lines.field("output_buffer_bytes", total.output_buffer_bytes);
    for (number, core) in figures.cores.iter().enumerate() {
        lines.field(
            &format!("core{number}"),
            format!(
                "commands={},ops_per_second={},connections={},hops={},turns={},turn_max_us={},\
                 cold_reads={},long_commands={},log_bytes={},log_syncs={},log_write_max_us={},\
                 memtable_bytes={},hot_cache_bytes={}",
                core.commands,
                core.ops_per_second,
                core.connections_now,
                core.hops,
                core.turns,
                core.turn_max_us,
                core.cold_reads,
                core.long_commands,
                core.log_bytes,
                core.log_syncs,
                core.log_write_max_us,
                core.memtable_bytes,
                core.hot_cache_bytes,
            ),
        );
    }
}

/// Redis's form of a size: two digits behind the point, one letter.
fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut units = ["K", "M", "G", "T"].into_iter();
    let mut unit = units.next().expect("there are four");
    for larger in units {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    format!("{size:.2}{unit}")
}

/// A moment in UTC; the calendar is Howard Hinnant's civil_from_days.
fn date_and_time(epoch_s: u64) -> String {
    let (day, second) = (epoch_s / 86_400, epoch_s % 86_400);
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_redis() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1_287_744, "1.23M"),
            (12_427_264, "11.85M"),
            (25_276_514_304, "23.54G"),
            (32_768, "32.00K"),
            (1 << 52, "4096.00T"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // From `date -u -d @N`.
        for (epoch_s, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_700_000_060, "2023-11-14 22:14:20"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date_and_time(epoch_s), text);
        }
    }
}

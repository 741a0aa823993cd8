//! The lines of INFO, section by section: Redis's names for what exists here and is true, nothing else.
//! Pure: figures in, text out (apart from /proc, which tells of the process).

use super::{Tables, replication};
use crate::front::admin::{REDIS_VERSION, process, server};
use crate::front::node::{KeyCount, Node};
use crate::metrics::CoreStats;
use crate::metrics::commands::CommandStats;
use crate::resp::args::Args;
use crate::slot::{ShardId, SlotHash};
use std::fmt::Write;

/// Writes one section, its title first.
type Section = fn(&Figures<'_>, &mut Lines);

/// In the order in which INFO prints them, whatever the order they are asked for in.
const SECTIONS: [(&str, Section); 16] = [
    ("server", server),
    ("data", data),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication::lines),
    ("cpu", cpu),
    ("modules", modules),
    ("commandstats", commandstats),
    ("command_exec_count", command_exec_count),
    ("errorstats", errorstats),
    ("latencystats", latencystats),
    ("cluster", cluster),
    ("haypile", haypile),
    ("keyspace", |figures, lines| lines.keyspace(figures.tables)),
];

/// As in Redis, these are shown when asked for only.
const UNUSUAL: [&str; 3] = NEED_COMMANDS;

/// Made of the figures by command.
pub const NEED_COMMANDS: [&str; 3] = ["commandstats", "latencystats", "command_exec_count"];

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
    /// INFO keyspace 1 counts at the moment.
    pub counting: bool,
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
pub(super) struct Lines(String);

impl Lines {
    pub fn title(&mut self, title: &str) {
        self.0.push_str(&format!("# {title}\r\n"));
    }

    pub fn field(&mut self, name: &str, value: impl std::fmt::Display) {
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
    lines.field("redis_git_sha1", "00000000");
    lines.field("redis_git_dirty", 0);
    // For Pika's tools: what they know of versions is older than this program.
    lines.field("pika_version", "3.4.0");
    lines.field("redis_mode", if figures.is_cluster() { "cluster" } else { "standalone" });
    lines.field("os", process::system());
    lines.field("arch_bits", usize::BITS);
    lines.field("multiplexing_api", "io_uring");
    lines.field("process_id", std::process::id());
    lines.field("process_supervised", "no");
    lines.field("run_id", &node.run_id);
    lines.field("tcp_port", node.config.port);
    lines.field("thread_num", node.cores);
    lines.field("server_id", &node.run_id);
    lines.field("server_time_usec", server::wall_clock().as_micros());
    lines.field("uptime_in_seconds", uptime_s);
    lines.field("uptime_in_days", uptime_s / (24 * 3600));
    let file = node.config_file.as_ref().map(|file| file.display().to_string());
    lines.field("config_file", file.unwrap_or_default());
    let executable = std::env::current_exe().map(|path| path.display().to_string());
    lines.field("executable", executable.unwrap_or_default());
    lines.field("io_threads_active", 0);
}

/// Pika's, of all shards together.
fn data(figures: &Figures<'_>, lines: &mut Lines) {
    let total = figures.total;
    lines.title("Data");
    lines.bytes("db_size", total.sum(|shard| shard.files.live_bytes));
    lines.bytes("log_size", total.sum(|shard| shard.log_file_bytes));
    lines.field("compression", "lz4");
    lines.field("db_memtable_usage", total.sum(|shard| shard.files.memtable_bytes));
    lines.field("db_tablereader_usage", total.sum(|shard| shard.files.table_reader_bytes));
    let failed: Vec<String> = total
        .shards
        .iter()
        .filter(|shard| shard.files.background_errors > 0)
        .map(|shard| format!("shard{}", shard.shard))
        .collect();
    lines.field("db_fatal", u8::from(!failed.is_empty()));
    lines.field("db_fatal_msg", if failed.is_empty() { "NULL".to_owned() } else { failed.join(",") });
}

fn clients(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Clients");
    lines.field("connected_clients", figures.total.connections_now);
    lines.field("cluster_connections", 0);
    lines.field("maxclients", figures.node.config.maxclients);
    lines.field("blocked_clients", figures.total.blocked_clients);
    lines.field("tracking_clients", 0);
}

fn memory(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Memory");
    let heap = process::heap();
    lines.bytes("used_memory", heap.allocated_bytes);
    if let Some(resident) = process::resident_bytes() {
        lines.bytes("used_memory_rss", resident);
    }
    if let Some(peak) = process::peak_bytes() {
        lines.bytes("used_memory_peak", peak);
    }
    lines.field("allocator_allocated", heap.allocated_bytes);
    lines.field("allocator_active", heap.active_bytes);
    lines.field("allocator_resident", heap.resident_bytes);
    let per_byte = heap.resident_bytes as f64 / heap.allocated_bytes.max(1) as f64;
    lines.field("mem_fragmentation_ratio", format!("{per_byte:.2}"));
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
    lines.field("rdb_last_save_time", figures.node.last_save_s);
    lines.field("rdb_changes_since_last_save", unsaved(figures));
    lines.field("rdb_bgsave_in_progress", 0);
    lines.field("rdb_last_bgsave_status", "ok");
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
    lines.field("expire_lag_ms", total.expire_lag_ms);
    lines.field("expired_subkeys", total.expired_fields);
    lines.field("evicted_keys", 0);
    lines.field("is_bgsaving", "No");
    lines.field("is_scaning_keyspace", if figures.counting { "Yes" } else { "No" });
    let compacts = total.sum(|shard| shard.files.running_compactions) > 0;
    lines.field("is_compact", if compacts { "Yes" } else { "No" });
    lines.field("slow_logs_count", total.slow_logged);
    lines.field("keyspace_hits", total.keyspace_hits);
    lines.field("keyspace_misses", total.keyspace_misses);
    lines.field("total_error_replies", total.errors.total());
}

/// Records that no memtable's file holds yet: what a start would replay.
fn unsaved(figures: &Figures<'_>) -> u64 {
    figures.total.sum(|shard| shard.written_lsn.saturating_sub(shard.persisted_lsn))
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
        let (calls, usec) = (stat.times.count(), stat.times.nanos() / 1000);
        let per_call = usec as f64 / calls.max(1) as f64;
        let (rejected, failed) = (stat.rejected, stat.failed);
        let text = format!(
            "calls={calls},usec={usec},usec_per_call={per_call:.2},rejected_calls={rejected},failed_calls={failed}"
        );
        lines.field(&format!("cmdstat_{name}"), text);
    }
}

/// Pika's.
fn command_exec_count(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Command_Exec_Count");
    for (name, stat) in figures.commands.sorted() {
        lines.field(&name.to_ascii_uppercase(), stat.times.count());
    }
}

fn latencystats(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Latencystats");
    for (name, stat) in figures.commands.sorted().into_iter().filter(|(_, stat)| stat.times.count() > 0) {
        let at = |quantile| stat.times.at_quantile(quantile) as f64;
        let text = format!("p50={:.3},p99={:.3},p99.9={:.3}", at(0.5), at(0.99), at(0.999));
        lines.field(&format!("latency_percentiles_usec_{name}"), text);
    }
}

fn errorstats(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Errorstats");
    for (kind, count) in figures.total.errors.kinds() {
        lines.field(&format!("errorstat_{kind}"), format!("count={count}"));
    }
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
    let log = total.log();
    lines.field("log_bytes", log.bytes);
    lines.field("log_writes", log.writes);
    lines.field("log_syncs", log.syncs);
    lines.field("log_write_max_us", log.write_max_us);
    lines.field("frames", log.frames);
    lines.field("memtable_switches", log.memtable_switches);
    lines.field("memtable_bytes", total.sum(|shard| shard.files.memtable_bytes));
    lines.field("hot_cache_bytes", total.sum(|shard| shard.hot_cache_bytes));
    lines.field("garbage_waiting", total.sum(|shard| shard.garbage.waiting));
    lines.field("garbage_freed", total.sum(|shard| shard.garbage.freed));
    lines.field("garbage_left", total.sum(|shard| shard.garbage.left));
    lines.field("file_bytes", total.sum(|shard| shard.files.live_bytes));
    lines.field("query_buffer_bytes", total.query_buffer_bytes);
    lines.field("output_buffer_bytes", total.output_buffer_bytes);
    for (number, core) in figures.cores.iter().enumerate() {
        lines.field(
            &format!("core{number}"),
            format!(
                "commands={},ops_per_second={},connections={},hops={},turns={},turn_max_us={},\
                 cold_reads={},long_commands={}",
                core.commands,
                core.ops_per_second,
                core.connections_now,
                core.hops,
                core.turns,
                core.turn_max_us,
                core.cold_reads,
                core.long_commands,
            ),
        );
    }
    let mut shards: Vec<_> = total.shards.iter().collect();
    shards.sort_by_key(|shard| shard.shard);
    for shard in shards {
        let files = &shard.files;
        lines.field(
            &format!("shard{}", shard.shard),
            format!(
                "core={},keys={},written_lsn={},durable_lsn={},persisted_lsn={},log_bytes={},log_writes={},\
                 log_syncs={},log_write_max_us={},memtable_bytes={},memtable_switches={},hot_cache_bytes={},\
                 file_bytes={},level0_files={},pending_compaction_bytes={},paced_at={},gated={}",
                figures.node.map.owner(ShardId(shard.shard)).0,
                shard.keys,
                shard.written_lsn,
                shard.durable_lsn,
                shard.persisted_lsn,
                shard.log.bytes,
                shard.log.writes,
                shard.log.syncs,
                shard.log.write_max_us,
                files.memtable_bytes,
                shard.log.memtable_switches,
                shard.hot_cache_bytes,
                files.live_bytes,
                files.level0_files,
                files.pending_compaction_bytes,
                shard.paced_at.unwrap_or(0.0) as u64,
                shard.gated,
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

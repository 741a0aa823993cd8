//! The page of metrics: which figures there are, under which names. The figures are the cores'.

use super::page::{Kind, Page};
use super::process;
use crate::limits::Ledger;
use crate::metrics::commands::CommandStat;
use crate::metrics::shard::ShardStats;
use crate::metrics::{CoreReport, CoreStats, TurnStage};
use crate::replica::status::{Follower, Link, SharedStatus, Status};
use crate::store::SharedMemory;
use std::sync::Arc;

/// What is known of the node apart from its cores.
pub struct Facts {
    pub ledger: Ledger,
    pub memory: SharedMemory,
    /// What the replication thread tells.
    pub replication: Arc<SharedStatus>,
}

type Figure<T> = (&'static str, Kind, &'static str, fn(&T) -> f64);

/// By core.
const CORE: &[Figure<CoreStats>] = &[
    ("haypile_connections", Kind::Gauge, "Client connections.", |core| core.connections_now as f64),
    ("haypile_connections_received_total", Kind::Counter, "Connections that came.", |core| {
        core.connections_received as f64
    }),
    ("haypile_connections_rejected_total", Kind::Counter, "Connections refused at maxclients.", |core| {
        core.connections_rejected as f64
    }),
    ("haypile_connections_moved_total", Kind::Counter, "Connections taken over from other cores.", |core| {
        core.connections_moved as f64
    }),
    ("haypile_commands_total", Kind::Counter, "Commands of the core's connections.", |core| {
        core.commands as f64
    }),
    ("haypile_hops_total", Kind::Counter, "Commands that another core ran.", |core| core.hops as f64),
    ("haypile_input_bytes_total", Kind::Counter, "Bytes received from clients.", |core| {
        core.input_bytes as f64
    }),
    ("haypile_output_bytes_total", Kind::Counter, "Bytes sent to clients.", |core| core.output_bytes as f64),
    ("haypile_keyspace_hits_total", Kind::Counter, "Look-ups that found a key.", |core| {
        core.keyspace_hits as f64
    }),
    ("haypile_keyspace_misses_total", Kind::Counter, "Look-ups that found none.", |core| {
        core.keyspace_misses as f64
    }),
    ("haypile_expired_keys_total", Kind::Counter, "Keys deleted because their time had come.", |core| {
        core.expired_keys as f64
    }),
    ("haypile_error_replies_total", Kind::Counter, "Errors answered.", |core| core.errors.total() as f64),
    ("haypile_turns_total", Kind::Counter, "Turns in which something was done.", |core| core.turns as f64),
    ("haypile_turn_max_seconds", Kind::Gauge, "Longest turn since the start or CONFIG RESETSTAT.", |core| {
        core.turn_max_us as f64 / 1e6
    }),
    ("haypile_cold_reads_total", Kind::Counter, "Commands that waited for the disk.", |core| {
        core.cold_reads as f64
    }),
    ("haypile_long_commands_total", Kind::Counter, "Commands that ran away from their core.", |core| {
        core.long_commands as f64
    }),
    ("haypile_query_buffer_bytes", Kind::Gauge, "Commands received in part.", |core| {
        core.query_buffer_bytes as f64
    }),
    ("haypile_output_buffer_bytes", Kind::Gauge, "Replies that wait for their client.", |core| {
        core.output_buffer_bytes as f64
    }),
];

/// By shard.
const SHARD: &[Figure<ShardStats>] = &[
    ("haypile_keys", Kind::Gauge, "Keys, estimated.", |shard| shard.keys as f64),
    ("haypile_log_written_lsn", Kind::Gauge, "Last LSN in the log.", |shard| shard.written_lsn as f64),
    ("haypile_log_durable_lsn", Kind::Gauge, "Last LSN that is on disk.", |shard| shard.durable_lsn as f64),
    ("haypile_persisted_lsn", Kind::Gauge, "Last LSN that is in RocksDB's files.", |shard| {
        shard.persisted_lsn as f64
    }),
    ("haypile_log_bytes_total", Kind::Counter, "Bytes written to the log.", |shard| shard.log.bytes as f64),
    ("haypile_log_commits_total", Kind::Counter, "Writes to the log, one a turn.", |shard| {
        shard.log.writes as f64
    }),
    ("haypile_log_frames_total", Kind::Counter, "Records in the log, one a command.", |shard| {
        shard.log.frames as f64
    }),
    ("haypile_log_syncs_total", Kind::Counter, "Times the log was synced.", |shard| shard.log.syncs as f64),
    (
        "haypile_log_write_max_seconds",
        Kind::Gauge,
        "Longest time a write of the log held its core, since the start or CONFIG RESETSTAT.",
        |shard| shard.log.write_max_us as f64 / 1e6,
    ),
    ("haypile_memtable_switches_total", Kind::Counter, "Times memtables were sealed.", |shard| {
        shard.log.memtable_switches as f64
    }),
    (
        "haypile_paced_writes_per_second",
        Kind::Gauge,
        "Writes let in while RocksDB is behind; 0: all.",
        |shard| shard.paced_at.unwrap_or(0.0),
    ),
    ("haypile_gated_commands", Kind::Gauge, "Writes that wait for RocksDB or the log.", |shard| {
        shard.gated as f64
    }),
    ("haypile_disk_full", Kind::Gauge, "1 while writes are refused for want of room.", |shard| {
        f64::from(u8::from(shard.full))
    }),
    ("haypile_hot_cache_bytes", Kind::Gauge, "Rows kept in memory in front of RocksDB.", |shard| {
        shard.hot_cache_bytes as f64
    }),
    ("haypile_memtable_bytes", Kind::Gauge, "RocksDB's memtables that are not sealed.", |shard| {
        shard.files.memtable_bytes as f64
    }),
    ("haypile_immutable_memtables", Kind::Gauge, "Sealed memtables that are not written out yet.", |shard| {
        shard.files.immutable_memtables as f64
    }),
    ("haypile_level0_files", Kind::Gauge, "Files of level 0, most in one column family.", |shard| {
        shard.files.level0_files as f64
    }),
    ("haypile_pending_compaction_bytes", Kind::Gauge, "What compaction has to rewrite.", |shard| {
        shard.files.pending_compaction_bytes as f64
    }),
    (
        "haypile_garbage_waiting",
        Kind::Gauge,
        "Large collections that are gone and whose space is not given back yet.",
        |shard| shard.garbage.waiting as f64,
    ),
    (
        "haypile_garbage_freed_total",
        Kind::Counter,
        "Large collections that are gone and whose space was given back.",
        |shard| shard.garbage.freed as f64,
    ),
    (
        "haypile_garbage_left_total",
        Kind::Counter,
        "Large collections that are gone and whose space comes back only when old files are rewritten.",
        |shard| shard.garbage.left as f64,
    ),
    ("haypile_running_compactions", Kind::Gauge, "Compactions at work.", |shard| {
        shard.files.running_compactions as f64
    }),
    ("haypile_running_flushes", Kind::Gauge, "Memtables being written out.", |shard| {
        shard.files.running_flushes as f64
    }),
    ("haypile_file_bytes", Kind::Gauge, "RocksDB's files that are read.", |shard| {
        shard.files.live_bytes as f64
    }),
    (
        "haypile_rocksdb_background_errors_total",
        Kind::Counter,
        "Flushes and compactions that failed.",
        |shard| shard.files.background_errors as f64,
    ),
];

/// The whole page.
pub fn page(facts: &Facts, reports: &[CoreReport]) -> String {
    let mut page = Page::default();
    node(&mut page, facts, reports);
    replication(&mut page, facts);
    for (name, kind, help, figure) in CORE {
        page.family(name, *kind, help);
        for (core, report) in reports.iter().enumerate() {
            page.sample(name, &[("core", &core)], figure(&report.stats));
        }
    }
    for (name, kind, help, figure) in SHARD {
        page.family(name, *kind, help);
        for (core, report) in reports.iter().enumerate() {
            for shard in &report.stats.shards {
                page.sample(name, &[("core", &core), ("shard", &shard.shard)], figure(shard));
            }
        }
    }
    times(&mut page, reports);
    commands(&mut page, reports);
    page.finish()
}

fn node(page: &mut Page, facts: &Facts, reports: &[CoreReport]) {
    page.family("haypile_build_info", Kind::Gauge, "1; the label says which version this is.");
    page.sample("haypile_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    page.family("haypile_memory_limit_bytes", Kind::Gauge, "How the memory budget is divided.");
    for (line, bytes) in facts.ledger.lines() {
        page.sample("haypile_memory_limit_bytes", &[("line", &line)], bytes);
    }
    let total =
        |figure: fn(&CoreStats) -> u64| reports.iter().map(|report| figure(&report.stats)).sum::<u64>();
    let memtables = facts.memory.memtable_bytes() as u64;
    let (buffers, bytes) = facts.ledger.receive_buffers_per_core();
    let used = [
        // RocksDB charges its memtables to the cache.
        ("block_cache", (facts.memory.cache_bytes() as u64).saturating_sub(memtables)),
        ("memtables", memtables),
        ("hot_cache", total(|core| core.sum(|shard| shard.hot_cache_bytes))),
        ("receive_rings", u64::from(buffers) * u64::from(bytes) * u64::from(facts.ledger.cores)),
        ("query_buffers", total(|core| core.query_buffer_bytes)),
        ("output_buffers", total(|core| core.output_buffer_bytes)),
    ];
    page.family("haypile_memory_used_bytes", Kind::Gauge, "Lines of the budget whose use is counted.");
    for (line, bytes) in used {
        page.sample("haypile_memory_used_bytes", &[("line", &line)], bytes);
    }
    process::samples(page);
}

fn replication(page: &mut Page, facts: &Facts) {
    let status = facts.replication.look().clone();
    page.family("haypile_published_records", Kind::Gauge, "Records of the logs that followers may have.");
    page.sample("haypile_published_records", &[], status.offset);
    page.family("haypile_copies_begun_total", Kind::Counter, "Copies of slots begun for followers.");
    page.sample("haypile_copies_begun_total", &[], status.copies_begun);
    let help = "Records that were kept and dropped because this node's primary did not have them.";
    page.family("haypile_dropped_records_total", Kind::Counter, help);
    page.sample("haypile_dropped_records_total", &[], status.dropped_records);
    let help = "Keys fetched from this node's primary because only they differed from what this node had.";
    page.family("haypile_rewound_keys_total", Kind::Counter, help);
    page.sample("haypile_rewound_keys_total", &[], status.rewound_keys);
    page.family("haypile_followers", Kind::Gauge, "Nodes that follow this one.");
    page.sample("haypile_followers", &[], status.followers.len());
    page.family("haypile_captures", Kind::Gauge, "Captures that read this node's logs: no replicas.");
    page.sample("haypile_captures", &[], status.captures.len());
    type Figure = (&'static str, &'static str, fn(&Follower) -> u64);
    let figures: [Figure; 3] = [
        ("haypile_follower_online", "1 once a follower has its copies.", |of| u64::from(of.online)),
        ("haypile_follower_behind_records", "Records that a follower has not acknowledged.", |of| of.behind),
        ("haypile_follower_behind_bytes", "Bytes sent to a follower and not acknowledged.", |of| {
            of.unacknowledged_bytes
        }),
    ];
    for (name, help, figure) in figures {
        page.family(name, Kind::Gauge, help);
        for of in &status.followers {
            page.sample(name, &[("ip", &of.ip), ("port", &of.port)], figure(of));
        }
    }
    page.family("haypile_follows", Kind::Gauge, "1 while this node follows another.");
    page.sample("haypile_follows", &[], u8::from(status.following.is_some()));
    page.family("haypile_link_up", Kind::Gauge, "1 while the link to the node it follows is up.");
    if let Some(following) = &status.following {
        page.sample("haypile_link_up", &[], u8::from(following.link == Link::Connected));
    }
    slots(page, &status);
}

/// Of a node in sharding mode.
fn slots(page: &mut Page, status: &Status) {
    let Some(slots) = &status.slots else { return };
    page.family("haypile_slots", Kind::Gauge, "Slots by what this node is to them.");
    page.sample("haypile_slots", &[("role", &"primary")], slots.primary);
    page.sample("haypile_slots", &[("role", &"follower")], slots.followed);
    page.family(
        "haypile_slot_link_up",
        Kind::Gauge,
        "1 while the link to a node whose slots it follows is up.",
    );
    for (link, _) in &slots.links {
        let up = u8::from(link.link == Link::Connected);
        page.sample("haypile_slot_link_up", &[("ip", &link.host), ("port", &link.port)], up);
    }
}

fn times(page: &mut Page, reports: &[CoreReport]) {
    let name = "haypile_turn_stage_seconds";
    page.family(name, Kind::Histogram, "Parts of turns: sockets, commands, log and memtables, replies.");
    for (core, report) in reports.iter().enumerate() {
        for (stage, times) in TurnStage::ALL.iter().zip(&report.times.turns) {
            page.histogram(name, &[("core", &core), ("stage", &stage.name())], times);
        }
    }
    let name = "haypile_cold_wait_seconds";
    page.family(name, Kind::Histogram, "How long commands waited for the disk.");
    for (core, report) in reports.iter().enumerate() {
        page.histogram(name, &[("core", &core)], &report.times.cold_waits);
    }
    let name = "haypile_log_sync_seconds";
    page.family(name, Kind::Histogram, "How long syncs of the log took.");
    for (core, report) in reports.iter().enumerate() {
        for (shard, times) in &report.times.syncs {
            page.histogram(name, &[("core", &core), ("shard", shard)], times);
        }
    }
}

fn commands(page: &mut Page, reports: &[CoreReport]) {
    let name = "haypile_command_seconds";
    page.family(name, Kind::Histogram, "Commands by name, from when their core turned to them to the reply.");
    for (core, report) in reports.iter().enumerate() {
        for (command, stat) in report.commands.sorted() {
            page.histogram(name, &[("core", &core), ("command", &command)], &stat.times);
        }
    }
    type Count = (&'static str, &'static str, fn(&CommandStat) -> u64);
    let counts: [Count; 2] = [
        ("haypile_command_failed_total", "Commands answered with an error when they ran.", |stat| {
            stat.failed
        }),
        ("haypile_command_rejected_total", "Commands refused before they ran.", |stat| stat.rejected),
    ];
    for (name, help, count) in counts {
        page.family(name, Kind::Counter, help);
        for (core, report) in reports.iter().enumerate() {
            for (command, stat) in report.commands.sorted() {
                page.sample(name, &[("core", &core), ("command", &command)], count(stat));
            }
        }
    }
}

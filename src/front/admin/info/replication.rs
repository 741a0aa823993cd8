//! INFO's section about who follows whom: Redis's lines, and Pika's where they say nothing else than Redis's.
//!
//! Pika's are for its tools (the dashboard of its Codis, pika_exporter): forms of its versions 3.5 and 4. Pure:
//! figures in, text out.

use super::sections::{Figures, Lines};
use crate::replica::status::{Follower, Following, Link, Status};

pub(super) fn lines(figures: &Figures<'_>, lines: &mut Lines) {
    lines.title("Replication");
    let status = figures.node.status();
    lines.field("role", role(&status));
    let of_primary = status.following.as_ref().and_then(|following| following.node);
    let replication_id =
        of_primary.map_or(figures.node.run_id.clone(), |id| String::from_utf8_lossy(&id).into_owned());
    lines.field("ReplicationID", replication_id);
    if let Some(following) = &status.following {
        following_lines(figures, following, lines);
    }
    if let Some(slots) = &status.slots {
        lines.field("slots_primary", slots.primary);
        lines.field("slots_followed", slots.followed);
        for (at, (link, count)) in slots.links.iter().enumerate() {
            let Following { host, port, link, behind, .. } = link;
            lines.field(
                &format!("slot_link{at}"),
                format_args!("ip={host},port={port},slots={count},state={},behind={behind}", link.word()),
            );
        }
    }
    lines.field("connected_slaves", status.followers.len());
    if figures.node.config.min_replicas_to_write > 0 {
        let max_lag_ms = u64::from(figures.node.config.min_replicas_max_lag_s) * 1000;
        let good = status.followers.iter().filter(|follower| follower.is_good(figures.now_ms, max_lag_ms));
        lines.field("min_slaves_good_slaves", good.count());
    }
    let slaves = status.followers.iter().enumerate().map(|follower| ("slave", follower));
    let captures = status.captures.iter().enumerate().map(|follower| ("capture", follower));
    for (name, (at, follower)) in slaves.chain(captures) {
        let lag_s = figures.now_ms.saturating_sub(follower.acknowledged_ms) / 1000;
        let state = if follower.online { "online" } else { "send_bulk" };
        let Follower { ip, port, offset, .. } = follower;
        lines.field(
            &format!("{name}{at}"),
            format_args!("ip={ip},port={port},state={state},offset={offset},lag={lag_s}"),
        );
    }
    lines.field("master_failover_state", status.failover.word());
    lines.field("master_replid", &figures.node.run_id);
    lines.field("master_replid2", "0".repeat(40));
    lines.field("master_repl_offset", status.offset);
    lines.field("second_repl_offset", -1);
    lines.field("repl_backlog_active", 1);
    lines.field("copies_begun", status.copies_begun);
    lines.field("dropped_tails", status.dropped_tails);
    lines.field("dropped_records", status.dropped_records);
    lines.field("rewound_slots", status.rewound_slots);
    lines.field("rewound_keys", status.rewound_keys);
    pikas_position(figures, &status, lines);
}

/// In sharding mode in Pika's words: a node may be both.
fn role(status: &Status) -> &'static str {
    match (&status.following, &status.slots) {
        (Some(_), _) => "slave",
        (None, Some(slots)) if slots.followed > 0 && slots.primary > 0 => "master&&slave",
        (None, Some(slots)) if slots.followed > 0 => "slave",
        _ => "master",
    }
}

fn following_lines(figures: &Figures<'_>, following: &Following, lines: &mut Lines) {
    let up = following.link == Link::Connected;
    let seconds_since = |ms: u64| match ms {
        0 => -1,
        ms => (figures.now_ms.saturating_sub(ms) / 1000) as i64,
    };
    lines.field("master_host", &following.host);
    lines.field("master_port", following.port);
    lines.field("master_link_status", if up { "up" } else { "down" });
    lines.field("repl_connect_status", "");
    lines.field("db0", connect_status(following));
    lines.field("master_last_io_seconds_ago", seconds_since(following.last_heard_ms));
    lines.field("master_sync_in_progress", u8::from(following.link == Link::Sync));
    if following.link == Link::Sync {
        lines.field("master_sync_slots_copied", following.slots_copied);
        lines.field("master_sync_slots_to_copy", following.slots_to_copy);
    }
    if !up {
        lines.field("master_link_down_since_seconds", seconds_since(following.down_since_ms));
    }
    lines.field("slave_read_repl_offset", following.offset + following.behind);
    lines.field("slave_priority", figures.node.config.replica_priority);
    lines.field("slave_read_only", 1);
    lines.field("replica_announced", 1);
    if following.is_redis {
        lines.field("redis_stream_errors", following.redis_stream_errors);
    }
    if let Some(error) = &following.last_error {
        lines.field("master_link_last_error", error);
    }
}

/// Pika's word for the link of a database: all of them have the one link here.
fn connect_status(following: &Following) -> &'static str {
    match following.link {
        Link::Connected => "connected",
        Link::Sync => "syncing_full",
        Link::Handshake => "try_to_incr_sync",
        Link::Connecting => "connecting",
        Link::Connect if following.last_error.is_some() => "error",
        Link::Connect => "no_connect",
    }
}

/// How far this node is, as Pika's tools and Redis's sentinel compare replicas: in records of the primary's logs.
/// A number of a file is a number of a record here, for `PURGELOGSTO`.
fn pikas_position(figures: &Figures<'_>, status: &Status, lines: &mut Lines) {
    let following = status.following.as_ref();
    lines.field("is_eligible_for_master_election", following.is_none_or(|following| following.complete));
    let offset = following.map_or(status.offset, |following| following.offset);
    let shards = || figures.total.shards.iter();
    let most = shards().map(|shard| shard.purgeable_lsn).max().unwrap_or(0);
    let purgeable = shards().map(|shard| shard.first_needed_lsn).fold(most, u64::min);
    let any = shards().any(|shard| (1..=purgeable).contains(&shard.purgeable_lsn));
    let purge = if any { format!("write2file{purgeable}") } else { "none".to_owned() };
    lines.field("db0", format_args!("binlog_offset=0 {offset},safety_purge={purge}"));
    lines.field("slave_repl_offset", offset);
}

#[cfg(test)]
mod tests {
    use crate::front::admin::testing::Bench;
    use crate::metrics::CoreStats;
    use crate::metrics::shard::ShardStats;
    use crate::replica::status::{Following, Link, Status};
    use crate::shard::mesh::{Ask, Tell};

    fn info(bench: &mut Bench, purgeable: &[(u64, u64)]) -> String {
        let shard = |&(purgeable_lsn, first_needed_lsn): &(u64, u64)| ShardStats {
            purgeable_lsn,
            first_needed_lsn,
            ..ShardStats::default()
        };
        let stats = CoreStats { shards: purgeable.iter().map(shard).collect(), ..CoreStats::default() };
        bench.run_with("INFO replication", |ask| {
            assert!(matches!(ask, Ask::Stats));
            vec![Tell::Stats(Box::new(stats.clone()))]
        })
    }

    #[test]
    fn pikas_tools_find_their_lines() {
        let mut bench = Bench::new();
        bench.set_status(Status { offset: 77, ..Status::default() });
        let text = info(&mut bench, &[(0, 7), (0, u64::MAX)]);
        assert!(text.contains("\r\nis_eligible_for_master_election:true\r\n"), "{text}");
        assert!(
            text.contains("\r\ndb0:binlog_offset=0 77,safety_purge=none\r\nslave_repl_offset:77\r\n"),
            "{text}"
        );
        assert!(text.contains("\r\nmaster_failover_state:no-failover\r\n"), "{text}");
        let id = *b"0123456789012345678901234567890123456789";
        let mut following = Following { node: Some(id), offset: 5, ..Following::default() };
        for (link, word) in [
            (Link::Connect, "no_connect"),
            (Link::Connecting, "connecting"),
            (Link::Handshake, "try_to_incr_sync"),
            (Link::Sync, "syncing_full"),
            (Link::Connected, "connected"),
        ] {
            following.link = link;
            bench.set_status(Status { following: Some(following.clone()), offset: 77, ..Status::default() });
            let text = info(&mut bench, &[(0, u64::MAX), (40, 90), (20, 30)]);
            assert!(text.contains(&format!("\r\nrepl_connect_status:\r\ndb0:{word}\r\n")), "{text}");
            assert!(
                text.contains("\r\nReplicationID:0123456789012345678901234567890123456789\r\n"),
                "{text}"
            );
            assert!(text.contains("\r\nis_eligible_for_master_election:false\r\n"), "{text}");
            assert!(text.contains("\r\ndb0:binlog_offset=0 5,safety_purge=write2file30\r\n"), "{text}");
        }
    }
}

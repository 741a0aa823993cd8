//! CLUSTER: this node as a Redis Cluster in which every core is a node with a port of its own.
//! So an ordinary cluster client sends each command to the core that owns its key. In sharding mode other nodes are
//! shown with the slots that they are known to have.

use super::keys::names;
use super::server::count;
use super::{Sub, help, is_cluster, ok_or_error, one_told, run_subcommand, spec};
use crate::command::Group::Cluster;
use crate::command::Spec;
use crate::command::flag::{FAST, LOADING, STALE};
use crate::error::ClientError;
use crate::front::node::{CoreAddress, Node};
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::Ask;
use crate::slot::assignment::{Assignment, Peer, Role};
use crate::slot::set::{self, SlotSet};
use crate::slot::{CLUSTER_SLOTS, CoreId, Slot, TableId};
use std::borrow::Cow;
use std::collections::BTreeMap;

const PER_NODE: &str = "O(N) where N is the number of cores";

pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand {
        spec: Spec {
            subcommands: &[
                spec(Cluster, "slots", 2, STALE, "3.0.0", PER_NODE, "Answers which core owns which slots"),
                spec(Cluster, "shards", 2, STALE, "7.0.0", PER_NODE, "Answers the cores and their slots"),
                spec(Cluster, "nodes", 2, STALE, "3.0.0", PER_NODE, "Answers the cores, a line for each"),
                spec(Cluster, "info", 2, STALE, "3.0.0", "O(1)", "Answers the state of the cluster"),
                spec(
                    Cluster,
                    "keyslot",
                    3,
                    STALE,
                    "3.0.0",
                    "O(N) where N is the key's length",
                    "Answers a key's slot",
                ),
                spec(
                    Cluster,
                    "countkeysinslot",
                    3,
                    STALE,
                    "3.0.0",
                    "O(N) where N is the number of keys in the slot",
                    "Counts the keys of a slot",
                ),
                spec(
                    Cluster,
                    "getkeysinslot",
                    4,
                    STALE,
                    "3.0.0",
                    "O(N) where N is the number of keys asked for",
                    "Answers some keys of a slot",
                ),
                spec(Cluster, "myid", 2, STALE, "3.0.0", "O(1)", "Answers the id of the connection's core"),
                spec(Cluster, "links", 2, STALE, "7.0.0", "O(1)", "Answers the links to other nodes: none"),
                spec(Cluster, "help", 2, LOADING | STALE, "5.0.0", "O(1)", "Prints this help"),
            ],
            ..spec(Cluster, "cluster", -2, 0, "3.0.0", "Depends on subcommand.", "Commands about the cluster")
        },
        run: cluster,
    },
    FrontCommand {
        spec: spec(
            Cluster,
            "readonly",
            1,
            LOADING | STALE | FAST,
            "3.0.0",
            "O(1)",
            "Allows reads from replicas",
        ),
        run: readonly,
    },
    FrontCommand {
        spec: spec(Cluster, "readwrite", 1, LOADING | STALE | FAST, "3.0.0", "O(1)", "Ends READONLY"),
        run: readwrite,
    },
    FrontCommand {
        spec: spec(Cluster, "asking", 1, FAST, "3.0.0", "O(1)", "Announces a command for a slot that moves"),
        run: asking,
    },
];

pub(super) const SUBS: &[Sub] = &[
    ("slots", slots),
    ("shards", shards),
    ("nodes", nodes),
    ("info", info),
    ("keyslot", keyslot),
    ("countkeysinslot", countkeysinslot),
    ("getkeysinslot", getkeysinslot),
    ("myid", myid),
    ("links", links),
    ("help", print_help),
];

const DISABLED: ClientError = ClientError::fixed("ERR This instance has cluster support disabled");
/// Most keys one GETKEYSINSLOT answers, whatever it is asked for.
const KEYS_IN_SLOT_MAX: usize = 10_000;

fn cluster(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    enabled(ctx)?;
    run_subcommand(SUBS, ctx, args)
}

/// Whether slots are a client's business here.
fn enabled(ctx: &Ctx<'_>) -> Result<(), ClientError> {
    if is_cluster(ctx) || ctx.node.assigned.is_some() { Ok(()) } else { Err(DISABLED) }
}

fn print_help(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(help("CLUSTER", COMMANDS[0].spec.subcommands))
}

/// A core as cluster clients see it, or another node.
struct Member<'n> {
    id: Cow<'n, str>,
    /// None: where the client has reached this node.
    host: Option<&'n str>,
    port: u16,
    /// The connection is on it.
    own: bool,
    /// First and last slots, in order, none of them adjacent.
    ranges: Vec<(Slot, Slot)>,
}

/// The cores that listen on ports of their own; one for the whole node when they do not. In sharding mode also the
/// nodes that are known to have slots which are not here.
fn members(node: &Node) -> Vec<Member<'_>> {
    let all = (0..CLUSTER_SLOTS).map(Slot);
    let is_own = |slot: &Slot| {
        node.assigned.as_ref().is_none_or(|assigned| assigned.role(TableId(0), *slot).is_primary())
    };
    let member = |id, port, own, slots: SlotSet| {
        let ranges = set::ranges(&slots);
        Member { id: Cow::Borrowed(id), host: None, port, own, ranges }
    };
    let mut members: Vec<Member<'_>> = match &node.addresses[..] {
        [] => vec![member(&node.run_id, node.config.port, true, all.clone().filter(is_own).collect())],
        addresses => {
            let of_core = |address: &CoreAddress| {
                all.clone().filter(is_own).filter(|slot| owner(node, *slot) == address.core).collect()
            };
            let own = |address: &CoreAddress| address.core == node.core;
            addresses.iter().map(|of| member(&of.id, of.port, own(of), of_core(of))).collect()
        }
    };
    members.extend(node.assigned.iter().flat_map(|assigned| elsewhere(assigned)));
    members
}

/// Other nodes, with the slots that they are known to have. Their names are made from their addresses.
fn elsewhere(assigned: &Assignment) -> impl Iterator<Item = Member<'_>> {
    let mut peers: BTreeMap<&Peer, SlotSet> = BTreeMap::new();
    for (_, slot, role) in assigned.iter().filter(|(table, ..)| *table == TableId(0)) {
        if let Role::Follows(peer) | Role::Moved(peer) | Role::Leaving(peer) = role {
            peers.entry(peer).or_default().insert(slot);
        }
    }
    peers.into_iter().map(|(peer, slots)| Member {
        id: format!("{:08x}", crc32fast::hash(peer.to_string().as_bytes())).repeat(5).into(),
        host: Some(&peer.host),
        port: peer.port,
        own: false,
        ranges: set::ranges(&slots),
    })
}

/// The address that the client reached us by is one that it can reach the other cores by.
fn host(laddr: &str) -> &str {
    let host = laddr.rsplit_once(':').map_or(laddr, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn slots(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let host = host(&ctx.session.laddr);
    let mut entries = Vec::new();
    for member in members(ctx.node) {
        for (first, last) in &member.ranges {
            let node = vec![
                Reply::text(member.host.unwrap_or(host)),
                Reply::Int(i64::from(member.port)),
                Reply::text(&member.id),
                Reply::Array(Vec::new()),
            ];
            let range = [first, last].map(|slot| Reply::Int(i64::from(slot.0)));
            entries.push((first.0, Reply::Array([range.to_vec(), vec![Reply::Array(node)]].concat())));
        }
    }
    entries.sort_by_key(|(first, _)| *first);
    Ok(Reply::Array(entries.into_iter().map(|(_, entry)| entry).collect()).into())
}

fn shards(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let host = host(&ctx.session.laddr);
    let entry = |member: &Member<'_>| {
        let bounds = member.ranges.iter().flat_map(|(first, last)| [first.0, last.0]);
        let slots = bounds.map(|slot| Reply::Int(i64::from(slot))).collect();
        let node = [
            ("id", Reply::text(&member.id)),
            ("port", Reply::Int(i64::from(member.port))),
            ("ip", Reply::text(member.host.unwrap_or(host))),
            ("endpoint", Reply::text(member.host.unwrap_or(host))),
            ("role", Reply::text("master")),
            ("replication-offset", Reply::Int(0)),
            ("health", Reply::text("online")),
        ];
        let node = Reply::Map(node.into_iter().map(|(name, value)| (Reply::text(name), value)).collect());
        Reply::Map(vec![
            (Reply::text("slots"), Reply::Array(slots)),
            (Reply::text("nodes"), Reply::Array(vec![node])),
        ])
    };
    Ok(Reply::Array(members(ctx.node).iter().map(entry).collect()).into())
}

/// There is no cluster bus, so its port is 0.
fn nodes(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let host = host(&ctx.session.laddr);
    let mut text = String::new();
    for member in members(ctx.node) {
        let flags = if member.own { "myself,master" } else { "master" };
        let (id, port) = (&member.id, member.port);
        let host = member.host.unwrap_or(host);
        text.push_str(&format!("{id} {host}:{port}@0 {flags} - 0 0 0 connected"));
        for (first, last) in &member.ranges {
            match first == last {
                true => text.push_str(&format!(" {}", first.0)),
                false => text.push_str(&format!(" {}-{}", first.0, last.0)),
            }
        }
        text.push('\n');
    }
    Ok(Reply::Verbatim(text.into()).into())
}

fn info(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let members = members(ctx.node);
    let with_slots = members.iter().filter(|member| !member.ranges.is_empty()).count();
    let ranges = members.iter().flat_map(|member| &member.ranges);
    let known: u32 = ranges.map(|(first, last)| u32::from(last.0 - first.0) + 1).sum();
    let state = if known == u32::from(CLUSTER_SLOTS) { "ok" } else { "fail" };
    let fields = [
        ("cluster_state", state.to_string()),
        ("cluster_slots_assigned", known.to_string()),
        ("cluster_slots_ok", known.to_string()),
        ("cluster_slots_pfail", "0".into()),
        ("cluster_slots_fail", "0".into()),
        ("cluster_known_nodes", members.len().to_string()),
        ("cluster_size", with_slots.to_string()),
        ("cluster_current_epoch", "0".into()),
        ("cluster_my_epoch", "0".into()),
        ("cluster_stats_messages_sent", "0".into()),
        ("cluster_stats_messages_received", "0".into()),
        ("total_cluster_links_buffer_limit_exceeded", "0".into()),
    ];
    let text: String = fields.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
    Ok(Reply::Verbatim(text.into()).into())
}

fn keyslot(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Reply::Int(i64::from(ctx.hash().slot_of(args.get(2)).0)).into())
}

fn countkeysinslot(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let number = number::parse_i64(args.get(2)).ok_or(ClientError::NOT_INTEGER)?;
    let slot = slot(number).ok_or(ClientError::fixed("ERR Invalid slot"))?;
    let fold =
        |_: &mut Ctx<'_>, tells| ok_or_error(one_told(tells, count).map(|count| Reply::Int(count as i64)));
    let ask = Ask::CountKeysInSlot { table: ctx.session.table, slot };
    Ok(Answer::AskOne(owner(ctx.node, slot), ask, Box::new(fold)))
}

fn getkeysinslot(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let number = number::parse_i64(args.get(2)).ok_or(ClientError::NOT_INTEGER)?;
    let count = number::parse_i64(args.get(3)).ok_or(ClientError::NOT_INTEGER)?;
    let (Some(slot), Ok(count)) = (slot(number), usize::try_from(count)) else {
        return Err(ClientError::fixed("ERR Invalid slot or number of keys"));
    };
    let fold = |_: &mut Ctx<'_>, tells| ok_or_error(one_told(tells, names).map(Reply::bulks));
    let ask = Ask::KeysInSlot { table: ctx.session.table, slot, count: count.min(KEYS_IN_SLOT_MAX) };
    Ok(Answer::AskOne(owner(ctx.node, slot), ask, Box::new(fold)))
}

fn slot(number: i64) -> Option<Slot> {
    u16::try_from(number).ok().filter(|number| *number < CLUSTER_SLOTS).map(Slot)
}

fn owner(node: &Node, slot: Slot) -> CoreId {
    node.map.owner(node.map.shard_of(slot))
}

fn myid(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let own = members(ctx.node).into_iter().find(|member| member.own);
    let id = own.map(|member| member.id).ok_or(ClientError::fixed("ERR this core has no port of its own"))?;
    Ok(Reply::text(&id).into())
}

/// Cores reach each other through memory.
fn links(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Reply::Array(Vec::new()).into())
}

fn readonly(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    enabled(ctx)?;
    ctx.session.readonly = true;
    Ok(Reply::Ok.into())
}

fn readwrite(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    enabled(ctx)?;
    ctx.session.readonly = false;
    Ok(Reply::Ok.into())
}

/// A slot changes hands at once, never key by key, so the next command is served like any other.
fn asking(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    enabled(ctx)?;
    Ok(Reply::Ok.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use crate::front::node::SlotMap;
    use crate::shard::mesh::Tell;
    use crate::slot::placement::Placement;
    use bytes::Bytes;

    #[test]
    fn without_cluster_slots_there_is_no_cluster() {
        let mut bench = Bench::new();
        for call in ["CLUSTER INFO", "CLUSTER HELP", "CLUSTER SLOTS", "READONLY", "READWRITE", "ASKING"] {
            assert_eq!(bench.run(call), "-ERR This instance has cluster support disabled", "{call}");
        }
    }

    #[test]
    fn texts_are_those_of_redis() {
        let mut bench = Bench::cluster(2);
        for (call, reply) in [
            ("CLUSTER KEYSLOT foo", ":12182"),
            ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot"),
            ("CLUSTER COUNTKEYSINSLOT -1", "-ERR Invalid slot"),
            ("CLUSTER COUNTKEYSINSLOT a", "-ERR value is not an integer or out of range"),
            ("CLUSTER GETKEYSINSLOT 5 -1", "-ERR Invalid slot or number of keys"),
            ("CLUSTER GETKEYSINSLOT 16384 1", "-ERR Invalid slot or number of keys"),
            ("CLUSTER GETKEYSINSLOT 5 a", "-ERR value is not an integer or out of range"),
            ("CLUSTER LINKS", "[]"),
            ("CLUSTER MEET a", "-ERR unknown subcommand 'MEET'. Try CLUSTER HELP."),
            ("READONLY", "OK"),
            ("READWRITE", "OK"),
            ("ASKING", "OK"),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
    }

    #[test]
    fn every_core_is_a_node() {
        let mut bench = Bench::cluster(2);
        let (a, b) = ("0".repeat(40), "1".repeat(40));
        assert_eq!(
            bench.run("CLUSTER SLOTS"),
            format!(
                "[[:0, :8191, [127.0.0.1, :9222, {a}, []]], [:8192, :16383, [127.0.0.1, :9223, {b}, []]]]"
            ),
        );
        assert_eq!(
            bench.run("CLUSTER NODES"),
            format!(
                "txt:{a} 127.0.0.1:9222@0 myself,master - 0 0 0 connected 0-8191\n\
                 {b} 127.0.0.1:9223@0 master - 0 0 0 connected 8192-16383\n"
            ),
        );
        let shards = bench.run("CLUSTER SHARDS");
        assert!(shards.starts_with(&format!(
            "[{{slots: [:0, :8191], nodes: [{{id: {a}, port: :9222, ip: 127.0.0.1, endpoint: 127.0.0.1, \
             role: master, replication-offset: :0, health: online}}]}}, {{slots: [:8192, :16383]"
        )));
        assert!(bench.run("CLUSTER INFO").contains("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"));
        assert_eq!(bench.run("CLUSTER MYID"), a);
    }

    #[test]
    fn shards_of_one_core_may_lie_apart() {
        let mut bench = Bench::cluster(2);
        let placement = Placement::even(CLUSTER_SLOTS, 4);
        bench.node.map = SlotMap::new(placement, vec![CoreId(0), CoreId(0), CoreId(1), CoreId(0)]);
        let text = bench.run("CLUSTER NODES");
        assert!(text.contains("connected 0-8191 12288-16383\n"), "{text}");
        let slots = bench.run("CLUSTER SLOTS");
        let firsts: Vec<_> =
            ["[:0, :8191,", "[:8192, :12287,", "[:12288, :16383,"].map(|at| slots.find(at)).into();
        assert!(firsts.is_sorted() && firsts[0].is_some(), "{slots}");
    }

    #[test]
    fn without_ports_of_their_own_the_cores_are_one_node() {
        let mut bench = Bench::cluster(2);
        bench.node.addresses.clear();
        let id = bench.node.run_id.clone();
        assert_eq!(bench.run("CLUSTER SLOTS"), format!("[[:0, :16383, [127.0.0.1, :9221, {id}, []]]]"));
        assert_eq!(bench.run("CLUSTER MYID"), id);
    }

    #[test]
    fn keys_in_a_slot_come_from_its_owner() {
        let mut bench = Bench::cluster(2);
        let Ok(Answer::AskOne(core, _, _)) = bench.answer("CLUSTER COUNTKEYSINSLOT 9000") else {
            panic!("asks")
        };
        assert_eq!(core, CoreId(1));
        assert_eq!(bench.run_with("CLUSTER COUNTKEYSINSLOT 9000", |_| vec![Tell::Count(3)]), ":3");
        let keys = |_: &Ask| vec![Tell::Keys(vec![Bytes::from_static(b"k")])];
        assert_eq!(bench.run_with("CLUSTER GETKEYSINSLOT 9000 5", keys), "[k]");
    }

    #[test]
    fn hosts_are_taken_from_the_own_address() {
        for (laddr, expected) in [("10.0.0.1:9221", "10.0.0.1"), ("[::1]:9221", "::1")] {
            assert_eq!(host(laddr), expected);
        }
    }
}

//! The one list of parameters. Files, flags, `--help`, CONFIG GET/SET/REWRITE and the printed default
//! file all read it; a new parameter is a field of `Config` and a row here.

use super::Config;
use super::value::{Fsync, HashName, InstanceMode, Kind, LogFormat, LogLevel, Value};
use crate::limits;

/// Headings of the default file and of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Network,
    Clients,
    Cores,
    Memory,
    Storage,
    Tables,
    Replication,
    Logging,
}

impl Group {
    pub fn title(self) -> &'static str {
        match self {
            Group::Network => "Network",
            Group::Clients => "Clients",
            Group::Cores => "Cores",
            Group::Memory => "Memory",
            Group::Storage => "Storage",
            Group::Tables => "Databases and slots",
            Group::Replication => "Replication",
            Group::Logging => "Logging",
        }
    }
}

/// Whether CONFIG SET may change a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Live,
    AtStart,
    /// No, but another command does, and CONFIG REWRITE keeps it.
    ByCommand,
    /// At start only; Redis calls such a parameter protected.
    Protected,
}

impl Change {
    /// Whether CONFIG REWRITE writes it.
    pub fn is_kept(self) -> bool {
        matches!(self, Change::Live | Change::ByCommand)
    }
}

/// What is known of a parameter.
pub struct Param {
    /// In the TOML file; also the field of `Config`.
    pub key: &'static str,
    /// On the command line, without the dashes.
    pub flag: &'static str,
    /// Redis's and Pika's names for CONFIG; empty if there is none, then the flag's name serves.
    pub names: &'static [&'static str],
    pub group: Group,
    pub kind: Kind,
    pub change: Change,
    pub doc: &'static str,
    show: fn(&Config) -> String,
    assign: fn(&mut Config, &Kind, &str) -> Result<(), String>,
}

impl Param {
    /// The value in force, as CONFIG GET answers it.
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// Takes over a value; on error nothing has changed and the text is Redis's.
    pub fn assign(&self, config: &mut Config, text: &str) -> Result<(), String> {
        (self.assign)(config, &self.kind, text)
    }

    /// Names that CONFIG GET and SET know it by.
    pub fn wire_names(&self) -> &[&'static str] {
        if self.names.is_empty() { std::slice::from_ref(&self.flag) } else { self.names }
    }

    pub fn by_key(key: &str) -> Option<&'static Param> {
        PARAMS.iter().find(|param| param.key == key)
    }

    /// By one of its names for CONFIG, in any case; also the name as we write it.
    pub fn by_wire_name(name: &str) -> Option<(&'static Param, &'static str)> {
        PARAMS.iter().find_map(|param| {
            let names: &'static [&'static str] = param.wire_names();
            names.iter().find(|known| known.eq_ignore_ascii_case(name)).map(|known| (param, *known))
        })
    }
}

/// What CONFIG GET answers although there is nothing to choose.
pub const FIXED: &[(&str, &str)] = &[
    ("appendonly", "yes"),
    ("save", ""),
    ("maxmemory-policy", "noeviction"),
    ("cluster-enabled", "no"),
    ("daemonize", "no"),
    ("write-binlog", "yes"),
];

macro_rules! row {
    ($group:ident, $field:ident, $flag:literal, $names:expr, $change:ident, $kind:expr, $doc:expr) => {
        Param {
            key: stringify!($field),
            flag: $flag,
            names: &$names,
            group: Group::$group,
            kind: $kind,
            change: Change::$change,
            doc: $doc,
            show: |config| config.$field.show(),
            assign: |config, kind, text| config.$field.assign(kind, text),
        }
    };
}

const fn integer(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const MIB: i64 = 1 << 20;
const INT_MAX: i64 = i32::MAX as i64;

/// All parameters, in the order of the default file.
#[rustfmt::skip]
pub static PARAMS: &[Param] = &[
    row!(Network, port, "port", ["port"], AtStart, integer(1, 65535),
        "TCP port."),
    row!(Network, bind, "bind", ["bind"], AtStart, Kind::Text,
        "Addresses to listen on, blanks between; `*` is all of IPv4, a leading `-` forgives an absent one."),
    row!(Network, tcp_backlog, "tcp-backlog", ["tcp-backlog"], AtStart, integer(1, INT_MAX),
        "Connections the kernel may hold ready for us to accept."),
    row!(Network, shard_aware_ports, "shard-aware-ports", [], AtStart, Kind::Switch,
        "Each core listens on a port of its own too, so that clients can reach the owner of a key directly."),
    row!(Network, shard_aware_port_base, "shard-aware-port-base", [], AtStart, integer(0, 65535),
        "Port of core 0, the others follow; 0: the one after `port`."),
    row!(Network, admin_bind, "admin-bind", [], AtStart, Kind::Text,
        "Address of the admin port (HTTP: /metrics, /healthz, /readyz); empty: there is none."),
    row!(Network, admin_port, "admin-port", [], AtStart, integer(0, 65535),
        "Port of the admin port; 0: `port` and 100."),
    row!(Clients, requirepass, "requirepass", ["requirepass"], Live, Kind::Text,
        "Password that clients must give; empty for none."),
    row!(Clients, maxclients, "maxclients", ["maxclients"], Live, integer(1, u32::MAX as i64),
        "Connections at the same time."),
    row!(Clients, timeout_s, "timeout", ["timeout"], Live, integer(0, INT_MAX),
        "Seconds after which an idle connection is closed; 0: never."),
    row!(Clients, tcp_keepalive_s, "tcp-keepalive", ["tcp-keepalive"], Live, integer(0, INT_MAX),
        "Seconds between TCP keepalive probes; 0: none."),
    row!(Clients, proto_max_bulk_len, "proto-max-bulk-len", ["proto-max-bulk-len"], Live,
        Kind::Bytes { min: MIB, max: i64::MAX },
        "Bytes of one argument, at most; an eighth of the memory budget if that is less."),
    row!(Clients, client_query_buffer_limit, "client-query-buffer-limit", ["client-query-buffer-limit"], Live,
        Kind::Bytes { min: MIB, max: i64::MAX },
        "Bytes of a command received in part, at most."),
    row!(Clients, client_output_buffer_limit, "client-output-buffer-limit", ["client-output-buffer-limit"],
        Live, Kind::Text,
        "When a client that does not read is closed: class, hard bytes, soft bytes, soft seconds; repeated."),
    row!(Cores, cores, "cores", ["thread-num"], AtStart, integer(0, 1024),
        "Executors that serve clients, each on a CPU of its own; 0: one for each CPU allowed."),
    row!(Cores, pin_cpus, "pin-cpus", [], AtStart, Kind::Text,
        "CPUs to use, like \"0,2-3\"; empty: all that are allowed."),
    row!(Cores, move_connections, "move-connections", [], Live, Kind::Switch,
        "A connection whose commands nearly all go to one other core is handed to that core."),
    row!(Cores, cold_threads, "cold-threads", [], AtStart, integer(1, 1024),
        "Threads that read what is not in memory, for the whole node."),
    row!(Memory, memory_budget, "memory-budget", ["maxmemory"], AtStart,
        Kind::Bytes { min: 0, max: i64::MAX },
        "Bytes of memory for everything, like \"2GiB\"; 0: a quarter of the machine's."),
    row!(Storage, data_dir, "data-dir", ["dir", "db-path"], Protected, Kind::Text,
        "Directory of all data."),
    row!(Storage, shards, "shards", [], AtStart, integer(0, 4096),
        "Storage partitions; more than the directory has are added, empty. 0: what it has, or one for each core."),
    row!(Storage, appendfsync, "appendfsync", ["appendfsync"], Live, Kind::Choice(Fsync::WORDS),
        "What a power failure may take: the last second, nothing, or what the kernel has not written."),
    row!(Storage, binlog_segment_bytes, "binlog-segment-bytes", ["binlog-file-size"], AtStart,
        Kind::Bytes { min: MIB, max: 2048 * MIB },
        "Size of a file of the log."),
    row!(Storage, binlog_retention_bytes, "binlog-retention-bytes", [], AtStart,
        Kind::Bytes { min: 0, max: i64::MAX },
        "Bytes of log to keep beyond what recovery needs, for each shard."),
    row!(Storage, binlog_retention_hours, "binlog-retention-hours", [], AtStart, integer(0, 1_000_000),
        "Hours of log to keep beyond what recovery needs, if the bytes allow it."),
    row!(Tables, databases, "databases", ["databases"], AtStart, integer(1, 16384),
        "Numbered databases in classic mode."),
    row!(Tables, instance_mode, "instance-mode", ["instance-mode"], AtStart,
        Kind::Choice(InstanceMode::WORDS),
        "Numbered databases, or Pika's tables of slots."),
    row!(Tables, slot_hash, "slot-hash", [], AtStart, Kind::Choice(HashName::WORDS),
        "crc32: as Pika and Codis. crc16: as Redis Cluster, with its 16384 slots."),
    row!(Tables, default_slot_num, "default-slot-num", ["default-slot-num"], AtStart, integer(1, 16384),
        "Slots of a table with crc32; fixed when the directory is made."),
    row!(Tables, slot_redirect, "slot-redirect", [], Live, Kind::Switch,
        "In sharding mode: a command on a slot that another node has is answered as in Redis Cluster (MOVED)."),
    row!(Replication, replicaof, "replicaof", ["replicaof", "slaveof"], ByCommand, Kind::Text,
        "Host and port of the node to follow from the start; empty: this node is a primary."),
    row!(Replication, masterauth, "masterauth", ["masterauth"], Live, Kind::Text,
        "Password given to the primary; empty for none."),
    row!(Replication, masteruser, "masteruser", ["masteruser"], Live, Kind::Text,
        "User named to a primary that is a Redis; empty: its default user."),
    row!(Replication, replica_priority, "replica-priority", ["replica-priority", "slave-priority"], Live,
        integer(0, INT_MAX), "What Sentinel prefers when it chooses a new primary, the lowest; 0: never this one."),
    row!(Replication, min_replicas_to_write, "min-replicas-to-write",
        ["min-replicas-to-write", "min-slaves-to-write"], Live, integer(0, 1024),
        "Writes are refused with fewer replicas than this that keep up; 0: never."),
    row!(Replication, min_replicas_max_lag_s, "min-replicas-max-lag",
        ["min-replicas-max-lag", "min-slaves-max-lag"], Live, integer(0, INT_MAX),
        "Seconds without an acknowledgement after which a replica does not keep up."),
    row!(Replication, consensus_level, "consensus-level", ["consensus-level"], Live, integer(0, 16),
        "A write is answered, and shown to anybody, when so many replicas have it; 0: at once."),
    row!(Replication, copy_bytes_per_second, "copy-bytes-per-second", [], Live,
        Kind::Bytes { min: 0, max: i64::MAX },
        "Bytes of slots that are copied to one replica in a second, before compression; 0: as fast as it goes."),
    row!(Replication, repl_timeout_s, "repl-timeout", ["repl-timeout"], Live, integer(1, INT_MAX),
        "Seconds of silence after which a replication link is given up."),
    row!(Clients, reply_max_elements, "reply-max-elements", [], Live, integer(0, i64::MAX),
        "Elements that one reply may have; 0: any number."),
    row!(Clients, reply_max_bytes, "reply-max-bytes", [], Live, Kind::Bytes { min: 0, max: i64::MAX },
        "Bytes of a reply that has to be held whole; 0: any number."),
    row!(Logging, slowlog_log_slower_than_us, "slowlog-log-slower-than", ["slowlog-log-slower-than"], Live,
        integer(-1, i64::MAX), "Microseconds from which a command is noted in the slow log; -1: none is."),
    row!(Logging, slowlog_max_len, "slowlog-max-len", ["slowlog-max-len"], Live, integer(0, 100_000),
        "Commands that the slow log keeps."),
    row!(Logging, latency_monitor_threshold_ms, "latency-monitor-threshold", ["latency-monitor-threshold"],
        Live, integer(0, i64::MAX), "Milliseconds from which LATENCY notes what took long; 0: nothing."),
    row!(Logging, loglevel, "loglevel", ["loglevel"], AtStart, Kind::Choice(LogLevel::WORDS),
        "How much is logged."),
    row!(Logging, logfile, "logfile", ["logfile"], AtStart, Kind::Text,
        "File of the log; empty: standard error."),
    row!(Logging, log_format, "log-format", [], AtStart, Kind::Choice(LogFormat::WORDS),
        "Lines for people, or JSON."),
];

impl Default for Config {
    fn default() -> Config {
        use std::net::{IpAddr, Ipv4Addr};
        Config {
            port: 9221,
            bind: vec![super::BindAddress { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), optional: false }],
            tcp_backlog: 511,
            shard_aware_ports: false,
            shard_aware_port_base: 0,
            admin_bind: "127.0.0.1".into(),
            admin_port: 0,
            requirepass: super::Password::default(),
            maxclients: 10_000,
            timeout_s: 0,
            tcp_keepalive_s: 300,
            proto_max_bulk_len: limits::VALUE_MAX_BYTES,
            client_query_buffer_limit: 1 << 30,
            reply_max_elements: 0,
            reply_max_bytes: 512 << 20,
            client_output_buffer_limit: super::OutputLimits::default(),
            cores: 0,
            pin_cpus: super::CpuList::default(),
            move_connections: true,
            cold_threads: 16,
            memory_budget: 0,
            data_dir: "./haypile-data".into(),
            shards: 0,
            appendfsync: Fsync::Everysec,
            binlog_segment_bytes: 64 << 20,
            binlog_retention_bytes: 1 << 30,
            binlog_retention_hours: 7 * 24,
            databases: 16,
            instance_mode: InstanceMode::Classic,
            slot_redirect: false,
            copy_bytes_per_second: 0,
            slot_hash: HashName::Crc32,
            default_slot_num: 1024,
            replicaof: String::new(),
            masterauth: super::Password::default(),
            masteruser: String::new(),
            replica_priority: 100,
            min_replicas_to_write: 0,
            min_replicas_max_lag_s: 10,
            consensus_level: 0,
            repl_timeout_s: 60,
            slowlog_log_slower_than_us: 10_000,
            slowlog_max_len: 128,
            latency_monitor_threshold_ms: 0,
            loglevel: LogLevel::Notice,
            logfile: String::new(),
            log_format: LogFormat::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_name_means_two_things() {
        let mut seen = HashSet::new();
        for param in PARAMS {
            assert!(seen.insert(param.key.to_owned()), "{}", param.key);
            assert!(!param.doc.is_empty());
        }
        let mut seen: HashSet<&str> = FIXED.iter().map(|(name, _)| *name).collect();
        assert_eq!(seen.len(), FIXED.len());
        for name in PARAMS.iter().flat_map(|param| param.wire_names()) {
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn every_field_takes_its_default_and_both_ends_of_its_range() {
        for param in PARAMS {
            let mut config = Config::default();
            let default = param.show(&config);
            param.assign(&mut config, &default).unwrap_or_else(|e| panic!("{}: {e}", param.key));
            assert_eq!(config, Config::default(), "{}", param.key);
            match param.kind {
                Kind::Integer { min, max } | Kind::Bytes { min, max } => {
                    for end in [min, max] {
                        param.assign(&mut config, &end.to_string()).expect("an end of the range");
                        assert_eq!(param.show(&config), end.to_string(), "{}", param.key);
                    }
                    assert!(
                        param.assign(&mut config, &min.saturating_sub(1).to_string()).is_err()
                            || min == i64::MIN
                    );
                }
                Kind::Choice(words) => {
                    for word in words {
                        param.assign(&mut config, &word.to_uppercase()).expect("a word of the list");
                        assert_eq!(param.show(&config), *word);
                    }
                    assert!(param.assign(&mut config, "nonsense").is_err());
                }
                Kind::Switch => {
                    for (text, shown) in [("on", "yes"), ("no", "no"), ("TRUE", "yes"), ("off", "no")] {
                        param.assign(&mut config, text).expect("a switch's word");
                        assert_eq!(param.show(&config), shown);
                    }
                    assert!(param.assign(&mut config, "2").is_err());
                }
                Kind::Text => {}
            }
        }
    }
}

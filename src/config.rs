//! What an operator has chosen: defaults, then a file, then flags; typed and checked.
//!
//! Knows the names of things, not what is done with them: who reads a field gives it its meaning.

mod edit;
mod file;
mod flags;
mod foreign;
mod machine;
mod param;
mod toml_file;
mod value;

pub use edit::{Changed, get, rewrite, rewrite_file, set};
pub use file::{Format, Ignored};
pub use param::{Change, FIXED, Group, PARAMS, Param};
pub use value::{
    BindAddress, CpuList, Fsync, HashName, InstanceMode, Kind, LogFormat, LogLevel, OutputLimit,
    OutputLimits, Password,
};

use crate::limits::Ledger;
use crate::slot::SlotHash;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// All parameters. The rows in `PARAMS` say what each means and which values it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub port: u16,
    pub bind: Vec<BindAddress>,
    pub tcp_backlog: u32,
    pub shard_aware_ports: bool,
    /// 0: the port after `port`; see `core_port`.
    pub shard_aware_port_base: u16,
    /// Empty: no admin port; see `admin_address`.
    pub admin_bind: String,
    pub admin_port: u16,
    pub requirepass: Password,
    pub maxclients: u32,
    /// Seconds; 0: never.
    pub timeout_s: u32,
    /// Seconds; 0: none.
    pub tcp_keepalive_s: u32,
    /// Bytes; the ledger's `value_max` holds as well.
    pub proto_max_bulk_len: u64,
    /// Bytes; the ledger's `query_buffers` holds as well.
    pub client_query_buffer_limit: u64,
    /// The ledger's `output_buffers` holds as well.
    pub client_output_buffer_limit: OutputLimits,
    /// Once loaded: how many there are, never 0.
    pub cores: u16,
    /// Empty: all that are allowed.
    pub pin_cpus: CpuList,
    pub move_connections: bool,
    pub cold_threads: u16,
    /// Bytes. Once loaded: never 0.
    pub memory_budget: u64,
    pub data_dir: PathBuf,
    /// 0: as the directory has, or one for each core in a new one.
    pub shards: u16,
    pub appendfsync: Fsync,
    pub binlog_segment_bytes: u64,
    /// Bytes for each shard.
    pub binlog_retention_bytes: u64,
    pub binlog_retention_hours: u32,
    pub databases: u32,
    pub instance_mode: InstanceMode,
    pub slot_redirect: bool,
    pub copy_bytes_per_second: u64,
    pub slot_hash: HashName,
    pub default_slot_num: u16,
    /// Host and port; empty: this node is a primary. See `primary`.
    pub replicaof: String,
    pub masterauth: Password,
    pub masteruser: String,
    pub replica_priority: u32,
    pub min_replicas_to_write: u32,
    /// Seconds.
    pub min_replicas_max_lag_s: u32,
    /// Replicas that have a write before it is answered; 0: it is answered at once.
    pub consensus_level: u32,
    /// Seconds.
    pub repl_timeout_s: u32,
    /// 0: any number.
    pub reply_max_elements: u64,
    /// Bytes; 0: any number.
    pub reply_max_bytes: u64,
    /// Microseconds; -1: never.
    pub slowlog_log_slower_than_us: i64,
    pub slowlog_max_len: u32,
    /// Milliseconds; 0: never.
    pub latency_monitor_threshold_ms: u64,
    pub loglevel: LogLevel,
    /// Empty: standard error.
    pub logfile: String,
    pub log_format: LogFormat,
}

/// A configuration and where it came from.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Lines of a Redis or Pika file that have no effect here.
    pub ignored: Vec<Ignored>,
    pub file: Option<PathBuf>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing is wrong: this text was asked for and belongs on standard output.
    #[error("{0}")]
    Asked(String),
    /// A flag that clap refuses, with its usage.
    #[error("{0}")]
    Usage(String),
    #[error("--{flag} {value}: {why}")]
    Flag { flag: &'static str, value: String, why: String },
    #[error("{}: {why}", file.display())]
    Unreadable { file: PathBuf, why: String },
    #[error("{}, line {line}: {why}", file.display())]
    Line { file: PathBuf, line: usize, why: String },
    /// Values that do not go together.
    #[error("{0}")]
    Conflict(String),
}

/// From the clients' port to the admin port, where none is chosen.
const ADMIN_PORT_OFFSET: u16 = 100;

impl Config {
    /// Reads what stands behind `haypile server` on the command line, and the file it names.
    pub fn load(args: impl Iterator<Item = OsString>) -> Result<Loaded, ConfigError> {
        let flags = flags::parse(args)?;
        let mut config = Config::default();
        let mut ignored = Vec::new();
        if let Some(path) = &flags.file {
            ignored = config.read(path)?;
        }
        for (param, value) in flags.values {
            param.assign(&mut config, &value).map_err(|why| {
                let value =
                    if ["requirepass", "masterauth"].contains(&param.key) { "...".to_owned() } else { value };
                ConfigError::Flag { flag: param.flag, value, why }
            })?;
        }
        config.complete();
        config.check().map_err(ConfigError::Conflict)?;
        Ok(Loaded { config, ignored, file: flags.file })
    }

    fn read(&mut self, path: &Path) -> Result<Vec<Ignored>, ConfigError> {
        let unreadable = |why: String| ConfigError::Unreadable { file: path.to_owned(), why };
        let text = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
        let text = String::from_utf8(text).map_err(|_| unreadable("not UTF-8 text".to_owned()))?;
        let line = |file::Wrong { line, why }| ConfigError::Line { file: path.to_owned(), line, why };
        file::apply(&text, Format::of(path, &text), self).map_err(line)
    }

    /// Fills in what depends on the machine.
    fn complete(&mut self) {
        if self.cores == 0 {
            self.cores = match self.pin_cpus.0.len() {
                0 => machine::cpus(),
                pinned => pinned as u16,
            };
        }
        if self.memory_budget == 0 {
            self.memory_budget = machine::memory_bytes() / 4;
        }
        // As in Redis Cluster: no client of one could reach the others.
        if self.slot_hash == HashName::Crc16 {
            self.databases = 1;
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.instance_mode == InstanceMode::Sharding && !self.replicaof.is_empty() {
            return Err(
                "replicaof is for whole nodes: in sharding mode slots follow, by PKCLUSTER SLOTSSLAVEOF"
                    .to_owned(),
            );
        }
        let pinned = self.pin_cpus.0.len();
        if pinned != 0 && usize::from(self.cores) > pinned {
            return Err(format!("cores = {} but pin_cpus names only {pinned} CPUs", self.cores));
        }
        let last = self.first_core_port() + u32::from(self.cores) - 1;
        if self.shard_aware_ports {
            if last > u32::from(u16::MAX) {
                return Err(format!("shard_aware_ports: the last core's port would be {last}, above 65535"));
            }
            if (self.first_core_port()..=last).contains(&u32::from(self.port)) {
                return Err(format!(
                    "shard_aware_port_base: a core's own port would be `port`, {}",
                    self.port
                ));
            }
        }
        self.admin_address()?;
        self.primary()?;
        let shards = if self.shards == 0 { self.cores } else { self.shards };
        Ledger::from_budget(self.memory_budget, self.cores, shards)
            .map(drop)
            .map_err(|e| format!("memory_budget: {e}"))
    }

    /// The node to follow from the start: host and port.
    pub fn primary(&self) -> Result<Option<(String, u16)>, String> {
        let words: Vec<&str> = self.replicaof.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            [] => Ok(None),
            [host, port] if port.parse().is_ok_and(|port: u16| port > 0) => {
                Ok(Some((host.to_owned(), port.parse().expect("looked a line above"))))
            }
            _ => Err(format!("replicaof: \"{}\" is not a host and a port", self.replicaof)),
        }
    }

    fn first_core_port(&self) -> u32 {
        match self.shard_aware_port_base {
            0 => u32::from(self.port) + 1,
            base => u32::from(base),
        }
    }

    /// A core's own port, if cores have such.
    pub fn core_port(&self, core: u16) -> Option<u16> {
        let port = self.first_core_port() + u32::from(core);
        self.shard_aware_ports.then(|| port.try_into().expect("checked when the configuration was loaded"))
    }

    /// Where the admin port listens, if it does.
    pub fn admin_address(&self) -> Result<Option<SocketAddr>, String> {
        if self.admin_bind.is_empty() {
            return Ok(None);
        }
        let ip: IpAddr = self
            .admin_bind
            .parse()
            .map_err(|_| format!("admin_bind: \"{}\" is not an IP address", self.admin_bind))?;
        let port = match self.admin_port {
            0 => self.port.checked_add(ADMIN_PORT_OFFSET).ok_or_else(|| {
                format!("admin_port: {} and {ADMIN_PORT_OFFSET} is above 65535: choose one", self.port)
            })?,
            port => port,
        };
        Ok(Some(SocketAddr::new(ip, port)))
    }

    /// How tables turn keys into slots.
    pub fn slots(&self) -> SlotHash {
        match self.slot_hash {
            HashName::Crc32 => SlotHash::Crc32 { slots: self.default_slot_num },
            HashName::Crc16 => SlotHash::Crc16,
        }
    }
}

#[cfg(test)]
mod tests;

//! What INFO says, taken apart. Pure.

use std::collections::BTreeMap;

/// One look at a server.
#[derive(Debug, Default)]
pub struct Snapshot {
    fields: BTreeMap<String, String>,
    /// By number.
    pub cores: Vec<Parts>,
    pub shards: Vec<Parts>,
    pub commands: BTreeMap<String, Command>,
}

/// `name=value,name=value`.
#[derive(Debug, Default, Clone)]
pub struct Parts(BTreeMap<String, f64>);

impl Parts {
    fn parse(text: &str) -> Parts {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Parts(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// 0 where the server does not say.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }
}

/// One command's figures, since the server's start.
#[derive(Debug, Default, Clone)]
pub struct Command {
    pub stat: Parts,
    /// Percentiles, microseconds.
    pub latency: Parts,
}

/// An entry of the slow log.
#[derive(Debug)]
pub struct Slow {
    pub id: u64,
    /// Seconds since the epoch.
    pub at_s: u64,
    pub micros: u64,
    pub stage: String,
    pub addr: String,
    pub command: String,
}

impl Snapshot {
    pub fn parse(info: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, value) in info.lines().filter_map(|line| line.split_once(':')) {
            let numbered = |head: &str| name.strip_prefix(head)?.parse::<usize>().ok();
            if let Some(at) = numbered("core") {
                put(&mut snapshot.cores, at, Parts::parse(value));
            } else if let Some(at) = numbered("shard") {
                put(&mut snapshot.shards, at, Parts::parse(value));
            } else if let Some(command) = name.strip_prefix("cmdstat_") {
                snapshot.commands.entry(command.to_owned()).or_default().stat = Parts::parse(value);
            } else if let Some(command) = name.strip_prefix("latency_percentiles_usec_") {
                snapshot.commands.entry(command.to_owned()).or_default().latency = Parts::parse(value);
            } else {
                snapshot.fields.insert(name.to_owned(), value.trim().to_owned());
            }
        }
        snapshot
    }

    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("?", String::as_str)
    }

    pub fn number(&self, name: &str) -> f64 {
        self.fields.get(name).and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }
}

/// More than any server has: a line that claims it is none of ours.
const NUMBERS_MAX: usize = 1 << 16;

fn put(list: &mut Vec<Parts>, at: usize, parts: Parts) {
    if at < NUMBERS_MAX {
        list.resize(list.len().max(at + 1), Parts::default());
        list[at] = parts;
    }
}

//! `haypile binlog`: the records of the logs as JSON lines, oldest first, shard by shard.

use super::{log, open_dir};
use crate::binlog::{self, Lsn, RealDisk, Record, Txn};
use crate::server::datadir::DataDir;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::effects::{BodyReader, Operation, SlotWide};
use crate::store::row::{Body, Row};
use crate::store::tx::Change;
use bytes::Bytes;
use clap::Parser;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Prints the records of the logs of a data directory that no server uses, as JSON lines.
#[derive(Parser)]
#[command(name = "haypile binlog")]
struct Options {
    /// The data directory.
    #[arg(default_value = "./haypile-data")]
    dir: PathBuf,
    /// Only this shard.
    #[arg(long)]
    shard: Option<u16>,
    /// Only records that touch this table (numbered database).
    #[arg(long)]
    table: Option<u32>,
    /// Only records that touch this slot.
    #[arg(long)]
    slot: Option<u16>,
    /// From this LSN on.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// From this moment on: "2026-01-31 12:00:00" (UTC), or milliseconds since the epoch.
    #[arg(long, value_parser = moment)]
    since: Option<u64>,
    /// Before this moment.
    #[arg(long, value_parser = moment)]
    until: Option<u64>,
    /// Bytes of each value that are shown.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
}

/// Milliseconds since the epoch.
fn moment(text: &str) -> Result<u64, String> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|error| error.to_string())?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    Ok(since.as_millis() as u64)
}

/// Runs `haypile binlog` with these arguments.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = Options::parse_from(args);
    let Some(dir) = open_dir(&options.dir) else { return ExitCode::from(2) };
    let mut out = BufWriter::new(io::stdout().lock());
    let shards = (0..dir.identity.shards).filter(|shard| options.shard.is_none_or(|only| only == *shard));
    let mut code = ExitCode::SUCCESS;
    for shard in shards.map(ShardId) {
        if let Err(why) = print_shard(&mut out, &dir, shard, &options) {
            if why.is_broken_pipe() {
                return ExitCode::SUCCESS;
            }
            eprintln!("haypile: shard {}: {}", shard.0, why.0);
            code = ExitCode::FAILURE;
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("haypile: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

struct Failed(Box<dyn std::error::Error + Send + Sync>);

impl Failed {
    fn is_broken_pipe(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*self.0);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.kind() == io::ErrorKind::BrokenPipe;
            }
            if let Some(binlog::LogError::Replay(_, inner)) = error.downcast_ref() {
                cause = Some(&**inner);
                continue;
            }
            cause = error.source();
        }
        false
    }
}

fn print_shard(out: &mut dyn Write, dir: &DataDir, shard: ShardId, wanted: &Options) -> Result<(), Failed> {
    let options = log::options(&dir.shard(shard.0), shard);
    let segments = binlog::segments(&RealDisk, &options.dir).map_err(|error| Failed(error.into()))?;
    let Some(oldest) = segments.first() else { return Ok(()) };
    let from = Lsn(wanted.from).max(oldest.first);
    let mut print = |record: &Record<'_>| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if wanted.holds(record) {
            let line = line(shard, record, wanted.value_bytes)?;
            writeln!(out, "{line}")?;
        }
        Ok(())
    };
    let read = binlog::examine(&RealDisk, &options, from.before(), None, &mut print);
    read.map(drop).map_err(|error| Failed(error.into()))
}

impl Options {
    fn holds(&self, record: &Record<'_>) -> bool {
        let touched = |touch: &binlog::Touch| {
            self.table.is_none_or(|table| TableId(table) == touch.table)
                && self.slot.is_none_or(|slot| Slot(slot) == touch.slot)
        };
        let in_time = self.since.is_none_or(|since| record.time_ms >= since)
            && self.until.is_none_or(|until| record.time_ms < until);
        in_time && (self.table.is_none() && self.slot.is_none() || record.touches.iter().any(touched))
    }
}

fn line(
    shard: ShardId,
    record: &Record<'_>,
    value_bytes: usize,
) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    let body = BodyReader::new(Bytes::copy_from_slice(record.body))?;
    let origin = origin(body.origin().0);
    let mut operations = Vec::new();
    for operation in body {
        operations.push(operation_json(&operation?, value_bytes));
    }
    let touches = record.touches.iter().map(|touch| {
        json!({"table": touch.table.0, "slot": touch.slot.0, "index": touch.index, "term": touch.term})
    });
    let mut line = json!({
        "shard": shard.0,
        "lsn": record.lsn.0,
        "term": record.term,
        "time": time(record.time_ms),
        "time_ms": record.time_ms,
        "from": origin,
        "touches": touches.collect::<Vec<_>>(),
        "operations": operations,
    });
    if record.first != record.lsn {
        line["first_lsn"] = json!(record.first.0);
    }
    match record.txn {
        Some(Txn::Whole { participants }) => {
            let shards = participants.iter().map(|of| json!({"shard": of.shard.0, "part": of.number}));
            line["whole"] = shards.collect();
        }
        Some(Txn::Part { home, home_lsn, number }) => {
            line["part"] = json!({"home": home.0, "home_lsn": home_lsn, "number": number});
        }
        None => {}
    }
    Ok(line)
}

/// By their numbers in `store::effects::Origin`; others are of later versions.
fn origin(number: u8) -> Value {
    const NAMES: [&str; 11] = [
        "string",
        "generic",
        "server",
        "expiry",
        "transaction",
        "script",
        "hash",
        "list",
        "set",
        "zset",
        "stream",
    ];
    NAMES.get(usize::from(number).wrapping_sub(1)).map_or(json!(number), |name| json!(name))
}

fn operation_json(operation: &Operation, value_bytes: usize) -> Value {
    match operation {
        Operation::Effect(effect) => {
            let mut json = Map::new();
            let what = match &effect.change {
                Change::Put(_) => "put",
                Change::Delete => "delete",
                Change::Element { value: Some(_), .. } => "put_element",
                Change::Element { value: None, .. } => "delete_element",
            };
            json.insert("op".into(), json!(what));
            json.insert("table".into(), json!(effect.table.0));
            json.insert("slot".into(), json!(effect.slot.0));
            bytes_json(&mut json, "key", &effect.name, usize::MAX);
            match &effect.change {
                Change::Put(row) => row_json(&mut json, row, value_bytes),
                Change::Delete => {}
                Change::Element { version, sub, value } => {
                    json.insert("version".into(), json!(version.0));
                    bytes_json(&mut json, "element", sub, usize::MAX);
                    if let Some(value) = value {
                        bytes_json(&mut json, "value", value, value_bytes);
                    }
                }
            }
            Value::Object(json)
        }
        Operation::SlotWide(SlotWide::Flush { table, slots }) => {
            let slots = slots.iter().map(|range| json!([range.first.0, range.last.0]));
            json!({"op": "flush", "table": table.0, "slots": slots.collect::<Vec<_>>()})
        }
        Operation::SlotWide(SlotWide::SwapTables { a, b, slots }) => {
            let slots = slots.iter().map(|range| json!([range.first.0, range.last.0]));
            json!({"op": "swap_tables", "a": a.0, "b": b.0, "slots": slots.collect::<Vec<_>>()})
        }
        Operation::SlotWide(SlotWide::Adopt { table, slot, adopted }) => json!({
            "op": "adopt", "table": table.0, "slot": slot.0, "index": adopted.index, "term": adopted.term,
        }),
    }
}

fn row_json(json: &mut Map<String, Value>, row: &Row, value_bytes: usize) {
    json.insert("type".into(), json!(row.kind.name()));
    if let Some(expire_ms) = row.expire_ms {
        json.insert("expire_ms".into(), json!(expire_ms));
    }
    match &row.body {
        Body::Inline(value) => bytes_json(json, "value", value, value_bytes),
        Body::Pieces { version, len } => {
            json.insert("version".into(), json!(version.0));
            json.insert("length".into(), json!(len));
        }
        Body::Elements { version, count, .. } => {
            json.insert("version".into(), json!(version.0));
            json.insert("count".into(), json!(count));
        }
    }
}

/// As text where it is text, else in hexadecimal under `<name>_hex`; with its length where it is cut.
fn bytes_json(json: &mut Map<String, Value>, name: &str, bytes: &[u8], most: usize) {
    let shown = &bytes[..bytes.len().min(most)];
    match std::str::from_utf8(shown) {
        Ok(text) => json.insert(name.into(), json!(text)),
        Err(_) => {
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            json.insert(format!("{name}_hex"), json!(hex))
        }
    };
    if shown.len() < bytes.len() {
        json.insert(format!("{name}_bytes"), json!(bytes.len()));
    }
}

fn time(time_ms: u64) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(time_ms);
    humantime::format_rfc3339_millis(time).to_string()
}

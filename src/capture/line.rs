//! What is printed: records and what is copied, as JSON.
//!
//! One form whether a record comes from a file or from a node; FORMAT.md says what a reader may rely on. Pure.
//! Must not know where records come from.

use crate::binlog::{Lsn, Touch, Txn};
use crate::replica::position::SlotName;
use crate::shard::mesh::SlotPosition;
use crate::slot::ShardId;
use crate::store::effects::{BodyError, BodyReader, Operation, SlotWide};
use crate::store::row::{Body, Row};
use crate::store::tx::Change;
use crate::store::{Entry, EntryParts};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A record, wherever it was read.
pub struct Shown<'r> {
    /// The log it stands in, and where.
    pub shard: ShardId,
    pub lsn: Lsn,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    pub touches: &'r [Touch],
    pub body: Bytes,
    /// What a log says to its own node only.
    pub frame: Option<Frame<'r>>,
}

/// What a record is in its log.
pub struct Frame<'r> {
    pub term: u64,
    /// Where a record of several frames begins.
    pub first: Lsn,
    pub txn: Option<&'r Txn>,
}

/// A record's line. Of each value at most so many bytes are shown.
///
/// # Errors
/// When its body cannot be read.
pub fn record(shown: &Shown<'_>, value_bytes: usize) -> Result<Value, BodyError> {
    let body = BodyReader::new(shown.body.clone())?;
    let origin = origin(body.origin().0);
    let mut operations = Vec::new();
    for operation in body {
        operations.push(operation_json(&operation?, value_bytes));
    }
    let touches = shown.touches.iter().map(|touch| {
        json!({"table": touch.table.0, "slot": touch.slot.0, "index": touch.index, "term": touch.term})
    });
    let mut line = json!({
        "shard": shown.shard.0,
        "lsn": shown.lsn.0,
        "time": time(shown.time_ms),
        "time_ms": shown.time_ms,
        "from": origin,
        "touches": touches.collect::<Vec<_>>(),
        "operations": operations,
    });
    if let Some(frame) = &shown.frame {
        frame_json(&mut line, shown.lsn, frame);
    }
    Ok(line)
}

fn frame_json(line: &mut Value, lsn: Lsn, frame: &Frame<'_>) {
    line["term"] = json!(frame.term);
    if frame.first != lsn {
        line["first_lsn"] = json!(frame.first.0);
    }
    match frame.txn {
        Some(Txn::Whole { participants }) => {
            let shards = participants.iter().map(|of| json!({"shard": of.shard.0, "part": of.number}));
            line["whole"] = shards.collect();
        }
        Some(Txn::Part { home, home_lsn, number }) => {
            line["part"] = json!({"home": home.0, "home_lsn": home_lsn, "number": number});
        }
        None => {}
    }
}

/// Says that a slot's rows follow, and that what was said of it before counts no more.
pub fn copy_begin((table, slot): SlotName) -> Value {
    json!({"copy": "begin", "table": table.0, "slot": slot.0})
}

/// Says that a slot is complete, and where it stands.
pub fn copy_end(at: &SlotPosition) -> Value {
    json!({"copy": "end", "table": at.table.0, "slot": at.slot.0, "index": at.index, "term": at.term})
}

/// A row or an element of a slot that is copied.
///
/// # Errors
/// What is wrong with the entry.
pub fn copy_entry((table, slot): SlotName, entry: &Entry, value_bytes: usize) -> Result<Value, &'static str> {
    let mut json = Map::new();
    json.insert("copy".into(), json!(if entry.element { "element" } else { "row" }));
    json.insert("table".into(), json!(table.0));
    json.insert("slot".into(), json!(slot.0));
    match entry.parts()? {
        EntryParts::Row { name, row } => {
            bytes_json(&mut json, "key", name, usize::MAX);
            row_json(&mut json, &row, value_bytes);
        }
        EntryParts::Element { name, version, sub } => {
            bytes_json(&mut json, "key", name, usize::MAX);
            json.insert("version".into(), json!(version.0));
            bytes_json(&mut json, "element", sub, usize::MAX);
            bytes_json(&mut json, "value", &entry.value, value_bytes);
        }
    }
    Ok(Value::Object(json))
}

/// By their numbers in `store::effects::Origin`; others are of later versions.
fn origin(number: u8) -> Value {
    const NAMES: [&str; 12] = [
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
        "copy",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Slot, TableId};
    use crate::store::effects::{BodyWriter, Origin};
    use crate::store::row::Version;
    use crate::store::tx::Effect;

    fn put(name: &'static [u8], value: &'static [u8]) -> Effect {
        let change = Change::Put(Row::string(Bytes::from_static(value)));
        let (table, slot, name) = (TableId(3), Slot(7), Bytes::from_static(name));
        Effect { table, slot, name, change, existed: None }
    }

    fn shown<'r>(touches: &'r [Touch], frame: Option<Frame<'r>>) -> Shown<'r> {
        let mut body = Vec::new();
        let effects = [put(b"name", b"value"), put(b"\xff", b"a long value")];
        BodyWriter::new(&mut body, Origin::STRING).effects(&effects);
        Shown { shard: ShardId(1), lsn: Lsn(9), time_ms: 1_000, touches, body: body.into(), frame }
    }

    #[test]
    fn a_record_looks_the_same_wherever_it_was_read() {
        let touches = [Touch { table: TableId(3), slot: Slot(7), index: 4, term: 1 << 50 }];
        let live = record(&shown(&touches, None), 6).expect("it is whole");
        let touch = json!({"table": 3, "slot": 7, "index": 4, "term": 1u64 << 50});
        let put =
            |key: &str, text: &str| json!({"op": "put", "table": 3, "slot": 7, key: text, "type": "string"});
        let (mut first, mut second) = (put("key", "name"), put("key_hex", "ff"));
        first["value"] = json!("value");
        (second["value"], second["value_bytes"]) = (json!("a long"), json!(12));
        let expected = json!({
            "shard": 1, "lsn": 9, "time": "1970-01-01T00:00:01.000Z", "time_ms": 1000, "from": "string",
            "touches": [touch], "operations": [first, second],
        });
        assert_eq!(live, expected);
        let frame = Frame { term: 2, first: Lsn(8), txn: None };
        let mut stored = record(&shown(&touches, Some(frame)), 6).expect("it is whole");
        let more = stored.as_object_mut().expect("a line is an object");
        assert_eq!((more.remove("term"), more.remove("first_lsn")), (Some(json!(2)), Some(json!(8))));
        assert_eq!(stored, live);
    }

    #[test]
    fn a_damaged_body_and_a_damaged_entry_are_told() {
        let mut damaged = shown(&[], None);
        damaged.body.truncate(damaged.body.len() - 1);
        assert!(record(&damaged, 9).is_err());
        let slot = (TableId(0), Slot(1));
        for element in [false, true] {
            let entry = Entry { element, key: Bytes::from_static(b"k"), value: Bytes::from_static(&[255]) };
            assert!(copy_entry(slot, &entry, 9).is_err());
        }
    }

    #[test]
    fn what_is_copied_is_named_as_in_a_record() {
        let slot = (TableId(0), Slot(1));
        let mut value = Vec::new();
        Row::string(Bytes::from_static(b"v")).encode_into(&mut value);
        let row = Entry { element: false, key: Bytes::from_static(b"name"), value: value.into() };
        let expected =
            json!({"copy": "row", "table": 0, "slot": 1, "key": "name", "type": "string", "value": "v"});
        assert_eq!(copy_entry(slot, &row, 9), Ok(expected));
        let key = [&[0, 1, b'n'][..], &Version(5).0.to_be_bytes(), b"sub"].concat();
        let element = Entry { element: true, key: key.into(), value: Bytes::from_static(b"v") };
        let expected = json!({
            "copy": "element", "table": 0, "slot": 1, "key": "n", "version": 5, "element": "sub", "value": "v",
        });
        assert_eq!(copy_entry(slot, &element, 9), Ok(expected));
    }
}

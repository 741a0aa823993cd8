//! Streams with their consumer groups, as RDB has them: entries in listpacks of some dozens. Knows no
//! other type.
//!
//! A listpack's entries count from the ID under which it stands, and leave out the names of their fields
//! where these are the same as its first's. Source: t_stream.c and rdb.c of Redis 7.0, and of 7.2 for when a
//! consumer was last active.

use super::item::Item;
use super::listpack::{self, Builder};
use super::rest::Source;
use super::{Refused, put_length, put_text};
use crate::store::row::StreamId;
use std::collections::HashSet;

/// Redis's defaults for how much stands in one listpack.
const NODE_ENTRIES_MAX: usize = 100;
const NODE_BYTES_MAX: usize = 4096;

/// What an entry takes in memory beside its fields.
const ENTRY_BYTES: u64 = 64;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// RDB's number for what is not known to a group.
const UNKNOWN: u64 = u64::MAX;

/// An entry's fields with their values, in order; a name may come twice.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// In the order of their IDs.
    pub entries: Vec<(StreamId, Fields)>,
    /// How many entries there are.
    pub length: u64,
    /// The last ID that was given out; no entry's is greater.
    pub last_id: StreamId,
    /// As Redis recorded it, which is of no meaning while there are no entries.
    pub first_id: StreamId,
    /// The greatest ID among entries that were deleted from within; zero if none was.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added: no fewer than there are, and less than 2^63.
    pub entries_added: u64,
    /// Of different names.
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub name: Vec<u8>,
    /// The last ID that was delivered.
    pub last_id: StreamId,
    /// How many entries were read, counted from the first that was ever added, less than 2^63; `None` where
    /// that is unknown.
    pub entries_read: Option<u64>,
    /// In the order of their IDs, of which each comes once; an entry may have been deleted since.
    pub pending: Vec<Pending>,
    /// Of different names.
    pub consumers: Vec<Consumer>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub id: StreamId,
    /// Of the last delivery, in milliseconds since 1970.
    pub delivered_ms: u64,
    /// Less than 2^63.
    pub deliveries: u64,
    /// Index into the group's consumers.
    pub consumer: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    pub name: Vec<u8>,
    /// When it last asked for anything, in milliseconds since 1970.
    pub seen_ms: u64,
    /// When it last got anything; `None` for never. Redis 7.0 has no such time: it is taken for `seen_ms`.
    pub active_ms: Option<u64>,
}

/// How RDB writes a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Redis 5.0.
    First,
    /// Redis 7.0: with what was added and deleted.
    Second,
    /// Redis 7.2: with when consumers were active.
    Third,
}

pub fn read(source: &mut Source<'_>, form: Form) -> Result<Stream, Refused> {
    let mut stream = Stream { entries: entries(source)?, ..Stream::default() };
    stream.length = source.length()?;
    stream.last_id = id(source)?;
    if form == Form::First {
        stream.entries_added = stream.length;
        stream.first_id = stream.entries.first().map_or(StreamId::MAX, |(id, _)| *id);
    } else {
        stream.first_id = id(source)?;
        stream.max_deleted_id = id(source)?;
        stream.entries_added = source.counter()?;
    }
    if stream.length != stream.entries.len() as u64
        || stream.entries_added < stream.length
        || stream.entries.last().is_some_and(|(id, _)| *id > stream.last_id)
    {
        return Err(Refused::Content);
    }
    let mut names = HashSet::new();
    for _ in 0..source.length()? {
        let group = group(source, form, &stream)?;
        if !names.insert(group.name.clone()) {
            return Err(Refused::Content);
        }
        stream.groups.push(group);
    }
    Ok(stream)
}

fn id(source: &mut Source<'_>) -> Result<StreamId, Refused> {
    Ok(StreamId { ms: source.length()?, seq: source.length()? })
}

fn raw_id(source: &mut Source<'_>) -> Result<StreamId, Refused> {
    Ok(StreamId::from_be_bytes(source.rest.array()?))
}

fn entries(source: &mut Source<'_>) -> Result<Vec<(StreamId, Fields)>, Refused> {
    let mut entries = Vec::new();
    let mut last_id = None;
    for _ in 0..source.length()? {
        let master_id = source.text()?.as_ref().try_into().map_err(|_| Refused::Content)?;
        let blob = source.text()?;
        let mut node = Node {
            items: listpack::open(&blob)?,
            master_id: StreamId::from_be_bytes(master_id),
            master_fields: Vec::new(),
        };
        for _ in 0..node.header()? {
            let (id, fields) = node.entry(source)?;
            if last_id >= Some(id) {
                return Err(Refused::Content);
            }
            last_id = Some(id);
            entries.extend(fields.map(|fields| (id, fields)));
        }
        if node.items.next().is_some() {
            return Err(Refused::Content);
        }
    }
    Ok(entries)
}

/// A listpack of entries.
struct Node<'b> {
    items: listpack::Elements<'b>,
    master_id: StreamId,
    master_fields: Vec<Item<'b>>,
}

impl<'b> Node<'b> {
    fn item(&mut self) -> Result<Item<'b>, Refused> {
        self.items.next().unwrap_or(Err(Refused::Content))
    }

    fn int(&mut self) -> Result<i64, Refused> {
        self.item()?.int()
    }

    fn count(&mut self) -> Result<u64, Refused> {
        u64::try_from(self.int()?).map_err(|_| Refused::Content)
    }

    /// Reads what stands before the entries, and answers how many there are, the deleted ones too.
    fn header(&mut self) -> Result<u64, Refused> {
        let entries = self.count()? + self.count()?;
        self.master_fields = (0..self.count()?).map(|_| self.item()).collect::<Result<_, _>>()?;
        if self.int()? == 0 { Ok(entries) } else { Err(Refused::Content) }
    }

    /// An entry's ID, and unless it is deleted its fields.
    fn entry(&mut self, source: &mut Source<'_>) -> Result<(StreamId, Option<Fields>), Refused> {
        let flags = self.int()?;
        // Distances beyond 2^63 are written as negative numbers.
        let id = StreamId {
            ms: self.master_id.ms.wrapping_add(self.int()?.cast_unsigned()),
            seq: self.master_id.seq.wrapping_add(self.int()?.cast_unsigned()),
        };
        let same_fields = flags & SAME_FIELDS != 0;
        let deleted = flags & DELETED != 0;
        let pairs = if same_fields { self.master_fields.len() as u64 } else { self.count()? };
        let mut fields = Fields::new();
        for at in 0..pairs {
            let name = if same_fields { self.master_fields[at as usize] } else { self.item()? };
            let value = self.item()?;
            if !deleted {
                fields.push((source.keep(name.text())?, source.keep(value.text())?));
            }
        }
        if self.count()? != elements(pairs, same_fields) {
            return Err(Refused::Content);
        }
        source.spend(ENTRY_BYTES)?;
        Ok((id, (!deleted).then_some(fields)))
    }
}

/// How many elements of a listpack an entry takes: flags, the two parts of its ID, values, and unless they
/// are the same as the first's, names and their number.
fn elements(pairs: u64, same_fields: bool) -> u64 {
    if same_fields { 3 + pairs } else { 3 + 1 + 2 * pairs }
}

fn group(source: &mut Source<'_>, form: Form, stream: &Stream) -> Result<Group, Refused> {
    let (name, last_id) = (source.element()?, id(source)?);
    let entries_read = match form {
        Form::First => entries_read(stream, last_id),
        _ => match source.length()? {
            UNKNOWN => None,
            read if read >> 63 == 0 => Some(read),
            _ => return Err(Refused::Content),
        },
    };
    let (pending, consumers) = pending(source, form)?;
    Ok(Group { name, last_id, entries_read, pending, consumers })
}

/// How many entries a group has read up to `id`, of a stream that does not say what was deleted from it.
/// Source: streamEstimateDistanceFromFirstEverEntry of Redis 7.0.
fn entries_read(stream: &Stream, id: StreamId) -> Option<u64> {
    match stream.length {
        0 => Some(0),
        length if id == stream.last_id => Some(length),
        _ if id < stream.first_id => Some(0),
        _ if id == stream.first_id => Some(1),
        _ => None,
    }
}

/// A group's pending entries come first, then its consumers, each with the IDs that it holds of these.
fn pending(source: &mut Source<'_>, form: Form) -> Result<(Vec<Pending>, Vec<Consumer>), Refused> {
    const NOBODY: usize = usize::MAX;
    let mut pending: Vec<Pending> = (0..source.length()?)
        .map(|_| {
            let id = raw_id(source)?;
            let delivered_ms = source.time_ms()?.ok_or(Refused::Content)?;
            Ok(Pending { id, delivered_ms, deliveries: source.counter()?, consumer: NOBODY })
        })
        .collect::<Result<_, _>>()?;
    if !pending.is_sorted_by(|a, b| a.id < b.id) {
        return Err(Refused::Content);
    }
    let mut consumers = Vec::new();
    let mut names = HashSet::new();
    for index in 0..source.length()? as usize {
        let (name, seen_ms) = (source.element()?, source.time_ms()?.ok_or(Refused::Content)?);
        let active_ms = if form < Form::Third { Some(seen_ms) } else { source.time_ms()? };
        for _ in 0..source.length()? {
            let id = raw_id(source)?;
            let at = pending.binary_search_by_key(&id, |entry| entry.id).map_err(|_| Refused::Content)?;
            if pending[at].consumer != NOBODY {
                return Err(Refused::Content);
            }
            pending[at].consumer = index;
        }
        if !names.insert(name.clone()) {
            return Err(Refused::Content);
        }
        consumers.push(Consumer { name, seen_ms, active_ms });
    }
    let all_held = pending.iter().all(|entry| entry.consumer != NOBODY);
    if all_held { Ok((pending, consumers)) } else { Err(Refused::Content) }
}

/// Writes a stream in its second form.
pub fn put(payload: &mut Vec<u8>, stream: &Stream) {
    let nodes = nodes(&stream.entries);
    put_length(payload, nodes.len() as u64);
    for node in nodes {
        put_text(payload, &node[0].0.to_be_bytes());
        put_text(payload, &node_listpack(node));
    }
    put_length(payload, stream.length);
    for id in [stream.last_id, stream.first_id, stream.max_deleted_id] {
        put_id(payload, id);
    }
    put_length(payload, stream.entries_added);
    put_length(payload, stream.groups.len() as u64);
    stream.groups.iter().for_each(|group| put_group(payload, group));
}

fn put_id(payload: &mut Vec<u8>, id: StreamId) {
    put_length(payload, id.ms);
    put_length(payload, id.seq);
}

/// Entries as they stand together: no node is empty, and none too long unless by a single entry.
fn nodes(entries: &[(StreamId, Fields)]) -> Vec<&[(StreamId, Fields)]> {
    let (mut nodes, mut start, mut node_bytes) = (Vec::new(), 0, 0);
    for (at, (_, fields)) in entries.iter().enumerate() {
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if at > start && (at - start == NODE_ENTRIES_MAX || node_bytes + bytes > NODE_BYTES_MAX) {
            nodes.push(&entries[start..at]);
            (start, node_bytes) = (at, 0);
        }
        node_bytes += bytes;
    }
    if start < entries.len() {
        nodes.push(&entries[start..]);
    }
    nodes
}

fn node_listpack(entries: &[(StreamId, Fields)]) -> Vec<u8> {
    let (master_id, master_fields) = &entries[0];
    let mut node = Builder::new();
    node.int(entries.len() as i64);
    node.int(0);
    node.int(master_fields.len() as i64);
    master_fields.iter().for_each(|(name, _)| node.text(name));
    node.int(0);
    for (id, fields) in entries {
        let same_fields = fields.iter().map(|(name, _)| name).eq(master_fields.iter().map(|(name, _)| name));
        node.int(if same_fields { SAME_FIELDS } else { 0 });
        node.int(id.ms.wrapping_sub(master_id.ms).cast_signed());
        node.int(id.seq.wrapping_sub(master_id.seq).cast_signed());
        if !same_fields {
            node.int(fields.len() as i64);
        }
        for (name, value) in fields {
            if !same_fields {
                node.text(name);
            }
            node.text(value);
        }
        node.int(elements(fields.len() as u64, same_fields) as i64);
    }
    node.finish()
}

fn put_group(payload: &mut Vec<u8>, group: &Group) {
    put_text(payload, &group.name);
    put_id(payload, group.last_id);
    put_length(payload, group.entries_read.unwrap_or(UNKNOWN));
    put_length(payload, group.pending.len() as u64);
    let mut held = vec![Vec::new(); group.consumers.len()];
    for entry in &group.pending {
        held[entry.consumer].push(entry.id);
        payload.extend_from_slice(&entry.id.to_be_bytes());
        payload.extend_from_slice(&entry.delivered_ms.to_le_bytes());
        put_length(payload, entry.deliveries);
    }
    put_length(payload, group.consumers.len() as u64);
    for (consumer, held) in group.consumers.iter().zip(held) {
        put_text(payload, &consumer.name);
        payload.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        put_length(payload, held.len() as u64);
        held.iter().for_each(|id| payload.extend_from_slice(&id.to_be_bytes()));
    }
}

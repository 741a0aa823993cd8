//! Commands on streams and their groups. Which consumers have nothing pending is not kept: whether a read
//! of nothing makes one differs between versions of Redis.

use super::{Answer, Blob, Model, Outcome, Reply, bulks, int, number, word};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u64, pub u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Id {
    pub fn parse(arg: &[u8]) -> Id {
        let (ms, seq) = word(arg).split_once('-').expect("ids are whole here");
        Id(number(ms.as_bytes()), number(seq.as_bytes()))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub consumer: Blob,
    pub deliveries: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    pub last: Id,
    pub pending: BTreeMap<Id, Pending>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    /// Fields and values, one after the other.
    pub entries: BTreeMap<Id, Vec<Blob>>,
    pub last: Id,
    pub max_deleted: Id,
    pub added: u64,
    pub groups: BTreeMap<Blob, Group>,
}

impl Stream {
    fn trim(&mut self, most: usize) -> usize {
        let too_many = self.entries.len().saturating_sub(most);
        (0..too_many).for_each(|_| drop(self.entries.pop_first()));
        too_many
    }
}

const NO_GROUP: &str = "NOGROUP";

impl Model {
    fn group(&mut self, key: &[u8], group: &[u8]) -> Result<Option<&mut Group>, &'static str> {
        Ok(self.stream(key)?.and_then(|stream| stream.groups.get_mut(group)))
    }

    pub(super) fn run_stream(&mut self, name: &str, args: &[Vec<u8>]) -> Outcome {
        let key = &args[0][..];
        match name {
            "XADD" => self.xadd(key, &args[1..]),
            "XDEL" => {
                let Some(stream) = self.stream(key)? else { return int(0) };
                let mut deleted = 0;
                for id in args[1..].iter().map(|id| Id::parse(id)) {
                    if stream.entries.remove(&id).is_some() {
                        stream.max_deleted = stream.max_deleted.max(id);
                        deleted += 1;
                    }
                }
                int(deleted)
            }
            // key MAXLEN count
            "XTRIM" => {
                let most = number(&args[2]);
                int(self.stream(key)?.map_or(0, |stream| stream.trim(most)))
            }
            "XGROUP" => self.xgroup(word(key), &args[1], &args[2], &args[3..]),
            "XREADGROUP" => self.xreadgroup(args),
            "XACK" => {
                let Some(group) = self.group(key, &args[1])? else { return int(0) };
                let mut acked = |id: &&Vec<u8>| group.pending.remove(&Id::parse(id)).is_some();
                int(args[2..].iter().filter(|id| acked(id)).count())
            }
            // key group consumer 0 id... JUSTID
            "XCLAIM" => {
                let ids: Vec<Id> = args[4..args.len() - 1].iter().map(|id| Id::parse(id)).collect();
                let (claimed, _) = self.claim(key, &args[1], &args[2], &ids)?;
                Ok(Answer::Is(bulks(&claimed)))
            }
            // key group consumer 0 start COUNT count JUSTID
            "XAUTOCLAIM" => {
                let start = Id::parse(&args[4]);
                let group = self.group(key, &args[1])?.ok_or(NO_GROUP)?;
                let ids = group.pending.range(start..).map(|(id, _)| *id);
                let ids: Vec<Id> = ids.take(number(&args[6])).collect();
                let (claimed, deleted) = self.claim(key, &args[1], &args[2], &ids)?;
                let pending = &self.group(key, &args[1])?.expect("it was there").pending;
                let next = ids.last().and_then(|last| pending.range(Id(last.0, last.1 + 1)..).next());
                let next = next.map_or(Id::default(), |(id, _)| *id).to_string();
                Ok(Answer::Is(Reply::Array(vec![Reply::bulk(next), bulks(&claimed), bulks(&deleted)])))
            }
            other => panic!("{other} is not known here"),
        }
    }

    /// [MAXLEN count] id field value...; the id's second part may be `*`.
    fn xadd(&mut self, key: &[u8], args: &[Vec<u8>]) -> Outcome {
        let (most, args) = match &args[0][..] {
            b"MAXLEN" => (Some(number(&args[1])), &args[2..]),
            _ => (None, args),
        };
        let last = self.stream(key)?.map_or(Id::default(), |stream| stream.last);
        let id = match word(&args[0]).strip_suffix("-*") {
            Some(ms) if number::<u64>(ms.as_bytes()) == last.0 => Id(last.0, last.1 + 1),
            Some(ms) => Id(number(ms.as_bytes()), 0),
            None => Id::parse(&args[0]),
        };
        if id <= last {
            return Err("ERR The ID specified in XADD is equal or smaller");
        }
        let stream = self.make_stream(key)?;
        stream.entries.insert(id, args[1..].iter().map(|arg| arg[..].into()).collect());
        stream.last = id;
        stream.added += 1;
        if let Some(most) = most {
            stream.trim(most);
        }
        Ok(Answer::Is(Reply::bulk(id.to_string())))
    }

    /// CREATE always with MKSTREAM.
    fn xgroup(&mut self, what: &str, key: &[u8], group: &[u8], args: &[Vec<u8>]) -> Outcome {
        if what == "CREATE" {
            let stream = self.make_stream(key)?;
            if stream.groups.contains_key(group) {
                return Err("BUSYGROUP");
            }
            let last = if args[0] == b"$" { stream.last } else { Id::parse(&args[0]) };
            stream.groups.insert(group.into(), Group { last, ..Group::default() });
            return Ok(Answer::Is(Reply::ok()));
        }
        let stream = self.stream(key)?.ok_or("ERR The XGROUP subcommand requires the key to exist")?;
        let last = stream.last;
        if what == "DESTROY" {
            return int(usize::from(stream.groups.remove(group).is_some()));
        }
        let group = stream.groups.get_mut(group).ok_or(NO_GROUP)?;
        match what {
            "SETID" => {
                group.last = if args[0] == b"$" { last } else { Id::parse(&args[0]) };
                Ok(Answer::Is(Reply::ok()))
            }
            "CREATECONSUMER" => Ok(Answer::Any),
            "DELCONSUMER" => {
                let before = group.pending.len();
                group.pending.retain(|_, pending| pending.consumer[..] != args[0][..]);
                int(before - group.pending.len())
            }
            other => panic!("XGROUP {other} is not known here"),
        }
    }

    /// GROUP group consumer COUNT count STREAMS key id
    fn xreadgroup(&mut self, args: &[Vec<u8>]) -> Outcome {
        let [_, name, consumer, _, count, _, key, from] = args else { panic!("the form that is known here") };
        let count = number(count);
        let Some(stream) = self.stream(key)? else { return Err(NO_GROUP) };
        let group = stream.groups.get_mut(&name[..]).ok_or(NO_GROUP)?;
        let entry = |id: &Id, entry: Option<&Vec<Blob>>| {
            let fields = entry.map_or(Reply::NilArray, bulks);
            Reply::Array(vec![Reply::bulk(id.to_string()), fields])
        };
        let mut entries = Vec::new();
        if from == b">" {
            for (id, fields) in stream.entries.range(Id(group.last.0, group.last.1 + 1)..).take(count) {
                group.last = *id;
                group.pending.insert(*id, Pending { consumer: consumer[..].into(), deliveries: 1 });
                entries.push(entry(id, Some(fields)));
            }
            if entries.is_empty() {
                return Ok(Answer::Is(Reply::NilArray));
            }
        } else {
            let own = group.pending.range_mut(Id::parse(from)..);
            for (id, pending) in own.filter(|(_, pending)| pending.consumer[..] == consumer[..]).take(count) {
                let fields = stream.entries.get(id);
                pending.deliveries += u64::from(fields.is_some());
                entries.push(entry(id, fields));
            }
        }
        let stream = Reply::Array(vec![Reply::bulk(key), Reply::Array(entries)]);
        Ok(Answer::Is(Reply::Array(vec![stream])))
    }

    /// Gives pending entries to a consumer; those that are no more in the stream are no more pending. Both.
    fn claim(
        &mut self,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
        ids: &[Id],
    ) -> Result<(Vec<Blob>, Vec<Blob>), &'static str> {
        let stream = self.stream(key)?.ok_or(NO_GROUP)?;
        let group = stream.groups.get_mut(group).ok_or(NO_GROUP)?;
        let (mut claimed, mut deleted) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(pending) = group.pending.get_mut(id) else { continue };
            let text: Blob = id.to_string().into_bytes().into();
            if stream.entries.contains_key(id) {
                pending.consumer = consumer.into();
                claimed.push(text);
            } else {
                group.pending.remove(id);
                deleted.push(text);
            }
        }
        Ok((claimed, deleted))
    }
}

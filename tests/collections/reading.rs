//! Reads all that a key holds, and compares what different commands say of it: counts, places, samples.

use super::commands::{is_fading, is_sketch, now_ms};
use super::sorted::ranked;
use super::streams::{Group, Id, Pending, Stream};
use super::{Blob, Data, Field, Value};
use crate::harness::{Client, Value as Reply, render};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A server's clock may stand still for a turn.
const CLOCK_SLACK_MS: u64 = 200;
const SAMPLES: usize = 5;

/// Of one reading.
type Found<T> = Result<T, String>;

/// All keys of a database, and the moments within which they were read.
pub fn read_all(client: &mut Client, random: &mut StdRng) -> Found<(BTreeMap<Blob, Value>, Range<u64>)> {
    let began_ms = now_ms() - CLOCK_SLACK_MS;
    let mut all = BTreeMap::new();
    let listed = client.must(&args!["KEYS", "*"]);
    let mut names: Vec<Blob> = listed.items().iter().map(blob).collect();
    names.sort();
    for name in &names {
        let found = read_key(client, name, random).map_err(|e| format!("{}: {e}", name.escape_ascii()))?;
        all.extend(found.map(|found| (name.clone(), found)));
    }
    if !names.iter().any(|name| is_fading(name)) {
        equal("DBSIZE", &client.ask("DBSIZE"), &int(names.len()))?;
    }
    Ok((all, began_ms..now_ms() + CLOCK_SLACK_MS))
}

/// What a key holds; an error if two commands disagree.
fn read_key(client: &mut Client, key: &[u8], random: &mut StdRng) -> Found<Option<Value>> {
    let mut reader = Reader { client, key, random };
    let end = reader.ask("PEXPIRETIME", &[]).int().unwrap_or_default();
    let expire_ms = match end {
        -2 => return Ok(None),
        -1 => None,
        end => Some(end as u64),
    };
    let kind = reader.ask("TYPE", &[]);
    let data = match kind.bytes().unwrap_or_default() {
        // It has ended in between.
        b"none" => return Ok(None),
        b"string" if is_sketch(key) => reader.registers()?,
        b"string" => reader.text()?,
        b"hash" => reader.hash()?,
        b"list" => reader.list()?,
        b"set" => reader.set()?,
        b"zset" => reader.sorted()?,
        b"stream" => reader.stream()?,
        other => return Err(format!("a key of type {}", other.escape_ascii())),
    };
    // A collection that ended while it was read is empty.
    Ok((!data.is_empty()).then_some(Value { data, expire_ms }))
}

struct Reader<'a> {
    client: &'a mut Client,
    key: &'a [u8],
    random: &'a mut StdRng,
}

fn blob(reply: &Reply) -> Blob {
    reply.bytes().unwrap_or_else(|| panic!("{} instead of text", render(reply))).into()
}

fn int(number: usize) -> Reply {
    Reply::Int(number as i64)
}

fn unsigned(reply: &Reply) -> u64 {
    u64::try_from(reply.int().expect("a number")).expect("it is not negative")
}

fn equal(what: &str, found: &Reply, expected: &Reply) -> Found<()> {
    if found == expected {
        return Ok(());
    }
    let short = |reply: &Reply| render(reply).chars().take(300).collect::<String>();
    Err(format!("{what} is {}, but should be {}", short(found), short(expected)))
}

/// The value behind a name in a flat list of names and values.
fn named<'r>(reply: &'r Reply, name: &str) -> &'r Reply {
    let pair = reply.items().chunks(2).find(|pair| pair[0].bytes() == Some(name.as_bytes()));
    &pair.unwrap_or_else(|| panic!("no {name} in {}", render(reply)))[1]
}

impl Reader<'_> {
    fn ask(&mut self, command: &str, more: &[&[u8]]) -> Reply {
        let mut args = args![command, self.key];
        args.extend(more.iter().map(|arg| arg.to_vec()));
        self.client.must(&args)
    }

    /// What is read from a key that may end while it is read is not compared.
    fn same(&mut self, command: &str, more: &[&[u8]], expected: &Reply) -> Found<()> {
        if is_fading(self.key) {
            return Ok(());
        }
        let found = self.ask(command, more);
        let words: Vec<String> =
            more.iter().map(|arg| arg[..arg.len().min(40)].escape_ascii().to_string()).collect();
        equal(&format!("{command} {}", words.join(" ")), &found, expected)
    }

    fn sample<T>(&mut self, of: &[T]) -> Vec<usize> {
        if of.is_empty() {
            return Vec::new();
        }
        let random = (0..SAMPLES).map(|_| self.random.random_range(0..of.len()));
        [0, of.len() - 1].into_iter().chain(random).collect()
    }

    /// All that the steps of a SCAN bring, which must be each element once.
    fn scanned(&mut self, command: &str) -> Found<Vec<Reply>> {
        let mut cursor = b"0".to_vec();
        let mut all = Vec::new();
        loop {
            let page = self.ask(command, &[&cursor, b"COUNT", b"100"]);
            let [next, items] = page.items() else { return Err(format!("{command}: {}", render(&page))) };
            all.extend(items.items().to_vec());
            cursor = next.bytes().unwrap_or_default().to_vec();
            if cursor == b"0" {
                return Ok(all);
            }
        }
    }

    fn text(&mut self) -> Found<Data> {
        let text = self.ask("GET", &[]);
        if text.is_nil() {
            return Ok(Data::Set(BTreeSet::new()));
        }
        let text = blob(&text);
        self.same("STRLEN", &[], &int(text.len()))?;
        Ok(Data::Text(text))
    }

    fn registers(&mut self) -> Found<Data> {
        // Asking for the registers would change the key.
        let copy = b"scratch";
        self.same("COPY", &[copy, b"REPLACE"], &int(1))?;
        let registers = self.client.must(&args!["PFDEBUG", "GETREG", copy]);
        self.client.must(&args!["DEL", copy]);
        let registers = registers.items().iter().map(unsigned).enumerate();
        let set = registers.filter(|(_, value)| *value > 0).map(|(at, value)| (at as u16, value as u8));
        Ok(Data::Registers(set.collect()))
    }

    fn hash(&mut self) -> Found<Data> {
        let all = self.ask("HGETALL", &[]);
        let pairs: Vec<(Blob, Blob)> =
            all.items().chunks(2).map(|pair| (blob(&pair[0]), blob(&pair[1]))).collect();
        let mut fields = BTreeMap::new();
        for (names, count) in pairs.chunks(1_000).map(|chunk| (chunk, chunk.len().to_string())) {
            let names = names.iter();
            let args: Vec<&[u8]> = [b"FIELDS", count.as_bytes()]
                .into_iter()
                .chain(names.clone().map(|(name, _)| &name[..]))
                .collect();
            let ends = self.ask("HPEXPIRETIME", &args);
            for ((name, value), end) in names.zip(ends.items()) {
                let expire_ms = match end.int() {
                    Some(-2) if is_fading(self.key) => continue,
                    Some(-1) => None,
                    Some(end @ 1..) => Some(end as u64),
                    _ => return Err(format!("HPEXPIRETIME is {}", render(end))),
                };
                fields.insert(name.clone(), Field { value: value.clone(), expire_ms });
            }
        }
        if is_fading(self.key) {
            return Ok(Data::Hash(fields));
        }
        equal("fields listed by HGETALL, each once,", &int(fields.len()), &int(pairs.len()))?;
        self.same("HLEN", &[], &int(fields.len()))?;
        for at in self.sample(&pairs) {
            let (name, value) = &pairs[at];
            self.same("HGET", &[name], &Reply::bulk(value))?;
            self.same("HSTRLEN", &[name], &int(value.len()))?;
        }
        let scanned = self.scanned("HSCAN")?;
        let scanned: BTreeMap<Blob, Blob> =
            scanned.chunks(2).map(|pair| (blob(&pair[0]), blob(&pair[1]))).collect();
        (scanned == pairs.into_iter().collect()).then_some(()).ok_or("HSCAN is not HGETALL")?;
        Ok(Data::Hash(fields))
    }

    fn list(&mut self) -> Found<Data> {
        let items = self.ask("LRANGE", &[b"0", b"-1"]);
        let items: Vec<Blob> = items.items().iter().map(blob).collect();
        self.same("LLEN", &[], &int(items.len()))?;
        for at in self.sample(&items) {
            let item = Reply::bulk(&items[at]);
            self.same("LINDEX", &[at.to_string().as_bytes()], &item)?;
            self.same("LINDEX", &[(at as i64 - items.len() as i64).to_string().as_bytes()], &item)?;
            let first = items.iter().position(|other| *other == items[at]).expect("it is one of them");
            self.same("LPOS", &[&items[at]], &int(first))?;
            let end = items.len().min(at + 10);
            let some = Reply::Array(items[at..end].iter().map(Reply::bulk).collect());
            self.same("LRANGE", &[at.to_string().as_bytes(), (end - 1).to_string().as_bytes()], &some)?;
        }
        Ok(Data::List(items.into()))
    }

    fn set(&mut self) -> Found<Data> {
        let members = self.ask("SMEMBERS", &[]);
        let listed: Vec<Blob> = members.items().iter().map(blob).collect();
        let members: BTreeSet<Blob> = listed.iter().cloned().collect();
        equal("members listed by SMEMBERS, each once,", &int(members.len()), &int(listed.len()))?;
        self.same("SCARD", &[], &int(members.len()))?;
        for at in self.sample(&listed) {
            self.same("SISMEMBER", &[&listed[at]], &int(1))?;
        }
        self.same("SISMEMBER", &[b"nobody"], &int(0))?;
        if !is_fading(self.key) {
            let scanned: BTreeSet<Blob> = self.scanned("SSCAN")?.iter().map(blob).collect();
            (scanned == members).then_some(()).ok_or("SSCAN is not SMEMBERS")?;
        }
        Ok(Data::Set(members))
    }

    fn sorted(&mut self) -> Found<Data> {
        let score = |reply: &Reply| -> f64 { super::number(reply.bytes().expect("a score is text")) };
        let all = self.ask("ZRANGE", &[b"0", b"-1", b"WITHSCORES"]);
        let listed: Vec<(Blob, f64)> =
            all.items().chunks(2).map(|pair| (blob(&pair[0]), score(&pair[1]))).collect();
        let members: BTreeMap<Blob, f64> = listed.iter().cloned().collect();
        (ranked(&members) == listed).then_some(()).ok_or("ZRANGE is not in order, or names one twice")?;
        self.same("ZCARD", &[], &int(listed.len()))?;
        for at in self.sample(&listed) {
            let (member, of) = &listed[at];
            self.same("ZRANK", &[member], &int(at))?;
            self.same("ZREVRANK", &[member], &int(listed.len() - 1 - at))?;
            self.same("ZSCORE", &[member], &Reply::bulk(of.to_string()))?;
            let place = at.to_string();
            self.same(
                "ZRANGE",
                &[place.as_bytes(), place.as_bytes()],
                &Reply::Array(vec![Reply::bulk(member)]),
            )?;
            let above = listed.iter().filter(|(_, other)| other >= of).count();
            self.same("ZCOUNT", &[of.to_string().as_bytes(), b"+inf"], &int(above))?;
        }
        if !is_fading(self.key) {
            let scanned = self.scanned("ZSCAN")?;
            let scanned: BTreeMap<Blob, f64> =
                scanned.chunks(2).map(|pair| (blob(&pair[0]), score(&pair[1]))).collect();
            (scanned == members).then_some(()).ok_or("ZSCAN is not ZRANGE")?;
        }
        Ok(Data::Sorted(members))
    }

    fn stream(&mut self) -> Found<Data> {
        let entry = |reply: &Reply| {
            let [id, fields] = reply.items() else { panic!("{} is no entry", render(reply)) };
            (Id::parse(&blob(id)), fields.items().iter().map(blob).collect::<Vec<Blob>>())
        };
        let listed = self.ask("XRANGE", &[b"-", b"+"]);
        let entries: Vec<(Id, Vec<Blob>)> = listed.items().iter().map(entry).collect();
        (entries.is_sorted_by(|a, b| a.0 < b.0)).then_some(()).ok_or("XRANGE is not in order")?;
        self.same("XLEN", &[], &int(entries.len()))?;
        let backward = Reply::Array(listed.items().iter().rev().cloned().collect());
        self.same("XREVRANGE", &[b"+", b"-"], &backward)?;
        for at in self.sample(&entries) {
            let id = entries[at].0.to_string();
            let one = Reply::Array(vec![listed.items()[at].clone()]);
            self.same("XRANGE", &[id.as_bytes(), id.as_bytes()], &one)?;
        }
        let info = self.client.must(&args!["XINFO", "STREAM", self.key]);
        equal("XINFO's length", named(&info, "length"), &int(entries.len()))?;
        for (name, at) in [("first-entry", 0), ("last-entry", entries.len().wrapping_sub(1))] {
            equal(name, named(&info, name), listed.items().get(at).unwrap_or(&Reply::NilBulk))?;
        }
        let id = |name| Id::parse(&blob(named(&info, name)));
        let mut stream = Stream {
            entries: entries.into_iter().collect(),
            last: id("last-generated-id"),
            max_deleted: id("max-deleted-entry-id"),
            added: unsigned(named(&info, "entries-added")),
            groups: BTreeMap::new(),
        };
        let groups = self.client.must(&args!["XINFO", "GROUPS", self.key]);
        equal("XINFO's groups", named(&info, "groups"), &int(groups.items().len()))?;
        for info in groups.items() {
            let name = blob(named(info, "name"));
            let group = self.group(&name)?;
            equal("pending of XINFO GROUPS", named(info, "pending"), &int(group.pending.len()))?;
            let last = Id::parse(&blob(named(info, "last-delivered-id")));
            stream.groups.insert(name, Group { last, ..group });
        }
        Ok(Data::Stream(stream))
    }

    /// What is pending in a group, listed, counted and by consumer.
    fn group(&mut self, name: &[u8]) -> Found<Group> {
        let listed = self.ask("XPENDING", &[name, b"-", b"+", b"1000000"]);
        let mut pending = BTreeMap::new();
        for one in listed.items() {
            let [id, consumer, _, deliveries] = one.items() else { return Err(render(one)) };
            let one = Pending { consumer: blob(consumer), deliveries: unsigned(deliveries) };
            pending.insert(Id::parse(&blob(id)), one);
        }
        let mut by_consumer: BTreeMap<Blob, usize> = BTreeMap::new();
        pending.values().for_each(|one| *by_consumer.entry(one.consumer.clone()).or_default() += 1);
        let edge = |id: Option<&Id>| id.map_or(Reply::NilBulk, |id| Reply::bulk(id.to_string()));
        let counts = by_consumer
            .iter()
            .map(|(name, count)| Reply::Array(vec![Reply::bulk(name), Reply::bulk(count.to_string())]));
        let counts = if by_consumer.is_empty() { Reply::NilArray } else { Reply::Array(counts.collect()) };
        let (first, last) = (edge(pending.keys().next()), edge(pending.keys().next_back()));
        self.same("XPENDING", &[name], &Reply::Array(vec![int(pending.len()), first, last, counts]))?;
        let consumers = self.client.must(&args!["XINFO", "CONSUMERS", self.key, name]);
        for info in consumers.items() {
            let consumer = blob(named(info, "name"));
            let count = by_consumer.remove(&consumer).unwrap_or_default();
            equal("pending of XINFO CONSUMERS", named(info, "pending"), &int(count))?;
            let count = count.to_string();
            let own = self.ask("XPENDING", &[name, b"-", b"+", b"1000000", &consumer]);
            equal(
                "pending of one consumer",
                &Reply::bulk(own.items().len().to_string()),
                &Reply::bulk(count),
            )?;
        }
        match by_consumer.keys().next() {
            None => Ok(Group { pending, last: Id::default() }),
            Some(one) => Err(format!("{} is no consumer, but has something pending", one.escape_ascii())),
        }
    }
}

//! XCLAIM and XAUTOCLAIM: pending entries that are given to another consumer of the group.

use super::group::idle_since;
use super::{ONE_KEY, entry_reply, group_of, id};
use crate::command::{KeyCommand, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::store::row::StreamId;
use crate::store::tx::Tx;
use crate::types::stream::{Group, Pending, PendingRange, Stream};
use bytes::Bytes;

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "xclaim",
            arity: -6,
            flags: flag::WRITE | flag::FAST,
            complexity: "O(N) where N is the number of ids",
            summary: "Gives pending entries to another consumer",
            ..ONE_KEY
        },
        run: xclaim,
    },
    KeyCommand {
        spec: Spec {
            name: "xautoclaim",
            arity: -6,
            flags: flag::WRITE | flag::FAST,
            since: "6.2.0",
            complexity: "O(N) where N is the number of entries looked at",
            summary: "Gives pending entries, from an id on, to another consumer",
            ..ONE_KEY
        },
        run: xautoclaim,
    },
];

/// How entries are claimed.
struct Claim {
    consumer: Bytes,
    /// Only what was delivered until then.
    until_ms: u64,
    delivered_ms: u64,
    retry_count: Option<u64>,
    /// Also what is not pending.
    force: bool,
    just_id: bool,
}

impl Claim {
    /// Claims an entry that is in the stream; its reply, or none where it is left as it is.
    fn claim(
        &self,
        tx: &mut Tx<'_>,
        stream: &Stream<'_>,
        group: &mut Group<'_>,
        id: StreamId,
        before: Option<Pending>,
    ) -> Result<Claimed, Stop> {
        let Some(entry) = stream.get(tx, id)? else { return Ok(Claimed::Deleted) };
        let deliveries = match &before {
            Some(before) if before.delivered_ms > self.until_ms => return Ok(Claimed::Left),
            Some(before) => before.deliveries,
            None if self.force => 1,
            None => return Ok(Claimed::Left),
        };
        let deliveries = match self.retry_count {
            Some(count) => count,
            None => deliveries.wrapping_add(u64::from(!self.just_id)),
        };
        group.open_consumer(tx, &self.consumer, true)?;
        let now = Pending { delivered_ms: self.delivered_ms, deliveries, consumer: self.consumer.clone() };
        group.assign(tx, id, before.as_ref(), &now)?;
        Ok(Claimed::Taken(if self.just_id { id::reply(id) } else { entry_reply(&entry)? }))
    }
}

enum Claimed {
    Taken(Reply),
    /// Too young, or not pending.
    Left,
    /// No longer in the stream.
    Deleted,
}

fn int_or(arg: &[u8], command: &str, what: &str) -> Result<i64, ClientError> {
    parse_i64(arg).ok_or_else(|| ClientError::new(format!("ERR Invalid {what} argument for {command}")))
}

/// XCLAIM's options, and the last id that the group is told.
fn options(tx: &Tx<'_>, args: &Args<'_>, mut at: usize) -> Result<(Claim, StreamId), ClientError> {
    let now_ms = tx.now_ms() as i64;
    let (mut delivered_ms, mut retry_count, mut last_id) = (None, None, StreamId::MIN);
    let (mut force, mut just_id) = (false, false);
    while at < args.len() {
        let more = at + 1 < args.len();
        let value = |what| int_or(args.get(at + 1), "XCLAIM", what);
        let mut taken = 2;
        if args.is(at, "force") {
            (force, taken) = (true, 1);
        } else if args.is(at, "justid") {
            (just_id, taken) = (true, 1);
        } else if args.is(at, "idle") && more {
            delivered_ms = Some(now_ms.wrapping_sub(value("IDLE option")?));
        } else if args.is(at, "time") && more {
            delivered_ms = Some(value("TIME option")?);
        } else if args.is(at, "retrycount") && more {
            retry_count = u64::try_from(value("RETRYCOUNT option")?).ok();
        } else if args.is(at, "lastid") && more {
            last_id = id::id(args.get(at + 1))?;
        } else {
            let given = String::from_utf8_lossy(args.get(at));
            return Err(ClientError::new(format!("ERR Unrecognized XCLAIM option '{given}'")));
        }
        at += taken;
    }
    // A moment that cannot be is taken for now.
    let delivered_ms = delivered_ms.filter(|ms| (0..=now_ms).contains(ms)).unwrap_or(now_ms).unsigned_abs();
    let consumer = Bytes::copy_from_slice(id::name(args.get(3))?);
    Ok((Claim { consumer, until_ms: u64::MAX, delivered_ms, retry_count, force, just_id }, last_id))
}

fn xclaim(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let (stream, mut group) = group_of(tx, tx.key(args.get(1)), id::name(args.get(2))?, "")?;
    let idle_ms = int_or(args.get(4), "XCLAIM", "min-idle-time")?;
    let ids: Vec<StreamId> = args.iter(5).map_while(|arg| id::id(arg).ok()).collect();
    let (claim, last_id) = options(tx, args, 5 + ids.len())?;
    let claim = Claim { until_ms: idle_since(idle_ms, tx.now_ms()), ..claim };
    group.head.last_id = group.head.last_id.max(last_id);
    let mut claimed = Vec::new();
    for id in ids {
        let before = group.pending_at(tx, id)?;
        match claim.claim(tx, &stream, &mut group, id, before.clone())? {
            Claimed::Taken(reply) => claimed.push(reply),
            Claimed::Left => {}
            Claimed::Deleted => {
                if let Some(before) = before {
                    group.release(tx, id, &before)?;
                }
            }
        }
    }
    group.save(tx);
    Ok(Reply::Array(claimed))
}

fn xautoclaim(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    /// Pending entries looked at for each that may be claimed.
    const ATTEMPTS: u64 = 10;
    const COUNT_MAX: i64 = i64::MAX / 16;
    let idle_ms = int_or(args.get(4), "XAUTOCLAIM", "min-idle-time")?;
    let mut next = Some(id::start(args.get(5))?);
    let (mut count, mut just_id, mut at) = (100, false, 6);
    while at < args.len() {
        if args.is(at, "count") && at + 1 < args.len() {
            let given = parse_i64(args.get(at + 1)).filter(|count| (1..=COUNT_MAX).contains(count));
            count = given.ok_or(ClientError::fixed("ERR COUNT must be > 0"))?.unsigned_abs();
            at += 1;
        } else if args.is(at, "justid") {
            just_id = true;
        } else {
            return Err(ClientError::SYNTAX.into());
        }
        at += 1;
    }
    let (stream, mut group) = group_of(tx, tx.key(args.get(1)), id::name(args.get(2))?, "")?;
    let consumer = Bytes::copy_from_slice(id::name(args.get(3))?);
    let (until_ms, delivered_ms) = (idle_since(idle_ms, tx.now_ms()), tx.now_ms());
    let claim = Claim { consumer, until_ms, delivered_ms, retry_count: None, force: false, just_id };
    let (mut claimed, mut deleted, mut attempts) = (Vec::new(), Vec::new(), count * ATTEMPTS);
    'all: while let Some(from) = next.take() {
        // One more than can be claimed, to know where to go on.
        let wanted = count.min(attempts) + 1;
        let batch = group.pending(tx, PendingRange { from, count: wanted, ..PendingRange::ALL })?;
        let more = batch.len() as u64 == wanted;
        for (id, before) in batch {
            if count == 0 || attempts == 0 {
                next = Some(id);
                break 'all;
            }
            attempts -= 1;
            next = id.next().filter(|_| more);
            match claim.claim(tx, &stream, &mut group, id, Some(before.clone()))? {
                Claimed::Taken(reply) => claimed.push(reply),
                Claimed::Left => continue,
                Claimed::Deleted => {
                    group.release(tx, id, &before)?;
                    deleted.push(id::reply(id));
                }
            }
            count -= 1;
        }
    }
    group.save(tx);
    let next = next.unwrap_or(StreamId::MIN);
    Ok(Reply::Array(vec![id::reply(next), Reply::Array(claimed), Reply::Array(deleted)]))
}

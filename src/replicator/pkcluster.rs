//! What PKCLUSTER does, and what it says: texts and errors as Pika 3.4 has them, whose managers read them by
//! position. Source: `src/pika_cluster.cc` of Pika 3.4.0.
//!
//! Must not know how slots are followed.

use super::hub::{Attached, Hub};
use super::migrate::Migration;
use super::slots::Change;
use super::source::{End, Tail};
use crate::binlog::{Lsn, TERM_CHANCE_BITS};
use crate::error::ClientError;
use crate::replica::position::Positions;
use crate::replica::status::Link;
use crate::resp::reply::Reply;
use crate::shard::mesh::SlotsAsk;
use crate::slot::assignment::{Assignment, Peer, Role};
use crate::slot::set::{self, NoSlots, SlotSet, TableSlots};
use crate::slot::{ShardId, Slot, TableId};
use rustc_hash::FxHashMap;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

const SYNTAX: ClientError = ClientError::fixed("ERR Corruption: syntax error");
const OUT_OF_RANGE: ClientError = ClientError::fixed("ERR Corruption: partition index out of range");
const NO_TABLE: ClientError = ClientError::fixed("ERR Internal error: table not found!");
/// Pika's own words.
const ITSELF: ClientError = ClientError::fixed("ERR You fucked up");
const BUSY: ClientError =
    ClientError::fixed("ERR Slot in syncing or a change operation is under way, retry later");

pub async fn run(hub: &Rc<Hub>, ask: SlotsAsk) -> Reply {
    let done = match ask {
        SlotsAsk::Show { table, slots } => show(hub, table, slots.as_deref()).await.map(Reply::bulk),
        SlotsAsk::AddTable { table, slots } => add_table(hub, table, slots).await,
        SlotsAsk::DeleteTable { table } => delete_table(hub, table).await,
        SlotsAsk::Migrate { table, slots, peer } => migrate(hub, table, &slots, peer).await,
        SlotsAsk::Rehome { slots, shard } => rehome(hub, &slots, shard).await,
        SlotsAsk::CancelMigration => match hub.migrations.cancel() {
            true => Ok(Reply::Ok),
            false => Err(ClientError::fixed("ERR no slots are being moved from here")),
        },
        SlotsAsk::Migration => Ok(Reply::bulk(hub.migrations.shown())),
        SlotsAsk::Digest { table, slots } => digest(hub, table, &slots).await,
        SlotsAsk::Snapshot { table, slots } => snapshot(hub, table, &slots).await,
        SlotsAsk::DigestOf { number } => digest_of(hub, number).await,
        SlotsAsk::Take { table, slots, peer } => add(hub, table, &slots, Role::Follows(Arc::new(peer))).await,
        SlotsAsk::Drop { table, slots, peer } => drop_slots(hub, table, &slots, peer).await,
        SlotsAsk::Add { table, slots } => add(hub, table, &slots, Role::Primary).await,
        SlotsAsk::Delete { table, slots } => delete(hub, table, &slots).await,
        SlotsAsk::Follow { table, slots, peer, force } => follow(hub, table, &slots, peer, force).await,
    };
    done.unwrap_or_else(Reply::Error)
}

/// The right to change slots, and what they are now.
async fn change(hub: &Rc<Hub>) -> Result<(Change, Assignment), ClientError> {
    let change = hub.begin_change().await.ok_or(BUSY)?;
    Ok((change, (*hub.slots().assigned()).clone()))
}

fn of_table(assigned: &Assignment, table: TableId, slots: &[u8]) -> Result<SlotSet, ClientError> {
    let count = assigned.slots(table).ok_or(NO_TABLE)?;
    set::parse(slots, count).map_err(no_slots)
}

fn no_slots(why: NoSlots) -> ClientError {
    match why {
        NoSlots::Syntax => SYNTAX,
        NoSlots::OutOfRange => OUT_OF_RANGE,
    }
}

async fn assign(change: &Change, next: Assignment, forget: &TableSlots) -> Result<Reply, ClientError> {
    let done = change.assign(next, forget).await;
    done.map(|()| Reply::Ok).map_err(internal)
}

async fn add_table(hub: &Rc<Hub>, table: TableId, slots: u64) -> Result<Reply, ClientError> {
    let (change, mut next) = change(hub).await?;
    if next.slots(table).is_some() {
        return Err(ClientError::fixed("ERR Internal error: table already exist!"));
    }
    let may_be = hub.place.hash.slots_of_a_table();
    let count = u16::try_from(slots).ok().filter(|count| may_be.contains(count));
    let count = count.ok_or_else(|| {
        let (least, most) = (may_be.start(), may_be.end());
        ClientError::new(format!("ERR Internal error: a table of this node has {least} to {most} slots"))
    })?;
    if table.0 >= hub.place.tables {
        return Err(ClientError::new(format!(
            "ERR Internal error: table ids are below {} (databases)",
            hub.place.tables
        )));
    }
    next.add_table(table, count);
    assign(&change, next, &TableSlots::new()).await
}

async fn delete_table(hub: &Rc<Hub>, table: TableId) -> Result<Reply, ClientError> {
    let (change, mut next) = change(hub).await?;
    let count = next.slots(table).ok_or(NO_TABLE)?;
    let all = set::all(count);
    may_delete(hub, &next, table, &all)?;
    // As long as a command is under way in it, its number of slots must be known.
    next.set(table, &all, &Role::Absent);
    assign(&change, next.clone(), &TableSlots::new()).await?;
    next.remove_table(table);
    assign(&change, next, &TableSlots::new()).await
}

async fn add(hub: &Rc<Hub>, table: TableId, slots: &[u8], role: Role) -> Result<Reply, ClientError> {
    if let Role::Follows(peer) = &role
        && hub.is_own_address(peer)
    {
        return Err(ITSELF);
    }
    let (change, mut next) = change(hub).await?;
    let slots = of_table(&next, table, slots)?;
    if let Some(slot) = slots.iter().find(|slot| next.role(table, **slot).is_here()) {
        return Err(ClientError::new(format!("ERR Corruption: partition {} already exist", slot.0)));
    }
    next.set(table, &slots, &role);
    assign(&change, next, &TableSlots::new()).await
}

async fn drop_slots(hub: &Rc<Hub>, table: TableId, slots: &[u8], peer: Peer) -> Result<Reply, ClientError> {
    let (change, mut next) = change(hub).await?;
    let slots = of_table(&next, table, slots)?;
    let follows = |slot: &Slot| matches!(next.role(table, *slot), Role::Follows(of) if **of == peer);
    if let Some(slot) = slots.iter().find(|slot| !follows(slot)) {
        return Err(ClientError::new(format!("ERR Slot {} does not follow {peer}", slot.0)));
    }
    next.set(table, &slots, &Role::Absent);
    assign(&change, next, &TableSlots::new()).await
}

async fn delete(hub: &Rc<Hub>, table: TableId, slots: &[u8]) -> Result<Reply, ClientError> {
    let (change, mut next) = change(hub).await?;
    if next.slots(table).is_none() {
        return Err(ClientError::fixed("ERR Internal error: default table not found!"));
    }
    let slots = of_table(&next, table, slots)?;
    if let Some(slot) = slots.iter().find(|slot| !next.role(table, **slot).is_here()) {
        return Err(ClientError::new(format!("ERR Corruption: partition {} not found", slot.0)));
    }
    may_delete(hub, &next, table, &slots)?;
    next.set(table, &slots, &Role::Absent);
    assign(&change, next, &TableSlots::new()).await
}

/// All of these slots are here.
fn are_here(assigned: &Assignment, table: TableId, slots: &SlotSet) -> Result<(), ClientError> {
    let gone = slots.iter().find(|slot| !assigned.role(table, **slot).is_here());
    gone.map_or(Ok(()), |slot| Err(ClientError::new(format!("ERR Slot {} not found!", slot.0))))
}

/// Slots that are here to be read.
fn readable(hub: &Hub, table: TableId, slots: &[u8]) -> Result<TableSlots, ClientError> {
    let assigned = hub.slots().assigned();
    let slots = of_table(&assigned, table, slots)?;
    are_here(&assigned, table, &slots)?;
    Ok(TableSlots::from([(table, slots)]))
}

async fn digest(hub: &Rc<Hub>, table: TableId, slots: &[u8]) -> Result<Reply, ClientError> {
    let slots = readable(hub, table, slots)?;
    let done = hub.begin_digest(slots).await.done().await;
    done.map(Reply::bulk).map_err(internal)
}

async fn snapshot(hub: &Rc<Hub>, table: TableId, slots: &[u8]) -> Result<Reply, ClientError> {
    let slots = readable(hub, table, slots)?;
    Ok(Reply::Int(hub.keep_digest(slots).await as i64))
}

async fn digest_of(hub: &Rc<Hub>, number: u64) -> Result<Reply, ClientError> {
    let begun = hub.digests.take(number).ok_or(ClientError::fixed("ERR no such snapshot"))?;
    begun.done().await.map(Reply::bulk).map_err(internal)
}

async fn migrate(hub: &Rc<Hub>, table: TableId, slots: &[u8], peer: Peer) -> Result<Reply, ClientError> {
    let (change, assigned) = change(hub).await?;
    let slots = of_table(&assigned, table, slots)?;
    if let Some(slot) = slots.iter().find(|slot| *assigned.role(table, **slot) != Role::Primary) {
        return Err(ClientError::new(format!("ERR Slot {} has no primary here", slot.0)));
    }
    if hub.is_own_address(&peer) {
        return Err(ITSELF);
    }
    let done = Migration::new(hub, change, table, slots, peer).run().await;
    done.map(|()| Reply::Ok).map_err(|why| ClientError::new(format!("ERR slots not moved: {why}")))
}

/// Moves slots of every table to another shard of this node, in classic mode too.
async fn rehome(hub: &Rc<Hub>, slots: &[u8], shard: ShardId) -> Result<Reply, ClientError> {
    let slots = set::parse(slots, hub.place.hash.slots()).map_err(no_slots)?;
    let count = hub.place.map().placement().shard_count();
    if shard.0 >= count {
        return Err(ClientError::new(format!("ERR this node has {count} shards, counted from 0")));
    }
    // Nobody else changes what the node is to slots meanwhile.
    let _change = match &hub.slots {
        Some(_) => Some(hub.begin_change().await.ok_or(BUSY)?),
        None => None,
    };
    let turn = hub.begin_rehoming().await.ok_or(BUSY)?;
    may_rehome(hub, &slots)?;
    tracing::info!(slots = set::shown(&slots), shard = shard.0, "moving slots between shards");
    hub.migrations.begin(None, slots.clone(), format!("shard {}", shard.0));
    let moved = turn.rehome(&slots, shard).await;
    hub.migrations.end(moved.as_ref().err());
    match moved {
        Ok(()) => {
            tracing::info!(slots = set::shown(&slots), shard = shard.0, "slots moved");
            Ok(Reply::Ok)
        }
        Err(why) => {
            tracing::warn!(slots = set::shown(&slots), shard = shard.0, why, "slots not moved");
            Err(ClientError::new(format!("ERR slots not moved: {why}")))
        }
    }
}

/// Slots move between shards where they are written, and there alone.
fn may_rehome(hub: &Hub, slots: &SlotSet) -> Result<(), ClientError> {
    if hub.link.borrow().is_some() {
        return Err(ClientError::fixed(
            "ERR this node follows another: its slots cannot move between its shards",
        ));
    }
    if hub.failover.borrow().is_some() {
        return Err(BUSY);
    }
    let Some(of) = &hub.slots else { return Ok(()) };
    let assigned = of.assigned();
    let is_others = |(_, slot, role): &(TableId, Slot, &Role)| {
        slots.contains(slot) && matches!(role, Role::Follows(_) | Role::Leaving(_))
    };
    match assigned.iter().find(is_others) {
        Some((table, slot, _)) => Err(ClientError::new(format!(
            "ERR Slot {} of table {} has its primary elsewhere: it cannot move between shards here",
            slot.0, table.0
        ))),
        None => Ok(()),
    }
}

fn internal(why: String) -> ClientError {
    ClientError::new(format!("ERR Internal error: {why}"))
}

/// Slots that somebody follows, or that follow somebody, are not deleted.
fn may_delete(
    hub: &Rc<Hub>,
    assigned: &Assignment,
    table: TableId,
    slots: &SlotSet,
) -> Result<(), ClientError> {
    let follows = |slot: &&Slot| matches!(assigned.role(table, **slot), Role::Follows(_));
    if let Some(slot) = slots.iter().find(follows) {
        return Err(ClientError::new(format!(
            "ERR Corruption: sync slave partition (db{}:{}) follows a master",
            table.0, slot.0
        )));
    }
    let attached = hub.attached();
    let followed = |slot: &&Slot| attached.iter().any(|follower| follower.has(table, **slot));
    if let Some(slot) = slots.iter().find(followed) {
        return Err(ClientError::new(format!(
            "ERR Corruption: sync master partition (db{}:{}) has slaves",
            table.0, slot.0
        )));
    }
    Ok(())
}

async fn follow(
    hub: &Rc<Hub>,
    table: TableId,
    slots: &[u8],
    peer: Option<Peer>,
    force: bool,
) -> Result<Reply, ClientError> {
    let (change, mut next) = change(hub).await?;
    let slots = if slots.eq_ignore_ascii_case(b"all") {
        let here = |slot: &Slot| next.role(table, *slot).is_here();
        let count = next.slots(table).ok_or(ClientError::fixed("ERR invalid Table for ''"))?;
        set::all(count).into_iter().filter(here).collect()
    } else {
        of_table(&next, table, slots)?
    };
    if slots.is_empty() {
        return Err(ClientError::fixed("ERR Slots set empty"));
    }
    are_here(&next, table, &slots)?;
    let mut forget = TableSlots::new();
    match peer {
        None => next.set(table, &slots, &Role::Primary),
        Some(peer) => {
            if hub.is_own_address(&peer) {
                return Err(ITSELF);
            }
            next.set(table, &slots, &Role::Follows(Arc::new(peer)));
            if force {
                forget.insert(table, slots);
            }
        }
    }
    assign(&change, next, &forget).await
}

impl Attached {
    /// It follows this slot.
    pub fn has(&self, table: TableId, slot: Slot) -> bool {
        self.slots.as_ref().is_some_and(|slots| set::holds(slots, table, slot))
    }
}

/// One follower, with the bytes of records of each slot that it has not acknowledged.
struct Behind {
    follower: Attached,
    bytes: FxHashMap<(TableId, Slot), u64>,
}

/// Bytes of a shard's log that are read to see which slots a follower is behind in.
const LOOK_BYTES: usize = 8 << 20;

impl Behind {
    fn of(hub: &Hub, follower: Attached) -> Behind {
        let mut bytes: FxHashMap<(TableId, Slot), u64> = FxHashMap::default();
        for (shard, dir) in hub.place.logs.iter().enumerate() {
            let (from, upto) =
                (Lsn(follower.applied[shard]).next(), hub.published.upto(ShardId(shard as u16)));
            if from > Lsn(upto) {
                continue;
            }
            let mut note = |record: crate::replica::primary::Logged| {
                for touch in &record.touches {
                    *bytes.entry((touch.table, touch.slot)).or_default() += record.body.len() as u64 + 1;
                }
            };
            let read = Tail::new(dir.clone()).read(from, LOOK_BYTES, Lsn(upto), &mut note);
            // What could not be looked at counts for every slot of the shard.
            let whole = matches!(read, Ok(End::UpTo(lsn)) if lsn >= Lsn(upto));
            if !whole {
                let unknown = follower.facts.behind.max(1);
                let all = follower.slots.iter().flat_map(|slots| slots.iter());
                let all = all.flat_map(|(table, slots)| slots.iter().map(|slot| (*table, *slot)));
                let map = hub.place.map();
                for name in all.filter(|(_, slot)| map.shard_of(*slot).0 == shard as u16) {
                    *bytes.entry(name).or_default() += unknown;
                }
            }
        }
        Behind { follower, bytes }
    }
}

/// Bytes of records of these slots that a follower has not acknowledged.
pub fn behind_bytes(hub: &Hub, follower: Attached, slots: &TableSlots) -> u64 {
    let behind = Behind::of(hub, follower).bytes.into_iter();
    behind.filter(|((table, slot), _)| set::holds(slots, *table, *slot)).map(|(_, bytes)| bytes).sum()
}

/// `info slot`: one block of lines for each slot that is here.
async fn show(hub: &Rc<Hub>, table: TableId, slots: Option<&[u8]>) -> Result<String, ClientError> {
    let invalid = ClientError::fixed("ERR Invalid Argument");
    let assigned = hub.slots().assigned();
    let count = assigned.slots(table).ok_or(invalid.clone())?;
    let slots = match slots {
        None => set::all(count),
        Some(slots) => set::parse(slots, count).map_err(|_| invalid)?,
    };
    let positions: Positions = hub.positions().await.into_iter().collect();
    let followers: Vec<Behind> =
        hub.attached().into_iter().map(|follower| Behind::of(hub, follower)).collect();
    let links = hub.slots().links();
    let mut text = String::new();
    for slot in slots {
        let role = assigned.role(table, slot);
        if !role.is_here() {
            continue;
        }
        let at = positions.get((table, slot));
        // A term's count is what orders histories; its chance would not fit the field.
        let filenum = at.term >> TERM_CHANCE_BITS;
        let mut lines = vec![format!(
            "(db{}:{}) binlog_offset={filenum} {},safety_purge=none",
            table.0, slot.0, at.index
        )];
        if hub.config().consensus_level > 0 {
            lines.push(format!(
                "  consensus_last_log=filenum: {filenum} offset: {index} term: {filenum} index: {index}",
                index = at.index
            ));
        }
        let here: Vec<&Behind> = followers.iter().filter(|behind| behind.follower.has(table, slot)).collect();
        if role.is_primary() || !here.is_empty() {
            lines.extend(["  Role: Master".into(), format!("  connected_slaves: {}", here.len())]);
            for (number, Behind { follower, bytes }) in here.iter().enumerate() {
                let status = if follower.facts.online { "SlaveBinlogSync" } else { "SlaveDbSync" };
                let lag = bytes.get(&(table, slot)).copied().unwrap_or(0);
                let lag = if follower.facts.online { lag } else { lag.max(1) };
                lines.push(format!("  slave[{number}]: {}:{}", follower.facts.ip, follower.facts.port));
                lines.push(format!("  replication_status: {status}"));
                lines.push(format!("  lag: {lag}"));
            }
        }
        if let Role::Follows(peer) | Role::Leaving(peer) = role {
            if !here.is_empty() {
                lines.push("  -----------".into());
            }
            let link = links.iter().find(|(of, _)| of == peer).map(|(_, facts)| facts);
            let missing = link.is_some_and(|facts| set::holds(&facts.missing, table, slot));
            let status = match link.map(|facts| facts.link) {
                _ if missing => "kError",
                _ if matches!(role, Role::Leaving(_)) => "kNoConnect",
                Some(Link::Connected) => "kConnected",
                Some(Link::Sync) => "kWaitDBSync",
                Some(Link::Handshake) => "kWaitReply",
                _ => "kTryConnect",
            };
            lines.push("  Role: Slave".into());
            lines.push(format!("  master: {peer}"));
            lines.push(format!("  slave status: {status}"));
        }
        for line in lines {
            write!(text, "{line}\r\n").expect("a String takes everything");
        }
        text.push_str("\r\n");
    }
    Ok(text)
}

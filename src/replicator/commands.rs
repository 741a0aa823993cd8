//! What clients ask of the replication thread: to follow, to stop following, to wait for followers.

use super::failover;
use super::follower::{Forget, Link};
use super::hub::{Hub, now_ms};
use crate::error::ClientError;
use crate::limits;
use crate::resp::reply::Reply;
use crate::shard::mesh::{LogEnd, ReplicationAsk, Tell};
use crate::slot::set::TableSlots;
use crate::slot::{CoreId, TableId};
use std::rc::Rc;

pub fn run(hub: &Rc<Hub>, from: CoreId, ticket: u64, ask: ReplicationAsk) {
    let changes = matches!(
        ask,
        ReplicationAsk::Follow { .. } | ReplicationAsk::FollowNobody | ReplicationAsk::CopyTable(_)
    );
    let takes_turns = changes || matches!(ask, ReplicationAsk::Failover(_) | ReplicationAsk::TakeOver { .. });
    if takes_turns && hub.rehoming.is_under_way() {
        let refused = ClientError::fixed("ERR slots are moving between the shards of this node, retry later");
        return hub.tell(from, ticket, Tell::Replication(Reply::Error(refused)));
    }
    if changes && hub.failover.borrow().is_some() {
        let refused = ClientError::fixed("ERR REPLICAOF not allowed while failing over.");
        return hub.tell(from, ticket, Tell::Replication(Reply::Error(refused)));
    }
    let reply = match ask {
        ReplicationAsk::Follow { host, port, force } => {
            let force = hub.history_cleared.take() || force;
            let same = hub.link.borrow().as_ref().is_some_and(|link| link.follows(&host, port));
            if same && !force {
                Reply::Simple("OK Already connected to specified master")
            } else {
                hub.follow(host, port, if force { Forget::All } else { Forget::Nothing });
                Reply::Ok
            }
        }
        ReplicationAsk::FollowNobody => {
            let run = |hub: Rc<Hub>| async move {
                hub.follow_nobody().await;
                Reply::Ok
            };
            return later(hub, from, ticket, run);
        }
        ReplicationAsk::Slots(ask) => {
            let run = |hub: Rc<Hub>| async move { super::pkcluster::run(&hub, ask).await };
            return later(hub, from, ticket, run);
        }
        ReplicationAsk::ClearHistory => {
            hub.history_cleared.set(true);
            Reply::Ok
        }
        ReplicationAsk::CopyTable(table) => answer(copy_table(hub, table)),
        ReplicationAsk::Failover(plan) => answer(failover::begin(hub, plan)),
        ReplicationAsk::AbortFailover => answer(failover::abort(hub)),
        ReplicationAsk::TakeOver { from: primary } => {
            let run = |hub: Rc<Hub>| async move { answer(failover::take_over(&hub, &primary).await) };
            return later(hub, from, ticket, run);
        }
        ReplicationAsk::Wait { upto, slots, durable, replicas, timeout_ms } => {
            let until_ms = if timeout_ms == 0 { u64::MAX } else { now_ms().saturating_add(timeout_ms) };
            let wait = Wait { from, ticket, upto, slots, durable, replicas, until_ms };
            return hub.waits.borrow_mut().add(hub, wait);
        }
    };
    hub.tell(from, ticket, Tell::Replication(reply));
}

/// Answers when it is done, and keeps nobody waiting meanwhile.
fn later<F>(hub: &Rc<Hub>, from: CoreId, ticket: u64, run: impl FnOnce(Rc<Hub>) -> F)
where
    F: Future<Output = Reply> + 'static,
{
    let (reply, hub) = (run(hub.clone()), hub.clone());
    tokio::task::spawn_local(async move {
        let reply = reply.await;
        hub.tell(from, ticket, Tell::Replication(reply));
    });
}

fn answer(done: Result<(), ClientError>) -> Reply {
    done.map_or_else(Reply::Error, |()| Reply::Ok)
}

fn copy_table(hub: &Rc<Hub>, table: TableId) -> Result<(), ClientError> {
    let following = hub.link.borrow().as_ref().map(Link::facts);
    let following = following.ok_or(ClientError::fixed("ERR Not currently a slave"))?;
    if following.is_redis {
        return Err(ClientError::fixed("ERR a Redis is copied as a whole: use SLAVEOF host port force"));
    }
    hub.follow(following.host, following.port, Forget::Table(table));
    Ok(())
}

/// A client that waits for followers.
struct Wait {
    from: CoreId,
    ticket: u64,
    upto: Vec<LogEnd>,
    slots: Option<TableSlots>,
    /// None: for what followers have applied. Else for what they have on disk, and whether this node too.
    durable: Option<bool>,
    replicas: u64,
    until_ms: u64,
}

impl Wait {
    /// The answer, and whether it is what was waited for.
    fn answer(&self, hub: &Hub) -> (Reply, bool) {
        let replicas = hub.acknowledged(self.durable.is_some(), &self.upto, self.slots.as_ref());
        let Some(here) = self.durable else {
            return (Reply::Int(replicas as i64), replicas >= self.replicas);
        };
        let local = self.upto.iter().all(|end| hub.settlement.upto(end.shard) >= end.lsn);
        let counts = vec![Reply::Int(i64::from(local)), Reply::Int(replicas as i64)];
        (Reply::Array(counts), replicas >= self.replicas && (local || !here))
    }

    fn end(&self, hub: &Hub, reply: Reply) {
        hub.tell(self.from, self.ticket, Tell::Replication(reply));
    }
}

/// All clients that wait.
#[derive(Default)]
pub struct Waits(Vec<Wait>);

impl Waits {
    fn add(&mut self, hub: &Hub, wait: Wait) {
        let (reply, done) = wait.answer(hub);
        if done || self.0.len() >= limits::REPLICA_WAITS_MAX {
            return wait.end(hub, reply);
        }
        self.0.push(wait);
    }

    /// Answers those who have waited long enough for what has come.
    pub fn look(&mut self, hub: &Hub) {
        self.0.retain(|wait| {
            let (reply, done) = wait.answer(hub);
            if done {
                wait.end(hub, reply);
            }
            !done
        });
    }

    /// When the first of them has waited long enough, milliseconds since the epoch.
    pub fn soonest_ms(&self) -> Option<u64> {
        self.0.iter().map(|wait| wait.until_ms).min()
    }

    /// Answers all, as far as it goes.
    pub fn end_all(&mut self, hub: &Hub) {
        self.0.drain(..).for_each(|wait| wait.end(hub, wait.answer(hub).0));
    }

    /// Answers those whose time is over.
    pub fn end_late(&mut self, hub: &Hub) {
        let now_ms = now_ms();
        self.0.retain(|wait| {
            let late = wait.until_ms <= now_ms;
            if late {
                wait.end(hub, wait.answer(hub).0);
            }
            !late
        });
    }
}

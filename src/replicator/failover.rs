//! FAILOVER: this node hands its role to one of its followers and follows it from then on.
//!
//! Writes are held on all cores; when nothing is under way any more and the follower has all that the logs
//! hold, it is told to take over. As long as it has certainly not, the way back is open: writes go on here.
//! Once it may have, the only way is forward, or an acknowledged write could be made on both nodes. Must not
//! know how a core holds writes back.

use super::follower::Forget;
use super::hub::{Hub, now_ms};
use super::peer::{CONNECT_WAIT, PeerNode};
use crate::error::ClientError;
use crate::replica::status::{Failover, Follower};
use crate::shard::mesh::{Ask, FailoverPlan, LogEnd, Tell};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked whether a follower has everything.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Between two attempts to reach the follower that takes over.
const TRY_EVERY: Duration = Duration::from_millis(100);

const NONE: ClientError = ClientError::fixed("ERR No failover in progress.");
const UNDER_WAY: ClientError = ClientError::fixed("ERR FAILOVER already in progress.");
const A_REPLICA: ClientError = ClientError::fixed("ERR FAILOVER is not valid when server is a replica.");
const NO_REPLICAS: ClientError = ClientError::fixed("ERR FAILOVER requires connected replicas.");
const FORCE_NEEDS: ClientError =
    ClientError::fixed("ERR FAILOVER with force option requires both a timeout and target HOST and IP.");
const NO_SUCH: ClientError = ClientError::fixed("ERR FAILOVER target HOST and PORT is not a replica.");
const OFFLINE: ClientError = ClientError::fixed("ERR FAILOVER target replica is not online.");
const TOO_LATE: ClientError = ClientError::fixed(
    "ERR the target may have taken over already: going on until it answers, FAILOVER cannot be aborted",
);
const NOT_OURS: ClientError = ClientError::fixed("ERR this node does not follow the one that hands over");

/// A failover that has begun.
pub struct UnderWay {
    stage: Failover,
    /// It has been told to end.
    aborted: bool,
    /// The follower may have been told to take over.
    told: bool,
}

impl UnderWay {
    pub fn stage(&self) -> Failover {
        self.stage
    }
}

/// Begins one, or says in Redis's words why not.
pub fn begin(hub: &Rc<Hub>, plan: FailoverPlan) -> Result<(), ClientError> {
    let followers = hub.followers();
    if hub.failover.borrow().is_some() {
        return Err(UNDER_WAY);
    }
    if hub.link.borrow().is_some() {
        return Err(A_REPLICA);
    }
    if followers.is_empty() {
        return Err(NO_REPLICAS);
    }
    if plan.force && (plan.timeout_ms.is_none() || plan.to.is_none()) {
        return Err(FORCE_NEEDS);
    }
    if let Some(to) = &plan.to {
        let target = followers.iter().find(|follower| is_at(follower, to)).ok_or(NO_SUCH)?;
        if !target.online {
            return Err(OFFLINE);
        }
    }
    let stage = Failover::WaitingForSync;
    *hub.failover.borrow_mut() = Some(UnderWay { stage, aborted: false, told: false });
    hub.show();
    tracing::info!(?plan, "failing over: writes are held");
    let hub = hub.clone();
    tokio::task::spawn_local(async move {
        hub.ask_cores(Ask::HoldWrites(true)).await;
        let outcome = hand_over(&hub, &plan).await;
        *hub.failover.borrow_mut() = None;
        match outcome {
            Ok((host, port)) => hub.follow(host, port, Forget::Nothing),
            Err(why) => tracing::warn!(why, "no failover: this node goes on as the primary"),
        }
        hub.show();
        hub.ask_cores(Ask::HoldWrites(false)).await;
    });
    Ok(())
}

/// Ends one that has begun, as long as it can be.
pub fn abort(hub: &Hub) -> Result<(), ClientError> {
    let mut failover = hub.failover.borrow_mut();
    let under_way = failover.as_mut().ok_or(NONE)?;
    if under_way.told {
        return Err(TOO_LATE);
    }
    under_way.aborted = true;
    Ok(())
}

/// On the other side: this node stops following the one that hands over. One that follows nobody has done so
/// before, and its answer was lost.
pub async fn take_over(hub: &Rc<Hub>, from: &[u8]) -> Result<(), ClientError> {
    let following = hub.link.borrow().as_ref().map(super::follower::Link::facts);
    match following {
        None if hub.failover.borrow().is_none() => Ok(()),
        Some(facts) if facts.node.is_some_and(|node| node == *from) => {
            tracing::info!(host = facts.host, port = facts.port, "taking over from the primary");
            hub.follow_nobody().await;
            Ok(())
        }
        _ => Err(NOT_OURS),
    }
}

fn is_at(follower: &Follower, (host, port): &(String, u16)) -> bool {
    follower.ip == *host && follower.port == *port
}

/// Where the node is that has taken over; or why none has, and none will.
async fn hand_over(hub: &Hub, plan: &FailoverPlan) -> Result<(String, u16), String> {
    let until_ms = plan.timeout_ms.map_or(u64::MAX, |timeout_ms| now_ms().saturating_add(timeout_ms));
    let (host, port) = wait_for_target(hub, plan, until_ms).await?;
    if let Some(under_way) = &mut *hub.failover.borrow_mut() {
        under_way.stage = Failover::InProgress;
    }
    hub.show();
    tracing::info!(host, port, "failing over: the follower is to take over");
    loop {
        go_on(hub)?;
        let told_before = is_told(hub);
        let why = match ask_to_take_over(hub, &host, port).await {
            Ok(()) => return Ok((host, port)),
            Err(NotTaken::Refused(why)) if !told_before => return Err(why),
            Err(NotTaken::Refused(why) | NotTaken::Unknown(why)) => why,
        };
        let told = is_told(hub);
        tracing::warn!(host, port, why, told, "the follower that is to take over is not reached");
        if !told && !plan.force && now_ms() >= until_ms {
            return Err(format!("the follower cannot be reached: {why}"));
        }
        sleep(TRY_EVERY).await;
    }
}

fn is_told(hub: &Hub) -> bool {
    hub.failover.borrow().as_ref().is_some_and(|under_way| under_way.told)
}

fn go_on(hub: &Hub) -> Result<(), String> {
    let aborted = hub.failover.borrow().as_ref().is_none_or(|under_way| under_way.aborted);
    if aborted { Err("it was aborted".into()) } else { Ok(()) }
}

/// The follower that has everything, when nothing is under way any more.
async fn wait_for_target(hub: &Hub, plan: &FailoverPlan, until_ms: u64) -> Result<(String, u16), String> {
    loop {
        go_on(hub)?;
        if let Some(ends) = quiet_ends(hub).await {
            let have = hub.followers_with(&ends);
            let chosen =
                have.into_iter().find(|follower| plan.to.as_ref().is_none_or(|to| is_at(follower, to)));
            if let Some(Follower { ip, port, .. }) = chosen {
                return Ok((ip, port));
            }
        }
        if now_ms() >= until_ms {
            return match (&plan.to, plan.force) {
                (Some(to), true) => {
                    tracing::warn!("the follower takes over with what it has");
                    Ok(to.clone())
                }
                _ => Err("no follower had everything in time".into()),
            };
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Where the logs end, unless a core still has a write under way.
async fn quiet_ends(hub: &Hub) -> Option<Vec<LogEnd>> {
    let mut all = Vec::new();
    let mut quiet = true;
    for tell in hub.ask_cores(Ask::Held).await {
        let Tell::Held { quiet: core_quiet, ends } = tell else {
            unreachable!("cores answer what they are asked")
        };
        quiet &= core_quiet;
        all.extend(ends);
    }
    quiet.then_some(all)
}

/// Why a follower has not taken over.
enum NotTaken {
    /// It will not, and has not.
    Refused(String),
    /// Nobody knows; or it was not reached, and nothing has been said.
    Unknown(String),
}

async fn ask_to_take_over(hub: &Hub, host: &str, port: u16) -> Result<(), NotTaken> {
    let unknown = |error: std::io::Error| NotTaken::Unknown(error.to_string());
    let mut follower = PeerNode::connect(hub, host, port).await.map_err(unknown)?;
    if let Some(under_way) = &mut *hub.failover.borrow_mut() {
        under_way.told = true;
    }
    let words = ["HAYPILE-TAKEOVER", &hub.place.run_id];
    let taken = follower.ask_within(CONNECT_WAIT, &words).await.map_err(unknown)?;
    taken.map(drop).map_err(|why| NotTaken::Refused(format!("the follower answers: {why}")))
}

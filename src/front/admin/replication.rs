//! Commands about who follows whom. What they ask is done by the replication thread.

use super::{one_told, spec};
use crate::command::Group::Server;
use crate::command::flag::{ADMIN, DANGEROUS, FAST, LOADING, NOSCRIPT, STALE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::replica::greeting::Peer;
use crate::replica::status::Status;
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, LogEnd, ReplicationAsk, Tell};

const CHANGE: u32 = ADMIN | NOSCRIPT | STALE | DANGEROUS;
const FOLLOWS: &str = "Follows another node, or (NO ONE) goes on as a primary";

pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand { spec: spec(Server, "replicaof", -3, CHANGE, "5.0.0", "O(1)", FOLLOWS), run: replicaof },
    FrontCommand { spec: spec(Server, "slaveof", -3, CHANGE, "1.0.0", "O(1)", FOLLOWS), run: replicaof },
    FrontCommand {
        spec: spec(
            Server,
            "role",
            1,
            NOSCRIPT | LOADING | STALE | FAST | DANGEROUS,
            "2.8.12",
            "O(1)",
            "Answers whether the node is a primary or a replica, and how it stands with the others",
        ),
        run: |ctx, _| Ok(role(ctx.node.status().clone()).into()),
    },
    FrontCommand {
        spec: spec(
            Server,
            "wait",
            3,
            NOSCRIPT,
            "3.0.0",
            "O(1)",
            "Waits until so many replicas have what was written before, and answers how many have",
        ),
        run: wait,
    },
    FrontCommand {
        spec: spec(
            Server,
            "waitaof",
            4,
            NOSCRIPT,
            "7.2.0",
            "O(1)",
            "Waits until what was written before is on disk, here and on so many replicas",
        ),
        run: waitaof,
    },
    FrontCommand {
        spec: spec(
            Server,
            "haypile-follow",
            3,
            CHANGE,
            "0.2.0",
            "O(1)",
            "Makes the connection the link of who follows this node; sent by nodes and captures only",
        ),
        run: follow,
    },
];

fn replicaof(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let force = args.len() == 4 && args.is(3, "force");
    if args.len() > 3 && !force {
        return Err(ClientError::SYNTAX);
    }
    let ask = if args.is(1, "no") && args.is(2, "one") {
        ReplicationAsk::FollowNobody
    } else {
        let port = number::parse_i64(args.get(2)).ok_or(ClientError::NOT_INTEGER)?;
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let host = String::from_utf8(args.get(1).to_vec()).ok().filter(|host| !host.is_empty());
        ReplicationAsk::Follow {
            host: host.ok_or(ClientError::fixed("ERR Invalid master host"))?,
            port: port.ok_or(ClientError::fixed("ERR Invalid master port"))?,
            force,
        }
    };
    Ok(ask_thread(ctx, ask))
}

/// The replication thread's own words.
pub(super) fn ask_thread(ctx: &Ctx<'_>, ask: ReplicationAsk) -> Answer {
    let fold = |_: &mut Ctx<'_>, tells| {
        super::ok_or_error(one_told(tells, |tell| match tell {
            Tell::Replication(reply) => Some(reply),
            _ => None,
        }))
    };
    Answer::AskOne(ctx.node.replication_lane(), Ask::Replication(ask), Box::new(fold))
}

fn role(status: Status) -> Reply {
    if let Some(following) = status.following {
        return Reply::Array(vec![
            Reply::bulk("slave"),
            Reply::bulk(following.host),
            Reply::Int(i64::from(following.port)),
            Reply::bulk(following.link.word()),
            Reply::Int(following.offset as i64),
        ]);
    }
    let follower = |follower: crate::replica::status::Follower| {
        let facts = [follower.ip, follower.port.to_string(), follower.offset.to_string()];
        Reply::Array(facts.map(Reply::bulk).into())
    };
    let followers = status.followers.into_iter().map(follower).collect();
    Reply::Array(vec![Reply::bulk("master"), Reply::Int(status.offset as i64), Reply::Array(followers)])
}

fn wait(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if ctx.node.status().following.is_some() {
        return Err(ClientError::fixed(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a \
             replica is configured to be writable (which is not the default) writes to replicas are just \
             local and are not propagated.",
        ));
    }
    let replicas = number::parse_i64(args.get(1)).ok_or(ClientError::NOT_INTEGER)?;
    let timeout_ms = timeout(args, 2)?;
    Ok(wait_for(None, replicas.max(0) as u64, timeout_ms))
}

fn waitaof(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let out_of_range = || ClientError::fixed("ERR value is out of range, must be positive");
    let local = number::parse_i64(args.get(1)).ok_or(ClientError::NOT_INTEGER)?;
    if !(0..=1).contains(&local) {
        return Err(ClientError::fixed("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = number::parse_i64(args.get(2)).ok_or(ClientError::NOT_INTEGER)?;
    let replicas = u64::try_from(replicas).map_err(|_| out_of_range())?;
    let timeout_ms = timeout(args, 3)?;
    if ctx.node.status().following.is_some() {
        return Err(ClientError::fixed(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are \
             just local and are not propagated.",
        ));
    }
    Ok(wait_for(Some(local == 1), replicas, timeout_ms))
}

fn timeout(args: &Args<'_>, at: usize) -> Result<u64, ClientError> {
    let timeout_ms = number::parse_i64(args.get(at))
        .ok_or(ClientError::fixed("ERR timeout is not an integer or out of range"))?;
    u64::try_from(timeout_ms).map_err(|_| ClientError::fixed("ERR timeout is negative"))
}

/// What was written by now is known to the cores; who has it, to the replication thread.
fn wait_for(durable: Option<bool>, replicas: u64, timeout_ms: u64) -> Answer {
    let then = move |ctx: &mut Ctx<'_>, tells| {
        let ends = super::all_told(tells, |tell| match tell {
            Tell::LogEnds(ends) => Some(ends),
            _ => None,
        })?;
        let upto: Vec<LogEnd> = ends.into_iter().flatten().collect();
        let slots = ctx.session.written.slots().cloned();
        Ok(ask_thread(ctx, ReplicationAsk::Wait { upto, slots, durable, replicas, timeout_ms }))
    };
    Answer::AskThen(Ask::LogEnds, Box::new(then))
}

/// `haypile-follow VERSION WHO`: a node's own port, for INFO and ROLE, or the word of a capture.
fn follow(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if args.get(1) != crate::replica::PROTOCOL.to_string().as_bytes() {
        return Err(ClientError::new(format!(
            "ERR this node speaks version {} of the replication protocol",
            crate::replica::PROTOCOL
        )));
    }
    Peer::parse(args.get(2)).map(Answer::Follower).ok_or(ClientError::NOT_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use crate::replica::status::{Follower, Following, Link};

    #[test]
    fn who_follows_whom_is_asked_of_the_replication_thread() {
        let mut bench = Bench::new();
        let lane = bench.node.replication_lane();
        let Ok(Answer::AskOne(to, Ask::Replication(ask), _)) = bench.answer("REPLICAOF 10.0.0.1 6379") else {
            panic!("it is asked")
        };
        assert_eq!(to, lane);
        assert_eq!(ask, ReplicationAsk::Follow { host: "10.0.0.1".into(), port: 6379, force: false });
        let Ok(Answer::AskOne(_, Ask::Replication(ask), _)) = bench.answer("SLAVEOF no ONE") else {
            panic!("it is asked")
        };
        assert_eq!(ask, ReplicationAsk::FollowNobody);
        for (call, error) in [
            ("REPLICAOF a 0", "ERR Invalid master port"),
            ("REPLICAOF a 70000", "ERR Invalid master port"),
            ("REPLICAOF a b", "ERR value is not an integer or out of range"),
            ("SLAVEOF a 1 now", "ERR syntax error"),
            ("WAIT a 1", "ERR value is not an integer or out of range"),
            ("WAIT 1 -1", "ERR timeout is negative"),
            ("WAITAOF 2 0 0", "ERR value is out of range, value must between 0 and 1"),
        ] {
            assert_eq!(bench.run(call), format!("-{error}"), "{call}");
        }
    }

    #[test]
    fn role_is_told_as_in_redis() {
        let mut bench = Bench::new();
        let follower = Follower { ip: "10.0.0.9".into(), port: 9221, offset: 7, ..Follower::default() };
        bench.set_status(Status { followers: vec![follower], offset: 9, ..Status::default() });
        assert_eq!(bench.run("ROLE"), "[master, :9, [[10.0.0.9, 9221, 7]]]");
        let capture = Follower { ip: "10.0.0.8".into(), port: 50_000, offset: 7, ..Follower::default() };
        bench.set_status(Status { captures: vec![capture], offset: 9, ..Status::default() });
        assert_eq!(bench.run("ROLE"), "[master, :9, []]", "a capture is no replica");
        let mut follow = |version: u32, word: &str| bench.run(&format!("HAYPILE-FOLLOW {version} {word}"));
        let version = crate::replica::PROTOCOL;
        assert_eq!(follow(version, "9221"), "follower 9221");
        assert_eq!(follow(version, "capture-now"), "follower capture-now");
        for word in ["70000", "captures"] {
            assert_eq!(follow(version, word), "-ERR value is not an integer or out of range");
        }
        assert!(follow(version + 1, "9221").starts_with("-ERR this node speaks version "));
        let following =
            Following { host: "h".into(), port: 1, link: Link::Connected, offset: 5, ..Following::default() };
        bench.set_status(Status { following: Some(following), ..Status::default() });
        assert_eq!(bench.run("ROLE"), "[slave, h, :1, connected, :5]");
        assert!(bench.answer("WAIT 0 0").is_err());
    }
}

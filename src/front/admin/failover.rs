//! FAILOVER, and what the nodes say to each other for it. What is asked is done by the replication thread.

use super::replication::ask_thread;
use super::spec;
use crate::command::Group::Server;
use crate::command::flag::{ADMIN, DANGEROUS, NOSCRIPT, STALE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::number;
use crate::shard::mesh::{FailoverPlan, ReplicationAsk};
use bytes::Bytes;

const CHANGE: u32 = ADMIN | NOSCRIPT | STALE | DANGEROUS;

pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand {
        spec: spec(
            Server,
            "failover",
            -1,
            ADMIN | NOSCRIPT | STALE,
            "6.2.0",
            "O(1)",
            "Hands this node's role to a replica that has everything, and follows it",
        ),
        run: failover,
    },
    FrontCommand {
        spec: spec(
            Server,
            "haypile-takeover",
            2,
            CHANGE,
            "0.2.0",
            "O(1)",
            "Makes a node that follows the sender the primary; sent by a node that hands its role over only",
        ),
        run: take_over,
    },
];

fn failover(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let ask = match args.len() == 2 && args.is(1, "abort") {
        true => ReplicationAsk::AbortFailover,
        false => ReplicationAsk::Failover(plan(args)?),
    };
    Ok(ask_thread(ctx, ask))
}

/// The words in any order, each at most once.
fn plan(args: &Args<'_>) -> Result<FailoverPlan, ClientError> {
    let mut plan = FailoverPlan::default();
    let mut at = 1;
    while at < args.len() {
        if args.is(at, "timeout") && at + 1 < args.len() && plan.timeout_ms.is_none() {
            let timeout_ms = number::parse_i64(args.get(at + 1)).ok_or(ClientError::NOT_INTEGER)?;
            let timeout_ms = u64::try_from(timeout_ms).ok().filter(|timeout_ms| *timeout_ms > 0);
            let must = ClientError::fixed("ERR FAILOVER timeout must be greater than 0");
            plan.timeout_ms = Some(timeout_ms.ok_or(must)?);
            at += 2;
        } else if args.is(at, "to") && at + 2 < args.len() && plan.to.is_none() {
            let port = number::parse_i64(args.get(at + 2)).ok_or(ClientError::NOT_INTEGER)?;
            let host = String::from_utf8_lossy(args.get(at + 1)).into_owned();
            // A port that is none is nobody's.
            plan.to = Some((host, u16::try_from(port).unwrap_or(0)));
            at += 3;
        } else if args.is(at, "force") && !plan.force {
            plan.force = true;
            at += 1;
        } else {
            return Err(ClientError::SYNTAX);
        }
    }
    Ok(plan)
}

/// `haypile-takeover ID`: of the node that hands over.
fn take_over(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(ask_thread(ctx, ReplicationAsk::TakeOver { from: Bytes::copy_from_slice(args.get(1)) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use crate::shard::mesh::Ask;

    #[test]
    fn words_come_in_any_order_and_once() {
        let mut bench = Bench::new();
        let mut asked = |call: &str| match bench.answer(call) {
            Ok(Answer::AskOne(_, Ask::Replication(ask), _)) => ask,
            _ => panic!("{call} is asked"),
        };
        let plan = FailoverPlan { to: Some(("h".into(), 7)), force: true, timeout_ms: Some(5) };
        assert_eq!(asked("FAILOVER timeout 5 FORCE to h 7"), ReplicationAsk::Failover(plan));
        assert_eq!(asked("FAILOVER"), ReplicationAsk::Failover(FailoverPlan::default()));
        assert_eq!(asked("FAILOVER abort"), ReplicationAsk::AbortFailover);
        for (call, error) in [
            ("FAILOVER TO h", "ERR syntax error"),
            ("FAILOVER FORCE FORCE", "ERR syntax error"),
            ("FAILOVER ABORT FORCE", "ERR syntax error"),
            ("FAILOVER TIMEOUT 1 TIMEOUT 2", "ERR syntax error"),
            ("FAILOVER TO h x", "ERR value is not an integer or out of range"),
            ("FAILOVER TIMEOUT x", "ERR value is not an integer or out of range"),
            ("FAILOVER TIMEOUT 0", "ERR FAILOVER timeout must be greater than 0"),
            ("FAILOVER TIMEOUT -1", "ERR FAILOVER timeout must be greater than 0"),
        ] {
            assert_eq!(bench.run(call), format!("-{error}"), "{call}");
        }
    }
}

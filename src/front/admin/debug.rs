//! DEBUG: the few forms that test suites use and that harm nobody. Everything else is refused.

use super::{Sub, done, help, run_subcommand, spec};
use crate::command::Group::Server;
use crate::command::Spec;
use crate::command::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::limits;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::Ask;

const FLAGS: u32 = ADMIN | LOADING | STALE | NOSCRIPT;

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            spec(Server, "jmap", 2, FLAGS, "1.0.0", "O(1)", "Refused: there is no Java here"),
            spec(
                Server,
                "set-active-expire",
                3,
                FLAGS,
                "1.0.0",
                "O(cores)",
                "Whether keys whose time has come are deleted before anybody asks for them",
            ),
            spec(
                Server,
                "sleep",
                3,
                FLAGS,
                "1.0.0",
                "O(1)",
                "Answers after so many seconds; others are served meanwhile",
            ),
            spec(Server, "help", 2, LOADING | STALE, "1.0.0", "O(1)", "Prints this help"),
        ],
        ..spec(Server, "debug", -2, FLAGS, "1.0.0", "Depends on subcommand.", "Forms that test suites use")
    },
    run: |ctx, args| run_subcommand(SUBS, ctx, args),
}];

pub(super) const SUBS: &[Sub] = &[
    ("jmap", |_, _| {
        Err(ClientError::fixed("ERR DEBUG JMAP is not supported: this server is no Java program"))
    }),
    ("set-active-expire", set_active_expire),
    ("sleep", sleep),
    ("help", |_, _| Ok(help("DEBUG", COMMANDS[0].spec.subcommands))),
];

fn set_active_expire(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let active = match args.get(2) {
        b"0" => false,
        b"1" => true,
        _ => return Err(ClientError::fixed("ERR DEBUG SET-ACTIVE-EXPIRE takes 0 or 1")),
    };
    Ok(Answer::AskAll(Ask::SetActiveExpire(active), Box::new(|_, tells| done(tells))))
}

fn sleep(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let seconds = std::str::from_utf8(args.get(2)).ok().and_then(|text| text.parse::<f64>().ok());
    let bound = limits::DEBUG_SLEEP_MAX.as_secs_f64();
    let seconds = seconds.filter(|seconds| (0.0..=bound).contains(seconds));
    let wrong = || ClientError::new(format!("ERR DEBUG SLEEP takes seconds, from 0 to {bound}"));
    let until_ms = ctx.now_ms + (seconds.ok_or_else(wrong)? * 1000.0) as u64;
    Ok(Answer::AtTime { until_ms, reply: Reply::Ok })
}

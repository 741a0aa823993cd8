//! CONFIG: the configuration as clients see and change it. What the parameters are, `crate::config` says.

use super::{Sub, done, help, run_subcommand, spec};
use crate::command::Group::Server;
use crate::command::Spec;
use crate::command::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use crate::config;
use crate::error::ClientError;
use crate::front::node::Node;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::Ask;
use std::borrow::Cow;
use std::sync::Arc;

const OPERATOR: u32 = ADMIN | NOSCRIPT | LOADING | STALE;
const PER_PARAMETER: &str = "O(N) where N is the number of parameters given";

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            spec(
                Server,
                "get",
                -3,
                OPERATOR,
                "2.0.0",
                PER_PARAMETER,
                "Answers parameters that match patterns",
            ),
            spec(Server, "set", -4, OPERATOR, "2.0.0", PER_PARAMETER, "Changes parameters, all or none"),
            spec(Server, "rewrite", 2, OPERATOR, "2.8.0", "O(1)", "Writes what was changed into the file"),
            spec(Server, "resetstat", 2, OPERATOR, "2.0.0", "O(1)", "Lets INFO's counters start again"),
            spec(Server, "help", 2, LOADING | STALE, "5.0.0", "O(1)", "Prints this help"),
        ],
        ..spec(Server, "config", -2, 0, "2.0.0", "Depends on subcommand.", "Commands about the configuration")
    },
    run: config,
}];

pub(super) const SUBS: &[Sub] =
    &[("get", get), ("set", set), ("rewrite", rewrite), ("resetstat", resetstat), ("help", print_help)];

fn config(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    run_subcommand(SUBS, ctx, args)
}

fn print_help(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(help("CONFIG", COMMANDS[0].spec.subcommands))
}

/// The configuration as it is now: REPLICAOF and FAILOVER change whom this node follows.
fn in_force(node: &Node) -> Cow<'_, config::Config> {
    let following = node.status().following.as_ref().map(|to| format!("{} {}", to.host, to.port));
    let replicaof = following.unwrap_or_default();
    if node.config.replicaof == replicaof {
        return Cow::Borrowed(&node.config);
    }
    Cow::Owned(config::Config { replicaof, ..config::Config::clone(&node.config) })
}

/// A parameter that several patterns match is answered once.
fn get(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let config = in_force(ctx.node);
    let mut found: Vec<(&str, String)> = Vec::new();
    for pattern in args.iter(2) {
        for (name, value) in config::get(&config, pattern) {
            if !found.iter().any(|(other, _)| *other == name) {
                found.push((name, value));
            }
        }
    }
    let pairs = found.into_iter().map(|(name, value)| (Reply::text(name), Reply::bulk(value)));
    Ok(Reply::Map(pairs.collect()).into())
}

/// Checked against this core's copy; then every core, this one too, takes the new whole.
fn set(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if !args.len().is_multiple_of(2) {
        return Err(ClientError::SYNTAX);
    }
    let words: Vec<_> = args.iter(2).collect();
    let pairs: Vec<_> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let mut next = config::Config::clone(&ctx.node.config);
    config::set(&mut next, &pairs)?;
    Ok(Answer::AskAll(Ask::Configure(Arc::new(next)), Box::new(|_, tells| done(tells))))
}

/// Waits for the disk, on the core: one small file, at an operator's word.
fn rewrite(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    config::rewrite_file(&in_force(ctx.node), ctx.node.config_file.as_deref())?;
    Ok(Reply::Ok.into())
}

fn resetstat(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Answer::AskAll(Ask::ResetStats, Box::new(|_, tells| done(tells))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::Bench;
    use crate::replica::status::{Following, Status};
    use crate::shard::mesh::Tell;

    #[test]
    fn texts_are_those_of_redis() {
        let mut bench = Bench::new();
        for (call, reply) in [
            ("CONFIG GET foo", "{}"),
            ("CONFIG GET maxclients", "{maxclients: 10000}"),
            ("CONFIG GET appendonly maxclients max*clients", "{appendonly: yes, maxclients: 10000}"),
            ("CONFIG SET a b c", "-ERR syntax error"),
            ("CONFIG SET a b", "-ERR Unknown option or number of arguments for CONFIG SET - 'a'"),
            ("CONFIG SET a", "-ERR wrong number of arguments for 'config|set' command"),
            (
                "CONFIG SET maxclients 100 maxclients 200",
                "-ERR CONFIG SET failed (possibly related to argument 'maxclients') - duplicate parameter",
            ),
            ("CONFIG REWRITE", "-ERR The server is running without a config file"),
            ("CONFIG FOO", "-ERR unknown subcommand 'FOO'. Try CONFIG HELP."),
            ("CONFIG", "-ERR wrong number of arguments for 'config' command"),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
    }

    #[test]
    fn a_change_goes_to_every_core_and_nowhere_if_it_is_refused() {
        let mut bench = Bench::new();
        let check = |ask: &Ask| {
            let Ask::Configure(config) = ask else { panic!("a configuration") };
            assert_eq!((config.maxclients, config.timeout_s), (100, 9));
            vec![Tell::Done, Tell::Done]
        };
        assert_eq!(bench.run_with("CONFIG SET maxclients 100 timeout 9", check), "OK");
        let none = |_: &Ask| panic!("nobody is asked");
        assert!(
            bench.run_with("CONFIG SET maxclients 100 timeout x", none).starts_with("-ERR CONFIG SET failed")
        );
    }

    #[test]
    fn counters_are_reset_everywhere() {
        let reset = |ask: &Ask| {
            assert!(matches!(ask, Ask::ResetStats));
            vec![Tell::Done, Tell::Done]
        };
        assert_eq!(Bench::new().run_with("CONFIG RESETSTAT", reset), "OK");
    }

    #[test]
    fn whom_the_node_follows_is_told_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("haypile.conf");
        std::fs::write(&path, "port 9221\n").expect("a file");
        let mut bench = Bench::new();
        bench.node.config_file = Some(path.clone());
        assert_eq!(bench.run("CONFIG GET slave*of"), "{slaveof: }");
        let following = Following { host: "10.0.0.1".into(), port: 6379, ..Following::default() };
        bench.set_status(Status { following: Some(following), ..Status::default() });
        assert_eq!(bench.run("CONFIG GET replicaof"), "{replicaof: 10.0.0.1 6379}");
        assert_eq!(
            bench.run("CONFIG SET replicaof x"),
            "-ERR CONFIG SET failed (possibly related to argument 'replicaof') - can't set immutable config"
        );
        assert_eq!(bench.run("CONFIG REWRITE"), "OK");
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(text.contains("\nreplicaof 10.0.0.1 6379\n"), "{text}");
        bench.set_status(Status::default());
        assert_eq!(bench.run("CONFIG REWRITE"), "OK");
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(!text.contains("replicaof"), "{text}");
    }

    #[test]
    fn a_rewrite_keeps_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("haypile.conf");
        std::fs::write(&path, "# mine\nport 9221\n").expect("a file");
        let mut bench = Bench::new();
        bench.node.config_file = Some(path.clone());
        bench.configure(|config| config.maxclients = 77);
        assert_eq!(bench.run("CONFIG REWRITE"), "OK");
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(text.starts_with("# mine\nport 9221\n") && text.contains("maxclients 77"), "{text}");
    }
}

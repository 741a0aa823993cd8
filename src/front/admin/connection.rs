//! Commands that set up a connection: who the client is, which table and which protocol it uses.
//! Must not know how replies are written or when the socket closes.

use super::{REDIS_VERSION, client, is_cluster, spec};
use crate::command::Group::Connection;
use crate::command::flag::{ALLOW_BUSY, FAST, LOADING, NO_AUTH, NOSCRIPT, STALE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::encode::Protocol;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::slot::TableId;
use bytes::Bytes;
use std::hint::black_box;

/// May be sent before AUTH.
const OPEN: u32 = NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY;

pub const COMMANDS: &[FrontCommand] = &[
    FrontCommand {
        spec: spec(Connection, "ping", -1, FAST, "1.0.0", "O(1)", "Answers PONG, or the message given"),
        run: ping,
    },
    FrontCommand {
        spec: spec(
            Connection,
            "echo",
            2,
            LOADING | STALE | FAST,
            "1.0.0",
            "O(1)",
            "Answers the message given",
        ),
        run: echo,
    },
    FrontCommand {
        spec: spec(Connection, "quit", -1, OPEN, "1.0.0", "O(1)", "Closes the connection"),
        run: quit,
    },
    FrontCommand {
        spec: spec(Connection, "reset", 1, OPEN, "6.2.0", "O(1)", "Makes the connection as good as new"),
        run: reset,
    },
    FrontCommand {
        spec: spec(Connection, "select", 2, LOADING | STALE | FAST, "1.0.0", "O(1)", "Chooses the database"),
        run: select,
    },
    FrontCommand {
        spec: spec(Connection, "auth", -2, OPEN, "1.0.0", "O(1)", "Gives the password"),
        run: auth,
    },
    FrontCommand {
        spec: spec(
            Connection,
            "hello",
            -1,
            OPEN,
            "6.0.0",
            "O(1)",
            "Chooses the protocol, and tells about the server",
        ),
        run: hello,
    },
];

const WRONG_PASS: ClientError =
    ClientError::fixed("WRONGPASS invalid username-password pair or user is disabled.");
const NO_PASSWORD_SET: ClientError = ClientError::fixed(
    "ERR AUTH <password> called without any password configured for the default user. \
     Are you sure your configuration is correct?",
);
const HELLO_NOAUTH: ClientError = ClientError::fixed(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH \
     <user> <pass> option can be used to authenticate the client and select the RESP protocol version \
     at the same time",
);

/// The only user of this version.
pub const USER: &[u8] = b"default";

fn ping(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    match args.len() {
        1 => Ok(Reply::Simple("PONG").into()),
        2 => Ok(Reply::Bulk(Bytes::copy_from_slice(args.get(1))).into()),
        _ => Err(ClientError::wrong_arity("ping")),
    }
}

fn echo(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Reply::Bulk(Bytes::copy_from_slice(args.get(1))).into())
}

fn quit(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Answer::Close(Reply::Ok))
}

fn reset(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let password_set = password(ctx).is_some();
    ctx.session.reset(password_set);
    Ok(Reply::Simple("RESET").into())
}

fn select(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let index = number::parse_i64(args.get(1)).ok_or(ClientError::NOT_INTEGER)?;
    if i32::try_from(index).is_err() {
        return Err(ClientError::fixed(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    if is_cluster(ctx) && index != 0 {
        return Err(ClientError::fixed("ERR SELECT is not allowed in cluster mode"));
    }
    ctx.session.table = database(ctx, index)?;
    Ok(Reply::Ok.into())
}

/// The table of this number, if the configuration has so many.
pub(super) fn database(ctx: &Ctx<'_>, index: i64) -> Result<TableId, ClientError> {
    u32::try_from(index)
        .ok()
        .filter(|index| *index < ctx.node.config.databases)
        .map(TableId)
        .filter(|table| ctx.node.assigned.as_ref().is_none_or(|assigned| assigned.slots(*table).is_some()))
        .ok_or(ClientError::fixed("ERR DB index is out of range"))
}

fn auth(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    match args.len() {
        2 if password(ctx).is_none() => return Err(NO_PASSWORD_SET),
        2 => log_in(ctx, USER, args.get(1))?,
        3 => log_in(ctx, args.get(1), args.get(2))?,
        _ => return Err(ClientError::SYNTAX),
    }
    Ok(Reply::Ok.into())
}

fn password<'c>(ctx: &'c Ctx<'_>) -> Option<&'c [u8]> {
    let password = &ctx.node.config.requirepass;
    password.is_set().then(|| password.as_bytes())
}

/// Without a password every password is right, as in Redis.
fn log_in(ctx: &mut Ctx<'_>, user: &[u8], given: &[u8]) -> Result<(), ClientError> {
    let right = password(ctx).is_none_or(|password| same_secret(password, given));
    if user != USER || !right {
        return Err(WRONG_PASS);
    }
    ctx.session.authenticated = true;
    Ok(())
}

/// Takes a time that depends on what is given alone, not on where it differs. `secret` is not empty.
fn same_secret(secret: &[u8], given: &[u8]) -> bool {
    let mut differs = u8::from(secret.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        differs |= black_box(byte ^ secret[at % secret.len()]);
    }
    differs == 0
}

fn hello(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let wanted = Wanted::parse(args)?;
    if let Some((user, given)) = wanted.login {
        log_in(ctx, user, given)?;
    }
    if !ctx.session.authenticated && password(ctx).is_some() {
        return Err(HELLO_NOAUTH);
    }
    if let Some(name) = wanted.name {
        ctx.session.name = Bytes::copy_from_slice(name);
    }
    if let Some(protocol) = wanted.protocol {
        ctx.session.protocol = protocol;
    }
    Ok(greeting(ctx).into())
}

/// What HELLO asks for.
#[derive(Default)]
struct Wanted<'a> {
    protocol: Option<Protocol>,
    login: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Wanted<'a> {
    fn parse(args: &Args<'a>) -> Result<Wanted<'a>, ClientError> {
        let mut wanted = Wanted::default();
        if args.len() == 1 {
            return Ok(wanted);
        }
        wanted.protocol = Some(protocol(args.get(1))?);
        let mut at = 2;
        while at < args.len() {
            let more = args.len() - at - 1;
            if args.is(at, "AUTH") && more >= 2 {
                wanted.login = Some((args.get(at + 1), args.get(at + 2)));
                at += 3;
            } else if args.is(at, "SETNAME") && more >= 1 {
                client::check_name(args.get(at + 1))?;
                wanted.name = Some(args.get(at + 1));
                at += 2;
            } else {
                let option = String::from_utf8_lossy(args.get(at)).replace(['\r', '\n'], " ");
                return Err(ClientError::new(format!("ERR Syntax error in HELLO option '{option}'")));
            }
        }
        Ok(wanted)
    }
}

fn protocol(version: &[u8]) -> Result<Protocol, ClientError> {
    match number::parse_i64(version) {
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err(ClientError::fixed("NOPROTO unsupported protocol version")),
        None => Err(ClientError::fixed("ERR Protocol version is not an integer or out of range")),
    }
}

/// The version of the protocol as a number.
pub(super) fn protocol_number(protocol: Protocol) -> i64 {
    match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    }
}

fn greeting(ctx: &Ctx<'_>) -> Reply {
    let mode = if is_cluster(ctx) { "cluster" } else { "standalone" };
    Reply::Map(vec![
        (Reply::text("server"), Reply::text("redis")),
        (Reply::text("version"), Reply::text(REDIS_VERSION)),
        (Reply::text("proto"), Reply::Int(protocol_number(ctx.session.protocol))),
        (Reply::text("id"), Reply::Int(ctx.session.id as i64)),
        (Reply::text("mode"), Reply::text(mode)),
        (Reply::text("role"), Reply::text("master")),
        (Reply::text("modules"), Reply::Array(Vec::new())),
    ])
}

#[cfg(test)]
mod tests {
    use crate::config;
    use crate::front::admin::testing::Bench;
    use crate::resp::encode::Protocol;
    use crate::slot::TableId;

    #[test]
    fn texts_are_those_of_redis() {
        let mut bench = Bench::new();
        for (call, reply) in [
            ("PING", "+PONG"),
            ("PING hello", "hello"),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
            ("ECHO x", "x"),
            ("SELECT 99", "-ERR DB index is out of range"),
            ("SELECT a", "-ERR value is not an integer or out of range"),
            (
                "SELECT 99999999999",
                "-ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
            ("SELECT -1", "-ERR DB index is out of range"),
            ("SELECT 3", "OK"),
            (
                "AUTH x",
                "-ERR AUTH <password> called without any password configured for the default user. Are you \
                 sure your configuration is correct?",
            ),
            ("AUTH default x", "OK"),
            ("AUTH foo bar", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("AUTH a b c", "-ERR syntax error"),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
            ("HELLO a", "-ERR Protocol version is not an integer or out of range"),
            ("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
            ("HELLO 3 auth default", "-ERR Syntax error in HELLO option 'auth'"),
            ("HELLO 3 AUTH default x SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
            ("HELLO 3 AUTH bad bad", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("RESET", "+RESET"),
            ("QUIT", "close OK"),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
    }

    #[test]
    fn with_a_password_nothing_is_known_before_it_is_given() {
        let mut bench = Bench::new();
        bench.configure(|config| {
            config::set(config, &[(b"requirepass", b"sekret")]).expect("it can be set");
        });
        bench.session.reset(true);
        for (call, reply) in [
            ("AUTH x", "-WRONGPASS"),
            ("AUTH sekre", "-WRONGPASS"),
            ("AUTH sekretsekret", "-WRONGPASS"),
            ("AUTH bad sekret", "-WRONGPASS"),
            ("HELLO 3", "-NOAUTH HELLO must be called with the client already authenticated"),
            ("HELLO 3 SETNAME x", "-NOAUTH HELLO"),
            ("HELLO 9", "-NOPROTO"),
        ] {
            assert!(bench.run(call).starts_with(reply), "{call}");
            assert!(!bench.session.authenticated, "{call}");
        }
        assert!(
            bench.run("HELLO 3 AUTH default sekret SETNAME n").starts_with("{server: redis, version: 7.")
        );
        assert!(bench.session.authenticated);
        assert_eq!(bench.session.name, "n");
        assert_eq!(bench.session.protocol, Protocol::Resp3);
        assert_eq!(bench.run("AUTH sekret"), "OK");
        assert_eq!(bench.run("RESET"), "+RESET");
        assert!(!bench.session.authenticated);
    }

    #[test]
    fn reset_goes_back_to_the_first_database() {
        let mut bench = Bench::new();
        bench.run("SELECT 5");
        assert_eq!(bench.session.table, TableId(5));
        bench.run("RESET");
        assert_eq!(bench.session.table, TableId(0));
    }

    #[test]
    fn a_cluster_has_one_database() {
        let mut bench = Bench::cluster(2);
        assert_eq!(bench.run("SELECT 1"), "-ERR SELECT is not allowed in cluster mode");
        assert_eq!(bench.run("SELECT 0"), "OK");
        assert!(bench.run("HELLO").contains("mode: cluster"));
    }
}

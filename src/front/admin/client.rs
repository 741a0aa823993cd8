//! CLIENT: what a connection says of itself, and what it may do to the others.
//! Lists and kills go to every core; the serving loops there apply `client_line::filter_matches`.

pub use super::client_line::{Extras, client_line, filter_matches};
use super::connection::USER;
use super::{Sub, all_told, done, help, ok_or_error, one_told, run_subcommand, spec};
use crate::command::Group::Connection;
use crate::command::Spec;
use crate::command::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use crate::error::ClientError;
use crate::front::session::ReplyMode;
use crate::front::{Answer, Ctx, FrontCommand};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, ClientFilter, Tell};
use bytes::Bytes;
use std::sync::Arc;

const OWN: u32 = NOSCRIPT | LOADING | STALE;
const OTHERS: u32 = OWN | ADMIN;
const PER_CLIENT: &str = "O(N) where N is the number of connections";

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            spec(Connection, "id", 2, OWN, "5.0.0", "O(1)", "Answers the connection's number"),
            spec(Connection, "getname", 2, OWN, "2.6.9", "O(1)", "Answers the connection's name"),
            spec(Connection, "setname", 3, OWN, "2.6.9", "O(1)", "Names the connection"),
            spec(Connection, "setinfo", 4, OWN, "7.2.0", "O(1)", "Tells which client library this is"),
            spec(Connection, "list", -2, OTHERS, "2.4.0", PER_CLIENT, "Lists the connections of all cores"),
            spec(Connection, "info", 2, OWN, "6.2.0", "O(1)", "Answers this connection's line of the list"),
            spec(Connection, "kill", -3, OTHERS, "2.4.0", PER_CLIENT, "Ends connections"),
            spec(Connection, "reply", 3, OWN, "3.2.0", "O(1)", "Says whether replies are sent"),
            spec(Connection, "pause", -3, OTHERS, "2.9.50", "O(1)", "Holds back commands for a time"),
            spec(Connection, "unpause", 2, OTHERS, "6.2.0", PER_CLIENT, "Ends a pause"),
            spec(Connection, "unblock", -3, OTHERS, "5.0.0", PER_CLIENT, "Ends the waiting of a connection"),
            spec(Connection, "no-evict", 3, OTHERS, "7.0.0", "O(1)", "Protects the connection from eviction"),
            spec(Connection, "no-touch", 3, OWN, "7.2.0", "O(1)", "Reads without changing idle times"),
            spec(Connection, "help", 2, LOADING | STALE, "5.0.0", "O(1)", "Prints this help"),
        ],
        ..spec(Connection, "client", -2, 0, "2.4.0", "Depends on subcommand.", "Commands about connections")
    },
    run: client,
}];

pub(super) const SUBS: &[Sub] = &[
    ("id", id),
    ("getname", getname),
    ("setname", setname),
    ("setinfo", setinfo),
    ("list", list),
    ("info", info),
    ("kill", kill),
    ("reply", reply),
    ("pause", pause),
    ("unpause", unpause),
    ("unblock", unblock),
    ("no-evict", no_evict),
    ("no-touch", no_touch),
    ("help", print_help),
];

/// Longest name a connection keeps; Redis has no bound of its own.
const NAME_MAX_BYTES: usize = 4096;

fn client(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    run_subcommand(SUBS, ctx, args)
}

fn print_help(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(help("CLIENT", COMMANDS[0].spec.subcommands))
}

fn id(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    Ok(Reply::Int(ctx.session.id as i64).into())
}

fn getname(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let name = ctx.session.name.clone();
    Ok(if name.is_empty() { Reply::Nil.into() } else { Reply::Bulk(name).into() })
}

fn setname(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    check_name(args.get(2))?;
    ctx.session.name = Bytes::copy_from_slice(args.get(2));
    Ok(Reply::Ok.into())
}

/// Names stand in the lines of CLIENT LIST, so nothing that separates there may be in them.
pub(super) fn check_name(name: &[u8]) -> Result<(), ClientError> {
    if !is_plain(name) {
        return Err(ClientError::fixed(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    if name.len() > NAME_MAX_BYTES {
        return Err(ClientError::new(format!(
            "ERR Client names cannot be longer than {NAME_MAX_BYTES} bytes."
        )));
    }
    Ok(())
}

fn is_plain(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_graphic)
}

fn setinfo(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let option = String::from_utf8_lossy(args.get(2)).replace(['\r', '\n'], " ");
    let field = if args.is(2, "lib-name") {
        &mut ctx.session.lib_name
    } else if args.is(2, "lib-ver") {
        &mut ctx.session.lib_ver
    } else {
        return Err(ClientError::new(format!("ERR Unrecognized option '{option}'")));
    };
    let value = args.get(3);
    if !is_plain(value) || value.len() > NAME_MAX_BYTES {
        let why = "cannot contain spaces, newlines or special characters.";
        return Err(ClientError::new(format!("ERR {option} {why}")));
    }
    *field = Bytes::copy_from_slice(value);
    Ok(Reply::Ok.into())
}

fn list(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let mut filter = ClientFilter::default();
    if args.len() == 4 && args.is(2, "TYPE") {
        filter.kind = Some(kind(args.get(3))?);
    } else if args.len() > 3 && args.is(2, "ID") {
        for given in args.iter(3) {
            let id = number::parse_i64(given).ok_or(ClientError::fixed("ERR Invalid client ID"))?;
            // Redis accepts numbers that no connection can have.
            filter.ids.push(u64::try_from(id).unwrap_or(0));
        }
    } else if args.len() != 2 {
        return Err(ClientError::SYNTAX);
    }
    let fold =
        |_: &mut Ctx<'_>, tells| ok_or_error(all_told(tells, lines).map(|parts| verbatim(parts.concat())));
    Ok(Answer::AskAll(Ask::ClientList(Arc::new(filter)), Box::new(fold)))
}

fn lines(tell: Tell) -> Option<String> {
    match tell {
        Tell::Clients(lines) => Some(lines),
        _ => None,
    }
}

fn verbatim(text: String) -> Reply {
    Reply::Verbatim(text.into())
}

/// Through the core's own list, because only the serving loop knows the buffers.
fn info(ctx: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let filter = ClientFilter { ids: vec![ctx.session.id], ..ClientFilter::default() };
    let fold = |_: &mut Ctx<'_>, tells| ok_or_error(one_told(tells, lines).map(verbatim));
    Ok(Answer::AskOne(ctx.node.core, Ask::ClientList(Arc::new(filter)), Box::new(fold)))
}

fn kind(name: &[u8]) -> Result<Bytes, ClientError> {
    let name = String::from_utf8_lossy(name);
    match name.to_ascii_lowercase().as_str() {
        "normal" => Ok(Bytes::from_static(b"normal")),
        "master" => Ok(Bytes::from_static(b"master")),
        "replica" | "slave" => Ok(Bytes::from_static(b"replica")),
        "pubsub" => Ok(Bytes::from_static(b"pubsub")),
        _ => {
            let name = name.replace(['\r', '\n'], " ");
            Err(ClientError::new(format!("ERR Unknown client type '{name}'")))
        }
    }
}

/// The old form names one address and answers OK or an error, the new one filters and answers a number.
fn kill(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if args.len() == 3 {
        let filter =
            ClientFilter { addr: Some(Bytes::copy_from_slice(args.get(2))), ..ClientFilter::default() };
        return Ok(kill_all(filter, |count| match count {
            0 => Reply::Error(ClientError::fixed("ERR No such client")),
            _ => Reply::Ok,
        }));
    }
    let filter = kill_filter(args, ctx.session.id)?;
    Ok(kill_all(filter, |count| Reply::Int(count as i64)))
}

fn unblock(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let error = match args.len() {
        3 => false,
        4 if args.is(3, "TIMEOUT") => false,
        4 if args.is(3, "ERROR") => true,
        4 => return Err(ClientError::fixed("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(ClientError::SYNTAX),
    };
    let client = number::parse_i64(args.get(2)).ok_or(ClientError::NOT_INTEGER)?;
    // No connection has a negative number.
    let client = u64::try_from(client).unwrap_or(0);
    Ok(count_hit(Ask::ClientUnblock { client, error }, |count| Reply::Int(count as i64)))
}

/// A connection that kills itself still gets the reply; that is up to the serving loop.
fn kill_all(filter: ClientFilter, reply: fn(u64) -> Reply) -> Answer {
    count_hit(Ask::ClientKill(Arc::new(filter)), reply)
}

/// Asks all cores for something that hits connections; the reply is made of how many.
fn count_hit(ask: Ask, reply: fn(u64) -> Reply) -> Answer {
    let killed = |tell| match tell {
        Tell::Killed(count) => Some(count),
        _ => None,
    };
    let fold = move |_: &mut Ctx<'_>, tells| {
        ok_or_error(all_told(tells, killed).map(|counts| reply(counts.into_iter().sum())))
    };
    Answer::AskAll(ask, Box::new(fold))
}

fn kill_filter(args: &Args<'_>, own_id: u64) -> Result<ClientFilter, ClientError> {
    let mut filter = ClientFilter { spare: Some(own_id), ..ClientFilter::default() };
    for at in (2..args.len()).step_by(2) {
        if at + 1 == args.len() {
            return Err(ClientError::SYNTAX);
        }
        let value = args.get(at + 1);
        let own = || Some(Bytes::copy_from_slice(value));
        if args.is(at, "ID") {
            filter.ids = vec![positive(
                value,
                "client-id should be greater than 0",
                "client-id should be greater than 0",
            )?];
        } else if args.is(at, "TYPE") {
            filter.kind = Some(kind(value)?);
        } else if args.is(at, "ADDR") {
            filter.addr = own();
        } else if args.is(at, "LADDR") {
            filter.laddr = own();
        } else if args.is(at, "USER") {
            filter.user = Some(user(value)?);
        } else if args.is(at, "MAXAGE") {
            let age = positive(
                value,
                "maxage is not an integer or out of range",
                "maxage should be greater than 0",
            )?;
            filter.max_age_seconds = Some(age);
        } else if args.is(at, "SKIPME") && args.is(at + 1, "yes") {
            filter.spare = Some(own_id);
        } else if args.is(at, "SKIPME") && args.is(at + 1, "no") {
            filter.spare = None;
        } else {
            return Err(ClientError::SYNTAX);
        }
    }
    Ok(filter)
}

fn positive(value: &[u8], not_a_number: &str, too_small: &str) -> Result<u64, ClientError> {
    let error = |text| ClientError::new(format!("ERR {text}"));
    let number = number::parse_i64(value).ok_or_else(|| error(not_a_number))?;
    u64::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| error(too_small))
}

fn user(name: &[u8]) -> Result<Bytes, ClientError> {
    if name == USER {
        return Ok(Bytes::from_static(USER));
    }
    let name = String::from_utf8_lossy(name).replace(['\r', '\n'], " ");
    Err(ClientError::new(format!("ERR No such user '{name}'")))
}

fn reply(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    if args.is(2, "ON") {
        ctx.session.reply_mode = ReplyMode::On;
        return Ok(Reply::Ok.into());
    }
    if args.is(2, "OFF") {
        ctx.session.reply_mode = ReplyMode::Off;
    } else if !args.is(2, "SKIP") {
        return Err(ClientError::SYNTAX);
    } else if ctx.session.reply_mode != ReplyMode::Off {
        ctx.session.reply_mode = ReplyMode::SkipNext;
    }
    Ok(Reply::Silent.into())
}

fn pause(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let writes_only = match args.len() {
        3 => false,
        4 if args.is(3, "ALL") => false,
        4 if args.is(3, "WRITE") => true,
        4 => return Err(ClientError::fixed("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => {
            let given = String::from_utf8_lossy(args.get(1)).replace(['\r', '\n'], " ");
            return Err(ClientError::new(format!(
                "ERR unknown subcommand or wrong number of arguments for '{given}'. Try CLIENT HELP."
            )));
        }
    };
    let timeout_ms = number::parse_i64(args.get(2))
        .ok_or(ClientError::fixed("ERR timeout is not an integer or out of range"))?;
    let timeout_ms = u64::try_from(timeout_ms).map_err(|_| ClientError::fixed("ERR timeout is negative"))?;
    let until_ms = ctx.now_ms.saturating_add(timeout_ms);
    Ok(Answer::AskAll(Ask::ClientPause { until_ms, writes_only }, Box::new(|_, tells| done(tells))))
}

/// A pause that has ended long ago.
fn unpause(_: &mut Ctx<'_>, _: &Args<'_>) -> Result<Answer, ClientError> {
    let ask = Ask::ClientPause { until_ms: 0, writes_only: false };
    Ok(Answer::AskAll(ask, Box::new(|_, tells| done(tells))))
}

fn no_evict(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    ctx.session.no_evict = on_or_off(args)?;
    Ok(Reply::Ok.into())
}

fn no_touch(ctx: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    ctx.session.no_touch = on_or_off(args)?;
    Ok(Reply::Ok.into())
}

fn on_or_off(args: &Args<'_>) -> Result<bool, ClientError> {
    match (args.is(2, "on"), args.is(2, "off")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(ClientError::SYNTAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::admin::testing::{Bench, NOW_MS};

    #[test]
    fn texts_are_those_of_redis() {
        let mut bench = Bench::new();
        for (call, reply) in [
            ("CLIENT ID", ":7"),
            ("CLIENT GETNAME", "nil"),
            ("CLIENT SETNAME x:y", "OK"),
            ("CLIENT GETNAME", "x:y"),
            (
                "CLIENT SETNAME a\tb",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
            ("CLIENT ID 3", "-ERR wrong number of arguments for 'client|id' command"),
            ("CLIENT SETINFO LIB-NAME hay", "OK"),
            ("CLIENT SETINFO lib-ver 1.0", "OK"),
            ("CLIENT SETINFO foo 1.0", "-ERR Unrecognized option 'foo'"),
            (
                "CLIENT SETINFO lib-ver a\tb",
                "-ERR lib-ver cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT LIST TYPE", "-ERR syntax error"),
            ("CLIENT LIST ID", "-ERR syntax error"),
            ("CLIENT LIST ID a", "-ERR Invalid client ID"),
            ("CLIENT LIST FOO", "-ERR syntax error"),
            ("CLIENT LIST TYPE normal ID 1", "-ERR syntax error"),
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0"),
            ("CLIENT KILL ID a", "-ERR client-id should be greater than 0"),
            ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT KILL USER nope", "-ERR No such user 'nope'"),
            ("CLIENT KILL SKIPME foo", "-ERR syntax error"),
            ("CLIENT KILL FOO bar", "-ERR syntax error"),
            ("CLIENT KILL ID 5 FOO", "-ERR syntax error"),
            ("CLIENT KILL MAXAGE a", "-ERR maxage is not an integer or out of range"),
            ("CLIENT REPLY FOO", "-ERR syntax error"),
            ("CLIENT PAUSE a", "-ERR timeout is not an integer or out of range"),
            ("CLIENT PAUSE -1", "-ERR timeout is negative"),
            ("CLIENT PAUSE a FOO", "-ERR CLIENT PAUSE mode must be WRITE or ALL"),
            (
                "CLIENT pause 1 all x",
                "-ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.",
            ),
            ("CLIENT NO-EVICT foo", "-ERR syntax error"),
            ("CLIENT NO-EVICT on", "OK"),
            ("CLIENT NO-TOUCH on", "OK"),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
        }
        assert_eq!((&bench.session.lib_name[..], &bench.session.lib_ver[..]), (&b"hay"[..], &b"1.0"[..]));
        assert!(bench.session.no_evict && bench.session.no_touch);
    }

    #[test]
    fn replies_can_be_turned_off_and_skipped() {
        let mut bench = Bench::new();
        for (call, reply, mode) in [
            ("CLIENT REPLY SKIP", "silent", ReplyMode::SkipNext),
            ("CLIENT REPLY OFF", "silent", ReplyMode::Off),
            ("CLIENT REPLY SKIP", "silent", ReplyMode::Off),
            ("CLIENT REPLY ON", "OK", ReplyMode::On),
        ] {
            assert_eq!(bench.run(call), reply, "{call}");
            assert_eq!(bench.session.reply_mode, mode, "{call}");
        }
    }

    fn filter_of(bench: &mut Bench, call: &str) -> ClientFilter {
        match bench.answer(call) {
            Ok(Answer::AskAll(Ask::ClientKill(filter) | Ask::ClientList(filter), _)) => (*filter).clone(),
            _ => panic!("{call} asks every core"),
        }
    }

    #[test]
    fn kill_spares_the_caller_unless_told_otherwise() {
        let mut bench = Bench::new();
        assert_eq!(filter_of(&mut bench, "CLIENT KILL ID 5").spare, Some(7));
        assert_eq!(filter_of(&mut bench, "CLIENT KILL SKIPME no ID 5").spare, None);
        assert_eq!(filter_of(&mut bench, "CLIENT KILL 1.2.3.4:5").spare, None);
        let filter =
            filter_of(&mut bench, "CLIENT KILL TYPE SLAVE ADDR a:1 LADDR b:2 USER default MAXAGE 9 ID 4");
        assert_eq!(filter.kind.as_deref(), Some(&b"replica"[..]));
        assert_eq!((filter.addr.as_deref(), filter.laddr.as_deref()), (Some(&b"a:1"[..]), Some(&b"b:2"[..])));
        assert_eq!((filter.max_age_seconds, filter.ids), (Some(9), vec![4]));
        assert_eq!(filter_of(&mut bench, "CLIENT LIST ID 3 4").ids, [3, 4]);
    }

    #[test]
    fn answers_of_all_cores_become_one() {
        let mut bench = Bench::new();
        let killed = |_: &Ask| vec![Tell::Killed(1), Tell::Killed(2)];
        assert_eq!(bench.run_with("CLIENT KILL TYPE normal", killed), ":3");
        assert_eq!(bench.run_with("CLIENT KILL 1.2.3.4:5", killed), "OK");
        let none = |_: &Ask| vec![Tell::Killed(0), Tell::Killed(0)];
        assert_eq!(bench.run_with("CLIENT KILL 1.2.3.4:5", none), "-ERR No such client");
        let lines = |_: &Ask| vec![Tell::Clients("id=1\n".into()), Tell::Clients("id=2\n".into())];
        assert_eq!(bench.run_with("CLIENT LIST", lines), "txt:id=1\nid=2\n");
        assert_eq!(bench.run_with("CLIENT INFO", |_| vec![Tell::Clients("id=7\n".into())]), "txt:id=7\n");
    }

    #[test]
    fn a_pause_is_told_to_every_core() {
        let mut bench = Bench::new();
        let check = |ask: &Ask| {
            let Ask::ClientPause { until_ms, writes_only } = ask else { panic!("a pause") };
            assert_eq!((*until_ms, *writes_only), (NOW_MS + 50, true));
            vec![Tell::Done, Tell::Done]
        };
        assert_eq!(bench.run_with("CLIENT PAUSE 50 WRITE", check), "OK");
        let check = |ask: &Ask| {
            assert!(matches!(ask, Ask::ClientPause { until_ms: 0, writes_only: false }));
            vec![Tell::Done]
        };
        assert_eq!(bench.run_with("CLIENT UNPAUSE", check), "OK");
    }
}

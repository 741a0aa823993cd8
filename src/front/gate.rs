//! The ordered reasons to refuse a command before it runs. Each check is named; the first that fails answers.

use super::session::Session;
use super::table::{CommandTable, Run};
use crate::command::{KeyCommand, flag};
use crate::error::ClientError;
use crate::limits;
use crate::resp::args::Args;

/// Text that Redis quotes back of an unknown command: at most this many bytes of it and of its arguments.
const QUOTED_MAX_BYTES: usize = 128;

/// How the node stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub password_set: bool,
    /// It follows another node.
    pub follows: bool,
    /// It is in sharding mode.
    pub is_sharded: bool,
    /// Fewer followers keep up than writes want.
    pub lacks_followers: bool,
    /// Fewer followers are there than a write would wait for (`consensus-level`).
    pub lacks_quorum: bool,
}

/// What may run, or why not. The names of a giant command's keys are looked at when it is planned.
pub fn admit(
    table: &CommandTable,
    session: &Session,
    standing: Standing,
    args: &Args<'_>,
) -> Result<Run, ClientError> {
    let run = known(table, args)?;
    right_arity(table, run, args)?;
    authenticated(session, standing.password_set, run)?;
    fits_mode(standing.is_sharded, run)?;
    may_write(session, standing, table, run, args)?;
    if let Run::Keys(command) = run
        && args.len() <= limits::ARGS_PER_TURN_MAX
    {
        names_fit(command, args)?;
    }
    Ok(run)
}

fn known(table: &CommandTable, args: &Args<'_>) -> Result<Run, ClientError> {
    table.find_call(args).ok_or_else(|| {
        let mut quoted = String::new();
        for arg in args.iter(1) {
            if quoted.len() >= QUOTED_MAX_BYTES {
                break;
            }
            let room = QUOTED_MAX_BYTES - quoted.len();
            quoted.push_str(&format!("'{}' ", printable(arg, room)));
        }
        let name = printable(args.get(0), QUOTED_MAX_BYTES);
        ClientError::new(format!("ERR unknown command '{name}', with args beginning with: {quoted}"))
    })
}

/// The number of arguments, and of a family the subcommand, are right.
pub fn right_arity(table: &CommandTable, run: Run, args: &Args<'_>) -> Result<(), ClientError> {
    let spec = run.spec();
    let one_word = spec.has(flag::ONE_WORD);
    let Some(row) = table.spec_of(run, args) else {
        if one_word {
            let given = printable(args.get(1), QUOTED_MAX_BYTES).to_lowercase();
            return Err(ClientError::new(format!(
                "ERR unknown or unsupported command '{}{given}'",
                spec.name
            )));
        }
        let given = printable(args.get(1), QUOTED_MAX_BYTES);
        let name = spec.name.to_ascii_uppercase();
        return Err(ClientError::new(format!("ERR unknown subcommand '{given}'. Try {name} HELP.")));
    };
    if row.arity_allows(args.len()) {
        return Ok(());
    }
    if std::ptr::eq(row, spec) {
        return Err(ClientError::wrong_arity(spec.name));
    }
    let between = if one_word { "" } else { "|" };
    Err(ClientError::wrong_arity(&format!("{}{between}{}", spec.name, row.name)))
}

fn authenticated(session: &Session, password_set: bool, run: Run) -> Result<(), ClientError> {
    if session.authenticated || !password_set || run.spec().has(flag::NO_AUTH) {
        return Ok(());
    }
    Err(ClientError::fixed("NOAUTH Authentication required."))
}

/// Commands about whole tables or nodes, where tables are cut into slots that each have their own primary.
const NOT_SHARDED: [&str; 8] = [
    "clearreplicationid",
    "dbslaveof",
    "failover",
    "haypile-takeover",
    "pkpatternmatchdel",
    "replicaof",
    "slaveof",
    "swapdb",
];

fn fits_mode(is_sharded: bool, run: Run) -> Result<(), ClientError> {
    if is_sharded && NOT_SHARDED.contains(&run.spec().name) {
        return Err(ClientError::fixed("ERR This command is not supported in current configuration"));
    }
    Ok(())
}

fn may_write(
    session: &Session,
    standing: Standing,
    table: &CommandTable,
    run: Run,
    args: &Args<'_>,
) -> Result<(), ClientError> {
    let refuses = standing.follows || standing.lacks_followers || standing.lacks_quorum;
    if !refuses || session.is_primary || !table.spec_of(run, args).is_some_and(|spec| spec.has(flag::WRITE)) {
        return Ok(());
    }
    Err(ClientError::fixed(match standing {
        Standing { follows: true, .. } => "READONLY You can't write against a read only replica.",
        Standing { lacks_followers: true, .. } => "NOREPLICAS Not enough good replicas to write.",
        // Pika's words.
        _ => "ERR Incomplete: Not enough follower",
    }))
}

/// No key's name is too long to be stored.
pub fn names_fit(command: &KeyCommand, args: &Args<'_>) -> Result<(), ClientError> {
    if args.iter(1).all(|arg| arg.len() <= limits::KEY_NAME_MAX_BYTES) {
        return Ok(());
    }
    let keys = command.spec.keys.of(args)?;
    if keys.iter().any(|key| args.get(key.arg).len() > limits::KEY_NAME_MAX_BYTES) {
        return Err(ClientError::fixed("ERR key name is longer than 65535 bytes"));
    }
    Ok(())
}

/// Bytes as Redis puts them into an error line: cut, and without line ends.
fn printable(bytes: &[u8], room: usize) -> String {
    let shown = &bytes[..bytes.len().min(room)];
    String::from_utf8_lossy(shown).replace(['\r', '\n'], " ")
}

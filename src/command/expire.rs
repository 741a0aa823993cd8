//! When keys end: EXPIRE and TTL in all their units.
//!
//! A key past its moment is gone for every reader; nothing here erases it from the disk.

use super::options::{TimeForm, int};
use super::{Handler, KeyCommand, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::row::Row;
use crate::store::tx::Tx;

pub const COMMANDS: &[KeyCommand] = &[
    setter("expire", "1.0.0", "Lets a key end after so many seconds", |tx, args| {
        expire(tx, args, "expire", TimeForm::SECONDS)
    }),
    setter("pexpire", "2.6.0", "Lets a key end after so many milliseconds", |tx, args| {
        expire(tx, args, "pexpire", TimeForm::MILLISECONDS)
    }),
    setter("expireat", "1.2.0", "Lets a key end at a Unix time in seconds", |tx, args| {
        expire(tx, args, "expireat", TimeForm::UNIX_SECONDS)
    }),
    setter("pexpireat", "2.6.0", "Lets a key end at a Unix time in milliseconds", |tx, args| {
        expire(tx, args, "pexpireat", TimeForm::UNIX_MILLISECONDS)
    }),
    getter("ttl", "1.0.0", "Seconds that a key has left", |tx, args| remaining(tx, args, TimeForm::SECONDS)),
    getter("pttl", "2.6.0", "Milliseconds that a key has left", |tx, args| {
        remaining(tx, args, TimeForm::MILLISECONDS)
    }),
    getter("expiretime", "7.0.0", "Unix time in seconds at which a key ends", |tx, args| {
        remaining(tx, args, TimeForm::UNIX_SECONDS)
    }),
    getter("pexpiretime", "7.0.0", "Unix time in milliseconds at which a key ends", |tx, args| {
        remaining(tx, args, TimeForm::UNIX_MILLISECONDS)
    }),
    KeyCommand {
        spec: Spec {
            name: "persist",
            arity: 2,
            flags: flag::WRITE | flag::FAST,
            since: "2.2.0",
            summary: "Takes the end off a key",
            ..ONE_KEY
        },
        run: persist,
    },
];

const ONE_KEY: Spec = Spec { since: "", ..super::ONE_KEY };

const fn setter(name: &'static str, since: &'static str, summary: &'static str, run: Handler) -> KeyCommand {
    KeyCommand {
        spec: Spec { name, arity: -3, flags: flag::WRITE | flag::FAST, since, summary, ..ONE_KEY },
        run,
    }
}

const fn getter(name: &'static str, since: &'static str, summary: &'static str, run: Handler) -> KeyCommand {
    KeyCommand {
        spec: Spec { name, arity: 2, flags: flag::READONLY | flag::FAST, since, summary, ..ONE_KEY },
        run,
    }
}

fn expire(tx: &mut Tx<'_>, args: &Args<'_>, command: &str, form: TimeForm) -> Result<Reply, Stop> {
    let condition = Condition::parse(args)?;
    let amount = int(args.get(2))?;
    let moment = form.moment_ms(amount, tx.now_ms()).ok_or_else(|| ClientError::invalid_expire(command))?;
    let key = tx.key(args.get(1));
    let Some(row) = tx.row(key)? else { return Ok(Reply::Int(0)) };
    if !condition.allows(moment, row.expire_ms) {
        return Ok(Reply::Int(0));
    }
    match u64::try_from(moment) {
        Ok(expire_ms) if expire_ms > tx.now_ms() => {
            tx.put(key, Row { expire_ms: Some(expire_ms), ..row }, Some(true));
        }
        _ => tx.delete(key),
    }
    Ok(Reply::Int(1))
}

/// When EXPIRE shall act, by the present end.
#[derive(Clone, Copy, Default)]
pub(super) struct Condition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Condition {
    /// The one condition that argument `at` may be.
    pub fn one(args: &Args<'_>, at: usize) -> Option<Condition> {
        let mut condition = Condition::default();
        condition.add(args, at).then_some(condition)
    }

    /// Takes a condition; false if the argument is none.
    fn add(&mut self, args: &Args<'_>, at: usize) -> bool {
        let named = [("NX", &mut self.nx), ("XX", &mut self.xx), ("GT", &mut self.gt), ("LT", &mut self.lt)];
        match named.into_iter().find(|(word, _)| args.is(at, word)) {
            Some((_, said)) => *said = true,
            None => return false,
        }
        true
    }

    fn parse(args: &Args<'_>) -> Result<Condition, ClientError> {
        let mut condition = Condition::default();
        for index in 3..args.len() {
            if !condition.add(args, index) {
                return Err(unsupported(args.get(index)));
            }
        }
        let Condition { nx, xx, gt, lt } = condition;
        if nx && (xx || gt || lt) {
            return Err(ClientError::fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if gt && lt {
            return Err(ClientError::fixed("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    /// What has no end counts as ending never.
    pub fn allows(self, moment: i64, now_ends_ms: Option<u64>) -> bool {
        match now_ends_ms.map(|at| i64::try_from(at).unwrap_or(i64::MAX)) {
            Some(end) => !self.nx && (!self.gt || moment > end) && (!self.lt || moment < end),
            None => !self.xx && !self.gt,
        }
    }
}

/// The option is quoted as far as its first NUL, on one line.
fn unsupported(option: &[u8]) -> ClientError {
    let shown = option.split(|byte| *byte == 0).next().unwrap_or_default();
    let shown = String::from_utf8_lossy(shown).replace(['\r', '\n'], " ");
    ClientError::new(format!("ERR Unsupported option {shown}"))
}

/// -2 without the key, -1 if it never ends; seconds are rounded to the nearest.
fn remaining(tx: &mut Tx<'_>, args: &Args<'_>, form: TimeForm) -> Result<Reply, Stop> {
    let now_ms = tx.now_ms();
    let Some(row) = tx.row(tx.key(args.get(1)))? else { return Ok(Reply::Int(-2)) };
    let Some(end_ms) = row.expire_ms else { return Ok(Reply::Int(-1)) };
    let shown_ms = if form.absolute { end_ms } else { end_ms - now_ms };
    let shown = match form.unit_ms {
        1 => shown_ms,
        unit_ms => shown_ms.saturating_add(unit_ms as u64 / 2) / unit_ms as u64,
    };
    Ok(Reply::Int(i64::try_from(shown).unwrap_or(i64::MAX)))
}

fn persist(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    match tx.row(key)? {
        Some(row) if row.expire_ms.is_some() => {
            tx.put(key, Row { expire_ms: None, ..row }, Some(true));
            Ok(Reply::Int(1))
        }
        _ => Ok(Reply::Int(0)),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::tests::Server;
    use crate::types::memory::scope;

    #[test]
    fn conditions_look_at_the_present_end() {
        let mut server = Server::default();
        server.ok("SET k v");
        for (command, done) in [
            ("PEXPIRE k 5000 XX", 0),
            ("PEXPIRE k 5000 GT", 0),
            ("PEXPIRE k 5000 LT", 1),
            ("PEXPIRE k 4000 NX", 0),
            ("PEXPIRE k 4000 GT", 0),
            ("PEXPIRE k 5000 GT", 0),
            ("PEXPIRE k 6000 GT XX", 1),
            ("PEXPIRE k 6000 LT", 0),
            ("EXPIRE nokey 1", 0),
        ] {
            server.int(command, done);
        }
        server.int("PTTL k", 6000);
        server.int("PEXPIRETIME k", scope().now_ms as i64 + 6000);
    }

    #[test]
    fn seconds_are_rounded_and_the_past_deletes() {
        let mut server = Server::default();
        server.ok("SET k v PX 1499");
        server.int("TTL k", 1);
        server.ok("SET k v PX 1500");
        server.int("TTL k", 2);
        server.int("PERSIST k", 1);
        server.int("PERSIST k", 0);
        server.int("TTL k", -1);
        server.int("EXPIREAT k 1 NX", 1);
        server.int("TTL k", -2);
        assert!(server.memory.rows.is_empty());
    }
}

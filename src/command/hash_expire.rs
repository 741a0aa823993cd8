//! When fields of hashes end: HEXPIRE and HTTL in all their units, as Redis 7.4 has them.

use super::expire::Condition;
use super::options::{TimeForm, int};
use super::{Group, Handler, KeyCommand, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::tx::Tx;
use crate::types::dump::FIELD_EXPIRE_MAX_MS;
use crate::types::hash::Hash;

pub const COMMANDS: &[KeyCommand] = &[
    setter("hexpire", "Lets fields end after so many seconds", |tx, args| {
        expire(tx, args, "hexpire", TimeForm::SECONDS)
    }),
    setter("hpexpire", "Lets fields end after so many milliseconds", |tx, args| {
        expire(tx, args, "hpexpire", TimeForm::MILLISECONDS)
    }),
    setter("hexpireat", "Lets fields end at a Unix time in seconds", |tx, args| {
        expire(tx, args, "hexpireat", TimeForm::UNIX_SECONDS)
    }),
    setter("hpexpireat", "Lets fields end at a Unix time in milliseconds", |tx, args| {
        expire(tx, args, "hpexpireat", TimeForm::UNIX_MILLISECONDS)
    }),
    getter("httl", "Seconds that fields have left", |tx, args| remaining(tx, args, TimeForm::SECONDS)),
    getter("hpttl", "Milliseconds that fields have left", |tx, args| {
        remaining(tx, args, TimeForm::MILLISECONDS)
    }),
    getter("hexpiretime", "Unix time in seconds at which fields end", |tx, args| {
        remaining(tx, args, TimeForm::UNIX_SECONDS)
    }),
    getter("hpexpiretime", "Unix time in milliseconds at which fields end", |tx, args| {
        remaining(tx, args, TimeForm::UNIX_MILLISECONDS)
    }),
    KeyCommand {
        spec: Spec {
            name: "hpersist",
            arity: -5,
            flags: flag::WRITE | flag::FAST,
            summary: "Takes the end off fields",
            ..ONE_KEY
        },
        run: persist,
    },
];

/// What the primary runs when a field of a hash is due. No client can name it.
pub static DROP_EXPIRED: KeyCommand = KeyCommand {
    spec: Spec {
        name: "hash field expiry",
        arity: 2,
        flags: flag::WRITE,
        summary: "Deletes fields past their end",
        ..ONE_KEY
    },
    run: drop_expired,
};

/// Fields that one round deletes of one hash.
pub const DROP_EXPIRED_MAX: usize = 256;

const ONE_KEY: Spec =
    Spec { group: Group::Hash, since: "7.4.0", complexity: "O(N) in the fields given", ..super::ONE_KEY };

const fn setter(name: &'static str, summary: &'static str, run: Handler) -> KeyCommand {
    let flags = flag::WRITE | flag::DENYOOM | flag::FAST;
    KeyCommand { spec: Spec { name, arity: -6, flags, summary, ..ONE_KEY }, run }
}

const fn getter(name: &'static str, summary: &'static str, run: Handler) -> KeyCommand {
    KeyCommand { spec: Spec { name, arity: -5, flags: flag::READONLY | flag::FAST, summary, ..ONE_KEY }, run }
}

/// What is answered for a field.
const NO_FIELD: Reply = Reply::Int(-2);
const NO_END: Reply = Reply::Int(-1);
const UNCHANGED: Reply = Reply::Int(0);
const CHANGED: Reply = Reply::Int(1);
const DELETED: Reply = Reply::Int(2);

/// The fields behind `FIELDS count`, which stands at `at`.
fn fields<'a>(
    args: &'a Args<'_>,
    at: usize,
    wrong_count: &'static str,
) -> Result<Vec<&'a [u8]>, ClientError> {
    if at + 1 >= args.len() || !args.is(at, "FIELDS") {
        return Err(ClientError::fixed(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let count = number::parse_i64(args.get(at + 1)).filter(|count| *count > 0);
    let count = count.ok_or(ClientError::fixed(wrong_count))?;
    if usize::try_from(count) != Ok(args.len() - at - 2) {
        return Err(ClientError::fixed("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(args.iter(at + 2).collect())
}

fn expire(tx: &mut Tx<'_>, args: &Args<'_>, command: &str, form: TimeForm) -> Result<Reply, Stop> {
    let hash = Hash::load(tx, tx.key(args.get(1)))?;
    let amount = int(args.get(2))?;
    if amount < 0 {
        return Err(ClientError::fixed("ERR invalid expire time, must be >= 0").into());
    }
    let moment = form
        .moment_ms(amount, tx.now_ms())
        .filter(|moment| moment.unsigned_abs() <= FIELD_EXPIRE_MAX_MS)
        .ok_or_else(|| ClientError::invalid_expire(command))?;
    let condition = Condition::one(args, 3);
    let at = if condition.is_some() { 4 } else { 3 };
    let fields = fields(args, at, "ERR Parameter `numFields` should be greater than 0")?;
    let Some(mut hash) = hash else {
        return Ok(Reply::Array(fields.iter().map(|_| NO_FIELD).collect()));
    };
    let mut replies = Vec::with_capacity(fields.len());
    for field in fields {
        let Some((_, ends_ms)) = hash.look(tx, field)? else {
            replies.push(NO_FIELD);
            continue;
        };
        let expire_ms = moment.unsigned_abs();
        replies.push(if !condition.unwrap_or_default().allows(moment, ends_ms) {
            UNCHANGED
        } else if expire_ms <= tx.now_ms() {
            hash.remove(tx, field)?;
            DELETED
        } else {
            hash.set_end(tx, field, Some(expire_ms))?;
            CHANGED
        });
    }
    hash.save(tx)?;
    Ok(Reply::Array(replies))
}

/// What a command that takes only fields answers for each of them.
fn each_field(
    tx: &mut Tx<'_>,
    args: &Args<'_>,
    mut answer: impl FnMut(&mut Tx<'_>, &mut Hash<'_>, &[u8], Option<u64>) -> Result<Reply, Stop>,
) -> Result<Reply, Stop> {
    let hash = Hash::load(tx, tx.key(args.get(1)))?;
    let fields = fields(args, 2, "ERR Number of fields must be a positive integer")?;
    let Some(mut hash) = hash else {
        return Ok(Reply::Array(fields.iter().map(|_| NO_FIELD).collect()));
    };
    let mut replies = Vec::with_capacity(fields.len());
    for field in fields {
        replies.push(match hash.look(tx, field)? {
            Some((_, ends_ms)) => answer(tx, &mut hash, field, ends_ms)?,
            None => NO_FIELD,
        });
    }
    hash.save(tx)?;
    Ok(Reply::Array(replies))
}

fn remaining(tx: &mut Tx<'_>, args: &Args<'_>, form: TimeForm) -> Result<Reply, Stop> {
    each_field(tx, args, |tx, _, _, ends_ms| {
        let Some(ends_ms) = ends_ms else { return Ok(NO_END) };
        let shown_ms = if form.absolute { ends_ms } else { ends_ms - tx.now_ms() };
        let unit_ms = form.unit_ms.unsigned_abs();
        // Redis rounds up here, and not to the nearest as for keys.
        Ok(Reply::count(shown_ms.div_ceil(unit_ms)))
    })
}

fn persist(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    each_field(tx, args, |tx, hash, field, ends_ms| match ends_ms {
        Some(_) => hash.set_end(tx, field, None).map(|()| CHANGED),
        None => Ok(NO_END),
    })
}

fn drop_expired(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    // The key may hold another type by now.
    let hash = match Hash::load(tx, tx.key(args.get(1))) {
        Ok(Some(hash)) => hash,
        Ok(None) | Err(Stop::Client(_)) => return Ok(Reply::Int(0)),
        Err(stop) => return Err(stop),
    };
    let mut hash = hash;
    let dropped = hash.drop_expired(tx, DROP_EXPIRED_MAX)?;
    hash.save(tx)?;
    Ok(Reply::count(dropped as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};

    fn ints(server: &mut Server, line: &str, expected: &[i64]) {
        let expected = Reply::Array(expected.iter().map(|int| Reply::Int(*int)).collect());
        assert_eq!(server.run(line), expected, "{line}");
    }

    fn drop_due(server: &mut Server) -> i64 {
        let words = Words::new("x h");
        let scope = server.scope;
        match server.memory.run(scope, |tx| (DROP_EXPIRED.run)(tx, &words.args())).0.unwrap() {
            Reply::Int(dropped) => dropped,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_end_one_by_one_in_a_row_and_out_of_it() {
        for others in [3, 300] {
            let mut server = Server::default();
            for at in 0..others {
                server.int(&format!("HSET h other:{at} 1"), 1);
            }
            server.int("HSET h a 1 b 2 c 3", 3);
            ints(&mut server, "HPEXPIRE h 1000 FIELDS 2 a nofield", &[1, -2]);
            ints(&mut server, "HPEXPIRE h 3000 FIELDS 1 b", &[1]);
            ints(&mut server, "HPEXPIRE h 500 GT FIELDS 1 b", &[0]);
            ints(&mut server, "HPTTL h FIELDS 4 a b c nofield", &[1000, 3000, -1, -2]);
            ints(&mut server, "HTTL h FIELDS 1 b", &[3]);
            ints(&mut server, "HEXPIRE h 0 FIELDS 1 c", &[2]);
            server.int("HLEN h", others + 2);
            server.scope.now_ms += 1000;
            assert_eq!(server.run("HGET h a"), Reply::Nil);
            server.int("HLEN h", others + 1);
            server.int("HEXISTS h a", 0);
            assert_eq!(drop_due(&mut server), 1);
            assert_eq!(drop_due(&mut server), 0);
            server.int("HLEN h", others + 1);
            ints(&mut server, "HPERSIST h FIELDS 2 b a", &[1, -2]);
            server.scope.now_ms += 5000;
            assert_eq!(drop_due(&mut server), 0);
            assert_eq!(server.run("HGET h b"), Reply::text("2"));
            ints(&mut server, "HPEXPIRE h 10 FIELDS 1 b", &[1]);
            server.int("HSET h b 5", 0);
            ints(&mut server, "HPTTL h FIELDS 1 b", &[-1]);
            server.int("HINCRBY h b 5", 10);
        }
    }

    #[test]
    fn the_last_field_takes_the_key_with_it() {
        let mut server = Server::default();
        server.int("HSET h a 1", 1);
        ints(&mut server, "HPEXPIRE h 1000 FIELDS 1 a", &[1]);
        server.scope.now_ms += 1000;
        server.int("HSET h a 2", 1);
        ints(&mut server, "HPEXPIRE h 1000 FIELDS 1 a", &[1]);
        server.scope.now_ms += 1000;
        assert_eq!(drop_due(&mut server), 1);
        server.int("EXISTS h", 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut server = Server::default();
        server.ok("SET s v");
        server.int("HSET h f 1", 1);
        for (line, error) in [
            ("HEXPIRE s notanum FIELDS 1 f", ClientError::WRONG_TYPE),
            ("HEXPIRE h notanum FIELDS 1 f", ClientError::NOT_INTEGER),
            ("HEXPIRE h -1 FIELDS 1 f", ClientError::fixed("ERR invalid expire time, must be >= 0")),
            ("HPEXPIREAT h 281474976710656 FIELDS 1 f", ClientError::invalid_expire("hpexpireat")),
            (
                "HTTL h NOTFIELDS 1 f",
                ClientError::fixed("ERR Mandatory argument FIELDS is missing or not at the right position"),
            ),
            (
                "HEXPIRE h 100 FIELDS 0 f",
                ClientError::fixed("ERR Parameter `numFields` should be greater than 0"),
            ),
            ("HTTL h FIELDS x f", ClientError::fixed("ERR Number of fields must be a positive integer")),
            (
                "HTTL h FIELDS 1 f g",
                ClientError::fixed("ERR The `numfields` parameter must match the number of arguments"),
            ),
        ] {
            assert_eq!(server.run(line), Reply::Error(error), "{line}");
        }
        ints(&mut server, "HTTL nokey FIELDS 2 a b", &[-2, -2]);
    }
}

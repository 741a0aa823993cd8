//! Commands on hashes; those about when fields end are in `hash_expire`.

use super::answer::{Answer, scan};
use super::options::int;
use super::{Group, KeyCommand, flag, name_fits};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::resp::stream::Shape;
use crate::store::tx::Tx;
use crate::types::hash::{End, Hash};
use bytes::Bytes;

pub const COMMANDS: &[KeyCommand] = &[
    HASH.row(
        "hset",
        -4,
        WRITE_FAST,
        "2.0.0",
        "O(N) in the fields given",
        "Gives fields values",
        |tx, args| set_fields(tx, args, "hset").map(Reply::Int),
    ),
    HASH.row("hmset", -4, WRITE_FAST, "2.0.0", "O(N) in the fields given", "The old HSET", |tx, args| {
        set_fields(tx, args, "hmset").map(|_| Reply::Ok)
    }),
    HASH.row("hsetnx", 4, WRITE_FAST, "2.0.0", "O(1)", "Gives a field a value if it has none", hsetnx),
    HASH.row("hget", 3, READ_FAST, "2.0.0", "O(1)", "Value of a field", hget),
    HASH.row("hmget", -3, READ_FAST, "2.0.0", "O(N) in the fields asked for", "Values of fields", hmget),
    HASH.row("hdel", -3, DELETE_FAST, "2.0.0", "O(N) in the fields given", "Takes fields out", hdel),
    HASH.row("hlen", 2, READ_FAST, "2.0.0", "O(1)", "Number of fields", hlen),
    HASH.row("hstrlen", 3, READ_FAST, "3.2.0", "O(1)", "Length of a field's value", hstrlen),
    HASH.row("hexists", 3, READ_FAST, "2.0.0", "O(1)", "Whether a field is there", hexists),
    HASH.row(
        "hkeys",
        2,
        READ | flag::LONG_REPLY,
        "2.0.0",
        "O(N) in the size of the hash",
        "All fields",
        hkeys,
    ),
    HASH.row(
        "hvals",
        2,
        READ | flag::LONG_REPLY,
        "2.0.0",
        "O(N) in the size of the hash",
        "All values",
        hvals,
    ),
    HASH.row(
        "hgetall",
        2,
        READ | flag::LONG_REPLY,
        "2.0.0",
        "O(N) in the size of the hash",
        "All fields and values",
        hgetall,
    ),
    HASH.row("hincrby", 4, WRITE_FAST, "2.0.0", "O(1)", "Adds to the integer of a field", hincrby),
    HASH.row("hincrbyfloat", 4, WRITE_FAST, "2.6.0", "O(1)", "Adds to the number of a field", hincrbyfloat),
    HASH.row(
        "hrandfield",
        -2,
        READ | flag::LONG_REPLY,
        "6.2.0",
        "O(N) in the fields answered",
        "Fields by chance",
        hrandfield,
    ),
    HASH.row(
        "hscan",
        -3,
        READ,
        "2.8.0",
        "O(1) for every call",
        "Goes through the fields piece by piece",
        hscan,
    ),
];

const HASH: Group = Group::Hash;
const READ: u32 = flag::READONLY;
const READ_FAST: u32 = flag::READONLY | flag::FAST;
const WRITE_FAST: u32 = flag::WRITE | flag::DENYOOM | flag::FAST;
const DELETE_FAST: u32 = flag::WRITE | flag::FAST;

/// Answers how many of the fields are new.
fn set_fields(tx: &mut Tx<'_>, args: &Args<'_>, command: &str) -> Result<i64, Stop> {
    if !args.len().is_multiple_of(2) {
        return Err(ClientError::wrong_arity(command).into());
    }
    let mut hash = Hash::open(tx, tx.key(args.get(1)))?;
    let mut new = 0;
    for at in (2..args.len()).step_by(2) {
        new += i64::from(hash.set(tx, name_fits(args.get(at))?, args.get(at + 1), End::Never)?);
    }
    hash.save(tx)?;
    Ok(new)
}

fn hsetnx(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let mut hash = Hash::open(tx, tx.key(args.get(1)))?;
    let field = name_fits(args.get(2))?;
    if hash.look(tx, field)?.is_some() {
        return Ok(Reply::Int(0));
    }
    hash.set(tx, field, args.get(3), End::Never)?;
    hash.save(tx)?;
    Ok(Reply::Int(1))
}

fn hget(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(hash) = Hash::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Nil) };
    Ok(hash.get(tx, args.get(2))?.map_or(Reply::Nil, Reply::Bulk))
}

fn hmget(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let hash = Hash::load(tx, tx.key(args.get(1)))?;
    let mut values = Vec::with_capacity(args.len() - 2);
    for field in args.iter(2) {
        let value = match &hash {
            Some(hash) => hash.get(tx, field)?,
            None => None,
        };
        values.push(value.map_or(Reply::Nil, Reply::Bulk));
    }
    Ok(Reply::Array(values))
}

fn hdel(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(mut hash) = Hash::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    let mut removed = 0;
    for field in args.iter(2) {
        removed += i64::from(hash.remove(tx, field)?);
    }
    hash.save(tx)?;
    Ok(Reply::Int(removed))
}

fn hlen(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    match Hash::load(tx, tx.key(args.get(1)))? {
        Some(hash) => Ok(Reply::count(hash.len(tx)?)),
        None => Ok(Reply::Int(0)),
    }
}

fn hstrlen(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(hash) = Hash::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    Ok(Reply::count(hash.look(tx, args.get(2))?.map_or(0, |(len, _)| len)))
}

fn hexists(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Some(hash) = Hash::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Int(0)) };
    Ok(Reply::Int(i64::from(hash.look(tx, args.get(2))?.is_some())))
}

fn hkeys(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    whole(tx, args, Shape::Array, |answer, field, _| answer.push(Reply::bulk(Bytes::copy_from_slice(field))))
}

fn hvals(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    whole(tx, args, Shape::Array, |answer, _, value| answer.push(Reply::Bulk(value)))
}

fn hgetall(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    whole(tx, args, Shape::Map, |answer, field, value| {
        answer.push(Reply::bulk(Bytes::copy_from_slice(field)))?;
        answer.push(Reply::Bulk(value))
    })
}

/// A reply with something of each field.
fn whole(
    tx: &mut Tx<'_>,
    args: &Args<'_>,
    shape: Shape,
    each: impl Fn(&mut Answer, &[u8], Bytes) -> Result<(), Stop>,
) -> Result<Reply, Stop> {
    let Some(hash) = Hash::load(tx, tx.key(args.get(1)))? else { return Ok(shape.reply(Vec::new())) };
    let len = hash.len(tx)?;
    let mut answer = Answer::new(tx, shape, len)?;
    hash.visit(tx, &mut |field, value| each(&mut answer, field, value).map(|()| true))?;
    answer.finish()
}

fn hincrby(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let increment = int(args.get(3))?;
    let mut hash = Hash::open(tx, tx.key(args.get(1)))?;
    let field = name_fits(args.get(2))?;
    let value = match hash.get(tx, field)? {
        Some(value) => {
            number::parse_i64(&value).ok_or(ClientError::fixed("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let sum = value.checked_add(increment).ok_or(ClientError::OVERFLOW)?;
    hash.set(tx, field, &number::format_i64(sum), End::Keep)?;
    hash.save(tx)?;
    Ok(Reply::Int(sum))
}

fn hincrbyfloat(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let increment = args.get(3);
    // An increment alone is a sum with zero: so it is known to be finite.
    number::add_float(b"0", increment).map_err(|error| {
        if error == ClientError::NOT_FLOAT {
            error
        } else {
            ClientError::fixed("ERR value is NaN or Infinity")
        }
    })?;
    let mut hash = Hash::open(tx, tx.key(args.get(1)))?;
    let field = name_fits(args.get(2))?;
    let value = hash.get(tx, field)?.unwrap_or_else(|| Bytes::from_static(b"0"));
    let sum = number::add_float(&value, increment).map_err(|error| {
        if error == ClientError::NOT_FLOAT {
            ClientError::fixed("ERR hash value is not a float")
        } else {
            error
        }
    })?;
    hash.set(tx, field, &sum, End::Keep)?;
    hash.save(tx)?;
    Ok(Reply::Bulk(sum))
}

fn hrandfield(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    if args.len() == 2 {
        let Some(hash) = Hash::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Nil) };
        let field = hash.sample(tx, 1)?.pop();
        return Ok(field.map_or(Reply::Nil, |(field, _)| Reply::Bulk(field)));
    }
    let count = super::options::random_count(args.get(2))?;
    let with_values = match args.len() {
        3 => false,
        4 if args.is(3, "WITHVALUES") => true,
        _ => return Err(ClientError::SYNTAX.into()),
    };
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(ClientError::fixed("ERR value is out of range").into());
    }
    let Some(hash) = Hash::load(tx, tx.key(args.get(1)))? else { return Ok(Reply::Array(Vec::new())) };
    let shape = if with_values { Shape::Pairs } else { Shape::Array };
    // Different fields are chosen before they are counted; with repeats there is always another.
    let different = match u64::try_from(count) {
        Ok(count) => Some(hash.sample(tx, count)?),
        Err(_) => None,
    };
    let count = different.as_ref().map_or(count.unsigned_abs(), |fields| fields.len() as u64);
    let mut different = different.map(Vec::into_iter);
    let mut answer = Answer::new(tx, shape, count)?;
    for _ in 0..count {
        tx.spend(1)?;
        let chosen = match &mut different {
            Some(fields) => fields.next(),
            None => hash.sample(tx, 1)?.pop(),
        };
        let Some((field, value)) = chosen else { break };
        answer.push(Reply::Bulk(field))?;
        if with_values {
            answer.push(Reply::Bulk(value))?;
        }
    }
    answer.finish()
}

fn hscan(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    scan(tx, args, true, Hash::load, |tx, hash, cursor, options, found| {
        let (next, fields) = hash.scan(tx, cursor, options.count)?;
        for (field, value) in fields {
            if options.wants(&field) {
                found.push(Reply::Bulk(field));
                found.extend((!options.no_values).then_some(Reply::Bulk(value)));
            }
        }
        Ok(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::Server;
    use std::collections::BTreeMap;

    #[test]
    fn a_hash_is_what_a_map_in_memory_is_in_its_row_and_out_of_it() {
        let mut random = fastrand::Rng::with_seed(9);
        let (mut server, mut model) = (Server::default(), BTreeMap::new());
        for (rounds, range) in [(300, 50), (1500, 300), (1500, 30), (300, 2)] {
            for _ in 0..rounds {
                let field = format!("f{}", random.u32(..range));
                if random.bool() {
                    let value = "v".repeat(random.usize(1..90));
                    let new = model.insert(field.clone(), value.clone()).is_none();
                    server.int(&format!("HSET h {field} {value}"), i64::from(new));
                } else {
                    let was = model.remove(&field).is_some();
                    server.int(&format!("HDEL h {field}"), i64::from(was));
                }
            }
            server.int("HLEN h", model.len() as i64);
            let Reply::Map(pairs) = server.run("HGETALL h") else { panic!("a map") };
            let text = |reply: &Reply| match reply {
                Reply::Bulk(text) => String::from_utf8(text.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            };
            let found: BTreeMap<_, _> = pairs.iter().map(|(f, v)| (text(f), text(v))).collect();
            assert_eq!(found, model);
        }
        for field in model.keys() {
            server.int(&format!("HDEL h {field}"), 1);
        }
        assert!(server.memory.rows.is_empty() && server.memory.elements.is_empty());
    }

    #[test]
    fn long_values_lie_in_pieces_and_leave_nothing_behind() {
        let mut server = Server::default();
        let long = "x".repeat(200_000);
        server.int(&format!("HSET h a {long} b 1"), 2);
        server.int("HSTRLEN h a", 200_000);
        assert_eq!(server.run("HGET h a"), Reply::text(&long));
        server.int("HSET h a short", 0);
        assert_eq!(server.memory.elements.len(), 2, "two fields");
        server.int(&format!("HSET h b {long}"), 0);
        server.int("HDEL h a b", 2);
        assert!(server.memory.rows.is_empty() && server.memory.elements.is_empty());
    }

    #[test]
    fn one_field_costs_one_read() {
        let mut server = Server::default();
        for at in 0..1000 {
            server.int(&format!("HSET h field:{at} {at}"), 1);
        }
        let before = server.memory.element_reads;
        assert_eq!(server.run("HGET h field:500"), Reply::text("500"));
        assert_eq!(server.memory.element_reads, before + 1);
    }
}

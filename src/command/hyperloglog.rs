//! Commands that count different things roughly, in strings of Redis's own layout.
//!
//! Arguments in, a reply out; the layout and the estimate are known to `types::hyperloglog` alone.

use super::string::string_row;
use super::{Group, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::row::{Form, Row};
use crate::store::tx::{KeyRef, Tx};
use crate::types::hyperloglog::{Corrupted, Encoding, HyperLogLog, REGISTERS, Registers};
use crate::types::string;

const ONE_KEY: Spec = Spec { group: Group::HyperLogLog, since: "2.8.9", ..super::ONE_KEY };
const MANY_KEYS: Spec = Spec {
    keys: Keys::Span { first: 1, last: -1, step: 1 },
    complexity: "O(N) where N is the number of keys",
    ..ONE_KEY
};

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "pfadd",
            arity: -2,
            flags: flag::WRITE | flag::DENYOOM | flag::FAST,
            complexity: "O(1) for each element",
            summary: "Adds elements to a HyperLogLog, which is made if there is none",
            ..ONE_KEY
        },
        run: pfadd,
    },
    KeyCommand {
        spec: Spec {
            name: "pfcount",
            arity: -2,
            flags: flag::READONLY | flag::WHOLE_VALUES,
            summary: "About how many different elements HyperLogLogs have together",
            ..MANY_KEYS
        },
        run: pfcount,
    },
    KeyCommand {
        spec: Spec {
            name: "pfmerge",
            arity: -2,
            flags: flag::WRITE | flag::DENYOOM | flag::WHOLE_VALUES,
            summary: "Adds what other HyperLogLogs have seen to the first one",
            ..MANY_KEYS
        },
        run: pfmerge,
    },
    KeyCommand {
        spec: Spec {
            name: "pfdebug",
            arity: 3,
            flags: flag::WRITE | flag::DENYOOM | flag::ADMIN,
            keys: Keys::Span { first: 2, last: 2, step: 1 },
            complexity: "O(1), with much work",
            summary: "Shows how a HyperLogLog is held, or makes it dense",
            ..ONE_KEY
        },
        run: pfdebug,
    },
    KeyCommand {
        spec: Spec {
            name: "pfselftest",
            arity: 1,
            flags: flag::ADMIN,
            keys: Keys::None,
            complexity: "O(1), with very much work",
            summary: "Counts many elements and looks whether the estimates are good",
            ..ONE_KEY
        },
        run: pfselftest,
    },
];

const NOT_ONE: ClientError = ClientError::fixed("WRONGTYPE Key is not a valid HyperLogLog string value.");
const CORRUPTED: ClientError = ClientError::fixed("INVALIDOBJ Corrupted HLL object detected");

impl From<Corrupted> for Stop {
    fn from(_: Corrupted) -> Stop {
        CORRUPTED.into()
    }
}

/// What setting one register of a sparse one costs beside a row in memory: it is looked for from the start.
const STEPS_PER_REGISTER: u32 = 4;
/// What unpacking all registers costs.
const STEPS_PER_SKETCH: u32 = 32;

fn read(tx: &mut Tx<'_>, key: KeyRef<'_>) -> Result<Option<(Row, HyperLogLog)>, Stop> {
    let Some(row) = string_row(tx, key)? else { return Ok(None) };
    let value = string::read(tx, key, &row)?;
    let sketch = HyperLogLog::parse(&value).ok_or(NOT_ONE)?;
    Ok(Some((row, sketch)))
}

fn read_or_empty(tx: &mut Tx<'_>, key: KeyRef<'_>) -> Result<(Option<Row>, HyperLogLog), Stop> {
    let found = read(tx, key)?;
    Ok(found.map_or_else(|| (None, HyperLogLog::empty()), |(row, sketch)| (Some(row), sketch)))
}

/// Puts it into the key; the key's end stays.
fn write(tx: &mut Tx<'_>, key: KeyRef<'_>, old: Option<&Row>, sketch: &HyperLogLog) -> Result<(), Stop> {
    let expire_ms = old.and_then(|row| row.expire_ms);
    let row = Row { form: Form::Raw, expire_ms, ..string::create(tx, key, sketch.as_bytes())? };
    tx.put(key, row, Some(old.is_some()));
    Ok(())
}

fn pfadd(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let (old, mut sketch) = read_or_empty(tx, key)?;
    let mut changed = old.is_none();
    for element in args.iter(2) {
        tx.spend(STEPS_PER_REGISTER)?;
        // Redis keeps what it has added before it meets damage; here a command that fails changes nothing.
        changed |= sketch.add(element)?;
    }
    if changed {
        write(tx, key, old.as_ref(), &sketch)?;
    }
    Ok(Reply::Int(i64::from(changed)))
}

/// Redis keeps the cardinality of a single key in the value, although the command only reads. Here what
/// only reads writes nothing, so that it waits for no other reader: a value changed since Redis last counted
/// it is counted again each time (some tens of microseconds), and its eight cached bytes stay stale.
fn pfcount(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let count = if args.len() == 2 {
        tx.spend(STEPS_PER_SKETCH)?;
        read(tx, tx.key(args.get(1)))?.map_or(Ok(0), |(_, sketch)| sketch.count())?
    } else {
        union(tx, args)?.registers.estimate()
    };
    Ok(Reply::Int(count as i64))
}

/// Several HyperLogLogs as one.
#[derive(Default)]
struct Union {
    registers: Registers,
    /// Whether one of them was.
    dense: bool,
}

/// Of all keys; those that are not there have seen nothing.
fn union(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Union, Stop> {
    let mut union = Union::default();
    for name in args.iter(1) {
        tx.spend(STEPS_PER_SKETCH)?;
        if let Some((_, sketch)) = read(tx, tx.key(name))? {
            union.registers.merge(&sketch.registers()?);
            union.dense |= sketch.encoding() == Encoding::Dense;
        }
    }
    Ok(union)
}

fn pfmerge(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let Union { registers, dense } = union(tx, args)?;
    let key = tx.key(args.get(1));
    let (old, mut sketch) = read_or_empty(tx, key)?;
    if dense {
        sketch.make_dense()?;
    } else {
        let used = registers.iter().filter(|value| *value > 0).count();
        tx.spend(used as u32 * STEPS_PER_REGISTER)?;
    }
    sketch.merge(&registers)?;
    write(tx, key, old.as_ref(), &sketch)?;
    Ok(Reply::Ok)
}

fn pfdebug(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(2));
    let missing = ClientError::fixed("ERR The specified key does not exist");
    let (row, mut sketch) = read(tx, key)?.ok_or(missing)?;
    let encoding = sketch.encoding();
    let reply = match args.get(1).to_ascii_lowercase().as_slice() {
        b"encoding" => return Ok(Reply::Simple(encoding.name())),
        b"decode" if encoding == Encoding::Dense => {
            return Err(ClientError::fixed("ERR HLL encoding is not sparse").into());
        }
        b"decode" => {
            let runs = sketch.runs().map(|run| run.map(|run| run.to_string()));
            return Ok(Reply::bulk(runs.collect::<Result<Vec<_>, Corrupted>>()?.join(" ")));
        }
        // In Redis too, having looked at the registers leaves the value dense.
        b"getreg" => {
            Reply::Array(sketch.registers()?.iter().map(|value| Reply::Int(i64::from(value))).collect())
        }
        b"todense" => Reply::Int(i64::from(encoding == Encoding::Sparse)),
        _ => {
            let given = String::from_utf8_lossy(args.get(1)).into_owned();
            return Err(ClientError::new(format!("ERR Unknown PFDEBUG subcommand '{given}'")).into());
        }
    };
    if sketch.make_dense()? {
        write(tx, key, Some(&row), &sketch)?;
    }
    Ok(reply)
}

/// Elements that the self-test counts; Redis takes ten times as many, and seconds.
const TEST_ELEMENTS: u64 = 1_000_000;

/// Counts the same elements from a sparse and from a dense start: at each power of ten both must say the
/// same, and be near the truth.
fn pfselftest(tx: &mut Tx<'_>, _: &Args<'_>) -> Result<Reply, Stop> {
    // Never within a core's turn.
    tx.spend(u32::MAX)?;
    let failed = |why: String| ClientError::new(format!("ERR TESTFAILED {why}"));
    let (mut sparse, mut dense) = (HyperLogLog::empty(), HyperLogLog::empty());
    dense.make_dense()?;
    let seed = tx.now_ms() << 32;
    let mut checkpoint = 1;
    for added in 1..=TEST_ELEMENTS {
        let element = (seed ^ added).to_le_bytes();
        sparse.add(&element)?;
        dense.add(&element)?;
        if added < checkpoint {
            continue;
        }
        if added <= 1_000 && sparse.encoding() != Encoding::Sparse {
            return Err(failed("sparse encoding not used".into()).into());
        }
        let count = dense.count()?;
        if sparse.registers()? != dense.registers()? || sparse.count()? != count {
            return Err(failed("dense/sparse disagree".into()).into());
        }
        let off = count.abs_diff(added);
        if off as f64 > tolerance(added) {
            return Err(failed(format!("Too big error. card:{added} abserr:{off}")).into());
        }
        checkpoint *= 10;
    }
    Ok(Reply::Ok)
}

/// Six standard errors, and one element that fell on another's register.
fn tolerance(count: u64) -> f64 {
    1.0 + 6.0 * 1.04 / (REGISTERS as f64).sqrt() * count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};
    use crate::store::row::Kind;
    use bytes::Bytes;

    impl Server {
        fn add(&mut self, key: &str, prefix: &str, count: usize) -> Reply {
            let elements: Vec<String> = (0..count).map(|n| format!("{prefix}{n}")).collect();
            let mut words: Vec<&[u8]> = vec![b"PFADD", key.as_bytes()];
            words.extend(elements.iter().map(|element| element.as_bytes()));
            self.run_words(&Words::of(&words))
        }

        fn stored(&mut self, key: &str) -> Bytes {
            match self.run(&format!("GET {key}")) {
                Reply::Bulk(value) => value,
                other => panic!("no value: {other:?}"),
            }
        }

        fn set(&mut self, key: &str, value: &[u8]) {
            assert_eq!(self.run_words(&Words::of(&[b"SET", key.as_bytes(), value])), Reply::Ok);
        }

        #[track_caller]
        fn fails(&mut self, line: &str, text: &'static str) {
            assert_eq!(self.run(line), Reply::Error(ClientError::fixed(text)), "{line}");
        }
    }

    #[test]
    fn adding_answers_whether_anything_changed() {
        let mut server = Server::default();
        server.int("PFADD k", 1);
        server.int("PFADD k", 0);
        server.int("PFADD k a b c", 1);
        server.int("PFADD k c a", 0);
        server.int("PFCOUNT k", 3);
        let decoded = "Z:8436 v:1,1 Z:4274 v:2,1 Z:3068 v:1,1 Z:603";
        assert_eq!(server.run("PFDEBUG DECODE k"), Reply::text(decoded));
        assert_eq!(server.run("OBJECT ENCODING k"), Reply::text("raw"));
        assert_eq!(server.run("TYPE k"), Reply::Simple("string"));
    }

    /// Figures from redis-server 7.0.15.
    #[test]
    fn merges_are_those_of_redis() {
        for (count, union, one, encoding, crc) in
            [(500, 1001, 499, "sparse", 0x065d_878d), (2000, 3988, 1990, "dense", 0x1daf_9270)]
        {
            let mut server = Server::default();
            server.add("k1", "x", count);
            server.add("k2", "y", count);
            server.ok("PFMERGE m k1 k2 missing");
            server.int("PFCOUNT k1 k2", union);
            server.int("PFCOUNT m", union);
            server.int("PFCOUNT k1", one);
            assert_eq!(server.run("PFDEBUG ENCODING m"), Reply::Simple(encoding));
            assert_eq!(crc32fast::hash(&server.stored("m")), crc, "{count}");
        }
    }

    #[test]
    fn a_merge_with_a_dense_one_is_dense() {
        let mut server = Server::default();
        server.int("PFADD d x", 1);
        server.int("PFDEBUG TODENSE d", 1);
        server.int("PFDEBUG TODENSE d", 0);
        server.int("PFADD m y", 1);
        server.ok("PFMERGE m d");
        assert_eq!(server.run("PFDEBUG ENCODING m"), Reply::Simple("dense"));
        server.int("PFCOUNT m", 2);
        assert_eq!(crc32fast::hash(&server.stored("m")), 0x6580_c359);
    }

    #[test]
    fn changes_keep_the_end_and_new_keys_have_none() {
        let mut server = Server::default();
        server.int("PFADD k a", 1);
        server.int("EXPIRE k 1000", 1);
        server.int("PFADD k b", 1);
        server.int("PFADD other c", 1);
        server.ok("PFMERGE k other");
        server.int("PFDEBUG TODENSE k", 1);
        server.int("TTL k", 1000);
        server.ok("PFMERGE fresh k");
        server.int("TTL fresh", -1);
        server.ok("PFMERGE alone");
        server.int("EXISTS alone", 1);
    }

    #[test]
    fn counting_uses_what_redis_has_counted_and_writes_nothing() {
        let mut server = Server::default();
        server.int("PFCOUNT missing", 0);
        server.int("PFCOUNT missing gone", 0);
        server.int("PFADD k a b", 1);
        let words = Words::new("PFCOUNT k");
        let (reply, effects) = server.memory.run(server.scope, |tx| pfcount(tx, &words.args()));
        assert_eq!((reply.unwrap(), effects.len()), (Reply::Int(2), 0));
        let mut value = server.stored("k").to_vec();
        value[8..16].copy_from_slice(&77_u64.to_le_bytes());
        server.set("k", &value);
        server.int("PFCOUNT k", 77);
        server.int("PFCOUNT k k", 2);
        server.int("PFADD k a", 0);
        server.int("PFCOUNT k", 77);
        server.int("PFADD k c", 1);
        server.int("PFCOUNT k", 3);
    }

    #[test]
    fn looking_at_registers_makes_them_dense() {
        let mut server = Server::default();
        server.int("PFADD k a b c", 1);
        let Reply::Array(registers) = server.run("PFDEBUG getreg k") else { panic!("no registers") };
        assert_eq!(registers.len(), REGISTERS);
        assert_eq!((&registers[8436], &registers[12711]), (&Reply::Int(1), &Reply::Int(2)));
        assert_eq!(server.run("PFDEBUG ENCODING k"), Reply::Simple("dense"));
        server.fails("PFDEBUG DECODE k", "ERR HLL encoding is not sparse");
        server.fails("PFDEBUG nothing k", "ERR Unknown PFDEBUG subcommand 'nothing'");
        server.fails("PFDEBUG nothing missing", "ERR The specified key does not exist");
    }

    #[test]
    fn other_values_are_refused() {
        let mut server = Server::default();
        let list = Row { kind: Kind::List, ..Row::string(Bytes::new()) };
        server.memory.rows.insert((server.table, Bytes::from_static(b"list")), list);
        server.set("short", b"HYLL\x01");
        server.set("strange", b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff");
        server.set("cut", b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80");
        server.int("PFADD good a", 1);
        for (key, text) in [
            ("list", "WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("short", "WRONGTYPE Key is not a valid HyperLogLog string value."),
            ("strange", "WRONGTYPE Key is not a valid HyperLogLog string value."),
            ("cut", "INVALIDOBJ Corrupted HLL object detected"),
        ] {
            for command in ["PFADD * a", "PFCOUNT *", "PFCOUNT good *", "PFMERGE good *", "PFDEBUG GETREG *"]
            {
                server.fails(&command.replace('*', key), text);
            }
        }
        server.int("PFADD cut", 0);
        server.int("PFCOUNT good", 1);
    }

    #[test]
    fn much_work_leaves_the_turn() {
        let mut server = Server::default();
        server.add("k", "x", 600);
        let few = crate::store::tx::Scope { steps_max: 2_000, ..server.scope };
        for line in ["PFMERGE m k", "PFSELFTEST"] {
            let (words, run) = (Words::new(line), if line == "PFSELFTEST" { pfselftest } else { pfmerge });
            assert!(
                matches!(server.memory.run(few, |tx| run(tx, &words.args())).0, Err(Stop::Long)),
                "{line}"
            );
        }
    }

    #[test]
    fn the_self_test_passes() {
        Server::default().ok("PFSELFTEST");
    }
}

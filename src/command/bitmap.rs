//! Commands on the bits of strings.

use super::options::int;
use super::string::string_row;
use super::{Group, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::row::{Form, Row};
use crate::store::tx::{KeyRef, Tx};
use crate::types::bits::{Edit, Run};
use crate::types::string;
use std::ops::Range;

const ONE_KEY: Spec = Spec { group: Group::Bitmap, since: "2.2.0", ..super::ONE_KEY };

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "setbit",
            arity: 4,
            flags: flag::WRITE | flag::DENYOOM,
            summary: "Sets or clears a bit of a value and answers what it was",
            ..ONE_KEY
        },
        run: setbit,
    },
    KeyCommand {
        spec: Spec {
            name: "getbit",
            arity: 3,
            flags: flag::READONLY | flag::FAST,
            summary: "A bit of a value",
            ..ONE_KEY
        },
        run: getbit,
    },
    KeyCommand {
        spec: Spec {
            name: "bitcount",
            arity: -2,
            flags: flag::READONLY,
            since: "2.6.0",
            complexity: "O(N) in the bytes looked at",
            summary: "Number of bits that are set",
            ..ONE_KEY
        },
        run: bitcount,
    },
    KeyCommand {
        spec: Spec {
            name: "bitpos",
            arity: -3,
            flags: flag::READONLY,
            since: "2.8.7",
            complexity: "O(N) in the bytes looked at",
            summary: "First bit that is set, or clear",
            ..ONE_KEY
        },
        run: bitpos,
    },
    KeyCommand {
        spec: Spec {
            name: "bitop",
            arity: -4,
            flags: flag::WRITE | flag::DENYOOM | flag::WHOLE_VALUES,
            keys: Keys::Span { first: 2, last: -1, step: 1 },
            since: "2.6.0",
            complexity: "O(N) in the bytes of all values",
            summary: "Combines values bit by bit and keeps the result",
            ..ONE_KEY
        },
        run: bitop,
    },
    KeyCommand {
        spec: Spec {
            name: "bitfield",
            arity: -2,
            flags: flag::WRITE | flag::DENYOOM,
            since: "3.2.0",
            complexity: "O(N) in the operations",
            summary: "Reads and changes numbers of any width within a value",
            ..ONE_KEY
        },
        run: |tx, args| bitfield(tx, args, false),
    },
    KeyCommand {
        spec: Spec {
            name: "bitfield_ro",
            arity: -2,
            flags: flag::READONLY | flag::FAST,
            since: "6.0.0",
            complexity: "O(N) in the operations",
            summary: "Reads numbers of any width within a value",
            ..ONE_KEY
        },
        run: |tx, args| bitfield(tx, args, true),
    },
];

const BAD_OFFSET: ClientError = ClientError::fixed("ERR bit offset is not an integer or out of range");

/// A bit's place. `width`: with '#' before it, it counts numbers of that many bits.
fn offset(tx: &Tx<'_>, arg: &[u8], width: Option<u32>) -> Result<u64, ClientError> {
    let (digits, factor) = match (arg.strip_prefix(b"#"), width) {
        (Some(digits), Some(width)) => (digits, i64::from(width)),
        _ => (arg, 1),
    };
    // Redis lets the product wrap around and looks at its sign; what has wrapped is out of range here.
    let place = number::parse_i64(digits).and_then(|n| n.checked_mul(factor)).ok_or(BAD_OFFSET)?;
    u64::try_from(place).ok().filter(|place| place / 8 < tx.scope.value_max_bytes).ok_or(BAD_OFFSET)
}

fn setbit(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let offset = offset(tx, args.get(2), None)?;
    let wrong = ClientError::fixed("ERR bit is not an integer or out of range");
    let bit = number::parse_i64(args.get(3))
        .and_then(|bit| u64::try_from(bit).ok())
        .filter(|bit| *bit <= 1)
        .ok_or(wrong)?;
    let row = string_row(tx, key)?;
    let mut edit = Edit::new(key, row);
    let before = edit.get(tx, offset, 1)?;
    edit.set(tx, offset, 1, bit)?;
    edit.finish(tx)?;
    Ok(Reply::Int(before as i64))
}

fn getbit(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let offset = offset(tx, args.get(2), None)?;
    let row = string_row(tx, key)?;
    Ok(Reply::Int(Edit::new(key, row).get(tx, offset, 1)? as i64))
}

/// Whether a range counts bits instead of bytes.
fn unit(args: &Args<'_>, at: usize) -> Result<bool, ClientError> {
    match (args.is(at, "bit"), args.is(at, "byte")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(ClientError::SYNTAX),
    }
}

/// The bits of `start..=end`, which count bits or bytes, from the end when negative.
fn bits_within(start: i64, end: i64, in_bits: bool, len: u64) -> Run {
    let total = if in_bits { len * 8 } else { len } as i64;
    let from_start =
        |position: i64| (if position < 0 { total.saturating_add(position) } else { position }).max(0);
    let (start, end) = (from_start(start), from_start(end).min(total - 1));
    if start > end {
        return Run(0..0);
    }
    let factor = if in_bits { 1 } else { 8 };
    Run(start as u64 * factor..(end as u64 + 1) * factor)
}

fn bitcount(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let Some(row) = string_row(tx, key)? else { return Ok(Reply::Int(0)) };
    let len = string::len(&row);
    let run = match args.len() {
        2 => Run(0..len * 8),
        4 | 5 => {
            let (start, end) = (int(args.get(2))?, int(args.get(3))?);
            if start < 0 && end < 0 && start > end {
                return Ok(Reply::Int(0));
            }
            bits_within(start, end, args.len() == 5 && unit(args, 4)?, len)
        }
        _ => return Err(ClientError::SYNTAX.into()),
    };
    Ok(Reply::Int(run.count(tx, key, &row)? as i64))
}

fn bitpos(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let bit = match int(args.get(2))? {
        0 => false,
        1 => true,
        _ => return Err(ClientError::fixed("ERR The bit argument must be 1 or 0.").into()),
    };
    let Some(row) = string_row(tx, key)? else { return Ok(Reply::Int(if bit { -1 } else { 0 })) };
    let len = string::len(&row);
    let run = match args.len() {
        3 => Run(0..len * 8),
        4..=6 => {
            let start = int(args.get(3))?;
            let in_bits = args.len() == 6 && unit(args, 5)?;
            let end = if args.len() > 4 { int(args.get(4))? } else { -1 };
            bits_within(start, end, in_bits, len)
        }
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let found = run.position(tx, key, &row, bit)?;
    let Range { start, end } = run.0;
    Ok(Reply::Int(match found {
        Some(at) => at as i64,
        // Without a given end the value goes on with zeros for ever.
        None if !bit && args.len() < 5 && start < end => end as i64,
        None => -1,
    }))
}

fn bitop(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let combine: fn(u8, u8) -> u8 = match args.get(1).to_ascii_lowercase().as_slice() {
        b"and" => |a, b| a & b,
        b"or" => |a, b| a | b,
        b"xor" => |a, b| a ^ b,
        b"not" if args.len() > 4 => {
            let why = ClientError::fixed("ERR BITOP NOT must be called with a single source key.");
            return Err(why.into());
        }
        b"not" => |a, _| !a,
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let mut values = Vec::new();
    for at in 3..args.len() {
        let key = tx.key(args.get(at));
        values.push(match string_row(tx, key)? {
            Some(row) => string::read(tx, key, &row)?,
            None => bytes::Bytes::new(),
        });
    }
    let len = values.iter().map(|value| value.len()).max().unwrap_or(0);
    let mut result = values[0].to_vec();
    result.resize(len, 0);
    if values.len() == 1 {
        // NOT needs no second value, and the others leave a single one as it is.
        let alone = if args.is(1, "not") { combine } else { |a: u8, _: u8| a };
        result.iter_mut().for_each(|byte| *byte = alone(*byte, 0));
    }
    for value in &values[1..] {
        let (head, tail) = result.split_at_mut(value.len());
        head.iter_mut().zip(value).for_each(|(byte, other)| *byte = combine(*byte, *other));
        tail.iter_mut().for_each(|byte| *byte = combine(*byte, 0));
    }
    let to = tx.key(args.get(2));
    let existed = tx.row(to)?.is_some();
    if result.is_empty() {
        if existed {
            tx.delete(to);
        }
    } else {
        let row = Row { form: Form::Raw, ..string::create(tx, to, &result)? };
        tx.put(to, row, Some(existed));
    }
    Ok(Reply::Int(len as i64))
}

/// A number's form: `i5` or `u5`.
#[derive(Clone, Copy)]
struct Width {
    signed: bool,
    bits: u32,
}

impl Width {
    fn parse(arg: &[u8]) -> Result<Width, ClientError> {
        const WRONG: ClientError = ClientError::fixed(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        );
        let signed = match arg.first() {
            Some(b'i') => true,
            Some(b'u') => false,
            _ => return Err(WRONG),
        };
        let bits =
            number::parse_i64(&arg[1..]).filter(|bits| (1..=if signed { 64 } else { 63 }).contains(bits));
        Ok(Width { signed, bits: bits.ok_or(WRONG)? as u32 })
    }

    fn range(self) -> (i128, i128) {
        let all = 1_i128 << self.bits;
        if self.signed { (-all / 2, all / 2 - 1) } else { (0, all - 1) }
    }

    /// The number that these bits mean.
    fn meaning(self, bits: u64) -> i128 {
        let unused = 64 - self.bits;
        if self.signed { i128::from((bits << unused) as i64 >> unused) } else { i128::from(bits) }
    }

    /// What is kept of a number under an overflow rule; `None`: nothing.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (least, most) = self.range();
        match overflow {
            _ if (least..=most).contains(&number) => Some(number),
            Overflow::Wrap => Some(self.meaning(number as u64 & (u64::MAX >> (64 - self.bits)))),
            Overflow::Saturate => Some(number.clamp(least, most)),
            Overflow::Fail => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
enum FieldAction {
    Get,
    Set(i64),
    Increase(i64),
}

struct FieldOperation {
    width: Width,
    offset: u64,
    overflow: Overflow,
    action: FieldAction,
}

fn field_operations(tx: &Tx<'_>, args: &Args<'_>) -> Result<Vec<FieldOperation>, ClientError> {
    let (mut operations, mut overflow, mut at) = (Vec::new(), Overflow::Wrap, 2);
    while at < args.len() {
        let left = args.len() - at - 1;
        if args.is(at, "overflow") && left >= 1 {
            overflow = match args.get(at + 1).to_ascii_lowercase().as_slice() {
                b"wrap" => Overflow::Wrap,
                b"sat" => Overflow::Saturate,
                b"fail" => Overflow::Fail,
                _ => return Err(ClientError::fixed("ERR Invalid OVERFLOW type specified")),
            };
            at += 2;
            continue;
        }
        let words = if args.is(at, "get") && left >= 2 {
            3
        } else if (args.is(at, "set") || args.is(at, "incrby")) && left >= 3 {
            4
        } else {
            return Err(ClientError::SYNTAX);
        };
        let width = Width::parse(args.get(at + 1))?;
        let offset = offset(tx, args.get(at + 2), Some(width.bits))?;
        let action = match words {
            3 => FieldAction::Get,
            _ if args.is(at, "set") => FieldAction::Set(int(args.get(at + 3))?),
            _ => FieldAction::Increase(int(args.get(at + 3))?),
        };
        operations.push(FieldOperation { width, offset, overflow, action });
        at += words;
    }
    Ok(operations)
}

fn bitfield(tx: &mut Tx<'_>, args: &Args<'_>, read_only: bool) -> Result<Reply, Stop> {
    let key: KeyRef<'_> = tx.key(args.get(1));
    let operations = field_operations(tx, args)?;
    let writes = |operation: &&FieldOperation| !matches!(operation.action, FieldAction::Get);
    let last_bit = operations.iter().filter(writes).map(|o| o.offset + u64::from(o.width.bits) - 1).max();
    if read_only && last_bit.is_some() {
        return Err(ClientError::fixed("ERR BITFIELD_RO only supports the GET subcommand").into());
    }
    let mut edit = Edit::new(key, string_row(tx, key)?);
    let mut replies = Vec::with_capacity(operations.len());
    for operation in &operations {
        replies.push(field_operation(tx, &mut edit, operation)?.map_or(Reply::Nil, Reply::Int));
    }
    if let Some(last_bit) = last_bit {
        edit.reach(tx, last_bit)?;
        edit.finish(tx)?;
    }
    Ok(Reply::Array(replies))
}

/// The number answered, or none when it does not fit.
fn field_operation(
    tx: &mut Tx<'_>,
    edit: &mut Edit<'_>,
    operation: &FieldOperation,
) -> Result<Option<i64>, Stop> {
    let FieldOperation { width, offset, overflow, action } = *operation;
    let before = width.meaning(edit.get(tx, offset, width.bits)?);
    let wanted = match action {
        FieldAction::Get => return Ok(Some(before as i64)),
        // An unsigned field takes a negative number for the large one that its bits mean.
        FieldAction::Set(number) if !width.signed => i128::from(number as u64),
        FieldAction::Set(number) => i128::from(number),
        FieldAction::Increase(by) => before + i128::from(by),
    };
    let Some(kept) = width.fit(wanted, overflow) else { return Ok(None) };
    edit.set(tx, offset, width.bits, kept as u64)?;
    Ok(Some(if let FieldAction::Set(_) = action { before } else { kept } as i64))
}

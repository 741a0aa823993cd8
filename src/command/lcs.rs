//! LCS: what two values have in common.
//!
//! Reads arguments and words the answer; the comparison itself is `types::lcs`.

use super::options::int;
use super::string::length;
use super::{Group, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::row::{Kind, Row};
use crate::store::tx::Tx;
use crate::types::{lcs, string};
use bytes::Bytes;
use std::ops::Range;

pub const COMMANDS: &[KeyCommand] = &[KeyCommand {
    spec: Spec {
        name: "lcs",
        arity: -3,
        flags: flag::READONLY | flag::WHOLE_VALUES,
        keys: Keys::Span { first: 1, last: 2, step: 1 },
        since: "7.0.0",
        complexity: "O(N*M) where N and M are the lengths of the two values",
        summary: "Longest bytes that two values have in common, in order but with gaps",
        group: Group::String,
        subcommands: &[],
    },
    run: longest_common,
}];

/// What follows LCS's two keys.
#[derive(Default)]
struct LcsOptions {
    len: bool,
    idx: bool,
    match_len: bool,
    match_min: i64,
}

impl LcsOptions {
    fn parse(args: &Args<'_>) -> Result<LcsOptions, ClientError> {
        let mut options = LcsOptions::default();
        let mut index = 3;
        while index < args.len() {
            if args.is(index, "LEN") {
                options.len = true;
            } else if args.is(index, "IDX") {
                options.idx = true;
            } else if args.is(index, "WITHMATCHLEN") {
                options.match_len = true;
            } else if args.is(index, "MINMATCHLEN") && index + 1 < args.len() {
                options.match_min = int(args.get(index + 1))?;
                index += 1;
            } else {
                return Err(ClientError::SYNTAX);
            }
            index += 1;
        }
        if options.len && options.idx {
            return Err(ClientError::fixed(
                "ERR If you want both the length and indexes, please just use IDX.",
            ));
        }
        Ok(options)
    }
}

/// Pairs of bytes compared in about the time that one read from memory takes.
const LCS_PAIRS_PER_STEP: u64 = 4096;

fn longest_common(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let keys = [tx.key(args.get(1)), tx.key(args.get(2))];
    let rows = [tx.row(keys[0])?, tx.row(keys[1])?];
    if rows.iter().flatten().any(|row| row.kind != Kind::String) {
        return Err(ClientError::fixed("ERR The specified keys must contain string values").into());
    }
    let options = LcsOptions::parse(args)?;
    let rows = rows.map(|row| row.unwrap_or_else(|| Row::string(Bytes::new())));
    may_compare(tx, string::len(&rows[0]), string::len(&rows[1]))?;
    let a = string::read(tx, keys[0], &rows[0])?;
    let b = string::read(tx, keys[1], &rows[1])?;
    if options.len {
        return Ok(length(lcs::len(&a, &b) as u64));
    }
    let matches = lcs::matches(&a, &b);
    if options.idx {
        return Ok(match_positions(&matches, &options));
    }
    let common: Vec<u8> = matches.iter().rev().flat_map(|found| &a[found.a.clone()]).copied().collect();
    Ok(Reply::bulk(common))
}

/// Refuses what Redis refuses, which needs four bytes for each pair of positions.
fn may_compare(tx: &mut Tx<'_>, a_len: u64, b_len: u64) -> Result<(), Stop> {
    let pairs = (a_len + 1).saturating_mul(b_len + 1);
    if pairs.saturating_mul(4) > tx.scope.value_max_bytes {
        return Err(ClientError::fixed(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        )
        .into());
    }
    tx.spend(u32::try_from(pairs / LCS_PAIRS_PER_STEP).unwrap_or(u32::MAX))
}

/// LCS IDX: the matches from the last to the first, and the whole length.
fn match_positions(matches: &[lcs::Match], options: &LcsOptions) -> Reply {
    let position = |at: usize| length(at as u64);
    let ends = |range: &Range<usize>| Reply::Array(vec![position(range.start), position(range.end - 1)]);
    let mut shown = Vec::new();
    for found in matches {
        let len = position(found.a.len());
        if found.a.len() as u64 >= u64::try_from(options.match_min).unwrap_or(0) {
            let mut entry = vec![ends(&found.a), ends(&found.b)];
            entry.extend(options.match_len.then_some(len));
            shown.push(Reply::Array(entry));
        }
    }
    let whole = matches.iter().map(|found| found.a.len()).sum();
    Reply::Map(vec![(Reply::text("matches"), Reply::Array(shown)), (Reply::text("len"), position(whole))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{Server, Words};
    use crate::types::memory::scope;

    fn error(reply: Reply) -> String {
        let Reply::Error(error) = reply else { panic!("expected an error, not {reply:?}") };
        error.0.into_owned()
    }

    #[test]
    fn long_comparisons_leave_the_turn() {
        let few = crate::store::tx::Scope { steps_max: 10, ..scope() };
        let mut server = Server::default();
        server.int("SETRANGE a 1000 x", 1001);
        let words = Words::new("LCS a a");
        assert!(matches!(server.memory.run(few, |tx| longest_common(tx, &words.args())).0, Err(Stop::Long)));
        assert!(matches!(server.run("LCS a a"), Reply::Bulk(value) if value.len() == 1001));
    }

    #[test]
    fn what_cannot_be_compared() {
        let mut server = Server::default();
        let row = Row { kind: Kind::List, ..Row::string(Bytes::new()) };
        server.memory.rows.insert((server.table, Bytes::from_static(b"list")), row);
        assert_eq!(error(server.run("LCS list k FOO")), "ERR The specified keys must contain string values");
        server.ok("SET k 12345");
        server.scope.value_max_bytes = 100;
        assert!(error(server.run("LCS k k LEN")).contains("exceeds proto-max-bulk-len"));
        server.scope.value_max_bytes = 6 * 6 * 4;
        server.int("LCS k k LEN", 5);
    }
}

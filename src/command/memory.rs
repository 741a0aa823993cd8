//! MEMORY USAGE: what a key takes.

use super::{Group, KeyCommand, Keys, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::number;
use crate::resp::reply::Reply;
use crate::store::tx::Tx;
use crate::types::any;

/// The subcommand's row; the other subcommands of MEMORY are about the server (`front/admin/memory.rs`).
pub const USAGE: Spec = Spec {
    name: "usage",
    arity: -3,
    flags: flag::READONLY,
    keys: Keys::Span { first: 2, last: 2, step: 1 },
    group: Group::Server,
    since: "4.0.0",
    complexity: "O(N) in the elements looked at",
    summary: "Bytes that a key takes",
    subcommands: &[],
};

pub const COMMANDS: &[KeyCommand] =
    &[KeyCommand { spec: Spec { name: "memory|usage", ..USAGE }, run: usage }];

/// What a key costs beside its name and value: its entry in the hot cache, about as much in RocksDB's.
const KEY_OVERHEAD_BYTES: usize = 160;
/// Elements of a collection that are looked at; 0 would be all.
const SAMPLES: u64 = 5;

fn usage(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let samples = match args.len() {
        3 => SAMPLES,
        5 if args.is(3, "samples") => {
            let samples = number::parse_i64(args.get(4)).ok_or(ClientError::NOT_INTEGER)?;
            if samples < 0 {
                return Err(ClientError::SYNTAX.into());
            }
            samples.unsigned_abs()
        }
        _ => return Err(ClientError::SYNTAX.into()),
    };
    let key = tx.key(args.get(2));
    let Some(row) = tx.row(key)? else { return Ok(Reply::Nil) };
    let value_bytes = any::size_bytes(tx, key, &row, samples)?;
    Ok(Reply::count((KEY_OVERHEAD_BYTES + args.get(2).len()) as u64 + value_bytes))
}

#[cfg(test)]
mod tests {
    use crate::command::tests::{Server, Words};
    use crate::resp::reply::Reply;

    #[test]
    fn a_key_takes_its_name_its_value_and_some_more() {
        let mut server = Server::default();
        server.ok("SET key 0123456789");
        let mut usage = |words: &[&str]| {
            let words = Words::of(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
            let command = super::super::all().find(|command| command.spec.name == "memory|usage").unwrap();
            let scope = server.scope;
            server.memory.run(scope, |tx| (command.run)(tx, &words.args())).0
        };
        assert_eq!(usage(&["MEMORY", "USAGE", "key"]).unwrap(), Reply::Int(173));
        assert_eq!(usage(&["MEMORY", "USAGE", "key", "SAMPLES", "5"]).unwrap(), Reply::Int(173));
        assert_eq!(usage(&["MEMORY", "USAGE", "none"]).unwrap(), Reply::Nil);
        assert!(usage(&["MEMORY", "USAGE", "key", "SAMPLES"]).is_err());
    }
}

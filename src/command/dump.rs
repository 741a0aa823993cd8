//! DUMP and RESTORE: values in Redis's own serialisation.

use super::options::int;
use super::{KeyCommand, Spec, flag};
use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::store::NAME_MAX_BYTES;
use crate::store::tx::Tx;
use crate::types::any;
use crate::types::dump::{self, Refused};

const ONE_KEY: Spec =
    Spec { since: "2.6.0", complexity: "O(N) in the length of the value", ..super::ONE_KEY };

pub const COMMANDS: &[KeyCommand] = &[
    KeyCommand {
        spec: Spec {
            name: "dump",
            arity: 2,
            flags: flag::READONLY,
            summary: "A value in serialised form",
            ..ONE_KEY
        },
        run: dump,
    },
    KeyCommand {
        spec: Spec {
            name: "restore",
            arity: -4,
            flags: flag::WRITE | flag::DENYOOM | flag::DANGEROUS,
            summary: "Makes a key from a value in serialised form",
            ..ONE_KEY
        },
        run: restore,
    },
];

fn dump(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let key = tx.key(args.get(1));
    let Some(row) = tx.row(key)? else { return Ok(Reply::Nil) };
    let value = any::export(tx, key, &row)?;
    Ok(Reply::bulk(dump::encode(&value)))
}

struct Options {
    replace: bool,
    absolute: bool,
}

/// IDLETIME and FREQ are checked as in Redis; there is nothing here that they would change.
fn options(args: &Args<'_>) -> Result<Options, ClientError> {
    let mut options = Options { replace: false, absolute: false };
    let (mut idle, mut freq, mut at) = (false, false, 4);
    while at < args.len() {
        let more = at + 1 < args.len();
        if args.is(at, "replace") {
            options.replace = true;
        } else if args.is(at, "absttl") {
            options.absolute = true;
        } else if args.is(at, "idletime") && more && !freq {
            at += 1;
            idle = true;
            if int(args.get(at))? < 0 {
                return Err(ClientError::fixed("ERR Invalid IDLETIME value, must be >= 0"));
            }
        } else if args.is(at, "freq") && more && !idle {
            at += 1;
            freq = true;
            if !(0..=255).contains(&int(args.get(at))?) {
                return Err(ClientError::fixed("ERR Invalid FREQ value, must be >= 0 and <= 255"));
            }
        } else {
            return Err(ClientError::SYNTAX);
        }
        at += 1;
    }
    Ok(options)
}

fn restore(tx: &mut Tx<'_>, args: &Args<'_>) -> Result<Reply, Stop> {
    let options = options(args)?;
    let key = tx.key(args.get(1));
    let existed = tx.row(key)?.is_some();
    if existed && !options.replace {
        return Err(ClientError::fixed("BUSYKEY Target key name already exists.").into());
    }
    let ttl_ms = u64::try_from(int(args.get(2))?)
        .map_err(|_| ClientError::fixed("ERR Invalid TTL value, must be >= 0"))?;
    let value = dump::decode(args.get(3), tx.scope.value_max_bytes).map_err(|refused| match refused {
        Refused::Footer => ClientError::fixed("ERR DUMP payload version or checksum are wrong"),
        Refused::Content => ClientError::fixed("ERR Bad data format"),
        Refused::TooLong => ClientError::STRING_TOO_LONG,
    })?;
    let from_ms = if options.absolute { 0 } else { tx.now_ms() };
    let expire_ms = (ttl_ms > 0).then(|| ttl_ms.saturating_add(from_ms));
    // An end that no signed number can name is past, as Redis counts.
    if expire_ms.is_some_and(|expire_ms| expire_ms <= tx.now_ms() || i64::try_from(expire_ms).is_err()) {
        if existed {
            tx.delete(key);
        }
        return Ok(Reply::Ok);
    }
    if any::longest_name(&value) > NAME_MAX_BYTES {
        return Err(ClientError::NAME_TOO_LONG.into());
    }
    any::import(tx, key, &value, expire_ms)?;
    Ok(Reply::Ok)
}

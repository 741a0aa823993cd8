//! Ids of stream entries, and names of groups and consumers, as arguments.

use crate::error::ClientError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::store::NAME_MAX_BYTES;
use crate::store::row::StreamId;

const INVALID: ClientError = ClientError::fixed("ERR Invalid stream ID specified as stream command argument");
const ID_MAX_BYTES: usize = 127;

/// Which id a new entry gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewId {
    /// By the clock.
    Auto,
    /// The next one of this millisecond.
    Next {
        ms: u64,
    },
    Given(StreamId),
}

/// An id without which part: `5` for `5-0`.
pub fn id(arg: &[u8]) -> Result<StreamId, ClientError> {
    parts(arg, 0)
}

/// As XADD's, where `*` alone is known already.
pub fn new_id(arg: &[u8]) -> Result<NewId, ClientError> {
    match text(arg)?.strip_suffix(b"-*") {
        Some(ms) if !ms.contains(&b'-') => Ok(NewId::Next { ms: unsigned(ms).ok_or(INVALID)? }),
        _ => id(arg).map(NewId::Given),
    }
}

/// As an end of a range, where `-` is the smallest id and `+` the greatest.
pub fn id_or_end(arg: &[u8], missing_seq: u64) -> Result<StreamId, ClientError> {
    match text(arg)? {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => parts(arg, missing_seq),
    }
}

/// Where a range begins; `(` leaves its id out.
pub fn start(arg: &[u8]) -> Result<StreamId, ClientError> {
    const LAST: ClientError = ClientError::fixed("ERR invalid start ID for the interval");
    match arg {
        [b'(', arg @ ..] if !arg.is_empty() => parts(arg, 0)?.next().ok_or(LAST),
        arg => id_or_end(arg, 0),
    }
}

/// Where a range ends; `(` leaves its id out.
pub fn end(arg: &[u8]) -> Result<StreamId, ClientError> {
    const FIRST: ClientError = ClientError::fixed("ERR invalid end ID for the interval");
    match arg {
        [b'(', arg @ ..] if !arg.is_empty() => parts(arg, u64::MAX)?.previous().ok_or(FIRST),
        arg => id_or_end(arg, u64::MAX),
    }
}

/// A group or a consumer.
pub fn name(arg: &[u8]) -> Result<&[u8], ClientError> {
    if arg.len() <= NAME_MAX_BYTES { Ok(arg) } else { Err(ClientError::NAME_TOO_LONG) }
}

pub fn reply(id: StreamId) -> Reply {
    Reply::bulk(id.to_string())
}

/// Up to the first zero byte, as C takes it.
fn text(arg: &[u8]) -> Result<&[u8], ClientError> {
    let end = arg.iter().position(|byte| *byte == 0).unwrap_or(arg.len());
    if arg.len() <= ID_MAX_BYTES { Ok(&arg[..end]) } else { Err(INVALID) }
}

fn parts(arg: &[u8], missing_seq: u64) -> Result<StreamId, ClientError> {
    let text = text(arg)?;
    let (ms, seq) = match text.iter().position(|byte| *byte == b'-') {
        Some(at) => (&text[..at], unsigned(&text[at + 1..])),
        None => (text, Some(missing_seq)),
    };
    match (unsigned(ms), seq) {
        (Some(ms), Some(seq)) => Ok(StreamId { ms, seq }),
        _ => Err(INVALID),
    }
}

/// What Redis takes for an unsigned number: by its own strict rules, or else by C's `strtoull`, which takes
/// spaces and a sign before it, and zeros.
fn unsigned(text: &[u8]) -> Option<u64> {
    if let Some(number) = parse_i64(text) {
        return u64::try_from(number).ok();
    }
    let spaces = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let (negative, digits) = match &text[spaces..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    Some(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_redis_server_reads_them() {
        for (arg, expected) in [
            ("5", "5-0"),
            ("5-3", "5-3"),
            ("18446744073709551615-18446744073709551615", "18446744073709551615-18446744073709551615"),
            (" 2-+3", "2-3"),
            ("007-00", "7-0"),
            ("1--05", "1-18446744073709551611"),
            ("5-5\0x", "5-5"),
        ] {
            assert_eq!(id(arg.as_bytes()).unwrap().to_string(), expected, "{arg}");
        }
        let long = "0".repeat(128);
        let bad = ["", "-", "+", "5-", "-5", "1--5", "5-*", "*", "a", "2- 4x", "18446744073709551616", "+-1"];
        for bad in bad.into_iter().chain([&long[..]]) {
            assert_eq!(id(bad.as_bytes()), Err(INVALID), "{bad}");
        }
        assert_eq!(new_id(b"7-*"), Ok(NewId::Next { ms: 7 }));
        assert_eq!(new_id(b"7-1-*"), Err(INVALID));
        assert_eq!(new_id(b"-*"), Err(INVALID));
    }

    #[test]
    fn ranges_may_leave_their_ends_out() {
        let told =
            |id: Result<StreamId, ClientError>| id.map_or_else(|e| e.0.into_owned(), |id| id.to_string());
        assert_eq!(told(start(b"(5")), "5-1");
        assert_eq!(told(end(b"(5")), "5-18446744073709551614");
        assert_eq!(told(end(b"(5-0")), "4-18446744073709551615");
        assert_eq!(told(end(b"(0-0")), "ERR invalid end ID for the interval");
        let last = b"(18446744073709551615-18446744073709551615";
        assert_eq!(told(start(last)), "ERR invalid start ID for the interval");
        for arg in [&b"(-"[..], b"(+", b"("] {
            assert_eq!(start(arg), Err(INVALID));
        }
    }
}

//! Replies become bytes of RESP2 or RESP3.
//!
//! Format: github.com/redis/redis-specifications, `protocol/RESP2.md` and `RESP3.md`. Must not know sockets.

use super::reply::Reply;
use itoa::Integer;

/// What a connection has agreed to with HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Appends a reply to `out`.
pub fn encode(reply: &Reply, protocol: Protocol, out: &mut Vec<u8>) {
    use Protocol::{Resp2, Resp3};
    match (reply, protocol) {
        (Reply::Bulk(text), _) | (Reply::Verbatim(text) | Reply::Digits(text), Resp2) => bulk(text, out),
        (Reply::Ok, _) => out.extend_from_slice(b"+OK\r\n"),
        (Reply::Int(number), _) => line(b':', *number, out),
        (Reply::Nil, Resp2) => out.extend_from_slice(b"$-1\r\n"),
        (Reply::NilArray, Resp2) => out.extend_from_slice(b"*-1\r\n"),
        (Reply::Nil | Reply::NilArray, Resp3) => out.extend_from_slice(b"_\r\n"),
        (Reply::Simple(text), _) => text_line(b'+', text.as_bytes(), out),
        (Reply::Error(error), _) => error_line(&error.0, out),
        (Reply::Array(items), _) => aggregate(b'*', items, protocol, out),
        (Reply::Set(items), Resp3) => aggregate(b'~', items, protocol, out),
        (Reply::Push(items), Resp3) => aggregate(b'>', items, protocol, out),
        (Reply::Set(items) | Reply::Push(items), Resp2) => aggregate(b'*', items, protocol, out),
        (Reply::Pairs(pairs), Resp3) | (Reply::Keyed(pairs), Resp2) => {
            line(b'*', pairs.len(), out);
            for (one, other) in pairs {
                line(b'*', 2, out);
                encode(one, protocol, out);
                encode(other, protocol, out);
            }
        }
        (Reply::Map(pairs), _) | (Reply::Pairs(pairs), Resp2) | (Reply::Keyed(pairs), Resp3) => {
            map_header(pairs.len(), protocol, out);
            for (key, value) in pairs {
                encode(key, protocol, out);
                encode(value, protocol, out);
            }
        }
        (Reply::Double(number), Resp2) => bulk(double(*number).as_bytes(), out),
        (Reply::Double(number), Resp3) => text_line(b',', double(*number).as_bytes(), out),
        (Reply::Digits(text), Resp3) => text_line(b',', text, out),
        (Reply::Bool(truth), Resp2) => line(b':', i64::from(*truth), out),
        (Reply::Bool(truth), Resp3) => out.extend_from_slice(if *truth { b"#t\r\n" } else { b"#f\r\n" }),
        (Reply::Verbatim(text), Resp3) => {
            line(b'=', text.len() + 4, out);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        (Reply::Ready(bytes), _) => out.extend_from_slice(bytes),
        (Reply::Long(_), _) => unreachable!("a long reply is pulled by its connection"),
        (Reply::Blocked(blocked), _) => encode(&blocked.otherwise, protocol, out),
        (Reply::Silent, _) => {}
    }
}

/// Appends a bulk string.
#[inline]
pub fn bulk(text: &[u8], out: &mut Vec<u8>) {
    const HEADER_MAX_BYTES: usize = 25;
    out.reserve(text.len() + HEADER_MAX_BYTES);
    line(b'$', text.len(), out);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Begins a bulk string; its bytes and a line end follow.
pub fn bulk_header(len: usize, out: &mut Vec<u8>) {
    line(b'$', len, out);
}

/// Begins an array; its items follow.
pub fn array_header(count: usize, out: &mut Vec<u8>) {
    line(b'*', count, out);
}

/// Begins a RESP3 set; its items follow.
pub fn set_header(count: usize, out: &mut Vec<u8>) {
    line(b'~', count, out);
}

/// Begins a map; its keys follow, each with its value behind it.
pub fn map_header(pairs: usize, protocol: Protocol, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Resp2 => line(b'*', pairs * 2, out),
        Protocol::Resp3 => line(b'%', pairs, out),
    }
}

fn aggregate(kind: u8, items: &[Reply], protocol: Protocol, out: &mut Vec<u8>) {
    line(kind, items.len(), out);
    for item in items {
        encode(item, protocol, out);
    }
}

#[inline]
fn line(kind: u8, number: impl Integer, out: &mut Vec<u8>) {
    text_line(kind, itoa::Buffer::new().format(number).as_bytes(), out);
}

#[inline]
fn text_line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// Like Redis, keeps an error in one line whatever a client's text has brought into it.
fn error_line(text: &str, out: &mut Vec<u8>) {
    let text = text.trim_matches(['\r', '\n']).as_bytes();
    out.push(b'-');
    out.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    out.extend_from_slice(b"\r\n");
}

/// A double as C's `%.17g` prints it, which is what Redis 7.0 sends.
pub fn double(number: f64) -> String {
    const DIGITS: i32 = 17;
    /// Whole numbers below it, which most scores are, print as integers.
    const PLAIN_MAX: f64 = 1e15;
    if number.trunc() == number && number.abs() < PLAIN_MAX && number.to_bits() != (-0.0f64).to_bits() {
        return itoa::Buffer::new().format(number as i64).to_owned();
    }
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format's exponent is an integer");
    if (-4..DIGITS).contains(&exponent) {
        let decimals = (DIGITS - 1 - exponent) as usize;
        return without_zeros(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.abs())
}

/// Drops what stands behind the point and says nothing.
fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ClientError;

    fn both(reply: &Reply) -> (String, String) {
        let text = |protocol| {
            let mut out = b"<".to_vec();
            encode(reply, protocol, &mut out);
            String::from_utf8(out).expect("text in, text out").split_off(1)
        };
        (text(Protocol::Resp2), text(Protocol::Resp3))
    }

    #[track_caller]
    fn check(reply: Reply, resp2: &str, resp3: &str) {
        assert_eq!(both(&reply), (resp2.to_owned(), resp3.to_owned()), "{reply:?}");
    }

    #[test]
    fn every_kind_of_reply_in_both_protocols() {
        check(Reply::Ok, "+OK\r\n", "+OK\r\n");
        check(Reply::Nil, "$-1\r\n", "_\r\n");
        check(Reply::NilArray, "*-1\r\n", "_\r\n");
        check(Reply::Int(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
        check(Reply::Simple("PONG"), "+PONG\r\n", "+PONG\r\n");
        check(Reply::text(""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(Reply::text("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n");
        check(Reply::Error(ClientError::SYNTAX), "-ERR syntax error\r\n", "-ERR syntax error\r\n");
        check(Reply::Array(vec![]), "*0\r\n", "*0\r\n");
        let items = || vec![Reply::Int(1), Reply::Nil];
        check(Reply::Array(items()), "*2\r\n:1\r\n$-1\r\n", "*2\r\n:1\r\n_\r\n");
        check(Reply::Set(items()), "*2\r\n:1\r\n$-1\r\n", "~2\r\n:1\r\n_\r\n");
        check(Reply::Push(items()), "*2\r\n:1\r\n$-1\r\n", ">2\r\n:1\r\n_\r\n");
        let map = Reply::Map(vec![(Reply::text("a"), Reply::Array(items()))]);
        check(map, "*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n", "%1\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n");
        let pairs = Reply::Pairs(vec![(Reply::text("a"), Reply::Int(1))]);
        check(pairs, "*2\r\n$1\r\na\r\n:1\r\n", "*1\r\n*2\r\n$1\r\na\r\n:1\r\n");
        let keyed = Reply::Keyed(vec![(Reply::text("a"), Reply::Int(1))]);
        check(keyed, "*1\r\n*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n:1\r\n");
        check(Reply::Bool(true), ":1\r\n", "#t\r\n");
        check(Reply::Bool(false), ":0\r\n", "#f\r\n");
        check(Reply::Double(-1.5), "$4\r\n-1.5\r\n", ",-1.5\r\n");
        check(Reply::Digits("1.50".into()), "$4\r\n1.50\r\n", ",1.50\r\n");
        check(Reply::Verbatim("abc".into()), "$3\r\nabc\r\n", "=7\r\ntxt:abc\r\n");
        check(Reply::Ready("+made elsewhere\r\n".into()), "+made elsewhere\r\n", "+made elsewhere\r\n");
        check(Reply::Silent, "", "");
    }

    #[test]
    fn an_error_is_one_line() {
        let error = Reply::Error(ClientError::new("ERR unknown 'a\r\nb'\r\n"));
        assert_eq!(both(&error).0, "-ERR unknown 'a  b'\r\n");
    }

    #[test]
    fn headers_for_what_is_written_piece_by_piece() {
        let mut out = Vec::new();
        array_header(3, &mut out);
        map_header(2, Protocol::Resp2, &mut out);
        map_header(2, Protocol::Resp3, &mut out);
        bulk(b"x", &mut out);
        assert_eq!(out, b"*3\r\n*4\r\n%2\r\n$1\r\nx\r\n");
    }

    #[test]
    fn doubles_look_as_printf_prints_them() {
        // From C's `printf("%.17g")`.
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (-12.0, "-12"),
            (999_999_999_999_999.0, "999999999999999"),
            (1e15, "1000000000000000"),
            (1.0, "1"),
            (3.1, "3.1000000000000001"),
            (0.1, "0.10000000000000001"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123_456_789_012_345_680_000.0, "1.2345678901234568e+20"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (1e100, "1e+100"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (2f64.powi(50) + 0.25, "1125899906842624.2"),
            (2f64.powi(50) + 0.75, "1125899906842624.8"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (number, expected) in cases {
            assert_eq!(double(number), expected);
        }
    }
}

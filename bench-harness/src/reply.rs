//! Replies as a client sees them: where one ends, and of what kind it is. Knows RESP2 and RESP3, not
//! what was asked.

use memchr::memchr;

/// The kind of a reply, as far as a check needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `+OK`.
    Status,
    /// `-ERR ...`.
    Error,
    /// A number.
    Integer,
    /// A bulk string.
    Bulk,
    /// A bulk string or array that is not there.
    Nil,
    /// An array, set or map.
    Many,
    /// Doubles, booleans, pushes: RESP3's rest.
    Other,
}

/// A whole reply at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it is.
    pub kind: Kind,
    /// Bytes up to its end.
    pub length: usize,
    /// Where the content of a bulk string, or the text of a line, starts.
    pub content: usize,
}

/// What cannot be a reply.
#[derive(Debug, PartialEq, Eq)]
pub struct NotResp;

/// The reply at the start of `bytes`; `None` when it is not all there.
///
/// # Errors
/// When the bytes are not RESP.
pub fn first(bytes: &[u8]) -> Result<Option<Reply>, NotResp> {
    let Some(line) = memchr(b'\n', bytes) else { return Ok(None) };
    let end = line + 1;
    let text = &bytes[1..line.max(2) - 1];
    let whole = |kind, length, content| Ok(Some(Reply { kind, length, content }));
    match bytes[0] {
        b'+' => whole(Kind::Status, end, 1),
        b'-' => whole(Kind::Error, end, 1),
        b':' => whole(Kind::Integer, end, 1),
        b'_' => whole(Kind::Nil, end, 1),
        b'#' | b',' | b'(' => whole(Kind::Other, end, 1),
        b'$' | b'=' | b'!' => match number(text)? {
            -1 => whole(Kind::Nil, end, end),
            length => {
                let length = end + usize::try_from(length).map_err(|_| NotResp)? + 2;
                let kind = if bytes[0] == b'!' { Kind::Error } else { Kind::Bulk };
                if bytes.len() < length { Ok(None) } else { whole(kind, length, end) }
            }
        },
        first @ (b'*' | b'~' | b'>' | b'%') => {
            let count = number(text)?;
            if count < 0 {
                return whole(Kind::Nil, end, end);
            }
            let count = if first == b'%' { count * 2 } else { count };
            let Some(length) = elements(bytes, end, count)? else { return Ok(None) };
            whole(if first == b'>' { Kind::Other } else { Kind::Many }, length, end)
        }
        _ => Err(NotResp),
    }
}

/// The end of `count` replies that start at `at`.
fn elements(bytes: &[u8], mut at: usize, count: i64) -> Result<Option<usize>, NotResp> {
    for _ in 0..count {
        match first(&bytes[at..])? {
            Some(reply) => at += reply.length,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn number(text: &[u8]) -> Result<i64, NotResp> {
    // The common case, a short length, without the way through UTF-8.
    if text.len() <= 9 && !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
        return Ok(text.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')));
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(NotResp)
}

/// The bulk strings and lines of a reply, flattened in order: what set-up commands need of CLUSTER
/// SLOTS and INFO.
pub fn flatten<'a>(bytes: &'a [u8], into: &mut Vec<&'a [u8]>) {
    let Ok(Some(reply)) = first(bytes) else { return };
    match reply.kind {
        Kind::Many => {
            let mut at = reply.content;
            while at < reply.length {
                let Ok(Some(element)) = first(&bytes[at..]) else { return };
                flatten(&bytes[at..at + element.length], into);
                at += element.length;
            }
        }
        _ => into.push(&bytes[reply.content..reply.length.saturating_sub(2).max(reply.content)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_ends_where_it_ends_and_no_earlier() {
        let cases: &[(&[u8], Kind)] = &[
            (b"+OK\r\n", Kind::Status),
            (b"-ERR no\r\n", Kind::Error),
            (b":12\r\n", Kind::Integer),
            (b"$5\r\na\r\nbc\r\n", Kind::Bulk),
            (b"$0\r\n\r\n", Kind::Bulk),
            (b"$-1\r\n", Kind::Nil),
            (b"*-1\r\n", Kind::Nil),
            (b"_\r\n", Kind::Nil),
            (b"*0\r\n", Kind::Many),
            (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", Kind::Many),
            (b"%1\r\n$1\r\na\r\n#t\r\n", Kind::Many),
        ];
        for (bytes, kind) in cases {
            let mut followed = bytes.to_vec();
            followed.extend_from_slice(b"+next\r\n");
            let reply = first(&followed).unwrap().unwrap();
            assert_eq!((reply.kind, reply.length), (*kind, bytes.len()), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(first(&bytes[..cut]), Ok(None), "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        assert_eq!(first(b"HTTP/1.1 400\r\n"), Err(NotResp));
        assert_eq!(first(b"$x\r\n"), Err(NotResp));
    }

    #[test]
    fn flattening_keeps_order() {
        let mut parts = Vec::new();
        flatten(b"*2\r\n*2\r\n:0\r\n:5\r\n$2\r\nab\r\n", &mut parts);
        assert_eq!(parts, [&b"0"[..], b"5", b"ab"]);
    }
}

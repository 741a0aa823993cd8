//! What a server answers, reduced to whether it has done what it was asked. Knows RESP2, and no command.

const LINE_MAX_BYTES: usize = 64 * 1024;

/// The server's bytes are no replies.
#[derive(Debug, thiserror::Error)]
#[error("the server's answer is no RESP: {0}")]
pub struct Malformed(String);

/// Reads the replies of one connection. Of each it keeps at most one line.
#[derive(Default)]
pub struct Replies {
    line: Vec<u8>,
    /// Values of the reply at hand that have not begun. Zero between two replies.
    values: u64,
    /// Bytes of a bulk string and its line end that have not come.
    skip: u64,
}

impl Replies {
    /// Tells of every reply that is complete with these bytes, in order: the text of an error reply, without
    /// its `-`, is an error. Errors within an array are none.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Result<(), String>),
    ) -> Result<(), Malformed> {
        loop {
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            bytes = &bytes[skipped as usize..];
            if self.skip > 0 || bytes.is_empty() {
                // A bulk string that ends the reply may end with these bytes.
                if skipped > 0 && self.skip == 0 && self.values == 0 {
                    each(Ok(()));
                }
                return Ok(());
            }
            if skipped > 0 && self.values == 0 {
                each(Ok(()));
            }
            let end = memchr::memchr(b'\n', bytes);
            let (taken, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            self.line.extend_from_slice(taken);
            bytes = rest;
            if self.line.len() > LINE_MAX_BYTES {
                return Err(self.malformed());
            }
            if end.is_some() {
                if let Some(reply) = self.line_ends()? {
                    each(reply);
                }
                self.line.clear();
            }
        }
    }

    /// The reply, if it ends with the line.
    fn line_ends(&mut self) -> Result<Option<Result<(), String>>, Malformed> {
        let Some((kind, text)) = self.line.strip_suffix(b"\r\n").and_then(<[u8]>::split_first) else {
            return Err(self.malformed());
        };
        let outermost = self.values == 0;
        self.values = self.values.saturating_sub(1);
        match kind {
            b'+' | b':' => {}
            b'-' if outermost => return Ok(Some(Err(String::from_utf8_lossy(text).into_owned()))),
            b'-' => {}
            b'$' | b'*' => {
                let length = crate::resp::number::parse_i64(text).ok_or_else(|| self.malformed())?;
                // Less than zero is a nil.
                if let Ok(length) = u64::try_from(length) {
                    match kind {
                        b'$' => self.skip = length + 2,
                        _ => self.values = self.values.checked_add(length).ok_or_else(|| self.malformed())?,
                    }
                }
            }
            _ => return Err(self.malformed()),
        }
        Ok((self.values == 0 && self.skip == 0).then_some(Ok(())))
    }

    fn malformed(&self) -> Malformed {
        Malformed(super::rdb::readable(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] =
        b"+OK\r\n$3\r\na\r\n\r\n*2\r\n$-1\r\n*2\r\n-no\r\n:1\r\n-ERR what is this\r\n*0\r\n$0\r\n\r\n*-1\r\n\
        *1\r\n$1\r\n-\r\n";

    fn outcomes(chunks: impl Iterator<Item = usize>) -> Vec<Result<(), String>> {
        let (mut replies, mut outcomes, mut rest) = (Replies::default(), Vec::new(), STREAM);
        for chunk in chunks {
            let (chunk, after) = rest.split_at(chunk.min(rest.len()));
            replies.feed(chunk, |reply| outcomes.push(reply)).unwrap();
            rest = after;
        }
        assert!(rest.is_empty());
        outcomes
    }

    proptest! {
        #[test]
        fn replies_are_told_apart_however_they_come_in_pieces(
            sizes in prop::collection::vec(0..9_usize, 50),
        ) {
            let error = Err("ERR what is this".to_string());
            let expected = [Ok(()), Ok(()), Ok(()), error, Ok(()), Ok(()), Ok(()), Ok(())];
            prop_assert_eq!(outcomes(sizes.into_iter().chain([STREAM.len()])), expected);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _either = Replies::default().feed(&bytes, |_| {});
        }
    }

    #[test]
    fn a_bulk_string_is_answered_when_its_last_byte_has_come() {
        let (mut replies, mut count) = (Replies::default(), 0);
        replies.feed(b"$2\r\nab\r", |_| count += 1).unwrap();
        assert_eq!(count, 0);
        let mut replies_more = |bytes| replies.feed(bytes, |_| count += 1).unwrap();
        replies_more(b"\n");
        assert_eq!(count, 1);
    }
}

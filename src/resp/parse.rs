//! A command's bytes become arguments: RESP arrays of bulk strings, and inline lines as typed by hand.
//!
//! Resumable: it remembers how far it has come, looks at no byte twice and copies no bulk string.
//! Accepts and refuses what Redis 7.0 does, in the same words. Must not know what a command means.

use super::args::{Args, Span};
use super::number;
use crate::error::ClientError;
use crate::limits;

/// What a client may make us hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLimits {
    /// Longest argument (`proto-max-bulk-len`).
    pub bulk_max_bytes: u64,
    /// Most arguments of one command.
    pub args_max: u32,
    /// Longest inline command, and longest line that should hold a length.
    pub inline_max_bytes: usize,
    /// Longest command as a whole (`client-query-buffer-limit`).
    pub command_max_bytes: u32,
    /// Allow only as much as a client needs to authenticate.
    pub unauthenticated: bool,
}

impl Default for ParseLimits {
    fn default() -> ParseLimits {
        ParseLimits {
            bulk_max_bytes: limits::VALUE_MAX_BYTES,
            args_max: limits::ARGS_MAX,
            inline_max_bytes: limits::INLINE_MAX_BYTES,
            command_max_bytes: 1024 * 1024 * 1024,
            unauthenticated: false,
        }
    }
}

/// Why the bytes of a connection can be read no further: it is told and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    ArgsCount,
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    #[error("Protocol error: expected '$', got '{}'", printable(*.0))]
    NoBulk(u8),
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    #[error("Protocol error: too big mbulk count string")]
    CountLineTooBig,
    #[error("Protocol error: too big bulk count string")]
    LengthLineTooBig,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedCount,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedLength,
    /// Redis closes such a connection without a word.
    #[error("Protocol error: too big request")]
    CommandTooBig,
}

impl From<ProtocolError> for ClientError {
    fn from(error: ProtocolError) -> ClientError {
        ClientError::new(format!("ERR {error}"))
    }
}

/// An error line can hold no line ends, and ours no bytes that are not text.
fn printable(byte: u8) -> char {
    match byte {
        b'\r' | b'\n' => ' ',
        byte if byte.is_ascii() => char::from(byte),
        _ => '?',
    }
}

const MANY_SPANS: usize = 4096;

/// Reads the commands of one connection, one at a time.
#[derive(Debug, Default)]
pub struct Parser {
    /// First byte not yet understood; zero only before anything is.
    at: usize,
    /// The line that begins at `at` does not end before this byte.
    searched: usize,
    args_left: u32,
    /// Length of the bulk string whose bytes begin at `at`.
    bulk: Option<usize>,
    spans: Vec<Span>,
    /// The arguments of an inline command, without quotes and escapes.
    scratch: Vec<u8>,
    inline: bool,
}

impl Parser {
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Goes on with the command whose first byte is `bytes[0]`: the same bytes as in the last call, or more.
    ///
    /// `Some(n)`: a command of `n` bytes is complete and `args()` has it; call `advance()` before giving
    /// `bytes[n..]`. `None`: more bytes are needed. A command of no arguments (a blank line, `*0`, `*-1`) is
    /// complete too, and wants no reply. After an error nothing more can be read from this connection.
    pub fn parse(&mut self, bytes: &[u8], limits: &ParseLimits) -> Result<Option<usize>, ProtocolError> {
        if self.at == 0 {
            match bytes.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.inline(bytes, limits),
            }
            let line = match short_number(b'*', bytes) {
                Some(line) => Some(line),
                None => self.any_line(b'*', bytes, limits)?,
            };
            let Some((count, next)) = line else { return Ok(None) };
            self.at = next;
            self.args_left = args_count(count, limits)?;
        }
        self.bulks(bytes, limits)
    }

    /// The complete command's arguments; `bytes` as in the call that completed it.
    pub fn args<'a>(&'a self, bytes: &'a [u8]) -> Args<'a> {
        Args::new(self.scratch().unwrap_or(bytes), &self.spans)
    }

    /// Where the arguments lie: in `scratch()` if there is one, else in the bytes parsed.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The text of an inline command's arguments.
    pub fn scratch(&self) -> Option<&[u8]> {
        self.inline.then_some(&self.scratch)
    }

    /// Forgets the command, and gives back the memory of a giant one.
    pub fn advance(&mut self) {
        const KEEP_SPANS: usize = 256;
        const KEEP_SCRATCH_BYTES: usize = 4096;
        self.spans.clear();
        self.spans.shrink_to(KEEP_SPANS);
        self.scratch.clear();
        self.scratch.shrink_to(KEEP_SCRATCH_BYTES);
        (self.at, self.searched, self.args_left, self.bulk, self.inline) = (0, 0, 0, None, false);
    }

    /// Gives the complete command's spans away, and forgets the command.
    pub fn take_spans(&mut self) -> Vec<Span> {
        let spans = std::mem::take(&mut self.spans);
        self.advance();
        spans
    }

    /// How many bytes, from the command's first, `parse` must be given to get further, where it knows.
    pub fn wanted_bytes(&self) -> Option<usize> {
        self.bulk.map(|len| self.at + len + 2)
    }

    fn bulks(&mut self, bytes: &[u8], limits: &ParseLimits) -> Result<Option<usize>, ProtocolError> {
        // Kept out of memory while one bulk string follows the other.
        let mut at = self.at;
        for args_left in (1..=self.args_left).rev() {
            let len = match self.bulk.take() {
                Some(len) => len,
                None => {
                    let line = match short_number(b'$', &bytes[at..]) {
                        Some((len, taken)) => Some((len, at + taken)),
                        None => {
                            (self.at, self.args_left) = (at, args_left);
                            self.any_line(b'$', bytes, limits)?
                        }
                    };
                    let Some((len, next)) = line else { return Ok(None) };
                    at = next;
                    bulk_len(len, at, limits)?
                }
            };
            // Like Redis, take the two bytes behind a bulk string on trust.
            let end = at + len + 2;
            if end > bytes.len() {
                (self.at, self.args_left, self.bulk) = (at, args_left, Some(len));
                return Ok(None);
            }
            // A command that has shown so many arguments is believed about the rest: growing step by step
            // would move them again and again.
            if self.spans.len() == MANY_SPANS {
                self.spans.reserve_exact(args_left as usize);
            }
            self.spans.push(Span { start: at as u32, len: len as u32 });
            at = end;
        }
        (self.at, self.args_left) = (at, 0);
        Ok(Some(at))
    }

    /// The number in the line of this type at `self.at`, and where the next line begins.
    #[cold]
    fn any_line(
        &mut self,
        kind: u8,
        bytes: &[u8],
        limits: &ParseLimits,
    ) -> Result<Option<(i64, usize)>, ProtocolError> {
        let end = match self.find(b'\r', bytes) {
            Some(end) => end,
            None if bytes.len() - self.at <= limits.inline_max_bytes => return Ok(None),
            None if kind == b'*' => return Err(ProtocolError::CountLineTooBig),
            None => return Err(ProtocolError::LengthLineTooBig),
        };
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        if bytes[self.at] != kind {
            return Err(ProtocolError::NoBulk(bytes[self.at]));
        }
        let invalid = if kind == b'*' { ProtocolError::ArgsCount } else { ProtocolError::BulkLength };
        let number = number::parse_i64(&bytes[self.at + 1..end]).ok_or(invalid)?;
        Ok(Some((number, end + 2)))
    }

    /// Where the line at `at` ends. Like Redis, never sees an end behind a zero byte.
    fn find(&mut self, end: u8, bytes: &[u8]) -> Option<usize> {
        let from = self.searched.max(self.at);
        match memchr::memchr2(end, 0, &bytes[from..]) {
            Some(found) => {
                self.searched = from + found;
                (bytes[from + found] == end).then_some(from + found)
            }
            None => {
                self.searched = bytes.len();
                None
            }
        }
    }

    fn inline(&mut self, bytes: &[u8], limits: &ParseLimits) -> Result<Option<usize>, ProtocolError> {
        let Some(end) = self.find(b'\n', bytes) else {
            let too_big = bytes.len() > limits.inline_max_bytes;
            return if too_big { Err(ProtocolError::InlineTooBig) } else { Ok(None) };
        };
        if end as u64 >= u64::from(limits.command_max_bytes) {
            return Err(ProtocolError::CommandTooBig);
        }
        let line = &bytes[..end];
        self.inline = true;
        split_line(line.strip_suffix(b"\r").unwrap_or(line), &mut self.scratch, &mut self.spans)?;
        Ok(Some(end + 1))
    }
}

/// The number of a line that is all there and has one to three digits, and the line's length.
#[inline]
fn short_number(kind: u8, bytes: &[u8]) -> Option<(i64, usize)> {
    let digit = |byte: u8| i64::from(byte - b'0');
    match *bytes {
        [k, a @ b'0'..=b'9', b'\r', _, ..] if k == kind => Some((digit(a), 4)),
        [k, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] if k == kind => {
            Some((digit(a) * 10 + digit(b), 5))
        }
        [k, a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', _, ..] if k == kind => {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 6))
        }
        _ => None,
    }
}

/// How many bulk strings follow. Like Redis, a negative number means none.
#[inline]
fn args_count(count: i64, limits: &ParseLimits) -> Result<u32, ProtocolError> {
    let count = u32::try_from(count.max(0)).ok().filter(|count| *count <= limits.args_max);
    match count.ok_or(ProtocolError::ArgsCount)? {
        count if limits.unauthenticated && count > limits::UNAUTHENTICATED_ARGS_MAX => {
            Err(ProtocolError::UnauthenticatedCount)
        }
        count => Ok(count),
    }
}

/// The length of a bulk string that begins at `at`; with it the command stays short enough for its spans.
#[inline]
fn bulk_len(len: i64, at: usize, limits: &ParseLimits) -> Result<usize, ProtocolError> {
    let len = u64::try_from(len).map_err(|_| ProtocolError::BulkLength)?;
    if len > limits.bulk_max_bytes {
        return Err(ProtocolError::BulkLength);
    }
    if limits.unauthenticated && len > limits::UNAUTHENTICATED_BULK_MAX_BYTES {
        return Err(ProtocolError::UnauthenticatedLength);
    }
    match u64::from(limits.command_max_bytes).checked_sub(at as u64 + 2) {
        Some(room) if len <= room => Ok(len as usize),
        _ => Err(ProtocolError::CommandTooBig),
    }
}

/// Splits a line into words as Redis does (`sdssplitargs`): `text` gets them back to back, without quotes.
fn split_line(line: &[u8], text: &mut Vec<u8>, words: &mut Vec<Span>) -> Result<(), ProtocolError> {
    let mut rest = line;
    loop {
        // C's isspace; inside a word only some of these end it.
        while let [b' ' | b'\t'..=b'\r', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let start = text.len();
        rest = word(rest, text)?;
        words.push(Span { start: start as u32, len: (text.len() - start) as u32 });
    }
}

/// Appends the word that begins here and returns what follows it. A closing quote ends a word.
fn word<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', quoted @ ..] => return closed(double_quoted(quoted, text)?),
            [b'\'', quoted @ ..] => return closed(single_quoted(quoted, text)?),
            [byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
        }
    }
}

/// What stands behind a closing quote must be apart from it.
fn closed(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest {
        [] | [b' ' | b'\t'..=b'\r', ..] => Ok(rest),
        _ => Err(ProtocolError::Quotes),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                text.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                text.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = after;
            }
            [b'"', after @ ..] => return Ok(after),
            [byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
            [] => return Err(ProtocolError::Quotes),
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                text.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return Ok(after),
            [byte, after @ ..] => {
                text.push(*byte);
                after
            }
            [] => return Err(ProtocolError::Quotes),
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = Result<Vec<Vec<Vec<u8>>>, ProtocolError>;

    /// The commands in `bytes`, which arrive `piece` bytes at a time.
    fn commands(bytes: &[u8], piece: usize, limits: &ParseLimits) -> (Outcome, usize) {
        let (mut parser, mut begin, mut end, mut found) = (Parser::new(), 0, 0, Vec::new());
        loop {
            match parser.parse(&bytes[begin..end], limits) {
                Ok(Some(taken)) => {
                    let args = parser.args(&bytes[begin..end]);
                    found.push(args.iter(0).map(<[u8]>::to_vec).collect());
                    parser.advance();
                    begin += taken;
                }
                Ok(None) if end == bytes.len() => return (Ok(found), begin),
                Ok(None) => end = bytes.len().min(end + piece),
                Err(error) => return (Err(error), begin),
            }
        }
    }

    fn all(bytes: &[u8]) -> Outcome {
        commands(bytes, bytes.len().max(1), &ParseLimits::default()).0
    }

    #[track_caller]
    fn error(bytes: &[u8], limits: &ParseLimits, text: &str) {
        let error = commands(bytes, usize::MAX / 2, limits).0.expect_err("not a command");
        assert_eq!(ClientError::from(error).0, format!("ERR Protocol error: {text}"));
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn arrays_of_bulk_strings() {
        let bytes =
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$0\r\n\r\n*0\r\n*-1\r\n*-17\r\n*1\r\n$4\r\nPING\r\n";
        let expected = vec![words(&["GET", "a"]), words(&[""]), vec![], vec![], vec![], words(&["PING"])];
        assert_eq!(all(bytes), Ok(expected));
    }

    #[test]
    fn line_ends_are_taken_on_trust_as_redis_does() {
        assert_eq!(all(b"*1\rx$4\ryPINGzz"), Ok(vec![words(&["PING"])]));
    }

    #[test]
    fn inline_commands() {
        let cases: &[(&[u8], &[&str])] = &[
            (b"\r\n", &[]),
            (b"\n", &[]),
            (b" \t \n", &[]),
            (b"SET a  b\r\n", &["SET", "a", "b"]),
            (b"SET \"\\x41\\n\\q\\x4\" 'it\\'s \\n'\n", &["SET", "A\nqx4", "it's \\n"]),
            (b"a\"b c\" ''\n", &["ab c", ""]),
            (b"a\x0bb \x0cc\n", &["a\x0bb", "c"]),
            (b"a\rb\n", &["a", "b"]),
        ];
        for (line, expected) in cases {
            assert_eq!(all(line), Ok(vec![words(expected)]), "{}", line.escape_ascii());
        }
        for line in ["\"a\n", "'a\n", "\"a\"b\n", "'a'b\n", "'a'\"b\"\n", "\"a\\\n", "a\"\n"] {
            error(line.as_bytes(), &ParseLimits::default(), "unbalanced quotes in request");
        }
    }

    #[test]
    fn refusals_say_what_redis_says() {
        let limits = ParseLimits::default();
        for count in
            ["*\r\n", "*x\r\n", "*+1\r\n", "*01\r\n", "*-0\r\n", "*1048577\r\n", "*99999999999999999999\r\n"]
        {
            error(count.as_bytes(), &limits, "invalid multibulk length");
        }
        for length in ["$\r\n", "$-1\r\n", "$x\r\n", "$536870913\r\n", "$ 1\r\n", "$01\r\n"] {
            error(format!("*1\r\n{length}").as_bytes(), &limits, "invalid bulk length");
        }
        error(b"*1\r\nx3\r\n", &limits, "expected '$', got 'x'");
        error(b"*1\r\n\r\n", &limits, "expected '$', got ' '");
        error(b"*1\r\n\n\r\n", &limits, "expected '$', got ' '");
        let long = "1".repeat(64 * 1024);
        error(format!("*{long}").as_bytes(), &limits, "too big mbulk count string");
        error(format!("*1\r\n${long}").as_bytes(), &limits, "too big bulk count string");
        error(format!("x{long}").as_bytes(), &limits, "too big inline request");
        assert_eq!(all(long.as_bytes()), Ok(vec![]));
    }

    #[test]
    fn a_zero_byte_hides_the_end_of_its_line() {
        for bytes in [&b"PI\0NG\r\n"[..], b"*\x001\r\n", b"*1\r\n\0\r\n", b"*1\r\n$\x004\r\n"] {
            let (outcome, _) = commands(bytes, 1, &ParseLimits::default());
            assert_eq!(outcome, Ok(vec![]), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_client_yet_to_authenticate_gets_less() {
        let limits = ParseLimits { unauthenticated: true, ..ParseLimits::default() };
        assert_eq!(commands(b"*10\r\n", 9, &limits), (Ok(vec![]), 0));
        error(b"*11\r\n", &limits, "unauthenticated multibulk length");
        assert_eq!(commands(b"*1\r\n$16384\r\n", 99, &limits), (Ok(vec![]), 0));
        error(b"*1\r\n$16385\r\n", &limits, "unauthenticated bulk length");
    }

    #[test]
    fn a_command_stays_within_its_bound() {
        let limits = ParseLimits { command_max_bytes: 24, ..ParseLimits::default() };
        assert!(commands(b"*2\r\n$3\r\nGET\r\n$5\r\nabcde\r\n", 99, &limits).0.is_ok());
        error(b"*2\r\n$3\r\nGET\r\n$6\r\n", &limits, "too big request");
        error(b"ECHO abcdefghijklmnopqrs\n", &limits, "too big request");
        let limits = ParseLimits { command_max_bytes: u32::MAX, bulk_max_bytes: u64::MAX, ..limits };
        error(b"*1\r\n$9223372036854775807\r\n", &limits, "too big request");
    }

    #[test]
    fn says_how_much_a_bulk_string_needs() {
        let mut parser = Parser::new();
        assert_eq!(parser.parse(b"*1\r\n$100000\r\nab", &ParseLimits::default()), Ok(None));
        assert_eq!(parser.wanted_bytes(), Some(13 + 100_000 + 2));
        parser.advance();
        assert_eq!(parser.wanted_bytes(), None);
    }

    #[test]
    fn a_giant_command_in_pieces_takes_linear_time() {
        const COUNT: usize = 1024 * 1024;
        let mut bytes = format!("*{COUNT}\r\n").into_bytes();
        bytes.extend_from_slice(&b"$1\r\nx\r\n".repeat(COUNT));
        let mut parser = Parser::new();
        let begun = std::time::Instant::now();
        for end in (0..bytes.len()).step_by(16 * 1024) {
            assert_eq!(parser.parse(&bytes[..end], &ParseLimits::default()), Ok(None));
        }
        assert_eq!(parser.parse(&bytes, &ParseLimits::default()), Ok(Some(bytes.len())));
        assert_eq!(parser.spans().len(), COUNT);
        assert!(begun.elapsed().as_secs() < 20, "rescanning would take minutes");
        parser.advance();
        assert!(parser.spans.capacity() < 1024, "memory is given back");
    }

    #[test]
    #[ignore = "a timing, to be read by a person"]
    fn timing_of_a_small_set() {
        let value = "v".repeat(128);
        let bytes = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n$128\r\n{value}\r\n").into_bytes();
        let (mut parser, limits) = (Parser::new(), ParseLimits::default());
        const ROUNDS: u32 = 5_000_000;
        let begun = std::time::Instant::now();
        for _ in 0..ROUNDS {
            let taken = parser.parse(std::hint::black_box(&bytes), &limits);
            assert_eq!(taken, Ok(Some(bytes.len())));
            std::hint::black_box(parser.args(&bytes).len());
            parser.advance();
        }
        println!("{:?} per SET of a 128-byte value", begun.elapsed() / ROUNDS);
    }

    /// Bytes that are often almost a command.
    fn almost_commands() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            Just(b"*1\r\n".to_vec()),
            Just(b"*2\r\n".to_vec()),
            Just(b"$3\r\nabc\r\n".to_vec()),
            Just(b"$1000\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"GET \"x\\x41\" 'y'\r\n".to_vec()),
            proptest::collection::vec(prop::sample::select(b"*$-019\r\n\0 '\"\\x".to_vec()), 0..6),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn pieces_make_no_difference(bytes in almost_commands(), piece in 1usize..9) {
            let limits = ParseLimits { inline_max_bytes: 1 << 20, ..ParseLimits::default() };
            prop_assert_eq!(commands(&bytes, piece, &limits), commands(&bytes, 1 << 20, &limits));
        }

        #[test]
        fn commands_come_back_as_sent(
            sent in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1200), 0..5), 0..5),
            piece in 1usize..2000,
        ) {
            let mut bytes = Vec::new();
            for args in &sent {
                bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
                for arg in args {
                    bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                    bytes.extend_from_slice(arg);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            prop_assert_eq!(commands(&bytes, piece, &ParseLimits::default()), (Ok(sent), bytes.len()));
        }
    }
}

//! A RESP client that shows what came over the wire, byte for byte. Every wait has an end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A reply as the wire gave it: the two nils of RESP2 and the one of RESP3 stay apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    NilBulk,
    NilArray,
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    /// As sent: its digits are part of what is compared.
    Double(Vec<u8>),
    Bool(bool),
    BigNumber(Vec<u8>),
    /// Format (three letters), a colon, the text.
    Verbatim(Vec<u8>),
}

impl Value {
    pub fn ok() -> Value {
        Value::Simple(b"OK".to_vec())
    }

    pub fn bulk(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bulk(bytes.as_ref().to_vec())
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Value::NilBulk | Value::NilArray | Value::Null)
    }

    /// The text of an error reply; empty for any other.
    pub fn error_text(&self) -> String {
        match self {
            Value::Error(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        }
    }

    /// What a command that answers with a text has said, an error's too.
    pub fn said(&self) -> String {
        match self {
            Value::Bulk(text) | Value::Simple(text) => String::from_utf8_lossy(text).into_owned(),
            other => other.error_text(),
        }
    }

    /// The bytes of a bulk or simple string, or of a verbatim one without its format.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bulk(bytes) | Value::Simple(bytes) => Some(bytes),
            Value::Verbatim(bytes) => bytes.get(4..),
            _ => None,
        }
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => items,
            _ => &[],
        }
    }
}

/// Longest wait for a reply; a test that needs more says so with `set_timeout`.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Client {
    stream: BufReader<TcpStream>,
    /// What `read_raw` has consumed of the current reply.
    raw: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(20))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Client { stream: BufReader::with_capacity(64 * 1024, stream), raw: Vec::new() })
    }

    pub fn set_timeout(&self, wait: Duration) {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(wait)).expect("a non-zero timeout is accepted");
        stream.set_write_timeout(Some(wait)).expect("a non-zero timeout is accepted");
    }

    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn send(&mut self, args: &[Vec<u8>]) -> io::Result<()> {
        let mut frame = Vec::new();
        encode(args, &mut frame);
        self.write_raw(&frame)
    }

    /// Sends all commands in one write; the replies are read one by one.
    pub fn send_all<'a>(&mut self, commands: impl IntoIterator<Item = &'a [Vec<u8>]>) -> io::Result<()> {
        let mut frames = Vec::new();
        for args in commands {
            encode(args, &mut frames);
        }
        self.write_raw(&frames)
    }

    pub fn call(&mut self, args: &[Vec<u8>]) -> io::Result<Value> {
        self.send(args)?;
        self.read()
    }

    /// A command in words, whose failure to be answered fails the test.
    pub fn ask(&mut self, line: &str) -> Value {
        let args: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        self.must(&args)
    }

    pub fn info_text(&mut self) -> String {
        let text = self.ask("INFO");
        String::from_utf8_lossy(text.bytes().expect("INFO is text")).into_owned()
    }

    /// A number of INFO's, by its name.
    pub fn info(&mut self, field: &str) -> u64 {
        let text = self.info_text();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let value = line.unwrap_or_else(|| panic!("INFO has no {field}:\n{text}"));
        value.trim().parse().unwrap_or_else(|e| panic!("{field}:{value}: {e}"))
    }

    /// Waits until the log has on disk what is written now: what is written afterwards says so.
    pub fn wait_until_durable(&mut self) {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let is_durable = |text: &str| {
            let shards = text.lines().filter(|line| line.contains(",durable_lsn="));
            let lsn = |line: &str, name: &str| {
                let value = line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
                value.and_then(|value| value.trim().parse::<u64>().ok()).expect("each shard has it")
            };
            let mut behind =
                shards.map(|line| lsn(line, "written_lsn") - lsn(line, "durable_lsn")).peekable();
            assert!(behind.peek().is_some(), "INFO has no shard:\n{text}");
            behind.all(|records| records == 0)
        };
        while !is_durable(&self.info_text()) {
            assert!(Instant::now() < deadline, "the log is not synced:\n{}", self.info_text());
            sleep(Duration::from_millis(10));
        }
    }

    /// A command whose failure to be answered fails the test.
    pub fn must(&mut self, args: &[Vec<u8>]) -> Value {
        match self.call(args) {
            Ok(value) => value,
            Err(e) => panic!("no reply to {}: {e}", args[0].escape_ascii()),
        }
    }

    pub fn read(&mut self) -> io::Result<Value> {
        self.read_raw().map(|(value, _)| value)
    }

    /// The next reply, decoded and as it was sent.
    pub fn read_raw(&mut self) -> io::Result<(Value, Vec<u8>)> {
        self.raw.clear();
        let value = self.value()?;
        Ok((value, std::mem::take(&mut self.raw)))
    }

    /// What arrives until the server closes the connection.
    pub fn read_to_close(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => Ok(rest),
            // A server that closes with our bytes unread makes the kernel send a reset.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(rest),
            Err(e) => Err(e),
        }
    }

    fn value(&mut self) -> io::Result<Value> {
        let line = self.line()?;
        let (&kind, rest) = line.split_first().ok_or_else(|| broken("an empty line"))?;
        Ok(match kind {
            b'+' => Value::Simple(rest.to_vec()),
            b'-' => Value::Error(rest.to_vec()),
            b':' => Value::Int(number(rest)?),
            b'$' => match number(rest)? {
                -1 => Value::NilBulk,
                len => Value::Bulk(self.payload(len)?),
            },
            b'=' => Value::Verbatim(self.payload(number(rest)?)?),
            b'*' => match number(rest)? {
                -1 => Value::NilArray,
                len => Value::Array(self.values(len)?),
            },
            b'~' => Value::Set(self.values(number(rest)?)?),
            b'>' => Value::Push(self.values(number(rest)?)?),
            b'%' => Value::Map(
                (0..number(rest)?).map(|_| Ok((self.value()?, self.value()?))).collect::<io::Result<_>>()?,
            ),
            b'_' => Value::Null,
            b',' => Value::Double(rest.to_vec()),
            b'(' => Value::BigNumber(rest.to_vec()),
            b'#' => Value::Bool(rest == b"t"),
            other => return Err(broken(&format!("type byte {:?}", char::from(other)))),
        })
    }

    fn values(&mut self, count: i64) -> io::Result<Vec<Value>> {
        (0..count).map(|_| self.value()).collect()
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let start = self.raw.len();
        self.stream.read_until(b'\n', &mut self.raw)?;
        match &self.raw[start..] {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            [line @ .., b'\r', b'\n'] => Ok(line.to_vec()),
            other => Err(broken(&format!("a line without CRLF: {}", other.escape_ascii()))),
        }
    }

    fn payload(&mut self, len: i64) -> io::Result<Vec<u8>> {
        let len = usize::try_from(len).map_err(|_| broken("a negative length"))?;
        let start = self.raw.len();
        self.raw.resize(start + len + 2, 0);
        self.stream.read_exact(&mut self.raw[start..])?;
        if &self.raw[start + len..] != b"\r\n" {
            return Err(broken("a payload without CRLF"));
        }
        Ok(self.raw[start..start + len].to_vec())
    }
}

fn encode(args: &[Vec<u8>], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn number(text: &[u8]) -> io::Result<i64> {
    let text = std::str::from_utf8(text).map_err(|_| broken("a number that is not text"))?;
    text.parse().map_err(|_| broken(&format!("the number {text:?}")))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the reply is no RESP: {what}"))
}

//! The replica's side of Redis's replication protocol: bytes in, events and bytes out. Knows no socket and no
//! clock: somebody tells it once a second that a second has passed.
//!
//! After the greetings PSYNC asks for the stream from where we are. The primary goes on there, or sends
//! everything it has as an RDB file and the stream behind it. Source: replication.c of Redis 7.0.

use super::Resume;
use super::commands::{Asked, Command, Commands, Input, Place};
use super::rdb::{self, Key, Tokenizer, readable};
use crate::resp::encode;
use crate::resp::number::parse_i64;

const LINE_MAX_BYTES: usize = 64 * 1024;
/// Length of what ends a payload whose length was not known when it began.
const MARK_BYTES: usize = 40;

/// Why a primary is followed no further over this connection.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the primary wants another user or password: {0}")]
    Login(String),
    /// It starts, or has lost its own primary, or cannot replicate.
    #[error("the primary answered {asked} with: {answer}")]
    Answer { asked: &'static str, answer: String },
    #[error("its copy: {0}")]
    Rdb(#[from] rdb::Error),
    #[error("its copy did not end where it should")]
    RdbEnd,
    #[error("its stream: {0}")]
    Stream(String),
    #[error("nothing came for longer than repl-timeout")]
    Silent,
    #[error("the primary has closed the connection")]
    Closed,
    #[error("the connection to the primary: {0}")]
    Io(#[from] std::io::Error),
}

/// Who we are to the primary.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
    /// The port that the primary shows for us.
    pub listening_port: u16,
    /// Longest value that is taken, in bytes of the RDB file, and longest argument of a command.
    pub value_max_bytes: u64,
    /// Seconds without a byte from the primary after which it is held to be gone.
    pub silence_max_s: u32,
}

/// What happens, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// What we hold is of no use: a copy of everything begins.
    Copy,
    /// A key of the copy: `Machine::key` has it.
    Key,
    /// A library of functions in the copy, which is passed over.
    Function,
    /// The stream begins, or goes on where we were.
    Stream { resumed: bool },
    /// A command of the stream: `Machine::command` has it.
    Command,
    /// The primary asks to be told how far we are, once we are at least there.
    Acknowledge { after: u64 },
}

enum State {
    Greeting(Greeting),
    /// The copy is being made.
    Announcement,
    Copy {
        rdb: Box<Tokenizer>,
        end: End,
    },
    Mark([u8; MARK_BYTES]),
    /// Its first event is due.
    Begins {
        resumed: bool,
    },
    Stream(Box<Commands>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Greeting {
    Ping,
    Auth,
    Port,
    Capabilities,
    Psync,
}

/// How the copy's end is known.
#[derive(Clone, Copy)]
enum End {
    /// So many bytes are to come.
    Left(u64),
    Mark([u8; MARK_BYTES]),
}

/// One connection to a primary.
pub struct Machine {
    login: Login,
    resume: Option<Resume>,
    state: State,
    input: Input,
    replid: String,
    place: Place,
    silent_s: u32,
}

impl Machine {
    /// A connection that has just been made; `out` gets what is to be sent, here and below. With `resume` the
    /// primary is asked to go on from there.
    pub fn new(login: Login, resume: Option<Resume>, out: &mut Vec<u8>) -> Machine {
        send(&[b"PING"], out);
        Machine {
            login,
            resume,
            state: State::Greeting(Greeting::Ping),
            input: Input::default(),
            replid: String::new(),
            place: Place { offset: 0, db: 0 },
            silent_s: 0,
        }
    }

    /// Takes bytes of the primary. Whoever gives them waits until `advance` has nothing more.
    pub fn received(&mut self, bytes: &[u8]) {
        self.silent_s = 0;
        let State::Copy { rdb, end } = &mut self.state else { return self.input.push(bytes) };
        let of_copy = match end {
            End::Left(left) => {
                let count = (bytes.len() as u64).min(*left);
                *left -= count;
                count as usize
            }
            End::Mark(_) => bytes.len(),
        };
        rdb.feed(&bytes[..of_copy]);
        self.input.push(&bytes[of_copy..]);
    }

    /// The next event; `None` where more bytes are needed. After a failure there is nothing more to be had.
    pub fn advance(&mut self, out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
        loop {
            match &mut self.state {
                State::Greeting(greeting) => {
                    let greeting = *greeting;
                    let Some(line) = self.line()? else { return Ok(None) };
                    self.greeted(greeting, &line, out)?;
                }
                State::Announcement => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    self.announced(&line)?;
                }
                State::Copy { rdb, .. } => match rdb.advance()? {
                    Some(rdb::Event::Begin { .. }) => return Ok(Some(Event::Copy)),
                    Some(rdb::Event::Key) => return Ok(Some(Event::Key)),
                    Some(rdb::Event::Function) => return Ok(Some(Event::Function)),
                    Some(rdb::Event::Aux { name, value }) => self.aux(&name, &value),
                    Some(rdb::Event::End) => self.copied()?,
                    None => return self.copy_goes_on().map(|()| None),
                },
                State::Mark(mark) => {
                    let Some(came) = self.input.rest().get(..MARK_BYTES) else { return Ok(None) };
                    if came != mark {
                        return Err(Failure::RdbEnd);
                    }
                    self.input.pass(MARK_BYTES);
                    self.state = State::Begins { resumed: false };
                }
                State::Begins { resumed } => {
                    let resumed = *resumed;
                    let commands = Commands::new(self.place, self.login.value_max_bytes);
                    self.state = State::Stream(Box::new(commands));
                    return Ok(Some(Event::Stream { resumed }));
                }
                State::Stream(commands) => {
                    return Ok(commands.advance(&mut self.input)?.map(|asked| match asked {
                        Asked::Command => Event::Command,
                        Asked::Acknowledge { after } => Event::Acknowledge { after },
                    }));
                }
            }
        }
    }

    /// The key that the last event told of.
    pub fn key(&self) -> Key<'_> {
        match &self.state {
            State::Copy { rdb, .. } => rdb.key(),
            _ => unreachable!("only a copy has keys"),
        }
    }

    /// The command that the last event told of.
    pub fn command(&self) -> Command<'_> {
        match &self.state {
            State::Stream(commands) => commands.command(&self.input),
            _ => unreachable!("only the stream has commands"),
        }
    }

    /// The place before which every event of the stream has been told; `None` before the stream, and in the
    /// midst of a transaction of which a part has been told.
    pub fn handed(&self) -> Option<Place> {
        match &self.state {
            State::Stream(commands) => commands.handed(),
            _ => None,
        }
    }

    /// What the primary calls its stream; empty until it has said so.
    pub fn replid(&self) -> &str {
        &self.replid
    }

    /// Says that a second has passed. `applied` is how far the stream has been followed, if it is; `waiting`,
    /// whether the primary's bytes would have been read.
    pub fn second(&mut self, applied: Option<u64>, waiting: bool, out: &mut Vec<u8>) -> Result<(), Failure> {
        match (&self.state, applied) {
            (State::Stream(_), Some(applied)) => acknowledge(applied, out),
            // While the copy is taken in, this is what keeps the primary from giving us up.
            (State::Copy { .. } | State::Mark(_) | State::Begins { .. } | State::Stream(_), _) => {
                out.push(b'\n');
            }
            (State::Greeting(_) | State::Announcement, _) => {}
        }
        self.silent_s = if waiting { self.silent_s + 1 } else { 0 };
        if self.silent_s >= self.login.silence_max_s { Err(Failure::Silent) } else { Ok(()) }
    }

    /// A line that is not empty; empty ones say that the primary is alive.
    fn line(&mut self) -> Result<Option<String>, Failure> {
        loop {
            let rest = self.input.rest();
            let Some(end) = memchr::memchr(b'\n', rest) else {
                let too_long = rest.len() > LINE_MAX_BYTES;
                return if too_long { Err(Failure::Stream("a line without end".into())) } else { Ok(None) };
            };
            let line = String::from_utf8_lossy(&rest[..end]).trim_end_matches('\r').to_owned();
            self.input.pass(end + 1);
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn greeted(&mut self, greeting: Greeting, line: &str, out: &mut Vec<u8>) -> Result<(), Failure> {
        let failed = |asked| Err(Failure::Answer { asked, answer: line.to_owned() });
        let next = match greeting {
            Greeting::Ping if wants_login(line) && self.login.password.is_none() => {
                return Err(Failure::Login(line.to_owned()));
            }
            Greeting::Ping if !line.starts_with('+') && !wants_login(line) => return failed("PING"),
            Greeting::Ping if self.login.password.is_some() => Greeting::Auth,
            Greeting::Auth if line.starts_with("-LOADING") => return failed("AUTH"),
            Greeting::Auth if !line.starts_with('+') => return Err(Failure::Login(line.to_owned())),
            Greeting::Ping | Greeting::Auth => Greeting::Port,
            // A primary that does not know one of these answers an error, and sends what it can.
            Greeting::Port => Greeting::Capabilities,
            Greeting::Capabilities => Greeting::Psync,
            Greeting::Psync => return self.synchronises(line),
        };
        self.state = State::Greeting(next);
        self.greet(next, out);
        Ok(())
    }

    fn greet(&self, greeting: Greeting, out: &mut Vec<u8>) {
        match (greeting, &self.login.password) {
            (Greeting::Auth, Some(password)) => match &self.login.user {
                Some(user) => send(&[b"AUTH", user.as_bytes(), password.as_bytes()], out),
                None => send(&[b"AUTH", password.as_bytes()], out),
            },
            (Greeting::Ping | Greeting::Auth, _) => send(&[b"PING"], out),
            (Greeting::Port, _) => {
                send(
                    &[b"REPLCONF", b"listening-port", self.login.listening_port.to_string().as_bytes()],
                    out,
                );
            }
            (Greeting::Capabilities, _) => send(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"], out),
            (Greeting::Psync, _) => match &self.resume {
                // The number is that of the first byte wanted, counted from one.
                Some(resume) => {
                    let next = resume.place.offset.saturating_add(1).to_string();
                    send(&[b"PSYNC", resume.replid.as_bytes(), next.as_bytes()], out);
                }
                None => send(&[b"PSYNC", b"?", b"-1"], out),
            },
        }
    }

    fn synchronises(&mut self, line: &str) -> Result<(), Failure> {
        let failed = || Failure::Answer { asked: "PSYNC", answer: line.to_owned() };
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("+FULLRESYNC") => {
                let (replid, offset) = (words.next(), words.next().and_then(|word| word.parse().ok()));
                self.replid = replid.ok_or_else(failed)?.to_owned();
                self.place = Place { offset: offset.ok_or_else(failed)?, db: 0 };
                self.state = State::Announcement;
            }
            Some("+CONTINUE") => {
                let resume = self.resume.take().ok_or_else(failed)?;
                // Where another has become primary, the stream has a new name from here on.
                self.replid = words.next().map_or(resume.replid, str::to_owned);
                self.place = resume.place;
                self.state = State::Begins { resumed: true };
            }
            _ => return Err(failed()),
        }
        Ok(())
    }

    fn announced(&mut self, line: &str) -> Result<(), Failure> {
        let failed = || Failure::Answer { asked: "PSYNC", answer: readable(line.as_bytes()) };
        let length = line.strip_prefix('$').ok_or_else(failed)?;
        let end = match length.strip_prefix("EOF:") {
            Some(mark) => End::Mark(mark.as_bytes().try_into().map_err(|_| failed())?),
            None => {
                let length = parse_i64(length.as_bytes()).and_then(|length| u64::try_from(length).ok());
                End::Left(length.ok_or_else(failed)?)
            }
        };
        self.state = State::Copy { rdb: Box::new(Tokenizer::new(self.login.value_max_bytes)), end };
        // What has come behind the line is of the copy.
        let came = std::mem::take(&mut self.input);
        self.received(came.rest());
        Ok(())
    }

    /// The stream begins in the database that the copy's maker had selected; it does not say so again if it
    /// is a replica itself.
    fn aux(&mut self, name: &str, value: &str) {
        if name == "repl-stream-db"
            && let Ok(db) = value.parse()
        {
            self.place.db = db;
        }
    }

    fn copy_goes_on(&self) -> Result<(), Failure> {
        match self.state {
            State::Copy { end: End::Left(0), .. } => Err(Failure::RdbEnd),
            _ => Ok(()),
        }
    }

    fn copied(&mut self) -> Result<(), Failure> {
        let begins = State::Begins { resumed: false };
        let State::Copy { rdb, end } = std::mem::replace(&mut self.state, begins) else {
            unreachable!("only a copy ends");
        };
        let behind = rdb.into_rest();
        match end {
            End::Left(0) if behind.is_empty() => {}
            End::Left(_) => return Err(Failure::RdbEnd),
            End::Mark(mark) => {
                self.input.push(&behind);
                self.state = State::Mark(mark);
            }
        }
        Ok(())
    }
}

/// Tells the primary how far its stream has been followed.
pub fn acknowledge(offset: u64, out: &mut Vec<u8>) {
    send(&[b"REPLCONF", b"ACK", offset.to_string().as_bytes()], out);
}

fn send(words: &[&[u8]], out: &mut Vec<u8>) {
    encode::array_header(words.len(), out);
    words.iter().for_each(|word| encode::bulk(word, out));
}

fn wants_login(line: &str) -> bool {
    ["-NOAUTH", "-NOPERM", "-ERR operation not permitted"].iter().any(|error| line.starts_with(error))
}

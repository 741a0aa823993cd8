//! The connection to a Redis primary, made again whenever it ends. Moves bytes between the primary, the
//! protocol and our server; decides nothing about any of them.
//!
//! Everything is one poll function, so that what is read, sent and answered comes in one order.

use super::sink::{Sent, Sink};
use crate::replica::redis::commands::Place;
use crate::replica::redis::stream::{self, Event, Failure, Machine};
use crate::replica::redis::{Phase, Resume, SharedStatus, Target, update};
use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

const CONNECT_WAIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// Between copies that fail: each empties the server and burdens the primary.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long our server may take to close the connection once it stops.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(3);
const READ_BYTES: usize = 64 << 10;
/// Names of commands that are remembered as logged.
const LOGGED_MAX: usize = 1_000;

/// What writes no key, whatever else it does.
const WRITE_NOTHING: &[&str] = &["publish", "spublish", "script", "function"];

/// Follows a primary through `sink`, a connection to our own server in RESP2, logged in, and with a right to
/// write; nobody else may use it, and TCP must not hold its small pieces back (TCP_NODELAY). Connects again,
/// with a pause, whenever the primary is lost or refuses.
///
/// It begins at `resume` if the primary can, else with a copy of everything, for which the server is emptied.
/// While it runs `resume` is empty, so that whoever drops it midway starts over: nobody knows then what was
/// done of the commands under way.
///
/// Returns only when `sink` has failed or `stop` is there: `None` then. Afterwards `resume` says where to go on if
/// our server has answered all that it has done before it closed the connection: whoever did not make it do so
/// must not believe that. Must run within a tokio runtime with IO and time.
pub async fn follow<S>(
    target: &Target,
    sink: S,
    status: &SharedStatus,
    resume: &mut Option<Resume>,
    stop: impl Future<Output = ()>,
) -> Option<io::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::pin!(stop);
    let (mut sink, mut logged, mut pause) = (Sink::new(sink), HashSet::new(), PAUSE);
    loop {
        update(status, |status| status.phase = Phase::Connecting);
        let connected = tokio::select! {
            () = &mut stop => return None,
            connected = connect(target) => connected,
        };
        let (ended, copying) = match connected {
            Ok(primary) => {
                let before = resume.take();
                let mut link = Link::new(target, primary, before, &mut sink, status, &mut logged);
                let ended = tokio::select! {
                    () = &mut stop => Ended::Stopped,
                    ended = poll_fn(|cx| link.poll(cx)) => ended,
                };
                let ended = link.settle(ended, resume).await;
                if matches!(ended, Ended::Server(_) | Ended::Stopped) {
                    *resume = timeout(LAST_WORDS_WAIT, link.last_words()).await.ok().flatten();
                }
                (ended, link.copying)
            }
            Err(failure) => (Ended::Primary(failure), false),
        };
        let (why, in_vain) = match ended {
            Ended::Server(error) => return Some(error),
            Ended::Stopped => return None,
            Ended::Primary(failure) => (failure.to_string(), copying),
            Ended::Refused(why) => (why, true),
        };
        tracing::warn!(host = target.host, port = target.port, why, "not following the primary");
        update(status, |status| (status.phase, status.last_error) = (Phase::Pausing, why));
        pause = if in_vain { (2 * pause).min(PAUSE_MAX) } else { PAUSE };
        tokio::select! {
            () = &mut stop => return None,
            () = sleep(pause) => {}
        }
    }
}

async fn connect(target: &Target) -> Result<TcpStream, Failure> {
    let connecting = TcpStream::connect((target.host.as_str(), target.port));
    let primary = timeout(CONNECT_WAIT, connecting).await.map_err(|_| Failure::Silent)??;
    primary.set_nodelay(true)?;
    Ok(primary)
}

enum Ended {
    Primary(Failure),
    /// Our server has refused what everything behind it depends on.
    Refused(String),
    /// The connection to our server is of no more use.
    Server(io::Error),
    Stopped,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Primary(failure)
    }
}

struct Link<'f, S> {
    primary: TcpStream,
    to_primary: Vec<u8>,
    machine: Machine,
    /// An event that the sink has not taken.
    event: Option<Event>,
    sink: &'f mut Sink<S>,
    answers: Answers<'f>,
    /// The primary wants to know when we are so far.
    acknowledge_after: Option<u64>,
    seconds: Interval,
    buffer: Box<[u8]>,
    /// Where to go on as long as nothing has been changed here.
    untouched: Option<Resume>,
    /// Whether a copy has begun and is not all here.
    copying: bool,
    /// The stream begins with so many commands that have been done before.
    done_before: u32,
}

/// What our server's answers come to.
struct Answers<'f> {
    status: &'f SharedStatus,
    logged: &'f mut HashSet<String>,
    /// How far the stream has been followed; `None` before it.
    applied: Option<Place>,
    /// Commands behind that which have been done: of a transaction.
    behind: u32,
    refused: Option<String>,
    keys: u64,
    commands: u64,
}

impl<'f, S: AsyncRead + AsyncWrite + Unpin> Link<'f, S> {
    fn new(
        target: &Target,
        primary: TcpStream,
        resume: Option<Resume>,
        sink: &'f mut Sink<S>,
        status: &'f SharedStatus,
        logged: &'f mut HashSet<String>,
    ) -> Link<'f, S> {
        update(status, |status| (status.phase, status.heard) = (Phase::Greeting, Some(Instant::now())));
        let mut to_primary = Vec::new();
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Link {
            primary,
            machine: Machine::new(target.login.clone(), resume.clone(), &mut to_primary),
            to_primary,
            event: None,
            sink,
            answers: Answers {
                status,
                logged,
                applied: None,
                behind: 0,
                refused: None,
                keys: 0,
                commands: 0,
            },
            acknowledge_after: None,
            seconds,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            done_before: resume.as_ref().map_or(0, |resume| resume.done_behind),
            untouched: resume,
            copying: false,
        }
    }

    /// Does all that can be done now; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(ended) => return Poll::Ready(ended),
            }
        }
    }

    /// Whether anything went.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let mut went = self.serve(cx)?;
        if let Some(why) = self.answers.refused.take() {
            return Err(Ended::Refused(why));
        }
        let (took, wants_more) = self.take_events()?;
        went |= took;
        if wants_more {
            went |= self.read(cx)?;
        }
        if self.seconds.poll_tick(cx).is_ready() {
            let applied = self.answers.applied.map(|place| place.offset);
            self.machine.second(applied, wants_more, &mut self.to_primary)?;
            went = true;
        }
        Ok(went | self.write(cx)?)
    }

    /// Lets the server have its commands, and hears its answers.
    fn serve(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let answers = &mut self.answers;
        let went = self.sink.poll(cx, |sent, reply| answers.hear(sent, reply)).map_err(Ended::Server)?;
        // Then what came in between has been done too: what is no command of the server's.
        if answers.applied.is_some() && self.event.is_none() && self.sink.idle() {
            answers.applied = self.machine.handed().or(answers.applied);
        }
        if went {
            answers.show();
        }
        if let (Some(after), Some(applied)) = (self.acknowledge_after, answers.applied)
            && applied.offset >= after
        {
            self.acknowledge_after = None;
            stream::acknowledge(applied.offset, &mut self.to_primary);
        }
        Ok(went)
    }

    /// Hands the server what has come, as far as it takes it. Whether there was anything, and whether more of
    /// the primary is wanted.
    fn take_events(&mut self) -> Result<(bool, bool), Failure> {
        let mut took = false;
        while self.sink.open() {
            let event = match self.event.take() {
                Some(event) => event,
                None => match self.machine.advance(&mut self.to_primary)? {
                    Some(event) => event,
                    None => return Ok((took, true)),
                },
            };
            if !self.take(event) {
                self.event = Some(event);
                // It may have asked for something that it needs first.
                return Ok((took || !self.sink.open(), false));
            }
            took = true;
        }
        Ok((took, false))
    }

    /// Whether it could be taken now.
    fn take(&mut self, event: Event) -> bool {
        let status = self.answers.status;
        match event {
            Event::Copy => {
                tracing::info!(
                    replid = self.machine.replid(),
                    "taking a copy of everything from the primary"
                );
                let replid = self.machine.replid().to_owned();
                update(status, |status| {
                    (status.phase, status.replid) = (Phase::Copying, replid);
                    status.copies += 1;
                });
                (self.untouched, self.copying, self.done_before) = (None, true, 0);
                self.sink.empty();
            }
            Event::Key => {
                let key = self.machine.key();
                if !self.sink.selects(key.db) {
                    return false;
                }
                self.sink.restore(&key);
            }
            Event::Function => {
                tracing::warn!("the primary's copy has a library of functions, which is passed over");
                update(status, |status| status.functions_skipped += 1);
            }
            Event::Stream { resumed } => return self.sink.idle() && self.stream_begins(resumed),
            Event::Command if self.done_before > 0 => self.done_before -= 1,
            Event::Command => {
                let command = self.machine.command();
                if !self.sink.selects(command.db) {
                    return false;
                }
                self.sink.command(&command);
            }
            Event::Acknowledge { after } => self.acknowledge_after = Some(after),
        }
        true
    }

    fn stream_begins(&mut self, resumed: bool) -> bool {
        (self.untouched, self.copying) = (None, false);
        self.answers.applied = self.machine.handed();
        self.answers.behind = self.done_before;
        self.acknowledge_after = Some(0);
        let (replid, offset) = (self.machine.replid(), self.answers.applied.map_or(0, |place| place.offset));
        tracing::info!(replid, offset, resumed, "following the primary's stream");
        update(self.answers.status, |status| {
            (status.phase, status.replid) = (Phase::Streaming, replid.to_owned());
            status.resumptions += u64::from(resumed);
        });
        self.answers.show();
        true
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut read = ReadBuf::new(&mut self.buffer);
        if Pin::new(&mut self.primary).poll_read(cx, &mut read)?.is_pending() {
            return Ok(false);
        }
        if read.filled().is_empty() {
            return Err(Failure::Closed);
        }
        self.machine.received(read.filled());
        update(self.answers.status, |status| status.heard = Some(Instant::now()));
        Ok(true)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut went = false;
        while !self.to_primary.is_empty() {
            let Poll::Ready(written) = Pin::new(&mut self.primary).poll_write(cx, &self.to_primary) else {
                break;
            };
            self.to_primary.drain(..written?);
            went = true;
        }
        Ok(went)
    }

    /// Waits until our server has answered everything, and says where the stream may go on.
    async fn settle(&mut self, ended: Ended, resume: &mut Option<Resume>) -> Ended {
        if matches!(ended, Ended::Server(_) | Ended::Stopped) {
            return ended;
        }
        let refused = matches!(ended, Ended::Refused(_));
        let settled = poll_fn(|cx| {
            loop {
                let mut went = match self.serve(cx) {
                    Ok(went) => went,
                    Err(ended) => return Poll::Ready(Err(ended)),
                };
                // Of the stream, what has come counts; a transaction must not be left half done. A failure
                // here is the one that is known, or comes to the same.
                let more = !refused && self.answers.refused.is_none() && self.answers.applied.is_some();
                let mut all = true;
                if more && let Ok((took, wants_more)) = self.take_events() {
                    went |= took;
                    all = wants_more;
                }
                if all && self.sink.idle() {
                    return Poll::Ready(Ok(()));
                }
                if !went {
                    return Poll::Pending;
                }
            }
        });
        if let Err(ended) = settled.await {
            return ended;
        }
        if refused || self.answers.refused.is_some() {
            self.sink.selection_failed();
        } else if self.untouched.is_some() {
            *resume = self.untouched.take();
        } else if self.machine.handed().is_some() {
            *resume = self.place_in_stream();
        }
        ended
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<'_, S> {
    /// Hears what our server has to say until it closes the connection; where to go on then.
    async fn last_words(&mut self) -> Option<Resume> {
        if self.untouched.is_some() {
            return self.untouched.take();
        }
        self.sink.send_no_more();
        let closed = poll_fn(|cx| {
            loop {
                match self.serve(cx) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                    Err(Ended::Server(error)) => {
                        return Poll::Ready(error.kind() == io::ErrorKind::UnexpectedEof);
                    }
                    Err(_) => return Poll::Ready(false),
                }
            }
        });
        let heard_all = closed.await && self.answers.refused.is_none();
        self.place_in_stream().filter(|_| heard_all)
    }

    fn place_in_stream(&self) -> Option<Resume> {
        let replid = self.machine.replid().to_owned();
        let done_behind = self.answers.behind;
        self.answers.applied.map(|place| Resume { replid, place, done_behind })
    }
}

impl Answers<'_> {
    fn hear(&mut self, sent: Sent, reply: Result<(), String>) {
        match (sent, reply) {
            (Sent::Must(_), Ok(())) => {}
            (Sent::Key { .. }, Ok(())) => self.keys += 1,
            (Sent::Must(words), Err(error)) => self.refuse(format!("{words} was refused: {error}")),
            (Sent::Key { db, name }, Err(error)) => {
                let name = crate::replica::redis::rdb::readable(&name);
                self.refuse(format!("key \"{name}\" of database {db} was refused: {error}"));
            }
            (Sent::Command { name, end }, reply) => {
                self.commands += 1;
                self.behind = if end.is_some() { 0 } else { self.behind + 1 };
                self.applied = end.or(self.applied);
                if let Err(error) = reply {
                    self.stream_error(name.to_ascii_lowercase(), error);
                }
            }
        }
    }

    /// The first refusal is what is told; others follow from it, or are of its kind.
    fn refuse(&mut self, why: String) {
        self.refused.get_or_insert(why);
    }

    fn stream_error(&mut self, name: String, error: String) {
        let unknown = error.starts_with("ERR unknown command");
        let differs = !unknown || !WRITE_NOTHING.contains(&name.as_str());
        update(self.status, |status| {
            status.unknown_commands += u64::from(unknown);
            status.stream_errors += u64::from(differs);
            if differs {
                status.last_error = format!("{name}: {error}");
            }
        });
        if self.logged.len() < LOGGED_MAX && !self.logged.contains(&name) {
            match differs {
                true => tracing::error!(
                    command = name,
                    error,
                    "a write of the primary was refused: copies differ"
                ),
                false => tracing::warn!(command = name, "the primary sends what is not known here"),
            }
            self.logged.insert(name);
        }
    }

    fn show(&mut self) {
        let (keys, commands) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.commands));
        let applied = self.applied;
        update(self.status, |status| {
            status.keys += keys;
            status.commands += commands;
            status.offset = applied.map_or(status.offset, |place| place.offset);
        });
    }
}

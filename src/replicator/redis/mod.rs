//! Following a primary that is a Redis: its connection, and one to our own server through which it writes.
//!
//! What the two say is decided in `replica::redis`. Must not know the links between nodes of this kind.

mod kept;
mod link;
mod sink;

pub use link::follow;

use self::kept::Kept;
use super::hub::{Hub, now_ms};
use crate::conn::moving::Moving;
use crate::front::session::Session;
use crate::limits;
use crate::replica::redis::stream::Login;
use crate::replica::redis::{Phase, Resume, SharedStatus, Target};
use crate::replica::status::{self, Link};
use crate::shard::mesh::{Ask, Tell};
use crate::slot::CoreId;
use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

/// A Redis that is followed.
pub struct Following {
    hub: Rc<Hub>,
    facts: Rc<RefCell<status::Following>>,
    target: Target,
    status: SharedStatus,
}

impl Following {
    pub fn new(hub: Rc<Hub>, facts: Rc<RefCell<status::Following>>, host: String, port: u16) -> Following {
        let config = hub.config();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let login = Login {
            user: Some(config.masteruser.clone()).filter(|user| !user.is_empty()),
            password: config.masterauth.is_set().then(|| text(config.masterauth.as_bytes())),
            listening_port: config.port,
            value_max_bytes: hub.place.value_max_bytes,
            silence_max_s: config.repl_timeout_s,
        };
        Following { hub, facts, target: Target { host, port, login }, status: SharedStatus::default() }
    }

    /// Follows until it is to stop: when the process does, it notes where to go on.
    pub async fn run(self, mut stopped: oneshot::Receiver<()>) {
        let mut resume = self.kept().await;
        let mut tick = tokio::time::interval(limits::REPLICA_TICK);
        loop {
            let ended = match self.own_connection() {
                Ok(sink) => {
                    let (end, mut to_end) = (Notify::new(), false);
                    let following = follow(&self.target, sink, &self.status, &mut resume, end.notified());
                    tokio::pin!(following);
                    loop {
                        tokio::select! {
                            ended = &mut following => break ended,
                            _ = tick.tick() => self.note(),
                            // Never sent: the other end is dropped.
                            _ = &mut stopped, if !to_end => {
                                if !self.stops() {
                                    return;
                                }
                                to_end = true;
                                end.notify_one();
                            }
                        }
                    }
                }
                Err(error) => Some(error),
            };
            if self.stops() {
                return self.keep(resume);
            }
            // Somebody else has ended it: what was under way may have been done.
            resume = None;
            if let Some(error) = ended {
                tracing::warn!(%error, "the connection through which the primary writes has ended");
            }
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(limits::REPLICA_TICK) => {}
            }
        }
    }

    fn stops(&self) -> bool {
        self.hub.shared.stopping.load(Ordering::Acquire)
    }

    /// Where this node may go on, if nothing has happened to it since it was noted.
    async fn kept(&self) -> Option<Resume> {
        let kept = match Kept::read(&self.hub.place.redis_stream) {
            Ok(kept) => kept?,
            Err(error) => {
                tracing::warn!(%error, "where the stream of a Redis goes on cannot be read: it is copied");
                return None;
            }
        };
        let ends = self.hub.ask_cores(Ask::LogEnds).await.into_iter().flat_map(|tell| match tell {
            Tell::LogEnds(ends) => ends,
            _ => unreachable!("cores answer what they are asked"),
        });
        let mut ends: Vec<_> = ends.map(|end| (end.shard, end.lsn)).collect();
        ends.sort_unstable();
        let same = ends.iter().map(|(_, lsn)| *lsn).eq(kept.ends.iter().copied());
        let ours = kept.host == self.target.host && kept.port == self.target.port;
        if !(same && ours) {
            tracing::info!(?kept, ?ends, "what was noted of a Redis's stream does not count any more");
        }
        (same && ours).then_some(kept.resume)
    }

    fn keep(&self, resume: Option<Resume>) {
        let Some(resume) = resume else { return };
        let Target { host, port, .. } = &self.target;
        let ends = self.hub.shards().map(|shard| self.hub.published.upto(shard)).collect();
        let kept = Kept { host: host.clone(), port: *port, resume, ends };
        match kept.write(&self.hub.place.redis_stream) {
            Ok(()) => tracing::info!(?kept, "noted where the stream of the Redis goes on"),
            Err(error) => {
                tracing::warn!(%error, "where the stream goes on could not be noted: it will be copied")
            }
        }
    }

    /// A connection to the first core, as a client has one, that may write.
    fn own_connection(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let id = self.hub.shared.next_client_id.fetch_add(1, Ordering::Relaxed) + 1;
        self.hub.shared.clients.fetch_add(1, Ordering::Relaxed);
        let addr = format!("{}:{}", self.target.host, self.target.port);
        let session = Session::of_primary(id, addr, now_ms());
        self.hub.give(CoreId(0), Moving::of_primary(theirs.into(), session));
        UnixStream::from_std(ours)
    }

    fn note(&self) {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut facts = self.facts.borrow_mut();
        facts.is_redis = true;
        facts.link = match status.phase {
            Phase::Connecting => Link::Connecting,
            Phase::Greeting => Link::Handshake,
            Phase::Copying => Link::Sync,
            Phase::Streaming => Link::Connected,
            Phase::Pausing => Link::Connect,
        };
        facts.complete = match facts.link {
            Link::Connected => true,
            Link::Sync => false,
            _ => facts.complete,
        };
        facts.offset = status.offset;
        facts.redis_stream_errors = status.stream_errors;
        facts.last_heard_ms = status
            .heard
            .map_or(0, |heard: Instant| now_ms().saturating_sub(heard.elapsed().as_millis() as u64));
        match facts.link {
            Link::Connected => facts.down_since_ms = 0,
            _ if facts.down_since_ms == 0 => facts.down_since_ms = now_ms(),
            _ => {}
        }
        facts.last_error = Some(status.last_error).filter(|error| !error.is_empty());
    }
}

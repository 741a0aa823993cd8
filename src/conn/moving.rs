//! Connections that move to the core most of their commands go to, between two commands.
//!
//! A hop wakes two cores; a connection that sits on the core that owns its keys needs none. One moves when it
//! is quiet: every reply sent, nothing read in part. What its peer sends meanwhile travels with it, so no byte
//! is lost or reordered. While it is on its way (microseconds) it is on neither core, and CLIENT LIST and
//! CLIENT KILL of that moment pass it by.

use super::connection::Connection;
use super::serve::{Core, Serving};
use crate::front::session::Session;
use crate::limits;
use crate::runtime::ring::SocketId;
use crate::shard::mesh::Message;
use crate::slot::CoreId;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// What lanes carry. A full lane keeps it, in order, as it keeps every message; no move begins towards one.
#[expect(clippy::large_enum_variant, reason = "nearly all are messages: a box would cost each an allocation")]
pub enum Parcel {
    /// Between the shards of two cores.
    Message(Message),
    /// From a connection's core to the one it moves to.
    Connection(Box<Moving>),
}

/// A quiet connection without a ring.
pub struct Moving {
    fd: OwnedFd,
    connection: Connection,
}

/// Commands of a new connection that are looked at before it may move; each move doubles it, so that one whose
/// interest wanders soon stays where it is.
const WINDOW_COMMANDS: u32 = 256;
const WINDOW_DOUBLINGS_MAX: u32 = 12;
/// Of a window's commands, the share that must go to one core.
const TOWARD_PERCENT: u32 = 90;

/// Where a connection's commands go.
#[derive(Default)]
pub struct Lean {
    /// Owner of the window's first command: an outlier there costs one window.
    core: Option<CoreId>,
    seen: u32,
    toward: u32,
    moves: u32,
}

impl Lean {
    /// Counts a command that ran on `core`, or on several. At a window's end: the core that had nearly all.
    pub fn note(&mut self, core: Option<CoreId>) -> Option<CoreId> {
        if self.seen == 0 {
            self.core = core;
        }
        self.seen += 1;
        self.toward += u32::from(core == self.core);
        if self.seen < WINDOW_COMMANDS << self.moves {
            return None;
        }
        let settled = self
            .core
            .filter(|_| u64::from(self.toward) * 100 >= u64::from(self.seen) * u64::from(TOWARD_PERCENT));
        (self.seen, self.toward) = (0, 0);
        settled
    }

    fn moved(&mut self) {
        self.moves = (self.moves + 1).min(WINDOW_DOUBLINGS_MAX);
        (self.seen, self.toward) = (0, 0);
    }
}

/// Moves that one core may begin in the second that runs.
#[derive(Default)]
pub struct Allowance {
    second: u64,
    begun: u32,
}

impl Allowance {
    fn take(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        if second != self.second {
            (self.second, self.begun) = (second, 0);
        }
        self.begun += 1;
        self.begun <= limits::MOVES_PER_SECOND_MAX
    }
}

impl Core {
    /// Counts where a command of this connection went; wishes it there when that is so of nearly all.
    pub fn note_lean(&mut self, place: usize, core: Option<CoreId>) {
        let connection = &mut self.connections[place];
        if self.node.cores == 1 || connection.session.shard_aware || !self.node.config.move_connections {
            return;
        }
        if let Some(core) = connection.lean.note(core) {
            connection.wish = (core != self.node.core).then_some(core);
        }
    }

    /// Whether a connection may leave now, and where it wants to go.
    fn may_move(&mut self, place: usize) -> Option<CoreId> {
        let connection = &self.connections[place];
        let to = connection.wish?;
        if to == self.node.replication_lane() {
            return (connection.is_quiet() && !connection.leaving && self.stopping.is_none()).then_some(to);
        }
        // Every core knows a watching connection by where it is.
        let quiet = connection.is_quiet() && !connection.leaving && !connection.session.monitoring;
        let welcome = !self.congested[usize::from(to.0)] && self.stopping.is_none();
        let now_ms = self.owner.clock.now_ms();
        (quiet && welcome && self.node.config.move_connections && self.moves.take(now_ms)).then_some(to)
    }
}

impl Moving {
    /// The socket, who is at its other end, and what that has sent that nobody has looked at.
    pub fn into_parts(self) -> (OwnedFd, Session, Vec<u8>) {
        let Connection { session, input, .. } = self.connection;
        (self.fd, session, input)
    }

    /// A connection that the replication thread has made, and through which a primary speaks.
    pub fn of_primary(fd: OwnedFd, session: Session) -> Moving {
        Moving { fd, connection: Connection::new(0, SocketId::NOWHERE, session) }
    }
}

impl Serving {
    /// Begins to move a connection that wants to and can: `detached` goes on.
    pub fn move_if_quiet(&mut self, place: usize) -> io::Result<()> {
        if self.core.may_move(place).is_none() {
            return Ok(());
        }
        let connection = &mut self.core.connections[place];
        connection.leaving = true;
        self.ring.detach(connection.socket)
    }

    /// The ring has nothing of the connection any more: off it goes.
    pub fn detached(&mut self, place: usize, fd: OwnedFd) {
        let core = &mut self.core;
        let connection = core.connections.remove(place);
        core.by_socket.remove(&connection.socket);
        core.owner.stats.connections_now -= 1;
        let to = connection.wish.expect("only a connection with a wish is detached");
        if to == core.node.replication_lane() {
            core.shared.clients.fetch_sub(1, Ordering::Relaxed);
        }
        core.departing.push((to, Box::new(Moving { fd, connection })));
    }

    /// Takes a connection in from another core, and goes on with what its peer has sent meanwhile.
    pub fn arrived(&mut self, moving: Moving) -> io::Result<()> {
        let Moving { fd, mut connection } = moving;
        connection.socket = self.ring.adopt(fd)?;
        connection.leaving = false;
        connection.wish = None;
        connection.lean.moved();
        let core = &mut self.core;
        core.owner.stats.connections_moved += 1;
        let place = core.insert(connection);
        core.runnable.push_back(core.connections[place].id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<CoreId> = Some(CoreId(1));
    const B: Option<CoreId> = Some(CoreId(2));

    /// What the windows say of commands for these cores, one after the other.
    fn verdicts(lean: &mut Lean, cores: impl Iterator<Item = Option<CoreId>>) -> Vec<CoreId> {
        cores.filter_map(|core| lean.note(core)).collect()
    }

    #[test]
    fn nearly_all_of_a_window_must_go_to_one_core() {
        let mixed = |every: usize| (0..256).map(move |at| if at % every == every - 1 { B } else { A });
        assert_eq!(verdicts(&mut Lean::default(), mixed(11)), [CoreId(1)]);
        assert_eq!(verdicts(&mut Lean::default(), mixed(9)), []);
        assert_eq!(verdicts(&mut Lean::default(), (0..256).map(|_| None)), [], "commands on several cores");
        assert_eq!(verdicts(&mut Lean::default(), (0..255).map(|_| A)), [], "no window is full");
    }

    #[test]
    fn a_window_forgets_the_one_before() {
        let mut lean = Lean::default();
        let cores = [A; 256].into_iter().chain([B; 256]);
        assert_eq!(verdicts(&mut lean, cores), [CoreId(1), CoreId(2)]);
    }

    #[test]
    fn each_move_makes_the_next_dearer() {
        let mut lean = Lean::default();
        lean.moved();
        assert_eq!(verdicts(&mut lean, [A; 511].into_iter()), []);
        assert_eq!(verdicts(&mut lean, [A; 1].into_iter()), [CoreId(1)]);
        for _ in 0..100 {
            lean.moved();
        }
        assert_eq!(
            verdicts(&mut lean, std::iter::repeat_n(A, 1 << 20)),
            [CoreId(1)],
            "but there is an end to it"
        );
    }

    #[test]
    fn moves_of_a_second_are_counted() {
        let mut allowance = Allowance::default();
        let begun = (0..10 * limits::MOVES_PER_SECOND_MAX).filter(|_| allowance.take(5_000)).count();
        assert_eq!(begun as u32, limits::MOVES_PER_SECOND_MAX);
        assert!(allowance.take(6_000));
    }
}

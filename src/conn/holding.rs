//! Commands that are held back on a core: by CLIENT PAUSE, and while this node hands its role to a follower.
//!
//! A command that is held stays unread with its connection, and is looked at anew when the holding ends. Knows
//! no reason for it.

use super::serve::Core;
use crate::command::{Spec, flag};

/// CLIENT PAUSE in force.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub until_ms: u64,
    pub writes_only: bool,
}

/// What is held back now.
#[derive(Default)]
pub struct Holding {
    pause: Option<Pause>,
    /// For a failover.
    writes: bool,
}

impl Holding {
    pub fn holds(&self, spec: &Spec) -> bool {
        let paused = self.pause.is_some_and(|pause| !pause.writes_only || spec.has(flag::WRITE));
        paused || self.writes && spec.has(flag::WRITE)
    }

    /// It ends by itself.
    pub fn has_end(&self) -> bool {
        self.pause.is_some()
    }
}

impl Core {
    pub fn pause(&mut self, pause: Pause) {
        self.holding.pause = Some(pause);
        self.owner.paused_writes = true;
    }

    pub fn unpause(&mut self) {
        self.holding.pause = None;
        self.owner.paused_writes = false;
        self.go_on_held();
    }

    /// Ends a pause whose time is over.
    pub fn end_pause(&mut self) {
        if self.holding.pause.is_some_and(|pause| self.owner.clock.now_ms() >= pause.until_ms) {
            self.unpause();
        }
    }

    /// From now on no write begins here, or writes go on.
    pub fn hold_writes(&mut self, hold: bool) {
        self.holding.writes = hold;
        self.owner.keeps_expired = hold;
        if !hold {
            self.go_on_held();
        }
    }

    fn go_on_held(&mut self) {
        self.look_at_blocked();
        self.wake_held();
    }

    /// What kept connections back may do so no more.
    pub fn look_at_blocked(&mut self) {
        let blocked = self.connections.iter().filter(|(_, connection)| connection.blocked);
        self.runnable.extend(blocked.map(|(_, connection)| connection.id));
    }

    /// Something that clients of this core have begun may still write. What sleeps at a key does not while
    /// writes are held.
    pub fn writes_under_way(&self) -> bool {
        let writes = |name: &'static str| {
            let spec = self.commands.find(name.as_bytes()).map(|run| run.spec());
            spec.is_none_or(|spec| {
                spec.has(flag::WRITE) || spec.subcommands.iter().any(|sub| sub.has(flag::WRITE))
            })
        };
        let mut connections = self.connections.iter().map(|(_, connection)| connection);
        self.coordination.has_commands()
            || connections
                .any(|connection| !self.sleeps(connection.id) && connection.pending.unanswered().any(writes))
    }
}

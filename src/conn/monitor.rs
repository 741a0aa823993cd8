//! MONITOR: every core sends a line for each command it is given to the connections that watch.
//!
//! Costs a look at an empty list while nobody does. A watcher that is too slow loses lines and is told how
//! many: no core waits for it.

use super::pending::Manner;
use super::serve::Core;
use crate::command::flag;
use crate::front::admin::server::wall_clock;
use crate::front::words::monitor_line;
use crate::resp::args::Args;
use crate::resp::encode::Protocol;
use crate::resp::reply::Reply;
use crate::shard::mesh::{LineId, Message};
use crate::slot::CoreId;
use bytes::Bytes;

/// A connection of any core that wants to see this core's commands.
pub struct Watcher {
    connection: LineId,
    missed: u64,
}

impl Core {
    /// Whoever watches, here or elsewhere, from now on.
    pub fn add_watcher(&mut self, connection: LineId) {
        if self.watchers.iter().all(|watcher| watcher.connection != connection) {
            self.watchers.push(Watcher { connection, missed: 0 });
        }
    }

    pub fn remove_watcher(&mut self, connection: LineId) {
        self.watchers.retain(|watcher| watcher.connection != connection);
    }

    /// Its connection ends, or wants to see no more: every core is told.
    pub fn stop_watching(&mut self, conn: u64) {
        let watcher = LineId { core: self.node.core, conn };
        self.remove_watcher(watcher);
        // To this core as well: its own question may still be on its way.
        for core in 0..self.node.cores {
            self.outbox.push((CoreId(core), Message::Unwatch(watcher)));
        }
    }

    /// Shows a command to those who watch; what is for administrators is not shown, as in Redis.
    pub fn show_to_watchers(&mut self, place: usize, name: &str, flags: u32, args: &Args<'_>) {
        if flags & (flag::ADMIN | flag::SKIP_MONITOR) != 0 {
            return;
        }
        let session = &self.connections[place].session;
        let micros = wall_clock().as_micros();
        let line = monitor_line(micros, session.table.0, &session.addr, name, args);
        let line = Bytes::from(line);
        for watcher in &mut self.watchers {
            let to = watcher.connection.core;
            if self.congested.get(usize::from(to.0)) == Some(&true) {
                watcher.missed += 1;
                continue;
            }
            let missed = std::mem::take(&mut watcher.missed);
            if missed > 0 {
                let line = Bytes::from(format!("+... {missed} commands are not shown\r\n"));
                self.outbox.push((to, Message::Watched { conn: watcher.connection.conn, line }));
            }
            self.outbox.push((to, Message::Watched { conn: watcher.connection.conn, line: line.clone() }));
        }
    }

    /// A line for a connection of this core.
    pub fn watched(&mut self, conn: u64, line: Bytes) {
        // It may have ended, or want no more, since the line was sent.
        let Some(place) = self.place_of(conn).filter(|place| self.connections[*place].session.monitoring)
        else {
            return;
        };
        let manner = Manner { protocol: Protocol::Resp2, silent: false };
        self.connections[place].pending.reply(manner, Reply::Ready(line), None);
        self.list(place);
    }
}

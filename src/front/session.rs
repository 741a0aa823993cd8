//! One connection's state as commands see and change it. Knows nothing of sockets.

use crate::limits;
use crate::replica::greeting::Peer;
use crate::resp::encode::Protocol;
use crate::slot::set::{SlotSet, TableSlots};
use crate::slot::{Slot, TableId};
use bytes::Bytes;

/// What CLIENT REPLY has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    On,
    Off,
    /// The next command's reply is not sent.
    SkipNext,
}

pub struct Session {
    /// Unique on this node, never used again.
    pub id: u64,
    pub table: TableId,
    pub authenticated: bool,
    pub protocol: Protocol,
    pub reply_mode: ReplyMode,
    pub name: Bytes,
    pub lib_name: Bytes,
    pub lib_ver: Bytes,
    /// READONLY was sent (Redis Cluster).
    pub readonly: bool,
    pub no_evict: bool,
    pub no_touch: bool,
    /// MONITOR was sent.
    pub monitoring: bool,
    /// Peer and own address as CLIENT LIST shows them.
    pub addr: String,
    pub laddr: String,
    pub fd: i32,
    /// Milliseconds since the epoch.
    pub connected_ms: u64,
    pub last_command_ms: u64,
    pub last_command: &'static str,
    pub commands: u64,
    /// Accepted on this core's own port: its peer knows where keys live.
    pub shard_aware: bool,
    /// What this node follows speaks through it: it may write where no client may.
    pub is_primary: bool,
    /// The connection is about to become the link of this follower.
    pub follower: Option<Peer>,
    pub written: Written,
}

/// In sharding mode, the slots that a connection has written: what its WAIT is about.
#[derive(Default)]
pub struct Written {
    slots: TableSlots,
    /// More than are remembered: any.
    any: bool,
}

impl Written {
    pub fn note(&mut self, table: TableId, slot: Slot) {
        if self.any || !self.slots.entry(table).or_default().insert(slot) {
            return;
        }
        if self.slots.values().map(SlotSet::len).sum::<usize>() > limits::WRITTEN_SLOTS_MAX {
            self.note_any();
        }
    }

    pub fn note_any(&mut self) {
        self.any = true;
        self.slots.clear();
    }

    /// None: any.
    pub fn slots(&self) -> Option<&TableSlots> {
        (!self.any).then_some(&self.slots)
    }
}

impl Session {
    /// Of a connection that has just been made, and not logged in.
    pub fn new(id: u64, addr: String, laddr: String, now_ms: u64) -> Session {
        Session {
            id,
            table: TableId(0),
            authenticated: false,
            protocol: Protocol::Resp2,
            reply_mode: ReplyMode::On,
            name: Bytes::new(),
            lib_name: Bytes::new(),
            lib_ver: Bytes::new(),
            readonly: false,
            no_evict: false,
            no_touch: false,
            monitoring: false,
            addr,
            laddr,
            fd: -1,
            connected_ms: now_ms,
            last_command_ms: now_ms,
            last_command: "NULL",
            commands: 0,
            shard_aware: false,
            is_primary: false,
            follower: None,
            written: Written::default(),
        }
    }

    /// Of the connection through which a primary writes that speaks as a client does.
    pub fn of_primary(id: u64, addr: String, now_ms: u64) -> Session {
        Session { authenticated: true, is_primary: true, ..Session::new(id, addr.clone(), addr, now_ms) }
    }

    /// What RESET goes back to; the id, the addresses and the times stay.
    pub fn reset(&mut self, password_set: bool) {
        self.table = TableId(0);
        self.authenticated = !password_set;
        self.protocol = Protocol::Resp2;
        self.reply_mode = ReplyMode::On;
        self.name = Bytes::new();
        self.readonly = false;
        self.no_evict = false;
        self.no_touch = false;
        self.monitoring = false;
    }
}

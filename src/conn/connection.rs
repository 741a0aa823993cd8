//! One connection: its bytes in, its session, its replies out.

use super::moving::Lean;
use super::pending::{Manner, Pending};
use crate::config::OutputLimit;
use crate::front::session::{ReplyMode, Session};
use crate::resp::parse::Parser;
use crate::runtime::reaper;
use crate::runtime::ring::SocketId;
use crate::slot::CoreId;

pub struct Connection {
    /// How other cores and waiting work name it: never used twice.
    pub id: u64,
    pub socket: SocketId,
    pub session: Session,
    pub parser: Parser,
    /// Bytes received and not yet used by a command that ran.
    pub input: Vec<u8>,
    pub pending: Pending,
    /// Commands behind this one wait until it is answered.
    pub barrier: bool,
    /// Has bytes it may not run yet.
    pub blocked: bool,
    /// Reading from the socket is paused.
    pub paused: bool,
    /// Ends when all replies are sent.
    pub closing: bool,
    /// In the list of connections with something to send.
    pub listed: bool,
    /// A buffer that has been sent, for the next replies.
    pub spare: Vec<u8>,
    pub lean: Lean,
    /// The core it wants to move to, when it is quiet.
    pub wish: Option<CoreId>,
    /// Being detached from its ring: runs nothing, keeps what still comes.
    pub leaving: bool,
    /// Owed more than the soft limit since then.
    over_soft_since_ms: Option<u64>,
}

impl Connection {
    pub fn new(id: u64, socket: SocketId, session: Session) -> Connection {
        Connection {
            id,
            socket,
            session,
            parser: Parser::new(),
            input: Vec::new(),
            pending: Pending::default(),
            barrier: false,
            blocked: false,
            paused: false,
            closing: false,
            listed: false,
            spare: Vec::new(),
            lean: Lean::default(),
            wish: None,
            leaving: false,
            over_soft_since_ms: None,
        }
    }

    /// Between two commands: every reply has gone to the socket, nothing is half read, nothing holds it.
    pub fn is_quiet(&self) -> bool {
        let idle = self.pending.is_empty() && self.pending.out.is_empty() && self.input.is_empty();
        idle && !(self.barrier || self.blocked || self.paused || self.closing)
    }

    /// How the reply of the command that begins now is to be sent.
    pub fn manner(&mut self) -> Manner {
        let silent = self.session.reply_mode != ReplyMode::On;
        if self.session.reply_mode == ReplyMode::SkipNext {
            self.session.reply_mode = ReplyMode::On;
        }
        Manner { protocol: self.session.protocol, silent }
    }

    /// Whether this client is owed more than it may be (`client-output-buffer-limit`).
    pub fn over_output_limit(&mut self, limit: &OutputLimit, now_ms: u64) -> bool {
        let owed = self.pending.owed_bytes() as u64;
        let over_soft = limit.soft_bytes > 0 && owed > limit.soft_bytes;
        let since_ms = match (over_soft, self.over_soft_since_ms) {
            (false, _) => None,
            (true, since) => since.or(Some(now_ms)),
        };
        self.over_soft_since_ms = since_ms;
        let too_long = since_ms.is_some_and(|since| now_ms.saturating_sub(since) > limit.soft_s * 1000);
        too_long || (limit.hard_bytes > 0 && owed > limit.hard_bytes)
    }

    /// Keeps a sent buffer unless a giant reply has grown it.
    pub fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        const KEEP_MAX_BYTES: usize = 64 * 1024;
        if buffer.capacity() <= KEEP_MAX_BYTES {
            buffer.clear();
            self.spare = buffer;
        } else {
            reaper::free_buffer(buffer);
        }
    }
}

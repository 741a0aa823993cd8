//! Between bytes and data: which command this is, whether it may run, where it runs, and how the
//! answers of several cores become one.
//!
//! Knows sessions and plans, not sockets (`conn` owns those) and not RocksDB.

pub mod admin;
pub mod assigned;
pub mod gate;
pub mod gather;
pub mod giant;
pub mod node;
pub mod route;
pub mod session;
pub mod table;
pub mod words;

use crate::command::Spec;
use crate::error::ClientError;
use crate::replica::greeting::Peer;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, Tell};
use crate::slot::{CoreId, SlotHash, TableId};
use node::Node;
use session::Session;

/// What a command about the connection or the server may see and change, on the connection's core.
pub struct Ctx<'a> {
    pub session: &'a mut Session,
    pub node: &'a mut Node,
    /// Fixed for the turn, milliseconds since the epoch.
    pub now_ms: u64,
}

impl Ctx<'_> {
    pub fn hash(&self) -> SlotHash {
        self.node.hash
    }
}

/// Puts the cores' answers, ordered by core, together.
pub type Fold = Box<dyn FnOnce(&mut Ctx<'_>, Vec<Tell>) -> Reply>;

/// What follows from the cores' answers, ordered by core, when they are not yet the whole.
pub type Then = Box<dyn FnOnce(&mut Ctx<'_>, Vec<Tell>) -> Result<Answer, ClientError>>;

/// What the answers to a question change on the core that asked, once nobody waits for them any more.
/// The number is the time then, milliseconds since the epoch.
pub type Later = Box<dyn FnOnce(&mut Node, u64, Vec<Tell>)>;

/// How such a command goes on.
pub enum Answer {
    Reply(Reply),
    /// The reply, then the connection ends.
    Close(Reply),
    /// Ask every core, then fold. A barrier: runs when all earlier commands of the connection are
    /// answered, and holds back the later ones.
    AskAll(Ask, Fold),
    /// Ask every core, then go on as the answers say. The barrier holds to the end of it.
    AskThen(Ask, Then),
    /// The reply at once; ask every core meanwhile, without a barrier and even if the connection ends.
    Background(Reply, Ask, Later),
    /// Ask one core, then fold its one answer. A barrier too.
    AskOne(CoreId, Ask, Fold),
    /// A change to whole tables, atomic over all shards; answered +OK.
    WholeTables(WholeTables),
    /// The reply, at this moment. A barrier.
    AtTime {
        until_ms: u64,
        reply: Reply,
    },
    /// Every core's commands are shown to this connection from now on; answered +OK.
    Monitor,
    /// Answered +OK; then the connection is the link of whoever follows this node.
    Follower(Peer),
    /// Stop the server; no reply unless it cannot.
    Shutdown {
        hurry: bool,
    },
}

impl Answer {
    /// It changes, or asks several cores about, whatever keys there are: where their slots lie must not change
    /// meanwhile.
    pub fn is_about_all_keys(&self) -> bool {
        match self {
            Answer::AskAll(ask, _) | Answer::AskThen(ask, _) | Answer::AskOne(_, ask, _) => {
                ask.looks_at_keys()
            }
            Answer::WholeTables(_) => true,
            _ => false,
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer::Reply(reply)
    }
}

/// A change to whole tables, without touching a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholeTables {
    /// `None`: all tables.
    Flush {
        table: Option<TableId>,
    },
    Swap {
        a: TableId,
        b: TableId,
    },
}

pub type FrontHandler = fn(&mut Ctx<'_>, &Args<'_>) -> Result<Answer, ClientError>;

/// A command that is not about the data of its keys.
pub struct FrontCommand {
    pub spec: Spec,
    pub run: FrontHandler,
}

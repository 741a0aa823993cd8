//! A connection without a socket and cores without shards, for the tests of this room.

use super::all;
use crate::config::Config;
use crate::error::ClientError;
use crate::front::gate;
use crate::front::node::{CoreAddress, Node, NodeShared, Place, SlotMap};
use crate::front::session::Session;
use crate::front::table::{CommandTable, Run};
use crate::front::{Answer, Ctx};
use crate::replica::status::Status;
use crate::resp::args::{Args, Span};
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, Tell};
use crate::slot::placement::Placement;
use crate::slot::{CLUSTER_SLOTS, CoreId, SlotHash};
use bytes::Bytes;
use std::sync::Arc;

pub const NOW_MS: u64 = 1_700_000_060_500;

pub struct Bench {
    pub session: Session,
    pub node: Node,
    pub now_ms: u64,
}

impl Bench {
    /// Two cores with two shards, in classic mode.
    pub fn new() -> Bench {
        Bench::with(SlotHash::Crc32 { slots: 1024 }, 2)
    }

    pub fn cluster(cores: u16) -> Bench {
        let mut bench = Bench::with(SlotHash::Crc16, cores);
        assert_eq!(bench.node.map.slots(), u32::from(CLUSTER_SLOTS));
        let address = |core: u16| CoreAddress {
            core: CoreId(core),
            id: core.to_string().repeat(40),
            port: 9222 + core,
        };
        bench.node.addresses = (0..cores).map(address).collect();
        bench
    }

    fn with(hash: SlotHash, cores: u16) -> Bench {
        let place = Place {
            core: CoreId(0),
            cores,
            hash,
            map: SlotMap::new(Placement::even(hash.slots(), cores), (0..cores).map(CoreId).collect()),
            assigned: None,
            config_file: None,
            run_id: "abcdef0123".repeat(4),
            addresses: Vec::new(),
        };
        let config = Arc::new(Config { memory_budget: 1 << 30, ..Config::default() });
        let mut node = Node::new(place, config, NodeShared::default(), NOW_MS - 60_000);
        node.last_save_s = 1_700_000_000;
        Bench { session: session(), node, now_ms: NOW_MS }
    }

    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(Arc::make_mut(&mut self.node.config));
    }

    pub fn set_status(&mut self, status: Status) {
        *self.node.status() = status;
    }

    /// Runs a call whose words stand apart by single spaces, with the gate's check of their number.
    pub fn answer(&mut self, call: &str) -> Result<Answer, ClientError> {
        let words: Vec<_> = call.split(' ').collect();
        let mut spans = Vec::new();
        let mut start = 0;
        for word in &words {
            spans.push(Span { start, len: word.len() as u32 });
            start += word.len() as u32 + 1;
        }
        let args = Args::new(call.as_bytes(), &spans);
        let command = all().find(|command| args.is(0, command.spec.name)).expect("a command of this room");
        gate::right_arity(&CommandTable::default(), Run::Front(command), &args)?;
        let mut ctx = Ctx { session: &mut self.session, node: &mut self.node, now_ms: self.now_ms };
        (command.run)(&mut ctx, &args)
    }

    /// The reply as text; "asks" for a command that wants to know something of other cores first.
    pub fn run(&mut self, call: &str) -> String {
        match self.answer(call) {
            Ok(Answer::AskAll(..) | Answer::AskOne(..) | Answer::AskThen(..)) => "asks".into(),
            answer => self.finish(answer, &mut |_| unreachable!("taken above")),
        }
    }

    /// The reply as text, the other cores answering as told.
    pub fn run_with(&mut self, call: &str, mut tell: impl FnMut(&Ask) -> Vec<Tell>) -> String {
        let answer = self.answer(call);
        self.finish(answer, &mut tell)
    }

    fn finish(
        &mut self,
        answer: Result<Answer, ClientError>,
        tell: &mut dyn FnMut(&Ask) -> Vec<Tell>,
    ) -> String {
        let mut ctx = Ctx { session: &mut self.session, node: &mut self.node, now_ms: self.now_ms };
        match answer {
            Err(error) => show(&Reply::Error(error)),
            Ok(Answer::Reply(reply) | Answer::Background(reply, ..)) => show(&reply),
            Ok(Answer::Close(reply)) => format!("close {}", show(&reply)),
            Ok(Answer::AskAll(ask, fold) | Answer::AskOne(_, ask, fold)) => show(&fold(&mut ctx, tell(&ask))),
            Ok(Answer::AskThen(ask, then)) => {
                let answer = then(&mut ctx, tell(&ask));
                self.finish(answer, tell)
            }
            Ok(Answer::WholeTables(change)) => format!("{change:?}"),
            Ok(Answer::AtTime { until_ms, reply }) => {
                format!("in {} ms {}", until_ms - self.now_ms, show(&reply))
            }
            Ok(Answer::Monitor) => "monitor".into(),
            Ok(Answer::Follower(peer)) => format!("follower {}", peer.word()),
            Ok(Answer::Shutdown { hurry }) => format!("shutdown {hurry}"),
        }
    }
}

/// Connection 7: a minute old, idle for half of it.
pub fn session() -> Session {
    Session {
        authenticated: true,
        fd: 12,
        last_command_ms: NOW_MS - 30_000,
        last_command: "ping",
        commands: 3,
        ..Session::new(7, "127.0.0.1:50000".into(), "127.0.0.1:9221".into(), NOW_MS - 60_500)
    }
}

/// A short form of a reply that tells its kinds apart where tests care.
pub fn show(reply: &Reply) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let list = |items: &[Reply]| items.iter().map(show).collect::<Vec<_>>().join(", ");
    match reply {
        Reply::Ok => "OK".into(),
        Reply::Nil => "nil".into(),
        Reply::Long(_) => "long".into(),
        Reply::Blocked(blocked) => format!("waits {} ms", blocked.timeout_ms),
        Reply::NilArray => "nil array".into(),
        Reply::Int(number) => format!(":{number}"),
        Reply::Simple(word) => format!("+{word}"),
        Reply::Bulk(bytes) => text(bytes),
        Reply::Error(error) => format!("-{}", error.0),
        Reply::Array(items) => format!("[{}]", list(items)),
        Reply::Set(items) | Reply::Push(items) => format!("~[{}]", list(items)),
        Reply::Map(pairs) | Reply::Pairs(pairs) | Reply::Keyed(pairs) => {
            let pairs: Vec<_> =
                pairs.iter().map(|(key, value)| format!("{}: {}", show(key), show(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Reply::Digits(digits) => text(digits),
        Reply::Double(number) => number.to_string(),
        Reply::Bool(value) => value.to_string(),
        Reply::Verbatim(bytes) => format!("txt:{}", text(bytes)),
        Reply::Ready(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Silent => "silent".into(),
    }
}

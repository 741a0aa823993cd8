//! What a command is: a row of facts first, a plain function below. One file per Redis group.
//!
//! Handlers here are synchronous functions over `Tx`; they know no socket, core, clock or RocksDB.
//! Commands about the connection or the server have rows of the same kind in `front`.

use crate::error::{ClientError, Stop};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::slot::TableId;
use crate::store::NAME_MAX_BYTES;
use crate::store::effects::Origin;
use crate::store::tx::Tx;
use smallvec::SmallVec;

pub mod answer;
pub mod bitmap;
pub mod dump;
pub mod expire;
pub mod geo;
pub mod hash;
pub mod hash_expire;
pub mod hyperloglog;
pub mod keyspace;
pub mod lcs;
pub mod list;
pub mod list_move;
pub mod memory;
pub mod object;
pub mod options;
pub mod pika;
pub mod set;
pub mod sort;
pub mod stream;
pub mod string;
pub mod zset;
pub mod zset_combine;
pub mod zset_range;

/// Properties that the gate and the planner read instead of asking a handler.
pub mod flag {
    /// Changes data.
    pub const WRITE: u32 = 1;
    pub const READONLY: u32 = 1 << 1;
    pub const DENYOOM: u32 = 1 << 2;
    pub const ADMIN: u32 = 1 << 3;
    pub const FAST: u32 = 1 << 4;
    pub const NO_AUTH: u32 = 1 << 5;
    pub const LOADING: u32 = 1 << 6;
    pub const STALE: u32 = 1 << 7;
    pub const NOSCRIPT: u32 = 1 << 8;
    pub const BLOCKING: u32 = 1 << 9;
    /// Needs the values of its keys, not only their rows, when they lie on several shards.
    pub const WHOLE_VALUES: u32 = 1 << 10;
    /// As `WHOLE_VALUES`, of keys that may hold collections.
    pub const ANY_VALUES: u32 = 1 << 16;
    /// Its reply may be sent while it is made.
    pub const LONG_REPLY: u32 = 1 << 17;
    /// Errors name a subcommand as one word with its family, as in Pika.
    pub const ONE_WORD: u32 = 1 << 18;
    pub const PUBSUB: u32 = 1 << 11;
    pub const DANGEROUS: u32 = 1 << 12;
    pub const ALLOW_BUSY: u32 = 1 << 13;
    pub const SKIP_MONITOR: u32 = 1 << 14;
    pub const NO_MULTI: u32 = 1 << 15;
}

/// One key a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyArg {
    /// Index into the arguments.
    pub arg: usize,
    /// Another table than the connection's, as in `COPY ... DB n`.
    pub table: Option<TableId>,
}

pub type KeyArgs = SmallVec<[KeyArg; 2]>;

pub type FindKeys = fn(&Args<'_>) -> Result<KeyArgs, ClientError>;

/// How a command's keys are found among its arguments.
#[derive(Clone, Copy)]
pub enum Keys {
    None,
    /// Redis's triple; a negative `last` counts from the end.
    Span {
        first: usize,
        last: i32,
        step: usize,
    },
    /// For commands that name a second table, or whose keys stand elsewhere.
    Find(FindKeys),
    /// As `Find`; where `beyond` says so, the command also reads keys that only the data names.
    Beyond {
        find: FindKeys,
        beyond: fn(&Args<'_>) -> bool,
    },
}

impl Keys {
    /// Whether the command also reads keys that only the data names.
    pub fn go_beyond(&self, args: &Args<'_>) -> bool {
        matches!(self, Keys::Beyond { beyond, .. } if beyond(args))
    }

    /// The keys of a command whose arity has been checked.
    pub fn of(&self, args: &Args<'_>) -> Result<KeyArgs, ClientError> {
        match *self {
            Keys::None => Ok(KeyArgs::new()),
            Keys::Span { first, last, step } => {
                let last =
                    if last < 0 { (args.len() as i64 + i64::from(last)) as usize } else { last as usize };
                Ok((first..=last).step_by(step).map(|arg| KeyArg { arg, table: None }).collect())
            }
            Keys::Find(find) | Keys::Beyond { find, .. } => find(args),
        }
    }
}

/// Redis's command groups, as `COMMAND DOCS` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    String,
    Bitmap,
    HyperLogLog,
    Hash,
    List,
    Set,
    SortedSet,
    Geo,
    Stream,
    Generic,
    Connection,
    Server,
    Cluster,
}

impl Group {
    /// The row of a command on one key, its first argument, with its function.
    #[expect(clippy::too_many_arguments, reason = "a row of a table, each of its columns once")]
    const fn row(
        self,
        name: &'static str,
        arity: i32,
        flags: u32,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
        run: Handler,
    ) -> KeyCommand {
        KeyCommand {
            spec: Spec { name, arity, flags, since, complexity, summary, group: self, ..ONE_KEY },
            run,
        }
    }
}

/// What is known of a command without running it.
pub struct Spec {
    /// Lower case.
    pub name: &'static str,
    /// Redis's: exact when positive, at least when negative; the name counts.
    pub arity: i32,
    pub flags: u32,
    pub keys: Keys,
    pub group: Group,
    pub since: &'static str,
    pub complexity: &'static str,
    pub summary: &'static str,
    pub subcommands: &'static [Spec],
}

/// A row of a command on one key, its first argument; each file gives it its group.
const ONE_KEY: Spec = Spec {
    name: "",
    arity: 0,
    flags: 0,
    keys: Keys::Span { first: 1, last: 1, step: 1 },
    group: Group::Generic,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    subcommands: &[],
};

impl Spec {
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub fn arity_allows(&self, count: usize) -> bool {
        let count = count as i64;
        let arity = i64::from(self.arity);
        if arity >= 0 { count == arity } else { count >= -arity }
    }
}

/// A field, member or group as a collection can hold it.
fn name_fits(name: &[u8]) -> Result<&[u8], ClientError> {
    if name.len() <= NAME_MAX_BYTES { Ok(name) } else { Err(ClientError::NAME_TOO_LONG) }
}

/// Every command on keys.
pub fn all() -> impl Iterator<Item = &'static KeyCommand> {
    [
        string::COMMANDS,
        bitmap::COMMANDS,
        hyperloglog::COMMANDS,
        hash::COMMANDS,
        hash_expire::COMMANDS,
        set::COMMANDS,
        dump::COMMANDS,
        lcs::COMMANDS,
        list::COMMANDS,
        list_move::COMMANDS,
        zset::COMMANDS,
        zset_range::COMMANDS,
        zset_combine::COMMANDS,
        geo::COMMANDS,
        sort::COMMANDS,
        keyspace::COMMANDS,
        expire::COMMANDS,
        object::COMMANDS,
        memory::COMMANDS,
        pika::COMMANDS,
        stream::COMMANDS,
        stream::read::COMMANDS,
        stream::group::COMMANDS,
        stream::claim::COMMANDS,
        stream::info::COMMANDS,
    ]
    .into_iter()
    .flatten()
}

/// Runs a command on the data of its keys.
pub type Handler = fn(&mut Tx<'_>, &Args<'_>) -> Result<Reply, Stop>;

/// A command on keys: its facts and its function.
pub struct KeyCommand {
    pub spec: Spec,
    pub run: Handler,
}

impl KeyCommand {
    /// The same with its keys elsewhere than in the first argument.
    const fn with_keys(self, keys: Keys) -> KeyCommand {
        KeyCommand { spec: Spec { keys, ..self.spec }, ..self }
    }

    /// What its records in the log are marked with.
    pub fn origin(&self) -> Origin {
        match self.spec.group {
            Group::String | Group::Bitmap | Group::HyperLogLog => Origin::STRING,
            Group::Hash => Origin::HASH,
            Group::List => Origin::LIST,
            Group::Set => Origin::SET,
            Group::SortedSet | Group::Geo => Origin::SORTED_SET,
            Group::Stream => Origin::STREAM,
            _ => Origin::GENERIC,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::resp::args::Span;
    use crate::types::memory::{Memory, scope};

    /// A command line cut at its spaces.
    pub(crate) struct Words {
        bytes: Vec<u8>,
        spans: Vec<Span>,
    }

    impl Words {
        pub(crate) fn new(line: &str) -> Words {
            Words::of(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
        }

        pub(crate) fn of(words: &[&[u8]]) -> Words {
            let mut bytes = Vec::new();
            let mut spans = Vec::new();
            for word in words {
                spans.push(Span { start: bytes.len() as u32, len: word.len() as u32 });
                bytes.extend_from_slice(word);
            }
            Words { bytes, spans }
        }

        pub(crate) fn args(&self) -> Args<'_> {
            Args::new(&self.bytes, &self.spans)
        }
    }

    pub(crate) fn find(words: &Words) -> &'static KeyCommand {
        all().find(|command| words.args().is(0, command.spec.name)).expect("a known command")
    }

    /// Runs commands on data in memory.
    pub(crate) struct Server {
        pub memory: Memory,
        pub table: TableId,
        pub scope: crate::store::tx::Scope,
    }

    impl Default for Server {
        fn default() -> Server {
            Server { memory: Memory::default(), table: TableId(0), scope: scope() }
        }
    }

    impl Server {
        pub(crate) fn run(&mut self, line: &str) -> Reply {
            self.run_words(&Words::new(line))
        }

        pub(crate) fn run_words(&mut self, words: &Words) -> Reply {
            let command = find(words);
            let scope = crate::store::tx::Scope { table: self.table, ..self.scope };
            match self.memory.run(scope, |tx| (command.run)(tx, &words.args())).0 {
                // Nobody waits here.
                Ok(Reply::Blocked(blocked)) => blocked.otherwise,
                Ok(reply) => reply,
                Err(Stop::Client(error)) => Reply::Error(error),
                Err(stop) => panic!("memory answers everything: {stop:?}"),
            }
        }

        #[track_caller]
        pub(crate) fn ok(&mut self, line: &str) {
            assert_eq!(self.run(line), Reply::Ok, "{line}");
        }

        #[track_caller]
        pub(crate) fn int(&mut self, line: &str, expected: i64) {
            assert_eq!(self.run(line), Reply::Int(expected), "{line}");
        }
    }

    #[test]
    fn rows_are_whole_and_names_unique() {
        let mut names: Vec<_> = all().map(|command| command.spec.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for spec in all().flat_map(|command| std::iter::once(&command.spec).chain(command.spec.subcommands)) {
            assert!(spec.arity != 0 && !spec.summary.is_empty() && !spec.since.is_empty(), "{}", spec.name);
            assert!(!(spec.has(flag::WRITE) && spec.has(flag::READONLY)), "{}", spec.name);
        }
    }
}

//! The one table of commands: found by name in any case, listed by COMMAND.

use super::{FrontCommand, admin};
use crate::command::{self, KeyCommand, Keys, Spec};
use crate::resp::args::Args;
use rustc_hash::FxHashMap;

/// What runs a command.
#[derive(Clone, Copy)]
pub enum Run {
    Keys(&'static KeyCommand),
    Front(&'static FrontCommand),
}

impl Run {
    pub fn spec(self) -> &'static Spec {
        match self {
            Run::Keys(command) => &command.spec,
            Run::Front(command) => &command.spec,
        }
    }
}

/// Longest command name; a longer word is unknown without looking.
const NAME_MAX_BYTES: usize = 32;

pub struct CommandTable {
    by_name: FxHashMap<&'static [u8], Run>,
}

impl Default for CommandTable {
    fn default() -> Self {
        let keys = command::all().map(Run::Keys);
        let front = admin::all().map(Run::Front);
        CommandTable { by_name: keys.chain(front).map(|run| (run.spec().name.as_bytes(), run)).collect() }
    }
}

impl CommandTable {
    pub fn find(&self, name: &[u8]) -> Option<Run> {
        let mut lower = [0; NAME_MAX_BYTES];
        let lower = lower.get_mut(..name.len())?;
        for (to, from) in lower.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        self.by_name.get(&*lower).copied()
    }

    /// As `find`, for a whole command: a subcommand about a key (MEMORY USAGE) is a command of its own,
    /// whatever the rest of its family is about.
    pub fn find_call(&self, args: &Args<'_>) -> Option<Run> {
        let run = self.find(args.get(0))?;
        let Run::Front(command) = run else { return Some(run) };
        let about_key = |sub: &&Spec| !matches!(sub.keys, Keys::None) && args.is(1, sub.name);
        if args.len() < 2 || !command.spec.subcommands.iter().any(|sub| about_key(&sub)) {
            return Some(run);
        }
        let name = format!("{}|{}", command.spec.name, String::from_utf8_lossy(args.get(1)));
        self.find(name.as_bytes())
    }

    /// The row that says how many arguments this call may have: of the subcommand where there is one.
    pub fn spec_of(&self, run: Run, args: &Args<'_>) -> Option<&'static Spec> {
        let spec = run.spec();
        if spec.subcommands.is_empty() || args.len() < 2 {
            return Some(spec);
        }
        spec.subcommands.iter().find(|sub| args.is(1, sub.name))
    }
}

/// Every command of the table, by name; subcommands stand in their family's row.
pub fn specs() -> Vec<&'static Spec> {
    let keys = command::all().map(|command| &command.spec).filter(|spec| !spec.name.contains('|'));
    let front = admin::all().map(|command| &command.spec);
    let mut specs: Vec<_> = keys.chain(front).collect();
    specs.sort_by_key(|spec| spec.name);
    specs
}

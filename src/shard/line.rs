//! The order of one connection's commands at one owner: reads may overtake waiting reads, nothing
//! overtakes a waiting write, and a write waits for all before it.

use super::mesh::{LineId, OwnedCall};
use crate::command::flag;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

#[derive(Default)]
struct Line {
    reads: u32,
    writes: u32,
    queue: VecDeque<(u64, OwnedCall)>,
}

impl Line {
    fn holds_back(&self, write: bool) -> bool {
        self.writes > 0 || (write && self.reads > 0)
    }
}

/// Lines with something waiting; a connection whose commands all run at once has none.
#[derive(Default)]
pub struct Lines {
    lines: FxHashMap<LineId, Line>,
}

impl Lines {
    pub fn holds_back(&self, line: LineId, write: bool) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        self.lines.get(&line).is_some_and(|line| !line.queue.is_empty() || line.holds_back(write))
    }

    /// Whether any of the commands that are queued is such a one.
    pub fn any(&self, is_such: impl Fn(&OwnedCall) -> bool) -> bool {
        self.lines.values().any(|line| line.queue.iter().any(|(_, call)| is_such(call)))
    }

    pub fn queue(&mut self, line: LineId, seq: u64, call: OwnedCall) {
        self.lines.entry(line).or_default().queue.push_back((seq, call));
    }

    /// A command of this line waits from now on.
    pub fn begin(&mut self, line: LineId, write: bool) {
        let line = self.lines.entry(line).or_default();
        if write { line.writes += 1 } else { line.reads += 1 }
    }

    /// A command that waited, or that `next` gave out, has ended.
    pub fn end(&mut self, id: LineId, write: bool) {
        let line = self.lines.get_mut(&id).expect("a command that waits has a line");
        if write {
            line.writes -= 1
        } else {
            line.reads -= 1
        }
        if line.reads == 0 && line.writes == 0 && line.queue.is_empty() {
            self.lines.remove(&id);
        }
    }

    /// The next queued command that may run now; it counts as begun.
    pub fn next(&mut self, id: LineId) -> Option<(u64, OwnedCall)> {
        let line = self.lines.get_mut(&id)?;
        let write = line.queue.front()?.1.command.spec.has(flag::WRITE);
        if line.holds_back(write) {
            return None;
        }
        if write {
            line.writes += 1
        } else {
            line.reads += 1
        }
        line.queue.pop_front()
    }
}

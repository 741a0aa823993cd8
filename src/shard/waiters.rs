//! Connections that wait for a key to get something: BLPOP, XREAD BLOCK and the like.
//!
//! One that waits is woken when its key is written, and asks again; what it finds then is between it and the
//! others. Of several at one list or sorted set the first is woken, and the next when that one is served or
//! goes: so they are served in the order they came. At a stream all are. Knows no command.

use super::mesh::LineId;
use crate::slot::TableId;
use crate::store::row::Kind;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

type Key = (TableId, Bytes);

struct Waiter {
    line: LineId,
    /// It has been woken and has not said yet that it goes on waiting.
    woken: bool,
    /// The key was written since.
    again: bool,
}

#[derive(Default)]
pub struct Waiters {
    by_key: FxHashMap<Key, VecDeque<Waiter>>,
    by_line: FxHashMap<LineId, Vec<Key>>,
    /// To be told, in this order.
    wake: Vec<LineId>,
}

impl Waiters {
    pub fn is_empty(&self) -> bool {
        self.by_line.is_empty()
    }

    /// From now on it waits for these keys too.
    pub fn add(&mut self, line: LineId, keys: Vec<Key>) {
        for key in &keys {
            let waiter = Waiter { line, woken: false, again: false };
            self.by_key.entry(key.clone()).or_default().push_back(waiter);
        }
        self.by_line.entry(line).or_default().extend(keys);
    }

    /// A key was given a value of a type that can be waited for.
    pub fn written(&mut self, table: TableId, name: &Bytes, kind: Kind) {
        if self.by_line.is_empty() || !matches!(kind, Kind::List | Kind::SortedSet | Kind::Stream) {
            return;
        }
        let Some(waiters) = self.by_key.get_mut(&(table, name.clone())) else { return };
        let reached = if kind == Kind::Stream { waiters.len() } else { 1 };
        for waiter in waiters.iter_mut().take(reached) {
            if waiter.woken {
                waiter.again = true;
            } else {
                waiter.woken = true;
                self.wake.push(waiter.line);
            }
        }
    }

    /// It was woken and has found nothing.
    pub fn goes_on(&mut self, line: LineId) {
        for key in self.by_line.get(&line).into_iter().flatten() {
            let waiters = self.by_key.get_mut(key).into_iter().flatten();
            for waiter in waiters.filter(|waiter| waiter.line == line) {
                waiter.woken = waiter.again;
                if std::mem::take(&mut waiter.again) {
                    self.wake.push(line);
                }
            }
        }
    }

    /// It waits no more; whoever is first now is woken, for there may be more to have.
    pub fn remove(&mut self, line: LineId) {
        for key in self.by_line.remove(&line).unwrap_or_default() {
            let Some(waiters) = self.by_key.get_mut(&key) else { continue };
            waiters.retain(|waiter| waiter.line != line);
            match waiters.front_mut() {
                None => drop(self.by_key.remove(&key)),
                Some(first) if !first.woken => {
                    first.woken = true;
                    self.wake.push(first.line);
                }
                Some(_) => {}
            }
        }
    }

    pub fn take_woken(&mut self) -> Vec<LineId> {
        std::mem::take(&mut self.wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::CoreId;

    fn line(conn: u64) -> LineId {
        LineId { core: CoreId(0), conn }
    }

    fn key(name: &'static str) -> Key {
        (TableId(0), Bytes::from_static(name.as_bytes()))
    }

    fn write(waiters: &mut Waiters, name: &'static str, kind: Kind) -> Vec<u64> {
        waiters.written(TableId(0), &Bytes::from_static(name.as_bytes()), kind);
        waiters.take_woken().into_iter().map(|line| line.conn).collect()
    }

    #[test]
    fn at_a_list_one_after_the_other_is_woken() {
        let mut waiters = Waiters::default();
        waiters.add(line(1), vec![key("a"), key("b")]);
        waiters.add(line(2), vec![key("a")]);
        assert_eq!(write(&mut waiters, "a", Kind::String), [0u64; 0]);
        assert_eq!(write(&mut waiters, "a", Kind::List), [1]);
        assert_eq!(write(&mut waiters, "a", Kind::List), [0u64; 0], "it has not looked yet");
        waiters.goes_on(line(1));
        assert_eq!(waiters.take_woken(), [line(1)], "the second push");
        waiters.remove(line(1));
        assert_eq!(waiters.take_woken(), [line(2)]);
        assert_eq!(write(&mut waiters, "b", Kind::List), [0u64; 0]);
        waiters.remove(line(2));
        assert!(waiters.is_empty() && waiters.by_key.is_empty() && waiters.take_woken().is_empty());
    }

    #[test]
    fn at_a_stream_all_are_woken() {
        let mut waiters = Waiters::default();
        waiters.add(line(1), vec![key("s")]);
        waiters.add(line(2), vec![key("s")]);
        assert_eq!(write(&mut waiters, "s", Kind::Stream), [1, 2]);
    }
}

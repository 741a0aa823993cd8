//! Large collections that are gone: remembered until files say so too, then their space is given back, one at a
//! time. Forgotten at a stop, and where there are too many: then their space comes back when RocksDB rewrites
//! their files by age (`store/options.rs`).
//!
//! Must not know why a collection is gone.

use super::jobs::Needs;
use super::owner::Owner;
use super::upkeep::Event;
use super::work::Done;
use crate::limits::{GARBAGE_NAME_MAX_BYTES, GARBAGE_RANGES_MAX};
use crate::metrics::shard::GarbageStats;
use crate::store::row::Version;
use crate::store::{Compacted, DeadElements, Incarnation, StoreError};
use std::collections::VecDeque;

/// While a reader needs what is gone nothing is rewritten for it.
const PINNED_AGAIN_MS: u64 = 1_000;
/// Where files were rewritten and something stayed, they are rewritten again later, and not for ever.
const PARTLY_AGAIN_MS: u64 = 10_000;
const TRIES_MAX: u8 = 3;

/// What one shard knows of.
#[derive(Default)]
pub struct Garbage {
    waiting: VecDeque<Waiting>,
    running: bool,
    next_ms: u64,
    freed: u64,
    left: u64,
}

struct Waiting {
    /// Where in the log it is gone.
    lsn: u64,
    tries: u8,
    dead: DeadElements,
}

impl Garbage {
    /// The record at `lsn` ends this life of a key, and all before it.
    pub fn note(&mut self, lsn: u64, incarnation: Incarnation, name: &[u8], version: Version) {
        if self.waiting.len() >= GARBAGE_RANGES_MAX || name.len() > GARBAGE_NAME_MAX_BYTES {
            self.left += 1;
            return;
        }
        let dead = DeadElements { incarnation, name: name.into(), version };
        self.waiting.push_back(Waiting { lsn, tries: 0, dead });
    }

    /// Something waits for a seal, if files hold everything up to `persisted`.
    pub fn wants_seal(&self, persisted: u64) -> bool {
        self.waiting.back().is_some_and(|waiting| waiting.lsn > persisted)
    }

    pub fn stats(&self) -> GarbageStats {
        GarbageStats { waiting: self.waiting.len() as u64, freed: self.freed, left: self.left }
    }

    pub fn reset_counters(&mut self) {
        (self.freed, self.left) = (0, 0);
    }

    /// The first of which files say that it is gone. It stays the first.
    fn next(&self, persisted: u64, now_ms: u64) -> Option<&DeadElements> {
        let first = self.waiting.front()?;
        (!self.running && now_ms >= self.next_ms && first.lsn <= persisted).then_some(&first.dead)
    }

    fn ended(&mut self, how: Option<Compacted>, now_ms: u64) {
        self.running = false;
        let mut first = self.waiting.pop_front().expect("what is given back stays the first meanwhile");
        match how {
            Some(Compacted::Done) => self.freed += 1,
            Some(Compacted::Pinned) => {
                self.next_ms = now_ms + PINNED_AGAIN_MS;
                self.waiting.push_front(first);
            }
            Some(Compacted::Partly) if first.tries + 1 < TRIES_MAX => {
                self.next_ms = now_ms + PARTLY_AGAIN_MS;
                first.tries += 1;
                self.waiting.push_front(first);
            }
            Some(Compacted::Partly) | None => self.left += 1,
        }
    }
}

impl Owner {
    /// Starts giving space back, if there is some to give. One job on this core, whatever the number of its
    /// shards: each takes a thread of the pool for as long as RocksDB needs.
    pub(super) fn give_space_back(&mut self, at: usize, now_ms: u64) {
        if self.shards.iter().any(|shard| shard.data.garbage.running) {
            return;
        }
        let (data, persisted) = (&mut self.shards[at].data, self.upkeep[at].persisted());
        let Some(dead) = data.garbage.next(persisted, now_ms) else { return };
        let job = data.store.compact_job(dead);
        data.garbage.running = true;
        let run = move || Done::Upkeep { shard: at, event: Event::SpaceGivenBack(job.run()) };
        self.jobs.push_back((Needs::Nothing, Box::new(run)));
    }

    pub(super) fn space_given_back(&mut self, at: usize, result: Result<Compacted, StoreError>) {
        let shard = &mut self.shards[at];
        let how = result
            .inspect_err(|error| {
                tracing::error!(shard = shard.id.0, %error, "giving back the space of a deleted key failed");
            })
            .ok();
        shard.data.garbage.ended(how, self.clock.now_ms());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(names: &[&str]) -> Garbage {
        let mut garbage = Garbage::default();
        for (at, name) in names.iter().enumerate() {
            garbage.note(at as u64 + 1, Incarnation(1), name.as_bytes(), Version(7));
        }
        garbage
    }

    fn next(garbage: &Garbage, persisted: u64, now_ms: u64) -> Option<&[u8]> {
        garbage.next(persisted, now_ms).map(|dead| &dead.name[..])
    }

    #[test]
    fn nothing_is_given_back_before_files_hold_its_end() {
        let mut garbage = noted(&["a", "b"]);
        assert!(garbage.wants_seal(1) && !garbage.wants_seal(2));
        assert_eq!(next(&garbage, 0, 0), None);
        assert_eq!(next(&garbage, 1, 0), Some(&b"a"[..]));
        garbage.ended(Some(Compacted::Done), 0);
        assert_eq!(next(&garbage, 1, 0), None);
        assert_eq!(next(&garbage, 2, 0), Some(&b"b"[..]));
    }

    #[test]
    fn what_a_reader_holds_up_waits_and_what_stays_is_not_tried_for_ever() {
        let mut garbage = noted(&["a"]);
        for _ in 0..100 {
            garbage.ended(Some(Compacted::Pinned), 5);
        }
        assert_eq!(next(&garbage, 1, 5), None);
        assert_eq!(next(&garbage, 1, 5 + PINNED_AGAIN_MS), Some(&b"a"[..]));
        for _ in 0..TRIES_MAX {
            assert_eq!(garbage.stats(), GarbageStats { waiting: 1, freed: 0, left: 0 });
            garbage.ended(Some(Compacted::Partly), 5);
        }
        assert_eq!(garbage.stats(), GarbageStats { waiting: 0, freed: 0, left: 1 });
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let mut garbage = noted(&["x"; GARBAGE_RANGES_MAX + 3]);
        garbage.note(1, Incarnation(1), &[b'x'; GARBAGE_NAME_MAX_BYTES + 1], Version(7));
        assert_eq!(garbage.stats(), GarbageStats { waiting: GARBAGE_RANGES_MAX as u64, freed: 0, left: 4 });
    }
}

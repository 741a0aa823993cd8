//! What a node keeps before it drops it, against what it should: every position knows what it was written behind.

use super::World;
use crate::binlog::{Lsn, Touch};
use crate::replica::follower;
use crate::replica::history::{Diverged, Tail, Tails};
use crate::replica::keys::{Keys, Rewind};
use crate::replica::position::{Position, SlotName};
use crate::slot::ShardId;
use rand::Rng;
use rustc_hash::{FxHashMap, FxHashSet};

impl World {
    /// As a node does it; sometimes its disk is full.
    pub(super) fn keep_dropped(
        &mut self,
        at: usize,
        slots: Vec<Diverged>,
        ends: &[(ShardId, Lsn)],
    ) -> follower::Event {
        if self.rng.random_bool(0.1) {
            return follower::Event::NotKept { why: "no room".into() };
        }
        let mut tails = Tails::new(slots.clone());
        let mut keys = Keys::of(slots.iter().map(|diverged| diverged.slot));
        let mut kept: FxHashMap<SlotName, Vec<Touch>> = FxHashMap::default();
        let entries = || self.nodes[at].shards.iter().flat_map(|shard| &shard.log);
        for shard in &self.nodes[at].shards {
            assert!(ends.contains(&(shard.id, shard.last)), "nothing comes while it keeps");
        }
        for entry in entries() {
            tails.look(entry.logged.lsn, &entry.logged.touches, entry.is_copy());
        }
        tails.find_forks();
        for entry in entries() {
            let (lsn, own) = (entry.logged.lsn, |term| term == entry.term);
            let dropped = tails.dropped(lsn, &entry.logged.touches, entry.is_copy(), own);
            keys.note(&dropped, &entry.logged.body);
            for touch in dropped {
                kept.entry((touch.table, touch.slot)).or_default().push(touch);
            }
        }
        let tails = tails.tails();
        for diverged in &slots {
            let tail = tails.iter().find(|tail| tail.slot == diverged.slot);
            let kept = kept.remove(&diverged.slot).unwrap_or_default();
            assert_eq!(kept.len() as u64, tail.map_or(0, |tail| tail.records));
            self.dropped += kept.len() as u64;
            self.incomplete += u64::from(tail.is_some_and(|tail| tail.incomplete));
            self.check_kept(at, diverged, tail, &kept);
        }
        assert!(kept.is_empty(), "of other slots");
        let rewind = |tail: &Tail| {
            let fork = tail.fork.at.filter(|_| !tail.incomplete)?;
            Some(Rewind { slot: tail.slot, fork, keys: keys.take(tail.slot)? })
        };
        follower::Event::Kept { rewinds: tails.iter().filter_map(rewind).collect() }
    }

    /// The records of a slot that led to this position, the last first.
    fn history(&self, slot: SlotName, mut at: Position) -> Vec<(Position, Touch)> {
        let mut records = Vec::new();
        while at.index > 0 {
            let (behind, touch) = self.written_behind[&(slot, at)];
            records.push((at, touch));
            at = behind;
        }
        records
    }

    fn check_kept(&self, at: usize, diverged: &Diverged, tail: Option<&Tail>, kept: &[Touch]) {
        let Diverged { slot, has, primarys } = diverged;
        // The last of the primary's own history that it has told; or nothing, if it has told nothing.
        let told = primarys.ends.last().copied().unwrap_or_default();
        let own = self.history(*slot, *has);
        let theirs: FxHashSet<(u64, u64)> = self.touched(*slot, told);
        let key = |touch: &Touch| (touch.index, touch.term);
        let mut dropped: Vec<Touch> =
            own.iter().map(|(_, touch)| *touch).filter(|touch| !theirs.contains(&key(touch))).collect();
        dropped.reverse();
        let Some(tail) = tail else {
            assert!(dropped.is_empty(), "node {at}, {slot:?}: {dropped:?} is dropped without a word");
            return;
        };
        let known = tail.fork.at.is_some();
        if known && !tail.incomplete {
            assert_eq!(kept, dropped, "node {at}, {slot:?}, {tail:?}");
        }
        let certain = kept.iter().filter(|touch| known || touch.index > tail.fork.behind);
        for touch in certain {
            assert!(dropped.contains(touch), "node {at}, {slot:?}: {touch:?} is in the primary's history");
        }
    }

    /// Every record in the history of a slot that its primary's log ends with at this record.
    fn touched(&self, slot: SlotName, last: Position) -> FxHashSet<(u64, u64)> {
        let is_last = |(position, touch): &(Position, Touch)| {
            (touch.index, touch.term) == (last.index, last.term) || *position == last
        };
        let positions = self.written_behind.iter().filter(|((of, _), _)| *of == slot);
        let found = positions.map(|((_, at), (_, touch))| (*at, *touch)).find(is_last);
        let history = found.map(|(at, _)| self.history(slot, at)).unwrap_or_default();
        history.into_iter().map(|(_, touch)| (touch.index, touch.term)).collect()
    }
}

//! Which shard of a node has a slot: the same for every table.
//!
//! Slots are spread evenly until shards are added or slots moved; from then on the map is kept in the data directory
//! (`server/FORMAT.md`). Pure. Must not know how slots move.

use super::set::{self, SlotSet};
use super::{ShardId, Slot, from_kept};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Version of the kept form; others are refused.
const FORMAT: u32 = 1;

/// The shard of every slot. A copy costs a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    shards: u16,
    /// By slot.
    of: Arc<[ShardId]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    shard: Vec<KeptShard>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptShard {
    id: u16,
    slots: String,
}

impl Placement {
    /// Contiguous runs of slots, shard by shard.
    pub fn even(slots: u16, shards: u16) -> Placement {
        assert!(slots > 0 && shards > 0, "a node has slots and shards");
        let shard = |slot: u16| ShardId((u32::from(slot) * u32::from(shards) / u32::from(slots)) as u16);
        Placement { shards, of: (0..slots).map(shard).collect() }
    }

    /// Slots of one table.
    pub fn slots(&self) -> u16 {
        self.of.len() as u16
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    pub fn shard_count(&self) -> u16 {
        self.shards
    }

    pub fn shard_of(&self, slot: Slot) -> ShardId {
        self.of[usize::from(slot.0)]
    }

    /// All slots of a shard: none, where it is new or has given them away.
    pub fn slots_of(&self, shard: ShardId) -> SlotSet {
        let all = (0..self.slots()).map(Slot);
        all.filter(|slot| self.shard_of(*slot) == shard).collect()
    }

    /// The last of the slots from this one on that lie side by side on its shard.
    pub fn end_of_run(&self, from: Slot) -> Slot {
        let shard = self.shard_of(from);
        let others = self.of[usize::from(from.0)..].iter().position(|of| *of != shard);
        others.map_or(Slot(self.slots() - 1), |behind| Slot(from.0 + behind as u16 - 1))
    }

    /// The same with more shards, which have no slots yet.
    pub fn grown(&self, shards: u16) -> Placement {
        assert!(shards >= self.shards, "a shard has data");
        Placement { shards, of: self.of.clone() }
    }

    /// The same with these slots on this shard, which there is.
    pub fn moved(&self, slots: &SlotSet, to: ShardId) -> Placement {
        assert!(to.0 < self.shards, "slots move to shards of this node");
        let place = |(slot, of): (usize, &ShardId)| match slots.contains(&Slot(slot as u16)) {
            true => to,
            false => *of,
        };
        Placement { shards: self.shards, of: self.of.iter().enumerate().map(place).collect() }
    }

    /// As it is kept.
    pub fn to_toml(&self) -> String {
        let mut by_shard: BTreeMap<ShardId, SlotSet> = BTreeMap::new();
        for (slot, shard) in self.of.iter().enumerate() {
            by_shard.entry(*shard).or_default().insert(Slot(slot as u16));
        }
        let shard = |(id, slots): (&ShardId, &SlotSet)| KeptShard { id: id.0, slots: set::shown(slots) };
        let kept = Kept { format: FORMAT, shard: by_shard.iter().map(shard).collect() };
        toml::to_string(&kept).expect("plain tables can be written")
    }

    /// Reads what `to_toml` has written, of a node with so many slots and shards.
    ///
    /// # Errors
    /// What is wrong with the text, or where it is of another node.
    pub fn from_toml(text: &str, slots: u16, shards: u16) -> Result<Placement, String> {
        let kept: Kept = from_kept(text, FORMAT)?;
        let mut of: Vec<Option<ShardId>> = vec![None; usize::from(slots)];
        for KeptShard { id, slots: named } in kept.shard {
            if id >= shards {
                return Err(format!("it names shard {id}, and there are {shards}"));
            }
            let named = set::parse(named.as_bytes(), slots)
                .map_err(|_| format!("{named:?}, of shard {id}, names no slots below {slots}"))?;
            for slot in named {
                if of[usize::from(slot.0)].replace(ShardId(id)).is_some() {
                    return Err(format!("slot {} stands there twice", slot.0));
                }
            }
        }
        if let Some(slot) = of.iter().position(Option::is_none) {
            return Err(format!("slot {slot} stands nowhere"));
        }
        Ok(Placement { shards, of: of.into_iter().flatten().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_slot_has_one_shard_and_the_shards_slots_agree() {
        for (slots, shards) in [(1024u16, 1u16), (1024, 2), (1024, 7), (16384, 3), (4, 9)] {
            let placement = Placement::even(slots, shards);
            let mut seen = 0;
            for shard in placement.shards() {
                let of = placement.slots_of(shard);
                seen += of.len();
                assert!(set::ranges(&of).len() <= 1, "an even placement has runs");
                for slot in of {
                    assert_eq!(placement.shard_of(slot), shard, "{slots}/{shards} slot {}", slot.0);
                }
            }
            assert_eq!(seen, usize::from(slots));
        }
    }

    #[test]
    fn new_shards_are_empty_and_old_slots_stay() {
        let before = Placement::even(16, 2);
        let after = before.grown(5);
        assert_eq!(after.shard_count(), 5);
        for slot in (0..16).map(Slot) {
            assert_eq!(after.shard_of(slot), before.shard_of(slot));
        }
        assert!((2..5).all(|shard| after.slots_of(ShardId(shard)).is_empty()));
        assert_ne!(after, Placement::even(16, 5), "so it must be kept");
    }

    #[test]
    fn runs_end_where_another_shard_begins() {
        let placement = Placement::even(8, 2).moved(&SlotSet::from([Slot(1), Slot(6)]), ShardId(1));
        let ends: Vec<u16> = (0..8).map(|slot| placement.end_of_run(Slot(slot)).0).collect();
        assert_eq!(ends, [0, 1, 3, 3, 7, 7, 7, 7]);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_as_the_same(
            slots in 1u16..300,
            moves in proptest::collection::vec((0u16..300, 0u16..5), 0..60),
        ) {
            let mut placement = Placement::even(slots, 5);
            for (slot, shard) in moves {
                placement = placement.moved(&SlotSet::from([Slot(slot % slots)]), ShardId(shard));
            }
            prop_assert_eq!(Placement::from_toml(&placement.to_toml(), slots, 5), Ok(placement));
        }
    }

    #[test]
    fn texts_that_place_a_slot_twice_or_nowhere_are_refused() {
        let read = |text: &str| Placement::from_toml(text, 4, 2).map(|_| ());
        let shards = |a: &str, b: &str| {
            format!("format = 1\n[[shard]]\nid = 0\nslots = {a:?}\n[[shard]]\nid = 1\nslots = {b:?}\n")
        };
        assert_eq!(read(&shards("0-1", "2-3")), Ok(()));
        assert_eq!(read(&shards("0-2", "2-3")), Err("slot 2 stands there twice".into()));
        assert_eq!(read(&shards("0", "2-3")), Err("slot 1 stands nowhere".into()));
        assert!(read(&shards("0-1", "2-4")).is_err_and(|why| why.contains("no slots below 4")));
        assert!(read(&shards("0-1", "")).is_err());
        assert_eq!(
            read("format = 1\n[[shard]]\nid = 2\nslots = \"0-3\"\n"),
            Err("it names shard 2, and there are 2".into())
        );
        assert!(read("format = 2\nshard = []\n").is_err_and(|why| why.contains("has format 2")));
        assert!(read("").is_err());
    }
}

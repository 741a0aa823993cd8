//! How far enough followers are (`consensus-level`), worked out for the cores whenever a follower has said something.
//!
//! Must not know what a core does with it, nor a link.

use super::hub::Hub;
use crate::slot::ShardId;
use crate::slot::set::{self, TableSlots};

/// What is kept from one look to the next.
#[derive(Default)]
pub struct Quorum {
    level: u32,
    /// The followers, by ticket, of slots that this node writes: one group for those with the same.
    groups: Vec<Vec<u64>>,
    /// By shard, how far enough followers have been: what they have acknowledged they have, wherever they are now.
    reached: Vec<u64>,
}

impl Quorum {
    /// How far `level` of each group are, if anything is written here at all.
    fn reached(&mut self, shard: ShardId, applied: impl Fn(u64) -> u64) -> u64 {
        let of_group = |group: &Vec<u64>| {
            let mut all: Vec<u64> = group.iter().map(|ticket| applied(*ticket)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.get(self.level as usize - 1).copied().unwrap_or(0)
        };
        let Some(now) = self.groups.iter().map(of_group).min() else { return u64::MAX };
        let at = usize::from(shard.0);
        if self.reached.len() <= at {
            self.reached.resize(at + 1, 0);
        }
        self.reached[at] = self.reached[at].max(now);
        self.reached[at]
    }
}

impl Hub {
    /// Other slots are written here, or followers follow others than before.
    pub fn regroup(&self) {
        let own = self.slots.as_ref().map(|slots| slots.assigned().own());
        let attached = self.followers.borrow();
        let nodes = attached.iter().filter(|(_, attached)| !attached.is_capture);
        self.quorum.borrow_mut().groups = match own {
            None => vec![nodes.filter(|(_, attached)| attached.has_all).map(|(ticket, _)| *ticket).collect()],
            Some(own) => {
                let followed =
                    nodes.filter_map(|(ticket, attached)| Some((*ticket, attached.slots.as_deref()?)));
                grouped(own, followed)
            }
        };
        drop(attached);
        self.look_at_quorum();
    }

    /// Tells the cores what is news to them.
    pub fn look_at_quorum(&self) {
        let mut quorum = self.quorum.borrow_mut();
        let level = self.config().consensus_level;
        if quorum.level != level {
            quorum.level = level;
            quorum.reached.clear();
        } else if level == 0 {
            return;
        }
        let followers = self.followers.borrow();
        let is_online = |ticket: &&u64| followers.get(ticket).is_some_and(|attached| attached.facts.online);
        let online = |group: &Vec<u64>| group.iter().filter(is_online).count();
        let lacks = quorum.groups.iter().any(|group| online(group) < level as usize);
        let applied = |ticket, shard: ShardId| {
            followers.get(&ticket).map_or(0, |attached| attached.applied[usize::from(shard.0)])
        };
        let shards = self.shards().filter(|_| level > 0);
        let acknowledged: Vec<u64> =
            shards.map(|shard| quorum.reached(shard, |ticket| applied(ticket, shard))).collect();
        if self.published.set_acknowledged(level, lacks, &acknowledged) {
            self.doorbells.iter().for_each(|bell| bell.ring());
        }
    }
}

/// The followers of each slot; slots with the same ones are one group.
fn grouped<'s>(own: TableSlots, followed: impl Iterator<Item = (u64, &'s TableSlots)>) -> Vec<Vec<u64>> {
    let mut groups = vec![(own, Vec::new())];
    for (ticket, followed) in followed {
        let split = |(slots, tickets): (TableSlots, Vec<u64>)| {
            let rest = set::without(&slots, followed);
            let inside = set::without(&slots, &rest);
            let with = tickets.iter().copied().chain([ticket]).collect();
            [(inside, with), (rest, tickets)]
        };
        groups = groups.into_iter().flat_map(split).filter(|(slots, _)| !slots.is_empty()).collect();
    }
    groups.into_iter().filter(|(slots, _)| !slots.is_empty()).map(|(_, tickets)| tickets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Slot, TableId};

    fn slots(range: std::ops::Range<u16>) -> TableSlots {
        [(TableId(0), range.map(Slot).collect())].into_iter().collect()
    }

    #[test]
    fn slots_with_the_same_followers_are_one_group() {
        let (low, high, all) = (slots(0..6), slots(4..10), slots(0..100));
        let mut groups = grouped(slots(0..20), [(1, &low), (2, &high), (3, &all)].into_iter());
        groups.sort();
        assert_eq!(groups, [vec![1, 2, 3], vec![1, 3], vec![2, 3], vec![3]]);
        assert_eq!(grouped(slots(0..5), std::iter::empty()), [Vec::<u64>::new()]);
        assert!(grouped(TableSlots::new(), [(1, &all)].into_iter()).is_empty());
    }

    #[test]
    fn what_enough_followers_have_had_stays_acknowledged() {
        let mut quorum = Quorum { level: 2, groups: vec![vec![1, 2, 3], vec![1, 2]], ..Quorum::default() };
        let shard = ShardId(1);
        assert_eq!(quorum.reached(shard, |ticket| ticket * 10), 10, "two of each group have this much");
        quorum.groups = vec![vec![1, 2, 3]];
        assert_eq!(quorum.reached(shard, |ticket| ticket * 10), 20);
        quorum.groups = vec![vec![1]];
        assert_eq!(
            quorum.reached(shard, |ticket| ticket * 10),
            20,
            "one alone acknowledges nothing, and takes nothing back"
        );
        quorum.groups.clear();
        assert_eq!(quorum.reached(shard, |_| 0), u64::MAX, "nothing is written here");
    }
}

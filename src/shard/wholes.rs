//! Transactions over several shards, as their home shard keeps count of them.
//!
//! Each participant gets consecutive numbers, so that one number says which parts it has. A whole must
//! stay in the log until every participant has its part in its RocksDB.

use crate::binlog::Participant;
use crate::slot::ShardId;
use std::collections::VecDeque;

#[derive(Default)]
pub struct Wholes {
    sent: Vec<(ShardId, u64)>,
    persisted: Vec<(ShardId, u64)>,
    open: VecDeque<(u64, Vec<Participant>)>,
}

impl Wholes {
    /// The next part for this shard.
    pub fn number(&mut self, shard: ShardId) -> u64 {
        let last = entry(&mut self.sent, shard);
        *last += 1;
        *last
    }

    /// At the start: the last number this shard can have been given.
    pub fn resume(&mut self, shard: ShardId, number: u64) {
        let last = entry(&mut self.sent, shard);
        *last = (*last).max(number);
    }

    pub fn open(&mut self, lsn: u64, participants: &[Participant]) {
        self.open.push_back((lsn, participants.to_vec()));
    }

    /// This shard's parts up to `number` are in its RocksDB for good.
    pub fn persisted(&mut self, shard: ShardId, number: u64) {
        let last = entry(&mut self.persisted, shard);
        *last = (*last).max(number);
        while let Some((_, participants)) = self.open.front() {
            let done = |part: &Participant| {
                self.persisted.iter().any(|(shard, last)| *shard == part.shard && *last >= part.number)
            };
            if !participants.iter().all(done) {
                break;
            }
            self.open.pop_front();
        }
    }

    /// The oldest whole that is still needed.
    pub fn floor(&self) -> Option<u64> {
        self.open.front().map(|(lsn, _)| *lsn)
    }
}

fn entry(list: &mut Vec<(ShardId, u64)>, shard: ShardId) -> &mut u64 {
    let at = list.iter().position(|(of, _)| *of == shard).unwrap_or_else(|| {
        list.push((shard, 0));
        list.len() - 1
    });
    &mut list[at].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::Lsn;

    #[test]
    fn a_whole_is_kept_until_all_its_parts_are_persisted() {
        let mut wholes = Wholes::default();
        let (a, b) = (ShardId(1), ShardId(2));
        let part = |wholes: &mut Wholes, shard| Participant {
            shard,
            number: wholes.number(shard),
            after: Lsn::ZERO,
        };
        let first = [part(&mut wholes, a), part(&mut wholes, b)];
        wholes.open(10, &first);
        let second = [part(&mut wholes, b)];
        wholes.open(11, &second);
        wholes.persisted(b, 2);
        assert_eq!(wholes.floor(), Some(10));
        wholes.persisted(a, 1);
        assert_eq!(wholes.floor(), None);
    }
}

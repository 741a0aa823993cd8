//! The end of a shard's log, read once for all who follow it.
//!
//! Who is further behind reads the files alone, and hinders nobody. Must not know who reads.

use super::source::{End, Tail};
use crate::binlog::{LogError, Lsn};
use crate::limits;
use crate::replica::primary::Logged;
use std::collections::VecDeque;
use std::path::PathBuf;

pub struct Recent {
    tail: Tail,
    /// All that stand behind `floor` in the log, up to `upto`.
    records: VecDeque<Logged>,
    floor: Lsn,
    upto: Lsn,
    bytes: usize,
}

impl Recent {
    /// `dir`: the log's.
    pub fn new(dir: PathBuf) -> Recent {
        Recent { tail: Tail::new(dir), records: VecDeque::new(), floor: Lsn::ZERO, upto: Lsn::ZERO, bytes: 0 }
    }

    /// As `Tail::read`. None: what stands at `from` is not kept here any more.
    pub fn read(
        &mut self,
        from: Lsn,
        bytes: usize,
        published: Lsn,
        mut show: impl FnMut(Logged),
    ) -> Option<Result<End, LogError>> {
        if from > self.upto.next() {
            // Nobody was here to read what lies between.
            self.records.clear();
            (self.floor, self.upto, self.bytes) = (from.before(), from.before(), 0);
        }
        if from <= self.floor {
            return None;
        }
        if from > self.upto
            && let Err(end) = self.read_on(bytes, published)
        {
            return Some(end);
        }
        let (mut shown, mut upto) = (0, self.upto);
        let begin = self.records.partition_point(|record| record.lsn < from);
        for record in self.records.range(begin..) {
            if shown >= bytes {
                break;
            }
            shown += record.room_bytes();
            upto = record.lsn;
            show(record.clone());
        }
        self.forget_old();
        Some(Ok(End::UpTo(upto)))
    }

    /// Takes the next records of the log; otherwise how that ended.
    fn read_on(&mut self, bytes: usize, published: Lsn) -> Result<(), Result<End, LogError>> {
        let (records, room) = (&mut self.records, &mut self.bytes);
        let read = self.tail.read(self.upto.next(), bytes, published, |record| {
            *room += record.room_bytes();
            records.push_back(record);
        });
        match read {
            Ok(End::UpTo(lsn)) => {
                self.upto = lsn;
                Ok(())
            }
            // What was read before that is of no use: the next one begins anew.
            failed => {
                (self.floor, self.upto, self.bytes) = (Lsn::ZERO, Lsn::ZERO, 0);
                self.records.clear();
                Err(failed)
            }
        }
    }

    fn forget_old(&mut self) {
        while self.bytes > limits::REPLICA_RECENT_BYTES
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.room_bytes();
            self.floor = oldest.lsn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::{self, FrameMeta, LogOptions, RealDisk, Touch};
    use crate::slot::{ShardId, Slot, TableId};
    use std::path::Path;
    use std::sync::Arc;

    const BODY_BYTES: usize = 64 << 10;
    const RECORDS: u64 = 3 * (limits::REPLICA_RECENT_BYTES / BODY_BYTES) as u64;

    fn write(dir: &Path) {
        let options = LogOptions::new(dir, ShardId(0));
        let opened = binlog::open(Arc::new(RealDisk), options, Lsn::ZERO, None, &mut |_| Ok(()));
        let mut writer = opened.expect("a new log").writer;
        for index in 1..=RECORDS {
            let touches = [Touch { table: TableId(0), slot: Slot(1), index, term: 1 << 50 }];
            let body = vec![index as u8; BODY_BYTES];
            writer.append(&FrameMeta { touches: &touches, txn: None }, 7, &[&body]);
            writer.write().expect("there is room");
        }
    }

    /// The LSNs that are shown, and up to where; None: they are kept no more.
    fn read(recent: &mut Recent, from: u64, records: usize, published: u64) -> Option<(Vec<u64>, u64)> {
        let mut lsns = Vec::new();
        let end = recent.read(Lsn(from), records * BODY_BYTES, Lsn(published), |record| {
            assert_eq!(record.body, vec![record.lsn.0 as u8; BODY_BYTES]);
            lsns.push(record.lsn.0);
        })?;
        let Ok(End::UpTo(upto)) = end else { panic!("the log has all") };
        Some((lsns, upto.0))
    }

    #[test]
    fn what_one_has_read_the_others_are_shown_as_long_as_it_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path());
        let mut recent = Recent::new(dir.path().into());
        assert_eq!(read(&mut recent, 1, 2, 5), Some((vec![1, 2], 2)));
        assert_eq!(read(&mut recent, 3, 9, 5), Some((vec![3, 4, 5], 5)));
        assert_eq!(read(&mut recent, 6, 9, 5), Some((vec![], 5)), "no more is published");
        assert_eq!(read(&mut recent, 2, 2, 5), Some((vec![2, 3], 3)), "another one");
        assert_eq!(read(&mut recent, 4, 9, 6), Some((vec![4, 5], 5)), "what is there comes first");
        assert_eq!(read(&mut recent, 6, 9, 6), Some((vec![6], 6)));
        let mut from = 7;
        while from <= RECORDS {
            from = read(&mut recent, from, 4, RECORDS).expect("the first has all").1 + 1;
        }
        let kept = recent.records.len() as u64;
        assert!(recent.bytes <= limits::REPLICA_RECENT_BYTES && (1..RECORDS / 2).contains(&kept));
        assert_eq!(read(&mut recent, RECORDS - kept, 1, RECORDS), None);
        let oldest = RECORDS - kept + 1;
        assert_eq!(read(&mut recent, oldest, 1, RECORDS), Some((vec![oldest], oldest)));
    }

    #[test]
    fn who_is_ahead_of_all_others_begins_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path());
        let mut recent = Recent::new(dir.path().into());
        assert_eq!(read(&mut recent, 1, 2, RECORDS), Some((vec![1, 2], 2)));
        assert_eq!(read(&mut recent, 9, 1, RECORDS), Some((vec![9], 9)));
        assert_eq!(read(&mut recent, 3, 1, RECORDS), None, "it reads alone");
        assert_eq!(read(&mut recent, 8, 1, RECORDS), None);
        assert_eq!(read(&mut recent, 10, 1, RECORDS), Some((vec![10], 10)));
    }
}

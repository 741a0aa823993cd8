//! Digests of slots as they are at one moment, to be compared with another node's.
//!
//! Must not know who compares them.

use super::hub::Hub;
use crate::limits;
use crate::shard::mesh::{LentShard, Replicate, Replicated};
use crate::slot::ShardId;
use crate::slot::set::{self, TableSlots};
use crate::store::{Digest, StoreError};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;

/// A digest that is being made, by a thread for each shard.
pub struct Digesting(Vec<JoinHandle<Result<Digest, StoreError>>>);

impl Digesting {
    /// As text: what two nodes compare.
    pub async fn done(self) -> Result<String, String> {
        let mut all = Digest::default();
        for shard in self.0 {
            let of_shard = shard.await.map_err(|error| error.to_string())?;
            all += of_shard.map_err(|error| error.to_string())?;
        }
        let Digest { sum, rows, elements } = all;
        Ok(format!("{sum:016x} {rows} {elements}"))
    }
}

/// Digests that somebody is to ask for, by number.
#[derive(Default)]
pub struct Digests {
    begun: RefCell<VecDeque<(u64, Digesting)>>,
}

impl Digests {
    fn keep(&self, number: u64, digesting: Digesting) {
        let mut begun = self.begun.borrow_mut();
        begun.push_back((number, digesting));
        if begun.len() > limits::SLOT_DIGESTS_MAX {
            begun.pop_front();
        }
    }

    pub fn take(&self, number: u64) -> Option<Digesting> {
        let mut begun = self.begun.borrow_mut();
        let at = begun.iter().position(|(of, _)| *of == number)?;
        begun.remove(at).map(|(_, digesting)| digesting)
    }
}

impl Hub {
    /// Takes a snapshot of these slots; when this returns, what is written from now on is not in it. It is of one
    /// moment only if nobody writes them meanwhile.
    pub async fn begin_digest(self: &Rc<Self>, slots: TableSlots) -> Digesting {
        let map = self.place.map();
        let shards: BTreeSet<ShardId> = slots.values().flatten().map(|slot| map.shard_of(*slot)).collect();
        self.begin_digest_of(&shards, false, slots).await
    }

    /// As `begin_digest`, of what these shards have of the slots: of those that lie there, or that are hidden there.
    pub async fn begin_digest_of(
        self: &Rc<Self>,
        shards: &BTreeSet<ShardId>,
        hidden: bool,
        slots: TableSlots,
    ) -> Digesting {
        let lent = self.ask_these(shards, |_| Replicate::Lend { hidden }).await;
        let lent: Vec<LentShard> = lent
            .into_iter()
            .map(|lent| match lent {
                Replicated::Lent(lent) => *lent,
                _ => unreachable!("every shard was asked for a way to read it"),
            })
            .collect();
        let slots = Arc::new(slots);
        let (take, mut taken) = channel(lent.len().max(1));
        let begin = |lent| {
            let (slots, take) = (slots.clone(), take.clone());
            tokio::task::spawn_blocking(move || of_shard(lent, &slots, &take))
        };
        let threads: Vec<_> = lent.into_iter().map(begin).collect();
        drop(take);
        for _ in &threads {
            // None: a thread has failed, which is found when its outcome is looked at.
            taken.recv().await;
        }
        Digesting(threads)
    }

    /// As `begin_digest`, kept until it is asked for by this number.
    pub async fn keep_digest(self: &Rc<Self>, slots: TableSlots) -> u64 {
        let digesting = self.begin_digest(slots).await;
        let number = self.next_ticket();
        self.digests.keep(number, digesting);
        number
    }
}

fn of_shard(lent: LentShard, slots: &TableSlots, taken: &Sender<()>) -> Result<Digest, StoreError> {
    let LentShard { reader, slots: with_data, positions, reading: _reading, .. } = lent;
    let mut all = Digest::default();
    for at in positions.iter().filter(|at| set::holds(slots, at.table, at.slot)) {
        let name = [&at.table.0.to_be_bytes()[..], &at.slot.0.to_be_bytes()].concat();
        all.add(&name, &[at.index.to_be_bytes(), at.term.to_be_bytes()].concat());
    }
    reader.with_snapshot(|view| {
        // Who waits for it may have given up.
        let _ = taken.try_send(());
        for (at, incarnation) in with_data.iter().filter(|(at, _)| set::holds(slots, at.table, at.slot)) {
            let Digest { sum, rows, elements } = view.digest(*incarnation)?;
            all += Digest { sum: 0, rows, elements };
            // Which slot it lies in is part of what it is.
            all.add(&at.slot.0.to_be_bytes(), &sum.to_be_bytes());
        }
        Ok(all)
    })
}

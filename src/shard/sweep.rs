//! Deleting every key of one type that matches a pattern, on the shards of one core: the pool looks for some
//! names, then each is deleted by a command of nobody's connection, which waits as any other does; so on to
//! the end. Nothing is held between two deletions.

use super::jobs::Needs;
use super::mesh::{Call, LineId, SweepAsk, Tell};
use super::owner::Owner;
use super::scan::Ground;
use super::work::Done;
use crate::command::pika::DELETE_OF_KIND;
use crate::resp::args::{Args, Span};
use crate::resp::glob;
use crate::resp::reply::Reply;
use crate::slot::{CoreId, ShardId, Slot};
use crate::store::{Step, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The connection of the deletions: the number of each is its sweep's.
pub(super) const SWEEPER: u64 = u64::MAX - 1;

/// Names looked for at once, and what they may take together.
const NAMES_MAX: usize = 256;
const NAMES_MAX_BYTES: usize = 1 << 20;

/// Where a search has stopped: the slot, and the last name looked at.
type Place = (Slot, Bytes);

pub struct Sweep {
    from: CoreId,
    ticket: u64,
    ask: Arc<SweepAsk>,
    /// The shard that is searched, by where it stands on its core.
    at: usize,
    after: Option<Place>,
    /// To be deleted next, all of one shard.
    names: Vec<Bytes>,
    names_of: usize,
    /// The search, or deletions, that are not answered yet.
    under_way: usize,
    deleted: u64,
    /// By shard: what the answer must wait for in its log.
    positions: Vec<u64>,
    failed: Option<String>,
}

/// Sweeps under way, by their numbers.
#[derive(Default)]
pub struct Sweeps {
    sweeps: BTreeMap<u64, Sweep>,
    next: u64,
}

impl Sweeps {
    pub fn is_empty(&self) -> bool {
        self.sweeps.is_empty()
    }
}

/// What a search has found.
pub struct Swept {
    sweep: u64,
    result: Result<Piece, StoreError>,
}

#[derive(Debug, Default)]
struct Piece {
    names: Vec<Bytes>,
    stopped: Option<Place>,
}

impl Owner {
    pub(super) fn begin_sweep(&mut self, from: CoreId, ticket: u64, ask: Arc<SweepAsk>) {
        let sweep = Sweep {
            from,
            ticket,
            ask,
            at: 0,
            after: None,
            names: Vec::new(),
            names_of: 0,
            under_way: 0,
            deleted: 0,
            positions: vec![0; self.shards.len()],
            failed: None,
        };
        self.sweeps.next += 1;
        self.sweeps.sweeps.insert(self.sweeps.next, sweep);
    }

    /// Moves every sweep on that waits for nothing.
    pub(super) fn advance_sweeps(&mut self) {
        if self.paused_writes {
            return;
        }
        let idle = self.sweeps.sweeps.iter().filter(|(_, sweep)| sweep.under_way == 0);
        for number in idle.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.delete_found(number);
            self.search_on(number);
        }
    }

    fn delete_found(&mut self, number: u64) {
        let sweep = self.sweep(number);
        let (names, ask, at) = (std::mem::take(&mut sweep.names), sweep.ask.clone(), sweep.names_of);
        if names.is_empty() {
            return;
        }
        let shard = self.shards[at].id;
        let line = LineId { core: self.setting.core, conn: SWEEPER };
        self.sweep(number).under_way += names.len();
        for name in names {
            let bytes = [ask.kind.name().as_bytes(), &name[..]].concat();
            let span = |start: usize, end: usize| Span { start: start as u32, len: (end - start) as u32 };
            let kind_end = ask.kind.name().len();
            let spans = [span(0, 0), span(kind_end, bytes.len()), span(0, kind_end)];
            let args = Args::new(&bytes, &spans);
            let call = Call { command: &DELETE_OF_KIND, table: ask.table, shard, args };
            if let Some((reply, position)) = self.run(line, number, &call) {
                self.swept(number, shard, reply, position);
            }
        }
    }

    /// A deletion is answered.
    pub(super) fn swept(&mut self, number: u64, shard: ShardId, reply: Reply, position: u64) {
        let at = self.at(shard);
        let sweep = self.sweep(number);
        sweep.under_way -= 1;
        sweep.positions[at] = sweep.positions[at].max(position);
        match reply {
            Reply::Int(deleted) => sweep.deleted += deleted.unsigned_abs(),
            Reply::Error(error) => {
                sweep.failed = Some(error.0.strip_prefix("ERR ").unwrap_or(&error.0).to_string());
            }
            other => unreachable!("a deletion answers a number: {other:?}"),
        }
    }

    fn search_on(&mut self, number: u64) {
        let shards = self.shards.len();
        let sweep = self.sweep(number);
        if sweep.under_way > 0 || sweep.at == shards || sweep.failed.is_some() {
            return;
        }
        sweep.under_way = 1;
        let (ask, at, after) = (sweep.ask.clone(), sweep.at, sweep.after.clone());
        let ground = self.ground(at, ask.table);
        let now_ms = self.clock.now_ms();
        let job = move || Done::Swept(Swept { sweep: number, result: search(&ground, after, &ask, now_ms) });
        self.jobs.push_back((Needs::Shard(at), Box::new(job)));
    }

    pub(super) fn searched(&mut self, swept: Swept) {
        let sweep = self.sweep(swept.sweep);
        sweep.under_way = 0;
        match swept.result {
            Ok(Piece { names, stopped }) => {
                (sweep.names, sweep.names_of) = (names, sweep.at);
                sweep.at += usize::from(stopped.is_none());
                sweep.after = stopped;
            }
            Err(error) => {
                tracing::error!(%error, "reading keys failed");
                sweep.failed = Some(error.to_string());
            }
        }
    }

    /// Answers the sweeps that are over, as soon as their logs allow it.
    pub(super) fn end_sweeps(&mut self, now_ms: u64) {
        if self.sweeps.is_empty() {
            return;
        }
        let answerable: Vec<_> = self.shards.iter().map(|shard| shard.answerable(now_ms)).collect();
        let over = |_: &u64, sweep: &mut Sweep| {
            let waits = sweep.positions.iter().zip(&answerable).any(|(position, upto)| position > upto);
            let searched = sweep.at == answerable.len() && sweep.names.is_empty();
            sweep.under_way == 0 && (sweep.failed.is_some() || searched) && !waits
        };
        let over: Vec<_> = self.sweeps.sweeps.extract_if(.., over).collect();
        for (_, sweep) in over {
            let tell = match sweep.failed {
                None => Tell::Count(sweep.deleted),
                Some(why) => Tell::Failed(format!("{why} ({} keys are deleted)", sweep.deleted)),
            };
            self.tell(sweep.from, sweep.ticket, tell);
        }
    }

    fn sweep(&mut self, number: u64) -> &mut Sweep {
        self.sweeps.sweeps.get_mut(&number).expect("a sweep ends when nothing of it is under way")
    }
}

/// The next names that match; brings their rows into memory, where the core will look at them.
fn search(ground: &Ground, after: Option<Place>, ask: &SweepAsk, now_ms: u64) -> Result<Piece, StoreError> {
    ground.reader.with_snapshot(|view| {
        let (mut names, mut bytes) = (Vec::new(), 0);
        let begun = |slot: Slot| after.as_ref().filter(|(of, _)| *of == slot).map(|(_, name)| &name[..]);
        let first = after.as_ref().map_or(Slot(0), |(slot, _)| *slot);
        for (slot, incarnation) in ground.slots.iter().filter(|(slot, _)| *slot >= first) {
            let mut rows = view.rows(*incarnation, begun(*slot));
            while let Step::Item(item) = rows.next()? {
                let head = item.head()?;
                let there = head.expire_ms.is_none_or(|at| at > now_ms);
                if !there || head.kind != ask.kind || !glob::matches(&ask.pattern, item.name, false) {
                    continue;
                }
                view.row(*incarnation, item.name)?;
                let name = Bytes::copy_from_slice(item.name);
                bytes += name.len();
                names.push(name.clone());
                if names.len() == NAMES_MAX || bytes >= NAMES_MAX_BYTES {
                    return Ok(Piece { names, stopped: Some((*slot, name)) });
                }
            }
        }
        Ok(Piece { names, stopped: None })
    })
}

//! Replies of many entries, made one entry after the other: held whole while they are few, else sent while they
//! are made (`resp::stream`).

use super::options::ScanOptions;
use crate::error::{ClientError, Stop};
use crate::limits;
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::resp::stream::{PART_ENTRIES, Parts, Refused, Shape};
use crate::store::tx::{KeyRef, Sink, Tx};

/// A command of the SCAN family: `scan` goes through a collection from a cursor on, and answers where to go on;
/// what it finds it pushes. Where there is no key, what follows the cursor is not looked at, as in Redis.
pub fn scan<'k, C>(
    tx: &mut Tx<'_>,
    args: &Args<'k>,
    values: bool,
    load: fn(&mut Tx<'_>, KeyRef<'k>) -> Result<Option<C>, Stop>,
    scan: impl FnOnce(&mut Tx<'_>, &C, u64, &ScanOptions<'k>, &mut Vec<Reply>) -> Result<u64, Stop>,
) -> Result<Reply, Stop> {
    let cursor = ScanOptions::cursor(args.get(2))?;
    let Some(collection) = load(tx, tx.key(args.get(1)))? else {
        return Ok(Reply::scanned(0, Vec::new()));
    };
    let options = ScanOptions::parse(args, 3, values)?;
    let mut found = Vec::new();
    let next = scan(tx, &collection, cursor, &options, &mut found)?;
    Ok(Reply::scanned(next, found))
}

/// A reply whose number of entries is known.
pub struct Answer {
    shape: Shape,
    entries: Vec<Reply>,
    parts: Option<Parts>,
}

impl Answer {
    /// `count`: entries, or pairs of them, that will be pushed. Read nothing that another command could change
    /// between this and the last push.
    ///
    /// # Errors
    /// When there are more than a reply may have, or too many to be held.
    pub fn new(tx: &mut Tx<'_>, shape: Shape, count: u64) -> Result<Answer, Stop> {
        let max = tx.scope.reply_max_elements;
        if max > 0 && count > max {
            return Err(ClientError::new(format!(
                "ERR the reply would have {count} elements, more than reply-max-elements allows ({max})"
            ))
            .into());
        }
        let parts = match std::mem::replace(&mut tx.sink, Sink::Hold) {
            Sink::Parts(parts) => Some(parts),
            Sink::Offer if count > limits::REPLY_HELD_MAX_ELEMENTS => {
                tx.sink = Sink::Offered { shape, count };
                return Err(Stop::LongReply);
            }
            sink => {
                tx.sink = sink;
                None
            }
        };
        Ok(Answer { shape, entries: Vec::new(), parts })
    }

    pub fn push(&mut self, entry: Reply) -> Result<(), Stop> {
        self.entries.push(entry);
        if self.parts.is_some() && self.entries.len() >= PART_ENTRIES {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Stop> {
        let Some(parts) = &self.parts else { return Ok(()) };
        let part = std::mem::take(&mut self.entries);
        // A thread that never waits, because its client reads fast enough, keeps others waiting for its CPU.
        std::thread::yield_now();
        parts.send(part, limits::REPLY_PATIENCE).map_err(|refused| match refused {
            Refused::Gone => Stop::Fault("the client of a long reply is gone".into()),
            Refused::Slow => Stop::Fault("the client of a long reply reads nothing".into()),
        })
    }

    /// What the handler answers: of a reply that was sent already, something that nobody looks at.
    pub fn finish(mut self) -> Result<Reply, Stop> {
        if self.parts.is_some() {
            self.send()?;
            return Ok(Reply::Silent);
        }
        Ok(self.shape.reply(self.entries))
    }
}

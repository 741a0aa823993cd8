//! Rows in memory: what RocksDB does not have yet, and a bounded cache of what was used last.
//!
//! Both are written only by the owning core, together with the log, so neither is ever stale. The
//! cache may forget anything; what is written stays until RocksDB has it.

use super::hot_elements::HotElements;
use super::unapplied::Unapplied;
use crate::error::Stop;
use crate::runtime::reaper;
use crate::store::row::Row;
use crate::store::tx::Visit;
use crate::store::{ElementKey, ElementRange, Incarnation};
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::Equivalent;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A key's name where tables are looked up by it: a short one stands in the entry itself, so that comparing
/// it is not one more wait for memory.
pub type TableName = SmallVec<[u8; 24]>;

/// A row's physical name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowName {
    pub incarnation: Incarnation,
    pub name: TableName,
}

impl RowName {
    pub fn new(incarnation: Incarnation, name: &[u8]) -> RowName {
        RowName { incarnation, name: TableName::from_slice(name) }
    }

    fn by_ref(&self) -> RowNameRef<'_> {
        RowNameRef { incarnation: self.incarnation, name: &self.name }
    }
}

/// The same, borrowed for a look-up.
#[derive(Clone, Copy)]
pub struct RowNameRef<'a> {
    pub incarnation: Incarnation,
    pub name: &'a [u8],
}

impl Hash for RowName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.by_ref().hash(state);
    }
}

impl Hash for RowNameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.name);
        state.write_u32(self.incarnation.0);
    }
}

impl Equivalent<RowName> for RowNameRef<'_> {
    fn equivalent(&self, key: &RowName) -> bool {
        self.incarnation == key.incarnation && self.name == key.name.as_slice()
    }
}

struct CachedRow {
    row: Row,
    /// Seconds since the epoch.
    used_s: u32,
}

#[derive(Clone)]
struct Weigh;

/// What an entry costs beside its name and value: the cache's own bookkeeping and two heap blocks.
const ENTRY_OVERHEAD_BYTES: u64 = 160;

impl Weighter<RowName, CachedRow> for Weigh {
    fn weight(&self, name: &RowName, cached: &CachedRow) -> u64 {
        ENTRY_OVERHEAD_BYTES + (name.name.len() + cached.row.weight()) as u64
    }
}

/// What memory knows of a row.
pub enum Known {
    Row(Row),
    Absent,
    Unknown,
}

pub struct Hot {
    cache: Cache<RowName, CachedRow, Weigh, RandomState>,
    cache_max_bytes: u64,
    /// What was read of collections.
    pub read: HotElements,
    /// What RocksDB will be given next.
    written: Unapplied,
    /// What it is being given: older than `written`.
    sent: Option<Arc<Unapplied>>,
}

impl Hot {
    /// A quarter of `max_bytes` is for elements of collections.
    pub fn new(max_bytes: u64) -> Hot {
        let elements_max_bytes = max_bytes / 4;
        let cache_max_bytes = max_bytes - elements_max_bytes;
        // How many names it remembers beyond what it holds; the weight is what bounds the cache.
        let items = (cache_max_bytes / 512).clamp(16, 1 << 20) as usize;
        let mut cache =
            Cache::with(items, cache_max_bytes, Weigh, RandomState::default(), Default::default());
        // Room for the smallest entries: a table that grew while serving would move all of them in one turn.
        // It takes addresses; memory only as it fills.
        cache.reserve((cache_max_bytes / ENTRY_OVERHEAD_BYTES) as usize + items);
        Hot {
            cache,
            cache_max_bytes,
            read: HotElements::new(elements_max_bytes),
            written: Unapplied::default(),
            sent: None,
        }
    }

    pub fn row(&mut self, name: RowNameRef<'_>, now_s: u32) -> Known {
        if let Some(mut cached) = self.cache.get_mut(&name) {
            cached.used_s = now_s;
            return Known::Row(cached.row.clone());
        }
        self.unapplied(name)
    }

    /// As `row`, without counting as a use.
    pub fn peek(&self, name: RowNameRef<'_>) -> Known {
        if let Some(cached) = self.cache.peek(&name) {
            return Known::Row(cached.row.clone());
        }
        self.unapplied(name)
    }

    fn unapplied(&self, name: RowNameRef<'_>) -> Known {
        let sent = || self.sent.as_ref().and_then(|sent| sent.row(name));
        match self.written.row(name).or_else(sent) {
            Some(Some(row)) => Known::Row(row.clone()),
            Some(None) => Known::Absent,
            None => Known::Unknown,
        }
    }

    /// An element that RocksDB does not have so yet: `Some(None)` if it is deleted.
    pub fn element(&self, key: &ElementKey) -> Option<&Option<Bytes>> {
        let sent = || self.sent.as_ref().and_then(|sent| sent.element(key));
        self.written.element(key).or_else(sent)
    }

    /// Visits elements of a range: what RocksDB does not have yet, laid over what it shows.
    pub fn over(
        &self,
        range: &ElementRange,
        below: impl FnOnce(&mut Visit<'_>) -> Result<(), Stop>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        match &self.sent {
            Some(sent) => {
                let older = |visit: &mut Visit<'_>| sent.over(range, below, visit);
                self.written.over(range, older, visit)
            }
            None => self.written.over(range, below, visit),
        }
    }

    pub fn used_s(&self, name: RowNameRef<'_>) -> Option<u32> {
        self.cache.peek(&name).map(|cached| cached.used_s)
    }

    /// Takes a row that was read from RocksDB in this turn.
    pub fn fill(&mut self, incarnation: Incarnation, name: &[u8], row: &Row, now_s: u32) {
        let name = RowName::new(incarnation, name);
        if !self.is_too_large(row) {
            self.cache.insert(name, CachedRow { row: row.clone(), used_s: now_s });
        }
    }

    /// Writes a row, or its absence; answers the row that memory knew under the name.
    pub fn write_row(&mut self, name: RowName, row: Option<Row>, now_s: u32) -> Option<Row> {
        let cached = match &row {
            Some(row) => self.update(&name, row.clone(), now_s),
            None => self.uncache(&name),
        };
        self.keep(name, row).or(cached)
    }

    /// As `write_row`, for one of very many: they would push out of the cache what is used.
    pub fn write_row_uncached(&mut self, name: RowName, row: Option<Row>) -> Option<Row> {
        let cached = self.uncache(&name);
        self.keep(name, row).or(cached)
    }

    /// Forgets what the cache has of a row; answers what it held.
    fn uncache(&mut self, name: &RowName) -> Option<Row> {
        self.cache.remove(&name.by_ref()).map(|(_, cached)| cached.row)
    }

    /// Keeps a write until RocksDB has it; answers the row of an earlier one of the name.
    fn keep(&mut self, name: RowName, row: Option<Row>) -> Option<Row> {
        let sent = self.sent.as_ref().and_then(|sent| sent.row(name.by_ref()).cloned());
        self.written.keep_row(name, row).or(sent).flatten()
    }

    pub fn write_element(&mut self, key: ElementKey, value: Option<Bytes>) {
        self.read.write(&key, value.as_ref());
        self.written.keep_element(key, value);
    }

    /// The entry of the time index is dealt with.
    pub fn forget_due(&mut self, expire_ms: u64, incarnation: Incarnation, name: Bytes) {
        self.written.forget_due(expire_ms, incarnation, name);
    }

    /// Nothing is written that RocksDB does not have.
    pub fn is_clean(&self) -> bool {
        self.written.is_empty() && self.sent.is_none()
    }

    /// What RocksDB will be given next.
    pub fn written(&self) -> &Unapplied {
        &self.written
    }

    /// Bytes that RocksDB does not have.
    pub fn unapplied_bytes(&self) -> usize {
        self.written.bytes() + self.sent.as_ref().map_or(0, |sent| sent.bytes())
    }

    /// Takes together what is written: RocksDB is given it now. What was sent before has been settled.
    pub fn send(&mut self) -> Arc<Unapplied> {
        assert!(self.sent.is_none(), "RocksDB is given one batch after the other");
        let next = Unapplied::like(&self.written);
        self.sent.insert(Arc::new(std::mem::replace(&mut self.written, next))).clone()
    }

    /// RocksDB has refused what it was given: that stays apart from what comes.
    pub fn set_apart(&mut self) {
        if self.sent.is_none() {
            self.send();
        }
    }

    /// RocksDB has what it was given: what was sent, or else what is written. How many bytes that was.
    pub fn settle(&mut self) -> usize {
        let Some(sent) = self.sent.take() else { return self.written.clear() };
        let bytes = sent.bytes();
        if bytes >= reaper::WORTH_BYTES {
            reaper::free(sent);
        }
        bytes
    }

    pub fn cache_bytes(&self) -> u64 {
        self.cache.weight() + self.read.bytes()
    }

    /// One entry may not push out a large share of the others.
    fn is_too_large(&self, row: &Row) -> bool {
        row.weight() as u64 > self.cache_max_bytes / 64
    }

    /// Brings the cache up to a write; answers the row it held. A key that nobody reads does not come in by
    /// being written: it would push out what is read.
    fn update(&mut self, name: &RowName, row: Row, now_s: u32) -> Option<Row> {
        if self.is_too_large(&row) {
            return self.uncache(name);
        }
        let mut cached = self.cache.get_mut(&name.by_ref())?;
        Some(std::mem::replace(&mut *cached, CachedRow { row, used_s: now_s }).row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &'static str) -> RowName {
        RowName::new(Incarnation(1), text.as_bytes())
    }

    fn at(text: &str) -> RowNameRef<'_> {
        RowNameRef { incarnation: Incarnation(1), name: text.as_bytes() }
    }

    fn value(len: usize) -> Row {
        Row::string(Bytes::from(vec![b'x'; len]))
    }

    #[test]
    fn the_turns_writes_are_seen_whatever_the_cache_forgets() {
        let mut hot = Hot::new(4096);
        hot.write_row(name("a"), Some(value(3000)), 1);
        assert!(matches!(hot.row(at("a"), 1), Known::Row(row) if row == value(3000)));
        hot.write_row(name("a"), None, 1);
        assert!(matches!(hot.row(at("a"), 1), Known::Absent));
        hot.settle();
        assert!(matches!(hot.row(at("a"), 1), Known::Unknown));
    }

    #[test]
    fn what_rocksdb_refuses_is_owed_until_it_is_taken() {
        let mut hot = Hot::new(4096);
        hot.write_row(name("a"), Some(value(10)), 1);
        hot.set_apart();
        hot.write_row(name("a"), None, 1);
        assert!(matches!(hot.row(at("a"), 1), Known::Absent), "what came later");
        assert!(hot.settle() > 0);
        assert!(!hot.is_clean(), "it has what it was given, not what came later");
        assert!(hot.settle() > 0);
        assert!(hot.is_clean());
        // A batch of something else than rows, a copy, is owed too.
        hot.set_apart();
        assert!(!hot.is_clean());
        assert_eq!(hot.settle(), 0);
        assert!(hot.is_clean());
    }

    #[test]
    fn a_value_too_big_for_the_cache_also_removes_the_old_one() {
        let mut hot = Hot::new(64 * 1024);
        hot.write_row(name("a"), Some(value(10)), 1);
        hot.write_row(name("a"), Some(value(60_000)), 1);
        hot.send();
        hot.settle();
        assert!(matches!(hot.row(at("a"), 1), Known::Unknown));
    }

    #[test]
    fn the_cache_stays_inside_its_bound() {
        let mut hot = Hot::new(64 * 1024);
        for number in 0..10_000u32 {
            hot.fill(Incarnation(1), &number.to_be_bytes(), &value(50), 1);
        }
        assert!(hot.cache_bytes() <= 64 * 1024);
    }
}

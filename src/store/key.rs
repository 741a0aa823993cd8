//! Physical keys: how a name within one life of a slot becomes the bytes RocksDB sorts. Layout: FORMAT.md.
//!
//! Pure bytes. Must not know RocksDB, rows' contents or which slot an incarnation belongs to.

use super::row::Version;
use super::tx::Subs;
use crate::slot::{ShardId, Slot, TableId};
use smallvec::SmallVec;

/// One life of one slot's data on one shard: the prefix of every key in it. Local to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// Holds the store's own rows, never a user's.
    pub const SYSTEM: Incarnation = Incarnation(0);
    /// The first one that may be given to a slot.
    pub const FIRST: Incarnation = Incarnation(1);

    /// The next life. Numbers are never given twice: a shard that had four billion of them is rebuilt by
    /// copying.
    pub fn next(self) -> Incarnation {
        // The last number is kept free, so that every incarnation has a prefix above it.
        assert!(self.0 < u32::MAX - 1, "incarnations of this shard are used up");
        Incarnation(self.0 + 1)
    }
}

/// Longest name of a key, field or member, bytes; its length is stored in 16 bits.
pub const NAME_MAX_BYTES: usize = u16::MAX as usize;

const KEY_STACK_BYTES: usize = 96;
/// A physical key; most stand on the stack.
pub type Key = SmallVec<[u8; KEY_STACK_BYTES]>;

/// The column families. Their names are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Metadata rows and the store's own rows.
    Row,
    /// Pieces of long strings, later the elements of collections.
    Element,
    /// Names by the moment at which they expire.
    Time,
}

impl Family {
    pub const ALL: [Family; 3] = [Family::Row, Family::Element, Family::Time];

    pub fn name(self) -> &'static str {
        match self {
            Family::Row => "default",
            Family::Element => "element",
            Family::Time => "time",
        }
    }
}

/// What a failed look-up in memory asks the pool to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(pub(super) Want);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Key(Family, Key),
    /// Some elements from one end of this range on.
    Elements {
        from: Key,
        to: Key,
        backward: bool,
    },
}

impl Wanted {
    pub fn row(incarnation: Incarnation, name: &[u8]) -> Wanted {
        Wanted(Want::Key(Family::Row, row_key(incarnation, name)))
    }

    pub fn element(key: &ElementKey) -> Wanted {
        Wanted(Want::Key(Family::Element, key.0.clone()))
    }

    pub fn elements(range: &ElementRange) -> Wanted {
        let ElementRange { from, to, backward, .. } = range;
        Wanted(Want::Elements { from: from.0.clone(), to: to.0.clone(), backward: *backward })
    }
}

/// An element's physical key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementKey(pub(super) Key);

impl ElementKey {
    pub fn new(incarnation: Incarnation, name: &[u8], version: Version, sub: &[u8]) -> ElementKey {
        ElementKey(element_key(incarnation, name, version, sub))
    }

    /// What stands before its sub, and the sub.
    pub fn split(&self) -> (&[u8], &[u8]) {
        let [.., high, low] = *self.0.first_chunk::<6>().expect("a key begins with its prefix and a length");
        self.0.split_at(4 + 2 + usize::from(u16::from_be_bytes([high, low])) + 8)
    }

    /// Its part behind the version, if what stands before has this length.
    pub fn sub(&self, head_bytes: usize) -> &[u8] {
        &self.0[head_bytes..]
    }

    #[expect(clippy::len_without_is_empty, reason = "a key has at least its prefix")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Elements of one version of one key, between two of them.
#[derive(Clone, Debug)]
pub struct ElementRange {
    pub from: ElementKey,
    /// Not included.
    pub to: ElementKey,
    pub backward: bool,
    /// Bytes of each key before its sub.
    pub head_bytes: usize,
}

impl ElementRange {
    /// Another range of the same life of the same key.
    pub fn with_subs(&self, subs: &Subs) -> ElementRange {
        ElementRange::below(self.head(), subs)
    }

    /// A range of the keys that begin with a head.
    pub fn below(head: &[u8], subs: &Subs) -> ElementRange {
        let key = |sub: &[u8]| ElementKey(joined(&[], head, &[], sub));
        let (from, to) = (key(&subs.from), key(&subs.to));
        ElementRange { from, to, backward: subs.backward, head_bytes: head.len() }
    }

    /// What stands before the subs of its keys.
    pub fn head(&self) -> &[u8] {
        &self.from.0[..self.head_bytes]
    }

    pub fn new(incarnation: Incarnation, name: &[u8], version: Version, subs: &Subs) -> ElementRange {
        ElementRange::below(&element_head(incarnation, name, version), subs)
    }
}

pub(super) fn row_key(incarnation: Incarnation, name: &[u8]) -> Key {
    check_name(name);
    let mut key = prefix(incarnation);
    key.extend_from_slice(name);
    key
}

pub(super) fn element_key(incarnation: Incarnation, name: &[u8], version: Version, sub: &[u8]) -> Key {
    check_name(name);
    let (mut head, mut middle) = ([0; 6], [0; 8]);
    head[..4].copy_from_slice(&incarnation.0.to_be_bytes());
    head[4..].copy_from_slice(&(name.len() as u16).to_be_bytes());
    middle.copy_from_slice(&version.0.to_be_bytes());
    joined(&head, name, &middle, sub)
}

/// What the keys of all elements of one life of one key begin with; their subs follow.
pub fn element_head(incarnation: Incarnation, name: &[u8], version: Version) -> Key {
    element_key(incarnation, name, version, &[])
}

/// Parts one behind the other. Keys are made several times for each element that a command touches: what has a known
/// length is written as a number, not copied as a string.
fn joined<const H: usize, const M: usize>(head: &[u8; H], name: &[u8], middle: &[u8; M], sub: &[u8]) -> Key {
    let (name_end, sub_at) = (H + name.len(), H + name.len() + M);
    let len = sub_at + sub.len();
    if len > KEY_STACK_BYTES {
        return Key::from_vec([head, name, middle, sub].concat());
    }
    let mut key = [0; KEY_STACK_BYTES];
    key[..H].copy_from_slice(head);
    key[H..name_end].copy_from_slice(name);
    key[name_end..sub_at].copy_from_slice(middle);
    key[sub_at..len].copy_from_slice(sub);
    Key::from_buf_and_len(key, len)
}

pub(super) fn time_key(expire_ms: u64, incarnation: Incarnation, name: &[u8]) -> Key {
    check_name(name);
    let mut key = Key::from_slice(&expire_ms.to_be_bytes());
    key.extend_from_slice(&incarnation.0.to_be_bytes());
    key.extend_from_slice(name);
    key
}

fn check_name(name: &[u8]) {
    assert!(name.len() <= NAME_MAX_BYTES, "names are checked where commands are read");
}

pub(super) fn prefix(incarnation: Incarnation) -> Key {
    Key::from_slice(&incarnation.0.to_be_bytes())
}

/// A key above all of an incarnation's and below all of the next one's.
///
/// The next prefix itself would not do where RocksDB takes the end as inclusive: the empty name's row is
/// there.
pub(super) fn last_key(incarnation: Incarnation) -> Vec<u8> {
    const LONGEST_KEY_BYTES: usize = 4 + 2 + NAME_MAX_BYTES + 8 + (8 + NAME_MAX_BYTES) + 16;
    let mut key = vec![0xff; LONGEST_KEY_BYTES + 1];
    key[..4].copy_from_slice(&incarnation.0.to_be_bytes());
    key
}

pub(super) fn split_row_key(key: &[u8]) -> Option<(Incarnation, &[u8])> {
    let (head, name) = key.split_first_chunk::<4>()?;
    Some((Incarnation(u32::from_be_bytes(*head)), name))
}

pub(super) fn split_element_key(key: &[u8]) -> Option<(Incarnation, &[u8], Version, &[u8])> {
    let (incarnation, rest) = split_row_key(key)?;
    let (name, version, sub) = split_element_tail(rest)?;
    Some((incarnation, name, version, sub))
}

/// What stands behind the incarnation of an element's key.
pub(super) fn split_element_tail(key: &[u8]) -> Option<(&[u8], Version, &[u8])> {
    let (name_len, rest) = key.split_first_chunk::<2>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*name_len)))?;
    let (version, sub) = rest.split_first_chunk::<8>()?;
    Some((name, Version(u64::from_be_bytes(*version)), sub))
}

pub(super) fn split_time_key(key: &[u8]) -> Option<(u64, Incarnation, &[u8])> {
    let (expire_ms, rest) = key.split_first_chunk::<8>()?;
    let (incarnation, name) = split_row_key(rest)?;
    Some((u64::from_be_bytes(*expire_ms), incarnation, name))
}

/// Names of the store's own rows, behind the prefix of `Incarnation::SYSTEM`.
pub(super) mod system {
    use super::*;

    pub const FORMAT: [u8; 1] = [1];
    pub const PERSISTED_LSN: [u8; 1] = [2];
    pub const SLOT: [u8; 1] = [3];
    pub const NEXT_INCARNATION: [u8; 1] = [4];
    pub const PART: [u8; 1] = [5];
    pub const WHOLE_FLOOR: [u8; 1] = [6];
    pub const SLOTS_LSN: [u8; 1] = [8];

    pub fn part_name(home: ShardId) -> [u8; 3] {
        let [h0, h1] = home.0.to_be_bytes();
        [PART[0], h0, h1]
    }

    pub fn slot_name(table: TableId, slot: Slot) -> [u8; 7] {
        let [t0, t1, t2, t3] = table.0.to_be_bytes();
        let [s0, s1] = slot.0.to_be_bytes();
        [SLOT[0], t0, t1, t2, t3, s0, s1]
    }

    pub fn split_slot_name(name: &[u8]) -> Option<(TableId, Slot)> {
        let [tag, t0, t1, t2, t3, s0, s1] = *name.first_chunk::<7>()?;
        let table = TableId(u32::from_be_bytes([t0, t1, t2, t3]));
        (name.len() == 7 && tag == SLOT[0]).then_some((table, Slot(u16::from_be_bytes([s0, s1]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..max)
    }

    proptest! {
        #[test]
        fn keys_come_apart_as_they_were_put_together(
            inc in 1..u32::MAX, name in bytes(300), version: u64, sub in bytes(40), at: u64,
        ) {
            let inc = Incarnation(inc);
            let row = row_key(inc, &name);
            prop_assert_eq!(split_row_key(&row), Some((inc, &name[..])));
            let element = element_key(inc, &name, Version(version), &sub);
            prop_assert_eq!(split_element_key(&element), Some((inc, &name[..], Version(version), &sub[..])));
            let time = time_key(at, inc, &name);
            prop_assert_eq!(split_time_key(&time), Some((at, inc, &name[..])));
        }

        #[test]
        fn rows_sort_by_name_and_stay_inside_their_incarnation(
            inc in 1..u32::MAX - 1, a in bytes(20), b in bytes(20),
        ) {
            let (inc, next) = (Incarnation(inc), Incarnation(inc + 1));
            prop_assert_eq!(row_key(inc, &a).cmp(&row_key(inc, &b)), a.cmp(&b));
            prop_assert!(row_key(inc, &a)[..] < last_key(inc)[..]);
            prop_assert!(last_key(inc)[..] < row_key(next, b"")[..]);
        }

        #[test]
        fn splitting_never_panics(key in bytes(40)) {
            let _ = (split_row_key(&key), split_element_key(&key), split_time_key(&key));
            let _ = system::split_slot_name(&key);
        }
    }

    #[test]
    fn the_longest_element_stays_below_the_last_key() {
        let name = vec![0xff; NAME_MAX_BYTES];
        let mut sub = vec![0xff; 8];
        sub.extend_from_slice(&name);
        let longest = element_key(Incarnation(7), &name, Version(u64::MAX), &sub);
        assert!(longest[..] < last_key(Incarnation(7))[..]);
    }
}

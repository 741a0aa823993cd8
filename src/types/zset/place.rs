//! Where members stand: the bytes of a score and a member that sort as the two do, and ranges of them.
//!
//! Knows bytes and numbers only. Layout: store/FORMAT.md, "Elements of collections".

use crate::error::Stop;
use crate::store::NAME_MAX_BYTES;
use crate::store::tx::{Sub, Subs};
use crate::types::packed::{Packed, damaged, put_number, put_text};
use bytes::Bytes;

/// Tag of the elements in order.
pub(super) const TAG: u8 = 2;
/// Behind every score.
const END: [u8; 8] = [0xff; 8];

/// A member with its score; their order is the set's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry<'b> {
    pub score: [u8; 8],
    pub member: &'b [u8],
}

impl<'b> Entry<'b> {
    pub fn new(score: f64, member: &'b [u8]) -> Entry<'b> {
        Entry { score: sortable(score), member }
    }

    pub fn of_sub(sub: &'b [u8]) -> Result<Entry<'b>, Stop> {
        let (score, member) = sub[1..].split_first_chunk::<8>().ok_or_else(damaged)?;
        Ok(Entry { score: *score, member })
    }

    pub fn number(&self) -> f64 {
        number(self.score)
    }

    pub fn place(&self) -> Sub {
        let mut place = Sub::from_slice(&self.score);
        place.extend_from_slice(self.member);
        place
    }

    pub fn is_before(&self, place: &[u8]) -> bool {
        match place.split_first_chunk::<8>() {
            Some((score, member)) => (self.score, self.member) < (*score, member),
            // Only the beginning of all is so short.
            None => false,
        }
    }
}

/// The element that says a member stands at a place, or the first at it or behind it.
pub(super) fn sub(place: &[u8]) -> Sub {
    let mut sub = Sub::from_slice(&[TAG]);
    sub.extend_from_slice(place);
    sub
}

/// Bytes that sort as numbers do; NaN has none.
pub(super) fn sortable(score: f64) -> [u8; 8] {
    assert!(!score.is_nan(), "what is no number is refused where scores are read and made");
    // The sum makes a zero positive.
    let bits = (score + 0.0).to_bits();
    let flipped = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    flipped.to_be_bytes()
}

pub(super) fn number(sortable: [u8; 8]) -> f64 {
    let flipped = u64::from_be_bytes(sortable);
    f64::from_bits(if flipped >> 63 == 0 { !flipped } else { flipped & !(1 << 63) })
}

/// The members that stand in a row.
pub(super) struct Entries<'b> {
    packed: Packed<'b>,
}

impl<'b> Entries<'b> {
    pub fn of(body: &'b [u8]) -> Result<Entries<'b>, Stop> {
        let mut packed = Packed(body);
        packed.number()?;
        Ok(Entries { packed })
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = Result<Entry<'b>, Stop>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.packed.is_empty() {
            return None;
        }
        let mut entry = || Ok(Entry { score: self.packed.array()?, member: self.packed.text()? });
        let entry = entry();
        if entry.is_err() {
            self.packed = Packed(&[]);
        }
        Some(entry)
    }
}

/// A row's body with these members, which are in order.
pub(super) fn packed(entries: &[Entry<'_>]) -> Bytes {
    /// A member's score and length.
    const HEAD_BYTES: usize = 10;
    let bytes: usize = entries.iter().map(|entry| entry.member.len() + HEAD_BYTES).sum();
    let mut body = Vec::with_capacity(bytes + HEAD_BYTES);
    put_number(&mut body, entries.len() as u64);
    for entry in entries {
        body.extend_from_slice(&entry.score);
        put_text(&mut body, entry.member);
    }
    body.into()
}

/// What stands from one place up to another, which is not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub(super) from: Sub,
    pub(super) to: Sub,
}

impl Places {
    pub fn all() -> Places {
        Places { from: Sub::new(), to: Sub::from_slice(&END) }
    }

    pub(super) fn none() -> Places {
        Places { from: Sub::new(), to: Sub::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    pub(super) fn subs(&self, reverse: bool) -> Subs {
        let subs = Subs::new(&sub(&self.from), &sub(&self.to));
        if reverse { subs.backward() } else { subs }
    }

    pub(super) fn reaches_end(place: &[u8]) -> bool {
        place >= &END[..]
    }
}

/// Scores from one to another; neither is NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRange {
    pub min: f64,
    /// `min` itself is left out.
    pub min_open: bool,
    pub max: f64,
    pub max_open: bool,
}

impl ScoreRange {
    pub fn places(&self) -> Places {
        let at = |score: f64, behind: bool| {
            // No score has all bits set, so there is a next one.
            let place = u64::from_be_bytes(sortable(score)) + u64::from(behind);
            Sub::from_slice(&place.to_be_bytes())
        };
        Places { from: at(self.min, self.min_open), to: at(self.max, !self.max_open) }
    }
}

/// An end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound<'b> {
    /// Before all members.
    Lowest,
    /// Behind all members.
    Highest,
    Included(&'b [u8]),
    Excluded(&'b [u8]),
}

/// Members from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRange<'b> {
    pub min: Bound<'b>,
    pub max: Bound<'b>,
}

impl MemberRange<'_> {
    /// Where they are if all members have this score.
    pub(super) fn places(&self, score: [u8; 8]) -> Places {
        let Places { mut from, mut to } = Places::all();
        if self.min == Bound::Highest || self.max == Bound::Lowest {
            return Places::none();
        }
        if let Some(low) = edge(self.min, false) {
            from = Entry { score, member: &low }.place();
        }
        if let Some(high) = edge(self.max, true) {
            to = Entry { score, member: &high }.place();
        }
        Places { from, to }
    }
}

/// The bytes at which a range begins, or ends; None for no bound.
fn edge(bound: Bound<'_>, upper: bool) -> Option<Vec<u8>> {
    let (member, included) = match bound {
        Bound::Lowest | Bound::Highest => return None,
        Bound::Included(member) => (member, true),
        Bound::Excluded(member) => (member, false),
    };
    // Longer than any member: what comes behind decides nothing.
    let mut edge = member[..member.len().min(NAME_MAX_BYTES + 1)].to_vec();
    if included == upper {
        edge.push(0);
    }
    Some(edge)
}

/// Which members are wanted of those in a range, in which direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub places: Places,
    /// From the greatest down.
    pub reverse: bool,
    /// Members to pass over.
    pub offset: u64,
    /// Members wanted, at most.
    pub count: u64,
}

impl Window {
    /// Everything, in order.
    pub fn whole() -> Window {
        Window { places: Places::all(), reverse: false, offset: 0, count: u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_sort_as_numbers_do(a: f64, b: f64) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(sortable(a).cmp(&sortable(b)), a.partial_cmp(&b).unwrap());
            prop_assert_eq!(number(sortable(a)), a);
            prop_assert!(sortable(a) < END);
        }

        #[test]
        fn any_bytes_end(body: Vec<u8>) {
            if let Ok(entries) = Entries::of(&body) {
                let _ = entries.count();
            }
        }
    }

    #[test]
    fn the_layout_is_for_ever() {
        assert_eq!(sortable(-0.0), [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sortable(1.0), [0xbf, 0xf0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sortable(-1.0), [0x40, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        let body = packed(&[Entry::new(1.0, b"ab")]);
        assert_eq!(body, [&[1, 0xbf, 0xf0, 0, 0, 0, 0, 0, 0, 2][..], b"ab"].concat());
    }

    #[test]
    fn bounds_of_members_are_in_or_out() {
        use Bound::{Excluded, Highest, Included, Lowest};
        let score = sortable(3.0);
        let inside = |min, max, member: &[u8]| {
            let places = MemberRange { min, max }.places(score);
            let entry = Entry { score, member };
            !entry.is_before(&places.from) && entry.is_before(&places.to)
        };
        assert!(inside(Lowest, Highest, b"") && inside(Included(b"a"), Included(b"a"), b"a"));
        assert!(!inside(Excluded(b"a"), Highest, b"a") && inside(Excluded(b"a"), Highest, b"a\0"));
        assert!(!inside(Lowest, Excluded(b"a"), b"a") && !inside(Lowest, Included(b"a"), b"a\0"));
        assert!(
            !inside(Highest, Highest, b"x") && !inside(Lowest, Lowest, b"") && !inside(Highest, Lowest, b"x")
        );
        let long = vec![b'a'; 1 << 20];
        assert!(
            inside(Included(&long), Highest, b"b")
                && inside(Lowest, Included(&long), &long[..NAME_MAX_BYTES])
        );
    }
}

//! What a slot's data comes to: the same number on two nodes that hold the same keys with the same values.
//!
//! Elements that no row names any more do not count: when they go is each node's own affair. Must not know slots.

use super::StoreError;
use super::db::Cached;
use super::key::{Incarnation, split_element_key};
use super::row::Version;
use super::scan::View;
use bytes::Bytes;
use crc::{CRC_64_XZ, Crc, Table};

static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// A sum over entries, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    pub sum: u64,
    pub rows: u64,
    pub elements: u64,
}

impl Digest {
    /// Adds something that is named by a few bytes.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let mut digest = CRC64.digest();
        digest.update(&(name.len() as u64).to_be_bytes());
        digest.update(name);
        digest.update(value);
        self.sum = self.sum.wrapping_add(digest.finalize());
    }
}

impl std::ops::AddAssign for Digest {
    fn add_assign(&mut self, other: Digest) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.rows += other.rows;
        self.elements += other.elements;
    }
}

impl View<'_> {
    /// Reads all of an incarnation: for a thread that may wait.
    pub fn digest(&self, incarnation: Incarnation) -> Result<Digest, StoreError> {
        let mut all = Digest::default();
        let mut failed = None;
        // Elements of one key come one after the other.
        let mut last: Option<(Bytes, Option<Version>)> = None;
        let mut whole_key = incarnation.0.to_be_bytes().to_vec();
        self.entries(incarnation, &mut |element, key, value| {
            if !element {
                all.rows += 1;
                all.add(key, value);
                return true;
            }
            whole_key.truncate(size_of::<u32>());
            whole_key.extend_from_slice(key);
            let Some((_, name, version, _)) = split_element_key(&whole_key) else { return true };
            if last.as_ref().is_none_or(|(of, _)| *of != name) {
                let named = match self.row(incarnation, name) {
                    Ok(Cached::Found(row)) => row.version(),
                    Ok(_) => None,
                    Err(error) => {
                        failed = Some(error);
                        return false;
                    }
                };
                last = Some((Bytes::copy_from_slice(name), named));
            }
            if last.as_ref().is_some_and(|(_, named)| *named == Some(version)) {
                all.elements += 1;
                all.add(key, value);
            }
            true
        })?;
        failed.map_or(Ok(all), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_count_and_everything_else_does() {
        let of = |entries: &[(&str, &str)]| {
            let mut digest = Digest::default();
            entries.iter().for_each(|(name, value)| digest.add(name.as_bytes(), value.as_bytes()));
            digest.sum
        };
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        for other in [&[("a", "2"), ("b", "1")][..], &[("a1", ""), ("b", "2")], &[("a", "1")], &[]] {
            assert_ne!(of(&[("a", "1"), ("b", "2")]), of(other), "{other:?}");
        }
        assert_ne!(of(&[("a", "1"), ("a", "1")]), of(&[]), "two of the same do not cancel out");
    }
}

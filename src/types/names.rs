//! Elements by name: fields, members. Tag 1, then a hash of the name, then the name.
//!
//! The hash makes cursors stateless, for a cursor is a hash from which to go on, and random picks fair: every
//! name is as likely as any other to lie in a random window of hashes. Knows no type and no value.

use super::packed::damaged;
use crate::error::Stop;
use crate::store::row::Version;
use crate::store::tx::{KeyRef, Sub, Subs, Tx};
use bytes::Bytes;
use rustc_hash::FxHashSet;
use xxhash_rust::xxh3::xxh3_64;

const TAG: u8 = 1;
/// Bytes of a sub before the name.
const HEAD_BYTES: usize = 9;
/// Names that a random window is made to hold, about; and the most it is expected to.
const WINDOW: u64 = 8;
const WINDOW_MAX: u64 = 4 * WINDOW;

/// Where the element of a name stands.
pub fn sub(name: &[u8]) -> Sub {
    let mut sub = from_hash(xxh3_64(name));
    sub.extend_from_slice(name);
    sub
}

fn from_hash(hash: u64) -> Sub {
    let mut sub = Sub::from_slice(&[TAG]);
    sub.extend_from_slice(&hash.to_be_bytes());
    sub
}

fn hash_of(sub: &[u8]) -> Result<u64, Stop> {
    let bytes = sub.get(1..HEAD_BYTES).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
    Ok(u64::from_be_bytes(bytes))
}

/// All names of one life of one key.
#[derive(Clone, Copy)]
pub struct Names<'k> {
    pub key: KeyRef<'k>,
    pub version: Version,
}

/// A name with its element's value.
pub type Named = (Bytes, Bytes);

/// Is shown a name and its element's value.
pub type See<'v, T> = dyn FnMut(&[u8], &[u8]) -> Result<T, Stop> + 'v;

impl Names<'_> {
    /// Every name with its value, in no order that means anything, until `visit` answers false.
    pub fn visit(self, tx: &mut Tx<'_>, visit: &mut See<'_, bool>) -> Result<(), Stop> {
        tx.scan(self.key, self.version, &Subs::of(&[TAG]), &mut |sub, value| visit(&sub[HEAD_BYTES..], value))
    }

    /// About `count` names from a cursor on; answers where to go on, 0 at the end. What is there all the time
    /// is visited, whatever comes and goes meanwhile.
    pub fn scan(
        self,
        tx: &mut Tx<'_>,
        cursor: u64,
        count: u64,
        visit: &mut See<'_, ()>,
    ) -> Result<u64, Stop> {
        let (mut seen, mut last, mut next) = (0, None, 0);
        let subs = Subs::new(&from_hash(cursor), &[TAG + 1]);
        tx.scan(self.key, self.version, &subs, &mut |sub, value| {
            let hash = hash_of(sub)?;
            // Names of one hash stay together: a cursor cannot stand between them.
            if seen >= count && last != Some(hash) {
                next = hash;
                return Ok(false);
            }
            (seen, last) = (seen + 1, Some(hash));
            visit(&sub[HEAD_BYTES..], value)?;
            Ok(true)
        })?;
        Ok(next)
    }

    /// One name by chance, each as likely as any other; there are `len` of them, not none.
    pub fn random(self, tx: &mut Tx<'_>, len: u64) -> Result<Named, Stop> {
        assert!(len > 0, "nothing is chosen from nothing");
        loop {
            let start = tx.random().u64(..);
            let mut inside = Vec::new();
            let mut take = |sub: &[u8], value: &[u8]| {
                inside.push((Bytes::copy_from_slice(&sub[HEAD_BYTES..]), Bytes::copy_from_slice(value)));
                Ok(true)
            };
            if len <= WINDOW_MAX {
                tx.scan(self.key, self.version, &Subs::of(&[TAG]), &mut take)?;
                if inside.is_empty() {
                    return Err(damaged());
                }
                let chosen = tx.random().usize(..inside.len());
                return Ok(inside.swap_remove(chosen));
            }
            // A window of hashes that may reach over the end; each name is in it with the same chance.
            let width = u64::MAX / len * WINDOW;
            match start.checked_add(width) {
                Some(end) => {
                    let subs = Subs::new(&from_hash(start), &from_hash(end));
                    tx.scan(self.key, self.version, &subs, &mut take)?;
                }
                None => {
                    let end = start.wrapping_add(width);
                    let subs = Subs::new(&from_hash(start), &[TAG + 1]);
                    tx.scan(self.key, self.version, &subs, &mut take)?;
                    let subs = Subs::new(&from_hash(0), &from_hash(end));
                    tx.scan(self.key, self.version, &subs, &mut take)?;
                }
            }
            // A window with few names must not make those likelier: it counts only as often as it has names.
            let chosen = tx.random().u64(..WINDOW_MAX.max(inside.len() as u64)) as usize;
            if chosen < inside.len() {
                return Ok(inside.swap_remove(chosen));
            }
        }
    }

    /// Several different names by chance; all of them if there are no more than `count`.
    pub fn sample(self, tx: &mut Tx<'_>, len: u64, count: u64) -> Result<Vec<Named>, Stop> {
        // Beyond a third, picks would too often hit what was picked before.
        if count.saturating_mul(3) > len {
            let mut all = Vec::new();
            self.visit(tx, &mut |name, value| {
                all.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
                Ok(true)
            })?;
            if count < all.len() as u64 {
                tx.random().shuffle(&mut all);
                all.truncate(count as usize);
            }
            return Ok(all);
        }
        let (mut chosen, mut seen) = (Vec::new(), FxHashSet::default());
        while (chosen.len() as u64) < count {
            let named = self.random(tx, len)?;
            if seen.insert(named.0.clone()) {
                chosen.push(named);
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::memory::{Memory, scope};
    use std::collections::{BTreeMap, BTreeSet};

    const VERSION: Version = Version(1 << 16);

    fn filled(count: u32) -> Memory {
        let mut memory = Memory::default();
        let fill = |tx: &mut Tx<'_>| {
            for number in 0..count {
                let name = number.to_string();
                let value = Some(Bytes::copy_from_slice(&number.to_be_bytes()));
                tx.put_element(tx.key(b"k"), VERSION, &sub(name.as_bytes()), value);
            }
            Ok(())
        };
        memory.run(scope(), fill).0.unwrap();
        memory
    }

    fn names(tx: &Tx<'_>) -> Names<'static> {
        Names { key: tx.key(b"k"), version: VERSION }
    }

    #[test]
    fn a_hash_is_for_ever() {
        assert_eq!(xxh3_64(b""), 0x2D06_8005_38D3_94C2);
        assert_eq!(xxh3_64(b"abc"), 0x78AF_5F94_892F_3950);
    }

    #[test]
    fn a_scan_in_pieces_sees_every_name_once() {
        let mut memory = filled(1000);
        let (mut cursor, mut seen) = (0, BTreeSet::new());
        loop {
            let piece = |tx: &mut Tx<'_>| {
                names(tx).scan(tx, cursor, 7, &mut |name, _| {
                    assert!(seen.insert(name.to_vec()));
                    Ok(())
                })
            };
            cursor = memory.run(scope(), piece).0.unwrap();
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn every_name_is_as_likely_as_any_other() {
        let mut memory = filled(300);
        let mut hits: BTreeMap<Bytes, f64> = BTreeMap::new();
        const PICKS: u32 = 30_000;
        for seed in 0..PICKS {
            let pick = |tx: &mut Tx<'_>| names(tx).random(tx, 300);
            let scope = crate::store::tx::Scope { seed: u64::from(seed), ..scope() };
            *hits.entry(memory.run(scope, pick).0.unwrap().0).or_default() += 1.0;
        }
        assert_eq!(hits.len(), 300);
        let expected = f64::from(PICKS) / 300.0;
        let chi: f64 = hits.values().map(|hit| (hit - expected).powi(2) / expected).sum();
        // 299 degrees of freedom: mean 299, deviation 24.
        assert!(chi < 299.0 + 5.0 * 24.5, "{chi}");
    }

    #[test]
    fn samples_have_no_name_twice() {
        let mut memory = filled(500);
        for count in [0, 1, 100, 200, 499, 500, 1000] {
            let sampled = memory.run(scope(), |tx| names(tx).sample(tx, 500, count)).0.unwrap();
            let different: BTreeSet<_> = sampled.iter().map(|(name, _)| name).collect();
            assert_eq!(different.len() as u64, count.min(500));
        }
    }
}

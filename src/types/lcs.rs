//! The longest common subsequence of two byte strings, with Redis's choice among equally long ones.
//!
//! Pure. Keeps one bit per pair of positions instead of Redis's four bytes: the way back needs only to know
//! which neighbour was better.

use std::ops::Range;

/// A stretch that both strings share, by positions in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    pub a: Range<usize>,
    pub b: Range<usize>,
}

/// Length of the longest common subsequence. Time |a| * |b|, memory the shorter.
pub fn len(a: &[u8], b: &[u8]) -> usize {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    fill(long, short, |_, _, _, _| ())
}

/// The shared stretches, from the last to the first. Time |a| * |b|, memory |a| * |b| bits.
pub fn matches(a: &[u8], b: &[u8]) -> Vec<Match> {
    let better_without_a = Pairs::where_a_is_dropped(a, b);
    let (mut i, mut j) = (a.len(), b.len());
    let mut found = Vec::new();
    while i > 0 && j > 0 {
        let run = a[..i].iter().rev().zip(b[..j].iter().rev()).take_while(|(a, b)| a == b).count();
        if run > 0 {
            found.push(Match { a: i - run..i, b: j - run..j });
            (i, j) = (i - run, j - run);
        } else if better_without_a.has(i - 1, j - 1) {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    found
}

/// A set of pairs of positions, one in a and one in b.
struct Pairs {
    bits: Vec<u64>,
    b_len: usize,
}

impl Pairs {
    /// The pairs where leaving out a's byte keeps more than leaving out b's.
    fn where_a_is_dropped(a: &[u8], b: &[u8]) -> Pairs {
        let mut pairs = Pairs { bits: vec![0; (a.len() * b.len()).div_ceil(64)], b_len: b.len() };
        if a.len() < b.len() {
            fill(b, a, |j, i, without_b, without_a| pairs.insert_if(without_a > without_b, i, j));
        } else {
            fill(a, b, |i, j, without_a, without_b| pairs.insert_if(without_a > without_b, i, j));
        }
        pairs
    }

    fn insert_if(&mut self, condition: bool, i: usize, j: usize) {
        let at = i * self.b_len + j;
        self.bits[at / 64] |= u64::from(condition) << (at % 64);
    }

    fn has(&self, i: usize, j: usize) -> bool {
        let at = i * self.b_len + j;
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }
}

/// Computes the lengths row by row. Tells `see` each pair of positions with the lengths that are reached
/// without the byte of `long`, and without the byte of `short`.
fn fill(long: &[u8], short: &[u8], mut see: impl FnMut(usize, usize, u32, u32)) -> usize {
    // above[j]: the length for the bytes of `long` so far and the first j bytes of `short`.
    let mut above = vec![0u32; short.len() + 1];
    for (i, x) in long.iter().enumerate() {
        let (mut left, mut diagonal) = (0, 0);
        for (j, y) in short.iter().enumerate() {
            let up = above[j + 1];
            see(i, j, up, left);
            let best = if x == y { diagonal + 1 } else { up.max(left) };
            (diagonal, left) = (up, best);
            above[j + 1] = best;
        }
    }
    above[short.len()] as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_redis_documentation() {
        let (a, b) = (b"ohmytext", b"mynewtext");
        assert_eq!(len(a, b), 6);
        assert_eq!(matches(a, b), [Match { a: 4..8, b: 5..9 }, Match { a: 2..4, b: 0..2 }]);
        assert_eq!(matches(b"", b), []);
        assert_eq!(len(a, b""), 0);
    }

    proptest! {
        #[test]
        fn matches_are_common_ordered_and_as_long_as_the_length(
            a in proptest::collection::vec(0u8..4, 0..150),
            b in proptest::collection::vec(0u8..4, 0..150),
        ) {
            let found = matches(&a, &b);
            prop_assert_eq!(found.iter().map(|m| m.a.len()).sum::<usize>(), len(&a, &b));
            prop_assert_eq!(len(&a, &b), len(&b, &a));
            for m in &found {
                prop_assert_eq!(&a[m.a.clone()], &b[m.b.clone()]);
            }
            for pair in found.windows(2) {
                prop_assert!(pair[1].a.end <= pair[0].a.start && pair[1].b.end <= pair[0].b.start);
            }
        }
    }
}

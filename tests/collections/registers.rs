//! What an element does to the registers of a HyperLogLog. Source: hyperloglog.c of Redis 7.0, and
//! MurmurHash64A by Austin Appleby.

use std::collections::BTreeMap;

const INDEX_BITS: u32 = 14;
const SEED: u64 = 0xadc8_3b19;

pub fn add(registers: &mut BTreeMap<u16, u8>, element: &[u8]) {
    let hash = murmur64a(element);
    let index = (hash & ((1 << INDEX_BITS) - 1)) as u16;
    let run = (hash >> INDEX_BITS | 1 << (64 - INDEX_BITS)).trailing_zeros() as u8 + 1;
    let register = registers.entry(index).or_insert(run);
    *register = run.max(*register);
}

fn murmur64a(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let tail = tail.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        hash = (hash ^ tail).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(MULTIPLIER);
    hash ^ hash >> SHIFT
}

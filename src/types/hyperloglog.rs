//! HyperLogLog: about how many different things were added to it, in 12 KiB at most. Pure: bytes in, bytes
//! out, in Redis's own layout, so that a value moves between the two as it is. Knows no store, no command
//! and no reply.
//!
//! A head of 16 bytes: "HYLL", the encoding (0 dense, 1 sparse), three unused ones, and the cardinality
//! last computed, little-endian, whose highest bit says that registers have changed since. Behind it the
//! 16,384 registers: dense, six bits each from the lowest bit on; sparse, as runs of equal ones.
//!
//! Sources: hyperloglog.c of Redis 7.0 and 7.2 for layout, hash and the choice of encoding; Otmar Ertl, "New
//! cardinality estimation algorithms for HyperLogLog sketches", arXiv:1702.01284, for the estimate.

use std::fmt;

const MAGIC: &[u8; 4] = b"HYLL";
const ENCODING_AT: usize = 4;
const CACHE_AT: usize = 8;
const HEAD_BYTES: usize = 16;

/// Bits of an element's hash that choose its register; the others are looked at for their first one.
const INDEX_BITS: u32 = 14;
pub const REGISTERS: usize = 1 << INDEX_BITS;
const RANK_MAX: u32 = 64 - INDEX_BITS + 1;
/// Values a register can have; those above `RANK_MAX` come only from bytes that a client has made up.
const VALUES: usize = 64;

const DENSE_BYTES: usize = HEAD_BYTES + REGISTERS * 6 / 8;
/// Redis's default of `hll-sparse-max-bytes`, the head included.
const SPARSE_MAX_BYTES: usize = 3000;

const STALE: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Dense,
    Sparse,
}

impl Encoding {
    /// Redis's name.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Dense => "dense",
            Encoding::Sparse => "sparse",
        }
    }
}

/// The sparse runs do not make up the registers: such bytes were not written by these functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupted;

/// A whole value whose head has been looked at; sparse runs are checked where they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HyperLogLog(Vec<u8>);

impl HyperLogLog {
    /// To which nothing has been added.
    pub fn empty() -> HyperLogLog {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(HEAD_BYTES, 0);
        bytes[ENCODING_AT] = 1;
        Run::put(0, REGISTERS, &mut bytes);
        let mut empty = HyperLogLog(bytes);
        empty.mark_stale();
        empty
    }

    /// None: these bytes are something else.
    pub fn parse(bytes: &[u8]) -> Option<HyperLogLog> {
        let whole = bytes.len() >= HEAD_BYTES && bytes.starts_with(MAGIC);
        let known =
            whole && (bytes[ENCODING_AT] == 1 || bytes[ENCODING_AT] == 0 && bytes.len() == DENSE_BYTES);
        known.then(|| HyperLogLog(bytes.to_vec()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn encoding(&self) -> Encoding {
        if self.0[ENCODING_AT] == 0 { Encoding::Dense } else { Encoding::Sparse }
    }

    /// Whether a register has changed.
    pub fn add(&mut self, element: &[u8]) -> Result<bool, Corrupted> {
        let hash = hash(element);
        let index = hash as usize % REGISTERS;
        let rank = (hash >> INDEX_BITS).trailing_zeros().saturating_add(1).min(RANK_MAX);
        self.set(index, rank as u8)
    }

    /// Raises every register to at least its value there.
    pub fn merge(&mut self, registers: &Registers) -> Result<(), Corrupted> {
        for (index, value) in registers.iter().enumerate().filter(|(_, value)| *value > 0) {
            self.set(index, value)?;
        }
        self.mark_stale();
        Ok(())
    }

    /// Whether it was sparse before. The cardinality last computed stays.
    pub fn make_dense(&mut self) -> Result<bool, Corrupted> {
        if self.encoding() == Encoding::Dense {
            return Ok(false);
        }
        let registers = self.registers()?;
        self.0.truncate(HEAD_BYTES);
        self.0[ENCODING_AT] = 0;
        for four in registers.0.chunks_exact(4) {
            let word = four.iter().rev().fold(0, |word, value| word << 6 | u32::from(*value));
            self.0.extend_from_slice(&word.to_le_bytes()[..3]);
        }
        Ok(true)
    }

    /// About how many different elements were added, at most `i64::MAX`: as last computed, if no register has
    /// changed since. It can be off by 0.81 % (standard error).
    pub fn count(&self) -> Result<u64, Corrupted> {
        let cache = u64::from_le_bytes(self.0[CACHE_AT..HEAD_BYTES].try_into().expect("eight bytes"));
        if cache & STALE == 0 {
            return Ok(cache);
        }
        Ok(self.registers()?.estimate())
    }

    pub fn registers(&self) -> Result<Registers, Corrupted> {
        let mut registers = Registers::default();
        if self.encoding() == Encoding::Dense {
            for (four, three) in registers.0.chunks_exact_mut(4).zip(self.0[HEAD_BYTES..].chunks_exact(3)) {
                let word = u32::from_le_bytes([three[0], three[1], three[2], 0]);
                four.iter_mut()
                    .zip([0, 6, 12, 18])
                    .for_each(|(value, shift)| *value = (word >> shift & 63) as u8);
            }
            return Ok(registers);
        }
        let mut at = 0;
        for run in self.runs() {
            let Run { value, len, .. } = run?;
            registers.0.get_mut(at..at + len).ok_or(Corrupted)?.fill(value);
            at += len;
        }
        if at == REGISTERS { Ok(registers) } else { Err(Corrupted) }
    }

    /// The runs of a sparse one, in their order; ends after the first that is cut off.
    pub fn runs(&self) -> impl Iterator<Item = Result<Run, Corrupted>> + '_ {
        let mut rest = &self.0[HEAD_BYTES..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let run = Run::read(rest);
            rest = run.map_or(&[], |run| &rest[run.size..]);
            Some(run)
        })
    }

    fn mark_stale(&mut self) {
        self.0[HEAD_BYTES - 1] |= 0x80;
    }

    /// Raises a register to `value`, or leaves it if that is no more than it has.
    fn set(&mut self, index: usize, value: u8) -> Result<bool, Corrupted> {
        let changed = match self.encoding() {
            Encoding::Dense => self.set_dense(index, value),
            Encoding::Sparse => self.set_sparse(index, value)?,
        };
        if changed {
            self.mark_stale();
        }
        Ok(changed)
    }

    fn set_dense(&mut self, index: usize, value: u8) -> bool {
        let (shift, value) = (index % 4 * 6, u32::from(value));
        let three = &mut self.0[HEAD_BYTES + index / 4 * 3..][..3];
        let word = u32::from_le_bytes([three[0], three[1], three[2], 0]);
        let changed = value > word >> shift & 63;
        if changed {
            let word = word & !(63 << shift) | value << shift;
            three.copy_from_slice(&word.to_le_bytes()[..3]);
        }
        changed
    }

    fn set_sparse(&mut self, index: usize, value: u8) -> Result<bool, Corrupted> {
        if value > Run::VALUE_MAX {
            self.make_dense()?;
            return Ok(self.set_dense(index, value));
        }
        let (mut before, mut at, mut first) = (HEAD_BYTES, HEAD_BYTES, 0);
        let run = loop {
            let run = Run::read(&self.0[at..])?;
            if index < first + run.len {
                break run;
            }
            (before, at, first) = (at, at + run.size, first + run.len);
        };
        if run.value >= value {
            return Ok(false);
        }
        let mut split = Vec::with_capacity(5);
        Run::put(run.value, index - first, &mut split);
        Run::put(value, 1, &mut split);
        Run::put(run.value, first + run.len - 1 - index, &mut split);
        if split.len() > run.size && self.0.len() + split.len() - run.size > SPARSE_MAX_BYTES {
            self.make_dense()?;
            return Ok(self.set_dense(index, value));
        }
        self.0.splice(at..at + run.size, split);
        self.join_neighbours(before);
        Ok(true)
    }

    /// Makes one run of neighbours with the same value. Redis looks at no more than five, from the one
    /// before the change on: what it leaves apart has to stay apart here too.
    fn join_neighbours(&mut self, mut at: usize) {
        for _ in 0..5 {
            let Some(Ok(run)) = self.0.get(at..).map(Run::read) else { return };
            let next = Run::read(&self.0[at + run.size..]);
            match next {
                Ok(next)
                    if run.value > 0 && next.value == run.value && run.len + next.len <= Run::LEN_MAX =>
                {
                    let mut joined = Vec::with_capacity(1);
                    Run::put(run.value, run.len + next.len, &mut joined);
                    self.0.splice(at..at + 2, joined);
                }
                _ => at += run.size,
            }
        }
    }
}

/// Equal registers side by side, as one item of the sparse encoding says them: `00llllll` and
/// `01llllll llllllll` for zeros, `1vvvvvll` for others, each number less by one than what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub value: u8,
    pub len: usize,
    /// Bytes it takes; two also for few zeros, where a client has written it so.
    size: usize,
}

impl Run {
    const VALUE_MAX: u8 = 32;
    /// Of a run that is not zeros.
    const LEN_MAX: usize = 4;
    const SHORT_ZEROS_MAX: usize = 64;

    /// The first of these bytes. Redis takes the end of the value for a zero where half an item stands
    /// last, and here that is damage.
    fn read(bytes: &[u8]) -> Result<Run, Corrupted> {
        let (value, len, size) = match *bytes {
            [item, ..] if item & 0x80 != 0 => ((item >> 2 & 31) + 1, usize::from(item & 3), 1),
            [item, ..] if item & 0x40 == 0 => (0, usize::from(item), 1),
            [item, low, ..] => (0, usize::from(item & 63) << 8 | usize::from(low), 2),
            _ => return Err(Corrupted),
        };
        Ok(Run { value, len: len + 1, size })
    }

    /// The shortest item for the run, which is not too long for one; nothing for no registers.
    fn put(value: u8, len: usize, out: &mut Vec<u8>) {
        let Some(less) = len.checked_sub(1) else { return };
        match value {
            0 if len <= Run::SHORT_ZEROS_MAX => out.push(less as u8),
            0 => out.extend_from_slice(&[0x40 | (less >> 8) as u8, less as u8]),
            _ => out.push(0x80 | (value - 1) << 2 | less as u8),
        }
    }
}

/// Redis's notation.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.value, self.size) {
            (0, 1) => write!(f, "z:{}", self.len),
            (0, _) => write!(f, "Z:{}", self.len),
            (value, _) => write!(f, "v:{value},{}", self.len),
        }
    }
}

/// Every register's value, below 64; at first all are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers(Box<[u8; REGISTERS]>);

impl Default for Registers {
    fn default() -> Registers {
        Registers(Box::new([0; REGISTERS]))
    }
}

impl Registers {
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().copied()
    }

    /// Makes them those of both sets of elements together.
    pub fn merge(&mut self, other: &Registers) {
        self.0.iter_mut().zip(other.iter()).for_each(|(value, other)| *value = (*value).max(other));
    }

    /// About how many different elements these registers have seen, at most `i64::MAX`. The operations and
    /// their order are Redis's, so that no last bit differs.
    pub fn estimate(&self) -> u64 {
        /// 1 / (2 ln 2)
        const ALPHA: f64 = 0.721_347_520_444_481_7;
        const ALL: f64 = REGISTERS as f64;
        let mut counts = [0_u32; VALUES];
        self.iter().for_each(|value| counts[usize::from(value)] += 1);
        let highest = RANK_MAX as usize;
        let mut z = ALL * tau((ALL - f64::from(counts[highest])) / ALL);
        for count in counts[1..highest].iter().rev() {
            z = (z + f64::from(*count)) * 0.5;
        }
        z += ALL * sigma(f64::from(counts[0]) / ALL);
        // The conversion saturates: made-up registers may even say "infinitely many".
        (ALPHA * ALL * ALL / z).round() as i64 as u64
    }
}

/// What registers that are still zero add. Ertl, algorithm 6.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// What registers at their highest value add. Ertl, algorithm 6.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// MurmurHash64A (Austin Appleby, public domain) with Redis's seed.
fn hash(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xadc8_3b19;
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes")).wrapping_mul(FACTOR);
        hash = (hash ^ (word ^ word >> SHIFT).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> SHIFT).wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(elements: impl IntoIterator<Item = impl AsRef<[u8]>>) -> HyperLogLog {
        let mut sketch = HyperLogLog::empty();
        for element in elements {
            sketch.add(element.as_ref()).unwrap();
        }
        sketch
    }

    fn decoded(sketch: &HyperLogLog) -> String {
        sketch.runs().map(|run| run.unwrap().to_string()).collect::<Vec<_>>().join(" ")
    }

    fn dense(value: impl Fn(usize) -> u8) -> HyperLogLog {
        let mut sketch = HyperLogLog::empty();
        sketch.make_dense().unwrap();
        for index in 0..REGISTERS {
            sketch.set_dense(index, value(index));
        }
        sketch
    }

    #[test]
    fn an_empty_one_is_redis_s_and_stale() {
        let empty = HyperLogLog::empty();
        assert_eq!(empty.as_bytes(), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff");
        assert_eq!(empty.count(), Ok(0));
    }

    /// From redis-server 7.0.15.
    #[test]
    fn elements_of_every_length_fall_where_they_do_in_redis() {
        let sketch = of([&b""[..], b"12345678", b"123456789", b"abcdefg"]);
        assert_eq!(decoded(&sketch), "Z:5634 v:2,1 Z:303 v:2,1 Z:3354 v:2,1 Z:1285 v:3,1 Z:5804");
        let expected = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80V\x01\x84A.\x84M\x19\x84E\x04\x88V\xab";
        assert_eq!(sketch.as_bytes(), expected);
    }

    /// Elements "0", "1", ...: length, CRC-32 and PFCOUNT of redis-server 7.0.15.
    #[test]
    fn bytes_and_counts_are_those_of_redis() {
        let mut sketch = HyperLogLog::empty();
        let mut added = 0_u32;
        for (elements, len, crc, count) in [
            (1, 21, 0xb679_a116, 1),
            (10, 48, 0x7848_ecb4, 10),
            (100, 287, 0x4e06_f88d, 100),
            (1_000, 1923, 0xa3e9_ea3a, 1001),
            (1_500, 2766, 0x5aff_ca9a, 1512),
            (1_600, 2926, 0xe9c3_a380, 1611),
            (2_000, 12304, 0xf4ae_7fdd, 2007),
            (10_000, 12304, 0x4351_6159, 9987),
            (100_000, 12304, 0xa7e2_2058, 99565),
        ] {
            for n in added..elements {
                sketch.add(n.to_string().as_bytes()).unwrap();
            }
            added = elements;
            assert_eq!(sketch.as_bytes().len(), len, "{elements}");
            assert_eq!(crc32fast::hash(sketch.as_bytes()), crc, "{elements}");
            assert_eq!(sketch.count(), Ok(count), "{elements}");
        }
    }

    /// Counts of redis-server 7.0.15.
    #[test]
    fn registers_of_every_value_count_as_in_redis() {
        assert_eq!(dense(|index| (index * 7 % 52) as u8).count(), Ok(303_929));
        assert_eq!(dense(|index| 44 + (index % 8) as u8).count(), Ok(836_053_216_198_300_928));
        assert_eq!(
            dense(|_| 63).count(),
            Ok(i64::MAX as u64),
            "Redis converts infinity to a negative number"
        );
    }

    #[test]
    fn neighbours_become_one_run() {
        let mut sketch = HyperLogLog::empty();
        for (index, expected) in [
            (10, "z:10 v:3,1 Z:16373"),
            (12, "z:10 v:3,1 z:1 v:3,1 Z:16371"),
            (11, "z:10 v:3,3 Z:16371"),
            (13, "z:10 v:3,4 Z:16370"),
            (14, "z:10 v:3,4 v:3,1 Z:16369"),
            (16383, "z:10 v:3,4 v:3,1 Z:16368 v:3,1"),
            (0, "v:3,1 z:9 v:3,4 v:3,1 Z:16368 v:3,1"),
        ] {
            assert_eq!(sketch.set(index, 3), Ok(true));
            assert_eq!(decoded(&sketch), expected);
        }
        assert_eq!(sketch.set(11, 4), Ok(true));
        assert_eq!(decoded(&sketch), "v:3,1 z:9 v:3,1 v:4,1 v:3,3 Z:16368 v:3,1");
        assert_eq!(sketch.set(11, 4), Ok(false));
        assert_eq!(sketch.set(11, 33), Ok(true));
        assert_eq!((sketch.encoding(), sketch.registers().unwrap().0[11]), (Encoding::Dense, 33));
    }

    #[test]
    fn a_fresh_cardinality_is_believed_until_something_changes() {
        let mut bytes = of(["a", "b"]).as_bytes().to_vec();
        bytes[CACHE_AT..HEAD_BYTES].copy_from_slice(&1_000_000_u64.to_le_bytes());
        let mut sketch = HyperLogLog::parse(&bytes).unwrap();
        assert_eq!((sketch.add(b"a"), sketch.count()), (Ok(false), Ok(1_000_000)));
        assert_eq!((sketch.make_dense(), sketch.count()), (Ok(true), Ok(1_000_000)));
        assert_eq!((sketch.add(b"c"), sketch.count()), (Ok(true), Ok(3)));
    }

    #[test]
    fn other_bytes_are_told_apart() {
        let mut bytes = HyperLogLog::empty().as_bytes().to_vec();
        assert!(HyperLogLog::parse(&bytes[..15]).is_none());
        bytes[ENCODING_AT] = 0;
        assert!(HyperLogLog::parse(&bytes).is_none(), "too short for a dense one");
        bytes[ENCODING_AT] = 2;
        assert!(HyperLogLog::parse(&bytes).is_none());
        for runs in
            [&b""[..], b"\x7f\xfe", b"\x7f\xff\x00", b"\x7f\xff\x80", b"\x7f\xfe\x40", b"\x7f\xfe\x81"]
        {
            let mut bytes = HyperLogLog::empty().as_bytes()[..HEAD_BYTES].to_vec();
            bytes.extend_from_slice(runs);
            let sketch = HyperLogLog::parse(&bytes).unwrap();
            assert_eq!((sketch.registers(), sketch.count()), (Err(Corrupted), Err(Corrupted)), "{runs:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            stale: bool,
            (encoding, body) in prop_oneof![
                (Just(1_u8), prop::collection::vec(any::<u8>(), 0..400)),
                (Just(1), prop::collection::vec(0x78..=0xff_u8, 0..4000)),
                (0..2_u8, prop::collection::vec(any::<u8>(), DENSE_BYTES - HEAD_BYTES)),
            ],
            elements in prop::collection::vec(any::<[u8; 3]>(), 0..20),
        ) {
            let mut bytes = HyperLogLog::empty().as_bytes()[..HEAD_BYTES].to_vec();
            bytes[ENCODING_AT] = encoding;
            bytes[HEAD_BYTES - 1] = u8::from(stale) << 7;
            bytes.extend_from_slice(&body);
            let mut sketch = HyperLogLog::parse(&bytes).unwrap();
            let whole = sketch.registers().is_ok();
            let runs = sketch.runs().count();
            prop_assert!(runs <= body.len());
            for element in &elements {
                let added = sketch.add(element);
                prop_assert!(added.is_ok() || !whole);
            }
            prop_assert_eq!(sketch.registers().is_ok(), whole);
            prop_assert!(sketch.count().is_ok() || !whole);
            prop_assert_eq!(sketch.make_dense().is_ok(), whole || sketch.encoding() == Encoding::Dense);
        }

        #[test]
        fn sparse_and_dense_hold_the_same(
            changes in prop::collection::vec((prop_oneof![0..200_usize, 0..REGISTERS], 1..=36_u8), 0..300),
        ) {
            let (mut sparse, mut plain) = (HyperLogLog::empty(), dense(|_| 0));
            for (index, value) in changes {
                let value = if value > 34 { value } else { value % 4 + 1 };
                prop_assert_eq!(sparse.set(index, value), plain.set(index, value));
            }
            prop_assert_eq!(sparse.registers(), plain.registers());
            prop_assert_eq!(sparse.count(), plain.count());
            prop_assert!(sparse.encoding() == Encoding::Dense || sparse.as_bytes().len() <= SPARSE_MAX_BYTES);
            let copy = HyperLogLog::parse(sparse.as_bytes()).unwrap();
            sparse.make_dense().unwrap();
            prop_assert_eq!(sparse.as_bytes(), plain.as_bytes());
            let mut merged = HyperLogLog::empty();
            merged.merge(&copy.registers().unwrap()).unwrap();
            prop_assert_eq!(merged.registers(), copy.registers());
        }
    }
}

//! Which key comes next. Knows numbers, not names or commands.

use clap::ValueEnum;
use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Skew of the zipfian distributions: YCSB's.
const ZIPF_EXPONENT: f64 = 0.99;

/// How keys are drawn from the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// Every key alike.
    Uniform,
    /// A few keys much, scattered over the key space.
    Zipfian,
    /// The newest keys much: a zipfian distance from the last inserted.
    Latest,
    /// One after the other, over all threads.
    Sequential,
}

/// What all threads of a run share: how many keys there are by now, and the place of the sequence.
#[derive(Debug)]
pub struct KeySpace {
    inserted: AtomicU64,
    next: AtomicU64,
}

impl KeySpace {
    /// A key space of `keys` keys, of which all are taken to exist.
    pub fn new(keys: u64) -> Arc<KeySpace> {
        Arc::new(KeySpace { inserted: AtomicU64::new(keys), next: AtomicU64::new(0) })
    }
}

/// One thread's draws.
pub struct Keys {
    distribution: Distribution,
    keys: u64,
    zipf: Zipf<f64>,
    space: Arc<KeySpace>,
}

impl Keys {
    /// Draws of `distribution` from the first `keys` numbers (at least one).
    pub fn new(distribution: Distribution, keys: u64, space: Arc<KeySpace>) -> Keys {
        let zipf = Zipf::new(keys.max(1) as f64, ZIPF_EXPONENT)
            .expect("a key space has a key, and the exponent is positive");
        Keys { distribution, keys: keys.max(1), zipf, space }
    }

    /// The next key of the distribution.
    pub fn draw(&self, rng: &mut SmallRng) -> u64 {
        match self.distribution {
            Distribution::Uniform => rng.random_range(0..self.keys),
            Distribution::Zipfian => scatter(self.rank(rng)) % self.keys,
            Distribution::Latest => {
                let newest = self.space.inserted.load(Relaxed).max(1) - 1;
                newest - self.rank(rng).min(newest)
            }
            Distribution::Sequential => self.space.next.fetch_add(1, Relaxed) % self.keys,
        }
    }

    /// A key that nobody has had.
    pub fn insert(&self) -> u64 {
        self.space.inserted.fetch_add(1, Relaxed)
    }

    /// The key after this one, for runs of neighbours.
    pub fn after(&self, key: u64) -> u64 {
        (key + 1) % self.space.inserted.load(Relaxed).max(1)
    }

    fn rank(&self, rng: &mut SmallRng) -> u64 {
        self.zipf.sample(rng) as u64 - 1
    }
}

/// Spreads neighbouring ranks over the key space (the finaliser of splitmix64), so that hot keys do
/// not lie side by side in one block.
fn scatter(rank: u64) -> u64 {
    let mut z = rank.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn counts(distribution: Distribution, keys: u64, draws: usize) -> Vec<usize> {
        let source = Keys::new(distribution, keys, KeySpace::new(keys));
        let mut rng = SmallRng::seed_from_u64(7);
        let mut seen = vec![0; keys as usize];
        for _ in 0..draws {
            seen[source.draw(&mut rng) as usize] += 1;
        }
        seen
    }

    #[test]
    fn uniform_draws_every_key_alike() {
        let seen = counts(Distribution::Uniform, 100, 100_000);
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
    }

    #[test]
    fn zipfian_has_one_key_that_is_asked_for_much_and_it_is_not_the_first() {
        let seen = counts(Distribution::Zipfian, 1000, 100_000);
        let hottest = seen.iter().max().unwrap();
        // The first rank's share under exponent 0.99 over 1000 keys is 1 / 7.7.
        assert!((11_000..18_000).contains(hottest), "{hottest}");
        assert!(seen[0] < *hottest);
    }

    #[test]
    fn latest_prefers_what_was_inserted_last() {
        let source = Keys::new(Distribution::Latest, 100, KeySpace::new(100));
        for _ in 0..50 {
            source.insert();
        }
        let mut rng = SmallRng::seed_from_u64(7);
        let draws: Vec<u64> = (0..1000).map(|_| source.draw(&mut rng)).collect();
        assert!(draws.iter().all(|&k| (50..150).contains(&k)));
        assert!(draws.iter().filter(|&&k| k == 149).count() > 100);
    }

    #[test]
    fn sequential_visits_every_key_once_before_it_starts_again() {
        assert!(counts(Distribution::Sequential, 50, 100).iter().all(|&n| n == 2));
    }
}

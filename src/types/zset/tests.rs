//! Sorted sets against a model, and what their commands cost.

use super::*;
use crate::store::tx::Effect;
use crate::types::memory::{Memory, scope};
use std::collections::{BTreeMap, BTreeSet};

/// What a sorted set must be like: scores by member, and both in order.
#[derive(Default)]
struct Model {
    scores: BTreeMap<Vec<u8>, i32>,
    order: BTreeSet<(i32, Vec<u8>)>,
}

impl Model {
    fn put(&mut self, member: &[u8], score: i32) {
        self.remove(member);
        self.scores.insert(member.to_vec(), score);
        self.order.insert((score, member.to_vec()));
    }

    fn remove(&mut self, member: &[u8]) -> Option<i32> {
        let score = self.scores.remove(member)?;
        self.order.remove(&(score, member.to_vec()));
        Some(score)
    }

    fn list(&self) -> Vec<(Vec<u8>, f64)> {
        self.order.iter().map(|(score, member)| (member.clone(), f64::from(*score))).collect()
    }
}

fn with<T>(
    memory: &mut Memory,
    work: impl FnOnce(&mut Tx<'_>, &mut SortedSet<'static>) -> Result<T, Stop>,
) -> (T, Vec<Effect>) {
    let (result, effects) = memory.run(scope(), |tx| {
        let mut set = SortedSet::open(tx, tx.key(b"k"))?;
        let result = work(tx, &mut set)?;
        set.save(tx)?;
        Ok(result)
    });
    (result.unwrap(), effects)
}

fn window(places: Places, reverse: bool, offset: u64, count: u64) -> Window {
    Window { places, reverse, offset, count }
}

fn listed(memory: &mut Memory, window: &Window) -> Vec<(Vec<u8>, f64)> {
    let list = with(memory, |tx, set| set.list(tx, window)).0;
    list.into_iter().map(|(member, score)| (member.to_vec(), score)).collect()
}

fn check(memory: &mut Memory, model: &Model, random: &mut fastrand::Rng) {
    let all = model.list();
    assert_eq!(with(memory, |_, set| set.len()).0, all.len() as u64);
    assert_eq!(listed(memory, &Window::whole()), all);
    for _ in 0..20 {
        let (min, max) = (random.i32(-60..60), random.i32(-60..60));
        let range = ScoreRange {
            min: f64::from(min),
            min_open: random.bool(),
            max: f64::from(max),
            max_open: random.bool(),
        };
        let inside = |score: f64| {
            (if range.min_open { score > range.min } else { score >= range.min })
                && (if range.max_open { score < range.max } else { score <= range.max })
        };
        let mut expected: Vec<_> = all.iter().filter(|(_, score)| inside(*score)).cloned().collect();
        let count = with(memory, |tx, set| set.count(tx, &range.places())).0;
        assert_eq!(count, expected.len() as u64, "{range:?}");
        let reverse = random.bool();
        if reverse {
            expected.reverse();
        }
        let (offset, count) = (random.usize(..all.len() + 2), random.usize(..300));
        let expected: Vec<_> = expected.into_iter().skip(offset).take(count).collect();
        let window = window(range.places(), reverse, offset as u64, count as u64);
        assert_eq!(listed(memory, &window), expected, "{range:?} {offset} {count}");
    }
    for at in (0..all.len()).step_by(31) {
        let (member, score) = &all[at];
        assert_eq!(with(memory, |tx, set| set.rank(tx, member)).0, Some((at as u64, *score)));
    }
    let scanned = with(memory, |tx, set| {
        let (mut cursor, mut seen) = (0, BTreeSet::new());
        loop {
            cursor = set.scan(tx, cursor, 10, &mut |member, score| {
                assert!(seen.insert((member.to_vec(), score as i32)));
            })?;
            if cursor == 0 {
                return Ok(seen);
            }
        }
    });
    assert_eq!(scanned.0.len(), all.len());
}

#[test]
fn a_sorted_set_is_what_one_in_memory_is_in_its_row_and_out_of_it() {
    let mut random = fastrand::Rng::with_seed(11);
    let (mut memory, mut model) = (Memory::default(), Model::default());
    for (rounds, range, grow) in [(400, 60, 2), (4000, 1500, 3), (3000, 1500, 1), (300, 40, 2)] {
        for _ in 0..rounds {
            let member = format!("m{}", random.u32(..range)).into_bytes();
            if random.u32(..4) < grow {
                let score = random.i32(-50..50);
                let old = with(&mut memory, |tx, set| {
                    let old = set.score(tx, &member)?;
                    set.put(tx, &member, old, f64::from(score))?;
                    Ok(old)
                });
                assert_eq!(old.0, model.scores.get(&member).copied().map(f64::from));
                model.put(&member, score);
            } else {
                let removed = with(&mut memory, |tx, set| set.remove(tx, &member)).0;
                assert_eq!(removed, model.remove(&member).map(f64::from));
            }
        }
        check(&mut memory, &model, &mut random);
    }
    assert!(!memory.elements.is_empty(), "it has left its row");
    let expire = |tx: &mut Tx<'_>| {
        let row = tx.row(tx.key(b"k"))?.expect("it is there");
        tx.put(tx.key(b"k"), Row { expire_ms: Some(u64::MAX), ..row }, Some(true));
        Ok(())
    };
    memory.run(scope(), expire).0.unwrap();
    while model.scores.len() > 700 {
        let low = model.scores.len() as u64 / 3;
        let window = window(Places::all(), random.bool(), low, random.u64(1..60));
        let taken = with(&mut memory, |tx, set| set.take(tx, &window)).0;
        for (member, score) in taken {
            assert_eq!(model.remove(&member).map(f64::from), Some(score));
        }
    }
    check(&mut memory, &model, &mut random);
    assert!(memory.rows.values().all(|row| row.expire_ms == Some(u64::MAX)));
    for member in model.scores.keys() {
        with(&mut memory, |tx, set| set.remove(tx, member));
    }
    assert!(memory.rows.is_empty());
    let buckets = memory.elements.keys().all(|(.., sub)| sub[0] == 3);
    assert!(buckets && memory.elements.len() == 2, "the first bucket of each level stays with its version");
}

#[test]
fn what_is_put_at_once_is_found_again() {
    for len in [0, 1, 128, 129, 3000] {
        let (mut memory, mut model) = (Memory::default(), Model::default());
        with(&mut memory, |tx, set| set.put(tx, b"before", None, 1.0));
        for number in 0..len {
            model.put(format!("m{number}").as_bytes(), number % 40);
        }
        let members: Vec<_> =
            model.scores.iter().map(|(member, score)| (member, f64::from(*score))).collect();
        memory.run(scope(), |tx| SortedSet::replace(tx, tx.key(b"k"), &members)).0.unwrap();
        assert_eq!(memory.rows.is_empty(), len == 0);
        assert_eq!(memory.elements.is_empty(), len <= 128);
        assert!(
            memory.rows.values().all(|row| encoding(row) == if len > 128 { "skiplist" } else { "listpack" })
        );
        check(&mut memory, &model, &mut fastrand::Rng::with_seed(1));
    }
}

#[test]
fn the_form_follows_redis_not_our_own_layout() {
    let mut memory = Memory::default();
    let long = [b'x'; 65];
    let form = |memory: &Memory| memory.rows.values().next().map(encoding);
    for number in 0..100 {
        let member = format!("{number:064}");
        with(&mut memory, |tx, set| set.put(tx, member.as_bytes(), None, 0.0));
    }
    assert!(!memory.elements.is_empty());
    assert_eq!(form(&memory), Some("listpack"));
    with(&mut memory, |tx, set| set.put(tx, &long, None, 0.0));
    with(&mut memory, |tx, set| set.remove(tx, &long));
    assert_eq!(form(&memory), Some("skiplist"));
}

#[test]
fn every_member_is_as_likely_as_any_other() {
    for len in [50, 300] {
        let mut memory = Memory::default();
        let members: Vec<_> = (0..len).map(|number: u32| (number.to_string(), f64::from(number))).collect();
        memory.run(scope(), |tx| SortedSet::replace(tx, tx.key(b"k"), &members)).0.unwrap();
        let hits = with(&mut memory, |tx, set| {
            let mut hits: BTreeMap<Bytes, f64> = BTreeMap::new();
            for _ in 0..len * 100 {
                let (member, score) = set.random(tx)?;
                assert_eq!(member, score.to_string());
                *hits.entry(member).or_default() += 1.0;
            }
            Ok(hits)
        });
        let chi: f64 = hits.0.values().map(|hit| (hit - 100.0).powi(2) / 100.0).sum();
        assert!(chi < f64::from(len) + 5.0 * (2.0 * f64::from(len)).sqrt(), "{chi}");
        for count in [0, 1, 20, 49, 50, 1000] {
            let sampled = with(&mut memory, |tx, set| set.sample(tx, count)).0;
            let different: BTreeSet<_> = sampled.iter().map(|(member, _)| member).collect();
            assert_eq!(different.len() as u64, count.min(u64::from(len)));
        }
    }
}

#[test]
fn ranks_of_many_members_cost_a_few_hundred_reads() {
    let mut memory = Memory::default();
    const LEN: u32 = 100_000;
    let members: Vec<_> = (0..LEN).map(|number| (format!("m{number:06}"), f64::from(number))).collect();
    memory.run(scope(), |tx| SortedSet::replace(tx, tx.key(b"k"), &members)).0.unwrap();
    let mut cost =
        |most: u64, work: &mut dyn FnMut(&mut Tx<'_>, &mut SortedSet<'static>) -> Result<(), Stop>| {
            let reads = memory.element_reads;
            let ((), effects) = with(&mut memory, work);
            let reads = memory.element_reads - reads;
            assert!(reads <= most, "{reads}");
            effects.len()
        };
    let range = ScoreRange { min: 30_000.0, min_open: false, max: 70_000.0, max_open: true };
    cost(1, &mut |tx, set| set.score(tx, b"m050000").map(drop));
    cost(1000, &mut |tx, set| {
        assert_eq!(set.rank(tx, b"m050000")?, Some((50_000, 50_000.0)));
        Ok(())
    });
    cost(2000, &mut |tx, set| {
        assert_eq!(set.count(tx, &range.places())?, 40_000);
        Ok(())
    });
    for (offset, reverse, most) in
        [(0, true, 10), (99_990, false, 30), (50_000, false, 1000), (50_000, true, 1000)]
    {
        cost(most, &mut |tx, set| {
            let found = set.list(tx, &window(Places::all(), reverse, offset, 10))?;
            let first = if reverse { u64::from(LEN) - 1 - offset } else { offset };
            assert_eq!((found.len(), found[0].1 as u64), (10, first));
            Ok(())
        });
    }
    cost(1500, &mut |tx, set| {
        assert_eq!(set.list(tx, &window(range.places(), false, 20_000, 5))?[0].1, 50_000.0);
        Ok(())
    });
    cost(1500, &mut |tx, set| {
        assert_eq!(set.take(tx, &window(Places::all(), false, 60_000, 3))?.len(), 3);
        Ok(())
    });
    let written = cost(10, &mut |tx, set| set.put(tx, b"m000000", Some(0.0), 1.5));
    assert_eq!(written, 3, "a move within a bucket touches no bucket and no row");
    let written = cost(20, &mut |tx, set| set.put(tx, b"m000000", Some(1.5), 99_000.5));
    assert!(written <= 7, "three elements, two buckets of each level");
    let written = cost(10, &mut |tx, set| set.put(tx, b"new", None, 5.0));
    assert_eq!(written, 5, "two elements, two buckets, the row");
}

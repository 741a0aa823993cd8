//! Lists against a model, and what their operations cost.

use super::*;
use crate::store::row::ListEnds;
use crate::types::memory::{Memory, scope};
use crate::types::packed::Packed;
use std::collections::{BTreeMap, VecDeque};

type Model = VecDeque<Vec<u8>>;

fn edit<T>(memory: &mut Memory, work: impl FnOnce(&mut Tx<'_>, &mut List<'_>) -> Result<T, Stop>) -> T {
    let (result, _) = memory.run(scope(), |tx| {
        let key = tx.key(b"k");
        let mut list = List::load_or_new(tx, key)?;
        let result = work(tx, &mut list)?;
        list.save(tx);
        Ok(result)
    });
    result.unwrap()
}

fn row(memory: &Memory) -> Option<Row> {
    memory.rows.values().next().cloned()
}

/// Elements of the list's version, by their tag.
fn elements(memory: &Memory, tag: u8) -> BTreeMap<Vec<u8>, Bytes> {
    let version = row(memory).and_then(|row| row.version());
    let of = memory.elements.iter().filter(|((.., of, sub), _)| Some(*of) == version && sub[0] == tag);
    of.map(|((.., sub), value)| (sub[1..].to_vec(), value.clone())).collect()
}

/// What is stored keeps to the layout, and holds what the model does.
fn check(memory: &mut Memory, model: &Model) {
    let items = edit(memory, |tx, list| {
        assert_eq!(list.len(), model.len() as u64);
        list.range(tx, 0..u64::MAX)
    });
    assert!(items.iter().eq(model), "items differ");
    let Some(row) = row(memory) else {
        assert!(model.is_empty());
        return;
    };
    let Body::Elements { extra: Extra::List(ends), .. } = row.body else {
        assert!(matches!(row.body, Body::Inline(ref bytes) if bytes.len() <= INLINE_MAX_BYTES));
        assert!(model.len() as u64 <= INLINE_MAX);
        return;
    };
    let ListEnds { first, last, first_items, last_items, .. } = ends;
    let chunks: Vec<(u64, u64)> = elements(memory, 1)
        .into_iter()
        .map(|(order, bytes)| {
            let chunk = Chunk::decode(bytes).unwrap();
            assert!(chunk.fits() && chunk.count > 0);
            (u64::from_be_bytes(order.try_into().unwrap()), chunk.count)
        })
        .collect();
    // What was popped off an end may still stand in its chunk.
    let holds = |chunk: Option<&(u64, u64)>, order, items| {
        chunk.is_some_and(|(at, stored)| *at == order && *stored >= items && items > 0)
    };
    assert!(holds(chunks.first(), first, first_items));
    assert!(holds(chunks.last(), last, if first == last { first_items } else { last_items }));
    let inner: u64 = chunks.iter().filter(|(order, _)| *order != first && *order != last).map(|c| c.1).sum();
    for level in [0, 1] {
        let buckets = elements(memory, 3);
        let buckets = buckets.iter().filter(|(sub, _)| sub[0] == level);
        let weight: u64 = buckets.map(|(_, bucket)| Packed(bucket).u64().unwrap()).sum();
        assert_eq!(weight, inner, "level {level}");
    }
    let long = model.iter().filter(|item| item.len() > 64 * 1024).map(|item| item.len());
    let pieces = elements(memory, 127);
    assert_eq!(
        pieces.values().map(|piece| piece.len()).sum::<usize>(),
        long.sum::<usize>(),
        "pieces left behind"
    );
}

fn number(random: &mut fastrand::Rng, below: usize) -> usize {
    // Half the time near an end.
    match random.u8(..4) {
        0 => random.usize(..3).min(below - 1),
        1 => below - 1 - random.usize(..3).min(below - 1),
        _ => random.usize(..below),
    }
}

fn item(random: &mut fastrand::Rng, longest: usize) -> Vec<u8> {
    let len = match random.u16(..400) {
        0 => 70_000,
        1..20 => 3_000,
        20..200 => longest,
        _ => 8,
    };
    let mut item = format!("{:03}", random.u16(..300)).into_bytes();
    item.resize(len.max(3), b'.');
    item
}

/// Shrinks rather than grows where `grow` is small; it is out of 100.
fn step(memory: &mut Memory, model: &mut Model, random: &mut fastrand::Rng, grow: u8, longest: usize) {
    let end = if random.bool() { End::Head } else { End::Tail };
    if model.is_empty() || random.u8(..100) < grow {
        let items: Vec<_> = (0..random.usize(1..12)).map(|_| item(random, longest)).collect();
        edit(memory, |tx, list| list.push(tx, end, &items.iter().map(|item| &item[..]).collect::<Vec<_>>()));
        for item in items {
            match end {
                End::Head => model.push_front(item),
                End::Tail => model.push_back(item),
            }
        }
        return;
    }
    let (at, other) = (number(random, model.len()), item(random, longest));
    match random.u8(..12) {
        0..3 => {
            edit(memory, |tx, list| list.set(tx, at as u64, &other));
            model[at] = other;
        }
        3..5 => {
            let (pivot, behind) = (model[at].clone(), random.bool());
            assert!(edit(memory, |tx, list| list.insert(tx, &pivot, behind, &other)));
            let at = model.iter().position(|item| *item == pivot).unwrap();
            model.insert(at + usize::from(behind), other);
        }
        5 => {
            let (gone, most) = (model[at].clone(), random.u64(1..4));
            let removed = edit(memory, |tx, list| list.remove(tx, &gone, end, most));
            let mut hits: Vec<_> = (0..model.len()).filter(|at| model[*at] == gone).collect();
            if end == End::Tail {
                hits.reverse();
            }
            hits.truncate(most as usize);
            assert_eq!(removed, hits.len() as u64);
            hits.sort_unstable();
            for at in hits.into_iter().rev() {
                model.remove(at);
            }
        }
        6 if random.u8(..20) == 0 => {
            let keep = random.usize(..=at)..random.usize(at..=model.len());
            edit(memory, |tx, list| list.trim(tx, keep.start as u64..keep.end as u64));
            model.truncate(keep.end);
            let gone = keep.start.min(model.len());
            model.drain(..gone);
        }
        7 => {
            assert_eq!(edit(memory, |tx, list| list.get(tx, at as u64)).as_deref(), Some(&model[at][..]));
            let to = at + random.usize(..500);
            let range = edit(memory, |tx, list| list.range(tx, at as u64..to as u64));
            assert!(range.iter().eq(model.range(at..to.min(model.len()))));
        }
        8 => {
            let mut seen = Vec::new();
            let most = random.usize(1..400);
            edit(memory, |tx, list| {
                list.visit(tx, at as u64, true, &mut |tx, item| {
                    seen.push(item.read(tx)?);
                    Ok(seen.len() < most)
                })
            });
            assert!(seen.iter().eq(model.range(..=at).rev().take(most)));
        }
        9 => {
            let (wanted, skip) = (model[at].clone(), random.u64(..3));
            let search = Search { from: end, skip, matches: random.u64(1..4), items: random.u64(1..900) };
            let found = edit(memory, |tx, list| list.positions(tx, &wanted, search));
            let mut all: Vec<_> = (0..model.len()).collect();
            if end == End::Tail {
                all.reverse();
            }
            let hits = all.iter().take(search.items as usize).filter(|at| model[**at] == wanted);
            let hits = hits.skip(skip as usize).take(search.matches as usize).map(|at| *at as u64);
            assert_eq!(found, hits.collect::<Vec<_>>());
        }
        _ => {
            let count = random.u64(1..if grow < 20 { 40 } else { 6 });
            let popped = edit(memory, |tx, list| list.pop(tx, end, count));
            let expected: Vec<_> = (0..count)
                .map_while(|_| match end {
                    End::Head => model.pop_front(),
                    End::Tail => model.pop_back(),
                })
                .collect();
            assert_eq!(popped, expected);
        }
    }
}

#[test]
fn acts_as_a_deque_whatever_is_done() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut memory, mut model) = (Memory::default(), Model::new());
        let longest = [8, 700, 30, 1500, 100, 2100][seed as usize];
        for (grow, rounds) in [(60, 300), (10, 400), (80, 400), (30, 400), (5, 300)] {
            for round in 0..rounds {
                step(&mut memory, &mut model, &mut random, grow, longest);
                if round % 23 == 0 {
                    check(&mut memory, &model);
                }
            }
            check(&mut memory, &model);
        }
        // Popped to the last item, no chunk and no piece is left.
        let version = row(&memory).and_then(|row| row.version());
        while !model.is_empty() {
            model.pop_front();
            edit(&mut memory, |tx, list| list.pop(tx, End::Head, 1));
        }
        assert!(memory.rows.is_empty());
        let left = memory.elements.keys().filter(|(.., of, sub)| Some(*of) == version && sub[0] != 3);
        assert_eq!(left.count(), 0);
    }
}

fn filled(count: u64) -> Memory {
    let mut memory = Memory::default();
    for from in (0..count).step_by(1000) {
        let items: Vec<_> = (from..count.min(from + 1000)).map(|number| number.to_string()).collect();
        let items: Vec<_> = items.iter().map(|item| item.as_bytes()).collect();
        edit(&mut memory, |tx, list| list.push(tx, End::Tail, &items));
    }
    memory
}

#[test]
fn many_chunks_are_counted_right() {
    let mut memory = Memory::default();
    let (mut model, mut random) = (Model::new(), fastrand::Rng::with_seed(9));
    for round in 0..3000 {
        let grow = if model.len() < 9000 { 95 } else { 10 };
        step(&mut memory, &mut model, &mut random, grow, 900);
        if round % 500 == 0 {
            check(&mut memory, &model);
        }
    }
    assert!(elements(&memory, 3).len() > 4, "several buckets");
    check(&mut memory, &model);
}

#[test]
fn ends_cost_one_chunk_and_other_items_little() {
    let mut memory = filled(200_000);
    let mut cost = |work: &dyn Fn(&mut Tx<'_>, &mut List<'_>) -> Result<(), Stop>| {
        let before = memory.element_reads;
        let (result, effects) = memory.run(scope(), |tx| {
            let key = tx.key(b"k");
            let mut list = List::load_or_new(tx, key)?;
            work(tx, &mut list)?;
            list.save(tx);
            Ok(())
        });
        result.unwrap();
        (memory.element_reads - before, effects.len())
    };
    for end in [End::Head, End::Tail] {
        let (mut reads, mut writes) = (0, 0);
        for round in 0..2_000 {
            let (read, written) = cost(&|tx, list| match round % 4 {
                3 => list.pop(tx, end, 1).map(drop),
                _ => list.push(tx, end, &[b"an item"]),
            });
            reads += read;
            writes += written;
        }
        assert!(reads < 2_100 && writes < 4_100, "one chunk each, and its row: {reads}, {writes}");
    }
    let mut item = |index: u64| cost(&|tx, list| list.get(tx, index).map(drop)).0;
    let costs: Vec<_> = [0, 202_000 - 1, 100_000, 1000, 201_000].map(&mut item).into();
    assert!(costs[..2] == [1, 1] && costs.iter().all(|reads| *reads < 800), "{costs:?}");
    let mut range = |from: u64| cost(&|tx, list| list.range(tx, from..from + 100).map(drop)).0;
    assert!(range(0) <= 2 && range(201_900) <= 4);
    let (reads, writes) = cost(&|tx, list| list.push(tx, End::Head, &[b"x".as_slice(); 1280]));
    assert!(reads < 60 && writes < 20, "full chunks are written once: {reads}, {writes}");
    assert_eq!(cost(&|tx, list| list.trim(tx, 9..9)), (0, 1), "nothing is kept");
}

#[test]
fn much_work_leaves_the_turn() {
    let mut memory = filled(200_000);
    let few = crate::store::tx::Scope { steps_max: 2_000, ..scope() };
    for work in [0, 1, 2] {
        let (result, _) = memory.run(few, |tx| {
            let key = tx.key(b"k");
            let mut list = List::load_or_new(tx, key)?;
            match work {
                0 => list.range(tx, 0..100_000).map(drop),
                1 => list.remove(tx, b"nothing", End::Head, 1).map(drop),
                _ => list.push(tx, End::Tail, &[b"item".as_slice(); 100_000]),
            }
        });
        assert!(matches!(result, Err(Stop::Long)), "{work}");
    }
}

#[test]
fn chunks_get_new_orders_where_there_is_no_gap() {
    let (mut memory, mut model) = (Memory::default(), Model::new());
    for number in 0..1000 {
        edit(&mut memory, |tx, list| list.push(tx, End::Tail, &[format!("{number}").as_bytes()]));
        model.push_back(number.to_string().into_bytes());
    }
    // Always at one place: halves of halves soon leave no gap.
    for number in 0..4000 {
        let item = format!("new {number}").into_bytes();
        assert!(edit(&mut memory, |tx, list| list.insert(tx, b"300", number % 2 == 0, &item)));
        let at = model.iter().position(|item| item == b"300").unwrap();
        model.insert(at + (number + 1) % 2, item);
    }
    check(&mut memory, &model);
}

#[test]
fn chunks_get_new_orders_where_orders_end() {
    for end in [End::Head, End::Tail] {
        for count in [200, 2000] {
            let mut memory = filled(count);
            let mut model: Model = (0..count).map(|number| number.to_string().into_bytes()).collect();
            // As if it had long moved in one direction.
            let (at, mut row) = memory.rows.pop_first().unwrap();
            let Body::Elements { extra: Extra::List(ends), .. } = &mut row.body else { panic!("it is long") };
            let by = match end {
                End::Head => ends.first - 5,
                End::Tail => u64::MAX - 5 - ends.last,
            };
            let moved = |order: u64| match end {
                End::Head => order - by,
                End::Tail => order + by,
            };
            (ends.first, ends.last) = (moved(ends.first), moved(ends.last));
            memory.rows.insert(at, row);
            let old = std::mem::take(&mut memory.elements);
            for ((table, name, version, sub), value) in old {
                let mut sub = sub.to_vec();
                if let Some(order) = sub.last_chunk_mut::<8>() {
                    *order = moved(u64::from_be_bytes(*order)).to_be_bytes();
                }
                memory.elements.insert((table, name, version, sub.into()), value);
            }
            check(&mut memory, &model);
            for number in 0..300 {
                let item = format!("new {number}").into_bytes();
                edit(&mut memory, |tx, list| list.push(tx, end, &[&item]));
                match end {
                    End::Head => model.push_front(item),
                    End::Tail => model.push_back(item),
                }
            }
            check(&mut memory, &model);
        }
    }
}

#[test]
fn an_expiry_stays_and_a_replaced_value_goes() {
    let mut memory = filled(3);
    memory.rows.values_mut().for_each(|row| row.expire_ms = Some(scope().now_ms + 5));
    edit(&mut memory, |tx, list| list.push(tx, End::Head, &[b"a".as_slice(); 200]));
    assert_eq!(row(&memory).unwrap().expire_ms, Some(scope().now_ms + 5));
    let items: Vec<_> = (0..500).map(|number: u32| number.to_be_bytes()).collect();
    let replace = |tx: &mut Tx<'_>| List::replace(tx, tx.key(b"k"), items.iter().map(|item| &item[..]));
    assert_eq!(memory.run(scope(), replace).0.unwrap(), 500);
    check(&mut memory, &items.iter().map(|item| item.to_vec()).collect());
    assert_eq!(row(&memory).unwrap().expire_ms, None);
    memory.run(scope(), |tx| List::replace(tx, tx.key(b"k"), std::iter::empty())).0.unwrap();
    assert!(memory.rows.is_empty());
}

#[test]
fn damaged_chunks_are_faults() {
    let mut memory = filled(1000);
    let at = memory.elements.keys().find(|(.., sub)| sub[0] == 1).unwrap().clone();
    memory.elements.insert(at.clone(), Bytes::from_static(&[200, 1, 9]));
    let read = |tx: &mut Tx<'_>| {
        let list = List::load(tx, tx.key(b"k"))?.expect("it is there");
        list.range(tx, 0..10)
    };
    assert!(matches!(memory.run(scope(), read).0, Err(Stop::Fault(_))));
    memory.elements.remove(&at);
    assert!(matches!(memory.run(scope(), read).0, Err(Stop::Fault(_))));
}

//! Streams against plain maps, what they cost, and that nothing of them stays behind.

use super::*;
use crate::types::dump;
use crate::types::memory::{Memory, scope};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn key(tx: &Tx<'_>) -> KeyRef<'static> {
    tx.key(b"k")
}

fn id(number: u64) -> StreamId {
    StreamId { ms: number / 3, seq: number % 3 }
}

/// Runs `work` on the stream under `k`, made if need be, and saves it.
fn change<T>(memory: &mut Memory, work: impl FnOnce(&mut Tx<'_>, &mut Stream<'_>) -> Result<T, Stop>) -> T {
    let run = |tx: &mut Tx<'_>| {
        let loaded = Stream::load(tx, key(tx))?;
        let mut stream = match loaded {
            Some(stream) => stream,
            None => Stream::new(tx, key(tx))?,
        };
        let result = work(tx, &mut stream)?;
        stream.save(tx);
        Ok(result)
    };
    memory.run(scope(), run).0.unwrap()
}

fn append(memory: &mut Memory, id: StreamId, value: &[u8]) {
    change(memory, |tx, stream| stream.append(tx, id, 1, [b"f", value].into_iter()));
}

/// A stream of entries 1 to `count`, and a group that reads from the beginning.
fn filled(count: u64) -> Memory {
    let mut memory = Memory::default();
    (1..=count).for_each(|number| append(&mut memory, id(number), b"v"));
    change(&mut memory, |tx, stream| {
        stream.create_group(b"g", StreamId::MIN, Some(0)).save(tx);
        Ok(())
    });
    memory
}

fn with_group<T>(
    memory: &mut Memory,
    work: impl FnOnce(&mut Tx<'_>, &mut Group<'_>) -> Result<T, Stop>,
) -> T {
    change(memory, |tx, stream| {
        let mut group = stream.group(tx, b"g")?.expect("it was made");
        let result = work(tx, &mut group)?;
        group.save(tx);
        Ok(result)
    })
}

fn reads(memory: &mut Memory, work: impl FnOnce(&mut Memory)) -> (u64, u64) {
    (memory.row_reads, memory.element_reads) = (0, 0);
    work(memory);
    (memory.row_reads, memory.element_reads)
}

#[test]
fn adding_reads_the_row_alone_and_puts_one_element() {
    let mut memory = filled(1000);
    let add = |tx: &mut Tx<'_>| {
        let mut stream = Stream::load(tx, key(tx))?.expect("it is filled");
        stream.append(tx, id(2000), 1, [&b"f"[..], b"v"].into_iter())?;
        stream.trim(tx, Trim { keep: Keep::Newest(5000), roughly: false, most: u64::MAX })?;
        stream.trim(tx, Trim { keep: Keep::From(id(1)), roughly: true, most: u64::MAX })?;
        stream.save(tx);
        Ok(())
    };
    (memory.row_reads, memory.element_reads) = (0, 0);
    let (result, effects) = memory.run(scope(), add);
    result.unwrap();
    assert_eq!(effects.len(), 2);
    assert_eq!((memory.row_reads, memory.element_reads), (1, 0));
}

#[test]
fn ranges_and_trimming_read_what_they_answer() {
    let mut memory = filled(1000);
    let few = |memory: &mut Memory| {
        let found = change(memory, |tx, stream| stream.range(tx, id(500), StreamId::MAX, false, 10));
        assert_eq!(found.len(), 10);
    };
    assert_eq!(reads(&mut memory, few), (1, 10));
    let trim = |memory: &mut Memory| {
        let trim = Trim { keep: Keep::Newest(900), roughly: false, most: u64::MAX };
        assert_eq!(change(memory, |tx, stream| stream.trim(tx, trim)), 100);
    };
    assert_eq!(reads(&mut memory, trim), (1, 101), "and the one that is first now");
    let first = |memory: &mut Memory| {
        assert_eq!(change(memory, |tx, stream| stream.edge(tx, false)).unwrap().id, id(101));
        assert_eq!(change(memory, |tx, stream| stream.edge(tx, true)).unwrap().id, id(1000));
        assert_eq!(change(memory, |tx, stream| stream.get(tx, id(7))), None);
    };
    assert_eq!(reads(&mut memory, first), (3, 2));
}

#[test]
fn delivering_looks_for_nothing_that_cannot_be_pending() {
    let mut memory = filled(1000);
    let deliver = |memory: &mut Memory, from: u64| {
        let ids: Vec<_> = (from..from + 50).map(id).collect();
        with_group(memory, |tx, group| {
            group.open_consumer(tx, b"c", true)?;
            group.deliver(tx, &ids, b"c")
        });
    };
    deliver(&mut memory, 1);
    assert_eq!(reads(&mut memory, |memory| deliver(memory, 51)), (1, 2), "the group and the consumer");
    assert_eq!(reads(&mut memory, |memory| deliver(memory, 76)), (1, 27), "and what is pending of these");
    with_group(&mut memory, |_, group| {
        assert_eq!((group.head.pending, group.head.consumers), (125, 1));
        Ok(())
    });
    let acknowledge = |memory: &mut Memory| {
        with_group(memory, |tx, group| {
            for number in 1..=10 {
                let pending = group.pending_at(tx, id(number))?.expect("it was delivered");
                group.release(tx, id(number), &pending)?;
            }
            assert_eq!(group.pending_at(tx, id(999))?, None);
            Ok(())
        });
    };
    assert_eq!(reads(&mut memory, acknowledge), (1, 12), "each once, the group and the consumer");
}

#[test]
fn long_entries_lie_in_pieces_and_leave_none_behind() {
    let long = vec![b'x'; 100_000];
    let mut memory = Memory::default();
    for number in 1..=4 {
        append(&mut memory, id(number), &long);
    }
    assert!(memory.elements.values().all(|value| value.len() < 70_000));
    let read = change(&mut memory, |tx, stream| stream.get(tx, id(2))).expect("it was added");
    assert_eq!(read.texts().unwrap(), [&b"f"[..], &long[..]]);
    change(&mut memory, |tx, stream| stream.delete(tx, &[id(2), id(2), id(9)]));
    let trim = Trim { keep: Keep::Newest(1), roughly: false, most: u64::MAX };
    assert_eq!(change(&mut memory, |tx, stream| stream.trim(tx, trim)), 2);
    assert_eq!(memory.elements.len(), 1 + 7, "an entry and its pieces");
    let trim = Trim { keep: Keep::Newest(0), ..trim };
    change(&mut memory, |tx, stream| stream.trim(tx, trim));
    assert!(memory.elements.is_empty());
    assert_eq!(memory.rows.len(), 1, "a stream without entries is still there");
}

#[test]
fn trimming_roughly_takes_hundreds_and_no_more_than_it_may() {
    let mut memory = filled(1000);
    let mut trim =
        |keep, most| change(&mut memory, |tx, stream| stream.trim(tx, Trim { keep, roughly: true, most }));
    assert_eq!(trim(Keep::Newest(901), u64::MAX), 0);
    assert_eq!(trim(Keep::Newest(750), u64::MAX), 200);
    assert_eq!(trim(Keep::Newest(0), 150), 100);
    assert_eq!(trim(Keep::Newest(0), 99), 0);
    assert_eq!(trim(Keep::From(id(301)), u64::MAX), 0);
    assert_eq!(trim(Keep::From(id(400)), 50), 50);
    assert_eq!(trim(Keep::From(id(400)), u64::MAX), 49);
}

#[test]
fn a_deleted_group_leaves_nothing() {
    let mut memory = filled(10);
    for (name, from) in [("a", 1), ("\u{ff}", 4), ("", 7)] {
        let ids: Vec<_> = (from..from + 3).map(id).collect();
        with_group(&mut memory, |tx, group| {
            group.open_consumer(tx, name.as_bytes(), true)?;
            group.deliver(tx, &ids, name.as_bytes())
        });
    }
    // Its neighbours by name stay.
    for name in [&b"g\xff"[..], b"gg", b"", b"\xff\xff"] {
        change(&mut memory, |tx, stream| {
            let mut group = stream.create_group(name, StreamId::MIN, None);
            group.open_consumer(tx, b"a", true)?;
            group.deliver(tx, &[id(1)], b"a")?;
            group.save(tx);
            Ok(())
        });
    }
    let deleted = with_group(&mut memory, |tx, group| group.delete_consumer(tx, "\u{ff}".as_bytes()));
    assert_eq!(deleted, Some(3));
    change(&mut memory, |tx, stream| {
        let group = stream.group(tx, b"g")?.expect("it was made");
        assert_eq!((group.head.pending, group.head.consumers), (6, 2));
        stream.delete_group(tx, group)
    });
    change(&mut memory, |tx, stream| {
        let names: Vec<_> = stream.groups(tx)?.into_iter().map(|group| group.name).collect();
        assert_eq!(names, [&b""[..], b"gg", b"g\xff", b"\xff\xff"]);
        assert_eq!(stream.head.groups, 4);
        Ok(())
    });
    assert_eq!(memory.elements.len(), 10 + 4 * 4, "entries; a group, a consumer and an entry's two pendings");
}

#[test]
fn stored_bytes_that_cannot_be_are_a_fault() {
    let mut memory = filled(3);
    memory.elements.values_mut().for_each(|value| *value = Bytes::from_static(b"\x07"));
    let read = |tx: &mut Tx<'_>| {
        let stream = Stream::load(tx, key(tx))?.expect("it is filled");
        stream.range(tx, StreamId::MIN, StreamId::MAX, false, 9).map(|_| ())
    };
    assert!(matches!(memory.run(scope(), read).0, Err(Stop::Fault(_))));
    let group = |tx: &mut Tx<'_>| {
        let stream = Stream::load(tx, key(tx))?.expect("it is filled");
        stream.group(tx, b"g").map(|_| ())
    };
    assert!(matches!(memory.run(scope(), group).0, Err(Stop::Fault(_))));
    for packed in [&b"\x02\x01a"[..], b"\x01\x01a\x01bc", b"", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
        let entry = Entry { id: id(1), packed: Bytes::from_static(packed) };
        assert!(matches!(entry.texts(), Err(Stop::Fault(_))), "{packed:?}");
    }
}

/// What a stream does, with numbers that are brought into range.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u64),
    Delete(u64),
    Trim { keep: u64, by_id: bool },
    Read { consumer: u8, count: u64 },
    SetBack(u64),
    Release(u64),
    Assign { id: u64, consumer: u8 },
    DeleteConsumer(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let consumer = || 0..3u8;
    prop_oneof![
        6 => (1..4u64).prop_map(Step::Append),
        2 => (0..60u64).prop_map(Step::Delete),
        1 => (0..40u64, any::<bool>()).prop_map(|(keep, by_id)| Step::Trim { keep, by_id }),
        4 => (consumer(), 1..5u64).prop_map(|(consumer, count)| Step::Read { consumer, count }),
        1 => (0..60u64).prop_map(Step::SetBack),
        3 => (0..60u64).prop_map(Step::Release),
        3 => (0..60u64, consumer()).prop_map(|(id, consumer)| Step::Assign { id, consumer }),
        1 => consumer().prop_map(Step::DeleteConsumer),
    ]
}

#[derive(Default)]
struct Model {
    last: u64,
    entries: BTreeMap<StreamId, u64>,
    deleted: StreamId,
    group_last: StreamId,
    pending: BTreeMap<StreamId, u8>,
    consumers: std::collections::BTreeSet<u8>,
}

impl Model {
    fn step(&mut self, memory: &mut Memory, step: Step) {
        match step {
            Step::Append(gap) => {
                self.last += gap;
                append(memory, id(self.last), self.last.to_string().as_bytes());
                self.entries.insert(id(self.last), self.last);
            }
            Step::Delete(number) => {
                let deleted = change(memory, |tx, stream| stream.delete(tx, &[id(number)]));
                let was = self.entries.remove(&id(number)).is_some();
                assert_eq!(deleted, u64::from(was));
                if was {
                    self.deleted = self.deleted.max(id(number));
                }
            }
            Step::Trim { keep, by_id } => {
                let kept: BTreeMap<_, _> = match by_id {
                    true => self.entries.split_off(&id(keep)),
                    false => self.entries.iter().rev().take(keep as usize).map(|(a, b)| (*a, *b)).collect(),
                };
                let before = change(memory, |_, stream| Ok(stream.len));
                let keep = if by_id { Keep::From(id(keep)) } else { Keep::Newest(keep) };
                let trim = Trim { keep, roughly: false, most: u64::MAX };
                assert_eq!(change(memory, |tx, stream| stream.trim(tx, trim)), before - kept.len() as u64);
                self.entries = kept;
            }
            Step::Read { consumer, count } => {
                let new = self.entries.keys().filter(|id| **id > self.group_last);
                let ids: Vec<StreamId> = new.take(count as usize).copied().collect();
                with_group(memory, |tx, group| {
                    group.open_consumer(tx, &[consumer], true)?;
                    group.head.last_id = ids.last().copied().unwrap_or(group.head.last_id);
                    group.deliver(tx, &ids, &[consumer])
                });
                self.consumers.insert(consumer);
                self.group_last = ids.last().copied().unwrap_or(self.group_last);
                self.pending.extend(ids.into_iter().map(|id| (id, consumer)));
            }
            Step::SetBack(number) => {
                self.group_last = id(number);
                with_group(memory, |_, group| {
                    group.head.last_id = id(number);
                    Ok(())
                });
            }
            Step::Release(number) => with_group(memory, |tx, group| {
                let pending = group.pending_at(tx, id(number))?;
                let expected = self.pending.remove(&id(number)).map(|consumer| vec![consumer]);
                assert_eq!(pending.as_ref().map(|pending| pending.consumer.to_vec()), expected);
                pending.map_or(Ok(()), |pending| group.release(tx, id(number), &pending))
            }),
            Step::Assign { id: number, consumer } => {
                with_group(memory, |tx, group| {
                    let before = group.pending_at(tx, id(number))?;
                    let name = Bytes::copy_from_slice(&[consumer]);
                    group.open_consumer(tx, &name, true)?;
                    let now = Pending { delivered_ms: number, deliveries: 3, consumer: name };
                    group.assign(tx, id(number), before.as_ref(), &now)
                });
                self.consumers.insert(consumer);
                self.pending.insert(id(number), consumer);
            }
            Step::DeleteConsumer(consumer) => {
                let held = self.pending.values().filter(|holder| **holder == consumer).count() as u64;
                let expected = self.consumers.remove(&consumer).then_some(held);
                self.pending.retain(|_, holder| *holder != consumer);
                assert_eq!(with_group(memory, |tx, group| group.delete_consumer(tx, &[consumer])), expected);
            }
        }
    }

    fn check(&self, memory: &mut Memory) {
        change(memory, |tx, stream| {
            let numbered: Vec<_> =
                self.entries.iter().map(|(id, number)| (*id, number.to_string())).collect();
            let mut told = Vec::new();
            for entry in stream.range(tx, StreamId::MIN, StreamId::MAX, false, u64::MAX)? {
                told.push((entry.id, String::from_utf8_lossy(&entry.texts()?[1]).into_owned()));
            }
            assert_eq!(told, numbered);
            let mut backward = stream.range(tx, StreamId::MIN, StreamId::MAX, true, u64::MAX)?;
            backward.reverse();
            assert!(backward.iter().map(|entry| entry.id).eq(self.entries.keys().copied()));
            assert_eq!(stream.len, numbered.len() as u64);
            assert_eq!(stream.head.first_id, numbered.first().map_or(StreamId::MIN, |(id, _)| *id));
            assert_eq!(stream.head.last_id, id(self.last));
            assert_eq!(stream.head.max_deleted_id, self.deleted);
            let group = stream.group(tx, b"g")?.expect("it was made");
            let all: Vec<_> = self.pending.iter().map(|(id, consumer)| (*id, *consumer)).collect();
            let ids = |pending: Vec<(StreamId, Pending)>| -> Vec<_> {
                pending.into_iter().map(|(id, pending)| (id, pending.consumer[0])).collect()
            };
            assert_eq!(ids(group.pending(tx, PendingRange::ALL)?), all);
            assert_eq!(group.pending_edges(tx)?, all.first().zip(all.last()).map(|(a, b)| (a.0, b.0)));
            let consumers = group.consumers(tx)?;
            assert!(consumers.iter().map(|(name, _)| name[0]).eq(self.consumers.iter().copied()));
            for (name, consumer) in &consumers {
                let range = PendingRange { consumer: Some(name), ..PendingRange::ALL };
                let of_one: Vec<_> =
                    all.iter().filter(|(_, holder)| [*holder] == name[..]).copied().collect();
                assert_eq!(consumer.pending, of_one.len() as u64);
                assert_eq!(ids(group.pending(tx, range)?), of_one);
            }
            assert_eq!(group.head.pending, all.len() as u64);
            assert_eq!(group.head.consumers, consumers.len() as u64);
            Ok(())
        });
        let expected = self.entries.len() + 1 + self.consumers.len() + 2 * self.pending.len();
        assert_eq!(memory.elements.len(), expected, "nothing is left that belongs to nothing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn streams_act_as_maps_do(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut memory, mut model) = (filled(0), Model::default());
        for step in steps {
            model.step(&mut memory, step);
        }
        model.check(&mut memory);
        let before = change(&mut memory, |tx, stream| stream.export(tx));
        for made in [copied(&mut memory), imported(&mut memory, &before)] {
            prop_assert!(made == before);
        }
        let trim = Trim { keep: Keep::Newest(0), roughly: false, most: u64::MAX };
        change(&mut memory, |tx, stream| {
            let group = stream.group(tx, b"g")?.expect("it was made");
            stream.delete_group(tx, group)?;
            stream.trim(tx, trim)
        });
        prop_assert!(memory.elements.keys().all(|(_, name, ..)| name != &b"k"[..]));
    }
}

fn exported(memory: &mut Memory, name: &'static [u8]) -> dump::Stream {
    let export = |tx: &mut Tx<'_>| {
        let key = tx.key(name);
        Stream::load(tx, key)?.expect("it was just made").export(tx)
    };
    memory.run(scope(), export).0.unwrap()
}

fn copied(memory: &mut Memory) -> dump::Stream {
    let work = |tx: &mut Tx<'_>| {
        let (from, to) = (tx.key(b"k"), tx.key(b"copy"));
        let row = tx.row(from)?.expect("it is filled");
        let row = crate::types::any::copy(tx, from, &row, to)?;
        tx.put(to, row, None);
        Ok(())
    };
    memory.run(scope(), work).0.unwrap();
    exported(memory, b"copy")
}

/// Through a payload as well, which does not know when consumers were active.
fn imported(memory: &mut Memory, stream: &dump::Stream) -> dump::Stream {
    let payload = dump::encode(&dump::Value::Stream(stream.clone()));
    let Ok(dump::Value::Stream(mut read)) = dump::decode(&payload, 1 << 20) else {
        panic!("a stream's payload is one");
    };
    for (read, written) in read.groups.iter_mut().zip(&stream.groups) {
        for (read, written) in read.consumers.iter_mut().zip(&written.consumers) {
            read.active_ms = written.active_ms;
        }
    }
    let work = |tx: &mut Tx<'_>| {
        let to = tx.key(b"restored");
        let row = Stream::import(tx, to, &read)?;
        tx.put(to, row, None);
        Ok(())
    };
    memory.run(scope(), work).0.unwrap();
    exported(memory, b"restored")
}

//! Whole payloads of every type: what Redis wrote, what it must refuse, and what is made here.

use super::listpack::Builder;
use super::*;
use crate::store::row::StreamId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MAX_BYTES: u64 = 1 << 20;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn sealed(content: &[u8], version: u16) -> Vec<u8> {
    let mut payload = content.to_vec();
    payload.extend_from_slice(&version.to_le_bytes());
    let checksum = CRC64.checksum(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

fn read(content: &[u8]) -> Result<Value, Refused> {
    decode(&sealed(content, 12), MAX_BYTES)
}

fn string(text: impl AsRef<[u8]>) -> Value {
    Value::String(text.as_ref().to_vec())
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn scored(members: &[(&str, f64)]) -> Value {
    Value::SortedSet(members.iter().map(|(member, score)| (member.as_bytes().to_vec(), *score)).collect())
}

fn hash(fields: &[(&str, &str, u64)]) -> Value {
    let field = |&(field, value, ms): &(&str, &str, u64)| HashField {
        field: field.into(),
        value: value.into(),
        expire_ms: (ms > 0).then_some(ms),
    };
    Value::Hash(fields.iter().map(field).collect())
}

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId { ms, seq }
}

fn entry(id: StreamId, fields: &[(&str, &str)]) -> (StreamId, stream::Fields) {
    (id, fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect())
}

const YEAR_2100_MS: u64 = 4_102_444_800_000;

/// Answers of redis-server 7.0.15 to DUMP.
fn dumped() -> Vec<(&'static str, Value)> {
    let long = "x".repeat(70);
    vec![
        ("000568656c6c6f0a006372df766534200a", string("hello")),
        ("00c17fff0a001760822854808480", string("-129")),
        ("00c30928016161e01b000161610a00cf092faaae25831d", string("a".repeat(40))),
        (
            "120102c31c405c145c00000005008161028001dffb02f1001003e04678e03c000148ff0a00d7023d931f5f0a6b",
            Value::List(texts(&["a", "", "-5", "4096", &long])),
        ),
        (
            "1203020a0a0000000100816102ff01c3091e016262e01100016262020a0a0000000100816302ff0a007239512709\
             1a5cb4",
            Value::List(texts(&["a", &"b".repeat(30), "c"])),
        ),
        (
            "0b140400000003000000feffffff01000000701101000a0030527df8cc311f3b",
            Value::Set(texts(&["-2", "1", "70000"])),
        ),
        ("0202c00101610a00b064e3d36cb07eb6", Value::Set(texts(&["1", "a"]))),
        (
            "111d1d0000000600816202842d696e660581610283312e35048163020301ff0a002970c58fcde6fc31",
            scored(&[("b", f64::NEG_INFINITY), ("a", 1.5), ("c", 3.0)]),
        ),
        (
            "05020161000000000000f83f0162000000000000f0ff0a0048977e33659e660b",
            scored(&[("a", 1.5), ("b", f64::NEG_INFINITY)]),
        ),
        (
            "1013130000000400816602817602816e02c3e802ff0a00f85d7df535b625f1",
            hash(&[("f", "v", 0), ("n", "1000", 0)]),
        ),
        ("0401016601760a00adf24356b1860efc", hash(&[("f", "v", 0)])),
        (DUMPED_STREAM, Value::Stream(dumped_stream())),
    ]
}

const DUMPED_STREAM: &str = "\
    13011000000000000003e800000000000000013e3e00000018000201010101018166020001020100010001817602040103010001\
    0101817702040100010101dfff02020181670205018168028179020801ff0243e90043e80143e80203010367727043e802020200\
    000000000003e80000000000000001a2e6b11fa20100000100000000000003e80000000000000002a2e6b11fa201000001020263\
    31a2e6b11fa20100000200000000000003e8000000000000000100000000000003e80000000000000002026332a2e6b11fa20100\
    00000a00e49284a61f2bfed5";

/// As XINFO STREAM FULL told it. One of three entries was deleted after both of the first had been delivered.
fn dumped_stream() -> Stream {
    let seen_ms = 1_795_828_082_338;
    let pending = |seq| Pending { id: id(1000, seq), delivered_ms: seen_ms, deliveries: 1, consumer: 0 };
    let consumer = |name: &str| Consumer { name: name.into(), seen_ms, active_ms: Some(seen_ms) };
    Stream {
        entries: vec![entry(id(1000, 1), &[("f", "v")]), entry(id(1001, 0), &[("g", "5"), ("h", "y")])],
        length: 2,
        last_id: id(1001, 0),
        first_id: id(1000, 1),
        max_deleted_id: id(1000, 2),
        entries_added: 3,
        groups: vec![Group {
            name: b"grp".to_vec(),
            last_id: id(1000, 2),
            entries_read: Some(2),
            pending: vec![pending(1), pending(2)],
            consumers: vec![consumer("c1"), consumer("c2")],
        }],
    }
}

/// Forms that 7.0.15 does not write, made by hand. Up to type 17, that server made the same values of them.
fn by_hand() -> Vec<(&'static str, Value)> {
    vec![
        ("01030161c00500", Value::List(texts(&["a", "5", ""]))),
        (
            "0304016103312e350162fe0163ff0164052d31652b33",
            scored(&[("a", 1.5), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", -1000.0)]),
        ),
        ("090e0203616263020178792e000000ff", hash(&[("abc", "xy", 0), ("", "", 0)])),
        ("0a0d0d0000000a000000010000f6ff", Value::List(texts(&["5"]))),
        (
            "0c262600000022000000080000016103f20201620303312e350501630303696e6605016403fef9ff",
            scored(&[("a", 1.0), ("b", 1.5), ("c", f64::INFINITY), ("d", -7.0)]),
        ),
        ("0d10100000000d00000002000001610300ff", hash(&[("a", "", 0)])),
        (
            "0e030d0d0000000a000000010000f6ff0b0b0000000a0000000000ff0d0d0000000a000000010000f7ff",
            Value::List(texts(&["5", "6"])),
        ),
        ("14131300000004008161020501816202822d3003ff", Value::Set(texts(&["a", "5", "b", "-0"]))),
        ("160281000003bb2cc3d800016101310001620132", hash(&[("a", "1", YEAR_2100_MS), ("b", "2", 0)])),
        (
            "171e1e00000006008161020501f400d8c32cbb030000098162028178020001ff",
            hash(&[("a", "5", YEAR_2100_MS), ("b", "x", 0)]),
        ),
        (
            "1800d8c32cbb030000030101610131000162013243e901630178",
            hash(&[("a", "1", YEAR_2100_MS), ("b", "2", 0), ("c", "x", YEAR_2100_MS + 1000)]),
        ),
        (
            "1900d8c32cbb0300002d2d00000009008161020501f400d8c32cbb03000009816202817802f409d8c32cbb0300000981\
             630280010001ff",
            hash(&[("a", "5", YEAR_2100_MS), ("b", "x", YEAR_2100_MS + 9), ("c", "", 0)]),
        ),
    ]
}

#[test]
fn what_redis_dumps_is_read() {
    for (payload, value) in dumped() {
        assert_eq!(decode(&bytes(payload), MAX_BYTES).as_ref(), Ok(&value), "{payload}");
    }
}

#[test]
fn what_other_versions_dump_is_read() {
    for (content, value) in by_hand() {
        assert_eq!(read(&bytes(content)).as_ref(), Ok(&value), "{content}");
    }
}

/// Gives a walk the content, with something behind it, byte by byte, or a long one in a hundred pieces.
fn extends_to_the_end(content: &[u8], behind: &[u8]) {
    let mut walk = extent::Walk::new(extent::grammar(content[0]).expect("a type that is read"));
    let bytes = [&content[1..], behind].concat();
    for end in (0..content.len() - 1).step_by(content.len() / 100 + 1) {
        match walk.go(&bytes[..end]) {
            Ok(extent::Reached::Beyond(at)) => assert!(at > end as u64 && at < content.len() as u64),
            other => panic!("{other:?} at {end} of {}", content.len() - 1),
        }
    }
    assert_eq!(walk.go(&bytes), Ok(extent::Reached::End(content.len() - 1)));
}

#[test]
fn the_extent_of_every_form_is_found() {
    for (hex, _) in dumped() {
        let payload = bytes(hex);
        extends_to_the_end(&payload[..payload.len() - FOOTER_BYTES], b"xyz");
    }
    for (hex, _) in by_hand() {
        extends_to_the_end(&bytes(hex), b"xyz");
    }
}

#[test]
fn every_type_that_is_read_has_a_grammar() {
    for kind in 0..=u8::MAX {
        let read = (0..26).contains(&kind) && ![6, 7, 8].contains(&kind);
        assert_eq!(extent::grammar(kind).is_some(), read, "{kind}");
    }
}

#[test]
fn every_form_of_a_string_is_read() {
    assert_eq!(read(b"\x00\xc0\xf6"), Ok(string("-10")));
    assert_eq!(read(b"\x00\xc1\xe8\x03"), Ok(string("1000")));
    assert_eq!(read(b"\x00\xc2\xa0\x86\x01\x00"), Ok(string("100000")));
    // 25 times a: one as it is, a reference to it that gives 22 more, and two as they are.
    let packed = b"\x00\xc3\x08\x19\x00a\xe0\x0d\x00\x01aa";
    assert_eq!(read(packed), Ok(string("a".repeat(25))));
    let before_the_beginning = b"\x00\xc3\x08\x19\x00a\xe0\x0d\x01\x01aa";
    assert_eq!(read(before_the_beginning), Err(Refused::Content));
}

#[test]
fn what_is_wrong_is_named() {
    let good = encode(&string("value"));
    let mut damaged = good.clone();
    damaged[3] ^= 1;
    assert_eq!(decode(&damaged, 100), Err(Refused::Footer));
    assert_eq!(decode(b"", 100), Err(Refused::Footer));
    assert_eq!(decode(&sealed(b"\x00\x05value", 13), 100), Err(Refused::Footer));
    assert_eq!(read(b""), Err(Refused::Content));
    assert_eq!(read(b"\x00\x05valu"), Err(Refused::Content));
    assert_eq!(read(b"\x00\x05value!"), Err(Refused::Content));
    assert_eq!(read(b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff"), Err(Refused::TooLong));
    assert_eq!(decode(&good, 4), Err(Refused::TooLong));
    for module_or_unknown in [6, 7, 8, 26, 255] {
        assert_eq!(read(&[module_or_unknown, 1, 1, 1]), Err(Refused::Content));
    }
}

#[test]
fn no_collection_is_empty_nor_has_anything_twice() {
    for content in [
        &b"\x01\x00"[..],
        b"\x02\x00",
        b"\x03\x00",
        b"\x04\x00",
        b"\x05\x00",
        b"\x0e\x00",
        b"\x12\x00",
        b"\x18\x01\0\0\0\0\0\0\0\x00",
        // An empty listpack or ziplist.
        b"\x0a\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff",
        b"\x0c\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff",
        b"\x0d\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff",
        b"\x0e\x01\x0b\x0b\0\0\0\x0a\0\0\0\0\0\xff",
        b"\x10\x07\x07\0\0\0\0\0\xff",
        b"\x11\x07\x07\0\0\0\0\0\xff",
        b"\x12\x01\x02\x07\x07\0\0\0\0\0\xff",
        b"\x12\x01\x01\x00",
        b"\x14\x07\x07\0\0\0\0\0\xff",
        b"\x17\x07\x07\0\0\0\0\0\xff",
        // A member or field twice.
        b"\x02\x02\x01a\x01a",
        b"\x02\x02\x011\xc0\x01",
        b"\x03\x02\x01a\x011\x01a\x012",
        b"\x04\x02\x01a\x00\x01a\x00",
        b"\x05\x02\x01a\0\0\0\0\0\0\0\0\x01a\0\0\0\0\0\0\0\x40",
        b"\x09\x0b\x02\x01a\x00\x00\x01a\x01\x00b\xff",
        b"\x16\x02\x00\x01a\x00\x00\x01a\x00",
        // 1 as an integer and as text.
        b"\x14\x0c\x0c\0\0\0\x02\0\x01\x01\x811\x02\xff",
        b"\x10\x10\x10\0\0\0\x04\0\x01\x01\x02\x01\x811\x02\x03\x01\xff",
    ] {
        assert_eq!(read(content), Err(Refused::Content), "{content:x?}");
    }
}

#[test]
fn scores_and_expiries_out_of_range_are_refused() {
    for content in [
        &b"\x03\x01\x01a\xfd"[..],
        b"\x03\x01\x01a\x03nan",
        b"\x03\x01\x01a\x01x",
        b"\x05\x01\x01a\0\0\0\0\0\0\xf8\x7f",
        b"\x11\x0e\x0e\0\0\0\x02\0\x81a\x02\x82xx\x03\xff",
        // A member without its score, a field without its value.
        b"\x11\x0a\x0a\0\0\0\x01\0\x81a\x02\xff",
        b"\x10\x0a\x0a\0\0\0\x01\0\x81a\x02\xff",
        // An expiry of 2^48, and one that overflows.
        b"\x18\0\0\0\0\0\0\x01\0\x01\x01\x01a\x00",
        b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\x01\x03\x01a\x00",
        b"\x16\x01\x81\0\x01\0\0\0\0\0\0\x01a\x00",
        // An expiry of -1; expiries out of order.
        b"\x17\x0f\x0f\0\0\0\x03\0\x81a\x02\x05\x01\xdf\xff\x02\xff",
        b"\x17\x15\x15\0\0\0\x06\0\x81a\x02\x05\x01\x00\x01\x81b\x02\x05\x01\x09\x01\xff",
    ] {
        assert_eq!(read(content), Err(Refused::Content), "{content:x?}");
    }
}

/// A stream of one node under 5-0: the listpack's items, what follows it, and the number of groups.
fn stream_of(items: &[i64], tail: &[u8]) -> Result<Value, Refused> {
    let mut node = Builder::new();
    items.iter().for_each(|&item| node.int(item));
    let mut content = vec![kind::STREAM_2, 1];
    put_text(&mut content, &[&5_u64.to_be_bytes()[..], &[0; 8]].concat());
    put_text(&mut content, &node.finish());
    content.extend_from_slice(tail);
    read(&content)
}

#[test]
fn streams_that_contradict_themselves_are_refused() {
    // Two entries with the field 7, the second's ID 5-1; length, last ID 5-1, first, deleted, added, groups.
    let items = [2, 0, 1, 7, 0, 2, 0, 0, 1, 4, 2, 0, 1, 2, 4];
    let tail = b"\x02\x05\x01\x05\x00\x00\x00\x02\x00";
    assert!(stream_of(&items, tail).is_ok());
    for (at, to) in
        [(0, 1), (0, 3), (0, -1), (1, 1), (2, 0), (2, 2), (4, 1), (5, 0), (9, 5), (12, 0), (12, -1)]
    {
        let mut bad = items;
        bad[at] = to;
        assert_eq!(stream_of(&bad, tail), Err(Refused::Content), "item {at} is {to}");
    }
    assert_eq!(stream_of(&items[..items.len() - 1], tail), Err(Refused::Content));
    // More or fewer entries than there are, a last ID before an entry's, fewer added than there are.
    for (at, to) in [(0, 1), (0, 3), (2, 0), (7, 1)] {
        let mut bad = *tail;
        bad[at] = to;
        assert_eq!(stream_of(&items, &bad), Err(Refused::Content), "byte {at} is {to}");
    }
}

#[test]
fn groups_that_contradict_themselves_are_refused() {
    let entry = |seq: u8| [&[0; 15][..], &[seq], &[0; 8], &[1]].concat();
    let consumer = |name: u8, held: &[u8]| {
        let ids: Vec<u8> = held.iter().flat_map(|&seq| [&[0; 15][..], &[seq]].concat()).collect();
        [&[1, name][..], &[0; 8], &[held.len() as u8], &ids].concat()
    };
    let group = |name: u8, pending: &[u8], consumers: &[Vec<u8>]| {
        let entries: Vec<u8> = pending.iter().flat_map(|&seq| entry(seq)).collect();
        let head = [1, name, 9, 9, 0, pending.len() as u8];
        [&head[..], &entries, &[consumers.len() as u8], &consumers.concat()].concat()
    };
    let groups = |groups: &[Vec<u8>]| {
        read(
            &[&[kind::STREAM_2, 0, 0, 9, 9, 0, 0, 0, 0, 0, groups.len() as u8], &groups.concat()[..]]
                .concat(),
        )
    };
    let good = [group(1, &[1, 2], &[consumer(1, &[2]), consumer(2, &[1])]), group(2, &[], &[])];
    assert!(groups(&good).is_ok());
    for bad in [
        // A name twice.
        vec![group(1, &[], &[]), group(1, &[], &[])],
        vec![group(1, &[], &[consumer(1, &[]), consumer(1, &[])])],
        // Out of order, twice.
        vec![group(1, &[2, 1], &[consumer(1, &[1, 2])])],
        vec![group(1, &[1, 1], &[consumer(1, &[1])])],
        // Held by nobody, by two, twice by one, not pending.
        vec![group(1, &[1], &[consumer(1, &[])])],
        vec![group(1, &[1], &[consumer(1, &[1]), consumer(2, &[1])])],
        vec![group(1, &[1], &[consumer(1, &[1, 1])])],
        vec![group(1, &[1], &[consumer(1, &[1, 2])])],
    ] {
        assert_eq!(groups(&bad), Err(Refused::Content), "{bad:?}");
    }
}

#[test]
fn a_stream_before_7_0_gets_what_redis_makes_up() {
    // Type 15: entries 4-9 and 5-0, groups at 0-0, 4-9, 4-10, 5-0 and 9-0. Expected from redis-server 7.0.15.
    let mut node = Builder::new();
    [2, 0, 1, 7, 0, 2, 0, 0, 1, 4, 2, 1, -9, 2, 4].iter().for_each(|&item| node.int(item));
    let mut content = vec![kind::STREAM_1, 1];
    put_text(&mut content, &[4_u64.to_be_bytes(), 9_u64.to_be_bytes()].concat());
    put_text(&mut content, &node.finish());
    content.extend_from_slice(&[2, 5, 0, 5]);
    for (name, [ms, seq]) in (b'a'..).zip([[0, 0], [4, 9], [4, 10], [5, 0], [9, 0]]) {
        content.extend_from_slice(&[1, name, ms, seq, 0, 0]);
    }
    let Ok(Value::Stream(stream)) = read(&content) else { panic!("it is refused") };
    assert_eq!((stream.first_id, stream.max_deleted_id, stream.entries_added), (id(4, 9), id(0, 0), 2));
    let entries_read: Vec<_> = stream.groups.iter().map(|group| group.entries_read).collect();
    assert_eq!(entries_read, [Some(0), Some(1), None, Some(2), None]);

    // Without entries the first ID becomes the greatest.
    let Ok(Value::Stream(empty)) = read(b"\x0f\x00\x00\x07\x01\x01\x01a\x09\x00\x00\x00") else {
        panic!("it is refused")
    };
    assert_eq!((empty.first_id, empty.groups[0].entries_read), (id(u64::MAX, u64::MAX), Some(0)));
}

#[test]
fn a_stream_of_7_2_tells_when_consumers_were_active() {
    let mut content = b"\x15\x00\x00\x09\x09\x00\x00\x00\x00\x00\x01\x01g\x00\x00\x00\x00\x02".to_vec();
    for (name, active) in [(b'a', 5_i64), (b'b', -1)] {
        content.extend_from_slice(&[1, name]);
        content.extend_from_slice(&[7_i64.to_le_bytes(), active.to_le_bytes()].concat());
        content.push(0);
    }
    let Ok(Value::Stream(stream)) = read(&content) else { panic!("it is refused") };
    let consumers = &stream.groups[0].consumers;
    assert_eq!(consumers.iter().map(|consumer| consumer.active_ms).collect::<Vec<_>>(), [Some(5), None]);
    assert!(consumers.iter().all(|consumer| consumer.seen_ms == 7));
}

#[test]
fn a_small_payload_does_not_unfold_without_end() {
    // A thousand entries that share the name of their field, which has a hundred thousand bytes.
    let mut node = Builder::new();
    [1000, 0, 1].iter().for_each(|&item| node.int(item));
    node.text(&[b'x'; 100_000]);
    node.int(0);
    for seq in 0..1000 {
        [2, 0, seq, 1, 4].iter().for_each(|&item| node.int(item));
    }
    let mut content = vec![kind::STREAM_2, 1];
    put_text(&mut content, &[0; 16]);
    put_text(&mut content, &node.finish());
    content.extend_from_slice(&[0x43, 0xe8, 0x09, 0x09, 0x00, 0x00, 0x00, 0x00, 0x43, 0xe8, 0x00]);
    assert_eq!(decode(&sealed(&content, 10), 1 << 20), Err(Refused::TooLong));
    assert!(decode(&sealed(&content, 10), 128 << 20).is_ok());
}

/// As it comes back: who was active when is not written.
fn written(mut value: Value) -> Value {
    if let Value::Stream(stream) = &mut value {
        let groups = stream.groups.iter_mut();
        groups.flat_map(|group| &mut group.consumers).for_each(|c| c.active_ms = Some(c.seen_ms));
    }
    value
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i32>().prop_map(|int| int.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..100),
        prop::collection::vec(0..2_u8, 4000..4200),
    ]
}

fn stream_id() -> impl Strategy<Value = StreamId> {
    let part = || prop_oneof![0..5_u64, any::<u64>()];
    (part(), part()).prop_map(|(ms, seq)| id(ms, seq))
}

fn group() -> impl Strategy<Value = Group> {
    let consumer = (any::<i64>(), prop::collection::btree_set(stream_id(), 0..4));
    let consumers = prop::collection::btree_map(text(), consumer, 0..4);
    (text(), stream_id(), prop::option::of(0..9_u64), consumers).prop_map(
        |(name, last_id, entries_read, consumers)| {
            let mut group = Group { name, last_id, entries_read, ..Group::default() };
            let mut pending = BTreeMap::new();
            for (index, (name, (seen, held))) in consumers.into_iter().enumerate() {
                let seen_ms = seen.unsigned_abs() >> 1;
                group.consumers.push(Consumer { name, seen_ms, active_ms: Some(seen_ms) });
                for id in held {
                    let entry =
                        Pending { id, delivered_ms: seen_ms, deliveries: id.ms >> 1, consumer: index };
                    pending.insert(id, entry);
                }
            }
            group.pending = pending.into_values().collect();
            group
        },
    )
}

fn any_stream() -> impl Strategy<Value = Stream> {
    let name = prop_oneof![Just(b"f".to_vec()), Just(b"1".to_vec()), text()];
    let fields = prop::collection::vec((name, text()), 1..3);
    let entries = prop::collection::btree_map(stream_id(), fields, 0..130);
    let groups = prop::collection::btree_map(text(), group(), 0..3);
    (entries, groups, stream_id(), 0..1000_u64).prop_map(|(entries, groups, max_deleted_id, gone)| Stream {
        length: entries.len() as u64,
        last_id: entries.keys().next_back().copied().unwrap_or(max_deleted_id),
        first_id: entries.keys().next().copied().unwrap_or_default(),
        max_deleted_id,
        entries_added: entries.len() as u64 + gone,
        entries: entries.into_iter().collect(),
        groups: groups.into_iter().map(|(name, group)| Group { name, ..group }).collect(),
    })
}

fn hash_fields() -> impl Strategy<Value = Vec<HashField>> {
    let expiry = prop::option::of(1..=FIELD_EXPIRE_MAX_MS);
    let without = prop::collection::btree_map(text(), (text(), Just(None)), 1..80);
    let with = prop::collection::btree_map(text(), (text(), expiry), 1..80);
    prop_oneof![without, with].prop_map(|fields| {
        let field = |(field, (value, expire_ms))| HashField { field, value, expire_ms };
        fields.into_iter().map(field).collect()
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    let score = any::<f64>().prop_filter("a score is a number", |score| !score.is_nan());
    let set = prop::collection::btree_set(text(), 1..80);
    let members = prop::collection::btree_map(text(), score, 1..80);
    prop_oneof![
        text().prop_map(Value::String),
        prop::collection::vec(text(), 1..80).prop_map(Value::List),
        set.prop_map(|set: BTreeSet<_>| Value::Set(set.into_iter().collect())),
        members.prop_map(|members| Value::SortedSet(members.into_iter().collect())),
        hash_fields().prop_map(Value::Hash),
        any_stream().prop_map(Value::Stream),
    ]
}

proptest! {
    #[test]
    fn values_come_back(value in any_value()) {
        prop_assert_eq!(decode(&encode(&value), 1 << 24), Ok(value));
    }

    #[test]
    fn what_is_read_from_damaged_payloads_can_be_written(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut contents: Vec<Vec<u8>> = by_hand().iter().map(|(content, _)| bytes(content)).collect();
        let whole = dumped().into_iter().map(|(payload, _)| bytes(payload));
        contents.extend(whole.map(|payload| payload[..payload.len() - FOOTER_BYTES].to_vec()));
        let mut content = which.get(&contents).clone();
        for (at, byte, way) in changes {
            let at = at.index(content.len());
            match way {
                0 => content.insert(at, byte),
                1 if content.len() > 1 => drop(content.remove(at)),
                2 => content[at] ^= 1 << (byte % 8),
                _ => content[at] = byte,
            }
        }
        if let Ok(value) = read(&content) {
            prop_assert_eq!(read(&encode(&value)[..encode(&value).len() - FOOTER_BYTES]), Ok(written(value)));
        }
    }

    #[test]
    fn a_values_extent_is_where_the_reader_ends(
        value in any_value(), more in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let payload = encode(&value);
        extends_to_the_end(&payload[..payload.len() - FOOTER_BYTES], &more);
    }

    #[test]
    fn no_walk_panics(kind in 0..27_u8, content in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some(steps) = extent::grammar(kind) {
            let mut walk = extent::Walk::new(steps);
            for end in 0..=content.len() {
                match walk.go(&content[..end]) {
                    Ok(extent::Reached::End(at)) => {
                        prop_assert!(at <= end);
                        break;
                    }
                    Ok(extent::Reached::Beyond(at)) => prop_assert!(at > end as u64),
                    Err(_) => break,
                }
            }
        }
    }

    #[test]
    fn no_payload_panics(kind in 0..27_u8, content in prop::collection::vec(any::<u8>(), 0..60)) {
        let behind_kind = |head: &[u8]| [&[kind], head, &content].concat();
        let _ = read(&behind_kind(b""));
        let _ = read(&behind_kind(&[content.len() as u8]));
        let _ = read(&behind_kind(&[0xc3, content.len() as u8, 0x43, 0xff]));
        // As a node of a quicklist or a stream, and as a listpack alone.
        let bytes = content.len() as u8 + 7;
        let pack = [&[bytes, 0, 0, 0, 0xff, 0xff], &content[..], &[0xff]].concat();
        let _ = read(&[&[kind, 1, 2, bytes][..], &pack].concat());
        let _ = read(&[&[kind, 1, 16][..], &[0; 16], &[bytes], &pack, &[1, 9, 9, 0]].concat());
        let _ = read(&[&[kind, bytes][..], &pack].concat());
    }
}

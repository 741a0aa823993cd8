//! One follower's primary, event by event.

use crate::binlog::{Lsn, Participant, TERM_CHANCE_BITS, Touch, Txn};
use crate::replica::primary::{Action, Event, Held, Indexed, Logged, Primary, Settings, Stage};
use crate::replica::wire::{Identity, Message, Subscribe};
use crate::shard::mesh::SlotPosition;
use crate::slot::{Layout, ShardId, Slot, TableId};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::smallvec;

const SLOTS: u16 = 8;
const TERM: u64 = 5 << TERM_CHANCE_BITS;
const TABLE: TableId = TableId(0);

struct Bench {
    primary: Primary,
    actions: Vec<Action>,
}

impl Bench {
    fn new(shards: u16, window_bytes: u64) -> Bench {
        let layout = Layout::new(SLOTS, shards);
        let node = [b'a'; 40];
        let settings = Settings {
            own: Identity { layout, tables: 2, crc16: false, node },
            window_bytes,
            timeout_ms: 1000,
        };
        Bench { primary: Primary::new(settings, 0), actions: Vec::new() }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.primary.handle(event, &mut self.actions);
        std::mem::take(&mut self.actions)
    }

    fn subscribe(&mut self, positions: Vec<SlotPosition>) -> Vec<Action> {
        let node = [b'b'; 40];
        let subscribe = Subscribe { tables: 2, slots_per_table: SLOTS, crc16: false, node, positions };
        self.tell(Event::Received(Message::Subscribe(subscribe)))
    }

    /// The follower and all shards have these positions, and the logs have come so far.
    fn flowing(shards: u16, window_bytes: u64, upto: u64) -> Bench {
        let mut bench = Bench::new(shards, window_bytes);
        bench.subscribe(Vec::new());
        for shard in (0..shards).map(ShardId) {
            let upto = Lsn(upto);
            bench.tell(Event::Published { shard, lsn: upto });
            bench.tell(Event::State { shard, positions: Vec::new(), upto });
            let sent = bench.tell(Event::Located { shard, segments: Vec::new(), upto });
            assert!(sent.contains(&Action::Send(Message::StreamFrom { stream: shard, next: upto.next() })));
        }
        bench
    }

    fn ack(&mut self, stream: u16, applied: u64) -> Vec<Action> {
        let (applied, durable) = (Lsn(applied), Lsn(applied));
        self.tell(Event::Received(Message::Ack { stream: ShardId(stream), applied, durable }))
    }
}

fn at(slot: u16, index: u64, term: u64) -> SlotPosition {
    SlotPosition { table: TABLE, slot: Slot(slot), index, term }
}

fn logged(lsn: u64, slot: u16, index: u64, term: u64, bytes: usize) -> Logged {
    let touches = smallvec![Touch { table: TABLE, slot: Slot(slot), index, term }];
    let body = Bytes::from(vec![1; bytes.max(2)]);
    Logged { lsn: Lsn(lsn), time_ms: 0, touches, txn: None, body }
}

fn sent(actions: &[Action]) -> Vec<u64> {
    let lsn = |action: &Action| match action {
        Action::Send(Message::Record(record)) => Some(record.lsn.0),
        _ => None,
    };
    actions.iter().filter_map(lsn).collect()
}

fn is_closed(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Close { .. }))
}

#[test]
fn a_part_is_not_sent_before_its_whole() {
    let mut bench = Bench::flowing(2, 1 << 20, 10);
    let part = Txn::Part { home: ShardId(0), home_lsn: 12, number: 1 };
    let record = Logged { txn: Some(part), ..logged(11, 6, 1, TERM, 9) };
    assert!(sent(&bench.tell(Event::Read { shard: ShardId(1), record })).is_empty());
    let after = logged(12, 7, 1, TERM, 9);
    assert!(
        sent(&bench.tell(Event::Read { shard: ShardId(1), record: after })).is_empty(),
        "it stays in order"
    );
    let other = logged(11, 1, 1, TERM, 9);
    assert_eq!(sent(&bench.tell(Event::Read { shard: ShardId(0), record: other })), [11]);
    let participants = vec![Participant { shard: ShardId(1), number: 1, after: Lsn(0) }];
    let whole = Logged { txn: Some(Txn::Whole { participants }), ..logged(12, 1, 2, TERM, 9) };
    let actions = bench.tell(Event::Read { shard: ShardId(0), record: whole });
    assert_eq!(sent(&actions), [12, 11, 12], "the whole, then what waited for it");
    let Some(Action::Send(Message::Record(record))) = actions.first() else { panic!("a record") };
    assert!(!record.exact, "a whole says what other shards do");
}

#[test]
fn what_is_not_acknowledged_bounds_what_is_sent_and_read() {
    let mut bench = Bench::flowing(1, 1000, 0);
    let shard = ShardId(0);
    let asked = bench.tell(Event::Published { shard, lsn: Lsn(9) });
    assert!(matches!(asked[..], [Action::Read { from: Lsn(1), .. }]));
    for lsn in 1..=3 {
        let record = logged(lsn, 1, lsn, TERM, 400);
        let expected = if lsn < 3 { vec![lsn] } else { vec![] };
        assert_eq!(sent(&bench.tell(Event::Read { shard, record })), expected);
    }
    assert!(
        bench.tell(Event::ReadUpTo { shard, lsn: Lsn(3) }).is_empty(),
        "nothing is read while something is held"
    );
    let actions = bench.ack(0, 2);
    assert_eq!(sent(&actions), [3]);
    assert!(matches!(actions.last(), Some(Action::Read { from: Lsn(4), .. })));
    assert_eq!(bench.primary.lag(shard).bytes, 400 + 52);
    let large = logged(4, 1, 4, TERM, 100_000);
    assert!(sent(&bench.tell(Event::Read { shard, record: large })).is_empty());
    assert_eq!(sent(&bench.ack(0, 3)), [4], "one record may always be under way");
}

#[test]
fn a_follower_that_acknowledges_what_it_was_not_sent_is_closed() {
    assert!(is_closed(&Bench::flowing(1, 1000, 5).ack(0, 6)));
    assert!(is_closed(&Bench::flowing(1, 1000, 5).ack(7, 1)), "no such stream");
    assert!(!is_closed(&Bench::flowing(1, 1000, 5).ack(0, 5)));
    assert!(is_closed(&Bench::new(1, 1000).ack(0, 0)), "it has not subscribed");
}

#[test]
fn a_silent_follower_is_closed_and_one_that_is_heard_is_not() {
    let mut bench = Bench::flowing(1, 1000, 5);
    bench.tell(Event::Tick { now_ms: 900 });
    bench.tell(Event::Heard);
    assert!(!is_closed(&bench.tell(Event::Tick { now_ms: 1800 })));
    assert!(!is_closed(&bench.tell(Event::Tick { now_ms: 2800 })));
    assert!(is_closed(&bench.tell(Event::Tick { now_ms: 2801 })));
    assert_eq!(bench.primary.stage(), Stage::Closed);
}

#[test]
fn nodes_that_divide_keys_differently_do_not_follow_each_other() {
    let own =
        Subscribe { tables: 2, slots_per_table: SLOTS, crc16: false, node: [b'b'; 40], positions: vec![] };
    for subscribe in [
        Subscribe { slots_per_table: SLOTS * 2, ..own.clone() },
        Subscribe { crc16: true, ..own.clone() },
        Subscribe { tables: 1, ..own.clone() },
        Subscribe { positions: vec![at(SLOTS, 1, TERM)], ..own.clone() },
    ] {
        let actions = Bench::new(1, 1000).tell(Event::Received(Message::Subscribe(subscribe)));
        assert!(matches!(actions[..], [Action::Send(Message::Refused { .. }), Action::Close { .. }]));
    }
}

/// What becomes of a slot that the follower has at `has` and the primary at `own`, when segments from LSN 1, 11,
/// 21... on hold so much of it.
fn way(has: SlotPosition, own: SlotPosition, held: &[Option<(u64, u64, u64)>]) -> Result<u64, &'static str> {
    let mut bench = Bench::new(1, 1000);
    let shard = ShardId(0);
    bench.subscribe(vec![has]);
    let upto = Lsn(10 * held.len() as u64);
    bench.tell(Event::Published { shard, lsn: upto });
    bench.tell(Event::State { shard, positions: vec![own], upto });
    let indexed = |(at, held): (usize, &Option<(u64, u64, u64)>)| {
        let held = held.map(|(first_index, last_index, last_term)| {
            ((TABLE, Slot(1)), Held { first_index, last_index, last_term })
        });
        Indexed { first: Lsn(10 * at as u64 + 1), slots: held.into_iter().collect::<FxHashMap<_, _>>() }
    };
    let segments = held.iter().enumerate().map(indexed).collect();
    for action in bench.tell(Event::Located { shard, segments, upto }) {
        match action {
            Action::Copy { .. } => return Err("copy"),
            Action::Send(Message::StreamFrom { next, .. }) => return Ok(next.0),
            _ => {}
        }
    }
    Err("nothing")
}

#[test]
fn a_slot_goes_on_from_where_the_log_can_tell_what_it_has() {
    let (has, own) = (at(1, 5, TERM), at(1, 20, TERM));
    assert_eq!(way(own, own, &[Some((1, 20, TERM))]), Ok(11), "nothing is missing");
    assert_eq!(way(has, own, &[Some((1, 9, TERM)), Some((10, 20, TERM))]), Ok(1));
    assert_eq!(way(has, own, &[Some((1, 2, TERM)), None, Some((3, 20, TERM))]), Ok(21));
    assert_eq!(
        way(has, own, &[Some((1, 5, TERM)), None, Some((6, 20, TERM))]),
        Ok(11),
        "behind the last it has"
    );
    assert_eq!(way(has, own, &[Some((6, 20, TERM))]), Err("copy"), "nothing tells what stood before");
    assert_eq!(
        way(has, own, &[Some((1, 5, TERM + 1)), Some((6, 20, TERM + 1))]),
        Err("copy"),
        "another's fifth"
    );
    assert_eq!(way(at(1, 20, TERM + 1), own, &[Some((1, 20, TERM))]), Err("copy"), "another's last");
    assert_eq!(way(at(1, 21, TERM), own, &[Some((1, 20, TERM))]), Err("copy"), "a tail that was lost here");
    assert_eq!(way(at(1, 0, 0), own, &[Some((1, 20, TERM))]), Err("copy"), "it wants one");
    assert_eq!(way(at(2, 3, TERM), own, &[Some((1, 20, TERM))]), Err("copy"), "a slot that is not here");
    assert_eq!(
        way(at(1, 5, 3), at(1, 5, 3), &[Some((1, 5, 3))]),
        Err("copy"),
        "a term of before replication"
    );
}

/// What is sent, and forgotten, of records that pass while a slot at `has` catches up.
fn caught_up(has: SlotPosition, records: Vec<Logged>) -> (Vec<u64>, bool) {
    let mut bench = Bench::new(1, 1 << 20);
    let shard = ShardId(0);
    bench.subscribe(vec![has]);
    let upto = records.last().unwrap().lsn;
    bench.tell(Event::Published { shard, lsn: upto });
    bench.tell(Event::State { shard, positions: vec![at(1, 50, TERM)], upto });
    let slots = [((TABLE, Slot(1)), Held { first_index: 1, last_index: 50, last_term: TERM })];
    let segments = vec![Indexed { first: Lsn(1), slots: slots.into_iter().collect() }];
    bench.tell(Event::Located { shard, segments, upto });
    let actions: Vec<Action> =
        records.into_iter().flat_map(|record| bench.tell(Event::Read { shard, record })).collect();
    let forgets = |action: &Action| matches!(action, Action::Send(Message::Forget { slots }) if *slots == [(TABLE, Slot(1))]);
    (sent(&actions), actions.iter().any(forgets))
}

fn copied(lsn: u64, index: u64, term: u64) -> Logged {
    let body = Bytes::from_static(&[1, crate::store::effects::Origin::COPY.0]);
    Logged { body, ..logged(lsn, 1, index, term, 2) }
}

#[test]
fn records_that_pass_must_bear_out_what_the_follower_claims() {
    let record = |lsn, index, term| logged(lsn, 1, index, term, 9);
    let history = || vec![record(1, 1, TERM), record(2, 2, TERM), record(3, 3, TERM)];
    assert_eq!(caught_up(at(1, 2, TERM), history()), (vec![3], false));
    assert_eq!(caught_up(at(1, 2, TERM + 1), history()), (vec![], true), "the second was another's");
    // Both tables' slots go on behind the higher index of the two: what follows the second is the fifth.
    let swapped = || vec![record(1, 1, TERM), record(2, 2, TERM), record(3, 5, TERM)];
    assert_eq!(caught_up(at(1, 4, TERM), swapped()), (vec![3], false));
}

#[test]
fn what_stood_in_a_slot_before_it_was_copied_here_is_not_its_history() {
    let record = |lsn, index, term| logged(lsn, 1, index, term, 9);
    let old = TERM - (1 << TERM_CHANCE_BITS);
    let history = || vec![record(1, 41, old), record(2, 42, old), copied(3, 40, TERM), record(4, 41, TERM)];
    assert_eq!(caught_up(at(1, 42, old), history()), (vec![], true), "of before, and further than the copy");
    let copy_first = || history().split_off(2);
    assert_eq!(caught_up(at(1, 40, TERM), copy_first()), (vec![4], false), "of the same primary, and as far");
    assert_eq!(
        caught_up(at(1, 40, TERM), history()),
        (vec![], true),
        "careful: what comes first does not follow"
    );
    assert_eq!(caught_up(at(1, 41, old), history()), (vec![2], true), "the copy tells, and it is copied too");
}

#[test]
fn a_follower_that_lacks_nothing_counts_before_anything_new_is_written() {
    let mut bench = Bench::new(1, 1000);
    let (shard, upto) = (ShardId(0), Lsn(9));
    bench.subscribe(vec![at(1, 4, TERM)]);
    bench.tell(Event::Published { shard, lsn: upto });
    bench.tell(Event::State { shard, positions: vec![at(1, 4, TERM)], upto });
    bench.tell(Event::Located { shard, segments: Vec::new(), upto });
    bench.ack(0, 9);
    assert_eq!(bench.primary.lag(shard).applied, Lsn(9));
}

//! One follower's primary, event by event.

use crate::binlog::{Lsn, Participant, TERM_CHANCE_BITS, Touch, Txn};
use crate::replica::greeting::{Copies, Peer};
use crate::replica::history::History;
use crate::replica::position::Position;
use crate::replica::primary::{Action, Event, Held, Indexed, Logged, Primary, Settings, Stage};
use crate::replica::wire::{Identity, Message, SlotCounts, Subscribe};
use crate::shard::mesh::SlotPosition;
use crate::slot::placement::Placement;
use crate::slot::set::{self, TableSlots};
use crate::slot::{ShardId, Slot, TableId};
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

fn bench_settings() -> Settings {
    let placement = Placement::even(SLOTS, 1);
    Settings {
        own: Identity {
            placement,
            tables: 2,
            crc16: false,
            node: [b'a'; 40],
            slot_counts: SlotCounts::new(),
        },
        offers: None,
        peer: Peer::Node { port: 1 },
        window_bytes: 1 << 20,
        timeout_ms: 1000,
    }
}

/// What a follower of the same kind says.
fn wanting(slots: Option<TableSlots>, positions: Vec<SlotPosition>) -> Subscribe {
    Subscribe {
        tables: 2,
        slots_per_table: SLOTS,
        crc16: false,
        node: [b'b'; 40],
        slot_counts: SlotCounts::new(),
        slots,
        positions,
        rewinds: vec![],
    }
}

impl Bench {
    fn new(shards: u16, window_bytes: u64) -> Bench {
        Bench::of(Peer::Node { port: 1 }, shards, window_bytes)
    }

    fn of(peer: Peer, shards: u16, window_bytes: u64) -> Bench {
        let placement = Placement::even(SLOTS, shards);
        let own = Identity { placement, ..bench_settings().own };
        let settings = Settings { own, peer, window_bytes, ..bench_settings() };
        Bench { primary: Primary::new(settings, 0), actions: Vec::new() }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.primary.handle(event, &mut self.actions);
        std::mem::take(&mut self.actions)
    }

    fn subscribe(&mut self, positions: Vec<SlotPosition>) -> Vec<Action> {
        self.subscribe_to(None, positions)
    }

    fn subscribe_to(&mut self, slots: Option<TableSlots>, positions: Vec<SlotPosition>) -> Vec<Action> {
        self.tell(Event::Received(Message::Subscribe(wanting(slots, positions))))
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
    let own = wanting(None, vec![]);
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
            // Of other slots it is read first whether they have parted too.
            Action::Trace { .. } | Action::Read { .. } => return Err("parted"),
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
    assert_eq!(
        way(has, own, &[None, Some((6, 20, TERM))]),
        Ok(11),
        "the sixth of the term follows its fifth"
    );
    assert_eq!(way(has, own, &[Some((6, 20, TERM + 1))]), Err("parted"), "nothing tells what stood before");
    assert_eq!(way(has, own, &[Some((7, 20, TERM))]), Err("parted"), "the sixth is missing");
    assert_eq!(
        way(has, own, &[Some((1, 5, TERM + 1)), Some((6, 20, TERM + 1))]),
        Err("parted"),
        "another's fifth"
    );
    assert_eq!(way(at(1, 20, TERM + 1), own, &[Some((1, 20, TERM))]), Err("parted"), "another's last");
    assert_eq!(way(at(1, 21, TERM), own, &[Some((1, 20, TERM))]), Err("parted"), "a tail that was lost here");
    assert_eq!(way(at(1, 0, 0), own, &[Some((1, 20, TERM))]), Err("copy"), "it wants one");
    assert_eq!(way(at(2, 3, TERM), own, &[Some((1, 20, TERM))]), Err("parted"), "a slot that is not here");
    assert_eq!(
        way(at(1, 5, 3), at(1, 5, 3), &[Some((1, 5, 3))]),
        Err("parted"),
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
    let forgets =
        |action: &Action| matches!(action, Action::Trace { slots, .. } if *slots == [(TABLE, Slot(1))]);
    (sent(&actions), actions.iter().any(forgets))
}

#[test]
fn a_follower_whose_slots_have_parted_is_told_of_all_of_them_at_once_with_their_histories() {
    let mut bench = Bench::new(2, 1 << 20);
    // Of slot 1 the log holds something, slot 5 is of the other shard, and slot 6 has never been written here.
    bench.subscribe(vec![at(1, 9, TERM), at(5, 9, TERM), at(6, 2, TERM)]);
    let upto = Lsn(4);
    let located = |bench: &mut Bench, shard: u16, positions| {
        let shard = ShardId(shard);
        bench.tell(Event::Published { shard, lsn: upto });
        bench.tell(Event::State { shard, positions, upto });
        let mut actions = bench.tell(Event::Located { shard, segments: Vec::new(), upto });
        actions.retain(|action| !matches!(action, Action::KeepLog { .. }));
        actions
    };
    let actions = located(&mut bench, 0, vec![at(1, 7, TERM)]);
    assert!(actions.is_empty(), "it is not known yet how the other shard's slots are: {actions:?}");
    let actions = located(&mut bench, 1, vec![at(5, 8, TERM)]);
    let slots = [vec![(TABLE, Slot(1))], vec![(TABLE, Slot(5)), (TABLE, Slot(6))]];
    let traces = [0, 1].map(|at| Action::Trace { shard: ShardId(at as u16), slots: slots[at].clone() });
    assert_eq!(actions, traces);
    let end = |index| Position { index, term: TERM };
    let history = History { whole: true, ends: vec![end(7)] };
    let known = [((TABLE, Slot(1)), history.clone())].into_iter().collect();
    assert!(bench.tell(Event::Traced { shard: ShardId(0), histories: known }).is_empty());
    let actions = bench.tell(Event::Traced { shard: ShardId(1), histories: FxHashMap::default() });
    let told = vec![
        ((TABLE, Slot(1)), history),
        ((TABLE, Slot(5)), History { whole: false, ends: vec![end(8)] }),
        ((TABLE, Slot(6)), History { whole: true, ends: Vec::new() }),
    ];
    assert!(
        matches!(&actions[..], [Action::Send(Message::Forget { slots }), Action::Close { .. }] if *slots == told),
        "{actions:?}"
    );
}

#[test]
fn slots_that_the_log_bears_out_no_more_are_found_before_a_follower_is_told_of_those_that_have_parted() {
    let mut bench = Bench::new(1, 1 << 20);
    let (shard, upto) = (ShardId(0), Lsn(4));
    bench.subscribe(vec![at(1, 9, TERM), at(2, 1, TERM), at(3, 1, TERM + 1)]);
    bench.tell(Event::Published { shard, lsn: upto });
    let positions = vec![at(1, 7, TERM), at(2, 2, TERM), at(3, 2, TERM)];
    bench.tell(Event::State { shard, positions, upto });
    let held = Held { first_index: 1, last_index: 2, last_term: TERM };
    let slots = [2, 3].map(|slot| ((TABLE, Slot(slot)), held));
    let segments = vec![Indexed { first: Lsn(1), slots: slots.into_iter().collect() }];
    let actions = bench.tell(Event::Located { shard, segments, upto });
    assert!(
        matches!(actions[..], [Action::KeepLog { .. }, Action::Read { from: Lsn(1), .. }]),
        "{actions:?}"
    );
    assert_eq!(bench.primary.stage(), Stage::Handshake);
    for (lsn, slot, index) in [(1, 2, 1), (2, 2, 2), (3, 3, 1), (4, 3, 2)] {
        let actions = bench.tell(Event::Read { shard, record: logged(lsn, slot, index, TERM, 9) });
        let last = [Action::Trace { shard, slots: vec![(TABLE, Slot(1)), (TABLE, Slot(3))] }];
        assert_eq!(actions, if lsn < 4 { vec![] } else { last.into() }, "nothing is sent meanwhile");
    }
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
    // The log begins behind what the follower has.
    let begins_third = |term| vec![record(3, 3, term), record(4, 4, TERM)];
    assert_eq!(caught_up(at(1, 2, TERM), begins_third(TERM)), (vec![3, 4], false));
    assert_eq!(caught_up(at(1, 2, TERM), begins_third(TERM - 1)), (vec![], true), "it has a later term's");
    assert_eq!(caught_up(at(1, 1, TERM), begins_third(TERM)), (vec![], true), "the second is missing");
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

fn slots(text: &str) -> TableSlots {
    TableSlots::from([(TABLE, set::parse(text.as_bytes(), SLOTS).expect("it is a set"))])
}

#[test]
fn a_follower_of_some_slots_is_sent_nothing_of_the_others() {
    let mut bench = Bench::new(1, 1 << 20);
    let shard = ShardId(0);
    bench.subscribe_to(Some(slots("1-2")), vec![at(1, 3, TERM)]);
    bench.tell(Event::Published { shard, lsn: Lsn(9) });
    let positions = vec![at(1, 3, TERM), at(2, 5, TERM), at(3, 7, TERM)];
    bench.tell(Event::State { shard, positions, upto: Lsn(9) });
    let actions = bench.tell(Event::Located { shard, segments: Vec::new(), upto: Lsn(9) });
    let copied = actions.iter().find_map(|action| match action {
        Action::Copy { slots, .. } => Some(slots.clone()),
        _ => None,
    });
    assert_eq!(copied, Some(vec![(TABLE, Slot(2))]), "slot 3 is nothing to it");
    bench.tell(Event::CopyBegun { shard, slots: vec![at(2, 5, TERM)], upto: Lsn(9) });
    bench.tell(Event::CopyEnd { shard });
    bench.tell(Event::Published { shard, lsn: Lsn(12) });
    assert!(sent(&bench.tell(Event::Read { shard, record: logged(10, 3, 8, TERM, 9) })).is_empty());
    let mut both = logged(11, 2, 6, TERM, 9);
    both.touches.push(Touch { table: TABLE, slot: Slot(3), index: 9, term: TERM });
    let actions = bench.tell(Event::Read { shard, record: both });
    let Some(Action::Send(Message::Record(record))) = actions.first() else { panic!("a record") };
    assert_eq!(record.touches.len(), 1);
    assert!(!record.exact, "the body says more than it is sent for");
    let upto = bench.tell(Event::ReadUpTo { shard, lsn: Lsn(12) });
    assert!(upto.contains(&Action::Send(Message::Upto { stream: shard, lsn: Lsn(12) })), "it lacks nothing");
}

#[test]
fn a_table_of_another_number_of_slots_is_not_followed() {
    let counts = |slots| SlotCounts::from([(TABLE, slots)]);
    let refuses = |here: SlotCounts, there: SlotCounts| {
        let mut settings = Settings { offers: Some(slots("0-1")), ..bench_settings() };
        settings.own.slot_counts = here;
        let mut bench = Bench::new(1, 1 << 20);
        bench.primary = Primary::new(settings, 0);
        let mut subscribe = wanting(Some(slots("0-1")), Vec::new());
        subscribe.slot_counts = there;
        is_closed(&bench.tell(Event::Received(Message::Subscribe(subscribe))))
    };
    assert!(!refuses(SlotCounts::new(), SlotCounts::new()));
    assert!(!refuses(counts(2), counts(2)));
    assert!(refuses(counts(2), SlotCounts::new()));
    assert!(refuses(SlotCounts::new(), counts(2)));
    let other = SlotCounts::from([(TableId(TABLE.0 + 1), 2)]);
    assert!(!refuses(SlotCounts::new(), other), "it is not here");
}

#[test]
fn slots_that_are_not_here_are_named_and_nothing_is_said_of_them() {
    let offering = |text: &str| {
        let mut bench = Bench::new(1, 1 << 20);
        let Bench { primary, .. } = &mut bench;
        *primary = Primary::new(Settings { offers: Some(slots(text)), ..bench_settings() }, 0);
        bench
    };
    let mut bench = offering("0-1");
    let actions = bench.subscribe_to(Some(slots("1-2")), vec![at(1, 3, TERM), at(2, 5, TERM)]);
    let Some(Action::Send(Message::Welcome { missing, .. })) = actions.first() else { panic!("welcome") };
    assert_eq!(*missing, slots("2"));
    assert_eq!(bench.primary.slots().map(|slots| (**slots).clone()), Some(slots("1")));
    let shard = ShardId(0);
    bench.tell(Event::Published { shard, lsn: Lsn(9) });
    bench.tell(Event::State { shard, positions: vec![at(1, 3, TERM)], upto: Lsn(9) });
    let actions = bench.tell(Event::Located { shard, segments: Vec::new(), upto: Lsn(9) });
    assert!(
        !actions.iter().any(|action| matches!(action, Action::Copy { .. })),
        "what it has of slot 2 is not taken from it: {actions:?}"
    );
    assert!(is_closed(&offering("0-1").subscribe(Vec::new())), "a whole node cannot follow some slots");
}

/// What a capture of this kind is told of slot 1, which it has up to `has` or does not name, when the log begins
/// behind that; and what passes then.
fn captured(copies: Copies, has: Option<SlotPosition>) -> Vec<Action> {
    let mut bench = Bench::of(Peer::Capture(copies), 1, 1 << 20);
    let (shard, upto) = (ShardId(0), Lsn(20));
    let node = [b'0'; 40];
    // Nothing is missing of slot 2, unless it is not named.
    let known = (copies != Copies::PositionsOfAll).then(|| at(2, 7, TERM));
    let positions = has.into_iter().chain(known).collect();
    let subscribe = Subscribe {
        tables: 1,
        slots_per_table: u16::MAX,
        crc16: true,
        node,
        slot_counts: SlotCounts::new(),
        slots: None,
        positions,
        rewinds: vec![],
    };
    let actions = bench.tell(Event::Received(Message::Subscribe(subscribe)));
    assert!(!is_closed(&actions), "how it would divide keys is nothing to it");
    bench.tell(Event::Published { shard, lsn: upto });
    bench.tell(Event::State { shard, positions: vec![at(1, 20, TERM), at(2, 7, TERM)], upto });
    let held = |first_index, last_index| Held { first_index, last_index, last_term: TERM };
    let slots = [((TABLE, Slot(1)), held(11, 20)), ((TABLE, Slot(2)), held(1, 7))];
    let segments = vec![Indexed { first: Lsn(5), slots: slots.into_iter().collect() }];
    let mut actions = bench.tell(Event::Located { shard, segments, upto });
    for record in [logged(20, 1, 20, TERM, 9), logged(21, 1, 21, TERM, 9)] {
        actions.extend(bench.tell(Event::Published { shard, lsn: record.lsn }));
        let wants = |action: &Action| matches!(action, Action::Read { from, .. } if *from <= record.lsn);
        if actions.iter().any(wants) {
            actions.extend(bench.tell(Event::Read { shard, record }));
        }
    }
    actions
}

fn copy_begun(actions: &[Action]) -> Option<Vec<SlotPosition>> {
    actions.iter().find_map(|action| match action {
        Action::Send(Message::CopyBegin { slots, .. }) => Some(slots.clone()),
        _ => None,
    })
}

#[test]
fn a_capture_is_told_where_slots_stand_that_the_log_has_no_more_and_gets_no_rows() {
    for has in [None, Some(at(1, 3, TERM)), Some(at(1, 21, TERM)), Some(at(1, 0, 0))] {
        let actions = captured(Copies::Positions, has);
        assert_eq!(copy_begun(&actions), Some(vec![at(1, 20, TERM)]), "{has:?}");
        assert!(!actions.iter().any(|action| matches!(action, Action::Copy { .. })), "no shard is read");
        let marked = |action: &Action| matches!(action, Action::Send(Message::CopyMark { upto: 1, .. }));
        let ended = |action: &Action| matches!(action, Action::Send(Message::CopyEnd { .. }));
        let begins =
            |action: &Action| matches!(action, Action::Send(Message::StreamFrom { next: Lsn(21), .. }));
        let place = |what: &dyn Fn(&Action) -> bool| actions.iter().position(what).expect("it is said");
        assert!(place(&marked) < place(&ended) && place(&ended) < place(&begins), "as a copy is");
        assert_eq!(sent(&actions), [21], "the position covers what stands before");
    }
    let has = Some(at(1, 15, TERM));
    assert_eq!(copy_begun(&captured(Copies::Positions, has)), None, "the log has what it lacks");
}

#[test]
fn a_capture_that_begins_now_is_told_where_every_slot_stands() {
    let actions = captured(Copies::PositionsOfAll, None);
    assert_eq!(copy_begun(&actions), Some(vec![at(1, 20, TERM), at(2, 7, TERM)]));
    assert_eq!(sent(&actions), [21]);
}

#[test]
fn a_capture_that_wants_rows_is_sent_copies() {
    let actions = captured(Copies::Rows, None);
    let copies =
        |action: &Action| matches!(action, Action::Copy { slots, .. } if *slots == [(TABLE, Slot(1))]);
    assert!(actions.iter().any(copies));
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

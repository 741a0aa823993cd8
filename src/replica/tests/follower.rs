//! A follower, event by event.

use crate::binlog::{Lsn, Touch};
use crate::replica::follower::{Action, Event, Follower, Settings};
use crate::replica::history::{Diverged, History};
use crate::replica::keys::Rewind;
use crate::replica::position::Position;
use crate::replica::status::Link;
use crate::replica::wire::{Identity, Message, Record, SlotCounts, Subscribe};
use crate::shard::mesh::SlotPosition;
use crate::slot::placement::Placement;
use crate::slot::set::TableSlots;
use crate::slot::{ShardId, Slot, TableId};
use crate::store::effects::{BodyWriter, Origin};
use crate::store::tx::{Change, Effect};
use crate::store::{Entry, Row};
use bytes::Bytes;
use smallvec::smallvec;

const TERM: u64 = 5 << 20;
const TABLE: TableId = TableId(0);
const STREAM: ShardId = ShardId(0);

struct Bench {
    follower: Follower,
    now_ms: u64,
}

impl Bench {
    fn new() -> Bench {
        let placement = Placement::even(8, 2);
        let settings = Settings {
            own: Identity {
                placement,
                tables: 2,
                crc16: false,
                node: [b'f'; 40],
                slot_counts: SlotCounts::new(),
            },
            slots: None,
            timeout_ms: 1000,
            seed: 7,
        };
        Bench { follower: Follower::new(settings), now_ms: 0 }
    }

    /// It has one record of slot 1, and nothing is missing up to LSN 10 of a primary of one shard.
    fn flowing() -> Bench {
        let mut bench = Bench::new();
        assert_eq!(bench.tell(Event::Start), [Action::AskPositions]);
        bench.connect();
        bench.hear(Message::Welcome { streams: 1, node: [b'p'; 40], time_ms: 0, missing: TableSlots::new() });
        bench.hear(Message::StreamFrom { stream: STREAM, next: Lsn(11) });
        assert_eq!(bench.follower.link(), Link::Connected);
        bench
    }

    /// What it subscribes with.
    fn connect(&mut self) -> Vec<SlotPosition> {
        let positions = vec![at(1, 1)];
        let ends = vec![(ShardId(0), Lsn(3)), (ShardId(1), Lsn(0))];
        assert_eq!(self.tell(Event::Positions { positions, ends }), [Action::Connect]);
        self.subscribed().positions
    }

    fn subscribed(&mut self) -> Subscribe {
        match &self.tell(Event::Connected)[..] {
            [Action::Send(Message::Subscribe(subscribe))] => subscribe.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.follower.handle(event, &mut actions);
        actions
    }

    fn hear(&mut self, message: Message) -> Vec<Action> {
        self.tell(Event::Received(message))
    }

    /// What it acknowledges when nothing else is to be done.
    fn acknowledged(&mut self) -> Option<(u64, u64)> {
        let actions = self.tell(Event::Idle);
        match actions[..] {
            [] => None,
            [Action::Send(Message::Ack { applied, durable, .. })] => Some((applied.0, durable.0)),
            _ => panic!("{actions:?}"),
        }
    }

    /// How long it waits before it begins again.
    fn pause_ms(&mut self) -> u64 {
        let from = self.now_ms;
        while !self.tell(Event::Tick { now_ms: self.now_ms }).contains(&Action::AskPositions) {
            self.now_ms += 1;
        }
        self.now_ms - from
    }
}

fn at(slot: u16, index: u64) -> SlotPosition {
    SlotPosition { table: TABLE, slot: Slot(slot), index, term: if index > 0 { TERM } else { 0 } }
}

fn record(lsn: u64, slot: u16, index: u64) -> Message {
    let change = Change::Put(Row::string(Bytes::from_static(b"value")));
    let (slot, name) = (Slot(slot), Bytes::from_static(b"name"));
    let effect = Effect { table: TABLE, slot, name, change, existed: None };
    let mut body = Vec::new();
    BodyWriter::new(&mut body, Origin::STRING).effect(&effect);
    let touches = smallvec![Touch { table: TABLE, slot, index, term: TERM }];
    Message::Record(Record {
        stream: STREAM,
        lsn: Lsn(lsn),
        time_ms: 0,
        touches,
        exact: true,
        body: body.into(),
    })
}

fn applied(shard: u16, lsn: u64, own: u64) -> Event {
    Event::Applied { shard: ShardId(shard), stream: STREAM, lsn: Lsn(lsn), own: Lsn(own) }
}

#[test]
fn what_is_applied_is_acknowledged_up_to_the_first_record_that_is_not() {
    let mut bench = Bench::flowing();
    assert_eq!(bench.acknowledged(), Some((10, 0)), "as far as it was told to have everything");
    bench.hear(record(11, 1, 2));
    bench.hear(record(12, 6, 1));
    bench.hear(record(14, 1, 3));
    bench.tell(applied(1, 12, 1));
    assert_eq!(bench.acknowledged(), None, "another shard has not applied what came first");
    bench.tell(applied(0, 11, 4));
    assert_eq!(bench.acknowledged(), Some((11, 0)), "its last is applied, its next is not");
    bench.tell(applied(0, 14, 5));
    assert_eq!(bench.acknowledged(), Some((14, 0)));
}

#[test]
fn what_was_there_before_is_durable_only_when_the_logs_are() {
    let mut bench = Bench::flowing();
    assert_eq!(bench.acknowledged(), Some((10, 0)));
    bench.tell(Event::Durable { shard: ShardId(0), own: Lsn(2) });
    assert_eq!(bench.acknowledged(), None);
    bench.tell(Event::Durable { shard: ShardId(0), own: Lsn(3) });
    assert_eq!(bench.acknowledged(), Some((10, 10)));
}

#[test]
fn a_gap_is_not_applied_and_its_slot_is_asked_for_whole() {
    let mut bench = Bench::flowing();
    assert_eq!(bench.hear(record(11, 1, 3)), [Action::Disconnect]);
    assert!(bench.follower.last_error().is_some_and(|why| why.contains("slot 1 of table 0")));
    bench.pause_ms();
    assert_eq!(bench.connect(), [at(1, 0)], "at 0: it must be copied");
}

#[test]
fn what_the_primary_has_not_is_kept_before_it_is_asked_for_whole() {
    let mut bench = Bench::flowing();
    let slot = (TABLE, Slot(1));
    let primarys = History { whole: true, ends: Vec::new() };
    let forget = Message::Forget { slots: vec![(slot, primarys.clone())] };
    assert_eq!(bench.hear(forget), [Action::Disconnect]);
    bench.pause_ms();
    let asked = || {
        let ends = vec![(ShardId(0), Lsn(3)), (ShardId(1), Lsn(0))];
        Event::Positions { positions: vec![at(1, 1)], ends }
    };
    let diverged = Diverged { slot, has: Position { index: 1, term: TERM }, primarys };
    let keep = |actions: &[Action]| matches!(actions, [Action::KeepDropped { slots, .. }] if *slots == [diverged.clone()]);
    assert!(keep(&bench.tell(asked())));
    assert_eq!(bench.tell(Event::NotKept { why: "no room".into() }), []);
    assert!(bench.follower.last_error().is_some_and(|why| why.contains("no room")));
    bench.pause_ms();
    assert!(keep(&bench.tell(asked())), "it is tried again, and nothing is forgotten");
    assert_eq!(bench.tell(Event::Kept { rewinds: Vec::new() }), [Action::Connect]);
    let said = bench.tell(Event::Connected);
    let [Action::Send(Message::Subscribe(subscribe))] = &said[..] else { panic!("{said:?}") };
    assert_eq!(subscribe.positions, [at(1, 0)], "at 0: it must be copied");
    bench.tell(Event::Lost { why: "cut".into() });
    bench.pause_ms();
    assert_eq!(bench.tell(asked()), [Action::Connect], "once is enough");
}

/// Slot 1 is to be brought back by its keys: what it subscribes with.
fn rewinding() -> (Bench, Subscribe) {
    let mut bench = Bench::flowing();
    let slot = (TABLE, Slot(1));
    bench.hear(Message::Forget { slots: vec![(slot, History { whole: true, ends: Vec::new() })] });
    bench.pause_ms();
    let ends = vec![(ShardId(0), Lsn(3)), (ShardId(1), Lsn(0))];
    bench.tell(Event::Positions { positions: vec![at(1, 1)], ends });
    let rewind = Rewind { slot, fork: Position::default(), keys: vec!["ours".into()] };
    assert_eq!(bench.tell(Event::Kept { rewinds: vec![rewind] }), [Action::Connect]);
    let subscribe = bench.subscribed();
    bench.hear(Message::Welcome { streams: 1, node: [b'p'; 40], time_ms: 0, missing: TableSlots::new() });
    bench.hear(Message::CopyBegin { stream: STREAM, slots: vec![at(1, 7), at(2, 5)] });
    (bench, subscribe)
}

fn keys(slot: u16) -> Message {
    let keys = vec!["ours".into(), "theirs".into()];
    Message::CopyKeys { stream: STREAM, table: TABLE, slot: Slot(slot), keys }
}

fn rows(slot: u16) -> Message {
    let entry = Entry { element: false, key: "theirs".into(), value: "v".into() };
    Message::CopyRows { stream: STREAM, table: TABLE, slot: Slot(slot), entries: vec![entry] }
}

#[test]
fn a_slot_comes_back_by_its_keys_before_anything_that_follows_is_acknowledged() {
    let (mut bench, subscribe) = rewinding();
    assert_eq!(subscribe.positions, [at(1, 0)]);
    assert_eq!(subscribe.rewinds.len(), 1);
    assert_eq!(bench.hear(keys(1)), []);
    assert_eq!(bench.hear(rows(1)), [], "it is held until it is complete");
    let ack = Message::CopyAck { stream: STREAM, chunks: 1 };
    assert_eq!(bench.tell(Event::Idle), [Action::Send(ack)]);
    let actions = bench.hear(Message::CopyMark { stream: STREAM, upto: 1 });
    let [Action::Rewind { shard: ShardId(0), slots }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((slots[0].at, slots[0].keys.len(), slots[0].entries.len()), (at(1, 7), 2, 1));
    assert!(matches!(bench.hear(rows(2))[..], [Action::Copy { .. }]), "the other comes whole");
    bench.tell(Event::Copied { shard: ShardId(0) });
    bench.hear(Message::CopyMark { stream: STREAM, upto: 2 });
    let adopt = Action::Adopt { shard: ShardId(0), slots: vec![at(2, 5)] };
    assert_eq!(bench.hear(Message::CopyEnd { stream: STREAM }), [adopt]);
    bench.hear(Message::StreamFrom { stream: STREAM, next: Lsn(11) });
    bench.tell(Event::Idle);
    bench.tell(Event::Adopted { shard: ShardId(0), own: Lsn(5) });
    assert_eq!(bench.acknowledged(), None, "one of the two is not here yet");
    bench.tell(Event::Rewound { shard: ShardId(0), own: Lsn(4) });
    assert_eq!(bench.acknowledged(), Some((10, 0)));
    assert!(matches!(bench.hear(record(11, 1, 8))[..], [Action::Apply { .. }]), "it goes on from there");
}

#[test]
fn a_slot_that_cannot_come_back_by_its_keys_is_asked_for_whole() {
    let (mut bench, _) = rewinding();
    bench.hear(keys(1));
    bench.hear(Message::CopyMark { stream: STREAM, upto: 1 });
    let not = Event::NotRewound { slot: (TABLE, Slot(1)), why: "too much".into() };
    assert_eq!(bench.tell(not), [Action::Disconnect]);
    bench.pause_ms();
    let ends = vec![(ShardId(0), Lsn(3)), (ShardId(1), Lsn(0))];
    assert_eq!(bench.tell(Event::Positions { positions: vec![at(1, 1)], ends }), [Action::Connect]);
    let subscribe = bench.subscribed();
    assert_eq!((subscribe.positions, subscribe.rewinds), (vec![at(1, 0)], vec![]));
}

#[test]
fn keys_that_were_not_asked_for_or_come_twice_end_the_link() {
    assert_eq!(rewinding().0.hear(keys(2)), [Action::Disconnect]);
    let (mut bench, _) = rewinding();
    bench.hear(keys(1));
    assert_eq!(bench.hear(keys(1)), [Action::Disconnect]);
    let (mut bench, _) = rewinding();
    bench.hear(keys(1));
    bench.hear(Message::CopyMark { stream: STREAM, upto: 1 });
    assert_eq!(bench.hear(rows(1)), [Action::Disconnect], "it is complete");
}

#[test]
fn a_record_that_is_here_already_is_left_out() {
    let mut bench = Bench::flowing();
    assert_eq!(bench.hear(record(11, 1, 1)), []);
    assert_eq!(bench.acknowledged(), Some((11, 0)));
}

#[test]
fn a_primary_that_speaks_out_of_turn_is_left() {
    for message in [
        Message::Alive,
        Message::Upto { stream: ShardId(1), lsn: Lsn(20) },
        Message::Upto { stream: STREAM, lsn: Lsn(9) },
        Message::CopyEnd { stream: STREAM },
        Message::StreamFrom { stream: STREAM, next: Lsn(11) },
        record(11, 8, 1),
    ] {
        assert_eq!(Bench::flowing().hear(message.clone()), [Action::Disconnect], "{message:?}");
    }
}

#[test]
fn pauses_grow_until_a_link_has_come_to_something() {
    let mut bench = Bench::flowing();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        bench.tell(Event::Lost { why: "cut".into() });
        pauses.push(bench.pause_ms());
        bench.connect();
    }
    assert!((50..=100).contains(&pauses[0]) && (2500..=5000).contains(&pauses[7]), "{pauses:?}");
    bench.hear(Message::Welcome { streams: 1, node: [b'p'; 40], time_ms: 0, missing: TableSlots::new() });
    bench.hear(Message::StreamFrom { stream: STREAM, next: Lsn(11) });
    bench.tell(Event::Lost { why: "cut".into() });
    assert!(bench.pause_ms() <= 100);
}

#[test]
fn a_silent_primary_is_left() {
    let mut bench = Bench::flowing();
    bench.tell(Event::Tick { now_ms: 1000 });
    assert!(bench.tell(Event::Tick { now_ms: 1900 }).iter().all(|action| *action != Action::Disconnect));
    bench.tell(Event::Heard);
    bench.tell(Event::Tick { now_ms: 2000 });
    assert!(!bench.tell(Event::Tick { now_ms: 3000 }).contains(&Action::Disconnect));
    assert!(bench.tell(Event::Tick { now_ms: 3001 }).contains(&Action::Disconnect));
}

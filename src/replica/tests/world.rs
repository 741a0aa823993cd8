//! Nodes that follow each other over a network that loses, delays and cuts, with everything by chance of a seed.
//!
//! What is checked on the way: the same position of a slot means the same data on every node; what a follower
//! has acknowledged it has when it is promoted; nothing is copied or forgotten that could have gone on.

mod drivers;
mod dropped;

use super::model::{Content, Shard, SlotData, State};
use crate::binlog::{Lsn, Participant, Touch, Txn};
use crate::replica::decode::Decoder;
use crate::replica::encode::Encoder;
use crate::replica::follower::{self, Follower};
use crate::replica::history::Diverged;
use crate::replica::inflow::Rewound;
use crate::replica::position::{Position, Positions, SlotName};
use crate::replica::primary::{self, Primary, Stage};
use crate::replica::status::Link as LinkState;
use crate::replica::wire::{Identity, SlotCounts};
use crate::shard::mesh::{Portion, SlotPosition};
use crate::slot::placement::Placement;
use crate::slot::set::{self, TableSlots};
use crate::slot::{ShardId, Slot, TableId};
use crate::store::effects::{Operation, SlotRange, SlotWide};
use crate::store::tx::{Change, Effect};
use crate::store::{Entry, Row};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};

pub const SLOTS: u16 = 6;
pub const TABLES: u32 = 2;
const TIMEOUT_MS: u64 = 3_000;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Answers leave when they are durable; else a power cut may take them back.
    pub always: bool,
    /// Chances per step, of 1000.
    pub write: u32,
    pub sync: u32,
    pub roll: u32,
    pub purge: u32,
    pub cut: u32,
    pub part: u32,
    pub crash: u32,
    pub promote: u32,
    pub wide: u32,
    /// Something that waits is done in this step.
    pub pace: u32,
    pub window_bytes: u64,
}

/// What has been asked of all shards under one ticket: how many have not answered, and what the others have said.
type Asked = (usize, Vec<SlotPosition>, Vec<(ShardId, Lsn)>);

/// Records of one shard, with what they made of the slots.
type Written = Vec<(Lsn, Vec<(SlotName, Position)>)>;

pub struct Node {
    id: [u8; 40],
    wanted: Option<TableSlots>,
    placement: Placement,
    pub shards: Vec<Shard>,
    up_at_ms: u64,
    pub up: bool,
    /// The node that it follows.
    pub follows: Option<usize>,
    machine: Follower,
    /// The link its machine talks on.
    link: Option<u64>,
    decoder: Decoder,
    encoder: Encoder,
    /// By local shard, what has been asked of it and not been done.
    tasks: Vec<VecDeque<Task>>,
    /// Answers to older questions are not told.
    ticket: u64,
    /// Applied and not told, until it is durable.
    unreleased: Vec<(ShardId, follower::Event, Lsn, u64)>,
    asked: Option<Asked>,
}

enum Task {
    /// Asked under this ticket.
    State(u64),
    Apply(Portion),
    Copy(SlotName, Vec<Entry>),
    Adopt(Vec<SlotPosition>),
    KeepDropped(Vec<Diverged>, Vec<(ShardId, Lsn)>),
    Rewind(Vec<Rewound>),
}

/// A connection: bytes on their way in both directions, and its end at the primary.
struct Link {
    id: u64,
    follower: usize,
    primary: usize,
    opened: bool,
    opens_at_ms: u64,
    /// Nothing arrives any more; each end learns of it in its own time.
    cut: bool,
    /// The primary has ended it: what is under way arrives.
    closed: bool,
    to_primary: VecDeque<(u64, Bytes)>,
    to_follower: VecDeque<(u64, Bytes)>,
    server: Option<Server>,
}

struct Server {
    machine: Primary,
    encoder: Encoder,
    decoder: Decoder,
    questions: VecDeque<primary::Action>,
    copies: FxHashMap<ShardId, VecDeque<primary::Event>>,
    claims: Positions,
    wants: Vec<SlotName>,
}

pub struct World {
    rng: StdRng,
    /// The slots that are followed; None: all.
    wanted: Option<TableSlots>,
    pub weather: Weather,
    now_ms: u64,
    pub nodes: Vec<Node>,
    pub head: usize,
    links: Vec<Link>,
    next_link: u64,
    parted: Vec<(usize, usize)>,
    counter: u64,
    /// What a slot holds at a position.
    oracle: FxHashMap<(SlotName, u64, u64), u64>,
    /// Of this reign: by follower and shard of the primary, what it has acknowledged.
    acknowledged: FxHashMap<(usize, ShardId), Lsn>,
    /// Of this reign: what was written, with what it made of the slots.
    reign: Vec<Written>,
    pub slots_copied: u64,
    pub records_sent: u64,
    pub promotions: u64,
    pub crashes: u64,
    pub forgotten: u64,
    /// Records that were kept before they were dropped, and slots of which that was not known to be all.
    pub dropped: u64,
    pub incomplete: u64,
    /// Slots that were brought back by their keys, and those keys.
    pub rewound: u64,
    pub keys: u64,
    /// What every position of a slot was written behind, and by which record.
    written_behind: FxHashMap<(SlotName, Position), (Position, Touch)>,
}

impl World {
    pub fn new(seed: u64, weather: Weather, shards: &[u16]) -> World {
        World::of_slots(seed, weather, shards, None)
    }

    /// A world in which these slots alone are followed, and so have to come to be the same.
    pub fn of_slots(seed: u64, weather: Weather, shards: &[u16], wanted: Option<TableSlots>) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes: Vec<Node> = shards
            .iter()
            .enumerate()
            .map(|(at, count)| Node::new(at, *count, wanted.clone(), &mut rng))
            .collect();
        let mut world = World {
            rng,
            wanted,
            weather,
            now_ms: 1_000,
            nodes,
            head: 0,
            links: Vec::new(),
            next_link: 1,
            parted: Vec::new(),
            counter: 0,
            oracle: FxHashMap::default(),
            acknowledged: FxHashMap::default(),
            reign: Vec::new(),
            slots_copied: 0,
            records_sent: 0,
            promotions: 0,
            crashes: 0,
            forgotten: 0,
            dropped: 0,
            incomplete: 0,
            rewound: 0,
            keys: 0,
            written_behind: FxHashMap::default(),
        };
        world.begin_reign();
        for at in 1..world.nodes.len() {
            world.nodes[at].follows = Some(0);
            world.tell(at, follower::Event::Start);
        }
        world
    }

    fn chance(&mut self, of_1000: u32) -> bool {
        self.rng.random_range(0..1000) < of_1000
    }

    fn begin_reign(&mut self) {
        self.acknowledged.clear();
        self.reign = vec![Vec::new(); self.nodes[self.head].shards.len()];
    }

    /// One step of time, in which some of what can happen happens.
    pub fn step(&mut self) {
        self.now_ms += self.rng.random_range(1..20);
        let weather = self.weather;
        for at in 0..self.nodes.len() {
            if !self.nodes[at].up && self.now_ms >= self.nodes[at].up_at_ms {
                self.start(at);
            }
        }
        if self.nodes[self.head].up && self.chance(weather.write) {
            self.write();
        }
        for at in 0..self.nodes.len() {
            if self.chance(weather.sync) {
                self.sync(at);
            }
            for shard in 0..self.nodes[at].shards.len() {
                if self.chance(weather.roll) {
                    self.nodes[at].shards[shard].roll();
                }
                if self.chance(weather.purge) {
                    self.nodes[at].shards[shard].purge();
                }
            }
        }
        if self.chance(weather.cut) && !self.links.is_empty() {
            let at = self.rng.random_range(0..self.links.len());
            self.links[at].cut = true;
        }
        if self.chance(weather.part) {
            self.part();
        }
        if self.chance(weather.crash) {
            self.crash();
        }
        if self.chance(weather.promote) {
            self.promote();
        }
        self.work();
    }

    /// Everything that is asked for and can be done, as fast as the weather lets it.
    fn work(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].up {
                self.tell(at, follower::Event::Tick { now_ms: self.now_ms });
                self.local(at);
            }
        }
        for id in self.links.iter().map(|link| link.id).collect::<Vec<_>>() {
            self.carry(id);
        }
        let nodes = &self.nodes;
        self.links
            .retain(|link| !link.cut || link.server.is_some() || nodes[link.follower].link == Some(link.id));
    }

    // The primary's writes.

    fn write(&mut self) {
        self.counter += 1;
        let placement = self.nodes[self.head].placement.clone();
        let value = Bytes::from(self.counter.to_string());
        let mut works: BTreeMap<ShardId, Vec<Operation>> = BTreeMap::new();
        if self.chance(self.weather.wide) {
            let swap = self.chance(500);
            for shard in placement.shards() {
                let (first, last) = run(&placement, shard);
                let table = TableId(self.rng.random_range(0..TABLES));
                let wide = if swap {
                    SlotWide::SwapTables { a: TableId(0), b: TableId(1), slots: Vec::new() }
                } else {
                    SlotWide::Flush { table, slots: vec![SlotRange { first, last }] }
                };
                works.insert(shard, vec![Operation::SlotWide(wide)]);
            }
        } else {
            let keys = if self.chance(700) { 1 } else { self.rng.random_range(2..5) };
            for _ in 0..keys {
                let (table, slot) =
                    (TableId(self.rng.random_range(0..TABLES)), Slot(self.rng.random_range(0..SLOTS)));
                let name = Bytes::from(format!("k{}", self.rng.random_range(0..4)));
                let change =
                    if self.chance(150) { Change::Delete } else { Change::Put(Row::string(value.clone())) };
                let effect = Effect { table, slot, name, change, existed: None };
                works.entry(placement.shard_of(slot)).or_default().push(Operation::Effect(effect));
            }
        }
        self.commit(works);
    }

    fn commit(&mut self, mut works: BTreeMap<ShardId, Vec<Operation>>) {
        let (number, skip, now) =
            (self.counter, self.rng.random_range(0..8u64).saturating_sub(5), self.now_ms);
        let Some((home, own)) = works.pop_first() else { return };
        let others: Vec<Operation> = works.values().flatten().cloned().collect();
        let part = |shard: &ShardId| Participant { shard: *shard, number, after: Lsn::ZERO };
        let whole =
            (!works.is_empty()).then(|| Txn::Whole { participants: works.keys().map(part).collect() });
        let before = self.shard(self.head, home).state.clone();
        let home_lsn = self.shard(self.head, home).write(&own, &others, whole, skip, now).0;
        self.note_written(home, &before);
        for (shard, own) in works {
            let txn = Txn::Part { home, home_lsn, number };
            let before = self.shard(self.head, shard).state.clone();
            self.shard(self.head, shard).write(&own, &[], Some(txn), 0, now);
            self.note_written(shard, &before);
        }
    }

    fn shard(&mut self, node: usize, shard: ShardId) -> &mut Shard {
        &mut self.nodes[node].shards[usize::from(shard.0)]
    }

    fn note_written(&mut self, shard: ShardId, before: &State) {
        let of = &self.nodes[self.head].shards[usize::from(shard.0)];
        let entry = of.log.last().unwrap();
        for ((slot, position), touch) in entry.after.iter().zip(&entry.logged.touches) {
            let behind = before.get(slot).map(SlotData::position).unwrap_or_default();
            self.written_behind.insert((*slot, *position), (behind, *touch));
            let print = of.get(*slot).print();
            let before = self.oracle.insert((*slot, position.term, position.index), print);
            assert!(
                before.is_none_or(|before| before == print),
                "a position was given twice: {slot:?} {position:?}"
            );
        }
        self.reign[usize::from(shard.0)].push((entry.logged.lsn, entry.after.clone()));
    }

    // What befalls the nodes.

    fn sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.up {
            return;
        }
        for shard in &mut node.shards {
            shard.durable = shard.last;
        }
        let ends: Vec<(ShardId, Lsn)> = node.shards.iter().map(|shard| (shard.id, shard.durable)).collect();
        let released = std::mem::take(&mut node.unreleased);
        for (_, event, _, ticket) in released {
            if ticket == self.nodes[at].ticket {
                self.tell(at, event);
            }
        }
        for (shard, own) in ends {
            self.tell(at, follower::Event::Durable { shard, own });
        }
    }

    fn part(&mut self) {
        if !self.parted.is_empty() && self.chance(500) {
            self.parted.clear();
        } else {
            let (a, b) =
                (self.rng.random_range(0..self.nodes.len()), self.rng.random_range(0..self.nodes.len()));
            self.parted.push((a, b));
        }
    }

    fn is_parted(&self, a: usize, b: usize) -> bool {
        self.parted.contains(&(a, b)) || self.parted.contains(&(b, a))
    }

    fn crash(&mut self) {
        let at = self.rng.random_range(0..self.nodes.len());
        if !self.nodes[at].up {
            return;
        }
        self.crashes += 1;
        let kept = self.chance(500);
        for shard in 0..self.nodes[at].shards.len() {
            let chance = self.rng.random();
            self.nodes[at].shards[shard].restart(kept, chance);
        }
        if !kept && !self.weather.always {
            self.acknowledged.retain(|(follower, _), _| *follower != at);
        }
        if !kept && at == self.head {
            for (shard, written) in self.nodes[at].shards.iter().zip(&mut self.reign) {
                written.retain(|(lsn, _)| *lsn <= shard.last);
            }
            // Numbers of the log are given again.
            let lasts: Vec<Lsn> = self.nodes[at].shards.iter().map(|shard| shard.last).collect();
            for ((_, shard), lsn) in &mut self.acknowledged {
                *lsn = (*lsn).min(lasts[usize::from(shard.0)]);
            }
        }
        let seed = self.rng.random();
        let node = &mut self.nodes[at];
        (node.up, node.up_at_ms) = (false, self.now_ms + 400);
        node.forget_process(seed);
        for link in &mut self.links {
            if link.primary == at {
                link.server = None;
            }
            if link.primary == at || link.follower == at {
                link.cut = true;
            }
        }
    }

    fn start(&mut self, at: usize) {
        self.nodes[at].up = true;
        if self.nodes[at].follows.is_some() {
            self.tell(at, follower::Event::Start);
        }
    }

    /// Another node becomes the primary; all others follow it from now on.
    fn promote(&mut self) {
        let to = self.rng.random_range(0..self.nodes.len());
        if to == self.head || !self.nodes[to].up {
            return;
        }
        self.promotions += 1;
        self.check_acknowledged(to);
        self.head = to;
        for at in 0..self.nodes.len() {
            if self.nodes[at].up {
                self.tell(at, follower::Event::Stop);
            }
            self.nodes[at].follows = (at != to).then_some(to);
        }
        for link in &mut self.links {
            // Whoever served the others stops.
            (link.cut, link.server) = (true, None);
        }
        let node = &mut self.nodes[to];
        node.forget_tasks();
        for shard in &mut node.shards {
            shard.staged.clear();
            shard.begin_term(self.rng.random());
        }
        for at in (0..self.nodes.len()).filter(|at| *at != to) {
            if self.nodes[at].up {
                self.tell(at, follower::Event::Start);
            }
        }
        self.begin_reign();
    }

    /// What a follower has acknowledged it has.
    fn check_acknowledged(&self, follower: usize) {
        for (at, written) in self.reign.iter().enumerate() {
            let upto = self.acknowledged.get(&(follower, ShardId(at as u16))).copied().unwrap_or(Lsn::ZERO);
            for (slot, position) in
                written.iter().filter(|(lsn, _)| *lsn <= upto).flat_map(|(_, after)| after)
            {
                if !self.is_wanted(*slot) {
                    continue;
                }
                let node = &self.nodes[follower];
                let has = node.shards[usize::from(node.placement.shard_of(slot.1).0)].get(*slot).position();
                assert!(
                    has.index >= position.index && has.term >= position.term,
                    "node {follower} has acknowledged {upto:?} of shard {at}, with {slot:?} at {position:?}; it has {has:?}"
                );
            }
        }
    }

    fn is_wanted(&self, (table, slot): SlotName) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| set::holds(wanted, table, slot))
    }

    // The end.

    /// Nothing bad happens any more, and nothing is written, until all nodes have the same: how long that took.
    pub fn calm_down(&mut self) -> u64 {
        let (quiet, begun_ms) = (Weather { pace: 900, sync: 300, ..self.weather }, self.now_ms);
        self.weather =
            Weather { write: 0, purge: 0, roll: 0, cut: 0, part: 0, crash: 0, promote: 0, ..quiet };
        self.parted.clear();
        while !self.is_settled() {
            assert!(self.now_ms - begun_ms < 60_000, "the nodes do not come together: {}", self.difference());
            // Looking is dearer than going on.
            (0..8).for_each(|_| self.step());
        }
        self.now_ms - begun_ms
    }

    fn is_settled(&self) -> bool {
        let linked = |node: &Node| node.follows.is_none() || node.machine.link() == LinkState::Connected;
        self.nodes.iter().all(|node| node.up && linked(node)) && self.difference().is_empty()
    }

    fn difference(&self) -> String {
        let content = |node: &Node| -> BTreeMap<SlotName, (Position, Content)> {
            let all = node.shards.iter().flat_map(|shard| shard.state.clone());
            let known = all.filter(|(slot, data)| data.index > 0 && self.is_wanted(*slot));
            known.map(|(slot, data)| (slot, (data.position(), data.content))).collect()
        };
        let head = content(&self.nodes[self.head]);
        let mut text = String::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let own = content(node);
            if own != head {
                let slots = head.keys().chain(own.keys()).filter(|slot| head.get(slot) != own.get(slot));
                let first = slots.min().map(|slot| (slot, head.get(slot), own.get(slot)));
                text += &format!(
                    "node {at} ({:?}, {:?}) has {first:?}; ",
                    node.machine.link(),
                    node.machine.last_error()
                );
            }
        }
        text
    }

    /// All followers have acknowledged everything, as the primary sees it.
    pub fn all_acknowledged(&self) -> bool {
        let open = self.links.iter().filter(|link| !link.cut);
        let mut servers = open.filter_map(|link| link.server.as_ref());
        servers.all(|server| {
            let online = server.machine.stage() == Stage::Online;
            let shards = self.nodes[self.head].shards.iter();
            online
                && shards
                    .map(|shard| server.machine.lag(shard.id))
                    .all(|lag| lag.records == 0 && lag.bytes == 0)
        })
    }

    pub fn settle_acknowledgements(&mut self) {
        let begun_ms = self.now_ms;
        while !self.all_acknowledged() {
            assert!(self.now_ms - begun_ms < 20_000, "not everything is acknowledged");
            self.step();
        }
    }

    pub fn cut_all(&mut self) {
        self.links.iter_mut().for_each(|link| link.cut = true);
    }
}

/// First and last slot of a shard: the slots are spread evenly.
fn run(placement: &Placement, shard: ShardId) -> (Slot, Slot) {
    let slots = placement.slots_of(shard);
    (*slots.first().unwrap(), *slots.last().unwrap())
}

impl Node {
    fn new(at: usize, shards: u16, wanted: Option<TableSlots>, rng: &mut StdRng) -> Node {
        let placement = Placement::even(SLOTS, shards);
        let shard = |id| Shard::new(id, run(&placement, id), crate::binlog::next_term(0, rng.random()));
        let id = [b'0' + at as u8; 40];
        let settings = follower::Settings {
            own: Identity {
                placement: placement.clone(),
                tables: TABLES,
                crc16: false,
                node: id,
                slot_counts: SlotCounts::new(),
            },
            slots: wanted.clone(),
            timeout_ms: TIMEOUT_MS,
            seed: at as u64,
        };
        Node {
            id,
            wanted,
            shards: placement.shards().map(shard).collect(),
            placement,
            up_at_ms: 0,
            up: true,
            follows: None,
            machine: Follower::new(settings),
            link: None,
            decoder: Decoder::new(1 << 20),
            encoder: Encoder::default(),
            tasks: (0..shards).map(|_| VecDeque::new()).collect(),
            ticket: 0,
            unreleased: Vec::new(),
            asked: None,
        }
    }

    fn task(&mut self, shard: ShardId, task: Task) {
        self.tasks[usize::from(shard.0)].push_back(task);
    }

    fn forget_tasks(&mut self) {
        self.tasks.iter_mut().for_each(VecDeque::clear);
        self.unreleased.clear();
        self.asked = None;
    }

    fn forget_process(&mut self, seed: u64) {
        self.forget_tasks();
        self.ticket += 1;
        self.link = None;
        let settings = follower::Settings {
            own: Identity {
                placement: self.placement.clone(),
                tables: TABLES,
                crc16: false,
                node: self.id,
                slot_counts: SlotCounts::new(),
            },
            slots: self.wanted.clone(),
            timeout_ms: TIMEOUT_MS,
            seed,
        };
        self.machine = Follower::new(settings);
    }
}

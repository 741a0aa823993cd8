//! Which slots a node in sharding mode has, and what it is to each: their primary, or a follower of another node.
//!
//! Pure; kept as TOML in the data directory (`server/FORMAT.md`). Must not know how slots come and go.

use super::set::{self, SlotSet, TableSlots};
use super::{Slot, SlotHash, TableId, from_kept};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Another node, where it serves clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Peer {
    /// Reads `host:port`.
    pub fn parse(text: &str) -> Option<Peer> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| Peer { host: host.into(), port })
    }
}

/// What a node is to a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    #[default]
    Absent,
    /// It was handed to this node.
    Moved(Arc<Peer>),
    Primary,
    /// As `Primary`, but for a moment nobody's command begins: it is about to change hands.
    Held,
    Follows(Arc<Peer>),
    /// It is being handed to this node, which may be its primary already. The data is still here.
    Leaving(Arc<Peer>),
}

impl Role {
    /// The node has the slot's data.
    pub fn is_here(&self) -> bool {
        matches!(self, Role::Primary | Role::Held | Role::Follows(_) | Role::Leaving(_))
    }

    /// What this node writes into the slot is its own.
    pub fn is_primary(&self) -> bool {
        matches!(self, Role::Primary | Role::Held)
    }
}

/// All tables of a node in sharding mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment(BTreeMap<TableId, Box<[Role]>>);

/// Of a slot that no table has.
static ABSENT: Role = Role::Absent;

impl Assignment {
    /// None of the table's slots is here.
    pub fn add_table(&mut self, table: TableId, slots: u16) {
        let none = vec![Role::Absent; usize::from(slots)].into();
        let before = self.0.insert(table, none);
        assert!(before.is_none(), "a table is added once");
    }

    pub fn remove_table(&mut self, table: TableId) {
        self.0.remove(&table);
    }

    pub fn tables(&self) -> impl Iterator<Item = TableId> + '_ {
        self.0.keys().copied()
    }

    /// The number of a table's slots.
    pub fn slots(&self, table: TableId) -> Option<u16> {
        self.0.get(&table).map(|roles| roles.len() as u16)
    }

    /// How a table's keys lie in its slots. `usual`: how those of a table do that is not here.
    pub fn hash_of(&self, table: TableId, usual: SlotHash) -> SlotHash {
        match usual {
            SlotHash::Crc32 { .. } => self.slots(table).map_or(usual, |slots| SlotHash::Crc32 { slots }),
            SlotHash::Crc16 => usual,
        }
    }

    pub fn role(&self, table: TableId, slot: Slot) -> &Role {
        self.0.get(&table).and_then(|roles| roles.get(usize::from(slot.0))).unwrap_or(&ABSENT)
    }

    /// Slots that the table has.
    pub fn set(&mut self, table: TableId, slots: &SlotSet, role: &Role) {
        let roles = self.0.get_mut(&table).expect("who sets a role has looked for the table");
        for slot in slots {
            roles[usize::from(slot.0)] = role.clone();
        }
    }

    /// As `set`, in several tables.
    pub fn set_all(&mut self, slots: &TableSlots, role: &Role) {
        slots.iter().for_each(|(table, slots)| self.set(*table, slots, role));
    }

    /// Every slot, in order.
    pub fn iter(&self) -> impl Iterator<Item = (TableId, Slot, &Role)> {
        self.0.iter().flat_map(|(table, roles)| {
            roles.iter().enumerate().map(move |(slot, role)| (*table, Slot(slot as u16), role))
        })
    }

    pub fn with(&self, wanted: impl Fn(&Role) -> bool) -> TableSlots {
        let mut tables = TableSlots::new();
        for (table, slot, _) in self.iter().filter(|(.., role)| wanted(role)) {
            tables.entry(table).or_default().insert(slot);
        }
        tables
    }

    /// Slots whose data is here.
    pub fn here(&self) -> TableSlots {
        self.with(Role::is_here)
    }

    /// Slots that this node writes.
    pub fn own(&self) -> TableSlots {
        self.with(Role::is_primary)
    }

    /// Any slot of any table is held.
    pub fn holds_any(&self) -> bool {
        self.iter().any(|(.., role)| *role == Role::Held)
    }

    /// Slots by the node that they follow.
    pub fn followed(&self) -> BTreeMap<Arc<Peer>, TableSlots> {
        let mut all: BTreeMap<Arc<Peer>, TableSlots> = BTreeMap::new();
        for (table, slot, role) in self.iter() {
            if let Role::Follows(peer) = role {
                all.entry(peer.clone()).or_default().entry(table).or_default().insert(slot);
            }
        }
        all
    }

    /// As it is kept. A slot that is held is one of this node's: who held it is gone when this is read.
    pub fn to_toml(&self) -> String {
        let kept = |table: TableId, roles: &[Role]| {
            let mut kept = KeptTable { id: table.0, slots: roles.len() as u16, ..KeptTable::default() };
            let mut primary = SlotSet::new();
            let (mut follows, mut moved, mut leaving) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for (slot, role) in roles.iter().enumerate() {
                let slot = Slot(slot as u16);
                match role {
                    Role::Absent => {}
                    Role::Primary | Role::Held => drop(primary.insert(slot)),
                    Role::Follows(peer) => note(&mut follows, peer, slot),
                    Role::Moved(peer) => note(&mut moved, peer, slot),
                    Role::Leaving(peer) => note(&mut leaving, peer, slot),
                }
            }
            kept.primary = set::shown(&primary);
            (kept.follows, kept.moved) = (by_peer(follows), by_peer(moved));
            kept.leaving = by_peer(leaving);
            kept
        };
        let kept =
            Kept { format: FORMAT, table: self.0.iter().map(|(table, roles)| kept(*table, roles)).collect() };
        toml::to_string(&kept).expect("plain tables can be written")
    }

    /// Reads what `to_toml` has written.
    pub fn from_toml(text: &str) -> Result<Assignment, String> {
        let kept: Kept = from_kept(text, FORMAT)?;
        let mut assignment = Assignment::default();
        for table in kept.table {
            let id = TableId(table.id);
            if assignment.slots(id).is_some() {
                return Err(format!("table {} stands there twice", table.id));
            }
            assignment.add_table(id, table.slots);
            let mut named = BTreeSet::new();
            let mut put = |slots: &str, role: Role| {
                let slots = match slots {
                    "" => SlotSet::new(),
                    slots => set::parse(slots.as_bytes(), table.slots)
                        .map_err(|_| format!("{slots:?} names no slots of table {}", table.id))?,
                };
                if slots.iter().any(|slot| !named.insert(*slot)) {
                    return Err(format!("a slot of table {} stands there twice", table.id));
                }
                assignment.set(id, &slots, &role);
                Ok(())
            };
            put(&table.primary, Role::Primary)?;
            let peer =
                |text: &str| Peer::parse(text).map(Arc::new).ok_or(format!("{text:?} is no host:port"));
            for of in &table.follows {
                put(&of.slots, Role::Follows(peer(&of.peer)?))?;
            }
            for of in &table.leaving {
                put(&of.slots, Role::Leaving(peer(&of.peer)?))?;
            }
            for of in &table.moved {
                put(&of.slots, Role::Moved(peer(&of.peer)?))?;
            }
        }
        Ok(assignment)
    }
}

fn note(peers: &mut BTreeMap<Arc<Peer>, SlotSet>, peer: &Arc<Peer>, slot: Slot) {
    peers.entry(peer.clone()).or_default().insert(slot);
}

fn by_peer(peers: BTreeMap<Arc<Peer>, SlotSet>) -> Vec<KeptPeer> {
    let kept =
        |(peer, slots): (Arc<Peer>, SlotSet)| KeptPeer { peer: peer.to_string(), slots: set::shown(&slots) };
    peers.into_iter().map(kept).collect()
}

/// Version of the text; others are refused.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    #[serde(default)]
    table: Vec<KeptTable>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptTable {
    id: u32,
    slots: u16,
    primary: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    follows: Vec<KeptPeer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    moved: Vec<KeptPeer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leaving: Vec<KeptPeer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptPeer {
    peer: String,
    slots: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(text: &str) -> SlotSet {
        set::parse(text.as_bytes(), 16).expect("it is a set")
    }

    fn some() -> Assignment {
        let peer = |port| Arc::new(Peer { host: "::1".into(), port });
        let mut some = Assignment::default();
        some.add_table(TableId(0), 16);
        some.add_table(TableId(3), 16);
        some.set(TableId(0), &slots("0-3,7"), &Role::Primary);
        some.set(TableId(0), &slots("4"), &Role::Follows(peer(1)));
        some.set(TableId(0), &slots("9-15"), &Role::Moved(peer(2)));
        some.set(TableId(3), &slots("6-7"), &Role::Leaving(peer(9)));
        some.set(TableId(3), &slots("5"), &Role::Follows(peer(1)));
        some
    }

    #[test]
    fn what_is_kept_is_read_as_the_same() {
        let some = some();
        assert_eq!(Assignment::from_toml(&some.to_toml()), Ok(some));
        assert_eq!(Assignment::from_toml(&Assignment::default().to_toml()), Ok(Assignment::default()));
    }

    #[test]
    fn a_slot_that_is_held_is_read_as_ones_own() {
        let mut held = some();
        held.set(TableId(0), &slots("2"), &Role::Held);
        assert!(held.holds_any());
        assert_eq!(Assignment::from_toml(&held.to_toml()), Ok(some()));
    }

    #[test]
    fn what_no_node_has_written_is_refused() {
        let good = some().to_toml();
        for (from, to) in [
            ("format = 1", "format = 2"),
            ("0-3,7", "0-3,99"),
            ("0-3,7", "0-4,7"),
            ("id = 3", "id = 0"),
            ("::1:1", "nobody"),
            ("primary", "secondary"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(good, bad, "{from}");
            assert!(Assignment::from_toml(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slots_are_found_by_what_the_node_is_to_them() {
        let some = some();
        assert_eq!(some.own(), TableSlots::from([(TableId(0), slots("0-3,7"))]));
        let followed = some.followed();
        let of_one = TableSlots::from([(TableId(0), slots("4")), (TableId(3), slots("5"))]);
        assert_eq!(followed.into_values().collect::<Vec<_>>(), [of_one]);
        assert_eq!(some.here()[&TableId(0)], slots("0-4,7"));
        assert_eq!(*some.role(TableId(9), Slot(1)), Role::Absent);
        assert_eq!(*some.role(TableId(0), Slot(99)), Role::Absent);
    }
}

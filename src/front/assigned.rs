//! In sharding mode: whether this node may serve a command on these keys.
//!
//! Must not know how slots come and go.

use crate::command::{Spec, flag};
use crate::error::ClientError;
use crate::resp::args::Args;
use crate::slot::assignment::{Assignment, Peer, Role};
use crate::slot::{Slot, SlotHash, TableId};

/// What becomes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve,
    /// A slot is about to change hands: later.
    Hold,
    Refuse(ClientError),
}

/// How clients are spoken to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Who has a slot that is not here is said as in Redis Cluster.
    pub redirect: bool,
    /// This one has said READONLY: it will have what follows another node as it is.
    pub readonly: bool,
}

/// Looks at every key of a command. `usual`: how keys lie in the slots of a table that is not here.
pub fn judge(
    assignment: &Assignment,
    usual: SlotHash,
    manner: Manner,
    table: TableId,
    spec: &Spec,
    args: &Args<'_>,
) -> Verdict {
    // What is wrong with the arguments is found by the command.
    let Ok(keys) = spec.keys.of(args) else { return Verdict::Serve };
    let write = spec.has(flag::WRITE);
    let hash = assignment.hash_of(table, usual);
    let mut verdict = Verdict::Serve;
    for key in keys {
        let (table, slot) = (key.table.unwrap_or(table), hash.slot_of(args.get(key.arg)));
        // What runs on both keys knows one way from a name to a slot.
        if key.table.is_some() && assignment.hash_of(table, usual) != hash {
            return Verdict::Refuse(ClientError::fixed("ERR the two tables have different numbers of slots"));
        }
        match assignment.role(table, slot) {
            Role::Primary => {}
            Role::Held => verdict = Verdict::Hold,
            Role::Follows(_) if !write && (manner.readonly || !manner.redirect) => {}
            role => return Verdict::Refuse(refusal(role, slot, manner.redirect)),
        }
    }
    verdict
}

/// Why a slot's keys are not served here.
fn refusal(role: &Role, slot: Slot, redirect: bool) -> ClientError {
    let moved = |peer: &Peer| ClientError::new(format!("MOVED {} {peer}", slot.0));
    match role {
        Role::Moved(peer) | Role::Leaving(peer) | Role::Follows(peer) if redirect => moved(peer),
        Role::Follows(_) => ClientError::fixed("READONLY You can't write against a read only replica."),
        _ => ClientError::fixed("ERR Partition not found"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::table::{CommandTable, Run};
    use crate::resp::args::Span;
    use crate::slot::set;
    use std::sync::Arc;

    const HASH: SlotHash = SlotHash::Crc32 { slots: 4 };

    /// One key of each slot.
    fn names() -> [String; 4] {
        let of = |slot| {
            let name = |n: &u32| HASH.slot_of(format!("k{n}").as_bytes()) == Slot(slot);
            format!("k{}", (0..).find(name).expect("some key lies there"))
        };
        [of(0), of(1), of(2), of(3)]
    }

    fn verdict(assignment: &Assignment, redirect: bool, call: &str) -> Verdict {
        verdict_in(assignment, Manner { redirect, readonly: false }, call)
    }

    fn verdict_in(assignment: &Assignment, manner: Manner, call: &str) -> Verdict {
        let words: Vec<&str> = call.split(' ').collect();
        let (mut bytes, mut spans) = (Vec::new(), Vec::new());
        for word in words {
            spans.push(Span { start: bytes.len() as u32, len: word.len() as u32 });
            bytes.extend_from_slice(word.as_bytes());
        }
        let args = Args::new(&bytes, &spans);
        let table = CommandTable::default();
        let Some(Run::Keys(command)) = table.find(args.get(0)) else { panic!("{call}: a command on keys") };
        judge(assignment, HASH, manner, TableId(0), &command.spec, &args)
    }

    #[test]
    fn only_slots_that_are_here_are_served_and_only_own_ones_written() {
        let peer = Arc::new(Peer { host: "h".into(), port: 7 });
        let mut roles = Assignment::default();
        roles.add_table(TableId(0), 4);
        let one = |slot: u16| set::parse(slot.to_string().as_bytes(), 4).expect("it is a set");
        roles.set(TableId(0), &one(0), &Role::Primary);
        roles.set(TableId(0), &one(1), &Role::Follows(peer.clone()));
        roles.set(TableId(0), &one(2), &Role::Moved(peer));
        let [own, followed, moved, absent] = names();
        let refused = |text: &str| Verdict::Refuse(ClientError::new(text.to_owned()));
        assert_eq!(verdict(&roles, false, &format!("SET {own} v")), Verdict::Serve);
        assert_eq!(verdict(&roles, false, &format!("GET {followed}")), Verdict::Serve);
        let readonly = "READONLY You can't write against a read only replica.";
        assert_eq!(verdict(&roles, false, &format!("SET {followed} v")), refused(readonly));
        assert_eq!(
            verdict(&roles, false, &format!("MGET {own} {absent}")),
            refused("ERR Partition not found")
        );
        assert_eq!(verdict(&roles, false, &format!("GET {moved}")), refused("ERR Partition not found"));
        assert_eq!(verdict(&roles, true, &format!("GET {moved}")), refused("MOVED 2 h:7"));
        assert_eq!(verdict(&roles, true, &format!("SET {followed} v")), refused("MOVED 1 h:7"));
        assert_eq!(verdict(&roles, true, &format!("GET {followed}")), refused("MOVED 1 h:7"));
        let readonly = Manner { redirect: true, readonly: true };
        assert_eq!(verdict_in(&roles, readonly, &format!("GET {followed}")), Verdict::Serve);
        assert_eq!(verdict(&roles, true, &format!("GET {absent}")), refused("ERR Partition not found"));
        roles.set(TableId(0), &one(0), &Role::Held);
        assert_eq!(verdict(&roles, false, &format!("GET {own}")), Verdict::Hold);
        let both = format!("MSET {own} v {absent} v");
        assert_eq!(
            verdict(&roles, false, &both),
            refused("ERR Partition not found"),
            "waiting would not help"
        );
    }
}

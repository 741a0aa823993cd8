//! How far a capture has come, in a file: what it has of each slot. FORMAT.md has the layout.
//!
//! The file is whole at every moment, and never ahead of what is out. Must not know how it came so far.

use crate::shard::mesh::SlotPosition;
use crate::slot::{Slot, TableId};
use crate::whole_file;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// Version of the layout; others are refused.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    #[serde(flatten)]
    chosen: Chosen,
    /// Table, slot, index, term.
    slots: Vec<(u32, u16, u64, u64)>,
}

/// What is captured: the positions of other slots are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    pub table: Option<u32>,
    pub slot: Option<u16>,
}

/// Reads the positions; None: there is no such file.
///
/// # Errors
/// Why one cannot go on from it.
pub fn load(path: &Path, chosen: Chosen) -> Result<Option<Vec<SlotPosition>>, String> {
    let shown = path.display();
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{shown}: {error}")),
    };
    let saved: Saved = serde_json::from_slice(&text).map_err(|error| format!("{shown}: {error}"))?;
    if saved.format != FORMAT {
        return Err(format!("{shown}: has format {}; this program knows {FORMAT}", saved.format));
    }
    if saved.chosen != chosen {
        return Err(format!("{shown}: is of a capture with another --table and --slot"));
    }
    let at =
        |(table, slot, index, term)| SlotPosition { table: TableId(table), slot: Slot(slot), index, term };
    Ok(Some(saved.slots.into_iter().map(at).collect()))
}

/// Replaces the file as a whole, durably.
pub fn save(path: &Path, chosen: Chosen, positions: impl Iterator<Item = SlotPosition>) -> io::Result<()> {
    let mut slots: Vec<_> = positions.map(|at| (at.table.0, at.slot.0, at.index, at.term)).collect();
    slots.sort_unstable();
    let mut text = serde_json::to_vec(&Saved { format: FORMAT, chosen, slots })?;
    text.push(b'\n');
    whole_file::replace(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_only_for_the_same_choice() {
        let dir = tempfile::tempdir().expect("the temporary directory is writable");
        let path = dir.path().join("state");
        let all = Chosen { table: None, slot: None };
        assert_eq!(load(&path, all), Ok(None));
        let at = |slot, index| SlotPosition { table: TableId(2), slot: Slot(slot), index, term: u64::MAX };
        for positions in [vec![], vec![at(5, 1), at(9, 7)]] {
            save(&path, all, positions.iter().rev().copied()).expect("it can be written");
            assert_eq!(load(&path, all), Ok(Some(positions)));
        }
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1, "nothing stays beside it");
        let refused = load(&path, Chosen { table: Some(2), ..all }).expect_err("it knows no other slots");
        assert!(refused.contains("another --table"), "{refused}");
        fs::write(&path, r#"{"format":2,"table":null,"slot":null,"slots":[]}"#).expect("it can be written");
        assert!(load(&path, all).expect_err("it is newer").contains("format 2"));
        fs::write(&path, r#"{"format":1,"table":null"#).expect("it can be written");
        assert!(load(&path, all).is_err(), "half of it");
    }
}

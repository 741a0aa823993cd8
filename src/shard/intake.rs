//! Slots that are copied into a shard: gathered, made into files by the pool, and handed to RocksDB with a seal.
//!
//! Knows no log and no slot: a copy has an incarnation that nobody reads. A seal begins only when no files are being
//! made, so that what it calls garbage is in none of them.

use crate::limits;
use crate::store::{Files, Incarnation, NotTaken, Piece};
use std::collections::VecDeque;

/// A moment at which something of a copied row ends.
pub type DueOf = (u64, Incarnation, Vec<u8>);

#[derive(Default)]
pub struct Intake {
    /// With what each takes in memory, bytes.
    gathered: Vec<(Piece, usize)>,
    gathered_bytes: usize,
    /// What the pool makes files of, bytes.
    making_bytes: Option<usize>,
    ready: Vec<Files>,
    ready_bytes: usize,
    /// Of what is in files: to be written into the time index.
    due: VecDeque<DueOf>,
    /// What files have been made, or tried.
    numbers: u64,
}

impl Intake {
    /// More may come. `file_bytes`: of how much files are made.
    pub fn has_room(&self, file_bytes: usize) -> bool {
        self.gathered_bytes < file_bytes
    }

    /// `bytes`: what the piece takes in memory.
    pub fn take(&mut self, piece: Piece, bytes: usize) {
        self.gathered.push((piece, bytes));
        self.gathered_bytes += bytes;
    }

    /// What is to be made into files, and their number. `all`: even if it is little.
    pub fn begin(&mut self, file_bytes: usize, all: bool) -> Option<(u64, Vec<Piece>)> {
        let worth = !self.has_room(file_bytes) || (all && !self.gathered.is_empty());
        if self.is_making() || !worth {
            return None;
        }
        self.making_bytes = Some(std::mem::take(&mut self.gathered_bytes));
        self.numbers += 1;
        let gathered = std::mem::take(&mut self.gathered);
        Some((self.numbers, gathered.into_iter().map(|(piece, _)| piece).collect()))
    }

    pub fn made(&mut self, made: Result<Files, NotTaken>) -> Result<(), NotTaken> {
        let bytes = self.making_bytes.take().expect("files were being made");
        let mut files = made?;
        self.due.extend(std::mem::take(&mut files.due));
        self.ready.push(files);
        self.ready_bytes += bytes;
        Ok(())
    }

    pub fn is_making(&self) -> bool {
        self.making_bytes.is_some()
    }

    /// A seal that begins now hands over everything that has come.
    pub fn is_ready(&self) -> bool {
        self.gathered.is_empty() && !self.is_making() && self.due.is_empty()
    }

    /// For the seal that begins.
    pub fn hand_over(&mut self) -> Vec<Files> {
        assert!(!self.is_making(), "a seal waits until no files are being made");
        std::mem::take(&mut self.ready)
    }

    /// The seal has handed them over, but for these.
    pub fn handed_over(&mut self, files: Vec<Files>) {
        if files.is_empty() {
            self.ready_bytes = 0;
        }
        self.ready = files;
    }

    /// What RocksDB does not have yet, bytes.
    pub fn bytes(&self) -> usize {
        self.gathered_bytes + self.making_bytes.unwrap_or(0) + self.ready_bytes
    }

    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub fn take_due(&mut self) -> impl Iterator<Item = DueOf> {
        let count = self.due.len().min(limits::COMMIT_OPS_MAX);
        self.due.drain(..count)
    }

    /// This copy comes to nothing.
    pub fn forget(&mut self, incarnation: Incarnation) {
        self.gathered.retain(|(piece, _)| piece.incarnation != incarnation);
        self.gathered_bytes = self.gathered.iter().map(|(_, bytes)| bytes).sum();
        self.due.retain(|(_, of, _)| *of != incarnation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: usize = 100;

    fn piece(incarnation: u32) -> Piece {
        Piece { incarnation: Incarnation(incarnation), entries: Vec::new() }
    }

    fn files(due: usize) -> Files {
        let mut files = Files::default();
        files.due.extend((0..due as u64).map(|at| (at, Incarnation(1), vec![])));
        files
    }

    #[test]
    fn enough_is_made_into_files_and_all_of_it_for_who_waits() {
        let mut intake = Intake::default();
        intake.take(piece(1), 60);
        assert!(intake.begin(FILE_BYTES, false).is_none() && !intake.is_ready());
        intake.take(piece(1), 60);
        assert!(!intake.has_room(FILE_BYTES));
        let (number, pieces) = intake.begin(FILE_BYTES, false).expect("it is enough");
        assert_eq!((number, pieces.len()), (1, 2));
        intake.take(piece(2), 10);
        assert!(intake.begin(FILE_BYTES, true).is_none(), "one after the other");
        assert!(intake.made(Ok(files(3))).is_ok());
        assert_eq!(intake.begin(FILE_BYTES, true).map(|(number, _)| number), Some(2));
        assert!(intake.made(Ok(files(0))).is_ok());
        assert_eq!(intake.bytes(), 130);
        assert!(!intake.is_ready(), "moments are to be noted");
        assert_eq!(intake.take_due().count(), 3);
        assert!(intake.is_ready());
        let handed = intake.hand_over();
        assert_eq!((handed.len(), intake.bytes()), (2, 130));
        intake.handed_over(handed);
        assert_eq!(intake.bytes(), 130, "RocksDB was too far behind");
        assert_eq!(intake.hand_over().len(), 2);
        intake.handed_over(Vec::new());
        assert_eq!(intake.bytes(), 0);
    }

    #[test]
    fn a_copy_that_comes_to_nothing_is_forgotten() {
        let mut intake = Intake::default();
        intake.take(piece(1), 60);
        intake.take(piece(2), 60);
        intake.forget(Incarnation(1));
        assert_eq!(intake.bytes(), 60);
        let (_, pieces) = intake.begin(FILE_BYTES, true).expect("one is left");
        assert_eq!(pieces.len(), 1);
        let not_taken = NotTaken { incarnations: vec![Incarnation(2)], why: "full".into() };
        assert!(intake.made(Err(not_taken)).is_err());
        assert!(intake.is_ready() && intake.bytes() == 0);
    }
}

//! A slot's data on its way to another node: entries without the incarnation, which means something only here.
//!
//! Rows come before elements, so that no file ever holds elements whose row is not there. The time index does
//! not travel: it is made from the rows. Must not know who asks for the copy, or what it travels in.

use super::StoreError;
use super::batch::Batch;
use super::key::{Family, Incarnation, NAME_MAX_BYTES, split_element_key};
use super::row::Row;
use super::scan::View;
use bytes::Bytes;

/// A row or an element as it is stored, without its incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub element: bool,
    /// A row: the name. An element: name length u16, name, version u64, sub.
    pub key: Bytes,
    pub value: Bytes,
}

impl Entry {
    /// What is wrong with an entry that has come from elsewhere.
    fn check(&self) -> Result<(), &'static str> {
        if !self.element {
            return if self.key.len() <= NAME_MAX_BYTES { Ok(()) } else { Err("a name is too long") };
        }
        let whole = [&Incarnation::FIRST.0.to_be_bytes()[..], &self.key].concat();
        split_element_key(&whole).map(drop).ok_or("an element's key is too short")
    }
}

/// Is shown whether it is an element, its key and its value; until it answers false.
type Show<'s> = dyn FnMut(bool, &[u8], &[u8]) -> bool + 's;

impl View<'_> {
    /// Shows all entries of an incarnation, rows first, until `visit` answers false.
    pub fn entries(&self, incarnation: Incarnation, visit: &mut Show<'_>) -> Result<(), StoreError> {
        for family in [Family::Row, Family::Element] {
            let mut scan = self.whole(family, incarnation);
            while let Some((key, value)) = scan.next_entry()? {
                if !visit(family == Family::Element, &key[4..], value) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Batch {
    /// Stores an entry of another node's under an incarnation of this one.
    ///
    /// # Errors
    /// When it is no row and no element. Then it is not in the batch.
    pub fn put_entry(&mut self, incarnation: Incarnation, entry: &Entry) -> Result<(), &'static str> {
        entry.check()?;
        if entry.element {
            self.put_raw_element(incarnation, &entry.key, &entry.value);
        } else {
            let row = Row::decode(&entry.value).map_err(|error| error.0)?;
            self.put_row(incarnation, &entry.key, &row);
        }
        Ok(())
    }
}

//! A slot's data on its way to another node: entries without the incarnation, which means something only here.
//!
//! Rows come before elements, so that no file ever holds elements whose row is not there. The time index does
//! not travel: it is made from the rows. Must not know who asks for the copy, or what it travels in.

use super::StoreError;
use super::key::{Family, Incarnation, NAME_MAX_BYTES, split_element_tail};
use super::row::{Row, Version};
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

/// What an entry is.
pub enum EntryParts<'a> {
    Row { name: &'a [u8], row: Row },
    Element { name: &'a [u8], version: Version, sub: &'a [u8] },
}

impl Entry {
    /// Of an element's key, which life of its name it is of, and its sub; None: it is too short.
    pub fn element_of(key: &[u8]) -> Option<(Version, &[u8])> {
        split_element_tail(key).map(|(_, version, sub)| (version, sub))
    }

    /// Takes an entry apart that has come from elsewhere.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parts(&self) -> Result<EntryParts<'_>, &'static str> {
        if self.element {
            let (name, version, sub) =
                split_element_tail(&self.key).ok_or("an element's key is too short")?;
            return Ok(EntryParts::Element { name, version, sub });
        }
        if self.key.len() > NAME_MAX_BYTES {
            return Err("a name is too long");
        }
        let row = Row::decode(&self.value).map_err(|error| error.0)?;
        Ok(EntryParts::Row { name: &self.key, row })
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

impl View<'_> {
    /// Shows all entries of one key: its row, then elements, those included that no row names any more.
    pub fn key_entries(
        &self,
        incarnation: Incarnation,
        name: &[u8],
        visit: &mut Show<'_>,
    ) -> Result<(), StoreError> {
        let mut scan = self.one_row(incarnation, name);
        while let Some((key, value)) = scan.next_entry()? {
            if !visit(false, &key[4..], value) {
                return Ok(());
            }
        }
        let mut scan = self.elements_of(incarnation, name);
        while let Some((key, value)) = scan.next_entry()? {
            if !visit(true, &key[4..], value) {
                return Ok(());
            }
        }
        Ok(())
    }
}

//! Sets: names without payload. In a row, integers stand in their order, as in Redis's intsets.
//!
//! Knows no command and no reply.

use super::map::Map;
use crate::error::Stop;
use crate::resp::number::parse_i64;
use crate::store::row::{Form, Kind, Row};
use crate::store::tx::{KeyRef, Tx};
use bytes::Bytes;

/// Redis keeps integers alone in their compact form up to so many.
const INTSET_MAX: u64 = 512;

/// How redis-server 7.0 would hold it.
pub fn encoding(row: &Row) -> &'static str {
    if row.form == Form::Raw { "hashtable" } else { "intset" }
}

pub struct Set<'k>(Map<'k>);

impl<'k> Set<'k> {
    /// As `Map::load`.
    pub fn load(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Option<Set<'k>>, Stop> {
        Ok(Map::load(tx, key, Kind::Set)?.map(Set))
    }

    /// What a key holds, or a new set.
    pub fn open(tx: &mut Tx<'_>, key: KeyRef<'k>) -> Result<Set<'k>, Stop> {
        Ok(Set::load(tx, key)?.unwrap_or_else(|| Set(Map::new(key, Kind::Set))))
    }

    /// Puts these members, each once, in place of whatever the key holds; none of them: it goes.
    /// `raw`: the compact form is given up whatever they are.
    pub fn replace(
        tx: &mut Tx<'_>,
        key: KeyRef<'k>,
        members: impl Iterator<Item = Bytes>,
        raw: bool,
    ) -> Result<u64, Stop> {
        let mut set = Set(Map::in_place(tx, key, Kind::Set)?);
        if raw {
            set.0.set_raw();
        }
        for member in members {
            set.insert(tx, &member)?;
        }
        let len = set.len()?;
        set.save(tx)?;
        Ok(len)
    }

    #[expect(clippy::len_without_is_empty, reason = "a key without elements is gone")]
    pub fn len(&self) -> Result<u64, Stop> {
        self.0.len()
    }

    /// Whether a set of these members, made anew, would not be compact.
    pub fn exceeds_compact(&self, tx: &mut Tx<'_>) -> Result<bool, Stop> {
        Ok(self.0.row.form == Form::Raw
            && (self.len()? > INTSET_MAX
                || self.members(tx)?.iter().any(|member| parse_i64(member).is_none())))
    }

    /// Takes the form that a set of these members, made anew, would have.
    pub fn renew(&mut self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        if self.0.row.form != Form::Raw || self.exceeds_compact(tx)? {
            return Ok(());
        }
        self.0.change(|row| row.form = Form::Plain);
        if self.0.version().is_none() {
            let members = self.members(tx)?;
            for member in &members {
                self.remove(tx, member)?;
            }
            for member in &members {
                self.insert(tx, member)?;
            }
        }
        Ok(())
    }

    pub fn contains(&self, tx: &mut Tx<'_>, member: &[u8]) -> Result<bool, Stop> {
        Ok(self.0.get(tx, member)?.is_some())
    }

    /// True if it was not there.
    pub fn insert(&mut self, tx: &mut Tx<'_>, member: &[u8]) -> Result<bool, Stop> {
        let int = parse_i64(member);
        if int.is_none() {
            self.0.set_raw();
        }
        let sorted = if self.0.row.form == Form::Plain { int } else { None };
        let precedes =
            |other: &[u8]| sorted.is_some_and(|int| parse_i64(other).is_some_and(|other| int < other));
        let new = self.0.put(tx, member, &[], precedes)?.is_none();
        if self.len()? > INTSET_MAX {
            self.0.set_raw();
        }
        Ok(new)
    }
    /// True if it was there.
    pub fn remove(&mut self, tx: &mut Tx<'_>, member: &[u8]) -> Result<bool, Stop> {
        Ok(self.0.remove(tx, member)?.is_some())
    }

    /// Every member, until `visit` answers false.
    pub fn visit(
        &self,
        tx: &mut Tx<'_>,
        visit: &mut dyn FnMut(&[u8]) -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        self.0.visit(tx, &mut |member, _| visit(member))
    }

    pub fn members(&self, tx: &mut Tx<'_>) -> Result<Vec<Bytes>, Stop> {
        Ok(self.0.all(tx)?.into_iter().map(|(member, _)| member).collect())
    }

    /// As `Map::scan`.
    pub fn scan(
        &self,
        tx: &mut Tx<'_>,
        cursor: u64,
        count: u64,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, Stop> {
        self.0.scan(tx, cursor, count, &mut |member, _| {
            visit(member);
            Ok(())
        })
    }

    /// One member by chance.
    pub fn random(&self, tx: &mut Tx<'_>) -> Result<Bytes, Stop> {
        Ok(self.0.random(tx)?.0)
    }

    /// Several different members by chance; all of them if there are no more than `count`.
    pub fn sample(&self, tx: &mut Tx<'_>, count: u64) -> Result<Vec<Bytes>, Stop> {
        Ok(self.0.sample(tx, count)?.into_iter().map(|(member, _)| member).collect())
    }

    /// As `Map::save`.
    pub fn save(self, tx: &mut Tx<'_>) -> Result<(), Stop> {
        self.0.save(tx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::memory::{Memory, scope};
    use std::collections::BTreeSet;

    #[test]
    fn a_set_is_what_a_set_in_memory_is_in_its_row_and_out_of_it() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut memory, mut model) = (Memory::default(), BTreeSet::new());
        for (round, range) in [(500, 60), (2000, 400), (2000, 40), (500, 3)] {
            for _ in 0..round {
                let member = random.u32(..range).to_string();
                let add = random.bool();
                let work = |tx: &mut Tx<'_>| {
                    let mut set = Set::open(tx, tx.key(b"k"))?;
                    let did = match add {
                        true => set.insert(tx, member.as_bytes())?,
                        false => set.remove(tx, member.as_bytes())?,
                    };
                    set.save(tx)?;
                    Ok(did)
                };
                let did = memory.run(scope(), work).0.unwrap();
                assert_eq!(did, if add { model.insert(member) } else { model.remove(&member) });
            }
            let all = |tx: &mut Tx<'_>| {
                let set = Set::open(tx, tx.key(b"k"))?;
                Ok((set.len()?, set.members(tx)?))
            };
            let (len, members) = memory.run(scope(), all).0.unwrap();
            let members: BTreeSet<_> =
                members.iter().map(|member| String::from_utf8(member.to_vec()).unwrap()).collect();
            assert_eq!((len, &members), (model.len() as u64, &model));
        }
        for member in &model {
            let work = |tx: &mut Tx<'_>| {
                let mut set = Set::open(tx, tx.key(b"k"))?;
                set.remove(tx, member.as_bytes())?;
                set.save(tx)
            };
            memory.run(scope(), work).0.unwrap();
        }
        assert!(memory.rows.is_empty() && memory.elements.is_empty());
    }

    #[test]
    fn integers_in_a_row_stand_in_their_order() {
        let mut memory = Memory::default();
        let work = |tx: &mut Tx<'_>| {
            let numbers = ["5", "-3", "100", "7"].map(|number| Bytes::from_static(number.as_bytes()));
            Set::replace(tx, tx.key(b"k"), numbers.into_iter(), false)
        };
        assert_eq!(memory.run(scope(), work).0.unwrap(), 4);
        let members = memory.run(scope(), |tx| Set::open(tx, tx.key(b"k"))?.members(tx)).0.unwrap();
        assert_eq!(members, ["-3", "5", "7", "100"]);
    }

    #[test]
    fn integers_left_in_a_renewed_set_stand_in_their_order_again() {
        let mut memory = Memory::default();
        let work = |tx: &mut Tx<'_>| {
            let mut set = Set::open(tx, tx.key(b"k"))?;
            for member in ["x", "7", "-3", "100"] {
                set.insert(tx, member.as_bytes())?;
            }
            set.renew(tx)?;
            assert_eq!(encoding(&set.0.row), "hashtable");
            set.remove(tx, b"x")?;
            set.renew(tx)?;
            assert_eq!(encoding(&set.0.row), "intset");
            set.members(tx)
        };
        assert_eq!(memory.run(scope(), work).0.unwrap(), ["-3", "7", "100"]);
    }
}

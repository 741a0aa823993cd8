//! Commands on sets.

use super::{Blob, Data, Model, Outcome, int};
use std::collections::BTreeSet;

impl Model {
    pub(super) fn run_set(&mut self, name: &str, args: &[Vec<u8>]) -> Outcome {
        let key = &args[0][..];
        match name {
            "SADD" => {
                let members = self.make_set(key)?;
                int(args[1..].iter().filter(|member| members.insert(member[..].into())).count())
            }
            "SREM" => {
                let Some(members) = self.set(key)? else { return int(0) };
                int(args[1..].iter().filter(|member| members.remove(&member[..])).count())
            }
            "SMOVE" => {
                if self.set(key)?.is_none() {
                    return int(0);
                }
                self.set(&args[1])?;
                if !self.set(key)?.is_some_and(|members| members.remove(&args[2][..])) {
                    return int(0);
                }
                self.make_set(&args[1])?.insert(args[2][..].into());
                int(1)
            }
            "SUNIONSTORE" | "SINTERSTORE" | "SDIFFSTORE" => {
                let mut sets = Vec::new();
                for source in &args[1..] {
                    sets.push(self.set(source)?.cloned().unwrap_or_default());
                }
                let first = sets.remove(0);
                let keep = |set: BTreeSet<Blob>, other: &BTreeSet<Blob>| match name {
                    "SUNIONSTORE" => &set | other,
                    "SINTERSTORE" => &set & other,
                    _ => &set - other,
                };
                let result = sets.iter().fold(first, keep);
                let len = result.len();
                self.store(key, Data::Set(result), len)
            }
            other => panic!("{other} is not known here"),
        }
    }
}

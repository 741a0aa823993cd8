//! Commands on lists.

use super::{Answer, Blob, Model, Outcome, Reply, bulk_or_nil, bulks, int, number, window, word};
use std::collections::VecDeque;

fn pop(items: &mut VecDeque<Blob>, side: &str) -> Option<Blob> {
    if side == "LEFT" { items.pop_front() } else { items.pop_back() }
}

fn push(items: &mut VecDeque<Blob>, side: &str, item: Blob) {
    if side == "LEFT" { items.push_front(item) } else { items.push_back(item) }
}

fn pop_many(items: &mut VecDeque<Blob>, side: &str, count: usize) -> Reply {
    let popped: Vec<Blob> = (0..count).map_while(|_| pop(items, side)).collect();
    bulks(&popped)
}

impl Model {
    pub(super) fn run_list(&mut self, name: &str, args: &[Vec<u8>]) -> Outcome {
        let key = &args[0][..];
        match name {
            "LPUSH" | "RPUSH" => {
                let side = if name == "LPUSH" { "LEFT" } else { "RIGHT" };
                let items = self.make_list(key)?;
                args[1..].iter().for_each(|item| push(items, side, item[..].into()));
                int(items.len())
            }
            "LPOP" | "RPOP" => {
                let side = if name == "LPOP" { "LEFT" } else { "RIGHT" };
                let Some(items) = self.list(key)? else { return Ok(Answer::Is(Reply::NilArray)) };
                Ok(Answer::Is(pop_many(items, side, number(&args[1]))))
            }
            "LSET" => {
                let items = self.list(key)?.ok_or("ERR no such key")?;
                let at: i64 = number(&args[1]);
                let at = if at < 0 { at + items.len() as i64 } else { at };
                let item = usize::try_from(at).ok().and_then(|at| items.get_mut(at));
                *item.ok_or("ERR index out of range")? = args[2][..].into();
                Ok(Answer::Is(Reply::ok()))
            }
            "LINSERT" => {
                let Some(items) = self.list(key)? else { return int(0) };
                let Some(at) = items.iter().position(|item| item[..] == args[2][..]) else {
                    return Ok(Answer::Is(Reply::Int(-1)));
                };
                items.insert(at + usize::from(word(&args[1]) == "AFTER"), args[3][..].into());
                int(items.len())
            }
            "LREM" => {
                let Some(items) = self.list(key)? else { return int(0) };
                let count: i64 = number(&args[1]);
                let alike = |(at, item): (usize, &Blob)| (item[..] == args[2][..]).then_some(at);
                let mut places: Vec<usize> = items.iter().enumerate().filter_map(alike).collect();
                let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
                if count < 0 {
                    places.reverse();
                }
                places.truncate(most);
                places.sort_unstable();
                places.iter().rev().for_each(|at| drop(items.remove(*at)));
                int(places.len())
            }
            "LTRIM" => {
                if let Some(items) = self.list(key)? {
                    let left = window(items.len(), &args[1], &args[2]);
                    items.truncate(left.end);
                    items.drain(..left.start);
                }
                Ok(Answer::Is(Reply::ok()))
            }
            "LMOVE" => self.move_item(key, &args[1], word(&args[2]), word(&args[3])),
            "RPOPLPUSH" => self.move_item(key, &args[1], "RIGHT", "LEFT"),
            // count keys... side COUNT count
            "LMPOP" => {
                let keys = number::<usize>(key);
                for key in &args[1..=keys] {
                    if let Some(items) = self.list(key)? {
                        let items = pop_many(items, word(&args[keys + 1]), number(&args[keys + 3]));
                        return Ok(Answer::Is(Reply::Array(vec![Reply::bulk(key), items])));
                    }
                }
                Ok(Answer::Is(Reply::NilArray))
            }
            other => panic!("{other} is not known here"),
        }
    }

    fn move_item(&mut self, from: &[u8], to: &[u8], from_side: &str, to_side: &str) -> Outcome {
        if self.list(from)?.is_none() {
            return bulk_or_nil(None);
        }
        self.list(to)?;
        let item = self.list(from)?.and_then(|items| pop(items, from_side)).expect("no list is empty");
        push(self.make_list(to)?, to_side, item.clone());
        bulk_or_nil(Some(item))
    }
}

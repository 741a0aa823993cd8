//! Commands on sorted sets. Scores are whole numbers here: their sums are exact and their digits plain.

use super::{Answer, Blob, Data, Model, Outcome, Reply, WRONG_TYPE, int, number, window, word};
use std::collections::BTreeMap;

type Sorted = BTreeMap<Blob, f64>;

/// In the order of a sorted set.
pub fn ranked(members: &Sorted) -> Vec<(Blob, f64)> {
    let mut ranked: Vec<(Blob, f64)> =
        members.iter().map(|(member, score)| (member.clone(), *score)).collect();
    ranked.sort_by(|(a_member, a), (b_member, b)| a.total_cmp(b).then_with(|| a_member.cmp(b_member)));
    ranked
}

fn take(members: &mut Sorted, taken: &[(Blob, f64)]) -> usize {
    taken.iter().filter(|(member, _)| members.remove(member).is_some()).count()
}

fn pop(members: &mut Sorted, max: bool, count: usize) -> Vec<(Blob, f64)> {
    let mut popped = ranked(members);
    if max {
        popped.reverse();
    }
    popped.truncate(count);
    take(members, &popped);
    popped
}

fn score_text(score: f64) -> Reply {
    Reply::bulk(format!("{score}"))
}

impl Model {
    pub(super) fn run_sorted(&mut self, name: &str, args: &[Vec<u8>]) -> Outcome {
        let key = &args[0][..];
        match name {
            "ZADD" => self.zadd(key, &args[1..]),
            "ZINCRBY" => {
                let score = self.make_sorted(key)?.entry(args[2][..].into()).or_insert(0.0);
                *score += number::<f64>(&args[1]);
                Ok(Answer::Is(score_text(*score)))
            }
            "ZREM" => {
                let Some(members) = self.sorted(key)? else { return int(0) };
                int(args[1..].iter().filter(|member| members.remove(&member[..]).is_some()).count())
            }
            "ZREMRANGEBYRANK" => {
                let Some(members) = self.sorted(key)? else { return int(0) };
                let ranked = ranked(members);
                int(take(members, &ranked[window(ranked.len(), &args[1], &args[2])]))
            }
            "ZREMRANGEBYSCORE" => {
                let Some(members) = self.sorted(key)? else { return int(0) };
                let (before, scores) = (members.len(), number::<f64>(&args[1])..=number::<f64>(&args[2]));
                members.retain(|_, score| !scores.contains(score));
                int(before - members.len())
            }
            "ZPOPMIN" | "ZPOPMAX" => {
                let members = self.sorted(key)?;
                let popped = members
                    .map(|members| pop(members, name == "ZPOPMAX", number(&args[1])))
                    .unwrap_or_default();
                let flat =
                    popped.iter().flat_map(|(member, score)| [Reply::bulk(member), score_text(*score)]);
                Ok(Answer::Is(Reply::Array(flat.collect())))
            }
            // count keys... side COUNT count
            "ZMPOP" => {
                let keys = number::<usize>(key);
                for key in &args[1..=keys] {
                    if let Some(members) = self.sorted(key)? {
                        let popped = pop(members, word(&args[keys + 1]) == "MAX", number(&args[keys + 3]));
                        let pair = |(member, score): &(Blob, f64)| {
                            Reply::Array(vec![Reply::bulk(member), score_text(*score)])
                        };
                        let pairs = Reply::Array(popped.iter().map(pair).collect());
                        return Ok(Answer::Is(Reply::Array(vec![Reply::bulk(key), pairs])));
                    }
                }
                Ok(Answer::Is(Reply::NilArray))
            }
            "ZRANGESTORE" => {
                let ranked = self.sorted(&args[1])?.map(|members| ranked(members)).unwrap_or_default();
                let chosen: Sorted =
                    ranked[window(ranked.len(), &args[2], &args[3])].iter().cloned().collect();
                let len = chosen.len();
                self.store(key, Data::Sorted(chosen), len)
            }
            "ZUNIONSTORE" | "ZINTERSTORE" | "ZDIFFSTORE" => self.combine(name, key, &args[1..]),
            other => panic!("{other} is not known here"),
        }
    }

    fn zadd(&mut self, key: &[u8], args: &[Vec<u8>]) -> Outcome {
        let options: Vec<&str> = args
            .iter()
            .map(|arg| word(arg))
            .take_while(|arg| arg.as_bytes()[0].is_ascii_uppercase())
            .collect();
        let has = |option| options.contains(&option);
        let members = self.make_sorted(key)?;
        let (mut added, mut changed) = (0, 0);
        for pair in args[options.len()..].chunks(2) {
            let score: f64 = number(&pair[0]);
            match members.get_mut(&pair[1][..]) {
                Some(old) => {
                    let refused = has("NX") || has("GT") && score <= *old || has("LT") && score >= *old;
                    if !refused && *old != score {
                        (*old, changed) = (score, changed + 1);
                    }
                }
                None if has("XX") => {}
                None => {
                    members.insert(pair[1][..].into(), score);
                    added += 1;
                }
            }
        }
        int(if has("CH") { added + changed } else { added })
    }

    /// count keys... [WEIGHTS weight...] [AGGREGATE how]
    fn combine(&mut self, name: &str, key: &[u8], args: &[Vec<u8>]) -> Outcome {
        let (keys, options) = args[1..].split_at(number(&args[0]));
        let after = |option: &str| {
            options.iter().position(|arg| arg == option.as_bytes()).map(|at| &options[at + 1..])
        };
        let weights = after("WEIGHTS");
        let how = after("AGGREGATE").map_or("SUM", |args| word(&args[0]));
        let mut sources: Vec<Sorted> = Vec::new();
        for (at, source) in keys.iter().enumerate() {
            let weight: f64 = weights.map_or(1.0, |weights| number(&weights[at]));
            let scored = match self.keys.get(&source[..]).map(|value| &value.data) {
                None => Sorted::new(),
                Some(Data::Sorted(members)) => members.clone(),
                Some(Data::Set(members)) => members.iter().map(|member| (member.clone(), 1.0)).collect(),
                Some(_) => return Err(WRONG_TYPE),
            };
            sources.push(scored.into_iter().map(|(member, score)| (member, score * weight)).collect());
        }
        let mut result = sources.remove(0);
        for source in sources {
            match name {
                "ZDIFFSTORE" => result.retain(|member, _| !source.contains_key(member)),
                "ZINTERSTORE" => result.retain(|member, _| source.contains_key(member)),
                _ => {}
            }
            for (member, score) in source {
                match result.get_mut(&member) {
                    Some(_) if name == "ZDIFFSTORE" => {}
                    Some(old) => {
                        *old = match how {
                            "SUM" => *old + score,
                            "MIN" => old.min(score),
                            _ => old.max(score),
                        }
                    }
                    None if name == "ZUNIONSTORE" => drop(result.insert(member, score)),
                    None => {}
                }
            }
        }
        let len = result.len();
        self.store(key, Data::Sorted(result), len)
    }
}

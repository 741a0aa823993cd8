//! Commands on hashes and on the time of their fields.

use super::{Answer, Field, Model, Outcome, Reply, int, number};

impl Model {
    pub(super) fn run_hash(&mut self, name: &str, args: &[Vec<u8>]) -> Outcome {
        let key = &args[0][..];
        match name {
            "HSET" => {
                let fields = self.make_hash(key)?;
                let before = fields.len();
                for pair in args[1..].chunks(2) {
                    let field = Field { value: pair[1][..].into(), expire_ms: None };
                    fields.insert(pair[0][..].into(), field);
                }
                int(fields.len() - before)
            }
            "HSETNX" => {
                let fields = self.make_hash(key)?;
                if fields.contains_key(&args[1][..]) {
                    return int(0);
                }
                fields.insert(args[1][..].into(), Field { value: args[2][..].into(), expire_ms: None });
                int(1)
            }
            "HINCRBY" => {
                let fields = self.make_hash(key)?;
                let old = fields.get(&args[1][..]).cloned();
                let (old, expire_ms) =
                    old.map_or((0, None), |field| (number::<i64>(&field.value), field.expire_ms));
                let new = old + number::<i64>(&args[2]);
                fields.insert(
                    args[1][..].into(),
                    Field { value: new.to_string().into_bytes().into(), expire_ms },
                );
                Ok(Answer::Is(Reply::Int(new)))
            }
            "HDEL" => {
                let Some(fields) = self.hash(key)? else { return int(0) };
                int(args[1..].iter().filter(|field| fields.remove(&field[..]).is_some()).count())
            }
            // key end FIELDS count field...
            "HPEXPIREAT" => {
                let end = number(&args[1]);
                self.each_field(key, &args[4..], |field| {
                    field.expire_ms = Some(end);
                    1
                })
            }
            // key FIELDS count field...
            "HPERSIST" => self.each_field(key, &args[3..], |field| match field.expire_ms.take() {
                Some(_) => 1,
                None => -1,
            }),
            other => panic!("{other} is not known here"),
        }
    }

    fn each_field(
        &mut self,
        key: &[u8],
        names: &[Vec<u8>],
        mut change: impl FnMut(&mut Field) -> i64,
    ) -> Outcome {
        const MISSING: i64 = -2;
        let mut fields = self.hash(key)?;
        let mut answer = |name: &Vec<u8>| {
            let field = fields.as_mut().and_then(|fields| fields.get_mut(&name[..]));
            Reply::Int(field.map_or(MISSING, &mut change))
        };
        Ok(Answer::Is(Reply::Array(names.iter().map(&mut answer).collect())))
    }
}

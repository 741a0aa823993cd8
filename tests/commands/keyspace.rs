//! Keys of any type: their lives, their copies, their names.

use super::words::{PATTERNS, words};
use super::{Generator, Step, Words};
use rand::Rng;

impl Generator {
    /// A command that every type knows.
    pub fn any_type(&mut self) -> Words {
        let key = self.any_key();
        match self.rng.random_range(0..12) {
            0 => self.pick_name(&["TYPE", "EXISTS", "PERSIST", "TOUCH"], key),
            1 => self.pick_name(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"], key),
            2 => self.pick_name(&["DEL", "UNLINK", "TYPE", "TYPE"], key),
            3 => {
                let what = self.word(&["REFCOUNT", "IDLETIME", "FREQ"]);
                self.named(&["OBJECT"], [what, key])
            }
            4..8 => self.named(&["OBJECT"], [b"ENCODING".to_vec(), key]),
            _ => self.expire(key),
        }
    }

    pub fn expire(&mut self, key: Vec<u8>) -> Words {
        let (name, when) = match self.rng.random_range(0..4) {
            0 => ("EXPIRE", self.far_seconds()),
            1 => ("PEXPIRE", self.far_ms()),
            2 => ("EXPIREAT", self.at_seconds()),
            _ => ("PEXPIREAT", self.at_ms()),
        };
        let mut args = words([name.as_bytes().to_vec(), key, when]);
        while args.len() < 6 && self.rng.random_bool(0.3) {
            args.push(self.word(&["NX", "XX", "GT", "LT", "NX", "XX", "GT", "LT", "nothing"]));
        }
        args
    }

    /// A key with a life of milliseconds, a pause that outlasts it, and a command that finds it gone.
    pub fn vanishing(&mut self) -> Words {
        let key = b"vanishing".as_slice();
        let kind = self.rng.random_range(0..4);
        let first = match kind {
            0 => words([b"SET".as_slice(), key, b"v", b"PX", b"4"]),
            1 => words([b"SET".as_slice(), key, b"v", b"EXAT", b"1"]),
            2 => words([b"PSETEX".as_slice(), key, b"4", b"v"]),
            _ => words([b"SET".as_slice(), key, b"v", b"EX", b"10000"]),
        };
        let last = match self.rng.random_range(0..8) {
            0 => words([b"GET".as_slice(), key]),
            1 => words([b"INCR".as_slice(), key]),
            2 => words([b"APPEND".as_slice(), key, b"w"]),
            3 => words([b"RENAME".as_slice(), key, b"a"]),
            4 => words([b"KEYS".as_slice(), b"*"]),
            5 => words([b"SET".as_slice(), key, b"w", b"XX"]),
            6 => words([b"SCAN".as_slice(), b"0"]),
            _ => words([b"DEL".as_slice(), key, b"b"]),
        };
        let connection = self.connection;
        // One with a short life already may be gone before a second command comes, on one side only.
        if matches!(kind, 1 | 3) {
            self.queued.extend([Step::new(connection, words([b"PEXPIRE".as_slice(), key, b"4"]))]);
        }
        self.queued.extend([
            Step::sleep(connection, 12),
            Step::new(connection, last),
            Step::new(connection, words([b"TTL".as_slice(), key])),
        ]);
        first
    }

    pub fn two_keys(&mut self) -> Words {
        let (from, to) = (self.any_key(), self.any_key());
        match self.rng.random_range(0..6) {
            0 | 1 => self.named(&["RENAME", "RENAMENX"], [from, to]),
            2 => {
                let database = self.database();
                self.named(&["MOVE"], [from, database])
            }
            _ => {
                let mut args = self.named(&["COPY"], [from, to]);
                if self.rng.random_bool(0.4) {
                    args.push(self.word(&["REPLACE", "replace", "nothing"]));
                }
                if self.rng.random_bool(0.3) {
                    args.extend([b"DB".to_vec(), self.database()]);
                }
                args
            }
        }
    }

    pub fn whole_database(&mut self) -> Words {
        match self.rng.random_range(0..20) {
            0..5 => {
                let pattern = self.word(PATTERNS);
                self.named(&["KEYS"], [pattern])
            }
            5..11 => self.scan(),
            11..14 => self.named(&["RANDOMKEY"], []),
            14..18 => {
                let database = self.database();
                self.named(&["SELECT"], [database])
            }
            18 => {
                let (a, b) = (self.database(), self.database());
                self.named(&["SWAPDB"], [a, b])
            }
            _ => {
                let how = self.word(&["ASYNC", "SYNC", "nothing"]);
                let mut args = self.named(&["FLUSHDB", "FLUSHDB", "FLUSHDB", "FLUSHALL"], [how]);
                if self.rng.random_bool(0.5) {
                    args.pop();
                }
                args
            }
        }
    }

    pub fn scan(&mut self) -> Words {
        let cursor = self.word(&["0", "0", "0", "0", "x", "1 ", "0 ", "99999999999999999999999"]);
        let mut args = words([b"SCAN".to_vec(), cursor]);
        if self.rng.random_bool(0.4) {
            args.extend([b"MATCH".to_vec(), self.word(PATTERNS)]);
        }
        if self.rng.random_bool(0.4) {
            args.extend([b"COUNT".to_vec(), self.word(&["1", "2", "10", "1000", "0", "-1", "x"])]);
        }
        if self.rng.random_bool(0.3) {
            args.extend([
                b"TYPE".to_vec(),
                self.word(&["string", "STRING", "list", "hash", "set", "zset", "stream", "nothing"]),
            ]);
        }
        if self.rng.random_bool(0.05) {
            args.push(b"nothing".to_vec());
        }
        args
    }
}

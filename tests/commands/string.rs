//! Strings and their bits.

use super::words::{SHORT_KEYS, words};
use super::{Generator, Words};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

impl Generator {
    /// A command on one string.
    pub fn single_string(&mut self) -> Words {
        let key = self.key();
        match self.rng.random_range(0..36) {
            0..5 => self.set(key),
            5..8 => words([b"GET".as_slice(), &key]),
            8 => self.pick_name(&["STRLEN", "GETDEL", "TYPE", "PERSIST", "EXISTS", "DEL"], key),
            9 => self.pick_name(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"], key),
            10 | 11 => self.pick_name(&["INCR", "DECR"], key),
            12 | 13 => {
                let by = self.integer();
                self.named(&["INCRBY", "DECRBY"], [key, by])
            }
            14 => {
                let by = self.float();
                self.named(&["INCRBYFLOAT"], [key, by])
            }
            15 | 16 => {
                let value = self.value();
                self.named(&["APPEND"], [key, value])
            }
            17 | 18 => {
                let value = self.value();
                self.named(&["SETNX", "GETSET"], [key, value])
            }
            19 => {
                let (offset, value) = (self.set_offset(), self.value());
                self.named(&["SETRANGE"], [key, offset, value])
            }
            20 | 21 => {
                let (start, end) = (self.offset(), self.offset());
                self.named(&["GETRANGE", "SUBSTR"], [key, start, end])
            }
            22 => {
                let (seconds, value) = (self.far_seconds(), self.value());
                self.named(&["SETEX"], [key, seconds, value])
            }
            23 => {
                let (ms, value) = (self.far_ms(), self.value());
                self.named(&["PSETEX"], [key, ms, value])
            }
            24 | 25 => self.getex(key),
            26 | 27 => self.expire(key),
            28 => {
                let what = self.word(&["ENCODING", "REFCOUNT", "IDLETIME", "FREQ", "ENCODING", "nothing"]);
                self.named(&["OBJECT"], [what, key])
            }
            29..35 => self.bits(key),
            _ => {
                let key = SHORT_KEYS.choose(&mut self.rng).expect("not empty").to_vec();
                let text = self.letters();
                self.named(&["SET"], [key, text])
            }
        }
    }

    /// A command on the bits of one value.
    fn bits(&mut self, key: Vec<u8>) -> Words {
        let name =
            self.word(&["SETBIT", "GETBIT", "BITCOUNT", "BITPOS", "BITFIELD", "BITFIELD", "BITFIELD_RO"]);
        let mut args = vec![name.clone(), key];
        match name.as_slice() {
            b"SETBIT" => args.extend([self.bit_offset(), self.word(&["0", "1", "1", "1", "2", "x"])]),
            b"GETBIT" => args.push(self.bit_offset()),
            b"BITFIELD" | b"BITFIELD_RO" => {
                for _ in 0..self.rng.random_range(0..5) {
                    args.extend(self.field_operation());
                }
            }
            _ => {
                if name == b"BITPOS" {
                    args.push(self.word(&["0", "1", "0", "1", "0", "1", "2"]));
                }
                let ends = self.rng.random_range(0..4);
                for _ in 0..ends.min(2) {
                    args.push(self.offset());
                }
                if ends == 3 {
                    args.push(self.word(&["BIT", "BYTE", "bit", "nothing"]));
                }
            }
        }
        args
    }

    fn bit_offset(&mut self) -> Vec<u8> {
        let places =
            ["0", "1", "7", "8", "13", "63", "64", "100", "1000", "#0", "#1", "#7", "-1", "4294967296", "x"];
        self.word(&places)
    }

    fn field_operation(&mut self) -> Words {
        let width =
            self.word(&["u1", "u4", "u8", "i5", "i8", "u16", "i32", "u63", "i64", "i64", "u64", "i0", "x8"]);
        let (offset, number) = (self.bit_offset(), self.integer());
        match self.rng.random_range(0..8) {
            0..2 => words([b"GET".to_vec(), width, offset]),
            2..4 => words([b"SET".to_vec(), width, offset, number]),
            4..7 => words([b"INCRBY".to_vec(), width, offset, number]),
            _ => words([b"OVERFLOW".to_vec(), self.word(&["WRAP", "SAT", "FAIL", "sat", "nothing"])]),
        }
    }

    fn set(&mut self, key: Vec<u8>) -> Words {
        let mut args = words([b"SET".to_vec(), key, self.value()]);
        let mut options: Vec<Words> = Vec::new();
        if self.rng.random_bool(0.3) {
            options.push(vec![self.word(&["NX", "XX", "NX", "XX", "nothing"])]);
        }
        if self.rng.random_bool(0.2) {
            options.push(vec![b"GET".to_vec()]);
        }
        if self.rng.random_bool(0.35) {
            options.push(self.lifetime(&["KEEPTTL"]));
        }
        if self.rng.random_bool(0.03) {
            options.push(self.lifetime(&["KEEPTTL", "PERSIST", "XX", "NX"]));
        }
        options.shuffle(&mut self.rng);
        args.extend(options.concat());
        args
    }

    fn getex(&mut self, key: Vec<u8>) -> Words {
        let mut args = words([b"GETEX".to_vec(), key]);
        if self.rng.random_bool(0.8) {
            args.extend(self.lifetime(&["PERSIST"]));
        }
        if self.rng.random_bool(0.05) {
            args.extend(self.lifetime(&["PERSIST", "KEEPTTL", "NX"]));
        }
        args
    }

    /// An option that sets a lifetime, or one of `bare`.
    fn lifetime(&mut self, bare: &[&str]) -> Words {
        let value = match self.rng.random_range(0..5) {
            0 => return vec![self.word(bare)],
            1 => [b"EX".to_vec(), self.far_seconds()],
            2 => [b"PX".to_vec(), self.far_ms()],
            3 => [b"EXAT".to_vec(), self.at_seconds()],
            _ => [b"PXAT".to_vec(), self.at_ms()],
        };
        let mut args = value.to_vec();
        if self.rng.random_bool(0.03) {
            args.pop();
        }
        args
    }

    pub fn many_keys(&mut self) -> Words {
        let count = self.rng.random_range(1..8);
        if self.rng.random_bool(0.2) {
            let mut args = words([
                b"BITOP".to_vec(),
                self.word(&["AND", "OR", "XOR", "NOT", "NOT", "nothing"]),
                self.key(),
            ]);
            for _ in 0..if args[1] == b"NOT" { 1 } else { count } {
                args.push(self.key());
            }
            return args;
        }
        let name = self.word(&["MGET", "MSET", "MSETNX", "DEL", "UNLINK", "EXISTS", "TOUCH", "MSET"]);
        let pairs = name.starts_with(b"MSET");
        let mut args = vec![name];
        for _ in 0..count {
            args.push(self.key());
            if pairs {
                args.push(self.value());
            }
        }
        if pairs && self.rng.random_bool(0.05) {
            args.pop();
        }
        args
    }

    pub fn compare_strings(&mut self) -> Words {
        let key = |rng: &mut StdRng| SHORT_KEYS.choose(rng).expect("not empty").to_vec();
        let (first, second) = (key(&mut self.rng), key(&mut self.rng));
        if self.rng.random_bool(0.3) {
            let text = self.letters();
            return self.named(&["SET"], [first, text]);
        }
        let mut args = self.named(&["LCS"], [first, second]);
        for option in ["IDX", "LEN", "WITHMATCHLEN", "nothing"] {
            if self.rng.random_bool(if option == "nothing" { 0.02 } else { 0.3 }) {
                args.push(option.as_bytes().to_vec());
            }
        }
        if self.rng.random_bool(0.3) {
            args.extend([b"MINMATCHLEN".to_vec(), self.word(&["0", "1", "2", "5", "-1", "x"])]);
        }
        args
    }
}

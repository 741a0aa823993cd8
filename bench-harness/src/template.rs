//! Commands with blanks, and how a blank is filled. Knows RESP's request form, not what a command means.

use crate::keys::Keys;
use rand::Rng;
use rand::rngs::SmallRng;
use std::ops::RangeInclusive;

/// Stands for a drawn key's digits in a command's text (redis-benchmark's word).
const DRAWN: &str = "__rand_int__";
/// The digits of the key drawn last, again.
const SAME: &str = "__same_int__";
/// The digits of the key after the last.
const NEXT: &str = "__next_int__";
/// The digits of a key that nobody has had.
const NEW: &str = "__new_int__";
/// Stands for the value (redis-benchmark's word).
const DATA: &str = "__data__";

/// How a reply must look, else it counts as an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A status line.
    Status,
    /// A number.
    Integer,
    /// A bulk string or nil.
    Value,
    /// An array.
    Many,
    /// Anything but an error.
    Any,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Bytes as they are, RESP's own included.
    Text(Vec<u8>),
    Drawn,
    Same,
    Next,
    New,
    Data,
}

/// What fills the blanks of one run.
pub struct Filling {
    /// Digits that a key's number is written with.
    pub digits: usize,
    /// Lengths that values have.
    pub value_bytes: RangeInclusive<usize>,
    /// Bytes that values are cut from.
    pub pool: Vec<u8>,
    /// Whether a value starts with the digits of its key, so that a reader can tell.
    pub marked: bool,
}

impl Filling {
    /// Values of these lengths; random bytes, which do not compress, or one letter, as redis-benchmark has it.
    pub fn new(
        digits: usize,
        value_bytes: RangeInclusive<usize>,
        random: bool,
        marked: bool,
        rng: &mut SmallRng,
    ) -> Filling {
        // Longer than any value, so that values can start at many places.
        let length = value_bytes.end() + (64 << 10);
        let pool = if random { (0..length).map(|_| rng.random()).collect() } else { vec![b'x'; length] };
        Filling { digits, value_bytes, pool, marked }
    }
}

/// One command with blanks.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
    /// What its reply must be.
    pub expect: Expect,
}

impl Template {
    /// A command from its words, blanks named as above. `digits` must be those of the `Filling` it meets.
    pub fn new<S: AsRef<str>>(words: &[S], expect: Expect, digits: usize) -> Template {
        let mut template = Template { parts: Vec::new(), expect };
        template.text(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            template.word(word.as_ref(), digits);
        }
        template
    }

    /// A line as it stands (PING's inline form).
    pub fn inline(line: &str, expect: Expect) -> Template {
        Template { parts: vec![Part::Text(format!("{line}\r\n").into_bytes())], expect }
    }

    fn text(&mut self, bytes: &[u8]) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.extend_from_slice(bytes),
            _ => self.parts.push(Part::Text(bytes.to_vec())),
        }
    }

    fn word(&mut self, word: &str, digits: usize) {
        if word == DATA {
            return self.parts.push(Part::Data);
        }
        for (blank, part) in [(DRAWN, Part::Drawn), (SAME, Part::Same), (NEXT, Part::Next), (NEW, Part::New)]
        {
            if let Some((before, after)) = word.split_once(blank) {
                self.text(format!("${}\r\n{before}", before.len() + digits + after.len()).as_bytes());
                self.parts.push(part);
                return self.text(format!("{after}\r\n").as_bytes());
            }
        }
        self.text(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }

    /// Writes the command, blanks filled; `draw` gives keys. `key` is the key drawn last, before and after.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        filling: &Filling,
        keys: &Keys,
        rng: &mut SmallRng,
        key: &mut u64,
        accepts: &dyn Fn(u64) -> bool,
    ) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Data => write_value(out, filling, rng, *key),
                Part::Drawn => {
                    *key = until(accepts, || keys.draw(rng));
                    write_digits(out, *key, filling.digits);
                }
                Part::Same => write_digits(out, *key, filling.digits),
                Part::Next => {
                    *key = keys.after(*key);
                    write_digits(out, *key, filling.digits);
                }
                Part::New => {
                    *key = until(accepts, || keys.insert());
                    write_digits(out, *key, filling.digits);
                }
            }
        }
    }
}

fn until(accepts: &dyn Fn(u64) -> bool, mut draw: impl FnMut() -> u64) -> u64 {
    loop {
        let key = draw();
        if accepts(key) {
            return key;
        }
    }
}

/// A number in exactly `digits` digits, as key names have it.
pub fn write_digits(out: &mut Vec<u8>, number: u64, digits: usize) {
    const ZEROS: [u8; 32] = [b'0'; 32];
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number).as_bytes();
    let mut missing = digits.saturating_sub(text.len());
    while missing > 0 {
        let now = missing.min(ZEROS.len());
        out.extend_from_slice(&ZEROS[..now]);
        missing -= now;
    }
    out.extend_from_slice(&text[text.len().saturating_sub(digits)..]);
}

fn write_value(out: &mut Vec<u8>, filling: &Filling, rng: &mut SmallRng, key: u64) {
    let range = &filling.value_bytes;
    let length = if range.start() == range.end() { *range.start() } else { rng.random_range(range.clone()) };
    let from = rng.random_range(0..=filling.pool.len() - length);
    out.push(b'$');
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
    let value_at = out.len();
    out.extend_from_slice(&filling.pool[from..from + length]);
    if filling.marked {
        let mut mark = Vec::with_capacity(filling.digits);
        write_digits(&mut mark, key, filling.digits);
        let marked = mark.len().min(length);
        out[value_at..value_at + marked].copy_from_slice(&mark[..marked]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Distribution, KeySpace};
    use rand::SeedableRng;

    fn written(words: &[&str], marked: bool) -> String {
        let mut rng = SmallRng::seed_from_u64(1);
        let filling = Filling::new(12, 16..=16, false, marked, &mut rng);
        let keys = Keys::new(Distribution::Sequential, 100, KeySpace::new(100));
        let mut out = Vec::new();
        Template::new(words, Expect::Any, 12)
            .write(&mut out, &filling, &keys, &mut rng, &mut 0, &|key| key != 0);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn blanks_are_filled_in_the_form_that_redis_benchmark_has() {
        assert_eq!(
            written(&["SET", "key:__rand_int__", "__data__"], false),
            "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$16\r\nxxxxxxxxxxxxxxxx\r\n"
        );
    }

    #[test]
    fn a_marked_value_starts_with_its_key_and_neighbours_follow() {
        let text = written(
            &[
                "MSET",
                "key:__rand_int__",
                "__data__",
                "key:__next_int__",
                "__data__",
                "key:__same_int__",
                "v",
            ],
            true,
        );
        assert!(text.contains("000000000001xxxx"), "{text}");
        assert!(text.contains("000000000002xxxx"), "{text}");
        assert_eq!(text.matches("key:000000000002").count(), 2);
    }

    #[test]
    fn a_key_beyond_the_key_space_is_new() {
        assert!(written(&["SET", "key:__new_int__", "v"], false).contains("key:000000000100"));
    }
}

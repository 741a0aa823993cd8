//! Lines that describe commands, and the random commands they stand for.
//!
//! A line is words parted by spaces. `<name>` stands for random words (`Generator::terminal`), `a|b` for
//! one of the words, any other for itself. `[ .. ]` may be left out. `( .. )+` comes one to four times,
//! `( .. )*` up to three, `( .. )#` dozens of times, and `( .. )n` after the number of its repetitions,
//! which is sometimes wrong. `{ a ; b ; c }` are options: some of them, in any order.

use super::{Generator, Words};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

/// How often a command comes, among those of its family, and what it looks like.
pub type Line = (u32, &'static str);

/// What one line of options holds more than once in so many commands.
const STRAY_OPTION: f64 = 0.01;

impl Generator {
    pub fn one_of(&mut self, lines: &[Line]) -> Words {
        let (_, line) =
            lines.choose_weighted(&mut self.rng, |(weight, _)| *weight).expect("weights are positive");
        let tokens: Vec<&str> = line.split(' ').collect();
        let mut out = Words::new();
        self.sequence(&tokens, &mut out);
        out
    }

    fn sequence(&mut self, tokens: &[&str], out: &mut Words) {
        let mut at = 0;
        while at < tokens.len() {
            let end = if matches!(tokens[at], "(" | "[" | "{") { closing(tokens, at) } else { at };
            let inner = tokens.get(at + 1..end).unwrap_or_default();
            match tokens[at] {
                "(" => self.repetition(inner, tokens[end], out),
                "[" if self.rng.random_bool(0.4) => self.sequence(inner, out),
                "[" => {}
                "{" => self.options(inner, out),
                token => self.word_or_terminal(token, out),
            }
            at = end + 1;
        }
    }

    fn repetition(&mut self, inner: &[&str], how: &str, out: &mut Words) {
        let times = match how {
            ")+" => self.rng.random_range(1..=4),
            ")*" => self.rng.random_range(0..=3),
            ")#" => self.rng.random_range(30..=160),
            _ => self.rng.random_range(1..=3),
        };
        if how == ")n" {
            let count = match self.rng.random_bool(0.05) {
                true => self.word(&["0", "-1", "1", "2", "4", "x", "9223372036854775807"]),
                false => times.to_string().into_bytes(),
            };
            out.push(count);
        }
        for _ in 0..times {
            self.sequence(inner, out);
        }
    }

    fn options(&mut self, inner: &[&str], out: &mut Words) {
        let mut options: Vec<&[&str]> = split(inner);
        options.shuffle(&mut self.rng);
        for option in options {
            if self.rng.random_bool(0.3) {
                self.sequence(option, out);
            }
        }
        if self.rng.random_bool(STRAY_OPTION) {
            out.push(self.word(&["nothing", "LIMIT", "COUNT", "1", ""]));
        }
    }

    fn word_or_terminal(&mut self, token: &str, out: &mut Words) {
        let choices: Vec<&str> = token.split('|').collect();
        let token = choices.choose(&mut self.rng).expect("split gives at least one");
        match token.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            Some(name) => self.terminal(name, out),
            None => out.push(token.as_bytes().to_vec()),
        }
    }
}

fn depth_change(token: &str) -> i32 {
    match token.as_bytes() {
        b"(" | b"[" | b"{" => 1,
        b")+" | b")*" | b")#" | b")n" | b"]" | b"}" => -1,
        _ => 0,
    }
}

fn closing(tokens: &[&str], open: usize) -> usize {
    let mut depth = 0;
    let end = tokens[open..].iter().position(|token| {
        depth += depth_change(token);
        depth == 0
    });
    open + end.unwrap_or_else(|| panic!("nothing closes {:?}", &tokens[open..]))
}

/// The parts between the semicolons that are in no inner brackets.
fn split<'t, 'l>(tokens: &'t [&'l str]) -> Vec<&'t [&'l str]> {
    let mut depth = 0;
    tokens
        .split(|token| {
            depth += depth_change(token);
            depth == 0 && *token == ";"
        })
        .collect()
}

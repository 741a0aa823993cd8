//! The words of random commands: keys, members, numbers right and wrong, bounds, options' values.

use super::{Generator, Words};
use rand::Rng;
use rand::seq::IndexedRandom;

/// Few, of every shape; `{t}` and `{}` try the tag rules.
const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"key:1",
    b"key:2",
    b"{t}x",
    b"{t}y",
    b"{}z",
    b"",
    b"\x00\xff\r\n",
    b"sp ace",
    b"never:set",
];
/// Values of these stay short: LCS takes time and memory by the product of two lengths.
pub const SHORT_KEYS: &[&[u8]] = &[b"lcs:1", b"lcs:2", b"lcs:3"];

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "5",
    "42",
    "9999",
    "10000",
    "-0",
    "01",
    "+1",
    " 1",
    "1 ",
    "9223372036854775807",
    "9223372036854775806",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1e3",
    "0x10",
    "",
];
const FLOATS: &[&str] = &[
    "0.1",
    "-0.1",
    "3.0e3",
    "1.5",
    "10.50",
    "5.0e-2",
    "1e17",
    "123456789.123456789",
    "0.000001",
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "-inf",
    "1.",
    ".5",
    "abc",
    " 1.5",
    "1.5 ",
    "",
    "3.14159265358979",
    "1e-10",
    "-0.0",
];
/// Where representations change: embedded strings, inline rows, pieces of a long string.
const LENGTHS: &[usize] = &[
    0, 1, 2, 20, 21, 43, 44, 45, 46, 63, 64, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 81_920, 131_073,
];
const OFFSETS: &[&str] = &[
    "0",
    "1",
    "2",
    "5",
    "43",
    "44",
    "45",
    "16383",
    "16384",
    "16385",
    "65535",
    "65536",
    "65537",
    "100000",
    "-1",
    "-2",
    "-5",
    "-65536",
    "-100000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "x",
    "",
];
pub const PATTERNS: &[&str] = &[
    "*",
    "a",
    "?",
    "key:*",
    "{t}*",
    "[abc]",
    "[^a]",
    "k[a-f]y:?",
    "*1",
    "\\a",
    "lcs:[1-2]",
    "",
    "nothing*",
    "[",
    "**",
];
/// Keys on which one family is at home. Some share a slot.
const HASHES: &[&str] = &["h:1", "h:2", "{t}h"];
const LISTS: &[&str] = &["l:1", "l:2", "{t}l"];
const SETS: &[&str] = &["s:1", "s:2", "{t}s"];
const INTEGER_SETS: &[&str] = &["i:1", "{t}i"];
const SORTED_SETS: &[&str] = &["z:1", "z:2", "{t}z"];
const PLACES: &[&str] = &["g:1", "{t}g"];
const STREAMS: &[&str] = &["x:1", "x:2", "{t}x1"];
const TO_SORT: &[&str] = &["sort:1", "sort:2"];
/// SORT makes Redis give up the compact form of a sorted set: these are not asked for theirs.
const SCORED_TO_SORT: &[&str] = &["sort:3", "sort:4"];
const HYPERLOGLOGS: &[&str] = &["hll:1", "hll:2", "hll:3", "{t}hll"];
const BY_NAME: &[&str] = &["lex:1", "lex:2"];
const COLLECTIONS: &[&[&str]] =
    &[HASHES, LISTS, SETS, INTEGER_SETS, SORTED_SETS, PLACES, STREAMS, TO_SORT, HASHES, STREAMS, SORTED_SETS];

const MEMBERS: &[&str] = &["a", "b", "c", "d", "1", "2", "10", "-3", "01", "9223372036854775807", ""];
const SCORES: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "0.1",
    "0.2",
    "3.0e3",
    "1e17",
    "inf",
    "-inf",
    "+inf",
    "1e308",
    "5e-324",
    "123456789.123456789",
];
const BAD_SCORES: &[&str] =
    &["nan", "abc", "", " 1", "1 ", "0x10", "1e400", "-1e400", "+nan", "infinity", "1."];
const BOUNDS: &[&str] =
    &["-inf", "+inf", "inf", "(-inf", "(0", "(1", "0", "1", "(2", "(1.5", "-1", "3", "5000"];
const BAD_BOUNDS: &[&str] = &["(", "nan", "(nan", "[1", "x", "", "((1"];
const BY_NAME_BOUNDS: &[&str] = &["-", "+", "-", "+", "[a", "(a", "[b", "(c", "[", "(", "[m:5", "(1"];
const BAD_BY_NAME_BOUNDS: &[&str] = &["a", "", "--", "+x", "inf"];
const SMALL: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "-1", "1.5", "10"];
const UNITS: &[&str] = &["m", "km", "ft", "mi", "KM", "m", "km", "parsec"];
const CENTRES: &[(&str, &str)] =
    &[("13.361389", "38.115556"), ("15.087269", "37.502669"), ("0", "0"), ("-179.9", "83"), ("179.9", "-84")];
const BAD_PLACES: &[(&str, &str)] =
    &[("181", "0"), ("0", "86"), ("x", "0"), ("0", "nan"), ("inf", "1"), ("", "")];

/// Nothing comes after it in a stream.
const LAST_ENTRY_ID: &[u8] = b"18446744073709551615-18446744073709551615";

impl Generator {
    /// The random words that `<name>` stands for in a line of the grammar.
    pub fn terminal(&mut self, name: &str, out: &mut Words) {
        let word = match name {
            "key" => self.key(),
            "anykey" => self.any_key(),
            "hkey" => self.mostly(HASHES),
            "lkey" => self.mostly(LISTS),
            "skey" => self.mostly(SETS),
            "ikey" => self.mostly(INTEGER_SETS),
            "zkey" => self.mostly(SORTED_SETS),
            "gkey" => self.mostly(PLACES),
            "xkey" => self.mostly(STREAMS),
            "pkey" => self.mostly(HYPERLOGLOGS),
            "scoredkey" => self.word(SCORED_TO_SORT),
            "sortkey" => self.word(TO_SORT),
            "hllkey" => self.word(HYPERLOGLOGS),
            "lexkey" => self.word(BY_NAME),
            "zset" => match self.rng.random_range(0..6) {
                0 => self.mostly(SETS),
                1 => self.mostly(INTEGER_SETS),
                _ => self.mostly(SORTED_SETS),
            },
            "sorted" => match self.rng.random_range(0..6) {
                0 => self.word(SETS),
                1 => self.word(INTEGER_SETS),
                2 => self.word(SCORED_TO_SORT),
                3 => self.word(LISTS),
                4 => self.word(HASHES),
                _ => self.word(TO_SORT),
            },
            "weightkey" => [b"w_".to_vec(), self.word(SMALL)].concat(),
            "small" => self.word(SMALL),
            "by" => self.word(&["w_*", "w_*", "{t}h->*", "h:1->*", "nosort", "*", "w_*->", "w_*->f"]),
            "m" => self.member(),
            "im" => self.integer_member(),
            "unique" => self.rng.random::<u32>().to_string().into_bytes(),
            "v" => self.item(),
            "e" => self.element(),
            "int" => self.integer(),
            "float" => self.float(),
            "n" => self.count(),
            "i" => self.index(),
            "rank" => self.usually(&["1", "2", "-1", "-2", "5"], &["0", "x", "", "9223372036854775807"]),
            "life" => self.usually(&["0", "0", "100000000", "4000000000"], &["-1", "x", "1.5", ""]),
            "picks" => self.picks(),
            "score" => self.usually(SCORES, BAD_SCORES),
            "weight" => self.usually(&["1", "2", "-1", "0", "0.5", "inf", "1e10"], BAD_SCORES),
            "bound" => self.usually(BOUNDS, BAD_BOUNDS),
            "lex" => self.usually(BY_NAME_BOUNDS, BAD_BY_NAME_BOUNDS),
            "cursor" => self.usually(&["0"], &["x", "0 ", " 0", "99999999999999999999999", ""]),
            "pattern" => self.usually(&["*", "m:*", "?", "*1", "m:1?", "[a-c]"], PATTERNS),
            "moment" => self.usually(&["0.001", "0.002"], &["-1", "x", "nan", "", "-0.5", "1e400"]),
            "wait_ms" => self.usually(&["1", "2"], &["-1", "x", "", "1.5", "9223372036854775808"]),
            "unit" => self.word(UNITS),
            "dist" => {
                self.usually(&["0", "10", "200", "1000.5", "100000", "30000000"], &["-1", "x", "nan", ""])
            }
            "id" => self.entry_id(),
            "newid" => self.next_entry_id(),
            "from" => self.range_id(b"-"),
            "to" => self.range_id(b"+"),
            "group" => self.usually(&["g1", "g2", "g1"], &["g3", ""]),
            "consumer" => self.word(&["c1", "c2", "c1", "c3", ""]),
            "idle" => self.usually(&["0", "0", "1000000"], &["-1", "x", "9223372036854775807"]),
            "time" => self.usually(&["0", "1000", "1600000000000"], &["-1", "x", ""]),
            "at_ms" => self.at_ms(),
            "place" | "center" | "area" => return self.geography(name, out),
            _ => panic!("the grammar has no <{name}>"),
        };
        out.push(word);
    }

    fn geography(&mut self, name: &str, out: &mut Words) {
        match name {
            "place" => {
                let list = if self.rng.random_bool(0.02) { BAD_PLACES } else { CENTRES };
                let (longitude, latitude) = list.choose(&mut self.rng).expect("not empty");
                let mut near = |text: &str| match text.parse::<f64>() {
                    // Hardly two are at the same place.
                    Ok(degrees) if degrees.is_finite() && degrees.abs() < 180.0 => {
                        format!("{:.6}", (degrees + self.rng.random_range(-1.5..1.5)) * 0.98)
                    }
                    _ => text.to_string(),
                };
                let place = [near(longitude), near(latitude)];
                out.extend(place.map(String::into_bytes));
            }
            "center" if self.rng.random_bool(0.5) => out.extend([b"FROMMEMBER".to_vec(), self.member()]),
            "center" => {
                out.push(b"FROMLONLAT".to_vec());
                self.geography("place", out);
            }
            _ => {
                let by = self.word(&["BYRADIUS", "BYRADIUS", "BYBOX", "byradius"]);
                let sides = if by == b"BYBOX" { 2 } else { 1 };
                out.push(by);
                for _ in 0..sides {
                    self.terminal("dist", out);
                }
                out.push(self.word(UNITS));
            }
        }
    }

    /// One of the words that are right, seldom one of the others.
    fn usually(&mut self, right: &[&str], wrong: &[&str]) -> Vec<u8> {
        let choices = if self.rng.random_bool(0.03) { wrong } else { right };
        self.word(choices)
    }

    /// A key of these, seldom one of any type.
    fn mostly(&mut self, keys: &[&str]) -> Vec<u8> {
        if self.rng.random_bool(0.05) { self.any_key() } else { self.word(keys) }
    }

    /// A key of a string or of a collection.
    pub fn any_key(&mut self) -> Vec<u8> {
        if self.rng.random_bool(0.25) {
            return KEYS.choose(&mut self.rng).expect("not empty").to_vec();
        }
        let family = COLLECTIONS.choose(&mut self.rng).expect("not empty");
        self.word(family)
    }

    /// Of a hash, a set or a sorted set: one of a few, of some hundreds, or a long one.
    fn member(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..100) {
            0..40 => self.word(MEMBERS),
            40..94 => format!("m:{}", self.rng.random_range(0..300)).into_bytes(),
            94..97 => self.filled(&[63, 64, 65, 66]),
            97..99 => self.random_bytes(),
            _ => self.filled(&[100, 1_000, 5_000]),
        }
    }

    fn integer_member(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..100) {
            0..96 => self.rng.random_range(-100..900).to_string().into_bytes(),
            96..99 => {
                self.word(&["32767", "32768", "-32769", "2147483648", "9223372036854775807", "01", "+1"])
            }
            _ => self.word(MEMBERS),
        }
    }

    /// A value of a hash or a stream.
    fn item(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..1_000) {
            0..400 => self.rng.random_range(-20..300).to_string().into_bytes(),
            400..550 => self.float(),
            550..600 => self.integer(),
            600..900 => self.letters(),
            900..960 => self.filled(&[63, 64, 65, 66, 200]),
            960..990 => self.random_bytes(),
            990..998 => self.filled(&[1_000, 4_096, 9_000]),
            _ => self.filled(&[65_536, 65_537, 70_000]),
        }
    }

    /// An item of a list: mostly one of a few, so that it is found again.
    fn element(&mut self) -> Vec<u8> {
        if self.rng.random_bool(0.75) { self.word(SMALL) } else { self.item() }
    }

    fn filled(&mut self, lengths: &[usize]) -> Vec<u8> {
        vec![
            *b"xyz".choose(&mut self.rng).expect("not empty");
            *lengths.choose(&mut self.rng).expect("not empty")
        ]
    }

    fn random_bytes(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.random_range(0..10)];
        self.rng.fill(&mut bytes[..]);
        bytes
    }

    /// How many, mostly a small number.
    fn count(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..100) {
            0..60 => self.rng.random_range(0..8).to_string().into_bytes(),
            60..90 => self.rng.random_range(-5..200).to_string().into_bytes(),
            _ => self.word(INTEGERS),
        }
    }

    fn index(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..100) {
            0..60 => self.rng.random_range(-6..8).to_string().into_bytes(),
            60..92 => self.rng.random_range(-300..300).to_string().into_bytes(),
            _ => self.word(INTEGERS),
        }
    }

    /// A number of random members: none so negative that its reply would have no end.
    fn picks(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.1) {
            true => self.word(&["x", "", "9223372036854775807", "-9223372036854775808", "1.5"]),
            false => self.rng.random_range(-40..300).to_string().into_bytes(),
        }
    }

    /// One that stands near the end of a stream, or is no id.
    fn entry_id(&mut self) -> Vec<u8> {
        let ms = self.newest_ms.saturating_sub(self.rng.random_range(0..self.newest_ms.min(120) + 1));
        match self.rng.random_range(0..100) {
            0..35 => ms.to_string().into_bytes(),
            35..95 => format!("{ms}-{}", self.rng.random_range(0..3)).into_bytes(),
            95..98 => self.word(&["0", "0-0", "0-1", "1-1"]),
            98 if self.rng.random_bool(0.2) => LAST_ENTRY_ID.to_vec(),
            _ => self.word(&["-1", "x", "1-x", "", "1-2-3", "18446744073709551616", "5-*"]),
        }
    }

    fn next_entry_id(&mut self) -> Vec<u8> {
        if self.rng.random_bool(0.05) {
            return self.entry_id();
        }
        let sequence = self.rng.random_range(0..4);
        self.newest_ms += u64::from(sequence != 3);
        let ms = self.newest_ms;
        if sequence == 3 { format!("{ms}-*").into_bytes() } else { format!("{ms}-{sequence}").into_bytes() }
    }

    fn range_id(&mut self, end: &[u8]) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0..5 => end.to_vec(),
            5 => [b"(", self.entry_id().as_slice()].concat(),
            6 => self.word(&["-", "+", "(", "(-"]),
            7 if self.rng.random_bool(0.3) => LAST_ENTRY_ID.to_vec(),
            _ => self.entry_id(),
        }
    }

    /// A key for strings, seldom another.
    pub fn key(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.02) {
            true => self.any_key(),
            false => KEYS.choose(&mut self.rng).expect("not empty").to_vec(),
        }
    }

    pub fn value(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0..4 => self.integer(),
            4 | 5 => self.float(),
            6 | 7 => self.letters(),
            _ => {
                let mut bytes = vec![0; *LENGTHS.choose(&mut self.rng).expect("not empty")];
                self.rng.fill(&mut bytes[..]);
                bytes
            }
        }
    }

    /// Few letters, so that texts have much in common.
    pub fn letters(&mut self) -> Vec<u8> {
        let len = self.rng.random_range(0..60);
        (0..len).map(|_| *b"abcX".choose(&mut self.rng).expect("not empty")).collect()
    }

    pub fn integer(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..3) {
            0 => self.rng.random::<i64>().to_string().into_bytes(),
            1 => self.rng.random_range(-100..20_000).to_string().into_bytes(),
            _ => self.word(INTEGERS),
        }
    }

    pub fn float(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..3) {
            0 => format!("{}", self.rng.random_range(-1e6..1e6)).into_bytes(),
            1 => format!("{:.3}", self.rng.random_range(-100.0..100.0)).into_bytes(),
            _ => self.word(FLOATS),
        }
    }

    pub fn offset(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.3) {
            true => self.rng.random_range(-70_000..70_000).to_string().into_bytes(),
            false => self.word(OFFSETS),
        }
    }

    /// Either far inside what both servers accept or beyond what either does.
    pub fn set_offset(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0 => self.word(&["536870912", "9223372036854775807", "-1", "x", ""]),
            1 => self.rng.random_range(0..300_000).to_string().into_bytes(),
            _ => self.rng.random_range(0..200).to_string().into_bytes(),
        }
    }

    pub fn database(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.1) {
            true => self.word(&["-1", "16", "x", "9223372036854775808", ""]),
            false => self.word(&["0", "0", "0", "1", "2"]),
        }
    }

    /// At least three hours and all different, so that GT and LT never depend on the moment.
    pub fn far_seconds(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&[
                "0",
                "-1",
                "x",
                "9223372036854775807",
                "9223372036854776",
                "-9223372036854775808",
                "",
            ]),
            false => self.rng.random_range(10_000..4_000_000).to_string().into_bytes(),
        }
    }

    pub fn far_ms(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&["0", "-1", "x", "9223372036854775807", "1.5", "-9223372036854775808", ""]),
            false => self.rng.random_range(10_000_000u64..4_000_000_000).to_string().into_bytes(),
        }
    }

    pub fn at_seconds(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&["0", "1", "-1", "x", "9223372036854775807", ""]),
            false => self.rng.random_range(4_000_000_000u64..4_000_000_100).to_string().into_bytes(),
        }
    }

    pub fn at_ms(&mut self) -> Vec<u8> {
        match self.rng.random_bool(0.15) {
            true => self.word(&["0", "1", "-1", "x", "9223372036854775807", ""]),
            false => self.rng.random_range(4_000_000_000_000u64..4_000_000_100_000).to_string().into_bytes(),
        }
    }

    pub fn word(&mut self, choices: &[&str]) -> Vec<u8> {
        choices.choose(&mut self.rng).expect("not empty").as_bytes().to_vec()
    }

    pub fn pick_name(&mut self, names: &[&str], key: Vec<u8>) -> Words {
        self.named(names, [key])
    }

    pub fn named<const N: usize>(&mut self, names: &[&str], rest: [Vec<u8>; N]) -> Words {
        let mut args = vec![self.word(names)];
        args.extend(rest);
        args
    }
}

pub fn words<const N: usize>(args: [impl AsRef<[u8]>; N]) -> Words {
    args.iter().map(|arg| arg.as_ref().to_vec()).collect()
}

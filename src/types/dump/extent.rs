//! How far a value reaches in an RDB file, found while its bytes arrive. Looks into no value.
//!
//! An RDB file does not say how long a value is: that follows from its type's grammar and the lengths within
//! it. Source: rdb.c of Redis 7.0 and 7.4.

use super::rest::{Length, Source};
use super::{Refused, kind};

/// A part of what stands in an RDB file.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A string in any form.
    Text,
    /// A length, or a number that is written as one.
    Number,
    Bytes(u64),
    /// A score in decimal behind a byte for its length, or one byte for an infinity.
    Score,
    /// A number, and these as often as it says.
    Times(&'static [Step]),
}

use Step::{Bytes, Number, Score, Text, Times};

const PENDING: Step = Times(&[Bytes(16), Bytes(8), Number]);
const HELD: Step = Times(&[Bytes(16)]);
const GROUP_1: &[Step] = &[Text, Number, Number, PENDING, Times(&[Text, Bytes(8), HELD])];
const GROUP_2: &[Step] = &[Text, Number, Number, Number, PENDING, Times(&[Text, Bytes(8), HELD])];
const GROUP_3: &[Step] = &[Text, Number, Number, Number, PENDING, Times(&[Text, Bytes(16), HELD])];
const NODES: Step = Times(&[Text, Text]);

/// What a value of this type consists of, behind the type's own byte; `None` where it is not one that
/// `decode` reads.
pub fn grammar(kind: u8) -> Option<&'static [Step]> {
    Some(match kind {
        kind::LIST | kind::SET | kind::QUICKLIST_ZIPLISTS => &[Times(&[Text])],
        kind::QUICKLIST_LISTPACKS => &[Times(&[Number, Text])],
        kind::SORTED_SET => &[Times(&[Text, Bytes(8)])],
        kind::SORTED_SET_TEXT => &[Times(&[Text, Score])],
        kind::HASH => &[Times(&[Text, Text])],
        kind::HASH_EXPIRING => &[Bytes(8), Times(&[Number, Text, Text])],
        kind::HASH_EXPIRING_RC => &[Times(&[Number, Text, Text])],
        kind::HASH_EXPIRING_LISTPACK => &[Bytes(8), Text],
        kind::STREAM_1 => &[NODES, Number, Number, Number, Times(GROUP_1)],
        kind::STREAM_2 => {
            &[NODES, Number, Number, Number, Number, Number, Number, Number, Number, Times(GROUP_2)]
        }
        kind::STREAM_3 => {
            &[NODES, Number, Number, Number, Number, Number, Number, Number, Number, Times(GROUP_3)]
        }
        kind::STRING
        | kind::HASH_ZIPMAP
        | kind::LIST_ZIPLIST
        | kind::SET_INTSET
        | kind::SORTED_SET_ZIPLIST
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::SORTED_SET_LISTPACK
        | kind::SET_LISTPACK
        | kind::HASH_EXPIRING_LISTPACK_RC => &[Text],
        _ => return None,
    })
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The end, behind so many bytes.
    End(usize),
    /// There are at least so many bytes, which is more than were given.
    Beyond(u64),
}

/// A walk along a grammar. It trusts no length: it sets nothing aside, and goes as far as there are bytes.
#[derive(Debug)]
pub struct Walk {
    at: usize,
    rounds: Vec<Round>,
}

#[derive(Debug)]
struct Round {
    steps: &'static [Step],
    next: usize,
    /// With this one.
    left: u64,
}

impl Walk {
    /// From the first byte of what `steps` describe; there is at least one step.
    pub fn new(steps: &'static [Step]) -> Walk {
        Walk { at: 0, rounds: vec![Round { steps, next: 0, left: 1 }] }
    }

    /// Goes on in the same bytes as in the last call, or more of them. Looks at no string's inside, and at
    /// nothing twice but the head of the one step that it has stopped before.
    ///
    /// # Errors
    /// `Content` where a length has no form that RDB knows.
    pub fn go(&mut self, bytes: &[u8]) -> Result<Reached, Refused> {
        while let Some(round) = self.rounds.last_mut() {
            let Some(step) = round.steps.get(round.next) else {
                (round.next, round.left) = (0, round.left - 1);
                if round.left == 0 {
                    self.rounds.pop();
                }
                continue;
            };
            let rest = &bytes[self.at..];
            let (size, times) = match measure(*step, rest)? {
                Measured::Size(size) => (size, None),
                Measured::Times(size, steps, left) => (size, Some((steps, left))),
            };
            if size > rest.len() as u64 {
                return Ok(Reached::Beyond((self.at as u64).saturating_add(size)));
            }
            self.at += size as usize;
            round.next += 1;
            if let Some((steps, left)) = times.filter(|(_, left)| *left > 0) {
                self.rounds.push(Round { steps, next: 0, left });
            }
        }
        Ok(Reached::End(self.at))
    }
}

enum Measured {
    /// So many bytes; where the head is not all there, those of the head.
    Size(u64),
    Times(u64, &'static [Step], u64),
}

fn measure(step: Step, rest: &[u8]) -> Result<Measured, Refused> {
    Ok(match (step, rest.first()) {
        (Bytes(size), _) => Measured::Size(size),
        (_, None) => Measured::Size(1),
        (Score, Some(253..)) => Measured::Size(1),
        (Score, Some(length)) => Measured::Size(u64::from(*length) + 1),
        (Number | Times(_), Some(_)) => match (step, head(rest)?) {
            (Times(steps), (size, Some(Length::Bytes(left)))) => Measured::Times(size, steps, left),
            (_, (_, Some(Length::Special(_)))) => return Err(Refused::Content),
            (_, (size, _)) => Measured::Size(size),
        },
        (Text, Some(_)) => Measured::Size(text(rest)?),
    })
}

/// The size of the length that stands here, and the length if it is all there.
fn head(rest: &[u8]) -> Result<(u64, Option<Length>), Refused> {
    let size: usize = match rest.first() {
        None => 1,
        Some(first) => match (first >> 6, first) {
            (0 | 3, _) => 1,
            (1, _) => 2,
            (_, 0x80) => 5,
            (_, 0x81) => 9,
            _ => return Err(Refused::Content),
        },
    };
    let length = rest.get(..size).map(|head| Source::new(head, 0).any_length()).transpose()?;
    Ok((size as u64, length))
}

fn text(rest: &[u8]) -> Result<u64, Refused> {
    let (size, length) = head(rest)?;
    Ok(size.saturating_add(match length {
        None => 0,
        Some(Length::Bytes(length)) => length,
        Some(Length::Special(form @ 0..=2)) => 1 << form,
        Some(Length::Special(3)) => {
            let (packed_size, packed) = head(&rest[size as usize..])?;
            let Some(packed) = packed else { return Ok(size + packed_size) };
            let (length_size, _) = head(&rest[(size + packed_size) as usize..])?;
            let Length::Bytes(packed) = packed else { return Err(Refused::Content) };
            packed.saturating_add(packed_size + length_size)
        }
        Some(Length::Special(_)) => return Err(Refused::Content),
    }))
}

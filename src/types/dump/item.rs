//! An element of a listpack or a ziplist: text, or an integer that stands for its decimal text.

use super::Refused;
use crate::resp::number::parse_i64;
use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'p> {
    Text(&'p [u8]),
    Int(i64),
}

impl<'p> Item<'p> {
    pub fn text(self) -> Cow<'p, [u8]> {
        match self {
            Item::Text(text) => Cow::Borrowed(text),
            Item::Int(int) => Cow::Owned(int.to_string().into_bytes()),
        }
    }

    pub fn int(self) -> Result<i64, Refused> {
        match self {
            Item::Text(text) => parse_i64(text).ok_or(Refused::Content),
            Item::Int(int) => Ok(int),
        }
    }

    /// A sorted set's score.
    pub fn score(self) -> Result<f64, Refused> {
        match self {
            Item::Text(text) => score(text),
            Item::Int(int) => Ok(int as f64),
        }
    }
}

/// A score in decimal; that it is no number is refused.
pub fn score(text: &[u8]) -> Result<f64, Refused> {
    let text = str::from_utf8(text).map_err(|_| Refused::Content)?;
    text.parse().map_err(|_| Refused::Content).and_then(number)
}

/// The same score, unless it is NaN.
pub fn number(score: f64) -> Result<f64, Refused> {
    if score.is_nan() { Err(Refused::Content) } else { Ok(score) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_as_redis_writes_them() {
        for (text, expected) in [
            ("1.5", 1.5),
            ("inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("0.10000000000000001", 0.1),
            ("1.7976931348623157e+308", f64::MAX),
        ] {
            assert_eq!(score(text.as_bytes()), Ok(expected), "{text}");
        }
        assert_eq!(Item::Int(-3).score(), Ok(-3.0));
        for bad in ["", "nan", "-nan", "1.5x", " 1", "\u{661}"] {
            assert_eq!(score(bad.as_bytes()), Err(Refused::Content), "{bad}");
        }
        assert_eq!(score(b"\xff"), Err(Refused::Content));
    }
}

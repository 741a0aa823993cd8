//! What is not yet read of a payload: bytes, and RDB's lengths and strings. Knows no type of value.
//!
//! Source: rdb.c of Redis 7.0, and the format of LibLZF.

use super::Refused;
use std::borrow::Cow;

/// What an element takes in memory beside its bytes: its place in a vector, and the allocator's rounding.
const ELEMENT_BYTES: u64 = 32;

/// How many times its own length a payload may unfold to, beside `max_bytes`. Small integers in a listpack,
/// at two bytes each, come to half of that.
const UNFOLD_MAX: u64 = 64;

/// Bytes that have not been read yet.
pub struct Rest<'p>(pub &'p [u8]);

impl<'p> Rest<'p> {
    pub fn take(&mut self, count: u64) -> Result<&'p [u8], Refused> {
        let count = usize::try_from(count).map_err(|_| Refused::Content)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Refused::Content)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        Ok(self.take(N as u64)?.try_into().expect("as many were taken"))
    }

    pub fn byte(&mut self) -> Result<u8, Refused> {
        Ok(self.array::<1>()?[0])
    }

    /// A signed integer of three bytes, the lowest first.
    pub fn i24(&mut self) -> Result<i32, Refused> {
        let [low, middle, high] = self.array()?;
        Ok(i32::from_le_bytes([0, low, middle, high]) >> 8)
    }
}

/// A payload's content as it is read, and how much memory its value may still take.
pub struct Source<'p> {
    pub rest: Rest<'p>,
    max_bytes: u64,
    room: u64,
}

pub enum Length {
    Bytes(u64),
    /// A string in another form, by its number.
    Special(u8),
}

impl<'p> Source<'p> {
    /// Strings in `content` are refused when they are longer than `max_bytes`.
    pub fn new(content: &'p [u8], max_bytes: u64) -> Source<'p> {
        let room = max_bytes.saturating_add((content.len() as u64).saturating_mul(UNFOLD_MAX));
        Source { rest: Rest(content), max_bytes, room }
    }

    pub fn any_length(&mut self) -> Result<Length, Refused> {
        let first = self.rest.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Bytes(u64::from(first)),
            (1, _) => Length::Bytes(u64::from(first & 0x3f) << 8 | u64::from(self.rest.byte()?)),
            (3, _) => Length::Special(first & 0x3f),
            (_, 0x80) => Length::Bytes(u64::from(u32::from_be_bytes(self.rest.array()?))),
            (_, 0x81) => Length::Bytes(u64::from_be_bytes(self.rest.array()?)),
            _ => return Err(Refused::Content),
        })
    }

    /// A length, or any number up to 64 bits.
    pub fn length(&mut self) -> Result<u64, Refused> {
        match self.any_length()? {
            Length::Bytes(length) => Ok(length),
            Length::Special(_) => Err(Refused::Content),
        }
    }

    /// A number that is written as a length, and that Redis answers as a signed one.
    pub fn counter(&mut self) -> Result<u64, Refused> {
        self.length().and_then(|number| if number >> 63 == 0 { Ok(number) } else { Err(Refused::Content) })
    }

    /// How many elements follow: at least one, as Redis has no empty values.
    pub fn count(&mut self) -> Result<u64, Refused> {
        self.length().and_then(|count| if count > 0 { Ok(count) } else { Err(Refused::Content) })
    }

    /// Milliseconds since 1970, or `None` for -1, Redis's «never».
    pub fn time_ms(&mut self) -> Result<Option<u64>, Refused> {
        match i64::from_le_bytes(self.rest.array()?) {
            -1 => Ok(None),
            time => u64::try_from(time).map(Some).map_err(|_| Refused::Content),
        }
    }

    /// A string in any form, to be looked into.
    pub fn text(&mut self) -> Result<Cow<'p, [u8]>, Refused> {
        let number = match self.any_length()? {
            Length::Bytes(length) => {
                self.check(length)?;
                return Ok(Cow::Borrowed(self.rest.take(length)?));
            }
            Length::Special(0) => i64::from(i8::from_le_bytes(self.rest.array()?)),
            Length::Special(1) => i64::from(i16::from_le_bytes(self.rest.array()?)),
            Length::Special(2) => i64::from(i32::from_le_bytes(self.rest.array()?)),
            Length::Special(3) => {
                let (packed, length) = (self.length()?, self.length()?);
                self.check(length)?;
                let packed = self.rest.take(packed)?;
                return unpack(packed, length as usize).map(Cow::Owned).ok_or(Refused::Content);
            }
            Length::Special(_) => return Err(Refused::Content),
        };
        Ok(Cow::Owned(number.to_string().into_bytes()))
    }

    /// A string in any form, to be kept.
    pub fn element(&mut self) -> Result<Vec<u8>, Refused> {
        let text = self.text()?;
        self.keep(text)
    }

    /// Makes bytes a part of the value, if it may still grow by so much.
    pub fn keep(&mut self, bytes: Cow<'_, [u8]>) -> Result<Vec<u8>, Refused> {
        self.spend(bytes.len() as u64 + ELEMENT_BYTES)?;
        Ok(bytes.into_owned())
    }

    /// Says that the value takes `bytes` more in memory.
    pub fn spend(&mut self, bytes: u64) -> Result<(), Refused> {
        self.room = self.room.checked_sub(bytes).ok_or(Refused::TooLong)?;
        Ok(())
    }

    fn check(&self, length: u64) -> Result<(), Refused> {
        if length > self.max_bytes { Err(Refused::TooLong) } else { Ok(()) }
    }
}

/// LibLZF's format: runs of up to 32 bytes as they are, and references to what was up to 8 KiB before.
fn unpack(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    // A reference of three bytes gives 264 at the most: no more is set aside than can come.
    let mut value = Vec::with_capacity(length.min(packed.len().saturating_mul(88)));
    let mut bytes = packed.iter();
    while let Some(&control) = bytes.next() {
        if control < 32 {
            let (run, rest) = bytes.as_slice().split_at_checked(usize::from(control) + 1)?;
            value.extend_from_slice(run);
            bytes = rest.iter();
        } else {
            let mut count = usize::from(control >> 5) + 2;
            if control >> 5 == 7 {
                count += usize::from(*bytes.next()?);
            }
            let back = usize::from(control & 0x1f) << 8 | usize::from(*bytes.next()?);
            let from = value.len().checked_sub(back + 1)?;
            if value.len() + count > length {
                return None;
            }
            // What is copied may reach into what the copy itself has made.
            for at in from..from + count {
                value.push(value[at]);
            }
        }
    }
    (value.len() == length).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_of_every_form_are_read() {
        let mut source = Source::new(b"\x3f\x7f\xff\x80\0\x01\0\0\x81\0\0\0\x01\0\0\0\0\xc0\x01", 10);
        let lengths: Vec<_> = (0..4).map(|_| source.length().unwrap()).collect();
        assert_eq!(lengths, [0x3f, 0x3fff, 0x1_0000, 0x1_0000_0000]);
        assert_eq!(source.length(), Err(Refused::Content));
        assert_eq!(Source::new(b"\x82\0\0\0\0", 10).length(), Err(Refused::Content));
    }

    #[test]
    fn three_bytes_have_a_sign() {
        assert_eq!(Rest(b"\xff\xff\xff").i24(), Ok(-1));
        assert_eq!(Rest(b"\x00\x00\x80").i24(), Ok(-0x80_0000));
        assert_eq!(Rest(b"\xff\xff\x7f").i24(), Ok(0x7f_ffff));
    }

    #[test]
    fn a_value_may_not_grow_beyond_its_room() {
        let mut source = Source::new(b"", 100);
        source.keep(Cow::Borrowed(&[0; 68])).unwrap();
        assert_eq!(source.keep(Cow::Borrowed(b"")), Err(Refused::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_unpacked_is_as_long_as_it_said(
            packed in prop::collection::vec(any::<u8>(), 0..60), length in 0..4000_usize,
        ) {
            if let Some(value) = unpack(&packed, length) {
                prop_assert_eq!(value.len(), length);
            }
        }
    }
}

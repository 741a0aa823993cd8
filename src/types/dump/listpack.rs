//! Listpacks: many short texts and integers in one string. Knows bytes only.
//!
//! The length in four bytes and the number of elements in two, both little-endian; the elements; 0xff. An
//! element is followed by its own length, seven bits a byte, to be read from behind. Source: listpack.c of
//! Redis 7.0.

use super::Refused;
use super::item::Item;
use super::rest::Rest;
use crate::resp::number::parse_i64;

const HEADER_BYTES: usize = 6;
const END: u8 = 0xff;
/// Stands for all numbers of elements that do not fit.
const MANY: u16 = u16::MAX;

/// The elements of a listpack. An error ends them.
pub struct Elements<'p> {
    rest: Rest<'p>,
    announced: u16,
    seen: u64,
}

/// The elements of the listpack that `blob` is.
///
/// # Errors
/// When it is shorter or longer than it says.
pub fn open(blob: &[u8]) -> Result<Elements<'_>, Refused> {
    let mut rest = Rest(blob.strip_suffix(&[END]).ok_or(Refused::Content)?);
    let bytes = u32::from_le_bytes(rest.array()?);
    let announced = u16::from_le_bytes(rest.array()?);
    if bytes as usize != blob.len() {
        return Err(Refused::Content);
    }
    Ok(Elements { rest, announced, seen: 0 })
}

impl<'p> Elements<'p> {
    fn element(&mut self) -> Result<Item<'p>, Refused> {
        let before = self.rest.0.len();
        let item = item(&mut self.rest)?;
        let (backwards, bytes) = backwards(before - self.rest.0.len());
        if self.rest.take(bytes as u64)? != &backwards[..bytes] {
            return Err(Refused::Content);
        }
        self.seen += 1;
        Ok(item)
    }
}

impl<'p> Iterator for Elements<'p> {
    type Item = Result<Item<'p>, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.rest.0.is_empty() {
            return Some(self.element());
        }
        (self.announced != MANY && u64::from(self.announced) != self.seen).then_some(Err(Refused::Content))
    }
}

fn item<'p>(rest: &mut Rest<'p>) -> Result<Item<'p>, Refused> {
    let first = rest.byte()?;
    let text_bytes = match first {
        0x80..=0xbf => u64::from(first & 0x3f),
        0xe0..=0xef => u64::from(first & 0x0f) << 8 | u64::from(rest.byte()?),
        0xf0 => u64::from(u32::from_le_bytes(rest.array()?)),
        _ => return int(first, rest).map(Item::Int),
    };
    rest.take(text_bytes).map(Item::Text)
}

fn int(first: u8, rest: &mut Rest<'_>) -> Result<i64, Refused> {
    Ok(match first {
        0..=0x7f => i64::from(first),
        // Thirteen bits, moved up and down again for the sign.
        0xc0..=0xdf => i64::from(i16::from_be_bytes([first, rest.byte()?]) << 3 >> 3),
        0xf1 => i64::from(i16::from_le_bytes(rest.array()?)),
        0xf2 => i64::from(rest.i24()?),
        0xf3 => i64::from(i32::from_le_bytes(rest.array()?)),
        0xf4 => i64::from_le_bytes(rest.array()?),
        _ => return Err(Refused::Content),
    })
}

/// An element's length as it follows the element, and how many bytes of that count. Redis takes one byte
/// more than it needs for the greatest length of each size.
fn backwards(length: usize) -> ([u8; 5], usize) {
    let bytes = match length {
        0..=127 => 1,
        128..=0x3ffe => 2,
        0x3fff..=0x1f_fffe => 3,
        0x1f_ffff..=0xfff_fffe => 4,
        _ => 5,
    };
    let mut written = [0; 5];
    for (at, byte) in written[..bytes].iter_mut().enumerate() {
        let low = (length >> (7 * (bytes - 1 - at)) & 0x7f) as u8;
        *byte = if at == 0 { low } else { low | 0x80 };
    }
    (written, bytes)
}

/// A listpack in the making.
pub struct Builder {
    bytes: Vec<u8>,
    elements: u64,
}

impl Builder {
    pub fn new() -> Builder {
        Builder { bytes: vec![0; HEADER_BYTES], elements: 0 }
    }

    pub fn int(&mut self, int: i64) {
        let long = int.to_le_bytes();
        let start = self.bytes.len();
        let (first, following) = match int {
            0..=127 => (int as u8, &long[..0]),
            -4096..=4095 => (0xc0 | long[1] & 0x1f, &long[..1]),
            -0x8000..=0x7fff => (0xf1, &long[..2]),
            -0x80_0000..=0x7f_ffff => (0xf2, &long[..3]),
            -0x8000_0000..=0x7fff_ffff => (0xf3, &long[..4]),
            _ => (0xf4, &long[..]),
        };
        self.bytes.push(first);
        self.bytes.extend_from_slice(following);
        self.end(start);
    }

    /// Text, shorter than 4 GiB; as an integer if it is one's decimal.
    pub fn text(&mut self, text: &[u8]) {
        if let Some(int) = parse_i64(text) {
            return self.int(int);
        }
        let start = self.bytes.len();
        match text.len() {
            length @ 0..64 => self.bytes.push(0x80 | length as u8),
            length @ 64..4096 => self.bytes.extend_from_slice(&[0xe0 | (length >> 8) as u8, length as u8]),
            length => {
                self.bytes.push(0xf0);
                let length = u32::try_from(length).expect("an element is shorter than 4 GiB");
                self.bytes.extend_from_slice(&length.to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
        self.end(start);
    }

    fn end(&mut self, start: usize) {
        let (backwards, bytes) = backwards(self.bytes.len() - start);
        self.bytes.extend_from_slice(&backwards[..bytes]);
        self.elements += 1;
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let bytes = u32::try_from(self.bytes.len()).expect("a listpack is shorter than 4 GiB");
        let elements = u16::try_from(self.elements).unwrap_or(MANY);
        self.bytes[..4].copy_from_slice(&bytes.to_le_bytes());
        self.bytes[4..HEADER_BYTES].copy_from_slice(&elements.to_le_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(blob: &[u8]) -> Result<Vec<Item<'_>>, Refused> {
        open(blob)?.collect()
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = b"\x0b\0\0\0\x02\0\x05\x01\xc3\0\x02\xff";
        let mut good = good.to_vec();
        good[0] = good.len() as u8;
        assert_eq!(read(&good), Ok(vec![Item::Int(5), Item::Int(0x300)]));
        for (at, to) in
            [(0, 11), (0, 13), (4, 1), (4, 3), (5, 1), (7, 2), (7, 0x81), (8, 0xf5), (10, 3), (11, 0)]
        {
            let mut bad = good.clone();
            bad[at] = to;
            assert_eq!(read(&bad), Err(Refused::Content), "byte {at} is {to}");
        }
        good[4..6].copy_from_slice(&MANY.to_le_bytes());
        assert_eq!(read(&good), Ok(vec![Item::Int(5), Item::Int(0x300)]));
        assert_eq!(read(b"\x07\0\0\0\0\0\xff"), Ok(Vec::new()));
        assert_eq!(read(b"\xff"), Err(Refused::Content));
        assert_eq!(read(b""), Err(Refused::Content));
    }

    #[test]
    fn lengths_from_behind_take_redis_bytes() {
        // From lpEncodeBacklen: the greatest of each size is written with one byte more.
        for (length, expected) in [
            (127, &[127][..]),
            (128, &[1, 0x80]),
            (0x3ffe, &[0x7f, 0xfe]),
            (0x3fff, &[0, 0xff, 0xff]),
            (0x1f_ffff, &[0, 0xff, 0xff, 0xff]),
            (0xfff_ffff, &[0, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let (written, bytes) = backwards(length);
            assert_eq!(&written[..bytes], expected, "{length}");
        }
    }

    proptest! {
        #[test]
        fn elements_come_back(
            ints in prop::collection::vec((any::<i64>(), 0..64_u32), 0..40),
            texts in prop::collection::vec((0..20_000_usize, any::<u8>()), 0..6),
        ) {
            let ints: Vec<i64> = ints.into_iter().map(|(int, shift)| int >> shift).collect();
            let texts: Vec<Vec<u8>> = texts.into_iter().map(|(len, byte)| vec![byte; len]).collect();
            let mut builder = Builder::new();
            ints.iter().for_each(|&int| builder.int(int));
            texts.iter().for_each(|text| builder.text(text));
            let blob = builder.finish();
            let read = read(&blob).unwrap();
            let expected = ints.iter().map(|int| int.to_string().into_bytes()).chain(texts.iter().cloned());
            prop_assert!(read.iter().map(|item| item.text().into_owned()).eq(expected));
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = (body.len() + 7) as u8;
            let blob = [&[bytes, 0, 0, 0, 0xff, 0xff], &body[..], &[END]].concat();
            if let Ok(items) = read(&blob) {
                prop_assert!(items.len() * 2 <= body.len());
            }
        }
    }
}

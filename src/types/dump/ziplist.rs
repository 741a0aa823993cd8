//! Ziplists and zipmaps: what listpacks were before Redis 7.0, and small hashes before 2.6. Only read.
//!
//! Source: ziplist.c and zipmap.c of Redis 7.0.

use super::Refused;
use super::item::Item;
use super::rest::Rest;

#[cfg(test)]
const HEADER_BYTES: usize = 10;
const END: u8 = 0xff;
/// In a zipmap and before a ziplist's element: the length is in four bytes that follow.
const LONG: u8 = 0xfe;
const MANY: u16 = u16::MAX;

/// The elements of a ziplist: each behind its predecessor's length. An error ends them.
pub struct Elements<'p> {
    rest: Rest<'p>,
    /// Where the last element should begin, counted from the ziplist's end.
    tail: usize,
    announced: u16,
    seen: u64,
    last_bytes: usize,
}

/// The elements of the ziplist that `blob` is.
///
/// # Errors
/// When it is shorter or longer than it says.
pub fn open(blob: &[u8]) -> Result<Elements<'_>, Refused> {
    let mut rest = Rest(blob.strip_suffix(&[END]).ok_or(Refused::Content)?);
    let (bytes, tail) = (u32::from_le_bytes(rest.array()?), u32::from_le_bytes(rest.array()?));
    let announced = u16::from_le_bytes(rest.array()?);
    let tail = (blob.len() - 1).checked_sub(tail as usize).ok_or(Refused::Content)?;
    if bytes as usize != blob.len() {
        return Err(Refused::Content);
    }
    Ok(Elements { rest, tail, announced, seen: 0, last_bytes: 0 })
}

impl<'p> Elements<'p> {
    fn element(&mut self) -> Result<Item<'p>, Refused> {
        let before = self.rest.0.len();
        if long_or_short(&mut self.rest)? != self.last_bytes as u64 {
            return Err(Refused::Content);
        }
        let item = item(&mut self.rest)?;
        self.last_bytes = before - self.rest.0.len();
        self.seen += 1;
        Ok(item)
    }

    fn is_whole(&self) -> bool {
        (self.announced == MANY || u64::from(self.announced) == self.seen)
            && (self.seen == 0 || self.tail == self.last_bytes)
    }
}

impl<'p> Iterator for Elements<'p> {
    type Item = Result<Item<'p>, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.rest.0.is_empty() {
            return Some(self.element());
        }
        (!self.is_whole()).then_some(Err(Refused::Content))
    }
}

fn long_or_short(rest: &mut Rest<'_>) -> Result<u64, Refused> {
    match rest.byte()? {
        END => Err(Refused::Content),
        LONG => Ok(u64::from(u32::from_le_bytes(rest.array()?))),
        length => Ok(u64::from(length)),
    }
}

fn item<'p>(rest: &mut Rest<'p>) -> Result<Item<'p>, Refused> {
    let first = rest.byte()?;
    let text_bytes = match first >> 6 {
        0 => u64::from(first),
        1 => u64::from(first & 0x3f) << 8 | u64::from(rest.byte()?),
        2 => u64::from(u32::from_be_bytes(rest.array()?)),
        _ => return int(first, rest).map(Item::Int),
    };
    rest.take(text_bytes).map(Item::Text)
}

fn int(first: u8, rest: &mut Rest<'_>) -> Result<i64, Refused> {
    Ok(match first {
        0xc0 => i64::from(i16::from_le_bytes(rest.array()?)),
        0xd0 => i64::from(i32::from_le_bytes(rest.array()?)),
        0xe0 => i64::from_le_bytes(rest.array()?),
        0xf0 => i64::from(rest.i24()?),
        0xf1..=0xfd => i64::from(first - 0xf1),
        0xfe => i64::from(i8::from_le_bytes(rest.array()?)),
        _ => return Err(Refused::Content),
    })
}

/// The fields of a zipmap with their values, behind each of which there may be unused bytes.
///
/// # Errors
/// When it is damaged, or has no fields.
pub fn zipmap(blob: &[u8]) -> Result<impl Iterator<Item = Result<[&[u8]; 2], Refused>>, Refused> {
    let mut rest = Rest(blob.strip_suffix(&[END]).ok_or(Refused::Content)?);
    let announced = rest.byte()?;
    let mut seen = 0_u64;
    Ok(std::iter::from_fn(move || {
        if !rest.0.is_empty() {
            seen += 1;
            return Some(zipmap_pair(&mut rest));
        }
        let whole = seen > 0 && (announced >= LONG || u64::from(announced) == seen);
        (!whole).then_some(Err(Refused::Content))
    }))
}

fn zipmap_pair<'p>(rest: &mut Rest<'p>) -> Result<[&'p [u8]; 2], Refused> {
    let field_bytes = zipmap_length(rest)?;
    let field = rest.take(field_bytes)?;
    let value_bytes = zipmap_length(rest)?;
    let unused = rest.byte()?;
    let value = rest.take(value_bytes)?;
    rest.take(u64::from(unused))?;
    Ok([field, value])
}

/// In a zipmap each length has one form only.
fn zipmap_length(rest: &mut Rest<'_>) -> Result<u64, Refused> {
    let short = rest.0.first().is_some_and(|&first| first < LONG);
    match long_or_short(rest)? {
        length if short || length >= u64::from(LONG) => Ok(length),
        _ => Err(Refused::Content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(blob: &[u8]) -> Result<Vec<Item<'_>>, Refused> {
        open(blob)?.collect()
    }

    /// A ziplist of elements as they stand behind their predecessors' lengths.
    fn ziplist(elements: &[&[u8]]) -> Vec<u8> {
        let (mut body, mut tail, mut last_bytes) = (Vec::new(), HEADER_BYTES, 0);
        for element in elements {
            tail = HEADER_BYTES + body.len();
            let start = body.len();
            match u8::try_from(last_bytes) {
                Ok(short) if short < LONG => body.push(short),
                _ => {
                    body.push(LONG);
                    body.extend_from_slice(&(last_bytes as u32).to_le_bytes());
                }
            }
            body.extend_from_slice(element);
            last_bytes = body.len() - start;
        }
        let bytes = (HEADER_BYTES + body.len() + 1) as u32;
        let count = elements.len() as u16;
        [&bytes.to_le_bytes()[..], &(tail as u32).to_le_bytes(), &count.to_le_bytes(), &body, &[END]].concat()
    }

    #[test]
    fn elements_of_every_form_are_read() {
        let text = |head: &[u8], length| [head, &vec![b'x'; length]].concat();
        let (short, middle, long) =
            (text(b"\x05", 5), text(b"\x41\x00", 256), text(b"\x80\x00\x00\x40\x00", 16384));
        let blob = ziplist(&[
            b"\xf1",
            b"\xfd",
            b"\xfe\x80",
            b"\xc0\xff\xff",
            b"\xf0\xff\xff\x7f",
            b"\xd0\x00\x00\x00\x80",
            b"\xe0\xff\xff\xff\xff\xff\xff\xff\x7f",
            &short,
            &middle,
            &long,
            b"\x00",
        ]);
        let ints = [0, 12, -128, -1, 0x7f_ffff, -0x8000_0000, i64::MAX].map(Item::Int);
        let texts = [&short[1..], &middle[2..], &long[5..], b""].map(Item::Text);
        assert_eq!(read(&blob), Ok([&ints[..], &texts].concat()));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = ziplist(&[b"\xf3", b"\x02ab"]);
        assert_eq!(read(&good), Ok(vec![Item::Int(2), Item::Text(b"ab")]));
        for (at, to) in [(0, 16), (4, 10), (4, 200), (8, 1), (10, 1), (11, 0xff), (12, 3), (13, 3), (16, 0)] {
            let mut bad = good.clone();
            bad[at] = to;
            assert_eq!(read(&bad), Err(Refused::Content), "byte {at} is {to}");
        }
        assert_eq!(read(&ziplist(&[])), Ok(Vec::new()));
    }

    #[test]
    fn a_zipmap_is_read() {
        let read = |blob| zipmap(blob).and_then(|pairs| pairs.collect::<Result<Vec<_>, _>>());
        let good: Vec<[&[u8]; 2]> = vec![[b"a", b"xyz"], [b"", b"b"]];
        assert_eq!(read(b"\x02\x01a\x03\x02xyz..\x00\x01\x00b\xff"), Ok(good.clone()));
        assert_eq!(read(b"\xfe\x01a\x03\x02xyz..\x00\x01\x00b\xff"), Ok(good));
        let long = [b"\x01\xfe\xfe\0\0\0", &b"k".repeat(254)[..], b"\x00\x00\xff"].concat();
        assert_eq!(read(&long), Ok(vec![[&long[6..260], b""]]));
        for bad in [
            &b"\x00\xff"[..],
            b"\xff",
            b"\x02\x01a\x01\x00b\xff",
            b"\x01\x01a\x01\x01b\xff",
            b"\x01\x01a\xff\x00b\xff",
            b"\x01\xfe\x01\0\0\0a\x01\x00b\xff",
            b"\x01\x01a\x01\x00b",
        ] {
            assert_eq!(read(bad), Err(Refused::Content), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..60), tail in 0..80_u8) {
            let bytes = (HEADER_BYTES + body.len() + 1) as u8;
            let blob = [&[bytes, 0, 0, 0, tail, 0, 0, 0, 0xff, 0xff], &body[..], &[END]].concat();
            if let Ok(items) = read(&blob) {
                prop_assert!(items.len() * 2 <= body.len());
            }
            if let Ok(pairs) = zipmap(&blob[HEADER_BYTES..]) {
                prop_assert!(pairs.take_while(Result::is_ok).count() * 3 <= body.len());
            }
        }
    }
}

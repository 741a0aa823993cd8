//! Redis's own serialisation of a string, as DUMP answers and RESTORE takes it. Knows bytes only.
//!
//! A payload is a value as it stands in an RDB file (its type, then its content), the RDB version in two
//! bytes and a CRC-64 of all before it in eight, both little-endian. Source: rdb.c and cluster.c of Redis 7.0.

/// Written into payloads: what Redis 2.6 and everything after it can read. Strings have not changed since.
const VERSION_WRITTEN: u16 = 6;
/// The newest that is read: Redis 7.2's.
const VERSION_READ_MAX: u16 = 11;
const TYPE_STRING: u8 = 0;
const FOOTER_BYTES: usize = 10;

static CRC64: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_REDIS);

/// Why a payload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its version or its checksum.
    Footer,
    /// Its content.
    Content,
    /// It is no string.
    Type,
    /// Longer than a value may be.
    TooLong,
}

/// A value's payload.
pub fn encode(value: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(value.len() + 10 + FOOTER_BYTES);
    payload.push(TYPE_STRING);
    match value.len() {
        len @ 0..0x40 => payload.push(len as u8),
        len @ 0x40..0x4000 => payload.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        len => {
            payload.push(0x80);
            let len = u32::try_from(len).expect("a value is shorter than 4 GiB");
            payload.extend_from_slice(&len.to_be_bytes());
        }
    }
    payload.extend_from_slice(value);
    payload.extend_from_slice(&VERSION_WRITTEN.to_le_bytes());
    let checksum = CRC64.checksum(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

/// The value of a payload, at most `max_bytes` long.
///
/// # Errors
/// When the payload is damaged, too new, or of another type.
pub fn decode(payload: &[u8], max_bytes: u64) -> Result<Vec<u8>, Refused> {
    let end = payload.len().checked_sub(FOOTER_BYTES).ok_or(Refused::Footer)?;
    let (checked, checksum) = payload.split_at(end + 2);
    let version = u16::from_le_bytes([checked[end], checked[end + 1]]);
    if version > VERSION_READ_MAX || CRC64.checksum(checked).to_le_bytes() != checksum {
        return Err(Refused::Footer);
    }
    let mut rest = Rest(&payload[..end]);
    if rest.byte()? != TYPE_STRING {
        return Err(Refused::Type);
    }
    let value = rest.string(max_bytes)?;
    if rest.0.is_empty() { Ok(value) } else { Err(Refused::Content) }
}

/// What is not yet read of a payload.
struct Rest<'p>(&'p [u8]);

enum Length {
    Bytes(u64),
    /// A string in another form, by its number.
    Special(u8),
}

impl<'p> Rest<'p> {
    fn take(&mut self, count: u64) -> Result<&'p [u8], Refused> {
        let count = usize::try_from(count).map_err(|_| Refused::Content)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Refused::Content)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        Ok(self.take(N as u64)?.try_into().expect("as many were taken"))
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        Ok(self.array::<1>()?[0])
    }

    fn length(&mut self) -> Result<Length, Refused> {
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Bytes(u64::from(first)),
            (1, _) => Length::Bytes(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            (3, _) => Length::Special(first & 0x3f),
            (_, 0x80) => Length::Bytes(u64::from(u32::from_be_bytes(self.array()?))),
            (_, 0x81) => Length::Bytes(u64::from_be_bytes(self.array()?)),
            _ => return Err(Refused::Content),
        })
    }

    fn plain_length(&mut self) -> Result<u64, Refused> {
        match self.length()? {
            Length::Bytes(length) => Ok(length),
            Length::Special(_) => Err(Refused::Content),
        }
    }

    fn string(&mut self, max_bytes: u64) -> Result<Vec<u8>, Refused> {
        let number = match self.length()? {
            Length::Bytes(length) if length > max_bytes => return Err(Refused::TooLong),
            Length::Bytes(length) => return Ok(self.take(length)?.to_vec()),
            Length::Special(0) => i64::from(i8::from_le_bytes(self.array()?)),
            Length::Special(1) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Special(2) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Special(3) => {
                let (packed, length) = (self.plain_length()?, self.plain_length()?);
                if length > max_bytes {
                    return Err(Refused::TooLong);
                }
                return unpack(self.take(packed)?, length as usize).ok_or(Refused::Content);
            }
            Length::Special(_) => return Err(Refused::Content),
        };
        Ok(number.to_string().into_bytes())
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

    fn sealed(content: &[u8], version: u16) -> Vec<u8> {
        let mut payload = content.to_vec();
        payload.extend_from_slice(&version.to_le_bytes());
        let checksum = CRC64.checksum(&payload);
        payload.extend_from_slice(&checksum.to_le_bytes());
        payload
    }

    #[test]
    fn every_form_of_a_string_is_read() {
        assert_eq!(decode(&sealed(b"\x00\xc0\xf6", 10), 100).unwrap(), b"-10");
        assert_eq!(decode(&sealed(b"\x00\xc1\xe8\x03", 10), 100).unwrap(), b"1000");
        assert_eq!(decode(&sealed(b"\x00\xc2\xa0\x86\x01\x00", 10), 100).unwrap(), b"100000");
        // 25 times a: one as it is, a reference to it that gives 22 more, and two as they are.
        let packed = b"\x00\xc3\x08\x19\x00a\xe0\x0d\x00\x01aa";
        assert_eq!(decode(&sealed(packed, 10), 100).unwrap(), b"a".repeat(25));
        let before_the_beginning = b"\x00\xc3\x08\x19\x00a\xe0\x0d\x01\x01aa";
        assert_eq!(decode(&sealed(before_the_beginning, 10), 100), Err(Refused::Content));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = encode(b"value");
        let mut damaged = good.clone();
        damaged[3] ^= 1;
        assert_eq!(decode(&damaged, 100), Err(Refused::Footer));
        assert_eq!(decode(b"", 100), Err(Refused::Footer));
        assert_eq!(decode(&sealed(b"\x00\x05value", 12), 100), Err(Refused::Footer));
        assert_eq!(decode(&sealed(b"\x01\x00", 10), 100), Err(Refused::Type));
        assert_eq!(decode(&sealed(b"\x00\x05valu", 10), 100), Err(Refused::Content));
        assert_eq!(decode(&sealed(b"\x00\x05value!", 10), 100), Err(Refused::Content));
        assert_eq!(
            decode(&sealed(b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff", 10), 100),
            Err(Refused::TooLong)
        );
        assert_eq!(decode(&good, 4), Err(Refused::TooLong));
    }

    proptest! {
        #[test]
        fn values_come_back(value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            prop::collection::vec(any::<u8>(), 16_300..16_500),
        ]) {
            prop_assert_eq!(decode(&encode(&value), 1 << 20).unwrap(), value);
        }

        #[test]
        fn no_payload_panics(content in prop::collection::vec(any::<u8>(), 0..60), length in 0..4000_usize) {
            let _ = decode(&sealed(&content, 10), 1000);
            let mut packed = vec![0, 0xc3];
            packed.extend_from_slice(&content);
            let _ = decode(&sealed(&packed, 10), 1000);
            if let Some(value) = unpack(&content, length) {
                prop_assert_eq!(value.len(), length);
            }
        }
    }
}

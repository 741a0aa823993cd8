//! Intsets: sets of integers in one string. Only read; knows bytes only.
//!
//! The bytes of an integer (2, 4 or 8) and their number, in four bytes each; the integers in ascending
//! order; all little-endian. Source: intset.c of Redis 7.0.

use super::Refused;
use super::rest::Rest;

const HEADER_BYTES: usize = 8;

/// The integers of the intset that `blob` is.
///
/// # Errors
/// When it is damaged, or empty.
pub fn read(blob: &[u8]) -> Result<Vec<i64>, Refused> {
    let mut rest = Rest(blob);
    let size = u32::from_le_bytes(rest.array()?);
    let count = u64::from(u32::from_le_bytes(rest.array()?));
    if count == 0 || count * u64::from(size) != (blob.len() - HEADER_BYTES) as u64 {
        return Err(Refused::Content);
    }
    let ints: Vec<i64> = (0..count)
        .map(|_| {
            Ok(match size {
                2 => i64::from(i16::from_le_bytes(rest.array()?)),
                4 => i64::from(i32::from_le_bytes(rest.array()?)),
                8 => i64::from_le_bytes(rest.array()?),
                _ => return Err(Refused::Content),
            })
        })
        .collect::<Result<_, _>>()?;
    if ints.is_sorted_by(|a, b| a < b) { Ok(ints) } else { Err(Refused::Content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_is_read() {
        assert_eq!(read(b"\x02\0\0\0\x02\0\0\0\xff\xff\x01\x00"), Ok(vec![-1, 1]));
        assert_eq!(read(b"\x04\0\0\0\x01\0\0\0\xff\xff\xff\x7f"), Ok(vec![0x7fff_ffff]));
        assert_eq!(read(b"\x08\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\x80"), Ok(vec![i64::MIN]));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for bad in [
            &b""[..],
            b"\x02\0\0\0\x00\0\0\0",
            b"\x02\0\0\0\x02\0\0\0\x01\x00\x01\x00",
            b"\x02\0\0\0\x02\0\0\0\x02\x00\x01\x00",
            b"\x02\0\0\0\x02\0\0\0\x01\x00\x02",
            b"\x02\0\0\0\x01\0\0\0\x01\x00\x02\x00",
            b"\x01\0\0\0\x01\0\0\0\x01",
            b"\x00\0\0\0\xff\xff\xff\xff",
        ] {
            assert_eq!(read(bad), Err(Refused::Content), "{bad:?}");
        }
    }
}

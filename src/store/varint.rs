//! LEB128: numbers in as few bytes as they need, at most ten. Bytes only.

/// Why there is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The bytes end within it.
    Short,
    /// It has more than 64 bits.
    TooLarge,
}

pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// `byte` gives the next byte, if there is one.
pub fn read(mut byte: impl FnMut() -> Option<u8>) -> Result<u64, Bad> {
    let mut number = 0;
    for at in 0..10 {
        let byte = byte().ok_or(Bad::Short)?;
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            break;
        }
        number |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Bad::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Result<u64, Bad> {
        let mut bytes = bytes.iter().copied();
        read(|| bytes.next())
    }

    proptest! {
        #[test]
        fn numbers_come_back_and_their_beginnings_are_short(number: u64) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            prop_assert_eq!(read_all(&bytes), Ok(number));
            for end in 0..bytes.len() {
                prop_assert_eq!(read_all(&bytes[..end]), Err(Bad::Short));
            }
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(read_all(&[0xff; 10]), Err(Bad::TooLarge));
        assert_eq!(read_all(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(Bad::TooLarge));
    }
}

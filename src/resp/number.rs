//! Numbers as Redis reads and writes them in values and arguments.
//!
//! Pure. Knows the notation, not the commands.

use crate::error::ClientError;
use bytes::Bytes;

mod big;
mod double;
mod long_double;

pub use double::{parse_bound, parse_f64};
use long_double::LongDouble;

/// A 64-bit integer by Redis's strict rules (`string2ll`): no spaces, plus sign, leading zeros or `-0`.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Negative numbers reach one further.
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

pub fn format_i64(number: i64) -> Bytes {
    Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes())
}

/// The sum of two numbers with fractions, as INCRBYFLOAT makes and prints it on x86: in C's `long double`.
pub fn add_float(a: &[u8], b: &[u8]) -> Result<Bytes, ClientError> {
    let read = |text| LongDouble::parse(text).ok_or(ClientError::NOT_FLOAT);
    match read(a)?.plus(read(b)?) {
        LongDouble::Finite(sum) => Ok(Bytes::from(sum.to_decimal())),
        LongDouble::Beyond => Err(ClientError::fixed("ERR increment would produce NaN or Infinity")),
    }
}

/// About the number that a text means by the rules of C's `long double`; any infinity, and what is as good as
/// one, is the positive one.
pub fn parse_long_double(text: &[u8]) -> Option<f64> {
    LongDouble::parse(text).map(LongDouble::to_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_strictly() {
        for good in ["0", "1", "-1", "10", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(parse_i64(good.as_bytes()), good.parse().ok(), "{good}");
        }
        let bad = ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "0x1", "1\0", "9223372036854775808"];
        for bad in bad.into_iter().chain(["-9223372036854775809", "00", "99999999999999999999999"]) {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn floats_as_redis_server_adds_them() {
        // From redis-server 7.0.15: SET, then INCRBYFLOAT.
        let cases = [
            ("3.0", "1.1", "4.1"),
            ("10.50", "0.1", "10.6"),
            ("0", "-0", "0"),
            ("1", "-1", "0"),
            ("5.0e3", "2.0e2", "5200"),
            ("0x10", "0x.8p1", "17"),
            ("1e-30", "-2e-30", "0"),
            (".5", "+1.", "1.5"),
            ("1e18", "0.1", "1000000000000000000.125"),
            ("17179869184", "0.00000000000001", "17179869184"),
        ];
        for (a, b, expected) in cases {
            let sum = add_float(a.as_bytes(), b.as_bytes());
            assert_eq!(sum, Ok(Bytes::from_static(expected.as_bytes())), "{a} + {b}");
        }
    }

    #[test]
    fn what_is_no_float_is_refused() {
        let bad =
            ["", " 1", "1 ", "nan", "NAN(1)", "0x", "1e", "1e+", ".", "-", "e5", "0x1p", "1\0", "1,5", "--1"];
        for bad in bad.into_iter().chain(["1e5000", "-1e5000", "1e-5000", "0x1p-16446", "infinit", "1_0"]) {
            assert_eq!(add_float(bad.as_bytes(), b"1"), Err(ClientError::NOT_FLOAT), "{bad}");
            assert_eq!(add_float(b"1", bad.as_bytes()), Err(ClientError::NOT_FLOAT), "{bad}");
        }
        assert_eq!(add_float(&b"1".repeat(5120), b"1"), Err(ClientError::NOT_FLOAT));
        let beyond = Err(ClientError::fixed("ERR increment would produce NaN or Infinity"));
        for (a, b) in [("inf", "1"), ("1", "-InFinity"), ("inf", "-inf"), ("1e4932", "1e4932")] {
            assert_eq!(add_float(a.as_bytes(), b.as_bytes()), beyond, "{a} + {b}");
        }
    }

    proptest! {
        #[test]
        fn integers_come_back(number: i64) {
            prop_assert_eq!(parse_i64(&format_i64(number)), Some(number));
        }

        #[test]
        fn integers_add_up_exactly(a in -1i64 << 60..1 << 60, b in -1i64 << 60..1 << 60) {
            prop_assert_eq!(add_float(&format_i64(a), &format_i64(b)), Ok(format_i64(a + b)));
        }

        #[test]
        fn nothing_panics(a: Vec<u8>, b in "[-+]?[0-9]{0,30}(\\.[0-9]{0,30})?([eEpP][-+]?[0-9]{1,9})?") {
            let _ = (add_float(&a, b"1"), parse_i64(&a), add_float(b.as_bytes(), b.as_bytes()));
        }
    }
}

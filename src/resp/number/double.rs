//! Doubles as C's `strtod` reads them: decimal, hexadecimal, infinite.
//!
//! Knows nothing of Redis but which of its two readers takes what.

use super::long_double::{parse_exponent, shift_right_even};

/// A whole text that `strtod` would read to its end, and whether it fitted; None for what it would not, and
/// for NaN.
fn read(text: &[u8]) -> Option<(f64, bool)> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (value, fits) = match unsigned {
        [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
        [b'0'..=b'9' | b'.', ..] => decimal(unsigned)?,
        word if word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity") => {
            (f64::INFINITY, true)
        }
        _ => return None,
    };
    Some((if negative { -value } else { value }, fits))
}

/// A number by Redis's strict rules for scores and weights: all of the text, and neither beyond all numbers
/// nor so small that nothing is left.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    read(text).filter(|(_, fits)| *fits).map(|(value, _)| value)
}

/// A bound of a range by Redis's lax rules: blanks may come before it, a zero byte ends it, nothing at all is
/// 0, and what is too large is infinite.
pub fn parse_bound(text: &[u8]) -> Option<f64> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = &text[..end];
    if text.is_empty() {
        return Some(0.0);
    }
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    read(&text[blanks..]).map(|(value, _)| value)
}

fn decimal(text: &[u8]) -> Option<(f64, bool)> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let mut digits = text.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    let zero = digits.all(|byte| matches!(byte, b'0' | b'.'));
    Some((value, value.is_finite() && (value != 0.0 || zero)))
}

/// Rounded once, halves to even.
fn hexadecimal(text: &[u8]) -> Option<(f64, bool)> {
    let mark = text.iter().position(|byte| matches!(byte, b'p' | b'P'));
    let (digits, written) = match mark {
        Some(mark) => (&text[..mark], parse_exponent(&text[mark + 1..])?),
        None => (text, 0),
    };
    // The first digits, and in the last bit whether those behind them are more than zeros.
    let (mut mantissa, mut exponent, mut point, mut any) = (0u128, written, false, false);
    for byte in digits {
        if *byte == b'.' && !point {
            point = true;
            continue;
        }
        let digit = char::from(*byte).to_digit(16)?;
        any = true;
        if mantissa >> 120 == 0 {
            mantissa = mantissa << 4 | u128::from(digit);
            exponent -= if point { 4 } else { 0 };
        } else {
            mantissa |= u128::from(digit != 0);
            exponent += if point { 0 } else { 4 };
        }
    }
    if !any {
        return None;
    }
    let value = scaled(mantissa, exponent);
    Some((value, value.is_finite() && (value != 0.0 || mantissa == 0)))
}

/// `mantissa` * 2^`exponent`.
fn scaled(mantissa: u128, exponent: i64) -> f64 {
    const LEAST: i64 = -1074;
    if mantissa == 0 {
        return 0.0;
    }
    let bits = i64::from(u128::BITS - mantissa.leading_zeros());
    if bits + exponent > 1024 {
        return f64::INFINITY;
    }
    let drop = (bits - i64::from(f64::MANTISSA_DIGITS)).max(LEAST - exponent).max(0);
    let kept = shift_right_even(mantissa, u32::try_from(drop).unwrap_or(u32::MAX));
    // Exact from here on: at most 53 bits, none of them below the least.
    kept as f64 * power_of_two(exponent + drop)
}

/// 2^`exponent`, for exponents that numbers have.
fn power_of_two(exponent: i64) -> f64 {
    let bits = if exponent >= -1022 { (exponent + 1023) << 52 } else { 1 << (exponent + 1074) };
    f64::from_bits(bits as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_strtod_reads_them() {
        let cases = [
            ("1", 1.0),
            ("+3", 3.0),
            ("-0.5", -0.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e2", 100.0),
            ("INF", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("0X.8p1", 1.0),
            ("-0x1p-1", -0.5),
            ("0x1.fffffffffffff7p0", 1.999_999_999_999_999_8),
            ("0x1.fffffffffffff8p0", 2.0),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000000000000000001p0", 1.000_000_000_000_000_2),
            ("0x10000000000000000000000000000000000000p-148", 1.0),
            ("0x1p-1074", 5e-324),
            ("0x1.8p-1075", 5e-324),
            ("0x1p1023", 2f64.powi(1023)),
            ("0x0p9999999", 0.0),
            ("0e9999999", 0.0),
            ("1.7976931348623157e308", f64::MAX),
            ("5e-324", 5e-324),
        ];
        for (text, value) in cases {
            assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text}");
        }
    }

    #[test]
    fn what_redis_server_refuses_is_refused() {
        for text in
            ["", " 1", "1 ", "abc", "nan", "-nan", "1,5", "0x", "0x.", "0x1p", "1e", ".", "+", "--1", "infin"]
        {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
        for text in
            ["1e400", "1e-400", "0x1p1024", "0x1p-1075", "0x1p99999999999999999999", "1\0", "1_0", "0x1.1.1"]
        {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn bounds_are_read_laxly() {
        let cases = [
            ("", Some(0.0)),
            (" ", None),
            ("\t 1", Some(1.0)),
            ("1 ", None),
            ("1\0x", Some(1.0)),
            ("1e400", Some(f64::INFINITY)),
            ("-1e400", Some(f64::NEG_INFINITY)),
            ("1e-400", Some(0.0)),
            ("nan", None),
        ];
        for (text, value) in cases {
            assert_eq!(parse_bound(text.as_bytes()), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn hexadecimal_is_exact(bits: u64) {
            let number = f64::from_bits(bits & !(1 << 63));
            prop_assume!(number.is_finite());
            let exponent = (bits >> 52 & 0x7ff).max(1) as i64 - 1075;
            let whole = bits & ((1 << 52) - 1) | u64::from(bits >> 52 & 0x7ff != 0) << 52;
            let text = format!("0x{whole:x}p{exponent}");
            prop_assert_eq!(parse_f64(text.as_bytes()), Some(number));
        }

        #[test]
        fn nothing_panics(text: Vec<u8>, hex in "0x[0-9a-f]{0,40}(\\.[0-9a-f]{0,40})?(p[-+]?[0-9]{1,9})?") {
            let _ = (parse_f64(&text), parse_bound(&text), parse_f64(hex.as_bytes()));
        }
    }
}

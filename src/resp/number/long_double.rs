//! The 80-bit floating point of x86, in integers: what C calls `long double`, which Rust has not.
//!
//! Reads, adds and prints as glibc and the x87 do: every step exact, then rounded once, halves to even.
//! Knows nothing of Redis but how it trims what `%.17Lf` prints.

use super::big::Big;

/// A number, or what lies beyond all of them: an infinity, or what comes of adding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongDouble {
    Finite(Finite),
    Beyond,
}

/// `mantissa` * 2^`exponent`; the mantissa's top bit is set unless the exponent is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finite {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

const EXPONENT_MIN: i32 = -16445;
const EXPONENT_MAX: i32 = 16320;

/// Redis reads nothing longer (`MAX_LONG_DOUBLE_CHARS`).
const TEXT_MAX_BYTES: usize = 5 * 1024 - 1;

impl LongDouble {
    /// What `strtold` reads, if that is all of the text; None too for NaN, and for what is too large or is
    /// not zero and too small.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_MAX_BYTES {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble::Beyond);
        }
        let notation = match text {
            [b'0', b'x' | b'X', digits @ ..] => Notation::parse(digits, 16, b'p')?,
            digits => Notation::parse(digits, 10, b'e')?,
        };
        let is_zero = notation.digits.is_zero();
        match notation.value(negative) {
            LongDouble::Finite(value) if value.mantissa != 0 || is_zero => Some(LongDouble::Finite(value)),
            _ => None,
        }
    }

    pub fn plus(self, other: LongDouble) -> LongDouble {
        match (self, other) {
            (LongDouble::Finite(a), LongDouble::Finite(b)) => a.plus(b),
            _ => LongDouble::Beyond,
        }
    }

    /// About the same number.
    pub fn to_f64(self) -> f64 {
        match self {
            LongDouble::Finite(Finite { negative, mantissa, exponent }) => {
                let size = mantissa as f64 * 2f64.powi(exponent);
                if negative { -size } else { size }
            }
            LongDouble::Beyond => f64::INFINITY,
        }
    }
}

/// A number as written: `digits` * 10^`scale`, or in hexadecimal `digits` * 2^`scale`.
struct Notation {
    digits: Big,
    radix: u32,
    scale: i64,
}

impl Notation {
    fn parse(text: &[u8], radix: u32, exponent_mark: u8) -> Option<Notation> {
        let mark = text.iter().position(|byte| byte.to_ascii_lowercase() == exponent_mark);
        let (number, exponent) = match mark {
            Some(mark) => (&text[..mark], parse_exponent(&text[mark + 1..])?),
            None => (text, 0),
        };
        let point = number.iter().position(|byte| *byte == b'.').unwrap_or(number.len());
        let (whole, fraction) = (&number[..point], number.get(point + 1..).unwrap_or_default());
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut digits = Big::default();
        let (mut group, mut power) = (0, 1);
        for digit in whole.iter().chain(fraction) {
            (group, power) = (group * radix + char::from(*digit).to_digit(radix)?, power * radix);
            if power >= 100_000_000 {
                digits.multiply_add(power, group);
                (group, power) = (0, 1);
            }
        }
        digits.multiply_add(power, group);
        let places = fraction.len() as i64;
        Some(Notation { digits, radix, scale: exponent - if radix == 16 { places * 4 } else { places } })
    }

    fn value(self, negative: bool) -> LongDouble {
        // So far outside, no number of digits that fits into the text brings it back.
        const FAR: i64 = 40_000;
        if self.digits.is_zero() || self.scale < -FAR {
            return LongDouble::Finite(Finite { negative, mantissa: 0, exponent: EXPONENT_MIN });
        }
        if self.scale > FAR {
            return LongDouble::Beyond;
        }
        let (mut digits, scale) = (self.digits, self.scale as i32);
        let exponent = match self.radix {
            16 => scale,
            _ if scale >= 0 => {
                digits.multiply_by_ten_to(scale.unsigned_abs());
                0
            }
            _ => {
                // Ten is less than 2^(10/3): the quotient keeps more bits than a mantissa has.
                let shift = (scale.unsigned_abs() * 10 / 3 + 68).saturating_sub(digits.bits());
                digits.shift_left(shift);
                digits.divide_by_ten_to(scale.unsigned_abs());
                -(shift as i32)
            }
        };
        let (top, below) = digits.top();
        rounded(negative, top, exponent + below as i32)
    }
}

/// Saturates where no number could be held anyway.
pub(super) fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] | digits => (1, digits),
    };
    let add = |value: i64, digit: &u8| {
        digit.is_ascii_digit().then(|| (value * 10 + i64::from(digit - b'0')).min(1_000_000))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add).map(|value| sign * value) }
}

impl Finite {
    fn plus(self, other: Finite) -> LongDouble {
        let (a, b) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        // Room for a carry above; below, enough bits that what `b` loses only matters as being there or not.
        const GUARD_BITS: u32 = 62;
        let large = u128::from(a.mantissa) << GUARD_BITS;
        let small = shift_right_sticky(u128::from(b.mantissa) << GUARD_BITS, a.exponent.abs_diff(b.exponent));
        let (negative, sum) = match a.negative == b.negative {
            true => (a.negative, large + small),
            false if large >= small => (a.negative, large - small),
            false => (b.negative, small - large),
        };
        rounded(negative, sum, a.exponent - GUARD_BITS as i32)
    }

    /// As `%.17Lf` without trailing zeros, and without the sign of a zero.
    pub fn to_decimal(self) -> String {
        let sign = if self.negative { "-" } else { "" };
        if self.exponent >= 0 {
            let mut number = Big::from(self.mantissa);
            number.shift_left(self.exponent.unsigned_abs());
            return format!("{sign}{number}");
        }
        const ONE: u128 = 10u128.pow(17);
        let scaled = shift_right_even(u128::from(self.mantissa) * ONE, self.exponent.unsigned_abs());
        match (scaled / ONE, scaled % ONE) {
            (0, 0) => "0".to_owned(),
            (whole, 0) => format!("{sign}{whole}"),
            (whole, fraction) => {
                format!("{sign}{whole}.{}", format!("{fraction:017}").trim_end_matches('0'))
            }
        }
    }
}

/// `number` * 2^`exponent` with 64 bits of mantissa.
fn rounded(negative: bool, number: u128, exponent: i32) -> LongDouble {
    if number == 0 {
        return LongDouble::Finite(Finite { negative, mantissa: 0, exponent: EXPONENT_MIN });
    }
    let bits = (u128::BITS - number.leading_zeros()) as i32;
    let drop = (bits - 64).max(EXPONENT_MIN - exponent);
    let mut exponent = exponent + drop;
    let mut mantissa = match drop {
        1.. => shift_right_even(number, drop.unsigned_abs()),
        _ => number << drop.unsigned_abs(),
    };
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    if exponent > EXPONENT_MAX {
        return LongDouble::Beyond;
    }
    let mantissa = u64::try_from(mantissa).expect("shifted to at most 64 bits");
    LongDouble::Finite(Finite { negative, mantissa, exponent })
}

/// Divides by 2^`count`, rounding to the nearest, halves to even.
pub(super) fn shift_right_even(number: u128, count: u32) -> u128 {
    if count > u128::BITS || count == 0 {
        return if count == 0 { number } else { 0 };
    }
    let kept = number.checked_shr(count).unwrap_or(0);
    let half = 1 << (count - 1);
    let rest = number & (half | (half - 1));
    let up = rest > half || (rest == half && kept & 1 == 1);
    kept + u128::from(up)
}

/// Divides by 2^`count`; the last bit is set if anything was lost.
fn shift_right_sticky(number: u128, count: u32) -> u128 {
    let kept = number.checked_shr(count).unwrap_or(0);
    let lost = kept.checked_shl(count).unwrap_or(0) != number;
    kept | u128::from(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finite(text: &str) -> Finite {
        match LongDouble::parse(text.as_bytes()) {
            Some(LongDouble::Finite(value)) => value,
            other => panic!("{text} gave {other:?}"),
        }
    }

    #[test]
    fn mantissas_are_those_of_the_hardware() {
        // Read from memory by a C program: strtold on x86-64.
        let cases = [
            ("1", 0x8000_0000_0000_0000, -63),
            ("0.1", 0xCCCC_CCCC_CCCC_CCCD, -67),
            ("3.14159265358979323846", 0xC90F_DAA2_2168_C235, -62),
            ("18446744073709551615", u64::MAX, 0),
            ("18446744073709551617", 1 << 63, 1),
            ("1.18973149535723176502e4932", u64::MAX, EXPONENT_MAX),
            ("3.36210314311209350626e-4932", 1 << 63, EXPONENT_MIN),
            ("3.7e-4951", 1, EXPONENT_MIN),
            ("0x1.8p-16445", 2, EXPONENT_MIN),
        ];
        for (text, mantissa, exponent) in cases {
            assert_eq!(finite(text), Finite { negative: false, mantissa, exponent }, "{text}");
        }
    }

    #[test]
    fn halves_go_to_even() {
        assert_eq!(shift_right_even(5, 1), 2);
        assert_eq!(shift_right_even(7, 1), 4);
        assert_eq!(shift_right_even(u128::MAX, 128), 1);
        assert_eq!(shift_right_even(1 << 127, 128), 0);
        assert_eq!(shift_right_even(u128::MAX, 129), 0);
        // 2^64 + 1 lies between two numbers.
        let sum = LongDouble::Finite(finite("18446744073709551616")).plus(LongDouble::Finite(finite("1")));
        assert_eq!(sum, LongDouble::Finite(finite("18446744073709551616")));
    }

    #[test]
    fn a_tiny_other_number_still_decides_a_half() {
        let half = LongDouble::Finite(finite("18446744073709551616"));
        let bit_more = LongDouble::parse(b"1.0000001").expect("a number");
        assert_eq!(half.plus(bit_more), LongDouble::Finite(finite("18446744073709551618")));
    }
}

//! Whole numbers of any size, with only what reading and printing a floating-point number takes.
//!
//! A few thousand digits at most: whoever calls bounds the text.

use std::fmt;

/// The largest power of ten in a limb.
const TEN_POWER: u32 = 9;
const TEN_TO_POWER: u32 = 10u32.pow(TEN_POWER);

/// Limbs of 32 bits, the lowest first; the highest is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Big(Vec<u32>);

impl From<u64> for Big {
    fn from(number: u64) -> Big {
        let mut big = Big(vec![number as u32, (number >> 32) as u32]);
        big.trim();
        big
    }
}

impl Big {
    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bits(&self) -> u32 {
        self.0.last().map_or(0, |limb| self.0.len() as u32 * u32::BITS - limb.leading_zeros())
    }

    pub fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    pub fn multiply_by_ten_to(&mut self, power: u32) {
        for_tens(power, |ten| self.multiply_add(ten, 0));
    }

    /// Rounds down, but sets the last bit if anything was lost.
    pub fn divide_by_ten_to(&mut self, power: u32) {
        let mut exact = true;
        for_tens(power, |ten| exact &= self.divide(ten) == 0);
        if !exact {
            self.set_last_bit();
        }
    }

    pub fn shift_left(&mut self, bits: u32) {
        self.multiply_add(1 << (bits % 32), 0);
        if !self.is_zero() {
            let zeros = (bits / 32) as usize;
            self.0.splice(0..0, std::iter::repeat_n(0, zeros));
        }
    }

    /// The highest bits, 97 to 128 of a longer number, and how many lie below them. The last is set too if any
    /// of those below is.
    pub fn top(&self) -> (u128, u32) {
        let (low, high) = self.0.split_at(self.0.len().saturating_sub(4));
        let top = high.iter().rev().fold(0u128, |top, limb| (top << 32) | u128::from(*limb));
        let lost = low.iter().any(|limb| *limb != 0);
        (top | u128::from(lost), low.len() as u32 * 32)
    }

    /// Rounds down and returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0u64;
        for limb in self.0.iter_mut().rev() {
            let part = (remainder << 32) | u64::from(*limb);
            *limb = (part / u64::from(divisor)) as u32;
            remainder = part % u64::from(divisor);
        }
        self.trim();
        remainder as u32
    }

    fn set_last_bit(&mut self) {
        match self.0.first_mut() {
            Some(limb) => *limb |= 1,
            None => self.0.push(1),
        }
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

/// Powers of ten whose product is ten to `power`.
fn for_tens(power: u32, mut each: impl FnMut(u32)) {
    for _ in 0..power / TEN_POWER {
        each(TEN_TO_POWER);
    }
    each(10u32.pow(power % TEN_POWER));
}

impl fmt::Display for Big {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut groups) = (self.clone(), Vec::new());
        while !rest.is_zero() {
            groups.push(rest.divide(TEN_TO_POWER));
        }
        write!(f, "{}", groups.pop().unwrap_or(0))?;
        groups.iter().rev().try_for_each(|group| write!(f, "{group:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn big(number: u128) -> Big {
        let mut big = Big((0..4).map(|limb| (number >> (32 * limb)) as u32).collect());
        big.trim();
        big
    }

    #[test]
    fn tens_come_back() {
        let mut number = Big::from(7);
        number.multiply_by_ten_to(1000);
        assert_eq!(number.to_string(), format!("7{}", "0".repeat(1000)));
        number.divide_by_ten_to(1000);
        assert_eq!(number, Big::from(7));
        number.divide_by_ten_to(1);
        assert_eq!(number, Big::from(1), "nothing is left but that there was something");
        assert_eq!(Big::from(0).to_string(), "0");
    }

    proptest! {
        #[test]
        fn like_the_integers_there_are(number: u128, factor: u32, divisor in 1u32.., bits in 0u32..64) {
            prop_assert_eq!(big(number).to_string(), number.to_string());
            prop_assert_eq!(big(number).top(), (number, 0));
            prop_assert_eq!(big(number).bits(), u128::BITS - number.leading_zeros());
            let mut product = big(number >> 32);
            product.multiply_add(factor, factor);
            prop_assert_eq!(product, big((number >> 32) * u128::from(factor) + u128::from(factor)));
            let mut quotient = big(number);
            prop_assert_eq!(u128::from(quotient.divide(divisor)), number % u128::from(divisor));
            prop_assert_eq!(quotient, big(number / u128::from(divisor)));
            let mut shifted = big(number >> 64);
            shifted.shift_left(bits);
            prop_assert_eq!(shifted, big(number >> 64 << bits));
        }

        #[test]
        fn the_top_keeps_what_decides(number in 1u128.., bits in 0u32..300) {
            let mut shifted = big(number | 1 << 127);
            shifted.shift_left(bits);
            let (top, below) = shifted.top();
            let lost = 128 + bits - below - (u128::BITS - top.leading_zeros());
            prop_assert_eq!(lost, 0, "all bits are counted");
            let cut = below.saturating_sub(bits);
            prop_assert_eq!(top >> 1, (number | 1 << 127) >> cut << bits.saturating_sub(below) >> 1);
        }
    }
}

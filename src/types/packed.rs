//! Numbers and texts one behind the other: how small collections stand in their row, and chunks in an
//! element. Layout: store/FORMAT.md. Knows bytes only.

use crate::error::Stop;
use crate::store::varint;
pub use crate::store::varint::put as put_number;

/// What is still to be read.
#[derive(Clone, Copy)]
pub struct Packed<'b>(pub &'b [u8]);

impl<'b> Packed<'b> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// LEB128, at most ten bytes.
    pub fn number(&mut self) -> Result<u64, Stop> {
        let mut bytes = self.0.iter();
        let number = varint::read(|| bytes.next().copied()).map_err(|_| damaged())?;
        self.0 = bytes.as_slice();
        Ok(number)
    }

    /// A text behind its length.
    pub fn text(&mut self) -> Result<&'b [u8], Stop> {
        let len = usize::try_from(self.number()?).map_err(|_| damaged())?;
        let (text, rest) = self.0.split_at_checked(len).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(text)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*array)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Stored bytes that do not keep to the format: a damage that no checksum has found, or a bug.
pub fn damaged() -> Stop {
    Stop::Fault("a collection's stored bytes cannot be understood".into())
}

pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_comes_back(number: u64, text: Vec<u8>) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            put_text(&mut out, &text);
            let mut packed = Packed(&out);
            prop_assert_eq!(packed.number().unwrap(), number);
            prop_assert_eq!(packed.text().unwrap(), &text[..]);
            prop_assert!(packed.is_empty());
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let mut packed = Packed(&bytes);
            while packed.text().is_ok() {}
        }
    }
}

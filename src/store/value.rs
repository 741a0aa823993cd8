//! Copies of values that stay in memory for long.
//!
//! A `Bytes` made the usual way has its count of references in a heap block of its own: whoever reads a value that
//! left the CPU's caches waits for memory twice, and each write allocates twice. A short one is kept together with
//! its count. Knows no row.

use bytes::Bytes;

/// What `Bytes` keeps before the value it owns: its count of references and how it is freed.
const HEAD_BYTES: usize = 16;

struct Short<const ROOM: usize> {
    len: u16,
    bytes: [u8; ROOM],
}

impl<const ROOM: usize> Short<ROOM> {
    fn copied(value: &[u8]) -> Bytes {
        let mut short = Short { len: value.len() as u16, bytes: [0; ROOM] };
        short.bytes[..value.len()].copy_from_slice(value);
        Bytes::from_owner(short)
    }
}

impl<const ROOM: usize> AsRef<[u8]> for Short<ROOM> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What stays for a value in a heap block of this size.
const fn room(block_bytes: usize) -> usize {
    block_bytes - HEAD_BYTES - size_of::<u16>()
}

/// A copy of `value`. Above about half a KiB copying costs more than what is saved, and it is made the usual way.
pub fn copied(value: &[u8]) -> Bytes {
    const LAST: usize = room(512);
    // Sizes the allocator has, so that no more is taken than would be anyway.
    match value.len() {
        0 => Bytes::new(),
        len if len <= room(48) => Short::<{ room(48) }>::copied(value),
        len if len <= room(64) => Short::<{ room(64) }>::copied(value),
        len if len <= room(96) => Short::<{ room(96) }>::copied(value),
        len if len <= room(128) => Short::<{ room(128) }>::copied(value),
        len if len <= room(160) => Short::<{ room(160) }>::copied(value),
        len if len <= room(192) => Short::<{ room(192) }>::copied(value),
        len if len <= room(256) => Short::<{ room(256) }>::copied(value),
        len if len <= room(320) => Short::<{ room(320) }>::copied(value),
        len if len <= room(384) => Short::<{ room(384) }>::copied(value),
        len if len <= LAST => Short::<LAST>::copied(value),
        _ => Bytes::copy_from_slice(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_equal_at_every_length() {
        for len in 0..600 {
            let value: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
            let copy = copied(&value);
            assert_eq!(copy, value);
            assert_eq!(copy.slice(len / 2..), value[len / 2..]);
        }
    }
}

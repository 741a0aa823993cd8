//! Begins the look-ups of a pipeline before the first is needed, so that they wait for memory together and
//! not one after the other. A guess at what the bytes will turn out to be: wrong ones cost a look, no more.

use super::serve::Core;
use smallvec::SmallVec;

/// Commands looked at together: beyond that, what came first has left the CPU's cache.
const AHEAD: usize = 16;

impl Core {
    /// Looks ahead over a few commands at the beginning of `bytes`; how many bytes they take. 0: there is no
    /// pipeline.
    pub fn foresee(&mut self, place: usize, bytes: &[u8]) -> usize {
        let (names, length) = first_arguments(bytes);
        if names.len() < 2 {
            return 0;
        }
        let table = self.connections[place].session.table;
        for name in names {
            let slot = self.node.hash.slot_of(name);
            let shard = self.node.map.shard_of(slot);
            if self.node.map.owner(shard) == self.node.core {
                self.owner.shard(shard).data.foresee(table, slot, name);
            }
        }
        length
    }
}

/// The first arguments of the commands that stand whole at the beginning of `bytes`, and where the last of
/// these commands ends. Stops at whatever looks unusual.
fn first_arguments(bytes: &[u8]) -> (SmallVec<[&[u8]; AHEAD]>, usize) {
    let mut names = SmallVec::new();
    let mut at = 0;
    while names.len() < AHEAD
        && let Some((name, end)) = first_argument(bytes, at)
    {
        names.push(name);
        at = end;
    }
    (names, at)
}

fn first_argument(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (count, mut at) = number(bytes, at, b'*')?;
    let mut first = None;
    for argument in 0..count {
        let (length, start) = number(bytes, at, b'$')?;
        at = start + length + 2;
        if argument == 1 {
            first = bytes.get(start..start + length);
        }
    }
    (at <= bytes.len()).then_some((first?, at))
}

/// A small number behind its sign, and where its line ends.
fn number(bytes: &[u8], at: usize, sign: u8) -> Option<(usize, usize)> {
    const DIGITS_MAX: usize = 4;
    if *bytes.get(at)? != sign {
        return None;
    }
    let mut number = 0;
    for digit in 0..=DIGITS_MAX {
        match *bytes.get(at + 1 + digit)? {
            byte @ b'0'..=b'9' => number = number * 10 + usize::from(byte - b'0'),
            b'\r' => return Some((number, at + digit + 3)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_commands_are_foreseen_and_nothing_else() {
        let get = b"*2\r\n$3\r\nGET\r\n$2\r\nk1\r\n";
        let set = b"*3\r\n$3\r\nSET\r\n$4\r\nkey2\r\n$5\r\nvalue\r\n";
        let both = [&get[..], &set[..]].concat();
        let (names, end) = first_arguments(&both);
        assert_eq!((names.to_vec(), end), (vec![&b"k1"[..], b"key2"], both.len()));
        for cut in 0..both.len() {
            let (names, end) = first_arguments(&both[..cut]);
            assert_eq!((names.len(), end), if cut < get.len() { (0, 0) } else { (1, get.len()) }, "{cut}");
        }
        for odd in
            [&b"PING\r\nGET a\r\n"[..], b"*1\r\n$4\r\nPING\r\n", b"*99999\r\n", b"*-1\r\n", b"*2\r\n+a\r\n"]
        {
            assert!(first_arguments(odd).0.is_empty());
        }
        assert_eq!(first_arguments(&get.repeat(40)).0.len(), AHEAD);
    }
}

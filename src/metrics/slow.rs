//! The slow log of one core: commands that took long, with their words and where they went.

use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// As in Redis: what an entry keeps of a command.
const WORDS_MAX: usize = 32;
const WORD_MAX_BYTES: usize = 128;

/// A command's words, cut to what an entry keeps; one allocation for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    bytes: Vec<u8>,
    ends: SmallVec<[u32; 4]>,
}

impl Words {
    /// Of a command of `count` words.
    pub fn of<'a>(count: usize, word: impl Fn(usize) -> &'a [u8]) -> Words {
        let kept = if count > WORDS_MAX { WORDS_MAX - 1 } else { count };
        let mut words = Words::default();
        for at in 0..kept {
            let word = word(at);
            let cut = word.len().min(WORD_MAX_BYTES);
            words.bytes.extend_from_slice(&word[..cut]);
            if cut < word.len() {
                let more = format!("... ({} more bytes)", word.len() - cut);
                words.bytes.extend_from_slice(more.as_bytes());
            }
            words.end();
        }
        if kept < count {
            words.bytes.extend_from_slice(format!("... ({} more arguments)", count - kept).as_bytes());
            words.end();
        }
        words
    }

    fn end(&mut self) {
        self.ends.push(self.bytes.len() as u32);
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends
            .iter()
            .map(move |&end| &self.bytes[std::mem::replace(&mut from, end as usize)..end as usize])
    }
}

/// Where a command's time went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It ran at once on the core of its connection.
    Run,
    /// It waited on that core: for the disk, for latches, or because it was long.
    Wait,
    /// Another core owns its key.
    Hop,
    /// Several shards took part.
    Gather,
    /// Too large for a turn: its keys were looked for on the pool.
    Giant,
    /// Every core was asked.
    Ask,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Run => "run",
            Stage::Wait => "wait",
            Stage::Hop => "hop",
            Stage::Gather => "gather",
            Stage::Giant => "giant",
            Stage::Ask => "ask",
        }
    }
}

/// One slow command.
#[derive(Clone, Debug)]
pub struct SlowEntry {
    /// Unique on this node, growing with time.
    pub id: u64,
    /// When it was answered, seconds since the epoch.
    pub at_s: u64,
    pub micros: u64,
    pub words: Words,
    /// Its client.
    pub addr: String,
    pub name: Bytes,
    pub stage: Stage,
}

/// The last slow commands of one core, oldest first.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: VecDeque<SlowEntry>,
}

impl SlowLog {
    /// Notes a command; the oldest give way.
    pub fn push(&mut self, entry: SlowEntry, len_max: usize) {
        self.entries.push_back(entry);
        while self.entries.len() > len_max {
            self.entries.pop_front();
        }
    }

    /// The newest, at most `count`.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.entries.iter().rev().take(count).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &Words) -> Vec<String> {
        words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    #[test]
    fn words_are_cut_as_redis_cuts_them() {
        let long = vec![b'x'; 130];
        let words = Words::of(2, |at| if at == 0 { b"GET" } else { &long });
        assert_eq!(texts(&words), ["GET".to_owned(), "x".repeat(128) + "... (2 more bytes)"]);
        let many = Words::of(40, |_| b"k");
        assert_eq!(many.iter().count(), 32);
        assert_eq!(texts(&many)[31], "... (9 more arguments)");
        assert_eq!(Words::of(32, |_| b"k").iter().last(), Some(&b"k"[..]));
    }

    #[test]
    fn the_oldest_give_way() {
        let mut log = SlowLog::default();
        for id in 0..5 {
            let entry = SlowEntry {
                id,
                at_s: 0,
                micros: 1,
                words: Words::default(),
                addr: String::new(),
                name: Bytes::new(),
                stage: Stage::Run,
            };
            log.push(entry, 3);
        }
        assert_eq!(log.newest(2).iter().map(|entry| entry.id).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(log.newest(9).len(), 3);
    }
}

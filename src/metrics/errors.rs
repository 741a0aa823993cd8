//! Errors answered, by their kind: the first word of an error's text.

use crate::error::ClientError;
use std::collections::BTreeMap;

/// Kinds that are counted apart; Redis's bound. Ours are few: a handler cannot make one up from what a client
/// sends.
const KINDS_MAX: usize = 128;

/// How often each kind was answered.
#[derive(Clone, Debug, Default)]
pub struct ErrorCounts {
    kinds: BTreeMap<String, u64>,
    total: u64,
}

impl ErrorCounts {
    pub fn note(&mut self, error: &ClientError) {
        self.total += 1;
        let kind = error.0.split(' ').next().unwrap_or("");
        if let Some(count) = self.kinds.get_mut(kind) {
            *count += 1;
        } else if self.kinds.len() < KINDS_MAX {
            self.kinds.insert(kind.to_owned(), 1);
        }
    }

    /// Adds another core's.
    pub fn add(&mut self, other: &ErrorCounts) {
        self.total += other.total;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += count;
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// By name.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, u64)> {
        self.kinds.iter().map(|(kind, count)| (kind.as_str(), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_first_words_and_their_number_is_bounded() {
        let mut errors = ErrorCounts::default();
        errors.note(&ClientError::WRONG_TYPE);
        errors.note(&ClientError::SYNTAX);
        errors.note(&ClientError::NOT_INTEGER);
        assert_eq!(errors.kinds().collect::<Vec<_>>(), [("ERR", 2), ("WRONGTYPE", 1)]);
        (0..1000).for_each(|kind| errors.note(&ClientError::new(format!("KIND{kind} x"))));
        let mut sum = ErrorCounts::default();
        sum.add(&errors);
        assert_eq!((sum.total(), sum.kinds().count()), (1003, KINDS_MAX));
    }
}

//! Redis's patterns (`KEYS`, `SCAN MATCH`, `CONFIG GET`): `*`, `?`, classes and escapes over bytes.
//!
//! Follows Redis 7.0 to its oddities. Needs no stack and at worst |pattern| * |text| steps: with one part
//! between two stars placed as early as possible, no later place of it can do better.

/// Whether all of `text` matches. `ignore_case` folds ASCII letters.
///
/// As in Redis, no pattern but the empty one matches the empty text, not even `*`: whoever lets `*` stand
/// for everything must say so before.
pub fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    let (mut rest, mut at) = (pattern, 0);
    // What follows the last star seen, and where in the text that was last tried.
    let mut star: Option<(&[u8], usize)> = None;
    while at < text.len() {
        if let [b'*', ..] = rest {
            rest = without_stars(rest);
            if rest.is_empty() {
                return true;
            }
            star = Some((rest, at));
        }
        match one(rest, text[at], ignore_case) {
            Some(after) => {
                rest = after;
                at += 1;
            }
            None => {
                let Some((after_star, tried)) = star else { return false };
                (rest, at) = (after_star, tried + 1);
                star = Some((rest, at));
            }
        }
    }
    // Behind a star something is still to match here if the star has been moved to the end of the text.
    if text.is_empty() { rest.is_empty() } else { without_stars(rest).is_empty() }
}

fn without_stars(pattern: &[u8]) -> &[u8] {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    &pattern[stars..]
}

/// Matches one byte of text; what remains of the pattern. It does not begin with a star.
fn one(pattern: &[u8], byte: u8, ignore_case: bool) -> Option<&[u8]> {
    let same = |a: u8| if ignore_case { a.eq_ignore_ascii_case(&byte) } else { a == byte };
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', b'^', class @ ..] => {
            let (found, rest) = class_has(class, byte, ignore_case);
            (!found).then_some(rest)
        }
        [b'[', class @ ..] => {
            let (found, rest) = class_has(class, byte, ignore_case);
            found.then_some(rest)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => same(*literal).then_some(rest),
    }
}

/// Whether a class has this byte, and what follows its `]`; without one, it ends with the pattern.
fn class_has(mut class: &[u8], byte: u8, ignore_case: bool) -> (bool, &[u8]) {
    let lower = |byte: u8| if ignore_case { byte.to_ascii_lowercase() } else { byte };
    // C's `char` on x86: bytes from 0x80 on are less than the others.
    let signed = |byte: u8| lower(byte) as i8;
    let mut found = false;
    loop {
        class = match class {
            [] => return (found, class),
            [b']', rest @ ..] => return (found, rest),
            // Redis minds the case here, whatever it was told.
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [first, b'-', last, rest @ ..] => {
                // Ordered before their case is folded: `[a-Z]` ends up empty.
                let reversed = *first as i8 > *last as i8;
                let (low, high) = if reversed { (last, first) } else { (first, last) };
                found |= (signed(*low)..=signed(*high)).contains(&signed(byte));
                rest
            }
            [literal, rest @ ..] => {
                found |= lower(*literal) == lower(byte);
                rest
            }
        };
    }
}

/// Whether a name is wanted where a pattern may be given: all are without one.
pub fn allows(pattern: Option<&[u8]>, name: &[u8]) -> bool {
    pattern.is_none_or(|pattern| matches(pattern, name, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_redis_server_answers() {
        let cases: &[(&str, &str, bool)] = &[
            ("a*c", "abbc", true),
            ("a*c", "ab", false),
            ("**", "x", true),
            ("**", "", false),
            ("", "", true),
            ("", "a", false),
            ("a?", "a", false),
            ("[b-a]", "b", true),
            ("[^a]", "a", false),
            ("[^a]", "b", true),
            ("[^", "b", true),
            ("[", "b", false),
            ("[ab", "b", true),
            ("[a-]", "b", false),
            ("[a-]", "^", true),
            ("[]a]", "a]", false),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\", "\\", true),
            ("a*b*", "aXb", true),
            ("*a*", "bab", true),
            ("*ab", "aab", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), false), *expected, "{pattern} {text}");
        }
        assert!(matches(b"[\x80-a]", b"\x00", false), "bytes from 0x80 on are negative");
        assert!(!matches(b"[a-\xff]", b"z", false));
    }

    #[test]
    fn case_is_folded_where_redis_folds_it() {
        assert!(matches(b"AppendOnly", b"appendonly", true));
        assert!(matches(b"[A-C]x", b"bX", true));
        assert!(!matches(b"[\\A]", b"a", true));
        assert!(!matches(b"[a-Z]", b"k", true));
    }

    #[test]
    fn many_stars_take_little_time_and_no_stack() {
        let text = b"a".repeat(10_000);
        let pattern = [b"a*".repeat(1_000), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &text, false));
        assert!(!matches(&b"*?".repeat(1_000_000), &text, false));
    }

    /// The definition, tried in every way; for patterns of bytes, `?` and `*`.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            ([b'*', rest @ ..], text) => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
            ([b'?', rest @ ..], [_, text @ ..]) => by_definition(rest, text),
            ([p, rest @ ..], [t, text @ ..]) => p == t && by_definition(rest, text),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn stars_mean_what_they_should(pattern in "[ab?*]{0,8}", text in "[ab]{1,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text, false), by_definition(pattern, text));
        }

        #[test]
        fn nothing_panics(pattern: Vec<u8>, text: Vec<u8>, class in "[\\[\\]^\\\\a-]{0,8}", fold: bool) {
            matches(&pattern, &text, fold);
            matches(class.as_bytes(), &text, fold);
        }
    }
}

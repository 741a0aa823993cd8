//! The rules of the house that a compiler does not know: which room may use which, who may say `rocksdb`,
//! and what shipped code must not hold.

use std::fs;
use std::path::{Path, PathBuf};

/// A room uses what stands left of it, never right. `lib.rs` only lists them.
const ORDER: &[&str] = &[
    "slot",
    "limits",
    "clock",
    "error",
    "whole_file",
    "resp",
    "config",
    "metrics",
    "store",
    "types",
    "command",
    "runtime",
    "binlog",
    "shard",
    "replica",
    "cluster",
    "front",
    "conn",
    "adminport",
    "replicator",
    "server",
    "check",
    "capture",
    "tune",
    "top",
    "cli",
    "main",
];

/// Words that one room alone may say.
const FENCES: &[(&str, &str)] = &[("rocksdb", "store"), ("glommio", "runtime"), ("io_uring", "runtime")];

/// A source file: where it is below `src`, as written, and without comments, strings and test code.
struct Source {
    path: PathBuf,
    text: String,
    code: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, text: &str) -> Source {
        Source { path: path.into(), text: text.to_string(), code: without_tests(&code_only(text)) }
    }

    /// The module path: `shard/turn.rs` is `shard`, `turn`; `shard/mod.rs` is `shard`.
    fn modules(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let mut names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if names.last().is_some_and(|name| name == "mod") {
            names.pop();
        }
        names
    }

    fn room(&self) -> String {
        self.modules().swap_remove(0)
    }

    /// A whole file of tests has no `#[cfg(test)]` of its own.
    fn is_test(&self) -> bool {
        self.modules().iter().any(|name| name == "tests")
    }

    fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("src/{}:{}: {what}", self.path.display(), line + 1)
    }
}

/// The text with comments and the insides of strings and characters blanked; lines stay where they are.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = out.chars().next_back().is_some_and(is_word);
        let blank = comment_len(rest)
            .or_else(|| raw_string_len(rest).filter(|_| !after_word))
            .or_else(|| quoted_len(rest));
        let len = blank.unwrap_or(first.len_utf8());
        let piece = &rest[..len];
        match blank {
            Some(_) => out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => out.push_str(piece),
        }
        rest = &rest[len..];
    }
    out
}

fn comment_len(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0;
    for (at, _) in rest.char_indices() {
        if rest[at..].starts_with("/*") {
            depth += 1;
        } else if at > 0 && rest[at - 1..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return Some(at + 1);
            }
        }
    }
    Some(rest.len())
}

/// `r"…"`, `br#"…"#` and the like.
fn raw_string_len(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(rest.len() - inside.len() + len)
}

/// `"…"` or `'c'`; a lifetime is neither.
fn quoted_len(rest: &str) -> Option<usize> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return Some(at + 1);
        } else if quote == '\'' && at > 1 && !rest[1..].starts_with('\\') {
            return None;
        }
    }
    (quote == '"').then_some(rest.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Blanks what `#[cfg(test)]` governs.
fn without_tests(code: &str) -> String {
    let mut out = code.to_string();
    let mut from = 0;
    while let Some(found) = out[from..].find("#[cfg(test)]").map(|at| at + from) {
        let end = item_end(&out, found);
        let blank: String = out[found..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        from = found + blank.len();
        out.replace_range(found..end, &blank);
    }
    out
}

/// Where the item at `from` ends: after its block, or after the first `;` outside any bracket.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[from..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && c == '}' {
                    return from + at + 1;
                }
            }
            ';' if depth == 0 => return from + at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The words of a line, each with what follows it.
fn words(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let starts = line.char_indices().filter(|(at, c)| is_word(*c) && !line[..*at].ends_with(is_word));
    starts.map(|(at, _)| {
        let len = line[at..].find(|c| !is_word(c)).unwrap_or(line.len() - at);
        line[at..].split_at(len)
    })
}

/// The rooms that a file names: after `crate::`, inside `crate::{…}`, and by `super` up to the crate's root.
fn rooms_named(source: &Source) -> Vec<(usize, String)> {
    let depth = source.modules().len();
    let mut found = Vec::new();
    for (at, word) in
        source.code.char_indices().filter_map(|(at, _)| word_at(&source.code, at).map(|word| (at, word)))
    {
        let after = &source.code[at + word.len()..];
        let tail = match word {
            "crate" => after.strip_prefix("::"),
            "super" if !source.code[..at].ends_with("super::") => after_supers(after, depth),
            _ => None,
        };
        let Some(tail) = tail else { continue };
        let line = source.code[..at].matches('\n').count();
        found.extend(first_names(tail).into_iter().map(|name| (line, name)));
    }
    found
}

fn word_at(code: &str, at: usize) -> Option<&str> {
    let begins = code[at..].starts_with(is_word) && !code[..at].ends_with(is_word);
    let len = || code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at);
    begins.then(|| &code[at..at + len()])
}

/// What follows a `super`, if so many of them in a row reach the crate's root.
fn after_supers(mut after: &str, depth: usize) -> Option<&str> {
    let mut steps = 1;
    while let Some(next) = after.strip_prefix("::super") {
        after = next;
        steps += 1;
    }
    after.strip_prefix("::").filter(|_| steps >= depth)
}

/// `a::b` names `a`; `{a, b::{c, d}}` names `a` and `b`.
fn first_names(tail: &str) -> Vec<String> {
    let Some(group) = tail.trim_start().strip_prefix('{') else {
        return tail.split(|c| !is_word(c)).next().into_iter().map(str::to_string).collect();
    };
    let mut depth = 0;
    let mut names = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            c if depth == 0 && !c.is_whitespace() => names.last_mut().expect("never empty").push(c),
            _ => {}
        }
    }
    let first = |path: &String| path.split("::").next().unwrap_or_default().to_string();
    names.iter().map(first).filter(|name| !name.is_empty()).collect()
}

fn place(room: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == room)
}

fn check_direction(source: &Source) -> Vec<String> {
    let room = source.room();
    if room == "lib" || source.is_test() {
        return Vec::new();
    }
    let Some(own) = place(&room) else {
        return vec![source.complain(0, format!("the room {room} has no place in the order"))];
    };
    let mut complaints = Vec::new();
    for (line, name) in rooms_named(source) {
        // Names that are no rooms are items of lib.rs, such as macros.
        if place(&name).is_some_and(|place| place > own) {
            complaints.push(source.complain(line, format!("{room} uses {name}, which stands right of it")));
        }
    }
    complaints
}

fn check_fences(source: &Source) -> Vec<String> {
    let room = source.room();
    let code = code_only(&source.text);
    let mut complaints = Vec::new();
    for (at, line) in code.lines().enumerate() {
        for (word, _) in words(line) {
            if let Some((word, owner)) =
                FENCES.iter().find(|(fenced, owner)| *fenced == word && *owner != room)
            {
                complaints.push(source.complain(at, format!("only {owner} may say {word}")));
            }
        }
    }
    complaints
}

fn check_header(source: &Source) -> Vec<String> {
    match source.text.starts_with("//! ") {
        true => Vec::new(),
        false => vec![source.complain(0, "the file does not begin with //!")],
    }
}

fn check_unfinished(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        for (word, after) in words(line) {
            let macro_call = matches!(word, "todo" | "unimplemented" | "dbg") && after.starts_with('!');
            let unwrap = word == "unwrap" && after.starts_with("()");
            if macro_call || unwrap {
                complaints.push(source.complain(at, format!("{word} in shipped code")));
            }
        }
    }
    complaints
}

/// Lines of code that may stand between a SAFETY paragraph and the `unsafe` it speaks for.
const CODE_BETWEEN_MAX: usize = 2;

/// An `unsafe fn` states its conditions, as rustdoc has it; every other `unsafe` says why they hold.
fn check_unsafe(source: &Source) -> Vec<String> {
    let text: Vec<&str> = source.text.lines().collect();
    let code = code_only(&source.text);
    let mut complaints = Vec::new();
    for (at, line) in code.lines().enumerate() {
        for (_, after) in words(line).filter(|(word, _)| *word == "unsafe") {
            let declares = after.starts_with(" fn ") || after.starts_with(" trait ");
            let wanted = if declares { "# Safety" } else { "SAFETY:" };
            if !comment_above_says(&text[..at], wanted) {
                complaints.push(source.complain(at, format!("unsafe without {wanted} directly above")));
            }
        }
    }
    complaints
}

fn comment_above_says(above: &[&str], wanted: &str) -> bool {
    let mut between = 0;
    let mut in_comment = false;
    for line in above.iter().rev().map(|line| line.trim_start()) {
        if line.starts_with("//") {
            in_comment = true;
            if line.contains(wanted) {
                return true;
            }
        } else if line.starts_with("#[") && !in_comment {
            continue;
        } else {
            between += 1;
            if in_comment || line.is_empty() || between > CODE_BETWEEN_MAX {
                return false;
            }
        }
    }
    false
}

fn read_sources(dir: &Path, below: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("src is part of the project") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            read_sources(&path, below, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            found.push(Source::new(path.strip_prefix(below).expect("it was found below"), &text));
        }
    }
}

fn check_all(check: fn(&Source) -> Vec<String>) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    read_sources(&src, &src, &mut sources);
    assert!(!sources.is_empty());
    let complaints: Vec<String> = sources.iter().flat_map(check).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn rooms_use_only_what_stands_left_of_them() {
    check_all(check_direction);
}

#[test]
fn fenced_words_stay_in_their_rooms() {
    check_all(check_fences);
}

#[test]
fn files_say_what_they_are_for() {
    check_all(check_header);
}

#[test]
fn shipped_code_is_finished() {
    check_all(check_unfinished);
}

#[test]
fn every_unsafe_is_argued() {
    check_all(check_unsafe);
}

fn complaints(check: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    check(&Source::new(path, text)).len()
}

#[test]
fn a_wrong_direction_is_seen() {
    let wrong = |path, text| complaints(check_direction, path, text);
    assert_eq!(wrong("store/db.rs", "use crate::shard::Owner;"), 1);
    assert_eq!(wrong("store/db.rs", "fn f() { crate::shard::go() }"), 1);
    assert_eq!(wrong("store/db.rs", "use crate::{\n    slot::Slot,\n    front::{gate, conn},\n};"), 1);
    assert_eq!(wrong("store/db.rs", "use super::super::shard::Owner;"), 1);
    assert_eq!(wrong("store/mod.rs", "use super::shard::Owner;"), 1);
    assert_eq!(wrong("slot.rs", "use super::shard::Owner;"), 1);
    assert_eq!(wrong("strange.rs", ""), 1, "a room without a place");
    assert_eq!(
        wrong("shard/owner.rs", "use crate::store::row::Row; use crate::shard::line; use super::line;"),
        0
    );
    assert_eq!(wrong("store/db.rs", "// crate::shard\nconst S: &str = \"crate::shard::x\";"), 0);
    assert_eq!(wrong("store/db.rs", "#[cfg(test)]\nmod tests { use crate::shard::X; }"), 0);
    assert_eq!(wrong("store/db.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::shard::X;"), 1);
    assert_eq!(wrong("store/db.rs", "use super::shard;"), 0, "store::shard is its own");
}

#[test]
fn a_broken_fence_is_seen() {
    assert_eq!(complaints(check_fences, "shard/owner.rs", "use rocksdb::DB;"), 1);
    assert_eq!(complaints(check_fences, "conn/mod.rs", "glommio::yield_now(); io_uring::x();"), 2);
    assert_eq!(complaints(check_fences, "shard/owner.rs", "// rocksdb\nlet s = \"glommio\";"), 0);
    assert_eq!(complaints(check_fences, "store/db.rs", "use rocksdb::DB;"), 0);
    assert_eq!(complaints(check_fences, "store/db.rs", "use glommio::Task;"), 1);
}

#[test]
fn unfinished_code_is_seen() {
    let found = |text| complaints(check_unfinished, "slot.rs", text);
    assert_eq!(found("fn f() { todo!() }"), 1);
    assert_eq!(found("fn f() { unimplemented!(); dbg!(1); }"), 2);
    assert_eq!(found("fn f() { x.unwrap(); }"), 1);
    assert_eq!(found("fn f() { x.unwrap_or(1); x.expect(\"todo!\"); }"), 0);
    assert_eq!(found("#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }"), 0);
    assert_eq!(found("#[cfg(test)]\nuse a::b;\nfn f() { x.unwrap(); }"), 1);
    assert_eq!(complaints(check_unfinished, "store/tests.rs", "fn f() { x.unwrap(); }"), 0);
    assert_eq!(complaints(check_header, "slot.rs", "use a;"), 1);
    assert_eq!(complaints(check_header, "slot.rs", "//! Slots."), 0);
}

#[test]
fn an_unargued_unsafe_is_seen() {
    let found = |text| complaints(check_unsafe, "slot.rs", text);
    assert_eq!(found("fn f() {\n    unsafe { g() }\n}"), 1);
    assert_eq!(found("// SAFETY: g has no conditions.\nunsafe { g() }"), 0);
    assert_eq!(found("// SAFETY: long\n// paragraph.\nlet x =\n    unsafe { g() };"), 0);
    assert_eq!(found("/// # Safety\n/// Never twice.\nunsafe fn f() {}"), 0);
    assert_eq!(found("/// Does it.\nunsafe fn f() {}"), 1);
    assert_eq!(found("// SAFETY: far away.\nfn f() {\n    a();\n    b();\n    unsafe { g() }\n}"), 1);
    assert_eq!(found("// SAFETY: cut off.\n\nunsafe { g() }"), 1);
    assert_eq!(found("#![deny(unsafe_code)]\n// unsafe\nlet s = \"unsafe\";"), 0);
}

#[test]
fn code_is_told_from_text() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"a\\\"b\", 'x', '\\'')", "f(      ,    ,     )"),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("r#\"a\"b\"# c", "         c"),
        ("var\"x\"", "var   "),
    ] {
        assert_eq!(code_only(text), code, "{text}");
    }
}

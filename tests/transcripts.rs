//! Runs the dialogues in transcripts/*.txt (their form: transcripts/README.md) against haypile with 1, 2
//! and 4 shards, and against redis-server, which keeps the expectations honest.

mod harness;

use harness::{Client, Options, Server, Value, installed, render, split_line};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One line of a dialogue that the server takes part in.
enum Step {
    /// A command with the lines redis-cli would print for its reply.
    Command {
        line_number: usize,
        order: Order,
        command: String,
        expected: Vec<String>,
    },
    Wait(Duration),
}

/// Which order of a reply's entries is right.
#[derive(Clone, Copy)]
enum Order {
    /// `> `: the one that is written.
    Written,
    /// `>~ `, `>% `: any, of groups of that many entries of the outermost array.
    AnyOfGroups(usize),
}

/// Steps that run one after another, the first of them on an empty server.
type Case = Vec<Step>;

fn parse(text: &str) -> Result<Vec<Case>, String> {
    let mut cases = vec![Case::new()];
    // A comment ends a reply; the next line that is none of the marked ones would belong to nothing.
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let case = cases.last_mut().expect("never empty");
        let line_number = at + 1;
        if line.starts_with('#') {
            open = false;
        } else if line.trim().is_empty() {
            open = false;
            if !case.is_empty() {
                cases.push(Case::new());
            }
        } else if let Some(wait) = line.strip_prefix("! ") {
            open = false;
            case.push(Step::Wait(parse_wait(wait).ok_or_else(|| format!("line {line_number}: {line}"))?));
        } else if let Some((order, command)) = parse_command(line) {
            open = true;
            let command = command.to_string();
            case.push(Step::Command { line_number, order, command, expected: Vec::new() });
        } else {
            match case.last_mut() {
                Some(Step::Command { expected, .. }) if open => expected.push(line.trim_end().to_string()),
                _ => return Err(format!("line {line_number}: a reply without a command")),
            }
        }
    }
    for step in cases.iter().flatten() {
        if let Step::Command { line_number, expected, .. } = step
            && expected.is_empty()
        {
            return Err(format!("line {line_number}: a command without a reply"));
        }
    }
    Ok(cases)
}

fn parse_command(line: &str) -> Option<(Order, &str)> {
    let (mark, command) = line.split_once(' ')?;
    let order = match mark {
        ">" => Order::Written,
        ">~" => Order::AnyOfGroups(1),
        ">%" => Order::AnyOfGroups(2),
        _ => return None,
    };
    Some((order, command))
}

fn parse_wait(text: &str) -> Option<Duration> {
    let ms = text.strip_prefix("wait ")?.strip_suffix(" ms")?;
    ms.parse().ok().map(Duration::from_millis)
}

/// What differs, each with the line it stands on.
fn run_case(client: &mut Client, case: &Case) -> Vec<String> {
    assert_eq!(client.ask("SELECT 0"), Value::ok());
    assert_eq!(client.ask("FLUSHALL"), Value::ok());
    let mut failures = Vec::new();
    for step in case {
        let (line_number, order, command, expected) = match step {
            Step::Command { line_number, order, command, expected } => {
                (line_number, order, command, expected)
            }
            Step::Wait(wait) => {
                std::thread::sleep(*wait);
                continue;
            }
        };
        let Some(args) = split_line(command) else {
            failures.push(format!("line {line_number}: unbalanced quotes: {command}"));
            continue;
        };
        let reply = render(&client.must(&args));
        if !agrees(&reply, expected, *order) {
            let expected = expected.join("\n");
            failures.push(format!(
                "line {line_number}: {}\nexpected: {}\n   reply: {}",
                shortened(command),
                shortened(&expected),
                shortened(&reply)
            ));
        }
    }
    failures
}

/// Line by line; trailing blanks do not count, since an editor may remove them.
fn agrees(reply: &str, expected: &[String], order: Order) -> bool {
    let reply: Vec<&str> = reply.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    match order {
        Order::Written => lines_agree(&reply, &expected),
        Order::AnyOfGroups(len) => groups_agree(groups(&reply, len), groups(&expected, len)),
    }
}

fn lines_agree(reply: &[&str], expected: &[&str]) -> bool {
    reply.len() == expected.len() && reply.iter().zip(expected).all(|(reply, line)| line_agrees(reply, line))
}

/// Every expected group takes the first one left that agrees: patterns of one reply must not overlap.
fn groups_agree(mut replies: Vec<Vec<&str>>, expected: Vec<Vec<&str>>) -> bool {
    replies.len() == expected.len()
        && expected.iter().all(|group| {
            let at = replies.iter().position(|reply| lines_agree(reply, group));
            at.map(|at| replies.swap_remove(at)).is_some()
        })
}

/// The lines of an array's entries without their numbers, so many entries together. What is no array is
/// one group.
fn groups<'a>(lines: &[&'a str], len: usize) -> Vec<Vec<&'a str>> {
    let column = match lines.first().map(|line| line.trim_start()) {
        Some(first) if first.starts_with("1) ") => lines[0].len() - first.len() + "1) ".len(),
        _ => return vec![lines.to_vec()],
    };
    let mut entries: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        let (number, text) = line.split_at_checked(column).unwrap_or((line, ""));
        match entries.last_mut().filter(|_| number.trim().is_empty()) {
            Some(entry) => entry.push(text),
            None => entries.push(vec![text]),
        }
    }
    entries.chunks(len).map(<[_]>::concat).collect()
}

fn line_agrees(reply: &str, expected: &str) -> bool {
    if reply == expected {
        return true;
    }
    let pattern = ["(integer) ", "(string of ", "(any string)"].iter().find_map(|mark| expected.rfind(mark));
    let Some(at) =
        pattern.filter(|at| reply.is_char_boundary(*at) && reply.get(..*at) == expected.get(..*at))
    else {
        return false;
    };
    let (reply, pattern) = (&reply[at..], &expected[at..]);
    integer_in_range(reply, pattern)
        .or_else(|| string_of_length(reply, pattern))
        .unwrap_or(pattern == "(any string)" && reply.starts_with('"'))
}

fn integer_in_range(reply: &str, pattern: &str) -> Option<bool> {
    let (low, high) = pattern.strip_prefix("(integer) ")?.split_once("..")?;
    let n: i64 = reply.strip_prefix("(integer) ")?.parse().ok()?;
    Some((low.parse().ok()?..=high.parse().ok()?).contains(&n))
}

fn string_of_length(reply: &str, pattern: &str) -> Option<bool> {
    let len: usize = pattern.strip_prefix("(string of ")?.strip_suffix(" bytes)")?.parse().ok()?;
    let words = split_line(reply)?;
    Some(reply.starts_with('"') && words.len() == 1 && words[0].len() == len)
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 400;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}... ({} bytes)", &text[..at], text.len()),
        None => text.to_string(),
    }
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let entries = fs::read_dir(&dir).expect("tests/transcripts is part of the project");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    // TRANSCRIPT=zset runs those whose names begin so, while one works on them.
    if let Ok(wanted) = std::env::var("TRANSCRIPT") {
        files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&wanted)));
    }
    files.sort();
    assert!(!files.is_empty(), "no transcripts in {}", dir.display());
    files
}

fn run_all(options: Options) {
    // A value may take an eighth of the budget; some of these are as long as Redis allows.
    let options = options.memory_budget("4GiB");
    let server = Server::start(options);
    let mut client = server.client();
    let mut failures = Vec::new();
    let mut steps = 0;
    for file in files() {
        let text = fs::read_to_string(&file).expect("a transcript is UTF-8 text");
        let cases = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for case in &cases {
            steps += case.len();
            let name = file.file_name().expect("it is a file").to_string_lossy();
            failures.extend(run_case(&mut client, case).into_iter().map(|text| format!("{name} {text}")));
        }
    }
    assert!(failures.is_empty(), "{} of {steps} replies differ:\n{}", failures.len(), failures.join("\n\n"));
    println!("{steps} replies agree on {:?}", server.options.program);
}

#[test]
fn transcripts_hold_on_one_shard() {
    run_all(Options::shards(1));
}

#[test]
fn transcripts_hold_on_two_shards() {
    run_all(Options::shards(2));
}

#[test]
fn transcripts_hold_on_four_shards() {
    run_all(Options::shards(4));
}

#[test]
fn transcripts_hold_on_redis() {
    if !installed("redis-server") {
        return eprintln!("redis-server is not installed: nothing to compare with");
    }
    run_all(Options::redis());
}

#[test]
fn cases_are_split_at_blank_lines() {
    let cases =
        parse("# about\n> SET k \"a b\"\nOK\n! wait 60 ms\n\n\n# next\n> MGET k l\n1) (nil)\n2) (nil)\n");
    let cases = cases.expect("well-formed");
    assert_eq!(cases.len(), 2);
    assert!(matches!(cases[0][1], Step::Wait(wait) if wait.as_millis() == 60));
    let Step::Command { line_number, command, expected, .. } = &cases[1][0] else { panic!("a command") };
    assert_eq!((*line_number, command.as_str(), expected.len()), (8, "MGET k l", 2));
    for wrong in [
        "> GET k\n\n> GET k\n(nil)\n",
        "(nil)\n",
        "> GET k\n(nil)\n# remark\n(nil)\n",
        "! wait long\n",
        ">! GET k\n(nil)\n",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| line.to_string()).collect()
}

#[test]
fn a_wrong_reply_is_seen() {
    let agrees = |reply: &str, expected: &[&str]| agrees(reply, &owned(expected), Order::Written);
    assert!(agrees("1) \"a\"\n2) (nil)", &["1) \"a\"", "2) (nil)"]));
    assert!(!agrees("1) \"a\"", &["1) \"a\"", "2) (nil)"]));
    assert!(!agrees("(integer) 1", &["(integer) 2"]));
    assert!(agrees("(integer) 99", &["(integer) 99..100"]));
    assert!(!agrees("(integer) 98", &["(integer) 99..100"]));
    assert!(!agrees("\"99\"", &["(integer) 99..100"]));
    assert!(agrees("2) (integer) -5", &["2) (integer) -6..-5"]));
    assert!(!agrees("1) (integer) -5", &["2) (integer) -6..-5"]));
    assert!(agrees("\"a b\\x00\"", &["(string of 4 bytes)"]));
    assert!(!agrees("\"abc\"", &["(string of 4 bytes)"]));
    assert!(!agrees("(nil)", &["(string of 5 bytes)"]));
    assert!(agrees("1) \"a b\"", &["1) (any string)"]));
    assert!(!agrees("1) (nil)", &["1) (any string)"]));
}

#[test]
fn entries_and_pairs_may_come_in_any_order() {
    let agrees = |mark: &str, reply: &str, expected: &[&str]| {
        let line = format!("{mark} X");
        let (order, _) = parse_command(&line).expect("a mark of the format");
        agrees(reply, &owned(expected), order)
    };
    let reply = "1) \"b\"\n2) \"1\"\n3) \"a\"\n4) \"2\"";
    assert!(!agrees(">", reply, &["1) \"a\"", "2) \"2\"", "3) \"b\"", "4) \"1\""]));
    assert!(agrees(">%", reply, &["1) \"a\"", "2) \"2\"", "3) \"b\"", "4) \"1\""]));
    assert!(!agrees(">%", reply, &["1) \"a\"", "2) \"1\"", "3) \"b\"", "4) \"2\""]));
    assert!(agrees(">~", reply, &["1) \"1\"", "2) \"2\"", "3) \"a\"", "4) \"b\""]));
    assert!(!agrees(">~", reply, &["1) \"1\"", "2) \"1\"", "3) \"a\"", "4) \"b\""]));
    assert!(!agrees(">~", reply, &["1) \"1\"", "2) \"2\"", "3) \"a\""]));
    let nested = "1) 1) \"b\"\n   2) \"c\"\n2) \"a\"";
    assert!(agrees(">~", nested, &["1) \"a\"", "2) 1) \"b\"", "   2) \"c\""]));
    assert!(!agrees(">~", nested, &["1) \"a\"", "2) 1) \"c\"", "   2) \"b\""]));
    let eleven = |first: &str, last: &str| {
        let between = (2..11).map(|n| format!("{n:>2}) \"{n}\"\n")).collect::<String>();
        format!(" 1) {first}\n{between}11) {last}")
    };
    let (reply, expected) = (eleven("\"x\"", "(nil)"), eleven("(nil)", "\"x\""));
    assert!(agrees(">~", &reply, &expected.lines().collect::<Vec<_>>()));
    assert!(!agrees(">~", &eleven("(nil)", "(nil)"), &expected.lines().collect::<Vec<_>>()));
    assert!(agrees(">~", "(empty array)", &["(empty array)"]));
    assert!(!agrees(">~", "(nil)", &["(empty array)"]));
    assert!(!agrees(">%", "(error) ERR x", &["(error) ERR y"]));
}

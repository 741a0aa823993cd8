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
        command: String,
        expected: Vec<String>,
    },
    Wait(Duration),
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
        } else if let Some(command) = line.strip_prefix("> ") {
            open = true;
            case.push(Step::Command { line_number, command: command.to_string(), expected: Vec::new() });
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
        let (line_number, command, expected) = match step {
            Step::Command { line_number, command, expected } => (line_number, command, expected),
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
        if !agrees(&reply, expected) {
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
fn agrees(reply: &str, expected: &[String]) -> bool {
    reply.lines().count() == expected.len()
        && reply.lines().zip(expected).all(|(reply, expected)| line_agrees(reply.trim_end(), expected))
}

fn line_agrees(reply: &str, expected: &str) -> bool {
    if reply == expected {
        return true;
    }
    let pattern = expected.rfind("(integer) ").or_else(|| expected.rfind("(string of "));
    let Some(at) =
        pattern.filter(|at| reply.is_char_boundary(*at) && reply.get(..*at) == expected.get(..*at))
    else {
        return false;
    };
    let (reply, pattern) = (&reply[at..], &expected[at..]);
    integer_in_range(reply, pattern).or_else(|| string_of_length(reply, pattern)).unwrap_or(false)
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
    let Step::Command { line_number, command, expected } = &cases[1][0] else { panic!("it is a command") };
    assert_eq!((*line_number, command.as_str(), expected.len()), (8, "MGET k l", 2));
    for wrong in
        ["> GET k\n\n> GET k\n(nil)\n", "(nil)\n", "> GET k\n(nil)\n# remark\n(nil)\n", "! wait long\n"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_wrong_reply_is_seen() {
    let agrees = |reply: &str, expected: &[&str]| {
        agrees(reply, &expected.iter().map(|line| line.to_string()).collect::<Vec<_>>())
    };
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
}

//! Files and streams made by hand, in pieces of every size, damaged and whole.

use super::commands::{Asked, Commands, Input, Place};
use super::rdb::{self, Flaw, Tokenizer};
use super::stream::{Event, Failure, Login, Machine};
use super::{Resume, rdb::Event as Told};
use crate::types::dump::{self, CRC64, HashField, Value};
use proptest::prelude::*;

const MAX_BYTES: u64 = 1 << 20;
const MARK: &[u8; 40] = b"0123456789abcdef0123456789abcdef01234567";

/// A file of version 10 with these entries.
fn file(entries: &[&[u8]]) -> Vec<u8> {
    let mut file = [&b"REDIS0010"[..], &entries.concat(), b"\xff"].concat();
    let checksum = CRC64.checksum(&file);
    file.extend_from_slice(&checksum.to_le_bytes());
    file
}

fn entry(name: &[u8], value: &Value) -> Vec<u8> {
    let payload = dump::encode(value);
    let content = &payload[..payload.len() - 10];
    [&content[..1], &[name.len() as u8], name, &content[1..]].concat()
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn hash() -> Value {
    let field = |number: u32| HashField {
        field: format!("field:{number}").into_bytes(),
        value: vec![b'v'; 70],
        expire_ms: None,
    };
    Value::Hash((0..20).map(field).collect())
}

/// Three databases, every kind of entry, and an expiry of each unit.
fn sample() -> Vec<u8> {
    file(&[
        b"\xfa\x09redis-ver\x067.0.15\xfa\x0erepl-stream-db\xc0\x09",
        b"\xf5\x0clibrary code",
        b"\xfe\0\xfb\x02\x01",
        &entry(b"plain", &text("value")),
        b"\xfc\x10\x27\0\0\0\0\0\0\xf8\x05",
        &entry(b"ms", &hash()),
        b"\xfe\x40\xff\xf4\x01\x02\x03\xfd\x05\0\0\0\xf9\x07",
        &entry(b"seconds", &text("")),
        b"\xfc\xff\xff\xff\xff\xff\xff\xff\xff",
        &entry(b"long ago", &text("x")),
        // A name of an integer's form.
        b"\0\xc1\x39\x30\x01x",
    ])
}

type KeyHeld = (u32, Vec<u8>, Option<u64>, Vec<u8>);

fn take_key(key: rdb::Key<'_>) -> KeyHeld {
    assert_eq!(key.payload.len(), key.payload.pieces().concat().len());
    (key.db, key.name.to_vec(), key.expire_ms, key.payload.pieces().concat())
}

type Tokens = (Vec<Told>, Vec<KeyHeld>, Vec<u8>);

/// What a file holds when it comes in pieces of these sizes, and what stands behind it.
fn tokens(mut file: &[u8], mut sizes: impl FnMut() -> usize) -> Result<Tokens, rdb::Error> {
    let mut tokenizer = Tokenizer::new(MAX_BYTES);
    let (mut events, mut keys) = (Vec::new(), Vec::new());
    while !file.is_empty() {
        let (piece, rest) = file.split_at(sizes().clamp(1, file.len()));
        file = rest;
        tokenizer.feed(piece);
        while let Some(event) = tokenizer.advance()? {
            if event == Told::Key {
                keys.push(take_key(tokenizer.key()));
            }
            events.push(event);
        }
    }
    Ok((events, keys, tokenizer.into_rest()))
}

fn sample_keys() -> Vec<KeyHeld> {
    let payload = |value: &Value| {
        let payload = dump::encode(value);
        let content = &payload[..payload.len() - 10];
        [content, &dump::footer(&[content], 10)].concat()
    };
    vec![
        (0, b"plain".to_vec(), None, payload(&text("value"))),
        (0, b"ms".to_vec(), Some(10_000), payload(&hash())),
        (255, b"seconds".to_vec(), Some(5_000), payload(&text(""))),
        (255, b"long ago".to_vec(), Some(1), payload(&text("x"))),
        (255, b"12345".to_vec(), None, payload(&text("x"))),
    ]
}

fn flaw(file: &[u8]) -> Flaw {
    tokens(file, || 7).expect_err("it is damaged").what
}

#[test]
fn a_file_is_cut_into_payloads_that_restore_takes() {
    let (events, keys, rest) = tokens(&[&sample()[..], b"behind"].concat(), || usize::MAX).unwrap();
    assert_eq!(keys, sample_keys());
    assert_eq!(rest, b"behind");
    assert!(keys.iter().all(|(.., payload)| dump::decode(payload, MAX_BYTES).is_ok()));
    let aux = |name: &str, value: &str| Told::Aux { name: name.into(), value: value.into() };
    let before = [Told::Begin { version: 10 }, aux("redis-ver", "7.0.15"), aux("repl-stream-db", "9")];
    assert_eq!(events[..4], [&before[..], &[Told::Function]].concat());
    assert_eq!(events[4..], [vec![Told::Key; 5], vec![Told::End]].concat());
}

#[test]
fn what_cannot_be_taken_is_named() {
    assert_eq!(flaw(b"VALKEY080..."), Flaw::Magic("VALKEY080".into()));
    assert_eq!(flaw(b"REDIS0013\xff\0\0\0\0\0\0\0\0"), Flaw::Version("0013".into()));
    assert_eq!(flaw(b"REDIS0005\xff"), Flaw::Version("0005".into()));
    assert_eq!(flaw(&file(&[b"\xf3\0"])), Flaw::Kind { key: String::new(), kind: 0xf3 });
    assert_eq!(flaw(&file(&[b"\xf6\0"])), Flaw::Code(0xf6));
    assert_eq!(flaw(&file(&[b"\x08\x01k\0"])), Flaw::Kind { key: "k".into(), kind: 8 });
    let module = "ReJSON-RL".to_string();
    let characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = |character| characters.find(character).expect("a character of names") as u64;
    let id = module.chars().fold(0, |id, character| id << 6 | place(character)) << 10 | 3;
    let id = [&[0x81][..], &id.to_be_bytes()].concat();
    let value = Flaw::ModuleValue { key: "k".into(), module: module.clone() };
    assert_eq!(flaw(&file(&[b"\x07\x01k", &id, b"\0"])), value);
    assert_eq!(flaw(&file(&[b"\xf7", &id])), Flaw::ModuleData(module));
    let mut damaged = sample();
    damaged[40] ^= 1;
    assert!(matches!(flaw(&damaged), Flaw::Checksum | Flaw::Content));
    let end = damaged.len() - 8;
    damaged[end..].fill(0);
    assert!(tokens(&damaged, || 100).is_ok(), "no checksum is given");
}

#[test]
fn a_length_that_promises_much_is_refused_before_it_comes() {
    let mut tokenizer = Tokenizer::new(1000);
    tokenizer.feed(b"REDIS0010\0\x03key\x80\0\0\x03\xe4");
    assert_eq!(tokenizer.advance().unwrap(), Some(Told::Begin { version: 10 }));
    assert_eq!(tokenizer.advance().unwrap_err().what, Flaw::ValueTooLong { key: "key".into(), max: 1000 });
    let mut tokenizer = Tokenizer::new(1000);
    tokenizer.feed(b"REDIS0010\0\x81\xff\xff\xff\xff\xff\xff\xff\xff");
    tokenizer.advance().unwrap();
    assert_eq!(tokenizer.advance().unwrap_err().what, Flaw::TooLong(1000));
}

proptest! {
    #[test]
    fn a_file_may_come_in_pieces_of_any_size(sizes in prop::collection::vec(1..40_usize, 1..20)) {
        let mut sizes = sizes.iter().cycle();
        let (events, keys, _) = tokens(&sample(), || *sizes.next().expect("a cycle")).unwrap();
        prop_assert_eq!(keys, sample_keys());
        prop_assert_eq!(events.last(), Some(&Told::End));
    }

    #[test]
    fn no_file_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1..30_usize) {
        let _either = tokens(&[b"REDIS0010", &bytes[..]].concat(), || size);
    }

    #[test]
    fn no_damage_panics(at in 9..400_usize, bit in 0..8, size in 1..30_usize) {
        let mut file = sample();
        let at = at % file.len();
        file[at] ^= 1_u8 << bit;
        let _either = tokens(&file, || size);
    }

    #[test]
    fn no_stream_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), lines in 0..6_usize) {
        let (mut machine, mut out) = machine(None, None);
        machine.received(&b"+OK\r\n+OK\r\n+OK\r\n+FULLRESYNC x 1\r\n$90\r\n"[..lines * 7]);
        machine.received(&bytes);
        while let Ok(Some(_)) = machine.advance(&mut out) {}
    }
}

fn machine(password: Option<&str>, resume: Option<Resume>) -> (Machine, Vec<u8>) {
    let mut out = Vec::new();
    let login = Login {
        user: password.map(|_| "reader".to_string()),
        password: password.map(str::to_string),
        listening_port: 9221,
        value_max_bytes: MAX_BYTES,
        silence_max_s: 60,
    };
    (Machine::new(login, resume, &mut out), out)
}

/// A command as it goes over the wire.
fn wire(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let word = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    format!("*{}\r\n{}", words.len(), words.iter().map(word).collect::<String>()).into_bytes()
}

#[track_caller]
fn asks(machine: &mut Machine, received: &[u8], line: &str) {
    let mut out = Vec::new();
    machine.received(received);
    assert_eq!(machine.advance(&mut out).unwrap(), None);
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&wire(line)));
}

/// The events that these bytes lead to, until a command that the machine still has.
fn events(machine: &mut Machine, bytes: &[u8]) -> Vec<Event> {
    let (mut out, mut events) = (Vec::new(), Vec::new());
    machine.received(bytes);
    while events.last() != Some(&Event::Command)
        && let Some(event) = machine.advance(&mut out).unwrap()
    {
        events.push(event);
    }
    events
}

fn greeted(resume: Option<Resume>) -> Machine {
    let (mut machine, out) = machine(None, resume);
    assert_eq!(out, wire("PING"));
    asks(&mut machine, b"+PONG\r\n", "REPLCONF listening-port 9221");
    asks(&mut machine, b"+OK\r\n", "REPLCONF capa eof capa psync2");
    machine
}

fn resume(offset: u64) -> Resume {
    Resume { replid: "old".into(), place: Place { offset, db: 3 }, done_behind: 0 }
}

#[test]
fn a_primary_is_greeted_and_asked_for_everything() {
    let (mut machine, _) = machine(Some("secret"), None);
    asks(&mut machine, b"-NOAUTH Authentication required.\r\n", "AUTH reader secret");
    asks(&mut machine, b"+OK\r\n", "REPLCONF listening-port 9221");
    asks(&mut machine, b"-ERR Unrecognized REPLCONF option\r\n", "REPLCONF capa eof capa psync2");
    asks(&mut machine, b"+OK\r\n", "PSYNC ? -1");
}

#[test]
fn a_primary_that_wants_another_password_or_time_is_left() {
    let mut out = Vec::new();
    let mut ends = |password: Option<&str>, lines: &[u8]| {
        let (mut machine, _) = machine(password, None);
        machine.received(lines);
        machine.advance(&mut out).expect_err("it ends").to_string()
    };
    assert!(ends(None, b"-NOAUTH Authentication required.\r\n").contains("another user or password"));
    assert!(ends(Some("x"), b"+PONG\r\n-WRONGPASS invalid\r\n").contains("another user or password"));
    assert!(ends(None, b"-LOADING it starts\r\n").contains("PING with: -LOADING"));
    assert!(
        ends(None, b"+PONG\r\n+OK\r\n+OK\r\n\n-NOMASTERLINK no\r\n").contains("PSYNC with: -NOMASTERLINK")
    );
    assert!(ends(None, b"+PONG\r\n+OK\r\n+OK\r\n+CONTINUE\r\n").contains("PSYNC with"));
    assert!(ends(None, b"+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC a 1\r\n-ERR no\r\n").contains("PSYNC with"));
}

#[test]
fn a_copy_of_known_length_leads_into_the_stream() {
    let mut machine = greeted(None);
    asks(&mut machine, b"+OK\r\n", "PSYNC ? -1");
    let file = sample();
    let begin = format!("\n\n+FULLRESYNC abc 1000\r\n\n\n${}\r\n", file.len());
    let mut bytes = [begin.as_bytes(), &file].concat();
    bytes.extend_from_slice(&wire("SET a b"));
    let mut all = Vec::new();
    for piece in bytes.chunks(5) {
        all.extend(events(&mut machine, piece));
    }
    let keys = [Event::Key; 5];
    let stream = [Event::Stream { resumed: false }, Event::Command];
    assert_eq!(all, [&[Event::Copy, Event::Function], &keys[..], &stream].concat());
    assert_eq!(machine.replid(), "abc");
    // The database in which the stream begins is told by the copy.
    let end = Place { offset: 1000 + wire("SET a b").len() as u64, db: 9 };
    assert_eq!((machine.command().db, machine.command().end), (9, Some(end)));
    assert_eq!(machine.command().bytes, wire("SET a b"));
}

#[test]
fn a_copy_of_unknown_length_ends_with_its_mark() {
    let copy = |mark: &[u8]| {
        let mut machine = greeted(None);
        machine.received(&[b"+OK\r\n+FULLRESYNC abc 7\r\n$EOF:", &MARK[..], b"\r\n"].concat());
        machine.received(&[&sample()[..], mark, &wire("PING"), &wire("DEL a")].concat());
        let (mut out, mut all) = (Vec::new(), Vec::new());
        while all.last() != Some(&Event::Command) {
            all.push(machine.advance(&mut out)?.expect("there is more"));
        }
        Ok((all, machine))
    };
    let (all, machine) = copy(MARK).unwrap();
    assert_eq!(all[all.len() - 2..], [Event::Stream { resumed: false }, Event::Command]);
    assert_eq!(machine.command().bytes, wire("DEL a"));
    assert!(matches!(copy(&[b'x'; 40]), Err(Failure::RdbEnd)));
}

#[test]
fn a_copy_that_is_longer_or_shorter_than_it_said_is_refused() {
    for off in [-1, 1] {
        let mut machine = greeted(None);
        let length = sample().len() as i64 + off;
        machine.received(format!("+OK\r\n+FULLRESYNC abc 7\r\n${length}\r\n").as_bytes());
        machine.received(&[&sample()[..], b"xx"].concat());
        let mut out = Vec::new();
        let end = loop {
            match machine.advance(&mut out) {
                Ok(event) => assert!(event.is_some(), "{off}"),
                Err(failure) => break failure,
            }
        };
        assert!(matches!(end, Failure::RdbEnd), "{off}: {end}");
    }
}

#[test]
fn a_stream_goes_on_where_it_was() {
    let mut machine = greeted(Some(resume(41)));
    asks(&mut machine, b"+OK\r\n", "PSYNC old 42");
    let bytes = [&b"+CONTINUE new\r\n"[..], &wire("SET a b")].concat();
    assert_eq!(events(&mut machine, &bytes), [Event::Stream { resumed: true }, Event::Command]);
    assert_eq!((machine.replid(), machine.command().db), ("new", 3));
    let mut machine = greeted(Some(resume(41)));
    assert_eq!(events(&mut machine, b"+OK\r\n+CONTINUE\r\n"), [Event::Stream { resumed: true }]);
    assert_eq!(machine.replid(), "old");
}

#[test]
fn the_primary_hears_of_us_every_second_and_is_left_after_a_minute() {
    let mut machine = greeted(Some(resume(41)));
    let mut out = Vec::new();
    machine.second(None, true, &mut out).unwrap();
    assert_eq!(out, b"");
    machine.received(b"+OK\r\n+CONTINUE\r\n");
    machine.advance(&mut out).unwrap();
    out.clear();
    machine.second(None, true, &mut out).unwrap();
    assert_eq!(out, b"\n");
    out.clear();
    machine.second(Some(41), true, &mut out).unwrap();
    assert_eq!(out, wire("REPLCONF ACK 41"));
    machine.received(b"\n");
    for _ in 0..59 {
        machine.second(Some(41), true, &mut out).unwrap();
    }
    assert!(matches!(machine.second(Some(41), true, &mut out), Err(Failure::Silent)));
    machine.second(Some(41), false, &mut out).unwrap();
}

type CommandHeld = (String, u32, Option<u64>);

/// What a stream from offset 0 asks for: a command's words and database and the offset behind it.
fn asked(lines: &[&str]) -> (Vec<CommandHeld>, Option<Place>) {
    let mut input = Input::default();
    let mut commands = Commands::new(Place { offset: 0, db: 0 }, MAX_BYTES);
    let mut asked = Vec::new();
    for byte in lines.iter().flat_map(|line| wire(line)) {
        input.push(&[byte]);
        while let Some(what) = commands.advance(&mut input).unwrap() {
            asked.push(match what {
                Asked::Acknowledge { after } => ("GETACK".into(), 0, Some(after)),
                Asked::Command => {
                    let command = commands.command(&input);
                    let words = lines.iter().find(|line| wire(line) == command.bytes).expect("it was sent");
                    assert!(words.starts_with(command.name));
                    (words.to_string(), command.db, command.end.map(|end| end.offset))
                }
            });
        }
    }
    (asked, commands.handed())
}

#[test]
fn commands_come_with_their_database_and_the_offset_behind_them() {
    let lines = ["PING", "select 2", "SET a 1", "REPLCONF GETACK *", "SELECT 0", "Set b 2", "ping"];
    let ends: Vec<u64> = lines
        .iter()
        .scan(0, |end, line| {
            *end += wire(line).len() as u64;
            Some(*end)
        })
        .collect();
    let (asked, handed) = asked(&lines);
    let expected = [("SET a 1", 2, ends[2]), ("GETACK", 0, ends[2]), ("Set b 2", 0, ends[5])];
    assert_eq!(asked, expected.map(|(words, db, end)| (words.to_string(), db, Some(end))));
    assert_eq!(handed, Some(Place { offset: ends[6], db: 0 }));
}

#[test]
fn a_transaction_comes_when_it_is_whole_and_cannot_be_left_within() {
    let begun = ["SET before 1", "MULTI", "SET a 1", "SELECT 4", "INCR b"];
    let (commands, handed) = asked(&begun);
    assert_eq!(commands.len(), 1);
    let before = wire(begun[0]).len() as u64;
    assert_eq!(handed, Some(Place { offset: before, db: 0 }));
    let whole = [&begun[..], &["EXEC", "MULTI", "EXEC"]].concat();
    let end = |lines: &[&str]| lines.iter().map(|line| wire(line).len() as u64).sum::<u64>();
    let (commands, handed) = asked(&whole);
    let inside = [("SET a 1", 0, None), ("INCR b", 4, Some(end(&whole[..6])))];
    assert_eq!(commands[1..], inside.map(|(words, db, end)| (words.to_string(), db, end)));
    assert_eq!(handed, Some(Place { offset: end(&whole), db: 4 }));
}

#[test]
fn a_transaction_too_long_to_be_held_is_passed_on_and_marks_its_middle() {
    let mut commands = Commands::new(Place { offset: 0, db: 0 }, u64::MAX);
    let (mut input, set) = (Input::default(), wire(&format!("SET a {}", "x".repeat(1 << 20))));
    let mut count = 0;
    let mut take = |commands: &mut Commands, bytes: &[u8]| {
        input.push(bytes);
        while commands.advance(&mut input).unwrap().is_some() {
            count += 1;
        }
        (count, commands.handed().is_some())
    };
    assert_eq!(take(&mut commands, &wire("MULTI")), (0, true));
    for _ in 0..63 {
        assert_eq!(take(&mut commands, &set), (0, true));
    }
    assert_eq!(take(&mut commands, &set), (64, false));
    assert_eq!(take(&mut commands, &set), (65, false));
    assert_eq!(take(&mut commands, &wire("EXEC")), (65, true));
    assert_eq!(commands.handed().map(|place| place.offset), Some(65 * set.len() as u64 + 29));
}

#[test]
fn a_select_of_no_database_ends_the_stream() {
    let mut input = Input::default();
    input.push(&wire("SELECT -1"));
    let failure = Commands::new(Place { offset: 0, db: 0 }, MAX_BYTES).advance(&mut input).unwrap_err();
    assert!(matches!(failure, Failure::Stream(_)));
}

//! A command's words as others may see them: in the slow log, and in MONITOR's lines. Pure.

use crate::limits::MONITOR_LINE_MAX_BYTES;
use crate::resp::args::Args;

const HIDDEN: &[u8] = b"(redacted)";
/// Parameters whose values are passwords.
const SECRETS: [&str; 2] = ["requirepass", "masterauth"];

/// A word, or what stands for it where it is a password.
pub fn shown<'a>(command: &str, args: &Args<'a>, at: usize) -> &'a [u8] {
    let secret = match command {
        "auth" => at > 0,
        // HELLO 3 AUTH user password
        "hello" => (2..at).rev().take(2).any(|before| args.is(before, "auth")),
        // CONFIG SET name value [name value ...]
        "config" => {
            at > 2 && at % 2 == 1 && args.is(1, "set") && SECRETS.iter().any(|name| args.is(at - 1, name))
        }
        _ => false,
    };
    if secret { HIDDEN } else { args.get(at) }
}

/// MONITOR's line for a command, as Redis writes it: seconds, database, client, and the words in quotes.
pub fn monitor_line(micros: u128, table: u32, addr: &str, command: &str, args: &Args<'_>) -> Vec<u8> {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let mut line = format!("+{seconds}.{fraction:06} [{table} {addr}]").into_bytes();
    for at in 0..args.len() {
        if line.len() >= MONITOR_LINE_MAX_BYTES {
            line.extend_from_slice(format!(" \"... ({} more arguments)\"", args.len() - at).as_bytes());
            break;
        }
        let word = shown(command, args, at);
        let cut = word.len().min(MONITOR_LINE_MAX_BYTES);
        line.extend_from_slice(b" \"");
        word[..cut].iter().for_each(|byte| quote(*byte, &mut line));
        if cut < word.len() {
            line.extend_from_slice(format!("... ({} more bytes)", word.len() - cut).as_bytes());
        }
        line.push(b'"');
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// As Redis's sdscatrepr.
fn quote(byte: u8, line: &mut Vec<u8>) {
    match byte {
        b'\\' | b'"' => line.extend_from_slice(&[b'\\', byte]),
        b'\n' => line.extend_from_slice(b"\\n"),
        b'\r' => line.extend_from_slice(b"\\r"),
        b'\t' => line.extend_from_slice(b"\\t"),
        7 => line.extend_from_slice(b"\\a"),
        8 => line.extend_from_slice(b"\\b"),
        b' '..=b'~' => line.push(byte),
        _ => line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::Words;

    fn words(line: &str) -> Vec<String> {
        let words = Words::new(line);
        let args = words.args();
        let name = String::from_utf8_lossy(args.get(0)).to_ascii_lowercase();
        (0..args.len()).map(|at| String::from_utf8_lossy(shown(&name, &args, at)).into_owned()).collect()
    }

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        for (line, expected) in [
            ("AUTH secret", "AUTH (redacted)"),
            ("AUTH default secret", "AUTH (redacted) (redacted)"),
            ("HELLO 3 AUTH default secret SETNAME x", "HELLO 3 AUTH (redacted) (redacted) SETNAME x"),
            ("CONFIG SET timeout 3 requirepass secret", "CONFIG SET timeout 3 requirepass (redacted)"),
            ("CONFIG GET requirepass", "CONFIG GET requirepass"),
            ("SET auth secret", "SET auth secret"),
        ] {
            assert_eq!(words(line).join(" "), expected);
        }
    }

    #[test]
    fn lines_are_those_of_redis() {
        let words = Words::of(&[b"SET", b"a \"key\"", b"\x00\xff\n\\"]);
        let line = monitor_line(1_700_000_000_000_042, 3, "127.0.0.1:50000", "set", &words.args());
        let expected =
            "+1700000000.000042 [3 127.0.0.1:50000] \"SET\" \"a \\\"key\\\"\" \"\\x00\\xff\\n\\\\\"\r\n";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
        let long = vec![b'x'; MONITOR_LINE_MAX_BYTES + 5];
        let words = Words::of(&[b"SET", &long, b"y"]);
        let line = String::from_utf8(monitor_line(0, 0, "a", "set", &words.args())).unwrap();
        assert!(line.contains("x... (5 more bytes)\"") && line.ends_with("\"... (1 more arguments)\"\r\n"));
    }
}

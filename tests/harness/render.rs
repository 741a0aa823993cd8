//! Replies and command lines in the form redis-cli shows and reads.

use super::client::Value;

/// A reply as redis-cli prints it on a terminal, without the final newline.
pub fn render(value: &Value) -> String {
    let mut out = String::new();
    write(value, "", &mut out);
    out
}

fn write(value: &Value, indent: &str, out: &mut String) {
    match value {
        Value::Simple(text) | Value::BigNumber(text) => out.push_str(&String::from_utf8_lossy(text)),
        Value::Verbatim(text) => out.push_str(&String::from_utf8_lossy(text.get(4..).unwrap_or_default())),
        Value::Error(text) => out.push_str(&format!("(error) {}", String::from_utf8_lossy(text))),
        Value::Int(n) => out.push_str(&format!("(integer) {n}")),
        Value::Double(digits) => out.push_str(&format!("(double) {}", String::from_utf8_lossy(digits))),
        Value::Bool(yes) => out.push_str(if *yes { "(true)" } else { "(false)" }),
        Value::Bulk(bytes) => quote(bytes, out),
        Value::NilBulk | Value::NilArray | Value::Null => out.push_str("(nil)"),
        Value::Array(items) => list(items, "array", ')', indent, out),
        Value::Set(items) => list(items, "set", '~', indent, out),
        Value::Push(items) => list(items, "push", ')', indent, out),
        Value::Map(pairs) => map(pairs, indent, out),
    }
}

fn list(items: &[Value], name: &str, mark: char, indent: &str, out: &mut String) {
    if items.is_empty() {
        return out.push_str(&format!("(empty {name})"));
    }
    let width = items.len().to_string().len();
    let inner = format!("{indent}{:width$}  ", "");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push('\n');
            out.push_str(indent);
        }
        out.push_str(&format!("{:>width$}{mark} ", at + 1));
        write(item, &inner, out);
    }
}

fn map(pairs: &[(Value, Value)], indent: &str, out: &mut String) {
    if pairs.is_empty() {
        return out.push_str("(empty hash)");
    }
    let width = pairs.len().to_string().len();
    let inner = format!("{indent}{:width$}  ", "");
    for (at, (key, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push('\n');
            out.push_str(indent);
        }
        out.push_str(&format!("{:>width$}# ", at + 1));
        write(key, &inner, out);
        out.push_str(" => ");
        write(value, &inner, out);
    }
}

fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend(['\\', char::from(byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
}

/// The arguments of a line as redis-cli reads it: words, `"…"` with escapes, `'…'` with `\'` alone.
/// None when a quote is left open or text follows one without a space.
pub fn split_line(line: &str) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut rest = line.trim_start().as_bytes();
    while !rest.is_empty() {
        let mut arg = Vec::new();
        while let Some((&byte, tail)) = rest.split_first().filter(|(byte, _)| !byte.is_ascii_whitespace()) {
            rest = match byte {
                b'"' => closed(double_quoted(tail, &mut arg)?)?,
                b'\'' => closed(single_quoted(tail, &mut arg)?)?,
                _ => {
                    arg.push(byte);
                    tail
                }
            };
        }
        args.push(arg);
        rest = rest.trim_ascii_start();
    }
    Some(args)
}

fn closed(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(u8::is_ascii_whitespace).then_some(rest)
}

fn single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', tail @ ..] => {
                arg.push(b'\'');
                tail
            }
            [b'\'', tail @ ..] => return Some(tail),
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
            [] => return None,
        };
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).expect("checked above") as u8;
                arg.push(digit(*high) << 4 | digit(*low));
                tail
            }
            [b'\\', byte, tail @ ..] => {
                arg.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 0x07,
                    b'b' => 0x08,
                    other => *other,
                });
                tail
            }
            [b'"', tail @ ..] => return Some(tail),
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
            [] => return None,
        };
    }
}

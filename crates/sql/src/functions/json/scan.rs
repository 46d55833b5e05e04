//! JSON text as text: where values begin and end. Nothing is built; what a path names is cut out of the text.
//!
//! [`check`] reads a whole text once; the other functions are for texts that have passed it.
use std::borrow::Cow;

/// Deeper texts are no JSON here: values are walked by recursion.
const MAX_DEPTH: usize = 256;

/// A value: from its first byte to after its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn of(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// The kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

impl Kind {
    pub fn of(value: &str) -> Self {
        match value.as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::Text,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }

    pub fn is_scalar(self) -> bool {
        !matches!(self, Self::Object | Self::Array)
    }
}

/// The value that a text is, or `None` if it is no JSON.
pub(super) fn check(text: &str) -> Option<Span> {
    let bytes = text.as_bytes();
    let start = blank(bytes, 0);
    let end = value(bytes, start, MAX_DEPTH)?;
    (blank(bytes, end) == bytes.len()).then_some(Span { start, end })
}

fn blank(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Where the value that begins at `at` ends.
fn value(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string(bytes, at),
        b'{' => {
            let mut next = blank(bytes, at + 1);
            if bytes.get(next) == Some(&b'}') {
                return Some(next + 1);
            }
            loop {
                next = blank(bytes, string(bytes, next)?);
                if bytes.get(next) != Some(&b':') {
                    return None;
                }
                next = blank(bytes, value(bytes, blank(bytes, next + 1), depth.checked_sub(1)?)?);
                match bytes.get(next)? {
                    b',' => next = blank(bytes, next + 1),
                    b'}' => return Some(next + 1),
                    _ => return None,
                }
            }
        }
        b'[' => {
            let mut next = blank(bytes, at + 1);
            if bytes.get(next) == Some(&b']') {
                return Some(next + 1);
            }
            loop {
                next = blank(bytes, value(bytes, next, depth.checked_sub(1)?)?);
                match bytes.get(next)? {
                    b',' => next = blank(bytes, next + 1),
                    b']' => return Some(next + 1),
                    _ => return None,
                }
            }
        }
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        _ => number(bytes, at),
    }
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

fn string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut next = at + 1;
    loop {
        match bytes.get(next)? {
            b'"' => return Some(next + 1),
            b'\\' => match bytes.get(next + 1)? {
                b'u' => {
                    let hex = bytes.get(next + 2..next + 6)?;
                    if !hex.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    next += 6;
                }
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => next += 2,
                _ => return None,
            },
            0..=0x1f => return None,
            _ => next += 1,
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |mut from: usize| {
        let start = from;
        while bytes.get(from).is_some_and(u8::is_ascii_digit) {
            from += 1;
        }
        (from > start).then_some(from)
    };
    let first = at + usize::from(bytes.get(at) == Some(&b'-'));
    let mut next = digits(first)?;
    if bytes[first] == b'0' && next > first + 1 {
        return None;
    }
    if bytes.get(next) == Some(&b'.') {
        next = digits(next + 1)?;
    }
    if matches!(bytes.get(next), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(bytes.get(next + 1), Some(b'+' | b'-')));
        next = digits(next + 1 + signed)?;
    }
    Some(next)
}

/// Names, in quotes, and values of an object; nothing for other values.
pub(super) fn members(text: &str, object: Span) -> impl Iterator<Item = (&str, Span)> {
    let bytes = text.as_bytes();
    let mut next = if bytes.get(object.start) == Some(&b'{') { Some(object.start + 1) } else { None };
    std::iter::from_fn(move || {
        let start = blank(bytes, next?);
        let end = string(bytes, start)?;
        let from = blank(bytes, blank(bytes, end) + 1);
        let to = value(bytes, from, MAX_DEPTH)?;
        next = after(bytes, to);
        Some((text.get(start..end)?, Span { start: from, end: to }))
    })
}

/// Values of an array; nothing for other values.
pub(super) fn elements(text: &str, array: Span) -> impl Iterator<Item = Span> {
    let bytes = text.as_bytes();
    let mut next = if bytes.get(array.start) == Some(&b'[') { Some(array.start + 1) } else { None };
    std::iter::from_fn(move || {
        let start = blank(bytes, next?);
        let end = value(bytes, start, MAX_DEPTH)?;
        next = after(bytes, end);
        Some(Span { start, end })
    })
}

/// The place after the comma that follows a value, if one does.
fn after(bytes: &[u8], end: usize) -> Option<usize> {
    let at = blank(bytes, end);
    (bytes.get(at) == Some(&b',')).then_some(at + 1)
}

/// The characters that a text in quotes stands for. Half of a surrogate pair becomes U+FFFD.
pub(super) fn unquoted(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        let (letter, after) = escaped.split_at_checked(1).unwrap_or(("", ""));
        rest = after;
        match letter {
            "b" => out.push('\u{8}'),
            "f" => out.push('\u{c}'),
            "n" => out.push('\n'),
            "r" => out.push('\r'),
            "t" => out.push('\t'),
            "u" => {
                let unit = |t: &str| t.get(..4).and_then(|h| u16::from_str_radix(h, 16).ok());
                let first = unit(after).unwrap_or_default();
                rest = after.get(4..).unwrap_or_default();
                let second = rest.strip_prefix("\\u").and_then(unit).filter(|u| (0xdc00..0xe000).contains(u));
                match (first, second) {
                    (0xd800..0xdc00, Some(second)) => {
                        rest = rest.get(6..).unwrap_or_default();
                        let code = 0x10000 + ((u32::from(first) - 0xd800) << 10) + u32::from(second) - 0xdc00;
                        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    _ => out.push(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER)),
                }
            }
            other => out.push_str(other),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Appends a value without the blanks between its parts.
pub(super) fn compact(value: &str, out: &mut String) {
    let bytes = value.as_bytes();
    if Kind::of(value).is_scalar() {
        return out.push_str(value);
    }
    let mut at = 0;
    while at < bytes.len() {
        let from = blank(bytes, at);
        at = match bytes.get(from) {
            Some(b'"') => string(bytes, from).unwrap_or(bytes.len()),
            Some(b) if b" \t\n\r".contains(b) => from,
            // Everything up to the next blank or text.
            Some(_) => {
                let rest = &bytes[from..];
                from + rest.iter().position(|b| b" \t\n\r\"".contains(b)).unwrap_or(rest.len())
            }
            None => break,
        };
        out.push_str(value.get(from..at).unwrap_or_default());
    }
}

/// Appends a text in quotes.
pub(super) fn quote(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_json() {
        for text in [
            "1",
            " -0.5e+3 ",
            "\"a\\u00e9\\n\"",
            "[]",
            "{}",
            "null",
            "{\"a\" : [1, {\"b\": true}], \"\":false}",
            "[[[1]]]",
        ] {
            assert!(check(text).is_some(), "{text}");
        }
        for text in [
            "",
            " ",
            "abc",
            "01",
            "1.",
            ".5",
            "+1",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "'a'",
            "\"a",
            "\"\\x\"",
            "1 2",
            "nul",
            "\"\n\"",
            "{\"a\"}",
            "NaN",
        ] {
            assert!(check(text).is_none(), "{text}");
        }
        assert!(check(&"[".repeat(100_000)).is_none());
    }

    #[test]
    fn parts() {
        let text = " { \"a\" : [ 1 , \"x, y\" ] , \"b\\\"\":{} } ";
        let whole = check(text).unwrap();
        let found: Vec<_> = members(text, whole).map(|(k, v)| (k, v.of(text))).collect();
        assert_eq!(found, [("\"a\"", "[ 1 , \"x, y\" ]"), ("\"b\\\"\"", "{}")]);
        let list = check("[1, [2, 3] ,\"a\"]").unwrap();
        assert_eq!(
            elements("[1, [2, 3] ,\"a\"]", list).map(|s| s.of("[1, [2, 3] ,\"a\"]")).collect::<Vec<_>>(),
            ["1", "[2, 3]", "\"a\""]
        );
        assert_eq!(members("[]", check("[]").unwrap()).count() + elements("{}", check("{}").unwrap()).count(), 0);
        let mut out = String::new();
        compact(whole.of(text), &mut out);
        assert_eq!(out, "{\"a\":[1,\"x, y\"],\"b\\\"\":{}}");
    }

    #[test]
    fn quotes() {
        assert_eq!(unquoted("\"a\\u00e9\\ud83d\\ude00\\n\\/\\ud800\""), "aé😀\n/\u{fffd}");
        let mut out = String::new();
        quote("a\"b\\\u{1}é\n", &mut out);
        assert_eq!(out, "\"a\\\"b\\\\\\u0001é\\n\"");
    }
}

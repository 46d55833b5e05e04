//! A position in one message: white space, literals, and skipping what no column uses.
use super::fault::{Fault, Parsed};
use super::scan::{find_quote, find_structure};

/// Deepest nesting of a message.
pub(crate) const MAX_DEPTH: u32 = 128;

/// Where the decoder stands in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The byte here; 0 at the end, which no rule of the grammar begins with.
    #[inline]
    pub(crate) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    pub(crate) fn skip_space(&mut self) {
        if self.peek() <= b' ' {
            self.skip_space_run();
        }
    }

    #[inline(never)]
    fn skip_space_run(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// What stands here, in words.
    #[cold]
    fn found(&self) -> String {
        match self.bytes.get(self.at) {
            None => "the end of the message".to_owned(),
            Some(b'"') => "string".to_owned(),
            Some(b'{') => "object".to_owned(),
            Some(b'[') => "array".to_owned(),
            Some(b'-' | b'0'..=b'9') => "number".to_owned(),
            Some(b't' | b'f') => "boolean".to_owned(),
            Some(b'n') => "null".to_owned(),
            Some(byte) if byte.is_ascii_graphic() => format!("'{}'", char::from(*byte)),
            Some(byte) => format!("byte 0x{byte:02x}"),
        }
    }

    /// Something else than the grammar wants stands here.
    #[cold]
    pub(crate) fn unexpected(&self, expected: &str) -> Box<Fault> {
        Fault::syntax(self.at, format!("expected {expected}, found {}", self.found()))
    }

    /// A value of another type than the field's stands here; if it is no value at all, the message is broken.
    #[cold]
    pub(crate) fn wrong_type(&self, expected: &str) -> Box<Fault> {
        match self.bytes.get(self.at) {
            Some(b'"' | b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                Fault::value(self.at, format!("expected {expected}, found {}", self.found()))
            }
            _ => self.unexpected("a value"),
        }
    }

    /// Takes `null` if it stands here. The byte after it is checked by whoever expects a comma or a bracket.
    #[inline]
    pub(crate) fn take_null(&mut self) -> bool {
        let is_null = self.bytes.get(self.at..self.at + 4) == Some(b"null");
        self.at += if is_null { 4 } else { 0 };
        is_null
    }

    /// Takes `true` or `false`.
    pub(crate) fn take_bool(&mut self) -> Option<bool> {
        let rest = self.bytes.get(self.at..)?;
        if rest.starts_with(b"true") {
            self.at += 4;
            Some(true)
        } else if rest.starts_with(b"false") {
            self.at += 5;
            Some(false)
        } else {
            None
        }
    }

    /// Skips a value that no column uses. Only what decides where it ends is looked at: strings are not checked for
    /// escapes and UTF-8, and inside objects and arrays only quotes and brackets count.
    #[inline]
    pub(crate) fn skip_value(&mut self, depth: u32) -> Parsed<()> {
        match self.peek() {
            b'"' => {
                self.at += 1;
                self.skip_string()
            }
            b'{' | b'[' => self.skip_nested(depth),
            b'-' | b'0'..=b'9' => {
                self.at += 1;
                while matches!(self.peek(), b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') {
                    self.at += 1;
                }
                Ok(())
            }
            b'n' if self.take_null() => Ok(()),
            b't' | b'f' if self.take_bool().is_some() => Ok(()),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Skips the rest of a string whose opening quote has been taken.
    #[inline]
    pub(crate) fn skip_string(&mut self) -> Parsed<()> {
        loop {
            match find_quote(self.bytes, self.at) {
                Some(at) if self.bytes[at] == b'"' => {
                    self.at = at + 1;
                    return Ok(());
                }
                // The byte after a backslash is never the end.
                Some(at) => self.at = at + 2,
                None => return Err(self.unterminated()),
            }
        }
    }

    #[cold]
    pub(crate) fn unterminated(&self) -> Box<Fault> {
        Fault::syntax(self.bytes.len(), "the message ends inside a string")
    }

    /// Skips the object or array that begins here, `depth` levels down.
    fn skip_nested(&mut self, depth: u32) -> Parsed<()> {
        let outer = self.at;
        // One bit per open bracket, the innermost lowest: 1 for an object.
        let (mut kinds, mut open) = (0_u128, 0_u32);
        loop {
            let Some(at) = find_structure(self.bytes, self.at) else {
                return Err(Fault::syntax(
                    self.bytes.len(),
                    format!("the message ends inside what begins at byte {outer}"),
                ));
            };
            self.at = at + 1;
            match self.bytes[at] {
                b'"' => self.skip_string()?,
                byte @ (b'{' | b'[') => {
                    if depth + open >= MAX_DEPTH {
                        return Err(too_deep(at));
                    }
                    open += 1;
                    kinds = kinds << 1 | u128::from(byte == b'{');
                }
                byte => {
                    if (kinds & 1 == 1) != (byte == b'}') {
                        self.at = at;
                        return Err(self.unexpected("the bracket that matches"));
                    }
                    open -= 1;
                    kinds >>= 1;
                    if open == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

#[cold]
pub(crate) fn too_deep(at: usize) -> Box<Fault> {
    Fault::syntax(at, format!("nested deeper than {MAX_DEPTH} levels"))
}

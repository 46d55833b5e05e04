//! Strings: one copy if they are plain, otherwise escapes are replaced and UTF-8 is checked.
use super::cursor::Cursor;
use super::fault::{Fault, Parsed};
use super::scan::find_not_plain;

impl<'a> Cursor<'a> {
    /// The string whose opening quote has been taken, if nothing in it must be changed or checked further: printable
    /// ASCII without escapes. The cursor stays where it is otherwise.
    #[inline]
    pub(crate) fn take_plain(&mut self) -> Option<&'a [u8]> {
        let end = find_not_plain(self.bytes, self.at)?;
        if self.bytes[end] != b'"' {
            return None;
        }
        let text = &self.bytes[self.at..end];
        self.at = end + 1;
        Some(text)
    }

    /// Appends the string whose opening quote has been taken to `out`, which it leaves valid UTF-8.
    #[inline(never)]
    pub(crate) fn take_string(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        let (from, start) = (self.at, out.len());
        let mut checked = true;
        loop {
            let Some(stop) = find_not_plain(self.bytes, self.at) else { return Err(self.unterminated()) };
            out.extend_from_slice(&self.bytes[self.at..stop]);
            self.at = stop + 1;
            match self.bytes[stop] {
                b'"' => break,
                b'\\' => self.take_escape(out)?,
                byte @ 0x80.. => {
                    // Text in other scripts comes in runs.
                    let run = self.bytes[self.at..].iter().take_while(|b| **b >= 0x80).count();
                    out.push(byte);
                    out.extend_from_slice(&self.bytes[self.at..self.at + run]);
                    self.at += run;
                    checked = false;
                }
                byte => return Err(Fault::syntax(stop, format!("control character 0x{byte:02x} in a string"))),
            }
        }
        if !checked && let Err(error) = std::str::from_utf8(&out[start..]) {
            return Err(Fault::value(
                from,
                format!("the string is not valid UTF-8 after {} bytes of it,", error.valid_up_to()),
            ));
        }
        Ok(())
    }

    /// Replaces the escape whose backslash has been taken.
    fn take_escape(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        let byte = match self.peek() {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let at = self.at - 1;
                self.at += 1;
                let c = self.take_code_point(at)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(Fault::syntax(self.at - 1, "unknown escape in a string")),
        };
        out.push(byte);
        self.at += 1;
        Ok(())
    }

    fn take_code_point(&mut self, at: usize) -> Parsed<char> {
        let first = self.take_hex(at)?;
        let code = match first {
            0xd800..0xdc00 if self.bytes[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let second = self.take_hex(at)?;
                match second {
                    0xdc00..0xe000 => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => first,
                }
            }
            _ => first,
        };
        // What is left in the range of surrogates stands for no character.
        char::from_u32(code).ok_or_else(|| Fault::value(at, "half of a surrogate pair in a string"))
    }

    fn take_hex(&mut self, at: usize) -> Parsed<u32> {
        let digits = self
            .bytes
            .get(self.at..self.at + 4)
            .and_then(|d| d.iter().try_fold(0, |code, byte| Some(code << 4 | char::from(*byte).to_digit(16)?)));
        self.at += 4;
        digits.ok_or_else(|| Fault::syntax(at, "\\u without four hexadecimal digits in a string"))
    }
}

//! One record into its fields.
use crate::CsvOptions;

/// A field of a record.
pub(crate) struct Piece<'a> {
    /// The text without quotes; in the scratch buffer if it had to be changed.
    pub text: &'a [u8],
    pub quoted: bool,
}

/// Takes the fields of one record in turn.
pub(crate) struct Splitter<'a> {
    options: &'a CsvOptions,
    record: &'a [u8],
    /// Begin of the next field; `None` after the last one.
    at: Option<usize>,
}

/// The record breaks the rules at this byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub at: usize,
    pub problem: &'static str,
}

impl<'a> Splitter<'a> {
    pub(crate) fn new(options: &'a CsvOptions, record: &'a [u8]) -> Self {
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        Self { options, record: record.strip_suffix(b"\r").unwrap_or(record), at: Some(0) }
    }

    /// Where the next field begins.
    pub(crate) fn at(&self) -> usize {
        self.at.unwrap_or(self.record.len())
    }

    /// The next field, or `None` after the last one.
    pub(crate) fn next<'s>(&mut self, scratch: &'s mut Vec<u8>) -> Result<Option<Piece<'s>>, Broken>
    where
        'a: 's,
    {
        let Some(at) = self.at else { return Ok(None) };
        if self.options.quote.is_some() && self.record.get(at).copied() == self.options.quote {
            return self.quoted(at + 1, scratch).map(Some);
        }
        let rest = &self.record[at..];
        let Some(escape) = self.options.escape else {
            let end = memchr::memchr(self.options.delimiter, rest);
            self.at = end.map(|e| at + e + 1);
            return Ok(Some(Piece { text: &rest[..end.unwrap_or(rest.len())], quoted: false }));
        };
        scratch.clear();
        let mut at = at;
        while let Some(&byte) = self.record.get(at) {
            at += 1;
            if byte == self.options.delimiter {
                self.at = Some(at);
                return Ok(Some(Piece { text: scratch, quoted: false }));
            }
            if byte == escape {
                scratch.extend(self.record.get(at));
                at += 1;
            } else {
                scratch.push(byte);
            }
        }
        self.at = None;
        Ok(Some(Piece { text: scratch, quoted: false }))
    }

    /// The field whose opening quote stands before `at`.
    fn quoted<'s>(&mut self, mut at: usize, scratch: &'s mut Vec<u8>) -> Result<Piece<'s>, Broken> {
        scratch.clear();
        let quote = self.options.quote;
        loop {
            let Some(&byte) = self.record.get(at) else {
                return Err(Broken { at, problem: "the record ends inside a quoted field" });
            };
            at += 1;
            if Some(byte) == self.options.escape {
                scratch.extend(self.record.get(at));
                at += 1;
            } else if Some(byte) != quote {
                scratch.push(byte);
            } else if self.record.get(at).copied() == quote {
                scratch.push(byte);
                at += 1;
            } else {
                break;
            }
        }
        self.at = match self.record.get(at) {
            None => None,
            Some(byte) if *byte == self.options.delimiter => Some(at + 1),
            Some(_) => return Err(Broken { at, problem: "text after the closing quote of a field" }),
        };
        Ok(Piece { text: scratch, quoted: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(options: &CsvOptions, record: &str) -> Result<Vec<(String, bool)>, Broken> {
        let mut splitter = Splitter::new(options, record.as_bytes());
        let (mut fields, mut scratch) = (Vec::new(), Vec::new());
        while let Some(piece) = splitter.next(&mut scratch)? {
            fields.push((String::from_utf8_lossy(piece.text).into_owned(), piece.quoted));
        }
        Ok(fields)
    }

    fn texts(options: &CsvOptions, record: &str) -> Vec<String> {
        split(options, record).map(|f| f.into_iter().map(|(text, _)| text).collect()).unwrap_or_default()
    }

    #[test]
    fn fields() {
        let plain = CsvOptions::default();
        assert_eq!(texts(&plain, "a,,c\r\n"), ["a", "", "c"]);
        assert_eq!(texts(&plain, ""), [""]);
        assert_eq!(texts(&plain, "a,"), ["a", ""]);
        assert_eq!(texts(&plain, "\"a,\"\"b\"\"\",\"x\ny\""), ["a,\"b\"", "x\ny"]);
        assert_eq!(split(&plain, "\"\",").ok(), Some(vec![(String::new(), true), (String::new(), false)]));
        assert_eq!(split(&plain, "a,\"b"), Err(Broken { at: 4, problem: "the record ends inside a quoted field" }));
        assert_eq!(split(&plain, "\"a\"b"), Err(Broken { at: 3, problem: "text after the closing quote of a field" }));
        let escaped = CsvOptions { escape: Some(b'\\'), delimiter: b';', ..CsvOptions::default() };
        assert_eq!(texts(&escaped, "a\\;b;\"c\\\"d\";e\\"), ["a;b", "c\"d", "e"]);
        let unquoted = CsvOptions { quote: None, ..CsvOptions::default() };
        assert_eq!(texts(&unquoted, "\"a,b\""), ["\"a", "b\""]);
    }
}

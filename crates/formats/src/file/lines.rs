//! Text files into messages.
//!
//! A message is a line of a JSON or raw file or a record of a CSV file, whose quoted fields may span lines. The line
//! end does not belong to it, lines of nothing but white space are passed over, and so are a byte order mark and the
//! header of a CSV file. Compression is told from the first bytes, not from the name: gzip (also several members) and
//! zstd. What a file may grow to when it is inflated is limited, and so is a line; one that is too long comes by itself, without
//! its end, and the file goes on after it. What stands before a damage is given out before the damage is told.
use std::io::{self, BufReader, Read};

use memchr::memchr;

use crate::{CsvOptions, FormatError, FormatKind, FormatOptions};

/// Bytes that are asked for at once.
const CHUNK: usize = 256 << 10;

/// Guards against files that would fill the memory.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Longest line or record, in bytes.
    pub line_bytes: usize,
    /// Largest file after decompression, in bytes.
    pub inflated_bytes: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { line_bytes: 64 << 20, inflated_bytes: 64 << 30 }
    }
}

/// Messages of a file, one after the other in one buffer.
#[derive(Debug, Default)]
pub struct Lines {
    data: Vec<u8>,
    /// Begin and end of each message in `data`.
    spans: Vec<(usize, usize)>,
    first: u64,
    too_long: bool,
}

impl Lines {
    /// The messages, ready for [`crate::Decoder::decode`].
    #[must_use]
    pub fn messages(&self) -> Vec<&[u8]> {
        self.spans.iter().map(|(begin, end)| &self.data[*begin..*end]).collect()
    }

    /// Number of the first message in its file, from 0.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The begin of a line that is longer than the limit. It has the number [`first`](Self::first), and there is no message beside it.
    #[must_use]
    pub fn too_long(&self) -> Option<&[u8]> {
        self.too_long.then_some(&self.data[..])
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// Splits one text file into messages.
pub struct LineReader {
    input: Box<dyn Read + Send>,
    csv: Option<CsvOptions>,
    limits: ReadLimits,
    /// Bytes that have been read and not given out.
    pending: Vec<u8>,
    ended: bool,
    inflated: u64,
    given: u64,
    /// What comes before the first message is still to be dropped.
    at_begin: bool,
    /// Why nothing more can be read, to be told after what was read before.
    failed: Option<FormatError>,
}

impl LineReader {
    /// A reader of `input`, which is a file of the format `options.kind` from its first byte on.
    ///
    /// # Errors
    /// If the input cannot be read, or the format is not one of lines.
    pub fn new(
        mut input: impl Read + Send + 'static,
        options: &FormatOptions,
        limits: ReadLimits,
    ) -> Result<Self, FormatError> {
        let csv = match options.kind {
            FormatKind::Json | FormatKind::DebeziumJson | FormatKind::Raw => None,
            FormatKind::Csv => Some(options.csv.clone()),
            FormatKind::Parquet => return Err(FormatError::NotForMessages { format: FormatKind::Parquet }),
        };
        let mut head = Vec::new();
        input.by_ref().take(4).read_to_end(&mut head)?;
        let whole = io::Cursor::new(head.clone()).chain(input);
        let input: Box<dyn Read + Send> = match head.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK, whole))),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
            _ => Box::new(whole),
        };
        let pending = Vec::new();
        Ok(Self { input, csv, limits, pending, ended: false, inflated: 0, given: 0, at_begin: true, failed: None })
    }

    /// The next messages: at most `rows`, and no more once `bytes` are reached. `None` at the end of the file.
    ///
    /// # Errors
    /// If the file is damaged or cut off, or inflates to more than the limit; nothing more can be read then.
    pub fn next(&mut self, rows: usize, bytes: usize) -> Result<Option<Lines>, FormatError> {
        let data = std::mem::take(&mut self.pending);
        let mut lines = Lines { data, spans: Vec::new(), first: self.given, too_long: false };
        // `at` is the begin of the next message, `searched` up to where no end of it was found.
        let (mut at, mut searched) = (0, 0);
        while lines.spans.len() < rows && at < bytes.max(1) {
            let end = record_end(self.csv.as_ref(), &lines.data, at, searched);
            let (end, next) = match end {
                Some(end) => (end, end + 1),
                None if !self.ended => {
                    searched = lines.data.len();
                    if searched - at > self.limits.line_bytes {
                        (searched, searched)
                    } else if self.failed.is_none() {
                        self.failed = self.fill(&mut lines.data).err();
                        continue;
                    } else {
                        break;
                    }
                }
                None if at < lines.data.len() => (lines.data.len(), lines.data.len()),
                None => break,
            };
            if end - at > self.limits.line_bytes {
                if lines.spans.is_empty() {
                    return self.pass_over(lines.data.split_off(at)).map(Some);
                }
                break;
            }
            self.take(&mut lines, at, end);
            at = next;
            searched = next;
        }
        if lines.spans.is_empty()
            && let Some(failed) = self.failed.take()
        {
            return Err(failed);
        }
        self.pending = lines.data.split_off(at);
        self.given += lines.spans.len() as u64;
        let is_end = lines.spans.is_empty() && self.ended && self.pending.is_empty();
        Ok((!is_end).then_some(lines))
    }

    /// Adds the record `[begin, end)` unless it is one of those that are no messages.
    fn take(&mut self, lines: &mut Lines, mut begin: usize, mut end: usize) {
        let first = std::mem::replace(&mut self.at_begin, false);
        if first && lines.data[begin..end].starts_with(b"\xef\xbb\xbf") {
            begin += 3;
        }
        if lines.data[begin..end].ends_with(b"\r") {
            end -= 1;
        }
        let is_header = first && self.csv.as_ref().is_some_and(|c| c.header);
        if !is_header && !lines.data[begin..end].trim_ascii().is_empty() {
            lines.spans.push((begin, end));
        }
    }

    /// Keeps the begin of a line that is too long, which is all that `data` begins with, and finds the line after it.
    fn pass_over(&mut self, mut data: Vec<u8>) -> Result<Lines, FormatError> {
        let mut rest = data.split_off(self.limits.line_bytes);
        // A quote that nobody closed makes a line of the whole file: the next line end counts, quoted or not.
        while !self.ended && memchr(b'\n', &rest).is_none() {
            rest.clear();
            self.fill(&mut rest)?;
        }
        self.pending = memchr(b'\n', &rest).map(|end| rest.split_off(end + 1)).unwrap_or_default();
        let first = self.given;
        self.given += 1;
        Ok(Lines { data, spans: Vec::new(), first, too_long: true })
    }

    fn fill(&mut self, data: &mut Vec<u8>) -> Result<(), FormatError> {
        let before = data.len();
        match self.input.by_ref().take(CHUNK as u64).read_to_end(data) {
            Ok(0) => self.ended = true,
            Ok(read) => self.inflated += read as u64,
            Err(error) => {
                let offset = self.inflated + (data.len() - before) as u64;
                let problem = format!("the compressed file is damaged or cut off: {error}");
                return Err(FormatError::Damaged { offset, problem });
            }
        }
        if self.inflated > self.limits.inflated_bytes {
            return Err(FormatError::Limit { what: "the inflated file".to_owned(), limit: self.limits.inflated_bytes });
        }
        Ok(())
    }
}

/// The line end of the record that begins at `begin`, none of which stands before `searched`.
fn record_end(csv: Option<&CsvOptions>, data: &[u8], begin: usize, searched: usize) -> Option<usize> {
    let Some((options, quote)) = csv.and_then(|c| c.quote.map(|q| (c, q))) else {
        return memchr(b'\n', &data[searched..]).map(|i| searched + i);
    };
    let line = memchr(b'\n', &data[begin..]).map(|i| begin + i);
    // Without a quote no line end can be inside a field.
    if memchr(quote, &data[begin..line.unwrap_or(data.len())]).is_none() {
        return line;
    }
    let (mut at, mut quoted, mut field_begins) = (begin, false, true);
    while let Some(&byte) = data.get(at) {
        if Some(byte) == options.escape {
            at += 1;
        } else if byte == quote && (quoted || field_begins) {
            // A doubled quote closes and opens again.
            quoted = !quoted;
            field_begins = !quoted;
            at += 1;
            continue;
        } else if byte == b'\n' && !quoted {
            return Some(at);
        }
        field_begins = byte == options.delimiter && !quoted;
        at += 1;
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::Write;

    use super::*;

    fn options(kind: FormatKind) -> FormatOptions {
        FormatOptions::new(kind)
    }

    fn read(bytes: &[u8], options: &FormatOptions, rows: usize) -> Result<Vec<String>, FormatError> {
        let limits = ReadLimits { line_bytes: 1000, inflated_bytes: 1 << 20 };
        let mut reader = LineReader::new(io::Cursor::new(bytes.to_vec()), options, limits)?;
        let mut all = Vec::new();
        while let Some(lines) = reader.next(rows, 1 << 20)? {
            assert_eq!(lines.first(), all.len() as u64);
            assert!(lines.len() <= rows);
            if let Some(begin) = lines.too_long() {
                assert!(lines.is_empty() && begin.len() == 1000);
                all.push("too long".to_owned());
            }
            all.extend(lines.messages().iter().map(|m| String::from_utf8_lossy(m).into_owned()));
        }
        Ok(all)
    }

    #[test]
    fn lines_of_every_kind() {
        let json = options(FormatKind::Json);
        for rows in [1, 2, 100] {
            assert_eq!(read(b"\xef\xbb\xbfa\r\n\n  \nb\nc", &json, rows).unwrap(), ["a", "b", "c"]);
            assert_eq!(read(b"", &json, rows).unwrap(), Vec::<String>::new());
        }
        let many: String = (0..50_000).map(|i| format!("{{\"n\":{i}}}\n")).collect();
        let lines = read(many.as_bytes(), &json, 777).unwrap();
        assert_eq!((lines.len(), lines[49_999].as_str()), (50_000, "{\"n\":49999}"));
    }

    #[test]
    fn records_span_lines_inside_quotes() {
        let mut csv = options(FormatKind::Csv);
        let text = b"h1,h2\na,\"x\ny\"\n\"q\"\"\n\",z\nb\"c,d\"\ne,f";
        let records = ["a,\"x\ny\"", "\"q\"\"\n\",z", "b\"c,d\"", "e,f"];
        csv.csv.header = true;
        assert_eq!(read(text, &csv, 2).unwrap(), records);
        csv.csv.quote = None;
        assert_eq!(read(text, &csv, 2).unwrap().len(), 6);
    }

    #[test]
    fn compressed() {
        let json = options(FormatKind::Json);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"a\nb\n").unwrap();
        let gzip = gzip.finish().unwrap();
        let two = [gzip.clone(), gzip.clone()].concat();
        assert_eq!(read(&two, &json, 10).unwrap(), ["a", "b", "a", "b"]);
        let zstd = zstd::encode_all(&b"a\nb"[..], 1).unwrap();
        assert_eq!(read(&zstd, &json, 10).unwrap(), ["a", "b"]);
        for cut in [&gzip[..gzip.len() - 3], &zstd[..zstd.len() - 2]] {
            assert!(matches!(read(cut, &json, 10), Err(FormatError::Damaged { .. })));
        }
    }

    #[test]
    fn what_stands_before_a_damage_comes_out() {
        let text: String = (0..100_000).map(|i| format!("{{\"n\":{i}}}\n")).collect();
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let cut = zstd[..zstd.len() / 2].to_vec();
        let mut reader =
            LineReader::new(io::Cursor::new(cut), &options(FormatKind::Json), ReadLimits::default()).unwrap();
        let mut before = 0;
        let failed = loop {
            match reader.next(usize::MAX, usize::MAX) {
                Ok(lines) => before += lines.unwrap().len(),
                Err(failed) => break failed,
            }
        };
        assert!(matches!(failed, FormatError::Damaged { .. }) && before > 1_000, "{before} lines, then {failed}");
    }

    #[test]
    fn limits() {
        let json = options(FormatKind::Json);
        for rows in [1, 10] {
            let lines = ["a", &"x".repeat(1_001), "b", &"y".repeat(600_000), &"z".repeat(1_000)];
            let read = read(lines.join("\n").as_bytes(), &json, rows).unwrap();
            assert_eq!(read, ["a", "too long", "b", "too long", lines[4]]);
        }
        assert_eq!(read(&[b'x'; 1001], &json, 10).unwrap(), ["too long"]);
        let csv = options(FormatKind::Csv);
        let open = format!("a,b\n\"{}\nc,d\n", "q,\n".repeat(500));
        assert_eq!(read(open.as_bytes(), &csv, 10).unwrap()[..2], ["a,b", "too long"]);
        let bomb = zstd::encode_all(&vec![b'\n'; 2 << 20][..], 1).unwrap();
        assert!(matches!(read(&bomb, &json, 10), Err(FormatError::Limit { .. })));
        assert!(LineReader::new(io::empty(), &options(FormatKind::Parquet), ReadLimits::default()).is_err());
    }
}

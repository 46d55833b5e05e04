//! Patterns of dates and times with the letters of Java's `DateTimeFormatter`, as Flink and Spark have them: written and read.
//!
//! Weeks and week years (`w`, `Y`) and names of zones (`z`) depend on a locale and are refused. Names of months and days are English.
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};
use datafusion::common::plan_err;
use datafusion::error::Result;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A pattern that can be written and read.
#[derive(Debug)]
pub(super) struct Pattern {
    source: String,
    parts: Vec<Part>,
    /// See [`step`](Pattern::step).
    step: i64,
}

#[derive(Debug)]
enum Part {
    Text(String),
    /// A letter and how often it stands there.
    Field(char, usize),
}

const DAY: i64 = 86_400_000_000;

impl Part {
    /// Microseconds for which it is written alike.
    fn step(&self) -> i64 {
        match self {
            Self::Field('H' | 'k' | 'h' | 'K' | 'a', _) => 3_600_000_000,
            Self::Field('m', _) => 60_000_000,
            Self::Field('s', _) => 1_000_000,
            Self::Field('S', _) => 1,
            Self::Text(_) | Self::Field(..) => DAY,
        }
    }
}

/// What was read: the local time in microseconds, and seconds east of UTC if the text says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub local: i64,
    pub offset: Option<i32>,
}

impl Pattern {
    /// # Errors
    /// Letters without a meaning here; `function` is named.
    pub fn parse(pattern: &str, function: &str) -> Result<Self> {
        let mut parts: Vec<Part> = Vec::new();
        let text = |parts: &mut Vec<Part>, t: &str| match parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(t),
            _ => parts.push(Part::Text(t.to_owned())),
        };
        let chars: Vec<char> = pattern.chars().collect();
        let mut i = 0;
        while let Some(&c) = chars.get(i) {
            let run = chars[i..].iter().take_while(|d| **d == c).count();
            match (c, run) {
                ('\'', _) => {
                    let rest = &chars[i + 1..];
                    let Some(length) = rest.iter().position(|d| *d == '\'') else {
                        return plan_err!("{function}: pattern '{pattern}' has a quote that is not closed");
                    };
                    let quoted: String = if length == 0 { "'".to_owned() } else { rest[..length].iter().collect() };
                    text(&mut parts, &quoted);
                    i += length + 2;
                    continue;
                }
                ('y' | 'u', 1..=9)
                | ('M' | 'L' | 'E', 1..=4)
                | ('d' | 'H' | 'k' | 'h' | 'K' | 'm' | 's' | 'Q' | 'q', 1..=2)
                | ('D' | 'X' | 'x' | 'Z', 1..=3)
                | ('S', 1..=9)
                | ('a', 1) => parts.push(Part::Field(c, run)),
                (c, _) if c.is_ascii_alphabetic() => {
                    let letters = c.to_string().repeat(run);
                    return plan_err!("{function}: pattern '{pattern}' has letters that it does not know: '{letters}'");
                }
                // Optional parts: what is written is what is there.
                ('[' | ']' | '{' | '}' | '#', _) => {
                    return plan_err!("{function}: pattern '{pattern}' has '{c}', which is not supported");
                }
                (c, _) => {
                    text(&mut parts, &c.to_string());
                    i += 1;
                    continue;
                }
            }
            i += run;
        }
        let step = parts.iter().map(Part::step).min().unwrap_or(DAY);
        Ok(Self { source: pattern.to_owned(), parts, step })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Local times with the same quotient by this (microseconds) and the same offset are written alike.
    pub fn step(&self) -> i64 {
        self.step
    }

    /// Appends a local time; false if it is out of the calendar's range.
    pub fn write(&self, local: i64, offset: i32, out: &mut String) -> bool {
        let Some(at) = DateTime::from_timestamp_micros(local).map(|t| t.naive_utc()) else { return false };
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(letter, width) => field(at, offset, *letter, *width, out),
            }
        }
        true
    }

    /// Reads a whole text, or its beginning where more may follow. Fields that are not there are those of 1970-01-01 00:00:00.
    pub fn read(&self, text: &str, more_may_follow: bool) -> Option<Read> {
        let mut reader = Reader { rest: text, found: Found::default() };
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => reader.rest = reader.rest.strip_prefix(text.as_str())?,
                Part::Field(letter, width) => {
                    // Digits follow each other only where each has its width: yyyyMMdd.
                    let abuts = matches!(self.parts.get(i + 1), Some(Part::Field(..)));
                    reader.field(*letter, *width, abuts)?;
                }
            }
        }
        match reader.rest.is_empty() || more_may_follow {
            true => reader.found.finish(),
            false => None,
        }
    }
}

fn digits(value: i64, width: usize, out: &mut String) {
    use std::fmt::Write as _;
    // Two digits are nearly all there is.
    match (value, width) {
        (0..=99, 2) => {
            out.push(char::from(b'0' + (value / 10) as u8));
            out.push(char::from(b'0' + (value % 10) as u8));
        }
        _ => {
            let _ = write!(out, "{value:0width$}");
        }
    }
}

fn field(at: NaiveDateTime, offset: i32, letter: char, width: usize, out: &mut String) {
    let number = |value: u32, out: &mut String| digits(i64::from(value), width, out);
    let name = |name: &str, out: &mut String| out.push_str(if width == 4 { name } else { &name[..3] });
    match letter {
        'y' | 'u' if width == 2 => number(at.year().rem_euclid(100) as u32, out),
        'y' | 'u' => digits(i64::from(at.year()), width, out),
        'M' | 'L' if width > 2 => name(MONTHS[at.month0() as usize], out),
        'M' | 'L' => number(at.month(), out),
        'Q' | 'q' => number(at.month0() / 3 + 1, out),
        'd' => number(at.day(), out),
        'D' => number(at.ordinal(), out),
        'E' => name(DAYS[at.weekday().num_days_from_monday() as usize], out),
        'H' => number(at.hour(), out),
        'k' => number(if at.hour() == 0 { 24 } else { at.hour() }, out),
        'h' => number(at.hour12().1, out),
        'K' => number(at.hour() % 12, out),
        'm' => number(at.minute(), out),
        's' => number(at.second(), out),
        'S' => {
            let nanos = at.nanosecond() % 1_000_000_000;
            digits(i64::from(nanos / 10_u32.pow(9 - width as u32)), width, out);
        }
        'a' => out.push_str(if at.hour() < 12 { "AM" } else { "PM" }),
        'X' if offset == 0 => out.push('Z'),
        _ => {
            let minutes = offset.unsigned_abs() / 60;
            out.push(if offset < 0 { '-' } else { '+' });
            digits(i64::from(minutes / 60), 2, out);
            if letter != 'Z' && width == 3 {
                out.push(':');
            }
            if letter == 'Z' || width > 1 || !minutes.is_multiple_of(60) {
                digits(i64::from(minutes % 60), 2, out);
            }
        }
    }
}

/// Fields as they were read.
#[derive(Default)]
struct Found {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    ordinal: Option<u32>,
    hour: Option<u32>,
    /// Hour of a half day, 0 to 11, and whether it is the second half.
    half: Option<u32>,
    afternoon: Option<bool>,
    minute: u32,
    second: u32,
    nanos: u32,
    offset: Option<i32>,
}

impl Found {
    fn finish(self) -> Option<Read> {
        let year = self.year.unwrap_or(1970);
        let date = match self.ordinal {
            Some(ordinal) => NaiveDate::from_yo_opt(year, ordinal)?,
            None => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let half = self.half.map(|h| h + if self.afternoon == Some(true) { 12 } else { 0 });
        let at = date.and_hms_nano_opt(self.hour.or(half).unwrap_or(0), self.minute, self.second, self.nanos)?;
        Some(Read { local: at.and_utc().timestamp_micros(), offset: self.offset })
    }
}

struct Reader<'a> {
    rest: &'a str,
    found: Found,
}

impl Reader<'_> {
    /// A number of at least `min` and at most `max` digits.
    fn number(&mut self, min: usize, max: usize) -> Option<u32> {
        let length = self.rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        if length < min { None } else { digits.parse().ok() }
    }

    /// The index of the name that the text begins with, in any case.
    fn name(&mut self, names: &[&str], short: bool) -> Option<u32> {
        let length = |n: &str| if short { 3 } else { n.len() };
        let begins = |n: &&str| self.rest.get(..length(n)).is_some_and(|b| b.eq_ignore_ascii_case(&n[..length(n)]));
        let found = names.iter().position(begins)?;
        self.rest = &self.rest[length(names[found])..];
        u32::try_from(found).ok()
    }

    fn field(&mut self, letter: char, width: usize, abuts: bool) -> Option<()> {
        let two = |this: &mut Self| this.number(width, if width == 1 && abuts { 1 } else { 2 });
        match letter {
            'y' | 'u' if width == 2 => self.found.year = Some(self.number(2, 2)? as i32 + 2000),
            'y' | 'u' => {
                let negative = self.rest.strip_prefix('-');
                self.rest = negative.unwrap_or(self.rest);
                let year = self.number(width.min(4), if abuts { width } else { 6 })? as i32;
                self.found.year = Some(if negative.is_some() { -year } else { year });
            }
            'M' | 'L' if width > 2 => self.found.month = Some(self.name(&MONTHS, width == 3)? + 1),
            'M' | 'L' => self.found.month = Some(two(self)?),
            'E' => drop(self.name(&DAYS, width < 4)?),
            'Q' | 'q' => drop(two(self)?),
            'd' => self.found.day = Some(two(self)?),
            'D' => self.found.ordinal = Some(self.number(width, 3)?),
            'H' => self.found.hour = Some(two(self)?),
            'k' => self.found.hour = Some(two(self)? % 24),
            'h' => self.found.half = Some(Some(two(self)?).filter(|h| (1..=12).contains(h))? % 12),
            'K' => self.found.half = Some(Some(two(self)?).filter(|h| *h < 12)?),
            'm' => self.found.minute = two(self)?,
            's' => self.found.second = two(self)?,
            'S' => self.found.nanos = self.number(width, width)? * 10_u32.pow(9 - width as u32),
            'a' => self.found.afternoon = Some(self.name(&["AM", "PM"], false)? == 1),
            _ => self.found.offset = Some(self.offset()?),
        }
        Some(())
    }

    /// `Z`, `+02`, `+0200` or `+02:00`
    fn offset(&mut self) -> Option<i32> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Some(0);
        }
        let sign = match self.rest.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        self.rest = &self.rest[1..];
        let hours = self.number(2, 2)?;
        self.rest = self.rest.strip_prefix(':').unwrap_or(self.rest);
        let minutes = if self.rest.starts_with(|c: char| c.is_ascii_digit()) { self.number(2, 2)? } else { 0 };
        let seconds = sign * (hours * 3600 + minutes * 60) as i32;
        Some(seconds).filter(|s| s.abs() <= 18 * 3600)
    }
}

/// Reads what needs no pattern: `2024-01-02`, `2024-01-02 03:04`, `2024-01-02T03:04:05.678`, with an offset such as `Z` or `+02:00` behind it.
pub(super) fn read_default(text: &str) -> Option<Read> {
    let mut reader = Reader { rest: text.trim(), found: Found::default() };
    let negative = reader.rest.strip_prefix('-');
    reader.rest = negative.unwrap_or(reader.rest);
    let year = reader.number(4, 6)? as i32;
    reader.found.year = Some(if negative.is_some() { -year } else { year });
    let literal = |c: char, reader: &mut Reader<'_>| {
        let rest = reader.rest.strip_prefix(c);
        reader.rest = rest.unwrap_or(reader.rest);
        rest.is_some()
    };
    if literal('-', &mut reader) {
        reader.found.month = Some(reader.number(1, 2)?);
        if literal('-', &mut reader) {
            reader.found.day = Some(reader.number(1, 2)?);
        }
    }
    if literal('T', &mut reader) || literal(' ', &mut reader) {
        reader.found.hour = Some(reader.number(1, 2)?);
        if literal(':', &mut reader) {
            reader.found.minute = reader.number(1, 2)?;
            if literal(':', &mut reader) {
                reader.found.second = reader.number(1, 2)?;
                if literal('.', &mut reader) {
                    let length = reader.rest.bytes().take(9).take_while(u8::is_ascii_digit).count();
                    reader.found.nanos = reader.number(1, 9)? * 10_u32.pow(9 - length as u32);
                }
            }
        }
        literal(' ', &mut reader);
        if !reader.rest.is_empty() {
            reader.found.offset = Some(reader.offset()?);
        }
    }
    if reader.rest.is_empty() { reader.found.finish() } else { None }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        text.parse::<NaiveDateTime>().unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn written() {
        let at = micros("2020-01-02T03:04:05.006007");
        for (pattern, shown) in [
            ("yyyy-MM-dd HH:mm:ss.SSS", "2020-01-02 03:04:05.006"),
            ("d/M/yy 'at' h a", "2/1/20 at 3 AM"),
            ("EEEE, MMM d 100%", "Thursday, Jan 2 100%"),
            ("yyyy''MM", "2020'01"),
            ("MMMM D k K S SSSSSS QQ y", "January 2 3 3 0 006007 01 2020"),
            ("XXX xx Z", "+05:30 +0530 +0530"),
        ] {
            let mut out = String::new();
            assert!(Pattern::parse(pattern, "f").unwrap().write(at, 19_800, &mut out));
            assert_eq!(out, shown, "{pattern}");
        }
    }

    #[test]
    fn the_text_stays_for_a_step() {
        for pattern in ["yyyy-MM-dd", "HH:mm", "h a", "ss", "D EEE MMM d", "HH:mm:ss.SSS", "SSSSSS", "QQ k K", "'x'"] {
            let pattern = Pattern::parse(pattern, "f").unwrap();
            let written = |local: i64| {
                let mut out = String::new();
                assert!(pattern.write(local, 0, &mut out));
                out
            };
            for time in (-40_i64..40).flat_map(|i| [i * 1_001, i * 59_999_999, i * 3_599_000_000, i * DAY + i]) {
                let first = time.div_euclid(pattern.step()) * pattern.step();
                assert_eq!(written(time), written(first), "{pattern:?} at {time}");
                assert_eq!(written(time), written(first + pattern.step() - 1), "{pattern:?} at {time}");
            }
        }
    }

    #[test]
    fn read() {
        for (pattern, text, found) in [
            ("yyyy-MM-dd", "2020-01-02", Some("2020-01-02T00:00:00")),
            ("yyyy-MM-dd", "2020-1-2", None),
            ("yyyy-M-d", "2020-1-2", Some("2020-01-02T00:00:00")),
            ("yyyy-MM-dd", "2020-02-30", None),
            ("yyyy-MM-dd", "2020-01-02x", None),
            ("yyyy-MM-dd", "", None),
            ("yyyyMMddHHmmss", "20200102030405", Some("2020-01-02T03:04:05")),
            ("dd MMM yyyy hh:mm a", "02 jan 2020 12:30 AM", Some("2020-01-02T00:30:00")),
            ("dd MMM yyyy hh:mm a", "02 JAN 2020 12:30 pm", Some("2020-01-02T12:30:00")),
            ("EEE, d MMMM yy", "Thu, 2 January 20", Some("2020-01-02T00:00:00")),
            ("HH:mm:ss.SSS", "03:04:05.006", Some("1970-01-01T03:04:05.006")),
            ("HH:mm", "24:00", None),
            ("D yyyy", "366 2020", Some("2020-12-31T00:00:00")),
        ] {
            let read = Pattern::parse(pattern, "f").unwrap().read(text, false);
            assert_eq!(read.map(|r| r.local), found.map(micros), "{pattern} {text}");
        }
        let zoned = Pattern::parse("yyyy-MM-dd HH:mm X", "f").unwrap();
        assert_eq!(zoned.read("2020-01-02 03:04 +0800", false).unwrap().offset, Some(28_800));
        assert_eq!(zoned.read("2020-01-02 03:04 Z", false).unwrap().offset, Some(0));
        assert_eq!(zoned.read("2020-01-02 03:04", false), None);
    }

    #[test]
    fn letters_that_are_refused() {
        for (pattern, part) in [("YYYY", "'YYYY'"), ("yyyy-w", "'w'"), ("yyyy 'x", "not closed"), ("[SSS]", "'['")] {
            assert!(Pattern::parse(pattern, "f").unwrap_err().to_string().contains(part), "{pattern}");
        }
    }

    #[test]
    fn without_a_pattern() {
        for (text, found) in [
            ("2020-01-02", Some(("2020-01-02T00:00:00", None))),
            ("2020-01-02 03:04:05.678", Some(("2020-01-02T03:04:05.678", None))),
            ("2020-01-02T03:04:05Z", Some(("2020-01-02T03:04:05", Some(0)))),
            (" 2020-01-02 03:04 +02:00", Some(("2020-01-02T03:04:00", Some(7_200)))),
            ("2020", Some(("2020-01-01T00:00:00", None))),
            ("2020-13-01", None),
            ("yesterday", None),
            ("", None),
        ] {
            let read = read_default(text).map(|r| (r.local, r.offset));
            assert_eq!(read, found.map(|(t, o)| (micros(t), o)), "{text}");
        }
    }
}

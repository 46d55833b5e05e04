//! Dates, times of day and timestamps as text, in the proleptic Gregorian calendar and UTC.
use arrow::datatypes::TimeUnit;

use super::number::Misfit;
use super::{eight, non_digits};

/// Days from 1970-01-01 to the date (Howard Hinnant's `days_from_civil`).
pub(crate) fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    let y = i64::from(year) - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = i64::from((153 * ((month + 9) % 12) + 2) / 5 + day - 1);
    (era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468) as i32
}

/// The date that is `days` after 1970-01-01: year, month, day.
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (year_of_era + z.div_euclid(146_097) * 400 + i64::from(month <= 2), month, day)
}

/// `count` digits at the start of `text`.
fn digits(text: &[u8], count: usize) -> Option<u32> {
    let text = text.get(..count)?;
    text.iter().try_fold(0_u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}

/// The date `yyyy-MM-dd` at the start of `text`, as days.
fn date_prefix(text: &[u8]) -> Option<i32> {
    let (year, month, day) = (digits(text, 4)?, digits(text.get(5..)?, 2)?, digits(text.get(8..)?, 2)?);
    if text[4] != b'-' || text[7] != b'-' || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (day <= length).then(|| days_from_civil(year as i32, month, day))
}

/// `HH:mm[:ss[.fraction]]` at the start of `text`: seconds, nanoseconds, bytes used. Digits after the ninth are dropped.
fn clock_prefix(text: &[u8]) -> Option<(u32, u32, usize)> {
    let (hour, minute) = (digits(text, 2)?, digits(text.get(3..)?, 2)?);
    if text[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    if text.get(5) != Some(&b':') {
        return Some((hour * 3600 + minute * 60, 0, 5));
    }
    let second = digits(text.get(6..)?, 2).filter(|s| *s < 60)?;
    let seconds = hour * 3600 + minute * 60 + second;
    if text.get(8) != Some(&b'.') {
        return Some((seconds, 0, 8));
    }
    let fraction = &text[9..];
    let count = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let kept = count.min(9);
    let nanos = digits(fraction, kept)? * 10_u32.pow((9 - kept) as u32);
    Some((seconds, nanos, 9 + count))
}

/// Offset from UTC in seconds: `Z`, `+hh`, `+hhmm`, `+hh:mm`; nothing is UTC.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text.split_first() {
        None => return Some(0),
        Some((b'Z' | b'z', rest)) => return rest.is_empty().then_some(0),
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        Some(_) => return None,
    };
    let minutes = match rest.len() {
        2 => 0,
        4 => digits(&rest[2..], 2)?,
        5 if rest[2] == b':' => digits(&rest[3..], 2)?,
        _ => return None,
    };
    let hours = digits(rest, 2)?;
    (hours <= 18 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

/// Parses `yyyy-MM-dd` with surrounding spaces as days since 1970-01-01.
pub(crate) fn parse_date(text: &[u8]) -> Result<i32, Misfit> {
    let text = text.trim_ascii();
    if text.len() == 10 { date_prefix(text).ok_or(Misfit::Form) } else { Err(Misfit::Form) }
}

/// Parses `HH:mm[:ss[.fraction]]`, optionally followed by `Z`, in `unit`s since midnight.
pub(crate) fn parse_time(text: &[u8], unit: TimeUnit) -> Result<i64, Misfit> {
    let text = text.trim_ascii();
    let (seconds, nanos, used) = clock_prefix(text).ok_or(Misfit::Form)?;
    match &text[used..] {
        [] | b"Z" | b"z" => in_unit(i64::from(seconds), nanos, unit).ok_or(Misfit::Range),
        _ => Err(Misfit::Form),
    }
}

/// Parses a timestamp in `unit`s since 1970-01-01T00:00:00Z: `yyyy-MM-dd`, then optionally `T` or a space and a time of
/// day, then optionally `Z` or an offset (after a space, if one likes). Text of nine or more digits is epoch
/// milliseconds. What is finer than the unit is cut off.
pub(crate) fn parse_timestamp(text: &[u8], unit: TimeUnit) -> Result<i64, Misfit> {
    let text = text.trim_ascii();
    let number = text.strip_prefix(b"-").unwrap_or(text);
    if number.len() >= 9 && number.iter().all(u8::is_ascii_digit) {
        let millis = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(Misfit::Range)?;
        return from_millis(millis, unit).ok_or(Misfit::Range);
    }
    let days = date_prefix(text).ok_or(Misfit::Form)?;
    let (mut seconds, mut nanos) = (i64::from(days) * 86_400, 0);
    match text.get(10) {
        None => {}
        Some(b' ' | b'T' | b't') => {
            let (clock, fraction, used) = clock_prefix(&text[11..]).ok_or(Misfit::Form)?;
            let zone = offset(text[11 + used..].trim_ascii_start()).ok_or(Misfit::Form)?;
            seconds += i64::from(clock) - zone;
            nanos = fraction;
        }
        Some(_) => return Err(Misfit::Form),
    }
    in_unit(seconds, nanos, unit).ok_or(Misfit::Range)
}

/// Ticks per second.
pub(crate) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn in_unit(seconds: i64, nanos: u32, unit: TimeUnit) -> Option<i64> {
    let ticks = per_second(unit);
    seconds.checked_mul(ticks)?.checked_add(i64::from(nanos) / (1_000_000_000 / ticks))
}

/// Milliseconds in another unit; finer is cut off towards the past.
pub(crate) fn from_millis(millis: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => Some(millis.div_euclid(1000)),
        TimeUnit::Millisecond => Some(millis),
        TimeUnit::Microsecond => millis.checked_mul(1000),
        TimeUnit::Nanosecond => millis.checked_mul(1_000_000),
    }
}

/// Remembers the last minute of a column: successive rows mostly share it, so that one comparison of 16 bytes replaces
/// parsing date, hour and minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinuteCache {
    prefix: [u8; 16],
    /// Seconds since 1970 of the minute.
    seconds: i64,
}

impl Default for MinuteCache {
    fn default() -> Self {
        Self { prefix: *b"1970-01-01 00:00", seconds: 0 }
    }
}

impl MinuteCache {
    /// The instant of `yyyy-MM-dd HH:mm:ss.SSS"` (or with `T`) at the start of `bytes`, quote included, in
    /// milliseconds. `None` says nothing about the input: use [`parse_timestamp`].
    #[inline]
    pub(crate) fn millis(&mut self, bytes: &[u8]) -> Option<i64> {
        // `:ss.SSS"` as a little-endian word.
        const FIXED: u64 = 0xff00_0000_ff00_00ff;
        const SIGNS: u64 = u64::from_le_bytes([b':', 0, 0, b'.', 0, 0, 0, b'"']);
        let (prefix, tail) = (bytes.first_chunk::<16>()?, eight(bytes, 16)?);
        if tail & FIXED != SIGNS || non_digits(tail) != FIXED & 0x8080_8080_8080_8080 {
            return None;
        }
        if *prefix != self.prefix {
            let days = date_prefix(prefix)?;
            let (clock, _, used) = clock_prefix(&prefix[11..])?;
            if used != 5 || !matches!(prefix[10], b' ' | b'T') {
                return None;
            }
            *self = Self { prefix: *prefix, seconds: i64::from(days) * 86_400 + i64::from(clock) };
        }
        let digit = |i: u32| ((tail >> (8 * i)) & 0xf) as i64;
        let second = digit(1) * 10 + digit(2);
        let millis = digit(4) * 100 + digit(5) * 10 + digit(6);
        (second < 60).then_some((self.seconds + second) * 1000 + millis)
    }
}

/// Appends `yyyy-MM-dd`.
pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(days);
    if (0..=9999).contains(&year) {
        pair(year as u32 / 100, out);
        pair(year as u32 % 100, out);
    } else {
        out.extend_from_slice(year.to_string().as_bytes());
    }
    out.push(b'-');
    pair(month, out);
    out.push(b'-');
    pair(day, out);
}

/// Appends `HH:mm:ss` and the fraction with as many digits as the unit has.
pub(crate) fn write_time(ticks: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    let per = per_second(unit);
    let (seconds, fraction) = (ticks.div_euclid(per), ticks.rem_euclid(per));
    let seconds = seconds.rem_euclid(86_400) as u32;
    pair(seconds / 3600, out);
    out.push(b':');
    pair(seconds / 60 % 60, out);
    out.push(b':');
    pair(seconds % 60, out);
    let mut place = per / 10;
    if place > 0 {
        out.push(b'.');
    }
    while place > 0 {
        out.push(b'0' + (fraction / place % 10) as u8);
        place /= 10;
    }
}

/// Appends date and time, with `T` and `Z` if `iso`.
pub(crate) fn write_timestamp(ticks: i64, unit: TimeUnit, iso: bool, out: &mut Vec<u8>) {
    let per_day = 86_400 * per_second(unit);
    write_date(ticks.div_euclid(per_day), out);
    out.push(if iso { b'T' } else { b' ' });
    write_time(ticks.rem_euclid(per_day), unit, out);
    if iso {
        out.push(b'Z');
    }
}

fn pair(n: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (n / 10) as u8, b'0' + (n % 10) as u8]);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn ms(text: &str) -> Result<i64, Misfit> {
        parse_timestamp(text.as_bytes(), TimeUnit::Millisecond)
    }

    #[test]
    fn dates_go_both_ways() {
        for (days, text) in
            [(0, "1970-01-01"), (-719_528, "0000-01-01"), (11_016, "2000-02-29"), (2_932_896, "9999-12-31")]
        {
            let mut out = Vec::new();
            write_date(days, &mut out);
            assert_eq!(out, text.as_bytes());
            assert_eq!(parse_date(text.as_bytes()).map(i64::from), Ok(days));
        }
        for days in (-800_000..800_000).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(i64::from(days_from_civil(y as i32, m, d)), days);
        }
        for bad in ["2015-02-29", "2015-13-01", "2015-00-01", "2015-01-00", "2015-1-1", "15-01-01", "2015/01/01", ""] {
            assert_eq!(parse_date(bad.as_bytes()), Err(Misfit::Form), "{bad}");
        }
    }

    #[test]
    fn timestamps_in_every_form() {
        let base = 1_436_918_400_000;
        for (text, millis) in [
            ("2015-07-15 00:00:00.123", base + 123),
            ("2015-07-15T00:00:00.123Z", base + 123),
            ("2015-07-15T00:00:00.123999", base + 123),
            ("2015-07-15 02:00:00+02:00", base),
            ("2015-07-15 00:00:00 -0130", base + 5_400_000),
            ("2015-07-15T00:00+00", base),
            ("2015-07-15", base),
            (" 1436918400000 ", base),
            ("-100000000", -100_000_000),
            ("1969-12-31 23:59:59.999", -1),
        ] {
            assert_eq!(ms(text), Ok(millis), "{text}");
        }
        for bad in [
            "",
            "2015",
            "2015-07-15x",
            "2015-07-15 24:00:00",
            "2015-07-15 00:60",
            "2015-07-15 00:00:60",
            "2015-07-15 00:00:00.",
            "2015-07-15T00:00:00Zx",
            "2015-07-15T00:00:00+19:00",
            "20150715",
        ] {
            assert_eq!(ms(bad), Err(Misfit::Form), "{bad}");
        }
        assert_eq!(parse_timestamp(b"9999-01-01", TimeUnit::Nanosecond), Err(Misfit::Range));
        assert_eq!(ms("99999999999999999999"), Err(Misfit::Range));
    }

    #[test]
    fn the_cache_agrees_with_the_parser() {
        let mut cache = MinuteCache::default();
        for text in
            ["2015-07-15 00:00:00.123", "2015-07-15 00:00:59.999", "2015-07-15T00:01:07.000", "1970-01-01 00:00:00.001"]
        {
            assert_eq!(cache.millis(format!("{text}\"").as_bytes()), Some(ms(text).unwrap()), "{text}");
        }
        for bad in [
            "2015-07-15 00:00:60.123\"",
            "2015-07-15x00:00:00.123\"",
            "2015-02-30 00:00:00.123\"",
            "2015-07-15 00:00:00.123Z",
            "2015-07-15 00:00:00,123\"",
            "2015-07-15 00:00:0:.123\"",
            "2015-07-15",
        ] {
            assert_eq!(cache.millis(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn writing() {
        let write = |ticks, unit, iso| {
            let mut out = Vec::new();
            write_timestamp(ticks, unit, iso, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(write(1_436_918_400_123, TimeUnit::Millisecond, false), "2015-07-15 00:00:00.123");
        assert_eq!(write(-1, TimeUnit::Microsecond, true), "1969-12-31T23:59:59.999999Z");
        assert_eq!(write(0, TimeUnit::Second, true), "1970-01-01T00:00:00Z");
        assert_eq!(parse_time(b"23:59:59.5", TimeUnit::Millisecond), Ok(86_399_500));
        assert_eq!(parse_time(b"25:00", TimeUnit::Millisecond), Err(Misfit::Form));
    }
}

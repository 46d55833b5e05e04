//! Numbers: the JSON grammar, scanned into sign, digits and a power of ten.
use super::{eight, non_digits};

/// A number as scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub negative: bool,
    /// All digits without the point. Meaningless unless `exact`.
    pub digits: u64,
    /// The value is `digits × 10^exponent`.
    pub exponent: i32,
    /// `digits` did not overflow.
    pub exact: bool,
    /// Bytes of the number.
    pub len: usize,
}

/// Value of up to eight leading digits of `word` (its first `count` bytes).
#[inline]
fn digits_of(word: u64, count: u32) -> u64 {
    // The digits move to the end of the word, zeros come before them; then pairs, fours, eights are added.
    let t = (word ^ 0x3030_3030_3030_3030) << (8 * (8 - count));
    let t = t.wrapping_mul(10).wrapping_add(t >> 8);
    ((t & 0x0000_00ff_0000_00ff)
        .wrapping_mul(0x000f_4240_0000_0064)
        .wrapping_add(((t >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001)))
        >> 32
}

/// An integer at the start of `bytes[at..]` that is not followed by a point or an exponent: the common case, without
/// loops that depend on the number of digits. `None` says nothing about the input: use [`scan`].
#[inline]
pub(crate) fn short_integer(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let word = eight(bytes, at)?;
    let count = non_digits(word).trailing_zeros() / 8;
    if count == 0 || (count > 1 && word & 0xff == u64::from(b'0')) {
        return None;
    }
    if count < 8 {
        let value = digits_of(word, count);
        let end = at + count as usize;
        return match (word >> (8 * count)) as u8 {
            b'.' | b'e' | b'E' => None,
            _ => Some((value, end)),
        };
    }
    let next = eight(bytes, at + 8)?;
    let more = non_digits(next).trailing_zeros() / 8;
    if more == 8 {
        return None;
    }
    let value = digits_of(word, 8);
    let value = if more == 0 { value } else { value * POWERS[more as usize] + digits_of(next, more) };
    match (next >> (8 * more)) as u8 {
        b'.' | b'e' | b'E' => None,
        _ => Some((value, at + 8 + more as usize)),
    }
}

/// Powers of ten that fit.
const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < 20 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Scans the JSON number at the start of `bytes`. `None`: there is none, or it breaks the grammar (`01`, `1.`, `.5`,
/// `+1`).
pub(crate) fn scan(bytes: &[u8]) -> Option<Number> {
    let negative = bytes.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut n = Number { negative, digits: 0, exponent: 0, exact: true, len: 0 };
    let digit = |at: usize| bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10);
    let whole_start = at;
    while let Some(d) = digit(at) {
        n.push(0, d);
        at += 1;
    }
    if at == whole_start || (at > whole_start + 1 && bytes[whole_start] == b'0') {
        return None;
    }
    let mut exponent = 0_i64;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let start = at;
        // Zeros count once another digit follows: `1.000` has the digits of `1`.
        let mut zeros = 0;
        while let Some(d) = digit(at) {
            at += 1;
            if d == 0 {
                zeros += 1;
            } else {
                n.push(zeros, d);
                exponent -= 1 + zeros as i64;
                zeros = 0;
            }
        }
        if at == start {
            return None;
        }
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        let down = bytes.get(at) == Some(&b'-');
        at += usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
        let start = at;
        let mut power = 0_i64;
        while let Some(d) = digit(at) {
            power = (power * 10 + i64::from(d)).min(1 << 40);
            at += 1;
        }
        if at == start {
            return None;
        }
        exponent += if down { -power } else { power };
    }
    n.exponent = exponent.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    n.len = at;
    Some(n)
}

/// Why a number does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Out of the type's range.
    Range,
    /// It has a fraction and the type has none.
    Fraction,
    /// Not a value of this type at all.
    Form,
}

impl Number {
    /// Appends `zeros` zeros and a digit.
    #[inline]
    fn push(&mut self, zeros: usize, digit: u8) {
        let power = if self.digits == 0 { Some(&1) } else { POWERS.get(zeros + 1) };
        let digits = power.and_then(|p| self.digits.checked_mul(*p)).and_then(|d| d.checked_add(u64::from(digit)));
        match digits {
            Some(digits) if self.exact => self.digits = digits,
            _ => self.exact = false,
        }
    }

    /// Sign and magnitude, if the value is whole (`1.0` and `1e3` are).
    pub(crate) fn whole(&self) -> Result<(bool, u64), Misfit> {
        if !self.exact {
            return Err(Misfit::Range);
        }
        let magnitude = if self.digits == 0 {
            0
        } else if self.exponent >= 0 {
            let power = POWERS.get(self.exponent as usize).ok_or(Misfit::Range)?;
            self.digits.checked_mul(*power).ok_or(Misfit::Range)?
        } else {
            match POWERS.get(self.exponent.unsigned_abs() as usize) {
                Some(power) if self.digits.is_multiple_of(*power) => self.digits / power,
                _ => return Err(Misfit::Fraction),
            }
        };
        Ok((self.negative, magnitude))
    }

    /// The nearest `f64` where one multiplication or division by an exact power gives it (Clinger's fast path).
    pub(crate) fn quick_float(&self) -> Option<f64> {
        const EXACT: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
            1e19, 1e20, 1e21, 1e22,
        ];
        if !self.exact || self.digits > 1 << 53 {
            return None;
        }
        let power = *EXACT.get(self.exponent.unsigned_abs() as usize)?;
        let digits = self.digits as f64;
        let value = if self.exponent < 0 { digits / power } else { digits * power };
        Some(if self.negative { -value } else { value })
    }
}

/// A whole number as text that is not JSON: surrounding spaces, a plus sign and leading zeros are fine.
pub(crate) fn parse_whole(text: &[u8]) -> Result<(bool, u64), Misfit> {
    scan(plain(text)).filter(|n| n.len == plain(text).len()).ok_or(Misfit::Form)?.whole()
}

/// A float as text: as [`parse_whole`], and `NaN`, `Infinity`, `Inf` with a sign, in any case.
pub(crate) fn parse_float(text: &[u8]) -> Result<f64, Misfit> {
    let text = text.trim_ascii();
    let value: f64 = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(Misfit::Form)?;
    named_or_finite(text, value, value.is_finite())
}

/// As [`parse_float`], rounded once to `f32`.
pub(crate) fn parse_float32(text: &[u8]) -> Result<f32, Misfit> {
    let text = text.trim_ascii();
    let value: f32 = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(Misfit::Form)?;
    named_or_finite(text, value, value.is_finite())
}

/// An infinity that was written with digits has overflowed.
fn named_or_finite<T>(text: &[u8], value: T, finite: bool) -> Result<T, Misfit> {
    if finite || !text.iter().any(u8::is_ascii_digit) { Ok(value) } else { Err(Misfit::Range) }
}

/// `text` without what JSON does not allow around or before the digits.
pub(crate) fn plain(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    let text = match text.split_first() {
        Some((b'+', rest)) if rest.first() != Some(&b'-') => rest,
        _ => text,
    };
    if text.first() == Some(&b'-') {
        return text;
    }
    let zeros = text.iter().take_while(|b| **b == b'0').count();
    match text.get(zeros) {
        Some(b'0'..=b'9') => &text[zeros..],
        _ => &text[zeros.saturating_sub(1)..],
    }
}

/// Appends an integer.
pub(crate) fn write_integer(negative: bool, mut magnitude: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (magnitude % 10) as u8;
        magnitude /= 10;
        if magnitude == 0 {
            break;
        }
    }
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends the shortest text that reads back as `value`, or `NaN`, `Infinity`, `-Infinity`.
pub(crate) fn write_double(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(out, &value);
    } else {
        write_not_finite(value, out);
    }
}

/// As [`write_double`], for the shortest text that reads back as this `f32`.
pub(crate) fn write_single(value: f32, out: &mut Vec<u8>) {
    if value.is_finite() {
        let _ = serde_json::to_writer(out, &value);
    } else {
        write_not_finite(f64::from(value), out);
    }
}

fn write_not_finite(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match value {
        v if v.is_nan() => b"NaN",
        v if v > 0.0 => b"Infinity",
        _ => b"-Infinity",
    });
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn short_integers_agree_with_the_scanner() {
        for text in ["0,", "7}", "12345678,", "123456789,", "123456789012345,", "99999999]", "10000000 "] {
            let padded = format!("{text}                ");
            let (value, end) = short_integer(padded.as_bytes(), 0).unwrap();
            assert_eq!((value.to_string().as_str(), end), (&text[..text.len() - 1], text.len() - 1), "{text}");
        }
        for text in ["01,", "-1,", "1.5,", "12345678e1,", "1234567890123456,", ",", "12"] {
            let padded = if text == "12" { text.to_owned() } else { format!("{text}                ") };
            assert_eq!(short_integer(padded.as_bytes(), 0), None, "{text}");
        }
    }

    #[test]
    fn grammar() {
        for bad in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "x", "-01"] {
            assert_eq!(scan(bad.as_bytes()), None, "{bad}");
        }
        for (text, len) in [("0", 1), ("-0.50", 5), ("1e9,", 3), ("1E-7}", 4), ("12.25 ", 5)] {
            assert_eq!(scan(text.as_bytes()).unwrap().len, len, "{text}");
        }
    }

    #[test]
    fn whole_numbers() {
        let whole = |t: &str| parse_whole(t.as_bytes());
        assert_eq!(whole(" 12 "), Ok((false, 12)));
        assert_eq!(whole("-12.00"), Ok((true, 12)));
        assert_eq!(whole("1.5e1"), Ok((false, 15)));
        assert_eq!(whole("+007"), Ok((false, 7)));
        assert_eq!(whole("000"), Ok((false, 0)));
        assert_eq!(whole("18446744073709551615"), Ok((false, u64::MAX)));
        assert_eq!(whole("18446744073709551616"), Err(Misfit::Range));
        assert_eq!(whole("1e20"), Err(Misfit::Range));
        assert_eq!(whole("0e99999999999"), Ok((false, 0)));
        assert_eq!(whole("1.5"), Err(Misfit::Fraction));
        assert_eq!(whole("12a"), Err(Misfit::Form));
        assert_eq!(whole("+-1"), Err(Misfit::Form));
        assert_eq!(whole(""), Err(Misfit::Form));
    }

    #[test]
    fn floats() {
        for text in ["0.1", "123.456e-7", "9007199254740993", "1e22", "-2.5", "5e-324", "1.7976931348623157e308"] {
            let number = scan(text.as_bytes()).unwrap();
            let exact: f64 = text.parse().unwrap();
            assert_eq!(number.quick_float().unwrap_or(exact).to_bits(), exact.to_bits(), "{text}");
            assert_eq!(parse_float(text.as_bytes()), Ok(exact));
        }
        assert_eq!(parse_float(b"-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(parse_float(b"NaN").unwrap().is_nan());
        assert_eq!(parse_float(b"1e400"), Err(Misfit::Range));
        assert_eq!(parse_float(b"twelve"), Err(Misfit::Form));
        assert_eq!(parse_float32(b"1e39"), Err(Misfit::Range));
    }
}

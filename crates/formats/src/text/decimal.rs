//! Decimals: digits scaled into an `i128`.
use super::number::{Misfit, plain};

/// Parses `text` (JSON number syntax, or looser as in CSV) as a decimal of `precision` digits, `scale` of them after
/// the point. Digits beyond the scale are rounded half away from zero, as Flink and Spark do.
pub(crate) fn parse(text: &[u8], precision: u8, scale: i8) -> Result<i128, Misfit> {
    let text = plain(text);
    let (negative, mut rest) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let mut power = 0_i64;
    if let Some(e) = rest.iter().position(|b| matches!(b, b'e' | b'E')) {
        power = exponent(&rest[e + 1..])?;
        rest = &rest[..e];
    }
    let point = rest.iter().position(|b| *b == b'.');
    let (whole, fraction) = match point {
        Some(p) => (&rest[..p], &rest[p + 1..]),
        None => (rest, &rest[..0]),
    };
    if whole.is_empty() && fraction.is_empty() || (point.is_some() && fraction.is_empty()) {
        return Err(Misfit::Form);
    }
    // Digit i stands for 10^(whole - 1 - i + power); those at or above 10^-scale are kept, the next one rounds.
    let kept = i64::try_from(whole.len()).map_err(|_| Misfit::Range)? + power + i64::from(scale);
    let mut value = 0_i128;
    let mut round_up = false;
    for (i, b) in (0_i64..).zip(whole.iter().chain(fraction)) {
        if !b.is_ascii_digit() {
            return Err(Misfit::Form);
        }
        let digit = i128::from(b - b'0');
        if i < kept {
            value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(Misfit::Range)?;
        } else if i == kept {
            round_up = digit >= 5;
        }
    }
    let missing = kept - (whole.len() + fraction.len()) as i64;
    if missing > 0 && value != 0 {
        let factor = u32::try_from(missing).ok().and_then(|m| 10_i128.checked_pow(m)).ok_or(Misfit::Range)?;
        value = value.checked_mul(factor).ok_or(Misfit::Range)?;
    }
    value += i128::from(round_up);
    let limit = 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    if value >= limit {
        return Err(Misfit::Range);
    }
    Ok(if negative { -value } else { value })
}

fn exponent(text: &[u8]) -> Result<i64, Misfit> {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Misfit::Form);
    }
    let power = digits.iter().fold(0_i64, |p, d| (p * 10 + i64::from(d - b'0')).min(1 << 40));
    Ok(if text[0] == b'-' { -power } else { power })
}

/// Appends `value` with `scale` digits after the point.
pub(crate) fn write(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let digits = value.unsigned_abs().to_string();
    let digits = digits.as_bytes();
    if scale <= 0 {
        out.extend_from_slice(digits);
        if value != 0 {
            out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + scale - digits.len(), b'0');
        out.extend_from_slice(digits);
    } else {
        out.extend_from_slice(&digits[..whole]);
        out.push(b'.');
        out.extend_from_slice(&digits[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_rounds() {
        let dec = |t: &str| parse(t.as_bytes(), 6, 2);
        assert_eq!(dec("12.34"), Ok(1234));
        assert_eq!(dec("-12.345"), Ok(-1235));
        assert_eq!(dec("12.344999"), Ok(1234));
        assert_eq!(dec("0.005"), Ok(1));
        assert_eq!(dec("0.0049"), Ok(0));
        assert_eq!(dec("1e3"), Ok(100_000));
        assert_eq!(dec("1.5E-1"), Ok(15));
        assert_eq!(dec("9999.994"), Ok(999_999));
        assert_eq!(dec("9999.995"), Err(Misfit::Range));
        assert_eq!(dec("10000"), Err(Misfit::Range));
        assert_eq!(dec("1e-999999999999"), Ok(0));
        assert_eq!(dec("1e999999999999"), Err(Misfit::Range));
        assert_eq!(dec("0e999999999999"), Ok(0));
        for bad in ["", ".", "-", "1.", "1e", "a", "1..2", "--1"] {
            assert_eq!(dec(bad), Err(Misfit::Form), "{bad}");
        }
        assert_eq!(parse(&[b'9'; 38], 38, 0), Ok(10_i128.pow(38) - 1));
        assert_eq!(parse(&[b'9'; 60], 38, 0), Err(Misfit::Range));
        assert_eq!(parse(b"1250", 6, -2), Ok(13));
    }

    #[test]
    fn writes_what_it_parses() {
        for (value, scale, text) in [
            (1234, 2, "12.34"),
            (-5, 2, "-0.05"),
            (0, 3, "0.000"),
            (13, -2, "1300"),
            (7, 0, "7"),
            (-1234, 4, "-0.1234"),
        ] {
            let mut out = Vec::new();
            write(value, scale, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
            assert_eq!(parse(&out, 10, scale), Ok(value));
        }
    }
}

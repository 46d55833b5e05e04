//! `DATE_FORMAT(timestamp, pattern)` with the letters of Java's `DateTimeFormatter`, as Flink and Spark have them.
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use chrono::DateTime;
use chrono::format::{Fixed, Item, Numeric, StrftimeItems};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub(super) fn date_format() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateFormat { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateFormat {
    signature: Signature,
}

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for DateFormat {
    fn name(&self) -> &str {
        "date_format"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        // A pattern that is written in the query fails there and not at the first row.
        if let Some(Some(ScalarValue::Utf8(Some(pattern)))) = args.scalar_arguments.get(1) {
            strftime(pattern)?;
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8 | DataType::Null, DataType::Utf8] => {
                Ok(vec![MICROS, DataType::Utf8])
            }
            _ => plan_err!("date_format takes a timestamp and a pattern such as 'yyyy-MM-dd'"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let times: ArrayRef = cast(&args.args[0].to_array(rows)?, &MICROS)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let patterns = args.args[1].to_array(rows)?;
        let patterns = patterns.as_string::<i32>();
        let mut out = StringBuilder::with_capacity(rows, rows * 10);
        let mut compiled: Option<Compiled<'_>> = None;
        for i in 0..rows {
            if times.is_null(i) || patterns.is_null(i) {
                out.append_null();
                continue;
            }
            let pattern = patterns.value(i);
            let formatter = match compiled.take().filter(|c| c.pattern == pattern) {
                Some(known) => compiled.insert(known),
                None => compiled.insert(Compiled::new(pattern)?),
            };
            let Some(text) = formatter.format(times.value(i)) else {
                return exec_err!("timestamp {} is out of range", times.value(i));
            };
            out.append_value(text);
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

/// A pattern with the text that it gave last: neighbouring rows are mostly of the same day or minute.
struct Compiled<'a> {
    pattern: &'a str,
    items: Vec<Item<'static>>,
    /// Times with the same quotient by this (microseconds) have the same text.
    step: i64,
    last: Option<i64>,
    text: String,
}

impl<'a> Compiled<'a> {
    fn new(pattern: &'a str) -> Result<Self> {
        let format = strftime(pattern)?;
        let items: Vec<Item<'static>> = StrftimeItems::new(&format).map(Item::to_owned).collect();
        let step = items.iter().map(step).min().unwrap_or(DAY);
        Ok(Self { pattern, items, step, last: None, text: String::new() })
    }

    /// `None` if the time is beyond the calendar.
    fn format(&mut self, micros: i64) -> Option<&str> {
        let quotient = micros.div_euclid(self.step);
        if self.last != Some(quotient) {
            let time = DateTime::from_timestamp_micros(micros)?.naive_utc();
            self.text.clear();
            write!(self.text, "{}", time.format_with_items(self.items.iter())).ok()?;
            self.last = Some(quotient);
        }
        Some(&self.text)
    }
}

const DAY: i64 = 86_400_000_000;

/// How long the text of an item stays the same, at least.
fn step(item: &Item<'_>) -> i64 {
    match item {
        Item::Literal(_) | Item::OwnedLiteral(_) | Item::Space(_) | Item::OwnedSpace(_) => DAY,
        Item::Numeric(Numeric::Year | Numeric::YearMod100 | Numeric::Month | Numeric::Day | Numeric::Ordinal, _) => DAY,
        Item::Numeric(Numeric::Hour | Numeric::Hour12, _) => 3_600_000_000,
        Item::Numeric(Numeric::Minute, _) => 60_000_000,
        Item::Numeric(Numeric::Second, _) => 1_000_000,
        Item::Fixed(
            Fixed::ShortMonthName | Fixed::LongMonthName | Fixed::ShortWeekdayName | Fixed::LongWeekdayName,
        ) => DAY,
        Item::Fixed(Fixed::UpperAmPm | Fixed::LowerAmPm) => 3_600_000_000,
        _ => 1,
    }
}

/// Java's pattern as one of chrono.
fn strftime(pattern: &str) -> Result<String> {
    let mut out = String::new();
    let chars: Vec<char> = pattern.chars().collect();
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        let run = chars[i..].iter().take_while(|d| **d == c).count();
        let directive = match (c, run) {
            ('y' | 'u', 4 | 1) => "%Y",
            ('y' | 'u', 2) => "%y",
            ('M' | 'L', 1) => "%-m",
            ('M' | 'L', 2) => "%m",
            ('M' | 'L', 3) => "%b",
            ('M' | 'L', 4) => "%B",
            ('d', 1) => "%-d",
            ('d', 2) => "%d",
            ('D', 1 | 3) => "%j",
            ('E', 1..=3) => "%a",
            ('E', 4) => "%A",
            ('H', 1) => "%-H",
            ('H', 2) => "%H",
            ('h', 1) => "%-I",
            ('h', 2) => "%I",
            ('m', 1) => "%-M",
            ('m', 2) => "%M",
            ('s', 1) => "%-S",
            ('s', 2) => "%S",
            ('S', 3) => "%3f",
            ('S', 6) => "%6f",
            ('S', 9) => "%9f",
            ('a', 1) => "%p",
            ('\'', _) => {
                let rest = &chars[i + 1..];
                let Some(length) = rest.iter().position(|d| *d == '\'') else {
                    return plan_err!("date_format: pattern '{pattern}' has a quote that is not closed");
                };
                let text: String = if length == 0 { "'".to_owned() } else { rest[..length].iter().collect() };
                out.push_str(&text.replace('%', "%%"));
                i += length + 2;
                continue;
            }
            (c, _) if c.is_ascii_alphabetic() => {
                return plan_err!(
                    "date_format: pattern '{pattern}' has letters that it does not know: '{}'",
                    c.to_string().repeat(run)
                );
            }
            ('%', _) => {
                out.push_str("%%");
                i += 1;
                continue;
            }
            (c, _) => {
                out.push(c);
                i += 1;
                continue;
            }
        };
        out.push_str(directive);
        i += run;
    }
    match StrftimeItems::new(&out).any(|item| item == Item::Error) {
        true => plan_err!("date_format: pattern '{pattern}' is not one"),
        false => Ok(out),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (java, shown) in [
            ("yyyy-MM-dd HH:mm:ss.SSS", "2020-01-02 03:04:05.006"),
            ("d/M/yy 'at' h a", "2/1/20 at 3 AM"),
            ("EEEE, MMM d 100%", "Thursday, Jan 2 100%"),
            ("yyyy''MM", "2020'01"),
        ] {
            let time = DateTime::from_timestamp_millis(1_577_934_245_006).unwrap();
            assert_eq!(time.naive_utc().format(&strftime(java).unwrap()).to_string(), shown);
        }
        // The text of a row does not depend on the rows before it.
        for pattern in ["yyyy-MM-dd", "HH:mm", "h a", "ss", "D EEE MMM d", "HH:mm:ss.SSS", "SSSSSS"] {
            let mut compiled = Compiled::new(pattern).unwrap();
            let times = (-40_i64..40).flat_map(|i| [i * 1_001, i * 59_999_999, i * 3_599_000_000, i * DAY + i]);
            for time in times {
                let alone = Compiled::new(pattern).unwrap().format(time).unwrap().to_owned();
                assert_eq!(compiled.format(time).unwrap(), alone, "{pattern} at {time}");
            }
        }
        assert!(strftime("yyyy-QQ").unwrap_err().to_string().contains("'QQ'"));
    }
}

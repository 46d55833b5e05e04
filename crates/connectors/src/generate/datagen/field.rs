//! The values of one column.
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, PrimitiveArray, StringArray, Time32MillisecondArray, Time32SecondArray, Time64MicrosecondArray,
    Time64NanosecondArray, make_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{
    DataType, Field, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use millstream_plan::DigestBuilder;
use millstream_plan::options::parse_duration;

use crate::ConnectorError;
use crate::generate::draws::Draws;
use crate::generate::times::{is_timestamp, timestamps};

const DAY_MS: i64 = 86_400_000;

/// Options of a column as they were given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldOptions<'a> {
    kind: Option<&'a str>,
    min: Option<&'a str>,
    max: Option<&'a str>,
    length: Option<&'a str>,
    start: Option<&'a str>,
    end: Option<&'a str>,
    null_rate: Option<&'a str>,
    max_past: Option<&'a str>,
}

impl<'a> FieldOptions<'a> {
    pub const NAMES: [&'static str; 8] = ["kind", "min", "max", "length", "start", "end", "null-rate", "max-past"];

    /// Sets one option; false if there is none of this name.
    pub fn set(&mut self, option: &str, value: &'a str) -> bool {
        let place = match option {
            "kind" => &mut self.kind,
            "min" => &mut self.min,
            "max" => &mut self.max,
            "length" => &mut self.length,
            "start" => &mut self.start,
            "end" => &mut self.end,
            "null-rate" => &mut self.null_rate,
            "max-past" => &mut self.max_past,
            _ => return false,
        };
        *place = Some(value);
        true
    }

    fn is_sequence(&self) -> bool {
        self.kind.is_some_and(|k| k.eq_ignore_ascii_case("sequence"))
    }

    /// Rows after which a sequence with an end has no more values.
    pub fn sequence_length(&self) -> Result<Option<u64>, ConnectorError> {
        match (self.is_sequence(), self.end) {
            (true, Some(end)) => {
                let end: i64 = number("end", end)?;
                let start: i64 = self.start.map_or(Ok(0), |s| number("start", s))?;
                Ok(Some(u64::try_from(end.saturating_sub(start).saturating_add(1)).unwrap_or(0)))
            }
            _ => Ok(None),
        }
    }
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, ConnectorError> {
    text.trim().parse().map_err(|_| {
        ConnectorError::user(
            format!("'{text}' is not a value for a column's option '{option}'"),
            "give a number of the column's type",
        )
    })
}

/// Makes the values of one column.
#[derive(Clone, Debug)]
pub(super) struct FieldRows {
    data_type: DataType,
    /// Seed of this column alone.
    seed: u64,
    /// Part of the rows that are null.
    null_rate: f64,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    /// `start` + row.
    Sequence {
        start: i64,
    },
    /// In `[min, max]`.
    Whole {
        min: i128,
        max: i128,
    },
    /// In `[min, max)`.
    Real {
        min: f64,
        max: f64,
    },
    /// Hexadecimal digits or bytes.
    Text {
        length: usize,
    },
    /// When the row is due, less up to this.
    Time {
        max_past_ms: u64,
    },
    Flag,
}

impl FieldRows {
    pub fn new(table: &str, seed: u64, field: &Field, options: FieldOptions<'_>) -> Result<Self, ConnectorError> {
        let data_type = field.data_type().clone();
        let null_rate = options.null_rate.map_or(Ok(0.0), |r| number("null-rate", r))?;
        if !field.is_nullable() && null_rate > 0.0 {
            return Err(ConnectorError::user(
                format!("table '{table}': column '{}' is NOT NULL but has a null-rate", field.name()),
                "take one of the two away",
            ));
        }
        let values = match options.is_sequence() {
            true => Values::sequence(&data_type, options)?,
            false => Values::random(&data_type, options)?,
        };
        let values = values.ok_or_else(|| {
            let kind = options.kind.unwrap_or("random");
            ConnectorError::user(
                format!(
                    "table '{table}': datagen has no {kind} values of type {data_type} (column '{}')",
                    field.name()
                ),
                "use a primitive type; sequences are of numbers and strings",
            )
        })?;
        let mut digest = DigestBuilder::default();
        digest.add(&seed.to_le_bytes());
        digest.add(field.name().as_bytes());
        Ok(Self { data_type, seed: digest.finish().0 as u64, null_rate, values })
    }

    /// The values of the rows with these numbers, which are due at `times` (milliseconds since 1970 UTC).
    pub fn array(&self, rows: &[u64], times: &[i64]) -> Result<ArrayRef, ArrowError> {
        // The first draw of a row decides about null, whether or not there is a rate: values do not depend on it.
        let draws = || rows.iter().map(|row| Draws::of(self.seed, *row as i64));
        let values = || {
            draws().map(|mut d| {
                d.skip(1);
                d
            })
        };
        let array = match &self.values {
            Values::Sequence { start } => self.whole(rows.iter().map(|row| i128::from(*start) + i128::from(*row)))?,
            Values::Whole { min, max } => self.whole(values().map(|mut d| whole(&mut d, *min, *max)))?,
            Values::Real { min, max } => self.real(values().map(|mut d| min + d.unit() * (max - min))),
            Values::Text { length } => self.text(values(), *length),
            Values::Time { max_past_ms } => {
                let past = |d: &mut Draws| d.below(max_past_ms.saturating_add(1)) as i64;
                self.time(values().zip(times).map(|(mut d, due)| due - past(&mut d)).collect())?
            }
            Values::Flag => Arc::new(BooleanArray::from_iter(values().map(|mut d| Some(d.below(2) > 0)))),
        };
        if self.null_rate <= 0.0 {
            return Ok(array);
        }
        let drawn: Vec<f64> = draws().map(|mut d| d.unit()).collect();
        let valid = NullBuffer::new(BooleanBuffer::collect_bool(rows.len(), |i| drawn[i] >= self.null_rate));
        Ok(make_array(array.to_data().into_builder().nulls(Some(valid)).build()?))
    }

    fn whole(&self, numbers: impl Iterator<Item = i128>) -> Result<ArrayRef, ArrowError> {
        fn cast<T: ArrowPrimitiveType>(
            numbers: impl Iterator<Item = i128>,
            narrow: impl Fn(i128) -> T::Native,
        ) -> ArrayRef {
            Arc::new(PrimitiveArray::<T>::from_iter_values(numbers.map(narrow)))
        }
        Ok(match &self.data_type {
            DataType::Int8 => cast::<Int8Type>(numbers, |n| n as i8),
            DataType::Int16 => cast::<Int16Type>(numbers, |n| n as i16),
            DataType::Int32 => cast::<Int32Type>(numbers, |n| n as i32),
            DataType::Int64 => cast::<Int64Type>(numbers, |n| n as i64),
            DataType::UInt8 => cast::<UInt8Type>(numbers, |n| n as u8),
            DataType::UInt16 => cast::<UInt16Type>(numbers, |n| n as u16),
            DataType::UInt32 => cast::<UInt32Type>(numbers, |n| n as u32),
            DataType::UInt64 => cast::<UInt64Type>(numbers, |n| n as u64),
            DataType::Float32 => Arc::new(Float32Array::from_iter_values(numbers.map(|n| n as f32))),
            DataType::Float64 => Arc::new(Float64Array::from_iter_values(numbers.map(|n| n as f64))),
            DataType::Utf8 => Arc::new(StringArray::from_iter_values(numbers.map(|n| n.to_string()))),
            DataType::Decimal128(precision, scale) => {
                Arc::new(Decimal128Array::from_iter_values(numbers).with_precision_and_scale(*precision, *scale)?)
            }
            other => return Err(ArrowError::NotYetImplemented(format!("whole numbers as {other}"))),
        })
    }

    fn real(&self, numbers: impl Iterator<Item = f64>) -> ArrayRef {
        match self.data_type {
            DataType::Float32 => Arc::new(Float32Array::from_iter_values(numbers.map(|n| n as f32))),
            _ => Arc::new(Float64Array::from_iter_values(numbers)),
        }
    }

    fn text(&self, rows: impl Iterator<Item = Draws>, length: usize) -> ArrayRef {
        let mut bytes = Vec::with_capacity(length.next_multiple_of(16));
        let mut fill = |mut draws: Draws, unit: &dyn Fn(&mut Vec<u8>, u64)| {
            bytes.clear();
            while bytes.len() < length {
                unit(&mut bytes, draws.bits());
            }
            bytes.truncate(length);
            bytes.clone()
        };
        if self.data_type == DataType::Binary {
            let raw = |out: &mut Vec<u8>, bits: u64| out.extend_from_slice(&bits.to_le_bytes());
            return Arc::new(BinaryArray::from_iter_values(rows.map(|d| fill(d, &raw))));
        }
        let hex = |out: &mut Vec<u8>, bits: u64| {
            out.extend((0..16).map(|i| b"0123456789abcdef"[(bits >> (4 * i) & 15) as usize]));
        };
        Arc::new(StringArray::from_iter_values(
            rows.map(|d| fill(d, &hex).into_iter().map(char::from).collect::<String>()),
        ))
    }

    fn time(&self, millis: Vec<i64>) -> Result<ArrayRef, ArrowError> {
        let of_day = millis.iter().map(|ms| ms.rem_euclid(DAY_MS));
        Ok(match &self.data_type {
            DataType::Date32 => {
                Arc::new(Date32Array::from_iter_values(millis.iter().map(|ms| ms.div_euclid(DAY_MS) as i32)))
            }
            DataType::Time32(TimeUnit::Second) => {
                Arc::new(Time32SecondArray::from_iter_values(of_day.map(|ms| (ms / 1000) as i32)))
            }
            DataType::Time32(_) => Arc::new(Time32MillisecondArray::from_iter_values(of_day.map(|ms| ms as i32))),
            DataType::Time64(TimeUnit::Microsecond) => {
                Arc::new(Time64MicrosecondArray::from_iter_values(of_day.map(|ms| ms * 1000)))
            }
            DataType::Time64(_) => Arc::new(Time64NanosecondArray::from_iter_values(of_day.map(|ms| ms * 1_000_000))),
            timestamp => timestamps(millis, timestamp, None)?,
        })
    }
}

impl Values {
    fn sequence(data_type: &DataType, options: FieldOptions<'_>) -> Result<Option<Self>, ConnectorError> {
        let start = options.start.map_or(Ok(0), |s| number("start", s))?;
        let fits = data_type.is_numeric() && *data_type != DataType::Float16 || *data_type == DataType::Utf8;
        Ok(fits.then_some(Self::Sequence { start }))
    }

    fn random(data_type: &DataType, options: FieldOptions<'_>) -> Result<Option<Self>, ConnectorError> {
        if options.kind.is_some_and(|k| !k.eq_ignore_ascii_case("random")) {
            let kind = options.kind.unwrap_or_default();
            return Err(ConnectorError::user(
                format!("a column's kind is random or sequence, not '{kind}'"),
                "use one of the two",
            ));
        }
        let whole = |least: i128, greatest: i128| {
            let min: i128 = options.min.map_or(Ok(least), |m| number("min", m))?;
            let max: i128 = options.max.map_or(Ok(greatest), |m| number("max", m))?;
            if min < least || max > greatest || min > max {
                return Err(ConnectorError::user(
                    format!("a column's min {min} and max {max} do not fit its type"),
                    format!("give {least} ≤ min ≤ max ≤ {greatest}"),
                ));
            }
            Ok(Some(Self::Whole { min, max }))
        };
        match data_type {
            DataType::Boolean => Ok(Some(Self::Flag)),
            DataType::Int8 => whole(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => whole(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => whole(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => whole(i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => whole(0, u8::MAX.into()),
            DataType::UInt16 => whole(0, u16::MAX.into()),
            DataType::UInt32 => whole(0, u32::MAX.into()),
            DataType::UInt64 => whole(0, u64::MAX.into()),
            DataType::Float32 | DataType::Float64 => {
                let min = options.min.map_or(Ok(0.0), |m| number("min", m))?;
                let max = options.max.map_or(Ok(min + 1.0), |m| number("max", m))?;
                Ok(Some(Self::Real { min, max }))
            }
            DataType::Decimal128(precision, scale) => decimal(*precision, *scale, options).map(Some),
            DataType::Utf8 | DataType::Binary => {
                let length = options.length.map_or(Ok(100), |l| number("length", l))?;
                Ok(Some(Self::Text { length }))
            }
            DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) => {
                Ok(Some(Self::Time { max_past_ms: max_past(options)? }))
            }
            t if is_timestamp(t) => Ok(Some(Self::Time { max_past_ms: max_past(options)? })),
            _ => Ok(None),
        }
    }
}

/// Random decimals, as whole numbers of their last digit.
fn decimal(precision: u8, scale: i8, options: FieldOptions<'_>) -> Result<Values, ConnectorError> {
    let greatest = 10i128.pow(u32::from(precision)) - 1;
    let unit = 10i128.pow(u32::from(scale.unsigned_abs()));
    let bound = |option, text: Option<&str>, otherwise| match text {
        None => Ok(otherwise),
        Some(text) => number::<i128>(option, text).map(|n| if scale >= 0 { n.saturating_mul(unit) } else { n / unit }),
    };
    let min = bound("min", options.min, 0)?.max(-greatest);
    let max = bound("max", options.max, greatest)?.min(greatest);
    Ok(Values::Whole { min, max: max.max(min) })
}

fn max_past(options: FieldOptions<'_>) -> Result<u64, ConnectorError> {
    let Some(text) = options.max_past else { return Ok(0) };
    let past = parse_duration(text).ok_or_else(|| {
        ConnectorError::user(
            format!("max-past '{text}' is not a duration"),
            "write a number and a unit, such as '10 s'",
        )
    })?;
    Ok(u64::try_from(past.as_millis()).unwrap_or(u64::MAX))
}

/// A whole number in `[min, max]`.
fn whole(draws: &mut Draws, min: i128, max: i128) -> i128 {
    let bits = u128::from(draws.bits()) << 64 | u128::from(draws.bits());
    match max.wrapping_sub(min).wrapping_add(1) as u128 {
        0 => bits as i128,
        span => min.wrapping_add((bits % span) as i128),
    }
}

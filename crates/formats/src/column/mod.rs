//! Columns under construction, addressed by row.
//!
//! A value is written to a row number instead of being appended, and rows that are not written are null. So a missing
//! field costs nothing, a null parent need not touch its children, the last of duplicate keys wins, and a row that
//! turns out to be bad is taken back with [`Scalar::clear`] and written again by the next one. The buffers are taken
//! once per batch.
mod bytes;
mod read;
mod validity;

use std::sync::Arc;

use arrow::array::{
    ArrayData, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, StringArray, make_array,
};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, TimeUnit};
use arrow::error::ArrowError;

pub(crate) use bytes::Bytes;
pub(crate) use read::{Reader, Shape};
pub(crate) use validity::Bits;

use crate::text::number::{Misfit, Number, parse_float, parse_float32, parse_whole};
use crate::text::time::{MinuteCache, from_millis, parse_date, parse_time, parse_timestamp};
use crate::text::{base64, decimal};

/// Values of up to 64 bits, narrowed to their type at the end.
#[derive(Debug, Default)]
pub(crate) struct Words {
    values: Vec<i64>,
    valid: Bits,
}

impl Words {
    fn reset(&mut self, rows: usize) {
        self.values = vec![0; rows];
        self.valid.reset(rows);
    }

    #[inline]
    pub(crate) fn set(&mut self, row: usize, value: i64) {
        if row >= self.values.len() {
            self.grow(row);
        }
        self.values[row] = value;
        self.valid.set(row);
    }

    #[cold]
    fn grow(&mut self, row: usize) {
        self.values.resize((row + 1).max(self.values.len() * 2), 0);
    }

    fn get(&self, row: usize) -> Option<i64> {
        self.valid.get(row).then(|| self.values[row])
    }

    /// The values and which of them are null. A batch that kept few of its rows gives the rest of its memory back.
    fn finish(&mut self, rows: usize) -> (Vec<i64>, Option<NullBuffer>) {
        let mut values = std::mem::take(&mut self.values);
        values.resize(rows, 0);
        if values.capacity() > 2 * rows {
            values.shrink_to_fit();
        }
        (values, self.valid.finish_nulls(rows))
    }
}

/// Magnitudes that an integer type holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntRange {
    pub least: u64,
    pub most: u64,
}

impl IntRange {
    fn of(data_type: &DataType) -> Option<Self> {
        let signed = |bits: u32| Some(Self { least: 1 << (bits - 1), most: (1 << (bits - 1)) - 1 });
        match data_type {
            DataType::Int8 => signed(8),
            DataType::Int16 => signed(16),
            DataType::Int32 => signed(32),
            DataType::Int64 => signed(64),
            DataType::UInt8 => Some(Self { least: 0, most: u64::from(u8::MAX) }),
            DataType::UInt16 => Some(Self { least: 0, most: u64::from(u16::MAX) }),
            DataType::UInt32 => Some(Self { least: 0, most: u64::from(u32::MAX) }),
            DataType::UInt64 => Some(Self { least: 0, most: u64::MAX }),
            _ => None,
        }
    }

    /// The value as the bits of its type in 64 bits.
    #[inline]
    pub(crate) fn fit(self, negative: bool, magnitude: u64) -> Result<i64, Misfit> {
        if negative {
            if magnitude <= self.least { Ok(magnitude.wrapping_neg() as i64) } else { Err(Misfit::Range) }
        } else if magnitude <= self.most {
            Ok(magnitude as i64)
        } else {
            Err(Misfit::Range)
        }
    }
}

/// A column of values that are not nested.
#[derive(Debug)]
pub(crate) enum Scalar {
    Int(IntRange, Words),
    /// Bits of an `f64`.
    Double(Words),
    /// Bits of an `f32`.
    Single(Words),
    Timestamp(TimeUnit, MinuteCache, Words),
    Text(Bytes),
    Bool(Bits, Bits),
    Date(Words),
    Time(TimeUnit, Words),
    Decimal {
        precision: u8,
        scale: i8,
        values: Vec<i128>,
        valid: Bits,
    },
    Binary(Bytes),
}

impl Scalar {
    /// An empty column; `None` if the type is nested or not one that formats hold.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        if let Some(range) = IntRange::of(data_type) {
            return Some(Self::Int(range, Words::default()));
        }
        Some(match data_type {
            DataType::Boolean => Self::Bool(Bits::default(), Bits::default()),
            DataType::Float32 => Self::Single(Words::default()),
            DataType::Float64 => Self::Double(Words::default()),
            DataType::Decimal128(precision, scale) => {
                Self::Decimal { precision: *precision, scale: *scale, values: Vec::new(), valid: Bits::default() }
            }
            DataType::Utf8 => Self::Text(Bytes::default()),
            DataType::Binary => Self::Binary(Bytes::default()),
            DataType::Date32 => Self::Date(Words::default()),
            DataType::Time32(unit) | DataType::Time64(unit) => Self::Time(*unit, Words::default()),
            DataType::Timestamp(unit, zone) if zone.as_deref().is_none_or(is_utc) => {
                Self::Timestamp(*unit, MinuteCache::default(), Words::default())
            }
            _ => return None,
        })
    }

    /// Forgets everything and makes room for `rows`.
    pub(crate) fn reset(&mut self, rows: usize) {
        match self {
            Self::Int(_, words)
            | Self::Double(words)
            | Self::Single(words)
            | Self::Timestamp(_, _, words)
            | Self::Date(words)
            | Self::Time(_, words) => words.reset(rows),
            Self::Text(bytes) | Self::Binary(bytes) => bytes.reset(rows),
            Self::Bool(values, valid) => {
                values.reset(rows);
                valid.reset(rows);
            }
            Self::Decimal { values, valid, .. } => {
                *values = vec![0; rows];
                valid.reset(rows);
            }
        }
    }

    /// Makes rows `[from, to)` null; no row from `to` on has been written.
    pub(crate) fn clear(&mut self, from: usize, to: usize) {
        match self {
            Self::Int(_, words)
            | Self::Double(words)
            | Self::Single(words)
            | Self::Timestamp(_, _, words)
            | Self::Date(words)
            | Self::Time(_, words) => words.valid.unset_range(from, to),
            Self::Text(bytes) | Self::Binary(bytes) => bytes.clear(from, to),
            Self::Bool(_, valid) | Self::Decimal { valid, .. } => valid.unset_range(from, to),
        }
    }

    /// True if the row holds a value.
    pub(crate) fn is_set(&self, row: usize) -> bool {
        match self {
            Self::Int(_, words)
            | Self::Double(words)
            | Self::Single(words)
            | Self::Timestamp(_, _, words)
            | Self::Date(words)
            | Self::Time(_, words) => words.valid.get(row),
            Self::Text(bytes) | Self::Binary(bytes) => bytes.get(row).is_some(),
            Self::Bool(_, valid) | Self::Decimal { valid, .. } => valid.get(row),
        }
    }

    /// The integer at a row of an integer column.
    #[inline]
    pub(crate) fn integer(&self, row: usize) -> Option<i64> {
        match self {
            Self::Int(_, words) => words.get(row),
            _ => None,
        }
    }

    /// The string at a row of a string column.
    #[inline]
    pub(crate) fn text(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Text(bytes) => bytes.get(row),
            _ => None,
        }
    }

    /// Writes the value of a JSON number; `token` is its text.
    pub(crate) fn set_number(&mut self, row: usize, number: &Number, token: &[u8]) -> Result<(), Misfit> {
        let whole = || number.whole().and_then(|(n, m)| IntRange::fit(IntRange::LONG, n, m));
        match self {
            Self::Int(range, words) => {
                let (negative, magnitude) = number.whole()?;
                words.set(row, range.fit(negative, magnitude)?);
            }
            Self::Double(words) => {
                let value = number.quick_float().map_or_else(|| parse_float(token), Ok)?;
                words.set(row, value.to_bits() as i64);
            }
            Self::Timestamp(unit, _, words) => {
                words.set(row, from_millis(whole()?, *unit).ok_or(Misfit::Range)?);
            }
            Self::Time(unit, words) => {
                let millis = whole()?;
                if !(0..86_400_000).contains(&millis) {
                    return Err(Misfit::Range);
                }
                words.set(row, from_millis(millis, *unit).ok_or(Misfit::Range)?);
            }
            Self::Date(words) => {
                let days = i32::try_from(whole()?).map_err(|_| Misfit::Range)?;
                words.set(row, i64::from(days));
            }
            Self::Bool(..) | Self::Binary(_) => return Err(Misfit::Form),
            Self::Single(_) | Self::Decimal { .. } | Self::Text(_) => return self.set_text(row, token),
        }
        Ok(())
    }

    /// Writes the value that `text` spells. For `Utf8` it must be valid UTF-8, which is checked here.
    pub(crate) fn set_text(&mut self, row: usize, text: &[u8]) -> Result<(), Misfit> {
        match self {
            Self::Int(range, words) => {
                let (negative, magnitude) = parse_whole(text)?;
                words.set(row, range.fit(negative, magnitude)?);
            }
            Self::Double(words) => words.set(row, parse_float(text)?.to_bits() as i64),
            Self::Single(words) => words.set(row, i64::from(parse_float32(text)?.to_bits())),
            Self::Timestamp(unit, _, words) => words.set(row, parse_timestamp(text, *unit)?),
            Self::Date(words) => words.set(row, i64::from(parse_date(text)?)),
            Self::Time(unit, words) => words.set(row, parse_time(text, *unit)?),
            Self::Text(bytes) => {
                std::str::from_utf8(text).map_err(|_| Misfit::Form)?;
                bytes.push(row, text);
            }
            Self::Binary(bytes) => {
                bytes.begin(row);
                if !base64::parse(text, bytes.data()) {
                    bytes.abandon(row);
                    return Err(Misfit::Form);
                }
                bytes.end(row);
            }
            Self::Bool(values, valid) => {
                let text = text.trim_ascii();
                let value = text.eq_ignore_ascii_case(b"true");
                if !value && !text.eq_ignore_ascii_case(b"false") {
                    return Err(Misfit::Form);
                }
                set_bool(values, valid, row, value);
            }
            Self::Decimal { precision, scale, values, valid } => {
                let value = decimal::parse(text, *precision, *scale)?;
                if row >= values.len() {
                    values.resize((row + 1).max(values.len() * 2), 0);
                }
                values[row] = value;
                valid.set(row);
            }
        }
        Ok(())
    }

    /// The first `rows` rows as an array of `data_type`, which is the one the column was made for.
    pub(crate) fn finish(&mut self, rows: usize, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Int(_, words)
            | Self::Double(words)
            | Self::Single(words)
            | Self::Timestamp(_, _, words)
            | Self::Date(words)
            | Self::Time(_, words) => {
                let (values, nulls) = words.finish(rows);
                narrowed(values, nulls, data_type)
            }
            Self::Text(bytes) => {
                let (offsets, data, nulls) = bytes.finish(rows)?;
                // Every value was checked when it was written; this looks over the buffer once more, 16 bytes at a
                // time.
                Ok(Arc::new(StringArray::try_new(offsets, data, nulls)?))
            }
            Self::Binary(bytes) => {
                let (offsets, data, nulls) = bytes.finish(rows)?;
                Ok(Arc::new(BinaryArray::try_new(offsets, data, nulls)?))
            }
            Self::Bool(values, valid) => Ok(Arc::new(BooleanArray::new(values.finish(rows), valid.finish_nulls(rows)))),
            Self::Decimal { values, valid, .. } => {
                let mut values = std::mem::take(values);
                values.resize(rows, 0);
                let array = Decimal128Array::try_new(values.into(), valid.finish_nulls(rows))?;
                Ok(Arc::new(array.with_data_type(data_type.clone())))
            }
        }
    }
}

impl IntRange {
    const LONG: Self = Self { least: 1 << 63, most: (1 << 63) - 1 };
}

#[inline]
pub(crate) fn set_bool(values: &mut Bits, valid: &mut Bits, row: usize, value: bool) {
    if value {
        values.set(row);
    } else {
        values.unset(row);
    }
    valid.set(row);
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00" | "Z" | "Etc/UTC")
}

fn narrowed(values: Vec<i64>, nulls: Option<NullBuffer>, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    fn cut<T: ArrowPrimitiveType>(
        values: &[i64],
        nulls: Option<NullBuffer>,
        narrow: impl Fn(i64) -> T::Native,
    ) -> Result<ArrayRef, ArrowError> {
        let values: Vec<T::Native> = values.iter().map(|v| narrow(*v)).collect();
        Ok(Arc::new(PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls)?))
    }
    use arrow::datatypes as t;
    match data_type {
        DataType::Int8 => cut::<t::Int8Type>(&values, nulls, |v| v as i8),
        DataType::Int16 => cut::<t::Int16Type>(&values, nulls, |v| v as i16),
        DataType::Int32 => cut::<t::Int32Type>(&values, nulls, |v| v as i32),
        DataType::UInt8 => cut::<t::UInt8Type>(&values, nulls, |v| v as u8),
        DataType::UInt16 => cut::<t::UInt16Type>(&values, nulls, |v| v as u16),
        DataType::UInt32 => cut::<t::UInt32Type>(&values, nulls, |v| v as u32),
        DataType::Date32 => cut::<t::Date32Type>(&values, nulls, |v| v as i32),
        DataType::Time32(TimeUnit::Second) => cut::<t::Time32SecondType>(&values, nulls, |v| v as i32),
        DataType::Time32(_) => cut::<t::Time32MillisecondType>(&values, nulls, |v| v as i32),
        DataType::Float32 => cut::<t::Float32Type>(&values, nulls, |v| f32::from_bits(v as u32)),
        // All others are 64 bits wide: the buffer is handed over as it is.
        _ => {
            let data = ArrayData::builder(data_type.clone())
                .len(values.len())
                .add_buffer(Buffer::from_vec(values))
                .nulls(nulls)
                .build()?;
            Ok(make_array(data))
        }
    }
}

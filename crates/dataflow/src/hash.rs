//! Hash of keys: format version 1. It decides which key group, and so which task, owns a key, and is part of every
//! checkpoint: it must never depend on the CPU or on a library's seed.
//!
//! Integers, dates, times, timestamps and booleans are mixed with SplitMix64's finalizer, floats by their bits (−0.0 as 0.0, every NaN
//! as one), strings and bytes with XXH3-64, anything else with XXH3-64 over Arrow's row format. Null is a fixed value. Columns are
//! combined in order.
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowNativeType, DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use millstream_plan::{KEY_GROUPS, KeyGroup};
use xxhash_rust::xxh3::xxh3_64;

const SEED: u64 = 0x4d69_6c6c_7374_7231;
const NULL: u64 = 0x9e37_79b9_7f4a_7c15;

/// One hash per row over all columns. No columns: every row has the same hash.
///
/// # Errors
/// A column type that Arrow's row format does not know.
pub fn hash_rows(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        combine(column, &mut hashes)?;
    }
    Ok(hashes)
}

/// The key group of a hash.
#[inline]
#[must_use]
pub fn key_group(hash: u64) -> KeyGroup {
    KeyGroup((hash % u64::from(KEY_GROUPS)) as u16)
}

#[inline]
fn mix(hash: u64, value: u64) -> u64 {
    let mut z = (hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn numbers<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, hashes: &mut [u64], bits: impl Fn(T::Native) -> u64) {
    if array.null_count() == 0 {
        for (hash, value) in hashes.iter_mut().zip(array.values()) {
            *hash = mix(*hash, bits(*value));
        }
    } else {
        for (hash, value) in hashes.iter_mut().zip(array.iter()) {
            *hash = mix(*hash, value.map_or(NULL, &bits));
        }
    }
}

fn slices<'a>(values: impl Iterator<Item = Option<&'a [u8]>>, hashes: &mut [u64]) {
    for (hash, value) in hashes.iter_mut().zip(values) {
        *hash = mix(*hash, value.map_or(NULL, xxh3_64));
    }
}

fn combine(column: &ArrayRef, hashes: &mut [u64]) -> Result<(), ArrowError> {
    macro_rules! integers {
        ($t:ty) => {
            numbers(column.as_primitive::<$t>(), hashes, |v| v.as_usize() as u64)
        };
    }
    match column.data_type() {
        DataType::Int8 => numbers(column.as_primitive::<Int8Type>(), hashes, |v| i64::from(v) as u64),
        DataType::Int16 => numbers(column.as_primitive::<Int16Type>(), hashes, |v| i64::from(v) as u64),
        DataType::Int32 => numbers(column.as_primitive::<Int32Type>(), hashes, |v| i64::from(v) as u64),
        DataType::Date32 => numbers(column.as_primitive::<Date32Type>(), hashes, |v| i64::from(v) as u64),
        DataType::Time32(TimeUnit::Second) => {
            numbers(column.as_primitive::<Time32SecondType>(), hashes, |v| i64::from(v) as u64)
        }
        DataType::Time32(_) => numbers(column.as_primitive::<Time32MillisecondType>(), hashes, |v| i64::from(v) as u64),
        DataType::Int64 => numbers(column.as_primitive::<Int64Type>(), hashes, |v| v as u64),
        DataType::Time64(TimeUnit::Microsecond) => {
            numbers(column.as_primitive::<Time64MicrosecondType>(), hashes, |v| v as u64)
        }
        DataType::Time64(_) => numbers(column.as_primitive::<Time64NanosecondType>(), hashes, |v| v as u64),
        DataType::Timestamp(TimeUnit::Second, _) => {
            numbers(column.as_primitive::<TimestampSecondType>(), hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            numbers(column.as_primitive::<TimestampMillisecondType>(), hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            numbers(column.as_primitive::<TimestampMicrosecondType>(), hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            numbers(column.as_primitive::<TimestampNanosecondType>(), hashes, |v| v as u64)
        }
        DataType::UInt8 => integers!(UInt8Type),
        DataType::UInt16 => integers!(UInt16Type),
        DataType::UInt32 => integers!(UInt32Type),
        DataType::UInt64 => numbers(column.as_primitive::<UInt64Type>(), hashes, |v| v),
        DataType::Float32 => {
            numbers(column.as_primitive::<Float32Type>(), hashes, |v| float_bits(f64::from(v)));
        }
        DataType::Float64 => numbers(column.as_primitive::<Float64Type>(), hashes, float_bits),
        DataType::Boolean => {
            for (hash, value) in hashes.iter_mut().zip(column.as_boolean()) {
                *hash = mix(*hash, value.map_or(NULL, u64::from));
            }
        }
        DataType::Utf8 => slices(column.as_string::<i32>().iter().map(|v| v.map(str::as_bytes)), hashes),
        DataType::LargeUtf8 => slices(column.as_string::<i64>().iter().map(|v| v.map(str::as_bytes)), hashes),
        DataType::Utf8View => slices(column.as_string_view().iter().map(|v| v.map(str::as_bytes)), hashes),
        DataType::Binary => slices(column.as_binary::<i32>().iter(), hashes),
        DataType::LargeBinary => slices(column.as_binary::<i64>().iter(), hashes),
        DataType::BinaryView => slices(column.as_binary_view().iter(), hashes),
        other => {
            let rows = RowConverter::new(vec![SortField::new(other.clone())])?
                .convert_columns(std::slice::from_ref(column))?;
            slices((0..rows.num_rows()).map(|i| Some(rows.row(i).data())), hashes);
        }
    }
    Ok(())
}

fn float_bits(v: f64) -> u64 {
    if v.is_nan() {
        f64::NAN.to_bits()
    } else if v == 0.0 {
        0
    } else {
        v.to_bits()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, StringViewArray};

    use super::*;

    #[test]
    fn version_1_never_changes() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(0), Some(1), None, Some(-7)])),
            Arc::new(StringArray::from(vec![Some(""), Some("a"), Some("a"), None])),
        ];
        let hashes = hash_rows(&columns, 4).unwrap();
        assert_eq!(hashes, [17775852656733581830, 6331539879897058655, 4354079705630490589, 687281008677452882]);
    }

    #[test]
    fn equal_values_have_equal_hashes_whatever_their_layout() {
        let hash = |c: ArrayRef| hash_rows(std::slice::from_ref(&c), c.len()).unwrap();
        assert_eq!(hash(Arc::new(StringArray::from(vec!["x"]))), hash(Arc::new(StringViewArray::from(vec!["x"]))));
        let floats = hash(Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN])));
        assert_eq!((floats[0], floats[2]), (floats[1], floats[3]));
        let sliced = Int64Array::from(vec![5, 6, 7]).slice(1, 1);
        assert_eq!(hash(Arc::new(sliced)), hash(Arc::new(Int64Array::from(vec![6]))));
    }
}

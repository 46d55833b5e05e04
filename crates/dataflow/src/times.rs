//! Timestamps of any unit ⇄ milliseconds.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{
    DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::error::ArrowError;

/// Milliseconds of a timestamp column (finer units rounded down), with its nulls.
///
/// # Errors
/// The column is not a timestamp.
pub fn to_millis(column: &ArrayRef) -> Result<Int64Array, ArrowError> {
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => column.as_primitive::<TimestampSecondType>().unary(|v| v * 1000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let millis = column.as_primitive::<TimestampMillisecondType>();
            Int64Array::new(millis.values().clone(), millis.nulls().cloned())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().unary(|v| v.div_euclid(1000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            column.as_primitive::<TimestampNanosecondType>().unary(|v| v.div_euclid(1_000_000))
        }
        other => return Err(ArrowError::CastError(format!("expected a timestamp, found {other}"))),
    })
}

/// A column of type `as_type` (a timestamp) from milliseconds.
///
/// # Errors
/// `as_type` is not a timestamp, or a value does not fit its unit.
pub fn from_millis(millis: Int64Array, as_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let nulls = millis.nulls().cloned();
    let array: ArrayRef = match as_type {
        DataType::Timestamp(TimeUnit::Second, _) => {
            Arc::new(millis.unary::<_, Int64Type>(|v| v.div_euclid(1000)).reinterpret_cast::<TimestampSecondType>())
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Arc::new(arrow::array::PrimitiveArray::<TimestampMillisecondType>::new(millis.values().clone(), nulls))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Arc::new(millis.try_unary::<_, TimestampMicrosecondType, _>(|v| scaled(v, 1000))?)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Arc::new(millis.try_unary::<_, TimestampNanosecondType, _>(|v| scaled(v, 1_000_000))?)
        }
        other => return Err(ArrowError::CastError(format!("expected a timestamp type, found {other}"))),
    };
    // A zone only labels the same instant.
    if array.data_type() == as_type { Ok(array) } else { arrow::compute::cast(&array, as_type) }
}

fn scaled(millis: i64, factor: i64) -> Result<i64, ArrowError> {
    millis
        .checked_mul(factor)
        .ok_or_else(|| ArrowError::ComputeError(format!("time {millis} ms does not fit the timestamp's unit")))
}

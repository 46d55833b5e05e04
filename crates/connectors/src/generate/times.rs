//! Milliseconds as Arrow timestamps of any unit.
use std::sync::Arc;

use arrow::array::{
    ArrayRef, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;

/// True for the types that [`timestamps`] makes: without a zone, or in UTC.
pub(super) fn is_timestamp(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, None) => true,
        DataType::Timestamp(_, Some(zone)) => matches!(&**zone, "UTC" | "+00:00" | "Z"),
        _ => false,
    }
}

/// `millis` since 1970 UTC as an array of `data_type`, which is a timestamp.
pub(super) fn timestamps(
    millis: Vec<i64>,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let DataType::Timestamp(unit, zone) = data_type else {
        return Err(ArrowError::SchemaError(format!("{data_type} is not a timestamp")));
    };
    let zone = zone.clone();
    let scaled = |factor: i64| -> Vec<i64> { millis.iter().map(|ms| ms.saturating_mul(factor)).collect() };
    Ok(match unit {
        TimeUnit::Second => {
            let seconds: Vec<i64> = millis.iter().map(|ms| ms.div_euclid(1000)).collect();
            Arc::new(TimestampSecondArray::try_new(seconds.into(), nulls)?.with_timezone_opt(zone))
        }
        TimeUnit::Millisecond => {
            Arc::new(TimestampMillisecondArray::try_new(millis.into(), nulls)?.with_timezone_opt(zone))
        }
        TimeUnit::Microsecond => {
            Arc::new(TimestampMicrosecondArray::try_new(scaled(1000).into(), nulls)?.with_timezone_opt(zone))
        }
        TimeUnit::Nanosecond => {
            Arc::new(TimestampNanosecondArray::try_new(scaled(1_000_000).into(), nulls)?.with_timezone_opt(zone))
        }
    })
}

//! Values of finished columns as text, for the encoders.
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array,
    LargeBinaryArray, LargeStringArray, PrimitiveArray, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{self as t, DataType, TimeUnit};
use arrow::error::ArrowError;

use crate::text::number::{write_double, write_integer, write_single};
use crate::text::{base64, decimal, time};

/// Access to the values of a column that is not nested.
pub(crate) enum Reader {
    /// All values are null.
    Null,
    Bool(BooleanArray),
    Int(PrimitiveArray<t::Int64Type>),
    UInt(PrimitiveArray<t::UInt64Type>),
    Single(PrimitiveArray<t::Float32Type>),
    Double(PrimitiveArray<t::Float64Type>),
    Decimal(Decimal128Array),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
    Date(PrimitiveArray<t::Date32Type>),
    Time(TimeUnit, PrimitiveArray<t::Int64Type>),
    Timestamp(TimeUnit, PrimitiveArray<t::Int64Type>),
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Stands without quotes in JSON.
    Bare,
    /// Plain ASCII that stands in quotes in JSON.
    Quoted,
    /// Any text.
    Text,
}

impl Reader {
    /// True if [`Reader::new`] reads this type.
    pub(crate) fn reads(data_type: &DataType) -> bool {
        use DataType as D;
        match data_type {
            D::Null | D::Boolean | D::Float32 | D::Float64 | D::Decimal128(..) | D::Date32 => true,
            D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Binary | D::LargeBinary | D::BinaryView => true,
            D::Time32(_) | D::Time64(_) | D::Timestamp(..) => true,
            other => other.is_integer(),
        }
    }

    /// A reader of `array`, whose type [`Reader::reads`]. Integers are widened once here instead of per value.
    pub(crate) fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        fn as_type<T: ArrowPrimitiveType>(array: &ArrayRef, to: &DataType) -> Result<PrimitiveArray<T>, ArrowError> {
            Ok(cast(array, to)?.as_primitive::<T>().clone())
        }
        use DataType as D;
        Ok(match array.data_type() {
            D::Null => Self::Null,
            D::Boolean => Self::Bool(array.as_boolean().clone()),
            D::Float32 => Self::Single(array.as_primitive().clone()),
            D::Float64 => Self::Double(array.as_primitive().clone()),
            D::Decimal128(..) => Self::Decimal(array.as_primitive().clone()),
            D::Utf8 => Self::Text(array.as_string().clone()),
            D::LargeUtf8 => Self::LargeText(array.as_string().clone()),
            D::Utf8View => Self::TextView(array.as_string_view().clone()),
            D::Binary => Self::Binary(array.as_binary().clone()),
            D::LargeBinary => Self::LargeBinary(array.as_binary().clone()),
            D::BinaryView => Self::BinaryView(array.as_binary_view().clone()),
            D::Date32 => Self::Date(array.as_primitive().clone()),
            D::Time32(unit) => Self::Time(*unit, as_type(&cast(array, &D::Int32)?, &D::Int64)?),
            D::Time64(unit) => Self::Time(*unit, as_type(array, &D::Int64)?),
            D::Timestamp(unit, _) => Self::Timestamp(*unit, as_type(array, &D::Int64)?),
            D::UInt64 => Self::UInt(array.as_primitive().clone()),
            _ => Self::Int(as_type(array, &D::Int64)?),
        })
    }

    fn array(&self) -> Option<&dyn Array> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(a) => a,
            Self::Int(a) | Self::Time(_, a) | Self::Timestamp(_, a) => a,
            Self::UInt(a) => a,
            Self::Single(a) => a,
            Self::Double(a) => a,
            Self::Decimal(a) => a,
            Self::Text(a) => a,
            Self::LargeText(a) => a,
            Self::TextView(a) => a,
            Self::Binary(a) => a,
            Self::LargeBinary(a) => a,
            Self::BinaryView(a) => a,
            Self::Date(a) => a,
        })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.array().is_none_or(|a| a.is_null(row))
    }

    pub(crate) fn shape(&self, row: usize) -> Shape {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::UInt(_) | Self::Decimal(_) => Shape::Bare,
            Self::Single(a) if a.value(row).is_finite() => Shape::Bare,
            Self::Double(a) if a.value(row).is_finite() => Shape::Bare,
            Self::Text(_) | Self::LargeText(_) | Self::TextView(_) => Shape::Text,
            _ => Shape::Quoted,
        }
    }

    /// The string at a row of a string column.
    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        match self {
            Self::Text(a) => Some(a.value(row)),
            Self::LargeText(a) => Some(a.value(row)),
            Self::TextView(a) => Some(a.value(row)),
            _ => None,
        }
    }

    /// The bytes at a row of a string or binary column.
    pub(crate) fn bytes(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Binary(a) => Some(a.value(row)),
            Self::LargeBinary(a) => Some(a.value(row)),
            Self::BinaryView(a) => Some(a.value(row)),
            _ => self.text(row).map(str::as_bytes),
        }
    }

    /// Appends the value of a row that is not null, without quotes and escapes.
    pub(crate) fn write(&self, row: usize, iso: bool, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(a) => out.extend_from_slice(if a.value(row) { b"true" } else { b"false" }),
            Self::Int(a) => write_integer(a.value(row) < 0, a.value(row).unsigned_abs(), out),
            Self::UInt(a) => write_integer(false, a.value(row), out),
            Self::Single(a) => write_single(a.value(row), out),
            Self::Double(a) => write_double(a.value(row), out),
            Self::Decimal(a) => decimal::write(a.value(row), a.scale(), out),
            Self::Binary(_) | Self::LargeBinary(_) | Self::BinaryView(_) => {
                base64::write(self.bytes(row).unwrap_or_default(), out);
            }
            Self::Text(_) | Self::LargeText(_) | Self::TextView(_) => {
                out.extend_from_slice(self.bytes(row).unwrap_or_default());
            }
            Self::Date(a) => time::write_date(i64::from(a.value(row)), out),
            Self::Time(unit, a) => time::write_time(a.value(row), *unit, out),
            Self::Timestamp(unit, a) => time::write_timestamp(a.value(row), *unit, iso, out),
        }
    }
}

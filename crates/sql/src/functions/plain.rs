//! Scalar functions that are a table of argument types and a body over columns.
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, PrimitiveArray, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::pattern::read_default;
use super::zone::{Clock, Zone};

/// What an argument may be. A null is any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    /// A timestamp of either kind, a date, or a text that reads as one.
    Time,
    /// The same, or seconds since 1970.
    TimeOrSeconds,
    /// A timestamp of any precision as it is, a date as one, or a text that reads as one.
    Stamp,
    Number,
    Any,
}

impl Kind {
    /// The type that `given` is turned into, or `None`.
    fn takes(self, given: &DataType) -> Option<DataType> {
        use DataType::{Date32, Date64, Int64, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
        match (self, given) {
            (Self::Any, given) => Some(given.clone()),
            (Self::Text | Self::Time | Self::TimeOrSeconds, Utf8 | LargeUtf8 | Utf8View | Null) => Some(Utf8),
            (Self::Number, given) if given.is_numeric() || *given == Null => Some(DataType::Float64),
            (Self::Stamp, Timestamp(..)) => Some(given.clone()),
            (Self::Stamp, Date32 | Date64) => Some(Timestamp(TimeUnit::Millisecond, None)),
            (Self::Stamp, Utf8 | LargeUtf8 | Utf8View | Null) => Some(Utf8),
            (Self::Integer | Self::TimeOrSeconds, given) if given.is_integer() => Some(Int64),
            (Self::Integer, Null) => Some(Int64),
            (Self::Time | Self::TimeOrSeconds, Timestamp(_, zone)) => {
                Some(Timestamp(TimeUnit::Microsecond, zone.clone()))
            }
            (Self::Time | Self::TimeOrSeconds, Date32 | Date64) => Some(Timestamp(TimeUnit::Microsecond, None)),
            _ => None,
        }
    }

    /// As `DataType`s are shown in errors.
    fn shown(self) -> &'static str {
        match self {
            Self::Text => "Utf8",
            Self::Integer => "Int64",
            Self::Time | Self::TimeOrSeconds | Self::Stamp => "TIMESTAMP",
            Self::Number => "Float64",
            Self::Any => "anything",
        }
    }
}

/// A function of these arguments. Equal ones have the same name: there is one of each name in a dialect.
#[derive(Clone)]
pub(super) struct Plain {
    pub name: &'static str,
    /// One list per number of arguments. The last list may be repeated in its last kind if `variadic`.
    pub takes: &'static [&'static [Kind]],
    pub variadic: bool,
    pub gives: fn(&ReturnFieldArgs<'_>, &Zone) -> Result<DataType>,
    /// Looks at the arguments that are written in the query, so that they fail there and not at the first row.
    pub check: fn(&ReturnFieldArgs<'_>) -> Result<()>,
    pub body: fn(&Call<'_>) -> Result<ArrayRef>,
}

impl Plain {
    pub const fn new(
        name: &'static str,
        takes: &'static [&'static [Kind]],
        gives: fn(&ReturnFieldArgs<'_>, &Zone) -> Result<DataType>,
        body: fn(&Call<'_>) -> Result<ArrayRef>,
    ) -> Self {
        Self { name, takes, variadic: false, gives, check: |_| Ok(()), body }
    }

    pub const fn checked(self, check: fn(&ReturnFieldArgs<'_>) -> Result<()>) -> Self {
        Self { check, ..self }
    }

    pub const fn variadic(self) -> Self {
        Self { variadic: true, ..self }
    }

    pub fn function(self, zone: &Zone) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(PlainFunction { plain: self, zone: zone.clone(), signature }))
    }
}

/// Types that a function gives whatever it is given.
pub(super) fn text(_: &ReturnFieldArgs<'_>, _: &Zone) -> Result<DataType> {
    Ok(DataType::Utf8)
}

pub(super) fn long(_: &ReturnFieldArgs<'_>, _: &Zone) -> Result<DataType> {
    Ok(DataType::Int64)
}

pub(super) fn int(_: &ReturnFieldArgs<'_>, _: &Zone) -> Result<DataType> {
    Ok(DataType::Int32)
}

pub(super) fn boolean(_: &ReturnFieldArgs<'_>, _: &Zone) -> Result<DataType> {
    Ok(DataType::Boolean)
}

pub(super) fn texts(_: &ReturnFieldArgs<'_>, _: &Zone) -> Result<DataType> {
    Ok(DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))))
}

struct PlainFunction {
    plain: Plain,
    zone: Zone,
    signature: Signature,
}

impl std::fmt::Debug for PlainFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainFunction").field("name", &self.plain.name).field("zone", &self.zone).finish()
    }
}

impl PartialEq for PlainFunction {
    fn eq(&self, other: &Self) -> bool {
        self.plain.name == other.plain.name && self.zone == other.zone
    }
}

impl Eq for PlainFunction {}

impl Hash for PlainFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plain.name.hash(state);
        self.zone.hash(state);
    }
}

impl ScalarUDFImpl for PlainFunction {
    fn name(&self) -> &str {
        self.plain.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> = types.iter().map(|t| Arc::new(Field::new("", t.clone(), true))).collect();
        let unknown = vec![None; fields.len()];
        (self.plain.gives)(&ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &unknown }, &self.zone)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        (self.plain.check)(&args)?;
        Ok(Arc::new(Field::new(self.name(), (self.plain.gives)(&args, &self.zone)?, true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = self.plain.takes.iter().find_map(|kinds| {
            let longer = self.plain.variadic && types.len() > kinds.len();
            if types.len() != kinds.len() && !longer {
                return None;
            }
            let last = kinds.last().copied().unwrap_or(Kind::Any);
            let kinds = kinds.iter().copied().chain(std::iter::repeat(last));
            types.iter().zip(kinds).map(|(given, kind)| kind.takes(given)).collect()
        });
        coerced.map_or_else(
            || {
                let list = |types: Vec<String>| types.join(", ");
                let wanted = self.plain.takes.iter().max_by_key(|t| t.len()).copied().unwrap_or_default();
                // The words that the catalog looks for.
                plan_err!(
                    "cannot satisfy a call to '{}' by coercion from {} to the signature Exact({})",
                    self.plain.name,
                    list(types.iter().map(ToString::to_string).collect()),
                    list(wanted.iter().map(|k| k.shown().to_owned()).collect())
                )
            },
            Ok,
        )
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let call = Call { args: &args, zone: &self.zone };
        (self.plain.body)(&call).map(ColumnarValue::Array)
    }
}

/// A call over a batch.
pub(super) struct Call<'a> {
    pub args: &'a ScalarFunctionArgs,
    pub zone: &'a Zone,
}

impl Call<'_> {
    pub fn rows(&self) -> usize {
        self.args.number_rows
    }

    pub fn count(&self) -> usize {
        self.args.args.len()
    }

    pub fn gives(&self) -> &DataType {
        self.args.return_field.data_type()
    }

    pub fn array(&self, i: usize) -> Result<ArrayRef> {
        self.args.args[i].to_array(self.rows())
    }

    pub fn text(&self, i: usize) -> Result<StringArray> {
        Ok(cast(&self.array(i)?, &DataType::Utf8)?.as_string::<i32>().clone())
    }

    pub fn numbers(&self, i: usize) -> Result<Float64Array> {
        Ok(cast(&self.array(i)?, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    }

    pub fn integers(&self, i: usize) -> Result<Int64Array> {
        Ok(cast(&self.array(i)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    }

    /// The text, if it is the same for all rows; `Some(None)` for a null.
    #[expect(clippy::option_option, reason = "not constant, null, a text")]
    pub fn constant(&self, i: usize) -> Option<Option<&str>> {
        match &self.args.args[i] {
            ColumnarValue::Scalar(value) => value.try_as_str(),
            ColumnarValue::Array(_) => None,
        }
    }

    pub fn constant_integer(&self, i: usize) -> Option<i64> {
        match &self.args.args[i] {
            ColumnarValue::Scalar(ScalarValue::Int64(value)) => *value,
            _ => None,
        }
    }

    /// Argument `i` as instants. Local times are those of the pipeline's zone; what does not read as a time is null.
    pub fn instants(&self, i: usize) -> Result<TimestampMicrosecondArray> {
        let (times, clock) = self.times(i)?;
        match clock {
            Some(_) => Ok(times),
            None => {
                let clock = self.zone.clock();
                Ok(unary(&times, |local| clock.instant(local)))
            }
        }
    }

    /// Argument `i` as local times: those of instants are told by the zone of their type.
    pub fn locals(&self, i: usize) -> Result<TimestampMicrosecondArray> {
        let (times, clock) = self.times(i)?;
        Ok(match clock {
            Some(clock) => unary(&times, |instant| clock.local(instant)),
            None => times,
        })
    }

    /// Argument `i`, and the clock of its zone if it holds instants.
    pub fn times(&self, i: usize) -> Result<(TimestampMicrosecondArray, Option<Clock>)> {
        let given = self.array(i)?;
        Ok(match given.data_type() {
            DataType::Timestamp(_, Some(zone)) => {
                let clock = Clock::of(Some(zone));
                let micros = cast(&given, &DataType::Timestamp(TimeUnit::Microsecond, Some(zone.clone())))?;
                (micros.as_primitive::<TimestampMicrosecondType>().clone(), Some(clock))
            }
            DataType::Int64 => {
                let seconds = given.as_primitive::<Int64Type>();
                (seconds.unary_opt(|s| s.checked_mul(1_000_000)), Some(self.zone.clock()))
            }
            DataType::Utf8 => {
                // A text with an offset is an instant, shown here by the pipeline's clock.
                let clock = self.zone.clock();
                let local = |text: &str| {
                    let read = read_default(text)?;
                    Some(read.offset.map_or(read.local, |o| clock.local(read.local - i64::from(o) * 1_000_000)))
                };
                (given.as_string::<i32>().iter().map(|t| t.and_then(local)).collect(), None)
            }
            _ => {
                let options = CastOptions { safe: true, ..CastOptions::default() };
                let micros = cast_with_options(&given, &DataType::Timestamp(TimeUnit::Microsecond, None), &options)?;
                (micros.as_primitive::<TimestampMicrosecondType>().clone(), None)
            }
        })
    }

    /// A text per row from one or none.
    pub fn texts<'t>(&self, each: impl Fn(usize) -> Option<&'t str>) -> ArrayRef {
        let mut out = StringBuilder::with_capacity(self.rows(), self.rows() * 8);
        (0..self.rows()).for_each(|row| out.append_option(each(row)));
        Arc::new(out.finish())
    }
}

fn unary(times: &TimestampMicrosecondArray, op: impl Fn(i64) -> i64) -> TimestampMicrosecondArray {
    times.unary::<_, TimestampMicrosecondType>(op)
}

/// The value of a row, if it has one.
pub(super) fn at<T: arrow::datatypes::ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    array.is_valid(row).then(|| array.value(row))
}

/// The text of a row, if it has one.
pub(super) fn text_at(array: &StringArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

/// The text that is written in the query as argument `i`.
pub(super) fn written<'a>(args: &'a ReturnFieldArgs<'_>, i: usize) -> Option<&'a str> {
    args.scalar_arguments.get(i).copied().flatten().and_then(|v| v.try_as_str().flatten())
}

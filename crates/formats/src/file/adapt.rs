//! Columns as a file has them into the types that a table declares.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Fields};

use crate::FormatError;

/// `columns` (named by `from`) as the columns `to`, by name and with exact case. A column that the file does not have is null. A value
/// that its declared type cannot hold is an error, not null.
pub(super) fn columns(
    from: &Fields,
    columns: &[ArrayRef],
    to: &Fields,
    rows: usize,
) -> Result<Vec<ArrayRef>, FormatError> {
    to.iter().map(|field| column(from, columns, field, rows)).collect()
}

fn column(from: &Fields, columns: &[ArrayRef], to: &FieldRef, rows: usize) -> Result<ArrayRef, FormatError> {
    let problem = |problem: String| FormatError::FileColumn { column: to.name().clone(), problem };
    let array = match from.iter().position(|f| f.name() == to.name()) {
        Some(place) => adapt(&columns[place], to.data_type()).map_err(|error| match error {
            FormatError::FileColumn { column, problem } => {
                let inner = if column.is_empty() { String::new() } else { format!(".{column}") };
                FormatError::FileColumn { column: format!("{}{inner}", to.name()), problem }
            }
            other => problem(other.to_string()),
        })?,
        None => new_null_array(to.data_type(), rows),
    };
    if !to.is_nullable() && array.null_count() > 0 {
        return Err(problem("null or missing, but NOT NULL is declared".to_owned()));
    }
    Ok(array)
}

fn adapt(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, FormatError> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (DataType::Struct(inner), DataType::Struct(fields)) => {
            let parts = array.as_struct();
            let columns = columns(inner, parts.columns(), fields, array.len())?;
            let nulls = parts.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len())?))
        }
        (DataType::List(_), DataType::List(element)) => {
            let list = array.as_list::<i32>();
            let values = adapt(list.values(), element.data_type())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, nulls)?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                let map = array.as_map();
                let parts = vec![adapt(map.keys(), pair[0].data_type())?, adapt(map.values(), pair[1].data_type())?];
                let inner = StructArray::try_new_with_length(pair.clone(), parts, None, map.entries().len())?;
                let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
                Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, inner, nulls, *sorted)?))
            }
            _ => Err(refused(from, to)),
        },
        _ if fits(from, to) => {
            Ok(cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })?)
        }
        _ => Err(refused(from, to)),
    }
}

fn refused(from: &DataType, to: &DataType) -> FormatError {
    FormatError::FileColumn { column: String::new(), problem: format!("the file holds {from}, declared is {to}") }
}

/// True for types that mean the same, where at most a range must be checked.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    let is_text = |t: &D| matches!(t, D::Utf8 | D::LargeUtf8 | D::Utf8View);
    let is_binary = |t: &D| matches!(t, D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_));
    let is_decimal = |t: &D| matches!(t, D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..) | D::Decimal256(..));
    match (from, to) {
        (D::Dictionary(_, values), to) => values.as_ref() == to || fits(values, to),
        (D::Timestamp(..) | D::Date32, D::Timestamp(..)) => true,
        (D::Time32(_) | D::Time64(_), D::Time32(_) | D::Time64(_)) => true,
        (from, to) if is_text(from) => is_text(to),
        // Old writers leave out that a binary column holds text; it is checked.
        (from, to) if is_binary(from) => is_binary(to) || is_text(to),
        (from, to) if from.is_integer() => to.is_integer() || to.is_floating() || is_decimal(to),
        (from, to) if from.is_floating() => to.is_floating(),
        (from, to) if is_decimal(from) => is_decimal(to),
        _ => false,
    }
}

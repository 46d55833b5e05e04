//! Rows that come and go into messages.
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

/// Columns of the changes of rows with this schema.
#[must_use]
pub fn envelope_schema(rows: &SchemaRef) -> SchemaRef {
    let row = |name: &str| Field::new(name, DataType::Struct(rows.fields().clone()), true);
    Arc::new(Schema::new(vec![row("before"), row("after"), Field::new("op", DataType::Utf8, false)]))
}

/// The changes by which rows come, or go where they are `deleted`. `schema` is that of the changes.
///
/// # Errors
/// If the rows do not have the schema for which that of the changes was made.
pub fn envelope(schema: &SchemaRef, rows: &RecordBatch, deleted: &BooleanArray) -> Result<RecordBatch, ArrowError> {
    let count = rows.num_rows();
    let side = |field: usize, there: &dyn Fn(bool) -> bool| -> Result<ArrayRef, ArrowError> {
        let DataType::Struct(fields) = schema.field(field).data_type() else {
            return Err(ArrowError::SchemaError("the schema is not one of changes".to_owned()));
        };
        let nulls: NullBuffer = deleted.iter().map(|d| there(d == Some(true))).collect::<Vec<_>>().into();
        let side = StructArray::try_new_with_length(fields.clone(), rows.columns().to_vec(), Some(nulls), count)?;
        Ok(Arc::new(side))
    };
    let op = deleted.iter().map(|d| Some(if d == Some(true) { "d" } else { "c" })).collect::<StringArray>();
    RecordBatch::try_new(schema.clone(), vec![side(0, &|d| d)?, side(1, &|d| !d)?, Arc::new(op)])
}

/// The change by which a row comes or goes that is encoded as a JSON object.
#[must_use]
pub fn wrap(row: &[u8], deleted: bool, omit_nulls: bool) -> Vec<u8> {
    let (begin, end): (&str, &str) = match (deleted, omit_nulls) {
        (true, true) => ("{\"before\":", ",\"op\":\"d\"}"),
        (true, false) => ("{\"before\":", ",\"after\":null,\"op\":\"d\"}"),
        (false, true) => ("{\"after\":", ",\"op\":\"c\"}"),
        (false, false) => ("{\"before\":null,\"after\":", ",\"op\":\"c\"}"),
    };
    [begin.as_bytes(), row, end.as_bytes()].concat()
}

//! Functions that make JSON: `to_json` and `JSON_STRING` of one value, `JSON_OBJECT` and `JSON_ARRAY` of several.
//!
//! The first argument of the latter two is what becomes of nulls, `null` or `absent`, then `:` and a letter for each value: `j` for one that
//! is JSON already (see `rewrite`), `v` for others.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::json::writer::{EncoderOptions, make_encoder};
use datafusion::common::exec_err;
use datafusion::error::Result;

use super::scan::quote;
use crate::functions::plain::{Call, Kind, Plain, text, text_at};
use Kind::{Any, Text};

pub(super) fn functions() -> Vec<Plain> {
    vec![
        // Spark leaves the null fields of a struct out; Flink writes them.
        Plain::new("to_json", &[&[Any]], text, |c| one(c, false)),
        Plain::new("json_string", &[&[Any]], text, |c| one(c, true)),
        Plain::new("json_object", &[&[Text], &[Text, Text, Any]], text, json_object).variadic(),
        Plain::new("json_array", &[&[Text], &[Text, Any]], text, json_array).variadic(),
    ]
}

/// Each value as JSON; a null value is null.
fn encoded(values: &ArrayRef, explicit_nulls: bool) -> Result<StringArray> {
    let options = EncoderOptions::default().with_explicit_nulls(explicit_nulls);
    let field: FieldRef = Arc::new(Field::new("value", values.data_type().clone(), true));
    let mut out = StringBuilder::with_capacity(values.len(), values.len() * 16);
    if *values.data_type() == DataType::Null {
        (0..values.len()).for_each(|_| out.append_null());
        return Ok(out.finish());
    }
    let mut encoder = make_encoder(&field, values.as_ref(), &options)?;
    let mut bytes = Vec::new();
    for row in 0..values.len() {
        if values.is_null(row) {
            out.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        match std::str::from_utf8(&bytes) {
            Ok(text) => out.append_value(text),
            Err(_) => return exec_err!("to_json: a value is no text"),
        }
    }
    Ok(out.finish())
}

fn one(call: &Call<'_>, explicit_nulls: bool) -> Result<ArrayRef> {
    Ok(Arc::new(encoded(&call.array(0)?, explicit_nulls)?))
}

/// What becomes of nulls, and for each value whether it is JSON already.
fn said(call: &Call<'_>) -> (bool, Vec<bool>) {
    let mode = call.constant(0).flatten().unwrap_or("null");
    let (nulls, values) = mode.split_once(':').unwrap_or((mode, ""));
    (nulls == "absent", values.chars().map(|c| c == 'j').collect())
}

/// Values as JSON: `first`, `first + step`, …
fn values(call: &Call<'_>, first: usize, step: usize, raw: &[bool]) -> Result<Vec<StringArray>> {
    let columns = (first..call.count()).step_by(step).enumerate();
    let column = |(i, at): (usize, usize)| match raw.get(i) {
        Some(true) => call.text(at),
        _ => encoded(&call.array(at)?, true),
    };
    columns.map(column).collect()
}

fn json_object(call: &Call<'_>) -> Result<ArrayRef> {
    if call.count().is_multiple_of(2) {
        return exec_err!("json_object: a key has no value; write JSON_OBJECT('key' VALUE value, …)");
    }
    let (absent, raw) = said(call);
    let keys = (1..call.count()).step_by(2).map(|i| call.text(i)).collect::<Result<Vec<_>>>()?;
    let values = values(call, 2, 2, &raw)?;
    let mut out = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..call.rows() {
        buffer.clear();
        buffer.push('{');
        for (key, value) in keys.iter().zip(&values) {
            let Some(key) = text_at(key, row) else { return exec_err!("json_object: a key is null") };
            let value = text_at(value, row);
            if absent && value.is_none() {
                continue;
            }
            if buffer.len() > 1 {
                buffer.push(',');
            }
            quote(key, &mut buffer);
            buffer.push(':');
            buffer.push_str(value.unwrap_or("null"));
        }
        buffer.push('}');
        out.append_value(&buffer);
    }
    Ok(Arc::new(out.finish()))
}

fn json_array(call: &Call<'_>) -> Result<ArrayRef> {
    let (absent, raw) = said(call);
    let values = values(call, 1, 1, &raw)?;
    let mut out = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..call.rows() {
        buffer.clear();
        buffer.push('[');
        let present = values.iter().map(|v| text_at(v, row)).filter(|v| !(absent && v.is_none()));
        for (i, value) in present.enumerate() {
            if i > 0 {
                buffer.push(',');
            }
            buffer.push_str(value.unwrap_or("null"));
        }
        buffer.push(']');
        out.append_value(&buffer);
    }
    Ok(Arc::new(out.finish()))
}

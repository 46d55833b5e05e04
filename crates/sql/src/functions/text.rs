//! Texts: `SPLIT_INDEX`, `SPLIT`, `LOCATE` and `count_char` by plain search.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListBuilder, StringBuilder};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};

use super::plain::{Call, Kind, Plain, at, int, long, text, text_at, texts};
use super::zone::Zone;
use Kind::{Integer, Text};

pub(super) fn common(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    let split_index = Plain::new("split_index", &[&[Text, Text, Integer]], text, split_index);
    let locate = Plain::new("locate", &[&[Text, Text], &[Text, Text, Integer]], int, locate);
    // A function that Nexmark's query 14 brings along for Flink.
    let count_char = Plain::new("count_char", &[&[Text, Text]], long, count_char);
    [split_index, locate, count_char].map(|p| p.function(zone)).to_vec()
}

pub(super) fn flink(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    vec![Plain::new("split", &[&[Text, Text]], texts, split).function(zone)]
}

/// The part with this 0-based index, or null if there is none.
fn split_index(call: &Call<'_>) -> Result<ArrayRef> {
    let rows = call.rows();
    if let [
        ColumnarValue::Array(text),
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(separator))),
        ColumnarValue::Scalar(ScalarValue::Int64(Some(index))),
    ] = call.args.args.as_slice()
    {
        let text = text.as_string::<i32>();
        let mut out = StringBuilder::with_capacity(rows, text.values().len() / 4);
        let mut chars = separator.chars();
        let index = usize::try_from(*index).ok();
        match (index, chars.next(), chars.next()) {
            // One character is searched for faster than a text.
            (Some(index), Some(one), None) => {
                text.iter().for_each(|t| out.append_option(t.and_then(|t| t.split(one).nth(index))));
            }
            (Some(index), ..) => {
                text.iter().for_each(|t| out.append_option(t.and_then(|t| part(t, separator, index))));
            }
            (None, ..) => out.append_nulls(text.len()),
        }
        return Ok(Arc::new(out.finish()));
    }
    let (text, separator, index) = (call.text(0)?, call.text(1)?, call.integers(2)?);
    let each = |row| {
        let index = usize::try_from(at(&index, row)?).ok()?;
        part(text_at(&text, row)?, text_at(&separator, row)?, index)
    };
    Ok(call.texts(each))
}

fn part<'a>(text: &'a str, separator: &str, index: usize) -> Option<&'a str> {
    if separator.is_empty() { None } else { text.split(separator).nth(index) }
}

/// All parts. An empty separator separates characters, as in Flink.
fn split(call: &Call<'_>) -> Result<ArrayRef> {
    let (text, separator) = (call.text(0)?, call.text(1)?);
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..call.rows() {
        let (Some(text), Some(separator)) = (text_at(&text, row), text_at(&separator, row)) else {
            out.append_null();
            continue;
        };
        match separator.is_empty() {
            true => text.chars().for_each(|c| out.values().append_value(c.to_string())),
            false => text.split(separator).for_each(|p| out.values().append_value(p)),
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// The place, from 1 and in characters, of the first text in the second, at or after a place; 0 if it is not there.
fn locate(call: &Call<'_>) -> Result<ArrayRef> {
    let (wanted, text) = (call.text(0)?, call.text(1)?);
    let from = if call.count() > 2 { Some(call.integers(2)?) } else { None };
    let each = |row| {
        let (wanted, text) = (text_at(&wanted, row)?, text_at(&text, row)?);
        let from = match &from {
            Some(from) => at(from, row)?,
            None => 1,
        };
        let Some(skip) = usize::try_from(from).ok().and_then(|f| f.checked_sub(1)) else { return Some(0) };
        let Some(start) = text.char_indices().map(|(i, _)| i).chain([text.len()]).nth(skip) else { return Some(0) };
        let Some(found) = text[start..].find(wanted) else { return Some(0) };
        i32::try_from(skip + text[start..start + found].chars().count() + 1).ok()
    };
    Ok(Arc::new((0..call.rows()).map(each).collect::<Int32Array>()))
}

/// How often a character is in a text.
fn count_char(call: &Call<'_>) -> Result<ArrayRef> {
    let (text, wanted) = (call.text(0)?, call.text(1)?);
    let each = |row| {
        let (text, wanted) = (text_at(&text, row)?, text_at(&wanted, row)?);
        i64::try_from(wanted.chars().next().map_or(0, |c| text.matches(c).count())).ok()
    };
    Ok(Arc::new((0..call.rows()).map(each).collect::<Int64Array>()))
}

//! `SPLIT_INDEX` (Flink) and `REGEXP_EXTRACT` (both).
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{ScalarValue, plan_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use regex::Regex;

/// `SPLIT_INDEX(text, separator, index)`: the part with this 0-based index, or null if there is none.
pub(super) fn split_index() -> ScalarUDF {
    ScalarUDF::new_from_impl(SplitIndex { signature: text_text_integer() })
}

/// `REGEXP_EXTRACT(text, pattern, group)`: what the group matched first, or null.
pub(super) fn regexp_extract() -> ScalarUDF {
    ScalarUDF::new_from_impl(RegexpExtract { signature: text_text_integer() })
}

fn text_text_integer() -> Signature {
    Signature::exact(vec![DataType::Utf8, DataType::Utf8, DataType::Int64], Volatility::Immutable)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SplitIndex {
    signature: Signature,
}

impl ScalarUDFImpl for SplitIndex {
    fn name(&self) -> &str {
        "split_index"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        if let [
            ColumnarValue::Array(text),
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(separator))),
            ColumnarValue::Scalar(ScalarValue::Int64(Some(index))),
        ] = args.args.as_slice()
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
            return Ok(ColumnarValue::Array(Arc::new(out.finish())));
        }
        let (text, separator, index) = columns(&args)?;
        let parts = (0..rows).map(|i| {
            let valid = text.is_valid(i) && separator.is_valid(i) && index.is_valid(i);
            let index = usize::try_from(index.value(i)).ok().filter(|_| valid)?;
            part(text.value(i), separator.value(i), index)
        });
        Ok(ColumnarValue::Array(Arc::new(parts.collect::<StringArray>())))
    }
}

fn part<'a>(text: &'a str, separator: &str, index: usize) -> Option<&'a str> {
    if separator.is_empty() { None } else { text.split(separator).nth(index) }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RegexpExtract {
    signature: Signature,
}

impl ScalarUDFImpl for RegexpExtract {
    fn name(&self) -> &str {
        "regexp_extract"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        // A pattern that is written in the query fails there and not at the first row.
        if let Some(Some(ScalarValue::Utf8(Some(pattern)))) = args.scalar_arguments.get(1) {
            regex(pattern)?;
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (text, pattern, group) = columns(&args)?;
        // Patterns are literals nearly always: compile again only when the pattern changes.
        let mut compiled: Option<(&str, Regex)> = None;
        let mut out = StringBuilder::with_capacity(args.number_rows, text.values().len() / 4);
        for i in 0..args.number_rows {
            if text.is_null(i) || pattern.is_null(i) || group.is_null(i) {
                out.append_null();
                continue;
            }
            let source = pattern.value(i);
            let regex = match &compiled {
                Some((known, regex)) if *known == source => regex,
                _ => &compiled.insert((source, regex(source)?)).1,
            };
            let matched = regex
                .captures(text.value(i))
                .and_then(|c| usize::try_from(group.value(i)).ok().and_then(|g| c.get(g)).map(|m| m.as_str()));
            out.append_option(matched);
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

fn regex(source: &str) -> Result<Regex> {
    Regex::new(source).map_err(|_| plan_datafusion_err!("regexp_extract: '{source}' is not a regular expression"))
}

fn columns(args: &ScalarFunctionArgs) -> Result<(StringArray, StringArray, Int64Array)> {
    let column = |i: usize| args.args[i].to_array(args.number_rows);
    let text = |i: usize| Ok::<_, datafusion::error::DataFusionError>(column(i)?.as_string::<i32>().clone());
    Ok((text(0)?, text(1)?, column(2)?.as_primitive::<Int64Type>().clone()))
}

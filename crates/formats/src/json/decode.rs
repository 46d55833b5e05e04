//! The decoder: messages into a batch.
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};

use super::cursor::Cursor;
use super::fault::{Fault, Parsed};
use super::node::{Node, StructNode};
use super::value::{goes_on, opens};
use crate::{Accept, BadFields, BadMessage, DecodeSpec, Decoded, Decoder, FormatError, PreFilter};

/// Decodes JSON objects.
pub(crate) struct JsonDecoder {
    schema: SchemaRef,
    root: StructNode,
    filter: Option<Filter>,
    lenient: bool,
}

/// A prefilter, compiled.
struct Filter {
    field: usize,
    accept: Accepted,
}

/// Sorted values that pass.
enum Accepted {
    Int(Vec<i64>),
    Text(Vec<Vec<u8>>),
}

/// What became of a message.
enum Outcome {
    Kept,
    Filtered,
}

impl JsonDecoder {
    pub(crate) fn new(spec: DecodeSpec) -> Result<Self, FormatError> {
        let DecodeSpec { schema, options, prefilter } = spec;
        let (fields, filter) = match prefilter {
            None => (schema.fields().clone(), None),
            Some(prefilter) => with_filter(schema.fields(), prefilter)?,
        };
        let root = StructNode::new(&fields, options.json.fail_on_missing)?;
        Ok(Self { schema, root, filter, lenient: options.bad_fields == BadFields::Null })
    }

    /// Decodes one message into `row`. What it wrote when it is not kept must be cleared.
    fn message(&mut self, message: &[u8], row: usize) -> Parsed<Outcome> {
        let mut cursor = Cursor::new(message);
        cursor.skip_space();
        if cursor.peek() != b'{' {
            return Err(if cursor.at == message.len() {
                Fault::syntax(cursor.at, "the message is empty, expected a JSON object")
            } else {
                cursor.unexpected("a JSON object")
            });
        }
        let mut passed = self.filter.is_none();
        let mut slot = 0;
        let mut more = opens(&mut cursor, b'}');
        while more {
            let field = self.root.keys.take(&mut cursor, &mut slot)?;
            cursor.skip_space();
            match field {
                Some(field) => {
                    let field = field as usize;
                    self.root.decode_field(field, &mut cursor, row, 1, self.lenient)?;
                    if let Some(filter) = &self.filter
                        && filter.field == field
                    {
                        if !filter.passes(&self.root.fields[field].node, row) {
                            return Ok(Outcome::Filtered);
                        }
                        passed = true;
                    }
                }
                None => cursor.skip_value(1)?,
            }
            more = goes_on(&mut cursor, b'}', "a comma or the end of the object")?;
        }
        cursor.skip_space();
        if cursor.at != message.len() {
            return Err(cursor.unexpected("the end of the message"));
        }
        if !passed {
            return Ok(Outcome::Filtered);
        }
        self.root.check_required(row, cursor.at)?;
        Ok(Outcome::Kept)
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, messages: &[&[u8]]) -> Result<Decoded, FormatError> {
        let bytes: usize = messages.iter().map(|m| m.len()).sum();
        if i32::try_from(bytes).is_err() {
            return Err(FormatError::TooLarge { bytes });
        }
        self.root.reset(messages.len());
        let mut origin = Vec::with_capacity(messages.len());
        let mut bad = Vec::new();
        for (i, message) in (0_u32..).zip(messages) {
            let row = origin.len();
            match self.message(message, row) {
                Ok(Outcome::Kept) => origin.push(i),
                Ok(Outcome::Filtered) => self.root.clear(row, row + 1),
                Err(fault) => {
                    self.root.clear(row, row + 1);
                    bad.push(BadMessage { message: i, reason: fault.reason() });
                }
            }
        }
        let rows = origin.len();
        // The column of the prefilter may come after those of the schema.
        let columns = self.root.fields.iter_mut().take(self.schema.fields().len());
        let columns = columns.map(|f| f.finish(rows)).collect::<Result<Vec<_>, _>>()?;
        let with_count = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &with_count)?;
        Ok(Decoded { rows, weights: None, origin, bad })
    }
}

impl Filter {
    #[inline]
    fn passes(&self, node: &Node, row: usize) -> bool {
        let Node::Scalar(scalar) = node else { return false };
        match &self.accept {
            Accepted::Int(values) => scalar.integer(row).is_some_and(|v| values.binary_search(&v).is_ok()),
            Accepted::Text(values) => {
                scalar.text(row).is_some_and(|v| values.binary_search_by(|a| a.as_slice().cmp(v)).is_ok())
            }
        }
    }
}

/// The fields to decode with those of the filter's column, and the filter.
fn with_filter(fields: &Fields, prefilter: PreFilter) -> Result<(Fields, Option<Filter>), FormatError> {
    let PreFilter { column, accept } = prefilter;
    let refused = |problem: String| FormatError::PreFilter { column: column.clone(), problem };
    let place = fields.iter().position(|f| *f.name() == column);
    let given = place.map(|p| fields[p].data_type());
    let accept = match accept {
        Accept::Int(mut values) => {
            // Values of `BIGINT UNSIGNED` above the range of `Accept` would be taken for negative ones.
            if let Some(t) = given.filter(|t| !t.is_integer() || **t == DataType::UInt64) {
                return Err(refused(format!("{t} cannot be compared with integers")));
            }
            values.sort_unstable();
            Accepted::Int(values)
        }
        Accept::Text(values) => {
            if let Some(t) = given.filter(|t| **t != DataType::Utf8) {
                return Err(refused(format!("{t} cannot be compared with strings")));
            }
            let mut values: Vec<_> = values.into_iter().map(String::into_bytes).collect();
            values.sort_unstable();
            Accepted::Text(values)
        }
    };
    let hidden = match accept {
        Accepted::Int(_) => DataType::Int64,
        Accepted::Text(_) => DataType::Utf8,
    };
    let field = place.unwrap_or(fields.len());
    let fields = match place {
        Some(_) => fields.clone(),
        None => fields.iter().cloned().chain([Arc::new(Field::new(column, hidden, true))]).collect(),
    };
    Ok((fields, Some(Filter { field, accept })))
}

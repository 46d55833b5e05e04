//! Rows into records, without line ends.
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::column::{Reader, Shape};
use crate::{CsvOptions, Encoder, FormatError, FormatKind, FormatOptions, TimestampStandard};

/// Encodes CSV records.
pub(crate) struct CsvEncoder {
    columns: usize,
    options: CsvOptions,
    iso: bool,
    scratch: Vec<u8>,
}

impl CsvEncoder {
    pub(crate) fn new(schema: &SchemaRef, options: &FormatOptions) -> Result<Self, FormatError> {
        if let Some(field) = schema.fields().iter().find(|f| !Reader::reads(f.data_type())) {
            return Err(FormatError::Type {
                column: field.name().clone(),
                format: FormatKind::Csv,
                data_type: field.data_type().to_string(),
                advice: "cast it to STRING, or use the format json for nested values",
            });
        }
        let iso = options.timestamp == TimestampStandard::Iso8601;
        Ok(Self { columns: schema.fields().len(), options: options.csv.clone(), iso, scratch: Vec::new() })
    }
}

impl Encoder for CsvEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<(), FormatError> {
        if rows.num_columns() != self.columns {
            let problem = format!("got {} columns, expected {}", rows.num_columns(), self.columns);
            return Err(FormatError::Schema { format: FormatKind::Csv, problem });
        }
        let readers: Vec<_> = rows.columns().iter().map(Reader::new).collect::<Result<_, _>>()?;
        let null = self.options.null_literal.as_deref().unwrap_or("");
        ends.reserve(rows.num_rows());
        for row in 0..rows.num_rows() {
            for (i, reader) in readers.iter().enumerate() {
                if i > 0 {
                    out.push(self.options.delimiter);
                }
                if reader.is_null(row) {
                    out.extend_from_slice(null.as_bytes());
                    continue;
                }
                self.scratch.clear();
                reader.write(row, self.iso, &mut self.scratch);
                // What would be read as null must be told from it by quotes.
                let forced = reader.shape(row) == Shape::Text && self.scratch == null.as_bytes();
                write_field(&self.options, &self.scratch, forced, out);
            }
            ends.push(out.len());
        }
        Ok(())
    }
}

/// Appends one field, in quotes if it needs them.
pub(crate) fn write_field(options: &CsvOptions, text: &[u8], forced: bool, out: &mut Vec<u8>) {
    let special = |b: &u8| {
        *b == options.delimiter || *b == b'\n' || *b == b'\r' || Some(*b) == options.quote || Some(*b) == options.escape
    };
    if !forced && !text.iter().any(special) {
        out.extend_from_slice(text);
        return;
    }
    let escape = options.escape.or(options.quote);
    out.extend(options.quote);
    for byte in text {
        let inside = Some(*byte) == options.quote || Some(*byte) == options.escape;
        let unquoted = options.quote.is_none() && special(byte);
        if inside || unquoted {
            out.extend(escape);
        }
        out.push(*byte);
    }
    out.extend(options.quote);
}

//! Raw: the message is the value of the only column, which is `STRING` (checked to be UTF-8) or `BYTES`. Null is
//! written as an empty message.
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};

use crate::column::{Reader, Scalar};
use crate::{Accept, BadFields, BadMessage, DecodeSpec, Decoded, Decoder, Encoder, FormatError, FormatKind, PreFilter};

/// Decodes raw messages.
pub(crate) struct RawDecoder {
    schema: SchemaRef,
    column: Scalar,
    accept: Option<Vec<String>>,
    lenient: bool,
}

impl RawDecoder {
    pub(crate) fn new(spec: DecodeSpec) -> Result<Self, FormatError> {
        let column = match spec.schema.fields().first() {
            // No column is used: the rows are only counted.
            None => Scalar::of(&DataType::Binary),
            Some(field) => {
                check_type(&spec.schema)?;
                Scalar::of(field.data_type())
            }
        };
        let column = column.ok_or_else(|| unfit(&spec.schema))?;
        let accept = match spec.prefilter {
            None => None,
            Some(PreFilter { column, accept: Accept::Text(values) })
                if spec.schema.field_with_name(&column).is_ok_and(|f| *f.data_type() == DataType::Utf8) =>
            {
                Some(values)
            }
            Some(PreFilter { column, .. }) => {
                let problem = "raw messages can only be compared with strings, in their column".to_owned();
                return Err(FormatError::PreFilter { column, problem });
            }
        };
        Ok(Self { schema: spec.schema, column, accept, lenient: spec.options.bad_fields == BadFields::Null })
    }
}

impl Decoder for RawDecoder {
    fn decode(&mut self, messages: &[&[u8]]) -> Result<Decoded, FormatError> {
        let bytes: usize = messages.iter().map(|m| m.len()).sum();
        if i32::try_from(bytes).is_err() {
            return Err(FormatError::TooLarge { bytes });
        }
        let used = self.schema.fields().first();
        let nullable = used.is_some_and(|f| f.is_nullable());
        self.column.reset(messages.len());
        let (mut origin, mut bad) = (Vec::with_capacity(messages.len()), Vec::new());
        for (i, message) in (0_u32..).zip(messages) {
            if self.accept.as_ref().is_some_and(|a| !a.iter().any(|v| v.as_bytes() == *message)) {
                continue;
            }
            let row = origin.len();
            let is_value = match &mut self.column {
                Scalar::Binary(bytes) => {
                    bytes.push(row, message);
                    true
                }
                column => column.set_text(row, message).is_ok(),
            };
            if is_value || (self.lenient && nullable) {
                origin.push(i);
            } else {
                bad.push(BadMessage { message: i, reason: "the message is not valid UTF-8".to_owned() });
            }
        }
        let columns = match used {
            Some(field) => vec![self.column.finish(origin.len(), field.data_type())?],
            None => Vec::new(),
        };
        let with_count = RecordBatchOptions::new().with_row_count(Some(origin.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &with_count)?;
        Ok(Decoded { rows, weights: None, origin, bad })
    }
}

/// Encodes raw messages.
pub(crate) struct RawEncoder;

impl RawEncoder {
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self, FormatError> {
        check_type(schema)?;
        Ok(Self)
    }
}

impl Encoder for RawEncoder {
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<(), FormatError> {
        check_type(&rows.schema())?;
        let reader = Reader::new(rows.column(0))?;
        for row in 0..rows.num_rows() {
            if !reader.is_null(row) {
                out.extend_from_slice(reader.bytes(row).unwrap_or_default());
            }
            ends.push(out.len());
        }
        Ok(())
    }
}

/// One string or binary column.
fn check_type(schema: &SchemaRef) -> Result<(), FormatError> {
    use DataType as D;
    match schema.fields().as_ref() {
        [field] => match field.data_type() {
            D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Binary | D::LargeBinary | D::BinaryView => Ok(()),
            _ => Err(unfit(schema)),
        },
        _ => Err(unfit(schema)),
    }
}

fn unfit(schema: &SchemaRef) -> FormatError {
    let (column, data_type) = match schema.fields().as_ref() {
        [field] => (field.name().clone(), field.data_type().to_string()),
        fields => ("*".to_owned(), format!("{} columns", fields.len())),
    };
    FormatError::Type { column, format: FormatKind::Raw, data_type, advice: "declare one column of STRING or BYTES" }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::{FormatOptions, decoder, encoder};

    fn spec(data_type: DataType) -> DecodeSpec {
        let schema = Arc::new(Schema::new(vec![Field::new("v", data_type, true)]));
        DecodeSpec { schema, options: FormatOptions::new(FormatKind::Raw), prefilter: None }
    }

    #[test]
    fn text_is_checked_and_bytes_are_not() {
        let messages: &[&[u8]] = &[b"a", b"\xff", b"", "ü".as_bytes()];
        let decoded = decoder(spec(DataType::Utf8)).unwrap().decode(messages).unwrap();
        assert_eq!(decoded.origin, [0, 2, 3]);
        assert_eq!(decoded.bad, [BadMessage { message: 1, reason: "the message is not valid UTF-8".to_owned() }]);
        assert_eq!(decoded.rows.column(0).as_string::<i32>().value(2), "ü");
        let decoded = decoder(spec(DataType::Binary)).unwrap().decode(messages).unwrap();
        assert_eq!(decoded.origin, [0, 1, 2, 3]);
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        let schema = decoded.rows.schema();
        let options = FormatOptions::new(FormatKind::Raw);
        encoder(&schema, &options).unwrap().encode(&decoded.rows, &mut out, &mut ends).unwrap();
        assert_eq!((out, ends), (messages.concat(), vec![1, 2, 2, 4]));
    }

    #[test]
    fn filters_and_refuses() {
        let mut filtered = spec(DataType::Utf8);
        filtered.prefilter = Some(PreFilter { column: "v".to_owned(), accept: Accept::Text(vec!["b".to_owned()]) });
        assert_eq!(decoder(filtered).unwrap().decode(&[b"a", b"b"]).unwrap().origin, [1]);
        assert!(decoder(spec(DataType::Int64)).is_err());
    }
}

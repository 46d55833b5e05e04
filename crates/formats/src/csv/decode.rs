//! Records into a batch.
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};

use super::split::Splitter;
use crate::column::Scalar;
use crate::json::{excerpt, type_name};
use crate::text::number::Misfit;
use crate::{
    Accept, BadFields, BadMessage, CsvOptions, DecodeSpec, Decoded, Decoder, FormatError, FormatKind, PreFilter,
};

/// Decodes CSV records.
pub(crate) struct CsvDecoder {
    schema: SchemaRef,
    options: CsvOptions,
    lenient: bool,
    columns: Vec<Column>,
    /// For each field of a record, what is done with it.
    uses: Vec<Use>,
    scratch: Vec<u8>,
}

struct Column {
    field: FieldRef,
    values: Scalar,
    type_name: String,
}

#[derive(Default)]
struct Use {
    column: Option<usize>,
    accept: Option<Accept>,
}

/// What became of a record.
enum Outcome {
    Kept,
    Filtered,
}

impl CsvDecoder {
    pub(crate) fn new(spec: DecodeSpec) -> Result<Self, FormatError> {
        let DecodeSpec { schema, options, prefilter } = spec;
        let all: Vec<String> = if options.columns.is_empty() {
            schema.fields().iter().map(|f| f.name().clone()).collect()
        } else {
            options.columns
        };
        let mut uses: Vec<Use> = all.iter().map(|_| Use::default()).collect();
        let place = |name: &str| all.iter().position(|c| c == name);
        let mut columns = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            let refused = |advice| FormatError::Type {
                column: field.name().clone(),
                format: FormatKind::Csv,
                data_type: field.data_type().to_string(),
                advice,
            };
            let values = Scalar::of(field.data_type())
                .ok_or_else(|| refused("declare it as STRING, or use the format json for nested values"))?;
            let place = place(field.name()).ok_or_else(|| refused("it is not among the columns of the table"))?;
            uses[place].column = Some(i);
            columns.push(Column { field: field.clone(), values, type_name: type_name(field.data_type()) });
        }
        if let Some(PreFilter { column, accept }) = prefilter {
            let problem = match place(&column) {
                None => "there is no such column",
                Some(place) => {
                    let of_schema = uses[place].column.map(|c| columns[c].field.data_type());
                    let fits = of_schema.is_none_or(|t| match accept {
                        Accept::Int(_) => t.is_integer() && *t != DataType::UInt64,
                        Accept::Text(_) => *t == DataType::Utf8,
                    });
                    uses[place].accept = Some(accept);
                    if fits { "" } else { "its type cannot be compared with these values" }
                }
            };
            if !problem.is_empty() {
                return Err(FormatError::PreFilter { column, problem: problem.to_owned() });
            }
        }
        let lenient = options.bad_fields == BadFields::Null;
        Ok(Self { schema, options: options.csv, lenient, columns, uses, scratch: Vec::new() })
    }

    fn record(&mut self, record: &[u8], row: usize) -> Result<Outcome, String> {
        let mut splitter = Splitter::new(&self.options, record);
        let mut count = 0;
        loop {
            let at = splitter.at();
            let piece = splitter.next(&mut self.scratch).map_err(|b| format!("{} at byte {}", b.problem, b.at))?;
            let Some(piece) = piece else { break };
            let Some(target) = self.uses.get(count) else {
                return Err(format!("more than the {} fields declared, at byte {at}", self.uses.len()));
            };
            count += 1;
            let null = !piece.quoted && piece.text == self.options.null_literal.as_deref().unwrap_or("").as_bytes();
            if let Some(accept) = &target.accept
                && (null || !passes(accept, piece.text))
            {
                return Ok(Outcome::Filtered);
            }
            if let Some(column) = target.column.filter(|_| !null) {
                let column = &mut self.columns[column];
                if let Err(misfit) = column.values.set_text(row, piece.text) {
                    if !self.lenient {
                        return Err(column.misfit(misfit, piece.text, at));
                    }
                    column.values.clear(row, row + 1);
                }
            }
        }
        if self.uses.iter().skip(count).any(|u| u.accept.is_some()) {
            return Ok(Outcome::Filtered);
        }
        match self.columns.iter().find(|c| !c.field.is_nullable() && !c.values.is_set(row)) {
            Some(c) => Err(format!("field `{}`: null, but {} NOT NULL is declared", c.field.name(), c.type_name)),
            None => Ok(Outcome::Kept),
        }
    }
}

fn passes(accept: &Accept, text: &[u8]) -> bool {
    match accept {
        Accept::Int(values) => match crate::text::number::parse_whole(text) {
            Ok((negative, magnitude)) => {
                values.iter().any(|v| (*v < 0, v.unsigned_abs()) == (negative && magnitude > 0, magnitude))
            }
            // Whether the record is bad is found when the column is decoded.
            Err(_) => true,
        },
        Accept::Text(values) => values.iter().any(|v| v.as_bytes() == text),
    }
}

impl Column {
    fn misfit(&self, misfit: Misfit, text: &[u8], at: usize) -> String {
        let (name, expected, found) = (self.field.name(), &self.type_name, excerpt(text));
        match misfit {
            Misfit::Range => format!("field `{name}`: {found} is out of the range of {expected} at byte {at}"),
            Misfit::Fraction => format!("field `{name}`: {found} has a fraction, expected {expected} at byte {at}"),
            Misfit::Form if *self.field.data_type() == DataType::Utf8 => {
                format!("field `{name}`: not valid UTF-8 at byte {at}")
            }
            Misfit::Form => format!("field `{name}`: expected {expected}, found {found} at byte {at}"),
        }
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, messages: &[&[u8]]) -> Result<Decoded, FormatError> {
        let bytes: usize = messages.iter().map(|m| m.len()).sum();
        if i32::try_from(bytes).is_err() {
            return Err(FormatError::TooLarge { bytes });
        }
        self.columns.iter_mut().for_each(|c| c.values.reset(messages.len()));
        let (mut origin, mut bad) = (Vec::with_capacity(messages.len()), Vec::new());
        for (i, message) in (0_u32..).zip(messages) {
            let row = origin.len();
            match self.record(message, row) {
                Ok(Outcome::Kept) => {
                    origin.push(i);
                    continue;
                }
                Ok(Outcome::Filtered) => {}
                Err(reason) => bad.push(BadMessage { message: i, reason }),
            }
            self.columns.iter_mut().for_each(|c| c.values.clear(row, row + 1));
        }
        let columns = self.columns.iter_mut().map(|c| c.values.finish(origin.len(), c.field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let with_count = RecordBatchOptions::new().with_row_count(Some(origin.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &with_count)?;
        Ok(Decoded { rows, weights: None, origin, bad })
    }
}

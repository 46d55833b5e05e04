//! Messages into rows that come and go.
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{and, interleave};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::json::JsonDecoder;
use crate::{BadMessage, DecodeSpec, Decoded, Decoder, FormatError, FormatKind, upsert_schema};

/// Decodes changes.
pub(crate) struct DebeziumDecoder {
    /// Of the envelope: `before`, `after`, `op`, and the same inside `payload`.
    json: JsonDecoder,
    /// Of the rows that come out.
    schema: SchemaRef,
    /// The key's columns; empty: all of `before` counts.
    key: Vec<usize>,
    /// For each column its place in `before`.
    before: Vec<Option<usize>>,
}

/// One form of the envelope, for a batch of messages.
struct Envelope<'a> {
    before: &'a StructArray,
    after: &'a StructArray,
    op: &'a StringArray,
    /// By key: the key before is the key after.
    same_key: Option<BooleanArray>,
}

/// The rows of a batch, as places in the columns of both envelopes.
#[derive(Default)]
struct Picked {
    /// Array: two per envelope, `before` and `after`; and row.
    places: Vec<(usize, usize)>,
    weights: Vec<i64>,
    origin: Vec<u32>,
}

impl Picked {
    fn add(&mut self, array: usize, row: usize, weight: i64, message: u32) {
        self.places.push((array, row));
        self.weights.push(weight);
        self.origin.push(message);
    }
}

impl DebeziumDecoder {
    pub(crate) fn new(spec: DecodeSpec) -> Result<Self, FormatError> {
        let DecodeSpec { schema, mut options, prefilter } = spec;
        if let Some(filter) = prefilter {
            let problem = "a change cannot be left out by a value of its row".to_owned();
            return Err(FormatError::PreFilter { column: filter.column, problem });
        }
        let names = std::mem::take(&mut options.debezium.key);
        let key: Vec<usize> = (0..schema.fields().len()).filter(|i| names.contains(schema.field(*i).name())).collect();
        let of_before: Vec<usize> = if key.is_empty() { (0..schema.fields().len()).collect() } else { key.clone() };
        let before: Fields = of_before.iter().map(|i| schema.fields()[*i].clone()).collect();
        let envelope = |fields: &mut Vec<Field>| {
            fields.push(Field::new("before", DataType::Struct(before.clone()), true));
            fields.push(Field::new("after", DataType::Struct(schema.fields().clone()), true));
            fields.push(Field::new("op", DataType::Utf8, true));
        };
        let (mut outer, mut inner) = (Vec::new(), Vec::new());
        envelope(&mut outer);
        envelope(&mut inner);
        outer.push(Field::new("payload", DataType::Struct(inner.into()), true));
        options.kind = FormatKind::Json;
        options.json.fail_on_missing = false;
        let json = JsonDecoder::new(DecodeSpec { schema: Arc::new(Schema::new(outer)), options, prefilter: None })?;
        let place = |i: usize| of_before.iter().position(|b| *b == i);
        Ok(Self {
            json,
            before: (0..schema.fields().len()).map(place).collect(),
            schema: if key.is_empty() { schema } else { upsert_schema(&schema, &names) },
            key,
        })
    }

    fn envelope<'a>(&self, columns: &'a [ArrayRef]) -> Result<Envelope<'a>, ArrowError> {
        let (before, after) = (columns[0].as_struct(), columns[1].as_struct());
        let mut same_key = None;
        for column in &self.key {
            let Some(place) = self.before[*column] else { continue };
            let same = not_distinct(before.column(place), after.column(*column))?;
            same_key = Some(match &same_key {
                None => same,
                Some(others) => and(others, &same)?,
            });
        }
        Ok(Envelope { before, after, op: columns[2].as_string(), same_key })
    }

    /// Adds the rows of one message, or says what it lacks.
    fn pick(
        &self,
        envelope: &Envelope<'_>,
        number: usize,
        row: usize,
        message: u32,
        picked: &mut Picked,
    ) -> Result<(), String> {
        let (before, after) = (2 * number, 2 * number + 1);
        if envelope.op.is_null(row) {
            return Err("field `op` is missing: not a change as Debezium writes it".to_owned());
        }
        let op = envelope.op.value(row);
        let old = envelope.before.is_valid(row);
        let by_key = !self.key.is_empty();
        if matches!(op, "c" | "r" | "u") && envelope.after.is_null(row) {
            return Err(format!("op '{op}' without the row `after` it"));
        }
        match op {
            "c" | "r" => picked.add(after, row, 1, message),
            "u" => {
                if !old && !by_key {
                    return Err("op 'u' without the row `before` it: set REPLICA IDENTITY FULL for the table in PostgreSQL, or \
                                declare a PRIMARY KEY here"
                        .to_owned());
                }
                let same_key = envelope.same_key.as_ref().is_some_and(|s| s.value(row));
                if old && !same_key {
                    picked.add(before, row, -1, message);
                }
                picked.add(after, row, 1, message);
            }
            "d" if old => picked.add(before, row, -1, message),
            "d" => {
                return Err(
                    "op 'd' without the row `before` it: set REPLICA IDENTITY for the table in PostgreSQL".to_owned()
                );
            }
            other => return Err(format!("op '{other}' is none of c, r, u and d, which change rows")),
        }
        Ok(())
    }
}

impl Decoder for DebeziumDecoder {
    fn decode(&mut self, messages: &[&[u8]]) -> Result<Decoded, FormatError> {
        let Decoded { rows, origin, mut bad, .. } = self.json.decode(messages)?;
        let payload = rows.column(3).as_struct();
        let envelopes = [self.envelope(rows.columns())?, self.envelope(payload.columns())?];
        let mut picked = Picked::default();
        for (row, message) in origin.into_iter().enumerate() {
            let number = usize::from(payload.is_valid(row));
            if let Err(reason) = self.pick(&envelopes[number], number, row, message, &mut picked) {
                bad.push(BadMessage { message, reason });
            }
        }
        bad.sort_by_key(|b| b.message);
        let count = picked.places.len();
        // A snapshot: all of `after`, in order.
        let whole = count == rows.num_rows() && picked.places.iter().enumerate().all(|(i, place)| *place == (1, i));
        let column = |i: usize| {
            let absent = |rows: usize| new_null_array(self.schema.field(i).data_type(), rows);
            let before = |e: &Envelope<'_>| match self.before[i] {
                Some(place) => e.before.column(place).clone(),
                None => absent(e.before.len()),
            };
            if whole {
                return Ok(envelopes[0].after.column(i).clone());
            }
            let arrays: Vec<ArrayRef> = envelopes.iter().flat_map(|e| [before(e), e.after.column(i).clone()]).collect();
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            interleave(&arrays, &picked.places)
        };
        let columns = (0..self.schema.fields().len()).map(column).collect::<Result<Vec<_>, _>>()?;
        let with_count = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &with_count)?;
        let weights = picked.weights.iter().any(|w| *w < 0).then(|| Int64Array::from(picked.weights));
        Ok(Decoded { rows, weights, origin: picked.origin, bad })
    }
}

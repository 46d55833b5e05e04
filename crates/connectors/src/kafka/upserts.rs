//! Records of a table with a key: each takes the place of the one with its key, one without a value takes it away.
//!
//! The key's columns are read from the record's key, the others from its value, whether or not the value repeats the key: so a tombstone and
//! the row that it takes away cannot disagree about the key. A record without a key is bad, and so is one of which either half cannot be
//! decoded.
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use millstream_formats::{
    BadMessage, DecodeSpec, Decoded, Decoder, FormatError, FormatKind, FormatOptions, decoder, upsert_schema,
};

use super::native::fetch::Messages;
use crate::{ConnectorError, SourceSpec};

const NO_KEY: &str = "the record has no key, which the table's PRIMARY KEY is read from";

/// Decodes upserts.
pub(super) struct Upserts {
    key: Box<dyn Decoder>,
    /// `None`: no column of the value is used.
    value: Option<Box<dyn Decoder>>,
    /// For each column where it comes from.
    columns: Vec<Half>,
    schema: SchemaRef,
}

#[derive(Clone, Copy)]
enum Half {
    Key(usize),
    Value(usize),
}

/// A record that gives a row.
struct Row {
    message: u32,
    key: u32,
    /// `None`: a tombstone.
    value: Option<u32>,
}

impl Upserts {
    pub(super) fn new(spec: &SourceSpec, format: &FormatOptions) -> Result<Self, ConnectorError> {
        let mistake = |e: FormatError| {
            let hint = "correct the columns of the table, its 'key.format' or its format";
            ConnectorError::user(format!("table '{}': {e}", spec.table), hint)
        };
        let prefix = spec.options.text("key.fields-prefix").unwrap_or("");
        let in_key = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
        let (mut keys, mut values, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        for field in spec.schema.fields() {
            if spec.key.contains(field.name()) {
                columns.push(Half::Key(keys.len()));
                keys.push(Arc::new(field.as_ref().clone().with_name(in_key(field.name()))));
            } else {
                columns.push(Half::Value(values.len()));
                values.push(Arc::clone(field));
            }
        }
        let mut of_key = match spec.options.text("key.format").and_then(FormatKind::from_name) {
            Some(kind) => FormatOptions::new(kind),
            None => format.clone(),
        };
        of_key.columns = spec.key.iter().map(|name| in_key(name)).collect();
        let mut of_value = format.clone();
        if spec.options.text("value.fields-include").is_some_and(|v| v.eq_ignore_ascii_case("EXCEPT_KEY")) {
            of_value.columns.retain(|c| !spec.key.contains(c));
        }
        let decoder = |fields: Vec<_>, options| {
            decoder(DecodeSpec { schema: Arc::new(Schema::new(fields)), options, prefilter: None }).map_err(mistake)
        };
        Ok(Self {
            key: decoder(keys, of_key)?,
            value: if values.is_empty() { None } else { Some(decoder(values, of_value)?) },
            columns,
            schema: upsert_schema(&spec.schema, &spec.key),
        })
    }

    /// Rows with 1 for one that takes its key's place and -1 for a deletion. Counts the bytes of values.
    pub(super) fn decode(&mut self, messages: &Messages, bytes: &mut u64) -> Result<Decoded, FormatError> {
        let mut bad = Vec::new();
        // Messages with a key, then those of them with a value.
        let (mut keyed, mut keys) = (Vec::new(), Vec::new());
        for i in 0..messages.len() {
            match messages.key(i) {
                Some(key) => {
                    keyed.push(i as u32);
                    keys.push(key);
                }
                None => bad.push(BadMessage { message: i as u32, reason: NO_KEY.to_owned() }),
            }
        }
        let keys = self.key.decode(&keys)?;
        let of_key =
            |b: BadMessage| BadMessage { message: keyed[b.message as usize], reason: format!("key: {}", b.reason) };
        bad.extend(keys.bad.into_iter().map(of_key));
        let mut rows: Vec<Row> = Vec::with_capacity(keys.origin.len());
        let (mut valued, mut values) = (Vec::new(), Vec::new());
        for (row, origin) in keys.origin.iter().enumerate() {
            let message = keyed[*origin as usize];
            let value = messages.value(message as usize);
            if let Some(value) = value {
                *bytes += value.len() as u64;
                valued.push(rows.len());
                values.push(value);
            }
            rows.push(Row { message, key: row as u32, value: value.map(|_| 0) });
        }
        let values = match &mut self.value {
            Some(decoder) => Some(decoder.decode(&values)?),
            None => None,
        };
        if let Some(values) = &values {
            for (row, origin) in values.origin.iter().enumerate() {
                rows[valued[*origin as usize]].value = Some(row as u32);
            }
            let mut broken = vec![false; rows.len()];
            for b in &values.bad {
                let row = valued[b.message as usize];
                broken[row] = true;
                bad.push(BadMessage { message: rows[row].message, reason: b.reason.clone() });
            }
            let mut at = 0;
            rows.retain(|_| {
                at += 1;
                !broken[at - 1]
            });
        }
        bad.sort_by_key(|b| b.message);
        let at_key = UInt32Array::from_iter_values(rows.iter().map(|r| r.key));
        let at_value = UInt32Array::from_iter(rows.iter().map(|r| r.value));
        let column = |from: &Half| -> Result<ArrayRef, FormatError> {
            Ok(match (from, &values) {
                (Half::Key(i), _) => take(keys.rows.column(*i), &at_key, None)?,
                (Half::Value(i), Some(values)) => take(values.rows.column(*i), &at_value, None)?,
                (Half::Value(_), None) => {
                    let problem = "a column of the value has no decoder".to_owned();
                    return Err(FormatError::Schema { format: FormatKind::Json, problem });
                }
            })
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let with_count = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let weights = rows.iter().map(|r| if r.value.is_some() { 1 } else { -1 });
        let deletes = rows.iter().any(|r| r.value.is_none());
        Ok(Decoded {
            weights: deletes.then(|| Int64Array::from_iter_values(weights)),
            rows: RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &with_count)?,
            origin: rows.iter().map(|r| r.message).collect(),
            bad,
        })
    }
}

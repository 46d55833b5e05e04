//! The changes of one epoch, added up: what sinks need that publish or show every change.
//!
//! Rows come with weights, and what reaches a sink need not be consolidated: a projection may have made an old and a new row the same. Here
//! the weights of equal rows are added up, and rows that come to nothing are left out. Keys come out in the order in which
//! the epoch first touched them (rows without a key: each is its own); of a key the old row is followed by the new one.
//!
//! | op | |
//! |---|---|
//! | `+I` | a row that is there now |
//! | `-U`, `+U` | a row of a key and, right behind it, the one that takes its place |
//! | `-D` | a row that is there no longer |
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use crate::ConnectorError;

/// Rows of a batch that comes out, at most.
const BATCH_ROWS: usize = 8192;

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Insert,
    UpdateBefore,
    UpdateAfter,
    Delete,
}

impl Op {
    /// As Flink shows it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::UpdateBefore => "-U",
            Self::UpdateAfter => "+U",
            Self::Delete => "-D",
        }
    }
}

/// See the module.
pub(crate) struct EpochChanges {
    all: RowConverter,
    key: Option<(Vec<usize>, RowConverter)>,
    batches: Vec<RecordBatch>,
    /// In the order of first appearance.
    rows: Vec<Row>,
    places: HashMap<Box<[u8]>, usize>,
    /// Rows of each key.
    keys: Vec<Vec<usize>>,
    key_places: HashMap<Box<[u8]>, usize>,
}

struct Row {
    batch: usize,
    row: usize,
    weight: i64,
}

impl EpochChanges {
    /// `key`: columns that identify a row; none: the whole row.
    pub fn new(table: &str, schema: &SchemaRef, key: &[usize]) -> Result<Self, ConnectorError> {
        let field = |i: usize| SortField::new(schema.field(i).data_type().clone());
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        if let Some(odd) = all.iter().find(|i| !RowConverter::supports_fields(&[field(**i)])) {
            return Err(ConnectorError::user(
                format!("table '{table}': changes of column '{}' cannot be told apart", schema.field(*odd).name()),
                "CAST the column to STRING in the INSERT, or leave it out",
            ));
        }
        let converter = |columns: &[usize]| {
            RowConverter::new(columns.iter().map(|i| field(*i)).collect())
                .map_err(|e| ConnectorError::Fatal(format!("table '{table}': {e}")))
        };
        Ok(Self {
            all: converter(&all)?,
            key: if key.is_empty() { None } else { Some((key.to_vec(), converter(key)?)) },
            batches: Vec::new(),
            rows: Vec::new(),
            places: HashMap::new(),
            keys: Vec::new(),
            key_places: HashMap::new(),
        })
    }

    pub fn add(&mut self, rows: &RecordBatch, weights: Option<&Int64Array>) -> Result<(), ArrowError> {
        let bytes = self.all.convert_columns(rows.columns())?;
        let keys = match &self.key {
            Some((columns, converter)) => {
                let columns: Vec<ArrayRef> = columns.iter().map(|i| Arc::clone(rows.column(*i))).collect();
                Some(converter.convert_columns(&columns)?)
            }
            None => None,
        };
        for i in 0..rows.num_rows() {
            let weight = weights.map_or(1, |w| w.value(i));
            if let Some(place) = self.places.get(bytes.row(i).data()) {
                self.rows[*place].weight += weight;
                continue;
            }
            let place = self.rows.len();
            self.places.insert(bytes.row(i).data().into(), place);
            self.rows.push(Row { batch: self.batches.len(), row: i, weight });
            let Some(keys) = &keys else {
                self.keys.push(vec![place]);
                continue;
            };
            match self.key_places.get(keys.row(i).data()) {
                Some(at) => self.keys[*at].push(place),
                None => {
                    self.key_places.insert(keys.row(i).data().into(), self.keys.len());
                    self.keys.push(vec![place]);
                }
            }
        }
        self.batches.push(rows.clone());
        Ok(())
    }

    /// All changes since the last call, each row with its op.
    pub fn take(&mut self) -> Result<Vec<(RecordBatch, Vec<Op>)>, ArrowError> {
        let batches = std::mem::take(&mut self.batches);
        let rows = std::mem::take(&mut self.rows);
        self.places.clear();
        self.key_places.clear();
        let mut places = Vec::new();
        let mut ops = Vec::new();
        for of_key in std::mem::take(&mut self.keys) {
            let side = |sign: i64| {
                let rows = of_key.iter().map(|r| &rows[*r]).filter(move |r| r.weight.signum() == sign);
                rows.flat_map(|r| std::iter::repeat_n((r.batch, r.row), r.weight.unsigned_abs() as usize))
            };
            let (mut old, mut new) = (side(-1), side(1));
            loop {
                match (old.next(), new.next()) {
                    (Some(old), Some(new)) => {
                        places.extend([old, new]);
                        ops.extend([Op::UpdateBefore, Op::UpdateAfter]);
                    }
                    (Some(old), None) => {
                        places.push(old);
                        ops.push(Op::Delete);
                    }
                    (None, Some(new)) => {
                        places.push(new);
                        ops.push(Op::Insert);
                    }
                    (None, None) => break,
                }
            }
        }
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let parts = places.chunks(BATCH_ROWS).zip(ops.chunks(BATCH_ROWS));
        parts.map(|(places, ops)| Ok((interleave_record_batch(&batches, places)?, ops.to_vec()))).collect()
    }
}

/// `schema` with a column for the op in front.
pub(crate) fn schema_with(schema: &SchemaRef, column: &str) -> SchemaRef {
    let op = Arc::new(Field::new(column, DataType::Utf8, false));
    Arc::new(Schema::new(std::iter::once(op).chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

/// Rows with their op in front; `schema` is that of [`schema_with`].
pub(crate) fn rows_with(
    schema: &SchemaRef,
    ops: impl Iterator<Item = Op>,
    rows: &RecordBatch,
) -> Result<RecordBatch, ArrowError> {
    let ops: ArrayRef = Arc::new(StringArray::from_iter_values(ops.map(Op::text)));
    let columns = std::iter::once(ops).chain(rows.columns().iter().cloned());
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn rows(rows: &[(i64, Option<&str>)]) -> RecordBatch {
        let k: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let s: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1)));
        RecordBatch::try_from_iter_with_nullable([("k", k, true), ("s", s, true)]).unwrap()
    }

    fn taken(changes: &mut EpochChanges) -> Vec<String> {
        let show = |(rows, ops): (RecordBatch, Vec<Op>)| {
            let (k, s) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_string::<i32>());
            let line = |i: usize| {
                let s = if s.is_null(i) { "-" } else { s.value(i) };
                format!("{} {} {s}", ops[i].text(), k.value(i))
            };
            (0..rows.num_rows()).map(line).collect::<Vec<_>>()
        };
        changes.take().unwrap().into_iter().flat_map(show).collect()
    }

    fn weights(weights: &[i64]) -> Int64Array {
        Int64Array::from(weights.to_vec())
    }

    #[test]
    fn equal_rows_are_added_up() {
        let batch = rows(&[(1, Some("a")), (2, None), (1, Some("a")), (3, Some("c")), (2, None)]);
        let mut changes = EpochChanges::new("t", &batch.schema(), &[]).unwrap();
        changes.add(&batch, Some(&weights(&[-1, 1, 1, -2, 1]))).unwrap();
        changes.add(&rows(&[(4, None), (1, None)]), None).unwrap();
        assert_eq!(taken(&mut changes), ["+I 2 -", "+I 2 -", "-D 3 c", "-D 3 c", "+I 4 -", "+I 1 -"]);
        assert_eq!(taken(&mut changes), [""; 0]);
    }

    #[test]
    fn a_key_shows_which_row_takes_the_place_of_which() {
        let batch = rows(&[(1, Some("new")), (2, Some("x")), (1, Some("old")), (3, Some("gone")), (2, Some("x"))]);
        let mut changes = EpochChanges::new("t", &batch.schema(), &[0]).unwrap();
        changes.add(&batch, Some(&weights(&[1, 1, -1, -1, -1]))).unwrap();
        changes.add(&rows(&[(5, None)]), Some(&weights(&[1]))).unwrap();
        assert_eq!(taken(&mut changes), ["-U 1 old", "+U 1 new", "-D 3 gone", "+I 5 -"]);
        // An epoch starts without memory of the one before.
        changes.add(&rows(&[(1, Some("new"))]), Some(&weights(&[-1]))).unwrap();
        assert_eq!(taken(&mut changes), ["-D 1 new"]);
    }
}

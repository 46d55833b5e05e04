//! The one row of each key.
//!
//! **Upserts** (what a table of upserts reads): each row takes the place of the one with its key, a row with a negative weight takes it away
//! (only its key counts, and a key that is not there is no error). The last row of a key in the order of arrival wins, so whoever owns
//! a key must come over one path: a partition of the source, then a shuffle by the key. This is Flink's `ChangelogNormalize`.
//!
//! **Changes** (what an upsert sink reads, where the query does not say that its key is unique): weighted rows, of which at an epoch's end at
//! most one per key may be there. Two are an error that names the key: of a sink by key one of them would silently win.
//!
//! **Output**: for each key whose row is another at the epoch's end, the old row with −1, then the new one with +1, in the order in which the
//! epoch first touched the keys.
//!
//! **State.** By key the row's other columns, both as bytes of Arrow's row format. **Entries**: key → other columns.
use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use datafusion::error::Result as DfResult;
use hashbrown::HashMap;
use millstream_plan::OperatorId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{BATCH_ROWS, EpochContext, Operator, StateChange, StateReport, Step, failed};
use crate::graph::{Keyed, KeyedInput};
use crate::{DataflowError, DeltaBatch};

type Bytes = Box<[u8]>;
/// Only asked, never walked.
type ByKey<V> = HashMap<Bytes, V, BuildHasherDefault<KeyHasher>>;

#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) struct KeyedOperator {
    id: OperatorId,
    spec: Arc<Keyed>,
    output: SchemaRef,
    key: Columns,
    rest: Columns,
    rows: ByKey<Bytes>,
    row_bytes: usize,
    /// Of the current epoch, in the order of first appearance, and where each key stands among them.
    touched: Vec<Touched>,
    places: ByKey<usize>,
    /// Keys that changed since the last seal.
    changed: BTreeSet<Bytes>,
}

/// Some of the columns, as bytes.
struct Columns {
    indexes: Vec<usize>,
    /// `None`: there are none.
    converter: Option<RowConverter>,
}

/// What an epoch does to a key.
struct Touched {
    key: Bytes,
    change: Change,
}

enum Change {
    /// The row that is there now, if any.
    Becomes(Option<Bytes>),
    /// Rows with the sums of their weights.
    Adds(Vec<(Bytes, i64)>),
}

impl Columns {
    fn new(schema: &SchemaRef, indexes: Vec<usize>) -> DfResult<Self> {
        let fields = indexes.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect::<Vec<_>>();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { indexes, converter })
    }

    fn encode(&self, rows: &RecordBatch) -> DfResult<Option<arrow::row::Rows>> {
        let columns: Vec<ArrayRef> = self.indexes.iter().map(|i| rows.column(*i).clone()).collect();
        self.converter.as_ref().map(|c| Ok(c.convert_columns(&columns)?)).transpose()
    }

    fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> DfResult<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        Ok(converter.convert_rows(rows.map(|r| parser.parse(r)))?)
    }

    /// Values for people.
    fn show(&self, row: &[u8]) -> String {
        let columns = self.decode(std::iter::once(row)).unwrap_or_default();
        let text = |c: &ArrayRef| match c.is_null(0) {
            true => "NULL".to_owned(),
            false => array_value_to_string(c, 0).unwrap_or_default(),
        };
        columns.iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

impl KeyedOperator {
    pub fn new(id: OperatorId, spec: &Arc<Keyed>, output: SchemaRef) -> Result<Self, DataflowError> {
        let rest = (0..output.fields().len()).filter(|i| !spec.keys.contains(i)).collect();
        let columns = |indexes| Columns::new(&output, indexes).map_err(failed(id, "rows by key"));
        Ok(Self {
            id,
            spec: spec.clone(),
            key: columns(spec.keys.clone())?,
            rest: columns(rest)?,
            output,
            rows: ByKey::default(),
            row_bytes: 0,
            touched: Vec::new(),
            places: ByKey::default(),
            changed: BTreeSet::new(),
        })
    }

    fn add(&mut self, batch: &DeltaBatch) -> DfResult<()> {
        let keys = self.key.encode(&batch.rows)?;
        let rest = self.rest.encode(&batch.rows)?;
        for at in 0..batch.num_rows() {
            let key = keys.as_ref().map_or(&[][..], |k| k.row(at).data());
            let row = || -> Bytes { rest.as_ref().map_or_else(Bytes::default, |r| r.row(at).data().into()) };
            let weight = batch.weights.as_ref().map_or(1, |w| w.value(at));
            let place = match self.places.get(key) {
                Some(place) => *place,
                None => {
                    let change = match self.spec.input {
                        KeyedInput::Upserts => Change::Becomes(None),
                        KeyedInput::Changes => Change::Adds(Vec::with_capacity(2)),
                    };
                    self.places.insert(key.into(), self.touched.len());
                    self.touched.push(Touched { key: key.into(), change });
                    self.touched.len() - 1
                }
            };
            match &mut self.touched[place].change {
                Change::Becomes(last) => *last = (weight > 0).then(row),
                Change::Adds(sums) => {
                    let row = row();
                    match sums.iter_mut().find(|(known, _)| *known == row) {
                        Some((_, sum)) => *sum += weight,
                        None => sums.push((row, weight)),
                    }
                }
            }
        }
        Ok(())
    }

    /// The row that a key has after the epoch.
    fn settle(&self, key: &[u8], old: Option<&Bytes>, change: Change) -> Result<Option<Bytes>, DataflowError> {
        let mut sums = match change {
            Change::Becomes(row) => return Ok(row),
            Change::Adds(sums) => sums,
        };
        if let Some(old) = old {
            match sums.iter_mut().find(|(row, _)| row == old) {
                Some((_, sum)) => *sum += 1,
                None => sums.push((old.clone(), 1)),
            }
        }
        if let Some((row, _)) = sums.iter().find(|(_, sum)| *sum < 0) {
            let (key, row) = (self.key.show(key), self.rest.show(row));
            let message = format!("operator {}: a row of key ({key}) is taken away that is not there: {row}", self.id);
            return Err(DataflowError::Corrupt(message));
        }
        let live: Vec<&(Bytes, i64)> = sums.iter().filter(|(_, sum)| *sum > 0).collect();
        if live.iter().map(|(_, sum)| sum).sum::<i64>() > 1 {
            let named = self.spec.keys.iter().map(|k| self.output.field(*k).name().as_str());
            let names = named.collect::<Vec<_>>().join(", ");
            let twice = live.iter().cycle().take(2).map(|(row, _)| format!("({})", self.rest.show(row)));
            return Err(DataflowError::Expression {
                operator: format!("table '{}'", self.spec.table),
                message: format!(
                    "several rows for key ({names}) = ({}): {}; make the query return one row per PRIMARY KEY, for example by \
                     GROUP BY, or choose a longer key",
                    self.key.show(key),
                    twice.collect::<Vec<_>>().join(" and ")
                ),
            });
        }
        Ok(live.first().map(|(row, _)| row.clone()))
    }

    fn emit(&mut self, out: &mut Vec<DeltaBatch>) -> Result<(), DataflowError> {
        self.places.clear();
        let mut changes: Vec<(Bytes, Bytes, i64)> = Vec::new();
        for Touched { key, change } in std::mem::take(&mut self.touched) {
            let new = self.settle(&key, self.rows.get(&key), change)?;
            let old = match &new {
                Some(row) => {
                    self.row_bytes += row.len();
                    self.rows.insert(key.clone(), row.clone())
                }
                None => self.rows.remove(&key),
            };
            self.row_bytes -= old.as_ref().map_or(0, |o| o.len());
            match (&old, &new) {
                (None, Some(_)) => self.row_bytes += key.len(),
                (Some(_), None) => self.row_bytes -= key.len(),
                _ => {}
            }
            if old == new {
                continue;
            }
            changes.extend(old.map(|row| (key.clone(), row, -1)));
            changes.extend(new.map(|row| (key.clone(), row, 1)));
            self.changed.insert(key);
        }
        for part in changes.chunks(BATCH_ROWS) {
            out.push(self.batch(part).map_err(failed(self.id, "rows by key"))?);
        }
        Ok(())
    }

    fn batch(&self, changes: &[(Bytes, Bytes, i64)]) -> DfResult<DeltaBatch> {
        let keys = self.key.decode(changes.iter().map(|c| &*c.0))?;
        let rest = self.rest.decode(changes.iter().map(|c| &*c.1))?;
        let placed = self.key.indexes.iter().zip(keys).chain(self.rest.indexes.iter().zip(rest));
        let mut columns: Vec<(usize, ArrayRef)> = placed.map(|(i, c)| (*i, c)).collect();
        columns.sort_by_key(|(i, _)| *i);
        let columns = columns.into_iter().map(|(_, c)| c).collect();
        let weights = Int64Array::from_iter_values(changes.iter().map(|c| c.2));
        Ok(DeltaBatch { rows: RecordBatch::try_new(self.output.clone(), columns)?, weights: Some(weights) })
    }
}

impl Operator for KeyedOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        self.add(&batch).map_err(failed(self.id, "rows by key"))?;
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit(out)?;
        Ok(Step::Done)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        Ok(changed.map(|key| StateChange { value: self.rows.get(&key).map(|r| r.to_vec()), key: key.into() }).collect())
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        self.row_bytes += key.len() + value.len();
        self.rows.insert(key.into(), value.into());
        Ok(())
    }

    fn report(&self) -> StateReport {
        let table = self.rows.capacity() * (2 * size_of::<Bytes>() + 1);
        StateReport { keys: self.rows.len() as u64, bytes: (self.row_bytes + table) as u64, next_timer: None }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

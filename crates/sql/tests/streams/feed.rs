//! How the rows of a table come in: an order, epoch boundaries, watermarks, deletions. A function of the seed.
//!
//! Rows come in random order, but never later than the declared delay allows: row r is due at its event time plus a random part of its delay d.
//! If s comes before r, then t(s) ≤ t(r) + d(r), so r is not below the watermark that s gives. The watermark of an epoch is at
//! most what the epochs before gave, or what this epoch gives if none of its own rows is below it.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StructArray, UInt32Array,
};
use arrow::compute::{cast, filter_record_batch, nullif, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use millstream_dataflow::DeltaBatch;
use millstream_dataflow::graph::{FilterValues, Node, SourceNode};
use millstream_dataflow::times::to_millis;

use crate::difference::texts;
use crate::draws::Draws;

/// How a table changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Rows are added.
    Appended,
    /// Rows are also taken away, and some come twice.
    Updating,
    /// A row takes the place of the one with the same values in these columns, and some are taken away.
    Keyed(Vec<String>),
    /// The same, but all that comes in is the new row, or the key of one that goes: the source's table has a PRIMARY KEY.
    Upserts(Vec<String>),
}

/// One row of a table, added or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub row: u32,
    pub weight: i64,
    /// Of an upsert: the row whose place it takes.
    pub replaces: Option<u32>,
    /// The source task that reads it.
    pub task: u16,
}

/// The input of one source over all epochs.
pub struct Feed {
    /// All columns of the table.
    rows: RecordBatch,
    changes: Changes,
    /// By epoch.
    pub epochs: Vec<Vec<Event>>,
    /// By epoch: the watermark.
    pub watermarks: Vec<i64>,
    batch_rows: usize,
}

/// What the source node says of each row.
struct Times {
    event: Int64Array,
    /// The watermark that it gives.
    mark: Int64Array,
}

impl Feed {
    pub fn new(
        node: &SourceNode,
        rows: RecordBatch,
        changes: &Changes,
        epochs: usize,
        tasks: u16,
        draws: &mut Draws,
    ) -> Self {
        let times = node.watermark.as_ref().map(|watermark| {
            let decoded = decode(&rows, node);
            let array = |expr: &Arc<dyn datafusion::physical_expr::PhysicalExpr>| {
                to_millis(&expr.evaluate(&decoded).unwrap().into_array(decoded.num_rows()).unwrap()).unwrap()
            };
            Times { event: array(&node.columns[watermark.column].expr), mark: array(&watermark.expr) }
        });
        let order = arrival(rows.num_rows(), times.as_ref(), draws);
        let events = match changes {
            Changes::Appended => anywhere(order.into_iter().map(|row| (row, 1)).collect(), tasks, draws),
            Changes::Updating => anywhere(with_deletions(order, draws), tasks, draws),
            Changes::Keyed(key) => anywhere(with_updates(order, &rows, key, draws), tasks, draws),
            Changes::Upserts(key) => upserts(order, &rows, key, tasks, draws),
        };
        let mut epochs = cut(events, epochs, draws);
        if matches!(changes, Changes::Updating | Changes::Keyed(_)) && draws.chance(1, 2) {
            // Inside an epoch only the sum counts.
            epochs.iter_mut().for_each(|e| draws.shuffle(e));
        }
        let watermarks = match &times {
            Some(times) => watermarks(times, &epochs, draws),
            None => vec![i64::MIN; epochs.len()],
        };
        // Batches of one row are for small inputs.
        let smallest = rows.num_rows() / 500;
        let batch_rows = (*draws.pick(&[1, 3, 50, 1000, 8192])).max(smallest);
        Self { rows, changes: changes.clone(), epochs, watermarks, batch_rows }
    }

    /// The same rows in these of `count` epochs.
    pub fn spread(self, own: &[usize], count: usize) -> Self {
        let mut epochs = vec![Vec::new(); count];
        let mut watermarks = vec![i64::MIN; count];
        for ((at, events), watermark) in own.iter().zip(self.epochs).zip(&self.watermarks) {
            epochs[*at] = events;
            watermarks[*at..].fill(*watermark);
        }
        Self { epochs, watermarks, ..self }
    }

    /// The batches that source task `task` gives in an epoch.
    pub fn batches(&self, node: &Node, source: &SourceNode, epoch: usize, task: u16) -> Vec<DeltaBatch> {
        let events: Vec<&Event> = self.epochs[epoch].iter().filter(|e| e.task == task).collect();
        let batch = |events: &[&Event]| {
            let rows = UInt32Array::from_iter_values(events.iter().map(|e| e.row));
            let mut decoded = decode(&self.given(&rows, events), source);
            let mut weights = Int64Array::from_iter_values(events.iter().map(|e| e.weight));
            if let Some(filter) = &source.prefilter {
                let keep = accepted(decoded.column_by_name(&filter.column).unwrap(), &filter.values);
                weights = arrow::compute::filter(&weights, &keep).unwrap().as_primitive().clone();
                decoded = filter_record_batch(&decoded, &keep).unwrap();
            }
            let count = decoded.num_rows();
            let columns = source.columns.iter().map(|c| c.expr.evaluate(&decoded).unwrap().into_array(count).unwrap());
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            let schema = node.output.schema.clone();
            let rows = RecordBatch::try_new_with_options(schema, columns.collect(), &options).unwrap();
            DeltaBatch { rows, weights: (self.changes != Changes::Appended).then_some(weights) }
        };
        events.chunks(self.batch_rows).map(batch).collect()
    }

    /// The rows of these events as the source gives them: of an upsert that takes a row away the key alone.
    fn given(&self, rows: &UInt32Array, events: &[&Event]) -> RecordBatch {
        let rows = take_record_batch(&self.rows, rows).unwrap();
        let Changes::Upserts(key) = &self.changes else { return rows };
        let gone: BooleanArray = events.iter().map(|e| Some(e.weight < 0)).collect();
        let schema = rows.schema();
        let columns =
            rows.columns().iter().zip(schema.fields()).map(|(column, field)| match key.contains(field.name()) {
                true => column.clone(),
                false => nullif(column, &gone).unwrap(),
            });
        RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
    }

    /// The table after an epoch, each row as often as it is there, with the epoch in which it came.
    pub fn table_after(&self, epoch: usize) -> (RecordBatch, Vec<usize>) {
        let mut counts: BTreeMap<(usize, u32), i64> = BTreeMap::new();
        let mut came: BTreeMap<u32, usize> = BTreeMap::new();
        for (at, events) in self.epochs[..=epoch].iter().enumerate() {
            for event in events {
                let first = *came.entry(event.row).or_insert(at);
                *counts.entry((first, event.row)).or_default() += event.weight;
                if let Some(old) = event.replaces {
                    *counts.entry((came[&old], old)).or_default() -= 1;
                }
            }
        }
        let live = counts.into_iter().flat_map(|((epoch, row), count)| {
            assert!(count >= 0, "a row is taken away more often than it was added");
            (0..count).map(move |_| (epoch, row))
        });
        let (epochs, rows): (Vec<usize>, Vec<u32>) = live.unzip();
        (take_record_batch(&self.rows, &UInt32Array::from(rows)).unwrap(), epochs)
    }
}

fn arrival(rows: usize, times: Option<&Times>, draws: &mut Draws) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows as u32).collect();
    draws.shuffle(&mut order);
    let Some(times) = times else {
        if draws.chance(1, 4) {
            order.sort_unstable();
        }
        return order;
    };
    let newest = arrow::compute::max(&times.event).unwrap_or(0);
    let oldest = arrow::compute::min(&times.event).unwrap_or(0);
    // How much of the delay is used.
    let share = *draws.pick(&[0, 50, 100]);
    let mut due = |row: u32| {
        let row = row as usize;
        if times.event.is_null(row) {
            return oldest + draws.below((newest - oldest + 1) as usize) as i64;
        }
        let delay = (times.event.value(row) - times.mark.value(row)).max(0) * share / 100;
        times.event.value(row) + draws.below(delay as usize + 1) as i64
    };
    let mut keyed: Vec<(i64, u32)> = order.into_iter().map(|row| (due(row), row)).collect();
    // Stable: rows that are due together stay shuffled.
    keyed.sort_by_key(|(due, _)| *due);
    keyed.into_iter().map(|(_, row)| row).collect()
}

fn with_deletions(order: Vec<u32>, draws: &mut Draws) -> Vec<(u32, i64)> {
    let mut events = Vec::new();
    let mut live: Vec<u32> = Vec::new();
    for row in order {
        let times = if draws.chance(1, 8) { 2 } else { 1 };
        events.push((row, times));
        live.extend((0..times).map(|_| row));
        while !live.is_empty() && draws.chance(1, 4) {
            let gone = live.swap_remove(draws.below(live.len()));
            events.push((gone, -1));
        }
    }
    events
}

fn with_updates(order: Vec<u32>, rows: &RecordBatch, key: &[String], draws: &mut Draws) -> Vec<(u32, i64)> {
    let by: Vec<usize> = key.iter().map(|c| rows.schema().index_of(c).unwrap()).collect();
    let keys = texts(&rows.project(&by).unwrap());
    let mut events = Vec::new();
    let mut live: BTreeMap<&[String], u32> = BTreeMap::new();
    for row in order {
        let key = keys[row as usize].as_slice();
        events.extend(live.insert(key, row).map(|old| (old, -1)));
        events.push((row, 1));
        if draws.chance(1, 8) {
            let gone = *live.keys().nth(draws.below(live.len())).unwrap();
            events.extend(live.remove(gone).map(|old| (old, -1)));
        }
    }
    events
}

/// Each event in a task of its own.
fn anywhere(events: Vec<(u32, i64)>, tasks: u16, draws: &mut Draws) -> Vec<Event> {
    let event = |(row, weight)| Event { row, weight, replaces: None, task: draws.below(usize::from(tasks)) as u16 };
    events.into_iter().map(event).collect()
}

/// Rows that take each other's place, and deletions; those of a key come to one task.
fn upserts(order: Vec<u32>, rows: &RecordBatch, key: &[String], tasks: u16, draws: &mut Draws) -> Vec<Event> {
    let by: Vec<usize> = key.iter().map(|c| rows.schema().index_of(c).unwrap()).collect();
    let keys = texts(&rows.project(&by).unwrap());
    let task = |row: u32| {
        let bytes = keys[row as usize].iter().flat_map(|k| k.bytes());
        bytes.fold(7_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(b))) as u16 % tasks
    };
    let mut events = Vec::new();
    let mut live: BTreeMap<&[String], u32> = BTreeMap::new();
    for row in order {
        let replaces = live.insert(keys[row as usize].as_slice(), row);
        events.push(Event { row, weight: 1, replaces, task: task(row) });
        if draws.chance(1, 6) {
            let gone = *live.keys().nth(draws.below(live.len())).unwrap();
            events.extend(live.remove(gone).map(|row| Event { row, weight: -1, replaces: None, task: task(row) }));
        }
    }
    events
}

/// Random boundaries; some epochs are empty.
fn cut(events: Vec<Event>, epochs: usize, draws: &mut Draws) -> Vec<Vec<Event>> {
    let mut ends: Vec<usize> = (1..epochs).map(|_| draws.below(events.len() + 1)).collect();
    ends.push(events.len());
    ends.sort_unstable();
    let mut from = 0;
    let parts = ends.into_iter().map(|to| {
        let part = events[from..to].to_vec();
        from = to;
        part
    });
    parts.collect()
}

fn watermarks(times: &Times, epochs: &[Vec<Event>], draws: &mut Draws) -> Vec<i64> {
    let (mut watermark, mut seen) = (i64::MIN, i64::MIN);
    let of = |array: &Int64Array, event: &Event| {
        Some(event.row as usize).filter(|r| array.is_valid(*r)).map(|r| array.value(r))
    };
    let mut all = Vec::new();
    for events in epochs {
        let before = seen;
        let added = || events.iter().filter(|e| e.weight > 0);
        seen = added().filter_map(|e| of(&times.mark, e)).max().unwrap_or(seen).max(seen);
        let oldest = added().filter_map(|e| of(&times.event, e)).min().unwrap_or(i64::MAX);
        let next = if draws.chance(1, 2) { before } else { seen.min(oldest).max(before) };
        watermark = watermark.max(next);
        all.push(watermark);
    }
    all
}

/// What the decoder gives of a table's rows.
fn decode(rows: &RecordBatch, node: &SourceNode) -> RecordBatch {
    let fields = node.decoded.fields().iter();
    let columns = fields.map(|f| {
        let column = rows.column_by_name(f.name()).unwrap_or_else(|| panic!("the table has no column '{}'", f.name()));
        pruned(column, f.data_type())
    });
    let columns: Vec<ArrayRef> = columns.collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(node.decoded.clone(), columns, &options).unwrap()
}

/// Drops the fields of structs that `to` does not have.
fn pruned(array: &ArrayRef, to: &DataType) -> ArrayRef {
    match to {
        DataType::Struct(fields) => {
            let from = array.as_struct();
            let columns = fields.iter().map(|f| pruned(from.column_by_name(f.name()).unwrap(), f.data_type()));
            let columns: Vec<ArrayRef> = columns.collect();
            Arc::new(
                StructArray::try_new_with_length(fields.clone(), columns, from.nulls().cloned(), from.len()).unwrap(),
            )
        }
        other => {
            assert_eq!(array.data_type(), other);
            array.clone()
        }
    }
}

fn accepted(column: &ArrayRef, values: &FilterValues) -> BooleanArray {
    match values {
        FilterValues::Int(values) => {
            let column = cast(column, &DataType::Int64).unwrap();
            column.as_primitive::<Int64Type>().iter().map(|v| Some(v.is_some_and(|v| values.contains(&v)))).collect()
        }
        FilterValues::Text(values) => {
            column.as_string::<i32>().iter().map(|v| Some(v.is_some_and(|v| values.iter().any(|w| w == v)))).collect()
        }
    }
}

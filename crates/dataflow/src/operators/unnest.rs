//! UNNEST: every row once per element of its lists. Linear: weights pass through.
//!
//! Several lists advance together; the shorter ones are padded with nulls. A row whose lists are all null or empty gives no row, or one with nulls
//! ([`Unnest::keeps_empty`]). Resumable in the middle of a list.
use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::{DataFusionError, Result as DfResult};
use millstream_plan::OperatorId;

use super::{BATCH_ROWS, EpochContext, Operator, Step, failed};
use crate::graph::Unnest;
use crate::{DataflowError, DeltaBatch};

pub(super) struct UnnestOperator {
    id: OperatorId,
    unnest: Unnest,
    schema: SchemaRef,
    pending: Option<Pending>,
}

/// A batch on its way out: the next row, and the next element of it.
struct Pending {
    batch: DeltaBatch,
    row: usize,
    element: usize,
}

impl UnnestOperator {
    pub(super) fn new(id: OperatorId, unnest: &Unnest, schema: SchemaRef) -> Self {
        Self { id, unnest: unnest.clone(), schema, pending: None }
    }

    /// Emits up to a batch.
    fn step(&mut self, out: &mut Vec<DeltaBatch>) -> DfResult<Step> {
        let Some(pending) = &mut self.pending else { return Ok(Step::Done) };
        let batch = &pending.batch;
        let lists = self.unnest.lists.iter().map(|c| list(batch.rows.column(*c)));
        let lists = lists.collect::<DfResult<Vec<&ListArray>>>()?;
        let mut rows: Vec<u32> = Vec::new();
        let mut elements: Vec<Vec<Option<u32>>> = vec![Vec::new(); lists.len()];
        while rows.len() < BATCH_ROWS && pending.row < batch.num_rows() {
            let row = pending.row;
            let length = |list: &&ListArray| if list.is_null(row) { 0 } else { list.value_length(row) as usize };
            let longest = lists.iter().map(length).max().unwrap_or(0);
            let count = if longest == 0 && self.unnest.keeps_empty { 1 } else { longest };
            let taken = (count - pending.element).min(BATCH_ROWS - rows.len());
            for (list, elements) in lists.iter().zip(&mut elements) {
                let (from, length) = (list.value_offsets()[row] as usize, length(list));
                let element = |at: usize| (at < length).then(|| (from + at) as u32);
                elements.extend((pending.element..pending.element + taken).map(element));
            }
            rows.extend(std::iter::repeat_n(row as u32, taken));
            pending.element += taken;
            if pending.element == count {
                (pending.row, pending.element) = (row + 1, 0);
            }
        }
        let is_done = pending.row == batch.num_rows();
        if !rows.is_empty() {
            let rows = UInt32Array::from(rows);
            let columns = batch.rows.columns().iter().enumerate().map(|(i, column)| {
                let at = self.unnest.lists.iter().position(|c| *c == i);
                Ok(match at {
                    Some(at) => take(lists[at].values(), &UInt32Array::from(std::mem::take(&mut elements[at])), None)?,
                    None => take(column, &rows, None)?,
                })
            });
            let columns = columns.collect::<DfResult<Vec<ArrayRef>>>()?;
            let weights = match &batch.weights {
                Some(weights) => Some(take(weights, &rows, None)?.as_primitive().clone()),
                None => None,
            };
            let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
            let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
            out.push(DeltaBatch { rows, weights });
        }
        if is_done {
            self.pending = None;
            return Ok(Step::Done);
        }
        Ok(Step::More)
    }
}

fn list(column: &ArrayRef) -> DfResult<&ListArray> {
    column.as_list_opt::<i32>().ok_or_else(|| DataFusionError::Internal(format!("{} is no list", column.data_type())))
}

impl Operator for UnnestOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        cx: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        self.pending = Some(Pending { batch, row: 0, element: 0 });
        self.resume(cx, out)
    }

    fn resume(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let failed = failed(self.id, "unnest");
        self.step(out).map_err(failed)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, Int64Builder, ListBuilder};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_plan::{Epoch, EpochPlan};

    use super::*;

    type Lists = Vec<Option<Vec<i64>>>;

    fn lists(rows: &[Option<Vec<i64>>]) -> ArrayRef {
        let mut builder = ListBuilder::new(Int64Builder::new());
        for row in rows {
            builder.append_option(row.as_ref().map(|r| r.iter().copied().map(Some)));
        }
        Arc::new(builder.finish())
    }

    /// (k, a, b, weight) of what leaves.
    fn run(
        a: Lists,
        b: Lists,
        weights: Option<Vec<i64>>,
        keeps_empty: bool,
    ) -> Vec<(i64, Option<i64>, Option<i64>, i64)> {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
        let schema = |t: &DataType| {
            let fields = [("k", &DataType::Int64), ("a", t), ("b", t)].map(|(n, t)| Field::new(n, t.clone(), true));
            Arc::new(Schema::new(fields.to_vec()))
        };
        // A slice, so that offsets do not begin at 0.
        let before = |rows: Lists| [vec![Some(vec![-1, -2])], rows].concat();
        let (a, b) = (before(a), before(b));
        let k: ArrayRef = Arc::new((0..a.len() as i64).collect::<Int64Array>());
        let rows = RecordBatch::try_new(schema(&list), vec![k, lists(&a), lists(&b)]).unwrap().slice(1, a.len() - 1);
        let unnest = Unnest { lists: vec![1, 2], keeps_empty };
        let mut operator = UnnestOperator::new(OperatorId(0), &unnest, schema(&DataType::Int64));
        let plan =
            EpochPlan { epoch: Epoch(1), now_ms: 0, sources: Vec::new(), checkpoint: false, flush: false, last: false };
        let cx = EpochContext { plan: &plan };
        let mut out = Vec::new();
        let mut step =
            operator.process(0, DeltaBatch { rows, weights: weights.map(Int64Array::from) }, &cx, &mut out).unwrap();
        while step == Step::More {
            step = operator.resume(&cx, &mut out).unwrap();
        }
        assert!(out.iter().all(|b| b.num_rows() > 0 && b.num_rows() <= BATCH_ROWS));
        let rows = out.iter().flat_map(|batch| {
            let column = |i: usize| batch.rows.column(i).as_primitive::<Int64Type>();
            let value = move |i: usize, row: usize| column(i).is_valid(row).then(|| column(i).value(row));
            let weight = |row: usize| batch.weights.as_ref().map_or(1, |w| w.value(row));
            (0..batch.num_rows()).map(move |row| (column(0).value(row), value(1, row), value(2, row), weight(row)))
        });
        rows.collect()
    }

    #[test]
    fn lists_advance_together() {
        let a = vec![Some(vec![1, 2]), None, Some(vec![]), Some(vec![3])];
        let b = vec![Some(vec![7]), Some(vec![8]), None, Some(vec![9, 10])];
        let out = run(a.clone(), b.clone(), Some(vec![2, -1, 5, 1]), false);
        let expected = [
            (1, Some(1), Some(7), 2),
            (1, Some(2), None, 2),
            (2, None, Some(8), -1),
            (4, Some(3), Some(9), 1),
            (4, None, Some(10), 1),
        ];
        assert_eq!(out, expected);
        let out = run(a, b, None, true);
        assert_eq!(out.iter().filter(|row| row.0 == 3).collect::<Vec<_>>(), [&(3, None, None, 1)]);
        assert_eq!(out.len(), 6);
    }

    #[test]
    fn a_long_list_leaves_in_batches() {
        let long: Vec<i64> = (0..3 * BATCH_ROWS as i64 + 5).collect();
        let out = run(vec![Some(vec![1]), Some(long.clone())], vec![None, Some(vec![4])], None, false);
        let found: Vec<Option<i64>> = out.iter().skip(1).map(|row| row.1).collect();
        assert_eq!(found, long.into_iter().map(Some).collect::<Vec<_>>());
    }
}

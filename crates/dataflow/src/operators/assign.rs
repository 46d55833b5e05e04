//! Rows × windows: every row once for each window that holds it, with the window's bounds appended. Linear: weights pass through.
use arrow::array::{Array, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use millstream_plan::OperatorId;

use super::{EpochContext, Operator, Step, failed};
use crate::graph::WindowAssign;
use crate::times::{from_millis, to_millis};
use crate::windows::Panes;
use crate::{DataflowError, DeltaBatch};

pub(super) struct AssignOperator {
    id: OperatorId,
    panes: Panes,
    time: usize,
    schema: SchemaRef,
}

impl AssignOperator {
    pub(super) fn new(id: OperatorId, assign: &WindowAssign, schema: SchemaRef) -> Result<Self, DataflowError> {
        let panes = Panes::of(assign.window)
            .ok_or_else(|| DataflowError::Corrupt(format!("operator {id}: {:?} assigns no windows", assign.window)))?;
        Ok(Self { id, panes, time: assign.time, schema })
    }

    fn apply(&self, batch: &DeltaBatch) -> DfResult<DeltaBatch> {
        let rows = &batch.rows;
        let times = to_millis(rows.column(self.time))?;
        let (mut indices, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for row in (0..rows.num_rows()).filter(|r| times.is_valid(*r)) {
            for window in self.panes.windows_of(self.panes.pane_of(times.value(row))) {
                indices.push(row as u32);
                starts.push(window.start);
                ends.push(window.end);
            }
        }
        let indices = UInt32Array::from(indices);
        let mut columns = rows.columns().iter().map(|c| take(c, &indices, None)).collect::<Result<Vec<_>, _>>()?;
        let at = columns.len();
        let last: Int64Array = ends.iter().map(|e| e - 1).collect();
        for (i, values) in [Int64Array::from(starts), Int64Array::from(ends), last].into_iter().enumerate() {
            columns.push(from_millis(values, self.schema.field(at + i).data_type())?);
        }
        let weights = match &batch.weights {
            Some(w) => Some(arrow::array::AsArray::as_primitive(&take(w, &indices, None)?).clone()),
            None => None::<Int64Array>,
        };
        Ok(DeltaBatch { rows: RecordBatch::try_new(self.schema.clone(), columns)?, weights })
    }
}

impl Operator for AssignOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.num_rows() > 0 {
            out.push(self.apply(&batch).map_err(failed(self.id, "window"))?);
        }
        Ok(Step::Done)
    }
}

//! First half where rows are kept: evaluates keys, arguments, orders and filters, so that nothing else crosses the shuffle. Linear: weights pass.
//!
//! Groups that have a row also before any input are told to their task by rows of weight 0.
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, new_null_array};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr::PhysicalExpr;
use millstream_plan::OperatorId;

use super::super::{EpochContext, Operator, Step, failed};
use super::inputs_of;
use crate::graph::GroupAggregate;
use crate::{DataflowError, DeltaBatch};

pub(super) struct Prepare {
    id: OperatorId,
    spec: Arc<GroupAggregate>,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
}

impl Prepare {
    pub fn new(id: OperatorId, spec: &Arc<GroupAggregate>) -> Self {
        let keys = spec.keys.iter().map(|k| k.expr.clone());
        let exprs = keys.chain(inputs_of(spec.keys.len(), &spec.calls).0).collect();
        Self { id, spec: spec.clone(), exprs }
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> DfResult<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.spec.transfer.clone(), columns, &options)?)
    }

    fn evaluate(&self, rows: &RecordBatch) -> DfResult<RecordBatch> {
        let count = rows.num_rows();
        let columns = self.exprs.iter().map(|e| e.evaluate(rows)?.into_array(count)).collect::<DfResult<_>>()?;
        self.batch(columns, count)
    }
}

impl Operator for Prepare {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.num_rows() > 0 {
            let rows = self.evaluate(&batch.rows).map_err(failed(self.id, "aggregate's input"))?;
            out.push(DeltaBatch { rows, weights: batch.weights });
        }
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let (keys, count) = (self.spec.always.columns(), self.spec.always.num_rows());
        if count > 0 {
            let inputs = &self.spec.transfer.fields()[keys.len()..];
            let nulls = inputs.iter().map(|f| new_null_array(f.data_type(), count));
            let columns = keys.iter().cloned().chain(nulls).collect();
            let rows = self.batch(columns, count).map_err(failed(self.id, "aggregate's input"))?;
            out.push(DeltaBatch { rows, weights: Some(Int64Array::from(vec![0; count])) });
        }
        Ok(Step::Done)
    }
}

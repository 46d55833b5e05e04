//! GROUPING SETS, ROLLUP and CUBE: every row once per grouping set. Linear: weights pass through.
//!
//! The grouping id tells apart a key that is null in a row and one that is not in the set, as DataFusion's `__grouping_id` does.
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use millstream_plan::OperatorId;

use super::{EpochContext, Operator, Step, failed};
use crate::graph::Expand;
use crate::{DataflowError, DeltaBatch};

pub(super) struct ExpandOperator {
    id: OperatorId,
    expand: Expand,
    schema: SchemaRef,
}

impl ExpandOperator {
    pub(super) fn new(id: OperatorId, expand: &Expand, schema: SchemaRef) -> Self {
        Self { id, expand: expand.clone(), schema }
    }

    fn apply(&self, batch: &DeltaBatch, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let count = batch.num_rows();
        let keys = self.expand.keys.iter().map(|k| k.expr.evaluate(&batch.rows)?.into_array(count));
        let keys = keys.collect::<DfResult<Vec<ArrayRef>>>()?;
        let id_type = self.schema.field(self.schema.fields().len() - 1).data_type();
        for set in &self.expand.sets {
            let mut columns = batch.rows.columns().to_vec();
            for (key, is_null) in keys.iter().zip(&set.nulls) {
                columns.push(if *is_null { new_null_array(key.data_type(), count) } else { key.clone() });
            }
            let id: ArrayRef = Arc::new(UInt64Array::from_value(set.id, count));
            columns.push(cast(&id, id_type)?);
            let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
            out.push(DeltaBatch { rows, weights: batch.weights.clone() });
        }
        Ok(())
    }
}

impl Operator for ExpandOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.num_rows() > 0 {
            self.apply(&batch, out).map_err(failed(self.id, "grouping sets"))?;
        }
        Ok(Step::Done)
    }
}

//! Filter, then project. Both are linear (DBSP): a change passes through with its weight.
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr::PhysicalExpr;
use millstream_plan::OperatorId;

use super::{EpochContext, Operator, Step, failed};
use crate::graph::{Calc, NamedExpr};
use crate::{DataflowError, DeltaBatch};

/// A filter and a projection, ready to run.
pub struct CalcOperator {
    id: OperatorId,
    filter: Option<Arc<dyn PhysicalExpr>>,
    project: Option<Vec<NamedExpr>>,
    schema: SchemaRef,
}

impl CalcOperator {
    pub(super) fn new(id: OperatorId, calc: &Calc, schema: SchemaRef) -> Self {
        Self { id, filter: calc.filter.clone(), project: calc.project.clone(), schema }
    }

    fn apply(&self, batch: DeltaBatch) -> DfResult<Option<DeltaBatch>> {
        let DeltaBatch { mut rows, mut weights } = batch;
        if let Some(filter) = &self.filter {
            let keep = filter.evaluate(&rows)?.into_array(rows.num_rows())?;
            let keep = keep.as_boolean();
            let kept = keep.true_count();
            if kept == 0 {
                return Ok(None);
            }
            if kept < rows.num_rows() {
                rows = filter_record_batch(&rows, keep)?;
                weights = match weights {
                    Some(w) => Some(arrow::compute::filter(&w, keep)?.as_primitive().clone()),
                    None => None::<Int64Array>,
                };
            }
        }
        if let Some(project) = &self.project {
            rows = project_rows(&rows, project, &self.schema)?;
        }
        Ok(Some(DeltaBatch { rows, weights }))
    }
}

/// Evaluates `columns` over `rows`; `schema` names and types the result.
pub fn project_rows(rows: &RecordBatch, columns: &[NamedExpr], schema: &SchemaRef) -> DfResult<RecordBatch> {
    let count = rows.num_rows();
    let arrays = columns
        .iter()
        .map(|c| c.expr.evaluate(rows).and_then(|v| v.into_array(count)))
        .collect::<DfResult<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}

impl Operator for CalcOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.num_rows() > 0 {
            out.extend(self.apply(batch).map_err(failed(self.id, "filter and project"))?);
        }
        Ok(Step::Done)
    }
}

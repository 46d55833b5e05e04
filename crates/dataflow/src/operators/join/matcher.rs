//! Pairs of rows into output: the residual condition over many candidates at once, and the columns of what passes.
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;

use super::side::Side;
use crate::DeltaBatch;
use crate::graph::Join;

/// What all pairs of a join have in common.
pub(super) struct Matcher {
    residual: Option<Residual>,
    output: SchemaRef,
    /// Number of left columns.
    left: usize,
    is_filter: bool,
}

/// The residual over the columns that it uses, and only those.
struct Residual {
    expr: Arc<dyn PhysicalExpr>,
    left: Vec<usize>,
    right: Vec<usize>,
    schema: SchemaRef,
}

impl Matcher {
    pub fn new(spec: &Join, output: SchemaRef) -> Result<Self> {
        let left = spec.inputs[0].schema.fields().len();
        let residual = match &spec.residual {
            Some(expr) => Some(compact(spec, expr, left)?),
            None => None,
        };
        Ok(Self { residual, output, left, is_filter: spec.kind.is_filter() })
    }

    pub fn has_residual(&self) -> bool {
        self.residual.is_some()
    }

    /// Which pairs the residual lets through; `None`: all.
    pub fn passes(&self, sides: &[Side; 2], left: &[u64], right: &[u64]) -> Result<Option<BooleanArray>> {
        let Some(residual) = self.residual.as_ref().filter(|_| !left.is_empty()) else { return Ok(None) };
        let mut columns = sides[0].gather(left, &residual.left)?;
        columns.extend(sides[1].gather(right, &residual.right)?);
        residual.passes(columns, left.len()).map(Some)
    }

    /// The same for left rows that are in no state.
    pub fn passes_of(
        &self,
        rows: &RecordBatch,
        left: &UInt32Array,
        side: &Side,
        right: &[u64],
    ) -> Result<Option<BooleanArray>> {
        let Some(residual) = self.residual.as_ref().filter(|_| !right.is_empty()) else { return Ok(None) };
        let mut columns = taken(rows, left, &residual.left)?;
        columns.extend(side.gather(right, &residual.right)?);
        residual.passes(columns, right.len()).map(Some)
    }

    /// The pairs of left rows that are in no state with right rows.
    pub fn pairs_of(
        &self,
        rows: &RecordBatch,
        left: &UInt32Array,
        side: &Side,
        right: &[u64],
        weights: Option<Vec<i64>>,
    ) -> Result<DeltaBatch> {
        let mut columns = taken(rows, left, &(0..self.left).collect::<Vec<_>>())?;
        columns.extend(side.gather(right, &(0..side.schema.fields().len()).collect::<Vec<_>>())?);
        self.batch(columns, right.len(), weights)
    }

    /// The rows of these pairs.
    pub fn pairs(
        &self,
        sides: &[Side; 2],
        left: &[u64],
        right: &[u64],
        weights: Option<Vec<i64>>,
    ) -> Result<DeltaBatch> {
        let mut columns = sides[0].gather(left, &(0..self.left).collect::<Vec<_>>())?;
        let width = sides[1].schema.fields().len();
        columns.extend(sides[1].gather(right, &(0..width).collect::<Vec<_>>())?);
        self.batch(columns, left.len(), weights)
    }

    /// Rows of one side without a match; of a semi or anti join, the rows themselves.
    pub fn alone(&self, sides: &[Side; 2], side: usize, ids: &[u64], weights: Option<Vec<i64>>) -> Result<DeltaBatch> {
        let width = sides[side].schema.fields().len();
        let columns = sides[side].gather(ids, &(0..width).collect::<Vec<_>>())?;
        self.padded(side, columns, ids.len(), weights)
    }

    /// The same for rows that are in no state.
    pub fn padded(
        &self,
        side: usize,
        own: Vec<ArrayRef>,
        rows: usize,
        weights: Option<Vec<i64>>,
    ) -> Result<DeltaBatch> {
        if self.is_filter {
            return self.batch(own, rows, weights);
        }
        let nulls = |from: usize, to: usize| -> Vec<ArrayRef> {
            self.output.fields()[from..to].iter().map(|f| new_null_array(f.data_type(), rows)).collect()
        };
        let columns = match side {
            0 => [own, nulls(self.left, self.output.fields().len())].concat(),
            _ => [nulls(0, self.left), own].concat(),
        };
        self.batch(columns, rows, weights)
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize, weights: Option<Vec<i64>>) -> Result<DeltaBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?;
        Ok(DeltaBatch { rows, weights: weights.map(Int64Array::from) })
    }
}

impl Residual {
    fn passes(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<BooleanArray> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let pairs = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(self.expr.evaluate(&pairs)?.into_array(rows)?.as_boolean().clone())
    }
}

/// `columns` of these rows.
fn taken(rows: &RecordBatch, at: &UInt32Array, columns: &[usize]) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|c| Ok(take(rows.column(*c), at, None)?)).collect()
}

/// `expr` over the columns that it uses, left ones first.
fn compact(spec: &Join, expr: &Arc<dyn PhysicalExpr>, width: usize) -> Result<Residual> {
    let mut used = std::collections::BTreeSet::new();
    expr.apply(|e| {
        used.extend(e.downcast_ref::<Column>().map(Column::index));
        Ok(TreeNodeRecursion::Continue)
    })?;
    let used: Vec<usize> = used.into_iter().collect();
    let field = |c: &usize| match c.checked_sub(width) {
        None => spec.inputs[0].schema.field(*c).clone(),
        Some(right) => spec.inputs[1].schema.field(right).clone(),
    };
    let schema = Arc::new(Schema::new(used.iter().map(field).collect::<Vec<_>>()));
    let moved = expr.clone().transform(|e| {
        let place = e.downcast_ref::<Column>().and_then(|c| Some((c.name(), used.binary_search(&c.index()).ok()?)));
        match place {
            Some((name, at)) => {
                let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, at));
                Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
            }
            None => Ok(Transformed::no(e)),
        }
    })?;
    let (left, right): (Vec<usize>, Vec<usize>) = used.iter().partition(|c| **c < width);
    let right = right.into_iter().map(|c| c - width).collect();
    Ok(Residual { expr: moved.data, left, right, schema })
}

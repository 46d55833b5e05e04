//! First half over append-only input: rows become partial states per group, values of DISTINCT calls leave once per group.
//!
//! It keeps nothing between epochs: everything leaves at the epoch's end, or earlier when more than [`FLUSH_ROWS`] groups or values have
//! gathered (counted, so the boundary is the same in every run).
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt8Array, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::take;
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::physical_expr::PhysicalExpr;
use millstream_plan::OperatorId;

use super::super::{BATCH_ROWS, EpochContext, Operator, Step, failed};
use super::distinct::DistinctSet;
use super::table::EpochTable;
use super::{SetLayout, empty_set, sets_of};
use crate::graph::GroupAggregate;
use crate::{DataflowError, DeltaBatch};

/// Groups and values that may gather before they are handed on inside an epoch.
const FLUSH_ROWS: usize = 1 << 18;

pub(super) struct PartialGroups {
    id: OperatorId,
    spec: Arc<GroupAggregate>,
    table: EpochTable,
    sets: Vec<(SetLayout, DistinctSet)>,
}

impl PartialGroups {
    pub fn new(id: OperatorId, spec: &Arc<GroupAggregate>) -> DfResult<Self> {
        let mut sets = Vec::new();
        for layout in sets_of(spec) {
            let set = empty_set(spec, &layout)?;
            sets.push((layout, set));
        }
        Ok(Self { id, table: EpochTable::new(spec)?, spec: spec.clone(), sets })
    }

    fn add(&mut self, rows: &RecordBatch) -> DfResult<()> {
        let count = rows.num_rows();
        // Calls often share arguments and filters.
        let mut known: Vec<(Arc<dyn PhysicalExpr>, ArrayRef)> = Vec::new();
        let mut array = |e: &Arc<dyn PhysicalExpr>| -> DfResult<ArrayRef> {
            if let Some((_, array)) = known.iter().find(|(k, _)| k.as_ref() == e.as_ref()) {
                return Ok(array.clone());
            }
            let array = e.evaluate(rows)?.into_array(count)?;
            known.push((e.clone(), array.clone()));
            Ok(array)
        };
        let mut filters: Vec<Option<BooleanArray>> = Vec::with_capacity(self.spec.calls.len());
        for call in &self.spec.calls {
            filters.push(
                call.filter.as_ref().map(|f| Ok::<_, DataFusionError>(array(f)?.as_boolean().clone())).transpose()?,
            );
        }
        let keys = self.spec.keys.iter().map(|k| array(&k.expr)).collect::<DfResult<Vec<_>>>()?;
        let mut arrays = |exprs: &[Arc<dyn PhysicalExpr>]| exprs.iter().map(&mut array).collect::<DfResult<Vec<_>>>();
        self.table.intern(&keys, count)?;
        let groups = self.table.len();
        let EpochTable { accumulators, indices, .. } = &mut self.table;
        for (at, call) in self.spec.calls.iter().enumerate().filter(|(_, c)| !c.distinct) {
            let arguments = arrays(&call.function.expressions())?;
            accumulators.update(at, &arguments, indices, filters[at].as_ref(), groups)?;
        }
        for (layout, set) in &mut self.sets {
            let arguments = arrays(&layout.arguments)?;
            let mut masks = vec![0_u64; count];
            for (bit, call) in layout.calls.iter().enumerate() {
                match &filters[*call] {
                    None => masks.iter_mut().for_each(|m| *m |= 1 << bit),
                    Some(filter) => {
                        let there = filter.nulls().map(|n| filter.values() & n.inner());
                        let passes = there.as_ref().unwrap_or(filter.values());
                        passes.set_indices().for_each(|row| masks[row] |= 1 << bit);
                    }
                }
            }
            // No aggregate with DISTINCT looks at nulls.
            for nulls in arguments.iter().filter_map(|a| a.logical_nulls()) {
                let absent = nulls.iter().zip(&mut masks).filter(|(there, _)| !there);
                absent.for_each(|(_, m)| *m = 0);
            }
            set.add(&arguments, indices.iter().map(|g| *g as u32), masks.into_iter())?;
        }
        Ok(())
    }

    /// Everything gathered: the states of all groups, then the values of each set.
    fn flush(&mut self, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let groups = self.table.len();
        if groups == 0 {
            return Ok(());
        }
        let calls = self.spec.clone();
        let (keys, states) = self.table.take(|at| !calls.calls[at].distinct)?;
        let first = keys.len() + states.len();
        let columns: Vec<ArrayRef> = keys.iter().cloned().chain(states).collect();
        self.push(columns, first, groups, out)?;
        for (i, (layout, set)) in self.sets.iter_mut().enumerate() {
            let (owners, masks, arguments) = set.take()?;
            let rows = owners.len();
            let owners = UInt32Array::from(owners);
            let mut columns = keys.iter().map(|k| take(k, &owners, None)).collect::<Result<Vec<_>, _>>()?;
            columns.extend(
                self.spec.transfer.fields()[keys.len()..first].iter().map(|f| new_null_array(f.data_type(), rows)),
            );
            columns.push(Arc::new(UInt8Array::from_value(i as u8, rows)));
            let (from, width) = (layout.column, layout.arguments.len());
            let fields = self.spec.transfer.fields();
            columns.extend(fields[columns.len()..from].iter().map(|f| new_null_array(f.data_type(), rows)));
            columns.extend(arguments);
            columns.extend(fields[from + width..fields.len() - 1].iter().map(|f| new_null_array(f.data_type(), rows)));
            columns.push(Arc::new(UInt64Array::from(masks)));
            emit(&self.spec, columns, rows, out)?;
        }
        Ok(())
    }

    /// Emits these columns with nulls for the rest.
    fn push(&self, mut columns: Vec<ArrayRef>, from: usize, rows: usize, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        columns.extend(self.spec.transfer.fields()[from..].iter().map(|f| new_null_array(f.data_type(), rows)));
        emit(&self.spec, columns, rows, out)
    }

    fn gathered(&self) -> usize {
        self.table.len() + self.sets.iter().map(|(_, s)| s.len()).sum::<usize>()
    }
}

fn emit(spec: &GroupAggregate, columns: Vec<ArrayRef>, rows: usize, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
    let batch = RecordBatch::try_new(spec.transfer.clone(), columns)?;
    let slices = (0..rows).step_by(BATCH_ROWS).map(|from| batch.slice(from, BATCH_ROWS.min(rows - from)));
    out.extend(slices.map(DeltaBatch::appended));
    Ok(())
}

impl Operator for PartialGroups {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        out: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.weights.is_some() {
            return Err(DataflowError::Corrupt(format!("operator {}: weights on an append-only edge", self.id)));
        }
        let error = failed(self.id, "partial aggregate");
        if batch.num_rows() > 0 {
            self.add(&batch.rows).map_err(&error)?;
        }
        if self.gathered() > FLUSH_ROWS {
            self.flush(out).map_err(error)?;
        }
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let error = failed(self.id, "partial aggregate");
        let always = &self.spec.always;
        self.table.intern(always.columns(), always.num_rows()).map_err(&error)?;
        self.flush(out).map_err(error)?;
        Ok(Step::Done)
    }
}

//! First half of a windowed aggregation, before the shuffle: rows become partial states per (pane, key).
//!
//! It keeps nothing between epochs, so it has no persistent state: everything leaves at the epoch's end, or earlier when more
//! than [`FLUSH_GROUPS`] groups have gathered (counted, so the boundary is the same in every run).
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::{concat, filter_record_batch, is_not_null};
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::physical_expr::PhysicalExpr;
use millstream_plan::OperatorId;

use super::groups::{Aggregation, Arguments, GroupTable};
use super::{EpochContext, Operator, Step, failed};
use crate::graph::{WindowAggregate, WindowOf};
use crate::times::to_millis;
use crate::windows::{Panes, Span};
use crate::{DataflowError, DeltaBatch};

/// Groups that may gather before they are handed on inside an epoch.
const FLUSH_GROUPS: usize = 1 << 18;

/// More pane changes than this in one batch and the rows are sorted by pane first.
const MAX_RUNS: usize = 16;

pub(super) struct PartialAggregate {
    id: OperatorId,
    aggregation: Aggregation,
    panes: PaneOf,
    tables: BTreeMap<Span, GroupTable>,
    /// Empty tables for new panes.
    spare: Vec<GroupTable>,
}

enum PaneOf {
    Time { time: Arc<dyn PhysicalExpr>, panes: Panes },
    Attached { start: Arc<dyn PhysicalExpr>, end: Arc<dyn PhysicalExpr> },
}

impl PartialAggregate {
    pub(super) fn new(id: OperatorId, spec: &Arc<WindowAggregate>) -> Result<Self, DataflowError> {
        let panes = match &spec.window {
            WindowOf::Time { kind, time } => PaneOf::Time {
                time: time.clone(),
                panes: Panes::of(*kind)
                    .ok_or_else(|| DataflowError::Corrupt(format!("operator {id}: {kind:?} makes no windows")))?,
            },
            WindowOf::Attached { start, end } => PaneOf::Attached { start: start.clone(), end: end.clone() },
        };
        let aggregation = Aggregation::new(spec).map_err(failed(id, "partial aggregate"))?;
        Ok(Self { id, aggregation, panes, tables: BTreeMap::new(), spare: Vec::new() })
    }

    fn add(&mut self, rows: &RecordBatch) -> DfResult<()> {
        let evaluate =
            |e: &Arc<dyn PhysicalExpr>| e.evaluate(rows)?.into_array(rows.num_rows()).and_then(|a| Ok(to_millis(&a)?));
        // Starts and ends of the rows' panes; ends only where they do not follow from the start.
        let (starts, ends) = match &self.panes {
            PaneOf::Time { time, panes } => {
                let times = evaluate(time)?;
                if times.null_count() > 0 {
                    let kept = filter_record_batch(rows, &is_not_null(&times)?)?;
                    return if kept.num_rows() > 0 { self.add(&kept) } else { Ok(()) };
                }
                (times.values().iter().map(|t| panes.start_of(*t)).collect::<Vec<i64>>(), None)
            }
            PaneOf::Attached { start, end } => {
                (evaluate(start)?.values().to_vec(), Some(evaluate(end)?.values().to_vec()))
            }
        };
        let pane_at = |panes: &PaneOf, row: usize| match (panes, &ends) {
            (PaneOf::Time { panes, .. }, _) => panes.pane_of(starts[row]),
            (PaneOf::Attached { .. }, ends) => {
                Span { start: starts[row], end: ends.as_ref().map_or(starts[row], |e| e[row]) }
            }
        };
        let same = |a: usize, b: usize| starts[a] == starts[b] && ends.as_ref().is_none_or(|e| e[a] == e[b]);
        let input = self.aggregation.arguments(rows)?;
        let bounds: Vec<usize> = (1..rows.num_rows()).filter(|i| !same(*i, i - 1)).take(MAX_RUNS + 1).collect();
        if bounds.len() <= MAX_RUNS {
            let mut from = 0;
            for to in bounds.into_iter().chain([rows.num_rows()]) {
                let pane = pane_at(&self.panes, from);
                self.update(pane, &input.slice(from, to - from))?;
                from = to;
            }
            return Ok(());
        }
        let mut by_pane: BTreeMap<Span, Vec<u32>> = BTreeMap::new();
        for row in 0..rows.num_rows() {
            by_pane.entry(pane_at(&self.panes, row)).or_default().push(row as u32);
        }
        for (pane, indices) in by_pane {
            let part = input.take(&UInt32Array::from(indices))?;
            self.update(pane, &part)?;
        }
        Ok(())
    }

    fn update(&mut self, pane: Span, input: &Arguments) -> DfResult<()> {
        let table = match self.tables.entry(pane) {
            std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::btree_map::Entry::Vacant(e) => e.insert(match self.spare.pop() {
                Some(table) => table,
                None => GroupTable::new(&self.aggregation)?,
            }),
        };
        table.update(input)
    }

    /// Everything gathered as one batch, panes ascending.
    fn flush(&mut self) -> DfResult<Option<RecordBatch>> {
        let mut columns: Vec<Vec<ArrayRef>> = Vec::new();
        let keys = self.aggregation.key_count();
        for (pane, mut table) in std::mem::take(&mut self.tables) {
            let rows = table.len();
            let mut states = table.take_states()?;
            for (at, bound) in [pane.start, pane.end].into_iter().enumerate() {
                states.insert(keys + at, Arc::new(Int64Array::from_value(bound, rows)));
            }
            columns.push(states);
            self.spare.push(table);
        }
        self.spare.truncate(8);
        let Some(first) = columns.first() else { return Ok(None) };
        let merged = (0..first.len())
            .map(|c| {
                let parts: Vec<&dyn Array> = columns.iter().map(|p| p[c].as_ref()).collect();
                if parts.len() == 1 { Ok(columns[0][c].clone()) } else { Ok(concat(&parts)?) }
            })
            .collect::<DfResult<Vec<_>>>()?;
        Ok(Some(conform(merged, &self.aggregation)?))
    }
}

/// Batch of the partial schema; accumulators may give states of a slightly other nullability or representation.
fn conform(columns: Vec<ArrayRef>, aggregation: &Aggregation) -> DfResult<RecordBatch> {
    let fields = aggregation.partial.fields();
    let columns = columns
        .into_iter()
        .zip(fields)
        .map(|(c, f)| if c.data_type() == f.data_type() { Ok(c) } else { arrow::compute::cast(&c, f.data_type()) })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(aggregation.partial.clone(), columns)?)
}

impl Operator for PartialAggregate {
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
        if self.tables.values().map(GroupTable::len).sum::<usize>() > FLUSH_GROUPS {
            out.extend(self.flush().map_err(error)?.map(DeltaBatch::appended));
        }
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        out.extend(self.flush().map_err(failed(self.id, "partial aggregate"))?.map(DeltaBatch::appended));
        Ok(Step::Done)
    }
}

/// The pane columns of a partial batch.
pub(super) fn pane_columns(batch: &RecordBatch, keys: usize) -> Result<(&[i64], &[i64]), DataFusionError> {
    let bounds =
        |at: usize| batch.column(at).as_primitive_opt::<arrow::datatypes::Int64Type>().map(|a| &a.values()[..]);
    match (bounds(keys), bounds(keys + 1)) {
        (Some(start), Some(end)) => Ok((start, end)),
        _ => Err(DataFusionError::Internal("partial states without pane columns".to_owned())),
    }
}

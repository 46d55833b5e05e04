//! One source table inside a source task: ranges become batches of the table's columns, late rows become dead letters.
//!
//! Lateness is decided here and nowhere else: a row whose event time is below the plan's watermark of the table. Rows of a table whose rows change
//! are never late: what was dropped when it came would be missing when it goes.
//!
//! Of a table whose rows are read as versions, those that go are left out.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::Result as DfResult;
use millstream_connectors::{DeadLetter, DeadLetterReason, SourceBatch, SourcePoll, SourceReader};
use millstream_dataflow::graph::{EdgeType, SourceNode};
use millstream_dataflow::times::to_millis;
use millstream_dataflow::{DataflowError, DeltaBatch};
use millstream_plan::{EpochPlan, OperatorId, SourceId, SplitId, Watermark};
use millstream_protocol::messages::SplitReport;

use crate::ExecutorError;

/// A source node with its reader.
pub(crate) struct SourceInput {
    pub node: OperatorId,
    spec: SourceNode,
    output: SchemaRef,
    append_only: bool,
    reader: Box<dyn SourceReader>,
    task: u16,
    /// Range of the plan that is being read.
    at: usize,
    reports: BTreeMap<SplitId, SplitReport>,
}

/// What a step of a source gave.
pub(crate) enum Read {
    Batch {
        rows: DeltaBatch,
        dead: Vec<DeadLetter>,
    },
    Pending,
    /// All ranges of the epoch are done.
    Done,
}

impl SourceInput {
    pub fn new(
        node: OperatorId,
        spec: &SourceNode,
        output: &EdgeType,
        reader: Box<dyn SourceReader>,
        task: u16,
    ) -> Self {
        let EdgeType { schema, append_only, .. } = output.clone();
        Self { node, spec: spec.clone(), output: schema, append_only, reader, task, at: 0, reports: BTreeMap::new() }
    }

    pub fn source(&self) -> SourceId {
        self.spec.source
    }

    /// The next batch of the epoch.
    pub fn read(&mut self, plan: &EpochPlan) -> Result<Read, ExecutorError> {
        let source = plan.sources.iter().find(|s| s.source == self.spec.source);
        let ranges = source.map_or(&[][..], |s| &s.ranges[..]);
        loop {
            let Some(range) = ranges.get(self.at) else { return Ok(Read::Done) };
            if range.task != self.task {
                self.at += 1;
                continue;
            }
            match self.reader.poll(range)? {
                SourcePoll::Done => self.at += 1,
                SourcePoll::Pending => return Ok(Read::Pending),
                SourcePoll::Batch(batch) => {
                    let watermark = plan.watermark(self.spec.source);
                    return self.take(&range.split, batch, watermark);
                }
            }
        }
    }

    /// Ends the epoch: what was read of each split.
    pub fn end_epoch(&mut self) -> Vec<SplitReport> {
        self.at = 0;
        std::mem::take(&mut self.reports).into_values().collect()
    }

    fn take(&mut self, split: &SplitId, batch: SourceBatch, plan_watermark: Watermark) -> Result<Read, ExecutorError> {
        let SourceBatch { rows: mut decoded, mut weights, bad, bad_count, records, bytes, origin } = batch;
        // By row, if some are left out: its number in the batch.
        let mut kept: Option<Vec<usize>> = None;
        if let Some(weights) = weights.take_if(|_| self.spec.only_new) {
            let keep: BooleanArray = weights.iter().map(|w| Some(w > Some(0))).collect();
            decoded = filter_record_batch(&decoded, &keep).map_err(DataflowError::from)?;
            kept = Some((0..keep.len()).filter(|i| keep.value(*i)).collect());
        }
        let error = |e: datafusion::error::DataFusionError| DataflowError::Expression {
            operator: format!("table {}", self.spec.table),
            message: e.strip_backtrace(),
        };
        let mut dead = bad;
        let mut rows = self.columns(&decoded).map_err(error)?;
        let (mut newest, mut late) = (None, 0);
        if let Some(watermark) = &self.spec.watermark {
            let given =
                watermark.expr.evaluate(&decoded).and_then(|v| v.into_array(decoded.num_rows())).map_err(error)?;
            newest = arrow::compute::max(&to_millis(&given).map_err(DataflowError::from)?).map(Watermark);
            if self.append_only && plan_watermark > Watermark::MIN && plan_watermark < Watermark::MAX {
                let times = to_millis(rows.column(watermark.column)).map_err(DataflowError::from)?;
                let on_time = |i: usize| times.is_null(i) || times.value(i) >= plan_watermark.0;
                let late_rows: Vec<usize> = (0..times.len()).filter(|i| !on_time(*i)).collect();
                if !late_rows.is_empty() {
                    late = late_rows.len() as u64;
                    for row in late_rows {
                        let detail =
                            format!("event time {} ms is below the watermark {plan_watermark} ms", times.value(row));
                        let row = kept.as_ref().map_or(row, |kept| kept[row]);
                        dead.push(origin.dead_letter(row, DeadLetterReason::Late, detail));
                    }
                    let keep: BooleanArray = (0..times.len()).map(|i| Some(on_time(i))).collect();
                    rows = filter_record_batch(&rows, &keep).map_err(DataflowError::from)?;
                }
            }
        }
        let report = self.reports.entry(split.clone()).or_insert_with(|| SplitReport {
            source: self.spec.source,
            split: split.clone(),
            records: 0,
            bytes: 0,
            watermark: None,
            late: 0,
            bad: 0,
        });
        report.records += records;
        report.bytes += bytes;
        report.watermark = report.watermark.max(newest);
        report.late += late;
        report.bad += bad_count;
        Ok(Read::Batch { rows: DeltaBatch { rows, weights }, dead })
    }

    /// The table's columns, plain and computed.
    fn columns(&self, decoded: &RecordBatch) -> DfResult<RecordBatch> {
        let count = decoded.num_rows();
        let columns = self.spec.columns.iter().map(|c| c.expr.evaluate(decoded)?.into_array(count));
        let columns = columns.collect::<DfResult<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?)
    }
}

//! Ranks: of each partition the rows whose `ROW_NUMBER`, `RANK` or `DENSE_RANK` is in a range. Top-N, deduplication (the first row) and
//! `ORDER BY … LIMIT` (one partition) are all this.
//!
//! **Rule.** A partition is an ordered multiset. An epoch's changes are gathered per partition and consolidated; at its end the partition's old and
//! new rows are walked side by side up to the last rank that is kept, and what differs is emitted, retractions first. With the rank in the output a row
//! that moves is taken away with its old rank and added with the new one.
//!
//! **Variants.** Append-only input: rows beyond the last rank can never come back and are dropped, most of them before they are stored. Updating
//! input: every row is kept. Partitions of a window that closes: nothing is emitted before; then each partition once, after which it is forgotten,
//! so the output is append-only.
mod local;
mod walk;

pub(super) use local::LocalRankOperator;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use millstream_plan::OperatorId;

use super::ordered::{EncodedRows, Kept, Multiset, Partitions, Row};
use super::{BATCH_ROWS, EpochContext, Footprint, Operator, StateChange, StateReport, Step};
use crate::cold::ColdState;
use crate::graph::{Close, Rank, RankFunction};
use crate::times::to_millis;
use crate::{DataflowError, DeltaBatch};

pub(super) struct RankOperator {
    id: OperatorId,
    spec: Arc<Rank>,
    schema: SchemaRef,
    partitions: Partitions,
    timers: Timers,
    /// Touched partitions of this epoch that are done.
    done: usize,
    out: Out,
}

/// Partitions with at most so many rows have one state entry.
const FEW: u64 = 256;

/// (end of the window, partition), where windows close.
type Timers = BTreeSet<Timer>;
type Timer = (i64, Arc<[u8]>);

/// Rows that leave.
#[derive(Default)]
struct Out {
    rows: EncodedRows,
    ranks: Vec<u64>,
    weights: Vec<i64>,
}

impl Out {
    fn push(&mut self, partition: &[u8], row: &Row, rank: u64, weight: i64) {
        self.rows.push(partition, row);
        self.ranks.push(rank);
        self.weights.push(weight);
    }
}

impl RankOperator {
    pub(super) fn new(id: OperatorId, spec: &Arc<Rank>, schema: SchemaRef) -> Result<Self, DataflowError> {
        let kept = if spec.rows.append_only && spec.to <= FEW { Kept::Few } else { Kept::All };
        if spec.rows.close.is_some() && !spec.rows.append_only {
            return Err(DataflowError::Corrupt(format!("operator {id}: windows of rows that may be taken away")));
        }
        Ok(Self {
            id,
            spec: spec.clone(),
            schema,
            partitions: Partitions::new(id, &spec.rows, kept)?,
            timers: Timers::new(),
            done: 0,
            out: Out::default(),
        })
    }

    /// Drops rows of a partition that cannot matter any more.
    fn trim(&mut self, slot: u32) {
        if self.spec.is_bounded() {
            let (keep, weight, full) = walk::kept(&self.spec, self.partitions.get(slot).rows.iter());
            self.partitions.truncate(slot, keep, weight);
            let partition = self.partitions.get_mut(slot);
            partition.bound = partition.rows.last().filter(|_| full).cloned();
        }
    }

    /// Emits the changes of a partition.
    fn change(&mut self, slot: u32) -> Result<(), DataflowError> {
        let changes = self.partitions.take_pending(slot);
        if changes.is_empty() {
            return Ok(());
        }
        let partition = self.partitions.get(slot);
        if self.spec.rows.close.is_none() {
            let mut added = Vec::new();
            walk::changed(&self.spec, &partition.rows, &changes, |row, rank, weight| match weight < 0 {
                true => self.out.push(&partition.key, row, rank, weight),
                false => added.push((row, rank, weight)),
            });
            added.into_iter().for_each(|(row, rank, weight)| self.out.push(&partition.key, row, rank, weight));
        }
        self.partitions.apply(slot, changes)?;
        self.trim(slot);
        Ok(())
    }

    /// Emits a partition whose window has closed, and forgets it.
    fn close(&mut self, key: &Arc<[u8]>) {
        let Some(slot) = self.partitions.find(key) else { return };
        let rows = self.partitions.take_rows(slot);
        walk::changed(&self.spec, &Multiset::default(), &rows, |row, rank, weight| {
            // An append-only edge has no weights.
            (0..weight).for_each(|_| self.out.push(key, row, rank, 1));
        });
        self.partitions.drop_if_empty(slot);
    }

    /// Sets the timers of the partitions that have come in this epoch.
    fn set_timers(&mut self, close: &Close) -> Result<(), DataflowError> {
        let keys: Vec<Arc<[u8]>> =
            self.partitions.touched().iter().map(|slot| self.partitions.get(*slot).key.clone()).collect();
        let timers = timers_of(&self.partitions, close, &keys)?;
        self.timers.extend(timers);
        Ok(())
    }

    /// Rows that have gathered, if they are `enough`.
    fn flush(&mut self, enough: usize) -> Result<Option<DeltaBatch>, DataflowError> {
        if self.out.rows.len() < enough.max(1) {
            return Ok(None);
        }
        let Out { rows, ranks, weights } = std::mem::take(&mut self.out);
        let mut columns = rows.decode(&self.partitions.layout)?;
        if self.spec.numbered {
            let ranks: ArrayRef = Arc::new(UInt64Array::from(ranks));
            let rank_type = self.schema.fields().last().map_or(ranks.data_type(), |f| f.data_type());
            columns.push(arrow::compute::cast(&ranks, rank_type)?);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let weights = weights.iter().any(|w| *w != 1).then(|| Int64Array::from(weights));
        Ok(Some(DeltaBatch { rows, weights }))
    }

    fn emit_some(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        while let Some(slot) = self.partitions.touched().get(self.done).copied() {
            self.done += 1;
            self.change(slot)?;
            if let Some(batch) = self.flush(BATCH_ROWS)? {
                out.push(batch);
                return Ok(Step::More);
            }
        }
        let spec = self.spec.clone();
        if let Some(close) = &spec.rows.close {
            let watermark = cx.watermark(&close.domain);
            while let Some((end, key)) = self.timers.first().filter(|(end, _)| *end <= watermark).cloned() {
                self.timers.remove(&(end, key.clone()));
                self.close(&key);
                if let Some(batch) = self.flush(BATCH_ROWS)? {
                    out.push(batch);
                    return Ok(Step::More);
                }
            }
        }
        out.extend(self.flush(0)?);
        self.partitions.end_epoch();
        Ok(Step::Done)
    }
}

/// Whether a row can matter to a partition of which the rows after `bound` do not.
fn wanted(spec: &Rank, bound: &Row, order: &[u8], rest: Option<&[u8]>) -> bool {
    match (spec.function, rest) {
        (RankFunction::RowNumber, Some(rest)) => (order, rest) < (bound.order(), bound.rest()),
        _ => order <= bound.order(),
    }
}

/// Leaves out appended rows that cannot matter, since those of an epoch alone may be far more than are kept. Returns the last row that
/// can, if there are as many as are kept.
fn shorten(spec: &Rank, pending: &mut Vec<(Row, i64)>) -> Option<Row> {
    if !spec.is_bounded() {
        return None;
    }
    let (keep, weight, full) = walk::kept(spec, pending.iter().map(|(r, w)| (r, *w)));
    pending.truncate(keep);
    pending.last_mut().into_iter().for_each(|(_, w)| *w = weight);
    pending.last().filter(|_| full).map(|(r, _)| r.clone())
}

fn timers_of(partitions: &Partitions, close: &Close, keys: &[Arc<[u8]>]) -> Result<Vec<Timer>, DataflowError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let ends = to_millis(&partitions.layout.partition_column(keys.iter().map(|k| &**k), close.end)?)?;
    Ok(ends.iter().zip(keys).filter_map(|(end, key)| Some((end?, key.clone()))).collect())
}

impl Operator for RankOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        let spec = &self.spec;
        if spec.rows.append_only && batch.weights.is_some() {
            return Err(DataflowError::Corrupt(format!("operator {}: weights on an append-only edge", self.id)));
        }
        self.partitions.gather(&batch, |b, o, r| wanted(spec, b, o, r), |pending| shorten(spec, pending))?;
        Ok(Step::Done)
    }

    fn resume(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit_some(cx, out)
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.done = 0;
        let spec = self.spec.clone();
        if let Some(close) = &spec.rows.close {
            self.set_timers(close)?;
        }
        self.emit_some(cx, out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        Ok(self.partitions.seal())
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let slot = self.partitions.restore(key, value)?;
        if self.partitions.kept() == Kept::Few {
            self.trim(slot);
        }
        if let Some(close) = &self.spec.rows.close
            && (self.partitions.kept() == Kept::Few || self.partitions.get(slot).rows.len() == 1)
        {
            let keys = [self.partitions.get(slot).key.clone()];
            self.timers.extend(timers_of(&self.partitions, close, &keys)?);
        }
        Ok(())
    }

    fn attach(&mut self, cold: Arc<dyn ColdState>, keep: u64) {
        // Partitions of windows are needed when they close, and then forgotten.
        if self.spec.rows.close.is_none() {
            self.partitions.attach(cold, keep);
        }
    }

    fn shrink(&mut self, keep: u64) -> Result<(), DataflowError> {
        self.partitions.shrink(keep);
        Ok(())
    }

    fn footprint(&self) -> Footprint {
        self.partitions.footprint()
    }

    fn report(&self) -> StateReport {
        StateReport {
            keys: self.partitions.len(),
            bytes: self.partitions.bytes(),
            next_timer: self.timers.first().map(|(end, _)| *end),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

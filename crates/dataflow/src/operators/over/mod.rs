//! `OVER`: functions over frames of ordered partitions, for every row.
//!
//! **Rule.** All rows are kept, in partitions and in order. An epoch's changes are gathered per partition; at its end the results of the
//! rows that a change can reach are computed over the old and over the new rows of the partition, and what differs is emitted, retractions
//! first. Where every function looks at most so many rows back and ahead, only the changed rows and their neighbourhood are computed;
//! else the whole partition is.
//!
//! **Invariant.** A result is a function of the rows that it depends on and of nothing else, so that what is taken away is what was emitted,
//! however much of the partition is computed with it. This is why sums of floats over moving frames are added up anew for each row.
mod evaluate;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result as DfResult;
use millstream_plan::OperatorId;

use self::evaluate::Evaluator;
use super::ordered::{EncodedRows, Kept, Multiset, Partitions, Row};
use super::{BATCH_ROWS, EpochContext, Footprint, Operator, StateChange, StateReport, Step, failed};
use crate::cold::ColdState;
use crate::graph::Over;
use crate::{DataflowError, DeltaBatch};

pub(super) struct OverOperator {
    id: OperatorId,
    spec: Arc<Over>,
    schema: SchemaRef,
    evaluators: Vec<Evaluator>,
    /// Rows before and after a row that its results depend on, if all functions have such bounds.
    reach: Option<(usize, usize)>,
    /// Of the results.
    encode: RowConverter,
    partitions: Partitions,
    /// Touched partitions of this epoch that are done.
    done: usize,
}

/// Rows of a partition to compute, in a batch that holds many such pieces.
struct Piece {
    from: usize,
    to: usize,
    /// Rows, counted from `from`, whose results are right and may have changed.
    valid: std::ops::Range<usize>,
}

/// Old and new pieces of changed partitions.
#[derive(Default)]
struct Pieces {
    rows: EncodedRows,
    /// (old, new)
    pairs: Vec<(Piece, Piece)>,
}

impl OverOperator {
    pub(super) fn new(id: OperatorId, spec: &Arc<Over>, schema: SchemaRef) -> Result<Self, DataflowError> {
        let evaluators = spec.calls.iter().map(|call| Evaluator::new(call, &spec.rows)).collect::<DfResult<Vec<_>>>();
        let width = spec.rows.input.fields().len();
        let results = schema.fields()[width..].iter().map(|f| SortField::new(f.data_type().clone()));
        let reach = spec.calls.iter().map(|c| c.reach).reduce(|a, b| {
            let ((before, after), (more_before, more_after)) = (a?, b?);
            Some((before.max(more_before), after.max(more_after)))
        });
        let near = |(before, after)| Some((usize::try_from(before).ok()?, usize::try_from(after).ok()?));
        Ok(Self {
            id,
            evaluators: evaluators.map_err(failed(id, "over"))?,
            reach: reach.flatten().and_then(near),
            encode: RowConverter::new(results.collect())?,
            partitions: Partitions::new(id, &spec.rows, Kept::All)?,
            spec: spec.clone(),
            schema,
            done: 0,
        })
    }

    /// Takes the epoch's changes of a partition and puts its pieces to the others.
    fn change(&mut self, slot: u32, pieces: &mut Pieces) -> Result<(), DataflowError> {
        let changes = self.partitions.take_pending(slot);
        let (Some((first, _)), Some((last, _))) = (changes.first(), changes.last()) else { return Ok(()) };
        let (first, last) = (first.clone(), last.clone());
        let reach = self.reach;
        let mut cut = |partitions: &Partitions| {
            let partition = partitions.get(slot);
            cut(&partition.key, &partition.rows, &first, &last, reach, &mut pieces.rows)
        };
        let old = cut(&self.partitions);
        self.partitions.apply(slot, changes)?;
        let new = cut(&self.partitions);
        pieces.pairs.push((old, new));
        Ok(())
    }

    /// What differs between the old and the new rows of each pair.
    fn differences(&self, pieces: &Pieces) -> DfResult<Option<DeltaBatch>> {
        let columns = pieces.rows.decode(&self.partitions.layout)?;
        let options = RecordBatchOptions::new().with_row_count(Some(pieces.rows.len()));
        let rows = RecordBatch::try_new_with_options(self.spec.rows.input.clone(), columns, &options)?;
        // Row of `rows` that each result belongs to, and where the results of each piece begin.
        let mut row_of: Vec<u32> = Vec::new();
        let mut results: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.evaluators.len()];
        let mut sides: Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> = Vec::new();
        for (old, new) in &pieces.pairs {
            let mut side = |piece: &Piece| -> DfResult<std::ops::Range<usize>> {
                let start = row_of.len();
                if !piece.valid.is_empty() {
                    let slice = rows.slice(piece.from, piece.to - piece.from);
                    for (evaluator, results) in self.evaluators.iter().zip(&mut results) {
                        results.push(evaluator.evaluate(&slice, piece.valid.clone())?);
                    }
                    row_of.extend(piece.valid.clone().map(|i| (piece.from + i) as u32));
                }
                Ok(start..row_of.len())
            };
            sides.push((side(old)?, side(new)?));
        }
        if row_of.is_empty() {
            return Ok(None);
        }
        let results = results.iter().map(|parts| {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            concat(&parts)
        });
        let results: Vec<ArrayRef> = results.collect::<Result<_, _>>()?;
        let encoded = self.encode.convert_columns(&results)?;
        let mut picked: Vec<u32> = Vec::new();
        let mut weights: Vec<i64> = Vec::new();
        for (old, new) in sides {
            // Equal rows with equal results cancel; what is left of them has one sign.
            let mut all: Vec<(&[u8], &[u8], i64, u32)> = Vec::with_capacity(old.len() + new.len());
            let sides = old.map(|i| (i, -1)).chain(new.map(|i| (i, 1)));
            all.extend(
                sides.map(|(i, weight)| (pieces.rows.row(row_of[i] as usize), encoded.row(i).data(), weight, i as u32)),
            );
            all.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
            all.dedup_by(|next, kept| {
                let same = (next.0, next.1) == (kept.0, kept.1);
                if same {
                    kept.2 += next.2;
                }
                same
            });
            for sign in [-1, 1] {
                for (_, _, weight, i) in all.iter().filter(|(_, _, weight, _)| weight.signum() == sign) {
                    picked.push(*i);
                    weights.push(*weight);
                }
            }
        }
        if picked.is_empty() {
            return Ok(None);
        }
        let of_input = UInt32Array::from_iter_values(picked.iter().map(|i| row_of[*i as usize]));
        let of_results = UInt32Array::from(picked);
        let mut columns = rows.columns().iter().map(|c| take(c, &of_input, None)).collect::<Result<Vec<_>, _>>()?;
        for (result, field) in results.iter().zip(&self.schema.fields()[columns.len()..]) {
            let taken = take(result, &of_results, None)?;
            columns.push(if taken.data_type() == field.data_type() {
                taken
            } else {
                arrow::compute::cast(&taken, field.data_type())?
            });
        }
        let weights = weights.iter().any(|w| *w != 1).then(|| Int64Array::from(weights));
        Ok(Some(DeltaBatch { rows: RecordBatch::try_new(self.schema.clone(), columns)?, weights }))
    }

    fn emit_some(&mut self, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let mut pieces = Pieces::default();
        while let Some(slot) = self.partitions.touched().get(self.done).copied() {
            self.done += 1;
            self.change(slot, &mut pieces)?;
            if pieces.rows.len() >= BATCH_ROWS {
                out.extend(self.differences(&pieces).map_err(failed(self.id, "over"))?);
                return Ok(Step::More);
            }
        }
        out.extend(self.differences(&pieces).map_err(failed(self.id, "over"))?);
        self.partitions.end_epoch();
        Ok(Step::Done)
    }
}

/// The rows of a partition that are needed to compute what changes between `first` and `last` can reach.
fn cut(
    key: &[u8],
    rows: &Multiset,
    first: &Row,
    last: &Row,
    reach: Option<(usize, usize)>,
    out: &mut EncodedRows,
) -> Piece {
    let from = out.len();
    let mut push = |row: &Row, weight: i64, most: usize| {
        let copies = usize::try_from(weight).unwrap_or(usize::MAX).min(most);
        (0..copies).for_each(|_| out.push(key, row));
        copies
    };
    let Some((back, ahead)) = reach else {
        rows.iter().for_each(|(row, weight)| {
            push(row, weight, usize::MAX);
        });
        return Piece { from, to: out.len(), valid: 0..out.len() - from };
    };
    // A changed row reaches `ahead` rows before it and `back` rows after it; these depend on as many again on both sides.
    let context = back.saturating_add(ahead);
    let mut before: Vec<(&Row, usize)> = Vec::new();
    let mut left = context;
    for (row, weight) in rows.before(first.bytes()).rev() {
        if left == 0 {
            break;
        }
        let copies = usize::try_from(weight).unwrap_or(usize::MAX).min(left);
        before.push((row, copies));
        left -= copies;
    }
    let available = context - left;
    before.iter().rev().for_each(|(row, copies)| {
        push(row, *copies as i64, usize::MAX);
    });
    let mut after = 0;
    for (row, weight) in rows.from(first.bytes()) {
        if row <= last {
            push(row, weight, usize::MAX);
        } else if after < context {
            after += push(row, weight, context - after);
        } else {
            break;
        }
    }
    let to = out.len();
    let valid = available.saturating_sub(ahead)..to - from - after.saturating_sub(back);
    Piece { from, to, valid }
}

impl Operator for OverOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if self.spec.rows.append_only && batch.weights.is_some() {
            return Err(DataflowError::Corrupt(format!("operator {}: weights on an append-only edge", self.id)));
        }
        self.partitions.gather(&batch, |_, _, _| true, |_| None)?;
        Ok(Step::Done)
    }

    fn resume(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit_some(out)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.done = 0;
        self.emit_some(out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        Ok(self.partitions.seal())
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        self.partitions.restore(key, value).map(|_| ())
    }

    fn attach(&mut self, cold: Arc<dyn ColdState>, keep: u64) {
        self.partitions.attach(cold, keep);
    }

    fn shrink(&mut self, keep: u64) -> Result<(), DataflowError> {
        self.partitions.shrink(keep);
        Ok(())
    }

    fn footprint(&self) -> Footprint {
        self.partitions.footprint()
    }

    fn report(&self) -> StateReport {
        StateReport { keys: self.partitions.len(), bytes: self.partitions.bytes(), next_timer: None }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

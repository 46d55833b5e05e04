//! INTERSECT and EXCEPT: how often a row is in the result follows from how often it is in each input.
//!
//! **Rule.** Per row two counts, of input 0 and of input 1. At the epoch's end the difference of [`SetOperation::count`] before and after
//! the epoch leaves for every row that changed, in order of first appearance in the epoch. Rows are told apart by the bytes of Arrow's row
//! format, as groups are: nulls are equal, and so is NaN.
//!
//! **Bound.** Both inputs only grow and share a time attribute: no equal row can come once the watermark has passed a row's time, and
//! the row is forgotten. What is in the result stays there.
//!
//! **Entries.** Bytes of the row → both counts (little endian).
use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use millstream_plan::OperatorId;

use super::group::GroupIndex;
use super::{BATCH_ROWS, EpochContext, Operator, StateChange, StateReport, Step, failed};
use crate::graph::SetOperation;
use crate::times::to_millis;
use crate::{DataflowError, DeltaBatch};

pub(super) struct SetOperator {
    id: OperatorId,
    spec: SetOperation,
    schema: SchemaRef,
    append_only: bool,
    index: GroupIndex,
    /// By slot of the row.
    rows: Vec<Counts>,
    /// Rows that the epoch at hand touched, in order of first appearance.
    touched: Vec<u32>,
    /// Rows and weights that are still to be emitted, last first.
    leaving: Vec<(u32, i64)>,
    /// (time, row) if the state is bounded.
    times: BTreeSet<(i64, u32)>,
    /// Rows that changed since the last seal, maybe several times.
    changed: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    before: [i64; 2],
    now: [i64; 2],
    touched: bool,
    /// The last checkpoint has an entry for it.
    stored: bool,
    time: Option<i64>,
}

impl SetOperator {
    pub(super) fn new(
        id: OperatorId,
        spec: &SetOperation,
        schema: SchemaRef,
        append_only: bool,
    ) -> Result<Self, DataflowError> {
        let index = GroupIndex::new(schema.fields()).map_err(failed(id, "set operation"))?;
        Ok(Self {
            id,
            spec: spec.clone(),
            schema,
            append_only,
            index,
            rows: Vec::new(),
            touched: Vec::new(),
            leaving: Vec::new(),
            times: BTreeSet::new(),
            changed: Vec::new(),
        })
    }

    fn add(&mut self, input: usize, batch: &DeltaBatch) -> DfResult<()> {
        let slots = self.index.intern(batch.rows.columns(), batch.num_rows())?;
        self.rows.resize(self.index.slots(), Counts::default());
        let weights = batch.weights.as_ref().map(|w| &w.values()[..]);
        for (row, slot) in slots.iter().enumerate() {
            let counts = &mut self.rows[*slot as usize];
            if !std::mem::replace(&mut counts.touched, true) {
                counts.before = counts.now;
                self.touched.push(*slot);
            }
            counts.now[input] += weights.map_or(1, |w| w[row]);
        }
        if let Some((column, _)) = &self.spec.bound {
            self.note_times(&slots, batch.rows.column(*column))?;
        }
        Ok(())
    }

    fn note_times(&mut self, slots: &[u32], column: &ArrayRef) -> DfResult<()> {
        let times = to_millis(column)?;
        for (row, slot) in slots.iter().enumerate().filter(|(row, _)| times.is_valid(*row)) {
            let time = times.value(row);
            if self.rows[*slot as usize].time.replace(time) != Some(time) {
                self.times.insert((time, *slot));
            }
        }
        Ok(())
    }

    /// Compares the counts of the epoch's rows.
    fn settle(&mut self) -> Result<(), DataflowError> {
        for slot in std::mem::take(&mut self.touched) {
            let counts = &mut self.rows[slot as usize];
            counts.touched = false;
            if counts.now.iter().any(|n| *n < 0) {
                let row = self.index.show(slot);
                let id = self.id;
                return Err(DataflowError::Corrupt(format!(
                    "operator {id} (set operation): row {row} is taken away and was not there"
                )));
            }
            let count = |[left, right]: [i64; 2]| self.spec.count(left, right);
            let change = count(counts.now) - count(counts.before);
            if change != 0 {
                self.leaving.push((slot, change));
            }
            self.changed.push(slot);
        }
        self.leaving.reverse();
        Ok(())
    }

    /// Emits at most one batch.
    fn emit_some(&mut self, out: &mut Vec<DeltaBatch>) -> DfResult<Step> {
        let (mut slots, mut weights) = (Vec::new(), Vec::new());
        while slots.len() < BATCH_ROWS
            && let Some((slot, weight)) = self.leaving.pop()
        {
            if self.append_only {
                // Such edges have no weights: the row leaves as often as it is there.
                let copies = weight.min((BATCH_ROWS - slots.len()) as i64);
                slots.extend(std::iter::repeat_n(slot, copies as usize));
                self.leaving.extend((weight > copies).then_some((slot, weight - copies)));
            } else {
                slots.push(slot);
                weights.push(weight);
            }
        }
        if !slots.is_empty() {
            let rows = RecordBatch::try_new(self.schema.clone(), self.index.columns(&slots)?)?;
            out.push(DeltaBatch { rows, weights: (!self.append_only).then(|| Int64Array::from(weights)) });
        }
        Ok(if self.leaving.is_empty() { Step::Done } else { Step::More })
    }

    /// Forgets rows that no other row can equal any more.
    fn forget(&mut self, cx: &EpochContext<'_>) {
        let Some((_, domain)) = &self.spec.bound else { return };
        let watermark = cx.watermark(domain);
        while self.times.first().is_some_and(|(time, _)| *time < watermark) {
            let Some((_, slot)) = self.times.pop_first() else { break };
            let counts = &mut self.rows[slot as usize];
            (counts.now, counts.time) = ([0, 0], None);
            self.changed.push(slot);
        }
    }

    fn end(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let step = self.emit_some(out).map_err(failed(self.id, "set operation"))?;
        if step == Step::Done {
            self.forget(cx);
        }
        Ok(step)
    }
}

impl Operator for SetOperator {
    fn process(
        &mut self,
        input: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        self.add(input, &batch).map_err(failed(self.id, "set operation"))?;
        Ok(Step::Done)
    }

    fn resume(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.end(cx, out)
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.settle()?;
        self.end(cx, out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let mut sealed = Vec::with_capacity(changed.len());
        for slot in changed {
            let counts = &mut self.rows[slot as usize];
            let there = counts.now != [0, 0];
            if there || counts.stored {
                let value = there.then(|| counts.now.map(i64::to_le_bytes).concat());
                sealed.push(StateChange { key: self.index.key(slot).to_vec(), value });
            }
            counts.stored = there;
            if !there {
                if let Some(time) = counts.time.take() {
                    self.times.remove(&(time, slot));
                }
                self.index.release(slot);
            }
        }
        sealed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(sealed)
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let corrupt = || DataflowError::Corrupt(format!("operator {}: a damaged state entry", self.id));
        let (left, right) = value.split_first_chunk::<8>().ok_or_else(corrupt)?;
        let right: [u8; 8] = right.try_into().map_err(|_| corrupt())?;
        let now = [i64::from_le_bytes(*left), i64::from_le_bytes(right)];
        let slot = self.index.intern_key(key);
        self.rows.resize(self.index.slots(), Counts::default());
        self.rows[slot as usize] = Counts { now, stored: true, ..Counts::default() };
        if let Some((column, _)) = self.spec.bound {
            let error = failed(self.id, "set operation");
            let columns = self.index.columns(&[slot]).map_err(&error)?;
            self.note_times(&[slot], &columns[column]).map_err(error)?;
        }
        Ok(())
    }

    fn report(&self) -> StateReport {
        let bytes = self.index.bytes() + self.rows.capacity() * size_of::<Counts>() + self.times.len() * 24;
        StateReport { keys: self.index.len() as u64, bytes: bytes as u64, next_timer: None }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

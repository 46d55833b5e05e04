//! Functions over frames that close: rows are appended in the order of event time, so once the watermark has passed a row nothing can change its
//! results any more, and it is emitted, once.
//!
//! **State.** Rows wait until the watermark has passed them. Of those that were passed only what later frames reach stays: the last rows, those of the
//! last seconds, the first rows of the partition. Frames that begin with the partition and end with the row at hand keep what they have added up
//! instead, and ranks how many rows there were.
//!
//! **Entries.** Those of [`TimedPartitions`]; `a ‖ partition` → number of rows, of values of the order, then each sum's state as length and row.
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::Accumulator;
use hashbrown::HashMap;
use millstream_plan::OperatorId;

use super::evaluate::Evaluator;
use crate::graph::{Memory, Over, OverFunction, RankFunction, TimeDomain};
use crate::operators::ordered::{EncodedRows, TimedPartitions};
use crate::operators::{BATCH_ROWS, EpochContext, Footprint, Operator, StateChange, StateReport, Step, failed};
use crate::{DataflowError, DeltaBatch};

const SUMS: u8 = b'a';

/// See the module.
pub(super) struct ClosingOver {
    id: OperatorId,
    spec: Arc<Over>,
    domain: TimeDomain,
    schema: SchemaRef,
    calls: Vec<Call>,
    /// The most that any function remembers.
    first: usize,
    last: usize,
    millis: Option<i64>,
    all: bool,
    /// Some function has sums or counts.
    sums_up: bool,
    rows: TimedPartitions,
    sums: HashMap<Arc<[u8]>, Sums>,
    /// About what they take.
    sum_bytes: u64,
    /// Whose sums have changed since the last checkpoint.
    dirty: BTreeSet<Arc<[u8]>>,
}

enum Call {
    Frame(Evaluator),
    /// With the codec of its state.
    Sum(Evaluator, RowConverter),
    Rank(RankFunction),
}

/// What has been added up of a partition.
struct Sums {
    rows: u64,
    /// Different values of the order columns.
    groups: u64,
    /// One for each [`Call::Sum`].
    accumulators: Vec<Box<dyn Accumulator>>,
}

impl Sums {
    /// About what it takes; sums of most aggregates are as small.
    fn bytes(&self, key: &[u8]) -> u64 {
        (key.len() + 64 * (1 + self.accumulators.len())) as u64
    }
}

/// Rows of a partition, in a batch that holds many such pieces.
struct Piece {
    key: Arc<[u8]>,
    from: usize,
    /// The first row that has not been emitted.
    new: usize,
    to: usize,
    /// Of the new rows: its order differs from that of the row before.
    leads: Vec<bool>,
}

impl ClosingOver {
    pub fn new(
        id: OperatorId,
        spec: &Arc<Over>,
        domain: &TimeDomain,
        schema: SchemaRef,
    ) -> Result<Self, DataflowError> {
        let (mut first, mut last, mut millis, mut all, mut sums_up) = (0, 0, None, false, false);
        let mut calls = Vec::with_capacity(spec.calls.len());
        for call in &spec.calls {
            let evaluator = || Evaluator::new(call, &spec.rows).map_err(failed(id, "over"));
            let rows = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let looks_ahead = || DataflowError::Corrupt(format!("operator {id}: {} looks ahead", call.text));
            calls.push(match call.memory.ok_or_else(looks_ahead)? {
                Memory::Rank(function) => {
                    sums_up = true;
                    Call::Rank(function)
                }
                Memory::Sum => {
                    sums_up = true;
                    Call::Sum(evaluator()?, codec(&call.function).map_err(failed(id, "over"))?)
                }
                memory => {
                    match memory {
                        Memory::Last(n) => last = last.max(rows(n)),
                        Memory::First(n) => first = first.max(rows(n)),
                        Memory::Millis(ms) => millis = millis.max(Some(ms)),
                        Memory::All | Memory::Sum | Memory::Rank(_) => all = true,
                    }
                    Call::Frame(evaluator()?)
                }
            });
        }
        Ok(Self {
            id,
            rows: TimedPartitions::new(id, &spec.rows)?,
            spec: spec.clone(),
            domain: domain.clone(),
            schema,
            calls,
            first,
            last,
            millis,
            all,
            sums_up,
            sums: HashMap::new(),
            sum_bytes: 0,
            dirty: BTreeSet::new(),
        })
    }

    /// Takes the rows of a partition that are to be emitted, with those that they need, and forgets what later rows do not need.
    fn take(&mut self, key: Arc<[u8]>, rows: &mut EncodedRows) -> Result<Option<Piece>, DataflowError> {
        let Some(slot) = self.rows.partitions.find(&key) else { return Ok(None) };
        let from = rows.len();
        let mut piece = Piece { new: from, from, to: from, leads: Vec::new(), key };
        let mut before: Option<&[u8]> = None;
        let mut passed = Vec::new();
        for (row, weight) in self.rows.partitions.get(slot).rows.iter().take_while(|(row, _)| self.rows.is_passed(row))
        {
            let copies = usize::try_from(weight).unwrap_or(usize::MAX);
            (0..copies).for_each(|_| rows.push(&piece.key, row));
            if self.rows.was_passed(row) {
                piece.new += copies;
            } else {
                piece.leads.push(before != Some(row.order()));
                piece.leads.extend((1..copies).map(|_| false));
            }
            before = Some(row.order());
            passed.push((row, copies));
        }
        piece.to = rows.len();
        let count = piece.to - piece.from;
        let needed_from = self.millis.map(|ms| self.rows.needed_from(ms));
        let mut gone = Vec::new();
        let mut at = 0;
        for (row, copies) in passed {
            let near = needed_from.is_some_and(|from| TimedPartitions::time(row) >= from);
            let stays = |i: &usize| self.all || near || *i < self.first || count - *i <= self.last;
            let goes = (at..at + copies).filter(|i| !stays(i)).count();
            if goes > 0 {
                gone.push((row.clone(), -(goes as i64)));
            }
            at += copies;
        }
        self.rows.partitions.apply(slot, gone)?;
        self.rows.schedule(&piece.key, Some(slot), None);
        self.rows.partitions.drop_if_empty(slot);
        Ok(Some(piece))
    }

    /// Results of the new rows of the pieces.
    fn results(&mut self, pieces: &[Piece], rows: &EncodedRows) -> DfResult<Option<DeltaBatch>> {
        let fresh = pieces.iter().flat_map(|p| p.new..p.to).map(|i| i as u32);
        let fresh = UInt32Array::from_iter_values(fresh);
        if fresh.is_empty() {
            return Ok(None);
        }
        let columns = rows.decode(&self.rows.partitions.layout)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let rows = RecordBatch::try_new_with_options(self.spec.rows.input.clone(), columns, &options)?;
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(pieces.len()); self.calls.len()];
        for piece in pieces.iter().filter(|p| p.new < p.to) {
            let slice = rows.slice(piece.from, piece.to - piece.from);
            let new = piece.new - piece.from;
            let mut own;
            let sums = match self.sums_up {
                true => {
                    if !self.sums.contains_key(&piece.key) {
                        let sums = fresh_sums(&self.calls, &self.spec)?;
                        self.sum_bytes += sums.bytes(&piece.key);
                        self.sums.insert(piece.key.clone(), sums);
                    }
                    self.dirty.insert(piece.key.clone());
                    self.sums.get_mut(&piece.key)
                }
                false => None,
            };
            let sums = match sums {
                Some(sums) => sums,
                None => {
                    own = Sums { rows: 0, groups: 0, accumulators: Vec::new() };
                    &mut own
                }
            };
            let mut accumulators = sums.accumulators.iter_mut();
            for (call, parts) in self.calls.iter().zip(&mut parts) {
                parts.push(match call {
                    Call::Frame(evaluator) => evaluator.evaluate(&slice, new..slice.num_rows())?,
                    Call::Sum(evaluator, _) => match accumulators.next() {
                        Some(sum) => evaluator.go_on(&slice, new, sum)?,
                        None => evaluator.evaluate(&slice, new..slice.num_rows())?,
                    },
                    Call::Rank(function) => ranks(*function, sums.rows, sums.groups, &piece.leads),
                });
            }
            sums.rows += piece.leads.len() as u64;
            sums.groups += piece.leads.iter().filter(|leads| **leads).count() as u64;
        }
        let mut columns = rows.columns().iter().map(|c| take(c, &fresh, None)).collect::<Result<Vec<_>, _>>()?;
        let width = columns.len();
        for (parts, field) in parts.iter().zip(&self.schema.fields()[width..]) {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            let result = concat(&parts)?;
            let fits = result.data_type() == field.data_type();
            columns.push(if fits { result } else { arrow::compute::cast(&result, field.data_type())? });
        }
        Ok(Some(DeltaBatch::appended(RecordBatch::try_new(self.schema.clone(), columns)?)))
    }

    fn emit_some(&mut self, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let mut rows = EncodedRows::default();
        let mut pieces = Vec::new();
        let mut step = Step::Done;
        while let Some(key) = self.rows.next_due() {
            pieces.extend(self.take(key, &mut rows)?);
            if rows.len() >= BATCH_ROWS {
                step = Step::More;
                break;
            }
        }
        out.extend(self.results(&pieces, &rows).map_err(failed(self.id, "over"))?);
        if step == Step::Done {
            self.rows.finish();
        }
        Ok(step)
    }

    fn seal_sums(&mut self) -> DfResult<Vec<StateChange>> {
        let mut sealed = Vec::with_capacity(self.dirty.len());
        for key in std::mem::take(&mut self.dirty) {
            let Some(sums) = self.sums.get_mut(&key) else { continue };
            let mut value = sums.rows.to_le_bytes().to_vec();
            value.extend_from_slice(&sums.groups.to_le_bytes());
            let codecs = self.calls.iter().zip(&self.spec.calls).filter_map(|(call, spec)| match call {
                Call::Sum(_, codec) => Some((codec, &spec.function)),
                Call::Frame(_) | Call::Rank(_) => None,
            });
            for ((codec, function), accumulator) in codecs.zip(&mut sums.accumulators) {
                let state = accumulator.state()?;
                let state = state.iter().map(|s| s.to_array()).collect::<DfResult<Vec<_>>>()?;
                let rows = codec.convert_columns(&state)?;
                let row = rows.row(0);
                value.extend_from_slice(&(row.data().len() as u32).to_le_bytes());
                value.extend_from_slice(row.data());
                // It goes on as one that was restored: some merge with other rounding than they add.
                *accumulator = sum_of(function)?;
                accumulator.merge_batch(&state)?;
            }
            sealed.push(StateChange { key: [&[SUMS], &*key].concat(), value: Some(value) });
        }
        Ok(sealed)
    }

    fn restore_sums(&mut self, key: &[u8], value: &[u8]) -> DfResult<Option<()>> {
        let number = |from: &mut &[u8], width: usize| {
            let (taken, rest) = from.split_at_checked(width)?;
            *from = rest;
            Some(taken.iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte)))
        };
        let mut value = value;
        let mut sums = fresh_sums(&self.calls, &self.spec)?;
        let (Some(rows), Some(groups)) = (number(&mut value, 8), number(&mut value, 8)) else { return Ok(None) };
        (sums.rows, sums.groups) = (rows, groups);
        let codecs = self.calls.iter().filter_map(|call| match call {
            Call::Sum(_, codec) => Some(codec),
            Call::Frame(_) | Call::Rank(_) => None,
        });
        for (codec, accumulator) in codecs.zip(&mut sums.accumulators) {
            let Some(length) = number(&mut value, 4) else { return Ok(None) };
            let Some((row, rest)) = value.split_at_checked(length as usize) else { return Ok(None) };
            value = rest;
            accumulator.merge_batch(&codec.convert_rows([codec.parser().parse(row)])?)?;
        }
        self.sum_bytes += sums.bytes(key);
        self.sums.insert(key.into(), sums);
        Ok(Some(()))
    }
}

fn sum_of(function: &OverFunction) -> DfResult<Box<dyn Accumulator>> {
    match function {
        OverFunction::Aggregate { call, .. } => call.function.create_accumulator(),
        OverFunction::Window(_) => datafusion::common::internal_err!("a function that adds nothing up"),
    }
}

fn fresh_sums(calls: &[Call], spec: &Over) -> DfResult<Sums> {
    let sums = calls.iter().zip(&spec.calls).filter(|(call, _)| matches!(call, Call::Sum(..)));
    let accumulators = sums.map(|(_, spec)| sum_of(&spec.function)).collect::<DfResult<_>>()?;
    Ok(Sums { rows: 0, groups: 0, accumulators })
}

/// Of the state of an aggregate.
fn codec(function: &OverFunction) -> DfResult<RowConverter> {
    let fields = match function {
        OverFunction::Aggregate { call, .. } => call.function.state_fields()?,
        OverFunction::Window(_) => Vec::new(),
    };
    Ok(RowConverter::new(fields.iter().map(|f| SortField::new(f.data_type().clone())).collect())?)
}

/// Ranks of rows that follow `rows` rows with `groups` values of the order.
fn ranks(function: RankFunction, rows: u64, groups: u64, leads: &[bool]) -> ArrayRef {
    let (mut groups, mut rank) = (groups, rows);
    let ranks = (rows + 1..).zip(leads).map(|(number, leads)| {
        if *leads {
            groups += 1;
            rank = number;
        }
        match function {
            RankFunction::RowNumber => number,
            RankFunction::Rank => rank,
            RankFunction::DenseRank => groups,
        }
    });
    Arc::new(UInt64Array::from_iter_values(ranks))
}

impl Operator for ClosingOver {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        self.rows.gather(&batch)?;
        Ok(Step::Done)
    }

    fn resume(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit_some(out)
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        for key in self.rows.begin(cx.watermark(&self.domain))? {
            self.rows.hasten(&key);
        }
        self.emit_some(out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let sums = self.seal_sums().map_err(failed(self.id, "over"))?;
        Ok(self.rows.seal(sums))
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        match key.split_first() {
            Some((&SUMS, key)) => match self.restore_sums(key, value).map_err(failed(self.id, "over"))? {
                Some(()) => Ok(()),
                None => Err(DataflowError::Corrupt(format!("operator {}: an entry of sums is damaged", self.id))),
            },
            _ => {
                if self.rows.restore(key, value)? {
                    self.rows.reschedule(|_, _| None);
                }
                Ok(())
            }
        }
    }

    fn footprint(&self) -> Footprint {
        let rows = self.rows.partitions.footprint();
        Footprint { resident: rows.resident + self.sum_bytes, ..rows }
    }

    fn report(&self) -> StateReport {
        StateReport {
            keys: self.rows.partitions.len() + self.sums.len() as u64,
            bytes: self.rows.partitions.bytes() + self.sum_bytes,
            next_timer: self.rows.next_timer(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

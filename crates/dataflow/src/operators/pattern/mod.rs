//! `MATCH_RECOGNIZE`: in each partition, rows in the order of event time are searched for a pattern, as SQL:2016 has it.
//!
//! **Rule.** Rows wait until the watermark has passed them, so that they are searched in their order whenever they came. The search goes from row to
//! row: an [attempt](attempt::Attempt) finds the preferred match that begins with a row, and `AFTER MATCH SKIP` says where the next begins; after
//! none it is the next row. A match is emitted when it is decided: no row that can still come can make another one preferred. Where attempts do
//! not depend on each other (`SKIP TO NEXT ROW`) each row begins one, and a match need not wait for those before it.
//!
//! **Time.** With `WITHIN` an attempt has no further row once the watermark has reached its first row's time plus that span, so it is decided then at
//! the latest, and matches are at most so much late. Without, a match of a pattern of fixed length is known with its last row.
//!
//! **State.** The rows that wait, and those from the first row of an undecided attempt on, with as many before it as PREV looks back. Threads are not
//! kept: after a restore the rows are offered again.
//!
//! **Entries.** Those of [`TimedPartitions`]; `m ‖ partition` → number of the next row that begins an attempt, and of those whose attempts are
//! undecided, counted from the first row that is kept.
mod attempt;
mod automaton;
mod search;

pub use automaton::MAX_STATES as MAX_PATTERN_STATES;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DfResult;
use hashbrown::HashMap;
use millstream_plan::OperatorId;

use self::attempt::{Conditions, Rows};
use self::search::{Found, Live, Piece};
use super::ordered::{EncodedRows, TimedPartitions};
use super::{BATCH_ROWS, EpochContext, Footprint, Operator, StateChange, StateReport, Step, failed};
use crate::graph::{AggregateCall, Formula, RowPattern, Slot};
use crate::{DataflowError, DeltaBatch};

const MARK: u8 = b'm';

/// See the module.
pub(super) struct PatternOperator {
    id: OperatorId,
    spec: Arc<RowPattern>,
    schema: SchemaRef,
    conditions: Conditions,
    /// Slots that measures see.
    measured: Vec<usize>,
    rows: TimedPartitions,
    /// `WITHIN`, in the unit of the time column.
    within: Option<i64>,
    live: HashMap<Arc<[u8]>, Live>,
    /// Partitions whose mark has changed since the last checkpoint.
    dirty: BTreeSet<Arc<[u8]>>,
}

impl PatternOperator {
    pub(super) fn new(id: OperatorId, spec: &Arc<RowPattern>, schema: SchemaRef) -> Result<Self, DataflowError> {
        if spec.pattern.is_nullable() {
            return Err(DataflowError::Corrupt(format!("operator {id}: a pattern that matches without a row")));
        }
        let rows = TimedPartitions::new(id, &spec.rows)?;
        let mut measured: Vec<usize> = spec.measures.iter().flat_map(|(_, f)| f.slots.iter().copied()).collect();
        measured.sort_unstable();
        measured.dedup();
        Ok(Self {
            id,
            conditions: Conditions::new(spec).map_err(failed(id, "match_recognize"))?,
            within: spec.within_ms.map(|ms| rows.span(ms)),
            spec: spec.clone(),
            schema,
            measured,
            rows,
            live: HashMap::new(),
            dirty: BTreeSet::new(),
        })
    }

    /// Takes the rows of a partition that can be searched.
    fn take(&self, key: Arc<[u8]>, rows: &mut EncodedRows) -> Option<Piece> {
        let slot = self.rows.partitions.find(&key)?;
        let mut piece = Piece { slot, at: rows.len(), times: Vec::new(), key };
        let all = self.rows.partitions.get(slot).rows.iter();
        for (row, weight) in all.take_while(|(row, _)| self.rows.is_passed(row)) {
            for _ in 0..weight {
                rows.push(&piece.key, row);
                piece.times.push(TimedPartitions::time(row));
            }
        }
        Some(piece)
    }

    /// What can be told of the rows one by one.
    fn look(&self, pieces: &[Piece], input: &RecordBatch) -> DfResult<Rows> {
        let count = input.num_rows();
        let evaluate = |e: &Arc<dyn datafusion::physical_expr::PhysicalExpr>| e.evaluate(input)?.into_array(count);
        let arguments: Vec<ArrayRef> = self.spec.arguments.iter().map(evaluate).collect::<DfResult<_>>()?;
        let aggregated = self.spec.slots.iter().map(|slot| match slot {
            Slot::Row { .. } => Ok(None),
            Slot::Aggregate { call, .. } => {
                let arguments = call.function.expressions().iter().map(evaluate).collect::<DfResult<_>>()?;
                let filter = call.filter.as_ref().map(evaluate).transpose()?;
                Ok(Some((arguments, filter.map(|f| f.as_boolean().clone()))))
            }
        });
        let aggregated = aggregated.collect::<DfResult<_>>()?;
        let local = self.spec.variables.iter().map(|v| match &v.local {
            Some(formula) => self.local(formula, pieces, &arguments, count).map(Some),
            None => Ok(None),
        });
        let local = local.collect::<DfResult<_>>()?;
        Ok(Rows { arguments, aggregated, local })
    }

    /// A condition on a row and those before it, for each row.
    fn local(
        &self,
        formula: &Formula,
        pieces: &[Piece],
        arguments: &[ArrayRef],
        count: usize,
    ) -> DfResult<BooleanArray> {
        let columns = formula.slots.iter().map(|slot| match &self.spec.slots[*slot] {
            Slot::Row { back: 0, argument, .. } => Ok(arguments[*argument].clone()),
            Slot::Row { back, argument, .. } => {
                let back = usize::try_from(*back).unwrap_or(usize::MAX);
                let before = |piece: &Piece| (0..piece.times.len()).map(move |i| i.checked_sub(back));
                let indices =
                    pieces.iter().flat_map(|p| before(p).map(|i| i.map(|i| (p.at + i) as u32)).collect::<Vec<_>>());
                Ok(take(&arguments[*argument], &indices.collect::<UInt32Array>(), None)?)
            }
            Slot::Aggregate { .. } => datafusion::common::internal_err!("an aggregate of a row alone"),
        });
        let columns = columns.collect::<DfResult<Vec<_>>>()?;
        evaluate(formula, columns, count).map(|met| met.as_boolean().clone())
    }

    /// Searches the pieces; what is found leaves as rows.
    fn search(&mut self, pieces: &[Piece], encoded: &EncodedRows) -> DfResult<Option<DeltaBatch>> {
        if encoded.len() == 0 {
            return Ok(None);
        }
        let columns = encoded.decode(&self.rows.partitions.layout)?;
        let options = RecordBatchOptions::new().with_row_count(Some(encoded.len()));
        let input = RecordBatch::try_new_with_options(self.spec.rows.input.clone(), columns, &options)?;
        let rows = self.look(pieces, &input)?;
        let mut found = Vec::new();
        for piece in pieces {
            self.search_piece(piece, &rows, &mut found)?;
        }
        self.measure(&input, &rows, &found)
    }

    fn search_piece(&mut self, piece: &Piece, rows: &Rows, found: &mut Vec<Found>) -> DfResult<()> {
        let mut live = self.live.remove(&piece.key).unwrap_or_default();
        let mark = live.mark();
        let search = search::Search {
            pattern: &self.spec,
            conditions: &self.conditions,
            rows,
            piece,
            within: self.within,
            timed: &self.rows,
        };
        search.run(&mut live, found)?;
        // Without a limit an attempt is decided when the input ends.
        let wakes =
            live.attempts.first().map(|a| search.limit(live.base, a.start).map_or(i64::MAX, |l| self.rows.reaches(l)));
        let gone = live.forget(self.spec.back());
        let mut left = gone;
        let mut changes = Vec::new();
        for (row, weight) in self.rows.partitions.get(piece.slot).rows.iter() {
            let taken = weight.min(i64::try_from(left).unwrap_or(i64::MAX));
            if taken == 0 {
                break;
            }
            changes.push((row.clone(), -taken));
            left -= taken as u64;
        }
        self.rows
            .partitions
            .apply(piece.slot, changes)
            .map_err(|e| datafusion::error::DataFusionError::External(Box::new(e)))?;
        self.rows.schedule(&piece.key, Some(piece.slot), wakes);
        self.rows.partitions.drop_if_empty(piece.slot);
        if live.mark() != mark {
            self.dirty.insert(piece.key.clone());
        }
        if !live.is_idle() {
            self.live.insert(piece.key.clone(), live);
        }
        Ok(())
    }

    /// One row for each match.
    fn measure(&self, input: &RecordBatch, rows: &Rows, found: &[Found]) -> DfResult<Option<DeltaBatch>> {
        if found.is_empty() {
            return Ok(None);
        }
        let mut values: Vec<Option<ArrayRef>> = vec![None; self.spec.slots.len()];
        for slot in &self.measured {
            values[*slot] = Some(match &self.spec.slots[*slot] {
                Slot::Row { variable, place, back, argument } => {
                    let indices = found.iter().map(|f| f.row(*variable, *place, *back).map(|i| i as u32));
                    take(&rows.arguments[*argument], &indices.collect::<UInt32Array>(), None)?
                }
                Slot::Aggregate { variable, call } => {
                    let input = rows.aggregated[*slot].as_ref();
                    let values = found.iter().map(|f| aggregate(call, input, &f.rows(*variable)));
                    ScalarValue::iter_to_array(values.collect::<DfResult<Vec<_>>>()?)?
                }
            });
        }
        let first = UInt64Array::from_iter_values(found.iter().map(|f| f.first() as u64));
        let partition = self.spec.rows.partition.iter();
        let mut columns = partition.map(|c| take(input.column(*c), &first, None)).collect::<Result<Vec<_>, _>>()?;
        for (_, formula) in &self.spec.measures {
            let slots: Vec<ArrayRef> = formula.slots.iter().filter_map(|slot| values[*slot].clone()).collect();
            let value = evaluate(formula, slots, found.len())?;
            let wanted = self.schema.field(columns.len()).data_type();
            columns.push(if value.data_type() == wanted { value } else { arrow::compute::cast(&value, wanted)? });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.len()));
        Ok(Some(DeltaBatch::appended(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)))
    }

    fn emit_some(&mut self, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let mut rows = EncodedRows::default();
        let mut pieces = Vec::new();
        let mut step = Step::Done;
        while let Some(key) = self.rows.next_due() {
            pieces.extend(self.take(key, &mut rows));
            if rows.len() >= BATCH_ROWS {
                step = Step::More;
                break;
            }
        }
        out.extend(self.search(&pieces, &rows).map_err(failed(self.id, "match_recognize"))?);
        if step == Step::Done {
            self.rows.finish();
        }
        Ok(step)
    }
}

fn evaluate(formula: &Formula, columns: Vec<ArrayRef>, count: usize) -> DfResult<ArrayRef> {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let batch = RecordBatch::try_new_with_options(formula.schema.clone(), columns, &options)?;
    formula.expr.evaluate(&batch)?.into_array(count)
}

/// An aggregate over some rows.
fn aggregate(
    call: &AggregateCall,
    input: Option<&(Vec<ArrayRef>, Option<BooleanArray>)>,
    rows: &[usize],
) -> DfResult<ScalarValue> {
    let mut accumulator = call.function.create_accumulator()?;
    if let Some((arguments, filter)) = input {
        let passes = |row: &usize| filter.as_ref().is_none_or(|f| f.is_valid(*row) && f.value(*row));
        let rows: UInt64Array = rows.iter().copied().filter(passes).map(|r| r as u64).collect();
        let arguments = arguments.iter().map(|a| take(a, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        accumulator.update_batch(&arguments)?;
    }
    accumulator.evaluate()
}

impl Operator for PatternOperator {
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
        for key in self.rows.begin(cx.watermark(&self.spec.domain))? {
            self.rows.hasten(&key);
        }
        self.emit_some(out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let marks = std::mem::take(&mut self.dirty).into_iter().map(|key| {
            let value = self
                .live
                .get(&key)
                .filter(|live| !live.is_idle())
                .map(|live| live.mark().into_iter().flat_map(u64::to_le_bytes).collect());
            StateChange { key: [&[MARK], &*key].concat(), value }
        });
        let marks = marks.collect();
        Ok(self.rows.seal(marks))
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let damaged = || DataflowError::Corrupt(format!("operator {}: the mark of a partition is damaged", self.id));
        if let Some((&MARK, key)) = key.split_first() {
            let numbers = value.chunks(8).map(|n| n.try_into().map(u64::from_le_bytes));
            let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().map_err(|_| damaged())?;
            let (next, open) = numbers.split_first().ok_or_else(damaged)?;
            self.live.insert(key.into(), Live::restored(&self.conditions, *next, open));
            return Ok(());
        }
        if self.rows.restore(key, value)? {
            let (live, within) = (&self.live, self.within);
            self.rows.reschedule(|key, rows| {
                let start = live.get(key)?.attempts.first()?.start;
                let all = rows.partitions.get(rows.partitions.find(key)?).rows.iter();
                let mut times = all.flat_map(|(row, weight)| (0..weight).map(move |_| TimedPartitions::time(row)));
                let time = times.nth(usize::try_from(start).ok()?)?;
                Some(within.map_or(i64::MAX, |within| rows.reaches(time.saturating_add(within))))
            });
        }
        Ok(())
    }

    fn footprint(&self) -> Footprint {
        self.rows.partitions.footprint()
    }

    fn report(&self) -> StateReport {
        StateReport {
            keys: self.rows.partitions.len(),
            bytes: self.rows.partitions.bytes(),
            next_timer: self.rows.next_timer(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

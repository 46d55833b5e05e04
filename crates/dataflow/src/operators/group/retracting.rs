//! Second half where rows come and go, or their values are needed.
//!
//! The rows of an epoch are gathered and applied at its end, together. A call is [`Linear`], or it reads the ends of a [`Multiset`] of its
//! arguments (min, max), or it is computed anew from the multiset for each group that changed (all others). A DISTINCT call sees a
//! value of its multiset when it comes to be there and when it is there no longer.
//!
//! Under `state.ttl` a group that no row touches lapses (see [`ttl`](super::super::ttl)). Of updating input the rows of each group are then kept
//! as one more multiset, so that a retraction of a row that has lapsed is known and dropped.
//!
//! **Entries.** `g` key → number of rows, count and sum of each linear call, under `state.ttl` the time at which the group was touched; `m` multiset, length of the key, key, value → weight.
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, new_null_array};
use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::SortField;
use datafusion::error::{DataFusionError, Result as DfResult};
use millstream_plan::OperatorId;

use super::super::ttl::{NEVER, Touched};
use super::super::{EpochContext, Operator, StateChange, StateReport, Step, failed};
use super::changes::{Results, changes, gone};
use super::exact::take_i64;
use super::growing::{parse_value_key, value_key};
use super::index::GroupIndex;
use super::linear::Linear;
use super::multiset::Multiset;
use super::table::Accumulators;
use super::{CallInput, inputs_of, key_fields};
use crate::graph::GroupAggregate;
use crate::{DataflowError, DeltaBatch};

const GROUP: u8 = b'g';
const VALUE: u8 = b'm';

pub(super) struct Retracting {
    id: OperatorId,
    spec: Arc<GroupAggregate>,
    append_only: bool,
    index: GroupIndex,
    /// Keys of the groups that have a row also without input.
    always: Vec<Box<[u8]>>,
    /// By slot.
    groups: Vec<Group>,
    calls: Vec<Call>,
    sets: Vec<(CallInput, Multiset)>,
    /// Input of the current epoch.
    gathered: Vec<DeltaBatch>,
    /// Slots that changed since the last seal, maybe several times.
    changed: Vec<u32>,
    touched: Option<Touched>,
    /// Under `state.ttl`, if rows are taken away: the rows of each group.
    rows: Option<Multiset>,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    rows: i64,
    /// Its result has been emitted.
    there: bool,
    /// The last checkpoint has an entry for it.
    stored: bool,
    /// The current epoch touched it.
    touched: bool,
}

/// A value counts as much as several equal ones.
const IDEMPOTENT: &[&str] = &["bool_and", "bool_or", "bit_and", "bit_or", "approx_distinct"];

enum Call {
    /// Fed with rows.
    Linear(Linear, CallInput),
    /// Fed with the values of a multiset.
    Distinct(Linear, usize),
    End {
        set: usize,
        last: bool,
    },
    Anew {
        set: usize,
        once: bool,
    },
}

impl Retracting {
    pub fn new(id: OperatorId, spec: &Arc<GroupAggregate>, (updating, append_only): (bool, bool)) -> DfResult<Self> {
        let mut sets: Vec<(CallInput, Multiset)> = Vec::new();
        let mut calls = Vec::new();
        let type_of = |column: &usize| spec.transfer.field(*column).data_type().clone();
        for (call, input) in spec.calls.iter().zip(inputs_of(spec.keys.len(), &spec.calls).1) {
            let types: Vec<DataType> = input.arguments.iter().map(type_of).collect();
            let linear = Linear::of(call, &types);
            if let (Some(linear), false) = (linear, call.distinct) {
                calls.push(Call::Linear(linear, input));
                continue;
            }
            let set = match sets.iter().position(|(i, _)| *i == input) {
                Some(set) => set,
                None => {
                    let order = input.order.iter().map(|(c, o)| SortField::new_with_options(type_of(c), *o));
                    let fields = order.chain(types.iter().map(|t| SortField::new(t.clone()))).collect();
                    sets.push((input, Multiset::new(fields)?));
                    sets.len() - 1
                }
            };
            calls.push(match (call.function.fun().name(), Linear::of(call, &types)) {
                (_, Some(linear)) => Call::Distinct(linear, set),
                ("min", None) => Call::End { set, last: false },
                ("max", None) => Call::End { set, last: true },
                (name, None) => Call::Anew { set, once: call.distinct || IDEMPOTENT.contains(&name) },
            });
        }
        let index = GroupIndex::new(&key_fields(spec))?;
        Ok(Self {
            id,
            append_only,
            always: index.encode(spec.always.columns(), spec.always.num_rows())?,
            index,
            groups: Vec::new(),
            calls,
            sets,
            gathered: Vec::new(),
            changed: Vec::new(),
            touched: spec.ttl.map(Touched::new),
            rows: if updating && spec.ttl.is_some() { Some(Multiset::new(row_fields(spec))?) } else { None },
            dropped: 0,
            spec: spec.clone(),
        })
    }

    fn grow(&mut self) {
        let slots = self.index.slots();
        self.groups.resize(slots, Group::default());
        self.sets.iter_mut().for_each(|(_, set)| set.grow(slots));
        self.rows.iter_mut().for_each(|set| set.grow(slots));
        for call in &mut self.calls {
            if let Call::Linear(linear, _) | Call::Distinct(linear, _) = call {
                linear.grow(slots);
            }
        }
    }

    fn absent(&self, slot: u32) -> DataflowError {
        let key = self.index.show(slot);
        DataflowError::Corrupt(format!(
            "operator {} (aggregate): group {key} loses a row that it does not have",
            self.id
        ))
    }

    fn results(&mut self, slots: &[u32]) -> DfResult<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(self.calls.len());
        for (at, call) in self.calls.iter_mut().enumerate() {
            columns.push(match call {
                Call::Linear(linear, _) | Call::Distinct(linear, _) => linear.results(slots)?,
                Call::End { set, last } => self.sets[*set].1.ends(slots, *last)?.swap_remove(0),
                Call::Anew { set, once } => {
                    let (input, values) = &self.sets[*set];
                    let (groups, mut arguments) = values.values(slots, *once)?;
                    // Functions take what they order by behind their arguments.
                    arguments.rotate_left(input.order.len());
                    let mut anew = Accumulators::new(std::iter::once(&self.spec.calls[at]))?;
                    // With a filter: a group may have no values.
                    let all = BooleanArray::from(vec![true; groups.len()]);
                    anew.update(0, &arguments, &groups, Some(&all), slots.len())?;
                    let one = anew.take_results(slots.len())?.pop();
                    one.ok_or_else(|| DataFusionError::Internal("an aggregate without a result".to_owned()))?
                }
            });
        }
        Ok(columns)
    }

    /// Adds the rows of one batch to sums, and notes them for the multisets.
    fn add(&mut self, slots: &[u32], batch: &DeltaBatch) -> DfResult<()> {
        let weights = batch.weights.as_ref().map(|w| &w.values()[..]);
        let weight = |row: usize| weights.map_or(1, |w| w[row]);
        let columns = batch.rows.columns();
        let arguments = |input: &CallInput| input.arguments.iter().map(|c| columns[*c].clone()).collect::<Vec<_>>();
        let ordered = |input: &CallInput| {
            let order = input.order.iter().map(|(c, _)| columns[*c].clone());
            order.chain(arguments(input)).collect::<Vec<_>>()
        };
        let filter =
            |input: &CallInput| -> Option<BooleanArray> { input.filter.map(|c| columns[c].as_boolean().clone()) };
        for (row, slot) in slots.iter().enumerate() {
            self.groups[*slot as usize].rows += weight(row);
        }
        for call in &mut self.calls {
            if let Call::Linear(linear, input) = call {
                linear.add(slots, &arguments(input), filter(input).as_ref(), weight);
            }
        }
        for (input, set) in &mut self.sets {
            set.collect(slots, &ordered(input), filter(input).as_ref(), weight)?;
        }
        Ok(())
    }

    /// Applies what the multisets have noted.
    fn settle(&mut self) -> Result<(), DataflowError> {
        for set in 0..self.sets.len() {
            let transitions = match self.sets[set].1.apply() {
                Ok(transitions) => transitions,
                Err(slot) => return Err(self.absent(slot)),
            };
            let feeds = |call: &Call| matches!(call, Call::Distinct(_, of) if *of == set);
            if transitions.slots.is_empty() || !self.calls.iter().any(feeds) {
                continue;
            }
            let columns = self.sets[set].1.columns(&transitions)?;
            for call in &mut self.calls {
                if let Call::Distinct(linear, of) = call
                    && *of == set
                {
                    linear.add(&transitions.slots, &columns, None, |row| transitions.weights[row]);
                }
            }
        }
        Ok(())
    }

    fn emit(&mut self, now_ms: i64, out: &mut Vec<DeltaBatch>) -> Result<(), DataflowError> {
        let gathered = std::mem::take(&mut self.gathered);
        let keys = self.spec.keys.len();
        let error = failed(self.id, "aggregate");
        let mut touched: Vec<u32> = Vec::new();
        let mut slots = Vec::with_capacity(gathered.len());
        for batch in &gathered {
            let of_batch = self.index.intern(&batch.rows.columns()[..keys], batch.num_rows()).map_err(&error)?;
            self.grow();
            for slot in &of_batch {
                let group = &mut self.groups[*slot as usize];
                if !std::mem::replace(&mut group.touched, true) {
                    touched.push(*slot);
                }
            }
            slots.push(of_batch);
        }
        if touched.is_empty() {
            return Ok(());
        }
        let row = |(at, there): (usize, bool)| there.then_some(at as u32);
        let there = |groups: &[Group]| touched.iter().map(|s| groups[*s as usize].there).enumerate().map(row).collect();
        let old = Results { rows: there(&self.groups), columns: self.results(&touched).map_err(&error)? };
        if self.rows.is_some() {
            let (slots, batch) = self.living(&gathered, &slots).map_err(&error)?;
            self.add(&slots, &batch).map_err(&error)?;
        } else {
            for (batch, slots) in gathered.iter().zip(&slots) {
                self.add(slots, batch).map_err(&error)?;
            }
        }
        self.settle()?;
        // Also brings sums into the form in which nothing is zero.
        let results = self.results(&touched).map_err(&error)?;
        for slot in &touched {
            let group = &mut self.groups[*slot as usize];
            group.touched = false;
            group.there = group.rows > 0 || self.always.iter().any(|k| **k == *self.index.key(*slot));
            if group.rows < 0 || group.rows == 0 && !self.is_zero(*slot) {
                return Err(self.absent(*slot));
            }
        }
        let new = Results { rows: there(&self.groups), columns: results };
        let columns = self.index.columns(&touched).map_err(&error)?;
        if let Some(times) = &mut self.touched {
            let always = |slot: &u32| self.always.iter().any(|k| **k == *self.index.key(*slot));
            let mortal = touched.iter().filter(|slot| !always(slot));
            mortal.for_each(|slot| times.touch(*slot, now_ms));
        }
        self.changed.extend(touched);
        changes(&self.spec.output, self.append_only, &columns, &old, &new, out).map_err(error)
    }

    /// The epoch's rows without retractions of rows that are not there.
    fn living(&mut self, gathered: &[DeltaBatch], slots: &[Vec<u32>]) -> DfResult<(Vec<u32>, DeltaBatch)> {
        let keys = self.spec.keys.len();
        let Some(rows) = &mut self.rows else { return Err(DataFusionError::Internal("no rows are kept".to_owned())) };
        for (batch, slots) in gathered.iter().zip(slots) {
            let weights = batch.weights.as_ref().map(|w| &w.values()[..]);
            let mut columns = batch.rows.columns()[keys..].to_vec();
            if columns.is_empty() {
                columns.push(new_null_array(&DataType::Null, batch.num_rows()));
            }
            rows.collect(slots, &columns, None, |row| weights.map_or(1, |w| w[row]))?;
        }
        let (living, dropped) = rows.apply_living();
        self.dropped += dropped;
        let count = living.slots.len();
        let fields = &self.spec.transfer.fields()[..keys];
        let mut columns: Vec<ArrayRef> = fields.iter().map(|f| new_null_array(f.data_type(), count)).collect();
        columns.extend(rows.columns(&living)?.into_iter().take(self.spec.transfer.fields().len() - keys));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(self.spec.transfer.clone(), columns, &options)?;
        Ok((living.slots, DeltaBatch { rows: batch, weights: Some(Int64Array::from(living.weights)) }))
    }

    /// Forgets groups that have lapsed, in the order of their keys.
    fn lapse(&mut self, now_ms: i64, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let Some(touched) = &mut self.touched else { return Ok(()) };
        let retracts = touched.retracts();
        let mut lapsed = touched.lapse(now_ms);
        // Groups that have lost all rows are gone already.
        lapsed.retain(|slot| self.groups[*slot as usize].there);
        if lapsed.is_empty() {
            return Ok(());
        }
        lapsed.sort_unstable_by(|a, b| self.index.key(*a).cmp(self.index.key(*b)));
        if retracts {
            let (keys, results) = (self.index.columns(&lapsed)?, self.results(&lapsed)?);
            gone(&self.spec.output, &keys, results, lapsed.len(), out)?;
        }
        for slot in &lapsed {
            let group = &mut self.groups[*slot as usize];
            (group.rows, group.there) = (0, false);
            self.sets.iter_mut().for_each(|(_, set)| set.clear(*slot));
            self.rows.iter_mut().for_each(|set| set.clear(*slot));
            for call in &mut self.calls {
                if let Call::Linear(linear, _) | Call::Distinct(linear, _) = call {
                    linear.clear(*slot);
                }
            }
        }
        self.changed.extend(lapsed);
        Ok(())
    }

    fn is_zero(&self, slot: u32) -> bool {
        self.sets.iter().all(|(_, set)| set.is_empty(slot))
            && self.calls.iter().all(|call| match call {
                Call::Linear(linear, _) | Call::Distinct(linear, _) => linear.is_zero(slot),
                Call::End { .. } | Call::Anew { .. } => true,
            })
    }

    fn entry(&self, slot: u32) -> Vec<u8> {
        let mut value = self.groups[slot as usize].rows.to_le_bytes().to_vec();
        for call in &self.calls {
            if let Call::Linear(linear, _) | Call::Distinct(linear, _) = call {
                linear.save(slot, &mut value);
            }
        }
        value.extend(self.touched.iter().flat_map(|t| t.time(slot).to_le_bytes()));
        value
    }

    fn load(&mut self, slot: u32, mut value: &[u8]) -> Option<()> {
        let group = &mut self.groups[slot as usize];
        *group = Group { rows: take_i64(&mut value)?, there: true, stored: true, touched: false };
        for call in &mut self.calls {
            if let Call::Linear(linear, _) | Call::Distinct(linear, _) = call {
                linear.load(slot, &mut value)?;
            }
        }
        if let Some(touched) = &mut self.touched {
            match take_i64(&mut value)? {
                NEVER => {}
                time => touched.touch(slot, time),
            }
        }
        value.is_empty().then_some(())
    }
}

impl Operator for Retracting {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        self.gathered.push(batch);
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit(cx.plan.now_ms, out)?;
        self.lapse(cx.plan.now_ms, out).map_err(failed(self.id, "aggregate"))?;
        Ok(Step::Done)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let mut sealed = Vec::new();
        let sets = self.sets.iter_mut().map(|(_, set)| set).chain(&mut self.rows);
        for (number, set) in sets.enumerate() {
            for (slot, value, weight) in set.take_changed() {
                let mut key = value_key(number as u16, self.index.key(slot), &value);
                key[0] = VALUE;
                let value = (weight != 0).then(|| weight.to_le_bytes().to_vec());
                sealed.push(StateChange { key, value });
            }
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for slot in changed {
            let key = [&[GROUP], self.index.key(slot)].concat();
            let Group { there, stored, .. } = self.groups[slot as usize];
            if there || stored {
                sealed.push(StateChange { key, value: there.then(|| self.entry(slot)) });
            }
            self.groups[slot as usize].stored = there;
            if !there {
                self.touched.iter_mut().for_each(|t| t.forget(slot));
                self.index.release(slot);
            }
        }
        sealed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(sealed)
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let corrupt = || DataflowError::Corrupt(format!("operator {}: a damaged state entry", self.id));
        match key.split_first() {
            Some((&GROUP, group)) => {
                let slot = self.index.intern_key(group);
                self.grow();
                let id = self.id;
                let corrupt = || DataflowError::Corrupt(format!("operator {id}: a damaged state entry"));
                self.load(slot, value).ok_or_else(corrupt)
            }
            Some((&VALUE, _)) => {
                let (set, group, seen) = parse_value_key(key).ok_or_else(corrupt)?;
                let weight = i64::from_le_bytes(value.try_into().map_err(|_| corrupt())?);
                let slot = self.index.intern_key(group);
                self.grow();
                let mut sets = self.sets.iter_mut().map(|(_, set)| set).chain(&mut self.rows);
                let set = sets.nth(usize::from(set));
                set.ok_or_else(|| DataflowError::Corrupt(format!("operator {}: a state entry of no set", self.id)))?
                    .restore(slot, seen, weight);
                Ok(())
            }
            _ => Err(corrupt()),
        }
    }

    fn report(&self) -> StateReport {
        let linear = |call: &Call| match call {
            Call::Linear(linear, _) | Call::Distinct(linear, _) => linear.bytes(),
            Call::End { .. } | Call::Anew { .. } => 0,
        };
        let values: usize = self.sets.iter().map(|(_, s)| s.len()).sum();
        let bytes = self.index.bytes()
            + self.groups.capacity() * size_of::<Group>()
            + self.calls.iter().map(linear).sum::<usize>()
            + self.sets.iter().map(|(_, s)| s).chain(&self.rows).map(Multiset::bytes).sum::<usize>()
            + self.touched.as_ref().map_or(0, Touched::bytes);
        StateReport { keys: (self.index.len() + values) as u64, bytes: bytes as u64, next_timer: None }
    }

    fn next_wake(&self) -> Option<i64> {
        self.touched.as_ref().and_then(Touched::next_wake)
    }

    fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Of what a row is for the calls, without its key; a row without anything is a null.
fn row_fields(spec: &GroupAggregate) -> Vec<SortField> {
    let fields = &spec.transfer.fields()[spec.keys.len()..];
    match fields.is_empty() {
        true => vec![SortField::new(DataType::Null)],
        false => fields.iter().map(|f| SortField::new(f.data_type().clone())).collect(),
    }
}

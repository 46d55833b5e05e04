//! Second half over append-only input: partial states only grow.
//!
//! **State.** Per group the partial state of every call, as bytes of Arrow's row format; per value of a DISTINCT call an entry of its own
//! (see [`distinct`](super::distinct)), and the call itself is kept like one without DISTINCT that is fed each value once. An epoch
//! fetches the states of the groups that it touched together, merges, and puts the changed ones back.
//!
//! Under `state.ttl` a group that no row touches lapses (see [`ttl`](super::super::ttl)). DISTINCT calls are not kept here then.
//!
//! **Entries.** `g` key → state, and under `state.ttl` the time at which the group was touched; `d` set, length of the key, key, value → calls for which the value has counted (a bit each).
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{UInt8Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::error::{DataFusionError, Result as DfResult};
use millstream_plan::OperatorId;

use super::super::groups::state_fields;
use super::super::ttl::{NEVER, Touched};
use super::super::{EpochContext, Operator, StateChange, StateReport, Step, failed};
use super::changes::{Results, changes, gone};
use super::distinct::DistinctSet;
use super::index::GroupIndex;
use super::table::{Accumulators, EpochTable};
use super::{SetLayout, empty_set, key_fields, sets_of};
use crate::graph::GroupAggregate;
use crate::{DataflowError, DeltaBatch};

const GROUP: u8 = b'g';
const VALUE: u8 = b'd';

pub(super) struct Growing {
    id: OperatorId,
    spec: Arc<GroupAggregate>,
    append_only: bool,
    index: GroupIndex,
    /// `None` if the calls have no state columns (DISTINCT rows).
    converter: Option<RowConverter>,
    /// By slot; `None`: the group has no row yet.
    states: Vec<Option<Box<[u8]>>>,
    state_bytes: usize,
    sets: Vec<(SetLayout, DistinctSet)>,
    /// Of the current epoch: groups, and the slot of each.
    table: EpochTable,
    slots: Vec<u32>,
    /// Slots that changed since the last seal, maybe several times.
    changed: Vec<u32>,
    touched: Option<Touched>,
    /// By slot, under `state.ttl`: the last checkpoint has an entry for it.
    stored: Vec<bool>,
}

impl Growing {
    pub fn new(id: OperatorId, spec: &Arc<GroupAggregate>, append_only: bool) -> DfResult<Self> {
        let mut sets = Vec::new();
        for layout in sets_of(spec) {
            let set = empty_set(spec, &layout)?;
            sets.push((layout, set));
        }
        let mut fields = Vec::new();
        for (i, call) in spec.calls.iter().enumerate() {
            fields.extend(state_fields(i, &call.function)?.iter().map(|f| SortField::new(f.data_type().clone())));
        }
        Ok(Self {
            id,
            append_only,
            index: GroupIndex::new(&key_fields(spec))?,
            converter: if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) },
            states: Vec::new(),
            state_bytes: 0,
            sets,
            table: EpochTable::new(spec)?,
            slots: Vec::new(),
            changed: Vec::new(),
            touched: spec.ttl.map(Touched::new),
            stored: Vec::new(),
            spec: spec.clone(),
        })
    }

    /// Finds the group of each row, in the epoch and in the state.
    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> DfResult<()> {
        let first = self.table.intern(keys, rows)?;
        if !first.is_empty() {
            let at = UInt32Array::from(first);
            let new = keys.iter().map(|k| take(k, &at, None)).collect::<Result<Vec<_>, _>>()?;
            self.slots.extend(self.index.intern(&new, at.len())?);
            self.states.resize(self.index.slots(), None);
        }
        Ok(())
    }

    fn add(&mut self, rows: &RecordBatch) -> DfResult<()> {
        let Some((first, _)) = self.sets.first() else { return self.merge(rows) };
        let column = rows.column(first.column - 1).clone();
        let sets = column
            .as_primitive_opt::<UInt8Type>()
            .ok_or_else(|| DataFusionError::Internal("a transfer without its sets".to_owned()))?;
        let of = |row: usize| sets.is_valid(row).then(|| sets.value(row));
        let mut from = 0;
        for to in (1..rows.num_rows()).filter(|i| of(*i) != of(i - 1)).chain([rows.num_rows()]) {
            let part = rows.slice(from, to - from);
            match of(from) {
                None => self.merge(&part)?,
                Some(set) => self.see(usize::from(set), &part)?,
            }
            from = to;
        }
        Ok(())
    }

    /// Merges rows with partial states.
    fn merge(&mut self, rows: &RecordBatch) -> DfResult<()> {
        let (keys, rest) = rows.columns().split_at(self.spec.keys.len());
        self.intern(keys, rows.num_rows())?;
        let groups = self.table.len();
        let calls = &self.spec.calls;
        let EpochTable { accumulators, indices, .. } = &mut self.table;
        accumulators.merge(rest, |at| !calls[at].distinct, indices, groups)
    }

    /// Takes rows with values of a set: those that are new feed the calls.
    fn see(&mut self, set: usize, rows: &RecordBatch) -> DfResult<()> {
        let columns = rows.columns();
        self.intern(&columns[..self.spec.keys.len()], rows.num_rows())?;
        let groups = self.table.len();
        let Some((layout, values)) = self.sets.get_mut(set) else {
            return Err(DataFusionError::Internal(format!("a value of set {set}, which is not there")));
        };
        let arguments = &columns[layout.column..layout.column + layout.arguments.len()];
        let masks = columns[columns.len() - 1].as_primitive::<UInt64Type>().values();
        let EpochTable { accumulators, indices, .. } = &mut self.table;
        let slots = indices.iter().map(|g| self.slots[*g]);
        let fresh = values.add(arguments, slots, masks.iter().copied())?;
        for (bit, call) in layout.calls.iter().enumerate() {
            let new: BooleanArray = fresh.iter().map(|f| Some(f & (1 << bit) != 0)).collect();
            if new.true_count() > 0 {
                accumulators.update(*call, arguments, indices, Some(&new), groups)?;
            }
        }
        Ok(())
    }

    fn emit(&mut self, now_ms: i64, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let groups = self.table.len();
        if groups == 0 {
            return Ok(());
        }
        let slots = std::mem::take(&mut self.slots);
        if let Some(touched) = self.touched.as_mut().filter(|_| !self.spec.keys.is_empty()) {
            slots.iter().for_each(|slot| touched.touch(*slot, now_ms));
            self.changed.extend(&slots);
        }
        let (keys, added) = self.table.take(|_| true)?;
        // Groups that were there before the epoch.
        let known: Vec<usize> = (0..groups).filter(|g| self.states[slots[*g] as usize].is_some()).collect();
        let mut old_rows = vec![None; groups];
        known.iter().enumerate().for_each(|(row, group)| old_rows[*group] = Some(row as u32));
        let Some(converter) = &self.converter else {
            for (_, slot) in slots.iter().enumerate().filter(|(group, _)| old_rows[*group].is_none()) {
                self.states[*slot as usize] = Some(Box::default());
                self.changed.push(*slot);
            }
            let old = Results { columns: Vec::new(), rows: old_rows };
            let new = Results { columns: Vec::new(), rows: (0..groups).map(|g| Some(g as u32)).collect() };
            return changes(&self.spec.output, self.append_only, &keys, &old, &new, out);
        };
        let all: Vec<usize> = (0..groups).collect();
        let mut before = Accumulators::new(self.spec.calls.iter())?;
        let states = if known.is_empty() {
            added
        } else {
            let parser = converter.parser();
            let bytes = known.iter().filter_map(|g| self.states[slots[*g] as usize].as_deref());
            let stored = converter.convert_rows(bytes.map(|b| parser.parse(b)))?;
            before.merge(&stored, |_| true, &all[..known.len()], known.len())?;
            let pairs = stored.iter().zip(&added);
            let both = pairs.map(|(s, a)| concat(&[s.as_ref(), a.as_ref()])).collect::<Result<Vec<_>, _>>()?;
            let mut merged = Accumulators::new(self.spec.calls.iter())?;
            merged.merge(&both, |_| true, &[&known[..], &all[..]].concat(), groups)?;
            merged.take_states(groups, |_| true)?
        };
        for (row, slot) in converter.convert_columns(&states)?.iter().zip(&slots) {
            let state = &mut self.states[*slot as usize];
            if state.as_deref() != Some(row.data()) {
                self.state_bytes += row.data().len();
                self.state_bytes -= state.as_ref().map_or(0, |s| s.len());
                *state = Some(row.data().into());
                self.changed.push(*slot);
            }
        }
        let mut after = Accumulators::new(self.spec.calls.iter())?;
        after.merge(&states, |_| true, &all, groups)?;
        let old = Results { columns: before.take_results(known.len())?, rows: old_rows };
        let new = Results { columns: after.take_results(groups)?, rows: (0..groups).map(|g| Some(g as u32)).collect() };
        changes(&self.spec.output, self.append_only, &keys, &old, &new, out)
    }
}

impl Growing {
    /// Forgets groups that have lapsed, in the order of their keys.
    fn lapse(&mut self, now_ms: i64, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let Some(touched) = &mut self.touched else { return Ok(()) };
        let retracts = touched.retracts();
        let mut lapsed = touched.lapse(now_ms);
        if lapsed.is_empty() {
            return Ok(());
        }
        lapsed.sort_unstable_by(|a, b| self.index.key(*a).cmp(self.index.key(*b)));
        let states: Vec<Box<[u8]>> = lapsed.iter().filter_map(|s| self.states[*s as usize].take()).collect();
        self.state_bytes -= states.iter().map(|s| s.len()).sum::<usize>();
        self.changed.extend(&lapsed);
        if !retracts {
            return Ok(());
        }
        let keys = self.index.columns(&lapsed)?;
        let results = match &self.converter {
            None => Vec::new(),
            Some(converter) => {
                let parser = converter.parser();
                let stored = converter.convert_rows(states.iter().map(|s| parser.parse(s)))?;
                let mut before = Accumulators::new(self.spec.calls.iter())?;
                let all: Vec<usize> = (0..states.len()).collect();
                before.merge(&stored, |_| true, &all, states.len())?;
                before.take_results(states.len())?
            }
        };
        gone(&self.spec.output, &keys, results, lapsed.len(), out)
    }
}

impl Operator for Growing {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        if batch.num_rows() > 0 {
            self.add(&batch.rows).map_err(failed(self.id, "aggregate"))?;
        }
        Ok(Step::Done)
    }

    fn end_epoch(&mut self, cx: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let error = failed(self.id, "aggregate");
        self.emit(cx.plan.now_ms, out).map_err(&error)?;
        self.lapse(cx.plan.now_ms, out).map_err(error)?;
        Ok(Step::Done)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        let mut sealed = Vec::new();
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        self.stored.resize(self.index.slots(), false);
        for slot in changed {
            let state = self.states[slot as usize].as_ref();
            let there = state.is_some();
            let value = state.map(|state| match &self.touched {
                Some(touched) => [&**state, &touched.time(slot).to_le_bytes()].concat(),
                None => state.to_vec(),
            });
            if value.is_some() || self.stored[slot as usize] {
                sealed.push(StateChange { key: [&[GROUP], self.index.key(slot)].concat(), value });
            }
            self.stored[slot as usize] = there;
            if !there {
                self.index.release(slot);
            }
        }
        for (number, (_, set)) in self.sets.iter_mut().enumerate() {
            for (slot, value, calls) in set.take_changed() {
                let key = value_key(number as u16, self.index.key(slot), value);
                sealed.push(StateChange { key, value: Some(calls.to_be_bytes().to_vec()) });
            }
        }
        sealed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(sealed)
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        let corrupt = || DataflowError::Corrupt(format!("operator {}: a damaged state entry", self.id));
        match key.split_first().ok_or_else(corrupt)? {
            (&GROUP, key) => {
                let slot = self.index.intern_key(key);
                self.states.resize(self.index.slots(), None);
                self.stored.resize(self.index.slots(), false);
                self.stored[slot as usize] = true;
                let state = match &mut self.touched {
                    None => value,
                    Some(touched) => {
                        let (state, time) = value.split_last_chunk().ok_or_else(corrupt)?;
                        match i64::from_le_bytes(*time) {
                            NEVER => {}
                            time => touched.touch(slot, time),
                        }
                        state
                    }
                };
                self.state_bytes += state.len();
                self.states[slot as usize] = Some(state.into());
            }
            (&VALUE, _) => {
                let (set, group, seen) = parse_value_key(key).ok_or_else(corrupt)?;
                let slot = self.index.intern_key(group);
                self.states.resize(self.index.slots(), None);
                let calls = u64::from_be_bytes(value.try_into().map_err(|_| corrupt())?);
                self.sets.get_mut(usize::from(set)).ok_or_else(corrupt)?.1.restore(slot, seen, calls);
            }
            _ => return Err(corrupt()),
        }
        Ok(())
    }

    fn report(&self) -> StateReport {
        let values: usize = self.sets.iter().map(|(_, s)| s.len()).sum();
        let sets: usize = self.sets.iter().map(|(_, s)| s.bytes()).sum();
        let states = self.state_bytes + self.states.capacity() * size_of::<Option<Box<[u8]>>>();
        let times = self.touched.as_ref().map_or(0, Touched::bytes);
        StateReport {
            keys: (self.index.len() + values) as u64,
            bytes: (self.index.bytes() + states + sets + times) as u64,
            next_timer: None,
        }
    }

    fn next_wake(&self) -> Option<i64> {
        self.touched.as_ref().and_then(Touched::next_wake)
    }
}

/// `d`, number of the set, length of the key, key, value.
pub(super) fn value_key(set: u16, group: &[u8], value: &[u8]) -> Vec<u8> {
    [&[VALUE], &set.to_be_bytes()[..], &(group.len() as u32).to_be_bytes(), group, value].concat()
}

/// Set, key and value of [`value_key`].
pub(super) fn parse_value_key(key: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let set = u16::from_be_bytes(key.get(1..3)?.try_into().ok()?);
    let length = u32::from_be_bytes(key.get(3..7)?.try_into().ok()?) as usize;
    let rest = key.get(7..)?;
    Some((set, rest.get(..length)?, rest.get(length..)?))
}

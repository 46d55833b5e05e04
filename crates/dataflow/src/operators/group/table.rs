//! The groups of one epoch with their accumulators.
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, new_empty_array};
use arrow::datatypes::{DataType, Float64Type, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::super::groups::{accumulator, state_fields};
use super::key_fields;
use crate::graph::{GroupAggregate, GroupCall};

/// Accumulators of some calls, for groups that the caller numbers.
///
/// DataFusion's accumulators hold that every group has a row in the batch that first counts it, unless the batch has a filter: otherwise a group
/// without values has the sum 0 instead of null.
pub(super) struct Accumulators {
    all: Vec<Box<dyn GroupsAccumulator>>,
    /// Types of the state columns of each.
    states: Vec<Vec<DataType>>,
    /// Types of the results.
    results: Vec<DataType>,
    /// How many groups each knows.
    known: Vec<usize>,
}

impl Accumulators {
    pub fn new<'a>(calls: impl Iterator<Item = &'a GroupCall>) -> Result<Self> {
        let (mut all, mut states, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for (i, call) in calls.enumerate() {
            all.push(accumulator(&call.function)?);
            states.push(state_fields(i, &call.function)?.iter().map(|f| f.data_type().clone()).collect());
            results.push(call.function.field().data_type().clone());
        }
        Ok(Self { known: vec![0; all.len()], all, states, results })
    }

    pub fn update(
        &mut self,
        at: usize,
        arguments: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.known[at] = total;
        self.all[at].update_batch(arguments, groups, filter, total)
    }

    /// Merges the states of the calls for which `wanted`; `columns` holds only theirs. Every new group has a row.
    pub fn merge(
        &mut self,
        columns: &[ArrayRef],
        wanted: impl Fn(usize) -> bool,
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        let mut rest = columns;
        for (at, accumulator) in self.all.iter_mut().enumerate().filter(|(at, _)| wanted(*at)) {
            let (own, others) = rest.split_at(self.states[at].len());
            accumulator.merge_batch(own, groups, None, total)?;
            self.known[at] = total;
            rest = others;
        }
        Ok(())
    }

    /// Makes every accumulator know all groups, before they are taken out.
    fn settle(&mut self, total: usize) -> Result<()> {
        let filter = BooleanArray::from(Vec::<bool>::new());
        for (at, accumulator) in self.all.iter_mut().enumerate() {
            if std::mem::take(&mut self.known[at]) < total {
                let none: Vec<ArrayRef> = self.states[at].iter().map(new_empty_array).collect();
                accumulator.merge_batch(&none, &[], Some(&filter), total)?;
            }
        }
        Ok(())
    }

    /// Takes the states of all `total` groups out, of the calls for which `wanted`.
    pub fn take_states(&mut self, total: usize, wanted: impl Fn(usize) -> bool) -> Result<Vec<ArrayRef>> {
        self.settle(total)?;
        let mut columns = Vec::new();
        for (at, accumulator) in self.all.iter_mut().enumerate().filter(|(at, _)| wanted(*at)) {
            for (state, wanted) in accumulator.state(EmitTo::All)?.into_iter().zip(&self.states[at]) {
                let fits = state.data_type() == wanted;
                columns.push(one_nan(if fits { state } else { arrow::compute::cast(&state, wanted)? }));
            }
        }
        Ok(columns)
    }

    /// Takes the results of all `total` groups out.
    pub fn take_results(&mut self, total: usize) -> Result<Vec<ArrayRef>> {
        if total == 0 {
            return Ok(self.results.iter().map(new_empty_array).collect());
        }
        self.settle(total)?;
        self.all.iter_mut().map(|a| Ok(one_nan(a.evaluate(EmitTo::All)?))).collect()
    }
}

/// Makes all NaNs the same: which of several an addition gives depends on the order of additions and on the CPU.
fn one_nan(array: ArrayRef) -> ArrayRef {
    match array.as_primitive_opt::<Float64Type>() {
        Some(floats) if floats.values().iter().any(|v| v.is_nan()) => {
            Arc::new(floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }))
        }
        _ => array,
    }
}

/// Groups of one epoch, numbered in order of first appearance.
pub(super) struct EpochTable {
    /// `None` if there are no key columns: then there is one group.
    keys: Option<Box<dyn GroupValues>>,
    pub accumulators: Accumulators,
    groups: usize,
    /// Group of each row of the batch at hand.
    pub indices: Vec<usize>,
}

impl EpochTable {
    pub fn new(spec: &GroupAggregate) -> Result<Self> {
        let keys = match spec.keys.len() {
            0 => None,
            _ => Some(new_group_values(Arc::new(Schema::new(key_fields(spec))), &GroupOrdering::None)?),
        };
        Ok(Self { keys, accumulators: Accumulators::new(spec.calls.iter())?, groups: 0, indices: Vec::new() })
    }

    pub fn len(&self) -> usize {
        self.groups
    }

    /// Finds the group of each row. Returns the rows that are the first of a new group.
    pub fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let before = self.groups;
        self.indices.clear();
        match &mut self.keys {
            Some(table) => {
                table.intern(keys, &mut self.indices)?;
                self.groups = table.len();
            }
            None => {
                self.indices.resize(rows, 0);
                self.groups = usize::from(rows > 0 || self.groups > 0);
            }
        }
        let mut next = before;
        let mut first = Vec::with_capacity(self.groups - before);
        if self.groups > before {
            for (row, group) in self.indices.iter().enumerate() {
                if *group == next {
                    first.push(row as u32);
                    next += 1;
                }
            }
        }
        Ok(first)
    }

    /// Takes all groups out as key columns and states of the calls for which `wanted`. The table is empty afterwards.
    pub fn take(&mut self, wanted: impl Fn(usize) -> bool) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let groups = std::mem::take(&mut self.groups);
        let keys = match &mut self.keys {
            Some(keys) => {
                let taken = keys.emit(EmitTo::All)?;
                // A table of several key columns would find the groups again that have just left.
                keys.clear_shrink(groups);
                taken
            }
            None => Vec::new(),
        };
        Ok((keys, self.accumulators.take_states(groups, wanted)?))
    }
}

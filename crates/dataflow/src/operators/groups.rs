//! A table of groups with their accumulators: the vectorised heart of every aggregation.
//!
//! Groups are numbered in order of first appearance, so the order in which they are emitted is a function of the order of the input.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{sort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use crate::graph::WindowAggregate;

/// What every table of one aggregation shares.
pub(super) struct Aggregation {
    pub spec: Arc<WindowAggregate>,
    /// Key columns.
    keys: SchemaRef,
    /// Number of state columns of each aggregate.
    states: Vec<usize>,
    /// Keys, `pane_start`, `pane_end`, states: what goes from the partial to the final half.
    pub partial: SchemaRef,
    /// Keys, states: how parts of a pane are kept.
    pub part: SchemaRef,
}

/// Schema of what a partial aggregation emits: key columns, `pane_start`, `pane_end` (milliseconds), state columns.
///
/// # Errors
/// An aggregate whose state has no schema.
pub fn partial_schema(spec: &WindowAggregate, input: &Schema) -> Result<SchemaRef> {
    let keys = spec.keys.iter().map(|k| Ok(Field::new(&k.name, k.expr.data_type(input)?, true)));
    let mut fields = keys.collect::<Result<Vec<_>>>()?;
    fields.extend(["pane_start", "pane_end"].map(|name| Field::new(name, DataType::Int64, false)));
    fields.extend(all_state_fields(spec)?.into_iter().flatten());
    Ok(Arc::new(Schema::new(fields)))
}

fn all_state_fields(spec: &WindowAggregate) -> Result<Vec<Vec<Field>>> {
    spec.aggregates.iter().enumerate().map(|(i, a)| state_fields(i, &a.function)).collect()
}

/// Columns of the state of an aggregation's call number `i`.
pub(super) fn state_fields(i: usize, function: &AggregateFunctionExpr) -> Result<Vec<Field>> {
    let named = |f: &FieldRef| f.as_ref().clone().with_name(format!("{i}.{}", f.name())).with_nullable(true);
    Ok(function.state_fields()?.iter().map(named).collect())
}

impl Aggregation {
    pub fn new(spec: &Arc<WindowAggregate>) -> Result<Self> {
        let keys = spec.keys.len();
        // The output's first columns are the keys: their types are settled there.
        let key_fields: Vec<Field> =
            spec.output.fields()[..keys].iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let states = all_state_fields(spec)?;
        let mut part = key_fields.clone();
        part.extend(states.iter().flatten().cloned());
        let mut partial = key_fields.clone();
        partial.extend(["pane_start", "pane_end"].map(|name| Field::new(name, DataType::Int64, false)));
        partial.extend(states.iter().flatten().cloned());
        Ok(Self {
            spec: spec.clone(),
            keys: Arc::new(Schema::new(Fields::from(key_fields))),
            states: states.iter().map(Vec::len).collect(),
            partial: Arc::new(Schema::new(partial)),
            part: Arc::new(Schema::new(part)),
        })
    }

    pub fn key_count(&self) -> usize {
        self.keys.fields().len()
    }

    /// Evaluates keys, arguments and filters over input rows.
    pub fn arguments(&self, rows: &RecordBatch) -> Result<Arguments> {
        let array = |e: &Arc<dyn PhysicalExpr>| e.evaluate(rows)?.into_array(rows.num_rows());
        let keys = self.spec.keys.iter().map(|k| array(&k.expr)).collect::<Result<_>>()?;
        let mut arguments = Vec::with_capacity(self.spec.aggregates.len());
        let mut filters = Vec::with_capacity(self.spec.aggregates.len());
        for call in &self.spec.aggregates {
            let inputs = call.function.all_expressions();
            arguments.push(inputs.args.iter().chain(&inputs.order_by_exprs).map(array).collect::<Result<_>>()?);
            filters.push(match &call.filter {
                Some(f) => Some(array(f)?.as_boolean().clone()),
                None => None,
            });
        }
        Ok(Arguments { keys, arguments, filters, rows: rows.num_rows() })
    }
}

/// Evaluated input of an aggregation.
pub(super) struct Arguments {
    pub keys: Vec<ArrayRef>,
    arguments: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
    pub rows: usize,
}

impl Arguments {
    /// Rows `[at, at + rows)`, without copying.
    pub fn slice(&self, at: usize, rows: usize) -> Self {
        let cut = |arrays: &Vec<ArrayRef>| arrays.iter().map(|a| a.slice(at, rows)).collect::<Vec<_>>();
        Self {
            keys: cut(&self.keys),
            arguments: self.arguments.iter().map(cut).collect(),
            filters: self.filters.iter().map(|f| f.as_ref().map(|f| f.slice(at, rows))).collect(),
            rows,
        }
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &arrow::array::UInt32Array) -> Result<Self> {
        let pick = |arrays: &Vec<ArrayRef>| {
            arrays.iter().map(|a| Ok(arrow::compute::take(a, indices, None)?)).collect::<Result<Vec<_>>>()
        };
        let filters = self.filters.iter().map(|f| match f {
            Some(f) => Ok(Some(arrow::compute::take(f, indices, None)?.as_boolean().clone())),
            None => Ok(None),
        });
        Ok(Self {
            keys: pick(&self.keys)?,
            arguments: self.arguments.iter().map(pick).collect::<Result<_>>()?,
            filters: filters.collect::<Result<_>>()?,
            rows: indices.len(),
        })
    }
}

/// Groups and their accumulators.
pub(super) struct GroupTable {
    /// `None` if there are no key columns: then there is one group.
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Held>,
    groups: usize,
    /// Group of each row of the batch at hand.
    indices: Vec<usize>,
}

impl GroupTable {
    pub fn new(aggregation: &Aggregation) -> Result<Self> {
        let keys = match aggregation.key_count() {
            0 => None,
            _ => Some(new_group_values(aggregation.keys.clone(), &GroupOrdering::None)?),
        };
        Ok(Self { keys, accumulators: accumulators(aggregation)?, groups: 0, indices: Vec::new() })
    }

    pub fn len(&self) -> usize {
        self.groups
    }

    pub fn size(&self) -> usize {
        self.keys.as_ref().map_or(0, |k| k.size())
            + self.accumulators.iter().map(|h| h.accumulator.size()).sum::<usize>()
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<()> {
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
        Ok(())
    }

    /// Adds input rows.
    pub fn update(&mut self, input: &Arguments) -> Result<()> {
        self.intern(&input.keys, input.rows)?;
        for ((held, arguments), filter) in self.accumulators.iter_mut().zip(&input.arguments).zip(&input.filters) {
            held.accumulator.update_batch(arguments, &self.indices, filter.as_ref(), self.groups)?;
        }
        Ok(())
    }

    /// Adds partial states: `columns` are the key columns, then the state columns of every aggregate.
    pub fn merge(&mut self, aggregation: &Aggregation, columns: &[ArrayRef], rows: usize) -> Result<()> {
        let (keys, mut states) = columns.split_at(aggregation.key_count());
        self.intern(keys, rows)?;
        for (held, count) in self.accumulators.iter_mut().zip(&aggregation.states) {
            let (own, rest) = states.split_at(*count);
            held.accumulator.merge_batch(own, &self.indices, None, self.groups)?;
            states = rest;
        }
        Ok(())
    }

    /// Takes all groups out as key and state columns. The table is empty afterwards and may be used again.
    pub fn take_states(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = self.take_keys()?;
        states_of(&mut self.accumulators, &mut columns)?;
        Ok(columns)
    }

    /// Takes all groups out as (key columns, results).
    pub fn take_results(&mut self) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let keys = self.take_keys()?;
        let results =
            self.accumulators.iter_mut().map(|h| h.accumulator.evaluate(EmitTo::All)).collect::<Result<_>>()?;
        Ok((keys, results))
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        let groups = std::mem::take(&mut self.groups);
        match &mut self.keys {
            Some(keys) => {
                let taken = keys.emit(EmitTo::All)?;
                // A table of several key columns would find the groups again that have just left.
                keys.clear_shrink(groups);
                Ok(taken)
            }
            None => Ok(Vec::new()),
        }
    }
}

/// An accumulator, and whether lists in its state are sorted when it is taken out.
///
/// A set of distinct values comes out of a hash map with a random seed, so that the same groups would not always have the same bytes. Lists of an
/// ordered call are in its order already, and belong together.
struct Held {
    accumulator: Box<dyn GroupsAccumulator>,
    sorts: bool,
}

/// Takes the states of all accumulators.
fn states_of(accumulators: &mut [Held], columns: &mut Vec<ArrayRef>) -> Result<()> {
    for Held { accumulator, sorts } in accumulators {
        for state in accumulator.state(EmitTo::All)? {
            columns.push(match state.data_type() {
                DataType::List(_) if *sorts => sort_lists(state.as_list::<i32>())?,
                _ => state,
            });
        }
    }
    Ok(())
}

fn sort_lists(lists: &ListArray) -> Result<ArrayRef> {
    let mut order: Vec<u32> = Vec::with_capacity(lists.values().len());
    let mut lengths = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let (from, to) = match lists.is_valid(row) {
            true => (lists.value_offsets()[row], lists.value_offsets()[row + 1]),
            false => (0, 0),
        };
        let part = lists.values().slice(from as usize, (to - from) as usize);
        let sorted = sort_to_indices(&part, None, None)?;
        order.extend(sorted.values().iter().map(|i| i + from as u32));
        lengths.push((to - from) as usize);
    }
    let values = take(lists.values(), &UInt32Array::from(order), None)?;
    let field = match lists.data_type() {
        DataType::List(field) => field.clone(),
        other => return Err(DataFusionError::Internal(format!("{other} is not a list"))),
    };
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, lists.nulls().cloned())?))
}

/// Accumulators for groups that the caller numbers.
fn accumulators(aggregation: &Aggregation) -> Result<Vec<Held>> {
    let held = |function: &Arc<AggregateFunctionExpr>| {
        let sorts = function.order_bys().is_empty() || function.is_distinct();
        Ok(Held { accumulator: accumulator(function)?, sorts })
    };
    aggregation.spec.aggregates.iter().map(|call| held(&call.function)).collect()
}

/// The accumulator of one call.
pub(super) fn accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    // DataFusion's accumulator of groups for this one counts every value.
    let forgets_distinct = function.is_distinct() && function.fun().name() == "bit_xor";
    if function.groups_accumulator_supported() && !forgets_distinct {
        return function.create_groups_accumulator();
    }
    let function = function.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// Sessions number their groups themselves.
pub(super) struct NumberedGroups(Vec<Held>);

impl NumberedGroups {
    pub fn new(aggregation: &Aggregation) -> Result<Self> {
        Ok(Self(accumulators(aggregation)?))
    }

    pub fn update(&mut self, input: &Arguments, groups: &[usize], total: usize) -> Result<()> {
        for ((held, arguments), filter) in self.0.iter_mut().zip(&input.arguments).zip(&input.filters) {
            held.accumulator.update_batch(arguments, groups, filter.as_ref(), total)?;
        }
        Ok(())
    }

    pub fn merge(
        &mut self,
        aggregation: &Aggregation,
        mut states: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<()> {
        for (held, count) in self.0.iter_mut().zip(&aggregation.states) {
            let (own, rest) = states.split_at(*count);
            held.accumulator.merge_batch(own, groups, None, total)?;
            states = rest;
        }
        Ok(())
    }

    pub fn take_states(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        states_of(&mut self.0, &mut columns)?;
        Ok(columns)
    }

    pub fn take_results(&mut self) -> Result<Vec<ArrayRef>> {
        self.0.iter_mut().map(|h| h.accumulator.evaluate(EmitTo::All)).collect()
    }
}

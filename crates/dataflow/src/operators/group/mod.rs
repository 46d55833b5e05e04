//! Aggregation without a window: one row per group, changed whenever an epoch changed the group.
//!
//! Two halves, before and behind the shuffle, which share a [`GroupAggregate`] and its **transfer** schema:
//!
//! | input | first half | second half | state |
//! |---|---|---|---|
//! | append-only | [`partial`]: partial states of the epoch's groups, values of DISTINCT calls once | [`growing`] | per group the partial state of all calls; per value of a DISTINCT call an entry of its own |
//! | updating, or a call needs the values themselves (median, array_agg) | [`prepare`]: keys, arguments and filters of each row, with its weight | [`retracting`] | per group counts and sums ([`linear`]), or the multiset of arguments ([`multiset`]) |
//!
//! The rule of both (aggregation as an operator on weighted sets, DBSP, Budiu et al., VLDB 2023): for every group that the epoch touched, the
//! result before the epoch leaves with −1 and the result after it with +1, unless they are the same. So a group that
//! changed a thousand times costs one retraction and one insertion. Groups come in the order of their first appearance in the epoch.
//!
//! **Groups** are told apart by the bytes of Arrow's row format, which distinguishes what DataFusion's hash tables distinguish: nulls are equal,
//! NaN equals NaN of the same bits, −0.0 is not 0.0. A group without rows is gone, but the one group of an aggregation
//! without keys (or of the grouping set without keys) always has a row, also before any input: the first half sends it an empty change in
//! each epoch, so the task that owns it knows that it does.
mod changes;
mod distinct;
mod exact;
mod growing;
mod index;
mod linear;
mod multiset;
mod partial;
mod prepare;
mod retracting;
mod table;

pub(super) use index::GroupIndex;

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use millstream_plan::OperatorId;

use super::Operator;
use super::groups::state_fields;
use crate::DataflowError;
use crate::graph::{GroupAggregate, GroupCall, NamedExpr};

/// The half before the shuffle.
pub(super) fn first_half(id: OperatorId, spec: &Arc<GroupAggregate>) -> Result<Box<dyn Operator>, DataflowError> {
    if spec.retracts {
        return Ok(Box::new(prepare::Prepare::new(id, spec)));
    }
    let made = partial::PartialGroups::new(id, spec).map_err(super::failed(id, "partial aggregate"))?;
    Ok(Box::new(made))
}

/// The half behind the shuffle.
pub(super) fn second_half(
    id: OperatorId,
    spec: &Arc<GroupAggregate>,
    append_only: bool,
) -> Result<Box<dyn Operator>, DataflowError> {
    let error = super::failed(id, "aggregate");
    Ok(if spec.retracts {
        Box::new(retracting::Retracting::new(id, spec, (spec.updating, append_only)).map_err(error)?)
    } else {
        Box::new(growing::Growing::new(id, spec, append_only).map_err(error)?)
    })
}

/// Names of the columns that say which rows of a transfer are values of a DISTINCT call, and of which calls.
const SET: &str = "distinct_set";
const CALLS: &str = "distinct_calls";

/// DISTINCT calls with the same arguments share a set of values; a value knows for which of them it counts (their filters differ).
pub(super) struct SetLayout {
    pub arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// The first of them in the transfer.
    pub column: usize,
    /// Bit i of a value's calls stands for the i-th.
    pub calls: Vec<usize>,
}

/// The sets of an aggregation over append-only input. They are the last in its transfer, before the calls.
pub(super) fn sets_of(spec: &GroupAggregate) -> Vec<SetLayout> {
    let mut sets = shared_sets(&spec.calls);
    let mut end = spec.transfer.fields().len().saturating_sub(1);
    for set in sets.iter_mut().rev() {
        end -= set.arguments.len();
        set.column = end;
    }
    sets
}

fn shared_sets(calls: &[GroupCall]) -> Vec<SetLayout> {
    let mut sets: Vec<SetLayout> = Vec::new();
    for (at, call) in calls.iter().enumerate().filter(|(_, c)| c.distinct) {
        let arguments = call.function.expressions();
        let same = |s: &&mut SetLayout| s.calls.len() < 64 && same_exprs(&s.arguments, &arguments);
        match sets.iter_mut().find(same) {
            Some(set) => set.calls.push(at),
            None => sets.push(SetLayout { arguments, column: 0, calls: vec![at] }),
        }
    }
    sets
}

fn same_exprs(a: &[Arc<dyn PhysicalExpr>], b: &[Arc<dyn PhysicalExpr>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.as_ref() == b.as_ref())
}

/// Where the arguments, the order and the filter of a call are in the transfer of an aggregation that keeps rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CallInput {
    pub arguments: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    pub filter: Option<usize>,
}

/// Expressions behind the keys in the transfer of an aggregation that keeps rows, each once, and what each call takes of them.
pub(super) fn inputs_of(keys: usize, calls: &[GroupCall]) -> (Vec<Arc<dyn PhysicalExpr>>, Vec<CallInput>) {
    let mut exprs: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
    let mut place = |expr: &Arc<dyn PhysicalExpr>| {
        let at = exprs.iter().position(|e| e.as_ref() == expr.as_ref()).unwrap_or_else(|| {
            exprs.push(expr.clone());
            exprs.len() - 1
        });
        keys + at
    };
    let inputs = calls
        .iter()
        .map(|call| CallInput {
            arguments: call.function.expressions().iter().map(&mut place).collect(),
            order: call.function.order_bys().iter().map(|s| (place(&s.expr), s.options)).collect(),
            filter: call.filter.as_ref().map(&mut place),
        })
        .collect();
    (exprs, inputs)
}

/// What goes from the first half to the second. Append-only input: keys, states of the calls without DISTINCT, and if there are DISTINCT
/// calls `distinct_set` (null: the row holds states), the arguments of each set, `distinct_calls`. Where rows are kept: keys, then
/// arguments, orders and filters.
///
/// # Errors
/// An aggregate whose state has no schema.
pub fn group_transfer(keys: &[NamedExpr], calls: &[GroupCall], retracts: bool, input: &Schema) -> Result<SchemaRef> {
    let keyed = keys.iter().map(|k| Ok(Field::new(&k.name, k.expr.data_type(input)?, true)));
    let mut fields = keyed.collect::<Result<Vec<_>>>()?;
    if retracts {
        for (i, expr) in inputs_of(keys.len(), calls).0.iter().enumerate() {
            fields.push(Field::new(format!("input_{i}"), expr.data_type(input)?, true));
        }
        return Ok(Arc::new(Schema::new(fields)));
    }
    for (i, call) in calls.iter().enumerate().filter(|(_, c)| !c.distinct) {
        fields.extend(state_fields(i, &call.function)?);
    }
    let sets = shared_sets(calls);
    if !sets.is_empty() {
        fields.push(Field::new(SET, DataType::UInt8, true));
        for (i, set) in sets.iter().enumerate() {
            for (j, argument) in set.arguments.iter().enumerate() {
                fields.push(Field::new(format!("distinct_{i}_{j}"), argument.data_type(input)?, true));
            }
        }
        fields.push(Field::new(CALLS, DataType::UInt64, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// An empty set for these values.
fn empty_set(spec: &GroupAggregate, layout: &SetLayout) -> Result<distinct::DistinctSet> {
    let fields = &spec.transfer.fields()[layout.column..layout.column + layout.arguments.len()];
    distinct::DistinctSet::new(fields.iter().map(|f| f.data_type().clone()))
}

/// The key columns of a transfer.
fn key_fields(spec: &GroupAggregate) -> Vec<FieldRef> {
    spec.transfer.fields()[..spec.keys.len()].to_vec()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

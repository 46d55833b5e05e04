//! INTERSECT and EXCEPT as a node of the logical plan.
//!
//! DataFusion plans them as semi and anti joins of all columns, in which ALL keeps every copy of a row that has a match. SQL counts
//! instead, `min(m, n)` copies for INTERSECT ALL and `max(m - n, 0)` for EXCEPT ALL, and so does a stream: counts can be maintained.
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchemaRef, JoinType, NullEquality};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{
    Distinct, Expr, Extension, Join, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, cast,
};
use millstream_dataflow::graph::SetKind;

/// INTERSECT or EXCEPT; the inputs have as many columns, of the same types.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) struct SetNode {
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    pub kind: SetKind,
    pub all: bool,
}

impl UserDefinedLogicalNodeCore for SetNode {
    fn name(&self) -> &str {
        "Set"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.left.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    /// The right input has other names for the columns.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Set: {:?} all={}", self.kind, self.all)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let [left, right]: [LogicalPlan; 2] =
            inputs.try_into().map_err(|_| DataFusionError::Internal("a set operation has two inputs".to_owned()))?;
        Ok(Self { left: Arc::new(left), right: Arc::new(right), ..*self })
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        let all = |input: &LogicalPlan| (0..input.schema().fields().len()).collect();
        Some(vec![all(&self.left), all(&self.right)])
    }
}

/// Puts the node in the place of DataFusion's joins. These are the only semi and anti joins of a plan that is not optimised yet whose nulls are
/// equal.
pub(crate) fn set_operations(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull => match join.join_type {
            JoinType::LeftSemi => set_operation(join, SetKind::Intersect),
            JoinType::LeftAnti => set_operation(join, SetKind::Except),
            _ => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    });
    replaced.map(|r| r.data)
}

fn set_operation(join: Join, kind: SetKind) -> DfResult<Transformed<LogicalPlan>> {
    if join.filter.is_some() || join.on.len() != join.left.schema().fields().len() {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let (left, all) = match &*join.left {
        LogicalPlan::Distinct(Distinct::All(input)) => (input.clone(), false),
        _ => (join.left.clone(), true),
    };
    // The types of both sides are those of the comparison.
    let side = |input: Arc<LogicalPlan>, exprs: Vec<Expr>| -> DfResult<Arc<LogicalPlan>> {
        if exprs.iter().all(|e| matches!(e, Expr::Column(_))) {
            return Ok(input);
        }
        let names = join.left.schema().iter().map(|(q, f)| (q.cloned(), f.name().clone()));
        let exprs = exprs.into_iter().zip(names).map(|(e, (q, n))| e.alias_qualified(q, n));
        Ok(Arc::new(LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).project(exprs)?.build()?))
    };
    let (of_left, of_right) = join.on.iter().cloned().unzip();
    let node = SetNode { left: side(left, of_left)?, right: side(join.right.clone(), of_right)?, kind, all };
    // A subquery is asked for its expressions; and the rows keep the types of the left side.
    let columns = node.schema().columns().into_iter().map(Expr::Column).zip(join.left.schema().iter());
    let kept = columns.zip(node.schema().fields()).map(|((column, (qualifier, field)), found)| {
        match field.data_type() == found.data_type() {
            true => column,
            false => cast(column, field.data_type().clone()).alias_qualified(qualifier.cloned(), field.name()),
        }
    });
    let kept: Vec<Expr> = kept.collect();
    let node = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    Ok(Transformed::yes(LogicalPlanBuilder::from(node).project(kept)?.build()?))
}

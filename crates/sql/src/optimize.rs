//! DataFusion's analysis and those of its optimisations that hold for streams.
//!
//! Left out on purpose: rules that turn `count(DISTINCT …)` into two aggregations, that assume a finite input (limits, empty relations), or
//! that change joins and subqueries, which streams of this version do not have.
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerContext, OptimizerRule};
use datafusion::sql::sqlparser::tokenizer::{Location, TokenWithSpan};

use crate::catalog::Catalog;
use crate::error::{Mistake, Result};

/// Plans with more nodes are refused: views that use views double with each step.
const MAX_PLAN_NODES: usize = 500;
/// Expressions that are larger when everything they name is written out are refused, for the same reason.
const MAX_EXPR_SIZE: u64 = 20_000;

/// Types, folds, pushes filters down and drops what is not used.
pub(crate) fn optimize(catalog: &Catalog, plan: LogicalPlan, at: Location) -> Result<LogicalPlan> {
    let failed = |e| catalog.mistake(&e, at);
    let analyzed = Analyzer::new().execute_and_check(plan, catalog.config(), |_, _| {}).map_err(failed)?;
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    let context =
        OptimizerContext::new_with_config_options(catalog.config().clone()).without_query_execution_start_time();
    Optimizer::with_rules(rules).optimize(analyzed, &context, |_, _| {}).map_err(failed)
}

/// Refuses plans that would take the planner minutes or overflow a stack. Views are part of `plan`.
pub(crate) fn check_size(plan: &LogicalPlan, tokens: &[TokenWithSpan]) -> Result<()> {
    let at = tokens.first().map_or(Location { line: 0, column: 0 }, |t| t.span.start);
    let mut nodes = 0_usize;
    let counted = plan.apply(|_| {
        nodes += 1;
        Ok(if nodes > MAX_PLAN_NODES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if counted.is_err() || nodes > MAX_PLAN_NODES {
        return Err(Mistake::new(
            at,
            format!("the query has more than {MAX_PLAN_NODES} steps when its views are written out"),
        )
        .hint("use fewer views of views"));
    }
    match sizes(plan) {
        Ok(sizes) if sizes.iter().all(|s| *s <= MAX_EXPR_SIZE) => Ok(()),
        _ => Err(Mistake::new(at, "an expression is too large when its views are written out")
            .hint("use fewer views of views")),
    }
}

/// For each column of `plan`, the nodes of its expression over tables.
fn sizes(plan: &LogicalPlan) -> DfResult<Vec<u64>> {
    let inputs = plan.inputs().into_iter().map(sizes).collect::<DfResult<Vec<_>>>()?;
    let columns = plan.schema().fields().len();
    let of = |expr: &Expr| {
        let mut size = 0_u64;
        expr.apply(|e| {
            let below = match (e, inputs.first(), plan.inputs().first()) {
                (Expr::Column(c), Some(below), Some(input)) => input.schema().index_of_column(c).ok().map(|i| below[i]),
                _ => None,
            };
            size = size.saturating_add(below.unwrap_or(1));
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok::<_, datafusion::error::DataFusionError>(size)
    };
    match plan {
        LogicalPlan::Projection(p) => p.expr.iter().map(of).collect(),
        LogicalPlan::Filter(f) => {
            let predicate = of(&f.predicate)?;
            let mut below = inputs.first().cloned().unwrap_or_default();
            if predicate > MAX_EXPR_SIZE {
                below.fill(predicate);
            }
            Ok(below)
        }
        LogicalPlan::Aggregate(_) | LogicalPlan::TableScan(_) => Ok(vec![1; columns]),
        LogicalPlan::Union(_) => {
            Ok((0..columns).map(|i| inputs.iter().filter_map(|s| s.get(i)).max().copied().unwrap_or(1)).collect())
        }
        _ => {
            let mut below = inputs.into_iter().next().unwrap_or_default();
            below.resize(columns, 1);
            Ok(below)
        }
    }
}

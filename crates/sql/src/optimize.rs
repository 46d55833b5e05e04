//! DataFusion's analysis and those of its optimisations that hold for streams.
//!
//! Left out on purpose: rules that turn `count(DISTINCT …)` into two aggregations, or that assume a finite input (limits, empty relations).
//!
//! Those for joins and subqueries are equalities of relational algebra, which hold for every prefix of the input and so for the stream: IN,
//! EXISTS and scalar subqueries as semi, anti and left joins; equalities out of WHERE into ON (a comma or CROSS JOIN has its keys
//! there, and without keys all rows go to one task); an outer join whose padded rows a filter drops as an inner one, which takes nothing
//! back. Left out are rules that look at sizes of tables: the order of joins is that of the text.
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Limit, LogicalPlan};
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Analyzer, ApplyOrder, Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule};
use datafusion::sql::sqlparser::tokenizer::{Location, TokenWithSpan};

use crate::catalog::Catalog;
use crate::error::{Mistake, Result};
use crate::local_times::plan_in_local_times;
use crate::set::set_operations;

/// Plans with more nodes are refused: views that use views double with each step.
const MAX_PLAN_NODES: usize = 500;
/// Expressions that are larger when everything they name is written out are refused, for the same reason.
const MAX_EXPR_SIZE: u64 = 20_000;

/// Types, folds, pushes filters down and drops what is not used.
pub(crate) fn optimize(catalog: &Catalog, plan: LogicalPlan, at: Location) -> Result<LogicalPlan> {
    let failed = |e| catalog.mistake(&e, at);
    let analyzed = Analyzer::new().execute_and_check(plan, catalog.config(), |_, _| {}).map_err(failed)?;
    let analyzed = if catalog.zone().is_utc() { analyzed } else { plan_in_local_times(analyzed).map_err(failed)? };
    check_scalars(&analyzed, at)?;
    let analyzed = set_operations(analyzed).map_err(failed)?;
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(DistinctAsAggregate(ReplaceDistinctWithAggregate::new())),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(Fence),
        Arc::new(PushDownFilter::new()),
        Arc::new(Unfence),
        Arc::new(OptimizeProjections::new()),
    ];
    let context =
        OptimizerContext::new_with_config_options(catalog.config().clone()).without_query_execution_start_time();
    let optimized = Optimizer::with_rules(rules).optimize(analyzed, &context, |_, _| {}).map_err(failed)?;
    if mentions(&optimized, &|e| {
        matches!(
            e,
            Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        )
    })
    .map_err(failed)?
    {
        return Err(Mistake::new(at, "a subquery of this form cannot be computed as a join")
            .hint("join its table, or compare the subquery's columns with those of the query by = and AND"));
    }
    Ok(optimized)
}

/// `DISTINCT` as GROUP BY all columns. `DISTINCT ON` stays: it is a rank.
#[derive(Debug)]
struct DistinctAsAggregate(ReplaceDistinctWithAggregate);

impl OptimizerRule for DistinctAsAggregate {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Distinct(Distinct::On(_)) => Ok(Transformed::no(plan)),
            plan => self.0.rewrite(plan, config),
        }
    }
}

/// Puts a limit that limits nothing above what no filter may go below. Below an aggregation that has a row without input, a filter without
/// columns would only empty its input; DataFusion replaces such filters before by relations without rows. Below DISTINCT ON, any
/// filter would let another row be the first; DataFusion has made an aggregation of it by then.
#[derive(Debug)]
struct Fence;

/// Takes it away again.
#[derive(Debug)]
struct Unfence;

impl OptimizerRule for Fence {
    fn name(&self) -> &str {
        "fence"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Aggregate(node) if always_has_a_row(&node) => {
                let input = Arc::new(LogicalPlan::Aggregate(node));
                Ok(Transformed::yes(LogicalPlan::Limit(Limit { skip: None, fetch: None, input })))
            }
            plan @ LogicalPlan::Distinct(Distinct::On(_)) => {
                let input = Arc::new(plan);
                Ok(Transformed::yes(LogicalPlan::Limit(Limit { skip: None, fetch: None, input })))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

impl OptimizerRule for Unfence {
    fn name(&self) -> &str {
        "unfence"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Limit(Limit { skip: None, fetch: None, input }) => {
                Ok(Transformed::yes(Arc::unwrap_or_clone(input)))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

/// True for an aggregation without keys and for grouping sets that may hold the empty set.
fn always_has_a_row(node: &Aggregate) -> bool {
    node.group_expr.is_empty() || matches!(node.group_expr.as_slice(), [Expr::GroupingSet(_)])
}

/// True if an expression of `plan`, or one inside it, is like that.
fn mentions(plan: &LogicalPlan, is: &dyn Fn(&Expr) -> bool) -> DfResult<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(is(e)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// A scalar subquery becomes a left join, which would repeat rows if it had several rows. What is correlated has been checked by DataFusion.
fn check_scalars(plan: &LogicalPlan, at: Location) -> Result<()> {
    fn has_one_row(plan: &LogicalPlan) -> bool {
        match plan {
            LogicalPlan::Projection(node) => has_one_row(&node.input),
            LogicalPlan::Filter(node) => has_one_row(&node.input),
            LogicalPlan::SubqueryAlias(node) => has_one_row(&node.input),
            LogicalPlan::Aggregate(node) => node.group_expr.is_empty(),
            _ => false,
        }
    }
    let many = |e: &Expr| match e {
        Expr::ScalarSubquery(query) => query.outer_ref_columns.is_empty() && !has_one_row(&query.subquery),
        _ => false,
    };
    match mentions(plan, &many) {
        Ok(false) => Ok(()),
        _ => Err(Mistake::new(at, "a subquery that stands for one value may have several rows")
            .hint("aggregate it, as in (SELECT max(x) FROM t), or join it")),
    }
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
        LogicalPlan::Join(node) => {
            use datafusion::common::JoinType::{RightAnti, RightSemi};
            let skipped = if matches!(node.join_type, RightSemi | RightAnti) { 1 } else { 0 };
            let mut both = inputs.into_iter().skip(skipped).flatten().collect::<Vec<_>>();
            both.resize(columns, 1);
            Ok(both)
        }
        _ => {
            let mut below = inputs.into_iter().next().unwrap_or_default();
            below.resize(columns, 1);
            Ok(below)
        }
    }
}

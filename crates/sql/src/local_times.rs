//! `CAST(instant AS TIMESTAMP)` in a pipeline whose time zone is not UTC.
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan};

/// A cast of an instant to a local time, for which Arrow gives the time in UTC, gives the time in the instant's zone.
pub(crate) fn in_local_times(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let local = |e: Expr| {
        let Expr::Cast(cast) = &e else { return Ok(Transformed::no(e)) };
        let is_instant = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(zone)) if &**zone != "UTC");
        let to_local = matches!(cast.field.data_type(), DataType::Timestamp(_, None));
        if !to_local || !is_instant(&cast.expr.get_type(schema)?) {
            return Ok(Transformed::no(e));
        }
        let call = ScalarFunction::new_udf(to_local_time(), vec![(*cast.expr).clone()]);
        let to = cast.field.data_type().clone();
        Ok(Transformed::yes(Expr::Cast(Cast::new(Box::new(Expr::ScalarFunction(call)), to))))
    };
    expr.transform_up(local).map(|e| e.data)
}

/// The same in every expression of a plan.
pub(crate) fn plan_in_local_times(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let node = |node: LogicalPlan| {
        let mut schema = DFSchema::empty();
        node.inputs().into_iter().for_each(|input| schema.merge(input.schema()));
        let names = NamePreserver::new(&node);
        let rewritten = node.map_expressions(|expr| {
            let name = names.save(&expr);
            in_local_times(expr, &schema).map(|e| Transformed::yes(name.restore(e)))
        })?;
        rewritten.map_data(LogicalPlan::recompute_schema)
    };
    plan.transform_up_with_subqueries(node).map(|p| p.data)
}

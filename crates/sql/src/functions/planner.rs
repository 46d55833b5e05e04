//! Expressions with a syntax of their own that mean another function in each dialect.
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::functions::{datetime, math};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{Expr, ScalarUDF, cast, lit};
use datafusion_spark::function::string;
use datafusion_spark::planner::SparkFunctionPlanner;

use super::Dialect;

/// `EXTRACT` and `SUBSTRING`.
#[derive(Debug)]
pub(super) struct DialectPlanner(pub Dialect);

fn call(f: Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(f, args))
}

impl ExprPlanner for DialectPlanner {
    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let unit = args.first().and_then(Expr::as_literal).and_then(|u| u.try_as_str().flatten());
        let unit = unit.map(str::to_lowercase);
        match (self.0, unit.as_deref()) {
            (Dialect::Spark, _) => SparkFunctionPlanner.plan_extract(args),
            // Sunday is 1.
            (Dialect::Flink, Some("dow" | "dayofweek")) => {
                let args = std::iter::once(lit("dow")).chain(args.into_iter().skip(1)).collect();
                Ok(PlannerResult::Planned(call(datetime::date_part(), args) + lit(1_i32)))
            }
            (Dialect::Flink, Some("epoch")) => {
                let seconds = call(math::floor(), vec![call(datetime::date_part(), args)]);
                Ok(PlannerResult::Planned(cast(seconds, DataType::Int64)))
            }
            _ => Ok(PlannerResult::Original(args)),
        }
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(match self.0 {
            Dialect::Flink | Dialect::Spark => PlannerResult::Planned(call(string::substring(), args)),
            Dialect::DataFusion => PlannerResult::Original(args),
        })
    }
}

//! `JOIN t FOR SYSTEM_TIME AS OF a.ts AS x ON …`: which rows of `t` a row of `a` meets depends on a time of `a`.
//!
//! The form goes through DataFusion's planner in two parts. The table becomes a [`Versions`] node, which no filter passes: of the rows of one key
//! only one is valid, and a filter below would make another one valid. The time becomes a condition of the join, `__as_of(a.ts, x.c)`, where
//! `c` is the table's watermark column (its first column if it has none); as it names both sides it stays with the join, and keeps
//! both columns alive. The lowering of joins takes both away again.
use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Extension, Join, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    UserDefinedLogicalNodeCore, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr as SqlExpr, Ident, JoinConstraint, JoinOperator, Select, Spanned, TableAlias, TableFactor,
    TableVersion,
};

use crate::error::{Mistake, Result};
use crate::refuse::name_of;
use crate::rewrite::{arguments, call};
use crate::table::{StreamTable, Table};
use crate::window::table;

/// The pseudo table function around a table with `FOR SYSTEM_TIME`.
const VERSIONS: &str = "__versions";
/// The pseudo condition that carries the time.
pub(crate) const AS_OF: &str = "__as_of";

/// A table of which a time chooses the rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) struct Versions {
    pub input: Arc<LogicalPlan>,
    /// Names of the columns of its PRIMARY KEY.
    pub key: Vec<String>,
}

impl UserDefinedLogicalNodeCore for Versions {
    fn name(&self) -> &str {
        "Versions"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Versions: by {}", self.key.join(", "))
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        match inputs.pop() {
            Some(input) => Ok(Self { input: Arc::new(input), key: self.key.clone() }),
            None => Err(DataFusionError::Internal("a table with versions has one input".into())),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut needed = [output_columns, &self.key_columns()].concat();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

impl Versions {
    /// Its key among its columns.
    pub fn key_columns(&self) -> Vec<usize> {
        let position = |name: &String| self.schema().fields().iter().position(|f| f.name() == name);
        self.key.iter().filter_map(position).collect()
    }
}

/// The node in `plan`, below names and filters.
pub(crate) fn versions(plan: &LogicalPlan) -> Option<&Versions> {
    match plan {
        LogicalPlan::SubqueryAlias(node) => versions(&node.input),
        LogicalPlan::Projection(node) => versions(&node.input),
        LogicalPlan::Filter(node) => versions(&node.input),
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<Versions>(),
        _ => None,
    }
}

/// The table of a node.
pub(crate) fn table_of(versions: &Versions) -> Option<&Arc<Table>> {
    fn scanned(plan: &LogicalPlan) -> Option<&Arc<Table>> {
        match plan {
            LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<StreamTable>().map(|s| &s.table),
            other => other.inputs().into_iter().next().and_then(scanned),
        }
    }
    scanned(&versions.input)
}

/// Rewrites the joins of a SELECT.
pub(crate) fn rewrite(select: &mut Select) -> Result<()> {
    for join in select.from.iter_mut().flat_map(|f| &mut f.joins) {
        let at = join.relation.span().start;
        let TableFactor::Table { name, alias, version, .. } = &mut join.relation else { continue };
        let Some(TableVersion::ForSystemTimeAsOf(time)) = version.take() else { continue };
        let constraint = match &mut join.join_operator {
            JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => {
                Some(c)
            }
            _ => None,
        };
        let Some(JoinConstraint::On(on)) = constraint else {
            return Err(Mistake::new(at, "FOR SYSTEM_TIME AS OF needs JOIN … ON or LEFT JOIN … ON")
                .hint("write a JOIN t FOR SYSTEM_TIME AS OF a.ts AS x ON a.k = x.k"));
        };
        if alias.as_ref().is_some_and(|a| !a.columns.is_empty()) {
            return Err(Mistake::new(at, "a table with FOR SYSTEM_TIME AS OF keeps the names of its columns")
                .hint("name the table alone: AS x"));
        }
        let span = time.span();
        let nested = |e: SqlExpr| Box::new(SqlExpr::Nested(Box::new(e)));
        let as_of = Box::new(call(AS_OF, span, vec![time]));
        let own = std::mem::replace(on, SqlExpr::Value(datafusion::sql::sqlparser::ast::Value::Null.with_span(span)));
        *on = SqlExpr::BinaryOp { left: nested(own), op: BinaryOperator::And, right: as_of };
        let idents: Vec<Ident> = name.0.iter().filter_map(|p| p.as_ident().cloned()).collect();
        let named = idents.last().cloned().unwrap_or_else(|| Ident::new(""));
        let alias = alias.take().unwrap_or(TableAlias { explicit: true, name: named, columns: Vec::new(), at: None });
        let expr = call(VERSIONS, name.span(), vec![SqlExpr::CompoundIdentifier(idents)]);
        join.relation = TableFactor::TableFunction { expr, alias: Some(alias) };
    }
    Ok(())
}

/// What is left after [`rewrite`] stands where it has no meaning.
pub(crate) fn check(factor: &TableFactor) -> ControlFlow<Mistake> {
    match factor {
        TableFactor::Table { version: Some(_), .. } => {
            let message = "FOR SYSTEM_TIME AS OF belongs to a table that is joined by JOIN … ON";
            ControlFlow::Break(
                Mistake::new(factor.span().start, message)
                    .hint("write FROM a JOIN t FOR SYSTEM_TIME AS OF a.ts AS x ON a.k = x.k"),
            )
        }
        _ => ControlFlow::Continue(()),
    }
}

/// Plans the tables in joins that were rewritten.
#[derive(Debug)]
pub(crate) struct VersionsPlanner;

impl RelationPlanner for VersionsPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let (function, alias) = match &relation {
            TableFactor::TableFunction { expr: SqlExpr::Function(function), alias }
                if name_of(&function.name) == VERSIONS =>
            {
                (function, alias)
            }
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        let args = arguments(function).unwrap_or_default();
        let [SqlExpr::CompoundIdentifier(idents)] = args.as_slice() else {
            return Err(DataFusionError::Internal("a table with versions has a name".into()));
        };
        let input = context.plan(table(idents))?;
        let declared = match &input {
            LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<StreamTable>(),
            _ => None,
        };
        let Some(declared) = declared else {
            let message = "FOR SYSTEM_TIME AS OF needs a table, and this is a view or a query";
            let mistake = Mistake::new(function.name.span().start, message)
                .hint("declare the table with PRIMARY KEY (…) NOT ENFORCED and WATERMARK FOR, and join that");
            return Err(DataFusionError::External(Box::new(mistake)));
        };
        let key = declared.table.primary_key.iter().map(|c| declared.table.columns[*c].field.name().clone()).collect();
        let node = Arc::new(Versions { input: Arc::new(input), key });
        let plan = LogicalPlan::Extension(Extension { node });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// Gives the conditions `__as_of(time)` of joins their column of the table.
pub(crate) fn complete(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let completed = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(mut join) = node else { return Ok(Transformed::no(node)) };
        let Some(column) = versions(&join.right).and_then(table_of).and_then(|table| {
            let at = table.watermark.as_ref().map_or(0, |w| w.column);
            Some(Column::from(join.right.schema().iter().nth(at)?))
        }) else {
            return Ok(Transformed::no(LogicalPlan::Join(join)));
        };
        let Some(filter) = join.filter.take() else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
        let left = join.left.schema().iter().next().map(Column::from);
        let filter = filter.transform_up(|e| match e {
            Expr::ScalarFunction(mut f) if f.name() == AS_OF && f.args.len() == 1 => {
                f.args.push(Expr::Column(column.clone()));
                // Without a column of the other side it would be a filter of the table.
                f.args.extend(left.clone().filter(|_| f.args[0].column_refs().is_empty()).map(Expr::Column));
                Ok(Transformed::yes(Expr::ScalarFunction(f)))
            }
            e => Ok(Transformed::no(e)),
        })?;
        join.filter = Some(filter.data);
        Ok(Transformed::yes(LogicalPlan::Join(join)))
    })?;
    Ok(completed.data)
}

/// The time of a join with versions.
pub(crate) struct AsOf {
    /// Of the one side.
    pub time: Expr,
    /// Of the other.
    pub column: Column,
}

/// True for the pseudo condition.
pub(crate) fn is_as_of(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.name() == AS_OF)
}

/// Takes the condition out of a join's others.
pub(crate) fn as_of(join: &Join) -> (Option<AsOf>, Option<Expr>) {
    let mut found = None;
    let mut rest = Vec::new();
    for part in join.filter.iter().flat_map(split_conjunction) {
        match part {
            Expr::ScalarFunction(f) if f.name() == AS_OF => {
                if let [time, Expr::Column(column), ..] = f.args.as_slice() {
                    found = Some(AsOf { time: time.clone(), column: column.clone() });
                }
            }
            part => rest.push(part.clone()),
        }
    }
    (found, conjunction(rest))
}

/// `__as_of(time, column)`, which is never called.
pub(crate) fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(AsOfFunction { signature: Signature::variadic_any(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsOfFunction {
    signature: Signature,
}

impl ScalarUDFImpl for AsOfFunction {
    fn name(&self) -> &str {
        AS_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{AS_OF} is a form and no function")))
    }
}

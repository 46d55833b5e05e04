//! `FROM t CROSS JOIN UNNEST(t.list) AS u(x)` and its like.
//!
//! DataFusion plans UNNEST in a select list, but in FROM only of constants. So UNNEST in FROM becomes an [`Elements`] node first, whose
//! lists name columns of the tables before it; when the whole query is resolved, a join with it becomes an Unnest over its other side, the
//! elements (or the fields of elements that are ROWs) named as the query names them.
//!
//! Spark's `LATERAL VIEW [OUTER] explode(list) u AS x` is the same by another name.
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, TableReference, UnnestOptions};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Join, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, lit,
};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, Join as SqlJoin, JoinConstraint, JoinOperator, Select,
    Spanned, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::error::{Mistake, Result};
use crate::functions::Functions;
use crate::refuse::name_of;
use crate::rewrite::arguments;
use crate::types;

/// Name of the number of an element.
const ORDINALITY: &str = "ordinality";
/// Elements without a name.
const ELEMENT: &str = "element";

/// A column of elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ElementColumn {
    /// Which list; `None`: the element's number.
    list: Option<usize>,
    /// A field of the element.
    field: Option<String>,
}

/// Elements of lists, side by side.
#[derive(Clone, Debug)]
pub(crate) struct Elements {
    lists: Vec<Expr>,
    columns: Vec<ElementColumn>,
    schema: DFSchemaRef,
    at: Location,
}

impl Elements {
    fn identity(&self) -> (&[Expr], &[ElementColumn], &DFSchemaRef) {
        (&self.lists, &self.columns, &self.schema)
    }
}

impl PartialEq for Elements {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Elements {}

impl Hash for Elements {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for Elements {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other { Some(Ordering::Equal) } else { self.lists.partial_cmp(&other.lists) }
    }
}

impl UserDefinedLogicalNodeCore for Elements {
    fn name(&self) -> &str {
        "Elements"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.lists.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Elements")
    }

    fn with_exprs_and_inputs(&self, lists: Vec<Expr>, _: Vec<LogicalPlan>) -> DfResult<Self> {
        Ok(Self { lists, ..self.clone() })
    }
}

fn external(mistake: Mistake) -> DataFusionError {
    DataFusionError::External(Box::new(mistake))
}

/// Brings all forms into that of `TableFactor::UNNEST`, each as a join of what stands before it.
pub(crate) fn rewrite(select: &mut Select) -> Result<()> {
    for from in &mut select.from {
        normalise(&mut from.relation)?;
        for join in &mut from.joins {
            normalise(&mut join.relation)?;
            let is_fine = matches!(
                join.join_operator,
                JoinOperator::CrossJoin(_)
                    | JoinOperator::Join(_)
                    | JoinOperator::Inner(_)
                    | JoinOperator::Left(_)
                    | JoinOperator::LeftOuter(_)
            );
            if let (TableFactor::UNNEST { .. }, false) = (&join.relation, is_fine) {
                return Err(Mistake::new(join.relation.span().start, "UNNEST takes CROSS JOIN, JOIN and LEFT JOIN")
                    .hint("write LEFT JOIN UNNEST(…) ON TRUE for rows without an element"));
            }
        }
    }
    if let Some(first @ TableFactor::UNNEST { .. }) = select.from.first().map(|f| &f.relation) {
        return Err(Mistake::new(first.span().start, "UNNEST in FROM comes after the table whose arrays it takes")
            .hint("write FROM t CROSS JOIN UNNEST(t.list) AS u(x)"));
    }
    // `FROM t, UNNEST(t.list)`
    let mut tables: Vec<TableWithJoins> = Vec::with_capacity(select.from.len());
    for from in std::mem::take(&mut select.from) {
        match tables.last_mut() {
            Some(before) if matches!(from.relation, TableFactor::UNNEST { .. }) => {
                before.joins.push(joined(from.relation, false));
                before.joins.extend(from.joins);
            }
            _ => tables.push(from),
        }
    }
    for view in std::mem::take(&mut select.lateral_views) {
        let (relation, outer) = lateral_view(view)?;
        if let Some(last) = tables.last_mut() {
            last.joins.push(joined(relation, outer));
        }
    }
    select.from = tables;
    Ok(())
}

fn joined(relation: TableFactor, outer: bool) -> SqlJoin {
    let always = || SqlExpr::Value(Value::Boolean(true).with_span(relation.span()));
    let join_operator = match outer {
        true => JoinOperator::Left(JoinConstraint::On(always())),
        false => JoinOperator::CrossJoin(JoinConstraint::None),
    };
    SqlJoin { relation, global: false, join_operator }
}

/// `UNNEST(…)` is read as a table function.
fn normalise(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } = factor else { return Ok(()) };
    if name_of(name) != "unnest" {
        return Ok(());
    }
    let lists = args.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
        _ => Err(Mistake::new(name.span().start, "UNNEST takes arrays")),
    });
    *factor = TableFactor::UNNEST {
        array_exprs: lists.collect::<Result<_>>()?,
        alias: alias.take(),
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: *with_ordinality,
    };
    Ok(())
}

fn lateral_view(view: datafusion::sql::sqlparser::ast::LateralView) -> Result<(TableFactor, bool)> {
    let at = view.lateral_view.span().start;
    let SqlExpr::Function(function) = &view.lateral_view else {
        return Err(Mistake::new(at, "LATERAL VIEW takes explode, posexplode or inline"));
    };
    let name = name_of(&function.name);
    let outer = view.outer || name.ends_with("_outer");
    let name = name.trim_end_matches("_outer");
    let lists: Vec<SqlExpr> = arguments(function).unwrap_or_default().into_iter().cloned().collect();
    if !matches!(name, "explode" | "posexplode" | "inline") || lists.len() != 1 {
        return Err(Mistake::new(function.name.span().start, format!("LATERAL VIEW does not take {name}"))
            .hint("it takes explode(array), posexplode(array) and inline(array of rows)"));
    }
    let mut columns: Vec<Ident> = view.lateral_col_alias;
    if columns.is_empty() && name != "inline" {
        let names = if name == "explode" { &["col"][..] } else { &["pos", "col"] };
        columns = names.iter().map(|n| Ident::new(*n)).collect();
    }
    if name == "posexplode" {
        return Err(Mistake::new(function.name.span().start, "posexplode is not supported on streams")
            .hint("write CROSS JOIN UNNEST(array) WITH ORDINALITY AS u(element, number), which counts from 1"));
    }
    let table = view.lateral_view_name.0.last().and_then(|p| p.as_ident()).cloned().unwrap_or_else(|| Ident::new("u"));
    let columns = columns.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }).collect();
    let alias = Some(TableAlias { explicit: true, name: table, columns, at: None });
    let factor = TableFactor::UNNEST {
        alias,
        array_exprs: lists,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
    Ok((factor, outer))
}

/// Plans UNNEST in FROM.
#[derive(Debug)]
pub(crate) struct UnnestPlanner;

impl RelationPlanner for UnnestPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let at = relation.span().start;
        let none = DFSchema::empty();
        let lists = array_exprs.iter().map(|e| context.sql_expr_to_logical_expr(e.clone(), &none));
        let lists = lists.collect::<DfResult<Vec<Expr>>>()?;
        let node = elements(lists, alias.as_ref(), *with_ordinality, at).map_err(external)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

fn elements(lists: Vec<Expr>, alias: Option<&TableAlias>, numbered: bool, at: Location) -> Result<Elements> {
    let failed = |e: DataFusionError| Mistake::new(at, e.strip_backtrace());
    let mut whole: Vec<(ElementColumn, FieldRef)> = Vec::new();
    let mut fields: Vec<(ElementColumn, FieldRef)> = Vec::new();
    for (i, list) in lists.iter().enumerate() {
        let data_type = list.get_type(&DFSchema::empty()).map_err(failed)?;
        let DataType::List(element) = &data_type else {
            return Err(Mistake::new(at, format!("UNNEST takes arrays, and this is {}", types::name(&data_type))));
        };
        let column = |field: Option<String>| ElementColumn { list: Some(i), field };
        whole.push((column(None), Arc::new(Field::new(ELEMENT, element.data_type().clone(), true))));
        match element.data_type() {
            DataType::Struct(inner) => {
                fields.extend(
                    inner
                        .iter()
                        .map(|f| (column(Some(f.name().clone())), Arc::new(f.as_ref().clone().with_nullable(true)))),
                );
            }
            _ => fields.extend(whole.last().cloned()),
        }
    }
    if numbered {
        let number =
            (ElementColumn { list: None, field: None }, Arc::new(Field::new(ORDINALITY, DataType::Int64, true)));
        whole.push(number.clone());
        fields.push(number);
    }
    let names: Vec<&str> = alias.iter().flat_map(|a| &a.columns).map(|c| c.name.value.as_str()).collect();
    let chosen = match names.len() {
        0 => fields,
        n if n == fields.len() => fields,
        n if n == whole.len() => whole,
        n => {
            let plural = if fields.len() == 1 { "" } else { "s" };
            let message = format!("UNNEST gives {} column{plural} here, and {n} are named", fields.len());
            return Err(Mistake::new(at, message).hint("name each of them: AS u(a, b)"));
        }
    };
    let qualifier = alias.map(|a| TableReference::bare(a.name.value.as_str()));
    let named = chosen.iter().enumerate().map(|(i, (column, field))| {
        // An element without a name has that of the table, as in PostgreSQL.
        let own = match (&alias, &column.field, column.list) {
            (Some(alias), None, Some(_)) if lists.len() == 1 => alias.name.value.clone(),
            _ => field.name().clone(),
        };
        let name = names.get(i).map_or(own, |n| (*n).to_owned());
        (qualifier.clone(), Arc::new(field.as_ref().clone().with_name(name)))
    });
    let schema = DFSchema::new_with_metadata(named.collect(), HashMap::new()).map_err(failed)?;
    let columns = chosen.into_iter().map(|(column, _)| column).collect();
    Ok(Elements { lists, columns, schema: Arc::new(schema), at })
}

/// Makes joins with [`Elements`] what they mean.
pub(crate) fn expand(plan: LogicalPlan, functions: &Functions) -> DfResult<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match elements_of(&join.right).cloned() {
            Some(elements) => Ok(Transformed::yes(unnest(join, &elements, functions)?)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        node => Ok(Transformed::no(node)),
    })?;
    Ok(expanded.data)
}

/// The node, if `plan` is nothing else.
pub(crate) fn elements_of(plan: &LogicalPlan) -> Option<&Elements> {
    match plan {
        LogicalPlan::Subquery(query) => elements_of(&query.subquery),
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<Elements>(),
        _ => None,
    }
}

fn unnest(join: Join, elements: &Elements, functions: &Functions) -> DfResult<LogicalPlan> {
    let outer = join.join_type == JoinType::Left;
    let always = matches!(join.filter, Some(Expr::Literal(datafusion::common::ScalarValue::Boolean(Some(true)), _)));
    if !join.on.is_empty() || outer && join.filter.is_some() && !always {
        let mistake = Mistake::new(elements.at, "LEFT JOIN UNNEST takes no condition but ON TRUE");
        return Err(external(mistake.hint("select from the elements in a subquery, and join that")));
    }
    let function = |name: &str| {
        functions.scalar(name).ok_or_else(|| DataFusionError::Internal(format!("there is no function {name}")))
    };
    let mut projected: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let left = projected.clone();
    let mut lists = Vec::new();
    for list in &elements.lists {
        let own = list.clone().transform(|e| match e {
            Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
            e => Ok(Transformed::no(e)),
        })?;
        lists.push(own.data);
    }
    if elements.columns.iter().any(|c| c.list.is_none()) {
        // The numbers of the longest list.
        let lengths = lists.iter().map(|list| {
            let length = function("array_length")?.call(vec![list.clone()]);
            Ok(Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(length), DataType::Int64)))
        });
        let lengths = lengths.collect::<DfResult<Vec<Expr>>>()?;
        let longest = if lengths.len() == 1 { lengths[0].clone() } else { function("greatest")?.call(lengths) };
        lists.push(function("generate_series")?.call(vec![lit(1_i64), longest]));
    }
    let mut names: Vec<String> = Vec::new();
    for list in &lists {
        let plain = format!("unnest({})", list.schema_name());
        let again = names.iter().filter(|n| n.starts_with(&plain)).count();
        names.push(if again == 0 { plain } else { format!("{plain} {again}") });
    }
    let name = |i: usize| names[i].clone();
    projected.extend(lists.iter().enumerate().map(|(i, list)| list.clone().alias(name(i))));
    let columns: Vec<Column> = (0..lists.len()).map(|i| Column::new_unqualified(name(i))).collect();
    let options = UnnestOptions::new().with_preserve_nulls(outer);
    let unnested =
        LogicalPlanBuilder::from(join.left).project(projected)?.unnest_columns_with_options(columns, options)?;
    let mut out = left;
    for (column, (qualifier, field)) in elements.columns.iter().zip(elements.schema.iter()) {
        let element = Expr::Column(Column::new_unqualified(name(column.list.unwrap_or(lists.len() - 1))));
        let value = match &column.field {
            Some(field) => function("get_field")?.call(vec![element, lit(field.as_str())]),
            None => element,
        };
        out.push(value.alias_qualified(qualifier.cloned(), field.name()));
    }
    let plan = unnested.project(out)?;
    match join.filter.filter(|_| !outer && !always) {
        Some(filter) => plan.filter(filter)?.build(),
        None => plan.build(),
    }
}

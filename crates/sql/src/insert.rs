//! `INSERT INTO`: the columns of a query onto the columns of a table, by position.
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr, Spanned};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::catalog::Catalog;
use crate::error::{Mistake, Result};
use crate::functions::zone::Zone;
use crate::names::Names;
use crate::statement::InsertDef;
use crate::table::{ColumnOrigin, Table, unknown_column};
use crate::types;

/// A column that an INSERT writes.
pub(crate) struct Target<'a> {
    /// Index in the table's columns.
    pub index: usize,
    pub field: &'a FieldRef,
    /// Written as metadata under this key.
    pub metadata: Option<&'a str>,
}

/// The columns of `table` that are written, in declared order.
pub(crate) fn targets(table: &Table) -> Result<Vec<Target<'_>>> {
    let mut targets = Vec::new();
    for (index, column) in table.columns.iter().enumerate() {
        let metadata = match &column.origin {
            ColumnOrigin::Physical(_) => None,
            ColumnOrigin::Metadata { is_virtual: true, .. } | ColumnOrigin::Computed { .. } => continue,
            ColumnOrigin::Metadata { key, .. } => {
                if !table.connector.sink_metadata.contains(&key.text.as_str()) {
                    let message =
                        format!("metadata '{}' of connector '{}' cannot be written", key.text, table.connector.name);
                    return Err(Mistake::new(key.at, message).hint("declare the column as METADATA … VIRTUAL"));
                }
                Some(key.text.as_str())
            }
        };
        targets.push(Target { index, field: &column.field, metadata });
    }
    Ok(targets)
}

/// Puts casts and nulls on top of `plan`, so that its columns are those of the table.
pub(crate) fn fit(
    catalog: &Catalog,
    def: &InsertDef,
    table: &Table,
    names: &Names,
    plan: LogicalPlan,
    places: &[Location],
) -> Result<LogicalPlan> {
    let targets = targets(table)?;
    // For each target, the query's column.
    let given: Vec<Option<usize>> = match &def.columns {
        None => (0..targets.len()).map(Some).collect(),
        Some(columns) => {
            let known: Vec<&str> = targets.iter().map(|t| t.field.name().as_str()).collect();
            let mut given = vec![None; targets.len()];
            for (i, name) in columns.iter().enumerate() {
                let spelling = names.spelling(&name.text);
                let Some(at) = known.iter().position(|k| *k == spelling) else {
                    return Err(unknown_column(name, &known, "INSERT INTO names"));
                };
                if given[at].replace(i).is_some() {
                    return Err(Mistake::new(name.at, format!("column '{}' is named twice", name.text)));
                }
            }
            given
        }
    };
    let wanted = def.columns.as_ref().map_or(targets.len(), Vec::len);
    let schema = plan.schema().clone();
    if schema.fields().len() != wanted {
        let list = |names: Vec<&str>| names.join(", ");
        let own = match &def.columns {
            Some(columns) => list(columns.iter().map(|c| c.text.as_str()).collect()),
            None => list(targets.iter().map(|t| t.field.name().as_str()).collect()),
        };
        let selected = list(schema.fields().iter().map(|f| f.name().as_str()).collect());
        let count = schema.fields().len();
        let plural = if count == 1 { "" } else { "s" };
        let message = format!("the query gives {count} column{plural}, table '{}' takes {wanted}", def.table.text);
        return Err(Mistake::new(def.table.at, message)
            .hint(format!("columns match by position: ({selected}) go into ({own})")));
    }
    let mut exprs = Vec::with_capacity(targets.len());
    for (target, given) in targets.iter().zip(given) {
        // What leaves the pipeline are instants, whatever the zone.
        let to = &Zone::utc().zoned(target.field.data_type());
        let name = target.field.name();
        let expr = match given {
            Some(i) => {
                let from = schema.field(i).data_type();
                let column = Expr::Column(Column::from(schema.qualified_field(i)));
                if from == to {
                    column
                } else if assignable(from, to) || is_small_constant(&plan, i, to) {
                    Expr::Cast(Cast::new(Box::new(column), to.clone()))
                } else {
                    let at = places.get(i).copied().unwrap_or(def.table.at);
                    let message = format!(
                        "column {} of the query is {}, but '{name}' of table '{}' is {}",
                        i + 1,
                        types::name(from),
                        def.table.text,
                        types::name(to)
                    );
                    return Err(Mistake::new(at, message).hint(format!("write CAST(… AS {})", types::name(to))));
                }
            }
            None if target.field.is_nullable() => {
                Expr::Literal(ScalarValue::try_from(to).map_err(|e| catalog.mistake(&e, def.table.at))?, None)
            }
            None => {
                return Err(Mistake::new(
                    def.table.at,
                    format!("column '{name}' is NOT NULL and the INSERT does not name it"),
                ));
            }
        };
        exprs.push(expr.alias(name));
    }
    let fitted = LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build);
    fitted.map_err(|e| catalog.mistake(&e, def.table.at))
}

/// True if column `i` is a whole number written in the query that fits `to`, or a CASE of such: SQL's types of constants are wider
/// than what is meant.
fn is_small_constant(plan: &LogicalPlan, i: usize, to: &DataType) -> bool {
    fn fits(expr: &Expr, to: &DataType) -> bool {
        match expr {
            Expr::Alias(alias) => fits(&alias.expr, to),
            Expr::Negative(inner) => fits(inner, to),
            Expr::Literal(value, _) => {
                value.is_null() || value.data_type().is_integer() && value.cast_to(to).is_ok_and(|v| !v.is_null())
            }
            Expr::Case(case) => {
                let mut results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
                results.all(|e| fits(e, to))
            }
            _ => false,
        }
    }
    match plan {
        LogicalPlan::Projection(projection) => to.is_integer() && projection.expr.get(i).is_some_and(|e| fits(e, to)),
        _ => false,
    }
}

/// Where the select items of a simple query stand.
pub(crate) fn places(query: &Query) -> Vec<Location> {
    let SetExpr::Select(select) = &*query.body else { return Vec::new() };
    let mut places = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => places.push(expr.span().start),
            // Stands for any number of columns.
            _ => return Vec::new(),
        }
    }
    places
}

/// True if a value of type `from` goes into a column of type `to` without CAST: nothing but precision can be lost.
fn assignable(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Decimal128, Float32, Float64, LargeBinary, LargeUtf8, List, Map, Null, Struct,
        Timestamp, Utf8, Utf8View,
    };
    let width = |t: &DataType| t.primitive_width();
    match (from, to) {
        (Null, _) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) | (Binary | LargeBinary | BinaryView, Binary) => true,
        (a, b) if a.is_integer() && b.is_integer() => {
            let grows =
                width(a) < width(b) || width(a) == width(b) && a.is_unsigned_integer() == b.is_unsigned_integer();
            // count(DISTINCT …) and the like of DataFusion are unsigned: never beyond the range of BIGINT.
            grows || a.is_unsigned_integer() && width(a) <= width(b)
        }
        (a, Float32 | Float64 | Decimal128(..)) => a.is_numeric(),
        (Date32, Timestamp(..)) | (Timestamp(..), Timestamp(..)) => true,
        (List(a), List(b)) => assignable(a.data_type(), b.data_type()),
        (Map(a, _), Map(b, _)) => assignable(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && assignable_or_same(a, b))
        }
        _ => from == to,
    }
}

fn assignable_or_same(a: &Arc<arrow::datatypes::Field>, b: &Arc<arrow::datatypes::Field>) -> bool {
    a.data_type() == b.data_type() || assignable(a.data_type(), b.data_type())
}

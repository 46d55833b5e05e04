//! Expressions of MEASURES and DEFINE as expressions over slots.
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Spanned, Value, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};
use millstream_dataflow::graph::Place;
use millstream_plan::options::did_you_mean;

use super::{SlotDef, SlotValue};
use crate::error::Mistake;
use crate::functions::forms::arguments;
use crate::refuse::name_of;
use crate::window::fail;

/// Qualifies columns of rows whatever they are mapped to.
const ANY: &str = "__any";
/// Qualifies slots.
const SLOT: &str = "__slot";

/// Gathers the slots of a clause.
pub(super) struct Binder<'a> {
    input: &'a LogicalPlan,
    time: &'a Expr,
    variables: &'a [String],
    /// The input's columns by variable.
    columns: Vec<(Option<TableReference>, FieldRef)>,
    slots: Vec<SlotDef>,
    arguments: Vec<Expr>,
    aggregates: Vec<Expr>,
}

type Context<'a> = &'a mut dyn RelationPlannerContext;

impl<'a> Binder<'a> {
    pub fn new(input: &'a LogicalPlan, time: &'a Expr, variables: &'a [String]) -> DfResult<Self> {
        let qualifiers = variables.iter().map(String::as_str).chain([ANY]);
        let columns = qualifiers.flat_map(|q| {
            let fields = input.schema().fields().iter();
            fields.map(move |f| (Some(TableReference::bare(q)), Arc::new(f.as_ref().clone().with_nullable(true))))
        });
        let (columns, slots, arguments, aggregates) = (columns.collect(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { input, time, variables, columns, slots, arguments, aggregates })
    }

    pub fn finish(self) -> (Vec<SlotDef>, Vec<Expr>, Vec<Expr>) {
        (self.slots, self.arguments, self.aggregates)
    }

    /// The slots as columns.
    pub fn schema(&self) -> DfResult<DFSchema> {
        let fields = self.slots.iter().map(|s| (None, s.field.clone()));
        DFSchema::new_with_metadata(fields.collect(), HashMap::new())
    }

    /// An expression over slots.
    pub fn bind(&mut self, sql: &SqlExpr, context: Context<'_>) -> DfResult<Expr> {
        let mut sql = sql.clone();
        let mut replace = Replace { binder: self, context };
        if let ControlFlow::Break(error) = sql.visit(&mut replace) {
            return Err(error);
        }
        let mut fields = self.columns.clone();
        fields.extend(self.slots.iter().map(|s| (Some(TableReference::bare(SLOT)), s.field.clone())));
        let expr = context.sql_to_expr(sql, &DFSchema::new_with_metadata(fields, HashMap::new())?)?;
        let bound = expr.transform(|e| match &e {
            Expr::Column(column) => Ok(Transformed::yes(Expr::Column(self.column(column)?))),
            _ => Ok(Transformed::no(e)),
        })?;
        Ok(bound.data)
    }

    /// The slot that a column of a variable or of another slot is.
    fn column(&mut self, column: &Column) -> DfResult<Column> {
        let qualifier = column.relation.as_ref().map_or("", |r| r.table());
        if qualifier == SLOT {
            return Ok(Column::new_unqualified(&column.name));
        }
        let text = if qualifier == ANY { column.name.clone() } else { format!("{qualifier}.{}", column.name) };
        let (variable, argument) = self.strip(Expr::Column(column.clone()), Location { line: 0, column: 0 })?;
        self.row(text, variable, Place::Last(0), 0, argument)
    }

    /// The slot of this text, which is made if it is new.
    fn row(
        &mut self,
        text: String,
        variable: Option<usize>,
        place: Place,
        back: u64,
        argument: Expr,
    ) -> DfResult<Column> {
        let data_type = argument.get_type(self.input.schema().as_ref())?;
        let known = self.arguments.iter().position(|a| *a == argument);
        let argument = known.unwrap_or_else(|| {
            self.arguments.push(argument);
            self.arguments.len() - 1
        });
        self.slot(text, data_type, variable, SlotValue::Row { place, back, argument })
    }

    fn slot(
        &mut self,
        text: String,
        data_type: arrow::datatypes::DataType,
        variable: Option<usize>,
        value: SlotValue,
    ) -> DfResult<Column> {
        if !self.slots.iter().any(|s| *s.field.name() == text) {
            let field = Arc::new(Field::new(&text, data_type, true));
            self.slots.push(SlotDef { field, variable, value });
        }
        Ok(Column::new_unqualified(text))
    }

    /// An expression over the columns of one variable, as one over the input, with the variable.
    fn strip(&self, expr: Expr, at: Location) -> DfResult<(Option<usize>, Expr)> {
        let mut variables: Vec<Option<usize>> = Vec::new();
        let stripped = expr.transform(|e| match &e {
            Expr::Column(column) => {
                let qualifier = column.relation.as_ref().map_or("", |r| r.table());
                variables.push(self.variables.iter().position(|v| *v == qualifier));
                let schema = self.input.schema();
                let index = schema.index_of_column_by_name(None, &column.name);
                let index =
                    index.ok_or_else(|| DataFusionError::Plan(format!("there is no column '{}'", column.name)))?;
                Ok(Transformed::yes(Expr::Column(Column::from(schema.qualified_field(index)))))
            }
            _ => Ok(Transformed::no(e)),
        })?;
        variables.dedup();
        match variables.as_slice() {
            [] => Ok((None, stripped.data)),
            [variable] => Ok((*variable, stripped.data)),
            _ => fail(
                Mistake::new(at, "one function looks at the rows of several variables")
                    .hint("write one function for each variable, as in LAST(A.x) - LAST(B.x)"),
            ),
        }
    }

    /// What stands inside a function of rows.
    fn inner(&self, sql: &SqlExpr, context: Context<'_>) -> DfResult<(Option<usize>, Expr)> {
        let mut sql = sql.clone();
        let at = sql.span().start;
        if let ControlFlow::Break(error) = sql.visit(&mut Qualify { input: self.input, variables: self.variables }) {
            return Err(error);
        }
        let expr = context.sql_to_expr(sql, &DFSchema::new_with_metadata(self.columns.clone(), HashMap::new())?)?;
        self.strip(expr.unalias_nested().data, at)
    }

    /// `FIRST(A.x [, n])`, `LAST(A.x [, n])`, `PREV(… [, n])`
    fn navigation(&mut self, function: &Function, name: &str, context: Context<'_>) -> DfResult<Column> {
        let at = function.name.span().start;
        let args = arguments(function).unwrap_or_default();
        let (Some(first), true) = (args.first(), args.len() <= 2) else {
            let usage = format!("write {0}(A.column) or {0}(A.column, 2)", name.to_uppercase());
            return fail(Mistake::new(at, format!("{} takes one or two arguments", name.to_uppercase())).hint(usage));
        };
        let offset = match args.get(1) {
            None => None,
            Some(SqlExpr::Value(value)) => match &value.value {
                Value::Number(n, _) => Some(n.parse::<u64>().ok().filter(|n| *n <= MAX_OFFSET)),
                _ => Some(None),
            },
            Some(_) => Some(None),
        };
        if offset == Some(None) {
            let message = format!("the offset of {} is a number up to {MAX_OFFSET}", name.to_uppercase());
            return fail(Mistake::new(at, message));
        }
        let offset = offset.flatten();
        let (place, back, inner) = match name {
            "first" => (Place::First(offset.unwrap_or(0)), 0, *first),
            "last" => (Place::Last(offset.unwrap_or(0)), 0, *first),
            _ => {
                let back = offset.unwrap_or(1);
                match first {
                    SqlExpr::Function(nested) if ["first", "last"].contains(&name_of(&nested.name).as_str()) => {
                        let args = arguments(nested).unwrap_or_default();
                        let n = match args.get(1).map(|a| a.to_string().parse::<u64>()) {
                            None => 0,
                            Some(Ok(n)) if n <= MAX_OFFSET => n,
                            Some(_) => {
                                return fail(Mistake::new(at, format!("an offset is a number up to {MAX_OFFSET}")));
                            }
                        };
                        let place = if name_of(&nested.name) == "first" { Place::First(n) } else { Place::Last(n) };
                        let Some(inner) = args.first() else {
                            return fail(Mistake::new(at, "FIRST and LAST take a column"));
                        };
                        (place, back, *inner)
                    }
                    plain => (Place::Last(0), back, *plain),
                }
            }
        };
        let (variable, argument) = self.inner(inner, context)?;
        self.row(function.to_string(), variable, place, back, argument)
    }

    /// An aggregate over the rows of a variable, or over all rows of the match.
    fn aggregate(&mut self, function: &Function, context: Context<'_>) -> DfResult<Column> {
        let at = function.name.span().start;
        let text = function.to_string();
        let mut function = function.clone();
        // `count(A.*)`
        let mut of = None;
        if let FunctionArguments::List(list) = &mut function.args
            && let [FunctionArg::Unnamed(arg)] = list.args.as_mut_slice()
        {
            match arg {
                FunctionArgExpr::QualifiedWildcard(name) => {
                    let name = name.to_string();
                    let Some(variable) = self.variables.iter().position(|v| *v == name) else {
                        return fail(
                            Mistake::new(at, format!("'{name}' is not a variable of the pattern"))
                                .hint(format!("its variables are {}", self.variables.join(", "))),
                        );
                    };
                    of = Some(variable);
                    *arg = FunctionArgExpr::Expr(SqlExpr::value(Value::Number("1".to_owned(), false)));
                }
                FunctionArgExpr::Wildcard => {
                    *arg = FunctionArgExpr::Expr(SqlExpr::value(Value::Number("1".to_owned(), false)));
                }
                _ => {}
            }
        }
        let (variable, call) = self.inner(&SqlExpr::Function(function), context)?;
        if !matches!(call, Expr::AggregateFunction(_)) {
            return fail(Mistake::new(at, "an aggregate here takes columns of one variable"));
        }
        let data_type = call.get_type(self.input.schema().as_ref())?;
        let known = self.aggregates.iter().position(|a| *a == call);
        let index = known.unwrap_or_else(|| {
            self.aggregates.push(call);
            self.aggregates.len() - 1
        });
        self.slot(text, data_type, of.or(variable), SlotValue::Aggregate(index))
    }
}

/// Rows that are looked back from one, at most.
const MAX_OFFSET: u64 = 10_000;

fn is_aggregate(name: &str, context: &dyn RelationPlannerContext) -> bool {
    let provider = context.context_provider();
    provider.get_function_meta(name).is_none() && provider.get_aggregate_meta(name).is_some()
}

/// `price` → `__any.price`, unless it belongs to a variable. A name that nothing has is a mistake.
fn qualify(expr: &mut SqlExpr, input: &LogicalPlan, variables: &[String]) -> DfResult<()> {
    let any = |span: Span| Ident::with_span(span, ANY);
    let columns = || input.schema().fields().iter().map(|f| f.name().as_str());
    let check = |name: &Ident| {
        if columns().any(|c| c == name.value) {
            return Ok(());
        }
        let mistake = Mistake::new(name.span.start, format!("there is no column '{}' here", name.value));
        fail(mistake.hint(match did_you_mean(&name.value, columns()) {
            Some(like) => format!("did you mean '{like}'?"),
            None => format!("columns are {}", columns().collect::<Vec<_>>().join(", ")),
        }))
    };
    match expr {
        SqlExpr::Identifier(name) => {
            check(name)?;
            *expr = SqlExpr::CompoundIdentifier(vec![any(name.span), name.clone()]);
        }
        SqlExpr::CompoundIdentifier(names) => match names.as_slice() {
            [slot, ..] if slot.value == SLOT => {}
            [variable, column, ..] if variables.contains(&variable.value) => check(column)?,
            [first, ..] if columns().any(|c| c == first.value) => names.insert(0, any(first.span)),
            [first, ..] => {
                let message = format!("'{}' is neither a variable of the pattern nor a column", first.value);
                let hint = format!("its variables are {}", variables.join(", "));
                return fail(Mistake::new(first.span.start, message).hint(hint));
            }
            [] => {}
        },
        _ => {}
    }
    Ok(())
}

fn subquery(expr: &SqlExpr) -> Option<DataFusionError> {
    let found = matches!(
        expr,
        SqlExpr::Subquery(_)
            | SqlExpr::Exists { .. }
            | SqlExpr::InSubquery { .. }
            | SqlExpr::AnyOp { .. }
            | SqlExpr::AllOp { .. }
    );
    found.then(|| {
        let mistake = Mistake::new(expr.span().start, "a subquery inside MATCH_RECOGNIZE is not supported on streams");
        DataFusionError::External(Box::new(mistake.hint("join its table before, in a view")))
    })
}

/// Replaces functions of rows by slots.
struct Replace<'b, 'a, 'c> {
    binder: &'b mut Binder<'a>,
    context: Context<'c>,
}

impl Replace<'_, '_, '_> {
    fn function(&mut self, function: &Function) -> DfResult<Option<Column>> {
        let name = name_of(&function.name);
        let at = function.name.span().start;
        Ok(Some(match name.as_str() {
            "first" | "last" | "prev" => self.binder.navigation(function, &name, self.context)?,
            "next" => {
                return fail(
                    Mistake::new(at, "NEXT looks at rows that have not come; it is not supported on streams")
                        .hint("put the condition on the later row, and look back with PREV"),
                );
            }
            "match_rowtime" => {
                let time = self.binder.time.clone();
                self.binder.row("MATCH_ROWTIME()".to_owned(), None, Place::Last(0), 0, time)?
            }
            "match_proctime" | "match_number" | "classifier" => {
                return fail(
                    Mistake::new(at, format!("{}() is not supported on streams", name.to_uppercase()))
                        .hint("use MATCH_ROWTIME(), and count the rows of a variable with COUNT(A.*)"),
                );
            }
            _ if function.over.is_none() && is_aggregate(&name, self.context) => {
                self.binder.aggregate(function, self.context)?
            }
            _ => return Ok(None),
        }))
    }
}

impl VisitorMut for Replace<'_, '_, '_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<DataFusionError> {
        if let Some(error) = subquery(expr) {
            return ControlFlow::Break(error);
        }
        if let SqlExpr::Function(function) = expr {
            let span = function.name.span();
            match self.function(function) {
                Err(error) => return ControlFlow::Break(error),
                Ok(None) => {}
                Ok(Some(slot)) => {
                    let mut name = Ident::with_quote('`', slot.name);
                    name.span = span;
                    *expr = SqlExpr::CompoundIdentifier(vec![Ident::with_span(span, SLOT), name]);
                }
            }
        }
        match qualify(expr, self.binder.input, self.binder.variables) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Qualifies the columns inside a function of rows.
struct Qualify<'a> {
    input: &'a LogicalPlan,
    variables: &'a [String],
}

impl VisitorMut for Qualify<'_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<DataFusionError> {
        if let Some(error) = subquery(expr) {
            return ControlFlow::Break(error);
        }
        match qualify(expr, self.input, self.variables) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<DataFusionError> {
        if let SqlExpr::Function(function) = expr
            && ["first", "last", "prev", "next"].contains(&name_of(&function.name).as_str())
        {
            let mistake = Mistake::new(function.name.span().start, "a function of rows stands inside another");
            let mistake = mistake.hint("PREV takes FIRST or LAST; nothing else is nested");
            return ControlFlow::Break(DataFusionError::External(Box::new(mistake)));
        }
        ControlFlow::Continue(())
    }
}

//! `MATCH_RECOGNIZE` becomes a [`MatchRecognize`] in the logical plan: partition columns, then measures.
//!
//! Conditions and measures look at rows of a match: `A.price` is the last of A's, `price` that of the last row, `FIRST`, `LAST` and `PREV` reach others,
//! aggregates take all of A's or of the match. Each of these is a **slot**: what is looked up in the row is an expression over the input (an argument),
//! and what remains is an expression over slots, which DataFusion never sees as one over a table.
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, SortExpr, UserDefinedLogicalNodeCore};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    AfterMatchSkip, Expr as SqlExpr, Ident, MatchRecognizePattern, MatchRecognizeSymbol, Measure, OrderByExpr,
    RepetitionQuantifier, RowsPerMatch, Spanned, SymbolDefinition, TableAlias, TableFactor,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_dataflow::graph::{Pattern, Place, SkipTo};
use millstream_dataflow::operators::MAX_PATTERN_STATES;

use self::slots::Binder;
use crate::error::Mistake;
use crate::functions::is_plan_time;
use crate::query::WITHIN;
use crate::window::{fail, milliseconds};

mod slots;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct MatchRecognize {
    pub input: Arc<LogicalPlan>,
    pub partition: Vec<Expr>,
    /// A column of the input: first of the order.
    pub time: Expr,
    /// The rest of the order.
    pub then: Vec<SortExpr>,
    /// Over the input.
    pub arguments: Vec<Expr>,
    /// Calls over the input.
    pub aggregates: Vec<Expr>,
    pub search: Arc<Search>,
    schema: DFSchemaRef,
}

/// What is searched: all that is not an expression over the input.
#[derive(Debug)]
pub(crate) struct Search {
    pub variables: Vec<Variable>,
    pub pattern: Pattern,
    /// As SQL.
    pub text: String,
    pub skip: SkipTo,
    pub within_ms: Option<i64>,
    pub slots: Vec<SlotDef>,
    /// Over the slots.
    pub measures: Vec<(String, Expr)>,
    /// Place of the order.
    pub order_at: Location,
}

#[derive(Debug)]
pub(crate) struct Variable {
    pub name: String,
    /// Over the slots; none: every row.
    pub condition: Option<Expr>,
    pub text: String,
}

/// A slot; its column is called as it is written in the query.
#[derive(Clone, Debug)]
pub(crate) struct SlotDef {
    pub field: FieldRef,
    pub variable: Option<usize>,
    pub value: SlotValue,
}

#[derive(Clone, Debug)]
pub(crate) enum SlotValue {
    Row {
        place: Place,
        back: u64,
        argument: usize,
    },
    /// By index of the node's aggregates.
    Aggregate(usize),
}

impl Search {
    /// How much later than its last row a match may be known, in milliseconds.
    pub fn delay_ms(&self) -> Option<i64> {
        self.pattern.length().map(|_| 0).or(self.within_ms)
    }
}

impl MatchRecognize {
    /// True if column `i` is a time by which windows can close: the time of a match's last row.
    pub fn is_time(&self, i: usize) -> bool {
        self.search.delay_ms().is_some()
            && i.checked_sub(self.partition.len()).is_some_and(|measure| self.is_row_time(measure))
    }

    /// True if a measure is the time of the match's last row.
    pub fn is_row_time(&self, measure: usize) -> bool {
        let Some((_, Expr::Column(column))) = self.search.measures.get(measure) else { return false };
        self.search.slots.iter().filter(|s| *s.field.name() == column.name).any(|slot| match slot.value {
            SlotValue::Row { place: Place::Last(0), back: 0, argument } => {
                slot.variable.is_none() && self.arguments[argument] == self.time
            }
            SlotValue::Row { .. } | SlotValue::Aggregate(_) => false,
        })
    }

    fn identity(&self) -> (&LogicalPlan, Vec<Expr>, String) {
        (&self.input, self.expressions(), format!("{:?}", self.search))
    }
}

impl PartialEq for MatchRecognize {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for MatchRecognize {}

impl Hash for MatchRecognize {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for MatchRecognize {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        match self.input.partial_cmp(&other.input) {
            Some(Ordering::Equal) => self.identity().2.partial_cmp(&other.identity().2),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for MatchRecognize {
    fn name(&self) -> &str {
        "MatchRecognize"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let mut all = self.partition.clone();
        all.push(self.time.clone());
        all.extend(self.then.iter().map(|sort| sort.expr.clone()));
        all.extend(self.arguments.iter().cloned());
        all.extend(self.aggregates.iter().cloned());
        all
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchRecognize: {} over {}", self.search.text, self.time)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let wanted = self.expressions().len();
        let (Some(input), true) = (inputs.pop(), exprs.len() == wanted) else {
            return Err(DataFusionError::Internal("MATCH_RECOGNIZE has one input and all its expressions".into()));
        };
        let mut exprs = exprs.into_iter();
        let partition = exprs.by_ref().take(self.partition.len()).collect();
        let time = exprs.next().unwrap_or_else(|| self.time.clone());
        let then = self.then.iter().zip(exprs.by_ref().take(self.then.len()));
        let then = then.map(|(sort, expr)| SortExpr { expr, ..sort.clone() }).collect();
        let arguments = exprs.by_ref().take(self.arguments.len()).collect();
        let aggregates = exprs.collect();
        let (search, schema) = (self.search.clone(), self.schema.clone());
        Ok(Self { input: Arc::new(input), partition, time, then, arguments, aggregates, search, schema })
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        // Its expressions name all that it needs.
        Some(vec![Vec::new()])
    }
}

/// Plans `MATCH_RECOGNIZE` in FROM.
#[derive(Debug)]
pub(crate) struct PatternPlanner;

impl RelationPlanner for PatternPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let at = relation.span().start;
        let TableFactor::MatchRecognize {
            table,
            partition_by,
            order_by,
            measures,
            rows_per_match,
            after_match_skip,
            pattern,
            symbols,
            alias,
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let clause =
            Clause { at, partition_by, order_by, measures, rows_per_match, after_match_skip, pattern, symbols };
        let input = context.plan(*table)?;
        let plan = clause.plan(input, context)?;
        let alias: Option<TableAlias> = alias;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The clause as it is written.
struct Clause {
    at: Location,
    partition_by: Vec<SqlExpr>,
    order_by: Vec<OrderByExpr>,
    measures: Vec<Measure>,
    rows_per_match: Option<RowsPerMatch>,
    after_match_skip: Option<AfterMatchSkip>,
    pattern: MatchRecognizePattern,
    symbols: Vec<SymbolDefinition>,
}

impl Clause {
    fn plan(self, input: LogicalPlan, context: &mut dyn RelationPlannerContext) -> DfResult<LogicalPlan> {
        if let Some(RowsPerMatch::AllRows(_)) = self.rows_per_match {
            return fail(
                Mistake::new(self.at, "ALL ROWS PER MATCH is not supported on streams")
                    .hint("write ONE ROW PER MATCH, and join its result with the table for the rows"),
            );
        }
        let (time, then, order_at) = self.order(&input, context)?;
        let mut variables: Vec<Ident> = Vec::new();
        let pattern = self.pattern(&self.pattern, &mut variables)?;
        let at = variables.first().map_or(self.at, |v| v.span.start);
        if pattern.places() > MAX_PATTERN_STATES as u64 {
            let message =
                format!("the pattern has more than {MAX_PATTERN_STATES} places when its repetitions are written out");
            return fail(Mistake::new(at, message).hint("count in a condition instead, as in COUNT(A.*) < 1000"));
        }
        if pattern.is_nullable() {
            return fail(
                Mistake::new(at, "the pattern matches without any row")
                    .hint("let at least one variable be there: A+ instead of A*"),
            );
        }
        let mut partition = Vec::new();
        let mut fields: Vec<(Option<_>, FieldRef)> = Vec::new();
        for sql in &self.partition_by {
            let Some(name) = last_name(sql) else {
                return fail(
                    Mistake::new(sql.span().start, "PARTITION BY takes columns")
                        .hint("compute the value in a view, and name its column"),
                );
            };
            let expr = context.sql_to_expr(sql.clone(), input.schema())?;
            let (_, field) = expr.to_field(input.schema().as_ref())?;
            fields.push((None, Arc::new(field.as_ref().clone().with_name(name))));
            partition.push(expr);
        }
        let names: Vec<String> = variables.iter().map(|v| v.value.clone()).collect();
        let mut binder = Binder::new(&input, &time, &names)?;
        let mut within_ms = None;
        let mut defined: Vec<Option<(Expr, String)>> = vec![None; names.len()];
        for SymbolDefinition { symbol, definition } in &self.symbols {
            if symbol.value == WITHIN {
                let ms = milliseconds(definition, context)?;
                if ms <= 0 {
                    return fail(Mistake::new(definition.span().start, "WITHIN must be longer than 0"));
                }
                within_ms = Some(ms);
                continue;
            }
            let Some(variable) = names.iter().position(|n| *n == symbol.value) else {
                return fail(unknown(symbol, "DEFINE", &names));
            };
            if defined[variable].is_some() {
                return fail(Mistake::new(symbol.span.start, format!("'{}' is defined twice", symbol.value)));
            }
            let expr = typed(binder.bind(definition, context)?, &binder)?;
            if expr.get_type(&binder.schema()?)? != DataType::Boolean {
                let message = format!("the condition of '{}' is not true or false", symbol.value);
                return fail(Mistake::new(definition.span().start, message));
            }
            if expr.exists(|e| Ok(is_plan_time(e)))? {
                return fail(
                    Mistake::new(
                        definition.span().start,
                        "a condition on rows cannot ask for the time at which they are read",
                    )
                    .hint("compare event times: the table's time column, or FIRST and LAST of it"),
                );
            }
            defined[variable] = Some((expr, definition.to_string()));
        }
        let mut measures = Vec::new();
        for Measure { expr: sql, alias } in &self.measures {
            let expr = typed(binder.bind(sql, context)?, &binder)?;
            if fields.iter().any(|(_, f)| *f.name() == alias.value) {
                let message = format!("MATCH_RECOGNIZE has a column '{}' already", alias.value);
                return fail(Mistake::new(alias.span.start, message).hint("name the measure otherwise"));
            }
            let data_type = expr.get_type(&binder.schema()?)?;
            fields.push((None, Arc::new(Field::new(&alias.value, data_type, true))));
            measures.push((alias.value.clone(), expr));
        }
        if fields.is_empty() {
            return fail(
                Mistake::new(self.at, "this MATCH_RECOGNIZE gives no columns").hint("write MEASURES … AS name"),
            );
        }
        let skip = self.skip(&names)?;
        let (slots, arguments, aggregates) = binder.finish();
        let variables = names.into_iter().zip(defined).map(|(name, defined)| {
            let (condition, text) = defined.unzip();
            Variable { name, condition, text: text.unwrap_or_else(|| "every row".to_owned()) }
        });
        let search = Search {
            variables: variables.collect(),
            pattern,
            text: self.pattern.to_string().replace("( ", "(").replace(" )", ")"),
            skip,
            within_ms,
            slots,
            measures,
            order_at,
        };
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        let (input, search) = (Arc::new(input), Arc::new(search));
        let node = MatchRecognize { input, partition, time, then, arguments, aggregates, search, schema };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    /// The time column and the rest of the order.
    fn order(
        &self,
        input: &LogicalPlan,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<(Expr, Vec<SortExpr>, Location)> {
        let Some(first) = self.order_by.first() else {
            return fail(
                Mistake::new(self.at, "MATCH_RECOGNIZE needs an order").hint("write ORDER BY the table's event time"),
            );
        };
        let at = first.expr.span().start;
        let mut order = Vec::new();
        for by in &self.order_by {
            let ascending = by.options.asc.unwrap_or(true);
            let expr = context.sql_to_expr(by.expr.clone(), input.schema())?;
            order.push(SortExpr::new(expr, ascending, by.options.nulls_first.unwrap_or(!ascending)));
        }
        let SortExpr { expr: time, asc, nulls_first } = order.remove(0);
        if !asc || nulls_first || !matches!(time, Expr::Column(_)) {
            return fail(
                Mistake::new(at, "the order of MATCH_RECOGNIZE begins with a column of event time, ascending")
                    .hint("write ORDER BY ts, where the table has WATERMARK FOR ts"),
            );
        }
        Ok((time, order, at))
    }

    fn skip(&self, names: &[String]) -> DfResult<SkipTo> {
        let find = |name: &Ident| match names.iter().position(|n| *n == name.value) {
            Some(variable) => Ok(variable),
            None => fail(unknown(name, "AFTER MATCH SKIP", names)),
        };
        Ok(match &self.after_match_skip {
            None | Some(AfterMatchSkip::PastLastRow) => SkipTo::PastLastRow,
            Some(AfterMatchSkip::ToNextRow) => SkipTo::NextRow,
            Some(AfterMatchSkip::ToFirst(name)) => SkipTo::First(find(name)?),
            Some(AfterMatchSkip::ToLast(name)) => SkipTo::Last(find(name)?),
        })
    }

    /// The pattern; its variables in order of appearance.
    fn pattern(&self, pattern: &MatchRecognizePattern, variables: &mut Vec<Ident>) -> DfResult<Pattern> {
        let mut parts = |parts: &[MatchRecognizePattern]| {
            parts.iter().map(|p| self.pattern(p, variables)).collect::<DfResult<Vec<_>>>()
        };
        Ok(match pattern {
            MatchRecognizePattern::Symbol(symbol) => self.symbol(symbol, variables)?,
            MatchRecognizePattern::Concat(all) => Pattern::Concat(parts(all)?),
            MatchRecognizePattern::Alternation(all) => Pattern::Either(parts(all)?),
            MatchRecognizePattern::Group(inner) => self.pattern(inner, variables)?,
            MatchRecognizePattern::Permute(symbols) => {
                if symbols.len() > MAX_PERMUTED {
                    let message = format!("PERMUTE of more than {MAX_PERMUTED} variables");
                    return fail(Mistake::new(self.at, message).hint("write out the orders that can come"));
                }
                let all = symbols.iter().map(|s| self.symbol(s, variables)).collect::<DfResult<Vec<_>>>()?;
                Pattern::Either(orders(&all).into_iter().map(Pattern::Concat).collect())
            }
            MatchRecognizePattern::Exclude(_) => {
                return fail(Mistake::new(self.at, "{- … -} in a pattern is not supported on streams"));
            }
            MatchRecognizePattern::Repetition(inner, quantifier) => {
                // `A+?` is parsed as `A+`, at most once.
                let (inner, quantifier, greedy) = match (&**inner, quantifier) {
                    (MatchRecognizePattern::Repetition(inner, own), RepetitionQuantifier::AtMostOne) => {
                        (&**inner, own, false)
                    }
                    (inner, own) => (inner, own, true),
                };
                let repeated = self.pattern(inner, variables)?;
                let (from, to) = match *quantifier {
                    RepetitionQuantifier::ZeroOrMore => (0, None),
                    RepetitionQuantifier::OneOrMore => (1, None),
                    RepetitionQuantifier::AtMostOne => (0, Some(1)),
                    RepetitionQuantifier::Exactly(n) => (n, Some(n)),
                    RepetitionQuantifier::AtLeast(n) => (n, None),
                    RepetitionQuantifier::AtMost(n) => (0, Some(n)),
                    RepetitionQuantifier::Range(n, m) => (n, Some(m)),
                };
                let at = variables.last().map_or(self.at, |v| v.span.start);
                if to.is_some_and(|to| to < from || to == 0) {
                    return fail(Mistake::new(at, format!("'{quantifier}' repeats nothing")));
                }
                if to.is_none() && repeated.is_nullable() {
                    return fail(
                        Mistake::new(at, format!("'{quantifier}' repeats what may be empty"))
                            .hint("let the repeated part have at least one row: (A B*)* instead of (A* B*)*"),
                    );
                }
                Pattern::Repeat { pattern: Box::new(repeated), from, to, greedy }
            }
        })
    }

    fn symbol(&self, symbol: &MatchRecognizeSymbol, variables: &mut Vec<Ident>) -> DfResult<Pattern> {
        let MatchRecognizeSymbol::Named(name) = symbol else {
            return fail(
                Mistake::new(self.at, format!("'{symbol}' in a pattern is not supported on streams"))
                    .hint("a partition of a stream has no end; put a condition on a variable instead"),
            );
        };
        let known = variables.iter().position(|v| v.value == name.value);
        Ok(Pattern::Variable(known.unwrap_or_else(|| {
            variables.push(name.clone());
            variables.len() - 1
        })))
    }
}

/// More variables have too many orders.
const MAX_PERMUTED: usize = 5;

/// All orders of `parts`, those that keep the given order longest first.
fn orders(parts: &[Pattern]) -> Vec<Vec<Pattern>> {
    if parts.is_empty() {
        return vec![Vec::new()];
    }
    let first = (0..parts.len()).flat_map(|i| {
        let mut rest = parts.to_vec();
        let first = rest.remove(i);
        orders(&rest).into_iter().map(move |mut order| {
            order.insert(0, first.clone());
            order
        })
    });
    first.collect()
}

fn unknown(name: &Ident, clause: &str, names: &[String]) -> Mistake {
    Mistake::new(name.span.start, format!("{clause} names '{}', which is not a variable of the pattern", name.value))
        .hint(format!("its variables are {}", names.join(", ")))
}

/// Adds the casts that the types ask for.
fn typed(expr: Expr, binder: &Binder) -> DfResult<Expr> {
    let schema: DFSchemaRef = Arc::new(binder.schema()?);
    let context = SimplifyContext::builder().with_schema(schema.clone()).build();
    ExprSimplifier::new(context).coerce(expr, &schema)
}

/// What a column or a field is called.
fn last_name(sql: &SqlExpr) -> Option<&str> {
    match sql {
        SqlExpr::Identifier(name) => Some(&name.value),
        SqlExpr::CompoundIdentifier(names) => names.last().map(|n| n.value.as_str()),
        _ => None,
    }
}

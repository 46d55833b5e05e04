//! What this version cannot run as a stream, refused before planning: one message per construct, with its place and what to
//! write instead.
mod forms;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, Join,
    JoinOperator, ObjectName, Query, Select, SetExpr, SetOperator, SetQuantifier, Spanned, TableFactor, TableVersion,
    Visit, Visitor, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::error::{Mistake, Result};
use crate::lex;

/// Expressions nested deeper are refused: they are evaluated by recursion on threads with small stacks, and planners need the square of
/// the depth.
const MAX_EXPR_DEPTH: usize = 200;

/// Functions that give another value when an epoch is replayed.
const NOT_REPEATABLE: &[&str] = &[
    "random",
    "rand",
    "randn",
    "rand_integer",
    "randstr",
    "uniform",
    "uuid",
    "uuid_string",
    "gen_random_uuid",
    "shuffle",
    "monotonically_increasing_id",
    "spark_partition_id",
    "input_file_name",
    "input_file_block_start",
    "input_file_block_length",
    "reflect",
    "java_method",
];

/// Aggregates whose result depends on the order of rows: they need an ORDER BY of their own, or are spelled differently.
const ORDERED: &[(&str, &str)] = &[
    ("collect", "write array_agg(x ORDER BY y)"),
    ("collect_list", "write array_agg(x ORDER BY y)"),
    ("collect_set", "write array_agg(DISTINCT x ORDER BY x)"),
    ("first", "write first_value(x ORDER BY y)"),
    ("first_value", "write first_value(x ORDER BY y)"),
    ("last", "write last_value(x ORDER BY y)"),
    ("last_value", "write last_value(x ORDER BY y)"),
    ("listagg", "write string_agg(x, ',' ORDER BY y)"),
    ("nth_value", "write nth_value(x, n ORDER BY y)"),
];

pub(crate) fn check_query(query: &Query, tokens: &[TokenWithSpan]) -> Result<()> {
    let start = tokens.first().map_or(Location { line: 0, column: 0 }, |t| t.span.start);
    match query.visit(&mut Refuse { tokens, depth: 0, patterns: 0 }) {
        ControlFlow::Break(mistake) => Err(mistake.or_at(start)),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Refuses clauses that mean something to aggregates alone, which DataFusion passes over where the function is none.
pub(crate) fn check_calls(query: &Query, is_aggregate: impl Fn(&str) -> bool) -> Result<()> {
    let checked = visit_expressions(query, |expr| {
        let Expr::Function(function) = expr else { return Flow::Continue(()) };
        let name = name_of(&function.name);
        let FunctionArguments::List(arguments) = &function.args else { return Flow::Continue(()) };
        let clause = match (&function.filter, arguments.duplicate_treatment) {
            (Some(_), _) => "FILTER",
            (_, Some(DuplicateTreatment::Distinct)) => "DISTINCT",
            _ if is_ordered(function) => "ORDER BY",
            _ if !function.within_group.is_empty() => "WITHIN GROUP",
            _ => return Flow::Continue(()),
        };
        if function.over.is_some() || is_aggregate(&name) {
            return Flow::Continue(());
        }
        let mistake = Mistake::new(function.name.span().start, format!("{clause} in {name}(), which is no aggregate"));
        Flow::Break(mistake.hint(format!("leave {clause} out, or use an aggregate such as count, sum or max")))
    });
    match checked {
        Flow::Break(mistake) => Err(mistake),
        Flow::Continue(()) => Ok(()),
    }
}

pub(crate) fn check_expr(expr: &Expr, tokens: &[TokenWithSpan]) -> Result<()> {
    match expr.visit(&mut Refuse { tokens, depth: 0, patterns: 0 }) {
        ControlFlow::Break(mistake) => Err(mistake),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// A clause by the token that it begins with: what it is called and what to do instead.
pub(crate) fn clause(token: &Token) -> Option<(&'static str, &'static str)> {
    let clauses: &[(&str, &str, &str)] = &[
        (
            "ORDER",
            "ORDER BY",
            "a stream has no end at which it could be sorted; add LIMIT, or sort what the sink holds",
        ),
        ("LIMIT", "LIMIT without ORDER BY", "say with ORDER BY which rows come first"),
        ("FETCH", "FETCH", "write ORDER BY … LIMIT"),
        ("OFFSET", "OFFSET without ORDER BY", "say with ORDER BY which rows come first"),
        ("QUALIFY", "QUALIFY here", "write it after WHERE and GROUP BY"),
        ("WINDOW", "WINDOW here", "write it after WHERE and GROUP BY, or use TABLE(TUMBLE(…)) in FROM"),
        ("MATCH_RECOGNIZE", "MATCH_RECOGNIZE after anything but a name", "name its input with WITH or CREATE VIEW"),
        ("PREWHERE", "PREWHERE", "write WHERE"),
        ("SETTINGS", "SETTINGS", "write SET before the INSERT"),
        ("FORMAT", "FORMAT", "name the format in the sink's table"),
        ("REPLACE", "* REPLACE", "name the columns"),
        ("PARTITION", "PARTITION of a table", "filter with WHERE"),
        ("BY", "LIMIT … BY", "write QUALIFY ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= n"),
        ("AGAINST", "MATCH … AGAINST", "write LIKE, or regexp_like(x, pattern)"),
    ];
    clauses.iter().find(|(word, ..)| lex::is_word(token, word)).map(|(_, what, instead)| (*what, *instead))
}

struct Refuse<'a> {
    /// Of the whole query, to find keywords whose place the tree does not keep.
    tokens: &'a [TokenWithSpan],
    /// Expressions around the current one.
    depth: usize,
    /// MATCH_RECOGNIZE around it.
    patterns: usize,
}

type Flow = ControlFlow<Mistake>;

fn no(at: impl Into<Option<Location>>, what: &str, instead: &str) -> Flow {
    ControlFlow::Break(Mistake::new(at, format!("{what} is not supported on streams")).hint(instead))
}

impl Refuse<'_> {
    /// First of these words at or after `from`.
    fn keyword(&self, from: Location, words: &[&str]) -> Location {
        let tokens = self.tokens.iter().filter(|t| t.span.start >= from);
        tokens.into_iter().find(|t| words.iter().any(|w| lex::is_word(&t.token, w))).map_or(from, |t| t.span.start)
    }

    fn start(&self) -> Location {
        self.tokens.first().map_or(Location { line: 0, column: 0 }, |t| t.span.start)
    }

    /// Joins that compare neighbours or rows of one row's own table.
    fn join(&self, join: &Join) -> Flow {
        let at = join.relation.span().start;
        let before = |word: &str| {
            let tokens = self.tokens.iter().rev().filter(|t| t.span.start < at);
            tokens.into_iter().find(|t| lex::is_word(&t.token, word)).map_or(at, |t| t.span.start)
        };
        match &join.join_operator {
            JoinOperator::AsOf { .. } => {
                no(before("ASOF"), "ASOF JOIN", "join on equality and a condition on both time columns")
            }
            JoinOperator::CrossApply | JoinOperator::OuterApply => no(before("APPLY"), "APPLY", "write JOIN … ON"),
            JoinOperator::StraightJoin(_) => no(before("STRAIGHT_JOIN"), "STRAIGHT_JOIN", "write JOIN … ON"),
            JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
                no(before("ARRAY"), "ARRAY JOIN", "select fields of nested rows by name")
            }
            _ => Flow::Continue(()),
        }
    }
}

impl Visitor for Refuse<'_> {
    type Break = Mistake;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        let from = query.body.span().end;
        if let Some(with) = query.with.as_ref().filter(|w| w.recursive) {
            return no(with.with_token.0.span.start, "WITH RECURSIVE", "write the steps out");
        }
        // ORDER BY with LIMIT or DISTINCT ON keeps the first rows of an order.
        let limited = query.limit_clause.is_some() || query.fetch.is_some() || has_distinct_on(&query.body);
        let clauses = [
            ("ORDER", query.order_by.is_some() && !limited),
            ("LIMIT", query.limit_clause.is_some() && query.order_by.is_none()),
            ("FETCH", query.fetch.is_some()),
        ];
        for (word, _) in clauses.iter().filter(|(_, there)| *there) {
            let at = self.keyword(from, &[word, "OFFSET"]);
            let token = self.tokens.iter().find(|t| t.span.start == at);
            if let Some((what, instead)) = token.and_then(|t| clause(&t.token)) {
                return no(at, what, instead);
            }
        }
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return no(self.keyword(from, &["FOR"]), "FOR", "leave it out");
        }
        if let Some((word, what, instead)) = forms::query(query) {
            return no(self.keyword(from, &[word]), what, instead);
        }
        if !query.pipe_operators.is_empty() {
            return no(from, "the pipe operator", "write the query as SELECT");
        }
        set_expr(self, &query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        let at = select.select_token.0.span.start;
        if select.from.is_empty() {
            return no(at, "SELECT without FROM", "name a table in FROM");
        }
        for join in select.from.iter().flat_map(|f| &f.joins) {
            self.join(join)?;
        }
        if !select.sort_by.is_empty() || !select.cluster_by.is_empty() || !select.distribute_by.is_empty() {
            return no(self.keyword(at, &["SORT", "CLUSTER", "DISTRIBUTE"]), "sorting", "sort what the sink holds");
        }
        if !select.connect_by.is_empty() || select.top.is_some() || select.into.is_some() || select.prewhere.is_some() {
            return no(at, "this form of SELECT", "write SELECT … FROM … WHERE … GROUP BY … HAVING");
        }
        match &select.group_by {
            GroupByExpr::All(_) => no(self.keyword(at, &["GROUP"]), "GROUP BY ALL", "name the columns"),
            GroupByExpr::Expressions(_, modifiers) => {
                if !modifiers.is_empty() {
                    let at = self.keyword(self.keyword(at, &["GROUP"]), &["WITH"]);
                    return no(at, "WITH after GROUP BY", "write GROUP BY ROLLUP (…) or CUBE (…)");
                }
                Flow::Continue(())
            }
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        let at = factor.span().start;
        match factor {
            TableFactor::Table { sample: Some(_), .. } => no(at, "TABLESAMPLE", "filter by a hash of a key"),
            TableFactor::Table { version: Some(version), .. }
                if !matches!(version, TableVersion::ForSystemTimeAsOf(_)) =>
            {
                no(at, "a table's version", "write JOIN t FOR SYSTEM_TIME AS OF a.ts AS x ON …")
            }
            TableFactor::Function { lateral: true, .. } => {
                let at = self.keyword(self.start(), &["LATERAL"]);
                no(at, "LATERAL with a function", "write LATERAL (SELECT …), or CROSS JOIN UNNEST(array)")
            }
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
                no(self.keyword(self.start(), &["PIVOT", "UNPIVOT"]), "PIVOT", "use aggregates with FILTER (WHERE …)")
            }
            TableFactor::MatchRecognize { .. } => {
                self.patterns += 1;
                Flow::Continue(())
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                table_with_joins.joins.iter().try_for_each(|join| self.join(join))
            }
            other => forms::table(other).map_or(Flow::Continue(()), |(what, instead)| no(at, what, instead)),
        }
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        self.patterns -= usize::from(matches!(factor, TableFactor::MatchRecognize { .. }));
        Flow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> Flow {
        self.depth -= 1;
        Flow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        self.depth += 1;
        if self.depth > MAX_EXPR_DEPTH {
            let message = format!("an expression is nested more than {MAX_EXPR_DEPTH} levels deep");
            return Flow::Break(
                Mistake::new(expr.span().end, message)
                    .hint("write x IN (…) for long chains of OR, and split long sums"),
            );
        }
        match expr {
            Expr::Function(function) => {
                let at = function.name.span().start;
                let name = name_of(&function.name);
                if NOT_REPEATABLE.contains(&name.as_str()) {
                    let message = format!("{name}() gives another value when an epoch is replayed");
                    return Flow::Break(
                        Mistake::new(at, message).hint("derive the value from the row, for instance by md5 of its key"),
                    );
                }
                // OVER brings an order of its own.
                let of_rows = self.patterns > 0 && ["first", "last"].contains(&name.as_str());
                let is_free = of_rows || function.over.is_some() || is_ordered(function);
                if let Some((_, instead)) = ORDERED.iter().find(|(n, _)| *n == name).filter(|_| !is_free) {
                    let message = format!("the result of {name} depends on the order of rows");
                    return Flow::Break(Mistake::new(at, message).hint(*instead));
                }
                if name == "current_watermark" {
                    return no(
                        at,
                        "CURRENT_WATERMARK",
                        "rows below the watermark have left the table before a query sees it; they are in the dead letters",
                    );
                }
                if ["current_time", "localtime"].contains(&name.as_str()) {
                    return no(at, &name, "use CURRENT_TIMESTAMP or CURRENT_DATE");
                }
                Flow::Continue(())
            }
            other => {
                let at = other.span().start;
                forms::expr(other).map_or(Flow::Continue(()), |(what, instead)| no(at, what, instead))
            }
        }
    }
}

/// True if the arguments bring an order: `f(x ORDER BY y)`.
fn is_ordered(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    list.clauses.iter().any(|c| matches!(c, FunctionArgumentClause::OrderBy(_)))
}

fn has_distinct_on(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Select(select) if matches!(select.distinct, Some(Distinct::On(_))))
}

fn set_expr(refuse: &Refuse<'_>, body: &SetExpr) -> Flow {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) => Flow::Continue(()),
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            let by_name = matches!(
                set_quantifier,
                SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName
            );
            if by_name {
                let words = match op {
                    SetOperator::Union => ["UNION", "UNION"],
                    SetOperator::Except | SetOperator::Minus => ["EXCEPT", "MINUS"],
                    SetOperator::Intersect => ["INTERSECT", "INTERSECT"],
                };
                let at = refuse.keyword(left.span().end, &words);
                return no(at, &format!("{op} BY NAME"), "name the columns");
            }
            set_expr(refuse, left)?;
            set_expr(refuse, right)
        }
        SetExpr::Values(_) => no(refuse.start(), "VALUES", "read a table; the datagen connector makes rows"),
        SetExpr::Table(_) => no(refuse.start(), "TABLE", "write SELECT * FROM it"),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            no(refuse.start(), "a change inside a query", "write INSERT INTO … SELECT")
        }
    }
}

/// True for functions that are refused because they give another value at every call.
#[cfg(test)]
pub(crate) fn is_refused(function: &str) -> bool {
    NOT_REPEATABLE.contains(&function)
}

/// Lowercase name of a function.
pub(crate) fn name_of(name: &ObjectName) -> String {
    name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase()).unwrap_or_default()
}

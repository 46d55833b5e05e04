//! Forms of the two dialects that DataFusion does not plan, rewritten into forms that it does.
//!
//! - Spark's `GROUP BY window(ts, '5 minutes')` and `session_window`, Flink's older `GROUP BY TUMBLE(ts, …)`: the table in
//!   FROM is wrapped into the window table function, and the window's fields become `window_start` and `window_end`.
//! - `JOIN t FOR SYSTEM_TIME AS OF a.ts`: see [`versions`].
//! - `CROSS JOIN UNNEST(a.list)`, `LATERAL VIEW explode(list)`: see [`unnest`].
//! - `SELECT a.b` gets the name `b`.
//! - `MOD(a, b)`, `IF(a, b, c)`, `HOUR(ts)`, `TO_TIMESTAMP_LTZ(ms, 3)` and their like.
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, Spanned, TableAlias,
    TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::{Mistake, Result};
use crate::refuse::name_of;
use crate::{unnest, versions};

/// Marks a session window whose sessions are per grouping key.
pub(crate) const PARTITION_BY_KEYS: &str = "__partition_by_keys";

pub(crate) fn rewrite_query(query: &mut Query) -> Result<()> {
    match query.visit(&mut Rewrite) {
        ControlFlow::Break(mistake) => Err(mistake),
        ControlFlow::Continue(()) => Ok(()),
    }
}

pub(crate) fn rewrite_expr(expr: &mut Expr) {
    // Only group windows can be mistaken, and an expression holds none.
    let _: ControlFlow<Mistake> = expr.visit(&mut Rewrite);
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = Mistake;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Mistake> {
        let rewritten = versions::rewrite(select).and_then(|()| unnest::rewrite(select));
        match rewritten.and_then(|()| group_window(select)) {
            Ok(()) => {
                name_fields(&mut select.projection);
                ControlFlow::Continue(())
            }
            Err(mistake) => ControlFlow::Break(mistake),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Mistake> {
        versions::check(factor)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Mistake> {
        if let Expr::Function(function) = expr
            && let Some(instead) = plain_form(function)
        {
            *expr = instead;
        }
        ControlFlow::Continue(())
    }
}

/// A field is called by its last name: `SELECT bid.price` gives `price`, unless another column is called so. What is selected twice
/// gets a name of its own the second time.
fn name_fields(items: &mut [SelectItem]) {
    let mut taken: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
            _ => None,
        })
        .collect();
    for i in 0..items.len() {
        let (before, rest) = items.split_at_mut(i);
        let Some(item) = rest.first_mut() else { continue };
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let last = match &*expr {
            Expr::Identifier(name) => Some(name),
            Expr::CompoundIdentifier(parts) => parts.last(),
            Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
                Some(AccessExpr::Dot(Expr::Identifier(name))) => Some(name),
                _ => None,
            },
            _ => None,
        };
        let repeats = before.iter().any(|b| match b {
            SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => e == &*expr,
            _ => false,
        });
        let alias = if repeats {
            let base = last.map_or("expr", |l| l.value.as_str());
            let free = (0..).map(|n| format!("{base}{n}")).find(|n| !taken.contains(n));
            free.map(|name| Ident::with_span(expr.span(), name))
        } else {
            last.filter(|l| !matches!(&*expr, Expr::Identifier(_)) && !taken.contains(&l.value)).cloned()
        };
        if let Some(alias) = alias {
            taken.push(alias.value.clone());
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// The form of a function call that DataFusion knows.
fn plain_form(function: &Function) -> Option<Expr> {
    let mut args = arguments(function)?.into_iter().cloned();
    let span = function.name.span();
    let count = args.len();
    match (name_of(&function.name).as_str(), count) {
        ("explode", 1) => Some(call("unnest", span, vec![args.next()?])),
        ("mod", 2) => {
            let nested = |e| Box::new(Expr::Nested(Box::new(e)));
            let (left, right) = (nested(args.next()?), nested(args.next()?));
            Some(Expr::Nested(Box::new(Expr::BinaryOp { left, op: BinaryOperator::Modulo, right })))
        }
        ("if", 3) => Some(Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen { condition: args.next()?, result: args.next()? }],
            else_result: Some(Box::new(args.next()?)),
        }),
        (part @ ("year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second"), 1) => {
            let part = Expr::Value(Value::SingleQuotedString(part.to_owned()).with_span(span));
            Some(call("date_part", span, vec![part, args.next()?]))
        }
        ("to_timestamp_ltz", 2) => {
            let value = args.next()?;
            let unit = match args.next()?.to_string().as_str() {
                "0" => "to_timestamp_seconds",
                "3" => "to_timestamp_millis",
                "6" => "to_timestamp_micros",
                _ => return None,
            };
            Some(call(unit, span, vec![value]))
        }
        ("timestamp_seconds", 1) => Some(call("to_timestamp_seconds", span, args.collect())),
        ("timestamp_millis", 1) => Some(call("to_timestamp_millis", span, args.collect())),
        ("timestamp_micros", 1) => Some(call("to_timestamp_micros", span, args.collect())),
        _ => None,
    }
}

/// A function of rows that makes windows, found in GROUP BY.
struct GroupWindow {
    /// As it stands in GROUP BY.
    call: Expr,
    /// The window table function and its arguments after the time column.
    function: &'static str,
    time: Expr,
    rest: Vec<Expr>,
    /// `window.start` and the like are fields of this.
    prefix: &'static str,
    span: Span,
}

fn group_window_of(expr: &Expr) -> Option<GroupWindow> {
    let Expr::Function(function) = expr else { return None };
    let mut args: Vec<Expr> = arguments(function)?.into_iter().cloned().collect();
    let span = function.name.span();
    let (name, prefix) = match (name_of(&function.name).as_str(), args.len()) {
        ("window", 2) => ("tumble", "window"),
        ("window", 3) => ("hop", "window"),
        ("window", 4) if args[1] == args[2] => ("tumble", "window"),
        ("window", 4) => ("hop", "window"),
        ("session_window", 2) => ("session", "session_window"),
        ("tumble", 2) => ("tumble", ""),
        ("hop", 3) => ("hop", ""),
        ("session", 2) => ("session", ""),
        _ => return None,
    };
    let time = args.remove(0);
    match (prefix, name, args.len()) {
        // Spark names the size first, the table function the slide.
        ("window", "hop", _) => args.swap(0, 1),
        ("window", "tumble", 3) => drop(args.remove(1)),
        _ => {}
    }
    if name == "session" {
        args.push(call(PARTITION_BY_KEYS, span, Vec::new()));
    }
    Some(GroupWindow { call: expr.clone(), function: name, time, rest: args, prefix, span })
}

fn group_window(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
    // GROUP BY may name the alias of a select item.
    for group in groups.iter_mut() {
        if let Expr::Identifier(name) = group
            && let Some(expr) = select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if alias.value == name.value => Some(expr),
                _ => None,
            })
            && group_window_of(expr).is_some()
        {
            *group = expr.clone();
        }
    }
    let mut found = groups.iter().enumerate().filter_map(|(i, g)| Some((i, group_window_of(g)?)));
    let Some((at, window)) = found.next() else { return Ok(()) };
    if let Some((_, second)) = found.next() {
        return Err(Mistake::new(second.span.start, "a query groups by one window").hint("write one INSERT per window"));
    }
    if select.from.len() > 1 || select.from.iter().any(|f| !f.joins.is_empty()) {
        return Err(Mistake::new(
            window.span.start,
            "a window in GROUP BY belongs to one table, and the query joins several",
        )
        .hint("join in a subquery: SELECT … FROM (SELECT … FROM a JOIN b …) GROUP BY …"));
    }
    groups.splice(at..=at, ["window_start", "window_end"].map(|n| name(n, window.span)));
    wrap_table(select, &window)?;
    let mut fields = WindowFields(&window);
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Some(alias) = fields.natural_name(expr)
        {
            let mut expr = expr.clone();
            let _: ControlFlow<()> = expr.visit(&mut fields);
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_span(window.span, alias) };
        } else {
            let _: ControlFlow<()> = item.visit(&mut fields);
        }
    }
    if let Some(having) = &mut select.having {
        let _: ControlFlow<()> = having.visit(&mut fields);
    }
    Ok(())
}

/// `FROM t` → `FROM TABLE(TUMBLE(t, DESCRIPTOR(ts), size)) AS t`
fn wrap_table(select: &mut Select, window: &GroupWindow) -> Result<()> {
    let Some(from) = select.from.first_mut() else { return Ok(()) };
    let (input, alias) = match &from.relation {
        TableFactor::Table { name, alias, args: None, .. } => {
            let idents: Vec<Ident> = name.0.iter().filter_map(|p| p.as_ident().cloned()).collect();
            let table = idents.last().cloned().unwrap_or_else(|| Ident::new(""));
            let alias =
                alias.clone().unwrap_or(TableAlias { explicit: true, name: table, columns: Vec::new(), at: None });
            (Expr::CompoundIdentifier(idents), Some(alias))
        }
        TableFactor::Derived { subquery, alias, .. } => (Expr::Subquery(subquery.clone()), alias.clone()),
        other => {
            return Err(Mistake::new(other.span().start, "this table has windows already")
                .hint("group by window_start, window_end, or use only one of the two forms"));
        }
    };
    let mut args = vec![input, call("descriptor", window.span, vec![window.time.clone()])];
    args.extend(window.rest.iter().cloned());
    from.relation = TableFactor::TableFunction { expr: call(window.function, window.span, args), alias };
    Ok(())
}

/// Replaces a window's fields in an expression.
struct WindowFields<'a>(&'a GroupWindow);

impl WindowFields<'_> {
    /// The column for `window.start` and the like.
    fn column(&self, expr: &Expr) -> Option<&'static str> {
        let of_field = |field: &str| match field.to_lowercase().as_str() {
            "start" => Some("window_start"),
            "end" => Some("window_end"),
            _ => None,
        };
        match expr {
            Expr::CompoundIdentifier(parts) if parts.len() == 2 && self.is_prefix(&parts[0].value) => {
                of_field(&parts[1].value)
            }
            Expr::CompoundFieldAccess { root, access_chain } if **root == self.0.call => {
                match access_chain.as_slice() {
                    [AccessExpr::Dot(Expr::Identifier(field))] => of_field(&field.value),
                    _ => None,
                }
            }
            Expr::Function(function) => {
                let name = name_of(&function.name);
                let part = name.strip_prefix(self.0.function)?;
                let first = arguments(function)?.first().copied().cloned();
                if first.as_ref() != Some(&self.0.time) {
                    return None;
                }
                match part {
                    "_start" => Some("window_start"),
                    "_end" => Some("window_end"),
                    "_rowtime" | "_proctime" => Some("window_time"),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn is_prefix(&self, name: &str) -> bool {
        !self.0.prefix.is_empty() && name.eq_ignore_ascii_case(self.0.prefix)
    }

    fn is_whole(&self, expr: &Expr) -> bool {
        *expr == self.0.call || matches!(expr, Expr::Identifier(i) if self.is_prefix(&i.value))
    }

    /// The name that Spark gives to an unnamed select item.
    fn natural_name(&self, expr: &Expr) -> Option<&'static str> {
        if self.0.prefix.is_empty() {
            return None;
        }
        match self.column(expr) {
            Some("window_start") => Some("start"),
            Some("window_end") => Some("end"),
            _ => self.is_whole(expr).then_some(self.0.prefix),
        }
    }
}

impl VisitorMut for WindowFields<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let span = self.0.span;
        if let Some(column) = self.column(expr) {
            *expr = name(column, span);
        } else if self.is_whole(expr) {
            let text = |t: &str| Expr::Value(Value::SingleQuotedString(t.to_owned()).with_span(span));
            let args = vec![text("start"), name("window_start", span), text("end"), name("window_end", span)];
            *expr = call("named_struct", span, args);
        }
        ControlFlow::Continue(())
    }
}

fn name(text: &str, span: Span) -> Expr {
    Expr::Identifier(Ident::with_span(span, text))
}

pub(crate) fn call(function: &str, span: Span, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::with_span(span, function))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The arguments of a call, if all are plain expressions.
pub(crate) fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    list.args
        .iter()
        .map(|a| match a {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}

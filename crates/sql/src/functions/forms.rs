//! Calls that are written out as other expressions before a query is planned.
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, Spanned,
    Value,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::{DATE_PART, Dialect, TRUNC, UNIX_NOW};
use crate::json_clauses::IS_JSON;
use crate::refuse::name_of;

/// What is written out, for the reference page: what a query says, and what it means.
pub(crate) const FORMS: &[(&str, &str)] = &[
    ("`IF(a, b, c)`", "`CASE WHEN a THEN b ELSE c END`"),
    ("`MOD(a, b)`", "`a % b`"),
    (
        "`YEAR`, `QUARTER`, `MONTH`, `WEEK` (`WEEKOFYEAR`), `DAY` (`DAYOFMONTH`), `DAYOFYEAR`, `DAYOFWEEK` (Sunday is 1), `WEEKDAY` (Monday is 0), `HOUR`, `MINUTE`, `SECOND` of a time",
        "a part of it, as an INT",
    ),
    ("`TIMESTAMPADD(unit, n, t)`, `DATEADD(unit, n, t)`", "n units after t"),
    (
        "`TIMESTAMPDIFF(unit, a, b)`, `DATEDIFF(unit, a, b)`",
        "whole units from a to b: INT in dialect flink, else BIGINT",
    ),
    ("`FLOOR(t TO unit)`, `CEIL(t TO unit)`", "t down or up to a whole unit; weeks begin on Sunday"),
    ("`UNIX_TIMESTAMP()`", "the plan's time in seconds"),
    ("`json -> key`, `json ->> key`", "a member by its name or an element by its place, as JSON or as text"),
    ("`text IS [NOT] JSON [VALUE \\| SCALAR \\| ARRAY \\| OBJECT]`", "whether a text is JSON; false for a null"),
    ("`a RLIKE b`, `a REGEXP b`, `REGEXP(a, b)`", "`regexp_like(a, b)`"),
    (
        "`SHA224(a)` to `SHA512(a)` in dialect flink",
        "`sha2(a, 224)`: a text of hexadecimal digits. In the others the digest's bytes",
    ),
    ("`TO_BASE64(a)`, `FROM_BASE64(a)`", "`base64(a)`, `CAST(unbase64(a) AS STRING)`"),
    (
        "`ENCODE(a, 'UTF-8')`, `DECODE(a, 'UTF-8')` in dialects flink and spark",
        "`CAST(a AS BYTES)`, `CAST(a AS STRING)`",
    ),
    ("`CARDINALITY(a)` in dialects flink and spark", "the number of elements as an INT"),
    ("`MAP(k, v, …)` in dialect spark", "a map of these keys and values"),
    ("`ROW(a, b)`", "`struct(a, b)`"),
    ("`COUNT_IF(a)`, `EVERY(a)`, `SOME(a)`", "`count(CASE WHEN a THEN 1 END)`, `bool_and(a)`, `bool_or(a)`"),
    ("`ISNULL(a)`, `ISNOTNULL(a)`", "`a IS NULL`, `a IS NOT NULL`"),
    (
        "`SIGN`, `TRUNCATE`, `E()`, `STARTSWITH`, `ENDSWITH`, `UCASE`, `LCASE`, `APPROX_COUNT_DISTINCT`",
        "`signum`, `trunc` of a number, 2.718…, `starts_with`, `ends_with`, `upper`, `lower`, `approx_distinct`",
    ),
];

/// Other names of functions.
const RENAMED: &[(&str, &str)] = &[
    ("sign", "signum"),
    ("startswith", "starts_with"),
    ("endswith", "ends_with"),
    ("ucase", "upper"),
    ("lcase", "lower"),
    ("regexp", "regexp_like"),
    ("every", "bool_and"),
    ("some", "bool_or"),
    ("approx_count_distinct", "approx_distinct"),
    ("truncate", TRUNC),
    ("row", "struct"),
];

/// The expression that `expr` stands for, if it is not itself.
pub(crate) fn written_out(expr: &Expr, dialect: Dialect) -> Option<Expr> {
    match expr {
        Expr::Function(function) => renamed(function).or_else(|| form(function, dialect)),
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Arrow | BinaryOperator::LongArrow), right } => {
            let name = if *op == BinaryOperator::Arrow { "json_get" } else { "json_get_text" };
            Some(call(name, right.span(), vec![(**left).clone(), (**right).clone()]))
        }
        Expr::IsNotDistinctFrom(text, kind) => is_json(text, kind),
        Expr::IsDistinctFrom(text, kind) => is_json(text, kind).map(not),
        Expr::RLike { negated, expr, pattern, .. } => {
            let matches = call("regexp_like", expr.span(), vec![(**expr).clone(), (**pattern).clone()]);
            Some(if *negated { not(matches) } else { matches })
        }
        Expr::CompoundFieldAccess { root, access_chain } => fields_as_texts(root, access_chain),
        Expr::Floor { expr, field } => rounded("date_floor", expr, field),
        Expr::Ceil { expr, field } => rounded("date_ceil", expr, field),
        _ => None,
    }
}

fn not(expr: Expr) -> Expr {
    let op = datafusion::sql::sqlparser::ast::UnaryOperator::Not;
    Expr::Nested(Box::new(Expr::UnaryOp { op, expr: Box::new(Expr::Nested(Box::new(expr))) }))
}

/// `f(x).field` and `a[1].field`: the planner wants the names of fields as texts, except those of a column that the chain begins with.
fn fields_as_texts(root: &Expr, chain: &[AccessExpr]) -> Option<Expr> {
    let is_name = |step: &AccessExpr| matches!(step, AccessExpr::Dot(Expr::Identifier(_)));
    let names = match root {
        Expr::Identifier(_) => chain.iter().take_while(|s| is_name(s)).count(),
        _ => 0,
    };
    let text = |(i, step): (usize, &AccessExpr)| match step {
        AccessExpr::Dot(Expr::Identifier(name)) if i >= names => AccessExpr::Dot(literal(&name.value, name.span)),
        other => other.clone(),
    };
    let written: Vec<AccessExpr> = chain.iter().enumerate().map(text).collect();
    let changed = written != chain;
    changed.then(|| Expr::CompoundFieldAccess { root: Box::new(root.clone()), access_chain: written })
}

fn rounded(name: &str, expr: &Expr, field: &CeilFloorKind) -> Option<Expr> {
    match field {
        CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) | CeilFloorKind::Scale(_) => None,
        CeilFloorKind::DateTimeField(unit) => {
            Some(call(name, expr.span(), vec![literal(&unit.to_string(), expr.span()), expr.clone()]))
        }
    }
}

/// `text IS NOT DISTINCT FROM __is_json('kind')`, which `json_clauses` has made of `IS JSON`.
fn is_json(text: &Expr, kind: &Expr) -> Option<Expr> {
    let Expr::Function(function) = kind else { return None };
    if name_of(&function.name) != IS_JSON {
        return None;
    }
    let kind = (*arguments(function)?.first()?).clone();
    Some(call("is_json", function.name.span(), vec![text.clone(), kind]))
}

fn renamed(function: &Function) -> Option<Expr> {
    let name = name_of(&function.name);
    let (_, to) = RENAMED.iter().find(|(from, _)| *from == name)?;
    Some(Expr::Function(with_name(function, to)))
}

fn with_name(function: &Function, name: &str) -> Function {
    let name = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_span(function.name.span(), name))]);
    Function { name, ..function.clone() }
}

fn form(function: &Function, dialect: Dialect) -> Option<Expr> {
    let given = arguments(function)?;
    let mut args = given.iter().map(|e| (*e).clone());
    let span = function.name.span();
    let name = name_of(&function.name);
    let part = |part: &str, of: Expr| call(DATE_PART, span, vec![literal(part, span), of]);
    let moved = |value: Expr, op, by: &str| binary(value, op, number(by, span));
    let ours = dialect != Dialect::DataFusion;
    Some(match (name.as_str(), given.len()) {
        ("explode", 1) => call("unnest", span, vec![args.next()?]),
        ("mod", 2) => binary(args.next()?, BinaryOperator::Modulo, args.next()?),
        ("if", 3) => case(args.next()?, args.next()?, args.next()),
        (unit @ ("year" | "quarter" | "month" | "week" | "day" | "hour" | "minute" | "second"), 1) => {
            part(unit, args.next()?)
        }
        ("weekofyear", 1) => part("week", args.next()?),
        ("dayofmonth", 1) => part("day", args.next()?),
        ("dayofyear", 1) => part("doy", args.next()?),
        ("dayofweek", 1) => moved(part("dow", args.next()?), BinaryOperator::Plus, "1"),
        ("weekday", 1) => moved(part("isodow", args.next()?), BinaryOperator::Minus, "1"),
        ("unix_timestamp", 0) => call(UNIX_NOW, span, Vec::new()),
        ("timestampadd" | "dateadd" | "date_add", 3) => in_units("timestampadd", &given, span)?,
        ("timestampdiff" | "datediff" | "date_diff", 3) => in_units("timestampdiff", &given, span)?,
        ("e", 0) => number("2.718281828459045", span),
        ("sha224" | "sha256" | "sha384" | "sha512", 1) if dialect == Dialect::Flink => {
            call("sha2", span, vec![args.next()?, number(&name[3..], span)])
        }
        ("to_base64", 1) => call("base64", span, vec![args.next()?]),
        ("from_base64", 1) => cast(call("unbase64", span, vec![args.next()?]), DataType::Text),
        ("encode", 2) if ours && is_utf8(given[1]) => cast(args.next()?, DataType::Binary(None)),
        ("decode", 2) if ours && is_utf8(given[1]) => cast(args.next()?, DataType::Text),
        ("cardinality", 1) if ours => cast(call("cardinality", span, vec![args.next()?]), DataType::Int(None)),
        ("isnull", 1) => Expr::Nested(Box::new(Expr::IsNull(Box::new(args.next()?)))),
        ("isnotnull", 1) => Expr::Nested(Box::new(Expr::IsNotNull(Box::new(args.next()?)))),
        ("count_if", 1) => {
            let counted = call("count", span, vec![case(args.next()?, number("1", span), None)]);
            let Expr::Function(counted) = counted else { return None };
            Expr::Function(Function { args: counted.args, ..with_name(function, "count") })
        }
        ("map", count) if dialect == Dialect::Spark && count > 0 && count % 2 == 0 => {
            let every = |from: usize| given.iter().skip(from).step_by(2).map(|e| (*e).clone()).collect();
            let (keys, values) = (call("make_array", span, every(0)), call("make_array", span, every(1)));
            call("map", span, vec![keys, values])
        }
        ("json_object" | "json_array", 1..) => return marked(&name, &given, span),
        _ => return None,
    })
}

/// The unit, a bare word for the parser, as a text.
fn in_units(name: &str, given: &[&Expr], span: Span) -> Option<Expr> {
    let (unit, rest) = given.split_first()?;
    let unit = match unit {
        Expr::Identifier(word) => literal(&word.value, span),
        other => (*other).clone(),
    };
    Some(call(name, span, std::iter::once(unit).chain(rest.iter().map(|e| (*e).clone())).collect()))
}

/// Says in the first argument which values are JSON already: those that are made by such functions.
fn marked(name: &str, given: &[&Expr], span: Span) -> Option<Expr> {
    let (mode, rest) = given.split_first()?;
    let Expr::Value(value) = mode else { return None };
    let Value::SingleQuotedString(mode) = &value.value else { return None };
    if mode.contains(':') {
        return None;
    }
    let each = if name == "json_object" { 2 } else { 1 };
    let makes_json = |e: &Expr| match e {
        Expr::Function(f) => ["json_object", "json_array", "json_query"].contains(&name_of(&f.name).as_str()),
        _ => false,
    };
    let marks = rest.iter().skip(each - 1).step_by(each).map(|e| if makes_json(e) { 'j' } else { 'v' });
    let mode = literal(&format!("{mode}:{}", marks.collect::<String>()), span);
    Some(call(name, span, std::iter::once(mode).chain(rest.iter().map(|e| (*e).clone())).collect()))
}

fn is_utf8(charset: &Expr) -> bool {
    match charset {
        Expr::Value(v) => {
            matches!(&v.value, Value::SingleQuotedString(s) if ["utf-8", "utf8", "us-ascii"].iter().any(|u| s.eq_ignore_ascii_case(u)))
        }
        _ => false,
    }
}

fn case(condition: Expr, result: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: otherwise.map(Box::new),
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    let nested = |e| Box::new(Expr::Nested(Box::new(e)));
    Expr::Nested(Box::new(Expr::BinaryOp { left: nested(left), op, right: nested(right) }))
}

fn number(digits: &str, span: Span) -> Expr {
    Expr::Value(Value::Number(digits.to_owned(), false).with_span(span))
}

pub(crate) fn literal(text: &str, span: Span) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).with_span(span))
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

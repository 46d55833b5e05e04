//! Expressions and conditions as text over numbered columns, drawn at random.
//!
//! Values stay small, so that nothing overflows. An expression of a time is a column, a literal or a sum, and never one that the planner
//! could fold to a column: what is a time attribute must be known here too.
use super::query::{Column, Type};
use crate::draws::Draws;

/// An expression over the columns of its input, which it names `{0}`, `{1}`, …
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub text: String,
    pub of: Type,
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    Atom(String),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
}

impl Condition {
    pub fn text(&self, names: &[String]) -> String {
        match self {
            Self::Atom(text) => named(text, names),
            Self::And(a, b) => format!("({} AND {})", a.text(names), b.text(names)),
            Self::Or(a, b) => format!("({} OR {})", a.text(names), b.text(names)),
            Self::Not(a) => format!("NOT ({})", a.text(names)),
        }
    }

    pub fn parts(&self) -> Vec<Self> {
        match self {
            Self::Atom(_) => Vec::new(),
            Self::And(a, b) | Self::Or(a, b) => vec![(**a).clone(), (**b).clone()],
            Self::Not(a) => vec![(**a).clone()],
        }
    }
}

/// Puts names in the place of `{0}`, `{1}`, …
pub fn named(text: &str, names: &[String]) -> String {
    names.iter().enumerate().fold(text.to_owned(), |text, (i, name)| text.replace(&format!("{{{i}}}"), name))
}

/// Column `i` as it is.
pub fn column(i: usize, of: Type) -> Expr {
    Expr { text: format!("{{{i}}}"), of }
}

/// No value of this type.
pub fn null(of: Type) -> Expr {
    let name = match of {
        Type::Int => "BIGINT",
        Type::Double => "DOUBLE",
        Type::Text => "STRING",
        Type::Decimal => "DECIMAL(10, 2)",
        Type::Time => "TIMESTAMP(3)",
        Type::Bool => "BOOLEAN",
        Type::Date => "DATE",
    };
    Expr { text: format!("CAST(NULL AS {name})"), of }
}

/// A value of this type.
fn any(of: Type) -> &'static str {
    match of {
        Type::Int => "1",
        Type::Double => "0.5",
        Type::Text => "'a'",
        Type::Decimal => "CAST(1.25 AS DECIMAL(10, 2))",
        Type::Time => "CAST('2020-01-01 00:00:03' AS TIMESTAMP(3))",
        Type::Bool => "true",
        Type::Date => "CAST('2020-01-02' AS DATE)",
    }
}

pub fn literal(draws: &mut Draws, of: Type) -> String {
    let literals: &[&str] = match of {
        Type::Int => &["0", "1", "3", "-2", "CAST(NULL AS BIGINT)"],
        Type::Double => &["0.5", "2.0", "-0.0", "CAST('NaN' AS DOUBLE)", "CAST(NULL AS DOUBLE)"],
        Type::Text => &["''", "'a'", "'Bc'", "'NULL'", "CAST(NULL AS STRING)"],
        Type::Decimal => &["CAST(1.25 AS DECIMAL(10, 2))", "CAST(NULL AS DECIMAL(10, 2))"],
        Type::Time => &["CAST('2020-01-01 00:00:03' AS TIMESTAMP(3))", "CAST(NULL AS TIMESTAMP(3))"],
        Type::Bool => &["true", "false", "CAST(NULL AS BOOLEAN)"],
        Type::Date => &["CAST('2020-01-02' AS DATE)", "CAST(NULL AS DATE)"],
    };
    (*draws.pick(literals)).to_owned()
}

/// A random expression of this type.
pub fn expr(draws: &mut Draws, of: Type, columns: &[Column], depth: usize) -> Expr {
    Expr { text: expr_text(draws, of, columns, depth), of }
}

fn column_of(draws: &mut Draws, of: Type, columns: &[Column]) -> Option<String> {
    let fit: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].of == of).collect();
    if fit.is_empty() { None } else { Some(format!("{{{}}}", draws.pick(&fit))) }
}

fn expr_text(draws: &mut Draws, of: Type, columns: &[Column], depth: usize) -> String {
    if depth == 0 || draws.chance(1, 3) {
        let column = if draws.chance(6, 7) { column_of(draws, of, columns) } else { None };
        return column.unwrap_or_else(|| literal(draws, of));
    }
    let a = expr_text(draws, of, columns, depth - 1);
    if of == Type::Time {
        return if draws.chance(1, 2) { a } else { format!("({a} + INTERVAL '1' SECOND)") };
    }
    let b = expr_text(draws, of, columns, depth - 1);
    match (draws.below(4), of) {
        (0, _) => format!("CASE WHEN {} THEN {a} ELSE {b} END", atom(draws, columns, 0)),
        (1, _) => format!("coalesce({a}, {b})"),
        (2, _) => format!("nullif({a}, {b})"),
        (_, Type::Int) => match draws.below(4) {
            0 => format!("({a} + {b})"),
            1 => format!("({a} % 5)"),
            2 => format!("CAST({} AS BIGINT)", expr_text(draws, Type::Bool, columns, 0)),
            _ => format!("CAST(char_length({}) AS BIGINT)", expr_text(draws, Type::Text, columns, depth - 1)),
        },
        (_, Type::Double) => match draws.below(3) {
            0 => format!("({a} * 2.0)"),
            1 => format!("({a} - {b})"),
            _ => format!("CAST({} AS DOUBLE)", expr_text(draws, Type::Int, columns, depth - 1)),
        },
        (_, Type::Text) => match draws.below(3) {
            0 => format!("upper({a})"),
            1 => format!("({a} || {b})"),
            _ => format!("substr({a}, 1, 1)"),
        },
        (_, Type::Decimal) => format!("CAST({a} - {b} AS DECIMAL(10, 2))"),
        (_, Type::Bool) => format!("({})", atom(draws, columns, 0)),
        (_, Type::Date) => format!("CAST({} AS DATE)", expr_text(draws, Type::Time, columns, 0)),
        (_, Type::Time) => a,
    }
}

/// A comparison of values of one type.
fn atom(draws: &mut Draws, columns: &[Column], depth: usize) -> String {
    let of = draws.pick(columns).of;
    let a = expr_text(draws, of, columns, depth.min(1));
    let b = expr_text(draws, of, columns, 0);
    let other = literal(draws, of);
    match (draws.below(6), of) {
        (0, _) => format!("{a} IS NULL"),
        (1, _) => format!("{a} IS NOT NULL"),
        (2, Type::Text) => format!("{a} LIKE 'a%'"),
        (2, Type::Bool) => format!("{a} IS NOT TRUE"),
        (3, Type::Bool) => a,
        (2, _) => format!("{a} BETWEEN {b} AND {other}"),
        (3, _) => format!("{a} IN ({other}, {b})"),
        (4, _) => format!("({a} IS DISTINCT FROM {b})"),
        _ => format!("{a} {} {b}", draws.pick(&["=", "<>", "<", ">="])),
    }
}

pub fn condition(draws: &mut Draws, columns: &[Column], depth: usize) -> Condition {
    if depth > 0 && draws.chance(1, 2) {
        let a = Box::new(condition(draws, columns, depth - 1));
        return match draws.below(3) {
            0 => Condition::And(a, Box::new(condition(draws, columns, depth - 1))),
            1 => Condition::Or(a, Box::new(condition(draws, columns, depth - 1))),
            _ => Condition::Not(a),
        };
    }
    Condition::Atom(atom(draws, columns, depth))
}

/// A condition on columns that are no times, as text over numbered columns; none if all are.
pub fn timeless(draws: &mut Draws, columns: &[Column], depth: usize) -> Option<Condition> {
    let fit: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].of != Type::Time).collect();
    if fit.is_empty() {
        return None;
    }
    let chosen: Vec<Column> = fit.iter().map(|i| columns[*i]).collect();
    let places: Vec<String> = fit.iter().map(|i| format!("{{{i}}}")).collect();
    fn moved(condition: Condition, places: &[String]) -> Condition {
        let both = |a: Box<Condition>| Box::new(moved(*a, places));
        match condition {
            Condition::Atom(text) => Condition::Atom(renumbered(&text, places)),
            Condition::And(a, b) => Condition::And(both(a), both(b)),
            Condition::Or(a, b) => Condition::Or(both(a), both(b)),
            Condition::Not(a) => Condition::Not(both(a)),
        }
    }
    Some(moved(condition(draws, &chosen, depth), &places))
}

/// The same text with `{i}` called `places[i]`.
pub fn renumbered(text: &str, places: &[String]) -> String {
    let hidden: Vec<String> = places.iter().map(|p| p.replace('{', "\u{1}")).collect();
    named(text, &hidden).replace('\u{1}', "{")
}

/// An aggregate. `over`: of a frame, with `OVER` where that belongs; the batch takes values out of moving frames by subtraction, so
/// its sums must be exact.
pub fn call(draws: &mut Draws, columns: &[Column], over: bool) -> Expr {
    let at = draws.below(columns.len());
    let (name, of) = (format!("{{{at}}}"), columns[at].of);
    // The smallest of NaN, −0.0 and others depends on their order in the batch.
    let ordered = match over {
        // In the batch the smallest value of a moving frame stays when all that is left are nulls.
        true => format!("coalesce({name}, {})", any(of)),
        false if of == Type::Double => format!("nanvl({name}, 0.5) + 0.0"),
        false => name.clone(),
    };
    let number = matches!(of, Type::Int | Type::Decimal) || of == Type::Double && !over;
    let (call, result) = match (draws.below(12), of) {
        (0 | 1, _) => ("count(*)".to_owned(), Type::Int),
        (2, _) => (format!("count({name})"), Type::Int),
        (3, _) if !over => (format!("count(DISTINCT {name})"), Type::Int),
        (4 | 5, _) => (format!("min({ordered})"), of),
        (6 | 7, _) => (format!("max({ordered})"), of),
        (8, Type::Bool) => (format!("bool_and({name})"), of),
        (9, Type::Bool) => (format!("bool_or({name})"), of),
        (8, Type::Int) if !over => (format!("sum(DISTINCT {name})"), of),
        (9, Type::Int) if !over => (format!("var_pop({name})"), Type::Int),
        (8 | 9, _) if number => (format!("avg({name})"), Type::Double),
        _ if number => (format!("sum({name})"), of),
        _ => (format!("max({ordered})"), of),
    };
    let moves = over && (call.starts_with("min") || call.starts_with("max"));
    let filter = match draws.chance(1, 4) && !moves {
        true => format!(" FILTER (WHERE {})", atom(draws, columns, 0)),
        false => String::new(),
    };
    let text = if over { format!("{call}{filter} OVER") } else { format!("{call}{filter}") };
    // Sums of decimals have more digits than what is summed.
    let text = match (of, result, call.starts_with("sum"), call.starts_with("avg")) {
        (Type::Decimal, _, true, _) => format!("CAST({text} AS DECIMAL(10, 2))"),
        (Type::Decimal, _, _, true) => format!("CAST({text} AS DOUBLE)"),
        // The last digits of a variance depend on the order of rows.
        _ if call.starts_with("var_pop") => format!("CAST(round({text} * 10 + 0.123) AS BIGINT)"),
        _ => text,
    };
    Expr { text, of: result }
}

//! Physical expressions as SQL, for `explain`.
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr,
    NotExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::types;

/// `expr` as a user would write it.
pub(crate) fn show(expr: &Arc<dyn PhysicalExpr>) -> String {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return column.name().to_owned();
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return show_value(literal.value());
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let side = |e: &Arc<dyn PhysicalExpr>| match e.downcast_ref::<BinaryExpr>() {
            Some(inner) if !binds_closer(inner.op(), binary.op()) => format!("({})", show(e)),
            _ => show(e),
        };
        return format!("{} {} {}", side(binary.left()), binary.op(), side(binary.right()));
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return format!("CAST({} AS {})", show(cast.expr()), types::name(cast.cast_type()));
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return show_call(call);
    }
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        let mut text = "CASE".to_owned();
        case.expr().iter().for_each(|e| text.push_str(&format!(" {}", show(e))));
        for (when, then) in case.when_then_expr() {
            text.push_str(&format!(" WHEN {} THEN {}", show(when), show(then)));
        }
        case.else_expr().iter().for_each(|e| text.push_str(&format!(" ELSE {}", show(e))));
        return text + " END";
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let values: Vec<String> = list.list().iter().map(show).collect();
        let not = if list.negated() { "NOT " } else { "" };
        return format!("{} {not}IN ({})", show(list.expr()), values.join(", "));
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let not = if like.negated() { "NOT " } else { "" };
        let word = if like.case_insensitive() { "ILIKE" } else { "LIKE" };
        return format!("{} {not}{word} {}", show(like.expr()), show(like.pattern()));
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return format!("NOT ({})", show(not.arg()));
    }
    if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
        return format!("{} IS NULL", show(null.arg()));
    }
    if let Some(some) = expr.downcast_ref::<IsNotNullExpr>() {
        return format!("{} IS NOT NULL", show(some.arg()));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        return format!("-({})", show(negative.arg()));
    }
    expr.to_string()
}

/// `a.b` for fields, `f(x, y)` otherwise.
fn show_call(call: &ScalarFunctionExpr) -> String {
    let args: Vec<String> = call.args().iter().map(show).collect();
    let names: Vec<&str> = call.args().iter().skip(1).filter_map(field_name).collect();
    match args.first() {
        Some(base) if call.name() == "get_field" && names.len() + 1 == args.len() => {
            format!("{base}.{}", names.join("."))
        }
        _ => format!("{}({})", call.name(), args.join(", ")),
    }
}

fn field_name(expr: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) => Some(name),
        _ => None,
    }
}

pub(crate) fn show_value(value: &ScalarValue) -> String {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => format!("'{}'", text.replace('\'', "''")),
        ScalarValue::IntervalMonthDayNano(Some(i)) => {
            let mut parts = Vec::new();
            let mut part = |amount: i64, unit: &str| {
                if amount != 0 {
                    parts.push(format!("INTERVAL '{amount}' {unit}"));
                }
            };
            part(i64::from(i.months), "MONTH");
            part(i64::from(i.days), "DAY");
            match i.nanoseconds / 1_000_000 {
                ms if ms % 3_600_000 == 0 => part(ms / 3_600_000, "HOUR"),
                ms if ms % 60_000 == 0 => part(ms / 60_000, "MINUTE"),
                ms if ms % 1000 == 0 => part(ms / 1000, "SECOND"),
                ms => part(ms, "MILLISECOND"),
            }
            if parts.is_empty() { "INTERVAL '0' SECOND".to_owned() } else { parts.join(" + ") }
        }
        ScalarValue::TimestampSecond(Some(_), _)
        | ScalarValue::TimestampMillisecond(Some(_), _)
        | ScalarValue::TimestampMicrosecond(Some(_), _)
        | ScalarValue::TimestampNanosecond(Some(_), _) => {
            let text = value.to_array().ok().and_then(|a| arrow::util::display::array_value_to_string(&a, 0).ok());
            format!("TIMESTAMP '{}'", text.unwrap_or_default().replace('T', " "))
        }
        other => other.to_string(),
    }
}

/// True if `inner` needs no brackets inside `outer`.
fn binds_closer(inner: &Operator, outer: &Operator) -> bool {
    inner.precedence() > outer.precedence() || inner == outer && matches!(outer, Operator::And | Operator::Or)
}

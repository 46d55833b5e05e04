//! Errors of DataFusion's planner in words for a user: what is wrong and what to write instead.
//!
//! [`Catalog`](crate::catalog::Catalog) finds their place; errors that need its names are put into words there.

/// Message and hint for the text of an error without its prefix; nothing if it is not known.
pub(crate) fn plain(text: &str) -> Option<(String, &'static str)> {
    let first = text.lines().next().unwrap_or_default();
    let first = first.split(". No function matches").next().unwrap_or_default();
    KNOWN.iter().find(|(known, ..)| first.contains(known)).map(|(_, message, hint)| {
        let message = match message.split_once("{}") {
            Some((before, after)) => format!("{before}{}{after}", quoted(first)),
            None if message.is_empty() => lowercase(first.trim_end_matches(['.', '!'])),
            None => (*message).to_owned(),
        };
        (message, *hint)
    })
}

const CAST: &str = "CAST one of them";
const ELSEWHERE: &str = "compute it in a subquery and name it there";

/// Part of an error; its message, in which `{}` stands for the first name in quotes (empty: the error's own first line); the hint.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "UNION queries have different number of columns",
        "the queries of UNION give different numbers of columns",
        "select as many columns in each",
    ),
    ("Cannot find column with position", "", "name the column"),
    (
        "HAVING clause references",
        "HAVING names what is neither grouped by nor aggregated",
        "write WHERE for conditions on rows",
    ),
    ("LIMIT must be >= 0", "LIMIT is negative", "write the number of rows to keep"),
    (
        "The subquery should only return one column",
        "the subquery gives several columns where one value is needed",
        "select one column, or join the subquery",
    ),
    (
        "Correlated scalar subquery must be aggregated",
        "a subquery that stands for one value may have several rows",
        "aggregate it, as in (SELECT max(x) FROM t WHERE …), or join it",
    ),
    ("does not support logical expression AggregateFunction", "an aggregate cannot stand here", ELSEWHERE),
    ("does not support logical expression WindowFunction", "a function with OVER cannot stand here", ELSEWHERE),
    (
        "Aggregate functions are not allowed in the WHERE clause",
        "an aggregate cannot stand in WHERE",
        "write HAVING after GROUP BY",
    ),
    ("failed to match any signature", "{} does not take these arguments", "CAST them, or give as many as it takes"),
    ("user-defined coercion failed", "the arguments of {} have no common type", CAST),
    (
        "only support Literal types for field",
        "this argument of a function with OVER must be a constant",
        "write a number",
    ),
    ("Cannot infer common argument type", "", CAST),
    ("Cannot coerce arithmetic expression", "", CAST),
    ("common type to coerce", "", CAST),
    ("Failed to coerce then", "the branches of CASE have no common type", CAST),
    ("is not defined!", "", "add WINDOW name AS (PARTITION BY … ORDER BY …) after WHERE and GROUP BY"),
    (
        "Unsupported ast node",
        "an expression of this form is not supported on streams",
        "write it with the functions of docs/sql.md",
    ),
    (
        "does not support escape_char",
        "LIKE and SIMILAR TO take no ESCAPE",
        "write a backslash before the character, or regexp_like(x, pattern)",
    ),
    (
        "regex parse error",
        "the regular expression is not valid",
        "write a backslash before brackets that are meant as such",
    ),
    ("Unsupported SQL type", "", "write a type such as BIGINT, DOUBLE, STRING or TIMESTAMP(3)"),
    ("Unsupported CAST from", "", "take a field or an element of it"),
    ("CAST with format is not supported", "CAST takes no format", "write to_timestamp(x, format)"),
    (
        "Cannot cast string",
        "the literal '{}' is not one of its type",
        "write it as in DATE '2020-01-31' or TIMESTAMP '2020-01-31 12:00:00'",
    ),
    ("Invalid input syntax for type interval", "this is not an interval", "write INTERVAL '5' MINUTE"),
    (
        "array_element does not support type",
        "only arrays and maps have elements",
        "select a field by its name, as in a.b",
    ),
    ("Invalid qualifier", "", "write the name of a table in FROM before the star"),
    ("does not support named arguments", "", "give the arguments in their order"),
    ("does not support zero arguments", "", "give it an argument"),
    ("non-boolean predicate", "the condition is neither true nor false", "compare it with a value"),
    ("is not yet supported", "", "write it with the functions of docs/sql.md"),
    ("expects", "", "CAST the argument, or give as many as it takes"),
];

/// The first name in quotes.
fn quoted(text: &str) -> &str {
    text.split('\'').nth(1).unwrap_or_default()
}

fn lowercase(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // Words in capitals stay as they are.
        Some(c) if chars.clone().next().is_some_and(char::is_lowercase) => c.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_is_wrong_and_what_to_write() {
        let said = |text: &str| plain(text).map(|(message, hint)| format!("{message}; {hint}"));
        assert_eq!(said("no such thing"), None);
        let cast = "cannot infer common argument type for comparison operation Int64 > Utf8; CAST one of them";
        assert_eq!(
            said("Cannot infer common argument type for comparison operation Int64 > Utf8").as_deref(),
            Some(cast)
        );
        let function = "sum does not take these arguments; CAST them, or give as many as it takes";
        assert_eq!(said("Function 'sum' failed to match any signature, errors: …").as_deref(), Some(function));
    }
}

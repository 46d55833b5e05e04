//! Forms of other databases that are parsed but that no planner here knows: what they are called and what to write instead.
use datafusion::sql::sqlparser::ast::{Expr, LimitClause, Query, TableFactor, Value};

/// Name and advice.
type Form = Option<(&'static str, &'static str)>;

pub(super) fn expr(expr: &Expr) -> Form {
    Some(match expr {
        Expr::IsNormalized { .. } => ("IS NORMALIZED", "leave it out"),
        Expr::Convert { .. } => ("CONVERT", "write CAST(x AS type)"),
        Expr::Collate { .. } => ("COLLATE", "compare lower(x), or the text as it is"),
        Expr::Prefixed { .. } => ("a literal with a character set", "write the literal alone"),
        Expr::MatchAgainst { .. } => ("MATCH … AGAINST", "write LIKE, or regexp_like(x, pattern)"),
        Expr::OuterJoin(_) => ("(+)", "write LEFT JOIN … ON"),
        Expr::Prior(_) => ("PRIOR", "join the table with itself"),
        Expr::MemberOf(_) => ("MEMBER OF", "write array_has(array, x)"),
        Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
            ("a parameter of a query", "write the value itself")
        }
        Expr::Identifier(name) if name.quote_style.is_none() && name.value.starts_with('@') => {
            ("a variable", "write the value itself")
        }
        _ => return None,
    })
}

pub(super) fn table(factor: &TableFactor) -> Form {
    Some(match factor {
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => {
            ("a table made of JSON", "declare the column as ROW or ARRAY, and select its fields or UNNEST it")
        }
        TableFactor::XmlTable { .. } => ("XMLTABLE", "take XML apart before it comes in"),
        TableFactor::SemanticView { .. } => ("SEMANTIC_VIEW", "write the query itself"),
        TableFactor::Table { partitions, .. } if !partitions.is_empty() => {
            ("PARTITION of a table", "filter with WHERE")
        }
        TableFactor::Table { json_path: Some(_), .. } => ("a path after a table", "select fields of its columns"),
        TableFactor::Table { with_hints, index_hints, .. } if !with_hints.is_empty() || !index_hints.is_empty() => {
            ("a hint after a table", "leave it out")
        }
        TableFactor::Derived { sample: Some(_), .. } => ("TABLESAMPLE", "filter by a hash of a key"),
        _ => return None,
    })
}

/// With the word at which it stands.
pub(super) fn query(query: &Query) -> Option<(&'static str, &'static str, &'static str)> {
    match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit: Some(Expr::Identifier(_) | Expr::CompoundIdentifier(_)), .. }) => {
            Some(("LIMIT", "a LIMIT that is not a number", "write the number of rows to keep"))
        }
        Some(LimitClause::LimitOffset { limit_by, .. }) if !limit_by.is_empty() => {
            let instead = "write QUALIFY ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= n";
            Some(("LIMIT", "LIMIT … BY", instead))
        }
        _ => None,
    }
}

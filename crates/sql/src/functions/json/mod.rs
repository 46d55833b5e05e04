//! JSON in texts. SQL's `JSON_VALUE`, `JSON_QUERY`, `JSON_EXISTS` and `IS JSON` as Flink has them; Spark's `get_json_object`, `from_json` and
//! `to_json`; PostgreSQL's `->` and `->>`; and what makes JSON.
//!
//! - `scan`: where values stand in a text, without building any; `path`: steps into it.
//! - `query`: functions that look into a text. `make`: functions that write one. `parse`: `from_json`.
//!
//! Values are passed on as they are written, without the blanks between them: `1.0` stays `1.0`, and `\u00e9` inside an object stays escaped.
//! A text that is no JSON has no values: null, or what `ON ERROR` says.
mod make;
mod parse;
mod path;
mod query;
mod scan;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

use super::zone::Zone;

pub(super) fn functions(zone: &Zone) -> Vec<Arc<ScalarUDF>> {
    query::functions()
        .into_iter()
        .chain(make::functions())
        .chain(parse::functions())
        .map(|p| p.function(zone))
        .collect()
}

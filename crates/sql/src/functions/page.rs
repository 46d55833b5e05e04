//! The reference page of functions, from the functions themselves.
use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::forms::FORMS;
use super::zone::Zone;
use super::{Dialect, Functions, Origin};

/// Text of `docs/functions.md` after its heading.
#[must_use]
pub fn functions_page() -> String {
    let [flink, spark, datafusion] =
        [Dialect::Flink, Dialect::Spark, Dialect::DataFusion].map(|d| Functions::new(d, &Zone::utc()));
    let mut page = String::from(INTRODUCTION);
    let names: BTreeSet<String> = flink.scalar_names().into_iter().collect();
    let origins = |name: &str| [&flink, &spark, &datafusion].map(|f| f.scalar.get(name).map(|(origin, _)| *origin));
    page.push_str(CLASHES);
    for name in &names {
        let found = origins(name);
        if found.iter().any(|o| *o != found[0]) {
            let cells = found.map(|o| o.map_or("", label));
            let _ = writeln!(page, "| `{name}` | {} |", cells.join(" | "));
        }
    }
    page.push_str("\n## Scalar functions by where they come from\n\nA name that clashes stands with its function of dialect flink.\n");
    for (origin, text) in SECTIONS {
        let own: Vec<String> =
            names.iter().filter(|n| origins(n)[0] == Some(*origin)).map(|n| format!("`{n}`")).collect();
        let _ = writeln!(page, "\n### {}\n\n{text}{}.", label(*origin), own.join(", "));
    }
    page.push_str("\n## Written out\n\nThese mean the expression beside them.\n\n| query | meaning |\n|---|---|\n");
    for (form, meaning) in FORMS {
        let _ = writeln!(page, "| {form} | {meaning} |");
    }
    let list = |names: Vec<String>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(page, "\n## Aggregates\n\n{AGGREGATES}{}.", list(flink.aggregate_names()));
    let _ = writeln!(page, "\n## Window functions\n\n{}.", list(flink.window_names()));
    let _ = writeln!(page, "\n## Functions of functions\n\n{}.", list(flink.higher_order_names()));
    page
}

fn label(origin: Origin) -> &'static str {
    match origin {
        Origin::Millstream => "Millstream",
        Origin::Both => "Flink and Spark",
        Origin::Flink => "Flink",
        Origin::Spark => "Spark",
        Origin::SparkCrate => "Spark (datafusion-spark)",
        Origin::DataFusion => "DataFusion",
    }
}

const INTRODUCTION: &str = "\
Flink's, Spark's and DataFusion's functions are all there. Where they give one name to different functions, `SET 'sql.dialect'` says whose is meant: \
`flink` (the default), `spark` or `datafusion`. Names that the chosen dialect does not have mean what they mean in the others. Operators are \
DataFusion's in every dialect: `5 / 2` is 2.

Times: `TIMESTAMP` is a time on the clock, `TIMESTAMP_LTZ` an instant. `SET 'table.local-time-zone' = 'Europe/Berlin'` (Spark's name is \
`spark.sql.session.timeZone`; UTC by default) is the zone in which instants are shown, cut, cast and formatted, and in which texts \
without an offset are read. `CURRENT_TIMESTAMP`, `NOW()` and `CURRENT_ROW_TIMESTAMP()` are the instant of the epoch's plan, `LOCALTIMESTAMP` and \
`CURRENT_DATE` what the zone's clock shows then, `PROCTIME()` that instant on a clock in UTC. Windows begin at whole sizes since 1970 in UTC. Instants inside `ROW`, \
`ARRAY` and `MAP` columns are shown in UTC. Patterns of dates have the letters `y u M L d D E H k h K m s S a Q q X x Z` of Java's `DateTimeFormatter`.

No value in a record stops a pipeline in the functions that are listed under Millstream, Flink, or Spark, unless the query asks for it (`ERROR ON ERROR`): what cannot be read \
is null. Those of datafusion-spark and DataFusion, and casts, may fail at a value (`url_decode` in dialect spark, `unbase64`, `CAST('x' AS INT)`; `TRY_CAST` gives null).

JSON paths of `JSON_VALUE`, `JSON_QUERY` and `JSON_EXISTS` are `[lax | strict] $.member['member'][0][*].*`, strict where nothing is said, as in Flink. `RETURNING` of `JSON_VALUE` takes \
`STRING`, `BOOLEAN`, `INTEGER`, `BIGINT` and `DOUBLE`. Values come out as they are written in the text, without blanks between them.

Refused, because a replay would give another value: `rand`, `random`, `randn`, `rand_integer`, `uuid`, `shuffle`, `monotonically_increasing_id`, `spark_partition_id`, \
`input_file_name` and their like. Refused, because no row can tell: `CURRENT_WATERMARK`.

";

const CLASHES: &str = "\
## Where names clash

| name | flink | spark | datafusion |
|---|---|---|---|
";

const SECTIONS: &[(Origin, &str)] = &[
    (Origin::Millstream, "The same in every dialect. "),
    (Origin::Both, ""),
    (Origin::Flink, "In dialect spark those of Spark, where it has them. "),
    (Origin::Spark, ""),
    (Origin::SparkCrate, "Described in [Spark's reference](https://spark.apache.org/docs/latest/api/sql/). "),
    (
        Origin::DataFusion,
        "Described in [DataFusion's reference](https://datafusion.apache.org/user-guide/sql/scalar_functions.html). ",
    ),
];

const AGGREGATES: &str =
    "Those whose result depends on the order of rows are refused. DataFusion's, and `try_sum` of Spark: ";

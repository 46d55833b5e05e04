//! SQL into a stream graph.
//!
//! A pipeline is a file of statements: `SET`, `CREATE TABLE`, `CREATE VIEW`, `INSERT INTO … SELECT`, in the dialects of Flink and Spark.
//! The way of a file:
//!
//! 1. `lex`, `statement`: tokens with places, cut into statements; DDL is parsed here, queries stay tokens.
//! 2. `settings`, `table`, `catalog`: settings and tables are checked against their declared options; names become known.
//! 3. `names`, `query`, `refuse`, `rewrite`: a query's names are respelled, sqlparser parses it, what no stream can do is refused,
//!    dialect forms are rewritten.
//! 4. DataFusion resolves, types and optimises it (`optimize`); window functions and set operations are nodes of their own (`window`, `set`).
//! 5. `uses`: what all queries together use of each table. `lower`: logical plans into [`Graph`] nodes.
//!
//! Planning is deterministic: the same text, overrides and build give the same graph and fingerprint on every process of a pipeline.
//! Every mistake is a [`SqlError`] with its place in the text.
mod catalog;
mod changelog;
mod cursor;
mod dialect;
mod error;
mod explain;
mod functions;
mod insert;
mod json_clauses;
mod lex;
mod local_times;
mod lower;
mod names;
mod optimize;
mod pattern;
mod pipeline;
mod query;
mod refuse;
mod rewrite;
mod set;
mod settings;
mod show;
mod statement;
mod table;
mod types;
mod unnest;
mod uses;
mod variables;
mod versions;
mod window;
mod words;

use std::collections::BTreeMap;

use millstream_connectors::{SinkSpec, SourceSpec};
use millstream_dataflow::graph::Graph;

pub use error::SqlError;
pub use explain::explain;
pub use functions::functions_page;
pub use settings::{Origin, SETTINGS, Settings, Trigger};
pub use variables::{GivenSetting, from_variables, setting};

/// A planned pipeline.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub settings: Settings,
    pub graph: Graph,
    /// By source id.
    pub sources: Vec<SourceSpec>,
    /// By sink id: one per INSERT, in the order of the text.
    pub sinks: Vec<SinkSpec>,
}

/// Plans a pipeline for `parallelism` tasks per stage. `conf` overrides its `SET` statements.
///
/// # Errors
/// The first mistake, with its place.
pub fn plan(sql: &str, conf: &BTreeMap<String, String>, parallelism: u16) -> Result<Pipeline, SqlError> {
    plan_changing(sql, conf, parallelism, &BTreeMap::new())
}

/// The same, with tables whose rows may also be taken away again, each with the columns that identify its rows (none: nothing does).
/// Stands in for formats of changes in tests.
///
/// # Errors
/// See [`plan`].
#[doc(hidden)]
pub fn plan_changing(
    sql: &str,
    conf: &BTreeMap<String, String>,
    parallelism: u16,
    changing: &BTreeMap<String, Vec<String>>,
) -> Result<Pipeline, SqlError> {
    // Parsers and planners recurse: their stack is made as deep as the longest statement that is accepted.
    let planned = std::thread::scope(|scope| {
        let work = || pipeline::build(sql, conf, parallelism, changing);
        let thread = std::thread::Builder::new().name("sql-planner".into()).stack_size(PLANNER_STACK);
        match thread.spawn_scoped(scope, work) {
            Ok(handle) => {
                handle.join().unwrap_or_else(|_| Err(error::Mistake::new(None, "the planner failed; this is a bug")))
            }
            Err(e) => Err(error::Mistake::new(None, format!("no thread for the planner: {e}"))),
        }
    });
    planned.map_err(|m| m.locate(sql))
}

/// Reserved, not used, except by statements that are refused for their depth.
const PLANNER_STACK: usize = 256 << 20;

/// The settings of a pipeline, without planning it.
///
/// # Errors
/// The first mistake in a statement's form or in a setting.
pub fn settings(sql: &str, conf: &BTreeMap<String, String>) -> Result<Settings, SqlError> {
    let settings = statement::parse_script(sql).and_then(|script| settings::resolve_settings(&script, conf));
    settings.map_err(|m| m.locate(sql))
}

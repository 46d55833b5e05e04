//! What sinks take: rows that stay, or also rows that are taken away again.
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_dataflow::graph::EdgeType;

use crate::error::{Mistake, Result};
use crate::table::Table;

/// An operator that takes rows away that it has emitted, and where the query writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedBy {
    pub operator: &'static str,
    pub at: Location,
}

/// Refuses to write a query's changes to a table that only takes appended rows.
pub(crate) fn require_append_only(table: &Table, query: &EdgeType, changed_by: Option<ChangedBy>) -> Result<()> {
    // The blackhole takes anything.
    if query.append_only || table.connector.name == "blackhole" {
        return Ok(());
    }
    let (operator, at) = changed_by.map_or(("its input", table.name.at), |c| (c.operator, c.at));
    let message = format!(
        "table '{}' ({}) takes only appended rows, but {operator} at {}:{} changes rows that it has emitted",
        table.name.text, table.connector.name, at.line, at.column
    );
    Err(Mistake::new(at, message).hint(
        "rank or aggregate the rows of a window, so that each is emitted once when its window closes: PARTITION BY or GROUP BY window_start, window_end",
    ))
}

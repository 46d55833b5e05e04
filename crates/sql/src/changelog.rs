//! Which sinks take changes: rows that are taken back after they have been emitted.
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_dataflow::graph::NodeKind;
use millstream_plan::OperatorId;

use crate::error::{Mistake, Result};
use crate::lower::Lowering;

/// Takes anything, to try a query out.
const TAKES_CHANGES: &str = "blackhole";

impl Lowering<'_> {
    /// Refuses to write `from`, if it changes rows that it has emitted, into a sink that only takes appended rows.
    pub(crate) fn require_append_only(&self, sink: &str, from: OperatorId) -> Result<()> {
        let table = self.catalog().table(sink);
        if self.output(from).append_only || table.is_some_and(|t| t.connector.name == TAKES_CHANGES) {
            return Ok(());
        }
        let (what, words) = self.first_that_changes(from);
        let at = self.place(words);
        let Location { line, column } = at;
        let message = format!(
            "table '{sink}' takes only appended rows, but {what} at {line}:{column} changes rows that it has emitted"
        );
        Err(Mistake::new(at, message).hint(
            "bound it by time, so that each row is emitted once: compare the time columns or the windows of both sides",
        ))
    }

    /// The operator above `from` at which rows are first taken back, and the words by which the query asks for it.
    fn first_that_changes(&self, from: OperatorId) -> (&'static str, &'static [&'static str]) {
        let node = &self.nodes[usize::from(from.0)];
        if let Some(input) = node.inputs.iter().find(|i| !self.output(i.from).append_only) {
            return self.first_that_changes(input.from);
        }
        match &node.kind {
            NodeKind::Join(_) => ("the join", &["JOIN", "EXISTS", "IN"]),
            NodeKind::Rank(_) => ("the rank", &["OVER", "DISTINCT", "LIMIT"]),
            NodeKind::Over(_) => ("OVER", &["OVER"]),
            _ => ("the query", &["SELECT"]),
        }
    }
}

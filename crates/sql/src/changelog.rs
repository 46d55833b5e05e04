//! Which sink takes which rows: an updating query needs a sink that can take rows back.
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_connectors::Changes;
use millstream_dataflow::graph::NodeKind;
use millstream_plan::OperatorId;

use crate::error::{Mistake, Result};
use crate::lower::Draft;

/// What a sink's table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Appended rows only. `key_would_help`: a PRIMARY KEY would make it take changes.
    Appended { key_would_help: bool },
    /// Changes too.
    Changes,
}

impl Takes {
    pub fn of(changes: Changes, has_key: bool) -> Self {
        match changes {
            Changes::Taken => Self::Changes,
            Changes::ByKey if has_key => Self::Changes,
            Changes::ByKey => Self::Appended { key_would_help: true },
            Changes::Refused => Self::Appended { key_would_help: false },
        }
    }
}

/// Refuses a query whose rows change if its sink takes only appended rows. Names the first operator whose rows change.
pub(crate) fn require_append_only(
    nodes: &[Draft],
    from: OperatorId,
    takes: Takes,
    table: &str,
    place: &dyn Fn(&[&str]) -> Location,
) -> Result<()> {
    let node = |id: OperatorId| &nodes[usize::from(id.0)];
    let Takes::Appended { key_would_help } = takes else { return Ok(()) };
    if node(from).output.append_only {
        return Ok(());
    }
    let mut at = from;
    while let Some(input) = node(at).inputs.iter().find(|i| !node(i.from).output.append_only) {
        at = input.from;
    }
    let (what, words) = operator(&node(at).kind);
    let message = format!("table '{table}' takes only appended rows, but {what} changes rows that it has emitted");
    let key = "add PRIMARY KEY (…) NOT ENFORCED to the table to keep the last row of each key";
    let others = "write to a kafka table with PRIMARY KEY (…) NOT ENFORCED, which keeps the last row of each key";
    let window = match &node(at).kind {
        NodeKind::GroupAggregate(_) => ", or aggregate per window: GROUP BY window_start, window_end",
        NodeKind::WindowAggregate(_) => ", or leave out SET 'emit.early', so that a window is emitted once",
        NodeKind::Join(_) => ", or bound the join by time: compare the time columns or the windows of both sides",
        NodeKind::Rank(_) => ", or rank the rows of a window: PARTITION BY window_start, window_end",
        _ => "",
    };
    Err(Mistake::new(place(&words), message).hint(format!("{}{window}", if key_would_help { key } else { others })))
}

/// What an operator is called in the query, and the words by which it is found there.
fn operator(kind: &NodeKind) -> (String, Vec<&str>) {
    match kind {
        NodeKind::GroupAggregate(spec) if spec.calls.is_empty() => {
            ("this DISTINCT".to_owned(), vec!["DISTINCT", "UNION", "GROUP"])
        }
        NodeKind::GroupAggregate(spec) => {
            let mut words = vec!["GROUP"];
            words.extend(spec.calls.iter().map(|c| c.function.fun().name()));
            ("this aggregation".to_owned(), words)
        }
        NodeKind::Set(spec) => (spec.name().to_owned(), vec!["EXCEPT", "MINUS", "INTERSECT"]),
        NodeKind::WindowAggregate(spec) if spec.early.is_some() => {
            ("'emit.early'".to_owned(), vec!["window_start", "window_end", "GROUP"])
        }
        NodeKind::Join(_) => ("the join".to_owned(), vec!["JOIN", "EXISTS", "IN"]),
        NodeKind::Rank(_) => ("the rank".to_owned(), vec!["OVER", "DISTINCT", "LIMIT"]),
        NodeKind::Over(_) => ("OVER".to_owned(), vec!["OVER"]),
        NodeKind::Source(source) => (format!("table '{}'", source.table), vec![source.table.as_str()]),
        NodeKind::Calc(_)
        | NodeKind::WindowAssign(_)
        | NodeKind::SessionAssign(_)
        | NodeKind::PartialWindowAggregate(_)
        | NodeKind::WindowAggregate(_)
        | NodeKind::Expand(_)
        | NodeKind::PartialGroupAggregate(_)
        | NodeKind::Union
        | NodeKind::LocalRank(_)
        | NodeKind::Sink(_) => ("the query".to_owned(), Vec::new()),
    }
}

//! Which sink takes which rows: an updating query needs a sink that can take rows back.
//!
//! A sink that publishes every change must publish the same ones in a replay. A topic whose records have a key may be compacted in between: then
//! the replay reads fewer of them, and gives other changes, though the same last row of each key.
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_connectors::{Changes, SourceSpec};
use millstream_dataflow::graph::{KeyedInput, NodeKind};
use millstream_plan::OperatorId;
use millstream_plan::options::Resolved;

use crate::error::{Mistake, Result};
use crate::lower::Draft;
use crate::table::Table;

/// What a sink's table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Appended rows only. What would make it take changes.
    Appended { hint: &'static str },
    /// Changes, of which it keeps the last row of each key.
    ByKey,
    /// Changes, all of which it publishes.
    All,
    /// Changes, on which nobody relies.
    Shown,
}

impl Takes {
    /// By the table's declaration and its output mode.
    pub fn of(table: &Table, options: &Resolved) -> Result<Self> {
        let takes = match table.changes() {
            Changes::Refused { hint } => Self::Appended { hint },
            Changes::ByKey => Self::ByKey,
            Changes::All => Self::All,
            Changes::Shown => Self::Shown,
        };
        match options.text("outputMode").map(str::to_ascii_lowercase).as_deref() {
            Some("append") if !matches!(takes, Self::Appended { .. }) => {
                Ok(Self::Appended { hint: "leave 'outputMode' = 'append' out, or write 'update'" })
            }
            Some("complete") => {
                let message = "'outputMode' = 'complete' writes the whole result in every epoch, which no sink does";
                let hint = "set it to 'update': a table with a PRIMARY KEY then holds the whole result, and only what changes is written";
                Err(Mistake::new(table.place_of(options.given_as("outputMode")), message).hint(hint))
            }
            _ => Ok(takes),
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
    let Takes::Appended { hint } = takes else { return Ok(()) };
    if node(from).output.append_only {
        return Ok(());
    }
    let mut at = from;
    while let Some(input) = node(at).inputs.iter().find(|i| !node(i.from).output.append_only) {
        at = input.from;
    }
    let reads_table = matches!(&node(at).kind, NodeKind::Source(_));
    let (what, words) = operator(&node(at).kind);
    let how = if reads_table { "gives rows that change" } else { "changes rows that it has emitted" };
    let message = format!("table '{table}' takes only appended rows, but {what} {how}");
    let window = match &node(at).kind {
        NodeKind::GroupAggregate(_) => ", or aggregate per window: GROUP BY window_start, window_end",
        NodeKind::WindowAggregate(_) => ", or leave out SET 'emit.early', so that a window is emitted once",
        NodeKind::Join(_) => ", or bound the join by time: compare the time columns or the windows of both sides",
        NodeKind::Rank(_) => ", or rank the rows of a window: PARTITION BY window_start, window_end",
        _ => "",
    };
    Err(Mistake::new(place(&words), message).hint(format!("{hint}{window}")))
}

/// Refuses to publish every change of a table whose records may be gone in a replay.
pub(crate) fn require_kept(
    nodes: &[Draft],
    sources: &[SourceSpec],
    from: OperatorId,
    takes: Takes,
    table: &str,
    place: &dyn Fn(&[&str]) -> Location,
) -> Result<()> {
    let node = |id: OperatorId| &nodes[usize::from(id.0)];
    if takes != Takes::All || node(from).output.append_only {
        return Ok(());
    }
    let mut below = vec![from];
    while let Some(at) = below.pop() {
        below.extend(node(at).inputs.iter().map(|i| i.from));
        let NodeKind::Source(source) = &node(at).kind else { continue };
        let Some(spec) = sources.iter().find(|s| s.id == source.source) else { continue };
        let is_changelog = spec.format.as_ref().is_some_and(|f| f.kind.is_changelog());
        if !spec.key.is_empty() && !is_changelog && spec.options.is_true("scan.compacted") {
            let message = format!(
                "table '{table}' publishes every change, but the topic of '{}' may be compacted before a replay reads it again, which \
                 would then give other changes",
                source.table
            );
            return Err(Mistake::new(place(&[source.table.as_str()]), message).hint(format!(
                "write to a kafka table with PRIMARY KEY (…) NOT ENFORCED, which keeps the last row of each key; or set 'scan.compacted' = \
                 'false' on '{}' if its topic keeps every record for longer than the pipeline may be down",
                source.table
            )));
        }
    }
    Ok(())
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
        NodeKind::Keyed(keyed) if keyed.input == KeyedInput::Upserts => {
            (format!("table '{}'", keyed.table), vec![keyed.table.as_str()])
        }
        NodeKind::Calc(_)
        | NodeKind::WindowAssign(_)
        | NodeKind::SessionAssign(_)
        | NodeKind::PartialWindowAggregate(_)
        | NodeKind::WindowAggregate(_)
        | NodeKind::Expand(_)
        | NodeKind::PartialGroupAggregate(_)
        | NodeKind::Union
        | NodeKind::Unnest(_)
        | NodeKind::LocalRank(_)
        | NodeKind::RowPattern(_)
        | NodeKind::Keyed(_)
        | NodeKind::Sink(_) => ("the query".to_owned(), Vec::new()),
    }
}

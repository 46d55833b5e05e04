//! Ranks and functions over frames, for people and for the fingerprint.
use millstream_dataflow::graph::{Node, Ordered, Over, OverFunction, Rank, RankFunction};

fn name(function: RankFunction) -> &'static str {
    match function {
        RankFunction::RowNumber => "row_number()",
        RankFunction::Rank => "rank()",
        RankFunction::DenseRank => "dense_rank()",
    }
}

fn columns(rows: &Ordered, columns: impl Iterator<Item = usize>) -> String {
    let names: Vec<&str> = columns.map(|c| rows.input.field(c).name().as_str()).collect();
    names.join(", ")
}

fn order(rows: &Ordered) -> String {
    let shown = rows.order.iter().map(|s| {
        let direction = if s.descending { " DESC" } else { "" };
        // As where nothing is said: last ascending, first descending.
        let nulls = match (s.descending, s.nulls_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{}{direction}{nulls}", columns(rows, std::iter::once(s.column)))
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { "the columns".to_owned() } else { format!("{}, then the other columns", shown.join(", ")) }
}

fn describe(rows: &Ordered) -> String {
    format!("{:?} {:?} {} {:?}", rows.partition, rows.order, rows.append_only, rows.close)
}

pub(super) fn describe_rank(spec: &Rank) -> Vec<String> {
    let ranks = format!("rank {:?} {} {} {}", spec.function, spec.from, spec.to, spec.numbered);
    vec![ranks, describe(&spec.rows)]
}

pub(super) fn describe_over(spec: &Over) -> Vec<String> {
    let mut lines = vec!["over".to_owned(), describe(&spec.rows)];
    for call in &spec.calls {
        lines.push(match &call.function {
            OverFunction::Aggregate { call, frame } => {
                let args: Vec<String> = call.function.expressions().iter().map(ToString::to_string).collect();
                let filter = call.filter.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{} {} {frame:?} {filter}", call.function.fun().name(), args.join(" "))
            }
            OverFunction::Window(expr) => {
                let args: Vec<String> = expr.expressions().iter().map(ToString::to_string).collect();
                format!("{} {:?}", args.join(" "), expr.get_window_frame())
            }
        });
        lines.push(call.text.clone());
    }
    lines
}

/// What leaves the node.
fn output(node: &Node) -> String {
    let kind = if node.output.append_only { "append-only" } else { "updating" };
    let named = |key: &Vec<usize>| {
        let names: Vec<&str> = key.iter().map(|c| node.output.schema.field(*c).name().as_str()).collect();
        format!(", key {}", names.join(", "))
    };
    format!("output     {kind}{}", node.output.key.as_ref().map(named).unwrap_or_default())
}

fn partition(rows: &Ordered) -> Vec<String> {
    let by = if rows.partition.is_empty() { "none".to_owned() } else { columns(rows, rows.partition.iter().copied()) };
    vec![format!("partition  {by}"), format!("order      {}", order(rows))]
}

pub(super) fn rank_lines(spec: &Rank, node: &Node) -> Vec<String> {
    let ranks = match (spec.from, spec.to) {
        (from, u64::MAX) => format!("from {from} on"),
        (1, to) => format!("up to {to}"),
        (from, to) => format!("{from} to {to}"),
    };
    let numbered = if spec.numbered { ", with the rank" } else { "" };
    let mut lines = vec!["rank".to_owned(), format!("keeps      {} {ranks}{numbered}", name(spec.function))];
    lines.extend(partition(&spec.rows));
    let rows = match spec.is_bounded() {
        true if spec.to == 1 => "the first row of each partition".to_owned(),
        true => format!("the first {} rows of each partition", spec.to),
        false => "all rows of its input".to_owned(),
    };
    let rows = if spec.function == RankFunction::RowNumber {
        rows
    } else {
        rows.replace(" rows of each", " ranks of each").replace(" row of each", " rank of each")
    };
    lines.push(match (&spec.rows.close, spec.rows.partition.is_empty()) {
        (Some(close), _) => {
            let end = columns(&spec.rows, std::iter::once(close.end));
            format!("state      {rows}, until the watermark has passed {end}, then emitted once")
        }
        (None, true) if spec.is_bounded() => {
            format!("state      bounded: {}", rows.replace(" of each partition", ""))
        }
        (None, _) if spec.is_bounded() => {
            format!("state      {rows}; grows with the number of partitions")
        }
        (None, _) => format!("state      {rows}; grows with them"),
    });
    lines.push(output(node));
    lines
}

pub(super) fn over_lines(spec: &Over, node: &Node) -> Vec<String> {
    let calls: Vec<&str> = spec.calls.iter().map(|c| c.text.as_str()).collect();
    let mut lines = vec!["over".to_owned(), format!("computes   {}", calls.join(", "))];
    lines.extend(partition(&spec.rows));
    let reach = spec.calls.iter().map(|c| c.reach).reduce(|a, b| Some((a?.0.max(b?.0), a?.1.max(b?.1)))).flatten();
    lines.push(match reach {
        Some((back, ahead)) => format!("changes    reach {back} rows back and {ahead} ahead"),
        None => "changes    compute their partition anew".to_owned(),
    });
    lines.push("state      all rows of its input; grows with them".to_owned());
    lines.push(output(node));
    lines
}

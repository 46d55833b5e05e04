//! Ranks and functions over frames, for people and for the fingerprint.
use millstream_dataflow::graph::{
    Formula, Memory, Node, Ordered, Over, OverFunction, Rank, RankFunction, RowPattern, SkipTo, Slot,
};

use super::{call, duration};
use crate::show::show;

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
    let mut lines = vec![format!("over {:?}", spec.close), describe(&spec.rows)];
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
        lines.push(format!("{} {:?}", call.text, call.memory));
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

pub(super) fn over_lines(spec: &Over, node: &Node, clock: Option<&str>) -> Vec<String> {
    let calls: Vec<&str> = spec.calls.iter().map(|c| c.text.as_str()).collect();
    let mut lines = vec!["over".to_owned(), format!("computes   {}", calls.join(", "))];
    lines.extend(partition(&spec.rows));
    if let Some(clock) = clock {
        let time = columns(&spec.rows, spec.rows.order.iter().take(1).map(|s| s.column));
        lines.push(format!("emits      each row once, when {clock} has passed its {time}"));
        lines.push(format!("state      rows until then; {}", remembered(spec)));
        lines.push(output(node));
        return lines;
    }
    let reach = spec.calls.iter().map(|c| c.reach).reduce(|a, b| Some((a?.0.max(b?.0), a?.1.max(b?.1)))).flatten();
    lines.push(match reach {
        Some((back, ahead)) => format!("changes    reach {back} rows back and {ahead} ahead"),
        None => "changes    compute their partition anew".to_owned(),
    });
    lines.push("state      all rows of its input; grows with them".to_owned());
    lines.push(output(node));
    lines
}

/// What functions that close keep of the rows that they have emitted.
fn remembered(spec: &Over) -> String {
    let memories = || spec.calls.iter().filter_map(|c| c.memory);
    if memories().any(|m| m == Memory::All) {
        return "all rows after that, which grow without bound".to_owned();
    }
    let most = |of: &dyn Fn(Memory) -> Option<u64>| memories().filter_map(of).max().filter(|n| *n > 0);
    let mut kept = Vec::new();
    if let Some(n) = most(&|m| if let Memory::Last(n) = m { Some(n) } else { None }) {
        kept.push(format!("the last {n} rows of each partition"));
    }
    if let Some(ms) = memories().filter_map(|m| if let Memory::Millis(ms) = m { Some(ms) } else { None }).max() {
        kept.push(format!("those of the last {}", duration(ms)));
    }
    if let Some(n) = most(&|m| if let Memory::First(n) = m { Some(n) } else { None }) {
        kept.push(format!("the first {n} rows of each partition"));
    }
    if memories().any(|m| m == Memory::Sum) {
        kept.push("a sum for each partition".to_owned());
    }
    if memories().any(|m| matches!(m, Memory::Rank(_))) {
        kept.push("the number of rows of each partition".to_owned());
    }
    let grows = memories().any(|m| !matches!(m, Memory::Millis(_) | Memory::Last(0)));
    let kept = if kept.is_empty() { "nothing after that".to_owned() } else { kept.join(", ") };
    if grows { format!("{kept}, which grows with the number of partitions") } else { kept }
}

fn skip(spec: &RowPattern) -> String {
    let name = |variable: usize| spec.variables.get(variable).map_or("?", |v| v.name.as_str());
    match spec.skip {
        SkipTo::PastLastRow => "past the last row".to_owned(),
        SkipTo::NextRow => "to the next row".to_owned(),
        SkipTo::First(variable) => format!("to the first {}", name(variable)),
        SkipTo::Last(variable) => format!("to the last {}", name(variable)),
    }
}

pub(super) fn describe_pattern(spec: &RowPattern) -> Vec<String> {
    let formula = |f: &Formula| format!("{} {:?}", f.expr, f.slots);
    let mut lines = vec![
        format!("match_recognize {:?} {:?} {:?} {:?}", spec.domain, spec.pattern, spec.skip, spec.within_ms),
        describe(&spec.rows),
    ];
    for variable in &spec.variables {
        let condition = |f: &Option<Formula>| f.as_ref().map(formula).unwrap_or_default();
        lines.push(format!("{} {} {}", variable.name, condition(&variable.local), condition(&variable.running)));
    }
    lines.extend(spec.arguments.iter().map(ToString::to_string));
    lines.extend(spec.slots.iter().map(|slot| match slot {
        Slot::Row { variable, place, back, argument } => format!("{variable:?} {place:?} {back} {argument}"),
        Slot::Aggregate { variable, call: of } => format!("{variable:?} {}", call(of)),
    }));
    lines.extend(spec.measures.iter().map(|(name, f)| format!("{name} {}", formula(f))));
    lines
}

pub(super) fn pattern_lines(spec: &RowPattern, node: &Node, clock: &str) -> Vec<String> {
    let mut lines = vec!["match_recognize".to_owned(), format!("pattern    {}", spec.text)];
    lines.extend(spec.variables.iter().map(|v| format!("{:<11}{}", v.name, v.text)));
    let measures: Vec<String> = spec
        .measures
        .iter()
        .map(|(name, f)| match show(&f.expr) {
            same if same == *name => same,
            text => format!("{text} AS {name}"),
        })
        .collect();
    lines.push(format!("measures   {}", if measures.is_empty() { "none".to_owned() } else { measures.join(", ") }));
    lines.extend(partition(&spec.rows));
    lines.push(format!("skips      {}", skip(spec)));
    let back = match spec.back() {
        0 => String::new(),
        n => format!(", and {n} before"),
    };
    let bound = match spec.within_ms {
        Some(ms) => format!("of at most {}", duration(ms)),
        None if spec.is_prompt() => format!("of at most {} rows", spec.pattern.length().unwrap_or_default()),
        None => "that grow until it is decided: WITHIN would bound them".to_owned(),
    };
    lines
        .push(format!("state      rows until {clock} has passed them; those of a match that has begun{back}, {bound}"));
    lines.push(output(node));
    lines
}

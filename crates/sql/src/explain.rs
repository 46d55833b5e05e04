//! A pipeline as text, for people: what each source decodes, what each operator does, what bounds its state.
mod ordered;

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use millstream_connectors::{SinkSpec, SourceSpec};
use millstream_dataflow::graph::{
    AggregateCall, Exchange, FilterValues, Graph, GroupAggregate, GroupCall, Join, JoinKind, Keyed, KeyedInput, Meets,
    NamedExpr, Node, NodeKind, SideTable, SourceNode, TimeDomain, Ttl, TtlMode, WindowAggregate, WindowKind, WindowOf,
};

use crate::show::show;
use crate::{Pipeline, types};

/// The pipeline's graph: stages, operators with their inputs, sources, sinks, state.
#[must_use]
pub fn explain(pipeline: &Pipeline) -> String {
    let graph = &pipeline.graph;
    let mut out = String::new();
    for stage in &graph.stages {
        let _ = writeln!(out, "Stage {}", stage.id);
        for id in &stage.nodes {
            let node = graph.node(*id);
            let lines = match &node.kind {
                NodeKind::Source(source) => source_lines(source, node.output.append_only, &pipeline.sources),
                NodeKind::Sink(sink) => sink_lines(node, pipeline.sinks.iter().find(|s| s.id == sink.sink)),
                _ => operator_lines(node, graph),
            };
            let mut lines = lines.into_iter();
            let _ =
                writeln!(out, "  {:<4}{}{}", format!("#{id}"), lines.next().unwrap_or_default(), inputs(node, graph));
            for line in lines {
                let _ = writeln!(out, "        {line}");
            }
        }
    }
    let _ = writeln!(out, "Fingerprint {}", graph.fingerprint);
    out
}

/// The node with everything that state and results depend on; columns carry their indexes.
pub(crate) fn describe(node: &Node) -> Vec<String> {
    match &node.kind {
        NodeKind::Source(s) => {
            let mut lines = vec![format!("source {}", s.table), columns(&s.decoded)];
            lines.extend(s.metadata.iter().map(|(f, key)| format!("{} {key}", f.name())));
            lines.extend(s.columns.iter().map(|c| format!("{} {}", c.name, c.expr)));
            lines.extend(s.prefilter.iter().map(|p| format!("{p:?}")));
            lines.extend(s.only_new.then(|| "only new".to_owned()));
            lines.extend(s.side.iter().map(|s| format!("{s:?}")));
            lines.extend(s.watermark.iter().map(|w| format!("{} {} {:?}", w.column, w.expr, w.idle_timeout_ms)));
            lines
        }
        NodeKind::Calc(calc) => {
            let mut lines = vec!["calc".to_owned()];
            lines.extend(calc.filter.iter().map(|f| format!("filter {f}")));
            lines.extend(calc.project.iter().flatten().map(|c| format!("{} {}", c.name, c.expr)));
            lines
        }
        NodeKind::WindowAssign(assign) => vec![format!("assign {:?} {}", assign.window, assign.time)],
        NodeKind::SessionAssign(spec) => {
            vec![format!("sessions {} {} {:?}", spec.gap, spec.time, spec.rows.partition)]
        }
        NodeKind::PartialWindowAggregate(spec) | NodeKind::WindowAggregate(spec) => {
            let mut lines = vec![format!("aggregate {:?} {:?}", spec.domain, spec.early)];
            lines.push(match &spec.window {
                WindowOf::Time { kind, time } => format!("{kind:?} {time}"),
                WindowOf::Attached { start, end } => format!("attached {start} {end}"),
            });
            lines.extend(spec.keys.iter().map(|k| format!("{} {}", k.name, k.expr)));
            for call in &spec.aggregates {
                let args: Vec<String> = call.function.expressions().iter().map(ToString::to_string).collect();
                let filter = call.filter.as_ref().map(ToString::to_string).unwrap_or_default();
                let (name, distinct) = (call.function.fun().name(), call.function.is_distinct());
                let order = function_order(&call.function);
                lines.push(format!("{name} {distinct} {} {filter}{order}", args.join(" ")));
            }
            lines
        }
        NodeKind::Expand(expand) => {
            let mut lines = vec!["expand".to_owned()];
            lines.extend(expand.keys.iter().map(|k| format!("{} {}", k.name, k.expr)));
            lines.extend(expand.sets.iter().map(|s| format!("{:?} {}", s.nulls, s.id)));
            lines
        }
        NodeKind::PartialGroupAggregate(spec) | NodeKind::GroupAggregate(spec) => {
            let mut lines = vec![format!("group {} {} {:?}", spec.retracts, spec.always.num_rows(), spec.ttl)];
            lines.extend(spec.keys.iter().map(|k| format!("{} {}", k.name, k.expr)));
            for call in &spec.calls {
                let args: Vec<String> = call.function.expressions().iter().map(ToString::to_string).collect();
                let filter = call.filter.as_ref().map(ToString::to_string).unwrap_or_default();
                let (name, order) = (call.function.fun().name(), function_order(&call.function));
                lines.push(format!("{name} {} {} {filter}{order}", call.distinct, args.join(" ")));
            }
            lines
        }
        NodeKind::Unnest(unnest) => vec![format!("{unnest:?}")],
        NodeKind::Union => vec!["union".to_owned()],
        NodeKind::Set(spec) => vec![format!("{} {:?}", spec.name(), spec.bound)],
        NodeKind::Join(join) => describe_join(join),
        NodeKind::LocalRank(spec) | NodeKind::Rank(spec) => ordered::describe_rank(spec),
        NodeKind::Over(spec) => ordered::describe_over(spec),
        NodeKind::RowPattern(spec) => ordered::describe_pattern(spec),
        NodeKind::Keyed(spec) => vec![format!("keyed {:?} {:?}", spec.input, spec.keys)],
        NodeKind::Sink(sink) => vec![format!("sink {} {}", sink.table, sink.insert)],
    }
}

/// Order and treatment of nulls of a call.
fn function_order(function: &AggregateFunctionExpr) -> String {
    let orders = function.order_bys().iter().map(|s| format!(" {s}"));
    let nulls = if function.ignore_nulls() { " ignore nulls" } else { "" };
    orders.collect::<String>() + nulls
}

fn inputs(node: &Node, graph: &Graph) -> String {
    let shown = node.inputs.iter().map(|input| {
        let from = graph.node(input.from);
        match &input.exchange {
            Exchange::Forward => format!("#{}", input.from),
            Exchange::Hash { columns } if columns.is_empty() => format!("#{} all to one task", input.from),
            Exchange::Hash { columns } => {
                let names: Vec<&str> = columns.iter().map(|c| from.output.schema.field(*c).name().as_str()).collect();
                format!("#{} by hash of {}", input.from, names.join(", "))
            }
            Exchange::Broadcast => format!("#{} to every task", input.from),
        }
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { String::new() } else { format!("  <- {}", shown.join(", ")) }
}

fn source_lines(source: &SourceNode, append_only: bool, specs: &[SourceSpec]) -> Vec<String> {
    let spec = specs.iter().find(|s| s.id == source.source);
    let connector = spec.and_then(|s| s.options.text("connector")).unwrap_or("?");
    let mut lines = vec![format!("source {} ({connector})", source.table)];
    lines.push(format!("decodes    {}", columns(&source.decoded)));
    if source.only_new {
        lines.push("rows       versions of each key".to_owned());
    } else if !append_only {
        let keyed = spec.is_some_and(|s| !s.key.is_empty());
        lines.push(format!("rows       {}", if keyed { "upserts" } else { "changes" }));
    }
    if !source.metadata.is_empty() {
        let shown: Vec<String> = source
            .metadata
            .iter()
            .map(|(f, key)| format!("{} {} from '{key}'", f.name(), types::name(f.data_type())))
            .collect();
        lines.push(format!("metadata   {}", shown.join(", ")));
    }
    let computed: Vec<&NamedExpr> = source.columns.iter().filter(|c| show(&c.expr) != c.name).collect();
    lines.extend(computed.iter().map(|c| format!("computes   {} = {}", c.name, show(&c.expr))));
    if let Some(filter) = &source.prefilter {
        let values = match &filter.values {
            FilterValues::Int(v) => v.iter().map(ToString::to_string).collect::<Vec<_>>(),
            FilterValues::Text(v) => v.iter().map(|t| format!("'{t}'")).collect(),
        };
        lines.push(format!("prefilter  {} IN ({}) before the rest is decoded", filter.column, values.join(", ")));
    }
    lines.extend(source.side.map(|side| match side {
        SideTable::Whole => "read       whole, before rows of other tables".to_owned(),
        SideTable::Refreshed => "read       what is there, before each epoch of other tables".to_owned(),
    }));
    lines.push(match &source.watermark {
        Some(_) if !append_only => "watermark  none: rows that change are never late".to_owned(),
        Some(w) => {
            let idle = w
                .idle_timeout_ms
                .map(|ms| format!(", idle splits left out after {}", duration(ms as i64)))
                .unwrap_or_default();
            format!("watermark  {}{idle}", show(&w.expr))
        }
        None => "watermark  none is needed: no row is late".to_owned(),
    });
    lines
}

fn sink_lines(node: &Node, spec: Option<&SinkSpec>) -> Vec<String> {
    let NodeKind::Sink(sink) = &node.kind else { return Vec::new() };
    let connector = spec.and_then(|s| s.options.text("connector")).unwrap_or("?");
    let mut lines = vec![format!("sink {} ({connector})", sink.table)];
    lines.push(format!("writes     {}", columns(&node.output.schema)));
    let named = |indexes: &[usize]| {
        indexes.iter().map(|i| node.output.schema.field(*i).name().as_str()).collect::<Vec<_>>().join(", ")
    };
    if let Some(spec) = spec {
        if !spec.primary_key.is_empty() {
            lines.push(format!("key        {}", named(&spec.primary_key)));
        }
        if !spec.partitioned_by.is_empty() {
            lines.push(format!("partitions {}", named(&spec.partitioned_by)));
        }
    }
    lines.push(format!("rows       {}", rows(node)));
    lines
}

fn operator_lines(node: &Node, graph: &Graph) -> Vec<String> {
    match &node.kind {
        NodeKind::Calc(calc) => {
            let mut lines = vec![
                match (&calc.filter, &calc.project) {
                    (Some(_), Some(_)) => "filter and project",
                    (Some(_), None) => "filter",
                    _ => "project",
                }
                .to_owned(),
            ];
            lines.extend(calc.filter.iter().map(|f| format!("where      {}", show(f))));
            if let Some(project) = &calc.project {
                let shown: Vec<String> = project
                    .iter()
                    .map(|c| match show(&c.expr) {
                        same if same == c.name => same,
                        expr => format!("{expr} AS {}", c.name),
                    })
                    .collect();
                lines.push(format!("select     {}", shown.join(", ")));
            }
            lines
        }
        NodeKind::WindowAssign(assign) => {
            let input = node.inputs.first().map(|i| &graph.node(i.from).output.schema);
            let time = input.map_or("?", |s| s.field(assign.time).name().as_str());
            vec![format!("each row in its windows: {} over {time}", window(assign.window))]
        }
        NodeKind::SessionAssign(spec) => {
            let name = |column: &usize| spec.rows.input.field(*column).name().as_str();
            let by: Vec<&str> = spec.rows.partition.iter().map(name).collect();
            let by = if by.is_empty() { "of all rows".to_owned() } else { format!("per {}", by.join(", ")) };
            let gap = WindowKind::Session { gap: spec.gap };
            vec![
                format!("each row in its session: {} over {}, {by}", window(gap), name(&spec.time)),
                format!("rows       {}", rows(node)),
                "state      grows with the rows that are there".to_owned(),
            ]
        }
        NodeKind::PartialWindowAggregate(spec) => vec!["aggregate before the shuffle".to_owned(), aggregates(spec)],
        NodeKind::WindowAggregate(spec) => {
            let mut lines = vec!["window aggregate".to_owned()];
            let keys: Vec<&str> = spec.keys.iter().map(|k| k.name.as_str()).collect();
            lines.push(format!("keys       {}", if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }));
            lines.push(aggregates(spec));
            lines.push(match &spec.window {
                WindowOf::Time { kind, time } => format!("window     {} over {}", window(*kind), show(time)),
                WindowOf::Attached { start, end } => {
                    format!("window     the one of the rows, {} to {}", show(start), show(end))
                }
            });
            lines.extend(spec.early.map(|ms| {
                let often = if ms == 0 { "in every epoch".to_owned() } else { format!("every {}", duration(ms)) };
                format!("early      {often} of processing time, taken back when it changes; final at the close")
            }));
            lines.extend(spec.early.map(|_| format!("rows       {}", rows(node))));
            lines.push(format!("state      {}", bound(spec, graph)));
            lines
        }
        NodeKind::Expand(expand) => {
            let keys: Vec<&str> = expand.keys.iter().map(|k| k.name.as_str()).collect();
            let set = |nulls: &[bool]| {
                let kept = keys.iter().zip(nulls).filter(|(_, null)| !**null).map(|(k, _)| *k);
                format!("({})", kept.collect::<Vec<_>>().join(", "))
            };
            let sets: Vec<String> = expand.sets.iter().map(|s| set(&s.nulls)).collect();
            vec!["each row in its grouping sets".to_owned(), format!("sets       {}", sets.join(", "))]
        }
        NodeKind::PartialGroupAggregate(spec) if spec.retracts => {
            vec!["keys and arguments before the shuffle".to_owned(), group_calls(spec)]
        }
        NodeKind::PartialGroupAggregate(spec) => vec!["aggregate before the shuffle".to_owned(), group_calls(spec)],
        NodeKind::GroupAggregate(spec) => group_lines(spec, node),
        NodeKind::Unnest(unnest) => {
            let input = node.inputs.first().map(|i| &graph.node(i.from).output.schema);
            let names = unnest.lists.iter().map(|c| input.map_or("?", |s| s.field(*c).name().as_str()));
            let names = names.collect::<Vec<_>>().join(", ");
            let empty = if unnest.keeps_empty { "; once if it has none" } else { "" };
            vec!["unnest".to_owned(), format!("rows       each once per element: {names}{empty}")]
        }
        NodeKind::Union => vec!["union all".to_owned()],
        NodeKind::Set(spec) => {
            let kept = match &spec.bound {
                Some((column, domain)) => {
                    let time = node.output.schema.field(*column).name();
                    format!("until {} passes {time}", clock(domain, graph))
                }
                None => "grows with the number of different rows".to_owned(),
            };
            vec![spec.name().to_lowercase(), format!("rows       {}", rows(node)), format!("state      {kept}")]
        }
        NodeKind::Join(join) => join_lines(node, join, graph),
        NodeKind::LocalRank(spec) => {
            vec![format!("rank before the shuffle: the first {} rows of an epoch", spec.to)]
        }
        NodeKind::Rank(spec) => ordered::rank_lines(spec, node),
        NodeKind::Over(spec) => {
            ordered::over_lines(spec, node, spec.close.as_ref().map(|domain| clock(domain, graph)).as_deref())
        }
        NodeKind::RowPattern(spec) => ordered::pattern_lines(spec, node, &clock(&spec.domain, graph)),
        NodeKind::Keyed(spec) => keyed_lines(spec, node),
        NodeKind::Source(_) | NodeKind::Sink(_) => describe(node),
    }
}

fn describe_join(join: &Join) -> Vec<String> {
    let mut lines = vec![format!("join {:?} {} {:?}", join.kind, join.null_equal, join.bound)];
    lines.extend(join.inputs.iter().map(|i| format!("{:?} {} {:?}", i.keys, i.append_only, i.retention)));
    lines.extend(join.residual.iter().map(|r| format!("where {r}")));
    if join.meets != Meets::All {
        lines.push(format!("{:?}", join.meets));
    }
    lines
}

fn join_lines(node: &Node, join: &Join, graph: &Graph) -> Vec<String> {
    let kind = match join.kind {
        JoinKind::Inner => "inner join",
        JoinKind::Left => "left join",
        JoinKind::Right => "right join",
        JoinKind::Full => "full join",
        JoinKind::Semi => "semi join: left rows that have a match",
        JoinKind::Anti => "anti join: left rows that have no match",
    };
    let name = |side: usize, column: usize| join.inputs[side].schema.field(column).name().clone();
    let mut lines = vec![match &join.meets {
        Meets::All => kind.to_owned(),
        Meets::Known { .. } => format!("lookup, {kind}"),
        Meets::Version { time } => {
            let own = join.inputs[0].retention.map_or_else(String::new, |r| name(0, r.column));
            format!("{kind} with the version of {} that is valid at {own}", name(1, *time))
        }
    }];
    let equal = if join.null_equal { "is not distinct from" } else { "=" };
    let keys: Vec<String> = (0..join.inputs[0].keys.len())
        .map(|i| format!("{} {equal} {}", name(0, join.inputs[0].keys[i]), name(1, join.inputs[1].keys[i])))
        .collect();
    lines.push(match keys.is_empty() {
        true if join.meets != Meets::All => "keys       none: every row meets every row".to_owned(),
        true => "keys       none: every row meets every row, in one task".to_owned(),
        false => format!("keys       {}", keys.join(", ")),
    });
    lines.extend(join.residual.iter().map(|r| format!("where      {}", show(r))));
    lines.push(format!("rows       {}", if node.output.append_only { "append only" } else { "changes" }));
    let sides = ["left", "right"].into_iter().zip(&join.inputs).enumerate();
    for (side, (which, input)) in sides {
        let kept = match (input.retention, &join.bound) {
            (Some(retention), Some(domain)) => {
                let wait = match retention.hold_ms {
                    ms if ms <= 0 => String::new(),
                    ms => format!(" by {}", duration(ms)),
                };
                format!("until {} passes {}{wait}", clock(domain, graph), name(side, retention.column))
            }
            _ => match (&join.meets, side) {
                (Meets::Known { .. }, 0) => "none".to_owned(),
                (Meets::Known { replaces }, _) if replaces.is_empty() => "all rows, in every task".to_owned(),
                (Meets::Known { replaces }, _) => {
                    let names: Vec<String> = replaces.iter().map(|c| name(1, *c)).collect();
                    format!("the last row of each {}, in every task", names.join(", "))
                }
                (Meets::Version { .. }, _) => {
                    "versions that the watermark has not passed, and the last before it of each key".to_owned()
                }
                (Meets::All, _) if !input.append_only => "grows with the rows that are there".to_owned(),
                (Meets::All, _) => "grows with every row".to_owned(),
            },
        };
        lines.push(format!("state      {which}: {kept}"));
    }
    lines
}

fn aggregates(spec: &WindowAggregate) -> String {
    let shown: Vec<String> = spec.aggregates.iter().map(call).collect();
    format!("computes   {}", if shown.is_empty() { "the distinct keys".to_owned() } else { shown.join(", ") })
}

/// An aggregate as SQL.
pub(crate) fn call(call: &AggregateCall) -> String {
    let function = &call.function;
    let args: Vec<String> = function.expressions().iter().map(show).collect();
    let args = if function.fun().name() == "count" && args == ["1"] { vec!["*".to_owned()] } else { args };
    let distinct = if function.is_distinct() { "DISTINCT " } else { "" };
    let orders: Vec<String> = function.order_bys().iter().map(order).collect();
    let orders = if orders.is_empty() { String::new() } else { format!(" ORDER BY {}", orders.join(", ")) };
    let nulls = if function.ignore_nulls() { " IGNORE NULLS" } else { "" };
    let filter = call.filter.as_ref().map(|f| format!(" FILTER (WHERE {})", show(f))).unwrap_or_default();
    format!("{}({distinct}{}{orders}){nulls}{filter}", function.fun().name(), args.join(", "))
}

fn order(sort: &PhysicalSortExpr) -> String {
    let direction = if sort.options.descending { " DESC" } else { "" };
    // The usual place of nulls is after the greatest value.
    let nulls = match (sort.options.descending, sort.options.nulls_first) {
        (false, true) => " NULLS FIRST",
        (true, false) => " NULLS LAST",
        _ => "",
    };
    format!("{}{direction}{nulls}", show(&sort.expr))
}

fn group_lines(spec: &GroupAggregate, node: &Node) -> Vec<String> {
    let distinct_rows = spec.calls.is_empty();
    let mut lines = vec![if distinct_rows { "distinct" } else { "aggregate" }.to_owned()];
    let keys: Vec<&str> = spec.keys.iter().map(|k| k.name.as_str()).collect();
    lines.push(format!("keys       {}", if keys.is_empty() { "none: one row".to_owned() } else { keys.join(", ") }));
    if !distinct_rows {
        lines.push(group_calls(spec));
    }
    lines.push(format!("rows       {}", rows(node)));
    let mut grows: Vec<String> = Vec::new();
    if !keys.is_empty() {
        grows.push("keys".to_owned());
    }
    let of = |call: &GroupCall| format!("values in {}", group_call(call));
    grows.extend(spec.calls.iter().filter(|c| spec.keeps_values(c)).map(of));
    lines.push(match grows.is_empty() {
        true => "state      one row".to_owned(),
        false => format!("state      grows with the number of {}", grows.join(", of ")),
    });
    lines.extend(spec.ttl.filter(|_| !spec.keys.is_empty()).map(lapses));
    lines
}

/// What `state.ttl` does to an operator.
fn lapses(ttl: Ttl) -> String {
    let emitted = match ttl.mode {
        TtlMode::Freeze => "its last result stands",
        TtlMode::Retract => "its result is taken back",
    };
    let after = duration(ttl.after_ms);
    format!(
        "ttl        a key without rows for {after} is dropped, {emitted}: from then on it differs from a batch query"
    )
}

fn keyed_lines(spec: &Keyed, node: &Node) -> Vec<String> {
    let keys: Vec<&str> = spec.keys.iter().map(|k| node.output.schema.field(*k).name().as_str()).collect();
    let what = match spec.input {
        KeyedInput::Upserts => format!("last row of each key of {}", spec.table),
        KeyedInput::Changes => format!("one row of each key of {}: two are an error", spec.table),
    };
    vec![
        what,
        format!("keys       {}", keys.join(", ")),
        format!("rows       {}", rows(node)),
        "state      grows with the number of keys".to_owned(),
    ]
}

/// The type of a node's edge.
fn rows(node: &Node) -> String {
    if node.output.append_only { "append only".to_owned() } else { "changes".to_owned() }
}

fn group_calls(spec: &GroupAggregate) -> String {
    let shown: Vec<String> = spec.calls.iter().map(group_call).collect();
    format!("computes   {}", if shown.is_empty() { "the distinct keys".to_owned() } else { shown.join(", ") })
}

/// An aggregate of an aggregation without a window, as SQL.
pub(crate) fn group_call(group: &GroupCall) -> String {
    let shown = call(&AggregateCall { function: group.function.clone(), filter: group.filter.clone() });
    if group.distinct { shown.replacen('(', "(DISTINCT ", 1) } else { shown }
}

/// What bounds the state of a windowed aggregation.
fn bound(spec: &WindowAggregate, graph: &Graph) -> String {
    let clock = clock(&spec.domain, graph);
    let length = match &spec.window {
        WindowOf::Time {
            kind: WindowKind::Tumble { size, .. } | WindowKind::Hop { size, .. } | WindowKind::Cumulate { size, .. },
            ..
        } => {
            format!("keys of windows up to {} long", duration(*size))
        }
        WindowOf::Time { kind: WindowKind::Session { gap }, .. } => {
            format!("open sessions, closed {} after their last row", duration(*gap))
        }
        WindowOf::Attached { .. } => "keys of the windows of its input".to_owned(),
    };
    format!("bounded by {clock}: {length}")
}

/// What closes windows and lets rows go.
fn clock(domain: &TimeDomain, graph: &Graph) -> String {
    match domain.clock().0 {
        TimeDomain::Processing | TimeDomain::Delayed(..) => "processing time".to_owned(),
        TimeDomain::Event(ids) => {
            let mut watermarks = Vec::new();
            for (_, source) in graph.sources().filter(|(_, s)| ids.contains(&s.source)) {
                let expr = source.watermark.as_ref().map_or_else(String::new, |w| format!(" ({})", show(&w.expr)));
                watermarks.push(format!("{}{expr}", source.table));
            }
            let least = if watermarks.len() > 1 { "lowest " } else { "" };
            format!("the {least}watermark of {}", watermarks.join(", "))
        }
    }
}

fn window(kind: WindowKind) -> String {
    let shift = |offset: i64| if offset == 0 { String::new() } else { format!(", shifted by {}", duration(offset)) };
    match kind {
        WindowKind::Tumble { size, offset } => format!("tumble {}{}", duration(size), shift(offset)),
        WindowKind::Hop { size, slide, offset } => {
            format!("hop {} every {}{}", duration(size), duration(slide), shift(offset))
        }
        WindowKind::Cumulate { size, step, offset } => {
            format!("cumulate to {} by {}{}", duration(size), duration(step), shift(offset))
        }
        WindowKind::Session { gap } => format!("session with gap {}", duration(gap)),
    }
}

fn duration(ms: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    match units.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{} {name}", ms / unit),
        None => format!("{ms} ms"),
    }
}

fn columns(schema: &Arc<Schema>) -> String {
    let shown: Vec<String> = schema.fields().iter().map(|f| column(f.name(), f.data_type())).collect();
    if shown.is_empty() { "no column".to_owned() } else { shown.join(", ") }
}

fn column(name: &str, data_type: &DataType) -> String {
    format!("{name} {}", types::name(data_type))
}

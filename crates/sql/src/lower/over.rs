//! `OVER`: functions over frames, one node per partition and order.
//!
//! Over appended rows in the order of event time, functions that do not look ahead [close](closes): each row leaves once, when the watermark has
//! passed it. Other functions of the same SELECT would change rows after that, so that either all close or none.
use std::sync::Arc;

use arrow::row::{RowConverter, SortField};
use datafusion::common::Column as Name;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{
    Expr, SortExpr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, SlidingAggregateWindowExpr, WindowExpr};
use datafusion::physical_planner::create_window_expr;
use millstream_dataflow::graph::{
    AggregateCall, EdgeType, Exchange, Input, Memory, NodeKind, Ordered, Over, OverCall, OverFunction, RankFunction,
    TimeDomain,
};

use super::Lowering;
use super::aggregate::input_names;
use super::rank::changes;
use super::rel::{Rel, Value};
use crate::error::{Mistake, Result};
use crate::show::{show, show_value};
use crate::uses::is_time;

/// Functions with their places in a SELECT list.
type Calls<'a> = Vec<(usize, &'a WindowFunction)>;

/// The uppermost of several SELECT lists of functions over frames, with all of them down to the input, the uppermost first.
fn chain(window: &Window) -> (Vec<&Window>, &LogicalPlan) {
    let mut windows = vec![window];
    let mut below: &LogicalPlan = &window.input;
    while let LogicalPlan::Window(window) = below {
        windows.push(window);
        below = &window.input;
    }
    (windows, below)
}

/// The column of the input by which the functions of `window`, and of those directly below it, close.
pub(crate) fn closes(window: &Window) -> Option<usize> {
    let (windows, input) = chain(window);
    let mut column = None;
    for expr in windows.iter().flat_map(|w| &w.window_expr) {
        let Expr::WindowFunction(call) = expr.clone().unalias_nested().data else { return None };
        let time = time_of(&call)?;
        let at = input.schema().index_of_column(time).ok().filter(|at| is_time(input, *at))?;
        memory(&call)?;
        if *column.get_or_insert(at) != at {
            return None;
        }
    }
    column
}

/// The column that comes first in the order.
fn time_of(call: &WindowFunction) -> Option<&Name> {
    let sort = call.params.order_by.first().filter(|s| s.asc && !s.nulls_first)?;
    match &sort.expr {
        Expr::Column(column) if !call.params.partition_by.contains(&sort.expr) => Some(column),
        _ => None,
    }
}

/// What a function needs of the rows before, if it does not look ahead.
fn memory(call: &WindowFunction) -> Option<Memory> {
    let name = call.fun.name();
    if !uses_frame(call) {
        return match (name, reach(call)) {
            ("row_number", _) => Some(Memory::Rank(RankFunction::RowNumber)),
            ("rank", _) => Some(Memory::Rank(RankFunction::Rank)),
            ("dense_rank", _) => Some(Memory::Rank(RankFunction::DenseRank)),
            ("lag" | "lead", Some((back, 0))) => Some(Memory::Last(back)),
            _ => None,
        };
    }
    let frame = &call.params.window_frame;
    let is_aggregate = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_));
    match (&frame.start_bound, &frame.end_bound) {
        (_, WindowFrameBound::Following(_)) => None,
        (WindowFrameBound::Preceding(n), end) if n.is_null() => {
            let simple = call.params.null_treatment != Some(NullTreatment::IgnoreNulls);
            match (name, end) {
                _ if frame.units == WindowFrameUnits::Groups => Some(Memory::All),
                (_, WindowFrameBound::CurrentRow) if is_aggregate => Some(Memory::Sum),
                ("first_value", WindowFrameBound::CurrentRow) if simple => Some(Memory::First(1)),
                ("last_value", WindowFrameBound::CurrentRow) if simple => Some(Memory::Last(0)),
                ("nth_value", WindowFrameBound::CurrentRow) if simple => match call.params.args.get(1) {
                    Some(Expr::Literal(n, _)) => match n.cast_to(&arrow::datatypes::DataType::Int64) {
                        Ok(ScalarValue::Int64(Some(n @ 1..))) => Some(Memory::First(n.unsigned_abs())),
                        _ => Some(Memory::All),
                    },
                    _ => Some(Memory::All),
                },
                _ => Some(Memory::All),
            }
        }
        (start, end) => match frame.units {
            WindowFrameUnits::Rows => reach(call).map(|(back, _)| Memory::Last(back)),
            WindowFrameUnits::Range => {
                Some(millis(start).zip(millis(end)).map_or(Memory::All, |(a, b)| Memory::Millis(a.max(b))))
            }
            WindowFrameUnits::Groups => Some(Memory::All),
        },
    }
}

/// Milliseconds that a bound of a frame lies before the row, rounded up, if they are always the same.
fn millis(bound: &WindowFrameBound) -> Option<i64> {
    match bound {
        WindowFrameBound::CurrentRow => Some(0),
        WindowFrameBound::Preceding(ScalarValue::IntervalMonthDayNano(Some(i))) if i.months == 0 => {
            let nanos = i64::from(i.nanoseconds % 1_000_000 != 0);
            Some(i64::from(i.days) * 86_400_000 + i.nanoseconds / 1_000_000 + nanos)
        }
        WindowFrameBound::Preceding(ScalarValue::IntervalDayTime(Some(i))) => {
            Some(i64::from(i.days) * 86_400_000 + i64::from(i.milliseconds))
        }
        WindowFrameBound::Preceding(_) | WindowFrameBound::Following(_) => None,
    }
}

impl Lowering<'_> {
    /// SELECT lists of functions over frames, one above the other.
    pub(super) fn windows(&mut self, window: &Window) -> Result<Rel> {
        let close = closes(window).is_some();
        let (windows, below) = chain(window);
        let mut rel = self.lower(below)?;
        for window in windows.into_iter().rev() {
            rel = self.over(rel, window, close)?;
        }
        Ok(rel)
    }

    pub(super) fn over(&mut self, rel: Rel, window: &Window, close: bool) -> Result<Rel> {
        let width = rel.columns.len();
        let mut groups: Vec<(&[Expr], &[SortExpr], Calls<'_>)> = Vec::new();
        for (i, expr) in window.window_expr.iter().enumerate() {
            let expr = match expr {
                Expr::Alias(alias) => &alias.expr,
                expr => expr,
            };
            let Expr::WindowFunction(call) = expr else { return Err(self.unsupported("this window", &["OVER"])) };
            let (partition, order) = (call.params.partition_by.as_slice(), call.params.order_by.as_slice());
            match groups.iter_mut().find(|(p, o, _)| (*p, *o) == (partition, order)) {
                Some((_, _, calls)) => calls.push((i, call)),
                None => groups.push((partition, order, vec![(i, call)])),
            }
        }
        // Column of the rel for each function, in the order of the query.
        let mut place = vec![0; window.window_expr.len()];
        let mut rel = rel;
        for (partition, order, calls) in groups {
            for (n, (i, _)) in calls.iter().enumerate() {
                place[*i] = rel.columns.len() + n;
            }
            rel = self.over_one(rel, partition, order, &calls, window, close)?;
        }
        let columns = (0..width).chain(place);
        let columns: Vec<_> = columns.map(|i| rel.columns[i].clone()).collect();
        // Types are those of the rows, which may have fewer fields than the plan says.
        let fields = rel.schema.iter().take(width).map(|(q, f)| (q.cloned(), f.clone()));
        let first = window.input.schema().fields().len();
        let results = (first..window.schema.fields().len()).map(|i| {
            let (qualifier, field) = window.schema.qualified_field(i);
            (qualifier.cloned(), field.clone())
        });
        let fields = fields.chain(results).collect();
        let schema = datafusion::common::DFSchema::new_with_metadata(fields, Default::default());
        Ok(Rel { columns, schema: Arc::new(schema.map_err(|e| self.failed(&e))?), ..rel })
    }

    /// The functions with one partition and one order.
    fn over_one(
        &mut self,
        rel: Rel,
        partition: &[Expr],
        order: &[SortExpr],
        calls: &Calls<'_>,
        window: &Window,
        close: bool,
    ) -> Result<Rel> {
        let (rel, mut rows) = self.ordered(rel, partition, order, "OVER")?;
        rows.close = None;
        let close = if close { clock(&rel, &rows) } else { None };
        let input = rows.input.clone();
        let names = input_names(&rel, &input).map_err(|e| self.failed(&e))?;
        let mut fields: Vec<_> = input.fields().iter().cloned().collect();
        let mut over = Vec::new();
        let mut results = Vec::new();
        for (i, call) in calls {
            let at = self.place(&[call.fun.name()]);
            let ignores_nulls = call.params.null_treatment == Some(NullTreatment::IgnoreNulls);
            if ignores_nulls && ["lag", "lead"].contains(&call.fun.name()) {
                // DataFusion's panics where a partition has no null.
                let message = format!("{} with IGNORE NULLS is not supported on streams", call.fun.name());
                return Err(Mistake::new(at, message)
                    .hint("write last_value(…) IGNORE NULLS over a frame of rows before this one"));
            }
            let expr = Expr::WindowFunction(Box::new((*call).clone()));
            let built = create_window_expr(&expr, &names, &self.props).map_err(|e| self.catalog.mistake(&e, at))?;
            let function = match aggregate_of(built.as_ref()) {
                Some(function) => {
                    let filter = call.params.filter.as_ref().map(|f| self.physical(f, &names)).transpose()?;
                    // Some combinations fail only here, such as DISTINCT of a function that cannot.
                    function.create_accumulator().map_err(|e| self.catalog.mistake(&e, at))?;
                    let call = AggregateCall { function: Arc::new(function.clone()), filter };
                    OverFunction::Aggregate { call, frame: built.get_window_frame().clone() }
                }
                None if call.params.filter.is_some() => {
                    let message = format!("{} takes no FILTER", call.fun.name());
                    return Err(Mistake::new(at, message).hint("filter with WHERE in a subquery"));
                }
                None => OverFunction::Window(built.clone()),
            };
            let text = text(call, &function, built.as_ref());
            let (qualifier, field) = window.schema.qualified_field(window.input.schema().fields().len() + i);
            fields.push(Arc::new(field.as_ref().clone().with_name(&text)));
            results.push((qualifier.cloned(), field.clone()));
            let memory = memory(call)
                .map(|memory| if memory == Memory::Sum && !is_kept(&function) { Memory::All } else { memory });
            over.push(OverCall { function, reach: reach(call), memory, text });
        }
        let exchange = Exchange::Hash { columns: rows.partition.clone() };
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let time = rows.order.first().map(|s| s.column);
        let output = match &close {
            Some(_) => {
                let base = self.output(rel.base);
                let time = base.time.iter().filter(|t| Some(t.column) == time).cloned().collect();
                EdgeType { schema, append_only: true, key: None, time }
            }
            None => changes(schema, None),
        };
        let inputs = vec![Input { from: rel.base, exchange }];
        let closes = close.is_some();
        let node = self.push(NodeKind::Over(Arc::new(Over { rows, calls: over, close })), inputs, output)?;
        let mut rel = self.with_results(rel, node, results, closes)?;
        rel.windows = None;
        for (value, role) in &mut rel.columns {
            role.part = None;
            // Other times of a row may be behind.
            role.time = role.time.take().filter(|_| index(value) == time);
        }
        Ok(rel)
    }
}

/// Column of the node below.
fn index(value: &Value) -> Option<usize> {
    match value {
        Value::Expr(e) => e.downcast_ref::<Column>().map(Column::index),
        Value::Window(_) => None,
    }
}

/// The watermark by which rows can leave, if they are appended and their order begins with a time attribute.
pub(super) fn clock(rel: &Rel, rows: &Ordered) -> Option<TimeDomain> {
    let time = rows.order.first().filter(|s| rows.append_only && !rows.partition.contains(&s.column))?.column;
    rel.columns.iter().find_map(|(value, role)| role.time.clone().filter(|_| index(value) == Some(time)))
}

/// What the aggregate has added up can be kept.
fn is_kept(function: &OverFunction) -> bool {
    match function {
        OverFunction::Aggregate { call, .. } => call.function.state_fields().is_ok_and(|fields| {
            let fields: Vec<SortField> = fields.iter().map(|f| SortField::new(f.data_type().clone())).collect();
            RowConverter::supports_fields(&fields)
        }),
        OverFunction::Window(_) => false,
    }
}

fn aggregate_of(expr: &dyn WindowExpr) -> Option<&AggregateFunctionExpr> {
    let any = expr.as_any();
    let plain = any.downcast_ref::<PlainAggregateWindowExpr>().map(PlainAggregateWindowExpr::get_aggregate_expr);
    plain.or_else(|| {
        any.downcast_ref::<SlidingAggregateWindowExpr>().map(SlidingAggregateWindowExpr::get_aggregate_expr)
    })
}

/// A function as SQL, with its frame if that is not the usual one.
fn text(call: &WindowFunction, function: &OverFunction, built: &dyn WindowExpr) -> String {
    let args: Vec<String> = built.expressions().iter().map(show).collect();
    let distinct = if call.params.distinct { "DISTINCT " } else { "" };
    let frame = &call.params.window_frame;
    let usual = WindowFrame::new(if call.params.order_by.is_empty() { None } else { Some(false) });
    let nulls = match call.params.null_treatment {
        Some(NullTreatment::IgnoreNulls) => " IGNORE NULLS",
        _ => "",
    };
    let frame = if *frame == usual || !uses_frame(call) { String::new() } else { format!(" {}", frame_text(frame)) };
    let filter = match function {
        OverFunction::Aggregate { call: AggregateCall { filter: Some(filter), .. }, .. } => {
            format!(" FILTER (WHERE {})", show(filter))
        }
        _ => String::new(),
    };
    format!("{}({distinct}{}){nulls}{filter}{frame}", call.fun.name(), args.join(", "))
}

fn frame_text(frame: &WindowFrame) -> String {
    let bound = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => "CURRENT ROW".to_owned(),
        WindowFrameBound::Preceding(n) if n.is_null() => "UNBOUNDED PRECEDING".to_owned(),
        WindowFrameBound::Following(n) if n.is_null() => "UNBOUNDED FOLLOWING".to_owned(),
        WindowFrameBound::Preceding(n) => format!("{} PRECEDING", show_value(n)),
        WindowFrameBound::Following(n) => format!("{} FOLLOWING", show_value(n)),
    };
    format!("{} BETWEEN {} AND {}", frame.units, bound(&frame.start_bound), bound(&frame.end_bound))
}

fn uses_frame(call: &WindowFunction) -> bool {
    match &call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => true,
        WindowFunctionDefinition::WindowUDF(f) => ["first_value", "last_value", "nth_value"].contains(&f.name()),
    }
}

/// How many rows back and ahead the function looks, if that is bounded.
fn reach(call: &WindowFunction) -> Option<(u64, u64)> {
    if uses_frame(call) {
        let frame = &call.params.window_frame;
        if frame.units != WindowFrameUnits::Rows {
            return None;
        }
        let rows = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::CurrentRow => Some((0, 0)),
            WindowFrameBound::Preceding(ScalarValue::UInt64(Some(n))) => Some((*n, 0)),
            WindowFrameBound::Following(ScalarValue::UInt64(Some(n))) => Some((0, *n)),
            WindowFrameBound::Preceding(_) | WindowFrameBound::Following(_) => None,
        };
        let (start, end) = (rows(&frame.start_bound)?, rows(&frame.end_bound)?);
        return Some((start.0.max(end.0), start.1.max(end.1)));
    }
    let ahead = match call.fun.name() {
        "lag" => false,
        "lead" => true,
        _ => return None,
    };
    let offset = match call.params.args.get(1) {
        None => 1,
        Some(Expr::Literal(value, _)) => match value.cast_to(&arrow::datatypes::DataType::Int64) {
            Ok(ScalarValue::Int64(Some(n))) => n,
            _ => return None,
        },
        Some(_) => return None,
    };
    let rows = offset.unsigned_abs();
    Some(if ahead == (offset > 0) { (0, rows) } else { (rows, 0) })
}

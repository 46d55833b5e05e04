//! `OVER`: functions over frames, one node per partition and order.
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{
    Expr, SortExpr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, SlidingAggregateWindowExpr, WindowExpr};
use datafusion::physical_planner::create_window_expr;
use millstream_dataflow::graph::{AggregateCall, Exchange, Input, NodeKind, Over, OverCall, OverFunction};

use super::Lowering;
use super::aggregate::input_names;
use super::rank::changes;
use super::rel::Rel;
use crate::error::{Mistake, Result};
use crate::show::show;

/// Partition, order, and the functions over it with their places.
type Ordering<'a> = (&'a [Expr], &'a [SortExpr], Vec<(usize, &'a WindowFunction)>);

impl Lowering<'_> {
    pub(super) fn over(&mut self, rel: Rel, window: &Window) -> Result<Rel> {
        let width = rel.columns.len();
        let mut groups: Vec<Ordering<'_>> = Vec::new();
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
            rel = self.over_one(rel, partition, order, &calls, window)?;
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
        calls: &[(usize, &WindowFunction)],
        window: &Window,
    ) -> Result<Rel> {
        let (rel, mut rows) = self.ordered(rel, partition, order, "OVER")?;
        rows.close = None;
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
            over.push(OverCall { function, reach: reach(call), text });
        }
        let exchange = Exchange::Hash { columns: rows.partition.clone() };
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let kind = NodeKind::Over(Arc::new(Over { rows, calls: over }));
        let inputs = vec![Input { from: rel.base, exchange }];
        let node = self.push(kind, inputs, changes(schema, None))?;
        self.with_results(rel, node, results, false)
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
    let frame = if *frame == usual || !uses_frame(call) { String::new() } else { format!(" {frame}") };
    let filter = match function {
        OverFunction::Aggregate { call: AggregateCall { filter: Some(filter), .. }, .. } => {
            format!(" FILTER (WHERE {})", show(filter))
        }
        _ => String::new(),
    };
    format!("{}({distinct}{}){nulls}{filter}{frame}", call.fun.name(), args.join(", "))
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

//! Aggregation over windows: a partial half before the shuffle and a final half after it.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Aggregate, Expr, SortExpr};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::{Column, Literal};
use millstream_dataflow::graph::{
    AggregateCall, EdgeType, Exchange, Input, NamedExpr, NodeKind, TimeAttribute, TimeDomain, WindowAggregate,
    WindowKind, WindowOf,
};
use millstream_dataflow::operators::partial_schema;

use super::rel::{Part, Pending, Physical, Rel, Role, Value, and, substitute};
use super::{Lowering, plain};
use crate::error::{Mistake, Result};
use crate::explain;
use crate::show::show;
use crate::window::WINDOW_COLUMNS;

/// What a grouping expression is.
enum Group {
    Window(Part),
    /// Index among the keys.
    Key(usize),
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, rel: Rel, node: &Aggregate) -> Result<Rel> {
        let group_exprs: Vec<Expr> = node.group_expr.iter().map(|e| e.clone().unalias_nested().data).collect();
        let part_of = |rel: &Rel, expr: &Expr| match expr {
            Expr::Column(column) => rel.schema.index_of_column(column).ok().and_then(|i| rel.columns[i].1.part),
            _ => None,
        };
        let parts: Vec<Part> = group_exprs.iter().filter_map(|e| part_of(&rel, e)).collect();
        let Some(domain) = rel.windows.clone().filter(|_| !parts.is_empty() && self.output(rel.base).append_only)
        else {
            return self.group(rel, node);
        };
        self.check_bounds(&rel, &parts)?;
        let keys: Vec<&Expr> = group_exprs.iter().filter(|e| part_of(&rel, e).is_none()).collect();
        let rel = self.ready(rel, &keys, &node.aggr_expr)?;
        let input = self.output(rel.base).clone();
        if !input.append_only {
            return Err(self.unsupported("a windowed aggregation of rows that are taken back", &["GROUP"]));
        }
        // The node's columns under the names of the query; bounds of a pending window are not among them.
        let names = input_names(&rel, &input.schema).map_err(|e| self.failed(&e))?;
        let mut spec_keys = Vec::new();
        for key in &keys {
            let expr = self.physical(key, &names)?;
            let name = match key {
                Expr::Column(column) => column.name.clone(),
                _ => show(&expr),
            };
            spec_keys.push(NamedExpr { name, expr });
        }
        let mut groups = Vec::new();
        let mut next = 0;
        for expr in &group_exprs {
            groups.push(part_of(&rel, expr).map_or_else(
                || {
                    next += 1;
                    Group::Key(next - 1)
                },
                Group::Window,
            ));
        }
        let (window, time_type) = self.window_of(&rel, &spec_keys, &input.schema)?;
        if spec_keys.is_empty() && node.aggr_expr.is_empty() {
            // The windows themselves: a state needs a column to be held in.
            let expr: Physical = Arc::new(Literal::new(ScalarValue::from(true)));
            spec_keys.push(NamedExpr { name: "any".to_owned(), expr });
        }
        let aggregates =
            node.aggr_expr.iter().map(|e| self.call(e, &names, &input.schema)).collect::<Result<Vec<_>>>()?;
        if aggregates.iter().any(|a| a.function.fun().name() == "nth_value") {
            let message = "nth_value cannot be computed for a window that is emitted when it closes";
            return Err(Mistake::new(self.place(&["nth_value"]), message)
                .hint("rank the window's rows: ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY …)"));
        }
        let mut fields: Vec<FieldRef> = Vec::new();
        for key in &spec_keys {
            let data_type = key.expr.data_type(&input.schema).map_err(|e| self.failed(&e))?;
            fields.push(Arc::new(Field::new(&key.name, data_type, true)));
        }
        fields.extend(WINDOW_COLUMNS.map(|n| Arc::new(Field::new(n, time_type.clone(), false))));
        fields.extend(aggregates.iter().map(|a| a.function.field()));
        let output = Arc::new(Schema::new(fields));
        let spec = Arc::new(WindowAggregate {
            window,
            domain: domain.clone(),
            keys: spec_keys,
            aggregates,
            output: output.clone(),
            early: self.early,
        });
        let base = self.two_halves(&rel, &spec, &input)?;
        self.result(base, &spec, &groups, node, rel.pending.as_ref())
    }

    fn two_halves(
        &mut self,
        rel: &Rel,
        spec: &Arc<WindowAggregate>,
        input: &EdgeType,
    ) -> Result<millstream_plan::OperatorId> {
        let keys = spec.keys.len();
        let partial = partial_schema(spec, &input.schema).map_err(|e| self.failed(&e))?;
        let partial = EdgeType { schema: partial, append_only: true, key: None, time: Vec::new() };
        let forward = vec![Input { from: rel.base, exchange: Exchange::Forward }];
        let partial = self.push(NodeKind::PartialWindowAggregate(spec.clone()), forward, partial)?;
        let time = emitted_by(spec).map(|domain| TimeAttribute { column: keys + 2, domain });
        let output = EdgeType {
            schema: spec.output.clone(),
            append_only: spec.early.is_none(),
            key: Some((0..keys + 2).collect()),
            time: time.into_iter().collect(),
        };
        let shuffle = vec![Input { from: partial, exchange: Exchange::Hash { columns: (0..keys).collect() } }];
        self.push(NodeKind::WindowAggregate(spec.clone()), shuffle, output)
    }

    /// Output of the final half in the order and with the names of the logical aggregation.
    fn result(
        &mut self,
        base: millstream_plan::OperatorId,
        spec: &WindowAggregate,
        groups: &[Group],
        node: &Aggregate,
        pending: Option<&Pending>,
    ) -> Result<Rel> {
        let keys = spec.keys.len();
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        let calls = (0..spec.aggregates.len()).map(|i| (keys + 3 + i, Role::default()));
        let of_groups = groups.iter().map(|g| match g {
            Group::Key(i) => (*i, Role::default()),
            Group::Window(part) => {
                let time = emitted_by(spec).filter(|_| *part == Part::Time);
                (keys + *part as usize, Role { time, part: Some(*part) })
            }
        });
        for (i, (index, role)) in of_groups.chain(calls).enumerate() {
            let (qualifier, named) = node.schema.qualified_field(i);
            let field = spec.output.field(index).clone().with_name(named.name());
            let column: Physical = Arc::new(Column::new(spec.output.field(index).name(), index));
            columns.push((Value::Expr(column), role));
            fields.push((qualifier.cloned(), Arc::new(field)));
        }
        let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        let mut rel = Rel { columns, ..plain(base, Arc::new(schema), Vec::new(), emitted_by(spec)) };
        for filter in pending.into_iter().flat_map(|p| &p.filters) {
            let over_output = substitute(filter.clone(), &|part| {
                Arc::new(Column::new(spec.output.field(keys + part).name(), keys + part))
            });
            rel.filter = Some(and(rel.filter, over_output.map_err(|e| self.failed(&e))?));
        }
        Ok(rel)
    }

    /// A window is grouped by if both its bounds are, or by one that tells the other.
    fn check_bounds(&self, rel: &Rel, parts: &[Part]) -> Result<()> {
        let has = |p: Part| parts.contains(&p);
        let one_is_enough =
            rel.pending.as_ref().is_some_and(|p| matches!(p.kind, WindowKind::Tumble { .. } | WindowKind::Hop { .. }));
        if has(Part::Start) && has(Part::End) || one_is_enough {
            return Ok(());
        }
        Err(Mistake::new(self.place(&["GROUP"]), "the grouping holds only one bound of the window")
            .hint("write GROUP BY window_start, window_end"))
    }

    /// Makes everything before the aggregation a node.
    fn ready(&mut self, rel: Rel, keys: &[&Expr], calls: &[Expr]) -> Result<Rel> {
        let touches = |e: &Expr| {
            let columns = e.column_refs();
            columns.iter().any(|c| rel.schema.index_of_column(c).is_ok_and(|i| rel.window_part(i).is_some()))
        };
        if keys.iter().any(|e| touches(e)) || calls.iter().any(touches) {
            let rel = self.materialise(rel)?;
            return self.settle(rel, false);
        }
        self.settle(rel, false)
    }

    fn window_of(&self, rel: &Rel, keys: &[NamedExpr], input: &Schema) -> Result<(WindowOf, DataType)> {
        let type_of = |e: &Physical| e.data_type(input).map_err(|e| self.failed(&e));
        if let Some(pending) = &rel.pending {
            self.check_partition(pending, keys)?;
            let data_type = type_of(&pending.time)?;
            return Ok((WindowOf::Time { kind: pending.kind, time: pending.time.clone() }, data_type));
        }
        let bound = |part: Part| {
            rel.columns.iter().find_map(|(value, role)| match value {
                Value::Expr(e) if role.part == Some(part) => Some(e.clone()),
                _ => None,
            })
        };
        match (bound(Part::Start), bound(Part::End)) {
            (Some(start), Some(end)) => {
                let data_type = type_of(&start)?;
                Ok((WindowOf::Attached { start, end }, data_type))
            }
            _ => Err(self.unsupported("this window", &["GROUP"])),
        }
    }

    /// Sessions are found per grouping key, so PARTITION BY and GROUP BY must say the same.
    fn check_partition(&self, pending: &Pending, keys: &[NamedExpr]) -> Result<()> {
        let (WindowKind::Session { .. }, Some(partition)) = (pending.kind, &pending.partition) else { return Ok(()) };
        // The two may call a column by different names.
        let nameless = |e: &Physical| substitute(e.clone(), &|index| Arc::new(Column::new("", index)));
        let all = |of: &mut dyn Iterator<Item = &Physical>| of.map(nameless).collect::<DfResult<Vec<_>>>();
        let partition = all(&mut partition.iter()).map_err(|e| self.failed(&e))?;
        let by = all(&mut keys.iter().map(|k| &k.expr)).map_err(|e| self.failed(&e))?;
        if partition.iter().all(|p| by.contains(p)) && by.iter().all(|k| partition.contains(k)) {
            return Ok(());
        }
        let names: Vec<&str> = keys.iter().map(|k| k.name.rsplit('.').next().unwrap_or(&k.name)).collect();
        Err(Mistake::new(pending.at, "the sessions' PARTITION BY and the query's GROUP BY differ").hint(
            match names.is_empty() {
                true => "group by the columns of PARTITION BY, window_start, window_end".to_owned(),
                false => format!("write SESSION(TABLE t PARTITION BY ({}), DESCRIPTOR(…), …)", names.join(", ")),
            },
        ))
    }

    /// An aggregate call. Its order is completed by its arguments, so that equal rows come in one order.
    pub(super) fn call(&self, expr: &Expr, names: &DFSchemaRef, input: &Schema) -> Result<AggregateCall> {
        let name = function_name(expr).unwrap_or_default();
        let expr = &completed(expr);
        let at = self.place(&[&name]);
        let build = |alias: &str| {
            let lowered = LoweredAggregateBuilder::new(expr, names, input, &self.props).with_name(alias).build();
            lowered.map_err(|e| self.catalog.mistake(&e, at))
        };
        // Its arguments have names of their own only once it is built.
        let first = build(&name)?;
        let shown = explain::call(&AggregateCall { function: first.aggregate, filter: first.filter });
        let lowered = build(&shown)?;
        let refuse = |why: &str| Mistake::new(at, format!("{name} {why}"));
        // Some combinations fail only here, such as DISTINCT of a function that cannot.
        let accumulator = lowered.aggregate.create_accumulator().map(|_| ());
        let merges = lowered.aggregate.state_fields().map(|_| ());
        accumulator
            .and(merges)
            .map_err(|e| refuse("cannot be computed like this").hint(self.catalog.mistake(&e, at).message))?;
        Ok(AggregateCall { function: lowered.aggregate, filter: lowered.filter })
    }
}

/// Which watermark the time column of the emitted windows follows. Early results may change at any time.
fn emitted_by(spec: &WindowAggregate) -> Option<TimeDomain> {
    match &spec.window {
        _ if spec.early.is_some() => None,
        WindowOf::Time { kind: WindowKind::Session { .. }, .. } => {
            Some(TimeDomain::Delayed(Box::new(spec.domain.clone()), 1))
        }
        WindowOf::Time { .. } | WindowOf::Attached { .. } => Some(spec.domain.clone()),
    }
}

pub(super) fn function_name(expr: &Expr) -> Option<String> {
    match expr.clone().unalias_nested().data {
        Expr::AggregateFunction(f) => Some(f.func.name().to_owned()),
        _ => None,
    }
}

/// Functions that give the values themselves, in an order.
const ORDERED: &[&str] = &["array_agg", "string_agg", "first_value", "last_value", "nth_value"];

/// The call with an order that leaves nothing open: its ORDER BY, then its arguments.
fn completed(expr: &Expr) -> Expr {
    let mut plain = expr.clone().unalias_nested().data;
    if let Expr::AggregateFunction(f) = &mut plain
        && ORDERED.contains(&f.func.name())
    {
        let is_open = |e: &&Expr| !matches!(e, Expr::Literal(..)) && !f.params.order_by.iter().any(|s| s.expr == **e);
        let rest: Vec<SortExpr> = f.params.args.iter().filter(is_open).map(|e| e.clone().sort(true, true)).collect();
        f.params.order_by.extend(rest);
    }
    plain
}

/// The columns of the node below under the names by which the query knows them.
pub(super) fn input_names(rel: &Rel, input: &Schema) -> datafusion::error::Result<DFSchemaRef> {
    let mut fields: Vec<_> = input
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| {
            // Columns that the query has no name for must not be found by one.
            (Some(datafusion::common::TableReference::bare(format!("__hidden_{i}"))), f.clone())
        })
        .collect();
    for (i, (value, _)) in rel.columns.iter().enumerate() {
        if let Value::Expr(e) = value
            && let Some(column) = e.downcast_ref::<Column>()
        {
            let (qualifier, named) = rel.schema.qualified_field(i);
            let field = input.field(column.index()).clone().with_name(named.name());
            fields[column.index()] = (qualifier.cloned(), Arc::new(field));
        }
    }
    Ok(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?))
}

//! Ranks: conditions on `ROW_NUMBER`, `RANK` or `DENSE_RANK`, `ORDER BY … LIMIT` and `DISTINCT ON`, which keep the first rows of an order.
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column as Name, DFSchema, DFSchemaRef, ScalarValue, TableReference};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    DistinctOn, Expr, FetchType, Filter, Limit, LogicalPlan, Operator, Projection, SkipType, Sort, SortExpr, Window,
    WindowFunctionDefinition,
};
use datafusion::physical_expr::expressions::Column;
use millstream_dataflow::graph::{Close, EdgeType, Exchange, Input, NodeKind, Ordered, Rank, RankFunction, SortColumn};

use super::over::closes;
use super::rel::{Part, Physical, Rel, Role, Value};
use super::{Lowering, edge};
use crate::error::{Mistake, Result};
use crate::types;
use crate::uses::is_window_end;

/// Ranks that a query keeps, and whether it asks for them.
struct Wanted {
    function: RankFunction,
    from: u64,
    to: u64,
    /// Column of the rank, if it is in the output.
    rank: Option<(Option<TableReference>, FieldRef)>,
}

impl Lowering<'_> {
    /// A filter; `above` are the expressions that read its rows, if they are known.
    pub(super) fn filtered(&mut self, node: &Filter, above: Option<&[Expr]>) -> Result<Rel> {
        if let Some(rel) = self.ranked(node, above)? {
            return Ok(rel);
        }
        let is_window = |e: &Expr| Ok(matches!(e, Expr::WindowFunction(_)));
        if node.predicate.exists(is_window).map_err(|e| self.failed(&e))? {
            return Err(Mistake::new(self.place(&["OVER"]), "a window function cannot stand in WHERE")
                .hint("write QUALIFY instead of WHERE, or name it in a subquery and filter that"));
        }
        let rel = self.lower(&node.input)?;
        self.filter(rel, &node.predicate)
    }

    /// A filter that keeps a range of ranks.
    fn ranked(&mut self, filter: &Filter, above: Option<&[Expr]>) -> Result<Option<Rel>> {
        // What stands between the filter and the rank: the uppermost first.
        let (chain, bottom) = descend(&filter.input);
        let LogicalPlan::Window(window) = bottom else { return Ok(None) };
        let Some((function, call)) = rank_of(window) else { return Ok(None) };
        let mut rank = window.input.schema().fields().len();
        let mut used = false;
        for plan in chain.iter().rev() {
            let LogicalPlan::Projection(projection) = plan else { continue };
            let of_rank = |e: &Expr| reads(e, projection.input.schema(), rank);
            let places: Vec<usize> = (0..projection.expr.len()).filter(|i| of_rank(&projection.expr[*i])).collect();
            let plain = |i: &usize| matches!(projection.expr[*i].clone().unalias_nested().data, Expr::Column(_));
            let Some(place) = places.iter().find(|i| plain(i)) else { return Ok(None) };
            used |= places.len() > 1;
            rank = *place;
        }
        let schema = filter.input.schema();
        let (mut from, mut to) = (1, u64::MAX);
        let mut others = Vec::new();
        for part in split_conjunction(&filter.predicate) {
            match range(part, schema, rank) {
                Some((first, last)) => (from, to) = (from.max(first), to.min(last)),
                None => {
                    used |= reads(part, schema, rank);
                    others.push(part);
                }
            }
        }
        if from > to || to == u64::MAX && from == 1 {
            return Ok(None);
        }
        used |= above.is_none_or(|above| above.iter().any(|e| reads(e, schema, rank)));
        let (qualifier, field) = window.schema.qualified_field(window.input.schema().fields().len());
        let rank = used.then(|| (qualifier.cloned(), field.clone()));
        let wanted = Wanted { function, from, to, rank };
        let rel = self.lower(&window.input)?;
        if closes(window).is_some() && self.is_in_time(&rel, call) && !self.is_by_window(window, call) {
            // The first rows of event time: each is known when the watermark has passed it, and never changes.
            let mut rel = self.over(rel, window, true)?;
            for plan in chain.into_iter().rev() {
                rel = self.above_rank(rel, plan)?;
            }
            return self.filter(rel, &filter.predicate).map(Some);
        }
        let mut rel = self.rank(rel, &call.params.partition_by, &call.params.order_by, wanted, "OVER")?;
        for plan in chain.into_iter().rev() {
            rel = self.above_rank(rel, plan)?;
        }
        for other in others {
            rel = self.filter(rel, other)?;
        }
        Ok(Some(rel))
    }

    /// True if rows are appended and come in the order of a live time attribute.
    fn is_in_time(&self, rel: &Rel, call: &WindowFunction) -> bool {
        let time = call.params.order_by.first().and_then(|sort| match &sort.expr {
            Expr::Column(column) => rel.schema.index_of_column(column).ok(),
            _ => None,
        });
        self.output(rel.base).append_only && time.is_some_and(|at| rel.columns[at].1.time.is_some())
    }

    /// True if the partitions are those of a window, which closes as a whole.
    fn is_by_window(&self, window: &Window, call: &WindowFunction) -> bool {
        let schema = window.input.schema();
        call.params.partition_by.iter().any(|e| match e {
            Expr::Column(c) => schema.index_of_column(c).is_ok_and(|i| is_window_end(&window.input, i)),
            _ => false,
        })
    }

    /// Projections and aliases above a rank, without the rank where nobody reads it.
    fn above_rank(&mut self, rel: Rel, plan: &LogicalPlan) -> Result<Rel> {
        let failed = |this: &Self, e| this.failed(&e);
        match plan {
            LogicalPlan::SubqueryAlias(alias) => {
                let fields = rel.schema.iter().map(|(q, f)| {
                    let inner = Name::from((q, f));
                    let at = alias.input.schema().index_of_column(&inner)?;
                    let (qualifier, named) = alias.schema.qualified_field(at);
                    Ok((qualifier.cloned(), Arc::new(f.as_ref().clone().with_name(named.name()))))
                });
                let fields = fields.collect::<datafusion::error::Result<Vec<_>>>().map_err(|e| failed(self, e))?;
                let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(|e| failed(self, e))?;
                Ok(Rel { schema: Arc::new(schema), ..rel })
            }
            LogicalPlan::Projection(node) => {
                let known = |e: &Expr| e.column_refs().iter().all(|c| rel.schema.has_column(c));
                let kept: Vec<usize> = (0..node.expr.len()).filter(|i| known(&node.expr[*i])).collect();
                let exprs: Vec<Expr> = kept.iter().map(|i| node.expr[*i].clone()).collect();
                let fields = kept.iter().map(|i| {
                    let (qualifier, field) = node.schema.qualified_field(*i);
                    (qualifier.cloned(), field.clone())
                });
                let schema = DFSchema::new_with_metadata(fields.collect(), Default::default());
                self.project(rel, &exprs, &Arc::new(schema.map_err(|e| failed(self, e))?))
            }
            _ => Err(self.unsupported("this window", &["OVER"])),
        }
    }

    /// `ORDER BY … LIMIT`.
    pub(super) fn limit(&mut self, node: &Limit) -> Result<Rel> {
        let (chain, bottom) = descend(&node.input);
        let LogicalPlan::Sort(sort) = bottom else {
            return Err(Mistake::new(
                self.place(&["LIMIT", "OFFSET"]),
                "LIMIT without ORDER BY keeps any rows; it is not supported on streams",
            )
            .hint("say with ORDER BY which rows come first"));
        };
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let skip = match node.get_skip_type().map_err(|e| self.failed(&e))? {
            SkipType::Literal(n) => number(n),
            SkipType::UnsupportedExpr => return Err(self.unsupported("an OFFSET that is not a number", &["OFFSET"])),
        };
        let to = match node.get_fetch_type().map_err(|e| self.failed(&e))? {
            FetchType::Literal(Some(n)) => skip.saturating_add(number(n)),
            FetchType::Literal(None) => u64::MAX,
            FetchType::UnsupportedExpr => return Err(self.unsupported("a LIMIT that is not a number", &["LIMIT"])),
        };
        if to <= skip {
            return Err(Mistake::new(self.place(&["LIMIT"]), "LIMIT 0 keeps no row").hint("leave the query out"));
        }
        let wanted = Wanted { function: RankFunction::RowNumber, from: skip + 1, to, rank: None };
        let rel = self.lower(&sort.input)?;
        let mut rel = self.rank(rel, &[], &sort.expr, wanted, "ORDER")?;
        for plan in chain.into_iter().rev() {
            rel = self.above_rank(rel, plan)?;
        }
        Ok(rel)
    }

    /// Refuses an order that nothing limits.
    pub(super) fn sort(&self, _: &Sort) -> Mistake {
        Mistake::new(self.place(&["ORDER"]), "ORDER BY without LIMIT is not supported on streams")
            .hint("a stream has no end at which it could be sorted; add LIMIT, or sort what the sink holds")
    }

    /// `DISTINCT ON`: the first row of each key.
    pub(super) fn distinct_on(&mut self, node: &DistinctOn) -> Result<Rel> {
        let Some(order) = &node.sort_expr else {
            return Err(Mistake::new(
                self.place(&["DISTINCT"]),
                "DISTINCT ON without ORDER BY keeps any row of each key; it is not supported on streams",
            )
            .hint("say with ORDER BY which row comes first"));
        };
        let wanted = Wanted { function: RankFunction::RowNumber, from: 1, to: 1, rank: None };
        let rel = self.lower(&node.input)?;
        let rel = self.rank(rel, &node.on_expr, order, wanted, "DISTINCT")?;
        self.project(rel, &node.select_expr, &node.schema)
    }

    fn rank(
        &mut self,
        rel: Rel,
        partition: &[Expr],
        order: &[SortExpr],
        wanted: Wanted,
        word: &'static str,
    ) -> Result<Rel> {
        let (rel, rows) = self.ordered(rel, partition, order, word)?;
        let base = self.output(rel.base).clone();
        let mut fields: Vec<FieldRef> = base.schema.fields().iter().cloned().collect();
        if let Some((_, field)) = &wanted.rank {
            let name = match wanted.function {
                RankFunction::RowNumber => "row_number",
                RankFunction::Rank => "rank",
                RankFunction::DenseRank => "dense_rank",
            };
            fields.push(Arc::new(field.as_ref().clone().with_name(name)));
        }
        let mut key = rows.partition.clone();
        match (&wanted.rank, wanted.function) {
            (_, RankFunction::RowNumber) if wanted.from == wanted.to => {}
            (Some(_), RankFunction::RowNumber) => key.push(fields.len() - 1),
            _ => key.clear(),
        }
        let key = (!key.is_empty()).then_some(key);
        let spec =
            Rank { rows, function: wanted.function, from: wanted.from, to: wanted.to, numbered: wanted.rank.is_some() };
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let extra = wanted.rank.into_iter().collect();
        let exchange = Exchange::Hash { columns: spec.rows.partition.clone() };
        let close = spec.rows.close.is_some();
        let spec = Arc::new(spec);
        let mut from = rel.base;
        if spec.rows.partition.is_empty() && spec.is_bounded() && self.parallelism > 1 {
            let forward = vec![Input { from, exchange: Exchange::Forward }];
            from = self.push(NodeKind::LocalRank(spec.clone()), forward, base.clone())?;
        }
        let kind = NodeKind::Rank(spec);
        let inputs = vec![Input { from, exchange }];
        // Time attributes and windows live on only where nothing is ever taken back.
        let output = if close { EdgeType { schema, key, ..base } } else { changes(schema, key) };
        let node = self.push(kind, inputs, output)?;
        self.with_results(rel, node, extra, close)
    }

    /// The columns of `rel` and those that node `node` has added at its end, under the given names.
    pub(super) fn with_results(
        &self,
        rel: Rel,
        node: millstream_plan::OperatorId,
        results: Vec<(Option<TableReference>, FieldRef)>,
        close: bool,
    ) -> Result<Rel> {
        let output = self.output(node).schema.clone();
        let first = output.fields().len() - results.len();
        let mut columns = rel.columns;
        let mut fields: Vec<_> = rel.schema.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        for (i, result) in results.into_iter().enumerate() {
            let column: Physical = Arc::new(Column::new(output.field(first + i).name(), first + i));
            columns.push((Value::Expr(column), Role::default()));
            fields.push(result);
        }
        if !close {
            columns.iter_mut().for_each(|(_, role)| *role = Role::default());
        }
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(|e| self.failed(&e))?;
        let windows = rel.windows.filter(|_| close);
        Ok(Rel { base: node, filter: None, columns, schema: Arc::new(schema), pending: None, windows })
    }

    /// Makes `rel` a node whose columns are those of `rel` and what the partition and the order compute. The columns of the rel that is
    /// returned are those of `rel`.
    pub(super) fn ordered(
        &mut self,
        rel: Rel,
        partition: &[Expr],
        order: &[SortExpr],
        word: &str,
    ) -> Result<(Rel, Ordered)> {
        let mut rel = self.materialise(rel)?;
        let width = rel.columns.len();
        let names = rel.schema.clone();
        let mut places = Vec::with_capacity(partition.len() + order.len());
        for expr in partition.iter().chain(order.iter().map(|s| &s.expr)) {
            places.push(match expr.clone().unalias_nested().data {
                Expr::Column(column) => names.index_of_column(&column).map_err(|e| self.failed(&e))?,
                expr => {
                    rel = self.with_computed(rel, &names, &expr)?;
                    rel.columns.len() - 1
                }
            });
        }
        // Ties are completed by the rows of this query, so no other column may be in them.
        let plain = rel.is_plain(self.output(rel.base).schema.fields().len());
        rel = self.settle(rel, !plain)?;
        let input = self.output(rel.base).clone();
        let at = |place: usize| match &rel.columns[place].0 {
            Value::Expr(e) => e.downcast_ref::<Column>().map(Column::index),
            Value::Window(_) => None,
        };
        let columns: Option<Vec<usize>> = places.iter().map(|place| at(*place)).collect();
        let Some(columns) = columns else { return Err(self.unsupported("this order", &[word])) };
        for field in input.schema.fields() {
            if !RowConverter::supports_fields(&[SortField::new(field.data_type().clone())]) {
                let message = format!(
                    "rows with column '{}' of type {} cannot be ordered",
                    field.name(),
                    types::name(field.data_type())
                );
                return Err(Mistake::new(self.place(&[word]), message).hint("leave the column out of the query"));
            }
        }
        let (of_partition, of_order) = columns.split_at(partition.len());
        let close = rel.windows.clone().filter(|_| input.append_only).and_then(|domain| {
            let is_end = |place: &&usize| rel.columns[**place].1.part == Some(Part::End);
            let end = places[..partition.len()].iter().find(is_end).and_then(|place| at(*place))?;
            Some(Close { end, domain })
        });
        let order = of_order.iter().zip(order).map(|(column, sort)| SortColumn {
            column: *column,
            descending: !sort.asc,
            nulls_first: sort.nulls_first,
        });
        let rows = Ordered {
            input: input.schema,
            partition: of_partition.to_vec(),
            order: order.collect(),
            append_only: input.append_only,
            close,
        };
        rel.columns.truncate(width);
        rel.schema = names;
        Ok((rel, rows))
    }

    /// Adds a column to `rel`.
    fn with_computed(&mut self, mut rel: Rel, names: &DFSchemaRef, expr: &Expr) -> Result<Rel> {
        let physical = self.physical(expr, names)?;
        let data_type = physical.data_type(names.as_arrow()).map_err(|e| self.failed(&e))?;
        let value = self.over_base(&rel, expr)?;
        let name = format!("__order_{}", rel.columns.len());
        let mut fields: Vec<_> = rel.schema.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        fields.push((None, Arc::new(arrow::datatypes::Field::new(name, data_type, true))));
        let schema = DFSchema::new_with_metadata(fields, Default::default()).map_err(|e| self.failed(&e))?;
        rel.columns.push((Value::Expr(value), Role::default()));
        rel.schema = Arc::new(schema);
        Ok(rel)
    }
}

/// The type of an edge whose rows may be taken away.
pub(super) fn changes(schema: arrow::datatypes::SchemaRef, key: Option<Vec<usize>>) -> EdgeType {
    EdgeType { append_only: false, ..edge(schema, &[], key) }
}

/// Projections and aliases, the uppermost first, and what stands below them.
fn descend(plan: &LogicalPlan) -> (Vec<&LogicalPlan>, &LogicalPlan) {
    let (mut chain, mut plan) = (Vec::new(), plan);
    loop {
        let below = match plan {
            LogicalPlan::Projection(Projection { input, .. }) => input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            _ => return (chain, plan),
        };
        chain.push(plan);
        plan = below;
    }
}

/// The only function of a window, if it is a rank.
fn rank_of(window: &Window) -> Option<(RankFunction, &WindowFunction)> {
    let [expr] = window.window_expr.as_slice() else { return None };
    let expr = match expr {
        Expr::Alias(alias) => &alias.expr,
        expr => expr,
    };
    let Expr::WindowFunction(call) = expr else { return None };
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else { return None };
    let function = match function.name() {
        "row_number" => RankFunction::RowNumber,
        "rank" => RankFunction::Rank,
        "dense_rank" => RankFunction::DenseRank,
        _ => return None,
    };
    Some((function, call))
}

/// True if `expr` reads column `at` of `schema`.
fn reads(expr: &Expr, schema: &DFSchema, at: usize) -> bool {
    expr.column_refs().iter().any(|c| schema.index_of_column(c).is_ok_and(|i| i == at))
}

/// The ranks for which `expr` is true, if it compares the rank in column `at` with a number.
fn range(expr: &Expr, schema: &DFSchema, at: usize) -> Option<(u64, u64)> {
    let is_rank = |e: &Expr| matches!(peeled(e), Expr::Column(c) if schema.index_of_column(c).is_ok_and(|i| i == at));
    let (from, to): (i128, i128) = match expr {
        Expr::BinaryExpr(binary) => {
            let (n, op) = match (is_rank(&binary.left), is_rank(&binary.right)) {
                (true, false) => (whole(&binary.right)?, binary.op),
                (false, true) => (whole(&binary.left)?, binary.op.swap()?),
                _ => return None,
            };
            match op {
                Operator::Eq => (n, n),
                Operator::Lt => (1, n - 1),
                Operator::LtEq => (1, n),
                Operator::Gt => (n + 1, i128::MAX),
                Operator::GtEq => (n, i128::MAX),
                _ => return None,
            }
        }
        Expr::Between(between) if !between.negated && is_rank(&between.expr) => {
            (whole(&between.low)?, whole(&between.high)?)
        }
        _ => return None,
    };
    let clamp = |n: i128| u64::try_from(n.max(0)).unwrap_or(u64::MAX);
    Some((clamp(from).max(1), clamp(to)))
}

/// Without casts between types of whole numbers, which keep ranks as they are.
fn peeled(expr: &Expr) -> &Expr {
    let is_whole = |t: &DataType| matches!(t, DataType::Int64 | DataType::UInt64 | DataType::Decimal128(20.., 0));
    match expr {
        Expr::Cast(cast) if is_whole(cast.field.data_type()) => peeled(&cast.expr),
        _ => expr,
    }
}

/// A whole number that is written out.
fn whole(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Decimal128(Some(n), _, 0) => Some(*n),
        ScalarValue::UInt64(Some(n)) => Some(i128::from(*n)),
        value if value.data_type().is_integer() => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(n))) => Some(i128::from(n)),
            _ => None,
        },
        _ => None,
    }
}

//! Aggregation without a window: a first half before the shuffle and a second half behind it, whose results change.
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatchOptions, UInt64Array, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet as LogicalSets};
use datafusion::physical_expr::expressions::Column;
use millstream_dataflow::graph::{
    EdgeType, Exchange, Expand, GroupAggregate, GroupCall, GroupingSet, Input, NamedExpr, NodeKind, TtlMode, WindowKind,
};
use millstream_dataflow::operators::group_transfer;

use super::aggregate::input_names;
use super::rel::{Pending, Physical, Rel, Role, Value};
use super::{Lowering, edge, plain};
use crate::error::{Mistake, Result};
use crate::explain;
use crate::show::show;
use crate::types;

impl Lowering<'_> {
    /// Groups whose rows come and go, or that no window ends.
    pub(super) fn group(&mut self, rel: Rel, node: &Aggregate) -> Result<Rel> {
        let rel = self.session_keys(rel, node)?;
        let rel = self.materialise(rel)?;
        let rel = self.settle(rel, false)?;
        let input = self.output(rel.base).clone();
        let names = input_names(&rel, &input.schema).map_err(|e| self.failed(&e))?;
        let exprs = grouping_set_to_exprlist(&node.group_expr).map_err(|e| self.failed(&e))?;
        let mut keys = Vec::new();
        let mut roles = Vec::new();
        for expr in exprs {
            let expr = expr.clone().unalias_nested().data;
            let physical = self.physical(&expr, &names)?;
            let name = match &expr {
                Expr::Column(column) => column.name.clone(),
                _ => show(&physical),
            };
            roles.push(role_of(&rel, &expr));
            keys.push(NamedExpr { name, expr: physical });
        }
        let sets = grouping_sets(&node.group_expr);
        let (base, input, keys, names) = match &sets {
            None => (rel.base, input, keys, names),
            Some(sets) => self.expand(&rel, sets, keys, node, names)?,
        };
        if sets.is_some() {
            roles = vec![Role::default(); keys.len()];
        }
        let calls =
            node.aggr_expr.iter().map(|e| self.group_call(e, &names, &input.schema)).collect::<Result<Vec<_>>>()?;
        let updating = !input.append_only;
        // What lapses must be found by its group.
        let lapses = self.ttl.is_some() && calls.iter().any(|c| c.distinct);
        let retracts = updating || lapses || calls.iter().any(keeps_rows);
        let transfer = group_transfer(&keys, &calls, retracts, &input.schema).map_err(|e| self.failed(&e))?;
        self.check_types(&transfer, keys.len())?;
        // Without aggregates a row that has come stays: it is a DISTINCT.
        let taken_back = self.ttl.is_some_and(|ttl| ttl.mode == TtlMode::Retract);
        let append_only = !updating && calls.is_empty() && !taken_back;
        let mut fields: Vec<FieldRef> = transfer.fields()[..keys.len()].to_vec();
        let named = |c: &GroupCall| Arc::new(c.function.field().as_ref().clone().with_name(explain::group_call(c)));
        fields.extend(calls.iter().map(named));
        let output = Arc::new(Schema::new(fields));
        let count = keys.len();
        let always = always(&transfer, count, sets.as_deref()).map_err(|e| self.failed(&e))?;
        let spec = Arc::new(GroupAggregate {
            keys,
            always,
            calls,
            retracts,
            updating,
            transfer: transfer.clone(),
            output: output.clone(),
            ttl: self.ttl,
        });
        let forward = vec![Input { from: base, exchange: Exchange::Forward }];
        let first = EdgeType { schema: transfer, append_only: !retracts, key: None, time: Vec::new() };
        let first = self.push(NodeKind::PartialGroupAggregate(spec.clone()), forward, first)?;
        if !append_only {
            roles = vec![Role::default(); count];
        }
        roles.resize(output.fields().len(), Role::default());
        let key = (count > 0).then(|| (0..count).collect());
        let second = EdgeType { append_only, ..edge(output.clone(), &roles, key) };
        let shuffle = vec![Input { from: first, exchange: Exchange::Hash { columns: (0..count).collect() } }];
        let base = self.push(NodeKind::GroupAggregate(spec), shuffle, second)?;
        let fields = (0..output.fields().len()).map(|i| {
            let (qualifier, named) = node.schema.qualified_field(i);
            (qualifier.cloned(), Arc::new(output.field(i).clone().with_name(named.name())))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), HashMap::new()).map_err(|e| self.failed(&e))?;
        let mut result = plain(base, Arc::new(schema), roles, None);
        // The node's columns have names of their own.
        for (i, (value, _)) in result.columns.iter_mut().enumerate() {
            *value = Value::Expr(Arc::new(Column::new(output.field(i).name(), i)));
        }
        Ok(result)
    }

    /// Sessions per grouping key are those of a PARTITION BY of the same.
    fn session_keys(&self, mut rel: Rel, node: &Aggregate) -> Result<Rel> {
        let session = rel.pending.as_ref().filter(|p| matches!(p.kind, WindowKind::Session { .. }));
        let Some(pending) = session else { return Ok(rel) };
        if self.output(rel.base).append_only {
            let message = "session windows can only be grouped by, over rows that are never taken away";
            return Err(Mistake::new(pending.at, message)
                .hint("write GROUP BY window_start, window_end and the columns of PARTITION BY"));
        }
        if pending.partition.is_none() {
            let exprs = grouping_set_to_exprlist(&node.group_expr).map_err(|e| self.failed(&e))?;
            let is_bound = |e: &Expr| match e {
                Expr::Column(c) => rel.schema.index_of_column(c).is_ok_and(|i| rel.window_part(i).is_some()),
                _ => false,
            };
            let keys = exprs.into_iter().map(|e| e.clone().unalias_nested().data).filter(|e| !is_bound(e));
            let by = keys.map(|e| self.over_base(&rel, &e)).collect::<Result<Vec<_>>>()?;
            rel.pending = rel.pending.map(|p| Pending { partition: Some(by), ..p });
        }
        Ok(rel)
    }

    /// Gives each row to every grouping set. The keys are then columns of the new node, the last of them the grouping id.
    fn expand(
        &mut self,
        rel: &Rel,
        sets: &[Vec<bool>],
        keys: Vec<NamedExpr>,
        node: &Aggregate,
        names: DFSchemaRef,
    ) -> Result<(millstream_plan::OperatorId, EdgeType, Vec<NamedExpr>, DFSchemaRef)> {
        let input = self.output(rel.base).clone();
        let width = input.schema.fields().len();
        let mut fields: Vec<FieldRef> = input.schema.fields().to_vec();
        let mut named: Vec<_> = names.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        let mut columns = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let data_type = key.expr.data_type(&input.schema).map_err(|e| self.failed(&e))?;
            columns.push((key.name.clone(), Field::new(format!("key_{i}"), data_type, true)));
        }
        let id_type = node.schema.field(keys.len()).data_type().clone();
        columns.push(("grouping id".to_owned(), Field::new("grouping_id", id_type, false)));
        let mut after = Vec::new();
        for (i, (name, field)) in columns.into_iter().enumerate() {
            let expr: Physical = Arc::new(Column::new(field.name(), width + i));
            after.push(NamedExpr { name, expr });
            let hidden = datafusion::common::TableReference::bare(format!("__key_{i}"));
            named.push((Some(hidden), Arc::new(field.clone())));
            fields.push(Arc::new(field));
        }
        let expand = Expand { sets: with_ids(sets), keys };
        let output = EdgeType { schema: Arc::new(Schema::new(fields)), key: None, ..input };
        let forward = vec![Input { from: rel.base, exchange: Exchange::Forward }];
        let base = self.push(NodeKind::Expand(expand), forward, output.clone())?;
        let names = DFSchema::new_with_metadata(named, HashMap::new()).map_err(|e| self.failed(&e))?;
        Ok((base, output, after, Arc::new(names)))
    }

    fn group_call(&self, expr: &Expr, names: &DFSchemaRef, input: &Schema) -> Result<GroupCall> {
        let mut plain = expr.clone().unalias_nested().data;
        // Checked as it stands: some functions have no DISTINCT.
        let as_written = self.call(&plain, names, input)?;
        let mut distinct = as_written.function.is_distinct();
        if !distinct {
            return Ok(GroupCall { function: as_written.function, filter: as_written.filter, distinct });
        }
        if let Expr::AggregateFunction(f) = &mut plain {
            f.params.distinct = false;
        }
        let call = self.call(&plain, names, input)?;
        let returns = |f: &datafusion::physical_expr::aggregate::AggregateFunctionExpr| f.field().data_type().clone();
        if returns(&call.function) != returns(&as_written.function) {
            return Err(self.unsupported("DISTINCT in this aggregate", &["DISTINCT"]));
        }
        // The largest of several equal values is the same one.
        distinct &=
            !matches!(call.function.fun().name(), "min" | "max" | "bool_and" | "bool_or" | "bit_and" | "bit_or");
        Ok(GroupCall { function: call.function, filter: call.filter, distinct })
    }

    /// State is kept by bytes of Arrow's row format.
    fn check_types(&self, transfer: &Schema, keys: usize) -> Result<()> {
        let unfit = |f: &&FieldRef| !RowConverter::supports_fields(&[SortField::new(f.data_type().clone())]);
        match transfer.fields().iter().enumerate().find(|(_, f)| unfit(f)) {
            None => Ok(()),
            Some((i, field)) => {
                let what = if i < keys { format!("grouping by '{}'", field.name()) } else { "aggregating".to_owned() };
                let name = types::name(field.data_type());
                Err(self
                    .unsupported(&format!("{what} a value of type {name}"), &["GROUP", "DISTINCT", "UNION"])
                    .hint("take its fields or elements"))
            }
        }
    }
}

/// True if the values themselves are the call's state, or their order matters: each is then an entry of its own.
fn keeps_rows(call: &GroupCall) -> bool {
    let lists = || {
        let fields = call.function.state_fields().unwrap_or_default();
        fields.iter().any(|f| matches!(f.data_type(), DataType::List(_)))
    };
    !call.function.order_bys().is_empty() || !call.distinct && lists()
}

/// What a key is, if it is a column of the input.
fn role_of(rel: &Rel, expr: &Expr) -> Role {
    match expr {
        Expr::Column(column) => {
            let index = rel.schema.index_of_column(column).ok();
            index.map(|i| Role { part: None, ..rel.columns[i].1.clone() }).unwrap_or_default()
        }
        _ => Role::default(),
    }
}

/// Which keys are null in each grouping set; `None` without GROUPING SETS, ROLLUP and CUBE.
fn grouping_sets(group_expr: &[Expr]) -> Option<Vec<Vec<bool>>> {
    let [Expr::GroupingSet(sets)] = group_expr else { return None };
    let keys = sets.distinct_expr();
    let nulls = |set: &[&Expr]| keys.iter().map(|k| !set.contains(k)).collect::<Vec<_>>();
    Some(match sets {
        LogicalSets::GroupingSets(sets) => sets.iter().map(|s| nulls(&s.iter().collect::<Vec<_>>())).collect(),
        LogicalSets::Rollup(exprs) => {
            (0..=exprs.len()).map(|n| nulls(&exprs[..n].iter().collect::<Vec<_>>())).collect()
        }
        LogicalSets::Cube(exprs) => (0..1_u64 << exprs.len().min(16))
            .map(|mask| {
                let inside = exprs.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0);
                nulls(&inside.map(|(_, e)| e).collect::<Vec<_>>())
            })
            .collect(),
    })
}

/// Grouping sets with DataFusion's grouping ids: a bit for each key that is null, and above them a number for sets that are the same.
fn with_ids(sets: &[Vec<bool>]) -> Vec<GroupingSet> {
    let id = |(i, nulls): (usize, &Vec<bool>)| {
        let ordinal = sets[..i].iter().filter(|s| *s == nulls).count() as u64;
        let mask = nulls.iter().fold(0_u64, |mask, null| mask << 1 | u64::from(*null));
        GroupingSet { nulls: nulls.clone(), id: mask | ordinal.checked_shl(nulls.len() as u32).unwrap_or(0) }
    };
    sets.iter().enumerate().map(id).collect()
}

/// Keys of the groups that have a row also without input.
fn always(transfer: &Schema, keys: usize, sets: Option<&[Vec<bool>]>) -> DfResult<RecordBatch> {
    let schema = Arc::new(Schema::new(transfer.fields()[..keys].to_vec()));
    let ids: Vec<u64> = match sets {
        None => Vec::new(),
        Some(sets) => with_ids(sets).iter().filter(|s| s.nulls.iter().all(|n| *n)).map(|s| s.id).collect(),
    };
    let rows = if keys == 0 { 1 } else { ids.len() };
    let mut columns: Vec<ArrayRef> = schema.fields().iter().map(|f| new_null_array(f.data_type(), rows)).collect();
    if let (Some(_), Some(last)) = (sets, columns.last_mut()) {
        *last = cast(&(Arc::new(UInt64Array::from(ids)) as ArrayRef), last.data_type())?;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::col;

    use super::*;

    #[test]
    fn sets_of_rollup_and_cube() {
        let sets = |s: LogicalSets| grouping_sets(&[Expr::GroupingSet(s)]);
        let keys = || vec![col("a"), col("b")];
        let rollup = [vec![true, true], vec![false, true], vec![false, false]];
        assert_eq!(sets(LogicalSets::Rollup(keys())), Some(rollup.to_vec()));
        assert_eq!(sets(LogicalSets::Cube(keys())).map(|s| s.len()), Some(4));
        assert_eq!(sets(LogicalSets::GroupingSets(vec![vec![col("b")], vec![]])), Some(vec![vec![false], vec![true]]));
        assert_eq!(grouping_sets(&keys()), None);
    }
}

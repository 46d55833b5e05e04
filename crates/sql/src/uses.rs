//! What a pipeline uses of each table, over all its queries: columns, fields inside them, the watermark, and whether all readers
//! throw away the same rows.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, ScalarValue};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator};
use millstream_connectors::Reads;
use millstream_dataflow::graph::FilterValues;

use crate::catalog::Catalog;
use crate::lower::{closes, time_pairs};
use crate::pattern::MatchRecognize;
use crate::set::SetNode;
use crate::table::{ColumnOrigin, StreamTable, Table};
use crate::versions::{as_of, table_of, versions};
use crate::window::{Partition, WindowTvf};

/// What is needed of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Paths {
    All,
    /// Only these fields inside it; none of them is a part of another.
    Fields(BTreeSet<Vec<String>>),
}

impl Paths {
    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Fields(own), Self::Fields(more)) => own.extend(more.iter().cloned()),
            _ => *self = Self::All,
        }
    }

    /// `data_type` with only the fields that are needed.
    pub fn prune(&self, data_type: &DataType) -> DataType {
        match (self, data_type) {
            (Self::Fields(paths), DataType::Struct(fields)) => {
                let kept: Vec<Arc<Field>> = fields.iter().filter_map(|f| prune_field(paths, f)).collect();
                DataType::Struct(Fields::from(kept))
            }
            _ => data_type.clone(),
        }
    }
}

fn prune_field(paths: &BTreeSet<Vec<String>>, field: &Arc<Field>) -> Option<Arc<Field>> {
    let inside: Vec<&[String]> =
        paths.iter().filter(|p| p.first() == Some(field.name())).map(|p| p.get(1..).unwrap_or_default()).collect();
    if inside.is_empty() {
        return None;
    }
    if inside.iter().any(|p| p.is_empty()) {
        return Some(field.clone());
    }
    let deeper = Paths::Fields(inside.into_iter().map(<[String]>::to_vec).collect());
    Some(Arc::new(field.as_ref().clone().with_data_type(deeper.prune(field.data_type()))))
}

/// Needs by column of a schema.
pub(crate) type Needs = BTreeMap<usize, Need>;

/// What is needed of one column.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub paths: Paths,
    /// Windows close by it.
    pub as_time: bool,
}

fn add(needs: &mut Needs, column: usize, paths: Paths, as_time: bool) {
    match needs.get_mut(&column) {
        Some(need) => {
            need.paths.merge(&paths);
            need.as_time |= as_time;
        }
        None => {
            needs.insert(column, Need { paths, as_time });
        }
    }
}

/// Adds what `expr` needs of the columns of `schema`.
pub(crate) fn add_expr(needs: &mut Needs, expr: &Expr, schema: &DFSchema) -> DfResult<()> {
    expr.apply(|e| {
        if let Some((column, path)) = field_of(e) {
            add(needs, schema.index_of_column(column)?, Paths::Fields(BTreeSet::from([path])), false);
            return Ok(TreeNodeRecursion::Jump);
        }
        if let Expr::Column(column) = e {
            add(needs, schema.index_of_column(column)?, Paths::All, false);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// `get_field(get_field(column, 'a'), 'b')` → (column, [a, b])
fn field_of(expr: &Expr) -> Option<(&Column, Vec<String>)> {
    let Expr::ScalarFunction(f) = expr else { return None };
    if f.name() != "get_field" {
        return None;
    }
    let (base, names) = f.args.split_first()?;
    let (column, mut path) = match base {
        Expr::Column(column) => (column, Vec::new()),
        nested => field_of(nested)?,
    };
    for name in names {
        match name {
            Expr::Literal(ScalarValue::Utf8(Some(n)) | ScalarValue::Utf8View(Some(n)), _) => path.push(n.clone()),
            _ => return None,
        }
    }
    Some((column, path))
}

/// What all queries use of one table.
#[derive(Debug, Default)]
pub(crate) struct TableUse {
    /// By index in the table's columns.
    pub columns: Needs,
    /// Some operator closes windows by the table's watermark.
    pub watermark: bool,
    /// For each reader, the values that it accepts by column; rows with others do not matter to it.
    readers: Vec<BTreeMap<usize, FilterValues>>,
    /// Readers that join its versions.
    versions: usize,
}

impl TableUse {
    /// A column's value over the base schema. Where every row that passes the prefilter has one value of its column, that value is put in:
    /// `CASE WHEN event_type = 0 THEN a ELSE b END` needs no `a` if only rows with `event_type = 2` matter.
    pub fn expr(&self, catalog: &Catalog, table: &Table, column: usize) -> DfResult<Expr> {
        let expr = table.columns[column].expr(&table.base);
        let (ColumnOrigin::Computed { .. }, Some((base, values))) =
            (&table.columns[column].origin, self.prefilter(table))
        else {
            return Ok(expr);
        };
        let field = table.base.field(base);
        let value = match values {
            FilterValues::Int(v) if v.len() == 1 => ScalarValue::Int64(Some(v[0])).cast_to(field.data_type())?,
            FilterValues::Text(v) if v.len() == 1 => ScalarValue::Utf8(v.first().cloned()),
            _ => return Ok(expr),
        };
        let known = expr.transform(|e| match &e {
            Expr::Column(c) if c.name == *field.name() => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
            _ => Ok(Transformed::no(e)),
        })?;
        catalog.coerce(known.data, &table.base)
    }

    /// All readers join versions of its rows, which its watermark orders.
    pub fn is_versions(&self, table: &Table) -> bool {
        self.versions == self.readers.len() && table.watermark.is_some()
    }

    /// What is needed of the base schema.
    pub fn base_needs(&self, catalog: &Catalog, table: &Table) -> DfResult<Needs> {
        let mut needs = Needs::new();
        for (index, need) in &self.columns {
            match &table.columns[*index].origin {
                ColumnOrigin::Physical(base) | ColumnOrigin::Metadata { base, .. } => {
                    add(&mut needs, *base, need.paths.clone(), false);
                }
                ColumnOrigin::Computed { .. } => {
                    add_expr(&mut needs, &self.expr(catalog, table, *index)?, &table.base)?
                }
            }
        }
        if let (true, Some(watermark)) = (self.watermark, &table.watermark) {
            add_expr(&mut needs, &watermark.expr, &table.base)?;
        }
        Ok(needs)
    }

    /// The physical column by whose value every reader filters, and the values that matter to any of them.
    pub fn prefilter(&self, table: &Table) -> Option<(usize, FilterValues)> {
        // A row that takes another's place matters whatever its own values are.
        if self.watermark || table.reads() != Reads::Appended {
            return None;
        }
        let (first, rest) = self.readers.split_first()?;
        first.iter().find_map(|(column, values)| {
            let ColumnOrigin::Physical(base) = table.columns[*column].origin else { return None };
            let mut all = values.clone();
            for reader in rest {
                all = union(all, reader.get(column)?)?;
            }
            Some((base, all))
        })
    }
}

fn union(a: FilterValues, b: &FilterValues) -> Option<FilterValues> {
    fn joined<T: Ord + Clone>(mut a: Vec<T>, b: &[T]) -> Vec<T> {
        a.extend_from_slice(b);
        a.sort();
        a.dedup();
        a
    }
    match (a, b) {
        (FilterValues::Int(a), FilterValues::Int(b)) => Some(FilterValues::Int(joined(a, b))),
        (FilterValues::Text(a), FilterValues::Text(b)) => Some(FilterValues::Text(joined(a, b))),
        _ => None,
    }
}

/// Uses by table.
pub(crate) type Uses = BTreeMap<String, TableUse>;

/// Adds what `plan` uses, where all its columns are needed.
pub(crate) fn collect(uses: &mut Uses, plan: &LogicalPlan) -> DfResult<()> {
    let all = (0..plan.schema().fields().len()).map(|i| (i, Need { paths: Paths::All, as_time: false })).collect();
    visit(uses, plan, all, None)
}

/// `needs` are by column of `plan`; `filter` stands directly above it.
fn visit(uses: &mut Uses, plan: &LogicalPlan, needs: Needs, filter: Option<&Expr>) -> DfResult<()> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let schema = projection.input.schema();
            let mut below = Needs::new();
            for (i, need) in needs {
                match projection.expr[i].clone().unalias_nested().data {
                    Expr::Column(column) => add(&mut below, schema.index_of_column(&column)?, need.paths, need.as_time),
                    expr => add_expr(&mut below, &expr, schema)?,
                }
            }
            visit(uses, &projection.input, below, None)
        }
        LogicalPlan::Filter(node) => {
            let mut below = needs;
            add_expr(&mut below, &node.predicate, node.input.schema())?;
            visit(uses, &node.input, below, Some(&node.predicate))
        }
        LogicalPlan::SubqueryAlias(alias) => visit(uses, &alias.input, needs, filter),
        LogicalPlan::Union(node) => node.inputs.iter().try_for_each(|input| visit(uses, input, needs.clone(), None)),
        LogicalPlan::Aggregate(node) => {
            let schema = node.input.schema();
            let mut below = Needs::new();
            for (i, expr) in node.group_expr.iter().enumerate() {
                let as_time = needs.get(&i).is_some_and(|n| n.as_time);
                match expr.clone().unalias_nested().data {
                    Expr::Column(column) => add(&mut below, schema.index_of_column(&column)?, Paths::All, as_time),
                    expr => add_expr(&mut below, &expr, schema)?,
                }
            }
            node.aggr_expr.iter().try_for_each(|e| add_expr(&mut below, e, schema))?;
            visit(uses, &node.input, below, None)
        }
        LogicalPlan::Extension(extension) => {
            let node = extension.node.as_any();
            if let Some(window) = node.downcast_ref::<WindowTvf>() {
                return visit_window(uses, window, needs);
            }
            if let Some(set) = node.downcast_ref::<SetNode>() {
                return visit_set(uses, set, &needs);
            }
            if let Some(pattern) = node.downcast_ref::<MatchRecognize>() {
                return visit_pattern(uses, pattern);
            }
            match versions(plan) {
                Some(versions) => {
                    let mut below = needs;
                    versions.key_columns().into_iter().for_each(|c| add(&mut below, c, Paths::All, false));
                    visit(uses, &versions.input, below, None)?;
                    if let Some(used) = table_of(versions).and_then(|table| uses.get_mut(&table.name.text)) {
                        used.versions += 1;
                    }
                    Ok(())
                }
                None => Err(DataFusionError::Internal(format!("unknown node {}", extension.node.name()))),
            }
        }
        LogicalPlan::Window(window) => {
            let schema = window.input.schema();
            let mut below = Needs::new();
            // Ties are ordered by all columns.
            for i in 0..schema.fields().len() {
                add(&mut below, i, Paths::All, needs.get(&i).is_some_and(|n| n.as_time));
            }
            if let Some(time) = closes(window) {
                add(&mut below, time, Paths::All, true);
            }
            visit(uses, &window.input, below, None)
        }
        LogicalPlan::TableScan(scan) => {
            let Some(source) = scan.source.downcast_ref::<StreamTable>() else {
                return Err(DataFusionError::Internal(format!("table {} is not a stream", scan.table_name)));
            };
            let table = &source.table;
            let used = uses.entry(table.name.text.clone()).or_default();
            for (i, need) in needs {
                let column = scan.projection.as_ref().map_or(i, |p| p[i]);
                used.watermark |= need.as_time && table.watermark.as_ref().is_some_and(|w| w.column == column);
                add(&mut used.columns, column, need.paths, need.as_time);
            }
            if table.reads() == Reads::Upserts {
                table.primary_key.iter().for_each(|key| add(&mut used.columns, *key, Paths::All, false));
            }
            let accepted = filter.map_or_else(BTreeMap::new, |f| accepted(f, table));
            used.readers.push(accepted);
            Ok(())
        }
        LogicalPlan::Join(join) => visit_join(uses, join, needs),
        LogicalPlan::Unnest(unnest) => {
            let mut below = Needs::new();
            for (i, need) in needs {
                add(&mut below, unnest.dependency_indices[i], need.paths, need.as_time);
            }
            // Of a list the elements cannot be pruned, and their number counts.
            unnest.list_type_columns.iter().for_each(|(list, _)| add(&mut below, *list, Paths::All, false));
            visit(uses, &unnest.input, below, None)
        }
        // Refused when the plan is lowered.
        other => other.inputs().into_iter().try_for_each(|input| {
            let all = (0..input.schema().fields().len()).map(|i| (i, Need { paths: Paths::All, as_time: false }));
            visit(uses, input, all.collect(), None)
        }),
    }
}

fn visit_pattern(uses: &mut Uses, node: &MatchRecognize) -> DfResult<()> {
    let schema = node.input.schema();
    let mut below: Needs =
        (0..schema.fields().len()).map(|i| (i, Need { paths: Paths::All, as_time: false })).collect();
    if let Expr::Column(column) = &node.time {
        add(&mut below, schema.index_of_column(column)?, Paths::All, true);
    }
    visit(uses, &node.input, below, None)
}

fn visit_window(uses: &mut Uses, window: &WindowTvf, needs: Needs) -> DfResult<()> {
    let (width, schema) = (window.width(), window.input.schema());
    let mut below: Needs = needs.into_iter().filter(|(i, _)| *i < width).collect();
    if let Expr::Column(column) = &window.time {
        add(&mut below, schema.index_of_column(column)?, Paths::All, true);
    }
    if let Partition::By(by) = &window.partition {
        by.iter().try_for_each(|e| add_expr(&mut below, e, schema))?;
    }
    visit(uses, &window.input, below, None)
}

/// Rows are compared in all columns.
fn visit_set(uses: &mut Uses, set: &SetNode, needs: &Needs) -> DfResult<()> {
    let as_time = |i: usize| needs.get(&i).is_some_and(|n| n.as_time);
    let all = |width: usize| (0..width).map(|i| (i, Need { paths: Paths::All, as_time: as_time(i) })).collect();
    [&set.left, &set.right]
        .into_iter()
        .try_for_each(|input| visit(uses, input, all(input.schema().fields().len()), None))
}

/// A semi or anti join has the columns of one side, other joins those of both.
fn visit_join(uses: &mut Uses, join: &Join, needs: Needs) -> DfResult<()> {
    let (left, right) = (join.left.schema(), join.right.schema());
    let width = match join.join_type {
        JoinType::RightSemi | JoinType::RightAnti => 0,
        _ => left.fields().len(),
    };
    let (mut of_left, mut of_right) = (Needs::new(), Needs::new());
    for (i, need) in needs {
        match i.checked_sub(width) {
            None => add(&mut of_left, i, need.paths, need.as_time),
            // The mark of a mark join is a column of neither side.
            Some(i) if i < right.fields().len() => add(&mut of_right, i, need.paths, need.as_time),
            Some(_) => {}
        }
    }
    let mut on = Vec::new();
    for (l, r) in &join.on {
        add_expr(&mut of_left, l, left)?;
        add_expr(&mut of_right, r, right)?;
        on.push((l, r));
    }
    if let Some(filter) = &join.filter {
        let names = left.join(right)?;
        let mut both = Needs::new();
        add_expr(&mut both, filter, &names)?;
        let all = left.fields().len();
        for (i, need) in both {
            match i.checked_sub(all) {
                None => add(&mut of_left, i, need.paths, false),
                Some(i) => add(&mut of_right, i, need.paths, false),
            }
        }
    }
    if let (Some(as_of), _) = as_of(join)
        && let Expr::Column(time) = &as_of.time
    {
        // The time may stand on either side.
        let of = |schema: &DFSchema, column: &Column| schema.index_of_column(column).ok();
        let (l, r) = match of(left, time) {
            Some(l) => (Some(l), of(right, &as_of.column)),
            None => (of(left, &as_of.column), of(right, time)),
        };
        if let (Some(l), Some(r)) = (l, r)
            && is_time(&join.left, l)
            && is_time(&join.right, r)
        {
            add(&mut of_left, l, Paths::All, true);
            add(&mut of_right, r, Paths::All, true);
        }
    }
    for pair in time_pairs(&on, join.filter.as_ref()) {
        let (Ok(l), Ok(r)) = (left.index_of_column(&pair.left), right.index_of_column(&pair.right)) else { continue };
        // Rows leave the state by the watermarks of both tables.
        if is_time(&join.left, l) && is_time(&join.right, r) {
            add(&mut of_left, l, Paths::All, true);
            add(&mut of_right, r, Paths::All, true);
        }
    }
    visit(uses, &join.left, of_left, None)?;
    visit(uses, &join.right, of_right, None)
}

/// True if column `i` of `plan` is its table's watermark column, unchanged, or the time of a window.
pub(crate) fn is_time(plan: &LogicalPlan, i: usize) -> bool {
    let below = |input: &LogicalPlan, expr: &Expr| match expr.clone().unalias_nested().data {
        Expr::Column(column) => input.schema().index_of_column(&column).is_ok_and(|i| is_time(input, i)),
        _ => false,
    };
    match plan {
        LogicalPlan::Projection(node) => below(&node.input, &node.expr[i]),
        LogicalPlan::Filter(node) => is_time(&node.input, i),
        LogicalPlan::SubqueryAlias(node) => is_time(&node.input, i),
        LogicalPlan::Union(node) => node.inputs.iter().all(|input| is_time(input, i)),
        LogicalPlan::Aggregate(node) => node.group_expr.get(i).is_some_and(|e| below(&node.input, e)),
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowTvf>() {
            // All but its start, which says nothing of how far the time has come.
            Some(window) => i > window.width() || i < window.width() && is_time(&window.input, i),
            None => match extension.node.as_any().downcast_ref::<MatchRecognize>() {
                Some(node) => node.is_time(i),
                None => versions(plan).is_some_and(|versions| is_time(&versions.input, i)),
            },
        },
        LogicalPlan::Window(window) => closes(window) == Some(i) && is_time(&window.input, i),
        LogicalPlan::Join(node) => match i.checked_sub(node.left.schema().fields().len()) {
            None => is_time(&node.left, i),
            Some(i) => i < node.right.schema().fields().len() && is_time(&node.right, i),
        },
        LogicalPlan::Unnest(node) => {
            let below = node.dependency_indices[i];
            node.list_type_columns.iter().all(|(list, _)| *list != below) && is_time(&node.input, below)
        }
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<StreamTable>().is_some_and(|source| {
            let column = scan.projection.as_ref().map_or(i, |p| p[i]);
            source.table.watermark.as_ref().is_some_and(|w| w.column == column)
        }),
        _ => false,
    }
}

/// True if column `i` of `plan` is the end of a window, unchanged.
pub(crate) fn is_window_end(plan: &LogicalPlan, i: usize) -> bool {
    let below = |input: &LogicalPlan, expr: &Expr| match expr.clone().unalias_nested().data {
        Expr::Column(column) => input.schema().index_of_column(&column).is_ok_and(|i| is_window_end(input, i)),
        _ => false,
    };
    match plan {
        LogicalPlan::Projection(node) => below(&node.input, &node.expr[i]),
        LogicalPlan::Filter(node) => is_window_end(&node.input, i),
        LogicalPlan::SubqueryAlias(node) => is_window_end(&node.input, i),
        LogicalPlan::Union(node) => node.inputs.iter().all(|input| is_window_end(input, i)),
        LogicalPlan::Aggregate(node) => node.group_expr.get(i).is_some_and(|e| below(&node.input, e)),
        LogicalPlan::Extension(extension) => extension
            .node
            .as_any()
            .downcast_ref::<WindowTvf>()
            .is_some_and(|window| i == window.width() + 1 || i < window.width() && is_window_end(&window.input, i)),
        _ => false,
    }
}

/// Columns of which `filter` accepts only some values.
fn accepted(filter: &Expr, table: &Table) -> BTreeMap<usize, FilterValues> {
    let mut found = BTreeMap::new();
    for part in split_conjunction(filter) {
        if let Some((name, values)) = values_of(part)
            && let Some(index) = table.columns.iter().position(|c| c.field.name() == name)
            && let Some(values) = filter_values(&values, table.columns[index].field.data_type())
        {
            found.entry(index).or_insert(values);
        }
    }
    found
}

/// `column = literal`, `column IN (literals)`, or several of them joined by OR.
fn values_of(expr: &Expr) -> Option<(&str, Vec<&ScalarValue>)> {
    match expr {
        Expr::BinaryExpr(binary) => match (&*binary.left, binary.op, &*binary.right) {
            (Expr::Column(column), Operator::Eq, Expr::Literal(value, _))
            | (Expr::Literal(value, _), Operator::Eq, Expr::Column(column)) => Some((&column.name, vec![value])),
            (left, Operator::Or, right) => {
                let ((name, mut values), (other, more)) = (values_of(left)?, values_of(right)?);
                values.extend(more);
                (name == other).then_some((name, values))
            }
            _ => None,
        },
        Expr::InList(list) if !list.negated => {
            let Expr::Column(column) = &*list.expr else { return None };
            let values = list.list.iter().map(|e| match e {
                Expr::Literal(value, _) => Some(value),
                _ => None,
            });
            Some((&column.name, values.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn filter_values(values: &[&ScalarValue], data_type: &DataType) -> Option<FilterValues> {
    if data_type.is_signed_integer() {
        let integers = values.iter().map(|v| match v.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(i))) => Some(i),
            _ => None,
        });
        let mut integers: Vec<i64> = integers.collect::<Option<_>>()?;
        integers.sort_unstable();
        integers.dedup();
        return Some(FilterValues::Int(integers));
    }
    if *data_type != DataType::Utf8 {
        return None;
    }
    let texts = values.iter().map(|v| v.try_as_str().flatten().map(str::to_owned));
    let mut texts: Vec<String> = texts.collect::<Option<_>>()?;
    texts.sort_unstable();
    texts.dedup();
    Some(FilterValues::Text(texts))
}

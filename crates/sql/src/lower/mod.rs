//! DataFusion's optimised logical plans into the stream graph.
//!
//! Each plan is walked bottom up. A [`Rel`] carries what is known about the rows so far: the node that gives them, filters and
//! projections that are not a node yet, which columns are time attributes or bounds of windows. A window function stays
//! *pending* until an aggregation takes it in, so that windows cost nothing per row; only where rows themselves need their
//! windows does it become a `WindowAssign`.
mod aggregate;
mod calc;
mod join;
mod lookup;
mod over;
mod pattern;
mod rank;
mod rel;
mod set;
mod source;
mod unnest;
mod updating;

pub(crate) use join::time_pairs;
pub(crate) use over::closes;
pub(crate) use source::format_of;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Union};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::expressions::Column;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenWithSpan};
use millstream_connectors::SourceSpec;
use millstream_dataflow::graph::{
    EdgeType, Exchange, Input, KeyedInput, NodeKind, Ordered, SessionAssign, SinkNode, SortColumn, TimeAttribute,
    TimeDomain, Ttl, WindowAssign, WindowKind,
};
use millstream_plan::{OperatorId, SourceId};

use self::rel::{PARTS, Part, Pending, Physical, Rel, Role, Value, substitute};
use crate::catalog::Catalog;
use crate::changelog::{self, Takes};
use crate::error::{Mistake, Result};
use crate::pattern::MatchRecognize;
use crate::set::SetNode;
use crate::uses::Uses;
use crate::versions::versions;
use crate::window::{Partition, WINDOW_COLUMNS, WindowTvf};
use crate::{lex, types};

/// A node before its stage is known.
pub(crate) struct Draft {
    pub kind: NodeKind,
    pub inputs: Vec<Input>,
    pub output: EdgeType,
}

/// The graph while it grows.
pub(crate) struct Lowering<'a> {
    catalog: &'a Catalog,
    uses: &'a Uses,
    /// Name of the pipeline.
    pipeline: &'a str,
    parallelism: u16,
    /// For tables that say nothing.
    idle_timeout_ms: Option<u64>,
    pub nodes: Vec<Draft>,
    pub sources: Vec<SourceSpec>,
    by_table: BTreeMap<String, (OperatorId, SourceId)>,
    props: ExecutionProps,
    /// The table at hand is joined as of a time.
    in_versions: bool,
    /// Of the statement at hand, to say where a mistake stands.
    tokens: &'a [TokenWithSpan],
    /// `state.ttl`.
    pub ttl: Option<Ttl>,
    /// `emit.early`, in milliseconds.
    pub early: Option<i64>,
}

impl<'a> Lowering<'a> {
    pub fn new(
        catalog: &'a Catalog,
        uses: &'a Uses,
        pipeline: &'a str,
        parallelism: u16,
        idle_timeout_ms: Option<u64>,
    ) -> Self {
        let mut props = ExecutionProps::new();
        props.config_options = Some(catalog.config().clone());
        Self {
            catalog,
            uses,
            pipeline,
            parallelism,
            idle_timeout_ms,
            nodes: Vec::new(),
            sources: Vec::new(),
            by_table: BTreeMap::new(),
            props,
            in_versions: false,
            tokens: &[],
            ttl: None,
            early: None,
        }
    }

    /// Lowers the query of one INSERT and ends it in a sink, whose table has this PRIMARY KEY. Returns the type of what reaches the sink.
    pub fn insert(
        &mut self,
        plan: &LogicalPlan,
        tokens: &'a [TokenWithSpan],
        sink: SinkNode,
        key: &[usize],
        takes: Takes,
    ) -> Result<EdgeType> {
        let rel = self.query(plan, tokens)?;
        let (mut from, mut output) = self.finish(rel)?;
        let place = |words: &[&str]| self.place(words);
        changelog::require_append_only(&self.nodes, from, takes, &sink.table, &place)?;
        changelog::require_kept(&self.nodes, &self.sources, from, takes, &sink.table, &place)?;
        let mut exchange = if key.is_empty() { Exchange::Forward } else { Exchange::Hash { columns: key.to_vec() } };
        let one_per_key = output.key.as_ref().is_some_and(|known| known.iter().all(|k| key.contains(k)));
        if takes == Takes::ByKey && !output.append_only && !one_per_key {
            from = self.keyed(from, KeyedInput::Changes, &sink.table, key.to_vec(), output)?;
            output = self.output(from).clone();
            exchange = Exchange::Forward;
        }
        self.push(NodeKind::Sink(Box::new(sink)), vec![Input { from, exchange }], output.clone())?;
        Ok(output)
    }

    /// Lowers a query without an end, to find its mistakes.
    pub fn check(&mut self, plan: &LogicalPlan, tokens: &'a [TokenWithSpan]) -> Result<()> {
        self.query(plan, tokens).map(|_| ())
    }

    fn query(&mut self, plan: &LogicalPlan, tokens: &'a [TokenWithSpan]) -> Result<Rel> {
        self.tokens = tokens;
        self.lower(plan)
    }

    fn start(&self) -> Location {
        self.tokens.first().map_or(Location { line: 0, column: 0 }, |t| t.span.start)
    }

    /// Where one of these words stands, or the statement.
    pub(crate) fn place(&self, words: &[&str]) -> Location {
        words.iter().find_map(|w| lex::find_word(self.tokens, w)).unwrap_or_else(|| self.start())
    }

    fn failed(&self, error: &DataFusionError) -> Mistake {
        self.catalog.mistake(error, self.start())
    }

    fn push(&mut self, kind: NodeKind, inputs: Vec<Input>, mut output: EdgeType) -> Result<OperatorId> {
        if let NodeKind::Calc(_)
        | NodeKind::WindowAssign(_)
        | NodeKind::Expand(_)
        | NodeKind::Unnest(_)
        | NodeKind::Union
        | NodeKind::Sink(_) = &kind
        {
            // Linear: weights pass through.
            output.append_only = inputs.iter().all(|i| self.output(i.from).append_only);
        }
        match u16::try_from(self.nodes.len()) {
            Ok(id) if id < MAX_NODES => {
                self.nodes.push(Draft { kind, inputs, output });
                Ok(OperatorId(id))
            }
            _ => Err(Mistake::new(self.start(), format!("the pipeline has more than {MAX_NODES} operators"))
                .hint("split it into several pipelines")),
        }
    }

    pub(crate) fn output(&self, node: OperatorId) -> &EdgeType {
        &self.nodes[usize::from(node.0)].output
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Physical> {
        let physical = create_physical_expr(expr, schema, &self.props).map_err(|e| self.failed(&e))?;
        // What fails for every row (1 / 0, an unknown field of EXTRACT) is found here and not by the first row.
        physical.evaluate(&RecordBatch::new_empty(schema.inner().clone())).map_err(|e| self.failed(&e))?;
        Ok(physical)
    }

    fn lower(&mut self, plan: &LogicalPlan) -> Result<Rel> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => {
                let rel = self.lower(&alias.input)?;
                let schema = renamed(&alias.schema, &rel.schema).map_err(|e| self.failed(&e))?;
                Ok(Rel { schema, ..rel })
            }
            LogicalPlan::Projection(node) => {
                let rel = match &*node.input {
                    LogicalPlan::Filter(filter) => self.filtered(filter, Some(&node.expr))?,
                    input => self.lower(input)?,
                };
                self.project(rel, &node.expr, &node.schema)
            }
            LogicalPlan::Filter(node) => self.filtered(node, None),
            LogicalPlan::Union(node) => self.union(node),
            LogicalPlan::Aggregate(node) => {
                let rel = self.lower(&node.input)?;
                self.aggregate(rel, node)
            }
            LogicalPlan::Extension(extension) => {
                let node = extension.node.as_any();
                if let Some(window) = node.downcast_ref::<WindowTvf>() {
                    let rel = self.lower(&window.input)?;
                    return self.window(rel, window);
                }
                if let Some(set) = node.downcast_ref::<SetNode>() {
                    return self.set_operation(set);
                }
                if let Some(pattern) = node.downcast_ref::<MatchRecognize>() {
                    return self.row_pattern(pattern);
                }
                match versions(plan).filter(|_| self.in_versions) {
                    Some(versions) => self.lower(&versions.input),
                    None => Err(self.unsupported("FOR SYSTEM_TIME AS OF in this place", &["SYSTEM_TIME"])),
                }
            }
            LogicalPlan::Join(node) => self.join(node),
            LogicalPlan::Sort(node) => Err(self.sort(node)),
            LogicalPlan::Limit(node) => self.limit(node),
            LogicalPlan::Distinct(Distinct::On(node)) => self.distinct_on(node),
            LogicalPlan::Distinct(_) => Err(self.unsupported("DISTINCT", &["DISTINCT", "UNION"])),
            LogicalPlan::Window(node) => self.windows(node),
            LogicalPlan::Unnest(node) => self.unnest(node),
            LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => Err(self
                .unsupported("a query without a table", &[])
                .hint("read a table; the datagen connector makes rows")),
            other => Err(self.unsupported(&format!("'{}'", other.display()), &[])),
        }
    }

    fn unsupported(&self, what: &str, words: &[&str]) -> Mistake {
        Mistake::new(self.place(words), format!("{what} is not supported on streams"))
    }

    /// All inputs with one schema.
    fn union(&mut self, node: &Union) -> Result<Rel> {
        let rels = node.inputs.iter().map(|input| self.lower(input)).collect::<Result<Vec<_>>>()?;
        let rels = rels.into_iter().map(|r| self.materialise(r)).collect::<Result<Vec<_>>>()?;
        let Some(first) = rels.first() else { return Err(self.unsupported("an empty union", &[])) };
        let fields = first.schema.fields().iter().enumerate().map(|(i, f)| {
            let nullable = rels.iter().any(|r| r.schema.field(i).is_nullable());
            let named = node.schema.field(i).name();
            (
                node.schema.qualified_field(i).0.cloned(),
                Arc::new(f.as_ref().clone().with_name(named).with_nullable(nullable)),
            )
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), HashMap::new()).map_err(|e| self.failed(&e))?;
        let roles: Vec<Role> = (0..schema.fields().len())
            .map(|i| rels.iter().map(|r| r.columns[i].1.clone()).reduce(common_role).unwrap_or_default())
            .collect();
        let windows = rels.iter().map(|r| r.windows.clone()).reduce(|a, b| common_domain(a?, b?)).flatten();
        let mut inputs = Vec::new();
        for rel in rels {
            if let Some((i, odd)) = mismatch(&schema, &rel.schema) {
                let message = format!(
                    "column {} of UNION ALL is {} here and {} there",
                    i + 1,
                    types::name(schema.field(i).data_type()),
                    odd
                );
                return Err(Mistake::new(self.place(&["UNION"]), message).hint("CAST one of them"));
            }
            let from = self.finish_as(rel, schema.inner())?;
            inputs.push(Input { from, exchange: Exchange::Forward });
        }
        let schema: DFSchemaRef = Arc::new(schema);
        let output = edge(schema.inner().clone(), &roles, None);
        let base = self.push(NodeKind::Union, inputs, output)?;
        Ok(plain(base, schema, roles, windows))
    }

    fn window(&mut self, rel: Rel, window: &WindowTvf) -> Result<Rel> {
        let rel = self.materialise(rel)?;
        let Expr::Column(column) = &window.time else { return Err(self.unsupported("this window", &[])) };
        let index = rel.schema.index_of_column(column).map_err(|e| self.failed(&e))?;
        // Rows that come and go are in windows that change and never close.
        let changes = !self.output(rel.base).append_only;
        let (time, domain) = match &rel.columns[index] {
            (Value::Expr(time), role) if changes || role.time.is_some() => (time.clone(), role.time.clone()),
            _ => {
                let message =
                    format!("'{}' is not a time attribute here, so its windows would never close", column.name);
                return Err(Mistake::new(window.at, message).hint(format!(
                "declare WATERMARK FOR {0} AS {0} - INTERVAL '10' SECOND in its table and select the column unchanged, or use PROCTIME()",
                column.name
            )));
            }
        };
        let partition = match &window.partition {
            Partition::ByKeys => None,
            Partition::By(by) => {
                let by = by.iter().map(|e| self.over_base(&rel, e)).collect::<Result<Vec<_>>>()?;
                Some(by)
            }
        };
        let mut columns: Vec<(Value, Role)> =
            rel.columns.iter().map(|(v, r)| (v.clone(), Role { part: None, ..r.clone() })).collect();
        let mut fields: Vec<_> = rel.schema.iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        let time_type = rel.schema.field(index).data_type().clone();
        for (part, name) in PARTS.into_iter().zip(WINDOW_COLUMNS) {
            let time = domain.clone().filter(|_| part == Part::Time);
            columns.push((Value::Window(part), Role { time, part: Some(part) }));
            fields.push((None, Arc::new(arrow::datatypes::Field::new(name, time_type.clone(), false))));
        }
        let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| self.failed(&e))?;
        let time_name = column.name.clone();
        let pending = Pending { kind: window.kind, time, time_name, partition, filters: Vec::new(), at: window.at };
        Ok(Rel { columns, schema: Arc::new(schema), pending: Some(pending), windows: domain, ..rel })
    }

    /// Gives the rows of a pending window their windows.
    fn materialise(&mut self, rel: Rel) -> Result<Rel> {
        if rel.pending.is_none() {
            return Ok(rel);
        }
        let rel = self.settle(rel, false)?;
        let Some(pending) = rel.pending.clone() else { return Ok(rel) };
        if let (WindowKind::Session { .. }, true) = (pending.kind, self.output(rel.base).append_only) {
            let message = "a session window is known only when it has ended: it can only be aggregated";
            return Err(Mistake::new(pending.at, message)
                .hint("write GROUP BY window_start, window_end and the columns of PARTITION BY"));
        }
        let Some(time) = pending.time.downcast_ref::<Column>().map(Column::index) else {
            return Err(self.unsupported("this window", &[]));
        };
        let input = self.output(rel.base).clone();
        let width = input.schema.fields().len();
        let mut fields: Vec<FieldRef> = input.schema.fields().iter().cloned().collect();
        let time_type = fields[time].data_type().clone();
        fields.extend(WINDOW_COLUMNS.map(|n| Arc::new(arrow::datatypes::Field::new(n, time_type.clone(), false))));
        let mut output = EdgeType { schema: Arc::new(Schema::new(fields)), ..input };
        output.key = None;
        if let Some(domain) = &rel.windows {
            output.time.push(TimeAttribute { column: width + 2, domain: domain.clone() });
        }
        let schema = output.schema.clone();
        let base = match pending.kind {
            WindowKind::Session { gap } => self.sessions(rel.base, &pending, (time, gap), output)?,
            window => {
                let kind = NodeKind::WindowAssign(WindowAssign { window, time });
                self.push(kind, vec![Input { from: rel.base, exchange: Exchange::Forward }], output)?
            }
        };
        let at = |index: usize| -> Physical { Arc::new(Column::new(schema.field(index).name(), index)) };
        let columns = rel.columns.into_iter().map(|(value, role)| match value {
            Value::Window(part) => (Value::Expr(at(width + part as usize)), role),
            kept @ Value::Expr(_) => (kept, role),
        });
        let mut assigned = Rel { base, columns: columns.collect(), pending: None, ..rel };
        for filter in pending.filters {
            let filter = substitute(filter, &|part| at(width + part)).map_err(|e| self.failed(&e))?;
            assigned.filter = Some(rel::and(assigned.filter, filter));
        }
        Ok(assigned)
    }
}

impl Lowering<'_> {
    /// Gives rows that come and go their sessions. The partition's expressions are columns.
    fn sessions(
        &mut self,
        from: OperatorId,
        pending: &Pending,
        (time, gap): (usize, i64),
        output: EdgeType,
    ) -> Result<OperatorId> {
        let by = pending.partition.iter().flatten().map(|e| e.downcast_ref::<Column>().map(Column::index));
        let Some(partition) = by.collect::<Option<Vec<usize>>>() else {
            return Err(self.unsupported("this PARTITION BY", &["PARTITION"]));
        };
        if partition.contains(&time) {
            let message = format!("'{}' is both the time of the sessions and what they are per", pending.time_name);
            return Err(Mistake::new(pending.at, message).hint("leave it out of PARTITION BY and GROUP BY"));
        }
        let input = self.output(from).schema.clone();
        let fits = |f: &&FieldRef| !RowConverter::supports_fields(&[SortField::new(f.data_type().clone())]);
        if let Some(field) = input.fields().iter().find(fits) {
            let name = types::name(field.data_type());
            return Err(self.unsupported(&format!("sessions of rows with a value of type {name}"), &["SESSION"]));
        }
        let exchange = Exchange::Hash { columns: partition.clone() };
        let order = vec![SortColumn { column: time, descending: false, nulls_first: true }];
        let rows = Ordered { input, partition, order, append_only: false, close: None };
        let kind = NodeKind::SessionAssign(Arc::new(SessionAssign { rows, time, gap }));
        self.push(kind, vec![Input { from, exchange }], EdgeType { append_only: false, time: Vec::new(), ..output })
    }
}

/// More operators than this are refused: state and shuffles cost per operator.
const MAX_NODES: u16 = 500;

/// The columns of node `base` as they are.
fn plain(base: OperatorId, schema: DFSchemaRef, roles: Vec<Role>, windows: Option<TimeDomain>) -> Rel {
    let columns = roles.into_iter().enumerate().map(|(i, role)| {
        let column: Physical = Arc::new(Column::new(schema.field(i).name(), i));
        (Value::Expr(column), role)
    });
    let columns = columns.collect();
    Rel { base, filter: None, columns, schema, pending: None, windows }
}

/// Names and qualifiers of `names`, types of `actual`.
fn renamed(names: &DFSchema, actual: &DFSchema) -> std::result::Result<DFSchemaRef, DataFusionError> {
    let fields = names
        .iter()
        .zip(actual.fields())
        .map(|((q, named), f)| (q.cloned(), Arc::new(f.as_ref().clone().with_name(named.name()))));
    Ok(Arc::new(DFSchema::new_with_metadata(fields.collect(), HashMap::new())?))
}

/// The type of an edge with these columns.
fn edge(schema: SchemaRef, roles: &[Role], key: Option<Vec<usize>>) -> EdgeType {
    let time = roles
        .iter()
        .enumerate()
        .filter_map(|(column, role)| role.time.clone().map(|domain| TimeAttribute { column, domain }));
    EdgeType { time: time.collect(), schema, append_only: true, key }
}

/// What is true of a column if it comes from either of two relations.
fn common_role(a: Role, b: Role) -> Role {
    Role {
        time: a.time.zip(b.time).and_then(|(a, b)| common_domain(a, b)),
        part: a.part.filter(|p| b.part == Some(*p)),
    }
}

fn common_domain(a: TimeDomain, b: TimeDomain) -> Option<TimeDomain> {
    match (a, b) {
        (TimeDomain::Event(mut a), TimeDomain::Event(b)) => {
            a.extend(b);
            a.sort_unstable();
            a.dedup();
            Some(TimeDomain::Event(a))
        }
        (TimeDomain::Processing, TimeDomain::Processing) => Some(TimeDomain::Processing),
        (TimeDomain::Delayed(a, delay), TimeDomain::Delayed(b, other)) => {
            Some(TimeDomain::Delayed(Box::new(common_domain(*a, *b)?), delay.max(other)))
        }
        (TimeDomain::Delayed(a, delay), b) | (b, TimeDomain::Delayed(a, delay)) => {
            Some(TimeDomain::Delayed(Box::new(common_domain(*a, b)?), delay))
        }
        (TimeDomain::Event(_), TimeDomain::Processing) | (TimeDomain::Processing, TimeDomain::Event(_)) => None,
    }
}

/// The first column whose type differs, and its type in `b`.
fn mismatch(a: &DFSchema, b: &DFSchema) -> Option<(usize, String)> {
    let differs = |(_, (a, b)): &(usize, (&FieldRef, &FieldRef))| a.data_type() != b.data_type();
    a.fields().iter().zip(b.fields()).enumerate().find(differs).map(|(i, (_, f))| (i, types::name(f.data_type())))
}

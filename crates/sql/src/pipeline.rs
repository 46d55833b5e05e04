//! A whole file, statement by statement, into a [`Pipeline`].
use std::collections::BTreeMap;
use std::fmt::Write as _;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenWithSpan};
use millstream_connectors::{ConnectorError, SinkSpec};
use millstream_dataflow::graph::{EdgeType, Exchange, Graph, Input, Node, NodeKind, SinkNode};
use millstream_plan::{Digest, DigestBuilder, OperatorId, SinkId};

use crate::catalog::Catalog;
use crate::changelog::Takes;
use crate::cursor::Name;
use crate::error::{Mistake, Result};
use crate::insert::{fit, places, targets};
use crate::lex::Tokens;
use crate::lower::{Draft, Lowering, format_of};
use crate::names::Names;
use crate::optimize::{check_size, optimize};
use crate::query::parse_query;
use crate::settings::{Settings, resolve_settings};
use crate::statement::{InsertDef, Statement, ViewDef, parse_script};
use crate::table::Table;
use crate::uses::{Uses, collect};
use crate::window::WINDOW_COLUMNS;
use crate::{Pipeline, types};

/// An INSERT whose query is resolved and optimised.
struct Insert {
    def: InsertDef,
    tokens: Tokens,
    plan: LogicalPlan,
}

pub(crate) fn build(
    sql: &str,
    conf: &BTreeMap<String, String>,
    parallelism: u16,
    changing: &BTreeMap<String, Vec<String>>,
) -> Result<Pipeline> {
    let script = parse_script(sql)?;
    let settings = resolve_settings(&script, conf)?;
    let mut catalog = Catalog::new(settings.dialect(), settings.zone().clone());
    catalog.changing.clone_from(changing);
    let mut names = Names::default();
    WINDOW_COLUMNS.iter().for_each(|c| names.add(c));
    let mut inserts = Vec::new();
    for statement in script {
        match statement {
            Statement::Set { .. } | Statement::Reset { .. } => {}
            Statement::CreateTable(def) => {
                if taken(&catalog, &def.name, def.if_not_exists)? {
                    continue;
                }
                names.add(&def.name.text);
                for column in &def.columns {
                    names.add(&column.name.text);
                }
                let base = def.columns.iter().filter_map(|c| match &c.kind {
                    crate::statement::ColumnKind::Physical { data_type, .. } => Some(data_type),
                    _ => None,
                });
                base.for_each(|t| names.add_type(t));
                catalog.add_table(Table::declare(&def, &catalog, &names)?);
            }
            Statement::CreateView(def) => {
                let replaces = def.replaces && catalog.table(&def.name.text).is_none();
                if !replaces && taken(&catalog, &def.name, def.if_not_exists)? {
                    continue;
                }
                let plan = view(&catalog, &names, &def, &settings)?;
                names.add(&def.name.text);
                names.add_fields(plan.schema().fields());
                catalog.add_view(&def.name.text, plan);
            }
            Statement::Insert(def) => inserts.push(insert(&catalog, &names, def)?),
        }
    }
    if inserts.is_empty() {
        return Err(Mistake::new(None, "the pipeline has no INSERT INTO, so it would do nothing")
            .hint("write INSERT INTO a table SELECT …"));
    }
    let mut uses = Uses::new();
    for insert in &inserts {
        collect(&mut uses, &insert.plan).map_err(|e| catalog.mistake(&e, insert.def.at))?;
    }
    let name = settings.text("pipeline.name").unwrap_or("pipeline").to_owned();
    let idle = settings.duration("watermark.idle-timeout").map(|d| d.as_millis() as u64);
    let mut lowering = Lowering::new(&catalog, &uses, &name, parallelism, idle);
    (lowering.ttl, lowering.early) = (settings.ttl(), settings.millis("emit.early"));
    let mut sinks = Vec::new();
    for (i, insert) in inserts.iter().enumerate() {
        sinks.push(sink(&catalog, &mut lowering, insert, i, &name, parallelism)?);
    }
    let Lowering { nodes, sources, .. } = lowering;
    for source in &sources {
        let place = catalog.table(&source.table).map_or(Location { line: 0, column: 0 }, |t| t.name.at);
        if let Some(table) = catalog.table(&source.table) {
            (table.connector.source)(source.clone()).map_err(|e| refused(e, place))?;
        }
    }
    let is_used =
        |name: &str| sources.iter().any(|s| s.table == name) || sinks.iter().any(|s: &SinkSpec| s.table == name);
    catalog.tables().filter(|t| !is_used(&t.name.text)).try_for_each(|t| t.check_unused())?;
    let graph = finish(nodes, parallelism, &catalog);
    Ok(Pipeline { settings, graph, sources, sinks })
}

/// True if the name exists already and may.
fn taken(catalog: &Catalog, name: &Name, if_not_exists: bool) -> Result<bool> {
    match catalog.contains(&name.text) {
        false => Ok(false),
        true if if_not_exists => Ok(true),
        true => Err(Mistake::new(name.at, format!("'{}' is declared already", name.text)).hint("choose another name")),
    }
}

fn view(catalog: &Catalog, names: &Names, def: &ViewDef, settings: &Settings) -> Result<LogicalPlan> {
    let tokens = names.respell(&def.query);
    let plan = resolve(catalog, &tokens)?;
    // Its mistakes are found here, where their place is known, and not where the view is used.
    let optimized = optimize(catalog, plan.clone(), start(&tokens))?;
    let mut uses = Uses::new();
    collect(&mut uses, &optimized).map_err(|e| catalog.mistake(&e, start(&tokens)))?;
    let mut lowering = Lowering::new(catalog, &uses, "", 1, None);
    (lowering.ttl, lowering.early) = (settings.ttl(), settings.millis("emit.early"));
    lowering.check(&optimized, &tokens)?;
    if def.columns.is_empty() {
        return Ok(plan);
    }
    let fields = plan.schema().fields().len();
    if fields != def.columns.len() {
        let message = format!("the query gives {fields} columns, view '{}' names {}", def.name.text, def.columns.len());
        return Err(Mistake::new(def.name.at, message));
    }
    let columns = plan.schema().columns();
    let renamed =
        columns.into_iter().zip(&def.columns).map(|(c, n)| datafusion::logical_expr::Expr::Column(c).alias(&n.text));
    let renamed: Vec<_> = renamed.collect();
    let built = datafusion::logical_expr::LogicalPlanBuilder::from(plan).project(renamed).and_then(|b| b.build());
    built.map_err(|e| catalog.mistake(&e, def.name.at))
}

fn resolve(catalog: &Catalog, tokens: &[TokenWithSpan]) -> Result<LogicalPlan> {
    let plan = catalog.plan_query(parse_query(tokens, catalog.dialect())?, tokens)?;
    check_size(&plan, tokens)?;
    Ok(plan)
}

fn start(tokens: &[TokenWithSpan]) -> Location {
    tokens.first().map_or(Location { line: 0, column: 0 }, |t| t.span.start)
}

fn insert(catalog: &Catalog, names: &Names, def: InsertDef) -> Result<Insert> {
    let name = names.spelling(&def.table.text);
    let Some(table) = catalog.table(name) else {
        let known: Vec<&str> = catalog.table_names().filter(|n| catalog.table(n).is_some()).collect();
        if catalog.contains(name) {
            return Err(Mistake::new(def.table.at, format!("'{name}' is a view, and only tables can be written")));
        }
        let mistake = Mistake::new(def.table.at, format!("there is no table '{name}'"));
        return Err(match millstream_plan::options::did_you_mean(name, known.iter().copied()) {
            Some(like) => mistake.hint(format!("did you mean '{like}'?")),
            None => mistake.hint("declare it before its use with CREATE TABLE"),
        });
    };
    let tokens = names.respell(&def.query);
    let query = parse_query(&tokens, catalog.dialect())?;
    let places = places(&query);
    let plan = catalog.plan_query(query, &tokens)?;
    check_size(&plan, &tokens)?;
    let analyzed = datafusion::optimizer::Analyzer::new()
        .execute_and_check(plan, catalog.config(), |_, _| {})
        .map_err(|e| catalog.mistake(&e, start(&tokens)))?;
    let fitted = fit(catalog, &def, table, names, analyzed, &places)?;
    let plan = optimize(catalog, fitted, start(&tokens))?;
    Ok(Insert { def, tokens, plan })
}

fn sink<'a>(
    catalog: &Catalog,
    lowering: &mut Lowering<'a>,
    insert: &'a Insert,
    number: usize,
    pipeline: &str,
    parallelism: u16,
) -> Result<SinkSpec> {
    let id = SinkId(number as u16);
    let table = catalog.table_spelled(&insert.def.table.text);
    let Some(table) = table else { return Err(Mistake::new(insert.def.table.at, "this table is gone")) };
    let targets = targets(table)?;
    let position = |column: &usize, what: &str| {
        targets.iter().position(|t| t.index == *column).ok_or_else(|| {
            let column = &table.columns[*column];
            Mistake::new(column.at, format!("{what} holds '{}', which is not written", column.field.name()))
        })
    };
    let key = table.primary_key.iter().map(|c| position(c, "PRIMARY KEY")).collect::<Result<Vec<_>>>()?;
    let partitioned_by =
        table.partitioned_by.iter().map(|c| position(c, "PARTITIONED BY")).collect::<Result<Vec<_>>>()?;
    let options = table.sink_options()?;
    let format = format_of(table, &options)?;
    let node = SinkNode { sink: id, table: table.name.text.clone(), insert: number };
    let takes = Takes::of(table, &options)?;
    let EdgeType { schema, append_only, key: known, .. } =
        lowering.insert(&insert.plan, &insert.tokens, node, &key, takes)?;
    let metadata = targets.iter().enumerate().filter_map(|(i, t)| t.metadata.map(|m| (i, m.to_owned())));
    let spec = SinkSpec {
        id,
        table: table.name.text.clone(),
        pipeline: pipeline.to_owned(),
        options,
        format,
        schema,
        updating: !append_only,
        key: if key.is_empty() { known.unwrap_or_default() } else { key.clone() },
        primary_key: key,
        partitioned_by,
        metadata: metadata.collect(),
        parallelism,
    };
    (table.connector.sink)(spec.clone()).map_err(|e| refused(e, table.name.at))?;
    Ok(spec)
}

/// A connector that does not take its table.
fn refused(error: ConnectorError, at: Location) -> Mistake {
    match error {
        ConnectorError::User { message, hint } => Mistake { message, hint, at: Some(at) },
        ConnectorError::Retry(message) | ConnectorError::Fatal(message) => Mistake::new(at, message),
    }
}

fn finish(mut drafts: Vec<Draft>, parallelism: u16, catalog: &Catalog) -> Graph {
    level(&mut drafts);
    let inputs: Vec<_> = drafts.iter().map(|d| d.inputs.clone()).collect();
    let (of_node, stages) = Graph::stages_of(&inputs);
    let nodes = drafts.into_iter().zip(of_node).enumerate().map(|(i, (draft, stage))| {
        let Draft { kind, inputs, output } = draft;
        Node { id: OperatorId(i as u16), stage, kind, inputs, output }
    });
    let nodes: Vec<Node> = nodes.collect();
    let fingerprint = fingerprint(&nodes, parallelism, catalog);
    Graph { nodes, stages, fingerprint }
}

/// Makes every input of a node come from the same number of shuffles away, by shuffling those that are nearer. A node that joins rows with
/// what was aggregated of them would else share a stage with both ends of a shuffle, and its task wait for itself.
///
/// A broadcast does not count. What it comes from is read from side tables alone; those nodes have stages of their own, which wait for no other:
/// where their rows go elsewhere too, they are shuffled.
fn level(drafts: &mut [Draft]) {
    let mut sides: Vec<bool> = Vec::with_capacity(drafts.len());
    for node in 0..drafts.len() {
        let Draft { kind, inputs, .. } = &drafts[node];
        let is_side = match kind {
            NodeKind::Source(source) => source.side.is_some(),
            _ => inputs.iter().all(|i| sides[usize::from(i.from.0)]),
        };
        for input in 0..drafts[node].inputs.len() {
            let Input { from, exchange } = &drafts[node].inputs[input];
            let from = usize::from(from.0);
            if *exchange == Exchange::Forward && sides[from] && !is_side {
                drafts[node].inputs[input].exchange = by_all_columns(&drafts[from]);
            }
        }
        sides.push(is_side);
    }
    let mut levels: Vec<usize> = Vec::with_capacity(drafts.len());
    for node in 0..drafts.len() {
        let distance = |i: &Input| match i.exchange {
            Exchange::Forward => levels[usize::from(i.from.0)],
            Exchange::Hash { .. } => levels[usize::from(i.from.0)] + 1,
            Exchange::Broadcast => 0,
        };
        let level = drafts[node].inputs.iter().map(distance).max().unwrap_or_default();
        for input in 0..drafts[node].inputs.len() {
            let Input { from, exchange } = &drafts[node].inputs[input];
            let from = usize::from(from.0);
            if *exchange == Exchange::Forward && levels[from] < level {
                drafts[node].inputs[input].exchange = by_all_columns(&drafts[from]);
            }
        }
        levels.push(level);
    }
}

fn by_all_columns(from: &Draft) -> Exchange {
    let fields = from.output.schema.fields().iter().enumerate();
    let columns = fields.filter(|(_, f)| !f.data_type().is_nested()).map(|(i, _)| i).collect();
    Exchange::Hash { columns }
}

/// What state and results depend on: nodes with their expressions and types, edges, number of tasks, dialect, time zone.
fn fingerprint(nodes: &[Node], parallelism: u16, catalog: &Catalog) -> Digest {
    let mut digest = DigestBuilder::default();
    digest.add(&parallelism.to_le_bytes());
    // The text of an expression does not say whose function it calls, nor in which zone.
    digest.add(format!("{:?} {}", catalog.dialect(), catalog.zone()).as_bytes());
    for node in nodes {
        let mut text = crate::explain::describe(node).join("\n");
        for input in &node.inputs {
            let _ = write!(text, "\n{} {:?}", input.from, input.exchange);
        }
        for field in node.output.schema.fields() {
            let _ = write!(text, "\n{} {}", field.name(), types::name(field.data_type()));
        }
        digest.add(text.as_bytes());
    }
    digest.finish()
}

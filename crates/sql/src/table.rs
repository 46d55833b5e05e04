//! Tables as declared: columns with their types, where each comes from, the watermark, the connector.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, TableSource, col};
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_connectors::{Changes, Connector, Reads, TableForm, connector, connector_names};
use millstream_formats::{FORMAT_OPTIONS, FormatKind};
use millstream_plan::options::{OptionError, OptionKind, OptionSpec, Resolved, did_you_mean, resolve};

use crate::catalog::Catalog;
use crate::cursor::Name;
use crate::error::{Mistake, Result};
use crate::functions::is_plan_time;
use crate::names::Names;
use crate::statement::{ColumnKind, TableDef};
use crate::types;

/// Options of every table.
pub(crate) const TABLE_OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "connector",
    synonyms: &[],
    kind: OptionKind::Text,
    default: None,
    text: "Where the table's records are.",
}];

/// Options of every table that is read.
pub(crate) const SOURCE_TABLE_OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "watermark.idle-timeout",
    synonyms: &["scan.watermark.idle-timeout"],
    kind: OptionKind::Duration,
    default: None,
    text: "A split without rows for this long does not hold the watermark back.",
}];

/// Options of every table that is written.
pub(crate) const SINK_TABLE_OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "outputMode",
    synonyms: &["output-mode"],
    kind: OptionKind::Choice(&["append", "update", "complete"]),
    default: None,
    text: "Spark's modes: append takes only rows that are never taken back, update takes changes as the sink does, complete is refused.",
}];

/// A declared table.
pub(crate) struct Table {
    pub name: Name,
    /// In the order of the declaration: what a query sees.
    pub columns: Vec<Column>,
    /// Physical columns, then metadata columns: what a record gives. Computed columns and the watermark are over these.
    pub base: DFSchemaRef,
    /// Number of physical columns in `base`.
    pub physical: usize,
    pub watermark: Option<Watermark>,
    /// Indexes in `columns`.
    pub primary_key: Vec<usize>,
    pub partitioned_by: Vec<usize>,
    pub connector: &'static Connector,
    options: BTreeMap<String, String>,
    places: BTreeMap<String, Location>,
}

/// A column that a query sees.
pub(crate) struct Column {
    pub field: FieldRef,
    pub at: Location,
    pub origin: ColumnOrigin,
}

/// Where a column's value comes from.
pub(crate) enum ColumnOrigin {
    /// Index in the base schema.
    Physical(usize),
    /// Index in the base schema; `expr` casts to the declared type.
    Metadata { base: usize, key: Name, is_virtual: bool, expr: Expr },
    /// Over the base schema.
    Computed { expr: Expr, is_plan_time: bool },
}

impl Column {
    /// The value over the base schema.
    pub fn expr(&self, base: &DFSchema) -> Expr {
        match &self.origin {
            ColumnOrigin::Physical(i) => Expr::Column(datafusion::common::Column::from(base.qualified_field(*i))),
            ColumnOrigin::Metadata { expr, .. } | ColumnOrigin::Computed { expr, .. } => expr.clone(),
        }
    }
}

/// `WATERMARK FOR`.
pub(crate) struct Watermark {
    /// Index in the table's columns.
    pub column: usize,
    /// Over the base schema.
    pub expr: Expr,
}

/// What a query sees of a table.
pub(crate) struct StreamTable {
    pub table: Arc<Table>,
    schema: SchemaRef,
}

impl StreamTable {
    pub fn new(table: Arc<Table>) -> Self {
        let fields: Vec<FieldRef> = table.columns.iter().map(|c| c.field.clone()).collect();
        Self { table, schema: Arc::new(Schema::new(fields)) }
    }
}

impl TableSource for StreamTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Table {
    /// Checks a declaration.
    pub fn declare(def: &TableDef, catalog: &Catalog, names: &Names) -> Result<Self> {
        let (connector, options, places) = connector_of(def)?;
        let mut physical = Vec::new();
        let mut metadata = Vec::new();
        let declared_names: Vec<&str> = def.columns.iter().map(|c| c.name.text.as_str()).collect();
        for column in &def.columns {
            let at = column.name.at;
            match &column.kind {
                ColumnKind::Physical { data_type, nullable } => {
                    physical.push(Arc::new(Field::new(&column.name.text, data_type.clone(), *nullable)));
                }
                ColumnKind::Metadata { data_type, key, .. } => {
                    let offered = offered_type(connector, key, data_type)?;
                    if !arrow::compute::can_cast_types(&offered, data_type) {
                        let message = format!(
                            "metadata '{}' is {}, not {}",
                            key.text,
                            types::name(&offered),
                            types::name(data_type)
                        );
                        return Err(Mistake::new(at, message));
                    }
                    metadata.push(Arc::new(Field::new(&column.name.text, offered, true)));
                }
                ColumnKind::Computed { .. } => {}
            }
        }
        let count = physical.len();
        physical.extend(metadata);
        let fields = physical.into_iter().map(|f| (None, f)).collect();
        let base =
            DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| Mistake::new(def.name.at, e.message()))?;
        let mut table = Self {
            name: def.name.clone(),
            columns: Vec::new(),
            base: Arc::new(base),
            physical: count,
            watermark: None,
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            connector,
            options,
            places,
        };
        for column in &def.columns {
            table.add_column(column, catalog, names)?;
        }
        if let Some(def) = &def.watermark {
            table.watermark = Some(table.watermark_of(def, catalog, names)?);
        }
        let index = |name: &Name, what: &str| {
            declared_names
                .iter()
                .position(|c| *c == names.spelling(&name.text))
                .ok_or_else(|| unknown_column(name, &declared_names, &format!("{what} names")))
        };
        table.primary_key = def.primary_key.iter().map(|n| index(n, "PRIMARY KEY")).collect::<Result<_>>()?;
        table.partitioned_by = def.partitioned_by.iter().map(|n| index(n, "PARTITIONED BY")).collect::<Result<_>>()?;
        Ok(table)
    }

    fn add_column(&mut self, def: &crate::statement::ColumnDef, catalog: &Catalog, names: &Names) -> Result<()> {
        let name = &def.name.text;
        let base_index = || self.base.fields().iter().position(|f| f.name() == name).unwrap_or_default();
        let (field, origin) = match &def.kind {
            ColumnKind::Physical { .. } => {
                let base = base_index();
                (self.base.field(base).clone(), ColumnOrigin::Physical(base))
            }
            ColumnKind::Metadata { data_type, key, is_virtual } => {
                let base = base_index();
                let mut expr = Expr::Column(datafusion::common::Column::new_unqualified(name));
                if self.base.field(base).data_type() != data_type {
                    expr = Expr::Cast(Cast::new(Box::new(expr), data_type.clone()));
                }
                let origin = ColumnOrigin::Metadata { base, key: key.clone(), is_virtual: *is_virtual, expr };
                (Arc::new(Field::new(name, data_type.clone(), true)), origin)
            }
            ColumnKind::Computed { expr } => {
                let (expr, is_plan_time) = self.expression(expr, def.name.at, catalog, names)?;
                let typed = expr.to_field(&self.base).map_err(|e| catalog.mistake(&e, def.name.at))?.1;
                let field = Field::new(name, typed.data_type().clone(), true);
                (Arc::new(field), ColumnOrigin::Computed { expr, is_plan_time })
            }
        };
        self.columns.push(Column { field, at: def.name.at, origin });
        Ok(())
    }

    /// An expression over this table's columns so far, with computed ones written out.
    fn expression(
        &self,
        tokens: &[datafusion::sql::sqlparser::tokenizer::TokenWithSpan],
        at: Location,
        catalog: &Catalog,
        names: &Names,
    ) -> Result<(Expr, bool)> {
        let mut fields: Vec<_> = self.base.fields().iter().map(|f| (None, f.clone())).collect();
        let computed: Vec<(&Column, &Expr)> = self
            .columns
            .iter()
            .filter_map(|c| match &c.origin {
                ColumnOrigin::Computed { expr, .. } => Some((c, expr)),
                _ => None,
            })
            .collect();
        fields.extend(computed.iter().map(|(c, _)| (None, c.field.clone())));
        let scope = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(|e| Mistake::new(at, e.message()))?;
        let expr = catalog.plan_expr(&names.respell(tokens), &scope, at)?;
        let proctime = is_plan_time(&expr);
        let written_out = expr.transform(|e| match &e {
            Expr::Column(column) => match computed.iter().find(|(c, _)| *c.field.name() == column.name) {
                Some((_, expr)) => Ok(Transformed::yes((*expr).clone())),
                None => Ok(Transformed::no(col(datafusion::common::Column::new_unqualified(&column.name)))),
            },
            _ => Ok(Transformed::no(e)),
        });
        let written_out = written_out.map_err(|e| catalog.mistake(&e, at))?.data;
        Ok((catalog.coerce(written_out, &self.base).map_err(|e| catalog.mistake(&e, at))?, proctime))
    }

    fn watermark_of(
        &self,
        def: &crate::statement::WatermarkDef,
        catalog: &Catalog,
        names: &Names,
    ) -> Result<Watermark> {
        let at = def.column.at;
        let spelling = names.spelling(&def.column.text);
        let Some(column) = self.columns.iter().position(|c| c.field.name() == spelling) else {
            let known: Vec<&str> = self.columns.iter().map(|c| c.field.name().as_str()).collect();
            return Err(unknown_column(&def.column, &known, "WATERMARK FOR names"));
        };
        let field = &self.columns[column].field;
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            let message = format!("the watermark's column '{}' is {}", field.name(), types::name(field.data_type()));
            return Err(Mistake::new(at, message)
                .hint("event time is a TIMESTAMP(3); compute it: ts AS to_timestamp_millis(…)"));
        }
        if matches!(&self.columns[column].origin, ColumnOrigin::Computed { is_plan_time: true, .. }) {
            return Err(Mistake::new(at, "processing time has no watermark").hint("remove WATERMARK FOR"));
        }
        let (expr, _) = self.expression(&def.expr, at, catalog, names)?;
        let typed = expr.to_field(&self.base).map_err(|e| catalog.mistake(&e, at))?.1;
        if !matches!(typed.data_type(), DataType::Timestamp(..)) {
            let at = def.expr.first().map_or(at, |t| t.span.start);
            let message = format!("the watermark is {}, not a timestamp", types::name(typed.data_type()));
            return Err(Mistake::new(at, message)
                .hint(format!("write {} - INTERVAL '10' SECOND, the longest delay of a row", field.name())));
        }
        Ok(Watermark { column, expr })
    }

    /// What its rows are where it is read.
    pub fn reads(&self) -> Reads {
        (self.connector.reads)(&self.form())
    }

    /// What it does with changes where it is written.
    pub fn changes(&self) -> Changes {
        (self.connector.changes)(&self.form())
    }

    fn form(&self) -> TableForm {
        let format = ["format", "value.format"].iter().find_map(|o| self.options.get(*o));
        TableForm {
            has_key: !self.primary_key.is_empty(),
            changelog_format: format.and_then(|f| FormatKind::from_name(f)).is_some_and(FormatKind::is_changelog),
            changelog_column: self.options.get("changelog.column").is_some_and(|c| !c.is_empty()),
        }
    }

    /// Where an option is given.
    pub fn place_of(&self, option: &str) -> Location {
        self.places.get(option).copied().unwrap_or(self.name.at)
    }

    /// Options as a source.
    pub fn source_options(&self) -> Result<Resolved> {
        let Some(tables) = self.connector.source_options else {
            return Err(Mistake::new(
                self.places.get("connector").copied(),
                format!("connector '{}' cannot be read", self.connector.name),
            ));
        };
        self.options(tables, SOURCE_TABLE_OPTIONS, self.connector.sink_options)
    }

    /// Options as a sink.
    pub fn sink_options(&self) -> Result<Resolved> {
        let Some(tables) = self.connector.sink_options else {
            return Err(Mistake::new(
                self.places.get("connector").copied(),
                format!("connector '{}' cannot be written", self.connector.name),
            ));
        };
        self.options(tables, SINK_TABLE_OPTIONS, self.connector.source_options)
    }

    /// Finds mistakes in the options of a table that no query reads or writes.
    pub fn check_unused(&self) -> Result<()> {
        match self.connector.source_options {
            Some(_) => self.source_options().map(|_| ()),
            None => self.sink_options().map(|_| ()),
        }
    }

    /// Options of one role; those that only the other role has are left out.
    fn options(
        &self,
        tables: &[&[OptionSpec]],
        more: &'static [OptionSpec],
        other: Option<&[&[OptionSpec]]>,
    ) -> Result<Resolved> {
        let mut own: Vec<&[OptionSpec]> = tables.to_vec();
        own.push(TABLE_OPTIONS);
        own.push(more);
        if self.connector.has_format {
            own.push(FORMAT_OPTIONS);
        }
        let others: Vec<&[OptionSpec]> =
            other.unwrap_or_default().iter().copied().chain([SOURCE_TABLE_OPTIONS, SINK_TABLE_OPTIONS]).collect();
        let knows = |tables: &[&[OptionSpec]], key: &str| {
            tables.iter().flat_map(|t| t.iter()).any(|s| s.name == key || s.synonyms.contains(&key))
        };
        let given = self.options.iter().filter(|(k, _)| knows(&own, k) || !knows(&others, k));
        let given = given.map(|(k, v)| (k.clone(), v.clone())).collect();
        resolve(&own, self.connector.pass_through, &given).map_err(|e| self.option_mistake(&e))
    }

    /// A mistake at the place of its option.
    pub fn option_mistake(&self, e: &OptionError) -> Mistake {
        let at = self.places.get(&e.option).copied().unwrap_or(self.name.at);
        let mistake = Mistake::new(at, e.message.clone());
        match &e.hint {
            Some(hint) => mistake.hint(hint),
            None => mistake,
        }
    }
}

type Given = (&'static Connector, BTreeMap<String, String>, BTreeMap<String, Location>);

fn connector_of(def: &TableDef) -> Result<Given> {
    let name = &def.name;
    let mut options = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (key, value) in &def.options {
        options.insert(key.text.clone(), value.text.clone());
        places.insert(key.text.clone(), key.at);
    }
    let Some((_, given)) = def.options.iter().find(|(k, _)| k.text == "connector") else {
        let names: Vec<&str> = connector_names().collect();
        return Err(Mistake::new(name.at, format!("table '{}' has no connector", name.text))
            .hint(format!("write WITH ('connector' = …) with one of {}", names.join(", "))));
    };
    match connector(&given.text) {
        Some(connector) => Ok((connector, options, places)),
        None => {
            let mistake = Mistake::new(given.at, format!("there is no connector '{}'", given.text));
            Err(match did_you_mean(&given.text, connector_names()) {
                Some(like) => mistake.hint(format!("did you mean '{like}'?")),
                None => mistake.hint(format!("connectors are {}", connector_names().collect::<Vec<_>>().join(", "))),
            })
        }
    }
}

/// The type in which the connector gives this metadata.
fn offered_type(connector: &Connector, key: &Name, declared: &DataType) -> Result<DataType> {
    if let Some((_, sql)) = connector.source_metadata.iter().find(|(k, _)| *k == key.text) {
        return types::parse_text(sql);
    }
    if connector.sink_metadata.contains(&key.text.as_str()) {
        return Ok(declared.clone());
    }
    let known = || connector.source_metadata.iter().map(|(k, _)| *k).chain(connector.sink_metadata.iter().copied());
    let mistake = Mistake::new(key.at, format!("connector '{}' has no metadata '{}'", connector.name, key.text));
    Err(match did_you_mean(&key.text, known()) {
        Some(like) => mistake.hint(format!("did you mean '{like}'?")),
        None if known().next().is_none() => mistake.hint("it has none; remove METADATA"),
        None => {
            let mut known: Vec<&str> = known().collect();
            known.sort_unstable();
            known.dedup();
            mistake.hint(format!("it has {}", known.join(", ")))
        }
    })
}

/// A column that a table does not have.
pub(crate) fn unknown_column(name: &Name, known: &[&str], what: &str) -> Mistake {
    let mistake = Mistake::new(name.at, format!("{what} column '{}', which is not declared", name.text));
    match did_you_mean(&name.text, known.iter().copied()) {
        Some(like) => mistake.hint(format!("did you mean '{like}'?")),
        None => mistake.hint(format!("columns are {}", known.join(", "))),
    }
}

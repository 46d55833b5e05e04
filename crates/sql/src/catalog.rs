//! What a query can name, for DataFusion's planner; and DataFusion's errors in our words, with their place.
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::datatype::DataTypeExt;
use datafusion::common::{DFSchema, DFSchemaRef, SchemaError, TableReference, plan_err};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{DataType as SqlType, Query, Statement};
use datafusion::sql::sqlparser::tokenizer::{Location, TokenWithSpan};
use millstream_plan::options::did_you_mean;

use crate::error::{Mistake, Result};
use crate::functions::zone::Zone;
use crate::functions::{Dialect, Functions};
use crate::local_times::in_local_times;
use crate::pattern::PatternPlanner;
use crate::table::{StreamTable, Table};
use crate::unnest::{self, UnnestPlanner};
use crate::versions::{self, VersionsPlanner};
use crate::window::WindowPlanner;
use crate::{lex, query, refuse, types, words};

/// Tables, views and functions.
pub(crate) struct Catalog {
    /// Tables whose rows may be taken away again, with the columns that identify their rows.
    pub changing: BTreeMap<String, Vec<String>>,
    entries: BTreeMap<String, Entry>,
    functions: Functions,
    dialect: Dialect,
    zone: Zone,
    options: Arc<ConfigOptions>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    type_planner: Arc<dyn TypePlanner>,
}

enum Entry {
    Table(Arc<Table>, Arc<StreamTable>),
    View(Arc<View>),
}

struct View {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl TableSource for View {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

impl Catalog {
    pub fn new(dialect: Dialect, zone: Zone) -> Self {
        // Nothing here is taken from the environment: every process of a pipeline plans alike.
        let mut options = ConfigOptions::default();
        options.sql_parser.map_string_types_to_utf8view = false;
        options.sql_parser.enable_ident_normalization = false;
        options.sql_parser.collect_spans = true;
        options.optimizer.skip_failed_rules = false;
        // What does not fit gives null and not an error, as in Spark before 4 and with TRY functions; overflow wraps.
        options.execution.enable_ansi_mode = false;
        // Times without a zone have none; functions that need one have the pipeline's.
        options.execution.time_zone = None;
        // A stream has no moment at which a subquery could be run first: it is joined.
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        Self {
            changing: BTreeMap::new(),
            entries: BTreeMap::new(),
            functions: Functions::new(dialect, &zone),
            options: Arc::new(options),
            relation_planners: vec![
                Arc::new(VersionsPlanner),
                Arc::new(UnnestPlanner),
                Arc::new(WindowPlanner),
                Arc::new(PatternPlanner),
            ],
            type_planner: Arc::new(Types(zone.clone())),
            dialect,
            zone,
        }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The pipeline's time zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    pub fn config(&self) -> &Arc<ConfigOptions> {
        &self.options
    }

    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub fn add_table(&mut self, table: Table) {
        let table = Arc::new(table);
        self.entries.insert(table.name.text.clone(), Entry::Table(table.clone(), Arc::new(StreamTable::new(table))));
    }

    pub fn add_view(&mut self, name: &str, plan: LogicalPlan) {
        let schema = plan.schema().inner().clone();
        self.entries.insert(name.to_owned(), Entry::View(Arc::new(View { plan, schema })));
    }

    /// A declared table; `None` for views and unknown names.
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        match self.entries.get(name) {
            Some(Entry::Table(table, _)) => Some(table),
            Some(Entry::View(_)) | None => None,
        }
    }

    /// A declared table by its name, in any case where only one can be meant.
    pub fn table_spelled(&self, name: &str) -> Option<&Arc<Table>> {
        self.table(name).or_else(|| {
            let mut like = self.entries.keys().filter(|k| k.eq_ignore_ascii_case(name));
            like.next().filter(|_| like.next().is_none()).and_then(|n| self.table(n))
        })
    }

    /// The name most like this one.
    pub fn like(&self, name: &str) -> Option<&str> {
        did_you_mean(name, self.entries.keys().map(String::as_str))
    }

    /// All declared tables.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.entries.values().filter_map(|e| match e {
            Entry::Table(table, _) => Some(table),
            Entry::View(_) => None,
        })
    }

    /// Names of the fields inside the columns of all tables.
    fn nested_fields(&self) -> Vec<String> {
        fn add(names: &mut Vec<String>, data_type: &DataType) {
            if let DataType::Struct(fields) = data_type {
                for field in fields {
                    names.push(field.name().clone());
                    add(names, field.data_type());
                }
            }
        }
        let mut names = Vec::new();
        for entry in self.entries.values() {
            let schema = match entry {
                Entry::Table(_, source) => source.schema(),
                Entry::View(view) => view.schema.clone(),
            };
            schema.fields().iter().for_each(|f| add(&mut names, f.data_type()));
        }
        names
    }

    pub fn table_names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    fn planner(&self) -> SqlToRel<'_, Self> {
        let options = ParserOptions::from(&self.options.sql_parser);
        SqlToRel::new_with_options(self, options)
    }

    /// Resolves a query. `tokens` are those it was parsed from.
    pub fn plan_query(&self, query: Query, tokens: &[TokenWithSpan]) -> Result<LogicalPlan> {
        let at = tokens.first().map_or(Location { line: 0, column: 0 }, |t| t.span.start);
        refuse::check_calls(&query, |name| self.functions.aggregate(name).is_some())?;
        let plan = self.planner().sql_statement_to_plan(Statement::Query(Box::new(query))).and_then(versions::complete);
        let plan = plan.and_then(|plan| unnest::expand(plan, &self.functions));

        plan.map_err(|e| self.explain_error(&e, tokens).or_at(at))
    }

    /// Resolves and types an expression over `scope`.
    pub fn plan_expr(&self, tokens: &[TokenWithSpan], scope: &DFSchema, at: Location) -> Result<Expr> {
        let parsed = query::parse_expr(tokens, self.dialect)?;
        let expr = self.planner().sql_to_expr(parsed, scope, &mut PlannerContext::new());
        expr.map_err(|e| self.explain_error(&e, tokens).or_at(at))
    }

    /// Adds the casts that the types ask for, then folds constants.
    pub fn coerce(&self, expr: Expr, schema: &DFSchemaRef) -> DfResult<Expr> {
        let context =
            SimplifyContext::builder().with_config_options(self.options.clone()).with_schema(schema.clone()).build();
        let simplifier = ExprSimplifier::new(context);
        let coerced = in_local_times(simplifier.coerce(expr, schema)?, schema)?;
        simplifier.simplify(coerced)
    }

    /// DataFusion's error in our words; `at` where it has no place of its own.
    pub fn mistake(&self, error: &DataFusionError, at: Location) -> Mistake {
        self.explain_error(error, &[]).or_at(at)
    }

    fn explain_error(&self, error: &DataFusionError, tokens: &[TokenWithSpan]) -> Mistake {
        let root = error.find_root();
        if let DataFusionError::External(ours) = root
            && let Some(mistake) = ours.downcast_ref::<Mistake>()
        {
            return mistake.clone();
        }
        let span =
            error.diagnostic().and_then(|d| d.span).map(|s| Location { line: s.start.line, column: s.start.column });
        if let DataFusionError::SchemaError(schema, _) = root {
            return self.schema_error(schema, span, tokens);
        }
        let text = root.strip_backtrace();
        let text = [
            "Error during planning: ",
            "This feature is not implemented: ",
            "Execution error: ",
            "Schema error: ",
            "Internal error: ",
            "Arrow error: ",
        ]
        .iter()
        .fold(text.as_str(), |t, prefix| t.strip_prefix(prefix).unwrap_or(t))
        .to_owned();
        if let Some(name) = between(&text, "Invalid function '", "'") {
            let mistake =
                Mistake::new(span.or_else(|| lex::find_word(tokens, name)), format!("there is no function {name}"));
            let names = self.functions.scalar_names().into_iter().chain(self.functions.aggregate_names());
            let names: Vec<String> = names.collect();
            return match did_you_mean(name, names.iter().map(String::as_str)) {
                Some(like) => mistake.hint(format!("did you mean {like}?")),
                None => mistake.hint("docs/sql.md says which there are"),
            };
        }
        if let Some(name) = between(&text, NO_TABLE, "'") {
            let mistake = Mistake::new(
                span.or_else(|| lex::find_word(tokens, name)),
                format!("there is no table or view '{name}'"),
            );
            return match self.like(name) {
                Some(like) => mistake.hint(format!("did you mean '{like}'?")),
                None if self.entries.is_empty() => mistake.hint("declare it before its use with CREATE TABLE"),
                None => {
                    mistake.hint(format!("tables and views are {}", self.table_names().collect::<Vec<_>>().join(", ")))
                }
            };
        }
        if let Some(name) = between(&text, "Field ", " not found in struct") {
            let mistake = Mistake::new(lex::find_word(tokens, name).or(span), format!("there is no field '{name}'"));
            let fields = self.nested_fields();
            return match did_you_mean(name, fields.iter().map(String::as_str)) {
                Some(like) => mistake.hint(format!("did you mean '{like}'?")),
                None => mistake,
            };
        }
        if text.starts_with("Projections require unique expression names")
            && let Some(name) = between(&text, "but the expression \"", "\"")
        {
            let name = name.rsplit(" AS ").next().unwrap_or(name);
            let message = format!("two columns of the query are called '{name}'");
            return Mistake::new(span, message).hint("rename one of them with AS");
        }
        if text.contains("must be in GROUP BY")
            && let Some(name) = between(&text, "column \"", "\"")
        {
            let name = name.rsplit('.').next().unwrap_or(name);
            let message = format!("column '{name}' is neither grouped by nor aggregated");
            return Mistake::new(span.or_else(|| lex::find_word(tokens, name)), message)
                .hint(format!("add {name} to GROUP BY, or write max({name})"));
        }
        if let Some(rest) = text.strip_prefix("Incompatible inputs for Union: Previous inputs were of type ")
            && let Some((a, rest)) = rest.split_once(", but got incompatible type ")
            && let Some((b, _)) = rest.split_once(" on column")
        {
            let message = format!("the queries of UNION ALL give {} and {} in one column", sql_types(a), sql_types(b));
            return Mistake::new(lex::find_word(tokens, "UNION"), message).hint("CAST one of them");
        }
        if let (Some(name), Some(given)) =
            (between(&text, "satisfy a call to '", "'"), between(&text, "coercion from ", " to the signature "))
        {
            let message = format!("{name} does not take ({})", sql_types(given));
            let mistake = Mistake::new(span.or_else(|| lex::find_word(tokens, name)), message);
            return match between(&text, "to the signature Exact(", ")") {
                Some(wanted) => mistake.hint(format!("it takes ({})", sql_types(wanted))),
                None => mistake,
            };
        }
        let known = words::plain(&text);
        // The first line says what is wrong; the others are DataFusion's lists of candidates.
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().trim_end_matches('.');
        let mut chars = first.chars();
        let message: String = match chars.next() {
            Some(c) if chars.clone().next().is_some_and(char::is_lowercase) => c.to_lowercase().chain(chars).collect(),
            _ => first.to_owned(),
        };
        let cut = [". This issue was likely caused", ". No function matches the given name"];
        let message = cut.iter().fold(message.as_str(), |m, at| m.split(at).next().unwrap_or_default());
        let message = sql_types(message);
        // Without a place of its own: the clause, function or column that the message names.
        let clause = ["WHERE", "HAVING", "GROUP"].into_iter().find(|c| message.contains(&format!("{c} clause")));
        let function = message.split_once(':').map(|(name, _)| name);
        let named =
            [clause, function, quoted_name(&message)].into_iter().flatten().find_map(|n| lex::find_word(tokens, n));
        match known {
            Some((message, hint)) => Mistake::new(span.or(named), sql_types(&message)).hint(hint),
            None => Mistake::new(span.or(named), message),
        }
    }

    fn schema_error(&self, error: &SchemaError, span: Option<Location>, tokens: &[TokenWithSpan]) -> Mistake {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let own = field.spans.first().map(|s| Location { line: s.start.line, column: s.start.column });
                let at = own.or(span).or_else(|| lex::find_word(tokens, &field.name));
                let shown = field.flat_name();
                let mistake = Mistake::new(at, format!("there is no column '{shown}' here"));
                let names: Vec<&str> = valid_fields.iter().map(|c| c.name.as_str()).collect();
                let qualifier_is_column = field.relation.as_ref().filter(|r| names.contains(&r.table()));
                if let Some(relation) = qualifier_is_column {
                    return Mistake {
                        message: format!("'{}' has no field '{}'", relation.table(), field.name),
                        ..mistake
                    };
                }
                if names.contains(&field.name.as_str()) {
                    let qualified = valid_fields.iter().find(|c| c.name == field.name).map(|c| c.flat_name());
                    return mistake.hint(format!("write {}", qualified.unwrap_or_default()));
                }
                match did_you_mean(&field.name, names.iter().copied()) {
                    Some(like) => mistake.hint(format!("did you mean '{like}'?")),
                    None if names.is_empty() => mistake,
                    None => mistake.hint(format!("columns are {}", names.join(", "))),
                }
            }
            SchemaError::AmbiguousReference { field } => {
                let own = field.spans.first().map(|s| Location { line: s.start.line, column: s.start.column });
                let at = own.or(span).or_else(|| lex::find_word(tokens, &field.name));
                Mistake::new(at, format!("column '{}' can mean more than one", field.name))
                    .hint("write the table's name before it")
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                let at = span.or_else(|| lex::find_word(tokens, name));
                Mistake::new(at, format!("two columns are called '{name}'")).hint("rename one of them with AS")
            }
        }
    }
}

/// Arrow's names of types as SQL's.
fn sql_types(message: &str) -> String {
    let names = [
        ("LargeUtf8", "STRING"),
        ("Utf8View", "STRING"),
        ("Utf8", "STRING"),
        ("UInt64", "BIGINT"),
        ("Int64", "BIGINT"),
        ("Int32", "INT"),
        ("Int16", "SMALLINT"),
        ("Int8", "TINYINT"),
        ("Float64", "DOUBLE"),
        ("Float32", "FLOAT"),
        ("Boolean", "BOOLEAN"),
        ("Date32", "DATE"),
        ("Struct(", "ROW("),
        ("Timestamp(s)", "TIMESTAMP(0)"),
        ("Timestamp(ms)", "TIMESTAMP(3)"),
        ("Timestamp(µs)", "TIMESTAMP(6)"),
        ("Timestamp(ns)", "TIMESTAMP(9)"),
    ];
    names.iter().fold(message.to_owned(), |m, (arrow, sql)| m.replace(arrow, sql))
}

const NO_TABLE: &str = "no table '";

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inside, _)| inside)
}

/// The first name in quotes of a message, without its qualifier.
fn quoted_name(message: &str) -> Option<&str> {
    let inside = ['\'', '"', '`'].iter().find_map(|q| message.split(*q).nth(1))?;
    inside.rsplit('.').next()
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        match (&name, self.entries.get(name.table())) {
            (TableReference::Bare { .. }, Some(Entry::Table(_, source))) => Ok(source.clone()),
            (TableReference::Bare { .. }, Some(Entry::View(view))) => Ok(view.clone()),
            _ => plan_err!("{NO_TABLE}{name}'"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.functions.planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(self.type_planner.clone())
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.scalar(&name.to_lowercase())
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.functions.higher_order(&name.to_lowercase())
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregate(&name.to_lowercase())
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.functions.window(&name.to_lowercase())
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.functions.higher_order_names()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.functions.window_names()
    }
}

/// Types in CAST: the same as in CREATE TABLE, where sqlparser can read them.
#[derive(Debug)]
struct Types(Zone);

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> DfResult<Option<FieldRef>> {
        let parsed = types::parse_text(&sql_type.to_string()).ok();
        Ok(parsed.map(|t| self.0.zoned(&t).into_nullable_field_ref()))
    }
}

//! Window table functions: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))` and their like become a [`WindowTvf`] in
//! the logical plan, which appends `window_start`, `window_end` and `window_time` to its input.
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Spanned,
    TableFactor, Value,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use millstream_dataflow::graph::WindowKind;
use millstream_plan::options::parse_duration;

use crate::error::Mistake;
use crate::query::PARTITION_BY;
use crate::refuse::name_of;
use crate::rewrite::PARTITION_BY_KEYS;

/// The columns that a window appends.
pub(crate) const WINDOW_COLUMNS: [&str; 3] = ["window_start", "window_end", "window_time"];

/// Which rows share sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Partition {
    /// Those with the same values of these expressions; all rows if there are none.
    By(Vec<Expr>),
    /// Those with the same grouping key.
    ByKeys,
}

/// Rows × windows.
#[derive(Clone, Debug)]
pub(crate) struct WindowTvf {
    pub input: Arc<LogicalPlan>,
    pub kind: WindowKind,
    /// A column of the input.
    pub time: Expr,
    pub partition: Partition,
    /// Place of the time column in the text.
    pub at: Location,
    schema: DFSchemaRef,
}

impl WindowTvf {
    fn new(
        input: Arc<LogicalPlan>,
        kind: WindowKind,
        time: Expr,
        partition: Partition,
        at: Location,
    ) -> DfResult<Self> {
        let Expr::Column(column) = &time else {
            return Err(DataFusionError::Internal("a window's time is a column".into()));
        };
        let time_field = input.schema().field(input.schema().index_of_column(column)?);
        let mut fields: Vec<_> = input.schema().iter().map(|(q, f)| (q.cloned(), f.clone())).collect();
        for name in WINDOW_COLUMNS {
            fields.push((None, Arc::new(Field::new(name, time_field.data_type().clone(), false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(Self { input, kind, time, partition, at, schema })
    }

    /// Number of columns of the input.
    pub fn width(&self) -> usize {
        self.schema.fields().len() - WINDOW_COLUMNS.len()
    }

    fn identity(&self) -> (&LogicalPlan, String, &Expr, &Partition) {
        (&self.input, format!("{:?}", self.kind), &self.time, &self.partition)
    }
}

impl PartialEq for WindowTvf {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for WindowTvf {}

impl Hash for WindowTvf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for WindowTvf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        match self.input.partial_cmp(&other.input) {
            Some(Ordering::Equal) => self.identity().1.partial_cmp(&other.identity().1),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowTvf {
    fn name(&self) -> &str {
        "WindowTvf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let mut expressions = vec![self.time.clone()];
        if let Partition::By(by) = &self.partition {
            expressions.extend(by.iter().cloned());
        }
        expressions
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        WINDOW_COLUMNS.iter().map(|c| (*c).to_owned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowTvf: {:?} over {}", self.kind, self.time)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let (Some(input), false) = (inputs.pop(), exprs.is_empty()) else {
            return Err(DataFusionError::Internal("a window has one input and a time column".into()));
        };
        let time = exprs.remove(0);
        let partition = match &self.partition {
            Partition::By(_) => Partition::By(exprs),
            Partition::ByKeys => Partition::ByKeys,
        };
        Self::new(Arc::new(input), self.kind, time, partition, self.at)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.width();
        Some(vec![output_columns.iter().copied().filter(|c| *c < width).collect()])
    }
}

/// Plans window table functions in FROM.
#[derive(Debug)]
pub(crate) struct WindowPlanner;

fn fail<T>(mistake: Mistake) -> DfResult<T> {
    Err(DataFusionError::External(Box::new(mistake)))
}

impl RelationPlanner for WindowPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let (function, args, alias) = match &relation {
            TableFactor::TableFunction { expr: SqlExpr::Function(function), alias } => match &function.args {
                FunctionArguments::List(list) => (&function.name, &list.args, alias),
                _ => (&function.name, &Vec::new(), alias),
            },
            TableFactor::TableFunction { expr, .. } => {
                return fail(
                    Mistake::new(expr.span().start, "TABLE(…) takes a window function")
                        .hint("write TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))"),
                );
            }
            TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        let call = Call::read(function, args)?;
        let plan = call.plan(context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// Parameters of a window function: name and, for positional arguments, order.
const TUMBLE: &[&str] = &["DATA", "TIMECOL", "SIZE", "OFFSET"];
const HOP: &[&str] = &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"];
const CUMULATE: &[&str] = &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"];
const SESSION: &[&str] = &["DATA", "TIMECOL", "GAP"];

/// A window function as written.
struct Call<'a> {
    function: String,
    parameters: &'static [&'static str],
    given: Vec<Option<&'a SqlExpr>>,
    partition: Option<&'a SqlExpr>,
    at: Location,
}

impl<'a> Call<'a> {
    fn read(name: &ObjectName, args: &'a [FunctionArg]) -> DfResult<Self> {
        let at = name.span().start;
        let function = name_of(name).to_uppercase();
        let parameters = match function.as_str() {
            "TUMBLE" => TUMBLE,
            "HOP" => HOP,
            "CUMULATE" => CUMULATE,
            "SESSION" => SESSION,
            _ => {
                let known = ["TUMBLE", "HOP", "CUMULATE", "SESSION"];
                let mistake = Mistake::new(at, format!("there is no table function {function}"));
                return fail(match millstream_plan::options::did_you_mean(&function, known.into_iter()) {
                    Some(like) => mistake.hint(format!("did you mean {like}?")),
                    None => mistake.hint(format!("table functions are {}", known.join(", "))),
                });
            }
        };
        let mut call = Self { function, parameters, given: vec![None; parameters.len()], partition: None, at };
        let mut position = 0;
        for arg in args {
            let (name, arg) = match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (None, expr),
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => (Some(name), expr),
                other => return fail(Mistake::new(at, format!("'{other}' is not an argument of {}", call.function))),
            };
            if let SqlExpr::Function(f) = arg
                && [PARTITION_BY, PARTITION_BY_KEYS].contains(&name_of(&f.name).as_str())
            {
                call.partition = Some(arg);
                continue;
            }
            let slot = match name {
                Some(name) => {
                    call.parameters.iter().position(|p| p.eq_ignore_ascii_case(&name.value)).ok_or_else(|| {
                        let message = format!("{} has no argument {}", call.function, name.value);
                        let mistake = Mistake::new(name.span.start, message).hint(call.usage());
                        DataFusionError::External(Box::new(mistake))
                    })?
                }
                None => position,
            };
            position += 1;
            match call.given.get_mut(slot) {
                Some(place) => *place = Some(arg),
                None => return fail(call.wrong_count()),
            }
        }
        let needed = call.parameters.iter().filter(|p| **p != "OFFSET").count();
        if call.given[..needed].iter().any(Option::is_none) {
            return fail(call.wrong_count());
        }
        if call.partition.is_some() && call.function != "SESSION" {
            let message = format!("PARTITION BY makes no difference to {}", call.function);
            return fail(Mistake::new(at, message).hint("leave it out and name the columns in GROUP BY"));
        }
        Ok(call)
    }

    fn usage(&self) -> String {
        let rest = match self.function.as_str() {
            "TUMBLE" => "size [, offset]",
            "HOP" => "slide, size [, offset]",
            "CUMULATE" => "step, size [, offset]",
            _ => "gap",
        };
        let partition = if self.function == "SESSION" { " [PARTITION BY (…)]" } else { "" };
        format!("write {}(TABLE t{partition}, DESCRIPTOR(ts), {rest})", self.function)
    }

    fn wrong_count(&self) -> Mistake {
        let needed = self.parameters.iter().filter(|p| **p != "OFFSET").count();
        let message = format!(
            "{} takes {needed} arguments{}",
            self.function,
            if self.parameters.len() > needed { " and an offset" } else { "" }
        );
        Mistake::new(self.at, message).hint(self.usage())
    }

    fn arg(&self, parameter: &str) -> Option<&'a SqlExpr> {
        self.parameters.iter().position(|p| *p == parameter).and_then(|i| self.given[i])
    }

    fn plan(&self, context: &mut dyn RelationPlannerContext) -> DfResult<LogicalPlan> {
        let input = match self.arg("DATA") {
            Some(SqlExpr::Identifier(ident)) => context.plan(table(std::slice::from_ref(ident)))?,
            Some(SqlExpr::CompoundIdentifier(idents)) => context.plan(table(idents))?,
            Some(SqlExpr::Subquery(query)) => {
                let derived =
                    TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
                context.plan(derived)?
            }
            _ => {
                return fail(
                    Mistake::new(self.at, format!("{} takes a table first", self.function)).hint(self.usage()),
                );
            }
        };
        if let Some(taken) = WINDOW_COLUMNS.iter().find(|c| input.schema().has_column_with_unqualified_name(c)) {
            return fail(Mistake::new(self.at, format!("the table has a column '{taken}' already")).hint(format!(
                "select it under another name, such as {taken} AS inner_{taken}, before the next window"
            )));
        }
        let (time, at) = self.time(&input, context)?;
        let kind = self.kind(context)?;
        let partition = self.partition(&input, context)?;
        let node = WindowTvf::new(Arc::new(input), kind, time, partition, at)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    fn time(&self, input: &LogicalPlan, context: &mut dyn RelationPlannerContext) -> DfResult<(Expr, Location)> {
        let descriptor = match self.arg("TIMECOL") {
            Some(SqlExpr::Function(f)) if name_of(&f.name) == "descriptor" => crate::rewrite::arguments(f),
            _ => None,
        };
        let Some([column]) = descriptor.as_deref() else {
            let at = self.arg("TIMECOL").map_or(self.at, |e| e.span().start);
            return fail(
                Mistake::new(at, format!("{} takes DESCRIPTOR(column) second", self.function)).hint(self.usage()),
            );
        };
        let at = column.span().start;
        let expr = context.sql_to_expr((*column).clone(), input.schema())?;
        let Expr::Column(named) = &expr else {
            return fail(
                Mistake::new(at, "a window needs a column of event time, not an expression")
                    .hint("declare it in the table: event_time AS expr, WATERMARK FOR event_time AS …"),
            );
        };
        let field = input.schema().field(input.schema().index_of_column(named)?);
        match field.data_type() {
            DataType::Timestamp(..) => Ok((expr, at)),
            other => fail(
                Mistake::new(at, format!("'{}' is {}, not a timestamp", named.name, crate::types::name(other)))
                    .hint("declare the column as TIMESTAMP(3)"),
            ),
        }
    }

    fn kind(&self, context: &mut dyn RelationPlannerContext) -> DfResult<WindowKind> {
        let mut duration = |parameter: &str| match self.arg(parameter) {
            Some(expr) => milliseconds(expr, context).map(Some),
            None => Ok(None),
        };
        let (size, slide, step, gap, offset) = (
            duration("SIZE")?,
            duration("SLIDE")?,
            duration("STEP")?,
            duration("GAP")?,
            duration("OFFSET")?.unwrap_or(0),
        );
        for (parameter, value) in [("SIZE", size), ("SLIDE", slide), ("STEP", step), ("GAP", gap)] {
            if value.is_some_and(|v| v <= 0) {
                let at = self.arg(parameter).map_or(self.at, |e| e.span().start);
                let message = format!("the {} of a window must be longer than 0", parameter.to_lowercase());
                return fail(Mistake::new(at, message));
            }
        }
        let size_of = size.unwrap_or(0);
        Ok(match (slide, step, gap) {
            (Some(slide), ..) => WindowKind::Hop { size: size_of, slide, offset },
            (_, Some(step), _) => {
                if size_of % step != 0 {
                    return fail(
                        Mistake::new(self.at, "the size of CUMULATE must be a multiple of its step").hint(self.usage()),
                    );
                }
                WindowKind::Cumulate { size: size_of, step, offset }
            }
            (_, _, Some(gap)) => WindowKind::Session { gap },
            _ => WindowKind::Tumble { size: size_of, offset },
        })
    }

    fn partition(&self, input: &LogicalPlan, context: &mut dyn RelationPlannerContext) -> DfResult<Partition> {
        let Some(SqlExpr::Function(function)) = self.partition else { return Ok(Partition::By(Vec::new())) };
        if name_of(&function.name) == PARTITION_BY_KEYS {
            return Ok(Partition::ByKeys);
        }
        let columns = crate::rewrite::arguments(function).unwrap_or_default();
        let by = columns.into_iter().map(|c| context.sql_to_expr(c.clone(), input.schema()));
        Ok(Partition::By(by.collect::<DfResult<_>>()?))
    }
}

pub(crate) fn table(idents: &[Ident]) -> TableFactor {
    TableFactor::Table {
        name: ObjectName(idents.iter().cloned().map(ObjectNamePart::Identifier).collect()),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// Milliseconds of `INTERVAL '5' MINUTE` or Spark's `'5 minutes'`.
fn milliseconds(expr: &SqlExpr, context: &mut dyn RelationPlannerContext) -> DfResult<i64> {
    let at = expr.span().start;
    let wrong = || {
        Mistake::new(at, format!("'{expr}' is not a fixed length of time"))
            .hint("write INTERVAL '5' MINUTE or '5 minutes'; months and years have no fixed length")
    };
    if let SqlExpr::Value(value) = expr {
        return match &value.value {
            Value::SingleQuotedString(text) => match parse_duration(text.trim().trim_start_matches("interval ")) {
                Some(duration) => Ok(duration.as_millis() as i64),
                None => fail(wrong()),
            },
            _ => fail(wrong()),
        };
    }
    match context.sql_to_expr(expr.clone(), &DFSchema::empty())? {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _)
            if i.months == 0 && i.nanoseconds % 1_000_000 == 0 =>
        {
            Ok(i64::from(i.days) * 86_400_000 + i.nanoseconds / 1_000_000)
        }
        _ => fail(wrong()),
    }
}

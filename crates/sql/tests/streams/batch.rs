//! The judge: batch DataFusion over tables in memory.
//!
//! The batch query may be the stream's own text: `TABLE(TUMBLE(…))`, `HOP`, `CUMULATE` and `SESSION` are expanded here, row by row and by
//! their definition, into tables with `window_start`, `window_end` and `window_time`.
//!
//! A question is planned once and answered after every epoch: its tables are filled anew, its plan stays.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, LogicalPlan, Volatility, create_udf};
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_dataflow::times::{from_millis, to_millis};
use tokio::runtime::Runtime;

use crate::draws::mix;

thread_local! {
    /// Contexts without tables: making one costs more than most questions.
    static CONTEXTS: RefCell<Vec<Context>> = const { RefCell::new(Vec::new()) };
}

struct Context {
    runtime: Runtime,
    session: SessionContext,
}

/// Tables in memory to ask in SQL.
pub struct Batch {
    context: Option<Context>,
    /// Those that can be filled.
    tables: BTreeMap<String, Arc<MemTable>>,
    views: Vec<String>,
    /// In the order in which they must be computed.
    windows: Vec<Windows>,
}

/// A planned question.
pub struct Question {
    plan: LogicalPlan,
    pub schema: SchemaRef,
}

/// A table that holds the rows of a query with their windows.
struct Windows {
    input: Question,
    assign: Assign,
    table: Arc<MemTable>,
}

/// A window function with its arguments.
struct Assign {
    time: String,
    name: String,
    /// In milliseconds.
    lengths: Vec<i64>,
    partition: Vec<String>,
}

impl Context {
    fn new() -> Self {
        let mut config = SessionConfig::new().with_target_partitions(1);
        config.options_mut().sql_parser.enable_ident_normalization = false;
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let session = SessionContext::new_with_config(config);
        let hash = |args: &[ColumnarValue]| {
            let numbers = ColumnarValue::values_to_arrays(args)?.remove(0);
            let draw = |n: i64| (mix(n as u64 ^ 0x5eed) >> 2) as i64;
            Ok(ColumnarValue::Array(Arc::new(numbers.as_primitive::<Int64Type>().unary::<_, Int64Type>(draw))))
        };
        let rnd = create_udf("rnd", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(hash));
        session.register_udf(rnd);
        Self { runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(), session }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let Some(context) = self.context.take().filter(|_| !std::thread::panicking()) else { return };
        for name in self.tables.keys().chain(&self.views) {
            context.session.deregister_table(name.as_str()).unwrap();
        }
        CONTEXTS.with_borrow_mut(|free| free.push(context));
    }
}

impl Batch {
    pub fn new() -> Self {
        let context = CONTEXTS.with_borrow_mut(Vec::pop).unwrap_or_else(Context::new);
        Self { context: Some(context), tables: BTreeMap::new(), views: Vec::new(), windows: Vec::new() }
    }

    fn context(&self) -> &Context {
        self.context.as_ref().unwrap()
    }

    /// An empty table.
    pub fn table(&mut self, name: &str, schema: SchemaRef) -> Arc<MemTable> {
        let table = Arc::new(MemTable::try_new(schema, vec![Vec::new()]).unwrap());
        self.context().session.register_table(name, table.clone()).unwrap();
        self.tables.insert(name.to_owned(), table.clone());
        table
    }

    /// The table holds these rows from now on.
    pub fn fill(&self, name: &str, rows: RecordBatch) {
        self.put(&self.tables[name], rows);
    }

    fn put(&self, table: &MemTable, rows: RecordBatch) {
        assert_eq!(table.batches.len(), 1);
        self.context().runtime.block_on(async { *table.batches[0].write().await = vec![rows] });
    }

    pub fn view(&mut self, name: &str, sql: &str) {
        let sql = format!("CREATE VIEW \"{name}\" AS {}", self.expand(sql).unwrap());
        let context = self.context();
        context.runtime.block_on(async { context.session.sql(&sql).await }).unwrap_or_else(|e| panic!("{e}\n{sql}"));
        self.views.push(name.to_owned());
    }

    /// Plans a query.
    pub fn prepare(&mut self, sql: &str) -> Result<Question> {
        let sql = self.expand(sql)?;
        let context = self.context();
        let state = context.session.state();
        let plan = context.runtime.block_on(state.create_logical_plan(&sql))?;
        let plan = state.optimize(&plan)?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Ok(Question { plan, schema })
    }

    /// The rows of a query.
    pub fn query(&mut self, sql: &str) -> RecordBatch {
        let answer = self.prepare(sql).and_then(|question| self.answer(&question));
        answer.unwrap_or_else(|e| panic!("{e}\n{sql}"))
    }

    /// The rows of a planned query, in one batch.
    pub fn answer(&self, question: &Question) -> Result<RecordBatch> {
        for windows in &self.windows {
            let rows = assign(&self.ask(&windows.input)?, &windows.assign, &windows.table);
            self.put(&windows.table, rows);
        }
        self.ask(question)
    }

    fn ask(&self, question: &Question) -> Result<RecordBatch> {
        let context = self.context();
        let batches = context.runtime.block_on(async {
            let state = context.session.state();
            let plan = state.query_planner().create_physical_plan(&question.plan, &state).await?;
            collect(plan, context.session.task_ctx()).await
        })?;
        Ok(concat_batches(batches.first().map_or(&question.schema, |b| b.schema_ref()), &batches)?)
    }

    /// Replaces window table functions by tables that hold their rows.
    fn expand(&mut self, sql: &str) -> Result<String> {
        let Some((at, after, name, arguments)) = first_window(sql) else { return Ok(sql.to_owned()) };
        let mut arguments = arguments.into_iter();
        let input = arguments.next().unwrap();
        let time = between(&arguments.next().unwrap(), '(', ')').trim().trim_matches(['`', '"']).to_owned();
        let lengths: Vec<i64> = arguments.map(|a| interval(&a)).collect();
        let input = input.trim();
        let named = input.strip_prefix("TABLE").unwrap_or(input).trim();
        let (table, by) = match named.starts_with('(') {
            true => named.split_at(closing(named, 0) + 1),
            false => named.split_at(named.find("PARTITION BY").unwrap_or(named.len())),
        };
        let query = match table.strip_prefix('(') {
            Some(subquery) => subquery[..subquery.len() - 1].to_owned(),
            None => format!("SELECT * FROM {table}"),
        };
        let by = by.trim().strip_prefix("PARTITION BY").unwrap_or_default().split(',');
        let by = by.map(|c| c.trim().trim_matches(['`', '"', '(', ')']).to_owned());
        let partition: Vec<String> = by.filter(|c| !c.is_empty()).collect();
        let input = self.prepare(&query)?;
        let time_type = input.schema.field_with_name(&time)?.data_type().clone();
        let mut fields: Vec<Field> = input.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.extend(["window_start", "window_end", "window_time"].map(|n| Field::new(n, time_type.clone(), false)));
        let table = format!("__windows_{}", self.windows.len());
        let filled = self.table(&table, Arc::new(Schema::new(fields)));
        self.windows.push(Windows { input, assign: Assign { time, name, lengths, partition }, table: filled });
        self.expand(&format!("{}{table}{}", &sql[..at], &sql[after..]))
    }
}

/// Place, place after, name and arguments of the first `TABLE(name(…))` with a window function.
fn first_window(sql: &str) -> Option<(usize, usize, String, Vec<String>)> {
    let mut from = 0;
    while let Some(found) = sql[from..].find("TABLE(") {
        let at = from + found;
        let inner = &sql[at + 6..];
        let name = ["TUMBLE", "HOP", "CUMULATE", "SESSION"].into_iter().find(|n| inner.trim_start().starts_with(n));
        if let Some(name) = name {
            let open = at + 6 + inner.find('(').unwrap();
            let close = closing(sql, open);
            let after = close + 1 + sql[close + 1..].find(')').unwrap() + 1;
            return Some((at, after, name.to_owned(), split(&sql[open + 1..close])));
        }
        from = at + 6;
    }
    None
}

/// The bracket that closes the one at `open`.
fn closing(sql: &str, open: usize) -> usize {
    let mut depth = 0;
    let mut quoted = false;
    for (i, c) in sql[open..].char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return open + i;
                }
            }
            _ => {}
        }
    }
    panic!("a bracket is not closed: {sql}")
}

/// Arguments at the top level. `PARTITION BY a, b` stays with its table.
fn split(arguments: &str) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    let (mut depth, mut quoted) = (0, false);
    for (i, c) in arguments.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                let next = arguments[i + 1..].trim_start();
                if parts.len() > 1 || next.starts_with("DESCRIPTOR") {
                    parts.push(String::new());
                    continue;
                }
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts
}

fn between(text: &str, open: char, close: char) -> &str {
    let from = text.find(open).unwrap_or_else(|| panic!("no '{open}' in {text}"));
    &text[from + 1..text.rfind(close).unwrap()]
}

/// Milliseconds of `INTERVAL 'n' UNIT`.
fn interval(text: &str) -> i64 {
    let mut parts = text.split('\'');
    let number: i64 =
        parts.nth(1).and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("not an interval: {text}"));
    let unit = parts.next().unwrap_or_default().trim().trim_end_matches(['S', 's']).to_uppercase();
    number
        * match unit.as_str() {
            "MILLISECOND" => 1,
            "SECOND" => 1_000,
            "MINUTE" => 60_000,
            "HOUR" => 3_600_000,
            "DAY" => 86_400_000,
            other => panic!("no unit '{other}' in {text}"),
        }
}

/// Rows × the windows that hold them, with the columns of `table`.
fn assign(rows: &RecordBatch, by: &Assign, table: &MemTable) -> RecordBatch {
    let time = rows.column_by_name(&by.time).unwrap();
    let times = to_millis(time).unwrap();
    let (mut indices, mut starts, mut ends): (Vec<u32>, Vec<i64>, Vec<i64>) = Default::default();
    if by.name == "SESSION" {
        sessions(rows, &times, by.lengths[0], &by.partition, |row, start, end| {
            indices.push(row);
            starts.push(start);
            ends.push(end);
        });
    } else {
        for row in (0..rows.num_rows()).filter(|r| times.is_valid(*r)) {
            for (start, end) in windows(times.value(row), &by.name, &by.lengths) {
                indices.push(row as u32);
                starts.push(start);
                ends.push(end);
            }
        }
    }
    let kept = take_record_batch(rows, &UInt32Array::from(indices)).unwrap();
    let lasts: Vec<i64> = ends.iter().map(|e| e - 1).collect();
    let mut columns: Vec<ArrayRef> = kept.columns().to_vec();
    for values in [starts, ends, lasts] {
        columns.push(from_millis(Int64Array::from(values), time.data_type()).unwrap());
    }
    RecordBatch::try_new(datafusion::catalog::TableProvider::schema(table), columns).unwrap()
}

/// The windows that hold `t`, by definition: every candidate is looked at.
fn windows(t: i64, name: &str, lengths: &[i64]) -> Vec<(i64, i64)> {
    let floor = |t: i64, step: i64| t - t.rem_euclid(step);
    let holds = |(start, end): &(i64, i64)| *start <= t && t < *end;
    match (name, lengths) {
        ("TUMBLE", [size]) => vec![(floor(t, *size), floor(t, *size) + size)],
        ("TUMBLE", [size, offset]) => {
            let start = floor(t - offset, *size) + offset;
            vec![(start, start + size)]
        }
        ("HOP", [slide, size]) => {
            let last = floor(t, *slide);
            (0..=size / slide + 1).map(|i| (last - i * slide, last - i * slide + size)).filter(holds).collect()
        }
        ("CUMULATE", [step, size]) => {
            let start = floor(t, *size);
            (1..=size / step).map(|i| (start, start + i * step)).filter(holds).collect()
        }
        _ => panic!("{name} with {lengths:?}"),
    }
}

/// Calls `give` with every row and the bounds of its session: neighbours are at most the gap apart.
fn sessions(
    rows: &RecordBatch,
    times: &Int64Array,
    gap: i64,
    partition: &[String],
    mut give: impl FnMut(u32, i64, i64),
) {
    let by: Vec<usize> = partition.iter().map(|c| rows.schema().index_of(c).unwrap()).collect();
    // DataFusion groups −0.0 and 0.0 apart, so their texts are what is compared.
    let options = FormatOptions::new().with_null("\0");
    let shown: Vec<_> = by.iter().map(|c| ArrayFormatter::try_new(rows.column(*c), &options).unwrap()).collect();
    let keys: Vec<Vec<String>> =
        (0..rows.num_rows()).map(|row| shown.iter().map(|c| c.value(row).to_string()).collect()).collect();
    let mut order: Vec<usize> = (0..rows.num_rows()).filter(|r| times.is_valid(*r)).collect();
    order.sort_by_key(|r| (keys.get(*r), times.value(*r)));
    let together = |a: &usize, b: &usize| keys.get(*a) == keys.get(*b) && times.value(*b) - times.value(*a) <= gap;
    for session in order.chunk_by(together) {
        let (start, end) = (times.value(session[0]), times.value(session[session.len() - 1]) + gap);
        session.iter().for_each(|row| give(*row as u32, start, end));
    }
}

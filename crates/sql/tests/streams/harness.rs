//! A case: tables, a query, and the batch query whose result it must have after every epoch.
//!
//! ```ignore
//! Case::new()
//!     .table("a", "k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND")
//!     .values("(1, 10, '2020-01-01 00:00:00'), (2, NULL, '2020-01-01 00:00:01')")
//!     .query("SELECT k, count(*) FROM a GROUP BY k")
//!     .check();
//! ```
//!
//! The sink's columns have the names and types of the batch query's. What is compared depends on the query: by default all rows so far give
//! the result ([`Until::Now`]); a windowed query that emits when a window closes gives the rows of the batch result whose window has ended
//! ([`Case::closes_by`]).
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, TimestampMillisecondArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_sql::{Pipeline, SqlError, plan_changing};

use crate::batch::{Batch, Question};
use crate::difference::Multiset;
use crate::feed::Changes;
use crate::trial::{Trial, Wrong, counted, visible};

/// `now()` of the first epoch.
pub const NOW_MS: i64 = 1_600_000_000_123;
/// Any connector that takes every type and is not asked for anything here.
const SOURCE: &str =
    "'connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'none:1', 'format' = 'json'";
/// A connector of files.
const FILES: &str = "'connector' = 'filesystem', 'path' = '/none', 'format' = 'json'";
/// The hidden column of tables with [`Case::with_now`].
const NOW: &str = "__now";
/// A table of the batch: one row with the watermark of each table in a column of its name, in milliseconds.
const WATERMARKS: &str = "__watermark";

/// What a result holds after an epoch.
#[derive(Clone, Debug)]
pub enum Until {
    /// The batch result.
    Now,
    /// Rows of the batch result whose value in this column is at or before the watermark.
    Closed(String),
    /// The same if it is before the watermark: sessions, which a row at their very end would still join.
    Passed(String),
    /// The same, by processing time.
    ClosedByNow(String),
    /// The batch result, when all is read.
    TheEnd,
    /// The batch result; when all is read only, if the planner lets rows wait until the watermark has passed them (OVER in the order of time).
    Settled,
}

/// What became of a case.
#[derive(Debug)]
pub enum Outcome {
    Passed,
    /// The planner does not take the query.
    Refused(SqlError),
    /// The batch cannot answer it.
    NotJudged(String),
    /// What is wrong.
    Failed(String),
}

/// The batch with the query planned.
pub struct Judge {
    batch: Batch,
    /// An error if the batch cannot answer the query and the case says what the columns are.
    question: Result<Question, String>,
}

#[derive(Clone)]
pub struct Table {
    pub name: String,
    /// As in CREATE TABLE.
    columns: String,
    schema: SchemaRef,
    pub rows: RecordBatch,
    pub changes: Changes,
    connector: String,
}

/// See the module.
#[derive(Clone)]
pub struct Case {
    pub tables: Vec<Table>,
    /// Name, text for the stream, text for the batch.
    views: Vec<(String, String, String)>,
    pub query: String,
    batch: Option<String>,
    /// Of the sink, if not those of the batch result.
    columns: Option<String>,
    pub until: Until,
    seeds: u64,
    pub min_epochs: usize,
    pub max_epochs: usize,
    with_now: bool,
    pub fixed_now: bool,
    settings: BTreeMap<String, String>,
}

impl Case {
    pub fn new() -> Self {
        Self {
            tables: Vec::new(),
            views: Vec::new(),
            query: String::new(),
            batch: None,
            columns: None,
            until: Until::Now,
            seeds: 4,
            min_epochs: 1,
            max_epochs: 8,
            with_now: false,
            fixed_now: false,
            settings: BTreeMap::new(),
        }
    }

    /// Adds an empty table with these columns (nullable ones; computed columns, WATERMARK and PRIMARY KEY as usual). The first is plain.
    pub fn table(mut self, name: &str, columns: &str) -> Self {
        let schema = physical(columns);
        let rows = RecordBatch::new_empty(schema.clone());
        let (name, columns) = (name.to_owned(), columns.to_owned());
        let connector = SOURCE.to_owned();
        self.tables.push(Table { name, columns, schema, rows, changes: Changes::Appended, connector });
        self
    }

    /// The table just added is read from files, once.
    pub fn files(mut self) -> Self {
        self.tables.last_mut().unwrap().connector = format!("{FILES}, 'source.monitor' = 'false'");
        self
    }

    /// The table just added is read from files, to which others are added.
    pub fn growing_files(mut self) -> Self {
        self.tables.last_mut().unwrap().connector = FILES.to_owned();
        self
    }

    /// Rows of the table just added, as in VALUES. Texts are cast to the columns' types.
    pub fn values(self, rows: &str) -> Self {
        self.select(&format!("SELECT * FROM (VALUES {rows})"))
    }

    /// `count` rows of the table just added: expressions over `i` (0, 1, …), with `rnd(n)` a hash of a number that is not negative.
    pub fn generated(self, count: usize, exprs: &str) -> Self {
        if count == 0 {
            return self;
        }
        self.select(&format!("SELECT {exprs} FROM (SELECT value AS i FROM generate_series(0, {}))", count - 1))
    }

    fn select(self, sql: &str) -> Self {
        let rows = Batch::new().query(sql);
        let table = self.tables.last().unwrap();
        assert_eq!(rows.num_columns(), table.schema.fields().len(), "table {}: number of columns", table.name);
        let columns = rows.columns().iter().zip(table.schema.fields()).map(|(c, f)| cast(c, f.data_type()).unwrap());
        let rows = RecordBatch::try_new(table.schema.clone(), columns.collect()).unwrap();
        self.rows(rows)
    }

    /// Rows of the table just added, with its physical columns.
    pub fn rows(mut self, rows: RecordBatch) -> Self {
        let table = self.tables.last_mut().unwrap();
        table.rows = concat_batches(&table.schema, [&table.rows, &rows]).unwrap();
        self
    }

    /// Only the first rows of a table.
    pub fn first_rows(mut self, table: &str, rows: usize) -> Self {
        let table = self.tables.iter_mut().find(|t| t.name == table).unwrap();
        table.rows = table.rows.slice(0, rows.min(table.rows.num_rows()));
        self
    }

    /// The table just added also loses rows.
    pub fn updating(mut self) -> Self {
        self.tables.last_mut().unwrap().changes = Changes::Updating;
        self
    }

    /// In the table just added a row takes the place of the one with the same key.
    pub fn keyed(mut self, key: &[&str]) -> Self {
        self.tables.last_mut().unwrap().changes = Changes::Keyed(key.iter().map(|k| (*k).to_owned()).collect());
        self
    }

    /// Physical columns of the table just added.
    pub fn schema(&self) -> SchemaRef {
        self.tables.last().unwrap().schema.clone()
    }

    /// The same, but a record is a new row or the key of one that goes: the table has a PRIMARY KEY.
    pub fn upserts(mut self, key: &[&str]) -> Self {
        self.tables.last_mut().unwrap().changes = Changes::Upserts(key.iter().map(|k| (*k).to_owned()).collect());
        self
    }

    /// A view, with its text for the batch.
    pub fn view_as(mut self, name: &str, query: &str, batch: &str) -> Self {
        self.views.push((name.to_owned(), query.to_owned(), batch.to_owned()));
        self
    }

    /// The query under test.
    pub fn query(mut self, query: &str) -> Self {
        self.query = query.to_owned();
        self
    }

    /// What the batch is asked, if not the query's own text.
    pub fn batch(mut self, query: &str) -> Self {
        self.batch = Some(query.to_owned());
        self
    }

    /// Columns of the sink, as in CREATE TABLE, if not those of the batch result.
    pub fn columns(mut self, columns: &str) -> Self {
        self.columns = Some(columns.to_owned());
        self
    }

    /// Rows are emitted once, when the watermark reaches this column of the batch result (a window's end). A column whose name begins with `__`
    /// is only there for this, and not in the query's result. Rows in which it is null are emitted at once.
    pub fn closes_by(mut self, column: &str) -> Self {
        self.until = Until::Closed(column.to_owned());
        self
    }

    /// The same for the end of a session.
    pub fn closes_after(mut self, column: &str) -> Self {
        self.until = Until::Passed(column.to_owned());
        self
    }

    /// Rows may wait for the watermark where the planner sees that they can.
    pub fn settles(mut self) -> Self {
        self.until = Until::Settled;
        self
    }

    /// Only what is there in the end is compared.
    pub fn at_the_end(mut self) -> Self {
        self.until = Until::TheEnd;
        self
    }

    /// The same by processing time.
    pub fn closes_by_now(mut self, column: &str) -> Self {
        self.until = Until::ClosedByNow(column.to_owned());
        self
    }

    /// A setting of the pipeline.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Gives the batch's tables a column `__now`: `now()` of the epoch in which a row came.
    pub fn with_now(mut self) -> Self {
        self.with_now = true;
        self
    }

    /// How many seeds are tried.
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Processing time stands still.
    pub fn fixed_now(mut self) -> Self {
        self.fixed_now = true;
        self
    }

    /// At least this many epochs, one of them followed by a restore.
    pub fn min_epochs(mut self, epochs: usize) -> Self {
        self.min_epochs = epochs;
        self.max_epochs = self.max_epochs.max(epochs);
        self
    }

    /// At most this many epochs.
    pub fn max_epochs(mut self, epochs: usize) -> Self {
        self.max_epochs = epochs;
        self
    }

    /// Runs the query for every seed and panics at the first result that is not the batch's.
    pub fn check(&self) {
        let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
        let one = number("STREAMS_SEED");
        let seeds = one.map_or(0..number("STREAMS_SEEDS").unwrap_or(self.seeds), |seed| seed..seed + 1);
        for seed in seeds {
            if let Err(message) = self.try_seed(seed) {
                let test = std::thread::current().name().unwrap_or_default().to_owned();
                panic!(
                    "{message}\nreplay: STREAMS_SEED={seed} cargo test --release -p millstream-sql --test streams -- --exact {test}"
                );
            }
        }
    }

    /// Why the planner does not take the query, if it does not.
    pub fn refused(&self) -> Option<SqlError> {
        let columns = self.sink_columns(&self.judge().unwrap());
        self.plan(1, &columns).err()
    }

    /// The batch result over all rows.
    pub fn batch_result(&self) -> (SchemaRef, Multiset) {
        let now = |t: &Table| self.now_column(&t.rows, &vec![NOW_MS; t.rows.num_rows()]);
        let result = self.judge().and_then(|judge| {
            let tables = self.tables.iter().map(|t| (t.name.as_str(), now(t)));
            judge.ask(tables, &vec![i64::MAX; self.tables.len()])
        });
        visible(&result.unwrap_or_else(|e| panic!("{e}")), None)
    }

    /// What the sink holds at the end, not compared with the batch's result. Rows on an append-only edge must all be additions, so that
    /// they are also the rows that were emitted.
    pub fn stream_result(&self, seed: u64) -> Result<(SchemaRef, Multiset), String> {
        let judge = self.judge()?;
        let trial = self.trial(seed, &judge).map_err(|e| format!("{}\n{e}", self.query))?;
        let rows = trial.output()?;
        for (epoch, rows) in rows.iter().enumerate() {
            trial.check_weights(epoch, rows)?;
        }
        Ok((trial.sink.clone(), counted(rows.into_iter().flatten())))
    }

    /// `explain` of the query.
    pub fn explained(&self) -> String {
        let judge = self.judge().unwrap_or_else(|e| panic!("{e}"));
        let trial = self.trial(0, &judge).unwrap_or_else(|e| panic!("{e}"));
        millstream_sql::explain(&trial.pipeline)
    }

    /// Runs the query for one seed. An error tells what differs.
    pub fn try_seed(&self, seed: u64) -> Result<(), String> {
        match self.outcome(seed) {
            Outcome::Passed => Ok(()),
            Outcome::Refused(error) => Err(format!("{}\n{error}", self.query)),
            Outcome::NotJudged(why) | Outcome::Failed(why) => Err(why),
        }
    }

    /// Runs the query for one seed.
    pub fn outcome(&self, seed: u64) -> Outcome {
        let judge = match self.judge() {
            Ok(judge) => judge,
            Err(why) => return Outcome::NotJudged(why),
        };
        let trial = match self.trial(seed, &judge) {
            Ok(trial) => trial,
            Err(error) => return Outcome::Refused(error),
        };
        match trial.run() {
            Ok(()) => Outcome::Passed,
            Err(Wrong::Judge(why)) => Outcome::NotJudged(why),
            Err(Wrong::Stream(what)) => Outcome::Failed(what),
        }
    }

    /// Splitting the epochs in two leaves the same state.
    pub fn check_associative(&self) {
        for seed in 0..self.seeds {
            let judge = self.judge().unwrap_or_else(|e| panic!("{e}"));
            let state = |split: bool| {
                let trial = self.trial(seed, &judge).unwrap_or_else(|e| panic!("{}\n{e}", self.query));
                trial.state(split).unwrap_or_else(|e| panic!("{e}"))
            };
            let (whole, split) = (state(false), state(true));
            let only = |a: &[String], b: &[String]| a.iter().filter(|r| !b.contains(r)).cloned().collect::<Vec<_>>();
            assert!(!whole.is_empty(), "{}\nhas no state", self.query);
            let (lost, new) = (only(&whole, &split), only(&split, &whole));
            assert!(
                whole == split,
                "seed {seed}\n{}\nstate in whole epochs:\n{}\nin split ones:\n{}",
                self.query,
                lost.join("\n"),
                new.join("\n")
            );
        }
    }

    fn trial<'a>(&'a self, seed: u64, judge: &'a Judge) -> Result<Trial<'a>, SqlError> {
        let parallelism = 1 + (seed % 2) as u16;
        let columns = self.sink_columns(judge);
        Ok(Trial::new(self, judge, seed, parallelism, self.plan(parallelism, &columns)?))
    }

    fn sink_columns(&self, judge: &Judge) -> String {
        match (&self.columns, &judge.question) {
            (Some(columns), _) => columns.clone(),
            (None, Ok(question)) => sink_columns(&question.schema),
            (None, Err(why)) => panic!("{why}"),
        }
    }

    fn plan(&self, parallelism: u16, columns: &str) -> Result<Pipeline, SqlError> {
        let mut sql = String::new();
        for table in &self.tables {
            let key = match &table.changes {
                Changes::Upserts(key) => format!(", PRIMARY KEY ({}) NOT ENFORCED", key.join(", ")),
                Changes::Appended | Changes::Updating | Changes::Keyed(_) => String::new(),
            };
            let _ = writeln!(sql, "CREATE TABLE `{}` ({}{key}) WITH ({});", table.name, table.columns, table.connector);
        }
        for (name, query, _) in &self.views {
            let _ = writeln!(sql, "CREATE VIEW `{name}` AS {query};");
        }
        let _ = writeln!(
            sql,
            "CREATE TABLE `sink` ({columns}) WITH ('connector' = 'blackhole');\nINSERT INTO `sink`\n{};",
            self.query
        );
        let changing = self.tables.iter().filter_map(|t| match &t.changes {
            // What the planner finds out itself.
            Changes::Appended | Changes::Upserts(_) => None,
            Changes::Updating => Some((t.name.clone(), Vec::new())),
            Changes::Keyed(key) => Some((t.name.clone(), key.clone())),
        });
        plan_changing(&sql, &self.settings, parallelism, &changing.collect())
    }

    /// Asks nothing yet. An error: the batch cannot answer the query.
    fn judge(&self) -> Result<Judge, String> {
        let mut batch = Batch::new();
        for table in &self.tables {
            let empty = self.now_column(&RecordBatch::new_empty(table.schema.clone()), &[]);
            batch.table(&table.name, empty.schema());
        }
        let watermarks = self.tables.iter().map(|t| Field::new(&t.name, DataType::Int64, false));
        batch.table(WATERMARKS, Arc::new(Schema::new(watermarks.collect::<Vec<_>>())));
        for (name, _, query) in &self.views {
            batch.view(name, query);
        }
        let query = self.batch.as_deref().unwrap_or(&self.query);
        let question = batch.prepare(query).map_err(|e| format!("the batch query failed: {e}\n{query}"));
        match (question, &self.columns) {
            (Err(why), None) => Err(why),
            (question, _) => Ok(Judge { batch, question }),
        }
    }

    pub fn now_column(&self, rows: &RecordBatch, nows: &[i64]) -> RecordBatch {
        if !self.with_now {
            return rows.clone();
        }
        let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(NOW, DataType::Timestamp(TimeUnit::Millisecond, None), false)));
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(TimestampMillisecondArray::from(nows.to_vec())));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }
}

impl Judge {
    /// The result over these tables.
    pub fn ask<'t>(
        &self,
        tables: impl Iterator<Item = (&'t str, RecordBatch)>,
        watermarks: &[i64],
    ) -> Result<RecordBatch, String> {
        let mut fields = Vec::new();
        for (name, rows) in tables {
            self.batch.fill(name, rows);
            fields.push(Field::new(name, DataType::Int64, false));
        }
        let values = watermarks.iter().map(|w| Arc::new(Int64Array::from(vec![*w])) as ArrayRef);
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let schema = Arc::new(Schema::new(fields));
        self.batch.fill(WATERMARKS, RecordBatch::try_new_with_options(schema, values.collect(), &options).unwrap());
        // Some of its functions panic on rare input.
        let question = self.question.as_ref().map_err(Clone::clone)?;
        match catch_unwind(AssertUnwindSafe(|| self.batch.answer(question))) {
            Ok(answer) => answer.map_err(|e| format!("the batch query failed: {e}")),
            Err(_) => Err("the batch query panicked".to_owned()),
        }
    }
}

/// The physical columns of a table, as the planner types them.
fn physical(columns: &str) -> SchemaRef {
    let first = columns.split_whitespace().next().unwrap();
    let sql = format!(
        "CREATE TABLE t ({columns}) WITH ({SOURCE}); CREATE TABLE s ({columns}) WITH ('connector' = 'blackhole');
         INSERT INTO s ({first}) SELECT {first} FROM t;"
    );
    let pipeline = millstream_sql::plan(&sql, &BTreeMap::new(), 1).unwrap_or_else(|e| panic!("{e}"));
    let fields = pipeline.sinks[0].schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Columns of a sink that takes the rows of such a batch result.
fn sink_columns(result: &SchemaRef) -> String {
    let shown = result.fields().iter().filter(|f| !f.name().starts_with("__"));
    let columns: Vec<String> =
        shown.enumerate().map(|(i, f)| format!("`{}` {}", column_name(f.name(), i), sql_type(f.data_type()))).collect();
    columns.join(", ")
}

/// Names such as `count(*)` are none for a column.
fn column_name(name: &str, index: usize) -> String {
    let plain =
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain && !name.is_empty() { name.to_owned() } else { format!("c{index}") }
}

fn sql_type(data_type: &DataType) -> String {
    let precision = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match data_type {
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            "BIGINT".to_owned()
        }
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", precision(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", precision(unit)),
        DataType::List(item) => format!("ARRAY<{}>", sql_type(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("`{}` {}", f.name(), sql_type(f.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        other => panic!("no SQL type for {other}: say the sink's columns with Case::columns"),
    }
}

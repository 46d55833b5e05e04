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
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMillisecondArray};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_dataflow::DeltaBatch;
use millstream_dataflow::graph::{NodeKind, SideTable, SourceNode};
use millstream_dataflow::times::to_millis;
use millstream_plan::{Epoch, EpochPlan, OperatorId, SourcePlan, Watermark};
use millstream_sql::{Pipeline, SqlError, plan_changing};

use crate::batch::Batch;
use crate::difference::{Multiset, difference, texts};
use crate::draws::Draws;
use crate::feed::{Changes, Feed};
use crate::run::Run;

/// `now()` of the first epoch.
const NOW_MS: i64 = 1_600_000_000_123;
/// Any connector that takes every type and is not asked for anything here.
const SOURCE: &str =
    "'connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'none:1', 'format' = 'json'";
/// A connector of files.
const FILES: &str = "'connector' = 'filesystem', 'path' = '/none', 'format' = 'json'";
/// The hidden column of tables with [`Case::with_now`].
const NOW: &str = "__now";

/// What a result holds after an epoch.
#[derive(Clone, Debug)]
enum Until {
    /// The batch result.
    Now,
    /// Rows of the batch result whose value in this column is at or before the watermark.
    Closed(String),
    /// The same, by processing time.
    ClosedByNow(String),
    /// The batch result, after the last epoch.
    End,
}

#[derive(Clone)]
struct Table {
    name: String,
    /// As in CREATE TABLE.
    columns: String,
    schema: SchemaRef,
    rows: RecordBatch,
    changes: Changes,
    connector: String,
}

/// See the module.
#[derive(Clone)]
pub struct Case {
    tables: Vec<Table>,
    /// Name, text for the stream, text for the batch.
    views: Vec<(String, String, String)>,
    query: String,
    batch: Option<String>,
    /// Of the sink, if not those of the batch result.
    columns: Option<String>,
    until: Until,
    seeds: u64,
    first_seed: u64,
    min_epochs: usize,
    max_epochs: usize,
    with_now: bool,
    fixed_now: bool,
    settings: BTreeMap<String, String>,
    replay: Option<String>,
}

/// One way to run a case.
struct Trial<'a> {
    case: &'a Case,
    seed: u64,
    parallelism: u16,
    pipeline: Pipeline,
    sink: SchemaRef,
    feeds: BTreeMap<OperatorId, Feed>,
    /// By table name, for tables that the query does not read: empty.
    plans: Vec<EpochPlan>,
    /// After which epochs all tasks are dropped and restored.
    restores: Vec<bool>,
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
            first_seed: 0,
            min_epochs: 1,
            max_epochs: 8,
            with_now: false,
            fixed_now: false,
            settings: BTreeMap::new(),
            replay: None,
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

    /// A view for both sides.
    pub fn view(self, name: &str, query: &str) -> Self {
        self.view_as(name, query, query)
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

    /// The same by processing time.
    pub fn closes_by_now(mut self, column: &str) -> Self {
        self.until = Until::ClosedByNow(column.to_owned());
        self
    }

    /// Only the last epoch's result is the batch's; before it no row is there less than never.
    pub fn at_the_end(mut self) -> Self {
        self.until = Until::End;
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

    /// Tries one seed.
    pub fn only_seed(mut self, seed: u64) -> Self {
        (self.first_seed, self.seeds) = (seed, 1);
        self
    }

    /// What to run to see a failure again, if not the test at hand.
    pub fn replay(mut self, command: String) -> Self {
        self.replay = Some(command);
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
        let one = number("STREAMS_SEED").filter(|_| self.replay.is_none());
        let count = number("STREAMS_SEEDS").filter(|_| self.replay.is_none()).unwrap_or(self.seeds);
        let seeds = one.map_or(self.first_seed..self.first_seed + count, |seed| seed..seed + 1);
        for seed in seeds {
            if let Err(message) = self.try_seed(seed) {
                let test = std::thread::current().name().unwrap_or_default().to_owned();
                let command = self.replay.clone().unwrap_or_else(|| {
                    format!(
                        "STREAMS_SEED={seed} cargo test --release -p millstream-sql --test streams -- --exact {test}"
                    )
                });
                panic!("{message}\nreplay: {command}");
            }
        }
    }

    /// Why the planner does not take the query, if it does not.
    pub fn refused(&self) -> Option<SqlError> {
        self.plan(1).err()
    }

    /// The batch result over all rows.
    pub fn batch_result(&self) -> (SchemaRef, Multiset) {
        let now = |t: &Table| self.now_column(&t.rows, &vec![NOW_MS; t.rows.num_rows()]);
        visible(&self.ask(self.tables.iter().map(|t| (t.name.as_str(), now(t)))), None)
    }

    /// What the sink holds at the end, not compared with the batch's result.
    pub fn stream_result(&self, seed: u64) -> Result<(SchemaRef, Multiset), String> {
        let parallelism = 1 + (seed % 2) as u16;
        let pipeline = self.plan(parallelism).map_err(|e| format!("{}\n{e}", self.query))?;
        let trial = Trial::new(self, seed, parallelism, pipeline);
        let rows = counted(trial.output()?.into_iter().flatten());
        Ok((trial.sink.clone(), rows))
    }

    /// `explain` of the query.
    pub fn explained(&self) -> String {
        millstream_sql::explain(&self.plan(1).unwrap_or_else(|e| panic!("{e}")))
    }

    /// Runs the query for one seed. An error tells what differs.
    pub fn try_seed(&self, seed: u64) -> Result<(), String> {
        let parallelism = 1 + (seed % 2) as u16;
        let pipeline = self.plan(parallelism).map_err(|e| format!("{}\n{e}", self.query))?;
        Trial::new(self, seed, parallelism, pipeline).run()
    }

    fn plan(&self, parallelism: u16) -> Result<Pipeline, SqlError> {
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
        let columns = self.columns.clone().unwrap_or_else(|| self.sink_columns());
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

    fn sink_columns(&self) -> String {
        let tables = self
            .tables
            .iter()
            .map(|t| (t.name.as_str(), self.now_column(&RecordBatch::new_empty(t.schema.clone()), &[])));
        let result = self.ask(tables);
        let fields = result.schema();
        let shown = fields.fields().iter().filter(|f| !f.name().starts_with("__"));
        let columns: Vec<String> = shown
            .enumerate()
            .map(|(i, f)| format!("`{}` {}", column_name(f.name(), i), sql_type(f.data_type())))
            .collect();
        columns.join(", ")
    }

    /// The batch result over these tables.
    fn ask<'t>(&self, tables: impl Iterator<Item = (&'t str, RecordBatch)>) -> RecordBatch {
        let mut batch = Batch::new();
        for (name, rows) in tables {
            batch.table(name, &rows);
        }
        for (name, _, query) in &self.views {
            batch.view(name, query);
        }
        batch.query(self.batch.as_deref().unwrap_or(&self.query))
    }

    fn now_column(&self, rows: &RecordBatch, nows: &[i64]) -> RecordBatch {
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

impl<'a> Trial<'a> {
    fn new(case: &'a Case, seed: u64, parallelism: u16, pipeline: Pipeline) -> Self {
        let mut draws = Draws::new(seed);
        let epochs = case.min_epochs + draws.below(case.max_epochs - case.min_epochs + 1);
        let read = turns(&pipeline, epochs, &mut draws);
        let epochs = read.len();
        let mut feeds = BTreeMap::new();
        for (node, source) in pipeline.graph.sources() {
            let table = case.tables.iter().find(|t| t.name == source.table).unwrap();
            let own: Vec<usize> = (0..epochs).filter(|e| read[*e].reads(source)).collect();
            let feed = Feed::new(source, table.rows.clone(), &table.changes, own.len(), parallelism, &mut draws);
            feeds.insert(node.id, feed.spread(&own, epochs));
        }
        let mut now_ms = NOW_MS;
        let mut plans = Vec::new();
        let mut restores = Vec::new();
        for epoch in 0..epochs {
            let last = epoch + 1 == epochs;
            let sources = pipeline.graph.sources().map(|(node, source)| SourcePlan {
                source: source.source,
                watermark: if last { Watermark::MAX } else { Watermark(feeds[&node.id].watermarks[epoch]) },
                ranges: Vec::new(),
            });
            let checkpoint = draws.chance(1, 2);
            let (epoch, sources) = (Epoch(epoch as u64 + 1), sources.collect());
            plans.push(EpochPlan { epoch, now_ms, sources, checkpoint, flush: checkpoint, last });
            restores.push(checkpoint && draws.chance(2, 3));
            let passed = *draws.pick(&[0, 10, 700, 4_000, 60_000]);
            now_ms += match case.fixed_now {
                true => 0,
                // Which came first can be told by the time.
                false if read.contains(&Turn::Growing) => passed.max(1),
                false => passed,
            };
        }
        if let (2.., false) = (case.min_epochs, restores.contains(&true)) {
            let middle = epochs / 2 - 1;
            (plans[middle].checkpoint, plans[middle].flush, restores[middle]) = (true, true, true);
        }
        let sink = pipeline.graph.sinks().next().unwrap().0.output.schema.clone();
        Self { case, seed, parallelism, pipeline, sink, feeds, plans, restores }
    }

    fn run(&self) -> Result<(), String> {
        let append_only = self.pipeline.graph.sinks().next().unwrap().0.output.append_only;
        let mut found = Multiset::new();
        for (epoch, rows) in self.output()?.into_iter().enumerate() {
            for (row, weight) in rows {
                if append_only && weight != 1 {
                    let what = format!("weight {weight} on an append-only edge: {}", row.join(" | "));
                    return Err(self.failure(epoch, &what));
                }
                *found.entry(row).or_default() += weight;
            }
            found.retain(|_, count| *count != 0);
            if matches!(self.case.until, Until::End) && !self.plans[epoch].last {
                if let Some((row, count)) = found.iter().find(|(_, count)| **count < 0) {
                    return Err(self.failure(epoch, &format!("{count} rows: {}", row.join(" | "))));
                }
                continue;
            }
            let expected = self.expected(epoch);
            if let Some(what) = difference(&self.sink, &expected, &found) {
                return Err(self.failure(epoch, &what));
            }
        }
        Ok(())
    }

    /// By epoch, the rows that reach the sink, with their weights; restores make no difference.
    fn output(&self) -> Result<Vec<Vec<(Vec<String>, i64)>>, String> {
        let restored = self.outputs(true)?;
        // After a checkpoint an operator behaves as one that was restored from it: to the order of its rows.
        if self.restores.contains(&true) {
            let plain = self.outputs(false)?;
            for (epoch, (a, b)) in plain.iter().zip(&restored).enumerate() {
                if a != b {
                    let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
                    let what = format!(
                        "the output after a restore is another, from row {at}: {:?} instead of {:?} ({} rows instead of {})",
                        b.get(at),
                        a.get(at),
                        b.len(),
                        a.len()
                    );
                    return Err(self.failure(epoch, &what));
                }
            }
        }
        Ok(restored)
    }

    fn outputs(&self, restore: bool) -> Result<Vec<Vec<(Vec<String>, i64)>>, String> {
        let mut run = Run::new(Arc::new(self.pipeline.graph.clone()), self.parallelism);
        let mut outputs = Vec::new();
        for (at, plan) in self.plans.iter().enumerate() {
            let input = |id: OperatorId, task: u16| -> Vec<DeltaBatch> {
                let node = self.pipeline.graph.node(id);
                match &node.kind {
                    NodeKind::Source(source) => self.feeds[&id].batches(node, source, at, task),
                    _ => Vec::new(),
                }
            };
            let batches = run.epoch(plan, &input).map_err(|e| self.failure(at, &e.to_string()))?;
            let mut rows = Vec::new();
            for batch in batches {
                assert_eq!(batch.rows.schema().fields(), self.sink.fields(), "{}", self.case.query);
                let weights = (0..batch.num_rows()).map(|i| batch.weights.as_ref().map_or(1, |w| w.value(i)));
                rows.extend(texts(&batch.rows).into_iter().zip(weights));
            }
            outputs.push(rows);
            if restore && self.restores[at] {
                run.restore().map_err(|e| self.failure(at, &e.to_string()))?;
            }
        }
        Ok(outputs)
    }

    /// What must be there after an epoch.
    fn expected(&self, epoch: usize) -> Multiset {
        let now = |e: &usize| self.plans[*e].now_ms;
        let tables = self.case.tables.iter().map(|t| {
            let feed = self.pipeline.graph.sources().find(|(_, s)| s.table == t.name).map(|(n, _)| &self.feeds[&n.id]);
            let (rows, came) =
                feed.map_or_else(|| (t.rows.clone(), vec![0; t.rows.num_rows()]), |f| f.table_after(epoch));
            (t.name.as_str(), self.case.now_column(&rows, &came.iter().map(now).collect::<Vec<_>>()))
        });
        let mut result = self.case.ask(tables);
        let plan = &self.plans[epoch];
        let (column, watermark) = match &self.case.until {
            Until::Now | Until::End => (None, i64::MAX),
            Until::ClosedByNow(column) => (Some(column), if plan.last { i64::MAX } else { plan.now_ms }),
            Until::Closed(column) => {
                let with = self.pipeline.graph.sources().filter(|(_, s)| s.watermark.is_some());
                (Some(column), with.map(|(_, s)| plan.watermark(s.source).0).min().unwrap_or(i64::MIN))
            }
        };
        if let Some(column) = column {
            let ends =
                result.column_by_name(column).unwrap_or_else(|| panic!("the batch result has no column '{column}'"));
            let ends = to_millis(ends).unwrap();
            let closed: BooleanArray = ends.iter().map(|end| Some(end.is_none_or(|end| end <= watermark))).collect();
            result = filter_record_batch(&result, &closed).unwrap();
        }
        visible(&result, Some(&self.sink)).1
    }

    fn failure(&self, epoch: usize, what: &str) -> String {
        let plan = &self.plans[epoch];
        let watermarks: Vec<String> = plan.sources.iter().map(|s| s.watermark.to_string()).collect();
        let restores: Vec<usize> = (0..epoch).filter(|e| self.restores[*e]).map(|e| e + 1).collect();
        format!(
            "epoch {} of {}, {} tasks per stage, watermarks {watermarks:?}, now {}, restored after {restores:?}, seed {}\n{}\n{what}\n{}",
            epoch + 1,
            self.plans.len(),
            self.parallelism,
            plan.now_ms,
            self.seed,
            self.case.query.trim(),
            millstream_sql::explain(&self.pipeline),
        )
    }
}

/// Which tables an epoch reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Those that are looked up.
    Sides,
    /// Those of them to which files are added.
    Growing,
    /// All others.
    Others,
}

impl Turn {
    fn reads(self, source: &SourceNode) -> bool {
        match source.side {
            Some(SideTable::Whole) => self == Self::Sides,
            Some(SideTable::Refreshed) => self != Self::Others,
            None => self == Self::Others,
        }
    }
}

/// What each epoch reads, as the planner of epochs has it: tables that are looked up first, and in epochs of their own.
fn turns(pipeline: &Pipeline, epochs: usize, draws: &mut Draws) -> Vec<Turn> {
    let has = |side: SideTable| pipeline.graph.sources().any(|(_, s)| s.side == Some(side));
    let mut turns = Vec::new();
    if has(SideTable::Whole) || has(SideTable::Refreshed) {
        turns.extend((0..1 + draws.below(2)).map(|_| Turn::Sides));
    }
    for _ in 0..epochs {
        if has(SideTable::Refreshed) && draws.chance(1, 2) {
            turns.push(Turn::Growing);
        }
        turns.push(Turn::Others);
    }
    turns
}

/// The rows of a batch result without its hidden columns, as the sink's types if there is one.
fn visible(result: &RecordBatch, sink: Option<&SchemaRef>) -> (SchemaRef, Multiset) {
    let fields = result.schema();
    let shown: Vec<usize> = (0..fields.fields().len()).filter(|i| !fields.field(*i).name().starts_with("__")).collect();
    let result = result.project(&shown).unwrap();
    let sink = sink.cloned().unwrap_or_else(|| result.schema());
    assert_eq!(result.num_columns(), sink.fields().len(), "columns of the batch result");
    let columns = result.columns().iter().zip(sink.fields()).map(|(c, f)| cast(c, f.data_type()).unwrap());
    let columns: Vec<ArrayRef> = columns.collect();
    let fields: Vec<Field> = sink.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let rows = texts(&RecordBatch::try_new(schema.clone(), columns).unwrap());
    (schema, counted(rows.into_iter().map(|row| (row, 1))))
}

fn counted(rows: impl Iterator<Item = (Vec<String>, i64)>) -> Multiset {
    let mut counts = Multiset::new();
    rows.for_each(|(row, weight)| *counts.entry(row).or_default() += weight);
    counts.retain(|_, count| *count != 0);
    counts
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

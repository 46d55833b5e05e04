//! One way to run a case: its input cut into epochs, restores in between, and what its sink holds after each.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use millstream_dataflow::DeltaBatch;
use millstream_dataflow::graph::{NodeKind, SideTable, SourceNode};
use millstream_dataflow::times::to_millis;
use millstream_plan::{Epoch, EpochPlan, OperatorId, SourcePlan, Watermark};
use millstream_sql::Pipeline;

use crate::difference::{Multiset, difference, texts};
use crate::draws::Draws;
use crate::feed::Feed;
use crate::harness::{Case, Judge, NOW_MS, Table, Until};
use crate::run::Run;

/// Inputs with more events are not printed.
const SHOWN_EVENTS: usize = 60;

/// By epoch, rows with their weights.
pub type Outputs = Vec<Vec<(Vec<String>, i64)>>;

/// One way to run a case.
pub struct Trial<'a> {
    case: &'a Case,
    judge: &'a Judge,
    seed: u64,
    parallelism: u16,
    pub pipeline: Pipeline,
    pub sink: SchemaRef,
    feeds: BTreeMap<OperatorId, Feed>,
    /// By table name, for tables that the query does not read: empty.
    plans: Vec<EpochPlan>,
    /// After which epochs all tasks are dropped and restored.
    restores: Vec<bool>,
}

/// Which of the two could not do its work.
pub enum Wrong {
    Judge(String),
    Stream(String),
}

impl<'a> Trial<'a> {
    pub fn new(case: &'a Case, judge: &'a Judge, seed: u64, parallelism: u16, pipeline: Pipeline) -> Self {
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
        Self { case, judge, seed, parallelism, pipeline, sink, feeds, plans, restores }
    }

    pub fn run(&self) -> Result<(), Wrong> {
        let mut found = Multiset::new();
        for (epoch, rows) in self.output().map_err(Wrong::Stream)?.into_iter().enumerate() {
            self.check_weights(epoch, &rows).map_err(Wrong::Stream)?;
            for (row, weight) in rows {
                *found.entry(row).or_default() += weight;
            }
            found.retain(|_, count| *count != 0);
            let in_the_end = match self.case.until {
                Until::TheEnd => true,
                Until::Settled => self.waits_in_order(),
                _ => false,
            };
            if in_the_end && !self.plans[epoch].last {
                continue;
            }
            let expected = self.expected(epoch).map_err(Wrong::Judge)?;
            if let Some(what) = difference(&self.sink, &expected, &found) {
                return Err(Wrong::Stream(self.failure(epoch, &what)));
            }
        }
        Ok(())
    }

    /// Some rows leave when the watermark has passed them, although they belong to no window.
    fn waits_in_order(&self) -> bool {
        self.pipeline.graph.nodes.iter().any(|n| matches!(&n.kind, NodeKind::Over(over) if over.close.is_some()))
    }

    pub fn check_weights(&self, epoch: usize, rows: &[(Vec<String>, i64)]) -> Result<(), String> {
        let append_only = self.pipeline.graph.sinks().next().unwrap().0.output.append_only;
        match rows.iter().find(|(_, weight)| append_only && *weight != 1) {
            Some((row, weight)) => {
                let what = format!("weight {weight} on an append-only edge: {}", row.join(" | "));
                Err(self.failure(epoch, &what))
            }
            None => Ok(()),
        }
    }

    /// By epoch, the rows that reach the sink, with their weights; restores make no difference.
    pub fn output(&self) -> Result<Outputs, String> {
        let (restored, _) = self.outputs(true)?;
        // After a checkpoint an operator behaves as one that was restored from it: to the order of its rows.
        if self.restores.contains(&true) {
            let (plain, _) = self.outputs(false)?;
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

    fn outputs(&self, restore: bool) -> Result<(Outputs, Run), String> {
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
        Ok((outputs, run))
    }

    /// The state after all of the input but the end of its time, sealed once: rows of all tasks, each with its operator. `split`: every
    /// epoch in two.
    pub fn state(mut self, split: bool) -> Result<Vec<String>, String> {
        if split {
            let mut draws = Draws::new(self.seed);
            self.feeds.values_mut().for_each(|feed| feed.split(&mut draws));
            self.plans = self.plans.iter().flat_map(|plan| [plan.clone(), plan.clone()]).collect();
        }
        let sources: BTreeMap<_, _> = self.pipeline.graph.sources().map(|(n, s)| (s.source, n.id)).collect();
        let count = self.plans.len();
        for (at, plan) in self.plans.iter_mut().enumerate() {
            (plan.epoch, plan.last) = (Epoch(at as u64 + 1), false);
            (plan.checkpoint, plan.flush) = (at + 1 == count, at + 1 == count);
            for source in &mut plan.sources {
                source.watermark = Watermark(self.feeds[&sources[&source.source]].watermarks[at]);
            }
        }
        let (_, run) = self.outputs(false)?;
        let mut rows = Vec::new();
        for ((operator, key), value) in run.sealed() {
            match rows_of(&value) {
                Some(found) => rows.extend(found.into_iter().map(|row| format!("{operator}: {}", row.join(" | ")))),
                // After the watermark stands the number of the next entry, which counts epochs.
                None if key == b"closed" => rows.push(format!("{operator}: closed {:02x?}", &value[..8])),
                None => rows.push(format!("{operator}: {key:02x?} {value:02x?}")),
            }
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// What must be there after an epoch.
    fn expected(&self, epoch: usize) -> Result<Multiset, String> {
        let now = |e: &usize| self.plans[*e].now_ms;
        let plan = &self.plans[epoch];
        let source = |t: &Table| self.pipeline.graph.sources().find(|(_, s)| s.table == t.name);
        let tables = self.case.tables.iter().map(|t| {
            let feed = source(t).map(|(n, _)| &self.feeds[&n.id]);
            let (rows, came) =
                feed.map_or_else(|| (t.rows.clone(), vec![0; t.rows.num_rows()]), |f| f.table_after(epoch));
            (t.name.as_str(), self.case.now_column(&rows, &came.iter().map(now).collect::<Vec<_>>()))
        });
        let of = |t: &Table| source(t).filter(|(_, s)| s.watermark.is_some()).map(|(_, s)| plan.watermark(s.source).0);
        let watermarks: Vec<Option<i64>> = self.case.tables.iter().map(of).collect();
        let filled: Vec<i64> = watermarks.iter().map(|w| w.unwrap_or(i64::MAX)).collect();
        let mut result = self.judge.ask(tables, &filled)?;
        let lowest = watermarks.into_iter().flatten().min().unwrap_or(i64::MIN);
        let (column, watermark) = match &self.case.until {
            Until::Now | Until::TheEnd | Until::Settled => (None, i64::MAX),
            Until::ClosedByNow(column) => (Some(column), if plan.last { i64::MAX } else { plan.now_ms }),
            Until::Closed(column) => (Some(column), lowest),
            Until::Passed(column) => (Some(column), if plan.last { lowest } else { lowest.saturating_sub(1) }),
        };
        if let Some(column) = column {
            let ends =
                result.column_by_name(column).unwrap_or_else(|| panic!("the batch result has no column '{column}'"));
            let ends = to_millis(ends).unwrap();
            let closed: BooleanArray = ends.iter().map(|end| Some(end.is_none_or(|end| end <= watermark))).collect();
            result = filter_record_batch(&result, &closed).unwrap();
        }
        Ok(visible(&result, Some(&self.sink)).1)
    }

    fn failure(&self, epoch: usize, what: &str) -> String {
        let plan = &self.plans[epoch];
        let watermarks: Vec<String> = plan.sources.iter().map(|s| s.watermark.to_string()).collect();
        let restores: Vec<usize> = (0..epoch).filter(|e| self.restores[*e]).map(|e| e + 1).collect();
        format!(
            "epoch {} of {}, {} tasks per stage, watermarks {watermarks:?}, now {}, restored after {restores:?}, seed {}\n{}\n{what}\n{}{}",
            epoch + 1,
            self.plans.len(),
            self.parallelism,
            plan.now_ms,
            self.seed,
            self.case.query.trim(),
            millstream_sql::explain(&self.pipeline),
            self.script(),
        )
    }

    /// The input, if it is short: enough to write the case down.
    fn script(&self) -> String {
        let events = |feed: &Feed| feed.epochs.iter().map(Vec::len).sum::<usize>();
        if self.feeds.values().map(events).sum::<usize>() > SHOWN_EVENTS {
            return String::new();
        }
        let mut text = String::new();
        for (node, source) in self.pipeline.graph.sources() {
            let (feed, table) = (&self.feeds[&node.id], self.case.tables.iter().find(|t| t.name == source.table));
            let rows = texts(&table.unwrap().rows);
            for (epoch, events) in feed.epochs.iter().enumerate() {
                let _ = write!(text, "{} in epoch {}, watermark {}:", source.table, epoch + 1, feed.watermarks[epoch]);
                for event in events {
                    let _ = write!(text, " {:+} ({})", event.weight, rows[event.row as usize].join(", "));
                }
                text.push('\n');
            }
        }
        text
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

/// The rows of a state entry that holds some, perhaps after a byte.
fn rows_of(value: &[u8]) -> Option<Vec<Vec<String>>> {
    let stream = [0, 1].into_iter().filter_map(|from| value.get(from..)).find(|s| s.starts_with(&[0xff; 4]))?;
    let batches = StreamReader::try_new(stream, None).ok()?;
    Some(batches.flat_map(|batch| texts(&batch.unwrap())).collect())
}

/// The rows of a batch result without its hidden columns, as the sink's types if there is one.
pub fn visible(result: &RecordBatch, sink: Option<&SchemaRef>) -> (SchemaRef, Multiset) {
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

pub fn counted(rows: impl Iterator<Item = (Vec<String>, i64)>) -> Multiset {
    let mut counts = Multiset::new();
    rows.for_each(|(row, weight)| *counts.entry(row).or_default() += weight);
    counts.retain(|_, count| *count != 0);
    counts
}

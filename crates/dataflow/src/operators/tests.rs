//! Windowed aggregation: literals in, literals out; and the same rows however they are cut into epochs, restored or not.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::{average::avg_udaf, count::count_udaf, min_max::max_udaf, sum::sum_udaf};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{cast, col};
use millstream_plan::{Epoch, EpochPlan, OperatorId, SourceId, SourcePlan, StageId, Watermark};

use super::*;
use crate::graph::{AggregateCall, EdgeType, NamedExpr, WindowAggregate};

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]))
}

fn batch(rows: &[(i64, i64, i64)]) -> DeltaBatch {
    let column = |f: fn(&(i64, i64, i64)) -> i64| rows.iter().map(f).collect::<Vec<_>>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(column(|r| r.0))),
        Arc::new(Int64Array::from(column(|r| r.1))),
        Arc::new(TimestampMillisecondArray::from(column(|r| r.2))),
    ];
    DeltaBatch::appended(RecordBatch::try_new(input_schema(), columns).unwrap())
}

fn spec(kind: WindowKind) -> Arc<WindowAggregate> {
    let schema = input_schema();
    let value = col("v", &schema).unwrap();
    let float = cast(value.clone(), &schema, DataType::Float64).unwrap();
    let call = |udaf, name: &str, distinct: bool| AggregateCall {
        function: Arc::new(
            AggregateExprBuilder::new(udaf, vec![if name == "a" { float.clone() } else { value.clone() }])
                .schema(schema.clone())
                .alias(name)
                .with_distinct(distinct)
                .build()
                .unwrap(),
        ),
        filter: None,
    };
    let aggregates = vec![
        call(count_udaf(), "n", false),
        call(sum_udaf(), "s", false),
        call(max_udaf(), "m", false),
        call(count_udaf(), "d", true),
        call(avg_udaf(), "a", false),
    ];
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let mut fields = vec![Field::new("k", DataType::Int64, true)];
    fields.extend(["window_start", "window_end", "window_time"].map(|n| Field::new(n, time.clone(), false)));
    fields.extend(aggregates.iter().map(|a| a.function.field().as_ref().clone()));
    Arc::new(WindowAggregate {
        window: WindowOf::Time { kind, time: col("t", &schema).unwrap() },
        domain: TimeDomain::Event(vec![SourceId(0)]),
        keys: vec![NamedExpr { name: "k".to_owned(), expr: col("k", &schema).unwrap() }],
        aggregates,
        output: Arc::new(Schema::new(fields)),
        early: None,
    })
}

fn plan(epoch: u64, watermark: i64) -> EpochPlan {
    EpochPlan {
        epoch: Epoch(epoch),
        now_ms: 0,
        sources: vec![SourcePlan { source: SourceId(0), watermark: Watermark(watermark), ranges: Vec::new() }],
        checkpoint: false,
        flush: false,
        last: false,
    }
}

fn node(kind: NodeKind) -> Node {
    let output = EdgeType { schema: input_schema(), append_only: true, key: None, time: Vec::new() };
    Node { id: OperatorId(1), stage: StageId(0), kind, inputs: Vec::new(), output }
}

/// Both halves of an aggregation and the store of their sealed state.
struct Pair {
    spec: Arc<WindowAggregate>,
    partial: Box<dyn Operator>,
    last: Box<dyn Operator>,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pair {
    fn new(kind: WindowKind) -> Self {
        let spec = spec(kind);
        let make = |kind| operator(&node(kind)).unwrap().unwrap();
        Self {
            partial: make(NodeKind::PartialWindowAggregate(spec.clone())),
            last: make(NodeKind::WindowAggregate(spec.clone())),
            spec,
            store: BTreeMap::new(),
        }
    }

    fn checkpoint(&mut self) {
        for change in self.last.seal().unwrap() {
            match change.value {
                Some(value) => self.store.insert(change.key, value),
                None => self.store.remove(&change.key),
            };
        }
    }

    fn restore(&mut self) {
        self.last = operator(&node(NodeKind::WindowAggregate(self.spec.clone()))).unwrap().unwrap();
        for (key, value) in &self.store {
            self.last.restore(key, value).unwrap();
        }
    }

    /// One epoch; rows as (k, start, end, n, sum, max, distinct).
    fn epoch(&mut self, plan: &EpochPlan, batches: &[DeltaBatch]) -> Vec<[i64; 7]> {
        let cx = EpochContext { plan };
        let (mut middle, mut out) = (Vec::new(), Vec::new());
        for batch in batches {
            self.partial.process(0, batch.clone(), &cx, &mut middle).unwrap();
        }
        self.partial.end_epoch(&cx, &mut middle).unwrap();
        for batch in middle {
            self.last.process(0, batch, &cx, &mut out).unwrap();
        }
        let mut step = self.last.end_epoch(&cx, &mut out).unwrap();
        while step == Step::More {
            step = self.last.resume(&cx, &mut out).unwrap();
        }
        out.iter().flat_map(|b| rows_of(&b.rows)).collect()
    }
}

fn rows_of(rows: &RecordBatch) -> Vec<[i64; 7]> {
    let int = |c: usize, r: usize| rows.column(c).as_primitive::<Int64Type>().value(r);
    let time = |c: usize, r: usize| rows.column(c).as_primitive::<TimestampMillisecondType>().value(r);
    (0..rows.num_rows())
        .map(|r| [int(0, r), time(1, r), time(2, r), int(4, r), int(5, r), int(6, r), int(7, r)])
        .collect()
}

#[test]
fn a_tumbling_window_is_emitted_once_when_it_closes() {
    let mut pair = Pair::new(WindowKind::Tumble { size: 10, offset: 0 });
    assert_eq!(pair.epoch(&plan(1, i64::MIN), &[batch(&[(1, 5, 0), (2, 7, 3), (1, 5, 9), (1, 1, 10)])]), [[0; 7]; 0]);
    assert_eq!(pair.last.report().next_timer, Some(10));
    assert_eq!(pair.epoch(&plan(2, 10), &[batch(&[(1, 9, 12)])]), [[1, 0, 10, 2, 10, 5, 1], [2, 0, 10, 1, 7, 7, 1]]);
    assert_eq!(pair.epoch(&plan(3, i64::MAX), &[]), [[1, 10, 20, 2, 10, 9, 2]]);
    assert_eq!(pair.last.report().keys, 0);
}

#[test]
fn a_table_of_two_key_columns_forgets_the_groups_that_left() {
    let one = spec(WindowKind::Tumble { size: 10, offset: 0 });
    let mut two = one.as_ref().clone();
    two.keys.push(NamedExpr { name: "v".to_owned(), expr: col("v", &input_schema()).unwrap() });
    let mut fields: Vec<_> = one.output.fields().iter().cloned().collect();
    fields.insert(1, Arc::new(Field::new("v", DataType::Int64, true)));
    two.output = Arc::new(Schema::new(fields));
    let aggregation = groups::Aggregation::new(&Arc::new(two)).unwrap();
    let mut table = groups::GroupTable::new(&aggregation).unwrap();
    for rows in [[(1, 5, 0), (2, 7, 0), (3, 9, 0)], [(3, 9, 0), (1, 5, 0), (3, 9, 0)]] {
        table.update(&aggregation.arguments(&batch(&rows).rows).unwrap()).unwrap();
        let mut keys: Vec<(i64, i64)> = rows.iter().map(|r| (r.0, r.1)).collect();
        if keys[2] == keys[0] {
            keys.pop();
        }
        let taken = table.take_states().unwrap();
        let int = |c: usize| taken[c].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(int(0).into_iter().zip(int(1)).collect::<Vec<_>>(), keys);
    }
}

#[test]
fn a_session_ends_a_gap_after_its_last_row() {
    let mut pair = Pair::new(WindowKind::Session { gap: 10 });
    // 0 and 9 are one session, 20 is more than a gap later: another one. A later row joins two sessions.
    assert!(pair.epoch(&plan(1, i64::MIN), &[batch(&[(1, 1, 0), (1, 2, 9), (2, 5, 4)])]).is_empty());
    assert!(pair.epoch(&plan(2, 0), &[batch(&[(1, 4, 20), (1, 8, 40), (1, 16, 30)])]).is_empty());
    assert_eq!(pair.last.report().next_timer, Some(15));
    assert_eq!(
        pair.epoch(&plan(3, 19), &[]),
        [[2, 4, 14, 1, 5, 5, 1]],
        "a row at 19 would still join the session of key 1"
    );
    // Exactly a gap apart, in one epoch and across epochs.
    assert!(pair.epoch(&plan(4, 19), &[batch(&[(3, 1, 50)])]).is_empty());
    assert_eq!(pair.epoch(&plan(5, 20), &[batch(&[(3, 2, 60), (3, 4, 70)])]), [[1, 0, 19, 2, 3, 2, 2]]);
    assert_eq!(pair.epoch(&plan(6, i64::MAX), &[]), [[1, 20, 50, 3, 28, 16, 3], [3, 50, 80, 3, 7, 4, 3]]);
    assert_eq!(pair.last.report().keys, 0);
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// By definition, from all rows at once: an independent oracle of a few lines.
fn expected(kind: WindowKind, rows: &[(i64, i64, i64)]) -> Vec<[i64; 7]> {
    let mut groups: BTreeMap<(i64, i64, i64), Vec<i64>> = BTreeMap::new();
    if let WindowKind::Session { gap } = kind {
        let mut by_key: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
        rows.iter().for_each(|(k, v, t)| by_key.entry(*k).or_default().push((*t, *v)));
        for (key, mut list) in by_key {
            list.sort_unstable();
            let mut session: Vec<(i64, i64)> = Vec::new();
            for row in list.into_iter().chain([(i64::MAX / 2, 0)]) {
                if session.last().is_some_and(|l| row.0 - l.0 > gap) {
                    let (first, last) = (session[0].0, session[session.len() - 1].0);
                    groups.insert((key, first, last + gap), session.drain(..).map(|r| r.1).collect());
                }
                session.push(row);
            }
        }
    } else {
        let panes = crate::windows::Panes::of(kind).unwrap();
        for (k, v, t) in rows {
            for w in panes.windows_of(panes.pane_of(*t)) {
                groups.entry((*k, w.start, w.end)).or_default().push(*v);
            }
        }
    }
    let mut all: Vec<[i64; 7]> = groups
        .into_iter()
        .map(|((k, start, end), values)| {
            let distinct: std::collections::BTreeSet<i64> = values.iter().copied().collect();
            let max = values.iter().copied().max().unwrap();
            [k, start, end, values.len() as i64, values.iter().sum(), max, distinct.len() as i64]
        })
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn however_epochs_are_cut_and_restored_the_result_is_that_of_a_batch() {
    let kinds = [
        WindowKind::Tumble { size: 20, offset: 3 },
        WindowKind::Hop { size: 20, slide: 5, offset: 0 },
        WindowKind::Hop { size: 14, slide: 4, offset: 0 },
        WindowKind::Cumulate { size: 30, step: 10, offset: 0 },
        WindowKind::Session { gap: 7 },
        // Windows that share many panes.
        WindowKind::Hop { size: 80, slide: 4, offset: 1 },
        WindowKind::Hop { size: 300, slide: 2, offset: 0 },
        WindowKind::Cumulate { size: 60, step: 2, offset: 3 },
    ];
    for seed in 0..80u64 {
        let mut state = seed;
        let kind = kinds[seed as usize % kinds.len()];
        let count = 400;
        // Out of order by up to 15; the watermark follows 16 behind, so nothing is late.
        let rows: Vec<(i64, i64, i64)> = (0..count)
            .map(|i| {
                let t = i * 2 + (random(&mut state) % 16) as i64;
                ((random(&mut state) % 5) as i64, (random(&mut state) % 9) as i64, t)
            })
            .collect();
        // Plans: how many rows and which watermark each epoch has, and whether it takes a checkpoint.
        let mut plans = Vec::new();
        let (mut at, mut watermark) = (0usize, i64::MIN);
        while at < rows.len() {
            let to = (at + (random(&mut state) % 40) as usize).min(rows.len());
            let mut plan = plan(plans.len() as u64 + 1, watermark);
            plan.checkpoint = random(&mut state).is_multiple_of(3);
            plans.push((plan, at..to));
            at = to;
            if at > 0 {
                watermark = watermark.max(at as i64 * 2 - 16);
            }
        }
        plans.push((plan(plans.len() as u64 + 1, i64::MAX), 0..0));
        let run = |restores: bool| {
            let mut state = seed ^ 0xfeed;
            let mut pair = Pair::new(kind);
            let mut published: Vec<Vec<[i64; 7]>> = Vec::new();
            let mut checkpoint = 0;
            let mut n = 0;
            while n < plans.len() {
                let (plan, range) = &plans[n];
                let cut = range.start + (range.len() / 2);
                let batches = [batch(&rows[range.start..cut]), batch(&rows[cut..range.end])];
                let out = pair.epoch(plan, &batches);
                if n < published.len() {
                    assert_eq!(out, published[n], "replay of epoch {} differs, seed {seed}", plan.epoch);
                } else {
                    published.push(out);
                }
                n += 1;
                if plan.checkpoint {
                    pair.checkpoint();
                    checkpoint = n;
                }
                if restores && n == published.len() && random(&mut state).is_multiple_of(4) {
                    pair.restore();
                    n = checkpoint;
                }
            }
            (published, pair.store)
        };
        let (straight, store) = run(false);
        let (restored, restored_store) = run(true);
        assert_eq!(straight, restored, "seed {seed} {kind:?}");
        assert!(store == restored_store, "the state differs, seed {seed} {kind:?}");
        let mut all: Vec<[i64; 7]> = straight.concat();
        all.sort_unstable();
        assert_eq!(all, expected(kind, &rows), "seed {seed} {kind:?}");
    }
}

//! Frames that close: literals in, literals out.
use arrow::array::{Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::{stddev::stddev_udaf, sum::sum_udaf};
use datafusion::functions_window::lead_lag::lag_udwf;
use datafusion::logical_expr::{WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{cast, col};
use datafusion::physical_plan::windows::create_window_expr;
use millstream_plan::{SourceId, StageId};

use super::*;
use crate::graph::{AggregateCall, EdgeType, Node, NodeKind, Ordered, OverCall, SortColumn};
use crate::operators::ordered::testing::{Fed, random};

/// (k, ts, v)
type Row = (i64, Option<i64>, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn batch(rows: &[Row]) -> DeltaBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.1).collect::<TimestampMillisecondArray>()),
        Arc::new(rows.iter().map(|r| Some(r.2)).collect::<Int64Array>()),
    ];
    DeltaBatch::appended(RecordBatch::try_new(schema(), columns).unwrap())
}

fn frame(start: Option<u64>) -> Arc<WindowFrame> {
    let start = WindowFrameBound::Preceding(ScalarValue::UInt64(start));
    Arc::new(WindowFrame::new_bounds(WindowFrameUnits::Rows, start, WindowFrameBound::CurrentRow))
}

/// sum(v), or the deviation of v.
fn aggregate(deviation: bool, frame: Arc<WindowFrame>, memory: Memory) -> (OverCall, DataType) {
    let value = col("v", &schema()).unwrap();
    let (function, value, result) = match deviation {
        true => (stddev_udaf(), cast(value, &schema(), DataType::Float64).unwrap(), DataType::Float64),
        false => (sum_udaf(), value, DataType::Int64),
    };
    let built = AggregateExprBuilder::new(function, vec![value]).schema(schema()).alias("x").build().unwrap();
    let call = AggregateCall { function: Arc::new(built), filter: None };
    let function = OverFunction::Aggregate { call, frame };
    (OverCall { function, reach: None, memory: Some(memory), text: String::new() }, result)
}

fn lag() -> (OverCall, DataType) {
    let function = WindowFunctionDefinition::WindowUDF(lag_udwf());
    let (args, frame) = ([col("v", &schema()).unwrap()], frame(None));
    let expr = create_window_expr(&function, "lag".to_owned(), &args, &[], &[], frame, schema(), false, false, None);
    let function = OverFunction::Window(expr.unwrap());
    (OverCall { function, reach: None, memory: Some(Memory::Last(1)), text: String::new() }, DataType::Int64)
}

fn rank(function: RankFunction) -> (OverCall, DataType) {
    let (mut call, _) = lag();
    call.memory = Some(Memory::Rank(function));
    (call, DataType::UInt64)
}

fn closing(calls: Vec<(OverCall, DataType)>) -> Fed {
    let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.extend(calls.iter().map(|(_, t)| Field::new("x", t.clone(), true)));
    let order = vec![SortColumn { column: 1, descending: false, nulls_first: false }];
    let rows = Ordered { input: schema(), partition: vec![0], order, append_only: true, close: None };
    let calls = calls.into_iter().map(|(call, _)| call).collect();
    let kind = NodeKind::Over(Arc::new(Over { rows, calls, close: Some(TimeDomain::Event(vec![SourceId(0)])) }));
    let output = EdgeType { schema: Arc::new(Schema::new(fields)), append_only: true, key: None, time: Vec::new() };
    Fed::of(Node { id: OperatorId(1), stage: StageId(0), kind, inputs: Vec::new(), output })
}

fn at(ms: i64) -> String {
    format!("1970-01-01T00:00:00.{ms:03}")
}

#[test]
fn rows_are_emitted_when_the_watermark_has_passed_them() {
    let mut fed = closing(vec![aggregate(false, frame(Some(1)), Memory::Last(1)), lag()]);
    let rows = [(1, Some(30), 3), (1, Some(10), 1), (1, None, 9), (1, Some(20), 2)];
    assert!(fed.try_epoch(&[batch(&rows)], 10).unwrap().is_empty());
    assert_eq!(fed.timer(), Some(11));
    // The row at the watermark may still get company.
    let first = format!("+1: 1 {} 1 1 -", at(10));
    assert_eq!(fed.try_epoch(&[batch(&[(1, Some(20), 5)])], 20).unwrap(), [first]);
    fed.seal();
    fed.restore();
    assert_eq!(fed.timer(), Some(21));
    let then =
        [format!("+1: 1 {} 2 3 1", at(20)), format!("+1: 1 {} 5 7 2", at(20)), format!("+1: 1 {} 3 8 5", at(30))];
    assert_eq!(fed.try_epoch(&[], 31).unwrap(), then);
    assert_eq!(fed.timer(), None);
    // A row without a time comes when the input has ended.
    assert_eq!(fed.try_epoch(&[], i64::MAX).unwrap(), ["+1: 1 - 9 12 3"]);
    let late = closing(vec![lag()]).try_epoch(&[batch(&rows)], 50).is_ok();
    assert!(late, "rows of an epoch are not late in it");
}

#[test]
fn a_row_that_was_passed_cannot_come() {
    let mut fed = closing(vec![lag()]);
    fed.try_epoch(&[], 50).unwrap();
    let error = fed.try_epoch(&[batch(&[(1, Some(49), 3)])], 60).unwrap_err().to_string();
    assert!(
        error.contains("operator 1: a row comes after the watermark 50 has passed it: (1, 1970-01-01T00:00:00.049, 3)"),
        "{error}"
    );
}

#[test]
fn sums_outlive_their_rows() {
    let calls = || {
        vec![aggregate(false, frame(None), Memory::Sum), rank(RankFunction::RowNumber), rank(RankFunction::DenseRank)]
    };
    let mut fed = closing(calls());
    let out = fed.try_epoch(&[batch(&[(1, Some(1), 5), (1, Some(1), 6), (2, Some(3), 1)])], 10).unwrap();
    let rows = [(1, 1, "5 5 1 1"), (1, 1, "6 11 2 1"), (2, 3, "1 1 1 1")];
    assert_eq!(out, rows.map(|(k, ts, rest)| format!("+1: {k} {} {rest}", at(ts))));
    fed.seal();
    // Two sums and the watermark: no row is kept.
    assert_eq!(fed.store.keys().map(|k| k[0]).collect::<Vec<_>>(), b"aaw");
    fed.restore();
    let out = fed.try_epoch(&[batch(&[(1, Some(11), 4)])], 20).unwrap();
    assert_eq!(out, [format!("+1: 1 {} 4 15 3 2", at(11))]);
}

#[test]
fn equals_plain_loops_however_time_goes_on() {
    for seed in 0..60 {
        let run = |restores: bool| {
            let mut state = seed;
            let calls = vec![
                aggregate(false, frame(Some(2)), Memory::Last(2)),
                aggregate(false, frame(None), Memory::Sum),
                aggregate(true, frame(None), Memory::Sum),
                lag(),
                rank(RankFunction::Rank),
            ];
            let mut fed = closing(calls);
            let (mut all, mut outs, mut watermark) = (Vec::<Row>::new(), Vec::new(), 0);
            for epoch in 0..10 {
                let rows: Vec<Row> = (0..random(&mut state) % 12)
                    .map(|_| {
                        let draw = random(&mut state);
                        let ts = watermark + (draw >> 8) as i64 % 20;
                        ((draw % 2) as i64, (!draw.is_multiple_of(9)).then_some(ts), (draw >> 40) as i64 % 5)
                    })
                    .collect();
                all.extend(&rows);
                let next = if epoch == 9 { i64::MAX } else { watermark + (random(&mut state) % 15) as i64 };
                let out = fed.try_epoch(&[batch(&rows)], next).unwrap();
                // The deviation is compared between the runs.
                let bare = |line: &String| {
                    let parts: Vec<&str> = line.split(' ').collect();
                    [&parts[..6], &parts[7..]].concat().join(" ")
                };
                let mut sorted: Vec<String> = out.iter().map(bare).collect();
                sorted.sort();
                assert_eq!(sorted, expected(&all, watermark, next), "seed {seed}, epoch {epoch}");
                outs.push(out);
                if random(&mut state).is_multiple_of(2) {
                    fed.seal();
                    if restores {
                        fed.restore();
                    }
                }
                watermark = next;
            }
            fed.seal();
            (outs, fed.store)
        };
        assert_eq!(run(false), run(true), "seed {seed}");
    }
}

/// Rows that are passed between the two watermarks.
fn expected(all: &[Row], from: i64, to: i64) -> Vec<String> {
    let mut rows = all.to_vec();
    rows.sort_by_key(|r| (r.0, r.1.unwrap_or(i64::MAX), r.2));
    let mut lines = Vec::new();
    for part in rows.chunk_by(|a, b| a.0 == b.0) {
        for (i, (k, ts, v)) in part.iter().enumerate() {
            let passes = ts.map_or(i64::MAX, |ts| ts + 1);
            if passes <= from || passes > to {
                continue;
            }
            let near: i64 = part[i.saturating_sub(2)..=i].iter().map(|r| r.2).sum();
            let sum: i64 = part[..=i].iter().map(|r| r.2).sum();
            let lag = i.checked_sub(1).map_or("-".to_owned(), |i| part[i].2.to_string());
            let rank = 1 + part.iter().filter(|r| r.1.unwrap_or(i64::MAX) < ts.unwrap_or(i64::MAX)).count();
            lines.push(format!("+1: {k} {} {v} {near} {sum} {lag} {rank}", ts.map_or("-".to_owned(), at_any)));
        }
    }
    lines.sort();
    lines
}

fn at_any(ms: i64) -> String {
    match ms % 1000 {
        0 => format!("1970-01-01T00:00:{:02}", ms / 1000),
        part => format!("1970-01-01T00:00:{:02}.{part:03}", ms / 1000),
    }
}

//! Functions over frames: literals in, literals out; and against plain loops, however rows are cut into epochs.
use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::{average::avg_udaf, sum::sum_udaf};
use datafusion::functions_window::{lead_lag::lag_udwf, row_number::row_number_udwf};
use datafusion::logical_expr::{WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{cast, col};
use datafusion::physical_plan::windows::create_window_expr;

use super::*;
use crate::graph::{AggregateCall, NodeKind, OverCall, OverFunction};
use crate::operators::ordered::testing::{Change, Fed, accepted, batch, compare, counted, ordered, schema, text};

/// `ROWS BETWEEN back PRECEDING AND ahead FOLLOWING`; `None`: UNBOUNDED.
fn rows(back: Option<u64>, ahead: u64) -> Arc<WindowFrame> {
    Arc::new(WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(back)),
        WindowFrameBound::Following(ScalarValue::UInt64(Some(ahead))),
    ))
}

/// sum(v) or, of floats, avg(v).
fn aggregate(float: bool, frame: Arc<WindowFrame>, reach: Option<(u64, u64)>) -> OverCall {
    let value = col("v", &schema()).unwrap();
    let (function, value) = match float {
        true => (avg_udaf(), cast(value, &schema(), DataType::Float64).unwrap()),
        false => (sum_udaf(), value),
    };
    let built = AggregateExprBuilder::new(function, vec![value]).schema(schema()).alias("x").build().unwrap();
    let call = AggregateCall { function: Arc::new(built), filter: None };
    OverCall { function: OverFunction::Aggregate { call, frame }, reach, memory: None, text: String::new() }
}

fn window(name: &str, reach: Option<(u64, u64)>) -> OverCall {
    let (function, args) = match name {
        "lag" => (lag_udwf(), vec![col("v", &schema()).unwrap()]),
        _ => (row_number_udwf(), Vec::new()),
    };
    let function = WindowFunctionDefinition::WindowUDF(function);
    let frame = Arc::new(WindowFrame::new(Some(false)));
    let expr = create_window_expr(&function, name.to_owned(), &args, &[], &[], frame, schema(), false, false, None);
    OverCall { function: OverFunction::Window(expr.unwrap()), reach, memory: None, text: String::new() }
}

fn over(calls: Vec<(OverCall, DataType)>, append_only: bool) -> Fed {
    let results: Vec<(&str, DataType)> = calls.iter().map(|(_, t)| ("x", t.clone())).collect();
    let calls = calls.into_iter().map(|(c, _)| c).collect();
    Fed::new(NodeKind::Over(Arc::new(Over { rows: ordered(false, append_only), calls, close: None })), &results)
}

const fn row(k: i64, v: i64, s: &'static str) -> Change {
    (Some(k), Some(v), Some(s), 1)
}

#[test]
fn only_what_a_change_reaches_is_emitted() {
    let make = || over(vec![(aggregate(false, rows(Some(1), 0), Some((1, 0))), DataType::Int64)], false);
    let mut sums = make();
    let first = [row(1, 10, "a"), row(1, 20, "a"), row(1, 30, "a"), row(2, 5, "a")];
    assert_eq!(sums.epoch(&first), ["+1: 1 10 a 10", "+1: 1 20 a 30", "+1: 1 30 a 50", "+1: 2 5 a 5"]);
    assert_eq!(sums.epoch(&[row(1, 15, "b")]), ["-1: 1 20 a 30", "+1: 1 15 b 25", "+1: 1 20 a 35"]);
    assert_eq!(sums.epoch(&[(Some(1), Some(10), Some("a"), -1)]), ["-1: 1 10 a 10", "-1: 1 15 b 25", "+1: 1 15 b 15"]);
    // Twice the same row: each has its own result.
    assert_eq!(sums.epoch(&[row(2, 5, "a"), row(2, 5, "a")]), ["+2: 2 5 a 10"]);
    assert_eq!(sums.epoch(&[(Some(2), Some(5), Some("a"), -2)]), ["-2: 2 5 a 10"]);
    // A sum that stays.
    assert_eq!(
        sums.epoch(&[(Some(1), None, None, 1), (None, None, None, 1)]),
        ["+1: 1 - - 30", "+1: - - - -"].map(|l| l.to_owned()).to_vec()
    );
}

#[test]
fn a_row_that_is_not_there_cannot_be_taken_away() {
    let mut numbers = over(vec![(window("row_number", None), DataType::UInt64)], false);
    let error = numbers.try_epoch(&[batch(&[(None, Some(5), Some("b"), -1)])], i64::MIN).unwrap_err();
    assert_eq!(error.to_string(), "operator 1: a row is taken away that is not there: (, 5, b)");
}

/// Floats that cancel only if they are added in one order: what is taken away must be what was emitted.
#[test]
fn results_of_floats_depend_on_their_frame_alone() {
    let schema = schema();
    let value = cast(col("v", &schema).unwrap(), &schema, DataType::Float64).unwrap();
    let tenth = datafusion::physical_expr::expressions::binary(
        value,
        datafusion::logical_expr::Operator::Divide,
        datafusion::physical_expr::expressions::lit(10.0),
        &schema,
    );
    let built = AggregateExprBuilder::new(sum_udaf(), vec![tenth.unwrap()]).schema(schema).alias("x").build().unwrap();
    let call = AggregateCall { function: Arc::new(built), filter: None };
    let function = OverFunction::Aggregate { call, frame: rows(Some(9), 2) };
    let make = || {
        let call = OverCall { function: function.clone(), reach: Some((9, 2)), memory: None, text: String::new() };
        over(vec![(call, DataType::Float64)], false)
    };
    let mut fed = make();
    let mut held = BTreeMap::new();
    for i in 0..200_i64 {
        let out = fed.epoch(&[row(1, (i * 7919) % 211, "a")]);
        crate::operators::ordered::testing::add_up(&mut held, &out);
        assert!(held.values().all(|w| *w > 0), "{held:?}");
    }
    let mut once = BTreeMap::new();
    let all: Vec<Change> = (0..200_i64).map(|i| row(1, (i * 7919) % 211, "a")).collect();
    crate::operators::ordered::testing::add_up(&mut once, &make().epoch(&all));
    assert_eq!(held, once);
}

type Results<'a> = &'a dyn Fn(&[Change], usize) -> String;

/// Rows with the results that `results` gives for each in its partition, which is in order: v ascending, nulls last, then s.
fn expected(epochs: &[Vec<Change>], results: Results<'_>) -> BTreeMap<String, i64> {
    let order = |a: &Change, b: &Change| -> Ordering { (a.1.is_none(), a.1, a.2).cmp(&(b.1.is_none(), b.1, b.2)) };
    let rows = accepted(epochs, order);
    let parts = rows.chunk_by(|a, b| a.0 == b.0);
    let lines = parts.flat_map(|part| {
        part.iter()
            .enumerate()
            .map(|(i, (k, v, s, _))| format!("{} {} {} {}", text(*k), text(*v), text(*s), results(part, i)))
    });
    counted(lines.collect::<Vec<_>>())
}

/// Values that are not null in the frame of row `i`.
fn frame(part: &[Change], i: usize, back: usize, ahead: usize) -> Vec<i64> {
    part[i.saturating_sub(back)..(i + ahead + 1).min(part.len())].iter().filter_map(|r| r.1).collect()
}

fn sum(values: &[i64]) -> String {
    text((!values.is_empty()).then(|| values.iter().sum::<i64>()))
}

#[test]
fn equals_plain_loops_after_every_epoch() {
    for seed in 0..60 {
        for append_only in [true, false] {
            let near = || {
                let calls = vec![
                    (aggregate(false, rows(Some(2), 0), Some((2, 0))), DataType::Int64),
                    (aggregate(true, rows(Some(1), 2), Some((1, 2))), DataType::Float64),
                    (window("lag", Some((1, 0))), DataType::Int64),
                ];
                over(calls, append_only)
            };
            compare(near, !append_only, seed, |epochs| {
                expected(epochs, &|part, i| {
                    let values = frame(part, i, 1, 2);
                    let mean = values.iter().map(|v| *v as f64).sum::<f64>() / values.len() as f64;
                    let mean = text((!values.is_empty()).then(|| format!("{mean:?}")));
                    let lag = text(i.checked_sub(1).and_then(|i| part[i].1));
                    format!("{} {mean} {lag}", sum(&frame(part, i, 2, 0)))
                })
            });
            let far = || {
                let calls = vec![
                    (window("row_number", None), DataType::UInt64),
                    (aggregate(false, rows(None, 1), None), DataType::Int64),
                ];
                over(calls, append_only)
            };
            compare(far, !append_only, seed, |epochs| {
                expected(epochs, &|part, i| format!("{} {}", i + 1, sum(&frame(part, i, i, 1))))
            });
        }
    }
}

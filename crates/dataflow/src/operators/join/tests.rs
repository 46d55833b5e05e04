//! Joins: literals in, literals out; and any sequence of changes against nested loops over weighted sets.
use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use millstream_plan::{Epoch, EpochPlan, SourceId, SourcePlan, Watermark};
use proptest::prelude::*;

mod lookup;

use super::*;
use crate::graph::{JoinInput, JoinKind, Retention, TimeDomain};
use crate::operators::BATCH_ROWS;

/// Key, value, time.
type Row = (Option<i64>, i64, i64);
/// An output row, as text, and its weight.
type Out = (String, i64);

const KINDS: [JoinKind; 6] =
    [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::Semi, JoinKind::Anti];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]))
}

fn output(kind: JoinKind) -> SchemaRef {
    let sides = if kind.is_filter() { 1 } else { 2 };
    Arc::new(Schema::new(
        (0..sides).flat_map(|_| schema().fields().iter().cloned().collect::<Vec<_>>()).collect::<Vec<_>>(),
    ))
}

/// left.v < right.v
fn smaller() -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(Arc::new(Column::new("v", 1)), Op::Lt, Arc::new(Column::new("v", 4))))
}

/// left.t <= right.t
fn earlier() -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(Arc::new(Column::new("t", 2)), Op::LtEq, Arc::new(Column::new("t", 5))))
}

fn spec(kind: JoinKind, append_only: [bool; 2]) -> Join {
    let input =
        |side: usize| JoinInput { schema: schema(), append_only: append_only[side], keys: vec![0], retention: None };
    Join { kind, inputs: [input(0), input(1)], null_equal: false, residual: None, bound: None, meets: Meets::All }
}

/// Right rows match left rows that are not later and at most 10 ms earlier.
fn bounded(kind: JoinKind) -> Join {
    let mut spec = spec(kind, [true, true]);
    let later = Arc::new(BinaryExpr::new(
        Arc::new(Column::new("t", 5)),
        Op::LtEq,
        Arc::new(BinaryExpr::new(
            Arc::new(Column::new("t", 2)),
            Op::Plus,
            datafusion::physical_expr::expressions::lit(datafusion::common::ScalarValue::IntervalMonthDayNano(Some(
                arrow::datatypes::IntervalMonthDayNano::new(0, 0, 10_000_000),
            ))),
        )),
    ));
    spec.residual = Some(Arc::new(BinaryExpr::new(earlier(), Op::And, later)));
    spec.bound = Some(TimeDomain::Event(vec![SourceId(0)]));
    spec.inputs[0].retention = Some(Retention { column: 2, hold_ms: 10 });
    spec.inputs[1].retention = Some(Retention { column: 2, hold_ms: 0 });
    spec
}

fn batch(rows: &[(Row, i64)], weighted: bool) -> DeltaBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|((k, ..), _)| *k).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|((_, v, _), _)| Some(*v)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|((.., t), _)| Some(*t)).collect::<TimestampMillisecondArray>()),
    ];
    let weights = weighted.then(|| rows.iter().map(|(_, w)| Some(*w)).collect());
    DeltaBatch { rows: RecordBatch::try_new(schema(), columns).unwrap(), weights }
}

fn texts(batch: &DeltaBatch) -> Vec<Out> {
    let text = |row: usize| {
        let column = |i: usize| -> Option<i64> {
            let array = batch.rows.column(i);
            if array.is_null(row) {
                return None;
            }
            Some(match i % 3 {
                2 => array.as_primitive::<TimestampMillisecondType>().value(row),
                _ => array.as_primitive::<Int64Type>().value(row),
            })
        };
        let show = |v: Option<i64>| v.map_or("-".to_owned(), |v| v.to_string());
        let sides: Vec<String> = (0..batch.rows.num_columns() / 3)
            .map(|s| [show(column(3 * s)), show(column(3 * s + 1)), show(column(3 * s + 2))].join(" "))
            .collect();
        sides.join(" | ")
    };
    (0..batch.num_rows()).map(|row| (text(row), batch.weights.as_ref().map_or(1, |w| w.value(row)))).collect()
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

/// A join and the store of its sealed state.
struct Fixture {
    spec: Arc<Join>,
    join: JoinOperator,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Fixture {
    fn new(spec: Join) -> Self {
        let spec = Arc::new(spec);
        let join = JoinOperator::new(OperatorId(3), &spec, output(spec.kind)).unwrap();
        Self { spec, join, store: BTreeMap::new() }
    }

    /// Batches of (side, rows with weights).
    fn try_epoch(&mut self, watermark: i64, input: &[(usize, Vec<(Row, i64)>)]) -> Result<Vec<Out>, DataflowError> {
        let plan = plan(1, watermark);
        let cx = EpochContext { plan: &plan };
        let mut out = Vec::new();
        for (side, rows) in input {
            let weighted = !self.spec.inputs[*side].append_only;
            let mut step = self.join.process(*side, batch(rows, weighted), &cx, &mut out)?;
            while step == Step::More {
                step = self.join.resume(&cx, &mut out)?;
            }
        }
        let mut step = self.join.end_epoch(&cx, &mut out)?;
        while step == Step::More {
            step = self.join.resume(&cx, &mut out)?;
        }
        assert!(out.iter().all(|b| b.num_rows() > 0 && b.num_rows() <= BATCH_ROWS));
        assert!(out.iter().all(|b| b.weights.is_none() == self.spec.append_only()));
        Ok(out.iter().flat_map(texts).collect())
    }

    fn epoch(&mut self, watermark: i64, input: &[(usize, Vec<(Row, i64)>)]) -> Vec<Out> {
        self.try_epoch(watermark, input).unwrap()
    }

    fn left(&mut self, rows: &[(Row, i64)]) -> Vec<Out> {
        self.epoch(0, &[(0, rows.to_vec())])
    }

    fn right(&mut self, rows: &[(Row, i64)]) -> Vec<Out> {
        self.epoch(0, &[(1, rows.to_vec())])
    }

    fn checkpoint(&mut self) -> Vec<StateChange> {
        let changes = self.join.seal().unwrap();
        assert!(changes.windows(2).all(|c| c[0].key < c[1].key), "sorted, each key once");
        for change in &changes {
            match &change.value {
                Some(value) => self.store.insert(change.key.clone(), value.clone()),
                None => self.store.remove(&change.key),
            };
        }
        changes
    }

    fn restore(&mut self) {
        let report = self.join.report();
        self.join = JoinOperator::new(OperatorId(3), &self.spec, output(self.spec.kind)).unwrap();
        for (key, value) in &self.store {
            self.join.restore(key, value).unwrap();
        }
        let restored = self.join.report();
        assert_eq!((restored.keys, restored.next_timer), (report.keys, report.next_timer));
    }

    /// Rows of both sides with their weights and counts.
    fn state(&self) -> Vec<Vec<(String, i64, i64)>> {
        let side = |side: &Side| {
            let ids: Vec<u64> = side.parts.iter().flat_map(|p| side.ids_of(p)).collect();
            let rows = RecordBatch::try_new(schema(), side.gather(&ids, &[0, 1, 2]).unwrap()).unwrap();
            let texts = texts(&DeltaBatch::appended(rows));
            let count = |id: u64| if side.traits.counts { side.count(id) } else { 0 };
            let mut rows: Vec<_> =
                ids.iter().zip(texts).map(|(id, (row, _))| (row, side.weight(*id), count(*id))).collect();
            rows.sort();
            rows
        };
        self.join.core.sides.iter().map(side).collect()
    }
}

fn r(k: i64, v: i64, t: i64) -> Row {
    (Some(k), v, t)
}

fn outs(rows: &[(&str, i64)]) -> Vec<Out> {
    rows.iter().map(|(row, weight)| ((*row).to_owned(), *weight)).collect()
}

#[test]
fn pairs_leave_when_their_later_row_comes() {
    let mut join = Fixture::new(spec(JoinKind::Inner, [true, true]));
    assert_eq!(join.left(&[(r(1, 10, 0), 1), (r(2, 20, 0), 1), ((None, 30, 0), 1)]), []);
    // Newest first; a null meets nothing; equal rows are rows of their own.
    assert_eq!(join.left(&[(r(1, 11, 0), 1), (r(1, 11, 0), 1)]), []);
    let out = join.right(&[(r(1, 5, 0), 1), ((None, 6, 0), 1), (r(3, 7, 0), 1)]);
    let pairs = [("1 11 0 | 1 5 0", 1), ("1 11 0 | 1 5 0", 1), ("1 10 0 | 1 5 0", 1)];
    assert_eq!(out, outs(&pairs));
    // Both in one epoch.
    let out = join.epoch(0, &[(1, vec![(r(9, 1, 0), 1)]), (0, vec![(r(9, 2, 0), 1), (r(3, 3, 0), 1)])]);
    assert_eq!(out, outs(&[("9 2 0 | 9 1 0", 1), ("3 3 0 | 3 7 0", 1)]));
    join.checkpoint();
    join.restore();
    assert_eq!(join.right(&[(r(2, 0, 0), 1)]), outs(&[("2 20 0 | 2 0 0", 1)]));
}

#[test]
fn a_left_join_takes_back_and_gives_again() {
    let mut join = Fixture::new(spec(JoinKind::Left, [false, false]));
    let out = join.left(&[(r(1, 10, 0), 1), ((None, 30, 0), 2), (r(2, 20, 0), 1)]);
    assert_eq!(out, outs(&[("1 10 0 | - - -", 1), ("2 20 0 | - - -", 1), ("- 30 0 | - - -", 2)]));
    // The first match, twice.
    assert_eq!(join.right(&[(r(1, 5, 0), 2)]), outs(&[("1 10 0 | - - -", -1), ("1 10 0 | 1 5 0", 2)]));
    // One of the two goes.
    assert_eq!(join.right(&[(r(1, 5, 0), -1)]), outs(&[("1 10 0 | 1 5 0", -1)]));
    join.checkpoint();
    join.restore();
    // An update of the right row, the old one last.
    let out = join.right(&[(r(1, 6, 0), 1), (r(1, 5, 0), -1)]);
    assert_eq!(out, outs(&[("1 10 0 | 1 5 0", -1), ("1 10 0 | 1 6 0", 1)]));
    // The last match goes while another left row comes.
    let out = join.epoch(0, &[(1, vec![(r(1, 6, 0), -1)]), (0, vec![(r(1, 11, 0), 1)])]);
    assert_eq!(out, outs(&[("1 10 0 | 1 6 0", -1), ("1 11 0 | - - -", 1), ("1 10 0 | - - -", 1)]));
    // What cancels within an epoch leaves nothing.
    assert_eq!(
        join.epoch(0, &[(1, vec![(r(2, 1, 0), 1), (r(2, 1, 0), -1)]), (0, vec![(r(8, 1, 0), -1), (r(8, 1, 0), 1)])]),
        []
    );
    assert_eq!(join.left(&[((None, 30, 0), -2)]), outs(&[("- 30 0 | - - -", -2)]));
}

#[test]
fn right_and_full_joins_pad_the_other_side() {
    let mut join = Fixture::new(spec(JoinKind::Right, [false, false]));
    assert_eq!(join.left(&[(r(1, 10, 0), 1)]), []);
    let out = join.right(&[(r(1, 5, 0), 1), (r(2, 6, 0), 1)]);
    assert_eq!(out, outs(&[("1 10 0 | 1 5 0", 1), ("- - - | 2 6 0", 1)]));
    assert_eq!(join.left(&[(r(1, 10, 0), -1)]), outs(&[("1 10 0 | 1 5 0", -1), ("- - - | 1 5 0", 1)]));
    let mut join = Fixture::new(spec(JoinKind::Full, [false, true]));
    let out = join.epoch(0, &[(0, vec![(r(1, 1, 0), 1)]), (1, vec![(r(2, 2, 0), 1), ((None, 3, 0), 1)])]);
    assert_eq!(out, outs(&[("1 1 0 | - - -", 1), ("- - - | 2 2 0", 1), ("- - - | - 3 0", 1)]));
    let out = join.left(&[(r(1, 1, 0), -1), (r(2, 1, 0), 1)]);
    assert_eq!(out, outs(&[("1 1 0 | - - -", -1), ("- - - | 2 2 0", -1), ("2 1 0 | 2 2 0", 1)]));
}

#[test]
fn semi_and_anti_joins_follow_whether_there_is_a_match() {
    for residual in [None, Some(smaller())] {
        let mut semi = Fixture::new(Join { residual: residual.clone(), ..spec(JoinKind::Semi, [false, false]) });
        let mut anti = Fixture::new(Join { residual, ..spec(JoinKind::Anti, [false, false]) });
        let rows = [(r(1, 1, 0), 2), (r(2, 1, 0), 1), ((None, 1, 0), 1)];
        assert_eq!(semi.left(&rows), []);
        assert_eq!(anti.left(&rows), outs(&[("1 1 0", 2), ("2 1 0", 1), ("- 1 0", 1)]));
        // The second match changes nothing, nor does the loss of one of two.
        for (weight, semi_out, anti_out) in
            [(1, vec![("1 1 0", 2)], vec![("1 1 0", -2)]), (1, vec![], vec![]), (-1, vec![], vec![])]
        {
            assert_eq!(semi.right(&[(r(1, 5, 0), weight)]), outs(&semi_out));
            assert_eq!(anti.right(&[(r(1, 5, 0), weight)]), outs(&anti_out));
            semi.checkpoint();
            semi.restore();
        }
        assert_eq!(semi.left(&[(r(1, 1, 0), -1)]), outs(&[("1 1 0", -1)]));
        assert_eq!(semi.right(&[(r(1, 5, 0), -1)]), outs(&[("1 1 0", -1)]));
        assert_eq!(anti.right(&[(r(1, 5, 0), -1)]), outs(&[("1 1 0", 2)]));
    }
}

#[test]
fn an_appended_semi_join_forgets_what_it_has_emitted() {
    for residual in [None, Some(smaller())] {
        let mut join = Fixture::new(Join { residual, ..spec(JoinKind::Semi, [true, true]) });
        assert_eq!(join.left(&[(r(1, 1, 0), 1), (r(1, 1, 0), 1), (r(2, 1, 0), 1), ((None, 1, 0), 1)]), []);
        assert_eq!(join.right(&[(r(1, 5, 0), 1), (r(1, 6, 0), 1)]), outs(&[("1 1 0", 1), ("1 1 0", 1)]));
        assert_eq!(join.left(&[(r(1, 2, 0), 1)]), outs(&[("1 2 0", 1)]));
        join.checkpoint();
        join.restore();
        assert_eq!(join.right(&[(r(1, 5, 0), 1)]), []);
        assert_eq!(join.right(&[(r(2, 5, 0), 1)]), outs(&[("2 1 0", 1)]));
        assert_eq!(join.join.core.sides[0].live, 0);
    }
}

#[test]
fn time_lets_rows_go_and_unmatched_ones_leave_once() {
    let mut join = Fixture::new(bounded(JoinKind::Left));
    // t 5 can meet right rows up to t 15.
    let first =
        join.epoch(0, &[(0, vec![(r(1, 1, 5), 1), (r(1, 2, 12), 1), ((None, 3, 12), 1)]), (1, vec![(r(1, 9, 13), 1)])]);
    assert_eq!(first, outs(&[("1 2 12 | 1 9 13", 1), ("1 1 5 | 1 9 13", 1)]));
    assert_eq!(join.epoch(1, &[(0, vec![(r(2, 4, 4), 1), (r(1, 5, 14), 1)])]), []);
    assert_eq!(join.join.report(), StateReport { next_timer: Some(15), ..join.join.report() });
    assert_eq!(join.epoch(14, &[]), []);
    join.checkpoint();
    join.restore();
    // The right row is of no use below 14, the left ones below 15 and 16: one leaves alone, one had a match.
    assert_eq!(join.join.report().keys, 5);
    assert_eq!(join.epoch(16, &[]), outs(&[("2 4 4 | - - -", 1)]));
    assert_eq!(join.join.report().keys, 3);
    join.checkpoint();
    join.restore();
    // In order of arrival; without a key too.
    assert_eq!(join.epoch(100, &[]), outs(&[("- 3 12 | - - -", 1), ("1 5 14 | - - -", 1)]));
    assert_eq!(join.join.report().keys, 0);
    assert_eq!(join.join.report().next_timer, None);
    join.checkpoint();
    assert_eq!(join.store.len(), 1, "only the watermark is stored");
    join.restore();
    assert_eq!(join.epoch(100, &[(0, vec![(r(1, 1, 100), 1)]), (1, vec![(r(1, 1, 101), 1)])]).len(), 1);
    let mut anti = Fixture::new(bounded(JoinKind::Anti));
    assert_eq!(anti.epoch(0, &[(0, vec![(r(1, 1, 5), 1), (r(1, 2, 30), 1)]), (1, vec![(r(1, 9, 6), 1)])]), []);
    anti.checkpoint();
    anti.restore();
    assert_eq!(anti.epoch(41, &[]), outs(&[("1 2 30", 1)]));
}

#[test]
fn a_retraction_of_an_absent_row_is_an_error() {
    let mut join = Fixture::new(spec(JoinKind::Inner, [true, false]));
    join.right(&[(r(1, 5, 0), 1)]);
    let error = join.try_epoch(0, &[(1, vec![(r(1, 5, 0), -2)])]).unwrap_err().to_string();
    assert!(
        error.contains("operator 3 (join): its right input takes back a row that is not there: k 1, v 5"),
        "{error}"
    );
}

#[test]
fn the_matches_of_one_row_leave_in_steps() {
    let many = 3 * BATCH_ROWS + 5;
    let rows: Vec<(Row, i64)> = (0..many as i64).map(|i| (r(7, i, 0), 1)).collect();
    for append_only in [true, false] {
        let mut join = Fixture::new(spec(JoinKind::Inner, [append_only; 2]));
        join.left(&rows);
        let plan = plan(2, 0);
        let cx = EpochContext { plan: &plan };
        let mut sizes = Vec::new();
        let mut out = Vec::new();
        let mut step = join.join.process(1, batch(&[(r(7, 1, 0), 1)], !append_only), &cx, &mut out).unwrap();
        if step == Step::Done {
            step = join.join.end_epoch(&cx, &mut out).unwrap();
        }
        loop {
            assert!(out.len() <= 1);
            sizes.extend(out.drain(..).map(|b| b.num_rows()));
            if step == Step::Done {
                break;
            }
            step = join.join.resume(&cx, &mut out).unwrap();
        }
        assert_eq!(sizes, [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 5]);
    }
}

#[test]
fn a_hot_key_costs_what_it_emits() {
    // One row of a key of many comes and goes: neither search nor chain may be as long as the key.
    let mut join = Fixture::new(spec(JoinKind::Semi, [false, false]));
    let rows: Vec<(Row, i64)> = (0..50_000).map(|i| (r(7, i, 0), 1)).collect();
    join.right(&rows);
    join.left(&[(r(7, 0, 0), 1)]);
    let started = std::time::Instant::now();
    for i in 0..5_000 {
        assert_eq!(join.right(&[(r(7, i, 0), -1), (r(7, 100_000 + i, 0), 1)]), []);
        assert_eq!(join.left(&[(r(7, i, 0), -1), (r(7, i + 1, 0), 1)]).len(), 2);
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_checkpoint_costs_what_has_changed() {
    let mut join = Fixture::new(Join { residual: Some(smaller()), ..spec(JoinKind::Left, [false, false]) });
    let rows: Vec<(Row, i64)> = (0..20_000).map(|i| (r(i, 1, 0), 1)).collect();
    join.left(&rows);
    let bytes = |changes: Vec<StateChange>| changes.iter().map(|c| c.value.as_ref().map_or(0, Vec::len)).sum::<usize>();
    assert!(bytes(join.checkpoint()) > 20_000 * 24);
    // A match for one row, another row gone.
    join.epoch(0, &[(1, vec![(r(3, 9, 0), 1)]), (0, vec![(r(4, 1, 0), -1)])]);
    assert!(bytes(join.checkpoint()) < 2_000);
    assert_eq!(join.checkpoint(), []);
    join.restore();
    assert_eq!(join.right(&[(r(3, 9, 0), -1)]).len(), 2);
    // Most of it goes: what is stored shrinks.
    join.left(&(100..20_000).map(|i| (r(i, 1, 0), -1)).collect::<Vec<_>>());
    join.checkpoint();
    assert!(join.store.values().map(Vec::len).sum::<usize>() < 20_000);
    join.restore();
    assert_eq!(join.state()[0].len(), 99);
}

#[test]
fn many_checkpoints_leave_few_parts() {
    let mut join = Fixture::new(spec(JoinKind::Inner, [true, true]));
    for i in 0..600 {
        join.left(&[(r(i % 5, i, 0), 1), (r(i, i, 0), 1)]);
        join.checkpoint();
        if i % 97 == 0 {
            join.restore();
        }
    }
    // 600 in base 8 is 1130.
    assert_eq!(join.store.len(), 5);
    assert_eq!(join.right(&[(r(4, 0, 0), 1)]).len(), 121);
}

/// The result over weighted sets, by nested loops.
fn nested_loops(spec: &Join, left: &BTreeMap<Row, i64>, right: &BTreeMap<Row, i64>) -> BTreeMap<String, i64> {
    let show = |row: &Row| format!("{} {} {}", row.0.map_or("-".to_owned(), |k| k.to_string()), row.1, row.2);
    let matches = |a: &Row, b: &Row| {
        let equal = a.0 == b.0 && (a.0.is_some() || spec.null_equal);
        let holds = match (&spec.residual, &spec.bound) {
            (None, _) => true,
            (Some(_), None) => a.1 < b.1,
            (Some(_), Some(_)) => a.2 <= b.2 && b.2 <= a.2 + 10,
        };
        equal && holds
    };
    let mut result = BTreeMap::new();
    let mut add = |row: String, weight: i64| *result.entry(row).or_insert(0) += weight;
    for (a, n) in left {
        let matched: Vec<_> = right.iter().filter(|(b, _)| matches(a, b)).collect();
        match spec.kind {
            JoinKind::Semi if !matched.is_empty() => add(show(a), *n),
            JoinKind::Anti if matched.is_empty() => add(show(a), *n),
            JoinKind::Semi | JoinKind::Anti => {}
            _ => matched.iter().for_each(|(b, m)| add(format!("{} | {}", show(a), show(b)), n * **m)),
        }
        if matched.is_empty() && !spec.kind.is_filter() && spec.kind.keeps_unmatched(0) {
            add(format!("{} | - - -", show(a)), *n);
        }
    }
    for (b, m) in right {
        if spec.kind.keeps_unmatched(1) && !left.keys().any(|a| matches(a, b)) {
            add(format!("- - - | {}", show(b)), *m);
        }
    }
    result
}

/// One change: side, key, value, time, weight, whether a batch ends.
type Change = (usize, Option<i64>, i64, i64, i64, bool);

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let key = prop_oneof![4 => (0..3_i64).prop_map(Some), 1 => Just(None)];
    let change = (
        0..2_usize,
        key,
        0..4_i64,
        0..30_i64,
        prop_oneof![3 => Just(1_i64), 2 => Just(-1), 1 => Just(2)],
        any::<bool>(),
    );
    proptest::collection::vec(proptest::collection::vec(change, 0..10), 1..9)
}

/// Cuts an epoch into batches, makes it possible, and adds it to the sets.
fn feed(spec: &Join, epoch: &[Change], sets: &mut [BTreeMap<Row, i64>; 2]) -> Vec<(usize, Vec<(Row, i64)>)> {
    let mut batches: Vec<(usize, Vec<(Row, i64)>)> = Vec::new();
    let mut ends = true;
    for (side, k, v, t, weight, cut) in epoch {
        let row = (*k, *v, *t);
        let weight = if spec.inputs[*side].append_only { 1 } else { *weight };
        let count = sets[*side].entry(row).or_insert(0);
        // A row is taken back only if it is there at the epoch's end.
        let weight = if *count + weight < 0 { 1 } else { weight };
        *count += weight;
        match batches.last_mut().filter(|(s, _)| s == side && !ends) {
            Some((_, rows)) => rows.push((row, weight)),
            None => batches.push((*side, vec![(row, weight)])),
        }
        ends = *cut;
    }
    sets.iter_mut().for_each(|set| set.retain(|_, count| *count != 0));
    batches
}

fn add_up(total: &mut BTreeMap<String, i64>, out: &[Out]) {
    out.iter().for_each(|(row, weight)| *total.entry(row.clone()).or_insert(0) += weight);
    total.retain(|_, weight| *weight != 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_nested_loops(
        kind in proptest::sample::select(KINDS.to_vec()),
        append_only in any::<[bool; 2]>(),
        residual in any::<bool>(),
        null_equal in any::<bool>(),
        epochs in changes(),
        stops in proptest::collection::vec(0..3_u8, 9),
    ) {
        let mut spec = spec(kind, append_only);
        spec.residual = residual.then(smaller);
        spec.null_equal = null_equal;
        let mut sets = [BTreeMap::new(), BTreeMap::new()];
        let (mut plain, mut restored, mut halves) = (Fixture::new(spec.clone()), Fixture::new(spec.clone()), Fixture::new(spec.clone()));
        let (mut total, mut total_of_halves) = (BTreeMap::new(), BTreeMap::new());
        for (epoch, stop) in epochs.iter().zip(&stops) {
            let batches = feed(&spec, epoch, &mut sets);
            let out = plain.epoch(0, &batches);
            prop_assert_eq!(&out, &restored.epoch(0, &batches));
            // Nothing cancels, and what is taken back comes first.
            let mut signs = BTreeMap::new();
            for (row, weight) in &out {
                prop_assert!(*weight != 0 && *signs.entry(row).or_insert(weight.signum()) == weight.signum(), "{} cancels", row);
            }
            prop_assert!(out.windows(2).all(|o| o[0].1.signum() <= o[1].1.signum()));
            add_up(&mut total, &out);
            prop_assert_eq!(&total, &nested_loops(&spec, &sets[0], &sets[1]));
            // The same epoch in two: a row may be taken back in the first only if it was there before.
            let (first, second): (Vec<_>, Vec<_>) = batches.iter().cloned().partition(|(_, rows)| rows.iter().all(|(_, w)| *w > 0));
            for half in [first, second] {
                add_up(&mut total_of_halves, &halves.epoch(0, &half));
            }
            prop_assert_eq!(&total_of_halves, &total);
            prop_assert_eq!(halves.state(), plain.state());
            if *stop > 0 {
                prop_assert_eq!(plain.checkpoint(), restored.checkpoint());
                if *stop > 1 {
                    restored.restore();
                }
            }
        }
    }

    #[test]
    fn bounded_joins_equal_nested_loops(
        kind in proptest::sample::select(KINDS.to_vec()),
        epochs in changes(),
        stops in proptest::collection::vec(0..3_u8, 9),
        steps in proptest::collection::vec(0..12_i64, 9),
    ) {
        let spec = bounded(kind);
        let mut sets = [BTreeMap::new(), BTreeMap::new()];
        let (mut plain, mut restored) = (Fixture::new(spec.clone()), Fixture::new(spec.clone()));
        let mut total = BTreeMap::new();
        let mut watermark = 0;
        for ((epoch, stop), step) in epochs.iter().zip(&stops).zip(&steps) {
            // No row is late.
            let epoch: Vec<Change> = epoch.iter().map(|c| (c.0, c.1, c.2, c.3 + watermark, 1, c.5)).collect();
            let batches = feed(&spec, &epoch, &mut sets);
            watermark += step;
            let out = plain.epoch(watermark, &batches);
            prop_assert_eq!(&out, &restored.epoch(watermark, &batches));
            add_up(&mut total, &out);
            // Rows that may still find a match are not in the result yet.
            let result = nested_loops(&spec, &sets[0], &sets[1]);
            let last = |text: &str| text.rsplit(' ').next().and_then(|t| t.parse::<i64>().ok()).unwrap();
            let is_settled = |row: &String| match row.split_once(" | ") {
                Some((left, "- - -")) => last(left) + 10 < watermark,
                Some(("- - -", right)) => last(right) < watermark,
                None if kind == JoinKind::Anti => last(row) + 10 < watermark,
                _ => true,
            };
            let settled: BTreeMap<String, i64> = result.into_iter().filter(|(row, _)| is_settled(row)).collect();
            prop_assert_eq!(&total, &settled);
            let due = sets[0].keys().filter(|r| kind != JoinKind::Semi && kind != JoinKind::Anti && r.2 + 10 >= watermark).count();
            prop_assert!(plain.join.core.sides[0].live >= due * usize::from(kind.keeps_unmatched(0)));
            let kept: i64 = sets[1].iter().filter(|(r, _)| r.2 >= watermark).map(|(_, n)| *n).sum();
            prop_assert!(plain.join.core.sides[1].live as i64 <= kept);
            if *stop > 0 {
                prop_assert_eq!(plain.checkpoint(), restored.checkpoint());
                if *stop > 1 {
                    restored.restore();
                }
            }
        }
    }
}

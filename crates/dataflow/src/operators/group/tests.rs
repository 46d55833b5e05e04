//! Aggregation without a window: literals in, literals out; and the same changes however epochs are cut and restored.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::array_value_to_string;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::bit_and_or_xor::bit_xor_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::{AggregateUDF, Operator as BinaryOperator};
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{binary, col, lit};
use millstream_plan::{Epoch, EpochPlan, StageId};
use proptest::prelude::*;

use super::super::{EpochContext, Step, operator};
use super::*;
use crate::DeltaBatch;
use crate::graph::{EdgeType, Node, NodeKind, Ttl, TtlMode};

/// Key, integer, float, decimal (in hundredths), text.
type Row = (Option<i64>, Option<i64>, Option<f64>, Option<i128>, Option<&'static str>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("s", DataType::Utf8, true),
    ]))
}

fn delta(rows: &[(Row, i64)], weighted: bool) -> DeltaBatch {
    let decimals: Decimal128Array = rows.iter().map(|(r, _)| r.3).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(r, _)| r.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(r, _)| r.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(r, _)| r.2).collect::<Float64Array>()),
        Arc::new(decimals.with_precision_and_scale(10, 2).unwrap()),
        Arc::new(rows.iter().map(|(r, _)| r.4).collect::<StringArray>()),
    ];
    let weights = weighted.then(|| rows.iter().map(|(_, w)| *w).collect());
    DeltaBatch { rows: RecordBatch::try_new(schema(), columns).unwrap(), weights }
}

fn call(udaf: Arc<AggregateUDF>, column: &str, distinct: bool, positive: bool) -> GroupCall {
    let schema = schema();
    let argument = if column == "*" { lit(1_i64) } else { col(column, &schema).unwrap() };
    let built = AggregateExprBuilder::new(udaf, vec![argument]).schema(schema.clone()).alias(column).build();
    let filter = || binary(col("i", &schema).unwrap(), BinaryOperator::Gt, lit(0_i64), &schema).unwrap();
    GroupCall { function: Arc::new(built.unwrap()), filter: positive.then(filter), distinct }
}

fn spec(keys: &[&str], calls: Vec<GroupCall>, retracts: bool) -> Arc<GroupAggregate> {
    let keys: Vec<NamedExpr> =
        keys.iter().map(|k| NamedExpr { name: (*k).to_owned(), expr: col(k, &schema()).unwrap() }).collect();
    let transfer = group_transfer(&keys, &calls, retracts, &schema()).unwrap();
    let key_fields = transfer.fields()[..keys.len()].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(usize::from(keys.is_empty())));
    let none = key_fields.iter().map(|f| arrow::array::new_empty_array(f.data_type())).collect();
    let always = Arc::new(Schema::new(key_fields.clone()));
    let always = RecordBatch::try_new_with_options(always, none, &options).unwrap();
    let results =
        calls.iter().enumerate().map(|(i, c)| Arc::new(c.function.field().as_ref().clone().with_name(i.to_string())));
    let output = Arc::new(Schema::new(key_fields.into_iter().chain(results).collect::<Vec<_>>()));
    Arc::new(GroupAggregate { keys, always, calls, retracts, updating: retracts, transfer, output, ttl: None })
}

fn plan(epoch: u64) -> EpochPlan {
    EpochPlan { epoch: Epoch(epoch), now_ms: 0, sources: Vec::new(), checkpoint: false, flush: false, last: false }
}

/// A row of the output as text, with its weight.
type Change = (Vec<String>, i64);

fn texts(batch: &DeltaBatch) -> Vec<Change> {
    let text = |r: usize| batch.rows.columns().iter().map(|c| array_value_to_string(c, r).unwrap()).collect();
    (0..batch.num_rows()).map(|r| (text(r), batch.weights.as_ref().map_or(1, |w| w.value(r)))).collect()
}

/// Both halves and the store of the second's sealed state.
struct Pair {
    spec: Arc<GroupAggregate>,
    first: Box<dyn Operator>,
    second: Box<dyn Operator>,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    sealed: usize,
    now_ms: i64,
}

impl Pair {
    fn new(spec: Arc<GroupAggregate>) -> Self {
        let first = Self::make(NodeKind::PartialGroupAggregate(spec.clone()), &spec);
        let second = Self::make(NodeKind::GroupAggregate(spec.clone()), &spec);
        Self { spec, first, second, store: BTreeMap::new(), sealed: 0, now_ms: 0 }
    }

    fn make(kind: NodeKind, spec: &GroupAggregate) -> Box<dyn Operator> {
        let append_only = !spec.retracts && spec.calls.is_empty();
        let output = EdgeType { schema: spec.output.clone(), append_only, key: None, time: Vec::new() };
        operator(&Node { id: OperatorId(7), stage: StageId(0), kind, inputs: Vec::new(), output }).unwrap().unwrap()
    }

    fn checkpoint(&mut self) {
        let changes = self.second.seal().unwrap();
        self.sealed = changes.len();
        assert!(changes.windows(2).all(|c| c[0].key < c[1].key), "entries are sorted and each is there once");
        for change in changes {
            match change.value {
                Some(value) => self.store.insert(change.key, value),
                None => self.store.remove(&change.key),
            };
        }
    }

    fn restore(&mut self) {
        self.second = Self::make(NodeKind::GroupAggregate(self.spec.clone()), &self.spec);
        for (key, value) in &self.store {
            self.second.restore(key, value).unwrap();
        }
    }

    fn try_epoch(&mut self, batches: &[DeltaBatch]) -> Result<Vec<Change>, DataflowError> {
        let plan = EpochPlan { now_ms: self.now_ms, ..plan(1) };
        let cx = EpochContext { plan: &plan };
        let (mut middle, mut out) = (Vec::new(), Vec::new());
        for batch in batches {
            self.first.process(0, batch.clone(), &cx, &mut middle)?;
        }
        self.first.end_epoch(&cx, &mut middle)?;
        // A shuffle puts batches together.
        if middle.len() > 1 && middle.iter().all(|b| b.weights.is_none()) {
            let rows: Vec<RecordBatch> = middle.drain(..).map(|b| b.rows).collect();
            middle.push(DeltaBatch::appended(concat_batches(&self.spec.transfer, &rows)?));
        }
        for batch in middle {
            self.second.process(0, batch, &cx, &mut out)?;
        }
        let mut step = self.second.end_epoch(&cx, &mut out)?;
        while step == Step::More {
            step = self.second.resume(&cx, &mut out)?;
        }
        Ok(out.iter().flat_map(texts).collect())
    }

    fn epoch(&mut self, rows: &[(Row, i64)]) -> Vec<Change> {
        self.try_epoch(&[delta(rows, self.spec.updating)]).unwrap()
    }
}

fn change(text: &str) -> Change {
    let (weight, row) = text.split_once(' ').unwrap();
    (row.split(',').map(|v| v.trim().to_owned()).collect(), weight.parse().unwrap())
}

fn changes_of(texts: &[&str]) -> Vec<Change> {
    texts.iter().map(|t| change(t)).collect()
}

fn row(k: i64, i: i64) -> Row {
    (Some(k), Some(i), None, None, None)
}

fn counts_and_sums() -> Vec<GroupCall> {
    vec![
        call(count_udaf(), "*", false, false),
        call(sum_udaf(), "i", false, false),
        call(max_udaf(), "i", false, false),
    ]
}

#[test]
fn a_group_that_changed_often_leaves_once() {
    for retracts in [false, true] {
        let mut pair = Pair::new(spec(&["k"], counts_and_sums(), retracts));
        assert_eq!(
            pair.epoch(&[(row(2, 5), 1), (row(1, 7), 1), (row(2, 6), 1)]),
            changes_of(&["1 2,2,11,6", "1 1,1,7,7"])
        );
        assert_eq!(pair.epoch(&[]), []);
        let null = (None, None, None, None, None);
        let wanted = ["-1 1,1,7,7", "1 1,3,8,7", "1 ,1,,"];
        assert_eq!(pair.epoch(&[(row(1, 1), 1), (null, 1), (row(1, 0), 1)]), changes_of(&wanted));
        assert_eq!(pair.second.report().keys, if retracts { 3 + 6 } else { 3 });
    }
}

#[test]
fn rows_go_and_the_next_largest_is_seen() {
    let mut pair = Pair::new(spec(&["k"], counts_and_sums(), true));
    pair.epoch(&[(row(1, 5), 1), (row(1, 9), 2), (row(2, 3), 1)]);
    // One of two equal rows goes; a group loses its only row; a new one comes.
    let wanted = ["-1 1,3,23,9", "1 1,2,14,9", "-1 2,1,3,3", "1 3,1,0,0"];
    assert_eq!(pair.epoch(&[(row(1, 9), -1), (row(2, 3), -1), (row(3, 0), 1)]), changes_of(&wanted));
    assert_eq!(pair.epoch(&[(row(1, 9), -1)]), changes_of(&["-1 1,2,14,9", "1 1,1,5,5"]));
    // What comes and goes in one epoch, in whatever order, is not seen.
    assert_eq!(pair.epoch(&[(row(4, 1), 1), (row(4, 1), -1), (row(1, 7), -1), (row(1, 7), 1)]), []);
    // The same result for other rows.
    assert_eq!(pair.epoch(&[(row(3, 0), -1), (row(3, 0), 1)]), []);
    assert_eq!(pair.epoch(&[(row(1, 5), -1), (row(3, 0), -1)]), changes_of(&["-1 1,1,5,5", "-1 3,1,0,0"]));
    pair.checkpoint();
    assert!(pair.store.is_empty());
    assert_eq!(pair.second.report().keys, 0);
}

#[test]
fn a_row_that_is_not_there_cannot_go() {
    let taken = |before: &[(Row, i64)], gone: Row| {
        let mut pair = Pair::new(spec(&["k"], counts_and_sums(), true));
        pair.epoch(before);
        pair.try_epoch(&[delta(&[(gone, -1)], true)]).unwrap_err().to_string()
    };
    let wanted = "operator o7 (aggregate): group (1) loses a row that it does not have";
    let wanted = wanted.replace("o7", &OperatorId(7).to_string());
    assert_eq!(taken(&[], row(1, 5)), wanted);
    assert_eq!(taken(&[(row(1, 5), 1)], row(1, 6)), wanted);
    assert_eq!(taken(&[(row(1, 5), 1), (row(1, 6), 1)], row(1, 7)), wanted);
}

#[test]
fn without_keys_there_is_always_one_row() {
    for retracts in [false, true] {
        let mut pair = Pair::new(spec(&[], counts_and_sums(), retracts));
        assert_eq!(pair.epoch(&[]), changes_of(&["1 0,,"]));
        pair.checkpoint();
        pair.restore();
        assert_eq!(pair.epoch(&[]), []);
        assert_eq!(pair.epoch(&[(row(1, 5), 1)]), changes_of(&["-1 0,,", "1 1,5,5"]));
        if retracts {
            assert_eq!(pair.epoch(&[(row(1, 5), -1)]), changes_of(&["-1 1,5,5", "1 0,,"]));
        }
        pair.checkpoint();
        assert_eq!(pair.sealed, if retracts { 2 } else { 1 });
    }
}

#[test]
fn distinct_rows_are_appended_once() {
    let mut pair = Pair::new(spec(&["k", "s"], Vec::new(), false));
    let of = |k: Option<i64>, s: Option<&'static str>| ((k, None, None, None, s), 1);
    let first = [of(Some(1), Some("")), of(Some(1), None), of(Some(1), Some("")), of(None, None)];
    assert_eq!(pair.epoch(&first), changes_of(&["1 1,", "1 1,", "1 ,"]));
    pair.checkpoint();
    pair.restore();
    assert_eq!(pair.epoch(&[of(Some(1), Some("")), of(None, None), of(Some(2), None)]), changes_of(&["1 2,"]));
    pair.checkpoint();
    assert_eq!(pair.sealed, 1);
}

#[test]
fn a_checkpoint_writes_only_the_values_that_are_new() {
    let calls = vec![
        call(count_udaf(), "i", true, false),
        call(count_udaf(), "i", true, true),
        call(sum_udaf(), "i", true, false),
        call(count_udaf(), "s", true, false),
    ];
    let mut pair = Pair::new(spec(&["k"], calls, false));
    let rows: Vec<(Row, i64)> = (0..1000).map(|i| (row(1, i % 500 - 100), 1)).collect();
    let sum: i64 = (-100..400).sum();
    assert_eq!(pair.epoch(&rows), changes_of(&[&format!("1 1,500,399,{sum},0")]));
    pair.checkpoint();
    // The group and its values: those of the calls on i together.
    assert_eq!(pair.sealed, 501);
    pair.restore();
    assert_eq!(pair.epoch(&rows), []);
    pair.checkpoint();
    assert_eq!(pair.sealed, 0);
    assert_eq!(
        pair.epoch(&[(row(1, 400), 1), (row(1, 399), 1)]),
        changes_of(&[&format!("-1 1,500,399,{sum},0"), &format!("1 1,501,400,{},0", sum + 400)])
    );
    pair.checkpoint();
    assert_eq!(pair.sealed, 2);
}

/// The same with groups that lapse 10 ms after their last row.
fn lapsing(mut spec: Arc<GroupAggregate>, mode: TtlMode) -> Pair {
    let of = Arc::make_mut(&mut spec);
    of.ttl = Some(Ttl { after_ms: 10, mode });
    of.updating = of.retracts;
    Pair::new(spec)
}

#[test]
fn groups_lapse_that_no_row_touches() {
    for retracts in [false, true] {
        let mut pair = lapsing(spec(&["k"], counts_and_sums(), retracts), TtlMode::Retract);
        pair.epoch(&[(row(1, 5), 1), (row(2, 6), 1), (row(3, 7), 1)]);
        pair.checkpoint();
        pair.restore();
        assert_eq!(pair.second.next_wake(), Some(10));
        pair.now_ms = 9;
        // A row that changes nothing keeps its group too.
        let wanted: &[&str] = if retracts { &[] } else { &["-1 3,1,7,7", "1 3,2,7,7"] };
        let nothing: &[(Row, i64)] = &[(row(3, 0), 1), (row(3, 0), if retracts { -1 } else { 0 })];
        if retracts {
            assert_eq!(pair.epoch(nothing), changes_of(wanted));
        } else {
            assert_eq!(pair.epoch(&nothing[..1]), changes_of(wanted));
        }
        pair.checkpoint();
        pair.restore();
        pair.now_ms = 10;
        assert_eq!(pair.epoch(&[]), changes_of(&["-1 1,1,5,5", "-1 2,1,6,6"]));
        pair.checkpoint();
        pair.restore();
        assert_eq!((pair.second.next_wake(), pair.second.report().keys), (Some(19), if retracts { 2 } else { 1 }));
        // It begins anew.
        assert_eq!(pair.epoch(&[(row(2, 1), 1)]), changes_of(&["1 2,1,1,1"]));
        pair.now_ms = 100;
        pair.epoch(&[]);
        pair.checkpoint();
        assert!(pair.store.is_empty());
    }
}

#[test]
fn frozen_results_stand_and_late_retractions_are_dropped() {
    let mut pair = lapsing(spec(&["k"], counts_and_sums(), true), TtlMode::Freeze);
    pair.epoch(&[(row(1, 5), 2), (row(2, 6), 1)]);
    pair.now_ms = 10;
    assert_eq!((pair.epoch(&[]), pair.second.next_wake()), (vec![], None));
    pair.checkpoint();
    pair.restore();
    // A row of the group that was, beside one of the new group.
    assert_eq!(pair.epoch(&[(row(1, 5), -1), (row(1, 7), 1), (row(2, 6), -3)]), changes_of(&["1 1,1,7,7"]));
    assert_eq!(pair.second.dropped(), 4);
    assert_eq!(pair.epoch(&[(row(1, 7), -1), (row(1, 5), -1)]), changes_of(&["-1 1,1,7,7"]));
    assert_eq!(pair.second.dropped(), 5);
    pair.checkpoint();
    assert!(pair.store.is_empty());
}

#[test]
fn distinct_rows_come_again_when_they_have_lapsed() {
    let mut pair = lapsing(spec(&["k"], vec![], false), TtlMode::Freeze);
    assert_eq!(pair.epoch(&[(row(1, 0), 1), (row(1, 0), 1)]), changes_of(&["1 1"]));
    pair.now_ms = 10;
    pair.epoch(&[]);
    assert_eq!(pair.epoch(&[(row(1, 0), 1)]), changes_of(&["1 1"]));
}

#[test]
fn the_one_row_without_keys_does_not_lapse() {
    for retracts in [false, true] {
        let mut pair = lapsing(spec(&[], counts_and_sums(), retracts), TtlMode::Retract);
        pair.epoch(&[(row(1, 5), 1)]);
        pair.now_ms = 1_000;
        assert_eq!((pair.epoch(&[]), pair.second.next_wake()), (vec![], None));
    }
}

#[test]
fn many_groups_leave_in_batches_in_the_order_of_the_epoch() {
    for retracts in [false, true] {
        let mut pair = Pair::new(spec(&["k"], counts_and_sums(), retracts));
        let rows: Vec<(Row, i64)> = (0..20_000).map(|i| (row(i * 7919 % 20_011, i), 1)).collect();
        let out = pair.epoch(&rows);
        let keys: Vec<String> = out.iter().map(|(r, _)| r[0].clone()).collect();
        assert_eq!(keys, rows.iter().map(|(r, _)| r.0.unwrap().to_string()).collect::<Vec<_>>());
    }
}

// ---- Any changes, against the definition ----

const FLOATS: [f64; 8] = [0.0, 1.0, 0.5, -2.5, 1e20, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
const TEXTS: [&str; 4] = ["", "a", "ab", "b"];

fn all_calls() -> Vec<GroupCall> {
    vec![
        call(count_udaf(), "*", false, false),
        call(count_udaf(), "i", false, true),
        call(sum_udaf(), "i", false, false),
        call(sum_udaf(), "f", false, false),
        call(sum_udaf(), "d", false, false),
        call(avg_udaf(), "f", false, true),
        call(min_udaf(), "i", false, false),
        call(max_udaf(), "s", false, false),
        call(min_udaf(), "s", false, true),
        call(max_udaf(), "d", false, false),
        call(count_udaf(), "s", true, false),
        call(count_udaf(), "s", true, true),
        call(sum_udaf(), "d", true, false),
        call(bit_xor_udaf(), "i", false, false),
        call(bit_xor_udaf(), "i", true, true),
    ]
}

/// Sum of floats that are halves of integers, exactly.
fn float_sum(values: &[f64]) -> f64 {
    let has = |wanted: f64| values.contains(&wanted);
    if values.iter().any(|v| v.is_nan()) || has(f64::INFINITY) && has(f64::NEG_INFINITY) {
        return f64::NAN;
    }
    if let Some(infinite) = values.iter().find(|v| v.is_infinite()) {
        return *infinite;
    }
    values.iter().map(|v| (v * 2.0) as i128).sum::<i128>() as f64 / 2.0
}

/// The results of all groups, by definition.
fn expected(rows: &[Row]) -> BTreeMap<Vec<String>, i64> {
    let mut groups: BTreeMap<Option<i64>, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|r| groups.entry(r.0).or_default().push(r));
    let show = |v: Option<String>| v.unwrap_or_default();
    let decimal = |v: i128| format!("{}{}.{:02}", if v < 0 { "-" } else { "" }, v.abs() / 100, v.abs() % 100);
    let float = |v: f64| array_value_to_string(&Float64Array::from(vec![v]), 0).unwrap();
    let result = |(key, rows): (Option<i64>, Vec<&Row>)| {
        let ints: Vec<i64> = rows.iter().filter_map(|r| r.1).collect();
        let positive = || rows.iter().filter(|r| r.1 > Some(0));
        let floats: Vec<f64> = rows.iter().filter_map(|r| r.2).collect();
        let few: Vec<f64> = positive().filter_map(|r| r.2).collect();
        let decimals: Vec<i128> = rows.iter().filter_map(|r| r.3).collect();
        let texts: Vec<&str> = rows.iter().filter_map(|r| r.4).collect();
        let few_texts: Vec<&str> = positive().filter_map(|r| r.4).collect();
        let distinct = |texts: &[&str]| texts.iter().collect::<std::collections::BTreeSet<_>>().len().to_string();
        let different: std::collections::BTreeSet<i128> = decimals.iter().copied().collect();
        let some = |there: bool, text: String| show(there.then_some(text));
        let xor = |values: &mut dyn Iterator<Item = i64>| values.reduce(|a, b| a ^ b).map(|v| v.to_string());
        let positive_ints: std::collections::BTreeSet<i64> = ints.iter().copied().filter(|i| *i > 0).collect();
        vec![
            show(key.map(|k| k.to_string())),
            rows.len().to_string(),
            ints.iter().filter(|i| **i > 0).count().to_string(),
            some(!ints.is_empty(), ints.iter().sum::<i64>().to_string()),
            some(!floats.is_empty(), float(float_sum(&floats))),
            some(!decimals.is_empty(), decimal(decimals.iter().sum())),
            some(!few.is_empty(), float(float_sum(&few) / few.len() as f64)),
            show(ints.iter().min().map(ToString::to_string)),
            show(texts.iter().max().map(ToString::to_string)),
            show(few_texts.iter().min().map(ToString::to_string)),
            show(decimals.iter().max().map(|d| decimal(*d))),
            distinct(&texts),
            distinct(&few_texts),
            some(!different.is_empty(), decimal(different.iter().sum())),
            show(xor(&mut ints.iter().copied())),
            show(xor(&mut positive_ints.into_iter())),
        ]
    };
    groups.into_iter().map(|g| (result(g), 1)).collect()
}

/// A row from small numbers; 0 gives null.
fn row_of(seed: (u8, u8, u8, u8, u8)) -> Row {
    let at = |n: u8| (n > 0).then(|| usize::from(n - 1));
    (
        at(seed.0).map(|n| n as i64),
        at(seed.1).map(|n| n as i64 - 2),
        at(seed.2).map(|n| FLOATS[n]),
        at(seed.3).map(|n| n as i128 * 175 - 300),
        at(seed.4).map(|n| TEXTS[n]),
    )
}

#[derive(Clone, Debug)]
enum Event {
    Add(Row),
    /// Takes away one of the rows that are there, by its position.
    Take(usize),
}

#[derive(Clone, Debug)]
struct Turn {
    events: Vec<Event>,
    checkpoint: bool,
    restore: bool,
    /// Where the epoch is cut into batches, and for associativity into epochs.
    cut: usize,
}

fn turns(retracts: bool) -> impl Strategy<Value = Vec<Turn>> {
    // Over append-only input floats are added in order: what is expected is exact, so are these sums.
    let row = (0..4_u8, 0..6_u8, 0..9_u8, 0..5_u8, 0..5_u8).prop_map(move |seed| match row_of(seed) {
        (k, i, Some(1e20), d, s) if !retracts => (k, i, Some(4.0), d, s),
        row => row,
    });
    let event = prop_oneof![
        3 => row.prop_map(Event::Add),
        if retracts { 2 } else { 0 } => (0..1000_usize).prop_map(Event::Take),
    ];
    let step = (prop::collection::vec(event, 0..12), any::<bool>(), any::<bool>(), 0..12_usize)
        .prop_map(|(events, checkpoint, restore, cut)| Turn { events, checkpoint, restore, cut });
    prop::collection::vec(step, 1..8)
}

/// The weighted rows of an epoch, and the rows that are there after it.
type Weighted = (Vec<(Row, i64)>, Vec<Row>);

fn weighted(steps: &[Turn]) -> Vec<Weighted> {
    let mut live: Vec<Row> = Vec::new();
    let epoch = |step: &Turn| {
        let mut rows = Vec::new();
        for event in &step.events {
            match event {
                Event::Add(row) => {
                    live.push(*row);
                    rows.push((*row, 1));
                }
                Event::Take(at) if !live.is_empty() => rows.push((live.swap_remove(at % live.len()), -1)),
                Event::Take(_) => {}
            }
        }
        (rows, live.clone())
    };
    steps.iter().map(epoch).collect()
}

fn check(steps: &[Turn], retracts: bool) -> Result<(), TestCaseError> {
    let make = || Pair::new(spec(&["k"], all_calls(), retracts));
    let epochs = weighted(steps);
    let run = |restores: bool, split: bool, backwards: bool| {
        let mut pair = make();
        let mut outputs = Vec::new();
        for (step, (rows, _)) in steps.iter().zip(&epochs) {
            let mut rows = rows.clone();
            if backwards {
                rows.reverse();
            }
            let (a, b) = rows.split_at(step.cut.min(rows.len()));
            let batches = [delta(a, retracts), delta(b, retracts)];
            let mut out = Vec::new();
            if split {
                batches.iter().for_each(|b| out.extend(pair.try_epoch(std::slice::from_ref(b)).unwrap()));
            } else {
                out = pair.try_epoch(&batches).unwrap();
            }
            outputs.push(out);
            if step.checkpoint {
                pair.checkpoint();
                if restores && step.restore {
                    pair.restore();
                }
            }
        }
        pair.checkpoint();
        (outputs, pair.store)
    };
    let (plain, store) = run(false, false, false);
    let mut there: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    for (out, (_, rows)) in plain.iter().zip(&epochs) {
        let mut seen: BTreeMap<(&Vec<String>, i64), i64> = BTreeMap::new();
        for (row, weight) in out {
            prop_assert_eq!(*seen.entry((row, -weight)).or_default(), 0, "a pair that cancels: {:?}", row);
            *seen.entry((row, *weight)).or_default() += 1;
            *there.entry(row.clone()).or_default() += weight;
        }
        there.retain(|_, w| *w != 0);
        prop_assert_eq!(&there, &expected(rows));
    }
    let (restored, restored_store) = run(true, false, false);
    prop_assert_eq!(&plain, &restored);
    prop_assert!(store == restored_store, "the state after restores differs");
    let sums = |outputs: &[Vec<Change>]| {
        let sum = |out: &Vec<Change>| {
            let mut sum: BTreeMap<Vec<String>, i64> = BTreeMap::new();
            out.iter().for_each(|(row, weight)| *sum.entry(row.clone()).or_default() += weight);
            sum.retain(|_, w| *w != 0);
            sum
        };
        outputs.iter().map(sum).collect::<Vec<_>>()
    };
    let (split, split_store) = run(false, true, false);
    prop_assert_eq!(sums(&plain), sums(&split));
    prop_assert!(store == split_store, "the state of epochs cut in two differs");
    if retracts {
        let (backwards, backwards_store) = run(true, false, true);
        prop_assert_eq!(sums(&plain), sums(&backwards));
        prop_assert!(store == backwards_store, "the state depends on the order inside epochs");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_of_growing_input_sum_up_to_the_definition(turns in turns(false)) {
        check(&turns, false)?;
    }

    #[test]
    fn changes_of_updating_input_sum_up_to_the_definition(turns in turns(true)) {
        check(&turns, true)?;
    }
}

//! Row patterns: literals in, literals out. Random ones are tested with SQL.
use arrow::array::{Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::Operator as Sign;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{binary, col, lit};
use millstream_plan::{SourceId, StageId};

use super::*;
use crate::graph::{
    EdgeType, Node, NodeKind, Ordered, Pattern, PatternVariable, Place, SkipTo, SortColumn, TimeDomain,
};
use crate::operators::ordered::testing::Fed;

/// (k, ts, v)
type Row = (i64, i64, i64);

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
        Arc::new(rows.iter().map(|r| Some(r.1)).collect::<TimestampMillisecondArray>()),
        Arc::new(rows.iter().map(|r| Some(r.2)).collect::<Int64Array>()),
    ];
    DeltaBatch::appended(RecordBatch::try_new(schema(), columns).unwrap())
}

/// Slots: the last value, the one before, the first, the number of rows.
fn formula(slots: Vec<usize>, expr: impl Fn(&Schema) -> Arc<dyn datafusion::physical_expr::PhysicalExpr>) -> Formula {
    let names = ["last", "before", "first", "count"];
    let fields: Vec<Field> = slots.iter().map(|s| Field::new(names[*s], DataType::Int64, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    Formula { expr: expr(&schema), slots, schema }
}

/// `PATTERN (A B+)`: A is 0, B rises.
fn rises(skip: SkipTo, within_ms: Option<i64>) -> Fed {
    let row = |place| Slot::Row { variable: None, place, back: 0, argument: 0 };
    let count = AggregateExprBuilder::new(count_udaf(), vec![lit(1_i64)]).schema(schema()).alias("n").build().unwrap();
    let call = AggregateCall { function: Arc::new(count), filter: None };
    let zero = formula(vec![0], |s| binary(col("last", s).unwrap(), Sign::Eq, lit(0_i64), s).unwrap());
    let above =
        formula(vec![0, 1], |s| binary(col("last", s).unwrap(), Sign::Gt, col("before", s).unwrap(), s).unwrap());
    let variable =
        |name: &str, local, running| PatternVariable { name: name.to_owned(), local, running, text: String::new() };
    let repeat = Pattern::Repeat { pattern: Box::new(Pattern::Variable(1)), from: 1, to: None, greedy: true };
    let measure =
        |slot: usize, name: &'static str| (name.to_owned(), formula(vec![slot], move |s| col(name, s).unwrap()));
    let spec = RowPattern {
        rows: Ordered {
            input: schema(),
            partition: vec![0],
            order: vec![SortColumn { column: 1, descending: false, nulls_first: false }],
            append_only: true,
            close: None,
        },
        domain: TimeDomain::Event(vec![SourceId(0)]),
        variables: vec![variable("A", Some(zero), None), variable("B", None, Some(above))],
        pattern: Pattern::Concat(vec![Pattern::Variable(0), repeat]),
        skip,
        within_ms,
        arguments: vec![col("v", &schema()).unwrap()],
        slots: vec![
            row(Place::Last(0)),
            row(Place::Last(1)),
            row(Place::First(0)),
            Slot::Aggregate { variable: None, call },
        ],
        measures: vec![measure(2, "first"), measure(0, "last"), measure(3, "count")],
        text: String::new(),
    };
    let fields = ["k", "first", "last", "count"].map(|name| Field::new(name, DataType::Int64, true));
    let output =
        EdgeType { schema: Arc::new(Schema::new(fields.to_vec())), append_only: true, key: None, time: Vec::new() };
    let kind = NodeKind::RowPattern(Arc::new(spec));
    Fed::of(Node { id: OperatorId(1), stage: StageId(0), kind, inputs: Vec::new(), output })
}

fn restored(mut fed: Fed, restore: bool) -> Fed {
    fed.seal();
    if restore {
        fed.restore();
    }
    fed
}

#[test]
fn a_match_is_emitted_when_nothing_can_make_it_longer() {
    for restore in [false, true] {
        let mut fed = rises(SkipTo::PastLastRow, None);
        let rows = [(1, 20, 1), (1, 10, 0), (1, 30, 2), (2, 10, 5), (2, 30, 0)];
        assert!(fed.try_epoch(&[batch(&rows)], 25).unwrap().is_empty());
        fed = restored(fed, restore);
        assert_eq!(fed.timer(), Some(31));
        // Of partition 2 the row that cannot begin a match is gone.
        assert_eq!(fed.store.keys().filter(|k| k[0] == b'r').count(), 4);
        assert!(fed.try_epoch(&[batch(&[(1, 40, 3), (2, 40, 0)])], 41).unwrap().is_empty());
        fed = restored(fed, restore);
        assert_eq!(fed.try_epoch(&[batch(&[(1, 50, 0), (1, 60, 7), (2, 60, 1)])], 51).unwrap(), ["+1: 1 0 3 4"]);
        fed = restored(fed, restore);
        assert_eq!(fed.try_epoch(&[], i64::MAX).unwrap(), ["+1: 1 0 7 2", "+1: 2 0 1 2"]);
        fed = restored(fed, restore);
        assert_eq!(fed.store.keys().map(|k| k[0]).collect::<Vec<_>>(), b"w");
        assert_eq!(fed.keys(), 0);
    }
}

#[test]
fn within_decides_without_a_row() {
    for restore in [false, true] {
        let mut fed = rises(SkipTo::PastLastRow, Some(30));
        // The row 30 later is too late.
        let rows = [(1, 10, 0), (1, 20, 1), (1, 39, 2), (1, 40, 3)];
        assert!(fed.try_epoch(&[batch(&rows)], 39).unwrap().is_empty());
        fed = restored(fed, restore);
        assert_eq!(fed.timer(), Some(40));
        assert_eq!(fed.try_epoch(&[], 40).unwrap(), ["+1: 1 0 2 3"]);
        fed = restored(fed, restore);
        assert!(fed.try_epoch(&[batch(&[(1, 50, 0)])], 60).unwrap().is_empty());
        assert_eq!(fed.timer(), Some(80));
        fed = restored(fed, restore);
        assert!(fed.try_epoch(&[], 80).unwrap().is_empty());
        assert_eq!((fed.keys(), fed.timer()), (0, None));
    }
}

#[test]
fn attempts_that_do_not_depend_on_each_other_wait_for_none() {
    for restore in [false, true] {
        let mut fed = rises(SkipTo::NextRow, None);
        let rows = [(1, 10, 0), (1, 10, 0), (1, 20, 1), (1, 30, 2)];
        assert!(fed.try_epoch(&[batch(&rows)], 35).unwrap().is_empty());
        fed = restored(fed, restore);
        // The first zero is followed by another, which is no rise.
        assert_eq!(fed.try_epoch(&[batch(&[(1, 40, 0), (1, 50, 1)])], 45).unwrap(), ["+1: 1 0 2 3"]);
        fed = restored(fed, restore);
        assert_eq!(fed.try_epoch(&[], i64::MAX).unwrap(), ["+1: 1 0 1 2"]);
    }
}

//! Ranks: literals in, literals out; and against plain sorting, however rows are cut into epochs.
use std::cmp::Reverse;

use arrow::datatypes::DataType;

use super::*;
use crate::graph::{NodeKind, Ordered, TimeDomain};
use crate::operators::ordered::testing::{Change, Fed, accepted, batch, compare, counted, ordered, text};

fn rank(function: RankFunction, ranks: (u64, u64), numbered: bool, append_only: bool) -> Fed {
    let rows = ordered(true, append_only);
    let (from, to) = ranks;
    let results: &[(&str, DataType)] = if numbered { &[("rank", DataType::UInt64)] } else { &[] };
    Fed::new(NodeKind::Rank(Arc::new(Rank { rows, function, from, to, numbered })), results)
}

const fn row(k: i64, v: i64, s: &'static str) -> Change {
    (Some(k), Some(v), Some(s), 1)
}

#[test]
fn the_first_rows_of_each_partition() {
    let mut top = rank(RankFunction::RowNumber, (1, 2), false, true);
    assert_eq!(
        top.epoch(&[row(1, 5, "a"), row(2, 1, "a"), row(1, 7, "b"), row(1, 6, "c")]),
        ["+1: 1 7 b", "+1: 1 6 c", "+1: 2 1 a"]
    );
    // Behind the last one; equal to it; before it.
    assert_eq!(top.epoch(&[row(1, 5, "z")]), [""; 0]);
    assert_eq!(top.epoch(&[row(1, 6, "c")]), [""; 0]);
    assert_eq!(top.epoch(&[row(1, 6, "b"), (Some(2), None, None, 1)]), ["-1: 1 6 c", "+1: 1 6 b", "+1: 2 - -"]);
    // Rows that are equal in every column count each; null is a partition.
    assert_eq!(
        top.epoch(&[(None, Some(1), None, 1), (None, Some(1), None, 1), (None, Some(1), None, 1)]),
        ["+2: - 1 -"]
    );
}

#[test]
fn rows_that_move_are_taken_away_with_their_rank() {
    let mut top = rank(RankFunction::RowNumber, (1, 3), true, false);
    assert_eq!(top.epoch(&[row(1, 5, "a"), row(1, 4, "b"), row(1, 3, "c"), row(1, 2, "d")]).len(), 3);
    assert_eq!(
        top.epoch(&[(Some(1), Some(5), Some("a"), -1)]),
        ["-1: 1 5 a 1", "-1: 1 4 b 2", "-1: 1 3 c 3", "+1: 1 4 b 1", "+1: 1 3 c 2", "+1: 1 2 d 3"]
    );
    // Taken away and added in one epoch, in either order: nothing.
    assert_eq!(top.epoch(&[(Some(1), Some(4), Some("b"), -1), row(1, 4, "b")]), [""; 0]);
    assert_eq!(top.epoch(&[(Some(1), Some(9), None, 1), (Some(1), Some(9), None, -1)]), [""; 0]);
}

#[test]
fn ties_share_a_rank() {
    let rows = [row(1, 5, "a"), row(1, 5, "b"), row(1, 4, "c"), row(1, 3, "d")];
    let mut top = rank(RankFunction::Rank, (1, 3), true, true);
    assert_eq!(top.epoch(&rows), ["+1: 1 5 a 1", "+1: 1 5 b 1", "+1: 1 4 c 3"]);
    assert_eq!(top.epoch(&[row(1, 4, "x")]), ["+1: 1 4 x 3"]);
    assert_eq!(top.epoch(&[row(1, 5, "x")]), ["-1: 1 4 c 3", "-1: 1 4 x 3", "+1: 1 5 x 1"]);
    let mut top = rank(RankFunction::DenseRank, (2, 3), true, true);
    assert_eq!(top.epoch(&rows), ["+1: 1 4 c 2", "+1: 1 3 d 3"]);
    assert_eq!(
        top.epoch(&[row(1, 6, "x")]),
        ["-1: 1 4 c 2", "-1: 1 3 d 3", "+1: 1 5 a 2", "+1: 1 5 b 2", "+1: 1 4 c 3"]
    );
}

#[test]
fn a_row_that_is_not_there_cannot_be_taken_away() {
    let mut top = rank(RankFunction::RowNumber, (1, 2), false, false);
    top.epoch(&[row(1, 5, "a")]);
    let error = top.try_epoch(&[batch(&[(Some(1), Some(5), Some("b"), -1)])], i64::MIN).unwrap_err();
    assert_eq!(error.to_string(), "operator 1: a row is taken away that is not there: (1, 5, b)");
}

#[test]
fn what_is_kept_of_appended_rows_is_bounded() {
    let mut top = rank(RankFunction::RowNumber, (2, 3), false, true);
    for i in 0..2000 {
        top.epoch(&[row(1, (i * 7919) % 1000, "a"), row(2, 0, "a")]);
    }
    top.seal();
    let bytes: usize = top.store.values().map(Vec::len).sum();
    assert!(bytes < 300, "{bytes} bytes");
    // Many in one epoch too.
    let rows: Vec<Change> = (0..5000).map(|i| row(3, i % 777, "a")).collect();
    assert_eq!(top.epoch(&rows), ["+2: 3 776 a"]);
}

#[test]
fn partitions_of_windows_are_emitted_when_they_close() {
    let close = Some(Close { end: 0, domain: TimeDomain::Event(vec![millstream_plan::SourceId(0)]) });
    let mut rows = Ordered { close, ..ordered(true, true) };
    let mut schema: Vec<arrow::datatypes::Field> = rows.input.fields().iter().map(|f| f.as_ref().clone()).collect();
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None);
    schema[0] = schema[0].clone().with_data_type(time.clone());
    rows.input = Arc::new(arrow::datatypes::Schema::new(schema));
    let spec = Rank { rows: rows.clone(), function: RankFunction::RowNumber, from: 1, to: 2, numbered: false };
    let node = crate::graph::Node {
        id: OperatorId(1),
        stage: millstream_plan::StageId(0),
        kind: NodeKind::Rank(Arc::new(spec)),
        inputs: Vec::new(),
        output: crate::graph::EdgeType { schema: rows.input.clone(), append_only: true, key: None, time: Vec::new() },
    };
    let mut top = Fed::of(node);
    let timed = |changes: &[Change]| {
        let DeltaBatch { rows: plain, weights } = batch(changes);
        let mut columns = plain.columns().to_vec();
        columns[0] = arrow::compute::cast(&columns[0], &time).unwrap();
        DeltaBatch { rows: RecordBatch::try_new(rows.input.clone(), columns).unwrap(), weights }
    };
    let rows = [row(10, 1, "a"), row(20, 1, "a"), row(10, 2, "b"), row(10, 3, "c"), row(20, 1, "a")];
    assert_eq!(top.try_epoch(&[timed(&rows)], 9).unwrap(), [""; 0]);
    assert_eq!((top.keys(), top.timer()), (2, Some(10)));
    top.seal();
    top.restore();
    assert_eq!((top.keys(), top.timer()), (2, Some(10)));
    let at = "1970-01-01T00:00:00.0";
    assert_eq!(top.try_epoch(&[timed(&[])], 10).unwrap(), [format!("+1: {at}10 3 c"), format!("+1: {at}10 2 b")]);
    assert_eq!((top.keys(), top.timer()), (1, Some(20)));
    // The last rows and the end may come in one epoch; equal rows leave one by one.
    let out = top.try_epoch(&[timed(&[row(20, 0, "z")])], 25).unwrap();
    assert_eq!(out, [format!("+1: {at}20 1 a"), format!("+1: {at}20 1 a")]);
    top.seal();
    assert_eq!((top.keys(), top.timer(), top.store.len()), (0, None, 0));
}

/// Ranks by sorting everything: v descending, nulls first, then s.
fn expected(
    epochs: &[Vec<Change>],
    function: RankFunction,
    (from, to): (u64, u64),
    numbered: bool,
) -> std::collections::BTreeMap<String, i64> {
    let key = |r: &Change| (r.1.is_some(), Reverse(r.1), r.2);
    let rows = accepted(epochs, |a, b| key(a).cmp(&key(b)));
    let ranked = rows.iter().enumerate().map(|(i, r)| {
        let partition: Vec<&Change> = rows.iter().filter(|o| o.0 == r.0).collect();
        let before: Vec<&&Change> =
            partition.iter().filter(|o| (o.1.is_some(), Reverse(o.1)) < (r.1.is_some(), Reverse(r.1))).collect();
        let rank = match function {
            RankFunction::RowNumber => rows[..=i].iter().filter(|o| o.0 == r.0).count(),
            RankFunction::Rank => before.len() + 1,
            RankFunction::DenseRank => before.iter().map(|o| o.1).collect::<std::collections::BTreeSet<_>>().len() + 1,
        };
        (r, rank as u64)
    });
    let kept = ranked.filter(|(_, rank)| (from..=to).contains(rank));
    counted(kept.map(|((k, v, s, _), rank)| {
        let row = format!("{} {} {}", text(*k), text(*v), text(*s));
        if numbered { format!("{row} {rank}") } else { row }
    }))
}

#[test]
fn equals_sorting_everything_after_every_epoch() {
    let functions = [RankFunction::RowNumber, RankFunction::Rank, RankFunction::DenseRank];
    for seed in 0..120 {
        let function = functions[seed as usize % 3];
        let ranks = [(1, 1), (1, 3), (2, 4), (3, u64::MAX)][seed as usize / 3 % 4];
        let numbered = seed % 2 == 0;
        for append_only in [true, false] {
            let make = || rank(function, ranks, numbered, append_only);
            compare(make, !append_only, seed, |epochs| expected(epochs, function, ranks, numbered));
        }
    }
}

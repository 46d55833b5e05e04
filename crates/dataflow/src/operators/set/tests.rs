//! INTERSECT and EXCEPT: literals in, literals out.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use millstream_plan::{Epoch, EpochPlan, SourceId, SourcePlan, Watermark};
use proptest::prelude::*;

use super::*;
use crate::graph::{SetKind, TimeDomain};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]))
}

/// Input, key, weight.
type Change = (usize, Option<i64>, i64);

fn delta(changes: &[&Change], weighted: bool) -> DeltaBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(changes.iter().map(|c| c.1).collect::<Int64Array>()),
        Arc::new(changes.iter().map(|c| c.1.map(|_| f64::NAN)).collect::<Float64Array>()),
        Arc::new(changes.iter().map(|c| c.1).collect::<TimestampMillisecondArray>()),
    ];
    let weights = weighted.then(|| changes.iter().map(|c| c.2).collect());
    DeltaBatch { rows: RecordBatch::try_new(schema(), columns).unwrap(), weights }
}

fn plan(watermark: i64) -> EpochPlan {
    let source = SourcePlan { source: SourceId(0), watermark: Watermark(watermark), ranges: Vec::new() };
    EpochPlan { epoch: Epoch(1), now_ms: 0, sources: vec![source], checkpoint: false, flush: false, last: false }
}

struct Sets {
    spec: SetOperation,
    append_only: bool,
    operator: SetOperator,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Sets {
    fn new(kind: SetKind, all: bool, append_only: bool) -> Self {
        let bound = append_only.then(|| (2, TimeDomain::Event(vec![SourceId(0)])));
        let spec = SetOperation { kind, all, bound };
        let operator = Self::make(&spec, append_only);
        Self { spec, append_only, operator, store: BTreeMap::new() }
    }

    fn make(spec: &SetOperation, append_only: bool) -> SetOperator {
        let out = append_only && spec.kind == SetKind::Intersect;
        SetOperator::new(OperatorId(7), spec, schema(), out).unwrap()
    }

    fn try_epoch(&mut self, changes: &[Change], watermark: i64) -> Result<Vec<(String, i64)>, DataflowError> {
        let plan = plan(watermark);
        let cx = EpochContext { plan: &plan };
        let mut out = Vec::new();
        for input in [0, 1] {
            let own: Vec<&Change> = changes.iter().filter(|c| c.0 == input).collect();
            if !own.is_empty() {
                self.operator.process(input, delta(&own, !self.append_only), &cx, &mut out)?;
            }
        }
        let mut step = self.operator.end_epoch(&cx, &mut out)?;
        while step == Step::More {
            step = self.operator.resume(&cx, &mut out)?;
        }
        let row = |b: &DeltaBatch, r: usize| {
            let key = array_value_to_string(b.rows.column(0), r).unwrap();
            (key, b.weights.as_ref().map_or(1, |w| w.value(r)))
        };
        Ok(out.iter().flat_map(|b| (0..b.num_rows()).map(move |r| row(b, r))).collect())
    }

    /// The rows that leave, each as key and weight.
    fn epoch(&mut self, changes: &[Change]) -> String {
        let rows = self.try_epoch(changes, i64::MIN).unwrap();
        rows.iter().map(|(key, weight)| format!("{key}:{weight:+}")).collect::<Vec<_>>().join(" ")
    }

    fn checkpoint(&mut self) -> usize {
        let sealed = self.operator.seal().unwrap();
        let count = sealed.len();
        for change in sealed {
            match change.value {
                Some(value) => self.store.insert(change.key, value),
                None => self.store.remove(&change.key),
            };
        }
        self.operator = Self::make(&self.spec, self.append_only);
        for (key, value) in &self.store {
            self.operator.restore(key, value).unwrap();
        }
        count
    }
}

#[test]
fn rows_come_and_go() {
    let both = [(0, Some(1), 3), (1, Some(1), 1), (0, Some(2), 1), (1, None, 2), (0, None, 1)];
    let mut sets = Sets::new(SetKind::Intersect, false, false);
    assert_eq!(sets.epoch(&both), "1:+1 :+1");
    assert_eq!(sets.checkpoint(), 3);
    assert_eq!(sets.epoch(&[(1, Some(2), 1), (1, None, -1), (0, Some(1), -2)]), "2:+1");
    assert_eq!(sets.epoch(&[(1, None, -1), (0, Some(1), -1)]), "1:-1 :-1");
    sets.checkpoint();
    assert_eq!(sets.epoch(&[(0, None, -1), (1, Some(1), -1), (0, Some(2), -1), (1, Some(2), -1)]), "2:-1");
    assert_eq!((sets.checkpoint(), sets.store.len(), sets.operator.report().keys), (3, 0, 0));
}

#[test]
fn all_counts_copies() {
    let mut sets = Sets::new(SetKind::Intersect, true, false);
    assert_eq!(sets.epoch(&[(0, Some(1), 3), (1, Some(1), 2)]), "1:+2");
    assert_eq!(sets.epoch(&[(0, Some(1), -2), (1, Some(1), 5)]), "1:-1");
    let mut sets = Sets::new(SetKind::Except, true, false);
    assert_eq!(sets.epoch(&[(0, Some(1), 3), (1, Some(1), 1), (1, Some(2), 1)]), "1:+2");
    assert_eq!(sets.epoch(&[(0, Some(2), 1), (1, Some(1), 1), (1, Some(2), -1)]), "2:+1 1:-1");
    let mut sets = Sets::new(SetKind::Except, false, false);
    assert_eq!(sets.epoch(&[(0, Some(1), 3), (1, Some(2), 1), (0, Some(2), 1)]), "1:+1");
    assert_eq!(sets.epoch(&[(1, Some(2), -1), (1, Some(1), 1)]), "2:+1 1:-1");
}

#[test]
fn without_weights_copies_are_rows() {
    let mut sets = Sets::new(SetKind::Intersect, true, true);
    assert_eq!(sets.epoch(&[(0, Some(1), 1), (0, Some(1), 1), (1, Some(1), 1), (1, Some(1), 1)]), "1:+1 1:+1");
    assert_eq!(sets.epoch(&[(0, Some(1), 1)]), "");
}

#[test]
fn a_row_that_is_not_there_cannot_go() {
    let mut sets = Sets::new(SetKind::Except, false, false);
    sets.epoch(&[(0, Some(1), 1)]);
    let error = sets.try_epoch(&[(1, Some(1), -1)], i64::MIN).unwrap_err().to_string();
    assert!(error.contains("(set operation): row (1, NaN, 1970-01-01T00:00:00.001)"), "{error}");
}

#[test]
fn rows_are_forgotten_when_their_time_has_passed() {
    for kind in [SetKind::Intersect, SetKind::Except] {
        let mut sets = Sets::new(kind, false, true);
        sets.try_epoch(&[(0, Some(5), 1), (0, Some(9), 1), (0, None, 1)], 0).unwrap();
        assert_eq!(sets.checkpoint(), 3);
        sets.try_epoch(&[], 5).unwrap();
        assert_eq!(sets.checkpoint(), 0);
        // What has left stays.
        assert_eq!(sets.try_epoch(&[], 9).unwrap(), []);
        assert_eq!((sets.checkpoint(), sets.operator.report().keys), (1, 2));
        let met = sets.try_epoch(&[(1, Some(9), 1)], 9).unwrap();
        assert_eq!(met, [("9".to_owned(), if kind == SetKind::Intersect { 1 } else { -1 })]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However rows are cut into epochs: the result is what the counts of all rows give.
    #[test]
    fn results_are_those_of_the_counts(
        rows in prop::collection::vec((0..2_usize, 0..4_i64, any::<bool>()), 0..60),
        cuts in prop::collection::vec((1..12_usize, any::<bool>()), 1..12),
        intersect in any::<bool>(),
        all in any::<bool>(),
    ) {
        let kind = if intersect { SetKind::Intersect } else { SetKind::Except };
        let mut sets = Sets::new(kind, all, false);
        let mut counts = [[0_i64; 2]; 4];
        let mut found = [0_i64; 4];
        let changes: Vec<Change> = rows.iter().map(|(input, key, goes)| {
            let count = &mut counts[*key as usize][*input];
            let weight = if *goes && *count > 0 { -1 } else { 1 };
            *count += weight;
            (*input, Some(*key), weight)
        }).collect();
        let mut rest = &changes[..];
        for (length, restores) in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*length).min(rest.len()));
            for (key, weight) in sets.try_epoch(now, i64::MIN).unwrap() {
                found[key.parse::<usize>().unwrap()] += weight;
            }
            if *restores {
                sets.checkpoint();
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        for (key, [left, right]) in counts.into_iter().enumerate() {
            prop_assert_eq!(found[key], sets.spec.count(left, right), "{} of {} and {}", key, left, right);
        }
    }
}

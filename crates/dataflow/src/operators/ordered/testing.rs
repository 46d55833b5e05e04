//! What tests of ranks and frames share: small rows, literal batches, and an operator that is fed, sealed and restored.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use millstream_plan::{Epoch, EpochPlan, OperatorId, SourceId, SourcePlan, StageId, Watermark};

use crate::graph::{EdgeType, Node, NodeKind, Ordered, SortColumn};
use crate::operators::{EpochContext, Operator, Step, operator};
use crate::{DataflowError, DeltaBatch};

/// (k, v, s) and the row's weight.
pub type Change = (Option<i64>, Option<i64>, Option<&'static str>, i64);

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ]))
}

/// Partitioned by k, ordered by v.
pub fn ordered(descending: bool, append_only: bool) -> Ordered {
    let order = vec![SortColumn { column: 1, descending, nulls_first: descending }];
    Ordered { input: schema(), partition: vec![0], order, append_only, close: None }
}

pub fn batch(rows: &[Change]) -> DeltaBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.2))),
    ];
    let weights: Int64Array = rows.iter().map(|r| r.3).collect();
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    DeltaBatch { rows, weights: weights.iter().any(|w| w != Some(1)).then_some(weights) }
}

/// An operator with the store of its sealed state.
pub struct Fed {
    node: Node,
    operator: Box<dyn Operator>,
    pub store: BTreeMap<Vec<u8>, Vec<u8>>,
    epoch: u64,
}

impl Fed {
    pub fn new(kind: NodeKind, results: &[(&str, DataType)]) -> Self {
        let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.extend(results.iter().map(|(name, t)| Field::new(*name, t.clone(), true)));
        let output =
            EdgeType { schema: Arc::new(Schema::new(fields)), append_only: false, key: None, time: Vec::new() };
        Self::of(Node { id: OperatorId(1), stage: StageId(0), kind, inputs: Vec::new(), output })
    }

    pub fn of(node: Node) -> Self {
        let operator = operator(&node).unwrap().unwrap();
        Self { node, operator, store: BTreeMap::new(), epoch: 0 }
    }

    /// Rows that leave in an epoch, as `weight: values`, in order.
    pub fn try_epoch(&mut self, batches: &[DeltaBatch], watermark: i64) -> Result<Vec<String>, DataflowError> {
        self.epoch += 1;
        let plan = EpochPlan {
            epoch: Epoch(self.epoch),
            now_ms: 0,
            sources: vec![SourcePlan { source: SourceId(0), watermark: Watermark(watermark), ranges: Vec::new() }],
            checkpoint: false,
            flush: false,
            last: false,
        };
        let cx = EpochContext { plan: &plan };
        let mut out = Vec::new();
        for batch in batches {
            assert_eq!(self.operator.process(0, batch.clone(), &cx, &mut out)?, Step::Done);
        }
        let mut step = self.operator.end_epoch(&cx, &mut out)?;
        while step == Step::More {
            step = self.operator.resume(&cx, &mut out)?;
        }
        Ok(out.iter().flat_map(shown).collect())
    }

    pub fn epoch(&mut self, rows: &[Change]) -> Vec<String> {
        self.try_epoch(&[batch(rows)], i64::MIN).unwrap()
    }

    pub fn seal(&mut self) {
        let changes = self.operator.seal().unwrap();
        assert!(changes.is_sorted_by(|a, b| a.key < b.key));
        for change in changes {
            match change.value {
                Some(value) => self.store.insert(change.key, value),
                None => self.store.remove(&change.key),
            };
        }
    }

    /// The operator as it comes out of its sealed state.
    pub fn restore(&mut self) {
        self.operator = operator(&self.node).unwrap().unwrap();
        for (key, value) in &self.store {
            self.operator.restore(key, value).unwrap();
        }
    }

    pub fn keys(&self) -> u64 {
        self.operator.report().keys
    }

    pub fn timer(&self) -> Option<i64> {
        self.operator.report().next_timer
    }
}

fn shown(batch: &DeltaBatch) -> Vec<String> {
    let row = |i: usize| {
        let values = batch.rows.columns().iter().map(|c| match c.is_null(i) {
            true => "-".to_owned(),
            false => array_value_to_string(c, i).unwrap(),
        });
        let weight = batch.weights.as_ref().map_or(1, |w| w.value(i));
        format!("{weight:+}: {}", values.collect::<Vec<_>>().join(" "))
    };
    (0..batch.num_rows()).map(row).collect()
}

/// SplitMix64.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Random changes by epoch: rows are added, and where `updating` some that are there taken away.
pub fn changes(seed: u64, updating: bool) -> Vec<Vec<Change>> {
    let mut state = seed;
    let mut live: Vec<Change> = Vec::new();
    let mut epochs = Vec::new();
    for _ in 0..12 {
        let mut rows = Vec::new();
        for _ in 0..random(&mut state) % 25 {
            let draw = random(&mut state);
            if updating && !live.is_empty() && draw.is_multiple_of(3) {
                let (k, v, s, _) = live.swap_remove(draw as usize / 3 % live.len());
                rows.push((k, v, s, -1));
                continue;
            }
            let null = |n: u64, of: u64| (!n.is_multiple_of(of)).then_some((n % of) as i64);
            let s = [None, Some(""), Some("a"), Some("b")][(draw >> 20) as usize % 4];
            let row = (null(draw >> 8, 4), null(draw >> 32, 6), s, 1);
            live.push(row);
            rows.push(row);
        }
        // A row may also come after it has been taken away, and many times.
        if updating {
            rows.reverse();
        }
        epochs.push(rows);
    }
    epochs
}

/// All rows of the epochs so far, each as often as it is there, in order of k (nulls first), then by `order`.
pub fn accepted(epochs: &[Vec<Change>], order: impl Fn(&Change, &Change) -> std::cmp::Ordering) -> Vec<Change> {
    let mut weights: BTreeMap<_, i64> = BTreeMap::new();
    for (k, v, s, weight) in epochs.iter().flatten() {
        *weights.entry((*k, *v, *s)).or_default() += weight;
    }
    let mut rows: Vec<Change> = Vec::new();
    for ((k, v, s), weight) in weights {
        assert!(weight >= 0);
        rows.extend((0..weight).map(|_| (k, v, s, 1)));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0).then(order(a, b)));
    rows
}

/// Adds what has left to what is there, as `values` → weight.
pub fn add_up(held: &mut BTreeMap<String, i64>, out: &[String]) {
    for line in out {
        let (weight, values) = line.split_once(": ").unwrap();
        *held.entry(values.to_owned()).or_default() += weight.parse::<i64>().unwrap();
    }
    held.retain(|_, weight| *weight != 0);
}

/// Rows as text, as `values` → weight.
pub fn counted(rows: impl IntoIterator<Item = String>) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    rows.into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
    counts
}

pub fn text(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |v| v.to_string())
}

/// Runs random epochs, plain and with drops and restores, and compares what is held after each with `expected`.
pub fn compare(
    make: impl Fn() -> Fed,
    updating: bool,
    seed: u64,
    expected: impl Fn(&[Vec<Change>]) -> BTreeMap<String, i64>,
) {
    let epochs = changes(seed, updating);
    let run = |restores: bool| {
        let mut state = seed ^ 0xfeed;
        let mut fed = make();
        let mut held = BTreeMap::new();
        let mut outs = Vec::new();
        for (n, rows) in epochs.iter().enumerate() {
            let cut = rows.len() / 2;
            let out = fed.try_epoch(&[batch(&rows[..cut]), batch(&rows[cut..])], i64::MIN).unwrap();
            add_up(&mut held, &out);
            assert_eq!(held, expected(&epochs[..=n]), "seed {seed}, epoch {n}");
            outs.push(out);
            if random(&mut state).is_multiple_of(2) {
                fed.seal();
                if restores {
                    fed.restore();
                }
            }
        }
        fed.seal();
        (outs, fed.store)
    };
    let (straight, store) = run(false);
    let (restored, restored_store) = run(true);
    assert_eq!(straight, restored, "seed {seed}");
    assert!(store == restored_store, "the state differs, seed {seed}");
    // Twice as many epochs end in the same state. A row may go before it comes only within an epoch.
    let mut fed = make();
    let mut held = BTreeMap::new();
    for mut rows in epochs.clone() {
        rows.sort_by_key(|r| -r.3);
        for half in rows.chunks(rows.len().div_ceil(2).max(1)) {
            add_up(&mut held, &fed.epoch(half));
        }
    }
    fed.seal();
    assert_eq!(held, expected(&epochs), "seed {seed}");
    assert!(store == fed.store, "the state depends on the epochs, seed {seed}");
}

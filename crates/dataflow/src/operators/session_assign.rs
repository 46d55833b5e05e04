//! Rows in their sessions, where rows also go: a row that comes can join two sessions, one that goes can split one.
//!
//! **Rule.** All rows are kept, in partitions and in order of their time. At the epoch's end the sessions that the changes of a partition
//! can reach are found among its old and its new rows: those of the changed rows and what is between them, and the rows within
//! a chain of gaps before and after. A row leaves with −1 in the session that it had and with +1 in the one that it has, where they
//! differ. So a change costs as much as the sessions that it touches are long.
//!
//! A session is `[first, last + gap)`; rows that are exactly the gap apart share one. Rows without a time are in no session.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{filter, filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::error::Result as DfResult;
use millstream_plan::OperatorId;

use super::ordered::{EncodedRows, Kept, Multiset, Partitions, Row};
use super::{BATCH_ROWS, EpochContext, Operator, StateChange, StateReport, Step, failed};
use crate::graph::SessionAssign;
use crate::times::from_millis;
use crate::{DataflowError, DeltaBatch};

pub(super) struct SessionAssignOperator {
    id: OperatorId,
    spec: Arc<SessionAssign>,
    schema: SchemaRef,
    clock: Clock,
    partitions: Partitions,
    /// Touched partitions of this epoch that are done.
    done: usize,
}

/// Reads times off encoded rows: an ascending timestamp is a byte that says it is there, then its bits from the highest, sign flipped.
#[derive(Clone, Copy, Debug)]
struct Clock(TimeUnit);

impl Clock {
    fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Timestamp(unit, _) => Some(Self(*unit)),
            _ => None,
        }
    }

    /// Milliseconds.
    fn time(self, row: &Row) -> Option<i64> {
        let bytes = row.order().get(1..9)?.try_into().ok()?;
        let value = (u64::from_be_bytes(bytes) ^ (1 << 63)) as i64;
        Some(match self.0 {
            TimeUnit::Second => value.saturating_mul(1000),
            TimeUnit::Millisecond => value,
            TimeUnit::Microsecond => value.div_euclid(1000),
            TimeUnit::Nanosecond => value.div_euclid(1_000_000),
        })
    }
}

/// A row with how often it is there and its session's first and last time.
struct Placed {
    row: Row,
    weight: i64,
    first: i64,
    last: i64,
}

/// Rows that leave.
#[derive(Default)]
struct Leaving {
    rows: EncodedRows,
    weights: Vec<i64>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
}

impl Leaving {
    fn push(&mut self, key: &[u8], placed: &Placed, weight: i64) {
        if weight != 0 {
            self.rows.push(key, &placed.row);
            self.weights.push(weight);
            self.firsts.push(placed.first);
            self.lasts.push(placed.last);
        }
    }
}

impl SessionAssignOperator {
    pub(super) fn new(id: OperatorId, spec: &Arc<SessionAssign>, schema: SchemaRef) -> Result<Self, DataflowError> {
        let time = spec.rows.input.field(spec.time).data_type();
        let clock =
            Clock::of(time).ok_or_else(|| DataflowError::Corrupt(format!("operator {id}: sessions of {time}")))?;
        let partitions = Partitions::new(id, &spec.rows, Kept::All)?;
        Ok(Self { id, spec: spec.clone(), schema, clock, partitions, done: 0 })
    }

    /// Rows between `first` and `last` and those that a chain of gaps ties to them, with their sessions.
    fn sessions(&self, rows: &Multiset, first: &Row, last: &Row) -> Option<Vec<Placed>> {
        let gap = self.spec.gap;
        let mut found: Vec<(&Row, i64, i64)> = Vec::new();
        let mut near = self.clock.time(first)?;
        for (row, weight) in rows.before(first.bytes()).rev() {
            let time = self.clock.time(row)?;
            if time.saturating_add(gap) < near {
                break;
            }
            near = time;
            found.push((row, weight, time));
        }
        found.reverse();
        let mut near = self.clock.time(last)?;
        for (row, weight) in rows.from(first.bytes()) {
            let time = self.clock.time(row)?;
            if row > last {
                if near.saturating_add(gap) < time {
                    break;
                }
                near = time;
            }
            found.push((row, weight, time));
        }
        let together = |a: &(&Row, i64, i64), b: &(&Row, i64, i64)| b.2 <= a.2.saturating_add(gap);
        let mut placed = Vec::with_capacity(found.len());
        for session in found.chunk_by(together) {
            let (first, last) = (session[0].2, session[session.len() - 1].2);
            placed.extend(session.iter().map(|(row, weight, _)| Placed {
                row: (*row).clone(),
                weight: *weight,
                first,
                last,
            }));
        }
        Some(placed)
    }

    /// Applies the epoch's changes of a partition.
    fn change(&mut self, slot: u32, leaving: &mut Leaving) -> Result<(), DataflowError> {
        let changes = self.partitions.take_pending(slot);
        let (Some((first, _)), Some((last, _))) = (changes.first(), changes.last()) else { return Ok(()) };
        let (first, last) = (first.clone(), last.clone());
        let id = self.id;
        let corrupt = || DataflowError::Corrupt(format!("operator {id} (sessions): a row without a time"));
        let old = self.sessions(&self.partitions.get(slot).rows, &first, &last).ok_or_else(corrupt)?;
        self.partitions.apply(slot, changes)?;
        let partition = self.partitions.get(slot);
        let new = self.sessions(&partition.rows, &first, &last).ok_or_else(corrupt)?;
        let key = &partition.key;
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(o), Some(n)) => o.row.cmp(&n.row),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            match (before, after) {
                (Some(o), Some(n)) if (o.first, o.last) == (n.first, n.last) => {
                    leaving.push(key, &n, n.weight - o.weight);
                }
                (before, after) => {
                    before.iter().for_each(|o| leaving.push(key, o, -o.weight));
                    after.iter().for_each(|n| leaving.push(key, n, n.weight));
                }
            }
        }
    }

    fn emit(&self, leaving: Leaving, out: &mut Vec<DeltaBatch>) -> DfResult<()> {
        let count = leaving.rows.len();
        if count == 0 {
            return Ok(());
        }
        let mut columns: Vec<ArrayRef> = leaving.rows.decode(&self.partitions.layout)?;
        let width = columns.len();
        let ends = |minus: i64| leaving.lasts.iter().map(|l| l.saturating_add(self.spec.gap) - minus).collect();
        for (at, bounds) in [Int64Array::from(leaving.firsts.clone()), ends(0), ends(1)].into_iter().enumerate() {
            columns.push(from_millis(bounds, self.schema.field(width + at).data_type())?);
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        let weights = Int64Array::from(leaving.weights);
        for from in (0..count).step_by(BATCH_ROWS) {
            let length = BATCH_ROWS.min(count - from);
            out.push(DeltaBatch { rows: rows.slice(from, length), weights: Some(weights.slice(from, length)) });
        }
        Ok(())
    }

    fn emit_some(&mut self, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        let mut leaving = Leaving::default();
        let mut step = Step::Done;
        while let Some(slot) = self.partitions.touched().get(self.done).copied() {
            self.done += 1;
            self.change(slot, &mut leaving)?;
            if leaving.rows.len() >= BATCH_ROWS {
                step = Step::More;
                break;
            }
        }
        self.emit(leaving, out).map_err(failed(self.id, "sessions"))?;
        if step == Step::Done {
            self.partitions.end_epoch();
        }
        Ok(step)
    }

    /// Rows that have a time.
    fn timed(&self, batch: DeltaBatch) -> DfResult<DeltaBatch> {
        let times = batch.rows.column(self.spec.time);
        if times.null_count() == 0 {
            return Ok(batch);
        }
        let kept = is_not_null(times)?;
        let weights = batch.weights.as_ref().map(|w| filter(w, &kept)).transpose()?;
        let weights = weights.map(|w| w.as_primitive().clone());
        Ok(DeltaBatch { rows: filter_record_batch(&batch.rows, &kept)?, weights })
    }
}

impl Operator for SessionAssignOperator {
    fn process(
        &mut self,
        _: usize,
        batch: DeltaBatch,
        _: &EpochContext<'_>,
        _: &mut Vec<DeltaBatch>,
    ) -> Result<Step, DataflowError> {
        let batch = self.timed(batch).map_err(failed(self.id, "sessions"))?;
        self.partitions.gather(&batch, |_, _, _| true, |_| None)?;
        Ok(Step::Done)
    }

    fn resume(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.emit_some(out)
    }

    fn end_epoch(&mut self, _: &EpochContext<'_>, out: &mut Vec<DeltaBatch>) -> Result<Step, DataflowError> {
        self.done = 0;
        self.emit_some(out)
    }

    fn seal(&mut self) -> Result<Vec<StateChange>, DataflowError> {
        Ok(self.partitions.seal())
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), DataflowError> {
        self.partitions.restore(key, value).map(|_| ())
    }

    fn report(&self) -> StateReport {
        StateReport { keys: self.partitions.len(), bytes: self.partitions.bytes(), next_timer: None }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::TimestampMillisecondArray;
    use arrow::datatypes::{Field, Schema};
    use arrow::util::display::array_value_to_string;
    use millstream_plan::{Epoch, EpochPlan};

    use super::*;
    use crate::graph::{Ordered, SortColumn};

    fn schema(width: usize) -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let fields = [
            Field::new("t", time.clone(), true),
            Field::new("k", DataType::Int64, true),
            Field::new("window_start", time.clone(), false),
            Field::new("window_end", time.clone(), false),
            Field::new("window_time", time, false),
        ];
        Arc::new(Schema::new(fields[..width].to_vec()))
    }

    struct Sessions {
        operator: SessionAssignOperator,
        store: BTreeMap<Vec<u8>, Vec<u8>>,
    }

    impl Sessions {
        fn make() -> SessionAssignOperator {
            let order = vec![SortColumn { column: 0, descending: false, nulls_first: true }];
            let rows = Ordered { input: schema(2), partition: vec![1], order, append_only: false, close: None };
            let spec = Arc::new(SessionAssign { rows, time: 0, gap: 10 });
            SessionAssignOperator::new(OperatorId(7), &spec, schema(5)).unwrap()
        }

        /// (time, key, weight) in; `key time start-end:weight` out.
        fn try_epoch(&mut self, rows: &[(Option<i64>, i64, i64)]) -> Result<Vec<String>, DataflowError> {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|r| r.0).collect::<TimestampMillisecondArray>()),
                Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>()),
            ];
            let weights = Some(rows.iter().map(|r| r.2).collect());
            let batch = DeltaBatch { rows: RecordBatch::try_new(schema(2), columns).unwrap(), weights };
            let plan = EpochPlan {
                epoch: Epoch(1),
                now_ms: 0,
                sources: Vec::new(),
                checkpoint: false,
                flush: false,
                last: false,
            };
            let cx = EpochContext { plan: &plan };
            let mut out = Vec::new();
            self.operator.process(0, batch, &cx, &mut out)?;
            let mut step = self.operator.end_epoch(&cx, &mut out)?;
            while step == Step::More {
                step = self.operator.resume(&cx, &mut out)?;
            }
            let text = |b: &DeltaBatch, r: usize| {
                let millis =
                    |c: usize| b.rows.column(c).as_primitive::<arrow::datatypes::TimestampMillisecondType>().value(r);
                let weight = b.weights.as_ref().unwrap().value(r);
                let key = array_value_to_string(b.rows.column(1), r).unwrap();
                format!("{key} {} {}-{}:{weight:+}", millis(0), millis(2), millis(3))
            };
            let found = out.iter().flat_map(|b| (0..b.num_rows()).map(move |r| text(b, r))).collect();
            for change in self.operator.seal().unwrap() {
                match change.value {
                    Some(value) => self.store.insert(change.key, value),
                    None => self.store.remove(&change.key),
                };
            }
            self.operator = Self::make();
            for (key, value) in &self.store {
                self.operator.restore(key, value).unwrap();
            }
            Ok(found)
        }

        fn epoch(&mut self, rows: &[(i64, i64, i64)]) -> Vec<String> {
            self.try_epoch(&rows.iter().map(|r| (Some(r.0), r.1, r.2)).collect::<Vec<_>>()).unwrap()
        }
    }

    #[test]
    fn sessions_merge_and_split() {
        let mut sessions = Sessions { operator: Sessions::make(), store: BTreeMap::new() };
        assert_eq!(
            sessions.epoch(&[(0, 1, 1), (21, 1, 1), (-5, 2, 2)]),
            ["1 0 0-10:+1", "1 21 21-31:+1", "2 -5 -5-5:+2"]
        );
        // Exactly the gap from one and one more than the gap from the other.
        assert_eq!(sessions.epoch(&[(10, 1, 1)]), ["1 0 0-10:-1", "1 0 0-20:+1", "1 10 0-20:+1"]);
        let merged = [
            "1 0 0-20:-1",
            "1 0 0-31:+1",
            "1 10 0-20:-1",
            "1 10 0-31:+1",
            "1 11 0-31:+1",
            "1 21 21-31:-1",
            "1 21 0-31:+1",
        ];
        assert_eq!(sessions.epoch(&[(11, 1, 1)]), merged);
        // The row between goes, and so does one of two equal rows.
        let split = [
            "2 -5 -5-5:-1",
            "1 0 0-31:-1",
            "1 0 0-10:+1",
            "1 10 0-31:-1",
            "1 11 0-31:-1",
            "1 11 11-31:+1",
            "1 21 0-31:-1",
            "1 21 11-31:+1",
        ];
        assert_eq!(sessions.epoch(&[(-5, 2, -1), (10, 1, -1)]), split);
        assert_eq!(sessions.epoch(&[(-5, 2, -1), (3, 3, 1), (3, 3, -1)]), ["2 -5 -5-5:-1"]);
        assert_eq!(sessions.operator.report().keys, 1);
    }

    #[test]
    fn rows_without_a_time_have_no_session_and_absent_rows_cannot_go() {
        let mut sessions = Sessions { operator: Sessions::make(), store: BTreeMap::new() };
        assert_eq!(sessions.try_epoch(&[(None, 1, 1), (None, 1, -1)]).unwrap(), Vec::<String>::new());
        let error = sessions.try_epoch(&[(Some(4), 1, -1)]).unwrap_err().to_string();
        assert!(error.contains("a row is taken away that is not there"), "{error}");
    }
}

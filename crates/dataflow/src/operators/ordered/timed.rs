//! Partitions whose rows are ordered by event time first and wait for the watermark: what closing frames and row patterns share.
//!
//! A row has been **passed** when its time is below the watermark: no row before it can come any more, and all rows with its time are there.
//! Rows without a time come last, and are passed when the input has ended.
//!
//! **Due.** Of each partition it is known at which watermark there is something to do next. Partitions that are due are handed out in the order of
//! that moment, then of their keys.
//!
//! **Entries.** Those of [`Partitions`], and `w` → the watermark up to which rows have been passed.
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use hashbrown::HashMap;
use millstream_plan::OperatorId;

use super::{Kept, Partitions, Row};
use crate::graph::Ordered;
use crate::operators::StateChange;
use crate::{DataflowError, DeltaBatch};

/// Length of a timestamp in Arrow's row format: a byte that tells nulls, then the value.
const TIME_BYTES: usize = 9;
/// The first byte of a value that is not null.
const VALID: u8 = 1;
const WATERMARK: &[u8] = b"w";

/// A timestamp in the unit of its column, as far as it can be told from the bytes of a row.
fn time_of(row: &Row) -> Option<i64> {
    let (tag, value) = row.order().get(..TIME_BYTES)?.split_first()?;
    let value: [u8; 8] = value.try_into().ok()?;
    (*tag == VALID).then(|| (u64::from_be_bytes(value) ^ (1 << 63)) as i64)
}

/// The unit of a time column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    /// Milliseconds of one unit, if it is that long.
    long: i64,
    /// Units of a millisecond.
    short: i64,
}

impl Unit {
    fn of(data_type: &DataType) -> Option<Self> {
        let (long, short) = match data_type {
            DataType::Timestamp(TimeUnit::Second, _) => (1000, 1),
            DataType::Timestamp(TimeUnit::Millisecond, _) => (1, 1),
            DataType::Timestamp(TimeUnit::Microsecond, _) => (1, 1000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => (1, 1_000_000),
            _ => return None,
        };
        Some(Self { long, short })
    }

    /// The first watermark that has reached a time.
    fn reached(self, time: i64) -> i64 {
        let (floor, rest) = (time.div_euclid(self.short), time.rem_euclid(self.short));
        floor.saturating_add(i64::from(rest > 0)).saturating_mul(self.long)
    }

    /// The first watermark that has passed a time.
    fn passed(self, time: i64) -> i64 {
        time.div_euclid(self.short).saturating_mul(self.long).saturating_add(1)
    }

    /// The first time that a watermark has not passed.
    fn next(self, watermark: i64) -> i64 {
        let (floor, rest) = (watermark.div_euclid(self.long), watermark.rem_euclid(self.long));
        floor.saturating_add(i64::from(rest > 0)).saturating_mul(self.short)
    }

    /// The shortest span of units that is not shorter than so many milliseconds.
    fn span(self, ms: i64) -> i64 {
        let units = ms.saturating_mul(self.short);
        units.div_euclid(self.long).saturating_add(i64::from(units.rem_euclid(self.long) > 0))
    }
}

/// See the module.
pub(in crate::operators) struct TimedPartitions {
    id: OperatorId,
    pub partitions: Partitions,
    unit: Unit,
    /// Of the last epoch.
    before: i64,
    /// Of the epoch at hand; the same between epochs.
    watermark: i64,
    /// What the entry says.
    sealed: Option<i64>,
    due: HashMap<Arc<[u8]>, i64>,
    by_time: BTreeSet<(i64, Arc<[u8]>)>,
}

impl TimedPartitions {
    pub fn new(id: OperatorId, rows: &Ordered) -> Result<Self, DataflowError> {
        let wrong = |what: &str| DataflowError::Corrupt(format!("operator {id}: {what}"));
        let time = rows.order.first().ok_or_else(|| wrong("rows without an order wait for the watermark"))?;
        let unit = Unit::of(rows.input.field(time.column).data_type());
        let unit =
            unit.ok_or_else(|| wrong("rows wait for the watermark, but their order does not begin with a time"))?;
        if !rows.append_only || time.descending || time.nulls_first || rows.partition.contains(&time.column) {
            return Err(wrong("rows wait for the watermark that are not appended in order of time"));
        }
        Ok(Self {
            id,
            partitions: Partitions::new(id, rows, Kept::All)?,
            unit,
            before: i64::MIN,
            watermark: i64::MIN,
            sealed: None,
            due: HashMap::new(),
            by_time: BTreeSet::new(),
        })
    }

    pub fn gather(&mut self, batch: &DeltaBatch) -> Result<(), DataflowError> {
        if batch.weights.is_some() {
            return Err(DataflowError::Corrupt(format!("operator {}: weights on an append-only edge", self.id)));
        }
        self.partitions.gather(batch, |_, _, _| true, |_| None)
    }

    /// Takes in what has been gathered, and passes what the watermark has passed. Returns the partitions that got rows.
    pub fn begin(&mut self, watermark: i64) -> Result<Vec<Arc<[u8]>>, DataflowError> {
        self.watermark = watermark.max(self.before);
        let mut touched = Vec::with_capacity(self.partitions.touched().len());
        for slot in self.partitions.touched().to_vec() {
            let rows = self.partitions.take_pending(slot);
            let key = self.partitions.get(slot).key.clone();
            if let Some((row, _)) = rows.first().filter(|(row, _)| self.was_passed(row)) {
                let shown = self.partitions.layout.show(&key, row);
                let message = format!(
                    "operator {}: a row comes after the watermark {} has passed it: {shown}",
                    self.id, self.before
                );
                return Err(DataflowError::Corrupt(message));
            }
            self.partitions.apply(slot, rows)?;
            touched.push(key);
        }
        self.partitions.end_epoch();
        Ok(touched)
    }

    /// The epoch is done.
    pub fn finish(&mut self) {
        self.before = self.watermark;
    }

    /// All rows have come.
    pub fn has_ended(&self) -> bool {
        self.watermark == i64::MAX
    }

    /// The row's time, in the unit of its column; the last moment if it has none.
    pub fn time(row: &Row) -> i64 {
        time_of(row).unwrap_or(i64::MAX)
    }

    /// So many milliseconds in the unit of the column, rounded up.
    pub fn span(&self, ms: i64) -> i64 {
        self.unit.span(ms)
    }

    /// The earliest time that is so many milliseconds before any row that can come.
    pub fn needed_from(&self, ms: i64) -> i64 {
        self.unit.next(self.watermark).saturating_sub(self.unit.span(ms))
    }

    /// The watermark after which no row with an earlier time can come.
    pub fn reaches(&self, time: i64) -> i64 {
        self.unit.reached(time)
    }

    /// No row with an earlier time can come.
    pub fn has_reached(&self, time: i64) -> bool {
        self.watermark >= self.reaches(time)
    }

    pub fn is_passed(&self, row: &Row) -> bool {
        self.passes(row) <= self.watermark
    }

    /// In an earlier epoch.
    pub fn was_passed(&self, row: &Row) -> bool {
        self.passes(row) <= self.before
    }

    fn passes(&self, row: &Row) -> i64 {
        time_of(row).map_or(i64::MAX, |time| self.unit.passed(time))
    }

    /// When a partition's first row is passed of those that `watermark` has not passed.
    fn waiting(&self, slot: u32, watermark: i64) -> Option<i64> {
        if watermark == i64::MAX {
            return None;
        }
        let mut from = [VALID; TIME_BYTES];
        from[1..].copy_from_slice(&(self.unit.next(watermark) as u64 ^ (1 << 63)).to_be_bytes());
        self.partitions.get(slot).rows.from(&from).next().map(|(row, _)| self.passes(row))
    }

    /// Notes when there is something to do in a partition: when its next row is passed, or at another watermark if that comes first.
    pub fn schedule(&mut self, key: &Arc<[u8]>, slot: Option<u32>, other: Option<i64>) {
        let row = slot.and_then(|slot| self.waiting(slot, self.watermark));
        let next = row.into_iter().chain(other).min();
        let known = match next {
            Some(next) => self.due.insert(key.clone(), next),
            None => self.due.remove(key),
        };
        if known != next {
            if let Some(known) = known {
                self.by_time.remove(&(known, key.clone()));
            }
            self.by_time.extend(next.map(|next| (next, key.clone())));
        }
    }

    /// A partition that got a row that may be its next.
    pub fn hasten(&mut self, key: &Arc<[u8]>) {
        let waiting = self.partitions.find(key).and_then(|slot| self.waiting(slot, self.before));
        if let Some(next) = waiting
            && self.due.get(key).is_none_or(|known| next < *known)
        {
            if let Some(known) = self.due.insert(key.clone(), next) {
                self.by_time.remove(&(known, key.clone()));
            }
            self.by_time.insert((next, key.clone()));
        }
    }

    /// Takes the next partition that is due.
    pub fn next_due(&mut self) -> Option<Arc<[u8]>> {
        let (_, key) = self.by_time.first().filter(|(due, _)| *due <= self.watermark)?.clone();
        let due = self.due.remove(&key)?;
        self.by_time.remove(&(due, key.clone()));
        Some(key)
    }

    /// The watermark at which something is due; none if that is only the end of the input.
    pub fn next_timer(&self) -> Option<i64> {
        self.by_time.first().map(|(due, _)| *due).filter(|due| *due != i64::MAX)
    }

    /// All entries, in order; `others` are those of the operator, of which the first letter is before `p`.
    pub fn seal(&mut self, mut others: Vec<StateChange>) -> Vec<StateChange> {
        others.extend(self.partitions.seal());
        if self.sealed.replace(self.before) != Some(self.before) {
            others.push(StateChange { key: WATERMARK.to_vec(), value: Some(self.before.to_le_bytes().to_vec()) });
        }
        others
    }

    /// Takes an entry that is not the operator's. True for the last one, after which [`Self::reschedule`] is to be called.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<bool, DataflowError> {
        if key != WATERMARK {
            return self.partitions.restore(key, value).map(|_| false);
        }
        let value = value.try_into().map_err(|_| {
            DataflowError::Corrupt(format!("operator {}: the entry of the watermark is damaged", self.id))
        })?;
        let watermark = i64::from_le_bytes(value);
        (self.before, self.watermark, self.sealed) = (watermark, watermark, Some(watermark));
        Ok(true)
    }

    /// Schedules all partitions after a restore; `other` as for [`Self::schedule`].
    pub fn reschedule(&mut self, other: impl Fn(&[u8], &Self) -> Option<i64>) {
        let keys: Vec<(Arc<[u8]>, u32)> = self.partitions.keys().collect();
        for (key, slot) in keys {
            let other = other(&key, self);
            self.schedule(&key, Some(slot), other);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use arrow::array::{ArrayRef, TimestampMicrosecondArray};
    use arrow::compute::SortOptions;
    use arrow::row::{RowConverter, SortField};

    use super::*;

    #[test]
    fn times_are_read_from_the_bytes_of_rows() {
        let times = [Some(-5), Some(0), Some(i64::MIN), Some(i64::MAX), Some(1_595_000_000_123_456), None];
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()));
        let options = SortOptions { descending: false, nulls_first: false };
        let field = SortField::new_with_options(column.data_type().clone(), options);
        let rows = RowConverter::new(vec![field]).unwrap().convert_columns(&[column]).unwrap();
        let read: Vec<Option<i64>> = rows.iter().map(|r| time_of(&Row::new(r.data(), b"rest"))).collect();
        assert_eq!(read, times);
    }

    #[test]
    fn units() {
        let unit = |u| Unit::of(&DataType::Timestamp(u, None)).unwrap();
        let (s, ms, us) = (unit(TimeUnit::Second), unit(TimeUnit::Millisecond), unit(TimeUnit::Microsecond));
        assert_eq!((s.passed(7), ms.passed(7), us.passed(7_000), us.passed(7_999), us.passed(-1)), (7001, 8, 8, 8, 0));
        assert_eq!((s.reached(7), ms.reached(7), us.reached(7_000), us.reached(7_001)), (7000, 7, 7, 8));
        assert_eq!((s.next(7000), s.next(7001), ms.next(8), us.next(8)), (7, 8, 8, 8000));
        assert_eq!((s.span(1500), ms.span(1500), us.span(1500)), (2, 1500, 1_500_000));
    }
}

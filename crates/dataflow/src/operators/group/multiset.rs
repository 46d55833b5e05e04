//! Arguments of a group as an ordered multiset, for aggregates that sums do not determine: a retraction can reveal the next value.
//!
//! Values are ordered by the bytes of Arrow's row format: ORDER BY expressions first, with their directions, then the arguments, which
//! complete the order. Inside an epoch only the sum of a value's weights counts.
use std::collections::BTreeMap;
use std::ops::Bound;

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result;

/// Values of all groups, for calls with the same arguments, order and filter.
pub(super) struct Multiset {
    converter: RowConverter,
    /// By slot.
    groups: Vec<BTreeMap<Box<[u8]>, i64>>,
    /// Rows of the epoch: values by batch, and what they change.
    batches: Vec<Rows>,
    noted: Vec<Noted>,
    /// Values that changed since the last seal, maybe several times.
    changed: Vec<(u32, Box<[u8]>)>,
    entries: usize,
    bytes: usize,
}

/// Values that came to be there, or are there no longer; or changes of values by their weights.
#[derive(Default)]
pub(super) struct Transitions {
    pub slots: Vec<u32>,
    pub weights: Vec<i64>,
    values: Vec<Box<[u8]>>,
}

/// A row of the epoch that changes a group.
struct Noted {
    slot: u32,
    batch: u32,
    row: u32,
    weight: i64,
}

impl Transitions {
    fn push(&mut self, slot: u32, weight: i64, value: &[u8]) {
        self.slots.push(slot);
        self.weights.push(weight);
        self.values.push(value.into());
    }
}

impl Multiset {
    pub fn new(fields: Vec<SortField>) -> Result<Self> {
        let converter = RowConverter::new(fields)?;
        let (groups, batches, noted, changed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { converter, groups, batches, noted, changed, entries: 0, bytes: 0 })
    }

    pub fn grow(&mut self, slots: usize) {
        self.groups.resize(slots, BTreeMap::new());
    }

    /// Notes rows of the epoch.
    pub fn collect(
        &mut self,
        slots: &[u32],
        columns: &[ArrayRef],
        filter: Option<&BooleanArray>,
        weight: impl Fn(usize) -> i64,
    ) -> Result<()> {
        let passes = |row: usize| filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        let batch = self.batches.len() as u32;
        let rows = (0..slots.len()).filter(|r| weight(*r) != 0 && passes(*r));
        self.noted.extend(rows.map(|row| Noted { slot: slots[row], batch, row: row as u32, weight: weight(row) }));
        self.batches.push(self.converter.convert_columns(columns)?);
        Ok(())
    }

    /// Takes what was noted: each value once, with the sum of its weights, those that cancel left out.
    fn take_noted(&mut self) -> (Vec<Rows>, Vec<Noted>) {
        let (batches, mut noted) = (std::mem::take(&mut self.batches), std::mem::take(&mut self.noted));
        let value = |n: &Noted| batches[n.batch as usize].row(n.row as usize).data();
        noted.sort_unstable_by(|a, b| (a.slot, value(a)).cmp(&(b.slot, value(b))));
        noted.dedup_by(|next, kept| {
            let same = next.slot == kept.slot && value(next) == value(kept);
            if same {
                kept.weight += next.weight;
            }
            same
        });
        noted.retain(|n| n.weight != 0);
        (batches, noted)
    }

    /// Gives a value of a group a weight.
    fn set(&mut self, slot: u32, value: &[u8], before: i64, after: i64) {
        let group = &mut self.groups[slot as usize];
        if after == 0 {
            group.remove(value);
            self.entries -= 1;
            self.bytes -= value.len() + ENTRY_BYTES;
        } else if before == 0 {
            group.insert(value.into(), after);
            self.entries += 1;
            self.bytes += value.len() + ENTRY_BYTES;
        } else if let Some(weight) = group.get_mut(value) {
            *weight = after;
        }
        self.changed.push((slot, value.into()));
    }

    /// Applies what was noted. An error names a group from which a value was taken that it did not have.
    pub fn apply(&mut self) -> std::result::Result<Transitions, u32> {
        let (batches, noted) = self.take_noted();
        let mut transitions = Transitions::default();
        for Noted { slot, batch, row, weight } in noted {
            let value = batches[batch as usize].row(row as usize).data();
            let before = self.groups[slot as usize].get(value).copied().unwrap_or(0);
            let after = before + weight;
            if after < 0 {
                return Err(slot);
            }
            if (before == 0) != (after == 0) {
                transitions.push(slot, if before == 0 { 1 } else { -1 }, value);
            }
            self.set(slot, value, before, after);
        }
        Ok(transitions)
    }

    /// Applies what was noted without retractions of values that are not there, which are counted. Returns what was applied.
    pub fn apply_living(&mut self) -> (Transitions, u64) {
        let (batches, noted) = self.take_noted();
        let mut living = Transitions::default();
        let mut dropped = 0;
        for Noted { slot, batch, row, weight } in noted {
            let value = batches[batch as usize].row(row as usize).data();
            let before = self.groups[slot as usize].get(value).copied().unwrap_or(0);
            let after = (before + weight).max(0);
            dropped += (after - before - weight).unsigned_abs();
            if after != before {
                living.push(slot, after - before, value);
                self.set(slot, value, before, after);
            }
        }
        (living, dropped)
    }

    /// Forgets all values of a group.
    pub fn clear(&mut self, slot: u32) {
        for (value, _) in std::mem::take(&mut self.groups[slot as usize]) {
            self.entries -= 1;
            self.bytes -= value.len() + ENTRY_BYTES;
            self.changed.push((slot, value));
        }
    }

    /// The columns of these values.
    pub fn columns(&self, transitions: &Transitions) -> Result<Vec<ArrayRef>> {
        self.decode(transitions.values.iter().map(|v| &**v))
    }

    fn decode<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(values.map(|v| parser.parse(v)))?)
    }

    /// The first or last value of each group that is not null (a null comes first); null if there is none.
    pub fn ends(&self, slots: &[u32], last: bool) -> Result<Vec<ArrayRef>> {
        let null: Box<[u8]> = self.null()?;
        let end = |slot: &u32| {
            let group = &self.groups[*slot as usize];
            let found = match last {
                true => group.last_key_value(),
                false => group.range::<[u8], _>((Bound::Excluded(&*null), Bound::Unbounded)).next(),
            };
            found.map_or(&*null, |(value, _)| value)
        };
        self.decode(slots.iter().map(end))
    }

    fn null(&self) -> Result<Box<[u8]>> {
        let types = self.converter.convert_rows(std::iter::empty())?;
        let nulls: Vec<ArrayRef> = types.iter().map(|c| new_null_array(c.data_type(), 1)).collect();
        Ok(self.converter.convert_columns(&nulls)?.row(0).data().into())
    }

    /// All values of these groups in order, each as often as it is there (or once), with the position of its group.
    pub fn values(&self, slots: &[u32], once: bool) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        let (mut at, mut values): (Vec<usize>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        for (position, slot) in slots.iter().enumerate() {
            for (value, weight) in &self.groups[*slot as usize] {
                for _ in 0..if once { 1 } else { *weight } {
                    at.push(position);
                    values.push(value);
                }
            }
        }
        let columns = self.decode(values.into_iter())?;
        Ok((at, columns))
    }

    pub fn is_empty(&self, slot: u32) -> bool {
        self.groups[slot as usize].is_empty()
    }

    /// Values that changed since the last call, with their weights now (0: gone).
    pub fn take_changed(&mut self) -> Vec<(u32, Box<[u8]>, i64)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let weight = |slot: u32, value: &[u8]| self.groups[slot as usize].get(value).copied().unwrap_or(0);
        changed.into_iter().map(|(slot, value)| (slot, value.clone(), weight(slot, &value))).collect()
    }

    /// Takes an entry of a checkpoint.
    pub fn restore(&mut self, slot: u32, value: &[u8], weight: i64) {
        self.entries += 1;
        self.bytes += value.len() + ENTRY_BYTES;
        self.groups[slot as usize].insert(value.into(), weight);
    }

    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn bytes(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<BTreeMap<Box<[u8]>, i64>>()
    }
}

/// What an entry costs beside its value, about.
const ENTRY_BYTES: usize = 48;

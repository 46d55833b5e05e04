//! The partitions of an operator: what the epoch at hand changes in each, the rows it holds, and both as state entries.
//!
//! **Entries.** Of partitions that hold few rows, one per partition: `p ‖ partition` → `(weight, length of the order columns, length of the row,
//! row)…`. Of the others, one per row, so that a checkpoint costs what has changed: `r ‖ partition ‖ row` → `weight, length of the order columns, length
//! of the partition`. Numbers are little endian.
//!
//! **Memory.** A partition that the store has as it is can be let go of ([`Partitions::shrink`]) and is read again when one of its rows comes. From
//! then on a partition that is not in memory may still be in the store.
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use hashbrown::{HashMap, HashSet};
use millstream_plan::OperatorId;

use super::{Layout, Multiset, Row, bytes};
use crate::cold::ColdState;
use crate::graph::Ordered;
use crate::operators::{Footprint, StateChange};
use crate::{DataflowError, DeltaBatch};

/// How much of its rows a partition keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::operators) enum Kept {
    /// A few: the state has one entry per partition.
    Few,
    /// All: the state has one entry per row.
    All,
}

/// One partition.
pub(in crate::operators) struct Partition {
    pub key: Arc<[u8]>,
    pub rows: Multiset,
    /// Changes of the epoch at hand, as they came.
    pub pending: Vec<(Row, i64)>,
    /// Changes are consolidated when they are so many.
    shorten_at: usize,
    /// Rows after this one do not matter.
    pub bound: Option<Row>,
    /// Among the touched ones of this epoch.
    touched: bool,
    /// Changed since the last checkpoint.
    dirty: bool,
    /// The seal that wrote it last; 0: it was restored.
    sealed: u64,
    /// When a row of it came last.
    used: u64,
    /// Bytes of its key and rows.
    bytes: u64,
}

/// See the module.
pub(in crate::operators) struct Partitions {
    id: OperatorId,
    pub layout: Layout,
    kept: Kept,
    /// Only looked up, never iterated.
    index: HashMap<Arc<[u8]>, u32>,
    slots: Vec<Partition>,
    free: Vec<u32>,
    /// Partitions with changes in the epoch at hand, in order of the first.
    touched: Vec<u32>,
    /// Keys of partitions that changed since the last checkpoint, with repetition.
    dirty: Vec<Arc<[u8]>>,
    /// (partition, row) of rows that changed since the last checkpoint.
    changed: HashSet<RowKey>,
    bytes: u64,
    /// Bytes of partitions that changed since the last seal.
    unsealed: u64,
    cold: Option<Cold>,
    /// Seals so far.
    seals: u64,
    /// Counts batches, to find what was not used for longest.
    clock: u64,
}

/// Partition and row.
type RowKey = (Arc<[u8]>, Box<[u8]>);

/// Where partitions are that are not in memory.
struct Cold {
    store: Arc<dyn ColdState>,
    /// Bytes to keep while entries are restored.
    keep: u64,
    /// The partition that is being restored.
    restoring: Option<u32>,
    /// Partitions that only the store has, and their bytes.
    away: u64,
    away_bytes: u64,
}

/// What a row costs beside its bytes.
const ROW_BYTES: u64 = 48;
/// Gathered changes of a partition are consolidated for the first time when they are so many.
const SHORTEN_AT: usize = 256;

impl Partitions {
    pub fn new(id: OperatorId, spec: &Ordered, kept: Kept) -> Result<Self, DataflowError> {
        Ok(Self {
            id,
            layout: Layout::new(spec)?,
            kept,
            index: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
            dirty: Vec::new(),
            changed: HashSet::new(),
            bytes: 0,
            unsealed: 0,
            cold: None,
            seals: 0,
            clock: 0,
        })
    }

    /// See [`Operator::attach`](crate::operators::Operator::attach).
    pub fn attach(&mut self, store: Arc<dyn ColdState>, keep: u64) {
        self.cold = Some(Cold { store, keep, restoring: None, away: 0, away_bytes: 0 });
    }

    /// Partitions that hold rows.
    pub fn len(&self) -> u64 {
        self.index.len() as u64 + self.cold.as_ref().map_or(0, |c| c.away)
    }

    /// Bytes of all partitions.
    pub fn bytes(&self) -> u64 {
        self.resident() + self.cold.as_ref().map_or(0, |c| c.away_bytes)
    }

    fn resident(&self) -> u64 {
        self.bytes + self.slots.len() as u64 * size_of::<Partition>() as u64
    }

    pub fn footprint(&self) -> Footprint {
        Footprint { resident: self.resident(), unsealed: self.unsealed }
    }

    /// Lets go of partitions that the store has, those that were not used for longest first, until about `keep` bytes are in memory.
    pub fn shrink(&mut self, keep: u64) {
        let Some(cold) = &self.cold else { return };
        let (readable, mut resident) = (cold.store.stored_seals(), self.resident());
        let mut order: Vec<(u64, u32)> = Vec::new();
        for (slot, at) in self.slots.iter().enumerate() {
            let is_idle = !at.touched && !at.dirty && at.sealed <= readable && !at.rows.is_empty();
            if is_idle && at.pending.is_empty() {
                order.push((at.used, slot as u32));
            }
        }
        order.sort_unstable();
        for (_, slot) in order {
            if resident <= keep {
                break;
            }
            resident = resident.saturating_sub(self.slots[slot as usize].bytes + size_of::<Partition>() as u64);
            self.let_go(slot);
        }
        self.compact();
    }

    /// Forgets a partition that the store has.
    fn let_go(&mut self, slot: u32) {
        let at = &mut self.slots[slot as usize];
        self.index.remove(&at.key);
        (at.rows, at.bound) = (Multiset::default(), None);
        let bytes = std::mem::take(&mut at.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.free.push(slot);
        if let Some(cold) = &mut self.cold {
            (cold.away, cold.away_bytes) = (cold.away + 1, cold.away_bytes + bytes);
        }
    }

    /// Gives the memory of free slots back when most are free. Slots have no meaning between epochs.
    fn compact(&mut self) {
        if self.free.len() < 1024 || self.free.len() * 2 < self.slots.len() || !self.touched.is_empty() {
            return;
        }
        let mut is_free = vec![false; self.slots.len()];
        std::mem::take(&mut self.free).into_iter().for_each(|slot| is_free[slot as usize] = true);
        let mut kept = 0;
        let mut old = 0;
        self.slots.retain(|at| {
            let keep = !is_free[old];
            if keep {
                if let Some(slot) = self.index.get_mut(&at.key) {
                    *slot = kept;
                }
                kept += 1;
            }
            old += 1;
            keep
        });
        self.slots.shrink_to_fit();
    }

    /// Reads those of these partitions that are not in memory from the store, if they may be there.
    fn fetch<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        shorten: impl Fn(&mut Vec<(Row, i64)>) -> Option<Row>,
    ) -> Result<(), DataflowError> {
        let Some(store) = self.cold.as_ref().filter(|c| c.away > 0).map(|c| c.store.clone()) else { return Ok(()) };
        let mut wanted: Vec<&[u8]> = keys.filter(|key| !self.index.contains_key(*key)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let entries = match self.kept {
            Kept::Few => {
                let keys: Vec<Vec<u8>> = wanted.iter().map(|key| [b"p", *key].concat()).collect();
                let values = store.get(self.id, &keys)?;
                keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
            }
            Kept::All => {
                let mut entries = Vec::new();
                for key in wanted {
                    entries.extend(store.scan(self.id, &[b"r", key].concat())?);
                }
                entries
            }
        };
        let mut fetched = Vec::new();
        for (key, value) in entries {
            let slot = self.take_entry(&key, &value)?;
            if fetched.last() != Some(&slot) {
                fetched.push(slot);
            }
        }
        for slot in fetched {
            let at = &mut self.slots[slot as usize];
            let mut rows: Vec<(Row, i64)> = at.rows.iter().map(|(row, weight)| (row.clone(), weight)).collect();
            at.bound = shorten(&mut rows);
            if let Some(cold) = &mut self.cold {
                cold.away = cold.away.saturating_sub(1);
                cold.away_bytes = cold.away_bytes.saturating_sub(at.bytes);
            }
        }
        Ok(())
    }

    pub fn get(&self, slot: u32) -> &Partition {
        &self.slots[slot as usize]
    }

    pub fn get_mut(&mut self, slot: u32) -> &mut Partition {
        &mut self.slots[slot as usize]
    }

    pub fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.get(key).copied()
    }

    fn slot(&mut self, key: &[u8]) -> u32 {
        if let Some(slot) = self.index.get(key) {
            return *slot;
        }
        let key: Arc<[u8]> = key.into();
        let partition = Partition {
            key: key.clone(),
            rows: Multiset::default(),
            pending: Vec::new(),
            shorten_at: SHORTEN_AT,
            bound: None,
            touched: false,
            dirty: false,
            sealed: 0,
            used: self.clock,
            bytes: key.len() as u64,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = partition;
                slot
            }
            None => {
                self.slots.push(partition);
                self.slots.len() as u32 - 1
            }
        };
        self.bytes += key.len() as u64;
        self.index.insert(key, slot);
        slot
    }

    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Takes the changes of a batch. `wanted` says whether a row with these order and other columns can matter to a partition with a bound;
    /// it is asked without the other columns first, so that most rows that do not matter need not be encoded. `shorten` leaves
    /// out what need not be gathered of consolidated changes, and may give the partition a bound.
    pub fn gather(
        &mut self,
        batch: &DeltaBatch,
        wanted: impl Fn(&Row, &[u8], Option<&[u8]>) -> bool,
        shorten: impl Fn(&mut Vec<(Row, i64)>) -> Option<Row>,
    ) -> Result<(), DataflowError> {
        let partition = self.layout.partition.encode(&batch.rows)?;
        self.clock += 1;
        self.fetch((0..batch.num_rows()).map(|i| bytes(partition.as_ref(), i)), &shorten)?;
        let order = self.layout.order.encode(&batch.rows)?;
        let mut slots = Vec::with_capacity(batch.num_rows());
        let mut rows: Vec<u32> = Vec::with_capacity(batch.num_rows());
        for i in 0..batch.num_rows() {
            let slot = self.slot(bytes(partition.as_ref(), i));
            self.slots[slot as usize].used = self.clock;
            let bound = self.slots[slot as usize].bound.as_ref();
            if bound.is_none_or(|bound| wanted(bound, bytes(order.as_ref(), i), None)) {
                slots.push(slot);
                rows.push(i as u32);
            }
        }
        let rest = match rows.len() == batch.num_rows() {
            true => self.layout.rest.encode(&batch.rows)?,
            false => self.layout.rest.encode(&take_record_batch(&batch.rows, &UInt32Array::from(rows.clone()))?)?,
        };
        for (n, (row, slot)) in rows.into_iter().zip(slots).enumerate() {
            let at = &mut self.slots[slot as usize];
            let (order, rest) = (bytes(order.as_ref(), row as usize), bytes(rest.as_ref(), n));
            if at.bound.as_ref().is_some_and(|bound| !wanted(bound, order, Some(rest))) {
                continue;
            }
            at.pending.push((Row::new(order, rest), batch.weights.as_ref().map_or(1, |w| w.value(row as usize))));
            if at.pending.len() >= at.shorten_at {
                consolidate(&mut at.pending);
                // A bound of the rows that are there already may be nearer.
                if let Some(bound) = shorten(&mut at.pending)
                    && at.bound.as_ref().is_none_or(|known| bound < *known)
                {
                    at.bound = Some(bound);
                }
                at.shorten_at = SHORTEN_AT.max(2 * at.pending.len());
            }
            if !std::mem::replace(&mut at.touched, true) {
                self.touched.push(slot);
            }
        }
        Ok(())
    }

    /// Partitions with changes in this epoch, in order of the first change.
    pub fn touched(&self) -> &[u32] {
        &self.touched
    }

    /// Takes the epoch's changes of a partition, consolidated.
    pub fn take_pending(&mut self, slot: u32) -> Vec<(Row, i64)> {
        let mut pending = std::mem::take(&mut self.slots[slot as usize].pending);
        consolidate(&mut pending);
        pending
    }

    /// Adds consolidated changes to a partition.
    pub fn apply(&mut self, slot: u32, changes: Vec<(Row, i64)>) -> Result<(), DataflowError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.mark(slot);
        let at = &mut self.slots[slot as usize];
        for (row, weight) in changes {
            let (length, size) = (at.rows.len(), row.bytes().len() as u64 + ROW_BYTES);
            if self.kept == Kept::All {
                self.changed.insert((at.key.clone(), row.bytes().into()));
            }
            if let Err(row) = at.rows.add(row, weight) {
                let shown = self.layout.show(&at.key, &row);
                return Err(DataflowError::Corrupt(format!(
                    "operator {}: a row is taken away that is not there: {shown}",
                    self.id
                )));
            }
            if at.rows.len() > length {
                at.bytes += size;
                self.bytes += size;
                self.unsealed += size;
            } else if at.rows.len() < length {
                at.bytes = at.bytes.saturating_sub(size);
                self.bytes = self.bytes.saturating_sub(size);
            }
        }
        Ok(())
    }

    /// Keeps the first rows of a partition that has just been changed; see [`Multiset::truncate`].
    pub fn truncate(&mut self, slot: u32, keep: usize, weight: i64) {
        let at = &mut self.slots[slot as usize];
        // The last row that stays may change its weight.
        let changed = at.rows.iter().skip(keep.saturating_sub(1)).map(|(r, _)| r);
        if self.kept == Kept::All {
            self.changed.extend(changed.clone().map(|r| (at.key.clone(), r.bytes().into())));
        }
        let gone = changed.skip(usize::from(keep > 0)).map(|r| r.bytes().len() as u64 + ROW_BYTES);
        let bytes: u64 = gone.sum();
        at.rows.truncate(keep, weight);
        at.bytes = at.bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Empties a partition.
    pub fn take_rows(&mut self, slot: u32) -> Vec<(Row, i64)> {
        self.mark(slot);
        let at = &mut self.slots[slot as usize];
        let rows: Vec<(Row, i64)> = match std::mem::take(&mut at.rows) {
            Multiset::Small(rows) => rows,
            Multiset::Large(rows) => rows.into_iter().collect(),
        };
        if self.kept == Kept::All {
            let key = &self.slots[slot as usize].key;
            self.changed.extend(rows.iter().map(|(r, _)| (key.clone(), r.bytes().into())));
        }
        let bytes: u64 = rows.iter().map(|(r, _)| r.bytes().len() as u64 + ROW_BYTES).sum();
        self.slots[slot as usize].bytes = self.slots[slot as usize].bytes.saturating_sub(bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        rows
    }

    fn mark(&mut self, slot: u32) {
        let at = &mut self.slots[slot as usize];
        if !std::mem::replace(&mut at.dirty, true) {
            self.dirty.push(at.key.clone());
            self.unsealed += at.bytes;
        }
    }

    /// Forgets a partition if it is empty.
    pub fn drop_if_empty(&mut self, slot: u32) {
        let at = &mut self.slots[slot as usize];
        if !at.rows.is_empty() || !at.pending.is_empty() {
            return;
        }
        if self.index.remove(&at.key).is_some() {
            self.bytes = self.bytes.saturating_sub(std::mem::take(&mut at.bytes));
            self.free.push(slot);
        }
    }

    /// The epoch's changes have been taken.
    pub fn end_epoch(&mut self) {
        for slot in std::mem::take(&mut self.touched) {
            self.slots[slot as usize].touched = false;
            self.drop_if_empty(slot);
        }
    }

    /// See [`Operator::seal`](crate::operators::Operator::seal).
    pub fn seal(&mut self) -> Vec<StateChange> {
        (self.seals, self.unsealed) = (self.seals + 1, 0);
        let mut keys = std::mem::take(&mut self.dirty);
        keys.sort_unstable();
        keys.dedup();
        let mut sealed = Vec::with_capacity(keys.len() + self.changed.len());
        for key in keys {
            let at = self.index.get(&key).map(|slot| &mut self.slots[*slot as usize]);
            let at = at.map(|at| {
                (at.dirty, at.sealed) = (false, self.seals);
                &*at
            });
            if self.kept == Kept::Few {
                let value = at.map(|at| encode_partition(&at.rows));
                sealed.push(StateChange { key: [b"p", &*key].concat(), value });
            }
        }
        let mut rows: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        rows.sort_unstable();
        for (key, row) in rows {
            let entry = [b"r", &*key, &*row].concat();
            let rows = self.index.get(&key).map(|slot| &self.slots[*slot as usize].rows);
            let found = rows.and_then(|r| r.from(&row).next()).filter(|(r, _)| r.bytes() == &*row);
            let value = found.map(|(r, weight)| encode_row(weight, r, key.len()));
            sealed.push(StateChange { key: entry, value });
        }
        sealed
    }

    /// Takes one entry; returns its partition.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<u32, DataflowError> {
        let slot = self.take_entry(key, value)?;
        let resident = self.resident();
        if let Some(cold) = &mut self.cold {
            // A partition is complete when the next one comes.
            let before = cold.restoring.replace(slot).filter(|before| *before != slot && resident > cold.keep);
            before.into_iter().for_each(|before| self.let_go(before));
        }
        Ok(slot)
    }

    fn take_entry(&mut self, key: &[u8], value: &[u8]) -> Result<u32, DataflowError> {
        self.try_restore(key, value)
            .ok_or_else(|| DataflowError::Corrupt(format!("operator {}: a state entry is damaged", self.id)))
    }

    fn try_restore(&mut self, key: &[u8], mut value: &[u8]) -> Option<u32> {
        let (tag, key) = key.split_first()?;
        let mut add = |partition: &[u8], row: Row, weight: i64| {
            let slot = self.slot(partition);
            let (at, bytes) = (&mut self.slots[slot as usize], row.bytes().len() as u64 + ROW_BYTES);
            at.bytes += bytes;
            self.bytes += bytes;
            at.rows.add(row, weight).ok()?;
            Some(slot)
        };
        match tag {
            b'r' => {
                let (weight, order, partition) =
                    (number(&mut value, 8)?, number(&mut value, 4)?, number(&mut value, 4)?);
                let (partition, row) = key.split_at_checked(partition as usize)?;
                add(partition, Row::from_bytes(row, order as u32)?, weight as i64)
            }
            b'p' => {
                let mut slot = None;
                while !value.is_empty() {
                    let (weight, order, length) =
                        (number(&mut value, 8)?, number(&mut value, 4)?, number(&mut value, 4)?);
                    let (row, rest) = value.split_at_checked(length as usize)?;
                    value = rest;
                    slot = Some(add(key, Row::from_bytes(row, order as u32)?, weight as i64)?);
                }
                slot
            }
            _ => None,
        }
    }
}

/// Sums the weights of equal rows and leaves out what cancels. The result is in row order.
fn consolidate(rows: &mut Vec<(Row, i64)>) {
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    rows.retain(|(_, weight)| *weight != 0);
}

fn encode_partition(rows: &Multiset) -> Vec<u8> {
    let mut value = Vec::new();
    for (row, weight) in rows.iter() {
        value.extend_from_slice(&weight.to_le_bytes());
        value.extend_from_slice(&(row.order().len() as u32).to_le_bytes());
        value.extend_from_slice(&(row.bytes().len() as u32).to_le_bytes());
        value.extend_from_slice(row.bytes());
    }
    value
}

fn encode_row(weight: i64, row: &Row, partition: usize) -> Vec<u8> {
    let mut value = weight.to_le_bytes().to_vec();
    value.extend_from_slice(&(row.order().len() as u32).to_le_bytes());
    value.extend_from_slice(&(partition as u32).to_le_bytes());
    value
}

/// Takes a little endian number of `width` bytes off the front.
fn number(from: &mut &[u8], width: usize) -> Option<u64> {
    let (taken, rest) = from.split_at_checked(width)?;
    *from = rest;
    Some(taken.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

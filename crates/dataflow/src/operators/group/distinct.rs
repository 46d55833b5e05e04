//! Values that a group has seen, for DISTINCT calls over append-only input.
//!
//! A value is an entry of its own, so a checkpoint writes only the values that are new since the last one. With each value stands for
//! which calls of the set it has counted: one call may filter what another takes.
use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

pub(super) struct DistinctSet {
    converter: RowConverter,
    table: HashTable<u32>,
    /// Entries in order of first appearance: group, calls for which the value counts, value.
    groups: Vec<u32>,
    calls: Vec<u64>,
    values: Rows,
    /// Entries that changed since they were last asked for, maybe several times.
    changed: Vec<u32>,
}

fn hash(group: u32, value: &[u8]) -> u64 {
    xxh3_64(value) ^ u64::from(group).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl DistinctSet {
    pub fn new(types: impl Iterator<Item = DataType>) -> Result<Self> {
        let converter = RowConverter::new(types.map(SortField::new).collect())?;
        let values = converter.empty_rows(0, 0);
        Ok(Self {
            converter,
            table: HashTable::new(),
            groups: Vec::new(),
            calls: Vec::new(),
            values,
            changed: Vec::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub fn bytes(&self) -> usize {
        self.values.size() + self.groups.capacity() * 12 + self.table.capacity() * 5
    }

    /// Adds the value of each row to a group, for the calls in its mask. Returns for each row the calls for which it is new.
    pub fn add(
        &mut self,
        arguments: &[ArrayRef],
        groups: impl Iterator<Item = u32>,
        masks: impl Iterator<Item = u64>,
    ) -> Result<Vec<u64>> {
        let rows = self.converter.convert_columns(arguments)?;
        let mut fresh = Vec::with_capacity(rows.num_rows());
        for ((row, group), mask) in rows.iter().zip(groups).zip(masks) {
            if mask == 0 {
                fresh.push(0);
                continue;
            }
            let hash = hash(group, row.data());
            let known = self.table.find(hash, |e| {
                let e = *e as usize;
                self.groups[e] == group && self.values.row(e) == row
            });
            match known {
                Some(entry) => {
                    let calls = &mut self.calls[*entry as usize];
                    let new = mask & !*calls;
                    if new != 0 {
                        *calls |= new;
                        self.changed.push(*entry);
                    }
                    fresh.push(new);
                }
                None => {
                    self.values.push(row);
                    self.insert(hash, group, mask);
                    self.changed.push(self.groups.len() as u32 - 1);
                    fresh.push(mask);
                }
            }
        }
        Ok(fresh)
    }

    /// The value has been pushed.
    fn insert(&mut self, of: u64, group: u32, mask: u64) {
        self.groups.push(group);
        self.calls.push(mask);
        let entry = self.groups.len() as u32 - 1;
        let (groups, values) = (&self.groups, &self.values);
        self.table.insert_unique(of, entry, |e| hash(groups[*e as usize], values.row(*e as usize).data()));
    }

    /// Takes an entry of a checkpoint.
    pub fn restore(&mut self, group: u32, value: &[u8], mask: u64) {
        let parser = self.converter.parser();
        self.values.push(parser.parse(value));
        self.insert(hash(group, value), group, mask);
    }

    /// Entries that changed since the last call, as (group, value, calls).
    pub fn take_changed(&mut self) -> Vec<(u32, &[u8], u64)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let entry = |e: u32| {
            let e = e as usize;
            (self.groups[e], self.values.row(e).data(), self.calls[e])
        };
        changed.into_iter().map(entry).collect()
    }

    /// Takes everything out as (group, calls, argument columns), in order of first appearance.
    pub fn take(&mut self) -> Result<(Vec<u32>, Vec<u64>, Vec<ArrayRef>)> {
        let columns = self.converter.convert_rows(self.values.iter())?;
        self.values = self.converter.empty_rows(0, 0);
        self.table.clear();
        self.changed.clear();
        Ok((std::mem::take(&mut self.groups), std::mem::take(&mut self.calls), columns))
    }
}

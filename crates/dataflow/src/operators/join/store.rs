//! What a checkpoint holds of one side.
//!
//! A checkpoint writes the rows that arrived since the last one as new parts of at most [`FULL_ROWS`] rows, and for older parts a **patch** with the
//! rows whose weight or count changed. Eight parts of one level that are not full become one of the next: a row is written again a few
//! times at most, and a side of n rows has about n / [`FULL_ROWS`] parts. A part is what is read when one of its rows is needed and not in
//! memory. A part that is half gone, or has been patched as often as it has
//! rows, is written again without what is gone.
//!
//! All of this is decided from numbers that a restored side has too, so that it writes the same entries as one that never stopped.
//!
//! | entry | value |
//! |---|---|
//! | `side, 0, part` | level, Arrow IPC stream: columns, `__weight`, `__count` as far as the side has them |
//! | `side, 1, part, patch` | row (u32), weight (i64), count (i64), little endian, repeated; weight 0: gone |
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::Result;

use super::keys::Keys;
use super::side::{Side, StoredPart};
use crate::ipc;

/// A part with so many rows is not merged any more.
pub(super) const FULL_ROWS: usize = 1 << 12;
/// Level of such a part.
const FULL: u8 = u8::MAX;
/// So many parts of a level become one.
const FAN: usize = 8;
/// More parts than this, beyond what the rows need, are written together.
const MANY_PARTS: usize = 64;
/// As many holes are renumbered away.
const MANY_HOLES: usize = 1024;

const PART: u8 = 0;
const PATCH: u8 = 1;
/// Bytes of a row in a patch.
const PATCH_ROW: usize = 20;

/// Entries by key; `None` deletes.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

pub(super) fn part_key(tag: u8, part: u32) -> Vec<u8> {
    [&[tag, PART][..], &part.to_be_bytes()].concat()
}

fn patch_key(tag: u8, part: u32, patch: u32) -> Vec<u8> {
    [&[tag, PATCH][..], &part.to_be_bytes(), &patch.to_be_bytes()].concat()
}

/// A row of a patch.
struct Patched {
    row: u32,
    weight: i64,
    count: i64,
}

impl Side {
    fn stored_schema(&self) -> SchemaRef {
        let mut fields: Vec<_> = self.schema.fields().iter().cloned().collect();
        for (name, there) in [("__weight", self.traits.weights), ("__count", self.traits.counts)] {
            fields.extend(there.then(|| Arc::new(Field::new(name, DataType::Int64, false))));
        }
        Arc::new(Schema::new(fields))
    }

    /// The entries of a part will be deleted, unless a part is written under the same number.
    pub(super) fn forget_entries(&mut self, number: u32) {
        self.killed.remove(&number);
        let part = &mut self.parts[(number - self.first) as usize];
        if part.stored {
            self.deleted.push(part_key(self.tag, number));
            self.deleted.extend((0..part.patches).map(|patch| patch_key(self.tag, number, patch)));
            (part.stored, part.patches, part.patched) = (false, 0, 0);
        }
    }

    /// Adds what has changed since the last seal.
    pub fn seal(&mut self, changes: &mut Changes) -> Result<()> {
        self.seals += 1;
        self.drop_dead_parts();
        self.merge_new()?;
        let mut patches = self.take_patches();
        for i in 0..self.parts.len() {
            let (number, part) = (self.first + i as u32, &self.parts[i]);
            let rows = part.len;
            let patched = part.patched + patches.get(&number).map_or(0, Vec::len);
            if part.stored && rows > 0 && (part.live * 2 < rows || patched > rows) {
                self.rewrite_part(i)?;
            }
        }
        let parts = self.parts.iter().filter(|p| !p.is_hole()).count();
        if parts > MANY_PARTS + 4 * self.live / FULL_ROWS || self.parts.len() > 2 * parts + MANY_HOLES {
            self.rewrite()?;
        }
        changes.extend(self.deleted.drain(..).map(|key| (key, None)));
        for i in 0..self.parts.len() {
            let (number, part) = (self.first + i as u32, &self.parts[i]);
            if part.is_hole() {
                continue;
            }
            if !part.stored {
                changes.insert(part_key(self.tag, number), Some(self.encode_part(i)?));
                let part = &mut self.parts[i];
                (part.stored, part.sealed) = (true, self.seals);
            } else if let Some(rows) = patches.remove(&number) {
                changes.insert(patch_key(self.tag, number, part.patches), Some(encode_patch(&rows)));
                let part = &mut self.parts[i];
                part.patches += 1;
                part.patched += rows.len();
            }
        }
        self.changed.clear();
        self.killed.clear();
        Ok(())
    }

    /// What arrived becomes a part; then eight parts of a level become one.
    fn merge_new(&mut self) -> Result<()> {
        let from = self.parts.iter().position(|p| p.level.is_none()).unwrap_or(self.parts.len());
        if from < self.parts.len() {
            self.merge(from, FULL_ROWS, FULL, 0)?;
        }
        loop {
            let last: Vec<usize> =
                (0..self.parts.len()).rev().filter(|i| !self.parts[*i].is_hole()).take(FAN).collect();
            let level = last.first().and_then(|i| self.parts[*i].level).unwrap_or(FULL);
            let same = last.iter().all(|i| self.parts[*i].level == Some(level));
            let (Some(from), true, true) = (last.last(), last.len() == FAN && same, level != FULL) else {
                return Ok(());
            };
            self.merge(*from, FULL_ROWS, FULL, level + 1)?;
        }
    }

    /// Changed weights and counts by part.
    fn take_patches(&mut self) -> BTreeMap<u32, Vec<Patched>> {
        let mut patches: BTreeMap<u32, Vec<Patched>> = BTreeMap::new();
        for (part, rows) in std::mem::take(&mut self.killed) {
            patches.entry(part).or_default().extend(rows.into_iter().map(|row| Patched { row, weight: 0, count: 0 }));
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        for id in changed.into_iter().filter(|id| self.is_live(*id)) {
            let (part, row) = self.place_of(id);
            if self.part(part).stored {
                let count = if self.traits.counts { self.count(id) } else { 0 };
                patches.entry(part).or_default().push(Patched { row, weight: self.weight(id), count });
            }
        }
        patches.values_mut().for_each(|rows| rows.sort_by_key(|r| r.row));
        patches
    }

    /// All rows into full parts with new numbers.
    fn rewrite(&mut self) -> Result<()> {
        let ids: Vec<u64> = self.parts.iter().flat_map(|p| self.ids_of(p)).collect();
        let start = self.first + self.parts.len() as u32;
        let mut parts = VecDeque::new();
        for ids in ids.chunks(FULL_ROWS) {
            let (Some(first), Some(last)) = (ids.first(), ids.last()) else { continue };
            let level = if ids.len() == FULL_ROWS { FULL } else { 0 };
            parts.push_back(self.part_with(ids, *first, last + 1, Some(level))?);
        }
        (self.first..start).for_each(|number| self.forget_entries(number));
        self.parts = parts;
        self.first = start;
        Ok(())
    }

    /// A part that was just made: all its rows are alive.
    fn encode_part(&self, at: usize) -> Result<Vec<u8>> {
        let part = &self.parts[at];
        let mut columns: Vec<ArrayRef> = self.rows_of(&[at])?.iter().flat_map(|rows| rows.columns().to_vec()).collect();
        if self.traits.weights {
            let weights: Int64Array = self.ids_of(part).map(|id| self.weight(id)).collect();
            columns.push(Arc::new(weights) as ArrayRef);
        }
        if self.traits.counts {
            let counts: Int64Array = self.ids_of(part).map(|id| self.count(id)).collect();
            columns.push(Arc::new(counts));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(part.len));
        let rows = RecordBatch::try_new_with_options(self.stored_schema(), columns, &options)?;
        let mut value = vec![part.level.unwrap_or(0)];
        value.extend(ipc::encode(&rows)?);
        Ok(value)
    }

    /// The rows of a part, and their weights and counts as far as the side has them.
    pub(super) fn decode_part(&self, bytes: &[u8]) -> Result<(RecordBatch, Vec<ArrayRef>)> {
        let rows = ipc::decode(bytes, &self.stored_schema())?;
        let (own, extra) = rows.columns().split_at(self.schema.fields().len());
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let own = RecordBatch::try_new_with_options(self.schema.clone(), own.to_vec(), &options)?;
        Ok((own, extra.to_vec()))
    }

    /// Takes an entry; `key` is without the side. What is wrong with it, if it is not one of this side's.
    pub fn restore_entry(
        &mut self,
        keys: &mut Keys,
        key: &[u8],
        value: &[u8],
        watermark: i64,
    ) -> std::result::Result<(), String> {
        let number = |at: usize| Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?));
        match (key.first(), key.len(), number(1)) {
            (Some(&PART), 5, Some(part)) => {
                let (level, bytes) = value.split_first().ok_or("no level")?;
                let (rows, extra) = self.decode_part(bytes).map_err(|e| format!("unreadable rows: {e}"))?;
                let extra = |i: usize| extra.get(i).map(|c| c.as_primitive::<Int64Type>().clone());
                let weights = if self.traits.weights { extra(0) } else { None };
                let counts = if self.traits.counts { extra(usize::from(self.traits.weights)) } else { None };
                let values = |column: &Option<Int64Array>| column.as_ref().map_or(Vec::new(), |c| c.values().to_vec());
                let (weights, counts) = (values(&weights), values(&counts));
                let part = StoredPart { number: part, level: *level, rows, weights, counts };
                self.restore(keys, part, watermark).map_err(|e| e.to_string())
            }
            (Some(&PATCH), 9, Some(part)) => {
                let (rows, rest) = value.as_chunks::<PATCH_ROW>();
                if !rest.is_empty() {
                    return Err("a patch of a wrong length".to_owned());
                }
                for bytes in rows {
                    let patched = decode_patched(bytes).ok_or("an unreadable patch")?;
                    if !self.restore_change(part, patched.row, patched.weight, patched.count) {
                        return Err(format!("a patch of row {} of part {part}, which is not there", patched.row));
                    }
                }
                self.restored_patch(part, rows.len());
                Ok(())
            }
            _ => Err("a wrong key".to_owned()),
        }
    }
}

fn encode_patch(rows: &[Patched]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * PATCH_ROW);
    for patched in rows {
        bytes.extend(patched.row.to_le_bytes());
        bytes.extend(patched.weight.to_le_bytes());
        bytes.extend(patched.count.to_le_bytes());
    }
    bytes
}

fn decode_patched(bytes: &[u8; PATCH_ROW]) -> Option<Patched> {
    Some(Patched {
        row: u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?),
        weight: i64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?),
        count: i64::from_le_bytes(bytes.get(12..)?.try_into().ok()?),
    })
}

//! The rows of one side of a join.
//!
//! Every row has an **id**, ascending in order of arrival. Rows stand in **parts** (record batches, never changed once they are there);
//! `loc` says where, `next` chains the ids of one key, newest first, from `heads`. A row that is gone has no place any more; chains lose it
//! when they are walked next, so that removing costs nothing and each removed row is passed once.
//!
//! A side whose input takes rows back has one row per distinct content, with a weight, and finds it by a hash of its row encoding.
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::{DataFusionError, Result};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::keys::{Keys, NO_SLOT};
use crate::graph::{JoinInput, Retention};
use crate::times::to_millis;

/// No row, no place.
pub(super) const NONE: u64 = u64::MAX;

/// What is kept beside a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// Rows can go before their time: each has a weight.
    pub weights: bool,
    /// Rows are found by content; needs weights.
    pub content: bool,
    /// The weight of the rows that match it, after the residual.
    pub counts: bool,
}

/// Rows that arrived, or were sealed, together.
pub(super) struct Part {
    pub rows: RecordBatch,
    /// Ids inside: `first .. end`; those that were gone when the part was made are not in it.
    pub first: u64,
    pub end: u64,
    pub live: usize,
    /// `None`: arrived since the last seal.
    pub level: Option<u8>,
    /// It is as the last checkpoint has it, but for changed weights and counts.
    pub stored: bool,
    /// Entries with changed weights and counts, and the rows in them.
    pub patches: u32,
    pub patched: usize,
    /// Times in milliseconds, if the side has a retention: no live row is earlier than the first or later than the second.
    pub times: Option<(i64, i64)>,
}

pub(super) struct Side {
    /// First byte of its entries.
    pub tag: u8,
    pub schema: SchemaRef,
    pub keys: Vec<usize>,
    pub traits: Traits,
    pub retention: Option<Retention>,
    /// `parts[i]` has number `first + i`. Empty ones are holes.
    pub parts: VecDeque<Part>,
    pub first: u32,
    /// By slot: newest id.
    heads: Vec<u64>,
    /// By id − `base`, as are those below: part number and row in it.
    pub loc: Vec<u64>,
    pub base: u64,
    next: Vec<u64>,
    weight: Vec<i64>,
    count: Vec<i64>,
    hash: Vec<u64>,
    content: HashTable<u64>,
    converter: Option<RowConverter>,
    /// Rows alive.
    pub live: usize,
    /// Ids in stored parts whose weight or count has changed since the last seal; and places of those that are gone.
    pub changed: Vec<u64>,
    pub killed: BTreeMap<u32, Vec<u32>>,
    /// Entries to delete at the next seal.
    pub deleted: Vec<Vec<u8>>,
}

pub(super) fn place(part: u32, row: usize) -> u64 {
    u64::from(part) << 32 | row as u64
}

fn part_of(loc: u64) -> u32 {
    (loc >> 32) as u32
}

fn row_of(loc: u64) -> usize {
    (loc & 0xffff_ffff) as usize
}

impl Side {
    pub fn new(tag: u8, input: &JoinInput, traits: Traits, bounded: bool) -> Result<Self> {
        let JoinInput { schema, keys, retention, .. } = input.clone();
        let retention = retention.filter(|_| bounded);
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone()));
        let converter = if traits.content { Some(RowConverter::new(fields.collect())?) } else { None };
        Ok(Self {
            tag,
            schema,
            keys,
            traits,
            retention,
            parts: VecDeque::new(),
            first: 0,
            heads: Vec::new(),
            loc: Vec::new(),
            base: 0,
            next: Vec::new(),
            weight: Vec::new(),
            count: Vec::new(),
            hash: Vec::new(),
            content: HashTable::new(),
            converter,
            live: 0,
            changed: Vec::new(),
            killed: BTreeMap::new(),
            deleted: Vec::new(),
        })
    }

    fn at(&self, id: u64) -> usize {
        (id - self.base) as usize
    }

    /// The id that the next row gets.
    pub fn end(&self) -> u64 {
        self.base + self.loc.len() as u64
    }

    pub fn weight(&self, id: u64) -> i64 {
        if self.traits.weights { self.weight[self.at(id)] } else { 1 }
    }

    pub fn count(&self, id: u64) -> i64 {
        self.count[self.at(id)]
    }

    pub fn is_live(&self, id: u64) -> bool {
        id >= self.base && self.loc[self.at(id)] != NONE
    }

    pub fn set_weight(&mut self, id: u64, weight: i64) {
        let at = self.at(id);
        self.weight[at] = weight;
        self.note(id);
    }

    pub fn set_count(&mut self, id: u64, count: i64) {
        let at = self.at(id);
        if self.count[at] != count {
            self.count[at] = count;
            self.note(id);
        }
    }

    fn note(&mut self, id: u64) {
        let part = part_of(self.loc[self.at(id)]);
        if self.part(part).stored {
            self.changed.push(id);
        }
    }

    pub fn part(&self, number: u32) -> &Part {
        &self.parts[(number - self.first) as usize]
    }

    /// Place of a live row.
    pub fn place_of(&self, id: u64) -> (u32, u32) {
        let loc = self.loc[self.at(id)];
        (part_of(loc), row_of(loc) as u32)
    }

    /// Newest live row of a slot.
    pub fn newest(&mut self, slot: u32) -> Option<u64> {
        let slot = slot as usize;
        let mut id = *self.heads.get(slot)?;
        while id != NONE && !self.is_live(id) {
            id = if id < self.base { NONE } else { self.next[self.at(id)] };
        }
        self.heads[slot] = id;
        (id != NONE).then_some(id)
    }

    /// The live row of the same key before `id`.
    pub fn older(&mut self, id: u64) -> Option<u64> {
        let at = self.at(id);
        let mut older = self.next[at];
        while older != NONE && !self.is_live(older) {
            older = if older < self.base { NONE } else { self.next[self.at(older)] };
        }
        self.next[at] = older;
        (older != NONE).then_some(older)
    }

    /// Appends rows; `slots` are those of their keys. Returns the first id.
    pub fn append(&mut self, rows: RecordBatch, slots: &[u32], weights: Option<&[i64]>) -> Result<u64> {
        let first = self.end();
        let added = rows.num_rows();
        let number = self.first + self.parts.len() as u32;
        let range = self.time_range(&rows)?;
        if self.traits.content {
            let encoded = self.encode(rows.columns())?;
            self.hash.extend((0..added).map(|row| xxh3_64(encoded.row(row).data())));
        }
        self.loc.extend((0..added).map(|row| place(number, row)));
        if self.traits.weights {
            match weights {
                Some(weights) => self.weight.extend_from_slice(weights),
                None => self.weight.resize(self.loc.len(), 1),
            }
        }
        if self.traits.counts {
            self.count.resize(self.loc.len(), 0);
        }
        let end = first + added as u64;
        self.parts.push_back(Part {
            rows,
            first,
            end,
            live: added,
            level: None,
            stored: false,
            patches: 0,
            patched: 0,
            times: range,
        });
        self.live += added;
        self.link(first, slots);
        Ok(first)
    }

    /// Chains the rows from `first` on.
    fn link(&mut self, first: u64, slots: &[u32]) {
        let most = slots.iter().filter(|s| **s != NO_SLOT).max().map_or(0, |m| *m as usize + 1);
        if self.heads.len() < most {
            self.heads.resize(most, NONE);
        }
        for (row, slot) in slots.iter().enumerate() {
            let id = first + row as u64;
            match self.heads.get_mut(*slot as usize) {
                Some(head) => self.next.push(std::mem::replace(head, id)),
                None => self.next.push(NONE),
            }
            if self.traits.content {
                let (hash, base, hashes) = (self.hash[(id - self.base) as usize], self.base, &self.hash);
                self.content.insert_unique(hash, id, |id| hashes[(*id - base) as usize]);
            }
        }
    }

    fn times_of(&self, rows: &RecordBatch) -> Result<Option<Int64Array>> {
        match self.retention {
            Some(retention) => Ok(Some(to_millis(rows.column(retention.column))?)),
            None => Ok(None),
        }
    }

    pub fn time_range(&self, rows: &RecordBatch) -> Result<Option<(i64, i64)>> {
        Ok(self.times_of(rows)?.map(|t| range_of(&t)))
    }

    /// The encoding by which rows are compared.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        match &self.converter {
            Some(converter) => Ok(converter.convert_columns(columns)?),
            None => Err(DataFusionError::Internal("rows of this side have no identity".to_owned())),
        }
    }

    /// For each encoded row, the live row with the same content.
    pub fn find(&self, encoded: &Rows, rows: &[usize]) -> Result<Vec<Option<u64>>> {
        let mut candidates: Vec<(usize, u64)> = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let hash = xxh3_64(encoded.row(*row).data());
            let same = self.content.iter_hash(hash).filter(|id| self.hash[self.at(**id)] == hash);
            candidates.extend(same.map(|id| (i, *id)));
        }
        let mut found = vec![None; rows.len()];
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        for chunk in candidates.chunks(crate::operators::BATCH_ROWS) {
            let ids: Vec<u64> = chunk.iter().map(|(_, id)| *id).collect();
            let own = self.encode(&self.gather(&ids, &all)?)?;
            for (k, (i, id)) in chunk.iter().enumerate() {
                if own.row(k) == encoded.row(rows[*i]) {
                    found[*i] = Some(*id);
                }
            }
        }
        Ok(found)
    }

    /// Takes a row out. `follows`: the next checkpoint need not say so, because it follows from the watermark.
    pub fn kill(&mut self, id: u64, follows: bool) {
        let at = self.at(id);
        let loc = self.loc[at];
        if loc == NONE {
            return;
        }
        self.loc[at] = NONE;
        self.live -= 1;
        let part = &mut self.parts[(part_of(loc) - self.first) as usize];
        part.live -= 1;
        if part.stored && !follows {
            self.killed.entry(part_of(loc)).or_default().push(row_of(loc) as u32);
        }
        if self.traits.weights {
            self.weight[at] = 0;
        }
        if self.traits.content
            && let Ok(entry) = self.content.find_entry(self.hash[at], |other| *other == id)
        {
            entry.remove();
        }
    }

    /// Values of `columns` in these live rows, in this order.
    pub fn gather(&self, ids: &[u64], columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let types = columns.iter().map(|c| self.schema.field(*c).data_type());
        if ids.is_empty() {
            return Ok(types.map(new_empty_array).collect());
        }
        // Only the parts that are in use, so that the work depends on the rows and not on the state.
        let mut dense = vec![u32::MAX; self.parts.len()];
        let mut used: Vec<&RecordBatch> = Vec::new();
        let mut indices = Vec::with_capacity(ids.len());
        for id in ids {
            let loc = self.loc[self.at(*id)];
            let part = (part_of(loc) - self.first) as usize;
            if dense[part] == u32::MAX {
                dense[part] = used.len() as u32;
                used.push(&self.parts[part].rows);
            }
            indices.push((dense[part] as usize, row_of(loc)));
        }
        if let [rows] = used[..] {
            let indices: UInt32Array = indices.iter().map(|(_, row)| *row as u32).collect();
            return columns.iter().map(|c| Ok(take(rows.column(*c), &indices, None)?)).collect();
        }
        let gathered = columns.iter().map(|c| {
            let arrays: Vec<&dyn Array> = used.iter().map(|rows| rows.column(*c).as_ref()).collect();
            Ok(interleave(&arrays, &indices)?)
        });
        gathered.collect()
    }

    /// The same as a batch of these columns.
    pub fn rows(&self, ids: &[u64], columns: &[usize]) -> Result<RecordBatch> {
        let fields: Vec<_> = columns.iter().map(|c| self.schema.field(*c).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
        let schema = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(schema, self.gather(ids, columns)?, &options)?)
    }

    /// Live ids of a part, ascending.
    pub fn ids_of(&self, part: &Part) -> impl Iterator<Item = u64> + '_ {
        (part.first..part.end).filter(|id| self.is_live(*id))
    }

    /// Ids of rows that can match nothing any more at this watermark, ascending.
    pub fn expired(&self, watermark: i64) -> Result<Vec<u64>> {
        let mut gone = Vec::new();
        let Some(retention) = self.retention else { return Ok(gone) };
        let is_over = |time: i64| time.saturating_add(retention.hold_ms) < watermark;
        for part in self.parts.iter().filter(|p| p.live > 0 && p.times.is_some_and(|(min, _)| is_over(min))) {
            if part.times.is_some_and(|(_, max)| is_over(max)) {
                gone.extend(self.ids_of(part));
            } else if let Some(times) = self.times_of(&part.rows)? {
                gone.extend(self.ids_of(part).filter(|id| is_over(times.value(row_of(self.loc[self.at(*id)])))));
            }
        }
        Ok(gone)
    }

    /// Takes expired rows out, and lets go of parts without live rows.
    pub fn expire(&mut self, gone: &[u64], watermark: i64) {
        gone.iter().for_each(|id| self.kill(*id, true));
        let Some(retention) = self.retention else { return };
        let least = watermark.saturating_sub(retention.hold_ms);
        for part in self.parts.iter_mut().filter(|p| p.live > 0) {
            part.times = part.times.map(|(min, max)| (min.max(least), max));
        }
        self.drop_dead_parts();
    }

    /// Replaces parts without live rows by holes, and forgets the holes at the front.
    pub fn drop_dead_parts(&mut self) {
        let empty = RecordBatch::new_empty(self.schema.clone());
        for i in 0..self.parts.len() {
            let number = self.first + i as u32;
            if self.parts[i].live == 0 && self.parts[i].rows.num_rows() > 0 {
                self.forget_entries(number);
                self.parts[i].rows = empty.clone();
            }
        }
        while self.parts.back().is_some_and(|p| p.rows.num_rows() == 0) {
            self.parts.pop_back();
        }
        while let Some(part) = self.parts.front().filter(|p| p.rows.num_rows() == 0) {
            let gone = (part.end - self.base) as usize;
            self.parts.pop_front();
            self.first += 1;
            self.base += gone as u64;
            self.loc.drain(..gone);
            self.next.drain(..gone);
            for column in [&mut self.weight, &mut self.count] {
                column.drain(..gone.min(column.len()));
            }
            self.hash.drain(..gone.min(self.hash.len()));
        }
        if self.parts.is_empty() {
            // As in a side that is restored from nothing.
            self.first = 0;
        }
    }

    /// The first time at which a row expires, in milliseconds of the watermark.
    pub fn next_expiry(&self) -> Option<i64> {
        let hold = self.retention?.hold_ms;
        let times = self.parts.iter().filter(|p| p.live > 0).filter_map(|p| p.times);
        times.map(|(min, _)| min.saturating_add(hold).saturating_add(1)).min()
    }

    /// Puts the live rows of `parts[from..to]` into one part in their place, at `from`; the others become holes, or go if they are last.
    pub fn merge(&mut self, from: usize, to: usize, level: u8) -> Result<()> {
        let ids: Vec<u64> = self.parts.range(from..to).flat_map(|p| self.ids_of(p)).collect();
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = self.gather(&ids, &all)?;
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        let number = self.first + from as u32;
        for (row, id) in ids.iter().enumerate() {
            let at = self.at(*id);
            self.loc[at] = place(number, row);
        }
        let times = self.time_range(&rows)?;
        let (first, end) = (self.parts[from].first, self.parts[to - 1].end);
        for i in from..to {
            self.forget_entries(self.first + i as u32);
            let part = &mut self.parts[i];
            part.rows = RecordBatch::new_empty(self.schema.clone());
            part.live = 0;
            part.first = end;
            part.end = end;
        }
        let live = ids.len();
        self.parts[from] =
            Part { rows, first, end, live, level: Some(level), stored: false, patches: 0, patched: 0, times };
        if to == self.parts.len() {
            self.parts.truncate(from + 1);
        }
        Ok(())
    }

    /// A part of the last checkpoint. `weights` and `counts` as far as the side has them; `expired` at this watermark are gone.
    pub fn restore(
        &mut self,
        keys: &mut Keys,
        number: u32,
        level: u8,
        rows: RecordBatch,
        weights: &[i64],
        counts: &[i64],
        watermark: i64,
    ) -> Result<()> {
        if self.parts.is_empty() {
            self.first = number;
        }
        while self.first + (self.parts.len() as u32) < number {
            let (end, rows) = (self.end(), RecordBatch::new_empty(self.schema.clone()));
            self.parts.push_back(Part {
                rows,
                first: end,
                end,
                live: 0,
                level: Some(level),
                stored: false,
                patches: 0,
                patched: 0,
                times: None,
            });
        }
        let slots = keys.slots(&rows, &self.keys)?;
        let times = self.times_of(&rows)?;
        let first = self.append(rows, &slots, self.traits.weights.then_some(weights))?;
        if self.traits.counts {
            let at = self.at(first);
            self.count[at..].copy_from_slice(counts);
        }
        let least = watermark.saturating_sub(self.retention.map_or(0, |r| r.hold_ms));
        if let Some(part) = self.parts.back_mut() {
            part.level = Some(level);
            part.stored = true;
            if watermark > i64::MIN {
                part.times = part.times.map(|(min, max)| (min.max(least), max));
            }
        }
        let hold = self.retention.map_or(0, |r| r.hold_ms);
        for row in 0..slots.len() {
            let is_over = times.as_ref().is_some_and(|t| t.value(row).saturating_add(hold) < watermark);
            if is_over || self.traits.weights && weights[row] == 0 {
                self.kill(first + row as u64, true);
            }
        }
        Ok(())
    }

    /// Weight and count of a stored row as a later checkpoint has them. Not for rows that are gone.
    pub fn restore_change(&mut self, part: u32, row: u32, weight: i64, count: i64) -> bool {
        let Some(i) = part.checked_sub(self.first).map(|i| i as usize).filter(|i| *i < self.parts.len()) else {
            return false;
        };
        let id = self.parts[i].first + u64::from(row);
        if id >= self.parts[i].end {
            return false;
        }
        if !self.is_live(id) {
            return true;
        }
        let at = self.at(id);
        if self.traits.counts {
            self.count[at] = count;
        }
        if self.traits.weights {
            self.weight[at] = weight;
            if weight == 0 {
                self.kill(id, true);
            }
        }
        true
    }

    /// A patch has been restored.
    pub fn restored_patch(&mut self, part: u32, rows: usize) {
        let part = &mut self.parts[(part - self.first) as usize];
        part.patches += 1;
        part.patched += rows;
    }

    /// Numbers the rows and slots anew, so that what is gone takes no place.
    pub fn reindex(&mut self, keys: &mut Keys) -> Result<()> {
        let live: Vec<u64> = self.parts.iter().flat_map(|p| self.ids_of(p)).collect();
        let kept = |column: &[i64]| -> Vec<i64> {
            if column.is_empty() { Vec::new() } else { live.iter().map(|id| column[self.at(*id)]).collect() }
        };
        let (weight, count) = (kept(&self.weight), kept(&self.count));
        let hash: Vec<u64> = match self.traits.content {
            true => live.iter().map(|id| self.hash[self.at(*id)]).collect(),
            false => Vec::new(),
        };
        let loc: Vec<u64> = live.iter().map(|id| self.loc[self.at(*id)]).collect();
        let slots = live.chunks(1 << 16).map(|ids| {
            let rows = self.rows(ids, &self.keys)?;
            keys.slots(&rows, &(0..self.keys.len()).collect::<Vec<_>>())
        });
        let slots = slots.collect::<Result<Vec<_>>>()?.concat();
        let mut id = 0;
        for part in &mut self.parts {
            part.first = id;
            id += part.live as u64;
            part.end = id;
        }
        self.base = 0;
        (self.loc, self.weight, self.count, self.hash) = (loc, weight, count, hash);
        self.heads = Vec::new();
        self.next = Vec::with_capacity(slots.len());
        self.content = HashTable::with_capacity(if self.traits.content { slots.len() } else { 0 });
        self.link(0, &slots);
        Ok(())
    }

    /// Rows that are gone and still have an id.
    pub fn garbage(&self) -> usize {
        self.loc.len() - self.live
    }

    pub fn size(&self) -> usize {
        let rows: usize = self.parts.iter().map(|p| p.rows.get_array_memory_size()).sum();
        let words = self.heads.capacity() + self.loc.capacity() + self.next.capacity() + self.weight.capacity();
        rows + 8 * (words + self.count.capacity() + self.hash.capacity() + self.content.capacity())
    }
}

/// Least and greatest; times of stored rows are never null.
fn range_of(times: &Int64Array) -> (i64, i64) {
    (arrow::compute::min(times).unwrap_or(i64::MAX), arrow::compute::max(times).unwrap_or(i64::MIN))
}

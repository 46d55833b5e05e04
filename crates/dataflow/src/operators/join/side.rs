//! The rows of one side of a join.
//!
//! Every row has an **id**, ascending in order of arrival. Rows stand in **parts** (record batches, never changed once they are there), each
//! with a range of ids; `row` says where in its part a row is, `next` chains the ids of one key, newest first, from `heads`. A row that is gone has no
//! place any more; chains lose it when they are walked next, so that removing costs nothing and each removed row is passed once.
//!
//! The rows of a part that the store has can be let go of and are read again where they are needed ([`Side::shrink`]); the index
//! of 8 bytes per row stays.
//!
//! A side whose input takes rows back has one row per distinct content, with a weight, and finds it by a hash of its row encoding.
use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::{DataFusionError, Result};
use hashbrown::HashTable;
use millstream_plan::OperatorId;
use xxhash_rust::xxh3::xxh3_64;

use super::keys::{Keys, NO_SLOT};
use super::store::part_key;
use crate::cold::ColdState;
use crate::graph::{JoinInput, Retention};
use crate::times::to_millis;

/// No row.
pub(super) const NONE: u64 = u64::MAX;
/// The place of a row that is gone.
const GONE: u32 = u32::MAX;

/// Parts that are read from the store at once.
const FETCHED_TOGETHER: usize = 16;

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
    /// Empty while only the store has them.
    rows: OnceCell<RecordBatch>,
    /// Number of rows, with those that are gone since.
    pub len: usize,
    /// What they take in memory.
    pub bytes: usize,
    /// The seal that wrote it; 0: it was restored.
    pub sealed: u64,
    /// When it was last looked at.
    used: Cell<u64>,
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

/// A part as the store has it; weights and counts as far as its side has them.
pub(super) struct StoredPart {
    pub number: u32,
    pub level: u8,
    pub rows: RecordBatch,
    pub weights: Vec<i64>,
    pub counts: Vec<i64>,
}

impl Part {
    /// Rows in memory with the ids `first .. end`, which the store does not have.
    pub fn new(rows: RecordBatch, first: u64, end: u64, level: Option<u8>, times: Option<(i64, i64)>) -> Self {
        let (len, bytes) = (rows.num_rows(), size_of_rows(&rows));
        Self {
            rows: OnceCell::from(rows),
            len,
            bytes,
            sealed: 0,
            used: Cell::new(0),
            first,
            end,
            live: len,
            level,
            stored: false,
            patches: 0,
            patched: 0,
            times,
        }
    }

    /// A part without rows, before the id `at`.
    pub fn hole(at: u64, level: Option<u8>) -> Self {
        Self {
            rows: OnceCell::new(),
            len: 0,
            bytes: 0,
            sealed: 0,
            used: Cell::new(0),
            first: at,
            end: at,
            live: 0,
            level,
            stored: false,
            patches: 0,
            patched: 0,
            times: None,
        }
    }

    pub fn is_hole(&self) -> bool {
        self.len == 0
    }

    /// Lets go of the rows, all of which are gone.
    fn empty(&mut self) {
        (self.rows, self.len, self.bytes) = (OnceCell::new(), 0, 0);
    }
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
    /// By id − `base`, as are those below: the row in its part.
    pub row: Vec<u32>,
    pub base: u64,
    /// How much less the next id of the chain is; 0: there is none.
    next: Vec<u32>,
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
    /// Where stored parts can be read.
    pub cold: Option<(OperatorId, Arc<dyn ColdState>)>,
    /// Seals so far.
    pub seals: u64,
    /// Bytes of rows to keep in memory while many are restored or looked at.
    pub keep: usize,
    /// Bytes of rows that were restored and kept.
    restored: usize,
    /// Counts what is looked at, to find what was not for longest.
    clock: Cell<u64>,
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
            row: Vec::new(),
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
            cold: None,
            seals: 0,
            keep: usize::MAX,
            restored: 0,
            clock: Cell::new(1),
        })
    }

    fn at(&self, id: u64) -> usize {
        (id - self.base) as usize
    }

    /// The id that the next row gets.
    pub fn end(&self) -> u64 {
        self.base + self.row.len() as u64
    }

    pub fn weight(&self, id: u64) -> i64 {
        if self.traits.weights { self.weight[self.at(id)] } else { 1 }
    }

    pub fn count(&self, id: u64) -> i64 {
        self.count[self.at(id)]
    }

    pub fn is_live(&self, id: u64) -> bool {
        id >= self.base && self.row[self.at(id)] != GONE
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
        if self.parts[self.part_of(id)].stored {
            self.changed.push(id);
        }
    }

    pub fn part(&self, number: u32) -> &Part {
        &self.parts[(number - self.first) as usize]
    }

    /// Index in `parts` of the part that has this id: the last one that begins at or before it, for holes have no ids.
    fn part_of(&self, id: u64) -> usize {
        self.parts.partition_point(|p| p.first <= id) - 1
    }

    /// Number of the part of a live row, and the row in it.
    pub fn place_of(&self, id: u64) -> (u32, u32) {
        (self.first + self.part_of(id) as u32, self.row[self.at(id)])
    }

    /// Newest live row of a slot.
    pub fn newest(&mut self, slot: u32) -> Option<u64> {
        let slot = slot as usize;
        let mut id = *self.heads.get(slot)?;
        while id != NONE && !self.is_live(id) {
            id = self.before(id);
        }
        self.heads[slot] = id;
        (id != NONE).then_some(id)
    }

    /// The live row of the same key before `id`.
    pub fn older(&mut self, id: u64) -> Option<u64> {
        let mut older = self.before(id);
        while older != NONE && !self.is_live(older) {
            older = self.before(older);
        }
        let at = self.at(id);
        self.next[at] = if older == NONE { 0 } else { distance(id, older) };
        (older != NONE).then_some(older)
    }

    /// The id before this one in its chain, gone or not.
    fn before(&self, id: u64) -> u64 {
        match id >= self.base {
            true => match self.next[self.at(id)] {
                0 => NONE,
                distance => id - u64::from(distance),
            },
            false => NONE,
        }
    }

    /// Appends rows; `slots` are those of their keys. Returns the first id.
    pub fn append(&mut self, rows: RecordBatch, slots: &[u32], weights: Option<&[i64]>) -> Result<u64> {
        let first = self.end();
        let added = rows.num_rows();
        let range = self.time_range(&rows)?;
        if self.traits.content {
            let encoded = self.encode(rows.columns())?;
            self.hash.extend((0..added).map(|row| xxh3_64(encoded.row(row).data())));
        }
        self.row.extend(0..added as u32);
        if self.traits.weights {
            match weights {
                Some(weights) => self.weight.extend_from_slice(weights),
                None => self.weight.resize(self.row.len(), 1),
            }
        }
        if self.traits.counts {
            self.count.resize(self.row.len(), 0);
        }
        let end = first + added as u64;
        self.parts.push_back(Part::new(rows, first, end, None, range));
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
                Some(head) => match std::mem::replace(head, id) {
                    NONE => self.next.push(0),
                    before => self.next.push(distance(id, before)),
                },
                None => self.next.push(0),
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
        let row = std::mem::replace(&mut self.row[at], GONE);
        if row == GONE {
            return;
        }
        self.live -= 1;
        let part_at = self.part_of(id);
        let part = &mut self.parts[part_at];
        part.live -= 1;
        if part.stored && !follows {
            self.killed.entry(self.first + part_at as u32).or_default().push(row);
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
        let mut parts: Vec<usize> = Vec::new();
        let mut indices = Vec::with_capacity(ids.len());
        let mut at = 0;
        for id in ids {
            // Neighbours are often of one part.
            if !self.parts.get(at).is_some_and(|p| p.first <= *id && *id < p.end) {
                at = self.part_of(*id);
            }
            if dense[at] == u32::MAX {
                dense[at] = parts.len() as u32;
                parts.push(at);
            }
            indices.push((dense[at] as usize, self.row[self.at(*id)] as usize));
        }
        let used = self.rows_of(&parts)?;
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

    /// The rows of these parts, those that are not in memory read from the store.
    pub fn rows_of(&self, parts: &[usize]) -> Result<Vec<&RecordBatch>> {
        self.clock.set(self.clock.get() + 1);
        let away: Vec<usize> = parts.iter().copied().filter(|at| self.parts[*at].rows.get().is_none()).collect();
        if !away.is_empty() {
            self.fetch(away)?;
        }
        let rows = parts.iter().map(|at| {
            let part = &self.parts[*at];
            part.used.set(self.clock.get());
            part.rows.get().ok_or_else(|| DataFusionError::Internal("a part of a join has no rows".to_owned()))
        });
        rows.collect()
    }

    /// Reads parts from the store.
    fn fetch(&self, mut parts: Vec<usize>) -> Result<()> {
        let Some((operator, cold)) = &self.cold else {
            return Err(DataFusionError::Internal("a part of a join is away and there is no store".to_owned()));
        };
        parts.sort_unstable();
        for parts in parts.chunks(FETCHED_TOGETHER) {
            let keys: Vec<Vec<u8>> = parts.iter().map(|at| part_key(self.tag, self.first + *at as u32)).collect();
            let values = cold.get(*operator, &keys).map_err(|e| DataFusionError::External(e.into()))?;
            for (at, value) in parts.iter().zip(values) {
                let part = &self.parts[*at];
                let rows = value.as_deref().and_then(|value| value.get(1..));
                let rows = rows.ok_or_else(|| DataFusionError::Internal("a part of a join is lost".to_owned()))?;
                let rows = self.decode_part(rows)?.0;
                if rows.num_rows() != part.len {
                    return Err(DataFusionError::Internal("a part of a join has another length".to_owned()));
                }
                // Nobody else can have set it.
                let _first = part.rows.set(rows);
            }
        }
        Ok(())
    }

    /// Lets go of rows that the store has, those that were not looked at for longest first, until at most `bytes` of rows are in memory.
    pub fn shrink(&mut self, bytes: usize) {
        let Some((_, cold)) = &self.cold else { return };
        let readable = cold.stored_seals();
        let mut resident = self.resident_rows();
        let is_loaded = |p: &Part| p.stored && p.sealed <= readable && p.rows.get().is_some();
        let mut order: Vec<(u64, usize)> =
            self.parts.iter().enumerate().filter(|(_, p)| is_loaded(p)).map(|(i, p)| (p.used.get(), i)).collect();
        order.sort_unstable();
        for (_, at) in order {
            if resident <= bytes {
                return;
            }
            let part = &mut self.parts[at];
            part.rows = OnceCell::new();
            resident -= part.bytes;
        }
    }

    /// Bytes of rows in memory.
    pub fn resident_rows(&self) -> usize {
        self.parts.iter().filter(|p| p.rows.get().is_some()).map(|p| p.bytes).sum()
    }

    /// Bytes of rows that the store does not have.
    pub fn unsealed(&self) -> usize {
        self.parts.iter().filter(|p| !p.stored).map(|p| p.bytes).sum()
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
        let begun = |p: &Part| p.live > 0 && p.times.is_some_and(|(min, _)| is_over(min));
        for (at, part) in self.parts.iter().enumerate().filter(|(_, p)| begun(p)) {
            if part.times.is_some_and(|(_, max)| is_over(max)) {
                gone.extend(self.ids_of(part));
                continue;
            }
            for rows in self.rows_of(&[at])? {
                let Some(times) = self.times_of(rows)? else { continue };
                gone.extend(self.ids_of(part).filter(|id| is_over(times.value(self.row[self.at(*id)] as usize))));
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
        for i in 0..self.parts.len() {
            let number = self.first + i as u32;
            if self.parts[i].live == 0 && !self.parts[i].is_hole() {
                self.forget_entries(number);
                self.parts[i].empty();
            }
        }
        while self.parts.back().is_some_and(Part::is_hole) {
            self.parts.pop_back();
        }
        while let Some(part) = self.parts.front().filter(|p| p.is_hole()) {
            let gone = (part.end - self.base) as usize;
            self.parts.pop_front();
            self.first += 1;
            self.base += gone as u64;
            self.row.drain(..gone);
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

    /// Writes the live rows of one part anew, without those that are gone.
    pub fn rewrite_part(&mut self, at: usize) -> Result<()> {
        let part = &self.parts[at];
        let (first, end, level) = (part.first, part.end, part.level);
        let ids: Vec<u64> = self.ids_of(part).collect();
        let part = self.part_with(&ids, first, end, level)?;
        self.forget_entries(self.first + at as u32);
        self.parts[at] = part;
        Ok(())
    }

    /// Puts the live rows of all parts from `from` on into parts of at most `rows`; full ones have level `full`, the last one `level`.
    pub fn merge(&mut self, from: usize, rows: usize, full: u8, level: u8) -> Result<()> {
        let ids: Vec<u64> = self.parts.range(from..).flat_map(|p| self.ids_of(p)).collect();
        let (mut first, end) = (self.parts[from].first, self.end());
        let mut parts = Vec::new();
        for chunk in ids.chunks(rows) {
            let is_last = chunk.last() == ids.last();
            let next = if is_last { end } else { chunk.last().map_or(first, |id| id + 1) };
            let level = if chunk.len() == rows { full } else { level };
            parts.push(self.part_with(chunk, first, next, Some(level))?);
            first = next;
        }
        (from..self.parts.len()).for_each(|i| self.forget_entries(self.first + i as u32));
        self.parts.truncate(from);
        self.parts.extend(parts);
        Ok(())
    }

    /// A part with these live rows, which stand in it from now on.
    pub fn part_with(&mut self, ids: &[u64], first: u64, end: u64, level: Option<u8>) -> Result<Part> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let columns = self.gather(ids, &all)?;
        let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        for (row, id) in ids.iter().enumerate() {
            let at = self.at(*id);
            self.row[at] = row as u32;
        }
        let times = self.time_range(&rows)?;
        Ok(Part::new(rows, first, end, level, times))
    }

    /// A part of the last checkpoint; what has expired at this watermark is gone.
    pub fn restore(&mut self, keys: &mut Keys, part: StoredPart, watermark: i64) -> Result<()> {
        let StoredPart { number, level, rows, weights, counts } = part;
        if self.parts.is_empty() {
            self.first = number;
        }
        while self.first + (self.parts.len() as u32) < number {
            self.parts.push_back(Part::hole(self.end(), Some(level)));
        }
        let slots = keys.slots(&rows, &self.keys)?;
        let times = self.times_of(&rows)?;
        let first = self.append(rows, &slots, self.traits.weights.then_some(&weights))?;
        if self.traits.counts {
            let at = self.at(first);
            self.count[at..].copy_from_slice(&counts);
        }
        let least = watermark.saturating_sub(self.retention.map_or(0, |r| r.hold_ms));
        let is_full = self.cold.is_some() && self.restored >= self.keep;
        if let Some(part) = self.parts.back_mut() {
            part.level = Some(level);
            part.stored = true;
            if is_full {
                part.rows = OnceCell::new();
            } else {
                self.restored += part.bytes;
            }
            if watermark > i64::MIN {
                part.times = part.times.map(|(min, max)| (min.max(least), max));
            }
        }
        let hold = self.retention.map_or(0, |r| r.hold_ms);
        let is_over = |row| times.as_ref().is_some_and(|t| t.value(row).saturating_add(hold) < watermark);
        let is_gone = |row: &usize| is_over(*row) || weights.get(*row) == Some(&0);
        (0..slots.len()).filter(is_gone).for_each(|row| self.kill(first + row as u64, true));
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
        let row: Vec<u32> = live.iter().map(|id| self.row[self.at(*id)]).collect();
        let columns: Vec<usize> = (0..self.keys.len()).collect();
        let mut slots = Vec::with_capacity(live.len());
        for ids in live.chunks(1 << 16) {
            slots.extend(keys.slots(&self.rows(ids, &self.keys)?, &columns)?);
            self.shrink(self.keep);
        }
        let mut id = 0;
        for part in &mut self.parts {
            part.first = id;
            id += part.live as u64;
            part.end = id;
        }
        self.base = 0;
        (self.row, self.weight, self.count, self.hash) = (row, weight, count, hash);
        self.heads = Vec::new();
        self.next = Vec::with_capacity(slots.len());
        self.content = HashTable::with_capacity(if self.traits.content { slots.len() } else { 0 });
        self.link(0, &slots);
        Ok(())
    }

    /// Rows that are gone and still have an id.
    pub fn garbage(&self) -> usize {
        self.row.len() - self.live
    }

    /// Bytes of all rows, in memory or not, and of the index.
    pub fn size(&self) -> usize {
        self.parts.iter().map(|p| p.bytes).sum::<usize>() + self.index_size()
    }

    /// Bytes of the index, which is always in memory.
    pub fn index_size(&self) -> usize {
        let words = self.heads.capacity() + self.weight.capacity() + self.count.capacity();
        let words = words + self.hash.capacity() + self.content.capacity();
        8 * words + 4 * (self.row.capacity() + self.next.capacity())
    }
}

/// What the values of these rows take, without what their buffers hold beside them.
fn size_of_rows(rows: &RecordBatch) -> usize {
    rows.columns()
        .iter()
        .map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size()))
        .sum()
}

/// Ids of one chain are never 2³² apart: so many rows do not fit into the memory that their index needs.
fn distance(id: u64, before: u64) -> u32 {
    u32::try_from(id - before).unwrap_or(u32::MAX)
}

/// Least and greatest; times of stored rows are never null.
fn range_of(times: &Int64Array) -> (i64, i64) {
    (arrow::compute::min(times).unwrap_or(i64::MAX), arrow::compute::max(times).unwrap_or(i64::MIN))
}

//! Join keys as numbers: equal keys of both sides share one **slot**, so a row is hashed and compared once, when it arrives.
//!
//! Slots are numbered in order of first appearance and mean nothing outside the operator: no output depends on them.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// The slot of a key that equals no key, because a part of it is null.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// The keys that have been seen.
pub(super) struct Keys {
    schema: SchemaRef,
    /// Null equals null.
    null_equal: bool,
    /// `None` without key columns: then all rows share slot 0.
    values: Option<Box<dyn GroupValues>>,
    scratch: Vec<usize>,
}

impl Keys {
    pub fn new(input: &SchemaRef, columns: &[usize], null_equal: bool) -> Result<Self> {
        let fields = columns.iter().map(|c| input.field(*c).clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut keys = Self { schema, null_equal, values: None, scratch: Vec::new() };
        keys.clear()?;
        Ok(keys)
    }

    /// Forgets all slots.
    pub fn clear(&mut self) -> Result<()> {
        if !self.schema.fields().is_empty() {
            self.values = Some(new_group_values(self.schema.clone(), &GroupOrdering::None)?);
        }
        Ok(())
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.values.as_ref().map_or(1, |v| v.len())
    }

    pub fn size(&self) -> usize {
        self.values.as_ref().map_or(0, |v| v.size())
    }

    /// The slot of each row's key.
    pub fn slots(&mut self, rows: &RecordBatch, columns: &[usize]) -> Result<Vec<u32>> {
        let Some(values) = &mut self.values else { return Ok(vec![0; rows.num_rows()]) };
        let keys: Vec<ArrayRef> = columns.iter().map(|c| rows.column(*c).clone()).collect();
        values.intern(&keys, &mut self.scratch)?;
        let mut slots: Vec<u32> = self.scratch.iter().map(|slot| *slot as u32).collect();
        if let Some(nulls) = nulls_of(rows, columns).filter(|_| !self.null_equal) {
            slots.iter_mut().zip(&nulls).filter(|(_, whole)| !whole).for_each(|(slot, _)| *slot = NO_SLOT);
        }
        Ok(slots)
    }
}

/// Parts the rows in which one of `columns` is null from the others: (without nulls, with nulls, which rows are without), `None` if there are
/// none with nulls.
pub(super) fn split_nulls(
    rows: &RecordBatch,
    columns: &[usize],
) -> Result<Option<(RecordBatch, RecordBatch, BooleanArray)>> {
    let Some(nulls) = nulls_of(rows, columns) else { return Ok(None) };
    let whole = BooleanArray::new(nulls.inner().clone(), None);
    let broken = arrow::compute::not(&whole)?;
    Ok(Some((filter_record_batch(rows, &whole)?, filter_record_batch(rows, &broken)?, whole)))
}

/// Rows in which one of `columns` is null, if there are any.
fn nulls_of(rows: &RecordBatch, columns: &[usize]) -> Option<NullBuffer> {
    let nulls = columns.iter().map(|c| rows.column(*c).logical_nulls());
    let nulls = nulls.fold(None::<NullBuffer>, |all, own| NullBuffer::union(all.as_ref(), own.as_ref()));
    nulls.filter(|n| n.null_count() > 0)
}

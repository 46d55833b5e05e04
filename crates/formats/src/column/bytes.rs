//! Strings and binary values.
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

use super::Bits;

/// Values of variable length. Rows are written in ascending order, apart from rewriting the newest one.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    /// `offsets[r + 1]` is the end of row `r`; rows that are not written yet have none.
    offsets: Vec<i32>,
    data: Vec<u8>,
    valid: Bits,
    /// Bytes and rows of the batch before, from which room is estimated.
    before: (usize, usize),
}

impl Bytes {
    /// Forgets everything and makes room for `rows`.
    pub(crate) fn reset(&mut self, rows: usize) {
        self.offsets = Vec::with_capacity(rows + 1);
        self.offsets.push(0);
        let (bytes, of_rows) = self.before;
        let estimate = (bytes as u64 * rows as u64 / of_rows.max(1) as u64) as usize;
        self.data = Vec::with_capacity(estimate + estimate / 8);
        self.valid.reset(rows);
    }

    /// Begins the value of `row`: null rows before it are filled in, an earlier value of it is dropped.
    #[inline]
    pub(crate) fn begin(&mut self, row: usize) {
        if self.offsets.len() != row + 1 {
            self.seek(row);
        }
    }

    #[inline(never)]
    fn seek(&mut self, row: usize) {
        if self.offsets.len() <= row {
            self.offsets.resize(row + 1, self.data.len() as i32);
        } else {
            self.offsets.truncate(row + 1);
            self.data.truncate(self.offsets[row] as usize);
            self.valid.unset(row);
        }
    }

    /// Where the bytes of the begun value are appended. A batch holds less than 2 GiB of messages and no value grows
    /// when it is decoded, so that offsets fit.
    #[inline]
    pub(crate) fn data(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Ends the begun value.
    #[inline]
    pub(crate) fn end(&mut self, row: usize) {
        self.offsets.push(self.data.len() as i32);
        self.valid.set(row);
    }

    /// Drops the begun value.
    pub(crate) fn abandon(&mut self, row: usize) {
        self.data.truncate(self.offsets[row] as usize);
        self.valid.unset(row);
    }

    /// Writes a value.
    #[inline]
    pub(crate) fn push(&mut self, row: usize, value: &[u8]) {
        self.begin(row);
        self.data.extend_from_slice(value);
        self.end(row);
    }

    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        if !self.valid.get(row) {
            return None;
        }
        self.data.get(self.offsets[row] as usize..self.offsets[row + 1] as usize)
    }

    /// Makes rows `[from, to)` null; no row from `to` on has been written.
    pub(crate) fn clear(&mut self, from: usize, to: usize) {
        if self.offsets.len() > from {
            self.seek(from);
        }
        self.valid.unset_range(from, to);
    }

    pub(crate) fn finish(
        &mut self,
        rows: usize,
    ) -> Result<(OffsetBuffer<i32>, Buffer, Option<NullBuffer>), ArrowError> {
        let (mut offsets, mut data) = (std::mem::take(&mut self.offsets), std::mem::take(&mut self.data));
        offsets.resize(rows + 1, data.len() as i32);
        self.before = (data.len(), rows);
        if data.capacity() / 2 > data.len() {
            data.shrink_to_fit();
        }
        if offsets.capacity() / 2 > offsets.len() {
            offsets.shrink_to_fit();
        }
        // The last offset is checked, because a wrapped one would be negative or smaller than the one before.
        if i32::try_from(data.len()).is_err() {
            return Err(ArrowError::OffsetOverflowError(data.len()));
        }
        Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(data), self.valid.finish_nulls(rows)))
    }
}

//! Rows of partitions in order: what ranks and functions over frames share.
//!
//! A row is kept as bytes of Arrow's row format, whose order is that of the values: `order columns ‖ other columns`. So rows with equal
//! order columns are ordered by the rest of the row, and the order is total up to rows that are equal in every column, which are one
//! entry with a weight. The partition's columns are not repeated in its rows.
mod multiset;
mod partitions;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod testing;
mod timed;

pub(super) use multiset::{Multiset, Row};
pub(super) use partitions::{Kept, Partitions};
pub(super) use timed::TimedPartitions;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::array_value_to_string;

use crate::DataflowError;
use crate::graph::Ordered;

/// Columns that are encoded together.
struct Codec {
    columns: Vec<usize>,
    /// `None` without columns.
    converter: Option<RowConverter>,
}

impl Codec {
    fn new(spec: &Ordered, columns: Vec<(usize, SortOptions)>) -> Result<Self, ArrowError> {
        let field = |(column, options): &(usize, SortOptions)| {
            SortField::new_with_options(spec.input.field(*column).data_type().clone(), *options)
        };
        let fields: Vec<SortField> = columns.iter().map(field).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { columns: columns.into_iter().map(|(c, _)| c).collect(), converter })
    }

    fn encode(&self, batch: &RecordBatch) -> Result<Option<Rows>, ArrowError> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|c| batch.column(*c).clone()).collect();
        self.converter.as_ref().map(|c| c.convert_columns(&columns)).transpose()
    }

    fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        let rows: Vec<&[u8]> = rows.collect();
        converter.convert_rows(rows.iter().map(|r| parser.parse(r)))
    }
}

/// How rows become bytes and back.
pub(super) struct Layout {
    width: usize,
    partition: Codec,
    order: Codec,
    rest: Codec,
}

/// Bytes of row `i`, none without columns.
fn bytes(rows: Option<&Rows>, i: usize) -> &[u8] {
    rows.map_or(&[], |r| r.row(i).data())
}

impl Layout {
    pub fn new(spec: &Ordered) -> Result<Self, ArrowError> {
        let ascending = SortOptions { descending: false, nulls_first: true };
        let mut taken = vec![false; spec.input.fields().len()];
        let partition: Vec<_> = spec.partition.iter().map(|c| (*c, ascending)).collect();
        partition.iter().for_each(|(c, _)| taken[*c] = true);
        let mut order = Vec::new();
        for sort in &spec.order {
            // A column that came before, or is the same in the whole partition, orders nothing.
            if !std::mem::replace(&mut taken[sort.column], true) {
                let options = SortOptions { descending: sort.descending, nulls_first: sort.nulls_first };
                order.push((sort.column, options));
            }
        }
        let rest = (0..taken.len()).filter(|c| !taken[*c]).map(|c| (c, ascending)).collect();
        Ok(Self {
            width: taken.len(),
            partition: Codec::new(spec, partition)?,
            order: Codec::new(spec, order)?,
            rest: Codec::new(spec, rest)?,
        })
    }

    /// Values of the partition's column that is `column` of the rows, one per key.
    pub fn partition_column<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
        column: usize,
    ) -> Result<ArrayRef, DataflowError> {
        let at = self.partition.columns.iter().position(|c| *c == column);
        let decoded = self.partition.decode(keys)?;
        let found = at.and_then(|at| decoded.into_iter().nth(at));
        found.ok_or_else(|| DataflowError::Corrupt(format!("column {column} is not one of the partition")))
    }

    /// A row for people.
    pub fn show(&self, partition: &[u8], row: &Row) -> String {
        let mut rows = EncodedRows::default();
        rows.push(partition, row);
        match rows.decode(self) {
            Ok(columns) => {
                let values = columns.iter().map(|c| array_value_to_string(c, 0).unwrap_or_else(|_| "?".to_owned()));
                format!("({})", values.collect::<Vec<_>>().join(", "))
            }
            Err(e) => format!("that cannot be shown ({e})"),
        }
    }
}

/// Rows on their way to become columns again.
#[derive(Default)]
pub(super) struct EncodedRows {
    bytes: Vec<u8>,
    /// Where partition, order and rest of each row end.
    ends: Vec<[usize; 3]>,
}

impl EncodedRows {
    pub fn push(&mut self, partition: &[u8], row: &Row) {
        let mut end = [0; 3];
        for (part, end) in [partition, row.order(), row.rest()].into_iter().zip(&mut end) {
            self.bytes.extend_from_slice(part);
            *end = self.bytes.len();
        }
        self.ends.push(end);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn part(&self, row: usize, part: usize) -> &[u8] {
        let from = match (part, row) {
            (0, 0) => 0,
            (0, _) => self.ends[row - 1][2],
            _ => self.ends[row][part - 1],
        };
        &self.bytes[from..self.ends[row][part]]
    }

    /// Order and other columns of row `i`: what identifies it in its partition.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes[self.ends[row][0]..self.ends[row][2]]
    }

    /// The columns as the input has them.
    pub fn decode(&self, layout: &Layout) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; layout.width];
        for (part, codec) in [&layout.partition, &layout.order, &layout.rest].into_iter().enumerate() {
            let decoded = codec.decode((0..self.len()).map(|row| self.part(row, part)))?;
            for (column, array) in codec.columns.iter().zip(decoded) {
                columns[*column] = Some(array);
            }
        }
        Ok(columns.into_iter().flatten().collect())
    }
}

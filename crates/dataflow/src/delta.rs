//! Rows with weights.
use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;

/// A change: row `i` of `rows` is added `weights[i]` times (negative: taken away). No weights means every row is +1, so append-only
/// plans pay nothing.
#[derive(Clone, Debug)]
pub struct DeltaBatch {
    pub rows: RecordBatch,
    pub weights: Option<Int64Array>,
}

impl DeltaBatch {
    /// Rows that are all added once.
    #[must_use]
    pub fn appended(rows: RecordBatch) -> Self {
        Self { rows, weights: None }
    }

    /// Number of rows, whatever their weights.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }
}

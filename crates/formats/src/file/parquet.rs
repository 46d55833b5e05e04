//! Parquet files, by row group.
//!
//! The `parquet` crate panics on some damaged files (negative sizes in the footer, offsets that lie). A damaged file is
//! input like any other, so such a panic is caught here and becomes the same error as any other damage; what panicked
//! is never used again.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use super::adapt;
use crate::FormatError;

/// A Parquet file in memory.
pub struct ParquetFile {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    schema: SchemaRef,
}

impl ParquetFile {
    /// Reads the metadata of the file `bytes`. Rows come in `schema`: columns are found by name (with case) also inside
    /// structs, what the file does not have is null, and only the used columns are decompressed.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] if it is no Parquet file or cut off.
    pub fn open(bytes: Bytes, schema: &SchemaRef) -> Result<Self, FormatError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(&bytes, bytes.len() as u64, || ArrowReaderMetadata::load(&bytes, options))?;
        let parquet = metadata.parquet_schema();
        let used = (0..parquet.num_columns()).filter(|i| is_used(parquet.column(*i).path().parts(), schema));
        let mask = ProjectionMask::leaves(parquet, used);
        Ok(Self { bytes, metadata, mask, schema: Arc::clone(schema) })
    }

    /// Number of row groups.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// Rows of row group `group`.
    #[must_use]
    pub fn rows(&self, group: usize) -> u64 {
        self.metadata.metadata().row_groups().get(group).map_or(0, |g| u64::try_from(g.num_rows()).unwrap_or(0))
    }

    /// The rows of row group `group` in order, `batch_rows` at a time.
    ///
    /// # Errors
    /// If the row group cannot be read; so can each batch.
    pub fn read(
        &self,
        group: usize,
        batch_rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, FormatError>> + Send + use<>, FormatError> {
        let offset = self.metadata.metadata().row_groups().get(group).and_then(|g| g.file_offset()).unwrap_or(0);
        let offset = u64::try_from(offset).unwrap_or(0);
        let reader = guarded(&self.bytes, offset, || {
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone())
                .with_row_groups(vec![group])
                .with_projection(self.mask.clone())
                .with_batch_size(batch_rows.max(1))
                .build()
        })?;
        let left = self.rows(group);
        Ok(Batches { reader: Some(reader), left, offset, bytes: self.bytes.clone(), schema: Arc::clone(&self.schema) })
    }
}

/// Batches of one row group; ends after an error.
struct Batches {
    reader: Option<ParquetRecordBatchReader>,
    /// Rows that the footer says are still to come.
    left: u64,
    offset: u64,
    bytes: Bytes,
    schema: SchemaRef,
}

impl Batches {
    fn adapted(&self, batch: &RecordBatch) -> Result<RecordBatch, FormatError> {
        let rows = batch.num_rows();
        let columns = adapt::columns(batch.schema().fields(), batch.columns(), self.schema.fields(), rows)?;
        let with_count = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &with_count)?)
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.reader.take()?;
        let next = guarded(&self.bytes, self.offset, || reader.next().transpose().map_err(ParquetError::from));
        match next.and_then(|batch| batch.map(|b| self.adapted(&b)).transpose()) {
            Ok(None) if self.left == 0 => None,
            Ok(Some(batch)) if batch.num_rows() as u64 <= self.left => {
                self.left -= batch.num_rows() as u64;
                self.reader = Some(reader);
                Some(Ok(batch))
            }
            Ok(_) => {
                let problem = "a row group has not the rows that the footer says".to_owned();
                Some(Err(damaged(&self.bytes, self.offset, &ParquetError::General(problem))))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Runs code of the `parquet` crate on a file that may be damaged; see the module's text.
fn guarded<T>(bytes: &Bytes, offset: u64, run: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, FormatError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| damaged(bytes, offset, &error)),
        Err(_) => Err(damaged(bytes, offset, &ParquetError::General("its sizes contradict each other".to_owned()))),
    }
}

/// True if the leaf at `path` belongs to a column or nested field of `schema`.
fn is_used(path: &[String], schema: &SchemaRef) -> bool {
    let Some((name, mut path)) = path.split_first() else { return false };
    let Ok(field) = schema.field_with_name(name) else { return false };
    let mut data_type = field.data_type();
    // Inside lists and maps writers name the levels differently, so all below them is read.
    while let (DataType::Struct(fields), Some((name, rest))) = (data_type, path.split_first()) {
        let Some(field) = fields.iter().find(|f| f.name() == name) else { return false };
        data_type = field.data_type();
        path = rest;
    }
    true
}

fn damaged(bytes: &Bytes, offset: u64, error: &ParquetError) -> FormatError {
    let text = error.to_string();
    let text = text.strip_prefix("Parquet error: ").unwrap_or(&text);
    let problem = if !bytes.starts_with(b"PAR1") {
        format!("not a Parquet file: {text}")
    } else if !bytes.ends_with(b"PAR1") {
        format!("the Parquet file is cut off or still being written: it has no footer ({text})")
    } else {
        format!("the Parquet file is damaged: {text}")
    };
    FormatError::Damaged { offset, problem }
}

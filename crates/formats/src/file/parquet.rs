//! Parquet files, by row group.
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
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
    /// Reads the metadata of the file `bytes`. Rows come in `schema`: columns are found by name (with case) also inside structs, what the
    /// file does not have is null, and only the used columns are decompressed.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] if it is no Parquet file or cut off.
    pub fn open(bytes: Bytes, schema: &SchemaRef) -> Result<Self, FormatError> {
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new().with_skip_arrow_metadata(true))
            .map_err(|error| damaged(&bytes, bytes.len() as u64, &error))?;
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
        let bytes = self.bytes.clone();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), self.metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(self.mask.clone())
            .with_batch_size(batch_rows.max(1))
            .build()
            .map_err(|error| damaged(&bytes, offset, &error))?;
        let schema = Arc::clone(&self.schema);
        Ok(reader.map(move |batch| {
            let batch = batch.map_err(|error| damaged(&bytes, offset, &ParquetError::General(error.to_string())))?;
            let rows = batch.num_rows();
            let columns = adapt::columns(batch.schema().fields(), batch.columns(), schema.fields(), rows)?;
            let with_count = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &with_count)?)
        }))
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

//! One record batch as bytes, for state entries.
use std::io::Cursor;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;

/// Arrow IPC stream with one batch.
///
/// # Errors
/// A type that IPC cannot carry.
pub fn encode(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::with_capacity(batch.get_array_memory_size() / 2), &batch.schema())?;
    writer.write(batch)?;
    writer.finish()?;
    writer.into_inner()
}

/// The batch in `bytes`, which must have this schema. Contents are validated.
///
/// # Errors
/// Damaged bytes, another schema, not exactly one batch.
pub fn decode(bytes: &[u8], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    if reader.schema() != *schema {
        return Err(ArrowError::SchemaError(format!("expected {schema}, found {}", reader.schema())));
    }
    let batch = reader.next().ok_or_else(|| ArrowError::IpcError("no batch".to_owned()))??;
    match reader.next() {
        None => Ok(batch),
        Some(_) => Err(ArrowError::IpcError("more than one batch".to_owned())),
    }
}
